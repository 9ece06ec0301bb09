//! What bytes go to the PAM through: TCP, or TLS over it.

use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{self, AlertDescription};

use super::{FailureKind, Protocol};
use crate::tls::pam::PamTls;

/// A connection to the PAM.
pub(super) enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Under TLS, by the certificates that were in use when hands were shaken.
    Secure { tls: Box<TlsStream<Records>>, by: Arc<PamTls> },
}

impl Stream {
    /// Connects, and shakes hands where there is TLS, agreeing on a version of HTTP. Nothing of a request is sent.
    pub(super) async fn open(
        address: &str,
        tls: Option<&Arc<PamTls>>,
        protocol: Protocol,
    ) -> Result<Stream, FailureKind> {
        let tcp = TcpStream::connect(address).await.map_err(|_| FailureKind::Connect)?;
        // A request is written whole, so waiting for more to fill a segment only costs time.
        tcp.set_nodelay(true).map_err(|_| FailureKind::Connect)?;
        let Some(tls) = tls else { return Ok(Stream::Plain(tcp)) };
        let offer = protocol.offer().iter().map(|version| version.to_vec()).collect();
        let connector = tls.connector().with_alpn(offer);
        let secured = connector.connect(tls.name().clone(), Records::over(tcp)).await;
        let secured = secured.map_err(|fault| refused(&fault, protocol))?;
        let stream = Stream::Secure { tls: Box::new(secured), by: Arc::clone(tls) };
        // A PAM that knows nothing of ALPN has agreed to nothing.
        match protocol {
            Protocol::Http2 if !stream.agreed_on_http2() => Err(FailureKind::NoHttp2),
            Protocol::Http1 | Protocol::Http2 | Protocol::Auto => Ok(stream),
        }
    }

    /// Whether the handshake came to HTTP/2.
    pub(super) fn agreed_on_http2(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Secure { tls, .. } => tls.get_ref().1.alpn_protocol() == Some(HTTP2),
        }
    }

    /// The certificates that it stands by.
    pub(super) fn by(&self) -> Option<Arc<PamTls>> {
        match self {
            Stream::Plain(_) => None,
            Stream::Secure { by, .. } => Some(Arc::clone(by)),
        }
    }

    /// For somebody else to read and write.
    pub(super) fn into_io(self) -> Box<dyn Io> {
        match self {
            Stream::Plain(tcp) => Box::new(tcp),
            Stream::Secure { tls, .. } => tls,
        }
    }

    /// Reads once; 0 when the PAM has closed its side. An end that TLS was not told of is an error.
    pub(super) async fn read(&mut self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read_buf(buffer).await,
            Stream::Secure { tls, .. } => tls.read_buf(buffer).await,
        }
    }

    /// Writes some of it. Under TLS it may wait inside, until [`Stream::flush`].
    pub(super) async fn write(&mut self, request: &mut impl Buf) -> io::Result<usize> {
        match self {
            // What is in one piece needs no list of pieces.
            Stream::Plain(tcp) if request.chunk().len() == request.remaining() => {
                let count = tcp.write(request.chunk()).await?;
                request.advance(count);
                Ok(count)
            }
            Stream::Plain(tcp) => tcp.write_buf(request).await,
            Stream::Secure { tls, .. } => tls.write_buf(request).await,
        }
    }

    /// Hands the kernel what waits inside.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.flush().await,
            Stream::Secure { tls, .. } => tls.flush().await,
        }
    }

    /// How many bytes the kernel has taken, as far as this knows: for TCP what a write returned says it already.
    pub(super) fn taken(&self) -> u64 {
        match self {
            Stream::Plain(_) => 0,
            Stream::Secure { tls, .. } => tls.get_ref().0.taken,
        }
    }

    /// Whether it stands by the certificates in use now: a PAM, or an authority, may have lost our trust since.
    pub(super) fn stands_by(&self, now: Option<&Arc<PamTls>>) -> bool {
        match self {
            Stream::Plain(_) => stand_by(None, now),
            Stream::Secure { by, .. } => stand_by(Some(by), now),
        }
    }

    /// Whether the PAM has neither closed its side nor sent a byte that no one asked for, as far as the kernel knows.
    ///
    /// The kernel is asked itself: `TcpStream::try_read` answers from the readiness that its runtime last heard of, and a
    /// byte that it misses here would be taken for the start of the next answer.
    ///
    /// TLS has words of its own (a ticket for the next session, a new key), which are heard here and are no reason to
    /// part; a byte of an answer, a farewell, or a record that has come only in part and may hold either, are.
    pub(super) fn is_silent(&mut self) -> bool {
        match self {
            Stream::Plain(tcp) => {
                let peeked = SockRef::from(&*tcp).peek(&mut [MaybeUninit::uninit()]);
                matches!(peeked, Err(fault) if fault.kind() == ErrorKind::WouldBlock)
            }
            Stream::Secure { tls, .. } => {
                let (records, session) = tls.get_mut();
                for _ in 0..MOST_WORDS {
                    match session.process_new_packets() {
                        Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                        Ok(_) | Err(_) => return false,
                    }
                    match session.read_tls(&mut AtOnce(records)) {
                        Ok(0) => return false,
                        Ok(_) => {}
                        Err(fault) => return fault.kind() == ErrorKind::WouldBlock && records.inbound.is_between(),
                    }
                }
                false
            }
        }
    }
}

