//! Bodies arrive whole or not at all, however they are cut into frames.

use super::frames::*;
use crate::caller_tls::Door;
use crate::certificates::client;
use crate::world::{World, valkyrie};

#[tokio::test]
async fn a_body_arrives_whole_at_every_size_and_however_it_is_cut() {
    let world = World::of("config/valkyrie.toml", &["limits.body=1MiB"]).await;
    let sizes = [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1 << 20];
    for (at, size) in sizes.into_iter().enumerate() {
        for (piece, padding, declared) in [(16_384, 0, true), (16_384, 0, false), (9_999, 200, true), (4_001, 1, false)]
        {
            let mut caller = Caller::to(world.address).await;
            send(&mut caller, 1, &bytes(size), piece, padding, declared).await;
            assert_eq!(caller.outcome(1).await, Outcome::Status(200), "{size} in pieces of {piece}");
            let seen = world.pam.requests().pop().unwrap();
            assert!(seen.body == bytes(size), "{size} in pieces of {piece}: the body changed");
            assert_eq!(seen.values("Content-Length"), [size.to_string()]);
        }
        assert_eq!(world.pam.requests().len(), 4 * (at + 1));
    }
    let call = valkyrie::call("PUT", SESSION).body(bytes((1 << 20) + 1));
    assert_eq!(world.send_h2(&call).await.status, 413);
    assert_eq!(world.pam.requests().len(), 4 * sizes.len());
}

#[tokio::test]
async fn over_tls_a_body_arrives_whole_too() {
    let door = Door::new("h2-bodies");
    let world = door.world(&[]).await;
    let tls = client(&door.authority, None, &["h2"], &[&tokio_rustls::rustls::version::TLS13]);
    for size in [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536] {
        let call = valkyrie::call("PUT", SESSION).body(bytes(size));
        assert_eq!(world.send_h2_over(world.connect_tls(&tls).await.unwrap().stream, &call).await.status, 200);
        assert!(world.pam.requests().pop().unwrap().body == bytes(size), "{size}");
    }
    let call = valkyrie::call("PUT", SESSION).body(bytes(65_537));
    assert_eq!(world.send_h2_over(world.connect_tls(&tls).await.unwrap().stream, &call).await.status, 413);
    assert_eq!(world.pam.requests().len(), 7);
}

// threat: B13
#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_was_declared_never_reaches_the_pam() {
    let world = World::valkyrie().await;
    let put = fields(&valkyrie::call("PUT", SESSION));
    let declaring = |length: &str| block(&[&put[..], &[("content-length".to_owned(), length.to_owned())]].concat());
    let rows: [(&str, &str, Vec<u8>); 8] = [
        ("more", "3", frame(DATA, END_STREAM, 1, b"null")),
        ("less", "5", frame(DATA, END_STREAM, 1, b"null")),
        ("none where some was declared", "4", frame(DATA, END_STREAM, 1, b"")),
        ("some where none was declared", "0", frame(DATA, END_STREAM, 1, b"null")),
        ("more in two pieces", "4", [frame(DATA, 0, 1, b"null"), frame(DATA, END_STREAM, 1, b"x")].concat()),
        ("less in two pieces", "6", [frame(DATA, 0, 1, b"null"), frame(DATA, END_STREAM, 1, b"x")].concat()),
        (
            "less before trailers",
            "5",
            [frame(DATA, 0, 1, b"null"), frame(HEADERS, END_STREAM | END_HEADERS, 1, &literal(b"x-late", b"1"))]
                .concat(),
        ),
        ("a reset before the end", "4", [frame(DATA, 0, 1, b"nul"), reset(1, 8)].concat()),
    ];
    for (name, length, body) in rows {
        let mut caller = Caller::to(world.address).await;
        caller
            .write(&[frame(HEADERS, END_HEADERS, 1, &declaring(length)), body, frame(PING, 0, 0, &[7; 8])].concat())
            .await;
        if name == "a reset before the end" {
            caller.until(|frame| frame.kind == PING).await;
            continue;
        }
        let outcome = caller.outcome(1).await;
        assert!(matches!(outcome, Outcome::Reset(PROTOCOL_ERROR) | Outcome::Status(400)), "{name}: {outcome:?}");
    }
    for length in ["1", "4"] {
        let mut caller = Caller::to(world.address).await;
        caller.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &declaring(length))).await;
        assert_eq!(caller.outcome(1).await, Outcome::Reset(PROTOCOL_ERROR), "{length} and an end");
    }
    world.pam.assert_untouched();
    assert_serves(&world, &valkyrie::call("GET", SESSION)).await;
}

/// Sends a request with a body in pieces, each with padding, as the windows allow.
async fn send(caller: &mut Caller, stream: u32, body: &[u8], piece: usize, padding: u8, declared: bool) {
    let mut head = fields(&valkyrie::call("PUT", SESSION));
    if declared {
        head.push(("content-length".to_owned(), body.len().to_string()));
    }
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    caller.write(&frame(HEADERS, END_HEADERS | ends, stream, &block(&head))).await;
    let (mut whole, mut own) = (65_535_usize, 65_535_usize);
    let mut pieces = body.chunks(piece - usize::from(padding) - 1).peekable();
    while let Some(piece) = pieces.next() {
        let payload = match padding {
            0 => piece.to_vec(),
            padding => [&[padding][..], piece, &vec![0; padding.into()]].concat(),
        };
        while whole.min(own) < payload.len() {
            let update = caller.until(|frame| matches!(frame.kind, WINDOW_UPDATE | HEADERS | RST_STREAM)).await;
            if update.kind != WINDOW_UPDATE {
                panic!("it was answered before it had ended: {update:?}");
            }
            let more = update.reason() as usize;
            *if update.stream == 0 { &mut whole } else { &mut own } += more;
        }
        (whole, own) = (whole - payload.len(), own - payload.len());
        let ends = if pieces.peek().is_none() { END_STREAM } else { 0 };
        let padded = if padding > 0 { PADDED } else { 0 };
        caller.write(&frame(DATA, padded | ends, stream, &payload)).await;
    }
}

/// Bytes of which each place has its own.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

const SESSION: &str = "/players/session?provider=x";
