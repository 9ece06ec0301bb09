//! Learning from the PAM: what it calls dead is believed for a while, never longer, never of another token, and never
//! against a player to whom money is owed.

use tokio::time::timeout;

use crate::binary::Running;
use crate::world::{
    Folder, GOOD, PATIENCE, Pam, Reply, Request, World, answer, basic, betstack, correlation_of, reason, root,
    valkyrie, wallet,
};

const LEARN: [&str; 1] = ["revocation.learn=10m"];
const LIVE: &str = "player-token-of-this-test-000000";

/// The answers that call a token of the family expired or unknown.
const VALKYRIE_DEAD: [(u16, &str); 4] = [
    (401, r#"{"status":"ERROR","error":{"code":"PAM_ERR_SESSION_NOT_FOUND","message":"-"}}"#),
    (401, r#"{"status":"Error","error":{"code":"PAM_ERR_SESSION_EXPIRED","message":"-"}}"#),
    (200, r#"{"status":"ERROR","error":{"code":"PAM_ERR_SESSION_EXPIRED","message":"-"}}"#),
    (200, r#"{"\u0065rror":{"code":"PAM_ERR_SESSION_\u0045XPIRED"}}"#),
];
const BETSTACK_DEAD: [(u16, &str); 2] =
    [(400, r#"{"code":101,"message":"User not found"}"#), (403, r#"{"code":101,"message":"User not found"}"#)];

fn call(method: &str, path: &str) -> Request {
    valkyrie::call(method, &format!("{path}?provider=x"))
}

fn balance() -> Request {
    call("GET", "/players/17/balance")
}

fn transaction(body: &str) -> Request {
    call("POST", "/players/17/transactions").with("Content-Type", "application/json").body(body)
}

fn bet() -> Request {
    transaction(r#"{"transactionType":"WITHDRAW"}"#)
}

/// What settles what is owed, and what looks up.
fn owed() -> Vec<Request> {
    let mut owed = ["DEPOSIT", "CANCEL", "PROMODEPOSIT", "PROMOCANCEL"]
        .map(|kind| transaction(&format!(r#"{{"transactionType":"{kind}"}}"#)))
        .to_vec();
    let looks = ["/players/session", "/players/17/transactions", "/players/17/gamerounds/r-1"];
    owed.extend(looks.map(|path| call("GET", path)));
    owed
}

fn identify(token: &str, nonce: usize) -> Request {
    betstack::signed(&betstack::body("identify", &format!(r#","token":"{token}","n":{nonce}"#)))
}

/// A Valkyrie world whose PAM has just said of the token what `said` is.
async fn taught(said: (u16, &'static str), set: &[&str]) -> World {
    let world = World::of("config/valkyrie.toml", &[&LEARN, set].concat()).await;
    world.pam.answer_with(move |_| answer(said.0, said.1));
    let reply = world.send(&balance()).await;
    assert_eq!((reply.status, &*reply.text()), said);
    world.pam.answer_with(|_| answer(200, GOOD));
    world
}

fn is_expired(reply: &Reply) -> bool {
    reply.status == 401 && valkyrie::code(reply) == "PAM_ERR_SESSION_EXPIRED"
}

#[tokio::test]
async fn nothing_is_learnt_unless_the_operator_says_so() {
    for (status, body) in VALKYRIE_DEAD {
        let world = World::valkyrie().await;
        world.pam.answer_with(move |_| answer(status, body));
        for _ in 0..3 {
            let reply = world.send(&balance()).await;
            assert_eq!((reply.status, &*reply.text()), (status, body));
        }
        assert_eq!(world.pam.requests().len(), 3);
        assert_eq!(world.metric("portcullis_revocation_presumptions_total").await, 0.0);
    }
    for (status, body) in BETSTACK_DEAD {
        let world = World::betstack().await;
        world.pam.answer_with(move |_| answer(status, body));
        for nonce in 0..3 {
            assert_eq!(world.send(&identify("t", nonce)).await.status, status);
        }
        assert_eq!(world.pam.requests().len(), 3);
    }
}

#[tokio::test]
async fn a_token_that_a_valkyrie_pam_calls_dead_does_not_reach_it_again() {
    for said in VALKYRIE_DEAD {
        let world = taught(said, &[]).await;
        let mut ids = Vec::new();
        for request in [balance(), bet(), call("PUT", "/players/session").body("null")] {
            for reply in [world.send(&request).await, world.send_h2(&request).await] {
                assert!(is_expired(&reply), "{} {}: {}", request.method, request.target, reply.status);
                ids.push(correlation_of(&reply));
            }
        }
        assert_eq!(world.pam.requests().len(), 1);
        for request in [balance(), bet()] {
            assert_eq!(world.send(&request.replacing("X-Player-Token", LIVE)).await.status, 200);
        }
        assert_eq!(world.metric("portcullis_revocations_presumed").await, 1.0);
        assert_eq!(world.metric("portcullis_revocation_presumptions_total").await, 1.0);
        assert_eq!(world.metric("portcullis_revocations_live").await, 0.0);
        assert_eq!(world.metric("portcullis_revocations_total").await, 0.0);
        let refused = r#"portcullis_decisions_total{check="standing",mode="enforce",outcome="refused",reason="token_presumed_ended"}"#;
        assert_eq!(world.metric(refused).await, 6.0);
        let lines = world.finish().await;
        assert!(ids.iter().all(|id| reason(&lines, id) == "token_presumed_ended"));
        let taught: Vec<_> = lines.iter().map(|line| line["token_presumed_ended"] == true).collect();
        assert_eq!(taught, [&[true][..], &[false; 8]].concat());
    }
}

#[tokio::test]
async fn a_token_that_a_betstack_pam_calls_unknown_does_not_reach_it_again() {
    for (status, body) in BETSTACK_DEAD {
        let world = World::of("config/betstack.toml", &LEARN).await;
        world.pam.answer_with(move |_| answer(status, body));
        let reply = world.send(&identify("dead", 0)).await;
        assert_eq!((reply.status, &*reply.text()), (status, body));
        world.pam.answer_with(|_| answer(200, GOOD));
        for reply in [world.send(&identify("dead", 1)).await, world.send_h2(&identify("dead", 2)).await] {
            assert_eq!((reply.status, betstack::code(&reply)), (400, 101.into()));
        }
        assert_eq!(world.pam.requests().len(), 1);
        assert_eq!(world.send(&identify("alive", 3)).await.status, 200);
        let win = betstack::signed(&betstack::body("ticket_win", r#","ticket_id":"t-1","token":"dead""#));
        assert_eq!(world.send(&win).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_owed_and_what_looks_up_reaches_the_pam_whatever_was_learnt() {
    for set in [&[][..], &["token.settlement=strict"], &["token.settlement=admit"]] {
        let world = taught(VALKYRIE_DEAD[0], set).await;
        let mut count = 1;
        for request in owed() {
            assert_eq!(world.send(&request).await.status, 200, "{}", request.target);
            assert_eq!(world.send_h2(&request).await.status, 200, "{}", request.target);
            count += 2;
            assert_eq!(world.pam.requests().len(), count);
            assert_eq!(world.pam.requests().pop().unwrap().body, request.body);
        }
        assert!(is_expired(&world.send(&bet()).await));
        assert_eq!(world.pam.requests().len(), count);
        // Nothing that is known to have ended was let through for it: the PAM decides.
        let decided = |outcome: &str| {
            format!(r#"portcullis_decisions_total{{check="all",mode="enforce",outcome="{outcome}",reason="ok"}}"#)
        };
        assert_eq!(world.metric(&decided("settled")).await, 0.0);
        assert_eq!(world.metric(&decided("admitted")).await, f64::from(u32::try_from(count).unwrap()));
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_held_up_by_no_guess() {
    let world = taught(VALKYRIE_DEAD[0], &[]).await;
    let strange = [
        transaction("DEPOSIT"),
        transaction(""),
        transaction(r#"{"transactionType":"DEPOSIT","transactionType":"DEPOSIT"}"#),
        transaction(r#"{"transactionType":"DEPOSIT"}"#).with("Content-Encoding", "gzip"),
        transaction(r#"{"transactionType":"DEPOSIT"}"#).replacing("Content-Type", "text/plain"),
    ];
    for (at, request) in strange.iter().enumerate() {
        assert_eq!(world.send(request).await.status, 200, "{at}");
        // Nor does learning change what a live token may send.
        assert_eq!(world.send(&request.clone().replacing("X-Player-Token", LIVE)).await.status, 200, "{at}");
        assert_eq!(world.pam.requests().pop().unwrap().body, request.body, "{at}");
    }
    assert_eq!(world.pam.requests().len(), 1 + 2 * strange.len());
    let known = [r#"{"transactionType":"deposit"}"#, r#"{"transactionType":null}"#, "{}", "[]", r#""DEPOSIT""#];
    for body in known {
        assert!(is_expired(&world.send(&transaction(body)).await), "{body}");
    }
}

#[tokio::test]
async fn a_token_lives_again_when_the_time_is_over() {
    let world = World::of("config/valkyrie.toml", &["revocation.learn=300ms"]).await;
    world.pam.answer_in_turn(vec![Some(answer(401, VALKYRIE_DEAD[0].1)), Some(answer(200, GOOD))]);
    assert_eq!(world.send(&balance()).await.status, 401);
    let again = async { while world.send(&balance()).await.status != 200 {} };
    timeout(PATIENCE, again).await.unwrap();
    assert_eq!(world.pam.requests().len(), 2);
    world.until("portcullis_revocations_presumed", 0.0).await;
    assert_eq!(world.metric("portcullis_revocation_presumptions_total").await, 1.0);
}

#[tokio::test]
async fn only_the_answers_that_the_dialect_names_teach() {
    let expired = VALKYRIE_DEAD[1].1;
    let others = [
        (401, r#"{"status":"ERROR","error":{"code":"PAM_ERR_API_TOKEN","message":"-"}}"#),
        (401, r#"{"status":"ERROR","error":{"code":"pam_err_session_expired"}}"#),
        (401, r#"{"status":"ERROR","code":"PAM_ERR_SESSION_EXPIRED"}"#),
        (401, r#"{"error":{"code":["PAM_ERR_SESSION_EXPIRED"]}}"#),
        (401, r#""PAM_ERR_SESSION_EXPIRED""#),
        (401, "{}"),
        (200, VALKYRIE_DEAD[0].1),
        (200, r#"{"status":"OK","balance":{"cashAmount":1}}"#),
        (400, expired),
        (403, expired),
        (404, expired),
        (500, expired),
        (503, expired),
    ];
    for (status, body) in others {
        assert_teaches_nothing(answer(status, body), (status, body.as_bytes()), &LEARN).await;
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_or_held_teaches_nothing_and_passes_unchanged() {
    let expired = VALKYRIE_DEAD[1].1;
    let with = |field: &str, body: &str| {
        format!("HTTP/1.1 401 X\r\n{field}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let twice = r#"{"error":{"code":"PAM_ERR_SESSION_EXPIRED","code":"PAM_ERR_SESSION_EXPIRED"}}"#;
    let twin = r#"{"error":{"code":"PAM_ERR_SESSION_EXPIRED"},"Error":null}"#;
    let cases: [(Vec<u8>, &str); 9] = [
        (with("Content-Encoding: gzip", expired), expired),
        (with("Content-Encoding: identity, br", expired), expired),
        (with("Content-Encoding: identity\r\nContent-Encoding: identity", expired), expired),
        (answer(401, "session expired"), "session expired"),
        (answer(401, ""), ""),
        (answer(401, &expired[..expired.len() - 1]), &expired[..expired.len() - 1]),
        (answer(401, twice), twice),
        (answer(401, twin), twin),
        (answer(401, "\u{feff}{}"), "\u{feff}{}"),
    ];
    for (said, body) in cases {
        assert_teaches_nothing(said, (401, body.as_bytes()), &LEARN).await;
    }
    // Too large to be held, with a length and in chunks.
    let set = ["revocation.learn=10m", "limits.answer=300"];
    let large = format!("{expired}{}", " ".repeat(301 - expired.len()));
    let chunked = format!("HTTP/1.1 401 X\r\nTransfer-Encoding: chunked\r\n\r\n12d\r\n{large}\r\n0\r\n\r\n");
    for said in [answer(401, &large), chunked.into_bytes()] {
        assert_teaches_nothing(said, (401, large.as_bytes()), &set).await;
    }
}

/// The PAM gives this answer to every request, and goes on getting the same one.
async fn assert_teaches_nothing(said: Vec<u8>, (status, body): (u16, &[u8]), set: &[&str]) {
    let shown = String::from_utf8_lossy(&said).into_owned();
    let world = World::of("config/valkyrie.toml", set).await;
    world.pam.answer_with(move |_| said.clone());
    for count in 1..=2 {
        let reply = world.send(&balance()).await;
        assert_eq!((reply.status, &*reply.body), (status, body), "{shown}");
        assert_eq!(world.pam.requests().len(), count, "{shown}");
    }
    assert_eq!(world.metric("portcullis_revocation_presumptions_total").await, 0.0, "{shown}");
}

#[tokio::test]
async fn an_answer_for_another_provider_stops_no_player_who_is_paying_elsewhere() {
    let world = World::of("config/valkyrie.toml", &LEARN).await;
    // To a wrong provider this PAM says that it does not know the session, although it lives.
    world.pam.answer_with(|seen| match seen.target.ends_with("provider=right") {
        true => answer(200, GOOD),
        false => answer(401, VALKYRIE_DEAD[0].1),
    });
    let under = |query: &str| valkyrie::call("GET", &format!("/players/17/balance?{query}"));
    assert_eq!(world.send(&under("provider=wrong")).await.status, 401);
    assert_eq!(world.send(&under("provider=right")).await.status, 200);
    assert_eq!(world.pam.requests().len(), 2);
    for wrong in ["provider=wrong", "provider=%77rong"] {
        assert!(is_expired(&world.send(&under(wrong)).await), "{wrong}");
    }
    assert_eq!(world.pam.requests().len(), 2);
    assert_eq!(world.send(&under("provider=right")).await.status, 200);
}

#[tokio::test]
async fn whoever_the_pam_told_it_counts_for_every_caller() {
    let world = taught(VALKYRIE_DEAD[1], &[]).await;
    let by_basic = balance().replacing("Authorization", &basic("operator", valkyrie::PASSWORD));
    assert!(is_expired(&world.send(&by_basic).await));
    // And strangers are told nothing of it.
    let stranger = world.send(&balance().replacing("Authorization", "Bearer wrong")).await;
    assert_eq!((stranger.status, valkyrie::code(&stranger)), (401, "PAM_ERR_API_TOKEN".into()));
    assert_eq!(world.pam.requests().len(), 1);
}

#[tokio::test]
async fn a_token_that_has_ended_is_refused_as_such_whatever_was_learnt() {
    let world = World::of("config/valkyrie.toml", &LEARN).await;
    world.pam.answer_with(|seen| match &*seen.method {
        "PUT" => answer(200, r#"{"session":{"token":"next"}}"#),
        _ => answer(200, VALKYRIE_DEAD[2].1),
    });
    assert_eq!(world.send(&call("PUT", "/players/session").body("null")).await.status, 200);
    let mut ids = Vec::new();
    for request in [balance()].into_iter().chain(owed()) {
        let reply = world.send(&request).await;
        assert!(is_expired(&reply), "{}", request.target);
        ids.push(correlation_of(&reply));
    }
    assert_eq!(world.pam.requests().len(), 1);
    let lines = world.finish().await;
    assert!(ids.iter().all(|id| reason(&lines, id) == "token_ended"));
}

#[tokio::test]
async fn of_a_token_that_has_ended_nothing_is_learnt() {
    let world = World::of("config/valkyrie.toml", &[&LEARN[..], &["token.settlement=admit"]].concat()).await;
    world.pam.answer_with(|seen| match &*seen.method {
        "PUT" => answer(200, r#"{"session":{"token":"next"}}"#),
        _ => answer(200, VALKYRIE_DEAD[2].1),
    });
    assert_eq!(world.send(&call("PUT", "/players/session").body("null")).await.status, 200);
    for request in owed() {
        assert_eq!(world.send(&request).await.text(), VALKYRIE_DEAD[2].1);
    }
    assert_eq!(world.pam.requests().len(), 1 + owed().len());
    assert_eq!(world.metric("portcullis_revocation_presumptions_total").await, 0.0);
}

#[tokio::test]
async fn a_restart_knows_nothing_of_what_was_learnt() {
    let (folder, pam) = (Folder::new("learning-restart"), Pam::start().await);
    pam.answer_in_turn(vec![Some(answer(401, VALKYRIE_DEAD[1].1)), Some(answer(200, GOOD))]);
    let journal = format!("revocation.journal={}", folder.path().join("journal").display());
    let set = ["--set", "revocation.learn=10m", "--set", &journal];
    let upstream = pam.address.to_string();
    let mut first = Running::start("config/valkyrie.toml", &upstream, &set);
    assert_eq!(first.send(&balance()).await, 401);
    assert_eq!(first.send(&balance()).await, 401);
    assert_eq!(pam.requests().len(), 1);
    first.kill();
    let second = Running::start("config/valkyrie.toml", &upstream, &set);
    assert_eq!(second.send(&balance()).await, 200);
    assert_eq!(pam.requests().len(), 2);
}

/// The wallet's dialect with something added to its token.
fn own_wallet(folder: &Folder, token: &str) -> String {
    let dialect = std::fs::read_to_string(root().join("config/dialects/wallet.toml")).unwrap();
    folder.write("own.toml", &dialect.replace("length = [1, 128]\n", &format!("length = [1, 128]\n{token}\n")));
    let text = std::fs::read_to_string(root().join("config/wallet.toml")).unwrap();
    folder.write("config.toml", &text.replace("\"wallet\" ", "\"./own.toml\" "))
}

#[tokio::test]
async fn an_own_dialect_says_what_is_dead_and_for_whom() {
    let folder = Folder::new("learning-own");
    let dead = "dead = [ { status = 410 }, { status = 200, json = { \"/status\" = false, \"/code\" = 7 } } ]";
    let config = own_wallet(&folder, &format!("{dead}\ndead_per = [\"json:/provider_id\", \"header:X-Site\"]"));
    let call = |operation: &str, token: &str, provider: &str, site: &str| {
        let body = format!(r#"{{"token":"{token}","provider_id":{provider}}}"#);
        let call = wallet::signed(operation, &body);
        if site.is_empty() { call } else { call.with("X-Site", site) }
    };
    // A status alone may say it, and then no body is read, however it is encoded.
    let gone = b"HTTP/1.1 410 X\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n?".to_vec();
    for said in [gone, answer(200, r#"{"code":7,"status":false}"#)] {
        let world = World::of(&config, &LEARN).await;
        world.pam.answer_with(move |_| said.clone());
        world.send(&call("debit", "dead", "1", "a")).await;
        world.pam.answer_with(|_| answer(200, GOOD));
        for operation in ["authenticate", "balance", "debit", "terminate"] {
            let reply = world.send(&call(operation, "dead", "1", "a")).await;
            assert_eq!((reply.status, wallet::code(&reply)), (401, 401.into()), "{operation}");
        }
        assert_eq!(world.pam.requests().len(), 1);
        let passing = [
            call("credit", "dead", "1", "a"),
            call("rollback", "dead", "1", "a"),
            call("debit", "dead", "2", "a"),
            call("debit", "dead", "1", "b"),
            call("debit", "dead", "1", ""),
            call("debit", "dead", "null", "a"),
            call("debit", "alive", "1", "a"),
        ];
        for (at, request) in passing.iter().enumerate() {
            assert_eq!(world.send(request).await.status, 200, "{at}");
            assert_eq!(world.pam.requests().len(), 2 + at, "{at}");
        }
    }
}

#[tokio::test]
async fn where_a_place_can_be_read_in_two_ways_nothing_is_presumed() {
    let folder = Folder::new("learning-ambiguous");
    let config = own_wallet(&folder, "dead = [ { status = 410 } ]\ndead_per = [\"header:X-Site\"]");
    let world = World::of(&config, &LEARN).await;
    world.pam.answer_with(|_| answer(410, "{}"));
    let nowhere = wallet::signed("debit", &wallet::body("t"));
    let twice = nowhere.clone().with("X-Site", "a").with("X-Site", "b");
    for count in 1..=2 {
        assert_eq!(world.send(&twice).await.status, 410);
        assert_eq!(world.pam.requests().len(), count);
    }
    // That there is nothing at the place is plain enough.
    for status in [410, 401] {
        assert_eq!(world.send(&nowhere).await.status, status);
        assert_eq!(world.pam.requests().len(), 3);
    }
}

#[tokio::test]
async fn what_is_learnt_cuts_no_grace_short() {
    let folder = Folder::new("learning-grace");
    let config = own_wallet(&folder, "dead = [ { status = 200, json = { \"/status\" = true } } ]");
    let path = folder.path().join("own.toml");
    let dialect = std::fs::read_to_string(&path).unwrap();
    let retires = dialect.lines().find(|line| line.starts_with("retires = ")).unwrap();
    std::fs::write(&path, dialect.replace(retires, &format!("{retires}\ngrace = \"1h\""))).unwrap();
    let world = World::of(&config, &LEARN).await;
    world.pam.answer_in_turn(vec![Some(answer(200, r#"{"status":true}"#)), Some(answer(200, GOOD))]);
    for operation in ["terminate", "debit"] {
        assert_eq!(world.send(&wallet::signed(operation, &wallet::body("t"))).await.status, 200, "{operation}");
    }
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_dead_token_reaches_the_pam_once() {
    let world = taught(VALKYRIE_DEAD[1], &[]).await;
    let mut connection = world.connect().await;
    for _ in 0..500 {
        assert!(is_expired(&connection.send(&balance()).await));
    }
    assert_eq!(world.pam.requests().len(), 1);
}
