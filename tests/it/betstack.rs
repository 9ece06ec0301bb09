//! The Betstack family: signed calls to one path, each of them once.

use tokio::task::JoinSet;

use crate::wallet::{bad_tokens, broken_bodies, good_tokens};
use crate::world::{
    Connection, Folder, GOOD, Pam, Refusal, Reply, Request, World, answer, assert_refusals,
    assert_refused_by_the_first_check, betstack, correlation_of, futures_answer, hmac_sha256_hex, now, reason,
};

const SIGNED: [&str; 11] = [
    "identify",
    "ticket_create",
    "ticket_reserve",
    "ticket_update",
    "ticket_close",
    "ticket_refund",
    "ticket_win",
    "ticket_lost",
    "ticket_void",
    "ticket_discard",
    "ticket_rollback",
];

/// A call with every part said out: the timestamp's text, what was signed behind it, what is sent.
fn call(timestamp: &str, signed: &str, sent: impl Into<Vec<u8>>) -> Request {
    call_by(betstack::SECRET, timestamp, signed, sent)
}

fn call_by(secret: &str, timestamp: &str, signed: &str, sent: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", "/pam")
        .with("Content-Type", "application/json")
        .with("timestamp", timestamp)
        .with("signature", &hmac_sha256_hex(secret, format!("{timestamp}{signed}").as_bytes()))
        .body(sent)
}

fn call_now(signed: &str, sent: impl Into<Vec<u8>>) -> Request {
    call(&now().to_string(), signed, sent)
}

