//! The config: a file and flags become [`Settings`], or a list of everything that is wrong with them.

mod admin;
mod caller;
mod fixed;
pub mod keys;
mod modes;
mod otel;
pub mod paper;
mod redis;
mod reference;
mod revocation;
pub mod shape;
pub mod sources;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::fixed::Fixed;
pub use self::paper::{Complaint, Place};
use self::paper::{Complaints, Node, Spanned, Table, Value};
use self::shape::{Asked, Form, Shape};
use self::sources::Sources;
pub use self::tls::InUse;
use crate::admin::key::AdminKeys;
use crate::credential::{Caller, Callers};
use crate::dialect::{self, BUILT_IN, Dialect, Overrides};
use crate::event::EVERY;
use crate::files::Files;
use crate::lockout::LockoutRule;
use crate::log::LogRules;
use crate::mode::Modes;
use crate::network::Network;
use crate::origin::TrustedProxies;
use crate::request::HeadLimits;
use crate::revocation::Rules;
use crate::secret::{DigestKey, Secret};
use crate::span::SpanRules;
use crate::threads;
use crate::tls::callers::CallerRules;
use crate::tls::pam::PamRules;
use crate::tls::watched::Watched;
use crate::trace::Trust;
use crate::upstream::{Protocol, UpstreamLimits};

/// Everything a running Portcullis needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    /// The API family, with the operator's changes to its rules.
    pub dialect: Dialect,
    /// Who may call.
    pub callers: Callers,
    /// What each caller would send as Authorization, where its newest secret is known in plain; for `sign` and `demo`,
    /// and wiped before serving starts.
    pub authorizations: Vec<Option<Secret>>,
    /// The secrets of each caller's signing keys as they were read, in their order; for `explain`, which looks for how else
    /// they may have been used, and wiped before serving starts.
    pub signing_secrets: Vec<Vec<Secret>>,
    /// The key that secrets and tokens are remembered under.
    pub digest_key: DigestKey,
    /// Where callers connect.
    pub listen: String,
    /// TLS to callers; `None` for plain TCP.
    pub tls: Option<Arc<Watched<CallerRules>>>,
    /// Where the PAM is.
    pub upstream: String,
    /// Which version of HTTP is spoken to it.
    pub upstream_protocol: Protocol,
    /// TLS to the PAM; `None` for plain TCP.
    pub upstream_tls: Option<Arc<Watched<PamRules>>>,
    /// Where metrics and probes are; `None` when there are none.
    pub admin: Option<String>,
    /// Who may make an operator's calls there; `None` when there are none.
    pub admin_keys: Option<AdminKeys>,
    /// What an operator sends as Authorization, with the newest of the secrets; for `revoke`, `unrevoke` and `status`, and
    /// wiped before serving starts.
    pub admin_authorization: Option<Secret>,
    /// Whose word on where a request comes from counts.
    pub trusted_proxies: TrustedProxies,
    /// What becomes of the trace that a request brings, where its caller has no rule of its own or is nobody.
    pub trace: Trust,
    /// How a tracing backend is told of requests; `None` when none is. From the environment, not from the file.
    pub spans: Option<SpanRules>,
    /// Bounds on what callers send.
    pub limits: Limits,
    /// Bounds on the exchange with the PAM.
    pub upstream_limits: UpstreamLimits,
    /// How tokens that ended are remembered.
    pub revocation: Rules,
    /// How many signed messages of each caller are remembered.
    pub replay_capacity: u64,
    /// Whether replicas that share ended tokens share these as well.
    pub replay_shared: bool,
    /// Which checks refuse, and which only watch.
    pub modes: Modes,
    /// How it stops.
    pub drain: Drain,
    /// Which requests have a line in the log.
    pub log: LogRules,
    /// Threads that serve.
    pub threads: usize,
    /// The files that secrets were read from; for `doctor`.
    pub secret_files: Vec<PathBuf>,
    /// What cannot change while it runs.
    pub fixed: Fixed,
}

