//! The page for people, as a browser shows it: a real Chromium opens it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use crate::redis_server::RedisServer;
use crate::world::{Folder, PATIENCE, Pam, Reply, Request, World, answer, betstack, load, root, valkyrie, wallet};

/// A browser starts slowly where much else runs.
const BROWSING: Duration = Duration::from_secs(90);

/// What a browser made of a page.
struct Shown {
    /// The document as it stands when everything is loaded.
    dom: String,
    /// What the console says.
    console: Vec<String>,
    /// What pages asked for, beside themselves.
    asked: Vec<String>,
}

/// A screenshot.
struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn ground(&self) -> [u8; 3] {
        self.pixels[2 * self.width + 2]
    }

    /// Pixels that are not the ground's.
    fn drawn(&self) -> usize {
        self.pixels.iter().filter(|pixel| **pixel != self.ground()).count()
    }

    /// Whether something stands in the margin on the right.
    fn is_wider_than_the_window(&self) -> bool {
        self.pixels.chunks(self.width).any(|row| row[self.width - 12..].iter().any(|pixel| *pixel != self.ground()))
    }
}

/// Runs Chromium with a profile of its own, which talks to nobody but this machine.
async fn chromium(folder: &Folder, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "80", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]);
    command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--hide-scrollbars"]);
    command.args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--log-level=0"]);
    command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
    command.env("HOME", folder.path()).args(arguments);
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = timeout(BROWSING, running).await.expect("the browser hangs").unwrap();
    let output = output.expect("chromium is needed, as .ci/test installs it");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{err}");
    (out, err)
}

async fn open(url: &str) -> Shown {
    let folder = Folder::new(&format!("page-{}", unique()));
    let net_log = folder.path().join("net.json");
    let log = format!("--log-net-log={}", net_log.display());
    let (dom, err) = chromium(&folder, &["--dump-dom", &log, url]).await;
    let console = err.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    let net_log = std::fs::read_to_string(net_log).unwrap();
    // Each request stands there with whose page asked for it; nobody's did for what the browser wants for itself.
    let events = net_log.lines().filter(|line| line.contains("\"initiator\":\"") && !line.contains("not an origin"));
    Shown { dom, console, asked: events.map(str::to_owned).collect() }
}

async fn picture(url: &str, width: usize, dark: bool) -> Picture {
    let folder = Folder::new(&format!("page-{}", unique()));
    let file: PathBuf = folder.path().join("page.png");
    // 0 is dark, 1 is light.
    let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
    let (size, screenshot) = (format!("--window-size={width},3000"), format!("--screenshot={}", file.display()));
    chromium(&folder, &[&scheme, &size, &screenshot, url]).await;
    let mut decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(file).unwrap()));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut bytes).unwrap();
    let pixels = bytes[..frame.buffer_size()].chunks(frame.color_type.samples()).map(|one| [one[0], one[1], one[2]]);
    Picture { width: frame.width as usize, pixels: pixels.collect() }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn url(world: &World) -> String {
    format!("http://{}/?pause", world.admin)
}

/// The page, once all that was sent has been counted.
async fn page(world: &World) -> Reply {
    world.until("portcullis_requests_in_flight", 0.0).await;
    let reply = world.admin("/").await;
    assert_eq!(reply.status, 200);
    reply
}

/// A wallet's world in which most went well, and some did not.
async fn mixed() -> World {
    let world = World::wallet().await;
    let body = wallet::body("canary-token-of-a-session");
    for _ in 0..7 {
        assert_eq!(world.send(&wallet::signed("debit", &body)).await.status, 200);
    }
    let wrong = wallet::signed("credit", &body).replacing("X-Request-Signature", &"0".repeat(64));
    for _ in 0..2 {
        assert_eq!(world.send(&wrong.clone().with("X-Correlation-ID", "id-&lt;b&gt;-7")).await.status, 401);
    }
    assert_eq!(world.send(&wallet::signed("debit", &body).without("Authorization")).await.status, 401);
    world.pam.answer_with(|_| answer(503, "{}"));
    assert_eq!(world.send(&wallet::signed("balance", &body)).await.status, 503);
    world.pam.answer_with(|_| b"nonsense\r\n\r\n".to_vec());
    assert_eq!(world.send(&wallet::signed("balance", &body)).await.status, 502);
    world.until("portcullis_requests_in_flight", 0.0).await;
    world
}

