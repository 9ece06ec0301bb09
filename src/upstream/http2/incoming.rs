//! The answer of an exchange over HTTP/2, whose body comes in DATA frames.

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use tokio::time::timeout;

use super::Place;
use super::exchange::kind;
use crate::fields::{FieldFault, Fields, Only, content_length};
use crate::upstream::answer::{AnswerStream, Gathered};
use crate::upstream::patience::Patience;
use crate::upstream::{FailureKind, UpstreamLimits};

/// A body on its way in.
pub(in crate::upstream) struct Incoming {
    stream: RecvStream,
    /// What the PAM has stated, of a body that may come.
    length: Option<u64>,
    bodiless: bool,
    received: u64,
    limits: UpstreamLimits,
    /// Behind the stream, so that the stream is over when another may take the place.
    _place: Place,
}

impl Incoming {
    /// Status and fields of an answer, and its body to be read.
    pub(super) fn open(
        head: http::response::Parts,
        stream: RecvStream,
        head_request: bool,
        limits: &UpstreamLimits,
        place: Place,
    ) -> Result<(u16, Fields, Incoming), FailureKind> {
        let status = head.status.as_u16();
        if !(200..=599).contains(&status) {
            return Err(FailureKind::Malformed("status_line"));
        }
        let pairs = head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let fields = Fields::from_pairs(pairs, limits.answer_fields);
        let fields = fields.map_err(|fault: FieldFault| FailureKind::Malformed(fault.as_str()))?;
        let length = match fields.only("content-length") {
            Only::None => None,
            Only::One(length) => Some(content_length(length).ok_or(FailureKind::Malformed("length"))?),
            Only::Many => return Err(FailureKind::Malformed("length")),
        };
        let bodiless = head_request || matches!(status, 204 | 304);
        let length = length.filter(|_| !bodiless);
        let incoming = Incoming { stream, length, bodiless, received: 0, limits: *limits, _place: place };
        Ok((status, fields, incoming))
    }

    /// Reads the body until it ends or exceeds what is held.
    pub(super) async fn gather(&mut self, patience: Patience) -> Result<Gathered, FailureKind> {
        if self.length.is_some_and(|length| length > self.limits.held as u64) {
            return Ok(Gathered::Larger(Bytes::new()));
        }
        // One frame is the usual answer, and needs no copy.
        let mut gathered = match self.piece(patience).await? {
            None => return Ok(Gathered::Whole(Bytes::new())),
            Some(piece) if piece.len() > self.limits.held => return Ok(Gathered::Larger(piece)),
            Some(piece) => piece,
        };
        let mut rest = BytesMut::new();
        while let Some(piece) = self.piece(patience).await? {
            if rest.is_empty() {
                let length = self.length.and_then(|length| usize::try_from(length).ok());
                rest.reserve(length.unwrap_or(gathered.len() + piece.len()));
                rest.extend_from_slice(&gathered);
            }
            rest.extend_from_slice(&piece);
            if rest.len() > self.limits.held {
                return Ok(Gathered::Larger(rest.freeze()));
            }
        }
        if !rest.is_empty() {
            gathered = rest.freeze();
        }
        Ok(Gathered::Whole(gathered))
    }

    /// The rest of the body as a stream that starts with `gathered`.
    pub(super) fn stream(self, gathered: Bytes) -> AnswerStream {
        AnswerStream::over_http2(gathered, self.length, self)
    }

    /// The next piece of the body, never empty; `None` at its end. Trailers are dropped.
    pub(in crate::upstream) async fn piece(&mut self, patience: Patience) -> Result<Option<Bytes>, FailureKind> {
        loop {
            let next = timeout(patience.at_most(self.limits.read), self.stream.data()).await;
            let piece = match next.map_err(|_| FailureKind::Timeout)? {
                // The h2 crate compares lengths as well; what is told as a whole answer must not depend on it.
                None if self.length.is_some_and(|length| length != self.received) => {
                    return Err(FailureKind::Malformed("length"));
                }
                None => return Ok(None),
                Some(Ok(piece)) => piece,
                Some(Err(fault)) => return Err(kind(&fault)),
            };
            if piece.is_empty() {
                continue;
            }
            self.received += piece.len() as u64;
            if self.bodiless || self.length.is_some_and(|length| length < self.received) {
                return Err(FailureKind::Malformed("length"));
            }
            // The PAM may send as much again: whoever asked for this piece has room for it.
            let _ = self.stream.flow_control().release_capacity(piece.len());
            return Ok(Some(piece));
        }
    }
}
