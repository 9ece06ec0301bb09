//! Rules, dashboard and runbook: they name what there is, they name each other, and a real Prometheus that scrapes a real
//! Portcullis has an answer to every query.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use portcullis::metrics::catalogue::{ALL, Kind, Values};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::binary::Running;
use crate::certificates::Authority;
use crate::prometheus::Prometheus;
use crate::world::{Connection, Folder, PATIENCE, Pam, Request, answer, breath, operator, root, wallet};

/// Panels that have nothing to show in this test's world, by their titles, and why.
const EMPTY: [(&str, &str); 2] = [
    ("Configs", "annotations of other configs: none was loaded anew"),
    ("Connections that came to nothing", "its query for TLS handshakes: callers connect without TLS"),
];

/// What each section of the runbook has, in this order.
const FORM: [&str; 5] = ["What it means.", "What is noticed.", "First look.", "What to do.", "Whom to wake."];

#[test]
fn promtool_finds_the_rules_correct_and_their_cases_true() {
    for arguments in [
        ["check", "rules", "rules.yml"].as_slice(),
        &["test", "rules", "rules_test.yml"],
        &["test", "rules", "rules_days_test.yml"],
    ] {
        let folder = root().join("config/prometheus");
        let output = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(said.contains("SUCCESS"), "{arguments:?}: {said}");
    }
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let cases = read("config/prometheus/rules_test.yml") + &read("config/prometheus/rules_days_test.yml");
    let mut fires = BTreeSet::new();
    let mut does_not = BTreeSet::new();
    for case in cases.split("alertname: ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        match rest.trim_start().starts_with("exp_alerts: []") {
            true => does_not.insert(name),
            false => fires.insert(name),
        };
    }
    let rules = read("config/prometheus/rules.yml");
    let all: BTreeSet<&str> = alerts(&rules).iter().map(|alert| alert.name).collect();
    assert_eq!((&fires, &does_not), (&all, &all));
}

#[test]
fn every_metric_that_rules_dashboard_and_runbook_name_exists_and_every_record_is_used() {
    let rules = read("config/prometheus/rules.yml");
    let rules: String = rules.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let recorded: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::trim).collect();
    let mut dashboard: Vec<String> = queries(&dashboard()).into_iter().map(|query| query.expression).collect();
    dashboard.extend(variables().into_values());
    let runbook = runbook_queries();
    let mut used = BTreeSet::new();
    for text in dashboard.iter().chain(&runbook).chain([&rules]) {
        for name in names(text) {
            if let Some(name) = recorded.get(name) {
                used.insert((*name).to_owned());
                continue;
            }
            let known = ALL.iter().any(|metric| match metric.kind {
                Kind::Counter | Kind::Gauge => metric.name == name,
                Kind::Histogram => {
                    let end = name.strip_prefix(metric.name);
                    end.is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
                }
            });
            assert!(known, "there is no {name}");
        }
    }
    // Each of them stands in the rules once for its own name.
    let again = |name: &&&str| {
        let elsewhere = names(&rules).filter(|other| other == *name).count() > 1;
        elsewhere || dashboard.iter().any(|text| names(text).any(|other| other == **name))
    };
    let idle: Vec<_> = recorded.iter().filter(|name| !again(name)).collect();
    assert_eq!(idle, [&""; 0]);
    assert!(recorded.len() > 10 && used.len() == recorded.len(), "{recorded:?}");
}

/// A word that a closed set of labels does not have would never match, and nobody would notice.
#[test]
fn every_value_that_queries_ask_for_is_one_that_its_label_has() {
    let mut closed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for label in ALL.iter().flat_map(|metric| metric.labels) {
        if let Values::Closed(words) = &label.values {
            closed.entry(label.name).or_default().extend(words());
        }
    }
    let mut texts: Vec<String> = queries(&dashboard()).into_iter().map(|query| query.expression).collect();
    texts.extend(runbook_queries());
    texts.push(read("config/prometheus/rules.yml"));
    let mut asked = 0;
    for text in &texts {
        for (label, words) in &closed {
            for operator in ["=\"", "=~\"", "!=\"", "!~\""] {
                let matcher = format!("{label}{operator}");
                for (at, _) in text.match_indices(&matcher) {
                    let before = text[..at].chars().next_back();
                    if before.is_some_and(|one| one.is_ascii_alphanumeric() || one == '_') {
                        continue;
                    }
                    let value = text[at + matcher.len()..].split('"').next().unwrap();
                    for word in value.split('|') {
                        assert!(words.contains(word), "{label} is never {word}");
                        asked += 1;
                    }
                }
            }
        }
    }
    assert!(asked > 30, "{asked}");
}

