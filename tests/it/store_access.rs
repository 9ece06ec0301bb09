//! How replicas get into the store: TLS in both directions, and an ACL user who may do what is needed and no more.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failover::{assert_dead, end_all, settled};
use crate::redis_server::{Cluster, RedisServer, Watched, free_port};
use crate::sharing::{debit, ready, terminate, terminating_pam};
use crate::world::{Folder, PATIENCE, World, breath, root};

const PASSWORD: &str = "canary-store-password";

/// An authority, made with `openssl`, and what it has signed. Files of the test's own folder.
struct Authority {
    folder: Folder,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let authority = Authority { folder: Folder::new(&format!("authority-{name}")) };
        let subject = format!("/CN={name} authority");
        authority.openssl(&["-x509", "-days", "2", "-subj", &subject], "ca");
        authority
    }

    /// A certificate for names as OpenSSL writes them: `IP:127.0.0.1,DNS:localhost`.
    fn sign(&self, name: &str, names: &str) {
        let of = |end: &str| self.path(&format!("{name}.{end}"));
        self.openssl(&["-subj", &format!("/CN={name}")], name);
        std::fs::rename(of("pem"), of("csr")).unwrap();
        let extensions = self.folder.write(&format!("{name}.ext"), &format!("subjectAltName={names}\n"));
        let (ca, ca_key) = (self.path("ca.pem"), self.path("ca.key"));
        let status = Command::new("openssl")
            .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-extfile", &extensions])
            .args(["-CA".as_ref(), ca.as_os_str(), "-CAkey".as_ref(), ca_key.as_os_str()])
            .args(["-in".as_ref(), of("csr").as_os_str(), "-out".as_ref(), of("pem").as_os_str()])
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }

    fn openssl(&self, arguments: &[&str], name: &str) {
        let (key, out) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.pem")));
        let mut command = Command::new("openssl");
        command.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(arguments).arg("-keyout").arg(key).arg("-out").arg(out).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a server needs to speak TLS alone.
    fn options(&self, port: u16, clients: &str) -> Vec<String> {
        let file = |name: &str| self.path(name).display().to_string();
        let port = port.to_string();
        let files =
            [("--tls-cert-file", "server.pem"), ("--tls-key-file", "server.key"), ("--tls-ca-cert-file", "ca.pem")];
        let files = files.into_iter().flat_map(|(option, name)| [option.to_owned(), file(name)]);
        let plain = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", clients, "--tls-replication", "yes"];
        plain.map(str::to_owned).into_iter().chain(files).collect()
    }

    /// A server that speaks TLS alone.
    async fn server(&self, name: &str, clients: &str, more: &[&str]) -> RedisServer {
        let port = free_port();
        let mut arguments = self.options(port, clients);
        arguments.extend(["--bind", "127.0.0.1", "--save", ""].map(str::to_owned));
        arguments.extend(more.iter().map(|option| (*option).to_owned()));
        RedisServer::of("redis-server", port, Folder::new(&format!("redis-{name}")), arguments).await
    }

    /// `--set` values: an address, and whom to trust.
    fn set(&self, host: &str, port: u16) -> Vec<String> {
        vec![
            format!("revocation.redis.url=rediss://{host}:{port}"),
            format!("revocation.redis.ca={}", self.path("ca.pem").display()),
            "revocation.redis.timeout=2s".to_owned(),
        ]
    }

    /// `--set` values: who we are.
    fn identity(&self, name: &str) -> [String; 2] {
        let file = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
        [
            format!("revocation.redis.certificate={}", file("pem")),
            format!("revocation.redis.key={{ file = \"{}\" }}", file("key")),
        ]
    }
}

async fn world(set: &[String]) -> World {
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    World::with_pam("config/wallet.toml", &set, terminating_pam().await).await
}

/// Two replicas meet there.
async fn assert_shared(set: &[String]) {
    let (one, other) = (world(set).await, world(set).await);
    for world in [&one, &other] {
        ready(world).await;
    }
    let tokens = end_all(&one, "shared", 2).await;
    assert_dead(&[&one, &other], &tokens).await;
    assert_eq!(one.metric("portcullis_revocation_store_away").await, 0.0);
}

