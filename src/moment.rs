//! Moments of the monotonic clock, small: a wall clock that jumps revives nobody, and a million of them take little room.

use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment of this process, in milliseconds since its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment::at(Instant::now())
    }

    /// A moment that has been looked up already; what was before the beginning counts as the beginning.
    pub fn at(instant: Instant) -> Moment {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        let since = instant.saturating_duration_since(*BEGINNING.get_or_init(Instant::now));
        Moment(NonZeroU64::MIN.saturating_add(millis(since)))
    }

    /// This much later; a part of a millisecond counts as a whole one.
    pub fn after(self, time: Duration) -> Moment {
        let rest = u64::from(!time.subsec_nanos().is_multiple_of(1_000_000));
        Moment(self.0.saturating_add(millis(time).saturating_add(rest)))
    }

    /// How much later this is than another moment; zero when it is not.
    pub fn since(self, other: Moment) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(other.0.get()))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_add_up() {
        let now = Moment::now();
        let later = now.after(Duration::from_micros(1500));
        assert_eq!(later.since(now), Duration::from_millis(2));
        assert_eq!(now.since(later), Duration::ZERO);
        assert_eq!(now.after(Duration::ZERO), now);
        assert!(now.after(Duration::MAX) > later);
        assert!(Moment::now() >= now);
    }

    #[test]
    fn an_entry_with_two_of_them_takes_sixteen_bytes_more_than_its_key() {
        assert_eq!(size_of::<([u8; 16], Option<Moment>, Moment)>(), 32);
    }
}
