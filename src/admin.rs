//! The admin address: a page for people, `/metrics`, `/livez`, `/readyz`, `/status`, and the calls of an operator who has the admin token.
//! Never reachable on the traffic address.
//!
//! ```text
//! admin      the pages
//! page       the one for people
//! operate    a call, from its head to its reply
//! key        who may make one
//! order      what can be asked for
//! ```

pub mod key;
mod operate;
pub mod order;
pub mod page;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use self::operate::Operating;
use self::order::Call;
use crate::config::Limits;
use crate::proxy::current::Current;
use crate::proxy::story::Portcullis;
use crate::proxy::{Body, Sent, Serve};
use crate::request::{Head, HeadFault, HeadLimits, Method, Peer, Reply, ReplyBody};

/// Answers about one Portcullis.
pub struct Admin {
    current: Arc<Current<Portcullis>>,
    /// Config loaded, sockets bound, not stopping. It never speaks of the PAM: a sidecar that turns unready when its PAM
    /// is down takes the answer "PAM down" away from the callers.
    ready: watch::Receiver<bool>,
}

impl Admin {
    /// For a Portcullis whose readiness `ready` tells.
    pub fn new(current: Arc<Current<Portcullis>>, ready: watch::Receiver<bool>) -> Admin {
        Admin { current, ready }
    }

    fn page(&self, portcullis: &Portcullis, head: &Head) -> Reply {
        let path = head.target.path();
        if !PAGES.contains(&path) {
            return Reply::of_ours(404, typed(TEXT), directory(portcullis));
        }
        if !matches!(head.method, Method::Get | Method::Head) {
            let allow = ("Allow", Bytes::from_static(b"GET, HEAD"));
            return Reply::of_ours(
                405,
                [typed(TEXT), vec![allow]].concat(),
                Bytes::from_static(b"only GET and HEAD\n"),
            );
        }
        if path == "/" {
            let facts = portcullis.facts(*self.ready.borrow());
            return Reply::of_ours(200, page::fields(), page::render(&facts, head.target.query() == "pause").into());
        }
        let (status, kind, body) = match path {
            "/metrics" => (200, "text/plain; version=0.0.4; charset=utf-8", portcullis.exposition().into()),
            "/status" => (200, "application/json", format!("{:#}\n", portcullis.status()).into()),
            "/readyz" if !*self.ready.borrow() => (503, TEXT, Bytes::from_static(b"not ready\n")),
            "/readyz" => (200, TEXT, Bytes::from_static(b"ready\n")),
            // Whoever can answer lives.
            _ => (200, TEXT, Bytes::from_static(b"alive\n")),
        };
        Reply::of_ours(status, typed(kind), body)
    }
}

fn directory(portcullis: &Portcullis) -> Bytes {
    let pages: &[u8] = match portcullis.admin_keys() {
        None => b"there are / /metrics /livez /readyz /status\n",
        Some(_) => b"there are / /metrics /livez /readyz /status, and POST /revoke /unrevoke /standing\n",
    };
    Bytes::from_static(pages)
}

impl Serve for Admin {
    type Record = ();

    async fn serve(&self, head: Result<Head, HeadFault>, _: &Peer, _: Instant, body: &mut impl Body) -> (Reply, ()) {
        let head = match head {
            Ok(head) => head,
            Err(fault) => return (Reply::of_ours(fault.status(), typed(TEXT), Bytes::from_static(b"malformed\n")), ()),
        };
        let portcullis = self.current.now();
        let reply = match (portcullis.admin_keys(), Call::at(head.target.path())) {
            (Some(keys), Some(call)) => Operating { portcullis: &portcullis }.answer(call, keys, &head, body).await,
            // Without an admin token there are no calls.
            (None, _) | (_, None) => self.page(&portcullis, &head),
        };
        let bodiless = head.method == Method::Head;
        (if bodiless { Reply { body: ReplyBody::None, ..reply } } else { reply }, ())
    }

    fn sent(&self, (): (), _: Sent, _: Instant) {}

    fn limits(&self) -> Limits {
        LIMITS
    }
}

fn typed(kind: &'static str) -> Vec<(&'static str, Bytes)> {
    vec![("Content-Type", Bytes::from_static(kind.as_bytes()))]
}

const PAGES: [&str; 5] = ["/", "/metrics", "/livez", "/readyz", "/status"];

const TEXT: &str = "text/plain; charset=utf-8";

/// A scraper sends small heads and takes what it asked for, or is let go; an operator's call is a few hundred bytes.
const LIMITS: Limits = Limits {
    head: HeadLimits { bytes: 16 << 10, fields: 64, target: 2 << 10 },
    body: 8 << 10,
    handshake_timeout: Duration::from_secs(5),
    in_flight: 0,
    connections: 256,
    connections_per_address: 0,
    requests_per_connection: 10_000,
    connection_age: Duration::from_secs(3600),
    streams: 16,
    head_timeout: Duration::from_secs(5),
    body_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(60),
    write_timeout: Duration::from_secs(10),
    rate_per_address: 0,
    rate_per_caller: 0,
    lockout: None,
};
