//! What serves at this moment: one generation, until the next one takes its place.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::threads::Each;

/// The generation that new requests are given to. Those under way end with the one they began with.
///
/// Each thread has its own count of who holds it: a count that all threads share would be written twice a request.
pub struct Current<S>(Each<Mutex<Arc<Arc<S>>>>);

impl<S> Current<S> {
    /// Begins with one.
    pub fn new(first: S) -> Arc<Current<S>> {
        let first = Arc::new(first);
        Arc::new(Current(Each::with(|| Mutex::new(Arc::new(Arc::clone(&first))))))
    }

    /// The one to give a request to, from its head to its reply.
    pub fn now(&self) -> Held<S> {
        Held(Arc::clone(&slot(self.0.own())))
    }

    /// Puts the next one in its place.
    pub fn replace(&self, next: S) {
        let next = Arc::new(next);
        self.0.iter().for_each(|one| *slot(one) = Arc::new(Arc::clone(&next)));
    }
}

/// A generation that stays as long as it is held.
pub struct Held<S>(Arc<Arc<S>>);

impl<S> Clone for Held<S> {
    fn clone(&self) -> Held<S> {
        Held(Arc::clone(&self.0))
    }
}

impl<S> Deref for Held<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

fn slot<S>(one: &Mutex<Arc<Arc<S>>>) -> MutexGuard<'_, Arc<Arc<S>>> {
    // A pointer is never half changed.
    one.lock().unwrap_or_else(PoisonError::into_inner)
}
