//! A dialect file, read whole: every complaint at once, each with its line and column.

use std::collections::BTreeMap;
use std::time::Duration;

use super::answer::Ending;
use super::condition::Conditions;
use super::reply::{NAMES, Replies, Wording};
use super::route::{Route, Routes, Settlement};
use super::source::Source;
use super::{Dialect, Token};
use crate::config::paper::{self, Complaints, Node, Spanned, Table, Value};
use crate::config::shape::{Asked, Form, Shape};
use crate::credential::authorization::AuthScheme;
use crate::credential::freshness::{TimestampRule, Unit};
use crate::credential::signature::encoding::Encoding;
use crate::credential::signature::format::Format;
use crate::credential::signature::message::Message;
use crate::credential::signature::{Algorithm, KeyForm, Scheme};
use crate::json::{Pointer, Pointers};
use crate::request::Method;
use crate::token::TokenRule;

/// What an operator's config says differently from the dialect.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Stands in front of every path: `/pam`.
    pub base_path: String,
    /// Fewest and most characters of a token.
    pub token_length: Option<(usize, usize)>,
    /// Whether settlement passes with a dead token.
    pub settlement: Option<Settlement>,
    /// How far a timestamp may be from now.
    pub tolerance: Option<Duration>,
    /// The URL callers were given, without a target.
    pub public_url: Option<String>,
}

/// Reads a dialect. `None` when there were complaints that leave nothing to go on; others are in `complaints` as well.
pub fn read(name: &str, text: &str, overrides: &Overrides, complaints: &mut Complaints) -> Option<Dialect> {
    let before = complaints.len();
    let mut table = paper::parse(name, text, complaints);
    let dialect = whole(&mut table, overrides, complaints);
    table.finish(complaints);
    dialect.filter(|_| complaints.len() == before)
}

/// Every key a dialect can have, dotted, as the code that reads them knows them.
pub fn keys() -> BTreeMap<String, Asked> {
    let mut complaints = Complaints::default();
    // What is read only where it is there, is there.
    let mut text = "signature = { timestamp = {}, key = {} }\ntoken = { dead = [{ json = {} }] }\n\
        [[route]]\nwhen = {}\nsettles = {}\nretires = { json = {} }\n[reply]\n"
        .to_owned();
    NAMES.iter().for_each(|name| text.push_str(&format!("{name} = {{}}\n")));
    let mut table = paper::parse("", &text, &mut complaints);
    let _ = whole(&mut table, &Overrides::default(), &mut complaints);
    table.asked()
}

fn whole(table: &mut Table, overrides: &Overrides, complaints: &mut Complaints) -> Option<Dialect> {
    let mut wanted = Pointers::default();
    let name = needed(table, "name", "name = \"wallet\"", complaints);
    let credential = credential(table, complaints);
    let signature =
        table.table("signature", complaints).and_then(|table| signature(table, overrides, &mut wanted, complaints));
    let token = table.table("token", complaints).map(|table| token(table, overrides, &mut wanted, complaints));
    let (token, settlement) = token.unwrap_or_default();
    table.declare("correlation", Shape::Form(Form::Place).or_many());
    let correlation = table.strings("correlation", complaints).unwrap_or_default();
    let correlation =
        correlation.iter().filter_map(|at| parsed(at, |text| Source::parse(text, &mut wanted), complaints));
    let correlation: Vec<Source> = correlation.collect();
    let defaults = Defaults { signature: signature.as_ref(), token: token.as_ref(), settlement };
    let mut routes = Routes::default();
    table.need("route");
    let tables = table.tables("route", complaints);
    if tables.is_empty() {
        complaints.push(table.place(), "there is no [[route]], so every request would be refused".to_owned());
    }
    for table in tables {
        let place = table.place().clone();
        if let Some(route) = route(table, &defaults, overrides, &mut wanted, complaints)
            && let Err(fault) = routes.add(route)
        {
            complaints.push(&place, format!("this route {fault}"));
        }
    }
    let replies = match table.table("reply", complaints) {
        Some(table) => replies(table, complaints),
        None => None,
    };
    table.require("reply", "a table [reply] with body = '…' and a wording for each refusal", complaints);
    if let Some(credential) = &credential
        && credential.is_empty()
        && !table.contains("signature")
    {
        let message = "neither a credential nor a [signature]: anyone could call";
        complaints.push(table.place(), message);
    }
    let credential = credential?;
    let guarded = guarded(&credential, signature.as_ref(), token.as_ref());
    let name = name?.value.into();
    Some(Dialect { name, credential, signature, token, correlation, routes, replies: replies?, wanted, guarded })
}

