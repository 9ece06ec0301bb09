//! Dead stays dead whatever the store does: it hangs, fills up, loses keys or holds strange ones, and the network fails.

use std::time::{Duration, Instant, SystemTime};

use portcullis::denial::Denial;
use portcullis::log::{Log, Writer};
use portcullis::revocation::Revocations;
use portcullis::secret::DigestKey;
use portcullis::token::{Standing, TokenDigest};
use tokio::time::timeout;

use crate::binary::Running;
use crate::failover::{Load, assert_dead, end_all, settled, swift, until_last};
use crate::redis_server::RedisServer;
use crate::relay::Relay;
use crate::sharing::{TERMINATED, debit, ready, terminate, terminating_pam};
use crate::world::{Folder, PATIENCE, World, answer, breath, load};

const LOG: &str = "{portcullis}:log";
const KEY: &str = "{portcullis}:key";

/// Why the store was away, as the log says.
async fn whys(world: World) -> Vec<String> {
    let lines = world.finish().await;
    let away = lines.iter().filter(|line| line["event"] == "revocation_store_away");
    away.map(|line| line["about"]["why"].as_str().unwrap().to_owned()).collect()
}

async fn until_told(world: &World, event: &str) {
    let told = async {
        while !world.log_text().contains(event) {
            breath().await;
        }
    };
    timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{event} was never told"));
}

// threat: F2
#[tokio::test]
async fn a_store_that_takes_nothing_is_still_read_and_what_would_end_a_token_is_refused() {
    // Full, or with fewer replicas than it must have.
    let taking_nothing = async |name: &str, setting: &str, word: &str| {
        let store = RedisServer::start(name, &[]).await;
        let strict = "revocation.on_outage={ check = \"refuse\", retire = \"refuse\" }".to_owned();
        let (one, other) = (swift(&[store.set(), strict]).await, swift(&[store.set()]).await);
        let mut tokens = end_all(&other, "before", 2).await;
        until_last(&one, &tokens).await;
        // It stops taking while the PAM ends a token: that answer must not go out.
        let release = one.pam.hold(answer(200, TERMINATED));
        let request = terminate("meanwhile");
        let filling = async {
            one.pam.arrived(1).await;
            assert_eq!(store.cli(&["CONFIG", "SET", setting, "1"]), "OK");
            release.send_replace(true);
        };
        let (reply, ()) = tokio::join!(one.send(&request), filling);
        assert_eq!(reply.status, 502, "{setting}");
        assert_eq!(one.send(&debit("meanwhile")).await.status, 401);
        one.pam.answer_with(|_| answer(200, TERMINATED));
        // Both know, the other one without having had anything to say, and let nothing begin that could not be told.
        for world in [&one, &other] {
            world.until("portcullis_revocation_store_away", 1.0).await;
            let before = world.pam.requests().len();
            assert_eq!(world.send(&terminate("refused")).await.status, 503, "{setting}");
            assert_eq!(world.pam.requests().len(), before);
            // What stands in the log is known, and a check may rely on it.
            assert_eq!(world.send(&debit("alive")).await.status, 200, "{setting}");
        }
        assert_eq!(store.cli(&["CONFIG", "SET", setting, "0"]), "OK");
        settled(&[&one, &other]).await;
        tokens.push("meanwhile".to_owned());
        tokens.extend(end_all(&one, "after", 2).await);
        assert_dead(&[&one, &other], &tokens).await;
        for whys in [whys(one).await, whys(other).await] {
            assert!(whys.len() == 1 && whys[0].contains(word), "{whys:?}");
        }
    };
    let full = taking_nothing("full", "maxmemory", "OOM");
    tokio::join!(full, taking_nothing("few", "min-replicas-to-write", "NOREPLICAS"));
}

