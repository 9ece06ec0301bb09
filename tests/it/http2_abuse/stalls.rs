//! Callers that begin and do not end, or do not read.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::frames::*;
use crate::caller_tls::Door;
use crate::certificates::client;
use crate::world::{GOOD, PATIENCE, World, answer, valkyrie};

/// Every limit but the one that is tested is longer than any test waits.
const SOON: [&str; 4] =
    ["limits.head_timeout=300ms", "limits.idle_timeout=1h", "limits.body_timeout=1h", "limits.handshake_timeout=1h"];

// threat: B7
#[tokio::test]
async fn who_begins_a_head_and_does_not_end_it_is_cut_off() {
    let world = World::of("config/valkyrie.toml", &SOON).await;
    let call = valkyrie::call("GET", SESSION);
    let whole = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields(&call)));
    let open = frame(HEADERS, END_STREAM, 1, &block(&fields(&call)));
    let first = settings(&[]);
    for (name, little) in [
        ("half a preface", PREFACE[..18].to_vec()),
        ("a block without an end", [PREFACE, &first, &open].concat()),
        ("an empty block without an end", [PREFACE, &first, &frame(HEADERS, 0, 1, b"")].concat()),
        ("a continued block without an end", [PREFACE, &first, &open, &frame(CONTINUATION, 0, 1, b"")].concat()),
        ("half a head", [PREFACE, &first, &whole[..whole.len() / 2]].concat()),
        ("a head but its last byte", [PREFACE, &first, &whole[..whole.len() - 1]].concat()),
        ("half a frame's head", [PREFACE, &first, &whole[..4]].concat()),
        ("half a ping", [PREFACE, &first, &frame(PING, 0, 0, &[0; 8])[..12]].concat()),
        ("half a frame of no known kind", [PREFACE, &first, &frame(0xbb, 0, 0, &[0; 8])[..12]].concat()),
        ("half the settings", [PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, 1)])[..11]].concat()),
    ] {
        let start = Instant::now();
        let mut caller = Caller::over(TcpStream::connect(world.address).await.unwrap());
        caller.write(&little).await;
        assert_eq!(caller.end().await, End::Silent, "{name}");
        assert!(start.elapsed() >= Duration::from_millis(300), "{name}");
    }
    world.pam.assert_untouched();
    assert_serves(&world, &call).await;
}

