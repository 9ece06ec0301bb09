//! What passes: a [`Request`] on its way in, a [`Reply`] on its way out. Plain data, no I/O.

use core::net::IpAddr;
use std::fmt;

use bytes::Bytes;
use memchr::memchr;

use crate::fields::{Fields, Only, content_length, is_token, members};
use crate::origin::Origin;
use crate::target::{Target, TargetFault};
use crate::tls::names::Names;
use crate::trace::CorrelationId;

/// One request, whole: what was read is what is checked is what is forwarded.
#[derive(Clone)]
pub struct Request {
    /// The first line and the header fields.
    pub head: Head,
    /// The body, complete; empty when there is none.
    pub body: Bytes,
}

/// Who is at the other end of the connection, as far as the connection tells.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address; behind a proxy that of the proxy.
    pub address: IpAddr,
    /// It is a balancer that said of nobody that the connection is theirs: a stranger may stand behind it.
    pub unnamed: bool,
    /// The names in its certificate; none without TLS, or where it has shown none.
    pub names: Names,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Whence<'p> {
    /// Its client, as far as trusted proxies tell.
    pub origin: Origin,
    /// The names in the certificate of the connection's other end.
    pub names: &'p Names,
}

/// The first line of a request and its header fields, read strictly.
#[derive(Clone)]
pub struct Head {
    /// The method as sent; methods are case-sensitive (RFC 9110 §9.1).
    pub method: Method,
    /// The target in origin form.
    pub target: Target,
    /// The header fields in the order they came.
    pub fields: Fields,
    /// What the head says about the message around it.
    pub framing: Framing,
    /// The version of HTTP it came in: `1.0`, `1.1` or `2`.
    pub version: &'static str,
}

/// What a head says about the message around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Body length in bytes; `None` when only the transport knows (HTTP/2 without Content-Length).
    pub length: Option<u64>,
    /// The caller waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The connection may serve another request.
    pub keep_alive: bool,
    /// The caller understands a reply in chunks: anything newer than HTTP/1.0.
    pub chunks: bool,
}

/// The methods a route can name. Everything else is refused before routing: a closed set keeps labels bounded too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// Why a request head is not one that can be served. Every variant names its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// The request line is not `METHOD SP target SP HTTP/1.x CRLF`.
    RequestLine,
    /// A protocol version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// CONNECT, TRACE, or a method outside the closed set.
    Method,
    /// The target is not a plain origin-form path.
    Target(TargetFault),
    /// A header field breaks RFC 9112 §5.
    Field(crate::fields::FieldFault),
    /// More bytes or more fields than the limits allow.
    TooLarge,
    /// The target is longer than the limit allows.
    TargetTooLong,
    /// Host is missing, repeated or not a plain `host[:port]`.
    Host,
    /// Content-Length is repeated, not 1 to 18 digits, or there beside a Transfer-Encoding.
    ContentLength,
    /// Transfer-Encoding: bodies are taken by their Content-Length only.
    TransferEncoding,
    /// Connection names something else than `close` or `keep-alive`.
    Connection,
    /// Upgrade is never followed.
    Upgrade,
    /// Expect is something else than `100-continue`.
    Expect,
    /// The head did not arrive within its deadline.
    Slow,
}

/// Bounds a head is read within.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the whole head, request line and empty line included.
    pub bytes: usize,
    /// Number of header fields.
    pub fields: usize,
    /// Bytes of the target.
    pub target: usize,
}

