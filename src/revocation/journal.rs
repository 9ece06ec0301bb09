//! Tokens that ended, on disk: written before the answer that ended one is released, read again at start.
//!
//! One thread writes. While it waits for the disk, others queue, and all that queued is one transaction with one sync
//! (group commit): hundreds of terminations a second cost hardly more syncs than one.
//!
//! Digests are kept, never tokens. The key they are made with lies beside them, because after a restart the same token
//! must give the same digest; it is readable by its owner only.

mod disk;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use self::disk::{Contents, Disk, Kept};
use super::record::{Fate, Record};
use crate::denial::Denial;
use crate::secret::DigestKey;
use crate::token::TokenDigest;

/// Where tokens that ended are written.
///
/// Dropping it waits until what was given to it is written, unless the disk refuses.
pub struct Journal {
    /// `None` only while it is dropped.
    records: Option<Sender<Entry>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
}

/// What the writing thread and the others tell each other.
#[derive(Default)]
struct State {
    /// The disk refuses.
    failing: AtomicBool,
    /// Nobody will give more.
    closing: AtomicBool,
}

/// A journal, and what it held when it was opened.
pub struct Opened {
    /// To write more.
    pub journal: Journal,
    /// The key its digests are made with.
    pub key: DigestKey,
    /// What is known of tokens, as far as its time is not over.
    pub records: Vec<Record>,
}

/// A record on its way to the disk.
struct Entry {
    token: TokenDigest,
    kept: Kept,
    /// The second since 1970 in which it was made.
    made: u64,
    written: oneshot::Sender<()>,
}

impl Journal {
    /// Bytes of memory that it takes beside what is known of tokens.
    pub const MEMORY: u64 = disk::CACHE as u64;

    /// The file in its folder with the key that its digests are made with.
    pub const KEY: &str = KEY;

    /// Bytes on disk that so many records take at most.
    pub fn room(records: u64) -> u64 {
        records.saturating_mul(ON_DISK).saturating_add(EMPTY)
    }

    /// The key of the journal in `folder`, if there is one that can be read; [`Journal::open`] says when it should be.
    pub fn known_key(folder: &Path) -> Option<DigestKey> {
        let bytes = fs::read(folder.join(KEY)).ok()?;
        Some(DigestKey::new(bytes.try_into().ok()?))
    }

    /// Opens the journal in `folder`, or makes one under `new_key`. The error says what is wrong and what to do; a journal
    /// that cannot be read is left as it is.
    pub fn open(folder: &Path, new_key: &DigestKey, now: SystemTime) -> Result<Opened, String> {
        let fault = |what: &str, fault: &dyn std::fmt::Display| format!("{what} {}: {fault}", folder.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|io| fault("cannot make the journal's folder", &io))?;
        let path = folder.join(STORE);
        let fresh = !path.exists();
        let key = key(folder, fresh.then_some(new_key))?;
        let unfinished = folder.join(UNFINISHED_STORE);
        if fresh {
            make(&unfinished, &path)?;
        }
        // A second name of the store by now, or what was left of an attempt to make one.
        let _ = fs::remove_file(&unfinished);
        let disk = opened(&path)?;
        let contents = disk.contents();
        if contents.damaged {
            return Err(format!(
                "the journal {} is damaged: {}; no record was changed; restore it from a copy, or set \
                 revocation.on_damage = \"salvage\" to go on with what can be read",
                path.display(),
                contents.loss()
            ));
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let records = contents.records.into_iter().filter(|(_, kept)| kept.until > since.as_secs());
        let records = records.map(|(token, kept)| record(token, kept, since)).collect();
        let (entries, received) = channel();
        let state = Arc::new(State::default());
        let writer = Writer { path, disk: Some(disk), received, state: Arc::clone(&state) };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|io| fault("cannot start a thread for the journal in", &io))?;
        let journal = Journal { records: Some(entries), thread: Some(thread), state };
        Ok(Opened { journal, key, records })
    }

    /// Makes a damaged journal whole again with what can be read of it. The damaged file is kept beside it. Says what was
    /// lost, or nothing when there was nothing to do.
    pub fn salvage(folder: &Path, now: SystemTime) -> Result<Option<String>, String> {
        let path = folder.join(STORE);
        if !path.exists() {
            return Ok(None);
        }
        let contents = match Disk::open(&path) {
            Ok(disk) => disk.contents(),
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Ok(None),
            Err(_) => Contents { damaged: true, ..Contents::default() },
        };
        if !contents.damaged {
            return Ok(None);
        }
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = folder.join(format!("{STORE}.damaged-{seconds}"));
        let fault = |fault: &dyn std::fmt::Display| format!("cannot salvage the journal {}: {fault}", path.display());
        // Whole under another name first: a kill in between must leave either the damaged file or the new one.
        let half = folder.join(HALF_STORE);
        let _ = fs::remove_file(&half);
        let disk = Disk::open(&half).map_err(|store| fault(&store))?;
        disk.commit(contents.distinct().iter().map(|(token, kept)| (token, *kept, seconds)))
            .map_err(|store| fault(&store))?;
        drop(disk);
        fs::hard_link(&path, &aside).and_then(|()| fs::rename(&half, &path)).map_err(|io| fault(&io))?;
        Ok(Some(format!("{}; the damaged file is kept as {}", contents.loss(), aside.display())))
    }

