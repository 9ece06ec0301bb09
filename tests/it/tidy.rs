//! The floor plan: which room may name what, and what no room may have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{wire_cases, world::root};

/// Rooms that do no input or output and read no clock, environment or randomness: those are arguments.
const PURE: [&str; 30] = [
    "gate.rs",
    "gate/",
    "explain.rs",
    "explain/",
    "dialect.rs",
    "dialect/",
    "credential.rs",
    "credential/",
    "token.rs",
    "trace.rs",
    "trace/",
    "json.rs",
    "json/",
    "request.rs",
    "target.rs",
    "fields.rs",
    "denial.rs",
    "tls/names.rs",
    "network.rs",
    "digits.rs",
    "hex.rs",
    "swar.rs",
    "origin.rs",
    "announcement.rs",
    "rate.rs",
    "lockout.rs",
    "sight.rs",
    "sight/",
    "admin/page.rs",
    "admin/page/",
];

/// They are among the credentials, and remember: what is asked of them is asked through the gate's questions.
const REMEMBERING: [&str; 3] = ["credential/password.rs", "credential/replay.rs", "credential/replay/claims.rs"];

/// What reaches outside, as code would name it.
const OUTSIDE: [&str; 16] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::io",
    "std::process",
    "std::thread",
    "tokio::",
    "SystemTime::now",
    "Instant::now",
    "UtcDateTime",
    "rand::",
    "getrandom",
    "Uuid::now",
    "Uuid::new_v",
    "println!",
    "pingora",
];

#[test]
fn only_the_proxy_names_pingora() {
    let mut named = 0;
    for file in sources() {
        if file.code.contains("pingora") {
            assert!(file.name.starts_with("proxy"), "{} names pingora", file.name);
            named += 1;
        }
    }
    assert_ne!(named, 0);
}

#[test]
fn pure_rooms_reach_nothing_outside() {
    let mut walked = BTreeSet::new();
    for file in sources().iter().filter(|file| !REMEMBERING.contains(&file.name.as_str())) {
        let Some(room) = PURE.iter().find(|room| file.name.starts_with(*room)) else { continue };
        let reached: Vec<_> = OUTSIDE.iter().filter(|outside| file.code.contains(*outside)).collect();
        assert_eq!(reached, [&""; 0], "{}", file.name);
        walked.insert(*room);
    }
    assert_eq!(walked, PURE.into_iter().collect());
}

#[test]
fn pure_rooms_ask_no_room_that_is_not() {
    let impure = ["crate::admin", "crate::command", "crate::log", "crate::metrics", "crate::proxy"];
    let mut walked = 0;
    for file in sources().iter().filter(|file| PURE.iter().any(|room| file.name.starts_with(room))) {
        let asked: Vec<_> = impure.iter().filter(|room| file.code.contains(*room)).collect();
        assert_eq!(asked, [&""; 0], "{}", file.name);
        walked += 1;
    }
    assert!(walked > 20, "{walked}");
}

/// A mark that names no row holds nothing, and a row that no mark names is held by nobody.
#[test]
fn every_row_of_the_threats_is_named_by_a_test_and_nothing_else_is() {
    let text = std::fs::read_to_string(root().join("tests/threats.md")).unwrap();
    let rows: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    let rows: BTreeSet<&str> =
        rows.into_iter().filter(|row| row.ends_with(|last: char| last.is_ascii_digit())).collect();
    assert_eq!(rows.len(), 112);
    let mut named = BTreeSet::new();
    for folder in ["src", "tests/it"] {
        for path in files(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            for mark in text.lines().filter_map(|line| line.trim().strip_prefix("// threat: ")) {
                for row in mark.split(", ") {
                    assert!(rows.contains(row.trim()), "{}: {row}", path.display());
                    named.insert(row.trim().to_owned());
                }
            }
        }
    }
    for path in files(&root().join(wire_cases::FOLDER)).iter().filter(|path| !path.ends_with("README.md")) {
        for row in wire_cases::rows(path) {
            assert!(rows.contains(row.as_str()), "{}: {row}", path.display());
            named.insert(row);
        }
    }
    let missing: Vec<&str> = rows.iter().copied().filter(|row| !named.contains(*row)).collect();
    assert_eq!(missing, [""; 0]);
}

