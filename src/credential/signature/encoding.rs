//! How a signature is spelled: hexadecimal in either case, base64, base64url. Decoded strictly, compared as bytes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::hex;

/// A spelling of bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Two digits a byte, either case (RFC 4648 §8).
    Hex,
    /// With padding (RFC 4648 §4).
    Base64,
    /// With or without padding (RFC 4648 §5).
    Base64Url,
}

impl Encoding {
    /// The encodings by the names dialects have for them.
    pub const WORDS: [(&str, Encoding); 3] =
        [("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];

    /// The bytes, or `None` when the text is anything but their exact spelling.
    pub fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Encoding::Hex => hex::decode(text),
            Encoding::Base64 => STANDARD.decode(text).ok(),
            Encoding::Base64Url if text.ends_with(b"=") => URL_SAFE.decode(text).ok(),
            Encoding::Base64Url => URL_SAFE_NO_PAD.decode(text).ok(),
        }
    }

    /// The text for `bytes`; hexadecimal in lower case, base64url without padding.
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
            Encoding::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_spelling_decodes() {
        let cases = [
            (Encoding::Hex, "00fF", Some(vec![0, 255])),
            (Encoding::Hex, "00f", None),
            (Encoding::Hex, "0x00", None),
            (Encoding::Hex, " 00f", None),
            (Encoding::Hex, "g0", None),
            (Encoding::Base64, "+/8=", Some(vec![251, 255])),
            (Encoding::Base64, "+/8", None),
            (Encoding::Base64, "+/9=", None),
            (Encoding::Base64, "-_8=", None),
            (Encoding::Base64, "+/8=\n", None),
            (Encoding::Base64Url, "-_8=", Some(vec![251, 255])),
            (Encoding::Base64Url, "-_8", Some(vec![251, 255])),
            (Encoding::Base64Url, "+/8", None),
        ];
        for (encoding, text, bytes) in cases {
            assert_eq!(encoding.decode(text.as_bytes()), bytes, "{encoding:?} {text:?}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_again() {
        for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
            let bytes: Vec<u8> = (0..=255).collect();
            assert_eq!(encoding.decode(encoding.encode(&bytes).as_bytes()).as_deref(), Some(&bytes[..]));
        }
    }
}
