//! A memory that never forgets in silence: moka with a count of our own in front.
//!
//! moka bounds a cache by *refusing or evicting* what it deems least useful, which for a dead token would mean letting it
//! live again. So the cache underneath has no bound, entries leave it only when their time is over, and the bound is kept
//! here: when it is reached, [`Ledger::reserve`] says so and whoever asked refuses, aloud.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;
use moka::sync::Cache;
use moka::{Entry, Expiry};

/// Keys with a value and a time to live each, at most a fixed number of them.
pub struct Ledger<K, V> {
    cache: Cache<K, Kept<V>>,
    /// Entries plus reservations; at least the number of live entries, since moka tells of expiries a little late.
    taken: Arc<AtomicU64>,
    most: u64,
}

/// The right to add one entry. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicU64>,
    used: bool,
}

/// The ledger is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Clone)]
struct Kept<V> {
    value: V,
    until: Instant,
}

impl<K, V> Ledger<K, V>
where
    K: Hash + Eq + Copy + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// A ledger for `most` entries.
    pub fn new(most: u64) -> Ledger<K, V> {
        let taken = Arc::new(AtomicU64::new(0));
        let freed = Arc::clone(&taken);
        let cache = Cache::builder()
            .expire_after(UntilDeadline)
            .eviction_listener(move |_, kept: Kept<V>, cause| {
                // An entry whose time is over may be replaced before it is swept: its successor has a place of its own.
                if cause != RemovalCause::Replaced || kept.until <= Instant::now() {
                    free(&freed);
                }
            })
            .build();
        Ledger { cache, taken, most }
    }

    /// Takes a place for one entry.
    pub fn reserve(&self) -> Result<Place, Full> {
        let take = || {
            self.taken
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < self.most).then_some(taken + 1))
        };
        if take().is_err() {
            // What expired may not have been swept yet.
            self.cache.run_pending_tasks();
            take().map_err(|_| Full)?;
        }
        Ok(Place { taken: Arc::clone(&self.taken), used: false })
    }

    /// Takes a place whether or not there is one. For what must be kept at any price, and is bounded elsewhere.
    pub fn reserve_anyway(&self) -> Place {
        self.taken.fetch_add(1, Ordering::AcqRel);
        Place { taken: Arc::clone(&self.taken), used: false }
    }

    /// Keeps under `key` what `value` makes of what is there, for `time` or what is left of the old time, the longer.
    pub fn put(&self, mut place: Place, key: K, time: Duration, value: impl FnOnce(Option<V>) -> V) {
        let until = Instant::now() + time;
        let entry = self.cache.entry(key).and_upsert_with(|old| match old.map(Entry::into_value) {
            Some(old) => Kept { until: old.until.max(until), value: value(Some(old.value)) },
            None => Kept { value: value(None), until },
        });
        place.used = !entry.is_old_value_replaced();
    }

    /// Keeps `value` under `key` unless the key is there already, in which case what it has is returned.
    pub fn keep_first(&self, mut place: Place, key: K, value: V, time: Duration) -> Result<(), V> {
        let entry = self.cache.entry(key).or_insert_with(|| Kept { value, until: Instant::now() + time });
        if entry.is_fresh() {
            place.used = true;
            Ok(())
        } else {
            Err(entry.into_value().value)
        }
    }

    /// True while the key is kept.
    pub fn has(&self, key: &K) -> bool {
        self.cache.contains_key(key)
    }

    /// What is kept under the key.
    pub fn find(&self, key: &K) -> Option<V> {
        self.cache.get(key).map(|kept| kept.value)
    }

    /// Lets go of a key before its time.
    pub fn drop_key(&self, key: &K) {
        self.cache.invalidate(key);
    }

    /// Everything that is kept, with the moment until which it is.
    pub fn iter(&self) -> impl Iterator<Item = (K, V, Instant)> {
        self.cache.iter().map(|(key, kept)| (*key, kept.value, kept.until))
    }

    /// How many entries are kept, reservations included. Sweeps what has expired first.
    pub fn count(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.taken.load(Ordering::Acquire)
    }

    /// The bound.
    pub fn most(&self) -> u64 {
        self.most
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used {
            free(&self.taken);
        }
    }
}

