//! What Prometheus scrapes. Labels come from the config and from closed sets, never from a request.
//!
//! ```text
//! metrics/catalogue   every metric: name, type, labels, meaning, and what to do about it   ← start here
//! metrics/cells       what is counted in
//! metrics/traffic     counts by the names of a config, which outlive it
//! metrics/secrets     how often and when each secret was used
//! metrics/decisions   counts by check and reason
//! metrics/exchanges   counts of exchanges that failed
//! metrics/vitals      what the kernel knows of this process
//! metrics/exposition  the page
//! metrics/reference   config/metrics.md, made from the catalogue
//! ```

pub mod catalogue;
pub mod cells;
mod decisions;
mod exchanges;
pub mod exposition;
pub mod reference;
mod secrets;
mod traffic;
mod vitals;

use std::sync::Arc;

use self::catalogue as all;
use self::cells::{Counter, Distribution, Gauge, Histogram};
use self::decisions::{REPLAYS, Reasons};
use self::exchanges::Exchanges;
use self::exposition::Exposition;
pub use self::traffic::Traffic;
use self::traffic::{Generations, STATUSES};
use self::vitals::Vitals;
use crate::admin::order::Call;
use crate::credential::Callers;
use crate::denial::{Check, Denial};
use crate::dialect::Dialect;
use crate::event::{Decision, Event};
use crate::proxy::{HandshakeFault, Refused};
use crate::revocation::feed::Condition;
use crate::span;
use crate::threads::Each;
use crate::tls::Expiry;
use crate::upstream::{Counts, End};

/// All metrics of a process, over all generations of its config.
pub struct Metrics {
    generations: Generations,
    often: Each<Often>,
    settled: Counter,
    refusals: Reasons,
    /// What was let pass, and would have been refused.
    watched: Reasons,
    exchanges: Exchanges,
    undelivered: Counter,
    spans: span::Counts,
    /// Requests that met a fault of ours.
    pub panics: Counter,
    /// Connections from callers.
    pub connections: Gauge,
    /// Connections to the PAM.
    pub upstream_connections: Arc<Counts>,
    unserved: Vec<(Refused, Counter)>,
    handshakes: Vec<(HandshakeFault, Counter)>,
    ended_by_answer: Counter,
    ended_by_operator: Counter,
    presumptions: Counter,
    admin_calls: Vec<(Call, Outcome, Counter)>,
}

/// What nearly every request counts in.
#[derive(Default)]
struct Often {
    /// Requests being served. A thread may see the end of those that another has begun: only the sum means anything.
    in_flight: Gauge,
    admitted: Counter,
    own: Histogram,
    upstream: Histogram,
}

/// What is not counted as it happens, but looked up when somebody asks.
pub struct Levels {
    /// Requests that are with the PAM.
    pub upstream_in_flight: u64,
    /// Tokens recorded as ended.
    pub revocations: u64,
    /// How many can be.
    pub revocation_capacity: u64,
    /// Tokens presumed to have ended.
    pub presumed: u64,
    /// The journal cannot be written.
    pub journal_failing: bool,
    /// How following the other replicas goes; all zero for a replica that is alone.
    pub sharing: Condition,
    /// Tokens whose first sighting is remembered.
    pub sightings: u64,
    /// Sightings there was no place for.
    pub sightings_missed: u64,
    /// Signed messages remembered.
    pub replays: u64,
    /// Pairs of a claimed caller and an address that have failed too often.
    pub locked_out: u64,
    /// When certificates expire.
    pub expiries: Vec<Expiry>,
    /// Files with certificates are of no use as they are, and older ones are in use.
    pub certificates_stale: bool,
    /// Checks that let pass what fails them, somewhere.
    pub unenforced: Vec<Check>,
    /// The config in use.
    pub config: ConfigLevels,
    /// Log lines dropped.
    pub log_dropped: u64,
    /// Lines that sampling left out, and those that stand in a line for many.
    pub log_left_out: (u64, u64),
    /// Passwords being verified, and waiting.
    pub passwords: (usize, usize),
    /// Connections to the PAM that are there, over HTTP/1.1 and HTTP/2.
    pub pooled: [usize; 2],
}

/// Which config is in use.
#[derive(Clone, Copy, Debug)]
pub struct ConfigLevels {
    /// Its generation, from 1.
    pub generation: u64,
    /// When it came into use, in seconds since 1970.
    pub since: i64,
    /// A newer one was refused.
    pub rejected: bool,
}

