//! The player token: what it must look like, how it is remembered, whether it is alive.

use std::fmt;

use crate::secret::{DigestKey, Purpose};

/// What a player token must look like before anyone is asked about it: visible ASCII without blanks, of a bounded length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRule {
    /// Fewest characters.
    pub shortest: usize,
    /// Most characters.
    pub longest: usize,
}

impl TokenRule {
    /// True when `token` is visible ASCII (0x21 to 0x7e) and neither too short nor too long.
    pub fn admits(&self, token: &[u8]) -> bool {
        (self.shortest..=self.longest).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic)
    }
}

/// A player token as it is remembered and logged: 128 bits of a keyed digest, never the token.
///
/// With ten million tokens remembered, the chance that any two share a digest is below 2⁻⁸¹: exact for every purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenDigest([u8; 16]);

impl TokenDigest {
    /// The digest of a token under this process's key.
    pub fn of(token: &[u8], key: &DigestKey) -> TokenDigest {
        let whole = key.digest(Purpose::Token, token).0;
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        TokenDigest(half)
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As it was stored.
    pub fn from_bytes(bytes: [u8; 16]) -> TokenDigest {
        TokenDigest(bytes)
    }
}

/// The first 32 bits in hexadecimal: enough to follow one token through a log, too little to find it again.
impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({self}…)")
    }
}

/// Whether a well-formed token still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that ended it is known.
    Alive,
    /// An answer of the PAM ended it.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_counts_characters_and_refuses_everything_invisible() {
        let rule = TokenRule { shortest: 2, longest: 4 };
        let cases: [(&[u8], bool); 9] = [
            (b"a", false),
            (b"ab", true),
            (b"abcd", true),
            (b"abcde", false),
            (b"a b", false),
            (b"a\tb", false),
            (b"ab\0", false),
            (b"a\x7fb", false),
            ("aé".as_bytes(), false),
        ];
        for (token, admitted) in cases {
            assert_eq!(rule.admits(token), admitted, "{token:?}");
        }
    }

    #[test]
    fn a_digest_shows_eight_digits_at_most() {
        let digest = TokenDigest::of(b"3dc8fe01-2018-486e-9632-35aef21028a5", &DigestKey::new([1; 32]));
        assert_eq!(digest.to_string().len(), 8);
        assert_eq!(format!("{digest:?}"), format!("TokenDigest({digest}…)"));
    }
}
