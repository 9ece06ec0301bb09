//! Moments of the monotonic clock, small: a wall clock that jumps revives nobody, and a million of them take little room.

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment of this process, in sixteenths of a second since its beginning. Eight years is as far as it goes: what is
/// later is then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU32);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        let elapsed = BEGINNING.get_or_init(Instant::now).elapsed();
        let ticks = elapsed.as_secs() * TICKS + u64::from(elapsed.subsec_nanos() / TICK_NANOS);
        Moment(NonZeroU32::MIN.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }

    /// At least this much later than the end of this tick, but nothing later is this very moment.
    pub fn after(self, time: Duration) -> Moment {
        let rest = u64::from(time.subsec_nanos().div_ceil(TICK_NANOS)) + u64::from(!time.is_zero());
        let ticks = time.as_secs().saturating_mul(TICKS).saturating_add(rest);
        Moment(self.0.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }

    /// How much later this is at least than the end of another moment's tick; zero when it is not.
    pub fn since(self, other: Moment) -> Duration {
        let ticks = u64::from(self.0.get().saturating_sub(other.0.get()).saturating_sub(1));
        Duration::from_nanos(ticks * u64::from(TICK_NANOS))
    }
}

const TICKS: u64 = 16;

const TICK_NANOS: u32 = 62_500_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_add_up() {
        let now = Moment::now();
        let later = now.after(Duration::from_millis(100));
        assert_eq!(later.since(now), Duration::from_millis(125));
        assert_eq!(now.since(later), Duration::ZERO);
        assert_eq!(now.after(Duration::ZERO), now);
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(now.after(day).since(now), day);
        assert!(now.after(Duration::MAX) > now.after(365 * 8 * day));
        assert!(Moment::now() >= now);
    }

    #[test]
    fn an_entry_with_two_of_them_takes_eight_bytes_more_than_its_key() {
        assert_eq!(size_of::<([u8; 16], Option<Moment>, Moment)>(), 24);
    }
}
