//! `portcullis doctor`, by the real binary: what is wrong around it, and that it finds out without doing harm.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use portcullis::footprint;
use serde_json::Value;

use crate::binary::{Running, portcullis};
use crate::certificates::{Authority, client};
use crate::leaks::spellings;
use crate::redis_server::RedisServer;
use crate::world::{Connection, Folder, Pam, answer, betstack, operator, root, valkyrie, wallet};

/// What it found: its exit code, and what it printed.
struct Examined {
    code: i32,
    text: String,
}

impl Examined {
    /// The lines of an examination, with its mark: `✗ clock`.
    fn has(&self, mark_and_name: &str) -> bool {
        self.text.lines().any(|line| line.split_whitespace().take(2).eq(mark_and_name.split(' ')))
    }
}

/// Off the threads on which the PAM of a test answers.
async fn examine(arguments: &[&str]) -> Examined {
    let mut command = portcullis();
    command.arg("doctor").args(arguments);
    run(command).await
}

async fn run(mut command: Command) -> Examined {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    Examined { code: output.status.code().unwrap(), text: String::from_utf8(output.stdout).unwrap() }
}

/// A machine that a container sees: `/proc` and `/sys` below a folder.
fn machine(folder: &Folder, files: &[(&str, &str)]) -> String {
    let base = folder.path().join("machine");
    let usual = [("proc/self/mountinfo", "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n"), ("proc/self/cgroup", "0::/\n")];
    for (path, text) in usual.iter().chain(files) {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    base.display().to_string()
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn dated(at: SystemTime) -> Vec<u8> {
    format!("HTTP/1.1 204 X\r\nDate: {}\r\n\r\n", httpdate::fmt_http_date(at)).into_bytes()
}

/// A PAM at any address, which answers whatever comes.
fn pam_at(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut read = [0; 1024];
            if stream.read(&mut read).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(&dated(SystemTime::now()));
            }
        }
    });
    address
}

#[tokio::test]
async fn all_is_well_and_the_pam_is_asked_one_harmless_thing() {
    let pam = Pam::start().await;
    pam.answer_with(|_| dated(SystemTime::now()));
    let upstream = pam.address.to_string();
    let folder = Folder::new("doctor-well");
    let config = with_usual_mode(&folder, "betstack.toml");
    let running = Running::start(&config, &upstream, &[]);
    let arguments = ["--config", &config, "--upstream", &upstream, "--admin", &running.admin];
    let examined = examine(&arguments).await;
    for sound in ["✓ pam", "✓ bypass", "✓ admin", "✓ clock", "✓ mounts", "✓ modes", "✓ running"] {
        assert!(examined.has(sound), "{sound}\n{}", examined.text);
    }
    assert!(examined.text.contains("\nnothing is wrong"), "{}", examined.text);
    assert_eq!(examined.code, 0);
    let seen = pam.only_request();
    assert_eq!((&*seen.method, &*seen.target), ("OPTIONS", "*"));
    assert!(seen.values("authorization").is_empty() && seen.body.is_empty(), "{}", seen.head);
    assert!(!examined.text.contains('\x1b'));
}

#[tokio::test]
async fn a_pam_that_listens_at_every_address_can_be_gone_around() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let port = pam_at(address).port();
        let upstream = format!("127.0.0.1:{port}");
        let examined = examine(&["--config", "config/betstack.toml", "--upstream", &upstream]).await;
        assert!(examined.has("✓ pam") && examined.has("✗ bypass"), "{}", examined.text);
        assert!(examined.text.contains("let the PAM listen at 127.0.0.1"), "{}", examined.text);
        assert_eq!(examined.code, 1);
    }
}

#[tokio::test]
async fn a_pam_that_is_away_is_wrong_and_the_rest_is_examined_all_the_same() {
    let examined = examine(&["--config", "config/betstack.toml", "--upstream", "127.0.0.1:1"]).await;
    assert!(examined.has("✗ pam") && examined.has("? bypass") && examined.has("✓ mounts"), "{}", examined.text);
    assert_eq!(examined.code, 1);
}

