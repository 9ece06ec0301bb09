//! Connections that wait for their next exchange.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::counts::{Counts, End};
use super::stream::Stream;
use crate::prompt::Deadline;
use crate::tls::pam::PamTls;

/// The waiting connections of one upstream, the newest last.
///
/// A plain lock around a list suffices: it is held for a push or a pop, never for a system call and
/// never across an await. Newest first keeps few connections busy and lets the others grow old.
pub(super) struct Pool {
    most: usize,
    idle: Duration,
    resting: Mutex<Vec<Resting>>,
    counts: Arc<Counts>,
}

struct Resting {
    rested: Rested,
    since: Instant,
}

/// What a connection has between two exchanges.
pub(super) struct Rested {
    pub(super) stream: Stream,
    pub(super) deadline: Deadline,
    /// Empty; room for the next answer.
    pub(super) buffer: BytesMut,
}

impl From<Stream> for Rested {
    fn from(stream: Stream) -> Rested {
        Rested { stream, deadline: Deadline::default(), buffer: BytesMut::new() }
    }
}

impl Pool {
    /// For at most `most` connections, each used only before it has waited for `idle`.
    pub(super) fn new(most: usize, idle: Duration) -> Pool {
        Pool { most, idle, resting: Mutex::new(Vec::new()), counts: Arc::default() }
    }

    /// The same, with what it closes counted there.
    pub(super) fn counted_in(mut self, counts: &Arc<Counts>) -> Pool {
        self.counts = Arc::clone(counts);
        self
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.resting().len()
    }

    /// The newest connection that is young enough `now`, silent, and by the certificates in use. All others met on the way are closed.
    pub(super) fn take(&self, tls: Option<&Arc<PamTls>>, now: Instant) -> Option<Rested> {
        loop {
            let Resting { mut rested, since } = self.resting().pop()?;
            let end = if now.saturating_duration_since(since) >= self.idle {
                End::Idle
            } else if !rested.stream.stands_by(tls) {
                End::Certificates
            } else if !rested.stream.is_silent() {
                End::Left
            } else {
                return Some(rested);
            };
            self.counts.close(end);
        }
    }

    /// Keeps a connection on which an exchange came to a clean end. Those that are too old by now,
    /// or one too many, are closed.
    pub(super) fn give(&self, rested: impl Into<Rested>, now: Instant) {
        if self.most == 0 {
            self.counts.close(End::Surplus);
            return;
        }
        let mut resting = self.resting();
        let is_old = |other: &Resting| now.saturating_duration_since(other.since) >= self.idle;
        // Where the oldest is not, none is.
        let old = if resting.first().is_some_and(is_old) { resting.partition_point(is_old) } else { 0 };
        let surplus = (resting.len() + 1).saturating_sub(self.most);
        let gone: Vec<Resting> = match old.max(surplus) {
            0 => Vec::new(),
            gone => resting.drain(..gone).collect(),
        };
        resting.push(Resting { rested: rested.into(), since: now });
        // Closing is for the time after the lock.
        drop(resting);
        let by_age = old.min(gone.len());
        (0..gone.len()).for_each(|at| self.counts.close(if at < by_age { End::Idle } else { End::Surplus }));
        drop(gone);
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Resting>> {
        // A list of streams is never half changed, so a panic elsewhere spoils nothing.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        (0..self.count()).for_each(|_| self.counts.close(End::Reload));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{self, SocketAddr, TcpListener};
    use std::thread;

    use tokio::net::TcpStream;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    impl Pool {
        /// Waits until something has happened on the newest connection, which stays in the pool.
        pub(in crate::upstream) async fn stirred(&self) {
            let newest = self.resting().pop().unwrap();
            let Stream::Plain(tcp) = &newest.rested.stream else { panic!("TLS") };
            // A failure is a reset, and that too is what is awaited.
            _ = tcp.peek(&mut [0]).await;
            self.resting().push(newest);
        }
    }

    /// Both ends of a connection, and the address of the end that goes to the pool.
    async fn pair() -> (Stream, net::TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, address) = listener.accept().unwrap();
        (Stream::Plain(stream), peer, address)
    }

    fn taken(pool: &Pool) -> Option<SocketAddr> {
        pool.take(None, Instant::now()).map(|rested| match rested.stream {
            Stream::Plain(tcp) => tcp.local_addr().unwrap(),
            Stream::Secure { .. } => panic!("TLS"),
        })
    }

    /// Waits for the kernel without giving the runtime a chance to hear of anything.
    fn becomes_noisy(stream: &mut Stream) -> bool {
        let start = Instant::now();
        while stream.is_silent() && start.elapsed() < Duration::from_secs(5) {
            thread::yield_now();
        }
        !stream.is_silent()
    }

    #[tokio::test]
    async fn the_newest_is_taken_first() {
        let pool = Pool::new(2, HOUR);
        let (first, _first_peer, first_address) = pair().await;
        let (second, _second_peer, second_address) = pair().await;
        pool.give(first, Instant::now());
        pool.give(second, Instant::now());
        assert_eq!(taken(&pool), Some(second_address));
        assert_eq!(taken(&pool), Some(first_address));
        assert_eq!(taken(&pool), None);
    }

    #[tokio::test]
    async fn one_too_many_closes_the_oldest() {
        let pool = Pool::new(1, HOUR);
        let (first, _first_peer, _) = pair().await;
        let (second, _second_peer, second_address) = pair().await;
        pool.give(first, Instant::now());
        pool.give(second, Instant::now());
        assert_eq!(taken(&pool), Some(second_address));
        assert_eq!(taken(&pool), None);
    }

    #[tokio::test]
    async fn a_pool_of_none_keeps_none() {
        let pool = Pool::new(0, HOUR);
        let (stream, _peer, _) = pair().await;
        pool.give(stream, Instant::now());
        assert_eq!(taken(&pool), None);
    }

    #[tokio::test]
    async fn what_is_too_old_is_not_taken() {
        let pool = Pool::new(1, Duration::ZERO);
        let (stream, _peer, _) = pair().await;
        pool.give(stream, Instant::now());
        assert_eq!(taken(&pool), None);
    }

    #[tokio::test]
    async fn what_is_too_old_is_closed_when_another_is_given() {
        let pool = Pool::new(9, Duration::ZERO);
        let (first, _first_peer, _) = pair().await;
        let (second, _second_peer, _) = pair().await;
        pool.give(first, Instant::now());
        pool.give(second, Instant::now());
        assert_eq!(pool.resting().len(), 1);
    }

    // threat: G3
    #[tokio::test]
    async fn a_byte_that_only_the_kernel_knows_of_is_noticed() {
        let pool = Pool::new(1, HOUR);
        let (mut stream, mut peer, _) = pair().await;
        assert!(stream.is_silent());
        peer.write_all(b"x").unwrap();
        assert!(becomes_noisy(&mut stream));
        pool.give(stream, Instant::now());
        assert_eq!(taken(&pool), None);
    }

    // threat: G4
    #[tokio::test]
    async fn a_close_that_only_the_kernel_knows_of_is_noticed() {
        let pool = Pool::new(1, HOUR);
        let (mut stream, peer, _) = pair().await;
        assert!(stream.is_silent());
        drop(peer);
        assert!(becomes_noisy(&mut stream));
        pool.give(stream, Instant::now());
        assert_eq!(taken(&pool), None);
    }
}
