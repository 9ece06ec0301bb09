//! The journal's file: what a record looks like in it, and how damage is told from emptiness.
//!
//! The store is redb, whose commits are atomic: a kill at any moment, also in the middle of a write, leaves the last
//! committed state. It does not look whether what it reads is what it once wrote, so each record carries a check of its
//! own, and a tally of all records changes in the transaction that changes them: a record that turned into another one, or
//! into none, is missed.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition};
use sha2::{Digest, Sha256};

/// An open file.
///
/// The database is gone only while this is dropped.
pub struct Disk(Option<Database>);

/// A record as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// From when the token is refused, in milliseconds since 1970.
    pub from_ms: u64,
    /// Until when this is remembered, in seconds since 1970.
    pub until: u64,
    /// Whether it ended; otherwise it was pardoned.
    pub ended: bool,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// The records that are what was written.
    pub records: Vec<([u8; 16], Kept)>,
    /// How many there should be, when that can be told.
    pub written: Option<u64>,
    /// They are not all that was written, or something else besides.
    pub damaged: bool,
}

impl Disk {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Disk, redb::DatabaseError> {
        let open = || Database::builder().set_cache_size(CACHE).create(path);
        // redb panics over some kinds of damage, such as a file that was cut short; here that is a fault like any other.
        let cut = || StorageError::Corrupted("it is damaged or cut short".to_owned()).into();
        catch_unwind(open).unwrap_or_else(|_| Err(cut())).map(|database| Disk(Some(database)))
    }

