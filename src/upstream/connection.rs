//! One connection to the PAM while it serves one exchange.

use bytes::{Buf, Bytes, BytesMut};

use super::counts::Tally;
use super::pool::Rested;
use super::stream::Stream;
use super::{Failure, FailureKind};
use crate::prompt::{Deadline, Limit, within};

/// A stream and what was read from it but not used yet.
pub(super) struct Connection {
    stream: Stream,
    /// For the next byte.
    deadline: Deadline,
    pub(super) buffer: BytesMut,
    /// The buffer has been given more room than a usual answer needs.
    outgrown: bool,
    tally: Tally,
}

impl Connection {
    /// Over a stream that is ready for a request.
    pub(super) fn over(rested: impl Into<Rested>) -> Connection {
        let Rested { stream, deadline, buffer } = rested.into();
        Connection { stream, deadline, buffer, outgrown: false, tally: Tally::default() }
    }

    /// The same, counted when it ends with its exchange.
    pub(super) fn counted_by(self, tally: Tally) -> Connection {
        Connection { tally, ..self }
    }

    /// Writes the request, in one write where the kernel takes it: a small body is copied behind its head, a larger one goes
    /// from where it is.
    pub(super) async fn write(
        &mut self,
        mut head: Vec<u8>,
        mut body: Bytes,
        limit: impl Into<Limit>,
    ) -> Result<(), Failure> {
        if body.len() <= SMALL {
            head.extend_from_slice(&body);
            body = Bytes::new();
        }
        let mut request = head.as_slice().chain(body);
        let whole = request.remaining();
        let taken = self.stream.taken();
        let written = within(limit, async {
            while request.has_remaining() {
                if self.stream.write(&mut request).await.unwrap_or(0) == 0 {
                    return Err(FailureKind::Write);
                }
            }
            self.stream.flush().await.map_err(|_| FailureKind::Write)
        });
        let kind = match written.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(kind)) => kind,
            Err(_) => FailureKind::Timeout,
        };
        // What the kernel has taken may arrive, whatever happens to the rest.
        let sent = match &self.stream {
            Stream::Plain(_) => request.remaining() < whole,
            // TLS takes all of it before the kernel has a byte, and forgets in an error what the kernel took before.
            Stream::Secure { .. } => self.stream.taken() > taken,
        };
        Err(Failure { kind, sent })
    }

    /// Reads once, with room for about `room` bytes; false when the peer has closed its side.
    pub(super) async fn fill(&mut self, room: usize, limit: impl Into<Limit>) -> Result<bool, FailureKind> {
        // A little room left is used up first, so that a body stays in one piece of memory.
        if self.buffer.capacity() - self.buffer.len() < room.min(LEAST_ROOM) {
            self.reserve(room);
        }
        match self.deadline.within(limit, self.stream.read(&mut self.buffer)).await {
            Ok(Ok(count)) => Ok(count > 0),
            // A reset is no end of a body, not even of one that ends when the connection does.
            Ok(Err(_)) => Err(FailureKind::Closed),
            Err(_) => Err(FailureKind::Timeout),
        }
    }

    /// Makes sure that `length` bytes, counted from the first unused one, fit without being moved
    /// again.
    pub(super) fn make_room(&mut self, length: usize) {
        self.reserve(length.saturating_sub(self.buffer.len()));
    }

    /// Where nothing refers to earlier answers any more, their room is taken again.
    fn reserve(&mut self, more: usize) {
        self.outgrown |= self.buffer.len() + more > FIRST_ROOM;
        self.buffer.reserve(more);
    }

    /// The stream, if not one byte is left over; else it is closed.
    pub(super) fn into_clean(self) -> Option<Rested> {
        if !self.buffer.is_empty() {
            return None;
        }
        self.tally.spare();
        // The room of a large answer is not kept for the usual ones that follow.
        let buffer = if self.outgrown { BytesMut::new() } else { self.buffer };
        Some(Rested { stream: self.stream, deadline: self.deadline, buffer })
    }
}

