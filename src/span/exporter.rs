//! Batches on their way to the receiver: a task of its own, which nobody waits for but the end of the process.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Counts, Finished, SpanRules, Waiting, count, otlp};
use crate::fields::{Fields, Only};
use crate::log::Log;
use crate::secret::Secret;
use crate::tls::pam::PamRules;
use crate::tls::watched::Watched;
use crate::upstream::{AnswerBody, Manner, Outbound, Upstream, UpstreamLimits};

/// Takes batches out of the queue and hands them over.
pub(super) struct Exporter {
    waiting: Waiting,
    flushes: UnboundedReceiver<oneshot::Sender<()>>,
    receiver: Receiver,
    counts: Counts,
    log: Log,
    /// Whether the receiver did not take what it was given last.
    failing: bool,
}

/// Who spans are handed to.
pub(super) struct Receiver {
    upstream: Upstream,
    tls: Option<Arc<Watched<PamRules>>>,
    authority: String,
    target: String,
    headers: Vec<(String, Secret)>,
    gzip: bool,
    patience: Duration,
    delay: Duration,
    resource: Arc<[(String, String)]>,
}

/// A batch on its way.
struct Export<'r> {
    receiver: &'r Receiver,
    length: usize,
}

/// What came of one try.
enum Try {
    /// Taken, but for so many spans.
    Taken(u64),
    /// Not taken, and not worth another try.
    Refused(String),
    /// Not taken this time; the receiver may have said when to try again.
    Failed(String, Option<Duration>),
}

impl Exporter {
    pub(super) fn new(
        waiting: Waiting,
        flushes: UnboundedReceiver<oneshot::Sender<()>>,
        receiver: Receiver,
        counts: Counts,
        log: Log,
    ) -> Exporter {
        Exporter { waiting, flushes, receiver, counts, log, failing: false }
    }

    /// Goes on until nobody is left who could send anything.
    pub(super) async fn keep_up(mut self) {
        loop {
            let ends = Instant::now() + self.receiver.delay;
            let asked = tokio::select! {
                () = sleep_until(ends) => None,
                () = self.waiting.room.full.notified() => None,
                asked = self.flushes.recv() => asked,
            };
            self.receiver.look_at_certificates().await;
            // At least once, and then while whole batches wait; when somebody asked for it, until nothing waits.
            loop {
                let batch = self.waiting.batch();
                if batch.is_empty() {
                    break;
                }
                let spans = count(&batch);
                self.hand_over(batch, spans).await;
                if asked.is_none() && !self.waiting.is_full() {
                    break;
                }
            }
            if let Some(asked) = asked {
                // Who asked may have stopped waiting.
                let _ = asked.send(());
            }
            if self.waiting.is_over() {
                return;
            }
        }
    }

    async fn hand_over(&mut self, batch: Vec<Finished>, spans: u64) {
        let taken = match self.receiver.write(batch).await {
            Ok(body) => self.receiver.take(body).await,
            Err(fault) => Err(fault),
        };
        match taken {
            Ok(rejected) => {
                let rejected = rejected.min(spans);
                self.counts.exported.add(spans - rejected);
                self.counts.dropped.add(rejected);
                if std::mem::take(&mut self.failing) {
                    self.log.note("info", "span_export_recovered", &json!({}));
                }
            }
            Err(fault) => {
                self.counts.dropped.add(spans);
                if !std::mem::replace(&mut self.failing, true) {
                    self.log.note("warn", "span_export_failing", &json!({ "fault": fault }));
                }
            }
        }
    }
}

impl Receiver {
    pub(super) fn new(rules: SpanRules) -> Receiver {
        let SpanRules { endpoint, headers, gzip, timeout, patience, delay, resource, .. } = rules;
        let limits = UpstreamLimits {
            connect: timeout,
            write: timeout,
            read: timeout,
            total: timeout,
            idle: Duration::from_secs(30),
            pooled: 1,
            answer_head: 16 << 10,
            answer_fields: 100,
            held: 64 << 10,
        };
        let upstream = Upstream::new(endpoint.address, limits);
        let tls = endpoint.tls.map(Arc::new);
        let upstream = match &tls {
            Some(tls) => upstream.over(Arc::clone(tls)),
            None => upstream,
        };
        let (authority, target, resource) = (endpoint.authority, endpoint.target, resource.into());
        Receiver { upstream, tls, authority, target, headers, gzip, patience, delay, resource }
    }

