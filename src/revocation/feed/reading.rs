//! Following the log: what it says has its effect here, and what it has lost is noticed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use redis::{Value, cmd};
use serde_json::json;

use super::{HEARTBEAT, Shared, Stop, TRIMMED_LATE, lock, millis};
use crate::revocation::entry::Entry;
use crate::revocation::news::{LATE, News, Position, What};
use crate::revocation::pending::Own;
use crate::revocation::record::{Fate, Record};
use crate::revocation::store::{Connection, Fault};
use crate::secret::DigestKey;
use crate::token::TokenDigest;

/// Where in the log an entry stands, and what it is: after a failover another one may stand in the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// Where.
    pub position: Position,
    print: u64,
}

impl Shared {
    /// Reads on for ever.
    pub(super) async fn follow(&self, reading: &mut Connection) -> Result<Infallible, Stop> {
        loop {
            // When this process was halted, an answer may be old, and the next one must not wait for news.
            let wait = self.is_heard().then_some(HEARTBEAT);
            if self.read(reading, wait).await? == 0 {
                self.lag_us.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Reads on, and says how many entries there were. With `wait`, waits for the first one.
    pub(super) async fn read(&self, reading: &mut Connection, wait: Option<Duration>) -> Result<usize, Stop> {
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
    pub(super) async fn reconcile(&self, reading: &mut Connection) -> Result<(), Stop> {
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
        let unsaid = self.keys.without(&keys);
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
}

impl Place {
    fn of(entry: &Entry) -> Place {
        Place { position: entry.position, print: entry.print }
    }
}

/// The entries in an answer to XRANGE or XREVRANGE.
pub fn range(answer: &Value) -> Result<Vec<Entry>, Fault> {
    Entry::range(answer).ok_or_else(|| "the store does not answer XRANGE as it should".into())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

const NOT_OURS: &str = "it is not one of Portcullis";

/// Entries read at once.
const AT_ONCE: usize = 4096;

/// A pardon that was made less than this after an end may have been made before it: ages are not known more exactly.
const DOUBT: Duration = Duration::from_millis(250);
