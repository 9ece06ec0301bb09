//! Dead stays dead when the store fails over: behind Sentinels, in a cluster, and when the log loses what it had taken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use crate::redis_server::{Cluster, RedisServer, Watched};
use crate::relay::Relay;
use crate::sharing::{debit, ready, terminate, terminating_pam, until_status};
use crate::world::{Connection, PATIENCE, World, breath};

/// Tokens that are ended one after the other while something happens.
pub struct Load {
    done: watch::Sender<bool>,
    released: Arc<watch::Sender<usize>>,
    ending: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(worlds: &[&World]) -> Load {
        let done = watch::Sender::new(false);
        let released = Arc::new(watch::Sender::new(0));
        let ending = worlds.iter().enumerate().map(|(number, world)| {
            tokio::spawn(Load::end(number, world.address, done.subscribe(), Arc::clone(&released)))
        });
        Load { ending: ending.collect(), done, released }
    }

    async fn end(
        number: usize,
        address: SocketAddr,
        done: watch::Receiver<bool>,
        released: Arc<watch::Sender<usize>>,
    ) -> Vec<String> {
        let mut connection = Connection::to(address).await;
        let mut ended = Vec::new();
        let mut pace = interval(Duration::from_millis(10));
        while !*done.borrow() {
            pace.tick().await;
            let token = format!("load-{number}-{}", rand::random::<u64>());
            if connection.send(&terminate(&token)).await.status == 200 {
                ended.push(token);
                released.send_modify(|released| *released += 1);
            }
        }
        ended
    }

    /// Waits until so many more answers were released.
    pub async fn goes_on(&self, more: usize) {
        let enough = *self.released.borrow() + more;
        let mut released = self.released.subscribe();
        timeout(PATIENCE, released.wait_for(|released| *released >= enough))
            .await
            .expect("nothing ends any more")
            .unwrap();
    }

    /// The tokens whose ends were released.
    pub async fn stop(self) -> Vec<String> {
        self.done.send_replace(true);
        let mut tokens = Vec::new();
        for ending in self.ending {
            tokens.extend(ending.await.unwrap());
        }
        tokens
    }
}

/// Each of these tokens, and no other, is dead at each of the replicas.
pub async fn assert_dead(worlds: &[&World], tokens: &[String]) {
    for world in worlds {
        let mut connection = world.connect().await;
        for token in tokens {
            let dead = async {
                while connection.send(&debit(token)).await.status != 401 {
                    breath().await;
                }
            };
            timeout(PATIENCE, dead).await.unwrap_or_else(|_| panic!("{token} of {} lives", tokens.len()));
        }
        for number in 0..20 {
            assert_eq!(connection.send(&debit(&format!("alive-{number}"))).await.status, 200);
        }
    }
}

/// Ends so many tokens, one after the other. One that the store did not take in time is not among them.
pub async fn end_all(world: &World, name: &str, count: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    let ending = async {
        for number in 0.. {
            let token = format!("{name}-{number}");
            if world.send(&terminate(&token)).await.status == 200 {
                tokens.push(token);
            }
            if tokens.len() == count {
                break;
            }
        }
    };
    timeout(PATIENCE, ending).await.unwrap_or_else(|_| panic!("no token {name} can be ended"));
    tokens
}

/// Waits until the last of these is dead here.
pub async fn until_last(world: &World, tokens: &[String]) {
    let last = tokens.last().unwrap();
    until_status(world, || debit(last), 401).await;
}

/// A replica in this process that has read the log. Its store counts as away soon.
pub async fn swift(set: &[String]) -> World {
    let set: Vec<&str> = set.iter().map(String::as_str).chain(["revocation.redis.timeout=300ms"]).collect();
    let world = World::with_pam("config/wallet.toml", &set, terminating_pam().await).await;
    ready(&world).await;
    world
}

/// What replicas had to say stands in the log, and they follow it.
pub async fn settled(worlds: &[&World]) {
    for world in worlds {
        world.until("portcullis_revocation_store_away", 0.0).await;
        world.until("portcullis_revocations_unpublished", 0.0).await;
    }
}

