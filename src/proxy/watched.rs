//! A connection under HTTP/2, watched as its bytes pass: how long its caller keeps us waiting, and what the h2 crate ends
//! on it by itself.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::frames::{Incoming, Outgoing};
use super::refused::Http2Fault;

/// A connection, from its preface on.
pub struct Watched {
    within: Stream,
    incoming: Incoming,
    unfinished: Option<u64>,
    waits: watch::Sender<Waits>,
    outgoing: Outgoing,
    known: Known,
    tell: Tell,
}

/// What is to be done about a fault.
type Tell = Box<dyn Fn(Http2Fault) + Send + Sync>;

/// Says that the next reset of a stream has been told of already.
#[derive(Clone, Default)]
pub struct Known(Arc<AtomicBool>);

/// Since when a caller keeps us waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// A frame other than DATA, or a header block, has begun and not ended. How long a body takes is another matter.
    pub to_read: Option<Instant>,
    /// Something is to be written that the caller does not take.
    pub to_write: Option<Instant>,
}

impl Watched {
    /// The connection, and what is seen of it. `tell` hears of what is ended.
    pub fn over(
        within: Stream,
        tell: impl Fn(Http2Fault) + Send + Sync + 'static,
    ) -> (Watched, watch::Receiver<Waits>, Known) {
        let (waits, seen) = watch::channel(Waits::default());
        let known = Known::default();
        let watched = Watched {
            within,
            incoming: Incoming::default(),
            unfinished: None,
            waits,
            outgoing: Outgoing::default(),
            known: known.clone(),
            tell: Box::new(tell),
        };
        (watched, seen, known)
    }

    fn has_read(&mut self, bytes: &[u8]) {
        self.incoming.pass(bytes);
        let unfinished = self.incoming.unfinished();
        if unfinished != self.unfinished {
            self.unfinished = unfinished;
            self.waits.send_modify(|waits| waits.to_read = unfinished.map(|_| Instant::now()));
        }
    }

    fn has_taken(&mut self, bytes: &[u8]) {
        let (known, tell) = (&self.known, &self.tell);
        self.outgoing.pass(bytes, |fault| match fault {
            Http2Fault::Request if known.0.swap(false, Ordering::Relaxed) => {}
            fault => tell(fault),
        });
    }

    fn has_written<T>(&self, written: Poll<T>) -> Poll<T> {
        let pending = written.is_pending();
        self.waits.send_if_modified(|waits| {
            let changes = pending != waits.to_write.is_some();
            if changes {
                waits.to_write = pending.then(Instant::now);
            }
            changes
        });
        written
    }
}

impl Known {
    /// pingora refuses some requests after h2 has let them through. It says so, and may reset their stream.
    pub fn expect(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.within.fmt(f)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.within).poll_read(cx, buffer);
        if read.is_ready() {
            self.has_read(buffer.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.within).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = written {
            self.has_taken(bytes.get(..written).unwrap_or(bytes));
        }
        self.has_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.within).poll_write_vectored(cx, slices);
        let mut left = if let Poll::Ready(Ok(written)) = written { written } else { 0 };
        for slice in slices {
            let part = slice.get(..left).unwrap_or(slice);
            left -= part.len();
            self.has_taken(part);
        }
        self.has_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.within.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.within).poll_flush(cx);
        self.has_written(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.within).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        self.within.shutdown().await;
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.within.id()
    }
}

impl Ssl for Watched {}

impl Peek for Watched {}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.within.get_timing_digest()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.within.get_proxy_digest()
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.within.get_socket_digest()
    }
}
