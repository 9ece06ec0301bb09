//! TLS to the PAM: whom it must be, who we are, and what becomes of a request when that does not come true.

use std::future::Future;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use crate::certificates::{Authority, Issued};
use crate::world::{Folder, Pam, Request, World, answer, valkyrie};

#[tokio::test]
async fn the_pam_is_spoken_to_over_tls_once_its_authority_is_named() {
    let (authority, folder) = trusted("speaks");
    let pam = Pam::over_tls(authority.issue(&["127.0.0.1"]).server(None)).await;
    let world = World::with_pam(VALKYRIE, &[&ca(&folder)], pam).await;
    for body in ["{}".to_owned(), format!("{{\"x\":\"{}\"}}", "y".repeat(60_000))] {
        let call = valkyrie::call("POST", TRANSACTIONS).with("Content-Type", "application/json").body(body.clone());
        let reply = world.send(&call).await;
        assert_eq!(reply.status, 200);
        assert_eq!(world.pam.requests().pop().unwrap().body, body.as_bytes());
    }
    assert_eq!(world.pam.connections(), 1, "the connection was not used again");
}

#[tokio::test]
async fn a_large_answer_comes_whole_over_tls() {
    let (authority, folder) = trusted("large");
    let pam = Pam::over_tls(authority.issue(&["127.0.0.1"]).server(None)).await;
    let body = "y".repeat(3_000_000);
    let large = answer(200, &body);
    pam.answer_with(move |_| large.clone());
    let world = World::with_pam(VALKYRIE, &[&ca(&folder)], pam).await;
    for _ in 0..2 {
        assert_eq!(world.send(&get()).await.body, body.as_bytes());
    }
    assert_eq!(world.pam.connections(), 1);
}

// threat: H4, H5
#[tokio::test]
async fn a_pam_that_is_not_who_it_should_be_gets_nothing() {
    let (authority, folder) = trusted("impostor");
    let stranger = Authority::new("stranger");
    let issued = |issued: Issued| Some(issued.server(None));
    for (what, server, reason) in [
        ("another name", issued(authority.issue(&["pam.example"])), "tls_certificate"),
        ("another authority", issued(stranger.issue(&["127.0.0.1"])), "tls_certificate"),
        ("expired", issued(authority.issue_until(&["127.0.0.1"], 2001)), "tls_certificate"),
        ("no TLS", None, "tls"),
    ] {
        let pam = match server {
            Some(server) => Pam::over_tls(server).await,
            None => in_the_clear().await,
        };
        let world = World::with_pam(VALKYRIE, &[&ca(&folder)], pam).await;
        assert_eq!(world.send(&get()).await.status, 503, "{what}");
        assert_eq!(world.pam.requests().len(), 0, "{what}");
        let lines = world.finish().await;
        assert_eq!(lines.last().unwrap()["reason"], reason, "{what}");
    }
}

#[tokio::test]
async fn the_name_in_the_certificate_may_be_another_than_the_address() {
    let (authority, folder) = trusted("name");
    let pam = Pam::over_tls(authority.issue(&["pam.example"]).server(None)).await;
    let world = World::with_pam(VALKYRIE, &[&ca(&folder), "upstream_tls.name=pam.example"], pam).await;
    assert_eq!(world.send(&get()).await.status, 200);
}

#[tokio::test]
async fn the_systems_authorities_do_not_know_a_private_one() {
    let authority = Authority::new("private");
    let pam = Pam::over_tls(authority.issue(&["127.0.0.1"]).server(None)).await;
    let world = World::with_pam(VALKYRIE, &["upstream_tls.roots=system"], pam).await;
    assert_eq!(world.send(&get()).await.status, 503);
    assert_eq!(world.pam.requests().len(), 0);
}