#[test]
fn every_alert_says_what_to_do_and_its_section_of_the_runbook_has_the_form_of_all() {
    let rules = read("config/prometheus/rules.yml");
    let alerts = alerts(&rules);
    let runbook = read("config/guide/runbook.md");
    let sections: Vec<(&str, &str)> =
        runbook.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    assert_eq!(
        sections.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        alerts.iter().map(|alert| alert.name).collect::<Vec<_>>()
    );
    for (alert, (name, text)) in alerts.iter().zip(&sections) {
        assert!(["critical", "warning"].contains(&alert.severity), "{name}");
        assert!(text.starts_with(&format!("\n`{}`\n\n**What it means.** ", alert.severity)), "{name}");
        let parts: Vec<&str> = text.split("\n**").skip(1).map(|part| part.split_once("**").unwrap().0).collect();
        assert_eq!(parts, FORM, "{name}");
        let look = text.split("\n**First look.**").nth(1).unwrap().split("\n**").next().unwrap();
        assert!(look.contains("\n```promql\n"), "{name} has no query to look at first");
        assert_eq!(alert.runbook, format!("config/guide/runbook.md#{}", name.to_lowercase()));
        assert!(alert.summary.ends_with('.') && alert.summary.len() < 100, "{name}: {}", alert.summary);
        assert!(alert.described, "{name}");
    }
    let names: BTreeSet<String> = alerts.iter().map(|alert| alert.name.to_owned()).collect();
    let anchors = runbook.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap());
    for anchor in anchors {
        assert!(names.iter().any(|name| name.to_lowercase() == anchor), "{anchor}");
    }
    for panel in panels(&dashboard()) {
        for word in panel["description"].as_str().unwrap().split(|one: char| !one.is_ascii_alphanumeric()) {
            assert!(!word.starts_with("Portcullis") || word == "Portcullis" || names.contains(word), "{word}");
        }
    }
}

#[test]
fn the_dashboard_has_a_place_a_unit_and_a_word_for_each_panel() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    assert_eq!((&dashboard["uid"], &dashboard["title"]), (&"portcullis".into(), &"Portcullis".into()));
    let variables = variables();
    let all = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in all {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        assert!(!title.is_empty() && titles.insert(title), "{title} is there twice");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} lies over another");
        }
    }
    let panels = panels(&dashboard);
    assert!(panels.len() > 30, "{}", panels.len());
    for panel in &panels {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title} has no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let ids: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && ids.len() == targets.len(), "{title}");
        for source in targets.iter().chain([*panel]) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    for query in queries(&dashboard) {
        for variable in query.expression.split('$').skip(1) {
            let name: String = variable.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(variables.contains_key(&name), "{}: there is no variable {name}", query.title);
        }
    }
}

