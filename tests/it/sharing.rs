//! Dead stays dead for every replica: one log in a real Redis, followed by each.

use serde_json::Value;

use crate::binary::Running;
use crate::redis_server::RedisServer;
use crate::world::{Connection, Folder, PATIENCE, Pam, Request, World, answer, betstack, wallet};

pub const TERMINATED: &str = r#"{"status":true,"code":1}"#;

pub async fn terminating_pam() -> Pam {
    let pam = Pam::start().await;
    pam.answer_with(|_| answer(200, TERMINATED));
    pam
}

pub fn terminate(token: &str) -> Request {
    wallet::signed("terminate", &wallet::body(token))
}

pub fn debit(token: &str) -> Request {
    wallet::signed("debit", &wallet::body(token))
}

/// A replica in this process that has read the log.
pub async fn replica(redis: &RedisServer, more: &[&str]) -> World {
    let set = redis.set();
    let world = World::with_pam("config/wallet.toml", &[&[set.as_str()], more].concat(), terminating_pam().await).await;
    ready(&world).await;
    world
}

pub async fn ready(world: &World) {
    tokio::time::timeout(PATIENCE, world.portcullis.ready()).await.expect("the log was never read");
}

/// Sends until the status comes: other replicas follow within a bound that is not zero.
pub async fn until_status(world: &World, request: impl Fn() -> Request, status: u16) {
    let reached = async { while world.send(&request()).await.status != status {} };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{status} never came"));
}

// threat: F1
#[tokio::test]
async fn what_one_replica_ends_is_dead_for_the_other() {
    let redis = RedisServer::start("sharing", &[]).await;
    let (one, other) = (replica(&redis, &[]).await, replica(&redis, &[]).await);
    assert_eq!(other.send(&debit("t")).await.status, 200);
    assert_eq!(one.send(&terminate("t")).await.status, 200);
    assert_eq!(one.send(&debit("t")).await.status, 401);
    until_status(&other, || debit("t"), 401).await;
    assert_eq!(other.send(&debit("alive")).await.status, 200);
    let before = other.pam.requests().len();
    assert_eq!(other.send(&debit("t")).await.status, 401);
    assert_eq!(other.pam.requests().len(), before);
}

#[tokio::test]
async fn with_ask_the_other_replica_knows_at_once() {
    let redis = RedisServer::start("ask", &[]).await;
    let ask = ["revocation.consistency=ask"];
    let (one, other) = (replica(&redis, &ask).await, replica(&redis, &ask).await);
    for number in 0..200 {
        let token = format!("token-{number}");
        assert_eq!(one.send(&terminate(&token)).await.status, 200);
        assert_eq!(other.send(&debit(&token)).await.status, 401, "{token}");
    }
    assert_eq!(other.send(&debit("alive")).await.status, 200);
}

#[tokio::test]
async fn a_replica_that_starts_late_reads_the_log_before_it_is_ready() {
    let redis = RedisServer::start("late", &[]).await;
    let one = replica(&redis, &[]).await;
    for number in 0..50 {
        assert_eq!(one.send(&terminate(&format!("token-{number}"))).await.status, 200);
    }
    let late = replica(&redis, &[]).await;
    for number in 0..50 {
        assert_eq!(late.send(&debit(&format!("token-{number}"))).await.status, 401);
    }
    assert_eq!(late.send(&debit("alive")).await.status, 200);
    assert_eq!(late.metric("portcullis_revocations_live").await, 50.0);
}

#[tokio::test]
async fn a_replica_that_never_read_the_log_checks_no_token_and_is_not_ready() {
    let redis = RedisServer::start("never", &[]).await;
    redis.signal("STOP");
    let set = redis.set();
    let pam = terminating_pam().await;
    let running = Running::start("config/wallet.toml", &pam.address.to_string(), &["--set", &set]);
    let readiness = async || {
        let mut admin = Connection::to(running.admin.parse().unwrap()).await;
        admin.send(&Request::new("GET", "/readyz")).await.status
    };
    assert_eq!(readiness().await, 503);
    assert_eq!(running.send(&debit("t")).await, 503);
    pam.assert_untouched();
    redis.signal("CONT");
    let ready = async { while readiness().await != 200 {} };
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
    assert_eq!(running.send(&debit("t")).await, 200);
}

