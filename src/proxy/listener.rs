//! Sockets: bound before anything is promised, accepted by pingora, drained before they are let go.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::apps::ServerApp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::{L4BufferSettings, Stream as Tcp};
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::announced::announced;
use super::current::Current;
use super::leave::{Leave, Leaving};
use super::secured::Secured;
use super::turnstile::{Bounds, Entered, Turnstile};
use super::{Refused, Serve, http1, http2};
use crate::config::Limits;
use crate::request::Peer;
use crate::tls::callers::CallerTls;
use crate::tls::names::Names;

/// A listening socket and the connections that came through it.
pub struct Server {
    address: SocketAddr,
    leave: Leave,
    stop: watch::Sender<bool>,
    open: watch::Sender<usize>,
    /// One for each thread that accepts.
    accepting: Vec<JoinHandle<()>>,
}

/// Binds an address. A failure is known here, before a runtime exists: pingora would go on trying for half a minute and
/// then live on without a listener.
pub fn bind(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds an address by so many sockets, among which the kernel spreads those who connect. From one socket, threads that take
/// turns do not get equal shares: of those who connect at the same time, the thread that wakes first takes all.
pub fn bind_each(address: &str, count: usize) -> io::Result<Vec<TcpListener>> {
    // Alone at first: sockets that share an address would share it with those of another process as well.
    let alone = bind(address)?;
    if count < 2 {
        return Ok(vec![alone]);
    }
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| bind_one_of(address)).collect()
}

fn bind_one_of(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of a process that has just ended are no reason not to begin.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Server {
    /// Starts to accept. Needs a running tokio runtime, which serves as well.
    pub fn start<S: Serve>(listener: TcpListener, current: Arc<Current<S>>) -> io::Result<Server> {
        Server::start_on([(Handle::current(), listener)], current)
    }

    /// Starts to accept from sockets of one address, each on its own runtime, which serves what it accepts.
    pub fn start_on<S: Serve>(
        listeners: impl IntoIterator<Item = (Handle, TcpListener)>,
        current: Arc<Current<S>>,
    ) -> io::Result<Server> {
        let mut listeners = listeners.into_iter().peekable();
        let address = listeners.peek().ok_or(io::ErrorKind::InvalidInput)?.1.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let (leave, leaving) = Leave::new();
        let open = watch::Sender::new(0);
        let turnstile = Arc::default();
        let mut accepting = Vec::new();
        for (runtime, listener) in listeners {
            let front = Front {
                current: Arc::clone(&current),
                turnstile: Arc::clone(&turnstile),
                leaving: leaving.opened(),
                open: open.clone(),
            };
            // pingora finds a socket that is bound already under its name, as if an older process had handed it over.
            let name = address.to_string();
            let mut sockets = Fds::new();
            sockets.add(name.clone(), listener.into_raw_fd());
            let sockets: ListenFds = Arc::new(sockets.into());
            let mut service = Service::new(name.clone(), front);
            // Heads and bodies have their own buffers here; a second pair would cost 64 KiB a connection.
            service.add_listener(ListenerConfig::tcp(name).l4_buffer(L4BufferSettings::unbuffered()));
            let stopping = stopping.clone();
            accepting.push(runtime.spawn(async move { service.start_service(Some(sockets), stopping, 1).await }));
        }
        Ok(Server { address, leave, stop, open, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells callers to leave: connections end behind the request they serve. New ones are still accepted.
    pub fn announce_stop(&self) {
        self.leave.announce();
    }

    /// Stops accepting, lets requests in flight finish, and returns when no connection is left or `time` is over. True
    /// when all finished.
    pub async fn drain(self, time: Duration) -> bool {
        self.leave.stop();
        self.stop.send_replace(true);
        let mut open = self.open.subscribe();
        let finished = timeout(time, async {
            for accepting in self.accepting {
                let _ = accepting.await;
            }
            let _ = open.wait_for(|open| *open == 0).await;
        });
        finished.await.is_ok()
    }
}

/// What stands at the door: finds out which protocol a connection speaks, under TLS where there is TLS.
struct Front<S> {
    current: Arc<Current<S>>,
    turnstile: Arc<Turnstile>,
    leaving: Leaving,
    open: watch::Sender<usize>,
}

#[async_trait]
impl<S: Serve> ServerApp for Front<S> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let address = address(&stream)?;
        let mut open = Open::count(self, address)?;
        let mut leaving = self.leaving.opened();
        let opened = tokio::select! {
            biased;
            opened = self.open(stream, address, &mut open) => opened,
            // Nothing has been asked, so nothing is lost.
            () = leaving.over() => None,
        };
        let Opened { stream, peer, protocol } = opened?;
        match protocol {
            Protocol::Http1(read) => http1::serve(&self.current, stream, &peer, read, leaving).await,
            Protocol::Http2 => http2::serve(&self.current, stream, peer, leaving).await,
        }
        None
    }
}

/// A connection of which is known what it speaks, and who is at its other end.
struct Opened {
    stream: Stream,
    peer: Peer,
    protocol: Protocol,
}

impl<S: Serve> Front<S> {
    /// What comes before the first request. `None` when there will be none.
    async fn open(&self, mut stream: Stream, address: IpAddr, open: &mut Open<'_, S>) -> Option<Opened> {
        let serve = self.current.now();
        let peer = match serve.announces(address) {
            true => open_announced(&*serve, &mut stream, address, open).await?,
            false => Peer { address, unnamed: false, names: Names::default() },
        };
        match serve.tls() {
            Some(tls) => open_secured(&*serve, &tls, stream, peer).await,
            None => open_plain(&*serve, stream, peer).await,
        }
    }
}

/// The one whom the balancer names is at the other end, or else the balancer itself.
async fn open_announced<S: Serve>(
    serve: &S,
    stream: &mut Stream,
    balancer: IpAddr,
    open: &mut Open<'_, S>,
) -> Option<Peer> {
    let names = Names::default();
    match announced(stream, serve.limits().head_timeout).await {
        Ok(Some(address)) => open.comes_from(serve, address).then_some(Peer { address, unnamed: false, names }),
        Ok(None) => Some(Peer { address: balancer, unnamed: true, names }),
        Err(fault) => {
            serve.refused(balancer, Refused::Announcement(fault));
            None
        }
    }
}

/// TLS settles which protocol it is.
async fn open_secured(serve: &impl Serve, tls: &CallerTls, stream: Stream, peer: Peer) -> Option<Opened> {
    match Secured::accept(tls, stream, serve.limits().handshake_timeout).await {
        Ok(secured) => {
            let peer = Peer { names: secured.names(), ..peer };
            let protocol = if secured.speaks_http2() { Protocol::Http2 } else { Protocol::Http1(BytesMut::new()) };
            Some(Opened { stream: Box::new(secured), peer, protocol })
        }
        Err(fault) => {
            serve.refused(peer.address, Refused::Handshake(fault));
            None
        }
    }
}

/// The first bytes do.
async fn open_plain(serve: &impl Serve, mut stream: Stream, peer: Peer) -> Option<Opened> {
    let time = serve.limits().head_timeout;
    let Ok(first) = timeout(time, first_bytes(&mut stream)).await else {
        serve.refused(peer.address, Refused::Silent);
        return None;
    };
    match first? {
        read if read.starts_with(PREFACE) => {
            let mut tcp = stream.into_any().downcast::<Tcp>().ok()?;
            tcp.rewind(&read);
            Some(Opened { stream: tcp, peer, protocol: Protocol::Http2 })
        }
        read => Some(Opened { stream, peer, protocol: Protocol::Http1(read) }),
    }
}

/// Counts a connection as open while it lives.
struct Open<'a, S: Serve> {
    front: &'a Front<S>,
    entered: Entered,
}

impl<S: Serve> Open<'_, S> {
    /// `None` where there are too many, and the connection is to be closed before a byte of it is read.
    fn count(front: &Front<S>, peer: IpAddr) -> Option<Open<'_, S>> {
        let serve = front.current.now();
        let from = Some(peer).filter(|peer| !serve.carries_many(*peer) && !serve.announces(*peer));
        let refuse = |full| serve.refused(peer, Refused::Full(full));
        let entered = front.turnstile.enter(from, bounds(&serve.limits())).map_err(refuse).ok()?;
        front.open.send_modify(|open| *open += 1);
        serve.connected(1);
        Some(Open { front, entered })
    }

    /// Now it is known where it comes from. False where there are too many from there.
    fn comes_from(&mut self, serve: &S, client: IpAddr) -> bool {
        let counted = match serve.carries_many(client) {
            true => Ok(()),
            false => self.entered.comes_from(client, bounds(&serve.limits())),
        };
        counted.map_err(|full| serve.refused(client, Refused::Full(full))).is_ok()
    }
}

