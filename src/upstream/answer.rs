//! Reading an answer: held whole where it fits, handed on in pieces where it does not.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::connection::{Connection, FIRST_ROOM};
use super::framing::{Framing, Step, TrailerBounds};
use super::head::Head;
use super::http2;
use super::patience::Patience;
use super::pool::Pool;
use super::section::Section;
use super::{Failure, FailureKind, UpstreamLimits};
use crate::fields::Fields;

/// The PAM's answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// As they came, those of the connection (RFC 9110 §7.6.1) included.
    pub fields: Fields,
    /// Without its framing.
    pub body: AnswerBody,
    /// Whether it came over a connection that had served an exchange before.
    pub reused: bool,
    /// When it was there, as far as it is held.
    pub at: Instant,
}

/// The body of an answer. `Debug` prints no byte of it.
pub enum AnswerBody {
    /// All of it, complete.
    Whole(Bytes),
    /// More than is held.
    Stream(AnswerStream),
}

/// A body that comes in pieces.
///
/// Over HTTP/1.1, the connection goes back to the pool when [`next`](AnswerStream::next) has told the
/// end; dropping the stream earlier closes it. Over HTTP/2, it resets the exchange's stream.
pub struct AnswerStream {
    /// What was gathered before the body turned out to be too large.
    gathered: Bytes,
    length: Option<u64>,
    flow: Flow,
}

enum Flow {
    Http1(Box<Incoming>, Arc<Pool>),
    Http2(Box<http2::Incoming>),
    Complete,
    Cut,
}

impl AnswerStream {
    /// One that starts with `gathered`, over HTTP/2.
    pub(super) fn over_http2(gathered: Bytes, length: Option<u64>, incoming: http2::Incoming) -> AnswerStream {
        AnswerStream { gathered, length, flow: Flow::Http2(Box::new(incoming)) }
    }

    /// The bytes of the whole body, where the PAM has stated them.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece, never empty; `None` at the end of a complete body. After a failure the body
    /// is incomplete for good.
    ///
    /// Only the wait for each piece is bounded. The time for the whole is not the PAM's alone: it
    /// depends on how fast the caller takes the pieces and on how many there are, so a bound on it
    /// would cut large answers and slow callers.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.gathered.is_empty() {
            return Ok(Some(mem::take(&mut self.gathered)));
        }
        let piece = match &mut self.flow {
            Flow::Http1(incoming, _) => {
                incoming.piece(Patience::per_step()).await.map(|piece| piece.map(BytesMut::freeze))
            }
            Flow::Http2(incoming) => incoming.piece(Patience::per_step()).await,
            Flow::Complete => return Ok(None),
            Flow::Cut => return Err(answering(FailureKind::Closed)),
        };
        match piece {
            Ok(Some(piece)) => Ok(Some(piece)),
            Ok(None) => {
                if let Flow::Http1(incoming, pool) = mem::replace(&mut self.flow, Flow::Complete) {
                    incoming.release(&pool, Instant::now());
                }
                Ok(None)
            }
            Err(kind) => {
                self.flow = Flow::Cut;
                Err(answering(kind))
            }
        }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerBody::Whole(body) => write!(f, "Whole({} bytes)", body.len()),
            AnswerBody::Stream(stream) => write!(f, "Stream({:?} bytes)", stream.length),
        }
    }
}

/// Reads the head of the answer, past interim ones (RFC 9110 §15.2).
pub(super) async fn head(
    connection: &mut Connection,
    limits: &UpstreamLimits,
    patience: Patience,
) -> Result<Head, FailureKind> {
    for _ in 0..=MOST_INTERIM {
        let head = any_head(connection, limits, patience).await?;
        match head.status {
            101 => return Err(FailureKind::Unasked101),
            ..200 => (),
            _ => return Ok(head),
        }
    }
    Err(FailureKind::Malformed("interim"))
}

async fn any_head(
    connection: &mut Connection,
    limits: &UpstreamLimits,
    patience: Patience,
) -> Result<Head, FailureKind> {
    let mut section = Section::default();
    loop {
        let buffer = &mut connection.buffer;
        if !Head::may_start(buffer) {
            return Err(FailureKind::Malformed("status_line"));
        }
        let end = section.end(buffer, limits.answer_head);
        if let Some(end) = end.map_err(FailureKind::Malformed)? {
            let raw = buffer.split_to(end).freeze();
            return Head::parse(raw, limits.answer_fields).map_err(FailureKind::Malformed);
        }
        if !connection.fill(FIRST_ROOM, patience.limit(limits.read)).await? {
            return Err(FailureKind::Closed);
        }
    }
}

/// A body on its way in.
pub(super) struct Incoming {
    connection: Connection,
    framing: Framing,
    /// Whether the connection can serve another exchange afterwards.
    keeps: bool,
    limits: UpstreamLimits,
}

/// What became of an attempt to hold a body.
pub(super) enum Gathered {
    Whole(Bytes),
    /// It is larger; these are its first bytes, perhaps none.
    Larger(Bytes),
}

impl Incoming {
    pub(super) fn new(connection: Connection, (framing, keeps): (Framing, bool), limits: UpstreamLimits) -> Incoming {
        Incoming { connection, framing, keeps, limits }
    }

    /// Reads the body until it ends or exceeds what is held.
    pub(super) async fn gather(&mut self, patience: Patience) -> Result<Gathered, FailureKind> {
        if let Some(length) = self.framing.length() {
            match usize::try_from(length) {
                // Room for all of it now, so that it never has to be moved.
                Ok(length) if length <= self.limits.held => self.connection.make_room(length),
                _ => return Ok(Gathered::Larger(Bytes::new())),
            }
        }
        let mut gathered = BytesMut::new();
        while let Some(piece) = self.piece(patience).await? {
            // No copy where the pieces lie side by side: in every body that is not chunked.
            gathered.unsplit(piece);
            if gathered.len() > self.limits.held {
                return Ok(Gathered::Larger(gathered.freeze()));
            }
        }
        Ok(Gathered::Whole(gathered.freeze()))
    }

    /// The rest of the body as a stream that starts with `gathered`.
    pub(super) fn stream(self, gathered: Bytes, pool: Arc<Pool>) -> AnswerStream {
        AnswerStream { length: self.framing.length(), gathered, flow: Flow::Http1(Box::new(self), pool) }
    }

    /// Gives the connection back, after a complete body and if nothing is left over.
    pub(super) fn release(self, pool: &Pool, now: Instant) {
        if self.keeps
            && let Some(stream) = self.connection.into_clean()
        {
            pool.give(stream, now);
        }
    }

    /// The next piece of the body, never empty; `None` at its end.
    async fn piece(&mut self, patience: Patience) -> Result<Option<BytesMut>, FailureKind> {
        let bounds = TrailerBounds { section: self.limits.answer_head, fields: self.limits.answer_fields };
        loop {
            let step = self.framing.step(&mut self.connection.buffer, bounds);
            match step.map_err(FailureKind::Malformed)? {
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::End => return Ok(None),
                Step::More => (),
            }
            let room = self.framing.room();
            if !self.connection.fill(room, patience.limit(self.limits.read)).await? {
                return match self.framing.ends_at_close() {
                    true => Ok(None),
                    false => Err(FailureKind::Closed),
                };
            }
        }
    }
}

/// A failure behind the request.
pub(super) fn answering(kind: FailureKind) -> Failure {
    Failure { kind, sent: true }
}

/// Interim answers in front of one answer: 100, 102 and 103 are in use, and none of them helps
/// here.
pub(super) const MOST_INTERIM: usize = 8;
