//! The request target: a plain origin-form path and query, or nothing (RFC 9112 §3.2.1, RFC 3986 §3.3).
//!
//! A path that a second reader could normalise into another one is refused, never normalised: the PAM would be that
//! second reader, and the route would have been chosen for a path it does not see.

use std::fmt;

use bytes::Bytes;

/// A target in origin form whose path means the same to every reader.
#[derive(Clone)]
pub struct Target {
    raw: Bytes,
    path_end: usize,
}

/// Shows nothing of it: a query may carry a token.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target(…)")
    }
}

/// What keeps a target from being plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// Absolute form, `*`, or anything else that does not start with `/`.
    Form,
    /// A byte RFC 3986 has no place for: control, blank, `"`, `<`, `>`, `\`, `^`, `` ` ``, `{`, `|`, `}`, `#`, non-ASCII.
    Byte,
    /// `%` not followed by two hexadecimal digits.
    Percent,
    /// An encoded `/ \ . % ;`, control character or invalid UTF-8 in the path.
    Encoded,
    /// A segment that is `.` or `..`.
    DotSegment,
    /// `//`.
    EmptySegment,
    /// `;`: some readers cut it off a path as a parameter, some split a query at it.
    Semicolon,
}

impl Target {
    /// Reads a target strictly.
    pub fn parse(raw: Bytes) -> Result<Target, TargetFault> {
        if raw.first() != Some(&b'/') {
            return Err(TargetFault::Form);
        }
        let path_end = raw.iter().position(|&byte| byte == b'?').unwrap_or(raw.len());
        if let Some(bad) = raw.iter().position(|&byte| !ALLOWED[usize::from(byte)]) {
            return Err(if raw.get(bad) == Some(&b';') { TargetFault::Semicolon } else { TargetFault::Byte });
        }
        let (path, query) = raw.split_at(path_end);
        if !is_plain(path) {
            check_path(path)?;
        }
        if !percent_encoding_is_whole(query) {
            return Err(TargetFault::Percent);
        }
        Ok(Target { raw, path_end })
    }

    /// The path as sent, from its `/` to the `?` or the end.
    pub fn path(&self) -> &str {
        text(self.raw.get(..self.path_end))
    }

    /// The query as sent, without its `?`; empty when there is none.
    pub fn query(&self) -> &str {
        text(self.raw.get(self.path_end + 1..))
    }

    /// Path and query as sent.
    pub fn as_str(&self) -> &str {
        text(Some(&self.raw))
    }

    /// The values of a query parameter, decoded (`+` stays a plus: its meaning depends on the reader).
    /// A value that is not UTF-8 comes as `None`.
    pub fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Option<String>> + 'a {
        self.query().split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(key.as_bytes())?;
            (key == name.as_bytes()).then(|| decode(value.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok()))
        })
    }
}

