//! A caller's connection under TLS, in the shape that pingora's streams have.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::rustls;
use tokio_rustls::server::TlsStream;

use super::HandshakeFault;
use crate::tls::callers::CallerTls;
use crate::tls::names::Names;

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Secured(TlsStream<Stream>);

impl Secured {
    /// Shakes hands, within `time`. Nothing but TLS is answered: a caller that speaks anything else is let go.
    pub async fn accept(tls: &CallerTls, stream: Stream, time: Duration) -> Result<Secured, HandshakeFault> {
        match timeout(time, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => Ok(Secured(stream)),
            Ok(Err(fault)) => Err(HandshakeFault::of(&fault)),
            Err(_) => Err(HandshakeFault::Slow),
        }
    }

    /// Whether HTTP/2 was agreed on.
    pub fn speaks_http2(&self) -> bool {
        self.0.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// The names in the caller's certificate, which has been verified; none where it has shown none.
    pub fn names(&self) -> Names {
        let certificates = self.0.get_ref().1.peer_certificates();
        certificates.and_then(|chain| chain.first()).map(|own| Names::of(own)).unwrap_or_default()
    }

    fn within(&self) -> &Stream {
        self.0.get_ref().0
    }
}

impl HandshakeFault {
    fn of(fault: &io::Error) -> HandshakeFault {
        use rustls::Error;
        match fault.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            None => HandshakeFault::Closed,
            Some(Error::InvalidMessage(_)) => HandshakeFault::NoTls,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => HandshakeFault::Incompatible,
            Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => HandshakeFault::Certificate,
            Some(Error::AlertReceived(_)) => HandshakeFault::Refused,
            Some(_) => HandshakeFault::Broken,
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Secured {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(&mut self.0).await;
    }
}

impl UniqueID for Secured {
    fn id(&self) -> UniqueIDType {
        self.within().id()
    }
}

// What pingora would log about TLS is nothing that is asked for here.
impl Ssl for Secured {}

impl Peek for Secured {}

impl GetTimingDigest for Secured {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.within().get_timing_digest()
    }
}

impl GetProxyDigest for Secured {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.within().get_proxy_digest()
    }
}

impl GetSocketDigest for Secured {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.within().get_socket_digest()
    }
}
