//! The variables `OTEL_*`, as OpenTelemetry has specified them for SDKs and for OTLP: where spans go, and which.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>,
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>
//!
//! One that is empty is not set. Unlike an SDK, which takes a variable it cannot read for one that is not set, this says
//! so: whoever set it believes that it works.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::paper::{Complaints, Place};
use super::sources::Sources;
use crate::fields::is_token;
use crate::secret::Secret;
use crate::span::{Endpoint, SpanRules};
use crate::tls::IdentityFiles;
use crate::tls::pam::{PamRules, Roots};
use crate::tls::watched::Watched;
use crate::trace::sampler::{Root, Sampler};

/// Reads them. `None` when no spans are wanted: that is when neither an endpoint nor the exporter is named, or when one of
/// the two switches says no.
pub fn spans(sources: &Sources<'_>, complaints: &mut Complaints) -> Option<SpanRules> {
    let mut reading = Reading { sources, complaints };
    if !reading.wanted() {
        return None;
    }
    let before = reading.complaints.len();
    reading.protocol();
    let endpoint = reading.endpoint();
    let headers = reading.headers();
    let gzip = reading.gzip();
    let timeout = reading.milliseconds(reading.of_traces("TIMEOUT"), 10_000);
    let sampler = reading.sampler();
    let queue = reading.count(QUEUE, 2048);
    let batch = reading.count(BATCH, 512.min(queue));
    if batch > queue {
        reading.complain(BATCH, format!("must be at most {QUEUE}, which is {queue}"));
    }
    let delay = reading.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000);
    let patience = reading.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000);
    let resource = reading.resource();
    if reading.complaints.len() > before {
        return None;
    }
    Some(SpanRules { sampler, endpoint: endpoint?, headers, gzip, timeout, patience, queue, batch, delay, resource })
}

struct Reading<'a> {
    sources: &'a Sources<'a>,
    complaints: &'a mut Complaints,
}

