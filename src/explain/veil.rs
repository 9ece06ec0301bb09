//! What is shown of a message: escaped, cut in the middle when it is long, and without what must not be seen.

use std::fmt::Write;
use std::ops::Range;

use zeroize::Zeroizing;

/// What must not be seen.
#[derive(Default)]
pub struct Veil {
    texts: Vec<Zeroizing<Vec<u8>>>,
    members: Vec<String>,
    parameters: Vec<String>,
}

impl Veil {
    /// Hides a text wherever it stands, also as a JSON string that has it in other escapes.
    pub fn text(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.texts.push(Zeroizing::new(text.to_vec()));
        }
    }

    /// Hides what a JSON member of this name has, also in a body that cannot be read.
    pub fn member(&mut self, name: &str) {
        self.members.push(name.to_owned());
    }

    /// Hides what a parameter of this name has.
    pub fn parameter(&mut self, name: &str) {
        self.parameters.push(name.to_owned());
    }

    /// The bytes as they may be shown, on one line.
    pub fn show(&self, bytes: &[u8]) -> String {
        let mut hidden = vec![false; bytes.len()];
        for range in self.ranges(bytes) {
            hidden.get_mut(range).unwrap_or_default().fill(true);
        }
        let mut pieces: Vec<String> = Vec::new();
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let is_hidden = hidden.get(at).copied().unwrap_or(true);
            let length = hidden.iter().skip(at).take_while(|one| **one == is_hidden).count();
            if is_hidden {
                pieces.push("…".to_owned());
            } else {
                escape(rest.get(..length).unwrap_or_default(), &mut pieces);
            }
            at += length;
        }
        cut(&pieces)
    }

    fn ranges(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for text in &self.texts {
            let word = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
            for start in places(bytes, text) {
                let end = start + text.len();
                let before = start.checked_sub(1).and_then(|at| bytes.get(at));
                // What is short is hidden where it stands alone, or nothing would be left to read.
                if text.len() >= LONG || !(word(before) || word(bytes.get(end))) {
                    ranges.push(start..end);
                }
            }
        }
        for literal in literals(bytes) {
            let decoded = bytes.get(literal.clone()).and_then(|one| serde_json::from_slice::<String>(one).ok());
            if decoded.is_some_and(|decoded| self.texts.iter().any(|text| ***text == *decoded.as_bytes())) {
                ranges.push(literal.start + 1..literal.end - 1);
            }
        }
        for name in &self.members {
            let key = serde_json::Value::from(name.as_str()).to_string();
            for start in places(bytes, key.as_bytes()) {
                ranges.extend(member(bytes, start + key.len()));
            }
        }
        for name in &self.parameters {
            let key = format!("{name}=");
            for start in places(bytes, key.as_bytes()) {
                let from = start + key.len();
                let length =
                    bytes.iter().skip(from).take_while(|&&one| one != b'&' && !one.is_ascii_whitespace()).count();
                ranges.push(from..from + length);
            }
        }
        ranges
    }
}

/// What stands behind a member's name, its quotes apart.
fn member(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let blanks = |from: usize| bytes.iter().skip(from).take_while(|one| one.is_ascii_whitespace()).count();
    let colon = from + blanks(from);
    if bytes.get(colon) != Some(&b':') {
        return None;
    }
    let start = colon + 1 + blanks(colon + 1);
    if bytes.get(start) == Some(&b'"') {
        return Some(start + 1..string_end(bytes, start));
    }
    let ends = |one: &&u8| !matches!(**one, b',' | b'}' | b']') && !one.is_ascii_whitespace();
    Some(start..start + bytes.iter().skip(start).take_while(ends).count())
}

/// Where the string that begins at a quote ends: at its other quote, or with the bytes.
fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut escaped = false;
    let ends = bytes.iter().enumerate().skip(quote + 1).find(|(_, one)| {
        let ends = **one == b'"' && !escaped;
        escaped = **one == b'\\' && !escaped;
        ends
    });
    ends.map_or(bytes.len(), |(at, _)| at)
}