pub async fn resynced(world: &World) {
    let resynced = async {
        while world.metric("portcullis_revocation_resyncs_total").await == 0.0 {
            breath().await;
        }
    };
    timeout(PATIENCE, resynced).await.expect("nobody noticed that the log has lost entries");
}

// threat: F1
#[tokio::test]
async fn behind_sentinels_nothing_released_is_lost_when_the_master_is_killed() {
    let mut store = Watched::start("sentinel-kill", 2, &[]).await;
    let (one, other) = (swift(&store.set()).await, swift(&store.set()).await);
    let load = Load::start(&[&one, &other]);
    load.goes_on(20).await;
    store.servers[0].kill();
    one.until("portcullis_revocation_store_away", 1.0).await;
    load.goes_on(20).await;
    let tokens = load.stop().await;
    settled(&[&one, &other]).await;
    let third = swift(&store.set()).await;
    assert_dead(&[&one, &other, &third], &tokens).await;
}

#[tokio::test]
async fn behind_sentinels_a_promoted_replica_that_lacked_entries_is_told_them_again() {
    let mut store = Watched::start("sentinel-behind", 1, &[]).await;
    let (one, other) = (swift(&store.set()).await, swift(&store.set()).await);
    let mut tokens = end_all(&one, "kept", 5).await;
    store.servers[0].until_followed_by(&store.servers[1]).await;
    store.servers[0].leave_behind(&store.servers[1]).await;
    tokens.extend(end_all(&one, "lost", 5).await);
    until_last(&other, &tokens).await;
    store.servers[0].kill();
    for world in [&one, &other] {
        resynced(world).await;
    }
    settled(&[&one, &other]).await;
    let third = swift(&store.set()).await;
    assert_dead(&[&one, &other, &third], &tokens).await;
    assert!(store.servers[1].log_length() >= 10);
}

