//! What replicas tell each other: one ordered log in the store, followed from where it was last read.
//!
//! ```text
//! publish ──► pending ──► XADD ──► the log ──► XREAD ──► index      (every replica's, ours too)
//! ```
//!
//! `feed/writing` publishes, `feed/reading` follows, and `feed/keys` knows under which keys replicas make digests.
//!
//! A record is published before the answer that made it is released, and counts as published for good only when it has
//! been read back: what has not been is published again over the next connection.
//!
//! A log can lose entries it had taken: a failover promoted a replica that lacked them, somebody emptied it. It is noticed
//! by the entry that was read last, which is looked for after every reading, and by what the log had taken and does not
//! show. Then the whole log is read, and everything known here that it lacks is published again. So is what a journal
//! remembers when a replica starts.
//!
//! Ends and pardons of a token count in the order of the log. Only what came late into it (published again, or from a
//! replica that was cut off) stands in the wrong place, and counts by when it was made.

mod keys;
mod reading;
mod writing;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, RedisError, Value, cmd};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout, timeout_at};

use self::keys::Keys;
use self::reading::{Place, range};
use self::writing::MOST_AT_ONCE;
use super::index::Index;
use super::news::{Position, What, unhex};
use super::pending::Pending;
use super::record::Record;
use super::store::{Connection, Fault, Store, is_refusal};
use crate::hex;
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
    /// The store has not been heard of in time, or takes nothing.
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
    keys: Keys,
    /// Where to publish; `None` while there is no connection.
    writing: watch::Sender<Option<Writing>>,
    /// Up to where the log was read, and all of it is in the index.
    place: watch::Sender<Place>,
    /// The log has lost entries, and was read up to here when it had them.
    lost: Mutex<Option<Position>>,
    /// The log was read to its end at least once.
    synced: watch::Sender<bool>,
    pending: Mutex<Pending>,
    /// Tells that there is more to publish.
    queued: Notify,
    /// The log has taken everything pending below this number, in this session.
    taken: AtomicU64,
    /// How many entries are published at once.
    at_once: AtomicUsize,
    /// The last thing it was given, the store did not take.
    refused: AtomicBool,
    /// The newest session in which a command got no answer.
    broken: watch::Sender<u64>,
    clock: Mutex<Clock>,
    /// When the store was last asked for what it then told.
    heard: Mutex<Option<Instant>>,
    told_away: AtomicBool,
    lag_us: AtomicU64,
    resyncs: AtomicU64,
    unreadable: AtomicU64,
}

/// The connection of one session.
#[derive(Clone)]
struct Writing {
    session: u64,
    connection: Connection,
}

/// The store's clock, as last asked for.
#[derive(Clone, Copy)]
struct Clock {
    ms: u64,
    at: Instant,
}

/// Why a session ended.
enum Stop {
    /// The store does not answer as it should.
    Away(Fault),
    /// The log does not have what it had.
    Lost,
}

impl Feed {
    /// Begins to follow. Digests are made with `own`.
    pub fn start(store: Store, rules: FeedRules, own: DigestKey, index: Arc<Index>, log: Log) -> Feed {
        let shared = Arc::new(Shared {
            store,
            rules,
            index,
            log,
            keys: Keys::new(own),
            writing: watch::Sender::new(None),
            place: watch::Sender::default(),
            lost: Mutex::default(),
            synced: watch::Sender::new(false),
            pending: Mutex::new(Pending::new(rand::random())),
            queued: Notify::new(),
            taken: AtomicU64::new(0),
            at_once: AtomicUsize::new(MOST_AT_ONCE),
            refused: AtomicBool::new(false),
            broken: watch::Sender::new(0),
            clock: Mutex::new(Clock { ms: 0, at: Instant::now() }),
            heard: Mutex::default(),
            told_away: AtomicBool::new(false),
            lag_us: AtomicU64::new(0),
            resyncs: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        });
        let following = tokio::spawn(Arc::clone(&shared).run()).abort_handle();
        Feed { shared, following }
    }

    /// Publishes a record, which is on its way when this returns. When the future ends, it stands in the log; an error says
    /// that it may not yet, and that it is published as soon as the store can be reached and takes it.
    pub fn publish(&self, record: Record) -> impl Future<Output = Result<(), Fault>> {
        let shared = &self.shared;
        let taken = lock(&shared.pending).add(What::Fate(record));
        shared.queued.notify_one();
        async move {
            // While the store is known to be away, nobody waits for it.
            if !shared.is_heard() {
                return Err("the store is away".into());
            }
            if shared.refused.load(Ordering::Acquire) {
                return Err("the store takes nothing".into());
            }
            match timeout(shared.rules.timeout, taken).await {
                Ok(Ok(taken)) => taken,
                Ok(Err(_)) | Err(_) => Err("the store did not take it in time".into()),
            }
        }
    }

