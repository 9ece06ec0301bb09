//! Numbers, addresses and moments as text.

use core::fmt::{self, Display, Write};
use core::net::IpAddr;
use std::cell::Cell;
use std::ops::Deref;
use std::time::{Duration, SystemTime};

/// A moment as logs and pages have it: RFC 3339 in UTC, with microseconds.
pub fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}

/// The same, written behind what is there already.
pub fn put_timestamp(text: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // A calendar is dear, and many things happen within a second.
    let (_, second) = SECOND.with(|known| {
        if known.get().0 != since.as_secs() {
            let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            let mut digits = Vec::with_capacity(20);
            put_shown(&mut digits, humantime::format_rfc3339_seconds(begun));
            known.set((since.as_secs(), digits.first_chunk().copied().unwrap_or_default()));
        }
        known.get()
    });
    text.extend_from_slice(&second);
    text.push(b'.');
    text.extend_from_slice(&six_digits(since.subsec_micros()));
    text.push(b'Z');
}

thread_local! {
    /// The last second that was written, without its end: `2026-11-21T18:30:07`.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// A number below a million, with its zeros in front.
pub fn six_digits(number: u32) -> [u8; 6] {
    let pair = |number: u32| PAIRS[(number % 100) as usize];
    let ([a, b], [c, d], [e, f]) = (pair(number / 10_000), pair(number / 100), pair(number));
    [a, b, c, d, e, f]
}

/// A number in decimal digits.
pub fn number(number: u64) -> Short {
    let mut short = Short { bytes: [b'0'; LONGEST], from: LONGEST };
    let mut rest = number;
    for pair in short.bytes.rchunks_exact_mut(2) {
        pair.copy_from_slice(&PAIRS[(rest % 100) as usize]);
        short.from -= if rest < 10 { 1 } else { 2 };
        rest /= 100;
        if rest == 0 {
            break;
        }
    }
    short
}

/// An address as people write it (RFC 5952).
pub fn address(address: IpAddr) -> Short {
    let mut short = Short { bytes: [0; LONGEST], from: LONGEST };
    match address {
        IpAddr::V4(address) => {
            let mut prepend = |byte: u8| {
                short.from -= 1;
                short.bytes[short.from] = byte;
            };
            for (at, octet) in address.octets().into_iter().enumerate().rev() {
                let mut rest = octet;
                loop {
                    prepend(b'0' + rest % 10);
                    rest /= 10;
                    if rest == 0 {
                        break;
                    }
                }
                if at > 0 {
                    prepend(b'.');
                }
            }
        }
        IpAddr::V6(address) => {
            let mut text = Vec::with_capacity(LONGEST);
            put_shown(&mut text, address);
            // None is longer.
            let from = LONGEST.saturating_sub(text.len());
            if let Some(room) = short.bytes.get_mut(from..) {
                room.copy_from_slice(&text);
                short.from = from;
            }
        }
    }
    short
}

/// The same, written behind what is there already.
pub fn put_number(text: &mut Vec<u8>, shown: u64) {
    text.extend_from_slice(&number(shown));
}

/// A few characters that take no memory of their own.
#[derive(Clone, Copy)]
pub struct Short {
    bytes: [u8; LONGEST],
    from: usize,
}

impl Deref for Short {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

/// As many characters as an address has, and more than a number has.
const LONGEST: usize = 39;

/// The two digits of each number below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut at = 0;
    while at < pairs.len() {
        pairs[at] = [b'0' + (at / 10) as u8, b'0' + (at % 10) as u8];
        at += 1;
    }
    pairs
};

/// Anything, as it is shown.
pub fn put_shown(text: &mut Vec<u8>, shown: impl Display) {
    // Memory takes whatever is written, so there is no error.
    let _ = write!(Behind(text), "{shown}");
}

/// Takes text as bytes.
struct Behind<'t>(&'t mut Vec<u8>);

impl Write for Behind<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_the_same_way_whichever_comes_before() {
        for micros in
            [0, 999_999, 1_700_000_000_000_001, 1_700_000_000_900_000, 951_782_400_000_010, 4_102_444_799_123_456]
        {
            let at = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            for at in [at, at + Duration::from_millis(1), at] {
                let mut text = Vec::new();
                put_timestamp(&mut text, at);
                assert_eq!(String::from_utf8(text).unwrap(), timestamp(at));
            }
        }
    }

    #[test]
    fn they_are_written_as_the_standard_library_writes_them() {
        for number in [0, 1, 9, 10, 99, 100, 200, 65_535, 1_000_000, u64::MAX - 1, u64::MAX] {
            let mut text = b"x".to_vec();
            put_number(&mut text, number);
            assert_eq!(text, format!("x{number}").into_bytes());
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "255.254.10.9",
            "::",
            "::1",
            "2001:db8::ff00:42:8329",
            "1:2345:6789:abcd:ef01:2345:6789:abcd",
            "::ffff:255.255.255.255",
        ] {
            assert_eq!(&*super::address(address.parse().unwrap()), address.as_bytes());
        }
    }
}
