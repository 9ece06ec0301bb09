//! What happened in the last minute and the last hour, for people: counts by caller, route and reason, how long things
//! took, the last refusals. Metrics are for machines that keep history; this is for whoever opens the page.
//!
//! ```text
//! sight.rs          the event of a request becomes counts
//! sight/window.rs   a ring of counts that moves with the time
//! sight/latency.rs  percentiles
//! sight/tally.rs    reasons, and examples of them
//! ```
//!
//! Pure: the clock is an argument. Its room is bounded by the config and the constants here, whatever is sent. A request
//! that is admitted costs some atomic additions; only one that is refused or fails takes a lock.

pub mod latency;
pub mod tally;
pub mod window;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use self::latency::{Latencies, Latency};
use self::tally::{Example, Named, Tally, Told};
use self::window::Window;
use crate::denial::Denial;
use crate::digits::timestamp;
use crate::event::{Decision, Event, NONE};
use crate::moment::Moment;
use crate::threads::Each;

/// What was seen by a process, over all generations of its config.
pub struct Sight {
    since: Moment,
    known: ArcSwap<Known>,
    counts: Each<Counts>,
    refused: Tally,
    failed: Tally,
    unenforced: Tally,
    turned_away: Tally,
    /// When the PAM answered last, and with which status.
    answered: AtomicU64,
    pam_failed: Mutex<Option<(u32, &'static str)>>,
}

/// What every request counts in.
struct Counts {
    all: Row,
    /// The last hour by minutes.
    hour: Window<60, 60>,
    own: Latency,
    pam: Latency,
}

/// What a config brings with it.
#[derive(Default)]
struct Known {
    callers: Rows,
    routes: Rows,
    /// When secrets were last used, by caller and id.
    keys: HashMap<Box<str>, Keys>,
}

/// The keys of a caller, by id.
type Keys = Vec<(Box<str>, Arc<Last>)>;

/// Counts by name. What has no row of its own counts in `others`.
#[derive(Default)]
struct Rows {
    rows: HashMap<Box<str>, Arc<Each<Row>>>,
    others: Arc<Each<Row>>,
}

/// Counts by what became of requests.
struct Row {
    minute: Window<5, 12>,
    hour: Window<300, 12>,
}

/// The second after that in which something happened last; 0 for never.
#[derive(Default)]
struct Last(AtomicU32);

/// A caller by its name and the ids of its keys.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct KnownCaller {
    pub name: Box<str>,
    pub keys: Vec<Box<str>>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    Admitted,
    Refused,
    Failed,
}

/// All that can be told at a moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How long it has been looked.
    pub time: Duration,
    /// Over all requests.
    pub all: Outcomes,
    /// The minutes of the last hour, the oldest first.
    pub minutes: Vec<BecameOf>,
    /// By caller, those with the most calls first; without those that were silent.
    pub callers: Vec<(Box<str>, Outcomes)>,
    /// By route, the same way.
    pub routes: Vec<(Box<str>, Outcomes)>,
    /// What was not forwarded.
    pub refused: Told,
    /// What was forwarded and came to nothing good.
    pub failed: Told,
    /// What was admitted and would have been refused if every check were enforced.
    pub unenforced: Told,
    /// What never became a request.
    pub turned_away: Told,
    /// Portcullis' own time.
    pub own: Latencies,
    /// The PAM's.
    pub pam: Latencies,
    /// How long ago the PAM answered last, and with which status.
    pub pam_answered: Option<(Duration, u16)>,
    /// How long ago an exchange with it failed last, and of what.
    pub pam_failed: Option<(Duration, &'static str)>,
    /// How long ago secrets were last used, the longest ago first; `None` since the start.
    pub keys: Vec<(Box<str>, Box<str>, Option<Duration>)>,
}

/// Counts by what became of requests, in the last minute and the last hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Outcomes {
    pub minute: BecameOf,
    pub hour: BecameOf,
}

