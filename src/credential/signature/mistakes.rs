//! Why a signature does not match: the known mistakes, tried one by one and two at a time.
//!
//! ```text
//! mistakes.rs            the search, and how the signature is spelled
//! mistakes/template.rs   which parts of the request are signed, and in what form
//! mistakes/body.rs       which bytes the caller took for the body
//! mistakes/respelled.rs  the same JSON as other libraries write it
//! mistakes/key.rs        what the caller took for the key
//! ```
//!
//! For `portcullis explain` alone: a running Portcullis compares, and tells nobody how close a guess was.

mod body;
mod key;
mod respelled;
mod template;

use std::collections::HashMap;
use std::fmt;

use base64::alphabet::{STANDARD as PLUS, URL_SAFE as DASH};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::message::{Message, Stamps};
use super::{Algorithm, Encoding, Keyed, Scheme};
use crate::credential::freshness::Unit;
use crate::dialect::source::{Reading, View};
use crate::request::Request;

pub use self::key::Suspects;

/// What the caller did otherwise, and what it should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    what: String,
    advice: String,
}

/// What the search came to.
#[derive(Debug, Default)]
pub struct Search {
    /// With these the signature matches, one or two; none when it matches as it is, or when nothing explains it.
    pub mistakes: Vec<Mistake>,
    /// Whose key it is then made with; `None` when nothing explains it.
    pub key: Option<String>,
    /// How many signatures were computed.
    pub tried: usize,
}

impl Mistake {
    fn new(what: impl Into<String>, advice: impl Into<String>) -> Mistake {
        Mistake { what: what.into(), advice: advice.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.advice)
    }
}

impl Scheme {
    /// The message that must be signed, if it can be put together.
    pub fn message_of(&self, view: &View<'_>) -> Option<Vec<u8>> {
        let stamps = self.stamps_of(view);
        self.feed(&self.message, view, &stamps.0, &stamps.1)
    }

    /// Looks for the mistakes that explain a signature which does not match.
    pub fn mistakes(&self, view: &View<'_>, suspects: &Suspects<'_>) -> Search {
        let presented = self.spelled(view);
        let (timestamp, nonce) = self.stamps_of(view);
        let mut search = Hunt { presented: &presented, tried: 0 };
        let trials = Trials {
            templates: template::others(&self.message, view),
            bodies: body::others(&view.request.body),
            stamps: self.other_stamps(&timestamp),
            keys: key::all(self, suspects),
            macs: self.other_macs(),
        };
        let mut seen = HashMap::new();
        let mut found = None;
        let most = if view.request.body.len() > LARGE { 1 } else { MOST_MISTAKES };
        for allowed in 0..=most {
            found = found.or_else(|| trials.walk(self, view, (&timestamp, &nonce), allowed, &mut seen, &mut search));
        }
        let Some((mistakes, key)) = found else { return Search { tried: search.tried, ..Search::default() } };
        Search { mistakes, key: Some(key), tried: search.tried }
    }

    /// The signatures as they can be read with good will, each with what is wrong about its spelling.
    fn spelled(&self, view: &View<'_>) -> Vec<(Vec<u8>, Option<Mistake>)> {
        let mut texts: Vec<(Vec<u8>, Option<Mistake>)> = Vec::new();
        match self.at.read(view) {
            Reading::One(field) => {
                match self.format.unpack(&field) {
                    Some(unpacked) => texts.extend(unpacked.signatures.iter().map(|text| (text.to_vec(), None))),
                    None => {
                        let mistake = Mistake::new(
                            format!("the signature stands alone in {}", self.at),
                            format!("write {}", self.format.pack("SIGNATURE", "TIMESTAMP")),
                        );
                        texts.push((field.to_vec(), Some(mistake)));
                    }
                }
                // Behind a version that this family does not write.
                if let Some(equals) = field.iter().position(|&byte| byte == b'=')
                    && let (Some(before), Some(behind)) = (field.get(..equals), field.get(equals + 1..))
                    && before.iter().all(u8::is_ascii_alphanumeric)
                    && !behind.is_empty()
                {
                    let mistake = Mistake::new(
                        format!("the signature in {} stands behind a version and `=`", self.at),
                        format!("write {}", self.format.pack("SIGNATURE", "TIMESTAMP")),
                    );
                    texts.push((behind.to_vec(), Some(mistake)));
                }
            }
            Reading::None => {
                for field in view.request.head.fields.iter() {
                    let name = String::from_utf8_lossy(field.name).into_owned();
                    let mistake = Mistake::new(
                        format!("the signature stands in header:{name}"),
                        format!("send it as {}", self.at),
                    );
                    texts.push((field.value.to_vec(), Some(mistake)));
                }
            }
            Reading::Many | Reading::NotText => {}
        }
        texts.into_iter().flat_map(|(text, place)| self.decoded(&text, place)).collect()
    }