impl<S: Serve> Drop for Open<'_, S> {
    fn drop(&mut self) {
        self.front.current.now().connected(-1);
        self.front.open.send_modify(|open| *open -= 1);
    }
}

fn bounds(limits: &Limits) -> Bounds {
    let of_one = Some(limits.connections_per_address as usize).filter(|&most| most > 0);
    Bounds { all: limits.connections as usize, of_one }
}

/// Where a connection comes from; `None` when it has gone already.
fn address(stream: &Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    Some(digest.peer_addr()?.as_inet()?.ip().to_canonical())
}

enum Protocol {
    /// With what has been read already.
    Http1(BytesMut),
    Http2,
}

/// Reads as much as tells the protocols apart: the preface of HTTP/2 (RFC 9113 §3.4), or anything that differs from it.
/// `None` when the caller leaves.
async fn first_bytes(stream: &mut Stream) -> Option<BytesMut> {
    let mut read = BytesMut::with_capacity(FIRST_ROOM);
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        if read.starts_with(PREFACE) || !PREFACE.starts_with(&read) {
            return Some(read);
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most requests fit whole into the first read.
const FIRST_ROOM: usize = 4 << 10;

/// Connections that may wait to be accepted; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::TcpStream;

    use super::*;

    /// The sockets' shares of those who connect.
    fn shares(listeners: &[TcpListener], count: usize) -> Vec<usize> {
        let address = listeners[0].local_addr().unwrap();
        let callers: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut shares = BTreeMap::new();
        for (at, listener) in listeners.iter().enumerate() {
            while listener.accept().is_ok() {
                *shares.entry(at).or_insert(0) += 1;
            }
        }
        drop(callers);
        shares.into_values().collect()
    }

    #[test]
    fn those_who_connect_at_once_are_spread_over_all_sockets() {
        let listeners = bind_each("127.0.0.1:0", 4).unwrap();
        let shares = shares(&listeners, 400);
        assert_eq!(shares.iter().sum::<usize>(), 400);
        // It is drawn for each; that one of four gets so few of 400 does not happen.
        assert!(shares.len() == 4 && shares.iter().all(|share| *share > 30), "{shares:?}");
    }

    #[test]
    fn an_address_that_somebody_has_is_not_shared_with_them() {
        let listeners = bind_each("127.0.0.1:0", 2).unwrap();
        let address = listeners[0].local_addr().unwrap().to_string();
        for count in [1, 2] {
            assert_eq!(bind_each(&address, count).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
        drop(listeners);
        let alone = bind_each(&address, 1).unwrap();
        assert_eq!(bind_each(&address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(alone);
        assert_eq!(bind_each(&address, 3).unwrap().len(), 3);
    }
}