/// Only ASCII passes [`Target::parse`], so this never loses anything.
fn text(bytes: Option<&[u8]>) -> &str {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Has nothing in it that could be a fault: no encoding, and no segment that is empty or begins with a dot. Nearly every path
/// is like this.
fn is_plain(path: &[u8]) -> bool {
    let mut before = b'.';
    path.iter()
        .all(|&byte| byte != b'%' && (std::mem::replace(&mut before, byte) != b'/' || !matches!(byte, b'/' | b'.')))
}

fn check_path(path: &[u8]) -> Result<(), TargetFault> {
    if path.windows(2).any(|pair| pair == b"//") {
        return Err(TargetFault::EmptySegment);
    }
    for segment in path.split(|&byte| byte == b'/') {
        if segment == b"." || segment == b".." {
            return Err(TargetFault::DotSegment);
        }
        if !segment.contains(&b'%') {
            continue;
        }
        let decoded = decode(segment).ok_or(TargetFault::Percent)?;
        // Twice as many encodings as needed is where two readers part: what decodes to a delimiter, to a dot or to
        // another encoding is refused.
        let ambiguous = |byte: &u8| matches!(byte, b'/' | b'\\' | b'%' | b';' | 0..=0x20 | 0x7f);
        let encoded_dot = segment.windows(3).any(|run| run.eq_ignore_ascii_case(b"%2e"));
        if encoded_dot || decoded.iter().any(ambiguous) || std::str::from_utf8(&decoded).is_err() {
            return Err(TargetFault::Encoded);
        }
    }
    Ok(())
}

/// Every `%` is followed by two hexadecimal digits.
fn percent_encoding_is_whole(text: &[u8]) -> bool {
    let encodings = text.iter().enumerate().filter(|&(_, &byte)| byte == b'%');
    encodings.into_iter().all(|(at, _)| {
        let digits = text.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Percent-decoding (RFC 3986 §2.1); `None` when a `%` is not followed by two hexadecimal digits.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            decoded.push(hex(*digits.first()?)? << 4 | hex(*digits.last()?)?);
            rest = tail;
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    Some(decoded)
}

/// The bytes of RFC 3986 `pchar`, `/`, `?` and `%`, all but `;`: in a path some readers cut it off, in a query some split at it.
const ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let code = byte as u8;
        table[byte] = code.is_ascii_alphanumeric()
            || matches!(
                code,
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b','
            )
            || matches!(code, b'=' | b':' | b'@' | b'/' | b'?' | b'%');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, TargetFault> {
        Target::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_plain_target_keeps_its_bytes() {
        let target = parse("/players/a%20b?x=%2F..&provider=Evolution").unwrap_err();
        assert_eq!(target, TargetFault::Encoded);
        let target = parse("/players/a%C3%A9b?x=%2F..&provider=Evolution").unwrap();
        assert_eq!(target.path(), "/players/a%C3%A9b");
        assert_eq!(target.query(), "x=%2F..&provider=Evolution");
        assert_eq!(target.parameters("provider").collect::<Vec<_>>(), [Some("Evolution".to_owned())]);
    }

    #[test]
    fn what_could_be_read_as_another_path_is_refused() {
        let cases = [
            ("*", TargetFault::Form),
            ("http://pam/a", TargetFault::Form),
            ("//pam/a", TargetFault::EmptySegment),
            ("/a//b", TargetFault::EmptySegment),
            ("/a/./b", TargetFault::DotSegment),
            ("/a/../b", TargetFault::DotSegment),
            ("/a/..", TargetFault::DotSegment),
            ("/a/%2e%2e/b", TargetFault::Encoded),
            ("/a/%2E./b", TargetFault::Encoded),
            ("/a/x%2ey", TargetFault::Encoded),
            ("/a%2fb", TargetFault::Encoded),
            ("/a%252fb", TargetFault::Encoded),
            ("/a%5cb", TargetFault::Encoded),
            ("/a%3bb", TargetFault::Encoded),
            ("/a%00", TargetFault::Encoded),
            ("/a%0d%0a", TargetFault::Encoded),
            ("/a%7f", TargetFault::Encoded),
            ("/a%c0%af", TargetFault::Encoded),
            ("/a%2", TargetFault::Percent),
            ("/a%zz", TargetFault::Percent),
            ("/a?b=%", TargetFault::Percent),
            ("/a;b", TargetFault::Semicolon),
            ("/a?b=c;d=e", TargetFault::Semicolon),
            ("/a\\b", TargetFault::Byte),
            ("/a#b", TargetFault::Byte),
            ("/a\u{e9}", TargetFault::Byte),
            ("/a\u{7f}", TargetFault::Byte),
        ];
        for (text, fault) in cases {
            assert_eq!(parse(text).err(), Some(fault), "{text:?}");
        }
    }

    #[test]
    fn a_parameter_is_found_under_every_spelling_of_its_name() {
        let target = parse("/a?pr%6Fvider=x&provider=y&Provider=z").unwrap();
        assert_eq!(target.parameters("provider").count(), 2);
    }
}
