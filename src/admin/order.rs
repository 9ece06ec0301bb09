//! What an operator asks for, read as strictly as what callers send.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::json::{self, Pointers};
use crate::token::TokenDigest;

/// The calls an operator can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Ends a token, or all that were seen before a moment.
    Revoke,
    /// Takes back that a token ended.
    Unrevoke,
    /// Asks what is known of a token.
    Standing,
}

/// One call, read. Has no `Debug`: a token may stand in it.
pub enum Order {
    /// Ends a token.
    Revoke(Subject, Why),
    /// Ends all tokens first seen before a moment.
    RevokeSeenBefore(SystemTime, Why),
    /// Takes back that a token ended.
    Unrevoke(Subject, Why),
    /// Asks what is known of a token.
    Standing(Subject),
}

/// Which token.
pub enum Subject {
    /// The token itself.
    Token(Zeroizing<String>),
    /// Its digest, as the log shows it.
    Digest(TokenDigest),
}

/// For those who read the log later.
pub struct Why {
    /// Why it was done.
    pub reason: String,
    /// Who did it.
    pub actor: String,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 3] = [Call::Revoke, Call::Unrevoke, Call::Standing];

    /// The call at a path of the admin address.
    pub fn at(path: &str) -> Option<Call> {
        Call::ALL.into_iter().find(|call| call.path() == path)
    }

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Call::Revoke => "/revoke",
            Call::Unrevoke => "/unrevoke",
            Call::Standing => "/standing",
        }
    }

    /// One word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Call::Revoke => "revoke",
            Call::Unrevoke => "unrevoke",
            Call::Standing => "standing",
        }
    }

    fn members(self) -> &'static [&'static str] {
        match self {
            Call::Revoke => &["token", "digest", "seen_before", "reason", "actor"],
            Call::Unrevoke => &["token", "digest", "reason", "actor"],
            Call::Standing => &["token", "digest"],
        }
    }
}

