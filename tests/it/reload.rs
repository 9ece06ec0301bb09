//! Config, dialect and secrets change while it runs: as one generation, or not at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::binary::{Running, portcullis};
use crate::certificates::Authority;
use crate::world::{
    Connection, Folder, GOOD, H2Connection, PATIENCE, Pam, Request, answer, basic, betstack, breath, hmac_sha256_hex,
    now, root, wallet,
};

const CONFIG: &str = r#"
dialect = "wallet"
listen = "127.0.0.1:8080"
upstream = "127.0.0.1:9000"

[[caller]]
name = "fantasy-goal"
basic = { username = "fantasy-goal", password = { env = "WALLET_PASSWORD" } }
signing = [ { id = "first", key = { file = "first.key" } } ]
"#;

/// With a second key in front of the first.
const ROTATING: &str =
    r#"signing = [ { id = "second", key = { file = "second.key" } }, { id = "first", key = { file = "first.key" } } ]"#;

const FIRST_ALONE: &str = r#"signing = [ { id = "first", key = { file = "first.key" } } ]"#;

/// A folder with a config and its secrets.
struct Source(Folder);

impl Source {
    fn new(name: &str) -> Source {
        let folder = Folder::new(name);
        let source = Source(folder);
        source.write("first.key", "first-key-of-the-wallet");
        source.write("second.key", "second-key-of-the-wallet");
        source.write("config.toml", CONFIG);
        source
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As Kubernetes does it, and whoever is careful: nobody sees half of it.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("half"), text).unwrap();
        fs::rename(self.path("half"), self.path(name)).unwrap();
    }

    fn start(&self, pam: &Pam) -> Running {
        Running::start(self.path("config.toml").to_str().unwrap(), &pam.address.to_string(), &[])
    }
}

fn signed_by(key: &str, token: &str) -> Request {
    let body = wallet::body(token);
    Request::new("POST", "/api/wallet/debit")
        .with("Content-Type", "application/json")
        .with("Authorization", &basic(wallet::USER, wallet::PASSWORD))
        .with("X-Request-Signature", &hmac_sha256_hex(key, body.as_bytes()))
        .body(body)
}

const BY_FIRST: &str = "first-key-of-the-wallet";
const BY_SECOND: &str = "second-key-of-the-wallet";

async fn good_pam() -> Pam {
    let pam = Pam::start().await;
    pam.answer_with(|_| answer(200, GOOD));
    pam
}

