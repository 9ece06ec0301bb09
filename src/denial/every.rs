//! Every denial there is, for label sets that start at zero.

use super::Denial;
use crate::json::JsonFault;
use crate::request::HeadFault;
use crate::upstream::FailureKind;

impl Denial {
    /// One of each word that [`Denial::reason`] can give for each check.
    pub fn every() -> impl Iterator<Item = Denial> {
        let heads = HeadFault::ALL.into_iter().map(Denial::Head);
        let bodies = JsonFault::ALL.into_iter().map(Denial::Json);
        let exchanges = FailureKind::ALL.into_iter().map(Denial::Upstream);
        heads.chain(OWN).chain(bodies).chain(exchanges)
    }
}

/// Those that hold no fault of somebody else's.
const OWN: [Denial; 45] = [
    Denial::ForwardedMalformed,
    Denial::NoRoute,
    Denial::TwinField,
    Denial::Parameter,
    Denial::UnnamedParameter,
    Denial::BodyTooLarge,
    Denial::BodyCut,
    Denial::BodySlow,
    Denial::ContentEncoding,
    Denial::ContentType,
    Denial::CredentialMissing,
    Denial::CredentialRepeated,
    Denial::CredentialMalformed,
    Denial::CredentialWrong,
    Denial::CertificateOther,
    Denial::CallerElsewhere,
    Denial::CallerNotAllowed,
    Denial::SignatureMissing,
    Denial::SignatureRepeated,
    Denial::SignatureMalformed,
    Denial::KeyUnknown,
    Denial::SignatureWrong,
    Denial::TimestampMalformed,
    Denial::Stale,
    Denial::Early,
    Denial::Replayed,
    Denial::CopyInFlight,
    Denial::ReplayMemoryFull,
    Denial::TokenMissing,
    Denial::TokenRepeated,
    Denial::TokenMalformed,
    Denial::TokenEnded,
    Denial::TokenPresumedEnded,
    Denial::RevocationFull,
    Denial::JournalFailing,
    Denial::JournalFailed,
    Denial::StoreAway,
    Denial::StoreFailed,
    Denial::RateAddress(0),
    Denial::RateCaller(0),
    Denial::LockedOut(0),
    Denial::PasswordQueueFull,
    Denial::InFlightFull,
    Denial::AnswerUnreadable,
    Denial::Internal,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The words stand in the sources behind an arrow, and nothing else does in these functions.
    fn words(source: &str, function: &str) -> BTreeSet<String> {
        let (_, behind) = source.split_once(function).unwrap();
        let (function, _) = behind.split_once("\n    }\n").unwrap();
        let arms = function.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next());
        arms.map(str::to_owned).collect()
    }

    #[test]
    fn none_is_missing() {
        let told: BTreeSet<String> = Denial::every().map(|denial| denial.reason().to_owned()).collect();
        let word = "fn as_str(self) -> &'static str {\n        match self {\n            ";
        let written = [
            words(include_str!("../denial.rs"), "pub fn reason(self)"),
            words(include_str!("../request.rs"), &format!("{word}HeadFault")),
            words(include_str!("../json.rs"), &format!("{word}JsonFault")),
            words(include_str!("../upstream.rs"), &format!("{word}FailureKind")),
        ];
        let written: BTreeSet<String> = written.into_iter().flatten().collect();
        assert_eq!(told, written);
        assert!(told.len() > 80, "{}", told.len());
    }
}