#[tokio::test]
async fn entries_that_are_not_ours_are_counted_and_the_rest_is_read() {
    let store = RedisServer::start("garbage", &[]).await;
    let one = swift(&[store.set()]).await;
    let mut tokens = end_all(&one, "before", 2).await;
    let digest = "ab".repeat(16);
    let good = ["fate", "ended", "token", &digest, "id", "1", "grace_ms", "0", "left_ms", "60000", "made_ms", "1"];
    let mut garbage =
        vec![vec!["a", "b"], vec!["fate", "forgiven"], vec!["fate", "ended"], vec!["fate", "key", "key", "x"]];
    for (at, wrong) in [(3, "short"), (5, "x"), (7, "-1"), (9, "9999999999999999999999"), (11, "é")] {
        let mut entry = good.to_vec();
        entry[at] = wrong;
        garbage.push(entry);
    }
    for entry in &garbage {
        assert!(store.cli(&[&["XADD", LOG, "*"], entry.as_slice()].concat()).contains('-'));
    }
    let bytes = "redis.call('XADD', KEYS[1], '*', '\\255\\0', '\\254', 'fate', '\\200ended') return 1";
    assert_eq!(store.cli(&["EVAL", bytes, "1", LOG]), "1");
    // It may be of no token, and is one of ours all the same.
    assert!(store.cli(&[&["XADD", LOG, "*"], good.as_slice()].concat()).contains('-'));
    tokens.extend(end_all(&one, "after", 2).await);
    let unreadable = f64::from(u32::try_from(garbage.len() + 1).unwrap());
    one.until("portcullis_revocation_entries_unreadable_total", unreadable).await;
    let late = swift(&[store.set()]).await;
    assert_eq!(late.metric("portcullis_revocation_entries_unreadable_total").await, unreadable);
    assert_dead(&[&one, &late], &tokens).await;
    assert_eq!(one.metric("portcullis_revocation_resyncs_total").await, 0.0);
    let lines = one.finish().await;
    assert_eq!(lines.iter().filter(|line| line["event"] == "revocation_entry_unreadable").count(), 1, "told once");
}

#[tokio::test]
async fn a_log_that_was_deleted_evicted_or_overwritten_is_filled_again() {
    let store = RedisServer::start("deleted", &[]).await;
    let (one, other) = (swift(&[store.set()]).await, swift(&[store.set()]).await);
    let mut tokens = end_all(&one, "before", 3).await;
    until_last(&other, &tokens).await;
    for (resyncs, command) in [(1.0, ["DEL", LOG]), (2.0, ["FLUSHALL", "SYNC"])] {
        store.cli(&command);
        for world in [&one, &other] {
            world.until("portcullis_revocation_resyncs_total", resyncs).await;
        }
        tokens.extend(end_all(&other, command[0], 2).await);
        settled(&[&one, &other]).await;
    }
    // Another log, which has something else in the very place up to which this one was read.
    let end = store.cli(&["XREVRANGE", LOG, "+", "-", "COUNT", "1"]);
    let replace = "redis.call('DEL', KEYS[1]) return redis.call('XADD', KEYS[1], ARGV[1], 'a', 'b')";
    let place = end.lines().next().unwrap();
    assert_eq!(store.cli(&["EVAL", replace, "1", LOG, place]), place);
    for world in [&one, &other] {
        world.until("portcullis_revocation_resyncs_total", 3.0).await;
    }
    settled(&[&one, &other]).await;
    store.cli(&["DEL", LOG]);
    assert_eq!(store.cli(&["SET", LOG, "no log"]), "OK");
    for world in [&one, &other] {
        world.until("portcullis_revocation_store_away", 1.0).await;
        assert_eq!(world.send(&terminate("refused")).await.status, 503);
    }
    store.cli(&["DEL", LOG]);
    settled(&[&one, &other]).await;
    tokens.extend(end_all(&other, "after", 2).await);
    let late = swift(&[store.set()]).await;
    assert_dead(&[&one, &other, &late], &tokens).await;
    let whys = whys(one).await;
    assert!(whys.iter().any(|why| why.contains("WRONGTYPE")), "{whys:?}");
}

