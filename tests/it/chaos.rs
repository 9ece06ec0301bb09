//! A PAM that hangs, drips, resets, lies and answers twice, and callers that leave in the middle: at most once, nobody
//! gets another's answer, and nothing is left behind.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::binary::Running;
use crate::world::{Connection, H2Connection, PATIENCE, Reply, Request, breath, wallet};

/// What the PAM does with a request.
#[derive(Clone, Copy, Debug)]
enum Whim {
    Answer,
    AnswerAndClose,
    /// Closes a moment after the answer, while the connection rests.
    AnswerAndCloseLater,
    Drip,
    HangBeforeHead,
    HangInHead,
    HangInBody,
    CloseBeforeHead,
    ResetBeforeHead,
    ResetInBody,
    PromiseMore,
    PromiseLess,
    /// In one piece.
    AnswerTwice,
    /// The second comes when the connection is at rest, or in use again: then HTTP/1.1 has no way to tell whose it is. So
    /// only where each request has a connection of its own.
    AnswerTwiceLater,
    Garbage,
    CutChunks,
}

const WHIMS: [Whim; 15] = [
    Whim::Answer,
    Whim::AnswerAndClose,
    Whim::AnswerAndCloseLater,
    Whim::Drip,
    Whim::HangBeforeHead,
    Whim::HangInHead,
    Whim::HangInBody,
    Whim::CloseBeforeHead,
    Whim::ResetBeforeHead,
    Whim::ResetInBody,
    Whim::PromiseMore,
    Whim::PromiseLess,
    Whim::AnswerTwice,
    Whim::Garbage,
    Whim::CutChunks,
];

/// The same for the same id in every run, so that what went wrong once goes wrong again.
fn dice(id: &str, purpose: &str) -> usize {
    let digest = Sha256::digest(format!("{purpose}:{id}"));
    usize::from(u16::from_be_bytes([digest[0], digest[1]]))
}

impl Whim {
    fn of(id: &str) -> Whim {
        match dice(id, "whim") % 100 {
            0..60 => Whim::Answer,
            60..75 if id.starts_with(ALONE) => Whim::AnswerTwiceLater,
            other => WHIMS[other % WHIMS.len()],
        }
    }
}

/// A PAM with whims, which counts how often it has got each id.
struct Moody {
    address: SocketAddr,
    got: Arc<Mutex<HashMap<String, usize>>>,
}

impl Moody {
    async fn start() -> Moody {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, got) = (listener.local_addr().unwrap(), Arc::<Mutex<HashMap<String, usize>>>::default());
        let counts = Arc::clone(&got);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&counts)));
            }
        });
        Moody { address, got }
    }

    fn got(&self, id: &str) -> usize {
        self.got.lock().unwrap().get(id).copied().unwrap_or(0)
    }
}

async fn serve(mut stream: TcpStream, got: Arc<Mutex<HashMap<String, usize>>>) {
    let mut read = Vec::new();
    while let Some(id) = next_id(&mut stream, &mut read).await {
        *got.lock().unwrap().entry(id.clone()).or_default() += 1;
        if act(&mut stream, &id).await.is_none() {
            return;
        }
    }
}

