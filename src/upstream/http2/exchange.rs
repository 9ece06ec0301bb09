//! One exchange over HTTP/2: a request, sent once, and the answer to it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::Place;
use super::incoming::Incoming;
use crate::upstream::answer::{Answer, AnswerBody, Gathered, MOST_INTERIM, answering};
use crate::upstream::patience::Patience;
use crate::upstream::{Failure, FailureKind, Manner, UpstreamLimits};

/// Sends one request once, on the place that was found for it, and reads its answer. Dropping the future resets its
/// stream and leaves those beside it alone.
pub(in crate::upstream) async fn exchange(
    place: Place,
    request: http::Request<()>,
    body: Bytes,
    manner: Manner,
    limits: &UpstreamLimits,
    patience: Patience,
) -> Result<Answer, Failure> {
    let sent = place.sender().send_request(request, body.is_empty());
    // The connection has ended since the place was taken: nothing has been queued, so nothing is sent later either.
    let (response, stream) = sent.map_err(|_| Failure { kind: FailureKind::Closed, sent: false })?;
    let mut sending = pin!(timeout(patience.at_most(limits.write), send(stream, body)));
    let mut waiting = Waiting { response, interim: 0 };

    // An answer may come before the whole request has gone (RFC 9113 §8.1); its time is measured from then on.
    let early = tokio::select! {
        biased;
        head = waiting.head(None) => Some(head?),
        sent = &mut sending => sent.map(|()| None).map_err(|_| answering(FailureKind::Timeout))?,
    };
    let (head, mut sending) = match early {
        Some(head) => (head, Some(sending)),
        None => (waiting.head(Some((patience, limits.read))).await?, None),
    };
    place.heard();
    let reused = !place.new;
    let (head, recv) = head.into_parts();
    let (status, fields, mut incoming) =
        Incoming::open(head, recv, manner.head_request, limits, place).map_err(answering)?;
    let gathered = alongside(&mut sending, incoming.gather(patience)).await.map_err(answering)?;
    let body = match gathered {
        Gathered::Whole(body) => AnswerBody::Whole(body),
        Gathered::Larger(_) if manner.must_hold => return Err(answering(FailureKind::TooLarge)),
        Gathered::Larger(gathered) => {
            if let Some(sending) = sending {
                sending.await.map_err(|_| answering(FailureKind::Timeout))?;
            }
            AnswerBody::Stream(incoming.stream(gathered))
        }
    };
    Ok(Answer { status, fields, body, reused, at: Instant::now() })
}

/// Sends the body as the PAM's windows allow. Where the PAM ends the stream, the answer's side is told why.
async fn send(mut stream: SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let piece = body.split_to(room.min(body.len()));
        if stream.send_data(piece, body.is_empty()).is_err() {
            return;
        }
    }
}

/// What the answer comes to, while the rest of the request goes on being sent.
async fn alongside<T, S: Future<Output = Result<(), Elapsed>>>(
    sending: &mut Option<Pin<&mut S>>,
    answer: impl Future<Output = Result<T, FailureKind>>,
) -> Result<T, FailureKind> {
    let mut answer = pin!(answer);
    if let Some(rest) = sending {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            sent = rest => sent.map_err(|_| FailureKind::Timeout)?,
        }
        *sending = None;
    }
    answer.await
}

/// An answer that has not begun.
struct Waiting {
    response: ResponseFuture,
    interim: usize,
}

impl Waiting {
    /// Its head, past interim ones (RFC 9110 §15.2); each is waited for only so long, where there is a bound.
    async fn head(&mut self, bound: Option<(Patience, Duration)>) -> Result<http::Response<RecvStream>, Failure> {
        loop {
            let next = match bound {
                None => self.next().await,
                Some((patience, step)) => match timeout(patience.at_most(step), self.next()).await {
                    Ok(next) => next,
                    Err(_) => return Err(answering(FailureKind::Timeout)),
                },
            };
            match next {
                Ok(Some(head)) => return Ok(head),
                Ok(None) => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// `None` for an interim head.
    async fn next(&mut self) -> Result<Option<http::Response<RecvStream>>, Failure> {
        let next = poll_fn(|cx| match self.response.poll_informational(cx) {
            Poll::Ready(Some(interim)) => Poll::Ready(interim.map(Err)),
            Poll::Ready(None) | Poll::Pending => Pin::new(&mut self.response).poll(cx).map_ok(Ok),
        });
        match next.await {
            Ok(Ok(head)) => Ok(Some(head)),
            Ok(Err(interim)) if interim.status() == 101 => Err(answering(FailureKind::Unasked101)),
            Ok(Err(_)) if self.interim == MOST_INTERIM => Err(answering(FailureKind::Malformed("interim"))),
            Ok(Err(_)) => {
                self.interim += 1;
                Ok(None)
            }
            Err(fault) if self.interim == 0 && is_unprocessed(&fault) => {
                Err(Failure { kind: FailureKind::Unprocessed, sent: false })
            }
            Err(fault) => Err(answering(kind(&fault))),
        }
    }
}

/// Whether the PAM says that it has done nothing with the request (RFC 9113 §8.7): it refused the stream, or ended the
/// connection and the last stream that it names came before this one. The h2 crate gives a GOAWAY of the PAM's to those
/// streams only. A stream that is refused here, because its answer is against the rules, is not meant.
fn is_unprocessed(fault: &h2::Error) -> bool {
    let refused = fault.is_reset() && fault.reason() == Some(Reason::REFUSED_STREAM);
    fault.is_remote() && (refused || fault.is_go_away())
}

/// What is wrong with a stream that brought no whole answer.
pub(super) fn kind(fault: &h2::Error) -> FailureKind {
    match fault.is_library() {
        true => FailureKind::Malformed("http2"),
        false => FailureKind::Closed,
    }
}