/// How many were forwarded and answered, not forwarded, forwarded and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BecameOf {
    pub admitted: u64,
    pub refused: u64,
    pub failed: u64,
}

/// How many there were of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Lately {
    pub minute: u64,
    pub hour: u64,
}

impl Sight {
    /// Begins to look.
    pub fn new(now: Moment) -> Sight {
        Sight {
            since: now,
            known: ArcSwap::default(),
            counts: Each::default(),
            refused: Tally::default(),
            failed: Tally::default(),
            unenforced: Tally::default(),
            turned_away: Tally::default(),
            answered: AtomicU64::default(),
            pam_failed: Mutex::default(),
        }
    }

    /// Begins to tell the callers and routes of a config apart. What was counted under the same names stays.
    pub fn know(&self, callers: impl IntoIterator<Item = KnownCaller>, routes: impl IntoIterator<Item = Box<str>>) {
        let before = self.known.load();
        let callers: Vec<KnownCaller> = callers.into_iter().collect();
        let none = || std::iter::once(NONE.into());
        let keys = callers.iter().map(|caller| {
            let last = |id: &str| before.last_use(&caller.name, id).cloned().unwrap_or_default();
            (caller.name.clone(), caller.keys.iter().map(|id| (id.clone(), last(id))).collect())
        });
        self.known.store(Arc::new(Known {
            keys: keys.collect(),
            callers: before.callers.successor(none().chain(callers.iter().map(|caller| caller.name.clone()))),
            routes: before.routes.successor(none().chain(routes)),
        }));
    }

    /// Counts a request that is done.
    pub fn observe(&self, event: &Event<'_>, now: Moment) {
        let second = self.second(now);
        let became = Became::of(event);
        let known = self.known.load();
        let counts = self.counts.own();
        counts.all.add(became, second);
        counts.hour.add(became as usize, second);
        known.routes.of(&event.route).add(became, second);
        known.callers.of(&event.caller).add(became, second);
        if let Some(last) = event.key_id.as_ref().and_then(|id| known.last_use(&event.caller, id)) {
            last.set(second);
        }
        // What came to no check took no time that is worth a percentile.
        if !event.own.is_zero() {
            counts.own.add(event.own, second);
        }
        if let Some(upstream) = event.upstream {
            counts.pam.add(upstream, second);
            self.observe_pam(event, second);
        }
        match (became, event.denial) {
            (Became::Admitted, _) => {}
            (Became::Refused, denial) => self.tell(&self.refused, event, denial.map_or(NONE, Denial::reason), second),
            (Became::Failed, Some(denial)) => self.tell(&self.failed, event, denial.reason(), second),
            (Became::Failed, None) => self.tell(&self.failed, event, "pam_5xx", second),
        }
        for denial in event.would_refuse.iter() {
            self.tell(&self.unenforced, event, denial.reason(), second);
        }
    }

    /// Counts what never became a request.
    pub fn observe_turned_away(&self, reason: &'static str, now: Moment) {
        let kind = Named { caller: NONE, route: NONE, reason };
        let example = |kind| Example { kind, timestamp: String::new(), status: 0, correlation_id: String::new() };
        self.turned_away.add(kind, self.second(now), example);
    }