/// Reads one request whole; `None` at the end of the connection.
async fn next_id(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(read).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            let length: usize = length.parse().unwrap();
            if rest.len() >= length {
                let (_, id) = rest.split_once(r#""token":""#).unwrap();
                let id = id.split_once('"').unwrap().0.to_owned();
                read.drain(..head.len() + 4 + length);
                return Some(id);
            }
        }
        if stream.read_buf(read).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// `None` ends the connection.
async fn act(stream: &mut TcpStream, id: &str) -> Option<()> {
    let body = format!(r#"{{"status":true,"id":"{id}"}}"#);
    let of_length = |length: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
    };
    let good = format!("{}{body}", of_length(body.len()));
    let moment = Duration::from_millis((dice(id, "moment") % 30) as u64);
    let hang = sleep(PATIENCE);
    match Whim::of(id) {
        Whim::Answer => stream.write_all(good.as_bytes()).await.ok(),
        Whim::AnswerAndClose => {
            stream.write_all(good.as_bytes()).await.ok()?;
            None
        }
        Whim::AnswerAndCloseLater => {
            stream.write_all(good.as_bytes()).await.ok()?;
            sleep(moment).await;
            None
        }
        Whim::Drip => {
            for byte in good.as_bytes() {
                stream.write_all(&[*byte]).await.ok()?;
                tokio::task::yield_now().await;
            }
            Some(())
        }
        Whim::HangBeforeHead => {
            hang.await;
            None
        }
        Whim::HangInHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await.ok()?;
            hang.await;
            None
        }
        Whim::HangInBody => {
            stream.write_all(&good.as_bytes()[..good.len() - 3]).await.ok()?;
            hang.await;
            None
        }
        Whim::CloseBeforeHead => None,
        Whim::ResetBeforeHead => {
            stream.set_zero_linger().unwrap();
            None
        }
        Whim::ResetInBody => {
            stream.write_all(&good.as_bytes()[..good.len() - 3]).await.ok()?;
            stream.set_zero_linger().unwrap();
            None
        }
        Whim::PromiseMore => {
            stream.write_all(format!("{}{body}", of_length(body.len() + 7)).as_bytes()).await.ok()?;
            None
        }
        Whim::PromiseLess => {
            stream.write_all(format!("{}{body} and more", of_length(body.len())).as_bytes()).await.ok()
        }
        Whim::AnswerTwice => stream.write_all(good.repeat(2).as_bytes()).await.ok(),
        Whim::AnswerTwiceLater => {
            stream.write_all(good.as_bytes()).await.ok()?;
            sleep(moment).await;
            stream.write_all(good.as_bytes()).await.ok()
        }
        Whim::Garbage => stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await.ok(),
        Whim::CutChunks => {
            let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
            stream.write_all(text.as_bytes()).await.ok()?;
            None
        }
    }
}

fn bet(id: &str) -> Request {
    wallet::signed("debit", &wallet::body(id))
}

/// What a caller does while it waits: leaves, at some moment, or stays.
fn leaves_after(id: &str) -> Option<Duration> {
    let moment = dice(id, "leaves") % 200;
    (moment < 40).then(|| Duration::from_millis(moment as u64))
}

/// The reply to each id that was waited for; `None` for callers that left.
type Replies = Vec<(String, Option<Reply>)>;

async fn caller_of_http1(address: SocketAddr, name: String, calls: usize) -> Replies {
    let mut replies = Vec::new();
    let mut connection = Connection::to(address).await;
    for call in 0..calls {
        let id = format!("{name}-{call}");
        match leaves_after(&id) {
            None => {
                let reply = connection.try_send(&bet(&id)).await.expect("a reply that was waited for did not come");
                if reply.values("connection").contains(&"close") {
                    connection = Connection::to(address).await;
                }
                replies.push((id, Some(reply)));
            }
            Some(moment) => {
                let mut leaving = TcpStream::connect(address).await.unwrap();
                leaving.write_all(&bet(&id).bytes()).await.unwrap();
                sleep(moment).await;
                if dice(&id, "reset").is_multiple_of(2) {
                    leaving.set_zero_linger().unwrap();
                }
                drop(leaving);
                replies.push((id, None));
            }
        }
    }
    replies
}

async fn caller_of_http2(address: SocketAddr, name: String, calls: usize) -> Replies {
    let mut replies = Vec::new();
    let mut connection = H2Connection::to(address).await;
    for call in 0..calls {
        let id = format!("{name}-{call}");
        let request = bet(&id);
        let sending = connection.send(&request);
        let reply = match leaves_after(&id) {
            None => Some(sending.await),
            // Dropped in the middle, the stream is reset.
            Some(moment) => timeout(moment, sending).await.ok(),
        };
        replies.push((id, reply));
    }
    replies
}

