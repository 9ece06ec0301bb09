//! The log: JSON lines on standard output, written by a thread of their own.
//!
//! A request never waits for the log. When whoever reads it is too slow, lines are dropped and counted, because the
//! alternative is to stop serving payouts for the sake of a line.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

/// Where lines go. Cloning gives another sender to the same writer.
#[derive(Clone)]
pub struct Log {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The thread that writes; [`Writer::finish`] waits until everything sent before is out.
pub struct Writer {
    lines: SyncSender<Message>,
    thread: JoinHandle<()>,
}

enum Message {
    Line(Vec<u8>),
    Finish,
}

impl Log {
    /// Starts a writer to `out`.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<(Log, Writer)> {
        let (lines, received) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || write(received, out))?;
        let log = Log { lines: lines.clone(), dropped: Arc::default() };
        Ok((log, Writer { lines, thread }))
    }

    /// Sends one line.
    pub fn line(&self, line: &impl Serialize) {
        let Ok(mut bytes) = serde_json::to_vec(line) else { return };
        bytes.push(b'\n');
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(bytes)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Waits until everything sent before is written.
    pub fn finish(self) {
        if self.lines.send(Message::Finish).is_ok() {
            let _ = self.thread.join();
        }
    }
}

fn write(received: Receiver<Message>, mut out: impl Write) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(message) = received.recv() {
        let mut finish = matches!(message, Message::Finish);
        if !finish {
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
        // Nobody is left to tell when standard output is gone.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        if finish {
            return;
        }
    }
}

/// Lines that may wait for the writer: a second of a busy sidecar.
const WAITING: usize = 16 << 10;

/// How long a line may wait for company.
const REST: Duration = Duration::from_millis(5);

/// Bytes written at once.
const BATCH: usize = 64 << 10;