/// Gives one place back. Never below zero: a count that wrapped around would refuse everything for ever.
fn free(taken: &AtomicU64) {
    let _ = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| taken.checked_sub(1));
}

/// Entries leave at their deadline, on the monotonic clock: a wall clock that jumps revives nobody.
struct UntilDeadline;

impl<K, V> Expiry<K, Kept<V>> for UntilDeadline {
    fn expire_after_create(&self, _: &K, kept: &Kept<V>, now: Instant) -> Option<Duration> {
        Some(kept.until.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &K, kept: &Kept<V>, now: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(kept.until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_full_ledger_refuses_and_keeps_everything() {
        let ledger = Ledger::<u64, ()>::new(1000);
        for key in 0..1000 {
            ledger.put(ledger.reserve().unwrap(), key, HOUR, |_| ());
        }
        assert_eq!(ledger.reserve().unwrap_err(), Full);
        assert_eq!((0..1000).filter(|key| ledger.has(key)).count(), 1000);
        assert_eq!(ledger.count(), 1000);
    }

    #[test]
    fn a_hundred_thousand_entries_are_all_there_whatever_is_asked_for_most() {
        let ledger = Ledger::<u64, ()>::new(1 << 20);
        for key in 0..100_000 {
            ledger.put(ledger.reserve().unwrap(), key, HOUR, |_| ());
            // The look-ups that would teach an admission policy to prefer other keys.
            assert!(ledger.has(&(key / 2)));
        }
        assert_eq!((0..100_000).filter(|key| ledger.has(key)).count(), 100_000);
    }

    #[test]
    fn keeping_a_key_again_takes_no_second_place_and_never_shortens_its_time() {
        let ledger = Ledger::<u64, ()>::new(2);
        ledger.put(ledger.reserve().unwrap(), 1, HOUR, |_| ());
        ledger.put(ledger.reserve().unwrap(), 1, Duration::ZERO, |_| ());
        assert!(ledger.has(&1));
        assert_eq!(ledger.count(), 1);
    }

    #[test]
    fn a_place_not_used_is_given_back() {
        let ledger = Ledger::<u64, ()>::new(1);
        drop(ledger.reserve().unwrap());
        ledger.put(ledger.reserve().unwrap(), 1, HOUR, |_| ());
        assert_eq!(ledger.reserve().unwrap_err(), Full);
    }

    #[test]
    fn an_entry_whose_time_is_over_makes_room() {
        let ledger = Ledger::<u64, ()>::new(1);
        ledger.put(ledger.reserve().unwrap(), 1, Duration::ZERO, |_| ());
        assert!(!ledger.has(&1));
        // It is gone at once; its place is swept by a wheel that turns about once a second.
        let place = std::iter::repeat_with(|| ledger.reserve()).find_map(Result::ok).unwrap();
        ledger.put(place, 2, HOUR, |_| ());
        assert!(ledger.has(&2));
    }

    #[test]
    fn a_key_kept_again_and_again_after_its_time_takes_one_place() {
        let ledger = Ledger::<u64, ()>::new(3);
        for _ in 0..20 {
            ledger.put(ledger.reserve().unwrap(), 1, Duration::ZERO, |_| ());
            assert!(ledger.keep_first(ledger.reserve().unwrap(), 2, (), Duration::ZERO).is_ok());
        }
        ledger.put(ledger.reserve().unwrap(), 1, HOUR, |_| ());
        assert!(ledger.keep_first(ledger.reserve().unwrap(), 2, (), HOUR).is_ok());
        assert_eq!(ledger.count(), 2);
    }

    #[test]
    fn only_the_first_of_many_keeps() {
        let ledger = Arc::new(Ledger::<u64, usize>::new(100));
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let ledger = Arc::clone(&ledger);
                std::thread::spawn(move || ledger.keep_first(ledger.reserve().unwrap(), 7, number, HOUR).is_ok())
            })
            .collect();
        assert_eq!(threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|first| *first).count(), 1);
        assert_eq!(ledger.count(), 1);
    }
}
