//! What stands in the log that replicas share: entries, and how they are read.
//!
//! An entry carries a digest, never a token. Times count from when it was made, by the store's clock: replicas' clocks need
//! not agree, and it loses nothing by coming late.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::record::{Fate, Record};
use crate::hex;
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
pub struct News {
    /// Tells one's own entries when they are read back.
    pub id: u64,
    /// When it was made, by the store's clock, in milliseconds since 1970. Not when it came into the log, which may be
    /// much later.
    pub made_ms: u64,
    /// What it says.
    pub what: What,
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum What {
    /// A token's fate, its times as they were when it was made.
    Fate(Record),
    /// A key under which some replica makes digests, when it is not the one they share, and for how long tokens ended
    /// under it may be in force.
    Key(DigestKey, Duration),
}

impl News {
    /// The words of an entry.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::with_capacity(6);
        let left = match &self.what {
            What::Fate(record) => {
                fields.push(("fate", fate_word(record.fate).to_owned()));
                fields.push(("token", hex::encode(record.token.as_bytes())));
                if let Fate::Ended { grace } = record.fate {
                    fields.push(("grace_ms", grace.as_millis().to_string()));
                }
                record.left
            }
            What::Key(key, left) => {
                fields.push(("fate", "key".to_owned()));
                fields.push(("key", hex::encode(key.expose())));
                *left
            }
        };
        // A fraction of a millisecond more never lets a token live again too early.
        fields.push(("left_ms", left.as_millis().saturating_add(1).to_string()));
        fields.push(("made_ms", self.made_ms.to_string()));
        fields.push(("id", format!("{:016x}", self.id)));
        fields
    }

    /// Reads the entry at a position; `None` when it is not one of ours.
    pub fn read(fields: &HashMap<String, String>, position: Position) -> Option<News> {
        let word = |name: &str| fields.get(name).map(String::as_str);
        let number = |name: &str| word(name)?.parse::<u64>().ok();
        let left = Duration::from_millis(number("left_ms")?);
        let token = || Some(TokenDigest::from_bytes(unhex(word("token")?)?));
        let what = match word("fate")? {
            "key" => What::Key(DigestKey::new(unhex(word("key")?)?), left),
            "ended" => What::Fate(Record::ended(token()?, Duration::from_millis(number("grace_ms")?), left)),
            "pardoned" => What::Fate(Record { token: token()?, fate: Fate::Pardoned, left }),
            _ => return None,
        };
        let id = u64::from_str_radix(word("id")?, 16).ok()?;
        // Nothing comes into the log before it is made, whatever clocks say.
        let made_ms = number("made_ms")?.min(position.ms);
        Some(News { id, made_ms, what })
    }

    /// True when the entry came into the log long after it was made: what was made in between may stand before it.
    pub fn is_late(&self, position: Position) -> bool {
        Duration::from_millis(position.ms.saturating_sub(self.made_ms)) > LATE
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

/// The bytes behind exactly `2 * N` hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = Zeroizing::new(hex::decode(text.as_bytes())?);
    bytes.as_slice().try_into().ok()
}

/// What takes longer than this on its way into the log is late. Far more than a round trip, and no more than anyone waits
/// for it to be taken.
pub const LATE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOON: Position = Position { ms: 1_000_000_000, sequence: 0 };

    fn read_back(news: &News, position: Position) -> Option<News> {
        let fields = news.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        News::read(&fields, position)
    }

    fn record(news: Option<News>) -> Option<Record> {
        match news?.what {
            What::Fate(record) => Some(record),
            What::Key(..) => None,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_made_however_late() {
        let token = TokenDigest::from_bytes([7; 16]);
        for fate in [Fate::Ended { grace: HOUR }, Fate::Pardoned] {
            let what = What::Fate(Record { token, fate, left: 3 * HOUR });
            let news = News { id: 5, made_ms: NOON.ms, what };
            for late in [0, 1, 3600 * 1000] {
                let position = Position { ms: NOON.ms + late, sequence: 9 };
                let back = read_back(&news, position).unwrap();
                assert_eq!((back.id, back.made_ms, back.is_late(position)), (5, NOON.ms, late > 1000));
                let left = 3 * HOUR + Duration::from_millis(1);
                assert_eq!(record(Some(back)), Some(Record { token, fate, left }));
            }
        }
    }

    #[test]
    fn an_entry_is_not_made_after_it_came_into_the_log() {
        let what = What::Fate(Record::ended(TokenDigest::from_bytes([7; 16]), HOUR, HOUR));
        let news = News { id: 5, made_ms: NOON.ms + 1, what };
        assert_eq!(read_back(&news, NOON).unwrap().made_ms, NOON.ms);
    }

    #[test]
    fn a_key_comes_back_and_shows_nothing_when_printed() {
        let news = News { id: 1, made_ms: NOON.ms, what: What::Key(DigestKey::new([0xab; 32]), HOUR) };
        assert!(!format!("{news:?}").contains("171") && format!("{news:?}").contains("DigestKey(…)"));
        let Some(News { what: What::Key(key, left), .. }) = read_back(&news, NOON) else { unreachable!() };
        assert_eq!((key.expose(), left), (&[0xab; 32], HOUR + Duration::from_millis(1)));
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let good = [
            ("fate", "ended"),
            ("token", &"ab".repeat(16)),
            ("id", "1f"),
            ("grace_ms", "0"),
            ("left_ms", "60"),
            ("made_ms", "1"),
        ];
        let with = |name: &str, value: Option<&str>| {
            let mut fields: HashMap<String, String> =
                good.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            match value {
                Some(value) => fields.insert(name.to_owned(), value.to_owned()),
                None => fields.remove(name),
            };
            News::read(&fields, NOON)
        };
        assert!(with("more", Some("x")).is_some());
        for (name, _) in good {
            assert!(with(name, None).is_none(), "{name}");
            for value in ["", "x", "-1", "é", "zz"] {
                assert!(with(name, Some(value)).is_none(), "{name} {value}");
            }
        }
        assert!(with("token", Some(&"+1".repeat(16))).is_none());
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
