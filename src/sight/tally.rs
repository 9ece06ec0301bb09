//! What was refused lately, or failed, or would have been refused: how often, by what, and an example of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::{Equivalent, HashMap};

use super::Lately;
use super::window::Window;

/// Remembers what happened for a reason, in a bounded room.
#[derive(Default)]
pub struct Tally(Mutex<Counted>);

/// Something that happened for a reason, as it may be shown to people: nothing here is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Example {
    pub kind: Kind,
    pub timestamp: String,
    pub status: u16,
    pub correlation_id: String,
}

/// By what it is told apart: names of the config, and words of closed sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Kind {
    pub caller: Box<str>,
    pub route: Box<str>,
    pub reason: &'static str,
}

/// A [`Kind`] by names that are borrowed: nearly always it is known already.
#[derive(Clone, Copy, Hash)]
#[allow(missing_docs)]
pub struct Named<'n> {
    pub caller: &'n str,
    pub route: &'n str,
    pub reason: &'static str,
}

impl Equivalent<Kind> for Named<'_> {
    fn equivalent(&self, kind: &Kind) -> bool {
        *self.caller == *kind.caller && *self.route == *kind.route && *self.reason == *kind.reason
    }
}

impl From<Named<'_>> for Kind {
    fn from(named: Named<'_>) -> Kind {
        Kind { caller: named.caller.into(), route: named.route.into(), reason: named.reason }
    }
}

/// What has been counted, the most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// By reason alone.
    pub reasons: Vec<(&'static str, Lately)>,
    /// By caller, route and reason.
    pub kinds: Vec<(Kind, Lately)>,
    /// How many there were since the start that no kind was left for.
    pub unkept: u64,
    /// The last ones, the newest first; of a kind at most one for each second.
    pub last: Vec<Example>,
}

#[derive(Default)]
struct Counted {
    reasons: BTreeMap<&'static str, Recent>,
    kinds: HashMap<Kind, Recent>,
    unkept: u64,
    last: VecDeque<Example>,
}

/// Counts of the last minute and the last hour, and when there was one last.
struct Recent {
    minute: Window<5, 12>,
    hour: Window<300, 12>,
    last: Option<u32>,
}

impl Recent {
    fn new() -> Recent {
        Recent { minute: Window::new(1), hour: Window::new(1), last: None }
    }

    /// True for the first one of a second.
    fn add(&mut self, second: u32) -> bool {
        self.minute.add(0, second);
        self.hour.add(0, second);
        self.last.replace(second) != Some(second)
    }

    fn until(&self, second: u32) -> Lately {
        let sum = |counts: Vec<u64>| counts.into_iter().sum();
        Lately { minute: sum(self.minute.sums(second)), hour: sum(self.hour.sums(second)) }
    }

    fn is_past(&self, second: u32) -> bool {
        self.last.is_none_or(|last| second.saturating_sub(last) > 3600)
    }
}

impl Tally {
    /// Counts one that happened at a second; `example` tells of it, if it is worth telling.
    pub fn add(&self, kind: Named<'_>, second: u32, example: impl FnOnce(Kind) -> Example) {
        let mut counted = self.counted();
        counted.reasons.entry(kind.reason).or_insert_with(Recent::new).add(second);
        let known = counted.kinds.get_mut(&kind).map(|recent| recent.add(second));
        let first = match known {
            Some(first) => first,
            None if counted.has_room(second) => {
                let mut recent = Recent::new();
                recent.add(second);
                counted.kinds.insert(kind.into(), recent);
                true
            }
            None => {
                counted.unkept += 1;
                return;
            }
        };
        // A flood of one kind must not wash away what else there was.
        if first {
            if counted.last.len() == MOST_EXAMPLES {
                counted.last.pop_front();
            }
            counted.last.push_back(example(kind.into()));
        }
    }

