//! What enforcement would do, by what was seen while it was not in force: whether it is safe to turn it on, or what to fix
//! first.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::denial::{Check, Denial};
use crate::digits::timestamp;
use crate::mode::Modes;

/// What was seen of each caller, while one generation of the config was in use. Bounded by the config: names of callers,
/// checks and reasons.
#[derive(Default)]
pub struct Readiness(Mutex<BTreeMap<Box<str>, Seen>>);

#[derive(Default)]
struct Seen {
    requests: u64,
    checks: BTreeMap<Check, Failures>,
}

/// What failed a check.
struct Failures {
    requests: u64,
    reasons: BTreeMap<&'static str, u64>,
    last: SystemTime,
}

impl Readiness {
    /// Counts a request of a caller, proven or claimed; `none` for nobody that is known. Each check counts once, by the
    /// first of its reasons.
    pub fn count<'d>(&self, caller: &str, failed: impl Iterator<Item = &'d Denial>, now: SystemTime) {
        let mut all = self.seen();
        if !all.contains_key(caller) {
            all.insert(caller.into(), Seen::default());
        }
        let Some(seen) = all.get_mut(caller) else { return };
        seen.requests += 1;
        let mut counted = Vec::new();
        for denial in failed.filter(|denial| Check::WEIGHED.contains(&denial.check())) {
            let check = denial.check();
            if counted.contains(&check) {
                continue;
            }
            counted.push(check);
            let none = || Failures { requests: 0, reasons: BTreeMap::new(), last: now };
            let failures = seen.checks.entry(check).or_insert_with(none);
            failures.requests += 1;
            failures.last = now;
            *failures.reasons.entry(denial.reason()).or_default() += 1;
        }
    }

    /// What is to be known, and the verdict, for the callers of a config.
    pub fn report<'c>(&self, callers: impl Iterator<Item = &'c str>, modes: &Modes, since: SystemTime) -> Value {
        let seen = self.seen();
        let none = Seen::default();
        let mut about = Map::new();
        let mut to_do = Vec::new();
        for (index, name) in callers.enumerate() {
            let seen = seen.get(name).unwrap_or(&none);
            let verdict = seen.verdict();
            if let Some(fault) = &verdict {
                to_do.push(format!("{name}: {fault}"));
            }
            about.insert(name.to_owned(), seen.report(modes, Some(index), verdict));
        }
        if let Some(strangers) = seen.get(NOBODY) {
            let question = "is one of them a caller of yours?".to_owned();
            about.insert(NOBODY.to_owned(), strangers.report(modes, None, Some(question)));
        }
        let verdict = if to_do.is_empty() { SAFE.to_owned() } else { to_do.join("; ") };
        json!({
            "since": timestamp(since),
            "enforced": modes.are_strict(),
            "safe": to_do.is_empty(),
            "verdict": verdict,
            "callers": about,
        })
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Seen>> {
        // Counts that are a little off after a panic elsewhere spoil nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// What to fix first; `None` when it is safe.
    fn verdict(&self) -> Option<String> {
        if self.requests == 0 {
            return Some("nothing was seen yet; let it call first".to_owned());
        }
        let (check, worst) = self.checks.iter().max_by_key(|(_, failures)| failures.requests)?;
        let (reason, _) = worst.reasons.iter().max_by_key(|(_, count)| **count)?;
        let (check, failed, of) = (check.as_str(), worst.requests, self.requests);
        Some(format!("fix {check} first: {failed} of {of} requests fail it, most for {reason}"))
    }

    fn report(&self, modes: &Modes, caller: Option<usize>, verdict: Option<String>) -> Value {
        let check = |check: Check| {
            let failures = self.checks.get(&check);
            let about = json!({
                "mode": modes.of(check, None, caller).as_str(),
                "fail": failures.map_or(0, |failures| failures.requests),
                "reasons": failures.map(|failures| &failures.reasons),
                "last": failures.map(|failures| timestamp(failures.last)),
            });
            (check.as_str().to_owned(), about)
        };
        json!({
            "requests": self.requests,
            "verdict": verdict.as_deref().unwrap_or(SAFE),
            "checks": Check::WEIGHED.map(check).into_iter().collect::<Map<_, _>>(),
        })
    }
}

const SAFE: &str = "safe to enforce";

/// Who is nobody that is known.
pub const NOBODY: &str = "none";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Mode;

    #[test]
    fn safe_is_who_was_seen_and_would_not_be_refused() {
        let readiness = Readiness::default();
        let now = SystemTime::UNIX_EPOCH;
        let count = |caller, failed: &[Denial]| readiness.count(caller, failed.iter(), now);
        let modes = Modes { all: Mode::Shadow, callers: [(1, Mode::Enforce)].into(), ..Modes::default() };
        let report = |callers: &[&str]| readiness.report(callers.iter().copied(), &modes, now);
        assert_eq!(report(&["a"])["verdict"], "a: nothing was seen yet; let it call first");
        count("a", &[]);
        assert_eq!((&report(&["a"])["verdict"], &report(&["a"])["safe"]), (&SAFE.into(), &true.into()));
        count("a", &[Denial::SignatureWrong, Denial::SignatureMissing, Denial::TokenMissing, Denial::Internal]);
        count("a", &[Denial::SignatureWrong]);
        count("none", &[Denial::CredentialMissing]);
        count("b", &[]);
        let both = report(&["a", "b"]);
        assert_eq!(both["verdict"], "a: fix signature first: 2 of 3 requests fail it, most for signature_wrong");
        assert_eq!((&both["safe"], &both["enforced"]), (&false.into(), &false.into()));
        let (a, b) = (&both["callers"]["a"], &both["callers"]["b"]);
        assert_eq!((&a["requests"], &b["verdict"]), (&3.into(), &SAFE.into()));
        assert_eq!(a["checks"]["signature"]["reasons"], json!({ "signature_wrong": 2 }));
        assert_eq!((&a["checks"]["token"]["fail"], &a["checks"]["token"]["mode"]), (&1.into(), &"shadow".into()));
        assert_eq!((&b["checks"]["token"]["fail"], &b["checks"]["token"]["mode"]), (&0.into(), &"enforce".into()));
        // Strangers that would be refused are what enforcement is for.
        assert_eq!(report(&["b"])["verdict"], SAFE);
        assert_eq!(report(&["b"])["callers"]["none"]["requests"], 1);
    }
}
