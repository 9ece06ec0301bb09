//! A world for tests: a real Portcullis on a free port, a recording PAM behind it, callers in front.
//!
//! Nothing sleeps: whoever waits for something awaits it, for at most [`PATIENCE`].

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use portcullis::admin::Admin;
use portcullis::config::{Complaint, Flags, Settings};
use portcullis::log::{Log, Writer};
use portcullis::proxy::current::{Current, Held};
use portcullis::proxy::listener::{Server, bind};
use portcullis::proxy::story::Portcullis;
use portcullis::secret::DigestKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// No event in a test takes this long unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at what cannot be awaited: whoever looks without a pause takes the processor from what it waits for.
pub async fn breath() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

/// A Portcullis, its PAM and its log.
pub struct World {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub pam: Pam,
    pub portcullis: Held<Portcullis>,
    /// Whether the process would be ready.
    pub ready: watch::Sender<bool>,
    server: Option<Server>,
    _admin_server: Server,
    log: Shared,
    writer: Mutex<Option<Writer>>,
}

impl World {
    pub async fn valkyrie() -> World {
        World::of("config/valkyrie.toml", &[]).await
    }

    pub async fn wallet() -> World {
        World::of("config/wallet.toml", &[]).await
    }

    pub async fn betstack() -> World {
        World::of("config/betstack.toml", &[]).await
    }

    /// A config of the repository, with `--set KEY=VALUE`s.
    pub async fn of(config: &str, set: &[&str]) -> World {
        let pam = Pam::start().await;
        World::with_pam(config, set, pam).await
    }

    /// The same in front of a PAM of the test's own; its address is what matters.
    pub async fn with_pam(config: &str, set: &[&str], pam: Pam) -> World {
        let settings = load(config, &pam.address.to_string(), set).unwrap_or_else(|complaints| {
            panic!("{config}: {}", complaints.iter().map(|c| format!("\n  {c}")).collect::<String>())
        });
        World::of_settings(settings, pam).await
    }

    /// The same with settings that the test has loaded itself.
    pub async fn of_settings(settings: Settings, pam: Pam) -> World {
        let log = Shared::default();
        let (lines, writer) = Log::start(log.clone()).unwrap();
        let traffic = bind(&settings.listen).unwrap();
        let current = Current::new(Portcullis::new(settings, lines).await.unwrap());
        let (ready, watched) = watch::channel(true);
        let server = Server::start(traffic, Arc::clone(&current)).unwrap();
        let admin = Admin::new(Arc::clone(&current), watched);
        let admin_server = Server::start(bind("127.0.0.1:0").unwrap(), Current::new(admin)).unwrap();
        World {
            address: server.address(),
            admin: admin_server.address(),
            pam,
            portcullis: current.now(),
            ready,
            server: Some(server),
            _admin_server: admin_server,
            log,
            writer: Mutex::new(Some(writer)),
        }
    }

    /// Tells callers that it will stop.
    pub fn announce_stop(&self) {
        self.server.as_ref().unwrap().announce_stop();
    }

    /// Accepts nothing more, and finishes what is under way.
    pub fn stop(&mut self) -> tokio::task::JoinHandle<bool> {
        tokio::spawn(self.server.take().unwrap().drain(PATIENCE))
    }

    /// Sends a request over HTTP/1.1 on a connection of its own.
    pub async fn send(&self, request: &Request) -> Reply {
        let mut connection = self.connect().await;
        connection.send(request).await
    }

    /// Sends a request over HTTP/2 with prior knowledge on a connection of its own.
    pub async fn send_h2(&self, request: &Request) -> Reply {
        self.send_h2_over(TcpStream::connect(self.address).await.unwrap(), request).await
    }

