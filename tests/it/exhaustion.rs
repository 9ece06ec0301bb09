//! Thousands of connections, descriptors that run out, clocks that jump.

use std::process::Command;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::binary::{Running, portcullis};
use crate::world::{Connection, Folder, GOOD, PATIENCE, Pam, Request, answer, betstack, breath, now, wallet};

/// Half of the descriptors that this process may have; the replica has as many of its own.
const MANY: usize = 4_000;

// threat: G7
#[tokio::test]
async fn thousands_of_idle_connections_take_little_and_nobody_waits_for_them() {
    let pam = Pam::start().await;
    let set = ["--set", "limits.idle_timeout=10m"];
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &set);
    let log = running.silence();
    let address = running.listen.parse().unwrap();
    let call = |token: String| wallet::signed("debit", &wallet::body(&token));
    for warm in 0..50 {
        assert_eq!(running.send(&call(format!("warm-{warm}"))).await, 200);
    }
    let before = running.resident();
    let mut idle = Vec::new();
    for number in 0..MANY {
        let mut connection = Connection::to(address).await;
        // One that has served is larger than one that never has.
        if number % 4 == 0 {
            assert_eq!(connection.send(&call(format!("idle-{number}"))).await.status, 200);
        }
        idle.push(connection);
    }
    assert_eq!(running.send(&call("another".to_owned())).await, 200);
    let each = (running.resident() - before) as f64 / MANY as f64;
    assert!(each <= 40.0, "{each} KiB for an idle connection");
    for connection in idle.iter_mut().step_by(400) {
        assert_eq!(connection.send(&Request::new("GET", "/none")).await.status, 404);
    }
    running.kill();
    log.join().unwrap();
}

// threat: G10
#[tokio::test]
async fn where_descriptors_are_few_fewer_connections_are_let_in_and_all_of_them_are_served() {
    let pam = Pam::start().await;
    let mut command = Command::new("prlimit");
    let bare = portcullis();
    command.current_dir(bare.get_current_dir().unwrap());
    command.env_clear().envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["--nofile=256:256", env!("CARGO_BIN_EXE_portcullis"), "run", "--config", "config/wallet.toml"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", &pam.address.to_string()]);
    let mut running = Running::spawn(command);
    let warning = running.before.remove(0);
    assert_eq!(warning["event"], "few_descriptors");
    assert_eq!((&warning["level"], &warning["about"]["descriptors"]), (&"warn".into(), &256.into()));
    let most = warning["about"]["connections"].as_u64().unwrap() as usize;
    assert!((32..=192).contains(&most), "{most}");

    let address = running.listen.parse().unwrap();
    let mut open = Vec::new();
    for _ in 0..most {
        let mut connection = Connection::to(address).await;
        assert_eq!(connection.send(&Request::new("GET", "/none")).await.status, 404);
        open.push(connection);
    }
    for _ in 0..300 {
        let mut refused = TcpStream::connect(address).await.unwrap();
        let read = timeout(PATIENCE, refused.read(&mut [0])).await.expect("neither served nor closed");
        assert_eq!(read.unwrap_or(0), 0);
    }
    // Each may have a request with the PAM, which takes a descriptor of its own.
    let release = pam.hold(answer(200, GOOD));
    let requests: Vec<_> =
        (0..most).map(|number| wallet::signed("debit", &wallet::body(&format!("t-{number}")))).collect();
    for (connection, request) in open.iter_mut().zip(&requests) {
        connection.write(&request.bytes()).await;
    }
    pam.arrived(most).await;
    release.send(true).unwrap();
    for connection in &mut open {
        assert_eq!(connection.reply().await.status, 200);
    }
    // Who leaves makes room.
    open.truncate(most / 2);
    let served = async {
        loop {
            let mut connection = Connection::to(address).await;
            if connection.try_send(&Request::new("GET", "/none")).await.is_some_and(|reply| reply.status == 404) {
                return;
            }
            breath().await;
        }
    };
    timeout(PATIENCE, served).await.expect("nobody is let in any more");
}

/// The real clock of one process, moved by libfaketime; its monotonic clock goes on as it was.
// threat: G9
#[tokio::test]
async fn a_clock_that_jumps_moves_the_window_of_signatures_and_nothing_else() {
    let pam = Pam::start().await;
    pam.answer_with(|_| answer(200, GOOD));
    let folder = Folder::new("clock");
    let offset = folder.path().join("offset");
    let jump = |by: &str| std::fs::write(&offset, by).unwrap();
    jump("+0");
    let mut command = portcullis();
    command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", &offset).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    command.args(["run", "--config", "config/betstack.toml", "--set", "signature.tolerance=60s"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", &pam.address.to_string()]);
    let running = Running::spawn(command);
    let win =
        |id: &str, at: u64| betstack::signed_at(&betstack::body("ticket_win", &format!(r#","ticket_id":"{id}""#)), at);
    let first = win("first", now());
    assert_eq!(running.send(&first).await, 200);
    for by in ["+3600", "-3600"] {
        jump(by);
        let seconds: i64 = by.parse().unwrap();
        assert_eq!(running.send(&win(by, now())).await, 403, "{by}");
        assert_eq!(running.send(&win(by, now().saturating_add_signed(seconds))).await, 200, "{by}");
    }
    // An hour forth and back: what was seen has not been forgotten on the way.
    jump("+0");
    assert_ne!(running.send(&first).await, 200);
    assert_eq!(running.send(&win("last", now())).await, 200);
    assert_eq!(pam.requests().len(), 4);
}

/// Where Debian's package has put it, for whichever machine this is.
fn faketime() -> std::path::PathBuf {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = libraries.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    found.expect("the package faketime is not installed")
}
