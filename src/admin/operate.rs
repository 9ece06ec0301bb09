//! An operator's call, from its head to its reply: proven, read, carried out, told.
//!
//! Each check protects those behind it. A stranger costs one digest: no byte of the body is asked for before the secret is
//! proven. A call that is refused does nothing.

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use super::LIMITS;
use super::key::AdminKeys;
use super::order::{Call, Order, Subject, Why};
use crate::denial::{Denial, Disclosure};
use crate::digits::timestamp;
use crate::fields::{Fields, Only};
use crate::metrics::Outcome;
use crate::proxy::story::Portcullis;
use crate::proxy::{Body, BodyFault};
use crate::request::{Head, Method, Reply};
use crate::revocation::record::{Fate, Record};
use crate::token::TokenDigest;

/// Why a call is not answered with 200.
enum Refusal {
    /// Only POST does something.
    Method,
    /// A browser sent it.
    Browser,
    /// It did not prove that an operator makes it.
    Credential(Denial),
    /// It is not declared as JSON.
    ContentType,
    /// Its body did not come as it should.
    Body(BodyFault),
    /// What it says cannot be done, in a sentence.
    Malformed(String),
    /// It cannot be recorded now, and nothing was.
    Denied(Denial),
    /// It was recorded here, but what outlives this process has not taken it.
    Unwritten(Denial),
}

/// A token that was named, with its text if that was given.
struct Named<'o> {
    token: TokenDigest,
    text: Option<&'o [u8]>,
}

/// What calls are carried out on.
pub(super) struct Operating<'p> {
    pub(super) portcullis: &'p Portcullis,
}

