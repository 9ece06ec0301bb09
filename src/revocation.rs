//! Tokens that ended: recorded before the answer that ended them is released, refused until their time is over.
//!
//! ```text
//! record    one token's fate, as it goes from one to the other
//! index     what is known, in memory: every check is answered from here
//! presumed  what the PAM said of tokens, believed for a short time
//! journal   the same on disk, for the next process
//! feed      the same for the other replicas: one ordered log, followed
//! news      what stands in that log
//! entry     how the store hands it out
//! pending   what is to be said there, in order, until it was read
//! store     how to reach the Redis that keeps it
//! operator  what an operator ends, takes back and looks up
//! sightings when each token was first seen, for an operator to end all before a moment
//! ```

pub mod entry;
pub mod feed;
pub mod index;
pub mod journal;
pub mod news;
pub mod operator;
pub mod pending;
pub mod presumed;
pub mod record;
pub mod sightings;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::denial::Denial;
use crate::ledger::Place;
use crate::log::Log;
use crate::secret::DigestKey;
use crate::token::{Standing, TokenDigest};

use self::feed::{Condition, Feed, FeedRules};
use self::index::Index;
use self::journal::Journal;
use self::record::{Fate, Record};
use self::sightings::Sightings;
use self::store::{Store, StoreRules};

/// How tokens that ended are remembered.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a token that ended stays refused. It should outlast the longest life of a session at the PAM.
    pub keep: Duration,
    /// How many tokens are remembered.
    pub capacity: u64,
    /// The folder in which they outlive a restart; `None` keeps them in memory only.
    pub journal: Option<PathBuf>,
    /// Whether a damaged journal is made whole again with what can be read of it, or nothing starts.
    pub salvage: bool,
    /// How long the PAM is believed when it says that a token is expired or unknown; `None` learns nothing from it.
    pub learn: Option<Duration>,
    /// How they are shared with other replicas; `None` for a replica that is alone.
    pub sharing: Option<Sharing>,
}

/// How replicas share what they know.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// The store they meet at.
    pub store: StoreRules,
    /// Stands in front of every key there.
    pub prefix: String,
    /// How long the store may take for an answer before it counts as away.
    pub timeout: Duration,
    /// How fresh a check must be.
    pub consistency: Consistency,
    /// What a check does while the store is away.
    pub check: WhenAway,
    /// True when what ends while the store is away is kept in the journal and published later; false when requests that
    /// may end a token are refused meanwhile.
    pub retire_to_journal: bool,
}

/// How fresh a check must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// What was read of the log so far; it is followed within milliseconds.
    Follow,
    /// Everything that stands in the log by now: each check asks.
    Ask,
}

/// What a check does while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// Answers from what is known here.
    Local,
    /// Refuses.
    Refuse,
}

/// The tokens that ended, as digests.
///
/// Complete for this process, with a journal for those before it, and with a store for the other replicas': nothing
/// leaves before its time, and when the memory is full or what outlives it cannot be written, requests that could end
/// another token are refused *before* they are forwarded ([`Revocations::room`]), so that the PAM never ends a token that
/// could not be recorded here.
pub struct Revocations {
    index: Arc<Index>,
    journal: Option<Journal>,
    shared: Option<Shared>,
    /// `None` where nobody could ask for them.
    sightings: Option<Arc<Sightings>>,
    keep: Duration,
}

struct Shared {
    feed: Arc<Feed>,
    consistency: Consistency,
    check: WhenAway,
    retire_to_journal: bool,
}

/// The right to record one token.
#[derive(Debug)]
pub struct Room(Place);