/// What a timing could tell one byte of after the other is never compared with `==`, and does not stay in memory.
// threat: C9
// threat: C14
#[test]
fn what_is_secret_is_compared_whole_and_wiped() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<zeroize::Zeroizing<Vec<u8>>>();
    wiped::<zeroize::Zeroizing<String>>();
    // An HMAC is what these made of its key.
    wiped::<sha1::Sha1>();
    wiped::<sha2::Sha256>();
    wiped::<sha2::Sha384>();
    wiped::<sha2::Sha512>();

    let sources = sources();
    let code = |name: &str| sources.iter().find(|file| file.name == name).unwrap().code.as_str();
    let secret = code("secret.rs");
    for line in [
        "pub struct Secret(Zeroizing<Vec<u8>>);",
        "bytes: Zeroizing<[u8; 32]>,",
        "credentials: Sha256,",
        "|differ, (one, other)| differ | (word(one) ^ word(other))).ct_eq(&0).into()",
        "self.bytes.ct_eq(&*other.bytes).into()",
    ] {
        assert!(secret.contains(line), "{line}");
    }
    // What can be compared is so by the two above; a secret itself cannot.
    assert_eq!(secret.matches("PartialEq").count(), 2);
    assert!(code("credential/signature.rs").contains("one.ct_eq(expected.as_slice())"));
    assert!(code("credential/authorization.rs").contains("Bearer(Zeroizing<Vec<u8>>)"));
    assert!(code("credential/authorization.rs").contains("text: Zeroizing<String>"));
    let mut exposed = 0;
    for file in &sources {
        for line in file.code.lines().filter(|line| line.contains("expose()") || line.contains(".password()")) {
            assert!(!line.contains("==") && !line.contains("!="), "{}: {line}", file.name);
            exposed += 1;
        }
    }
    assert!(exposed > 10, "{exposed}");
}

/// What the advisories are about is not in the lock file, whether or not their database can be had.
// threat: H6
#[test]
fn the_crates_that_advisories_name_are_newer_than_they_say() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for (name, oldest) in [("h2", [0, 4, 16]), ("rustls-webpki", [0, 103, 13]), ("pingora-core", [0, 8, 0])] {
        let mut found = 0;
        for package in lock.split("[[package]]").filter(|package| package.contains(&format!("\nname = \"{name}\"\n"))) {
            let version =
                package.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap();
            let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
            assert!(parts[..] >= oldest[..], "{name} {version}");
            found += 1;
        }
        assert_ne!(found, 0, "{name}");
    }
    let deny = std::fs::read_to_string(root().join(".ci/deny")).unwrap();
    assert!(deny.contains("check licenses bans sources") && deny.contains("check advisories"));
    let test = std::fs::read_to_string(root().join(".ci/test")).unwrap();
    assert!(test.lines().any(|line| line == ".ci/deny"));
}

#[test]
fn pingora_is_pinned_and_the_lints_stand() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for line in [
        "pingora = { version = \"=0.9.1\"",
        "unsafe_code = \"forbid\"",
        "unwrap_used = \"deny\"",
        "expect_used = \"deny\"",
        "panic = \"deny\"",
        "license = \"Apache-2.0\"",
    ] {
        assert!(manifest.lines().any(|other| other.starts_with(line)), "{line}");
    }
    let license = std::fs::read_to_string(root().join("LICENSE")).unwrap();
    assert!(license.contains("Apache License") && license.contains("Version 2.0"));
    assert!(root().join("Cargo.lock").exists());
}

#[test]
fn nothing_is_called_by_a_word_that_says_nothing() {
    let empty =
        ["handler", "manager", "util", "utils", "helper", "helpers", "service", "common", "data", "info", "process"];
    // A word of pingora's, for the trait that its listeners serve.
    let theirs = "process_new";
    let mut names = Vec::new();
    for file in sources() {
        names.extend(file.name.split(['/', '.']).map(str::to_owned));
        for keyword in ["fn ", "struct ", "enum ", "trait ", "mod ", "const ", "static ", "type "] {
            let defined = file.code.split(keyword).skip(1).map(|rest| {
                rest.split(|one: char| !one.is_ascii_alphanumeric() && one != '_').next().unwrap_or_default().to_owned()
            });
            names.extend(defined);
        }
    }
    assert!(names.len() > 500, "{}", names.len());
    let says_nothing = |name: &&String| words(name).iter().any(|word| empty.contains(&word.as_str()));
    let bad: Vec<_> = names.iter().filter(says_nothing).filter(|name| *name != theirs).collect();
    assert_eq!(bad, [""; 0]);
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, or this file would find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["to", "do!("], ["dbg", "!("], ["unimplemented", "!("]]
        .map(|parts| parts.concat());
    let mut walked = 0;
    for folder in ["src", "tests", "config", ".ci"] {
        for path in files(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let found: Vec<_> = marks.iter().filter(|mark| text.contains(mark.as_str())).collect();
            assert_eq!(found, [""; 0], "{}", path.display());
            walked += 1;
        }
    }
    assert!(walked > 100, "{walked}");
}

/// A file of the crate: its path below `src`, and what is neither comment nor test.
struct Source {
    name: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let sources: Vec<Source> = files(&src)
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
            Source { name: path.strip_prefix(&src).unwrap().display().to_string(), code }
        })
        .collect();
    assert!(sources.len() > 40, "{}", sources.len());
    sources
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|fault| panic!("{}: {fault}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

/// `TokenRule`, `token_rule` and `TOKEN_RULE` are two words each.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for one in name.chars() {
        if one == '_' || (one.is_ascii_uppercase() && before_is_lower) {
            words.push(String::new());
        }
        before_is_lower = one.is_ascii_lowercase();
        if one != '_' {
            words.last_mut().unwrap().extend(one.to_lowercase());
        }
    }
    words
}
