//! Who is calling: Basic and bearer credentials on real sockets, and what those learn who have none.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::world::{
    Folder, PATIENCE, Refusal, Reply, Request, World, assert_refusals, assert_refused_by_the_first_check, basic,
    correlation_of, hmac_sha256_hex, valkyrie, wallet,
};

const LOOK_UP: &str = "/players/session?provider=evolution";

fn with_authorization(value: &str) -> Request {
    valkyrie::call("GET", LOOK_UP).replacing("Authorization", value)
}

fn with_basic(bytes: &[u8]) -> Request {
    with_authorization(&format!("Basic {}", STANDARD.encode(bytes)))
}

fn refused(what: &str, request: Request, reason: &'static str) -> Refusal {
    Refusal::new(what, request, 401, "PAM_ERR_API_TOKEN", reason)
}

async fn assert_admitted(world: &World, requests: &[(&str, Request)]) {
    for (what, request) in requests {
        assert_eq!(world.send(request).await.status, 200, "{what}");
        assert_eq!(world.send_h2(request).await.status, 200, "{what} over HTTP/2");
    }
    assert_eq!(world.pam.requests().len(), 2 * requests.len());
}

const USERS: &str = r#"
[[caller]]
name = "colons"
basic = { username = "colons", password = { file = "colons" } }
[[caller]]
name = "test"
basic = { username = "test", password = { file = "pound" } }
[[caller]]
name = "Aladdin"
basic = { username = "Aladdin", password = { file = "sesame" } }
"#;

const PASSWORDS: [(&str, &str); 3] = [("colons", "a:b::c:d"), ("pound", "1234567£"), ("sesame", "open sesame")];