#[tokio::test]
async fn a_key_that_is_none_is_named_and_set_anew_once_it_is_deleted() {
    let store = RedisServer::start("no-key", &[]).await;
    let address = Relay::to(store.port).await;
    let one = swift(&[address.set()]).await;
    let mut tokens = end_all(&one, "before", 2).await;
    let key = store.cli(&["GET", KEY]);
    assert_eq!(store.cli(&["SET", KEY, "garbage"]), "OK");
    // Whoever has the key needs it no more; whoever comes anew must not make up one.
    tokens.extend(end_all(&one, "meanwhile", 2).await);
    let pam = terminating_pam().await;
    let late = World::with_pam("config/wallet.toml", &[&store.set()], pam).await;
    until_told(&late, "revocation_store_away").await;
    assert_eq!(late.send(&debit(&tokens[0])).await.status, 503);
    address.cut();
    until_told(&one, "revocation_store_away").await;
    assert_eq!(store.cli(&["DEL", KEY]), "1");
    settled(&[&one, &late]).await;
    assert_dead(&[&one, &late], &tokens).await;
    tokens.extend(end_all(&late, "after", 2).await);
    assert_dead(&[&one, &late], &tokens).await;
    // Which of the two set it first does not matter: each knows the other's.
    assert_eq!(store.cli(&["GET", KEY]).len(), key.len());
    let whys = whys(late).await;
    assert!(whys[0].contains(KEY) && whys[0].contains("delete it"), "{whys:?}");
}

#[tokio::test]
async fn deployments_of_different_prefixes_do_not_see_each_other() {
    let store = RedisServer::start("prefixes", &[]).await;
    let prefix = "revocation.redis.prefix=casino-2".to_owned();
    let (one, other) = (swift(&[store.set()]).await, swift(&[store.set(), prefix]).await);
    let here = end_all(&one, "here", 2).await;
    let there = end_all(&other, "there", 2).await;
    settled(&[&one, &other]).await;
    assert_dead(&[&one], &here).await;
    assert_dead(&[&other], &there).await;
    assert_eq!(one.send(&debit(&there[1])).await.status, 200);
    assert_eq!(other.send(&debit(&here[1])).await.status, 200);
    assert_eq!(store.cli(&["EXISTS", LOG, KEY, "{casino-2}:log", "{casino-2}:key"]), "4");
}

#[tokio::test]
async fn a_store_whose_clock_was_far_ahead_once_changes_nothing() {
    let store = RedisServer::start("ahead", &[]).await;
    // The ids of what is added from now on are those of a time three days from now.
    let ahead = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + Duration::from_secs(3 * 86400);
    let id = format!("{}-0", ahead.as_millis());
    assert_eq!(store.cli(&["XADD", LOG, &id, "a", "b"]), id);
    let (one, other) = (swift(&[store.set()]).await, swift(&[store.set()]).await);
    let tokens = end_all(&one, "ahead", 5).await;
    let late = swift(&[store.set()]).await;
    assert_dead(&[&one, &other, &late], &tokens).await;
    assert_eq!(late.metric("portcullis_revocations_live").await, 5.0);
    let end = store.cli(&["XREVRANGE", LOG, "+", "-", "COUNT", "1"]);
    assert!(end.starts_with(&ahead.as_millis().to_string()), "{end}");
}

// threat: F1
#[tokio::test]
async fn a_network_that_cuts_connections_anywhere_loses_nothing_that_was_released() {
    let store = RedisServer::start("rough", &[]).await;
    let (road, lane) = (Relay::to(store.port).await, Relay::to(store.port).await);
    let (one, other) = (swift(&[road.set()]).await, swift(&[lane.set()]).await);
    for relay in [&road, &lane] {
        relay.rough(6000);
    }
    let load = Load::start(&[&one, &other]);
    let often = async {
        while road.connections() < 24 || lane.connections() < 24 {
            breath().await;
        }
    };
    timeout(PATIENCE, often).await.expect("nothing is cut");
    let tokens = load.stop().await;
    for relay in [&road, &lane] {
        relay.fair();
        relay.cut();
    }
    settled(&[&one, &other]).await;
    let late = swift(&[store.set()]).await;
    assert!(tokens.len() > 10, "{}", tokens.len());
    assert_dead(&[&one, &other, &late], &tokens).await;
}

