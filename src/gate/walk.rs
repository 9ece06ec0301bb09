//! The gate's checks, each for itself: those behind a failed one are looked at too, as far as they can be.
//!
//! For `portcullis explain`. Whether a request is admitted is decided by [`Gate::admit`] and nothing else; here stands what
//! each check found, in the same order and by the same code.

use std::time::{Duration, SystemTime};

use super::{Ask, Gate, demand_parameters, plain_coding};
use crate::credential::signature::Scheme;
use crate::credential::signature::mistakes::Suspects;
use crate::credential::{Caller, Callers};
use crate::denial::Denial;
use crate::dialect::route::{Entry, Route};
use crate::dialect::source::{Reading, Source, View};
use crate::explain::veil::Veil;
use crate::fields::{Only, fold};
use crate::request::{Head, Method, Request, Whence};
use crate::secret::Secret;
use crate::token::TokenDigest;

/// What is known besides the request.
pub struct Given<'a> {
    /// The callers with everything that the config demands of them.
    pub callers: &'a Callers,
    /// The secrets of their signing keys, as the config has them.
    pub signing_secrets: &'a [Vec<Secret>],
    /// Where the request came from, where that is known.
    pub whence: Option<Whence<'a>>,
    /// When the request was made.
    pub at: SystemTime,
    /// The digest of a token is the one that the log shows.
    pub knows_digest: bool,
}

/// One check, and what it found.
#[derive(Debug)]
pub struct Step {
    /// What is looked at.
    pub title: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// In sentences.
    pub found: Vec<String>,
    /// The message that must be signed, where it helps to see it.
    pub message: Option<String>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It lets the request pass.
    Passed,
    /// It refuses the request.
    Refused(Denial),
    /// It cannot be known from a capture.
    Unknown,
}

impl Step {
    fn new(title: &'static str) -> Step {
        Step { title, outcome: Outcome::Passed, found: Vec::new(), message: None }
    }

    fn say(&mut self, text: impl Into<String>) {
        self.found.push(text.into());
    }

    /// The first fault counts.
    fn refuse(&mut self, denial: Denial) {
        if !matches!(self.outcome, Outcome::Refused(_)) {
            self.outcome = Outcome::Refused(denial);
        }
    }

    fn unknown(&mut self, text: impl Into<String>) {
        if self.outcome == Outcome::Passed {
            self.outcome = Outcome::Unknown;
        }
        self.say(text);
    }
}

impl Gate {
    /// The moment the request's signature names; `None` where it names none.
    pub fn signed_at(&self, request: &Request) -> Option<SystemTime> {
        let scheme = self.dialect.signature.as_ref()?;
        let mut view = View { request, found: None };
        let _ = self.read_json(&mut view);
        let text = scheme.timestamp_of(&view)?;
        let number: u64 = str::from_utf8(&text).ok()?.parse().ok()?;
        // By its width, whatever the family counts: what is wrong about that is said by the check.
        let since = match text.len() {
            10 => Duration::from_secs(number),
            13 => Duration::from_millis(number),
            _ => return None,
        };
        Some(SystemTime::UNIX_EPOCH + since)
    }

    /// Every check in its order. `now` is what the clock says, for what it would make of the request.
    pub async fn walk(&self, request: &Request, given: &Given<'_>, ask: &impl Ask) -> Vec<Step> {
        let mut walk = Walk { gate: self, given, view: View { request, found: None }, unread: None, steps: Vec::new() };
        let route = walk.route();
        walk.size(route);
        let by_credential = walk.credential(ask).await;
        let caller = match by_credential.or_else(|| walk.named()) {
            caller if route.is_none_or(|route| route.signed) => walk.signature(by_credential, caller),
            caller => {
                walk.unsigned();
                caller
            }
        };
        walk.place(caller, route);
        if route.is_none_or(|route| route.signed) {
            walk.freshness();
        }
        if let Some(route) = route {
            walk.parameters(route);
            walk.token(route);
        }
        walk.steps
    }
}

struct Walk<'w> {
    gate: &'w Gate,
    given: &'w Given<'w>,
    view: View<'w>,
    /// Why the body could not be read as JSON; said once.
    unread: Option<Denial>,
    steps: Vec<Step>,
}