/// Bounds on what callers send, each with its reason.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The head: a session's cookies fit, a flood does not.
    pub head: HeadLimits,
    /// Bytes of a body: it is held whole, so this times the connections is memory.
    pub body: u64,
    /// For the TLS handshake: who does not end it must not hold a connection.
    pub handshake_timeout: Duration,
    /// Requests that may be with the PAM at the same time: what it cannot take at once is better refused than queued.
    pub in_flight: u32,
    /// Connections that may be open: each takes a descriptor and memory.
    pub connections: u32,
    /// How many of them from one address; 0 for all.
    pub connections_per_address: u32,
    /// Requests after which a connection is ended, so that none lives for ever on the replica it found first.
    pub requests_per_connection: u32,
    /// Age at which a connection is ended after the request it is serving, for the same reason.
    pub connection_age: Duration,
    /// Requests side by side on one HTTP/2 connection; each may hold a body.
    pub streams: u32,
    /// From a connection's first byte, or its acceptance, to the end of the head: a drip must not hold a connection.
    pub head_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// For a caller to take a reply.
    pub write_timeout: Duration,
    /// Requests a second from one address; 0 for any.
    pub rate_per_address: u32,
    /// Requests a second of one caller; 0 for any.
    pub rate_per_caller: u32,
    /// When somebody has failed too often to prove who it is; `None` for never.
    pub lockout: Option<LockoutRule>,
}

/// How a process stops.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Between the signal to stop and the end of accepting: time for a load balancer to notice `/readyz`.
    pub delay: Duration,
    /// How long requests in flight may take after that.
    pub timeout: Duration,
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The file.
    pub config: PathBuf,
    /// `--listen`
    pub listen: Option<String>,
    /// `--upstream`
    pub upstream: Option<String>,
    /// `--admin`
    pub admin: Option<String>,
    /// `--set KEY=VALUE`, in order.
    pub set: Vec<String>,
}

impl Settings {
    /// Reads the file and lays the flags over it. `environment` looks variables up.
    pub fn load(
        flags: &Flags,
        environment: &dyn Fn(&str) -> Option<String>,
        digest_key: DigestKey,
    ) -> Result<Settings, Vec<Complaint>> {
        Settings::read(flags, environment, digest_key, InUse::default()).0
    }

    /// The same, with the files that were read, also when something is wrong with them. Certificates in use stay so
    /// where those in the files are of no use.
    pub fn read(
        flags: &Flags,
        environment: &dyn Fn(&str) -> Option<String>,
        digest_key: DigestKey,
        in_use: InUse,
    ) -> (Result<Settings, Vec<Complaint>>, Files) {
        let mut complaints = Complaints::default();
        let place = Place::whole(&flags.config.display().to_string());
        let sources = Sources::new(flags.config.parent().unwrap_or(Path::new("")), environment).using(in_use);
        // Relative to where the command was given, unlike the files it names.
        let here = Sources::new(Path::new(""), environment);
        let text = file(&here, &flags.config.display().to_string(), &place, &mut complaints);
        let settings = match text {
            Some(text) => Settings::of(&text, flags, &sources, digest_key),
            None => Err(complaints.into_vec()),
        };
        (settings, here.into_files().and(sources.into_files()))
    }

    /// The same for a text in hand. Complaints name `flags.config`, and files are looked for beside it.
    pub fn parse(
        text: &str,
        flags: &Flags,
        environment: &dyn Fn(&str) -> Option<String>,
        digest_key: DigestKey,
    ) -> Result<Settings, Vec<Complaint>> {
        let sources = Sources::new(flags.config.parent().unwrap_or(Path::new("")), environment);
        Settings::of(text, flags, &sources, digest_key)
    }

    fn of(text: &str, flags: &Flags, sources: &Sources<'_>, digest_key: DigestKey) -> Result<Settings, Vec<Complaint>> {
        let mut complaints = Complaints::default();
        let mut table = paper::parse(&flags.config.display().to_string(), text, &mut complaints);
        for (flag, key, value) in [
            ("--listen", "listen", &flags.listen),
            ("--upstream", "upstream", &flags.upstream),
            ("--admin", "admin", &flags.admin),
        ] {
            if let Some(value) = value {
                table.set_string(flag, key, value, &mut complaints);
            }
        }
        for assignment in &flags.set {
            table.set("--set", assignment, &mut complaints);
        }
        let settings = settings(&mut table, sources, digest_key, &mut complaints);
        table.finish(&mut complaints);
        match settings {
            Some(settings) if complaints.is_empty() => Ok(settings),
            _ => Err(complaints.into_vec()),
        }
    }
}