async fn round(pam: &Moody, running: &Running, name: &str, calls: usize) -> HashMap<u16, usize> {
    let address = running.listen.parse().unwrap();
    let http1 = (0..8).map(|caller| tokio::spawn(caller_of_http1(address, format!("{name}-one-{caller}"), calls)));
    let callers: Vec<_> = http1.collect();
    let http2 = (0..4).map(|caller| tokio::spawn(caller_of_http2(address, format!("{name}-two-{caller}"), calls)));
    let callers: Vec<_> = callers.into_iter().chain(http2).collect();
    let mut statuses = HashMap::new();
    let mut replies = Vec::new();
    for caller in callers {
        replies.extend(caller.await.unwrap());
    }
    // Those who left may have left something under way.
    at_rest(running).await;
    for (id, reply) in replies {
        let (got, whim) = (pam.got(&id), Whim::of(&id));
        let Some(reply) = reply else {
            assert!(got <= 1, "{id} reached the PAM {got} times; its caller had left; {whim:?}");
            continue;
        };
        let text = reply.text();
        match reply.status {
            200 => {
                assert_eq!(reply.json()["id"], id.as_str(), "an answer to another one's request; {whim:?}");
                assert_eq!(got, 1, "{id}, {whim:?}");
            }
            // Known not to have been sent.
            503 => assert_eq!(got, 0, "{id}, {whim:?}, {text}"),
            502 | 504 => assert!(got <= 1, "{id} reached the PAM {got} times; {whim:?}"),
            other => panic!("{id}: {other}, {whim:?}, {text}"),
        }
        *statuses.entry(reply.status).or_default() += 1;
    }
    statuses
}

/// Waits until nothing is under way any more.
async fn at_rest(running: &Running) {
    let idle = async {
        loop {
            let mut admin = Connection::to(running.admin.parse().unwrap()).await;
            let page = admin.send(&Request::new("GET", "/metrics")).await.text();
            let zero = |name: &str| page.lines().any(|line| line == format!("{name} 0"));
            if zero("portcullis_requests_in_flight")
                && zero("portcullis_upstream_in_flight")
                && zero("portcullis_connections")
            {
                return;
            }
            breath().await;
        }
    };
    timeout(PATIENCE, idle).await.expect("something is left behind");
}

// threat: G1
// threat: G2
// threat: G3
// threat: G4
// threat: G5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_pam_and_the_callers_do_each_request_arrives_at_most_once_and_nothing_is_left_behind() {
    let pam = Moody::start().await;
    let set = ["--set", "timeouts.total=300ms", "--set", "timeouts.connect=5s", "--set", "timeouts.pooled=8"];
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &set);
    let log = running.silence();
    let first = round(&pam, &running, "warm", 40).await;
    let (memory, descriptors) = (running.resident(), running.descriptors());
    let mut statuses = first;
    for round_number in 0..3 {
        for (status, count) in round(&pam, &running, &format!("round{round_number}"), 40).await {
            *statuses.entry(status).or_default() += count;
        }
    }
    assert!(statuses[&200] > 400 && statuses[&502] > 50 && statuses[&504] > 20, "{statuses:?}");
    // Three times as much again, and no more of either than a pool and an allocator may keep.
    let (memory_now, descriptors_now) = (running.resident(), running.descriptors());
    assert!(memory_now < memory + (8 << 10), "{memory} KiB before, {memory_now} after");
    assert!(descriptors_now <= descriptors + 8, "{descriptors} descriptors before, {descriptors_now} after");
    running.kill();
    log.join().unwrap();
}

/// How ids begin where each request has a connection of its own.
const ALONE: &str = "alone";

// threat: G3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_connection_for_each_request_not_even_a_second_answer_reaches_another_caller() {
    let pam = Moody::start().await;
    let set = ["--set", "timeouts.total=300ms", "--set", "timeouts.connect=5s", "--set", "timeouts.pooled=0"];
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &set);
    let log = running.silence();
    let statuses = round(&pam, &running, ALONE, 40).await;
    assert!(statuses[&200] > 150, "{statuses:?}");
    running.kill();
    log.join().unwrap();
}
