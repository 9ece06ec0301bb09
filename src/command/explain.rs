//! `portcullis explain`: a captured request and a config, and what each check makes of it. It opens no socket.

mod print;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use uuid::Uuid;

use self::print::Page;
use super::{ConfigFlags, USAGE};
use crate::config::Settings;
use crate::credential::password::{PasswordQuestion, Passwords};
use crate::credential::replay::{ReplayKey, Replays, Ticket};
use crate::credential::{Caller, Callers};
use crate::denial::Denial;
use crate::explain::capture::{self, Captured};
use crate::explain::curl;
use crate::gate::walk::Given;
use crate::gate::{Ask, Gate, Trail};
use crate::log::Log;
use crate::mode::Modes;
use crate::origin::Origin;
use crate::request::{Head, Request, Whence};
use crate::revocation::journal::Journal;
use crate::revocation::{Revocations, Room, Rules};
use crate::secret::{DigestKey, SecretDigest};
use crate::tls::names::Names;
use crate::token::{Standing, TokenDigest};
use crate::trace::{CorrelationId, Fresh};

/// What to explain.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Explain {
    #[command(flatten)]
    config: ConfigFlags,
    /// When the request was made, as RFC 3339 or in seconds since 1970; by default when it was signed, or else now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Where the connection came from, for callers that may call from some networks only.
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<IpAddr>,
    /// A file with a curl line, whatever it begins with, instead of REQUEST.
    #[arg(long, value_name = "FILE", conflicts_with = "request", required_unless_present = "request")]
    curl: Option<PathBuf>,
    /// A file with a captured request: the request line, the fields, an empty line and the body, or a curl line; - is
    /// standard input.
    request: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  portcullis explain --config config/wallet.toml refused.http
  portcullis explain --config config/betstack.toml --at 2024-01-25T14:06:52Z refused.http
  pbpaste | portcullis explain --config config/wallet.toml -        # a curl line";

/// Prints what each check found, and the verdict: 0 when the request would be admitted, 1 when it would be refused.
pub fn explain(arguments: Explain) -> ExitCode {
    let settings = match super::load(&arguments.config.clone().into()) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let told = match (captured(&arguments), moment(arguments.at.as_deref()), runtime) {
        (Ok(captured), Ok(at), Ok(runtime)) => {
            let mut page = Page::new(super::demo::look().coloured);
            runtime
                .block_on(Explaining { settings, at, peer: arguments.peer }.tell(captured, &mut page))
                .map(|admitted| (page.into_text(), admitted))
        }
        (Err(fault), ..) | (_, Err(fault), _) => Err(fault),
        (_, _, Err(fault)) => Err(format!("cannot start: {fault}")),
    };
    match told {
        Ok((text, admitted)) => {
            // Whoever stops reading has read enough.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            if admitted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(fault) => {
            super::complain_of(&fault);
            ExitCode::from(USAGE)
        }
    }
}

fn captured(arguments: &Explain) -> Result<Captured, String> {
    let path = arguments.curl.as_ref().or(arguments.request.as_ref()).ok_or("explain what? Give a file, or -")?;
    let text = if path.as_os_str() == "-" {
        let mut text = Vec::new();
        let read = std::io::stdin().lock().take(MOST_READ).read_to_end(&mut text);
        read.map_err(|fault| format!("cannot read the request from standard input: {fault}"))?;
        text
    } else {
        file(path)?
    };
    let start = text.trim_ascii_start();
    if arguments.curl.is_none() && !(start.starts_with(b"curl ") || start.starts_with(b"curl\t")) {
        return capture::read(&text);
    }
    let line = str::from_utf8(&text).map_err(|_| "the curl line is not UTF-8")?;
    curl::read(line, &|name| match name {
        "-" => Err("the curl line reads its body from standard input; write the body into a file".to_owned()),
        name => file(&PathBuf::from(name)),
    })
}

