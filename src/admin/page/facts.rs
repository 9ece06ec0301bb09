//! What the page shows, as it is at one moment.

use crate::revocation::feed::Condition;
use crate::sight::Seen;

/// Everything, with nothing secret in it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When it was looked: RFC 3339 in UTC.
    pub at: String,
    /// The dialect.
    pub dialect: String,
    /// Whether it is ready, as `/readyz` says.
    pub ready: bool,
    /// What happened lately.
    pub seen: Seen,
    /// Callers in the config.
    pub callers: usize,
    /// Checks that are not enforced, and for whom, in words.
    pub unenforced: Vec<String>,
    /// Which config is in use.
    pub config: InUse,
    /// Tokens recorded as ended, and how many can be.
    pub revocations: (u64, u64),
    /// Tokens that ended are kept on disk.
    pub journal: bool,
    /// The journal cannot be written.
    pub journal_failing: bool,
    /// How following the other replicas goes; `None` for a replica that is alone.
    pub sharing: Option<Condition>,
    /// Signed messages remembered.
    pub replays: u64,
    /// Pairs of a claimed caller and an address that have failed too often.
    pub locked_out: u64,
    /// Certificates, and in how many days they expire.
    pub certificates: Vec<(&'static str, i64)>,
    /// Files with certificates are of no use as they are, and older ones are in use.
    pub certificates_stale: bool,
    /// Requests being served.
    pub in_flight: u64,
    /// Requests that are with the PAM, and how many may be.
    pub upstream_in_flight: (u64, u64),
    /// Connections from callers, and how many may be.
    pub connections: (u64, u64),
    /// Log lines dropped.
    pub log_dropped: u64,
}

/// A generation of the config.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Its number.
    pub generation: u64,
    /// Since when it is in use.
    pub since: String,
    /// What is wrong with a newer one that was refused.
    pub rejected: Vec<String>,
}