    /// Reads everything, and changes nothing.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        let whole = catch_unwind(AssertUnwindSafe(|| self.read(&mut contents).is_ok())).unwrap_or(false);
        contents.damaged |= !whole;
        contents
    }

    /// Writes records in one transaction with one sync, each with the second in which it was made; records of one token
    /// unite, unless the earlier one was over by then and only had not been taken out.
    pub fn commit<'a>(&self, records: impl Iterator<Item = (&'a [u8; 16], Kept, u64)>) -> Result<(), redb::Error> {
        self.change(|table, tally| {
            for (token, kept, made) in records {
                let known = table.get(token)?.map(|known| known.value());
                let united = match known {
                    Some((from_ms, until, ended, _)) if until > made => unite(Kept { from_ms, until, ended }, kept),
                    Some(_) | None => kept,
                };
                let check = check(token, united);
                table.insert(token, (united.from_ms, united.until, united.ended, check))?;
                tally.take(known.map(|(.., known)| known));
                tally.add(check);
            }
            Ok(())
        })
    }

    /// Takes out what is over at `now`, in seconds since 1970.
    pub fn take_out(&self, now: u64) -> Result<(), redb::Error> {
        self.change(|table, tally| {
            table.retain(|_, (_, until, _, check)| {
                let stays = until > now;
                if !stays {
                    tally.take(Some(check));
                }
                stays
            })?;
            Ok(())
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Table<'_, [u8; 16], Row>, &mut Tally) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let transaction = self.database()?.begin_write()?;
        {
            let mut tallies = transaction.open_table(TALLY)?;
            let known = tallies.get(())?.map(|known| known.value());
            let mut tally = known.map_or_else(Tally::default, |(count, sum)| Tally { count, sum });
            change(&mut transaction.open_table(RECORDS)?, &mut tally)?;
            tallies.insert((), (tally.count, tally.sum))?;
        }
        // The default durability: returns when everything is synced.
        transaction.commit()?;
        Ok(())
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.0.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn read(&self, contents: &mut Contents) -> Result<(), redb::Error> {
        let transaction = self.database()?.begin_read()?;
        let tally = match transaction.open_table(TALLY) {
            Ok(table) => table.get(())?.map(|tally| tally.value()),
            // Made, and never written to.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        let (count, sum) = tally.ok_or_else(|| StorageError::Corrupted("it has no tally".to_owned()))?;
        contents.written = Some(count);
        let mut found = Tally::default();
        // A damaged page can lead in a circle: whoever has read more than was ever written has read enough.
        let most = usize::try_from(count.min(MOST)).unwrap_or(usize::MAX).saturating_add(1);
        for entry in transaction.open_table(RECORDS)?.iter()?.take(most) {
            let (token, row) = entry?;
            let (token, (from_ms, until, ended, stored)) = (token.value(), row.value());
            let kept = Kept { from_ms, until, ended };
            if check(&token, kept) == stored {
                found.add(stored);
                contents.records.push((token, kept));
            }
        }
        contents.damaged = (found.count, found.sum) != (count, sum);
        Ok(())
    }
}

/// Closing a damaged file, redb may panic as well.
impl Drop for Disk {
    fn drop(&mut self) {
        let database = AssertUnwindSafe(self.0.take());
        let _ = catch_unwind(move || drop(database));
    }
}

impl Contents {
    /// What is wrong, in a clause: how many records are left, and how many are not.
    pub fn loss(&self) -> String {
        let left = self.records.len();
        match self.written {
            Some(written) => format!("of its {written} records {left} can be read"),
            None => format!("{left} of its records can be read, and how many there were is not known"),
        }
    }

    /// The records without any that stand there twice.
    pub fn distinct(&self) -> HashMap<[u8; 16], Kept> {
        self.records.iter().copied().collect()
    }
}

/// A count and a sum over all records, which any change of any of them changes.
#[derive(Default)]
struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, check: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(check);
    }

    fn take(&mut self, check: Option<u64>) {
        if let Some(check) = check {
            self.count = self.count.saturating_sub(1);
            self.sum = self.sum.wrapping_sub(check);
        }
    }
}

/// Two records of one token, as [`crate::revocation::index::Index`] unites them.
fn unite(known: Kept, new: Kept) -> Kept {
    let from_ms = if known.ended && new.ended { known.from_ms.min(new.from_ms) } else { new.from_ms };
    Kept { from_ms, until: known.until.max(new.until), ended: new.ended }
}

fn check(token: &[u8; 16], kept: Kept) -> u64 {
    let hash = Sha256::new()
        .chain_update(token)
        .chain_update(kept.from_ms.to_le_bytes())
        .chain_update(kept.until.to_le_bytes())
        .chain_update([u8::from(kept.ended)]);
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// From, until, whether it ended, and the check over them and the token.
type Row = (u64, u64, bool, u64);

/// Digest → what is known of the token.
const RECORDS: TableDefinition<[u8; 16], Row> = TableDefinition::new("records");

/// Count and sum of the checks of all records.
const TALLY: TableDefinition<(), (u64, u64)> = TableDefinition::new("tally");

/// More records than any memory holds; for a count that is itself damaged.
const MOST: u64 = 1 << 28;

/// redb's own memory; everything is in ours as well, so it need not be large.
pub const CACHE: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: u64 = 4_000_000_000;

    fn kept(until: u64) -> Kept {
        Kept { from_ms: 0, until, ended: true }
    }

    fn token(number: u64) -> [u8; 16] {
        let half = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let mut token = [0; 16];
        token[..8].copy_from_slice(&half);
        token[8..].copy_from_slice(&number.to_le_bytes());
        token
    }

    struct File(std::path::PathBuf);

    impl File {
        fn new(name: &str) -> File {
            // In memory where there is such a place: what is tested here is not the disk, and each opening syncs.
            let memory = Path::new("/dev/shm");
            let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
            let path = folder.join(format!("portcullis-disk-{name}-{}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            File(path)
        }

        fn open(&self) -> Disk {
            Disk::open(&self.0).unwrap()
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_is_written_united_and_taken_out_is_whole_when_read_again() {
        let file = File::new("whole");
        let disk = file.open();
        assert!(!disk.contents().damaged);
        let all: Vec<_> = (0..500).map(token).collect();
        disk.commit(all.iter().map(|token| (token, kept(100), 0))).unwrap();
        disk.commit(all.iter().step_by(2).map(|token| (token, kept(LATER), 0))).unwrap();
        drop(disk);
        let disk = file.open();
        let contents = disk.contents();
        assert_eq!((contents.damaged, contents.written, contents.records.len()), (false, Some(500), 500));
        disk.take_out(100).unwrap();
        let contents = disk.contents();
        assert_eq!((contents.damaged, contents.written, contents.records.len()), (false, Some(250), 250));
        let pardoned = Kept { from_ms: 7, until: 1, ended: false };
        disk.commit([(&all[0], pardoned, 0)].into_iter()).unwrap();
        assert_eq!(disk.contents().distinct()[&all[0]], Kept { until: LATER, ..pardoned });
    }

    #[test]
    fn a_file_is_no_larger_than_it_is_counted_with() {
        const MANY: u64 = 40_000;
        let file = File::new("large");
        let disk = file.open();
        let all: Vec<_> = (0..MANY).map(token).collect();
        for until in [LATER, LATER + 1] {
            for some in all.chunks(512) {
                disk.commit(some.iter().map(|token| (token, kept(until), 0))).unwrap();
            }
        }
        let length = std::fs::metadata(&file.0).unwrap().len();
        let room = crate::revocation::journal::Journal::room(MANY);
        assert!(length <= room, "{length} bytes, of {room}");
    }

    /// Bytes all over the file and in the records are turned, one at a time: nothing of what was written may change
    /// without being noticed.
    #[test]
    fn no_turned_byte_goes_unnoticed() {
        let file = File::new("turned");
        let all: Vec<_> = (1..=400).map(token).collect();
        let disk = file.open();
        disk.commit(all.iter().map(|token| (token, kept(LATER), 0))).unwrap();
        drop(disk);
        let whole = std::fs::read(&file.0).unwrap();
        let expected: HashMap<_, _> = all.iter().map(|token| (*token, kept(LATER))).collect();
        let used: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] != 0).collect();
        let in_records = all.iter().step_by(16).flat_map(|token| {
            let at = whole.windows(16).enumerate().filter(move |(_, bytes)| bytes == token).map(|(at, _)| at + 3);
            at.collect::<Vec<_>>()
        });
        let turned: Vec<usize> = used.iter().copied().step_by(used.len() / 60).chain(in_records).collect();
        let (mut noticed, mut harmless) = (0, 0);
        for at in turned {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            std::fs::write(&file.0, &damaged).unwrap();
            match Disk::open(&file.0).map(|disk| disk.contents()) {
                Ok(contents) if !contents.damaged => {
                    let read = contents.distinct();
                    assert!(
                        read == expected,
                        "byte {at} of {} left {} records: {:?}",
                        whole.len(),
                        read.len(),
                        contents.written
                    );
                    harmless += 1;
                }
                Ok(_) | Err(_) => noticed += 1,
            }
        }
        // What redb has copied elsewhere lies about in pages that are free.
        assert!(noticed > 25, "{noticed} noticed, {harmless} harmless");
    }
}
