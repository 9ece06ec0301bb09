//! Each signed message once: the memory of what was admitted.
//!
//! A message is remembered from the moment it is admitted. If the PAM gives no definitive answer to it (5xx, timeout,
//! broken connection), it is forgotten again, because its sender will and should send it once more. A copy that arrives
//! while the first is still with the PAM waits for that decision.

pub mod claims;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use self::claims::{Claim, Claims};
use crate::denial::Denial;
use crate::ledger::{Full, Ledger};

/// Names a signed message of a caller.
#[derive(Clone)]
pub struct ReplayKey {
    /// The caller's index.
    pub caller: usize,
    /// The message under the caller's first key.
    pub message: [u8; 20],
    /// The message under the caller's other keys: while keys rotate, replicas do not have the same one first.
    pub under_other_keys: Vec<[u8; 20]>,
}

/// The signed messages admitted within their time.
pub struct Replays {
    /// By the caller's index.
    seen: Vec<Slot>,
    /// By the caller's name; also of callers that other generations of the config had. One that is taken out and put back
    /// must not find its messages forgotten.
    known: HashMap<Box<str>, Slot>,
    most: u64,
    patience: Duration,
    claims: Option<Claims>,
}

/// Held while an admitted message is on its way. Unless [`Ticket::settle`] is called, dropping it forgets the message.
pub struct Ticket {
    seen: Arc<Seen>,
    message: [u8; 20],
    /// The same under other keys.
    others: Vec<[u8; 20]>,
    fate: Arc<Fate>,
    /// The same for the other replicas.
    claim: Option<Claim>,
}

/// One ledger a caller, made when first needed: one caller's flood must not fill the memory of the others.
type Slot = Arc<OnceLock<Arc<Seen>>>;

struct Seen(Ledger<[u8; 20], Earlier>);

/// A message that was admitted. Of one that is settled nothing is kept but that.
#[derive(Clone)]
enum Earlier {
    Settled,
    /// It is with the PAM.
    Open(Arc<Fate>),
}

/// What becomes of a message, for copies that wait for it.
struct Fate {
    /// [`OPEN`], [`SETTLED`] or [`FORGOTTEN`].
    decided: AtomicU8,
    news: Notify,
}

impl Fate {
    fn open() -> Fate {
        Fate { decided: AtomicU8::new(OPEN), news: Notify::const_new() }
    }

    fn is_open(&self) -> bool {
        self.decided.load(Ordering::Acquire) == OPEN
    }