impl Reading<'_> {
    fn wanted(&mut self) -> bool {
        let disabled = match self.text(DISABLED).map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.complain(DISABLED, "must be true or false");
                false
            }
        };
        let exporter = match self.text(EXPORTER).as_deref() {
            None => self.text(TRACES_ENDPOINT).is_some() || self.text(ENDPOINT).is_some(),
            Some("otlp") => true,
            Some("none") => false,
            Some(_) => {
                self.complain(EXPORTER, "must be otlp or none");
                false
            }
        };
        exporter && !disabled
    }

    fn protocol(&mut self) {
        let name = self.of_traces("PROTOCOL");
        if self.text(name).is_some_and(|protocol| protocol != "http/protobuf") {
            self.complain(name, "must be http/protobuf, which is the only one spoken here");
        }
    }

    fn endpoint(&mut self) -> Option<Endpoint> {
        let (name, url) = match (self.text(TRACES_ENDPOINT), self.text(ENDPOINT)) {
            (Some(url), _) => (TRACES_ENDPOINT, url),
            (None, Some(url)) if url.contains('?') => {
                self.complain(ENDPOINT, format!("must end with a path; a query can stand in {TRACES_ENDPOINT}"));
                return None;
            }
            (None, Some(url)) => (ENDPOINT, format!("{}/v1/traces", url.trim_end_matches('/'))),
            (None, None) => (ENDPOINT, "http://localhost:4318/v1/traces".to_owned()),
        };
        let url = match Url::parse(&url) {
            Ok(url) => url,
            Err(fault) => {
                self.complain(name, format!("{fault}; it is a URL such as http://localhost:4318"));
                return None;
            }
        };
        let tls = match url.encrypted {
            true => Some(self.tls(&url.host)?),
            false => None,
        };
        Some(Endpoint { address: url.address, authority: url.authority, target: url.target, tls })
    }

    fn tls(&mut self, host: &str) -> Option<Watched<PamRules>> {
        let [ca, certificate, key] = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"].map(|of| self.of_traces(of));
        // Relative to where the command was given, as variables are.
        let file = |name: &str| self.text(name).map(PathBuf::from);
        let identity = match (file(certificate), file(key)) {
            (Some(certificate), Some(key)) => Some(IdentityFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                self.complain(certificate, format!("comes together with {key}"));
                return None;
            }
        };
        let roots = file(ca).map_or(Roots::System, Roots::File);
        let loaded = Watched::load(PamRules { roots, name: host.to_owned(), identity });
        let named = |key_of_the_config| match key_of_the_config {
            "ca" | "roots" => ca,
            "certificate" => certificate,
            "key" => key,
            _ => ENDPOINT,
        };
        loaded.map_err(|fault| self.complain(named(fault.key), fault.message)).ok()
    }

    fn headers(&mut self) -> Vec<(String, Secret)> {
        let name = self.of_traces("HEADERS");
        let mut headers = Vec::new();
        for (field, value) in self.pairs(name) {
            let carried =
                is_token(field.as_bytes()) && value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
            let lower = field.to_ascii_lowercase();
            match lower.as_str() {
                // The message would be another than the one that is sent.
                "host" | "content-length" | "content-type" | "content-encoding" | "transfer-encoding"
                | "connection" => {
                    self.complain(name, format!("`{lower}` is not to be chosen"));
                }
                _ if carried => headers.push((field, Secret::new(value))),
                _ => self.complain(name, "has a name or a value that no header can carry"),
            }
        }
        headers
    }

    fn gzip(&mut self) -> bool {
        let name = self.of_traces("COMPRESSION");
        match self.text(name).as_deref() {
            None | Some("none") => false,
            Some("gzip") => true,
            Some(_) => {
                self.complain(name, "must be gzip or none");
                false
            }
        }
    }

    fn sampler(&mut self) -> Sampler {
        let text = self.text(SAMPLER).unwrap_or_else(|| "parentbased_always_on".to_owned());
        let (parent_based, root) = match text.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, text.as_str()),
        };
        let root = match root {
            "always_on" => Root::All,
            "always_off" => Root::None,
            "traceidratio" => self.share(),
            _ => {
                let known = "always_on, always_off or traceidratio, or one of these behind parentbased_";
                self.complain(SAMPLER, format!("must be {known}"));
                Root::None
            }
        };
        Sampler { root, parent_based }
    }

    fn share(&mut self) -> Root {
        let Some(text) = self.text(SAMPLER_ARG) else { return Root::All };
        match text.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => Root::share(share),
            Ok(_) | Err(_) => {
                self.complain(SAMPLER_ARG, "must be a number from 0 to 1, such as 0.25");
                Root::None
            }
        }
    }

    /// What the variables say of this process, and what is known of it anyway.
    fn resource(&mut self) -> Vec<(String, String)> {
        let mut resource: Vec<(String, String)> = Vec::new();
        let mut put = |name: &str, value: String| match resource.iter_mut().find(|(other, _)| other == name) {
            Some((_, before)) => *before = value,
            None => resource.push((name.to_owned(), value)),
        };
        put("service.name", env!("CARGO_PKG_NAME").to_owned());
        put("service.version", env!("CARGO_PKG_VERSION").to_owned());
        for (name, value) in self.pairs(RESOURCE) {
            match String::from_utf8(value) {
                Ok(value) if !name.is_empty() => put(&name, value),
                Ok(_) | Err(_) => {
                    self.complain(RESOURCE, "has an attribute without a name, or a value that is not UTF-8")
                }
            }
        }
        if let Some(name) = self.text(NAME) {
            put("service.name", name);
        }
        // Who made the spans cannot be chosen.
        put("telemetry.sdk.name", env!("CARGO_PKG_NAME").to_owned());
        put("telemetry.sdk.language", "rust".to_owned());
        put("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned());
        resource
    }

    /// `name=value,name=value`, values percent-encoded.
    fn pairs(&mut self, variable: &str) -> Vec<(String, Vec<u8>)> {
        let mut pairs = Vec::new();
        for pair in self.text(variable).iter().flat_map(|text| text.split(',')).filter(|pair| !pair.trim().is_empty()) {
            let read =
                pair.split_once('=').and_then(|(name, value)| Some((name.trim().to_owned(), unescape(value.trim())?)));
            match read {
                Some(pair) => pairs.push(pair),
                None => self.complain(variable, "must be NAME=VALUE,NAME=VALUE with percent-encoded values"),
            }
        }
        pairs
    }

    fn count(&mut self, name: &'static str, usual: usize) -> usize {
        self.number(name, 1..=1_000_000).and_then(|number| usize::try_from(number).ok()).unwrap_or(usual)
    }

    fn milliseconds(&mut self, name: &'static str, usual: u64) -> Duration {
        Duration::from_millis(self.number(name, 1..=3_600_000).unwrap_or(usual))
    }

    fn number(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.text(name)?.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.complain(name, format!("must be a number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// The variable for traces where it is set, or else the one for everything.
    fn of_traces(&self, of: &str) -> &'static str {
        let (_, traces, all) = FOR_ALL.into_iter().find(|(name, ..)| *name == of).unwrap_or(("", ENDPOINT, ENDPOINT));
        if self.text(traces).is_some() { traces } else { all }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.sources.variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn complain(&mut self, name: &str, message: impl Into<String>) {
        self.complaints.push(&Place::whole(name), message);
    }
}

/// A URL of `http` or `https`.
struct Url {
    encrypted: bool,
    /// Without a port, in brackets or not.
    host: String,
    authority: String,
    /// `host:port`
    address: String,
    target: String,
}

impl Url {
    fn parse(text: &str) -> Result<Url, &'static str> {
        let (encrypted, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("neither http:// nor https:// is in front"),
        };
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err("user and password do not belong here: there is OTEL_EXPORTER_OTLP_HEADERS");
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err("it has a character that no path can carry");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (bare != host && byte == b':');
        if bare.is_empty() || !bare.bytes().all(plain) {
            return Err("it has no host");
        }
        let usual = if encrypted { "443" } else { "80" };
        let port: u16 = port.unwrap_or(usual).parse().map_err(|_| "its port is no number from 0 to 65535")?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let address = format!("{host}:{port}");
        Ok(Url { encrypted, host: bare.to_owned(), authority: authority.to_owned(), address, target })
    }
}

/// Percent-decoding; `None` where a percent sign stands for nothing.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'%' {
            let (pair, behind) = rest.split_first_chunk::<2>()?;
            let digits = pair.iter().all(u8::is_ascii_hexdigit).then_some(pair)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = behind;
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const NAME: &str = "OTEL_SERVICE_NAME";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// Those of the exporter, of which there is one for traces and one for everything.
const FOR_ALL: [(&str, &str, &str); 7] = [
    ("PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
    ("TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"),
    ("COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    ("CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ("CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
    ("CLIENT_KEY", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
];