/// Every key a config can have, dotted, as the code that reads them knows them.
pub fn keys() -> BTreeMap<String, Asked> {
    let mut complaints = Complaints::default();
    // What is read only where it is there, is there.
    let text = "tls = {}\nupstream_tls = {}\nrevocation = { redis = {}, on_outage = {} }\n[[caller]]\nbasic = {}\nsigning = [{}]";
    let mut table = paper::parse("", text, &mut complaints);
    let _ = settings(&mut table, &Sources::new(Path::new(""), &|_| None), DigestKey::new([0; 32]), &mut complaints);
    table.asked()
}

fn settings(
    table: &mut Table,
    sources: &Sources<'_>,
    digest_key: DigestKey,
    complaints: &mut Complaints,
) -> Option<Settings> {
    let mut fixed = Fixed::of(table);
    table.require("dialect", "dialect = \"wallet\" (or valkyrie, betstack, or the path of a dialect file)", complaints);
    let dialect_name = table.string("dialect", complaints);
    let listen = address(table, "listen", "listen = \"127.0.0.1:8080\"", true, complaints);
    let upstream = address(table, "upstream", "upstream = \"127.0.0.1:9000\"", true, complaints);
    let admin = address(table, "admin", "admin = \"127.0.0.1:9901\"", false, complaints);
    let base_path = base_path(table, complaints);
    let trusted_proxies = networks(table, "trusted_proxies", complaints).unwrap_or_default();
    let proxy_protocol = networks(table, "proxy_protocol", complaints).unwrap_or_default();
    table.usual("trace", "\"continue\"");
    let trace = trust(table, complaints).unwrap_or(Trust::Continue);
    let spans = otel::spans(sources, complaints);
    table.usual("threads", "0");
    let threads =
        table.integer("threads", 0..=1024, complaints).and_then(|threads| usize::try_from(threads.value).ok());

    let mut token = table.section("token", complaints);
    let token_length = dialect::token_length(&mut token, complaints);
    let settlement = dialect::settlement(&mut token, complaints);
    token.finish(complaints);

    let mut signature = table.section("signature", complaints);
    let tolerance = signature.duration("tolerance", complaints).map(|tolerance| tolerance.value);
    let public_url = public_url(&mut signature, complaints);
    signature.finish(complaints);

    let overrides = Overrides { base_path, token_length, settlement, tolerance, public_url };
    let dialect = dialect_name.and_then(|name| dialect(&name, sources, &overrides, complaints));

    let (tls, asks_for_certificates) = tls::tls(table, sources, complaints);
    let over_tls = table.contains("upstream_tls");
    let upstream_tls = tls::upstream_tls(table, upstream.as_deref(), sources, complaints);
    let upstream_protocol = upstream_protocol(table, over_tls, complaints);

    let (limits, held) = limits(table.section("limits", complaints), complaints);
    let upstream_limits = upstream_limits(table.section("timeouts", complaints), held, complaints);

    let section = table.section("revocation", complaints);
    let mut reading = revocation::Reading { dialect: dialect.as_ref(), sources, complaints };
    let before = sources.mark();
    let revocation = reading.revocation(section);
    fixed.made_of("revocation", sources.since(before));

    let mut replay = table.section("replay", complaints);
    let replay_capacity = count(&mut replay, "capacity", 200_000, complaints);
    replay.usual("shared", "true");
    let replay_shared = replay.boolean("shared", complaints);
    if let Some(Spanned { value: true, place }) = &replay_shared
        && revocation.sharing.is_none()
    {
        complaints.push(place, "shared = true needs [revocation] redis = { url = … }, by which replicas share");
    }
    replay.finish(complaints);

    let mut drain = table.section("drain", complaints);
    drain.declare("delay", Shape::Duration { zero: true });
    drain.usual("delay", "0");
    let drain_delay = match drain.node("delay") {
        None | Some(Node { value: Value::Integer(0), .. }) => Duration::ZERO,
        Some(node) => node.duration(complaints).map_or(Duration::ZERO, |delay| delay.value),
    };
    let drain_timeout = duration(&mut drain, "timeout", Duration::from_secs(30), complaints);
    drain.finish(complaints);
    let log = log_rules(table.section("log", complaints), complaints);

    let callers = caller::callers(table, dialect.as_ref(), sources, &digest_key, asks_for_certificates, complaints);
    let modes = modes::modes(table, dialect.as_ref(), callers.iter().map(|read| read.mode), complaints);
    let (callers, presents): (Vec<Caller>, Vec<_>) =
        callers.into_iter().map(|read| (read.caller, (read.authorization, read.signing))).unzip();
    let (authorizations, signing_secrets) = presents.into_iter().unzip();
    let (admin_keys, admin_authorization) =
        admin::admin_token(table, &callers, sources, &digest_key, complaints).unzip();
    Some(Settings {
        dialect: dialect?,
        callers: Callers::new(callers, digest_key.clone()),
        authorizations,
        signing_secrets,
        digest_key,
        listen: listen?,
        tls,
        upstream: upstream?,
        upstream_protocol,
        upstream_tls,
        admin,
        admin_keys,
        admin_authorization,
        trusted_proxies: TrustedProxies::new(trusted_proxies, proxy_protocol),
        trace,
        spans,
        limits,
        upstream_limits,
        revocation,
        replay_capacity,
        replay_shared: replay_shared.is_none_or(|shared| shared.value),
        modes,
        drain: Drain { delay: drain_delay, timeout: drain_timeout },
        log,
        threads: threads.filter(|threads| *threads > 0).unwrap_or_else(threads::usual),
        secret_files: sources.secrets(),
        fixed,
    })
}

