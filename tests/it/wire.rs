//! What callers send, byte for byte, over HTTP/1.1 and HTTP/2: what is ambiguous is refused in the family's words, and what
//! is served reaches the PAM whole and once.

use h2::Reason;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http2_abuse::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame, status,
};
use crate::world::{Connection, GOOD, PATIENCE, Reply, Request, World, answer, valkyrie, wallet};

// ---- heads; those that are refused are files in tests/wire ----

#[tokio::test]
async fn what_is_just_within_the_limits_is_served() {
    let world = World::valkyrie().await;
    let call = valkyrie::call("GET", SESSION);
    let many = (call.fields.len()..100).fold(call, |call, _| call.with("X", "y"));
    let long = valkyrie::call("GET", &format!("{SESSION}{}", "x".repeat((8 << 10) - SESSION.len())));
    let large = valkyrie::call("GET", SESSION).with("X", "");
    let large = large.clone().replacing("X", &"y".repeat((32 << 10) - large.bytes().len()));
    for call in [many, long, large] {
        assert_eq!(world.send(&call).await.status, 200);
        assert_eq!(world.send_h2(&call).await.status, 200);
    }
}

// ---- bodies ----

#[tokio::test]
async fn bodies_of_every_size_arrive_whole_over_both_protocols() {
    for (set, sizes) in [(&[][..], &[0, 1, 10, 4_095, 65_535, 65_536][..]), (&["limits.body=1MiB"], &[65_537, 1 << 20])]
    {
        let world = World::of("config/valkyrie.toml", set).await;
        for &size in sizes {
            let call = valkyrie::call("PUT", SESSION).body(bytes(size));
            assert_eq!(world.send(&call).await.status, 200, "{size}");
            assert_eq!(world.send_h2(&call).await.status, 200, "{size}");
            let requests = world.pam.requests();
            for seen in &requests[requests.len() - 2..] {
                assert_eq!(seen.values("Content-Length"), [size.to_string()]);
                assert!(seen.body == bytes(size), "a body of {size} bytes changed");
            }
        }
        assert_eq!(world.pam.requests().len(), 2 * sizes.len());
    }
}

// threat: A3
#[tokio::test]
async fn one_byte_more_than_the_limit_is_refused_over_both_protocols() {
    for (set, size) in [(&[][..], 65_537), (&["limits.body=1MiB"], (1 << 20) + 1), (&["limits.body=10"], 11)] {
        let world = World::of("config/valkyrie.toml", set).await;
        let call = valkyrie::call("PUT", SESSION).body(bytes(size));
        let declared = call.clone().with("Content-Length", &size.to_string());
        for reply in [world.send(&call).await, world.send_h2(&call).await, world.send_h2(&declared).await] {
            assert_eq!(reply.status, 413, "{size}");
            assert_eq!(reply.json()["error"]["code"], "PAM_ERR_UNDEFINED");
        }
        world.pam.assert_untouched();
    }
}

#[tokio::test]
async fn a_request_may_arrive_byte_by_byte() {
    let world = World::wallet().await;
    let mut caller = world.connect().await;
    caller.stream.set_nodelay(true).unwrap();
    for _ in 0..2 {
        for byte in good().as_bytes() {
            caller.write(&[*byte]).await;
        }
        assert_eq!(caller.reply().await.status, 200);
    }
    assert!(world.pam.requests().iter().all(|seen| seen.body == wallet::body("t").as_bytes()));
    assert_eq!(world.pam.requests().len(), 2);
}

