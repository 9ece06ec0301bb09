//! Counts of what happened lately: a ring of slots, each for a stretch of time, that are taken again when they are old.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often things of some kinds happened in a window of time that moves on.
///
/// It has `LENGTH` slots of `WIDTH` seconds, which are known to the compiler: to divide by something else is dear.
///
/// A count and the stretch of time it is of are one number, so that adding is one exchange: nobody waits, nothing is
/// counted twice, and nothing that is old is counted as new.
pub struct Window<const WIDTH: u32, const LENGTH: u32> {
    kinds: usize,
    /// All kinds of one slot, then all of the next.
    counts: Box<[AtomicU64]>,
}

impl<const WIDTH: u32, const LENGTH: u32> Window<WIDTH, LENGTH> {
    /// For so many kinds.
    pub fn new(kinds: usize) -> Window<WIDTH, LENGTH> {
        const { assert!(WIDTH > 0 && LENGTH > 0) };
        let counts = std::iter::repeat_with(AtomicU64::default).take(LENGTH as usize * kinds).collect();
        Window { kinds, counts }
    }

    /// Counts one of a kind that happened at a second.
    pub fn add(&self, kind: usize, second: u32) {
        let stretch = Self::stretch(second);
        let Some(count) = self.slot(stretch).get(kind) else { return };
        let (of, counted) = unpacked(count.load(Ordering::Relaxed));
        if of >= stretch && counted < ENOUGH {
            // Nearly always: one addition that cannot reach the other half. Should the slot be taken again in between, it
            // counts there.
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let one_more = |packed: u64| {
            let (of, counted) = unpacked(packed);
            // A thread that was held up counts in the stretch that has begun meanwhile.
            Some(if of < stretch { packed_of(stretch, 1) } else { packed_of(of, counted.saturating_add(1)) })
        };
        // It always gives a number, so it always succeeds.
        let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    /// How many there were of each kind in the window that ends at a second.
    pub fn sums(&self, second: u32) -> Vec<u64> {
        self.series(second).into_iter().reduce(added).unwrap_or_default()
    }

    /// The same in several windows together.
    pub fn sums_of<'w>(windows: impl Iterator<Item = &'w Self>, second: u32) -> Vec<u64> {
        windows.map(|window| window.sums(second)).reduce(added).unwrap_or_default()
    }

    /// How many there were of each kind in each slot of several windows together, the oldest first.
    pub fn series_of<'w>(windows: impl Iterator<Item = &'w Self>, second: u32) -> Vec<Vec<u64>> {
        let both =
            |one: Vec<Vec<u64>>, other| one.into_iter().zip::<Vec<Vec<u64>>>(other).map(|(a, b)| added(a, b)).collect();
        windows.map(|window| window.series(second)).reduce(both).unwrap_or_default()
    }

    /// How many there were of each kind in each slot of the window that ends at a second, the oldest first.
    pub fn series(&self, second: u32) -> Vec<Vec<u64>> {
        let last = Self::stretch(second);
        let of = |stretch: u32| {
            let counts = self.slot(stretch).iter().map(|count| unpacked(count.load(Ordering::Relaxed)));
            counts.map(|(of, counted)| if of == stretch { u64::from(counted) } else { 0 }).collect()
        };
        // Before the first stretch nothing happened.
        let behind = (0..LENGTH).rev().map(|back| last.checked_sub(back).filter(|stretch| *stretch > 0));
        behind.map(|stretch| stretch.map_or_else(|| vec![0; self.kinds], of)).collect()
    }

    /// The number of a stretch of time, from 1: a slot with 0 was never used.
    fn stretch(second: u32) -> u32 {
        (second / WIDTH).saturating_add(1)
    }

    fn slot(&self, stretch: u32) -> &[AtomicU64] {
        let at = (stretch % LENGTH) as usize * self.kinds;
        self.counts.get(at..at + self.kinds).unwrap_or_default()
    }
}

fn added(mut sums: Vec<u64>, more: Vec<u64>) -> Vec<u64> {
    sums.iter_mut().zip(more).for_each(|(sum, count)| *sum += count);
    sums
}

/// As far below the end as there are never threads that add at the same time.
const ENOUGH: u32 = u32::MAX - (1 << 20);

fn packed_of(stretch: u32, counted: u32) -> u64 {
    u64::from(stretch) << 32 | u64::from(counted)
}

fn unpacked(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_not_counted_any_more() {
        let window = Window::<5, 12>::new(2);
        for second in [0, 4, 5, 59] {
            window.add(0, second);
        }
        window.add(1, 30);
        for (second, sums) in
            [(59, [4, 1]), (60, [2, 1]), (64, [2, 1]), (65, [1, 1]), (90, [1, 0]), (114, [1, 0]), (115, [0, 0])]
        {
            assert_eq!(window.sums(second), sums, "{second}");
        }
        assert_eq!(window.sums(u32::MAX), [0, 0]);
    }

    #[test]
    fn a_slot_is_taken_again_when_it_is_old() {
        let window = Window::<1, 3>::new(1);
        for second in 0..100 {
            window.add(0, second);
            window.add(0, second);
        }
        assert_eq!(window.series(99), [[2], [2], [2]]);
        assert_eq!(window.series(100), [[2], [2], [0]]);
        assert_eq!(window.series(103), [[0], [0], [0]]);
    }

    #[test]
    fn at_the_beginning_the_window_is_empty_and_the_oldest_stands_first() {
        let window = Window::<1, 3>::new(1);
        assert_eq!(window.series(0), [[0], [0], [0]]);
        window.add(0, 0);
        assert_eq!(window.series(0), [[0], [0], [1]]);
        assert_eq!(window.series(1), [[0], [1], [0]]);
    }

    #[test]
    fn who_comes_late_is_counted_and_takes_nothing_away() {
        let window = Window::<1, 2>::new(1);
        window.add(0, 10);
        window.add(0, 8);
        assert_eq!(window.sums(10), [2]);
    }

    #[test]
    fn a_kind_that_does_not_exist_counts_nowhere() {
        let window = Window::<1, 2>::new(1);
        window.add(1, 0);
        assert_eq!(window.sums(0), [0]);
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let window = Window::<1, 4>::new(1);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..4000).for_each(|one| window.add(0, one / 1000)));
            }
        });
        assert_eq!(window.sums(3), [16000]);
    }
}
