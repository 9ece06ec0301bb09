//! One connection to the PAM while it serves one exchange.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Failure, FailureKind};

/// A stream and what was read from it but not used yet.
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) buffer: BytesMut,
}

impl Connection {
    /// Connects anew. Nothing is sent.
    pub(super) async fn open(address: &str, limit: Duration) -> Result<Connection, FailureKind> {
        let connected = timeout(limit, TcpStream::connect(address)).await;
        let stream = connected.map_err(|_| FailureKind::ConnectTimeout)?.map_err(|_| FailureKind::Connect)?;
        // A request is written whole, so waiting for more to fill a segment only costs time.
        stream.set_nodelay(true).map_err(|_| FailureKind::Connect)?;
        Ok(Connection::over(stream))
    }

    /// Over a stream that is ready for a request. The buffer is new: one kept with the stream would
    /// be pinned by the answer that still refers to it, or hold on to the room of a large one.
    pub(super) fn over(stream: TcpStream) -> Connection {
        Connection { stream, buffer: BytesMut::with_capacity(FIRST_ROOM) }
    }

    /// Writes the request, in one vectored write where the kernel takes it.
    pub(super) async fn write(&mut self, head: Bytes, body: Bytes, limit: Duration) -> Result<(), Failure> {
        let mut request = head.chain(body);
        let whole = request.remaining();
        let written = timeout(limit, async {
            while request.has_remaining() {
                if self.stream.write_buf(&mut request).await.unwrap_or(0) == 0 {
                    return Err(FailureKind::Write);
                }
            }
            Ok(())
        });
        let kind = match written.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(kind)) => kind,
            Err(_) => FailureKind::Timeout,
        };
        // What the kernel has taken may arrive, whatever happens to the rest.
        let sent = request.remaining() < whole;
        Err(Failure { kind, sent })
    }

    /// Reads once, with room for about `room` bytes; false when the peer has closed its side.
    pub(super) async fn fill(&mut self, room: usize, limit: Duration) -> Result<bool, FailureKind> {
        // A little room left is used up first, so that a body stays in one piece of memory.
        if self.buffer.capacity() - self.buffer.len() < room.min(LEAST_ROOM) {
            self.buffer.reserve(room);
        }
        match timeout(limit, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(count)) => Ok(count > 0),
            // A reset is no end of a body, not even of one that ends when the connection does.
            Ok(Err(_)) => Err(FailureKind::Closed),
            Err(_) => Err(FailureKind::Timeout),
        }
    }

    /// Makes sure that `length` bytes, counted from the first unused one, fit without being moved
    /// again.
    pub(super) fn make_room(&mut self, length: usize) {
        self.buffer.reserve(length.saturating_sub(self.buffer.len()));
    }

    /// The stream, if not one byte is left over; else it is closed.
    pub(super) fn into_clean(self) -> Option<TcpStream> {
        self.buffer.is_empty().then_some(self.stream)
    }
}

/// Holds a usual answer whole, so that it is read at once and never moved.
pub(super) const FIRST_ROOM: usize = 8 * 1024;

const LEAST_ROOM: usize = 1024;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    const AMPLE: Duration = Duration::from_secs(10);

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let connection = Connection::open(&address.to_string(), AMPLE).await.unwrap();
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
        let request = Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n");
        let written = connection.write(request, Bytes::new(), AMPLE).await;
        let kind = FailureKind::Write;
        assert_eq!(written, Err(Failure { kind, sent: false }));
    }

    #[tokio::test]
    async fn a_connection_sends_at_once() {
        let (connection, _peer) = pair().await;
        assert!(connection.stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_byte_left_over_keeps_a_connection_from_the_pool() {
        let (mut connection, mut peer) = pair().await;
        peer.write_all(b"x").await.unwrap();
        assert_eq!(connection.fill(1, AMPLE).await, Ok(true));
        assert!(connection.into_clean().is_none());
    }
}
