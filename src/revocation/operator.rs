//! What an operator ends, takes back and looks up: the same records, made by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::record::{Fate, Record};
use super::sightings::Sightings;
use super::{Revocations, Room};
use crate::denial::Denial;
use crate::token::TokenDigest;

/// What came of ending all tokens seen before a moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Swept {
    /// How many it ended.
    pub ended: u64,
    /// They are refused here, but the disk or the store has not taken all of them yet.
    pub unwritten: Option<Denial>,
    /// No token seen before the moment was missed, since this memory began.
    pub complete: bool,
    /// How many sightings there was no place for.
    pub missed: u64,
    /// When this memory began: of tokens seen only before that, nothing is known.
    pub since: SystemTime,
}

impl Revocations {
    /// Remembers from now on when each token was first seen.
    pub fn remembering_sightings(self) -> Revocations {
        let (_, most) = self.index.count();
        Revocations { sightings: Some(Arc::new(Sightings::new(most, self.keep))), ..self }
    }

    /// A token passed the check of its standing.
    pub fn saw(&self, token: TokenDigest) {
        if let Some(sightings) = &self.sightings {
            sightings.saw(token);
        }
    }

    /// When tokens were first seen; `None` unless that is remembered.
    pub fn sightings(&self) -> Option<&Sightings> {
        self.sightings.as_deref()
    }

    /// Ends a token that an operator named, by its text if that is known. True when it was alive before. One that had ended
    /// is recorded all the same: it is remembered for longer then, and who tries again after a failure waits for the disk.
    pub async fn end_named(&self, token: TokenDigest, text: Option<&[u8]>) -> Result<bool, Denial> {
        self.freshest().await;
        let was_alive = !self.names(token, text).iter().any(|name| self.index.refuses(name));
        self.end(self.room_for(&token)?, token, Duration::ZERO).await?;
        Ok(was_alive)
    }

    /// Takes back what ended a token, under every name it has. False, and nothing is done, when nothing was recorded.
    pub async fn pardon_named(&self, token: TokenDigest, text: Option<&[u8]>) -> Result<bool, Denial> {
        self.freshest().await;
        let mut names = self.names(token, text);
        names.retain(|name| self.index.find(name).is_some());
        for name in &names {
            self.pardon(self.room_for(name)?, *name).await?;
        }
        Ok(!names.is_empty())
    }

    /// What is recorded of a token. Of several records under several names, the one that ends it first.
    pub async fn recall(&self, token: TokenDigest, text: Option<&[u8]>) -> Option<Record> {
        self.freshest().await;
        let records = self.names(token, text).into_iter().filter_map(|name| self.index.record(&name));
        records.min_by_key(|record| match record.fate {
            Fate::Ended { grace } => (false, grace),
            Fate::Pardoned => (true, Duration::ZERO),
        })
    }

    /// Ends every token that this process first saw before `moment`. One in its grace ends now; one that was pardoned is
    /// left alone, as somebody decided about it by name.
    ///
    /// An error says that nothing was done: either there is room for all of them, or none ends.
    pub async fn end_seen_before(&self, moment: SystemTime) -> Result<Swept, Denial> {
        let sightings = self.sightings.as_ref().ok_or(Denial::Internal)?;
        let (index, seen) = (Arc::clone(&self.index), Arc::clone(sightings));
        let lives = move |token: &TokenDigest| match index.find(token) {
            None => true,
            Some(Fate::Ended { grace }) => !grace.is_zero(),
            Some(Fate::Pardoned) => false,
        };
        // A million tokens take a while to go through; the threads that serve have other things to do.
        let tokens = tokio::task::spawn_blocking(move || seen.before(moment).filter(lives).collect::<Vec<_>>());
        let tokens = tokens.await.map_err(|_| Denial::Internal)?;
        let rooms = tokens.iter().map(|token| self.room_for(token)).collect::<Result<Vec<_>, _>>()?;
        // All of them die before the first one waits for a disk.
        for (token, room) in tokens.iter().zip(rooms) {
            self.index.put(room.0, self.ended(*token));
        }
        let mut unwritten = None;
        for batch in tokens.chunks(BATCH) {
            // Side by side, so that they share syncs.
            let written = join_all(batch.iter().map(|token| self.write(self.ended(*token)))).await;
            unwritten = unwritten.or(written.into_iter().find_map(Result::err));
        }
        Ok(Swept {
            ended: tokens.len() as u64,
            unwritten,
            complete: sightings.is_complete_before(moment),
            missed: sightings.missed(),
            since: sightings.since(),
        })
    }

