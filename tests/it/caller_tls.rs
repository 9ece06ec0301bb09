//! TLS to callers: what is spoken, who is let in, and certificates that change while connections stay open.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::binary;
use crate::certificates::{Authority, Issued, client};
use crate::world::{Connection, Folder, PATIENCE, Pam, Request, World, valkyrie};

// ---- what is spoken ----

#[tokio::test]
async fn callers_speak_http_over_tls() {
    let door = Door::new("speak");
    let world = door.world(&[]).await;
    for version in [&TLS12, &TLS13] {
        for alpn in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
            let mut caller = world.connect_tls(&client(&door.authority, None, alpn, &[version])).await.unwrap();
            let agreed = caller.stream.get_ref().1.alpn_protocol().map(|agreed| agreed.to_vec());
            assert_eq!(agreed.as_deref(), alpn.first().map(|first| first.as_bytes()), "{alpn:?}");
            if alpn.first() == Some(&"h2") {
                assert_eq!(world.send_h2_over(caller.stream, &bet()).await.status, 200);
            } else {
                for _ in 0..2 {
                    assert_eq!(caller.send(&bet()).await.status, 200);
                }
            }
        }
    }
    assert_eq!(world.pam.requests().len(), 2 * 5);
}

// threat: H1
#[tokio::test]
async fn what_is_too_old_or_too_weak_is_not_spoken() {
    let door = Door::new("weak");
    let world = door.world(&[]).await;
    let address = world.address.to_string();
    let offers = |offer: &'static [&'static str]| {
        let address = address.clone();
        let connect = move || {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &address]).args(offer).stdin(Stdio::null());
            let output = command.output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("Verification")
                && !String::from_utf8_lossy(&output.stdout).contains("Cipher is (NONE)")
        };
        tokio::task::spawn_blocking(connect)
    };
    assert!(offers(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]).await.unwrap());
    assert!(offers(&["-tls1_3"]).await.unwrap());
    for weak in [
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"],
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"],
    ] {
        assert!(!offers(weak).await.unwrap(), "{weak:?}");
    }
    world.pam.assert_untouched();
}

// threat: H1
#[tokio::test]
async fn each_version_and_suite_that_is_too_weak_is_refused_by_itself() {
    let door = Door::new("weak-alone");
    let world = door.world(&[]).await;
    // What differs from it must be why the others are refused.
    assert_eq!(answer_to(&world, 0x0303, 0xc02b).await, Some(SERVER_HELLO));
    let mut refused = 0.0;
    for version in [0x0300, 0x0301, 0x0302] {
        assert_eq!(answer_to(&world, version, 0xc02b).await, Some(ALERT), "{version:x}");
        refused += 1.0;
    }
    for suite in [
        // NULL
        0x0001, 0x0002, 0x003b, 0xc006, 0xc010, // anonymous
        0x0018, 0x001b, 0x0034, 0x006c, 0x00a6, 0xc018, // RC4
        0x0004, 0x0005, 0xc007, 0xc011, // 3DES and DES
        0x0009, 0x000a, 0x0016, 0xc008, 0xc012, // CBC
        0x0033, 0x0067, 0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc024, 0xc027, 0xc028, // static RSA
        0x002f, 0x0035, 0x003c, 0x003d, 0x009c, 0x009d, // export
        0x0003, 0x0008, 0x0014,
    ] {
        assert_eq!(answer_to(&world, 0x0303, suite).await, Some(ALERT), "{suite:04x}");
        refused += 1.0;
    }
    world.until(r#"portcullis_tls_handshakes_failed_total{reason="incompatible"}"#, refused).await;
    world.pam.assert_untouched();
    assert_eq!(world.connect_tls(&door.caller()).await.unwrap().send(&bet()).await.status, 200);
}

// threat: H2
#[tokio::test]
async fn there_is_no_renegotiation_and_no_compression() {
    let door = Door::new("renegotiation");
    let world = door.world(&[]).await;
    let address = world.address.to_string();
    let talk = move || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address, "-tls1_2", "-comp", "-legacy_renegotiation"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A line with nothing but R asks for another handshake.
        child.stdin.take().unwrap().write_all(b"R\n").unwrap();
        let output = child.wait_with_output().unwrap();
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    };
    let said = tokio::task::spawn_blocking(talk).await.unwrap();
    assert!(said.contains("Compression: NONE"), "{said}");
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    world.pam.assert_untouched();
    assert_eq!(world.connect_tls(&door.caller()).await.unwrap().send(&bet()).await.status, 200);
}