    fn decide(&self, fate: u8) {
        self.decided.store(fate, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Waits until it is decided; true when the message was forgotten.
    async fn is_forgotten(&self) -> bool {
        // First the ear, then the look: what happens in between is heard.
        let mut news = pin!(self.news.notified());
        news.as_mut().enable();
        if self.is_open() {
            news.await;
        }
        self.decided.load(Ordering::Acquire) == FORGOTTEN
    }
}

impl Earlier {
    fn denial(self) -> Denial {
        match self {
            Earlier::Open(fate) if fate.decided.load(Ordering::Acquire) != SETTLED => Denial::CopyInFlight,
            Earlier::Open(_) | Earlier::Settled => Denial::Replayed,
        }
    }
}

impl Replays {
    /// A memory for `most` messages of each of the callers, in their order. A copy waits for the first one for `patience`
    /// at most.
    pub fn new(most: u64, callers: &[Box<str>], patience: Duration) -> Replays {
        let known = HashMap::new();
        Replays { seen: Vec::new(), known, most, patience, claims: None }.successor(callers, patience)
    }

    /// Bytes that `most` messages of one caller take at most.
    pub fn room(most: u64) -> u64 {
        Ledger::<[u8; 20], Earlier>::room(most)
    }

    /// The same memory for other callers, known by their names.
    pub fn successor(&self, callers: &[Box<str>], patience: Duration) -> Replays {
        let mut known = self.known.clone();
        let seen = callers.iter().map(|caller| Arc::clone(known.entry(caller.clone()).or_default())).collect();
        let claims = self.claims.as_ref().map(|claims| claims.successor(callers));
        Replays { seen, known, most: self.most, patience, claims }
    }

    /// The same memory, which also asks what other replicas have admitted.
    pub fn shared(self, claims: Claims) -> Replays {
        Replays { claims: Some(claims), ..self }
    }

    /// Admits a message for the first time, to be remembered for `time`; refuses it when it was admitted before.
    pub async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        let mut ticket = self.first_here(&key, time).await?;
        if let Some(claims) = &self.claims {
            ticket.claim = Some(claims.claim(&key, time).await?);
        }
        Ok(ticket)
    }

    async fn first_here(&self, key: &ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        let seen = self.seen_of(key)?;
        let earlier = match admit(seen, key, time)? {
            Ok(ticket) => return Ok(ticket),
            Err(earlier) => earlier,
        };
        let Earlier::Open(fate) = earlier else { return Err(Denial::Replayed) };
        if !timeout(self.patience, fate.is_forgotten()).await.map_err(|_| Denial::CopyInFlight)? {
            return Err(Denial::Replayed);
        }
        // Whoever waited once does not queue again: a PAM in trouble would get the copies one by one, the last of them
        // long after its time.
        admit(seen, key, time)?.map_err(Earlier::denial)
    }

    /// Admits a message for the first time without waiting for anybody.
    pub fn first_now(&self, key: &ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        admit(self.seen_of(key)?, key, time)?.map_err(Earlier::denial)
    }

    fn seen_of(&self, key: &ReplayKey) -> Result<&Arc<Seen>, Denial> {
        let seen = self.seen.get(key.caller).ok_or(Denial::Internal)?;
        Ok(seen.get_or_init(|| Arc::new(Seen(Ledger::new(self.most)))))
    }

    /// Messages remembered, of all callers.
    pub fn count(&self) -> u64 {
        self.known.values().filter_map(|slot| slot.get()).map(|seen| seen.0.count()).sum()
    }
}

/// Takes the message in, or finds the earlier copy.
///
/// Under each of the caller's keys: while keys rotate, which of them comes first is another one before and after a reload,
/// and in the end only the new one is left to know the message by.
fn admit(seen: &Arc<Seen>, key: &ReplayKey, time: Duration) -> Result<Result<Ticket, Earlier>, Denial> {
    let fate = Arc::new(Fate::open());
    if let Err(earlier) = keep(seen, key.message, &fate, time)? {
        return Ok(Err(earlier));
    }
    let mut ticket = Ticket { seen: Arc::clone(seen), message: key.message, others: Vec::new(), fate, claim: None };
    for other in &key.under_other_keys {
        // Two keys may have the same secret.
        if *other == ticket.message || ticket.others.contains(other) {
            continue;
        }
        match keep(seen, *other, &ticket.fate, time)? {
            Ok(()) => ticket.others.push(*other),
            // What was kept so far goes with the ticket.
            Err(earlier) => return Ok(Err(earlier)),
        }
    }
    Ok(Ok(ticket))
}

/// A full memory knows all the same what it holds.
fn keep(seen: &Seen, message: [u8; 20], fate: &Arc<Fate>, time: Duration) -> Result<Result<(), Earlier>, Denial> {
    match seen.0.reserve() {
        Ok(place) => Ok(seen.0.keep_first(place, message, Earlier::Open(Arc::clone(fate)), time)),
        Err(Full) => Ok(Err(seen.0.find(&message).ok_or(Denial::ReplayMemoryFull)?)),
    }
}

impl Ticket {
    /// The PAM gave a definitive answer: the message stays remembered for its time.
    pub fn settle(mut self) {
        self.messages().for_each(|message| self.seen.0.change(message, Earlier::Settled));
        self.fate.decide(SETTLED);
        if let Some(claim) = self.claim.take() {
            claim.settle();
        }
    }

    fn messages(&self) -> impl Iterator<Item = &[u8; 20]> {
        std::iter::once(&self.message).chain(&self.others)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.fate.is_open() {
            // First out of the ledger, then the news: who waits finds the key free.
            self.messages().for_each(|message| self.seen.0.drop_key(message));
            self.fate.decide(FORGOTTEN);
        }
    }
}

const OPEN: u8 = 0;
const SETTLED: u8 = 1;
const FORGOTTEN: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ReplayKey = ReplayKey { caller: 0, message: [1; 20], under_other_keys: Vec::new() };
    const HOUR: Duration = Duration::from_secs(3600);

    fn memory(most: u64, patience: Duration) -> Replays {
        Replays::new(most, &["one".into(), "other".into()], patience)
    }

    async fn refusal(replays: &Replays, key: ReplayKey) -> Option<Denial> {
        replays.first(key, HOUR).await.err()
    }

