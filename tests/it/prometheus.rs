//! The metrics, as Prometheus takes them: every one as the catalogue says, a reference page made from it, and a real
//! Prometheus that scrapes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Child, Command, Stdio};

use portcullis::log::events;
use portcullis::metrics::catalogue::{ALL, Kind, Metric, Values};
use portcullis::metrics::reference::reference;
use tokio::time::timeout;

use crate::binary::Running;
use crate::certificates::Authority;
use crate::redis_server::free_port;
use crate::world::{
    Connection, Folder, PATIENCE, Pam, Request, World, answer, basic, breath, futures_answer, root, valkyrie, wallet,
};

/// A sample: its name, its labels and its value.
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

#[tokio::test]
async fn every_metric_is_exposed_as_the_catalogue_says_and_none_besides() {
    let text = with_tls().await.admin("/metrics").await.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect::<Vec<_>>();
    let expected: Vec<_> = ALL.iter().map(|metric| (metric.name, metric.kind.as_str())).collect();
    assert_eq!(types, expected);
    let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect::<Vec<_>>();
    assert_eq!(helps, ALL.iter().map(|metric| (metric.name, metric.help)).collect::<Vec<_>>());
    for metric in ALL {
        let of_it: Vec<Sample> = samples(&text).into_iter().filter(|sample| is_of(&sample.name, metric)).collect();
        assert!(!of_it.is_empty(), "{}", metric.name);
        let names: Vec<&str> = metric.labels.iter().map(|label| label.name).collect();
        for sample in &of_it {
            let own = sample.labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le");
            assert_eq!(own.collect::<Vec<_>>(), names, "{}", sample.name);
        }
    }
}

/// Prometheus' advice: what has not happened yet is 0, and not missing, or the first time is not seen.
#[tokio::test]
async fn every_value_of_a_closed_set_is_there_from_the_start() {
    let text = with_tls().await.admin("/metrics").await.text();
    let all = samples(&text);
    for metric in ALL {
        for label in metric.labels {
            let Values::Closed(words) = &label.values else { continue };
            let of_it = all.iter().filter(|sample| is_of(&sample.name, metric));
            let told: BTreeSet<&str> = of_it
                .flat_map(|sample| &sample.labels)
                .filter(|(name, _)| name == label.name)
                .map(|(_, value)| value.as_str())
                .collect();
            let mut closed: BTreeSet<&str> = words().into_iter().collect();
            if metric.name.starts_with("portcullis_secret_") || metric.name.starts_with("portcullis_certificate_") {
                // Only those that the config has.
                closed.retain(|word| told.contains(word));
                assert!(!closed.is_empty(), "{}", metric.name);
            }
            assert_eq!(told, closed, "{} {}", metric.name, label.name);
        }
    }
    let requests = all.iter().filter(|sample| sample.name == "portcullis_requests_total");
    // Six routes and none, one caller and none, four classes.
    assert_eq!(requests.map(|sample| sample.value).collect::<Vec<_>>(), [0.0; 7 * 2 * 4]);
}

#[test]
fn the_reference_of_the_metrics_is_what_the_code_says() {
    compare("config/metrics.md", &reference());
}

#[test]
fn the_reference_of_the_log_is_what_the_code_says() {
    compare("config/log.md", &events::reference());
}

fn compare(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "{path} is not what the code says: UPDATE_REFERENCE=1 cargo test --quiet reference");
}

/// Every event that the code writes is in the reference, and the reference has none besides.
#[test]
fn the_events_of_the_log_are_those_of_the_reference() {
    let told: BTreeSet<String> = events::ALL.iter().map(|event| event.name.to_owned()).collect();
    assert_eq!(told.len(), events::ALL.len());
    let mut written = BTreeSet::from(["request".to_owned()]);
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().replace(char::is_whitespace, "");
            for call in [".note(", ".say(", "self.tell("] {
                // The event is the second argument, behind a level.
                let arguments = text.split(call).skip(1).filter_map(|rest| rest.split(");").next()?.split_once(','));
                let quoted = |rest: &str| Some(rest.strip_prefix('"')?.split('"').next()?.to_owned());
                written.extend(arguments.filter_map(|(_, rest)| quoted(rest)));
            }
        }
    }
    assert_eq!(written, told);
}