// threat: C11
#[tokio::test]
async fn basic_is_divided_at_the_first_colon_and_takes_utf8() {
    let folder = Folder::new("basic-good");
    let world = World::of(&folder.config("\"valkyrie\"", USERS, &PASSWORDS), &[]).await;
    let requests = [
        ("a password with colons", with_authorization(&basic("colons", "a:b::c:d"))),
        ("a password in UTF-8", with_authorization("Basic dGVzdDoxMjM0NTY3wqM=")),
        ("RFC 7617 section 2", with_authorization("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
        ("a scheme in another case", with_authorization("bAsIC QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
    ];
    assert_admitted(&world, &requests).await;
}

// threat: C11
// threat: C1
#[tokio::test]
async fn basic_that_is_not_strict_is_nobodys() {
    let folder = Folder::new("basic-bad");
    let world = World::of(&folder.config("\"valkyrie\"", USERS, &PASSWORDS), &[]).await;
    let good = STANDARD.encode("Aladdin:open sesame");
    let malformed = "credential_malformed";
    let mut refusals = vec![
        refused("no colon", with_basic(b"Aladdin"), malformed),
        refused("nothing", with_basic(b""), malformed),
        refused("a NUL", with_basic(b"Aladdin:open sesame\0"), malformed),
        refused("a line feed", with_basic(b"Aladdin:open sesame\n"), malformed),
        refused("a control character in front", with_basic(b"\x01Aladdin:open sesame"), malformed),
        refused("DEL", with_basic(b"Aladdin:open sesame\x7f"), malformed),
        refused("Latin-1", with_basic(b"test:1234567\xa3"), malformed),
        refused("an overlong colon", with_basic(b"Aladdin\xc0\xbaopen sesame"), malformed),
        refused("no user", with_basic(b":open sesame"), "credential_wrong"),
        refused("no password", with_basic(b"Aladdin:"), "credential_wrong"),
        refused("a colon more", with_basic(b"Aladdin::open sesame"), "credential_wrong"),
        refused("another case of the user", with_basic(b"aladdin:open sesame"), "credential_wrong"),
        refused("another case of the password", with_basic(b"Aladdin:Open sesame"), "credential_wrong"),
        refused("a blank behind", with_basic(b"Aladdin:open sesame "), "credential_wrong"),
        refused("a decomposed password", with_basic("test:1234567£\u{301}".as_bytes()), "credential_wrong"),
        refused("another user's password", with_basic(b"Aladdin:a:b::c:d"), "credential_wrong"),
        refused(
            "64 KiB less of a password",
            with_basic(&[b"Aladdin:", &[b'x'; 8000][..]].concat()),
            "credential_wrong",
        ),
        refused("no credential", with_authorization("").without("Authorization"), "credential_missing"),
    ];
    let values = [
        String::new(),
        "Basic".to_owned(),
        "Basic ".to_owned(),
        good.clone(),
        format!("Basic:{good}"),
        format!("Basic  {good}"),
        format!("Basic\t{good}"),
        format!("Basic \"{good}\""),
        format!("Basic {}", good.trim_end_matches('=')),
        format!("Basic {good}="),
        format!("Basic {good}=="),
        format!("Basic {good},"),
        format!("Basic {good}, Basic {good}"),
        format!("Basic {}\t{}", &good[..8], &good[8..]),
        // The two bits behind the last byte are not zero.
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZR==".to_owned(),
        format!("Basic {}", URL_SAFE.encode("colons:???>>>")),
        "Basic Aladdin:open sesame".to_owned(),
        format!("Digest username=\"Aladdin\", response=\"{good}\""),
        format!("Negotiate {good}"),
        format!("Basi\u{212a} {good}"),
    ];
    refusals.extend(values.iter().map(|value| refused(value, with_authorization(value), malformed)));
    assert_refusals(world, valkyrie::code, refusals).await;
}

// threat: C9
#[tokio::test]
async fn a_bearer_key_is_whole_or_nothing() {
    let key = valkyrie::KEY;
    let wrong = "credential_wrong";
    let bearer = |key: &str| with_authorization(&format!("Bearer {key}"));
    let refusals = vec![
        refused("a prefix", bearer(&key[..key.len() - 1]), wrong),
        refused("a character more", bearer(&format!("{key}x")), wrong),
        refused("padding more", bearer(&format!("{key}=")), wrong),
        refused("another last character", bearer(&format!("{}z", &key[..key.len() - 1])), wrong),
        refused("another case", bearer(&key.to_uppercase()), wrong),
        refused("a password as a key", bearer(valkyrie::PASSWORD), wrong),
        refused("a pair as a key", bearer(&STANDARD.encode(format!("operator:{}", valkyrie::PASSWORD))), wrong),
        refused("a key as a password", with_authorization(&basic("operator", key)), wrong),
        refused("no key, as the Valkyrie client sends it when none is set", bearer(""), "credential_malformed"),
        refused("the key alone", with_authorization(key), "credential_malformed"),
        refused("two blanks", bearer(&format!(" {key}")), "credential_malformed"),
        refused("two keys", bearer(&format!("{key}, {key}")), "credential_malformed"),
        refused("another scheme", with_authorization(&format!("Token {key}")), "credential_malformed"),
    ];
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

// threat: C4
#[tokio::test]
async fn the_case_of_names_and_the_blanks_around_values_make_no_difference() {
    let world = World::valkyrie().await;
    let requests = [
        ("bearer in lower case", with_authorization(&format!("bearer {}", valkyrie::KEY))),
        ("blanks around", with_authorization(&format!("  Bearer {} \t", valkyrie::KEY))),
        (
            "names in other cases",
            Request::new("GET", LOOK_UP)
                .with("aUTHORIZATION", &format!("Bearer {}", valkyrie::KEY))
                .with("x-pLaYeR-tOkEn", valkyrie::TOKEN),
        ),
    ];
    for (what, request) in &requests {
        assert_eq!(world.send(request).await.status, 200, "{what}");
    }
}

// threat: C12
#[tokio::test]
async fn credentials_in_the_query_or_in_cookies_count_for_nothing() {
    let key = valkyrie::KEY;
    let bare = |target: &str| Request::new("GET", target).with("X-Player-Token", valkyrie::TOKEN);
    let missing = "credential_missing";
    let refusals = vec![
        refused("api_key", bare(&format!("{LOOK_UP}&api_key={key}")), missing),
        refused("access_token", bare(&format!("{LOOK_UP}&access_token={key}")), missing),
        refused("authorization", bare(&format!("{LOOK_UP}&authorization=Bearer%20{key}")), missing),
        refused("a cookie", bare(LOOK_UP).with("Cookie", &format!("Authorization=Bearer {key}")), missing),
        refused("Proxy-Authorization", bare(LOOK_UP).with("Proxy-Authorization", &format!("Bearer {key}")), missing),
    ];
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

// threat: C2
#[tokio::test]
async fn two_credentials_are_refused_even_when_both_are_right() {
    let good = valkyrie::call("GET", LOOK_UP);
    let key = format!("Bearer {}", valkyrie::KEY);
    let repeated = "credential_repeated";
    let refusals = vec![
        refused("the same twice", good.clone().with("Authorization", &key), repeated),
        refused("in another case", good.clone().with("AUTHORIZATION", &key), repeated),
        refused("an empty one behind", good.clone().with("Authorization", ""), repeated),
        refused("bearer and Basic", good.with("Authorization", &basic("operator", valkyrie::PASSWORD)), repeated),
    ];
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

// threat: A20
// threat: C3
#[tokio::test]
async fn a_connection_field_cannot_name_a_header_that_was_checked() {
    let call = valkyrie::call("GET", LOOK_UP);
    let named = ["Authorization", "X-Player-Token", "x-player-token", "X-Correlation-ID", "traceparent", "Host"];
    let mut refusals: Vec<_> = named
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("close, {name}"), format!("keep-alive,{name}")])
        .map(|value| {
            let request = call.clone().with("Connection", &value);
            Refusal::new(&value, request, 400, "PAM_ERR_UNDEFINED", "connection").http1_only()
        })
        .collect();
    let second = call.with("Connection", "close").with("Connection", "X-Player-Token");
    refusals.push(Refusal::new("in a second field", second, 400, "PAM_ERR_UNDEFINED", "connection").http1_only());
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

// threat: C3
#[tokio::test]
async fn a_twin_with_underscores_is_refused_beside_the_header_and_alone() {
    let call = valkyrie::call("GET", LOOK_UP);
    let twins =
        ["X_Player_Token", "X-Player_Token", "x_player-token", "Content_Encoding", "Content_Type", "Transfer_Encoding"];
    let beside = twins.iter().map(|twin| (*twin, call.clone().with(twin, "1")));
    let alone = [("alone", call.clone().without("X-Player-Token").with("X_Player_Token", valkyrie::TOKEN))];
    let refusals = beside.chain(alone).map(|(what, request)| {
        // Nobody has been proven yet, so that it says nothing about a token.
        Refusal::new(what, request, 400, "PAM_ERR_UNDEFINED", "twin_field")
    });
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals.collect()).await;
}

#[tokio::test]
async fn a_wallet_takes_no_bearer_key() {
    let body = wallet::body("a");
    let refusals = [format!("Bearer {}", wallet::PASSWORD), format!("Bearer {}", wallet::KEY)].map(|value| {
        let request = wallet::signed("balance", &body).replacing("Authorization", &value);
        Refusal::new(&value, request, 401, 401, "credential_malformed")
    });
    assert_refusals(World::wallet().await, wallet::code, refusals.into()).await;
}

const ROTATION: &str = r#"
[[caller]]
name = "keys"
bearer = [{ file = "key-old" }, { file = "key-new" }]
[[caller]]
name = "plain"
basic = { username = "plain", password = [{ file = "plain-old" }, { file = "plain-new" }] }
[[caller]]
name = "mixed"
basic = { username = "mixed", password = { file = "mixed-plain" }, password_hash = [{ file = "bcrypt" }, { file = "argon2id" }] }
"#;

/// From the test vectors of crypt_blowfish ("U*U") and of the reference Argon2 ("password").
const HASHES: [(&str, &str); 2] = [
    ("bcrypt", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("argon2id", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"),
];

fn rotation(folder: &Folder) -> String {
    let plain = [
        ("key-old", "old-key-0123456789"),
        ("key-new", "new-key-0123456789"),
        ("plain-old", "old password"),
        ("plain-new", "new password"),
        ("mixed-plain", "mixed password"),
    ];
    folder.config("\"valkyrie\"", ROTATION, &[&plain[..], &HASHES[..]].concat())
}

// threat: D15
#[tokio::test]
async fn any_of_a_callers_secrets_admits_it() {
    let folder = Folder::new("rotation-good");
    let world = World::of(&rotation(&folder), &[]).await;
    let requests = [
        ("the old key", with_authorization("Bearer old-key-0123456789")),
        ("the new key", with_authorization("Bearer new-key-0123456789")),
        ("the old password", with_authorization(&basic("plain", "old password"))),
        ("the new password", with_authorization(&basic("plain", "new password"))),
        ("a plain password beside hashes", with_authorization(&basic("mixed", "mixed password"))),
        ("bcrypt", with_authorization(&basic("mixed", "U*U"))),
        ("argon2id", with_authorization(&basic("mixed", "password"))),
    ];
    assert_admitted(&world, &requests).await;
    let lines = world.finish().await;
    let callers: Vec<_> = lines.iter().step_by(2).map(|line| line["caller"].as_str().unwrap()).collect();
    assert_eq!(callers, ["keys", "keys", "plain", "plain", "mixed", "mixed", "mixed"]);
}

#[tokio::test]
async fn the_secrets_of_one_caller_admit_no_other() {
    let folder = Folder::new("rotation-bad");
    let world = World::of(&rotation(&folder), &[]).await;
    let wrong = |user: &str, password: &str| {
        refused(&format!("{user}:{password}"), with_authorization(&basic(user, password)), "credential_wrong")
    };
    let refusals = vec![
        wrong("plain", "U*U"),
        wrong("plain", "password"),
        wrong("plain", "mixed password"),
        wrong("mixed", "old password"),
        wrong("mixed", "U*u"),
        wrong("mixed", ""),
        wrong("mixed", HASHES[0].1),
        wrong("mixed", HASHES[1].1),
        wrong("keys", "old-key-0123456789"),
        wrong("nobody", "password"),
        wrong("nobody", "U*U"),
        wrong("", "U*U"),
        refused("another's password as a key", with_authorization("Bearer password"), "credential_wrong"),
    ];
    assert_refusals(world, valkyrie::code, refusals).await;
}

#[tokio::test]
async fn a_wrong_password_stays_wrong_after_the_right_one_was_remembered() {
    let folder = Folder::new("remembered");
    let world = World::of(&rotation(&folder), &[]).await;
    for _ in 0..2 {
        assert_eq!(world.send(&with_authorization(&basic("mixed", "U*U"))).await.status, 200);
        assert_eq!(world.send(&with_authorization(&basic("mixed", "U*V"))).await.status, 401);
        assert_eq!(world.send(&with_authorization(&basic("plain", "U*U"))).await.status, 401);
        assert_eq!(world.send(&with_authorization(&basic("mixe", "dU*U"))).await.status, 401);
    }
}

/// A reply without its date, if it has one.
fn seen_by_caller(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    // Only the clock may tell two replies apart.
    let fields = reply.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date")).cloned().collect();
    (reply.status, fields, reply.text())
}

// threat: C8
// threat: C1
#[tokio::test]
async fn whatever_is_wrong_with_a_credential_the_reply_is_the_same_to_the_byte() {
    let folder = Folder::new("same-reply");
    let world = World::of(&rotation(&folder), &[]).await;
    let credentials = [
        basic("plain", "wrong"),
        basic("nobody", "wrong"),
        basic("mixed", "wrong"),
        basic("nobody", "password"),
        basic("", ""),
        "Basic broken".to_owned(),
        "Bearer wrong-key".to_owned(),
        "Digest x".to_owned(),
    ];
    let request = |credential: &str| with_authorization(credential).with("X-Correlation-ID", "same");
    let first = world.send(&request(&credentials[0])).await;
    let missing = world.send(&request("").without("Authorization")).await;
    assert_eq!(seen_by_caller(&missing), seen_by_caller(&first));
    let first_h2 = world.send_h2(&request(&credentials[0])).await;
    for credential in &credentials {
        assert_eq!(seen_by_caller(&world.send(&request(credential)).await), seen_by_caller(&first), "{credential}");
        let reply = world.send_h2(&request(credential)).await;
        assert_eq!(seen_by_caller(&reply), seen_by_caller(&first_h2), "{credential}");
    }
    world.pam.assert_untouched();
}

// threat: C8
#[tokio::test]
async fn a_wallet_tells_an_unknown_user_a_wrong_password_and_a_wrong_signature_apart_by_nothing() {
    let world = World::wallet().await;
    let id = "019a0000-0000-7000-8000-000000000001";
    let good = wallet::signed("debit", &wallet::body("a")).with("X-Correlation-ID", id);
    let requests = [
        good.clone().replacing("Authorization", &basic(wallet::USER, "wrong")),
        good.clone().replacing("Authorization", &basic("nobody", wallet::PASSWORD)),
        good.clone().without("Authorization"),
        good.clone().replacing("X-Request-Signature", &hmac_sha256_hex("wrong", &good.body)),
        good.clone().replacing("X-Request-Signature", "xyz"),
        good.without("X-Request-Signature"),
    ];
    let mut replies = Vec::new();
    for request in &requests {
        replies.push(seen_by_caller(&world.send(request).await));
    }
    replies.dedup();
    assert_eq!(replies.len(), 1, "{replies:#?}");
    assert_eq!(replies[0].0, 401);
    world.pam.assert_untouched();
}

// threat: C10
#[tokio::test]
async fn a_caller_that_may_use_some_routes_is_refused_on_the_others() {
    let folder = Folder::new("routes");
    let callers = "[[caller]]\nname = \"reader\"\nbearer = { file = \"reader\" }\nroutes = [\"getSession\"]\n\
                   [[caller]]\nname = \"writer\"\nbearer = { file = \"writer\" }\n";
    let secrets = [("reader", "reader-key"), ("writer", "writer-key")];
    let world = World::of(&folder.config("\"valkyrie\"", callers, &secrets), &[]).await;
    let call = |method: &str, target: &str, key: &str| {
        valkyrie::call(method, target).replacing("Authorization", &format!("Bearer {key}"))
    };
    let balance = "/players/17/balance?provider=evolution";
    let not_allowed = "caller_not_allowed";
    let refusals = vec![
        refused("another route", call("GET", balance, "reader-key"), not_allowed),
        refused("another method", call("PUT", LOOK_UP, "reader-key"), not_allowed),
    ];
    assert_eq!(world.send(&refusals[0].request).await.status, 401);
    world.pam.assert_untouched();
    assert_eq!(world.send(&call("GET", LOOK_UP, "reader-key")).await.status, 200);
    assert_eq!(world.send(&call("GET", balance, "writer-key")).await.status, 200);
    let again = World::of(&folder.config("\"valkyrie\"", callers, &secrets), &[]).await;
    assert_refusals(again, valkyrie::code, refusals).await;
}

// threat: C10
// threat: D13
#[tokio::test]
async fn one_wallet_callers_key_does_not_sign_for_another() {
    let folder = Folder::new("wallet-two");
    let callers = r#"
[[caller]]
name = "one"
basic = { username = "one", password = { file = "password-one" } }
signing = [{ id = "k", key = { file = "signing-key-one" } }]
[[caller]]
name = "two"
basic = { username = "two", password = { file = "password-two" } }
signing = [{ id = "k", key = { file = "signing-key-two" } }]
"#;
    let names = ["password-one", "password-two", "signing-key-one", "signing-key-two"];
    let secrets = names.map(|name| (name, name));
    let config = folder.config("\"wallet\"", callers, &secrets);
    let body = wallet::body("a");
    let signed = |user: &str, password: &str, key: &str| {
        wallet::signed("debit", &body)
            .replacing("Authorization", &basic(user, password))
            .replacing("X-Request-Signature", &hmac_sha256_hex(key, body.as_bytes()))
    };
    let world = World::of(&config, &[]).await;
    assert_eq!(world.send(&signed("one", "password-one", "signing-key-one")).await.status, 200);
    assert_eq!(world.send(&signed("two", "password-two", "signing-key-two")).await.status, 200);
    let refusals = vec![
        Refusal::new("two's key", signed("one", "password-one", "signing-key-two"), 401, 401, "signature_wrong"),
        Refusal::new("one's key", signed("two", "password-two", "signing-key-one"), 401, 401, "signature_wrong"),
        Refusal::new("two's password", signed("one", "password-two", "signing-key-one"), 401, 401, "credential_wrong"),
        Refusal::new(
            "all of two's but the name",
            signed("one", "password-two", "signing-key-two"),
            401,
            401,
            "credential_wrong",
        ),
        Refusal::new(
            "the password as a key",
            signed("one", "password-one", "password-one"),
            401,
            401,
            "signature_wrong",
        ),
    ];
    assert_refusals(World::of(&config, &[]).await, wallet::code, refusals).await;
}

const SLOW: &str = r#"
[[caller]]
name = "slow"
basic = { username = "slow", password_hash = { file = "slow" } }
[[caller]]
name = "plain"
basic = { username = "plain", password = { file = "plain" } }
[[caller]]
name = "key"
bearer = { file = "key" }
"#;

/// A world with a hash that takes many times longer than a call, and `guesses` wrong passwords in flight.
async fn under_guesses(name: &str, guesses: usize) -> (World, mpsc::UnboundedReceiver<Reply>) {
    let folder = Folder::new(name);
    let secrets = [("slow", &*bcrypt::hash("right", 10).unwrap()), ("plain", "password"), ("key", "bearer-key")];
    let world = World::of(&folder.config("\"valkyrie\"", SLOW, &secrets), &[]).await;
    // Remembered from now on.
    assert_eq!(world.send(&with_authorization(&basic("slow", "right"))).await.status, 200);
    let (replied, replies) = mpsc::unbounded_channel();
    for guess in 0..guesses {
        let mut connection = world.connect().await;
        // An unknown user costs the same.
        let user = if guess % 2 == 0 { "slow" } else { "nobody" };
        connection.write(&with_authorization(&basic(user, &format!("guess {guess}"))).bytes()).await;
        let replied = replied.clone();
        tokio::spawn(async move { replied.send(connection.reply().await) });
    }
    (world, replies)
}

/// Who is unknown is measured against somebody's hash.
// threat: C8
#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let (world, _) = under_guesses("as-long", 0).await;
    let mut quickest = [Duration::MAX; 2];
    for _ in 0..5 {
        for (at, user) in ["slow", "nobody"].into_iter().enumerate() {
            let request = with_authorization(&basic(user, "wrong"));
            let start = Instant::now();
            assert_eq!(world.send(&request).await.status, 401);
            quickest[at] = quickest[at].min(start.elapsed());
        }
    }
    let [known, unknown] = quickest;
    // Without a hash it is hundreds of times quicker, and a busy machine does not make up for that five times.
    assert!(unknown > known / 3 && known > unknown / 3, "{known:?} {unknown:?}");
}

#[tokio::test]
async fn a_slow_hash_holds_up_nobody_else() {
    const GUESSES: usize = 40;
    let (world, mut replies) = under_guesses("slow", GUESSES).await;
    // All were sent, and the first was judged: the others wait their turn.
    assert_eq!(timeout(PATIENCE, replies.recv()).await.unwrap().unwrap().status, 401);
    for _ in 0..5 {
        for credential in ["Bearer bearer-key", &basic("plain", "password"), &basic("slow", "right")] {
            assert_eq!(world.send(&with_authorization(credential)).await.status, 200, "{credential}");
        }
    }
    let mut judged = 1;
    while replies.try_recv().is_ok() {
        judged += 1;
    }
    assert!(judged < GUESSES, "every guess was judged before fifteen calls were answered");
}

#[tokio::test]
async fn more_guesses_than_can_wait_are_our_trouble_and_not_their_guilt() {
    let (world, mut replies) = under_guesses("queue", 80).await;
    let refused = loop {
        let reply = timeout(PATIENCE, replies.recv()).await.unwrap().unwrap();
        if reply.status != 401 {
            break reply;
        }
    };
    assert_eq!(refused.status, 503);
    assert_eq!(valkyrie::code(&refused), "PAM_ERR_UNDEFINED");
    let _ = correlation_of(&refused);
    assert_eq!(world.send(&with_authorization("Bearer bearer-key")).await.status, 200);
}

/// A Valkyrie call, broken in any of these ways.
#[derive(Clone, Copy, Debug)]
struct Broken {
    route: bool,
    size: bool,
    credential: bool,
    provider: bool,
    token: bool,
    dead: bool,
}

impl Broken {
    fn every_way() -> impl Iterator<Item = Broken> {
        (1..64u8).map(|bits| {
            let [route, size, credential, provider, token, dead] = std::array::from_fn(|bit| bits & 1 << bit != 0);
            Broken { route, size, credential, provider, token, dead }
        })
    }

    fn request(self, dead: &str) -> Request {
        let path = if self.route { "/players/17/balances" } else { "/players/17/transactions" };
        let query = if self.provider { "" } else { "?provider=evolution" };
        let key = if self.credential { "wrong" } else { valkyrie::KEY };
        let token = match (self.token, self.dead) {
            (true, _) => "short",
            (false, true) => dead,
            (false, false) => valkyrie::TOKEN,
        };
        Request::new("POST", &format!("{path}{query}"))
            .with("Authorization", &format!("Bearer {key}"))
            .with("X-Player-Token", token)
            .body(vec![b' '; if self.size { 65_537 } else { 2 }])
    }

    /// The first check in the order of the gate.
    fn expected(self) -> (u16, &'static str) {
        match self {
            Broken { route: true, .. } => (404, "no_route"),
            Broken { size: true, .. } => (413, "body_too_large"),
            Broken { credential: true, .. } => (401, "credential_wrong"),
            Broken { provider: true, .. } => (400, "parameter"),
            Broken { token: true, .. } => (401, "token_malformed"),
            Broken { .. } => (401, "token_ended"),
        }
    }
}

#[tokio::test]
async fn a_valkyrie_call_broken_in_several_ways_is_refused_by_the_first_check() {
    let world = World::valkyrie().await;
    let dead = "dead-dead-dead-dead-dead-dead-dead";
    world.pam.answer_with(|_| crate::world::answer(200, r#"{"status":"OK","session":{"token":"new"}}"#));
    let refresh = valkyrie::call("PUT", LOOK_UP).replacing("X-Player-Token", dead);
    assert_eq!(world.send(&refresh).await.status, 200);
    let (ways, request) = (Broken::every_way(), |broken: Broken| broken.request(dead));
    assert_refused_by_the_first_check(world, valkyrie::code, ways, request, Broken::expected).await;
}
