//! Whether the PAM can be reached, in the way that requests will go.
//!
//! It is asked one thing, `OPTIONS *`: the only request that is about no resource at all, which RFC 9110 §9.3.7 calls a ping.
//! No route of a dialect can be meant by it, and no credential goes with it. Whatever the PAM answers shows that it speaks
//! HTTP, and mostly says what time it is there.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::finding::Finding;
use crate::config::Settings;
use crate::fields::Only;
use crate::upstream::{Failure, FailureKind, Manner, Outbound, Upstream};

/// What the PAM said to `OPTIONS *`, or why it said nothing.
pub struct Asked {
    /// Before it was asked.
    pub began: SystemTime,
    /// After it had answered.
    pub ended: SystemTime,
    /// What it said.
    pub said: Result<Said, Failure>,
}

/// An answer.
pub struct Said {
    /// Its status.
    pub status: u16,
    /// Its Date, as it came.
    pub date: Option<String>,
}

/// Asks the PAM, once.
pub async fn ask(settings: &Settings) -> Asked {
    let upstream = Upstream::new(settings.upstream.clone(), settings.upstream_limits);
    let upstream = upstream.speaking(settings.upstream_protocol);
    let upstream = match &settings.upstream_tls {
        None => upstream,
        Some(tls) => upstream.over(Arc::clone(tls)),
    };
    let ping = Ping { host: &settings.upstream };
    let began = SystemTime::now();
    let said = upstream.exchange(&ping, Bytes::new(), Manner::default(), Instant::now()).await.map(|answer| {
        let date = match answer.fields.only("date") {
            Only::One(value) => Some(String::from_utf8_lossy(value).into_owned()),
            Only::None | Only::Many => None,
        };
        Said { status: answer.status, date }
    });
    Asked { began, ended: SystemTime::now(), said }
}

/// Whether it can be reached.
pub fn judge(upstream: &str, over_tls: bool, said: &Result<Said, Failure>) -> Finding {
    let over = if over_tls { " over TLS" } else { "" };
    let failure = match said {
        Ok(said) => return Finding::sound(PAM, format!("{upstream} answers{over} (`OPTIONS *`: {})", said.status)),
        Err(failure) => failure,
    };
    let wrong = |found: &str| Finding::wrong(PAM, format!("{upstream}: {found}"));
    match failure.kind {
        FailureKind::Connect => wrong("nobody takes a connection there, or the name is not known")
            .advise("see that the PAM runs and listens there, or correct `upstream`"),
        FailureKind::ConnectTimeout | FailureKind::Full => wrong("no connection came about in time (timeouts.connect)")
            .advise("see whether a firewall or a NetworkPolicy is in between, or whether the PAM is overloaded"),
        FailureKind::Certificate => wrong("its certificate is not trusted, has expired, or has another name")
            .advise("compare `upstream_tls` with the certificate: ca or roots, and name"),
        FailureKind::Tls => wrong("no agreement on TLS: it speaks none, or wants a certificate that it was not shown")
            .advise("see `upstream_tls`: leave it out for a PAM without TLS, or give it certificate and key"),
        FailureKind::NoHttp2 => {
            wrong("it does not speak HTTP/2").advise("set upstream_protocol = \"http1\", or turn HTTP/2 on at the PAM")
        }
        FailureKind::Write
        | FailureKind::Timeout
        | FailureKind::Closed
        | FailureKind::Malformed(_)
        | FailureKind::TooLarge
        | FailureKind::Unasked101
        | FailureKind::NotForHttp2
        | FailureKind::Unprocessed => {
            let found =
                format!("{upstream} takes connections{over}, but gives no answer to `OPTIONS *` that can be read");
            Finding::unknown(PAM, format!("{found} ({})", failure.kind.as_str()))
                .advise("a PAM need not know that request; send it one that it knows, through Portcullis")
        }
    }
}

struct Ping<'s> {
    host: &'s str,
}

impl Outbound for Ping<'_> {
    fn method(&self) -> &str {
        "OPTIONS"
    }

    fn target(&self) -> &str {
        "*"
    }

    fn fields(&self, put: &mut impl FnMut(&[u8], &[u8])) {
        put(b"Host", self.host.as_bytes());
        put(b"User-Agent", concat!("portcullis-doctor/", env!("CARGO_PKG_VERSION")).as_bytes());
    }
}

const PAM: &str = "pam";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn any_answer_will_do_and_what_keeps_requests_from_it_is_wrong() {
        let answered = judge("pam:9000", true, &Ok(Said { status: 405, date: None }));
        assert_eq!(
            (answered.verdict, &*answered.found[0]),
            (Verdict::Sound, "pam:9000 answers over TLS (`OPTIONS *`: 405)")
        );
        for kind in FailureKind::ALL {
            let found = judge("pam:9000", false, &Err(Failure { kind, sent: false }));
            let expected = match kind {
                FailureKind::Connect
                | FailureKind::ConnectTimeout
                | FailureKind::Certificate
                | FailureKind::Tls
                | FailureKind::NoHttp2
                | FailureKind::Full => Verdict::Wrong,
                _ => Verdict::Unknown,
            };
            assert_eq!(found.verdict, expected, "{kind:?}");
            assert_eq!((found.found.len(), found.advice.len()), (1, 1), "{kind:?}");
        }
    }
}
