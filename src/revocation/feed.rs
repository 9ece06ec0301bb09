//! What replicas tell each other: one ordered log in the store, followed from where it was last read.
//!
//! ```text
//! publish ──► XADD ──► the log ──► XREAD ──► index      (every replica's, ours too)
//! ```
//!
//! A record is published before the answer that made it is released, and counts as published for good only when it has
//! been read back. What has not been is published again after a broken connection. A log that has lost entries, because
//! a failover rolled it back or somebody emptied it, no longer has the place where it was last read; then everything known
//! here that the log lacks is published again. So is what a journal remembers when a replica starts.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{Cmd, FromRedisValue, cmd, pipe};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use super::index::Index;
use super::news::{News, Position, hex, unhex};
use super::record::{Fate, Record};
use super::store::{Connection, Fault, Store};
use crate::log::Log;
use crate::secret::DigestKey;
use crate::token::TokenDigest;

/// The log, followed. Dropping it stops following.
pub struct Feed {
    shared: Arc<Shared>,
    following: AbortHandle,
}

/// What a feed needs to know.
pub struct FeedRules {
    /// Stands in front of every key in the store.
    pub prefix: String,
    /// How long an entry counts; older ones are trimmed.
    pub keep: Duration,
    /// How long the store may take for an answer before it counts as away.
    pub timeout: Duration,
}

/// How a feed is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Condition {
    /// The store has not been heard of in time.
    pub away: bool,
    /// How far behind the log this replica is, in seconds.
    pub lag: f64,
    /// Records that are not known to stand in the log.
    pub unpublished: u64,
    /// How often the log had lost entries.
    pub resyncs: u64,
    /// Entries that could not be read.
    pub unreadable: u64,
}

struct Shared {
    store: Store,
    rules: FeedRules,
    index: Arc<Index>,
    log: Log,
    own: DigestKey,
    /// Keys of replicas that began apart from this one; almost always none.
    others: RwLock<Vec<DigestKey>>,
    has_others: AtomicBool,
    /// Where to publish; `None` while there is no connection.
    writing: watch::Sender<Option<Connection>>,
    /// Up to where the log was read.
    position: watch::Sender<Position>,
    /// The log was read to its end at least once.
    synced: watch::Sender<bool>,
    /// Published, and not read back yet.
    pending: Mutex<HashMap<u64, Record>>,
    clock: Mutex<Clock>,
    /// Tells the follower that a command failed.
    broken: Notify,
    heard: Mutex<Option<Instant>>,
    lag_us: AtomicU64,
    resyncs: AtomicU64,
    unreadable: AtomicU64,
}

/// The store's clock, as last asked for.
#[derive(Clone, Copy)]
struct Clock {
    ms: u64,
    at: Instant,
}

impl Feed {
    /// Begins to follow. Digests are made with `own`.
    pub fn start(store: Store, rules: FeedRules, own: DigestKey, index: Arc<Index>, log: Log) -> Feed {
        let shared = Arc::new(Shared {
            store,
            rules,
            index,
            log,
            own,
            others: RwLock::default(),
            has_others: AtomicBool::new(false),
            writing: watch::Sender::new(None),
            position: watch::Sender::default(),
            synced: watch::Sender::new(false),
            pending: Mutex::default(),
            clock: Mutex::new(Clock { ms: 0, at: Instant::now() }),
            broken: Notify::new(),
            heard: Mutex::default(),
            lag_us: AtomicU64::new(0),
            resyncs: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        });
        let following = tokio::spawn(Arc::clone(&shared).run()).abort_handle();
        Feed { shared, following }
    }

    /// Publishes a record. When this returns, it stands in the log; an error says that it may not yet, and that it is
    /// published as soon as the store can be reached.
    pub async fn publish(&self, record: Record) -> Result<(), Fault> {
        let shared = &self.shared;
        let id = rand::random();
        lock(&shared.pending).insert(id, record);
        let add = shared.addition(&News::Record(id, record));
        shared.ask::<String>(&add).await.map(drop)
    }

    /// Makes sure that everything that stood in the log before this was called is known here.
    pub async fn catch_up(&self) -> Result<(), Fault> {
        let shared = &self.shared;
        let deadline = tokio::time::Instant::now() + shared.rules.timeout;
        let mut last = cmd("XREVRANGE");
        last.arg(shared.rules.log()).arg("+").arg("-").arg("COUNT").arg(1);
        let last: StreamRangeReply = shared.ask(&last).await?;
        let Some(end) = last.ids.first().and_then(|entry| entry.id.parse::<Position>().ok()) else { return Ok(()) };
        let mut position = shared.position.subscribe();
        let reached = timeout_at(deadline, position.wait_for(|position| *position >= end)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err("the log was not followed in time".into()),
        }
    }