    /// All that can be told now.
    pub fn seen(&self, now: Moment) -> Seen {
        let second = self.second(now);
        let known = self.known.load();
        let ago = |then: u32| Duration::from_secs(second.saturating_sub(then).into());
        let mut keys: Vec<_> = Vec::new();
        for (caller, of_caller) in &known.keys {
            keys.extend(of_caller.iter().map(|(id, last)| (last.at(), caller.clone(), id.clone())));
        }
        keys.sort();
        let minutes = Window::series_of(self.counts.iter().map(|counts| &counts.hour), second);
        Seen {
            time: now.since(self.since),
            all: Row::until(self.counts.iter().map(|counts| &counts.all), second),
            minutes: minutes.iter().map(|counts| BecameOf::read(counts)).collect(),
            callers: known.callers.until(second),
            routes: known.routes.until(second),
            refused: self.refused.until(second),
            failed: self.failed.until(second),
            unenforced: self.unenforced.until(second),
            turned_away: self.turned_away.until(second),
            own: Latency::until(self.counts.iter().map(|counts| &counts.own), second),
            pam: Latency::until(self.counts.iter().map(|counts| &counts.pam), second),
            pam_answered: match self.answered.load(Ordering::Relaxed) {
                0 => None,
                packed => Some((ago((packed >> 16) as u32), packed as u16)),
            },
            pam_failed: self.pam_failure().map(|(then, reason)| (ago(then), reason)),
            keys: keys.into_iter().map(|(then, caller, id)| (caller, id, then.map(ago))).collect(),
        }
    }

    fn observe_pam(&self, event: &Event<'_>, second: u32) {
        match event.denial {
            Some(failure @ (Denial::Unsent(_) | Denial::Upstream(_) | Denial::AnswerUnreadable)) => {
                *self.pam_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((second, failure.reason()));
            }
            // The answer was in hand, but what became of it is ours; its status was another than the reply's.
            Some(_) => {}
            None => {
                // One number, so that a moment and a status belong together. Mostly it is the same as before.
                let answered = u64::from(second) << 16 | u64::from(event.status);
                if self.answered.load(Ordering::Relaxed) != answered {
                    self.answered.store(answered, Ordering::Relaxed);
                }
            }
        }
    }

    fn pam_failure(&self) -> Option<(u32, &'static str)> {
        *self.pam_failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, tally: &Tally, event: &Event<'_>, reason: &'static str, second: u32) {
        let kind = Named { caller: &event.caller, route: &event.route, reason };
        tally.add(kind, second, |kind| Example {
            kind,
            timestamp: timestamp(event.at),
            status: event.status,
            correlation_id: event.correlation_id.to_string(),
        });
    }

    fn second(&self, now: Moment) -> u32 {
        u32::try_from(now.since(self.since).as_secs()).unwrap_or(u32::MAX)
    }
}

impl Became {
    fn of(event: &Event<'_>) -> Became {
        match event.decision {
            Decision::Refused => Became::Refused,
            Decision::Admitted | Decision::Settled if event.status >= 500 => Became::Failed,
            Decision::Admitted | Decision::Settled => Became::Admitted,
        }
    }
}

impl Rows {
    fn successor(&self, named: impl Iterator<Item = Box<str>>) -> Rows {
        let kept = |name: Box<str>| {
            let row = self.rows.get(&name).map(Arc::clone).unwrap_or_default();
            (name, row)
        };
        let rows = named.take(MOST_ROWS).map(kept).collect();
        Rows { rows, others: Arc::clone(&self.others) }
    }

    fn of(&self, name: &str) -> &Row {
        self.rows.get(name).unwrap_or(&self.others).own()
    }

    fn until(&self, second: u32) -> Vec<(Box<str>, Outcomes)> {
        let named = self.rows.iter().map(|(name, rows)| (name.clone(), Row::until(rows.iter(), second)));
        let others = std::iter::once((OTHERS.into(), Row::until(self.others.iter(), second)));
        let mut all: Vec<_> = named.chain(others).filter(|(_, outcomes)| *outcomes != Outcomes::default()).collect();
        all.sort_by(|(one, few), (other, many)| {
            (many.minute.all(), many.hour.all(), one).cmp(&(few.minute.all(), few.hour.all(), other))
        });
        all
    }
}

impl Default for Counts {
    fn default() -> Counts {
        Counts { all: Row::default(), hour: Window::new(KINDS), own: Latency::default(), pam: Latency::default() }
    }
}

impl Default for Row {
    fn default() -> Row {
        Row { minute: Window::new(KINDS), hour: Window::new(KINDS) }
    }
}

impl Row {
    fn add(&self, became: Became, second: u32) {
        self.minute.add(became as usize, second);
        self.hour.add(became as usize, second);
    }

