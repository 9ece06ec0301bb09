//! What stands in the log that replicas share, and how it is spelled there.
//!
//! An entry is a few words that an operator can read with `XRANGE`:
//!
//! ```text
//! 1763730000000-0  fate ended     token 6f1c… id 91d2… grace_ms 0 left_s 86400
//! 1763730000007-0  fate pardoned  token 6f1c… id 03aa… left_s 86400
//! 1763730000100-0  fate key       key 5b…
//! ```
//!
//! Times in it count from the entry's own time, which is the store's: no two replicas need to agree about the clock.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::record::{Fate, Record};
use crate::secret::DigestKey;
use crate::token::TokenDigest;

/// A place in the log: milliseconds of the store's clock, and a number within them. Grows with every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Among entries of the same millisecond.
    pub sequence: u64,
}

/// One entry.
#[derive(Clone, Debug)]
pub enum News {
    /// A token's fate. The number tells one's own entries when they are read back.
    Record(u64, Record),
    /// A key under which some replica makes digests, when it is not the one they share.
    Key(DigestKey),
}

impl News {
    /// The words of an entry.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            News::Record(id, record) => {
                let mut fields = vec![
                    ("fate", fate_word(record.fate).to_owned()),
                    ("token", hex(record.token.as_bytes())),
                    ("id", format!("{id:016x}")),
                ];
                if let Fate::Ended { grace } = record.fate {
                    fields.push(("grace_ms", grace.as_millis().to_string()));
                }
                // A fraction of a second more never lets a token live again too early.
                fields.push(("left_s", record.left.as_secs().saturating_add(1).to_string()));
                fields
            }
            News::Key(key) => vec![("fate", "key".to_owned()), ("key", hex(key.expose()))],
        }
    }

    /// Reads an entry that is `age` old; `None` when it is not one of ours.
    pub fn read(fields: &HashMap<String, String>, age: Duration) -> Option<News> {
        let word = |name: &str| fields.get(name).map(String::as_str);
        let number = |name: &str| word(name)?.parse::<u64>().ok();
        if word("fate")? == "key" {
            return Some(News::Key(DigestKey::new(unhex(word("key")?)?)));
        }
        let fate = match word("fate")? {
            "ended" => Fate::Ended { grace: Duration::from_millis(number("grace_ms")?).saturating_sub(age) },
            "pardoned" => Fate::Pardoned,
            _ => return None,
        };
        let token = TokenDigest::from_bytes(unhex(word("token")?)?);
        let left = Duration::from_secs(number("left_s")?).saturating_sub(age);
        let id = u64::from_str_radix(word("id")?, 16).ok()?;
        Some(News::Record(id, Record { token, fate, left }))
    }
}

impl Position {
    /// How old an entry here is when the store's clock shows `now_ms`.
    pub fn age(self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.ms))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Position, ()> {
        let (ms, sequence) = text.split_once('-').ok_or(())?;
        Ok(Position { ms: ms.parse().map_err(|_| ())?, sequence: sequence.parse().map_err(|_| ())? })
    }
}

/// One word for a fate.
pub fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Ended { .. } => "ended",
        Fate::Pardoned => "pardoned",
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes behind exactly `2 * N` hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn read_back(news: &News, age: Duration) -> Option<News> {
        let fields = news.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        News::read(&fields, age)
    }

    #[test]
    fn a_record_comes_back_older_by_its_age() {
        let token = TokenDigest::from_bytes([7; 16]);
        let ended = News::Record(5, Record::ended(token, HOUR, 3 * HOUR));
        let Some(News::Record(5, record)) = read_back(&ended, 2 * HOUR) else { unreachable!() };
        assert_eq!(record, Record::ended(token, Duration::ZERO, HOUR + Duration::from_secs(1)));
        let pardoned = News::Record(6, Record { token, fate: Fate::Pardoned, left: HOUR });
        let Some(News::Record(6, record)) = read_back(&pardoned, Duration::ZERO) else { unreachable!() };
        assert_eq!((record.token, record.fate), (token, Fate::Pardoned));
    }

    #[test]
    fn a_key_comes_back_and_shows_nothing_when_printed() {
        let key = News::Key(DigestKey::new([0xab; 32]));
        assert_eq!(format!("{key:?}"), "Key(DigestKey(…))");
        let Some(News::Key(key)) = read_back(&key, HOUR) else { unreachable!() };
        assert_eq!(key.expose(), &[0xab; 32]);
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let good = [("fate", "ended"), ("token", &"ab".repeat(16)), ("id", "1f"), ("grace_ms", "0"), ("left_s", "60")];
        let with = |name: &str, value: Option<&str>| {
            let mut fields: HashMap<String, String> =
                good.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            match value {
                Some(value) => fields.insert(name.to_owned(), value.to_owned()),
                None => fields.remove(name),
            };
            News::read(&fields, Duration::ZERO)
        };
        assert!(with("more", Some("x")).is_some());
        for (name, _) in good {
            assert!(with(name, None).is_none(), "{name}");
            for value in ["", "x", "-1", "é", "zz"] {
                assert!(with(name, Some(value)).is_none(), "{name} {value}");
            }
        }
    }

    #[test]
    fn positions_are_ordered_by_time_then_number() {
        let positions = ["0-0", "9-3", "9-10", "10-0"].map(|text| text.parse::<Position>().unwrap());
        assert!(positions.is_sorted());
        assert_eq!(positions.map(|position| position.to_string()), ["0-0", "9-3", "9-10", "10-0"]);
        for text in ["", "1", "1-", "-1", "a-1", "1-2-3"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