    fn decoded(&self, text: &[u8], place: Option<Mistake>) -> Vec<(Vec<u8>, Option<Mistake>)> {
        let mut all = Vec::new();
        let wanted = word(self.encoding);
        for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
            let bytes = match encoding {
                Encoding::Hex => encoding.decode(text),
                Encoding::Base64 => lenient(PLUS.clone()).decode(text).ok(),
                Encoding::Base64Url => lenient(DASH.clone()).decode(text).ok(),
            };
            let Some(bytes) = bytes else { continue };
            let is = word(encoding);
            let strict = self.encoding.decode(text).as_ref() == Some(&bytes);
            let what = match strict {
                true => None,
                false if encoding == self.encoding => Some(format!("the signature is {is} without its padding")),
                false => Some(format!("the signature is spelled in {is}")),
            };
            let mistake = what.map(|what| Mistake::new(what, format!("spell it in {wanted}, as this family does")));
            // One that is wrong about the place and the spelling is one too many: the place is said elsewhere.
            if Algorithm::WORDS.iter().any(|(_, algorithm)| algorithm.length() == bytes.len()) {
                all.push((bytes.clone(), place.clone().or(mistake)));
            }
            if let Some(inner) = Encoding::Hex.decode(&bytes).filter(|_| encoding != Encoding::Hex) {
                let what = format!("the signature is the {is} of its hexadecimal digits");
                all.push((inner, Some(Mistake::new(what, format!("write the {wanted} of its bytes")))));
            }
        }
        all
    }

    /// Timestamp and nonce as they were sent, empty where they are missing.
    fn stamps_of(&self, view: &View<'_>) -> (Vec<u8>, Vec<u8>) {
        let read = |source| Reading::of(source, view).unwrap_or_default();
        let timestamp = match self.timestamp.as_ref().map(|rule| rule.at.as_ref()) {
            None => Vec::new(),
            Some(Some(source)) => read(source),
            Some(None) => {
                let field = Reading::of(&self.at, view).unwrap_or_default();
                let unpacked = self.format.unpack(&field).and_then(|unpacked| unpacked.timestamp.map(<[u8]>::to_vec));
                unpacked.unwrap_or_default()
            }
        };
        (timestamp, self.nonce.as_ref().map(read).unwrap_or_default())
    }

    /// The timestamp as sent; `None` when the family has none or the request has none.
    pub fn timestamp_of(&self, view: &View<'_>) -> Option<Vec<u8>> {
        Some(self.stamps_of(view).0).filter(|timestamp| !timestamp.is_empty())
    }

    fn feed(&self, message: &Message, view: &View<'_>, timestamp: &[u8], nonce: &[u8]) -> Option<Vec<u8>> {
        let stamps = Stamps { timestamp, nonce, public_url: &self.public_url };
        let mut bytes = Vec::new();
        message.feed(view, &stamps, |slice| bytes.extend_from_slice(slice)).then_some(bytes)
    }

    /// The moment in the other unit. Milliseconds that were cut off can be any of a thousand.
    fn other_stamps(&self, timestamp: &[u8]) -> Vec<(Vec<u8>, Mistake)> {
        let Some(rule) = &self.timestamp else { return Vec::new() };
        let digits = timestamp.iter().all(u8::is_ascii_digit);
        let unit = match rule.unit {
            Unit::Seconds => "seconds",
            Unit::Milliseconds => "milliseconds",
        };
        let advice = format!("send and sign the same {unit}");
        match timestamp.len() {
            10 if digits => (0..1000)
                .map(|rest| {
                    let stamp = [timestamp, format!("{rest:03}").as_bytes()].concat();
                    (stamp, Mistake::new("the caller signed milliseconds and sent seconds", advice.clone()))
                })
                .collect(),
            13 if digits => {
                let seconds = timestamp.get(..10).unwrap_or_default().to_vec();
                vec![(seconds, Mistake::new("the caller signed seconds and sent milliseconds", advice))]
            }
            _ => Vec::new(),
        }
    }

    fn other_macs(&self) -> Vec<(Recipe, Mistake)> {
        let own = algorithm_word(self.algorithm);
        let mut all = Vec::new();
        for (word, algorithm) in Algorithm::WORDS {
            if algorithm != self.algorithm {
                let what = format!("the caller signed with {word}");
                all.push((Recipe::Hmac(algorithm), Mistake::new(what, format!("use {own}"))));
            }
            let hash = word.trim_start_matches("hmac-");
            for (recipe, order) in [
                (Recipe::KeyFirst(algorithm), "the key in front of the message"),
                (Recipe::KeyLast(algorithm), "the message with the key behind it"),
                (Recipe::NoKey(algorithm), "the message without any key"),
            ] {
                let what = format!("the caller took a plain {hash} of {order}");
                all.push((recipe, Mistake::new(what, format!("use {own} (RFC 2104)"))));
            }
        }
        all
    }
}

