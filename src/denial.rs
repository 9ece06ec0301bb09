//! Why a request is refused ([`Denial`], for our log) and what its caller may be told ([`Disclosure`]).
//!
//! Many denials, few disclosures: a dialect only ever sees the disclosure, so that its error bodies cannot tell an attacker
//! whether the user, the password or the signature was wrong. Every `match` here is without a `_` arm: who adds a denial
//! decides what it discloses.

mod every;

use crate::json::JsonFault;
use crate::request::HeadFault;
use crate::upstream::FailureKind;

/// The checks of the gate, in their order, and the exchange with the PAM behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Check {
    Route,
    Size,
    Credential,
    Signature,
    Freshness,
    Token,
    Standing,
    Rate,
    Upstream,
}

/// Why a request was refused. Never holds anything the caller sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The head breaks the rules of HTTP or of the house.
    Head(HeadFault),
    /// A trusted proxy does not say in a readable way who calls.
    ForwardedMalformed,
    /// No route of the dialect has this method, path and action.
    NoRoute,
    /// A header that matters here is also there under a name with underscores, which many servers fold into one.
    TwinField,
    /// A parameter the route requires is missing, empty, repeated or not UTF-8.
    Parameter,
    /// A parameter that no one named, beside a body that decides.
    UnnamedParameter,

    /// The body is larger than the limit, by its length or by its bytes.
    BodyTooLarge,
    /// The body ended early.
    BodyCut,
    /// The body did not arrive in time.
    BodySlow,
    /// The body has a Content-Encoding, and a route reads it.
    ContentEncoding,
    /// The body is not declared as JSON, and a route reads it.
    ContentType,
    /// The body is not one strict JSON value.
    Json(JsonFault),

    /// No Authorization.
    CredentialMissing,
    /// Several Authorization fields.
    CredentialRepeated,
    /// Authorization is not well formed, or of a scheme the dialect does not take.
    CredentialMalformed,
    /// Nobody has this user, password or key.
    CredentialWrong,
    /// The connection shows no certificate, or not one that the caller is bound to.
    CertificateOther,
    /// The caller may not call from where it does.
    CallerElsewhere,
    /// The caller may not use this route.
    CallerNotAllowed,

    /// A signature, or what it needs (timestamp, nonce, key id), is missing.
    SignatureMissing,
    /// It is there more than once.
    SignatureRepeated,
    /// It is not in its format.
    SignatureMalformed,
    /// Nobody has this key id.
    KeyUnknown,
    /// No secret of the caller gives this signature.
    SignatureWrong,

    /// The timestamp is not a plain number of the right length.
    TimestampMalformed,
    /// The timestamp is too far in the past.
    Stale,
    /// The timestamp is too far in the future.
    Early,
    /// This signed message was admitted before.
    Replayed,
    /// A copy of this message is with the PAM, and what comes of it is not known yet.
    CopyInFlight,
    /// The memory of signed messages is full for this caller.
    ReplayMemoryFull,

    /// No player token.
    TokenMissing,
    /// Several player tokens.
    TokenRepeated,
    /// The player token breaks the rule for its length or characters, or is not a string.
    TokenMalformed,
    /// The player token has ended.
    TokenEnded,
    /// The PAM said a moment ago that the player token is expired or unknown.
    TokenPresumedEnded,
    /// The memory of ended tokens is full: a request that may end one cannot be let through.
    RevocationFull,

    /// The journal cannot be written: a request that may end a token cannot be let through.
    JournalFailing,
    /// The answer ended a token, and the journal could not be written in time: it may not be released.
    JournalFailed,

    /// The store that replicas share is away, and the rules say to refuse meanwhile.
    StoreAway,
    /// The answer ended a token, and the store did not take it in time: it may not be released.
    StoreFailed,

    /// Too many requests come from this address; seconds until there is room again.
    RateAddress(u32),
    /// The caller sends too many requests; seconds until there is room again.
    RateCaller(u32),
    /// Whoever claims to be this caller, at this address, has failed too often to prove it; seconds until it may try again.
    LockedOut(u32),
    /// Too many passwords wait to be verified.
    PasswordQueueFull,
    /// As many requests as may be are with the PAM already.
    InFlightFull,
    /// The exchange with the PAM failed, and not one byte of the request was sent.
    Unsent(FailureKind),
    /// The exchange with the PAM failed.
    Upstream(FailureKind),
    /// The answer may have ended a token and cannot be read.
    AnswerUnreadable,
    /// Portcullis is at fault.
    Internal,
}

