//! The bounds on what is in flight and on connections: what is beyond them is refused at once, and nobody else notices.

use serde_json::json;
use tokio::time::timeout;

use crate::binary::Running;
use crate::upstream::{Family, assert_failed, families};
use crate::wire::h2_head;
use crate::world::{Connection, GOOD, PATIENCE, Pam, Reply, Request, World, answer, betstack, valkyrie, wallet};

// ---- requests with the PAM ----

#[tokio::test]
async fn what_is_beyond_the_bound_is_refused_at_once_in_the_words_of_the_family() {
    for Family { config, call, says } in families() {
        let world = World::of(config, &["limits.in_flight=1"]).await;
        let release = world.pam.hold(answer(200, "{}"));
        let mut first = world.connect().await;
        first.write(&other(config, &call).bytes()).await;
        world.pam.arrived(1).await;
        assert_eq!(world.metric("portcullis_upstream_in_flight").await, 1.0);
        for reply in [world.send(&call).await, world.send_h2(&call).await] {
            assert_failed(&reply, 503, says, config);
            assert_eq!(reply.values("Retry-After"), ["1"], "{config}");
        }
        assert_eq!((world.pam.requests().len(), world.pam.connections()), (1, 1), "{config}");
        release.send(true).unwrap();
        assert_eq!(first.reply().await.status, 200, "{config}");
        world.until("portcullis_upstream_in_flight", 0.0).await;
        // The same signed message: since nothing reached the PAM, nothing was used up.
        assert_eq!(world.send(&call).await.status, 200, "{config}");
        let lines = world.finish().await;
        let refused: Vec<_> = lines.iter().filter(|line| line["reason"] == "in_flight_full").collect();
        assert_eq!(refused.len(), 2, "{config}");
        for line in refused {
            assert_eq!((&line["check"], &line["decision"]), (&json!("upstream"), &json!("refused")), "{config}");
            assert_eq!(line.get("upstream_duration_s"), None, "{config}");
        }
    }
}

#[tokio::test]
async fn who_proves_nothing_takes_no_place_and_learns_nothing_of_the_load() {
    let world = World::of("config/wallet.toml", &["limits.in_flight=1"]).await;
    let release = world.pam.hold(answer(200, "{}"));
    let mut first = world.connect().await;
    first.write(&wallet::signed("debit", &wallet::body("t")).bytes()).await;
    world.pam.arrived(1).await;
    let stranger = wallet::signed("debit", &wallet::body("t")).without("Authorization");
    let reply = world.send(&stranger).await;
    assert_eq!((reply.status, reply.values("Retry-After").len()), (401, 0));
    release.send(true).unwrap();
    assert_eq!(first.reply().await.status, 200);
    world.pam.only_request();
}

#[tokio::test]
async fn a_streamed_answer_keeps_its_place_until_it_is_over() {
    let world = World::of("config/wallet.toml", &["limits.in_flight=1", "limits.answer=256"]).await;
    // More than the kernel holds between the PAM and a caller that does not read.
    let large = answer(200, &"x".repeat(32 << 20));
    world.pam.answer_in_turn(vec![Some(large), Some(answer(200, "{}"))]);
    let call = wallet::signed("balance", &wallet::body("t"));
    let mut slow = world.connect().await;
    slow.write(&call.bytes()).await;
    world.pam.arrived(1).await;
    assert_eq!(world.send(&call).await.status, 503);
    assert_eq!(slow.reply().await.body.len(), 32 << 20);
    world.until("portcullis_upstream_in_flight", 0.0).await;
    assert_eq!(world.send(&call).await.status, 200);
}

#[tokio::test]
async fn no_reply_but_one_that_says_nothing_was_done_invites_to_try_again() {
    let world = World::of("config/wallet.toml", &["timeouts.read=50ms"]).await;
    let call = wallet::signed("debit", &wallet::body("t"));
    let invited = |reply: Reply| (reply.status, reply.values("Retry-After").len());
    world.pam.answer_in_turn(vec![None, Some(Vec::new()), Some(answer(503, "{}"))]);
    for status in [502, 504] {
        assert_eq!(invited(world.send(&call).await), (status, 0));
    }
    // The PAM's own 503 is the PAM's.
    assert_eq!(invited(world.send(&call).await), (503, 0));
    assert_eq!(invited(world.send(&Request::new("GET", "/nothing")).await), (404, 0));
}

/// Another call of the family, which is no copy of the first: a copy waits for what comes of it.
fn other(config: &str, call: &Request) -> Request {
    match config {
        "config/betstack.toml" => betstack::signed(&betstack::body("ticket_lost", "")),
        _ => call.clone(),
    }
}

// ---- connections ----