fn credential(table: &mut Table, complaints: &mut Complaints) -> Option<Vec<AuthScheme>> {
    let example = "credential = \"basic\" (or \"bearer\", [\"bearer\", \"basic\"], \"none\")";
    table.require("credential", example, complaints);
    let shape = ["basic", "bearer", "none"].map(str::to_owned).to_vec();
    table.declare("credential", Shape::Word(shape).or_many());
    let words = table.strings("credential", complaints)?;
    let mut schemes = Vec::new();
    for word in &words {
        match word.value.as_str() {
            "basic" => schemes.push(AuthScheme::Basic),
            "bearer" => schemes.push(AuthScheme::Bearer),
            "none" if words.len() == 1 => {}
            other => complaints.push(&word.place, format!("`{other}` is no credential; write {example}")),
        }
    }
    Some(schemes)
}

fn signature(
    mut table: Table,
    overrides: &Overrides,
    wanted: &mut Pointers,
    complaints: &mut Complaints,
) -> Option<Scheme> {
    let message = needed(&mut table, "message", "message = \"{body}\"", complaints);
    let message = message.and_then(|text| parsed(&text, |text| Message::parse(text, wanted), complaints));
    table.require("algorithm", "algorithm = \"hmac-sha256\"", complaints);
    let algorithm = table.choice("algorithm", &Algorithm::WORDS, complaints).map(|word| word.value);
    table.require("encoding", "encoding = \"hex\"", complaints);
    let encoding = table.choice("encoding", &Encoding::WORDS, complaints).map(|word| word.value);
    let at = needed_form(&mut table, "at", Form::Place, "at = \"header:X-Signature\"", complaints);
    let at = at.and_then(|text| parsed(&text, |text| Source::parse(text, wanted), complaints));
    let separator = table.string("separator", complaints);
    let format = match table.string("format", complaints) {
        None => Some(Format::bare()),
        Some(text) => {
            parsed(&text, |text| Format::parse(text, separator.as_ref().map(|s| s.value.as_str())), complaints)
        }
    };
    let place = table.place().clone();
    let timestamp = match table.table("timestamp", complaints) {
        None => None,
        Some(table) => timestamp(table, overrides, wanted, complaints),
    };
    let nonce = source(&mut table, "nonce", wanted, complaints);
    let key_id = source(&mut table, "key_id", wanted, complaints);
    let key_form = table.table("key", complaints).map(|table| key_form(table, complaints)).unwrap_or_default();
    table.usual("once", "false");
    let once = table.boolean("once", complaints).is_some_and(|once| once.value);
    table.finish(complaints);

    let (message, format) = (message?, format?);
    let packed = format.has_timestamp();
    let has_rule = timestamp.is_some();
    let rule_is_packed = timestamp.as_ref().is_some_and(|rule| rule.at.is_none());
    let mut demand = |broken: bool, text: &str| {
        if broken {
            complaints.push(&place, text.to_owned());
        }
    };
    demand(message.has_timestamp() && !has_rule, "the message has {timestamp}; add timestamp = { at = \"header:…\" }");
    demand(has_rule && !message.has_timestamp(), "the timestamp is not part of the message, so anyone could change it");
    demand(packed && !rule_is_packed, "the format packs the timestamp; write timestamp = { at = \"signature\" }");
    demand(rule_is_packed && !packed, "timestamp.at is \"signature\", and the format has no {timestamp}");
    demand(nonce.is_some() && !message.has_nonce(), "the nonce is not part of the message, so anyone could change it");
    demand(message.has_nonce() && nonce.is_none(), "the message has {nonce}; add nonce = \"header:…\"");
    demand(
        message.has_url() && overrides.public_url.is_none(),
        "the message has {url}, the address callers were given; say it in the config: [signature] url = \"https://…\"",
    );
    Some(Scheme {
        message,
        algorithm: algorithm?,
        encoding: encoding?,
        at: at?,
        format,
        timestamp,
        nonce,
        key_id,
        key_form,
        once,
        public_url: overrides.public_url.clone().unwrap_or_default().into(),
    })
}

