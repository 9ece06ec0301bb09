//! A connection that speaks HTTP/1: its requests, one after the other.
//!
//! While a request is with the PAM nothing is read from the caller. A half-close, a reset or a stray byte can therefore
//! neither abort nor repeat what the PAM is executing; they are noticed when the reply is written, or as the next head.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};

use super::current::Current;
use super::leave::Leaving;
use super::{Body, BodyFault, DRAINED, DRAINED_WITHIN, Refused, Sent, Serve};
use crate::config::Limits;
use crate::digits::put_number;
use crate::prompt::{Deadline, Elapsed, Limit, within};
use crate::request::{Head, HeadFault, Peer, Reply, ReplyBody};
use crate::upstream::AnswerStream;

/// Serves a connection until one of the sides ends it. `read` is what has been read of it already.
pub async fn serve<S: Serve>(current: &Current<S>, stream: Stream, peer: &Peer, read: BytesMut, mut leaving: Leaving) {
    let mut wire = Wire { stream, read, deadline: Deadline::default() };
    let mut limits = current.now().limits();
    let opened = Instant::now();
    let mut silence = Limit::since(limits.head_timeout, opened.into());
    let old = opened + limits.connection_age;
    let mut served = 0;
    loop {
        let raw = match wire.head(silence, &limits, &mut leaving).await {
            Ok(Some(raw)) => raw,
            Ok(None) => {
                wire.tell_unserved(&*current.now(), peer);
                wire.part().await;
                return;
            }
            Err(_) => {
                wire.tell_unserved(&*current.now(), peer);
                return;
            }
        };
        // From its first byte that is looked at to its reply a request is one generation's.
        let serve = current.now();
        let came = Instant::now();
        limits = serve.limits();
        let head = raw.and_then(|raw| Head::scan(raw, &limits.head));
        let mut exchange = Exchange { wire: &mut wire, unread: 0, expects_continue: false };
        let mut go_on = false;
        if let Ok(head) = &head {
            go_on = head.framing.keep_alive;
            exchange.unread = head.framing.length.unwrap_or(0);
            exchange.expects_continue = head.framing.expects_continue;
        }
        let (reply, record) = serve.serve(head, peer, came, &mut exchange).await;
        served += 1;
        go_on = go_on && !reply.last && served < limits.requests_per_connection && Instant::now() < old;
        // What is closed anyway is not waited for; the lingering close takes it off.
        go_on = go_on && !leaving.is_announced() && exchange.drain().await;
        let written = wire.reply(reply, go_on, limits.write_timeout).await;
        let sent = if written.is_ok() { Sent::Whole } else { Sent::Cut };
        let now = Instant::now();
        serve.sent(record, sent, now);
        if sent == Sent::Cut {
            return;
        }
        if !go_on {
            wire.linger().await;
            return;
        }
        silence = Limit::since(limits.idle_timeout, now.into());
    }
}

/// A connection and what has been read from it but not yet used.
struct Wire {
    stream: Stream,
    read: BytesMut,
    /// For its next byte.
    deadline: Deadline,
}

/// One request's use of a connection.
struct Exchange<'w> {
    wire: &'w mut Wire,
    /// Bytes of the body that are still to come.
    unread: u64,
    expects_continue: bool,
}

