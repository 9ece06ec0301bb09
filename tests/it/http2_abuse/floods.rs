//! Frames that ask for nothing, in any number, against the real binary: it must end them or stop reading, stay small, and
//! serve the next caller.

use std::net::SocketAddr;

use tokio::time::timeout;

use super::blocks::{bombs, endless};
use super::frames::*;
use crate::binary::Running;
use crate::world::{GOOD, PATIENCE, Pam, World, answer, valkyrie};

/// Frames to be sent again and again behind an opening.
struct Flood {
    name: &'static str,
    opening: Vec<u8>,
    again: Vec<u8>,
    /// Whether the connection must be over before all has been sent; otherwise it may also be read to its end, or no more.
    ends: bool,
}

fn floods() -> Vec<Flood> {
    let nothing = Vec::new;
    let put = fields(&valkyrie::call("PUT", SESSION));
    // A request whose body is to come.
    let begun = frame(HEADERS, END_HEADERS, 1, &block(&put));
    let served = call(1, &valkyrie::call("GET", SESSION));
    let flood = |name, opening, again, ends| Flood { name, opening, again, ends };
    vec![
        flood("settings", nothing(), settings(&[]), true),
        flood(
            "settings that change windows",
            nothing(),
            [settings(&[(INITIAL_WINDOW_SIZE, 1)]), settings(&[(INITIAL_WINDOW_SIZE, 65_535)])].concat(),
            true,
        ),
        flood(
            "settings that change the table",
            nothing(),
            [settings(&[(1, 0)]), settings(&[(1, u32::MAX)])].concat(),
            true,
        ),
        flood("settings of no known name", nothing(), settings(&[(0xabcd, 1); 100]), false),
        flood("acknowledgements of nothing", nothing(), frame(SETTINGS, ACK, 0, b""), true),
        flood("pings", nothing(), frame(PING, 0, 0, &[0; 8]), true),
        flood("pongs", nothing(), frame(PING, ACK, 0, &[0; 8]), false),
        flood("priorities", nothing(), frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), false),
        flood("priorities of a stream that has ended", served.clone(), frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), false),
        flood("window updates of the connection", nothing(), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), false),
        flood("window updates of a stream", begun.clone(), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), false),
        flood("a window that overflows", nothing(), frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), true),
        flood("frames of no known kind", nothing(), frame(0xbb, 0xff, 0, &[0; 100]), false),
        flood("empty frames of no known kind", nothing(), frame(0xbb, 0, 7, b""), false),
        flood("resets of a stream that has ended", served, reset(1, NO_ERROR), false),
        flood("resets of a stream that never was", nothing(), reset(1, NO_ERROR), true),
        flood("goodbyes", nothing(), frame(GOAWAY, 0, 0, &[0; 8]), false),
        flood("a frame that is too large", nothing(), frame(0xbb, 0, 0, &vec![0; 16_385]), true),
        flood("empty data", begun.clone(), frame(DATA, 0, 1, b""), true),
        flood("data that is all padding", begun.clone(), frame(DATA, PADDED, 1, &[255; 256]), true),
        flood(
            "data of a byte, and padding",
            begun.clone(),
            frame(DATA, PADDED, 1, &[&[200][..], b"x", &[0; 200]].concat()),
            true,
        ),
        flood("data of a byte", begun, frame(DATA, 0, 1, b"x"), true),
        flood("data without a stream", nothing(), frame(DATA, 0, 1, b"x"), true),
    ]
}

