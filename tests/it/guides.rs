//! What the guides show is true. A fenced block says behind its language what it is:
//!
//! ```text
//! ```toml NAME      a file of that name, for the commands that follow
//! ```toml part      to be added to the config as it stands there
//! ```http NAME      a captured request, likewise
//! ```sh             runs, and succeeds
//! ```sh may fail    runs; what it exits with depends on what is there
//! ```sh live        is for a place that a test does not have; its commands and flags exist
//! ```text           what the commands right before it print
//! ```json           a vector like those of the repository, of the request in `example.http`
//! ```

use std::process::Command;

use crate::binary::{Running, output, portcullis};
use crate::world::{Folder, Pam, root};

#[tokio::test]
async fn the_guide_to_a_migration_says_what_works() {
    let folder = Folder::new("guide-migration");
    let blocks = blocks("migration.md");
    let config = blocks.iter().find(|block| block.kind == "toml portcullis.toml").unwrap();
    let config = folder.write("portcullis.toml", &config.text);
    let pam = Pam::start().await;
    let running = Running::start(&config, &pam.address.to_string(), &[]);
    assert_eq!(held(&folder, &blocks, &running.admin), [8, 6, 1]);
}

#[test]
fn the_guide_to_dialects_says_what_works() {
    let folder = Folder::new("guide-dialect");
    assert_eq!(held(&folder, &blocks("dialect.md"), "127.0.0.1:1"), [3, 5, 0]);
}

/// A fenced block: what stands behind its fence, and what is in it.
struct Block {
    kind: String,
    text: String,
}

fn blocks(guide: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join("config/guide").join(guide)).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        match (&mut open, bare.strip_prefix("```")) {
            (None, Some(kind)) => {
                open = Some((Block { kind: kind.to_owned(), text: String::new() }, line.len() - bare.len()));
            }
            (Some(_), Some("")) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none() && !blocks.is_empty(), "{guide}");
    blocks
}

/// Does what the blocks say, in their order. How many there were: files, commands that ran, commands for elsewhere.
fn held(folder: &Folder, blocks: &[Block], admin: &str) -> [usize; 3] {
    let mut count = [0; 3];
    let mut printed = String::new();
    for Block { kind, text } in blocks {
        match kind.split_once(' ').unwrap_or((kind, "")) {
            ("toml", "part") => {
                let config = std::fs::read_to_string(folder.path().join("portcullis.toml")).unwrap();
                // A table of its own comes behind all others.
                folder.write("with-part.toml", &format!("{config}\n{text}"));
                let (succeeded, said) = run(folder, "portcullis check --config with-part.toml", admin);
                assert!(succeeded, "{text}\n{said}");
                count[0] += 1;
            }
            ("toml" | "http", name) if !name.is_empty() => {
                folder.write(name, text.trim_end_matches('\n'));
                count[0] += 1;
            }
            ("sh", "live") => {
                for line in text.lines().filter_map(|line| line.strip_prefix("portcullis ")) {
                    let name = line.split(' ').next().unwrap();
                    let (code, help, _) = output(&[name, "--help"]);
                    assert_eq!(code, 0, "{line}");
                    let flags = line.split(' ').filter(|word| word.starts_with("--"));
                    flags.for_each(|flag| assert!(help.contains(flag), "{line}"));
                }
                count[2] += 1;
            }
            ("sh", how) => {
                let (succeeded, said) = run(folder, text, admin);
                assert!(succeeded || how == "may fail", "{text}\n{said}");
                printed = said;
                count[1] += 1;
            }
            ("text", "") => assert_eq!(printed, *text),
            ("json", "") => vector(folder, text),
            (other, _) => panic!("a block of the kind `{other}`"),
        }
    }
    count
}

/// It has what vectors have, and says of the request what the request says.
fn vector(folder: &Folder, text: &str) {
    let vector: serde_json::Value = serde_json::from_str(text).unwrap();
    let all = std::fs::read_to_string(root().join("tests/vectors/published-signatures.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let known = |name: &String| all["vectors"].as_array().unwrap().iter().any(|other| other.get(name).is_some());
    let unknown: Vec<_> = vector.as_object().unwrap().keys().filter(|name| !known(name)).collect();
    assert_eq!(unknown, [""; 0]);
    let request = std::fs::read_to_string(folder.path().join("example.http")).unwrap();
    for (name, value) in vector["headers"].as_object().unwrap() {
        assert!(request.contains(&format!("\n{name}: {}\n", value.as_str().unwrap())), "{name}");
    }
    assert!(request.ends_with(&format!("\n\n{}", vector["body"].as_str().unwrap())));
    assert_eq!(vector["headers"]["X-Sign"], vector["signature"]);
}

/// Runs commands in the folder, with the secrets of all tests. What they print is told as it would stand in any folder.
fn run(folder: &Folder, text: &str, admin: &str) -> (bool, String) {
    let bare = portcullis();
    let mut command = Command::new("sh");
    command
        .env_clear()
        .envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(folder.path());
    command.envs(SECRETS);
    let text = match text.contains("portcullis readiness") {
        true => text.trim_end().to_owned() + &format!(" --admin {admin}"),
        false => text.to_owned(),
    };
    let function = format!("portcullis() {{ {} \"$@\"; }}", env!("CARGO_BIN_EXE_portcullis"));
    let output = command.args(["-c", &format!("{function}\n{text}")]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// What the guides call their secrets, besides those of all tests.
const SECRETS: [(&str, &str); 6] = [
    ("STAGING_PASSWORD", "canary-staging-password"),
    ("STAGING_SIGNING_KEY", "canary-staging-signing-key"),
    ("WALLET_SIGNING_KEY_NEXT", "canary-next-signing-key"),
    ("WALLET_PASSWORD_NEXT", "canary-next-password"),
    ("REDIS_PASSWORD", "canary-redis-password"),
    // As the paper of the guide to dialects prints it.
    ("SUPPLIER_SECRET", "7f6c1d0e-example-secret"),
];
