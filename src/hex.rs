//! Hexadecimal digits (RFC 4648 §8).

/// In lower case.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| pair(*byte)).map(char::from).collect()
}

/// The same, written behind what is there already.
pub fn extend(text: &mut Vec<u8>, bytes: &[u8]) {
    for part in bytes.chunks(PART) {
        let mut digits = [[0; 2]; PART];
        digits.iter_mut().zip(part).for_each(|(digits, byte)| *digits = pair(*byte));
        text.extend_from_slice(digits.as_flattened().get(..2 * part.len()).unwrap_or_default());
    }
}

/// The bytes behind digits of either case; `None` for anything else.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut odd = 0;
    let bytes = pairs.iter().map(|&[high, low]| {
        let (high, low) = (value(high), value(low));
        odd |= high | low;
        high << 4 | low & 0x0f
    });
    let bytes = bytes.collect();
    // A digit has no more than four bits.
    (odd & 0xf0 == 0).then_some(bytes)
}

/// The two digits of a byte.
pub fn pair(byte: u8) -> [u8; 2] {
    PAIRS[usize::from(byte)]
}

/// What a digit stands for; more than four bits for what is none.
fn value(digit: u8) -> u8 {
    VALUES.get(usize::from(digit)).copied().unwrap_or(u8::MAX)
}

/// Bytes that are written at once: as many as ids have.
const PART: usize = 32;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0x0f]];
        byte += 1;
    }
    pairs
};

const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        let digit = DIGITS[value];
        values[digit as usize] = value as u8;
        values[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_in_either_case_and_nothing_else_does() {
        let all: Vec<u8> = (0..=255).collect();
        let digits = encode(&all);
        assert!(digits.starts_with("000102") && digits.ends_with("fdfeff"));
        assert_eq!(decode(digits.as_bytes()), Some(all.clone()));
        assert_eq!(decode(digits.to_uppercase().as_bytes()), Some(all.clone()));
        let mut text = b"x".to_vec();
        extend(&mut text, &all);
        assert_eq!(text, format!("x{digits}").into_bytes());
        for byte in all {
            let known = byte.is_ascii_hexdigit();
            assert_eq!((decode(&[byte, b'0']).is_some(), decode(&[b'0', byte]).is_some()), (known, known), "{byte}");
        }
        assert_eq!((decode(b""), decode(b"0")), (Some(Vec::new()), None));
    }
}