#[tokio::test]
async fn a_browser_shows_what_was_admitted_and_refused() {
    let world = mixed().await;
    let Shown { dom, console, asked } = open(&url(&world)).await;
    let has = |text: &str| assert!(dom.contains(text), "{text}\n{dom}");
    has("<p class=\"verdict bad\">PAM answers fail: 22 % of those in the last minute, most with malformed.</p>");
    has("25 % of the calls in the last minute were refused, most for signature_wrong by fantasy-goal.");
    has("<title>Portcullis</title>");
    for row in [
        vec!["admitted: forwarded and answered", "7", "58 %", "7", "58 %"],
        vec!["refused: not forwarded", "3", "25 %", "3", "25 %"],
        vec!["failed: forwarded, and answered with 5xx or not at all", "2", "16 %", "2", "16 %"],
        vec!["fantasy-goal", "7", "2", "2", "11"],
        vec!["none", "0", "1", "0", "1"],
        vec!["debit", "7", "1", "0", "8"],
        vec!["signature_wrong", "2", "2"],
        vec!["credential_missing", "1", "1"],
        vec!["malformed", "1", "1"],
        vec!["pam_5xx", "1", "1"],
    ] {
        let cells: String = row[1..].iter().map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
        has(&format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", row[0]));
    }
    has(
        "<td>fantasy-goal</td><td>credit</td><td>signature_wrong</td><td>id-&amp;lt;b&amp;gt;-7</td><td class=\"n\">401</td>",
    );
    has("last answer");
    has(": malformed; 0 of 1024 calls are with it");
    has("Every check is enforced.");
    has("<tr><th scope=\"row\">fantasy-goal</th><td>2026-11</td><td>");
    has("<svg viewBox=");
    assert_eq!((console, asked), (Vec::<String>::new(), Vec::new()));
    for secret in ["canary", wallet::KEY, wallet::PASSWORD] {
        assert!(!dom.contains(secret), "{secret}");
    }
}

/// What the test above relies on.
#[tokio::test]
async fn the_console_tells_of_what_a_policy_stops_and_the_log_of_what_a_page_asks_for() {
    let folder = Folder::new("page-control");
    let policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'\">";
    let image = "<img src=\"http://127.0.0.1:1/x.png\">";
    let stopped = folder.write("stopped.html", &format!("<!DOCTYPE html><head>{policy}</head><body>{image}"));
    let shown = open(&format!("file://{stopped}")).await;
    assert!(shown.console.iter().any(|line| line.contains("x.png")), "{:?}", shown.console);
    assert_eq!(shown.asked, Vec::<String>::new());
    let pam = Pam::start().await;
    let body = format!("<!DOCTYPE html><body>{image}");
    let length = body.len();
    let page = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{body}");
    pam.answer_with(move |_| page.clone().into_bytes());
    let shown = open(&format!("http://{}/", pam.address)).await;
    assert!(shown.asked.iter().any(|line| line.contains("x.png")), "{:?}", shown.asked);
}

#[tokio::test]
async fn it_is_light_or_dark_as_people_like_and_fits_a_phone() {
    let world = mixed().await;
    let light = picture(&url(&world), 1280, false).await;
    let dark = picture(&url(&world), 1280, true).await;
    let phone = picture(&url(&world), 500, false).await;
    assert_eq!((light.ground(), dark.ground(), phone.ground()), ([255; 3], [0x0d, 0x11, 0x17], [255; 3]));
    for shown in [light, dark, phone] {
        assert!(shown.drawn() > 50_000, "{}", shown.drawn());
        assert!(!shown.is_wider_than_the_window());
    }
}

// threat: F7
#[tokio::test]
async fn names_that_are_markup_are_shown_as_they_are() {
    let name = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' &amp;";
    let folder = Folder::new("page-names");
    let caller = format!("[[caller]]\nname = '''{name}'''\nbearer = {{ env = \"PAM_API_TOKEN\" }}\n");
    let world = World::of(&folder.config("\"valkyrie\"", &caller, &[]), &[]).await;
    let call = valkyrie::call("GET", "/players/session?provider=x").with("X-Correlation-ID", "&lt;script&gt;");
    world.send(&call).await;
    world.send(&call.clone().replacing("X-Player-Token", "x")).await;
    world.send(&Request::new("GET", "/%3Cscript%3E")).await;
    let shown = open(&url(&world)).await;
    assert_eq!(shown.console, Vec::<String>::new());
    let cut = "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x oner…";
    assert!(shown.dom.contains(&format!("<th scope=\"row\">{cut}</th>")), "{}", shown.dom);
    assert!(shown.dom.contains("<td>&amp;lt;script&amp;gt;</td>"), "{}", shown.dom);
    for tag in ["<script", "<img"] {
        assert!(!shown.dom.contains(tag), "{tag} {}", shown.dom);
    }
}

#[tokio::test]
async fn its_fields_let_a_browser_do_nothing_else() {
    let world = World::wallet().await;
    let reply = page(&world).await;
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(reply.values(name), [value], "{name}");
    }
    let [policy] = reply.values("content-security-policy")[..] else { panic!("no policy") };
    let style = reply.text().split_once("<style>").unwrap().1.split_once("</style>").unwrap().0.to_owned();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(style);
    let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash);
    let expected = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    assert_eq!(policy, expected);
    for never in ["<script", "style=\"", "http://", "https://", "src=", "url(", "@import", "<form", "<input"] {
        assert!(!reply.text().contains(never), "{never}");
    }
}

#[tokio::test]
async fn it_asks_for_itself_again_unless_it_is_paused() {
    let world = World::wallet().await;
    let refresh = "<meta http-equiv=\"refresh\" content=\"10\">";
    let running = page(&world).await.text();
    assert!(running.contains(refresh) && running.contains("<a href=\"/?pause\">"), "{running}");
    let paused = world.admin("/?pause").await.text();
    assert!(!paused.contains(refresh) && paused.contains("<a href=\"/\">"), "{paused}");
}

