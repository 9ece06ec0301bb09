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

    /// As it was logged: 32 hexadecimal digits, in either case.
    pub fn parse(text: &str) -> Option<TokenDigest> {
        // `from_str_radix` alone would take a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(TokenDigest(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }
}

/// All of it in hexadecimal, so that an operator can end by it what stands in the log. Without the key it says nothing of
/// the token.
impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({self})")
    }
}

/// Whether a well-formed token still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that ended it is known.
    Alive,
    /// An answer of the PAM or an operator ended it.
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
    fn a_digest_is_read_as_it_is_shown() {
        let digest = TokenDigest::of(b"3dc8fe01-2018-486e-9632-35aef21028a5", &DigestKey::new([1; 32]));
        let shown = digest.to_string();
        assert_eq!(shown.len(), 32);
        assert_eq!(format!("{digest:?}"), format!("TokenDigest({shown})"));
        assert_eq!(TokenDigest::parse(&shown), Some(digest));
        assert_eq!(TokenDigest::parse(&shown.to_uppercase()), Some(digest));
        assert_eq!(TokenDigest::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]).to_string(), SHOWN);
        let signed = format!("+{}", &shown[1..]);
        for bad in ["", &shown[1..], &format!("{shown}0"), &format!("{}g", &shown[1..]), &signed, &"é".repeat(16)] {
            assert_eq!(TokenDigest::parse(bad), None, "{bad}");
        }
    }

    const SHOWN: &str = "000102030405060708090a0b0c0d0eff";
}