    /// What all of them have.
    fn until<'r>(rows: impl Iterator<Item = &'r Row> + Clone, second: u32) -> Outcomes {
        let minute = Window::sums_of(rows.clone().map(|row| &row.minute), second);
        let hour = Window::sums_of(rows.map(|row| &row.hour), second);
        Outcomes { minute: BecameOf::read(&minute), hour: BecameOf::read(&hour) }
    }
}

impl Known {
    fn last_use(&self, caller: &str, id: &str) -> Option<&Arc<Last>> {
        let keys = self.keys.get(caller)?;
        keys.iter().find(|(key, _)| **key == *id).map(|(_, last)| last)
    }
}

impl Last {
    fn set(&self, second: u32) {
        let now = second.saturating_add(1);
        // Hardly ever: only the first one of a second is later than the last.
        if self.0.load(Ordering::Relaxed) < now {
            self.0.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn at(&self) -> Option<u32> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

impl Outcomes {
    /// The sum of both.
    pub fn and(self, other: Outcomes) -> Outcomes {
        Outcomes { minute: self.minute.and(other.minute), hour: self.hour.and(other.hour) }
    }
}

impl BecameOf {
    fn and(self, other: BecameOf) -> BecameOf {
        BecameOf {
            admitted: self.admitted + other.admitted,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
        }
    }

    /// All together.
    pub fn all(self) -> u64 {
        self.admitted + self.refused + self.failed
    }

    fn read(counts: &[u64]) -> BecameOf {
        let of = |became: Became| counts.get(became as usize).copied().unwrap_or_default();
        BecameOf { admitted: of(Became::Admitted), refused: of(Became::Refused), failed: of(Became::Failed) }
    }
}

const KINDS: usize = 3;

/// Callers, and routes, that are told apart, the first ones of a config; all others count together.
pub const MOST_ROWS: usize = 1024;

/// Not a name that stands in a config.
const OTHERS: &str = "(others)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::FailureKind;

    fn event(caller: &str, status: u16, denial: Option<Denial>, decision: Decision) -> Event<'static> {
        let asked = decision != Decision::Refused;
        Event {
            at: std::time::UNIX_EPOCH,
            dialect: "wallet".into(),
            caller: caller.to_owned().into(),
            key_id: Some("1".into()),
            route: "debit".into(),
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            method: "POST",
            status,
            denial,
            decision,
            correlation_id: "id".into(),
            trace_id: [0; 16],
            token: None,
            would_refuse: [].as_slice().into(),
            retired: false,
            taught: false,
            total: Duration::from_millis(3),
            own: Duration::from_micros(40),
            upstream: asked.then_some(Duration::from_millis(2)),
            delivered: true,
            indices: crate::event::Indices::default(),
            sample: crate::event::EVERY,
        }
    }

    fn knowing(callers: &[&str]) -> impl Iterator<Item = KnownCaller> {
        callers.iter().map(|name| KnownCaller { name: (*name).into(), keys: vec!["1".into()] })
    }

    fn outcomes(admitted: u64, refused: u64, failed: u64) -> Outcomes {
        let became = BecameOf { admitted, refused, failed };
        Outcomes { minute: became, hour: became }
    }

    #[test]
    fn what_became_of_requests_is_told_by_caller_and_route() {
        let start = Moment::now();
        let sight = Sight::new(start);
        sight.know(knowing(&["a", "b"]), ["debit".into()]);
        let now = start.after(Duration::from_secs(100));
        sight.observe(&event("a", 200, None, Decision::Admitted), now);
        sight.observe(&event("a", 401, Some(Denial::SignatureWrong), Decision::Refused), now);
        sight.observe(&event("b", 502, Some(Denial::Upstream(FailureKind::Closed)), Decision::Admitted), now);
        sight.observe(&event("b", 500, None, Decision::Settled), now);
        sight.observe(&event("stranger", 404, Some(Denial::NoRoute), Decision::Refused), now);
        let seen = sight.seen(now.after(Duration::from_secs(7)));
        assert_eq!(seen.all, outcomes(1, 2, 2));
        let named = |name: &str| seen.callers.iter().find(|(other, _)| **other == *name).map(|(_, found)| *found);
        assert_eq!(named("a"), Some(outcomes(1, 1, 0)));
        assert_eq!(named("b"), Some(outcomes(0, 0, 2)));
        assert_eq!((named(OTHERS), named("stranger")), (Some(outcomes(0, 1, 0)), None));
        assert_eq!(seen.routes, [("debit".into(), outcomes(1, 2, 2))]);
        let reasons = |told: &Told| told.reasons.iter().map(|(reason, _)| *reason).collect::<Vec<_>>();
        assert_eq!(reasons(&seen.refused), ["no_route", "signature_wrong"]);
        assert_eq!(reasons(&seen.failed), ["closed", "pam_5xx"]);
        let ago = Duration::from_secs(7);
        assert_eq!((seen.pam_answered, seen.pam_failed), (Some((ago, 500)), Some((ago, "closed"))));
        assert_eq!(seen.minutes.iter().map(|became| became.all()).sum::<u64>(), 5);
        assert!(seen.own.minute.is_some() && seen.pam.minute.is_some());

        let later = sight.seen(now.after(Duration::from_secs(61)));
        assert_eq!((later.all.minute, later.all.hour), (BecameOf::default(), outcomes(1, 2, 2).hour));
        let much_later = sight.seen(now.after(Duration::from_secs(3700)));
        assert_eq!((much_later.all, much_later.callers.len()), (Outcomes::default(), 0));
    }

    #[test]
    fn a_reload_keeps_what_is_still_there_and_sums_the_rest() {
        let start = Moment::now();
        let sight = Sight::new(start);
        sight.know(knowing(&["a", "b"]), ["debit".into()]);
        for caller in ["a", "b"] {
            sight.observe(&event(caller, 200, None, Decision::Admitted), start);
        }
        sight.know(knowing(&["b", "c"]), ["debit".into()]);
        // A request that began before the reload.
        sight.observe(&event("a", 200, None, Decision::Admitted), start);
        let seen = sight.seen(start);
        let callers: Vec<_> = seen.callers.iter().map(|(name, outcomes)| (&**name, outcomes.minute.admitted)).collect();
        assert_eq!(callers, [(OTHERS, 1), ("b", 1)]);
        let keys: Vec<_> = seen.keys.iter().map(|(caller, _, last)| (&**caller, last.is_some())).collect();
        assert_eq!(keys, [("c", false), ("b", true)]);
    }

    #[test]
    fn more_callers_than_there_are_rows_count_together() {
        let start = Moment::now();
        let sight = Sight::new(start);
        let names: Vec<String> = (0..3 * MOST_ROWS).map(|one| format!("caller-{one}")).collect();
        let callers = || names.iter().map(|name| KnownCaller { name: name.as_str().into(), keys: vec![] });
        sight.know(callers(), ["debit".into()]);
        for name in &names {
            sight.observe(&event(name, 200, None, Decision::Admitted), start);
        }
        let seen = sight.seen(start);
        assert_eq!(seen.callers.len(), MOST_ROWS);
        assert_eq!((&*seen.callers[0].0, seen.callers[0].1.minute.admitted), (OTHERS, 2 * MOST_ROWS as u64 + 1));
    }

    #[test]
    fn what_is_not_enforced_is_told_apart() {
        let start = Moment::now();
        let sight = Sight::new(start);
        let admitted = event("a", 200, None, Decision::Admitted);
        sight.observe(&Event { would_refuse: vec![Denial::Stale].into(), ..admitted }, start);
        let seen = sight.seen(start);
        assert_eq!(seen.refused, Told::default());
        assert_eq!(seen.unenforced.last[0].kind.reason, "stale");
    }
}
