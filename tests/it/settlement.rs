//! Settlement on the money paths: what is owed passes with a dead token, a bet does not, and both are counted.

use crate::world::{Folder, GOOD, Reply, Request, World, answer, valkyrie, wallet};

const ADMIT: [&str; 1] = ["token.settlement=admit"];
const SETTLED: &str = r#"portcullis_decisions_total{check="all",mode="enforce",outcome="settled",reason="ok"}"#;
const ADMITTED: &str = r#"portcullis_decisions_total{check="all",mode="enforce",outcome="admitted",reason="ok"}"#;
const ENDED: &str =
    r#"portcullis_decisions_total{check="standing",mode="enforce",outcome="refused",reason="token_ended"}"#;

/// What a call is to come to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Settled,
    Refused,
}

/// Ends the token by `ending`, to which the PAM says `ended`, then makes every call over both protocols: its reply, what
/// the PAM got, the metrics and the log must agree about its fate. A refusal has the status and the code that are `expected`.
async fn assert_fates(
    world: World,
    (ending, ended): (Request, &'static str),
    code: fn(&Reply) -> serde_json::Value,
    expected: (u16, serde_json::Value),
    calls: Vec<(&str, Request, Fate)>,
) {
    world.pam.answer_with(move |_| answer(200, ended));
    assert_eq!(world.send(&ending).await.status, 200);
    world.pam.answer_with(|_| answer(200, GOOD));
    let (mut settled, mut refused) = (0, 0);
    for (what, call, fate) in &calls {
        for http2 in [false, true] {
            let reply = if http2 { world.send_h2(call).await } else { world.send(call).await };
            match fate {
                Fate::Settled => {
                    settled += 1;
                    assert_eq!((reply.status, &*reply.text()), (200, GOOD), "{what}");
                    let seen = world.pam.requests().pop().unwrap();
                    assert_eq!((seen.target, seen.body), (call.target.clone(), call.body.clone()), "{what}");
                }
                Fate::Refused => {
                    refused += 1;
                    assert_eq!((reply.status, code(&reply)), expected, "{what}");
                }
            }
            assert_eq!(world.pam.requests().len(), 1 + settled, "{what}");
        }
    }
    assert!(settled > 0 && refused > 0);
    let counted = |number: usize| f64::from(u32::try_from(number).unwrap());
    assert_eq!(world.metric(SETTLED).await, counted(settled));
    assert_eq!(world.metric(ENDED).await, counted(refused));
    assert_eq!(world.metric(ADMITTED).await, 1.0, "the ending itself");
    let lines = world.finish().await;
    let decided = |decision: &str| lines.iter().filter(|line| line["decision"] == decision).count();
    assert_eq!((decided("settled"), decided("refused"), decided("admitted")), (settled, refused, 1));
}

fn transaction(kind: &str) -> Request {
    valkyrie::call("POST", "/players/17/transactions?provider=x")
        .with("Content-Type", "application/json")
        .body(format!(r#"{{"transactionType":"{kind}","cashAmount":10.0}}"#))
}

#[tokio::test]
async fn at_a_valkyrie_pam_what_is_owed_is_settled_and_a_bet_is_refused() {
    let get = |path: &str| valkyrie::call("GET", &format!("{path}?provider=x"));
    let refresh = valkyrie::call("PUT", "/players/session?provider=x").body("null");
    let calls = vec![
        ("a win", transaction("DEPOSIT"), Fate::Settled),
        ("a bet", transaction("WITHDRAW"), Fate::Refused),
        ("a cancel", transaction("CANCEL"), Fate::Settled),
        ("a bet of a promotion", transaction("PROMOWITHDRAW"), Fate::Refused),
        ("a win of a promotion", transaction("PROMODEPOSIT"), Fate::Settled),
        ("a cancel of a promotion", transaction("PROMOCANCEL"), Fate::Settled),
        ("a look-up of a transaction", get("/players/17/transactions"), Fate::Settled),
        ("a look-up of a round", get("/players/17/gamerounds/r-1"), Fate::Settled),
        ("a look-up of a session", get("/players/session"), Fate::Settled),
        ("a balance", get("/players/17/balance"), Fate::Refused),
        ("a refresh", refresh.clone(), Fate::Refused),
    ];
    let world = World::of("config/valkyrie.toml", &ADMIT).await;
    let refusal = (401, "PAM_ERR_SESSION_EXPIRED".into());
    let refreshed = r#"{"status":"OK","session":{"token":"next"}}"#;
    assert_fates(world, (refresh, refreshed), valkyrie::code, refusal, calls).await;
}

/// The family has no look-up: its balance asks for a live session.
#[tokio::test]
async fn at_a_wallet_what_is_owed_is_settled_and_a_bet_is_refused() {
    let call = |operation: &str| wallet::signed(operation, &wallet::body("dead"));
    let calls = vec![
        ("a win", call("credit"), Fate::Settled),
        ("a bet", call("debit"), Fate::Refused),
        ("a cancel", call("rollback"), Fate::Settled),
        ("a balance", call("balance"), Fate::Refused),
        ("a new session", call("authenticate"), Fate::Refused),
        ("its end once more", call("terminate"), Fate::Refused),
    ];
    let world = World::of("config/wallet.toml", &ADMIT).await;
    let ending = (call("terminate"), r#"{"status":true,"code":1}"#);
    assert_fates(world, ending, wallet::code, (401, 401.into()), calls).await;
}

/// A family of the test's own: what a transaction is stands in two members of its body.
const OWN: &str = r#"
name = "own"
credential = "bearer"

[token]
at = "header:X-Session"
SETTLEMENT

[[route]]
name = "transact"
match = "POST /transactions"
settles = { "/kind" = ["WIN", 7], "/round/closed" = true }
ROUTE

[[route]]
name = "find"
match = "GET /transactions/{id}"
settles = true
ROUTE

[[route]]
name = "logout"
match = "DELETE /session"
retires = { status = 200 }

[reply]
body = '{"status":"ERROR","error":{"code":"{code}","message":"{message}"}}'
unauthenticated   = { status = 401, code = "auth",    message = "-" }
token_invalid     = { status = 401, code = "session", message = "-" }
token_ended       = { status = 403, code = "ended",   message = "-" }
not_found         = { status = 404, code = "route",   message = "-" }
missing_parameter = { status = 400, code = "request", message = "-" }
bad_request       = { status = 400, code = "request", message = "-" }
internal          = { status = 500, code = "fault",   message = "-" }
bad_gateway       = { status = 502, code = "unknown", message = "-" }
unavailable       = { status = 503, code = "retry",   message = "-" }
timeout           = { status = 504, code = "unknown", message = "-" }
"#;

async fn own_world(name: &str, token: &str, route: &str, set: &[&str]) -> World {
    let folder = Folder::new(name);
    folder.write("own.toml", &OWN.replace("SETTLEMENT", token).replace("ROUTE", route));
    let caller = "[[caller]]\nname = \"a\"\nbearer = { env = \"PAM_API_TOKEN\" }\n";
    World::of(&folder.config("\"./own.toml\"", caller, &[]), set).await
}

fn own(method: &str, path: &str) -> Request {
    valkyrie::call(method, path).without("X-Player-Token").with("X-Session", "a-session")
}

fn own_calls() -> Vec<(&'static str, Request, Fate)> {
    let transact = |body: &str| own("POST", "/transactions").with("Content-Type", "application/json").body(body);
    vec![
        ("a win", transact(r#"{"kind":"WIN","round":{"closed":true}}"#), Fate::Settled),
        ("a win by its number", transact(r#"{"kind":7,"round":{"closed":true},"amount":1}"#), Fate::Settled),
        ("a look-up", own("GET", "/transactions/t-1"), Fate::Settled),
        ("a bet", transact(r#"{"kind":"BET","round":{"closed":true}}"#), Fate::Refused),
        ("a win in an open round", transact(r#"{"kind":"WIN","round":{"closed":false}}"#), Fate::Refused),
        ("a win without a round", transact(r#"{"kind":"WIN"}"#), Fate::Refused),
        ("a closed round alone", transact(r#"{"round":{"closed":true}}"#), Fate::Refused),
        ("a number as text", transact(r#"{"kind":"7","round":{"closed":true}}"#), Fate::Refused),
        ("a boolean as text", transact(r#"{"kind":"WIN","round":{"closed":"true"}}"#), Fate::Refused),
        ("a round elsewhere", transact(r#"{"kind":"WIN","closed":true,"round":{}}"#), Fate::Refused),
        ("an end once more", own("DELETE", "/session"), Fate::Refused),
    ]
}

#[tokio::test]
async fn an_own_dialect_says_by_the_body_what_is_owed() {
    let admit = "settlement = \"admit\"";
    // Where it may be said: by the operator, for the family, and for a route.
    let worlds = [
        own_world("settlement-operator", "", "", &ADMIT).await,
        own_world("settlement-family", admit, "", &[]).await,
        own_world("settlement-route", "", admit, &[]).await,
    ];
    for world in worlds {
        let ending = (own("DELETE", "/session"), "{}");
        assert_fates(world, ending, valkyrie::code, (403, "ended".into()), own_calls()).await;
    }
}

#[tokio::test]
async fn an_own_dialect_is_strict_unless_it_says_otherwise() {
    let world = own_world("settlement-strict", "", "", &[]).await;
    assert_eq!(world.send(&own("DELETE", "/session")).await.status, 200);
    for (what, call, _) in own_calls() {
        let reply = world.send(&call).await;
        assert_eq!((reply.status, valkyrie::code(&reply)), (403, "ended".into()), "{what}");
    }
    assert_eq!(world.pam.requests().len(), 1);
    assert_eq!(world.metric(SETTLED).await, 0.0);
}
