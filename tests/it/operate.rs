//! What an operator can do while it runs: end a token, take that back, look one up; by HTTP and by the commands.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::binary::{Running, portcullis};
use crate::leaks::spellings;
use crate::redis_server::RedisServer;
use crate::world::{
    Connection, Folder, PATIENCE, Pam, Reply, Request, World, answer, keys, operator, root, valkyrie, wallet,
};

const REASON: &str = "a device was stolen";

const ACTOR: &str = "night shift";

/// A wallet whose PAM ends a token when it is told to.
async fn wallet_world(set: &[&str]) -> World {
    let world = World::of("config/wallet.toml", &[&[operator::SET], set].concat()).await;
    world.pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    world
}

async fn send(world: &World, request: &Request) -> Reply {
    Connection::to(world.admin).await.send(request).await
}

/// A call of an operator with a reason and an actor.
fn order(path: &str, subject: Value) -> Request {
    let mut body = json!({ "reason": REASON, "actor": ACTOR });
    body.as_object_mut().unwrap().extend(subject.as_object().unwrap().clone());
    operator::call(path, &body)
}

async fn ask(world: &World, path: &str, subject: Value) -> Value {
    let reply = send(world, &order(path, subject)).await;
    assert_eq!((reply.status, reply.values("content-type")), (200, vec!["application/json"]), "{}", reply.text());
    reply.json()
}

