//! The exchange with the PAM: one request, sent once, and its answer (RFC 9112, RFC 9113).
//!
//! The request is held whole. That makes "at most once" visible in one function,
//! [`Upstream::exchange`]: it finds a way first, writes at one place for each version of HTTP, and
//! nothing behind those places leads back to them.
//!
//! ```text
//! upstream.rs             the exchange, its limits and its failures
//! upstream/outbound.rs    a request, and its head as either version has it       (pure)
//! upstream/pool.rs        HTTP/1.1: connections that wait for their next exchange
//! upstream/connection.rs  HTTP/1.1: one connection during an exchange
//! upstream/stream.rs      what its bytes go through: TCP, or TLS over it
//! upstream/answer.rs      the answer: held, or streamed where it is too large
//! upstream/head.rs        status line, fields, and what they say about the body   (pure)
//! upstream/http2.rs       HTTP/2: connections that carry many exchanges
//! upstream/http2/connection.rs  one of them: its room, its age, its end
//! upstream/http2/exchange.rs    one exchange on it
//! upstream/http2/incoming.rs    the answer's body
//! upstream/section.rs     where a head or a trailer section ends                  (pure)
//! upstream/framing.rs     where a body ends                                       (pure)
//! upstream/patience.rs    how long an exchange may still take
//! upstream/counts.rs      what becomes of connections, counted
//! ```

mod answer;
mod connection;
mod counts;
mod framing;
mod head;
mod http2;
mod outbound;
mod patience;
mod pool;
mod section;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Scheme;
use tokio::time::timeout;

pub use self::answer::{Answer, AnswerBody, AnswerStream};
use self::answer::{Gathered, Incoming};
use self::connection::Connection;
use self::counts::Tally;
pub use self::counts::{Counts, End};
use self::http2::{Connections, Place};
pub use self::outbound::Outbound;
use self::patience::Patience;
use self::pool::{Pool, Rested};
use self::stream::Stream;
use crate::threads;
use crate::tls::pam::{PamRules, PamTls};
use crate::tls::watched::Watched;

/// The PAM at one address, and the connections to it.
pub struct Upstream {
    address: String,
    limits: UpstreamLimits,
    protocol: Protocol,
    tls: Option<Arc<Watched<PamRules>>>,
    /// Over HTTP/1.1, for each thread that serves: a connection stays with the thread that opened it.
    pools: Box<[Arc<Pool>]>,
    /// Over HTTP/2.
    connections: Arc<Connections>,
    /// What the PAM chose last, where it may choose.
    chose_http1: AtomicBool,
    counts: Arc<Counts>,
}

/// Which version of HTTP is spoken to the PAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 and nothing else: agreed on by ALPN under TLS, or with prior knowledge in the clear.
    Http2,
    /// What ALPN comes to; without TLS, HTTP/1.1.
    Auto,
}

/// What a request goes by: everything up to here can be done again, since nothing has been sent.
enum Way {
    Http1(Connection, bool),
    Http2(Place),
}

/// How long to wait for the PAM, and how much of its answers to hold.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamLimits {
    /// Until a connection stands, the name's look-up and the TLS handshake included.
    pub connect: Duration,
    /// Until the kernel has taken the whole request.
    pub write: Duration,
    /// Between two reads.
    pub read: Duration,
    /// From connecting to the last byte that is held.
    pub total: Duration,
    /// A connection that has waited in the pool for so long is not used again. Should be less than
    /// what the PAM waits itself, or else its closing may cross a request.
    pub idle: Duration,
    /// Connections that wait in the pool; over HTTP/2, connections altogether.
    pub pooled: usize,
    /// Bytes of an answer's head; of its trailers too.
    pub answer_head: usize,
    /// Fields of an answer's head; of its trailers too.
    pub answer_fields: usize,
    /// Bytes of an answer's body that are held whole.
    pub held: usize,
}

/// What is special about one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// The method is HEAD: the answer has no body, whatever its fields say.
    pub head_request: bool,
    /// The answer must be seen whole: one larger than `held` is a failure instead of a stream.
    pub must_hold: bool,
}

/// An exchange that came to no answer, or to no complete one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// Whether a byte of the request may have reached the PAM, so that its outcome is unknown.
    pub sent: bool,
}

/// What went wrong in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: refused, unreachable, or the name is unknown.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The PAM's certificate has another name, is not signed by whom we trust, or has expired.
    Certificate,
    /// No agreement on TLS: the PAM speaks none, or wants a certificate that we do not have.
    Tls,
    /// The PAM closed the connection while the request was written.
    Write,
    /// The PAM did not take the request, or did not answer, in time.
    Timeout,
    /// The PAM closed the connection in front of the answer or inside it.
    Closed,
    /// The answer is not HTTP/1.1 as RFC 9112 has it. The word says where.
    Malformed(&'static str),
    /// The answer must be held but is too large.
    TooLarge,
    /// The PAM switched protocols, which no one had asked for.
    Unasked101,
    /// HTTP/2 is demanded, and the PAM does not speak it.
    NoHttp2,
    /// The request has something in it that HTTP/2 has no place for.
    NotForHttp2,
    /// The PAM was on as many exchanges as it allows, and none ended in time.
    Full,
    /// The PAM says that it has not looked at the request: it refused the stream, or is ending the connection.
    Unprocessed,
}

impl Upstream {
    /// For the PAM at `address`, as `host:port`. Connects to nothing yet.
    pub fn new(address: String, limits: UpstreamLimits) -> Upstream {
        Upstream {
            address,
            limits,
            protocol: Protocol::Http1,
            tls: None,
            pools: pools(1, limits, &Arc::default()),
            connections: Arc::new(Connections::new(limits)),
            chose_http1: AtomicBool::new(false),
            counts: Arc::default(),
        }
    }

    /// The same, for so many threads, which share the room for connections that wait.
    pub fn for_threads(self, count: usize) -> Upstream {
        Upstream { pools: pools(count, self.limits, &self.counts), ..self }
    }

