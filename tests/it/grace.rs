//! Grace: families that keep the old token for a moment after a refresh.

use tokio::time::timeout;

use crate::binary::Running;
use crate::world::{Connection, Folder, GOOD, PATIENCE, Pam, Request, World, answer, root, valkyrie};

const REFRESHED: &str = r#"{"status":"OK","session":{"token":"the-next-token-of-32-characters-0"}}"#;
const SESSION: &str = "/players/session?provider=x";
const CALLER: &str = "[[caller]]\nname = \"valkyrie\"\nbearer = { env = \"PAM_API_TOKEN\" }\n";

/// A config whose dialect is Valkyrie's with a grace for a refresh, and with a second route that ends a token without one.
fn config(folder: &Folder, grace: &str) -> String {
    let dialect = std::fs::read_to_string(root().join("config/dialects/valkyrie.toml")).unwrap();
    let line = dialect.lines().find(|line| line.starts_with("retires = ")).unwrap();
    let logout = "[[route]]\nname = \"logout\"\nmatch = \"DELETE /players/session\"\nretires = { status = 200 }";
    folder.write("own.toml", &dialect.replace(line, &format!("{line}\ngrace = \"{grace}\"\n\n{logout}")));
    folder.config("\"./own.toml\"", CALLER, &[])
}

async fn refreshing_pam() -> Pam {
    let pam = Pam::start().await;
    pam.answer_with(|seen| answer(200, if seen.method == "PUT" { REFRESHED } else { GOOD }));
    pam
}

/// A world in which the token has just been refreshed.
async fn refreshed(name: &str, grace: &str) -> World {
    let folder = Folder::new(name);
    let world = World::with_pam(&config(&folder, grace), &[], refreshing_pam().await).await;
    assert_eq!(world.send(&refresh()).await.status, 200);
    world
}

fn refresh() -> Request {
    valkyrie::call("PUT", SESSION)
}

fn look_up() -> Request {
    valkyrie::call("GET", SESSION)
}

#[tokio::test]
async fn within_its_grace_the_old_token_passes_on_every_route() {
    let world = refreshed("grace-long", "1h").await;
    let bet = valkyrie::call("POST", "/players/17/transactions?provider=x").body(r#"{"transactionType":"WITHDRAW"}"#);
    for request in [look_up(), valkyrie::call("GET", "/players/17/balance?provider=x"), bet, refresh()] {
        assert_eq!(world.send(&request).await.status, 200, "{} {}", request.method, request.target);
        assert_eq!(world.send_h2(&request).await.status, 200, "{} {}", request.method, request.target);
    }
    assert_eq!(world.pam.requests().len(), 1 + 4 * 2);
    assert_eq!(world.metric("portcullis_revocations_live").await, 1.0);
}

#[tokio::test]
async fn when_its_grace_is_over_the_old_token_is_refused_and_stays_so() {
    let world = refreshed("grace-short", "200ms").await;
    let refused = async { while world.send(&look_up()).await.status == 200 {} };
    timeout(PATIENCE, refused).await.unwrap();
    let sent = world.pam.requests().len();
    for request in [look_up(), refresh(), look_up()] {
        let reply = world.send(&request).await;
        assert_eq!((reply.status, valkyrie::code(&reply)), (401, "PAM_ERR_SESSION_EXPIRED".into()));
    }
    assert_eq!(world.pam.requests().len(), sent);
}

// threat: F1
#[tokio::test]
async fn an_ending_without_grace_ends_the_grace_at_once() {
    let world = refreshed("grace-cut", "1h").await;
    assert_eq!(world.send(&look_up()).await.status, 200);
    assert_eq!(world.send(&valkyrie::call("DELETE", SESSION)).await.status, 200);
    assert_eq!(world.send(&look_up()).await.status, 401);
    assert_eq!(world.send(&refresh()).await.status, 401);
    assert_eq!(world.pam.requests().len(), 3);
    assert_eq!(world.metric("portcullis_revocations_live").await, 1.0);
}

#[tokio::test]
async fn a_restart_keeps_what_is_left_of_a_grace() {
    let (folder, pam) = (Folder::new("grace-restart-long"), refreshing_pam().await);
    let mut first = start(&folder, "1h", &pam);
    assert_eq!(first.send(&refresh()).await, 200);
    first.kill();
    let second = start(&folder, "1h", &pam);
    assert_eq!(second.send(&look_up()).await, 200);
    // It is known there, and passes all the same.
    let metrics = Connection::to(second.admin.parse().unwrap()).await.send(&Request::new("GET", "/metrics")).await;
    assert!(metrics.text().contains("\nportcullis_revocations_live 1\n"), "{}", metrics.text());
}

// threat: F1
#[tokio::test]
async fn a_grace_ends_also_for_the_process_that_comes_after() {
    let (folder, pam) = (Folder::new("grace-restart-short"), refreshing_pam().await);
    let mut first = start(&folder, "200ms", &pam);
    assert_eq!(first.send(&refresh()).await, 200);
    first.kill();
    let second = start(&folder, "200ms", &pam);
    let refused = async { while second.send(&look_up()).await == 200 {} };
    timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(second.send(&look_up()).await, 401);
}

fn start(folder: &Folder, grace: &str, pam: &Pam) -> Running {
    let set = format!("revocation.journal={}", folder.path().join("journal").display());
    Running::start(&config(folder, grace), &pam.address.to_string(), &["--set", &set])
}