impl Wire {
    /// The bytes of the next head; `None` when the caller ends the connection, stays silent for too long, or we are stopping.
    async fn head(
        &mut self,
        silence: Limit,
        limits: &Limits,
        leaving: &mut Leaving,
    ) -> io::Result<Option<Result<Bytes, HeadFault>>> {
        // One empty line in front of a request is what some old callers send behind a body (RFC 9112 §2.2). It starts no
        // request, so it does not start the clock either: a 408 for it could be taken for the next request's answer.
        while EMPTY_LINE.starts_with(&self.read) {
            let Wire { stream, read, deadline } = self;
            let more = tokio::select! {
                biased;
                more = deadline.within(silence, more(stream, read, ROOM)) => more,
                () = leaving.over() => return Ok(None),
            };
            if !matches!(more, Ok(Ok(true))) {
                return Ok(None);
            }
        }
        if self.read.starts_with(EMPTY_LINE) {
            self.read.advance(EMPTY_LINE.len());
        }
        let mut slow = None;
        let mut searched = 0;
        loop {
            if let Some(end) = head_end(&self.read, searched) {
                return Ok(Some(Ok(self.read.split_to(end).freeze())));
            }
            if self.read.len() > limits.head.bytes {
                return Ok(Some(Err(HeadFault::TooLarge)));
            }
            searched = self.read.len().saturating_sub(3);
            // Most heads come whole: they need no clock.
            let slow = *slow.get_or_insert_with(|| tokio::time::Instant::now() + limits.head_timeout);
            match timeout_at(slow, self.more()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(None),
                Ok(Err(fault)) => return Err(fault),
                Err(_) => return Ok(Some(Err(HeadFault::Slow))),
            }
        }
    }

    /// A head that has begun will never be whole.
    fn tell_unserved<S: Serve>(&self, serve: &S, peer: &Peer) {
        if !EMPTY_LINE.starts_with(&self.read) {
            serve.refused(peer.address, Refused::HeadCut);
        }
    }

    /// Reads once; false at the end of the connection.
    async fn more(&mut self) -> io::Result<bool> {
        self.more_of(ROOM).await
    }

    async fn more_of(&mut self, room: usize) -> io::Result<bool> {
        more(&mut self.stream, &mut self.read, room).await
    }