/// What became of an operator's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with 200.
    Done,
    /// It did not prove that an operator makes it.
    Unauthenticated,
    /// It is not one that can be carried out.
    Malformed,
    /// Nothing can be recorded now.
    Unavailable,
    /// It counts in this process, but what outlives it has not taken it.
    Unwritten,
}

impl Outcome {
    const ALL: [Outcome; 5] =
        [Outcome::Done, Outcome::Unauthenticated, Outcome::Malformed, Outcome::Unavailable, Outcome::Unwritten];

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Unauthenticated => "unauthenticated",
            Outcome::Malformed => "malformed",
            Outcome::Unavailable => "unavailable",
            Outcome::Unwritten => "unwritten",
        }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let unserved = Refused::without_handshakes().map(|refused| (refused, Counter::default()));
        let calls = Call::ALL.into_iter().flat_map(|call| Outcome::ALL.map(|outcome| (call, outcome)));
        Metrics {
            generations: Generations::default(),
            often: Each::default(),
            settled: Counter::default(),
            refusals: Reasons::all(),
            watched: Reasons::all(),
            exchanges: Exchanges::all(),
            undelivered: Counter::default(),
            spans: span::Counts::default(),
            panics: Counter::default(),
            connections: Gauge::default(),
            upstream_connections: Arc::default(),
            unserved: unserved.collect(),
            handshakes: HandshakeFault::ALL.map(|fault| (fault, Counter::default())).into(),
            ended_by_answer: Counter::default(),
            ended_by_operator: Counter::default(),
            presumptions: Counter::default(),
            admin_calls: calls.map(|(call, outcome)| (call, outcome, Counter::default())).collect(),
        }
    }
}

impl Metrics {
    /// Begins to show what a config brings with it, from zero, and gives what its requests count in.
    pub fn know(&self, dialect: &Dialect, callers: &Callers) -> Arc<Traffic> {
        self.generations.begin(dialect, callers)
    }

    /// What becomes of spans, for whoever hands them over.
    pub fn spans(&self) -> span::Counts {
        self.spans.clone()
    }

    /// Counts what never became a request.
    pub fn count_refused(&self, refused: Refused) {
        let unserved = self.unserved.iter().find(|(one, _)| one.reason() == refused.reason()).map(|(_, count)| count);
        let handshake = match refused {
            Refused::Handshake(fault) => self.handshakes.iter().find(|(one, _)| *one == fault).map(|(_, count)| count),
            Refused::Full(_) | Refused::Announcement(_) | Refused::Silent | Refused::HeadCut | Refused::Http2(_) => {
                None
            }
        };
        if let Some(count) = handshake.or(unserved) {
            count.inc();
        }
    }

    /// A request has come.
    pub fn begin(&self) {
        self.often.own().in_flight.inc();
    }

    /// Requests being served.
    pub fn in_flight(&self) -> i64 {
        self.often.iter().map(|often| often.in_flight.value()).sum()
    }

    /// Counts a request that is done, in what its config counts in.
    pub fn count(&self, traffic: &Traffic, event: &Event<'_>) {
        traffic.count(event);
        let often = self.often.own();
        often.in_flight.dec();
        often.own.observe(event.own);
        if let Some(upstream) = event.upstream {
            often.upstream.observe(upstream);
        }
        match (event.decision, event.denial) {
            (Decision::Refused, Some(denial)) => self.refusals.count(denial),
            (Decision::Settled, _) => self.settled.inc(),
            (Decision::Admitted | Decision::Refused, _) => often.admitted.inc(),
        }
        if let (Decision::Admitted | Decision::Settled, Some(denial)) = (event.decision, event.denial) {
            self.exchanges.count(denial);
        }
        event.would_refuse.iter().for_each(|denial| self.watched.count(*denial));
        if event.retired {
            self.ended_by_answer.inc();
        }
        if event.taught {
            self.presumptions.inc();
        }
        if !event.delivered {
            self.undelivered.inc();
        }
    }

    /// Counts tokens that an operator ended.
    pub fn count_ended_by_operator(&self, tokens: u64) {
        self.ended_by_operator.add(tokens);
    }

    /// Counts a call of an operator.
    pub fn count_admin_call(&self, call: Call, outcome: Outcome) {
        let same = |(one, other, _): &&(Call, Outcome, Counter)| (*one, *other) == (call, outcome);
        if let Some((_, _, count)) = self.admin_calls.iter().find(same) {
            count.inc();
        }
    }

