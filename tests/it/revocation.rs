//! Tokens that ended: what ends them, and that none of them comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::world::{
    GOOD, PATIENCE, Refusal, Reply, Request, World, answer, basic, correlation_of, futures_answer, hmac_sha256_hex,
    reason, valkyrie, wallet,
};

const REFRESHED: &str = r#"{"status":"OK","session":{"token":"the-next-token-of-32-characters-0"}}"#;
const TERMINATED: &str = r#"{"status":true,"code":1,"token":"dead"}"#;
const SESSION: &str = "/players/session?provider=evolution";

/// A player token of 32 characters.
fn token(number: usize) -> String {
    format!("player-token-of-this-test-{number:06}")
}

fn refresh(token: &str) -> Request {
    valkyrie::call("PUT", SESSION)
        .replacing("X-Player-Token", token)
        .with("Content-Type", "application/json")
        .body("null")
}

fn look_up(token: &str) -> Request {
    valkyrie::call("GET", SESSION).replacing("X-Player-Token", token)
}

/// Every operation of the Valkyrie family.
fn operations(token: &str) -> Vec<(&'static str, Request)> {
    let call = |method: &str, path: &str| {
        valkyrie::call(method, &format!("{path}?provider=evolution")).replacing("X-Player-Token", token)
    };
    vec![
        ("getSession", look_up(token)),
        ("refreshSession", refresh(token)),
        ("getBalance", call("GET", "/players/17/balance")),
        ("getTransactions", call("GET", "/players/17/transactions").with("X-Any", "1")),
        ("addTransaction", call("POST", "/players/17/transactions").body(r#"{"transactionType":"WITHDRAW"}"#)),
        ("getGameRound", call("GET", "/players/17/gamerounds/r-1")),
    ]
}

fn wallet_call(operation: &str, token: &str) -> Request {
    wallet::signed(operation, &wallet::body(token))
}

fn is_expired(reply: &Reply) -> bool {
    reply.status == 401 && valkyrie::code(reply) == "PAM_ERR_SESSION_EXPIRED"
}

/// A Valkyrie world in which a token has been refreshed.
async fn refreshed(set: &[&str]) -> World {
    let world = World::of("config/valkyrie.toml", set).await;
    world.pam.answer_with(|_| answer(200, REFRESHED));
    assert_eq!(world.send(&refresh(&token(0))).await.status, 200);
    world.pam.answer_with(|_| answer(200, GOOD));
    world
}

/// A wallet world in which the token `dead` has been terminated.
async fn terminated(set: &[&str]) -> World {
    let world = World::of("config/wallet.toml", set).await;
    world.pam.answer_with(|_| answer(200, TERMINATED));
    assert_eq!(world.send(&wallet_call("terminate", "dead")).await.status, 200);
    world.pam.answer_with(|_| answer(200, GOOD));
    world
}

#[tokio::test]
async fn refresh_retires_the_old_token_on_every_route_and_protocol() {
    let world = refreshed(&[]).await;
    let mut connection = world.connect().await;
    let mut ids = Vec::new();
    for (operation, request) in operations(&token(0)) {
        for reply in [world.send(&request).await, world.send_h2(&request).await, connection.send(&request).await] {
            assert!(is_expired(&reply), "{operation}: {} {}", reply.status, reply.text());
            ids.push(correlation_of(&reply));
        }
    }
    assert_eq!(world.pam.requests().len(), 1);
    assert_eq!(world.metric("portcullis_revocations_live").await, 1.0);
    let lines = world.finish().await;
    assert!(ids.iter().all(|id| reason(&lines, id) == "token_ended"));
}

#[tokio::test]
async fn refresh_retires_no_other_token() {
    let world = refreshed(&[]).await;
    let next = "the-next-token-of-32-characters-0";
    // Differences in case, in the last character and in length.
    let others = [token(1), token(0).to_uppercase(), format!("{}x", token(0)), next.to_owned()];
    let mut count = 1;
    for other in &others {
        for (operation, request) in operations(other) {
            assert_eq!(world.send(&request).await.status, 200, "{operation} with {other}");
            count += 1;
        }
    }
    assert_eq!(world.pam.requests().len(), count);
    assert_eq!(world.metric("portcullis_revocations_live").await, 1.0);
}

#[tokio::test]
async fn refresh_over_http2_retires_the_token_over_http1() {
    let world = World::valkyrie().await;
    world.pam.answer_with(|_| answer(200, REFRESHED));
    let by_basic = refresh(&token(0)).replacing("Authorization", &basic("operator", valkyrie::PASSWORD));
    assert_eq!(world.send_h2(&by_basic).await.status, 200);
    // Whoever ended it, it is dead for every caller.
    assert!(is_expired(&world.send(&look_up(&token(0))).await));
    assert!(is_expired(&world.send(&by_basic).await));
    assert_eq!(world.pam.requests().len(), 1);
}

#[tokio::test]
async fn terminate_retires_the_token_on_every_route_and_protocol() {
    let world = terminated(&[]).await;
    let mut ids = Vec::new();
    for operation in ["authenticate", "balance", "debit", "credit", "rollback", "terminate"] {
        let request = wallet_call(operation, "dead");
        for reply in [world.send(&request).await, world.send_h2(&request).await] {
            assert_eq!((reply.status, wallet::code(&reply)), (401, 401.into()), "{operation}");
            ids.push(correlation_of(&reply));
        }
        for other in ["Dead", "dea", "deadd", "alive"] {
            assert_eq!(world.send(&wallet_call(operation, other)).await.status, 200, "{operation} with {other}");
        }
    }
    assert_eq!(world.pam.requests().len(), 1 + 6 * 4);
    let lines = world.finish().await;
    assert!(ids.iter().all(|id| reason(&lines, id) == "token_ended"));
}

// threat: E2
#[tokio::test]
async fn a_dead_token_stays_dead_however_it_is_spelled() {
    let world = terminated(&[]).await;
    for body in [
        r#"{"token":"\u0064ead"}"#,
        r#"{"token":"\u0064\u0065\u0061\u0064"}"#,
        r#"{"token":"\u0064\u0065\u0061\u0064","x":1}"#,
        r#"{"tok\u0065n":"dead"}"#,
        r#"{"\u0074\u006f\u006b\u0065\u006e":"d\u0065ad"}"#,
        " {\t\"token\"\r\n:\n\"dead\" } ",
        r#"{"player_id":1,"data":{"token":"alive"},"token":"dead"}"#,
    ] {
        assert_eq!(world.send(&wallet::signed("debit", body)).await.status, 401, "{body}");
        assert_eq!(world.send_h2(&wallet::signed("debit", body)).await.status, 401, "{body}");
    }
    assert_eq!(world.pam.requests().len(), 1);
}

// threat: E2
#[tokio::test]
async fn a_token_that_was_ended_by_an_escaped_spelling_is_dead_in_the_plain_one() {
    let world = World::wallet().await;
    world.pam.answer_with(|_| answer(200, TERMINATED));
    assert_eq!(world.send(&wallet::signed("terminate", r#"{"tok\u0065n":"de\u0061d"}"#)).await.status, 200);
    assert_eq!(world.send(&wallet_call("debit", "dead")).await.status, 401);
    assert_eq!(world.pam.requests().len(), 1);
}

// threat: F1
#[tokio::test]
async fn ending_a_dead_token_again_is_refused_and_not_forwarded() {
    let world = terminated(&[]).await;
    world.pam.answer_with(|_| answer(200, TERMINATED));
    for _ in 0..3 {
        assert_eq!(world.send(&wallet_call("terminate", "dead")).await.status, 401);
    }
    assert_eq!(world.pam.requests().len(), 1);
    assert_eq!(world.metric("portcullis_revocations_live").await, 1.0);
}

/// Refreshes with the PAM saying `said`; the reply, and whether the token is dead after it.
async fn after_refresh(said: Vec<u8>, set: &[&str]) -> (Reply, bool) {
    let world = World::of("config/valkyrie.toml", set).await;
    world.pam.answer_with(move |_| said.clone());
    let reply = world.send(&refresh(&token(0))).await;
    let recorded = world.metric("portcullis_revocations_live").await;
    world.pam.answer_with(|_| answer(200, GOOD));
    let next = world.send(&look_up(&token(0))).await;
    let dead = is_expired(&next);
    assert_eq!(next.status, if dead { 401 } else { 200 });
    assert_eq!(recorded, if dead { 1.0 } else { 0.0 });
    (reply, dead)
}

#[tokio::test]
async fn a_refresh_that_did_not_succeed_ends_nothing() {
    let failed = [
        (200, r#"{"status":"ERROR","error":{"code":"PAM_ERR_SESSION_EXPIRED","message":"x"}}"#),
        (200, r#"{"status":"OK","error":{},"session":{"token":"next"}}"#),
        (200, r#"{"status":"OK","error":{"code":"x"},"session":{"token":"next"}}"#),
        (200, r#"{"status":"OK","error":"","session":{"token":"next"}}"#),
        (200, r#"{"status":"OK","error":false,"session":{"token":"next"}}"#),
        (200, r#"{"status":"OK","\u0065rror":{"code":"x"},"session":{"token":"next"}}"#),
        (200, r#"{"status":"OK"}"#),
        (200, r#"{"status":"OK","session":null}"#),
        (200, r#"{"status":"OK","session":{}}"#),
        (200, r#"{"status":"OK","session":{"token":null}}"#),
        (200, r#"{"status":"OK","session":"next"}"#),
        (200, r#"{"status":"OK","session":["next"]}"#),
        (200, r#"{"status":"OK","token":"next"}"#),
        (200, r#"{"status":"OK","session":{"session":{"token":"next"}}}"#),
        (200, "[]"),
        (200, "null"),
        (201, REFRESHED),
        (202, REFRESHED),
        (206, REFRESHED),
        (302, REFRESHED),
        (400, REFRESHED),
        (401, REFRESHED),
        (404, REFRESHED),
        (500, REFRESHED),
        (503, REFRESHED),
        (500, "not JSON"),
    ];
    for (status, body) in failed {
        let (reply, dead) = after_refresh(answer(status, body), &[]).await;
        assert_eq!((reply.status, &*reply.text()), (status, body));
        assert!(!dead, "{status} {body}");
    }
}

#[tokio::test]
async fn a_refresh_that_succeeded_ends_the_token_however_its_answer_is_written() {
    let chunked = |body: &str| {
        let (first, second) = body.split_at(body.len() / 2);
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x};x=1\r\n{second}\r\n0\r\nX-Trailer: 1\r\n\r\n",
            first.len(),
            second.len()
        )
    };
    let good = [
        String::from_utf8(answer(200, REFRESHED)).unwrap(),
        String::from_utf8(answer(200, r#"{"session":{"token":"next"},"error":null}"#)).unwrap(),
        String::from_utf8(answer(200, r#"{"s\u0065ssion":{"tok\u0065n":"n\u0065xt"},"status":"ERROR"}"#)).unwrap(),
        format!("HTTP/1.1 100 Continue\r\n\r\n{}", String::from_utf8(answer(200, REFRESHED)).unwrap()),
        format!(
            "HTTP/1.1 200 \r\nContent-Encoding: identity\r\ncontent-length: {}\r\n\r\n{REFRESHED}",
            REFRESHED.len()
        ),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{REFRESHED}",
            REFRESHED.len()
        ),
        chunked(REFRESHED),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{REFRESHED}"),
        format!("HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{REFRESHED}"),
    ];
    for said in good {
        let (reply, dead) = after_refresh(said.clone().into_bytes(), &[]).await;
        assert_eq!(reply.status, 200, "{said}");
        assert_eq!(reply.values("content-length"), [reply.body.len().to_string()], "{said}");
        assert_eq!(reply.values("transfer-encoding").len(), 0);
        assert!(dead, "{said}");
    }
}

// threat: F4
#[tokio::test]
async fn an_answer_that_cannot_be_read_strictly_ends_nothing_and_is_not_passed_on() {
    let with_field = |field: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let twice = r#"{"session":{"token":"a","token":null}}"#;
    let twin = r#"{"error":{"code":"x"},"Error":null,"session":{"token":"a"}}"#;
    let cut = &REFRESHED[..REFRESHED.len() - 1];
    let unreadable: Vec<(&str, Vec<u8>)> = vec![
        ("no JSON", answer(200, "refreshed")),
        ("nothing", answer(200, "")),
        ("JSON cut off", answer(200, cut)),
        ("two documents", answer(200, &format!("{REFRESHED}{REFRESHED}"))),
        ("a BOM", answer(200, &format!("\u{feff}{REFRESHED}"))),
        ("a key twice", answer(200, twice)),
        ("a twin", answer(200, twin)),
        ("NaN", answer(200, r#"{"session":{"token":"a"},"x":NaN}"#)),
        ("gzip", with_field("Content-Encoding: gzip", REFRESHED)),
        ("two codings", with_field("Content-Encoding: identity\r\nContent-Encoding: identity", REFRESHED)),
        ("a list of codings", with_field("Content-Encoding: identity, br", REFRESHED)),
        ("not UTF-8", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\"\xff\"".to_vec()),
        ("two lengths", with_field("Content-Length: 3", REFRESHED)),
        ("a length and chunks", with_field("Transfer-Encoding: chunked", REFRESHED)),
    ];
    for (what, said) in unreadable {
        let (reply, dead) = after_refresh(said, &[]).await;
        assert_eq!((reply.status, valkyrie::code(&reply)), (502, "PAM_ERR_UNDEFINED".into()), "{what}");
        let _ = correlation_of(&reply);
        assert!(!dead, "{what}");
    }
}

// threat: F4
#[tokio::test]
async fn an_answer_that_stays_incomplete_ends_nothing() {
    let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{REFRESHED}", REFRESHED.len() + 1);
    let chunks =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{REFRESHED}\r\n", REFRESHED.len());
    let closed = |said: &str| said.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    for said in [closed(&cut), closed(&chunks)] {
        let (reply, dead) = after_refresh(said.into_bytes(), &[]).await;
        assert_eq!((reply.status, valkyrie::code(&reply)), (502, "PAM_ERR_UNDEFINED".into()));
        assert!(!dead);
    }
    for said in [cut, chunks] {
        let (reply, dead) = after_refresh(said.into_bytes(), &["timeouts.total=100ms"]).await;
        assert_eq!((reply.status, valkyrie::code(&reply)), (504, "PAM_ERR_TIMEOUT".into()));
        assert!(!dead);
    }
}

#[tokio::test]
async fn an_answer_too_large_to_be_held_ends_nothing_and_is_not_passed_on() {
    let of = |length: usize| {
        let body = format!("{REFRESHED}{}", " ".repeat(length - REFRESHED.len()));
        (
            answer(200, &body),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        )
    };
    let set = ["limits.answer=300"];
    let (whole, chunked) = of(300);
    assert!(after_refresh(whole, &set).await.1);
    assert!(after_refresh(chunked.into_bytes(), &set).await.1);
    let (whole, chunked) = of(301);
    for said in [whole, chunked.into_bytes()] {
        let (reply, dead) = after_refresh(said, &set).await;
        assert_eq!((reply.status, valkyrie::code(&reply)), (502, "PAM_ERR_UNDEFINED".into()));
        assert!(!dead);
    }
}

#[tokio::test]
async fn the_pam_is_not_asked_for_an_encoded_answer_where_it_must_be_read() {
    let world = World::valkyrie().await;
    world.send(&refresh(&token(0)).with("Accept-Encoding", "gzip")).await;
    world.send(&look_up(&token(0)).with("Accept-Encoding", "gzip")).await;
    let requests = world.pam.requests();
    assert_eq!(requests[0].values("accept-encoding").len(), 0);
    assert_eq!(requests[1].values("accept-encoding"), ["gzip"]);
}

#[tokio::test]
async fn terminate_ends_a_token_exactly_when_status_is_true() {
    let cases = [
        (200, r#"{"status":true}"#, true),
        (200, r#"{"code":1,"st\u0061tus":true}"#, true),
        (200, r#"{"status":true,"token":"other","code":"1"}"#, true),
        (200, r#"{"status":false,"code":7}"#, false),
        (200, r#"{"status":"true"}"#, false),
        (200, r#"{"status":1}"#, false),
        (200, r#"{"status":null}"#, false),
        (200, r#"{"status":[true]}"#, false),
        (200, r#"{"code":1}"#, false),
        (200, r#"{"data":{"status":true}}"#, false),
        (200, "true", false),
        (201, r#"{"status":true}"#, false),
        (400, r#"{"status":true}"#, false),
        (500, r#"{"status":true}"#, false),
    ];
    for (status, body, ends) in cases {
        let world = World::wallet().await;
        world.pam.answer_with(move |_| answer(status, body));
        let reply = world.send(&wallet_call("terminate", "a")).await;
        assert_eq!((reply.status, &*reply.text()), (status, body));
        world.pam.answer_with(|_| answer(200, GOOD));
        let expected = if ends { 401 } else { 200 };
        assert_eq!(world.send(&wallet_call("debit", "a")).await.status, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_terminate_whose_answer_cannot_be_read_is_502_in_the_wallets_words() {
    for body in ["", "terminated", r#"{"status":true,"status":false}"#, r#"{"status":true,"Status":false}"#] {
        let world = World::wallet().await;
        world.pam.answer_with(move |_| answer(200, body));
        let reply = world.send(&wallet_call("terminate", "a")).await;
        assert_eq!((reply.status, wallet::code(&reply)), (502, 502.into()), "{body}");
        world.pam.answer_with(|_| answer(200, GOOD));
        assert_eq!(world.send(&wallet_call("debit", "a")).await.status, 200, "{body}");
    }
}

// threat: F3
#[tokio::test]
async fn no_other_route_and_no_refused_call_ends_a_token() {
    let world = World::wallet().await;
    world.pam.answer_with(|_| answer(200, TERMINATED));
    for operation in ["authenticate", "balance", "debit", "credit", "rollback"] {
        assert_eq!(world.send(&wallet_call(operation, "a")).await.status, 200);
    }
    let forged = [
        wallet_call("terminate", "a").replacing("X-Request-Signature", &hmac_sha256_hex("wrong", b"")),
        wallet_call("terminate", "a").replacing("Authorization", &basic(wallet::USER, "wrong")),
        wallet_call("terminate", "a").without("X-Request-Signature"),
    ];
    for request in forged {
        assert_eq!(world.send(&request).await.status, 401);
    }
    assert_eq!(world.pam.requests().len(), 5);
    assert_eq!(world.send(&wallet_call("debit", "a")).await.status, 200);

    let world = World::valkyrie().await;
    world.pam.answer_with(|_| answer(200, REFRESHED));
    for (operation, request) in operations(&token(0)) {
        if operation != "refreshSession" {
            assert_eq!(world.send(&request).await.status, 200, "{operation}");
        }
    }
    let stranger = refresh(&token(0)).replacing("Authorization", "Bearer wrong");
    assert_eq!(world.send(&stranger).await.status, 401);
    assert_eq!(world.send(&look_up(&token(0))).await.status, 200);
}

// threat: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_500_replays_at_the_first_byte_of_the_ending_answer_none_passes() {
    const ROUNDS: usize = 10;
    const REPLAYS: usize = 50;
    let world = World::valkyrie().await;
    let late = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&late);
    world.pam.answer_with(move |seen| {
        if seen.method == "GET" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        answer(200, REFRESHED)
    });
    let mut connections = Vec::new();
    for _ in 0..REPLAYS {
        connections.push(world.connect().await);
    }
    for round in 0..ROUNDS {
        let replay = look_up(&token(round)).bytes();
        let mut ending = world.connect().await;
        ending.write(&refresh(&token(round)).bytes()).await;
        // One byte is all that a caller needs to know that it worked.
        let mut first = [0];
        timeout(PATIENCE, ending.stream.read_exact(&mut first)).await.unwrap().unwrap();
        for connection in &mut connections {
            connection.write(&replay).await;
        }
        for connection in &mut connections {
            let reply = connection.reply().await;
            assert!(is_expired(&reply), "{}", reply.status);
        }
        // The rest of the reply is the PAM's.
        let rest = [&first[..], &ending.rest_of_reply(REFRESHED).await].concat();
        assert!(rest.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(late.load(Ordering::SeqCst), 0);
    assert_eq!(world.pam.requests().len(), ROUNDS);
}

// threat: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_after_the_ending_answer_is_refused_however_early_it_began() {
    let world = World::valkyrie().await;
    let release = world.pam.hold(answer(200, REFRESHED));
    let old = token(0);
    let mut ending = world.connect().await;
    ending.write(&refresh(&old).bytes()).await;
    world.pam.arrived(1).await;

    // While the PAM decides, the token is alive.
    let mut early = world.connect().await;
    early.write(&look_up(&old).bytes()).await;
    world.pam.arrived(2).await;
    // Begun now, complete only after the token has died.
    let transaction = operations(&old).swap_remove(4).1.bytes();
    let mut halves = Vec::new();
    for at in [1, 40, transaction.len() - 20, transaction.len() - 1] {
        let mut connection = world.connect().await;
        connection.write(&transaction[..at]).await;
        halves.push((at, connection));
    }
    release.send_replace(true);
    assert_eq!(ending.reply().await.status, 200);
    assert_eq!(early.reply().await.status, 200);
    for (at, connection) in &mut halves {
        connection.write(&transaction[*at..]).await;
        assert!(is_expired(&connection.reply().await), "divided at {at}");
    }
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_endings_of_one_token_at_once_are_recorded_once() {
    let world = World::valkyrie().await;
    let release = world.pam.hold(answer(200, REFRESHED));
    let mut endings = Vec::new();
    for count in 1..=2 {
        let mut connection = world.connect().await;
        connection.write(&refresh(&token(0)).bytes()).await;
        world.pam.arrived(count).await;
        endings.push(connection);
    }
    release.send_replace(true);
    for ending in &mut endings {
        assert_eq!(ending.reply().await.status, 200);
    }
    assert!(is_expired(&world.send(&look_up(&token(0))).await));
    assert_eq!(world.metric("portcullis_revocations_live").await, 1.0);
}

// threat: G5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_has_ended_its_token_all_the_same() {
    let world = World::valkyrie().await;
    let release = world.pam.hold(answer(200, REFRESHED));
    let mut ending = world.connect().await;
    ending.write(&refresh(&token(0)).bytes()).await;
    world.pam.arrived(1).await;
    drop(ending);
    release.send_replace(true);
    world.until("portcullis_requests_in_flight", 0.0).await;
    assert!(is_expired(&world.send(&look_up(&token(0))).await));
    assert_eq!(world.pam.requests().len(), 1);
}

// threat: F2
#[tokio::test]
async fn a_full_memory_refuses_new_endings_and_nothing_else() {
    let world = terminated(&["revocation.capacity=1"]).await;
    world.pam.answer_with(|_| answer(200, TERMINATED));
    let mut ids = Vec::new();
    for request in [wallet_call("terminate", "second"), wallet_call("terminate", "third")] {
        for reply in [world.send(&request).await, world.send_h2(&request).await] {
            assert_eq!((reply.status, wallet::code(&reply)), (503, 503.into()));
            ids.push(correlation_of(&reply));
        }
    }
    assert_eq!(world.pam.requests().len(), 1);
    for operation in ["authenticate", "balance", "debit", "credit", "rollback"] {
        assert_eq!(world.send(&wallet_call(operation, "second")).await.status, 200, "{operation}");
    }
    assert_eq!(world.pam.requests().len(), 6);
    // The first is as dead as before, and is called so.
    assert_eq!(world.send(&wallet_call("debit", "dead")).await.status, 401);
    assert_eq!(world.send(&wallet_call("terminate", "dead")).await.status, 401);
    assert_eq!(world.pam.requests().len(), 6);
    let lines = world.finish().await;
    assert!(ids.iter().all(|id| reason(&lines, id) == "revocation_memory_full"));
}

#[tokio::test]
async fn a_memory_that_fills_up_says_so_well_before() {
    let world = World::of("config/wallet.toml", &["revocation.capacity=5"]).await;
    world.pam.answer_with(|_| answer(200, TERMINATED));
    for (number, nearly_full) in [(1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0), (5, 1.0)] {
        assert_eq!(world.send(&wallet_call("terminate", &format!("token-{number}"))).await.status, 200);
        assert_eq!(world.metric("portcullis_revocations_nearly_full").await, nearly_full, "{number}");
    }
}

// threat: F2
#[tokio::test]
async fn the_place_for_an_ending_is_taken_before_the_pam_is_asked_and_given_back_when_it_was_none() {
    let world = World::of("config/wallet.toml", &["revocation.capacity=1"]).await;
    let release = world.pam.hold(answer(200, r#"{"status":false}"#));
    let mut first = world.connect().await;
    first.write(&wallet_call("terminate", "first").bytes()).await;
    world.pam.arrived(1).await;
    assert_eq!(world.send(&wallet_call("terminate", "second")).await.status, 503);
    assert_eq!(world.pam.requests().len(), 1);
    release.send_replace(true);
    assert_eq!(first.reply().await.status, 200);
    world.pam.answer_in_turn(vec![
        None,
        Some(answer(500, "{}")),
        Some(answer(200, "?")),
        Some(answer(200, TERMINATED)),
    ]);
    for status in [502, 500, 502, 200, 503] {
        let token = format!("token-{status}");
        assert_eq!(world.send(&wallet_call("terminate", &token)).await.status, status);
    }
    assert_eq!(world.send(&wallet_call("debit", "token-200")).await.status, 401);
}

fn transaction(token: &str, body: &str) -> Request {
    valkyrie::call("POST", "/players/17/transactions?provider=evolution")
        .replacing("X-Player-Token", token)
        .with("Content-Type", "application/json")
        .body(body)
}

#[tokio::test]
async fn strict_is_the_default_and_refuses_settlement_with_a_dead_token() {
    for set in [&[][..], &["token.settlement=strict"]] {
        let world = refreshed(set).await;
        for kind in ["DEPOSIT", "CANCEL", "PROMODEPOSIT", "PROMOCANCEL", "WITHDRAW", "PROMOWITHDRAW"] {
            let request = transaction(&token(0), &format!(r#"{{"transactionType":"{kind}"}}"#));
            assert!(is_expired(&world.send(&request).await), "{kind}");
        }
        for (operation, request) in operations(&token(0)) {
            assert!(is_expired(&world.send(&request).await), "{operation}");
        }
        assert_eq!(world.pam.requests().len(), 1);
    }
}

const ADMIT: [&str; 1] = ["token.settlement=admit"];

#[tokio::test]
async fn with_settlement_admitted_a_win_a_cancel_and_a_look_up_pass_with_a_dead_token() {
    let world = refreshed(&ADMIT).await;
    let mut requests: Vec<_> = ["DEPOSIT", "CANCEL", "PROMODEPOSIT", "PROMOCANCEL", r"DEP\u004fSIT"]
        .iter()
        .map(|kind| transaction(&token(0), &format!(r#"{{"transactionType":"{kind}","cashAmount":10.0}}"#)))
        .collect();
    let looks = ["getSession", "getTransactions", "getGameRound"];
    requests.extend(operations(&token(0)).into_iter().filter(|(name, _)| looks.contains(name)).map(|(_, call)| call));
    assert_eq!(requests.len(), 8);
    let mut count = 1;
    for request in &requests {
        assert_eq!(world.send(request).await.status, 200, "{} {request:?}", request.target);
        assert_eq!(world.send_h2(request).await.status, 200, "{}", request.target);
        count += 2;
        assert_eq!(world.pam.requests().len(), count);
        assert_eq!(world.pam.requests().pop().unwrap().body, request.body);
    }
    let lines = world.finish().await;
    let settled = lines.iter().filter(|line| line["decision"] == "settled").count();
    assert_eq!(settled, 16);
}

#[tokio::test]
async fn with_settlement_admitted_a_bet_a_balance_and_a_refresh_still_need_a_live_token() {
    let world = refreshed(&ADMIT).await;
    let bets = [
        r#"{"transactionType":"WITHDRAW"}"#,
        r#"{"transactionType":"PROMOWITHDRAW"}"#,
        r#"{"transactionType":"deposit"}"#,
        r#"{"transactionType":"DEPOSIT "}"#,
        r#"{"transactionType":["DEPOSIT"]}"#,
        r#"{"transactionType":null}"#,
        r#"{"transactionType":1}"#,
        r#"{"data":{"transactionType":"DEPOSIT"}}"#,
        r#"{}"#,
        r#""DEPOSIT""#,
        r#"[{"transactionType":"DEPOSIT"}]"#,
    ];
    for body in bets {
        let request = transaction(&token(0), body);
        assert!(is_expired(&world.send(&request).await), "{body}");
        assert!(is_expired(&world.send_h2(&request).await), "{body}");
        assert_eq!(world.send(&transaction(&token(1), body)).await.status, 200, "{body} with a live token");
    }
    let sent = world.pam.requests().len();
    for (operation, request) in operations(&token(0)) {
        if ["refreshSession", "getBalance", "addTransaction"].contains(&operation) {
            assert!(is_expired(&world.send(&request).await), "{operation}");
        }
    }
    assert_eq!(world.pam.requests().len(), sent);
}

// threat: E1
// threat: E10
#[tokio::test]
async fn with_settlement_admitted_a_bet_cannot_dress_up_as_a_win() {
    let bad = |what: &str, request: Request, status: u16, reason| {
        Refusal::new(what, request, status, "PAM_ERR_UNDEFINED", reason)
    };
    let both = |body: &str| transaction(&token(0), body);
    let win = both(r#"{"transactionType":"DEPOSIT"}"#);
    let refusals = vec![
        bad("twice", both(r#"{"transactionType":"DEPOSIT","transactionType":"WITHDRAW"}"#), 400, "duplicate_key"),
        bad(
            "escaped",
            both(r#"{"transactionType":"DEPOSIT","transaction\u0054ype":"WITHDRAW"}"#),
            400,
            "duplicate_key",
        ),
        bad("a twin", both(r#"{"transactionType":"DEPOSIT","TransactionType":"WITHDRAW"}"#), 400, "twin_key"),
        bad(
            "two bodies",
            both(r#"{"transactionType":"DEPOSIT"}{"transactionType":"WITHDRAW"}"#),
            400,
            "trailing_bytes",
        ),
        bad("gzip", win.clone().with("Content-Encoding", "gzip"), 415, "content_encoding"),
        bad("a form", win.replacing("Content-Type", "application/x-www-form-urlencoded"), 415, "content_type"),
        bad("no JSON", both("transactionType=DEPOSIT"), 400, "syntax"),
    ];
    // The token needs not be dead for that: the body decides whether it may be.
    crate::world::assert_refusals(World::of("config/valkyrie.toml", &ADMIT).await, valkyrie::code, refusals).await;
}

#[tokio::test]
async fn with_settlement_admitted_a_wallet_credits_and_rolls_back_and_does_nothing_else() {
    let world = terminated(&ADMIT).await;
    for operation in ["credit", "rollback"] {
        assert_eq!(world.send(&wallet_call(operation, "dead")).await.status, 200, "{operation}");
    }
    assert_eq!(world.pam.requests().len(), 3);
    for operation in ["authenticate", "balance", "debit", "terminate"] {
        assert_eq!(world.send(&wallet_call(operation, "dead")).await.status, 401, "{operation}");
    }
    let forged = wallet_call("credit", "dead").replacing("X-Request-Signature", &"ab".repeat(32));
    assert_eq!(world.send(&forged).await.status, 401);
    assert_eq!(world.pam.requests().len(), 3);
}

#[tokio::test]
async fn a_token_that_has_ended_lives_again_only_when_its_time_is_over() {
    let world = terminated(&["revocation.keep=50ms"]).await;
    let again = async { while world.send(&wallet_call("debit", "dead")).await.status != 200 {} };
    timeout(PATIENCE, again).await.unwrap();
    assert_eq!(world.metric(r#"portcullis_revocations_total{cause="answer"}"#).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_pam_that_comes_too_late_ends_nothing() {
    let world = World::of("config/valkyrie.toml", &["timeouts.total=100ms"]).await;
    let (late, answered) = tokio::sync::watch::channel(false);
    world.pam.answer_async(move |seen| {
        let mut answered = answered.clone();
        futures_answer::of(async move {
            if seen.method == "PUT" {
                let _ = answered.wait_for(|open| *open).await;
            }
            Some(answer(200, REFRESHED))
        })
    });
    let reply = world.send(&refresh(&token(0))).await;
    assert_eq!((reply.status, valkyrie::code(&reply)), (504, "PAM_ERR_TIMEOUT".into()));
    late.send_replace(true);
    // Whether the PAM acted is unknown, and the caller was told so. It must be able to find out.
    assert_eq!(world.send(&look_up(&token(0))).await.status, 200);
}