    /// Writes a reply, in one write when its body is held. Each write has `time`.
    async fn reply(&mut self, reply: Reply, go_on: bool, time: Duration) -> io::Result<()> {
        let held = if let ReplyBody::Whole(body) = &reply.body { body.len() } else { 0 };
        let fields: usize = reply.lines().map(|(name, value)| name.len() + value.len() + 4).sum();
        let mut out = Vec::with_capacity(FRAME + fields + held);
        out.extend_from_slice(b"HTTP/1.1 ");
        put_number(&mut out, reply.status.into());
        out.extend_from_slice(b" ");
        out.extend_from_slice(reason(reply.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in reply.lines() {
            put_field(&mut out, name, value);
        }
        if !go_on {
            put_field(&mut out, b"Connection", b"close");
        }
        match reply.body {
            ReplyBody::Whole(body) => {
                put_length(&mut out, body.len() as u64);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(&body);
                self.put(&out, time).await
            }
            ReplyBody::None => {
                out.extend_from_slice(b"\r\n");
                self.put(&out, time).await
            }
            ReplyBody::Stream(body) => {
                match body.length() {
                    Some(length) => put_length(&mut out, length),
                    None => put_field(&mut out, b"Transfer-Encoding", b"chunked"),
                }
                out.extend_from_slice(b"\r\n");
                self.pass_on(out, body, time).await
            }
        }
    }

    /// Writes `out` and then a body as it comes. An error leaves the caller with a reply that is visibly incomplete.
    async fn pass_on(&mut self, mut out: Vec<u8>, mut body: AnswerStream, time: Duration) -> io::Result<()> {
        let chunked = body.length().is_none();
        loop {
            let piece = body.next().await.map_err(|_| io::ErrorKind::ConnectionAborted)?;
            match (&piece, chunked) {
                (Some(piece), true) => {
                    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    out.extend_from_slice(piece);
                    out.extend_from_slice(b"\r\n");
                }
                (Some(piece), false) => out.extend_from_slice(piece),
                (None, true) => out.extend_from_slice(b"0\r\n\r\n"),
                (None, false) => {}
            }
            self.put(&out, time).await?;
            out.clear();
            if piece.is_none() {
                return Ok(());
            }
        }
    }

    async fn put(&mut self, bytes: &[u8], time: Duration) -> io::Result<()> {
        within(time, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
        .unwrap_or_else(|Elapsed| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the connection where nothing is owed any more. Under TLS that is said, or the caller would have to suspect that
    /// somebody has cut it (RFC 8446 §6.1).
    async fn part(&mut self) {
        let _ = timeout(DRAINED_WITHIN, self.stream.shutdown()).await;
    }

    /// Ends the connection so that the reply arrives: closing with unread bytes would make the kernel send a reset, which
    /// can overtake the reply on its way (RFC 9112 §9.6).
    async fn linger(&mut self) {
        let linger = async {
            self.stream.shutdown().await?;
            let mut drained = 0;
            while drained < DRAINED && self.more().await? {
                drained += self.read.len() as u64;
                self.read.clear();
            }
            Ok::<_, io::Error>(())
        };
        let _ = timeout(DRAINED_WITHIN, linger).await;
    }
}

impl Exchange<'_> {
    /// Takes what is left of the body off the wire. True when the next byte is the next request's.
    async fn drain(&mut self) -> bool {
        if self.unread == 0 {
            return true;
        }
        // Who waits for an invitation that never came may or may not send the body: what follows cannot be told apart.
        if self.expects_continue || self.unread > DRAINED {
            return false;
        }
        self.read(DRAINED, DRAINED_WITHIN).await.is_ok()
    }

    async fn whole(&mut self) -> Result<Bytes, BodyFault> {
        let length = usize::try_from(self.unread).map_err(|_| BodyFault::TooLarge)?;
        if self.expects_continue && length > 0 && self.wire.read.is_empty() {
            let invitation = self.wire.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            invitation.await.map_err(|_| BodyFault::Cut)?;
            self.wire.stream.flush().await.map_err(|_| BodyFault::Cut)?;
        }
        self.expects_continue = false;
        while self.wire.read.len() < length {
            match self.wire.more_of((length - self.wire.read.len()).min(BODY_ROOM)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Err(BodyFault::Cut),
            }
        }
        self.unread = 0;
        let body = self.wire.read.split_to(length).freeze();
        if length > ROOM {
            // What follows moves to a buffer of its own: an idle connection must not keep the room of a large body.
            self.wire.read = BytesMut::from(self.wire.read.as_ref());
        }
        Ok(body)
    }
}

impl Body for Exchange<'_> {
    async fn read(&mut self, most: u64, time: Duration) -> Result<Bytes, BodyFault> {
        if self.unread > most {
            return Err(BodyFault::TooLarge);
        }
        within(time, self.whole()).await.unwrap_or(Err(BodyFault::Slow))
    }
}

/// Reads once, with so much room; false at the end of the connection.
async fn more(stream: &mut Stream, read: &mut BytesMut, room: usize) -> io::Result<bool> {
    read.reserve(room);
    Ok(stream.read_buf(read).await? > 0)
}

/// Where a head ends: behind its first empty line. A line that ends with a bare line feed counts here, so that such a
/// head is found and refused at once instead of being waited for.
fn head_end(read: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(feed) = memchr(b'\n', read.get(at..)?) {
        let next = at + feed + 1;
        match read.get(next..)? {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => at = next,
        }
    }
    None
}

fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    put_number(out, length);
    out.extend_from_slice(b"\r\n");
}

/// The reason phrases callers and people expect; any other status goes without one (RFC 9112 §4).
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

/// Room for what stands in a head beside its fields: the status line, Content-Length, Connection, the empty line.
const FRAME: usize = 128;

const EMPTY_LINE: &[u8] = b"\r\n";

/// Room for one read. Most requests fit whole; the buffer grows when they do not.
const ROOM: usize = 4 << 10;

/// Room for one read of a body. What a caller declares is not yet what it sends, so memory follows the bytes.
const BODY_ROOM: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_behind_its_first_empty_line_however_its_lines_end() {
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", 0), Some(27));
        assert_eq!(head_end(b"GET / HTTP/1.1\nHost: a\n\nrest", 0), Some(24));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\n\r\nrest", 0), Some(26));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r", 0), None);
        assert_eq!(head_end(b"", 0), None);
    }
}