// threat: F7
#[tokio::test]
async fn a_thousand_callers_are_a_page_of_bounded_size() {
    let folder = Folder::new("page-thousand");
    let mut callers = String::new();
    for at in 0..1000 {
        folder.write(&format!("key-{at}"), &format!("canary-of-a-thousand-{at:04}"));
        callers.push_str(&format!(
            "[[caller]]\nname = \"caller-{at:04}-{}\"\nbearer = {{ file = \"key-{at}\" }}\n",
            "<".repeat(60)
        ));
    }
    let world = World::of(&folder.config("\"valkyrie\"", &callers, &[]), &[]).await;
    let mut connection = world.connect().await;
    for at in 0..1000 {
        let key = format!("Bearer canary-of-a-thousand-{at:04}");
        let call = valkyrie::call("GET", "/players/session?provider=x").replacing("Authorization", &key);
        let call = if at % 2 == 0 { call } else { call.without("X-Player-Token") };
        let reply = connection.send(&call).await;
        assert_eq!(reply.status == 200, at % 2 == 0, "{at}");
        if reply.values("connection") == ["close"] {
            connection = world.connect().await;
        }
    }
    let text = page(&world).await.text();
    assert!(text.len() <= 256 << 10, "{}", text.len());
    assert!(text.contains("<th scope=\"row\">(960 more)</th>"), "{text}");
    assert!(text.contains("50 % of the calls in the last minute were refused, most for token_missing by caller-"));
    assert!(text.contains("<th scope=\"row\">token_missing</th><td class=\"n\">500</td>"), "{text}");
    assert!(text.contains("Callers in the config: 1000."), "{text}");
    assert!(!text.contains("canary"));
}

#[tokio::test]
async fn its_first_sentence_follows_what_happens() {
    let world = World::betstack().await;
    let verdict = async |world: &World| {
        let text = page(world).await.text();
        text.split_once("<p class=\"verdict ").unwrap().1.split_once("</p>").unwrap().0.to_owned()
    };
    assert_eq!(verdict(&world).await, "good\">All is well; nobody has called in the last hour.");
    let call = betstack::signed(&betstack::body("identify", r#","token":"t""#));
    assert_eq!(world.send(&call).await.status, 200);
    assert_eq!(verdict(&world).await, "good\">All is well.");
    let complaints = load("tests/invalid/missing-secret-file.toml", "127.0.0.1:1", &[]).unwrap_err();
    world.portcullis.generation().reject(complaints.clone().into());
    let text = verdict(&world).await;
    assert!(text.starts_with("doubtful\">The config on disk is refused; the one of 20"), "{text}");
    let text = page(&world).await.text();
    assert!(text.contains("cannot read no/such/secret: No such file or directory"), "{text}");
    world.portcullis.generation().reject([].into());
    world.ready.send_replace(false);
    assert!(verdict(&world).await.starts_with("bad\">Portcullis is not ready"));
    world.ready.send_replace(true);
    assert_eq!(verdict(&world).await, "good\">All is well.");

    let mut pam = Pam::start().await;
    // Nobody listens there.
    pam.address = "127.0.0.1:1".parse().unwrap();
    let world = World::with_pam("config/betstack.toml", &[], pam).await;
    assert_eq!(world.send(&call).await.status, 503);
    let expected = "bad\">PAM answers fail: 100 % of those in the last minute, most with connect.";
    assert_eq!(verdict(&world).await, expected);
}

#[tokio::test]
async fn a_store_that_is_away_is_told_first() {
    let redis = RedisServer::start("page", &[]).await;
    let world = World::of("config/valkyrie.toml", &[&redis.set()]).await;
    timeout(PATIENCE, world.portcullis.ready()).await.unwrap();
    redis.signal("STOP");
    world.until("portcullis_revocation_store_away", 1.0).await;
    let text = page(&world).await.text();
    assert!(text.contains("<p class=\"verdict bad\">The store that replicas share is away"), "{text}");
    redis.signal("CONT");
    world.until("portcullis_revocation_store_away", 0.0).await;
    assert!(page(&world).await.text().contains("<th scope=\"row\">store</th><td>there, "));
}

#[tokio::test]
async fn connections_that_never_became_a_call_are_told() {
    let world = World::wallet().await;
    let mut connection = world.connect().await;
    connection.write(b"GET / HTTP/1.1\r\nHos").await;
    drop(connection);
    world.until("portcullis_connections_refused_total{reason=\"head_cut\"}", 1.0).await;
    let row = "<th scope=\"row\">head_cut</th><td class=\"n\">1</td>";
    let text = page(&world).await.text();
    assert!(text.contains(row), "{text}");
}

#[test]
fn the_browser_is_among_what_the_tests_install() {
    let script = std::fs::read_to_string(root().join(".ci/test")).unwrap();
    assert!(script.lines().any(|line| line == "need chromium chromium"));
}
