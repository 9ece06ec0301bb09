//! What never became a request: why, and how it is told without a flood of lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Full, HandshakeFault};
use crate::announcement::AnnouncementFault;
use crate::log::Log;
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
    bursts: Arc<Mutex<Bursts>>,
}

/// What is to be told now, later and not at all; by reason.
#[derive(Default)]
struct Bursts(HashMap<&'static str, Burst>);

struct Burst {
    /// Nothing is told before.
    until: Moment,
    /// How many have not been told, and where the last one came from.
    untold: u64,
    client: IpAddr,
}

#[derive(Debug, PartialEq, Eq)]
enum Telling {
    Now,
    /// By whoever comes back after this time.
    After(Duration),
    /// By somebody who will come back already.
    WithOthers,
}

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
        match bursts(&self.bursts).one(refused.reason(), client, Moment::now()) {
            Telling::Now => say(&self.log, refused, client, None),
            Telling::WithOthers => {}
            Telling::After(time) => {
                let (log, all) = (self.log.clone(), Arc::clone(&self.bursts));
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let rest = bursts(&all).rest(refused.reason(), Moment::now());
                    if let Some((client, folded)) = rest {
                        say(&log, refused, client, Some(folded));
                    }
                });
            }
        }
    }
}

impl Bursts {
    fn one(&mut self, reason: &'static str, client: IpAddr, now: Moment) -> Telling {
        let until = now.after(BETWEEN);
        let Some(burst) = self.0.get_mut(reason) else {
            self.0.insert(reason, Burst { until, untold: 0, client });
            return Telling::Now;
        };
        burst.client = client;
        if burst.untold == 0 && now >= burst.until {
            burst.until = until;
            return Telling::Now;
        }
        burst.untold += 1;
        if burst.untold == 1 { Telling::After(burst.until.since(now)) } else { Telling::WithOthers }
    }

    /// Those that have not been told, and where the last of them came from.
    fn rest(&mut self, reason: &'static str, now: Moment) -> Option<(IpAddr, u64)> {
        let burst = self.0.get_mut(reason).filter(|burst| burst.untold > 0)?;
        burst.until = now.after(BETWEEN);
        Some((burst.client, std::mem::take(&mut burst.untold)))
    }
}

fn say(log: &Log, refused: Refused, client: IpAddr, folded: Option<u64>) {
    let mut members = serde_json::json!({ "client.address": client.to_string(), "reason": refused.reason() });
    if let (Some(folded), Some(members)) = (folded, members.as_object_mut()) {
        members.insert("folded".to_owned(), folded.into());
    }
    log.say(refused.level(), "connection_refused", &members);
}

fn bursts(bursts: &Mutex<Bursts>) -> MutexGuard<'_, Bursts> {
    // A count that is off by one after a panic elsewhere is told all the same.
    bursts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line for each reason in this time: whoever knocks a thousand times a second must not fill the log.
const BETWEEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn the_first_is_told_at_once_and_the_rest_of_its_second_together() {
        let mut bursts = Bursts::default();
        let start = Moment::now();
        let at = |millis| start.after(Duration::from_millis(millis));
        assert_eq!(bursts.one("a", ONE, at(0)), Telling::Now);
        assert_eq!(bursts.one("a", ONE, at(400)), Telling::After(Duration::from_millis(600)));
        assert_eq!(bursts.one("a", OTHER, at(900)), Telling::WithOthers);
        assert_eq!(bursts.one("b", ONE, at(900)), Telling::Now, "each reason has its own line");
        // Whoever is to come back is late: what happens meanwhile goes with the others.
        assert_eq!(bursts.one("a", OTHER, at(1100)), Telling::WithOthers);
        assert_eq!(bursts.rest("a", at(1200)), Some((OTHER, 3)));
        assert_eq!(bursts.rest("a", at(1200)), None);
        assert_eq!(bursts.one("a", ONE, at(1300)), Telling::After(Duration::from_millis(900)));
        assert_eq!(bursts.rest("a", at(2200)), Some((ONE, 1)));
        assert_eq!(bursts.one("a", ONE, at(3200)), Telling::Now);
    }

    #[test]
    fn no_two_have_the_same_word() {
        let handshakes = HandshakeFault::ALL.map(Refused::Handshake);
        let all: Vec<_> = Refused::without_handshakes().chain(handshakes).map(Refused::reason).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.len(), 24);
    }
}