// threat: B7
#[tokio::test]
async fn a_head_that_drips_is_cut_off_however_steadily() {
    let world = World::of("config/valkyrie.toml", &SOON).await;
    let call = valkyrie::call("GET", SESSION);
    let mut caller = Caller::to(world.address).await;
    caller.write(&frame(HEADERS, END_STREAM, 1, &block(&fields(&call))[..20])).await;
    // No more than five frames may go on with it. Each is a byte that is no end of anything, and each arrives in time.
    for byte in frame(CONTINUATION, 0, 1, &block(&fields(&call))[20..]) {
        if !caller.write(&[byte]).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(caller.end().await, End::Silent);
    world.pam.assert_untouched();
    assert_serves(&world, &call).await;
}

// threat: B7
#[tokio::test]
async fn a_connection_that_agreed_on_http2_and_says_nothing_is_closed() {
    let door = Door::new("silent-h2");
    let world = door.world(&SOON).await;
    let whole = call(1, &valkyrie::call("GET", SESSION));
    for version in [&TLS12, &TLS13] {
        for little in [&b""[..], &PREFACE[..18], &[PREFACE, &settings(&[]), &whole[..30]].concat()] {
            let tls = client(&door.authority, None, &["h2"], &[version]);
            let mut caller = Caller::over(world.connect_tls(&tls).await.unwrap().stream);
            caller.write(little).await;
            assert_eq!(caller.end().await, End::Silent, "{} bytes", little.len());
        }
    }
    world.pam.assert_untouched();
    world.until("portcullis_connections", 0.0).await;
}

#[tokio::test]
async fn who_stalls_a_head_still_gets_what_the_pam_was_asked_before() {
    let world = World::of("config/valkyrie.toml", &SOON).await;
    let release = world.pam.hold(answer(200, GOOD));
    let mut caller = Caller::to(world.address).await;
    caller.write(&call(1, &valkyrie::call("GET", SESSION))).await;
    world.pam.arrived(1).await;
    caller.write(&frame(HEADERS, END_STREAM, 3, b"")).await;
    // It is told that its connection ends while the PAM is still at work.
    assert_eq!(caller.until(|frame| frame.kind == GOAWAY).await.reason(), NO_ERROR);
    release.send(true).unwrap();
    assert_eq!(caller.outcome(1).await, Outcome::Status(200));
    caller.end().await;
    world.pam.only_request();
}

#[tokio::test]
async fn a_body_may_take_its_time_within_a_frame() {
    let world = World::of("config/valkyrie.toml", &SOON).await;
    let mut caller = Caller::to(world.address).await;
    caller.write(&frame(HEADERS, END_HEADERS, 1, &block(&fields(&valkyrie::call("PUT", SESSION))))).await;
    let body = frame(DATA, END_STREAM, 1, b"null");
    caller.write(&body[..11]).await;
    // Longer than a head may take.
    tokio::time::sleep(Duration::from_millis(500)).await;
    caller.write(&body[11..]).await;
    assert_eq!(caller.outcome(1).await, Outcome::Status(200));
    assert_eq!(world.pam.only_request().body, b"null");
}

#[tokio::test]
async fn heads_that_arrive_in_pieces_are_not_taken_for_one_that_does_not_end() {
    let world = World::of("config/valkyrie.toml", &["limits.head_timeout=1s"]).await;
    let mut caller = Caller::to(world.address).await;
    let heads: Vec<u8> = (0..20).flat_map(|at| call(1 + 2 * at, &valkyrie::call("GET", SESSION))).collect();
    // Each piece ends within a head; no head takes long, all of them do.
    for piece in heads.chunks(heads.len() / 20 + 3) {
        assert!(caller.write(piece).await);
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    for at in 0..20 {
        assert_eq!(caller.outcome(1 + 2 * at).await, Outcome::Status(200), "{at}");
    }
}

// threat: B6
#[tokio::test]
async fn a_caller_that_opens_no_window_is_let_go() {
    let world = World::of("config/valkyrie.toml", &["limits.write_timeout=500ms", "limits.idle_timeout=1h"]).await;
    let held = answer(200, &format!("\"{}\"", "x".repeat(100_000)));
    world.pam.answer_with(move |_| held.clone());
    let call = valkyrie::call("GET", SESSION);
    let mut caller = Caller::with(world.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let calls: Vec<u8> = (0..100).flat_map(|at| super::frames::call(1 + 2 * at, &call)).collect();
    caller.write(&calls).await;
    let (mut heads, mut resets, mut goodbyes) = (0, 0, 0);
    while let Some(frame) = caller.read().await {
        match frame.kind {
            HEADERS => heads += 1,
            RST_STREAM => resets += 1,
            GOAWAY => goodbyes += 1,
            DATA => assert!(frame.payload.is_empty(), "bytes beyond the window"),
            _ => {}
        }
    }
    assert_eq!((heads, resets, world.pam.requests().len()), (100, 100, 100));
    assert_ne!(goodbyes, 0);
    assert_serves(&world, &call).await;
    let lines = world.finish().await;
    assert_eq!((lines.len(), lines.iter().filter(|line| line["delivered"] == false).count()), (102, 100));
}

// threat: B6
#[tokio::test]
async fn a_caller_that_takes_nothing_of_what_is_written_is_let_go() {
    let door = Door::new("takes-nothing");
    let set = ["limits.write_timeout=1s", "limits.idle_timeout=1h", "limits.head_timeout=1h"];
    for flood in [frame(PING, 0, 0, &[0; 8]), settings(&[])] {
        let flood = [PREFACE, &settings(&[]), &flood.repeat((64 << 20) / flood.len())].concat();
        for secured in [false, true] {
            let world = if secured { door.world(&set).await } else { World::of("config/valkyrie.toml", &set).await };
            let taken = if secured {
                let tls = client(&door.authority, None, &["h2"], &[&TLS13]);
                takes_nothing(&world, world.connect_tls(&tls).await.unwrap().stream, &flood).await
            } else {
                takes_nothing(&world, TcpStream::connect(world.address).await.unwrap(), &flood).await
            };
            assert_eq!(taken, Taken::Gone, "secured: {secured}");
            world.pam.assert_untouched();
            if !secured {
                assert_serves(&world, &valkyrie::call("GET", SESSION)).await;
            }
        }
    }
}

/// Reading stops when nothing is taken of what is written; then the connection ends, which is awaited.
async fn takes_nothing(world: &World, stream: impl AsyncRead + AsyncWrite, flood: &[u8]) -> Taken {
    let mut caller = Caller::over(stream);
    let (_, taken) = caller.write_unread_within(flood, PATIENCE).await;
    world.until("portcullis_connections", 0.0).await;
    taken
}

const SESSION: &str = "/players/session?provider=x";