/// What a caller may be told. A dialect has a reply for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disclosure {
    /// The call did not prove who makes it, or that its bytes are the signed ones.
    Unauthenticated,
    /// The player token is missing or malformed.
    TokenInvalid,
    /// The player token has ended.
    TokenEnded,
    /// No such route.
    NotFound,
    /// A required parameter is missing.
    MissingParameter,
    /// The request is malformed; the status is the one HTTP has for it (400, 405, 408, 411, 413, 414, 415, 417, 431, 505).
    BadRequest(u16),
    /// We failed.
    Internal,
    /// The PAM's answer was broken; whether the PAM acted is unknown.
    BadGateway,
    /// Nothing was forwarded; it may be tried again.
    Unavailable,
    /// Nothing was forwarded, since too much is asked; it may be tried again later.
    TooManyRequests,
    /// The PAM did not answer in time; whether it acted is unknown.
    Timeout,
}

impl Denial {
    /// The check that refused.
    pub fn check(self) -> Check {
        match self {
            Denial::Head(HeadFault::TooLarge | HeadFault::TargetTooLong | HeadFault::Slow) => Check::Size,
            Denial::Head(
                HeadFault::RequestLine
                | HeadFault::Version
                | HeadFault::Method
                | HeadFault::Target(_)
                | HeadFault::Field(_)
                | HeadFault::Host
                | HeadFault::ContentLength
                | HeadFault::TransferEncoding
                | HeadFault::Connection
                | HeadFault::Upgrade
                | HeadFault::Expect,
            )
            | Denial::ForwardedMalformed
            | Denial::NoRoute
            | Denial::TwinField
            | Denial::Parameter
            | Denial::UnnamedParameter => Check::Route,
            Denial::BodyTooLarge
            | Denial::BodyCut
            | Denial::BodySlow
            | Denial::ContentEncoding
            | Denial::ContentType
            | Denial::Json(_) => Check::Size,
            Denial::CredentialMissing
            | Denial::CredentialRepeated
            | Denial::CredentialMalformed
            | Denial::CredentialWrong
            | Denial::CertificateOther
            | Denial::CallerElsewhere
            | Denial::CallerNotAllowed
            | Denial::PasswordQueueFull => Check::Credential,
            Denial::SignatureMissing
            | Denial::SignatureRepeated
            | Denial::SignatureMalformed
            | Denial::KeyUnknown
            | Denial::SignatureWrong => Check::Signature,
            Denial::TimestampMalformed
            | Denial::Stale
            | Denial::Early
            | Denial::Replayed
            | Denial::CopyInFlight
            | Denial::ReplayMemoryFull => Check::Freshness,
            Denial::TokenMissing | Denial::TokenRepeated | Denial::TokenMalformed => Check::Token,
            Denial::TokenEnded
            | Denial::TokenPresumedEnded
            | Denial::RevocationFull
            | Denial::JournalFailing
            | Denial::StoreAway => Check::Standing,
            Denial::RateAddress(_) | Denial::RateCaller(_) | Denial::LockedOut(_) => Check::Rate,
            Denial::InFlightFull
            | Denial::Unsent(_)
            | Denial::Upstream(_)
            | Denial::AnswerUnreadable
            | Denial::JournalFailed
            | Denial::StoreFailed
            | Denial::Internal => Check::Upstream,
        }
    }

