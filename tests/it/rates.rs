//! Who calls too often is told to come later, and who fails too often is told nothing else: nobody can turn either on
//! somebody who does neither.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::upstream::{Family, assert_failed, families};
use crate::wire::h2_head;
use crate::world::{
    Connection, Folder, PATIENCE, Reply, Request, World, basic, betstack, load, now, reason, root, valkyrie, wallet,
};

// ---- rates ----

#[tokio::test]
async fn an_address_that_calls_too_often_is_told_to_wait_in_the_words_of_the_family() {
    for Family { config, call, says } in families() {
        let world = World::of(config, &["limits.rate_per_address=1"]).await;
        let refused = until_refused(&world, &call, 2).await;
        for reply in [refused, world.send_h2(&call).await] {
            if reply.status == 429 {
                assert_failed(&reply, 429, says, config);
                assert_eq!(reply.values("Retry-After"), ["1"], "{config}");
                assert_eq!(reply.values("Connection").len(), 0, "{config}");
            }
        }
        // Nobody else notices.
        assert_ne!(from(OTHER, &world).await.send(&unproven()).await.status, 429, "{config}");
        let forwarded = world.pam.requests().len();
        let lines = world.finish().await;
        let refused: Vec<_> = lines.iter().filter(|line| line["reason"] == "rate_address").collect();
        assert!(!refused.is_empty() && forwarded <= lines.len() - refused.len(), "{config}");
        for line in refused {
            assert_eq!(
                (line["check"].as_str(), line["decision"].as_str()),
                (Some("rate"), Some("refused")),
                "{config}"
            );
            assert_eq!(line["caller"], "none", "{config}");
        }
    }
}

#[tokio::test]
async fn a_dialect_without_words_for_it_says_what_it_says_when_nothing_was_done() {
    let folder = Folder::new("rates-dialect");
    let text = std::fs::read_to_string(root().join("config/dialects/wallet.toml")).unwrap();
    let without: String =
        text.lines().filter(|line| !line.starts_with("too_many_requests")).map(|line| format!("{line}\n")).collect();
    assert_ne!(without.len(), text.len());
    folder.write("own.toml", &without);
    let config = std::fs::read_to_string(root().join("config/wallet.toml")).unwrap();
    let config = folder.write("config.toml", &config.replace("\"wallet\"", "\"own.toml\""));
    let world = World::of(&config, &["limits.rate_per_address=1"]).await;
    let refused = until_refused(&world, &wallet::signed("balance", &wallet::body("t")), 2).await;
    assert_eq!((refused.status, wallet::code(&refused)), (429, 503.into()));
}

#[tokio::test]
async fn the_rate_of_an_address_is_that_of_the_client_and_not_of_the_proxy() {
    let set = ["limits.rate_per_address=1", "trusted_proxies=[\"127.0.0.1\"]"];
    let world = World::of("config/wallet.toml", &set).await;
    let call = wallet::signed("balance", &wallet::body("t"));
    for _ in 0..9 {
        assert_eq!(world.send(&call).await.status, 200);
    }
    let of = |client: &str| call.clone().with("X-Forwarded-For", client);
    until_refused(&world, &of("198.51.100.7"), 2).await;
    assert_eq!(world.send(&of("198.51.100.8")).await.status, 200);
    assert_eq!(world.send(&call).await.status, 200);
}

#[tokio::test]
async fn a_callers_rate_is_its_own_and_nobody_else_can_use_it_up() {
    let world = World::of("config/wallet.toml", &["limits.rate_per_caller=1", "limits.lockout.failures=0"]).await;
    let call = wallet::signed("debit", &wallet::body("t"));
    for _ in 0..9 {
        let forged = call.clone().replacing("X-Request-Signature", &"0".repeat(64));
        assert_eq!(world.send(&forged).await.status, 401);
        assert_eq!(world.send(&call.clone().replacing("Authorization", &basic(wallet::USER, "x"))).await.status, 401);
    }
    let refused = until_refused(&world, &call, 2).await;
    assert_eq!((wallet::code(&refused), refused.values("Retry-After")), (429.into(), vec!["1"]));
    // From anywhere.
    let id = until_refused_from(OTHER, &world, &call).await;
    let forwarded = world.pam.requests().len();
    let lines = world.finish().await;
    assert_eq!(lines.iter().filter(|line| line["decision"] == "admitted").count(), forwarded);
    assert_eq!(reason(&lines, &id), "rate_caller");
    let line = lines.iter().find(|line| line["correlation_id"] == id.as_str()).unwrap();
    assert_eq!((line["caller"].as_str(), line["check"].as_str()), (Some(wallet::USER), Some("rate")));
}

