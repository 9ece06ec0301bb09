//! The answers to what the gate asks: the memories of this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Refusals;
use crate::credential::password::{PasswordQuestion, Passwords};
use crate::credential::replay::{ReplayKey, Replays, Ticket};
use crate::denial::Denial;
use crate::gate::Ask;
use crate::revocation::presumed::Presumed;
use crate::revocation::{Revocations, Room};
use crate::token::{Standing, TokenDigest};

/// Right passwords, signed messages, ended tokens, and those the PAM does not seem to know any more.
pub struct Memory {
    pub passwords: Passwords,
    pub replays: Replays,
    pub revocations: Arc<Revocations>,
    /// `None` when nothing is learnt from the PAM.
    pub presumed: Option<Arc<Presumed>>,
    /// What never became a request and has not been told yet.
    pub refusals: Arc<Refusals>,
}

/// One request's questions.
pub struct Asking<'m> {
    memory: &'m Memory,
    waited: Mutex<Duration>,
}

impl Memory {
    /// For the next generation, which has callers with other names and secrets: what ended and what was admitted stays
    /// known, which password was right does not.
    pub fn successor(&self, callers: &[Box<str>], patience: Duration) -> Memory {
        Memory {
            passwords: self.passwords.successor(),
            replays: self.replays.successor(callers, patience),
            revocations: Arc::clone(&self.revocations),
            presumed: self.presumed.clone(),
            refusals: Arc::clone(&self.refusals),
        }
    }

    /// For one request.
    pub fn asking(&self) -> Asking<'_> {
        Asking { memory: self, waited: Mutex::default() }
    }
}

impl Asking<'_> {
    /// How long an answer waited for the PAM's word on an earlier copy: the PAM's time, not ours.
    pub fn waited(&self) -> Duration {
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ask for Asking<'_> {
    async fn password(&self, question: PasswordQuestion) -> Result<bool, Denial> {
        self.memory.passwords.verify(question).await
    }

    async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        let asked = Instant::now();
        let first = self.memory.replays.first(key, time).await;
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner) += asked.elapsed();
        first
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
