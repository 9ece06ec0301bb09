//! How long one exchange may still take.

use std::time::{Duration, Instant};

use crate::prompt::Limit;

/// A bound on a whole exchange, from which every step takes its own.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    since: Instant,
    total: Duration,
}

impl Patience {
    /// From `since` on, at most `total` altogether.
    pub(super) fn starting(since: Instant, total: Duration) -> Patience {
        Patience { since, total }
    }

    /// Without a bound on the whole: every step has its own only.
    pub(super) fn per_step() -> Patience {
        Patience::starting(Instant::now(), Duration::MAX)
    }

    /// When the exchange began.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// What bounds a step, where `step` is its own bound.
    pub(super) fn limit(&self, step: Duration) -> Limit {
        Limit::until(step, self.since.checked_add(self.total).map(Into::into))
    }

    /// How long a step that is starting may take, where `step` is its own bound.
    pub(super) fn at_most(&self, step: Duration) -> Duration {
        step.min(self.total.saturating_sub(self.since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_step_never_gets_more_than_the_whole_has_left() {
        let patience = Patience::starting(Instant::now(), Duration::from_millis(1));
        assert!(patience.at_most(HOUR) <= Duration::from_millis(1));
    }

    #[test]
    fn a_step_never_gets_more_than_its_own_bound() {
        assert_eq!(Patience::starting(Instant::now(), HOUR).at_most(Duration::ZERO), Duration::ZERO);
        assert_eq!(Patience::per_step().at_most(HOUR), HOUR);
    }

    #[test]
    fn nothing_is_left_when_the_whole_is_used_up() {
        assert_eq!(Patience::starting(Instant::now(), Duration::ZERO).at_most(HOUR), Duration::ZERO);
    }
}
