//! The PROXY protocol: who must say for whom a connection is, whom nobody believes, and what the address named is good for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::version::TLS13;

use crate::certificates::{Authority, client};
use crate::world::{Connection, Folder, PATIENCE, Pam, Reply, Request, World, root, valkyrie, wallet};

// ---- who is believed ----

// threat: C13
#[tokio::test]
async fn the_client_that_a_balancer_names_is_the_one_that_calls() {
    for http2 in [false, true] {
        let (_folder, config) = restricted("config/wallet.toml", "198.51.100.0/24");
        let world = World::of(&config, &[BALANCER]).await;
        let call = wallet::signed("balance", &wallet::body("t"));
        for (header, status) in [
            (named("198.51.100.7"), 200),
            (named("203.0.113.9"), 401),
            (named("2001:db8::7"), 401),
            (for_itself(), 401),
            (unknown(), 401),
        ] {
            let connection = announced(&world, &header).await;
            assert_eq!(send(&world, connection, &call, http2).await.status, status, "{header:x?}");
        }
        let seen = world.pam.only_request();
        assert_eq!(seen.values("X-Forwarded-For"), ["198.51.100.7"]);
        let lines = world.finish().await;
        let clients: Vec<_> = lines.iter().map(|line| line["client.address"].as_str().unwrap()).collect();
        assert_eq!(clients, ["198.51.100.7", "203.0.113.9", "2001:db8::7", "127.0.0.1", "127.0.0.1"]);
    }
}

// threat: C13
#[tokio::test]
async fn where_a_trusted_balancer_names_nobody_what_a_stranger_wrote_is_not_believed() {
    let (_folder, config) = restricted("config/wallet.toml", "198.51.100.0/24");
    let world = World::of(&config, &[BALANCER, "trusted_proxies=[\"127.0.0.0/8\"]"]).await;
    let call = wallet::signed("balance", &wallet::body("t")).with("X-Forwarded-For", "198.51.100.7");
    for (header, status) in
        [(for_itself(), 401), (unknown(), 401), (named("127.0.0.9"), 200), (named("192.0.2.1"), 401)]
    {
        let connection = announced(&world, &header).await;
        assert_eq!(send(&world, connection, &call, false).await.status, status, "{header:x?}");
    }
}

// threat: C13
#[tokio::test]
async fn under_tls_the_header_comes_first() {
    let authority = Authority::new("balanced");
    let folder = Folder::new("announcement-tls");
    let issued = authority.issue(&["localhost"]);
    folder.write("tls.pem", &issued.certificate);
    folder.write("tls.key", &issued.key);
    let config = folder.write(
        "config.toml",
        "dialect = \"valkyrie\"\ntls = { certificate = \"tls.pem\", key = \"tls.key\" }\n\
         [[caller]]\nname = \"valkyrie\"\nbearer = { env = \"PAM_API_TOKEN\" }\nfrom = [\"198.51.100.7\"]\n",
    );
    let world = World::with_pam(&config, &[BALANCER], Pam::start().await).await;
    let call = valkyrie::call("GET", "/players/session?provider=x");
    for (alpn, from, status) in
        [("http/1.1", "198.51.100.7", 200), ("h2", "198.51.100.7", 200), ("http/1.1", "198.51.100.8", 401)]
    {
        let mut tcp = TcpStream::connect(world.address).await.unwrap();
        tcp.write_all(&named(from)).await.unwrap();
        let config = client(&authority, None, &[alpn], &[&TLS13]);
        let connecting = TlsConnector::from(Arc::clone(&config)).connect("localhost".try_into().unwrap(), tcp);
        let connection = Connection::over(timeout(PATIENCE, connecting).await.unwrap().unwrap());
        assert_eq!(send(&world, connection, &call, alpn == "h2").await.status, status, "{alpn} {from}");
    }
    // Without it, the handshake is not even looked at.
    assert!(world.connect_tls(&client(&authority, None, &[], &[&TLS13])).await.is_err());
    world.until(&refused("proxy_header_missing"), 1.0).await;
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test]
async fn who_must_announce_and_does_not_is_let_go_unheard() {
    let call = wallet::signed("balance", &wallet::body("t")).bytes();
    let v1 = [&b"PROXY TCP4 198.51.100.7 10.0.0.1 8080 80\r\n"[..], &call].concat();
    let datagram = [&named("198.51.100.7")[..13], &[0x12], &named("198.51.100.7")[14..], &call].concat();
    let long = [&named("198.51.100.7")[..14], &[2, 25], &[0; 600]].concat();
    let short = [&named("198.51.100.7")[..14], &[0, 11], &[0; 11], &call].concat();
    for (bytes, reason) in [
        (call.clone(), "proxy_header_missing"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "proxy_header_missing"),
        (v1, "proxy_header_version"),
        (datagram, "proxy_header_transport"),
        (long, "proxy_header_too_long"),
        (short, "proxy_header_malformed"),
    ] {
        let world = World::of("config/wallet.toml", &[BALANCER]).await;
        let mut caller = world.connect().await;
        caller.write(&bytes).await;
        assert!(caller.rest().await.is_empty(), "{reason}");
        world.until(&refused(reason), 1.0).await;
        world.pam.assert_untouched();
        let lines = world.finish().await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(
            (lines[0]["event"].as_str(), lines[0]["reason"].as_str()),
            (Some("connection_refused"), Some(reason))
        );
        assert_eq!(lines[0]["client.address"], "127.0.0.1");
    }
}