    /// One command of somebody who shares the store, and its answer.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        self.shared.ask(command).await
    }

    /// The name of a key in the store. What stands in braces decides in a cluster where it lives.
    pub fn name(&self, end: &str) -> String {
        format!("{}:{end}", self.shared.rules.prefix)
    }

    /// True when what is known here is as fresh as promised: the store was heard of within a heartbeat and its timeout.
    pub fn is_current(&self) -> bool {
        self.is_synced() && self.shared.is_heard()
    }

    /// True once the log has been read.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the log has been read.
    pub async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Other digests under which a token may be known.
    pub fn others(&self, text: &[u8]) -> Vec<TokenDigest> {
        if !self.shared.has_others.load(Ordering::Acquire) {
            return Vec::new();
        }
        let others = self.shared.others.read().unwrap_or_else(PoisonError::into_inner);
        others.iter().map(|key| TokenDigest::of(text, key)).collect()
    }

    /// How it is doing.
    pub fn condition(&self) -> Condition {
        let shared = &self.shared;
        let unheard = lock(&shared.heard).map_or(Duration::ZERO, |heard| heard.elapsed());
        let lag = match shared.is_heard() {
            true => Duration::from_micros(shared.lag_us.load(Ordering::Relaxed)),
            false => unheard,
        };
        Condition {
            away: !self.is_current(),
            lag: lag.as_secs_f64(),
            unpublished: u64::try_from(lock(&shared.pending).len()).unwrap_or(u64::MAX),
            resyncs: shared.resyncs.load(Ordering::Relaxed),
            unreadable: shared.unreadable.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// The key that the replicas of a store share: `own`, unless another was there first.
pub async fn shared_key(store: &Store, rules: &FeedRules, own: &DigestKey) -> Result<DigestKey, Fault> {
    let mut connection = store.connect(rules.timeout).await?;
    agree(&mut connection, rules, own).await
}

async fn agree(connection: &mut Connection, rules: &FeedRules, own: &DigestKey) -> Result<DigestKey, Fault> {
    let mut set = cmd("SET");
    set.arg(rules.key()).arg(hex(own.expose())).arg("NX");
    let _: Option<String> = set.query_async(connection).await?;
    let key: String = cmd("GET").arg(rules.key()).query_async(connection).await?;
    let bytes = unhex(&key).ok_or("the store holds no key where the replicas' key should be")?;
    Ok(DigestKey::new(bytes))
}

impl FeedRules {
    fn log(&self) -> String {
        format!("{{{}}}:log", self.prefix)
    }

    fn key(&self) -> String {
        format!("{{{}}}:key", self.prefix)
    }
}

impl Shared {
    /// Follows for ever, over one connection after the other.
    async fn run(self: Arc<Self>) {
        let mut pause = SHORTEST_PAUSE;
        let mut away = false;
        loop {
            let began = Instant::now();
            let Err(fault) = self.session(&mut away).await;
            self.writing.send_replace(None);
            if !away {
                away = true;
                self.log.note("error", "revocation_store_away", &json!({ "why": fault.to_string() }));
            }
            // Who was connected for a while was not turned away: try again at once.
            pause = if began.elapsed() > LONGEST_PAUSE { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::time::sleep(pause).await;
        }
    }

    /// One pair of connections, until one of them breaks.
    async fn session(&self, away: &mut bool) -> Result<Infallible, Fault> {
        let mut reading = self.store.connect(HEARTBEAT + self.rules.timeout).await?;
        let mut writing = self.store.connect(self.rules.timeout).await?;
        let shared = agree(&mut writing, &self.rules, &self.own).await?;
        self.tell_time(&mut reading).await?;
        self.learn(&shared);
        let foreign = shared.expose() != self.own.expose();
        if *self.synced.borrow() && !self.has_lost(&mut reading).await? {
            while self.read(&mut reading, None).await? != 0 {}
        } else {
            self.reconcile(&mut reading).await?;
        }
        if foreign {
            // Before the first record under it, so that nobody meets a digest of a key unheard of.
            let () = self.addition(&News::Key(self.own.clone())).query_async(&mut writing).await?;
        }
        self.publish_pending(&mut writing).await?;
        self.writing.send_replace(Some(writing.clone()));
        // What was recorded between the two lines before this one found nowhere to be published.
        self.publish_pending(&mut writing).await?;
        self.hear();
        self.synced.send_replace(true);
        if std::mem::take(away) {
            self.log.note("info", "revocation_store_back", &json!({}));
        }
        let mut announced = Instant::now();
        loop {
            let read = tokio::select! {
                read = self.read(&mut reading, Some(HEARTBEAT)) => read?,
                () = self.broken.notified() => return Err("a command got no good answer".into()),
            };
            self.hear();
            if read == 0 {
                self.lag_us.store(0, Ordering::Relaxed);
                self.tell_time(&mut reading).await?;
            }
            if self.has_lost(&mut reading).await? {
                return Err("the log has lost entries".into());
            }
            if foreign && announced.elapsed() > self.rules.keep / 2 {
                let () = self.addition(&News::Key(self.own.clone())).query_async(&mut writing).await?;
                announced = Instant::now();
            }
        }
    }

    /// Reads on from the position, and says how many entries there were. With `wait`, waits for the first one.
    async fn read(&self, reading: &mut Connection, wait: Option<Duration>) -> Result<usize, Fault> {
        let entries = self.entries(reading, wait).await?;
        let now = self.now_ms();
        for entry in &entries {
            let position = position(entry)?;
            match self.news(entry, position, now) {
                None => self.complain_of(position),
                Some(News::Key(key)) => self.learn(&key),
                Some(News::Record(id, record)) => {
                    lock(&self.pending).remove(&id);
                    // An end of our own that the log will show later is not undone by an earlier pardon.
                    if record.fate != Fate::Pardoned || !self.ends_later(&record.token) {
                        self.take_in(record);
                    }
                }
            }
            if wait.is_some() {
                self.lag_us.store(micros(position.age(self.now_ms())), Ordering::Relaxed);
            }
            self.position.send_replace(position);
        }
        Ok(entries.len())
    }

    /// Reads the whole log, and sees to it that everything known here stands in it.
    async fn reconcile(&self, reading: &mut Connection) -> Result<(), Fault> {
        let before = *self.position.borrow();
        let mut logged: HashMap<TokenDigest, Fate> = HashMap::new();
        self.position.send_replace(Position::default());
        loop {
            let entries = self.entries(reading, None).await?;
            let now = self.now_ms();
            for entry in &entries {
                let position = position(entry)?;
                match self.news(entry, position, now) {
                    None => self.complain_of(position),
                    Some(News::Key(key)) => self.learn(&key),
                    Some(News::Record(id, record)) => {
                        lock(&self.pending).remove(&id);
                        logged.insert(record.token, record.fate);
                        // What was read before the log lost its end has had its effect, and may have been overtaken.
                        if position > before || record.fate != Fate::Pardoned {
                            self.take_in(record);
                        }
                    }
                }
                self.position.send_replace(position);
            }
            self.hear();
            if entries.is_empty() {
                break;
            }
        }
        let same = |one: &Fate, other: &Fate| (*one == Fate::Pardoned) == (*other == Fate::Pardoned);
        let missing = |record: &Record| !logged.get(&record.token).is_some_and(|fate| same(fate, &record.fate));
        let missing: Vec<Record> = self.index.records().filter(missing).collect();
        if *self.synced.borrow() {
            self.resyncs.fetch_add(1, Ordering::Relaxed);
            self.log.note("warn", "revocation_log_rolled_back", &json!({ "published_again": missing.len() }));
        }
        let mut pending = lock(&self.pending);
        let waiting: HashMap<TokenDigest, Fate> = pending.values().map(|record| (record.token, record.fate)).collect();
        for record in missing {
            if !waiting.get(&record.token).is_some_and(|fate| same(fate, &record.fate)) {
                pending.insert(rand::random(), record);
            }
        }
        Ok(())
    }

    /// True when the entry that was read last is gone although it is not old enough to have been trimmed.
    async fn has_lost(&self, reading: &mut Connection) -> Result<bool, Fault> {
        let position = *self.position.borrow();
        if position == Position::default() || position.age(self.now_ms()) > self.rules.keep {
            return Ok(false);
        }
        let mut range = cmd("XRANGE");
        range.arg(self.rules.log()).arg(position.to_string()).arg(position.to_string());
        let found: StreamRangeReply = range.query_async(reading).await?;
        Ok(found.ids.is_empty())
    }

    async fn publish_pending(&self, writing: &mut Connection) -> Result<(), Fault> {
        let pending: Vec<(u64, Record)> = lock(&self.pending).iter().map(|(id, record)| (*id, *record)).collect();
        for chunk in pending.chunks(PIPELINED) {
            let mut pipeline = pipe();
            for (id, record) in chunk {
                pipeline.add_command(self.addition(&News::Record(*id, *record))).ignore();
            }
            let () = pipeline.query_async(writing).await?;
        }
        Ok(())
    }

    async fn entries(&self, reading: &mut Connection, wait: Option<Duration>) -> Result<Vec<StreamId>, Fault> {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(AT_ONCE);
        if let Some(wait) = wait {
            read.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        read.arg("STREAMS").arg(self.rules.log()).arg(self.position.borrow().to_string());
        let reply: Option<StreamReadReply> = read.query_async(reading).await?;
        Ok(reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect())
    }

    fn news(&self, entry: &StreamId, position: Position, now_ms: u64) -> Option<News> {
        let text =
            |(name, value): (&String, &redis::Value)| Some((name.clone(), String::from_redis_value_ref(value).ok()?));
        let fields: HashMap<String, String> = entry.map.iter().filter_map(text).collect();
        News::read(&fields, position.age(now_ms))
    }

    fn take_in(&self, record: Record) {
        if !record.left.is_zero() {
            self.index.put_anyway(record);
        }
    }

    fn ends_later(&self, token: &TokenDigest) -> bool {
        lock(&self.pending).values().any(|record| record.token == *token && record.fate != Fate::Pardoned)
    }

    /// A command and its answer within the timeout, over whichever connection there is by then.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let deadline = tokio::time::Instant::now() + self.rules.timeout;
        let mut writing = self.writing.subscribe();
        loop {
            // While the store is known to be away, nobody waits for it.
            if !self.is_heard() {
                return Err("the store is away".into());
            }
            let connection = match timeout_at(deadline, writing.wait_for(Option::is_some)).await {
                Ok(Ok(connection)) => connection.clone(),
                Ok(Err(_)) | Err(_) => return Err("there was no connection in time".into()),
            };
            let Some(mut connection) = connection else { continue };
            match timeout_at(deadline, command.query_async(&mut connection)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) => {
                    // This connection is of no use to anyone; wait for the next one.
                    writing.mark_unchanged();
                    self.broken.notify_one();
                    if timeout_at(deadline, writing.changed()).await.is_err() {
                        return Err("the store gave no good answer in time".into());
                    }
                }
                Err(_) => {
                    self.broken.notify_one();
                    return Err("the store did not answer in time".into());
                }
            }
        }
    }

    fn addition(&self, news: &News) -> Cmd {
        let mut add = cmd("XADD");
        add.arg(self.rules.log()).arg("MINID").arg("~").arg(self.oldest_ms()).arg("*");
        for (name, value) in news.fields() {
            add.arg(name).arg(value);
        }
        add
    }

    /// Entries before this are over, also for a replica whose clock is not ours. By the slower one of two clocks: one
    /// that jumps ahead must not have the log trimmed.
    fn oldest_ms(&self) -> u64 {
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        self.now_ms().min(ours).saturating_sub(millis(self.rules.keep + TRIMMED_LATE))
    }

    async fn tell_time(&self, connection: &mut Connection) -> Result<(), Fault> {
        let (seconds, micros): (u64, u64) = cmd("TIME").query_async(connection).await?;
        *lock(&self.clock) = Clock { ms: seconds * 1000 + micros / 1000, at: Instant::now() };
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        let clock = *lock(&self.clock);
        clock.ms + millis(clock.at.elapsed())
    }

    fn learn(&self, key: &DigestKey) {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::iter::once(&self.own).chain(others.iter()).any(|known| known.expose() == key.expose());
        if !known && others.len() < MOST_KEYS {
            others.push(key.clone());
            self.has_others.store(true, Ordering::Release);
        }
    }

    fn hear(&self) {
        *lock(&self.heard) = Some(Instant::now());
    }

    fn is_heard(&self) -> bool {
        lock(&self.heard).is_some_and(|heard| heard.elapsed() <= HEARTBEAT + self.rules.timeout)
    }

    fn complain_of(&self, position: Position) {
        if self.unreadable.fetch_add(1, Ordering::Relaxed) == 0 {
            let about = json!({ "entry": position.to_string() });
            self.log.note("error", "revocation_entry_unreadable", &about);
        }
    }
}

fn position(entry: &StreamId) -> Result<Position, Fault> {
    entry.id.parse().map_err(|()| Fault::from("the log has an entry without a place"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How often the store is heard of when nothing happens.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// Between two attempts to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Entries read at once.
const AT_ONCE: usize = 4096;

/// Entries published at once.
const PIPELINED: usize = 512;

/// Trimming waits longer than anything that counts: a grace, and clocks that differ.
const TRIMMED_LATE: Duration = Duration::from_secs(2 * 3600);

/// Keys of replicas that began apart. Each costs a digest per check.
const MOST_KEYS: usize = 16;