    /// A connection to the traffic address under TLS, for the name `localhost`.
    pub async fn connect_tls(&self, client: &Arc<ClientConfig>) -> std::io::Result<Connection<TlsStream<TcpStream>>> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connecting = TlsConnector::from(Arc::clone(client)).connect(name, tcp);
        timeout(PATIENCE, connecting).await.expect("no handshake").map(Connection::over)
    }

    /// Sends a request over HTTP/2 on a connection that is open.
    pub async fn send_h2_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: &Request,
    ) -> Reply {
        let mut connection = H2Connection::over(stream, self.address).await;
        connection.send(request).await
    }

    /// A raw connection to the traffic address.
    pub async fn connect(&self) -> Connection {
        Connection::to(self.address).await
    }

    /// The body of a page of the admin address.
    pub async fn admin(&self, path: &str) -> Reply {
        Connection::to(self.admin).await.send(&Request::new("GET", path)).await
    }

    /// The value of a metric as `/metrics` shows it, for example `portcullis_revocations_live` or
    /// `portcullis_requests_total{caller="a",route="b",status="2xx"}`; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has a value.
    pub async fn until(&self, metric: &str, value: f64) {
        let reached = async {
            while self.metric(metric).await != value {
                breath().await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{metric} did not become {value}"));
    }

    /// What the log has written so far.
    pub fn log_text(&self) -> String {
        self.log.text()
    }

    /// Stops accepting, waits for what is in flight, ends the log, and gives all its lines.
    pub async fn finish(mut self) -> Vec<serde_json::Value> {
        self.server.take().unwrap().drain(PATIENCE).await;
        self.portcullis.tell_rest();
        let writer = self.writer.lock().unwrap().take().unwrap();
        tokio::task::spawn_blocking(move || assert!(writer.finish(PATIENCE))).await.unwrap();
        let text = self.log.text();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A connection that speaks HTTP/2, and is used for one request after the other.
pub struct H2Connection {
    client: h2::client::SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
    address: SocketAddr,
}

impl H2Connection {
    /// With prior knowledge.
    pub async fn to(address: SocketAddr) -> H2Connection {
        H2Connection::over(TcpStream::connect(address).await.unwrap(), address).await
    }

    /// Over a stream that is open.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) -> H2Connection {
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        H2Connection { client, driver: tokio::spawn(connection), address }
    }

    /// Whether another request can be sent: not when the other side is leaving.
    pub async fn takes_more(&mut self) -> bool {
        std::future::poll_fn(|cx| self.client.poll_ready(cx)).await.is_ok() && !self.driver.is_finished()
    }

    /// Sends a request and gives its reply.
    pub async fn send(&mut self, request: &Request) -> Reply {
        let uri = format!("http://{}{}", self.address, request.target);
        let mut head = http::Request::builder().method(request.method.as_str()).uri(uri);
        for (name, value) in &request.fields {
            if !name.eq_ignore_ascii_case("host") {
                head = head.header(name, value);
            }
        }
        let (answer, mut body) = self.client.send_request(head.body(()).unwrap(), request.body.is_empty()).unwrap();
        if !request.body.is_empty() {
            // The whole body is queued at once; h2 sends it as the window allows.
            body.send_data(Bytes::from(request.body.clone()), true).unwrap();
        }
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        let status = answer.status().as_u16();
        let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let fields = answer.headers().iter().map(field).collect();
        let mut received = answer.into_body();
        let mut whole = Vec::new();
        while let Some(piece) = timeout(PATIENCE, received.data()).await.unwrap() {
            let piece = piece.unwrap();
            received.flow_control().release_capacity(piece.len()).unwrap();
            whole.extend_from_slice(&piece);
        }
        Reply { status, fields, body: whole }
    }
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Settings from a config of the repository (or an absolute path), as the flags of the command line would give them.
pub fn load(config: &str, upstream: &str, set: &[&str]) -> Result<Settings, Vec<Complaint>> {
    load_with(config, upstream, set, &[])
}

/// The same with more variables than every test has.
pub fn load_with(
    config: &str,
    upstream: &str,
    set: &[&str],
    variables: &[(&str, &str)],
) -> Result<Settings, Vec<Complaint>> {
    let variable = |name: &str| {
        let more = variables.iter().find(|(other, _)| *other == name);
        more.map(|(_, value)| (*value).to_owned()).or_else(|| secret_variable(name))
    };
    let flags = Flags {
        config: root().join(config),
        listen: Some("127.0.0.1:0".to_owned()),
        upstream: Some(upstream.to_owned()),
        admin: Some("127.0.0.1:0".to_owned()),
        set: set.iter().map(|&set| set.to_owned()).collect(),
    };
    Settings::load(&flags, &variable, DigestKey::new([7; 32]))
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The environment of every test.
pub fn secret_variable(name: &str) -> Option<String> {
    let value = match name {
        "WALLET_PASSWORD" => wallet::PASSWORD,
        "WALLET_SIGNING_KEY" => wallet::KEY,
        "PAM_API_TOKEN" => valkyrie::KEY,
        "PAM_BASIC_PASSWORD" => valkyrie::PASSWORD,
        "BETSTACK_SECRET" => betstack::SECRET,
        "ADMIN_TOKEN" => operator::TOKEN,
        _ => return None,
    };
    Some(value.to_owned())
}

/// A PAM that records what it gets, on real sockets, and answers what the test says.
#[derive(Clone)]
pub struct Pam {
    pub address: SocketAddr,
    state: Arc<Mutex<PamState>>,
    arrivals: watch::Sender<usize>,
}

/// Decides an answer: raw bytes to send, or nothing and the connection is closed. May await.
type Answering = Arc<dyn Fn(Seen) -> futures_answer::Answer + Send + Sync>;

/// A boxed future of raw bytes.
pub mod futures_answer {
    use std::future::Future;
    use std::pin::Pin;
    pub type Answer = Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>>;
    pub fn ready(bytes: Vec<u8>) -> Answer {
        Box::pin(async move { Some(bytes) })
    }
    pub fn of(future: impl Future<Output = Option<Vec<u8>>> + Send + 'static) -> Answer {
        Box::pin(future)
    }
}

struct PamState {
    seen: Vec<Seen>,
    connections: usize,
    bytes: usize,
    answering: Answering,
}

/// A request as the PAM got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The bytes of the head, with the empty line.
    pub head: String,
    pub method: String,
    pub target: String,
    /// In order, names as sent.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which of the PAM's connections it came on, from 1.
    pub connection: usize,
}

impl Seen {
    /// The values of a header field.
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }
}

impl Pam {
    /// Answers everything with 200 and [`GOOD`].
    pub async fn start() -> Pam {
        let (listener, pam) = Pam::listening().await;
        let accepting = pam.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let pam = accepting.clone();
                tokio::spawn(async move { pam.serve(stream).await });
            }
        });
        pam
    }

    /// The same over TLS. A connection counts once its handshake is over.
    pub async fn over_tls(server: ServerConfig) -> Pam {
        let (listener, pam) = Pam::listening().await;
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let accepting = pam.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (pam, acceptor) = (accepting.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        pam.serve(stream).await;
                    }
                });
            }
        });
        pam
    }

    /// One that the test plays itself.
    pub fn at(address: SocketAddr) -> Pam {
        let answering: Answering = Arc::new(|_| futures_answer::ready(answer(200, GOOD)));
        let state = Arc::new(Mutex::new(PamState { seen: Vec::new(), connections: 0, bytes: 0, answering }));
        Pam { address, state, arrivals: watch::Sender::new(0) }
    }

    async fn listening() -> (TcpListener, Pam) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, Pam::at(address))
    }

    /// Answers every request with the raw bytes that `answering` makes of it. An answer with `Connection: close` is the
    /// last one of its connection.
    pub fn answer_with(&self, answering: impl Fn(Seen) -> Vec<u8> + Send + Sync + 'static) {
        self.answer_async(move |seen| futures_answer::ready(answering(seen)));
    }

    /// The same for answers that take a while or never come (`None` closes the connection).
    pub fn answer_async(&self, answering: impl Fn(Seen) -> futures_answer::Answer + Send + Sync + 'static) {
        self.state.lock().unwrap().answering = Arc::new(answering);
    }

    /// Answers every request with these bytes, but not before `true` is sent.
    pub fn hold(&self, bytes: Vec<u8>) -> watch::Sender<bool> {
        let (release, released) = watch::channel(false);
        self.answer_async(move |_| {
            let (mut released, bytes) = (released.clone(), bytes.clone());
            futures_answer::of(async move { released.wait_for(|released| *released).await.ok().map(|_| bytes) })
        });
        release
    }

    /// Gives one answer after the other, and the last one again and again. `None` closes the connection.
    pub fn answer_in_turn(&self, answers: Vec<Option<Vec<u8>>>) {
        let turn = std::sync::atomic::AtomicUsize::new(0);
        self.answer_async(move |_| {
            let at = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(answers.len() - 1);
            let answer = answers[at].clone();
            futures_answer::of(async move { answer })
        });
    }

    /// Everything it got so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The one request it got.
    pub fn only_request(&self) -> Seen {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "the PAM got {} requests", requests.len());
        requests.into_iter().next().unwrap()
    }

    /// Connections it accepted so far.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Connections it accepted and bytes it got so far: as long as neither changes, nothing has touched it.
    pub fn touched(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.connections, state.bytes)
    }

    /// Waits until it has got `count` requests.
    pub async fn arrived(&self, count: usize) {
        let mut arrivals = self.arrivals.subscribe();
        timeout(PATIENCE, arrivals.wait_for(|arrived| *arrived >= count)).await.unwrap().unwrap();
    }

    /// Asserts that nothing reached it: no connection, so no byte.
    pub fn assert_untouched(&self) {
        assert_eq!(self.connections(), 0, "the PAM was connected to");
        assert_eq!(self.requests().len(), 0);
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let connection = {
            let mut state = self.state.lock().unwrap();
            state.connections += 1;
            state.connections
        };
        let mut read = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = find(&read, b"\r\n\r\n") {
                    break end + 4;
                }
                if self.take(&mut stream, &mut read).await == 0 {
                    return;
                }
            };
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            let (first, fields) = parse_head(&head);
            let length = values(&fields, "content-length").first().map_or(0, |length| length.parse::<usize>().unwrap());
            while read.len() < end + length {
                if self.take(&mut stream, &mut read).await == 0 {
                    return;
                }
            }
            let body = read[end..end + length].to_vec();
            read.drain(..end + length);
            let mut words = first.split(' ');
            let seen = Seen {
                method: words.next().unwrap().to_owned(),
                target: words.next().unwrap().to_owned(),
                head,
                fields,
                body,
                connection,
            };
            let answering = {
                let mut state = self.state.lock().unwrap();
                state.seen.push(seen.clone());
                Arc::clone(&state.answering)
            };
            self.arrivals.send_modify(|arrived| *arrived += 1);
            match answering(seen).await {
                Some(bytes) => {
                    let last = find(&bytes, b"\r\nConnection: close\r\n").is_some();
                    if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() || last {
                        return;
                    }
                }
                None => return,
            }
        }
    }
}