/// What bytes are read from and written to.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Whether these are the certificates in use now.
pub(super) fn stand_by(by: Option<&Arc<PamTls>>, now: Option<&Arc<PamTls>>) -> bool {
    match (by, now) {
        (None, None) => true,
        (Some(by), Some(now)) => Arc::ptr_eq(by, now),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

impl Protocol {
    /// As ALPN names it (RFC 7301 §6), the best first.
    fn offer(self) -> &'static [&'static [u8]] {
        match self {
            Protocol::Http1 => &[HTTP1],
            Protocol::Http2 => &[HTTP2],
            Protocol::Auto => &[HTTP2, HTTP1],
        }
    }
}

const HTTP1: &[u8] = b"http/1.1";

const HTTP2: &[u8] = b"h2";

/// What a failed handshake is called. Where TLS itself has nothing to complain of, the connection broke.
fn refused(fault: &io::Error, protocol: Protocol) -> FailureKind {
    match fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => FailureKind::Certificate,
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) if protocol == Protocol::Http2 => {
            FailureKind::NoHttp2
        }
        Some(_) | None => FailureKind::Tls,
    }
}

/// TCP under TLS, which keeps in mind what TLS does not tell: how much the kernel has taken, and whether a record has come
/// only in part.
pub(super) struct Records {
    tcp: TcpStream,
    taken: u64,
    inbound: Boundary,
}

impl Records {
    fn over(tcp: TcpStream) -> Records {
        Records { tcp, taken: 0, inbound: Boundary::default() }
    }
}

impl AsyncRead for Records {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        self.inbound.pass(buffer.filled().get(before..).unwrap_or_default());
        read
    }
}

impl AsyncWrite for Records {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.taken += *count as u64;
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(count)) = &written {
            self.taken += *count as u64;
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Reads what the kernel has, without waiting and past the runtime.
struct AtOnce<'r>(&'r mut Records);

impl Read for AtOnce<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&*SockRef::from(&self.0.tcp)).read(buffer)?;
        self.0.inbound.pass(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Where in a sequence of TLS records a stream stands: each has a header of five bytes, the last two of which are the
/// length of the rest (RFC 8446 §5.1).
#[derive(Default)]
struct Boundary {
    header: usize,
    length: usize,
    rest: usize,
}

impl Boundary {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, behind)) = bytes.split_first() {
            if self.rest > 0 {
                let step = self.rest.min(bytes.len());
                self.rest -= step;
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            self.length = (self.length << 8 | usize::from(byte)) & 0xffff;
            self.header += 1;
            if self.header == HEADER {
                self.rest = self.length;
                self.header = 0;
            }
            bytes = behind;
        }
    }

    fn is_between(&self) -> bool {
        self.header == 0 && self.rest == 0
    }
}

const HEADER: usize = 5;

/// Reads in which an idle PAM may say something about TLS: a few tickets come in one.
const MOST_WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_when_its_last_byte_has_come() {
        let records = [&[23, 3, 3, 0, 2, 1, 2][..], &[22, 3, 3, 1, 0][..], &[7; 256], &[21, 3, 3, 0, 0]].concat();
        let ends = [7, 7 + 5 + 256, records.len()];
        for step in [1, 2, 3, 5, 8, 13, records.len()] {
            let mut boundary = Boundary::default();
            let mut passed = 0;
            for piece in records.chunks(step) {
                boundary.pass(piece);
                passed += piece.len();
                assert_eq!(boundary.is_between(), ends.contains(&passed), "{passed} by {step}");
            }
        }
    }
}