    /// The exposition text, with the levels as they are now.
    pub fn text(&self, levels: Levels) -> Vec<u8> {
        let mut page = Exposition::default();
        let traffic = self.show_traffic(&mut page);
        self.show_decisions(&mut page);
        page.one(&all::IN_FLIGHT, self.in_flight());
        page.one(&all::UPSTREAM_IN_FLIGHT, levels.upstream_in_flight);
        let mut passwords = page.family(&all::PASSWORDS);
        passwords.sample(&["running"], levels.passwords.0);
        passwords.sample(&["waiting"], levels.passwords.1);
        self.show_exchanges(&mut page, levels.pooled);
        self.show_connections(&mut page, &levels);
        if let Some(traffic) = traffic {
            show_secrets(&mut page, &traffic);
        }
        self.show_revocations(&mut page, &levels);
        page.one(&all::REPLAYS, levels.replays);
        let mut replays = page.family(&all::REPLAYS_REFUSED);
        REPLAYS.into_iter().for_each(|denial| replays.sample(&[denial.reason()], self.refusals.of(denial)));
        page.one(&all::LOCKED_OUT, levels.locked_out);
        let mut calls = page.family(&all::ADMIN_CALLS);
        for (call, outcome, count) in &self.admin_calls {
            calls.sample(&[call.as_str(), outcome.as_str()], count.value());
        }
        page.one(&all::PANICS, self.panics.value());
        page.one(&all::LINES_DROPPED, levels.log_dropped);
        page.one(&all::LINES_SAMPLED_OUT, levels.log_left_out.0);
        page.one(&all::LINES_FOLDED, levels.log_left_out.1);
        let mut unenforced = page.family(&all::UNENFORCED);
        for check in Check::WEIGHED {
            unenforced.sample(&[check.as_str()], u8::from(levels.unenforced.contains(&check)));
        }
        page.one(&all::CONFIG_GENERATION, levels.config.generation);
        page.one(&all::RELOAD_SUCCESSFUL, u8::from(!levels.config.rejected));
        page.one(&all::RELOADED, levels.config.since);
        page.family(&all::BUILD).sample(&[REVISION.unwrap_or("unknown"), env!("CARGO_PKG_VERSION")], 1_u8);
        if let Some(vitals) = Vitals::now() {
            vitals.show(&mut page);
        }
        page.into_bytes()
    }

    fn show_traffic(&self, page: &mut Exposition) -> Option<Arc<Traffic>> {
        let (totals, newest) = self.generations.totals();
        let mut requests = page.family(&all::REQUESTS);
        for ((caller, route), classes) in &totals.requests {
            for (class, count) in STATUSES.into_iter().zip(classes) {
                requests.sample(&[caller, route, class], *count);
            }
        }
        let mut durations = page.family(&all::REQUEST_DURATION);
        totals.durations.iter().for_each(|(route, duration)| durations.distribution(&[route], duration));
        let together = |of: fn(&Often) -> &Histogram| Distribution::of(self.often.iter().map(of));
        page.family(&all::OWN_DURATION).distribution(&[], &together(|often| &often.own));
        page.family(&all::UPSTREAM_DURATION).distribution(&[], &together(|often| &often.upstream));
        page.one(&all::UNDELIVERED, self.undelivered.value());
        page.one(&all::SPANS_EXPORTED, self.spans.exported.value());
        page.one(&all::SPANS_DROPPED, self.spans.dropped.value());
        newest
    }

    fn show_decisions(&self, page: &mut Exposition) {
        let mut decisions = page.family(&all::DECISIONS);
        let admitted = self.often.iter().map(|often| often.admitted.value()).sum();
        for (decision, count) in [(Decision::Admitted, admitted), (Decision::Settled, self.settled.value())] {
            decisions.sample(&[ALL_CHECKS, ENFORCE, decision.as_str(), OK], count);
        }
        for (check, reason, count) in self.refusals.iter() {
            decisions.sample(&[check.as_str(), ENFORCE, Decision::Refused.as_str(), reason], count);
        }
        for (check, reason, count) in self.watched.iter().filter(|(check, _, _)| Check::WEIGHED.contains(check)) {
            decisions.sample(&[check.as_str(), SHADOW, WOULD_REFUSE, reason], count);
        }
    }