/// How a signature is computed.
#[derive(Clone, Copy)]
enum Recipe {
    Hmac(Algorithm),
    KeyFirst(Algorithm),
    KeyLast(Algorithm),
    NoKey(Algorithm),
}

impl Recipe {
    fn length(self) -> usize {
        match self {
            Recipe::Hmac(one) | Recipe::KeyFirst(one) | Recipe::KeyLast(one) | Recipe::NoKey(one) => one.length(),
        }
    }

    fn compute(self, key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        Some(match self {
            Recipe::Hmac(algorithm) => {
                let tag = Keyed::new(algorithm, key)?.compute(|update| {
                    update(message);
                    true
                })?;
                tag.as_slice().to_vec()
            }
            Recipe::KeyFirst(algorithm) => hash(algorithm, [key, message]),
            Recipe::KeyLast(algorithm) => hash(algorithm, [message, key]),
            Recipe::NoKey(algorithm) => hash(algorithm, [message, b""]),
        })
    }
}

fn hash(algorithm: Algorithm, parts: [&[u8]; 2]) -> Vec<u8> {
    fn run<D: Digest>(parts: [&[u8]; 2]) -> Vec<u8> {
        parts.iter().fold(D::new(), |digest, part| digest.chain_update(part)).finalize().to_vec()
    }
    match algorithm {
        Algorithm::HmacSha1 => run::<Sha1>(parts),
        Algorithm::HmacSha256 => run::<Sha256>(parts),
        Algorithm::HmacSha384 => run::<Sha384>(parts),
        Algorithm::HmacSha512 => run::<Sha512>(parts),
    }
}

/// Everything that can be otherwise.
struct Trials {
    templates: Vec<(Message, Mistake)>,
    bodies: Vec<(Vec<u8>, Mistake)>,
    stamps: Vec<(Vec<u8>, Mistake)>,
    keys: Vec<key::Candidate>,
    macs: Vec<(Recipe, Mistake)>,
}

/// What is compared with, and how much work it was.
struct Hunt<'h> {
    presented: &'h [(Vec<u8>, Option<Mistake>)],
    tried: usize,
}

type Found = (Vec<Mistake>, String);

impl Trials {
    /// Every combination of exactly `count` mistakes, apart from how the signature is spelled.
    fn walk(
        &self,
        scheme: &Scheme,
        view: &View<'_>,
        (timestamp, nonce): (&[u8], &[u8]),
        count: usize,
        seen: &mut HashMap<Vec<u8>, usize>,
        hunt: &mut Hunt<'_>,
    ) -> Option<Found> {
        for (message, about) in self.messages(scheme, view, timestamp, nonce, count) {
            // With fewer mistakes it is tried as well.
            if *seen.entry(message.clone()).or_insert(about.len()) < about.len() {
                continue;
            }
            if let Some(found) = self.sign(scheme, &message, &about, count - about.len(), hunt) {
                return Some(found);
            }
        }
        None
    }

