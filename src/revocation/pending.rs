//! What this replica has to say and has not read in the log yet, in the order in which it came up.
//!
//! The order matters: a token that was pardoned and ended anew must not come into the log the other way round.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::news::What;
use super::record::{Fate, Record};
use super::store::Fault;
use crate::token::TokenDigest;

/// What is not known to stand in the log. Everything in it has a number; numbers grow.
pub struct Pending {
    /// Added to a number, it gives an id that no other replica has.
    base: u64,
    next: u64,
    queue: BTreeMap<u64, Waiting>,
    /// The number of the latest record of each token.
    latest: HashMap<TokenDigest, u64>,
}

/// Something to be said.
pub struct Waiting {
    /// What.
    pub what: What,
    /// Since when.
    pub made: Instant,
    /// It stood in the log before, which lost it. Another replica may have said so already.
    again: bool,
    /// Who waits for it to be taken.
    told: Option<oneshot::Sender<Result<(), Fault>>>,
}

/// What was pending of an entry that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// It is another replica's.
    No,
    /// It is ours, and the last that is to be said of its token.
    Last,
    /// It is ours, and there is more to be said of its token.
    Overtaken,
}

impl Pending {
    /// `base` must be random.
    pub fn new(base: u64) -> Pending {
        Pending { base, next: 0, queue: BTreeMap::new(), latest: HashMap::new() }
    }

    /// Adds something new; the receiver is told when the log has taken it, or why it does not.
    pub fn add(&mut self, what: What) -> oneshot::Receiver<Result<(), Fault>> {
        let (told, telling) = oneshot::channel();
        self.push(Waiting { what, made: Instant::now(), again: false, told: Some(told) });
        telling
    }

    /// Adds what the log has lost, made `age` ago, unless it is pending already.
    pub fn add_again(&mut self, what: What, age: Duration) {
        if let What::Fate(record) = &what
            && let Some(pending) = self.record_of(&record.token)
            && is_end(pending) == is_end(record)
        {
            return;
        }
        let now = Instant::now();
        let made = now.checked_sub(age).unwrap_or(now);
        self.push(Waiting { what, made, again: true, told: None });
    }

    fn push(&mut self, waiting: Waiting) {
        if let What::Fate(record) = &waiting.what {
            self.latest.insert(record.token, self.next);
        }
        self.queue.insert(self.next, waiting);
        self.next += 1;
    }

    /// What comes from a number on, at most `most`, with the numbers. What is over is left out and forgotten.
    pub fn from(&mut self, number: u64, most: usize) -> Vec<(u64, &Waiting)> {
        let is_over = |waiting: &Waiting| match &waiting.what {
            What::Fate(Record { left, .. }) | What::Key(_, left) => waiting.made.elapsed() > *left,
        };
        let next =
            |queue: &BTreeMap<u64, Waiting>| queue.range(number..).next().map(|(number, one)| (*number, is_over(one)));
        while let Some((number, true)) = next(&self.queue) {
            self.remove(number);
        }
        self.queue.range(number..).take(most).map(|(number, waiting)| (*number, waiting)).collect()
    }

    /// The id by which others know what has a number.
    pub fn id(&self, number: u64) -> u64 {
        self.base.wrapping_add(number)
    }

    /// The log has taken what has this number.
    pub fn taken(&mut self, number: u64) {
        if let Some(told) = self.queue.get_mut(&number).and_then(|waiting| waiting.told.take()) {
            // Who waited too long has gone.
            let _ = told.send(Ok(()));
        }
    }

    /// The log takes nothing at present; whoever waits need not wait any longer.
    pub fn refused(&mut self, why: &Fault) {
        for told in self.queue.values_mut().filter_map(|waiting| waiting.told.take()) {
            let _ = told.send(Err(why.clone()));
        }
    }

    /// An entry was read. If it is one of ours, it stands in the log and is pending no more.
    pub fn read(&mut self, id: u64, what: &What) -> Own {
        let number = id.wrapping_sub(self.base);
        // It may be seen before its taking has been acknowledged.
        self.taken(number);
        let own = match self.remove(number) {
            None => Own::No,
            Some(What::Key(..)) => Own::Last,
            Some(What::Fate(record)) => match self.latest.contains_key(&record.token) {
                true => Own::Overtaken,
                false => Own::Last,
            },
        };
        if let (Own::No, What::Fate(record)) = (own, what)
            && let Some(number) = self.latest.get(&record.token).copied()
            && let Some(Waiting { what: What::Fate(pending), again: true, .. }) = self.queue.get(&number)
            && is_end(pending) == is_end(record)
        {
            // Another replica knew it as well, and was faster.
            self.remove(number);
        }
        own
    }