/// Calls that are admitted, refused for several reasons, let pass though they fail, and lost by the PAM; operators, a head that is
/// cut, an ended token and certificates.
#[tokio::test]
async fn a_real_prometheus_answers_every_query_of_the_dashboard_and_the_runbook() {
    let folder = Folder::new("alerts");
    let authority = Authority::new("pam");
    let pam = Pam::over_tls(authority.issue(&["127.0.0.1"]).server(None)).await;
    folder.write("ca.pem", &authority.pem);
    let config = folder.write(
        "config.toml",
        "dialect = \"wallet\"\nlisten = \"127.0.0.1:1\"\nupstream = \"127.0.0.1:1\"\n\
         upstream_tls.ca = \"ca.pem\"\nmodes.shadow.routes = [\"credit\"]\nadmin_token = { env = \"ADMIN_TOKEN\" }\n\
         [[caller]]\nname = \"fantasy-goal\"\n\
         basic = { username = \"fantasy-goal\", password = { env = \"WALLET_PASSWORD\" } }\n\
         signing = [{ id = \"2026-11\", key = { env = \"WALLET_SIGNING_KEY\" } }]\n",
    );
    let running = Running::start(&config, &pam.address.to_string(), &[]);
    let rules = root().join("config/prometheus/rules.yml");
    let more = format!("rule_files: [{:?}]\n", rules.display().to_string());
    let prometheus = Prometheus::start_with(&running.admin, &more).await;
    // Rates need a look from before.
    prometheus.until("count_over_time(portcullis_build_info[1m])", 2.0).await;
    send_mixed_traffic(&running, &pam).await;

    until(&prometheus, "portcullis:upstream_errors:ratio_rate5m > 0").await;
    for (name, query) in variables() {
        if let Some(inner) = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) {
            let (metric, label) = inner.rsplit_once(", ").unwrap();
            assert_eq!(label, name);
            until(&prometheus, &format!("group by ({label}) ({})", with_all(metric))).await;
        }
    }
    let mut empty = Vec::new();
    let dashboard = dashboard();
    let (expected, others): (Vec<_>, Vec<_>) = queries(&dashboard).into_iter().partition(Query::is_to_be_empty);
    for query in &others {
        until(&prometheus, &with_all(&query.expression)).await;
    }
    for query in &expected {
        // Its error would fail the test, as it does for the others.
        if prometheus.values(&with_all(&query.expression)).await.is_empty() {
            empty.push(query.title.as_str());
        }
    }
    assert_eq!(empty, EMPTY.map(|(title, _)| title));
    let asked = runbook_queries();
    assert!(asked.len() > 25, "{}", asked.len());
    for query in &asked {
        prometheus.values(query).await;
    }
    assert_rules_are_well(&prometheus).await;
}

async fn send_mixed_traffic(running: &Running, pam: &Pam) {
    let signed = |operation: &str, token: &str| wallet::signed(operation, &wallet::body(token));
    let wrong = |call: Request| call.replacing("X-Request-Signature", &"0".repeat(64));
    for _ in 0..20 {
        assert_eq!(running.send(&signed("debit", "t")).await, 200);
    }
    assert_eq!(running.send(&wrong(signed("debit", "t"))).await, 401);
    assert_eq!(running.send(&signed("debit", "t").without("Authorization")).await, 401);
    assert_eq!(running.send(&Request::new("GET", "/elsewhere")).await, 404);
    // Only watched.
    assert_eq!(running.send(&wrong(signed("credit", "t"))).await, 200);
    // Ended by an operator, and then used; and somebody who is none.
    let end = operator::call("/revoke", &serde_json::json!({ "token": "u", "reason": "r", "actor": "a" }));
    let admin = || async { Connection::to(running.admin.parse().unwrap()).await };
    assert_eq!(admin().await.send(&end).await.status, 200);
    assert_eq!(admin().await.send(&end.replacing("Authorization", "Bearer nobody")).await.status, 401);
    assert_eq!(running.send(&signed("debit", "u")).await, 401);
    // Somebody who goes in the middle of a head.
    let mut cut = Connection::to(running.listen.parse().unwrap()).await;
    cut.write(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
    cut.stream.shutdown().await.unwrap();
    assert!(cut.rest().await.is_empty());
    pam.answer_with(|_| answer(500, "{}"));
    assert_eq!(running.send(&signed("debit", "t")).await, 500);
    pam.answer_in_turn(vec![None]);
    for _ in 0..3 {
        assert_eq!(running.send(&signed("debit", "t")).await, 502);
    }
}

/// Waits until an expression has a number.
async fn until(prometheus: &Prometheus, expression: &str) {
    let answered = async {
        while !prometheus.values(expression).await.iter().any(|value| value.is_finite()) {
            breath().await;
        }
    };
    timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("nothing for {expression}"));
}