#[tokio::test]
async fn a_pam_that_asks_who_we_are_is_shown_our_certificate() {
    let (authority, folder) = trusted("mutual");
    let ours = authority.issue(&["portcullis.example"]);
    let certificate = format!("upstream_tls.certificate={}", folder.write("own.pem", &ours.certificate));
    let key = format!("upstream_tls.key={}", folder.write("own.key", &ours.key));
    let server = authority.issue(&["127.0.0.1"]).server(Some(&authority));
    let pam = Pam::over_tls(server.clone()).await;
    let world = World::with_pam(VALKYRIE, &[&ca(&folder), &certificate, &key], pam).await;
    assert_eq!(world.send(&get()).await.status, 200);

    // Without it, TLS 1.3 lets the PAM say so only when a request may have reached it already.
    let world = World::with_pam(VALKYRIE, &[&ca(&folder)], Pam::over_tls(server).await).await;
    assert_eq!(world.send(&get()).await.status, 502);
    assert_eq!(world.pam.requests().len(), 0);
}

// threat: H3
#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up_in_the_time_for_connecting() {
    let (_authority, folder) = trusted("stalls");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pam = Pam::at(listener.local_addr().unwrap());
    let world = World::with_pam(VALKYRIE, &[&ca(&folder), "timeouts.connect=100ms"], pam).await;
    assert_eq!(world.send(&get()).await.status, 503);
    let (mut hello, _) = listener.accept().await.unwrap();
    let mut sent = Vec::new();
    hello.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent.first(), Some(&22), "something else than a handshake was sent");
    assert_eq!(world.finish().await.last().unwrap()["reason"], "connect_timeout");
}