/// A replica does not get in: it is not ready, says why, checks no token, and shows no secret.
async fn assert_kept_out(set: &[String], why: &str) {
    let world = world(set).await;
    assert_eq!(world.send(&debit("t")).await.status, 503, "{why}");
    assert_eq!(world.send(&terminate("t")).await.status, 503, "{why}");
    world.pam.assert_untouched();
    let shown = [world.admin("/metrics").await.text(), world.admin("/status").await.text()].concat();
    assert!(!world.portcullis.is_ready(), "{why}");
    let away = async {
        while !world.log_text().contains("revocation_store_away") {
            breath().await;
        }
    };
    tokio::time::timeout(PATIENCE, away).await.unwrap_or_else(|_| panic!("it does not say that {why}"));
    let lines = world.finish().await;
    let away: Vec<&str> = lines
        .iter()
        .filter(|line| line["event"] == "revocation_store_away")
        .map(|line| line["about"]["why"].as_str().unwrap())
        .collect();
    assert!(away.len() == 1 && away[0].contains(why), "{away:?} does not say {why}");
    let told = format!("{shown}{lines:?}");
    assert!(!told.contains("canary") && !told.contains("PRIVATE"), "{told}");
}

#[tokio::test]
async fn over_tls_replicas_share_and_strangers_are_kept_out() {
    let (authority, stranger) = (Authority::new("redis"), Authority::new("stranger"));
    authority.sign("server", "IP:127.0.0.1");
    authority.sign("client", "DNS:portcullis");
    stranger.sign("client", "DNS:portcullis");
    let open = authority.server("tls-open", "no", &[]).await;
    assert_shared(&authority.set("127.0.0.1", open.port)).await;
    let both = authority.server("tls-both", "yes", &[]).await;
    let with = |mut set: Vec<String>, more: &[String]| {
        set.extend_from_slice(more);
        set
    };
    let set = |port| authority.set("127.0.0.1", port);
    assert_shared(&with(set(both.port), &authority.identity("client"))).await;

    assert_kept_out(&stranger.set("127.0.0.1", open.port), "UnknownIssuer").await;
    assert_kept_out(&authority.set("localhost", open.port), "not valid for name").await;
    assert_kept_out(&set(both.port), "CertificateRequired").await;
    assert_kept_out(&with(set(both.port), &stranger.identity("client")), "UnknownCA").await;
    // And a replica that does not speak TLS at all.
    assert_kept_out(&[format!("revocation.redis.url=redis://127.0.0.1:{}", open.port)], "").await;
}

#[tokio::test]
async fn over_tls_replicas_find_the_master_by_its_sentinel_and_the_nodes_of_a_cluster() {
    let authority = Authority::new("topologies");
    authority.sign("server", "IP:127.0.0.1");
    authority.sign("client", "DNS:portcullis");
    let identity = authority.identity("client");
    let master = authority.server("tls-master", "yes", &[]).await;
    let port = free_port();
    let folder = Folder::new("redis-tls-sentinel");
    let options = authority.options(port, "yes");
    let options: String = options.chunks(2).map(|pair| format!("{} {}\n", &pair[0][2..], pair[1])).collect();
    let monitor = format!("sentinel monitor mymaster 127.0.0.1 {} 1\n", master.port);
    let config = folder.write("sentinel.conf", &(options + &monitor));
    let _sentinel = RedisServer::of("redis-sentinel", port, folder, vec![config]).await;
    let mut set = authority.set("127.0.0.1", port);
    set.extend_from_slice(&identity);
    set.push("revocation.redis.sentinel=mymaster".to_owned());
    assert_shared(&set).await;

    let bus = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
    let node = authority.server("tls-node", "yes", &options).await;
    let file = |name: &str| authority.path(name).display().to_string();
    let (ca, pem, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let tls = ["--tls", "--cacert", &ca, "--cert", &pem, "--key", &key];
    assert_eq!(node.cli(&[&tls[..], &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]].concat()), "OK");
    node.until(&[&tls[..], &["CLUSTER", "INFO"]].concat(), "cluster_state:ok").await;
    let mut set = authority.set("127.0.0.1", node.port);
    set.extend_from_slice(&identity);
    set.push("revocation.redis.cluster=true".to_owned());
    assert_shared(&set).await;
}

/// What `config/reference.toml` says an ACL user needs: always, behind Sentinels, in a cluster, and for a database.
fn rights() -> [Vec<String>; 4] {
    let text = std::fs::read_to_string(root().join("config/reference.toml")).unwrap();
    let (_, about) = text.split_once("# The ACL user").unwrap();
    let (about, _) = about.split_once("\n# redis.user").unwrap();
    assert!(about.contains("~{portcullis}:*") && about.contains("~portcullis:*"), "{about}");
    let parts = ["behind Sentinels", "in a cluster", "for a database"];
    let mut rest = about;
    let mut rights = Vec::new();
    for part in parts {
        let (before, after) = rest.split_once(part).unwrap();
        rights.push(before);
        rest = after;
    }
    rights.push(rest);
    let words = |text: &str| {
        let trimmed = |word: &str| word.trim_end_matches([',', '.', ';']).to_owned();
        text.split_whitespace().filter(|word| word.starts_with('+')).map(trimmed).collect::<Vec<_>>()
    };
    let rights: Vec<Vec<String>> = rights.into_iter().map(words).collect();
    assert!(rights.iter().all(|rights| !rights.is_empty()), "{rights:?}");
    rights.try_into().unwrap()
}