#[tokio::test]
async fn a_store_that_hangs_anywhere_is_away_and_comes_back() {
    let store = RedisServer::start("still", &[]).await;
    let other = swift(&[store.set()]).await;
    // In what is said before the first command, between commands, within an entry, and while all is well.
    let hanging = async |bytes: Option<usize>| {
        let relay = Relay::to(store.port).await;
        let world = swift(&[relay.set()]).await;
        let name = format!("after-{}", bytes.unwrap_or_default());
        let mut tokens = end_all(&world, &format!("before-{name}"), 3).await;
        relay.still_after(bytes.unwrap_or_default());
        if bytes.is_some() {
            relay.cut();
        }
        world.until("portcullis_revocation_store_away", 1.0).await;
        assert_eq!(world.send(&terminate("refused")).await.status, 503, "{bytes:?}");
        tokens.extend(end_all(&other, &format!("meanwhile-{name}"), 1).await);
        relay.fair();
        relay.cut();
        world.until("portcullis_revocation_store_away", 0.0).await;
        tokens.extend(end_all(&world, &name, 1).await);
        settled(&[&world, &other]).await;
        assert_dead(&[&world, &other], &tokens).await;
        assert_eq!(world.metric("portcullis_revocation_resyncs_total").await, 0.0);
    };
    tokio::join!(hanging(None), hanging(Some(0)), hanging(Some(40)), hanging(Some(150)), hanging(Some(400)));
}

// threat: F1
#[tokio::test]
async fn a_replica_that_was_halted_lets_nothing_through_before_it_has_caught_up() {
    let store = RedisServer::start("halted", &[]).await;
    let other = swift(&[store.set()]).await;
    let pam = terminating_pam().await;
    let set = store.set();
    let refuse = "revocation.on_outage={ check = \"refuse\", retire = \"refuse\" }";
    let more = ["--set", &set, "--set", refuse, "--set", "revocation.redis.timeout=100ms"];
    // What is known counts as fresh for two heartbeats of 250 ms and this.
    let fresh = Duration::from_millis(600);
    let halting = async |name: &str| {
        let halted = Running::start("config/wallet.toml", &pam.address.to_string(), &more);
        let passes = async { while halted.send(&debit("alive")).await != 200 {} };
        timeout(PATIENCE, passes).await.expect("it was never ready");
        halted.signal("STOP");
        let since = Instant::now();
        let mut ended = Vec::new();
        while since.elapsed() <= fresh {
            ended.extend(end_all(&other, &format!("{name}-{}", ended.len()), 1).await);
        }
        halted.signal("CONT");
        // With `check = "local"` the first of these may pass: what a process knows when it goes on is what it knew when it
        // was halted, until the first answer of the store, one round trip later. With "refuse", none does.
        let mut seen = Vec::new();
        let dead = async {
            while seen.last() != Some(&401) {
                seen.push(halted.send(&debit(ended.last().unwrap())).await);
            }
        };
        timeout(PATIENCE, dead).await.expect("it never caught up");
        assert!(seen.iter().all(|status| [401, 503].contains(status)), "{seen:?}");
        let passes = async { while halted.send(&debit("alive")).await != 200 {} };
        timeout(PATIENCE, passes).await.expect("it did not come back");
    };
    tokio::join!(halting("one"), halting("two"), halting("three"), halting("four"));
}

