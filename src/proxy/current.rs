//! What serves at this moment: one generation, until the next one takes its place.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::threads::Each;

/// The generation that new requests are given to. Those under way end with the one they began with.
pub struct Current<S>(Each<Mutex<Held<S>>>);

/// A generation that stays as long as it is held.
///
/// Each thread counts its own holders: a count that all threads share would be written twice a request.
pub struct Held<S>(Arc<Counted<S>>);

struct Counted<S>(Arc<S>);

impl<S> Current<S> {
    /// Begins with one.
    pub fn new(first: S) -> Arc<Current<S>> {
        let first = Arc::new(first);
        Arc::new(Current(Each::with(|| Mutex::new(Held::anew(&first)))))
    }

    /// The one to give a request to, from its head to its reply.
    pub fn now(&self) -> Held<S> {
        slot(self.0.own()).clone()
    }

    /// Puts the next one in its place.
    pub fn replace(&self, next: S) {
        let next = Arc::new(next);
        self.0.iter().for_each(|one| *slot(one) = Held::anew(&next));
    }
}

fn slot<S>(one: &Mutex<Held<S>>) -> MutexGuard<'_, Held<S>> {
    // A pointer is never half changed.
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Held<S> {
    fn anew(generation: &Arc<S>) -> Held<S> {
        Held(Arc::new(Counted(Arc::clone(generation))))
    }
}

impl<S> Clone for Held<S> {
    fn clone(&self) -> Held<S> {
        Held(Arc::clone(&self.0))
    }
}

impl<S> Deref for Held<S> {
    type Target = S;

    fn deref(&self) -> &S {
        let Counted(generation) = &*self.0;
        generation
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;
    use crate::threads::Threads;

    #[test]
    fn every_thread_gives_requests_to_the_next_one_and_the_one_before_ends_with_its_last() {
        let threads = Threads::start(3).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        let first = Arc::new(1);
        let current = Current::new(Arc::clone(&first));
        let now = || {
            let each = threads.handles().iter().map(|handle| {
                let current = Arc::clone(&current);
                runtime.block_on(handle.spawn(async move { current.now() })).unwrap()
            });
            each.collect::<Vec<_>>()
        };
        let before = now();
        current.replace(Arc::new(2));
        assert!(now().iter().all(|held| ***held == 2) && before.iter().all(|held| ***held == 1));
        assert_eq!(Arc::strong_count(&first), 2);
        drop(before);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