fn timestamp(
    mut table: Table,
    overrides: &Overrides,
    wanted: &mut Pointers,
    complaints: &mut Complaints,
) -> Option<TimestampRule> {
    let at = needed_form(&mut table, "at", Form::PlaceOrSignature, "at = \"header:timestamp\"", complaints);
    let at = match at {
        Some(at) if at.value == "signature" => Some(None),
        Some(at) => parsed(&at, |text| Source::parse(text, wanted), complaints).map(Some),
        None => None,
    };
    let units = [("seconds", Unit::Seconds), ("milliseconds", Unit::Milliseconds)];
    table.usual("unit", "\"seconds\"");
    let unit = table.choice("unit", &units, complaints).map_or(Unit::Seconds, |word| word.value);
    table.usual("tolerance", "\"5m\"");
    let tolerance = table.duration("tolerance", complaints).map(|tolerance| tolerance.value);
    table.finish(complaints);
    let tolerance = overrides.tolerance.or(tolerance).unwrap_or(USUAL_TOLERANCE);
    Some(TimestampRule { at: at?, unit, tolerance, before: None })
}

fn key_form(mut table: Table, complaints: &mut Complaints) -> KeyForm {
    let prefix = table.string("prefix", complaints).map(|prefix| prefix.value).unwrap_or_default();
    let encoding = table.choice("encoding", &Encoding::WORDS, complaints).map(|word| word.value);
    table.finish(complaints);
    KeyForm { prefix: prefix.into(), encoding }
}

/// The token, and whether settlement passes with one that has ended.
fn token(
    mut table: Table,
    overrides: &Overrides,
    wanted: &mut Pointers,
    complaints: &mut Complaints,
) -> (Option<Token>, Settlement) {
    let at = needed_form(&mut table, "at", Form::Place, "at = \"json:/token\"", complaints);
    let at = at.and_then(|text| parsed(&text, |text| Source::parse(text, wanted), complaints));
    table.usual("length", "[1, 128]");
    let length = token_length(&mut table, complaints).unwrap_or(USUAL_TOKEN);
    table.usual("settlement", "\"strict\"");
    let settlement = settlement(&mut table, complaints);
    let dead = table.tables("dead", complaints).into_iter().filter_map(|table| ending(table, complaints)).collect();
    let dead_per = dead_per(&mut table, at.as_ref(), wanted, complaints);
    table.finish(complaints);
    let (shortest, longest) = overrides.token_length.unwrap_or(length);
    let token = at.map(|at| Token { at, rule: TokenRule { shortest, longest }, dead, dead_per });
    (token, overrides.settlement.or(settlement).unwrap_or_default())
}

/// `dead_per = "query:provider"` beside `dead`.
fn dead_per(
    table: &mut Table,
    token: Option<&Source>,
    wanted: &mut Pointers,
    complaints: &mut Complaints,
) -> Vec<Source> {
    table.declare("dead_per", Shape::Form(Form::Place).or_many());
    let texts = table.strings("dead_per", complaints).unwrap_or_default();
    let mut sources = Vec::new();
    for text in texts {
        let Some(source) = parsed(&text, |text| Source::parse(text, wanted), complaints) else { continue };
        if source.is_json() && token.is_some_and(|token| !token.is_json()) {
            let message = "only a token in the body has its body read on every route; write header:NAME or query:NAME";
            complaints.push(&text.place, message);
        }
        if !table.contains("dead") {
            complaints.push(&text.place, "`token.dead_per` belongs to dead = [ { status = 401 } ], and there is none");
        }
        sources.push(source);
    }
    sources
}

