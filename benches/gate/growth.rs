//! What a request costs as everything around it grows.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use portcullis::token::TokenDigest;

use crate::call::Call;
use crate::cases::{ALIVE, long_body, wallet_body};
use crate::scene::Scene;

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("growth");
    callers(&mut group);
    keys(&mut group);
    routes(&mut group);
    tokens(&mut group);
    fields(&mut group);
    bodies(&mut group);
    group.finish();
}

/// The last of many callers, found by its user, by the key it names, and by trying whose secret matches.
fn callers(group: &mut BenchmarkGroup<'_, WallTime>) {
    for count in [1, 100, 10_000] {
        let last = count - 1;
        let caller =
            |at| format!("basic = {{ username = \"user-{at}\", password = {{ env = \"P{at}\" }} }}\n{}", key(at));
        measured(group, "callers, by user", count, || {
            let scene = scene("wallet", "", count, &caller);
            let call = debit().authorized(&scene, last).signed(&scene, last);
            (scene, call)
        });
        let caller = |at| format!("key_id = \"operator-{at}\"\n{}", key(at));
        measured(group, "callers, by key id", count, || {
            let scene = scene("betstack", "base_path = \"/pam\"\n", count, &caller);
            let body = format!(r#"{{"action":"ticket_create","data":{{"operator":"operator-{last}","amount":250}}}}"#);
            let call = Call::new("POST /pam").json(body).signed(&scene, last);
            (scene, call)
        });
    }
    for count in [1, 10, 100] {
        measured(group, "callers, by whose secret matches", count, || {
            let dialect = repository().join("tests/vectors/dialects/github.toml");
            let scene = scene(&dialect.display().to_string(), "", count, &key);
            let call = Call::new("POST /").json(wallet_body(ALIVE)).signed(&scene, count - 1);
            (scene, call)
        });
    }
}

/// A caller's signing keys: all are tried, so that time does not tell which it was.
fn keys(group: &mut BenchmarkGroup<'_, WallTime>) {
    for count in [1, 2, 4] {
        measured(group, "signing keys of the caller", count, || {
            let keys: Vec<_> =
                (0..count).map(|at| format!("{{ id = \"{at}\", key = {{ env = \"K{at}\" }} }}")).collect();
            let basic = "basic = { username = \"user\", password = { env = \"P\" } }";
            let scene = scene("wallet", "", 1, &|_| format!("{basic}\nsigning = [{}]\n", keys.join(", ")));
            let call = debit().authorized(&scene, 0).signed(&scene, 0);
            (scene, call)
        });
    }
}

/// The last of many routes, found by its path, and by what the body says.
fn routes(group: &mut BenchmarkGroup<'_, WallTime>) {
    for count in [10, 100, 1_000] {
        let last = count - 1;
        measured(group, "routes, by path", count, || {
            let caller = "basic = { username = \"user\", password = { env = \"P\" } }\n";
            let dialect = dialect("wallet", count, &|at| format!("match = \"POST /api/wallet/op-{at}\"\n"));
            let scene = scene(&dialect, "", 1, &|at| format!("{caller}{}", key(at)));
            let call = Call::new(&format!("POST /api/wallet/op-{last}")).json(wallet_body(ALIVE));
            let call = call.authorized(&scene, 0).signed(&scene, 0);
            (scene, call)
        });
        measured(group, "routes, by action", count, || {
            let route = |at| format!("match = \"POST /\"\nwhen = {{ \"/action\" = \"op-{at}\" }}\ntoken = false\n");
            let dialect = dialect("betstack", count, &route);
            let scene = scene(&dialect, "base_path = \"/pam\"\n", 1, &|at| format!("key_id = \"o\"\n{}", key(at)));
            let body = format!(r#"{{"action":"op-{last}","data":{{"operator":"o","amount":250}}}}"#);
            let call = Call::new("POST /pam").json(body).signed(&scene, 0);
            (scene, call)
        });
    }
}

/// Tokens that have ended, none of them that of the request.
fn tokens(group: &mut BenchmarkGroup<'_, WallTime>) {
    for count in [0, 1_000_000, 10_000_000] {
        measured(group, "dead tokens", count, || {
            let scene = Scene::of("config/wallet.toml");
            (0..count).for_each(|number| scene.end(spread(number)));
            let call = debit().authorized(&scene, 0).signed(&scene, 0);
            (scene, call)
        });
    }
}

/// Header fields that no check asks for.
fn fields(group: &mut BenchmarkGroup<'_, WallTime>) {
    for count in [0, 20, 80] {
        measured(group, "other header fields", count, || {
            let scene = Scene::of("config/wallet.toml");
            let call = debit().authorized(&scene, 0).signed(&scene, 0);
            let call = (0..count).fold(call, |call, at| call.with(&format!("X-Other-{at}"), "some value of a length"));
            (scene, call)
        });
    }
}

/// Bytes of a body, of which each is signed and read.
fn bodies(group: &mut BenchmarkGroup<'_, WallTime>) {
    for length in [128, 1 << 10, 8 << 10, 64 << 10] {
        group.throughput(Throughput::Bytes(length as u64));
        measured(group, "bytes of a body", length, || {
            let scene = Scene::of("config/wallet.toml");
            let body = if length == 128 { wallet_body(ALIVE) } else { long_body(length) };
            let call = Call::new("POST /api/wallet/debit").json(body).authorized(&scene, 0).signed(&scene, 0);
            (scene, call)
        });
    }
}

/// What is measured is made only when it is asked for: ten million tokens take a moment and 4 GB.
fn measured(group: &mut BenchmarkGroup<'_, WallTime>, what: &str, count: usize, make: impl Fn() -> (Scene, Call)) {
    let mut made = None;
    group.bench_function(BenchmarkId::new(what, count), |bencher| {
        let (scene, request) = made.get_or_insert_with(|| {
            let (scene, call) = make();
            (scene, call.sent())
        });
        bencher.iter(|| assert!(black_box(scene.judge(black_box(request))).is_ok()));
    });
}

fn debit() -> Call {
    Call::new("POST /api/wallet/debit").json(wallet_body(ALIVE))
}

fn key(at: usize) -> String {
    format!("signing = [{{ id = \"one\", key = {{ env = \"K{at}\" }} }}]\n")
}

/// A config with so many callers, each with what `caller` says of it.
fn scene(dialect: &str, more: &str, count: usize, caller: &dyn Fn(usize) -> String) -> Scene {
    let callers: String = (0..count).map(|at| format!("[[caller]]\nname = \"caller-{at}\"\n{}", caller(at))).collect();
    let addresses = "listen = \"127.0.0.1:8080\"\nupstream = \"127.0.0.1:9000\"";
    let text = format!("dialect = \"{dialect}\"\n{more}{addresses}\n{callers}");
    Scene::of_text(&text, &repository().join("config.toml"))
}

/// The path of a dialect file like one of those that are built in, with other routes.
fn dialect(like: &str, count: usize, route: &dyn Fn(usize) -> String) -> String {
    let text = std::fs::read_to_string(repository().join(format!("config/dialects/{like}.toml"))).unwrap();
    let (start, rest) = text.split_once("[[route]]").unwrap();
    let (_, reply) = rest.split_once("[reply]").unwrap();
    let routes: String = (0..count).map(|at| format!("[[route]]\nname = \"op-{at}\"\n{}\n", route(at))).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("growth-{like}-{count}.toml"));
    std::fs::write(&path, format!("{start}{routes}[reply]{reply}")).unwrap();
    path.display().to_string()
}

fn spread(number: usize) -> TokenDigest {
    // As digests are.
    let mixed = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    TokenDigest::from_bytes(mixed.to_le_bytes())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