fn ticket(action: &str, id: &str) -> String {
    betstack::body(action, &format!(r#","ticket_id":"{id}""#))
}

/// A good call about a ticket, which must not have white space in it.
fn win(id: &str) -> Request {
    let body = ticket("ticket_win", id);
    call_now(&body, &*body)
}

fn no_access(what: &str, request: Request, reason: &'static str) -> Refusal {
    Refusal::new(what, request, 403, 403, reason)
}

#[tokio::test]
async fn every_action_passes_and_its_bytes_arrive_unchanged() {
    let world = World::betstack().await;
    for action in SIGNED {
        let token = if action == "identify" { r#","token":"a""# } else { "" };
        for over_h2 in [false, true] {
            // Within one second the same message would be the same message over the other protocol as well.
            let signed = betstack::body(action, &format!(r#"{token},"h2":{over_h2}"#));
            let request = call_now(&signed, signed.replace(':', " : ").replace(',', ",\r\n\t"));
            let reply = if over_h2 { world.send_h2(&request).await } else { world.send(&request).await };
            assert_eq!(reply.status, 200, "{action}");
            let seen = world.pam.requests().pop().unwrap();
            assert_eq!((&*seen.method, &*seen.target), ("POST", "/pam"));
            assert_eq!(seen.body, request.body);
            assert_eq!(seen.values("signature"), request.values("signature"));
            assert_eq!(seen.values("timestamp"), request.values("timestamp"));
        }
    }
    assert_eq!(world.pam.requests().len(), 2 * SIGNED.len());
}

#[tokio::test]
async fn ping_needs_no_proof_and_any_number_of_them_passes() {
    let world = World::betstack().await;
    let bare = Request::new("POST", "/pam").with("Content-Type", "application/json");
    let requests = [
        bare.clone().body(r#"{"action":"ping"}"#),
        bare.clone().body(r#"{"action":"ping"}"#),
        bare.clone().body(r#"{"action":"ping","data":{"operator":"nobody","token":5}}"#),
        bare.clone().body(r#"{"data":null,"\u0061ction":"p\u0069ng"}"#),
        bare.with("timestamp", "0").with("signature", "none").body(r#"{"action":"ping"}"#),
    ];
    for request in &requests {
        assert_eq!(world.send(request).await.status, 200);
        assert_eq!(world.send_h2(request).await.status, 200);
    }
    assert_eq!(world.pam.requests().len(), 2 * requests.len());
}

#[tokio::test]
async fn what_is_no_action_is_not_found() {
    let not_found = |what: &str, request: Request| Refusal::new(what, request, 404, 404, "no_route");
    let mut refusals = Vec::new();
    for action in [
        r#""withdraw""#,
        r#""Ping""#,
        r#""PING""#,
        r#""ping ""#,
        r#""ping\u0000""#,
        r#""""#,
        r#""ticket_""#,
        "null",
        "true",
        "0",
        r#"["ping"]"#,
        r#"{"action":"ping"}"#,
    ] {
        let body = format!(r#"{{"action":{action},"data":{{"operator":"operator-code"}}}}"#);
        refusals.push(not_found(action, call_now(&body, &*body)));
        refusals.push(not_found("unsigned", Request::new("POST", "/pam").body(body)));
    }
    for body in ["{}", r#"{"data":{"action":"ping"}}"#, "[]", "\"ping\"", r#"[{"action":"ping"}]"#] {
        refusals.push(not_found(body, call_now(body, body)));
    }
    let ping = Request::new("POST", "/pam").body(r#"{"action":"ping"}"#);
    for (method, target) in [
        ("POST", "/"),
        ("POST", "/pam/"),
        ("POST", "/pam/ping"),
        ("POST", "/PAM"),
        ("POST", "/metrics"),
        ("GET", "/pam"),
        ("PUT", "/pam"),
        ("DELETE", "/pam"),
        ("OPTIONS", "/pam"),
    ] {
        let request = Request { method: method.to_owned(), target: target.to_owned(), ..ping.clone() };
        refusals.push(not_found(&format!("{method} {target}"), request));
    }
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

#[tokio::test]
async fn a_call_without_a_proof_has_no_access() {
    let good = win("a");
    let refusals = vec![
        no_access("neither", good.clone().without("signature").without("timestamp"), "signature_missing"),
        no_access("no signature", good.clone().without("signature"), "signature_missing"),
        no_access("no timestamp", good.clone().without("timestamp"), "signature_missing"),
        no_access("an empty signature", good.clone().replacing("signature", ""), "signature_malformed"),
        no_access("half a signature", good.clone().replacing("signature", &"ab".repeat(16)), "signature_malformed"),
        no_access("a wrong signature", good.clone().replacing("signature", &"ab".repeat(32)), "signature_wrong"),
        no_access(
            "a signature for identify sent as a win",
            good.clone().replacing("signature", call_now("x", "").values("signature")[0]),
            "signature_wrong",
        ),
        no_access("another secret", call_by("wrong", &now().to_string(), "{}", good.body.clone()), "signature_wrong"),
        no_access(
            "credentials instead",
            good.without("signature").with("Authorization", "Bearer x"),
            "signature_missing",
        ),
    ];
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

// threat: C2
// threat: A20
#[tokio::test]
async fn each_header_of_the_proof_is_there_once() {
    let good = win("a");
    let (timestamp, signature) = (now().to_string(), good.values("signature")[0].to_owned());
    let repeated = "signature_repeated";
    let mut refusals = vec![
        no_access("the same signature twice", good.clone().with("signature", &signature), repeated),
        no_access("an empty signature behind", good.clone().with("Signature", ""), repeated),
        no_access("the same timestamp twice", good.clone().with("timestamp", &timestamp), repeated),
        no_access("another timestamp behind", good.clone().with("TIMESTAMP", "1706090303"), repeated),
        no_access("an empty timestamp behind", good.clone().with("timestamp", ""), repeated),
    ];
    for name in ["timestamp", "signature", "Signature"] {
        let named = good.clone().with("Connection", &format!("keep-alive, {name}"));
        refusals.push(Refusal::new(name, named, 400, 400, "connection").http1_only());
    }
    for twin in ["Content_Length", "Content_Encoding"] {
        refusals.push(Refusal::new(twin, good.clone().with(twin, "1"), 400, 400, "twin_field"));
    }
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

#[tokio::test]
async fn only_the_operator_that_is_named_can_sign() {
    let refused = |operator: &str, reason| {
        let body = format!(r#"{{"action":"ticket_win","data":{{{operator}"ticket_id":"a"}}}}"#);
        no_access(operator, call_now(&body, &*body), reason)
    };
    let refusals = vec![
        refused(r#""operator":"nobody","#, "key_unknown"),
        refused(r#""operator":"Operator-Code","#, "key_unknown"),
        refused(r#""operator":"operator-code ","#, "key_unknown"),
        refused(r#""operator":"betstack","#, "key_unknown"),
        refused(r#""operator":"","#, "key_unknown"),
        refused(r#""operator":17,"#, "key_unknown"),
        refused(r#""operator":null,"#, "signature_malformed"),
        refused(r#""operator":["operator-code"],"#, "signature_malformed"),
        refused("", "signature_missing"),
    ];
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

const TWO_OPERATORS: &str = r#"
[[caller]]
name = "one"
key_id = "op-one"
signing = [{ id = "k", key = { file = "secret-one" } }]
[[caller]]
name = "two"
key_id = "op-two"
signing = [{ id = "old", key = { file = "secret-two" } }, { id = "new", key = { file = "secret-two-new" } }]
"#;

fn two_operators(folder: &Folder) -> String {
    let secrets = ["secret-one", "secret-two", "secret-two-new"].map(|name| (name, name));
    folder.config("\"betstack\"\nbase_path = \"/pam\"", TWO_OPERATORS, &secrets)
}

fn win_for(operator: &str, secret: &str, id: &str) -> Request {
    let body = format!(r#"{{"action":"ticket_win","data":{{"operator":"{operator}","ticket_id":"{id}"}}}}"#);
    call_by(secret, &now().to_string(), &body, &*body)
}

// threat: C10
// threat: D13
#[tokio::test]
async fn the_secret_of_one_operator_does_not_sign_for_another() {
    let folder = Folder::new("operators");
    let config = two_operators(&folder);
    let world = World::of(&config, &[]).await;
    for (operator, secret) in [("op-one", "secret-one"), ("op-two", "secret-two"), ("op-two", "secret-two-new")] {
        assert_eq!(world.send(&win_for(operator, secret, secret)).await.status, 200, "{operator} {secret}");
    }
    let lines = world.finish().await;
    let signers: Vec<_> = lines.iter().map(|line| (line["caller"].as_str(), line["key_id"].as_str())).collect();
    let signer = |caller, key| (Some(caller), Some(key));
    assert_eq!(signers, [signer("one", "k"), signer("two", "old"), signer("two", "new")]);
    let refusals = vec![
        no_access("two's secret for one", win_for("op-one", "secret-two", "a"), "signature_wrong"),
        no_access("two's new secret for one", win_for("op-one", "secret-two-new", "a"), "signature_wrong"),
        no_access("one's secret for two", win_for("op-two", "secret-one", "a"), "signature_wrong"),
        no_access("a caller's name instead of its operator", win_for("one", "secret-one", "a"), "key_unknown"),
    ];
    assert_refusals(World::of(&config, &[]).await, betstack::code, refusals).await;
}

// threat: D10
// threat: D15
#[tokio::test]
async fn a_message_signed_again_with_the_next_secret_is_the_same_message() {
    let folder = Folder::new("rotated-replay");
    let world = World::of(&two_operators(&folder), &[]).await;
    let timestamp = now().to_string();
    let body = r#"{"action":"ticket_win","data":{"operator":"op-two","ticket_id":"a"}}"#;
    assert_eq!(world.send(&call_by("secret-two", &timestamp, body, body)).await.status, 200);
    assert_eq!(world.send(&call_by("secret-two-new", &timestamp, body, body)).await.status, 403);
    assert_eq!(world.pam.requests().len(), 1);
}

/// Sends what `offset` seconds make of now, within one second of the clock.
async fn sent_within_a_second(world: &World, offset: i64) -> Reply {
    loop {
        let before = now();
        // No other offset, a second later, makes the same message of it.
        let body = ticket("ticket_win", &format!("edge{offset}"));
        let timestamp = before.checked_add_signed(offset).unwrap().to_string();
        let reply = world.send(&call(&timestamp, &body, &*body)).await;
        if now() == before {
            return reply;
        }
    }
}

// threat: D9
#[tokio::test]
async fn the_window_is_300_seconds_to_either_side_and_not_one_more() {
    let world = World::betstack().await;
    for (offset, status) in [(0, 200), (-300, 200), (-301, 403), (300, 200), (301, 403), (-1, 200), (1, 200)] {
        assert_eq!(sent_within_a_second(&world, offset).await.status, status, "{offset}");
    }
    let lines = world.finish().await;
    let reasons: Vec<_> = lines.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, ["stale", "early"]);
}

#[tokio::test]
async fn the_window_can_be_overridden() {
    let world = World::of("config/betstack.toml", &["signature.tolerance=10s"]).await;
    for (offset, status) in [(-10, 200), (-11, 403), (10, 200), (11, 403)] {
        assert_eq!(sent_within_a_second(&world, offset).await.status, status, "{offset}");
    }
    let world = World::of("config/betstack.toml", &["signature.tolerance=3600s"]).await;
    assert_eq!(sent_within_a_second(&world, -3600).await.status, 200);
    assert_eq!(sent_within_a_second(&world, -3601).await.status, 403);
}

// threat: D9
#[tokio::test]
async fn a_time_far_away_is_refused() {
    let body = ticket("ticket_win", "a");
    let at = |timestamp: &str| call(timestamp, &body, &*body);
    let refusals = vec![
        no_access("the first ten digits", at("1000000000"), "stale"),
        no_access("the document's example", at("1706090303"), "stale"),
        no_access("the last ten digits", at("9999999999"), "early"),
    ];
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

// threat: D7
#[tokio::test]
async fn a_timestamp_is_ten_plain_digits_however_well_it_is_signed() {
    let body = ticket("ticket_win", "a");
    let seconds = now().to_string();
    let full_width: String =
        seconds.chars().map(|digit| char::from_u32(digit as u32 - 0x30 + 0xff10).unwrap()).collect();
    let arabic: String = seconds.chars().map(|digit| char::from_u32(digit as u32 - 0x30 + 0x660).unwrap()).collect();
    let timestamps = [
        String::new(),
        "-1".to_owned(),
        format!("-{seconds}"),
        format!("+{seconds}"),
        format!("+{}", &seconds[1..]),
        format!("0{seconds}"),
        format!("0{}", &seconds[1..]),
        format!("{seconds}.0"),
        format!("{seconds}."),
        format!("{}.0", &seconds[..8]),
        format!("{}e1", &seconds[..8]),
        format!("{seconds}e0"),
        format!("0x{:x}", now()),
        format!("{:x}", now()),
        format!("{seconds}000"),
        format!("{seconds}s"),
        format!("{}_{}", &seconds[..5], &seconds[5..]),
        format!("{} {}", &seconds[..5], &seconds[5..]),
        format!("{seconds},{seconds}"),
        format!("{seconds}, {seconds}"),
        format!("\"{seconds}\""),
        "2026-11-21T07:00:00Z".to_owned(),
        "now".to_owned(),
        full_width,
        arabic,
        "1".repeat(400),
        "18446744073709551617".to_owned(),
    ];
    let refusals = timestamps
        .iter()
        .map(|timestamp| no_access(timestamp, call(timestamp, &body, &*body), "timestamp_malformed"))
        .collect();
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

// threat: D8
#[tokio::test]
async fn a_digit_cannot_move_between_timestamp_and_body() {
    let body = ticket("ticket_win", "a");
    let timestamp = now().to_string();
    let signature = hmac_sha256_hex(betstack::SECRET, format!("{timestamp}{body}").as_bytes());
    let divided = |at: usize| {
        let whole = format!("{timestamp}{body}");
        Request::new("POST", "/pam")
            .with("timestamp", &whole[..at])
            .with("signature", &signature)
            .body(whole[at..].to_owned())
    };
    // A number has no zero in front; what the clock shows decides whether this one would.
    let five = if timestamp.as_bytes()[5] == b'0' { "syntax" } else { "trailing_bytes" };
    let refusals = vec![
        Refusal::new("a digit to the body", divided(9), 400, 400, "trailing_bytes"),
        Refusal::new("five digits to the body", divided(5), 400, 400, five),
        Refusal::new("the brace to the timestamp", divided(11), 400, 400, "trailing_bytes"),
        Refusal::new("all of it", divided(0), 400, 400, "trailing_bytes"),
    ];
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

// threat: D4
#[tokio::test]
async fn white_space_counts_inside_of_strings_and_nowhere_else() {
    let outside = ticket("ticket_win", "a b");
    let world = World::betstack().await;
    let spaced = format!(" \r\n\t{} \n", outside.replace(':', "\t:\r\n ").replace(',', " , "));
    assert_eq!(world.send(&call_now(&outside, &*spaced)).await.status, 200);
    assert_eq!(world.pam.only_request().body, spaced.as_bytes());
    let tricky = betstack::body("ticket_win", r#","reason":"\" : , \\","x":"\\\" y""#);
    assert_eq!(world.send(&call_now(&tricky, tricky.replace(",\"", " ,\t\""))).await.status, 200);
    let removed = ticket("ticket_win", "ab");
    let doubled = ticket("ticket_win", "a  b");
    let wrong = "signature_wrong";
    let refusals = vec![
        no_access("removed after signing", call_now(&outside, &*removed), wrong),
        no_access("added after signing", call_now(&removed, &*outside), wrong),
        no_access("doubled after signing", call_now(&outside, doubled), wrong),
        no_access("as an escape", call_now(&outside, outside.replace("a b", "a\\u0020b")), wrong),
        no_access("signed with white space outside", call_now(&spaced, &*spaced), wrong),
    ];
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

// threat: D5
// threat: D6
#[tokio::test]
async fn what_is_no_white_space_of_json_is_not_taken_away() {
    let signed = betstack::body("ticket_win", r#","stake":10"#);
    let refused = |what: &str, sent: String| Refusal::new(what, call_now(&signed, sent), 400, 400, "syntax");
    let mut refusals = vec![
        refused("a blank in a number", signed.replace(":10", ":1 0")),
        refused("a line feed in a number", signed.replace(":10", ":1\n0")),
    ];
    for (what, blank) in [
        ("NBSP", "\u{a0}"),
        ("VT", "\u{b}"),
        ("FF", "\u{c}"),
        ("NEL", "\u{85}"),
        ("U+2028", "\u{2028}"),
        ("U+2029", "\u{2029}"),
        ("U+3000", "\u{3000}"),
        ("a zero-width space", "\u{200b}"),
    ] {
        refusals.push(refused(what, signed.replace(":10", &format!(":{blank}10"))));
    }
    let literals = [("true", "t rue"), ("null", "nu ll")];
    for (literal, divided) in literals {
        let signed = betstack::body("ticket_win", &format!(r#","x":{literal}"#));
        let request = call_now(&signed, signed.replace(literal, divided));
        refusals.push(Refusal::new(divided, request, 400, 400, "syntax"));
    }
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

#[tokio::test]
async fn a_number_is_signed_as_it_is_written() {
    let literals = ["10", "10.0", "1e1", "10.00", "9007199254740993", "-0", "0.1e-7"];
    let of = |literal: &str| betstack::body("ticket_create", &format!(r#","stake":{literal}"#));
    let world = World::betstack().await;
    for literal in literals {
        let body = of(literal);
        assert_eq!(world.send(&call_now(&body, &*body)).await.status, 200, "{literal}");
        assert_eq!(world.pam.requests().pop().unwrap().body, body.as_bytes());
    }
    let rewritten = [("10", "10.0"), ("10.0", "10"), ("1e1", "10"), ("9007199254740993", "9007199254740992")];
    let refusals = rewritten.map(|(signed, sent)| {
        no_access(&format!("{signed} as {sent}"), call_now(&of(signed), of(sent)), "signature_wrong")
    });
    assert_refusals(World::betstack().await, betstack::code, refusals.into()).await;
}

fn identify(token: &str) -> String {
    betstack::body("identify", &format!(r#","token":{token}"#))
}

// threat: E2
#[tokio::test]
async fn a_token_of_1_to_128_visible_characters_identifies() {
    let world = World::betstack().await;
    for token in good_tokens() {
        let body = identify(&token);
        assert_eq!(world.send(&call_now(&body, &*body)).await.status, 200, "{token}");
    }
    let escaped = betstack::body("identify", r#","tok\u0065n":"x""#);
    assert_eq!(world.send(&call_now(&escaped, &*escaped)).await.status, 200);
    assert_eq!(world.pam.requests().len(), good_tokens().len() + 1);
}

// threat: E9
#[tokio::test]
async fn any_other_token_is_no_user() {
    let no_user = |what: &str, body: String, reason| Refusal::new(what, call_now(&body, &*body), 400, 101, reason);
    let mut refusals: Vec<_> =
        bad_tokens().iter().map(|token| no_user(token, identify(token), "token_malformed")).collect();
    refusals.push(no_user("no token", betstack::body("identify", ""), "token_missing"));
    let outside = r#"{"action":"identify","token":"a","data":{"operator":"operator-code"}}"#;
    refusals.push(no_user("a token elsewhere", outside.to_owned(), "token_missing"));
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

#[tokio::test]
async fn the_length_of_tokens_can_be_overridden() {
    let world = World::of("config/betstack.toml", &["token.length=[2, 3]"]).await;
    for (token, status) in [("\"a\"", 400), ("\"ab\"", 200), ("\"abc\"", 200), ("\"abcd\"", 400)] {
        let body = identify(token);
        assert_eq!(world.send(&call_now(&body, &*body)).await.status, status, "{token}");
    }
}

// threat: E1
// threat: E3
// threat: E4
// threat: E5
// threat: E6
// threat: E7
#[tokio::test]
async fn a_body_that_readers_disagree_about_is_refused() {
    let mut broken = broken_bodies(&identify("\"a\""));
    let twins = [
        (
            "two actions",
            r#"{"action":"ping","action":"identify","data":{"operator":"operator-code"}}"#,
            "duplicate_key",
        ),
        ("two actions, one escaped", r#"{"action":"ping","actio\u006e":"ticket_win"}"#, "duplicate_key"),
        ("action and Action", r#"{"action":"ping","Action":"ticket_win"}"#, "twin_key"),
        ("two data", r#"{"action":"ticket_win","data":{"operator":"operator-code"},"data":{}}"#, "duplicate_key"),
        ("data and DATA", r#"{"action":"ticket_win","DATA":{},"data":{"operator":"operator-code"}}"#, "twin_key"),
        (
            "two operators",
            r#"{"action":"ticket_win","data":{"operator":"operator-code","operator":"x"}}"#,
            "duplicate_key",
        ),
        ("operator twin", r#"{"action":"ticket_win","data":{"operator":"operator-code","Operator":"x"}}"#, "twin_key"),
        (
            "two tokens",
            r#"{"action":"identify","data":{"operator":"operator-code","token":"a","token":"b"}}"#,
            "duplicate_key",
        ),
        (
            "token twin",
            r#"{"action":"identify","data":{"operator":"operator-code","token":"a","TOKEN":"b"}}"#,
            "twin_key",
        ),
    ];
    broken.extend(twins.map(|(what, body, reason)| (what, body.as_bytes().to_vec(), reason)));
    let mut refusals: Vec<_> = broken
        .into_iter()
        .map(|(what, body, reason)| Refusal::new(what, Request::new("POST", "/pam").body(body), 400, 400, reason))
        .collect();
    let ping = Request::new("POST", "/pam").body(r#"{"action":"ping"}"#);
    let gzip = ping.clone().with("Content-Encoding", "gzip");
    refusals.push(Refusal::new("gzip", gzip, 415, 400, "content_encoding"));
    let form = ping.clone().with("Content-Type", "application/x-www-form-urlencoded");
    refusals.push(Refusal::new("a form", form, 415, 400, "content_type"));
    refusals.push(Refusal::new("65,537 bytes", ping.body(vec![b' '; 65_537]), 413, 400, "body_too_large"));
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

#[tokio::test]
async fn the_ticket_is_the_correlation_id_of_a_call_that_has_none() {
    let world = World::betstack().await;
    let reply = world.send(&win("ticket-17")).await;
    assert_eq!(reply.values("x-correlation-id"), ["ticket-17"]);
    let with_header = win("ticket-18").with("X-Correlation-ID", "header-18");
    assert_eq!(world.send(&with_header).await.values("x-correlation-id"), ["header-18"]);
    let requests = world.pam.requests();
    assert_eq!(requests[0].values("x-correlation-id"), ["ticket-17"]);
    assert_eq!(requests[1].values("x-correlation-id"), ["header-18"]);
    // A stranger does not choose what stands in the log.
    let stranger = world.send(&win("ticket-19").replacing("signature", &"ab".repeat(32))).await;
    assert_ne!(stranger.values("x-correlation-id"), ["ticket-19"]);
}

async fn assert_replayed(world: World, sent: usize, reply: &Reply) {
    assert_eq!((reply.status, betstack::code(reply)), (403, 403.into()));
    assert_eq!(world.pam.requests().len(), sent);
    let id = correlation_of(reply);
    let lines = world.finish().await;
    // The ticket's id is that of the first call as well.
    let line = lines.iter().find(|line| line["correlation_id"] == *id && line["decision"] == "refused").unwrap();
    assert_eq!((&line["check"], &line["reason"]), (&"freshness".into(), &"replayed".into()));
}

// threat: D10
#[tokio::test]
async fn a_message_is_admitted_once_however_it_is_spelled_and_wherever_it_comes_from() {
    let body = betstack::body("ticket_win", r#","ticket_id":"a b""#);
    let timestamp = now().to_string();
    let first = call(&timestamp, &body, &*body);
    let upper = first.values("signature")[0].to_uppercase();
    let copies = [
        ("the same bytes", first.clone()),
        ("white space between", first.clone().body(body.replace(',', " ,\n"))),
        ("white space around", first.clone().body(format!("\t{body}\r\n"))),
        ("the signature in capitals", first.clone().replacing("signature", &upper)),
        ("other headers", first.clone().with("X-Retry", "1").with("X-Correlation-ID", "other")),
        ("another query", Request { target: "/pam?x=1".to_owned(), ..first.clone() }),
        ("without a type", first.clone().without("Content-Type")),
    ];
    for (what, copy) in copies {
        for over_h2 in [false, true] {
            let world = World::betstack().await;
            assert_eq!(world.send(&first).await.status, 200, "{what}");
            let reply = if over_h2 { world.send_h2(&copy).await } else { world.send(&copy).await };
            assert_replayed(world, 1, &reply).await;
        }
    }
}

// threat: D10
#[tokio::test]
async fn a_copy_is_refused_on_the_same_connection_and_after_http2_as_well() {
    let world = World::betstack().await;
    let mut connection = world.connect().await;
    assert_eq!(connection.send(&win("a")).await.status, 200);
    let second = win("b");
    assert_eq!(world.send_h2(&second).await.status, 200);
    let reply = connection.send(&second).await;
    assert_replayed(world, 2, &reply).await;
}

#[tokio::test]
async fn another_second_or_another_word_is_another_message() {
    let world = World::betstack().await;
    let body = ticket("ticket_win", "a");
    for offset in 0..3 {
        assert_eq!(world.send(&call(&(now() - offset * 10).to_string(), &body, &*body)).await.status, 200);
    }
    assert_eq!(
        world.send(&call(&now().to_string(), &ticket("ticket_win", "b"), ticket("ticket_win", "b"))).await.status,
        200
    );
    assert_eq!(world.pam.requests().len(), 4);
}

// threat: D12
#[tokio::test]
async fn a_resend_passes_when_the_pam_gave_no_definitive_answer() {
    let no_answers = [
        ("500", Some(answer(500, "{}"))),
        ("502", Some(answer(502, "{}"))),
        ("503", Some(answer(503, "{}"))),
        ("599", Some(answer(599, "{}"))),
        ("a closed connection", None),
        ("garbage", Some(b"garbage\r\n\r\n".to_vec())),
        ("an unasked 101", Some(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n".to_vec())),
        ("a broken length", Some(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_vec())),
    ];
    for (what, no_answer) in no_answers {
        let world = World::betstack().await;
        world.pam.answer_in_turn(vec![no_answer, Some(answer(200, GOOD))]);
        let request = win("a");
        let first = world.send(&request).await;
        assert!(first.status >= 500, "{what}: {}", first.status);
        assert_eq!(world.pam.requests().len(), 1, "{what}: sent twice by Portcullis itself");
        assert_eq!(world.send(&request).await.status, 200, "{what}");
        // That answer was definitive.
        let reply = world.send_h2(&request).await;
        assert_replayed(world, 2, &reply).await;
    }
}

// threat: D12
#[tokio::test]
async fn a_resend_passes_after_a_timeout() {
    for answer_cut in [None, Some(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec())] {
        let world = World::of("config/betstack.toml", &["timeouts.total=100ms"]).await;
        let cut = answer_cut.clone();
        world.pam.answer_async(move |_| {
            let cut = cut.clone();
            futures_answer::of(async move {
                match cut {
                    Some(bytes) => Some(bytes),
                    None => std::future::pending().await,
                }
            })
        });
        let request = win("a");
        let first = world.send(&request).await;
        assert_eq!((first.status, betstack::code(&first)), (504, 504.into()));
        world.pam.answer_with(|_| answer(200, GOOD));
        assert_eq!(world.send(&request).await.status, 200);
        let reply = world.send(&request).await;
        assert_replayed(world, 2, &reply).await;
    }
}

// threat: D12
#[tokio::test]
async fn a_resend_is_refused_after_any_definitive_answer() {
    for status in [200, 201, 204, 301, 400, 401, 403, 404, 409, 429, 499] {
        let world = World::betstack().await;
        world.pam.answer_with(move |_| {
            if status == 204 { b"HTTP/1.1 204 X\r\n\r\n".to_vec() } else { answer(status, r#"{"code":101}"#) }
        });
        let request = win("a");
        assert_eq!(world.send(&request).await.status, status);
        let reply = world.send(&request).await;
        assert_replayed(world, 1, &reply).await;
    }
}

// threat: D12
#[tokio::test]
async fn a_message_that_did_not_reach_the_pam_is_no_replay() {
    let mut pam = Pam::start().await;
    // Nobody listens there.
    pam.address = "127.0.0.1:1".parse().unwrap();
    let world = World::with_pam("config/betstack.toml", &[], pam).await;
    let request = win("a");
    for _ in 0..2 {
        let reply = world.send(&request).await;
        assert_eq!((reply.status, betstack::code(&reply)), (503, 503.into()));
    }
}

#[tokio::test]
async fn a_refused_message_has_not_used_up_its_signature() {
    let world = World::of("config/betstack.toml", &["token.length=[2, 3]"]).await;
    let body = identify("\"a\"");
    let request = call_now(&body, &*body);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let reply = world.send(&request).await;
        assert_eq!((reply.status, betstack::code(&reply)), (400, 101.into()));
        ids.push(correlation_of(&reply));
    }
    world.pam.assert_untouched();
    assert_eq!(world.metric("portcullis_replays_remembered").await, 0.0);
    let lines = world.finish().await;
    for id in ids {
        assert_eq!(reason(&lines, &id), "token_malformed");
    }
}

#[tokio::test]
async fn a_wrong_signature_does_not_use_up_the_right_one() {
    let world = World::betstack().await;
    let good = win("a");
    assert_eq!(world.send(&good.clone().replacing("signature", &"ab".repeat(32))).await.status, 403);
    world.pam.assert_untouched();
    assert_eq!(world.send(&good).await.status, 200);
}

/// Sends copies of a request at once, every second one over HTTP/2, and lets the PAM answer when all are inside.
async fn at_once(world: World, request: &Request, copies: usize, release: impl FnOnce()) -> (World, Vec<u16>) {
    let world = std::sync::Arc::new(world);
    let mut tasks = JoinSet::new();
    for copy in 0..copies {
        let (world, request) = (std::sync::Arc::clone(&world), request.clone());
        tasks.spawn(async move {
            if copy % 2 == 0 { world.send(&request).await.status } else { world.send_h2(&request).await.status }
        });
    }
    world.until("portcullis_requests_in_flight", copies as f64).await;
    release();
    let mut statuses = tasks.join_all().await;
    statuses.sort_unstable();
    let world = std::sync::Arc::into_inner(world).unwrap();
    (world, statuses)
}

// threat: D10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_copies_at_once_exactly_one_reaches_the_pam() {
    let world = World::betstack().await;
    let release = world.pam.hold(answer(200, GOOD));
    let (world, statuses) = at_once(world, &win("a"), 20, || _ = release.send_replace(true)).await;
    assert_eq!(statuses, [&[200][..], &[403; 19]].concat());
    assert_eq!(world.pam.requests().len(), 1);
    assert_eq!(world.pam.connections(), 1);
}

// threat: D12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_copies_one_more_passes_when_the_pam_failed_the_first() {
    let world = World::betstack().await;
    let (release, released) = tokio::sync::watch::channel(false);
    let turn = std::sync::atomic::AtomicUsize::new(0);
    world.pam.answer_async(move |_| {
        let first = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let mut released = released.clone();
        futures_answer::of(async move {
            let _ = released.wait_for(|open| *open).await;
            Some(if first { answer(500, "{}") } else { answer(200, GOOD) })
        })
    });
    let (world, statuses) = at_once(world, &win("a"), 20, || _ = release.send_replace(true)).await;
    let of = |status: u16| statuses.iter().filter(|other| **other == status).count();
    // The others are told to come again, or that one has passed meanwhile.
    assert_eq!((of(200), of(500), of(503) + of(403)), (1, 1, 18), "{statuses:?}");
    assert_eq!(world.pam.requests().len(), 2);
}

// threat: G5
#[tokio::test]
async fn a_caller_that_hangs_up_does_not_free_its_message() {
    let world = World::betstack().await;
    let release = world.pam.hold(answer(200, GOOD));
    let request = win("a");
    let mut connection = world.connect().await;
    connection.write(&request.bytes()).await;
    world.pam.arrived(1).await;
    drop(connection);
    release.send_replace(true);
    world.until("portcullis_requests_in_flight", 0.0).await;
    let reply = world.send(&request).await;
    assert_replayed(world, 1, &reply).await;
}

// threat: D11
#[tokio::test]
async fn a_full_memory_of_messages_is_our_trouble_and_one_operators_alone() {
    let folder = Folder::new("replay-full");
    let world = World::of(&two_operators(&folder), &["replay.capacity=2"]).await;
    let first = win_for("op-one", "secret-one", "a");
    assert_eq!(world.send(&first).await.status, 200);
    assert_eq!(world.send(&win_for("op-one", "secret-one", "b")).await.status, 200);
    let full = world.send(&win_for("op-one", "secret-one", "c")).await;
    assert_eq!((full.status, betstack::code(&full)), (503, 503.into()));
    assert_eq!(world.pam.requests().len(), 2);
    // Nothing was forgotten to make room, and nobody else is held up; who has two keys needs two places.
    assert_ne!(world.send(&first).await.status, 200);
    assert_eq!(world.send(&win_for("op-two", "secret-two", "b")).await.status, 200);
    assert_eq!(world.send(&win_for("op-two", "secret-two-new", "c")).await.status, 503);
    let ping = Request::new("POST", "/pam").body(r#"{"action":"ping"}"#);
    assert_eq!(world.send(&ping).await.status, 200);
    assert_eq!(world.pam.requests().len(), 4);
    let id = correlation_of(&full);
    let lines = world.finish().await;
    assert_eq!(reason(&lines, &id), "replay_memory_full");
}

// threat: D11
#[tokio::test]
async fn a_replay_is_called_a_replay_also_when_the_memory_is_full() {
    let world = World::of("config/betstack.toml", &["replay.capacity=1"]).await;
    let request = win("a");
    assert_eq!(world.send(&request).await.status, 200);
    let reply = world.send(&request).await;
    assert_replayed(world, 1, &reply).await;
}

// threat: D12
#[tokio::test]
async fn a_message_without_an_answer_gives_its_place_back() {
    let world = World::of("config/betstack.toml", &["replay.capacity=1"]).await;
    world.pam.answer_in_turn(vec![Some(answer(500, "{}")), None, Some(answer(200, GOOD))]);
    for (id, status) in [("a", 500), ("b", 502), ("c", 200), ("d", 503)] {
        assert_eq!(world.send(&win(id)).await.status, status, "{id}");
    }
    assert_eq!(world.pam.requests().len(), 3);
}

/// A Betstack call, broken in any of these ways.
#[derive(Clone, Copy, Debug)]
struct Broken {
    route: bool,
    size: bool,
    signature: bool,
    stale: bool,
    replayed: bool,
    token: bool,
}

const MESSAGE_SENT: &str = "{\"action\":\"identify\",\"data\":{\"operator\":\"operator-code\",\"token\":\"sent\"}}";

impl Broken {
    fn every_way() -> impl Iterator<Item = Broken> {
        (1..64u8).map(|bits| {
            let [route, size, signature, stale, replayed, token] = std::array::from_fn(|bit| bits & 1 << bit != 0);
            Broken { route, size, signature, stale, replayed, token }
        })
    }

    /// `sent` is when [`MESSAGE_SENT`] was admitted.
    fn request(self, sent: u64) -> Request {
        let body =
            if self.replayed { MESSAGE_SENT.to_owned() } else { identify(if self.token { "\"\"" } else { "\"a\"" }) };
        let timestamp = if self.stale { sent - 1000 } else { sent };
        let secret = if self.signature { "wrong" } else { betstack::SECRET };
        let padding = if self.size { 65_536 } else { 0 };
        let request = call_by(secret, &timestamp.to_string(), &body, format!("{body}{}", " ".repeat(padding)));
        Request { target: if self.route { "/" } else { "/pam" }.to_owned(), ..request }
    }

    /// The first check in the order of the gate.
    fn expected(self) -> (u16, &'static str) {
        match self {
            Broken { route: true, .. } => (404, "no_route"),
            Broken { size: true, .. } => (413, "body_too_large"),
            Broken { signature: true, .. } => (403, "signature_wrong"),
            Broken { stale: true, .. } => (403, "stale"),
            Broken { replayed: true, .. } => (403, "replayed"),
            Broken { .. } => (400, "token_malformed"),
        }
    }
}

#[tokio::test]
async fn a_betstack_call_broken_in_several_ways_is_refused_by_the_first_check() {
    let world = World::betstack().await;
    let sent = now();
    assert_eq!(world.send(&call(&sent.to_string(), MESSAGE_SENT, MESSAGE_SENT)).await.status, 200);
    let (ways, request) = (Broken::every_way(), |broken: Broken| broken.request(sent));
    assert_refused_by_the_first_check(world, betstack::code, ways, request, Broken::expected).await;
}

#[tokio::test]
async fn an_unknown_action_is_refused_before_its_proof_is_looked_at() {
    let body = betstack::body("withdraw", "");
    let wrong = call_by("wrong", "1", &body, &*body);
    let refusals = vec![Refusal::new("unknown and unsigned", wrong, 404, 404, "no_route")];
    assert_refusals(World::betstack().await, betstack::code, refusals).await;
}

// threat: D12
#[tokio::test]
async fn a_message_whose_body_was_cut_may_come_whole() {
    let world = World::betstack().await;
    let request = win("a");
    let bytes = request.bytes();
    let mut connection = Connection::to(world.address).await;
    connection.write(&bytes[..bytes.len() - 5]).await;
    drop(connection);
    assert_eq!(world.send(&request).await.status, 200);
    assert_eq!(world.pam.requests().len(), 1);
}
