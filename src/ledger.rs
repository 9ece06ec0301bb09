//! A memory that never forgets in silence: exact, bounded, and each entry with a time to live of its own.
//!
//! A cache bounds itself by refusing or evicting what it deems least useful, which for a dead token would mean letting it
//! live again. Here nothing leaves before its time, and when the bound is reached, [`Ledger::reserve`] says so and whoever
//! asked refuses, aloud. Entries lie in many small tables, so that a look-up costs one short lock that hardly anyone else
//! wants and one or two lines of memory, and no table is ever moved or swept for long.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::moment::Moment;

/// Keys with a value and a time to live each, at most a fixed number of them.
///
/// Keys are digests: they are spread by what they are, and hashed no further.
pub struct Ledger<K, V> {
    tables: Vec<RwLock<Table<K, V>>>,
    /// Entries plus reservations.
    taken: Arc<AtomicU64>,
    most: u64,
    /// When all tables were last swept because there was no place.
    swept_for_place: Mutex<Option<Moment>>,
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

struct Table<K, V> {
    entries: HashMap<K, Kept<V>, BuildHasherDefault<Spread>>,
    swept: Moment,
}

struct Kept<V> {
    value: V,
    until: Moment,
}

impl<K: Hash + Eq + Copy, V: Clone> Ledger<K, V> {
    /// A ledger for `most` entries.
    pub fn new(most: u64) -> Ledger<K, V> {
        let table = || RwLock::new(Table { entries: HashMap::default(), swept: Moment::now() });
        Ledger {
            tables: (0..TABLES).map(|_| table()).collect(),
            taken: Arc::default(),
            most,
            swept_for_place: Mutex::default(),
        }
    }

    /// Bytes that a full one takes at most, beside what its values point to: tables have places for a power of two of
    /// entries, of which an eighth stays free.
    pub fn room(most: u64) -> u64 {
        let share = most.div_ceil(TABLES);
        // Chance spreads keys over the tables: hardly any gets four deviations more than its share.
        let fullest = share.saturating_add(share.isqrt().saturating_mul(4));
        let places = fullest.saturating_mul(8).div_ceil(7).next_power_of_two().max(LEAST_PLACES);
        let entry = u64::try_from(size_of::<(K, Kept<V>)>()).unwrap_or(u64::MAX).saturating_add(1);
        places.saturating_mul(entry).saturating_add(TABLE).saturating_mul(TABLES)
    }