// threat: B8
// threat: B9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_ended_or_held_back_and_memory_stays_flat() {
    let pam = Pam::start().await;
    let limits = ["write_timeout=1s", "head_timeout=1h", "body_timeout=1h", "idle_timeout=1h"];
    let set: Vec<String> = limits.iter().flat_map(|limit| ["--set".to_owned(), format!("limits.{limit}")]).collect();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let running = Running::start("config/valkyrie.toml", &pam.address.to_string(), &set);
    let address: SocketAddr = running.listen.parse().unwrap();
    let mut sizes = Vec::new();
    // The first round lets the allocator take what it keeps.
    for round in 0..3 {
        for flood in floods() {
            let many = 1 + if flood.ends { 32 << 20 } else { 2 << 20 } / flood.again.len();
            let bytes = [PREFACE, &settings(&[]), &flood.opening, &flood.again.repeat(many)].concat();
            // The kernel holds less for who takes less.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut caller = Caller::over(socket.connect(address).await.unwrap());
            let (written, taken) = caller.write_unread(&bytes).await;
            assert!(!flood.ends || taken != Taken::All, "{}: {written} bytes, {taken:?}", flood.name);
            if taken == Taken::Blocked {
                // Not read and not closed for ever: the write timeout ends it, without a frame being taken off the wire.
                let ended = async { while caller.write_unread(&bytes[written..]).await.1 == Taken::Blocked {} };
                timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("{}: it is still open", flood.name));
            }
        }
        for block in endless().into_iter().chain(bombs()) {
            let mut caller = Caller::to(address).await;
            let _ = caller.write(&block.frames).await;
            let _ = caller.outcome(1).await;
        }
        let good = valkyrie::call("GET", SESSION);
        let mut caller = Caller::to(address).await;
        caller.write(&call(1, &good)).await;
        assert_eq!(caller.outcome(1).await, Outcome::Status(200));
        assert_eq!(running.send(&good).await, 200);
        sizes.push(running.resident());
        assert!(sizes[round] < sizes[0] + 8_192, "KiB after each round: {sizes:?}");
    }
}

// threat: B6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_not_taken_from_the_pam() {
    let pam = Pam::start().await;
    // Large enough to be streamed, and to show if they were held: 100 MiB.
    let large = answer(200, &"x".repeat(1 << 20));
    pam.answer_with(move |_| large.clone());
    let running = Running::start("config/valkyrie.toml", &pam.address.to_string(), &["--set", "limits.answer=1KiB"]);
    let address: SocketAddr = running.listen.parse().unwrap();
    let before = running.resident();
    // One opens no window; the other opens it wide and does not read.
    for window in [0, 0x7fff_ffff] {
        let mut caller = Caller::with(address, &[(INITIAL_WINDOW_SIZE, window)]).await;
        if window != 0 {
            caller.write(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes())).await;
        }
        let calls: Vec<u8> = (0..100).flat_map(|at| call(1 + 2 * at, &valkyrie::call("GET", SESSION))).collect();
        let had = pam.requests().len();
        caller.write(&calls).await;
        pam.arrived(had + 100).await;
        if window == 0 {
            for _ in 0..100 {
                caller.until(|frame| frame.kind == HEADERS).await;
            }
        }
        // 100 times what h2 may hold and what the way from the PAM takes, and room.
        let after = running.resident();
        assert!(after < before + 48 * 1024, "{before} KiB before, {after} after");
        pam.answer_with(|_| answer(200, GOOD));
        assert_eq!(running.send(&valkyrie::call("GET", SESSION)).await, 200);
        let large = answer(200, &"x".repeat(1 << 20));
        pam.answer_with(move |_| large.clone());
    }
}

// threat: B9
#[tokio::test]
async fn data_that_is_nothing_ends_the_connection() {
    let world = World::of("config/valkyrie.toml", &["limits.body_timeout=1h"]).await;
    for payload in [&b""[..], &[0], &[255; 256]] {
        let flags = if payload.is_empty() { 0 } else { PADDED };
        let mut caller = Caller::to(world.address).await;
        caller.write(&frame(HEADERS, END_HEADERS, 1, &block(&fields(&valkyrie::call("PUT", SESSION))))).await;
        let _ = caller.write(&frame(DATA, flags, 1, payload).repeat(200)).await;
        let end = caller.end().await;
        assert!(matches!(end, End::Goodbye(ENHANCE_YOUR_CALM) | End::Silent), "{end:?}");
    }
    world.pam.assert_untouched();
    assert_serves(&world, &valkyrie::call("GET", SESSION)).await;
}

const SESSION: &str = "/players/session?provider=x";
