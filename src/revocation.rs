//! Tokens that ended: recorded before the answer that ended them is released, refused until their time is over.
//!
//! ```text
//! index     what is known, in memory: every check is answered from here
//! journal   the same on disk, for the next process
//! presumed  what the PAM said of tokens, believed for a short time
//! record    one token's fate, as it goes from one to the other
//! ```

pub mod index;
pub mod journal;
pub mod record;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::denial::Denial;
use crate::ledger::Place;
use crate::secret::DigestKey;
use crate::token::{Standing, TokenDigest};

use self::index::Index;
use self::journal::{Journal, Opened};
use self::record::{Fate, Record};

/// How tokens that ended are remembered.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a token that ended stays refused. It should outlast the longest life of a session at the PAM.
    pub keep: Duration,
    /// How many tokens are remembered.
    pub capacity: u64,
    /// The folder in which they outlive a restart; `None` keeps them in memory only.
    pub journal: Option<PathBuf>,
}

/// The tokens that ended, as digests.
///
/// Complete for this process, and with a journal for those before it: nothing leaves before its time, and when the memory
/// is full or the journal cannot be written, requests that could end another token are refused *before* they are
/// forwarded ([`Revocations::room`]), so that the PAM never ends a token that could not be recorded here.
pub struct Revocations {
    index: Index,
    journal: Option<Journal>,
    keep: Duration,
}

/// The right to record one token.
#[derive(Debug)]
pub struct Room(Place);

impl Revocations {
    /// Opens what the rules say. Digests are made with `key`, unless what is opened has a key of its own; the one that
    /// counts is returned. The error says what is wrong and what to do.
    pub async fn open(rules: &Rules, key: DigestKey) -> Result<(Revocations, DigestKey), String> {
        let index = Index::new(rules.capacity);
        let Some(folder) = &rules.journal else {
            return Ok((Revocations { index, journal: None, keep: rules.keep }, key));
        };
        let Opened { journal, key, records } = Journal::open(folder, &key, SystemTime::now())?;
        let count = records.len();
        for record in records {
            let place = index.reserve().map_err(|_| {
                let most = rules.capacity;
                format!("the journal holds {count} tokens and `revocation.capacity` is {most}; make it larger")
            })?;
            index.put(place, record);
        }
        Ok((Revocations { index, journal: Some(journal), keep: rules.keep }, key))
    }

    /// In memory only.
    pub fn in_memory(capacity: u64, keep: Duration) -> Revocations {
        Revocations { index: Index::new(capacity), journal: None, keep }
    }

    /// Is this token alive? `text` is the token itself.
    pub async fn standing(&self, token: &TokenDigest, text: &[u8]) -> Result<Standing, Denial> {
        let _ = text;
        Ok(if self.index.refuses(token) { Standing::Ended } else { Standing::Alive })
    }

    /// Makes sure that one more token can be recorded, before anything happens that may end one.
    pub fn room(&self) -> Result<Room, Denial> {
        if self.journal_is_failing() {
            return Err(Denial::JournalFailing);
        }
        self.index.reserve().map(Room).map_err(|_| Denial::RevocationFull)
    }

    /// Records that a token ended, to be refused once its `grace` is over. No check in this process passes it from then
    /// on, and when this returns, none after a restart does. An error says that the disk has not taken it yet.
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

    /// True while the journal cannot be written.
    pub fn journal_is_failing(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::failing)
    }

    /// First the memory, then everything that outlives it.
    async fn record(&self, room: Room, record: Record) -> Result<(), Denial> {
        self.index.put(room.0, record);
        match &self.journal {
            Some(journal) => journal.append(record, SystemTime::now()).await,
            None => Ok(()),
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
