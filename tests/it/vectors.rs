//! Published signatures, each verified by a dialect file: through the gate alone, and through sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use portcullis::config::paper::Complaints;
use portcullis::credential::password::PasswordQuestion;
use portcullis::credential::replay::{ReplayKey, Replays, Ticket};
use portcullis::denial::Denial;
use portcullis::dialect::{self, Overrides};
use portcullis::gate::{Ask, Gate, Trail};
use portcullis::mode::Modes;
use portcullis::origin::Origin;
use portcullis::request::{Head, HeadLimits, Whence};
use portcullis::revocation::{Revocations, Room};
use portcullis::secret::SecretDigest;
use portcullis::tls::names::Names;
use portcullis::token::{Standing, TokenDigest};
use serde::Deserialize;

use crate::world::{Folder, Request, World, load, root};

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    source: String,
    dialect: String,
    key_id: Option<String>,
    secret: String,
    #[serde(default)]
    wrong_secrets: Vec<String>,
    timestamp: Option<u64>,
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    body: String,
    signature: String,
}

#[test]
fn every_dialect_file_reads_and_has_its_vectors() {
    let names: BTreeSet<String> = std::fs::read_dir(folder().join("dialects"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 9);
    let overrides = Overrides { public_url: Some("https://webhook.site".to_owned()), ..Overrides::default() };
    for name in &names {
        let text = std::fs::read_to_string(folder().join(format!("dialects/{name}.toml"))).unwrap();
        let mut complaints = Complaints::default();
        let dialect = dialect::read(name, &text, &overrides, &mut complaints);
        assert!(dialect.is_some_and(|dialect| *dialect.name == **name), "{:?}", complaints.into_vec());
    }
    let vectors = vectors();
    assert_eq!(vectors.len(), 14);
    assert_eq!(vectors.iter().map(|vector| vector.dialect.clone()).collect::<BTreeSet<_>>(), names);
    let no_source = |vector: &&Vector| !vector.source.starts_with("https://");
    assert_eq!(vectors.iter().filter(no_source).map(|vector| &vector.id).collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test]
async fn every_published_signature_passes_the_gate_alone() {
    for vector in vectors() {
        let gate = vector.gate(&[&vector.secret]);
        assert_eq!(vector.judge(&gate, &vector.request()).await, Ok(Some(0)), "{}", vector.id);
    }
}

#[tokio::test]
async fn every_published_signature_passes_over_sockets() {
    for vector in vectors() {
        let (_folder, world) = vector.world(&[&vector.secret]).await;
        assert_eq!(world.send(&vector.request()).await.status, 200, "{}", vector.id);
        let seen = world.pam.only_request();
        assert_eq!(seen.body, vector.body.as_bytes(), "{}", vector.id);
        assert_eq!(seen.target, vector.target(), "{}", vector.id);
    }
}

// threat: D1
#[tokio::test]
async fn one_flipped_bit_anywhere_in_a_signature_is_refused() {
    for vector in vectors() {
        let gate = vector.gate(&[&vector.secret]);
        let (name, value) = vector.headers.iter().find(|(_, value)| value.contains(&vector.signature)).unwrap();
        let start = value.find(&vector.signature).unwrap();
        for at in start..start + vector.signature.len() {
            // The lowest bit: it never leads from one spelling of a digit to the other.
            let request = vector.request().replacing(name, &flipped(value, at));
            assert_ne!(vector.judge(&gate, &request).await.err(), None, "{} {at}", vector.id);
        }
    }
}

// threat: D3
#[tokio::test]
async fn one_flipped_bit_anywhere_in_a_body_is_refused() {
    for vector in vectors() {
        let gate = vector.gate(&[&vector.secret]);
        for at in 0..vector.body.len() {
            let mut body = vector.body.clone().into_bytes();
            body[at] ^= 1 << (at % 8);
            let request = vector.request().body(body);
            assert_ne!(vector.judge(&gate, &request).await.err(), None, "{} {at}", vector.id);
        }
    }
}

// threat: D4
// threat: D5
#[tokio::test]
async fn white_space_may_be_added_between_the_pieces_of_a_body_and_nowhere_else() {
    let mut tried = 0;
    let compact = |vector: &&Vector| vector.id.starts_with("betstack") && vector.id.ends_with("compact");
    for vector in vectors().iter().filter(compact) {
        let gate = vector.gate(&[&vector.secret]);
        let is_piece = |at: usize| vector.body.as_bytes().get(at).is_some_and(|byte| b"{}[],:".contains(byte));
        let mut inside = false;
        for (at, byte) in vector.body.bytes().enumerate() {
            let between = !inside && (is_piece(at) || at.checked_sub(1).is_some_and(is_piece));
            let body = format!("{} {}", &vector.body[..at], &vector.body[at..]);
            let judged = vector.judge(&gate, &vector.request().body(body)).await;
            assert_eq!(judged.is_ok(), between, "{} {at}", vector.id);
            inside ^= byte == b'"';
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}

#[tokio::test]
async fn another_timestamp_within_the_tolerance_is_refused() {
    let mut tried = 0;
    for vector in vectors() {
        let Some(request) = vector.with_another_timestamp() else { continue };
        let gate = vector.gate(&[&vector.secret]);
        assert_eq!(vector.judge(&gate, &request).await, Err(Denial::SignatureWrong), "{}", vector.id);
        tried += 1;
    }
    assert_eq!(tried, 9);
}

#[tokio::test]
async fn a_timestamp_beyond_the_tolerance_is_refused() {
    let mut tried = 0;
    for vector in vectors() {
        let gate = vector.gate(&[&vector.secret]);
        let Some(rule) = gate.dialect.signature.as_ref().and_then(|scheme| scheme.timestamp.as_ref()) else { continue };
        let after = vector.now() + rule.tolerance + Duration::from_secs(1);
        let before = vector.now() - rule.tolerance - Duration::from_secs(1);
        let request = vector.request();
        assert_eq!(vector.judge_at(&gate, &request, after).await, Err(Denial::Stale), "{}", vector.id);
        assert_eq!(vector.judge_at(&gate, &request, before).await, Err(Denial::Early), "{}", vector.id);
        tried += 1;
    }
    assert_eq!(tried, 9);
}

// threat: D1
// threat: D3
#[tokio::test]
async fn a_forged_call_never_reaches_the_pam() {
    for vector in vectors() {
        let (_folder, world) = vector.world(&[&vector.secret]).await;
        let (name, value) = vector.headers.iter().find(|(_, value)| value.contains(&vector.signature)).unwrap();
        let middle = value.find(&vector.signature).unwrap() + vector.signature.len() / 2;
        let mut forged = vec![
            vector.request().replacing(name, &flipped(value, middle)),
            vector.request().body(flipped(&vector.body, last_alphanumeric(&vector.body))),
        ];
        forged.extend(vector.with_another_timestamp());
        for request in forged {
            let reply = world.send(&request).await;
            assert_eq!((reply.status, reply.text().as_str()), (401, UNAUTHENTICATED), "{}", vector.id);
        }
        world.pam.assert_untouched();
    }
}

// threat: D15
#[tokio::test]
async fn any_of_several_secrets_may_match_and_wrong_ones_alone_refuse() {
    let vector = vectors().into_iter().find(|vector| vector.id == "paddle-py-rotation").unwrap();
    let [one, other] = [0, 1].map(|at| vector.wrong_secrets[at].as_str());
    let right = vector.secret.as_str();
    for (secrets, key) in [([one, other, right], 2), ([right, one, other], 0), ([one, right, other], 1)] {
        let gate = vector.gate(&secrets);
        assert_eq!(vector.judge(&gate, &vector.request()).await, Ok(Some(key)));
    }
    let gate = vector.gate(&[one, other]);
    assert_eq!(vector.judge(&gate, &vector.request()).await, Err(Denial::SignatureWrong));
    let (_folder, world) = vector.world(&[one, other, right]).await;
    assert_eq!(world.send(&vector.request()).await.status, 200);
    let (_folder, world) = vector.world(&[one, other]).await;
    let reply = world.send(&vector.request()).await;
    assert_eq!((reply.status, reply.text().as_str()), (401, UNAUTHENTICATED));
    world.pam.assert_untouched();
}

const UNAUTHENTICATED: &str = r#"{"code":"unauthenticated","message":"not authorized"}"#;

impl Vector {
    /// A config that knows one caller with these secrets, the oldest first, in a folder of its own.
    fn config(&self, secrets: &[&str]) -> (Folder, String) {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let temporary = Folder::new(&format!("vector-{count}"));
        let mut text = format!(
            "dialect = \"{}\"\nsignature.url = \"{}\"\n[[caller]]\nname = \"sender\"\n",
            folder().join(format!("dialects/{}.toml", self.dialect)).display(),
            self.origin(),
        );
        if let Some(key_id) = &self.key_id {
            text.push_str(&format!("key_id = \"{key_id}\"\n"));
        }
        for (at, secret) in secrets.iter().enumerate() {
            temporary.write(&format!("secret-{at}"), secret);
            text.push_str(&format!("[[caller.signing]]\nid = \"{at}\"\nkey = {{ file = \"secret-{at}\" }}\n"));
        }
        let config = temporary.write("config.toml", &text);
        (temporary, config)
    }

    fn gate(&self, secrets: &[&str]) -> Gate {
        let (_folder, config) = self.config(secrets);
        let settings = load(&config, "127.0.0.1:1", &[]).unwrap();
        let largest_body = settings.limits.body;
        let (dialect, callers, token_key) = (settings.dialect, settings.callers, settings.digest_key);
        Gate { dialect, callers, token_key, learns: false, largest_body, modes: Modes::default() }
    }

    /// A whole Portcullis, for which the moment of signing is not too long ago.
    async fn world(&self, secrets: &[&str]) -> (Folder, World) {
        let (folder, config) = self.config(secrets);
        let world = World::of(&config, &["signature.tolerance=36500d"]).await;
        (folder, world)
    }

    fn request(&self) -> Request {
        let request = Request::new(&self.method, &self.target());
        let request = self.headers.iter().fold(request, |request, (name, value)| request.with(name, value));
        request.body(self.body.clone())
    }

    /// The same one second off, signed as before.
    fn with_another_timestamp(&self) -> Option<Request> {
        let text = self.timestamp?.to_string();
        let (name, value) = self.headers.iter().find(|(_, value)| value.contains(&text)).unwrap();
        let last = value.find(&text).unwrap() + text.len() - 1;
        Some(self.request().replacing(name, &flipped(value, last)))
    }

    /// The index of the key that signed, or why the request is refused at the moment it was signed.
    async fn judge(&self, gate: &Gate, request: &Request) -> Result<Option<usize>, Denial> {
        self.judge_at(gate, request, self.now()).await
    }

    async fn judge_at(&self, gate: &Gate, request: &Request, now: SystemTime) -> Result<Option<usize>, Denial> {
        let limits = HeadLimits { bytes: 32 << 10, fields: 100, target: 8 << 10 };
        let bytes = request.bytes();
        let head = Bytes::copy_from_slice(&bytes[..bytes.len() - request.body.len()]);
        let head = Head::scan(head, &limits).map_err(Denial::Head)?;
        let entry = gate.enter(&head)?;
        let request = portcullis::request::Request { head, body: request.body.clone().into() };
        let mut trail = Trail::default();
        let whence = Whence { origin: Origin::of([127, 0, 0, 1].into()), names: &Names::default() };
        gate.admit(Some(entry), &request, whence, now, &mut trail, &Alone::default()).await?;
        Ok(trail.key)
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.timestamp.unwrap_or(1_700_000_000))
    }

    fn origin(&self) -> &str {
        &self.url[..self.path_start()]
    }

    fn target(&self) -> String {
        self.url[self.path_start()..].to_owned()
    }

    fn path_start(&self) -> usize {
        let authority = self.url.find("://").unwrap() + 3;
        authority + self.url[authority..].find('/').unwrap()
    }
}

/// Answers for a gate without anything around it: nothing was ever seen before.
struct Alone {
    replays: Replays,
    revocations: Revocations,
}

impl Default for Alone {
    fn default() -> Alone {
        Alone {
            replays: Replays::new(1, &["one".into()], Duration::from_secs(1)),
            revocations: Revocations::in_memory(1, Duration::from_secs(1)),
        }
    }
}

impl Ask for Alone {
    async fn password(&self, _: PasswordQuestion, _: SecretDigest) -> Result<Option<usize>, Denial> {
        Ok(None)
    }

    async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.replays.first(key, time).await
    }

    fn first_here(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.replays.first_now(&key, time)
    }

    fn standing_here(&self, _: TokenDigest, _: &[u8]) -> Standing {
        Standing::Alive
    }

    async fn standing(&self, _: TokenDigest, _: &[u8]) -> Result<Standing, Denial> {
        Ok(Standing::Alive)
    }

    fn presumed(&self, _: TokenDigest) -> bool {
        false
    }

    fn rate(&self, _: &str) -> Result<(), Denial> {
        Ok(())
    }

    fn counts_failures(&self, _: bool) -> bool {
        false
    }

    fn room(&self) -> Result<Room, Denial> {
        self.revocations.room()
    }
}

/// The text with the lowest bit of one of its bytes turned over.
fn flipped(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] ^= 1;
    String::from_utf8(bytes).unwrap()
}

fn last_alphanumeric(text: &str) -> usize {
    text.rfind(|one: char| one.is_ascii_alphanumeric()).unwrap()
}

fn vectors() -> Vec<Vector> {
    let text = std::fs::read_to_string(folder().join("published-signatures.json")).unwrap();
    serde_json::from_str::<File>(&text).unwrap().vectors
}

fn folder() -> PathBuf {
    root().join("tests/vectors")
}