impl Order {
    /// Reads the body of a call. The error is a sentence that shows nothing of the body: a token may stand anywhere in it.
    pub fn read(call: Call, body: &[u8], now: SystemTime) -> Result<Order, String> {
        // Read strictly first, so that the lenient reader behind it has nothing left to be lenient about.
        json::read(body, &Pointers::default())
            .map_err(|fault| format!("the body is not strict JSON: {}", fault.as_str().replace('_', " ")))?;
        let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else {
            return Err("the body must be a JSON object".to_owned());
        };
        let known = call.members();
        if members.keys().any(|member| !known.contains(&member.as_str())) {
            return Err(format!("an unknown member; known here: {}", listed(known)));
        }
        let (subjects, wanted) = match call {
            Call::Revoke => (&["token", "digest", "seen_before"][..], "`token`, `digest` or `seen_before`"),
            Call::Unrevoke | Call::Standing => (&["token", "digest"][..], "`token` or `digest`"),
        };
        if subjects.iter().filter(|subject| members.contains_key(**subject)).count() != 1 {
            return Err(format!("exactly one of {wanted} must be there"));
        }
        let why = |members: &mut Map<String, Value>| {
            Ok::<_, String>(Why {
                reason: said(members, "reason", LONGEST_REASON)?,
                actor: said(members, "actor", LONGEST_ACTOR)?,
            })
        };
        if let Some(moment) = text(&mut members, "seen_before")? {
            return Ok(Order::RevokeSeenBefore(past(&moment, now)?, why(&mut members)?));
        }
        let subject = match text(&mut members, "digest")? {
            Some(digest) => {
                let digest = TokenDigest::parse(&digest);
                Subject::Digest(digest.ok_or("`digest` must be the 32 hexadecimal digits that the log shows")?)
            }
            None => Subject::Token(Zeroizing::new(text(&mut members, "token")?.unwrap_or_default())),
        };
        Ok(match call {
            Call::Revoke => Order::Revoke(subject, why(&mut members)?),
            Call::Unrevoke => Order::Unrevoke(subject, why(&mut members)?),
            Call::Standing => Order::Standing(subject),
        })
    }
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` must be a string")),
    }
}

fn said(members: &mut Map<String, Value>, name: &str, most: usize) -> Result<String, String> {
    let text = text(members, name)?.ok_or_else(|| format!("`{name}` is missing"))?;
    let bounded = (1..=most).contains(&text.chars().count());
    if !bounded || text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(format!("`{name}` must be 1 to {most} characters that say something, and no control characters"));
    }
    Ok(text)
}

/// A moment ahead of every sighting would end what is not seen yet, which cannot be known here. A clock may be off a little.
fn past(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let moment = humantime::parse_rfc3339(text)
        .map_err(|_| "`seen_before` must be a moment in UTC such as 2026-11-21T14:00:00Z".to_owned())?;
    if moment > now + CLOCKS_DIFFER {
        return Err("`seen_before` lies in the future".to_owned());
    }
    Ok(moment)
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

const LONGEST_REASON: usize = 200;

const LONGEST_ACTOR: usize = 100;

const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const WHY: &str = r#""reason":"a device was stolen","actor":"night shift""#;

    fn fault(call: Call, body: &str) -> String {
        Order::read(call, body.as_bytes(), SystemTime::now()).err().unwrap_or_default()
    }

    #[test]
    fn what_is_well_formed_is_read() {
        let now = SystemTime::now();
        let read = |call, body: &str| Order::read(call, body.as_bytes(), now).unwrap_or_else(|fault| panic!("{fault}"));
        let order = read(Call::Revoke, &format!(r#"{{"token":"t\u0031",{WHY}}}"#));
        assert!(matches!(order, Order::Revoke(Subject::Token(token), why)
            if *token == "t1" && why.reason == "a device was stolen" && why.actor == "night shift"));
        let order = read(Call::Unrevoke, &format!(r#"{{{WHY},"digest":"000102030405060708090A0b0c0d0e0f"}}"#));
        let digest = TokenDigest::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert!(matches!(order, Order::Unrevoke(Subject::Digest(found), _) if found == digest));
        let order = read(Call::Revoke, &format!(r#"{{"seen_before":"1970-01-01T00:00:01Z",{WHY}}}"#));
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        assert!(matches!(order, Order::RevokeSeenBefore(found, _) if found == moment));
        assert!(matches!(read(Call::Standing, r#"{"token":"t"}"#), Order::Standing(Subject::Token(_))));
        for ahead in [0, 59] {
            let moment = humantime::format_rfc3339_millis(now + Duration::from_secs(ahead));
            read(Call::Revoke, &format!(r#"{{"seen_before":"{moment}",{WHY}}}"#));
        }
    }

    #[test]
    fn what_is_not_is_refused_with_a_sentence_that_shows_nothing_of_it() {
        let why = |reason: &str, actor: &str| format!(r#"{{"token":"canary","reason":"{reason}","actor":"{actor}"}}"#);
        let revoke = |members: &str| (Call::Revoke, format!("{{{members},{WHY}}}"));
        let ahead = humantime::format_rfc3339(SystemTime::now() + Duration::from_secs(90)).to_string();
        let subject = "exactly one of `token`, `digest` or `seen_before`";
        let cases = [
            ((Call::Revoke, String::new()), "not strict JSON: syntax"),
            ((Call::Revoke, "canary".to_owned()), "not strict JSON: syntax"),
            ((Call::Revoke, "[]".to_owned()), "must be a JSON object"),
            ((Call::Revoke, "\"canary\"".to_owned()), "must be a JSON object"),
            (revoke(r#""token":"canary","token":"canary""#), "not strict JSON: duplicate key"),
            (revoke(r#""token":"canary","tok\u0065n":"canary""#), "not strict JSON: duplicate key"),
            ((Call::Revoke, format!(r#"{{"token":"canary",{WHY}}} canary"#)), "not strict JSON: trailing bytes"),
            (
                revoke(r#""token":"canary","canary":1"#),
                "an unknown member; known here: `token`, `digest`, `seen_before`",
            ),
            (revoke(r#""token":"canary","Reason":"canary""#), "an unknown member"),
            (revoke(r#""token":"canary","digest":"canary""#), subject),
            (revoke(r#""token":"canary","seen_before":null"#), subject),
            ((Call::Revoke, format!("{{{WHY}}}")), subject),
            ((Call::Standing, "{}".to_owned()), "exactly one of `token` or `digest`"),
            ((Call::Standing, format!(r#"{{"token":"canary",{WHY}}}"#)), "known here: `token`, `digest`"),
            ((Call::Unrevoke, format!(r#"{{"seen_before":"{ahead}",{WHY}}}"#)), "an unknown member"),
            (revoke(r#""token":1"#), "`token` must be a string"),
            (revoke(r#""digest":["canary"]"#), "`digest` must be a string"),
            (revoke(r#""digest":"canary""#), "32 hexadecimal digits"),
            (revoke(r#""seen_before":1795000000"#), "`seen_before` must be a string"),
            (revoke(r#""seen_before":"canary""#), "a moment in UTC"),
            (revoke(r#""seen_before":"2026-11-21T14:00:00+01:00""#), "a moment in UTC"),
            (revoke(r#""seen_before":"2026-11-21""#), "a moment in UTC"),
            (revoke(&format!(r#""seen_before":"{ahead}""#)), "lies in the future"),
            ((Call::Revoke, r#"{"token":"canary","actor":"a"}"#.to_owned()), "`reason` is missing"),
            ((Call::Revoke, r#"{"token":"canary","reason":"a"}"#.to_owned()), "`actor` is missing"),
            ((Call::Revoke, why("", "a")), "`reason` must be 1 to 200 characters"),
            ((Call::Revoke, why("  ", "a")), "`reason` must be"),
            ((Call::Revoke, why(&"é".repeat(201), "a")), "`reason` must be"),
            ((Call::Revoke, why(r"a\u000ab", "a")), "`reason` must be"),
            ((Call::Revoke, why("a", "")), "`actor` must be 1 to 100 characters"),
            ((Call::Revoke, why("a", &"a".repeat(101))), "`actor` must be"),
            ((Call::Revoke, why("a", r"\u001b[31mcanary")), "`actor` must be"),
        ];
        for ((call, body), expected) in cases {
            let fault = fault(call, &body);
            assert!(fault.contains(expected), "{body}: {fault}");
            assert!(!fault.contains("canary"), "{fault}");
        }
        let longest = why(&"é".repeat(200), &"é".repeat(100));
        assert_eq!(fault(Call::Revoke, &longest), "");
    }
}