impl Pam {
    async fn take(&self, stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> usize {
        let count = stream.read_buf(read).await.unwrap_or(0);
        self.state.lock().unwrap().bytes += count;
        count
    }
}

/// What the recording PAM says when it is not told otherwise: good for none of the families' endings.
pub const GOOD: &str = r#"{"status":"OK"}"#;

/// A raw answer with a JSON body and its Content-Length.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A request to send.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A request with a Host and nothing else.
    pub fn new(method: &str, target: &str) -> Request {
        let fields = vec![("Host".to_owned(), "pam.example".to_owned())];
        Request { method: method.to_owned(), target: target.to_owned(), fields, body: Vec::new() }
    }

    /// The values of a header field.
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// Adds a header field.
    pub fn with(mut self, name: &str, value: &str) -> Request {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes every field of a name away.
    pub fn without(mut self, name: &str) -> Request {
        self.fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Replaces a field.
    pub fn replacing(self, name: &str, value: &str) -> Request {
        self.without(name).with(name, value)
    }

    /// Sets the body, and nothing but the body: a signature stays what it was.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// The bytes on the wire, with the body's Content-Length unless the request has one already.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.fields {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let framed = self.fields.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !framed && (!self.body.is_empty() || self.method == "POST" || self.method == "PUT") {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// A reply as a caller got it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|fault| panic!("{fault}: {:?}", self.text()))
    }
}

/// A caller's connection over HTTP/1.1.
pub struct Connection<S = TcpStream> {
    pub stream: S,
    read: Vec<u8>,
    /// Interim replies (1xx) that came in front of others.
    pub interim: usize,
}

impl Connection {
    pub async fn to(address: SocketAddr) -> Connection {
        Connection::over(TcpStream::connect(address).await.unwrap())
    }

