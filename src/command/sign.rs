//! `portcullis sign`: the header fields a caller sends, made with the secrets of a config.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;

use super::{ConfigFlags, USAGE};
use crate::config::Settings;
use crate::credential::Caller;
use crate::dialect::source::View;
use crate::json;
use crate::request::{Head, HeadLimits, Request};

/// What to sign, and as whom.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Sign {
    #[command(flatten)]
    config: ConfigFlags,
    /// The caller of the config to sign as; needed when it has several.
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Which of the caller's keys; the last, which is the newest, by default.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// The moment of signing, in seconds since 1970, instead of now.
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// The method; POST with a body and GET without, by default.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// The body: text, @FILE, or @- for standard input. Signed and shown byte for byte.
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// A further header field, where the message needs one; may be repeated.
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Path and query; by default the path of the dialect, when it has only one.
    target: Option<String>,
}

const EXAMPLES: &str = "Examples:
  portcullis sign --config config/wallet.toml --body '{\"token\":\"…\"}' /api/wallet/debit
  portcullis sign --config config/betstack.toml --at 1706191612 --body @call.json";

/// Prints the header fields, an empty line, and a `curl` line that sends them.
pub fn sign(arguments: Sign) -> ExitCode {
    let settings = match super::load(&arguments.config.clone().into()) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let text = match Signing::new(&arguments, &settings).and_then(|signing| signing.text()) {
        Ok(text) => text,
        Err(fault) => {
            super::complain_of(&fault);
            return ExitCode::from(USAGE);
        }
    };
    // Whoever stops reading has read enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Everything that is signed.
struct Signing<'a> {
    settings: &'a Settings,
    caller: usize,
    key: Option<&'a str>,
    at: SystemTime,
    fields: &'a [String],
    request: Request,
}

impl<'a> Signing<'a> {
    fn new(arguments: &'a Sign, settings: &'a Settings) -> Result<Signing<'a>, String> {
        let body = body(arguments.body.as_deref())?;
        let target = match &arguments.target {
            Some(target) => target.clone(),
            None => only_path(settings)?,
        };
        let method = arguments.method.as_deref().unwrap_or(if body.is_empty() { "GET" } else { "POST" });
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", settings.listen);
        for field in &arguments.header {
            if !field.contains(": ") {
                return Err(format!("--header must be NAME: VALUE, found `{field}`"));
            }
            head.push_str(field);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let head = Head::scan(Bytes::from(head), &LIMITS).map_err(|fault| {
            format!("`{method} {target}` would be refused for its {}", fault.as_str().replace('_', " "))
        })?;
        let at = arguments.at.map_or_else(SystemTime::now, |at| UNIX_EPOCH + Duration::from_secs(at));
        let caller = caller(settings, arguments.caller.as_deref())?;
        let request = Request { head, body };
        Ok(Signing { settings, caller, key: arguments.key.as_deref(), at, fields: &arguments.header, request })
    }

    fn text(&self) -> Result<String, String> {
        let mut fields: Vec<(String, String)> = Vec::new();
        if let Some(authorization) = self.settings.authorizations.get(self.caller).and_then(Option::as_ref) {
            let value = String::from_utf8_lossy(authorization.expose()).into_owned();
            fields.push(("Authorization".to_owned(), value));
        }
        fields.extend(self.signature()?);
        if !self.request.body.is_empty() {
            fields.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        Ok(format!("{lines}\n{}\n", self.curl(&fields)))
    }

    fn signature(&self) -> Result<Vec<(String, String)>, String> {
        let dialect = &self.settings.dialect;
        let Some(scheme) = &dialect.signature else { return Ok(Vec::new()) };
        let caller = self.settings.callers.at(self.caller).ok_or("no such caller")?;
        let key = key(caller, self.key)?;
        let found =
            match scheme.reads_json() {
                true => Some(json::read(&self.request.body, &dialect.wanted).map_err(|fault| {
                    format!("the body is not strict JSON ({fault}), and this dialect looks into it")
                })?),
                false => None,
            };
        let view = View { request: &self.request, found };
        let stamp = scheme.timestamp.as_ref().map(|rule| rule.stamp(self.at)).unwrap_or_default();
        let nonce = uuid::Uuid::from_bytes(rand::random()).simple().to_string();
        let fields = scheme.sign(&view, key, &stamp, &nonce);
        fields.ok_or_else(|| {
            "this dialect's signature does not stand in header fields, or a field it needs is missing".to_owned()
        })
    }

    fn curl(&self, fields: &[(String, String)]) -> String {
        let head = &self.request.head;
        let mut line = format!("curl -i -X {}", head.method.as_str());
        let given = self.fields.iter().cloned();
        for field in given.chain(fields.iter().map(|(name, value)| format!("{name}: {value}"))) {
            line.push_str(&format!(" -H {}", quoted(&field)));
        }
        if !self.request.body.is_empty() {
            // --data-raw: a body that starts with `@` is not a file.
            line.push_str(&format!(" --data-raw {}", quoted(&String::from_utf8_lossy(&self.request.body))));
        }
        let scheme = if self.settings.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", self.settings.listen, head.target.as_str());
        format!("{line} {}", quoted(&url))
    }
}

fn body(argument: Option<&str>) -> Result<Bytes, String> {
    let bytes = match argument {
        None => Vec::new(),
        Some("@-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map_err(|fault| format!("cannot read the body: {fault}"))?;
            bytes
        }
        Some(text) => match text.strip_prefix('@') {
            Some(path) => std::fs::read(path).map_err(|fault| format!("cannot read {path}: {fault}"))?,
            None => text.as_bytes().to_vec(),
        },
    };
    Ok(bytes.into())
}

fn only_path(settings: &Settings) -> Result<String, String> {
    let mut paths: Vec<&str> = settings.dialect.routes.iter().map(|route| &*route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    match paths[..] {
        [path] => Ok(path.to_owned()),
        _ => Err(format!("which call? Give its path, such as {}", paths.first().unwrap_or(&"/"))),
    }
}

fn caller(settings: &Settings, name: Option<&str>) -> Result<usize, String> {
    let names: Vec<&str> = settings.callers.iter().map(|caller| &*caller.name).collect();
    let known = names.join(", ");
    match (name, names.len()) {
        (None, 1) => Ok(0),
        (None, _) => Err(format!("sign as whom? Add --caller with one of: {known}")),
        (Some(name), _) => {
            let at = names.iter().position(|other| *other == name);
            at.ok_or_else(|| format!("there is no caller `{name}`; the config has: {known}"))
        }
    }
}

fn key<'a>(caller: &'a Caller, id: Option<&str>) -> Result<&'a crate::credential::signature::SigningKey, String> {
    let ids: Vec<&str> = caller.keys.iter().map(|key| &*key.id).collect();
    let key = match id {
        None => caller.keys.last(),
        Some(id) => caller.keys.iter().find(|key| *key.id == *id),
    };
    key.ok_or_else(|| format!("caller `{}` has no such key; it has: {}", caller.name, ids.join(", ")))
}

/// For a POSIX shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What is signed by hand is bounded by patience only.
const LIMITS: HeadLimits = HeadLimits { bytes: 1 << 20, fields: 256, target: 64 << 10 };