    fn ended(&self, token: TokenDigest) -> Record {
        Record::ended(token, Duration::ZERO, self.keep)
    }

    fn room_for(&self, token: &TokenDigest) -> Result<Room, Denial> {
        self.may_record()?;
        self.index.reserve_for(token).map(Room).map_err(|_| Denial::RevocationFull)
    }

    /// The digests of a token: its own, and those under the keys of replicas that began apart.
    fn names(&self, token: TokenDigest, text: Option<&[u8]>) -> Vec<TokenDigest> {
        let mut names = vec![token];
        if let (Some(shared), Some(text)) = (&self.shared, text) {
            names.extend(shared.feed.others(text));
        }
        names
    }

    /// Reads what other replicas wrote up to now; while the store is away, what is known here must do.
    async fn freshest(&self) {
        if let Some(shared) = &self.shared {
            let _ = shared.feed.catch_up().await;
        }
    }
}

/// Records that wait for the disk together.
const BATCH: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::DigestKey;

    const HOUR: Duration = Duration::from_secs(3600);

    fn token(name: &str) -> TokenDigest {
        TokenDigest::of(name.as_bytes(), &DigestKey::new([3; 32]))
    }

    fn revocations(capacity: u64) -> Revocations {
        Revocations::in_memory(capacity, HOUR).remembering_sightings()
    }

    #[tokio::test]
    async fn a_named_token_ends_is_pardoned_and_ends_anew() {
        let revocations = revocations(1);
        assert_eq!(revocations.pardon_named(token("a"), None).await, Ok(false));
        assert_eq!(revocations.recall(token("a"), None).await, None);
        assert_eq!(revocations.end_named(token("a"), None).await, Ok(true));
        assert_eq!(revocations.end_named(token("a"), None).await, Ok(false));
        assert_eq!(revocations.end_named(token("b"), None).await, Err(Denial::RevocationFull));
        assert_eq!(revocations.pardon_named(token("a"), None).await, Ok(true));
        assert_eq!(revocations.recall(token("a"), None).await.unwrap().fate, Fate::Pardoned);
        assert_eq!(revocations.end_named(token("a"), None).await, Ok(true));
        assert_eq!(revocations.live(), (1, 1));
    }

    #[tokio::test]
    async fn what_was_seen_before_a_moment_ends_unless_somebody_decided_about_it() {
        let revocations = revocations(10);
        let names = ["alive", "ended", "in grace", "pardoned"];
        for name in names {
            revocations.saw(token(name));
        }
        revocations.end_named(token("ended"), None).await.unwrap();
        revocations.end(revocations.room().unwrap(), token("in grace"), HOUR).await.unwrap();
        revocations.end_named(token("pardoned"), None).await.unwrap();
        revocations.pardon_named(token("pardoned"), None).await.unwrap();
        let moment = SystemTime::now();
        revocations.saw(token("later"));
        let swept = revocations.end_seen_before(moment).await.unwrap();
        let since = revocations.sightings().unwrap().since();
        assert_eq!(swept, Swept { ended: 2, unwritten: None, complete: true, missed: 0, since });
        for (name, refused) in names.into_iter().zip([true, true, true, false]) {
            assert_eq!(revocations.index.refuses(&token(name)), refused, "{name}");
        }
        assert!(!revocations.index.refuses(&token("later")));
        assert_eq!(revocations.end_seen_before(moment).await.unwrap().ended, 0);
    }

    #[tokio::test]
    async fn without_room_for_all_none_ends() {
        let revocations = revocations(3);
        for name in ["a", "b", "c"] {
            revocations.saw(token(name));
        }
        revocations.end_named(token("x"), None).await.unwrap();
        assert_eq!(revocations.end_seen_before(SystemTime::now() + HOUR).await, Err(Denial::RevocationFull));
        assert!(!["a", "b", "c"].iter().any(|name| revocations.index.refuses(&token(name))));
        assert_eq!(revocations.live(), (1, 3));
    }
}
