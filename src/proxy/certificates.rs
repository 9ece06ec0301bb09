//! The certificates of both sides, which change while connections stay open.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::InUse;
use crate::log::Log;
use crate::tls::Expiry;
use crate::tls::watched::{Change, Rules, Watched};

/// Those that there are.
pub struct Certificates(pub InUse);

impl Certificates {
    /// Looks at their files every second from now on, until nobody holds them any more.
    ///
    /// New connections are opened by the new ones. Connections that are open stay: their certificates were good when hands
    /// were shaken, and whoever must be cut off at once is cut off by a restart.
    pub fn watch(self: &Arc<Self>, log: Log) {
        if self.0.callers.is_none() && self.0.pam.is_none() {
            return;
        }
        let held = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = interval(BETWEEN_LOOKS);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (held, log) = (Weak::clone(&held), log.clone());
                // A disk that hangs must not hold a thread that serves.
                let looked = tokio::task::spawn_blocking(move || held.upgrade().map(|held| held.look(&log)));
                if !matches!(looked.await, Ok(Some(()))) {
                    return;
                }
            }
        });
    }

    fn look(&self, log: &Log) {
        if let Some(callers) = &self.0.callers {
            told("tls", callers, log);
        }
        if let Some(pam) = &self.0.pam {
            told("upstream_tls", pam, log);
        }
    }

    /// When each of them expires.
    pub fn expiries(&self) -> Vec<Expiry> {
        let callers = self.0.callers.iter().flat_map(|callers| callers.now().expiries().to_vec());
        let pam = self.0.pam.iter().flat_map(|pam| pam.now().expiries().to_vec());
        callers.chain(pam).collect()
    }

    /// Whether files are of no use as they are now, so that older ones are in use.
    pub fn are_stale(&self) -> bool {
        self.0.callers.as_ref().is_some_and(|callers| callers.is_broken())
            || self.0.pam.as_ref().is_some_and(|pam| pam.is_broken())
    }
}

fn told<R: Rules>(table: &str, watched: &Watched<R>, log: &Log) {
    match watched.look() {
        Change::Nothing => {}
        Change::Renewed => log.note("info", "certificates_renewed", &json!({ "table": table })),
        Change::Broken(fault) => {
            let about =
                json!({ "table": table, "key": fault.key, "fault": fault.message, "in_use": "those from before" });
            log.note("error", "certificates_unusable", &about);
        }
    }
}

/// Files of a few kilobytes are read that often for nothing; in exchange a new certificate is in use at once.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