// threat: A17
#[tokio::test]
async fn a_refusal_closes_on_a_huge_body_and_still_arrives() {
    let world = World::wallet().await;
    let mut caller = world.connect().await;
    caller.write(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await;
    // More than the kernel holds, so the reply has to make its way against what the caller is still sending.
    let (mut read, mut write) = caller.stream.into_split();
    let sending = tokio::spawn(async move { write.write_all(&vec![b'x'; 10_000_000]).await.is_err() });
    let mut reply = vec![0; 22];
    timeout(PATIENCE, read.read_exact(&mut reply)).await.unwrap().unwrap();
    assert_eq!(reply, b"HTTP/1.1 404 Not Found");
    assert!(timeout(PATIENCE, sending).await.unwrap().unwrap(), "ten megabytes were read of a refused request");
    world.pam.assert_untouched();
}

// threat: A17
#[tokio::test]
async fn a_connection_that_is_ended_is_closed_and_not_reset() {
    let world = World::wallet().await;
    let mut caller = world.connect().await;
    caller.write(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await;
    caller.write(&[b'x'; 32 << 10]).await;
    // A reset could overtake the reply on a longer way than this one.
    let mut rest = Vec::new();
    timeout(PATIENCE, caller.stream.read_to_end(&mut rest)).await.unwrap().expect("the connection was reset");
    assert!(rest.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
}

// ---- connections ----

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let world = World::wallet().await;
    let mut caller = world.connect().await;
    for _ in 0..3 {
        let reply = caller.send(&wallet::signed("debit", &wallet::body("t"))).await;
        assert_eq!((reply.status, reply.values("Connection").len()), (200, 0));
    }
    let last = wallet::signed("debit", &wallet::body("t")).with("Connection", "close");
    let reply = caller.send(&last).await;
    assert_eq!((reply.status, reply.values("Connection")), (200, vec!["close"]));
    assert!(caller.rest().await.is_empty());
    assert_eq!(world.pam.requests().len(), 4);
}

// threat: A15
#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let world = World::wallet().await;
    world.pam.answer_with(|seen| answer(200, &json!({ "at": seen.target }).to_string()));
    let mut caller = world.connect().await;
    let operations = ["debit", "credit", "balance"];
    let calls = operations.map(|operation| wallet::signed(operation, &wallet::body("t")).bytes());
    caller.write(&calls.concat()).await;
    for operation in operations {
        assert_eq!(caller.reply().await.json()["at"], format!("/api/wallet/{operation}"));
    }
    assert_eq!(world.pam.requests().len(), 3);
}

// threat: A15, G5
#[tokio::test]
async fn bytes_that_arrive_while_the_pam_executes_disturb_nothing() {
    for (stray, status_behind) in [("GARBAGE\r\n\r\n", 400), ("\0\0\0\0\r\n\r\n", 400), ("\r\n", 200)] {
        let world = World::wallet().await;
        let release = world.pam.hold(answer(200, GOOD));
        let mut caller = world.connect().await;
        caller.write(good().as_bytes()).await;
        world.pam.arrived(1).await;
        caller.write(stray.as_bytes()).await;
        release.send(true).unwrap();
        let reply = caller.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, GOOD), "{stray:?}");
        world.pam.only_request();
        caller.write(good().as_bytes()).await;
        assert_eq!(caller.reply().await.status, status_behind, "{stray:?}");
    }
}

// threat: G5
#[tokio::test]
async fn a_caller_that_closes_its_side_still_gets_the_reply() {
    let world = World::wallet().await;
    let release = world.pam.hold(answer(200, GOOD));
    let mut caller = world.connect().await;
    caller.write(good().as_bytes()).await;
    caller.stream.shutdown().await.unwrap();
    world.pam.arrived(1).await;
    release.send(true).unwrap();
    assert_eq!(caller.reply().await.text(), GOOD);
    assert!(caller.rest().await.is_empty());
    world.pam.only_request();
}

