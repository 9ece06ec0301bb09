//! Configs: those that load, those that do not and what is said of them, and what flags change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::config::paper::{self, Complaints};
use portcullis::config::{Complaint, Flags, Settings, keys};
use portcullis::dialect::{self, Overrides};
use portcullis::secret::DigestKey;
use portcullis::upstream::Protocol;

use crate::certificates::Authority;
use crate::world::{Folder, basic, load, root, secret_variable};

#[test]
fn every_config_in_the_repository_loads() {
    let configs = files("config");
    assert_eq!(configs.len(), 4);
    for config in configs {
        let flags = Flags { config: config.clone(), ..Flags::default() };
        let settings = Settings::load(&flags, &secret_variable, DigestKey::new([7; 32]));
        assert_eq!(settings.map(|_| ()).unwrap_or_else(|found| panic!("{}", lines(&found))), (), "{config:?}");
    }
}

#[test]
fn every_dialect_in_the_repository_reads() {
    let dialects = files("config/dialects");
    assert_eq!(dialects.len(), dialect::BUILT_IN.len());
    for path in dialects {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut complaints = Complaints::default();
        let dialect = dialect::read("dialect", &text, &Overrides::default(), &mut complaints);
        assert_eq!(lines(&complaints.into_vec()), "");
        assert_eq!(Some(&*dialect.unwrap().name), path.file_stem().unwrap().to_str());
    }
}

#[test]
fn the_reference_has_every_key_and_none_besides() {
    let text = std::fs::read_to_string(root().join("config/reference.toml")).unwrap();
    // A line such as `# url = "…"` is a key that is commented out; prose never has a word and an equals sign in front.
    let uncommented = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    });
    let mut complaints = Complaints::default();
    let table = paper::parse("reference", &uncommented.collect::<String>(), &mut complaints);
    assert_eq!(lines(&complaints.into_vec()), "");
    let of_a_reference = |key: &String| !key.ends_with(".env") && !key.ends_with(".file") && !key.ends_with("bearer[]");
    let written: BTreeSet<String> = table.written().into_iter().filter(of_a_reference).collect();
    assert_eq!(written, keys().into_keys().collect());
    assert!(written.contains("limits.body"));
}

#[test]
fn the_reference_says_the_defaults_of_the_code() {
    let folder = Folder::new("config-minimal");
    let minimal = folder.write(
        "minimal.toml",
        "dialect = \"wallet\"\n[[caller]]\nname = \"fantasy-goal\"\n\
         basic = { username = \"fantasy-goal\", password = { env = \"WALLET_PASSWORD\" } }\n\
         signing = [ { id = \"2026-11\", key = { env = \"WALLET_SIGNING_KEY\" } } ]\n",
    );
    let [minimal, reference] = [minimal.as_str(), "config/reference.toml"].map(|config| {
        let settings = load(config, "127.0.0.1:9000", &[]).unwrap_or_else(|found| panic!("{}", lines(&found)));
        format!("{settings:#?}")
    });
    assert!(minimal.contains("body_timeout: 30s"), "{minimal}");
    assert_eq!(minimal.lines().count(), reference.lines().count());
    let differing: Vec<_> = minimal.lines().zip(reference.lines()).filter(|(one, other)| one != other).collect();
    assert_eq!(differing, [("", ""); 0]);
}

// threat: D2, G12
#[test]
fn every_invalid_config_gets_the_complaints_it_expects() {
    let configs = files("tests/invalid");
    assert_eq!(configs.len(), 38);
    for path in configs {
        assert_complaints(&path, &complaints_of(&path));
    }
}

#[test]
fn every_invalid_dialect_gets_the_complaints_it_expects() {
    let dialects = files("tests/invalid/dialects");
    assert_eq!(dialects.len(), 27);
    for path in dialects {
        assert_complaints(&path, &complaints_of_dialect(&path));
    }
}

