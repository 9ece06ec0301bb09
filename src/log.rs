//! The log: JSON lines on standard output, written by a thread of their own.
//!
//! A request never waits for the log. When whoever reads it is too slow, lines are dropped and counted, because the
//! alternative is to stop serving payouts for the sake of a line.
//!
//! ```text
//! log/events    what happened, beside requests: every event there is, and what to do about it
//! log/requests  which requests have a line of their own
//! log/bursts    what is told now, later and not at all
//! log/line      how a line is written
//! ```

pub mod bursts;
pub mod events;
pub mod line;
pub mod requests;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

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
pub struct Log {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The thread that writes; [`Writer::finish`] waits until everything sent before is out.
pub struct Writer {
    lines: SyncSender<Message>,
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

enum Message {
    Line(Vec<u8>),
    Finish,
}

impl Log {
    /// Starts a writer to `out`.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<(Log, Writer)> {
        let (lines, received) = sync_channel(WAITING);
        let (finishing, finished) = sync_channel(0);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(received, out, finishing))?;
        let log = Log { lines: lines.clone(), dropped: Arc::default() };
        Ok((log, Writer { lines, finished }))
    }

    /// Sends one line.
    pub fn line(&self, line: &impl Serialize) {
        let Ok(mut bytes) = serde_json::to_vec(line) else { return };
        bytes.push(b'\n');
        self.send(bytes);
    }

    /// Sends a line that is written already, with its end.
    pub fn send(&self, bytes: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(bytes)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
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
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Waits until everything sent before is written, but not for ever: a reader that has stalled must not keep the
    /// process from ending. True when all is written.
    pub fn finish(self, within: Duration) -> bool {
        let asked = Instant::now();
        let mut message = Message::Finish;
        while let Err(TrySendError::Full(again)) = self.lines.try_send(message) {
            if asked.elapsed() > within {
                return false;
            }
            message = again;
            std::thread::sleep(REST);
        }
        let left = within.saturating_sub(asked.elapsed());
        self.finished.recv_timeout(left) != Err(RecvTimeoutError::Timeout)
    }
}

/// `_finished` tells by being dropped.
fn write(received: Receiver<Message>, mut out: impl Write, _finished: SyncSender<()>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut behind = false;
    while let Ok(message) = received.recv() {
        let mut finish = matches!(message, Message::Finish);
        if !finish && !behind {
            // A thread that is woken for each line costs more than the line. Lines that come while it rests go out
            // together, and senders have nobody to wake.
            std::thread::sleep(REST);
        }
        let mut next = Some(message);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Finish => finish = true,
            }
            next = if batch.len() < BATCH && !finish { received.try_recv().ok() } else { None };
        }
        behind = batch.len() >= BATCH;
        // Nobody is left to tell when standard output is gone.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        if finish {
            return;
        }
    }
}

/// Lines that may wait for the writer: a second of a busy sidecar.
pub const WAITING: usize = 16 << 10;

/// How long a line may wait for company.
const REST: Duration = Duration::from_millis(5);

/// Bytes written at once.
const BATCH: usize = 64 << 10;

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
        let sent = 3 * WAITING;
        (0..sent).for_each(|number| log.line(&number));
        assert!(log.dropped() > 0);
        assert!(!writer.finish(Duration::from_millis(20)));
        out.open();
    }
}
