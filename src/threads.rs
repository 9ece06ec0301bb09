//! The threads that serve: each has its own connections, timers and events, and asks no other for work.
//!
//! A connection stays with the thread that accepted it, and so do the connections to the PAM that its requests go by. To
//! hand work from thread to thread costs more than a request does: two context switches, and caches that start cold. What
//! is lost is that a single connection, HTTP/2 included, is served by one core. Each thread has a socket of its own to accept
//! from, and the kernel draws for each connection which of them it goes to.

use std::cell::Cell;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Threads, each with a runtime of its own. They end when this is dropped, with everything that is left on them.
pub struct Threads {
    handles: Vec<Handle>,
    _stop: watch::Sender<()>,
}

thread_local! {
    /// Which of the threads this is.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

impl Threads {
    /// Starts so many.
    ///
    /// # Errors
    /// When the kernel has no room for a thread, or for what its runtime listens with.
    pub fn start(count: usize) -> io::Result<Threads> {
        let (stop, stopped) = watch::channel(());
        let mut handles = Vec::with_capacity(count);
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let mut stopped = stopped.clone();
            thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
                NUMBER.set(number);
                // Ends in an error, when nobody is left who could stop it: that is the sign.
                let _ = runtime.block_on(stopped.changed());
                runtime.shutdown_background();
            })?;
        }
        Ok(Threads { handles, _stop: stop })
    }

    /// One for each.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

/// The number of the thread that asks, from 0; 0 as well for one that is none of these.
pub fn current() -> usize {
    NUMBER.get()
}

/// How many there are when nobody says how many: one for each core.
pub fn usual() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_has_a_number_and_all_end_when_nobody_holds_them() {
        let threads = Threads::start(3).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let tasks: Vec<_> = threads.handles().iter().map(|handle| handle.spawn(async { current() })).collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(runtime.block_on(task).unwrap(), number);
        }
        assert_eq!(current(), 0);
        let left: Vec<_> = threads.handles().iter().map(|handle| handle.spawn(std::future::pending::<()>())).collect();
        drop(threads);
        for task in left {
            let ended = async { tokio::time::timeout(Duration::from_secs(10), task).await };
            assert!(runtime.block_on(ended).unwrap().unwrap_err().is_cancelled());
        }
    }
}