// threat: G12
#[test]
fn no_complaint_shows_a_secret() {
    let mut complained = 0;
    for path in files("tests/invalid") {
        for complaint in complaints_of(&path) {
            assert!(!complaint.to_string().contains("canary"), "{complaint}");
            complained += 1;
        }
    }
    assert!(complained > 50, "{complained}");
}

/// What stands in an argument is seen by everybody on the machine, so a secret cannot stand there.
// threat: C14
#[test]
fn an_argument_takes_no_secret_and_does_not_show_the_one_that_was_tried() {
    let folder = Folder::new("config-argument");
    let config = folder.write("config.toml", WALLET);
    for set in [
        "admin_token=canary-canary-canary",
        "admin_token=[\"canary-canary-canary\"]",
        "admin_token={ env = \"canary-canary-canary\" }",
        "revocation.redis.password=canary-canary-canary",
        "caller=[{ name = \"a\", bearer = \"canary-canary-canary\" }]",
        "caller=[{ name = \"a\", signing = [{ id = \"1\", key = \"canary-canary-canary\" }] }]",
    ] {
        let found = lines(&load(&config, "127.0.0.1:9", &["admin=127.0.0.1:0", set]).unwrap_err());
        assert!(!found.contains("canary"), "{set}: {found}");
    }
}

/// `/metrics` is for those on the same host unless somebody says otherwise: without an address there is none.
// threat: F11
#[test]
fn the_admin_address_is_there_when_it_is_named_and_on_the_loopback_in_every_example() {
    let folder = Folder::new("config-admin");
    let config = folder.write("config.toml", WALLET);
    let flags = Flags {
        config: config.into(),
        listen: Some("127.0.0.1:1".to_owned()),
        upstream: Some("127.0.0.1:2".to_owned()),
        ..Flags::default()
    };
    assert_eq!(Settings::load(&flags, &secret_variable, DigestKey::new([7; 32])).unwrap().admin, None);
    for config in files("config") {
        let flags = Flags { config: config.clone(), ..Flags::default() };
        let admin = Settings::load(&flags, &secret_variable, DigestKey::new([7; 32])).unwrap().admin;
        assert_eq!(admin.as_deref(), Some("127.0.0.1:9901"), "{config:?}");
    }
}

#[test]
fn a_mistake_in_a_dialect_file_is_told_with_the_place_in_that_file() {
    let folder = Folder::new("config-dialect");
    std::fs::copy(root().join("tests/invalid/dialects/unknown-filter.toml"), folder.path().join("own.toml")).unwrap();
    let config = folder.write("config.toml", &WALLET.replace("\"wallet\"", "\"./own.toml\""));
    let complaints = load(&config, "127.0.0.1:9000", &[]).unwrap_err();
    let expected = format!("{}:10:11: filter `|md5` is unknown", folder.path().join("./own.toml").display());
    assert!(lines(&complaints).starts_with(&expected), "{}", lines(&complaints));
}

#[test]
fn a_dialect_may_be_a_file_beside_the_config() {
    let folder = Folder::new("config-beside");
    std::fs::copy(root().join("config/dialects/wallet.toml"), folder.path().join("own.toml")).unwrap();
    let config = folder.write("config.toml", &WALLET.replace("\"wallet\"", "\"own.toml\""));
    let settings = load(&config, "127.0.0.1:9000", &[]).unwrap();
    assert_eq!(settings.dialect.routes.iter().count(), 6);
}

#[test]
fn a_secret_file_ends_before_its_last_line_end() {
    for (name, text) in [("lf", "canary-secret\n"), ("crlf", "canary-secret\r\n"), ("bare", "canary-secret")] {
        let folder = Folder::new(&format!("config-secret-{name}"));
        folder.write("password", text);
        let config = folder.write("config.toml", &WALLET.replace("env = \"WALLET_PASSWORD\"", "file = \"password\""));
        let settings = load(&config, "127.0.0.1:9000", &[]).unwrap();
        let expected = basic("a", "canary-secret");
        assert_eq!(settings.authorizations[0].as_ref().unwrap().expose(), expected.as_bytes(), "{name}");
    }
}