    /// The same, with its connections counted there.
    pub fn counted_in(self, counts: &Arc<Counts>) -> Upstream {
        Upstream {
            pools: pools(self.pools.len(), self.limits, counts),
            connections: Arc::new(Connections::new(self.limits).counted_in(counts)),
            counts: Arc::clone(counts),
            ..self
        }
    }

    /// Connections that wait in the pool, and those over HTTP/2.
    pub fn pooled(&self) -> [usize; 2] {
        [self.pools.iter().map(|pool| pool.count()).sum(), self.connections.count()]
    }

    /// Where the PAM is, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The version of HTTP that is spoken to it, as others write it; `None` where that is its choice.
    pub fn version(&self) -> Option<&'static str> {
        match self.protocol {
            Protocol::Http1 => Some("1.1"),
            Protocol::Http2 => Some("2"),
            Protocol::Auto => None,
        }
    }

    /// The same, in this version of HTTP instead of HTTP/1.1.
    pub fn speaking(self, protocol: Protocol) -> Upstream {
        Upstream { protocol, ..self }
    }

    /// The same, over TLS from now on.
    pub fn over(self, tls: Arc<Watched<PamRules>>) -> Upstream {
        Upstream { tls: Some(tls), ..self }
    }

    /// Sends one request once and reads its answer. The time for it runs from `now`.
    ///
    /// `request` must belong to `body`: nothing is added or checked here. Nothing is ever sent again,
    /// not even what the PAM says it has not processed; a connection that turns out to be dead is
    /// replaced only as long as nothing has been written.
    ///
    /// Dropping the future closes the connection, or over HTTP/2 resets the stream. Where the PAM's
    /// work must not be disturbed by a caller that hangs up, let a task of its own await it.
    pub async fn exchange(
        &self,
        request: &(impl Outbound + Sync),
        body: Bytes,
        manner: Manner,
        now: Instant,
    ) -> Result<Answer, Failure> {
        let patience = Patience::starting(now, self.limits.total);
        let unsent = |kind| Failure { kind, sent: false };
        match self.way(patience).await.map_err(unsent)? {
            Way::Http1(mut connection, reused) => {
                connection.write(outbound::http1(request), body, patience.limit(self.limits.write)).await?;
                let answer = self.answer(connection, manner, reused, patience).await;
                answer.map_err(|kind| Failure { kind, sent: true })
            }
            Way::Http2(place) => {
                let scheme = if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
                let request = outbound::http2(request, scheme).ok_or(unsent(FailureKind::NotForHttp2))?;
                http2::exchange(place, request, body, manner, &self.limits, patience).await
            }
        }
    }

    /// A connection to send the request on: one that is there, or a new one. Sends nothing of it.
    async fn way(&self, patience: Patience) -> Result<Way, FailureKind> {
        let tls = self.tls.as_ref().map(|tls| tls.now());
        let tls = tls.as_ref();
        if self.protocol != Protocol::Http2
            && let Some(rested) = self.pool().take(tls, patience.since())
        {
            self.counts.reuse(false);
            return Ok(Way::Http1(self.counted(rested), true));
        }
        let limit = patience.at_most(self.limits.connect);
        let found = match self.protocol {
            Protocol::Http1 => timeout(limit, self.open(tls)).await,
            Protocol::Auto if self.chose_http1.load(Ordering::Relaxed) => timeout(limit, self.open(tls)).await,
            Protocol::Http2 | Protocol::Auto => timeout(limit, self.share(tls, limit)).await,
        };
        found.unwrap_or_else(|_| match self.connections.are_full() {
            true => Err(FailureKind::Full),
            false => Err(FailureKind::ConnectTimeout),
        })
    }

    /// Room on a connection that others use as well. A new one is opened when there is none, as long as there are not
    /// too many.
    async fn share(&self, tls: Option<&Arc<PamTls>>, limit: Duration) -> Result<Way, FailureKind> {
        if let Some(place) = self.connections.place(tls, limit).await {
            self.counts.reuse(true);
            return Ok(Way::Http2(place));
        }
        let _turn = self.connections.turn.lock().await;
        loop {
            if let Some(place) = self.connections.place(tls, limit).await {
                self.counts.reuse(true);
                return Ok(Way::Http2(place));
            }
            if !self.connections.are_full() {
                return self.open(tls).await;
            }
            self.connections.roomier().await;
        }
    }

    async fn open(&self, tls: Option<&Arc<PamTls>>) -> Result<Way, FailureKind> {
        let stream = Stream::open(&self.address, tls, self.protocol).await?;
        let http2 = match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => stream.agreed_on_http2(),
        };
        self.chose_http1.store(!http2, Ordering::Relaxed);
        self.counts.open(http2);
        match http2 {
            true => self.connections.begin(stream).await.map(Way::Http2),
            false => Ok(Way::Http1(self.counted(stream), false)),
        }
    }

    /// That of the thread that asks.
    fn pool(&self) -> &Arc<Pool> {
        &self.pools[threads::current() % self.pools.len()]
    }

    fn counted(&self, rested: impl Into<Rested>) -> Connection {
        Connection::over(rested).counted_by(Tally::of(&self.counts, End::Exchange))
    }

    async fn answer(
        &self,
        mut connection: Connection,
        manner: Manner,
        reused: bool,
        patience: Patience,
    ) -> Result<Answer, FailureKind> {
        let head = answer::head(&mut connection, &self.limits, patience).await?;
        let framing = head.framing(manner.head_request);
        let framing = framing.map_err(FailureKind::Malformed)?;
        let mut incoming = Incoming::new(connection, framing, self.limits);
        let gathered = incoming.gather(patience).await?;
        let at = Instant::now();
        let body = match gathered {
            Gathered::Whole(body) => {
                incoming.release(self.pool(), at);
                AnswerBody::Whole(body)
            }
            Gathered::Larger(_) if manner.must_hold => return Err(FailureKind::TooLarge),
            Gathered::Larger(gathered) => AnswerBody::Stream(incoming.stream(gathered, Arc::clone(self.pool()))),
        };
        Ok(Answer { status: head.status, fields: head.fields, body, reused, at })
    }
}

