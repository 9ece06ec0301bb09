//! The head of an answer: status line, fields, and what they say about the body (RFC 9112 §4, §6).

use bytes::Bytes;
use memchr::memchr;

use super::framing::Framing;
use crate::fields::{FieldFault, Fields, Only, content_length, is_value_byte, members};

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// 100 to 599.
    pub(super) status: u16,
    pub(super) fields: Fields,
    /// The minor version: 0 or 1.
    minor: u8,
}

impl Head {
    /// Reads a head that ends, with its empty line, where `raw` ends. At most `most` fields.
    pub(super) fn parse(raw: Bytes, most: usize) -> Result<Head, &'static str> {
        let feed = memchr(b'\n', &raw).ok_or("status_line")?;
        let end = feed.checked_sub(1).filter(|end| raw.get(*end) == Some(&b'\r')).ok_or("status_line")?;
        let line = raw.get(..end).unwrap_or_default();
        let (minor, status) = status_line(line).ok_or("status_line")?;
        let fields = Fields::scan(raw, end + 2, most).map_err(FieldFault::as_str)?;
        Ok(Head { status, fields, minor })
    }

    /// Whether `bytes` are how a head starts. Lets a peer that speaks something else be found out
    /// at once, not when time is up.
    pub(super) fn may_start(bytes: &[u8]) -> bool {
        PROTOCOL.iter().zip(bytes).all(|(wanted, byte)| wanted == byte)
    }

    /// How the body ends (RFC 9112 §6.3), and whether the connection can serve another exchange
    /// behind it. `asked_head`: the request was HEAD.
    ///
    /// What is ambiguous is refused even where there is no body.
    pub(super) fn framing(&self, asked_head: bool) -> Result<(Framing, bool), &'static str> {
        let stated = self.stated()?;
        let (framing, settled) = match (self.status, stated) {
            (204, Framing::Length(0) | Framing::Close) => (Framing::Length(0), true),
            // There is none, but the peer that announced a body here may send it all the same.
            (204, _) => (Framing::Length(0), false),
            (304, _) => (Framing::Length(0), true),
            _ if asked_head => (Framing::Length(0), true),
            (_, Framing::Close) => (stated, false),
            _ => (stated, true),
        };
        Ok((framing, settled && self.persists()))
    }

    /// What the fields say about the body.
    fn stated(&self) -> Result<Framing, &'static str> {
        let coding = self.fields.only("transfer-encoding");
        let length = self.fields.only("content-length");
        match (coding, length) {
            (Only::None, Only::None) => Ok(Framing::Close),
            (Only::None, Only::One(length)) => content_length(length).map(Framing::Length).ok_or("length"),
            (Only::None, Only::Many) => Err("length"),
            (Only::One(coding), Only::None) => {
                let known = self.minor == 1 && coding.eq_ignore_ascii_case(b"chunked");
                known.then_some(Framing::CHUNKED).ok_or("coding")
            }
            (Only::One(_) | Only::Many, _) => Err("coding"),
        }
    }

    /// Whether the peer means to keep the connection (RFC 9112 §9.3).
    fn persists(&self) -> bool {
        let says = |option: &[u8]| {
            let mut options = self.fields.all("connection").flat_map(members);
            options.any(|said| said.eq_ignore_ascii_case(option))
        };
        !says(b"close") && (self.minor == 1 || says(b"keep-alive"))
    }
}

/// Minor version and status of `HTTP/1.[01] SP 3DIGIT SP [reason]`. The blank in front of an
/// absent reason is required (RFC 9112 §4) but often forgotten, and nothing hangs on it.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let [minor @ b'0'..=b'1', b' ', rest @ ..] = line.strip_prefix(PROTOCOL)? else {
        return None;
    };
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] = rest else {
        return None;
    };
    if !matches!(reason, [] | [b' ', ..]) || !reason.iter().copied().all(is_value_byte) {
        return None;
    }
    let status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0'));
    Some((minor - b'0', status))
}