async fn standing(world: &World, subject: Value) -> Value {
    let reply = send(world, &operator::call("/standing", &subject)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

async fn debit(world: &World, token: &str) -> u16 {
    world.send(&wallet::signed("debit", &wallet::body(token))).await.status
}

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}

#[tokio::test]
async fn an_operator_ends_a_token_takes_it_back_and_ends_it_anew() {
    let world = wallet_world(&[]).await;
    let token = json!({ "token": "t" });
    assert_eq!(debit(&world, "t").await, 200);
    assert_eq!(standing(&world, token.clone()).await["standing"], "alive");

    let ended = ask(&world, "/revoke", token.clone()).await;
    assert_eq!(keys(&ended), ["digest", "ended"]);
    assert_eq!(ended["ended"], 1);
    assert_eq!(debit(&world, "t").await, 401);
    assert_eq!(debit(&world, "another").await, 200);
    let known = standing(&world, token.clone()).await;
    assert_eq!((&known["standing"], &known["digest"]), (&json!("ended"), &ended["digest"]));
    assert!((86_000.0..=86_400.0).contains(&known["forgotten_in_s"].as_f64().unwrap()), "{known}");
    assert_eq!(ask(&world, "/revoke", token.clone()).await["ended"], 0);

    let pardoned = ask(&world, "/unrevoke", token.clone()).await;
    assert_eq!(pardoned, json!({ "pardoned": true, "digest": ended["digest"] }));
    assert_eq!(debit(&world, "t").await, 200);
    assert_eq!(standing(&world, token.clone()).await["standing"], "pardoned");

    // By the PAM, and by hand.
    assert_eq!(world.send(&wallet::signed("terminate", &wallet::body("t"))).await.status, 200);
    assert_eq!(debit(&world, "t").await, 401);
    ask(&world, "/unrevoke", token.clone()).await;
    assert_eq!(debit(&world, "t").await, 200);
    assert_eq!(ask(&world, "/revoke", token).await["ended"], 1);
    assert_eq!(debit(&world, "t").await, 401);
    let reached = world.pam.requests().iter().filter(|seen| seen.target.ends_with("debit")).count();
    assert_eq!(reached, 4);
    assert_eq!(world.metric(r#"portcullis_revocations_total{cause="operator"}"#).await, 2.0);
    assert_eq!(world.metric(r#"portcullis_revocations_total{cause="answer"}"#).await, 1.0);
    assert_eq!(world.metric("portcullis_revocations_live").await, 1.0);
}

#[tokio::test]
async fn a_token_never_recorded_needs_no_pardon_and_none_is_recorded() {
    let world = wallet_world(&[]).await;
    assert_eq!(ask(&world, "/unrevoke", json!({ "token": "t" })).await["pardoned"], false);
    assert_eq!(standing(&world, json!({ "token": "t" })).await["standing"], "alive");
    assert_eq!(world.metric("portcullis_revocations_live").await, 0.0);
    let lines = world.finish().await;
    assert_eq!((&lines[0]["event"], &lines[0]["pardoned"]), (&json!("unrevoked"), &json!(false)));
}

#[tokio::test]
async fn a_digest_from_the_log_ends_its_token() {
    let pam = Pam::start().await;
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &["--set", operator::SET]);
    let call = || wallet::signed("debit", &wallet::body("t"));
    assert_eq!(running.send(&call()).await, 200);
    let line = running.next_event();
    let digest = line["token"].as_str().unwrap();
    for (path, member, status, expected) in
        [("/revoke", "ended", 401, json!(1)), ("/unrevoke", "pardoned", 200, json!(true))]
    {
        let mut admin = Connection::to(running.admin.parse().unwrap()).await;
        let reply = admin.send(&order(path, json!({ "digest": digest }))).await.json();
        assert_eq!((&reply[member], &reply["digest"]), (&expected, &json!(digest)));
        assert_eq!(running.send(&call()).await, status, "{path}");
    }
    assert_eq!(pam.requests().len(), 2);
}

#[tokio::test]
async fn what_an_operator_did_outlives_a_kill() {
    let folder = Folder::new("operate-journal");
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    let pam = Pam::start().await;
    let start =
        || Running::start("config/wallet.toml", &pam.address.to_string(), &["--set", operator::SET, "--set", &journal]);
    let mut first = start();
    let mut admin = Connection::to(first.admin.parse().unwrap()).await;
    for (path, token) in [("/revoke", "ended"), ("/revoke", "pardoned"), ("/unrevoke", "pardoned")] {
        assert_eq!(admin.send(&order(path, json!({ "token": token }))).await.status, 200);
    }
    first.kill();
    let second = start();
    for (token, status) in [("ended", 401), ("pardoned", 200), ("other", 200)] {
        assert_eq!(second.send(&wallet::signed("debit", &wallet::body(token))).await, status, "{token}");
    }
    let mut admin = Connection::to(second.admin.parse().unwrap()).await;
    let reply = admin.send(&operator::call("/standing", &json!({ "token": "pardoned" }))).await;
    assert_eq!(reply.json()["standing"], "pardoned");
}

#[tokio::test]
async fn what_an_operator_does_on_one_replica_counts_on_all() {
    let redis = RedisServer::start("operate", &[]).await;
    let shared = redis.set();
    let (one, other) = (wallet_world(&[&shared]).await, wallet_world(&[&shared]).await);
    for world in [&one, &other] {
        world.portcullis.ready().await;
    }
    let until = async |token: &str, status: u16| {
        let reached = async { while debit(&other, token).await != status {} };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    };
    ask(&one, "/revoke", json!({ "token": "t" })).await;
    until("t", 401).await;
    // What the other did is known before it is taken back.
    let digest = ask(&other, "/revoke", json!({ "token": "u" })).await["digest"].clone();
    assert_eq!(ask(&one, "/unrevoke", json!({ "digest": digest })).await["pardoned"], true);
    until("u", 200).await;
    assert_eq!(debit(&other, "t").await, 401);
}

// threat: F12
#[tokio::test]
async fn without_the_secret_nothing_is_done() {
    let world = wallet_world(&[]).await;
    let good = || order("/revoke", json!({ "token": "t" }));
    let with = |value: &str| good().replacing("Authorization", value);
    let bearer = format!("Bearer {}", operator::TOKEN);
    let cases = [
        (good().without("Authorization"), "credential_missing"),
        (good().with("Authorization", &bearer), "credential_repeated"),
        (good().with("authorization", "Bearer other-than-the-first"), "credential_repeated"),
        (with(&bearer[..bearer.len() - 1]), "credential_wrong"),
        (with(&format!("{bearer}x")), "credential_wrong"),
        (with(&bearer.to_uppercase()), "credential_wrong"),
        (with(&format!("Bearer {}", "x".repeat(8000))), "credential_wrong"),
        (with(operator::TOKEN), "credential_malformed"),
        (with(&format!("Bearer  {}", operator::TOKEN)), "credential_malformed"),
        (with("Bearer "), "credential_malformed"),
        (with(&crate::world::basic("operator", operator::TOKEN)), "credential_malformed"),
    ];
    for (request, reason) in &cases {
        let reply = send(&world, request).await;
        assert_eq!((reply.status, reply.values("www-authenticate")), (401, vec!["Bearer"]), "{reason}");
        // The same to all of them.
        let told = json!({ "error": "the admin token is needed, in one Authorization: Bearer …" });
        assert_eq!(reply.json(), told, "{reason}");
    }
    for path in ["/unrevoke", "/standing"] {
        let request = operator::call(path, &json!({ "token": "t" })).without("Authorization");
        assert_eq!(send(&world, &request).await.status, 401, "{path}");
    }
    assert_eq!(debit(&world, "t").await, 200);
    let outcome = |call: &str| format!("portcullis_admin_calls_total{{call=\"{call}\",outcome=\"unauthenticated\"}}");
    assert_eq!(world.metric(&outcome("revoke")).await, cases.len() as f64);
    assert_eq!(world.metric(&outcome("standing")).await, 1.0);
    let lines = world.finish().await;
    for ((_, reason), line) in cases.iter().zip(&lines) {
        let found = ["level", "event", "call", "why"].map(|name| line[name].as_str().unwrap());
        assert_eq!(found, ["warn", "admin_refused", "revoke", reason]);
        assert_eq!(line["status"], 401);
    }
}

/// A stranger's body is not even asked for.
// threat: F12
#[tokio::test]
async fn no_byte_of_a_strangers_body_is_waited_for() {
    let world = wallet_world(&[]).await;
    let mut connection = Connection::to(world.admin).await;
    connection.write(b"POST /revoke HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\nExpect: 100-continue\r\n\r\n").await;
    let reply = String::from_utf8(connection.rest().await).unwrap();
    assert!(reply.starts_with("HTTP/1.1 401 "), "{reply}");
}

#[tokio::test]
async fn while_secrets_rotate_any_of_them_opens() {
    let folder = Folder::new("operate-rotation");
    folder.write("older", "the-older-of-the-secrets\n");
    folder.write("newer", "the-newer-of-the-secrets\n");
    let folder = folder.path().display();
    let set = format!("admin_token=[{{file=\"{folder}/older\"}}, {{file=\"{folder}/newer\"}}]");
    let world = World::of("config/wallet.toml", &[&set]).await;
    for (secret, status) in
        [("the-older-of-the-secrets", 200), ("the-newer-of-the-secrets", 200), ("the-other-of-the-secrets", 401)]
    {
        let request = order("/revoke", json!({ "token": "t" })).replacing("Authorization", &format!("Bearer {secret}"));
        assert_eq!(send(&world, &request).await.status, status, "{secret}");
    }
}

#[tokio::test]
async fn unless_it_is_configured_there_is_no_such_call() {
    let world = World::wallet().await;
    for path in ["/revoke", "/unrevoke", "/standing"] {
        for method in ["POST", "GET", "PUT"] {
            let request = Request { method: method.to_owned(), ..order(path, json!({ "token": "t" })) };
            let unknown = Request { target: "/unknown".to_owned(), ..request.clone() };
            let [found, unknown] = [send(&world, &request).await, send(&world, &unknown).await];
            assert_eq!(found.status, 404, "{method} {path}");
            assert_eq!((found.fields.clone(), found.text()), (unknown.fields.clone(), unknown.text()));
            assert_eq!(found.text(), "there are / /metrics /livez /readyz /status\n");
        }
    }
    assert_eq!(debit(&world, "t").await, 200);
    assert_eq!(world.metric("portcullis_sightings_remembered").await, 0.0);
    assert_eq!(world.admin("/status").await.json().get("sightings"), None);
}

// threat: C7
#[tokio::test]
async fn the_traffic_address_takes_no_such_call() {
    let world = wallet_world(&[]).await;
    for path in ["/revoke", "/unrevoke", "/standing"] {
        assert_eq!(world.send(&order(path, json!({ "token": "t" }))).await.status, 404, "{path}");
    }
    assert_eq!(debit(&world, "t").await, 200);
}

// threat: F12
#[tokio::test]
async fn what_is_not_a_plain_call_of_a_tool_is_refused() {
    let world = wallet_world(&["token.length=[2, 40]"]).await;
    let good = || order("/revoke", json!({ "token": "canary" }));
    let mut sent = 0;
    let mut refused = async |what: &str, request: Request, status: u16, sentence: &str| {
        sent += 1;
        let reply = send(&world, &request).await;
        assert_eq!((reply.status, reply.values("content-type")), (status, vec!["application/json"]), "{what}");
        let body = reply.json();
        assert_eq!(keys(&body), ["error"], "{what}");
        assert!(body["error"].as_str().unwrap().contains(sentence), "{what}: {body}");
        assert!(!reply.text().contains("canary"), "{what}: {body}");
        let allow: &[&str] = if status == 405 { &["POST"] } else { &[] };
        assert_eq!(reply.values("allow"), allow, "{what}");
    };
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        refused(method, Request { method: method.to_owned(), ..good() }, 405, "only POST").await;
    }
    for origin in ["null", "http://127.0.0.1:9901", ""] {
        refused("an origin", good().with("Origin", origin), 403, "browser").await;
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "*/*"] {
        refused(kind, good().replacing("Content-Type", kind), 415, "application/json").await;
    }
    refused("no type", good().without("Content-Type"), 415, "application/json").await;
    refused("two types", good().with("Content-Type", "application/json"), 415, "application/json").await;
    let long = good().body(format!("{{\"token\":\"canary\"{}}}", " ".repeat(8 << 10)));
    refused("a long body", long, 413, "8192 bytes").await;
    let target = "/revoke?token=canary".to_owned();
    refused("a query", Request { target, ..good() }, 400, "behind the path").await;
    for (body, sentence) in [
        ("", "strict JSON"),
        ("canary", "strict JSON"),
        (r#"{"token":"canary","token":"canary"}"#, "duplicate key"),
        (r#"["canary"]"#, "object"),
        (r#"{"token":"canary","canary":1,"reason":"r","actor":"a"}"#, "unknown member"),
        (r#"{"token":"canary","digest":"canary","reason":"r","actor":"a"}"#, "exactly one of"),
        (r#"{"token":"canary","reason":"r"}"#, "`actor` is missing"),
        (r#"{"token":"canary","reason":"\n","actor":"a"}"#, "`reason` must be"),
        (r#"{"seen_before":"canary","reason":"r","actor":"a"}"#, "a moment in UTC"),
        (r#"{"seen_before":"9999-01-01T00:00:00Z","reason":"r","actor":"a"}"#, "in the future"),
        (r#"{"digest":"canary","reason":"r","actor":"a"}"#, "32 hexadecimal digits"),
        (r#"{"token":"c","reason":"r","actor":"a"}"#, "2 to 40 visible ASCII characters"),
        (r#"{"token":"canary canary","reason":"r","actor":"a"}"#, "visible ASCII"),
    ] {
        refused(body, good().body(body), 400, sentence).await;
    }
    assert_eq!(debit(&world, "canary").await, 200);
    assert_eq!(world.metric("portcullis_revocations_live").await, 0.0);
    assert_eq!(world.metric(r#"portcullis_admin_calls_total{call="revoke",outcome="malformed"}"#).await, sent as f64);
    let lines = world.finish().await;
    let refusals: Vec<_> = lines.iter().filter(|line| line["event"] == "admin_refused").collect();
    assert_eq!(refusals.len(), sent);
    assert_eq!(refusals.iter().find(|line| line.to_string().contains("canary")), None);
}

#[tokio::test]
async fn a_charset_is_no_other_type() {
    let world = wallet_world(&[]).await;
    let request = order("/revoke", json!({ "token": "t" }));
    let request = request.replacing("Content-Type", "Application/JSON; charset=utf-8");
    assert_eq!(send(&world, &request).await.status, 200);
}

#[tokio::test]
async fn a_family_without_tokens_has_none_to_end() {
    let folder = Folder::new("operate-tokenless");
    let dialect = std::fs::read_to_string(root().join("tests/vectors/dialects/github.toml")).unwrap();
    folder.write("tokenless.toml", &dialect);
    let config = folder.config(
        "\"./tokenless.toml\"",
        "[[caller]]\nname = \"a\"\nsigning = [{ id = \"1\", key = { env = \"WALLET_SIGNING_KEY\" } }]",
        &[],
    );
    let world = World::of(&config, &[operator::SET]).await;
    let reply = send(&world, &order("/revoke", json!({ "token": "t" }))).await;
    assert_eq!((reply.status, reply.json()), (400, json!({ "error": "the dialect `github` has no player tokens" })));
}

#[tokio::test]
async fn a_full_memory_ends_no_more_and_can_still_be_pardoned() {
    let world = wallet_world(&["revocation.capacity=1"]).await;
    ask(&world, "/revoke", json!({ "token": "a" })).await;
    let reply = send(&world, &order("/revoke", json!({ "token": "b" }))).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("nothing was recorded (revocation memory full)"), "{}", reply.text());
    assert_eq!((debit(&world, "a").await, debit(&world, "b").await), (401, 200));
    assert_eq!(world.metric(r#"portcullis_admin_calls_total{call="revoke",outcome="unavailable"}"#).await, 1.0);
    assert_eq!(ask(&world, "/unrevoke", json!({ "token": "a" })).await["pardoned"], true);
    assert_eq!(debit(&world, "a").await, 200);
    let lines = world.finish().await;
    assert_eq!(lines[1]["event"], "admin_refused");
    assert_eq!((&lines[1]["why"], &lines[1]["status"]), (&json!("revocation_memory_full"), &json!(503)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_has_not_taken_counts_here_and_is_said() {
    let (folder, pam) = (Folder::new("operate-refused"), Pam::start().await);
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    let set = ["--set", operator::SET, "--set", &journal];
    let mut running = Running::start_ignoring_sigxfsz("config/wallet.toml", &pam.address.to_string(), &set);
    let mut admin = Connection::to(running.admin.parse().unwrap()).await;
    running.disk_takes("4096");
    let reply = admin.send(&order("/revoke", json!({ "token": "meanwhile" }))).await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("may be forgotten by a restart"), "{}", reply.text());
    let line = running.next_event();
    assert_eq!(
        ["level", "event", "failure"].map(|name| line[name].as_str().unwrap()),
        ["error", "revoked", "journal_failed"]
    );
    assert_eq!(running.send(&wallet::signed("debit", &wallet::body("meanwhile"))).await, 401);
    let reply = admin.send(&order("/revoke", json!({ "token": "refused" }))).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("nothing was recorded (journal failing)"), "{}", reply.text());
    assert_eq!(running.send(&wallet::signed("debit", &wallet::body("refused"))).await, 200);
    running.disk_takes("unlimited");
    // On connections of their own: one is ended after some thousands of requests.
    let after = async || {
        Connection::to(running.admin.parse().unwrap()).await.send(&order("/revoke", json!({ "token": "after" }))).await
    };
    let again = async { while after().await.status != 200 {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn all_tokens_seen_before_a_moment_end_and_none_that_was_first_seen_after_it() {
    let world = wallet_world(&[]).await;
    for token in ["a", "b", "ended", "pardoned"] {
        assert_eq!(debit(&world, token).await, 200);
    }
    for (path, token) in [("/revoke", "ended"), ("/revoke", "pardoned"), ("/unrevoke", "pardoned")] {
        ask(&world, path, json!({ "token": token })).await;
    }
    let moment = timestamp(SystemTime::now());
    // Seen again does not make it newer.
    for token in ["later", "a"] {
        assert_eq!(debit(&world, token).await, 200);
    }
    assert_eq!(world.metric("portcullis_sightings_remembered").await, 5.0);
    let swept = ask(&world, "/revoke", json!({ "seen_before": moment })).await;
    assert_eq!(keys(&swept), ["complete", "ended", "seen_since", "unremembered"]);
    assert_eq!((&swept["ended"], &swept["complete"], &swept["unremembered"]), (&json!(2), &json!(true), &json!(0)));
    let since = humantime::parse_rfc3339(swept["seen_since"].as_str().unwrap()).unwrap();
    assert!(since < humantime::parse_rfc3339(&moment).unwrap());
    for (token, status) in [("a", 401), ("b", 401), ("ended", 401), ("pardoned", 200), ("later", 200), ("never", 200)] {
        assert_eq!(debit(&world, token).await, status, "{token}");
    }
    assert_eq!(ask(&world, "/revoke", json!({ "seen_before": moment })).await["ended"], 0);
    assert_eq!(world.metric(r#"portcullis_revocations_total{cause="operator"}"#).await, 4.0);
    let lines = world.finish().await;
    let line = lines.iter().find(|line| line["event"] == "revoked_seen_before").unwrap();
    assert_eq!((&line["seen_before"], &line["ended"]), (&json!(moment), &json!(2)));
}

#[tokio::test]
async fn a_token_that_was_refused_before_it_was_checked_was_not_seen() {
    let world = wallet_world(&[]).await;
    let unsigned = wallet::signed("debit", &wallet::body("t")).without("X-Request-Signature");
    assert_eq!(world.send(&unsigned).await.status, 401);
    assert_eq!(world.metric("portcullis_sightings_remembered").await, 0.0);
}

#[tokio::test]
async fn sightings_that_found_no_place_are_told() {
    let world = wallet_world(&["revocation.capacity=1"]).await;
    assert_eq!(debit(&world, "a").await, 200);
    let full = timestamp(SystemTime::now());
    for _ in 0..3 {
        assert_eq!(debit(&world, "b").await, 200);
    }
    let about = world.admin("/status").await.json()["sightings"].clone();
    assert_eq!((&about["remembered"], &about["capacity"], &about["unremembered"]), (&json!(1), &json!(1), &json!(3)));
    assert_eq!(world.metric("portcullis_sightings_missed_total").await, 3.0);
    let now = timestamp(SystemTime::now());
    let swept = ask(&world, "/revoke", json!({ "seen_before": now })).await;
    let expected = json!({ "ended": 1, "complete": false, "unremembered": 3, "seen_since": about["since"] });
    assert_eq!(swept, expected);
    // All that was seen before it was full is known.
    assert_eq!(ask(&world, "/revoke", json!({ "seen_before": full })).await["complete"], true);
    assert_eq!((debit(&world, "a").await, debit(&world, "b").await), (401, 200));
}

#[tokio::test]
async fn without_room_for_all_that_were_seen_none_ends() {
    let world = wallet_world(&["revocation.capacity=2"]).await;
    for token in ["a", "b"] {
        assert_eq!(debit(&world, token).await, 200);
    }
    ask(&world, "/revoke", json!({ "token": "c" })).await;
    let now = timestamp(SystemTime::now());
    assert_eq!(send(&world, &order("/revoke", json!({ "seen_before": now }))).await.status, 503);
    assert_eq!((debit(&world, "a").await, debit(&world, "b").await), (200, 200));
}

#[tokio::test]
async fn each_thing_done_has_a_line_that_says_who_and_why() {
    let world = wallet_world(&[]).await;
    let digest = ask(&world, "/revoke", json!({ "token": "t" })).await["digest"].clone();
    ask(&world, "/unrevoke", json!({ "token": "t" })).await;
    ask(&world, "/revoke", json!({ "seen_before": timestamp(SystemTime::now()) })).await;
    standing(&world, json!({ "token": "t" })).await;
    let lines = world.finish().await;
    assert_eq!(lines.len(), 3);
    let common = ["actor", "event", "level", "reason", "timestamp"];
    let seen = ["complete", "ended", "seen_before", "seen_since", "unremembered"];
    let expected = [
        ("revoked", "warn", &["ended", "token"][..]),
        ("unrevoked", "info", &["pardoned", "token"]),
        ("revoked_seen_before", "warn", &seen),
    ];
    for (line, (event, level, more)) in lines.iter().zip(expected) {
        let mut members = [&common[..], more].concat();
        members.sort_unstable();
        assert_eq!(keys(line), members);
        let said = ["event", "level", "reason", "actor"].map(|name| line[name].as_str().unwrap());
        assert_eq!(said, [event, level, REASON, ACTOR]);
        assert!(humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).is_ok());
        if more.contains(&"token") {
            assert_eq!(line["token"], digest);
        }
    }
}

// threat: C14
#[tokio::test]
async fn neither_the_secret_nor_a_token_comes_out() {
    const TOKEN: &str = "canary/player+token=of-a-session-1";
    const WRONG: &str = "canary-wrong-admin-token";
    let world = wallet_world(&[]).await;
    debit(&world, TOKEN).await;
    let subject = json!({ "token": TOKEN });
    let good = || order("/revoke", subject.clone());
    let requests = [
        operator::call("/standing", &subject),
        good(),
        order("/unrevoke", subject.clone()),
        order("/revoke", json!({ "seen_before": timestamp(SystemTime::now()) })),
        good().replacing("Authorization", &format!("Bearer {WRONG}")),
        good().replacing("Authorization", operator::TOKEN),
        good().with("Authorization", WRONG),
        good().with("Origin", WRONG),
        good().replacing("Content-Type", WRONG),
        good().body(TOKEN),
        good().body(json!({ "token": format!("{TOKEN} {WRONG}"), "reason": "r", "actor": "a" }).to_string()),
        good().body(json!({ TOKEN: WRONG, "reason": "r", "actor": "a" }).to_string()),
        Request { target: format!("/revoke?token={TOKEN}"), ..good() },
        Request { target: format!("/{WRONG}"), ..good() },
    ];
    let mut heard = String::new();
    for request in &requests {
        let reply = send(&world, request).await;
        heard.push_str(&format!("{:?} {}\n", reply.fields, reply.text()));
    }
    for page in ["/metrics", "/status", "/readyz", "/livez", "/canary"] {
        heard.push_str(&world.admin(page).await.text());
    }
    for line in world.finish().await {
        heard.push_str(&format!("{line}\n"));
    }
    assert!(heard.contains("portcullis_admin_calls_total"));
    for needle in spellings(&[operator::TOKEN, TOKEN, WRONG], &[]) {
        assert_eq!(heard.lines().find(|line| line.contains(&needle)), None, "{needle}");
    }
}

/// A config whose Portcullis runs, and the commands as an operator gives them.
struct Operated {
    running: Running,
}

impl Operated {
    async fn start(pam: &Pam) -> Operated {
        let set = ["--set", operator::SET];
        Operated { running: Running::start("config/wallet.toml", &pam.address.to_string(), &set) }
    }

    fn run(&self, command: &str, arguments: &[&str], stdin: &str) -> (i32, String, String) {
        let mut all = vec![command, "--config", "config/wallet.toml", "--set", operator::SET];
        all.extend(["--admin", &self.running.admin]);
        all.extend(arguments);
        with_stdin(&all, stdin)
    }

    async fn debit(&self, token: &str) -> u16 {
        self.running.send(&wallet::signed("debit", &wallet::body(token))).await
    }
}

fn with_stdin(arguments: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = portcullis();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who does not read it has ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

const WHY: [&str; 4] = ["--reason", REASON, "--actor", ACTOR];

fn json_of((code, stdout, stderr): (i32, String, String)) -> Value {
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.ends_with("}\n"), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

#[tokio::test]
async fn the_commands_end_a_token_take_it_back_and_look_it_up() {
    let pam = Pam::start().await;
    let operated = Operated::start(&pam).await;
    let ended = json_of(operated.run("revoke", &[&["--token", "t"][..], &WHY].concat(), ""));
    assert_eq!(ended["ended"], 1);
    assert_eq!(operated.debit("t").await, 401);
    let digest = ended["digest"].as_str().unwrap();
    let known = json_of(operated.run("status", &["--digest", digest], ""));
    assert_eq!((&known["standing"], &known["digest"]), (&json!("ended"), &json!(digest)));
    let pardoned = json_of(operated.run("unrevoke", &[&["--digest", digest][..], &WHY].concat(), ""));
    assert_eq!(pardoned["pardoned"], true);
    assert_eq!(operated.debit("t").await, 200);

    // From standard input, with any line end, and only its first line.
    for line in ["u", "u\n", "u\r\n", "u\nv\n"] {
        json_of(operated.run("unrevoke", &[&["--token", "-"][..], &WHY].concat(), line));
        assert_eq!(operated.debit("u").await, 200);
        json_of(operated.run("revoke", &[&["--token", "-"][..], &WHY].concat(), line));
        assert_eq!(operated.debit("u").await, 401, "{line:?}");
    }
    assert_eq!(json_of(operated.run("status", &["--token", "-"], "u\n"))["standing"], "ended");

    let now = timestamp(SystemTime::now());
    let swept = json_of(operated.run("revoke", &[&["--seen-before", &now][..], &WHY].concat(), ""));
    assert_eq!((&swept["ended"], &swept["complete"]), (&json!(0), &json!(true)));
    let status = json_of(operated.run("status", &[], ""));
    assert_eq!((&status["dialect"], &status["revocations"]["live"]), (&json!("wallet"), &json!(2)));
}

#[tokio::test]
async fn who_does_it_is_the_user_of_the_environment_unless_said() {
    let pam = Pam::start().await;
    let mut operated = Operated::start(&pam).await;
    let arguments = ["--token", "t", "--reason", REASON];
    let (code, stdout, stderr) = operated.run("revoke", &arguments, "");
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert!(stderr.contains("--actor"), "{stderr}");
    let admin = operated.running.admin.clone();
    let mut command = portcullis();
    command.env("USER", "somebody").args(["revoke", "--config", "config/wallet.toml", "--set", operator::SET]);
    let output = command.args(["--admin", &admin]).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let line = operated.running.next_event();
    assert_eq!((&line["event"], &line["actor"]), (&json!("revoked"), &json!("somebody")));
}

#[tokio::test]
async fn what_listens_everywhere_is_reached_by_loopback() {
    let pam = Pam::start().await;
    let upstream = pam.address.to_string();
    for (host, family) in [("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")] {
        if std::net::TcpListener::bind(format!("{family}:0")).is_err() {
            // A machine without IPv6.
            continue;
        }
        let arguments = ["--admin", &format!("{host}:0"), "--set", operator::SET];
        let running = Running::start_at("config/wallet.toml", &upstream, &arguments);
        assert!(running.admin.starts_with(host), "{}", running.admin);
        let arguments = ["status", "--config", "config/wallet.toml", "--admin", &running.admin];
        assert_eq!(json_of(with_stdin(&arguments, ""))["dialect"], "wallet");
    }
}

#[tokio::test]
async fn wrong_usage_of_the_commands_exits_with_64_and_calls_nobody() {
    let pam = Pam::start().await;
    let operated = Operated::start(&pam).await;
    let token = ["--token", "t"];
    let cases: [(&str, Vec<&str>, &str, &str); 14] = [
        ("revoke", WHY.to_vec(), "", "--seen-before"),
        ("revoke", [&token[..], &["--digest", "x"], &WHY].concat(), "", "--digest"),
        ("revoke", [&token[..], &["--actor", "a"]].concat(), "", "--reason"),
        ("revoke", [&token[..], &["--actor", "a", "--reason", ""]].concat(), "", "`reason`"),
        ("revoke", [&token[..], &["--actor", "a", "--reason", "a\nb"]].concat(), "", "`reason`"),
        ("revoke", [&["--digest", "canary"][..], &WHY].concat(), "", "32 hexadecimal digits"),
        ("revoke", [&["--seen-before", "yesterday"][..], &WHY].concat(), "", "a moment in UTC"),
        ("revoke", [&["--seen-before", "9999-01-01T00:00:00Z"][..], &WHY].concat(), "", "in the future"),
        ("revoke", [&["--token", "-"][..], &WHY].concat(), "", "standard input"),
        ("revoke", [&["--token", "-"][..], &WHY].concat(), "\ncanary\n", "standard input"),
        ("unrevoke", WHY.to_vec(), "", "--digest"),
        ("unrevoke", [&["--seen-before", "2026-01-01T00:00:00Z"][..], &WHY].concat(), "", "--seen-before"),
        ("status", vec!["--token", "t", "--digest", "x"], "", "--digest"),
        ("status", vec!["--digest", "x"], "", "32 hexadecimal digits"),
    ];
    for (command, arguments, stdin, expected) in cases {
        let (code, stdout, stderr) = operated.run(command, &arguments, stdin);
        assert_eq!((code, stdout.as_str()), (64, ""), "{command} {arguments:?}");
        assert!(stderr.contains(expected), "{command} {arguments:?}: {stderr}");
        assert!(!stderr.contains("canary"), "{stderr}");
    }
    assert_eq!(operated.debit("t").await, 200);
}

#[test]
fn a_config_without_what_the_commands_need_exits_with_78_and_says_which_key() {
    let folder = Folder::new("operate-config");
    let text = std::fs::read_to_string(root().join("config/wallet.toml")).unwrap();
    let bare: String = text.lines().filter(|line| !line.starts_with("admin")).map(|line| format!("{line}\n")).collect();
    assert_ne!(bare.lines().count(), text.lines().count());
    let bare = folder.write("bare.toml", &bare);
    let token = ["--token", "t"];
    let revoke = [&["revoke", "--config", "config/wallet.toml"][..], &token, &WHY].concat();
    let cases = [
        (
            revoke,
            "config/wallet.toml: `admin_token` is missing; add for example admin_token = { env = \"ADMIN_TOKEN\" }",
        ),
        (vec!["status", "--config", "config/wallet.toml", "--token", "t"], "`admin_token` is missing"),
        (vec!["status", "--config", &bare], "`admin` is missing; add for example admin = \"127.0.0.1:9901\""),
        (vec!["status", "--config", &bare, "--set", operator::SET], "there is none; add admin = \"127.0.0.1:9901\""),
        (vec!["status", "--config", "no/such.toml"], "no/such.toml"),
    ];
    for (arguments, expected) in cases {
        let (code, stdout, stderr) = with_stdin(&arguments, "");
        assert_eq!((code, stdout.as_str()), (78, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_call_that_fails_exits_with_1_and_says_what_was_said() {
    let pam = Pam::start().await;
    let upstream = pam.address.to_string();
    let without = Running::start("config/wallet.toml", &upstream, &[]);
    let full = ["--set", operator::SET, "--set", "revocation.capacity=1"];
    let full = Operated { running: Running::start("config/wallet.toml", &upstream, &full) };
    let other = ["--set", "admin_token={ env = \"BETSTACK_SECRET\" }"];
    let other = Operated { running: Running::start("config/wallet.toml", &upstream, &other) };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    json_of(full.run("revoke", &[&["--token", "a"][..], &WHY].concat(), ""));
    let revoke = [&["--token", "b"][..], &WHY].concat();
    let invisible = [&["--token", "a b"][..], &WHY].concat();
    let config = ["--config", "config/wallet.toml", "--set", operator::SET];
    let cases = [
        (full.run("revoke", &revoke, ""), "answered with 503: nothing was recorded (revocation memory full)"),
        (full.run("revoke", &invisible, ""), "answered with 400: `token` must be 1 to 128 visible ASCII characters"),
        (other.run("revoke", &revoke, ""), "answered with 401: the admin token is needed"),
        (
            with_stdin(&[&["revoke"][..], &config, &["--admin", &without.admin], &revoke].concat(), ""),
            "knows no /revoke; is `admin_token` set where it runs?",
        ),
        (
            with_stdin(&[&["status"][..], &config, &["--admin", &nobody]].concat(), ""),
            &format!("nothing listens at {nobody}"),
        ),
    ];
    for ((code, stdout, stderr), expected) in cases {
        assert_eq!((code, stdout.as_str()), (1, ""), "{expected}: {stderr}");
        assert!(stderr.contains(expected), "{expected}: {stderr}");
        assert!(!stderr.contains("canary"), "{stderr}");
    }
}

/// `script` is a terminal for whom it starts.
#[tokio::test]
async fn people_on_a_terminal_read_sentences() {
    let pam = Pam::start().await;
    let operated = Operated::start(&pam).await;
    let on_terminal = |command: &str, arguments: &str| {
        let bare = portcullis();
        let mut script = std::process::Command::new("script");
        script.env_clear().envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(root());
        let config =
            format!("--config config/wallet.toml --set '{}' --admin {}", operator::SET, operated.running.admin);
        let line = format!("{} {command} {config} {arguments}", env!("CARGO_BIN_EXE_portcullis"));
        let output = script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
    };
    let why = "--reason test --actor somebody";
    let digest = json_of(operated.run("status", &["--token", "t"], ""))["digest"].as_str().unwrap().to_owned();
    let known = on_terminal("status", "--token t");
    assert_eq!(known, format!("digest    {digest}\nstanding  alive\n"));
    assert_eq!(
        on_terminal("unrevoke", &format!("--token t {why}")),
        format!("nothing was recorded of {digest}; it passes\n")
    );
    assert_eq!(on_terminal("revoke", &format!("--token t {why}")), format!("{digest} has ended\n"));
    assert!(on_terminal("revoke", &format!("--token t {why}")).starts_with(&format!("{digest} had ended before")));
    assert!(on_terminal("unrevoke", &format!("--token t {why}")).starts_with(&format!("{digest} passes again")));
    assert_eq!(operated.debit("t").await, 200);
    assert_eq!(operated.debit("u").await, 200);
    let now = timestamp(SystemTime::now());
    let swept = on_terminal("revoke", &format!("--seen-before {now} {why}"));
    assert!(swept.starts_with("1 token has ended; seen since 20"), "{swept}");
    let status = on_terminal("status", "");
    assert!(status.contains("\nrevocations live             2\n"), "{status}");
    let json: Value = serde_json::from_str(&on_terminal("status", "--json")).unwrap();
    assert_eq!(json["revocations"]["live"], 2);
}

#[tokio::test]
async fn a_token_in_a_header_is_ended_as_well() {
    let world = World::of("config/valkyrie.toml", &[operator::SET]).await;
    let session = || valkyrie::call("GET", "/players/session?provider=x");
    assert_eq!(world.send(&session()).await.status, 200);
    ask(&world, "/revoke", json!({ "token": valkyrie::TOKEN })).await;
    assert_eq!(world.send(&session()).await.status, 401);
    assert_eq!(world.pam.requests().len(), 1);
}