/// The answer to a caller: the PAM's, or our own.
pub struct Reply {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// The PAM's header fields, without any that concern the connection or the framing.
    pub fields: Fields,
    /// Our own.
    pub own: Vec<(&'static str, Bytes)>,
    /// The id that is echoed to the caller; `None` where nobody has one, on the admin address.
    pub correlation: Option<CorrelationId>,
    /// The body.
    pub body: ReplyBody,
    /// The connection ends behind it.
    pub last: bool,
}

/// A reply's body.
pub enum ReplyBody {
    /// Held whole; sent with Content-Length.
    Whole(Bytes),
    /// No body, whatever Content-Length among the fields says: the answer to HEAD, 204, 304.
    None,
    /// Too large to hold, passed on as it comes. Of unknown length only to callers that understand chunks.
    Stream(crate::upstream::AnswerStream),
}

impl Reply {
    /// One of ours, held whole.
    pub fn of_ours(status: u16, own: Vec<(&'static str, Bytes)>, body: Bytes) -> Reply {
        let body = ReplyBody::Whole(body);
        Reply { status, fields: Fields::empty(), own, correlation: None, body, last: false }
    }

    /// All header fields, in their order.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let own = self.own.iter().map(|(name, value)| (name.as_bytes(), &**value));
        let correlation = self.correlation.iter().map(|id| (&b"X-Correlation-ID"[..], id.as_str().as_bytes()));
        self.fields.iter().map(|field| (field.name, field.value)).chain(own).chain(correlation)
    }
}

impl Head {
    /// Reads an HTTP/1 head, from the first byte of the request line to the empty line (RFC 9112 §2.2, §3).
    pub fn scan(raw: Bytes, limits: &HeadLimits) -> Result<Head, HeadFault> {
        if raw.len() > limits.bytes {
            return Err(HeadFault::TooLarge);
        }
        let feed = memchr(b'\n', &raw).ok_or(HeadFault::RequestLine)?;
        let line = raw.get(..feed).and_then(|line| line.strip_suffix(b"\r")).ok_or(HeadFault::RequestLine)?;
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HeadFault::RequestLine);
        };
        let persistent = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            other if other.starts_with(b"HTTP/") && other.len() == 8 => return Err(HeadFault::Version),
            _ => return Err(HeadFault::RequestLine),
        };
        if !is_token(method) {
            return Err(HeadFault::RequestLine);
        }
        let method = Method::parse(method).ok_or(HeadFault::Method)?;
        if target.len() > limits.target {
            return Err(HeadFault::TargetTooLong);
        }
        let target = Target::parse(raw.slice_ref(target)).map_err(HeadFault::Target)?;
        let fields = Fields::scan(raw.clone(), feed + 1, limits.fields).map_err(HeadFault::from_field)?;
        let framing = framing(&fields, persistent)?;
        let version = if persistent { "1.1" } else { "1.0" };
        Ok(Head { method, target, fields, framing, version })
    }

    /// A head that came as HTTP/2 fields; `fields` must carry the authority as Host (RFC 9113 §8.3.1).
    pub fn of_http2(method: &[u8], target: Bytes, fields: Fields, limits: &HeadLimits) -> Result<Head, HeadFault> {
        let method = Method::parse(method).ok_or(HeadFault::Method)?;
        if target.len() > limits.target {
            return Err(HeadFault::TargetTooLong);
        }
        // As many bytes as the same head has in HTTP/1, field by field with `: ` and CR LF.
        let bytes: usize = fields.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
        if target.len() + bytes > limits.bytes {
            return Err(HeadFault::TooLarge);
        }
        let target = Target::parse(target).map_err(HeadFault::Target)?;
        let framing = framing(&fields, true)?;
        // Without Content-Length an HTTP/1 message has no body; in HTTP/2 the stream itself says where the body ends.
        let length = match fields.only("content-length") {
            Only::None => None,
            Only::One(_) | Only::Many => framing.length,
        };
        Ok(Head { method, target, fields, framing: Framing { length, ..framing }, version: "2" })
    }
}

impl Method {
    /// The method a token spells, if it is one that can be served.
    pub fn parse(token: &[u8]) -> Option<Method> {
        Some(match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"PATCH" => Method::Patch,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            _ => return None,
        })
    }

    /// The method as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }
}

