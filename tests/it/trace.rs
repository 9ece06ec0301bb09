//! The identifiers of a request, end to end: what the PAM gets, what the caller gets back, over both protocols.

use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use crate::world::{Reply, Request, Seen, World, answer, betstack, root, valkyrie, wallet};

// ---- correlation id ----

// threat: F5
#[tokio::test]
async fn a_sound_correlation_id_is_carried_through_to_the_letter() {
    let world = World::valkyrie().await;
    let longest = "x".repeat(128);
    for id in ["c", "0", "--", "Order-4711.retry:2", "k9J+/w==", "!#$%&()*+,-./:;=?@[\\]^_{|}~", &longest] {
        for http2 in [false, true] {
            let (reply, seen) = exchange(&world, &call().with("X-Correlation-ID", id), http2).await;
            assert_eq!(seen.values("X-Correlation-ID"), [id]);
            assert_eq!(reply.values("X-Correlation-ID"), [id]);
        }
    }
}

// threat: F5
#[tokio::test]
async fn a_correlation_id_that_is_none_is_replaced() {
    let world = World::valkyrie().await;
    let (long, longer) = ("x".repeat(129), "x".repeat(4096));
    let one =
        ["", "-", "a b", "a\tb", "a\"b", "a'b", "a`b", "<b>", "a<b", "a>b", "caf\u{e9}", "\u{2028}", &long, &longer];
    let rows = one.iter().map(|id| vec![*id]).chain([vec!["a", "b"], vec!["a", "a"], vec!["a", ""], vec!["-", "a"]]);
    let mut minted = HashSet::new();
    for ids in rows {
        for http2 in [false, true] {
            let call = ids.iter().fold(call(), |call, id| call.with("X-Correlation-ID", id));
            let (reply, seen) = exchange(&world, &call, http2).await;
            let id = one_value(&seen, "X-Correlation-ID");
            assert_eq!(reply.values("X-Correlation-ID"), [id.as_str()], "{ids:?}");
            assert_version_7(&id);
            assert!(minted.insert(id), "minted twice");
        }
    }
}

// threat: F5
#[tokio::test]
async fn a_correlation_id_under_another_spelling_of_its_name_does_not_pass() {
    let world = World::valkyrie().await;
    let call =
        call().with("x_correlation_id", "evil").with("X-Correlation_ID", "evil").with("x-CORRELATION-id", "good");
    let (_, seen) = exchange(&world, &call, false).await;
    assert_eq!(one_value(&seen, "X-Correlation-ID"), "good");
    assert!(!seen.head.contains("evil"));
}

// threat: F10
#[tokio::test]
async fn minted_ids_are_of_version_7_and_never_the_same() {
    let world = World::valkyrie().await;
    let mut caller = world.connect().await;
    let (mut correlations, mut traces, mut parents) = (HashSet::new(), HashSet::new(), HashSet::new());
    for _ in 0..50 {
        let reply = caller.send(&call()).await;
        let seen = world.pam.requests().pop().unwrap();
        let id = one_value(&seen, "X-Correlation-ID");
        assert_eq!(reply.values("X-Correlation-ID"), [id.as_str()]);
        assert_version_7(&id);
        let trace = trace_of(&seen);
        correlations.insert(id);
        traces.insert(trace.trace_id);
        parents.insert(trace.parent_id);
    }
    assert_eq!((correlations.len(), traces.len(), parents.len()), (50, 50, 50));
    // Every bit that is not fixed is drawn: in fifty ids each is 0 at times and 1 at times. Of a UUID of version 7 that are
    // all but the time, the version and the variant (RFC 9562 §5.7).
    let drawn = |ids: HashSet<String>| {
        let ids: Vec<u128> = ids.iter().map(|id| u128::from_str_radix(&id.replace('-', ""), 16).unwrap()).collect();
        let (ones, zeros) = ids.iter().fold((0, 0), |(ones, zeros), id| (ones | id, zeros | !id));
        ones & zeros
    };
    let random = 0xfff_u128 << 64 | (u128::MAX >> 66);
    assert_eq!(drawn(correlations) & random, random);
    assert_eq!(drawn(traces), u128::MAX);
    assert_eq!(drawn(parents) as u64, u64::MAX);
    // And drawn by a generator whose output cannot be foretold: it is the one of `rand::random`.
    fn unpredictable<R: rand::CryptoRng>(_: R) {}
    unpredictable(rand::rng());
    let story = std::fs::read_to_string(root().join("src/proxy/story.rs")).unwrap();
    assert!(story.contains("= rand::random();"));
}