impl Revocations {
    /// Opens what the rules say. Digests are made with `key`, unless what is opened has a key of its own; the one that
    /// counts is returned. The error says what is wrong and what to do.
    pub async fn open(rules: &Rules, mut key: DigestKey, log: Log) -> Result<(Revocations, DigestKey), String> {
        let index = Arc::new(Index::new(rules.capacity));
        if let Some(folder) = &rules.journal {
            key = Journal::known_key(folder).unwrap_or(key);
        }
        let store = rules.sharing.as_ref().map(|sharing| Store::new(&sharing.store)).transpose();
        let store = store.map_err(|fault| format!("`revocation.redis` cannot work: {fault}"))?;
        let feed_rules = |sharing: &Sharing| FeedRules {
            prefix: sharing.prefix.clone(),
            keep: rules.keep,
            timeout: sharing.timeout,
        };
        if let (Some(store), Some(sharing)) = (&store, &rules.sharing) {
            // If the store is away, this replica begins under a key of its own, and tells the others when it is back.
            key = feed::shared_key(store, &feed_rules(sharing), &key).await.unwrap_or(key);
        }
        let mut journal = None;
        if let Some(folder) = &rules.journal {
            if rules.salvage
                && let Some(loss) = Journal::salvage(folder, SystemTime::now())?
            {
                log.note("error", "journal_salvaged", &serde_json::json!({ "loss": loss }));
            }
            let opened = Journal::open(folder, &key, SystemTime::now())?;
            let count = opened.records.len();
            for record in opened.records {
                let place = index.reserve().map_err(|_| {
                    let most = rules.capacity;
                    format!("the journal holds {count} tokens and `revocation.capacity` is {most}; make it larger")
                })?;
                // A journal counts whole seconds. A pardon must not seem younger than it is, or it would undo an end that
                // another replica recorded just after it.
                let left = match record.fate {
                    Fate::Ended { .. } => record.left,
                    Fate::Pardoned => record.left.saturating_sub(Duration::from_secs(2)),
                };
                index.put(place, Record { left, ..record });
            }
            key = opened.key;
            journal = Some(opened.journal);
        }
        let shared = store.zip(rules.sharing.as_ref()).map(|(store, sharing)| Shared {
            feed: Arc::new(Feed::start(store, feed_rules(sharing), key.clone(), Arc::clone(&index), log)),
            consistency: sharing.consistency,
            check: sharing.check,
            retire_to_journal: sharing.retire_to_journal,
        });
        Ok((Revocations { index, journal, shared, sightings: None, keep: rules.keep }, key))
    }

    /// In memory only.
    pub fn in_memory(capacity: u64, keep: Duration) -> Revocations {
        Revocations { index: Arc::new(Index::new(capacity)), journal: None, shared: None, sightings: None, keep }
    }

