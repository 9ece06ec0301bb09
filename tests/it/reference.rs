//! Every key: what the page and the schemas say of it is what the code does with it.

use std::collections::BTreeSet;
use std::path::Path;

use jsonschema::Validator;
use portcullis::config::keys::{self, page, schema};
use portcullis::config::paper::{self, Complaints};
use portcullis::config::shape::Shape;
use portcullis::config::{Flags, Settings};
use portcullis::dialect::{self, Dialect, Overrides};
use portcullis::secret::DigestKey;
use serde_json::{Value, json};
use toml::de::{DeTable, DeValue};

use crate::world::{Folder, load, root, secret_variable};

#[test]
fn the_pages_and_the_schemas_are_what_the_code_says() {
    compare("config/guide/config.md", &page::config());
    compare("config/guide/dialect-keys.md", &page::dialect());
    compare("config/schema/portcullis.json", &schema::schema(&keys::config()));
    compare("config/schema/dialect.json", &schema::schema(&keys::dialect()));
}

fn compare(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let renew = "UPDATE_REFERENCE=1 cargo test --quiet --test it -- reference";
    assert!(written == text, "{path} is not what the code says: {renew}");
}

#[test]
fn of_every_key_it_is_said_what_it_may_hold_and_what_it_is_for() {
    for (keys, page) in [(keys::config(), page::config()), (keys::dialect(), page::dialect())] {
        let schema: Value = serde_json::from_str(&schema::schema(&keys)).unwrap();
        let mut described = 0;
        for (path, asked) in keys.asked() {
            assert!(asked.shape.is_some(), "{path}");
            // The keys of conditions are free, and a table whose keys are told needs no words.
            if path.ends_with('*') || matches!(asked.shape, Some(Shape::Table)) {
                continue;
            }
            let mut at = &schema;
            for step in path.split('.') {
                at = below(at, step.trim_end_matches("[]")).unwrap_or_else(|| panic!("{path}"));
            }
            assert!(at["description"].as_str().is_some_and(|text| text.len() > 10), "{path}: {at}");
            let name = path.rsplit('.').next().unwrap();
            assert!(
                page.contains(&format!("`{path}`"))
                    || page.contains(&format!("`{path}[]`"))
                    || page.contains(&format!("`{name}`")),
                "{path}"
            );
            described += 1;
        }
        assert!(described > 60, "{described}");
    }
}

/// The schema of a key in one of a table, wherever in it the table is.
fn below<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    let ways = schema["anyOf"].as_array().map_or(&[][..], Vec::as_slice);
    let found = schema["properties"].get(name).or_else(|| schema["items"]["properties"].get(name));
    found.or_else(|| ways.iter().find_map(|way| below(way, name)))
}

#[test]
fn the_dialect_with_every_key_reads_and_has_none_besides() {
    let text = std::fs::read_to_string(root().join("config/guide/dialect.toml")).unwrap();
    let mut complaints = Complaints::default();
    let table = paper::parse("dialect", &text, &mut complaints);
    // Pointers are free keys.
    let written: BTreeSet<String> = table.written().into_iter().map(|key| free(&key)).collect();
    assert_eq!(written, dialect::keys().into_keys().collect());
    assert!(dialect_of(&text).is_ok(), "{:?}", dialect_of(&text).err());
}

fn free(path: &str) -> String {
    path.split_once(".\"").map_or(path.to_owned(), |(path, _)| format!("{path}.*"))
}

#[test]
fn every_default_is_what_counts_without_the_key() {
    let folder = Folder::new("reference-defaults");
    let minimal = "dialect = \"wallet\"\n[[caller]]\nname = \"a\"\n\
                   basic = { username = \"a\", password = { env = \"WALLET_PASSWORD\" } }\n\
                   signing = [ { id = \"1\", key = { env = \"WALLET_SIGNING_KEY\" } } ]\n";
    let config = folder.write("config.toml", minimal);
    let said = |set: &[&str]| {
        format!("{:?}", load(&config, "127.0.0.1:9", set).unwrap_or_else(|found| panic!("{set:?} {found:?}")))
    };
    let mut tried = 0;
    for (path, asked) in keys::config().asked() {
        let Some(usual) = &asked.usual else { continue };
        let set = format!("{path}={usual}");
        // Without these there is nothing that the key could be about.
        let needed: &[&str] = match path.as_str() {
            "revocation.on_damage" => &["revocation.journal=journal"],
            "tls.client_auth" => continue,
            path if path.starts_with("revocation.") => &["revocation.redis.url=redis://redis"],
            "replay.shared" => &["revocation.redis.url=redis://redis"],
            _ => &[],
        };
        assert_eq!(said(&[needed, &[set.as_str()]].concat()), said(needed), "{path}");
        tried += 1;
    }
    assert!(tried > 40, "{tried}");

    let mut tried = 0;
    let whole = json_of(&std::fs::read_to_string(root().join("config/guide/dialect.toml")).unwrap()).unwrap();
    for (path, asked) in dialect::keys() {
        let Some(usual) = asked.usual else { continue };
        let said = |value: Option<Value>| format!("{:?}", dialect_of(&toml_of(&with(&whole, &path, value))).unwrap());
        let usual = json_of(&format!("usual = {usual}")).unwrap()["usual"].clone();
        assert_eq!(said(Some(usual)), said(None), "{path}");
        tried += 1;
    }
    assert!(tried > 30, "{tried}");
}

