//! Bytes, looked at eight at a time: SIMD within a register.

/// How many bytes there are in front of the first that `stops`. Of a word of eight, `marks` sets the highest bit of each such
/// byte, and perhaps of some behind the first of them.
#[inline(always)]
pub fn length_until(bytes: &[u8], marks: impl Fn(u64) -> u64) -> usize {
    let first = |word: [u8; 8]| {
        let marked = marks(u64::from_le_bytes(word)) & (EACH * 0x80);
        (marked != 0).then_some((marked.trailing_zeros() / 8) as usize)
    };
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        if let Some(length) = first(*word) {
            return at * 8 + length;
        }
    }
    if rest.is_empty() {
        return bytes.len();
    }
    if let Some(last) = bytes.last_chunk() {
        // It begins with some that have been looked at, and did not stop.
        return first(*last).map_or(bytes.len(), |length| bytes.len() - 8 + length);
    }
    let mut last = [NEUTRAL; 8];
    last.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
    first(last).unwrap_or(rest.len())
}

/// Marks each byte that is this one.
pub fn is(word: u64, byte: u8) -> u64 {
    let zero = word ^ (EACH * u64::from(byte));
    zero.wrapping_sub(EACH) & !zero
}

/// Marks each byte below a blank: the control characters of ASCII but one.
pub fn is_below_blank(word: u64) -> u64 {
    word.wrapping_sub(EACH * 0x20) & !word
}

/// A word with 1 in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

/// Stands for bytes that are not there; nobody looks for it.
const NEUTRAL: u8 = b'a';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_what_is_looked_for_is_found_whatever_stands_around_it() {
        let marks = |word| is(word, b'"') | is(word, b'\\') | is(word, 0x7f) | is_below_blank(word);
        for stop in [b'"', b'\\', 0x7f, 0, 0x1f, b'\n'] {
            for length in 0..40 {
                for behind in [0, b'"', b'\\', b'!', b'#', b'[', b']', 0x20, 0x7e, 0x7f, 0x80, 0xff] {
                    for filler in [b'!', b'#', b' ', b'[', b']', 0x7e, 0x80, 0xa2, 0xdc, 0xff] {
                        let mut bytes = vec![filler; length];
                        assert_eq!(length_until(&bytes, marks), length);
                        bytes.push(stop);
                        assert_eq!(length_until(&bytes, marks), length);
                        bytes.extend([behind; 9]);
                        assert_eq!(length_until(&bytes, marks), length, "{stop} {behind} {filler}");
                    }
                }
            }
        }
    }
}