/// At least one.
fn pools(count: usize, limits: UpstreamLimits, counts: &Arc<Counts>) -> Box<[Arc<Pool>]> {
    let count = count.max(1);
    let each = limits.pooled.div_ceil(count);
    (0..count).map(|_| Arc::new(Pool::new(each, limits.idle).counted_in(counts))).collect()
}

impl FailureKind {
    /// One of each word that [`FailureKind::as_str`] can give.
    pub const ALL: [FailureKind; 14] = [
        FailureKind::Connect,
        FailureKind::ConnectTimeout,
        FailureKind::Certificate,
        FailureKind::Tls,
        FailureKind::Write,
        FailureKind::Timeout,
        FailureKind::Closed,
        FailureKind::Malformed(""),
        FailureKind::TooLarge,
        FailureKind::Unasked101,
        FailureKind::NoHttp2,
        FailureKind::NotForHttp2,
        FailureKind::Full,
        FailureKind::Unprocessed,
    ];

    /// A fixed word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Connect => "connect",
            FailureKind::ConnectTimeout => "connect_timeout",
            FailureKind::Certificate => "tls_certificate",
            FailureKind::Tls => "tls",
            FailureKind::Write => "write",
            FailureKind::Timeout => "timeout",
            FailureKind::Closed => "closed",
            FailureKind::Malformed(_) => "malformed",
            FailureKind::TooLarge => "too_large",
            FailureKind::Unasked101 => "unasked_101",
            FailureKind::NoHttp2 => "no_http2",
            FailureKind::NotForHttp2 => "not_for_http2",
            FailureKind::Full => "full",
            FailureKind::Unprocessed => "unprocessed",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::{Mutex, PoisonError};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::sync::oneshot;
    use tokio::task::{JoinHandle, yield_now};
    use tokio::time::{sleep, timeout};

    use super::*;

    // Answers held whole.