    /// The messages with at most `most` mistakes in them.
    fn messages(
        &self,
        scheme: &Scheme,
        view: &View<'_>,
        timestamp: &[u8],
        nonce: &[u8],
        most: usize,
    ) -> Vec<(Vec<u8>, Vec<Mistake>)> {
        let mut all = Vec::new();
        let right = [(None, &scheme.message)];
        let templates = right.into_iter().chain(self.templates.iter().map(|(other, why)| (Some(why), other)));
        for (template_why, template) in templates {
            let bodies = self.bodies.iter().map(|(body, why)| (Some(why), Some(body)));
            for (body_why, body) in std::iter::once((None, None)).chain(bodies) {
                let so_far = usize::from(template_why.is_some()) + usize::from(body_why.is_some());
                if so_far > most {
                    continue;
                }
                let request = body.map(|body| with_body(view.request, body));
                let view = View { request: request.as_ref().unwrap_or(view.request), found: view.found.clone() };
                let own = scheme.feed(template, &view, timestamp, nonce);
                let why = || [template_why, body_why].into_iter().flatten().cloned().collect::<Vec<_>>();
                all.extend(own.map(|message| (message, why())));
                // A thousand of them go with nothing else.
                let many = self.stamps.len() > 1;
                if so_far + 1 > most || (many && most > 1) || !template.has_timestamp() {
                    continue;
                }
                for (stamp, stamp_why) in &self.stamps {
                    let message = scheme.feed(template, &view, stamp, nonce);
                    all.extend(message.map(|message| (message, [why(), vec![stamp_why.clone()]].concat())));
                }
            }
        }
        all.sort_by_key(|(_, why)| why.len());
        all
    }

    /// One message, with exactly `left` further mistakes about key and algorithm.
    fn sign(
        &self,
        scheme: &Scheme,
        message: &[u8],
        about: &[Mistake],
        left: usize,
        hunt: &mut Hunt<'_>,
    ) -> Option<Found> {
        let right = [(Recipe::Hmac(scheme.algorithm), None)];
        let macs: Vec<_> =
            right.into_iter().chain(self.macs.iter().map(|(recipe, why)| (*recipe, Some(why)))).collect();
        for candidate in &self.keys {
            for (recipe, why) in &macs {
                if usize::from(candidate.mistake.is_some()) + usize::from(why.is_some()) != left {
                    continue;
                }
                let further = candidate.mistake.iter().chain(why.iter().copied()).cloned();
                if let Some(spelling) = hunt.compare(*recipe, &candidate.bytes, message) {
                    let mistakes: Vec<_> = about.iter().cloned().chain(further).chain(spelling).collect();
                    if mistakes.len() <= MOST_MISTAKES {
                        return Some((mistakes, candidate.whose.clone()));
                    }
                }
            }
        }
        None
    }
}

impl Hunt<'_> {
    /// What is wrong about the spelling of the signature that matches, if one does.
    fn compare(&mut self, recipe: Recipe, key: &[u8], message: &[u8]) -> Option<Option<Mistake>> {
        let length = recipe.length();
        if self.tried >= MOST_TRIED || !self.presented.iter().any(|(bytes, _)| bytes.len() == length) {
            return None;
        }
        self.tried += 1;
        let computed = recipe.compute(key, message)?;
        let matched = self.presented.iter().find(|(bytes, _)| bool::from(bytes.ct_eq(&computed)));
        matched.map(|(_, mistake)| mistake.clone())
    }
}

impl Reading<'_> {
    fn of(source: &crate::dialect::source::Source, view: &View<'_>) -> Option<Vec<u8>> {
        match source.read(view) {
            Reading::One(value) => Some(value.into_owned()),
            Reading::None | Reading::Many | Reading::NotText => None,
        }
    }
}

fn with_body(request: &Request, body: &[u8]) -> Request {
    Request { head: request.head.clone(), body: body.to_vec().into() }
}

fn lenient(alphabet: base64::alphabet::Alphabet) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&alphabet, config)
}

fn word(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Hex => "hexadecimal",
        Encoding::Base64 => "base64",
        Encoding::Base64Url => "base64url",
    }
}

fn algorithm_word(algorithm: Algorithm) -> &'static str {
    Algorithm::WORDS.iter().find(|(_, other)| *other == algorithm).map_or("another algorithm", |(word, _)| word)
}

/// Two at a time: three would find something too often that is none.
const MOST_MISTAKES: usize = 2;

/// Bytes of a body beyond which one mistake at a time must do: each pair is a copy of it.
const LARGE: usize = 64 << 10;

/// Signatures computed at most; a second of work for the largest body.
const MOST_TRIED: usize = 5_000;