/// The JSON strings in the bytes, with their quotes.
fn literals(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(quote) = bytes.iter().skip(at).position(|one| *one == b'"').map(|skipped| at + skipped) {
        let end = string_end(bytes, quote);
        if end < bytes.len() {
            found.push(quote..end + 1);
        }
        at = end + 1;
    }
    found
}

fn places(bytes: &[u8], text: &[u8]) -> Vec<usize> {
    bytes.windows(text.len().max(1)).enumerate().filter(|(_, window)| *window == text).map(|(at, _)| at).collect()
}

/// One piece for each character or byte.
fn escape(bytes: &[u8], pieces: &mut Vec<String>) {
    for chunk in bytes.utf8_chunks() {
        for one in chunk.valid().chars() {
            pieces.push(match one {
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\\' => "\\\\".to_owned(),
                one if one.is_control() || invisible(one) => format!("\\u{{{:x}}}", u32::from(one)),
                one => one.to_string(),
            });
        }
        for byte in chunk.invalid() {
            let mut piece = String::new();
            let _ = write!(piece, "\\x{byte:02x}");
            pieces.push(piece);
        }
    }
}

/// Characters that turn the rest of a line around, or take no room on it.
fn invisible(one: char) -> bool {
    matches!(one, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn cut(pieces: &[String]) -> String {
    let length: usize = pieces.iter().map(String::len).sum();
    if length <= MOST_SHOWN {
        return pieces.concat();
    }
    let half = |pieces: &mut dyn Iterator<Item = &String>| {
        let mut so_far = 0;
        pieces
            .take_while(|piece| {
                so_far += piece.len();
                so_far <= MOST_SHOWN / 2
            })
            .count()
    };
    let start = half(&mut pieces.iter());
    let end = pieces.len() - half(&mut pieces.iter().rev());
    let (first, rest) = pieces.split_at(start);
    let last = rest.get(end - start..).unwrap_or_default();
    format!("{} […{} characters left out…] {}", first.concat(), end - start, last.concat())
}

/// Hidden wherever it stands.
const LONG: usize = 8;

/// Longer messages are cut in the middle.
const MOST_SHOWN: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn veil() -> Veil {
        let mut veil = Veil::default();
        veil.text(b"a/token-of-16-ch");
        veil.text(b"t");
        veil.member("pin");
        veil.parameter("session");
        veil
    }

    #[test]
    fn what_must_not_be_seen_is_hidden_however_it_is_spelled() {
        for (message, shown) in [
            ("17{\"token\":\"a/token-of-16-ch\"}", "17{\"token\":\"…\"}"),
            (r#"{"x":"a\/token-of-16-ch"}"#, r#"{"x":"…"}"#),
            (r#"{"x":"\u0061/token-of-16-ch"}"#, r#"{"x":"…"}"#),
            ("XXa/token-of-16-chXX", "XX…XX"),
            ("{\"t\":\"t\",\"tt\":1}", "{\"…\":\"…\",\"tt\":1}"),
            ("{\"pin\" : 1234,\"b\":1}", "{\"pin\" : …,\"b\":1}"),
            ("{\"pin\":\"12\\\"34\"", "{\"pin\":\"…\""),
            ("{\"pin\":\"1234", "{\"pin\":\"…"),
            ("/a?session=x%20y&b=1", "/a?session=…&b=1"),
        ] {
            assert_eq!(veil().show(message.as_bytes()), shown, "{message}");
        }
    }

    #[test]
    fn what_has_no_shape_is_escaped() {
        assert_eq!(veil().show(b"a\r\n\t\\\x00\xff\xe2\x80\xaeb\xc3\xa9"), "a\\r\\n\\t\\\\\\u{0}\\xff\\u{202e}bé");
    }

    #[test]
    fn a_long_message_is_cut_in_the_middle() {
        let shown = veil().show(&[&[b'a'; 3000][..], &[b'b'; 3000]].concat());
        assert!(shown.starts_with("aaa") && shown.ends_with("bbb"), "{shown}");
        assert!(shown.contains(" […3952 characters left out…] ") && shown.len() < 2200, "{shown}");
    }
}
