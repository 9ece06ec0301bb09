//! What Prometheus scrapes. Labels come from the config and from closed sets, never from a request.

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::admin::order::Call;
use crate::denial::{Check, Denial};
use crate::dialect::Dialect;
use crate::event::{Decision, Event};
use crate::proxy::{HandshakeFault, Refused};
use crate::revocation::feed::Condition;
use crate::tls::Expiry;

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    decisions: IntCounterVec,
    duration: HistogramVec,
    own: Histogram,
    upstream: Histogram,
    upstream_errors: IntCounterVec,
    /// Requests being served.
    pub in_flight: IntGauge,
    upstream_in_flight: IntGauge,
    /// Requests that met a fault of ours.
    pub panics: IntCounter,
    /// Connections from callers.
    pub connections: IntGauge,
    handshakes_failed: IntCounterVec,
    certificate_expiry: IntGaugeVec,
    certificates_stale: IntGauge,
    refused: IntCounterVec,
    revocations: IntGauge,
    revocation_capacity: IntGauge,
    nearly_full: IntGauge,
    presumed: IntGauge,
    taught: IntCounter,
    ended: IntCounterVec,
    admin_calls: IntCounterVec,
    sightings: IntGauge,
    sightings_missed: IntGauge,
    journal_failing: IntGauge,
    store_away: IntGauge,
    lag: Gauge,
    unpublished: IntGauge,
    resyncs: IntGauge,
    unreadable: IntGauge,
    unenforced: IntGaugeVec,
    config_generation: IntGauge,
    reload_successful: IntGauge,
    reloaded: IntGauge,
    replays: IntGauge,
    locked_out: IntGauge,
    log_dropped: IntGauge,
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

