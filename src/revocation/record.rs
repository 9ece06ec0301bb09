//! What is known about a token, as it is remembered, written and sent.

use std::time::Duration;

use crate::token::TokenDigest;

/// One token's fate, with times that count from now: clocks differ between machines, and jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The token.
    pub token: TokenDigest,
    /// What becomes of it.
    pub fate: Fate,
    /// For how long this is to be remembered.
    pub left: Duration,
}

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is refused, once its grace is over.
    Ended {
        /// Zero for all but families that keep the old token for a moment.
        grace: Duration,
    },
    /// An operator took back that it ended; remembered so that no older news ends it again.
    Pardoned,
}

impl Record {
    /// That a token ended.
    pub fn ended(token: TokenDigest, grace: Duration, left: Duration) -> Record {
        Record { token, fate: Fate::Ended { grace }, left }
    }
}
