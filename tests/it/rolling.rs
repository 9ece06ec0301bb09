//! Two replicas behind a TCP balancer are restarted one after the other, under load, and not one request is lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::binary::Running;
use crate::world::{Connection, GOOD, H2Connection, Pam, Request, answer, breath, wallet};

/// What balancers do: a connection goes to one of those that say they are ready.
#[derive(Clone)]
struct Balancer {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<Replica>>>,
}

#[derive(Clone)]
struct Replica {
    listen: SocketAddr,
    admin: SocketAddr,
    ready: Arc<AtomicBool>,
}

impl Balancer {
    async fn start() -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let balancer = Balancer { address: listener.local_addr().unwrap(), replicas: Arc::default() };
        let (accepting, looking) = (balancer.clone(), balancer.clone());
        tokio::spawn(async move {
            for turn in 0.. {
                let (mut caller, _) = listener.accept().await.unwrap();
                let ready: Vec<Replica> = accepting.replicas().into_iter().filter(Replica::is_ready).collect();
                let replica = ready[turn % ready.len()].listen;
                tokio::spawn(async move {
                    let mut replica = TcpStream::connect(replica).await.unwrap();
                    let _ = copy_bidirectional(&mut caller, &mut replica).await;
                });
            }
        });
        tokio::spawn(async move {
            loop {
                for replica in looking.replicas() {
                    replica.look().await;
                }
                breath().await;
            }
        });
        balancer
    }

    fn replicas(&self) -> Vec<Replica> {
        self.replicas.lock().unwrap().clone()
    }

    /// Takes a replica in, and waits until it is sent connections.
    async fn take(&self, running: &Running) {
        let (listen, admin) = (running.listen.parse().unwrap(), running.admin.parse().unwrap());
        let replica = Replica { listen, admin, ready: Arc::default() };
        self.replicas.lock().unwrap().push(replica.clone());
        while !replica.is_ready() {
            breath().await;
        }
    }

    fn let_go(&self, running: &Running) {
        self.replicas.lock().unwrap().retain(|replica| replica.listen.to_string() != running.listen);
    }
}

impl Replica {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    async fn look(&self) {
        let ready = match TcpStream::connect(self.admin).await {
            Ok(stream) => Connection::over(stream).try_send(&Request::new("GET", "/readyz")).await,
            Err(_) => None,
        };
        self.ready.store(ready.is_some_and(|reply| reply.status == 200), Ordering::SeqCst);
    }
}

/// Calls until it is told to stop, on one connection as long as it lasts.
async fn caller_of_http1(address: SocketAddr, name: usize, done: Arc<AtomicBool>, sent: Arc<AtomicUsize>) {
    let mut connection = Connection::to(address).await;
    for call in 0.. {
        if done.load(Ordering::SeqCst) {
            return;
        }
        let request = wallet::signed("debit", &wallet::body(&format!("one-{name}-{call}")));
        let reply = connection.try_send(&request).await.expect("a request was lost");
        assert_eq!(reply.status, 200, "{}", reply.text());
        sent.fetch_add(1, Ordering::SeqCst);
        if reply.values("connection").contains(&"close") {
            connection = Connection::to(address).await;
        }
    }
}

async fn caller_of_http2(address: SocketAddr, name: usize, done: Arc<AtomicBool>, sent: Arc<AtomicUsize>) {
    let mut connection = H2Connection::to(address).await;
    for call in 0.. {
        if done.load(Ordering::SeqCst) {
            return;
        }
        if !connection.takes_more().await {
            connection = H2Connection::to(address).await;
        }
        let request = wallet::signed("debit", &wallet::body(&format!("two-{name}-{call}")));
        let reply = connection.send(&request).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        sent.fetch_add(1, Ordering::SeqCst);
    }
}

// threat: G13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_one_request_is_lost_while_two_replicas_are_restarted() {
    let pam = Pam::start().await;
    pam.answer_with(|_| answer(200, GOOD));
    let start = || {
        let set = ["--set", "drain.delay=1s", "--set", "drain.timeout=10s"];
        Running::start("config/wallet.toml", &pam.address.to_string(), &set)
    };
    let balancer = Balancer::start().await;
    let mut replicas = vec![start(), start()];
    for replica in &replicas {
        balancer.take(replica).await;
    }
    let (done, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let mut callers = Vec::new();
    for name in 0..4 {
        let (done, sent) = (Arc::clone(&done), Arc::clone(&sent));
        callers.push(tokio::spawn(caller_of_http1(balancer.address, name, done, sent)));
    }
    for name in 0..2 {
        let (done, sent) = (Arc::clone(&done), Arc::clone(&sent));
        callers.push(tokio::spawn(caller_of_http2(balancer.address, name, done, sent)));
    }
    for _ in 0..4 {
        let mut old = replicas.remove(0);
        let before = sent.load(Ordering::SeqCst);
        old.signal("TERM");
        let stopped = tokio::task::block_in_place(|| old.event("stopped"));
        assert_eq!(stopped["about"]["all_requests_finished"], true);
        assert_eq!(tokio::task::block_in_place(|| old.exit_code()), 0);
        balancer.let_go(&old);
        assert!(sent.load(Ordering::SeqCst) > before, "nobody called meanwhile");
        let new = start();
        balancer.take(&new).await;
        replicas.push(new);
    }
    done.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(pam.requests().len(), sent.load(Ordering::SeqCst));
}