    /// Takes a place for one entry.
    pub fn reserve(&self) -> Result<Place, Full> {
        let take = || {
            self.taken
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < self.most).then_some(taken + 1))
        };
        if take().is_err() {
            self.sweep_for_place();
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
    pub fn put(&self, place: Place, key: K, time: Duration, value: impl FnOnce(Option<V>) -> V) {
        let now = Moment::now();
        let until = now.after(time);
        let mut table = self.swept(&key, now);
        match table.entries.entry(key) {
            Entry::Occupied(mut entry) => {
                let old = entry.get_mut();
                let known = (old.until > now).then(|| old.value.clone());
                old.until = if known.is_some() { old.until.max(until) } else { until };
                old.value = value(known);
            }
            Entry::Vacant(entry) => {
                entry.insert(Kept { value: value(None), until });
                place.fill();
            }
        }
    }

    /// Keeps `value` under `key` unless the key is there already, in which case what it has is returned.
    pub fn keep_first(&self, place: Place, key: K, value: V, time: Duration) -> Result<(), V> {
        let now = Moment::now();
        let kept = Kept { value, until: now.after(time) };
        let mut table = self.swept(&key, now);
        match table.entries.entry(key) {
            Entry::Occupied(entry) if entry.get().until > now => return Err(entry.get().value.clone()),
            Entry::Occupied(mut entry) => {
                entry.insert(kept);
            }
            Entry::Vacant(entry) => {
                entry.insert(kept);
                place.fill();
            }
        }
        Ok(())
    }

    /// Puts another value under a key, if it is kept, for what is left of its time.
    pub fn change(&self, key: &K, value: V) {
        if let Some(kept) = write(self.table(key)).entries.get_mut(key) {
            kept.value = value;
        }
    }

    /// True while the key is kept.
    pub fn has(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// What is kept under the key.
    pub fn find(&self, key: &K) -> Option<V> {
        self.find_until(key).map(|(value, _)| value)
    }

    /// The same with the moment at which it was found: the clock is the dearest part of finding something.
    pub fn find_now(&self, key: &K) -> Option<(V, Moment)> {
        let table = read(self.table(key));
        let kept = table.entries.get(key)?;
        let now = Moment::now();
        (kept.until > now).then(|| (kept.value.clone(), now))
    }

    /// The same with the moment until which it is kept.
    pub fn find_until(&self, key: &K) -> Option<(V, Moment)> {
        let table = read(self.table(key));
        let kept = table.entries.get(key)?;
        (kept.until > Moment::now()).then(|| (kept.value.clone(), kept.until))
    }

    /// Lets go of a key before its time.
    pub fn drop_key(&self, key: &K) {
        if write(self.table(key)).entries.remove(key).is_some() {
            free(&self.taken, 1);
        }
    }

    /// Everything that is kept, with the moment until which it is.
    pub fn iter(&self) -> impl Iterator<Item = (K, V, Moment)> {
        let now = Moment::now();
        self.tables.iter().flat_map(move |table| {
            // A copy of one small table at a time: whoever walks through must not hold up the others.
            let table = read(table);
            let live = table.entries.iter().filter(|(_, kept)| kept.until > now);
            live.map(|(key, kept)| (*key, kept.value.clone(), kept.until)).collect::<Vec<_>>()
        })
    }

    /// How many entries are kept, reservations included. Sweeps what has expired first.
    pub fn count(&self) -> u64 {
        self.sweep_all();
        self.taken.load(Ordering::Acquire)
    }

    /// The bound.
    pub fn most(&self) -> u64 {
        self.most
    }

    fn table(&self, key: &K) -> &RwLock<Table<K, V>> {
        let mut spread = Spread::default();
        key.hash(&mut spread);
        // Not by the bits that place an entry within its table: those at both ends.
        &self.tables[usize::try_from((spread.finish() >> 32) % TABLES).unwrap_or_default()]
    }

    /// The table of a key, to write to, without what has long expired.
    fn swept(&self, key: &K, now: Moment) -> RwLockWriteGuard<'_, Table<K, V>> {
        let mut table = write(self.table(key));
        if now.since(table.swept) > SWEPT_EVERY {
            self.sweep(&mut table, now);
        }
        table
    }

    /// Sweeps, unless somebody else is at it or it was done a moment ago: a full ledger is asked again and again.
    fn sweep_for_place(&self) {
        if let Ok(mut swept) = self.swept_for_place.try_lock()
            && swept.is_none_or(|swept| Moment::now().since(swept) > SWEPT_AGAIN)
        {
            self.sweep_all();
            *swept = Some(Moment::now());
        }
    }

    fn sweep_all(&self) {
        let now = Moment::now();
        self.tables.iter().for_each(|table| self.sweep(&mut write(table), now));
    }

    fn sweep(&self, table: &mut Table<K, V>, now: Moment) {
        let before = table.entries.len();
        table.entries.retain(|_, kept| kept.until > now);
        table.swept = now;
        let after = table.entries.len();
        // What a flood left behind is given back.
        table.entries.shrink_to(after * 2);
        free(&self.taken, u64::try_from(before - after).unwrap_or_default());
    }
}

impl Place {
    fn fill(mut self) {
        self.used = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used {
            free(&self.taken, 1);
        }
    }
}

/// Takes a digest for its own hash. The multiplication is for keys that are none.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        let first = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        self.write_u64(first);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The length of an array, which is the same for all of them.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

fn free(taken: &AtomicU64, places: u64) {
    taken.fetch_sub(places, Ordering::AcqRel);
}

// Nothing that can panic happens under these locks but the caller's `value`, and then the table is as it was.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// So many that sweeping or growing one is over in some microseconds with a million entries in all, which then fill them
/// well.
const TABLES: u64 = 1280;

/// The smallest table that there is.
const LEAST_PLACES: u64 = 4;

/// Bytes of a table besides its places: itself, and what stands around them.
const TABLE: u64 = 128;

/// How long an entry whose time is over may lie about in a table that is written to.
const SWEPT_EVERY: Duration = Duration::from_secs(10);

/// Between two sweeps of all tables for the sake of one place.
const SWEPT_AGAIN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_full_ledger_has_no_more_room_than_it_says() {
        for most in [1, 1_000, 100_000, 250_000] {
            let ledger = Ledger::<u64, u64>::new(most);
            for key in 0..most {
                ledger.put(ledger.reserve().unwrap(), key.wrapping_mul(0x9e37_79b9_7f4a_7c15), HOUR, |_| key);
            }
            let places = |table: &RwLock<Table<u64, u64>>| match read(table).entries.capacity() {
                0 => 0,
                // One in eight stays free, of the smallest tables one in all.
                few @ 1..8 => few + 1,
                many => many * 8 / 7,
            };
            let taken: usize = ledger.tables.iter().map(places).sum();
            let taken = u64::try_from(taken * (size_of::<(u64, Kept<u64>)>() + 1)).unwrap();
            let room = Ledger::<u64, u64>::room(most);
            assert!(taken <= room, "{most} take {taken} bytes, of {room}");
            assert!(most < 100_000 || room <= taken * 3, "{most} take {taken} bytes, of {room}");
        }
    }

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
        ledger.put(ledger.reserve().unwrap(), 2, HOUR, |_| ());
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