/// `length = [32, 40]`, shared by dialects and configs.
pub fn token_length(table: &mut Table, complaints: &mut Complaints) -> Option<(usize, usize)> {
    table.declare("length", Shape::Pair(1..=LONGEST_TOKEN));
    let pair = table.array("length", complaints)?;
    let number = |node: &Node| match node.value {
        Value::Integer(number) => usize::try_from(number).ok(),
        _ => None,
    };
    let numbers: Vec<usize> = pair.value.iter().filter_map(number).collect();
    match numbers[..] {
        [shortest, longest]
            if pair.value.len() == 2 && 1 <= shortest && shortest <= longest && longest <= LONGEST_TOKEN as usize =>
        {
            Some((shortest, longest))
        }
        _ => {
            let message = "expected the fewest and the most characters, from 1 to 4096, as in length = [32, 40]";
            complaints.push(&pair.place, message);
            None
        }
    }
}

/// `settlement = "strict"` or `"admit"`, shared by dialects and configs.
pub fn settlement(table: &mut Table, complaints: &mut Complaints) -> Option<Settlement> {
    let words = [("strict", Settlement::Strict), ("admit", Settlement::Admit)];
    table.choice("settlement", &words, complaints).map(|word| word.value)
}

struct Defaults<'a> {
    signature: Option<&'a Scheme>,
    token: Option<&'a Token>,
    settlement: Settlement,
}

fn route(
    mut table: Table,
    defaults: &Defaults<'_>,
    overrides: &Overrides,
    wanted: &mut Pointers,
    complaints: &mut Complaints,
) -> Option<Route> {
    let name = needed(&mut table, "name", "name = \"debit\"", complaints);
    let pattern = needed_form(&mut table, "match", Form::Route, "match = \"POST /api/wallet/debit\"", complaints);
    let matched = pattern.and_then(|text| parsed(&text, |text| pattern_of(text, &overrides.base_path), complaints));
    let when = conditions(&mut table, "when", wanted, complaints);
    let query = table.strings("query", complaints).unwrap_or_default();
    let query = query.into_iter().map(|name| name.value.into()).collect();
    let optional_query = table.strings("optional_query", complaints).unwrap_or_default();
    let optional_query = optional_query.into_iter().map(|name| name.value.into()).collect();
    table.usual("signed", "true");
    let signed = table.boolean("signed", complaints).map(|signed| signed.value);
    table.usual("token", "true");
    let takes_token = table.boolean("token", complaints).map(|token| token.value);
    let settlement = settlement(&mut table, complaints).unwrap_or(defaults.settlement);
    table.declare("settles", Shape::Either(vec![Shape::Boolean, Shape::Table]));
    table.usual("settles", "false");
    let settles = match table.node("settles") {
        None => None,
        Some(Node { value: Value::Boolean(settles), .. }) => settles.then(Conditions::default),
        Some(Node { value: Value::Table(table), .. }) => Some(Conditions::read(table, wanted, complaints)),
        Some(node) => {
            node.mismatch("true, or what the body says, as in settles = { \"/type\" = \"WIN\" }", complaints);
            None
        }
    };
    let retires = table.table("retires", complaints).map(|table| ending(table, complaints));
    let grace = grace(&mut table, retires.is_some(), complaints);
    let place = table.place().clone();
    table.finish(complaints);

    if signed == Some(true) && defaults.signature.is_none() {
        complaints.push(&place, "signed = true, and the dialect has no [signature]".to_owned());
    }
    if takes_token == Some(true) && defaults.token.is_none() {
        complaints.push(&place, "token = true, and the dialect has no [token]".to_owned());
    }
    let signed = signed.unwrap_or(true) && defaults.signature.is_some();
    let token = takes_token.unwrap_or(true) && defaults.token.is_some();
    if retires.is_some() && !token {
        complaints.push(&place, "retires a token that the route does not take".to_owned());
    }
    // What a strict route would settle is of interest only for a token that is presumed to have ended; then the gate reads
    // the body itself. For all other requests it stays unread.
    let conditional = settlement == Settlement::Admit && settles.as_ref().is_some_and(|settles| !settles.is_empty());
    let token_in_body = token && defaults.token.is_some_and(|token| token.at.is_json());
    let scheme = defaults.signature.filter(|_| signed);
    let reads_json = token_in_body || conditional || !when.is_empty() || scheme.is_some_and(Scheme::reads_json);
    let reads_body = reads_json || scheme.is_some_and(|scheme| scheme.message.reads_body());
    let (method, path) = matched?;
    Some(Route {
        at: 0,
        name: name?.value.into(),
        method,
        path: path.into(),
        when,
        query,
        optional_query,
        signed,
        token,
        settles,
        settlement,
        retires: retires.flatten(),
        grace,
        reads_json,
        reads_body,
    })
}

