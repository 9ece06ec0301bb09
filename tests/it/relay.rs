//! A TCP relay between a replica and its store: an address that moves from one server to another, a network that fails.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Listens on a free port and hands on what comes, as it is told. Connections end with it.
#[derive(Clone)]
pub struct Relay {
    pub port: u16,
    weather: watch::Sender<Weather>,
    state: Arc<Mutex<State>>,
    cut: watch::Sender<u64>,
}

/// What becomes of bytes.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    /// They are handed on.
    Fair,
    /// After so many of a connection's, nothing is handed on any more, and nothing is closed.
    Still(usize),
    /// On this connection nothing is handed on after so many bytes.
    Mute(usize, usize),
    /// The connection is cut after a number of them that is different each time, up to this.
    Rough(usize),
}

struct State {
    target: u16,
    /// How many bytes of each connection were handed on.
    passed: Vec<Arc<watch::Sender<usize>>>,
    seed: u64,
}

impl Relay {
    pub async fn to(target: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay {
            port: listener.local_addr().unwrap().port(),
            weather: watch::Sender::new(Weather::Fair),
            state: Arc::new(Mutex::new(State { target, passed: Vec::new(), seed: 1 })),
            cut: watch::Sender::new(0),
        };
        let accepting = relay.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().relay(stream));
            }
        });
        relay
    }

    /// `--set` values for a replica that shares by it.
    pub fn set(&self) -> String {
        format!("revocation.redis.url=redis://127.0.0.1:{}", self.port)
    }

    /// Where connections go that are made from now on. Those that stand are left as they are.
    pub fn point_to(&self, target: u16) {
        self.state.lock().unwrap().target = target;
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Hands on `bytes` of each connection, those that stand included, and then nothing.
    pub fn still_after(&self, bytes: usize) {
        self.weather.send_replace(Weather::Still(bytes));
    }

    /// Hands on nothing more of a connection, counted from 1.
    pub fn mute(&self, connection: usize) {
        self.mute_after(connection, 0);
    }

    /// Hands on `bytes` more of it, and then nothing.
    pub fn mute_after(&self, connection: usize, bytes: usize) {
        let passed = *self.state.lock().unwrap().passed[connection - 1].borrow();
        self.weather.send_replace(Weather::Mute(connection, passed + bytes));
    }

    /// Cuts each connection somewhere in its first `bytes`.
    pub fn rough(&self, bytes: usize) {
        self.weather.send_replace(Weather::Rough(bytes));
    }

    /// Hands on everything again, also what was held back.
    pub fn fair(&self) {
        self.weather.send_replace(Weather::Fair);
    }

    /// Connections it accepted so far.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().passed.len()
    }

    async fn relay(self, stream: TcpStream) {
        let passed = Arc::new(watch::Sender::new(0));
        let (target, number, luck) = {
            let mut state = self.state.lock().unwrap();
            state.passed.push(Arc::clone(&passed));
            // The same sequence in every run.
            state.seed = state.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state.target, state.passed.len(), usize::try_from(state.seed >> 40).unwrap())
        };
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        let (from_client, to_client) = stream.into_split();
        let (from_server, to_server) = server.into_split();
        let lot = (number, luck);
        let mut cut = self.cut.subscribe();
        tokio::select! {
            () = self.hand_on(from_client, to_server, Arc::clone(&passed), lot) => {}
            () = self.hand_on(from_server, to_client, passed, lot) => {}
            _ = cut.changed() => {}
        }
    }

    /// Until either side closes, or the weather does.
    async fn hand_on(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        passed: Arc<watch::Sender<usize>>,
        (number, luck): (usize, usize),
    ) {
        let mut weather = self.weather.subscribe();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let mut rest = &bytes[..count];
            while !rest.is_empty() {
                let before = *passed.borrow();
                let now = *weather.borrow_and_update();
                let most = match now {
                    Weather::Fair => rest.len(),
                    Weather::Mute(one, after) if one == number => after.saturating_sub(before),
                    Weather::Mute(..) => rest.len(),
                    Weather::Still(after) => after.saturating_sub(before),
                    Weather::Rough(most) => (luck % most).saturating_sub(before),
                };
                let (piece, left) = rest.split_at(most.min(rest.len()));
                if to.write_all(piece).await.is_err() {
                    return;
                }
                passed.send_modify(|passed| *passed += piece.len());
                rest = left;
                match now {
                    _ if rest.is_empty() => {}
                    Weather::Rough(_) => return,
                    Weather::Fair | Weather::Still(_) | Weather::Mute(..) => {
                        let _ = weather.changed().await;
                    }
                }
            }
        }
    }
}