    #[tokio::test]
    async fn answers_of_every_framing_come_whole() {
        for (answer, status, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
            ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500, ""),
            ("HTTP/1.1 402\r\nContent-Length: 5\r\n\r\nhello", 402, "hello"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, "hello"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nA: 1\r\n\r\n",
                200,
                "hello",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""),
            ("HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello"),
            ("HTTP/1.0 200 OK\r\n\r\n", 200, ""),
            ("HTTP/1.1 204 None\r\n\r\n", 204, ""),
            ("HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", 304, ""),
        ] {
            for act in [send(answer), drip(answer)] {
                let (taken, seen) = play(vec![Act::Read, act, Act::Close], ANY).await;
                let taken = taken.unwrap();
                assert_eq!((taken.status, taken.body.as_str()), (status, body), "{answer:?}");
                assert!(!taken.streamed, "{answer:?}");
                assert_eq!(seen, [REQUEST], "{answer:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_to_head_has_no_body() {
        for fields in ["Content-Length: 99999", "Transfer-Encoding: chunked", "A: 1"] {
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            let pam = Pam::start(vec![vec![Act::Read, send(&answer), Act::Read, send(&answer)]]).await;
            let upstream = pam.upstream(LIMITS);
            let manner = Manner { head_request: true, must_hold: true };
            for reused in [false, true] {
                let taken = ask(&upstream, manner).await.unwrap();
                assert_eq!(taken, Taken { reused, ..Taken::whole("") }, "{fields}");
            }
            assert_eq!(pam.seen(upstream).await, [REQUEST.repeat(2)], "{fields}");
        }
    }

    #[tokio::test]
    async fn fields_arrive_in_order_and_trailers_are_dropped() {
        let answer = "HTTP/1.1 200 OK\r\nB: 1\r\nTransfer-Encoding: chunked\r\nA: 2\r\n\r\n0\r\nC: 3\r\n\r\n";
        let pam = Pam::start(vec![vec![Act::Read, send(answer)]]).await;
        let upstream = pam.upstream(LIMITS);
        let answer = upstream.exchange(&GET, Bytes::new(), ANY, Instant::now()).await.unwrap();
        assert_eq!(format!("{:?}", answer.fields), r#"["B", "Transfer-Encoding", "A"]"#);
    }

    #[tokio::test]
    async fn the_body_of_a_request_follows_its_head() {
        let head = "POST / HTTP/1.1\r\nHost: pam\r\nContent-Length: 4\r\n\r\n";
        let pam = Pam::start(vec![vec![Act::Read, send(HELLO)]]).await;
        let upstream = pam.upstream(LIMITS);
        let body = Bytes::from_static(b"body");
        let answer = upstream.exchange(&POST, body, ANY, Instant::now()).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(pam.seen(upstream).await, [format!("{head}body")]);
    }

    #[tokio::test]
    async fn interim_answers_are_skipped() {
        for interim in [
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102\r\n\r\n",
            &"HTTP/1.1 100 Continue\r\n\r\n".repeat(8),
        ] {
            let answer = format!("{interim}{HELLO}");
            for act in [send(&answer), drip(&answer)] {
                let (taken, seen) = play(vec![Act::Read, act], ANY).await;
                assert_eq!(taken, Ok(Taken::whole("hello")), "{interim:?}");
                assert_eq!(seen, [REQUEST], "{interim:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_host_name_is_looked_up() {
        let pam = Pam::start(vec![vec![Act::Read, send(HELLO)]]).await;
        let address = format!("localhost:{}", pam.address.port());
        let upstream = Upstream::new(address, LIMITS);
        assert_eq!(ask(&upstream, ANY).await, Ok(Taken::whole("hello")));
    }

    #[tokio::test]
    async fn debug_prints_no_byte_of_an_answer() {
        let answer = "HTTP/1.1 200 OK\r\nA: secret\r\nContent-Length: 6\r\n\r\nsecret";
        let pam = Pam::start(vec![vec![Act::Read, send(answer)]]).await;
        let upstream = pam.upstream(LIMITS);
        let answer = upstream.exchange(&GET, Bytes::new(), ANY, Instant::now()).await.unwrap();
        let printed = format!("{answer:?}");
        assert!(!printed.contains("secret"), "{printed}");
    }

    // Answers that are too large to hold.

    #[tokio::test]
    async fn what_fits_exactly_is_held() {
        for answer in of_every_framing(LIMITS.held) {
            for (act, must_hold) in
                [(send(&answer), false), (send(&answer), true), (drip(&answer), false), (drip(&answer), true)]
            {
                let manner = Manner { must_hold, ..ANY };
                let (taken, seen) = play(vec![Act::Read, act, Act::Close], manner).await;
                assert_eq!(taken, Ok(Taken::whole(&"x".repeat(LIMITS.held))), "{answer:?}");
                assert_eq!(seen, [REQUEST], "{answer:?}");
            }
        }
    }

    #[tokio::test]
    async fn one_byte_more_is_streamed() {
        for answer in of_every_framing(LIMITS.held + 1) {
            for act in [send(&answer), drip(&answer)] {
                let (taken, seen) = play(vec![Act::Read, act, Act::Close], ANY).await;
                let expected = Taken { streamed: true, ..Taken::whole(&"x".repeat(LIMITS.held + 1)) };
                assert_eq!(taken, Ok(expected), "{answer:?}");
                assert_eq!(seen, [REQUEST], "{answer:?}");
            }
        }
    }

    #[tokio::test]
    async fn one_byte_more_fails_where_all_must_be_held() {
        for answer in of_every_framing(LIMITS.held + 1) {
            for act in [send(&answer), drip(&answer)] {
                let manner = Manner { must_hold: true, ..ANY };
                let kind = failure(vec![Act::Read, act], manner, LIMITS).await;
                assert_eq!(kind, FailureKind::TooLarge, "{answer:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_large_stream_comes_whole() {
        for answer in of_every_framing(1_000_000) {
            let (taken, _) = play(vec![Act::Read, send(&answer), Act::Close], ANY).await;
            let body = taken.unwrap().body;
            assert_eq!(body.len(), 1_000_000);
            assert!(body.bytes().all(|byte| byte == b'x'));
        }
    }

    #[tokio::test]
    async fn a_stream_knows_the_length_that_was_stated() {
        let lengths = [Some(65), None, None, None];
        for (answer, length) in of_every_framing(65).iter().zip(lengths) {
            let pam = Pam::start(vec![vec![Act::Read, send(answer), Act::Close]]).await;
            let upstream = pam.upstream(LIMITS);
            let stream = stream(&upstream).await;
            assert_eq!(stream.length(), length, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_may_outlast_the_total() {
        let limits = UpstreamLimits { total: Duration::from_millis(200), ..LIMITS };
        let (go, gone) = oneshot::channel();
        let start = format!("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{}", "x".repeat(65));
        let acts = vec![Act::Read, send(&start), Act::Wait(gone), send("yyyyy")];
        let pam = Pam::start(vec![acts]).await;
        let upstream = pam.upstream(limits);
        let mut stream = stream(&upstream).await;
        let (body, ()) = tokio::join!(drain(&mut stream), async {
            sleep(2 * limits.total).await;
            go.send(()).unwrap();
        });
        assert_eq!(body.unwrap(), [vec![b'x'; 65], vec![b'y'; 5]].concat());
    }

    #[tokio::test]
    async fn a_stalled_stream_times_out() {
        let limits = UpstreamLimits { read: BRIEF, ..LIMITS };
        for answer in of_every_framing(100) {
            let half = &answer[..answer.len() - 10];
            let kind = failure(vec![Act::Read, send(half)], ANY, limits).await;
            assert_eq!(kind, FailureKind::Timeout, "{half:?}");
        }
    }

    #[tokio::test]
    async fn a_truncated_stream_fails_for_good() {
        let start = format!("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{}", "x".repeat(69));
        let pam = Pam::start(vec![vec![Act::Read, send(&start), Act::Close]]).await;
        let upstream = pam.upstream(LIMITS);
        let mut stream = stream(&upstream).await;
        let cut = Failure { kind: FailureKind::Closed, sent: true };
        assert_eq!(drain(&mut stream).await, Err(cut));
        assert_eq!(stream.next().await, Err(cut));
        assert_eq!(pam.seen(upstream).await, [REQUEST]);
    }

    #[tokio::test]
    async fn a_stream_that_timed_out_does_not_go_on() {
        let limits = UpstreamLimits { read: BRIEF, ..LIMITS };
        let (go, gone) = oneshot::channel();
        let start = format!("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{}", "x".repeat(65));
        let acts = vec![Act::Read, send(&start), Act::Wait(gone), send("yyyyy")];
        let pam = Pam::start(vec![acts]).await;
        let upstream = pam.upstream(limits);
        let mut stream = stream(&upstream).await;
        let failed = drain(&mut stream).await.map_err(|failed| failed.kind);
        assert_eq!(failed, Err(FailureKind::Timeout));
        go.send(()).unwrap();
        let failed = stream.next().await.map_err(|failed| failed.kind);
        assert_eq!(failed, Err(FailureKind::Closed));
        // The connection is closed although the stream is still there.
        assert_eq!(pam.seen(upstream).await, [REQUEST]);
        drop(stream);
    }

    #[tokio::test]
    async fn a_malformed_stream_fails() {
        let start = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n{}\r\nx\r\n", "x".repeat(65));
        let kind = failure(vec![Act::Read, send(&start)], ANY, LIMITS).await;
        assert_eq!(kind, FailureKind::Malformed("chunk_size"));
    }

    #[tokio::test]
    async fn a_stream_read_to_its_end_keeps_its_connection() {
        for answer in of_every_framing(100).into_iter().take(3) {
            let acts = vec![Act::Read, send(&answer), Act::Read, send(HELLO)];
            let pam = Pam::start(vec![acts]).await;
            let upstream = pam.upstream(LIMITS);
            let mut stream = stream(&upstream).await;
            drain(&mut stream).await.unwrap();
            assert_eq!(stream.next().await, Ok(None), "{answer:?}");
            assert_eq!(ask(&upstream, ANY).await, Ok(Taken::reused("hello")), "{answer:?}");
            drop(stream);
            assert_eq!(pam.seen(upstream).await, [REQUEST.repeat(2)], "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_dropped_early_closes_its_connection() {
        let answer = &of_every_framing(100)[0];
        let scripts = vec![vec![Act::Read, send(answer)], vec![Act::Read, send(HELLO)]];
        let pam = Pam::start(scripts).await;
        let upstream = pam.upstream(LIMITS);
        let mut stream = stream(&upstream).await;
        stream.next().await.unwrap();
        drop(stream);
        assert_eq!(ask(&upstream, ANY).await, Ok(Taken::whole("hello")));
        assert_eq!(pam.seen(upstream).await, [REQUEST, REQUEST]);
    }

    // Answers that are none.

    // threat: F4, G2
    #[tokio::test]
    async fn a_truncated_answer_is_never_complete() {
        for answer in [
            HELLO,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: 1\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
        ] {
            for cut in 0..answer.len() {
                let acts = vec![Act::Read, send(&answer[..cut]), Act::Close];
                let kind = failure(acts, ANY, LIMITS).await;
                assert_eq!(kind, FailureKind::Closed, "{:?}", &answer[..cut]);
            }
        }
    }

    // threat: F4, G2
    #[tokio::test]
    async fn a_reset_ends_no_body() {
        let acts = vec![Act::Read, send("HTTP/1.1 200 OK\r\n\r\nhel"), Act::Reset];
        let kind = failure(acts, ANY, LIMITS).await;
        assert_eq!(kind, FailureKind::Closed);
    }

    // threat: G2
    #[tokio::test]
    async fn garbage_is_malformed() {
        let many = "A: 1\r\n".repeat(LIMITS.answer_fields + 1);
        let long = "x".repeat(LIMITS.answer_head);
        for (answer, word) in [
            ("hello", "status_line"),
            ("SSH-2.0-x\r\n", "status_line"),
            ("\r\n", "status_line"),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", "status_line"),
            ("HTTP/2 200 OK\r\n\r\n", "status_line"),
            ("HTTP/1.2 200 OK\r\n\r\n", "status_line"),
            ("HTTP/1.1 20 OK\r\n\r\n", "status_line"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "status_line"),
            ("HTTP/1.1 000 OK\r\n\r\n", "status_line"),
            ("HTTP/1.1 200 O\0K\r\n\r\n", "status_line"),
            ("HTTP/1.1 200 OK\n", "line_end"),
            ("HTTP/1.1 200 OK\r\nA: 1\n", "line_end"),
            ("HTTP/1.1 200 OK\r\nA: 1\rB: 2\r\n\r\n", "line_end"),
            ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "value"),
            ("HTTP/1.1 200 OK\r\nA : 1\r\n\r\n", "name"),
            ("HTTP/1.1 200 OK\r\nA\r\n\r\n", "no_colon"),
            ("HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n", "fold"),
            (&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), "too_many"),
            (&format!("HTTP/1.1 200 OK\r\nA: {long}"), "too_long"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "chunk_size"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy", "chunk_end"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA : 1\r\n\r\n", "name"),
        ] {
            let kind = failure(vec![Act::Read, send(answer)], ANY, LIMITS).await;
            assert_eq!(kind, FailureKind::Malformed(word), "{answer:.99}");
        }
    }

    // threat: G2
    #[tokio::test]
    async fn ambiguous_framing_is_malformed() {
        for (version, fields, word) in [
            ("1.1", "Content-Length: 5\r\nContent-Length: 5", "length"),
            ("1.1", "Content-Length: 5\r\nContent-Length: 4", "length"),
            ("1.1", "Content-Length: 5, 5", "length"),
            ("1.1", "Content-Length: +5", "length"),
            ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked", "coding"),
            ("1.1", "Transfer-Encoding: gzip, chunked", "coding"),
            ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "coding"),
            ("1.0", "Transfer-Encoding: chunked", "coding"),
        ] {
            let answer = format!("HTTP/{version} 200 OK\r\n{fields}\r\n\r\nhello");
            for head_request in [false, true] {
                let manner = Manner { head_request, ..ANY };
                let kind = failure(vec![Act::Read, send(&answer)], manner, LIMITS).await;
                assert_eq!(kind, FailureKind::Malformed(word), "{answer:?}");
            }
        }
    }

    // threat: G3
    #[tokio::test]
    async fn a_switch_of_protocols_is_refused() {
        let answer = "HTTP/1.1 101 Switching\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n";
        let kind = failure(vec![Act::Read, send(answer)], ANY, LIMITS).await;
        assert_eq!(kind, FailureKind::Unasked101);
    }

    // threat: G3
    #[tokio::test]
    async fn interim_answers_are_bounded() {
        let answer = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
        let kind = failure(vec![Act::Read, send(&answer)], ANY, LIMITS).await;
        assert_eq!(kind, FailureKind::Malformed("interim"));
    }

    // Time.

    // threat: G1
    #[tokio::test]
    async fn a_silent_pam_times_out() {
        let limits = UpstreamLimits { read: BRIEF, ..LIMITS };
        for start in [
            "",
            "HTTP/1.1 20",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ] {
            let kind = failure(vec![Act::Read, send(start)], ANY, limits).await;
            assert_eq!(kind, FailureKind::Timeout, "{start:?}");
        }
    }

    // threat: G1
    #[tokio::test]
    async fn a_dripping_pam_times_out() {
        let limits = UpstreamLimits { total: Duration::from_millis(200), held: 1 << 20, ..LIMITS };
        for start in ["HTTP/1.1 200 OK\r\nA: ", "HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n"] {
            let kind = failure(vec![Act::Read, send(start), Act::Trickle], ANY, limits).await;
            assert_eq!(kind, FailureKind::Timeout, "{start:?}");
        }
    }

    // threat: G1
    #[tokio::test]
    async fn a_pam_that_does_not_read_times_out() {
        let limits = UpstreamLimits { write: BRIEF, ..LIMITS };
        let (go, gone) = oneshot::channel();
        let pam = Pam::start(vec![vec![Act::Wait(gone)]]).await;
        let upstream = pam.upstream(limits);
        let failed = upstream.exchange(&GET, huge(), ANY, Instant::now()).await;
        let kind = FailureKind::Timeout;
        assert_eq!(failed.err(), Some(Failure { kind, sent: true }));
        go.send(()).unwrap();
        let seen = pam.seen(upstream).await;
        let heads: Vec<usize> = seen.iter().map(|seen| seen.matches(REQUEST).count()).collect();
        assert_eq!(heads, [1]);
    }

    #[tokio::test]
    async fn a_connection_that_does_not_come_about_times_out() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // No one accepts here, so a few connections fill the queue and the next one is left to wait.
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(BRIEF, TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        let limits = UpstreamLimits { connect: BRIEF, ..LIMITS };
        let upstream = Upstream::new(address.to_string(), limits);
        let kind = FailureKind::ConnectTimeout;
        assert_eq!(ask(&upstream, ANY).await, Err(Failure { kind, sent: false }));
    }

    // Connections.

    // threat: G8
    #[tokio::test]
    async fn nothing_is_sent_without_a_connection() {
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().to_string()
        };
        for address in [closed, "no-port".to_owned()] {
            let upstream = Upstream::new(address, LIMITS);
            let kind = FailureKind::Connect;
            assert_eq!(ask(&upstream, ANY).await, Err(Failure { kind, sent: false }));
        }
    }

    // threat: G4
    #[tokio::test]
    async fn a_request_cut_off_while_it_is_written_may_have_arrived() {
        let pam = Pam::start(vec![vec![Act::ReadSome, Act::Reset]]).await;
        let upstream = pam.upstream(LIMITS);
        let failed = upstream.exchange(&GET, huge(), ANY, Instant::now()).await;
        let kind = FailureKind::Write;
        assert_eq!(failed.err(), Some(Failure { kind, sent: true }));
        assert_eq!(pam.seen(upstream).await.len(), 1);
    }

    #[tokio::test]
    async fn a_kept_connection_serves_again() {
        for answer in [
            HELLO,
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
            "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n",
        ] {
            let acts = vec![Act::Read, send(answer), Act::Read, send(HELLO)];
            let pam = Pam::start(vec![acts]).await;
            let upstream = pam.upstream(LIMITS);
            assert!(!ask(&upstream, ANY).await.unwrap().reused, "{answer:?}");
            assert_eq!(ask(&upstream, ANY).await, Ok(Taken::reused("hello")), "{answer:?}");
            assert_eq!(pam.seen(upstream).await, [REQUEST.repeat(2)], "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_not_kept_serves_once() {
        for answer in [
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\none",
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\none",
            "HTTP/1.1 204 None\r\nContent-Length: 3\r\n\r\n",
            // threat: G3
            &format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none{EVIL}"),
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none\n",
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n{EVIL}"),
            &format!("HTTP/1.1 204 None\r\n\r\n{EVIL}"),
        ] {
            let scripts = vec![vec![Act::Read, send(answer)], vec![Act::Read, send(HELLO)]];
            let pam = Pam::start(scripts).await;
            let upstream = pam.upstream(LIMITS);
            assert!(ask(&upstream, ANY).await.unwrap().status < 300, "{answer:?}");
            assert_eq!(ask(&upstream, ANY).await, Ok(Taken::whole("hello")), "{answer:?}");
            assert_eq!(pam.seen(upstream).await, [REQUEST, REQUEST], "{answer:?}");
        }
    }

    // threat: G3
    #[tokio::test]
    async fn bytes_that_come_between_two_exchanges_answer_none() {
        for surplus in [EVIL, "x", "\r\n"] {
            let (go, gone) = oneshot::channel();
            let pam = Pam::start(vec![
                vec![Act::Read, send(HELLO), Act::Wait(gone), send(surplus)],
                vec![Act::Read, send(HELLO)],
            ])
            .await;
            let upstream = pam.upstream(LIMITS);
            ask(&upstream, ANY).await.unwrap();
            go.send(()).unwrap();
            upstream.pools[0].stirred().await;
            assert_eq!(ask(&upstream, ANY).await, Ok(Taken::whole("hello")), "{surplus:?}");
            assert_eq!(pam.seen(upstream).await, [REQUEST, REQUEST], "{surplus:?}");
        }
    }

    // threat: G4
    #[tokio::test]
    async fn a_connection_closed_while_it_waited_is_replaced() {
        for end in [Act::Close, Act::Reset] {
            let (go, gone) = oneshot::channel();
            let pam =
                Pam::start(vec![vec![Act::Read, send(HELLO), Act::Wait(gone), end], vec![Act::Read, send(HELLO)]])
                    .await;
            let upstream = pam.upstream(LIMITS);
            ask(&upstream, ANY).await.unwrap();
            go.send(()).unwrap();
            upstream.pools[0].stirred().await;
            assert_eq!(ask(&upstream, ANY).await, Ok(Taken::whole("hello")));
            assert_eq!(pam.seen(upstream).await, [REQUEST, REQUEST]);
        }
    }

    // threat: G4
    #[tokio::test]
    async fn a_kept_connection_that_dies_under_a_request_is_not_replaced() {
        for end in [Act::Close, Act::Reset] {
            let pam =
                Pam::start(vec![vec![Act::Read, send(HELLO), Act::Read, end], vec![Act::Read, send(HELLO)]]).await;
            let upstream = pam.upstream(LIMITS);
            ask(&upstream, ANY).await.unwrap();
            let kind = FailureKind::Closed;
            assert_eq!(ask(&upstream, ANY).await, Err(Failure { kind, sent: true }));
            assert_eq!(pam.seen(upstream).await, [REQUEST.repeat(2)]);
        }
    }

    #[tokio::test]
    async fn a_connection_that_waited_too_long_is_replaced() {
        let limits = UpstreamLimits { idle: Duration::ZERO, ..LIMITS };
        let script = || vec![Act::Read, send(HELLO)];
        let pam = Pam::start(vec![script(), script()]).await;
        let upstream = pam.upstream(limits);
        ask(&upstream, ANY).await.unwrap();
        assert_eq!(ask(&upstream, ANY).await, Ok(Taken::whole("hello")));
        assert_eq!(pam.seen(upstream).await, [REQUEST, REQUEST]);
    }

    #[tokio::test]
    async fn exchanges_at_the_same_time_share_no_connection() {
        let script = || vec![Act::Read, send(HELLO)];
        let pam = Pam::start(vec![script(), script()]).await;
        let upstream = pam.upstream(LIMITS);
        let (one, other) = tokio::join!(ask(&upstream, ANY), ask(&upstream, ANY));
        assert_eq!(one, Ok(Taken::whole("hello")));
        assert_eq!(other, Ok(Taken::whole("hello")));
        assert_eq!(pam.seen(upstream).await, [REQUEST, REQUEST]);
    }

    #[tokio::test]
    async fn an_abandoned_exchange_closes_its_connection() {
        let (tell, told) = oneshot::channel();
        let pam = Pam::start(vec![vec![Act::Read, Act::Tell(tell)], vec![Act::Read, send(HELLO)]]).await;
        let upstream = pam.upstream(LIMITS);
        tokio::select! {
            _ = ask(&upstream, ANY) => panic!("no one answered"),
            told = told => told.unwrap(),
        }
        assert_eq!(ask(&upstream, ANY).await, Ok(Taken::whole("hello")));
        assert_eq!(pam.seen(upstream).await, [REQUEST, REQUEST]);
    }

    #[test]
    fn every_failure_has_a_word_of_its_own() {
        let kinds = [
            FailureKind::Connect,
            FailureKind::ConnectTimeout,
            FailureKind::Certificate,
            FailureKind::Tls,
            FailureKind::Write,
            FailureKind::Timeout,
            FailureKind::Closed,
            FailureKind::Malformed("length"),
            FailureKind::TooLarge,
            FailureKind::Unasked101,
            FailureKind::NoHttp2,
            FailureKind::NotForHttp2,
            FailureKind::Full,
            FailureKind::Unprocessed,
        ];
        let mut words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), kinds.len());
    }

    // The PAM of these tests.

    /// What it does on one connection, in this order. Afterwards it reads until it is left.
    enum Act {
        /// Reads a request, with the body that its Content-Length states.
        Read,
        /// Reads once.
        ReadSome,
        /// Writes all at once.
        Send(Vec<u8>),
        /// Writes byte by byte.
        Drip(Vec<u8>),
        /// Writes a byte every few milliseconds until it is left.
        Trickle,
        /// Waits for the test.
        Wait(oneshot::Receiver<()>),
        /// Lets the test go on.
        Tell(oneshot::Sender<()>),
        /// Closes, having read everything.
        Close,
        /// Resets.
        Reset,
    }

    /// Listens, plays its scripts, one per connection, and writes down all that it is sent.
    struct Pam {
        address: SocketAddr,
        /// The address from which the test connects to say that no more connections follow.
        farewell: Arc<Mutex<Option<SocketAddr>>>,
        listening: JoinHandle<Vec<JoinHandle<Vec<u8>>>>,
    }

    impl Pam {
        async fn start(scripts: Vec<Vec<Act>>) -> Pam {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let farewell = Arc::new(Mutex::new(None));
            let listening = tokio::spawn(listen(listener, scripts, farewell.clone()));
            Pam { address, farewell, listening }
        }

        fn upstream(&self, limits: UpstreamLimits) -> Upstream {
            Upstream::new(self.address.to_string(), limits)
        }

        /// All that arrived, by connection, after the last byte from `upstream`.
        ///
        /// Connections are accepted in the order they came. So all of them have been seen when this
        /// one, made behind them, is.
        async fn seen(self, upstream: Upstream) -> Vec<String> {
            drop(upstream);
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let from = socket.local_addr().unwrap();
            *self.farewell.lock().unwrap() = Some(from);
            let _last = socket.connect(self.address).await.unwrap();
            let mut seen = Vec::new();
            for connection in self.listening.await.unwrap() {
                let bytes = timeout(AMPLE, connection).await.expect("left by upstream");
                seen.push(String::from_utf8(bytes.unwrap()).unwrap());
            }
            seen
        }
    }

    async fn listen(
        listener: TcpListener,
        scripts: Vec<Vec<Act>>,
        farewell: Arc<Mutex<Option<SocketAddr>>>,
    ) -> Vec<JoinHandle<Vec<u8>>> {
        let mut scripts = scripts.into_iter();
        let mut connections = Vec::new();
        loop {
            let (stream, from) = listener.accept().await.unwrap();
            if *farewell.lock().unwrap_or_else(PoisonError::into_inner) == Some(from) {
                return connections;
            }
            let script = scripts.next().unwrap_or_default();
            connections.push(tokio::spawn(serve(stream, script)));
        }
    }

    /// Plays one script; yields all that was read. The other side may be gone at any time, which is
    /// its right, so failures to write are not looked at.
    async fn serve(mut stream: TcpStream, script: Vec<Act>) -> Vec<u8> {
        stream.set_nodelay(true).unwrap();
        let mut seen = Vec::new();
        for act in script {
            match act {
                Act::Read => read_request(&mut stream, &mut seen).await,
                Act::ReadSome => _ = stream.read_buf(&mut seen).await,
                Act::Send(bytes) => _ = stream.write_all(&bytes).await,
                Act::Drip(bytes) => {
                    for byte in bytes {
                        _ = stream.write_all(&[byte]).await;
                        yield_now().await;
                    }
                }
                Act::Trickle => {
                    while stream.write_all(b"x").await.is_ok() {
                        sleep(Duration::from_millis(5)).await;
                    }
                }
                Act::Wait(event) => _ = event.await,
                Act::Tell(event) => _ = event.send(()),
                Act::Close => return seen,
                Act::Reset => {
                    stream.set_zero_linger().unwrap();
                    return seen;
                }
            }
        }
        while stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0) {}
        seen
    }

    async fn read_request(stream: &mut TcpStream, seen: &mut Vec<u8>) {
        let start = seen.len();
        loop {
            let text = String::from_utf8_lossy(&seen[start..]);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .split_once("Content-Length: ")
                    .map_or(0, |(_, length)| length.lines().next().unwrap().parse().unwrap());
                if body.len() >= length {
                    return;
                }
            }
            if stream.read_buf(seen).await.is_ok_and(|count| count > 0) {
                continue;
            }
            return;
        }
    }

    fn send(text: &str) -> Act {
        Act::Send(text.as_bytes().to_vec())
    }

    fn drip(text: &str) -> Act {
        Act::Drip(text.as_bytes().to_vec())
    }

    // The tests' side.

    /// An answer that was read to its end.
    #[derive(Debug, PartialEq, Eq)]
    struct Taken {
        status: u16,
        body: String,
        streamed: bool,
        reused: bool,
    }

    impl Taken {
        /// A plain 200, over a new connection.
        fn whole(body: &str) -> Taken {
            Taken { status: 200, body: body.to_owned(), streamed: false, reused: false }
        }

        fn reused(body: &str) -> Taken {
            Taken { reused: true, ..Taken::whole(body) }
        }
    }

    async fn ask(upstream: &Upstream, manner: Manner) -> Result<Taken, Failure> {
        let answer = upstream.exchange(&GET, Bytes::new(), manner, Instant::now()).await?;
        let (body, streamed) = match answer.body {
            AnswerBody::Whole(body) => (body.to_vec(), false),
            AnswerBody::Stream(mut stream) => (drain(&mut stream).await?, true),
        };
        Ok(Taken { status: answer.status, body: String::from_utf8(body).unwrap(), streamed, reused: answer.reused })
    }

    /// One exchange with a PAM that plays `acts`, and what it saw on each connection.
    async fn play(acts: Vec<Act>, manner: Manner) -> (Result<Taken, Failure>, Vec<String>) {
        let pam = Pam::start(vec![acts]).await;
        let upstream = pam.upstream(LIMITS);
        let taken = ask(&upstream, manner).await;
        (taken, pam.seen(upstream).await)
    }

    /// How an exchange fails behind the request, of which the PAM saw exactly one.
    async fn failure(acts: Vec<Act>, manner: Manner, limits: UpstreamLimits) -> FailureKind {
        let pam = Pam::start(vec![acts]).await;
        let upstream = pam.upstream(limits);
        let failed = ask(&upstream, manner).await.expect_err("no answer");
        assert!(failed.sent);
        assert_eq!(pam.seen(upstream).await, [REQUEST]);
        failed.kind
    }

    async fn stream(upstream: &Upstream) -> AnswerStream {
        let answer = upstream.exchange(&GET, Bytes::new(), ANY, Instant::now()).await.unwrap();
        match answer.body {
            AnswerBody::Stream(stream) => stream,
            AnswerBody::Whole(body) => panic!("{} bytes were held", body.len()),
        }
    }

    async fn drain(stream: &mut AnswerStream) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = stream.next().await? {
            assert!(!piece.is_empty());
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// An answer with a body of `length` bytes: with its length, in one chunk, in many, until close.
    fn of_every_framing(length: usize) -> [String; 4] {
        let body = "x".repeat(length);
        let chunk = |body: &str| format!("{:x}\r\n{body}\r\n", body.len());
        let (left, right) = body.split_at(length / 2);
        let (one, many) = (chunk(&body), chunk(left) + &chunk(right));
        [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{one}0\r\n\r\n"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{many}0\r\n\r\n"),
            format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
        ]
    }

    /// A method, and the fields behind Host.
    struct Plain(&'static str, &'static [(&'static str, &'static str)]);

    impl Outbound for Plain {
        fn method(&self) -> &str {
            self.0
        }

        fn target(&self) -> &str {
            "/"
        }

        fn fields(&self, put: &mut impl FnMut(&[u8], &[u8])) {
            put(b"Host", b"pam");
            self.1.iter().for_each(|(name, value)| put(name.as_bytes(), value.as_bytes()));
        }
    }

    /// As [`REQUEST`] on the wire.
    const GET: Plain = Plain("GET", &[]);

    const POST: Plain = Plain("POST", &[("Content-Length", "4")]);

    /// More than the kernel takes from one side without the other.
    fn huge() -> Bytes {
        Bytes::from(vec![b'x'; 32 << 20])
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: pam\r\n\r\n";
    const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

    const ANY: Manner = Manner { head_request: false, must_hold: false };

    /// Enough on a busy machine.
    const AMPLE: Duration = Duration::from_secs(20);

    /// For what is meant to run out.
    const BRIEF: Duration = Duration::from_millis(100);

    const LIMITS: UpstreamLimits = UpstreamLimits {
        connect: AMPLE,
        write: AMPLE,
        read: AMPLE,
        total: AMPLE,
        idle: AMPLE,
        pooled: 4,
        answer_head: 4096,
        answer_fields: 16,
        held: 64,
    };
}
