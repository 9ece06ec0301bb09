//! Where lines wait for the thread that writes them: a lane for each thread that sends, so that none waits for another.
//!
//! A line is made in memory of the thread that sends it and copied into its lane, so nothing of a lane is half written and
//! no lock is held for longer than a copy takes. The writer is woken by the first line that it has not been told of, and by
//! no other.

use std::cell::Cell;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::threads::Each;

/// The lines that wait.
pub struct Lanes {
    /// What stands in front of all that is in the lanes.
    first: Mutex<Vec<u8>>,
    lanes: Each<Mutex<Vec<u8>>>,
    /// Bytes that one lane may hold.
    each: usize,
    dropped: AtomicU64,
    /// The writer waits to be woken.
    waiting: AtomicBool,
    ended: AtomicBool,
    writer: OnceLock<Thread>,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes::of(Each::default())
    }
}

impl Lanes {
    fn of(lanes: Each<Mutex<Vec<u8>>>) -> Lanes {
        Lanes {
            first: Mutex::default(),
            each: MOST / lanes.iter().count(),
            lanes,
            dropped: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    /// Whom to wake.
    pub fn are_emptied_by(&self, writer: Thread) {
        // There is one. It wakes by itself now and then until it is known.
        let _ = self.writer.set(writer);
    }

    /// Puts a line behind those of this thread, or drops it where there is no room.
    pub fn put(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut line = LINE.take();
        line.clear();
        write(&mut line);
        let mut lane = bytes_of(self.lanes.own());
        let first = lane.is_empty();
        let fits = lane.len() + line.len() <= self.each;
        if fits {
            lane.extend_from_slice(&line);
        }
        drop(lane);
        line.shrink_to(LONGEST_KEPT);
        LINE.set(line);
        if !fits {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else if first {
            self.wake();
        }
    }

    /// Puts a line behind those of all threads, or drops it where there is no room.
    pub fn put_behind_all(&self, line: &[u8]) {
        let mut first = bytes_of(&self.first);
        self.gather(&mut first);
        let fits = first.len() + line.len() <= MOST;
        if fits {
            first.extend_from_slice(line);
        }
        drop(first);
        if fits {
            self.wake();
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes all that waits, which replaces what is in `batch`.
    pub fn empty_into(&self, batch: &mut Vec<u8>) {
        batch.clear();
        let mut first = bytes_of(&self.first);
        mem::swap(&mut *first, batch);
        self.gather(batch);
    }

    /// Waits until there is something to take, or nothing will come any more.
    pub fn wait_for_lines(&self) {
        while !self.has_lines() && !self.have_ended() {
            self.waiting.store(true, Ordering::SeqCst);
            // Again, since now whoever puts the first line into a lane knows that somebody waits.
            if !self.has_lines() && !self.have_ended() {
                thread::park_timeout(self.writer.get().map_or(UNKNOWN, |_| LONG));
            }
            self.waiting.store(false, Ordering::SeqCst);
        }
    }

    /// Lets lines come for a while, unless this is the end.
    pub fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.have_ended()
            && let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            thread::park_timeout(left);
        }
    }

    /// Nothing will come any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Whether nothing will come any more.
    pub fn have_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Lines that there was no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What is in the lanes goes behind what is there, as far as there is room.
    fn gather(&self, behind: &mut Vec<u8>) {
        for lane in self.lanes.iter() {
            let mut lane = bytes_of(lane);
            if behind.len() + lane.len() <= MOST {
                behind.extend_from_slice(&lane);
                lane.clear();
                lane.shrink_to(self.each / 8);
            }
        }
    }

    fn has_lines(&self) -> bool {
        let has = |bytes: &Mutex<Vec<u8>>| !bytes_of(bytes).is_empty();
        has(&self.first) || self.lanes.iter().any(has)
    }

    fn wake(&self) {
        if self.waiting.swap(false, Ordering::SeqCst)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

fn bytes_of(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    // Only whole lines are put in, so a panic elsewhere spoils nothing.
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// Where a line is made.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes that wait in all lanes together: what a busy sidecar says in a tenth of a second.
pub const MOST: usize = 5 << 20;

/// Bytes that all lines take at most which have not been written yet: in the lanes, in front of them, and on their way out.
pub const ROOM: u64 = 3 * MOST as u64;

/// Memory of a line that stays with its thread. Hardly any line is longer.
const LONGEST_KEPT: usize = 4 << 10;

/// For how long nobody needs to look whether there is something to do.
const LONG: Duration = Duration::from_secs(3600);

/// The same before it is known who is to be woken.
const UNKNOWN: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::Handle;

    use super::*;
    use crate::threads::Threads;

    fn taken(lanes: &Lanes) -> String {
        let mut batch = Vec::new();
        lanes.empty_into(&mut batch);
        String::from_utf8(batch).unwrap()
    }

    #[test]
    fn lines_of_a_thread_keep_their_order_and_a_line_behind_all_stands_behind_those_of_all_threads() {
        let lanes = Arc::new(Lanes::of(Each::new(3, Mutex::default)));
        let serving = Threads::start(4).unwrap();
        let say = |(handle, name): (&Handle, &'static str)| {
            let lanes = Arc::clone(&lanes);
            let lines = move || (0..9).for_each(|n| lanes.put(|out| out.extend(format!("{name}{n} ").bytes())));
            handle.spawn(async move { lines() })
        };
        let saying: Vec<_> = serving.handles().iter().zip(["a", "b", "c", "d"]).map(say).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        saying.into_iter().for_each(|one| runtime.block_on(one).unwrap());
        lanes.put_behind_all(b"all ");
        lanes.put(|out| out.extend(b"last "));
        let text = taken(&lanes);
        let words: Vec<&str> = text.split_whitespace().collect();
        for name in ["a", "b", "c", "d"] {
            let of: Vec<&str> = words.iter().copied().filter(|word| word.starts_with(name) && *word != "all").collect();
            assert_eq!(of, (0..9).map(|n| format!("{name}{n}")).collect::<Vec<_>>(), "{text}");
        }
        assert_eq!(words.len(), 4 * 9 + 2);
        assert_eq!(words[words.len() - 2..], ["all", "last"]);
        assert_eq!((taken(&lanes), lanes.dropped()), (String::new(), 0));
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_whole_and_counted() {
        let lanes = Lanes::of(Each::new(2, Mutex::default));
        let line = [b'x'; 1000];
        let in_lane = lanes.each / line.len();
        (0..in_lane + 3).for_each(|_| lanes.put(|out| out.extend(line)));
        assert_eq!(lanes.dropped(), 3);
        // In front of the lanes there is as much room again.
        let in_front = MOST / line.len() - in_lane;
        (0..in_front + 2).for_each(|_| lanes.put_behind_all(&line));
        assert_eq!(lanes.dropped(), 5);
        assert_eq!(taken(&lanes).len(), (in_lane + in_front) * line.len());
    }

    #[test]
    fn whoever_waits_is_woken_by_each_first_line_and_by_the_end() {
        let lanes = Lanes::of(Each::new(2, Mutex::default));
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|threads| {
            let waiting = threads.spawn(|| {
                while !lanes.have_ended() {
                    lanes.wait_for_lines();
                    tell.send(taken(&lanes)).unwrap();
                }
            });
            lanes.are_emptied_by(waiting.thread().clone());
            for round in 0..1000 {
                // Without giving it time to fall asleep, and with.
                if round % 2 == 0 {
                    while !lanes.waiting.load(Ordering::SeqCst) {
                        thread::yield_now();
                    }
                }
                lanes.put(|out| out.push(b'x'));
                assert_eq!(told.recv_timeout(Duration::from_secs(60)).as_deref(), Ok("x"));
            }
            lanes.end();
            assert_eq!(told.recv_timeout(Duration::from_secs(60)).as_deref(), Ok(""));
        });
    }
}
