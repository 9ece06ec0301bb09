//! `portcullis explain`: a request made with each known mistake is told which one it was, and nothing secret is shown.

use std::io::Write as _;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest as _;

use crate::binary::{output, portcullis};
use crate::world::{Folder, Request, World, basic, betstack, hmac_sha256_hex, now, valkyrie, wallet};

const TOKEN: &str = "9f86d081884c7d65-canary-token";

/// Says what `portcullis explain` says of a capture.
fn explained(config: &str, capture: &[u8], more: &[&str]) -> (i32, String) {
    let mut command = portcullis();
    command.args(["explain", "--config", config]).args(more).arg("-");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(capture).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!text.contains('\x1b'), "a pipe gets no colour: {text}");
    assert_nothing_secret(&text);
    (output.status.code().unwrap(), text)
}

/// No secret, no token, no credential: plain, in hexadecimal, in base64.
fn assert_nothing_secret(text: &str) {
    let secrets = [
        TOKEN,
        wallet::KEY,
        wallet::PASSWORD,
        valkyrie::KEY,
        valkyrie::PASSWORD,
        valkyrie::TOKEN,
        betstack::SECRET,
        OTHER_SECRET,
        BASE64_SECRET,
        "hunter2-is-wrong",
    ];
    for secret in secrets {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret.to_owned(), hex, STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)] {
            assert!(!text.contains(form.trim_end_matches('=')), "{form}\n{text}");
        }
    }
}

const OTHER_SECRET: &str = "canary-secret-of-another";
const BASE64_SECRET: &str = "Y2FuYXJ5LWtleS1pbi1iYXNlNjQ=";

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wallet_body() -> String {
    format!("{{\"token\":\"{TOKEN}\", \"name\":\"café/1\",\n\"amount\":10.50,\"currency\":\"EUR\"}}")
}

fn wallet_call(signature: &str, body: &str) -> Vec<u8> {
    Request::new("POST", "/api/wallet/debit")
        .with("Content-Type", "application/json")
        .with("Authorization", &basic(wallet::USER, wallet::PASSWORD))
        .with("X-Request-Signature", signature)
        .body(body)
        .bytes()
}