#[tokio::test]
async fn a_pam_under_tls_is_reached_by_its_authority_and_is_wrong_under_another() {
    let folder = Folder::new("doctor-pam-tls");
    let authority = Authority::new("doctor-pam");
    let pam = Pam::over_tls(authority.issue(&["127.0.0.1"]).server(None)).await;
    pam.answer_with(|_| dated(SystemTime::now()));
    let right = folder.write("right.pem", &authority.pem);
    let wrong = folder.write("wrong.pem", &Authority::new("stranger").pem);
    for (ca, mark) in [(right, "✓ pam"), (wrong, "✗ pam")] {
        let set = format!("upstream_tls.ca={ca}");
        let upstream = pam.address.to_string();
        let examined = examine(&["--config", "config/wallet.toml", "--upstream", &upstream, "--set", &set]).await;
        assert!(examined.has(mark) && examined.has("✓ expiry"), "{}", examined.text);
    }
    pam.only_request();
}

#[tokio::test]
async fn a_pam_that_speaks_http2_is_asked_the_same() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The connections that try the pod's addresses say nothing.
            let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                told.send((request.method().clone(), request.uri().path().to_owned())).unwrap();
                let answer = http::Response::builder().status(204).body(()).unwrap();
                respond.send_response(answer, true).unwrap();
            }
        }
    });
    let set = ["--set", "upstream_protocol=http2"];
    let examined = examine(&[&["--config", "config/wallet.toml", "--upstream", &upstream], &set[..]].concat()).await;
    assert!(examined.has("✓ pam"), "{}", examined.text);
    assert_eq!(asked.recv().await.unwrap(), (http::Method::OPTIONS, "*".to_owned()));
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn a_clock_that_is_ten_minutes_off_is_wrong_where_callers_sign_the_time() {
    let pam = Pam::start().await;
    let upstream = pam.address.to_string();
    let ten = Duration::from_secs(600);
    let now = SystemTime::now();
    for (at, word) in [(now + ten, "ahead of"), (now - ten, "behind")] {
        pam.answer_with(move |_| dated(at));
        let examined = examine(&["--config", "config/betstack.toml", "--upstream", &upstream]).await;
        assert!(examined.has("✗ clock") && examined.text.contains(word), "{}", examined.text);
        assert_eq!(examined.code, 1);
        let examined = examine(&["--config", "config/wallet.toml", "--upstream", &upstream]).await;
        assert!(examined.has("? clock"), "{}", examined.text);
    }
    pam.answer_with(|_| answer(404, "{}"));
    let examined = examine(&["--config", "config/betstack.toml", "--upstream", &upstream]).await;
    assert!(examined.has("✓ pam") && examined.has("? clock"), "{}", examined.text);
}

/// A config of the repository, with the mode that it has in a container whatever it was checked out with.
fn with_usual_mode(folder: &Folder, name: &str) -> String {
    let text = std::fs::read_to_string(root().join("config").join(name)).unwrap();
    let config = folder.write(name, &text);
    chmod(Path::new(&config), 0o644);
    config
}

/// A config whose secret is a file, mounted as Kubernetes does: a link through `..data`, which is a link itself.
fn with_a_secret_file(folder: &Folder, mode: u32) -> String {
    std::fs::create_dir_all(folder.path().join("secret/..now")).unwrap();
    let secret = folder.path().join("secret/..now/key");
    std::fs::write(&secret, betstack::SECRET).unwrap();
    chmod(&secret, mode);
    symlink("..now", folder.path().join("secret/..data")).unwrap();
    symlink("..data/key", folder.path().join("secret/key")).unwrap();
    let text = std::fs::read_to_string(root().join("config/betstack.toml")).unwrap();
    let text = text.replace("{ env = \"BETSTACK_SECRET\" }", "{ file = \"secret/key\" }");
    assert!(text.contains("secret/key"));
    let config = folder.write("betstack.toml", &text);
    chmod(Path::new(&config), 0o644);
    config
}

#[tokio::test]
async fn a_secret_that_everybody_may_read_is_wrong_and_is_not_printed() {
    for (mode, mark) in [(0o644, "✗ modes"), (0o400, "✓ modes"), (0o440, "✓ modes"), (0o620, "✗ modes")] {
        let folder = Folder::new(&format!("doctor-modes-{mode:o}"));
        let config = with_a_secret_file(&folder, mode);
        let examined = examine(&["--config", &config]).await;
        assert!(examined.has(mark), "{mode:o}\n{}", examined.text);
        assert!(!examined.text.contains(betstack::SECRET), "{}", examined.text);
    }
}

