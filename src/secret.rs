//! Secrets: they print nothing, compare in constant time and are wiped from memory when dropped.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret's bytes. `Debug` prints a placeholder, there is no `Display`, and dropping it wipes the memory.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes as they are.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// The bytes, for the one computation that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A key drawn at start, under which what is secret can be compared, looked up and logged as a digest.
///
/// An attacker who does not know it can neither aim at a slot of a table nor learn by timing how far a guess was right.
#[derive(Clone)]
pub struct DigestKey {
    bytes: Zeroizing<[u8; 32]>,
    /// What has absorbed the key, the purpose and zeros up to the end of a block: it need not be done for each request.
    credentials: Sha256,
}

impl DigestKey {
    /// Wraps 32 bytes from a CSPRNG.
    pub fn new(bytes: [u8; 32]) -> DigestKey {
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(bytes.iter().chain(&[Purpose::Credential as u8])).for_each(|(place, byte)| *place = *byte);
        DigestKey { credentials: Sha256::new().chain_update(*block), bytes: Zeroizing::new(bytes) }
    }

    /// The bytes, for those who keep them for the next process or share them with other replicas.
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// SHA-256 over key and text. The key has a fixed length and no more than half of a digest is ever shown, so that the
    /// plain prefix construction is as good as HMAC here, at half the price.
    ///
    /// Digests of tokens outlive the process, in journals and stores, so what they are made of cannot change.
    pub fn digest(&self, purpose: Purpose, text: &[u8]) -> SecretDigest {
        let begun = match purpose {
            Purpose::Credential => self.credentials.clone(),
            Purpose::Token | Purpose::StandIn | Purpose::Claim => {
                Sha256::new().chain_update(*self.bytes).chain_update([purpose as u8])
            }
        };
        SecretDigest(begun.chain_update(text).finalize().into())
    }
}

/// In the same time wherever two keys differ.
impl PartialEq for DigestKey {
    fn eq(&self, other: &DigestKey) -> bool {
        self.bytes.ct_eq(&*other.bytes).into()
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(…)")
    }
}

/// What a digest is for: the same text under two purposes gives unrelated digests.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// Passwords and bearer keys.
    Credential = 1,
    /// Player tokens.
    Token = 2,
    /// The choice of a stand-in for an unknown user.
    StandIn = 3,
    /// Whom a request claims to come from.
    Claim = 4,
}

/// A keyed digest. `==` takes the same time wherever two digests differ.
#[derive(Clone, Copy, Eq)]
pub struct SecretDigest(pub [u8; 32]);

/// Equal digests hash equally: both look at all 32 bytes.
impl Hash for SecretDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for SecretDigest {
    fn eq(&self, other: &SecretDigest) -> bool {
        let (words, []) = self.0.as_chunks::<8>() else { return false };
        let (others, []) = other.0.as_chunks::<8>() else { return false };
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        // All of them, whatever the first ones are.
        words.iter().zip(others).fold(0, |differ, (one, other)| differ | (word(one) ^ word(other))).ct_eq(&0).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        let key = DigestKey::new([7; 32]);
        let shown =
            format!("{:?} {:?} {:?}", Secret::new(b"hunter2".to_vec()), key, key.digest(Purpose::Token, b"hunter2"));
        assert_eq!(shown, "Secret(…) DigestKey(…) SecretDigest(…)");
    }

    #[test]
    fn digests_depend_on_key_purpose_and_text() {
        let key = DigestKey::new([7; 32]);
        let digest = key.digest(Purpose::Token, b"a");
        assert_eq!(digest, key.digest(Purpose::Token, b"a"));
        assert_ne!(digest, key.digest(Purpose::Token, b"b"));
        assert_ne!(digest, key.digest(Purpose::Credential, b"a"));
        assert_ne!(digest, DigestKey::new([8; 32]).digest(Purpose::Token, b"a"));
    }
}
