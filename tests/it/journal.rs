//! Dead stays dead, also for the process that comes after.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use crate::binary::{Running, output};
use crate::world::{Connection, Folder, PATIENCE, Pam, Request, World, answer, valkyrie, wallet};

const TERMINATED: &str = r#"{"status":true,"code":1}"#;

async fn terminating_pam() -> Pam {
    let pam = Pam::start().await;
    pam.answer_with(|_| answer(200, TERMINATED));
    pam
}

fn journal(folder: &Folder) -> String {
    format!("revocation.journal={}", folder.path().join("journal").display())
}

fn token(number: usize) -> String {
    format!("token-{number}")
}

#[tokio::test]
async fn a_restart_forgets_no_token() {
    let (folder, pam) = (Folder::new("journal-restart"), terminating_pam().await);
    let set = journal(&folder);
    let upstream = pam.address.to_string();
    let mut first = Running::start("config/wallet.toml", &upstream, &["--set", &set]);
    assert_eq!(first.send(&wallet::signed("terminate", &wallet::body("dead"))).await, 200);
    first.signal("TERM");
    assert_eq!(first.exit_code(), 0);

    let second = Running::start("config/wallet.toml", &upstream, &["--set", &set]);
    assert_eq!(second.send(&wallet::signed("debit", &wallet::body("dead"))).await, 401);
    assert_eq!(second.send(&wallet::signed("debit", &wallet::body("alive"))).await, 200);
}

/// Callers terminate as fast as they can; the process is killed in the middle of it; every token whose answer came back
/// is dead in the next process, round after round in the same journal.
// threat: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_no_token_whose_answer_was_released() {
    let (folder, pam) = (Folder::new("journal-kill"), terminating_pam().await);
    let set = journal(&folder);
    let upstream = pam.address.to_string();
    let released: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
    for round in 0..4 {
        let mut running = Running::start("config/wallet.toml", &upstream, &["--set", &set]);
        let (enough, mut reached) = tokio::sync::mpsc::unbounded_channel();
        let mut callers = JoinSet::new();
        for caller in 0..8 {
            let (address, released, enough) = (running.listen.parse().unwrap(), Arc::clone(&released), enough.clone());
            callers.spawn(async move {
                let mut connection = Connection::to(address).await;
                for call in 0.. {
                    let number = round * 1_000_000 + caller * 10_000 + call;
                    let request = wallet::signed("terminate", &wallet::body(&token(number)));
                    let Some(reply) = connection.try_send(&request).await else { return };
                    assert_eq!(reply.status, 200);
                    released.lock().unwrap().insert(number);
                    let _ = enough.send(());
                }
            });
        }
        for _ in 0..25 + 10 * round {
            reached.recv().await.unwrap();
        }
        running.kill();
        while callers.join_next().await.is_some() {}
    }

    let last = Running::start("config/wallet.toml", &upstream, &["--set", &set]);
    let released: Vec<usize> = released.lock().unwrap().iter().copied().collect();
    assert!(released.len() >= 4 * 25);
    let mut connection = Connection::to(last.listen.parse().unwrap()).await;
    for number in released {
        let reply = connection.send(&wallet::signed("debit", &wallet::body(&token(number)))).await;
        assert_eq!(reply.status, 401, "token {number} lives again");
    }
}

#[tokio::test]
async fn the_journal_holds_no_token_and_no_plain_digest() {
    let (folder, pam) = (Folder::new("journal-canary"), terminating_pam().await);
    let world = World::with_pam("config/wallet.toml", &[&journal(&folder)], pam).await;
    assert_eq!(world.send(&wallet::signed("terminate", &wallet::body("canary-token"))).await.status, 200);
    world.finish().await;
    let hash =
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), "canary-token"));
    let mut files = 0;
    for file in std::fs::read_dir(folder.path().join("journal")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        files += 1;
        for secret in [&b"canary-token"[..], &hash[..16]] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    assert_eq!(files, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_refuses_no_token_is_ended_and_nothing_else_stops() {
    let (folder, pam) = (Folder::new("journal-refused"), terminating_pam().await);
    let set = journal(&folder);
    let upstream = pam.address.to_string();
    let terminate = |token: &str| wallet::signed("terminate", &wallet::body(token));
    let debit = |token: &str| wallet::signed("debit", &wallet::body(token));
    let mut running = Running::start_ignoring_sigxfsz("config/wallet.toml", &upstream, &["--set", &set]);
    assert_eq!(running.send(&terminate("before")).await, 200);

    running.disk_takes("4096");
    // The PAM ended it and nobody may believe so before the disk does: our trouble.
    assert_eq!(running.send(&terminate("meanwhile")).await, 502);
    assert_eq!(running.send(&debit("meanwhile")).await, 401);
    assert_eq!(running.send(&terminate("refused")).await, 503);
    assert_eq!(running.send(&debit("refused")).await, 200);
    let terminations = pam.requests().iter().filter(|seen| seen.target.ends_with("terminate")).count();
    assert_eq!(terminations, 2);

    running.disk_takes("unlimited");
    let again = async { while running.send(&terminate("after")).await != 200 {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    running.kill();
    let next = Running::start("config/wallet.toml", &upstream, &["--set", &set]);
    for token in ["before", "meanwhile", "after"] {
        assert_eq!(next.send(&debit(token)).await, 401, "{token}");
    }
    assert_eq!(next.send(&debit("refused")).await, 200);
}

#[tokio::test]
async fn a_second_process_on_one_journal_is_no_start() {
    let (folder, pam) = (Folder::new("journal-twice"), terminating_pam().await);
    let set = journal(&folder);
    let upstream = pam.address.to_string();
    let _first = Running::start("config/wallet.toml", &upstream, &["--set", &set]);
    let arguments = ["run", "--config", "config/wallet.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let (code, stdout, stderr) = output(&[&arguments[..], &["--upstream", &upstream, "--set", &set]].concat());
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("another process uses it"), "{stderr}");
}

#[tokio::test]
async fn more_tokens_than_fit_are_no_start_and_say_what_to_do() {
    let (folder, pam) = (Folder::new("journal-full"), terminating_pam().await);
    let set = journal(&folder);
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &["--set", &set]);
    for number in 0..2 {
        assert_eq!(running.send(&wallet::signed("terminate", &wallet::body(&token(number)))).await, 200);
    }
    running.kill();
    let arguments = ["run", "--config", "config/wallet.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let (code, _, stderr) = output(&[&arguments[..], &["--set", &set, "--set", "revocation.capacity=1"]].concat());
    assert_eq!(code, 1);
    assert!(stderr.contains("the journal holds 2 tokens and `revocation.capacity` is 1"), "{stderr}");
}

#[tokio::test]
async fn a_token_whose_time_is_over_passes_after_a_restart() {
    let (folder, pam) = (Folder::new("journal-over"), Pam::start().await);
    pam.answer_with(|_| answer(200, r#"{"status":"OK","session":{"token":"new"}}"#));
    let set = journal(&folder);
    let upstream = pam.address.to_string();
    let mut running =
        Running::start("config/valkyrie.toml", &upstream, &["--set", &set, "--set", "revocation.keep=1s"]);
    assert_eq!(running.send(&valkyrie::call("PUT", "/players/session?provider=x")).await, 200);
    running.kill();
    let next = Running::start("config/valkyrie.toml", &upstream, &["--set", &set]);
    let call: Request = valkyrie::call("GET", "/players/session?provider=x");
    let passes = async { while next.send(&call).await != 200 {} };
    tokio::time::timeout(PATIENCE, passes).await.unwrap();
}
