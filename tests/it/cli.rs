//! The command line, as scripts and people use it: the real binary, its exit codes, what it prints where.

use std::process::{Command, Stdio};

use crate::binary::{Running, output, portcullis};
use crate::world::{Connection, Folder, PATIENCE, Pam, Request, betstack, hmac_sha256_hex, wallet};

#[tokio::test]
async fn the_three_example_configs_serve_http1_and_http2() {
    for (config, path) in [("valkyrie", "/players/session"), ("wallet", "/api/wallet/debit"), ("betstack", "/pam")] {
        let pam = Pam::start().await;
        let running = Running::start(&format!("config/{config}.toml"), &pam.address.to_string(), &[]);
        let url = format!("http://{}{path}", running.listen);
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let curl = Command::new("curl")
                .args(["-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", version, "-d", "{}", &url])
                .output();
            let text = String::from_utf8(curl.unwrap().stdout).unwrap();
            let expected = match (config, version) {
                // POST is no method of this path.
                ("valkyrie", "--http1.1") => "404 1.1",
                ("valkyrie", _) => "404 2",
                // Nobody proved anything; curl says form data, which a route that must look into the body refuses.
                ("wallet", "--http1.1") => "401 1.1",
                ("wallet", _) => "401 2",
                (_, "--http1.1") => "415 1.1",
                (_, _) => "415 2",
            };
            assert_eq!(text, expected, "{config} {version}");
        }
        pam.assert_untouched();
    }
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_0() {
    let pam = Pam::start().await;
    let (release, released) = tokio::sync::watch::channel(false);
    pam.answer_async(move |_| {
        let mut released = released.clone();
        crate::world::futures_answer::of(async move {
            released.wait_for(|released| *released).await.unwrap();
            Some(crate::world::answer(200, crate::world::GOOD))
        })
    });
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &[]);
    let mut caller = Connection::to(running.listen.parse().unwrap()).await;
    caller.write(&wallet::signed("debit", &wallet::body("t")).bytes()).await;
    pam.arrived(1).await;
    running.signal("TERM");
    assert_eq!(running.next_event()["event"], "stopping");
    release.send(true).unwrap();
    assert_eq!(caller.reply().await.status, 200);
    let events: Vec<_> = std::iter::from_fn(|| running.lines.next()).map(Result::unwrap).collect();
    assert!(events.last().unwrap().contains(r#""all_requests_finished":true"#), "{events:?}");
    assert_eq!(running.exit_code(), 0);
}

#[tokio::test]
async fn while_the_drain_delay_runs_it_is_unready_and_serves() {
    let pam = Pam::start().await;
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &["--set", "drain.delay=1h"]);
    let ready = |admin: String| async move {
        Connection::to(admin.parse().unwrap()).await.send(&Request::new("GET", "/readyz")).await.status
    };
    assert_eq!(ready(running.admin.clone()).await, 200);
    running.signal("TERM");
    assert_eq!(running.next_event()["event"], "stopping");
    assert_eq!(ready(running.admin.clone()).await, 503);
    assert_eq!(running.send(&wallet::signed("debit", &wallet::body("t"))).await, 200);
    running.signal("TERM");
    assert_eq!(running.exit_code(), 0);
}

#[test]
fn an_address_in_use_exits_with_1_at_once_and_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let other = if flag == "--listen" { "--admin" } else { "--listen" };
        let (code, stdout, stderr) =
            output(&["run", "--config", "config/wallet.toml", flag, &address, other, "127.0.0.1:0"]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains(&address), "{stderr}");
    }
}

#[test]
fn wrong_usage_exits_with_64() {
    for arguments in [&[][..], &["fly"], &["run"], &["run", "--config"], &["check", "--config", "x", "--color"]] {
        let (code, stdout, stderr) = output(arguments);
        assert_eq!((code, stdout.as_str()), (64, ""), "{arguments:?}");
        assert!(stderr.contains("--help"), "{stderr}");
    }
}