impl Metrics {
    /// Registers everything; label values that are known now start at zero.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        let metrics = Metrics {
            requests: IntCounterVec::new(
                Opts::new("portcullis_requests_total", "Requests answered, by route, caller and status of the reply."),
                &["route", "caller", "status"],
            )?,
            decisions: IntCounterVec::new(
                Opts::new(
                    "portcullis_decisions_total",
                    "Requests decided, by the check that decided, outcome and reason.",
                ),
                &["check", "outcome", "reason"],
            )?,
            duration: HistogramVec::new(
                seconds("portcullis_request_duration_seconds", "From the head of a request to the end of its reply."),
                &["route"],
            )?,
            own: Histogram::with_opts(seconds(
                "portcullis_own_duration_seconds",
                "Time a request spent in Portcullis itself, without the PAM's time and the caller's.",
            ))?,
            upstream: Histogram::with_opts(seconds(
                "portcullis_upstream_duration_seconds",
                "From handing a request to the PAM to its answer, or to the end of waiting for one.",
            ))?,
            upstream_errors: IntCounterVec::new(
                Opts::new("portcullis_upstream_errors_total", "Exchanges with the PAM that came to no usable answer."),
                &["reason"],
            )?,
            in_flight: IntGauge::new("portcullis_requests_in_flight", "Requests being served.")?,
            upstream_in_flight: IntGauge::new(
                "portcullis_upstream_in_flight",
                "Requests that are with the PAM, of the limits.in_flight that may be.",
            )?,
            panics: IntCounter::new(
                "portcullis_panics_total",
                "Requests answered with 500 since a fault in Portcullis broke them off.",
            )?,
            connections: IntGauge::new("portcullis_connections", "Connections from callers.")?,
            handshakes_failed: IntCounterVec::new(
                Opts::new("portcullis_tls_handshakes_failed_total", "Connections that ended before TLS had begun."),
                &["reason"],
            )?,
            certificate_expiry: IntGaugeVec::new(
                Opts::new(
                    "portcullis_certificate_expiry_timestamp_seconds",
                    "When a certificate expires; of several in a file, the first.",
                ),
                &["certificate"],
            )?,
            certificates_stale: IntGauge::new(
                "portcullis_certificates_stale",
                "1 while files with certificates or keys are of no use and those from before are in use.",
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "portcullis_connections_refused_total",
                    "Connections and HTTP/2 streams that ended before there was a request that could be answered.",
                ),
                &["reason"],
            )?,
            revocations: IntGauge::new("portcullis_revocations_live", "Tokens that ended and are refused.")?,
            revocation_capacity: IntGauge::new("portcullis_revocations_capacity", "Tokens that can be remembered.")?,
            nearly_full: IntGauge::new(
                "portcullis_revocations_nearly_full",
                "1 when four fifths of the tokens that can be remembered are.",
            )?,
            ended: IntCounterVec::new(
                Opts::new("portcullis_revocations_total", "Tokens that an answer of the PAM or an operator ended."),
                &["cause"],
            )?,
            admin_calls: IntCounterVec::new(
                Opts::new("portcullis_admin_calls_total", "Calls of operators, and what became of them."),
                &["call", "outcome"],
            )?,
            sightings: IntGauge::new(
                "portcullis_sightings_remembered",
                "Tokens of which is known when they were first seen.",
            )?,
            sightings_missed: IntGauge::new(
                "portcullis_sightings_unremembered",
                "Sightings of tokens there was no place for.",
            )?,
            presumed: IntGauge::new(
                "portcullis_revocations_presumed",
                "Tokens refused for now since the PAM called them expired or unknown.",
            )?,
            taught: IntCounter::new(
                "portcullis_revocations_presumed_total",
                "Answers of the PAM that called a token expired or unknown and were believed.",
            )?,
            journal_failing: IntGauge::new(
                "portcullis_revocation_journal_failing",
                "1 while the journal of tokens that ended cannot be written.",
            )?,
            store_away: IntGauge::new(
                "portcullis_revocation_store_away",
                "1 while the store that replicas share does not answer.",
            )?,
            lag: Gauge::new(
                "portcullis_revocation_lag_seconds",
                "How far this replica is behind the log that replicas share.",
            )?,
            unpublished: IntGauge::new(
                "portcullis_revocations_unpublished",
                "Tokens whose end is not known to stand in the log that replicas share.",
            )?,
            resyncs: IntGauge::new(
                "portcullis_revocation_resyncs",
                "How often the log that replicas share had lost entries, which were then published again.",
            )?,
            unreadable: IntGauge::new(
                "portcullis_revocation_entries_unreadable",
                "Entries of the log that replicas share which could not be read.",
            )?,
            unenforced: IntGaugeVec::new(
                Opts::new(
                    "portcullis_check_not_enforced",
                    "1 for a check that lets pass what fails it, for some caller or route.",
                ),
                &["check"],
            )?,
            config_generation: IntGauge::new(
                "portcullis_config_generation",
                "How many configs have been in use since the start, the one in use included.",
            )?,
            reload_successful: IntGauge::new(
                "portcullis_config_last_reload_successful",
                "0 while the config as it is now was refused and an older one is in use.",
            )?,
            reloaded: IntGauge::new(
                "portcullis_config_last_reload_success_timestamp_seconds",
                "When the config in use was loaded.",
            )?,
            replays: IntGauge::new("portcullis_replays_remembered", "Signed messages remembered.")?,
            locked_out: IntGauge::new(
                "portcullis_locked_out",
                "Pairs of a claimed caller and an address that have failed too often.",
            )?,
            log_dropped: IntGauge::new(
                "portcullis_log_lines_dropped",
                "Log lines dropped since the reader was too slow.",
            )?,
            registry,
        };
        metrics.register()?;
        for fault in HandshakeFault::ALL {
            metrics.handshakes_failed.with_label_values(&[fault.as_str()]);
        }
        for refused in Refused::without_handshakes() {
            metrics.refused.with_label_values(&[refused.reason()]);
        }
        for decision in [Decision::Admitted, Decision::Settled] {
            metrics.decisions.with_label_values(&["all", decision.as_str(), "ok"]);
        }
        for cause in [BY_ANSWER, BY_OPERATOR] {
            metrics.ended.with_label_values(&[cause]);
        }
        for call in Call::ALL {
            for outcome in Outcome::ALL {
                metrics.admin_calls.with_label_values(&[call.as_str(), outcome.as_str()]);
            }
        }
        Ok(metrics)
    }

    /// Begins to show what a config brings with it, from zero.
    pub fn know(&self, dialect: &Dialect) {
        for route in dialect.routes.iter() {
            self.duration.with_label_values(&[&*route.name]);
        }
    }

    /// Counts what never became a request.
    pub fn count_refused(&self, refused: Refused) {
        match refused {
            Refused::Handshake(fault) => self.handshakes_failed.with_label_values(&[fault.as_str()]).inc(),
            Refused::Full(_) | Refused::Announcement(_) | Refused::Silent | Refused::HeadCut | Refused::Http2(_) => {
                self.refused.with_label_values(&[refused.reason()]).inc()
            }
        }
    }

    /// Counts a request that is done.
    pub fn count(&self, event: &Event) {
        let status = event.status.to_string();
        self.requests.with_label_values(&[&*event.route, &*event.caller, &status]).inc();
        self.duration.with_label_values(&[&*event.route]).observe(event.total.as_secs_f64());
        self.own.observe(event.own.as_secs_f64());
        if let Some(upstream) = event.upstream {
            self.upstream.observe(upstream.as_secs_f64());
        }
        match (event.decision, event.denial) {
            (Decision::Refused, Some(denial)) => {
                self.decisions.with_label_values(&[denial.check().as_str(), "refused", denial.reason()]).inc();
            }
            (decision, denial) => {
                self.decisions.with_label_values(&["all", decision.as_str(), "ok"]).inc();
                if let Some(
                    failure @ (Denial::Unsent(_)
                    | Denial::Upstream(_)
                    | Denial::AnswerUnreadable
                    | Denial::JournalFailed),
                ) = denial
                {
                    self.upstream_errors.with_label_values(&[failure.reason()]).inc();
                }
            }
        }
        for denial in &event.would_refuse {
            self.decisions.with_label_values(&[denial.check().as_str(), "would_refuse", denial.reason()]).inc();
        }
        if event.retired {
            self.ended.with_label_values(&[BY_ANSWER]).inc();
        }
        if event.taught {
            self.taught.inc();
        }
    }

    /// Counts tokens that an operator ended.
    pub fn count_ended_by_operator(&self, tokens: u64) {
        self.ended.with_label_values(&[BY_OPERATOR]).inc_by(tokens);
    }

    /// Counts a call of an operator.
    pub fn count_admin_call(&self, call: Call, outcome: Outcome) {
        self.admin_calls.with_label_values(&[call.as_str(), outcome.as_str()]).inc();
    }

    /// The exposition text, with the levels as they are now.
    pub fn text(&self, levels: Levels) -> Vec<u8> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.upstream_in_flight.set(signed(levels.upstream_in_flight));
        self.revocations.set(signed(levels.revocations));
        self.revocation_capacity.set(signed(levels.revocation_capacity));
        self.nearly_full
            .set((levels.revocations.saturating_mul(5) >= levels.revocation_capacity.saturating_mul(4)).into());
        self.presumed.set(signed(levels.presumed));
        self.journal_failing.set(levels.journal_failing.into());
        self.store_away.set(levels.sharing.away.into());
        self.lag.set(levels.sharing.lag);
        self.unpublished.set(signed(levels.sharing.unpublished));
        self.resyncs.set(signed(levels.sharing.resyncs));
        self.unreadable.set(signed(levels.sharing.unreadable));
        self.sightings.set(signed(levels.sightings));
        self.sightings_missed.set(signed(levels.sightings_missed));
        self.replays.set(signed(levels.replays));
        self.locked_out.set(signed(levels.locked_out));
        for expiry in levels.expiries {
            self.certificate_expiry.with_label_values(&[expiry.certificate]).set(expiry.at);
        }
        self.certificates_stale.set(levels.certificates_stale.into());
        for check in Check::WEIGHED {
            self.unenforced.with_label_values(&[check.as_str()]).set(levels.unenforced.contains(&check).into());
        }
        self.config_generation.set(signed(levels.config.generation));
        self.reload_successful.set((!levels.config.rejected).into());
        self.reloaded.set(levels.config.since);
        self.log_dropped.set(signed(levels.log_dropped));
        let mut text = Vec::new();
        // Writing to memory cannot fail, and a metric that cannot be shown must not hide the others.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn prometheus::core::Collector>; 36] = [
            Box::new(self.requests.clone()),
            Box::new(self.decisions.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.own.clone()),
            Box::new(self.upstream.clone()),
            Box::new(self.upstream_errors.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.upstream_in_flight.clone()),
            Box::new(self.panics.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.handshakes_failed.clone()),
            Box::new(self.certificate_expiry.clone()),
            Box::new(self.certificates_stale.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.revocations.clone()),
            Box::new(self.revocation_capacity.clone()),
            Box::new(self.nearly_full.clone()),
            Box::new(self.ended.clone()),
            Box::new(self.admin_calls.clone()),
            Box::new(self.sightings.clone()),
            Box::new(self.sightings_missed.clone()),
            Box::new(self.presumed.clone()),
            Box::new(self.taught.clone()),
            Box::new(self.journal_failing.clone()),
            Box::new(self.store_away.clone()),
            Box::new(self.lag.clone()),
            Box::new(self.unpublished.clone()),
            Box::new(self.resyncs.clone()),
            Box::new(self.unreadable.clone()),
            Box::new(self.unenforced.clone()),
            Box::new(self.config_generation.clone()),
            Box::new(self.reload_successful.clone()),
            Box::new(self.reloaded.clone()),
            Box::new(self.replays.clone()),
            Box::new(self.locked_out.clone()),
            Box::new(self.log_dropped.clone()),
        ];
        all.into_iter().try_for_each(|metric| self.registry.register(metric))
    }
}

const BY_ANSWER: &str = "answer";

const BY_OPERATOR: &str = "operator";

/// From 25 µs, what a check costs, to the 9 s after which the PAM is given up.
const BUCKETS: [f64; 18] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0,
];