#[tokio::test]
async fn a_header_that_stays_away_or_drips_or_breaks_off_holds_nobody_up() {
    let world = World::of("config/wallet.toml", &[BALANCER, "limits.head_timeout=300ms"]).await;
    let mut silent = world.connect().await;
    let mut half = world.connect().await;
    half.write(&named("198.51.100.7")[..20]).await;
    let mut gone = world.connect().await;
    gone.write(&named("198.51.100.7")[..27]).await;
    gone.stream.shutdown().await.unwrap();
    let connection = announced(&world, &named("198.51.100.7")).await;
    let call = wallet::signed("balance", &wallet::body("t"));
    assert_eq!(send(&world, connection, &call, false).await.status, 200);
    for caller in [&mut silent, &mut half, &mut gone] {
        assert!(caller.rest().await.is_empty());
    }
    world.until(&refused("proxy_header_timeout"), 2.0).await;
    world.until(&refused("proxy_header_cut"), 1.0).await;
    world.until("portcullis_connections", 0.0).await;
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let world = World::of("config/wallet.toml", &[BALANCER]).await;
    let mut caller = world.connect().await;
    caller.stream.set_nodelay(true).unwrap();
    for byte in named("198.51.100.7") {
        caller.write(&[byte]).await;
    }
    assert_eq!(caller.send(&wallet::signed("balance", &wallet::body("t"))).await.status, 200);
    assert_eq!(world.pam.only_request().values("X-Forwarded-For"), ["198.51.100.7"]);
}

// threat: C13
#[tokio::test]
async fn from_anybody_else_a_header_is_junk() {
    for set in [&[][..], &[BALANCER]] {
        let world = World::of("config/wallet.toml", set).await;
        let mut caller = from(if set.is_empty() { "127.0.0.1" } else { OTHER }, &world).await;
        caller.write(&named("198.51.100.7")).await;
        let reply = caller.send(&wallet::signed("balance", &wallet::body("t"))).await;
        assert_eq!((reply.status, wallet::code(&reply)), (400, 400.into()));
        assert!(caller.rest().await.is_empty());
        world.pam.assert_untouched();
        // And needs none.
        let mut caller = from(OTHER, &world).await;
        assert_eq!(caller.send(&wallet::signed("balance", &wallet::body("t"))).await.status, 200);
    }
}

// ---- what the address is good for ----