#[test]
fn help_is_no_error_and_shows_an_example() {
    let commands = ["run", "check", "sign", "explain", "revoke", "unrevoke", "status", "doctor", "drain", "demo"];
    for command in [""].into_iter().chain(commands).chain(["completions", "man"]) {
        let arguments = [command, "--help"];
        let arguments = if command.is_empty() { &arguments[1..] } else { &arguments[..] };
        let (code, stdout, stderr) = output(arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(stdout.contains("Example"), "{stdout}");
    }
}

#[test]
fn a_bad_config_exits_with_78_and_every_complaint_has_its_place() {
    let folder = Folder::new("cli-bad");
    let config = folder.write("bad.toml", "dialect = \"walet\"\nlisten = 5\nupstrem = \"a\"\n");
    for command in ["check", "run", "doctor"] {
        let (code, stdout, stderr) = output(&[command, "--config", &config]);
        assert_eq!((code, stdout.as_str()), (78, ""));
        for place in [":1:11: ", ":2:10: ", ":3:1: ", ":1:1: "] {
            assert!(stderr.contains(&format!("{config}{place}")), "{place} {stderr}");
        }
    }
    assert_eq!(output(&["check", "--config", "no/such/file.toml"]).0, 78);
}

#[test]
fn an_unset_variable_and_an_empty_secret_are_no_start() {
    for value in [None, Some(""), Some(" \n")] {
        let mut command = portcullis();
        command.args(["run", "--config", "config/wallet.toml"]).env_remove("WALLET_PASSWORD");
        if let Some(value) = value {
            command.env("WALLET_PASSWORD", value);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{value:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("config/wallet.toml:13:"), "{value:?}");
    }
}

#[test]
fn check_says_what_a_good_config_comes_to() {
    let (code, stdout, stderr) = output(&["check", "--config", "config/betstack.toml"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("betstack, 12 routes, 1 caller;"), "{stdout}");
}

#[test]
fn sign_at_a_moment_gives_the_published_signature() {
    let body = r#"{"action": "ticket_create", "data": {"operator": "operator-code"}}"#;
    let (code, stdout, _) = output(&["sign", "--config", "config/betstack.toml", "--at", "1706191612", "--body", body]);
    assert_eq!(code, 0);
    let message = r#"1706191612{"action":"ticket_create","data":{"operator":"operator-code"}}"#;
    let expected = hmac_sha256_hex(betstack::SECRET, message.as_bytes());
    assert!(stdout.starts_with(&format!("timestamp: 1706191612\nsignature: {expected}\n")), "{stdout}");
}

#[tokio::test]
async fn the_curl_line_of_sign_is_admitted() {
    let body = wallet::body("it's a token?");
    let body = body.replace(' ', "_");
    let betstack_body = betstack::body("identify", r#", "token": "it's""#);
    let calls = [
        ("config/wallet.toml", vec!["--body", &body, "/api/wallet/debit"]),
        ("config/betstack.toml", vec!["--body", &betstack_body]),
        ("config/valkyrie.toml", vec!["--caller", "operator", "--header", TOKEN, "/players/session?provider=x"]),
        ("config/valkyrie.toml", vec!["--caller", "valkyrie", "--header", TOKEN, "/players/session?provider=x"]),
    ];
    for (config, arguments) in calls {
        let pam = Pam::start().await;
        let running = Running::start(config, &pam.address.to_string(), &[]);
        let mut all = vec!["sign", "--config", config, "--listen", &running.listen];
        all.extend(arguments);
        let (code, stdout, stderr) = output(&all);
        assert_eq!(code, 0, "{stderr}");
        let line = stdout.lines().find(|line| line.starts_with("curl ")).unwrap();
        let line = line.to_owned();
        let shell = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &line]).output());
        let shell = tokio::time::timeout(PATIENCE, shell).await.unwrap().unwrap().unwrap();
        let reply = String::from_utf8(shell.stdout).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{stdout}\n{reply}");
        assert_eq!(pam.requests().len(), 1);
    }
}

const TOKEN: &str = "X-Player-Token: 7ca10daf12f2cac9fecf559b11f0f0c8bd21ae43";

#[test]
fn sign_asks_for_what_it_needs() {
    let cases: [(&[&str], &str); 4] = [
        (&["--config", "config/valkyrie.toml", "/players/session"], "valkyrie, operator"),
        (&["--config", "config/valkyrie.toml", "--caller", "nobody", "/players/session"], "nobody"),
        (&["--config", "config/wallet.toml"], "path"),
        (&["--config", "config/wallet.toml", "/api//wallet"], "target"),
    ];
    for (arguments, expected) in cases {
        let (code, stdout, stderr) = output(&[&["sign"], arguments].concat());
        assert_eq!((code, stdout.as_str()), (64, ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

/// `/dev/full` takes nothing, for standard output and standard error alike.
#[test]
fn an_output_that_takes_nothing_is_no_panic_and_changes_no_exit_code() {
    let folder = Folder::new("cli-full");
    let bad = folder.write("bad.toml", "dialect = 5");
    let body = "{\"data\":{\"operator\":\"operator-code\"}}";
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let cases: [(&[&str], i32); 5] = [
        (&["check", "--config", "config/wallet.toml"], 0),
        (&["check", "--config", &bad], 78),
        (&["run", "--config", &bad], 78),
        (&["sign", "--config", "config/betstack.toml", "--body", body], 0),
        (&["sign", "--config", "config/wallet.toml", "/no//path"], 64),
    ];
    for (arguments, code) in cases {
        let status = portcullis().args(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// A log collector that has stalled must not keep a pod from ending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_log_does_not_keep_it_from_ending() {
    let pam = Pam::start().await;
    let mut running = Running::start("config/wallet.toml", &pam.address.to_string(), &[]);
    let mut caller = Connection::to(running.listen.parse().unwrap()).await;
    let request = wallet::signed("debit", &wallet::body("t"));
    // More lines than a pipe takes.
    for _ in 0..400 {
        assert_eq!(caller.send(&request).await.status, 200);
    }
    running.signal("TERM");
    assert_eq!(running.exit_code(), 0);
}
