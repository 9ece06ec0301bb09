//! When each token was first seen here, so that an operator can end all that were seen before a moment.
//!
//! A token is remembered for [`Rules::keep`](super::Rules::keep) after it was *last* seen: a session that is in use must
//! not drop out of this memory while it lives, and one that was not seen for so long is over at the PAM, because that is
//! what `keep` is to outlast. When the memory is full, what it could not take is counted and told, never forgotten in
//! silence.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ledger::{Full, Ledger};
use crate::moment::Moment;
use crate::token::TokenDigest;

/// Tokens that passed the check of their standing, each with the moment it first did.
pub struct Sightings {
    first: Ledger<TokenDigest, SystemTime>,
    keep: Duration,
    since: SystemTime,
    missed: AtomicU64,
    /// When a token was missed for the first time, in nanoseconds since 1970; `u64::MAX` as long as none was.
    missed_from: AtomicU64,
}

impl Sightings {
    /// For `most` tokens, each for `keep` after it was last seen.
    pub fn new(most: u64, keep: Duration) -> Sightings {
        Sightings {
            first: Ledger::new(most),
            keep,
            since: SystemTime::now(),
            missed: AtomicU64::new(0),
            missed_from: AtomicU64::new(u64::MAX),
        }
    }

    /// Bytes that `most` tokens take at most.
    pub fn room(most: u64) -> u64 {
        Ledger::<TokenDigest, SystemTime>::room(most)
    }

    /// A token was seen. One look-up for a token that is known; it is written again only once a tenth of `keep` has passed.
    pub fn saw(&self, token: TokenDigest) {
        let place = match self.first.find_until(&token) {
            Some((_, until)) if until.since(Moment::now()) >= self.keep => return,
            // It has its place already.
            Some(_) => self.first.reserve_anyway(),
            None => match self.first.reserve() {
                Ok(place) => place,
                Err(Full) => return self.miss(),
            },
        };
        let now = SystemTime::now();
        self.first.put(place, token, self.keep + self.keep / 10, |first| first.map_or(now, |first| first.min(now)));
    }

    /// The tokens first seen before a moment.
    pub fn before(&self, moment: SystemTime) -> impl Iterator<Item = TokenDigest> {
        self.first.iter().filter(move |(_, first, _)| *first < moment).map(|(token, _, _)| token)
    }

    /// Since when it has been remembering.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// How many sightings it had no place for.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Acquire)
    }

    /// True when no token seen before a moment, since this began, was missed.
    pub fn is_complete_before(&self, moment: SystemTime) -> bool {
        self.missed_from.load(Ordering::Acquire) >= nanos(moment)
    }

    /// How many tokens are remembered, and the bound.
    pub fn count(&self) -> (u64, u64) {
        (self.first.count(), self.first.most())
    }

    fn miss(&self) {
        self.missed_from.fetch_min(nanos(SystemTime::now()), Ordering::AcqRel);
        self.missed.fetch_add(1, Ordering::AcqRel);
    }
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::secret::DigestKey;

    const HOUR: Duration = Duration::from_secs(3600);

    fn token(name: &str) -> TokenDigest {
        TokenDigest::of(name.as_bytes(), &DigestKey::new([3; 32]))
    }

    fn before(sightings: &Sightings, moment: SystemTime) -> Vec<TokenDigest> {
        let mut tokens: Vec<_> = sightings.before(moment).collect();
        tokens.sort_unstable();
        tokens
    }

    #[test]
    fn the_first_sighting_counts_however_often_a_token_is_seen() {
        let sightings = Sightings::new(10, HOUR);
        sightings.saw(token("a"));
        let between = SystemTime::now();
        sightings.saw(token("b"));
        sightings.saw(token("a"));
        assert_eq!(before(&sightings, between), [token("a")]);
        assert_eq!(before(&sightings, SystemTime::now() + HOUR).len(), 2);
        assert_eq!(before(&sightings, sightings.since()), []);
        assert_eq!(sightings.count(), (2, 10));
    }

    #[test]
    fn a_token_that_is_seen_again_and_again_stays_remembered_from_its_first_sighting() {
        let keep = Duration::from_secs(1);
        let sightings = Sightings::new(10, keep);
        sightings.saw(token("idle"));
        sightings.saw(token("used"));
        let first = SystemTime::now();
        let began = Instant::now();
        while began.elapsed() < keep + keep / 2 {
            sightings.saw(token("used"));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(before(&sightings, first), [token("used")]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_only_what_was_seen_before_it_is_complete() {
        let sightings = Sightings::new(1, HOUR);
        sightings.saw(token("a"));
        let full = SystemTime::now();
        assert!(sightings.is_complete_before(full + HOUR));
        for _ in 0..3 {
            sightings.saw(token("b"));
            sightings.saw(token("a"));
        }
        assert_eq!(sightings.missed(), 3);
        assert!(sightings.is_complete_before(full));
        assert!(!sightings.is_complete_before(SystemTime::now() + HOUR));
        assert_eq!(before(&sightings, SystemTime::now() + HOUR), [token("a")]);
    }
}