// threat: F5
#[tokio::test]
async fn every_refusal_echoes_the_correlation_id() {
    let world = World::wallet().await;
    let body = wallet::body("t");
    let good = || wallet::signed("debit", &body);
    for (call, status) in [
        (Request::new("POST", "/nowhere").body("{}"), 404),
        (good().without("Authorization"), 401),
        (good().replacing("X-Request-Signature", &"0".repeat(64)), 401),
        (good().replacing("Content-Type", "text/plain"), 415),
        (good().body("x".repeat(65_537)), 413),
        (wallet::signed("debit", "{}"), 401),
    ] {
        for http2 in [false, true] {
            let call = call.clone().with("X-Correlation-ID", "mine");
            let reply = if http2 { world.send_h2(&call).await } else { world.send(&call).await };
            assert_eq!((reply.status, reply.values("X-Correlation-ID")), (status, vec!["mine"]));
            let call = call.without("X-Correlation-ID");
            let reply = if http2 { world.send_h2(&call).await } else { world.send(&call).await };
            assert_eq!(reply.status, status);
            assert_version_7(reply.values("X-Correlation-ID")[0]);
            assert_eq!(reply.json()["request_id"], reply.values("X-Correlation-ID")[0]);
        }
    }
    world.pam.assert_untouched();
}

// threat: F5
#[tokio::test]
async fn what_cannot_be_read_is_refused_under_an_id_of_its_own() {
    let world = World::wallet().await;
    let mut ids = HashSet::new();
    for raw in [
        "GARBAGE\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Correlation-ID: evil\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Correlation-ID: evil\x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Correlation-ID: a\rb\r\n\r\n",
    ] {
        let mut caller = world.connect().await;
        caller.write(raw.as_bytes()).await;
        let reply = caller.reply().await;
        assert_eq!(reply.status, 400, "{raw:?}");
        let id = reply.values("X-Correlation-ID").join(",");
        assert_version_7(&id);
        assert!(ids.insert(id));
    }
    world.pam.assert_untouched();
}

#[tokio::test]
async fn the_correlation_id_of_the_pams_answer_is_replaced() {
    let world = World::valkyrie().await;
    world.pam.answer_with(|_| {
        b"HTTP/1.1 200 OK\r\nX-Correlation-ID: pam-1\r\nx-correlation-id: pam-2\r\nContent-Length: 2\r\n\r\n{}".to_vec()
    });
    for http2 in [false, true] {
        let (reply, _) = exchange(&world, &call().with("X-Correlation-ID", "mine"), http2).await;
        assert_eq!(reply.values("X-Correlation-ID"), ["mine"]);
    }
}

#[tokio::test]
async fn a_failure_of_the_pam_echoes_the_id_that_the_pam_got() {
    let world = World::valkyrie().await;
    world.pam.answer_with(|_| b"nonsense".to_vec());
    for http2 in [false, true] {
        let (reply, seen) = exchange(&world, &call(), http2).await;
        assert_eq!(reply.status, 502);
        assert_eq!(reply.values("X-Correlation-ID"), [one_value(&seen, "X-Correlation-ID")]);
    }
}

#[tokio::test]
async fn a_uuid_of_the_caller_is_the_request_id_of_the_refusal() {
    let world = World::wallet().await;
    let id = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    let call = wallet::signed("debit", &wallet::body("t")).without("Authorization");
    let reply = world.send(&call.clone().with("X-Correlation-ID", id)).await;
    assert_eq!(reply.json()["request_id"], id);
    let reply = world.send(&call.with("X-Correlation-ID", "no-uuid")).await;
    assert_version_7(reply.json()["request_id"].as_str().unwrap());
    assert_eq!(reply.values("X-Correlation-ID"), ["no-uuid"]);
}

