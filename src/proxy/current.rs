//! What serves at this moment: one generation, until the next one takes its place.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The generation that new requests are given to. Those under way end with the one they began with.
pub struct Current<S>(ArcSwap<S>);

impl<S> Current<S> {
    /// Begins with one.
    pub fn new(first: S) -> Arc<Current<S>> {
        Arc::new(Current(ArcSwap::from_pointee(first)))
    }

    /// The one to give a request to, from its head to its reply.
    pub fn now(&self) -> Arc<S> {
        self.0.load_full()
    }

    /// Puts the next one in its place.
    pub fn replace(&self, next: S) {
        self.0.store(Arc::new(next));
    }
}