#[test]
fn the_readme_names_metrics_that_there_are() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, watched) = readme.split_once("\n## What is watched\n").unwrap();
    let rows = watched.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    let named: Vec<&str> = rows.collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(ALL.iter().any(|metric| metric.name == name), "{name}");
    }
}

#[tokio::test]
async fn the_end_of_a_rotation_can_be_seen() {
    let folder = Folder::new("prometheus-rotation");
    folder.write("old", "canary-old-password");
    folder.write("new", "canary-new-password");
    folder.write("hash", &bcrypt::hash("canary-hashed-password", 4).unwrap());
    let config = folder.write(
        "config.toml",
        "dialect = \"valkyrie\"\n[[caller]]\nname = \"valkyrie\"\n\
         bearer = [{ env = \"PAM_API_TOKEN\" }, { file = \"new\" }]\n\
         basic = { username = \"v\", password = [{ file = \"old\" }, { file = \"new\" }], password_hash = { file = \"hash\" } }\n",
    );
    let world = World::of(&config, &[]).await;
    let call = |authorization: &str| {
        valkyrie::call("GET", "/players/session?provider=x").replacing("Authorization", authorization)
    };
    let before = now();
    for (authorization, status) in [
        (basic("v", "canary-old-password"), 200),
        (basic("v", "canary-new-password"), 200),
        (basic("v", "canary-new-password"), 200),
        (basic("v", "canary-hashed-password"), 200),
        (basic("v", "canary-wrong"), 401),
        ("Bearer canary-new-password".to_owned(), 200),
    ] {
        assert_eq!(world.send(&call(&authorization)).await.status, status, "{authorization}");
    }
    let expected =
        [("password", 1, 1.0), ("password", 2, 2.0), ("password_hash", 1, 1.0), ("bearer", 1, 0.0), ("bearer", 2, 1.0)];
    for (kind, secret, uses) in expected {
        let labels = format!(r#"{{caller="valkyrie",kind="{kind}",secret="{secret}"}}"#);
        assert_eq!(world.metric(&format!("portcullis_secret_uses_total{labels}")).await, uses, "{labels}");
        let last = world.metric(&format!("portcullis_secret_last_used_timestamp_seconds{labels}")).await;
        assert_eq!(last >= before, uses > 0.0, "{labels} {last}");
    }
}

/// What is counted outlives a reload, wherever in its list a secret stands then; what two configs do not have is forgotten.
#[tokio::test]
async fn counts_go_on_over_a_reload_and_names_that_are_gone_are_forgotten() {
    let folder = Folder::new("prometheus-reload");
    folder.write("new", "canary-new-password");
    let caller = |name: &str, bearer: &str| format!("[[caller]]\nname = \"{name}\"\nbearer = {bearer}\n");
    let old = r#"{ env = "PAM_API_TOKEN" }"#;
    let two = format!("[{{ file = \"new\" }}, {old}]");
    let settings = |callers: &str| {
        let config = folder.write("config.toml", &format!("dialect = \"valkyrie\"\n{callers}"));
        crate::world::load(&config, "127.0.0.1:1", &[]).unwrap_or_else(|found| panic!("{found:?}"))
    };
    let world =
        World::of(&folder.write("first.toml", &format!("dialect = \"valkyrie\"\n{}", caller("a", old))), &[]).await;
    let get = valkyrie::call("GET", "/players/session?provider=x");
    assert_eq!(world.send(&get).await.status, 200);
    world.until(r#"portcullis_requests_total{caller="a",route="getSession",status="2xx"}"#, 1.0).await;

    let exposed = |of: &portcullis::proxy::story::Portcullis| String::from_utf8(of.exposition()).unwrap();
    let has = |text: &str, name: &str, value: f64| {
        let all = samples(text);
        let line = |sample: &Sample| {
            let labels: Vec<String> = sample.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{}{{{}}}", sample.name, labels.join(","))
        };
        all.iter().any(|sample| line(sample) == name && sample.value == value)
    };
    let second = world.portcullis.successor(settings(&caller("a", &two))).unwrap();
    let text = exposed(&second);
    assert!(has(&text, "portcullis_requests_total{caller=a,route=getSession,status=2xx}", 1.0), "{text}");
    assert!(has(&text, "portcullis_secret_uses_total{caller=a,kind=bearer,secret=2}", 1.0), "{text}");
    assert!(has(&text, "portcullis_secret_uses_total{caller=a,kind=bearer,secret=1}", 0.0), "{text}");
    assert!(has(&text, "portcullis_request_duration_seconds_count{route=getSession}", 1.0), "{text}");

    drop(second.successor(settings(&caller("b", old))).unwrap());
    let last = second.successor(settings(&caller("c", old))).unwrap();
    let text = exposed(&last);
    assert!(has(&text, "portcullis_requests_total{caller=c,route=getSession,status=2xx}", 0.0), "{text}");
    // The first two are still there to count.
    assert!(has(&text, "portcullis_requests_total{caller=a,route=getSession,status=2xx}", 1.0), "{text}");
    assert!(!text.contains("caller=\"b\""), "{text}");
}

/// Callers times routes is all there can be; where that is a page of megabytes, only what was seen is shown.
#[tokio::test]
async fn with_many_callers_only_pairs_that_were_seen_are_shown() {
    let folder = Folder::new("prometheus-many");
    let mut config = "dialect = \"valkyrie\"\n".to_owned();
    for number in 0..1000 {
        let secret = folder.write(&format!("{number}"), &format!("canary-secret-{number}"));
        config.push_str(&format!("[[caller]]\nname = \"c{number}\"\nbearer = {{ file = {secret:?} }}\n"));
    }
    let world = World::of(&folder.write("config.toml", &config), &[]).await;
    let get = valkyrie::call("GET", "/players/session?provider=x");
    assert_eq!(world.send(&get.replacing("Authorization", "Bearer canary-secret-7")).await.status, 200);
    world.until(r#"portcullis_requests_total{caller="c7",route="getSession",status="2xx"}"#, 1.0).await;
    let all = samples(&world.admin("/metrics").await.text());
    let requests = all.iter().filter(|sample| sample.name == "portcullis_requests_total");
    assert_eq!(requests.map(|sample| sample.value).collect::<Vec<_>>(), [1.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn connections_to_the_pam_are_counted_from_their_opening_to_their_end() {
    let world = World::wallet().await;
    let call = || wallet::signed("debit", &wallet::body("t"));
    for _ in 0..3 {
        assert_eq!(world.send(&call()).await.status, 200);
    }
    let expected = [
        (r#"portcullis_upstream_connections_opened_total{protocol="http1"}"#, 1.0),
        (r#"portcullis_upstream_connections_reused_total{protocol="http1"}"#, 2.0),
        (r#"portcullis_upstream_connections_pooled{protocol="http1"}"#, 1.0),
        (r#"portcullis_upstream_connections_closed_total{reason="exchange"}"#, 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(world.metric(name).await, value, "{name}");
    }
    // An answer that is the last one of its connection, and none at all.
    let last = answer(200, "{}");
    let last = String::from_utf8(last).unwrap().replacen("\r\n", "\r\nConnection: close\r\n", 1).into_bytes();
    world.pam.answer_with(move |_| last.clone());
    assert_eq!(world.send(&call()).await.status, 200);
    world.pam.answer_async(|_| futures_answer::of(async { None }));
    assert_eq!(world.send(&call()).await.status, 502);
    assert_eq!(world.metric(r#"portcullis_upstream_connections_closed_total{reason="exchange"}"#).await, 2.0);
    assert_eq!(world.metric(r#"portcullis_upstream_connections_opened_total{protocol="http1"}"#).await, 2.0);
    assert_eq!(world.metric(r#"portcullis_upstream_connections_pooled{protocol="http1"}"#).await, 0.0);
    assert_eq!(world.metric(r#"portcullis_upstream_errors_total{reason="closed",sent="yes"}"#).await, 1.0);
}

#[tokio::test]
async fn what_was_not_sent_is_told_from_what_may_have_been() {
    let mut pam = Pam::start().await;
    // Nobody listens there.
    pam.address = "127.0.0.1:1".parse().unwrap();
    let world = World::with_pam("config/wallet.toml", &[], pam).await;
    assert_eq!(world.send(&wallet::signed("debit", &wallet::body("t"))).await.status, 503);
    assert_eq!(world.metric(r#"portcullis_upstream_errors_total{reason="connect",sent="no"}"#).await, 1.0);
    assert_eq!(world.metric(r#"portcullis_upstream_errors_total{reason="connect",sent="yes"}"#).await, 0.0);
}

/// `promtool check metrics` finds nothing to say about names, types, units and help texts.
#[tokio::test]
async fn promtool_has_nothing_to_say() {
    let world = with_tls().await;
    let text = world.admin("/metrics").await.text();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    // Closed at the end of the line, or promtool would wait for more.
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((String::from_utf8_lossy(&said).as_ref(), output.status.code()), ("", Some(0)));
}

#[tokio::test]
async fn a_real_prometheus_scrapes_and_answers_for_rate_errors_and_duration() {
    let pam = Pam::start().await;
    let running = Running::start("config/wallet.toml", &pam.address.to_string(), &[]);
    let prometheus = Prometheus::start(&running.admin).await;
    prometheus.until("up", 1.0).await;
    let signed = || wallet::signed("debit", &wallet::body("t"));
    let wrong = || signed().replacing("X-Request-Signature", &"0".repeat(64));
    // Rates need two scrapes with something between them.
    prometheus
        .until(
            r#"count_over_time(portcullis_requests_total{caller="fantasy-goal",route="debit",status="2xx"}[1m])"#,
            2.0,
        )
        .await;
    for _ in 0..20 {
        assert_eq!(running.send(&signed()).await, 200);
    }
    for _ in 0..5 {
        assert_eq!(running.send(&wrong()).await, 401);
    }
    pam.answer_with(|_| answer(500, "{}"));
    assert_eq!(running.send(&signed()).await, 500);
    let by_class = |class: &str| {
        format!(
            r#"sum by (caller, route) (portcullis_requests_total{{caller="fantasy-goal",route="debit",status="{class}"}})"#
        )
    };
    prometheus.until(&by_class("2xx"), 20.0).await;
    prometheus.until(&by_class("5xx"), 1.0).await;
    let refused = r#"sum(portcullis_decisions_total{outcome="refused",reason="signature_wrong",mode="enforce"})"#;
    prometheus.until(refused, 5.0).await;
    prometheus.until(r#"portcullis_request_duration_seconds_count{route="debit"}"#, 26.0).await;
    // What dashboards and alerts ask.
    for (expression, least, most) in [
        (r#"sum(rate(portcullis_requests_total{route="debit"}[1m])) > 0"#, f64::MIN_POSITIVE, 1e6),
        (
            r#"sum(rate(portcullis_requests_total{status="5xx"}[1m])) / sum(rate(portcullis_requests_total[1m]))"#,
            0.01,
            0.1,
        ),
        (
            r#"histogram_quantile(0.99, sum by (le, route) (rate(portcullis_request_duration_seconds_bucket{route="debit"}[1m])))"#,
            1e-6,
            10.0,
        ),
        ("histogram_quantile(0.5, rate(portcullis_own_duration_seconds_bucket[1m]))", 1e-6, 10.0),
        (r#"time() - portcullis_secret_last_used_timestamp_seconds{kind="signing"} < 120"#, -5.0, 120.0),
        ("process_resident_memory_bytes", 1e6, 1e10),
        ("time() - process_start_time_seconds", -5.0, 300.0),
        (r#"portcullis_build_info{version!=""}"#, 1.0, 1.0),
        ("sum(scrape_samples_scraped)", 200.0, 5000.0),
    ] {
        let value = prometheus.ask(expression).await;
        assert!(value.is_some_and(|value| (least..=most).contains(&value)), "{expression}: {value:?}");
    }
}

/// A world whose config has certificates, so that no metric is without a sample.
async fn with_tls() -> World {
    let folder = Folder::new("prometheus-tls");
    let authority = Authority::new("pam");
    let ca = format!("upstream_tls.ca={}", folder.write("ca.pem", &authority.pem));
    let pam = Pam::over_tls(authority.issue(&["127.0.0.1"]).server(None)).await;
    World::with_pam("config/wallet.toml", &[&ca], pam).await
}

/// The real program, with a folder of its own.
pub struct Prometheus {
    address: std::net::SocketAddr,
    child: Child,
    _folder: Folder,
}

impl Prometheus {
    async fn start(target: &str) -> Prometheus {
        Prometheus::start_with(target, "").await
    }

    /// The same with more lines at the end of its config.
    pub async fn start_with(target: &str, more: &str) -> Prometheus {
        let port = free_port();
        let folder = Folder::new(&format!("prometheus-{port}"));
        let scrape = format!(
            "global:\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\n  evaluation_interval: 250ms\nscrape_configs:\n  \
             - job_name: portcullis\n    static_configs:\n      - targets: [\"{target}\"]\n        \
             labels: {{ namespace: casino }}\n{more}"
        );
        let config = folder.write("prometheus.yml", &scrape);
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={config}"))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Prometheus { address: address.parse().unwrap(), child, _folder: folder };
        let listens = async {
            while tokio::net::TcpStream::connect(prometheus.address).await.is_err() {
                breath().await;
            }
        };
        timeout(PATIENCE, listens).await.expect("prometheus does not listen");
        prometheus
    }

    /// What a call of its API gives; `None` while it is starting.
    pub async fn api(&self, target: &str) -> Option<serde_json::Value> {
        let reply = Connection::to(self.address).await.send(&Request::new("GET", target)).await;
        if reply.status == 503 {
            return None;
        }
        let mut answer = reply.json();
        assert_eq!(answer["status"], "success", "{target}: {answer}");
        Some(answer["data"].take())
    }

    /// The values of an expression; none while it is starting.
    pub async fn values(&self, expression: &str) -> Vec<f64> {
        let query: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.api(&format!("/api/v1/query?query={query}")).await.unwrap_or_default();
        let samples = answer["result"].as_array().map(Vec::as_slice).unwrap_or_default();
        samples.iter().filter_map(|sample| sample["value"][1].as_str()?.parse().ok()).collect()
    }

    /// The one value of an expression; `None` when it has none yet.
    async fn ask(&self, expression: &str) -> Option<f64> {
        let values = self.values(expression).await;
        assert!(values.len() <= 1, "{expression} has several values: {values:?}");
        values.first().copied()
    }

    /// Waits until an expression has at least a value.
    pub async fn until(&self, expression: &str, least: f64) {
        let reached = async {
            while self.ask(expression).await.is_none_or(|value| value < least) {
                breath().await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{expression} did not become {least}"));
        if expression != "up" && !expression.starts_with("count_over_time") {
            assert_eq!(self.ask(expression).await, Some(least), "{expression}");
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn samples(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap();
        let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        };
        Sample { name: name.to_owned(), labels: pairs.map(pair).collect(), value: value.parse().unwrap() }
    };
    let samples: Vec<Sample> = lines.map(read).collect();
    let mut seen = BTreeMap::new();
    for sample in &samples {
        let twice = seen.insert((sample.name.clone(), sample.labels.clone()), sample.value);
        assert_eq!(twice, None, "{} {:?}", sample.name, sample.labels);
    }
    samples
}

fn is_of(sample: &str, metric: &Metric) -> bool {
    match metric.kind {
        Kind::Counter | Kind::Gauge => sample == metric.name,
        Kind::Histogram => {
            sample.strip_prefix(metric.name).is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
        }
    }
}

fn now() -> f64 {
    crate::world::now() as f64
}