#[tokio::test]
async fn a_file_that_is_mounted_by_itself_is_wrong() {
    let folder = Folder::new("doctor-mounts");
    let config = with_a_secret_file(&folder, 0o400);
    let key = folder.path().join("secret/key").display().to_string();
    for (point, mark) in [(&*key, "✗ mounts"), (folder.path().to_str().unwrap(), "✓ mounts")] {
        let mounts = format!("911 897 254:1 /volume-subpaths/secret/0 {point} ro - ext4 /dev/vda1 rw\n");
        let root = machine(&folder, &[("proc/self/mountinfo", &mounts)]);
        let examined = examine(&["--config", &config, "--root", &root]).await;
        assert!(examined.has(mark), "{point}\n{}", examined.text);
        assert_eq!(examined.text.contains(&format!("{key} is mounted by itself")), mark == "✗ mounts");
    }
}

#[tokio::test]
async fn a_config_that_may_grow_beyond_the_memory_limit_is_wrong() {
    let folder = Folder::new("doctor-memory");
    let few = ["--set", "limits.connections=500", "--set", "limits.in_flight=64"];
    for (limit, set, mark) in [
        ("268435456", &[][..], "✗ memory"),
        ("268435456", &few[..], "✓ memory"),
        ("1073741824", &[], "? memory"),
        ("8589934592", &[], "✓ memory"),
        ("max", &[], "? memory"),
    ] {
        let root = machine(&folder, &[("sys/fs/cgroup/memory.max", limit), ("sys/fs/cgroup/cpu.max", "max 100000")]);
        let arguments = [&["--config", "config/wallet.toml", "--root", &root], set].concat();
        let examined = examine(&arguments).await;
        assert!(examined.has(mark), "{limit}\n{}", examined.text);
    }
}

