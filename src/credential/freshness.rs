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
    /// What was signed when another rule was in force.
    pub before: Option<Before>,
}

/// A rule that was in force before, with less tolerance: what was admitted by it may have been forgotten already, so it must
/// not become fresh again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// It admitted nothing that says it was signed later, since 1970-01-01T00:00:00Z.
    pub until: Duration,
    /// How far in the past a timestamp of that time may be.
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
        if since.saturating_add(self.tolerance_for(since)) < now {
            return Err(Denial::Stale);
        }
        if since > now.saturating_add(self.tolerance) {
            return Err(Denial::Early);
        }
        Ok(())
    }

    /// How far in the past a timestamp may be.
    fn tolerance_for(&self, since: Duration) -> Duration {
        match self.before {
            Some(before) if since <= before.until => self.tolerance.min(before.tolerance),
            Some(_) | None => self.tolerance,
        }
    }

    /// Takes the place of `earlier` at a moment: a wider tolerance is one for what is signed from then on.
    pub fn follow(&mut self, earlier: &TimestampRule, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // What was in force before that one counts for as long as something from that time could be fresh.
        let before = earlier.before.filter(|before| before.until.saturating_add(self.tolerance) >= now);
        if self.tolerance == earlier.tolerance {
            self.before = before;
            return;
        }
        let (until, tolerance) = (now.saturating_add(earlier.tolerance), earlier.tolerance);
        self.before = Some(before.map_or(Before { until, tolerance }, |before| Before {
            until: before.until.max(until),
            tolerance: before.tolerance.min(tolerance),
        }));
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
        let rule = TimestampRule { at: None, unit: Unit::Seconds, tolerance: Duration::from_secs(300), before: None };
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
        let rule = TimestampRule { at: None, unit: Unit::Seconds, tolerance: Duration::from_secs(300), before: None };
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
        let rule =
            TimestampRule { at: None, unit: Unit::Milliseconds, tolerance: Duration::from_secs(1), before: None };
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        assert_eq!(rule.judge(b"1706090303999", now), Ok(()));
        assert_eq!(rule.judge(b"1706090304001", now), Err(Denial::Early));
        assert_eq!(rule.judge(b"1706090303", now), Err(Denial::TimestampMalformed));
    }

    // threat: D9, D10
    #[test]
    fn a_wider_tolerance_makes_nothing_fresh_that_was_forgotten() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(NOW + seconds);
        let rule = |seconds, earlier: Option<(&TimestampRule, u64)>| {
            let tolerance = Duration::from_secs(seconds);
            let mut rule = TimestampRule { at: None, unit: Unit::Seconds, tolerance, before: None };
            if let Some((earlier, when)) = earlier {
                rule.follow(earlier, at(when));
            }
            rule
        };
        let judge = |rule: &TimestampRule, signed: u64, now| rule.judge((NOW + signed).to_string().as_bytes(), at(now));
        let narrow = rule(10, None);
        let wide = rule(300, Some((&narrow, 100)));
        // Signed at 90 it was admitted at 100, and is forgotten at 121.
        assert_eq!((judge(&wide, 90, 100), judge(&wide, 90, 122)), (Ok(()), Err(Denial::Stale)));
        // Signed ahead of time, it was admitted at 100 as well.
        assert_eq!((judge(&wide, 110, 120), judge(&wide, 110, 122)), (Ok(()), Err(Denial::Stale)));
        // What was signed later is remembered for as long as it is fresh.
        assert_eq!((judge(&wide, 111, 411), judge(&wide, 111, 412)), (Ok(()), Err(Denial::Stale)));
        // The next generation with the same rule knows it too, and after a while there is nothing left to know.
        let next = rule(300, Some((&wide, 150)));
        assert_eq!((next.before, judge(&next, 110, 150)), (wide.before, Err(Denial::Stale)));
        assert_eq!(rule(300, Some((&next, 411))).before, None);
        // Back and forth.
        let again = rule(600, Some((&rule(5, Some((&next, 200))), 210)));
        assert_eq!((judge(&again, 480, 485), judge(&again, 480, 500)), (Ok(()), Err(Denial::Stale)));
        assert_eq!(judge(&again, 501, 1101), Ok(()));
    }
}