#[test]
fn every_file_of_the_repository_fits_its_schema_and_names_it() {
    for (folder, schema, way) in [
        ("config", "portcullis", Some("schema")),
        ("config/dialects", "dialect", Some("../schema")),
        ("config/guide", "dialect", Some("../schema")),
        ("tests/vectors/dialects", "dialect", None),
    ] {
        let validator = validator(&of(schema));
        let mut checked = 0;
        for (name, text) in files(folder) {
            let document = json_of(&text).unwrap();
            assert_eq!(faults(&validator, &document), [""; 0], "{folder}/{name}");
            let first = text.lines().next();
            let named = way.map(|way| format!("#:schema {way}/{schema}.json"));
            assert!(named.is_none_or(|named| first == Some(&*named)), "{folder}/{name}");
            checked += 1;
        }
        assert_ne!(checked, 0, "{folder}");
    }
}

/// What an editor can tell of the configs that `check` refuses. The others need more than one key, a file or a variable.
#[test]
fn the_schemas_refuse_the_mistakes_that_are_about_one_key() {
    let refused = |folder: &str, schema: &str| -> BTreeSet<String> {
        let validator = validator(&of(schema));
        let refused = files(folder).into_iter().filter(|(_, text)| {
            // What is no TOML is no matter of a schema.
            json_of(text).is_none_or(|document| !validator.is_valid(&document))
        });
        refused.map(|(name, _)| name.trim_end_matches(".toml").to_owned()).collect()
    };
    let expected = CONFIGS.into_iter().map(str::to_owned).collect();
    assert_eq!(refused("tests/invalid", "portcullis"), expected);
    let expected = DIALECTS.into_iter().map(str::to_owned).collect();
    assert_eq!(refused("tests/invalid/dialects", "dialect"), expected);
}

const CONFIGS: [&str; 20] = [
    "a-secret-itself",
    "bad-addresses",
    "bad-admin-token",
    "both-env-and-file",
    "caller-without-proof",
    "log",
    "modes",
    "no-bearer-keys",
    "no-callers",
    "no-keys",
    "nothing",
    "out-of-range",
    "several-at-once",
    "sharing",
    "syntax",
    "tls",
    "trace",
    "unknown-keys",
    "upstream-tls",
    "wrong-types",
];

const DIALECTS: [&str; 12] = [
    "bad-dead",
    "bad-endings",
    "bad-grace",
    "bad-places",
    "bad-reply",
    "bad-routes",
    "missing-reply",
    "no-reply",
    "no-routes",
    "nothing",
    "timestamp-that-is-not-packed",
    "unknown-words",
];

/// Each key with values of all kinds: a schema that refuses what is right would be turned off, and one that lets pass what
/// is of the wrong kind helps nobody.
#[test]
fn the_schemas_and_the_code_agree_about_every_key() {
    let whole = json_of(&std::fs::read_to_string(root().join("config/reference.toml")).unwrap()).unwrap();
    let flags = Flags { config: root().join("config/reference.toml"), ..Flags::default() };
    let settings = |text: &str| match Settings::parse(text, &flags, &secret_variable, DigestKey::new([7; 32])) {
        Ok(_) => Vec::new(),
        Err(found) => found.into_iter().map(|complaint| complaint.message).collect(),
    };
    agree(&keys::config(), &validator(&keys::config()), &whole, settings);
    let whole = json_of(&std::fs::read_to_string(root().join("config/guide/dialect.toml")).unwrap()).unwrap();
    agree(&keys::dialect(), &validator(&keys::dialect()), &whole, |text| dialect_of(text).err().unwrap_or_default());
}

fn agree(keys: &keys::Keys, validator: &Validator, whole: &Value, complaints: impl Fn(&str) -> Vec<String>) {
    let mut refused = [0, 0];
    for (path, asked) in keys.asked() {
        let missing = with(whole, path, None);
        // Where the table is not there, one made for it may lack what it needs besides.
        if asked.needed || at(whole, path).is_some() {
            assert_eq!(validator.is_valid(&missing), !asked.needed, "{path} left out");
        }
        for value in values() {
            let document = with(whole, path, Some(value.clone()));
            let found = complaints(&toml_of(&document));
            let fits = validator.is_valid(&document);
            if !fits {
                assert_ne!(found, [""; 0], "the schema alone refuses {path} = {value}");
                refused[0] += 1;
            }
            let kind = format!("`{}", path.trim_end_matches('*'));
            let of_kind = |message: &String| message.starts_with(&kind) && message.contains(", found ");
            if found.iter().any(of_kind) {
                assert!(!fits, "the schema lets pass {path} = {value}: {found:?}");
                refused[1] += 1;
            }
        }
        // A key beside it that nobody knows.
        if let Some((table, _)) = path.rsplit_once('.').filter(|(_, name)| *name != "*") {
            let document = with(whole, &format!("{table}.nobody"), Some(1.into()));
            assert!(!validator.is_valid(&document), "{table}.nobody");
            assert!(
                complaints(&toml_of(&document)).iter().any(|message| message.starts_with("unknown key")),
                "{table}"
            );
        }
    }
    assert!(refused.iter().all(|count| *count > 1000), "{refused:?}");
}

