//! Nothing leaks: canaries go in wherever a secret can stand, every kind of failure is driven, and whatever comes out is
//! searched for them, in every spelling.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use portcullis::dialect::source::Reading;
use portcullis::request::{Head, HeadLimits};

use crate::world::{
    Connection, Folder, Pam, Request, World, answer, basic, betstack, futures_answer, hmac_sha256_hex, load, now,
    operator, root, valkyrie, wallet,
};

/// A player token with characters that have another spelling in a URL.
const TOKEN: &str = "canary/player+token=of-a-session-1";

/// What callers prove themselves with when they are wrong.
const WRONG: &str = "canary-wrong-proof";

// threat: C14
// threat: F6
#[tokio::test]
async fn nothing_a_wallet_is_told_comes_out() {
    let world = World::of("config/wallet.toml", &["limits.body=2KiB"]).await;
    let body = wallet::body(TOKEN);
    let good = || wallet::signed("debit", &body);
    let with = |name: &str, value: &str| good().replacing(name, value);
    let twice = |request: Request, name: &str| {
        let value = request.fields.iter().find(|(other, _)| other == name).unwrap().1.clone();
        request.with(name, &value)
    };
    let wrong = hmac_sha256_hex(WRONG, body.as_bytes());
    let signed = |body: &str| wallet::signed("debit", body);
    let mut outside = Outside::default();
    let requests = [
        good(),
        with("Authorization", &basic(wallet::USER, WRONG)),
        with("Authorization", &basic(WRONG, wallet::PASSWORD)),
        with("Authorization", &format!("Basic {WRONG}")),
        with("Authorization", &format!("Bearer {}", wallet::PASSWORD)),
        with("Authorization", wallet::PASSWORD),
        good().without("Authorization"),
        twice(good(), "Authorization"),
        with("X-Request-Signature", &wrong),
        with("X-Request-Signature", &wrong.to_uppercase()),
        with("X-Request-Signature", WRONG),
        good().without("X-Request-Signature"),
        twice(good(), "X-Request-Signature"),
        good().with("X_Request_Signature", &wrong),
        signed("{}"),
        signed(&body.replace('}', &format!(r#","token":"{TOKEN}"}}"#))),
        signed(&format!("{{\"token\":\"{TOKEN}")),
        signed(&format!(r#"{{"token":["{TOKEN}"]}}"#)),
        signed(&wallet::body(&TOKEN.repeat(5))),
        signed(&wallet::body(&format!("{TOKEN} "))),
        good().with("Content-Encoding", WRONG),
        good().replacing("Content-Type", WRONG),
        good().body(format!("{{\"token\":\"{}\"}}", TOKEN.repeat(100))),
        Request { target: format!("/api/wallet/{TOKEN}"), ..good() },
        Request { target: format!("/api/wallet/debit?token={TOKEN}&key={}", wallet::KEY), ..good() },
        Request { target: format!("/api//{TOKEN}"), ..good() },
        Request { target: format!("/{}", TOKEN.repeat(300)), ..good() },
        Request { method: "CANARY".to_owned(), ..good() },
        with("Connection", WRONG),
        good().with("Upgrade", WRONG),
        good().with("Expect", WRONG),
        good().with("Transfer-Encoding", WRONG),
        good().with("Content-Length", WRONG),
        with("Host", &format!("{WRONG}/")),
        good().with("X-Correlation-ID", &format!("\"{TOKEN}\"")),
        good().with("Cookie", TOKEN).with("User-Agent", WRONG).with("Forwarded", WRONG),
    ];
    outside.send_all(&world, &requests).await;
    let heads = [
        format!("{WRONG} / HTTP/1.1\r\n\r\n"),
        format!("GET / {WRONG}\r\n\r\n"),
        format!("GET / HTTP/9.9\r\nAuthorization: {WRONG}\r\n\r\n"),
        format!("GET / HTTP/1.1\nX-Player-Token: {TOKEN}\n\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{WRONG}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {WRONG}\0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", WRONG.repeat(3000)),
        format!("POST /api/wallet/debit HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{TOKEN}"),
    ];
    outside.write_all(&world, &heads).await;

    let faults: [Option<Vec<u8>>; 7] = [
        None,
        Some(b"canary\r\n\r\n".to_vec()),
        Some(b"HTTP/1.1 200 canary\r\nContent-Length: canary\r\n\r\n".to_vec()),
        Some(b"HTTP/1.1 101 canary\r\nUpgrade: canary\r\n\r\n".to_vec()),
        Some(answer(200, r#"{"status":true,"status":"canary"}"#)),
        Some(answer(500, "{}")),
        Some(answer(200, r#"{"status":true}"#)),
    ];
    for fault in faults {
        world.pam.answer_async(move |_| futures_answer::of(std::future::ready(fault.clone())));
        outside.send_all(&world, &[wallet::signed("terminate", &body)]).await;
    }
    outside.send_all(&world, &[good()]).await;

    let secrets = [wallet::PASSWORD, wallet::KEY, TOKEN, WRONG, "CANARY"];
    let signatures = [hmac_sha256_hex(wallet::KEY, body.as_bytes()), wrong];
    let reasons = outside.search(world, &secrets, &signatures).await;
    assert_eq!(reasons.iter().map(String::as_str).collect::<Vec<_>>(), WALLET);
}

#[tokio::test]
async fn nothing_a_valkyrie_pam_is_told_comes_out() {
    let folder = Folder::new("leaks-valkyrie");
    folder.write("password", "canary-hashed-password");
    folder.write("hash", &bcrypt::hash("canary-hashed-password", 4).unwrap());
    let config = folder.write(
        "config.toml",
        "dialect = \"valkyrie\"\n[[caller]]\nname = \"valkyrie\"\nbearer = { env = \"PAM_API_TOKEN\" }\n\
         routes = [\"getSession\", \"refreshSession\"]\n\
         [[caller]]\nname = \"hashed\"\nbasic = { username = \"hashed\", password_hash = { file = \"hash\" } }\n",
    );
    let hash = std::fs::read_to_string(folder.path().join("hash")).unwrap();
    let world = World::of(&config, &["revocation.learn=10m"]).await;
    let session = "/players/session?provider=x";
    let good = || valkyrie::call("GET", session).replacing("X-Player-Token", TOKEN);
    let mut outside = Outside::default();
    let requests = [
        good(),
        good().replacing("Authorization", &basic("hashed", "canary-hashed-password")),
        good().replacing("Authorization", &basic("hashed", WRONG)),
        good().replacing("Authorization", &basic(WRONG, "canary-hashed-password")),
        good().replacing("Authorization", &format!("Bearer {WRONG}")),
        good().with("X-Player-Token", TOKEN),
        good().with("X_Player_Token", TOKEN),
        good().without("X-Player-Token"),
        good().replacing("X-Player-Token", &TOKEN[1..20]),
        Request { target: format!("/players/session?token={TOKEN}&api_key={}", valkyrie::KEY), ..good() },
        Request { target: format!("/players/{WRONG}/balance?provider=x"), ..good() },
    ];
    outside.send_all(&world, &requests).await;
    world.pam.answer_with(|_| answer(200, r#"{"session":{"token":"new"}}"#));
    let refresh = valkyrie::call("PUT", session).replacing("X-Player-Token", TOKEN);
    outside.send_all(&world, &[refresh.clone(), good()]).await;
    // A token that shares its beginning, so that the search finds it too.
    let unknown = refresh.replacing("X-Player-Token", &TOKEN.replace('1', "2"));
    world.pam.answer_with(|_| answer(401, r#"{"error":{"code":"PAM_ERR_SESSION_NOT_FOUND"}}"#));
    outside.send_all(&world, &[unknown.clone(), unknown]).await;

    let secrets = [valkyrie::KEY, valkyrie::PASSWORD, TOKEN, WRONG, "canary-hashed-password", &hash, &TOKEN[1..20]];
    let reasons = outside.search(world, &secrets, &[]).await;
    assert_eq!(reasons.iter().map(String::as_str).collect::<Vec<_>>(), VALKYRIE);
}

#[tokio::test]
async fn nothing_a_betstack_pam_is_told_comes_out() {
    let world = World::betstack().await;
    let token = format!(r#","token":"{TOKEN}""#);
    let body = betstack::body("identify", &token);
    let good = betstack::signed(&body);
    let signature = |request: &Request| request.fields.iter().find(|(name, _)| name == "signature").unwrap().1.clone();
    let (old, early) = (betstack::signed_at(&body, now() - 1000), betstack::signed_at(&body, now() + 1000));
    let signatures = [&good, &old, &early].map(signature);
    let mut outside = Outside::default();
    let requests = [
        good.clone(),
        good.clone(),
        old,
        early,
        betstack::signed(&betstack::body("ticket_win", "")),
        betstack::signed(&body.replace(betstack::OPERATOR, WRONG)),
        betstack::signed(&body.replace("identify", WRONG)),
        betstack::signed(&body.replace(r#""operator":"operator-code","#, "")),
        good.clone().replacing("signature", WRONG),
        good.clone().replacing("timestamp", WRONG),
        good.clone().without("timestamp"),
        good.clone().with("timestamp", WRONG),
        good.clone().body(body.replace(TOKEN, WRONG)),
        good.clone().body(body.replace("identify", "ping")),
    ];
    outside.send_all(&world, &requests).await;
    let secrets = [betstack::SECRET, TOKEN, WRONG];
    let reasons = outside.search(world, &secrets, &signatures).await;
    assert_eq!(reasons.iter().map(String::as_str).collect::<Vec<_>>(), BETSTACK);
}

#[tokio::test]
async fn a_full_memory_of_messages_gives_nothing_away() {
    let world = World::of("config/betstack.toml", &["replay.capacity=1"]).await;
    let mut outside = Outside::default();
    let body = |action| betstack::body(action, &format!(r#","token":"{TOKEN}""#));
    let requests = ["identify", "ticket_win"].map(|action| betstack::signed(&body(action)));
    outside.send_all(&world, &requests).await;
    let reasons = outside.search(world, &[betstack::SECRET, TOKEN], &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["replay_memory_full"]);
}

#[tokio::test]
async fn a_pam_that_never_answers_gives_nothing_away() {
    let world = World::of("config/wallet.toml", &["timeouts.read=50ms"]).await;
    world.pam.answer_async(|_| futures_answer::of(std::future::pending()));
    let mut outside = Outside::default();
    outside.send_all(&world, &[wallet::signed("debit", &wallet::body(TOKEN))]).await;
    let reasons = outside.search(world, &[wallet::PASSWORD, wallet::KEY, TOKEN], &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["timeout"]);
}

#[tokio::test]
async fn a_pam_that_is_down_gives_nothing_away() {
    let mut pam = Pam::start().await;
    // Nobody listens there.
    pam.address = "127.0.0.1:1".parse().unwrap();
    let address = pam.address.to_string();
    let world = World::with_pam("config/wallet.toml", &[], pam).await;
    let mut outside = Outside::default();
    outside.send_all(&world, &[wallet::signed("debit", &wallet::body(TOKEN))]).await;
    // The PAM's address is nobody's business either.
    assert!(!outside.heard.contains(&address) && !world.log_text().contains(&address));
    let reasons = outside.search(world, &[wallet::PASSWORD, wallet::KEY, TOKEN], &[]).await;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["connect"]);
}

#[test]
fn no_debug_shows_a_secret() {
    let mut shown = String::new();
    for config in ["config/valkyrie.toml", "config/wallet.toml", "config/betstack.toml"] {
        let settings = load(config, "127.0.0.1:1", &[operator::SET]).unwrap();
        shown.push_str(&format!("{settings:?}{settings:#?}{:?}", settings.callers.iter().collect::<Vec<_>>()));
    }
    let request = wallet::signed("debit", &wallet::body(TOKEN)).with("X-Player-Token", TOKEN);
    let request = Request { target: format!("/api/wallet/debit?token={TOKEN}"), ..request };
    let bytes = request.bytes();
    let head = Bytes::copy_from_slice(&bytes[..bytes.len() - request.body.len()]);
    let head = Head::scan(head, &HeadLimits { bytes: 4096, fields: 50, target: 1024 }).unwrap();
    shown.push_str(&format!("{head:?}{:?}{:?}", head.fields, head.target));
    let dialect = load("config/wallet.toml", "127.0.0.1:1", &[]).unwrap().dialect;
    let found = portcullis::json::read(&request.body, &dialect.wanted).unwrap();
    shown.push_str(&format!("{found:?}"));
    let request = portcullis::request::Request { head, body: request.body.clone().into() };
    let view = portcullis::dialect::source::View { request: &request, found: Some(found) };
    let Reading::One(token) = dialect.token.unwrap().at.read(&view) else { panic!("no token") };
    let key = portcullis::secret::DigestKey::new([7; 32]);
    shown.push_str(&format!("{:?}{key:?}", portcullis::token::TokenDigest::of(&token, &key)));
    let rule = dialect.signature.unwrap();
    shown.push_str(&format!("{rule:?}{:?}", UNIX_EPOCH + Duration::from_secs(1)));

    let callers = [wallet::PASSWORD, wallet::KEY, valkyrie::KEY, valkyrie::PASSWORD, betstack::SECRET];
    let secrets = [&callers[..], &[TOKEN, operator::TOKEN]].concat();
    let signature = hmac_sha256_hex(wallet::KEY, wallet::body(TOKEN).as_bytes());
    assert_eq!(spellings(&secrets, &[signature]).iter().find(|needle| shown.contains(*needle)), None, "{shown}");
    assert!(shown.contains("fantasy-goal"), "{shown}");
}

#[test]
fn no_complaint_shows_a_secret_that_cannot_be_used() {
    let folder = Folder::new("leaks-complaints");
    folder.write("canary", "canary-unusable");
    let dialect = root().join("tests/vectors/dialects/standard-webhooks.toml");
    let configs = [
        format!(
            "dialect = \"{}\"\n[[caller]]\nname = \"a\"\nsigning = [{{ id = \"1\", key = SECRET }}]",
            dialect.display()
        ),
        "dialect = \"valkyrie\"\n[[caller]]\nname = \"a\"\nbasic = { username = \"a\", password_hash = SECRET }"
            .to_owned(),
        "dialect = \"valkyrie\"\n[[caller]]\nname = \"a\"\nbearer = [SECRET, SECRET]".to_owned(),
    ];
    for (at, config) in configs.iter().enumerate() {
        let config = folder.write(&format!("{at}.toml"), &config.replace("SECRET", "{ file = \"canary\" }"));
        let complaints = load(&config, "127.0.0.1:1", &[]).unwrap_err();
        let shown = complaints.iter().map(|complaint| format!("{complaint}{complaint:?}")).collect::<String>();
        assert_eq!(complaints.len(), 1, "{shown}");
        assert!(!shown.contains("canary-unusable"), "{shown}");
    }
}

#[test]
fn the_search_knows_every_spelling() {
    let needles = spellings(&["canary/+="], &[hmac_sha256_hex("a", b"b")]);
    let finds = |text: &str| needles.iter().any(|needle| text.contains(needle));
    let mac = hmac_sha256_hex("a", b"b");
    for text in
        ["a canary/+= b", "63616e6172792f2b3d", "63616E6172792F2B3D", "x=canary%2F%2B%3D", &mac, &mac.to_uppercase()]
    {
        assert!(finds(text), "{text}");
    }
    for in_front in ["", "u", "us", "use", "user:", "user::"] {
        assert!(finds(&STANDARD.encode(format!("{in_front}canary/+=:more"))), "{in_front}");
        assert!(finds(&URL_SAFE.encode(format!("{in_front}canary/+="))), "{in_front}");
    }
    assert!(!finds("a canary"));
}

/// The reasons that the log has at the end of a test.
const WALLET: [&str; 37] = [
    "answer_unreadable",
    "body_cut",
    "body_too_large",
    "closed",
    "connection",
    "content_encoding",
    "content_length",
    "content_type",
    "credential_malformed",
    "credential_missing",
    "credential_repeated",
    "credential_wrong",
    "duplicate_key",
    "expect",
    "head_too_large",
    "header_field",
    "host",
    "http_version",
    "malformed",
    "method",
    "no_route",
    "request_line",
    "signature_malformed",
    "signature_missing",
    "signature_repeated",
    "signature_wrong",
    "syntax",
    "target",
    "target_too_long",
    "token_ended",
    "token_malformed",
    "token_missing",
    "transfer_encoding",
    "twin_field",
    "unasked_101",
    "unnamed_parameter",
    "upgrade",
];

const VALKYRIE: [&str; 9] = [
    "caller_not_allowed",
    "credential_wrong",
    "parameter",
    "token_ended",
    "token_malformed",
    "token_missing",
    "token_presumed_ended",
    "token_repeated",
    "twin_field",
];

const BETSTACK: [&str; 9] = [
    "early",
    "key_unknown",
    "no_route",
    "replayed",
    "signature_malformed",
    "signature_missing",
    "signature_repeated",
    "signature_wrong",
    "stale",
];

/// What the tests of this file drive beside those.
const SINGLY: [&str; 3] = ["replay_memory_full", "timeout", "connect"];

/// All reasons that the tests of this file drive.
pub fn driven() -> BTreeSet<&'static str> {
    WALLET.into_iter().chain(VALKYRIE).chain(BETSTACK).chain(SINGLY).collect()
}

/// Everything that came out.
#[derive(Default)]
pub struct Outside {
    pub heard: String,
}

impl Outside {
    /// Sends each request on a connection of its own, over HTTP/1.1, and hears the reply.
    pub async fn send_all(&mut self, world: &World, requests: &[Request]) {
        for request in requests {
            let mut connection = world.connect().await;
            let reply = connection.send(request).await;
            self.heard.push_str(&format!("{} {:?}\n{}\n", reply.status, reply.fields, reply.text()));
        }
    }

    /// Writes raw bytes, then nothing more, and hears what comes back until the end.
    pub async fn write_all(&mut self, world: &World, requests: &[String]) {
        for request in requests {
            let mut connection = Connection::to(world.address).await;
            connection.write(request.as_bytes()).await;
            tokio::io::AsyncWriteExt::shutdown(&mut connection.stream).await.unwrap();
            self.heard.push_str(&String::from_utf8_lossy(&connection.rest().await));
        }
    }

    /// Hears the admin pages and the log as well, searches all of it, and gives the reasons that the log names.
    pub async fn search(mut self, world: World, secrets: &[&str], signatures: &[String]) -> BTreeSet<String> {
        for page in ["/", "/metrics", "/status", "/readyz", "/livez", "/canary"] {
            self.heard.push_str(&world.admin(page).await.text());
        }
        let lines = world.finish().await;
        assert_ne!(lines.len(), 0);
        for line in &lines {
            self.heard.push_str(&format!("{line}\n"));
        }
        assert!(self.heard.contains("portcullis_requests_total"), "the metrics were not heard");
        assert_secret(&self.heard, secrets, signatures);
        lines.iter().filter_map(|line| Some(line.get("reason")?.as_str()?.to_owned())).collect()
    }
}

/// A text has no secret and no signature in it, in no spelling, and none of their beginnings.
pub fn assert_secret(text: &str, secrets: &[&str], signatures: &[String]) {
    for needle in spellings(secrets, signatures) {
        let found = text.lines().find(|line| line.contains(&needle));
        assert_eq!(found, None, "{needle}");
    }
}

/// Secrets as they are, hexadecimal, URL-encoded, and in base64 wherever in a text they stand; signatures in hexadecimal of
/// either case and in base64. Of each its first eight bytes, which every text has that has more of it.
pub fn spellings(secrets: &[&str], signatures: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for secret in secrets {
        let secret = &secret[..secret.len().min(8)];
        all.push(secret.to_owned());
        all.extend(of_bytes(secret.as_bytes()));
        let encoded = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        all.push(secret.bytes().map(encoded).collect());
    }
    for signature in signatures {
        let pairs = signature.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        all.extend(of_bytes(&bytes[..8]));
    }
    all
}

fn of_bytes(bytes: &[u8]) -> Vec<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![hex.to_uppercase(), hex];
    for in_front in 0..3 {
        let text = [vec![b'x'; in_front], bytes.to_vec()].concat();
        for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            // The first and the last characters depend on the neighbours as well.
            let whole = encoded.trim_end_matches('=');
            all.push(whole[(in_front * 8).div_ceil(6)..whole.len() - 1].to_owned());
        }
    }
    all
}