impl Operating<'_> {
    /// Answers a call.
    pub(super) async fn answer(&self, call: Call, keys: &AdminKeys, head: &Head, body: &mut impl Body) -> Reply {
        let outcome = self.obey(call, keys, head, body).await;
        let mut fields = vec![("Content-Type", Bytes::from_static(b"application/json"))];
        let (status, counted, answer) = match outcome {
            Ok(answer) => (200, Outcome::Done, answer),
            Err(refusal) => {
                self.tell_refusal(call, &refusal);
                fields.extend(refusal.field());
                (refusal.status(), refusal.outcome(), json!({ "error": refusal.sentence() }))
            }
        };
        self.portcullis.metrics().count_admin_call(call, counted);
        Reply::of_ours(status, fields, format!("{answer}\n").into())
    }

    async fn obey(&self, call: Call, keys: &AdminKeys, head: &Head, body: &mut impl Body) -> Result<Value, Refusal> {
        if head.method != Method::Post {
            return Err(Refusal::Method);
        }
        // A page that somebody looks at must not make their browser call. Browsers say where the page is from; and a form
        // cannot have the content type that is demanded below.
        if head.fields.all("origin").next().is_some() {
            return Err(Refusal::Browser);
        }
        keys.prove(&head.fields).map_err(Refusal::Credential)?;
        if !is_json(&head.fields) {
            return Err(Refusal::ContentType);
        }
        if !head.target.query().is_empty() {
            // What stands in a URL ends up in logs of all kinds.
            return Err(Refusal::Malformed("nothing belongs behind the path; the body says everything".to_owned()));
        }
        let body = body.read(LIMITS.body, LIMITS.body_timeout).await.map_err(Refusal::Body)?;
        match Order::read(call, &body, SystemTime::now()).map_err(Refusal::Malformed)? {
            Order::Revoke(subject, why) => self.revoke(&subject, &why).await,
            Order::RevokeSeenBefore(moment, why) => self.revoke_seen_before(moment, &why).await,
            Order::Unrevoke(subject, why) => self.unrevoke(&subject, &why).await,
            Order::Standing(subject) => {
                let Named { token, text } = self.named(&subject)?;
                Ok(standing(token, self.portcullis.revocations().recall(token, text).await))
            }
        }
    }

    async fn revoke(&self, subject: &Subject, why: &Why) -> Result<Value, Refusal> {
        let Named { token, text } = self.named(subject)?;
        let (ended, failed) = done(self.portcullis.revocations().end_named(token, text).await)?;
        let ended = u64::from(ended.unwrap_or(true));
        self.portcullis.metrics().count_ended_by_operator(ended);
        self.tell("warn", "revoked", why, failed, json!({ "token": token.to_string(), "ended": ended }));
        answered(failed, json!({ "ended": ended, "digest": token.to_string() }))
    }

    async fn revoke_seen_before(&self, moment: SystemTime, why: &Why) -> Result<Value, Refusal> {
        let swept = self.portcullis.revocations().end_seen_before(moment).await.map_err(Refusal::Denied)?;
        self.portcullis.metrics().count_ended_by_operator(swept.ended);
        let answer = json!({
            "ended": swept.ended,
            "complete": swept.complete,
            "unremembered": swept.missed,
            "seen_since": timestamp(swept.since),
        });
        let mut about = answer.clone();
        add(&mut about, "seen_before", json!(timestamp(moment)));
        self.tell("warn", "revoked_seen_before", why, swept.unwritten, about);
        answered(swept.unwritten, answer)
    }

    async fn unrevoke(&self, subject: &Subject, why: &Why) -> Result<Value, Refusal> {
        let Named { token, text } = self.named(subject)?;
        let (pardoned, failed) = done(self.portcullis.revocations().pardon_named(token, text).await)?;
        let pardoned = pardoned.unwrap_or(true);
        self.tell("info", "unrevoked", why, failed, json!({ "token": token.to_string(), "pardoned": pardoned }));
        answered(failed, json!({ "pardoned": pardoned, "digest": token.to_string() }))
    }

    fn named<'o>(&self, subject: &'o Subject) -> Result<Named<'o>, Refusal> {
        let gate = self.portcullis.gate();
        let Some(rule) = gate.dialect.token.as_ref().map(|token| token.rule) else {
            return Err(Refusal::Malformed(format!("the dialect `{}` has no player tokens", gate.dialect.name)));
        };
        match subject {
            Subject::Digest(token) => Ok(Named { token: *token, text: None }),
            Subject::Token(text) if rule.admits(text.as_bytes()) => {
                let token = TokenDigest::of(text.as_bytes(), &gate.token_key);
                Ok(Named { token, text: Some(text.as_bytes()) })
            }
            Subject::Token(_) => Err(Refusal::Malformed(format!(
                "`token` must be {} to {} visible ASCII characters, as the dialect `{}` has them",
                rule.shortest, rule.longest, gate.dialect.name
            ))),
        }
    }

    /// What was done, for those who read the log later. What was not written as it should be is an error, whatever else.
    fn tell(&self, level: &'static str, event: &'static str, why: &Why, failed: Option<Denial>, mut about: Value) {
        add(&mut about, "reason", json!(why.reason));
        add(&mut about, "actor", json!(why.actor));
        if let Some(denial) = failed {
            add(&mut about, "failure", json!(denial.reason()));
        }
        self.portcullis.log().say(if failed.is_some() { "error" } else { level }, event, &about);
    }

    fn tell_refusal(&self, call: Call, refusal: &Refusal) {
        if let Refusal::Unwritten(_) = refusal {
            // It was done, and told.
            return;
        }
        let about = json!({
            "call": call.as_str(),
            "status": refusal.status(),
            "why": refusal.why(),
            "message": refusal.sentence(),
        });
        self.portcullis.log().say("warn", "admin_refused", &about);
    }
}

/// What came of it, and what failed after it was recorded here; an error when nothing was.
fn done(outcome: Result<bool, Denial>) -> Result<(Option<bool>, Option<Denial>), Refusal> {
    match outcome {
        Ok(done) => Ok((Some(done), None)),
        Err(denial) if denial.disclosure() == Disclosure::Unavailable => Err(Refusal::Denied(denial)),
        Err(denial) => Ok((None, Some(denial))),
    }
}

fn answered(failed: Option<Denial>, answer: Value) -> Result<Value, Refusal> {
    match failed {
        None => Ok(answer),
        Some(denial) => Err(Refusal::Unwritten(denial)),
    }
}