    /// From a local address of the test's choice.
    pub async fn between(local: SocketAddr, address: SocketAddr) -> Connection {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(local).unwrap();
        Connection::over(socket.connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn over(stream: S) -> Connection<S> {
        Connection { stream, read: Vec::new(), interim: 0 }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn send(&mut self, request: &Request) -> Reply {
        self.write(&request.bytes()).await;
        if request.method == "HEAD" { self.reply_to_head().await } else { self.reply().await }
    }

    /// The same with a peer that may be killed: `None` when no whole reply came.
    pub async fn try_send(&mut self, request: &Request) -> Option<Reply> {
        self.stream.write_all(&request.bytes()).await.ok()?;
        timeout(PATIENCE, self.read_reply(false)).await.expect("neither a reply nor an end came")
    }

    /// Reads one reply, framed by Content-Length or chunks or the end of the connection.
    pub async fn reply(&mut self) -> Reply {
        timeout(PATIENCE, self.read_reply(false))
            .await
            .expect("no reply came")
            .expect("the connection ended without a reply")
    }

    pub async fn reply_to_head(&mut self) -> Reply {
        timeout(PATIENCE, self.read_reply(true))
            .await
            .expect("no reply came")
            .expect("the connection ended without a reply")
    }

    /// What is left of a reply that ends with `tail`, when its first bytes have been taken off the stream already.
    pub async fn rest_of_reply(&mut self, tail: &str) -> Vec<u8> {
        let whole = async { while !self.read.ends_with(tail.as_bytes()) && self.more().await {} };
        timeout(PATIENCE, whole).await.expect("no whole reply came");
        std::mem::take(&mut self.read)
    }

    /// Reads to the end of the connection; what came before it.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.read);
        // A reset after the reply ends the connection as well as a close does.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the connection did not end");
        rest
    }

    async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.read).await.unwrap_or(0) > 0
    }

