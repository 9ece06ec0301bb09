//! Tokens that ended: recorded before the answer that ended them is released, refused until their time is over.

use std::time::Duration;

use crate::denial::Denial;
use crate::ledger::{Ledger, Place};
use crate::token::{Standing, TokenDigest};

/// The tokens that ended, as digests, in memory.
///
/// Complete for this process since its start: nothing leaves before its time, and when the memory is full, requests that
/// could end another token are refused *before* they are forwarded ([`Revocations::room`]), so that the PAM never ends a
/// token that could not be recorded here.
pub struct Revocations {
    ended: Ledger<TokenDigest, ()>,
    keep: Duration,
}

/// The right to record one token.
#[derive(Debug)]
pub struct Room(Place);

impl Revocations {
    /// Remembers up to `most` tokens, each for `keep`.
    pub fn new(most: u64, keep: Duration) -> Revocations {
        Revocations { ended: Ledger::new(most), keep }
    }

    /// Is this token alive?
    pub fn standing(&self, token: &TokenDigest) -> Standing {
        if self.ended.has(token) { Standing::Ended } else { Standing::Alive }
    }

    /// Makes sure that one more token can be recorded, before anything happens that may end one.
    pub fn room(&self) -> Result<Room, Denial> {
        self.ended.reserve().map(Room).map_err(|_| Denial::RevocationFull)
    }

    /// Records that a token ended. When this returns, no check in this process passes it.
    pub fn revoke(&self, room: Room, token: TokenDigest) {
        self.ended.keep(room.0, token, (), self.keep);
    }

    /// Tokens recorded, and the bound.
    pub fn live(&self) -> (u64, u64) {
        (self.ended.count(), self.ended.most())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::DigestKey;

    fn digest(token: &str) -> TokenDigest {
        TokenDigest::of(token.as_bytes(), &DigestKey::new([3; 32]))
    }

    #[test]
    fn a_revoked_token_is_ended_and_no_other() {
        let revocations = Revocations::new(10, Duration::from_secs(60));
        revocations.revoke(revocations.room().unwrap(), digest("a"));
        assert_eq!(revocations.standing(&digest("a")), Standing::Ended);
        assert_eq!(revocations.standing(&digest("b")), Standing::Alive);
        assert_eq!(revocations.live(), (1, 10));
    }

    // threat: F2
    #[test]
    fn a_full_memory_refuses_new_endings_and_forgets_none() {
        let revocations = Revocations::new(1, Duration::from_secs(60));
        revocations.revoke(revocations.room().unwrap(), digest("a"));
        assert_eq!(revocations.room().unwrap_err(), Denial::RevocationFull);
        assert_eq!(revocations.standing(&digest("a")), Standing::Ended);
    }
}