#[tokio::test]
async fn a_connection_that_ends_says_so() {
    let door = Door::new("farewell");
    let world = door.world(&["limits.idle_timeout=200ms"]).await;
    let idle = world.connect_tls(&door.caller()).await.unwrap();
    let mut used = world.connect_tls(&door.caller()).await.unwrap();
    assert_eq!(used.send(&bet()).await.status, 200);
    let mut last = world.connect_tls(&door.caller()).await.unwrap();
    assert_eq!(last.send(&bet().with("Connection", "close")).await.status, 200);
    let h2 = world.connect_tls(&client(&door.authority, None, &["h2"], &[&TLS13])).await.unwrap();
    let (mut calls, connection) = h2::client::handshake(h2.stream).await.unwrap();
    let open = tokio::spawn(connection);
    let head = http::Request::get("https://localhost/none").body(()).unwrap();
    assert_eq!(calls.send_request(head, true).unwrap().0.await.unwrap().status(), 404);
    // An end that was not announced would be an error here.
    for mut caller in [used, last] {
        assert_eq!(timeout(PATIENCE, caller.stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap(), 0);
    }
    timeout(PATIENCE, open).await.unwrap().unwrap().unwrap();
    drop(idle);
}

// threat: H2
#[tokio::test]
async fn nothing_is_taken_before_the_handshake_is_over() {
    let door = Door::new("early");
    let world = door.world(&[]).await;
    let mut config = client(&door.authority, None, &[], &[&TLS13]);
    Arc::make_mut(&mut config).enable_early_data = true;
    for resumed in [false, true] {
        let mut next = ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
        assert!(next.early_data().is_none(), "resumed: {resumed}");
        let mut caller = world.connect_tls(&config).await.unwrap();
        assert_eq!(caller.send(&bet()).await.status, 200);
        let kind = caller.stream.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(HandshakeKind::Resumed), resumed, "{kind:?}");
    }
}

