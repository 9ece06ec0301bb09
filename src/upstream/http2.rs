//! Connections over HTTP/2, each of which carries many exchanges side by side (RFC 9113).

mod connection;
mod exchange;
mod incoming;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub(super) use self::connection::Place;
use self::connection::{Connection, Look};
pub(super) use self::exchange::exchange;
pub(super) use self::incoming::Incoming;
use super::counts::{Counts, End, Tally};
use super::stream::Stream;
use super::{FailureKind, UpstreamLimits};
use crate::tls::pam::PamTls;

/// The connections of one upstream that take exchanges.
///
/// One that takes no more, because the PAM ends it, because it has been idle for too long or because certificates have
/// changed, is no longer among them; it is closed when the last exchange on it is over.
pub(super) struct Connections {
    most: usize,
    limits: UpstreamLimits,
    open: Mutex<Vec<Arc<Connection>>>,
    /// Who opens a connection, or waits for room on one. One at a time, so that a burst shares what the first one opens.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// There may be room for one more exchange, or for a connection.
    roomier: Arc<Notify>,
    counts: Arc<Counts>,
}

impl Connections {
    pub(super) fn new(limits: UpstreamLimits) -> Connections {
        let (open, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Connections { most: limits.pooled.max(1), limits, open, turn, roomier: Arc::default(), counts: Arc::default() }
    }

    /// The same, with what is closed counted there.
    pub(super) fn counted_in(self, counts: &Arc<Counts>) -> Connections {
        Connections { counts: Arc::clone(counts), ..self }
    }

    /// How many take exchanges.
    pub(super) fn count(&self) -> usize {
        self.open().len()
    }

    /// A place on a connection by the certificates in use now. Connections that are over, and those by other
    /// certificates, are met on the way and let go.
    pub(super) async fn place(&self, tls: Option<&Arc<PamTls>>, limit: Duration) -> Option<Place> {
        loop {
            let place = self.take(tls)?;
            // Half of the time, so that there is some left for a new connection.
            if !place.is_doubtful() || place.answers(limit / 2).await {
                return Some(place);
            }
            self.let_go(place.connection());
        }
    }

    /// Whether there are as many as may be.
    pub(super) fn are_full(&self) -> bool {
        self.open().len() >= self.most
    }

    /// Waits until there may be more room than there was. For one at a time, whose turn it is.
    pub(super) async fn roomier(&self) {
        self.roomier.notified().await;
    }

    /// Begins HTTP/2 over a stream that has carried nothing yet, and takes the first place.
    pub(super) async fn begin(self: &Arc<Self>, stream: Stream) -> Result<Place, FailureKind> {
        let tally = Tally::of(&self.counts, End::Http2);
        let connection = Connection::begin(stream, tally, &self.limits, Arc::downgrade(self), &self.roomier).await?;
        // No one else knows of the connection yet; the PAM may have ended it at once, though.
        let place = Connection::place(&connection, self.limits.idle, true).ok().ok_or(FailureKind::Closed)?;
        self.open().push(connection);
        Ok(place)
    }

    fn take(&self, tls: Option<&Arc<PamTls>>) -> Option<Place> {
        let mut gone = Vec::new();
        let mut open = self.open();
        let mut at = 0;
        let place = loop {
            let Some(connection) = open.get(at) else { break None };
            let look = match connection.stands_by(tls) {
                true => Connection::place(connection, self.limits.idle, false),
                false => Err(Look::Over),
            };
            match look {
                Ok(place) => break Some(place),
                Err(Look::Full) => at += 1,
                Err(Look::Over) => gone.push(open.remove(at)),
            }
        };
        // Closing is for the time after the lock.
        drop(open);
        place
    }

    /// Takes it off the list.
    fn let_go(&self, connection: &Connection) {
        let mut open = self.open();
        let at = open.iter().position(|other| std::ptr::eq(Arc::as_ptr(other), connection));
        let gone = at.map(|at| open.remove(at));
        drop(open);
        drop(gone);
        self.roomier.notify_one();
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