    async fn read_reply(&mut self, bodiless: bool) -> Option<Reply> {
        loop {
            let end = loop {
                if let Some(end) = find(&self.read, b"\r\n\r\n") {
                    break end + 4;
                }
                if !self.more().await {
                    return None;
                }
            };
            let head: Vec<u8> = self.read.drain(..end).collect();
            let (first, fields) = parse_head(&String::from_utf8(head).unwrap());
            let status: u16 = first.split(' ').nth(1).unwrap().parse().unwrap();
            if status < 200 {
                self.interim += 1;
                continue;
            }
            let mut body = Vec::new();
            if bodiless || status == 204 || status == 304 {
            } else if let Some(length) = values(&fields, "content-length").first() {
                let length: usize = length.parse().unwrap();
                while self.read.len() < length {
                    assert!(self.more().await, "the reply's body was cut: {} of {length}", self.read.len());
                }
                body = self.read.drain(..length).collect();
            } else if values(&fields, "transfer-encoding") == ["chunked"] {
                body = self.chunks().await;
            } else {
                while self.more().await {}
                body = std::mem::take(&mut self.read);
            }
            return Some(Reply { status, fields, body });
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = find(&self.read, b"\r\n") {
                    break end;
                }
                assert!(self.more().await, "the reply was cut in a chunk's size");
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.read[..end]).unwrap(), 16).unwrap();
            while self.read.len() < end + 2 + size + 2 {
                assert!(self.more().await, "the reply was cut in a chunk");
            }
            body.extend_from_slice(&self.read[end + 2..end + 2 + size]);
            self.read.drain(..end + 2 + size + 2);
            if size == 0 {
                return body;
            }
        }
    }
}

/// The wallet family's caller.
pub mod wallet {
    use super::*;

    pub const USER: &str = "fantasy-goal";
    pub const PASSWORD: &str = "canary-wallet-password";
    pub const KEY: &str = "canary-wallet-signing-key";

    /// A good call of an operation.
    pub fn signed(operation: &str, body: &str) -> Request {
        Request::new("POST", &format!("/api/wallet/{operation}"))
            .with("Content-Type", "application/json")
            .with("Authorization", &basic(USER, PASSWORD))
            .with("X-Request-Signature", &hmac_sha256_hex(KEY, body.as_bytes()))
            .body(body)
    }