#[test]
fn flags_win_over_the_file() {
    let set = ["limits.body=128KiB", "limits.body=100", "token.length=[14,64]", "threads=3", "timeouts.total=250ms"];
    let flags = Flags {
        config: root().join("config/wallet.toml"),
        listen: Some("127.0.0.1:1".to_owned()),
        upstream: Some("[::1]:2".to_owned()),
        admin: Some("localhost:3".to_owned()),
        set: set.map(str::to_owned).to_vec(),
    };
    let settings = Settings::load(&flags, &secret_variable, DigestKey::new([7; 32])).unwrap();
    assert_eq!(settings.listen, "127.0.0.1:1");
    assert_eq!(settings.upstream, "[::1]:2");
    assert_eq!(settings.admin.as_deref(), Some("localhost:3"));
    assert_eq!(settings.limits.body, 100);
    assert_eq!(settings.threads, 3);
    assert_eq!(settings.upstream_limits.total, Duration::from_millis(250));
    let rule = settings.dialect.token.unwrap().rule;
    assert_eq!((rule.shortest, rule.longest), (14, 64));
}

#[test]
fn set_takes_every_type() {
    let folder = Folder::new("config-set");
    let config = folder.write("config.toml", WALLET);
    let good = [
        "listen=127.0.0.1:1",
        "listen=\"127.0.0.1:1\"",
        "limits.body=65536",
        "limits.body=64KiB",
        "timeouts.read=5",
        "timeouts.read='5s'",
        "token.length=[1, 2]",
        "token={ length = [1, 2], settlement = \"admit\" }",
        "drain.timeout=2h",
    ];
    for set in good {
        assert_eq!(load(&config, "127.0.0.1:9", &[set]).map(|_| ()).map_err(|found| lines(&found)), Ok(()), "{set}");
    }
    let bad = [
        ("limits.bodi=1", "--set limits.bodi: unknown key `limits.bodi`; did you mean `body`?"),
        ("limits=1", "--set limits: `limits` must be a table, under [limits] or in { }, found an integer"),
        ("threads=four", "--set threads: `threads` must be an integer from 0 to 1024, found a string"),
        ("dialect.name=x", "--set dialect.name: `dialect` is a string, not a table"),
        ("limits.body", "--set: must be KEY=VALUE such as limits.body=65536"),
        ("=1", "--set: KEY in KEY=VALUE must be words of A-Z a-z 0-9 - _ joined by dots, such as limits.body"),
    ];
    for (set, expected) in bad {
        let found = load(&config, "127.0.0.1:9", &[set]).map(|_| ()).map_err(|found| lines(&found));
        assert_eq!(found, Err(expected.to_owned()), "{set}");
    }
}

#[test]
fn a_store_is_reached_as_its_keys_say_or_not_at_all() {
    let folder = Folder::new("config-store");
    let config = folder.write("config.toml", WALLET);
    let load = |set: &[&str]| load(&config, "127.0.0.1:9", set).map_err(|found| lines(&found));
    let nodes = |set: &[&str]| load(set).unwrap().revocation.sharing.unwrap().store.nodes;
    let node = |host: &str, port: u16| (host.to_owned(), port);
    assert_eq!(nodes(&["revocation.redis.url=redis://redis"]), [node("redis", 6379)]);
    assert_eq!(nodes(&["revocation.redis.url=redis://10.0.0.1:1/3"]), [node("10.0.0.1", 1)]);
    assert_eq!(nodes(&["revocation.redis.url=rediss://[::1]:2"]), [node("::1", 2)]);
    let several = "revocation.redis.url=[\"redis://a\", \"redis://b:1\"]";
    let sentinel = "revocation.redis.sentinel=mymaster";
    let cluster = "revocation.redis.cluster=true";
    assert_eq!(nodes(&[several, sentinel]), [node("a", 6379), node("b", 1)]);
    assert_eq!(nodes(&[several, cluster]).len(), 2);
    let bad: [(&[&str], &str); 5] = [
        (&[several], "several addresses need sentinel = \"NAME\" or cluster = true"),
        (&[several, sentinel, cluster], "watched by Sentinels or is a cluster, not both"),
        (&["revocation.redis.url=redis://a/1", cluster], "a cluster has only database 0"),
        (&["revocation.redis.url=redis://a", "revocation.redis.ca=config.toml"], "write url = \"rediss://…\""),
        (&["revocation.redis.url=rediss://a", "revocation.redis.certificate=config.toml"], "come together"),
    ];
    for (set, part) in bad {
        let found = load(set).unwrap_err();
        assert!(found.contains(part) && found.lines().count() == 1, "{found}");
    }
}