#[tokio::test]
async fn an_answer_of_the_store_that_comes_late_makes_nothing_fresh() {
    let store = RedisServer::start("stale", &[]).await;
    let relay = Relay::to(store.port).await;
    let set = relay.set();
    let refuse = "revocation.on_outage={ check = \"refuse\", retire = \"refuse\" }";
    let set = [set.as_str(), refuse, "revocation.redis.timeout=500ms"];
    let world = World::with_pam("config/wallet.toml", &set, terminating_pam().await).await;
    ready(&world).await;
    let other = swift(&[store.set()]).await;
    assert_eq!(world.send(&debit("alive")).await.status, 200);
    // One connection asked for the key that replicas share; of the two that came then, one reads and one writes. After a
    // heartbeat of 250 ms it is told that there is nothing new, and hears it only after this token has ended.
    relay.mute(2);
    let since = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ended = end_all(&other, "meanwhile", 1).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    relay.mute_after(2, "*-1\r\n".len());
    // Fresh is what was asked for two heartbeats and the timeout ago.
    tokio::time::sleep(Duration::from_millis(1001).saturating_sub(since.elapsed())).await;
    let status = world.send(&debit(&ended[0])).await.status;
    assert!([401, 503].contains(&status), "{status}");
    relay.fair();
    assert_dead(&[&world], &ended).await;
}

/// A replica without its proxy, whose operator can also take back an end.
struct Replica {
    revocations: Revocations,
    key: DigestKey,
    _writer: Writer,
}

impl Replica {
    async fn open(set: &[String]) -> Replica {
        let swift = "revocation.redis.timeout=300ms";
        let set: Vec<&str> = set.iter().map(String::as_str).chain([swift]).collect();
        let settings = load("config/wallet.toml", "127.0.0.1:1", &set).ok().unwrap();
        let (log, writer) = Log::start(std::io::sink()).unwrap();
        let (revocations, key) = Revocations::open(&settings.revocation, settings.digest_key, log).await.unwrap();
        timeout(PATIENCE, revocations.ready()).await.unwrap();
        Replica { revocations, key, _writer: writer }
    }

    fn digest(&self, token: &str) -> TokenDigest {
        TokenDigest::of(token.as_bytes(), &self.key)
    }

    async fn end(&self, token: &str) -> Result<(), Denial> {
        self.revocations.end(self.revocations.room()?, self.digest(token), Duration::ZERO).await
    }

    async fn pardon(&self, token: &str) -> Result<(), Denial> {
        self.revocations.pardon(self.revocations.room()?, self.digest(token)).await
    }

    async fn standing(&self, token: &str) -> Standing {
        self.revocations.standing(&self.digest(token), token.as_bytes()).await.unwrap()
    }

