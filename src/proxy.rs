//! The proxy: sockets, and the way of a request through them.
//!
//! pingora brings the listeners, HTTP/2 and the shutdown signal. HTTP/1 heads are read here, byte for byte and strictly,
//! because a parser that repairs what it reads hides from the gate what the caller really sent; and the exchange with
//! the PAM is our own ([`crate::upstream`]), because that makes "at most once" visible in one function.
//!
//! ```text
//! listener      sockets, which protocol a connection speaks, draining
//! turnstile     how many connections may be open
//! leave         how connections hear that this server stops
//! announced     a connection that begins with a PROXY header
//! current       which generation of the config serves
//! generation    its number, and why the next one was refused
//! secured       a connection under TLS
//! certificates  what TLS is opened with, renewed while connections stay open
//! http1         a connection's requests, one after the other
//! http2         a connection's requests, side by side
//! watched       a connection under HTTP/2, as its bytes pass: what its caller leaves unfinished, what we end on it
//! frames        the frames in them
//! refused       what never became a request, and how it is told
//! story         one request, from its head to the reply                  ← start here
//! forward       what goes to the PAM in front of the body
//! places        how many requests may be with the PAM
//! ```

mod announced;
mod certificates;
pub mod current;
mod forward;
mod frames;
pub mod generation;
mod http1;
mod http2;
mod leave;
pub mod listener;
pub(crate) mod memory;
mod places;
mod refused;
mod secured;
pub mod story;
mod turnstile;
mod watched;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::refused::{Http2Fault, Refusals, Refused};
pub use self::turnstile::Full;
use crate::config::Limits;
use crate::request::{Head, HeadFault, Peer, Reply};
use crate::tls::callers::CallerTls;

/// What a connection does with its requests: one generation of it, see [`current`].
pub trait Serve: Send + Sync + 'static {
    /// What is kept of a request until its reply has been sent.
    type Record: Send;

    /// Answers one request, whose head was there at `came`, on a connection from `peer`. `body` gives its body when asked.
    fn serve(
        &self,
        head: Result<Head, HeadFault>,
        peer: &Peer,
        came: Instant,
        body: &mut impl Body,
    ) -> impl Future<Output = (Reply, Self::Record)> + Send;

    /// The reply has been sent `now`, or could not be.
    fn sent(&self, record: Self::Record, sent: Sent, now: Instant);

    /// A connection was opened (1) or closed (-1).
    fn connected(&self, change: i64) {
        let _ = change;
    }

    /// TLS, where connections begin with it; as it is at this moment.
    fn tls(&self) -> Option<Arc<CallerTls>> {
        None
    }

    /// Whether connections from an address must begin with a PROXY header.
    fn announces(&self, peer: IpAddr) -> bool {
        let _ = peer;
        false
    }

    /// Whether connections from an address carry the requests of many callers, so that they count together only.
    fn carries_many(&self, peer: IpAddr) -> bool {
        let _ = peer;
        false
    }

    /// A connection from `client`, or a stream of one, ended before there was a request that could be answered.
    fn refused(&self, client: IpAddr, refused: Refused) {
        let _ = (client, refused);
    }

    /// The bounds a connection keeps.
    fn limits(&self) -> Limits;
}

/// A request's body, still on the wire.
pub trait Body: Send {
    /// Reads it whole: at most `most` bytes, within `time`.
    fn read(&mut self, most: u64, time: Duration) -> impl Future<Output = Result<Bytes, BodyFault>> + Send;
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// More bytes than allowed.
    TooLarge,
    /// It ended early.
    Cut,
    /// It did not arrive in time.
    Slow,
}

/// Why TLS did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The caller speaks something else.
    NoTls,
    /// No version, cipher or protocol in common.
    Incompatible,
    /// The caller's certificate is missing, or not one we trust.
    Certificate,
    /// The caller does not trust our certificate, or would not go on for another reason.
    Refused,
    /// The caller broke the rules of TLS.
    Broken,
    /// The caller left.
    Closed,
    /// It did not end in time.
    Slow,
}

impl HandshakeFault {
    /// All there are.
    pub const ALL: [HandshakeFault; 7] = [
        HandshakeFault::NoTls,
        HandshakeFault::Incompatible,
        HandshakeFault::Certificate,
        HandshakeFault::Refused,
        HandshakeFault::Broken,
        HandshakeFault::Closed,
        HandshakeFault::Slow,
    ];

    /// A fixed word for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeFault::NoTls => "no_tls",
            HandshakeFault::Incompatible => "incompatible",
            HandshakeFault::Certificate => "certificate",
            HandshakeFault::Refused => "refused",
            HandshakeFault::Broken => "broken",
            HandshakeFault::Closed => "closed",
            HandshakeFault::Slow => "timeout",
        }
    }
}

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took all of it.
    Whole,
    /// The caller was gone, too slow, or the PAM cut a streamed body.
    Cut,
}

/// An unread body up to this size is read before a refusal is sent, so that the connection can go on; a larger one ends
/// the connection.
const DRAINED: u64 = 64 << 10;

/// For how long an unread body is waited for.
const DRAINED_WITHIN: Duration = Duration::from_secs(1);