    /// How long ago the end of this token was made that is still to be said; `None` if none is.
    pub fn end_of(&self, token: &TokenDigest) -> Option<Duration> {
        let waiting = self.queue.get(self.latest.get(token)?)?;
        match &waiting.what {
            What::Fate(record) => is_end(record).then(|| waiting.made.elapsed()),
            What::Key(..) => None,
        }
    }

    /// The lowest number of all.
    pub fn first(&self) -> Option<u64> {
        self.queue.keys().next().copied()
    }

    /// How many records are pending.
    pub fn count(&self) -> usize {
        self.queue.values().filter(|waiting| matches!(waiting.what, What::Fate(_))).count()
    }

    fn record_of(&self, token: &TokenDigest) -> Option<&Record> {
        match &self.queue.get(self.latest.get(token)?)?.what {
            What::Fate(record) => Some(record),
            What::Key(..) => None,
        }
    }

    fn remove(&mut self, number: u64) -> Option<What> {
        let waiting = self.queue.remove(&number)?;
        if let What::Fate(record) = &waiting.what
            && self.latest.get(&record.token) == Some(&number)
        {
            self.latest.remove(&record.token);
        }
        Some(waiting.what)
    }
}

fn is_end(record: &Record) -> bool {
    match record.fate {
        Fate::Ended { .. } => true,
        Fate::Pardoned => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn end(token: u8) -> What {
        What::Fate(Record::ended(TokenDigest::from_bytes([token; 16]), Duration::ZERO, HOUR))
    }

    fn pardon(token: u8) -> What {
        What::Fate(Record { token: TokenDigest::from_bytes([token; 16]), fate: Fate::Pardoned, left: HOUR })
    }

    fn numbers(pending: &mut Pending, from: u64, most: usize) -> Vec<u64> {
        pending.from(from, most).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn what_came_up_first_is_said_first_until_it_is_read() {
        let mut pending = Pending::new(u64::MAX);
        for what in [pardon(1), end(1), end(2)] {
            drop(pending.add(what));
        }
        assert_eq!(numbers(&mut pending, 0, 9), [0, 1, 2]);
        assert_eq!(numbers(&mut pending, 1, 1), [1]);
        assert_eq!([0, 1, 2].map(|number| pending.id(number)), [u64::MAX, 0, 1]);
        pending.taken(0);
        assert_eq!(pending.first(), Some(0), "taken is not read");
        assert_eq!(pending.read(u64::MAX, &pardon(1)), Own::Overtaken);
        assert_eq!(pending.read(0, &end(1)), Own::Last);
        assert_eq!(pending.read(0, &end(1)), Own::No, "once");
        assert_eq!((pending.first(), pending.count()), (Some(2), 1));
    }

    #[test]
    fn who_waits_is_told() {
        let mut pending = Pending::new(7);
        let (mut one, mut other) = (pending.add(end(1)), pending.add(end(2)));
        let mut third = pending.add(end(3));
        pending.taken(0);
        assert!(one.try_recv().unwrap().is_ok());
        assert_eq!(pending.read(9, &end(3)), Own::Last);
        assert!(third.try_recv().unwrap().is_ok(), "what can be read was taken");
        assert!(other.try_recv().is_err());
        pending.refused(&Fault::from("full"));
        assert_eq!(other.try_recv().unwrap().unwrap_err().to_string(), "full");
        assert_eq!(pending.count(), 2, "both are still to be read");
    }

    #[test]
    fn what_the_log_lost_is_said_again_by_one_replica() {
        let mut pending = Pending::new(7);
        drop(pending.add(end(1)));
        pending.add_again(end(1), HOUR);
        assert_eq!(pending.count(), 1, "it is pending already");
        pending.add_again(end(2), Duration::ZERO);
        pending.add_again(pardon(3), Duration::ZERO);
        let end_of = |token| pending.end_of(&TokenDigest::from_bytes([token; 16]));
        assert!(end_of(1).is_some() && end_of(2).is_some() && end_of(3).is_none() && end_of(4).is_none());
        // Another replica says so as well; what it says otherwise, or of what is new here, changes nothing.
        for (what, left) in [(end(3), 3), (end(2), 2), (pardon(3), 1), (end(1), 1)] {
            assert_eq!(pending.read(1_000_000, &what), Own::No);
            assert_eq!(pending.count(), left, "{what:?}");
        }
    }

    #[test]
    fn what_is_over_is_not_said_any_more() {
        let mut pending = Pending::new(7);
        let over = What::Fate(Record::ended(TokenDigest::from_bytes([1; 16]), Duration::ZERO, Duration::ZERO));
        drop(pending.add(over));
        drop(pending.add(end(2)));
        while numbers(&mut pending, 0, 9) != [1] {}
        assert_eq!(pending.first(), Some(1));
    }
}