// ---- the ticket of a Betstack call ----

#[tokio::test]
async fn a_signed_ticket_is_the_correlation_id_when_there_is_no_header() {
    for http2 in [false, true] {
        let world = World::betstack().await;
        let body = betstack::body("ticket_create", r#","ticket_id":"ticket-4711""#);
        let (reply, seen) = exchange(&world, &betstack::signed(&body), http2).await;
        assert_eq!(one_value(&seen, "X-Correlation-ID"), "ticket-4711");
        assert_eq!(reply.values("X-Correlation-ID"), ["ticket-4711"]);
    }
}

#[tokio::test]
async fn a_header_goes_before_the_ticket() {
    let world = World::betstack().await;
    let body = betstack::body("ticket_create", r#","ticket_id":"ticket-4711""#);
    let call = betstack::signed(&body).with("X-Correlation-ID", "mine");
    let (reply, seen) = exchange(&world, &call, false).await;
    assert_eq!(one_value(&seen, "X-Correlation-ID"), "mine");
    assert_eq!(reply.values("X-Correlation-ID"), ["mine"]);
}

#[tokio::test]
async fn a_header_that_is_no_id_leaves_it_to_the_ticket() {
    for header in ["-", "", "a b"] {
        let world = World::betstack().await;
        let body = betstack::body("ticket_create", r#","ticket_id":"ticket-4711""#);
        let call = betstack::signed(&body).with("X-Correlation-ID", header);
        let (reply, seen) = exchange(&world, &call, false).await;
        assert_eq!(one_value(&seen, "X-Correlation-ID"), "ticket-4711", "{header:?}");
        assert_eq!(reply.values("X-Correlation-ID"), ["ticket-4711"]);
    }
}

#[tokio::test]
async fn a_ticket_that_is_no_id_is_replaced() {
    for ticket in
        [r#""a b""#, r#""""#, r#""-""#, r#""a\r\nX-B: c""#, r#""\u001b[31m""#, r#""<b>""#, "null", "[]", "true"]
    {
        let world = World::betstack().await;
        let body = betstack::body("ticket_create", &format!(r#","ticket_id":{ticket}"#));
        let (reply, seen) = exchange(&world, &betstack::signed(&body), false).await;
        assert_version_7(&one_value(&seen, "X-Correlation-ID"));
        assert_eq!(reply.status, 200, "{ticket}");
        assert!(!seen.head.contains("X-B"), "{ticket}");
    }
}

#[tokio::test]
async fn a_ticket_that_nobody_proved_is_not_adopted() {
    let world = World::betstack().await;
    let body = betstack::body("ticket_create", r#","ticket_id":"ticket-4711""#);
    let forged = betstack::signed(&body).replacing("signature", &"0".repeat(64));
    let stale = betstack::signed_at(&body, crate::world::now() - 301);
    for call in [forged, stale, betstack::signed(&body).without("signature")] {
        let reply = world.send(&call).await;
        assert_eq!(reply.status, 403);
        assert_version_7(reply.values("X-Correlation-ID")[0]);
    }
    world.pam.assert_untouched();
    // A ping is not signed, so nobody vouches for what it says.
    let ping = Request::new("POST", "/pam").with("Content-Type", "application/json");
    let ping = ping.body(betstack::body("ping", r#","ticket_id":"ticket-4711""#));
    let (reply, seen) = exchange(&world, &ping, false).await;
    assert_eq!(reply.status, 200);
    assert_version_7(&one_value(&seen, "X-Correlation-ID"));
}

// ---- trace context ----

// threat: F8
#[tokio::test]
async fn a_sound_trace_goes_on_under_a_new_parent() {
    let world = World::valkyrie().await;
    for (received, flags) in [
        (format!("00-{TRACE}-{PARENT}-01"), "01"),
        (format!("00-{TRACE}-{PARENT}-00"), "00"),
        (format!("00-{TRACE}-{PARENT}-03"), "03"),
        (format!("00-{TRACE}-{PARENT}-ff"), "03"),
        (format!(" \t00-{TRACE}-{PARENT}-01\t "), "01"),
        (format!("cc-{TRACE}-{PARENT}-01"), "01"),
        (format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings"), "01"),
    ] {
        for http2 in [false, true] {
            let call = call().with("TraceParent", &received).with("tracestate", "foo=1,bar=2");
            // HTTP/2 has no blanks around values.
            let call = if http2 { call.replacing("TraceParent", received.trim()) } else { call };
            let (_, seen) = exchange(&world, &call, http2).await;
            let trace = trace_of(&seen);
            assert_eq!((trace.trace_id.as_str(), trace.flags.as_str()), (TRACE, flags), "{received:?}");
            assert_ne!(trace.parent_id, PARENT);
            assert_eq!(seen.values("tracestate"), ["foo=1,bar=2"]);
        }
    }
}

// threat: F8
#[tokio::test]
async fn a_trace_that_is_none_is_started_anew_without_its_state() {
    let world = World::valkyrie().await;
    let sound = format!("00-{TRACE}-{PARENT}-01");
    let zero = |count: usize| "0".repeat(count);
    let rows = [
        vec![],
        vec![String::new()],
        vec![sound.clone(), sound.clone()],
        vec![sound.clone(), format!("00-{}-{PARENT}-01", "b".repeat(32))],
        vec![format!("{sound},{sound}")],
        vec![format!("{sound}-")],
        vec![format!("{sound}-more")],
        vec![format!("{sound}.")],
        vec![format!("cc-{TRACE}-{PARENT}-01.tail")],
        vec![format!("ff-{TRACE}-{PARENT}-01")],
        vec![format!("0-{TRACE}-{PARENT}-01")],
        vec![format!("0x-{TRACE}-{PARENT}-01")],
        vec![format!("00-{}-{PARENT}-01", TRACE.to_uppercase())],
        vec![format!("00-{}-{PARENT}-01", zero(32))],
        vec![format!("00-{TRACE}-{}-01", zero(16))],
        vec![format!("00-{}-{PARENT}-01", &TRACE[1..])],
        vec![format!("00-{TRACE}0-{PARENT}-01")],
        vec![format!("00-{TRACE}-{}-01", &PARENT[1..])],
        vec![format!("00-{TRACE}-{PARENT}-1")],
        vec![format!("00-{TRACE}-{PARENT}-0G")],
        vec![format!("00-{TRACE}-{PARENT}")],
        vec![format!("00_{TRACE}_{PARENT}_01")],
    ];
    for row in rows {
        for http2 in [false, true] {
            let call = row.iter().fold(call(), |call, value| call.with("traceparent", value));
            let (_, seen) = exchange(&world, &call.with("tracestate", "foo=1"), http2).await;
            let trace = trace_of(&seen);
            assert_ne!(trace.trace_id.to_lowercase(), TRACE, "{row:?}");
            assert!(seen.values("tracestate").is_empty(), "{row:?}");
        }
    }
}

#[tokio::test]
async fn a_misspelled_traceparent_is_none_and_stays_what_it_is() {
    let world = World::valkyrie().await;
    let call = call().with("trace-parent", &format!("00-{TRACE}-{PARENT}-01"));
    let (_, seen) = exchange(&world, &call, false).await;
    assert_ne!(trace_of(&seen).trace_id, TRACE);
    assert_eq!(seen.values("trace-parent").len(), 1);
}

#[tokio::test]
async fn every_hop_has_a_parent_of_its_own() {
    let world = World::valkyrie().await;
    let call = call().with("traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    let mut parents = HashSet::from([PARENT.to_owned()]);
    for _ in 0..10 {
        let (_, seen) = exchange(&world, &call, false).await;
        assert!(parents.insert(trace_of(&seen).parent_id));
    }
}

// threat: F9
#[tokio::test]
async fn a_tracestate_goes_on_whole_or_not_at_all() {
    let world = World::valkyrie().await;
    let members = |count: usize| (0..count).map(|at| format!("k{at}=v")).collect::<Vec<_>>().join(",");
    let key = |length: usize| format!("{}=v", "k".repeat(length));
    let rows: Vec<(Vec<String>, Option<String>)> = vec![
        (vec!["foo=1".into()], Some("foo=1".into())),
        (vec!["foo=1".into(), "bar=2".into()], Some("foo=1,bar=2".into())),
        (vec!["foo=1".into(), String::new(), "bar=2".into()], Some("foo=1,bar=2".into())),
        (vec![" foo=1 \t,\t bar=2 ,,".into()], Some("foo=1,bar=2".into())),
        (vec!["foo=1,foo=2".into()], Some("foo=1".into())),
        (vec!["t@v=1,foo@=2,foo@@bar=3".into()], Some("t@v=1,foo@=2,foo@@bar=3".into())),
        (vec![members(32)], Some(members(32))),
        (vec![members(33)], None),
        (vec![key(256)], Some(key(256))),
        (vec![key(257)], None),
        (vec![String::new()], None),
        (vec!["@foo=1".into()], None),
        (vec!["Foo=1".into()], None),
        (vec!["foo.bar=1".into()], None),
        (vec!["foo =1".into()], None),
        (vec!["foo=bar=baz".into()], None),
        (vec!["foo=".into()], None),
        (vec!["foo".into()], None),
        (vec!["foo=1".into(), "BAD=2".into()], None),
        (vec!["foo=caf\u{e9}".into()], None),
    ];
    for (received, expected) in rows {
        for http2 in [false, true] {
            let call = call().with("traceparent", &format!("00-{TRACE}-{PARENT}-01"));
            let call = received
                .iter()
                .fold(call, |call, value| call.with("tracestate", if http2 { value.trim() } else { value }));
            let (_, seen) = exchange(&world, &call, http2).await;
            assert_eq!(trace_of(&seen).trace_id, TRACE, "{received:?}");
            let expected: Vec<&str> = expected.as_deref().into_iter().collect();
            assert_eq!(seen.values("tracestate"), expected, "{received:?}");
        }
    }
}

#[tokio::test]
async fn the_log_names_the_ids_that_the_pam_got() {
    let world = World::valkyrie().await;
    let pam = world.pam.clone();
    pam.answer_with(|_| answer(200, "{}"));
    let (_, seen) = exchange(&world, &call(), false).await;
    let lines = world.finish().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["correlation_id"], json!(one_value(&seen, "X-Correlation-ID")));
    assert_eq!(lines[0]["trace_id"], json!(trace_of(&seen).trace_id));
}

// ---- what the tests above are written with ----

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn call() -> Request {
    valkyrie::call("GET", "/players/session?provider=x")
}

/// The reply, and the one request that the PAM got for it.
async fn exchange(world: &World, call: &Request, http2: bool) -> (Reply, Seen) {
    let before = world.pam.requests().len();
    let reply = if http2 { world.send_h2(call).await } else { world.send(call).await };
    let mut requests = world.pam.requests();
    assert_eq!(requests.len(), before + 1, "{}", reply.text());
    (reply, requests.pop().unwrap())
}

fn one_value(seen: &Seen, name: &str) -> String {
    let values = seen.values(name);
    assert_eq!(values.len(), 1, "{name}: {values:?}");
    values[0].to_owned()
}

struct Trace {
    trace_id: String,
    parent_id: String,
    flags: String,
}

/// The one `traceparent`, which is valid whatever the caller sent; `tracestate` is there once at most.
fn trace_of(seen: &Seen) -> Trace {
    let value = one_value(seen, "traceparent");
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace_id, parent_id, flags] = parts[..] else { panic!("traceparent: {value}") };
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    assert_eq!((version, trace_id.len(), parent_id.len(), flags.len()), ("00", 32, 16, 2), "{value}");
    assert!(hex(trace_id) && hex(parent_id) && hex(flags), "{value}");
    assert_ne!(trace_id, "0".repeat(32));
    assert_ne!(parent_id, "0".repeat(16));
    assert!(seen.values("tracestate").len() <= 1);
    Trace { trace_id: trace_id.to_owned(), parent_id: parent_id.to_owned(), flags: flags.to_owned() }
}

fn assert_version_7(id: &str) {
    let uuid: Uuid = id.parse().unwrap_or_else(|_| panic!("{id:?} is no UUID"));
    assert_eq!((uuid.get_version_num(), uuid.hyphenated().to_string().as_str()), (7, id));
}
