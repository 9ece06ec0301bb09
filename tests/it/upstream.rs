//! What the PAM does: every way it can answer, fail or misbehave, and what callers see of it. Whatever happens, it gets a
//! request once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::world::{
    Folder, GOOD, PATIENCE, Pam, Reply, Request, World, answer, betstack, futures_answer, valkyrie, wallet,
};

// ---- what passes to the PAM ----

#[tokio::test]
async fn header_order_and_spelling_reach_the_pam_as_they_were() {
    let world = World::valkyrie().await;
    let call = valkyrie::call("GET", SESSION)
        .with("x-B", "1")
        .with("X-a", "2")
        .with("x-b", "3")
        .with("X-Empty", "")
        .with("Accept-Encoding", "gzip")
        .with("User-Agent", "a  b\tc");
    assert_eq!(world.send(&call).await.status, 200);
    let head = world.pam.only_request().head;
    let expected = format!(
        "GET {SESSION} HTTP/1.1\r\nHost: pam.example\r\nAuthorization: Bearer {}\r\nX-Player-Token: {}\r\nx-B: 1\r\n\
         X-a: 2\r\nx-b: 3\r\nX-Empty: \r\nAccept-Encoding: gzip\r\nUser-Agent: a  b\tc\r\n\
         X-Forwarded-For: 127.0.0.1\r\nX-Correlation-ID: ",
        valkyrie::KEY,
        valkyrie::TOKEN
    );
    assert!(head.starts_with(&expected), "{head}");
}

#[tokio::test]
async fn what_belongs_to_the_callers_connection_ends_there() {
    let world = World::valkyrie().await;
    let fields = [
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Trailer", "X-A"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Connection", "keep-alive"),
        ("HTTP2-Settings", "AAMAAABk"),
        ("Expect", "100-continue"),
    ];
    let call = fields.iter().fold(valkyrie::call("GET", SESSION), |call, (name, value)| call.with(name, value));
    assert_eq!(world.send(&call).await.status, 200);
    let seen = world.pam.only_request();
    for (name, _) in fields {
        assert!(seen.values(name).is_empty(), "{name} passed");
    }
}

#[tokio::test]
async fn every_forwarded_body_has_one_content_length() {
    let world = World::valkyrie().await;
    for (method, body, expected) in
        [("GET", "", &[][..]), ("GET", "x", &["1"]), ("PUT", "", &["0"]), ("PUT", "null", &["4"])]
    {
        let call = valkyrie::call(method, SESSION).body(body);
        for http2 in [false, true] {
            let reply = if http2 { world.send_h2(&call).await } else { world.send(&call).await };
            assert_eq!(reply.status, 200);
            let seen = world.pam.requests().pop().unwrap();
            assert_eq!(seen.values("Content-Length"), expected, "{method} {body:?} HTTP/2: {http2}");
            assert!(seen.values("Transfer-Encoding").is_empty());
            assert_eq!(seen.body, body.as_bytes());
        }
    }
}

// ---- what passes to the caller ----

