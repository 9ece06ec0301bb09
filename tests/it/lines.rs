//! Which requests have a line of their own in the log: a share of those that went well, and all others but in a flood.

use serde_json::Value;
use tokio::time::timeout;

use crate::binary::Running;
use crate::world::{PATIENCE, Request, World, answer, breath, wallet};

/// A request in a trace of which only the part counts that samples are drawn by.
fn traced(request: Request, drawn: &str) -> Request {
    request.with("traceparent", &format!("00-4bf92f3577b34da6aa{drawn}-00f067aa0ba902b7-01"))
}

#[tokio::test]
async fn requests_that_went_well_are_sampled_by_their_trace_and_the_line_says_so() {
    let world = World::of("config/wallet.toml", &["log.sample=25%", "token.settlement=admit"]).await;
    let debit = || wallet::signed("debit", &wallet::body("t"));
    // The last of the lowest three quarters, and the first of the rest.
    for drawn in ["00000000000000", "bfffffffffffff", "c0000000000000", "ffffffffffffff"] {
        assert_eq!(world.send(&traced(debit(), drawn)).await.status, 200);
    }
    let out = "00000000000001";
    // What is worth a line has one, whatever was drawn.
    assert_eq!(world.send(&traced(debit().without("Authorization"), out)).await.status, 401);
    world.pam.answer_with(|_| b"nonsense\r\n\r\n".to_vec());
    assert_eq!(world.send(&traced(debit(), out)).await.status, 502);
    world.pam.answer_with(|_| answer(500, "{}"));
    assert_eq!(world.send(&traced(debit(), out)).await.status, 500);
    world.pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    assert_eq!(world.send(&traced(wallet::signed("terminate", &wallet::body("t")), out)).await.status, 200);
    assert_eq!(world.send(&traced(wallet::signed("credit", &wallet::body("t")), out)).await.status, 200);
    world.until("portcullis_log_lines_sampled_out_total", 2.0).await;
    assert_eq!(
        world.metric(r#"portcullis_requests_total{caller="fantasy-goal",route="debit",status="2xx"}"#).await,
        4.0
    );
    let lines = world.finish().await;
    let told = |line: &Value| {
        let trace = line["trace_id"].as_str().unwrap()[18..].to_owned();
        (trace, line["http.response.status_code"].as_u64().unwrap(), line["sample_rate"].as_f64())
    };
    let told: Vec<_> = lines.iter().map(told).collect();
    let expected = [
        ("c0000000000000", 200, Some(0.25)),
        ("ffffffffffffff", 200, Some(0.25)),
        (out, 401, None),
        (out, 502, None),
        (out, 500, None),
        (out, 200, None),
        (out, 200, None),
    ];
    assert_eq!(told, expected.map(|(trace, status, rate)| (trace.to_owned(), status, rate)));
    assert_eq!((&lines[5]["token_ended"], &lines[6]["decision"]), (&true.into(), &"settled".into()));
}

#[tokio::test]
async fn a_sample_of_none_leaves_out_all_that_went_well() {
    let world = World::of("config/wallet.toml", &["log.sample=0%"]).await;
    for drawn in ["00000000000000", "ffffffffffffff"] {
        world.send(&traced(wallet::signed("debit", &wallet::body("t")), drawn)).await;
    }
    world.until("portcullis_log_lines_sampled_out_total", 2.0).await;
    assert!(world.finish().await.is_empty());
}

// threat: F6
#[tokio::test]
async fn a_flood_of_refusals_is_told_in_few_lines_and_counted_whole() {
    let world = World::of("config/wallet.toml", &["log.refusals_per_second=3", "limits.lockout.failures=0"]).await;
    let wrong = wallet::signed("debit", &wallet::body("t")).replacing("X-Request-Signature", &"0".repeat(64));
    let mut connection = world.connect().await;
    for number in 0..20 {
        assert_eq!(connection.send(&wrong.clone().with("X-Correlation-ID", &format!("n-{number}"))).await.status, 401);
    }
    // Another reason is another burst.
    assert_eq!(connection.send(&Request::new("GET", "/nothing")).await.status, 404);
    drop(connection);
    let folded_line = async {
        while !world.log_text().contains("requests_refused") {
            breath().await;
        }
    };
    timeout(PATIENCE, folded_line).await.expect("what was folded was not told");
    let name =
        r#"portcullis_decisions_total{check="signature",mode="enforce",outcome="refused",reason="signature_wrong"}"#;
    assert_eq!(world.metric(name).await, 20.0);
    let counted = world.metric("portcullis_log_lines_folded_total").await;
    let lines = world.finish().await;
    let of_it: Vec<&Value> = lines.iter().filter(|line| line["reason"] == "signature_wrong").collect();
    // The first ones can be found by their ids.
    let first: Vec<_> = of_it[..3].iter().map(|line| line["correlation_id"].as_str()).collect();
    assert_eq!(first, [Some("n-0"), Some("n-1"), Some("n-2")]);
    let folded: u64 = of_it.iter().filter_map(|line| line["folded"].as_u64()).sum();
    let own = of_it.iter().filter(|line| line["event"] == "request").count() as u64;
    assert_eq!((own + folded, folded as f64), (20, counted));
    assert!(folded > 0);
    let many = of_it.iter().find(|line| line["event"] == "requests_refused").unwrap();
    let text = |name: &str| many[name].as_str().unwrap();
    assert_eq!(
        ["level", "caller", "check", "client.address"].map(text),
        ["warn", "fantasy-goal", "signature", "127.0.0.1"]
    );
    assert_eq!(lines.iter().filter(|line| line["reason"] == "no_route").count(), 1);
}

#[tokio::test]
async fn what_was_kept_back_is_told_at_the_end() {
    let world = World::of("config/wallet.toml", &["log.refusals_per_second=1"]).await;
    let mut connection = world.connect().await;
    for _ in 0..5 {
        connection.send(&Request::new("GET", "/nothing")).await;
    }
    drop(connection);
    let lines = world.finish().await;
    let folded: u64 = lines.iter().filter_map(|line| line["folded"].as_u64()).sum();
    let own = lines.iter().filter(|line| line["event"] == "request").count() as u64;
    assert_eq!(own + folded, 5);
}

#[tokio::test]
async fn what_is_true_of_all_lines_stands_in_the_first_one() {
    let running = Running::start("config/wallet.toml", "127.0.0.1:1", &[]);
    assert_eq!(running.started["service.name"], "portcullis");
    assert_eq!(running.started["service.version"], env!("CARGO_PKG_VERSION"));
}