    /// Makes sure that everything that stood in the log before this was called is known here.
    pub async fn catch_up(&self) -> Result<(), Fault> {
        let shared = &self.shared;
        let deadline = tokio::time::Instant::now() + shared.rules.timeout;
        let known = shared.place.borrow().position;
        let mut last = cmd("XREVRANGE");
        last.arg(shared.rules.log()).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Value = shared.ask(&last).await?;
        let end = range(&last)?.first().map(|entry| entry.position).unwrap_or_default();
        if end < known {
            // Other entries than those that were read stand before it, or will.
            return Err("the log has lost entries".into());
        }
        let mut place = shared.place.subscribe();
        let reached = timeout_at(deadline, place.wait_for(|place| place.position >= end)).await;
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

    /// True when what is known here is as fresh as promised: everything that stood in the log two heartbeats and a
    /// timeout ago.
    pub fn is_current(&self) -> bool {
        self.is_synced() && self.shared.is_heard()
    }

    /// True when what is published now will be taken, as far as one can tell.
    pub fn takes(&self) -> bool {
        self.is_current() && !self.shared.refused.load(Ordering::Acquire)
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
        self.shared.keys.others(text)
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
            away: !self.takes(),
            lag: lag.as_secs_f64(),
            unpublished: u64::try_from(lock(&shared.pending).count()).unwrap_or(u64::MAX),
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
    // A store that takes nothing may still say what it has.
    let _ = rules.offer(&mut connection, own).await?;
    rules.agreed(&mut connection).await
}

impl FeedRules {
    fn log(&self) -> String {
        format!("{{{}}}:log", self.prefix)
    }

    fn key(&self) -> String {
        format!("{{{}}}:key", self.prefix)
    }

    /// Sets the key that replicas share where there is none. The inner error is that of a store that answers, and takes
    /// nothing; a server that is not the master has no say at all.
    async fn offer(&self, connection: &mut Connection, own: &DigestKey) -> Result<Result<(), Fault>, RedisError> {
        let mut set = cmd("SET");
        set.arg(self.key()).arg(hex::encode(own.expose())).arg("NX");
        match set.query_async::<Option<String>>(connection).await {
            Ok(_) => Ok(Ok(())),
            Err(fault) if is_refusal(&fault) => Ok(Err(fault.into())),
            Err(fault) => Err(fault),
        }
    }

    /// The key that replicas share.
    async fn agreed(&self, connection: &mut Connection) -> Result<DigestKey, Fault> {
        let key: Option<String> = cmd("GET").arg(self.key()).query_async(connection).await?;
        let bytes = key.as_deref().and_then(unhex);
        let bytes = bytes.ok_or_else(|| {
            let name = self.key();
            Fault::from(format!("{name} holds no key of Portcullis; delete it, and a replica that runs sets it anew"))
        })?;
        Ok(DigestKey::new(bytes))
    }
}

impl Shared {
    /// Follows for ever, in one session after the other.
    async fn run(self: Arc<Self>) {
        let mut pause = SHORTEST_PAUSE;
        let mut session = 0;
        loop {
            session += 1;
            let began = Instant::now();
            let mut following = false;
            let Err(stop) = self.session(session, &mut following).await;
            self.writing.send_replace(None);
            // Who followed for a while was not turned away, and may just have been told to go elsewhere.
            let cut = following && began.elapsed() > LONGEST_PAUSE;
            match stop {
                Stop::Lost => {
                    let place = self.place.send_replace(Place::default());
                    lock(&self.lost).get_or_insert(place.position);
                }
                Stop::Away(_) if cut => {}
                Stop::Away(fault) => self.tell_away(&fault),
            }
            pause = match (cut, following) {
                (true, _) => SHORTEST_PAUSE,
                (false, true) => (pause * 2).min(LONGEST_PAUSE / 5),
                (false, false) => (pause * 2).min(LONGEST_PAUSE),
            };
            sleep(pause).await;
        }
    }

    /// One pair of connections, until one of them breaks.
    async fn session(&self, session: u64, following: &mut bool) -> Result<Infallible, Stop> {
        self.taken.store(0, Ordering::Release);
        let mut reading = self.store.connect(HEARTBEAT + self.rules.timeout).await?;
        let mut writing = self.store.connect(self.rules.timeout).await?;
        let offered = self.rules.offer(&mut writing, self.keys.own()).await?;
        self.refused.store(offered.is_err(), Ordering::Release);
        let shared = self.rules.agreed(&mut writing).await?;
        self.tell_time(&mut writing).await?;
        self.learn(&shared, None, Position::default());
        let is_foreign = shared != *self.keys.own();
        // A journal has filled the index, and nothing of the log has been read yet.
        let is_from_journal = self.place.borrow().position == Position::default() && self.index.count().0 > 0;
        if lock(&self.lost).is_some() || is_from_journal && !*self.synced.borrow() {
            self.reconcile(&mut reading).await?;
        } else {
            while self.read(&mut reading, None).await? != 0 {}
        }
        self.writing.send_replace(Some(Writing { session, connection: writing.clone() }));
        self.synced.send_replace(true);
        *following = true;
        let mut broken = self.broken.subscribe();
        tokio::select! {
            stopped = self.follow(&mut reading) => stopped,
            stopped = self.speak(&mut writing, is_foreign) => stopped,
            _ = broken.wait_for(|broken| *broken >= session) => Err(Fault::from("a command got no answer in time").into()),
        }
    }

    /// A command and its answer within the timeout, over whichever connection there is by then.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let deadline = tokio::time::Instant::now() + self.rules.timeout;
        let mut writing = self.writing.subscribe();
        let mut failed = 0;
        loop {
            // While the store is known to be away, nobody waits for it.
            if !self.is_heard() {
                return Err("the store is away".into());
            }
            let is_next = |writing: &Option<Writing>| writing.as_ref().is_some_and(|writing| writing.session > failed);
            let connected = match timeout_at(deadline, writing.wait_for(is_next)).await {
                Ok(Ok(writing)) => writing.clone(),
                Ok(Err(_)) | Err(_) => return Err("there was no connection in time".into()),
            };
            let Some(Writing { session, mut connection }) = connected else { continue };
            match timeout_at(deadline, command.query_async(&mut connection)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(fault)) if is_refusal(&fault) => return Err(fault.into()),
                Ok(Err(_)) => {
                    // This connection is of no use to anyone; wait for the next one.
                    failed = session;
                    self.break_off(session);
                }
                Err(_) => {
                    self.break_off(session);
                    return Err("the store did not answer in time".into());
                }
            }
        }
    }

