//! Tokens that the PAM itself called expired or unknown, believed for a short time.
//!
//! This is a guess that spares the PAM work, not a record. Nothing ended here: the PAM said a moment ago that it would not
//! take the token, and would say so again. Forgetting one early costs one more request, so unlike the exact index this
//! memory may evict when it is full; it is never written to the journal and never told to other replicas; and it holds up
//! no money that is owed (see [`crate::gate`]).

use std::time::Duration;

use moka::sync::Cache;

use crate::token::TokenDigest;

/// Tokens presumed to have ended.
pub struct Presumed(Cache<TokenDigest, ()>);

impl Presumed {
    /// Believes each for `time`.
    pub fn new(time: Duration) -> Presumed {
        Presumed(Cache::builder().max_capacity(MOST).time_to_live(time).build())
    }

    /// The PAM said it of this token, just now.
    pub fn presume(&self, token: TokenDigest) {
        self.0.insert(token, ());
    }

    /// Did it say so within the time?
    pub fn has(&self, token: &TokenDigest) -> bool {
        self.0.contains_key(token)
    }

    /// How many there are. Sweeps what is over first.
    pub fn count(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}

/// At a few hundred bytes each. A flood of more different tokens is none that remembering them stops.
pub const MOST: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::DigestKey;

    fn token(number: u64) -> TokenDigest {
        TokenDigest::of(&number.to_be_bytes(), &DigestKey::new([3; 32]))
    }

    #[test]
    fn a_token_is_presumed_for_its_time_and_no_other_is() {
        let presumed = Presumed::new(Duration::from_secs(3600));
        presumed.presume(token(1));
        presumed.presume(token(1));
        assert!(presumed.has(&token(1)));
        assert!(!presumed.has(&token(2)));
        assert_eq!(presumed.count(), 1);

        let presumed = Presumed::new(Duration::from_nanos(1));
        presumed.presume(token(1));
        while presumed.has(&token(1)) {}
        assert_eq!(presumed.count(), 0);
    }

    #[test]
    fn a_flood_of_tokens_does_not_grow_it_beyond_its_bound() {
        let presumed = Presumed::new(Duration::from_secs(3600));
        for number in 0..MOST + 1000 {
            presumed.presume(token(number));
        }
        assert!(presumed.count() <= MOST, "{}", presumed.count());
    }
}
