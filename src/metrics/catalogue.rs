//! Every metric: its name, type and labels, what it says and what to do about it. `config/metrics.md` is made from this.
//!
//! Labels stand in alphabetical order. Their values come from the config and from closed sets, never from a request.

use super::Outcome;
use super::secrets::Kind as SecretKind;
use crate::admin::order::Call;
use crate::denial::{Check, Denial};
use crate::event::Decision;
use crate::proxy::{HandshakeFault, Refused};
use crate::tls::CERTIFICATES;
use crate::upstream::End;

/// What is told about a metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it says.
    pub help: &'static str,
    /// What to do about it; empty where there is nothing to do.
    pub advice: &'static str,
}

/// A label of a metric.
#[derive(Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// What a label can say.
#[derive(Debug)]
pub enum Values {
    /// One of these.
    Closed(fn() -> Vec<&'static str>),
    /// What the config has, described.
    Of(&'static str),
}

/// The types of Prometheus that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As expositions have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// All metrics, in the order of the page.
pub static ALL: [&Metric; 58] = [
    &REQUESTS,
    &REQUEST_DURATION,
    &OWN_DURATION,
    &UPSTREAM_DURATION,
    &UNDELIVERED,
    &SPANS_EXPORTED,
    &SPANS_DROPPED,
    &DECISIONS,
    &IN_FLIGHT,
    &UPSTREAM_IN_FLIGHT,
    &PASSWORDS,
    &UPSTREAM_ERRORS,
    &UPSTREAM_POOLED,
    &UPSTREAM_OPENED,
    &UPSTREAM_REUSED,
    &UPSTREAM_CLOSED,
    &CONNECTIONS,
    &REFUSED,
    &HANDSHAKES_FAILED,
    &CERTIFICATE_EXPIRY,
    &CERTIFICATES_STALE,
    &SECRET_USES,
    &SECRET_LAST_USED,
    &REVOCATIONS_LIVE,
    &REVOCATIONS_CAPACITY,
    &NEARLY_FULL,
    &ENDED,
    &HITS,
    &PRESUMED,
    &PRESUMPTIONS,
    &SIGHTINGS,
    &SIGHTINGS_MISSED,
    &JOURNAL_FAILING,
    &STORE_AWAY,
    &LAG,
    &UNPUBLISHED,
    &RESYNCS,
    &UNREADABLE,
    &REPLAYS,
    &REPLAYS_REFUSED,
    &LOCKED_OUT,
    &ADMIN_CALLS,
    &PANICS,
    &LINES_DROPPED,
    &LINES_SAMPLED_OUT,
    &LINES_FOLDED,
    &UNENFORCED,
    &CONFIG_GENERATION,
    &RELOAD_SUCCESSFUL,
    &RELOADED,
    &BUILD,
    &CPU,
    &RESIDENT,
    &VIRTUAL,
    &OPEN_FDS,
    &MAX_FDS,
    &THREADS,
    &STARTED,
];

#[allow(missing_docs)]
pub static REQUESTS: Metric = Metric {
    name: "portcullis_requests_total",
    kind: Kind::Counter,
    labels: &[
        Label { name: "caller", values: Values::Of(CALLERS) },
        Label { name: "route", values: Values::Of(ROUTES) },
        Label { name: "status", values: Values::Closed(statuses) },
    ],
    help: "Requests answered, by route, caller and class of the reply's status.",
    advice: "The rate, and the share of 5xx, are what to watch first. A caller that stops, or a share of 4xx that jumps, has changed something.",
};

#[allow(missing_docs)]
pub static REQUEST_DURATION: Metric = Metric {
    name: "portcullis_request_duration_seconds",
    kind: Kind::Histogram,
    labels: &[Label { name: "route", values: Values::Of(ROUTES) }],
    help: "From the head of a request to the end of its reply.",
    advice: "Compare with the own and the upstream duration: what is in neither is the caller's own time, in sending and in taking.",
};

#[allow(missing_docs)]
pub static OWN_DURATION: Metric = Metric {
    name: "portcullis_own_duration_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time a request spent in Portcullis itself, without the PAM's time and the caller's.",
    advice: "Tens of microseconds, or milliseconds where a password is hashed or an ended token waits for disk or store. More: too few cores.",
};

#[allow(missing_docs)]
pub static UPSTREAM_DURATION: Metric = Metric {
    name: "portcullis_upstream_duration_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "From handing a request to the PAM to its answer, or to the end of waiting for one.",
    advice: "The PAM's own latency. When it nears timeouts.total, callers get 504 and the outcome of their calls is unknown.",
};

#[allow(missing_docs)]
pub static UNDELIVERED: Metric = Metric {
    name: "portcullis_replies_undelivered_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Replies that their callers did not take whole.",
    advice: "Callers give up: compare their timeout with the PAM's latency.",
};

#[allow(missing_docs)]
pub static SPANS_EXPORTED: Metric = Metric {
    name: "portcullis_spans_exported_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Spans that the receiver of traces has taken.",
    advice: "",
};

#[allow(missing_docs)]
pub static SPANS_DROPPED: Metric = Metric {
    name: "portcullis_spans_dropped_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Spans lost, since too many waited or the receiver of traces did not take them.",
    advice: "Traces have holes: is the receiver reachable and fast enough? `OTEL_BSP_MAX_QUEUE_SIZE` makes more wait.",
};

#[allow(missing_docs)]
pub static DECISIONS: Metric = Metric {
    name: "portcullis_decisions_total",
    kind: Kind::Counter,
    labels: &[
        Label { name: "check", values: Values::Closed(checks) },
        Label { name: "mode", values: Values::Closed(modes) },
        Label { name: "outcome", values: Values::Closed(outcomes) },
        Label { name: "reason", values: Values::Closed(reasons) },
    ],
    help: "Requests decided, by the check that decided, outcome and reason; in mode shadow, what a check that is not enforced found.",
    advice: "The reason says what to do: [the log](log.md) has the line with caller, client and correlation id.",
};

#[allow(missing_docs)]
pub static IN_FLIGHT: Metric = Metric {
    name: "portcullis_requests_in_flight",
    kind: Kind::Gauge,
    labels: &[],
    help: "Requests being served.",
    advice: "Load.",
};

#[allow(missing_docs)]
pub static UPSTREAM_IN_FLIGHT: Metric = Metric {
    name: "portcullis_upstream_in_flight",
    kind: Kind::Gauge,
    labels: &[],
    help: "Requests that are with the PAM, of the limits.in_flight that may be.",
    advice: "At the limit, callers get 503: the PAM is late, or the limit too low for it.",
};

#[allow(missing_docs)]
pub static PASSWORDS: Metric = Metric {
    name: "portcullis_password_verifications",
    kind: Kind::Gauge,
    labels: &[Label { name: "state", values: Values::Closed(|| vec!["running", "waiting"]) }],
    help: "Hashed passwords being verified, or waiting for their turn.",
    advice: "If some always wait, somebody guesses, or hashes cost too much for these cores: lower their cost.",
};

#[allow(missing_docs)]
pub static UPSTREAM_ERRORS: Metric = Metric {
    name: "portcullis_upstream_errors_total",
    kind: Kind::Counter,
    labels: &[
        Label { name: "reason", values: Values::Closed(failures) },
        Label { name: "sent", values: Values::Closed(|| vec!["no", "yes"]) },
    ],
    help: "Exchanges with the PAM that came to no usable answer. Nothing is ever sent twice: with sent=\"no\" the caller was told 503 and may try again, with sent=\"yes\" the outcome is unknown.",
    advice: "connect and timeout: the PAM. tls_certificate: renew one, or correct upstream_tls. closed: set timeouts.idle below what the PAM waits. answer_unreadable: an answer that may have ended a token is not as the dialect says.",
};

#[allow(missing_docs)]
pub static UPSTREAM_POOLED: Metric = Metric {
    name: "portcullis_upstream_connections_pooled",
    kind: Kind::Gauge,
    labels: &[Label { name: "protocol", values: Values::Closed(protocols) }],
    help: "Connections to the PAM: over HTTP/1.1 those that wait for their next request, over HTTP/2 those that take requests.",
    advice: "None under load: the PAM closes each connection, and every request pays for a new one.",
};

#[allow(missing_docs)]
pub static UPSTREAM_OPENED: Metric = Metric {
    name: "portcullis_upstream_connections_opened_total",
    kind: Kind::Counter,
    labels: &[Label { name: "protocol", values: Values::Closed(protocols) }],
    help: "Connections to the PAM that were opened.",
    advice: "Should be far below the rate of requests.",
};

#[allow(missing_docs)]
pub static UPSTREAM_REUSED: Metric = Metric {
    name: "portcullis_upstream_connections_reused_total",
    kind: Kind::Counter,
    labels: &[Label { name: "protocol", values: Values::Closed(protocols) }],
    help: "Requests that went to the PAM on a connection that was there.",
    advice: "Over the rate of requests, this is the share that pays for no handshake.",
};

#[allow(missing_docs)]
pub static UPSTREAM_CLOSED: Metric = Metric {
    name: "portcullis_upstream_connections_closed_total",
    kind: Kind::Counter,
    labels: &[Label { name: "reason", values: Values::Closed(ends) }],
    help: "Connections to the PAM that were closed: idle for too long, one too many for the pool, by certificates that were replaced, left by the PAM, not kept or broken by an exchange, by a reload, or over HTTP/2.",
    advice: "left: set timeouts.idle below what the PAM waits. surplus: raise timeouts.pooled. exchange: the PAM closes after each answer.",
};

#[allow(missing_docs)]
pub static CONNECTIONS: Metric = Metric {
    name: "portcullis_connections",
    kind: Kind::Gauge,
    labels: &[],
    help: "Connections from callers.",
    advice: "At limits.connections, new ones are refused.",
};

#[allow(missing_docs)]
pub static REFUSED: Metric = Metric {
    name: "portcullis_connections_refused_total",
    kind: Kind::Counter,
    labels: &[Label { name: "reason", values: Values::Closed(refusals) }],
    help: "Connections and HTTP/2 streams that ended before there was a request that could be answered.",
    advice: "connections: raise the limit, or find who opens them. Words of PROXY: the balancer and proxy_protocol do not agree. silent and head_cut are mostly probes.",
};

#[allow(missing_docs)]
pub static HANDSHAKES_FAILED: Metric = Metric {
    name: "portcullis_tls_handshakes_failed_total",
    kind: Kind::Counter,
    labels: &[Label { name: "reason", values: Values::Closed(handshakes) }],
    help: "Connections that ended before TLS had begun.",
    advice: "certificate: a caller's has expired or is of another authority. refused: callers do not trust ours.",
};

#[allow(missing_docs)]
pub static CERTIFICATE_EXPIRY: Metric = Metric {
    name: "portcullis_certificate_expiry_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[Label { name: "certificate", values: Values::Closed(certificates) }],
    help: "When a certificate expires; of several in a file, the first. Only those that the config has.",
    advice: "Alert two weeks ahead. New files are taken over without a restart.",
};

#[allow(missing_docs)]
pub static CERTIFICATES_STALE: Metric = Metric {
    name: "portcullis_certificates_stale",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while files with certificates or keys are of no use and those from before are in use.",
    advice: "Correct the files: the event certificates_unusable says what is wrong.",
};

#[allow(missing_docs)]
pub static SECRET_USES: Metric = Metric {
    name: "portcullis_secret_uses_total",
    kind: Kind::Counter,
    labels: &[
        Label { name: "caller", values: Values::Of(CALLERS) },
        Label { name: "kind", values: Values::Closed(kinds) },
        Label { name: "secret", values: Values::Of(SECRETS) },
    ],
    help: "Requests that proved themselves with a secret, since it came into the config.",
    advice: "A rotation is over when the old secret's rate is zero.",
};

#[allow(missing_docs)]
pub static SECRET_LAST_USED: Metric = Metric {
    name: "portcullis_secret_last_used_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[
        Label { name: "caller", values: Values::Of(CALLERS) },
        Label { name: "kind", values: Values::Closed(kinds) },
        Label { name: "secret", values: Values::Of(SECRETS) },
    ],
    help: "When a request last proved itself with a secret; 0 for not since the start.",
    advice: "Take a secret out of the config once it has been unused for longer than its caller's longest pause.",
};

#[allow(missing_docs)]
pub static REVOCATIONS_LIVE: Metric = Metric {
    name: "portcullis_revocations_live",
    kind: Kind::Gauge,
    labels: &[],
    help: "Tokens that ended and are refused.",
    advice: "",
};

#[allow(missing_docs)]
pub static REVOCATIONS_CAPACITY: Metric = Metric {
    name: "portcullis_revocations_capacity",
    kind: Kind::Gauge,
    labels: &[],
    help: "Tokens that can be remembered.",
    advice: "",
};

#[allow(missing_docs)]
pub static NEARLY_FULL: Metric = Metric {
    name: "portcullis_revocations_nearly_full",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 when four fifths of the tokens that can be remembered are.",
    advice: "Raise revocation.capacity or lower revocation.keep: when it is full, what may end a token gets 503.",
};

#[allow(missing_docs)]
pub static ENDED: Metric = Metric {
    name: "portcullis_revocations_total",
    kind: Kind::Counter,
    labels: &[Label { name: "cause", values: Values::Closed(causes) }],
    help: "Tokens that an answer of the PAM or an operator ended.",
    advice: "None by answers while players log out: the dialect does not recognise the PAM's answer.",
};

#[allow(missing_docs)]
pub static HITS: Metric = Metric {
    name: "portcullis_revocation_hits_total",
    kind: Kind::Counter,
    labels: &[Label { name: "kind", values: Values::Closed(|| vec!["ended", "presumed", "settled"]) }],
    help: "Requests whose token had ended: refused, refused since the PAM had called it dead a moment ago, or admitted to settle what is owed.",
    advice: "A caller that goes on using dead tokens caches them, or somebody replays what was overheard.",
};

#[allow(missing_docs)]
pub static PRESUMED: Metric = Metric {
    name: "portcullis_revocations_presumed",
    kind: Kind::Gauge,
    labels: &[],
    help: "Tokens refused for now since the PAM called them expired or unknown.",
    advice: "",
};

#[allow(missing_docs)]
pub static PRESUMPTIONS: Metric = Metric {
    name: "portcullis_revocation_presumptions_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Answers of the PAM that called a token expired or unknown and were believed.",
    advice: "",
};

#[allow(missing_docs)]
pub static SIGHTINGS: Metric = Metric {
    name: "portcullis_sightings_remembered",
    kind: Kind::Gauge,
    labels: &[],
    help: "Tokens of which is known when they were first seen.",
    advice: "",
};

#[allow(missing_docs)]
pub static SIGHTINGS_MISSED: Metric = Metric {
    name: "portcullis_sightings_missed_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Sightings of tokens there was no place for.",
    advice: "Raise revocation.capacity: those tokens cannot be ended by when they were first seen.",
};

#[allow(missing_docs)]
pub static JOURNAL_FAILING: Metric = Metric {
    name: "portcullis_revocation_journal_failing",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while the journal of tokens that ended cannot be written.",
    advice: "Act now: disk full or read-only. What may end a token gets 503 meanwhile.",
};

#[allow(missing_docs)]
pub static STORE_AWAY: Metric = Metric {
    name: "portcullis_revocation_store_away",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while the store that replicas share does not answer, or takes nothing.",
    advice: "Act now: what [revocation] on_outage says is in force.",
};

#[allow(missing_docs)]
pub static LAG: Metric = Metric {
    name: "portcullis_revocation_lag_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "How far this replica is behind the log that replicas share.",
    advice: "Above a second, a token that ended on another replica still passes here for so long.",
};

#[allow(missing_docs)]
pub static UNPUBLISHED: Metric = Metric {
    name: "portcullis_revocations_unpublished",
    kind: Kind::Gauge,
    labels: &[],
    help: "Tokens whose end is not known to stand in the log that replicas share.",
    advice: "Other replicas do not refuse these yet.",
};

#[allow(missing_docs)]
pub static RESYNCS: Metric = Metric {
    name: "portcullis_revocation_resyncs_total",
    kind: Kind::Counter,
    labels: &[],
    help: "How often the log that replicas share had lost entries, which were then published again.",
    advice: "The store lost writes: look at its persistence and failover.",
};

#[allow(missing_docs)]
pub static UNREADABLE: Metric = Metric {
    name: "portcullis_revocation_entries_unreadable_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Entries of the log that replicas share which could not be read.",
    advice: "Something else writes there, or a replica has another version or key.",
};

#[allow(missing_docs)]
pub static REPLAYS: Metric = Metric {
    name: "portcullis_replays_remembered",
    kind: Kind::Gauge,
    labels: &[],
    help: "Signed messages remembered.",
    advice: "At replay.capacity for a caller, it gets 503.",
};

#[allow(missing_docs)]
pub static REPLAYS_REFUSED: Metric = Metric {
    name: "portcullis_replays_refused_total",
    kind: Kind::Counter,
    labels: &[Label { name: "reason", values: Values::Closed(replays) }],
    help: "Signed messages that were refused since they, or a copy, had come before, or since no more can be remembered.",
    advice: "replayed: the caller sends again instead of signing anew, or somebody replays. replay_memory_full: raise replay.capacity.",
};

#[allow(missing_docs)]
pub static LOCKED_OUT: Metric = Metric {
    name: "portcullis_locked_out",
    kind: Kind::Gauge,
    labels: &[],
    help: "Pairs of a claimed caller and an address that have failed too often.",
    advice: "Somebody guesses, or a caller has an old secret.",
};

#[allow(missing_docs)]
pub static ADMIN_CALLS: Metric = Metric {
    name: "portcullis_admin_calls_total",
    kind: Kind::Counter,
    labels: &[
        Label { name: "call", values: Values::Closed(calls) },
        Label { name: "outcome", values: Values::Closed(call_outcomes) },
    ],
    help: "Calls of operators, and what became of them.",
    advice: "unauthenticated: somebody tries the admin address.",
};

#[allow(missing_docs)]
pub static PANICS: Metric = Metric {
    name: "portcullis_panics_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Requests answered with 500 since a fault in Portcullis broke them off.",
    advice: "Report it, with the event panic.",
};

#[allow(missing_docs)]
pub static LINES_DROPPED: Metric = Metric {
    name: "portcullis_log_lines_dropped_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Log lines dropped since the reader was too slow.",
    advice: "Make the reader faster, or lower log.sample.",
};

#[allow(missing_docs)]
pub static LINES_SAMPLED_OUT: Metric = Metric {
    name: "portcullis_log_lines_sampled_out_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Admitted requests without a line, since log.sample is below 100%.",
    advice: "",
};

#[allow(missing_docs)]
pub static LINES_FOLDED: Metric = Metric {
    name: "portcullis_log_lines_folded_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Refused requests that are told of in a line for many.",
    advice: "",
};

#[allow(missing_docs)]
pub static UNENFORCED: Metric = Metric {
    name: "portcullis_check_not_enforced",
    kind: Kind::Gauge,
    labels: &[Label { name: "check", values: Values::Closed(weighed) }],
    help: "1 for a check that lets pass what fails it, for some caller or route.",
    advice: "Ask `portcullis readiness` whether it can be enforced.",
};

#[allow(missing_docs)]
pub static CONFIG_GENERATION: Metric = Metric {
    name: "portcullis_config_generation",
    kind: Kind::Gauge,
    labels: &[],
    help: "How many configs have been in use since the start, the one in use included.",
    advice: "",
};

#[allow(missing_docs)]
pub static RELOAD_SUCCESSFUL: Metric = Metric {
    name: "portcullis_config_last_reload_successful",
    kind: Kind::Gauge,
    labels: &[],
    help: "0 while the config as it is now was refused and an older one is in use.",
    advice: "Correct it: the event config_rejected says what is wrong.",
};

#[allow(missing_docs)]
pub static RELOADED: Metric = Metric {
    name: "portcullis_config_last_reload_success_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the config in use was loaded.",
    advice: "",
};

#[allow(missing_docs)]
pub static BUILD: Metric = Metric {
    name: "portcullis_build_info",
    kind: Kind::Gauge,
    labels: &[
        Label {
            name: "revision",
            values: Values::Of("what it was built from, as PORTCULLIS_REVISION said then; else `unknown`"),
        },
        Label { name: "version", values: Values::Of("its version") },
    ],
    help: "1, with what is running.",
    advice: "",
};

#[allow(missing_docs)]
pub static CPU: Metric = Metric {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &[],
    help: "User and system time spent, in seconds.",
    advice: "Near the number of cores: it needs more of them, or replicas.",
};

#[allow(missing_docs)]
pub static RESIDENT: Metric = Metric {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Memory in use, in bytes.",
    advice: "",
};

#[allow(missing_docs)]
pub static VIRTUAL: Metric = Metric {
    name: "process_virtual_memory_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Memory that addresses are reserved for, in bytes.",
    advice: "",
};

#[allow(missing_docs)]
pub static OPEN_FDS: Metric = Metric {
    name: "process_open_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Files and sockets that are open.",
    advice: "Near the most: raise the limit (ulimit -n), or lower limits.connections.",
};

#[allow(missing_docs)]
pub static MAX_FDS: Metric = Metric {
    name: "process_max_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Most files and sockets that may be open.",
    advice: "",
};

#[allow(missing_docs)]
pub static THREADS: Metric =
    Metric { name: "process_threads", kind: Kind::Gauge, labels: &[], help: "Threads.", advice: "" };

#[allow(missing_docs)]
pub static STARTED: Metric = Metric {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When it started, in seconds since 1970.",
    advice: "One that changes often: it crashes, or is killed for memory.",
};

const ROUTES: &str = "a route of the dialect, or `none`";

const CALLERS: &str = "a caller of the config, or `none`";

const SECRETS: &str = "the id of a signing key; of others the place in the config, from 1";

fn statuses() -> Vec<&'static str> {
    super::traffic::STATUSES.to_vec()
}

