//! Counts by the check that decided and its reason.

use super::cells::Counter;
use crate::denial::{Check, Denial};

/// A count for every reason there is. Found by a few comparisons of short words, without a lock and without memory.
pub struct Reasons(Vec<Reason>);

struct Reason {
    check: Check,
    word: &'static str,
    count: Counter,
}

impl Reasons {
    /// All of them, at zero.
    pub fn all() -> Reasons {
        let mut all: Vec<(Check, &str)> = refusals().map(|denial| (denial.check(), denial.reason())).collect();
        all.sort_unstable();
        all.dedup();
        Reasons(all.into_iter().map(|(check, word)| Reason { check, word, count: Counter::default() }).collect())
    }

    /// Counts one.
    pub fn count(&self, denial: Denial) {
        let sought = (denial.check(), denial.reason());
        let found = self.0.binary_search_by(|one| (one.check, one.word).cmp(&sought));
        if let Some(one) = found.ok().and_then(|at| self.0.get(at)) {
            one.count.inc();
        }
    }

    /// Check, reason and count, in the order of the checks.
    pub fn iter(&self) -> impl Iterator<Item = (Check, &'static str, u64)> {
        self.0.iter().map(|one| (one.check, one.word, one.count.value()))
    }

    /// How often it was for this.
    pub fn of(&self, denial: Denial) -> u64 {
        let same = |(check, word, _): &(Check, &str, u64)| (*check, *word) == (denial.check(), denial.reason());
        self.iter().find(same).map_or(0, |(_, _, count)| count)
    }
}

/// What refuses a request. What goes wrong with one that was admitted is counted elsewhere.
pub fn refusals() -> impl Iterator<Item = Denial> {
    Denial::every().filter(|denial| !denial.follows_admission())
}

/// What refuses a signed message for those that came before it.
pub const REPLAYS: [Denial; 3] = [Denial::Replayed, Denial::CopyInFlight, Denial::ReplayMemoryFull];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denial_is_counted_under_its_own_word() {
        let reasons = Reasons::all();
        for denial in refusals() {
            let before = reasons.of(denial);
            reasons.count(denial);
            assert_eq!(reasons.of(denial), before + 1, "{denial:?}");
        }
        let counted: u64 = reasons.iter().map(|(_, _, count)| count).sum();
        assert_eq!(counted, refusals().count() as u64);
        assert!(counted > 60, "{counted}");
    }
}