    #[tokio::test]
    async fn a_settled_message_is_refused_ever_after() {
        let replays = memory(10, HOUR);
        replays.first(KEY, HOUR).await.ok().unwrap().settle();
        assert_eq!(refusal(&replays, KEY).await, Some(Denial::Replayed));
        assert_eq!(refusal(&replays, ReplayKey { caller: 1, ..KEY }).await, None);
    }

    // threat: D10
    #[tokio::test]
    async fn a_message_stays_refused_while_its_keys_rotate_and_its_caller_comes_and_goes() {
        let (old, new) = ([1; 20], [2; 20]);
        let key = |message, others: &[[u8; 20]]| ReplayKey { caller: 0, message, under_other_keys: others.to_vec() };
        let both = memory(10, HOUR);
        both.first(key(old, &[new, new, old]), HOUR).await.ok().unwrap().settle();
        assert_eq!(both.count(), 2);
        let without = both.successor(&["other".into()], HOUR);
        let moved = without.successor(&["other".into(), "one".into()], HOUR);
        for rotated in [key(new, &[]), key(new, &[old]), key(old, &[])] {
            assert_eq!(refusal(&both, rotated.clone()).await, Some(Denial::Replayed));
            assert_eq!(refusal(&moved, ReplayKey { caller: 1, ..rotated.clone() }).await, Some(Denial::Replayed));
            assert_eq!(refusal(&moved, rotated.clone()).await, None);
        }
    }

    #[tokio::test]
    async fn what_was_kept_under_one_key_is_let_go_of_when_it_is_known_under_another() {
        let replays = memory(10, HOUR);
        replays.first(KEY, HOUR).await.ok().unwrap().settle();
        let also = ReplayKey { message: [2; 20], under_other_keys: vec![KEY.message], ..KEY };
        assert_eq!(refusal(&replays, also).await, Some(Denial::Replayed));
        assert_eq!(refusal(&replays, ReplayKey { message: [2; 20], ..KEY }).await, None);
    }

    #[tokio::test]
    async fn a_message_without_a_definitive_answer_may_come_again() {
        let replays = memory(10, HOUR);
        drop(replays.first(KEY, HOUR).await.ok().unwrap());
        assert_eq!(refusal(&replays, KEY).await, None);
    }

    #[tokio::test]
    async fn a_copy_waits_for_the_fate_of_the_first() {
        for settled in [true, false] {
            let replays = Arc::new(memory(10, HOUR));
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

    #[tokio::test]
    async fn a_copy_hears_of_the_first_also_when_that_was_with_the_pam_beyond_its_time() {
        let replays = Arc::new(memory(10, HOUR));
        let ticket = replays.first(KEY, Duration::from_secs(1)).await.ok().unwrap();
        let copy = tokio::spawn({
            let replays = Arc::clone(&replays);
            async move { refusal(&replays, KEY).await }
        });
        tokio::task::yield_now().await;
        while replays.seen_of(&KEY).ok().unwrap().0.has(&KEY.message) {
            std::thread::yield_now();
        }
        ticket.settle();
        assert_eq!(copy.await.unwrap(), Some(Denial::Replayed));
    }

    #[tokio::test]
    async fn of_many_copies_that_waited_one_goes_on_and_the_others_are_told_to_come_again() {
        let replays = Arc::new(memory(10, HOUR));
        let ticket = replays.first(KEY, HOUR).await.ok().unwrap();
        let copies: Vec<_> = (0..3)
            .map(|_| {
                let replays = Arc::clone(&replays);
                tokio::spawn(async move { replays.first(KEY, HOUR).await })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(ticket);
        let mut outcomes = Vec::new();
        for copy in copies {
            outcomes.push(copy.await.unwrap());
        }
        let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert_eq!(refused, [&Denial::CopyInFlight; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_does_not_wait_for_ever() {
        let replays = memory(10, Duration::from_secs(9));
        let _never_settled = replays.first(KEY, HOUR).await.ok().unwrap();
        assert_eq!(refusal(&replays, KEY).await, Some(Denial::CopyInFlight));
    }

    // threat: D11
    #[tokio::test]
    async fn a_full_memory_refuses_its_caller_and_no_other() {
        let replays = memory(1, HOUR);
        replays.first(KEY, HOUR).await.ok().unwrap().settle();
        let other = ReplayKey { message: [2; 20], ..KEY };
        assert_eq!(refusal(&replays, other.clone()).await, Some(Denial::ReplayMemoryFull));
        assert_eq!(refusal(&replays, KEY).await, Some(Denial::Replayed));
        assert_eq!(refusal(&replays, ReplayKey { caller: 1, ..other }).await, None);
    }
}
