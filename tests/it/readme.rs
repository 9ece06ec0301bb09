//! What the README shows is true: its config, its dialect, its commands.

use crate::binary::{Running, portcullis};
use crate::world::{Folder, Pam, Request, World, hmac_sha256_hex, load, now, operator, root, wallet};

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The text of the first fenced block behind `heading` in the language `kind`.
fn block(heading: &str, kind: &str) -> String {
    let text = readme();
    let (_, behind) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, behind) = behind.split_once(&format!("\n```{kind}\n")).unwrap();
    behind.split_once("\n```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_config_of_the_readme_serves() {
    let folder = Folder::new("readme-config");
    let config = folder.write("wallet.toml", &block("The config, by example", "toml"));
    let world = World::of(&config, &[]).await;
    assert_eq!(world.send(&wallet::signed("debit", &wallet::body("t"))).await.status, 200);
}

#[test]
fn the_way_to_other_replicas_in_the_readme_is_one_that_configs_have() {
    let (_, behind) =
        readme().split_once("\n### Several replicas\n").map(|(one, two)| (one.to_owned(), two.to_owned())).unwrap();
    let shown = behind.split_once("\n```toml\n").unwrap().1.split_once("\n```").unwrap().0.to_owned();
    let folder = Folder::new("readme-sharing");
    let config = std::fs::read_to_string(root().join("config/wallet.toml")).unwrap();
    let config =
        folder.write("wallet.toml", &format!("{config}\n{}", shown.replace("REDIS_PASSWORD", "WALLET_PASSWORD")));
    let settings = load(&config, "127.0.0.1:9", &[]).map_err(|found| format!("{found:?}")).unwrap();
    let sharing = settings.revocation.sharing.unwrap();
    assert_eq!(sharing.store.nodes, [("redis".to_owned(), 6379)]);
    assert!(sharing.retire_to_journal && sharing.store.tls.is_some());
}

#[tokio::test]
async fn the_dialect_of_the_readme_admits_what_it_describes_and_ends_its_token() {
    let folder = Folder::new("readme-dialect");
    let dialect = folder.write("acme.toml", &block("Your own PAM", "toml"));
    let config = folder.write(
        "config.toml",
        &format!(
            "dialect = {dialect:?}\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n\
             [[caller]]\nname = \"client-7\"\nsigning = [{{ id = \"1\", key = {{ env = \"WALLET_SIGNING_KEY\" }} }}]\n"
        ),
    );
    let world = World::of(&config, &["signature.tolerance=60s"]).await;
    let signed = |method: &str, path: &str, query: &str, body: &str| {
        let hash: String =
            sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), body))
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
        let timestamp = now();
        let hex = hmac_sha256_hex(wallet::KEY, format!("{timestamp}.{method} {path}\n{hash}").as_bytes());
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        let signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        Request::new(method, &format!("{path}{query}"))
            .with("X-Acme-Client", "client-7")
            .with("X-Acme-Signature", &format!("t={timestamp},v1={signature}"))
            .with("X-Session", "0123456789abcdef")
            .body(body)
    };
    let bet = |stake: &str| signed("POST", "/v1/players/17/bets", "?currency=EUR", stake);
    // One message twice: made again a second later, it would be another.
    let first = bet("{\"stake\":1}");
    assert_eq!(world.send(&first).await.status, 200);
    assert_eq!(world.send(&first).await.json()["error"], "auth");

    world.pam.answer_with(|_| crate::world::answer(200, r#"{"ok":true}"#));
    assert_eq!(world.send(&signed("DELETE", "/v1/session", "", "")).await.status, 200);
    let reply = world.send(&bet("{\"stake\":2}")).await;
    assert_eq!((reply.status, reply.json()["text"].as_str()), (401, Some("the session has ended")));
}

/// The commands and the `curl` line under "End a token now", as they stand there, to a Portcullis of the test's own.
#[tokio::test]
async fn the_calls_of_the_readme_end_a_token_and_take_it_back() {
    let pam = Pam::start().await;
    let set = ["--set", operator::SET];
    let running = Running::start("config/wallet.toml", &pam.address.to_string(), &set);
    let call = || wallet::signed("debit", &wallet::body("t"));
    let lines = block("End a token now", "sh");
    let [by_token, by_digest, seen_before, unrevoke, status] = lines.lines().collect::<Vec<_>>()[..] else {
        panic!("{lines}")
    };
    // From its address on: no other line of the README may be run here by mistake.
    let text = readme();
    let (_, curl) = text.split_once("\ncurl http://127.0.0.1:9901/revoke ").unwrap();
    let (curl, _) = curl.split_once("\n```\n").unwrap();
    let curl = format!("curl -sS http://{}/revoke {curl}", running.admin);
    let shell = |line: &str, digest: &str| {
        let bare = portcullis();
        let mut command = std::process::Command::new("sh");
        command.env_clear().envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(root());
        let with = format!("--admin {} --set '{}' --actor somebody", running.admin, operator::SET);
        let with = if line.contains("portcullis status") { with.replace(" --actor somebody", "") } else { with };
        // Its arguments come first: behind them stand comments.
        let line = line.replace("--config config/wallet.toml", &format!("--config config/wallet.toml {with}"));
        let function = format!("portcullis() {{ {} \"$@\"; }}", env!("CARGO_BIN_EXE_portcullis"));
        command.args(["-ec", &format!("{function}\n{line}")]).env("TOKEN", "t").env("DIGEST", digest);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let ended = shell(by_token, "");
    let digest = ended["digest"].as_str().unwrap();
    assert_eq!((&ended["ended"], running.send(&call()).await), (&1.into(), 401));
    assert_eq!(shell(status, digest)["standing"], "ended");
    assert_eq!(shell(unrevoke, digest)["pardoned"], true);
    assert_eq!(running.send(&call()).await, 200);
    assert_eq!(shell(by_digest, digest)["ended"], 1);
    shell(unrevoke, digest);
    assert_eq!(shell(&curl, digest)["ended"], 1);
    assert_eq!(running.send(&call()).await, 401);
    assert_eq!(shell(seen_before, digest)["ended"], 0);
}

/// A body that was signed with a line feed behind it, as `echo` gives it.
#[test]
fn what_explain_says_in_the_readme_is_what_it_says() {
    let folder = Folder::new("readme-explain");
    let body = wallet::body("9f86d081-884c-4d65-9a2f-eaa0c55ad015");
    let signature = hmac_sha256_hex(wallet::KEY, format!("{body}\n").as_bytes());
    let call = wallet::signed("debit", &body).replacing("X-Request-Signature", &signature);
    let capture = folder.write("refused.http", &String::from_utf8(call.bytes()).unwrap());
    let line = block("Why was it refused?", "sh");
    let arguments: Vec<&str> =
        line.split(' ').skip(1).map(|word| word.replace("refused.http", &capture).leak() as &str).collect();
    let output = portcullis().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), block("Why was it refused?", "text"));
}

#[test]
fn the_two_commands_are_there() {
    let text = readme();
    for command in ["\ncargo run --release -- demo\n", "\n.ci/test\n"] {
        assert!(text.contains(command), "{command}");
    }
    assert!(root().join(".ci/test").exists());
}
