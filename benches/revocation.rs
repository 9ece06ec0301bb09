//! What a token that ended costs: to check, to record, to remember.
//!
//! ```text
//! cargo bench --bench revocation
//! ```
//!
//! The figures with a store need `redis-server`; without it they are left out, and it says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::hint::black_box;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use portcullis::log::Log;
use portcullis::revocation::store::{StoreRules, Topology};
use portcullis::revocation::{Consistency, Revocations, Rules, Sharing, WhenAway};
use portcullis::secret::DigestKey;
use portcullis::token::{Standing, TokenDigest};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const MILLION: u64 = 1_000_000;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    check(&mut criterion);
    retire(&mut criterion);
    start();
    criterion.final_summary();
}

/// A look-up among a million: of tokens that ended, in an order no cache foresees, and of tokens that live.
fn check(criterion: &mut Criterion) {
    let before = resident();
    let revocations = Revocations::in_memory(2 * MILLION, DAY);
    for number in 0..MILLION {
        now(revocations.end(revocations.room().unwrap(), digest(number), Duration::ZERO)).unwrap();
    }
    assert_eq!(revocations.live().0, MILLION);
    println!("memory of a million ended tokens: {} MiB", (resident() - before) >> 20);

    let mut group = criterion.benchmark_group("check at 1,000,000 ended");
    for (name, first, expected) in [("ended", 0, Standing::Ended), ("alive", MILLION, Standing::Alive)] {
        let tokens: Vec<TokenDigest> = (0..MILLION).map(|at| digest(first + at * 7919 % MILLION)).collect();
        let mut next = tokens.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let token = next.next().unwrap();
                assert_eq!(black_box(now(revocations.standing(token, b""))), Ok(expected));
            });
        });
    }
    group.finish();
}

/// Tokens ended a second, one at a time and with many callers at once: the difference is what sharing a sync is worth.
fn retire(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let redis = RedisServer::start();
    if redis.is_none() {
        println!("without redis-server: nothing is measured with a store");
    }
    let mut group = criterion.benchmark_group("retire");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(1));
    let kinds: [(&str, bool, bool); 4] =
        [("memory", false, false), ("journal", true, false), ("redis", false, true), ("journal and redis", true, true)];
    for (kind, to_disk, to_store) in kinds.into_iter().filter(|(_, _, to_store)| redis.is_some() || !to_store) {
        for (callers, name) in [(1, "one at a time"), (256, "256 at once")] {
            let rules = Rules {
                keep: DAY,
                capacity: 20 * MILLION,
                journal: to_disk.then(|| folder(&format!("{kind}-{callers}"))),
                salvage: false,
                learn: None,
                sharing: redis.as_ref().filter(|_| to_store).map(RedisServer::sharing),
            };
            let (log, _writer) = Log::start(std::io::sink()).unwrap();
            let opened = runtime.block_on(Revocations::open(&rules, DigestKey::new([1; 32]), log)).unwrap();
            let revocations = Arc::new(opened.0);
            runtime.block_on(revocations.ready());
            group.bench_function(format!("{kind}, {name}"), |bencher| {
                bencher.iter_custom(|count| runtime.block_on(ended(&revocations, count, callers)));
            });
            drop(revocations);
        }
    }
    group.finish();
}

async fn ended(revocations: &Arc<Revocations>, count: u64, callers: u64) -> Duration {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (revocations, share) = (Arc::clone(revocations), count / callers + u64::from(caller < count % callers));
        tasks.spawn(async move {
            for _ in 0..share {
                let room = revocations.room().unwrap();
                revocations.end(room, TokenDigest::from_bytes(rand::random()), Duration::ZERO).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    start.elapsed()
}

/// Beginning with a million tokens out of a journal, and out of the log in the store.
fn start() {
    let runtime = Runtime::new().unwrap();
    let rules = Rules {
        keep: DAY,
        capacity: 2 * MILLION,
        journal: Some(folder("start")),
        salvage: false,
        learn: None,
        sharing: None,
    };
    let open = |rules: &Rules| {
        let (log, _writer) = Log::start(std::io::sink()).unwrap();
        runtime.block_on(async {
            let began = Instant::now();
            let revocations = Revocations::open(rules, DigestKey::new([1; 32]), log).await.unwrap().0;
            revocations.ready().await;
            (began.elapsed(), Arc::new(revocations))
        })
    };
    let (_, revocations) = open(&rules);
    runtime.block_on(ended(&revocations, MILLION, 4096));
    drop(revocations);
    let (took, revocations) = open(&rules);
    assert_eq!(revocations.live().0, MILLION);
    println!("start with a million tokens in the journal: {:.1} s", took.as_secs_f64());
    if let Some(redis) = RedisServer::start() {
        let shared = Rules { sharing: Some(redis.sharing()), ..rules.clone() };
        drop(revocations);
        // Publishes what the journal has.
        let began = Instant::now();
        let (_, revocations) = open(&shared);
        while revocations.sharing().unwrap().unpublished > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("publishing a million tokens of a journal: {:.1} s", began.elapsed().as_secs_f64());
        drop(revocations);
        let (took, revocations) = open(&Rules { journal: None, ..shared });
        assert_eq!(revocations.live().0, MILLION);
        println!("start with a million tokens in the log: {:.1} s", took.as_secs_f64());
    }
}

/// A future that does not wait for anything.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("this should not wait"),
    }
}

fn digest(number: u64) -> TokenDigest {
    // Spread as digests are.
    let mixed = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    TokenDigest::from_bytes(mixed.to_le_bytes())
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("portcullis-bench-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// Bytes of memory this process has.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A server that syncs what it is given, as one that is trusted with this should.
struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    fn start() -> Option<RedisServer> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = folder(&format!("redis-{port}"));
        std::fs::create_dir_all(&path).unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--appendonly", "yes", "--appendfsync", "everysec"]);
        let child = command.current_dir(path).stdin(Stdio::null()).stdout(Stdio::null()).spawn().ok()?;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {}
        Some(RedisServer { child, port })
    }

    fn sharing(&self) -> Sharing {
        Sharing {
            store: StoreRules {
                nodes: vec![("127.0.0.1".to_owned(), self.port)],
                topology: Topology::Single,
                tls: None,
                user: None,
                password: None,
                database: 0,
            },
            prefix: "bench".to_owned(),
            timeout: Duration::from_secs(5),
            consistency: Consistency::Follow,
            check: WhenAway::Local,
            retire_to_journal: false,
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