    /// Writes a record. When this returns, it is on disk.
    ///
    /// If the disk does not take it in time, the record stays queued and is written as soon as the disk does.
    pub async fn append(&self, record: Record, now: SystemTime) -> Result<(), Denial> {
        let since = now.duration_since(UNIX_EPOCH).map_err(|_| Denial::Internal)?;
        let (from_ms, ended) = match record.fate {
            // Without a grace it is from ever: a clock that was ahead when this was written must not grant one.
            Fate::Ended { grace } if grace.is_zero() => (0, true),
            Fate::Ended { grace } => (millis(since + grace), true),
            Fate::Pardoned => (0, false),
        };
        let until = (since + record.left).as_secs().saturating_add(1);
        let kept = Kept { from_ms, until, ended };
        let (written, done) = oneshot::channel();
        let entries = self.records.as_ref().ok_or(Denial::Internal)?;
        entries
            .send(Entry { token: record.token, kept, made: since.as_secs(), written })
            .map_err(|_| Denial::JournalFailed)?;
        let done = tokio::time::timeout(WRITTEN_WITHIN, done).await;
        done.map_err(|_| Denial::JournalFailed)?.map_err(|_| Denial::JournalFailed)
    }

    /// True while the disk refuses what it is given.
    pub fn failing(&self) -> bool {
        self.state.failing.load(Ordering::Acquire)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Release);
        drop(self.records.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    /// `None` after a failure, until it could be opened again.
    disk: Option<Disk>,
    received: Receiver<Entry>,
    state: Arc<State>,
}

impl Writer {
    /// Ends when the journal is dropped and everything is written.
    fn run(mut self) {
        loop {
            match self.received.recv_timeout(SWEPT_EVERY) {
                Ok(first) => {
                    let batch: Vec<Entry> =
                        std::iter::once(first).chain(self.received.try_iter().take(BATCH)).collect();
                    self.write(batch);
                }
                Err(RecvTimeoutError::Timeout) => self.sweep(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes a batch, again and again until the disk takes it: what ended must not be lost while someone makes room.
    fn write(&mut self, batch: Vec<Entry>) {
        loop {
            let done = match &self.disk {
                Some(disk) => {
                    disk.commit(batch.iter().map(|entry| (entry.token.as_bytes(), entry.kept, entry.made))).is_ok()
                }
                None => false,
            };
            self.state.failing.store(!done, Ordering::Release);
            if done {
                break;
            }
            if self.state.closing.load(Ordering::Acquire) {
                return;
            }
            // After a failed write redb refuses every further one until it is opened anew.
            self.disk = None;
            std::thread::sleep(TRIED_EVERY);
            self.disk = Disk::open(&self.path).ok();
        }
        for record in batch {
            // Who waited too long has gone.
            let _ = record.written.send(());
        }
    }

    /// Takes out what is over. A failure is found by the next write.
    fn sweep(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(disk) = &self.disk {
            let _ = disk.take_out(now);
        }
    }
}

/// Makes an empty store under another name and gives it its own once it is whole: one that was left half made, by a kill
/// in the middle of it, looks like a damaged one.
fn make(unfinished: &Path, path: &Path) -> Result<(), String> {
    let fault = |fault: &dyn std::fmt::Display| format!("cannot make the journal {}: {fault}", path.display());
    let made = match Disk::open(unfinished) {
        // Nothing was ever written to it.
        Err(redb::DatabaseError::Storage(_)) => {
            fs::remove_file(unfinished).map_err(|io| fault(&io))?;
            Disk::open(unfinished)
        }
        made => made,
    };
    drop(made.map_err(|store| fault(&store))?);
    // Unlike a renaming, this never takes the place of the store of another process that starts at the same time.
    match fs::hard_link(unfinished, path) {
        Err(io) if io.kind() != std::io::ErrorKind::AlreadyExists => Err(fault(&io)),
        Ok(()) | Err(_) => sync(path.parent().unwrap_or(path)).map_err(|io| fault(&io)),
    }
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn opened(path: &Path) -> Result<Disk, String> {
    Disk::open(path).map_err(|store| {
        let advice = match store {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                "another process uses it; give each replica a folder of its own"
            }
            _ => {
                "nothing was changed; restore it from a copy, or set revocation.on_damage = \"salvage\" to go on without \
                 what cannot be read"
            }
        };
        format!("cannot open the journal {}: {store}; {advice}", path.display())
    })
}

fn record(token: [u8; 16], kept: Kept, since: Duration) -> Record {
    let fate = match kept.ended {
        true => Fate::Ended { grace: Duration::from_millis(kept.from_ms.saturating_sub(millis(since))) },
        false => Fate::Pardoned,
    };
    let left = Duration::from_secs(kept.until.saturating_sub(since.as_secs()));
    Record { token: TokenDigest::from_bytes(token), fate, left }
}

/// The key beside the store. A store whose key is gone is of no use, and must not look as if it were empty.
fn key(folder: &Path, new: Option<&DigestKey>) -> Result<DigestKey, String> {
    let path = folder.join(KEY);
    let fault = |what: &str, fault: &dyn std::fmt::Display| format!("{what} {}: {fault}", path.display());
    let new = match File::open(&path) {
        Ok(mut file) => {
            let mut key = [0; 32];
            file.read_exact(&mut key).map_err(|io| fault("cannot read the journal's key", &io))?;
            return Ok(DigestKey::new(key));
        }
        Err(io) => match new {
            Some(new) if io.kind() == std::io::ErrorKind::NotFound => new,
            Some(_) | None => {
                let message = "cannot read the journal's key, without which its tokens cannot be recognised,";
                return Err(fault(message, &io));
            }
        },
    };
    let written = || {
        // Under another name first: a crash must not leave half a key.
        let half = folder.join(HALF_KEY);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
        file.write_all(new.expose())?;
        file.sync_all()?;
        fs::rename(&half, &path)?;
        sync(folder)
    };
    written().map_err(|io: std::io::Error| fault("cannot write the journal's key", &io))?;
    Ok(new.clone())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const STORE: &str = "revocations.redb";

const UNFINISHED_STORE: &str = "revocations.redb.unfinished";

const HALF_STORE: &str = "revocations.redb.new";

const KEY: &str = "digest.key";

const HALF_KEY: &str = "digest.key.new";

/// Bytes of a record on disk: its own are 41, pages are half full at worst, and what is written anew is kept until it is
/// synced.
const ON_DISK: u64 = 256;

/// Bytes of a journal without records.
const EMPTY: u64 = 4 << 20;

/// Records in one transaction at most.
const BATCH: usize = 4096;

/// For how long an answer is held for the disk.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// How often a disk that refuses is asked again.
const TRIED_EVERY: Duration = Duration::from_secs(1);

/// How often, when nothing is to be written, what is over is taken out.
const SWEPT_EVERY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("portcullis-journal-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }

        fn open(&self, now: SystemTime) -> Opened {
            Journal::open(&self.0, &DigestKey::new(rand::random()), now).unwrap_or_else(|fault| panic!("{fault}"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn ended(token: TokenDigest, left: Duration) -> Record {
        Record::ended(token, Duration::ZERO, left)
    }

    fn tokens(opened: &Opened) -> Vec<TokenDigest> {
        let mut tokens: Vec<_> = opened.records.iter().map(|record| record.token).collect();
        tokens.sort_unstable();
        tokens
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_opening_again_under_the_same_key() {
        let folder = Folder::new("again");
        let now = SystemTime::now();
        let opened = folder.open(now);
        assert!(opened.records.is_empty());
        let all: Vec<_> = (0..300).map(|n: u32| TokenDigest::of(&n.to_be_bytes(), &opened.key)).collect();
        let journal = Arc::new(opened.journal);
        let mut appends = tokio::task::JoinSet::new();
        for token in all.clone() {
            let journal = Arc::clone(&journal);
            appends.spawn(async move { journal.append(ended(token, HOUR), now).await });
        }
        assert!(appends.join_all().await.iter().all(Result::is_ok));
        drop(journal);
        let again = folder.open(now);
        assert_eq!(
            again.key.digest(crate::secret::Purpose::Token, b"x"),
            opened.key.digest(crate::secret::Purpose::Token, b"x")
        );
        let mut expected = all;
        expected.sort_unstable();
        assert_eq!(tokens(&again), expected);
    }

    #[tokio::test]
    async fn what_is_over_is_taken_out() {
        let folder = Folder::new("over");
        let now = SystemTime::now();
        let opened = folder.open(now);
        let (short, long) = (TokenDigest::of(b"short", &opened.key), TokenDigest::of(b"long", &opened.key));
        opened.journal.append(ended(short, HOUR), now).await.unwrap();
        opened.journal.append(ended(long, 3 * HOUR), now).await.unwrap();
        drop(opened.journal);
        let later = folder.open(now + 2 * HOUR);
        assert_eq!(tokens(&later), [long]);
        let left = later.records[0].left;
        assert!(left <= HOUR + Duration::from_secs(2) && left >= HOUR - Duration::from_secs(2), "{left:?}");
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_grants_no_grace() {
        let folder = Folder::new("ahead");
        let now = SystemTime::now();
        let opened = folder.open(now);
        let token = TokenDigest::of(b"token", &opened.key);
        opened.journal.append(ended(token, HOUR), now + 24 * HOUR).await.unwrap();
        drop(opened.journal);
        let fates: Vec<_> = folder.open(now).records.iter().map(|record| record.fate).collect();
        assert_eq!(fates, [Fate::Ended { grace: Duration::ZERO }]);
    }

    #[test]
    fn one_process_only() {
        let folder = Folder::new("one");
        let _first = folder.open(SystemTime::now());
        let second = Journal::open(&folder.0, &DigestKey::new([5; 32]), SystemTime::now()).err().unwrap();
        assert!(second.contains("another process uses it"), "{second}");
    }

    #[test]
    fn a_damaged_store_is_reported_and_left_as_it_is() {
        let folder = Folder::new("damaged");
        drop(folder.open(SystemTime::now()));
        let path = folder.0.join(STORE);
        let whole = fs::read(&path).unwrap();
        for damaged in [vec![0x55; 4096], whole[..4096].to_vec(), whole[..whole.len() / 2].to_vec()] {
            fs::write(&path, &damaged).unwrap();
            let fault = Journal::open(&folder.0, &DigestKey::new([5; 32]), SystemTime::now()).err().unwrap();
            assert!(fault.contains("cannot open the journal"), "{fault}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }

    /// Turns a byte of the record of `token`, wherever it lies.
    fn turn_a_byte(path: &Path, token: TokenDigest) {
        let mut bytes = fs::read(path).unwrap();
        let places = bytes.windows(16).enumerate().filter(|(_, window)| window == token.as_bytes()).map(|(at, _)| at);
        let places: Vec<usize> = places.collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at] ^= 1);
        fs::write(path, bytes).unwrap();
    }

    #[tokio::test]
    async fn a_damaged_record_stops_the_start_and_can_be_salvaged_around() {
        let folder = Folder::new("salvage");
        let now = SystemTime::now();
        let opened = folder.open(now);
        let all: Vec<_> = (0..100).map(|n: u32| TokenDigest::of(&n.to_be_bytes(), &opened.key)).collect();
        for token in &all {
            opened.journal.append(ended(*token, HOUR), now).await.unwrap();
        }
        drop(opened);
        assert_eq!(Journal::salvage(&folder.0, now), Ok(None));
        let path = folder.0.join(STORE);
        turn_a_byte(&path, all[42]);

        let fault = Journal::open(&folder.0, &DigestKey::new([5; 32]), now).err().unwrap();
        assert!(fault.contains("is damaged: of its 100 records 99 can be read; no record was changed"), "{fault}");
        let loss = Journal::salvage(&folder.0, now).unwrap().unwrap();
        assert!(loss.starts_with("of its 100 records 99 can be read; the damaged file is kept as "), "{loss}");
        let (_, aside) = loss.rsplit_once(' ').unwrap();
        let aside = Disk::open(Path::new(aside)).unwrap().contents();
        assert_eq!((aside.damaged, aside.written, aside.records.len()), (true, Some(100), 99));
        let mut expected: Vec<_> = all.iter().copied().filter(|token| *token != all[42]).collect();
        expected.sort_unstable();
        assert_eq!(tokens(&folder.open(now)), expected);
        assert_eq!(Journal::salvage(&folder.0, now), Ok(None));
    }

    #[test]
    fn a_store_that_was_half_made_when_it_was_killed_is_made_again() {
        let folder = Folder::new("half-made");
        fs::create_dir_all(&folder.0).unwrap();
        // What redb leaves when it is killed before it has written its mark, which it writes last.
        fs::write(folder.0.join(UNFINISHED_STORE), vec![0; 1 << 20]).unwrap();
        drop(folder.open(SystemTime::now()));
        let mut files: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, [KEY, STORE]);
    }

    #[test]
    fn a_store_without_its_key_is_no_empty_store() {
        let folder = Folder::new("keyless");
        drop(folder.open(SystemTime::now()).journal);
        fs::remove_file(folder.0.join(KEY)).unwrap();
        let fault = Journal::open(&folder.0, &DigestKey::new([5; 32]), SystemTime::now()).err().unwrap();
        assert!(fault.contains("cannot be recognised"), "{fault}");
    }

    #[test]
    fn the_key_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("mode");
        let _opened = folder.open(SystemTime::now());
        assert_eq!(fs::metadata(folder.0.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