    async fn until(&self, token: &str, standing: Standing) {
        let reached = async {
            while self.standing(token).await != standing {
                breath().await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{token} did not become {standing:?}"));
    }

    /// Waits until it knows what others have said, and they what it had to say.
    async fn settled(&self, others: &[&Replica]) {
        let settled = async {
            while self.revocations.sharing().unwrap().unpublished != 0 || self.revocations.sharing().unwrap().away {
                breath().await;
            }
        };
        timeout(PATIENCE, settled).await.expect("it has still something to say");
        let mark = format!("mark-{}", rand::random::<u64>());
        self.end(&mark).await.unwrap();
        for other in others {
            other.until(&mark, Standing::Ended).await;
        }
    }
}

#[tokio::test]
async fn ends_and_pardons_in_quick_succession_keep_their_order_everywhere() {
    let store = RedisServer::start("order", &[]).await;
    let (one, other) = (Replica::open(&[store.set()]).await, Replica::open(&[store.set()]).await);
    for number in 0..40 {
        let (ended, pardoned) = (format!("ended-{number}"), format!("pardoned-{number}"));
        for token in [&ended, &pardoned] {
            one.end(token).await.unwrap();
            one.pardon(token).await.unwrap();
            assert_eq!(one.standing(token).await, Standing::Alive, "{token}");
        }
        one.end(&ended).await.unwrap();
        assert_eq!(one.standing(&ended).await, Standing::Ended);
        assert_eq!(one.standing(&pardoned).await, Standing::Alive);
    }
    one.settled(&[&other]).await;
    let late = Replica::open(&[store.set()]).await;
    for number in 0..40 {
        for replica in [&one, &other, &late] {
            assert_eq!(replica.standing(&format!("ended-{number}")).await, Standing::Ended, "{number}");
            assert_eq!(replica.standing(&format!("pardoned-{number}")).await, Standing::Alive, "{number}");
        }
    }
}

#[tokio::test]
async fn what_ended_and_was_pardoned_while_the_store_was_away_is_told_in_that_order() {
    let store = RedisServer::start("away-order", &[]).await;
    let folder = Folder::new("away-order");
    let relay = Relay::to(store.port).await;
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    let (one, other) = (Replica::open(&[relay.set(), journal]).await, Replica::open(&[store.set()]).await);
    relay.still_after(0);
    for number in 0..40 {
        let (ended, pardoned) = (format!("ended-{number}"), format!("pardoned-{number}"));
        one.end(&pardoned).await.unwrap();
        for token in [&ended, &pardoned] {
            one.pardon(token).await.unwrap();
        }
        one.end(&ended).await.unwrap();
    }
    relay.fair();
    relay.cut();
    one.settled(&[&other]).await;
    let late = Replica::open(&[store.set()]).await;
    for number in 0..40 {
        for replica in [&one, &other, &late] {
            assert_eq!(replica.standing(&format!("ended-{number}")).await, Standing::Ended, "{number}");
            assert_eq!(replica.standing(&format!("pardoned-{number}")).await, Standing::Alive, "{number}");
        }
    }
}

// threat: F1
#[tokio::test]
async fn what_comes_late_does_not_undo_what_was_made_after_it() {
    let store = RedisServer::start("late-pardon", &[]).await;
    let folder = Folder::new("late-pardon");
    let relay = Relay::to(store.port).await;
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    let (one, other) = (Replica::open(&[relay.set(), journal]).await, Replica::open(&[store.set()]).await);
    for token in ["anew", "once", "never", "both"] {
        other.end(token).await.unwrap();
        one.until(token, Standing::Ended).await;
    }
    relay.still_after(0);
    let cut_off = Instant::now();
    one.pardon("anew").await.unwrap();
    one.pardon("once").await.unwrap();
    one.end("both").await.unwrap();
    // The PAM ends one of them anew, at the replica that has not heard of the pardon.
    other.end("anew").await.unwrap();
    // What comes within a second is not late.
    while cut_off.elapsed() < Duration::from_millis(1500) {
        other.end("meanwhile").await.unwrap();
    }
    // The other way round: the end comes late, and somebody has taken back by then what it says.
    other.pardon("both").await.unwrap();
    relay.fair();
    relay.cut();
    one.settled(&[&other]).await;
    let late = Replica::open(&[store.set()]).await;
    for replica in [&one, &other, &late] {
        assert_eq!(replica.standing("anew").await, Standing::Ended);
        assert_eq!(replica.standing("once").await, Standing::Alive);
        assert_eq!(replica.standing("both").await, Standing::Alive);
        assert_eq!(replica.standing("never").await, Standing::Ended);
    }
}

#[tokio::test]
async fn a_log_that_lost_a_pardon_or_the_end_after_it_is_told_both_again() {
    let store = RedisServer::start("lost-pardon", &["--appendonly", "no"]).await;
    let stale = RedisServer::replica_of("lost-pardon-stale", &store, &[]).await;
    let relay = Relay::to(store.port).await;
    let (one, other) = (Replica::open(&[relay.set()]).await, Replica::open(&[relay.set()]).await);
    for token in ["pardoned", "anew", "never"] {
        one.end(token).await.unwrap();
    }
    one.pardon("anew").await.unwrap();
    one.settled(&[&other]).await;
    store.until_followed_by(&stale).await;
    assert_eq!(stale.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    // Ages are in doubt for a quarter of a second, and in doubt a token is dead.
    let ended = Instant::now();
    while ended.elapsed() < Duration::from_millis(500) {
        breath().await;
    }
    // Lost: a pardon of what the log still says has ended, and an end of what it still says is pardoned.
    one.pardon("pardoned").await.unwrap();
    one.end("anew").await.unwrap();
    one.settled(&[&other]).await;
    relay.point_to(stale.port);
    relay.cut();
    for replica in [&one, &other] {
        let noticed = async {
            while replica.revocations.sharing().unwrap().resyncs == 0 {
                breath().await;
            }
        };
        timeout(PATIENCE, noticed).await.expect("nobody noticed");
    }
    one.settled(&[&other]).await;
    other.settled(&[&one]).await;
    let late = Replica::open(&[relay.set()]).await;
    for replica in [&one, &other, &late] {
        assert_eq!(replica.standing("pardoned").await, Standing::Alive);
        assert_eq!(replica.standing("anew").await, Standing::Ended);
        assert_eq!(replica.standing("never").await, Standing::Ended);
    }
}

#[tokio::test]
async fn a_journal_knows_an_end_that_the_log_has_not_been_told_and_older_pardons_do_not_undo_it() {
    let store = RedisServer::start("journal-newer", &[]).await;
    let folder = Folder::new("journal-newer");
    let relay = Relay::to(store.port).await;
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    let set = [relay.set(), journal];
    let (one, other) = (Replica::open(&set).await, Replica::open(&[store.set()]).await);
    for token in ["anew", "pardoned"] {
        one.end(token).await.unwrap();
        other.until(token, Standing::Ended).await;
    }
    other.pardon("anew").await.unwrap();
    one.until("anew", Standing::Alive).await;
    // A journal keeps whole seconds of how long something is remembered.
    let pardoned = Instant::now();
    while pardoned.elapsed() < Duration::from_millis(2100) {
        other.end("meanwhile").await.unwrap();
    }
    relay.still_after(0);
    one.end("anew").await.unwrap();
    drop(one);
    other.pardon("pardoned").await.unwrap();
    relay.fair();
    relay.cut();
    let one = Replica::open(&set).await;
    one.settled(&[&other]).await;
    let late = Replica::open(&[store.set()]).await;
    for replica in [&one, &other, &late] {
        assert_eq!(replica.standing("anew").await, Standing::Ended);
        assert_eq!(replica.standing("pardoned").await, Standing::Alive);
    }
}

#[tokio::test]
async fn keys_of_replicas_that_began_apart_are_told_again_when_the_log_has_lost_them() {
    let store = RedisServer::start("lost-keys", &[]).await;
    let folder = Folder::new("lost-keys");
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    // It ended a token alone, under a key of its own.
    let settings = load("config/wallet.toml", "127.0.0.1:1", &[&journal]).ok().unwrap();
    let (log, _writer) = Log::start(std::io::sink()).unwrap();
    let (alone, key) = Revocations::open(&settings.revocation, DigestKey::new([9; 32]), log).await.unwrap();
    alone.end(alone.room().unwrap(), TokenDigest::of(b"alone", &key), Duration::ZERO).await.unwrap();
    drop(alone);
    let other = Replica::open(&[store.set()]).await;
    let apart = Replica::open(&[store.set(), journal]).await;
    other.until("alone", Standing::Ended).await;
    drop(apart);
    // Nobody is left whose key it is.
    store.cli(&["DEL", LOG]);
    let noticed = async {
        while other.revocations.sharing().unwrap().resyncs == 0 {
            breath().await;
        }
    };
    timeout(PATIENCE, noticed).await.expect("nobody noticed");
    other.settled(&[&other]).await;
    let late = Replica::open(&[store.set()]).await;
    assert_eq!(late.standing("alone").await, Standing::Ended);
    assert_eq!(late.standing("alive").await, Standing::Alive);
}
