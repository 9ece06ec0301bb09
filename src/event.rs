//! The one event per request: a line in the log and a count in the metrics, from the same facts.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::credential::SecretAt;
use crate::denial::Denial;
use crate::log::line::{Line, member};
use crate::token::TokenDigest;

/// Everything that is told about one request. Nothing in it is secret; what the caller chose is bounded.
///
/// Names are borrowed from the config that it was served by: it costs no memory to tell of a request.
pub struct Event<'e> {
    /// When the reply was decided.
    pub at: SystemTime,
    /// The dialect.
    pub dialect: Cow<'e, str>,
    /// The caller's name; `none` when nobody was proven.
    pub caller: Cow<'e, str>,
    /// The id of the secret that signed.
    pub key_id: Option<Cow<'e, str>>,
    /// The route's name; `none` when no route was found.
    pub route: Cow<'e, str>,
    /// Where the request came from.
    pub client: IpAddr,
    /// The method, if it is one that can be served.
    pub method: &'static str,
    /// Status of the reply.
    pub status: u16,
    /// Why it was refused, or why the exchange failed.
    pub denial: Option<Denial>,
    /// What was decided.
    pub decision: Decision,
    /// The correlation id.
    pub correlation_id: Cow<'e, str>,
    /// The trace id.
    pub trace_id: [u8; 16],
    /// The player token's digest.
    pub token: Option<TokenDigest>,
    /// What would have refused it, if it had been enforced.
    pub would_refuse: Cow<'e, [Denial]>,
    /// The answer ended the token.
    pub retired: bool,
    /// The answer called the token expired or unknown, and is believed for a while.
    pub taught: bool,
    /// From the head to the end of the reply.
    pub total: Duration,
    /// Of that, what Portcullis itself took.
    pub own: Duration,
    /// Of that, what the PAM took; `None` when it was not asked.
    pub upstream: Option<Duration>,
    /// The caller got the whole reply.
    pub delivered: bool,
    /// Where names stand in the config that it was served by.
    pub indices: Indices,
    /// Of a million such requests, how many have a line, if nothing about them is worth one.
    pub sample: u32,
}

/// Where what is named stands in its config, so that it is counted without looking names up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indices {
    /// Among the dialect's routes.
    pub route: Option<usize>,
    /// Among the callers.
    pub caller: Option<usize>,
    /// Among the caller's credentials.
    pub secret: Option<SecretAt>,
    /// Among the caller's signing keys.
    pub key: Option<usize>,
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forwarded.
    Admitted,
    /// Forwarded with a token that had ended, because money that is owed hangs on it.
    Settled,
    /// Not forwarded.
    Refused,
}

impl Decision {
    /// One word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Admitted => "admitted",
            Decision::Settled => "settled",
            Decision::Refused => "refused",
        }
    }
}

impl Event<'_> {
    /// The same with names of its own, for whoever tells of it later.
    pub fn into_owned(self) -> Event<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Event {
            dialect: owned(self.dialect),
            caller: owned(self.caller),
            key_id: self.key_id.map(owned),
            route: owned(self.route),
            correlation_id: owned(self.correlation_id),
            would_refuse: Cow::Owned(self.would_refuse.into_owned()),
            ..self
        }
    }

    /// True when it is one of those that the log leaves out: admitted, went well, ended no token, and drawn by its trace id,
    /// as OpenTelemetry draws what it samples: by the last 56 bits, which are random.
    pub fn is_sampled_out(&self) -> bool {
        let drawn = self.trace_id.iter().skip(9).fold(0, |drawn, byte| drawn << 8 | u64::from(*byte));
        let left_out = u64::from(EVERY.saturating_sub(self.sample));
        self.is_routine() && drawn < ((left_out << 36) / u64::from(EVERY)) << 20
    }

    fn is_routine(&self) -> bool {
        let went_well = self.denial.is_none() && self.status < 500 && self.delivered;
        went_well && self.decision == Decision::Admitted && !self.retired && !self.taught
    }

    /// `info` for what went well, `warn` for what a caller did wrong, `error` for what went wrong here or at the PAM.
    pub fn level(&self) -> &'static str {
        match self.status {
            500.. => "error",
            400..=499 if self.decision == Decision::Refused => "warn",
            _ if !self.would_refuse.is_empty() => "warn",
            _ => "info",
        }
    }

    /// Writes the log line behind what is there already. Names follow OpenTelemetry's semantic conventions where there is one.
    pub fn put_line(&self, out: &mut Vec<u8>) {
        let mut line = Line::new(out, self.at, self.level(), "request");
        line.text(member!("dialect"), &self.dialect);
        line.text(member!("caller"), &self.caller);
        if let Some(key_id) = &self.key_id {
            line.text(member!("key_id"), key_id);
        }
        line.address(member!("client.address"), self.client);
        line.text(member!("http.route"), &self.route);
        line.word(member!("http.request.method"), self.method);
        line.number(member!("http.response.status_code"), self.status.into());
        line.word(member!("decision"), self.decision.as_str());
        if let Some(denial) = self.denial {
            line.word(member!("check"), denial.check().as_str());
            line.word(member!("reason"), denial.reason());
        }
        if !self.would_refuse.is_empty() {
            line.list(member!("would_refuse"), self.would_refuse.iter(), |line, denial| {
                line.word(member!("check"), denial.check().as_str());
                line.word(member!("reason"), denial.reason());
            });
        }
        line.text(member!("correlation_id"), &self.correlation_id);
        line.hex(member!("trace_id"), &self.trace_id);
        if let Some(token) = self.token {
            line.hex(member!("token"), token.as_bytes());
        }
        if self.retired {
            line.truth(member!("token_ended"), true);
        }
        if self.taught {
            line.truth(member!("token_presumed_ended"), true);
        }
        line.seconds(member!("duration_s"), self.total);
        line.seconds(member!("own_duration_s"), self.own);
        if let Some(upstream) = self.upstream {
            line.seconds(member!("upstream_duration_s"), upstream);
        }
        if !self.delivered {
            line.truth(member!("delivered"), false);
        }
        if self.is_routine() && self.sample < EVERY {
            line.share(member!("sample_rate"), f64::from(self.sample) / f64::from(EVERY));
        }
        line.end();
    }
}

/// What a caller is called that was not proven, a route that was not found, and a method that could not be read. Not a name
/// that stands in a config.
pub const NONE: &str = "none";

/// The sample that leaves nothing out.
pub const EVERY: u32 = 1_000_000;