    /// What the caller may be told of it.
    pub fn disclosure(self) -> Disclosure {
        match self {
            Denial::Head(fault) => Disclosure::BadRequest(fault.status()),
            Denial::NoRoute => Disclosure::NotFound,
            Denial::ForwardedMalformed
            | Denial::TwinField
            | Denial::UnnamedParameter
            | Denial::BodyCut
            | Denial::Json(_) => Disclosure::BadRequest(400),
            Denial::Parameter => Disclosure::MissingParameter,
            Denial::BodyTooLarge => Disclosure::BadRequest(413),
            Denial::BodySlow => Disclosure::BadRequest(408),
            Denial::ContentEncoding | Denial::ContentType => Disclosure::BadRequest(415),
            Denial::CredentialMissing
            | Denial::CredentialRepeated
            | Denial::CredentialMalformed
            | Denial::CredentialWrong
            | Denial::CertificateOther
            | Denial::CallerElsewhere
            | Denial::CallerNotAllowed
            | Denial::SignatureMissing
            | Denial::SignatureRepeated
            | Denial::SignatureMalformed
            | Denial::KeyUnknown
            | Denial::SignatureWrong
            | Denial::TimestampMalformed
            | Denial::Stale
            | Denial::Early
            | Denial::Replayed => Disclosure::Unauthenticated,
            Denial::TokenMissing | Denial::TokenRepeated | Denial::TokenMalformed => Disclosure::TokenInvalid,
            Denial::TokenEnded | Denial::TokenPresumedEnded => Disclosure::TokenEnded,
            Denial::CopyInFlight
            | Denial::ReplayMemoryFull
            | Denial::RevocationFull
            | Denial::JournalFailing
            | Denial::StoreAway
            | Denial::PasswordQueueFull
            | Denial::InFlightFull
            | Denial::Unsent(_) => Disclosure::Unavailable,
            Denial::RateAddress(_) | Denial::RateCaller(_) | Denial::LockedOut(_) => Disclosure::TooManyRequests,
            Denial::Upstream(failure) => match failure {
                FailureKind::Timeout => Disclosure::Timeout,
                FailureKind::Connect
                | FailureKind::ConnectTimeout
                | FailureKind::Certificate
                | FailureKind::Tls
                | FailureKind::Write
                | FailureKind::Closed
                | FailureKind::Malformed(_)
                | FailureKind::TooLarge
                | FailureKind::Unasked101
                | FailureKind::NoHttp2
                | FailureKind::NotForHttp2
                | FailureKind::Full
                | FailureKind::Unprocessed => Disclosure::BadGateway,
            },
            Denial::AnswerUnreadable | Denial::JournalFailed | Denial::StoreFailed => Disclosure::BadGateway,
            Denial::Internal => Disclosure::Internal,
        }
    }

    /// Seconds after which a call that was not forwarded may be tried again (RFC 9110 §10.2.3).
    pub fn retry_after(self) -> Option<u32> {
        match (self, self.disclosure()) {
            (Denial::RateAddress(time) | Denial::RateCaller(time) | Denial::LockedOut(time), _) => Some(time),
            // What stands in its way passes within moments or not soon, and the header knows nothing finer.
            (_, Disclosure::Unavailable) => Some(1),
            _ => None,
        }
    }

    /// Whether somebody claimed to be a caller and did not prove it.
    ///
    /// Who leaves the credential away has not guessed: some callers ask without one first. But behind a right credential all
    /// that is missing counts, and so does a right proof from elsewhere: if it did not, whether a guess counts would tell
    /// whether the password was right.
    pub fn is_failed_proof(self) -> bool {
        matches!(
            self,
            Denial::CredentialWrong
                | Denial::SignatureMissing
                | Denial::SignatureRepeated
                | Denial::SignatureMalformed
                | Denial::KeyUnknown
                | Denial::SignatureWrong
                | Denial::CertificateOther
                | Denial::CallerElsewhere
        )
    }