// threat: C13
#[tokio::test]
async fn x_forwarded_for_is_believed_for_whom_is_named_and_not_for_who_names() {
    let trusting = |whom: &str| format!("trusted_proxies=[\"{whom}\"]");
    for (trusted, named_client, expected) in [
        // The balancer passes on what a stranger wrote.
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("198.51.100.0/24", "203.0.113.9", "203.0.113.9"),
        // A trusted proxy stands in front of the balancer.
        ("198.51.100.0/24", "198.51.100.7", "192.0.2.5"),
    ] {
        let world = World::of("config/wallet.toml", &[BALANCER, &trusting(trusted)]).await;
        let call = wallet::signed("balance", &wallet::body("t")).with("X-Forwarded-For", "192.0.2.5");
        let connection = announced(&world, &named(named_client)).await;
        assert_eq!(send(&world, connection, &call, false).await.status, 200);
        assert_eq!(world.pam.only_request().values("X-Forwarded-For"), [expected], "{trusted} {named_client}");
    }
}

#[tokio::test]
async fn the_bound_on_one_address_is_on_the_one_that_is_named() {
    let world = World::of("config/wallet.toml", &[BALANCER, "limits.connections_per_address=1"]).await;
    let call = wallet::signed("balance", &wallet::body("t"));
    let mut open = Vec::new();
    for header in [named("198.51.100.7"), named("198.51.100.8"), for_itself(), for_itself()] {
        let mut connection = announced(&world, &header).await;
        assert_eq!(connection.send(&call).await.status, 200);
        open.push(connection);
    }
    assert!(announced(&world, &named("198.51.100.7")).await.rest().await.is_empty());
    world.until(&refused("connections_per_address"), 1.0).await;
    open.remove(0);
    world.until("portcullis_connections", 3.0).await;
    assert_eq!(announced(&world, &named("198.51.100.7")).await.send(&call).await.status, 200);
}

// ---- what the tests above are written with ----

const BALANCER: &str = "proxy_protocol=[\"127.0.0.1\"]";

/// Another address of this host, which is no balancer's.
const OTHER: &str = "127.0.0.2";

fn refused(reason: &str) -> String {
    format!("portcullis_connections_refused_total{{reason=\"{reason}\"}}")
}

/// A header as the specification has it, written without any code of Portcullis.
fn named(client: &str) -> Vec<u8> {
    let (family, client, own) = match client.parse().unwrap() {
        IpAddr::V4(client) => (0x11, client.octets().to_vec(), vec![10; 4]),
        IpAddr::V6(client) => (0x21, client.octets().to_vec(), vec![0xfd; 16]),
    };
    header(0x21, family, &[client, own, vec![0x1f, 0x90, 0, 80]].concat())
}

/// As for a health check.
fn for_itself() -> Vec<u8> {
    header(0x20, 0, &[])
}

fn unknown() -> Vec<u8> {
    header(0x21, 0, b"whatever")
}

fn header(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, content].concat()
}

async fn announced(world: &World, header: &[u8]) -> Connection {
    let mut connection = world.connect().await;
    connection.write(header).await;
    connection
}

async fn send<S>(world: &World, mut connection: Connection<S>, call: &Request, http2: bool) -> Reply
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if http2 { world.send_h2_over(connection.stream, call).await } else { connection.send(call).await }
}

async fn from(local: &str, world: &World) -> Connection {
    Connection::between(SocketAddr::new(local.parse().unwrap(), 0), world.address).await
}

/// A config of the repository whose callers may call from one network.
fn restricted(config: &str, network: &str) -> (Folder, String) {
    let folder = Folder::new(&format!("announcement-{}", network.replace(['/', '.'], "-")));
    let text = std::fs::read_to_string(root().join(config)).unwrap();
    let path =
        folder.write("config.toml", &text.replace("[[caller]]\n", &format!("[[caller]]\nfrom = [\"{network}\"]\n")));
    (folder, path)
}
