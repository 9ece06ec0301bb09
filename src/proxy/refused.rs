//! What never became a request: why, and how it is told without a flood of lines.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Full, HandshakeFault};
use crate::announcement::AnnouncementFault;
use crate::log::Log;
use crate::log::bursts::{Bursts, Telling};
use crate::moment::Moment;

/// Why a connection, or a stream of one, ended before there was a request that could be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are too many.
    Full(Full),
    /// It does not begin with the PROXY header that it must have.
    Announcement(AnnouncementFault),
    /// TLS did not come about.
    Handshake(HandshakeFault),
    /// Nothing was said on it.
    Silent,
    /// It ended within the head of a request.
    HeadCut,
    /// What was said is not HTTP/2 as it should be.
    Http2(Http2Fault),
}

/// What was wrong with HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Fault {
    /// The connection does not begin as it must.
    Preface,
    /// A request breaks the rules; the others on its connection go on.
    Request,
    /// More streams than may be open.
    Stream,
    /// A connection breaks the rules, and ends.
    Connection,
    /// A connection asks for more work than is bearable, and ends.
    Flood,
}

/// Tells the log of what was refused: the first at once, what follows within a second in one line at its end.
pub struct Refusals {
    log: Log,
    bursts: Arc<Mutex<Reasons>>,
}

/// By reason, with where the last one came from.
type Reasons = Bursts<&'static str, IpAddr>;

impl Refused {
    /// One word for the log, from a closed set.
    pub fn reason(self) -> &'static str {
        match self {
            Refused::Full(full) => full.as_str(),
            Refused::Announcement(fault) => fault.as_str(),
            Refused::Handshake(fault) => match fault {
                HandshakeFault::NoTls => "handshake_no_tls",
                HandshakeFault::Incompatible => "handshake_incompatible",
                HandshakeFault::Certificate => "handshake_certificate",
                HandshakeFault::Refused => "handshake_refused",
                HandshakeFault::Broken => "handshake_broken",
                HandshakeFault::Closed => "handshake_closed",
                HandshakeFault::Slow => "handshake_timeout",
            },
            Refused::Silent => "silent",
            Refused::HeadCut => "head_cut",
            Refused::Http2(fault) => fault.as_str(),
        }
    }

    /// All that are counted together; handshakes have a metric of their own.
    pub fn without_handshakes() -> impl Iterator<Item = Refused> {
        let full = Full::ALL.into_iter().map(Refused::Full);
        let announcement = AnnouncementFault::ALL.into_iter().map(Refused::Announcement);
        let http2 = Http2Fault::ALL.into_iter().map(Refused::Http2);
        full.chain(announcement).chain([Refused::Silent, Refused::HeadCut]).chain(http2)
    }

    /// Probes of balancers and orchestrators connect and leave; that is nothing to look into.
    fn level(self) -> &'static str {
        match self {
            Refused::Silent | Refused::HeadCut | Refused::Handshake(HandshakeFault::Closed) => "info",
            Refused::Full(_) | Refused::Announcement(_) | Refused::Handshake(_) | Refused::Http2(_) => "warn",
        }
    }
}

impl Http2Fault {
    /// All there are.
    pub const ALL: [Http2Fault; 5] =
        [Http2Fault::Preface, Http2Fault::Request, Http2Fault::Stream, Http2Fault::Connection, Http2Fault::Flood];

    /// A fixed word for the log and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Http2Fault::Preface => "http2_preface",
            Http2Fault::Request => "http2_request",
            Http2Fault::Stream => "http2_streams",
            Http2Fault::Connection => "http2_connection",
            Http2Fault::Flood => "http2_flood",
        }
    }
}

impl Refusals {
    /// Writes to a log.
    pub fn new(log: Log) -> Refusals {
        Refusals { log, bursts: Arc::default() }
    }

    /// Tells of one. Needs a running tokio runtime.
    pub fn tell(&self, client: IpAddr, refused: Refused) {
        match bursts(&self.bursts).one(&refused.reason(), &client, AT_ONCE, Moment::now()) {
            Telling::Now => say(&self.log, refused, client, None),
            Telling::WithOthers => {}
            Telling::After(time) => {
                let (log, all) = (self.log.clone(), Arc::clone(&self.bursts));
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let rest =
                        bursts(&all).rest(&refused.reason(), Moment::now()).map(|(client, many)| (*client, many));
                    if let Some((client, folded)) = rest {
                        say(&log, refused, client, Some(folded));
                    }
                });
            }
        }
    }
}

fn say(log: &Log, refused: Refused, client: IpAddr, folded: Option<u64>) {
    let mut members = serde_json::json!({ "client.address": client.to_string(), "reason": refused.reason() });
    if let (Some(folded), Some(members)) = (folded, members.as_object_mut()) {
        members.insert("folded".to_owned(), folded.into());
    }
    log.say(refused.level(), "connection_refused", &members);
}

fn bursts(bursts: &Mutex<Reasons>) -> MutexGuard<'_, Reasons> {
    // A count that is off by one after a panic elsewhere is told all the same.
    bursts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines of a second for each reason: whoever knocks a thousand times must not fill the log.
const AT_ONCE: u32 = 1;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_have_the_same_word() {
        let handshakes = HandshakeFault::ALL.map(Refused::Handshake);
        let all: Vec<_> = Refused::without_handshakes().chain(handshakes).map(Refused::reason).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.len(), 24);
    }
}
