//! One connection over HTTP/2: how many exchanges it takes, and when it is over.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::Connections;
use crate::tls::pam::PamTls;
use crate::upstream::counts::Tally;
use crate::upstream::stream::{Io, Stream, stand_by};
use crate::upstream::{FailureKind, UpstreamLimits};

/// A connection that exchanges can begin on. Its frames are read and written by a task, which ends with it.
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    by: Option<Arc<PamTls>>,
    /// What the PAM allows at the moment.
    allowed: watch::Receiver<usize>,
    usage: Mutex<Usage>,
    pings: tokio::sync::Mutex<PingPong>,
    roomier: Arc<Notify>,
    _tally: Tally,
}

struct Usage {
    places: usize,
    /// When an exchange was over last.
    since: Instant,
    /// When the PAM was last heard of: an answer began, or a ping was answered. An exchange that only ran out of time says
    /// nothing for it.
    heard: Instant,
}

/// Why there is no place.
pub(super) enum Look {
    /// As many exchanges as the PAM allows, or as we want on one connection.
    Full,
    /// It will take no exchange any more.
    Over,
}

/// The right to one exchange on a connection, given back when it is dropped.
pub(in crate::upstream) struct Place {
    connection: Arc<Connection>,
    /// Whether the connection has been opened for this very exchange.
    pub(super) new: bool,
    doubtful: bool,
}

impl Connection {
    /// Begins HTTP/2. Ends when the PAM has said how many exchanges it takes at the same time: one that does not speak
    /// HTTP/2 is found out here, and none is told more than it takes.
    pub(super) async fn begin(
        stream: Stream,
        tally: Tally,
        limits: &UpstreamLimits,
        owner: Weak<Connections>,
        roomier: &Arc<Notify>,
    ) -> Result<Arc<Connection>, FailureKind> {
        let by = stream.by();
        let begun = settings(limits).handshake(stream.into_io()).await;
        let (sender, mut frames) = begun.map_err(|_| FailureKind::NoHttp2)?;
        let pings = frames.ping_pong().ok_or(FailureKind::NoHttp2)?;
        let (allow, mut allowed) = watch::channel(0);
        let connection = Arc::new(Connection {
            sender,
            by,
            allowed: allowed.clone(),
            usage: Mutex::new(Usage { places: 0, since: Instant::now(), heard: Instant::now() }),
            pings: tokio::sync::Mutex::new(pings),
            roomier: Arc::clone(roomier),
            _tally: tally,
        });
        let life = Life { of: Arc::downgrade(&connection), owner, idle: limits.idle };
        tokio::spawn(life.live(frames, allow, Arc::clone(roomier)));
        let settled = allowed.wait_for(|allowed| *allowed > 0).await;
        settled.map_err(|_| FailureKind::NoHttp2)?;
        Ok(connection)
    }

    /// A place, if there is one.
    pub(super) fn place(connection: &Arc<Connection>, idle: Duration, new: bool) -> Result<Place, Look> {
        // Also when the PAM has said that it will end the connection (RFC 9113 §6.8).
        if !matches!(connection.sender.clone().ready().now_or_never(), Some(Ok(_))) {
            return Err(Look::Over);
        }
        let allowed = (*connection.allowed.borrow()).min(MOST_PLACES);
        let mut usage = connection.usage();
        let rested = usage.since.elapsed();
        if usage.places == 0 && rested >= idle && !new {
            return Err(Look::Over);
        }
        if usage.places >= allowed {
            return Err(Look::Full);
        }
        let doubtful = usage.heard.elapsed() >= DOUBT_AFTER;
        usage.places += 1;
        drop(usage);
        Ok(Place { connection: Arc::clone(connection), new, doubtful })
    }

    /// Whether it stands by the certificates in use now.
    pub(super) fn stands_by(&self, now: Option<&Arc<PamTls>>) -> bool {
        stand_by(self.by.as_ref(), now)
    }

    /// For how long it has carried nothing.
    fn rested(&self) -> Option<Duration> {
        let usage = self.usage();
        (usage.places == 0).then(|| usage.since.elapsed())
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What an exchange begins with.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.clone()
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the connection has been silent for so long that the PAM may have left without a word.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Asks the PAM for a sign of life.
    pub(super) async fn answers(&self, limit: Duration) -> bool {
        let asked = async {
            let mut pings = self.connection.pings.lock().await;
            // Somebody else may have asked meanwhile.
            if self.connection.usage().heard.elapsed() < DOUBT_AFTER {
                return true;
            }
            let answered = pings.ping(Ping::opaque()).await.is_ok();
            if answered {
                self.heard();
            }
            answered
        };
        timeout(limit, asked).await.unwrap_or(false)
    }

    /// The PAM has given a sign of life.
    pub(super) fn heard(&self) {
        self.connection.usage().heard = Instant::now();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut usage = self.connection.usage();
        usage.places -= 1;
        usage.since = Instant::now();
        drop(usage);
        self.connection.roomier.notify_one();
    }
}

/// The task of a connection.
struct Life {
    of: Weak<Connection>,
    owner: Weak<Connections>,
    idle: Duration,
}

impl Life {
    async fn live(
        self,
        mut frames: h2::client::Connection<Box<dyn Io>>,
        allow: watch::Sender<usize>,
        roomier: Arc<Notify>,
    ) {
        let mut wait = self.idle;
        let mut last_word = false;
        loop {
            let over = poll_fn(|cx| {
                let over = Pin::new(&mut frames).poll(cx);
                let allowed = frames.max_concurrent_send_streams();
                if allow.send_if_modified(|known| std::mem::replace(known, allowed) != allowed) {
                    roomier.notify_one();
                }
                Poll::map(over, |_| ())
            });
            tokio::select! {
                () = over => break,
                () = sleep(wait) => {}
            }
            match (self.of.upgrade(), self.owner.upgrade()) {
                (Some(connection), owner) => match connection.rested() {
                    Some(rested) if rested >= self.idle => {
                        // With the last hold on it, the h2 crate says goodbye and ends the connection.
                        if let Some(owner) = owner {
                            owner.let_go(&connection);
                        }
                        wait = LAST_WORD;
                    }
                    Some(rested) => wait = self.idle.saturating_sub(rested),
                    None => wait = self.idle,
                },
                (None, _) if last_word => break,
                // No one can begin anything on it, and nothing is under way.
                (None, _) => {
                    last_word = true;
                    wait = LAST_WORD;
                }
            }
        }
        // Ends what is under way, which is told by its own error.
        drop(frames);
        if let (Some(connection), Some(owner)) = (self.of.upgrade(), self.owner.upgrade()) {
            owner.let_go(&connection);
        }
    }
}

fn settings(limits: &UpstreamLimits) -> Builder {
    let mut settings = Builder::new();
    settings
        .enable_push(false)
        .max_header_list_size(u32::try_from(limits.answer_head).unwrap_or(u32::MAX))
        // None until the PAM has said how many it takes.
        .initial_max_send_streams(0)
        .initial_window_size(WINDOW)
        // Room for all of them, so that an answer whose caller is slow holds up no other.
        .initial_connection_window_size(WINDOW * MOST_PLACES as u32);
    settings
}

/// Exchanges side by side on one connection, however many the PAM allows: times the window, what answers can take of our
/// memory.
const MOST_PLACES: usize = 100;

/// Bytes of an answer that the PAM may send ahead of its reader.
const WINDOW: u32 = 64 << 10;

/// A connection on which nothing was heard for so long is asked for a sign of life before another request is trusted
/// to it.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// For how long a connection that nobody needs may take to end.
const LAST_WORD: Duration = Duration::from_secs(1);
