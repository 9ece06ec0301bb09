//! Freshness: a timestamp that is a plain number and close to now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::denial::Denial;
use crate::dialect::source::Source;

/// Where a request says when it was signed, and how far from now that may be.
#[derive(Clone, Debug)]
pub struct TimestampRule {
    /// Where it stands; `None` when it is packed with the signature.
    pub at: Option<Source>,
    /// What it counts.
    pub unit: Unit,
    /// How far it may be from now, in either direction.
    pub tolerance: Duration,
}

/// What a timestamp counts since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Ten digits.
    Seconds,
    /// Thirteen digits.
    Milliseconds,
}

impl TimestampRule {
    /// Judges a timestamp as sent.
    ///
    /// The number has a fixed width, no sign and no zero in front: in a message without a separator between timestamp
    /// and body, a digit could otherwise move from one to the other and the signature would still match.
    pub fn judge(&self, text: &[u8], now: SystemTime) -> Result<(), Denial> {
        let plain = text.len() == self.unit.digits()
            && text.iter().all(u8::is_ascii_digit)
            && text.first().is_some_and(|&digit| digit != b'0');
        let number = plain.then(|| text.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        let since = number.map(|number| self.unit.duration(number)).ok_or(Denial::TimestampMalformed)?;
        // The timestamp is its sender's clock rounded down to a unit. Ours must be rounded the same way, or the window would
        // close up to a unit too early.
        let now = self.unit.floor(now.duration_since(UNIX_EPOCH).map_err(|_| Denial::Internal)?);
        if since.saturating_add(self.tolerance) < now {
            return Err(Denial::Stale);
        }
        if since > now.saturating_add(self.tolerance) {
            return Err(Denial::Early);
        }
        Ok(())
    }

    /// How long after it was first seen a message could still be fresh: signed ahead of time, it is fresh for twice the
    /// tolerance. A second more covers the rounding of both clocks.
    pub fn memory(&self) -> Duration {
        self.tolerance.saturating_mul(2).saturating_add(Duration::from_secs(1))
    }

    /// The timestamp for a moment, in this rule's unit.
    pub fn stamp(&self, at: SystemTime) -> String {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.unit {
            Unit::Seconds => since.as_secs().to_string(),
            Unit::Milliseconds => since.as_millis().to_string(),
        }
    }
}

impl Unit {
    fn digits(self) -> usize {
        match self {
            Unit::Seconds => 10,
            Unit::Milliseconds => 13,
        }
    }

    fn duration(self, number: u64) -> Duration {
        match self {
            Unit::Seconds => Duration::from_secs(number),
            Unit::Milliseconds => Duration::from_millis(number),
        }
    }

    fn floor(self, time: Duration) -> Duration {
        match self {
            Unit::Seconds => Duration::from_secs(time.as_secs()),
            Unit::Milliseconds => Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_706_090_303;

    fn judge(text: &str) -> Result<(), Denial> {
        let rule = TimestampRule { at: None, unit: Unit::Seconds, tolerance: Duration::from_secs(300) };
        rule.judge(text.as_bytes(), UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn the_window_is_closed_at_both_ends() {
        assert_eq!(judge(&NOW.to_string()), Ok(()));
        assert_eq!(judge(&(NOW - 300).to_string()), Ok(()));
        assert_eq!(judge(&(NOW - 301).to_string()), Err(Denial::Stale));
        assert_eq!(judge(&(NOW + 300).to_string()), Ok(()));
        assert_eq!(judge(&(NOW + 301).to_string()), Err(Denial::Early));
    }

    #[test]
    fn a_part_of_a_second_does_not_shorten_the_window() {
        let rule = TimestampRule { at: None, unit: Unit::Seconds, tolerance: Duration::from_secs(300) };
        let now = UNIX_EPOCH + Duration::from_millis(NOW * 1000 + 999);
        assert_eq!(rule.judge((NOW - 300).to_string().as_bytes(), now), Ok(()));
        assert_eq!(rule.judge((NOW - 301).to_string().as_bytes(), now), Err(Denial::Stale));
        assert_eq!(rule.judge((NOW + 301).to_string().as_bytes(), now), Err(Denial::Early));
    }

    // threat: D7
    #[test]
    fn only_a_plain_number_of_the_right_width_is_a_timestamp() {
        let long = "1".repeat(400);
        let cases = [
            "",
            "-1706090303",
            "+170609030",
            "01706090303",
            "0706090303",
            "1706090303.0",
            "1.7e9",
            "0x65B0E5FF",
            "1706090303000",
            "1706090303 ",
            " 1706090303",
            "1706090303,1706090303",
            "１706090303",
            "17060903o3",
            &long,
        ];
        for text in cases {
            assert_eq!(judge(text), Err(Denial::TimestampMalformed), "{text:?}");
        }
    }

    #[test]
    fn milliseconds_have_thirteen_digits() {
        let rule = TimestampRule { at: None, unit: Unit::Milliseconds, tolerance: Duration::from_secs(1) };
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        assert_eq!(rule.judge(b"1706090303999", now), Ok(()));
        assert_eq!(rule.judge(b"1706090304001", now), Err(Denial::Early));
        assert_eq!(rule.judge(b"1706090303", now), Err(Denial::TimestampMalformed));
    }
}
