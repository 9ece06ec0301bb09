//! What the caller took for the key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::super::{Encoding, Scheme};
use super::Mistake;
use crate::credential::Callers;
use crate::secret::Secret;

/// Whose secrets may have been used.
#[derive(Clone, Copy)]
pub struct Suspects<'a> {
    /// All callers.
    pub callers: &'a Callers,
    /// The secrets of their keys as the config has them, in the same order.
    pub secrets: &'a [Vec<Secret>],
    /// Who should have signed; `None` when the signature is to tell.
    pub caller: Option<usize>,
}

/// A key to try.
pub(super) struct Candidate {
    pub bytes: Zeroizing<Vec<u8>>,
    pub mistake: Option<Mistake>,
    pub whose: String,
}

/// The right ones first.
pub(super) fn all(scheme: &Scheme, suspects: &Suspects<'_>) -> Vec<Candidate> {
    let mut right = Vec::new();
    let mut wrong = Vec::new();
    for (index, (caller, secrets)) in suspects.callers.iter().zip(suspects.secrets).enumerate() {
        let is_meant = suspects.caller.is_none_or(|meant| meant == index);
        for (key, secret) in caller.keys.iter().zip(secrets) {
            let whose = format!("{}, key {}", caller.name, key.id);
            let text = secret.expose();
            let Ok(bytes) = scheme.key_form.key(text) else { continue };
            if !is_meant {
                let what = format!("the caller signed with the secret of `{}` (key {})", caller.name, key.id);
                let advice = "each caller signs with its own secret, and says who it is";
                wrong.push(Candidate { bytes, mistake: Some(Mistake::new(what, advice)), whose });
                continue;
            }
            let mut other = |bytes: Option<Vec<u8>>, what: &str, advice: &str| {
                let mistake = Some(Mistake::new(what, advice));
                let bytes = bytes.filter(|bytes| !bytes.is_empty()).map(Zeroizing::new);
                wrong.extend(bytes.map(|bytes| Candidate { bytes, mistake, whose: whose.clone() }));
            };
            const AS_IT_IS: &str = "use the secret's characters as they are";
            let decoded = scheme.key_form.encoding.is_some();
            let right_way = if decoded { "decode it as this family does" } else { AS_IT_IS };
            if scheme.key_form.encoding != Some(Encoding::Base64) {
                let what = "the caller decoded the secret from base64 to make the key";
                other(STANDARD.decode(text).ok(), what, right_way);
            }
            if scheme.key_form.encoding != Some(Encoding::Base64Url) {
                let what = "the caller decoded the secret from base64url to make the key";
                other(Encoding::Base64Url.decode(text), what, right_way);
            }
            if scheme.key_form.encoding != Some(Encoding::Hex) {
                let what = "the caller decoded the secret from hexadecimal to make the key";
                other(Encoding::Hex.decode(text), what, right_way);
            }
            if decoded || !scheme.key_form.prefix.is_empty() {
                let what = "the caller took the secret as it is for the key";
                let advice = "take its prefix off and decode it first, as this family does";
                other(Some(text.to_vec()), what, advice);
            }
            other(
                Some([text, b"\n"].concat()),
                "the caller's secret has a line feed at its end",
                "store it without one (`printf` instead of `echo`)",
            );
            other(
                Some(text.trim_ascii().to_vec()).filter(|trimmed| trimmed != text),
                "the caller's secret lacks blanks that ours has at its ends",
                "store it alike on both sides",
            );
            other(
                Some(STANDARD.encode(text).into_bytes()),
                "the caller took the base64 of the secret for the key",
                right_way,
            );
            right.push(Candidate { bytes, mistake: None, whose });
        }
    }
    right.extend(wrong);
    right
}