// threat: G3
#[tokio::test]
async fn what_the_pam_says_unasked_reaches_no_caller() {
    let (authority, folder) = trusted("unasked");
    let server = authority.issue(&["127.0.0.1"]).server(None);
    // At once behind the answer; once the answer has been delivered and the connection waits in the pool; and then in part, so
    // that nobody can tell yet what it will be.
    for when in ["at once", "later", "in part"] {
        let (go, gone) = oneshot::channel();
        let pam = scripted(server.clone(), move |mut tls| async move {
            let (good, evil) = (answer(200, "{}"), answer(200, r#"{"evil":true}"#));
            if when == "at once" {
                tls.write_all(&[good, evil].concat()).await.unwrap();
                tls.flush().await.unwrap();
                return tls;
            }
            tls.write_all(&good).await.unwrap();
            tls.flush().await.unwrap();
            gone.await.unwrap();
            match when {
                "later" => tls.write_all(&evil).await.unwrap(),
                _ => tls.get_mut().0.write_all(&[23, 3, 3, 0, 40, 1, 2, 3]).await.unwrap(),
            }
            tls.flush().await.unwrap();
            tls
        })
        .await;
        let world = World::with_pam(VALKYRIE, &[&ca(&folder)], Pam::at(pam.address)).await;
        assert_eq!(world.send(&get()).await.text(), "{}");
        let _ = go.send(());
        pam.played().await;
        // The second connection of the script's PAM is answered plainly.
        assert_eq!(world.send(&get()).await.text(), r#"{"second":"connection"}"#, "{when}");
    }
}

#[tokio::test]
async fn words_of_tls_on_an_idle_connection_do_not_end_it() {
    let (authority, folder) = trusted("rekey");
    let pam = scripted(authority.issue(&["127.0.0.1"]).server(None), |mut tls| async move {
        tls.write_all(&answer(200, "{}")).await.unwrap();
        let session: &mut ServerConnection = tls.get_mut().1;
        session.refresh_traffic_keys().unwrap();
        tls.flush().await.unwrap();
        tls
    })
    .await;
    let world = World::with_pam(VALKYRIE, &[&ca(&folder)], Pam::at(pam.address)).await;
    assert_eq!(world.send(&get()).await.text(), "{}");
    pam.played().await;
    assert_eq!(world.send(&get()).await.text(), r#"{"first":"connection"}"#);
}

// threat: G4
#[tokio::test]
async fn an_answer_that_ends_without_a_farewell_is_not_complete() {
    let (authority, folder) = trusted("truncated");
    let server = authority.issue(&["127.0.0.1"]).server(None);
    for (farewell, status) in [(true, 200), (false, 502)] {
        let pam = scripted(server.clone(), move |mut tls| async move {
            // Its end is the end of the connection.
            tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n{}").await.unwrap();
            tls.flush().await.unwrap();
            match farewell {
                true => tls.shutdown().await.unwrap(),
                false => tls.get_mut().0.shutdown().await.unwrap(),
            }
            tls
        })
        .await;
        let world = World::with_pam(VALKYRIE, &[&ca(&folder)], Pam::at(pam.address)).await;
        assert_eq!(world.send(&get()).await.status, status, "farewell: {farewell}");
    }
}

#[tokio::test]
async fn a_connection_by_an_authority_that_lost_our_trust_is_not_used_again() {
    let (authority, folder) = trusted("rotated");
    let pam = Pam::over_tls(authority.issue(&["127.0.0.1"]).server(None)).await;
    let world = World::with_pam(VALKYRIE, &[&ca(&folder)], pam).await;
    let expiry = r#"portcullis_certificate_expiry_timestamp_seconds{certificate="upstream_ca"}"#;
    let before = world.metric(expiry).await;
    assert_eq!(world.send(&get()).await.status, 200);
    folder.write("ca.pem", &Authority::until("next", 2999).pem);
    let renewed = async { while world.metric(expiry).await == before {} };
    tokio::time::timeout(crate::world::PATIENCE, renewed).await.unwrap();
    assert_eq!(world.send(&get()).await.status, 503);
    assert_eq!(world.pam.requests().len(), 1);

    folder.write("ca.pem", &authority.pem);
    let trusted_again = async { while world.send(&get()).await.status != 200 {} };
    tokio::time::timeout(crate::world::PATIENCE, trusted_again).await.unwrap();
}

// ---- PAMs ----

/// Answers what it is told at once, and without TLS.
pub async fn in_the_clear() -> Pam {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pam = Pam::at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.read_buf(&mut Vec::new()).await;
        let _ = tcp.write_all(&answer(400, "{}")).await;
    });
    pam
}

/// One that follows a script.
struct Scripted {
    address: std::net::SocketAddr,
    played: oneshot::Receiver<()>,
}

impl Scripted {
    /// Waits until the first connection's script is over.
    async fn played(self) {
        tokio::time::timeout(crate::world::PATIENCE, self.played).await.unwrap().unwrap();
    }
}

type Tls = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

/// Reads a request on its first connection, does what `script` says, and answers every further request, saying on which
/// connection it came.
async fn scripted<F: Future<Output = Tls> + Send>(
    server: ServerConfig,
    script: impl FnOnce(Tls) -> F + Send + 'static,
) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (done, played) = oneshot::channel();
    tokio::spawn(async move {
        let mut script = Some((script, done));
        for name in ["first", "second"] {
            let Ok((tcp, _)) = listener.accept().await else { return };
            let mut tls = acceptor.accept(tcp).await.unwrap();
            if let Some((script, done)) = script.take() {
                read_head(&mut tls).await;
                tls = script(tls).await;
                let _ = done.send(());
            }
            tokio::spawn(async move {
                while read_head(&mut tls).await {
                    let said = format!(r#"{{"{name}":"connection"}}"#);
                    if tls.write_all(&answer(200, &said)).await.is_err() || tls.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Scripted { address, played }
}

/// False at the end of the connection.
async fn read_head(tls: &mut Tls) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        if tls.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

/// An authority whose certificate is `ca.pem` in a folder.
fn trusted(name: &str) -> (Authority, Folder) {
    let authority = Authority::new(name);
    let folder = Folder::new(&format!("pam-tls-{name}"));
    folder.write("ca.pem", &authority.pem);
    (authority, folder)
}

fn ca(folder: &Folder) -> String {
    format!("upstream_tls.ca={}", folder.path().join("ca.pem").display())
}

fn get() -> Request {
    valkyrie::call("GET", SESSION)
}

const VALKYRIE: &str = "config/valkyrie.toml";

const SESSION: &str = "/players/session?provider=x";

const TRANSACTIONS: &str = "/players/17/transactions?provider=x";