/// Makes the user who may do this and nothing else.
fn admit(server: &RedisServer, rights: &[&[String]]) {
    let password = format!(">{PASSWORD}");
    let base = ["ACL", "SETUSER", "portcullis", "reset", "on", &password, "~{portcullis}:*", "~portcullis:*"];
    let rights = rights.iter().flat_map(|rights| rights.iter().map(String::as_str));
    assert_eq!(server.cli(&base.into_iter().chain(rights).collect::<Vec<_>>()), "OK");
}

/// `--set` values to be that user.
fn login(folder: &Folder, password: &str) -> [String; 2] {
    let file = folder.write("password", password);
    ["revocation.redis.user=portcullis".to_owned(), format!("revocation.redis.password={{ file = \"{file}\" }}")]
}

#[tokio::test]
async fn a_user_who_may_do_what_the_reference_says_is_enough_and_less_is_not() {
    let [always, _, _, database] = rights();
    let folder = Folder::new("acl");
    let store = RedisServer::start("acl", &[]).await;
    let ask = "revocation.consistency=ask".to_owned();
    let set = [&[store.set(), ask][..], &login(&folder, PASSWORD)].concat();
    admit(&store, &[&always]);
    assert_shared(&set).await;
    let seventh = [&[format!("revocation.redis.url={}/7", store.url())][..], &login(&folder, PASSWORD)].concat();
    assert_kept_out(&seventh, "select").await;
    admit(&store, &[&always, &database]);
    assert_shared(&seventh).await;
    // Claims of signed messages are let go of with it, and no token's end needs it.
    let needed = always.iter().filter(|right| *right != "+del");
    for lacking in needed {
        let fewer: Vec<String> = always.iter().filter(|right| *right != lacking).cloned().collect();
        admit(&store, &[&fewer]);
        let world = world(&set).await;
        // It ends no token, or checks none: nothing seems to work that does not.
        let statuses = [world.send(&terminate("t")).await.status, world.send(&debit("t")).await.status];
        let away = world.metric("portcullis_revocation_store_away").await;
        assert!(statuses.contains(&503) || statuses.contains(&502) || away == 1.0, "without {lacking}: {statuses:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_never_shown() {
    let folder = Folder::new("acl-wrong");
    let store = RedisServer::start("acl-wrong", &[]).await;
    admit(&store, &[&rights()[0]]);
    let set = [&[store.set()][..], &login(&folder, "canary-wrong-password")].concat();
    assert_kept_out(&set, "Password authentication failed").await;
    store.cli(&["ACL", "SETUSER", "default", "off"]);
    assert_kept_out(&[store.set()], "NOAUTH").await;
}

#[tokio::test]
async fn the_user_gets_on_behind_sentinels_and_in_a_cluster_too() {
    let [always, sentinels, cluster, _] = rights();
    let folder = Folder::new("acl-topologies");
    let login = login(&folder, PASSWORD);
    let watched = async {
        let store = Watched::start("acl-sentinel", 0, &[]).await;
        let set = [&store.set()[..], &login].concat();
        admit(&store.servers[0], &[&always]);
        assert_kept_out(&set, "role").await;
        admit(&store.servers[0], &[&always, &sentinels]);
        assert_shared(&set).await;
    };
    let (store, ()) = tokio::join!(Cluster::start("acl-cluster", &[]), watched);
    let set = [&store.set()[..], &login].concat();
    for node in &store.nodes {
        admit(node, &[&always, &cluster]);
    }
    let one = world(&set).await;
    ready(&one).await;
    let mut tokens = end_all(&one, "before", 2).await;
    store.move_log_halfway();
    tokens.extend(end_all(&one, "halfway", 5).await);
    settled(&[&one]).await;
    let other = world(&set).await;
    ready(&other).await;
    assert_dead(&[&one, &other], &tokens).await;
    for lacking in &cluster {
        for node in &store.nodes {
            let fewer: Vec<String> = cluster.iter().filter(|right| *right != lacking).cloned().collect();
            admit(node, &[&always, &fewer]);
        }
        let world = world(&set).await;
        assert_eq!(world.send(&debit("t")).await.status, 503, "without {lacking}");
    }
}
