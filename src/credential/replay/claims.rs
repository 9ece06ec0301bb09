//! Signed messages of all replicas: each is claimed in the store they share before it is admitted.
//!
//! A claim is a key that is set only where there is none (`SET NX`) and expires when the message has gone stale. It says
//! `settled` once the PAM has given a definitive answer; until then a copy at another replica is told to come again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::cmd;
use sha2::{Digest, Sha256};

use super::ReplayKey;
use crate::denial::Denial;
use crate::hex;
use crate::revocation::feed::Feed;
use crate::revocation::store::Fault;

/// Where messages are claimed.
pub struct Claims {
    feed: Arc<Feed>,
    callers: Vec<Box<str>>,
    strict: bool,
}

/// A message that this replica has claimed. Unless [`Claim::settle`] is called, dropping it lets go of the message.
pub struct Claim {
    feed: Arc<Feed>,
    keys: Vec<String>,
    /// What the keys say, if they are ours.
    nonce: String,
    until: Instant,
}

impl Claims {
    /// Claims in `feed`'s store for `callers`, in their order. While the store is away, `strict` refuses what could not be
    /// claimed; otherwise what this replica has seen must do.
    pub fn new(feed: Arc<Feed>, callers: Vec<Box<str>>, strict: bool) -> Claims {
        Claims { feed, callers, strict }
    }

    /// The same for other callers.
    pub fn successor(&self, callers: &[Box<str>]) -> Claims {
        Claims { feed: Arc::clone(&self.feed), callers: callers.to_vec(), strict: self.strict }
    }

    /// Claims a message for `time`, under every key it may be known by elsewhere.
    pub async fn claim(&self, key: &ReplayKey, time: Duration) -> Result<Claim, Denial> {
        let caller = self.callers.get(key.caller).ok_or(Denial::Internal)?;
        let mut claim = Claim {
            feed: Arc::clone(&self.feed),
            keys: Vec::new(),
            nonce: format!("open {:016x}", rand::random::<u64>()),
            until: Instant::now() + time,
        };
        for message in std::iter::once(&key.message).chain(&key.under_other_keys) {
            // What stands in the store must not be a piece of a signature.
            let digest = Sha256::digest(message);
            let name = self.feed.name(&format!("seen:{caller}:{}", hex::encode(digest.get(..16).unwrap_or_default())));
            match self.take(&name, &claim.nonce, time).await {
                Ok(None) => claim.keys.push(name),
                Ok(Some(earlier)) if earlier == claim.nonce => claim.keys.push(name),
                Ok(Some(earlier)) if earlier == SETTLED => return Err(Denial::Replayed),
                Ok(Some(_)) => return Err(Denial::CopyInFlight),
                // It may have been set all the same, and must then be let go of with the others.
                Err(denial) => {
                    claim.keys.push(name);
                    if self.strict {
                        return Err(denial);
                    }
                }
            }
        }
        Ok(claim)
    }

    /// Sets the key where there is none, or says what it is.
    async fn take(&self, name: &str, nonce: &str, time: Duration) -> Result<Option<String>, Denial> {
        let mut set = cmd("SET");
        set.arg(name).arg(nonce).arg("PX").arg(millis(time)).arg("NX");
        let set: Option<String> = self.feed.ask(&set).await.map_err(|_| Denial::StoreAway)?;
        if set.is_some() {
            return Ok(None);
        }
        // Ours as well when an earlier attempt's answer was lost on its way here.
        self.feed.ask(cmd("GET").arg(name)).await.map_err(|_| Denial::StoreAway)
    }
}

impl Claim {
    /// The PAM gave a definitive answer. The news may go its way alone: until it is there, copies are not admitted either.
    pub fn settle(mut self) {
        let (feed, keys, left) = (Arc::clone(&self.feed), std::mem::take(&mut self.keys), self.left());
        spawn(async move {
            for key in keys {
                let mut set = cmd("SET");
                set.arg(&key).arg(SETTLED).arg("PX").arg(millis(left).max(1));
                let _: Result<String, _> = feed.ask(&set).await;
            }
        });
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (feed, keys, left) = (Arc::clone(&self.feed), std::mem::take(&mut self.keys), self.left());
        if keys.is_empty() {
            return;
        }
        let nonce = std::mem::take(&mut self.nonce);
        // Its sender will send the same message again, and must get through: this is not given up before it is pointless.
        spawn(async move {
            let over = tokio::time::Instant::now() + left;
            for key in keys {
                while let_go(&feed, &key, &nonce).await.is_err() && tokio::time::Instant::now() < over {
                    tokio::time::sleep(TRIED_EVERY).await;
                }
            }
        });
    }
}

/// Takes the key away if it is ours: what could not be claimed for sure may be another replica's.
async fn let_go(feed: &Feed, key: &str, nonce: &str) -> Result<(), Fault> {
    let found: Option<String> = feed.ask(cmd("GET").arg(key)).await?;
    if found.is_some_and(|found| found == nonce) {
        let _: u64 = feed.ask(cmd("DEL").arg(key)).await?;
    }
    Ok(())
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    // Without a runtime the process is ending.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const SETTLED: &str = "settled";

const TRIED_EVERY: Duration = Duration::from_millis(500);