/// `POST /players/{id}/balance` behind the base path; `/` alone stands for the base path itself.
fn pattern_of(text: &str, base_path: &str) -> Result<(Method, String), String> {
    let example = "write a method and a path, as in `POST /players/{playerId}/balance`";
    let (method, path) = text.split_once(' ').ok_or_else(|| format!("`{text}` is not a route; {example}"))?;
    let method = Method::parse(method.as_bytes()).ok_or_else(|| {
        format!("`{method}` is no method a route can have; there are GET HEAD POST PUT PATCH DELETE OPTIONS")
    })?;
    if !path.starts_with('/') || path.contains("//") || path.contains(['?', '#', ';', ' ', '%', '\\']) {
        return Err(format!("`{path}` is not a plain path; {example}"));
    }
    let path = match (base_path, path) {
        ("", path) => path.to_owned(),
        (base, "/") => base.to_owned(),
        (base, path) => format!("{base}{path}"),
    };
    Ok((method, path))
}

fn ending(mut table: Table, complaints: &mut Complaints) -> Option<Ending> {
    let mut wanted = Pointers::default();
    table.require("status", "status = 200", complaints);
    let status = table.integer("status", 200..=599, complaints);
    let json = conditions(&mut table, "json", &mut wanted, complaints);
    let mut slots = |key: &str, table: &mut Table, complaints: &mut Complaints| -> Vec<usize> {
        table.declare(key, Shape::Form(Form::Pointer).or_many());
        let pointers = table.strings(key, complaints).unwrap_or_default();
        let pointers = pointers.iter().filter_map(|text| {
            parsed(
                text,
                |text| Pointer::parse(text).map_err(|fault| format!("`{text}` is not a JSON pointer: {fault}")),
                complaints,
            )
        });
        pointers.map(|pointer| wanted.want(&pointer)).collect()
    };
    let present = slots("present", &mut table, complaints);
    let absent = slots("absent", &mut table, complaints);
    table.finish(complaints);
    Some(Ending { status: u16::try_from(status?.value).ok()?, json, present, absent, wanted })
}

/// `grace = "60s"` beside `retires`.
fn grace(table: &mut Table, retires: bool, complaints: &mut Complaints) -> Duration {
    let Some(grace) = table.duration("grace", complaints) else { return Duration::ZERO };
    if !retires {
        complaints.push(&grace.place, "a grace is for the token that the route ends; add retires = { status = 200 }");
    }
    if grace.value > LONGEST_GRACE {
        complaints.push(&grace.place, "`route[].grace` must be at most \"1h\", since a token in its grace still pays");
    }
    grace.value
}

