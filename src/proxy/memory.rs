//! The answers to what the gate asks: the memories of this process.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Refusals;
use crate::config::Limits;
use crate::credential::password::{PasswordQuestion, Passwords};
use crate::credential::replay::{ReplayKey, Replays, Ticket};
use crate::denial::Denial;
use crate::gate::{Ask, Trail};
use crate::lockout::Lockouts;
use crate::log::requests::RequestLog;
use crate::moment::Moment;
use crate::network::neighbourhood;
use crate::prompt::at_once;
use crate::rate::Rates;
use crate::revocation::presumed::Presumed;
use crate::revocation::{Revocations, Room};
use crate::secret::SecretDigest;
use crate::sight::Sight;
use crate::token::{Standing, TokenDigest};

/// Right passwords, signed messages, ended tokens, those the PAM does not seem to know any more, and who calls or fails too
/// often.
pub struct Memory {
    pub passwords: Arc<Passwords>,
    pub replays: Replays,
    pub revocations: Arc<Revocations>,
    /// `None` when nothing is learnt from the PAM.
    pub presumed: Option<Arc<Presumed>>,
    /// How often requests come, by where from and by whom.
    pub addresses: Arc<Rates<IpAddr>>,
    pub callers: Arc<Rates<Box<str>>>,
    pub lockouts: Arc<Lockouts>,
    /// What never became a request and has not been told yet.
    pub refusals: Arc<Refusals>,
    /// Which requests have a line in the log.
    pub requests: Arc<RequestLog>,
    /// What people look at.
    pub sight: Arc<Sight>,
}

/// One request's questions.
pub struct Asking<'m> {
    memory: &'m Memory,
    limits: &'m Limits,
    /// Where it comes from.
    client: IpAddr,
    waited: Mutex<Duration>,
}

impl Memory {
    /// For the next generation, which has callers with other names and secrets: what ended, what was admitted and which
    /// password was right by the same hashes stays known. Whoever guesses must not gain a place in front of those who are
    /// right because a config changes.
    pub fn successor(&self, callers: &[Box<str>], patience: Duration) -> Memory {
        Memory {
            passwords: Arc::clone(&self.passwords),
            replays: self.replays.successor(callers, patience),
            revocations: Arc::clone(&self.revocations),
            presumed: self.presumed.clone(),
            addresses: Arc::clone(&self.addresses),
            callers: Arc::clone(&self.callers),
            lockouts: Arc::clone(&self.lockouts),
            refusals: Arc::clone(&self.refusals),
            requests: Arc::clone(&self.requests),
            sight: Arc::clone(&self.sight),
        }
    }

    /// For one request, under the limits of a generation.
    pub fn asking<'m>(&'m self, limits: &'m Limits, client: IpAddr) -> Asking<'m> {
        Asking { memory: self, limits, client, waited: Mutex::default() }
    }

    /// Counts a request from an address, before anything else is known of it.
    pub fn rate_of_address(&self, client: IpAddr, limits: &Limits) -> Result<(), Denial> {
        match limits.rate_per_address {
            0 => Ok(()),
            rate => {
                let taken = self.addresses.take(neighbourhood(client), rate, Moment::now());
                taken.map_err(|wait| Denial::RateAddress(seconds(wait)))
            }
        }
    }
}

impl Asking<'_> {
    /// How long an answer waited for the PAM's word on an earlier copy: the PAM's time, not ours.
    pub fn waited(&self) -> Duration {
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a proof that failed, and forgets those before one that succeeded. What is refused for such a failure becomes
    /// another refusal where there have been too many.
    pub fn judged<T>(&self, admitted: Result<T, Denial>, trail: &Trail<'_>) -> Result<T, Denial> {
        let (Some(rule), Some(claim)) = (&self.limits.lockout, trail.claim) else { return admitted };
        let lockouts = &self.memory.lockouts;
        match admitted {
            Err(denial) if denial.is_failed_proof() => {
                let locked = lockouts.failed(claim, self.client, rule, Moment::now());
                Err(locked.map_or(denial, |left| Denial::LockedOut(seconds(left))))
            }
            admitted => {
                if trail.proven {
                    lockouts.succeeded(claim, self.client);
                }
                admitted
            }
        }
    }
}

impl Ask for Asking<'_> {
    async fn password(&self, question: PasswordQuestion, claim: SecretDigest) -> Result<Option<usize>, Denial> {
        let locked_out = self.limits.lockout.is_some() && self.memory.lockouts.has(claim, self.client, Moment::now());
        self.memory.passwords.verify(question, locked_out).await
    }

    fn rate(&self, caller: &str) -> Result<(), Denial> {
        match self.limits.rate_per_caller {
            0 => Ok(()),
            rate => {
                let taken = self.memory.callers.take(caller.into(), rate, Moment::now());
                taken.map_err(|wait| Denial::RateCaller(seconds(wait)))
            }
        }
    }

    fn counts_failures(&self, failed: bool) -> bool {
        self.limits.lockout.is_some() && (failed || self.memory.lockouts.know(self.client))
    }

    async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        let mut first = pin!(self.memory.replays.first(key, time));
        if let Some(first) = at_once(first.as_mut()).await {
            return first;
        }
        let asked = Instant::now();
        let first = first.await;
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner) += asked.elapsed();
        first
    }

    fn first_here(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.memory.replays.first_now(&key, time)
    }

    fn standing_here(&self, token: TokenDigest, text: &[u8]) -> Standing {
        let standing = self.memory.revocations.standing_here(&token, text);
        if standing == Standing::Alive {
            self.memory.revocations.saw(token);
        }
        standing
    }

    async fn standing(&self, token: TokenDigest, text: &[u8]) -> Result<Standing, Denial> {
        let standing = self.memory.revocations.standing(&token, text).await?;
        if standing == Standing::Alive {
            self.memory.revocations.saw(token);
        }
        Ok(standing)
    }

    fn presumed(&self, presumption: TokenDigest) -> bool {
        self.memory.presumed.as_ref().is_some_and(|presumed| presumed.has(&presumption))
    }

    fn room(&self) -> Result<Room, Denial> {
        self.memory.revocations.room()
    }
}

/// Whole seconds until the time is over, which Retry-After is made of.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// Addresses whose rate is counted at the same time, at some hundred bytes each.
pub const MOST_ADDRESSES: usize = 100_000;

/// No config has as many callers.
pub const MOST_CALLERS: usize = 100_000;