impl<'w> Walk<'w> {
    fn head(&self) -> &'w Head {
        &self.view.request.head
    }

    /// Reads the body as JSON, or says why not; the second time that it was said.
    fn read_json(&mut self, step: &mut Step) -> bool {
        if self.unread.is_some() {
            step.unknown("not looked at any further: the body cannot be read, see above");
            return false;
        }
        match self.gate.read_json(&mut self.view) {
            Ok(()) => true,
            Err(denial) => {
                self.unread = Some(denial);
                step.refuse(denial);
                step.say(body_fault(denial));
                false
            }
        }
    }

    fn route(&mut self) -> Option<&'w Route> {
        let mut step = Step::new("route");
        let head = self.head();
        if let Err(denial) = self.gate.refuse_twins(&head.fields) {
            step.refuse(denial);
            step.say(format!("{} is there under a name that servers may fold into another; leave it out", self.twin()));
        }
        let entry = self.gate.dialect.routes.enter(head.method, head.target.path());
        let route = entry.and_then(|entry| self.choose(entry, &mut step));
        match (entry, route) {
            (_, Some(route)) => step.say(format!("`{}`: {} {}", route.name, route.method.as_str(), route.path)),
            (Some(entry), None) if self.unread.is_none() => {
                step.refuse(Denial::NoRoute);
                let names: Vec<&str> = entry.all().map(|route| &*route.name).collect();
                step.say(format!("the body says none of what tells the routes here apart: {}", names.join(", ")));
            }
            (Some(_), None) => {}
            (None, None) => {
                step.refuse(Denial::NoRoute);
                step.say("no route of this dialect has this method and path");
                step.found.extend(self.nearest());
            }
        }
        self.steps.push(step);
        route
    }

    fn choose(&mut self, entry: Entry<'w>, step: &mut Step) -> Option<&'w Route> {
        if entry.depends_on_body() && !self.read_json(step) {
            return None;
        }
        entry.choose(self.view.found.as_ref())
    }

    fn twin(&self) -> String {
        let guarded = &self.gate.dialect.guarded;
        let twins = self.head().fields.iter().filter(|field| {
            field.name.iter().any(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
                && guarded.iter().any(|own| fold(own.as_bytes()).eq(fold(field.name)))
        });
        let names: Vec<_> = twins.map(|field| String::from_utf8_lossy(field.name).into_owned()).collect();
        format!("the field {}", names.join(", "))
    }

    /// What may have been meant.
    fn nearest(&self) -> Option<String> {
        let routes = &self.gate.dialect.routes;
        let (method, path) = (self.head().method, self.head().target.path());
        let all =
            [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Options];
        let methods: Vec<_> =
            all.into_iter().filter(|other| routes.enter(*other, path).is_some()).map(Method::as_str).collect();
        if !methods.is_empty() {
            return Some(format!("the path is there with another method: {}", methods.join(", ")));
        }
        let trimmed = path.trim_end_matches('/');
        if routes.enter(method, trimmed).is_some() {
            return Some("it is there without the slash at its end".to_owned());
        }
        if let Some(route) = routes.iter().find(|route| route.path.eq_ignore_ascii_case(trimmed)) {
            return Some(format!("it is there in another case: {}", route.path));
        }
        let shorter = path.char_indices().skip(1).filter(|(_, one)| *one == '/').find_map(|(at, _)| {
            routes.enter(method, path.get(at..)?)?;
            path.get(..at)
        });
        if shorter.is_some() {
            return Some("it is there without what stands in front; set base_path, or have it taken off".to_owned());
        }
        let longer = routes.iter().find(|route| path.len() > 1 && route.path.ends_with(trimmed));
        longer.map(|route| format!("it is there with more in front (the base_path?): {}", route.path))
    }

    fn size(&mut self, route: Option<&Route>) {
        let mut step = Step::new("size");
        let length = self.view.request.body.len();
        step.say(format!("{length} bytes of body, of at most {}", self.gate.largest_body));
        if u64::try_from(length).is_ok_and(|length| length > self.gate.largest_body)
            || self.head().framing.length.is_some_and(|length| length > self.gate.largest_body)
        {
            step.refuse(Denial::BodyTooLarge);
        }
        if route.is_some_and(|route| route.reads_body)
            && let Err(denial) = plain_coding(&self.head().fields)
        {
            step.refuse(denial);
            step.say(body_fault(denial));
            self.unread = Some(denial);
        }
        self.steps.push(step);
    }

    async fn credential(&mut self, ask: &impl Ask) -> Option<usize> {
        let schemes = &self.gate.dialect.credential;
        if schemes.is_empty() {
            return None;
        }
        let mut step = Step::new("credential");
        let proven = self.gate.prove_credential(&self.view, ask).await;
        let named = self.named();
        let wanted: Vec<String> = schemes.iter().map(|scheme| format!("{scheme:?}")).collect();
        let wanted = wanted.join(" or ");
        match proven {
            Ok(caller) => {
                let caller = caller.and_then(|(caller, _)| self.caller(caller));
                let how = if named.is_some() { "user and password" } else { "the bearer key" };
                step.say(format!("{how} are those of `{}`", caller.map_or("", |caller| &caller.name)));
                if named.is_none() {
                    step.found = vec![format!("the bearer key is that of `{}`", caller.map_or("", |one| &one.name))];
                }
            }
            Err(denial) => {
                step.refuse(denial);
                step.say(match (denial, named.and_then(|caller| self.caller(caller))) {
                    (Denial::CredentialMissing, _) => format!("there is no Authorization; this family wants {wanted}"),
                    (Denial::CredentialRepeated, _) => "there are several Authorization fields; send one".to_owned(),
                    (Denial::CredentialMalformed, _) => {
                        format!("Authorization is not well formed, or of another scheme than {wanted}")
                    }
                    (Denial::CredentialWrong, Some(caller)) => {
                        format!("the user is that of `{}`, and the password (…) is none of its passwords", caller.name)
                    }
                    (Denial::CredentialWrong, None) => "no caller has this user or key".to_owned(),
                    (other, _) => format!("refused as {}", other.reason()),
                });
                step.found.extend(self.credential_mistake());
            }
        }
        self.steps.push(step);
        proven.ok().flatten().map(|(caller, _)| caller)
    }

    /// What is known to go wrong with the field, as far as it shows in it.
    fn credential_mistake(&self) -> Option<String> {
        let Only::One(value) = self.head().fields.only("authorization") else { return None };
        let text = str::from_utf8(value).ok()?;
        let mistake = match text.split_once(' ') {
            None => "it has no scheme; write `Basic …` or `Bearer …`",
            Some((_, rest)) if rest.starts_with(' ') => "there is more than one blank behind the scheme",
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => {
                if rest.contains(':') {
                    "user and password must be in base64, and stand there as they are"
                } else if self.ends_in_line(rest) {
                    "the password has a line feed at its end (`echo` instead of `printf`?)"
                } else {
                    return None;
                }
            }
            Some((_, rest)) if rest.starts_with(['"', '\'', '<', '{', '$']) => {
                "the key begins like a placeholder or a quote; send the key alone"
            }
            Some(_) => return None,
        };
        Some(mistake.to_owned())
    }

    fn ends_in_line(&self, rest: &str) -> bool {
        use base64::Engine as _;
        let decoded = base64::engine::general_purpose::STANDARD.decode(rest);
        decoded.is_ok_and(|decoded| decoded.ends_with(b"\n"))
    }

    /// The caller whose user it names, proven or not.
    fn named(&self) -> Option<usize> {
        self.given.callers.claimed(&self.head().fields)
    }

    fn caller(&self, index: usize) -> Option<&'w Caller> {
        self.given.callers.at(index)
    }

    fn unsigned(&mut self) {
        if self.gate.dialect.signature.is_some() {
            let mut step = Step::new("signature");
            step.say("this route is not signed");
            self.steps.push(step);
        }
    }

    /// The caller that has signed, or else the one that should have.
    fn signature(&mut self, by_credential: Option<usize>, named: Option<usize>) -> Option<usize> {
        let gate = self.gate;
        let Some(scheme) = &gate.dialect.signature else { return named };
        let mut step = Step::new("signature");
        let needs_json = scheme.reads_json() || (scheme.message.compacts() && !self.view.request.body.is_empty());
        if needs_json && !self.read_json(&mut step) {
            self.steps.push(step);
            return named;
        }
        // Without a right credential, by the one it claims: what is wrong about the signature is then no less wrong.
        let proof = gate.prove_signature(&mut self.view, by_credential.or(named));
        let signed_by = match proof {
            Ok(proof) => {
                let signer = proof.map(|proof| (proof.key.caller, proof.index));
                if let Some((caller, key)) = signer
                    && let Some(caller) = self.caller(caller)
                {
                    let id = caller.keys.get(key).map_or("", |key| &key.id);
                    step.say(format!("it matches: `{}`, key `{id}`", caller.name));
                }
                signer.map(|(caller, _)| caller)
            }
            Err(denial) => {
                step.refuse(denial);
                self.why(scheme, denial, named, &mut step);
                None
            }
        };
        self.steps.push(step);
        signed_by.or(named)
    }

    fn why(&self, scheme: &Scheme, denial: Denial, named: Option<usize>, step: &mut Step) {
        let by_key_id = scheme.key_id.as_ref().and_then(|source| match source.read(&self.view) {
            Reading::One(id) => self.given.callers.by_key_id(&id),
            Reading::None | Reading::Many | Reading::NotText => None,
        });
        for (what, source) in scheme.places() {
            match source.read(&self.view) {
                Reading::None => step.say(format!("the {what} is missing: it stands in {source}")),
                Reading::Many => step.say(format!("the {what} is there more than once: {source}")),
                Reading::NotText => step.say(format!("the {what} is no text: {source}")),
                Reading::One(_) => {}
            }
        }
        let has_key_id =
            scheme.key_id.as_ref().is_some_and(|source| matches!(source.read(&self.view), Reading::One(_)));
        if has_key_id && by_key_id.is_none() {
            step.say("the key id is that of no caller");
        } else if denial == Denial::KeyUnknown {
            step.say("the key id is that of another caller than the credential's");
        }
        if denial == Denial::SignatureMalformed {
            step.say("the signature is not spelled as this family does");
        } else if denial == Denial::SignatureWrong {
            step.say("no secret of the caller gives this signature");
        }
        if let Some(message) = scheme.message_of(&self.view) {
            let length = message.len();
            step.message = Some(match scheme.message.respells_body() {
                // What is in it could be read all the same.
                true => format!("{length} bytes, not shown: the body is in them in another spelling"),
                false if message.is_empty() => "nothing: what it is made of is empty".to_owned(),
                false => format!("{length} bytes: {}", self.veil().show(&message)),
            });
        }
        let caller = by_key_id.or(named);
        let suspects = Suspects { callers: self.given.callers, secrets: self.given.signing_secrets, caller };
        if u64::try_from(self.view.request.body.len()).map_or(true, |length| length > self.gate.largest_body) {
            return;
        }
        let search = scheme.mistakes(&self.view, &suspects);
        match search.key {
            Some(key) if search.mistakes.is_empty() => step.say(format!("the signature itself matches: {key}")),
            Some(key) => {
                step.found.extend(search.mistakes.iter().map(|mistake| format!("why: {mistake}")));
                step.say(format!("so it would match: {key}"));
            }
            None if search.tried > 0 => step.say(format!(
                "none of {} known ways to sign it wrongly matches: the secret is another one, or the bytes were changed \
                 on their way; compare the message below with what the caller signs",
                search.tried
            )),
            None => {}
        }
    }

    /// Hides what a message may have in it that nobody should see.
    fn veil(&self) -> Veil {
        let mut veil = Veil::default();
        let mut hide = |source: &Source| {
            if let Reading::One(value) = source.read(&self.view) {
                veil.text(&value);
            }
            match source {
                Source::Json { pointer, .. } => {
                    let pointer = pointer.to_string();
                    veil.member(pointer.rsplit('/').next().unwrap_or_default());
                }
                Source::Query(name) => veil.parameter(name),
                Source::Header(_) => {}
            }
        };
        if let Some(token) = &self.gate.dialect.token {
            hide(&token.at);
        }
        if let Some(scheme) = &self.gate.dialect.signature {
            hide(&scheme.at);
        }
        for value in self.head().fields.all("authorization") {
            veil.text(value);
            value.split(|&byte| byte == b' ').skip(1).for_each(|part| veil.text(part));
            if let Ok(crate::credential::authorization::Authorization::Basic(basic)) =
                crate::credential::authorization::Authorization::parse(value)
            {
                veil.text(basic.password().as_bytes());
            }
        }
        for secret in self.given.signing_secrets.iter().flatten() {
            veil.text(secret.expose());
        }
        veil
    }

    /// From where the caller may call, with what certificate, and which routes.
    fn place(&mut self, caller: Option<usize>, route: Option<&Route>) {
        let Some(caller) = caller.and_then(|caller| self.caller(caller)) else { return };
        if let Some(from) = &caller.from {
            let mut step = Step::new("from");
            let networks: Vec<_> = from.iter().map(ToString::to_string).collect();
            let networks = networks.join(", ");
            match self.given.whence.map(|whence| whence.origin.client) {
                None => step.unknown(format!(
                    "`{}` may call from {networks}; where this came from is not in a capture, add --peer ADDRESS",
                    caller.name
                )),
                Some(client) if from.iter().any(|network| network.contains(client)) => {
                    step.say(format!("{client} is in {networks}"));
                }
                Some(client) => {
                    step.refuse(Denial::CallerElsewhere);
                    step.say(format!("it came from {client}, and `{}` may call from {networks}", caller.name));
                }
            }
            self.steps.push(step);
        }
        if let Some(names) = &caller.certificate {
            let mut step = Step::new("certificate");
            step.unknown(format!("`{}` must show one of {}; a capture has none", caller.name, names.join(", ")));
            self.steps.push(step);
        }
        if let (Some(routes), Some(route)) = (&caller.routes, route) {
            let mut step = Step::new("routes");
            step.say(format!("`{}` may use {}", caller.name, routes.join(", ")));
            if !routes.contains(&route.name) {
                step.refuse(Denial::CallerNotAllowed);
            }
            self.steps.push(step);
        }
    }

    fn freshness(&mut self) {
        let Some(scheme) = &self.gate.dialect.signature else { return };
        let once = self.gate.dialect.replay_memory().is_some();
        if scheme.timestamp.is_none() && !once {
            return;
        }
        let mut step = Step::new("freshness");
        if let Some(rule) = &scheme.timestamp {
            match scheme.timestamp_of(&self.view) {
                // Said by the signature.
                None => step.unknown("there is no timestamp to look at"),
                Some(text) => {
                    let tolerance = humantime::format_duration(rule.tolerance);
                    match rule.judge(&text, self.given.at) {
                        Ok(()) => step.say(format!("the timestamp is within {tolerance}")),
                        Err(denial) => {
                            step.refuse(denial);
                            step.say(match denial {
                                Denial::TimestampMalformed => timestamp_fault(&text, rule.stamp(self.given.at).len()),
                                Denial::Stale => format!("the timestamp is more than {tolerance} old: {}", CLOCK),
                                Denial::Early => format!("the timestamp is more than {tolerance} ahead: {}", CLOCK),
                                other => format!("refused as {}", other.reason()),
                            });
                        }
                    }
                }
            }
        }
        if once {
            let once = "each message is admitted once; whether this one was before is known where Portcullis runs";
            match scheme.timestamp {
                Some(_) => step.say(once),
                None => step.unknown(once),
            }
        }
        self.steps.push(step);
    }

    fn parameters(&mut self, route: &Route) {
        let request = self.view.request;
        let mut step = Step::new("parameters");
        if let Err(denial) = self.gate.refuse_unnamed_parameters(route, request) {
            step.refuse(denial);
            let known: Vec<&str> = route.query.iter().chain(&route.optional_query).map(|name| &**name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            step.say(format!("there are parameters in the query that the route does not name; it names {known}"));
        }
        if let Err(denial) = demand_parameters(route, request) {
            step.refuse(denial);
            step.say(format!("the query must have each of these once, not empty: {}", route.query.join(", ")));
        }
        if step.outcome == Outcome::Passed {
            if route.query.is_empty() {
                return;
            }
            step.say(format!("{}: there", route.query.join(", ")));
        }
        self.steps.push(step);
    }

    fn token(&mut self, route: &Route) {
        let gate = self.gate;
        let mut step = Step::new("token");
        let readable = !route.reads_json || self.read_json(&mut step);
        let Some(token) = gate.dialect.token.as_ref().filter(|_| route.token) else {
            if !readable {
                self.steps.push(step);
            }
            return;
        };
        if !readable {
            self.steps.push(step);
            return;
        }
        let place = &token.at;
        let allowed = format!("{} to {} visible ASCII characters", token.rule.shortest, token.rule.longest);
        match gate.token(&self.view) {
            Ok(_) => {
                let text = match place.read(&self.view) {
                    Reading::One(text) => text,
                    Reading::None | Reading::Many | Reading::NotText => Default::default(),
                };
                step.say(format!("{place}: {}, of {allowed}", shape(&text)));
                if self.given.knows_digest {
                    step.say(format!("digest {}, as in the log", TokenDigest::of(&text, &gate.token_key)));
                }
            }
            Err(denial) => {
                step.refuse(denial);
                step.say(match (denial, place.read(&self.view)) {
                    (Denial::TokenMissing, _) => format!("there is none: it stands in {place}"),
                    (Denial::TokenRepeated, _) => format!("it is there more than once: {place}"),
                    (_, Reading::One(text)) => format!("{place}: {}; a token is a string of {allowed}", shape(&text)),
                    (_, _) => format!("{place} is no string"),
                });
            }
        }
        let good = step.outcome == Outcome::Passed;
        self.steps.push(step);
        if good {
            let mut step = Step::new("standing");
            step.unknown(
                "whether the token has ended is known where Portcullis runs: `portcullis status --token -` asks there",
            );
            self.steps.push(step);
        }
    }
}

impl Scheme {
    /// Where its parts stand, each with what it is.
    fn places(&self) -> impl Iterator<Item = (&'static str, &Source)> {
        let timestamp = self.timestamp.as_ref().and_then(|rule| rule.at.as_ref());
        [
            ("signature", Some(&self.at)),
            ("timestamp", timestamp),
            ("nonce", self.nonce.as_ref()),
            ("key id", self.key_id.as_ref()),
        ]
        .into_iter()
        .filter_map(|(what, source)| Some((what, source?)))
    }
}

fn body_fault(denial: Denial) -> String {
    match denial {
        Denial::ContentEncoding => "the body has a Content-Encoding; what is checked must be sent plain".to_owned(),
        Denial::ContentType => "the body is read as JSON; declare it as Content-Type: application/json".to_owned(),
        Denial::Json(fault) => {
            format!("the body is not strict JSON ({}), and must be read", fault.as_str().replace('_', " "))
        }
        other => format!("the body cannot be read: {}", other.reason()),
    }
}

fn timestamp_fault(text: &[u8], digits: usize) -> String {
    let unit = if digits == 10 { "seconds" } else { "milliseconds" };
    let wanted = format!("this family counts {unit}, in {digits} digits");
    match (text.len(), text.iter().all(u8::is_ascii_digit)) {
        (13, true) => format!("the timestamp counts milliseconds; {wanted}"),
        (10, true) => format!("the timestamp counts seconds; {wanted}"),
        (_, true) => format!("the timestamp has {} digits; {wanted}", text.len()),
        (_, false) if text.contains(&b'-') || text.contains(&b':') => format!("the timestamp is a date; {wanted}"),
        (_, false) => format!("the timestamp is no plain number; {wanted}"),
    }
}

/// What a token looks like, without a character of it.
fn shape(text: &[u8]) -> String {
    let kind = if uuid::Uuid::try_parse_ascii(text).is_ok() {
        ", a UUID"
    } else if text.is_empty() {
        ""
    } else if text.iter().all(u8::is_ascii_digit) {
        ", all digits"
    } else if text.iter().all(u8::is_ascii_hexdigit) {
        ", hexadecimal"
    } else if text.iter().any(u8::is_ascii_whitespace) {
        ", with blanks"
    } else if !text.is_ascii() {
        ", not all ASCII"
    } else {
        ""
    };
    format!("{} characters{kind}", String::from_utf8_lossy(text).chars().count())
}

const CLOCK: &str = "is the caller's clock right, and does it sign each call anew?";
