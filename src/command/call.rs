//! A request over HTTP: made, signed, sent over a connection of its own, and shown as a `curl` line.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::command::sign::quoted;
use crate::credential::signature::{Scheme, SigningKey};
use crate::dialect::source::View;
use crate::request::{Head, HeadLimits, Request};

/// A request to send.
#[derive(Clone)]
pub struct Call {
    /// The method.
    pub method: &'static str,
    /// Path and query, sent as they are.
    pub target: String,
    /// Header fields, beside those that every request has.
    pub fields: Vec<(String, String)>,
    /// The body; empty when there is none.
    pub body: String,
}

/// What came back.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Every `X-Correlation-ID`.
    pub correlation: Vec<String>,
    /// The body.
    pub body: String,
}

impl Call {
    /// A request without a body.
    pub fn new(method: &'static str, target: &str) -> Call {
        Call { method, target: target.to_owned(), fields: Vec::new(), body: String::new() }
    }

    /// A request with a JSON body.
    pub fn post(target: &str, body: &str) -> Call {
        Call { body: body.to_owned(), ..Call::new("POST", target) }
    }

    /// Adds a header field.
    pub fn with(mut self, name: &str, value: &str) -> Call {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds what `scheme` signs it with.
    pub fn signed(mut self, scheme: &Scheme, key: &SigningKey, at: SystemTime) -> Result<Call, String> {
        let (head, body) = (self.head("demo"), Bytes::from(self.body.clone()));
        let head = Head::scan(head.into(), &LIMITS).map_err(|fault| format!("cannot sign: {}", fault.as_str()))?;
        let request = Request { head, body };
        let view = View { request: &request, found: None };
        let stamp = scheme.timestamp.as_ref().map(|rule| rule.stamp(at)).unwrap_or_default();
        let fields = scheme.sign(&view, key, &stamp, "").ok_or("cannot sign: the signature stands in no header")?;
        self.fields.extend(fields);
        Ok(self)
    }

    /// Sends it to the first of the addresses where somebody listens, and reads the reply, which always has a
    /// Content-Length.
    pub async fn send(&self, addresses: &[SocketAddr], patience: Duration) -> Result<Reply, String> {
        let exchanged = timeout(patience, self.exchange(addresses)).await;
        exchanged
            .map_err(|_| format!("no reply came within {patience:?}; whether it was carried out is not known"))?
            .map_err(|fault| format!("{} {}: {fault}", self.method, self.target))
    }

    /// A line for a shell, with the URL's `authority`; `joint` stands between its parts.
    pub fn curl(&self, authority: SocketAddr, joint: &str) -> String {
        let mut parts = vec!["curl -i".to_owned()];
        if self.method != "GET" && self.body.is_empty() {
            parts.push(format!("-X {}", self.method));
        }
        parts.extend(self.all_fields().map(|(name, value)| format!("-H {}", quoted(&format!("{name}: {value}")))));
        if !self.body.is_empty() {
            parts.push(format!("-d {}", quoted(&self.body)));
        }
        parts.push(quoted(&format!("http://{authority}{}", self.target)));
        parts.join(joint)
    }

    fn all_fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let json = (!self.body.is_empty()).then_some(("Content-Type", "application/json"));
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(json)
    }

    fn head(&self, host: &str) -> String {
        let fields: String = self.all_fields().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length =
            if self.method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", self.body.len()) };
        format!("{} {} HTTP/1.1\r\nHost: {host}\r\n{fields}{length}\r\n", self.method, self.target)
    }

    async fn exchange(&self, addresses: &[SocketAddr]) -> Result<Reply, String> {
        let said = |fault: std::io::Error| fault.to_string();
        let mut stream = TcpStream::connect(addresses).await.map_err(|fault| {
            let listed = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            match fault.kind() {
                ErrorKind::ConnectionRefused => format!("nothing listens at {listed}"),
                _ => format!("cannot reach {listed}: {fault}"),
            }
        })?;
        let host = stream.peer_addr().map_err(said)?.to_string();
        let bytes = format!("{}{}", self.head(&host), self.body);
        stream.write_all(bytes.as_bytes()).await.map_err(said)?;
        let mut read = Vec::new();
        loop {
            if let Some(reply) = Reply::read(&read)? {
                return Ok(reply);
            }
            if stream.read_buf(&mut read).await.map_err(said)? == 0 {
                return Err("the connection ended before the reply did".to_owned());
            }
        }
    }
}

impl Reply {
    /// A whole reply, or `None` as long as there is more to come.
    fn read(bytes: &[u8]) -> Result<Option<Reply>, String> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut fields);
        let end = match head.parse(bytes).map_err(|fault| format!("no HTTP reply: {fault}"))? {
            httparse::Status::Complete(end) => end,
            httparse::Status::Partial => return Ok(None),
        };
        let values = |name: &str| {
            let named = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| String::from_utf8_lossy(field.value).into_owned()).collect::<Vec<_>>()
        };
        let length = values("content-length").first().and_then(|length| length.parse::<usize>().ok());
        let length = length.ok_or("a reply without Content-Length")?;
        let body = bytes.get(end..).unwrap_or_default();
        if body.len() < length {
            return Ok(None);
        }
        Ok(Some(Reply {
            status: head.code.unwrap_or_default(),
            correlation: values("x-correlation-id"),
            body: String::from_utf8_lossy(body).into_owned(),
        }))
    }
}

const LIMITS: HeadLimits = HeadLimits { bytes: 16 << 10, fields: 32, target: 4 << 10 };
