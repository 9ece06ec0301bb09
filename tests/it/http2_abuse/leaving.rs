//! Callers to whom a connection that ends is awkward: they come late, or they are slow.

use std::time::Duration;

use tokio::net::TcpSocket;

use super::frames::*;
use crate::world::{World, answer, breath, valkyrie};

// threat: G13
#[tokio::test]
async fn a_connection_that_comes_while_it_still_serves_can_make_a_request() {
    let world = World::valkyrie().await;
    world.announce_stop();
    let mut caller = Caller::to(world.address).await;
    // Some ask for nothing before they know the settings, and for nothing at all when a goodbye comes with them.
    caller.write(&frame(PING, 0, 0, b"and then")).await;
    loop {
        let seen = caller.read().await.unwrap();
        assert_ne!(seen.kind, GOAWAY);
        if seen.kind == PING {
            break;
        }
    }
    caller.write(&call(1, &valkyrie::call("GET", SESSION))).await;
    // It hears of it with its first request.
    assert_eq!(caller.until(|frame| frame.kind == GOAWAY).await.reason(), NO_ERROR);
    assert_eq!(caller.outcome(1).await, Outcome::Status(200));
    caller.end().await;
}

// threat: G13
#[tokio::test]
async fn who_is_let_in_at_the_last_moment_is_heard() {
    for http2 in [false, true] {
        let mut world = World::valkyrie().await;
        world.announce_stop();
        // Longer than a request is on its way to us.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let (mut caller, mut other) = (world.connect().await, Caller::to(world.address).await);
        world.until("portcullis_connections", 2.0).await;
        let stopped = world.stop();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let session = valkyrie::call("GET", SESSION);
        if http2 {
            other.write(&call(1, &session)).await;
            assert_eq!(other.outcome(1).await, Outcome::Status(200));
        } else {
            assert_eq!(caller.send(&session).await.status, 200);
        }
        assert!(stopped.await.unwrap());
    }
}

// threat: G13
#[tokio::test]
async fn replies_are_not_cut_off_because_their_caller_takes_them_slowly() {
    const CALLS: u32 = 100;
    let world = World::of("config/valkyrie.toml", &["limits.requests_per_connection=100"]).await;
    let body = "x".repeat(60_000);
    world.pam.answer_with(move |_| answer(200, &body));
    // What the kernels hold for the caller must be less than there is.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut caller = Caller::over(socket.connect(world.address).await.unwrap());
    let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes());
    caller.write(&[PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]), &window].concat()).await;
    for at in 0..CALLS {
        caller.write(&call(1 + 2 * at, &valkyrie::call("GET", SESSION))).await;
    }
    world.pam.arrived(CALLS as usize).await;
    while world.metric("portcullis_requests_in_flight").await > 0.0 {
        breath().await;
    }
    // Longer than a connection without requests is left open, and by far not as long as a reply may take.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (mut ended, mut bytes) = (0, 0);
    while ended < CALLS {
        let seen = caller.read().await.unwrap_or_else(|| panic!("{ended} of {CALLS} replies came whole"));
        if seen.kind == DATA {
            bytes += seen.payload.len();
            ended += u32::from(seen.flags & END_STREAM != 0);
        }
    }
    assert_eq!(bytes, 60_000 * CALLS as usize);
}

const SESSION: &str = "/players/session?provider=x";