#[tokio::test]
async fn what_is_overheard_and_repeated_uses_up_nobodys_rate() {
    let world = World::of("config/betstack.toml", &["limits.rate_per_caller=1", "limits.lockout.failures=0"]).await;
    let overheard = betstack::signed_at(&betstack::body("ticket_lost", ""), now() - 1);
    assert_eq!(world.send(&overheard).await.status, 200);
    for _ in 0..9 {
        assert_eq!(world.send(&overheard).await.status, 403);
    }
    assert_eq!(world.send(&betstack::signed(&betstack::body("ticket_create", ""))).await.status, 200);
}

#[tokio::test]
async fn a_payout_is_never_held_up_by_its_callers_rate() {
    let deposit = |kind: &str| {
        valkyrie::call("POST", "/players/1/transactions?provider=x").body(format!(r#"{{"transactionType":"{kind}"}}"#))
    };
    let wallet = |operation| wallet::signed(operation, &wallet::body("t"));
    let start = now();
    let betstack = |action, at| betstack::signed_at(&betstack::body(action, ""), start - at);
    for (config, other, payouts) in [
        ("config/valkyrie.toml", deposit("WITHDRAW"), vec![deposit("DEPOSIT"), deposit("CANCEL")]),
        ("config/wallet.toml", wallet("debit"), vec![wallet("credit"), wallet("rollback")]),
    ] {
        let world = World::of(config, &["limits.rate_per_caller=1"]).await;
        for payout in payouts.iter().cycle().take(10) {
            assert_eq!(world.send(payout).await.status, 200, "{config}");
        }
        // They count all the same.
        until_refused(&world, &other, 0).await;
        for payout in payouts {
            assert_eq!(world.send(&payout).await.status, 200, "{config}");
        }
    }
    let world = World::of("config/betstack.toml", &["limits.rate_per_caller=1"]).await;
    for at in 0..9 {
        assert_eq!(world.send(&betstack("ticket_win", at)).await.status, 200);
        assert_eq!(world.send(&betstack("ticket_refund", at)).await.status, 200);
    }
    let refused = world.send(&betstack("ticket_create", 0)).await;
    assert!(matches!(refused.status, 200 | 429));
    // A message that was refused for that is not used up.
    let refused = betstack("ticket_create", 1);
    let through = async { while world.send(&refused).await.status == 429 {} };
    timeout(PATIENCE, through).await.unwrap();
    assert_eq!(world.send(&refused).await.status, 403);
}

// ---- lock-out ----

// threat: C8
#[tokio::test]
async fn who_fails_too_often_is_locked_out_whether_there_is_such_a_caller_or_not() {
    let world = World::of("config/wallet.toml", &[THREE]).await;
    for user in [wallet::USER, "nobody"] {
        let wrong = guess(user);
        for _ in 0..3 {
            let reply = world.send(&wrong).await;
            assert_eq!((reply.status, reply.values("Retry-After").len()), (401, 0), "{user}");
        }
        let reply = world.send(&wrong).await;
        assert_eq!((reply.status, wallet::code(&reply)), (429, 429.into()), "{user}");
        assert_eq!(reply.values("Connection"), ["close"], "{user}");
        let wait: u32 = reply.values("Retry-After")[0].parse().unwrap();
        assert!((250..=300).contains(&wait), "{wait}");
        assert_eq!(world.send_h2(&wrong).await.status, 429, "{user}");
        // The same at another address, and another at the same address.
        assert_eq!(from(OTHER, &world).await.send(&wrong).await.status, 401, "{user}");
    }
    assert_eq!(world.send(&guess("somebody")).await.status, 401);
    // Who only leaves it away has guessed nothing.
    for _ in 0..9 {
        assert_eq!(world.send(&unproven()).await.status, 401);
    }
    assert_eq!(world.metric("portcullis_locked_out").await, 2.0);
    world.pam.assert_untouched();
    let lines = world.finish().await;
    let locked: Vec<_> = lines.iter().filter(|line| line["reason"] == "locked_out").collect();
    assert_eq!(locked.len(), 4);
    assert!(locked.iter().all(|line| line["check"] == "rate" && line["caller"] == "none"), "{locked:?}");
}

#[tokio::test]
async fn a_proof_that_is_right_is_never_refused_for_it_and_ends_it() {
    let hash = bcrypt::hash(wallet::PASSWORD, 4).unwrap();
    let folder = Folder::new("rates-lockout");
    let hashed = std::fs::read_to_string(root().join("config/wallet.toml")).unwrap();
    let hashed = hashed.replace("password = { env = \"WALLET_PASSWORD\" }", "password_hash = { file = \"hash\" }");
    assert!(hashed.contains("password_hash"), "{hashed}");
    folder.write("hash", &hash);
    for config in ["config/wallet.toml".to_owned(), folder.write("config.toml", &hashed)] {
        for http2 in [false, true] {
            let world = World::of(&config, &[THREE]).await;
            for _ in 0..9 {
                world.send(&guess(wallet::USER)).await;
            }
            assert_eq!(world.metric("portcullis_locked_out").await, 1.0);
            let good = wallet::signed("balance", &wallet::body("t"));
            let reply = if http2 { world.send_h2(&good).await } else { world.send(&good).await };
            assert_eq!(reply.status, 200);
            assert_eq!(world.metric("portcullis_locked_out").await, 0.0);
            assert_eq!(world.send(&guess(wallet::USER)).await.status, 401);
        }
    }
}

#[tokio::test]
async fn a_wrong_signature_counts_for_the_caller_that_is_claimed() {
    for Family { config, call, .. } in families().into_iter().skip(1) {
        let world = World::of(config, &[THREE]).await;
        let field = if config.contains("wallet") { "X-Request-Signature" } else { "signature" };
        let forged = call.clone().replacing(field, &"0".repeat(64));
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(world.send(&forged).await.status);
        }
        assert!(statuses[..3].iter().all(|status| matches!(status, 401 | 403)), "{config} {statuses:?}");
        assert_eq!(statuses[3], 429, "{config}");
        world.pam.assert_untouched();
        assert_eq!(world.send(&call).await.status, 200, "{config}");
    }
}

// threat: C8
#[tokio::test]
async fn a_password_cannot_be_tried_by_leaving_the_signature_away() {
    let world = World::of("config/wallet.toml", &[THREE]).await;
    let unsigned = |call: Request| call.without("X-Request-Signature");
    let right = unsigned(wallet::signed("balance", &wallet::body("t")));
    let wrong = unsigned(guess(wallet::USER));
    for call in [&right, &wrong, &right] {
        assert_eq!(world.send(call).await.status, 401);
    }
    for call in [&right, &wrong] {
        assert_eq!(world.send(call).await.status, 429);
    }
    world.pam.assert_untouched();
}

#[tokio::test]
async fn behind_a_trusted_proxy_it_is_the_client_that_is_locked_out_and_the_connection_stays() {
    let world = World::of("config/wallet.toml", &[THREE, "trusted_proxies=[\"127.0.0.1\"]"]).await;
    let mut proxy = world.connect().await;
    let of = |client: &str| guess(wallet::USER).with("X-Forwarded-For", client);
    for status in [401, 401, 401, 429, 429] {
        let reply = proxy.send(&of("198.51.100.7")).await;
        assert_eq!((reply.status, reply.values("Connection").len()), (status, 0));
    }
    assert_eq!(proxy.send(&of("198.51.100.8")).await.status, 401);
}

// threat: C13
#[tokio::test]
async fn whoever_has_stolen_a_secret_is_not_told_apart_from_who_guesses() {
    let folder = Folder::new("rates-elsewhere");
    let text = std::fs::read_to_string(root().join("config/wallet.toml")).unwrap();
    let config = folder.write("config.toml", &text.replace("[[caller]]\n", "[[caller]]\nfrom = [\"127.0.0.2\"]\n"));
    let good = wallet::signed("balance", &wallet::body("t"));
    let world = World::of(&config, &[THREE]).await;
    for call in [&good, &guess(wallet::USER), &good] {
        assert_eq!(world.send(call).await.status, 401);
    }
    for call in [&good, &guess(wallet::USER)] {
        assert_eq!(world.send(call).await.status, 429);
    }
    assert_eq!(from(OTHER, &world).await.send(&good).await.status, 200);
}

#[tokio::test]
async fn over_http2_the_connection_of_who_is_locked_out_ends_too() {
    let world = World::of("config/wallet.toml", &[THREE]).await;
    for _ in 0..3 {
        assert_eq!(world.send(&guess(wallet::USER)).await.status, 401);
    }
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let wrong = guess(wallet::USER);
    let (answer, mut body) = client.send_request(h2_head(&world, &wrong), false).unwrap();
    body.send_data(wrong.body.into(), true).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 429);
    // Announced, and without an error.
    assert!(timeout(PATIENCE, driver).await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn another_config_forgets_no_failure() {
    let world = World::of("config/wallet.toml", &[THREE]).await;
    for _ in 0..3 {
        assert_eq!(world.send(&guess(wallet::USER)).await.status, 401);
    }
    let settings = load("config/wallet.toml", &world.pam.address.to_string(), &["limits.lockout.failures=9"]).unwrap();
    let next = world.portcullis.successor(settings).map_err(|found| format!("{found:?}")).unwrap();
    assert!(String::from_utf8(next.exposition()).unwrap().contains("\nportcullis_locked_out 1\n"));
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let world = World::of("config/wallet.toml", &["limits.lockout.failures=0"]).await;
    for _ in 0..120 {
        assert_eq!(world.send(&guess(wallet::USER)).await.status, 401);
    }
    assert_eq!(world.metric("portcullis_locked_out").await, 0.0);
}

// ---- what the tests above are written with ----

const THREE: &str = "limits.lockout.failures=3";

/// Another address of this host.
const OTHER: &str = "127.0.0.2";

async fn from(local: &str, world: &World) -> Connection {
    Connection::between(SocketAddr::new(local.parse().unwrap(), 0), world.address).await
}

/// Sends a call until there have been too many: time goes on meanwhile, so it is not known how many that are, but at least
/// a burst. What the PAM has got is what was let through.
async fn until_refused(world: &World, call: &Request, burst: usize) -> Reply {
    let before = world.pam.requests().len();
    let mut connection = world.connect().await;
    for sent in 0..1000 {
        let reply = connection.send(call).await;
        if reply.status == 429 {
            assert!(sent >= burst, "{sent}");
            assert!(world.pam.requests().len() <= before + sent, "{sent}");
            return reply;
        }
    }
    panic!("nothing was refused");
}

/// The same from elsewhere; the correlation id of the refusal.
async fn until_refused_from(local: &str, world: &World, call: &Request) -> String {
    let mut connection = from(local, world).await;
    for _ in 0..1000 {
        let reply = connection.send(call).await;
        if reply.status == 429 {
            return reply.values("X-Correlation-ID")[0].to_owned();
        }
    }
    panic!("nothing was refused");
}

/// A call with the wrong password.
fn guess(user: &str) -> Request {
    wallet::signed("balance", &wallet::body("t")).replacing("Authorization", &basic(user, "wrong"))
}

fn unproven() -> Request {
    wallet::signed("balance", &wallet::body("t")).without("Authorization")
}
