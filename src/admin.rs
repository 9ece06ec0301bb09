//! The admin address: `/metrics`, `/livez`, `/readyz`, `/status`. Never reachable on the traffic address.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::config::Limits;
use crate::proxy::story::Portcullis;
use crate::proxy::{Body, Sent, Serve};
use crate::request::{Head, HeadFault, HeadLimits, Method, Reply, ReplyBody};

/// Answers about one Portcullis.
pub struct Admin {
    portcullis: Arc<Portcullis>,
    /// Config loaded, sockets bound, not stopping. It never speaks of the PAM: a sidecar that turns unready when its PAM
    /// is down takes the answer "PAM down" away from the callers.
    ready: watch::Receiver<bool>,
}

impl Admin {
    /// For a Portcullis whose readiness `ready` tells.
    pub fn new(portcullis: Arc<Portcullis>, ready: watch::Receiver<bool>) -> Admin {
        Admin { portcullis, ready }
    }

    fn answer(&self, head: &Head) -> (u16, &'static str, Bytes) {
        const TEXT: &str = "text/plain; charset=utf-8";
        if !matches!(head.method, Method::Get | Method::Head) {
            return (405, TEXT, Bytes::from_static(b"only GET and HEAD\n"));
        }
        match head.target.path() {
            "/metrics" => (200, "text/plain; version=0.0.4; charset=utf-8", self.portcullis.exposition().into()),
            "/livez" => (200, TEXT, Bytes::from_static(b"alive\n")),
            "/readyz" if *self.ready.borrow() => (200, TEXT, Bytes::from_static(b"ready\n")),
            "/readyz" => (503, TEXT, Bytes::from_static(b"not ready\n")),
            "/status" => (200, "application/json", format!("{:#}\n", self.portcullis.status()).into()),
            _ => (404, TEXT, Bytes::from_static(b"there are /metrics /livez /readyz /status\n")),
        }
    }
}

impl Serve for Admin {
    type Record = ();

    async fn serve(self: &Arc<Self>, head: Result<Head, HeadFault>, _: &mut impl Body) -> (Reply, ()) {
        let (status, kind, body, bodiless) = match &head {
            Ok(head) => {
                let (status, kind, body) = self.answer(head);
                (status, kind, body, head.method == Method::Head)
            }
            Err(fault) => (fault.status(), "text/plain; charset=utf-8", Bytes::from_static(b"malformed\n"), false),
        };
        let fields = vec![(Bytes::from_static(b"Content-Type"), Bytes::from_static(kind.as_bytes()))];
        (Reply { status, fields, body: if bodiless { ReplyBody::None } else { ReplyBody::Whole(body) } }, ())
    }

    fn sent(&self, (): (), _: Sent) {}

    fn limits(&self) -> &Limits {
        &LIMITS
    }
}

/// A scraper sends small heads and takes what it asked for, or is let go.
const LIMITS: Limits = Limits {
    head: HeadLimits { bytes: 16 << 10, fields: 64, target: 2 << 10 },
    body: 0,
    head_timeout: Duration::from_secs(5),
    body_timeout: Duration::from_secs(1),
    idle_timeout: Duration::from_secs(60),
    write_timeout: Duration::from_secs(10),
};