    fn show_exchanges(&self, page: &mut Exposition, pooled: [usize; 2]) {
        let mut errors = page.family(&all::UPSTREAM_ERRORS);
        self.exchanges.iter().for_each(|(reason, sent, count)| errors.sample(&[reason, sent], count));
        let protocols = ["http1", "http2"];
        let mut connections = page.family(&all::UPSTREAM_POOLED);
        protocols.iter().zip(pooled).for_each(|(protocol, count)| connections.sample(&[protocol], count));
        for (metric, counts) in [
            (&all::UPSTREAM_OPENED, self.upstream_connections.opened()),
            (&all::UPSTREAM_REUSED, self.upstream_connections.reused()),
        ] {
            let mut family = page.family(metric);
            protocols.iter().zip(counts).for_each(|(protocol, count)| family.sample(&[protocol], count));
        }
        let mut closed = page.family(&all::UPSTREAM_CLOSED);
        End::ALL.into_iter().for_each(|end| closed.sample(&[end.as_str()], self.upstream_connections.closed(end)));
    }

    fn show_connections(&self, page: &mut Exposition, levels: &Levels) {
        page.one(&all::CONNECTIONS, self.connections.value());
        let mut refused = page.family(&all::REFUSED);
        self.unserved.iter().for_each(|(one, count)| refused.sample(&[one.reason()], count.value()));
        let mut handshakes = page.family(&all::HANDSHAKES_FAILED);
        self.handshakes.iter().for_each(|(fault, count)| handshakes.sample(&[fault.as_str()], count.value()));
        let mut expiries = page.family(&all::CERTIFICATE_EXPIRY);
        levels.expiries.iter().for_each(|expiry| expiries.sample(&[expiry.certificate], expiry.at));
        page.one(&all::CERTIFICATES_STALE, u8::from(levels.certificates_stale));
    }

    fn show_revocations(&self, page: &mut Exposition, levels: &Levels) {
        page.one(&all::REVOCATIONS_LIVE, levels.revocations);
        page.one(&all::REVOCATIONS_CAPACITY, levels.revocation_capacity);
        let nearly = levels.revocations.saturating_mul(5) >= levels.revocation_capacity.saturating_mul(4);
        page.one(&all::NEARLY_FULL, u8::from(nearly));
        let mut ended = page.family(&all::ENDED);
        ended.sample(&[BY_ANSWER], self.ended_by_answer.value());
        ended.sample(&[BY_OPERATOR], self.ended_by_operator.value());
        let mut hits = page.family(&all::HITS);
        hits.sample(&["ended"], self.refusals.of(Denial::TokenEnded));
        hits.sample(&["presumed"], self.refusals.of(Denial::TokenPresumedEnded));
        hits.sample(&["settled"], self.settled.value());
        page.one(&all::PRESUMED, levels.presumed);
        page.one(&all::PRESUMPTIONS, self.presumptions.value());
        page.one(&all::SIGHTINGS, levels.sightings);
        page.one(&all::SIGHTINGS_MISSED, levels.sightings_missed);
        page.one(&all::JOURNAL_FAILING, u8::from(levels.journal_failing));
        page.one(&all::STORE_AWAY, u8::from(levels.sharing.away));
        page.one(&all::LAG, levels.sharing.lag);
        page.one(&all::UNPUBLISHED, levels.sharing.unpublished);
        page.one(&all::RESYNCS, levels.sharing.resyncs);
        page.one(&all::UNREADABLE, levels.sharing.unreadable);
    }
}

fn show_secrets(page: &mut Exposition, traffic: &Traffic) {
    let mut uses = page.family(&all::SECRET_USES);
    for (caller, secrets) in traffic.secrets() {
        secrets.iter().for_each(|(kind, id, count, _)| uses.sample(&[caller, kind.as_str(), id], count));
    }
    let mut last = page.family(&all::SECRET_LAST_USED);
    for (caller, secrets) in traffic.secrets() {
        secrets.iter().for_each(|(kind, id, _, at)| last.sample(&[caller, kind.as_str(), id], at));
    }
}

const BY_ANSWER: &str = "answer";

const BY_OPERATOR: &str = "operator";

/// The check of what passed all of them.
const ALL_CHECKS: &str = "all";

/// The reason of what passed.
const OK: &str = "ok";

/// The mode of a check whose word counts.
const ENFORCE: &str = "enforce";

/// The mode of a check that only watches, and what it would have done.
const SHADOW: &str = "shadow";
const WOULD_REFUSE: &str = "would_refuse";

/// What it was built from, where whoever builds it says so.
const REVISION: Option<&str> = option_env!("PORTCULLIS_REVISION");
