//! A small PAM on real sockets. It checks no credential and no signature, since that is not its work here, and it notes
//! what reaches it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::accounts::{Accounts, SLEEPY};
use crate::fields::Fields;
use crate::request::{Head, HeadLimits, Request};

/// One door of the PAM: an address, closed at first.
pub struct Pam {
    /// Where it is, or will be.
    pub address: SocketAddr,
    socket: Option<TcpSocket>,
    inside: Inside,
}

/// What has reached a door so far. Equal notes: nothing has reached it in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Connections.
    pub connections: usize,
    /// Bytes on all of them.
    pub bytes: usize,
    /// Whole requests.
    pub requests: usize,
}

/// A request as the PAM saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    /// Every `X-Correlation-ID`.
    pub correlation: Vec<String>,
    /// Every `traceparent`.
    pub traceparent: Vec<String>,
    /// The body.
    pub body: Bytes,
}

impl Pam {
    /// Takes a free port, on which nobody is heard before [`Pam::open`].
    pub fn reserve(accounts: &Arc<Mutex<Accounts>>) -> io::Result<Pam> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        Ok(Pam {
            address,
            socket: Some(socket),
            inside: Inside { notes: Arc::default(), accounts: Arc::clone(accounts) },
        })
    }

    /// Starts to listen; once is enough.
    pub fn open(&mut self) -> io::Result<()> {
        if let Some(socket) = self.socket.take() {
            tokio::spawn(self.inside.clone().accept(socket.listen(BACKLOG)?));
        }
        Ok(())
    }

    /// What has reached it so far.
    pub fn touched(&self) -> Touched {
        let notes = self.inside.notes.lock().unwrap_or_else(PoisonError::into_inner);
        Touched { connections: notes.connections, bytes: notes.bytes, requests: notes.requests }
    }

    /// The last request it saw.
    pub fn last(&self) -> Option<Seen> {
        self.inside.notes.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }
}

#[derive(Default)]
struct Notes {
    connections: usize,
    bytes: usize,
    requests: usize,
    last: Option<Seen>,
}

#[derive(Clone)]
struct Inside {
    notes: Arc<Mutex<Notes>>,
    accounts: Arc<Mutex<Accounts>>,
}

impl Inside {
    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            self.note(|notes| notes.connections += 1);
            let inside = self.clone();
            // Whoever breaks off a connection knows it best.
            tokio::spawn(async move { inside.serve(stream).await.ok() });
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut read = BytesMut::new();
        while let Some(request) = self.receive(&mut stream, &mut read).await? {
            self.note(|notes| {
                notes.requests += 1;
                notes.last = Some(Seen::of(&request));
            });
            if request.head.target.path().split('/').any(|segment| segment == SLEEPY) {
                tokio::time::sleep(SLEEP).await;
            }
            let (status, body) = self.accounts.lock().unwrap_or_else(PoisonError::into_inner).answer(&request);
            let body = body.to_string();
            let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let reason = reason.unwrap_or_default();
            let head = format!("HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n");
            stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        }
        Ok(())
    }

    /// The next request, or `None` at the end of the connection.
    async fn receive(&self, stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(at) = read.windows(4).position(|run| run == b"\r\n\r\n") {
                break at + 4;
            }
            if read.len() > LIMITS.bytes || !self.more(stream, read).await? {
                return Ok(None);
            }
        };
        let head = Head::scan(read.split_to(end).freeze(), &LIMITS);
        let head = head.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.as_str()))?;
        let length = usize::try_from(head.framing.length.unwrap_or(0)).map_err(io::Error::other)?;
        while read.len() < length {
            if !self.more(stream, read).await? {
                return Ok(None);
            }
        }
        Ok(Some(Request { head, body: read.split_to(length).freeze() }))
    }

    async fn more(&self, stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<bool> {
        let count = stream.read_buf(read).await?;
        self.note(|notes| notes.bytes += count);
        Ok(count > 0)
    }

    fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Seen {
    fn of(request: &Request) -> Seen {
        let head = &request.head;
        Seen {
            line: format!("{} {}", head.method.as_str(), head.target.as_str()),
            correlation: texts(&head.fields, "x-correlation-id"),
            traceparent: texts(&head.fields, "traceparent"),
            body: request.body.clone(),
        }
    }
}

fn texts(fields: &Fields, name: &str) -> Vec<String> {
    fields.all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// How long the PAM thinks about a player who is [`SLEEPY`]: longer than Portcullis waits.
const SLEEP: Duration = Duration::from_secs(3);

/// What Portcullis lets through is smaller.
const LIMITS: HeadLimits = HeadLimits { bytes: 64 << 10, fields: 256, target: 32 << 10 };

const BACKLOG: u32 = 64;
