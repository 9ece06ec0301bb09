//! The answers to what the gate asks: the memories of this process.

use std::time::Duration;

use crate::credential::password::{PasswordQuestion, Passwords};
use crate::credential::replay::{ReplayKey, Replays, Ticket};
use crate::denial::Denial;
use crate::gate::Ask;
use crate::revocation::{Revocations, Room};
use crate::token::{Standing, TokenDigest};

/// Right passwords, signed messages, ended tokens.
pub struct Memory {
    pub passwords: Passwords,
    pub replays: Replays,
    pub revocations: Revocations,
}

impl Ask for Memory {
    async fn password(&self, question: PasswordQuestion) -> Result<bool, Denial> {
        self.passwords.verify(question).await
    }

    async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.replays.first(key, time).await
    }

    async fn standing(&self, token: TokenDigest) -> Result<Standing, Denial> {
        Ok(self.revocations.standing(&token))
    }

    fn room(&self) -> Result<Room, Denial> {
        self.revocations.room()
    }
}
