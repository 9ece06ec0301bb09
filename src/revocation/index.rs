//! What is known about tokens, in memory: every check is answered from here.

use super::record::{Fate, Record};
use crate::ledger::{Full, Ledger, Place};
use crate::moment::Moment;
use crate::token::TokenDigest;

/// Tokens that ended or were pardoned. Nothing leaves it before its time.
pub struct Index(Ledger<TokenDigest, Mark>);

/// What is remembered of a token. Moments are monotonic: a wall clock that jumps revives nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Ended { from: Moment },
    Pardoned,
}

impl Index {
    /// Bytes that `most` tokens take at most.
    pub fn room(most: u64) -> u64 {
        Ledger::<TokenDigest, Mark>::room(most)
    }

    /// For `most` tokens.
    pub fn new(most: u64) -> Index {
        Index(Ledger::new(most))
    }

    /// Makes sure of a place for one more token.
    pub fn reserve(&self) -> Result<Place, Full> {
        self.0.reserve()
    }

    /// Makes sure of a place to change what is known of a token. One that is known already takes no second place, so that
    /// what is recorded can be taken back also when nothing new fits.
    pub fn reserve_for(&self, token: &TokenDigest) -> Result<Place, Full> {
        if self.0.has(token) { Ok(self.0.reserve_anyway()) } else { self.0.reserve() }
    }

    /// Takes a record in. Two records of one end unite: the earlier beginning and the later oblivion count. A new end
    /// wins over a pardon, and a pardon over an end that was known before it.
    pub fn put(&self, place: Place, record: Record) {
        let now = Moment::now();
        self.0.put(place, record.token, record.left, |known| match (record.fate, known) {
            (Fate::Pardoned, _) => Mark::Pardoned,
            (Fate::Ended { grace }, Some(Mark::Ended { from })) => Mark::Ended { from: from.min(now.after(grace)) },
            (Fate::Ended { grace }, Some(Mark::Pardoned) | None) => Mark::Ended { from: now.after(grace) },
        });
    }

    /// Takes a record in that was made elsewhere and must not be lost: the bound is for those that are made here. It is
    /// exceeded by no more than what other replicas had in flight when they reached theirs.
    pub fn put_anyway(&self, record: Record) {
        self.put(self.0.reserve_anyway(), record);
    }

    /// True when the token ended and its grace is over.
    pub fn refuses(&self, token: &TokenDigest) -> bool {
        match self.0.find_now(token) {
            Some((Mark::Ended { from }, now)) => from <= now,
            Some((Mark::Pardoned, _)) | None => false,
        }
    }

    /// What is known of a token.
    pub fn find(&self, token: &TokenDigest) -> Option<Fate> {
        self.0.find(token).map(fate)
    }

    /// The same with for how long it is remembered.
    pub fn record(&self, token: &TokenDigest) -> Option<Record> {
        let (mark, until) = self.0.find_until(token)?;
        Some(Record { token: *token, fate: fate(mark), left: until.since(Moment::now()) })
    }

    /// Everything that is known.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let now = Moment::now();
        self.0.iter().map(move |(token, mark, until)| {
            let left = until.since(now);
            Record { token, fate: fate(mark), left }
        })
    }

    /// How many tokens are known, and the bound.
    pub fn count(&self) -> (u64, u64) {
        (self.0.count(), self.0.most())
    }
}

fn fate(mark: Mark) -> Fate {
    match mark {
        Mark::Ended { from } => Fate::Ended { grace: from.since(Moment::now()) },
        Mark::Pardoned => Fate::Pardoned,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::secret::DigestKey;

    const HOUR: Duration = Duration::from_secs(3600);

    fn token(name: &str) -> TokenDigest {
        TokenDigest::of(name.as_bytes(), &DigestKey::new([3; 32]))
    }

    fn put(index: &Index, record: Record) {
        index.put(index.reserve().unwrap(), record);
    }

    #[test]
    fn a_token_in_its_grace_is_known_and_not_refused() {
        let index = Index::new(10);
        put(&index, Record::ended(token("a"), HOUR, 2 * HOUR));
        assert!(!index.refuses(&token("a")));
        assert!(matches!(index.find(&token("a")), Some(Fate::Ended { grace }) if grace > HOUR / 2));
        put(&index, Record::ended(token("a"), Duration::ZERO, HOUR));
        assert!(index.refuses(&token("a")));
        put(&index, Record::ended(token("a"), HOUR, 2 * HOUR));
        assert!(index.refuses(&token("a")), "grace never revives");
        assert_eq!(index.count().0, 1);
    }

    #[test]
    fn a_pardon_counts_until_the_token_ends_anew() {
        let index = Index::new(10);
        put(&index, Record::ended(token("a"), Duration::ZERO, HOUR));
        put(&index, Record { token: token("a"), fate: Fate::Pardoned, left: HOUR });
        assert!(!index.refuses(&token("a")));
        assert_eq!(index.find(&token("a")), Some(Fate::Pardoned));
        put(&index, Record::ended(token("a"), Duration::ZERO, HOUR));
        assert!(index.refuses(&token("a")));
    }

    #[test]
    fn what_is_known_can_be_changed_also_when_nothing_new_fits() {
        let index = Index::new(1);
        put(&index, Record::ended(token("a"), Duration::ZERO, HOUR));
        assert_eq!(index.reserve_for(&token("b")).unwrap_err(), Full);
        let place = index.reserve_for(&token("a")).unwrap();
        index.put(place, Record { token: token("a"), fate: Fate::Pardoned, left: HOUR });
        let record = index.record(&token("a")).unwrap();
        assert_eq!(record.fate, Fate::Pardoned);
        assert!(record.left <= HOUR + HOUR / 60 && record.left > HOUR / 2);
        assert_eq!(index.record(&token("b")), None);
        assert_eq!(index.count(), (1, 1));
    }

    #[test]
    fn what_was_made_elsewhere_fits_also_when_nothing_new_does() {
        let index = Index::new(1);
        put(&index, Record::ended(token("a"), Duration::ZERO, HOUR));
        assert_eq!(index.reserve().unwrap_err(), Full);
        index.put_anyway(Record::ended(token("b"), Duration::ZERO, HOUR));
        assert!(index.refuses(&token("a")) && index.refuses(&token("b")));
        let mut all: Vec<_> = index.records().map(|record| record.token).collect();
        all.sort_unstable();
        let mut expected = vec![token("a"), token("b")];
        expected.sort_unstable();
        assert_eq!(all, expected);
        assert_eq!(index.count(), (2, 1));
    }
}