fn standing(token: TokenDigest, record: Option<Record>) -> Value {
    let mut answer = json!({ "digest": token.to_string() });
    let (standing, ends_in) = match record.map(|record| record.fate) {
        None => ("alive", None),
        Some(Fate::Ended { grace }) if grace.is_zero() => ("ended", None),
        Some(Fate::Ended { grace }) => ("grace", Some(grace)),
        Some(Fate::Pardoned) => ("pardoned", None),
    };
    add(&mut answer, "standing", json!(standing));
    for (name, time) in [("ends_in_s", ends_in), ("forgotten_in_s", record.map(|record| record.left))] {
        if let Some(time) = time {
            add(&mut answer, name, json!((time.as_secs_f64() * 1e3).round() / 1e3));
        }
    }
    answer
}

fn add(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn is_json(fields: &Fields) -> bool {
    let Only::One(value) = fields.only("content-type") else { return false };
    let media = value.split(|&byte| byte == b';').next().unwrap_or_default();
    media.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

impl Refusal {
    fn status(&self) -> u16 {
        match self {
            Refusal::Method => 405,
            Refusal::Browser => 403,
            Refusal::Credential(_) => 401,
            Refusal::ContentType => 415,
            Refusal::Body(BodyFault::TooLarge) => 413,
            Refusal::Body(BodyFault::Slow) => 408,
            Refusal::Body(BodyFault::Cut) | Refusal::Malformed(_) => 400,
            Refusal::Denied(denial) if denial.disclosure() == Disclosure::Unavailable => 503,
            Refusal::Denied(_) | Refusal::Unwritten(_) => 500,
        }
    }

    /// The field that HTTP has for such a reply.
    fn field(&self) -> Option<(&'static str, Bytes)> {
        let (name, value) = match self {
            Refusal::Method => ("Allow", "POST"),
            Refusal::Credential(_) => ("WWW-Authenticate", "Bearer"),
            Refusal::Browser
            | Refusal::ContentType
            | Refusal::Body(_)
            | Refusal::Malformed(_)
            | Refusal::Denied(_)
            | Refusal::Unwritten(_) => return None,
        };
        Some((name, Bytes::from_static(value.as_bytes())))
    }

    fn outcome(&self) -> Outcome {
        match self {
            Refusal::Credential(_) => Outcome::Unauthenticated,
            Refusal::Method | Refusal::Browser | Refusal::ContentType | Refusal::Body(_) | Refusal::Malformed(_) => {
                Outcome::Malformed
            }
            Refusal::Denied(_) => Outcome::Unavailable,
            Refusal::Unwritten(_) => Outcome::Unwritten,
        }
    }

    /// One word for the log, from a closed set.
    fn why(&self) -> &'static str {
        match self {
            Refusal::Method => "method",
            Refusal::Browser => "origin",
            Refusal::ContentType => "content_type",
            Refusal::Body(fault) => Denial::from(*fault).reason(),
            Refusal::Malformed(_) => "malformed",
            Refusal::Credential(denial) | Refusal::Denied(denial) | Refusal::Unwritten(denial) => denial.reason(),
        }
    }

    fn sentence(&self) -> String {
        match self {
            Refusal::Method => "only POST".to_owned(),
            Refusal::Browser => "not from a browser".to_owned(),
            // The same whatever is wrong with it.
            Refusal::Credential(_) => "the admin token is needed, in one Authorization: Bearer …".to_owned(),
            Refusal::ContentType => "the body must be declared as Content-Type: application/json".to_owned(),
            Refusal::Body(BodyFault::TooLarge) => format!("the body must not have more than {} bytes", LIMITS.body),
            Refusal::Body(BodyFault::Slow) => "the body did not come in time".to_owned(),
            Refusal::Body(BodyFault::Cut) => "the body ended early".to_owned(),
            Refusal::Malformed(sentence) => sentence.clone(),
            Refusal::Denied(denial) => {
                let why = denial.reason().replace('_', " ");
                format!("nothing was recorded ({why}); try again once that is mended")
            }
            Refusal::Unwritten(denial) => {
                let why = denial.reason().replace('_', " ");
                format!(
                    "it counts in this process, but may be forgotten by a restart or unknown to other replicas ({why}); call again"
                )
            }
        }
    }
}
