//! How many requests may be with the PAM at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts requests in and out. The bound comes with each: it may change while some are inside.
#[derive(Default)]
pub struct Places(AtomicUsize);

/// Counts a request as being with the PAM while it lives.
pub struct Place(Arc<Places>);

impl Places {
    /// A place, where fewer than `most` are taken.
    pub fn take(self: &Arc<Self>, most: u32) -> Option<Place> {
        let one_more = |taken: usize| (taken < most as usize).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(Arc::clone(self)))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