/// Holds a usual answer whole, so that it is read at once and never moved.
pub(super) const FIRST_ROOM: usize = 8 * 1024;

const LEAST_ROOM: usize = 1024;

/// Bodies of so many bytes are copied: that costs less than to hand the kernel two pieces.
const SMALL: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::server::TlsStream;

    use super::*;
    use crate::tls::pam::{PamRules, PamTls, Roots};
    use crate::tls::watched::Rules;
    use crate::upstream::Protocol;

    const AMPLE: Duration = Duration::from_secs(10);

    async fn open(address: &str, tls: Option<&Arc<PamTls>>) -> Connection {
        Connection::over(timeout(AMPLE, Stream::open(address, tls, Protocol::Http1)).await.unwrap().unwrap())
    }

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let connection = open(&address.to_string(), None).await;
        let (peer, _) = listener.accept().await.unwrap();
        (connection, peer)
    }

    // threat: G4
    #[tokio::test]
    async fn a_request_of_which_the_kernel_took_nothing_is_not_sent() {
        let (mut connection, peer) = pair().await;
        peer.set_zero_linger().unwrap();
        drop(peer);
        assert_eq!(connection.fill(1, AMPLE).await, Err(FailureKind::Closed));
        let request = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        let written = connection.write(request, Bytes::new(), AMPLE).await;
        let kind = FailureKind::Write;
        assert_eq!(written, Err(Failure { kind, sent: false }));
    }

    /// The same under TLS, by a certificate that vouches for itself.
    async fn secured() -> (Connection, TlsStream<TcpStream>) {
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["pam".to_owned()]).unwrap();
        let folder = std::env::temp_dir().join(format!("portcullis-connection-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{:?}.pem", std::thread::current().id()));
        std::fs::write(&file, cert.pem()).unwrap();
        let rules = PamRules { roots: Roots::File(file.clone()), name: "pam".to_owned(), identity: None };
        let tls = Arc::new(rules.load().unwrap());
        std::fs::remove_file(file).unwrap();

        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(server.with_single_cert(vec![cert.der().clone()], key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
        let (connection, peer) = tokio::join!(open(&address, Some(&tls)), accepting);
        (connection, peer)
    }

    // threat: G4
    #[tokio::test]
    async fn a_request_of_which_only_tls_took_something_is_not_sent() {
        let (mut connection, peer) = secured().await;
        peer.get_ref().0.set_zero_linger().unwrap();
        drop(peer);
        while connection.fill(1, AMPLE).await == Ok(true) {}
        let request = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        let written = connection.write(request, Bytes::new(), AMPLE).await;
        let kind = FailureKind::Write;
        assert_eq!(written, Err(Failure { kind, sent: false }));
    }

    #[tokio::test]
    async fn a_request_of_which_the_kernel_took_a_part_may_have_been_sent() {
        for reset in [true, false] {
            let (mut connection, peer) = secured().await;
            let request = vec![b'x'; 64 << 20];
            let write = connection.write(request, Bytes::new(), Duration::from_millis(500));
            let resetting = async {
                // Something has arrived.
                peer.get_ref().0.readable().await.unwrap();
                if reset {
                    peer.get_ref().0.set_zero_linger().unwrap();
                    drop(peer);
                    return None;
                }
                Some(peer)
            };
            let (written, _peer) = tokio::join!(write, resetting);
            let kind = if reset { FailureKind::Write } else { FailureKind::Timeout };
            assert_eq!(written, Err(Failure { kind, sent: true }));
        }
    }

    #[tokio::test]
    async fn a_connection_sends_at_once() {
        let (connection, _peer) = pair().await;
        let Stream::Plain(tcp) = connection.stream else { panic!("TLS") };
        assert!(tcp.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_byte_left_over_keeps_a_connection_from_the_pool() {
        let (mut connection, mut peer) = pair().await;
        peer.write_all(b"x").await.unwrap();
        assert_eq!(connection.fill(1, AMPLE).await, Ok(true));
        assert!(connection.into_clean().is_none());
    }
}
