//! What people see: the admin address, the metrics, one line in the log for each request.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::world::{
    Connection, PATIENCE, Pam, Reply, Request, World, answer, basic, betstack, futures_answer, valkyrie, wallet,
};

const PAGES: [&str; 5] = ["/", "/livez", "/readyz", "/metrics", "/status"];

#[tokio::test]
async fn readiness_follows_the_process() {
    let world = World::wallet().await;
    for (ready, status, text) in [(true, 200, "ready\n"), (false, 503, "not ready\n"), (true, 200, "ready\n")] {
        world.ready.send_replace(ready);
        let reply = world.admin("/readyz").await;
        assert_eq!((reply.status, reply.text().as_str()), (status, text));
        assert_eq!(world.admin("/livez").await.status, 200);
    }
}

#[tokio::test]
async fn readiness_does_not_speak_of_the_pam() {
    let mut pam = Pam::start().await;
    // Nobody listens there.
    pam.address = "127.0.0.1:1".parse().unwrap();
    let world = World::with_pam("config/wallet.toml", &[], pam).await;
    assert_eq!(world.send(&wallet::signed("debit", &wallet::body("t"))).await.status, 503);
    for page in PAGES {
        assert_eq!(world.admin(page).await.status, 200, "{page}");
    }
}

#[tokio::test]
async fn the_admin_address_has_five_pages_to_get() {
    let world = World::wallet().await;
    let mut connection = Connection::to(world.admin).await;
    for path in ["/index.html", "/healthz", "/metrics/", "/Metrics", "/livez/x", "/api/wallet/debit"] {
        let reply = connection.send(&Request::new("GET", path)).await;
        assert_eq!((reply.status, reply.text().contains("/metrics /livez /readyz /status")), (404, true), "{path}");
    }
    for page in PAGES {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let reply = Connection::to(world.admin).await.send(&Request::new(method, page)).await;
            assert_eq!(reply.status, 405, "{method} {page}");
        }
        let reply = connection.send(&Request::new("HEAD", page)).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{page}");
        let reply = connection.send(&Request::new("GET", &format!("{page}?x=1"))).await;
        assert_eq!(reply.status, 200, "{page}");
        assert_ne!(reply.body.len(), 0, "{page}");
    }
    let kind = |reply: &Reply| reply.values("content-type")[0].to_owned();
    assert_eq!(kind(&world.admin("/metrics").await), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(kind(&world.admin("/status").await), "application/json");
    world.pam.assert_untouched();
}

#[tokio::test]
async fn a_malformed_request_to_the_admin_address_is_refused() {
    let world = World::wallet().await;
    for (head, status) in [
        ("GET /status HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("GET  /status HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 "),
        ("GET /x/../status HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 "),
        ("TRACE /status HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405 "),
    ] {
        let mut connection = Connection::to(world.admin).await;
        connection.write(head.as_bytes()).await;
        let reply = String::from_utf8(connection.rest().await).unwrap();
        assert!(reply.starts_with(status), "{head:?} {reply}");
    }
}

// threat: C7
// threat: F11
#[tokio::test]
async fn the_traffic_address_knows_no_admin_page() {
    let worlds = [
        (World::wallet().await, "/code", Value::from(404)),
        (World::betstack().await, "/code", Value::from(404)),
        (World::valkyrie().await, "/error/code", Value::from("PAM_ERR_UNDEFINED")),
    ];
    for (world, pointer, code) in worlds {
        for page in PAGES {
            let reply = world.send(&Request::new("GET", page)).await;
            assert_eq!((reply.status, reply.json().pointer(pointer)), (404, Some(&code)), "{page}");
        }
        world.pam.assert_untouched();
    }
}

// threat: F11
#[tokio::test]
async fn a_scraper_that_is_slow_or_asks_for_too_much_is_let_go() {
    let world = World::wallet().await;
    let large = async {
        let mut scraper = Connection::to(world.admin).await;
        scraper
            .write(format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(17 << 10)).as_bytes())
            .await;
        assert_eq!(scraper.reply().await.status, 431);
        assert!(scraper.rest().await.is_empty());
    };
    let slow = async {
        let mut scraper = Connection::to(world.admin).await;
        scraper.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n").await;
        assert_eq!(scraper.reply().await.status, 408);
        assert!(scraper.rest().await.is_empty());
    };
    // Asks again and again, and reads nothing of what it gets.
    let deaf = async {
        let mut scraper = Connection::to(world.admin).await;
        let page = Request::new("GET", "/metrics").bytes();
        let asking = async { while scraper.stream.write_all(&page).await.is_ok() {} };
        timeout(PATIENCE, asking).await.expect("it was written to for ever");
    };
    tokio::join!(large, slow, deaf);
    assert_eq!(world.admin("/metrics").await.status, 200);
}