/// Something of every kind that some key takes, and some that none does.
fn values() -> Vec<Value> {
    let secret = json!({ "env": "WALLET_PASSWORD" });
    vec![
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(500),
        json!(5_000_000_000_u64),
        json!(""),
        json!("x"),
        json!("5s"),
        json!("0s"),
        json!("64KiB"),
        json!("10%"),
        json!("101%"),
        json!("header:X"),
        json!("json:/a"),
        json!("/a"),
        json!("POST /a"),
        json!("127.0.0.1:1"),
        json!("redis://a"),
        json!("enforce"),
        json!("none"),
        json!([]),
        json!(["x"]),
        json!(["/a", "/b"]),
        json!(["credential"]),
        json!([1]),
        json!([1, 2]),
        json!([true]),
        json!([[]]),
        json!({}),
        json!({ "x": 1 }),
        json!({ "/a": 1.5 }),
        json!([{}]),
        secret.clone(),
        json!([secret]),
        json!([secret, "x"]),
        json!({ "env": "WALLET_PASSWORD", "file": "x" }),
    ]
}

fn of(schema: &str) -> keys::Keys {
    if schema == "dialect" { keys::dialect() } else { keys::config() }
}

fn validator(keys: &keys::Keys) -> Validator {
    let schema = serde_json::from_str(&schema::schema(keys)).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

fn faults(validator: &Validator, document: &Value) -> Vec<String> {
    validator.iter_errors(document).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

fn dialect_of(text: &str) -> Result<Dialect, Vec<String>> {
    let mut complaints = Complaints::default();
    // For those that sign it.
    let overrides = Overrides { public_url: Some("https://pam.example".to_owned()), ..Overrides::default() };
    let dialect = dialect::read("dialect", text, &overrides, &mut complaints);
    dialect.ok_or_else(|| complaints.into_vec().into_iter().map(|complaint| complaint.message).collect())
}

/// The TOML files of a folder, with their names.
fn files(folder: &str) -> Vec<(String, String)> {
    let paths = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let is_toml = |path: &std::path::PathBuf| path.extension().is_some_and(|kind| kind == "toml");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> =
        paths.filter(is_toml).map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect();
    files.sort();
    files
}

/// A TOML document as the JSON that a validator sees.
fn json_of(text: &str) -> Option<Value> {
    Some(object_of(DeTable::parse(text).ok()?.into_inner()))
}

fn object_of(table: DeTable<'_>) -> Value {
    Value::Object(
        table.into_iter().map(|(key, value)| (key.into_inner().into_owned(), value_of(value.into_inner()))).collect(),
    )
}

fn value_of(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.into_owned().into(),
        DeValue::Integer(number) => serde_json::from_str(number.as_str()).unwrap(),
        DeValue::Float(number) => serde_json::from_str(number.as_str()).unwrap(),
        DeValue::Boolean(truth) => truth.into(),
        DeValue::Datetime(moment) => moment.to_string().into(),
        DeValue::Array(values) => values.into_iter().map(|value| value_of(value.into_inner())).collect(),
        DeValue::Table(table) => object_of(table),
    }
}

/// The other way round: every value of a key in one line.
fn toml_of(document: &Value) -> String {
    let lines = document.as_object().unwrap().iter().map(|(key, value)| format!("{key:?} = {}\n", inline(value)));
    lines.collect()
}

fn inline(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key:?} = {}", inline(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// What stands at a path; of an array, in its first table.
fn at<'d>(document: &'d Value, path: &str) -> Option<&'d Value> {
    path.split('.').try_fold(document, |at, step| match step.strip_suffix("[]") {
        Some(name) => at.get(name)?.get(0),
        None => at.get(step),
    })
}

/// The document with another value at a path, or without one; of an array, in its first table.
fn with(document: &Value, path: &str, value: Option<Value>) -> Value {
    let mut document = document.clone();
    let mut at = &mut document;
    let (way, last) = path.rsplit_once('.').map_or((None, path), |(way, last)| (Some(way), last));
    for step in way.into_iter().flat_map(|way| way.split('.')) {
        let (name, several) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        let entry =
            at.as_object_mut().unwrap().entry(name).or_insert_with(|| if several { json!([{}]) } else { json!({}) });
        at = if several { &mut entry[0] } else { entry };
    }
    let last = if last == "*" { "/any" } else { last };
    let table = at.as_object_mut().unwrap();
    match value {
        Some(value) => drop(table.insert(last.to_owned(), value)),
        None => drop(table.remove(last)),
    }
    document
}