#[test]
fn tls_to_the_pam_needs_someone_to_trust_and_files_that_fit() {
    let folder = Folder::new("config-upstream-tls");
    let config = folder.write("config.toml", WALLET);
    let authority = Authority::new("pam");
    folder.write("ca.pem", &authority.pem);
    for name in ["one", "other"] {
        let issued = authority.issue(&[name]);
        folder.write(&format!("{name}.pem"), &issued.certificate);
        folder.write(&format!("{name}.key"), &issued.key);
    }
    let load = |set: &str| {
        let set: Vec<String> = set.split(' ').map(|set| format!("upstream_tls.{set}")).collect();
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        load(&config, "pam:9", &set).map_err(|found| lines(&found))
    };
    assert!(load("ca=ca.pem").unwrap().upstream_tls.is_some());
    assert!(load("ca=ca.pem name=10.0.0.1 certificate=one.pem key=one.key").is_ok());
    for (set, part) in [
        ("name=pam", "either ca = \"file.pem\" or roots = \"system\""),
        ("ca=ca.pem roots=system", "either ca = \"file.pem\" or roots = \"system\""),
        ("roots=mine", "`upstream_tls.roots` must be"),
        ("ca=none.pem", "--set upstream_tls.ca: cannot read"),
        ("ca=one.key", "one.key has no certificate in PEM"),
        ("ca=ca.pem name=a/b", "--set upstream_tls.name: `a/b` is no host name and no address"),
        ("ca=ca.pem key=one.key", "come together"),
        ("ca=ca.pem certificate=one.pem key=one.pem", "--set upstream_tls.key:"),
        ("ca=ca.pem certificate=one.pem key=other.key", "does not belong to the certificate"),
    ] {
        let found = load(set).unwrap_err();
        assert!(found.contains(part), "{set}: {found}");
        assert!(!found.contains("PRIVATE KEY-----\n"), "{found}");
    }
}

#[test]
fn a_version_of_http_that_is_to_be_agreed_on_needs_tls() {
    let folder = Folder::new("config-upstream-protocol");
    let config = folder.write("config.toml", WALLET);
    folder.write("ca.pem", &Authority::new("pam").pem);
    let load = |set: &[&str]| load(&config, "pam:9", set).map_err(|found| lines(&found));
    let protocol = |set: &[&str]| load(set).unwrap().upstream_protocol;
    let tls = "upstream_tls.ca=ca.pem";
    assert_eq!(protocol(&[]), Protocol::Http1);
    assert_eq!(protocol(&["upstream_protocol=http1", tls]), Protocol::Http1);
    assert_eq!(protocol(&["upstream_protocol=http2"]), Protocol::Http2);
    assert_eq!(protocol(&["upstream_protocol=auto", tls]), Protocol::Auto);
    for (set, part) in [
        ("upstream_protocol=auto", "--set upstream_protocol: `upstream_protocol` can be agreed on under TLS only"),
        ("upstream_protocol=h2", "--set upstream_protocol: `upstream_protocol` must be"),
        ("upstream_protocol=2", "--set upstream_protocol: `upstream_protocol` must be"),
    ] {
        let found = load(&[set]).unwrap_err();
        assert!(found.contains(part) && found.lines().count() == 1, "{found}");
    }
}