fn dialect(
    name: &Spanned<String>,
    sources: &Sources<'_>,
    overrides: &Overrides,
    complaints: &mut Complaints,
) -> Option<Dialect> {
    if let Some((built_in, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name.value) {
        return dialect::read(&format!("dialects/{built_in}.toml"), text, overrides, complaints);
    }
    if !name.value.contains(['/', '.']) {
        let known = BUILT_IN.map(|(built_in, _)| format!("`{built_in}`")).join(", ");
        let message = format!("`{}` is no dialect; built in are {known}, or give the path of a file", name.value);
        complaints.push(&name.place, message);
        return None;
    }
    let text = file(sources, &name.value, &name.place, complaints)?;
    dialect::read(&sources.path(&name.value).display().to_string(), &text, overrides, complaints)
}

fn limits(mut table: Table, complaints: &mut Complaints) -> (Limits, usize) {
    table.declare("body", Shape::Bytes(1..=LARGEST_BODY));
    table.usual("body", size(USUAL_BODY));
    let body = table.bytes("body", complaints);
    if let Some(body) = &body
        && !(1..=LARGEST_BODY).contains(&body.value)
    {
        complaints.push(&body.place, "`limits.body` must be from 1 byte to 1MiB, since every body is held whole");
    }
    let bytes = |table: &mut Table, key: &str, usual: usize, most: usize, complaints: &mut Complaints| {
        table.declare(key, Shape::Bytes(256..=most as u64));
        table.usual(key, size(usual as u64));
        let Some(bytes) = table.bytes(key, complaints) else { return usual };
        match usize::try_from(bytes.value) {
            Ok(number) if (256..=most).contains(&number) => number,
            _ => {
                complaints.push(&bytes.place, format!("`limits.{key}` must be from 256 to {most} bytes"));
                usual
            }
        }
    };
    let head = HeadLimits {
        bytes: bytes(&mut table, "head", 32 << 10, 1 << 20, complaints),
        fields: usize::try_from(count(&mut table, "fields", 100, complaints)).unwrap_or(100),
        target: bytes(&mut table, "target", 8 << 10, 64 << 10, complaints),
    };
    let held = bytes(&mut table, "answer", 1 << 20, 64 << 20, complaints);
    let seconds = Duration::from_secs;
    let limits = Limits {
        head,
        body: body.map_or(USUAL_BODY, |body| body.value),
        handshake_timeout: duration(&mut table, "handshake_timeout", seconds(10), complaints),
        in_flight: bounded(&mut table, "in_flight", 1, 1024, complaints),
        connections: bounded(&mut table, "connections", 1, 10_000, complaints),
        connections_per_address: bounded(&mut table, "connections_per_address", 0, 0, complaints),
        requests_per_connection: bounded(&mut table, "requests_per_connection", 1, 10_000, complaints),
        connection_age: duration(&mut table, "connection_age", seconds(3600), complaints),
        streams: bounded(&mut table, "streams", 1, 100, complaints),
        head_timeout: duration(&mut table, "head_timeout", seconds(10), complaints),
        body_timeout: duration(&mut table, "body_timeout", seconds(30), complaints),
        idle_timeout: duration(&mut table, "idle_timeout", seconds(60), complaints),
        write_timeout: duration(&mut table, "write_timeout", seconds(30), complaints),
        rate_per_address: bounded(&mut table, "rate_per_address", 0, 0, complaints),
        rate_per_caller: bounded(&mut table, "rate_per_caller", 0, 0, complaints),
        lockout: lockout(table.section("lockout", complaints), complaints),
    };
    table.finish(complaints);
    (limits, held)
}

fn log_rules(mut table: Table, complaints: &mut Complaints) -> LogRules {
    table.usual("sample", "\"100%\"");
    let rules = LogRules {
        sample: table.percentage("sample", complaints).map_or(EVERY, |share| share.value),
        refusals_per_second: bounded(&mut table, "refusals_per_second", 1, 100, complaints),
    };
    table.finish(complaints);
    rules
}

fn lockout(mut table: Table, complaints: &mut Complaints) -> Option<LockoutRule> {
    let rule = LockoutRule {
        failures: bounded(&mut table, "failures", 0, 100, complaints),
        within: duration(&mut table, "within", Duration::from_secs(60), complaints),
        time: duration(&mut table, "for", Duration::from_secs(300), complaints),
    };
    table.finish(complaints);
    (rule.failures > 0).then_some(rule)
}

fn upstream_protocol(table: &mut Table, over_tls: bool, complaints: &mut Complaints) -> Protocol {
    let words = [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];
    table.usual("upstream_protocol", "\"http1\"");
    let Some(protocol) = table.choice("upstream_protocol", &words, complaints) else { return Protocol::Http1 };
    if protocol.value == Protocol::Auto && !over_tls {
        let message =
            "`upstream_protocol` can be agreed on under TLS only: add upstream_tls, or say \"http1\" or \"http2\"";
        complaints.push(&protocol.place, message);
    }
    protocol.value
}

fn upstream_limits(mut table: Table, held: usize, complaints: &mut Complaints) -> UpstreamLimits {
    let seconds = Duration::from_secs;
    // Below the ten seconds after which the Valkyrie client gives up: it should learn from us that the outcome is unknown.
    let total = duration(&mut table, "total", seconds(9), complaints);
    let limits = UpstreamLimits {
        connect: duration(&mut table, "connect", seconds(1), complaints),
        write: duration(&mut table, "write", seconds(5), complaints),
        read: duration(&mut table, "read", total, complaints),
        total,
        // Many servers close an idle connection after five seconds, and a request that crosses the closing is lost.
        idle: duration(&mut table, "idle", seconds(4), complaints),
        pooled: bounded(&mut table, "pooled", 0, 256, complaints) as usize,
        answer_head: 64 << 10,
        answer_fields: 128,
        held,
    };
    table.finish(complaints);
    limits
}

fn address(table: &mut Table, key: &str, example: &str, needed: bool, complaints: &mut Complaints) -> Option<String> {
    if needed {
        table.require(key, example, complaints);
    }
    let text = table.form(key, Form::Address, complaints)?;
    let host_and_port = || {
        let (host, port) = text.value.rsplit_once(':')?;
        let plain = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        (plain && port.parse::<u16>().is_ok()).then_some(())
    };
    if text.value.parse::<SocketAddr>().is_err() && host_and_port().is_none() {
        complaints.push(&text.place, format!("`{key}` must be HOST:PORT, as in {example}"));
        return None;
    }
    Some(text.value)
}

fn base_path(table: &mut Table, complaints: &mut Complaints) -> String {
    let Some(text) = table.form("base_path", Form::BasePath, complaints) else { return String::new() };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let path = text.value.as_str();
    let segments = path.split('/').skip(1);
    let good = path.starts_with('/')
        && path.bytes().all(plain)
        && !segments.into_iter().any(|s| s.is_empty() || s == "." || s == "..");
    if !good {
        complaints.push(
            &text.place,
            "`base_path` must be a plain path without a slash at its end, as in base_path = \"/pam\"",
        );
    }
    text.value
}

fn public_url(table: &mut Table, complaints: &mut Complaints) -> Option<String> {
    let text = table.form("url", Form::PublicUrl, complaints)?;
    let authority = text.value.strip_prefix("https://").or_else(|| text.value.strip_prefix("http://"));
    if authority.is_none_or(|authority| authority.is_empty() || authority.contains(['/', '?', '#', ' '])) {
        let message =
            "`signature.url` is the address callers were given, without a path: url = \"https://pam.example\"";
        complaints.push(&text.place, message);
    }
    Some(text.value)
}

/// A list of networks; `None` when the key is not there. Those that are none are left out and complained of.
fn networks(table: &mut Table, key: &str, complaints: &mut Complaints) -> Option<Vec<Network>> {
    let texts = table.strings(key, complaints)?;
    let read = |text: Spanned<String>| match Network::parse(&text.value) {
        Ok(network) => Some(network),
        Err(fault) => {
            complaints.push(&text.place, format!("`{}` is no network: {fault}", text.value));
            None
        }
    };
    Some(texts.into_iter().filter_map(read).collect())
}

/// What becomes of a trace that a caller has begun.
fn trust(table: &mut Table, complaints: &mut Complaints) -> Option<Trust> {
    let words = [("continue", Trust::Continue), ("link", Trust::Link)];
    table.choice("trace", &words, complaints).map(|trust| trust.value)
}

fn duration(table: &mut Table, key: &str, usual: Duration, complaints: &mut Complaints) -> Duration {
    table.usual(key, time(usual));
    table.duration(key, complaints).map_or(usual, |duration| duration.value)
}

fn count(table: &mut Table, key: &str, usual: u64, complaints: &mut Complaints) -> u64 {
    table.usual(key, usual.to_string());
    let number = table.integer(key, 1..=1_000_000_000, complaints);
    number.and_then(|number| u64::try_from(number.value).ok()).unwrap_or(usual)
}

/// A count of what each takes a descriptor or a task: a million is more than one machine has.
fn bounded(table: &mut Table, key: &str, least: i64, usual: u32, complaints: &mut Complaints) -> u32 {
    table.usual(key, usual.to_string());
    let number = table.integer(key, least..=1_000_000, complaints);
    number.and_then(|number| u32::try_from(number.value).ok()).unwrap_or(usual)
}

fn file(sources: &Sources<'_>, name: &str, place: &Place, complaints: &mut Complaints) -> Option<String> {
    let text = sources.file(name).and_then(|bytes| {
        let text = std::str::from_utf8(&bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))?;
        Ok(text.to_owned())
    });
    let complain = |fault| complaints.push(place, format!("cannot read {}: {fault}", sources.path(name).display()));
    text.map_err(complain).ok()
}

/// As it would be written.
fn time(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3600 == 0 => format!("\"{}h\"", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("\"{}m\"", seconds / 60),
        seconds => format!("\"{seconds}s\""),
    }
}

/// As it would be written.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes % (1 << 20) == 0 => format!("\"{}MiB\"", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("\"{}KiB\"", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

const USUAL_BODY: u64 = 64 << 10;

const LARGEST_BODY: u64 = 1 << 20;
