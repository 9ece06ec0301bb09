//! How a server takes its leave, and how its connections hear of it.
//!
//! First it is announced: every reply says that its connection ends, so that those in use go elsewhere by themselves. Then
//! it stops, and what is left is not closed before it has had time for a request that was on its way.

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
}

impl Leave {
    /// Not yet.
    pub fn new() -> (Leave, Leaving) {
        let (sender, receiver) = watch::channel(Phase::default());
        (Leave(sender), Leaving { phase: receiver, opened: Instant::now() })
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
        Leaving { phase: self.phase.clone(), opened: Instant::now() }
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
        if let Ok(phase) = self.phase.wait_for(|phase| phase.stopped).await.map(|phase| *phase) {
            let told = phase.announced.unwrap_or_else(Instant::now).max(self.opened);
            sleep_until(told + LAST_REQUEST).await;
        }
    }
}

/// A request takes no longer from a caller to us, and a replica that restarts should not wait longer for nothing.
const LAST_REQUEST: Duration = Duration::from_secs(1);
