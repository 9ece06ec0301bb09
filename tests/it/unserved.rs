//! What never became a request is seen all the same: it is counted, and told in the log, without a flood of lines.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::http2_abuse::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, literal,
};
use crate::world::{Connection, PATIENCE, World, valkyrie, wallet};

// threat: G10
#[tokio::test]
async fn a_burst_of_connections_too_many_is_two_lines_and_every_one_is_counted() {
    let world = World::of("config/wallet.toml", &["limits.connections=1"]).await;
    let mut open = world.connect().await;
    let call = wallet::signed("balance", &wallet::body("t"));
    assert_eq!(open.send(&call).await.status, 200);
    for _ in 0..50 {
        assert!(world.connect().await.rest().await.is_empty());
    }
    world.until(&refused("connections"), 50.0).await;
    assert_eq!(open.send(&call).await.status, 200);
    let told = |world: &World| lines(world, "connections");
    let all = async {
        // Those that came within a second are told at its end; a slow machine needs several of them.
        while told(&world).iter().map(|line| line["folded"].as_u64().unwrap_or(1)).sum::<u64>() < 50 {
            crate::world::breath().await;
        }
    };
    timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{:?}", told(&world)));
    let lines = told(&world);
    assert!(lines.len() < 10, "{lines:?}");
    assert!(lines[0].get("folded").is_none(), "{lines:?}");
    for line in lines {
        assert_eq!((line["level"].as_str(), line["client.address"].as_str()), (Some("warn"), Some("127.0.0.1")));
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_seen() {
    let world = World::of("config/wallet.toml", &["limits.head_timeout=200ms"]).await;
    assert!(world.connect().await.rest().await.is_empty());
    world.until(&refused("silent"), 1.0).await;
    let mut cut = world.connect().await;
    cut.write(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
    cut.stream.shutdown().await.unwrap();
    assert!(cut.rest().await.is_empty());
    world.until(&refused("head_cut"), 1.0).await;
    // Who leaves without a word is nobody's concern: so do the probes of balancers.
    drop(world.connect().await);
    world.until("portcullis_connections", 0.0).await;
    let lines = world.finish().await;
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["silent", "head_cut"]);
}

#[tokio::test]
async fn a_handshake_that_fails_is_told() {
    let authority = crate::certificates::Authority::new("told");
    let folder = crate::world::Folder::new("unserved-tls");
    let issued = authority.issue(&["localhost"]);
    let pem = folder.write("tls.pem", &issued.certificate);
    let key = folder.write("tls.key", &issued.key);
    let set = [format!("tls.certificate={pem}"), format!("tls.key={key}")];
    let world = World::of("config/wallet.toml", &set.each_ref().map(String::as_str)).await;
    let mut caller = world.connect().await;
    caller.write(b"GET / HTTP/1.1\r\n\r\n").await;
    caller.rest().await;
    world.until("portcullis_tls_handshakes_failed_total{reason=\"no_tls\"}", 1.0).await;
    let lines = world.finish().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["event"], "connection_refused");
    assert_eq!((lines[0]["reason"].as_str(), lines[0]["level"].as_str()), (Some("handshake_no_tls"), Some("warn")));
}

// ---- HTTP/2 ----

#[tokio::test]
async fn a_stream_that_breaks_the_rules_is_counted_once_and_its_connection_goes_on() {
    let world = World::valkyrie().await;
    // What h2 refuses by itself, and what is refused behind it; both are reset, or answered with 400.
    let breaches: [&[(&str, &str)]; 4] = [
        &[(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a"), ("te", "gzip")],
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a")],
        &[(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a"), ("connection", "close")],
        &[(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "a"), ("content-length", "1, 2")],
    ];
    let mut caller = http2(&world).await;
    for (at, fields) in breaches.into_iter().enumerate() {
        let stream = u8::try_from(2 * at + 1).unwrap();
        caller.write(&headers(stream.into(), fields)).await;
        assert_eq!(answered(&mut caller).await, (RST_STREAM, stream), "{fields:?}");
        world.until(&refused("http2_request"), (at + 1) as f64).await;
    }
    let without_authority = [(":method", "GET"), (":path", "/"), (":scheme", "http")];
    caller.write(&headers(9, &without_authority)).await;
    assert_eq!(answered(&mut caller).await, (HEADERS, 9));
    world.until(&refused("http2_request"), 5.0).await;
    let good = [(":method", "GET"), (":path", "/none"), (":scheme", "http"), (":authority", "a")];
    caller.write(&headers(11, &good)).await;
    assert_eq!(answered(&mut caller).await, (HEADERS, 11));
    assert_eq!(world.metric(&refused("http2_request")).await, 5.0);
    world.pam.assert_untouched();
    drop(caller);
    let lines = world.finish().await;
    let first = lines.iter().find(|line| line["reason"] == "http2_request").unwrap();
    assert_eq!(first["event"], "connection_refused");
    assert_eq!((first["level"].as_str(), first["client.address"].as_str()), (Some("warn"), Some("127.0.0.1")));
}

#[tokio::test]
async fn more_streams_than_allowed_are_counted() {
    let world = World::of("config/valkyrie.toml", &["limits.streams=1"]).await;
    let release = world.pam.hold(crate::world::answer(200, "{}"));
    let mut caller = http2(&world).await;
    let key = format!("Bearer {}", valkyrie::KEY);
    let call = [
        (":method", "GET"),
        (":path", "/players/session?provider=x"),
        (":scheme", "http"),
        (":authority", "a"),
        ("authorization", &key),
        ("x-player-token", valkyrie::TOKEN),
    ];
    caller.write(&headers(1, &call)).await;
    world.pam.arrived(1).await;
    caller.write(&headers(3, &call)).await;
    assert_eq!(answered(&mut caller).await, (RST_STREAM, 3));
    world.until(&refused("http2_streams"), 1.0).await;
    release.send(true).unwrap();
    assert_eq!(answered(&mut caller).await, (HEADERS, 1));
    assert_eq!(world.pam.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_the_rules_is_counted_and_ends() {
    for (breach, reason) in [
        // DATA on no stream, a WINDOW_UPDATE of the wrong length, a header block that is none.
        (frame(DATA, 0, 0, b"x"), "http2_connection"),
        (frame(8, 0, 0, &[0; 3]), "http2_connection"),
        (frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 9]), "http2_connection"),
    ] {
        let world = World::valkyrie().await;
        let mut caller = http2(&world).await;
        caller.write(&breach).await;
        assert_eq!(answered(&mut caller).await.0, GOAWAY);
        world.until(&refused(reason), 1.0).await;
        world.until("portcullis_connections", 0.0).await;
        let lines = world.finish().await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["reason"], reason);
    }
}

// ---- what the tests above are written with ----

fn refused(reason: &str) -> String {
    format!("portcullis_connections_refused_total{{reason=\"{reason}\"}}")
}

fn lines(world: &World, reason: &str) -> Vec<serde_json::Value> {
    let text = world.log_text();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["event"] == "connection_refused" && line["reason"] == reason).collect()
}

async fn http2(world: &World) -> Connection {
    let mut caller = world.connect().await;
    caller.write(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await;
    caller
}

/// Literals without a memory (RFC 7541 §6.2.2).
fn headers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

/// The next frame that ends or answers something: its kind and stream.
async fn answered(caller: &mut Connection) -> (u8, u8) {
    let next = async {
        loop {
            let mut head = [0; 9];
            caller.stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            caller.stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            if [HEADERS, RST_STREAM, GOAWAY].contains(&head[3]) {
                return (head[3], head[8]);
            }
        }
    };
    timeout(PATIENCE, next).await.expect("nothing came")
}
