//! A connection that speaks HTTP/2, watched for what we end on it.
//!
//! The h2 crate refuses much by itself, and tells nobody but the caller: a head that breaks RFC 9113, a list of fields that
//! is too long, a stream too many, a flood. What it tells stands in the frames that go out, RST_STREAM and GOAWAY with
//! their error code, so that is where it is learnt.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::refused::Http2Fault;

/// What is to be done about a fault.
type Tell = Box<dyn Fn(Http2Fault) + Send + Sync>;

/// A connection whose outgoing frames are followed.
pub struct Followed {
    stream: Stream,
    frames: Frames,
    known: Arc<AtomicBool>,
    tell: Tell,
}

/// Says that the next reset of a stream has been told of already.
#[derive(Clone)]
pub struct Known(Arc<AtomicBool>);

/// Where in the sequence of frames the bytes are.
#[derive(Default)]
struct Frames {
    /// The bytes of the current frame's head (RFC 9113 §4.1), and behind it of as much payload as is looked at.
    start: Vec<u8>,
    /// Bytes of it still to come that nobody looks at.
    skip: usize,
}

impl Followed {
    /// Follows what goes out on `stream`.
    pub fn new(stream: Stream, tell: impl Fn(Http2Fault) + Send + Sync + 'static) -> (Followed, Known) {
        let known = Arc::new(AtomicBool::new(false));
        let followed = Followed { stream, frames: Frames::default(), known: Arc::clone(&known), tell: Box::new(tell) };
        (followed, Known(known))
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let (known, tell) = (&self.known, &self.tell);
        self.frames.follow(bytes, |fault| match fault {
            Http2Fault::Request if known.swap(false, Ordering::Relaxed) => {}
            fault => tell(fault),
        });
    }
}

impl Known {
    /// pingora refuses some requests after h2 has let them through. It says so, and may reset their stream.
    pub fn expect(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Frames {
    fn follow(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Http2Fault)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = self.looked_at() - self.start.len();
            let (taken, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            self.start.extend_from_slice(taken);
            bytes = rest;
            if self.start.len() == self.looked_at() && self.start.len() >= HEAD {
                if let Some(fault) = self.fault() {
                    tell(fault);
                }
                self.skip = self.payload() + HEAD - self.start.len();
                self.start.clear();
            }
        }
    }

    /// How many bytes of the current frame are looked at, as far as is known.
    fn looked_at(&self) -> usize {
        match self.start.get(3) {
            Some(&RST_STREAM) if self.start.len() >= HEAD => HEAD + self.payload().min(4),
            Some(&GOAWAY) if self.start.len() >= HEAD => HEAD + self.payload().min(8),
            _ => HEAD,
        }
    }

    fn payload(&self) -> usize {
        self.start.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte))
    }

    /// What a frame says to its receiver (RFC 9113 §7). Codes that we give where a caller did nothing wrong are none.
    fn fault(&self) -> Option<Http2Fault> {
        let code = self.start.last_chunk::<4>().map(|code| h2::Reason::from(u32::from_be_bytes(*code)))?;
        match (*self.start.get(3)?, self.start.len()) {
            (RST_STREAM, RST_STREAM_LENGTH) => match code {
                h2::Reason::NO_ERROR | h2::Reason::CANCEL | h2::Reason::INTERNAL_ERROR => None,
                h2::Reason::REFUSED_STREAM => Some(Http2Fault::Stream),
                _ => Some(Http2Fault::Request),
            },
            (GOAWAY, GOAWAY_LENGTH) => match code {
                h2::Reason::NO_ERROR | h2::Reason::INTERNAL_ERROR => None,
                h2::Reason::ENHANCE_YOUR_CALM => Some(Http2Fault::Flood),
                _ => Some(Http2Fault::Connection),
            },
            _ => None,
        }
    }
}

/// Of a frame's length, type, flags and stream.
const HEAD: usize = 9;

const RST_STREAM: u8 = 3;
const RST_STREAM_LENGTH: usize = HEAD + 4;
const GOAWAY: u8 = 7;
const GOAWAY_LENGTH: usize = HEAD + 8;

impl std::fmt::Debug for Followed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stream.fmt(f)
    }
}

impl AsyncRead for Followed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Followed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.wrote(bytes.get(..written).unwrap_or(bytes));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = slice.get(..left).unwrap_or(slice);
            left -= part.len();
            self.wrote(part);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Followed {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl UniqueID for Followed {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Followed {}

impl Peek for Followed {}

impl GetTimingDigest for Followed {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for Followed {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Followed {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 5], payload].concat()
    }

    fn reset(code: u32) -> Vec<u8> {
        frame(RST_STREAM, &code.to_be_bytes())
    }

    fn goodbye(code: u32, debug: &[u8]) -> Vec<u8> {
        frame(GOAWAY, &[&[0, 0, 0, 9], &code.to_be_bytes()[..], debug].concat())
    }

    #[test]
    fn what_is_refused_is_found_among_the_frames_in_pieces_of_every_size() {
        let looks_like_a_reset = frame(0, &reset(1));
        let frames = [
            frame(4, &[]),
            looks_like_a_reset,
            reset(1),
            reset(0),
            reset(8),
            reset(2),
            reset(7),
            frame(1, &[0; 300]),
            goodbye(0, b""),
            reset(3),
            goodbye(11, b"too_many_resets"),
            frame(3, &[1]),
            frame(7, &[0, 0, 0, 1]),
            goodbye(1, b""),
            frame(6, &[7; 8]),
        ]
        .concat();
        let expected =
            [Http2Fault::Request, Http2Fault::Stream, Http2Fault::Request, Http2Fault::Flood, Http2Fault::Connection];
        for size in 1..=frames.len() {
            let (mut following, mut told) = (Frames::default(), Vec::new());
            for piece in frames.chunks(size) {
                following.follow(piece, |fault| told.push(fault));
            }
            assert_eq!(told, expected, "{size}");
        }
    }
}
