//! The wallet family: Basic credentials and a signed body, the token in the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::world::{
    Folder, Refusal, Request, World, answer, assert_refusals, assert_refused_by_the_first_check, basic, correlation_of,
    hmac_sha256_hex, wallet,
};

const OPERATIONS: [&str; 6] = ["authenticate", "balance", "debit", "credit", "rollback", "terminate"];

/// A good call with any bytes, signed as they are.
fn signed(operation: &str, body: impl Into<Vec<u8>>) -> Request {
    let body = body.into();
    wallet::signed(operation, "").replacing("X-Request-Signature", &hmac_sha256_hex(wallet::KEY, &body)).body(body)
}

fn with_token(json: &str) -> String {
    format!(r#"{{"token":{json},"player_id":1}}"#)
}

#[tokio::test]
async fn every_operation_passes_and_its_bytes_arrive_unchanged() {
    let world = World::wallet().await;
    let body = "{ \"token\" : \"a\\u0062c\",\r\n\t\"amount\": 10.00, \"note\": \"Gr\u{fc}\u{df}e\" }\n";
    let mut count = 0;
    for operation in OPERATIONS {
        let request = signed(operation, body);
        for over_h2 in [false, true] {
            let reply = if over_h2 { world.send_h2(&request).await } else { world.send(&request).await };
            assert_eq!(reply.status, 200, "{operation}");
            count += 1;
            let requests = world.pam.requests();
            assert_eq!(requests.len(), count);
            let seen = &requests[count - 1];
            assert_eq!(seen.method, "POST");
            assert_eq!(seen.target, format!("/api/wallet/{operation}"));
            assert_eq!(seen.body, body.as_bytes());
            assert_eq!(seen.values("content-length"), [body.len().to_string()]);
            assert_eq!(seen.values("authorization"), request.values("authorization"));
            assert_eq!(seen.values("x-request-signature"), request.values("x-request-signature"));
        }
    }
}

#[tokio::test]
async fn what_no_route_names_is_not_found() {
    let body = wallet::body("a");
    let good = wallet::signed("debit", &body);
    let elsewhere =
        |method: &str, target: &str| Request { method: method.to_owned(), target: target.to_owned(), ..good.clone() };
    let mut refusals: Vec<_> = [
        ("POST", "/api/wallet/withdraw"),
        ("POST", "/api/wallet/debit/"),
        ("POST", "/api/wallet/debit/1"),
        ("POST", "/api/wallet/Debit"),
        ("POST", "/api/wallet/"),
        ("POST", "/api/wallet"),
        ("POST", "/"),
        ("POST", "/wallet/debit"),
        ("POST", "/metrics"),
        ("PUT", "/api/wallet/debit"),
        ("PATCH", "/api/wallet/debit"),
        ("DELETE", "/api/wallet/debit"),
        ("OPTIONS", "/api/wallet/debit"),
        ("GET", "/api/wallet/debit"),
        ("GET", "/metrics"),
    ]
    .map(|(method, target)| Refusal::new(target, elsewhere(method, target), 404, 404, "no_route"))
    .into();
    let stranger = Request::new("POST", "/api/wallet/withdraw");
    refusals.push(Refusal::new("without any proof", stranger, 404, 404, "no_route"));
    let bare = Request::new("GET", "/api/wallet/balance");
    refusals.push(Refusal::new("GET without a body", bare, 404, 404, "no_route"));
    for target in ["/api/wallet/../wallet/debit", "/api//wallet/debit", "/api/wallet/de%62it;x", "/api/wallet%2fdebit"]
    {
        refusals.push(Refusal::new(target, elsewhere("POST", target), 400, 400, "target"));
    }
    assert_refusals(World::wallet().await, wallet::code, refusals).await;
}

fn unsigned(what: &str, request: Request, reason: &'static str) -> Refusal {
    Refusal::new(what, request, 401, 401, reason)
}

// threat: D1
// threat: C2
#[tokio::test]
async fn a_signature_is_sixty_four_hexadecimal_digits_once() {
    let body = wallet::body("a");
    let good = wallet::signed("debit", &body);
    let hex = hmac_sha256_hex(wallet::KEY, body.as_bytes());
    let raw: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let flipped = |at: usize| {
        let digit = u8::from_str_radix(&hex[at..=at], 16).unwrap() ^ 1;
        format!("{}{digit:x}{}", &hex[..at], &hex[at + 1..])
    };
    let twice = |value: &str| good.clone().with("X-Request-Signature", value);
    let other = |value: &str| good.clone().replacing("X-Request-Signature", value);
    let mut refusals = vec![
        unsigned("missing", good.clone().without("X-Request-Signature"), "signature_missing"),
        unsigned("the same twice", twice(&hex), "signature_repeated"),
        unsigned("a wrong one behind", twice(&flipped(0)), "signature_repeated"),
        unsigned("an empty one behind", twice(""), "signature_repeated"),
        unsigned("a wrong one in front", other(&flipped(0)).with("x-request-signature", &hex), "signature_repeated"),
    ];
    for at in [0, 1, 31, 32, 62, 63] {
        refusals.push(unsigned(&format!("digit {at} flipped"), other(&flipped(at)), "signature_wrong"));
    }
    let malformed = [
        String::new(),
        "0".to_owned(),
        hex[..63].to_owned(),
        hex[..62].to_owned(),
        format!("{hex}0"),
        format!("{hex}00"),
        format!("{hex}{hex}"),
        format!("0x{hex}"),
        format!("0x{}", &hex[2..]),
        format!("sha256={hex}"),
        format!("{hex},{hex}"),
        format!("{hex}, {hex}"),
        format!("\"{hex}\""),
        format!("{} {}", &hex[..32], &hex[32..]),
        format!("g{}", &hex[1..]),
        format!("{}\u{ff10}", &hex[..63]),
        STANDARD.encode(&raw),
        STANDARD.encode(&hex),
    ];
    refusals.extend(malformed.iter().map(|value| unsigned(value, other(value), "signature_malformed")));
    assert_refusals(World::wallet().await, wallet::code, refusals).await;
}

#[tokio::test]
async fn hexadecimal_digits_count_in_either_case() {
    let world = World::wallet().await;
    let body = wallet::body("a");
    let hex = hmac_sha256_hex(wallet::KEY, body.as_bytes());
    let mixed: String =
        hex.char_indices().map(|(at, digit)| if at % 2 == 0 { digit.to_ascii_uppercase() } else { digit }).collect();
    for value in [hex.to_uppercase(), mixed] {
        let request = wallet::signed("debit", &body).replacing("X-Request-Signature", &value);
        assert_eq!(world.send(&request).await.status, 200, "{value}");
        assert_eq!(world.send_h2(&request).await.status, 200, "{value}");
    }
}

// threat: D2
// threat: D3
#[tokio::test]
async fn a_signature_holds_for_its_bytes_its_key_and_its_algorithm() {
    use sha2::Digest as _;
    let body = wallet::body("a");
    let good = wallet::signed("debit", &body);
    let plain = |bytes: &[u8]| -> String { sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect() };
    let hashed = sha2::Sha256::digest(&body);
    let signatures = [
        ("another key", hmac_sha256_hex("another key", body.as_bytes())),
        ("the password as key", hmac_sha256_hex(wallet::PASSWORD, body.as_bytes())),
        ("an empty key", hmac_sha256_hex("", body.as_bytes())),
        ("a key with a line feed", hmac_sha256_hex(&format!("{}\n", wallet::KEY), body.as_bytes())),
        ("the hash of the body", hmac_sha256_hex(wallet::KEY, &hashed)),
        ("the hash in digits", hmac_sha256_hex(wallet::KEY, plain(body.as_bytes()).as_bytes())),
        ("key in front", plain(format!("{}{body}", wallet::KEY).as_bytes())),
        ("key behind", plain(format!("{body}{}", wallet::KEY).as_bytes())),
        ("no key", plain(body.as_bytes())),
        ("an empty message", hmac_sha256_hex(wallet::KEY, b"")),
        ("another body", hmac_sha256_hex(wallet::KEY, wallet::body("b").as_bytes())),
    ];
    let mut refusals: Vec<_> = signatures
        .iter()
        .map(|(what, value)| unsigned(what, good.clone().replacing("X-Request-Signature", value), "signature_wrong"))
        .collect();
    let bytes = body.as_bytes();
    let bodies: [(&str, Vec<u8>); 9] = [
        ("one byte changed", body.replace("\"a\"", "\"b\"").into_bytes()),
        ("a NUL behind", [bytes, b"\0"].concat()),
        ("a line feed behind", [bytes, b"\n"].concat()),
        ("a blank in front", [b" ", bytes].concat()),
        ("a BOM in front", ["\u{feff}".as_bytes(), bytes].concat()),
        ("blanks after a comma", body.replace(',', ", ").into_bytes()),
        ("an escape for a character", body.replace("\"a\"", "\"\\u0061\"").into_bytes()),
        ("members in another order", br#"{"player_id":1,"token":"a"}"#.to_vec()),
        ("the last byte cut off", bytes[..bytes.len() - 1].to_vec()),
    ];
    refusals.extend(bodies.into_iter().map(|(what, body)| unsigned(what, good.clone().body(body), "signature_wrong")));
    refusals.push(unsigned("no body", good.body(""), "signature_wrong"));
    assert_refusals(World::wallet().await, wallet::code, refusals).await;
}

// threat: A20
// threat: C3
#[tokio::test]
async fn the_signature_hides_behind_no_twin_and_no_connection_field() {
    let good = wallet::signed("debit", &wallet::body("a"));
    let hex = hmac_sha256_hex(wallet::KEY, &good.body);
    let mut refusals = Vec::new();
    for twin in ["X_Request_Signature", "X-Request_Signature", "x_request-signature", "Content_Length"] {
        refusals.push(Refusal::new(twin, good.clone().with(twin, &hex), 400, 400, "twin_field"));
    }
    let alone = good.clone().without("X-Request-Signature").with("X_Request_Signature", &hex);
    refusals.push(Refusal::new("a twin alone", alone, 400, 400, "twin_field"));
    for name in ["X-Request-Signature", "Authorization", "Content-Length", "Content-Type"] {
        let named = good.clone().with("Connection", &format!("close, {name}"));
        refusals.push(Refusal::new(name, named, 400, 400, "connection").http1_only());
    }
    assert_refusals(World::wallet().await, wallet::code, refusals).await;
}

// threat: D15
#[tokio::test]
async fn any_of_a_callers_signing_keys_signs() {
    let folder = Folder::new("wallet-keys");
    let callers = r#"
[[caller]]
name = "rotating"
basic = { username = "rotating", password = { file = "password" } }
signing = [{ id = "2026-10", key = { file = "old" } }, { id = "2026-11", key = { file = "new" } }]
"#;
    let config = folder.config(
        "\"wallet\"",
        callers,
        &[("password", "password"), ("old", "the old key"), ("new", "the new key")],
    );
    let world = World::of(&config, &[]).await;
    let body = wallet::body("a");
    let by = |key: &str| {
        wallet::signed("debit", &body)
            .replacing("Authorization", &basic("rotating", "password"))
            .replacing("X-Request-Signature", &hmac_sha256_hex(key, body.as_bytes()))
    };
    assert_eq!(world.send(&by("the old key")).await.status, 200);
    assert_eq!(world.send(&by("the new key")).await.status, 200);
    assert_eq!(world.send(&by("an older key")).await.status, 401);
    let lines = world.finish().await;
    let keys: Vec<_> = lines.iter().map(|line| line["key_id"].as_str().unwrap_or("none")).collect();
    assert_eq!(keys, ["2026-10", "2026-11", "none"]);
}

/// Tokens as JSON values that are admitted.
pub fn good_tokens() -> Vec<String> {
    vec![
        "\"a\"".to_owned(),
        "\"3dc8fe01-2018-486e-9632-35aef21028a5\"".to_owned(),
        format!("\"{}\"", "a".repeat(128)),
        // The length is that of the decoded text.
        format!("\"{}\"", "\\u0061".repeat(128)),
        r#""\u0041\/b!~""#.to_owned(),
        r#""\"\\""#.to_owned(),
    ]
}

/// Tokens as JSON values that are not.
pub fn bad_tokens() -> Vec<String> {
    let mut bad = vec![format!("\"{}\"", "a".repeat(129)), format!("\"{}\"", "\\u0061".repeat(129))];
    let values = [
        r#""""#,
        r#"" ""#,
        r#""a b""#,
        r#"" a""#,
        r#""a ""#,
        r#""a\u0020b""#,
        r#""a\tb""#,
        r#""a\n""#,
        r#""a\u0000""#,
        r#""a\u007f""#,
        r#""ä""#,
        r#""\u00e4""#,
        r#""\ud83d\ude00""#,
        "\"a\u{200b}\"",
        "\"\u{a0}a\"",
        "12345",
        "1.5",
        "-0",
        "null",
        "true",
        "false",
        "[]",
        r#"["a"]"#,
        "{}",
        r#"{"token":"a"}"#,
    ];
    bad.extend(values.map(str::to_owned));
    bad
}

/// Ways to break a body, an object, so that two readers could take it for different things.
pub fn broken_bodies(good: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |member: &str| -> Vec<u8> { format!("{{{member},{}", &good[1..]).into_bytes() };
    let behind = |tail: &[u8]| [good.as_bytes(), tail].concat();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        ("a BOM", [b"\xef\xbb\xbf", good.as_bytes()].concat(), "byte_order_mark"),
        ("two documents", behind(good.as_bytes()), "trailing_bytes"),
        ("a NUL behind", behind(b"\0"), "trailing_bytes"),
        ("a brace behind", behind(b"}"), "trailing_bytes"),
        ("a comma behind", behind(b","), "trailing_bytes"),
        ("a comment behind", behind(b" // x"), "trailing_bytes"),
        ("65 levels", with(&format!("\"x\":{}{}", "[".repeat(64), "]".repeat(64))), "too_deep"),
        ("a bomb of brackets", with(&format!("\"x\":{}", "[".repeat(30_000))), "too_deep"),
        ("a key twice", with(r#""x":1,"x":1"#), "duplicate_key"),
        ("a key twice, deeper", with(r#""x":[{"y":1,"y":2}]"#), "duplicate_key"),
        ("a key twice, once with an escape", with(r#""x":{"y":1,"\u0079":2}"#), "duplicate_key"),
        ("a NUL in a key", with(r#""x\u0000":1"#), "key_control_character"),
        ("not UTF-8 in what nobody reads", [b"{\"x\":\"\xff\",", &good.as_bytes()[1..]].concat(), "not_utf8"),
        ("an overlong code point", [b"{\"x\":\"\xc0\xaf\",", &good.as_bytes()[1..]].concat(), "not_utf8"),
        ("a surrogate in CESU-8", [b"{\"x\":\"\xed\xa0\x80\",", &good.as_bytes()[1..]].concat(), "not_utf8"),
        ("a lone surrogate", with(r#""x":"\ud800""#), "unrepresentable"),
        ("a number beyond every float", with("\"x\":1e400"), "unrepresentable"),
        ("NaN", with("\"x\":NaN"), "syntax"),
        ("Infinity", with("\"x\":-Infinity"), "syntax"),
        ("a zero in front", with("\"x\":01"), "syntax"),
        ("a control character in a string", with("\"x\":\"\u{1}\""), "syntax"),
        ("single quotes", with("'x':1"), "syntax"),
        ("a comma too many", format!("{},}}", &good[..good.len() - 1]).into_bytes(), "syntax"),
        ("a comment", with("\"x\":/**/1"), "syntax"),
        ("UTF-16", utf16, "syntax"),
        ("cut off", good.as_bytes()[..good.len() - 1].to_vec(), "syntax"),
        ("nothing", Vec::new(), "syntax"),
        ("white space", b" \r\n\t".to_vec(), "syntax"),
        ("a vertical tab in front", [b"\x0b", good.as_bytes()].concat(), "syntax"),
        ("a no-break space in front", ["\u{a0}".as_bytes(), good.as_bytes()].concat(), "syntax"),
        ("a line separator in front", ["\u{2028}".as_bytes(), good.as_bytes()].concat(), "syntax"),
    ]
}

// threat: E2
#[tokio::test]
async fn a_token_is_counted_and_read_in_its_decoded_form() {
    let world = World::wallet().await;
    let mut count = 0;
    for token in good_tokens() {
        let request = signed("balance", with_token(&token));
        assert_eq!(world.send(&request).await.status, 200, "{token}");
        assert_eq!(world.send_h2(&request).await.status, 200, "{token}");
        count += 2;
    }
    for body in [r#"{"tok\u0065n":"a"}"#, "\r\n\t {\"token\" : \"a\"} \n"] {
        assert_eq!(world.send(&signed("balance", body)).await.status, 200, "{body}");
        count += 1;
    }
    assert_eq!(world.pam.requests().len(), count);
}

// threat: E9
#[tokio::test]
async fn a_token_is_a_visible_string_of_1_to_128_characters() {
    let refused = |what: &str, body: String, reason| Refusal::new(what, signed("balance", body), 401, 401, reason);
    let mut refusals: Vec<_> =
        bad_tokens().iter().map(|token| refused(token, with_token(token), "token_malformed")).collect();
    let missing = "token_missing";
    refusals.push(refused("no token", r#"{"player_id":1}"#.to_owned(), missing));
    refusals.push(refused("an empty object", "{}".to_owned(), missing));
    refusals.push(refused("a token deeper", r#"{"data":{"token":"a"}}"#.to_owned(), missing));
    for body in ["[]", "\"token\"", "1", "null", r#"[{"token":"a"}]"#] {
        refusals.push(refused(body, body.to_owned(), missing));
    }
    assert_refusals(World::wallet().await, wallet::code, refusals).await;
}

// threat: E1
// threat: E3
// threat: E4
// threat: E5
// threat: E6
// threat: E7
#[tokio::test]
async fn a_body_that_readers_disagree_about_is_refused() {
    let mut broken = broken_bodies(&wallet::body("a"));
    let twins = [
        ("the token twice", r#"{"token":"a","token":"b"}"#, "duplicate_key"),
        ("the same token twice", r#"{"token":"a","x":1,"token":"a"}"#, "duplicate_key"),
        ("twice in different types", r#"{"token":"a","token":null}"#, "duplicate_key"),
        ("once with an escape", r#"{"token":"a","\u0074oken":"b"}"#, "duplicate_key"),
        ("capitalised", r#"{"token":"a","Token":"b"}"#, "twin_key"),
        ("in capitals", r#"{"TOKEN":"b","token":"a"}"#, "twin_key"),
        ("with a Kelvin sign", "{\"token\":\"a\",\"to\u{212a}en\":\"b\"}", "twin_key"),
        ("a twin alone", r#"{"Token":"a"}"#, "twin_key"),
        ("a control character behind", r#"{"token":"a","token\u0000":"b"}"#, "key_control_character"),
    ];
    broken.extend(twins.map(|(what, body, reason)| (what, body.as_bytes().to_vec(), reason)));
    let refusals = broken.into_iter().map(|(what, body, reason)| {
        // Signed as it is: a caller that has proven itself.
        Refusal::new(what, signed("debit", body), 400, 400, reason)
    });
    assert_refusals(World::wallet().await, wallet::code, refusals.collect()).await;
}

#[tokio::test]
async fn sixty_four_levels_pass() {
    let world = World::wallet().await;
    let body = format!("{{\"x\":{}{},\"token\":\"a\"}}", "[".repeat(63), "]".repeat(63));
    assert_eq!(world.send(&signed("debit", body)).await.status, 200);
}

// threat: E10
// threat: E11
#[tokio::test]
async fn a_body_is_plain_and_declared_as_json() {
    let good = wallet::signed("debit", &wallet::body("a"));
    let mut refusals = Vec::new();
    for coding in ["gzip", "GZIP", "br", "identity, gzip", "gzip, gzip", "deflate", "aes128gcm", "x", ""] {
        let request = good.clone().with("Content-Encoding", coding);
        refusals.push(Refusal::new(&format!("coding {coding:?}"), request, 415, 400, "content_encoding"));
    }
    let twice = good.clone().with("Content-Encoding", "identity").with("Content-Encoding", "identity");
    refusals.push(Refusal::new("two codings", twice, 415, 400, "content_encoding"));
    for kind in [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/octet-stream",
        "application/json; charset=utf-16",
        "application/json;charset=\"ISO-8859-1\"",
        "application/json, text/plain",
        "application/x-www-form-urlencoded, application/x+json",
        "application/x-www-form-urlencoded +json",
        "json",
        "",
    ] {
        let request = good.clone().replacing("Content-Type", kind);
        refusals.push(Refusal::new(&format!("type {kind:?}"), request, 415, 400, "content_type"));
    }
    let twice = good.with("Content-Type", "application/json");
    refusals.push(Refusal::new("two types", twice, 415, 400, "content_type"));
    assert_refusals(World::wallet().await, wallet::code, refusals).await;
}

#[tokio::test]
async fn the_usual_ways_to_declare_json_pass() {
    let world = World::wallet().await;
    let good = wallet::signed("debit", &wallet::body("a"));
    let kinds = ["application/json", "application/json; charset=UTF-8", "Application/JSON;charset=\"utf-8\""];
    for kind in kinds {
        assert_eq!(world.send(&good.clone().replacing("Content-Type", kind)).await.status, 200, "{kind}");
    }
    assert_eq!(world.send(&good.clone().without("Content-Type")).await.status, 200, "without a type");
    assert_eq!(world.send(&good.with("Content-Encoding", "identity")).await.status, 200, "identity");
}

fn body_of(length: usize) -> String {
    let frame = r#"{"token":"a","x":""}"#;
    format!(r#"{{"token":"a","x":"{}"}}"#, "x".repeat(length - frame.len()))
}

#[tokio::test]
async fn a_body_of_64_kib_arrives_whole_and_one_byte_more_does_not_at_all() {
    let world = World::wallet().await;
    let largest = body_of(65_536);
    assert_eq!(world.send(&signed("debit", &*largest)).await.status, 200);
    assert_eq!(world.send_h2(&signed("debit", &*largest)).await.status, 200);
    assert!(world.pam.requests().iter().all(|seen| seen.body == largest.as_bytes()));
    assert_eq!(world.pam.requests().len(), 2);
    let larger = Refusal::new("65,537 bytes", signed("debit", body_of(65_537)), 413, 400, "body_too_large");
    assert_refusals(World::wallet().await, wallet::code, vec![larger]).await;
}

#[tokio::test]
async fn the_limit_of_a_body_can_be_moved_both_ways() {
    let world = World::of("config/wallet.toml", &["limits.body=1MiB"]).await;
    for length in [65_537, 1_048_576] {
        let body = body_of(length);
        assert_eq!(world.send(&signed("debit", &*body)).await.status, 200);
        assert_eq!(world.send_h2(&signed("debit", &*body)).await.status, 200);
        assert_eq!(world.pam.requests().last().unwrap().body, body.as_bytes());
    }
    let larger = Refusal::new("1 MiB and a byte", signed("debit", body_of(1_048_577)), 413, 400, "body_too_large");
    let world = World::of("config/wallet.toml", &["limits.body=1MiB"]).await;
    assert_refusals(world, wallet::code, vec![larger]).await;
    let small = World::of("config/wallet.toml", &["limits.body=100"]).await;
    assert_eq!(small.send(&signed("debit", body_of(100))).await.status, 200);
    assert_eq!(small.send(&signed("debit", body_of(101))).await.status, 413);
    assert_eq!(small.pam.requests().len(), 1);
}

#[tokio::test]
async fn the_length_of_tokens_can_be_overridden() {
    let world = World::of("config/wallet.toml", &["token.length=[2, 3]"]).await;
    for (token, status) in [("a", 401), ("ab", 200), ("abc", 200), ("abcd", 401)] {
        assert_eq!(world.send(&wallet::signed("debit", &wallet::body(token))).await.status, status, "{token}");
    }
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test]
async fn the_request_id_is_the_correlation_id_when_that_is_a_uuid() {
    let world = World::wallet().await;
    let id = "3dc8fe01-2018-486e-9632-35aef21028a5";
    let request = Request::new("POST", "/api/wallet/none").with("X-Correlation-ID", id);
    let reply = world.send(&request).await;
    assert_eq!(reply.json()["request_id"], id);
    assert_eq!(correlation_of(&reply), id);
    let reply = world.send(&request.replacing("X-Correlation-ID", "not-a-uuid")).await;
    assert_eq!(correlation_of(&reply), "not-a-uuid");
    let other = world.send(&Request::new("POST", "/api/wallet/none")).await;
    assert_eq!(correlation_of(&other), other.json()["request_id"]);
    assert_ne!(reply.json()["request_id"], other.json()["request_id"]);
}

#[tokio::test]
async fn the_pams_refusal_reaches_the_caller_as_it_is() {
    let world = World::wallet().await;
    let body = r#"{"status":false,"code":7,"message":"insufficient funds","request_id":"x"}"#;
    for status in [200, 400, 401, 403, 404, 409, 500, 503] {
        world.pam.answer_with(move |_| answer(status, body));
        let reply = world.send(&wallet::signed("debit", &wallet::body("a"))).await;
        assert_eq!((reply.status, &*reply.text()), (status, body));
    }
}

#[tokio::test]
async fn trouble_with_the_pam_is_told_in_the_wallets_words_and_never_as_401() {
    let world = World::of("config/wallet.toml", &["timeouts.total=100ms"]).await;
    let _held = world.pam.hold(Vec::new());
    let reply = world.send(&wallet::signed("debit", &wallet::body("a"))).await;
    assert_eq!((reply.status, wallet::code(&reply)), (504, 504.into()));
    world.pam.answer_in_turn(vec![None]);
    let reply = world.send(&wallet::signed("debit", &wallet::body("a"))).await;
    assert_eq!((reply.status, wallet::code(&reply)), (502, 502.into()));
    assert_eq!(world.pam.requests().len(), 2);
}

/// A wallet call, broken in any of these ways.
#[derive(Clone, Copy, Debug)]
struct Broken {
    route: bool,
    size: bool,
    credential: bool,
    signature: bool,
    token: bool,
    dead: bool,
}

impl Broken {
    fn every_way() -> impl Iterator<Item = Broken> {
        (1..64u8).map(|bits| {
            let [route, size, credential, signature, token, dead] = std::array::from_fn(|bit| bits & 1 << bit != 0);
            Broken { route, size, credential, signature, token, dead }
        })
    }

    fn request(self) -> Request {
        let token = match (self.token, self.dead) {
            (true, _) => "not a token",
            (false, true) => "dead",
            (false, false) => "alive",
        };
        let padding = if self.size { 65_536 } else { 0 };
        let body = format!("{}{}", wallet::body(token), " ".repeat(padding));
        let mut request = wallet::signed(if self.route { "none" } else { "terminate" }, &body);
        if self.credential {
            request = request.replacing("Authorization", &basic(wallet::USER, "wrong"));
        }
        if self.signature {
            request = request.replacing("X-Request-Signature", &hmac_sha256_hex("wrong", body.as_bytes()));
        }
        request
    }

    /// The first check in the order of the gate.
    fn expected(self) -> (u16, &'static str) {
        match self {
            Broken { route: true, .. } => (404, "no_route"),
            Broken { size: true, .. } => (413, "body_too_large"),
            Broken { credential: true, .. } => (401, "credential_wrong"),
            Broken { signature: true, .. } => (401, "signature_wrong"),
            Broken { token: true, .. } => (401, "token_malformed"),
            Broken { .. } => (401, "token_ended"),
        }
    }
}

#[tokio::test]
async fn a_wallet_call_broken_in_several_ways_is_refused_by_the_first_check() {
    let world = World::wallet().await;
    world.pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    assert_eq!(world.send(&wallet::signed("terminate", &wallet::body("dead"))).await.status, 200);
    let ways = Broken::every_way();
    assert_refused_by_the_first_check(world, wallet::code, ways, Broken::request, Broken::expected).await;
}
