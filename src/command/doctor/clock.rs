//! Whether this clock is off: against the PAM's `Date`, and against the store's where there is one.

use std::time::{Duration, SystemTime};

use super::finding::Finding;

/// How far another clock is from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// As far as can be told, not at all.
    No,
    /// It is later than ours, by this at least.
    Ahead(Duration),
    /// It is earlier.
    Behind(Duration),
}

impl Apart {
    /// Of a clock that showed something from `earliest` to `latest`, at a moment between two of ours.
    pub fn of(earliest: SystemTime, latest: SystemTime, began: SystemTime, ended: SystemTime) -> Apart {
        let positive = |time: Option<Duration>| time.filter(|time| !time.is_zero());
        if let Some(ahead) = positive(earliest.duration_since(ended).ok()) {
            return Apart::Ahead(ahead);
        }
        positive(began.duration_since(latest).ok()).map_or(Apart::No, Apart::Behind)
    }

    fn by(self) -> Duration {
        match self {
            Apart::No => Duration::ZERO,
            Apart::Ahead(by) | Apart::Behind(by) => by,
        }
    }
}

/// Whether the PAM's clock, by the Date of its answer, is ours. `tolerance` is what a signed timestamp may be off.
pub fn judge_pam(date: Option<&str>, began: SystemTime, ended: SystemTime, tolerance: Option<Duration>) -> Finding {
    let Some(date) = date else {
        return Finding::unknown(CLOCK, "the PAM's answer has no Date to compare this clock with");
    };
    // Counts whole seconds (RFC 9110 §5.6.7), and many servers make it anew only each second.
    let Ok(at) = httpdate::parse_http_date(date) else {
        return Finding::unknown(CLOCK, "the Date of the PAM's answer is none that HTTP knows");
    };
    judge("the PAM's", Apart::of(at, at + Duration::from_secs(2), began, ended), tolerance)
}

/// The same of a clock that is called so: `the PAM's`.
pub fn judge(whose: &str, apart: Apart, tolerance: Option<Duration>) -> Finding {
    let said = match apart {
        Apart::No => format!("{whose} clock shows the same"),
        Apart::Ahead(by) => format!("{whose} clock is ahead of this one by {}", said(by)),
        Apart::Behind(by) => format!("{whose} clock is behind this one by {}", said(by)),
    };
    let (finding, worst): (fn(&'static str, String) -> Finding, _) = match (apart.by(), tolerance) {
        // The other half is for the callers, whose clocks are what counts in the end.
        (by, Some(tolerance)) if by > tolerance / 2 => (Finding::wrong, true),
        (by, None) if by > NOTICEABLE => (Finding::unknown, true),
        _ => (|of, found| Finding::sound(of, found), false),
    };
    let bearing = match tolerance {
        Some(tolerance) => format!("; what callers sign may be off by {}", self::said(tolerance)),
        None => "; callers sign no time, so that only logs and traces depend on it".to_owned(),
    };
    let finding = finding(CLOCK, format!("{said}{bearing}"));
    if worst {
        finding.advise("see which of the two is right (`chronyc tracking` on the nodes), and set the other")
    } else {
        finding
    }
}

/// Seconds are enough.
fn said(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs().max(1))).to_string()
}

const CLOCK: &str = "clock";

/// Where nothing but logs depends on it.
const NOTICEABLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn at(seconds: u64, millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_706_090_300 + seconds) + Duration::from_millis(millis)
    }

    const TOLERANCE: Option<Duration> = Some(Duration::from_secs(300));

    #[test]
    fn clocks_are_apart_by_what_rounding_and_the_round_trip_do_not_explain() {
        let seconds = Duration::from_secs;
        for (earliest, began, ended, expected) in [
            (at(10, 0), at(10, 500), at(10, 600), Apart::No),
            // Rounded down, and said by a server that looks at its clock each second.
            (at(10, 0), at(11, 900), at(11, 990), Apart::No),
            // The answer took five seconds.
            (at(14, 0), at(10, 0), at(15, 0), Apart::No),
            (at(20, 0), at(9, 0), at(10, 0), Apart::Ahead(seconds(10))),
            (at(10, 0), at(22, 0), at(23, 0), Apart::Behind(seconds(10))),
        ] {
            assert_eq!(Apart::of(earliest, earliest + seconds(2), began, ended), expected);
        }
    }

    #[test]
    fn more_than_half_of_the_tolerance_is_wrong() {
        let judged = |by: u64, tolerance| judge("the PAM's", Apart::Ahead(Duration::from_secs(by)), tolerance);
        let found = judged(600, TOLERANCE);
        let expected = "the PAM's clock is ahead of this one by 10m; what callers sign may be off by 5m";
        assert_eq!((found.verdict, &*found.found[0]), (Verdict::Wrong, expected));
        assert_eq!(judged(151, TOLERANCE).verdict, Verdict::Wrong);
        assert_eq!(judged(150, TOLERANCE).verdict, Verdict::Sound);
        assert_eq!(judged(600, None).verdict, Verdict::Unknown);
        assert_eq!(judged(30, None).verdict, Verdict::Sound);
    }

    #[test]
    fn a_date_is_read_in_each_of_its_forms() {
        let judged = |date| judge_pam(date, at(3, 0), at(3, 100), TOLERANCE).verdict;
        for date in ["Wed, 24 Jan 2024 09:58:23 GMT", "Wednesday, 24-Jan-24 09:58:23 GMT", "Wed Jan 24 09:58:23 2024"] {
            assert_eq!(judged(Some(date)), Verdict::Sound, "{date}");
        }
        assert_eq!(judged(Some("Wed, 24 Jan 2024 10:08:23 GMT")), Verdict::Wrong);
        for date in [None, Some(""), Some("today")] {
            assert_eq!(judged(date), Verdict::Unknown);
        }
    }
}
