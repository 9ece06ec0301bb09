//! What a tracing backend is told: one span for the request (kind SERVER) and one for the exchange with the PAM (kind
//! CLIENT), by OTLP over HTTP. Off unless the `OTEL_*` variables ask for it.
//!
//! ```text
//! trace/sampler.rs  which requests are recorded                   (pure)
//! span.rs           what is kept of one, and the queue            ← start here
//! span/otlp.rs      spans in OpenTelemetry's words                (pure)
//! span/protobuf.rs  the bytes of a message                        (pure)
//! span/exporter.rs  batches on their way to the receiver
//! config/otel.rs    what the variables say
//! ```
//!
//! A request never waits for any of it: what there is no room for in the queue is dropped and counted. Nothing is
//! recorded but what the log has too; no path, no query and no `tracestate`, which may carry what is nobody's business.

pub mod exporter;
mod otlp;
mod protobuf;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use self::exporter::{Exporter, Receiver};
use crate::event::Event;
use crate::log::Log;
use crate::metrics::cells::Counter;
use crate::secret::Secret;
use crate::tls::pam::PamRules;
use crate::tls::watched::Watched;
use crate::trace::sampler::Sampler;
use crate::trace::{SpanContext, TraceContext};

/// What the variables say.
#[derive(Debug)]
pub struct SpanRules {
    /// Which requests are recorded.
    pub sampler: Sampler,
    /// Where spans go.
    pub endpoint: Endpoint,
    /// Header fields that the receiver asks for; their values are secret.
    pub headers: Vec<(String, Secret)>,
    /// Bodies are compressed by gzip.
    pub gzip: bool,
    /// For one try to hand over a batch.
    pub timeout: Duration,
    /// For all tries.
    pub patience: Duration,
    /// Spans that may wait; what comes when there are so many is dropped.
    pub queue: usize,
    /// Spans of one batch.
    pub batch: usize,
    /// How long a span may wait for company.
    pub delay: Duration,
    /// What is said of this process, by the names of OpenTelemetry's resources.
    pub resource: Vec<(String, String)>,
}

/// Where spans go.
#[derive(Debug)]
pub struct Endpoint {
    /// `host:port`, to connect to.
    pub address: String,
    /// As the URL has it, for Host.
    pub authority: String,
    /// The path, and what stands behind it.
    pub target: String,
    /// For `https`.
    pub tls: Option<Watched<PamRules>>,
}

/// What is kept of a request that is recorded, beside its event, until its reply has been sent.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The span of the exchange with the PAM, as the PAM was told it.
    client: SpanContext,
    /// The caller's span, which this request is part of.
    parent: Option<SpanContext>,
    /// The caller's span, of which this request is no part.
    link: Option<SpanContext>,
    /// What was asked for.
    asked: Asked,
    exchange: Option<Exchange>,
}

/// What was asked for, as far as it can be said: nothing here is of the caller's making.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The path of the route, as the dialect has it; `None` when no route was found.
    pub path: Option<Box<str>>,
    /// The version of HTTP that the caller speaks; `None` when that could not be told.
    pub version: Option<&'static str>,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// The exchange with the PAM.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When it began.
    pub asked: Instant,
    /// The PAM, as `host:port`.
    pub address: Box<str>,
    /// The version of HTTP it is spoken to in, where that was not left to it.
    pub version: Option<&'static str>,
    /// The status of its answer; `None` when none came.
    pub status: Option<u16>,
}

impl Recorded {
    /// What is to be kept of a request that is recorded.
    pub fn of(trace: &TraceContext, asked: Asked, exchange: Option<Exchange>) -> Recorded {
        Recorded { client: trace.own(), parent: trace.parent(), link: trace.link(), asked, exchange }
    }

    fn spans(&self) -> usize {
        1 + usize::from(self.exchange.is_some())
    }
}

/// A request that is done.
struct Finished {
    recorded: Recorded,
    event: Event<'static>,
    /// The id of the SERVER span.
    server: [u8; 8],
    start: SystemTime,
    /// From the start to the beginning of the exchange with the PAM.
    before: Duration,
}

