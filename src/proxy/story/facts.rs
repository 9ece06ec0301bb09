//! What the page for people shows of a Portcullis.

use std::time::SystemTime;

use super::Portcullis;
use crate::admin::page::facts::{Facts, InUse};
use crate::digits::timestamp;
use crate::moment::Moment;

impl Portcullis {
    /// What there is to be seen now; `ready` says whether the process is.
    pub fn facts(&self, ready: bool) -> Facts {
        let (now, at) = (Moment::now(), SystemTime::now());
        let revocations = &self.memory.revocations;
        let count = |level: i64| u64::try_from(level).unwrap_or_default();
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let second = i64::try_from(since).unwrap_or(i64::MAX);
        let unenforced = self.gate.modes.unenforced();
        let expiries = self.certificates.expiries().into_iter();
        Facts {
            at: timestamp(at),
            dialect: self.gate.dialect.name.to_string(),
            ready: ready && self.is_ready(),
            seen: self.memory.sight.seen(now),
            callers: self.gate.callers.iter().count(),
            unenforced: unenforced.into_iter().map(|check| check.as_str().to_owned()).collect(),
            config: InUse {
                generation: self.generation.number(),
                since: timestamp(self.generation.since()),
                rejected: self.generation.complaints(),
            },
            revocations: revocations.live(),
            journal: revocations.keeps_a_journal(),
            journal_failing: revocations.journal_is_failing(),
            sharing: revocations.sharing(),
            replays: self.memory.replays.count(),
            locked_out: self.memory.lockouts.count(now),
            // An end within the day that is over counts as one day ago.
            certificates: expiries.map(|expiry| (expiry.certificate, (expiry.at - second).div_euclid(DAY))).collect(),
            certificates_stale: self.certificates.are_stale(),
            in_flight: count(self.metrics.in_flight()),
            upstream_in_flight: (self.places.taken() as u64, self.limits.in_flight.into()),
            connections: (count(self.metrics.connections.value()), self.limits.connections.into()),
            log_dropped: self.log.dropped(),
        }
    }
}

const DAY: i64 = 24 * 3600;