#[tokio::test]
async fn a_log_that_lost_its_end_and_went_on_elsewhere_is_told_again_what_it_lost() {
    let mut old = RedisServer::start("went-on-old", &[]).await;
    let new = RedisServer::replica_of("went-on-new", &old, &[]).await;
    let address = Relay::to(old.port).await;
    let (one, other) = (swift(&[address.set()]).await, swift(&[address.set()]).await);
    let mut tokens = end_all(&one, "kept", 5).await;
    old.until_followed_by(&new).await;
    assert_eq!(new.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    tokens.extend(end_all(&one, "lost", 5).await);
    until_last(&other, &tokens).await;
    // Entries of a replica that was sooner than these two, with higher ids than what was lost.
    let sooner = swift(&[new.set()]).await;
    tokens.extend(end_all(&sooner, "new", 5).await);
    old.kill();
    address.point_to(new.port);
    for world in [&one, &other] {
        resynced(world).await;
    }
    settled(&[&one, &other, &sooner]).await;
    assert_eq!(sooner.metric("portcullis_revocation_resyncs_total").await, 0.0);
    let late = swift(&[address.set()]).await;
    assert_dead(&[&one, &other, &sooner, &late], &tokens).await;
}

#[tokio::test]
async fn a_master_that_is_made_a_replica_under_a_standing_connection_loses_nothing_for_good() {
    let old = RedisServer::start("demoted-old", &[]).await;
    let new = RedisServer::replica_of("demoted-new", &old, &[]).await;
    let (one, other) = (swift(&[old.set()]).await, swift(&[old.set()]).await);
    let mut tokens = end_all(&one, "kept", 5).await;
    old.until_followed_by(&new).await;
    // Two masters: whoever was cut off from the other goes on taking what it is given.
    assert_eq!(new.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    tokens.extend(end_all(&one, "lost", 5).await);
    until_last(&other, &tokens).await;
    let sooner = swift(&[new.set()]).await;
    tokens.extend(end_all(&sooner, "new", 5).await);
    assert_eq!(old.cli(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]), "OK");
    for world in [&one, &other] {
        // It is not to be written to any more, so nothing must end that it could not be told.
        world.until("portcullis_revocation_store_away", 1.0).await;
    }
    old.until(&["INFO", "replication"], "master_link_status:up").await;
    assert_eq!(old.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    for world in [&one, &other] {
        resynced(world).await;
    }
    settled(&[&one, &other]).await;
    let late = swift(&[old.set()]).await;
    assert_dead(&[&one, &other, &late], &tokens).await;
}

#[tokio::test]
async fn what_was_taken_and_never_read_back_is_noticed_when_it_is_lost() {
    let store = RedisServer::start("never-read", &[]).await;
    let address = Relay::to(store.port).await;
    let set = address.set();
    let world = World::with_pam("config/wallet.toml", &[&set], terminating_pam().await).await;
    ready(&world).await;
    let mut tokens = end_all(&world, "seen", 1).await;
    settled(&[&world]).await;
    // One connection asked for the key that replicas share; of the two that came then, one reads and one writes.
    assert_eq!(address.connections(), 3);
    address.mute(2);
    store.until(&["INFO", "clients"], "blocked_clients:0").await;
    tokens.extend(end_all(&world, "taken", 1).await);
    // The end of the log is gone, and the place up to which it was read is still there.
    let end = store.cli(&["XREVRANGE", "{portcullis}:log", "+", "-", "COUNT", "1"]);
    assert_eq!(store.cli(&["XDEL", "{portcullis}:log", end.lines().next().unwrap()]), "1");
    address.fair();
    world.until("portcullis_revocation_resyncs_total", 1.0).await;
    settled(&[&world]).await;
    let late = swift(&[store.set()]).await;
    assert_dead(&[&world, &late], &tokens).await;
}

// threat: F1
#[tokio::test]
async fn in_a_cluster_nothing_released_is_lost_when_the_node_that_has_the_log_is_killed() {
    let mut store = Cluster::start("cluster-kill", &[]).await;
    let (one, other) = (swift(&store.set()).await, swift(&store.set()).await);
    let load = Load::start(&[&one, &other]);
    load.goes_on(20).await;
    store.nodes[0].kill();
    one.until("portcullis_revocation_store_away", 1.0).await;
    load.goes_on(20).await;
    let tokens = load.stop().await;
    settled(&[&one, &other]).await;
    let third = swift(&store.set()).await;
    assert_dead(&[&one, &other, &third], &tokens).await;
}

#[tokio::test]
async fn in_a_cluster_a_log_that_was_rolled_back_without_a_broken_connection_is_noticed() {
    let store = Cluster::start("cluster-behind", &[]).await;
    let (owner, replica) = (&store.nodes[0], &store.nodes[3]);
    let (one, other) = (swift(&store.set()).await, swift(&store.set()).await);
    let mut tokens = end_all(&one, "kept", 5).await;
    owner.until_followed_by(replica).await;
    owner.leave_behind(replica).await;
    tokens.extend(end_all(&one, "lost", 5).await);
    until_last(&other, &tokens).await;
    // It takes the slots without asking anyone. The owner lives, learns of it, and forgets what only it had.
    assert_eq!(replica.cli(&["CLUSTER", "FAILOVER", "TAKEOVER"]), "OK");
    for world in [&one, &other] {
        resynced(world).await;
    }
    settled(&[&one, &other]).await;
    tokens.extend(end_all(&other, "new", 5).await);
    let third = swift(&store.set()).await;
    assert_dead(&[&one, &other, &third], &tokens).await;
}

#[tokio::test]
async fn in_a_cluster_the_log_moves_to_another_node_and_nothing_is_lost() {
    let store = Cluster::start("cluster-move", &[]).await;
    let (one, other) = (swift(&store.set()).await, swift(&store.set()).await);
    let load = Load::start(&[&one, &other]);
    load.goes_on(20).await;
    store.move_log_halfway();
    load.goes_on(20).await;
    store.move_log_for_good();
    load.goes_on(20).await;
    let tokens = load.stop().await;
    settled(&[&one, &other]).await;
    let third = swift(&store.set()).await;
    assert_dead(&[&one, &other, &third], &tokens).await;
    assert_eq!(one.metric("portcullis_revocation_resyncs_total").await, 0.0, "moved is not lost");
}