/// Where requests that are done go, to become spans. Nobody waits here.
pub struct Spans {
    sampler: Sampler,
    finished: UnboundedSender<Finished>,
    room: Arc<Room>,
    flush: UnboundedSender<oneshot::Sender<()>>,
    counts: Counts,
}

/// How many spans wait, and when that is a batch.
struct Room {
    waiting: AtomicUsize,
    queue: usize,
    batch: usize,
    full: Notify,
}

/// What became of spans.
#[derive(Clone, Default)]
pub struct Counts {
    /// Taken by the receiver.
    pub exported: Arc<Counter>,
    /// Lost: there was no room for them, or the receiver did not take them.
    pub dropped: Arc<Counter>,
}

impl Spans {
    /// Starts the task that hands them over, which ends when nobody holds this any more.
    pub fn start(rules: SpanRules, counts: Counts, log: Log) -> Spans {
        let (finished, received) = unbounded_channel();
        let (flush, flushes) = unbounded_channel();
        let (queue, batch) = (rules.queue, rules.batch);
        let room = Arc::new(Room { waiting: AtomicUsize::new(0), queue, batch, full: Notify::new() });
        let waiting = Waiting { finished: received, room: Arc::clone(&room) };
        let sampler = rules.sampler;
        tokio::spawn(Exporter::new(waiting, flushes, Receiver::new(rules), counts.clone(), log).keep_up());
        Spans { sampler, finished, room, flush, counts }
    }

    /// Which requests are recorded.
    pub fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// Takes a request whose reply has been sent just now.
    pub fn take(&self, recorded: Recorded, event: Event<'_>, start: Instant) {
        let spans = recorded.spans();
        if !self.room.enter(spans) {
            self.counts.dropped.add(spans as u64);
            return;
        }
        let now = SystemTime::now();
        let before =
            recorded.exchange.as_ref().map_or(Duration::ZERO, |one| one.asked.saturating_duration_since(start));
        let start = now.checked_sub(event.total).unwrap_or(now);
        let server = loop {
            // Eight zero bytes are no id.
            let id: [u8; 8] = rand::random();
            if id != [0; 8] {
                break id;
            }
        };
        // Without the task there is nobody to count them either.
        let _ = self.finished.send(Finished { recorded, event: event.into_owned(), server, start, before });
    }

    /// Hands over everything taken so far, but for no longer than this. True when all of it went its way.
    pub async fn flush(&self, within: Duration) -> bool {
        let (done, all) = oneshot::channel();
        self.flush.send(done).is_ok() && matches!(tokio::time::timeout(within, all).await, Ok(Ok(())))
    }
}

impl Room {
    fn enter(&self, spans: usize) -> bool {
        let before = self.waiting.fetch_add(spans, Ordering::Relaxed);
        if before + spans > self.queue {
            self.waiting.fetch_sub(spans, Ordering::Relaxed);
            return false;
        }
        if before < self.batch && before + spans >= self.batch {
            self.full.notify_one();
        }
        true
    }
}

/// The other end of the queue.
struct Waiting {
    finished: UnboundedReceiver<Finished>,
    room: Arc<Room>,
}

impl Waiting {
    /// Takes out as many as a batch may have; nothing when nobody waits.
    fn batch(&mut self) -> Vec<Finished> {
        let mut batch = Vec::new();
        let mut spans = 0;
        // A request's two spans stay together, so that the last may make it one more than a batch should have.
        while spans < self.room.batch {
            // Never awaited: a task that is woken for each request costs more than what it does for it.
            let Ok(finished) = self.finished.try_recv() else { break };
            spans += finished.recorded.spans();
            batch.push(finished);
        }
        self.room.waiting.fetch_sub(spans, Ordering::Relaxed);
        batch
    }

    /// Whether nobody is left who could send.
    fn is_over(&self) -> bool {
        self.finished.is_closed() && self.finished.is_empty()
    }

    fn is_full(&self) -> bool {
        self.room.waiting.load(Ordering::Relaxed) >= self.room.batch
    }
}

/// How many spans they come to.
fn count(batch: &[Finished]) -> u64 {
    batch.iter().map(|finished| finished.recorded.spans() as u64).sum()
}