#[test]
fn what_is_set_may_mend_what_the_file_lacks() {
    let folder = Folder::new("config-mend");
    let config = folder.write("config.toml", &WALLET.replace("dialect = \"wallet\"\n", ""));
    assert_eq!(load(&config, "127.0.0.1:9", &[]).unwrap_err().len(), 1);
    assert!(load(&config, "127.0.0.1:9", &["dialect=wallet"]).is_ok());
}

#[test]
fn a_file_that_is_not_there_is_the_only_complaint() {
    let complaints = load("no/such.toml", "127.0.0.1:9", &[]).unwrap_err();
    assert_eq!(complaints.len(), 1);
    assert!(complaints[0].message.contains("No such file or directory"), "{}", complaints[0]);
}

#[test]
fn an_address_is_an_ip_or_a_name_and_a_port() {
    let with = |upstream: &str| load("config/wallet.toml", upstream, &[]).is_ok();
    for good in ["127.0.0.1:9000", "[::1]:9000", "pam:80", "pam.example.com:443", "my_pam-1:65535"] {
        assert!(with(good), "{good}");
    }
    for bad in
        ["", ":80", "pam", "pam:", "pam:http", "pam:65536", "::1:80", "http://pam:80", "pam/x:80", "a b:80", "ü:80"]
    {
        assert!(!with(bad), "{bad}");
    }
}

/// A config without addresses, for flags to complete.
const WALLET: &str = "dialect = \"wallet\"
[[caller]]
name = \"a\"
basic = { username = \"a\", password = { env = \"WALLET_PASSWORD\" } }
signing = [ { id = \"1\", key = { env = \"WALLET_SIGNING_KEY\" } } ]
";

fn complaints_of(path: &Path) -> Vec<Complaint> {
    let flags = Flags { config: path.to_owned(), ..Flags::default() };
    match Settings::load(&flags, &environment, DigestKey::new([7; 32])) {
        Ok(_) => panic!("{path:?} loads"),
        Err(complaints) => complaints,
    }
}

fn complaints_of_dialect(path: &Path) -> Vec<Complaint> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut complaints = Complaints::default();
    let dialect = dialect::read(path.to_str().unwrap(), &text, &Overrides::default(), &mut complaints);
    assert!(dialect.is_none(), "{path:?} reads");
    complaints.into_vec()
}

/// The first lines of the file say what is expected, one complaint each: `#! LINE:COLUMN PART OF THE MESSAGE`.
fn assert_complaints(path: &Path, complaints: &[Complaint]) {
    let text = std::fs::read_to_string(path).unwrap();
    let expected: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("#! ")).collect();
    assert_ne!(expected.len(), 0, "{path:?} expects nothing");
    assert_eq!(complaints.len(), expected.len(), "{path:?}:\n{}", lines(complaints));
    for (complaint, expected) in complaints.iter().zip(expected) {
        let (place, part) = expected.split_once(' ').unwrap();
        assert_eq!(complaint.place.to_string(), format!("{}:{place}", path.display()), "{complaint}");
        assert!(complaint.message.contains(part), "{complaint}\nis not: {part}");
    }
}

/// The environment of the invalid configs: the one of all tests, and a few bad variables.
fn environment(name: &str) -> Option<String> {
    match name {
        "EMPTY" => Some(String::new()),
        "BLANK" => Some(" \t\n".to_owned()),
        "SHORT" => Some("canary-15-chars".to_owned()),
        "SEVEN" => Some("canary7".to_owned()),
        "EIGHT" => Some("canary-8".to_owned()),
        "SPACED" => Some("canary with blanks in it".to_owned()),
        _ => secret_variable(name),
    }
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.".contains(&byte))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    files.sort();
    files
}

fn lines(complaints: &[Complaint]) -> String {
    complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