impl HeadFault {
    /// The status RFC 9110 has for this fault.
    pub fn status(self) -> u16 {
        match self {
            HeadFault::Version => 505,
            HeadFault::Method => 405,
            HeadFault::TooLarge => 431,
            HeadFault::TargetTooLong => 414,
            HeadFault::TransferEncoding => 411,
            HeadFault::Expect => 417,
            HeadFault::Slow => 408,
            HeadFault::RequestLine
            | HeadFault::Target(_)
            | HeadFault::Field(_)
            | HeadFault::Host
            | HeadFault::ContentLength
            | HeadFault::Connection
            | HeadFault::Upgrade => 400,
        }
    }

    /// One word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HeadFault::RequestLine => "request_line",
            HeadFault::Version => "http_version",
            HeadFault::Method => "method",
            HeadFault::Target(_) => "target",
            HeadFault::Field(_) => "header_field",
            HeadFault::TooLarge => "head_too_large",
            HeadFault::TargetTooLong => "target_too_long",
            HeadFault::Host => "host",
            HeadFault::ContentLength => "content_length",
            HeadFault::TransferEncoding => "transfer_encoding",
            HeadFault::Connection => "connection",
            HeadFault::Upgrade => "upgrade",
            HeadFault::Expect => "expect",
            HeadFault::Slow => "head_timeout",
        }
    }

    /// One of each word that [`HeadFault::as_str`] can give, for label sets that start at zero.
    pub const ALL: [HeadFault; 14] = [
        HeadFault::RequestLine,
        HeadFault::Version,
        HeadFault::Method,
        HeadFault::Target(TargetFault::Form),
        HeadFault::Field(crate::fields::FieldFault::Name),
        HeadFault::TooLarge,
        HeadFault::TargetTooLong,
        HeadFault::Host,
        HeadFault::ContentLength,
        HeadFault::TransferEncoding,
        HeadFault::Connection,
        HeadFault::Upgrade,
        HeadFault::Expect,
        HeadFault::Slow,
    ];

    /// Too many fields is a matter of size, everything else of syntax.
    pub fn from_field(fault: crate::fields::FieldFault) -> HeadFault {
        match fault {
            crate::fields::FieldFault::TooMany | crate::fields::FieldFault::TooLong => HeadFault::TooLarge,
            other => HeadFault::Field(other),
        }
    }
}

/// Names no value: fields and target carry credentials and tokens.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("method", &self.method).field("fields", &self.fields).finish_non_exhaustive()
    }
}

