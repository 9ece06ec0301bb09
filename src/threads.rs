//! The threads that serve: each has its own connections, timers and events, and asks no other for work.
//!
//! A connection stays with the thread that accepted it, and so do the connections to the PAM that its requests go by. To
//! hand work from thread to thread costs more than a request does: two context switches, and caches that start cold. What
//! is lost is that a single connection, HTTP/2 included, is served by one core. Each thread has a socket of its own to accept
//! from, and the kernel draws for each connection which of them it goes to.
//!
//! Where there is one for each core, each stays on its own: two that meet on one core wait for each other while another core
//! has none, and half of their callers wait with them.

use std::cell::Cell;
use std::io;
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Threads, each with a runtime of its own. They end when this is dropped, with everything that is left on them.
pub struct Threads {
    handles: Vec<Handle>,
    _stop: watch::Sender<()>,
}

/// One for each thread that serves, in memory of its own: what several threads write to all the time travels between their
/// cores, and that takes longer than the writing.
pub struct Each<T>(Box<[Apart<T>]>);

/// Cores fetch two lines of 64 bytes at a time.
#[repr(align(128))]
struct Apart<T>(T);

impl<T> Each<T> {
    /// So many, which the threads share where there are more of them.
    pub fn new(count: usize, make: impl Fn() -> T) -> Each<T> {
        Each((0..count.max(1)).map(|_| Apart(make())).collect())
    }

    /// One for each core, as long as that is not many: they take memory, and even a few keep threads apart most of the time.
    pub fn with(make: impl Fn() -> T) -> Each<T> {
        Each::new(usual().min(MOST_EACH), make)
    }

    /// That of the thread that asks.
    pub fn own(&self) -> &T {
        let Apart(own) = &self.0[current() % self.0.len()];
        own
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().map(|Apart(one)| one)
    }
}

impl<T: Default> Default for Each<T> {
    fn default() -> Each<T> {
        Each::with(T::default)
    }
}

const MOST_EACH: usize = 8;

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
        let cores = Cores::allowed();
        for number in 0..count {
            let own = cores.as_ref().filter(|cores| cores.count() == count).and_then(|cores| cores.one(number));
            // What is computed beside, as passwords are, must not stand in the way of the thread that asked for it.
            let anywhere = cores.clone();
            let runtime = Builder::new_current_thread()
                .enable_all()
                .on_thread_start(move || anywhere.iter().for_each(Cores::stay))
                .build()?;
            handles.push(runtime.handle().clone());
            let mut stopped = stopped.clone();
            thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
                NUMBER.set(number);
                own.iter().for_each(Cores::stay);
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

/// Cores that a thread may run on.
#[derive(Clone)]
struct Cores(CpuSet);

impl Cores {
    /// Those that the thread may which asks; `None` where the kernel does not say.
    fn allowed() -> Option<Cores> {
        sched_getaffinity(CALLING).ok().map(Cores)
    }

    fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..CpuSet::count()).filter(|core| self.0.is_set(*core).unwrap_or(false))
    }

    fn count(&self) -> usize {
        self.numbers().count()
    }

    /// The one at a place among them.
    fn one(&self, at: usize) -> Option<Cores> {
        let mut one = CpuSet::new();
        one.set(self.numbers().nth(at)?).ok()?;
        Some(Cores(one))
    }

    /// Keeps the thread that asks on these.
    fn stay(&self) {
        // Where the kernel does not allow it, the thread serves all the same.
        let _ = sched_setaffinity(CALLING, &self.0);
    }
}

/// The thread that asks, for the kernel.
const CALLING: Pid = Pid::from_raw(0);

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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_for_each_core_stays_there_and_others_go_where_there_is_room() {
        let all: Vec<usize> = Cores::allowed().unwrap().numbers().collect();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let cores = || Cores::allowed().unwrap().numbers().collect::<Vec<_>>();
        let alone: Vec<Vec<usize>> = all.iter().map(|core| vec![*core]).collect();
        let anywhere = vec![all.clone(); all.len() + 1];
        for (count, expected) in [(all.len(), alone), (all.len() + 1, anywhere)] {
            let threads = Threads::start(count).unwrap();
            let on = |handle: &Handle| runtime.block_on(handle.spawn(async move { cores() })).unwrap();
            assert_eq!(threads.handles().iter().map(on).collect::<Vec<_>>(), expected);
            let beside = |handle: &Handle| runtime.block_on(handle.spawn_blocking(cores)).unwrap();
            assert!(threads.handles().iter().all(|handle| beside(handle) == all));
        }
    }

    #[test]
    fn each_thread_has_its_own_as_long_as_there_are_enough() {
        let threads = Threads::start(3).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        for (count, expected) in [(3, [1, 2, 4].as_slice()), (2, &[5, 2])] {
            let each = Arc::new(Each::new(count, AtomicUsize::default));
            for (handle, number) in threads.handles().iter().zip([1, 2, 4]) {
                let each = Arc::clone(&each);
                let add = async move { each.own().fetch_add(number, Ordering::Relaxed) };
                runtime.block_on(handle.spawn(add)).unwrap();
            }
            let found: Vec<usize> = each.iter().map(|one| one.load(Ordering::Relaxed)).collect();
            assert_eq!(found, expected);
        }
    }

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
