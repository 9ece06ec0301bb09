//! The one event per request: a line in the log and a count in the metrics, from the same facts.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::credential::SecretAt;
use crate::denial::Denial;
use crate::token::TokenDigest;

/// Everything that is told about one request. Nothing in it is secret; what the caller chose is bounded.
pub struct Event {
    /// When the reply was decided: RFC 3339 in UTC, with microseconds.
    pub timestamp: String,
    /// The dialect.
    pub dialect: Box<str>,
    /// The caller's name; `none` when nobody was proven.
    pub caller: Box<str>,
    /// The id of the secret that signed.
    pub key_id: Option<Box<str>>,
    /// The route's name; `none` when no route was found.
    pub route: Box<str>,
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
    pub correlation_id: String,
    /// The trace id, hexadecimal.
    pub trace_id: String,
    /// The player token's digest.
    pub token: Option<TokenDigest>,
    /// What would have refused it, if it had been enforced.
    pub would_refuse: Vec<Denial>,
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

impl Event {
    /// True when it is one of those that the log leaves out: admitted, went well, ended no token, and drawn by its trace id,
    /// as OpenTelemetry draws what it samples: by the last 56 bits, which are random.
    pub fn is_sampled_out(&self) -> bool {
        let bits = self.trace_id.get(self.trace_id.len().saturating_sub(14)..).unwrap_or_default();
        let drawn = u64::from_str_radix(bits, 16).unwrap_or(u64::MAX);
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
}

/// The log line. Names follow OpenTelemetry's semantic conventions where there is one.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("level", self.level())?;
        map.serialize_entry("event", "request")?;
        map.serialize_entry("dialect", &self.dialect)?;
        map.serialize_entry("caller", &self.caller)?;
        if let Some(key_id) = &self.key_id {
            map.serialize_entry("key_id", key_id)?;
        }
        map.serialize_entry("client.address", &self.client.to_string())?;
        map.serialize_entry("http.route", &self.route)?;
        map.serialize_entry("http.request.method", self.method)?;
        map.serialize_entry("http.response.status_code", &self.status)?;
        map.serialize_entry("decision", self.decision.as_str())?;
        if let Some(denial) = self.denial {
            map.serialize_entry("check", denial.check().as_str())?;
            map.serialize_entry("reason", denial.reason())?;
        }
        if !self.would_refuse.is_empty() {
            map.serialize_entry("would_refuse", &self.would_refuse)?;
        }
        map.serialize_entry("correlation_id", &self.correlation_id)?;
        map.serialize_entry("trace_id", &self.trace_id)?;
        if let Some(token) = self.token {
            map.serialize_entry("token", &token.to_string())?;
        }
        if self.retired {
            map.serialize_entry("token_ended", &true)?;
        }
        if self.taught {
            map.serialize_entry("token_presumed_ended", &true)?;
        }
        map.serialize_entry("duration_s", &seconds(self.total))?;
        map.serialize_entry("own_duration_s", &seconds(self.own))?;
        if let Some(upstream) = self.upstream {
            map.serialize_entry("upstream_duration_s", &seconds(upstream))?;
        }
        if !self.delivered {
            map.serialize_entry("delivered", &false)?;
        }
        if self.is_routine() && self.sample < EVERY {
            map.serialize_entry("sample_rate", &(f64::from(self.sample) / f64::from(EVERY)))?;
        }
        map.end()
    }
}

/// As the log shows what a check would have done.
impl Serialize for Denial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("check", self.check().as_str())?;
        map.serialize_entry("reason", self.reason())?;
        map.end()
    }
}
/// The sample that leaves nothing out.
pub const EVERY: u32 = 1_000_000;

/// Microseconds are as fine as the clock is worth.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}
