//! What is told now, later and not at all, of something that may happen a thousand times a second.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::moment::Moment;

/// What happened lately, by what it is; with each, what is to be told of the last one.
pub struct Bursts<K, V>(HashMap<K, Burst<V>>, Option<Moment>);

struct Burst<V> {
    /// Nothing is folded before, unless there are too many.
    until: Moment,
    told: u32,
    untold: u64,
    last: V,
}

/// What is to be done about one.
#[derive(Debug, PartialEq, Eq)]
pub enum Telling {
    /// It is told at once.
    Now,
    /// It is told with others, by whoever comes back after this time.
    After(Duration),
    /// It is told by somebody who will come back already.
    WithOthers,
}

impl<K, V> Default for Bursts<K, V> {
    fn default() -> Bursts<K, V> {
        Bursts(HashMap::new(), None)
    }
}

impl<K: Hash + Eq, V> Bursts<K, V> {
    /// One more. The first `most` of a second are told at once, and the rest of it together at its end.
    pub fn one<L>(&mut self, key: &K, last: &L, most: u32, now: Moment) -> Telling
    where
        K: Clone,
        V: Borrow<L>,
        L: ToOwned<Owned = V> + PartialEq + ?Sized,
    {
        let until = now.after(BETWEEN);
        let Some(burst) = self.0.get_mut(key) else {
            self.0.insert(key.clone(), Burst { until, told: 1, untold: 0, last: last.to_owned() });
            return Telling::Now;
        };
        if burst.last.borrow() != last {
            burst.last = last.to_owned();
        }
        if burst.untold == 0 && now >= burst.until {
            (burst.until, burst.told) = (until, 1);
            return Telling::Now;
        }
        if burst.untold == 0 && burst.told < most {
            burst.told += 1;
            return Telling::Now;
        }
        burst.untold += 1;
        if burst.untold == 1 { Telling::After(burst.until.since(now)) } else { Telling::WithOthers }
    }

    /// How many have not been told, with the last of them. They count as told.
    pub fn rest(&mut self, key: &K, now: Moment) -> Option<(&V, u64)> {
        let burst = self.0.get_mut(key).filter(|burst| burst.untold > 0)?;
        // The line that tells of them is the one of the second that begins now.
        (burst.until, burst.told) = (now.after(BETWEEN), u32::MAX);
        let untold = std::mem::take(&mut burst.untold);
        Some((&burst.last, untold))
    }

    /// Everything that has not been told.
    pub fn all_the_rest(&mut self) -> impl Iterator<Item = (&K, &V, u64)> {
        let untold = self.0.iter_mut().filter(|(_, burst)| burst.untold > 0);
        untold.map(|(key, burst)| (key, &burst.last, std::mem::take(&mut burst.untold)))
    }

    /// Whether there is room for another one, or it is known. Looks for what is over at most once a second.
    pub fn have_room(&mut self, key: &K, most: usize, now: Moment) -> bool {
        if self.0.len() < most || self.0.contains_key(key) {
            return true;
        }
        if self.1.is_none_or(|swept| now >= swept) {
            self.1 = Some(now.after(BETWEEN));
            self.0.retain(|_, burst| burst.untold > 0 || now < burst.until);
        }
        self.0.len() < most
    }
}

/// Lines are counted for this long.
const BETWEEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_of_its_second_together() {
        let mut bursts = Bursts::default();
        let start = Moment::now();
        let at = |millis| start.after(Duration::from_millis(millis));
        let one = |bursts: &mut Bursts<_, _>, key: &'static str, client: u8, when| bursts.one(&key, &client, 1, when);
        assert_eq!(one(&mut bursts, "a", 1, at(0)), Telling::Now);
        assert_eq!(one(&mut bursts, "a", 1, at(400)), Telling::After(Duration::from_millis(600)));
        assert_eq!(one(&mut bursts, "a", 2, at(900)), Telling::WithOthers);
        assert_eq!(one(&mut bursts, "b", 1, at(900)), Telling::Now, "each has its own line");
        // Whoever is to come back is late: what happens meanwhile goes with the others.
        assert_eq!(one(&mut bursts, "a", 2, at(1100)), Telling::WithOthers);
        assert_eq!(bursts.rest(&"a", at(1200)), Some((&2, 3)));
        assert_eq!(bursts.rest(&"a", at(1200)), None);
        assert_eq!(one(&mut bursts, "a", 1, at(1300)), Telling::After(Duration::from_millis(900)));
        assert_eq!(bursts.rest(&"a", at(2200)), Some((&1, 1)));
        assert_eq!(one(&mut bursts, "a", 1, at(3200)), Telling::Now);
    }

    #[test]
    fn several_may_be_told_at_once_before_others_are_folded() {
        let mut bursts = Bursts::default();
        let start = Moment::now();
        let at = |millis| start.after(Duration::from_millis(millis));
        for millis in [0, 1, 2] {
            assert_eq!(bursts.one(&"a", &(), 3, at(millis)), Telling::Now);
        }
        assert_eq!(bursts.one(&"a", &(), 3, at(3)), Telling::After(Duration::from_millis(997)));
        assert_eq!(bursts.one(&"a", &(), 3, at(4)), Telling::WithOthers);
        assert_eq!(bursts.all_the_rest().map(|(key, (), count)| (*key, count)).collect::<Vec<_>>(), [("a", 2)]);
        assert_eq!(bursts.rest(&"a", at(1000)), None);
        assert_eq!(bursts.one(&"a", &(), 3, at(2000)), Telling::Now);
    }

    #[test]
    fn what_is_over_makes_room() {
        let mut bursts = Bursts::default();
        let start = Moment::now();
        bursts.one(&1, &(), 1, start);
        assert!(bursts.have_room(&1, 1, start) && !bursts.have_room(&2, 1, start));
        assert!(bursts.have_room(&2, 1, start.after(BETWEEN)));
    }
}
