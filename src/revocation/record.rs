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

    /// What is left of it after a time.
    pub fn after(self, time: Duration) -> Record {
        let fate = match self.fate {
            Fate::Ended { grace } => Fate::Ended { grace: grace.saturating_sub(time) },
            Fate::Pardoned => Fate::Pardoned,
        };
        Record { fate, left: self.left.saturating_sub(time), ..self }
    }

    /// What it was a time before.
    pub fn before(self, time: Duration) -> Record {
        let fate = match self.fate {
            // A grace that is over was over at some time since then; from when on is not known any more.
            Fate::Ended { grace: Duration::ZERO } => self.fate,
            Fate::Ended { grace } => Fate::Ended { grace: grace.saturating_add(time) },
            Fate::Pardoned => Fate::Pardoned,
        };
        Record { fate, left: self.left.saturating_add(time), ..self }
    }

    /// For how long it has been in force, when every end is kept for `keep` and its grace, and every pardon for `keep`.
    pub fn age(&self, keep: Duration) -> Duration {
        let grace = match self.fate {
            Fate::Ended { grace } => grace,
            Fate::Pardoned => Duration::ZERO,
        };
        keep.saturating_sub(self.left.saturating_sub(grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_record_ages_and_tells_its_age() {
        let token = TokenDigest::from_bytes([7; 16]);
        let ended = Record::ended(token, HOUR, 25 * HOUR);
        assert_eq!(ended.after(HOUR / 2), Record::ended(token, HOUR / 2, 24 * HOUR + HOUR / 2));
        assert_eq!(ended.after(HOUR / 2).before(HOUR / 2), ended);
        assert_eq!(ended.after(2 * HOUR), Record::ended(token, Duration::ZERO, 23 * HOUR));
        assert_eq!(ended.after(2 * HOUR).before(HOUR), Record::ended(token, Duration::ZERO, 24 * HOUR));
        assert_eq!(ended.after(30 * HOUR).left, Duration::ZERO);
        assert_eq!(ended.age(24 * HOUR), Duration::ZERO);
        // Within its grace a record is not in force yet, and from then on it ages.
        assert_eq!(ended.after(HOUR / 2).age(24 * HOUR), Duration::ZERO);
        assert_eq!(ended.after(3 * HOUR).age(24 * HOUR), 2 * HOUR);
        let pardoned = Record { token, fate: Fate::Pardoned, left: 24 * HOUR };
        assert_eq!(pardoned.after(HOUR).age(24 * HOUR), HOUR);
    }
}