#[tokio::test]
async fn an_answer_passes_with_its_fields_but_without_those_of_the_connection() {
    let head = "HTTP/1.1 418 Whatever\r\nX-b: 1\r\nSet-Cookie: a=1; Path=/\r\nX-A: 2\r\nSet-Cookie: b=2\r\n\
                Connection: X-Secret, keep-alive\r\nX-Secret: s\r\nKeep-Alive: timeout=5\r\nConnection: x-other\r\n\
                X-Other: o\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n\
                X-Correlation-ID: the-pam\r\nx-correlation-id: again\r\nContent-Type: text/plain\r\n";
    let raw = format!("{head}Content-Length: 2\r\n\r\nhi");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n");
    for raw in [raw, chunked] {
        let world = World::valkyrie().await;
        world.pam.answer_with(move |_| raw.clone().into_bytes());
        let reply = world.send(&valkyrie::call("GET", SESSION).with("X-Correlation-ID", "mine")).await;
        assert_eq!((reply.status, reply.text().as_str()), (418, "hi"));
        let fields: Vec<_> = reply.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            fields,
            [
                ("X-b", "1"),
                ("Set-Cookie", "a=1; Path=/"),
                ("X-A", "2"),
                ("Set-Cookie", "b=2"),
                ("Content-Type", "text/plain"),
                ("X-Correlation-ID", "mine"),
                ("Content-Length", "2"),
            ]
        );
        let reply = world.send_h2(&valkyrie::call("GET", SESSION).with("X-Correlation-ID", "mine")).await;
        assert_eq!((reply.status, reply.text().as_str()), (418, "hi"));
        assert_eq!(reply.values("Set-Cookie"), ["a=1; Path=/", "b=2"]);
        assert_eq!(reply.values("X-Correlation-ID"), ["mine"]);
        for name in ["X-Secret", "X-Other", "Connection", "Keep-Alive", "Upgrade", "Trailer", "Transfer-Encoding"] {
            assert!(reply.values(name).is_empty(), "{name} passed");
        }
    }
}