async fn metric(running: &Running, name: &str) -> f64 {
    let page = Connection::to(running.admin.parse().unwrap()).await.send(&Request::new("GET", "/metrics")).await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

async fn status(running: &Running) -> Value {
    Connection::to(running.admin.parse().unwrap()).await.send(&Request::new("GET", "/status")).await.json()
}

#[tokio::test]
async fn a_secret_whose_file_changes_is_in_use_and_the_old_one_is_not() {
    let (source, pam) = (Source::new("reload-secret"), good_pam().await);
    let mut running = source.start(&pam);
    assert_eq!(running.send(&signed_by(BY_FIRST, "one")).await, 200);
    assert_eq!(running.send(&signed_by(BY_SECOND, "two")).await, 401);
    source.write("first.key", BY_SECOND);
    let reloaded = running.event("config_reloaded");
    assert_eq!((&reloaded["about"]["generation"], &reloaded["about"]["callers"]), (&2.into(), &1.into()));
    assert_eq!(running.send(&signed_by(BY_FIRST, "three")).await, 401);
    assert_eq!(running.send(&signed_by(BY_SECOND, "four")).await, 200);
    assert_eq!(metric(&running, "portcullis_config_generation").await, 2.0);
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_is_told_with_line_and_column() {
    let (source, pam) = (Source::new("reload-bad"), good_pam().await);
    let mut running = source.start(&pam);
    assert_eq!(metric(&running, "portcullis_config_last_reload_successful").await, 1.0);
    source.write("config.toml", &CONFIG.replace("wallet\"\nlisten", "wallet\"\nlistne = 1\nlisten"));
    running.signal("HUP");
    let rejected = running.event("config_rejected");
    assert_eq!(rejected["level"], "error");
    assert_eq!(rejected["about"]["generation_in_use"], 1);
    let complaint = rejected["about"]["complaints"][0].as_str().unwrap();
    assert!(complaint.contains("config.toml:3:1: ") && complaint.contains("listne"), "{complaint}");
    assert_eq!(running.send(&signed_by(BY_FIRST, "one")).await, 200);
    assert_eq!(metric(&running, "portcullis_config_last_reload_successful").await, 0.0);
    assert_eq!(status(&running).await["config"]["rejected"][0], complaint);

    source.write("config.toml", CONFIG);
    assert_eq!(running.event("config_reloaded")["about"]["generation"], 2);
    assert_eq!(metric(&running, "portcullis_config_last_reload_successful").await, 1.0);
    assert_eq!(status(&running).await["config"]["rejected"], Value::Array(vec![]));
}

#[tokio::test]
async fn a_secret_that_is_gone_or_empty_opens_no_door() {
    let (source, pam) = (Source::new("reload-gone"), good_pam().await);
    let mut running = source.start(&pam);
    for round in 0..2 {
        match round {
            0 => fs::remove_file(source.path("first.key")).unwrap(),
            _ => source.write("first.key", "\n"),
        }
        running.event("config_rejected");
        assert_eq!(running.send(&signed_by(BY_FIRST, &format!("token-{round}"))).await, 200);
        assert_eq!(running.send(&signed_by("", "none")).await, 401);
    }
}

#[tokio::test]
async fn what_cannot_change_while_it_runs_is_refused_by_name() {
    let (source, pam) = (Source::new("reload-fixed"), good_pam().await);
    let mut running = source.start(&pam);
    let more = "threads = 1\n[revocation]\nkeep = \"1h\"\n[replay]\ncapacity = 5\n[[caller]]";
    source.write("config.toml", &CONFIG.replace("[[caller]]", more));
    running.signal("HUP");
    let rejected = running.event("config_rejected");
    let complaints: Vec<&str> =
        rejected["about"]["complaints"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let file = source.path("config.toml");
    let expected = [("threads", "6:1"), ("revocation", "7:2"), ("replay", "9:2")].map(|(key, place)| {
        format!(
            "{}:{place}: `{key}` cannot change while it runs; restart to change it, or take the change back",
            file.display()
        )
    });
    assert_eq!(complaints, expected);
    assert_eq!(metric(&running, "portcullis_config_generation").await, 1.0);
}

/// The password of the store cannot change while it runs, but must not hold up a caller's secret.
#[tokio::test]
async fn a_file_that_counts_after_a_restart_alone_is_told_and_holds_nothing_up() {
    let (source, pam) = (Source::new("reload-restart"), good_pam().await);
    source.write("store.password", "password-of-the-store");
    // Nobody listens there: only what is read of it matters.
    let store = "redis = { url = \"redis://127.0.0.1:1\", password = { file = \"store.password\" } }";
    let config = CONFIG
        .replace("[[caller]]", &format!("[revocation]\n{store}\non_outage = {{ check = \"local\" }}\n[[caller]]"));
    source.write("config.toml", &config);
    let mut running = source.start(&pam);
    source.write("store.password", "another-password");
    for generation in 2..4 {
        source.write("first.key", if generation == 2 { BY_SECOND } else { BY_FIRST });
        running.signal("HUP");
        assert_eq!(running.event("config_reloaded")["about"]["generation"], generation);
        assert_eq!(running.event("restart_needed")["about"]["keys"][0], "revocation");
    }
}

#[tokio::test]
async fn a_volume_that_kubernetes_swaps_is_noticed() {
    let (source, pam) = (Source::new("reload-swap"), good_pam().await);
    let volume = source.path("volume");
    let fill = |generation: &str, key: &str| {
        let folder = volume.join(generation);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.toml"), CONFIG).unwrap();
        fs::write(folder.join("first.key"), key).unwrap();
        symlink(generation, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    fill("..2026_11_21_1", BY_FIRST);
    for name in ["config.toml", "first.key"] {
        symlink(format!("..data/{name}"), volume.join(name)).unwrap();
    }
    let config = volume.join("config.toml");
    let mut running = Running::start(config.to_str().unwrap(), &pam.address.to_string(), &[]);
    assert_eq!(running.send(&signed_by(BY_FIRST, "one")).await, 200);
    fill("..2026_11_21_2", BY_SECOND);
    fs::remove_dir_all(volume.join("..2026_11_21_1")).unwrap();
    running.event("config_reloaded");
    assert_eq!(running.send(&signed_by(BY_SECOND, "two")).await, 200);
    assert_eq!(running.send(&signed_by(BY_FIRST, "three")).await, 401);
}

#[tokio::test]
async fn a_dialect_file_and_the_upstream_change_as_well() {
    let (source, pam, other) = (Source::new("reload-dialect"), good_pam().await, good_pam().await);
    let dialect = fs::read_to_string(root().join("config/dialects/wallet.toml")).unwrap();
    source.write("own.toml", &dialect);
    source.write(
        "config.toml",
        &CONFIG.replace("\"wallet\"", "\"own.toml\"").replace("127.0.0.1:9000", &pam.address.to_string()),
    );
    let config = source.path("config.toml");
    let mut command = portcullis();
    command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(&config);
    let mut running = Running::spawn(command);
    assert_eq!(running.send(&signed_by(BY_FIRST, "one")).await, 200);
    source.write("own.toml", &dialect.replace("/api/wallet/debit", "/api/wallet/withdraw"));
    running.event("config_reloaded");
    assert_eq!(running.send(&signed_by(BY_FIRST, "two")).await, 404);
    let moved = fs::read_to_string(&config).unwrap().replace(&pam.address.to_string(), &other.address.to_string());
    source.write("own.toml", &dialect);
    source.write("config.toml", &moved);
    running.event("config_reloaded");
    assert_eq!(running.send(&signed_by(BY_FIRST, "three")).await, 200);
    assert_eq!((pam.requests().len(), other.requests().len()), (1, 1));
}

#[tokio::test]
async fn what_ended_and_what_was_admitted_stays_known() {
    let (source, pam) = (Source::new("reload-known"), Pam::start().await);
    pam.answer_with(|_| answer(200, r#"{"status":true,"code":1}"#));
    let mut running = source.start(&pam);
    let ending = Request { target: "/api/wallet/terminate".to_owned(), ..signed_by(BY_FIRST, "dead") };
    assert_eq!(running.send(&ending).await, 200);
    source.write("first.key", BY_SECOND);
    running.event("config_reloaded");
    assert_eq!(running.send(&signed_by(BY_SECOND, "dead")).await, 401);
    assert_eq!(running.send(&signed_by(BY_SECOND, "alive")).await, 200);
}

const BETSTACK: &str = r#"
dialect = "betstack"
base_path = "/pam"
listen = "127.0.0.1:8080"
upstream = "127.0.0.1:9000"

[[caller]]
name = "betstack"
key_id = "operator-code"
signing = [ { id = "first", key = { file = "first.key" } } ]
"#;

// threat: D10
// threat: D15
#[tokio::test]
async fn a_copy_is_known_whichever_of_the_keys_is_the_first() {
    let (source, pam) = (Source::new("reload-replay"), good_pam().await);
    source.write("config.toml", BETSTACK);
    let mut running = source.start(&pam);
    let win = |key: &str, id: u8| {
        let body = betstack::body("ticket_win", &format!(r#","ticket_id":"{id}""#));
        betstack::signed_by(key, &body, now())
    };
    let (early, between) = (win(BY_FIRST, 1), win(BY_FIRST, 2));
    assert_eq!(verdict(&mut running, &early).await, "admitted");
    source.write("config.toml", &BETSTACK.replace(FIRST_ALONE, ROTATING));
    running.event("config_reloaded");
    assert_eq!(verdict(&mut running, &early).await, "replayed");
    assert_eq!(verdict(&mut running, &between).await, "admitted");
    let last = win(BY_SECOND, 3);
    assert_eq!(verdict(&mut running, &last).await, "admitted");
    source.write("config.toml", &BETSTACK.replace("first", "second"));
    running.event("config_reloaded");
    assert_eq!(verdict(&mut running, &last).await, "replayed");
    assert_eq!(verdict(&mut running, &early).await, "signature_wrong");
    assert_eq!(pam.requests().len(), 3);
}

// threat: D9, D10
#[tokio::test]
async fn a_wider_tolerance_lets_no_copy_in_that_was_forgotten() {
    let (source, pam) = (Source::new("reload-tolerance"), good_pam().await);
    let config = |tolerance: &str| format!("{BETSTACK}[signature]\ntolerance = \"{tolerance}\"\n");
    source.write("config.toml", &config("1s"));
    let mut running = source.start(&pam);
    let win = betstack::signed_by(BY_FIRST, &betstack::body("ticket_win", r#","ticket_id":"1""#), now());
    assert_eq!(verdict(&mut running, &win).await, "admitted");
    source.write("config.toml", &config("300s"));
    running.event("config_reloaded");
    let mut copy = "replayed".to_owned();
    while copy == "replayed" {
        copy = verdict(&mut running, &win).await;
    }
    assert_eq!(copy, "stale");
    assert_eq!(pam.requests().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_is_broken_does_not_hold_up_a_secret() {
    let (source, pam) = (Source::new("reload-certificate"), good_pam().await);
    let issued = Authority::new("reload").issue(&["localhost"]);
    source.write("tls.pem", &issued.certificate);
    source.write("tls.key", &issued.key);
    source.write("ca.pem", &Authority::new("callers").pem);
    let tls = "tls = { certificate = \"tls.pem\", key = \"tls.key\", client_ca = \"ca.pem\" }\n[[caller]]";
    source.write("config.toml", &CONFIG.replace("[[caller]]", tls));
    let mut running = source.start(&pam);
    for (name, text, event) in [
        ("tls.key", "half", "certificates_unusable"),
        ("first.key", BY_SECOND, "config_reloaded"),
        ("tls.key", &issued.key, "certificates_renewed"),
    ] {
        source.write(name, text);
        loop {
            let seen = running.next_event();
            assert_ne!(seen["event"], "config_rejected", "{name}: {seen}");
            if seen["event"] == event {
                break;
            }
        }
    }
    assert_eq!(metric(&running, "portcullis_config_generation").await, 2.0);
    // Other files are read at once, and must be good.
    source.write("config.toml", &CONFIG.replace("[[caller]]", &tls.replace("ca.pem", "none.pem")));
    running.event("config_rejected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_right_is_not_put_behind_those_who_guess_because_the_config_changes() {
    let (source, pam) = (Source::new("reload-guess"), good_pam().await);
    let hashed = CONFIG.replace("password = { env = \"WALLET_PASSWORD\" }", "password_hash = { file = \"hash\" }");
    let config =
        |failures: u32| hashed.replace("[[caller]]", &format!("[limits.lockout]\nfailures = {failures}\n[[caller]]"));
    source.write("hash", &bcrypt::hash(wallet::PASSWORD, 9).unwrap());
    source.write("config.toml", &config(1));
    let mut running = source.start(&pam);
    let good = |token| signed_by(BY_FIRST, token);
    assert_eq!(running.send(&good("one")).await, 200);
    // Those who are locked out are verified one at a time, and a few more may wait.
    let wrong = good("two").replacing("Authorization", &basic(wallet::USER, "wrong"));
    let address = running.listen.parse().unwrap();
    let guessing: Vec<_> = (0..16)
        .map(|_| {
            let wrong = wrong.clone();
            tokio::spawn(async move {
                loop {
                    Connection::to(address).await.send(&wrong).await;
                }
            })
        })
        .collect();
    source.write("config.toml", &config(2));
    running.event("config_reloaded");
    let logging = running.silence();
    for token in ["three", "four"] {
        assert_eq!(running.send(&good(token)).await, 200, "{token}");
    }
    // Another hash is another password.
    source.write("hash", &bcrypt::hash("another", 4).unwrap());
    let refused = async { while running.send(&good("five")).await == 200 {} };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    guessing.iter().for_each(tokio::task::JoinHandle::abort);
    running.kill();
    logging.join().unwrap();
}

/// What the log says became of a request: the decision, or why it was refused.
async fn verdict(running: &mut Running, request: &Request) -> String {
    running.send(request).await;
    let event = running.event("request");
    event.get("reason").unwrap_or(&event["decision"]).as_str().unwrap().to_owned()
}

/// The request that is with the PAM ends by the generation it began with; the next one on the same connection is judged by
/// the next.
#[tokio::test]
async fn a_request_under_way_is_not_touched_and_its_connection_goes_on() {
    let (source, pam) = (Source::new("reload-way"), Pam::start().await);
    let mut running = source.start(&pam);
    let release = pam.hold(answer(200, GOOD));
    let address = running.listen.parse().unwrap();
    let mut one = Connection::to(address).await;
    let mut two = H2Connection::to(address).await;
    let (first, second) = (signed_by(BY_FIRST, "one"), signed_by(BY_FIRST, "two"));
    let under_way = async {
        let replies = tokio::join!(one.send(&first), two.send(&second));
        (replies.0.status, replies.1.status)
    };
    let reloading = async {
        pam.arrived(2).await;
        source.write("first.key", BY_SECOND);
        running.event("config_reloaded");
        release.send(true).unwrap();
    };
    let (statuses, ()) = tokio::join!(under_way, reloading);
    assert_eq!(statuses, (200, 200));
    for (request, status) in [(signed_by(BY_FIRST, "three"), 401), (signed_by(BY_SECOND, "four"), 200)] {
        assert_eq!(one.send(&request).await.status, status);
    }
    for (request, status) in [(signed_by(BY_FIRST, "five"), 401), (signed_by(BY_SECOND, "six"), 200)] {
        assert_eq!(two.send(&request).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_not_one_request_is_lost_or_refused_while_a_key_rotates() {
    let (source, pam) = (Source::new("reload-load"), good_pam().await);
    let mut running = source.start(&pam);
    let address = running.listen.parse().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (done, sent) = (Arc::clone(&done), Arc::clone(&sent));
            tokio::spawn(async move {
                let mut connection = Connection::to(address).await;
                let mut call = 0;
                while !done.load(Ordering::SeqCst) {
                    let reply = connection.send(&signed_by(BY_FIRST, &format!("token-{caller}-{call}"))).await;
                    assert_eq!(reply.status, 200);
                    sent.fetch_add(1, Ordering::SeqCst);
                    call += 1;
                    if call % 1000 == 0 {
                        connection = Connection::to(address).await;
                    }
                }
            })
        })
        .collect();
    for round in 0..4 {
        let before = sent.load(Ordering::SeqCst);
        let config = if round % 2 == 0 { CONFIG.replace(FIRST_ALONE, ROTATING) } else { CONFIG.to_owned() };
        source.write("config.toml", &config);
        running.signal("HUP");
        let reloaded = tokio::task::block_in_place(|| running.event("config_reloaded"));
        assert_eq!(reloaded["about"]["generation"], round + 2);
        while sent.load(Ordering::SeqCst) < before + 20 {
            breath().await;
        }
    }
    done.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(pam.requests().len(), sent.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_limit_counts_from_the_next_generation_on() {
    let (source, pam) = (Source::new("reload-limits"), good_pam().await);
    let mut running = source.start(&pam);
    assert_eq!(running.send(&signed_by(BY_FIRST, "one")).await, 200);
    source.write("config.toml", &CONFIG.replace("[[caller]]", "limits = { body = 20 }\n[[caller]]"));
    running.event("config_reloaded");
    assert_eq!(running.send(&signed_by(BY_FIRST, "two")).await, 413);
}
