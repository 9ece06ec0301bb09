//! The callers of a config, held against what the dialect asks of them.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::paper::{Complaints, Place, Spanned, Table, Value};
use super::reference::{one_secret, placed_secrets, secrets};
use super::shape::Shape;
use super::sources::Sources;
use super::{networks, trust};
use crate::credential::authorization::{AuthScheme, is_key};
use crate::credential::password::StoredHash;
use crate::credential::signature::SigningKey;
use crate::credential::{BasicSecrets, Caller, credential_digest};
use crate::dialect::Dialect;
use crate::mode::Mode;
use crate::secret::{DigestKey, Secret};

/// Reads every `[[caller]]`.
pub fn callers(
    table: &mut Table,
    dialect: Option<&Dialect>,
    sources: &Sources<'_>,
    digest_key: &DigestKey,
    asks_for_certificates: bool,
    complaints: &mut Complaints,
) -> Vec<Read> {
    table.require("caller", "a table [[caller]] with name = \"…\" and what it proves itself with", complaints);
    let mut taken = Taken::default();
    let mut callers = Vec::new();
    for table in table.tables("caller", complaints) {
        let mut reading = Reading { dialect, sources, digest_key, asks_for_certificates, complaints };
        callers.extend(reading.caller(table, &mut taken));
    }
    callers
}

/// A caller, as far as it can be read, and what it proves itself by, in plain.
pub struct Read {
    /// Who it is.
    pub caller: Caller,
    /// The Authorization value it would send, where its newest secret is known.
    pub authorization: Option<Secret>,
    /// The secrets of its signing keys as they were read, in their order.
    pub signing: Vec<Secret>,
    /// Whether it is held to anything, where it says so.
    pub mode: Option<Mode>,
}

