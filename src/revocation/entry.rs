//! Entries of the log as the store hands them out. Whatever somebody wrote there, nothing of it stands in the way of the
//! entries after it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use redis::Value;

use super::news::{News, Position};

/// One entry, whoever wrote it.
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// Tells it from another one in the same place; ids make sure that no two of ours are alike.
    pub print: u64,
    fields: HashMap<String, String>,
}

impl Entry {
    /// The entries in an answer to XREAD of one stream; `None` when it is none.
    pub fn read(answer: &Value) -> Option<Vec<Entry>> {
        match answer {
            Value::Nil => Some(Vec::new()),
            Value::Array(streams) => match streams.as_slice() {
                [] => Some(Vec::new()),
                [Value::Array(stream)] => Entry::range(stream.get(1)?),
                _ => None,
            },
            _ => None,
        }
    }

    /// The entries in an answer to XRANGE or XREVRANGE; `None` when it is none.
    pub fn range(answer: &Value) -> Option<Vec<Entry>> {
        let Value::Array(entries) = answer else { return None };
        entries.iter().map(Entry::of).collect()
    }

    fn of(value: &Value) -> Option<Entry> {
        let Value::Array(parts) = value else { return None };
        let [position, Value::Array(words)] = parts.as_slice() else { return None };
        let position = std::str::from_utf8(bytes(position)?).ok()?.parse().ok()?;
        let words: Vec<&[u8]> = words.iter().map(bytes).collect::<Option<_>>()?;
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        let text = |word: &[u8]| Some(std::str::from_utf8(word).ok()?.to_owned());
        let pairs = words.chunks_exact(2).filter_map(|pair| Some((text(pair.first()?)?, text(pair.get(1)?)?)));
        Some(Entry { position, print: hasher.finish(), fields: pairs.collect() })
    }

    /// What it says; `None` when it is not one of ours.
    pub fn news(&self) -> Option<News> {
        News::read(&self.fields, self.position)
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn entry(position: &str, words: &[&[u8]]) -> Value {
        Value::Array(vec![bulk(position.as_bytes()), Value::Array(words.iter().map(|word| bulk(word)).collect())])
    }

    #[test]
    fn entries_are_read_whatever_their_bytes_and_known_again() {
        let digest = "ab".repeat(16);
        let ours: [&[u8]; 12] = [
            b"fate",
            b"ended",
            b"token",
            digest.as_bytes(),
            b"id",
            b"1f",
            b"grace_ms",
            b"0",
            b"left_ms",
            b"60",
            b"made_ms",
            b"5",
        ];
        let strange: [&[u8]; 4] = [b"\xff\0", b"\xfe", b"fate", b"\xc8ended"];
        let all =
            Value::Array(vec![entry("1-0", &strange), entry("5-1", &ours), entry("6-0", &[]), entry("7-0", &[b"x"])]);
        let entries = Entry::range(&all).unwrap();
        let positions: Vec<String> = entries.iter().map(|entry| entry.position.to_string()).collect();
        assert_eq!(positions, ["1-0", "5-1", "6-0", "7-0"]);
        let news: Vec<Option<u64>> = entries.iter().map(|entry| Some(entry.news()?.id)).collect();
        assert_eq!(news, [None, Some(0x1f), None, None]);
        let again = Entry::read(&Value::Array(vec![Value::Array(vec![bulk(b"log"), all])])).unwrap();
        let prints = |entries: &[Entry]| entries.iter().map(|entry| entry.print).collect::<Vec<_>>();
        assert_eq!(prints(&entries), prints(&again));
        assert_ne!(entries[0].print, entries[1].print);
    }

    #[test]
    fn no_entries_are_none_and_other_answers_are_no_answer() {
        for nothing in [Value::Nil, Value::Array(Vec::new())] {
            assert_eq!(Entry::read(&nothing).unwrap().len(), 0);
        }
        assert_eq!(Entry::range(&Value::Array(Vec::new())).unwrap().len(), 0);
        let nested = |value: Value| Value::Array(vec![value]);
        for other in [Value::Okay, nested(Value::Int(1)), nested(nested(bulk(b"log")))] {
            assert!(Entry::read(&other).is_none() && Entry::range(&other).is_none(), "{other:?}");
        }
        assert!(Entry::range(&nested(entry("x", &[]))).is_none());
    }
}
