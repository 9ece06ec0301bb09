//! Tokens that ended: recorded before the answer that ended them is released, refused until their time is over.

pub mod journal;

use std::time::{Duration, SystemTime};

use crate::denial::Denial;
use crate::ledger::{Ledger, Place};
use crate::token::{Standing, TokenDigest};

use self::journal::Journal;

/// The tokens that ended, as digests, in memory, and on disk when there is a journal.
///
/// Complete for this process, and with a journal for those before it: nothing leaves before its time, and when the memory
/// is full or the journal cannot be written, requests that could end another token are refused *before* they are
/// forwarded ([`Revocations::room`]), so that the PAM never ends a token that could not be recorded here.
pub struct Revocations {
    ended: Ledger<TokenDigest, ()>,
    keep: Duration,
    journal: Option<Journal>,
}

/// The right to record one token.
#[derive(Debug)]
pub struct Room(Place);

impl Revocations {
    /// Remembers up to `most` tokens, each for `keep`, in memory only.
    pub fn in_memory(most: u64, keep: Duration) -> Revocations {
        Revocations { ended: Ledger::new(most), keep, journal: None }
    }

    /// The same with a journal, beginning with the `tokens` it holds. The error says what to do when they do not fit.
    pub fn with_journal(
        most: u64,
        keep: Duration,
        journal: Journal,
        tokens: Vec<(TokenDigest, Duration)>,
    ) -> Result<Revocations, String> {
        let count = tokens.len();
        let ended = Ledger::new(most);
        for (token, left) in tokens {
            let place = ended.reserve().map_err(|_| {
                format!("the journal holds {count} tokens and `revocation.capacity` is {most}; make it larger")
            })?;
            ended.keep(place, token, (), left);
        }
        Ok(Revocations { ended, keep, journal: Some(journal) })
    }

    /// Is this token alive?
    pub fn standing(&self, token: &TokenDigest) -> Standing {
        if self.ended.has(token) { Standing::Ended } else { Standing::Alive }
    }

    /// Makes sure that one more token can be recorded, before anything happens that may end one.
    pub fn room(&self) -> Result<Room, Denial> {
        if self.journal_is_failing() {
            return Err(Denial::JournalFailing);
        }
        self.ended.reserve().map(Room).map_err(|_| Denial::RevocationFull)
    }

    /// Records that a token ended. No check in this process passes it from the first poll on, and when this returns, none
    /// after a restart does. An error says that the disk has not taken it yet.
    pub async fn revoke(&self, room: Room, token: TokenDigest, now: SystemTime) -> Result<(), Denial> {
        self.ended.keep(room.0, token, (), self.keep);
        match &self.journal {
            Some(journal) => journal.append(token, now + self.keep).await,
            None => Ok(()),
        }
    }

    /// Tokens recorded, and the bound.
    pub fn live(&self) -> (u64, u64) {
        (self.ended.count(), self.ended.most())
    }

    /// True while the journal cannot be written.
    pub fn journal_is_failing(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::DigestKey;

    fn digest(token: &str) -> TokenDigest {
        TokenDigest::of(token.as_bytes(), &DigestKey::new([3; 32]))
    }

    #[tokio::test]
    async fn a_revoked_token_is_ended_and_no_other() {
        let revocations = Revocations::in_memory(10, Duration::from_secs(60));
        revocations.revoke(revocations.room().unwrap(), digest("a"), SystemTime::now()).await.unwrap();
        assert_eq!(revocations.standing(&digest("a")), Standing::Ended);
        assert_eq!(revocations.standing(&digest("b")), Standing::Alive);
        assert_eq!(revocations.live(), (1, 10));
    }

    // threat: F2
    #[tokio::test]
    async fn a_full_memory_refuses_new_endings_and_forgets_none() {
        let revocations = Revocations::in_memory(1, Duration::from_secs(60));
        revocations.revoke(revocations.room().unwrap(), digest("a"), SystemTime::now()).await.unwrap();
        assert_eq!(revocations.room().unwrap_err(), Denial::RevocationFull);
        assert_eq!(revocations.standing(&digest("a")), Standing::Ended);
    }
}
