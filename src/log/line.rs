//! One line of the log: a JSON object, written member by member.
//!
//! Every request has one, so it is written without anything in between: no tree, no reflection, no memory of its own. What
//! can be in it is closed: texts, numbers, digits, durations, lists of objects.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::digits::{self, put_number, put_shown, put_timestamp, six_digits};
use crate::hex;
use crate::json::plain_length;

/// The name of a member with everything around it, `,"name":`, so that it is written at once. Made by `member!`.
#[derive(Clone, Copy)]
pub struct Member(#[doc(hidden)] pub &'static str);

/// The [`Member`] of a name.
macro_rules! member {
    ($name:literal) => {
        $crate::log::line::Member(concat!(",\"", $name, "\":"))
    };
}
pub(crate) use member;

/// A line that is being written behind what is there already.
pub struct Line<'o>(&'o mut Vec<u8>);

impl Line<'_> {
    /// Begins with what every line has.
    pub fn new<'o>(out: &'o mut Vec<u8>, at: SystemTime, level: &'static str, event: &'static str) -> Line<'o> {
        out.reserve(USUAL);
        let mut line = Line(out);
        line.0.extend_from_slice(b"{\"timestamp\":\"");
        put_timestamp(line.0, at);
        line.0.push(b'"');
        line.word(member!("level"), level);
        line.word(member!("event"), event);
        line
    }

    /// A word of the program's own, in which nothing must be escaped.
    #[inline]
    pub fn word(&mut self, name: Member, word: &'static str) {
        debug_assert!(is_plain(word));
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(b'"');
    }

    /// A text, escaped where it must be.
    #[inline]
    pub fn text(&mut self, name: Member, text: &str) {
        self.name(name);
        if is_plain(text) {
            self.0.push(b'"');
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(b'"');
        } else {
            // Memory takes whatever is written, so there is no error.
            let _ = serde_json::to_writer(&mut *self.0, text);
        }
    }

    /// An address, as a text.
    pub fn address(&mut self, name: Member, address: IpAddr) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(&digits::address(address));
        self.0.push(b'"');
    }

    /// A number.
    pub fn number(&mut self, name: Member, number: u64) {
        self.name(name);
        put_number(self.0, number);
    }

    /// A part of one.
    pub fn share(&mut self, name: Member, share: f64) {
        self.name(name);
        put_shown(self.0, share);
    }

    /// Whether something is so.
    pub fn truth(&mut self, name: Member, truth: bool) {
        self.name(name);
        self.0.extend_from_slice(if truth { b"true" } else { b"false" });
    }

    /// Bytes, as hexadecimal digits.
    pub fn hex(&mut self, name: Member, bytes: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        hex::extend(self.0, bytes);
        self.0.push(b'"');
    }

    /// A duration in seconds. Microseconds are as fine as the clock is worth.
    pub fn seconds(&mut self, name: Member, time: Duration) {
        self.name(name);
        let micros = (time.subsec_nanos() + 500) / 1000;
        put_number(self.0, time.as_secs().saturating_add((micros / 1_000_000).into()));
        self.0.push(b'.');
        let digits = six_digits(micros % 1_000_000);
        let shown = digits.iter().rposition(|digit| *digit != b'0').map_or(1, |last| last + 1);
        self.0.extend_from_slice(digits.get(..shown).unwrap_or(&digits));
    }

    /// A list of objects.
    pub fn list<T>(&mut self, name: Member, items: impl Iterator<Item = T>, members: impl Fn(&mut Line<'_>, T)) {
        self.name(name);
        self.0.push(b'[');
        for (at, item) in items.enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.0.push(b'{');
            members(self, item);
            self.0.push(b'}');
        }
        self.0.push(b']');
    }

    /// Ends it.
    pub fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }

    #[inline(always)]
    fn name(&mut self, name: Member) {
        let name = match self.0.last() {
            Some(b'{') => name.0.get(1..).unwrap_or_default(),
            Some(_) | None => name.0,
        };
        self.0.extend_from_slice(name.as_bytes());
    }
}

/// Whether it is a string of JSON as it is.
fn is_plain(text: &str) -> bool {
    plain_length(text.as_bytes()) == text.len()
}

/// Most lines of requests have no more bytes.
const USUAL: usize = 640;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_one_json_object() {
        let mut bytes = Vec::new();
        let mut line =
            Line::new(&mut bytes, UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001), "info", "request");
        let odd = "a \"quote\", a \\, a \u{7f}\u{1}\n, an é and a \u{1f600}";
        line.text(member!("odd"), odd);
        line.address(member!("address"), [192, 0, 2, 1].into());
        line.number(member!("status"), 200);
        line.truth(member!("true"), true);
        line.share(member!("rate"), 0.01);
        line.hex(member!("hex"), &[0, 10, 255]);
        line.list(member!("list"), [1, 2].into_iter(), |line, one| line.number(member!("n"), one));
        line.list(member!("none"), [0; 0].into_iter(), |line, one| line.number(member!("n"), one));
        line.end();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&bytes).unwrap();
        let expected = json!({
            "timestamp": "2023-11-14T22:13:20.000001Z", "level": "info", "event": "request", "odd": odd,
            "address": "192.0.2.1", "status": 200, "true": true, "rate": 0.01, "hex": "000aff",
            "list": [{ "n": 1 }, { "n": 2 }], "none": [],
        });
        assert_eq!(read, expected);
        assert!(bytes.starts_with(b"{\"timestamp\":\"2023-11-14T22:13:20.000001Z\",\"level\":\"info\",\"event\""));
    }

    #[test]
    fn seconds_are_the_numbers_they_were() {
        for (nanos, shown) in [
            (0, "0.0"),
            (499, "0.0"),
            (500, "0.000001"),
            (42_000, "0.000042"),
            (120_000, "0.00012"),
            (1_000_000_000, "1.0"),
            (61_500_000_499, "61.5"),
            (999_999_999, "1.0"),
        ] {
            let mut bytes = Vec::new();
            Line(&mut bytes).seconds(member!("t"), Duration::from_nanos(nanos));
            assert_eq!(String::from_utf8(bytes).unwrap(), format!(",\"t\":{shown}"), "{nanos}");
        }
    }
}
