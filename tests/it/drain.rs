//! `portcullis drain`, which a preStop hook runs.

use crate::binary::{Running, output};
use crate::world::{GOOD, Pam, answer, wallet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_makes_it_leave_and_it_serves_until_the_delay_is_over() {
    let pam = Pam::start().await;
    pam.answer_with(|_| answer(200, GOOD));
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &["--set", "drain.delay=2s"]);
    let pid = running.pid().to_string();
    assert_eq!(output(&["drain", "--pid", &pid]), (0, String::new(), String::new()));
    tokio::task::block_in_place(|| running.event("stopping"));
    assert_eq!(running.send(&wallet::signed("debit", &wallet::body("t"))).await, 200);
    tokio::task::block_in_place(|| running.event("stopped"));
    assert_eq!(tokio::task::block_in_place(|| running.exit_code()), 0);
}

#[test]
fn drain_signals_nothing_that_is_not_a_portcullis() {
    let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let (code, stdout, stderr) = output(&["drain", "--pid", &other.id().to_string()]);
    let still_there = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(still_there);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("not a portcullis; say which one is with --pid"), "{stderr}");
}

#[test]
fn drain_says_when_there_is_no_such_process() {
    // Larger than any process number that Linux gives (proc(5), pid_max).
    let (code, stdout, stderr) = output(&["drain", "--pid", "4194305"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("cannot look at process 4194305"), "{stderr}");
    for pid in ["0", "-1", "one"] {
        assert_eq!(output(&["drain", "--pid", pid]).0, 64, "{pid}");
    }
}
