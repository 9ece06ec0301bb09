//! The log: JSON lines on standard output, written by a thread of their own.
//!
//! A request never waits for the log. When whoever reads it is too slow, lines are dropped and counted, because the
//! alternative is to stop serving payouts for the sake of a line.
//!
//! ```text
//! log/lanes     where lines wait for the thread that writes them
//! log/events    what happened, beside requests: every event there is, and what to do about it
//! log/requests  which requests have a line of their own
//! log/bursts    what is told now, later and not at all
//! log/line      how a line is written
//! ```

pub mod bursts;
pub mod events;
pub mod lanes;
pub mod line;
pub mod requests;

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use self::lanes::{Lanes, MOST};
use crate::digits::timestamp;

/// Which requests have a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRules {
    /// Of a million admitted requests that went well.
    pub sample: u32,
    /// Refused requests with one reason, caller and address that have their own line within a second.
    pub refusals_per_second: u32,
}

/// Where lines go. Cloning gives another sender to the same writer.
#[derive(Clone)]
pub struct Log(Arc<Open>);

/// There may come lines while this is there.
struct Open(Arc<Lanes>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The thread that writes; [`Writer::finish`] waits until everything sent before is out.
pub struct Writer {
    lanes: Arc<Lanes>,
    finished: Receiver<()>,
}

struct Said<'a> {
    timestamp: String,
    level: &'a str,
    event: &'a str,
    members: &'a serde_json::Value,
}

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("level", self.level)?;
        map.serialize_entry("event", self.event)?;
        for (name, value) in self.members.as_object().into_iter().flatten() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Log {
    /// Starts a writer to `out`.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<(Log, Writer)> {
        let lanes = Arc::new(Lanes::default());
        let (finishing, finished) = sync_channel(0);
        let emptied = Arc::clone(&lanes);
        let thread =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&emptied, out, finishing))?;
        lanes.are_emptied_by(thread.thread().clone());
        Ok((Log(Arc::new(Open(Arc::clone(&lanes)))), Writer { lanes, finished }))
    }

    /// Sends one line. It stands behind everything that was sent before, by whichever thread.
    pub fn line(&self, line: &impl Serialize) {
        let Ok(mut bytes) = serde_json::to_vec(line) else { return };
        bytes.push(b'\n');
        self.0.0.put_behind_all(&bytes);
    }

    /// Sends a line of which there are many: `write` puts it, with its end, behind those that wait. It stands behind what the
    /// same thread has sent before; lines of several threads may change places within the time that lines wait for company.
    pub fn put(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.0.put(write);
    }

    /// Sends a line about something that is no request: what happened, and what is to be known about it.
    pub fn note(&self, level: &str, event: &str, about: &serde_json::Value) {
        self.say(level, event, &serde_json::json!({ "about": about }));
    }

    /// The same where what is to be known stands beside what every line has; `members` is an object.
    pub fn say(&self, level: &str, event: &str, members: &serde_json::Value) {
        self.line(&Said { timestamp: timestamp(SystemTime::now()), level, event, members });
    }

    /// From now on a fault that breaks something off is a line in the log that says where. What it says is left out: it may
    /// have been made of anything, a secret included.
    pub fn tell_of_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let at = panic.location().map(ToString::to_string);
            log.note("error", "panic", &serde_json::json!({ "at": at }));
        }));
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.0.dropped()
    }
}

impl Writer {
    /// Waits until everything sent before is written, but not for ever: a reader that has stalled must not keep the
    /// process from ending. True when all is written.
    pub fn finish(self, within: Duration) -> bool {
        self.lanes.end();
        self.finished.recv_timeout(within) != Err(RecvTimeoutError::Timeout)
    }
}

/// `_finished` tells by being dropped.
fn write(lanes: &Lanes, mut out: impl Write, _finished: SyncSender<()>) {
    let mut batch = Vec::new();
    loop {
        // Looked at first: what was sent before the end is found by the look that follows.
        let ending = lanes.have_ended();
        lanes.empty_into(&mut batch);
        // Nobody is left to tell when standard output is gone.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        if ending {
            return;
        }
        let crowded = batch.len() >= CROWDED;
        batch.clear();
        batch.shrink_to(KEPT);
        if !crowded {
            lanes.wait_for_lines();
            // A thread that is woken for each line costs more than the line. Lines that come while it rests go out
            // together, and senders have nobody to wake.
            lanes.rest(REST);
        }
    }
}

/// How long a line may wait for company.
const REST: Duration = Duration::from_millis(5);

/// So many bytes at once leave no time to rest.
const CROWDED: usize = MOST / 4;

/// Bytes of room that stay with a buffer which has been emptied.
const KEPT: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// An output that takes nothing until it is opened.
    #[derive(Clone, Default)]
    struct Stalled(Arc<Gate>);

    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        written: Mutex<Vec<u8>>,
    }

    impl Stalled {
        fn open(&self) {
            *self.0.open.lock().unwrap() = true;
            self.0.opened.notify_all();
        }

        fn lines(&self) -> usize {
            self.0.written.lock().unwrap().iter().filter(|byte| **byte == b'\n').count()
        }
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            drop(self.0.opened.wait_while(self.0.open.lock().unwrap(), |open| !*open).unwrap());
            self.0.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn everything_sent_before_the_end_is_written() {
        let out = Stalled::default();
        out.open();
        let (log, writer) = Log::start(out.clone()).unwrap();
        (0..1000).for_each(|number| log.line(&number));
        assert!(writer.finish(MINUTE));
        assert_eq!((out.lines(), log.dropped()), (1000, 0));
    }

    #[test]
    fn a_stalled_reader_costs_lines_which_are_counted_and_neither_the_sender_nor_the_end_waits() {
        let out = Stalled::default();
        let (log, writer) = Log::start(out.clone()).unwrap();
        let line = "x".repeat(1000);
        (0..3 * MOST / line.len()).for_each(|_| log.line(&line));
        assert!(log.dropped() > 0);
        assert!(!writer.finish(Duration::from_millis(20)));
        out.open();
    }
}