    /// The code of an error body, which has the family's form and nothing else in it.
    pub fn code(reply: &Reply) -> serde_json::Value {
        let body = reply.json();
        assert_eq!(keys(&body), ["code", "message", "request_id", "status"]);
        assert_eq!(body["status"], false);
        assert!(body["code"].is_u64(), "{body}");
        assert!(!body["message"].as_str().unwrap().is_empty());
        let id = uuid::Uuid::parse_str(body["request_id"].as_str().unwrap()).unwrap();
        assert_eq!(id.as_hyphenated().to_string(), body["request_id"]);
        body["code"].clone()
    }

    /// A usual body with a token.
    pub fn body(token: &str) -> String {
        format!(
            r#"{{"token":"{token}","player_id":1,"site_id":1,"provider_id":1,"game_id":"example","currency":"EUR"}}"#
        )
    }
}

/// The Valkyrie family's callers.
pub mod valkyrie {
    use super::*;

    pub const KEY: &str = "canary-valkyrie-bearer-key";
    pub const PASSWORD: &str = "canary-valkyrie-password";
    pub const TOKEN: &str = "7ca10daf12f2cac9fecf559b11f0f0c8bd21ae43";

    /// The code of an error body, which has the family's form and nothing else in it.
    pub fn code(reply: &Reply) -> serde_json::Value {
        let body = reply.json();
        assert_eq!(keys(&body), ["error", "status"]);
        assert_eq!(body["status"], "ERROR");
        assert_eq!(keys(&body["error"]), ["code", "message"]);
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
        body["error"]["code"].clone()
    }

    /// A good call with the bearer key.
    pub fn call(method: &str, target: &str) -> Request {
        Request::new(method, target).with("Authorization", &format!("Bearer {KEY}")).with("X-Player-Token", TOKEN)
    }
}

/// The Betstack family's caller.
pub mod betstack {
    use super::*;

    pub const SECRET: &str = "canary-betstack-secret";
    pub const OPERATOR: &str = "operator-code";

    /// The code of an error body, which has the family's form and nothing else in it.
    pub fn code(reply: &Reply) -> serde_json::Value {
        let body = reply.json();
        assert_eq!(keys(&body), ["code", "message"]);
        assert!(body["code"].is_u64(), "{body}");
        assert!(!body["message"].as_str().unwrap().is_empty());
        body["code"].clone()
    }

    /// A good call of an action, signed now. `body` is sent as it is and signed without its white space.
    pub fn signed(body: &str) -> Request {
        signed_at(body, now())
    }

    /// A call signed at a time.
    pub fn signed_at(body: &str, timestamp: u64) -> Request {
        signed_by(SECRET, body, timestamp)
    }

    /// The same with a secret of the test's own.
    pub fn signed_by(secret: &str, body: &str, timestamp: u64) -> Request {
        let compact: Vec<u8> = portcullis::json::compact(body.as_bytes()).flatten().copied().collect();
        let message = [timestamp.to_string().as_bytes(), &compact].concat();
        Request::new("POST", "/pam")
            .with("Content-Type", "application/json")
            .with("timestamp", &timestamp.to_string())
            .with("signature", &hmac_sha256_hex(secret, &message))
            .body(body)
    }

    /// The body of an action.
    pub fn body(action: &str, rest: &str) -> String {
        format!(r#"{{"action":"{action}","data":{{"operator":"{OPERATOR}"{rest}}}}}"#)
    }
}

/// Who operates Portcullis.
pub mod operator {
    use super::*;

    pub const TOKEN: &str = "canary-admin-token-of-an-operator";

    /// What a config needs for an operator's calls.
    pub const SET: &str = "admin_token={ env = \"ADMIN_TOKEN\" }";