#[tokio::test]
async fn status_shows_what_runs_and_nothing_else() {
    let world = World::of("config/valkyrie.toml", &["revocation.capacity=17"]).await;
    let status = world.admin("/status").await.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["dialect"], "valkyrie");
    assert_eq!(status["callers"], serde_json::json!(["valkyrie", "operator"]));
    let expected = serde_json::json!({ "live": 0, "capacity": 17, "journal_failing": false, "sharing": null });
    assert_eq!(status["revocations"], expected);
    assert_eq!(status["replays"], serde_json::json!({ "remembered": 0 }));
    assert_eq!(keys(&status["config"]), ["generation", "rejected", "since"]);
    assert_eq!((&status["config"]["generation"], &status["config"]["rejected"]), (&1.into(), &serde_json::json!([])));
    assert_eq!(keys(&status), ["callers", "config", "dialect", "readiness", "replays", "revocations", "version"]);
}

#[tokio::test]
async fn every_request_is_counted_by_route_caller_and_status_and_by_what_was_decided() {
    let world = World::of("config/wallet.toml", &["token.settlement=admit", "revocation.capacity=17"]).await;
    let body = wallet::body("t");
    for _ in 0..2 {
        world.send(&wallet::signed("debit", &body)).await;
    }
    world.send(&wallet::signed("debit", &body).without("Authorization")).await;
    world.send(&wallet::signed("debit", &body).replacing("X-Request-Signature", &"0".repeat(64))).await;
    world.send(&Request::new("GET", "/nothing")).await;
    world.pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    world.send(&wallet::signed("terminate", &body)).await;
    world.send(&wallet::signed("debit", &body)).await;
    world.send(&wallet::signed("credit", &body)).await;
    world.pam.answer_with(|_| b"nonsense\r\n\r\n".to_vec());
    world.send(&wallet::signed("debit", &wallet::body("u"))).await;

    let (_, metrics) = seen(world).await;
    let expected = [
        (r#"portcullis_requests_total{caller="fantasy-goal",route="debit",status="2xx"}"#, 2.0),
        (r#"portcullis_requests_total{caller="fantasy-goal",route="debit",status="4xx"}"#, 2.0),
        (r#"portcullis_requests_total{caller="fantasy-goal",route="debit",status="5xx"}"#, 1.0),
        (r#"portcullis_requests_total{caller="fantasy-goal",route="terminate",status="2xx"}"#, 1.0),
        (r#"portcullis_requests_total{caller="fantasy-goal",route="credit",status="2xx"}"#, 1.0),
        (r#"portcullis_requests_total{caller="fantasy-goal",route="rollback",status="2xx"}"#, 0.0),
        (r#"portcullis_requests_total{caller="none",route="debit",status="4xx"}"#, 1.0),
        (r#"portcullis_requests_total{caller="none",route="none",status="4xx"}"#, 1.0),
        (r#"portcullis_decisions_total{check="all",mode="enforce",outcome="admitted",reason="ok"}"#, 4.0),
        (r#"portcullis_decisions_total{check="all",mode="enforce",outcome="settled",reason="ok"}"#, 1.0),
        (
            r#"portcullis_decisions_total{check="credential",mode="enforce",outcome="refused",reason="credential_missing"}"#,
            1.0,
        ),
        (
            r#"portcullis_decisions_total{check="signature",mode="enforce",outcome="refused",reason="signature_wrong"}"#,
            1.0,
        ),
        (r#"portcullis_decisions_total{check="route",mode="enforce",outcome="refused",reason="no_route"}"#, 1.0),
        (r#"portcullis_decisions_total{check="standing",mode="enforce",outcome="refused",reason="token_ended"}"#, 1.0),
        (r#"portcullis_decisions_total{check="freshness",mode="enforce",outcome="refused",reason="replayed"}"#, 0.0),
        (r#"portcullis_upstream_errors_total{reason="malformed",sent="yes"}"#, 1.0),
        (r#"portcullis_upstream_errors_total{reason="connect",sent="no"}"#, 0.0),
        (r#"portcullis_revocation_hits_total{kind="ended"}"#, 1.0),
        (r#"portcullis_revocation_hits_total{kind="settled"}"#, 1.0),
        (r#"portcullis_secret_uses_total{caller="fantasy-goal",kind="password",secret="1"}"#, 7.0),
        (r#"portcullis_secret_uses_total{caller="fantasy-goal",kind="signing",secret="2026-11"}"#, 6.0),
        ("portcullis_own_duration_seconds_count", 9.0),
        ("portcullis_upstream_duration_seconds_count", 5.0),
        (r#"portcullis_request_duration_seconds_count{route="debit"}"#, 6.0),
        ("portcullis_revocations_live", 1.0),
        (r#"portcullis_revocations_total{cause="answer"}"#, 1.0),
        (r#"portcullis_revocations_total{cause="operator"}"#, 0.0),
        (r#"portcullis_admin_calls_total{call="revoke",outcome="done"}"#, 0.0),
        ("portcullis_revocations_capacity", 17.0),
        ("portcullis_requests_in_flight", 0.0),
        ("portcullis_upstream_in_flight", 0.0),
        ("portcullis_connections", 0.0),
        ("portcullis_log_lines_dropped_total", 0.0),
        ("portcullis_replays_remembered", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(metric(&metrics, name), Some(value), "{name}");
    }
    let total = |prefix: &str| -> f64 { series(&metrics, prefix).iter().map(|(_, value)| value).sum() };
    assert_eq!(total("portcullis_requests_total{"), 9.0);
    assert_eq!(total("portcullis_decisions_total{"), 9.0);
}

// threat: F7
#[tokio::test]
async fn no_flood_of_names_adds_a_series() {
    for config in ["config/valkyrie.toml", "config/wallet.toml", "config/betstack.toml"] {
        let mut names: Vec<BTreeSet<String>> = Vec::new();
        for rounds in [1, 300] {
            let world = World::of(config, &["limits.lockout.failures=0"]).await;
            let mut sent = 0;
            let mut connection = world.connect().await;
            for round in 0..rounds {
                for request in strange_requests(round) {
                    let reply = connection.send(&request).await;
                    sent += 1;
                    if reply.values("connection") == ["close"] {
                        connection = world.connect().await;
                    }
                }
            }
            drop(connection);
            let (lines, metrics) = seen(world).await;
            let folded: u64 = lines.iter().filter_map(|line| line["folded"].as_u64()).sum();
            let own = lines.iter().filter(|line| line["event"] == "request").count();
            assert_eq!(own as u64 + folded, sent, "{config}");
            let series = series(&metrics, "portcullis_").into_iter().map(|(name, _)| name);
            names.push(series.collect());
        }
        assert!(names[0].len() > 20, "{:?}", names[0]);
        assert_eq!(names[0], names[1], "{config}");
    }
}

/// One of each kind of name that a stranger can choose, another one each round.
fn strange_requests(round: usize) -> Vec<Request> {
    let name = format!("x{round:x}");
    let session = "/players/session?provider=";
    let operator = betstack::body("identify", r#","token":"t""#).replace(betstack::OPERATOR, &name);
    vec![
        Request::new(&name.to_uppercase(), "/"),
        Request::new("GET", &format!("/{name}")),
        Request::new("POST", &format!("/api/wallet/{name}")),
        valkyrie::call("GET", &format!("/players/{name}/balance?provider={name}")),
        valkyrie::call("GET", &format!("{session}{name}")).with("X-Correlation-ID", &name).with("User-Agent", &name),
        valkyrie::call("GET", &format!("{session}x")).replacing("X-Player-Token", &format!("{round:036}")),
        valkyrie::call("GET", session).replacing("Authorization", &format!("Bearer {name}")),
        valkyrie::call("GET", session).replacing("Authorization", &basic(&name, &name)),
        valkyrie::call("GET", session).replacing("Host", &format!("{name}.example")),
        wallet::signed("debit", &wallet::body(&name)),
        wallet::signed("debit", &wallet::body("t")).replacing("Authorization", &basic(&name, wallet::PASSWORD)),
        betstack::signed(&operator),
        betstack::signed(&betstack::body(&name, "")),
        betstack::signed(&betstack::body("ticket_win", &format!(r#","ticket_id":"{name}""#))),
    ]
}

#[tokio::test]
async fn the_time_of_the_pam_is_not_our_own() {
    let world = World::wallet().await;
    let (release, released) = watch::channel(false);
    world.pam.answer_async(move |_| {
        let mut released = released.clone();
        futures_answer::of(async move {
            released.wait_for(|released| *released).await.unwrap();
            Some(answer(200, "{}"))
        })
    });
    let mut caller = world.connect().await;
    caller.write(&wallet::signed("debit", &wallet::body("t")).bytes()).await;
    world.pam.arrived(1).await;
    let held = Instant::now();
    world.admin("/status").await;
    let held = held.elapsed().as_secs_f64();
    release.send_replace(true);
    assert_eq!(caller.reply().await.status, 200);
    drop(caller);

    let (lines, metrics) = seen(world).await;
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let seconds = |name: &str| line[name].as_f64().unwrap();
    let (total, own, upstream) = (seconds("duration_s"), seconds("own_duration_s"), seconds("upstream_duration_s"));
    assert!(upstream + ROUNDING >= held, "{upstream} {held}");
    assert!(own > 0.0, "{own}");
    // So what is our own cannot hold any of the PAM's time.
    assert!(own + upstream <= total + ROUNDING, "{own} {upstream} {total}");
    let sum = |name: &str| metric(&metrics, name).unwrap();
    let own = sum("portcullis_own_duration_seconds_sum");
    let total = sum(r#"portcullis_request_duration_seconds_sum{route="debit"}"#);
    let upstream = sum("portcullis_upstream_duration_seconds_sum");
    assert!(own + upstream <= total + ROUNDING, "{own} {upstream} {total}");
    assert!(own < total, "{own} {total}");
}

/// A copy of a signed message waits for what the PAM says to the first one.
#[tokio::test]
async fn nor_is_the_time_a_copy_waits_for_the_pam() {
    let world = World::betstack().await;
    let release = world.pam.hold(answer(200, "{}"));
    let request = betstack::signed(&betstack::body("ticket_win", r#","ticket_id":"5""#));
    let (mut first, mut copy) = (world.connect().await, world.connect().await);
    first.write(&request.bytes()).await;
    world.pam.arrived(1).await;
    copy.write(&request.bytes()).await;
    world.until("portcullis_requests_in_flight", 2.0).await;
    let held = Instant::now();
    world.admin("/status").await;
    let held = held.elapsed().as_secs_f64();
    release.send_replace(true);
    assert_eq!((first.reply().await.status, copy.reply().await.status), (200, 403));
    drop((first, copy));

    let lines = world.finish().await;
    let line = lines.iter().find(|line| line["reason"] == "replayed").unwrap();
    let (total, own) = (line["duration_s"].as_f64().unwrap(), line["own_duration_s"].as_f64().unwrap());
    assert!(own + held <= total + ROUNDING, "{own} {held} {total}");
}

/// Durations in the log are rounded to microseconds.
const ROUNDING: f64 = 0.000_003;

#[tokio::test]
async fn each_request_has_one_line_that_says_what_became_of_it() {
    let world = World::of("config/wallet.toml", &["token.settlement=admit"]).await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let with_ids = |request: Request, id: &str| request.with("X-Correlation-ID", id).with("traceparent", traceparent);
    let body = wallet::body("a-token");
    world.send(&with_ids(wallet::signed("debit", &body), "admitted")).await;
    world.send(&with_ids(wallet::signed("debit", &body).replacing("X-Request-Signature", "00"), "refused")).await;
    world.pam.answer_with(|_| b"nonsense\r\n\r\n".to_vec());
    world.send(&with_ids(wallet::signed("debit", &body), "failed")).await;
    world.pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    world.send(&with_ids(wallet::signed("terminate", &body), "ended")).await;
    world.send(&with_ids(wallet::signed("credit", &body), "settled")).await;
    world.send(&with_ids(wallet::signed("debit", &body), "dead")).await;

    let (lines, _) = seen(world).await;
    assert_eq!(lines.len(), 6);
    let common = [
        "caller",
        "client.address",
        "correlation_id",
        "decision",
        "dialect",
        "duration_s",
        "event",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "level",
        "own_duration_s",
        "timestamp",
        "trace_id",
    ];
    let [upstream, proven, ended] = [&["upstream_duration_s"][..], &["key_id", "token"], &["token_ended"]];
    let why = &["check", "reason"][..];
    let expected = [
        (["admitted", "debit", "200", "admitted", "info", "-", "-"], [upstream, proven].concat()),
        (["refused", "debit", "401", "refused", "warn", "signature", "signature_malformed"], why.to_vec()),
        (["failed", "debit", "502", "admitted", "error", "upstream", "malformed"], [upstream, proven, why].concat()),
        (["ended", "terminate", "200", "admitted", "info", "-", "-"], [upstream, proven, ended].concat()),
        (["settled", "credit", "200", "settled", "info", "-", "-"], [upstream, proven].concat()),
        (["dead", "debit", "401", "refused", "warn", "standing", "token_ended"], [proven, why].concat()),
    ];
    let told = ["correlation_id", "http.route", "http.response.status_code", "decision", "level", "check", "reason"];
    for (line, (values, more)) in lines.iter().zip(expected) {
        let id = values[0];
        let text = |name: &str| line.get(name).map_or("-".to_owned(), |value| value.to_string().replace('"', ""));
        assert_eq!(told.map(text), values, "{id}");
        assert_eq!(line["event"], "request", "{id}");
        assert_eq!(line["dialect"], "wallet", "{id}");
        assert_eq!(line["caller"], "fantasy-goal", "{id}");
        assert_eq!(line["http.request.method"], "POST", "{id}");
        assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{id}");
        assert!(humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).is_ok(), "{id}");
        let all: BTreeSet<&str> = common.iter().copied().chain(more).collect();
        assert_eq!(keys(line), all.into_iter().collect::<Vec<_>>(), "{id}");
        let seconds = |name: &str| line.get(name).and_then(Value::as_f64).unwrap_or_default();
        let within = seconds("own_duration_s") + seconds("upstream_duration_s");
        assert!(within <= seconds("duration_s") + ROUNDING, "{line}");
    }
}

#[tokio::test]
async fn a_request_that_proves_nothing_has_a_line_without_a_caller() {
    let world = World::wallet().await;
    world.send(&Request::new("GET", "/nothing")).await;
    let mut connection = world.connect().await;
    connection.write(b"nonsense\r\n\r\n").await;
    connection.rest().await;
    let (lines, _) = seen(world).await;
    let told = |line: &Value| {
        ["caller", "http.route", "http.request.method", "decision", "check", "reason"]
            .map(|name| line[name].as_str().unwrap().to_owned())
    };
    assert_eq!(lines.len(), 2);
    assert_eq!(told(&lines[0]), ["none", "none", "GET", "refused", "route", "no_route"]);
    assert_eq!(told(&lines[1]), ["none", "none", "none", "refused", "route", "request_line"]);
    assert_eq!(lines.iter().find(|line| line.get("token").is_some()), None);
}

#[tokio::test]
async fn a_token_is_logged_as_the_same_digest_wherever_it_stands() {
    let token = "3dc8fe01-2018-486e-9632-35aef21028a5";
    let world = World::wallet().await;
    let escaped = wallet::body(token).replace("3dc8", "\\u0033dc8");
    world.send(&wallet::signed("debit", &wallet::body(token))).await;
    world.send(&wallet::signed("balance", &escaped)).await;
    world.send(&wallet::signed("debit", &wallet::body("another"))).await;
    let (lines, _) = seen(world).await;
    let digests: Vec<&str> = lines.iter().map(|line| line["token"].as_str().unwrap()).collect();
    assert_eq!(digests.len(), 3);
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
    assert_eq!(digests.iter().find(|digest| digest.len() != 32), None);
    // Keyed: who has the log cannot try tokens out.
    use sha2::Digest;
    let plain: String = sha2::Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!plain.contains(digests[0]), "{digests:?}");
    assert!(!token.contains(digests[0]), "{digests:?}");

    let world = World::valkyrie().await;
    let session = valkyrie::call("GET", "/players/session?provider=x").replacing("X-Player-Token", token);
    world.send(&session).await;
    let (lines, _) = seen(world).await;
    assert_eq!(lines[0]["token"], digests[0]);
}

#[tokio::test]
async fn the_log_the_pam_and_the_caller_have_the_same_ids() {
    let world = World::valkyrie().await;
    let reply = world.send(&valkyrie::call("GET", "/players/session?provider=x")).await;
    let seen_by_pam = world.pam.only_request();
    let (lines, _) = seen(world).await;
    let id = lines[0]["correlation_id"].as_str().unwrap();
    assert_eq!(reply.values("x-correlation-id"), [id]);
    assert_eq!(seen_by_pam.values("x-correlation-id"), [id]);
    let trace = lines[0]["trace_id"].as_str().unwrap();
    assert_eq!(seen_by_pam.values("traceparent")[0].split('-').nth(1), Some(trace));
}

/// Ends a world and gives what it told: its log, and its metrics once everything was counted.
async fn seen(world: World) -> (Vec<Value>, String) {
    let portcullis = world.portcullis.clone();
    let lines = world.finish().await;
    (lines, String::from_utf8(portcullis.exposition()).unwrap())
}

fn metric(text: &str, name: &str) -> Option<f64> {
    series(text, name).into_iter().find(|(other, _)| other == name).map(|(_, value)| value)
}

fn series(text: &str, prefix: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| line.starts_with(prefix)).map(|line| line.rsplit_once(' ').unwrap());
    lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
}