#[tokio::test]
async fn answers_of_every_framing_arrive_with_their_length() {
    for (raw, status, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", 200, "hello"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello"),
        ("HTTP/1.0 200 OK\r\n\r\nhello", 200, "hello"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
        ("HTTP/1.1 599 \r\nContent-Length: 5\r\n\r\nhello", 599, "hello"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            200,
            "hello",
        ),
    ] {
        let world = in_front_of("config/valkyrie.toml", &[], Script::then_close(raw)).await;
        let mut caller = world.connect().await;
        for _ in 0..2 {
            let reply = caller.send(&valkyrie::call("GET", SESSION)).await;
            assert_eq!((reply.status, reply.text().as_str()), (status, body), "{raw:?}");
            assert_eq!(reply.values("Content-Length"), [body.len().to_string()], "{raw:?}");
            assert!(reply.values("Connection").is_empty(), "{raw:?}");
        }
        let reply = world.send_h2(&valkyrie::call("GET", SESSION)).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{raw:?}");
        assert_eq!(reply.values("Content-Length"), [body.len().to_string()], "{raw:?}");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_stays_one() {
    for (status, fields, length) in [
        (204, "", None),
        (204, "Content-Length: 0\r\n", None),
        (304, "", None),
        (304, "Content-Length: 5\r\n", Some("5")),
    ] {
        let world = World::valkyrie().await;
        world.pam.answer_with(move |_| format!("HTTP/1.1 {status} X\r\n{fields}\r\n").into_bytes());
        let mut caller = world.connect().await;
        for _ in 0..2 {
            let reply = caller.send(&valkyrie::call("GET", SESSION)).await;
            assert_eq!((reply.status, reply.values("Content-Length")), (status, length.into_iter().collect()));
        }
        let reply = world.send_h2(&valkyrie::call("GET", SESSION)).await;
        assert_eq!((reply.status, reply.body.len()), (status, 0));
    }
}

#[tokio::test]
async fn the_answer_to_head_has_a_length_and_no_body() {
    let (_folder, config) = own_dialect("upstream-head");
    let world = World::of(&config, &[]).await;
    world.pam.answer_with(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 4711\r\nX-A: 1\r\n\r\n".to_vec());
    let call = Request::new("HEAD", "/thing").with("Authorization", &format!("Bearer {}", valkyrie::KEY));
    let mut caller = world.connect().await;
    for _ in 0..2 {
        let reply = caller.send(&call).await;
        assert_eq!((reply.status, reply.values("Content-Length"), reply.values("X-A")), (200, vec!["4711"], vec!["1"]));
    }
    let reply = world.send_h2(&call).await;
    assert_eq!((reply.status, reply.values("Content-Length"), reply.body.len()), (200, vec!["4711"], 0));
    assert_eq!(world.pam.requests().len(), 3);
}

// ---- answers too large to hold ----

#[tokio::test]
async fn an_answer_larger_than_is_held_streams_whole() {
    let body = Arc::new((0..3_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    for framing in ["length", "chunked", "close"] {
        let sent = Arc::clone(&body);
        let script = Script::then_close_bytes(move || framed(framing, &sent));
        let world = in_front_of("config/valkyrie.toml", &["limits.answer=64KiB"], script).await;
        let mut caller = world.connect().await;
        for _ in 0..2 {
            let reply = caller.send(&valkyrie::call("GET", SESSION)).await;
            assert_eq!((reply.status, checksum(&reply.body)), (200, checksum(&body)), "{framing}");
        }
        let reply = world.send_h2(&valkyrie::call("GET", SESSION)).await;
        assert_eq!((reply.status, checksum(&reply.body)), (200, checksum(&body)), "{framing} over HTTP/2");
    }
}

#[tokio::test]
async fn an_http_1_0_caller_gets_a_large_answer_only_if_it_could_notice_a_cut() {
    let body = Arc::new(vec![b'x'; 200_000]);
    for (framing, status) in [("length", 200), ("chunked", 502), ("close", 502)] {
        let sent = Arc::clone(&body);
        let script = Script::then_close_bytes(move || framed(framing, &sent));
        let world = in_front_of("config/valkyrie.toml", &["limits.answer=64KiB"], script).await;
        let mut caller = world.connect().await;
        let call = String::from_utf8(valkyrie::call("GET", SESSION).bytes()).unwrap().replace("HTTP/1.1", "HTTP/1.0");
        caller.write(call.as_bytes()).await;
        let reply = caller.reply().await;
        assert_eq!(reply.status, status, "{framing}");
        assert!(reply.values("Transfer-Encoding").is_empty());
        let expected = if status == 200 { body.len() } else { reply.body.len() };
        assert_eq!(reply.values("Content-Length"), [expected.to_string()]);
        assert_eq!(reply.body.len(), expected);
        assert!(caller.rest().await.is_empty());
    }
}

// threat: G1, G2
#[tokio::test]
async fn a_caller_sees_that_a_stream_was_cut() {
    for framing in ["length", "chunked"] {
        let script = Script::then_close_bytes(move || {
            let mut whole = framed(framing, &vec![b'x'; 200_000]);
            whole.truncate(150_000);
            whole
        });
        let world = in_front_of("config/valkyrie.toml", &["limits.answer=64KiB"], script).await;
        let mut caller = world.connect().await;
        caller.write(&valkyrie::call("GET", SESSION).bytes()).await;
        let seen = caller.rest().await;
        assert!(seen.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(seen.len() < 200_000, "{framing}");
        assert!(!seen.ends_with(b"\r\n0\r\n\r\n"), "{framing}");

        let stream = TcpStream::connect(world.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let uri = format!("http://{}{SESSION}", world.address);
        let call = valkyrie::call("GET", SESSION);
        let mut head = http::Request::builder().uri(uri);
        for (name, value) in call.fields.iter().filter(|(name, _)| name != "Host") {
            head = head.header(name, value);
        }
        let answer = client.send_request(head.body(()).unwrap(), true).unwrap().0;
        let mut body = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
        let cut = loop {
            match timeout(PATIENCE, body.data()).await.unwrap() {
                Some(Ok(piece)) => body.flow_control().release_capacity(piece.len()).unwrap(),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert!(cut, "{framing}: a cut stream ended as a complete one");
        driver.abort();
    }
}

#[tokio::test]
async fn a_stream_may_outlast_every_single_timeout() {
    let (go, mut gone) = mpsc::channel::<()>(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..4 {
            stream.write_all(b"4000\r\n").await.unwrap();
            stream.write_all(&[b'x'; 0x4000]).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
            gone.recv().await;
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    });
    let set = ["limits.answer=1KiB", "limits.write_timeout=400ms", "timeouts.total=400ms", "timeouts.read=20s"];
    let world = World::with_pam("config/valkyrie.toml", &set, elsewhere(address).await).await;
    let mut caller = world.connect().await;
    caller.write(&valkyrie::call("GET", SESSION).bytes()).await;
    let pace = tokio::spawn(async move {
        // Time itself is what is tested: each step is short, all of them together are not.
        for _ in 0..4 {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            let _ = go.send(()).await;
        }
    });
    assert_eq!(caller.reply().await.body.len(), 4 * 0x4000);
    pace.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_may_end_a_token_is_never_streamed() {
    let script = Script::then_close_bytes(|| {
        framed("length", format!("{{\"session\":{{\"token\":\"t\"}},\"pad\":\"{}\"}}", "x".repeat(70_000)).as_bytes())
    });
    let world = in_front_of("config/valkyrie.toml", &["limits.answer=64KiB"], script).await;
    let reply = world.send(&valkyrie::call("PUT", SESSION)).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (502, &json!("PAM_ERR_UNDEFINED")));
}

// ---- a PAM that fails, in the words of every family ----

/// A call of a family, and what the family says to 502, 503 and 504.
pub struct Family {
    pub config: &'static str,
    pub call: Request,
    pub says: fn(u16, &Value),
}

pub fn families() -> [Family; 3] {
    let deposit = r#"{"transactionType":"DEPOSIT"}"#;
    [
        Family {
            config: "config/valkyrie.toml",
            call: valkyrie::call("POST", "/players/1/transactions?provider=x").body(deposit),
            says: |status, body| {
                let code = if status == 504 { "PAM_ERR_TIMEOUT" } else { "PAM_ERR_UNDEFINED" };
                assert_eq!((&body["status"], &body["error"]["code"]), (&json!("ERROR"), &json!(code)));
            },
        },
        Family {
            config: "config/wallet.toml",
            call: wallet::signed("debit", &wallet::body("t")),
            says: |status, body| {
                assert_eq!((&body["status"], &body["code"]), (&json!(false), &json!(status)));
                body["request_id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
            },
        },
        Family {
            config: "config/betstack.toml",
            call: betstack::signed(&betstack::body("ticket_create", "")),
            says: |status, body| {
                assert_eq!(body["code"], json!(status));
                assert!(body["message"].is_string());
            },
        },
    ]
}

pub fn assert_failed(reply: &Reply, status: u16, says: fn(u16, &Value), what: &str) {
    assert_eq!(reply.status, status, "{what}");
    says(status, &reply.json());
    assert_eq!(reply.values("Content-Length"), [reply.body.len().to_string()], "{what}");
    assert_eq!(reply.values("Content-Type"), ["application/json"], "{what}");
    assert_eq!(reply.values("X-Correlation-ID").len(), 1, "{what}");
}

// threat: G8
#[tokio::test]
async fn a_pam_that_is_down_is_503_and_served_again_as_soon_as_it_is_back() {
    for Family { config, call, says } in families() {
        // A port that is taken and refuses: one that is free could be given to another test meanwhile.
        let down = TcpSocket::new_v4().unwrap();
        down.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = down.local_addr().unwrap();
        let world = World::with_pam(config, &[], elsewhere(address).await).await;
        assert_failed(&world.send(&call).await, 503, says, config);
        let refused = world.send_h2(&call).await;
        assert_failed(&refused, 503, says, config);
        assert_eq!(refused.values("Retry-After"), ["1"], "{config}");
        let pam = Script::then_close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").over(down.listen(16).unwrap());
        // The same signed message: since nothing reached the PAM, nothing was used up.
        assert_eq!(world.send(&call).await.status, 200, "{config}");
        assert_eq!(pam.requests.load(Ordering::SeqCst), 1);
    }
}

// threat: G1
#[tokio::test]
async fn a_pam_that_hangs_is_504_and_asked_once() {
    for Family { config, call, says } in families() {
        for part in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"] {
            let pam = Script::then_hang(part).start().await;
            let world = World::with_pam(config, &["timeouts.total=150ms"], elsewhere(pam.address).await).await;
            assert_failed(&world.send(&call).await, 504, says, part);
            assert_eq!(pam.requests.load(Ordering::SeqCst), 1, "{config} {part:?}");
        }
    }
}

// threat: G2, G3
#[tokio::test]
async fn a_pam_that_answers_nonsense_is_502_and_asked_once() {
    let flood = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
    let fields = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(200));
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(70_000));
    let answers = [
        "",
        "H",
        "garbage",
        "<html>hello</html>",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 99 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 600 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        &flood,
        &fields,
        &large,
    ];
    for Family { config, call, says } in families() {
        for raw in answers {
            let pam = Script::then_close(raw).start().await;
            let world = World::with_pam(config, &[], elsewhere(pam.address).await).await;
            let shown: String = raw.escape_debug().take(120).collect();
            assert_failed(&world.send(&call).await, 502, says, &shown);
            assert_eq!(pam.requests.load(Ordering::SeqCst), 1, "{shown}");
        }
    }
}

// threat: G2
#[tokio::test]
async fn a_pam_that_resets_is_502_and_asked_once() {
    for part in ["", "HTTP/1.1 200 OK\r\n\r\nhel", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"] {
        for Family { config, call, says } in families() {
            let pam = Script { raw: bytes_of(part), end: End::Reset }.start().await;
            let world = World::with_pam(config, &[], elsewhere(pam.address).await).await;
            assert_failed(&world.send(&call).await, 502, says, part);
            assert_eq!(pam.requests.load(Ordering::SeqCst), 1, "{part:?}");
        }
    }
}

// ---- at most once ----

/// Requests of every kind that a retrying proxy would send again.
fn calls() -> [Request; 3] {
    [
        valkyrie::call("GET", SESSION),
        valkyrie::call("PUT", SESSION).body("null"),
        valkyrie::call("POST", "/players/1/transactions?provider=x").body(r#"{"transactionType":"WITHDRAW"}"#),
    ]
}

// threat: G4
#[tokio::test]
async fn a_pooled_connection_that_dies_while_idle_costs_nothing() {
    for call in calls() {
        let world = World::valkyrie().await;
        // Told to stay, and closed all the same.
        let (closed, mut has_closed) = watch::channel(0);
        let script = Script::then_close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        let pam = script.telling(closed).start().await;
        drop(world);
        let world = World::with_pam("config/valkyrie.toml", &[], elsewhere(pam.address).await).await;
        for count in 1..=3 {
            assert_eq!(world.send(&call).await.status, 200, "{} {count}", call.method);
            // The PAM's side is closed, and Portcullis' side has acknowledged it.
            timeout(PATIENCE, has_closed.wait_for(|closed| *closed == count)).await.unwrap().unwrap();
        }
        assert_eq!(pam.requests.load(Ordering::SeqCst), 3, "{}", call.method);
    }
}

// threat: G4
#[tokio::test]
async fn a_pooled_connection_that_dies_behind_a_request_is_not_replaced() {
    for call in calls() {
        let world = World::valkyrie().await;
        let count = Arc::new(AtomicUsize::new(0));
        world.pam.answer_async(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            1 => futures_answer::of(async { None }),
            _ => futures_answer::ready(answer(200, GOOD)),
        });
        assert_eq!(world.send(&call).await.status, 200);
        assert_eq!(world.send(&call).await.status, 502, "{}", call.method);
        let requests = world.pam.requests();
        assert_eq!(requests.len(), 2, "{} was sent again", call.method);
        assert_eq!(requests[1].connection, 1, "the connection was not reused, so nothing was tested");
        assert_eq!(world.send(&call).await.status, 200);
        assert_eq!(world.pam.requests()[2].connection, 2);
    }
}

#[tokio::test]
async fn a_connection_to_the_pam_serves_many_callers_one_after_the_other() {
    let world = World::valkyrie().await;
    for _ in 0..5 {
        assert_eq!(world.send(&valkyrie::call("GET", SESSION)).await.status, 200);
    }
    assert_eq!((world.pam.requests().len(), world.pam.connections()), (5, 1));
}

#[tokio::test]
async fn requests_side_by_side_have_connections_of_their_own() {
    let world = World::valkyrie().await;
    let release = world.pam.hold(answer(200, GOOD));
    let mut callers = Vec::new();
    for _ in 0..5 {
        let mut caller = world.connect().await;
        caller.write(&valkyrie::call("GET", SESSION).bytes()).await;
        callers.push(caller);
    }
    world.pam.arrived(5).await;
    assert_eq!(world.pam.connections(), 5);
    release.send(true).unwrap();
    for mut caller in callers {
        assert_eq!(caller.reply().await.status, 200);
    }
}

// threat: A15, G3
#[tokio::test]
async fn a_second_answer_never_reaches_another_caller() {
    let forged = answer(200, r#"{"forged":true}"#);
    for surplus in [forged.as_slice(), b"x", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"] {
        // At once, behind the answer.
        let world = World::valkyrie().await;
        let raw = [answer(200, GOOD).as_slice(), surplus].concat();
        world.pam.answer_with(move |_| raw.clone());
        for connection in 1..=3 {
            assert_eq!(world.send(&valkyrie::call("GET", SESSION)).await.text(), GOOD);
            assert_eq!(world.pam.requests().pop().unwrap().connection, connection);
        }

        // Late, when the connection is back in the pool.
        let late = Late::start(surplus.to_vec()).await;
        let world = World::with_pam("config/valkyrie.toml", &[], elsewhere(late.address).await).await;
        for count in 1..=3 {
            assert_eq!(world.send(&valkyrie::call("GET", SESSION)).await.text(), GOOD);
            late.send_surplus(count).await;
        }
        assert_eq!(late.requests.load(Ordering::SeqCst), 3);
    }
}

// threat: G3
#[tokio::test]
async fn a_body_behind_an_answer_that_has_none_never_reaches_another_caller() {
    for head in ["HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\nhello"]
    {
        let world = World::valkyrie().await;
        world.pam.answer_with(move |_| head.as_bytes().to_vec());
        for connection in 1..=3 {
            assert!(matches!(world.send(&valkyrie::call("GET", SESSION)).await.status, 204 | 304));
            assert_eq!(world.pam.requests().pop().unwrap().connection, connection, "{head:?}");
        }
    }
}

// ---- what the tests above are written with ----

const SESSION: &str = "/players/session?provider=x";

/// A world whose PAM stands at another address. The recording one serves only as the shape that [`World::with_pam`] takes.
async fn elsewhere(address: SocketAddr) -> Pam {
    let mut pam = Pam::start().await;
    pam.address = address;
    pam
}

async fn in_front_of(config: &str, set: &[&str], script: Script) -> World {
    let pam = script.start().await;
    World::with_pam(config, set, elsewhere(pam.address).await).await
}

/// A config of an own dialect with a HEAD route. The files live as long as the folder.
fn own_dialect(name: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    let replies = std::fs::read_to_string(crate::world::root().join("config/dialects/valkyrie.toml")).unwrap();
    let replies = replies.split_once("[reply]").unwrap().1;
    let dialect = folder.write(
        "own.toml",
        &format!(
            "name = \"own\"\ncredential = [\"bearer\"]\n[[route]]\nname = \"look\"\nmatch = \"HEAD /thing\"\n[reply]{replies}"
        ),
    );
    let config = format!(
        "dialect = \"{dialect}\"\nlisten = \"a:1\"\nupstream = \"a:1\"\n[[caller]]\nname = \"a\"\nbearer = {{ env = \"PAM_API_TOKEN\" }}\n"
    );
    let config = folder.write("config.toml", &config);
    (folder, config)
}

fn framed(framing: &str, body: &[u8]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    match framing {
        "length" => [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat(),
        "chunked" => {
            let mut out = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for chunk in body.chunks(10_007) {
                out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
            out
        }
        "close" => [format!("{head}\r\n").as_bytes(), body].concat(),
        other => panic!("no framing {other}"),
    }
}

fn checksum(bytes: &[u8]) -> (usize, Vec<u8>) {
    (bytes.len(), Sha256::digest(bytes).to_vec())
}

fn bytes_of(text: &str) -> Arc<dyn Fn() -> Vec<u8> + Send + Sync> {
    let bytes = text.as_bytes().to_vec();
    Arc::new(move || bytes.clone())
}

/// A PAM that says the same raw bytes to every first request of a connection, and then ends the connection.
#[derive(Clone)]
struct Script {
    raw: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
    end: End,
}

#[derive(Clone)]
enum End {
    Close,
    /// Close, and tell when the other side has closed as well.
    CloseAndTell(watch::Sender<usize>),
    Hang,
    Reset,
}

struct Scripted {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Script {
    fn then_close(raw: &str) -> Script {
        Script { raw: bytes_of(raw), end: End::Close }
    }

    fn then_close_bytes(raw: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Script {
        Script { raw: Arc::new(raw), end: End::Close }
    }

    fn then_hang(raw: &str) -> Script {
        Script { raw: bytes_of(raw), end: End::Hang }
    }

    fn telling(self, closed: watch::Sender<usize>) -> Script {
        Script { end: End::CloseAndTell(closed), ..self }
    }

    async fn start(self) -> Scripted {
        self.over(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn over(self, listener: TcpListener) -> Scripted {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, counted) = (self.clone(), Arc::clone(&counted));
                tokio::spawn(async move { script.serve(stream, &counted).await });
            }
        });
        Scripted { address, requests }
    }

    async fn serve(self, mut stream: TcpStream, requests: &AtomicUsize) {
        if !read_request(&mut stream).await {
            return;
        }
        requests.fetch_add(1, Ordering::SeqCst);
        if stream.write_all(&(self.raw)()).await.is_err() {
            return;
        }
        match self.end {
            End::Close => {
                let _ = stream.shutdown().await;
                // A byte read here would be a second request, or one sent again.
                if stream.read(&mut [0]).await.unwrap_or(0) > 0 {
                    requests.fetch_add(1, Ordering::SeqCst);
                }
            }
            End::CloseAndTell(closed) => {
                // Both directions at once; the pool must notice by itself.
                drop(stream);
                closed.send_modify(|closed| *closed += 1);
            }
            End::Hang => {
                if stream.read(&mut [0]).await.unwrap_or(0) > 0 {
                    requests.fetch_add(1, Ordering::SeqCst);
                }
            }
            End::Reset => stream.set_zero_linger().unwrap(),
        }
    }
}

/// Reads a head and the body its Content-Length states.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.map_or(0, |length| length.parse::<usize>().unwrap()) {
                return true;
            }
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return false;
        }
    }
}

/// A PAM that says something more on a connection, some time after it has answered.
struct Late {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    go: watch::Sender<usize>,
    gone: watch::Receiver<usize>,
}

impl Late {
    async fn start(surplus: Vec<u8>) -> Late {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (go, going) = watch::channel(0);
        let (went, gone) = watch::channel(0);
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (surplus, counted) = (surplus.clone(), Arc::clone(&counted));
                let (mut going, went) = (going.clone(), went.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    while read_request(&mut stream).await {
                        let mine = counted.fetch_add(1, Ordering::SeqCst) + 1;
                        stream.write_all(&answer(200, GOOD)).await.unwrap();
                        going.wait_for(|count| *count >= mine).await.unwrap();
                        stream.write_all(&surplus).await.unwrap();
                        went.send_replace(mine);
                    }
                });
            }
        });
        Late { address, requests, go, gone }
    }

    /// Sends it now. On the loopback it has arrived when the write returns.
    async fn send_surplus(&self, count: usize) {
        self.go.send_replace(count);
        timeout(PATIENCE, self.gone.clone().wait_for(|gone| *gone == count)).await.unwrap().unwrap();
    }
}
