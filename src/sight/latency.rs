//! How long things took lately, as percentiles of counts in buckets.

use std::time::Duration;

use super::window::Window;

/// Durations of the last minute and the last hour.
pub struct Latency {
    minute: Window<5, 12>,
    hour: Window<60, 60>,
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// In the last minute; `None` when there were none.
    pub minute: Option<Percentiles>,
    /// In the last hour; `None` when there were none.
    pub hour: Option<Percentiles>,
    /// The 95th percentile of each minute of the last hour, the oldest first.
    pub series: Vec<Option<Duration>>,
}

/// Half, 95 % and 99 % of them took no longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub half: Duration,
    pub p95: Duration,
    pub p99: Duration,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { minute: Window::new(BUCKETS), hour: Window::new(BUCKETS) }
    }
}

impl Latency {
    /// Counts a duration that ended at a second.
    pub fn add(&self, duration: Duration, second: u32) {
        let bucket = bucket(duration);
        self.minute.add(bucket, second);
        self.hour.add(bucket, second);
    }

    /// What became of all of them by a second.
    pub fn until<'l>(all: impl Iterator<Item = &'l Latency> + Clone, second: u32) -> Latencies {
        let p95 = |counts: &Vec<u64>| percentile(counts, 95);
        let hours = || all.clone().map(|one| &one.hour);
        Latencies {
            minute: percentiles(&Window::sums_of(all.clone().map(|one| &one.minute), second)),
            hour: percentiles(&Window::sums_of(hours(), second)),
            series: Window::series_of(hours(), second).iter().map(p95).collect(),
        }
    }
}

fn percentiles(counts: &[u64]) -> Option<Percentiles> {
    Some(Percentiles { half: percentile(counts, 50)?, p95: percentile(counts, 95)?, p99: percentile(counts, 99)? })
}

/// The upper end of the bucket in which it lies: never less than it was.
fn percentile(counts: &[u64], percent: u64) -> Option<Duration> {
    let all: u64 = counts.iter().sum();
    let rank = (all * percent).div_ceil(100).max(1);
    let mut so_far = 0;
    let at = counts.iter().position(|count| {
        so_far += count;
        so_far >= rank
    });
    at.map(end)
}

/// Four for each doubling, so that none is wider than a quarter of where it begins.
fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).clamp(1 << FIRST, (1 << LAST) - 1);
    let doubling = micros.ilog2();
    let quarter = (micros >> (doubling - 2)) & 3;
    (doubling - FIRST) as usize * 4 + quarter as usize
}

fn end(bucket: usize) -> Duration {
    let (doubling, quarter) = (bucket as u64 / 4 + u64::from(FIRST), bucket as u64 % 4);
    Duration::from_micros((5 + quarter) << (doubling - 2))
}

/// From 8 µs …
const FIRST: u32 = 3;

/// … to 16 s, which no exchange with a PAM takes.
const LAST: u32 = 24;

const BUCKETS: usize = (LAST - FIRST) as usize * 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn until(latency: &Latency, second: u32) -> Latencies {
        Latency::until([latency].into_iter(), second)
    }

    #[test]
    fn every_duration_lies_in_a_bucket_that_ends_at_most_a_quarter_later() {
        for micros in (8..5000).chain([99_999, 1_000_000, 9_000_000, 16_777_215]) {
            let bucket = bucket(Duration::from_micros(micros));
            let end = end(bucket).as_micros();
            assert!(u128::from(micros) < end && end * 4 <= u128::from(micros) * 5 + 4, "{micros} {end}");
            assert!(bucket < BUCKETS);
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let latency = Latency::default();
        assert_eq!(until(&latency, 0).minute, None);
        for millis in 1..=100 {
            latency.add(Duration::from_millis(millis), 7);
        }
        let Some(found) = until(&latency, 7).minute else { panic!("none") };
        for (found, exact) in [(found.half, 50), (found.p95, 95), (found.p99, 99)] {
            let exact = Duration::from_millis(exact);
            assert!(found >= exact && found <= exact + exact / 4, "{found:?} {exact:?}");
        }
        let later = until(&latency, 100);
        assert_eq!((later.minute, later.hour.is_some()), (None, true));
        assert_eq!(later.series.iter().flatten().count(), 1);
        assert_eq!(until(&latency, 3700), Latencies { series: vec![None; 60], ..Latencies::default() });
    }

    #[test]
    fn what_several_have_counted_is_told_together() {
        let [one, other] = [1, 100].map(|millis| {
            let latency = Latency::default();
            (0..50).for_each(|_| latency.add(Duration::from_millis(millis), 7));
            latency
        });
        let found = Latency::until([&one, &other].into_iter(), 7);
        let [lesser, greater] = [&one, &other].map(|latency| until(latency, 7).hour.unwrap());
        assert_eq!(found.hour, Some(Percentiles { half: lesser.half, ..greater }));
        assert_eq!(found.series.iter().flatten().collect::<Vec<_>>(), [&greater.p95]);
    }

    #[test]
    fn one_is_all_percentiles() {
        let latency = Latency::default();
        latency.add(Duration::from_micros(100), 0);
        let end = Duration::from_micros(112);
        assert_eq!(until(&latency, 0).hour, Some(Percentiles { half: end, p95: end, p99: end }));
    }
}
