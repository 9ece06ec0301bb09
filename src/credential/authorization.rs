//! The Authorization field: Basic (RFC 7617) and Bearer (RFC 6750), read strictly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;
use zeroize::Zeroizing;

use crate::denial::Denial;

/// A credential as sent. Has no `Debug`.
pub enum Authorization {
    /// User and password.
    Basic(Basic),
    /// A key.
    Bearer(Zeroizing<Vec<u8>>),
}

/// The user-id and password of Basic authentication.
pub struct Basic {
    text: Zeroizing<String>,
    colon: usize,
}

/// An authentication scheme a dialect can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthScheme {
    /// RFC 7617.
    Basic,
    /// RFC 6750.
    Bearer,
}

impl Authorization {
    /// Reads a field value: scheme in any case, exactly one blank, then strict base64 or a key.
    ///
    /// A key is any visible ASCII, more than the `token68` of RFC 6750: it is compared whole, so what is in it cannot
    /// matter, and operators have keys with a colon in them.
    pub fn parse(value: &[u8]) -> Result<Authorization, Denial> {
        let blank = value.iter().position(|&byte| byte == b' ').ok_or(Denial::CredentialMalformed)?;
        let (scheme, rest) = value.split_at(blank);
        let rest = rest.get(1..).unwrap_or_default();
        if scheme.eq_ignore_ascii_case(b"basic") {
            Basic::decode(rest).map(Authorization::Basic).ok_or(Denial::CredentialMalformed)
        } else if scheme.eq_ignore_ascii_case(b"bearer") && is_key(rest) {
            Ok(Authorization::Bearer(Zeroizing::new(rest.to_vec())))
        } else {
            Err(Denial::CredentialMalformed)
        }
    }

    /// The scheme it was sent with.
    pub fn scheme(&self) -> AuthScheme {
        match self {
            Authorization::Basic(_) => AuthScheme::Basic,
            Authorization::Bearer(_) => AuthScheme::Bearer,
        }
    }
}

impl Basic {
    /// Strict base64 of `user:password` in UTF-8, divided at the first colon, without control characters (RFC 7617 §2).
    fn decode(text: &[u8]) -> Option<Basic> {
        let bytes = STANDARD.decode(text).ok()?;
        let text = Zeroizing::new(String::from_utf8(bytes).ok()?);
        let colon = memchr(b':', text.as_bytes())?;
        (!has_control(&text)).then_some(Basic { text, colon })
    }

    /// The user-id; has no colon.
    pub fn user(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The password; may have colons and may be empty.
    pub fn password(&self) -> &str {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

/// Beyond ASCII there are control characters too.
fn has_control(text: &str) -> bool {
    match text.is_ascii() {
        // All of them, also behind one: so it is done for many bytes at a time.
        true => text.bytes().fold(false, |any, byte| any | byte.is_ascii_control()),
        false => text.chars().any(char::is_control),
    }
}

/// What a bearer key can be made of: visible ASCII, at least one character.
pub fn is_key(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(value: &str) -> Option<(String, String)> {
        match Authorization::parse(value.as_bytes()) {
            Ok(Authorization::Basic(basic)) => Some((basic.user().to_owned(), basic.password().to_owned())),
            _ => None,
        }
    }

    // threat: C11
    #[test]
    fn basic_is_divided_at_the_first_colon_and_decoded_strictly() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(basic("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(basic("bAsIc dGVzdDoxMjPCow=="), pair("test", "123£"));
        assert_eq!(basic(&format!("Basic {}", STANDARD.encode("a:b:c"))), pair("a", "b:c"));
        assert_eq!(basic(&format!("Basic {}", STANDARD.encode("a:"))), pair("a", ""));
        for broken in [
            "Basic",
            "Basic ",
            "Basic QWxhZGRpbg==",
            "Basic  QTpC",
            "Basic\tQTpC",
            "Basic QTpC=",
            "Basic QTpC ",
            "Basic QT\npC",
            "Basic QTpDR",
            "Basic _zpC",
            "Negotiate QTpC",
        ] {
            assert_eq!(basic(broken), None, "{broken:?}");
        }
        assert_eq!(basic(&format!("Basic {}", STANDARD.encode("a\0:b"))), None);
        assert_eq!(basic(&format!("Basic {}", STANDARD.encode("a\x7f:b"))), None);
        assert_eq!(basic(&format!("Basic {}", STANDARD.encode("a\u{85}:b"))), None);
        assert_eq!(basic(&format!("Basic {}", STANDARD.encode(b"\xff:b"))), None);
    }

    #[test]
    fn a_bearer_key_is_visible_ascii() {
        for (value, good) in [
            ("Bearer abc-._~+/==", true),
            ("bearer abc", true),
            ("Bearer ", false),
            ("Bearer  abc", false),
            ("Bearer a b", false),
            ("Bearer a:b!c", true),
            ("Bearer a\tb", false),
            ("Bearer a\u{e9}", false),
        ] {
            assert_eq!(
                matches!(Authorization::parse(value.as_bytes()), Ok(Authorization::Bearer(_))),
                good,
                "{value:?}"
            );
        }
    }
}