    /// A good call.
    pub fn call(path: &str, body: &serde_json::Value) -> Request {
        Request::new("POST", path)
            .with("Authorization", &format!("Bearer {TOKEN}"))
            .with("Content-Type", "application/json")
            .body(body.to_string())
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// An Authorization value for Basic.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A signature made without any code of Portcullis.
pub fn hmac_sha256_hex(key: &str, message: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the log wrote.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

fn parse_head(head: &str) -> (String, Vec<(String, String)>) {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let fields = lines.filter(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.trim().to_owned())
    });
    (first, fields.collect())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Temporary files of one test, removed with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and gives its absolute path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Kept so that a map of environment variables can be given where a test needs its own.
pub fn environment(variables: &[(&str, &str)]) -> HashMap<String, String> {
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A request that must be refused: what the caller is told of it, and the word the log has for it.
pub struct Refusal {
    pub what: String,
    pub request: Request,
    pub status: u16,
    pub code: serde_json::Value,
    pub reason: &'static str,
    /// It has something that HTTP/2 has no place for.
    pub http1_only: bool,
}

impl Refusal {
    pub fn new(
        what: &str,
        request: Request,
        status: u16,
        code: impl Into<serde_json::Value>,
        reason: &'static str,
    ) -> Refusal {
        Refusal { what: what.to_owned(), request, status, code: code.into(), reason, http1_only: false }
    }

    pub fn http1_only(self) -> Refusal {
        Refusal { http1_only: true, ..self }
    }
}

/// Sends every request over both protocols and holds the replies, the log and the PAM, which must stay untouched,
/// against what is said of them. `code` asserts the form of a family's error bodies.
pub async fn assert_refusals(world: World, code: fn(&Reply) -> serde_json::Value, refusals: Vec<Refusal>) {
    assert!(!refusals.is_empty());
    let mut reasons = Vec::new();
    for refusal in &refusals {
        let mut replies = vec![world.send(&refusal.request).await];
        if !refusal.http1_only {
            replies.push(world.send_h2(&refusal.request).await);
        }
        for reply in replies {
            assert_eq!(reply.status, refusal.status, "{}: {:?}", refusal.what, reply.text());
            assert_eq!(code(&reply), refusal.code, "{}", refusal.what);
            reasons.push((correlation_of(&reply), refusal));
        }
    }
    world.pam.assert_untouched();
    let lines = world.finish().await;
    for (id, refusal) in reasons {
        assert_eq!(reason(&lines, &id), refusal.reason, "{}", refusal.what);
    }
}

/// Sends calls broken in several ways over both protocols: each is refused as `expected` says, with this status and for
/// this reason, and none reaches the PAM, which has got one request before.
pub async fn assert_refused_by_the_first_check<B: Copy + std::fmt::Debug>(
    world: World,
    code: fn(&Reply) -> serde_json::Value,
    broken: impl IntoIterator<Item = B>,
    request: impl Fn(B) -> Request,
    expected: impl Fn(B) -> (u16, &'static str),
) {
    let mut sent = Vec::new();
    for broken in broken {
        let request = request(broken);
        for reply in [world.send(&request).await, world.send_h2(&request).await] {
            assert_eq!(reply.status, expected(broken).0, "{broken:?}");
            let _ = code(&reply);
            sent.push((correlation_of(&reply), broken));
        }
    }
    assert!(!sent.is_empty());
    assert_eq!(world.pam.requests().len(), 1, "only the first call may reach the PAM");
    let lines = world.finish().await;
    for (id, broken) in sent {
        assert_eq!(reason(&lines, &id), expected(broken).1, "{broken:?}");
    }
}

/// The one correlation id of one of our own replies, which is JSON with its length.
pub fn correlation_of(reply: &Reply) -> String {
    assert_eq!(reply.values("content-type"), ["application/json"]);
    assert_eq!(reply.values("content-length"), [reply.body.len().to_string()]);
    let ids = reply.values("x-correlation-id");
    assert_eq!(ids.len(), 1);
    ids[0].to_owned()
}

/// Why the request with this correlation id was refused, in the log's word.
pub fn reason(lines: &[serde_json::Value], id: &str) -> String {
    let of_request: Vec<_> = lines.iter().filter(|line| line["correlation_id"] == id).collect();
    assert_eq!(of_request.len(), 1, "lines of {id}");
    assert_eq!(of_request[0]["decision"], "refused");
    of_request[0]["reason"].as_str().unwrap().to_owned()
}

/// The keys of an object, sorted.
pub fn keys(value: &serde_json::Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

impl Folder {
    /// Writes a config: a dialect (or more lines of the head, after it), its callers, and a file for each secret they name.
    pub fn config(&self, head: &str, callers: &str, secrets: &[(&str, &str)]) -> String {
        for (name, secret) in secrets {
            self.write(name, secret);
        }
        let addresses = "listen = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"";
        self.write("config.toml", &format!("dialect = {head}\n{addresses}\n{callers}"))
    }
}