    /// The body for a batch. A few milliseconds of work, which those threads are spared that serve.
    async fn write(&self, batch: Vec<Finished>) -> Result<Bytes, String> {
        let (resource, gzip) = (Arc::clone(&self.resource), self.gzip);
        let written = tokio::task::spawn_blocking(move || {
            let body = otlp::request(&resource, &batch);
            if gzip { compressed(&body) } else { Ok(body) }
        });
        match written.await {
            Ok(body) => body.map(Bytes::from).map_err(|fault| fault.to_string()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// Hands over a batch, again and again where that is worth it. Gives how many spans were not taken, or why none was.
    ///
    /// What was handed over twice does no harm: a span has an id.
    async fn take(&self, body: Bytes) -> Result<u64, String> {
        let deadline = Instant::now() + self.patience;
        let mut rest = FIRST_REST;
        loop {
            let (fault, wanted) = match timeout_at(deadline, self.once(body.clone())).await {
                Ok(Try::Taken(rejected)) => return Ok(rejected),
                Ok(Try::Refused(fault)) => return Err(fault),
                Ok(Try::Failed(fault, wanted)) => (fault, wanted),
                Err(_) => return Err("timeout".to_owned()),
            };
            // Replicas that failed together do not come back together, and who says "at once" gets a rest all the same.
            let wait = rest.mul_f64(0.5 + rand::random::<f64>() / 2.0).max(wanted.unwrap_or_default());
            if wait >= deadline.saturating_duration_since(Instant::now()) {
                return Err(fault);
            }
            sleep(wait).await;
            rest = (rest * 2).min(LONGEST_REST);
        }
    }

    async fn once(&self, body: Bytes) -> Try {
        let export = Export { receiver: self, length: body.len() };
        let answer = match self.upstream.exchange(&export, body, Manner::default(), Instant::now().into()).await {
            Ok(answer) => answer,
            Err(failure) => return Try::Failed(failure.kind.as_str().to_owned(), None),
        };
        let fault = || format!("status {}", answer.status);
        match answer.status {
            200..=299 => Try::Taken(match &answer.body {
                AnswerBody::Whole(body) => otlp::rejected(body),
                AnswerBody::Stream(_) => 0,
            }),
            429 | 502 | 503 | 504 => Try::Failed(fault(), retry_after(&answer.fields)),
            _ => Try::Refused(fault()),
        }
    }

    /// A certificate that is renewed is in use with the next batch; one that is of no use changes nothing.
    async fn look_at_certificates(&self) {
        if let Some(tls) = &self.tls {
            let tls = Arc::clone(tls);
            // A disk that hangs must not hold a thread that serves.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }
}

impl Outbound for Export<'_> {
    fn method(&self) -> &str {
        "POST"
    }

    fn target(&self) -> &str {
        &self.receiver.target
    }

    fn fields(&self, put: &mut impl FnMut(&[u8], &[u8])) {
        put(b"Host", self.receiver.authority.as_bytes());
        put(b"User-Agent", concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).as_bytes());
        put(b"Content-Type", b"application/x-protobuf");
        if self.receiver.gzip {
            put(b"Content-Encoding", b"gzip");
        }
        for (name, value) in &self.receiver.headers {
            put(name.as_bytes(), value.expose());
        }
        put(b"Content-Length", self.length.to_string().as_bytes());
    }
}

fn compressed(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// In seconds; a date is not looked at.
fn retry_after(fields: &Fields) -> Option<Duration> {
    let Only::One(value) = fields.only("retry-after") else { return None };
    std::str::from_utf8(value).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Between the first two tries; then twice as long each time.
const FIRST_REST: Duration = Duration::from_millis(100);

const LONGEST_REST: Duration = Duration::from_secs(5);