#[tokio::test]
async fn the_journal_of_one_that_runs_is_examined_and_left_alone() {
    let folder = Folder::new("doctor-journal");
    let config = with_usual_mode(&folder, "wallet.toml");
    let journal = folder.path().join("journal");
    let set = format!("revocation.journal={}", journal.display());
    let pam = Pam::start().await;
    pam.answer_with(|_| answer(200, r#"{"status":true}"#));
    let upstream = pam.address.to_string();
    let running = Running::start(&config, &upstream, &["--set", &set]);
    let listed = || {
        let entries = std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let before = listed();
    let empty =
        format!("5 1 254:1 /pods/1/volumes/kubernetes.io~empty-dir/j {} rw - ext4 /dev/vda1 rw\n", journal.display());
    let usual = "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n";
    for (mounts, mark) in [(usual.to_owned(), "✓ journal"), (format!("{usual}{empty}"), "? journal")] {
        let root = machine(&folder, &[("proc/self/mountinfo", &mounts)]);
        let arguments = ["--config", &config, "--upstream", &upstream, "--set", &set];
        let examined = examine(&[&arguments[..], &["--admin", &running.admin, "--root", &root]].concat()).await;
        assert!(examined.has(mark) && examined.has("✓ modes") && examined.has("✓ running"), "{}", examined.text);
    }
    assert_eq!(listed(), before);
    assert_eq!(running.send(&wallet::signed("terminate", &wallet::body("t"))).await, 200);
    assert_eq!(running.send(&wallet::signed("debit", &wallet::body("t"))).await, 401);
    chmod(&journal.join("digest.key"), 0o644);
    let arguments = ["--config", &config, "--upstream", &upstream, "--set", &set];
    let examined = examine(&arguments).await;
    assert!(examined.has("✗ modes") && examined.text.contains("digest.key"), "{}", examined.text);
}

#[tokio::test]
async fn a_config_that_the_one_that_runs_refused_is_wrong() {
    let folder = Folder::new("doctor-running");
    let text = std::fs::read_to_string(root().join("config/wallet.toml")).unwrap();
    let config = folder.write("wallet.toml", &text);
    let pam = Pam::start().await;
    let upstream = pam.address.to_string();
    let mut running = Running::start(&config, &upstream, &[]);
    // What cannot change while it runs.
    folder.write("wallet.toml", &format!("threads = 3\n{text}"));
    running.event("config_rejected");
    let examined = examine(&["--config", &config, "--upstream", &upstream, "--admin", &running.admin]).await;
    assert!(examined.has("✗ running") && examined.text.contains("`threads` cannot change"), "{}", examined.text);
    assert_eq!(examined.code, 1);
}

#[tokio::test]
async fn a_store_that_evicts_or_is_away_is_wrong() {
    let mut keeps = RedisServer::start("doctor-keeps", &["--requirepass", "canary-store-password"]).await;
    let evicts = RedisServer::start("doctor-evicts", &["--maxmemory-policy", "allkeys-lru"]).await;
    let password = ["--set", "revocation.redis.password={ env = \"STORE_PASSWORD\" }"];
    let examined = async |server: &RedisServer, more: &[&str]| {
        let mut command = portcullis();
        command.env("STORE_PASSWORD", "canary-store-password");
        command.args(["doctor", "--config", "config/betstack.toml", "--set", &server.set()]).args(more);
        let examined = run(command).await;
        assert!(!examined.text.contains("canary-store"), "{}", examined.text);
        examined
    };
    let found = examined(&keeps, &password).await;
    assert!(found.has("✓ store") && found.text.contains("the store's clock shows the same"), "{}", found.text);
    let found = examined(&keeps, &[]).await;
    assert!(found.has("✗ store"), "{}", found.text);
    let found = examined(&evicts, &[]).await;
    assert!(found.has("✗ store") && found.text.contains("allkeys-lru"), "{}", found.text);
    keeps.kill();
    let found = examined(&keeps, &password).await;
    assert!(found.has("✗ store"), "{}", found.text);
}

#[tokio::test]
async fn neither_form_has_a_secret_in_it_and_json_says_the_same() {
    let pam = Pam::start().await;
    pam.answer_with(|_| dated(SystemTime::now()));
    let secrets = [wallet::PASSWORD, wallet::KEY, valkyrie::KEY, valkyrie::PASSWORD, betstack::SECRET, operator::TOKEN];
    // What differs between them, and not what every one begins with.
    let secrets = secrets.map(|secret| secret.strip_prefix("canary-").unwrap());
    for config in ["config/wallet.toml", "config/valkyrie.toml", "config/betstack.toml"] {
        let arguments = ["--config", config, "--upstream", &pam.address.to_string(), "--set", operator::SET];
        let (text, json) = (examine(&arguments).await, examine(&[&arguments[..], &["--json"]].concat()).await);
        for secret in secrets.iter().chain(&["canary"]) {
            assert!(!text.text.contains(secret) && !json.text.contains(secret), "{}", text.text);
        }
        for spelling in spellings(&["canary-"], &[]) {
            assert!(!text.text.contains(&spelling) && !json.text.contains(&spelling), "{spelling}");
        }
        let found: Value = serde_json::from_str(&json.text).unwrap();
        assert_eq!(found["sound"], text.code == 0);
        assert_eq!(text.code, json.code);
        let marks = [("sound", "✓"), ("wrong", "✗"), ("unknown", "?")];
        for finding in found["findings"].as_array().unwrap() {
            let (_, mark) = marks.iter().find(|(verdict, _)| finding["verdict"] == *verdict).unwrap();
            let name = finding["examination"].as_str().unwrap();
            assert!(text.has(&format!("{mark} {name}")), "{finding}\n{}", text.text);
        }
    }
}

/// What differs from machine to machine is put as the guide has it.
#[tokio::test]
async fn what_the_guide_shows_is_what_it_says() {
    let guide = std::fs::read_to_string(root().join("config/guide/doctor.md")).unwrap();
    let shown = guide.split_once("\n```text\n").unwrap().1.split_once("\n```\n").unwrap().0.to_owned();
    let folder = Folder::new("doctor-guide");
    let config = with_a_secret_file(&folder, 0o644);
    let volume = folder.path().join("volume").display().to_string();
    let journal = format!("{volume}/journal");
    let pam = Pam::start().await;
    pam.answer_with(|_| dated(SystemTime::now()));
    let upstream = pam.address.to_string();
    let set = format!("revocation.journal={journal}");
    let running = Running::start_at(&config, &upstream, &["--admin", "0.0.0.0:0", "--set", &set, "--set", "threads=2"]);
    let mounts = format!("5 1 254:1 /pods/1/volumes/kubernetes.io~empty-dir/j {volume} rw - ext4 /dev/vda1 rw\n");
    let machine = machine(&folder, &[("proc/self/mountinfo", &mounts), ("sys/fs/cgroup/memory.max", "268435456\n")]);
    // Listeners are those of the real machine.
    symlink("/proc/net", folder.path().join("machine/proc/net")).unwrap();
    let bare = portcullis();
    let mut command = Command::new("prlimit");
    command.current_dir(root()).env_clear();
    command.envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["--nofile=16384:16384", env!("CARGO_BIN_EXE_portcullis"), "doctor", "--config", &config]);
    command.args(["--upstream", &upstream, "--admin", &running.admin, "--set", &set, "--set", "threads=2"]);
    command.args(["--root", &machine]);
    let text = run(command).await.text;
    let admin = running.admin.rsplit_once(':').unwrap().1;
    let text = text.replace(&upstream, "127.0.0.1:9000").replace(&format!("0.0.0.0:{admin}"), "0.0.0.0:9901");
    let text = text.replace(&volume, "/var/lib/portcullis").replace(folder.path().to_str().unwrap(), "/etc/portcullis");
    let put = |line: &str, from: &str, to: &str, instead: &str| {
        let (before, behind) = line.split_once(from).unwrap();
        let (_, behind) = behind.split_once(to).unwrap_or_default();
        format!("{before}{instead}{behind}")
    };
    let lines = text.lines().map(|line| match line.split_whitespace().nth(1) {
        Some("bypass") => put(line, " alone", "\n", " alone, and not at 10.1.2.3"),
        Some("admin") => put(line, " (", ")", " (10.1.2.3)"),
        Some("journal") => put(line, ", with ", " free", ", with 18 GiB free"),
        Some(_) | None => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(text, shown, "\n{text}");
}

// ---- what the arithmetic of memory rests on ----

#[tokio::test]
async fn the_program_itself_takes_no_more_than_it_is_counted_with() {
    let pam = Pam::start().await;
    let running = Running::start("config/wallet.toml", &pam.address.to_string(), &[]);
    for number in 0..50 {
        assert_eq!(running.send(&wallet::signed("debit", &wallet::body(&format!("t-{number}")))).await, 200);
    }
    let taken = running.resident() as u64 * 1024;
    assert!(taken <= footprint::PROGRAM, "{taken} bytes");
}

#[tokio::test]
async fn a_connection_under_tls_takes_no_more_than_it_is_counted_with() {
    const MANY: usize = 300;
    let folder = Folder::new("doctor-tls");
    let authority = Authority::new("doctor");
    let issued = authority.issue(&["127.0.0.1"]);
    let (certificate, key) = (folder.write("tls.pem", &issued.certificate), folder.write("tls.key", &issued.key));
    let set = [format!("tls.certificate={certificate}"), format!("tls.key={key}")];
    let pam = Pam::start().await;
    let running =
        Running::start("config/valkyrie.toml", &pam.address.to_string(), &["--set", &set[0], "--set", &set[1]]);
    let connector = tokio_rustls::TlsConnector::from(client(
        &authority,
        None,
        &["http/1.1"],
        &[&tokio_rustls::rustls::version::TLS13],
    ));
    let call = valkyrie::call("GET", "/players/session?provider=x");
    let mut idle = Vec::new();
    let mut before = 0;
    for count in 0..MANY + 50 {
        let tcp = tokio::net::TcpStream::connect(&running.listen).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let mut caller = Connection::over(connector.connect(name, tcp).await.unwrap());
        if count % 4 == 0 {
            assert_eq!(caller.send(&call).await.status, 200);
        }
        idle.push(caller);
        if count == 49 {
            before = running.resident();
        }
    }
    let each = running.resident().saturating_sub(before) * 1024 / MANY;
    assert!(each as u64 <= footprint::CONNECTION, "{each} bytes each");
}

#[tokio::test]
async fn a_signed_message_takes_no_more_than_it_is_counted_with() {
    const MANY: usize = 12_000;
    let pam = Pam::start().await;
    let set = ["--set", "log.sample=0.0001%", "--set", "limits.requests_per_connection=100000"];
    let mut running = Running::start("config/betstack.toml", &pam.address.to_string(), &set);
    let log = running.silence();
    let mut caller = Connection::to(running.listen.parse().unwrap()).await;
    let call = |number: usize| {
        let body = betstack::body("ticket_win", &format!(r#","ticket_id":"{number}""#));
        betstack::signed(&body)
    };
    let mut before = 0;
    for number in 0..MANY + 500 {
        assert_eq!(caller.send(&call(number)).await.status, 200);
        if number == 499 {
            before = running.resident();
        }
    }
    let taken = running.resident().saturating_sub(before) * 1024;
    // Each a place in a table that is half full; and the kernel may give memory in pieces of 2 MiB.
    assert!(taken <= MANY * 2 * 41 + (2 << 20), "{taken} bytes");
    running.kill();
    log.join().unwrap();
}
