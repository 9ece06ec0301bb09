//! Bounds on how long something may take, for what mostly takes no time at all.
//!
//! A timer that is set and put away for every read costs more than the read: it takes the runtime's lock twice, and one
//! that is the next to run out wakes a thread that sleeps.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Bounds what is done on one connection, one thing after the other, by a single timer: it stays where it is when it would
/// only have to run later, and looks again when it runs out.
#[derive(Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

/// How long something may take. No clock is asked for it before it is known to take any time.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    step: Duration,
    since: Option<Instant>,
    until: Option<Instant>,
}

impl Limit {
    /// So long, but not beyond this moment.
    pub fn until(step: Duration, until: Option<Instant>) -> Limit {
        Limit { step, since: None, until }
    }

    /// So long, and it began at this moment: no clock is asked at all.
    pub fn since(step: Duration, since: Instant) -> Limit {
        Limit { step, since: Some(since), until: None }
    }

    /// When the time is over of what begins now, unless it is known when it began.
    fn due(self) -> Instant {
        let due = self.since.unwrap_or_else(Instant::now) + self.step.min(LONGEST);
        self.until.map_or(due, |until| due.min(until))
    }
}

impl From<Duration> for Limit {
    fn from(step: Duration) -> Limit {
        Limit::until(step, None)
    }
}

/// Waits for something, but not for longer than `limit`. What is ready at once needs neither a clock nor a timer.
///
/// # Errors
/// When the time is over.
pub async fn within<F: Future>(limit: impl Into<Limit>, future: F) -> Result<F::Output, Elapsed> {
    Deadline::default().within(limit, future).await
}

/// What comes of something without waiting for it; it can be awaited afterwards.
pub async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

impl Deadline {
    /// Waits for something, but not for longer than `limit`.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn within<F: Future>(&mut self, limit: impl Into<Limit>, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        if let Some(output) = at_once(future.as_mut()).await {
            return Ok(output);
        }
        let due = limit.into().due();
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        // It has been asked in this very turn, and will wake the same task.
        let mut asked = true;
        poll_fn(|context| {
            if !std::mem::take(&mut asked)
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                return Poll::Ready(Ok(output));
            }
            while sleep.as_mut().poll(context).is_ready() {
                if Instant::now() >= due {
                    return Poll::Ready(Err(Elapsed));
                }
                sleep.as_mut().reset(due);
            }
            Poll::Pending
        })
        .await
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deadline")
    }
}

/// No connection lives as long; and a moment that is further away than the clock can tell would be none.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_is_taken_whatever_the_limit_and_what_is_not_is_waited_for() {
        assert_eq!(within(Duration::ZERO, async { 1 }).await, Ok(1));
        let before = Instant::now();
        assert_eq!(within(MINUTE, pending::<()>()).await, Err(Elapsed));
        assert_eq!(before.elapsed(), MINUTE);
        assert_eq!(within(2 * MINUTE, sleep(MINUTE)).await, Ok(()));
        assert_eq!(within(Duration::MAX, sleep(MINUTE)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_has_its_own_limit_and_that_of_the_whole() {
        let before = Instant::now();
        for (step, whole, takes) in [(1, 9, 1), (5, 3, 2), (5, 3, 0)] {
            let limit = Limit::until(step * MINUTE, Some(before + whole * MINUTE));
            let began = Instant::now();
            assert_eq!(within(limit, pending::<()>()).await, Err(Elapsed));
            assert_eq!(began.elapsed(), takes * MINUTE, "{step} of {whole}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_timer_serves_longer_and_shorter_limits_one_after_the_other() {
        let mut deadline = Deadline::default();
        for (limit, takes) in [(5, 1), (9, 8), (1, 2), (7, 6), (7, 8), (2, 1), (1, 3), (30, 29), (1, 2)] {
            let before = Instant::now();
            let done = deadline.within(limit * MINUTE, sleep(takes * MINUTE)).await;
            assert_eq!(done.is_ok(), takes < limit, "{takes} of {limit}");
            assert_eq!(before.elapsed(), takes.min(limit) * MINUTE, "{takes} of {limit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_leaves_the_timer_as_good_as_new() {
        let mut deadline = Deadline::default();
        tokio::select! {
            biased;
            _ = deadline.within(5 * MINUTE, pending::<()>()) => panic!("over"),
            () = sleep(MINUTE) => {}
        }
        let before = Instant::now();
        assert_eq!(deadline.within(10 * MINUTE, pending::<()>()).await, Err(Elapsed));
        assert_eq!(before.elapsed(), 10 * MINUTE);
    }
}