/// The fields that frame a message, each allowed once and in one spelling only: what two readers could take differently
/// is refused, since one of the two readers is the PAM (RFC 9112 §6.3, §11.2).
fn framing(fields: &Fields, persistent: bool) -> Result<Framing, HeadFault> {
    let mut length = None;
    let mut keep_alive = persistent;
    let mut expects_continue = false;
    let mut host = 0;
    let mut encoded = false;
    for field in fields.iter() {
        let name = field.name;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                host += 1;
                if host > 1 || !plain_host(field.value) {
                    return Err(HeadFault::Host);
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !field.value.eq_ignore_ascii_case(b"100-continue") || expects_continue {
                    return Err(HeadFault::Expect);
                }
                expects_continue = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => return Err(HeadFault::Upgrade),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for member in members(field.value) {
                    if member.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if member.eq_ignore_ascii_case(b"upgrade") {
                        return Err(HeadFault::Upgrade);
                    } else if !member.eq_ignore_ascii_case(b"keep-alive") {
                        // A nominated header would be dropped on the way, after it was checked (RFC 9110 §7.6.1).
                        return Err(HeadFault::Connection);
                    }
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if length.is_some() {
                    return Err(HeadFault::ContentLength);
                }
                length = Some(content_length(field.value).ok_or(HeadFault::ContentLength)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => encoded = true,
            _ => {}
        }
    }
    // 411 asks for a length. Who sends one as well has two readers in mind, and is asked for nothing (RFC 9112 §6.1).
    match (encoded, length) {
        (false, _) => {}
        (true, None) => return Err(HeadFault::TransferEncoding),
        (true, Some(_)) => return Err(HeadFault::ContentLength),
    }
    // HTTP/1.0 knows no Host, but the request goes on as HTTP/1.1, which must have one (RFC 9112 §3.2).
    if host == 0 {
        return Err(HeadFault::Host);
    }
    // An HTTP/1.0 caller does not know `100 Continue` (RFC 9110 §10.1.1).
    expects_continue &= persistent;
    Ok(Framing { length: Some(length.unwrap_or(0)), expects_continue, keep_alive, chunks: persistent })
}

/// `host[:port]` and nothing that a second reader could split otherwise: no list, user, path or blank.
fn plain_host(value: &[u8]) -> bool {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !value.is_empty() && value.len() <= 255 && value.iter().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 8, target: 64 };

    fn scan(text: &str) -> Result<Head, HeadFault> {
        Head::scan(Bytes::copy_from_slice(text.as_bytes()), &LIMITS)
    }

    #[test]
    fn a_plain_head_is_read() {
        let head = scan("POST /a/b?c=d HTTP/1.1\r\nHost: pam\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert_eq!(head.method, Method::Post);
        assert_eq!(head.target.path(), "/a/b");
        assert_eq!(head.framing, Framing { length: Some(12), expects_continue: false, keep_alive: true, chunks: true });
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        let cases = [
            ("GET  /a HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::RequestLine),
            ("GET /a\tHTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::RequestLine),
            ("GET /a HTTP/1.1\nHost: a\r\n\r\n", HeadFault::RequestLine),
            ("GET /a\r\nHost: a\r\n\r\n", HeadFault::RequestLine),
            ("GET /a http/1.1\r\nHost: a\r\n\r\n", HeadFault::RequestLine),
            ("GET /a HTTP/1.10\r\nHost: a\r\n\r\n", HeadFault::RequestLine),
            ("GET /a HTTP/1.2\r\nHost: a\r\n\r\n", HeadFault::Version),
            ("GET /a HTTP/2.0\r\nHost: a\r\n\r\n", HeadFault::Version),
            ("\rGET /a HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::RequestLine),
            ("get /a HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Method),
            ("TRACE /a HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Method),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Method),
            ("PRI * HTTP/2.0\r\n\r\n", HeadFault::Version),
            ("GET /a HTTP/1.1\r\n\r\n", HeadFault::Host),
            ("GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HeadFault::Host),
            ("GET /a HTTP/1.1\r\nHost: a, b\r\n\r\n", HeadFault::Host),
            ("GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n", HeadFault::Host),
            ("GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n", HeadFault::Host),
            ("GET /a HTTP/1.1\r\nHost:\r\n\r\n", HeadFault::Host),
            ("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", HeadFault::ContentLength),
            ("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", HeadFault::ContentLength),
            ("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", HeadFault::ContentLength),
            ("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", HeadFault::ContentLength),
            ("GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", HeadFault::TransferEncoding),
            (
                "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadFault::ContentLength,
            ),
            ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close, Authorization\r\n\r\n", HeadFault::Connection),
            ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n", HeadFault::Upgrade),
            ("GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", HeadFault::Upgrade),
            ("GET /a HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", HeadFault::Expect),
        ];
        for (text, fault) in cases {
            assert_eq!(scan(text).unwrap_err(), fault, "{text:?}");
        }
    }

    #[test]
    fn size_limits_have_their_own_status() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(64));
        assert_eq!(scan(&long).unwrap_err().status(), 414);
        let big = format!("GET /a HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(1024));
        assert_eq!(scan(&big).unwrap_err().status(), 431);
        let many = format!("GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(8));
        assert_eq!(scan(&many).unwrap_err().status(), 431);
    }

    #[test]
    fn http_1_0_closes_unless_asked_to_stay() {
        assert!(!scan("GET /a HTTP/1.0\r\nHost: a\r\n\r\n").unwrap().framing.keep_alive);
        assert!(!scan("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap().framing.keep_alive);
        assert!(scan("GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap().framing.keep_alive);
    }
}