/// What must be unique among callers, and who has it.
#[derive(Default)]
struct Taken(HashMap<(&'static str, Vec<u8>), String>);

struct Reading<'a> {
    dialect: Option<&'a Dialect>,
    sources: &'a Sources<'a>,
    digest_key: &'a DigestKey,
    /// Whether callers show certificates at all.
    asks_for_certificates: bool,
    complaints: &'a mut Complaints,
}

impl Reading<'_> {
    fn caller(&mut self, mut table: Table, taken: &mut Taken) -> Option<Read> {
        let place = table.place().clone();
        table.require("name", "name = \"fantasy-goal\"", self.complaints);
        let name = table.string("name", self.complaints);
        let basic = table.table("basic", self.complaints).map(|table| self.basic(table));
        let bearer_place = place.clone();
        let bearer = self.long_secrets(&mut table, "bearer", "a bearer key");
        if bearer.iter().any(|key| !is_key(key.expose())) {
            let message = "a bearer key has a blank, a line end or another character that no header can carry; it could never match";
            self.complaints.push(&place, message);
        }
        let by_bearer = bearer.last().map(|key| Secret::new([b"Bearer ", key.expose()].concat()));
        let bearer: Vec<_> = bearer.iter().map(|key| credential_digest(key, self.digest_key)).collect();
        let signs = table.contains("signing");
        let (keys, signing) = self.keys(&mut table).into_iter().unzip();
        let key_id = table.string("key_id", self.complaints);
        let certificate = self.certificate(&mut table);
        let routes = self.routes(&mut table);
        let mode = table.choice("mode", &Mode::WORDS, self.complaints);
        let good = self.complaints.len();
        let from = networks(&mut table, "from", self.complaints);
        if from.as_ref().is_some_and(Vec::is_empty) && self.complaints.len() == good {
            self.complaints.push(&place, "`from` is empty, so this caller could never call; leave it out for anywhere");
        }
        let trace = trust(&mut table, self.complaints);
        let before = self.complaints.len();
        self.hold_against_dialect(&place, basic.is_some(), table.contains("bearer"), signs);
        table.finish(self.complaints);

        let name = name?;
        taken.claim("name", name.value.as_bytes(), &name.value, &name.place, self.complaints);
        let (basic, by_basic) = match basic {
            None => (None, None),
            Some(basic) => basic.map(|(basic, authorization)| (Some(basic), authorization))?,
        };
        if let Some(basic) = &basic {
            taken.claim("basic username", basic.username.as_bytes(), &name.value, &place, self.complaints);
        }
        for digest in &bearer {
            taken.claim("bearer key", &digest.0, &name.value, &bearer_place, self.complaints);
        }
        let key_id_place = key_id.as_ref().map_or(&place, |key_id| &key_id.place).clone();
        let key_id = key_id.map_or_else(|| name.value.clone(), |key_id| key_id.value);
        taken.claim("key_id", key_id.as_bytes(), &name.value, &key_id_place, self.complaints);
        if self.complaints.len() > before {
            return None;
        }
        let key_id = key_id.into();
        let caller = Caller { name: name.value.into(), basic, bearer, keys, key_id, certificate, routes, from, trace };
        let mode = mode.map(|mode| mode.value);
        Some(Read { caller, authorization: by_bearer.or(by_basic), signing, mode })
    }

    fn basic(&mut self, mut table: Table) -> Option<(BasicSecrets, Option<Secret>)> {
        table.require("username", "username = \"operator\"", self.complaints);
        let username = table.string("username", self.complaints);
        if let Some(username) = &username
            && (username.value.is_empty() || username.value.contains(':'))
        {
            self.complaints.push(&username.place, "a username must not be empty or have a colon (RFC 7617)");
        }
        let (plain, hashed) = (table.contains("password"), table.contains("password_hash"));
        if !plain && !hashed {
            let message =
                "a password is missing; add password = { env = \"NAME\" } or password_hash = { file = \"…\" }";
            self.complaints.push(table.place(), message);
        }
        let plain = self.long_secrets(&mut table, "password", "a password");
        let unsendable = |password: &Secret| {
            std::str::from_utf8(password.expose()).map_or(true, |text| text.chars().any(char::is_control))
        };
        if plain.iter().any(unsendable) {
            let message = "a password is not UTF-8 or has a control character, such as a line end; it could never match (RFC 7617)";
            self.complaints.push(table.place(), message);
        }
        let newest = plain.last().cloned();
        let plain = plain.iter().map(|password| credential_digest(password, self.digest_key)).collect();
        let place = table.place().clone();
        let hashes = secrets(&mut table, "password_hash", self.sources, self.complaints);
        let mut hashed = Vec::new();
        for hash in &hashes {
            match std::str::from_utf8(hash.expose()).map_err(|_| "expected text").and_then(StoredHash::parse) {
                Ok(hash) => hashed.push(hash),
                Err(fault) => self.complaints.push(&place, format!("`password_hash`: {fault}")),
            }
        }
        table.finish(self.complaints);
        let username = username?.value;
        let authorization = newest.map(|password| {
            let pair = Zeroizing::new([username.as_bytes(), b":", password.expose()].concat());
            Secret::new(format!("Basic {}", STANDARD.encode(&pair)).into_bytes())
        });
        Some((BasicSecrets { username: username.into(), plain, hashed: Arc::from(hashed) }, authorization))
    }

    /// Secrets that cannot be found by trying: who has a message and its signature, or a network that answers, has time.
    fn long_secrets(&mut self, table: &mut Table, key: &str, what: &str) -> Vec<Secret> {
        let found = placed_secrets(table, key, self.sources, self.complaints);
        for secret in found.iter().filter(|secret| secret.value.expose().len() < SHORTEST) {
            let message = format!("{what} has fewer than {SHORTEST} bytes and could be guessed; {MAKE_ONE}");
            self.complaints.push(&secret.place, message);
        }
        found.into_iter().map(|secret| secret.value).collect()
    }

    fn keys(&mut self, table: &mut Table) -> Vec<(SigningKey, Secret)> {
        let scheme = self.dialect.and_then(|dialect| dialect.signature.as_ref());
        let mut keys: Vec<(SigningKey, Secret)> = Vec::new();
        table.declare("signing", Shape::tables());
        let Some(signing) = table.node("signing") else { return keys };
        if matches!(&signing.value, Value::Array(nodes) if nodes.is_empty()) {
            self.complaints.push(&signing.place, "a list without a key: nothing could ever match it");
        }
        for mut table in signing.tables(self.complaints) {
            let place = table.place().clone();
            table.require("id", "id = \"2026-11\"", self.complaints);
            let id = table.string("id", self.complaints);
            table.require("key", "key = { env = \"WALLET_SIGNING_KEY\" }", self.complaints);
            let key = one_secret(&mut table, "key", self.sources, self.complaints);
            table.finish(self.complaints);
            let (Some(id), Some(key), Some(scheme)) = (id, key, scheme) else { continue };
            if keys.iter().any(|(other, _)| *other.id == id.value) {
                self.complaints.push(&id.place, format!("this caller has two keys with the id `{}`", id.value));
            }
            match SigningKey::new(&id.value, &key, scheme.algorithm, &scheme.key_form) {
                Ok(made) => keys.push((made, key)),
                Err(fault) => self.complaints.push(&place, fault),
            }
        }
        keys
    }

    /// The names of which its certificate must have one.
    fn certificate(&mut self, table: &mut Table) -> Option<Vec<Box<str>>> {
        let place = table.place().clone();
        let names = table.strings("certificate", self.complaints)?;
        if names.is_empty() {
            self.complaints.push(&place, "`certificate` is empty, so this caller could never call");
        }
        if !self.asks_for_certificates {
            let message = "no certificate is asked for, so this caller could never call; add tls.client_ca";
            self.complaints.push(&place, message);
        }
        let name = |name: Spanned<String>, complaints: &mut Complaints| match name.value.strip_prefix("dns:") {
            Some(host) if !host.is_empty() && !host.contains(['/', '*', ' ']) => {
                Some(format!("dns:{}", host.to_ascii_lowercase()).into())
            }
            None if name
                .value
                .split_once("://")
                .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty()) =>
            {
                Some(name.value.into())
            }
            Some(_) | None => {
                let message = "a name in a certificate is a URI or a host, as in \"spiffe://example.org/supplier\" or \"dns:supplier.example.org\"";
                complaints.push(&name.place, message);
                None
            }
        };
        Some(names.into_iter().filter_map(|one| name(one, self.complaints)).collect())
    }

    fn routes(&mut self, table: &mut Table) -> Option<Vec<Box<str>>> {
        let place = table.place().clone();
        let names = table.strings("routes", self.complaints)?;
        if names.is_empty() {
            self.complaints
                .push(&place, "`routes` is empty, so this caller could never call; leave it out for all routes");
        }
        let known =
            |name: &str| self.dialect.is_none_or(|dialect| dialect.routes.iter().any(|route| *route.name == *name));
        for name in names.iter().filter(|name| !known(&name.value)) {
            self.complaints.push(&name.place, format!("the dialect has no route `{}`", name.value));
        }
        Some(names.into_iter().map(|name| name.value.into()).collect())
    }

    /// A caller that cannot prove itself could never call; a secret that is never asked for gives false comfort.
    fn hold_against_dialect(&mut self, place: &Place, basic: bool, bearer: bool, signs: bool) {
        let Some(dialect) = self.dialect else { return };
        let takes = |scheme| dialect.credential.contains(&scheme);
        let mut demand = |broken: bool, text: &str| {
            if broken {
                self.complaints.push(place, text);
            }
        };
        demand(basic && !takes(AuthScheme::Basic), "this dialect takes no Basic credentials; remove `basic`");
        demand(bearer && !takes(AuthScheme::Bearer), "this dialect takes no bearer keys; remove `bearer`");
        demand(
            !dialect.credential.is_empty() && !basic && !bearer,
            "this caller has no credential; add basic = { username = \"…\", password = { env = \"…\" } } or bearer = { env = \"…\" }",
        );
        demand(signs && dialect.signature.is_none(), "this dialect has no signatures; remove `signing`");
        demand(
            !signs && dialect.signature.is_some(),
            "this caller cannot sign; add signing = [ { id = \"2026-11\", key = { env = \"…\" } } ]",
        );
    }
}

/// As many as the shortest secrets that PAMs hand out have, and the least that a caller may choose.
const SHORTEST: usize = crate::credential::signature::SHORTEST_KEY;

const MAKE_ONE: &str = "make one with `openssl rand -hex 32`";

impl Taken {
    fn claim(&mut self, what: &'static str, value: &[u8], caller: &str, place: &Place, complaints: &mut Complaints) {
        if let Some(other) = self.0.insert((what, value.to_vec()), caller.to_owned()) {
            let message = match other == caller {
                true => format!("the {what} of `{caller}` is there twice"),
                false => format!("`{caller}` has the same {what} as `{other}`; who calls could not be told"),
            };
            complaints.push(place, message);
        }
    }
}