// threat: H4
#[tokio::test]
async fn what_is_not_tls_is_let_go() {
    let door = Door::new("plain");
    let world = door.world(&[]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (at, bytes) in [&bet().bytes()[..], preface, &[0; 64], &[0xff; 64]].into_iter().enumerate() {
        let mut caller = world.connect().await;
        caller.write(bytes).await;
        let rest = caller.rest().await;
        assert!(!rest.starts_with(b"HTTP/"), "{rest:?}");
        world.until(r#"portcullis_tls_handshakes_failed_total{reason="no_tls"}"#, (at + 1) as f64).await;
    }
    assert_eq!(world.connect_tls(&door.caller()).await.unwrap().send(&bet()).await.status, 200);
    assert_eq!(world.pam.requests().len(), 1);
}

// threat: H4
#[tokio::test]
async fn records_that_are_junk_end_a_connection_whenever_they_come() {
    let door = Door::new("junk");
    let world = door.world(&[]).await;
    let record = |kind: u8, length: u16, bytes: &[u8]| [&[kind, 3, 3][..], &length.to_be_bytes(), bytes].concat();
    let junk = [
        record(23, 40, &[0; 40]),
        record(22, 40, &[0xff; 40]),
        record(99, 40, &[0; 40]),
        record(22, 0, b""),
        record(22, 0xffff, &[0; 400]),
        record(21, 2, &[9, 9]),
        bet().bytes(),
    ];
    for junk in &junk {
        let mut caller = world.connect().await;
        caller.write(junk).await;
        let _ = caller.stream.shutdown().await;
        assert!(!caller.rest().await.starts_with(b"HTTP/"), "{junk:?}");
        // Behind a good handshake, and behind half a request.
        for alpn in ["h2", "http/1.1"] {
            let tls = client(&door.authority, None, &[alpn], &[&TLS13]);
            let mut caller = world.connect_tls(&tls).await.unwrap();
            if alpn == "http/1.1" {
                caller.write(&bet().bytes()[..40]).await;
            }
            let (tcp, _) = caller.stream.get_mut();
            tcp.write_all(junk).await.unwrap();
            let _ = tcp.shutdown().await;
            let mut rest = Vec::new();
            let _ = timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.expect("it did not end");
            assert!(!rest.starts_with(b"HTTP/"));
        }
    }
    world.until("portcullis_connections", 0.0).await;
    world.pam.assert_untouched();
    assert_eq!(world.connect_tls(&door.caller()).await.unwrap().send(&bet()).await.status, 200);
}

// threat: H4
#[tokio::test]
async fn tls_where_none_is_spoken_is_let_go() {
    let door = Door::new("reverse");
    let world = World::valkyrie().await;
    assert!(world.connect_tls(&door.caller()).await.is_err());
    world.pam.assert_untouched();
}

// threat: H3
#[tokio::test]
async fn a_handshake_that_stalls_is_ended_and_holds_up_nobody() {
    let door = Door::new("stall");
    let world = door.world(&["limits.handshake_timeout=300ms"]).await;
    let mut silent = world.connect().await;
    let mut half = world.connect().await;
    half.write(&[22, 3, 1, 2, 0, 1]).await;
    assert_eq!(world.connect_tls(&door.caller()).await.unwrap().send(&bet()).await.status, 200);
    assert_eq!(silent.rest().await, b"");
    assert_eq!(half.rest().await, b"");
    world.until(r#"portcullis_tls_handshakes_failed_total{reason="timeout"}"#, 2.0).await;
    world.until("portcullis_connections", 0.0).await;
}

#[tokio::test]
async fn a_caller_that_does_not_trust_our_certificate_leaves() {
    let door = Door::new("distrust");
    let world = door.world(&[]).await;
    let stranger = Authority::new("stranger");
    assert!(world.connect_tls(&client(&stranger, None, &[], &[&TLS13])).await.is_err());
    world.until(r#"portcullis_tls_handshakes_failed_total{reason="refused"}"#, 1.0).await;
}

#[test]
fn a_certificate_that_is_of_no_use_keeps_it_from_starting() {
    let door = Door::new("exit");
    let other = door.authority.issue(&["localhost"]);
    let other = door.folder.write("other.key", &other.key);
    let certificate = format!("tls.certificate={}", door.folder.path().join("tls.pem").display());
    for (key, part) in [(other.as_str(), "does not belong to the certificate"), ("no-such.key", "cannot read")] {
        let key = format!("tls.key={key}");
        let (code, _, said) =
            binary::output(&["run", "--config", "config/valkyrie.toml", "--set", &certificate, "--set", &key]);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("--set tls.key: ") && said.contains(part), "{said}");
    }
}

// ---- who is let in ----

#[tokio::test]
async fn without_a_certificate_that_is_trusted_no_connection_comes_about() {
    let door = Door::new("required");
    let world = door.world_of(&format!("certificate = \"{SPIFFE}\""), &[&door.client_ca()]).await;
    let stranger = Authority::new("stranger").issue(&[SPIFFE]);
    let expired = door.authority.issue_until(&[SPIFFE], 2001);
    let mut failed = 0.0;
    for version in [&TLS12, &TLS13] {
        for own in [None, Some(&stranger), Some(&expired)] {
            let config = client(&door.authority, own, &[], &[version]);
            assert!(answered(world.connect_tls(&config).await).await.is_none());
            failed += 1.0;
            world.until(r#"portcullis_tls_handshakes_failed_total{reason="certificate"}"#, failed).await;
        }
        let own = door.authority.issue(&[SPIFFE]);
        let config = client(&door.authority, Some(&own), &[], &[version]);
        assert_eq!(answered(world.connect_tls(&config).await).await, Some(200));
    }
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test]
async fn where_a_certificate_is_optional_a_bad_one_is_refused_all_the_same() {
    let door = Door::new("optional");
    let world = door.world(&[&door.client_ca(), "tls.client_auth=optional"]).await;
    let own = door.authority.issue(&["anyone"]);
    let stranger = Authority::new("stranger").issue(&["anyone"]);
    for (own, status) in [(None, Some(200)), (Some(&own), Some(200)), (Some(&stranger), None)] {
        let config = client(&door.authority, own, &[], &[&TLS13]);
        assert_eq!(answered(world.connect_tls(&config).await).await, status);
    }
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test]
async fn a_caller_is_bound_to_the_names_in_its_certificate() {
    let door = Door::new("bound");
    let world = door
        .world_of(
            "certificate = [\"spiffe://example.org/valkyrie\", \"dns:Valkyrie.example.org\"]",
            &[&door.client_ca(), "tls.client_auth=optional"],
        )
        .await;
    for (names, status) in [
        (Some(&[SPIFFE][..]), 200),
        (Some(&["dns.example.org", "valkyrie.example.org"]), 200),
        (Some(&["spiffe://example.org/valkyrie/other"]), 401),
        (Some(&["spiffe://example.org/Valkyrie"]), 401),
        (Some(&["other.valkyrie.example.org"]), 401),
        (Some(&["*.example.org"]), 401),
        (None, 401),
    ] {
        let own = names.map(|names| door.authority.issue(names));
        for alpn in ["http/1.1", "h2"] {
            let config = client(&door.authority, own.as_ref(), &[alpn], &[&TLS13]);
            let mut caller = world.connect_tls(&config).await.unwrap();
            let reply = match alpn {
                "h2" => world.send_h2_over(caller.stream, &bet()).await,
                _ => caller.send(&bet()).await,
            };
            assert_eq!(reply.status, status, "{names:?} {alpn}");
        }
    }
    assert_eq!(world.pam.requests().len(), 4);

    // Nobody learns that the key was right.
    let mut caller = world.connect_tls(&door.caller()).await.unwrap();
    let bound = caller.send(&bet()).await;
    let unknown = caller.send(&bet().replacing("Authorization", "Bearer nobody")).await;
    assert_eq!((bound.status, bound.json()), (unknown.status, unknown.json()));
    let lines = world.finish().await;
    let reasons: Vec<&str> = lines.iter().rev().take(2).map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["credential_wrong", "certificate_other"]);
}

// ---- certificates that change ----

#[tokio::test]
async fn a_renewed_certificate_is_in_use_without_a_connection_lost() {
    let door = Door::mounted("renewed");
    let world = door.world(&[]).await;
    let before = world.metric(EXPIRY).await;
    let mut open = world.connect_tls(&door.caller()).await.unwrap();
    assert_eq!(open.send(&bet()).await.status, 200);

    let renewed = door.authority.issue_until(&["localhost"], 3000);
    door.swap("..2", &renewed, &door.authority);
    changed(&world, EXPIRY, before).await;
    let mut new = world.connect_tls(&door.caller()).await.unwrap();
    let shown = new.stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown, renewed.chain()[0]);
    assert_eq!(new.send(&bet()).await.status, 200);
    assert_eq!(open.send(&bet()).await.status, 200);
    let lines = world.finish().await;
    assert!(lines.iter().any(|line| line["event"] == "certificates_renewed"), "{lines:?}");
}

#[tokio::test]
async fn files_of_no_use_leave_the_old_certificate_in_use() {
    let door = Door::new("broken");
    let world = door.world(&[]).await;
    let good = std::fs::read_to_string(door.folder.path().join("tls.key")).unwrap();
    door.folder.write("tls.key", "canary");
    world.until("portcullis_certificates_stale", 1.0).await;
    assert_eq!(world.connect_tls(&door.caller()).await.unwrap().send(&bet()).await.status, 200);
    door.folder.write("tls.key", &good);
    world.until("portcullis_certificates_stale", 0.0).await;
    let lines = world.finish().await;
    let told: Vec<_> = lines.iter().filter(|line| line["event"] == "certificates_unusable").collect();
    assert_eq!(told.len(), 1);
    assert!(told[0]["about"]["fault"].as_str().unwrap().contains("no private key"), "{told:?}");
    assert!(!told[0].to_string().contains("canary"));
}

#[tokio::test]
async fn a_session_from_before_a_rotation_of_the_authority_does_not_come_back() {
    for version in [&TLS12, &TLS13] {
        let door = Door::mounted("rotation");
        let world = door.world(&[&door.client_ca()]).await;
        let before = world.metric(r#"portcullis_certificate_expiry_timestamp_seconds{certificate="client_ca"}"#).await;
        let own = door.authority.issue(&[SPIFFE]);
        let old = client(&door.authority, Some(&own), &[], &[version]);
        let mut open = world.connect_tls(&old).await.unwrap();
        assert_eq!(open.send(&bet()).await.status, 200);
        // The second would resume the session of the first, and be let in unseen. A certificate is verified each time.
        for _ in 0..2 {
            let mut caller = world.connect_tls(&old).await.unwrap();
            assert_eq!(caller.send(&bet()).await.status, 200);
            assert_eq!(caller.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
        let next = Authority::until("next", 2999);
        door.swap("..2", &door.authority.issue(&["localhost"]), &next);
        changed(&world, r#"portcullis_certificate_expiry_timestamp_seconds{certificate="client_ca"}"#, before).await;
        assert_eq!(answered(world.connect_tls(&old).await).await, None);
        let own = next.issue(&[SPIFFE]);
        let new = client(&door.authority, Some(&own), &[], &[version]);
        assert_eq!(answered(world.connect_tls(&new).await).await, Some(200));
        // Who was let in before is not thrown out in the middle of its calls; limits.connection_age says until when.
        assert_eq!(open.send(&bet()).await.status, 200);
        assert_eq!(world.pam.requests().len(), 5);
    }
}

// ---- the door ----

/// An authority and a folder with a certificate of it, where a config could find them.
pub struct Door {
    pub authority: Authority,
    folder: Folder,
}

impl Door {
    pub fn new(name: &str) -> Door {
        let door = Door { authority: Authority::new(name), folder: Folder::new(&format!("caller-tls-{name}")) };
        door.write(Path::new(""), &door.authority.issue(&["localhost"]), &door.authority);
        door
    }

    /// The same in the way that Kubernetes mounts a secret: the files are links through a link, which is swapped.
    fn mounted(name: &str) -> Door {
        let door = Door { authority: Authority::new(name), folder: Folder::new(&format!("caller-tls-{name}")) };
        door.swap("..1", &door.authority.issue(&["localhost"]), &door.authority);
        for file in ["tls.pem", "tls.key", "ca.pem"] {
            symlink(Path::new("..data").join(file), door.folder.path().join(file)).unwrap();
        }
        door
    }

    fn swap(&self, version: &str, own: &Issued, client_ca: &Authority) {
        std::fs::create_dir(self.folder.path().join(version)).unwrap();
        self.write(Path::new(version), own, client_ca);
        symlink(version, self.folder.path().join("..data_tmp")).unwrap();
        std::fs::rename(self.folder.path().join("..data_tmp"), self.folder.path().join("..data")).unwrap();
    }

    fn write(&self, below: &Path, own: &Issued, client_ca: &Authority) {
        for (file, text) in [("tls.pem", &own.certificate), ("tls.key", &own.key), ("ca.pem", &client_ca.pem)] {
            self.folder.write(below.join(file).to_str().unwrap(), text);
        }
    }

    pub async fn world(&self, set: &[&str]) -> World {
        self.world_of("", set).await
    }

    /// With one line more for the caller.
    async fn world_of(&self, line: &str, set: &[&str]) -> World {
        let config = self.folder.write(
            "config.toml",
            &format!(
                "dialect = \"valkyrie\"\ntls = {{ certificate = \"tls.pem\", key = \"tls.key\" }}\n\
                 [[caller]]\nname = \"valkyrie\"\nbearer = {{ env = \"PAM_API_TOKEN\" }}\n{line}\n"
            ),
        );
        World::with_pam(&config, set, Pam::start().await).await
    }

    fn client_ca(&self) -> String {
        "tls.client_ca=ca.pem".to_owned()
    }

    /// One that shows no certificate.
    fn caller(&self) -> Arc<ClientConfig> {
        client(&self.authority, None, &[], &[&TLS13])
    }
}

/// The status of a reply, if the connection comes about: TLS 1.3 lets a caller believe so until it reads.
async fn answered(connected: std::io::Result<Connection<TlsStream<TcpStream>>>) -> Option<u16> {
    connected.ok()?.try_send(&bet()).await.map(|reply| reply.status)
}

/// The kind of the first record that comes back when one version and one suite are offered, in a ClientHello by hand (RFC
/// 5246 §7.4.1.2); with an alert, the connection ends.
async fn answer_to(world: &World, version: u16, suite: u16) -> Option<u8> {
    let extension = |kind: u16, bytes: &[u8]| {
        [&kind.to_be_bytes()[..], &u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    };
    let extensions = [
        // P-256 and x25519; uncompressed points; ECDSA and RSA with SHA-256; the empty renegotiation_info.
        extension(10, &[0, 4, 0, 23, 0, 29]),
        extension(11, &[1, 0]),
        extension(13, &[0, 6, 4, 3, 8, 4, 4, 1]),
        extension(0xff01, &[0]),
    ]
    .concat();
    let hello = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &[0],
        &[0, 2],
        &suite.to_be_bytes(),
        &[1, 0],
        &u16::try_from(extensions.len()).unwrap().to_be_bytes(),
        &extensions,
    ]
    .concat();
    let hello = [&[1, 0][..], &u16::try_from(hello.len()).unwrap().to_be_bytes(), &hello].concat();
    let length = u16::try_from(hello.len()).unwrap().to_be_bytes();
    let mut caller = world.connect().await;
    caller.write(&[&[22, 3, 1][..], &length, &hello].concat()).await;
    let mut record = [0; 5];
    timeout(PATIENCE, caller.stream.read_exact(&mut record)).await.expect("nothing came").ok()?;
    if record[0] == ALERT {
        caller.rest().await;
    }
    Some(record[0])
}

const ALERT: u8 = 21;
const SERVER_HELLO: u8 = 22;

async fn changed(world: &World, metric: &str, before: f64) {
    let changed = async { while world.metric(metric).await == before {} };
    timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("{metric} stays {before}"));
}

fn bet() -> Request {
    valkyrie::call("POST", "/players/17/transactions?provider=x").with("Content-Type", "application/json").body("{}")
}

const SPIFFE: &str = "spiffe://example.org/valkyrie";

const EXPIRY: &str = r#"portcullis_certificate_expiry_timestamp_seconds{certificate="tls"}"#;