// threat: G7
#[tokio::test]
async fn a_connection_too_many_is_closed_before_a_byte_of_it_is_read_and_the_others_go_on() {
    for (bound, reason) in
        [("limits.connections=2", "connections"), ("limits.connections_per_address=2", "connections_per_address")]
    {
        let world = World::of("config/wallet.toml", &[bound]).await;
        let call = wallet::signed("balance", &wallet::body("t"));
        let (mut one, mut other) = (world.connect().await, world.connect().await);
        // A reply shows that each has been let in.
        assert_eq!((one.send(&call).await.status, other.send(&call).await.status), (200, 200), "{bound}");
        assert!(world.connect().await.rest().await.is_empty(), "{bound}");
        let refused = format!("portcullis_connections_refused_total{{reason=\"{reason}\"}}");
        world.until(&refused, 1.0).await;
        assert_eq!(world.metric("portcullis_connections").await, 2.0, "{bound}");
        assert_eq!((one.send(&call).await.status, other.send(&call).await.status), (200, 200), "{bound}");
        drop(one);
        world.until("portcullis_connections", 1.0).await;
        assert_eq!(world.send(&call).await.status, 200, "{bound}");
        assert_eq!(world.metric(&refused).await, 1.0, "{bound}");
        assert_eq!(world.pam.requests().len(), 5, "{bound}");
    }
}

// threat: G7
#[tokio::test]
async fn a_thousand_idle_connections_take_little_and_hinder_nobody() {
    let pam = Pam::start().await;
    let running = Running::start("config/wallet.toml", &pam.address.to_string(), &[]);
    let call = wallet::signed("balance", &wallet::body("t"));
    let address = running.listen.parse().unwrap();
    let mut idle = Vec::new();
    let mut before = 0;
    for count in 0..1_100 {
        let mut caller = Connection::to(address).await;
        // Half of them have called before.
        if count % 2 == 0 {
            assert_eq!(caller.send(&call).await.status, 200);
        }
        idle.push(caller);
        // Until here it has grown to what it is without them.
        if count == 100 {
            before = running.resident();
        }
    }
    assert_eq!(running.send(&call).await, 200);
    let each = running.resident().saturating_sub(before) * 1024 / 1_000;
    assert!(each as u64 <= portcullis::footprint::CONNECTION, "{each} bytes each");
}

#[tokio::test]
async fn the_last_request_of_a_connection_says_so() {
    let world = World::of("config/wallet.toml", &["limits.requests_per_connection=2"]).await;
    let call = wallet::signed("balance", &wallet::body("t"));
    let mut caller = world.connect().await;
    let first = caller.send(&call).await;
    assert_eq!((first.status, first.values("Connection").len()), (200, 0));
    let last = caller.send(&call).await;
    assert_eq!((last.status, last.values("Connection")), (200, vec!["close"]));
    assert!(caller.rest().await.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_old_ends_behind_the_request_it_serves() {
    let world = World::of("config/wallet.toml", &["limits.connection_age=50ms"]).await;
    let release = world.pam.hold(answer(200, GOOD));
    let mut caller = world.connect().await;
    caller.write(&wallet::signed("balance", &wallet::body("t")).bytes()).await;
    world.pam.arrived(1).await;
    // The PAM takes longer than the connection may live: time itself is what is awaited here.
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    release.send(true).unwrap();
    let reply = caller.reply().await;
    assert_eq!((reply.status, reply.values("Connection")), (200, vec!["close"]));
    assert!(caller.rest().await.is_empty());
}

#[tokio::test]
async fn over_http2_the_end_is_announced_and_what_is_under_way_is_finished() {
    for bound in ["limits.requests_per_connection=2", "limits.connection_age=1s"] {
        let world = World::of("config/valkyrie.toml", &[bound]).await;
        let release = world.pam.hold(answer(200, GOOD));
        let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut answers = Vec::new();
        for _ in 0..2 {
            client = client.ready().await.unwrap();
            let call = valkyrie::call("GET", "/players/session?provider=x");
            answers.push(client.send_request(h2_head(&world, &call), true).unwrap().0);
        }
        world.pam.arrived(2).await;
        // It takes no new ones once it has heard.
        let heard = async {
            while let Ok(ready) = client.clone().ready().await {
                drop(ready);
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("{bound}: no goodbye came"));
        release.send(true).unwrap();
        for answer in answers {
            assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200, "{bound}");
        }
        // And it is over, without an error.
        assert!(timeout(PATIENCE, driver).await.unwrap().unwrap().is_ok(), "{bound}");
    }
}

#[tokio::test]
async fn streams_are_bounded_as_the_config_says() {
    let world = World::of("config/valkyrie.toml", &["limits.streams=3"]).await;
    let release = world.pam.hold(answer(200, GOOD));
    let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let call = valkyrie::call("GET", "/players/session?provider=x");
    // The first one's arrival shows that the settings have been exchanged.
    let mut client = client.ready().await.unwrap();
    let mut answers = vec![client.send_request(h2_head(&world, &call), true).unwrap().0];
    world.pam.arrived(1).await;
    for _ in 0..2 {
        client = client.ready().await.unwrap();
        answers.push(client.send_request(h2_head(&world, &call), true).unwrap().0);
    }
    world.pam.arrived(3).await;
    assert_eq!(client.current_max_send_streams(), 3);
    release.send(true).unwrap();
    for answer in answers {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    }
    driver.abort();
}
