//! Nothing leaks, continued: the failures that need more than a bad request, the command line, the admin address, and the
//! proof that every reason to refuse is driven by a test that searches what came out.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use portcullis::denial::Denial;
use portcullis::proxy::{Sent, Serve};
use portcullis::request::{Head, HeadLimits, Peer, ReplyBody};
use portcullis::tls::names::Names;
use serde_json::json;

use crate::binary::{Running, portcullis};
use crate::certificates::Authority;
use crate::leaks::{self, Outside, assert_secret};
use crate::panic::{CANARY, Faulty};
use crate::redis_server::RedisServer;
use crate::world::{
    Connection, Folder, Pam, Request, World, answer, basic, betstack, operator, root, valkyrie, wallet,
};

/// A player token that would be found in any spelling.
const TOKEN: &str = "canary+token/of-a-player=7";

/// What nobody has as a secret.
const WRONG: &str = "canary-guess-at-a-secret";

const SECRETS: [&str; 9] = [
    TOKEN,
    WRONG,
    wallet::PASSWORD,
    wallet::KEY,
    valkyrie::KEY,
    valkyrie::PASSWORD,
    betstack::SECRET,
    operator::TOKEN,
    CANARY,
];

/// What needs a fault of a machine or a race, and no test here brings about. Each line of the log is made of fixed words by
/// the same code as all others, from a `Denial` that holds nothing of a request.
const NOT_DRIVEN: [&str; 4] = ["full", "not_for_http2", "unprocessed", "write"];

/// What the tests below drive.
const DRIVEN: [&str; 32] = [
    "connect_timeout",
    "journal_failed",
    "journal_failing",
    "password_queue_full",
    "store_failed",
    "body_timeout",
    "byte_order_mark",
    "caller_elsewhere",
    "certificate_other",
    "copy_in_flight",
    "forwarded_malformed",
    "head_timeout",
    "in_flight_full",
    "internal",
    "key_control_character",
    "locked_out",
    "no_http2",
    "not_utf8",
    "rate_address",
    "rate_caller",
    "revocation_memory_full",
    "store_away",
    "timestamp_malformed",
    "tls",
    "tls_certificate",
    "too_deep",
    "too_large",
    "trailing_bytes",
    "twin_key",
    "unrepresentable",
    "credential_missing",
    "signature_wrong",
];

#[test]
fn every_reason_is_driven_by_a_test_that_searches_what_came_out() {
    let every: BTreeSet<&str> = Denial::every().map(Denial::reason).collect();
    let told: BTreeSet<&str> = leaks::driven().into_iter().chain(DRIVEN).chain(NOT_DRIVEN).collect();
    assert_eq!(every, told);
}

/// Asks a world of some config some things, and gives the reasons in its log once nothing was found.
async fn drive(world: World, requests: &[Request]) -> Vec<String> {
    let mut outside = Outside::default();
    outside.send_all(&world, requests).await;
    outside.search(world, &SECRETS, &[]).await.into_iter().collect()
}

fn debit() -> Request {
    wallet::signed("debit", &wallet::body(TOKEN))
}