fn file(path: &PathBuf) -> Result<Vec<u8>, String> {
    let fault = |fault: std::io::Error| format!("cannot read {}: {fault}", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(fault)?.take(MOST_READ).read_to_end(&mut bytes).map_err(fault)?;
    Ok(bytes)
}

fn moment(text: Option<&str>) -> Result<Option<SystemTime>, String> {
    let Some(text) = text else { return Ok(None) };
    let seconds = text.parse::<u64>().ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let moment = seconds.or_else(|| humantime::parse_rfc3339(text).ok());
    let expected = || format!("--at must be a time such as 2024-01-25T14:06:52Z or 1706191612, found `{text}`");
    moment.map(Some).ok_or_else(expected)
}

struct Explaining {
    settings: Settings,
    at: Option<SystemTime>,
    peer: Option<IpAddr>,
}

impl Explaining {
    async fn tell(self, captured: Captured, page: &mut Page) -> Result<bool, String> {
        let Explaining { settings, at, peer } = self;
        let limits = settings.limits;
        for note in &captured.notes {
            page.note(note);
        }
        let head = match Head::scan(captured.head, &limits.head) {
            Ok(head) => head,
            Err(fault) => {
                let denial = Denial::Head(fault);
                page.head_fault(denial);
                return Ok(verdict(page, &settings.dialect, Err(denial)));
            }
        };
        let request = Request { head, body: captured.body };
        let names = Names::default();
        let origin = peer.map(|peer| settings.trusted_proxies.origin(peer, &request.head.fields)).transpose();
        let Ok(origin) = origin else {
            page.head_fault(Denial::ForwardedMalformed);
            return Ok(verdict(page, &settings.dialect, Err(Denial::ForwardedMalformed)));
        };
        let (gate, original, signing_secrets, rules, knows_digest) = taken_apart(settings, peer.is_some());
        let now = SystemTime::now();
        let signed = gate.signed_at(&request);
        let judged = at.or(signed).unwrap_or(now);
        if let Some(when) = when(judged, at.is_some(), signed.is_some(), now, &gate) {
            page.moment(&when);
        }

        let whence = origin.map(|origin| Whence { origin, names: &names });
        let given = Given { callers: &original, signing_secrets: &signing_secrets, whence, at: judged, knows_digest };
        let ask = Offline::new(&rules, &gate).await?;
        for step in gate.walk(&request, &given, &ask).await {
            page.step(&step);
        }
        if limits.rate_per_caller > 0 || limits.rate_per_address > 0 {
            page.note("rates are counted where Portcullis runs; they are not looked at here");
        }
        let nowhere = Whence { origin: Origin::of(IpAddr::V4(Ipv4Addr::LOCALHOST)), names: &names };
        let admitted = match gate.enter(&request.head) {
            Ok(_) if u64::try_from(request.body.len()).is_ok_and(|length| length > limits.body) => {
                Err(Denial::BodyTooLarge)
            }
            Ok(entry) => {
                let mut trail = Trail::default();
                let admitted =
                    gate.admit(Some(entry), &request, whence.unwrap_or(nowhere), judged, &mut trail, &ask).await;
                admitted.map(|permit| permit.route.map_or_else(String::new, |route| route.name.to_string()))
            }
            Err(denial) => Err(denial),
        };
        Ok(verdict(page, &gate.dialect, admitted))
    }
}

/// The gate without what no capture can tell, and the callers with it.
fn taken_apart(settings: Settings, knows_peer: bool) -> (Gate, Callers, Vec<Vec<crate::secret::Secret>>, Rules, bool) {
    let all: Vec<Caller> = settings.callers.iter().cloned().collect();
    let bare = |caller: &Caller| Caller {
        certificate: None,
        from: caller.from.clone().filter(|_| knows_peer),
        ..caller.clone()
    };
    let gate_callers = Callers::new(all.iter().map(bare).collect(), settings.digest_key.clone());
    // In a shared store lies another key, and nobody is asked here.
    let journal = settings.revocation.journal.as_ref().filter(|_| settings.revocation.sharing.is_none());
    let known = journal.and_then(|folder| Journal::known_key(folder));
    let rules = Rules { journal: None, sharing: None, ..settings.revocation.clone() };
    let gate = Gate {
        dialect: settings.dialect,
        callers: gate_callers,
        token_key: known.clone().unwrap_or_else(|| settings.digest_key.clone()),
        learns: false,
        largest_body: settings.limits.body,
        // What would be refused is asked for here, whether or not it is.
        modes: Modes::default(),
    };
    (gate, Callers::new(all, settings.digest_key), settings.signing_secrets, rules, known.is_some())
}

/// As of when it is judged; `None` where no check depends on it.
fn when(judged: SystemTime, given: bool, signed: bool, now: SystemTime, gate: &Gate) -> Option<String> {
    let shown = humantime::format_rfc3339_seconds(judged);
    let rule = gate.dialect.signature.as_ref().and_then(|scheme| scheme.timestamp.as_ref())?;
    if given {
        return Some(format!("judged as of {shown}, as --at says"));
    }
    if !signed {
        return Some(format!("judged as of now, {shown}"));
    }
    // The largest two units say enough.
    let short = |time: Duration| {
        let all = humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
        all.split(' ').take(2).collect::<Vec<_>>().join(" ")
    };
    let against = match now.duration_since(judged) {
        Ok(age) if age > rule.tolerance => format!("stale by {}", short(age.saturating_sub(rule.tolerance))),
        Err(ahead) if ahead.duration() > rule.tolerance => {
            format!("early by {}", short(ahead.duration().saturating_sub(rule.tolerance)))
        }
        Ok(_) | Err(_) => "fresh".to_owned(),
    };
    Some(format!("judged as of {shown}, when it says it was signed; against the clock now it would be {against}"))
}

/// What the caller would be told; true when it would be let through.
fn verdict(page: &mut Page, dialect: &crate::dialect::Dialect, admitted: Result<String, Denial>) -> bool {
    match admitted {
        Ok(route) => {
            page.admitted(&route);
            true
        }
        Err(denial) => {
            let fresh = Fresh { trace_id: [0; 16], parent_id: [0; 8], uuid: Uuid::nil() };
            let correlation = CorrelationId::adopt_or_mint(std::iter::empty(), &fresh);
            let (status, body) = dialect.replies.render(denial.disclosure(), Uuid::nil(), &correlation);
            // Each request has another.
            let body = String::from_utf8_lossy(&body).replace(&Uuid::nil().to_string(), "…");
            page.refused(denial, status, &body);
            false
        }
    }
}

/// The questions of the gate, as far as they can be answered without the one that runs.
struct Offline {
    passwords: Passwords,
    replays: Replays,
    revocations: Revocations,
}

impl Offline {
    async fn new(rules: &Rules, gate: &Gate) -> Result<Offline, String> {
        let callers: Vec<Box<str>> = gate.callers.iter().map(|caller| caller.name.clone()).collect();
        let (log, _writer) = Log::start(std::io::sink()).map_err(|fault| format!("cannot start: {fault}"))?;
        let (revocations, _) = Revocations::open(rules, DigestKey::new([0; 32]), log).await?;
        let replays = Replays::new(1, &callers, Duration::ZERO);
        Ok(Offline { passwords: Passwords::new(1), replays, revocations })
    }
}

impl Ask for Offline {
    async fn password(&self, question: PasswordQuestion, _: SecretDigest) -> Result<Option<usize>, Denial> {
        self.passwords.verify(question, false).await
    }

    async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.replays.first(key, time).await
    }

    fn first_here(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.replays.first_now(&key, time)
    }

    fn standing_here(&self, _: TokenDigest, _: &[u8]) -> Standing {
        Standing::Alive
    }

    async fn standing(&self, _: TokenDigest, _: &[u8]) -> Result<Standing, Denial> {
        Ok(Standing::Alive)
    }

    fn presumed(&self, _: TokenDigest) -> bool {
        false
    }

    fn rate(&self, _: &str) -> Result<(), Denial> {
        Ok(())
    }

    fn counts_failures(&self, _: bool) -> bool {
        false
    }

    fn room(&self) -> Result<Room, Denial> {
        self.revocations.room()
    }
}

/// More than any request that could be admitted.
const MOST_READ: u64 = 16 << 20;