/// Each rule was evaluated, without an error.
async fn assert_rules_are_well(prometheus: &Prometheus) {
    let mut healths = BTreeSet::new();
    let evaluated = async {
        loop {
            let answer = prometheus.api("/api/v1/rules").await.unwrap();
            let groups = answer["groups"].as_array().unwrap();
            let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
            assert!(rules.len() > 40, "{}", rules.len());
            let broken = rules.iter().find(|rule| rule["lastError"].as_str().is_some_and(|error| !error.is_empty()));
            assert_eq!(broken, None);
            healths = rules.iter().map(|rule| rule["health"].as_str().unwrap().to_owned()).collect();
            if healths == BTreeSet::from(["ok".to_owned()]) {
                break;
            }
            breath().await;
        }
    };
    timeout(PATIENCE, evaluated).await.expect("some rules are never evaluated");
}

/// An alert as the file has it.
struct Alert<'t> {
    name: &'t str,
    severity: &'t str,
    summary: &'t str,
    runbook: &'t str,
    described: bool,
}

impl<'t> Alert<'t> {
    fn of(text: &'t str) -> Alert<'t> {
        let of = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default().trim();
        Alert {
            name: text.lines().next().unwrap_or_default(),
            severity: of("severity:"),
            summary: of("summary:"),
            runbook: of("runbook_url:"),
            described: text.contains("\n          description: >-\n            "),
        }
    }
}

/// Every alert, in order. The file has one form, so that its lines say it.
fn alerts(rules: &str) -> Vec<Alert<'_>> {
    let alerts: Vec<Alert<'_>> = rules.split("- alert: ").skip(1).map(Alert::of).collect();
    assert!(alerts.len() > 20, "{}", alerts.len());
    alerts
}

/// A query of the dashboard.
struct Query {
    /// Of its panel.
    title: String,
    legend: String,
    expression: String,
}

impl Query {
    fn is_to_be_empty(&self) -> bool {
        EMPTY.iter().any(|(title, _)| *title == self.title) && !self.legend.starts_with("{{reason}}")
    }
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let mut all: Vec<Query> = annotations
        .filter_map(|one| {
            let (title, expression) = (one["name"].as_str()?.to_owned(), one["expr"].as_str()?.to_owned());
            Some(Query { title, legend: String::new(), expression })
        })
        .collect();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let text = |of: &Value| of.as_str().unwrap().to_owned();
            let (title, legend) = (text(&panel["title"]), text(&target["legendFormat"]));
            all.push(Query { title, legend, expression: text(&target["expr"]) });
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

/// The panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

/// The variables of the dashboard, and what they ask.
fn variables() -> BTreeMap<String, String> {
    let dashboard = dashboard();
    let list = dashboard["templating"]["list"].as_array().unwrap().iter();
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let all: BTreeMap<_, _> = list.map(|one| (text(&one["name"]), text(&one["definition"]))).collect();
    assert_eq!(all.len(), 6);
    all
}

/// As Grafana sends it when every variable says "All".
fn with_all(expression: &str) -> String {
    let mut text = expression.to_owned();
    for name in ["namespace", "job", "instance", "caller", "route"] {
        text = text.replace(&format!("=~\"${name}\""), "=~\".*\"");
    }
    assert!(!text.contains('$'), "{text}");
    text
}

/// Each query that the runbook shows.
fn runbook_queries() -> Vec<String> {
    let runbook = read("config/guide/runbook.md");
    let blocks = runbook.split("\n```promql\n").skip(1);
    blocks.map(|block| block.split_once("\n```").unwrap().0.to_owned()).collect()
}

/// What in a query may be the name of a metric of ours.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|one: char| !one.is_ascii_alphanumeric() && one != '_' && one != ':');
    words.filter(|word| ["portcullis_", "portcullis:", "process_"].iter().any(|start| word.starts_with(start)))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("config/grafana/portcullis.json")).unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}