// threat: G5, F1
#[tokio::test]
async fn a_caller_that_resets_neither_repeats_nor_undoes_what_the_pam_executes() {
    for http2 in [false, true] {
        let world = World::wallet().await;
        let release = world.pam.hold(answer(200, r#"{"status":true}"#));
        let terminate = wallet::signed("terminate", &wallet::body("t"));
        if http2 {
            let stream = TcpStream::connect(world.address).await.unwrap();
            let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            let (answer, mut body) = client.send_request(h2_head(&world, &terminate), false).unwrap();
            body.send_data(terminate.body.clone().into(), true).unwrap();
            world.pam.arrived(1).await;
            body.send_reset(Reason::CANCEL);
            assert!(answer.await.is_err());
            driver.abort();
        } else {
            let mut caller = world.connect().await;
            caller.write(&terminate.bytes()).await;
            world.pam.arrived(1).await;
            caller.stream.set_zero_linger().unwrap();
        }
        release.send(true).unwrap();
        let recorded = async { while world.metric("portcullis_revocations_live").await != 1.0 {} };
        timeout(PATIENCE, recorded).await.expect("the ending was lost with its caller");
        assert_eq!(world.send(&wallet::signed("debit", &wallet::body("t"))).await.status, 401);
        world.pam.only_request();
    }
}

// threat: G6
#[tokio::test]
async fn a_slow_head_is_cut_off_and_nobody_else_notices() {
    let world = World::of("config/wallet.toml", &["limits.head_timeout=200ms"]).await;
    let mut slow = world.connect().await;
    slow.write(b"POST /api/wallet/debit HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!(world.send(&wallet::signed("balance", &wallet::body("t"))).await.status, 200);
    let reply = slow.reply().await;
    assert_malformed(&reply, 408);
    assert_eq!(reply.values("Connection"), ["close"]);
    assert!(slow.rest().await.is_empty());
    world.pam.only_request();
}

// threat: G6
#[tokio::test]
async fn a_slow_body_is_cut_off() {
    let world = World::of("config/wallet.toml", &["limits.body_timeout=200ms"]).await;
    let mut slow = world.connect().await;
    slow.write(&good().as_bytes()[..good().len() - 1]).await;
    let reply = slow.reply().await;
    assert_malformed(&reply, 408);
    assert_eq!(reply.values("Connection"), ["close"]);
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let call = wallet::signed("debit", &wallet::body("t"));
    let (answer, mut body) = client.send_request(h2_head(&world, &call), false).unwrap();
    body.send_data(b"{"[..].into(), false).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 408);
    driver.abort();
    world.pam.assert_untouched();
}

// threat: B7, G6
#[tokio::test]
async fn who_says_too_little_is_let_go_without_a_word() {
    let world = World::of("config/wallet.toml", &["limits.head_timeout=100ms"]).await;
    for little in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut caller = world.connect().await;
        caller.write(little.as_bytes()).await;
        assert!(caller.rest().await.is_empty(), "{little:?}");
    }
    world.pam.assert_untouched();
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let world = World::of("config/wallet.toml", &["limits.idle_timeout=100ms"]).await;
    let mut caller = world.connect().await;
    caller.write(good().as_bytes()).await;
    assert_eq!(caller.reply().await.status, 200);
    assert!(caller.rest().await.is_empty());

    let stream = TcpStream::connect(world.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    // It ends although the client is ready to send.
    let _ = timeout(PATIENCE, connection).await.expect("the connection did not end");
    drop(client);
}

#[tokio::test]
async fn an_empty_line_behind_a_request_is_no_request() {
    let world = World::of("config/wallet.toml", &["limits.head_timeout=100ms", "limits.idle_timeout=300ms"]).await;
    for stray in ["\r\n", "\r"] {
        let mut caller = world.connect().await;
        caller.write(format!("{}{stray}", good()).as_bytes()).await;
        assert_eq!(caller.reply().await.status, 200);
        // A 408 here would be taken for the answer to the next request.
        assert_eq!(caller.rest().await, b"", "{stray:?}");
    }
}

#[tokio::test]
async fn an_http_1_0_caller_is_served_and_let_go() {
    let world = World::wallet().await;
    for more in ["", "\r\nConnection: keep-alive"] {
        let mut caller = world.connect().await;
        caller.write(with(&good(), &format!("X-A: b{more}")).replace("HTTP/1.1", "HTTP/1.0").as_bytes()).await;
        let reply = caller.reply().await;
        assert_eq!((reply.status, reply.values("Connection")), (200, vec!["close"]));
        assert!(caller.rest().await.is_empty());
    }
    let seen = &world.pam.requests()[0];
    assert!(seen.head.starts_with("POST /api/wallet/debit HTTP/1.1\r\n"));
    assert_eq!(seen.values("Host"), ["pam.example"]);
}

// threat: G13
#[tokio::test]
async fn a_drain_waits_for_what_is_in_flight_and_closes_what_is_idle() {
    // Long, so that nobody leaves for another reason than the drain.
    let world = World::of("config/wallet.toml", &["limits.head_timeout=1h", "limits.idle_timeout=1h"]).await;
    let (pam, address) = (world.pam.clone(), world.address);
    let mut silent = world.connect().await;
    let mut idle = world.connect().await;
    idle.write(good().as_bytes()).await;
    assert_eq!(idle.reply().await.status, 200);
    let stream = TcpStream::connect(address).await.unwrap();
    let (_client, connection) = h2::client::handshake(stream).await.unwrap();
    let idle_h2 = tokio::spawn(connection);
    let mut raw = Raw::to(address).await;
    assert_eq!(raw.next().await.0, SETTINGS);

    let release = pam.hold(answer(200, GOOD));
    let mut caller = world.connect().await;
    caller.write(good().as_bytes()).await;
    pam.arrived(2).await;
    let finish = tokio::spawn(world.finish());
    assert!(silent.rest().await.is_empty());
    assert!(idle.rest().await.is_empty());
    timeout(PATIENCE, idle_h2).await.expect("the idle connection did not end").unwrap().unwrap();
    // One that is told to go and does not.
    timeout(PATIENCE, raw.ended()).await.expect("the deaf connection did not end");
    assert!(!finish.is_finished(), "the request in flight was left behind");

    release.send(true).unwrap();
    let reply = caller.reply().await;
    assert_eq!((reply.status, reply.values("Connection")), (200, vec!["close"]));
    let lines = finish.await.unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!(pam.requests().len(), 2);
    assert!(TcpStream::connect(address).await.is_err(), "it still accepts");
}

// threat: G5, G13
#[tokio::test]
async fn a_drain_waits_for_a_request_whose_caller_has_gone() {
    for http2 in [false, true] {
        let world = World::wallet().await;
        let pam = world.pam.clone();
        let release = pam.hold(answer(200, r#"{"status":true}"#));
        let terminate = wallet::signed("terminate", &wallet::body("t"));
        if http2 {
            let stream = TcpStream::connect(world.address).await.unwrap();
            let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            let (_answer, mut body) = client.send_request(h2_head(&world, &terminate), false).unwrap();
            body.send_data(terminate.body.clone().into(), true).unwrap();
            pam.arrived(1).await;
            driver.abort();
            let _ = driver.await;
        } else {
            let mut caller = world.connect().await;
            caller.write(&terminate.bytes()).await;
            pam.arrived(1).await;
            caller.stream.set_zero_linger().unwrap();
        }
        let address = world.address;
        let finish = tokio::spawn(world.finish());
        while TcpStream::connect(address).await.is_ok() {}
        release.send(true).unwrap();
        let lines = finish.await.unwrap();
        assert_eq!((lines.len(), &lines[0]["token_ended"]), (1, &json!(true)), "HTTP/2: {http2}");
        pam.only_request();
    }
}

// ---- HTTP/2 ----

/// A raw request over HTTP/2 that passes; what the rows below change of it must be why they are refused.
#[tokio::test]
async fn the_plain_http2_request_passes() {
    let world = World::valkyrie().await;
    assert_eq!(raw_outcome(&world, &h2_fields(&[], &[])).await, Outcome::Status(200));
    world.pam.only_request();
}

// threat: B11, B12, B14, B15, B16
#[tokio::test]
async fn an_http2_head_that_is_no_head_is_refused() {
    let world = World::valkyrie().await;
    let twice: &[(&str, &str)] = &[("host", "pam.example"), ("host", "pam.example")];
    for (changed, added) in [
        (&[][..], &[("x-a", "b\r\nX-B: c")][..]),
        (&[], &[("x-a", "b\0c")]),
        (&[], &[("x-a", "b\nc")]),
        (&[], &[("x-a\r\nx-b", "c")]),
        (&[], &[("x-a: b", "c")]),
        (&[], &[("x a", "b")]),
        (&[], &[("X-A", "b")]),
        (&[], &[("", "b")]),
        (&[], &[("x-a\0", "b")]),
        (&[(":path", "/players/session?provider=x HTTP/1.1\r\nX: y")], &[]),
        (&[(":path", "/players/session?provider=x\r\n")], &[]),
        (&[(":path", "/players/session?provider=x\0")], &[]),
        (&[(":path", "/players/session ?provider=x")], &[]),
        (&[(":method", "GET\r\nX: y")], &[]),
        (&[(":method", "GET /x")], &[]),
        (&[(":authority", "pam.example\r\nX: y")], &[]),
        (&[], &[("connection", "keep-alive")]),
        (&[], &[("connection", "authorization")]),
        (&[], &[("keep-alive", "1")]),
        (&[], &[("proxy-connection", "keep-alive")]),
        (&[], &[("transfer-encoding", "chunked")]),
        (&[], &[("upgrade", "h2c")]),
        (&[], &[("te", "gzip")]),
        (&[], &[("host", "evil.example")]),
        (&[], twice),
        (&[(":authority", "user@pam.example")], &[]),
        (&[(":authority", "a, b")], &[]),
        (&[(":authority", "")], &[]),
        (&[(":method", "")], &[]),
        (&[(":path", "")], &[]),
        (&[(":path", "players/session?provider=x")], &[]),
        (&[(":path", "*")], &[]),
        (&[(":path", "http://pam.example/players/session?provider=x")], &[]),
        (&[(":path", "//players/session?provider=x")], &[]),
        (&[], &[(":path", "/players/session?provider=y")]),
        (&[], &[(":method", "PUT")]),
        (&[], &[(":unknown", "x")]),
        (&[], &[(":status", "200")]),
        (&[(":method", "CONNECT")], &[]),
        (&[(":method", "CONNECT"), (":protocol", "websocket")], &[]),
        (&[(":method", "TRACE")], &[]),
        (&[], &[("expect", "200-maybe")]),
    ] {
        let outcome = raw_outcome(&world, &h2_fields(changed, added)).await;
        let refused = match outcome {
            Outcome::Status(status) => (400..500).contains(&status),
            Outcome::Reset(code) => code == u32::from(Reason::PROTOCOL_ERROR),
            Outcome::Ended => true,
        };
        assert!(refused, "{changed:?} {added:?}: {outcome:?}");
    }
    world.pam.assert_untouched();
}

// threat: B15
#[tokio::test]
async fn an_http2_fragment_is_gone_before_anything_is_checked() {
    let world = World::valkyrie().await;
    let fields = h2_fields(&[(":path", "/players/session?provider=x#/../y")], &[]);
    assert_eq!(raw_outcome(&world, &fields).await, Outcome::Status(200));
    // The h2 crate cuts it off. What was checked is what is forwarded all the same.
    assert_eq!(world.pam.only_request().target, SESSION);
}

// threat: A21, B5
#[tokio::test]
async fn http2_heads_have_the_limits_of_all_heads() {
    let world = World::valkyrie().await;
    let call = valkyrie::call("GET", SESSION);
    let many = (0..100).fold(call.clone(), |call, at| call.with(&format!("x-{at}"), "y"));
    let large = call.clone().with("x-large", &"y".repeat(33 << 10));
    let long = valkyrie::call("GET", &format!("{SESSION}{}", "x".repeat(8 << 10)));
    for (call, status) in [(many, 431), (large, 431), (long, 414)] {
        let reply = world.send_h2(&call).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!("PAM_ERR_UNDEFINED")));
    }
    world.pam.assert_untouched();
}

// threat: B13
#[tokio::test]
async fn an_http2_body_that_is_not_as_long_as_declared_never_reaches_the_pam() {
    let world = World::wallet().await;
    let call = wallet::signed("debit", &wallet::body("t"));
    let length = call.body.len();
    let head = |declared: String| {
        let mut fields = vec![
            (":method".to_owned(), "POST".to_owned()),
            (":scheme".to_owned(), "http".to_owned()),
            (":path".to_owned(), call.target.clone()),
            (":authority".to_owned(), "pam.example".to_owned()),
        ];
        let named = call.fields.iter().filter(|(name, _)| name != "Host");
        fields.extend(named.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
        fields.push(("content-length".to_owned(), declared));
        fields
    };
    let declared = [
        "0".to_owned(),
        (length - 1).to_string(),
        (length + 1).to_string(),
        format!("{length}, {length}"),
        format!("+{length}"),
        String::new(),
        "9223372036854775808".to_owned(),
    ];
    for declared in declared {
        let mut raw = Raw::to(world.address).await;
        raw.headers(&head(declared.clone()), END_HEADERS).await;
        raw.frame(DATA, END_STREAM, 1, &call.body).await;
        let outcome = raw.outcome().await;
        assert!(!matches!(outcome, Outcome::Status(200..400)), "{declared}: {outcome:?}");
        // Ended with its head, although a body was declared.
        if declared != "0" {
            let mut raw = Raw::to(world.address).await;
            raw.headers(&head(declared.clone()), END_HEADERS | END_STREAM).await;
            let outcome = raw.outcome().await;
            assert!(!matches!(outcome, Outcome::Status(200..400)), "{declared}: {outcome:?}");
        }
    }
    world.pam.assert_untouched();
    let mut raw = Raw::to(world.address).await;
    raw.headers(&head(length.to_string()), END_HEADERS).await;
    raw.frame(DATA, END_STREAM, 1, &call.body).await;
    assert_eq!(raw.outcome().await, Outcome::Status(200));
}

// threat: A7, B16
#[tokio::test]
async fn http2_trailers_are_dropped() {
    let world = World::valkyrie().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let (answer, mut body) = client.send_request(h2_head(&world, &valkyrie::call("PUT", SESSION)), false).unwrap();
    body.send_data(b"null"[..].into(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-player-token", "other".parse().unwrap());
    trailers.insert("x-trailer", "1".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    driver.abort();
    let seen = world.pam.only_request();
    assert_eq!(seen.body, b"null");
    assert_eq!(seen.values("X-Player-Token"), [valkyrie::TOKEN]);
    assert!(seen.values("X-Trailer").is_empty());
}

#[tokio::test]
async fn http2_requests_are_served_side_by_side() {
    let world = World::valkyrie().await;
    let release = world.pam.hold(answer(200, GOOD));
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..100 {
        client = client.ready().await.unwrap();
        answers.push(client.send_request(h2_head(&world, &valkyrie::call("GET", SESSION)), true).unwrap().0);
    }
    world.pam.arrived(100).await;
    release.send(true).unwrap();
    for answer in answers {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    }
    driver.abort();
}

// ---- what the tests above are written with ----

const SESSION: &str = "/players/session?provider=x";

/// The bytes of a request that passes.
fn good() -> String {
    String::from_utf8(wallet::signed("debit", &wallet::body("t")).bytes()).unwrap()
}

/// The request with one more line, or several, in its head.
fn with(request: &str, line: &str) -> String {
    request.replacen("\r\nContent-Type", &format!("\r\n{line}\r\nContent-Type"), 1)
}

/// Bytes of which each place has its own.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// What the wallet family says of a request that is malformed.
fn assert_malformed(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status);
    assert_eq!(reply.values("Content-Type"), ["application/json"]);
    let body = reply.json();
    let id = reply.values("X-Correlation-ID");
    assert_eq!(
        body,
        json!({ "status": false, "code": 400, "message": "The request is malformed.", "request_id": id[0] })
    );
    assert_eq!(id.len(), 1);
}

pub fn h2_head(world: &World, request: &Request) -> http::Request<()> {
    let uri = format!("http://{}{}", world.address, request.target);
    let mut head = http::Request::builder().method(request.method.as_str()).uri(uri);
    for (name, value) in request.fields.iter().filter(|(name, _)| name != "Host") {
        head = head.header(name, value);
    }
    head.body(()).unwrap()
}

/// The fields of a good HTTP/2 request, some pseudo-headers changed (or taken away by an empty value) and fields added
/// behind them.
fn h2_fields(changed: &[(&str, &str)], added: &[(&str, &str)]) -> Vec<(String, String)> {
    let usual = [(":method", "GET"), (":scheme", "http"), (":path", SESSION), (":authority", "pam.example")];
    let new = changed.iter().filter(|(name, _)| usual.iter().all(|(other, _)| other != name));
    let usual = usual.iter().map(|&(name, value)| {
        let change = changed.iter().find(|(other, _)| *other == name);
        (name, change.map_or(value, |change| change.1))
    });
    let authorization = format!("Bearer {}", valkyrie::KEY);
    let rest = [("authorization", authorization.as_str()), ("x-player-token", valkyrie::TOKEN)];
    let fields = usual.filter(|(_, value)| !value.is_empty()).chain(new.copied()).chain(rest);
    let fields = fields.chain(added.iter().copied());
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn raw_outcome(world: &World, fields: &[(String, String)]) -> Outcome {
    let mut raw = Raw::to(world.address).await;
    raw.headers(fields, END_HEADERS | END_STREAM).await;
    raw.outcome().await
}

/// What became of stream 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    Reset(u32),
    Ended,
}

/// A caller that writes HTTP/2 frames itself, because a proper client would not send what is sent here.
struct Raw(Connection);

impl Raw {
    async fn to(address: std::net::SocketAddr) -> Raw {
        let mut raw = Raw(Connection::to(address).await);
        raw.0.write(PREFACE).await;
        raw.frame(SETTINGS, 0, 0, b"").await;
        raw
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // It may have been let go already.
        let _ = self.0.stream.write_all(&frame(kind, flags, stream, payload)).await;
    }

    /// A header block of literals (RFC 7541 §6.2.2).
    async fn headers(&mut self, fields: &[(String, String)], flags: u8) {
        self.frame(HEADERS, flags, 1, &block(fields)).await;
    }

    /// The next frame: kind, stream, payload.
    async fn next(&mut self) -> (u8, u32, Vec<u8>) {
        self.read().await.expect("the connection ended")
    }

    async fn read(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        timeout(PATIENCE, async {
            let mut head = [0; 9];
            self.0.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.stream.read_exact(&mut payload).await.ok()?;
            Some((head[3], u32::from_be_bytes(head[5..].try_into().unwrap()), payload))
        })
        .await
        .expect("nothing came")
    }

    async fn outcome(&mut self) -> Outcome {
        while let Some((kind, stream, payload)) = self.read().await {
            match (kind, stream) {
                (HEADERS, 1) => return Outcome::Status(status(&payload)),
                (RST_STREAM, 1) => return Outcome::Reset(u32::from_be_bytes(payload.try_into().unwrap())),
                (GOAWAY, _) => return Outcome::Ended,
                _ => {}
            }
        }
        Outcome::Ended
    }

    async fn ended(&mut self) {
        while self.read().await.is_some() {}
    }
}