#[tokio::test]
async fn nothing_is_lost_across_a_disconnect() {
    let mut redis = RedisServer::start("disconnect", &["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (one, other) = (replica(&redis, &[]).await, replica(&redis, &[]).await);
    assert_eq!(one.send(&terminate("before")).await.status, 200);
    redis.kill();
    one.until("portcullis_revocation_store_away", 1.0).await;
    // Without a journal, what cannot be shared is not begun.
    let reply = one.send(&terminate("meanwhile")).await;
    assert_eq!(reply.status, 503);
    assert_eq!(one.send(&debit("meanwhile")).await.status, 200);
    assert_eq!(one.send(&debit("before")).await.status, 401);
    redis.start_again().await;
    one.until("portcullis_revocation_store_away", 0.0).await;
    assert_eq!(one.send(&terminate("after")).await.status, 200);
    for token in ["before", "after"] {
        until_status(&other, || debit(token), 401).await;
    }
    assert_eq!(other.send(&debit("meanwhile")).await.status, 200);
}

#[tokio::test]
async fn with_a_journal_tokens_end_while_the_store_is_away_and_are_published_when_it_is_back() {
    let mut redis = RedisServer::start("journal", &["--appendonly", "yes", "--appendfsync", "always"]).await;
    let folder = Folder::new("sharing-journal");
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    let (one, other) = (replica(&redis, &[&journal]).await, replica(&redis, &[]).await);
    redis.kill();
    one.until("portcullis_revocation_store_away", 1.0).await;
    assert_eq!(one.send(&terminate("meanwhile")).await.status, 200);
    assert_eq!(one.send(&debit("meanwhile")).await.status, 401);
    assert_eq!(one.metric("portcullis_revocations_unpublished").await, 1.0);
    assert_eq!(other.send(&debit("meanwhile")).await.status, 200);
    redis.start_again().await;
    until_status(&other, || debit("meanwhile"), 401).await;
    one.until("portcullis_revocations_unpublished", 0.0).await;
}

#[tokio::test]
async fn a_log_that_was_emptied_is_noticed_and_filled_again() {
    let mut redis = RedisServer::start("emptied", &[]).await;
    let (one, other) = (replica(&redis, &[]).await, replica(&redis, &[]).await);
    for number in 0..20 {
        assert_eq!(one.send(&terminate(&format!("token-{number}"))).await.status, 200);
    }
    until_status(&other, || debit("token-19"), 401).await;
    redis.kill();
    redis.start_again().await;
    // Its data is gone; the replicas have it.
    one.until("portcullis_revocation_resyncs_total", 1.0).await;
    for world in [&one, &other] {
        world.until("portcullis_revocations_unpublished", 0.0).await;
        world.until("portcullis_revocation_store_away", 0.0).await;
    }
    let late = replica(&redis, &[]).await;
    for number in 0..20 {
        assert_eq!(late.send(&debit(&format!("token-{number}"))).await.status, 401);
    }
    assert_eq!(late.send(&debit("alive")).await.status, 200);
}

#[tokio::test]
async fn a_store_that_hangs_is_away_and_each_direction_does_what_its_rule_says() {
    let redis = RedisServer::start("hangs", &[]).await;
    let outage = "revocation.on_outage={ check = \"refuse\", retire = \"refuse\" }";
    let fast = "revocation.redis.timeout=300ms";
    let strict = replica(&redis, &[outage, fast]).await;
    let (local, asking) =
        (replica(&redis, &[fast]).await, replica(&redis, &["revocation.consistency=ask", fast]).await);
    redis.signal("STOP");
    for world in [&strict, &local, &asking] {
        world.until("portcullis_revocation_store_away", 1.0).await;
    }
    let reply = strict.send(&debit("t")).await;
    assert_eq!((reply.status, reply.json()["code"].as_i64()), (503, Some(503)));
    strict.pam.assert_untouched();
    assert_eq!(local.send(&debit("t")).await.status, 200);
    assert_eq!(asking.send(&debit("t")).await.status, 200);
    assert_eq!(local.send(&terminate("t")).await.status, 503);
    assert!(local.metric("portcullis_revocation_lag_seconds").await > 0.3);
    redis.signal("CONT");
    until_status(&strict, || debit("t"), 200).await;
    for world in [&local, &asking] {
        world.until("portcullis_revocation_store_away", 0.0).await;
    }
    assert_eq!(local.send(&terminate("t")).await.status, 200);
    until_status(&strict, || debit("t"), 401).await;
    assert_eq!(asking.send(&debit("t")).await.status, 401);
}

#[tokio::test]
async fn an_answer_that_the_store_did_not_take_in_time_is_not_released() {
    let redis = RedisServer::start("untaken", &[]).await;
    let world = replica(&redis, &["revocation.redis.timeout=300ms"]).await;
    let release = world.pam.hold(answer(200, TERMINATED));
    let request = terminate("t");
    let sending = world.send(&request);
    let stopping = async {
        world.pam.arrived(1).await;
        redis.signal("STOP");
        release.send_replace(true);
    };
    let (reply, ()) = tokio::join!(sending, stopping);
    assert_eq!((reply.status, reply.json()["code"].as_i64()), (502, Some(502)));
    // Dead here all the same, and there as soon as it can be told.
    assert_eq!(world.send(&debit("t")).await.status, 401);
    redis.signal("CONT");
    let other = replica(&redis, &[]).await;
    until_status(&other, || debit("t"), 401).await;
    let lines = world.finish().await;
    let reasons: Vec<&Value> = lines.iter().filter_map(|line| line.get("reason")).collect();
    assert_eq!(reasons, ["store_failed", "token_ended"]);
}

#[tokio::test]
async fn the_store_holds_no_token() {
    let redis = RedisServer::start("canary", &[]).await;
    let world = replica(&redis, &[]).await;
    assert_eq!(world.send(&terminate("canary-token")).await.status, 200);
    let log = redis.cli(&["XRANGE", "{portcullis}:log", "-", "+"]);
    assert!(log.contains("ended"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn replicas_that_began_apart_recognise_each_others_tokens() {
    let redis = RedisServer::start("apart", &[]).await;
    let folders = [Folder::new("apart-one"), Folder::new("apart-other")];
    let journals = folders.each_ref().map(|folder| format!("revocation.journal={}", folder.path().join("j").display()));
    // Each has ended a token alone, under a key of its own.
    for (number, journal) in journals.iter().enumerate() {
        let alone = World::with_pam("config/wallet.toml", &[journal], terminating_pam().await).await;
        assert_eq!(alone.send(&terminate(&format!("alone-{number}"))).await.status, 200);
        alone.finish().await;
    }
    let (one, other) = (replica(&redis, &[&journals[0]]).await, replica(&redis, &[&journals[1]]).await);
    for world in [&one, &other] {
        for token in ["alone-0", "alone-1"] {
            until_status(world, || debit(token), 401).await;
        }
    }
    assert_eq!(other.send(&terminate("later")).await.status, 200);
    until_status(&one, || debit("later"), 401).await;
    let third = replica(&redis, &[]).await;
    for token in ["alone-0", "alone-1", "later"] {
        assert_eq!(third.send(&debit(token)).await.status, 401, "{token}");
    }
}

#[tokio::test]
async fn entries_that_are_over_are_trimmed_and_no_others() {
    let redis = RedisServer::start("trimmed", &[]).await;
    // Two days ago and half a day ago, by the store's clock; a token is kept for one day.
    let fill = "local now = tonumber(redis.call('TIME')[1]) * 1000 \
                for n = 1, 1000 do redis.call('XADD', KEYS[1], (now - 172800000) .. '-' .. n, 'fate', 'ended', \
                'token', string.format('%032x', n), 'id', '1', 'grace_ms', '0', 'left_ms', '86400000', 'made_ms', tostring(now - 172800000)) end \
                for n = 1, 500 do redis.call('XADD', KEYS[1], (now - 43200000) .. '-' .. n, 'fate', 'ended', \
                'token', string.format('%032x', 5000 + n), 'id', '1', 'grace_ms', '0', 'left_ms', '86400000', 'made_ms', tostring(now - 43200000)) end";
    redis.cli(&["EVAL", fill, "1", "{portcullis}:log"]);
    assert_eq!(redis.cli(&["XLEN", "{portcullis}:log"]), "1500");
    let world = replica(&redis, &[]).await;
    assert_eq!(world.metric("portcullis_revocations_live").await, 500.0);
    assert_eq!(world.send(&terminate("now")).await.status, 200);
    // Trimming takes whole nodes of a hundred entries or so.
    let length: u64 = redis.cli(&["XLEN", "{portcullis}:log"]).parse().unwrap();
    assert!((501..700).contains(&length), "{length}");
    let late = replica(&redis, &[]).await;
    assert_eq!(late.metric("portcullis_revocations_live").await, 501.0);
}

/// A replica of Betstack, which admits each signed message once.
async fn betstack_replica(redis: &RedisServer, more: &[&str]) -> World {
    let set = redis.set();
    let world = World::of("config/betstack.toml", &[&[set.as_str()], more].concat()).await;
    ready(&world).await;
    world
}

fn identify(token: &str) -> Request {
    betstack::signed(&betstack::body("identify", &format!(r#","token":"{token}""#)))
}

// threat: D10
#[tokio::test]
async fn a_signed_message_is_admitted_once_by_all_replicas_together() {
    let redis = RedisServer::start("replay", &[]).await;
    let (one, other) = (betstack_replica(&redis, &[]).await, betstack_replica(&redis, &[]).await);
    let request = identify("t");
    assert_eq!(one.send(&request).await.status, 200);
    // Until the news that it is settled is there, it is refused as well, in other words.
    until_status(&other, || request.clone(), 403).await;
    other.pam.assert_untouched();
    assert_eq!(other.send(&identify("another")).await.status, 200);
    let alone = betstack_replica(&redis, &["replay.shared=false"]).await;
    assert_eq!(alone.send(&request).await.status, 200);
}

#[tokio::test]
async fn a_message_that_is_with_the_pam_is_not_admitted_by_another_replica_until_it_failed() {
    let redis = RedisServer::start("replay-flight", &[]).await;
    let (one, other) = (betstack_replica(&redis, &[]).await, betstack_replica(&redis, &[]).await);
    let request = identify("t");
    let release = one.pam.hold(answer(500, r#"{"code":500,"message":"x"}"#));
    let copies = async {
        one.pam.arrived(1).await;
        let reply = other.send(&request).await;
        release.send_replace(true);
        reply
    };
    let (first, copy) = tokio::join!(one.send(&request), copies);
    assert_eq!((first.status, copy.status), (500, 503));
    other.pam.assert_untouched();
    // A 5xx is no definitive answer: its sender sends the same again, to whichever replica.
    until_status(&other, || request.clone(), 200).await;
    assert_eq!(other.pam.requests().len(), 1);
    until_status(&one, || request.clone(), 403).await;
    assert_eq!(one.pam.requests().len(), 1);
}

#[tokio::test]
async fn while_keys_rotate_a_message_counts_once_for_replicas_with_different_first_keys() {
    let redis = RedisServer::start("replay-rotation", &[]).await;
    let folder = Folder::new("replay-rotation");
    let callers = |keys: &str| format!("[[caller]]\nname = \"operator-code\"\nsigning = [{keys}]\n");
    let old = r#"{ id = "old", key = { file = "old" } }"#;
    let new = r#"{ id = "new", key = { env = "BETSTACK_SECRET" } }"#;
    folder.write("old", "the-old-secret");
    let head = "dialect = \"betstack\"\nbase_path = \"/pam\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n";
    let during = folder.write("during.toml", &format!("{head}{}", callers(&format!("{old}, {new}"))));
    let after = folder.write("after.toml", &format!("{head}{}", callers(new)));
    let set = redis.set();
    let (during, after) = (World::of(&during, &[&set]).await, World::of(&after, &[&set]).await);
    ready(&during).await;
    ready(&after).await;
    let request = identify("t");
    assert_eq!(during.send(&request).await.status, 200);
    until_status(&after, || request.clone(), 403).await;
    after.pam.assert_untouched();
    let request = identify("u");
    assert_eq!(after.send(&request).await.status, 200);
    until_status(&during, || request.clone(), 403).await;
    assert_eq!(during.pam.requests().len(), 1);
}

#[tokio::test]
async fn while_the_store_is_away_messages_count_once_here_or_are_refused() {
    let redis = RedisServer::start("replay-away", &[]).await;
    let refuse = "revocation.on_outage={ check = \"refuse\" }";
    let fast = "revocation.redis.timeout=300ms";
    let (local, strict) = (betstack_replica(&redis, &[fast]).await, betstack_replica(&redis, &[fast, refuse]).await);
    redis.signal("STOP");
    for world in [&local, &strict] {
        world.until("portcullis_revocation_store_away", 1.0).await;
    }
    let request = identify("t");
    assert_eq!(local.send(&request).await.status, 200);
    assert_eq!(local.send(&request).await.status, 403);
    // A call without a token is refused for the message's sake alone.
    let win = betstack::signed(&betstack::body("ticket_win", r#","ticket_id":"1""#));
    assert_eq!(strict.send(&win).await.status, 503);
    strict.pam.assert_untouched();
    redis.signal("CONT");
    until_status(&strict, || win.clone(), 200).await;
    assert_eq!(strict.pam.requests().len(), 1);
}