    /// What there was in the time up to a second.
    pub fn until(&self, second: u32) -> Told {
        let counted = self.counted();
        let reasons = counted.reasons.iter().map(|(reason, recent)| (*reason, recent.until(second)));
        let kinds = counted.kinds.iter().map(|(kind, recent)| (kind.clone(), recent.until(second)));
        Told {
            reasons: ordered(reasons),
            kinds: ordered(kinds),
            unkept: counted.unkept,
            last: counted.last.iter().rev().cloned().collect(),
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // Counts that are one short after a panic elsewhere are still worth showing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// Makes room where it can, by forgetting a kind of which there was none for an hour.
    fn has_room(&mut self, second: u32) -> bool {
        if self.kinds.len() < MOST_KINDS {
            return true;
        }
        let past = self.kinds.iter().find(|(_, recent)| recent.is_past(second)).map(|(kind, _)| kind.clone());
        past.is_some_and(|past| self.kinds.remove(&past).is_some())
    }
}

/// Only those that there were in the last hour.
fn ordered<K: Ord>(counted: impl Iterator<Item = (K, Lately)>) -> Vec<(K, Lately)> {
    let mut all: Vec<_> = counted.filter(|(_, lately)| *lately != Lately::default()).collect();
    all.sort_by(|(one, few), (other, many)| (many.minute, many.hour, one).cmp(&(few.minute, few.hour, other)));
    all
}

/// Kinds told apart. The names are the config's, so there are that many only where a config has many callers.
pub const MOST_KINDS: usize = 512;

/// Examples kept.
pub const MOST_EXAMPLES: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<'n>(caller: &'n str, reason: &'static str) -> Named<'n> {
        Named { caller, route: "debit", reason }
    }

    fn add(tally: &Tally, kind: Named<'_>, second: u32) {
        let example =
            |kind| Example { kind, timestamp: second.to_string(), status: 401, correlation_id: String::new() };
        tally.add(kind, second, example);
    }

    #[test]
    fn the_most_frequent_stands_first_and_what_is_past_is_gone() {
        let tally = Tally::default();
        add(&tally, kind("a", "stale"), 0);
        for _ in 0..3 {
            add(&tally, kind("b", "stale"), 100);
        }
        add(&tally, kind("b", "early"), 100);
        let told = tally.until(100);
        assert_eq!(told.reasons, [("stale", Lately { minute: 3, hour: 4 }), ("early", Lately { minute: 1, hour: 1 })]);
        let kinds: Vec<_> = told.kinds.iter().map(|(kind, lately)| (&*kind.caller, kind.reason, lately.hour)).collect();
        assert_eq!(kinds, [("b", "stale", 3), ("b", "early", 1), ("a", "stale", 1)]);
        assert_eq!(tally.until(4000).kinds, []);
    }

    #[test]
    fn a_flood_of_one_kind_leaves_the_examples_of_others() {
        let tally = Tally::default();
        add(&tally, kind("a", "early"), 7);
        for _ in 0..1000 {
            add(&tally, kind("b", "stale"), 8);
        }
        let examples = tally.until(8).last;
        assert_eq!(examples.iter().map(|example| example.kind.reason).collect::<Vec<_>>(), ["stale", "early"]);
        (0..1000).for_each(|second| add(&tally, kind("b", "stale"), second));
        let examples = tally.until(1000).last;
        assert_eq!((examples.len(), examples[0].timestamp.as_str()), (MOST_EXAMPLES, "999"));
    }

    #[test]
    fn it_keeps_no_more_kinds_than_there_is_room_for_and_says_so() {
        let tally = Tally::default();
        for caller in 0..MOST_KINDS + 3 {
            add(&tally, kind(&caller.to_string(), "stale"), 0);
        }
        let told = tally.until(0);
        assert_eq!((told.kinds.len(), told.unkept), (MOST_KINDS, 3));
        assert_eq!(told.reasons[0].1.minute, MOST_KINDS as u64 + 3);
        // An hour later there is room again.
        add(&tally, kind("new", "stale"), 3700);
        let told = tally.until(3700);
        assert_eq!((told.kinds.len(), told.unkept), (1, 3));
    }
}