    async fn tell_time(&self, connection: &mut Connection) -> Result<(), Fault> {
        let ms = connection.time_of(&self.rules.log()).await?;
        *lock(&self.clock) = Clock { ms, at: Instant::now() };
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        let clock = *lock(&self.clock);
        clock.ms + millis(clock.at.elapsed())
    }

    /// Digests made with this key are recognised from now on.
    fn learn(&self, key: &DigestKey, left: Option<Duration>, position: Position) {
        if self.keys.learn(key, left).is_err() {
            self.complain_of(position, "too many replicas have keys of their own; restart them one by one");
        }
    }

    fn is_heard(&self) -> bool {
        // Of two heartbeats, one goes by before an answer comes, and one before the next.
        lock(&self.heard).is_some_and(|heard| heard.elapsed() <= 2 * HEARTBEAT + self.rules.timeout)
    }

    /// Tells a session that a command failed in it.
    fn break_off(&self, session: u64) {
        self.broken.send_if_modified(|broken| std::mem::replace(broken, session.max(*broken)) < session);
    }

    fn tell_away(&self, why: &Fault) {
        if !self.told_away.swap(true, Ordering::Relaxed) {
            self.log.note("error", "revocation_store_away", &json!({ "why": why.to_string() }));
        }
    }

    fn tell_back(&self) {
        if self.told_away.swap(false, Ordering::Relaxed) {
            self.log.note("info", "revocation_store_back", &json!({}));
        }
    }

    fn complain_of(&self, position: Position, why: &str) {
        if self.unreadable.fetch_add(1, Ordering::Relaxed) == 0 {
            let about = json!({ "entry": position.to_string(), "why": why });
            self.log.note("error", "revocation_entry_unreadable", &about);
        }
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Away(fault)
    }
}

impl From<RedisError> for Stop {
    fn from(fault: RedisError) -> Stop {
        Stop::Away(fault.into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How often the store is heard of when nothing happens.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// Between two attempts to connect, or to publish what was refused.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Trimming waits longer than anything that counts: a grace, and clocks that differ.
const TRIMMED_LATE: Duration = Duration::from_secs(2 * 3600);
