//! What replicas tell each other: one ordered log in the store, followed from where it was last read.
//!
//! ```text
//! publish ──► pending ──► XADD ──► the log ──► XREAD ──► index      (every replica's, ours too)
//! ```
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

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::seq::SliceRandom;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult, Value, cmd, pipe};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout, timeout_at};

use super::entry::Entry;
use super::index::Index;
use super::news::{LATE, News, Position, What, hex, unhex};
use super::pending::{Own, Pending};
use super::record::{Fate, Record};
use super::store::{Connection, Fault, Store, is_refusal};
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
    own: DigestKey,
    /// Keys of replicas that began apart from this one; almost always none.
    others: RwLock<Vec<Other>>,
    has_others: AtomicBool,
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

/// A key of a replica that began apart.
struct Other {
    key: DigestKey,
    /// When no token ended under it is in force any more; `None` for the key that replicas share.
    until: Option<Instant>,
}

/// The connection of one session.
#[derive(Clone)]
struct Writing {
    session: u64,
    connection: Connection,
}

/// Where in the log an entry stands, and what it is: after a failover another one may stand in the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Place {
    position: Position,
    print: u64,
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
            own,
            others: RwLock::default(),
            has_others: AtomicBool::new(false),
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
        if !self.shared.has_others.load(Ordering::Acquire) {
            return Vec::new();
        }
        let now = Instant::now();
        let others = self.shared.others.read().unwrap_or_else(PoisonError::into_inner);
        others.iter().filter(|other| !other.is_over(now)).map(|other| TokenDigest::of(text, &other.key)).collect()
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
        set.arg(self.key()).arg(hex(own.expose())).arg("NX");
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
        let offered = self.rules.offer(&mut writing, &self.own).await?;
        self.refused.store(offered.is_err(), Ordering::Release);
        let shared = self.rules.agreed(&mut writing).await?;
        self.tell_time(&mut writing).await?;
        self.learn(&shared, None, Position::default());
        let is_foreign = shared.expose() != self.own.expose();
        let is_first = !*self.synced.borrow() && self.index.count().0 == 0;
        if lock(&self.lost).is_some() || !*self.synced.borrow() && !is_first {
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

    async fn follow(&self, reading: &mut Connection) -> Result<Infallible, Stop> {
        loop {
            // When this process was halted, an answer may be old, and the next one must not wait for news.
            let wait = self.is_heard().then_some(HEARTBEAT);
            if self.read(reading, wait).await? == 0 {
                self.lag_us.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Publishes what is pending, all of it anew: nobody knows what the store took over connections before this one.
    async fn speak(&self, writing: &mut Connection, is_foreign: bool) -> Result<Infallible, Stop> {
        let mut next = 0;
        let mut pause = SHORTEST_PAUSE;
        let mut probed: Option<Instant> = None;
        let mut announced: Option<Instant> = None;
        loop {
            let mut ready = self.probe(writing, &mut probed).await?;
            if ready.is_ok() && is_foreign {
                // Before the first record under it, so that nobody meets a digest of a key unheard of.
                ready = self.announce(writing, &mut announced).await?;
            }
            if let Err(refusal) = ready {
                self.refuse(&refusal);
                pause = (pause * 2).min(LONGEST_PAUSE);
                sleep(pause).await;
                continue;
            }
            let batch = self.additions(next);
            if batch.is_empty() {
                self.refused.store(false, Ordering::Release);
                self.tell_back();
                // Also when nothing happens it must be known whether the store takes what it will be given.
                let _ = timeout(PROBED_EVERY, self.queued.notified()).await;
                continue;
            }
            let mut pipeline = pipe();
            pipeline.ignore_errors();
            for (_, addition) in &batch {
                pipeline.add_command(addition.clone());
            }
            // A cluster that is moving the log from one node to another takes entries only one by one.
            let at_once = self.at_once.swap(1, Ordering::Relaxed);
            let answers: Vec<RedisResult<String>> = pipeline.query_async(writing).await?;
            for ((number, _), answer) in batch.iter().zip(answers) {
                match answer {
                    Ok(_) => {
                        next = number + 1;
                        self.taken.store(next, Ordering::Release);
                        lock(&self.pending).taken(*number);
                    }
                    Err(fault) if is_refusal(&fault) => {
                        // Whatever comes after it waits for it: the order must stay.
                        self.refuse(&fault.into());
                        break;
                    }
                    Err(fault) => return Err(fault.into()),
                }
            }
            if batch.last().is_some_and(|(last, _)| next > *last) {
                self.at_once.store((at_once * 2).min(MOST_AT_ONCE), Ordering::Relaxed);
                self.refused.store(false, Ordering::Release);
                self.tell_back();
                pause = SHORTEST_PAUSE;
            } else {
                // Asked at once whether it takes anything, and then again.
                probed = None;
                sleep(pause).await;
            }
        }
    }

    /// Asks from time to time what the store's clock shows, and whether it takes anything: before an end is at stake.
    async fn probe(&self, writing: &mut Connection, probed: &mut Option<Instant>) -> Result<Result<(), Fault>, Stop> {
        if probed.is_some_and(|probed| probed.elapsed() < PROBED_EVERY) {
            return Ok(Ok(()));
        }
        self.tell_time(writing).await?;
        let offered = self.rules.offer(writing, &self.own).await?;
        *probed = offered.is_ok().then(Instant::now);
        Ok(offered)
    }

    /// Tells the others under which key digests are made here, again before anyone could forget it.
    async fn announce(
        &self,
        writing: &mut Connection,
        announced: &mut Option<Instant>,
    ) -> Result<Result<(), Fault>, Stop> {
        if announced.is_some_and(|announced| announced.elapsed() < TRIMMED_LATE / 2) {
            return Ok(Ok(()));
        }
        let what = What::Key(self.own.clone(), self.rules.keep + TRIMMED_LATE);
        let addition = self.addition(&News { id: rand::random(), made_ms: self.now_ms(), what });
        match addition.query_async::<String>(writing).await {
            Ok(_) => {
                *announced = Some(Instant::now());
                Ok(Ok(()))
            }
            Err(fault) if is_refusal(&fault) => Ok(Err(fault.into())),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The next entries to publish, with their numbers.
    fn additions(&self, from: u64) -> Vec<(u64, Cmd)> {
        let now = self.now_ms();
        let mut pending = lock(&self.pending);
        let most = self.at_once.load(Ordering::Relaxed);
        let news: Vec<(u64, Duration, What)> = pending
            .from(from, most)
            .into_iter()
            .map(|(number, waiting)| (number, waiting.made.elapsed(), waiting.what.clone()))
            .collect();
        let additions = news.into_iter().map(|(number, age, what)| {
            let made_ms = now.saturating_sub(millis(age));
            (number, self.addition(&News { id: pending.id(number), made_ms, what }))
        });
        additions.collect()
    }

    /// Reads on, and says how many entries there were. With `wait`, waits for the first one.
    async fn read(&self, reading: &mut Connection, wait: Option<Duration>) -> Result<usize, Stop> {
        let taken = self.taken.load(Ordering::Acquire);
        let place = *self.place.borrow();
        let (entries, asked) = self.entries(reading, place, wait).await?;
        for entry in &entries {
            match entry.news() {
                Some(news) => self.take_in(&news, news.is_late(entry.position)),
                None => self.complain_of(entry.position, NOT_OURS),
            }
        }
        if let (Some(first), Some(_)) = (entries.first(), wait) {
            self.lag_us.store(micros(first.position.age(self.now_ms())), Ordering::Relaxed);
        }
        if let Some(last) = entries.last() {
            self.place.send_replace(Place::of(last));
        }
        if entries.len() < AT_ONCE {
            // Everything the log had taken when it was asked has been read by now, if it is still there.
            if lock(&self.pending).first().is_some_and(|first| first < taken) {
                return Err(Stop::Lost);
            }
            *lock(&self.heard) = Some(asked);
        }
        Ok(entries.len())
    }

    /// Reads the whole log, and sees to it that everything known here is published that it does not say.
    async fn reconcile(&self, reading: &mut Connection) -> Result<(), Stop> {
        let lost = *lock(&self.lost);
        let mut logged: HashMap<TokenDigest, bool> = HashMap::new();
        let mut keys: Vec<DigestKey> = Vec::new();
        let mut place = Place::default();
        loop {
            let (entries, asked) = self.entries(reading, place, None).await?;
            for entry in &entries {
                let was_read = lost.is_some_and(|lost| entry.position <= lost);
                let Some(news) = entry.news() else {
                    if !was_read {
                        self.complain_of(entry.position, NOT_OURS);
                    }
                    continue;
                };
                match &news.what {
                    What::Key(key, _) => keys.push(key.clone()),
                    What::Fate(record) => {
                        logged.insert(record.token, record.fate == Fate::Pardoned);
                    }
                }
                // What was read before the log lost its end, or before this process began, has had its effect, and may
                // have been overtaken by what is known here.
                self.take_in(&news, was_read || lost.is_none() || news.is_late(entry.position));
            }
            match entries.last() {
                Some(last) => place = Place::of(last),
                None => {
                    *lock(&self.heard) = Some(asked);
                    break;
                }
            }
        }
        let says = |record: &Record| logged.get(&record.token) == Some(&(record.fate == Fate::Pardoned));
        let mut missing: Vec<Record> = self.index.records().filter(|record| !says(record)).collect();
        // Other replicas are about to say the same: what one of them says first, the others need not.
        missing.shuffle(&mut rand::rng());
        let now = Instant::now();
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let unsaid = others.iter().filter(|other| keys.iter().all(|key| key.expose() != other.key.expose()));
        let unsaid: Vec<(DigestKey, Duration)> =
            unsaid.filter_map(|other| Some((other.key.clone(), other.until?.saturating_duration_since(now)))).collect();
        drop(others);
        if lost.is_some() {
            self.resyncs.fetch_add(1, Ordering::Relaxed);
            self.log.note("warn", "revocation_log_rolled_back", &json!({ "published_again": missing.len() }));
        }
        let mut pending = lock(&self.pending);
        for (key, left) in unsaid {
            pending.add_again(What::Key(key, left), Duration::ZERO);
        }
        for record in missing {
            let age = record.age(self.rules.keep);
            pending.add_again(What::Fate(record.before(age)), age);
        }
        drop(pending);
        *lock(&self.lost) = None;
        self.place.send_replace(place);
        Ok(())
    }

    /// The entries after a place, and when they were asked for. An error if the place is not what it was.
    async fn entries(
        &self,
        reading: &mut Connection,
        place: Place,
        wait: Option<Duration>,
    ) -> Result<(Vec<Entry>, Instant), Stop> {
        let asked = Instant::now();
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(AT_ONCE);
        if let Some(wait) = wait {
            read.arg("BLOCK").arg(millis(wait));
        }
        read.arg("STREAMS").arg(self.rules.log()).arg(place.position.to_string());
        let answer: Value = read.query_async(reading).await?;
        // After reading, and before anything of it counts: what comes next in another log must not be taken for what
        // comes next in this one. A connection may well lead to another server than before without breaking.
        if self.is_lost(reading, place).await? {
            return Err(Stop::Lost);
        }
        let entries =
            Entry::read(&answer).ok_or_else(|| Fault::from("the store does not answer XREAD as it should"))?;
        Ok((entries, asked))
    }

    /// True when an entry that was read is gone although it is not old enough to have been trimmed.
    async fn is_lost(&self, reading: &mut Connection, place: Place) -> Result<bool, Stop> {
        let Place { position, print } = place;
        if position == Position::default() || position.age(self.now_ms()) > self.rules.keep + TRIMMED_LATE / 2 {
            return Ok(false);
        }
        let mut range = cmd("XRANGE");
        range.arg(self.rules.log()).arg(position.to_string()).arg(position.to_string());
        let found: Value = range.query_async(reading).await?;
        Ok(self::range(&found)?.first().is_none_or(|entry| entry.print != print))
    }

    /// Lets an entry have its effect here. With `compare`, only if it was made after what is known here.
    fn take_in(&self, news: &News, compare: bool) {
        let age = Duration::from_millis(self.now_ms().saturating_sub(news.made_ms));
        let own = lock(&self.pending).read(news.id, &news.what);
        let record = match &news.what {
            What::Key(key, left) => {
                let position = Position { ms: news.made_ms, sequence: 0 };
                return self.learn(key, Some(left.saturating_sub(age)), position);
            }
            What::Fate(record) => record.after(age),
        };
        let is_pardon = record.fate == Fate::Pardoned;
        // What this replica has yet to say of the token will stand after this entry. If it comes late, it counts by when
        // it was made, here as elsewhere.
        let end_to_come = lock(&self.pending).end_of(&record.token).filter(|_| is_pardon);
        let is_overtaken = own == Own::Overtaken || end_to_come.is_some_and(|end| end < LATE || end <= age);
        if record.left.is_zero() || is_overtaken || compare && self.is_newer_here(&record) {
            return;
        }
        self.index.put_anyway(record);
    }

    /// True when the contrary of a record is known here and was made after it. In doubt a token is dead.
    fn is_newer_here(&self, record: &Record) -> bool {
        let age = record.age(self.rules.keep);
        self.index.record(&record.token).is_some_and(|known| {
            let known_age = known.age(self.rules.keep);
            match (record.fate, known.fate) {
                (Fate::Pardoned, Fate::Ended { .. }) => known_age <= age,
                (Fate::Ended { .. }, Fate::Pardoned) => known_age + DOUBT < age,
                (Fate::Pardoned, Fate::Pardoned) | (Fate::Ended { .. }, Fate::Ended { .. }) => false,
            }
        })
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
        if key.expose() == self.own.expose() {
            return;
        }
        let now = Instant::now();
        let until = left.map(|left| now + left);
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        others.retain(|other| !other.is_over(now));
        let is_full = others.len() >= MOST_KEYS;
        match others.iter_mut().find(|other| other.key.expose() == key.expose()) {
            Some(known) => known.until = known.until.zip(until).map(|(known, until)| known.max(until)),
            None if left == Some(Duration::ZERO) => {}
            None if is_full => {
                self.complain_of(position, "too many replicas have keys of their own; restart them one by one");
            }
            None => others.push(Other { key: key.clone(), until }),
        }
        self.has_others.store(!others.is_empty(), Ordering::Release);
    }

    fn is_heard(&self) -> bool {
        // Of two heartbeats, one goes by before an answer comes, and one before the next.
        lock(&self.heard).is_some_and(|heard| heard.elapsed() <= 2 * HEARTBEAT + self.rules.timeout)
    }

    /// Tells a session that a command failed in it.
    fn break_off(&self, session: u64) {
        self.broken.send_if_modified(|broken| std::mem::replace(broken, session.max(*broken)) < session);
    }

    /// The store answers and takes nothing: it is full, has too few replicas, or the ACL user may not write.
    fn refuse(&self, why: &Fault) {
        self.refused.store(true, Ordering::Release);
        lock(&self.pending).refused(why);
        self.tell_away(why);
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

impl Other {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Place {
    fn of(entry: &Entry) -> Place {
        Place { position: entry.position, print: entry.print }
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

fn range(answer: &Value) -> Result<Vec<Entry>, Fault> {
    Entry::range(answer).ok_or_else(|| "the store does not answer XRANGE as it should".into())
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

const NOT_OURS: &str = "it is not one of Portcullis";

/// How often the store is heard of when nothing happens.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// How often the store is asked whether it takes anything.
const PROBED_EVERY: Duration = Duration::from_secs(1);

/// Between two attempts to connect, or to publish what was refused.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A pardon that was made less than this after an end may have been made before it: ages are not known more exactly.
const DOUBT: Duration = Duration::from_millis(250);

/// Entries read at once.
const AT_ONCE: usize = 4096;

/// Entries published at once.
const MOST_AT_ONCE: usize = 512;

/// Trimming waits longer than anything that counts: a grace, and clocks that differ.
const TRIMMED_LATE: Duration = Duration::from_secs(2 * 3600);

/// Keys of replicas that began apart. Each costs a digest per check.
const MOST_KEYS: usize = 64;