fn replies(mut table: Table, complaints: &mut Complaints) -> Option<Replies> {
    table.usual("content_type", "\"application/json\"");
    let content_type = table.string("content_type", complaints).map(|text| text.value);
    let body = needed(&mut table, "body", "body = '{\"code\":{code}}'", complaints);
    let mut wordings = Vec::new();
    for name in NAMES {
        // It came later than the dialects that people have: without it, it is `unavailable` under its own status.
        let like = (name == "too_many_requests" && !table.contains(name)).then_some("unavailable");
        if name != "too_many_requests" {
            table.require(name, &format!("{name} = {{ status = 401, code = 1, message = \"…\" }}"), complaints);
        }
        match like.and_then(|like| NAMES.iter().position(|name| *name == like)) {
            Some(at) => wordings.extend(wordings.get(at).map(|like: &Wording| Wording { status: 429, ..like.clone() })),
            None => wordings.extend(table.table(name, complaints).and_then(|table| wording(table, complaints))),
        }
    }
    let place = table.place().clone();
    table.finish(complaints);
    let wordings: [Wording; 11] = wordings.try_into().ok()?;
    let content_type = content_type.as_deref().unwrap_or("application/json");
    Replies::new(content_type, &body?.value, &wordings).map_err(|fault| complaints.push(&place, fault)).ok()
}

fn wording(mut table: Table, complaints: &mut Complaints) -> Option<Wording> {
    table.require("status", "status = 401", complaints);
    let status = table.integer("status", 400..=599, complaints);
    table.declare("code", Shape::Either(vec![Shape::Text, Shape::Integer(i64::MIN..=i64::MAX)]));
    table.usual("code", "\"\"");
    let code = match table.node("code") {
        None => Some(String::new()),
        Some(Node { value: Value::String(text), .. }) => Some(text),
        Some(Node { value: Value::Integer(number), .. }) => Some(number.to_string()),
        Some(node) => {
            node.mismatch("a string or an integer such as 3", complaints);
            None
        }
    };
    table.usual("message", "\"\"");
    let message = table.string("message", complaints).map(|message| message.value).unwrap_or_default();
    table.finish(complaints);
    Some(Wording { status: u16::try_from(status?.value).ok()?, code: code?, message })
}

fn conditions(table: &mut Table, key: &str, wanted: &mut Pointers, complaints: &mut Complaints) -> Conditions {
    let table = table.table(key, complaints);
    table.map(|table| Conditions::read(table, wanted, complaints)).unwrap_or_default()
}

fn source(table: &mut Table, key: &str, wanted: &mut Pointers, complaints: &mut Complaints) -> Option<Source> {
    let text = table.form(key, Form::Place, complaints)?;
    parsed(&text, |text| Source::parse(text, wanted), complaints)
}

fn parsed<T>(
    text: &Spanned<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
    complaints: &mut Complaints,
) -> Option<T> {
    parse(&text.value).map_err(|fault| complaints.push(&text.place, fault)).ok()
}

/// A string that must be there.
fn needed(table: &mut Table, key: &str, example: &str, complaints: &mut Complaints) -> Option<Spanned<String>> {
    table.require(key, example, complaints);
    table.string(key, complaints)
}

/// A string of a certain form that must be there.
fn needed_form(
    table: &mut Table,
    key: &str,
    form: Form,
    example: &str,
    complaints: &mut Complaints,
) -> Option<Spanned<String>> {
    table.require(key, example, complaints);
    table.form(key, form, complaints)
}

/// The header fields whose meaning the checks depend on, plus those we set ourselves and those that frame the message.
fn guarded(credential: &[AuthScheme], signature: Option<&Scheme>, token: Option<&Token>) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    if !credential.is_empty() {
        names.push("authorization".into());
    }
    names.extend(signature.into_iter().flat_map(Scheme::headers).map(Into::into));
    names.extend(token.and_then(|token| token.at.header()).map(Into::into));
    names.extend(FRAMING.iter().map(|&name| name.into()));
    names.iter_mut().for_each(|name| name.make_ascii_lowercase());
    names.sort_unstable();
    names.dedup();
    names
}

const FRAMING: [&str; 4] = ["content-encoding", "content-length", "content-type", "transfer-encoding"];

const USUAL_TOLERANCE: Duration = Duration::from_secs(300);

/// A grace covers calls that were on their way when the token was replaced; families that name one say a minute.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);

const LONGEST_TOKEN: i64 = 4096;

const USUAL_TOKEN: (usize, usize) = (1, 128);
