//! Each signed message once: the memory of what was admitted.
//!
//! A message is remembered from the moment it is admitted. If the PAM gives no definitive answer to it (5xx, timeout,
//! broken connection), it is forgotten again, because its sender will and should send it once more. A copy that arrives
//! while the first is still with the PAM waits for that decision.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::denial::Denial;
use crate::ledger::Ledger;

/// Names a signed message of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplayKey {
    /// The caller's index.
    pub caller: usize,
    /// The message under the caller's first key.
    pub message: [u8; 20],
}

/// The signed messages admitted within their time.
pub struct Replays {
    /// One ledger a caller, made when first needed: one caller's flood must not fill the memory of the others.
    seen: Vec<OnceLock<Arc<Seen>>>,
    most: u64,
}

/// Held while an admitted message is on its way. Unless [`Ticket::settle`] is called, dropping it forgets the message.
pub struct Ticket {
    seen: Arc<Seen>,
    message: [u8; 20],
    fate: watch::Sender<Fate>,
}

struct Seen(Ledger<[u8; 20], watch::Receiver<Fate>>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Open,
    Settled,
    Forgotten,
}

impl Replays {
    /// A memory for `most` messages of each of `callers` callers.
    pub fn new(most: u64, callers: usize) -> Replays {
        Replays { seen: (0..callers).map(|_| OnceLock::new()).collect(), most }
    }

    /// Admits a message for the first time, to be remembered for `time`; refuses it when it was admitted before.
    pub async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        let seen = self.seen.get(key.caller).ok_or(Denial::Internal)?;
        let seen = seen.get_or_init(|| Arc::new(Seen(Ledger::new(self.most))));
        loop {
            let place = seen.0.reserve().map_err(|_| Denial::ReplayMemoryFull)?;
            let (fate, watched) = watch::channel(Fate::Open);
            match seen.0.keep_first(place, key.message, watched, time) {
                Ok(()) => return Ok(Ticket { seen: Arc::clone(seen), message: key.message, fate }),
                Err(mut other) => {
                    let decided = other.wait_for(|fate| *fate != Fate::Open).await.map(|fate| *fate);
                    if decided.is_ok_and(|fate| fate == Fate::Settled) {
                        return Err(Denial::Replayed);
                    }
                }
            }
        }
    }

    /// Messages remembered, of all callers.
    pub fn count(&self) -> u64 {
        self.seen.iter().filter_map(OnceLock::get).map(|seen| seen.0.count()).sum()
    }
}

impl Ticket {
    /// The PAM gave a definitive answer: the message stays remembered for its time.
    pub fn settle(self) {
        self.fate.send_replace(Fate::Settled);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if *self.fate.borrow() == Fate::Open {
            // First out of the ledger, then the news: who waits finds the key free.
            self.seen.0.drop_key(&self.message);
            self.fate.send_replace(Fate::Forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ReplayKey = ReplayKey { caller: 0, message: [1; 20] };
    const HOUR: Duration = Duration::from_secs(3600);

    async fn refusal(replays: &Replays, key: ReplayKey) -> Option<Denial> {
        replays.first(key, HOUR).await.err()
    }

    #[tokio::test]
    async fn a_settled_message_is_refused_ever_after() {
        let replays = Replays::new(10, 2);
        replays.first(KEY, HOUR).await.ok().unwrap().settle();
        assert_eq!(refusal(&replays, KEY).await, Some(Denial::Replayed));
        assert_eq!(refusal(&replays, ReplayKey { caller: 1, ..KEY }).await, None);
    }

    #[tokio::test]
    async fn a_message_without_a_definitive_answer_may_come_again() {
        let replays = Replays::new(10, 1);
        drop(replays.first(KEY, HOUR).await.ok().unwrap());
        assert_eq!(refusal(&replays, KEY).await, None);
    }

    #[tokio::test]
    async fn a_copy_waits_for_the_fate_of_the_first() {
        for settled in [true, false] {
            let replays = Arc::new(Replays::new(10, 1));
            let ticket = replays.first(KEY, HOUR).await.ok().unwrap();
            let copy = tokio::spawn({
                let replays = Arc::clone(&replays);
                async move { refusal(&replays, KEY).await }
            });
            tokio::task::yield_now().await;
            assert!(!copy.is_finished());
            if settled {
                ticket.settle();
            } else {
                drop(ticket);
            }
            assert_eq!(copy.await.unwrap(), settled.then_some(Denial::Replayed));
        }
    }

    // threat: D11
    #[tokio::test]
    async fn a_full_memory_refuses_its_caller_and_no_other() {
        let replays = Replays::new(1, 2);
        replays.first(KEY, HOUR).await.ok().unwrap().settle();
        let other = ReplayKey { message: [2; 20], ..KEY };
        assert_eq!(refusal(&replays, other).await, Some(Denial::ReplayMemoryFull));
        assert_eq!(refusal(&replays, ReplayKey { caller: 1, ..other }).await, None);
    }
}