const PROTOCOL: &[u8] = b"HTTP/1.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Head, &'static str> {
        Head::parse(Bytes::copy_from_slice(text.as_bytes()), 8)
    }

    /// How the body of an answer with these lines ends, in words, and whether it keeps the
    /// connection.
    fn framing(lines: &str, asked_head: bool) -> Result<(String, bool), &'static str> {
        let head = parse(&format!("{}\r\n\r\n", lines.replace('\n', "\r\n"))).unwrap();
        let (framing, keeps) = head.framing(asked_head)?;
        let framing = match framing {
            Framing::Length(length) => length.to_string(),
            Framing::Chunked(_) => "chunked".to_owned(),
            Framing::Close => "close".to_owned(),
        };
        Ok((framing, keeps))
    }

    fn framed(framing: &str, keeps: bool) -> Result<(String, bool), &'static str> {
        Ok((framing.to_owned(), keeps))
    }

    #[test]
    fn a_status_line_tells_version_and_status() {
        for (line, minor, status) in [
            ("HTTP/1.1 200 OK", 1, 200),
            ("HTTP/1.0 404 Not Found", 0, 404),
            ("HTTP/1.1 599 ", 1, 599),
            ("HTTP/1.1 100", 1, 100),
            ("HTTP/1.1 200 \u{e9}\t!", 1, 200),
        ] {
            let head = parse(&format!("{line}\r\n\r\n")).unwrap();
            assert_eq!((head.minor, head.status), (minor, status), "{line}");
        }
    }

    // threat: G2
    #[test]
    fn any_other_status_line_is_refused() {
        for line in [
            "",
            " ",
            "hello",
            "HTTP/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 200OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1\t200 OK",
            " HTTP/1.1 200 OK",
            "HTTP/1.1 200\tOK",
            "http/1.1 200 OK",
            "HTTP/1.2 200 OK",
            "HTTP/0.9 200 OK",
            "HTTP/2 200 OK",
            "HTTP/2.0 200 OK",
            "HTTP/1.10 200 OK",
            "HTTP/1.1 099 Low",
            "HTTP/1.1 600 High",
            "HTTP/1.1 2x0 OK",
            "HTTP/1.1 +20 OK",
            "HTTP/1.1 200 O\0K",
            "HTTP/1.1 200 O\x7fK",
            "HTTP/1.1 200 O\rK",
            "HTTP/1.1 200 O\nK",
            "ICY 200 OK",
        ] {
            let read = parse(&format!("{line}\r\n\r\n"));
            assert_eq!(read.err(), Some("status_line"), "{line:?}");
        }
        assert_eq!(parse("HTTP/1.1 200 OK").err(), Some("status_line"));
    }

    #[test]
    fn a_faulty_field_refuses_the_head() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\na : 1\r\n\r\n").err(), Some("name"));
        assert_eq!(parse("HTTP/1.1 200 OK\r\na: \0\r\n\r\n").err(), Some("value"));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n").err(), Some("end"));
        let flood = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: 1\r\n".repeat(9));
        assert_eq!(parse(&flood).err(), Some("too_many"));
    }

    #[test]
    fn a_foreign_protocol_is_found_out_by_its_first_bytes() {
        for start in ["", "H", "HTTP/1.", "HTTP/1.1 200", "HTTP/1.x"] {
            assert!(Head::may_start(start.as_bytes()), "{start:?}");
        }
        for start in ["h", "\r", "HTTP/2", "SSH-2.0", "220 mail"] {
            assert!(!Head::may_start(start.as_bytes()), "{start:?}");
        }
    }

    #[test]
    fn fields_tell_where_a_body_ends() {
        assert_eq!(framing("HTTP/1.1 200 OK\nContent-Length: 7", false), framed("7", true));
        assert_eq!(framing("HTTP/1.1 500 No\nContent-Length: 0", false), framed("0", true));
        assert_eq!(framing("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", false), framed("chunked", true));
        assert_eq!(framing("HTTP/1.1 200 OK\nTransfer-Encoding: CHUNKED", false), framed("chunked", true));
        assert_eq!(framing("HTTP/1.1 200 OK", false), framed("close", false));
        assert_eq!(framing("HTTP/1.0 200 OK\nConnection: keep-alive", false), framed("close", false));
    }

    #[test]
    fn some_answers_have_no_body() {
        for fields in ["", "\nContent-Length: 7", "\nTransfer-Encoding: chunked"] {
            assert_eq!(framing(&format!("HTTP/1.1 200 OK{fields}"), true), framed("0", true));
            assert_eq!(framing(&format!("HTTP/1.1 304 Same{fields}"), false), framed("0", true));
        }
        assert_eq!(framing("HTTP/1.1 204 None", false), framed("0", true));
        assert_eq!(framing("HTTP/1.1 204 None\nContent-Length: 0", false), framed("0", true));
    }

    #[test]
    fn a_204_that_announces_a_body_ends_the_connection() {
        for fields in ["Content-Length: 7", "Transfer-Encoding: chunked"] {
            for asked_head in [false, true] {
                let lines = format!("HTTP/1.1 204 None\n{fields}");
                assert_eq!(framing(&lines, asked_head), framed("0", false));
            }
        }
    }

    // threat: G2
    #[test]
    fn ambiguous_framing_is_refused_for_every_status_and_method() {
        let chunked = "Transfer-Encoding: chunked";
        for (version, fields, fault) in [
            ("1.1", "Content-Length: 5\nContent-Length: 5", "length"),
            ("1.1", "Content-Length: 5\nContent-Length: 6", "length"),
            ("1.1", "Content-Length: 5, 5", "length"),
            ("1.1", "Content-Length: +5", "length"),
            ("1.1", "Content-Length: 0x5", "length"),
            ("1.1", "Content-Length:", "length"),
            ("1.1", "Content-Length: 1000000000000000000", "length"),
            ("1.1", &format!("{chunked}\nContent-Length: 5"), "coding"),
            ("1.1", &format!("Content-Length: 5\n{chunked}"), "coding"),
            ("1.1", &format!("{chunked}\nContent-Length: 5\nContent-Length: 5"), "coding"),
            ("1.1", &format!("{chunked}\n{chunked}"), "coding"),
            ("1.1", "Transfer-Encoding: chunked, chunked", "coding"),
            ("1.1", "Transfer-Encoding: gzip, chunked", "coding"),
            ("1.1", "Transfer-Encoding: ,chunked", "coding"),
            ("1.1", "Transfer-Encoding: identity", "coding"),
            ("1.1", "Transfer-Encoding: xchunked", "coding"),
            ("1.1", "Transfer-Encoding:", "coding"),
            ("1.0", chunked, "coding"),
        ] {
            for status in [200, 204, 304, 404] {
                for asked_head in [false, true] {
                    let lines = format!("HTTP/{version} {status} X\n{fields}");
                    assert_eq!(framing(&lines, asked_head), Err(fault), "{lines:?}");
                }
            }
        }
    }

    #[test]
    fn the_peer_says_whether_the_connection_persists() {
        for (version, fields, keeps) in [
            ("1.1", "", true),
            ("1.1", "\nConnection: close", false),
            ("1.1", "\nConnection: foo, CLOSE", false),
            ("1.1", "\nConnection: keep-alive\nConnection: close", false),
            ("1.1", "\nConnection: keep-alive", true),
            ("1.1", "\nConnection: closed", true),
            ("1.0", "", false),
            ("1.0", "\nConnection: Keep-Alive", true),
            ("1.0", "\nConnection: close, keep-alive", false),
        ] {
            let lines = format!("HTTP/{version} 200 OK\nContent-Length: 7{fields}");
            assert_eq!(framing(&lines, false), framed("7", keeps), "{lines:?}");
        }
    }
}