fn checks() -> Vec<&'static str> {
    [super::ALL_CHECKS].into_iter().chain(Check::ALL.map(Check::as_str)).collect()
}

fn weighed() -> Vec<&'static str> {
    Check::WEIGHED.map(Check::as_str).to_vec()
}

fn modes() -> Vec<&'static str> {
    vec![super::ENFORCE, super::SHADOW]
}

fn outcomes() -> Vec<&'static str> {
    [Decision::Admitted, Decision::Settled, Decision::Refused]
        .map(Decision::as_str)
        .into_iter()
        .chain([super::WOULD_REFUSE])
        .collect()
}

fn reasons() -> Vec<&'static str> {
    let mut all: Vec<_> = super::decisions::refusals().map(Denial::reason).chain([super::OK]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn failures() -> Vec<&'static str> {
    let mut all: Vec<_> = super::exchanges::failures().map(|(reason, _)| reason).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn protocols() -> Vec<&'static str> {
    vec!["http1", "http2"]
}

fn ends() -> Vec<&'static str> {
    End::ALL.map(End::as_str).to_vec()
}

fn refusals() -> Vec<&'static str> {
    Refused::without_handshakes().map(Refused::reason).collect()
}

fn handshakes() -> Vec<&'static str> {
    HandshakeFault::ALL.map(HandshakeFault::as_str).to_vec()
}

fn certificates() -> Vec<&'static str> {
    CERTIFICATES.to_vec()
}

fn kinds() -> Vec<&'static str> {
    SecretKind::ALL.map(SecretKind::as_str).to_vec()
}

fn causes() -> Vec<&'static str> {
    vec![super::BY_ANSWER, super::BY_OPERATOR]
}

fn replays() -> Vec<&'static str> {
    super::decisions::REPLAYS.map(Denial::reason).to_vec()
}

fn calls() -> Vec<&'static str> {
    Call::ALL.map(Call::as_str).to_vec()
}

fn call_outcomes() -> Vec<&'static str> {
    Outcome::ALL.map(Outcome::as_str).to_vec()
}
