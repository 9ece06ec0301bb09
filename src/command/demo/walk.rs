//! The walk: requests over real sockets, and what is promised of each.

use std::io::Write;
use std::time::{Duration, SystemTime};

use uuid::{Uuid, Version};

use super::Fault;
use super::accounts::{ALICE, OPERATOR, SLEEPY};
use super::page::{Page, Told};
use super::pam::{Seen, Touched};
use super::stage::{Family, Stage};
use crate::command::call::{Call, Reply};

/// A walk in progress.
pub struct Walk<'p, W> {
    page: &'p mut Page<W>,
    steps: usize,
    broken: usize,
}

/// A request, and what is promised of it.
struct Step<'a> {
    title: &'a str,
    call: Call,
    promise: Promise,
    why: &'a str,
}

struct Promise {
    status: u16,
    /// Stands in the body of the reply.
    says: &'static str,
    pam: Sight,
}

/// What the PAM sees of a request.
#[derive(Clone, Copy)]
enum Sight {
    /// Nothing, though it listens.
    Nothing,
    /// Nothing, for it is not there.
    Absent,
    /// The request, as it was sent.
    Request,
    /// The same, and the page is to show the ids that came with it.
    RequestWithIds,
}

impl<'p, W: Write> Walk<'p, W> {
    /// At its beginning.
    pub fn new(page: &'p mut Page<W>) -> Walk<'p, W> {
        Walk { page, steps: 0, broken: 0 }
    }

    /// Goes all the way.
    pub async fn through(&mut self, stage: &mut Stage) -> Result<(), Fault> {
        self.valkyrie(&stage.valkyrie).await?;
        self.wallet(&stage.wallet).await?;
        self.betstack(&mut stage.betstack).await
    }

    /// Says how it went; the number of promises that were not kept.
    pub fn end(self) -> Result<usize, Fault> {
        let (steps, kept) = (self.steps, self.steps - self.broken);
        self.page.title(&match self.broken {
            0 => format!("All {steps} came out as promised."),
            _ => format!("Only {kept} of {steps} came out as promised."),
        })?;
        self.page.flush()?;
        Ok(self.broken)
    }

    async fn valkyrie(&mut self, family: &Family) -> Result<(), Fault> {
        self.page
            .chapter("Valkyrie", "A bearer key or Basic credentials; the player token in a header; PUT ends it.")?;
        let key = family.authorization();
        let balance = Call::new("GET", "/players/alice/balance?provider=demo");
        let proven = |call: Call| call.with("Authorization", &key);
        let playing = |call: Call, token: &str| call.with("X-Player-Token", token);
        let refused = |says| Promise { status: 401, says, pam: Sight::Nothing };

        self.step(family, Step {
            title: "A good call",
            call: playing(proven(balance.clone()), ALICE.valkyrie),
            promise: Promise { status: 200, says: "cashAmount", pam: Sight::RequestWithIds },
            why: "The key is right, the token well formed and alive. The caller sent no ids, so Portcullis made them.",
        })
        .await?;
        self.step(
            family,
            Step {
                title: "No credential",
                call: playing(balance.clone(), ALICE.valkyrie),
                promise: refused("PAM_ERR_API_TOKEN"),
                why: "Whoever does not say who calls gets no further.",
            },
        )
        .await?;
        self.step(
            family,
            Step {
                title: "A wrong password",
                // operator:demo-guess
                call: playing(
                    balance.clone().with("Authorization", "Basic b3BlcmF0b3I6ZGVtby1ndWVzcw=="),
                    ALICE.valkyrie,
                ),
                promise: refused("PAM_ERR_API_TOKEN"),
                why: "That is operator:demo-guess in base64. The reply does not tell whether user or password was wrong.",
            },
        )
        .await?;
        self.step(family, Step {
            title: "A token that is too short",
            call: playing(proven(balance.clone()), "demo-session"),
            promise: refused("PAM_ERR_SESSION_NOT_FOUND"),
            why: "Tokens of this family have 32 to 40 characters. Nothing else can be one, so the PAM is not asked.",
        })
        .await?;
        self.step(
            family,
            Step {
                title: "A path that no route names",
                call: playing(proven(Call::new("GET", "/admin/players?provider=demo")), ALICE.valkyrie),
                promise: Promise { status: 404, says: "PAM_ERR_UNDEFINED", pam: Sight::Nothing },
                why: "What the dialect does not name does not exist, even for callers with the right key.",
            },
        )
        .await?;
        self.step(family, Step {
            title: "A path with dot segments",
            call: playing(proven(Call::new("GET", "/players/alice/../bob/balance?provider=demo")), ALICE.valkyrie),
            promise: Promise { status: 400, says: "PAM_ERR_UNDEFINED", pam: Sight::Nothing },
            why: "The PAM might read another path than the one that was checked. Portcullis refuses, it never repairs.",
        })
        .await?;
        let refreshed = self
            .step(
                family,
                Step {
                    title: "A refresh",
                    call: playing(proven(Call::new("PUT", "/players/session?provider=demo")), ALICE.valkyrie),
                    promise: Promise { status: 200, says: "token", pam: Sight::Request },
                    why: "The answer has a new token, so the old one ended, and did before this reply left.",
                },
            )
            .await?;
        self.step(
            family,
            Step {
                title: "The old token",
                call: playing(proven(balance.clone()), ALICE.valkyrie),
                promise: refused("PAM_ERR_SESSION_EXPIRED"),
                why: "Dead stays dead, whatever the PAM would say.",
            },
        )
        .await?;
        let fresh = serde_json::from_str::<serde_json::Value>(&refreshed.body).unwrap_or_default();
        let fresh = fresh.pointer("/session/token").and_then(serde_json::Value::as_str).unwrap_or_default();
        self.step(
            family,
            Step {
                title: "The new token, from a caller who brings ids",
                call: playing(proven(balance), fresh)
                    .with("X-Correlation-ID", "demo-4711")
                    .with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                promise: Promise { status: 200, says: "cashAmount", pam: Sight::RequestWithIds },
                why: "The new token lives. The ids are carried on; the second part of traceparent is new at every hop.",
            },
        )
        .await?;
        self.step(family, Step {
            title: "A PAM that is too slow",
            call: playing(proven(Call::new("GET", &format!("/players/{SLEEPY}/balance?provider=demo"))), fresh),
            promise: Promise { status: 504, says: "PAM_ERR_TIMEOUT", pam: Sight::Request },
            why: "Portcullis waits a second in the demo, nine by default. Then it says what it knows: the outcome is unknown.",
        })
        .await?;
        Ok(())
    }

    async fn wallet(&mut self, family: &Family) -> Result<(), Fault> {
        self.page.chapter(
            "Wallet",
            "Basic credentials, and an HMAC over every byte of the body; the token in the body; terminate ends it.",
        )?;
        let body = |amount| {
            let token = ALICE.wallet;
            format!(r#"{{"token":"{token}","player_id":1,"transaction_id":"bet-1","amount":{amount}}}"#)
        };
        let debit =
            |amount| Call::post("/api/wallet/debit", &body(amount)).with("Authorization", &family.authorization());
        let now = SystemTime::now();
        let good = family.sign(debit("5.00"), now)?;
        let refused = |says| Promise { status: 401, says, pam: Sight::Nothing };

        self.step(
            family,
            Step {
                title: "A good call",
                call: good.clone(),
                promise: Promise { status: 200, says: r#""status":true"#, pam: Sight::Request },
                why: "Credential and signature belong to the same caller, and these are the bytes it signed.",
            },
        )
        .await?;
        self.step(
            family,
            Step {
                title: "One byte changed",
                call: Call { body: body("9.00"), ..good },
                promise: refused("signature"),
                why: "The signature is that of 5.00, the body says 9.00.",
            },
        )
        .await?;
        self.step(
            family,
            Step {
                title: "A forged signature",
                call: family.forge(debit("5.00"), now)?,
                promise: refused("signature"),
                why: "Made with a guessed key. The password alone is not enough.",
            },
        )
        .await?;
        let leave = Call::post("/api/wallet/terminate", &format!(r#"{{"token":"{}","player_id":1}}"#, ALICE.wallet))
            .with("Authorization", &family.authorization());
        self.step(
            family,
            Step {
                title: "A terminate",
                call: family.sign(leave, now)?,
                promise: Promise { status: 200, says: r#""status":true"#, pam: Sight::Request },
                why: "The PAM said true, so the token ended, and did before this reply left.",
            },
        )
        .await?;
        self.step(
            family,
            Step {
                title: "A bet with the token that ended",
                call: family.sign(debit("5.00"), now)?,
                promise: refused("no longer valid"),
                why: "Proven and well formed, but too late. It does not reach the money.",
            },
        )
        .await?;
        Ok(())
    }

    async fn betstack(&mut self, family: &mut Family) -> Result<(), Fault> {
        self.page.chapter(
            "Betstack",
            "A timestamp and an HMAC over it and the body without white space; each message is let through once.",
        )?;
        let identify = identify(ALICE.betstack);
        let now = SystemTime::now();
        let good = family.sign(identify.clone(), now)?;

        self.step(family, Step {
            title: "A PAM that is not up yet",
            call: good.clone(),
            promise: Promise { status: 503, says: "nothing was executed", pam: Sight::Absent },
            why: "Our trouble is not the caller's guilt: 503 says that nothing was sent and that trying again is safe.",
        })
        .await?;
        family.open_pam()?;
        self.step(
            family,
            Step {
                title: "The same message again, now that the PAM is up",
                call: good.clone(),
                promise: Promise { status: 200, says: "player_id", pam: Sight::Request },
                why: "It has had no answer, so it is no replay: whoever was told to try again must get through.",
            },
        )
        .await?;
        let refused = || Promise { status: 403, says: "No access", pam: Sight::Nothing };
        self.step(
            family,
            Step {
                title: "The same message once more",
                call: good,
                promise: refused(),
                why: "Every byte is right and the time too, but this message has had its answer. Now it is a replay.",
            },
        )
        .await?;
        self.step(
            family,
            Step {
                title: "A stale timestamp",
                call: family.sign(identify, now - Duration::from_secs(600))?,
                promise: refused(),
                why: "Signed with the right key, but ten minutes ago; five are allowed.",
            },
        )
        .await?;
        Ok(())
    }

    async fn step(&mut self, family: &Family, step: Step<'_>) -> Result<Reply, Fault> {
        let before = family.pam.touched();
        let reply = step.call.send(&[family.address], PATIENCE).await?;
        let after = family.pam.touched();
        let seen = if after.requests == before.requests { None } else { family.pam.last() };
        let fault = step.promise.broken(&step.call, &reply, (before, after), seen.as_ref());
        self.steps += 1;
        self.broken += usize::from(fault.is_some());
        self.page.told(&Told {
            number: self.steps,
            title: step.title,
            call: &step.call,
            reply: &reply,
            pam: &step.promise.sight((before, after), seen.as_ref()),
            why: step.why,
            fault: fault.as_deref(),
        })?;
        Ok(reply)
    }
}

/// Betstack's question who has a token.
pub fn identify(token: &str) -> Call {
    Call::post("/pam", &format!(r#"{{"action":"identify","data":{{"operator":"{OPERATOR}","token":"{token}"}}}}"#))
}

impl Promise {
    /// What came out otherwise, if anything did.
    fn broken(&self, call: &Call, reply: &Reply, touched: (Touched, Touched), seen: Option<&Seen>) -> Option<String> {
        if reply.status != self.status {
            return Some(format!("status {}", self.status));
        }
        if !reply.body.contains(self.says) {
            return Some(format!("a body with {}", self.says));
        }
        let [correlation] = reply.correlation.as_slice() else {
            return Some("one X-Correlation-ID on the reply".to_owned());
        };
        let (before, after) = touched;
        match (self.pam, seen) {
            (Sight::Nothing | Sight::Absent, _) => (before != after).then(|| "that nothing reaches the PAM".to_owned()),
            (Sight::Request | Sight::RequestWithIds, Some(seen)) if after.requests == before.requests + 1 => {
                stamped(call, correlation, seen)
            }
            _ => Some("that the PAM sees it once".to_owned()),
        }
    }

    /// In words, from what there was to see.
    fn sight(&self, (before, after): (Touched, Touched), seen: Option<&Seen>) -> Vec<String> {
        match (self.pam, seen) {
            (Sight::Absent, None) => vec!["is not up yet: nothing can reach it".to_owned()],
            (_, None) if before == after => vec!["saw nothing: no connection, no byte".to_owned()],
            (_, None) => vec!["was touched, and saw no whole request".to_owned()],
            (Sight::RequestWithIds, Some(seen)) => {
                let correlation = seen.correlation.iter().map(|id| format!("X-Correlation-ID: {id}"));
                let trace = seen.traceparent.iter().map(|trace| format!("traceparent: {trace}"));
                std::iter::once("saw it, with".to_owned()).chain(correlation).chain(trace).collect()
            }
            (_, Some(_)) => vec!["saw it".to_owned()],
        }
    }
}

/// Whether the PAM saw what was sent, with one id of each kind: the caller's own, or a new one.
fn stamped(call: &Call, correlation: &str, seen: &Seen) -> Option<String> {
    if seen.line != format!("{} {}", call.method, call.target) || seen.body != call.body.as_bytes() {
        return Some("that the PAM sees the bytes that were sent".to_owned());
    }
    let sent = |name: &str| call.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let known = match sent("X-Correlation-ID") {
        Some(own) => own == correlation,
        None => Uuid::try_parse(correlation).is_ok_and(|id| id.get_version() == Some(Version::SortRand)),
    };
    if !known || seen.correlation != [correlation] {
        return Some("one X-Correlation-ID, the same on both sides".to_owned());
    }
    let [trace] = seen.traceparent.as_slice() else { return Some("one traceparent".to_owned()) };
    let parts: Vec<&str> = trace.split('-').collect();
    let own: Option<Vec<&str>> = sent("traceparent").map(|own| own.split('-').collect());
    let carried = match (parts.as_slice(), own.as_deref()) {
        (["00", trace, parent, _], None) => trace.len() == 32 && parent.len() == 16,
        (["00", trace, parent, _], Some([_, own_trace, own_parent, _])) => trace == own_trace && parent != own_parent,
        _ => false,
    };
    (!carried).then(|| "a traceparent of the same trace with a new parent".to_owned())
}

/// Longer than any time limit of the demo.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    const UNTOUCHED: Touched = Touched { connections: 0, bytes: 0, requests: 0 };
    const ID: &str = "0197f2a4-5b7c-7def-8123-456789abcdef";

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, correlation: vec![ID.to_owned()], body: body.to_owned() }
    }

    fn seen(line: &str, traceparent: &str) -> Seen {
        Seen {
            line: line.to_owned(),
            correlation: vec![ID.to_owned()],
            traceparent: vec![traceparent.to_owned()],
            body: bytes::Bytes::new(),
        }
    }

    fn refusal(reply: &Reply, after: Touched) -> Option<String> {
        let promise = Promise { status: 401, says: "no", pam: Sight::Nothing };
        promise.broken(&Call::new("GET", "/"), reply, (UNTOUCHED, after), None)
    }

    #[test]
    fn a_refusal_that_touches_the_pam_breaks_its_promise() {
        assert_eq!(refusal(&reply(401, "no"), UNTOUCHED), None);
        let touched = Touched { connections: 1, ..UNTOUCHED };
        assert_eq!(refusal(&reply(401, "no"), touched).as_deref(), Some("that nothing reaches the PAM"));
    }

    #[test]
    fn another_status_or_body_breaks_a_promise() {
        assert_eq!(refusal(&reply(200, "no"), UNTOUCHED).as_deref(), Some("status 401"));
        assert_eq!(refusal(&reply(401, "yes"), UNTOUCHED).as_deref(), Some("a body with no"));
    }

    #[test]
    fn a_request_must_reach_the_pam_once_and_as_it_was_sent() {
        let promise = Promise { status: 200, says: "", pam: Sight::Request };
        let call = Call::new("GET", "/a");
        let after = |requests| Touched { connections: 1, bytes: 9, requests };
        let trace = format!("00-{}-{}-00", "a".repeat(32), "b".repeat(16));
        let broken =
            |requests, seen: Option<&Seen>| promise.broken(&call, &reply(200, ""), (UNTOUCHED, after(requests)), seen);
        assert_eq!(broken(1, Some(&seen("GET /a", &trace))), None);
        assert_eq!(broken(2, Some(&seen("GET /a", &trace))).as_deref(), Some("that the PAM sees it once"));
        assert_eq!(broken(0, None).as_deref(), Some("that the PAM sees it once"));
        let other = broken(1, Some(&seen("GET /b", &trace)));
        assert_eq!(other.as_deref(), Some("that the PAM sees the bytes that were sent"));
        let untraced = broken(1, Some(&seen("GET /a", "00-a-b-00")));
        assert_eq!(untraced.as_deref(), Some("a traceparent of the same trace with a new parent"));
    }
}
