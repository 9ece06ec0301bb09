//! A body without its white space.

use std::iter;

use memchr::memchr2;

/// Yields the body in slices that leave out JSON whitespace (space, tab, CR, LF) outside of strings.
///
/// A scanner, not a reader: it knows strings and their escapes and nothing else, so it works on any bytes and never re-writes any. An
/// unterminated string runs to the end. That `1 0` becomes `10` is why [`read`](super::read) must have accepted the body before.
pub fn compact(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    iter::from_fn(move || {
        let start = rest.iter().position(|byte| !is_whitespace(*byte))?;
        let (_, visible) = rest.split_at(start);
        let (run, behind) = visible.split_at(run_length(visible));
        rest = behind;
        Some(run)
    })
}

/// How many bytes there are until whitespace outside of a string; the first byte is outside of any.
fn run_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match rest.iter().position(|byte| *byte == b'"' || is_whitespace(*byte)) {
            Some(stop) if rest.get(stop) == Some(&b'"') => at += stop + 1 + string_length(&rest[stop + 1..]),
            Some(stop) => return at + stop,
            None => return bytes.len(),
        }
    }
}

/// How long a string is behind its first quote, its last one included.
pub(super) fn string_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(stop) = memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        if bytes.get(at + stop) == Some(&b'"') {
            return at + stop + 1;
        }
        // Whatever stands behind a backslash ends nothing.
        at += stop + 2;
    }
    bytes.len()
}

pub(super) fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
