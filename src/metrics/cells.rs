//! What is counted in. Adding to any of them is one or two atomic additions, and no thread waits for another.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By the first of [`BOUNDS`] that is not exceeded; the last is for what exceeds all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    /// As in the histogram, so not yet cumulative.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Of everything together.
    pub seconds: f64,
}

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// One less.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// So many more, or less.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    /// Counts something that took so long.
    pub fn observe(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn now(&self) -> Distribution {
        let buckets = std::array::from_fn(|at| self.buckets.get(at).map_or(0, |one| one.load(Ordering::Relaxed)));
        Distribution { buckets, seconds: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64() }
    }
}

impl Distribution {
    /// What several histograms have together.
    pub fn of<'h>(histograms: impl Iterator<Item = &'h Histogram>) -> Distribution {
        let mut all = Distribution::default();
        histograms.for_each(|histogram| all.add(&histogram.now()));
        all
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Distribution) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.seconds += other.seconds;
    }
}

/// What a bound is in seconds.
pub fn seconds(bound: u64) -> f64 {
    Duration::from_nanos(bound).as_secs_f64()
}

/// In nanoseconds: from 25 µs, what a check costs, to the 9 s after which the PAM is given up.
pub const BOUNDS: [u64; 18] = [
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_as_long_as_a_bound_is_within_it() {
        let histogram = Histogram::default();
        for nanoseconds in [0, 25_000, 25_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe(Duration::from_nanos(nanoseconds));
        }
        let now = histogram.now();
        assert_eq!((now.buckets[0], now.buckets[1], now.buckets[17], now.buckets[18]), (2, 1, 1, 1));
        assert_eq!(now.seconds, 20.000050002);
        let mut twice = now.clone();
        twice.add(&now);
        assert_eq!(twice.buckets.iter().sum::<u64>(), 10);
    }
}
