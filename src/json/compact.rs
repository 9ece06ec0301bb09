//! A body without its white space.

use std::iter;

use crate::swar::{is, length_until};

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
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => 1 + string_length(bytes.get(at + 1..).unwrap_or_default()),
            byte if is_whitespace(byte) => return at,
            _ => 1,
        };
    }
    bytes.len()
}

/// How long a string is behind its first quote, its last one included.
pub(super) fn string_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let stop = length_until(rest, |word| is(word, b'"') | is(word, b'\\'));
        match rest.get(stop) {
            None => return bytes.len(),
            Some(b'"') => return at + stop + 1,
            // Whatever stands behind a backslash ends nothing.
            Some(_) => at += stop + 2,
        }
    }
}

pub(super) fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