    /// True when everything is known that must be before the first check.
    pub fn is_ready(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.feed.is_synced())
    }

    /// Waits until everything is known that must be before the first check.
    pub async fn ready(&self) {
        if let Some(shared) = &self.shared {
            shared.feed.synced().await;
        }
    }

    /// Is this token alive, as far as is known here?
    pub fn standing_here(&self, token: &TokenDigest, text: &[u8]) -> Standing {
        if self.refuses(token, text) { Standing::Ended } else { Standing::Alive }
    }

    /// Is this token alive? `text` is the token itself.
    pub async fn standing(&self, token: &TokenDigest, text: &[u8]) -> Result<Standing, Denial> {
        // Asked before the look-up: what was out of date then is not made fresh by news that come a moment later.
        let known = self.shared.as_ref().map(|shared| (shared.feed.is_synced(), shared.feed.is_current()));
        if self.refuses(token, text) {
            return Ok(Standing::Ended);
        }
        if let (Some(shared), Some((was_synced, was_current))) = (&self.shared, known) {
            if !was_synced {
                // Whoever has never read the log knows nothing, and no rule can make that enough.
                return Err(Denial::StoreAway);
            }
            let fresh = match shared.consistency {
                Consistency::Follow => was_current,
                Consistency::Ask => {
                    let caught_up = shared.feed.catch_up().await.is_ok();
                    if self.refuses(token, text) {
                        return Ok(Standing::Ended);
                    }
                    caught_up
                }
            };
            match shared.check {
                WhenAway::Refuse if !fresh => return Err(Denial::StoreAway),
                WhenAway::Refuse | WhenAway::Local => {}
            }
        }
        Ok(Standing::Alive)
    }

    /// Makes sure that one more token can be recorded, before anything happens that may end one.
    pub fn room(&self) -> Result<Room, Denial> {
        self.may_record()?;
        self.index.reserve().map(Room).map_err(|_| Denial::RevocationFull)
    }

    /// Records that a token ended, to be refused once its `grace` is over. No check in this process passes it from then
    /// on, and when this returns, none after a restart and none in another replica does, as far as rules provide for
    /// that. An error says that the disk or the store has not taken it yet; they will as soon as they can.
    pub async fn end(&self, room: Room, token: TokenDigest, grace: Duration) -> Result<(), Denial> {
        self.record(room, Record::ended(token, grace, self.keep + grace)).await
    }

    /// Takes back that a token ended, until something ends it anew.
    pub async fn pardon(&self, room: Room, token: TokenDigest) -> Result<(), Denial> {
        self.record(room, Record { token, fate: Fate::Pardoned, left: self.keep }).await
    }

    /// What is recorded of a token.
    pub fn find(&self, token: &TokenDigest) -> Option<Fate> {
        self.index.find(token)
    }

    /// Tokens recorded, and the bound.
    pub fn live(&self) -> (u64, u64) {
        self.index.count()
    }

    /// Whether tokens that ended are kept on disk.
    pub fn keeps_a_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// True while the journal cannot be written.
    pub fn journal_is_failing(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::failing)
    }

    /// The way to the other replicas, for what else is shared with them; `None` for a replica that is alone.
    pub fn feed(&self) -> Option<Arc<Feed>> {
        self.shared.as_ref().map(|shared| Arc::clone(&shared.feed))
    }

    /// How following the other replicas goes; `None` for a replica that is alone.
    pub fn sharing(&self) -> Option<Condition> {
        self.shared.as_ref().map(|shared| shared.feed.condition())
    }

    /// What outlives the memory can be written, as far as is known.
    fn may_record(&self) -> Result<(), Denial> {
        if self.journal_is_failing() {
            return Err(Denial::JournalFailing);
        }
        if let Some(Shared { feed, retire_to_journal, .. }) = &self.shared
            && !(feed.takes() || *retire_to_journal && feed.is_synced())
        {
            return Err(Denial::StoreAway);
        }
        Ok(())
    }

    fn refuses(&self, token: &TokenDigest, text: &[u8]) -> bool {
        let elsewhere = || self.shared.iter().flat_map(|shared| shared.feed.others(text));
        self.index.refuses(token) || elsewhere().any(|other| self.index.refuses(&other))
    }

    /// First the memory, then everything that outlives it.
    async fn record(&self, room: Room, record: Record) -> Result<(), Denial> {
        // Already on its way when it is put into the memory: a pardon that others said before must not undo it.
        let writing = self.write(record);
        self.index.put(room.0, record);
        writing.await
    }

    /// Writes and publishes; what is published is on its way when this returns.
    fn write(&self, record: Record) -> impl Future<Output = Result<(), Denial>> {
        let publishing = self.shared.as_ref().map(|shared| (shared, shared.feed.publish(record)));
        async move {
            let written = async {
                match &self.journal {
                    Some(journal) => journal.append(record, SystemTime::now()).await,
                    None => Ok(()),
                }
            };
            let published = async {
                match publishing {
                    Some((shared, publishing)) => match publishing.await {
                        // The journal has it, and the feed publishes it as soon as it can.
                        Err(_) if shared.retire_to_journal => Ok(()),
                        other => other.map_err(|_| Denial::StoreFailed),
                    },
                    None => Ok(()),
                }
            };
            let (written, published) = tokio::join!(written, published);
            written.and(published)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(token: &str) -> TokenDigest {
        TokenDigest::of(token.as_bytes(), &DigestKey::new([3; 32]))
    }

    async fn end(revocations: &Revocations, token: &str) {
        revocations.end(revocations.room().unwrap(), digest(token), Duration::ZERO).await.unwrap();
    }

    async fn standing(revocations: &Revocations, token: &str) -> Standing {
        revocations.standing(&digest(token), token.as_bytes()).await.unwrap()
    }

    #[tokio::test]
    async fn an_ended_token_is_ended_and_no_other() {
        let revocations = Revocations::in_memory(10, Duration::from_secs(60));
        end(&revocations, "a").await;
        assert_eq!(standing(&revocations, "a").await, Standing::Ended);
        assert_eq!(standing(&revocations, "b").await, Standing::Alive);
        assert_eq!(revocations.live(), (1, 10));
    }

    // threat: F2
    #[tokio::test]
    async fn a_full_memory_refuses_new_endings_and_forgets_none() {
        let revocations = Revocations::in_memory(1, Duration::from_secs(60));
        end(&revocations, "a").await;
        assert_eq!(revocations.room().unwrap_err(), Denial::RevocationFull);
        assert_eq!(standing(&revocations, "a").await, Standing::Ended);
    }
}