    /// Whether it is what came of a request that had passed every check.
    pub fn follows_admission(self) -> bool {
        matches!(
            self,
            Denial::Unsent(_)
                | Denial::Upstream(_)
                | Denial::AnswerUnreadable
                | Denial::JournalFailed
                | Denial::StoreFailed
        )
    }

    /// One word for logs and metrics, from a closed set.
    pub fn reason(self) -> &'static str {
        match self {
            Denial::Head(fault) => fault.as_str(),
            Denial::ForwardedMalformed => "forwarded_malformed",
            Denial::NoRoute => "no_route",
            Denial::TwinField => "twin_field",
            Denial::Parameter => "parameter",
            Denial::UnnamedParameter => "unnamed_parameter",
            Denial::BodyTooLarge => "body_too_large",
            Denial::BodyCut => "body_cut",
            Denial::BodySlow => "body_timeout",
            Denial::ContentEncoding => "content_encoding",
            Denial::ContentType => "content_type",
            Denial::Json(fault) => fault.as_str(),
            Denial::CredentialMissing => "credential_missing",
            Denial::CredentialRepeated => "credential_repeated",
            Denial::CredentialMalformed => "credential_malformed",
            Denial::CredentialWrong => "credential_wrong",
            Denial::CertificateOther => "certificate_other",
            Denial::CallerElsewhere => "caller_elsewhere",
            Denial::CallerNotAllowed => "caller_not_allowed",
            Denial::SignatureMissing => "signature_missing",
            Denial::SignatureRepeated => "signature_repeated",
            Denial::SignatureMalformed => "signature_malformed",
            Denial::KeyUnknown => "key_unknown",
            Denial::SignatureWrong => "signature_wrong",
            Denial::TimestampMalformed => "timestamp_malformed",
            Denial::Stale => "stale",
            Denial::Early => "early",
            Denial::Replayed => "replayed",
            Denial::CopyInFlight => "copy_in_flight",
            Denial::ReplayMemoryFull => "replay_memory_full",
            Denial::TokenMissing => "token_missing",
            Denial::TokenRepeated => "token_repeated",
            Denial::TokenMalformed => "token_malformed",
            Denial::TokenEnded => "token_ended",
            Denial::TokenPresumedEnded => "token_presumed_ended",
            Denial::RevocationFull => "revocation_memory_full",
            Denial::JournalFailing => "journal_failing",
            Denial::JournalFailed => "journal_failed",
            Denial::StoreAway => "store_away",
            Denial::StoreFailed => "store_failed",
            Denial::RateAddress(_) => "rate_address",
            Denial::RateCaller(_) => "rate_caller",
            Denial::LockedOut(_) => "locked_out",
            Denial::PasswordQueueFull => "password_queue_full",
            Denial::InFlightFull => "in_flight_full",
            Denial::Unsent(failure) | Denial::Upstream(failure) => failure.as_str(),
            Denial::AnswerUnreadable => "answer_unreadable",
            Denial::Internal => "internal",
        }
    }
}

impl Check {
    /// Those that can be told to let pass what fails them. The others protect this process, or speak for the PAM.
    pub const WEIGHED: [Check; 8] = [
        Check::Rate,
        Check::Route,
        Check::Size,
        Check::Credential,
        Check::Signature,
        Check::Freshness,
        Check::Token,
        Check::Standing,
    ];

    /// Every check, in order.
    pub const ALL: [Check; 9] = [
        Check::Route,
        Check::Size,
        Check::Credential,
        Check::Signature,
        Check::Freshness,
        Check::Token,
        Check::Standing,
        Check::Rate,
        Check::Upstream,
    ];

    /// One word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Check::Route => "route",
            Check::Size => "size",
            Check::Credential => "credential",
            Check::Signature => "signature",
            Check::Freshness => "freshness",
            Check::Token => "token",
            Check::Standing => "standing",
            Check::Rate => "rate",
            Check::Upstream => "upstream",
        }
    }
}
