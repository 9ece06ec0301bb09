//! Shadow mode: the PAM and the caller see what they would see without Portcullis, and the operator sees what enforcement
//! would do.

use crate::binary::{Running, output};
use crate::world::{GOOD, Pam, Request, World, answer, basic, betstack, now, wallet};

const SHADOW: &[&str] = &["mode=shadow"];

fn good() -> Request {
    wallet::signed("debit", &wallet::body("token-1"))
}

/// Requests that enforcement refuses, each with the reasons it would have.
fn refused() -> Vec<(Request, &'static [&'static str])> {
    vec![
        (good().without("Authorization"), &["credential_missing"]),
        (good().replacing("Authorization", &basic(wallet::USER, "wrong-password")), &["credential_wrong"]),
        (good().replacing("X-Request-Signature", &"0".repeat(64)), &["signature_wrong"]),
        (good().without("X-Request-Signature"), &["signature_missing"]),
        (good().without("Authorization").without("X-Request-Signature"), &["credential_missing", "signature_missing"]),
        (wallet::signed("debit", r#"{"token":7}"#), &["token_malformed"]),
        (wallet::signed("debit", "{"), &["syntax", "token_missing"]),
        (Request::new("GET", "/nothing/we/know?a=b"), &["no_route"]),
        (good().with("X_Request_Signature", "twin"), &["twin_field"]),
    ]
}

#[tokio::test]
async fn what_would_be_refused_goes_on_exactly_as_it_came_and_is_told() {
    for (request, reasons) in refused() {
        let enforced = World::wallet().await;
        assert!((400..500).contains(&enforced.send(&request).await.status), "{reasons:?}");
        enforced.pam.assert_untouched();

        for over_h2 in [false, true] {
            let world = World::of("config/wallet.toml", SHADOW).await;
            world.pam.answer_with(|_| answer(200, GOOD));
            // What enforcement takes off or writes anew goes on as well: nothing is touched.
            let request = request
                .clone()
                .with("X-Forwarded-For", "203.0.113.9")
                .with("X-HTTP-Method-Override", "PUT")
                .with("Accept-Encoding", "gzip")
                .with("X-Correlation-ID", "an id of \u{fc}ber 20")
                .with("traceparent", "nonsense");
            let reply = if over_h2 { world.send_h2(&request).await } else { world.send(&request).await };
            assert_eq!((reply.status, reply.text().as_str()), (200, GOOD), "{reasons:?}");
            let seen = world.pam.only_request();
            assert_eq!(
                (seen.method.as_str(), &seen.target, &seen.body),
                (request.method.as_str(), &request.target, &request.body)
            );
            if !over_h2 {
                let ours = |(name, _): &&(String, String)| !name.eq_ignore_ascii_case("content-length");
                let came: Vec<_> = request.fields.iter().filter(ours).collect();
                assert_eq!(seen.fields.iter().filter(ours).collect::<Vec<_>>(), came, "{reasons:?}");
            }
            for reason in reasons {
                let metric = format!("outcome=\"would_refuse\",reason=\"{reason}\"");
                let text = world.admin("/metrics").await.text();
                assert!(text.lines().any(|line| line.contains(&metric) && line.ends_with(" 1")), "{reason}");
            }
            let lines = world.finish().await;
            let line = lines.iter().find(|line| line["event"] == "request").unwrap();
            assert_eq!((&line["decision"], &line["level"]), (&"admitted".into(), &"warn".into()));
            let told: Vec<&str> =
                line["would_refuse"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
            assert_eq!(told, reasons);
        }
    }
}

#[tokio::test]
async fn a_good_request_says_nothing_of_refusals_and_gets_the_ids_it_lacks() {
    let world = World::of("config/wallet.toml", SHADOW).await;
    assert_eq!(world.send(&good()).await.status, 200);
    let seen = world.pam.only_request();
    let names: Vec<&str> = seen.fields.iter().map(|(name, _)| name.as_str()).collect();
    let came: Vec<String> = good().fields.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..came.len()], came);
    assert_eq!(names[came.len()..], ["Content-Length", "X-Correlation-ID", "traceparent"]);
    let lines = world.finish().await;
    assert!(lines.iter().all(|line| line.get("would_refuse").is_none()));
}

#[tokio::test]
async fn a_token_that_ended_passes_and_neither_an_answer_nor_a_full_memory_holds_anything_up() {
    let world = World::of("config/wallet.toml", &["mode=shadow", "revocation.capacity=1"]).await;
    world.pam.answer_with(|_| answer(200, r#"{"status":true,"code":1}"#));
    let call = |operation, token| wallet::signed(operation, &wallet::body(token));
    assert_eq!(world.send(&call("terminate", "one")).await.status, 200);
    world.until("portcullis_revocations_live", 1.0).await;
    assert_eq!(world.send(&call("debit", "one")).await.status, 200);
    assert_eq!(world.send(&call("terminate", "two")).await.status, 200);
    // Enforced, an answer that nobody can read does not go out.
    world.pam.answer_with(|_| answer(200, "not JSON"));
    assert_eq!(world.send(&call("terminate", "three")).await.text(), "not JSON");
    let lines = world.finish().await;
    let told = |line: &serde_json::Value| line["would_refuse"][0]["reason"].as_str().map(str::to_owned);
    let told: Vec<_> = lines.iter().filter(|line| line["event"] == "request").map(told).collect();
    let full = Some("revocation_memory_full".to_owned());
    assert_eq!(told, [None, Some("token_ended".to_owned()), full.clone(), full]);
}

#[tokio::test]
async fn a_copy_passes_at_once_and_is_told() {
    let world = World::of("config/betstack.toml", SHADOW).await;
    let release = world.pam.hold(answer(200, GOOD));
    let win = betstack::signed(&betstack::body("ticket_win", r#","ticket_id":"a""#));
    let stale = betstack::signed_at(&betstack::body("ticket_win", r#","ticket_id":"b""#), now() - 4000);
    let (one, other, old) = (world.send(&win), world.send(&win), world.send(&stale));
    let all_arrived = async {
        // The second does not wait for the fate of the first.
        world.pam.arrived(3).await;
        release.send(true).unwrap();
    };
    let (one, other, old, ()) = tokio::join!(one, other, old, all_arrived);
    assert_eq!((one.status, other.status, old.status), (200, 200, 200));
    assert_eq!(world.send(&win).await.status, 200);
    let lines = world.finish().await;
    let mut told: Vec<&str> = lines.iter().filter_map(|line| line["would_refuse"][0]["reason"].as_str()).collect();
    told.sort_unstable();
    assert_eq!(told, ["copy_in_flight", "replayed", "stale"]);
}

#[tokio::test]
async fn what_protects_portcullis_itself_is_always_enforced() {
    let world = World::of("config/wallet.toml", &["mode=off", "limits.body=20"]).await;
    assert_eq!(world.send(&good()).await.status, 413);
    let two_lengths = Request::new("GET", "/").with("Content-Length", "1").with("Content-Length", "2");
    assert_eq!(world.send(&two_lengths).await.status, 400);
    world.pam.assert_untouched();
}

#[tokio::test]
async fn a_check_a_route_or_a_caller_may_have_a_mode_of_its_own() {
    let unsigned = || good().replacing("X-Request-Signature", &"0".repeat(64));
    let nobody = || good().without("Authorization");
    let balance = || wallet::signed("balance", &wallet::body("t")).without("Authorization");
    for (set, expected) in [
        (&["modes.shadow.checks=[\"signature\"]"][..], [200, 401, 401]),
        (&["modes.off.checks=[\"credential\"]"], [401, 200, 200]),
        (&["modes.shadow.routes=[\"balance\"]"], [401, 401, 200]),
        (&["mode=shadow", "modes.enforce.checks=[\"signature\"]"], [401, 200, 200]),
        (&["mode=off", "modes.enforce.routes=[\"debit\"]"], [401, 401, 200]),
    ] {
        let world = World::of("config/wallet.toml", set).await;
        for (request, status) in [unsigned(), nobody(), balance()].into_iter().zip(expected) {
            assert_eq!(world.send(&request).await.status, status, "{set:?}");
        }
    }
    let folder = crate::world::Folder::new("shadow-callers");
    let callers = r#"
[[caller]]
name = "one"
mode = "shadow"
key_id = "op-one"
signing = [{ id = "k", key = { file = "secret-one" } }]
[[caller]]
name = "two"
key_id = "op-two"
signing = [{ id = "k", key = { file = "secret-two" } }]
"#;
    let secrets = ["secret-one", "secret-two"].map(|name| (name, name));
    let config = folder.config("\"betstack\"\nbase_path = \"/pam\"", callers, &secrets);
    let world = World::of(&config, &[]).await;
    let by = |operator: &str| {
        let body = format!(r#"{{"action":"ticket_win","data":{{"operator":"{operator}","ticket_id":"a"}}}}"#);
        betstack::signed_by("another-secret", &body, now())
    };
    assert_eq!(world.send(&by("op-one")).await.status, 200);
    assert_ne!(world.send(&by("op-two")).await.status, 200);
    assert_ne!(world.send(&by("op-three")).await.status, 200);
    let status = world.admin("/status").await.json();
    assert_eq!(status["readiness"]["callers"]["one"]["checks"]["signature"]["reasons"]["signature_wrong"], 1);
    assert_eq!(status["readiness"]["callers"]["two"]["checks"]["signature"]["fail"], 1);
    assert_eq!(status["readiness"]["callers"]["none"]["requests"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_at_the_start_a_metric_and_readiness_say_what_is_not_enforced() {
    let pam = Pam::start().await;
    let config = "config/wallet.toml";
    let mut running = Running::start(config, &pam.address.to_string(), &["--set", "mode=shadow"]);
    let told = running.event("not_enforced");
    assert_eq!((&told["level"], &told["about"]["mode"]), (&"warn".into(), &"shadow".into()));
    let ready = || output(&["readiness", "--config", config, "--admin", &running.admin, "--set", "mode=shadow"]);
    let (code, out, _) = ready();
    assert_eq!(code, 1);
    let readiness: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(readiness["verdict"], "fantasy-goal: nothing was seen yet; let it call first");
    assert_eq!(running.send(&good()).await, 200);
    let (code, out, _) = ready();
    let readiness: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &readiness["verdict"], &readiness["enforced"]), (0, &"safe to enforce".into(), &false.into()));
    assert_eq!(running.send(&good().without("X-Request-Signature")).await, 200);
    let (code, out, _) = ready();
    let readiness: serde_json::Value = serde_json::from_str(&out).unwrap();
    let expected = "fantasy-goal: fix signature first: 1 of 2 requests fail it, most for signature_missing";
    assert_eq!((code, &readiness["verdict"]), (1, &expected.into()));
    let mut admin = crate::world::Connection::to(running.admin.parse().unwrap()).await;
    let page = admin.send(&Request::new("GET", "/metrics")).await.text();
    assert!(page.contains("portcullis_check_not_enforced{check=\"signature\"} 1"), "{page}");

    let strict = World::wallet().await;
    assert_eq!(strict.metric("portcullis_check_not_enforced{check=\"signature\"}").await, 0.0);
    assert!(strict.finish().await.iter().all(|line| line["event"] != "not_enforced"));
}
