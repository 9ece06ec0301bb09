//! Which generation of the config serves, and what was wrong with the one that should have followed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::config::{Complaint, Fixed};
use crate::digits::timestamp;
use crate::metrics::ConfigLevels;

/// One generation of the config.
pub struct Generation {
    number: u64,
    since: SystemTime,
    fixed: Fixed,
    /// What is wrong with the config as it is now, where it is not this one.
    rejected: Mutex<Arc<[Complaint]>>,
}

impl Generation {
    /// The one that a process starts with.
    pub fn first(fixed: Fixed) -> Generation {
        Generation { number: 1, since: SystemTime::now(), fixed, rejected: Mutex::new([].into()) }
    }

    /// The next one, unless it changes what cannot change.
    pub fn successor(&self, fixed: Fixed) -> Result<Generation, Vec<Complaint>> {
        match self.fixed.complaints(&fixed) {
            complaints if complaints.is_empty() => {
                let fixed = self.fixed.succeeded_by(fixed);
                Ok(Generation { number: self.number + 1, ..Generation::first(fixed) })
            }
            complaints => Err(complaints),
        }
    }

    /// The keys whose files have changed, and which count only after a restart.
    pub fn outdated(&self, fixed: &Fixed) -> Vec<&'static str> {
        self.fixed.outdated(fixed)
    }

    /// Its number, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it came into use.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Remembers what is wrong with the config as it is now; nothing when it is this one again.
    pub fn reject(&self, complaints: Arc<[Complaint]>) {
        *self.rejected() = complaints;
    }

    /// What metrics show.
    pub fn levels(&self) -> ConfigLevels {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        ConfigLevels {
            generation: self.number,
            since: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            rejected: !self.rejected().is_empty(),
        }
    }

    /// What is wrong with the config as it is now, where it is not this one.
    pub fn complaints(&self) -> Vec<String> {
        self.rejected().iter().map(Complaint::to_string).collect()
    }

    /// What `/status` shows.
    pub fn status(&self) -> Value {
        json!({ "generation": self.number, "since": timestamp(self.since), "rejected": self.complaints() })
    }

    fn rejected(&self) -> MutexGuard<'_, Arc<[Complaint]>> {
        // One pointer is never half changed.
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
