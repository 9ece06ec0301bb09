//! `portcullis revoke`, `unrevoke`, `status` and `readiness`: an operator's calls to a Portcullis that runs.

use std::io::{IsTerminal, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Map, Value};

use super::call::Call;
use super::{CONFIG, ConfigFlags, USAGE};
use crate::admin::order::{Call as Asked, Order};
use crate::config::{Flags, Settings};

/// What to end, and why.
#[derive(Args)]
#[command(after_help = REVOKE)]
pub struct Revoke {
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    which: Ending,
    #[command(flatten)]
    why: Why,
    /// Prints JSON on a terminal as well.
    #[arg(long)]
    json: bool,
}

/// What to take back, and why.
#[derive(Args)]
#[command(after_help = UNREVOKE)]
pub struct Unrevoke {
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    which: Named,
    #[command(flatten)]
    why: Why,
    /// Prints JSON on a terminal as well.
    #[arg(long)]
    json: bool,
}

/// What to look up.
#[derive(Args)]
#[command(after_help = STATUS)]
pub struct Status {
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    which: Asking,
    /// Prints JSON on a terminal as well.
    #[arg(long)]
    json: bool,
}

/// Nothing but where to ask.
#[derive(Args)]
#[command(after_help = READINESS)]
pub struct Readiness {
    #[command(flatten)]
    config: ConfigFlags,
    /// Prints JSON on a terminal as well.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Ending {
    /// The token; `-` reads one line from standard input, which keeps it out of the shell's history and of `ps`.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The token's digest, as the log shows it: 32 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
    /// Every token that the running portcullis first saw before a moment in UTC, such as 2026-11-21T14:00:00Z.
    #[arg(long, value_name = "TIME")]
    seen_before: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Named {
    /// The token; `-` reads one line from standard input, which keeps it out of the shell's history and of `ps`.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The token's digest, as the log shows it: 32 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
}

#[derive(Args)]
#[group(multiple = false)]
struct Asking {
    /// What is known of this token instead; `-` reads one line from standard input, which keeps it out of the shell's
    /// history and of `ps`.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// What is known of the token with this digest instead.
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
}

#[derive(Args)]
struct Why {
    /// Why, for those who read the log later; at most 200 characters.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who does it; the environment's USER by default.
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

const REVOKE: &str = "Examples:
  portcullis revoke --config config/wallet.toml --token - --reason 'stolen device' < token.txt
  portcullis revoke --config config/wallet.toml --digest 6c1d1f6e5a0b47c2a9d3f0e18b7c4d25 --reason 'chargeback' --actor risk
  portcullis revoke --config config/wallet.toml --seen-before 2026-11-21T14:00:00Z --reason 'tokens were leaked'";

const UNREVOKE: &str = "Example:
  portcullis unrevoke --config config/wallet.toml --token - --reason 'ended by mistake' < token.txt";

const READINESS: &str =
    "Exits with 0 when it is safe to enforce what is not, and with 1 when something should be fixed first.

Example:
  portcullis readiness --config config/wallet.toml";

const STATUS: &str = "Examples:
  portcullis status --config config/wallet.toml
  portcullis status --config config/wallet.toml --token - < token.txt";

/// Ends a token, or all that were seen before a moment.
pub fn revoke(arguments: Revoke) -> ExitCode {
    let Revoke { config, which: Ending { token, digest, seen_before }, why, json } = arguments;
    let subject = [("token", token), ("digest", digest), ("seen_before", seen_before)];
    finish(ask(Asked::Revoke, subject, Some(why), &config.into()), json, |answer| {
        let Some(ended) = answer["ended"].as_u64() else { return shown(answer) };
        let plural = if ended == 1 { "token has" } else { "tokens have" };
        match (answer["digest"].as_str(), ended) {
            (Some(digest), 0) => format!("{digest} had ended before, and is remembered for longer now\n"),
            (Some(digest), _) => format!("{digest} has ended\n"),
            (None, _) if answer["complete"] == Value::Bool(true) => {
                format!("{ended} {plural} ended; seen since {}\n", text(&answer["seen_since"]))
            }
            (None, _) => format!(
                "{ended} {plural} ended; seen since {}. There was no room to remember {} further sightings, so some \
                 tokens may live on\n",
                text(&answer["seen_since"]),
                text(&answer["unremembered"])
            ),
        }
    })
}

/// Takes back that a token ended.
pub fn unrevoke(arguments: Unrevoke) -> ExitCode {
    let Unrevoke { config, which: Named { token, digest }, why, json } = arguments;
    let subject = [("token", token), ("digest", digest)];
    finish(ask(Asked::Unrevoke, subject, Some(why), &config.into()), json, |answer| {
        let digest = text(&answer["digest"]);
        match answer["pardoned"].as_bool() {
            Some(true) => format!("{digest} passes again, until something ends it anew\n"),
            Some(false) => format!("nothing was recorded of {digest}; it passes\n"),
            None => shown(answer),
        }
    })
}

/// Shows how a Portcullis does, or what it knows of a token.
pub fn status(arguments: Status) -> ExitCode {
    let Status { config, which: Asking { token, digest }, json } = arguments;
    let answer = match (&token, &digest) {
        (None, None) => look(&config.into()),
        (Some(_), _) | (_, Some(_)) => {
            ask(Asked::Standing, [("token", token), ("digest", digest)], None, &config.into())
        }
    };
    finish(answer, json, |answer| shown(&without_readiness(answer)))
}

/// Asks whether it is safe to enforce what is not. Done means that it is.
pub fn readiness(arguments: Readiness) -> ExitCode {
    let answer = look(&arguments.config.into()).map(|mut status| status["readiness"].take());
    let safe = answer.as_ref().is_ok_and(|answer| answer["safe"] == true);
    match finish(answer, arguments.json, judged) {
        ExitCode::SUCCESS if !safe => ExitCode::FAILURE,
        code => code,
    }
}

/// It has a command of its own.
fn without_readiness(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(members) = status.as_object_mut() {
        members.remove("readiness");
    }
    status
}

/// The verdict, and a line for each check that somebody fails.
fn judged(readiness: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let mut out = format!("{}\nseen since {}\n", word(&readiness["verdict"]), word(&readiness["since"]));
    let mut rows = vec![["caller", "check", "mode", "requests", "fail", "most for", "last"].map(str::to_owned)];
    for (caller, about) in readiness["callers"].as_object().into_iter().flatten() {
        let requests = about["requests"].to_string();
        let failing = about["checks"].as_object().into_iter().flatten().filter(|(_, check)| check["fail"] != 0);
        let before = rows.len();
        for (check, found) in failing {
            let reasons = found["reasons"].as_object().into_iter().flatten();
            let most = reasons.max_by_key(|(_, count)| count.as_u64()).map_or("–", |(reason, _)| reason);
            let row = [
                caller,
                check,
                &word(&found["mode"]),
                &requests,
                &found["fail"].to_string(),
                most,
                &word(&found["last"]),
            ];
            rows.push(row.map(str::to_owned));
        }
        if rows.len() == before {
            rows.push([caller, "all", "", &requests, "0", "", ""].map(str::to_owned));
        }
    }
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

/// What went wrong.
enum Fault {
    Usage(String),
    /// The complaints were printed.
    Complaints(ExitCode),
    Config(String),
    Failed(String),
}

fn ask<const N: usize>(
    asked: Asked,
    subject: [(&str, Option<String>); N],
    why: Option<Why>,
    flags: &Flags,
) -> Result<Value, Fault> {
    let mut members = Map::new();
    for (name, value) in subject {
        let value = match (name, value) {
            (_, None) => continue,
            ("token", Some(dash)) if dash == "-" => first_line()?,
            (_, Some(value)) => value,
        };
        members.insert(name.to_owned(), value.into());
    }
    if let Some(why) = why {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        let actor = why.actor.or_else(user).ok_or_else(|| Fault::Usage("who does it? Add --actor NAME".to_owned()))?;
        members.insert("reason".to_owned(), why.reason.into());
        members.insert("actor".to_owned(), actor.into());
    }
    let body = Value::Object(members).to_string();
    // Read here as it will be there: what is wrong with it is said before anyone is called.
    Order::read(asked, body.as_bytes(), SystemTime::now()).map_err(Fault::Usage)?;
    let settings = super::load(flags).map_err(Fault::Complaints)?;
    let authorization = settings.admin_authorization.as_ref().ok_or_else(|| {
        missing(flags, "admin_token", "admin_token = { env = \"ADMIN_TOKEN\" }, and the same where portcullis runs")
    })?;
    let authorization = String::from_utf8_lossy(authorization.expose());
    send(Call::post(asked.path(), &body).with("Authorization", &authorization), flags, &settings)
}

fn look(flags: &Flags) -> Result<Value, Fault> {
    let settings = super::load(flags).map_err(Fault::Complaints)?;
    send(Call::new("GET", "/status"), flags, &settings)
}

fn send(call: Call, flags: &Flags, settings: &Settings) -> Result<Value, Fault> {
    let admin = settings.admin.as_deref();
    let admin = admin.ok_or_else(|| missing(flags, "admin", "admin = \"127.0.0.1:9901\", where portcullis listens"))?;
    let addresses =
        reachable(admin).map_err(|fault| Fault::Failed(format!("cannot find {admin} (`admin`): {fault}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| Fault::Failed(format!("cannot start: {fault}")))?;
    let reply = runtime.block_on(call.send(&addresses, PATIENCE)).map_err(Fault::Failed)?;
    let answer: Option<Value> = serde_json::from_str(&reply.body).ok();
    match (reply.status, answer) {
        (200, Some(answer)) => Ok(answer),
        (404, _) => {
            Err(Fault::Failed(format!("{admin} knows no {}; is `admin_token` set where it runs?", call.target)))
        }
        (status, answer) => {
            let said = answer.as_ref().and_then(|answer| answer["error"].as_str()).unwrap_or(reply.body.trim());
            Err(Fault::Failed(format!("{admin} answered with {status}: {said}")))
        }
    }
}

/// Where to reach what listens at an address: what listens everywhere is reached here.
pub(super) fn reachable(address: &str) -> std::io::Result<Vec<SocketAddr>> {
    let reached = |mut address: SocketAddr| {
        if address.ip().is_unspecified() {
            let here = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            address.set_ip(here);
        }
        address
    };
    Ok(address.to_socket_addrs()?.map(reached).collect())
}

fn first_line() -> Result<String, Fault> {
    let mut line = String::new();
    // Longer than any token.
    let read = std::io::BufRead::read_line(&mut std::io::stdin().lock().take(64 << 10), &mut line);
    read.map_err(|fault| Fault::Usage(format!("cannot read the token from standard input: {fault}")))?;
    let token = line.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(Fault::Usage("standard input has no token in its first line".to_owned()));
    }
    Ok(token.to_owned())
}

fn missing(flags: &Flags, key: &str, example: &str) -> Fault {
    Fault::Config(format!("{}: `{key}` is missing; add for example {example}", flags.config.display()))
}

/// Prints a sentence for people and JSON for everybody else.
fn finish(answer: Result<Value, Fault>, json: bool, sentence: impl Fn(&Value) -> String) -> ExitCode {
    let (code, fault) = match answer {
        Ok(answer) => {
            let mut out = std::io::stdout();
            let text = if json || !out.is_terminal() { format!("{answer}\n") } else { sentence(&answer) };
            // Whoever stops reading has read enough.
            let _ = out.write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Fault::Complaints(code)) => return code,
        Err(Fault::Usage(fault)) => (ExitCode::from(USAGE), fault),
        Err(Fault::Config(fault)) => (ExitCode::from(CONFIG), fault),
        Err(Fault::Failed(fault)) => (ExitCode::FAILURE, fault),
    };
    super::complain_of(&fault);
    code
}

/// An object for people: one line each, aligned; `_s` at the end of a name is its unit.
fn shown(object: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", object, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
                flatten(&path, value, lines);
            }
        }
        value => match path.strip_suffix("_s") {
            Some(name) if value.is_number() => lines.push((name.replace('_', " "), format!("{value} s"))),
            Some(_) | None => lines.push((path.replace('_', " "), text(value))),
        },
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// A million tokens that end at once take a while to be on disk.
const PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_here() {
        for (address, reached) in [
            ("0.0.0.0:9901", "127.0.0.1:9901"),
            ("[::]:9901", "[::1]:9901"),
            ("127.0.0.2:9901", "127.0.0.2:9901"),
            ("[2001:db8::1]:9901", "[2001:db8::1]:9901"),
        ] {
            assert_eq!(reachable(address).unwrap(), [reached.parse().unwrap()], "{address}");
        }
    }

    #[test]
    fn people_see_aligned_lines() {
        let status = json!({
            "callers": ["a", "b"],
            "replays": { "remembered": 3 },
            "revocations": { "journal_failing": false, "sharing": null },
            "ends_in_s": 1.5,
        });
        let lines = [
            "callers                      a, b\n",
            "ends in                      1.5 s\n",
            "replays remembered           3\n",
            "revocations journal failing  no\n",
            "revocations sharing          –\n",
        ];
        assert_eq!(shown(&status), lines.concat());
    }
}
