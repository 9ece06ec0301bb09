//! A fault of ours costs one request and says nothing of it.

use std::panic::resume_unwind;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis::log::Log;
use portcullis::proxy::{Body, BodyFault, Sent, Serve};
use portcullis::request::{Head, HeadLimits, Peer, ReplyBody};
use portcullis::tls::names::Names;

use crate::world::{PATIENCE, World, wallet};

/// A body whose reading meets a fault. No request is known that does, so this stands in for the unknown one.
pub struct Faulty;

impl Body for Faulty {
    async fn read(&mut self, _: u64, _: Duration) -> Result<Bytes, BodyFault> {
        resume_unwind(Box::new(CANARY))
    }
}

pub const CANARY: &str = "canary-in-a-panic";

// threat: G11
#[tokio::test]
async fn a_fault_while_serving_is_a_500_and_the_next_request_is_served() {
    let world = World::wallet().await;
    let limits = HeadLimits { bytes: 4096, fields: 50, target: 1024 };
    let head = "POST /api/wallet/debit HTTP/1.1\r\nHost: pam\r\nContent-Length: 2\r\n\r\n";
    let head = Head::scan(Bytes::from(head), &limits);
    let peer = Peer { address: [192, 0, 2, 1].into(), unnamed: false, names: Names::default() };
    let (reply, record) = world.portcullis.serve(head, &peer, Instant::now(), &mut Faulty).await;
    world.portcullis.sent(record, Sent::Whole, Instant::now());
    assert_eq!(reply.status, 500);
    let ReplyBody::Whole(body) = reply.body else { panic!("no body") };
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["status"], body["request_id"].is_string()), (&false.into(), true));
    world.pam.assert_untouched();
    assert_eq!(world.metric("portcullis_panics_total").await, 1.0);
    assert_eq!(world.metric("portcullis_requests_in_flight").await, 0.0);
    assert_eq!(world.send(&wallet::signed("debit", &wallet::body("token"))).await.status, 200);
    assert!(!world.log_text().contains(CANARY));
}

/// The hook is the process's, so a process of its own must try it: this very program, asked for the next test alone.
// threat: C14
#[test]
fn the_text_of_a_panic_is_not_printed() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "panic::panics_when_asked_to", "--nocapture"]).env(ASKED, "1");
    let output = child.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let line = out.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{out}\n{err}"));
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&event["event"], &event["level"]), (&"panic".into(), &"error".into()));
    assert!(event["about"]["at"].as_str().unwrap().starts_with("tests/it/panic.rs:"));
    assert!(!out.contains(CANARY) && !err.contains(CANARY), "{out}\n{err}");
}

const ASKED: &str = "PORTCULLIS_TEST_PANICS";

#[test]
fn panics_when_asked_to() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let (log, writer) = Log::start(std::io::stdout()).unwrap();
    log.tell_of_panics();
    assert!(std::thread::spawn(|| panic!("{CANARY}")).join().is_err());
    assert!(writer.finish(PATIENCE));
}
