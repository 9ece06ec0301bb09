//! Which requests have a line of their own in the log.
//!
//! Those that were admitted and went well may be sampled, by their trace id, so that all replicas and whoever else goes by
//! it keep the same ones. Those that were refused always have one, until one caller at one address is refused so often for
//! one reason that the rest of a second is told in a line for many. Everything else has its line.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::bursts::{Bursts, Telling};
use super::{Log, LogRules};
use crate::denial::Denial;
use crate::event::{Decision, Event};
use crate::moment::Moment;
use crate::network::neighbourhood;

/// Tells the log of requests.
pub struct RequestLog {
    log: Log,
    bursts: Arc<Mutex<Bursts<Key, String>>>,
    sampled_out: AtomicU64,
    folded: AtomicU64,
}

/// What is folded together.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    level: &'static str,
    check: &'static str,
    reason: &'static str,
    caller: Option<usize>,
    /// What counts as one address; `None` when there are too many of them.
    client: Option<IpAddr>,
}

/// By what tells keys apart most; the rest follows from it nearly always.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.reason, self.caller, self.client).hash(state);
    }
}

impl RequestLog {
    /// Writes to a log.
    pub fn new(log: Log) -> RequestLog {
        RequestLog { log, bursts: Arc::default(), sampled_out: AtomicU64::new(0), folded: AtomicU64::new(0) }
    }

    /// Tells of one request. Needs a running tokio runtime.
    pub fn tell(&self, event: &Event<'_>, rules: LogRules) {
        match (event.decision, event.denial) {
            (Decision::Refused, Some(denial)) => self.tell_refusal(event, denial, rules),
            _ if event.is_sampled_out() => drop(self.sampled_out.fetch_add(1, Ordering::Relaxed)),
            _ => self.log.put(|out| event.put_line(out)),
        }
    }

    /// Tells what is left of bursts, when there will be nobody to come back.
    pub fn tell_rest(&self) {
        for (key, caller, count) in bursts(&self.bursts).all_the_rest() {
            say(&self.log, key, caller, count);
        }
    }

    /// Lines that sampling left out, and requests that are told of in a line for many.
    pub fn left_out(&self) -> (u64, u64) {
        (self.sampled_out.load(Ordering::Relaxed), self.folded.load(Ordering::Relaxed))
    }

    fn tell_refusal(&self, event: &Event<'_>, denial: Denial, rules: LogRules) {
        let mut key = Key {
            level: event.level(),
            check: denial.check().as_str(),
            reason: denial.reason(),
            caller: event.indices.caller,
            client: Some(neighbourhood(event.client)),
        };
        let now = Moment::now();
        let telling = {
            let mut bursts = bursts(&self.bursts);
            if !bursts.have_room(&key, MOST_BURSTS, now) {
                key.client = None;
            }
            bursts.one(&key, event.caller.as_ref(), rules.refusals_per_second, now)
        };
        let time = match telling {
            Telling::Now => return self.log.put(|out| event.put_line(out)),
            Telling::WithOthers => None,
            Telling::After(time) => Some(time),
        };
        self.folded.fetch_add(1, Ordering::Relaxed);
        if let Some(time) = time {
            let (log, all) = (self.log.clone(), Arc::clone(&self.bursts));
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                if let Some((caller, count)) = bursts(&all).rest(&key, Moment::now()) {
                    say(&log, &key, caller, count);
                }
            });
        }
    }
}

fn say(log: &Log, key: &Key, caller: &str, folded: u64) {
    let mut members = json!({ "caller": caller, "check": key.check, "reason": key.reason, "folded": folded });
    if let (Some(client), Some(members)) = (key.client, members.as_object_mut()) {
        members.insert("client.address".to_owned(), client.to_string().into());
    }
    log.say(key.level, "requests_refused", &members);
}

fn bursts(bursts: &Mutex<Bursts<Key, String>>) -> MutexGuard<'_, Bursts<Key, String>> {
    // A count that is off by one after a panic elsewhere is told all the same.
    bursts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reasons, callers and addresses that are told apart; beyond that, addresses are not.
const MOST_BURSTS: usize = 10_000;
