//! Requests that are taken back, by the caller or because it forces us to.

use std::collections::BTreeMap;

use super::frames::*;
use crate::caller_tls::Door;
use crate::certificates::client;
use crate::world::{GOOD, World, answer, breath, valkyrie};

// threat: B1
#[tokio::test]
async fn taking_requests_back_gets_no_more_of_them_to_the_pam_than_there_may_be_streams() {
    let world = World::of("config/valkyrie.toml", &["limits.streams=5"]).await;
    let release = world.pam.hold(answer(200, GOOD));
    let call = valkyrie::call("GET", SESSION);
    let mut caller = Caller::to(world.address).await;
    for at in 0..5 {
        caller.write(&super::frames::call(1 + 2 * at, &call)).await;
        world.pam.arrived(at as usize + 1).await;
        caller.write(&reset(1 + 2 * at, CANCEL)).await;
    }
    // The places of these five are taken for as long as the PAM is at work, so these wait, and are taken back again.
    for at in 5..9 {
        caller.write(&super::frames::call(1 + 2 * at, &call)).await;
        caller.write(&reset(1 + 2 * at, CANCEL)).await;
    }
    caller.write(&super::frames::call(99, &call)).await;
    pong(&mut caller).await;
    assert_eq!(world.pam.requests().len(), 5);
    release.send(true).unwrap();
    assert_eq!(caller.outcome(99).await, Outcome::Status(200));
    assert_eq!(world.pam.requests().len(), 6);
    assert_serves(&world, &call).await;
    executed_once_and_counted(world, 8).await;
}

// threat: B1
#[tokio::test]
async fn rapid_resets_on_many_connections_and_a_slow_pam_harm_nobody_else() {
    for secured in [false, true] {
        let door = Door::new(&format!("rapid-{secured}"));
        let set = ["limits.streams=5", "limits.in_flight=30"];
        let world = if secured { door.world(&set).await } else { World::of("config/valkyrie.toml", &set).await };
        let release = world.pam.hold(answer(200, GOOD));
        let call = valkyrie::call("GET", SESSION);
        let pairs: Vec<u8> = (0..2000)
            .flat_map(|at| [super::frames::call(1 + 2 * at, &call), reset(1 + 2 * at, CANCEL)].concat())
            .collect();
        let mut attackers = Vec::new();
        for _ in 0..8 {
            let pairs = pairs.clone();
            let opening = [PREFACE, &settings(&[]), &pairs].concat();
            if secured {
                let tls = client(&door.authority, None, &["h2"], &[&tokio_rustls::rustls::version::TLS13]);
                let mut attacker = Caller::over(world.connect_tls(&tls).await.unwrap().stream);
                attackers.push(tokio::spawn(async move {
                    let _ = attacker.write(&opening).await;
                    attacker.end().await
                }));
            } else {
                let mut attacker = Caller::over(tokio::net::TcpStream::connect(world.address).await.unwrap());
                attackers.push(tokio::spawn(async move {
                    let _ = attacker.write(&opening).await;
                    attacker.end().await
                }));
            }
        }
        for attacker in attackers {
            let end = attacker.await.unwrap();
            // Closing with unread bytes may reset the connection before the goodbye is read.
            assert!(matches!(end, End::Goodbye(ENHANCE_YOUR_CALM) | End::Silent), "{end:?}");
        }
        let reached = world.pam.requests().len();
        assert!(reached <= 8 * 5, "{reached} requests");
        assert!(world.metric("portcullis_upstream_in_flight").await <= 30.0);
        release.send(true).unwrap();
        world.until("portcullis_connections", 0.0).await;
        if !secured {
            assert_serves(&world, &call).await;
        }
        let reached = world.pam.requests().len();
        executed_once_and_counted(world, reached).await;
    }
}

// threat: B2
#[tokio::test]
async fn making_us_reset_is_no_way_around_the_bounds() {
    for (name, provoke) in PROVOCATIONS {
        let world = World::of("config/valkyrie.toml", &["limits.streams=5"]).await;
        let release = world.pam.hold(answer(200, GOOD));
        let call = valkyrie::call("GET", SESSION);
        let mut attacker = Caller::to(world.address).await;
        // One request is with the PAM for certain when the first provocation comes.
        attacker.write(&super::frames::call(1, &call)).await;
        world.pam.arrived(1).await;
        let attack: Vec<u8> = (0..2000)
            .flat_map(|at| {
                let stream = 3 + 2 * at;
                [super::frames::call(stream, &call), provoke(stream)].concat()
            })
            .collect();
        let _ = attacker.write(&[provoke(1), attack].concat()).await;
        let end = attacker.end().await;
        assert_ne!(end, End::Goodbye(NO_ERROR), "{name}");
        let reached = world.pam.requests().len();
        assert!((1..=5).contains(&reached), "{name}: {reached} requests");
        release.send(true).unwrap();
        world.until("portcullis_connections", 0.0).await;
        assert_serves(&world, &call).await;
        let reached = world.pam.requests().len();
        executed_once_and_counted(world, reached).await;
    }
}

/// What makes a server reset a stream that it has just begun to serve.
type Provocation = (&'static str, fn(u32) -> Vec<u8>);
const PROVOCATIONS: [Provocation; 11] = [
    ("a window update of nothing", |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])),
    ("a window that overflows", |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())),
    ("a body behind the end", |stream| frame(DATA, END_STREAM, stream, b"x")),
    ("no body behind the end", |stream| frame(DATA, END_STREAM, stream, b"")),
    ("a second head behind the end", |stream| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &literal(b"x-late", b"1"))
    }),
    ("a priority that is too short", |stream| frame(PRIORITY, 0, stream, &[0; 4])),
    ("a priority that is too long", |stream| frame(PRIORITY, 0, stream, &[0; 6])),
    ("a stream that depends on itself", |stream| {
        frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())
    }),
    ("a head that depends on itself", |stream| {
        let payload = [&stream.to_be_bytes()[..], &[0], &literal(b"x-late", b"1")].concat();
        frame(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, stream, &payload)
    }),
    ("a reset that is too short", |stream| frame(RST_STREAM, 0, stream, &[0; 3])),
    ("padding longer than the frame", |stream| frame(DATA, PADDED, stream, &[200, 0, 0])),
];

/// Whatever reached the PAM did so once, and has one line in the log, which says that it did.
async fn executed_once_and_counted(world: World, reached: usize) {
    let seen = world.pam.requests();
    assert_eq!(seen.len(), reached);
    world.until("portcullis_upstream_in_flight", 0.0).await;
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for line in world.finish().await.iter().filter(|line| line.get("upstream_duration_s").is_some()) {
        *lines.entry(line["correlation_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let ids: BTreeMap<String, usize> =
        seen.iter().map(|seen| (seen.values("X-Correlation-ID")[0].to_owned(), 1)).collect();
    assert_eq!(ids.len(), reached, "a request reached the PAM twice");
    assert_eq!(lines, ids);
}

/// Everything written before has been read.
async fn pong(caller: &mut Caller) {
    caller.write(&frame(PING, 0, 0, b"12345678")).await;
    caller.until(|frame| frame.kind == PING && frame.flags == ACK && frame.payload == b"12345678").await;
    breath().await;
}

const SESSION: &str = "/players/session?provider=x";

const CANCEL: u32 = 8;