#[tokio::test]
async fn no_fault_of_a_body_gives_it_away() {
    let body = wallet::body(TOKEN);
    let deep = format!("{}{body}{}", "[".repeat(70), "]".repeat(70));
    let twin = body.replace('}', &format!(r#","Token":"{TOKEN}"}}"#));
    let control = body.replace('}', &format!(r#","a\u0001":"{TOKEN}"}}"#));
    let lone = body.replace('}', &format!(r#","a":"{TOKEN}\ud800"}}"#));
    let texts = [format!("\u{feff}{body}"), deep, twin, control, lone, format!("{body}{TOKEN}")];
    let mut requests: Vec<Request> = texts.iter().map(|text| wallet::signed("debit", text)).collect();
    let not_utf8 = [TOKEN.as_bytes(), b"\xff"].concat();
    let signature = crate::world::hmac_sha256_hex(wallet::KEY, &not_utf8);
    requests.push(debit().body(not_utf8).replacing("X-Request-Signature", &signature));
    let reasons = drive(World::wallet().await, &requests).await;
    let expected = [
        "byte_order_mark",
        "key_control_character",
        "not_utf8",
        "too_deep",
        "trailing_bytes",
        "twin_key",
        "unrepresentable",
    ];
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn no_fault_of_where_it_comes_from_gives_it_away() {
    let set = ["trusted_proxies=[\"127.0.0.1\"]"];
    let world = World::of("config/wallet.toml", &set).await;
    let forwarded = debit().with("X-Forwarded-For", &format!("{TOKEN}, {WRONG}"));
    assert_eq!(drive(world, &[forwarded]).await, ["forwarded_malformed"]);

    let folder = Folder::new("canaries-from");
    let caller = |rule: &str| {
        format!("dialect = \"valkyrie\"\n{rule}\n[[caller]]\nname = \"a\"\nbearer = {{ env = \"PAM_API_TOKEN\" }}\n")
    };
    let elsewhere = folder.write("from.toml", &format!("{}from = [\"192.0.2.1\"]\n", caller("")));
    let get = || valkyrie::call("GET", "/players/session?provider=x").replacing("X-Player-Token", TOKEN);
    assert_eq!(drive(World::of(&elsewhere, &[]).await, &[get()]).await, ["caller_elsewhere"]);

    let authority = Authority::new("callers");
    let issued = authority.issue(&["localhost"]);
    folder.write("ca.pem", &authority.pem);
    let (chain, key) = (folder.write("tls.pem", &issued.certificate), folder.write("tls.key", &issued.key));
    let tls = format!(
        "tls = {{ certificate = {chain:?}, key = {key:?}, client_ca = \"ca.pem\", client_auth = \"optional\" }}"
    );
    let bound = folder.write("bound.toml", &format!("{}certificate = \"dns:a.example\"\n", caller(&tls)));
    let world = World::of(&bound, &[]).await;
    let mut connection = world
        .connect_tls(&crate::certificates::client(&authority, None, &[], &[&tokio_rustls::rustls::version::TLS13]))
        .await
        .unwrap();
    let mut outside = Outside::default();
    outside.heard.push_str(&connection.send(&get()).await.text());
    drop(connection);
    let reasons = outside.search(world, &SECRETS, &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["certificate_other"]);
}

#[tokio::test]
async fn no_fault_of_time_gives_it_away() {
    let world = World::of("config/wallet.toml", &["limits.head_timeout=100ms", "limits.body_timeout=100ms"]).await;
    let mut outside = Outside::default();
    let whole = String::from_utf8(debit().bytes()).unwrap();
    // A drip that stops within the token, and one that stops within a header's value.
    for (part, status) in [(whole.len() - 20, "408"), (60, "408")] {
        let mut connection = world.connect().await;
        connection.write(&whole.as_bytes()[..part]).await;
        let reply = String::from_utf8(connection.rest().await).unwrap();
        assert!(reply.contains(status), "{reply}");
        outside.heard.push_str(&reply);
    }
    let reasons = outside.search(world, &SECRETS, &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["body_timeout", "head_timeout"]);

    // Shorter than seconds or milliseconds can be.
    let body = betstack::body("identify", &format!(r#","token":"{TOKEN}""#));
    let malformed = betstack::signed_at(&body, 17);
    assert_eq!(drive(World::betstack().await, &[malformed]).await, ["timestamp_malformed"]);
}

#[tokio::test]
async fn nothing_that_is_full_gives_away_what_it_refuses() {
    let many = vec![debit(); 8];
    assert_eq!(
        drive(World::of("config/wallet.toml", &["limits.rate_per_address=1"]).await, &many).await,
        ["rate_address"]
    );
    assert_eq!(
        drive(World::of("config/wallet.toml", &["limits.rate_per_caller=1"]).await, &many).await,
        ["rate_caller"]
    );

    let wrong = debit().replacing("X-Request-Signature", &"0".repeat(64));
    let locking = World::of("config/wallet.toml", &["limits.lockout.failures=1"]).await;
    assert_eq!(drive(locking, &[wrong.clone(), wrong]).await, ["locked_out", "signature_wrong"]);

    let world = World::of("config/wallet.toml", &["revocation.capacity=1"]).await;
    world.pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    let end = |token: &str| wallet::signed("terminate", &wallet::body(token));
    assert_eq!(drive(world, &[end("one"), end(TOKEN)]).await, ["revocation_memory_full"]);

    let world = World::of("config/wallet.toml", &["limits.in_flight=1"]).await;
    let release = world.pam.hold(answer(200, "{}"));
    let mut first = world.connect().await;
    first.write(&wallet::signed("debit", &wallet::body("held")).bytes()).await;
    world.pam.arrived(1).await;
    let mut outside = Outside::default();
    outside.send_all(&world, &[debit()]).await;
    release.send_replace(true);
    first.reply().await;
    drop(first);
    let reasons = outside.search(world, &SECRETS, &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["in_flight_full"]);
}

#[tokio::test]
async fn a_copy_whose_first_is_with_the_pam_gives_nothing_away() {
    // An answer that begins and does not end, for longer than a copy waits for what comes of the first.
    let set = ["timeouts.total=300ms", "timeouts.read=2s", "limits.answer=256"];
    let world = World::of("config/betstack.toml", &set).await;
    world.pam.answer_with(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{".to_vec());
    let request = betstack::signed(&betstack::body("ticket_win", &format!(r#","token":"{TOKEN}","ticket_id":"5""#)));
    let (mut first, mut copy) = (world.connect().await, world.connect().await);
    first.write(&request.bytes()).await;
    world.pam.arrived(1).await;
    copy.write(&request.bytes()).await;
    let mut outside = Outside::default();
    outside.heard.push_str(&copy.reply().await.text());
    drop((first, copy));
    let reasons = outside.search(world, &SECRETS, &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["copy_in_flight"]);
}

#[tokio::test]
async fn no_fault_between_portcullis_and_the_pam_gives_it_away() {
    let folder = Folder::new("canaries-pam");
    let (trusted, stranger) = (Authority::new("pam"), Authority::new("stranger"));
    let ca = format!("upstream_tls.ca={}", folder.write("ca.pem", &trusted.pem));
    let impostor = Pam::over_tls(stranger.issue(&["127.0.0.1"]).server(None)).await;
    let world = World::with_pam("config/wallet.toml", &[&ca], impostor).await;
    assert_eq!(drive(world, &[debit()]).await, ["tls_certificate"]);
    let world = World::with_pam("config/wallet.toml", &[&ca], crate::pam_tls::in_the_clear().await).await;
    assert_eq!(drive(world, &[debit()]).await, ["tls"]);

    let world = World::of("config/wallet.toml", &["upstream_protocol=http2"]).await;
    assert_eq!(drive(world, &[debit()]).await, ["no_http2"]);

    let world = World::of("config/wallet.toml", &["limits.answer=256"]).await;
    world.pam.answer_with(|_| answer(200, &format!("{{\"status\":true,\"token\":\"{}\"}}", TOKEN.repeat(20))));
    assert_eq!(drive(world, &[wallet::signed("terminate", &wallet::body(TOKEN))]).await, ["too_large"]);
}

#[tokio::test]
async fn a_pam_that_shakes_no_hands_gives_nothing_away() {
    let folder = Folder::new("canaries-silent");
    let ca = format!("upstream_tls.ca={}", folder.write("ca.pem", &Authority::new("pam").pem));
    // The kernel accepts for it, and nobody ever answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Pam::at(listener.local_addr().unwrap());
    let world = World::with_pam("config/wallet.toml", &["timeouts.connect=100ms", &ca], silent).await;
    assert_eq!(drive(world, &[debit()]).await, ["connect_timeout"]);
}

#[tokio::test]
async fn passwords_that_wait_in_vain_are_not_given_away() {
    let folder = Folder::new("canaries-hashed");
    folder.write("hash", &bcrypt::hash("canary-hashed", 9).unwrap());
    let config = folder.write(
        "config.toml",
        "dialect = \"valkyrie\"\n[[caller]]\nname = \"a\"\nbasic = { username = \"a\", password_hash = { file = \"hash\" } }\n",
    );
    let world = World::of(&config, &["limits.lockout.failures=0"]).await;
    let wrong = valkyrie::call("GET", "/players/session?provider=x").replacing("Authorization", &basic("a", WRONG));
    let mut connections = Vec::new();
    // More than may wait, all at once.
    for _ in 0..200 {
        let mut connection = world.connect().await;
        connection.write(&wrong.bytes()).await;
        connections.push(connection);
    }
    let mut outside = Outside::default();
    for mut connection in connections {
        outside.heard.push_str(&connection.reply().await.text());
    }
    let reasons = outside.search(world, &SECRETS, &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["credential_wrong", "password_queue_full"]);
}

#[tokio::test]
async fn a_store_that_takes_nothing_in_time_gives_nothing_away() {
    let redis = RedisServer::start("canaries", &[]).await;
    let world = World::of("config/wallet.toml", &[&redis.set(), "revocation.redis.timeout=200ms"]).await;
    world.until("portcullis_revocation_store_away", 0.0).await;
    world.portcullis.ready().await;
    let release = world.pam.hold(answer(200, r#"{"status":true}"#));
    let mut outside = Outside::default();
    let requests = [wallet::signed("terminate", &wallet::body(TOKEN))];
    let sending = outside.send_all(&world, &requests);
    let stopping = async {
        world.pam.arrived(1).await;
        redis.signal("STOP");
        release.send_replace(true);
    };
    tokio::join!(sending, stopping);
    redis.signal("CONT");
    let reasons = outside.search(world, &SECRETS, &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["store_failed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing_gives_nothing_away() {
    let (folder, pam) = (Folder::new("canaries-disk"), Pam::start().await);
    pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    let set = format!("revocation.journal={}", folder.path().join("journal").display());
    let upstream = pam.address.to_string();
    let mut running = Running::start_ignoring_sigxfsz("config/wallet.toml", &upstream, &["--set", &set]);
    running.disk_takes("4096");
    let mut heard = String::new();
    for (token, status) in [(TOKEN, 502), (WRONG, 503)] {
        let reply = Connection::to(running.listen.parse().unwrap())
            .await
            .send(&wallet::signed("terminate", &wallet::body(token)))
            .await;
        assert_eq!(reply.status, status);
        heard.push_str(&reply.text());
    }
    for page in ["/metrics", "/status"] {
        heard.push_str(
            &Connection::to(running.admin.parse().unwrap()).await.send(&Request::new("GET", page)).await.text(),
        );
    }
    running.signal("TERM");
    heard.extend(running.lines.by_ref().map(|line| line.unwrap() + "\n"));
    assert!(heard.contains("\"journal_failed\"") && heard.contains("\"journal_failing\""), "{heard}");
    assert_secret(&heard, &SECRETS, &[]);
}

#[tokio::test]
async fn a_store_that_is_away_gives_nothing_away() {
    // Nobody listens there, and its password is in nobody's log either.
    let set = [
        "revocation.redis.url=redis://127.0.0.1:1",
        "revocation.redis.password={ env = \"WALLET_PASSWORD\" }",
        "revocation.redis.user=somebody",
        "revocation.on_outage.check=refuse",
    ];
    let world = World::of("config/wallet.toml", &set).await;
    assert_eq!(drive(world, &[debit(), wallet::signed("terminate", &wallet::body(TOKEN))]).await, ["store_away"]);
}

#[tokio::test]
async fn a_fault_of_ours_gives_nothing_away() {
    let world = World::wallet().await;
    let limits = HeadLimits { bytes: 4096, fields: 50, target: 1024 };
    let bytes = debit().bytes();
    let head = Bytes::copy_from_slice(&bytes[..bytes.len() - wallet::body(TOKEN).len()]);
    let head = Head::scan(head, &limits);
    let peer = Peer { address: [192, 0, 2, 1].into(), unnamed: false, names: Names::default() };
    let (reply, record) = world.portcullis.serve(head, &peer, Instant::now(), &mut Faulty).await;
    world.portcullis.sent(record, Sent::Whole, Instant::now());
    let shown: Vec<String> =
        reply.lines().map(|(name, value)| [name, value].concat().escape_ascii().to_string()).collect();
    let ReplyBody::Whole(body) = reply.body else { panic!("no body") };
    let mut outside = Outside::default();
    outside.heard.push_str(&format!("{:?} {}", shown, String::from_utf8_lossy(&body)));
    let reasons = outside.search(world, &SECRETS, &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["internal"]);
}

#[tokio::test]
async fn no_call_of_an_operator_gives_a_token_away() {
    let world = World::of("config/wallet.toml", &[operator::SET]).await;
    let mut heard = String::new();
    let subject = json!({ "token": TOKEN, "reason": "a reason", "actor": "somebody" });
    let good = |path: &str| operator::call(path, &subject);
    let requests = [
        good("/revoke"),
        good("/standing"),
        good("/unrevoke"),
        good("/revoke").without("Authorization"),
        good("/revoke").replacing("Authorization", &format!("Bearer {WRONG}")),
        good("/revoke").replacing("Authorization", &basic(operator::TOKEN, WRONG)),
        good("/revoke").with("Authorization", &format!("Bearer {}", operator::TOKEN)),
        good("/revoke").with("Origin", &format!("https://{WRONG}")),
        good("/revoke").replacing("Content-Type", WRONG),
        good(&format!("/revoke?token={TOKEN}&admin={}", operator::TOKEN)),
        good("/revoke").body(format!("{{\"token\":\"{TOKEN}")),
        good("/revoke").body(json!({ "token": TOKEN, "tokem": TOKEN, "reason": "r", "actor": "a" }).to_string()),
        good("/revoke").body(json!({ "token": TOKEN, "digest": TOKEN, "reason": "r", "actor": "a" }).to_string()),
        good("/revoke").body(json!({ "token": [TOKEN], "reason": "r", "actor": "a" }).to_string()),
        good("/revoke").body(json!({ "token": TOKEN.repeat(20), "reason": "r", "actor": "a" }).to_string()),
        good("/revoke").body(json!({ "digest": TOKEN, "reason": "r", "actor": "a" }).to_string()),
        good("/revoke").body(json!({ "seen_before": TOKEN, "reason": "r", "actor": "a" }).to_string()),
        good("/revoke").body(TOKEN.repeat(1000)),
        Request { method: "GET".to_owned(), ..good("/revoke") },
        Request::new("GET", &format!("/{TOKEN}")),
    ];
    for request in requests {
        let reply = Connection::to(world.admin).await.send(&request).await;
        heard.push_str(&format!("{} {:?}\n{}\n", reply.status, reply.fields, reply.text()));
    }
    world.send(&debit()).await;
    assert!(heard.matches("error").count() > 12, "{heard}");
    let outside = Outside { heard };
    outside.search(world, &SECRETS, &[]).await;
}

/// `check`, `run` and `sign` of every config there is, good and bad, with secrets in the environment and in files.
#[test]
fn no_command_prints_a_secret_of_its_config() {
    let folder = Folder::new("canaries-commands");
    let secret = folder.write("secret", "canary-in-a-file-of-its-own");
    let mut heard = String::new();
    let mut configs: Vec<_> = ["config", "tests/invalid"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|path| path.ends_with(".toml"))
        .collect();
    // A secret where its name belongs, in several spellings of the mistake.
    let mistakes = [
        format!("bearer = {{ env = {:?} }}", "canary-in-the-place-of-a-name"),
        format!("bearer = {{ env = \"PAM_API_TOKEN\", file = {secret:?} }}"),
        format!("bearer = [{{ file = {secret:?} }}, {{ file = {secret:?} }}]"),
        format!("basic = {{ username = \"u\", password_hash = {{ file = {secret:?} }} }}"),
        format!("bearer = {{ file = {:?} }}", format!("{secret}-canary-that-is-none")),
    ];
    for (at, mistake) in mistakes.iter().enumerate() {
        let text = format!(
            "dialect = \"valkyrie\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n[[caller]]\nname = \"a\"\n{mistake}\n"
        );
        configs.push(folder.write(&format!("{at}.toml"), &text));
    }
    assert!(configs.len() > 40, "{}", configs.len());
    for config in &configs {
        let output = portcullis().args(["check", "--config", config]).output().unwrap();
        for text in [output.stdout, output.stderr] {
            heard.push_str(&String::from_utf8_lossy(&text));
        }
    }
    assert!(heard.contains("good") && heard.contains("the environment variable"), "{heard}");
    // Whoever names a file finds its name in the complaint, not what is in it.
    let heard = heard.replace("secret-canary-that-is-none", "").replace(&folder.path().display().to_string(), "");
    let secrets = [&SECRETS[..], &["-in-a-file-of-its-own", "-in-the-place-of-a-name"]].concat();
    assert_secret(&heard, &secrets, &[]);
}
