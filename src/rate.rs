//! How often something may happen: a bucket for each key that fills by one with each time and leaks at the rate.
//!
//! A bucket holds what may come in `BURST` seconds, so that who calls in bursts is not refused for it; and who has been
//! away for as long has an empty one, which need not be remembered. The clock is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::moment::Moment;

/// A bucket for each key.
pub struct Rates<K> {
    most: usize,
    buckets: Mutex<Buckets<K>>,
}

/// Those that were used lately and those from before, which are let go at the next turn.
struct Buckets<K> {
    now: HashMap<K, Bucket>,
    before: HashMap<K, Bucket>,
    turned: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// In thousandths: what a rate in requests per second leaks in a millisecond is a whole number of them.
    level: u64,
    at: Moment,
}

impl<K: Hash + Eq> Rates<K> {
    /// Remembers at most `most` keys that are in use. When there are more, the others are not counted: to refuse somebody
    /// because of strangers would be worse.
    pub fn new(most: usize) -> Rates<K> {
        let buckets = Buckets { now: HashMap::new(), before: HashMap::new(), turned: None };
        Rates { most, buckets: Mutex::new(buckets) }
    }

    /// Counts one, at `rate` a second. The error says when there will be room again; what is refused does not count.
    pub fn take(&self, key: K, rate: u32, now: Moment) -> Result<(), Duration> {
        let mut buckets = self.buckets();
        buckets.turn(now);
        let before = buckets.before.remove(&key);
        if before.is_none() && buckets.now.len() >= self.most && !buckets.now.contains_key(&key) {
            return Ok(());
        }
        let empty = Bucket { level: 0, at: now };
        buckets.now.entry(key).or_insert(before.unwrap_or(empty)).take(rate, now)
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets<K>> {
        // Each change is whole before the next begins, so a panic elsewhere spoils nothing.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Buckets<K> {
    /// What has not been used for a burst's time is empty by now.
    fn turn(&mut self, now: Moment) {
        let turned = *self.turned.get_or_insert(now);
        if now.since(turned) >= Duration::from_secs(BURST) {
            self.before = std::mem::take(&mut self.now);
            self.turned = Some(now);
        }
    }
}

impl Bucket {
    fn take(&mut self, rate: u32, now: Moment) -> Result<(), Duration> {
        let rate = u64::from(rate.max(1));
        let elapsed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.level = self.level.saturating_sub(elapsed.saturating_mul(rate));
        self.at = now;
        let after = self.level + ONE;
        let room = rate * BURST * ONE;
        if after > room {
            return Err(Duration::from_millis((after - room).div_ceil(rate)));
        }
        self.level = after;
        Ok(())
    }
}

/// A request, in thousandths.
const ONE: u64 = 1000;

/// Seconds' worth that may come at once.
const BURST: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn times(rates: &Rates<&'static str>, key: &'static str, rate: u32, now: Moment) -> usize {
        (0..).take_while(|_| rates.take(key, rate, now).is_ok()).count()
    }

    fn sizes<K: Hash + Eq>(rates: &Rates<K>) -> (usize, usize) {
        let buckets = rates.buckets();
        (buckets.now.len(), buckets.before.len())
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_rate_allows() {
        let start = Moment::now();
        let at = |millis| start.after(Duration::from_millis(millis));
        for rate in [1, 3, 10, 999] {
            let rates = Rates::new(9);
            assert_eq!(times(&rates, "a", rate, start), 2 * rate as usize, "{rate}");
            assert_eq!(times(&rates, "b", rate, start), 2 * rate as usize, "others have their own");
            let mut passed = 0;
            for millis in 1..=10_000 {
                passed += times(&rates, "a", rate, at(millis));
            }
            assert_eq!(passed, 10 * rate as usize, "{rate}");
            assert_eq!(times(&rates, "a", rate, at(12_000)), 2 * rate as usize, "{rate}");
        }
    }

    #[test]
    fn who_waits_as_long_as_told_gets_through_and_not_before() {
        let start = Moment::now();
        for rate in [1, 3, 7, 1000] {
            let rates = Rates::new(9);
            times(&rates, "a", rate, start);
            let wait = rates.take("a", rate, start).unwrap_err();
            assert_eq!(wait, Duration::from_millis(1000_u64.div_ceil(rate.into())));
            let early = start.after(wait - Duration::from_millis(1));
            assert_eq!(rates.take("a", rate, early), Err(Duration::from_millis(1)), "{rate}");
            assert_eq!(rates.take("a", rate, start.after(wait)), Ok(()), "{rate}");
        }
    }

    #[test]
    fn strangers_fill_the_memory_and_nobody_is_refused_for_it() {
        let rates = Rates::new(100);
        let start = Moment::now();
        let at = |millis| start.after(Duration::from_millis(millis));
        for number in 0..1000 {
            assert_eq!(rates.take(number, 1, start), Ok(()));
        }
        assert_eq!(sizes(&rates), (100, 0));
        // Those who are remembered are still held to their rate, and the others are not counted.
        assert_eq!((rates.take(0, 1, start), rates.take(0, 1, start)), (Ok(()), Err(Duration::from_secs(1))));
        assert!((0..9).all(|_| rates.take(999, 1, start).is_ok()));
        // After a while there is room again, and never more than two turns' worth.
        assert_eq!(rates.take(999, 1, at(2000)), Ok(()));
        assert_eq!(rates.take(0, 1, at(2500)), Ok(()));
        assert_eq!(sizes(&rates), (2, 99));
        assert_eq!(rates.take(999, 1, at(4000)), Ok(()));
        assert_eq!(sizes(&rates), (1, 1));
    }

    #[test]
    fn another_rate_counts_what_came_before() {
        let (rates, start) = (Rates::new(9), Moment::now());
        assert_eq!(times(&rates, "a", 10, start), 20);
        assert_eq!(times(&rates, "a", 15, start), 10);
        assert_eq!(rates.take("a", 1, start), Err(Duration::from_secs(29)));
    }
}
