//! How a server takes its leave, and how its connections hear of it.
//!
//! First it is announced: every reply says that its connection ends, so that those in use go elsewhere by themselves. Then
//! it stops, and what is left is not closed before it has had time for a request that was on its way.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    announced: Option<Instant>,
    stopped: bool,
}

/// Begins and ends it.
pub struct Leave(watch::Sender<Phase>);

/// What a connection sees of it.
pub struct Leaving {
    phase: watch::Receiver<Phase>,
    opened: Instant,
    end: Option<End>,
}

/// An ear for the end of a connection. It is put to the door once and stays there: to put it there for each request takes a
/// lock that all connections share.
struct End {
    news: watch::Receiver<Phase>,
    over: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    /// Whom it wakes.
    wakes: Option<Waker>,
    has_come: bool,
}

impl Leave {
    /// Not yet.
    pub fn new() -> (Leave, Leaving) {
        let (sender, receiver) = watch::channel(Phase::default());
        (Leave(sender), Leaving { phase: receiver, opened: Instant::now(), end: None })
    }

    /// From now on connections end behind the request they serve.
    pub fn announce(&self) {
        self.0.send_modify(|phase| phase.announced = phase.announced.or(Some(Instant::now())));
    }

    /// From now on nothing new is accepted.
    pub fn stop(&self) {
        self.announce();
        self.0.send_modify(|phase| phase.stopped = true);
    }
}

impl Leaving {
    /// For a connection that is opened now.
    pub fn opened(&self) -> Leaving {
        Leaving { phase: self.phase.clone(), opened: Instant::now(), end: None }
    }

    /// Whether it has been announced.
    pub fn is_announced(&self) -> bool {
        self.phase.borrow().announced.is_some()
    }

    /// Waits until it is.
    pub async fn announced(&mut self) {
        // Whoever could announce it is gone: then this is the end as well.
        let _ = self.phase.wait_for(|phase| phase.announced.is_some()).await;
    }

    /// Waits until a connection on which nothing is under way can be closed: one who has begun to write when the last reply
    /// told everybody to leave, or who has only just been let in, has been heard by then.
    pub async fn over(&mut self) {
        let Leaving { phase, opened, end } = self;
        let end = end.get_or_insert_with(|| End {
            news: phase.clone(),
            over: Box::pin(over(phase.clone(), *opened)),
            wakes: None,
            has_come: false,
        });
        poll_fn(|context| end.poll(context)).await;
    }
}

impl End {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.has_come {
            return Poll::Ready(());
        }
        let listens = self.wakes.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if listens && !self.news.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        self.wakes = Some(context.waker().clone());
        let over = self.over.as_mut().poll(context);
        self.has_come = over.is_ready();
        over
    }
}

async fn over(mut phase: watch::Receiver<Phase>, opened: Instant) {
    if let Ok(phase) = phase.wait_for(|phase| phase.stopped).await.map(|phase| *phase) {
        let told = phase.announced.unwrap_or_else(Instant::now).max(opened);
        sleep_until(told + LAST_REQUEST).await;
    }
}

/// A request takes no longer from a caller to us, and a replica that restarts should not wait longer for nothing.
const LAST_REQUEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::advance;

    use super::*;
    use crate::prompt::at_once;

    #[tokio::test(start_paused = true)]
    async fn the_end_is_heard_by_whoever_asks_again_and_again_and_by_whoever_waits() {
        let (leave, leaving) = Leave::new();
        let (mut asks, mut waits) = (leaving.opened(), leaving.opened());
        for _ in 0..3 {
            assert_eq!(at_once(pin!(asks.over())).await, None);
        }
        let waiting = tokio::spawn(async move {
            at_once(pin!(waits.over())).await;
            waits.over().await;
            Instant::now()
        });
        leave.announce();
        assert_eq!(at_once(pin!(asks.over())).await, None);
        advance(LAST_REQUEST / 2).await;
        leave.stop();
        assert_eq!(at_once(pin!(asks.over())).await, None);
        advance(LAST_REQUEST / 2).await;
        assert_eq!(at_once(pin!(asks.over())).await, Some(()));
        assert_eq!(at_once(pin!(asks.over())).await, Some(()));
        assert_eq!(waiting.await.unwrap(), Instant::now());
    }
}