#[test]
fn each_known_mistake_about_a_raw_body_is_named() {
    let body = wallet_body();
    let signed = |text: &str| hex(&mac(wallet::KEY.as_bytes(), text.as_bytes()));
    let right = mac(wallet::KEY.as_bytes(), body.as_bytes());
    let plain = |parts: &[&str]| hex(&sha2::Sha256::digest(parts.concat()));
    let sha512 = {
        let mut mac = Hmac::<sha2::Sha512>::new_from_slice(wallet::KEY.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        hex(&mac.finalize().into_bytes())
    };
    let sha1 = {
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(wallet::KEY.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        hex(&mac.finalize().into_bytes())
    };
    let compact = body.replace(['\n', ' '], "");
    let cases = [
        (STANDARD.encode(&right), "spelled in base64;"),
        (URL_SAFE_NO_PAD.encode(&right), "spelled in base64"),
        (STANDARD.encode(hex(&right)), "base64 of its hexadecimal digits"),
        (format!("sha256={}", hex(&right)), "stands behind a version"),
        (signed(&format!("{body}\n")), "with a line feed behind it"),
        (signed(&format!("{body}\r\n")), "with CR LF behind it"),
        (signed(&body.replace('\n', "\r\n")), "with CR LF, and sent LF"),
        (signed(&compact), "without its white space"),
        (signed(&compact.replace(':', ": ").replace(',', ", ")), "as Python does by default"),
        (
            signed(&compact.replace(':', ": ").replace(',', ", ").replace('é', "\\u00e9")),
            "with other than ASCII escaped, as Python",
        ),
        (signed(&compact.replace('/', "\\/").replace('é', "\\u00e9")), "as PHP does"),
        (signed(&compact.replace("10.50", "10.5")), "as JavaScript writes them"),
        (
            signed(&format!("{{\"amount\":10.50,\"currency\":\"EUR\",\"name\":\"café/1\",\"token\":\"{TOKEN}\"}}")),
            "its members sorted",
        ),
        (
            signed(&format!(
                "{{\n  \"token\": \"{TOKEN}\",\n  \"name\": \"café/1\",\n  \"amount\": 10.50,\n  \"currency\": \"EUR\"\n}}"
            )),
            "indented by two blanks",
        ),
        (signed(""), "an empty body"),
        (sha512, "signed with hmac-sha512"),
        (sha1, "signed with hmac-sha1"),
        (plain(&[wallet::KEY, &body]), "plain sha256 of the key in front"),
        (plain(&[&body, wallet::KEY]), "plain sha256 of the message with the key behind"),
        (plain(&[&body]), "without any key"),
        (hex(&mac(format!("{}\n", wallet::KEY).as_bytes(), body.as_bytes())), "secret has a line feed"),
        (hex(&mac(STANDARD.encode(wallet::KEY).as_bytes(), body.as_bytes())), "base64 of the secret for the key"),
        (signed(&hex(&sha2::Sha256::digest(&body))), "hexadecimal SHA-256 of the body"),
        // Two at a time.
        (STANDARD.encode(mac(wallet::KEY.as_bytes(), compact.as_bytes())), "spelled in base64;"),
        (hex(&mac(format!("{}\n", wallet::KEY).as_bytes(), compact.as_bytes())), "without its white space"),
    ];
    for (signature, named) in cases {
        let (code, text) = explained("config/wallet.toml", &wallet_call(&signature, &body), &[]);
        assert_eq!(code, 1, "{named}\n{text}");
        assert!(text.contains("why: ") && text.contains(named), "{named}\n{text}");
        assert!(text.contains("so it would match: fantasy-goal, key 2026-11"), "{text}");
        assert!(!text.contains(&hex(&right)) && !text.contains(&STANDARD.encode(&right)), "{text}");
    }
}

#[test]
fn the_right_signature_is_admitted_and_one_that_nothing_explains_is_said_to_be_so() {
    let body = wallet_body();
    let right = hmac_sha256_hex(wallet::KEY, body.as_bytes());
    let (code, text) = explained("config/wallet.toml", &wallet_call(&right, &body), &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("admitted as `debit`") && text.contains("✓ signature"), "{text}");
    let (code, text) = explained("config/wallet.toml", &wallet_call(&hmac_sha256_hex("x", b"y"), &body), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("none of ") && !text.contains("why: "), "{text}");
    assert!(text.contains(r#" bytes: {"token":"…", "name":"café/1",\n"#), "{text}");
    assert!(text.contains("refused: check signature, reason signature_wrong"), "{text}");
    assert!(text.contains("the caller is told 401 {\"status\":false,\"code\":401"), "{text}");
}

#[test]
fn a_key_that_was_made_otherwise_or_is_anothers_is_named() {
    let folder = Folder::new("explain-keys");
    let other = folder.write("other", OTHER_SECRET);
    let base64 = folder.write("base64", BASE64_SECRET);
    let hexed = folder.write("hex", "63616e6172792d6b65792d696e2d686578");
    let config = std::fs::read_to_string(crate::world::root().join("config/wallet.toml")).unwrap();
    let keys = format!(
        "signing = [ {{ id = \"b\", key = {{ file = {base64:?} }} }}, {{ id = \"h\", key = {{ file = {hexed:?} }} }} ]\n\
         [[caller]]\nname = \"another\"\nbasic = {{ username = \"another\", password = {{ env = \"PAM_BASIC_PASSWORD\" }} }}\n\
         signing = [ {{ id = \"2025\", key = {{ file = {other:?} }} }} ]\n"
    );
    let (before, _) = config.split_once("signing = ").unwrap();
    let config = folder.write("wallet.toml", &format!("{before}{keys}"));
    let body = wallet_body();
    for (key, named) in [
        (STANDARD.decode(BASE64_SECRET).unwrap(), "decoded the secret from base64"),
        (b"canary-key-in-hex".to_vec(), "decoded the secret from hexadecimal"),
        (OTHER_SECRET.as_bytes().to_vec(), "with the secret of `another` (key 2025)"),
    ] {
        let call = wallet_call(&hex(&mac(&key, body.as_bytes())), &body);
        let (code, text) = explained(&config, &call, &[]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(named), "{named}\n{text}");
    }
}

#[test]
fn each_known_mistake_about_a_timestamp_and_white_space_is_named() {
    let body = betstack::body("identify", &format!(", \"token\": \"{TOKEN}\""));
    let compact = body.replace(' ', "");
    let time = now();
    let call = |timestamp: &str, message: &str| {
        Request::new("POST", "/pam")
            .with("Content-Type", "application/json")
            .with("timestamp", timestamp)
            .with("signature", &hmac_sha256_hex(betstack::SECRET, message.as_bytes()))
            .body(body.as_str())
            .bytes()
    };
    let seconds = time.to_string();
    let millis = format!("{time}123");
    let cases = [
        (call(&seconds, &format!("{seconds}{body}")), "with its white space"),
        (call(&seconds, &compact), "without the timestamp"),
        (call(&seconds, &format!("{compact}{seconds}")), "timestamp behind the rest"),
        (call(&seconds, &format!("{seconds}.{compact}")), "a dot behind the timestamp"),
        (call(&seconds, &format!("{millis}{compact}")), "signed milliseconds and sent seconds"),
        (call(&millis, &format!("{seconds}{compact}")), "signed seconds and sent milliseconds"),
        (call(&millis, &format!("{millis}{compact}")), "the timestamp counts milliseconds; this family counts seconds"),
        (call(&seconds, &format!("{seconds}{compact}\n")), "line feed"),
    ];
    for (capture, named) in cases {
        let (code, text) = explained("config/betstack.toml", &capture, &[]);
        assert_eq!(code, 1, "{named}\n{text}");
        assert!(text.contains(named), "{named}\n{text}");
    }
}

/// What is left of a dialect with one signed route.
const REST: &str = r#"
[[route]]
name = "bet"
match = "POST /v1/players/{player}/bets"
query = ["currency"]
token = false
[reply]
body = '{"error":"{code}"}'
unauthenticated   = { status = 401, code = "auth",     message = "" }
token_invalid     = { status = 401, code = "session",  message = "" }
token_ended       = { status = 401, code = "session",  message = "" }
not_found         = { status = 404, code = "route",    message = "" }
missing_parameter = { status = 400, code = "request",  message = "" }
bad_request       = { status = 400, code = "request",  message = "" }
internal          = { status = 500, code = "internal", message = "" }
bad_gateway       = { status = 502, code = "unknown",  message = "" }
unavailable       = { status = 503, code = "retry",    message = "" }
timeout           = { status = 504, code = "unknown",  message = "" }
"#;

#[test]
fn a_path_a_query_and_a_method_that_were_signed_otherwise_are_named() {
    let folder = Folder::new("explain-paths");
    let dialect = r#"
name = "acme"
credential = "none"
[signature]
message = "{method}\n{path}\n{query}\n{body|sha256|hex}"
algorithm = "hmac-sha256"
encoding = "base64"
at = "header:X-Sign"
"#;
    let dialect = folder.write("acme.toml", &format!("{dialect}{REST}"));
    let config = folder.write(
        "config.toml",
        &format!(
            "dialect = {dialect:?}\nbase_path = \"/pam\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n\
             [[caller]]\nname = \"acme\"\nsigning = [{{ id = \"1\", key = {{ env = \"WALLET_SIGNING_KEY\" }} }}]\n"
        ),
    );
    let hash = hex(&sha2::Sha256::digest("{}"));
    let (path, query) = ("/pam/v1/players/a%C3%A9b/bets", "currency=E%C3%9CR");
    let cases = [
        (format!("POST\n{path}\n{query}\n{hash}"), None),
        (format!("post\n{path}\n{query}\n{hash}"), Some("method in lower case")),
        (format!("POST\n/pam/v1/players/aéb/bets\n{query}\n{hash}"), Some("path decoded")),
        (format!("POST\n/v1/players/a%C3%A9b/bets\n{query}\n{hash}"), Some("base_path")),
        (format!("POST\nhttps://pam.example{path}?{query}\n{query}\n{hash}"), Some("whole URL instead of the path")),
        (format!("POST\n{path}?{query}\n{query}\n{hash}"), Some("path with its query")),
        (format!("POST\n{path}\n\n{hash}"), Some("without the query")),
        (format!("POST\n{path}\ncurrency=EÜR\n{hash}"), Some("query decoded")),
        (format!("POST\n{path}\n{query}\n{{}}"), Some("the body instead of its SHA-256")),
        (format!("POST{path}{query}{hash}"), Some("without what stands between")),
        ("{}".to_owned(), Some("the body alone")),
    ];
    for (message, named) in cases {
        let call = Request::new("POST", &format!("{path}?{query}"))
            .replacing("Host", "pam.example")
            .with("X-Sign", &STANDARD.encode(mac(wallet::KEY.as_bytes(), message.as_bytes())))
            .body("{}");
        let (code, text) = explained(&config, &call.bytes(), &[]);
        assert_eq!(code, i32::from(named.is_some()), "{named:?}\n{text}");
        assert!(text.contains(named.unwrap_or("admitted as `bet`")), "{named:?}\n{text}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let call = Request::new("PUT", "/players/session?other=1")
        .with("Authorization", &basic("operator", "hunter2-is-wrong"))
        .with("X-Player-Token", "short");
    let (code, text) = explained("config/valkyrie.toml", &call.bytes(), &[]);
    assert_eq!(code, 1);
    for line in [
        "✓ route       `refreshSession`: PUT /players/session",
        "✗ credential  the user is that of `operator`, and the password (…) is none of its passwords",
        "✗ parameters  the query must have each of these once, not empty: provider",
        "✗ token       header:X-Player-Token: 5 characters; a token is a string of 32 to 40 visible ASCII characters",
        "refused as parameter, if the checks before had passed",
        "refused: check credential, reason credential_wrong",
        "the caller is told 401 {\"status\":\"ERROR\",\"error\":{\"code\":\"PAM_ERR_API_TOKEN\"",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn what_is_found_of_credential_and_token_is_told_without_showing_it() {
    let good = valkyrie::call("GET", "/players/session?provider=x");
    let (code, text) = explained("config/valkyrie.toml", &good.bytes(), &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the bearer key is that of `valkyrie`"), "{text}");
    assert!(text.contains("40 characters, hexadecimal") && text.contains("? standing"), "{text}");
    for (value, named) in [
        ("Bearer wrong-key", "no caller has this user or key"),
        (valkyrie::KEY, "has no scheme"),
        ("Basic operator:hunter2-is-wrong", "must be in base64"),
        (basic("operator", &format!("{}\n", valkyrie::PASSWORD)).as_str(), "line feed at its end"),
        ("Bearer <key>", "placeholder"),
    ] {
        let call = good.clone().replacing("Authorization", value);
        let (code, text) = explained("config/valkyrie.toml", &call.bytes(), &[]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(named), "{named}\n{text}");
    }
}

#[test]
fn a_request_is_judged_as_of_when_it_was_signed_unless_told_otherwise() {
    let body = betstack::body("ticket_create", "");
    let call = betstack::signed_at(&body, 1_706_191_612).bytes();
    let (code, text) = explained("config/betstack.toml", &call, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("judged as of 2024-01-25T14:06:52Z, when it says it was signed; "), "{text}");
    assert!(text.contains("against the clock now it would be stale by "), "{text}");
    for at in ["1706192000", "2024-01-25T14:13:20Z"] {
        let (code, text) = explained("config/betstack.toml", &call, &["--at", at]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("as --at says") && text.contains("reason stale"), "{text}");
    }
}

#[test]
fn networks_and_certificates_are_looked_at_as_far_as_they_are_known() {
    let set = ["--set", "trusted_proxies=[\"10.0.0.0/8\"]"];
    let folder = Folder::new("explain-from");
    let config = std::fs::read_to_string(crate::world::root().join("config/wallet.toml")).unwrap();
    let config = folder.write("wallet.toml", &format!("{config}\nfrom = [\"192.0.2.0/24\"]\nroutes = [\"debit\"]\n"));
    let call = wallet::signed("debit", &wallet::body(TOKEN));
    let (code, text) = explained(&config, &call.bytes(), &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("? from") && text.contains("--peer ADDRESS"), "{text}");
    for (peer, forwarded, admitted) in
        [("192.0.2.7", None, true), ("198.51.100.1", None, false), ("10.0.0.1", Some("192.0.2.9"), true)]
    {
        let call = match forwarded {
            Some(address) => call.clone().with("X-Forwarded-For", address),
            None => call.clone(),
        };
        let (code, text) = explained(&config, &call.bytes(), &[&set[..], &["--peer", peer]].concat());
        assert_eq!(code == 0, admitted, "{text}");
    }
    let other = wallet::signed("credit", &wallet::body(TOKEN));
    assert!(explained(&config, &other.bytes(), &[]).1.contains("reason caller_not_allowed"));
}

#[test]
fn a_curl_line_is_read_as_curl_would_send_it() {
    let body = wallet::body(TOKEN);
    let (code, line, _) = output(&["sign", "--config", "config/wallet.toml", "--body", &body, "/api/wallet/debit"]);
    assert_eq!(code, 0);
    let line = line.lines().find(|line| line.starts_with("curl ")).unwrap().to_owned();
    let (code, text) = explained("config/wallet.toml", line.as_bytes(), &[]);
    assert_eq!(code, 0, "{text}");
    let folder = Folder::new("explain-curl");
    let file = folder.write("line.txt", &format!("  {line}"));
    assert_eq!(output(&["explain", "--config", "config/wallet.toml", "--curl", &file]).0, 0);
    let (code, text) = explained("config/wallet.toml", b"curl http://x/api/wallet/debit -d '{}'", &[]);
    assert_eq!(code, 1);
    assert!(text.contains("application/x-www-form-urlencoded") && text.contains("reason credential_missing"), "{text}");
    assert!(text.contains("refused as content_type, if the checks before had passed"), "{text}");
}

#[test]
fn what_is_no_capture_exits_with_64_and_a_head_that_is_not_served_with_1() {
    for capture in ["", "hello", "curl", "curl -F a=b x", "curl $(id)"] {
        assert_eq!(explained("config/wallet.toml", capture.as_bytes(), &[]).0, 64, "{capture}");
    }
    for at in ["tomorrow", "-1", "2024-13-01T00:00:00Z"] {
        let at = format!("--at={at}");
        assert_eq!(explained("config/wallet.toml", b"GET / HTTP/1.1\n\n", &[&at]).0, 64, "{at}");
    }
    assert_eq!(output(&["explain", "--config", "config/wallet.toml"]).0, 64);
    assert_eq!(output(&["explain", "--config", "config/wallet.toml", "no/such/file.http"]).0, 64);
    assert_eq!(output(&["explain", "--config", "no/such/file.toml", "-"]).0, 78);
    let (code, text) =
        explained("config/wallet.toml", b"POST /a//b HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n", &[]);
    assert_eq!(code, 1);
    assert!(text.contains("refused: check route, reason target"), "{text}");
}

/// What the command says would happen is what happens.
#[tokio::test]
async fn it_decides_as_the_one_that_runs() {
    let body = wallet::body(TOKEN);
    let good = wallet::signed("debit", &body);
    let calls = [
        good.clone(),
        good.clone().without("Authorization"),
        good.clone().replacing("Authorization", &basic("nobody", "hunter2-is-wrong")),
        good.clone().without("X-Request-Signature"),
        good.clone().replacing("X-Request-Signature", "zz"),
        good.clone().replacing("X-Request-Signature", &hmac_sha256_hex("x", b"")),
        good.clone().with("X_Request_Signature", "1"),
        good.clone().with("Content-Encoding", "gzip"),
        good.clone().replacing("Content-Type", "text/plain"),
        wallet::signed("debit", "{}"),
        wallet::signed("debit", "{\"token\":1}"),
        wallet::signed("debit", "{"),
        wallet::signed("nothing", &body),
        Request::new("GET", "/api/wallet/debit"),
    ];
    let world = World::of("config/wallet.toml", &[]).await;
    for call in calls {
        let reply = world.send(&call).await;
        let (code, text) = explained("config/wallet.toml", &call.bytes(), &[]);
        assert_eq!(code == 0, reply.status == 200, "{text}");
        if reply.status != 200 {
            assert!(text.contains(&format!("the caller is told {} ", reply.status)), "{} {text}", reply.status);
            let first = text.lines().find_map(|line| line.trim().strip_prefix("refused as ")).unwrap();
            assert!(text.contains(&format!("reason {first}\n")), "{text}");
        }
    }
}

/// A store that is not there is not asked, and nothing is written into a journal.
#[test]
fn it_calls_nobody_and_knows_the_digest_of_a_journal() {
    let folder = Folder::new("explain-journal");
    folder.write("digest.key", "0123456789abcdef0123456789abcdef");
    let journal = format!("revocation.journal={:?}", folder.path());
    let call = wallet::signed("debit", &wallet::body(TOKEN)).bytes();
    let (code, text) = explained("config/wallet.toml", &call, &["--set", &journal]);
    assert_eq!(code, 0, "{text}");
    let key = portcullis::secret::DigestKey::new(*b"0123456789abcdef0123456789abcdef");
    let digest = portcullis::token::TokenDigest::of(TOKEN.as_bytes(), &key);
    assert!(text.contains(&format!("digest {digest}, as in the log")), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let redis = ["--set", &journal, "--set", "revocation.redis.url=redis://127.0.0.1:1"];
    let (code, text) = explained("config/wallet.toml", &call, &redis);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("digest"), "in a store lies another key: {text}");
}

#[test]
fn a_hashed_password_is_verified() {
    let folder = Folder::new("explain-hash");
    let hash = folder.write("hash", &bcrypt::hash(wallet::PASSWORD, 4).unwrap());
    let config = std::fs::read_to_string(crate::world::root().join("config/wallet.toml")).unwrap();
    let hashed =
        config.replace("password = { env = \"WALLET_PASSWORD\" }", &format!("password_hash = {{ file = {hash:?} }}"));
    let config = folder.write("wallet.toml", &hashed);
    let good = wallet::signed("debit", &wallet::body(TOKEN));
    assert_eq!(explained(&config, &good.bytes(), &[]).0, 0);
    let wrong = good.replacing("Authorization", &basic(wallet::USER, "hunter2-is-wrong"));
    let (code, text) = explained(&config, &wrong.bytes(), &[]);
    assert_eq!(code, 1);
    assert!(text.contains("the user is that of `fantasy-goal`, and the password (…)"), "{text}");
}

#[test]
fn a_secret_that_was_not_decoded_and_a_field_that_was_not_packed_are_named() {
    let folder = Folder::new("explain-packed");
    let dialect = r#"
name = "hooks"
credential = "none"
[signature]
message = "{timestamp}.{body}"
algorithm = "hmac-sha256"
encoding = "base64"
at = "header:X-Sign"
format = "t={timestamp},v1={signature}"
separator = ","
timestamp = { at = "signature", tolerance = "60s" }
key = { prefix = "whsec_", encoding = "base64" }
"#;
    let dialect = folder.write("hooks.toml", &format!("{dialect}{REST}"));
    let secret = format!("whsec_{BASE64_SECRET}");
    let file = folder.write("secret", &secret);
    let config = folder.write(
        "config.toml",
        &format!(
            "dialect = {dialect:?}\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n\
             [[caller]]\nname = \"hooks\"\nsigning = [{{ id = \"1\", key = {{ file = {file:?} }} }}]\n"
        ),
    );
    let key = STANDARD.decode(BASE64_SECRET).unwrap();
    let time = now();
    let message = format!("{time}.{{}}");
    let sign = |key: &[u8]| STANDARD.encode(mac(key, message.as_bytes()));
    let cases = [
        (format!("t={time},v1={}", sign(&key)), None),
        (format!("t={time},v1={}", sign(secret.as_bytes())), Some("took the secret as it is for the key")),
        (format!("t={time},v1={}", hex(&mac(&key, message.as_bytes()))), Some("spelled in hexadecimal")),
        (format!("t={time},v1={}", sign(&key).trim_end_matches('=')), Some("without its padding")),
        (STANDARD.encode(mac(&key, b"{}")), None),
    ];
    for (field, named) in cases {
        let call = Request::new("POST", "/v1/players/17/bets?currency=EUR").with("X-Sign", &field).body("{}");
        let (code, text) = explained(&config, &call.bytes(), &[]);
        let packed = field.starts_with("t=");
        assert_eq!(code, i32::from(named.is_some() || !packed), "{named:?}\n{text}");
        let expected = named.unwrap_or(if packed { "admitted as `bet`" } else { "write t=TIMESTAMP,v1=SIGNATURE" });
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_key_id_of_nobody_is_told_and_whose_the_signature_is() {
    let right = betstack::body("ticket_create", "");
    let body = right.replace(betstack::OPERATOR, "nobody");
    let (code, text) = explained("config/betstack.toml", &betstack::signed(&body).bytes(), &[]);
    assert_eq!(code, 1);
    assert!(text.contains("the key id is that of no caller"), "{text}");
    assert!(text.contains("the signature itself matches: betstack, key 2026-11"), "{text}");
    let late = betstack::signed_at(&right, 1_706_191_612).replacing("timestamp", "2024-01-25T14:06:52Z");
    let (_, text) = explained("config/betstack.toml", &late.bytes(), &[]);
    assert!(text.contains("the timestamp is a date; this family counts seconds"), "{text}");
}
