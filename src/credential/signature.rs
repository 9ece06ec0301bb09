//! Signatures: an HMAC over a message that the dialect describes, under a secret of the caller.

pub mod encoding;
pub mod format;
pub mod message;
pub mod mistakes;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::freshness::TimestampRule;
use crate::denial::Denial;
use crate::dialect::source::{Reading, Source, View};
use crate::secret::Secret;
use encoding::Encoding;
use format::Format;
use message::{Message, Stamps};

/// How a family signs.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// Which bytes are signed.
    pub message: Message,
    /// The hash under the HMAC (RFC 2104).
    pub algorithm: Algorithm,
    /// How the signature is spelled.
    pub encoding: Encoding,
    /// Where the signature stands.
    pub at: Source,
    /// How it stands there.
    pub format: Format,
    /// Where the timestamp stands and how old it may be.
    pub timestamp: Option<TimestampRule>,
    /// Where the nonce stands.
    pub nonce: Option<Source>,
    /// Where the request names whose secret to take; without it, the credential names the caller, or all are tried.
    pub key_id: Option<Source>,
    /// How a secret becomes a key.
    pub key_form: KeyForm,
    /// A signed message is admitted once within its time.
    pub once: bool,
    /// The URL callers were given, without a target: `https://pam.example`.
    pub public_url: Box<str>,
}

/// HMAC's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Weak as a hash, still sound under HMAC; for families that know nothing else.
    HmacSha1,
    /// The usual one.
    HmacSha256,
    /// 48 bytes.
    HmacSha384,
    /// 64 bytes.
    HmacSha512,
}

/// How the text of a secret becomes the bytes of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyForm {
    /// Taken off the front of the secret, as in `whsec_…`.
    pub prefix: Box<str>,
    /// Then decoded; `None` takes the bytes as they are.
    pub encoding: Option<Encoding>,
}

/// One of a caller's secrets, ready to sign.
#[derive(Clone)]
pub struct SigningKey {
    /// Its name in logs and metrics.
    pub id: Box<str>,
    mac: Keyed,
}

/// What a request presents as its proof, read but not judged.
pub struct Presented<'v> {
    signatures: Vec<Vec<u8>>,
    /// The timestamp as sent.
    pub timestamp: Option<Cow<'v, [u8]>>,
    nonce: Option<Cow<'v, [u8]>>,
}

/// A signature that matched.
pub struct Proof {
    /// Which of the caller's keys matched.
    pub key: usize,
    /// The message under the caller's *first* key: the same for every spelling and every key the message was signed
    /// with, so that a message signed twice during a rotation still counts as one.
    pub message: [u8; 20],
    /// The message under the caller's other keys.
    pub under_other_keys: Vec<[u8; 20]>,
}

impl Scheme {
    /// Reads signature, timestamp and nonce from where they stand.
    pub fn presented<'v>(&self, view: &'v View<'_>) -> Result<Presented<'v>, Denial> {
        let Some(field) = only(&self.at, view)? else { return Err(Denial::SignatureMissing) };
        let (signatures, packed) = {
            let unpacked = self.format.unpack(&field).ok_or(Denial::SignatureMalformed)?;
            let decoded = unpacked.signatures.iter().filter_map(|text| self.encoding.decode(text));
            let decoded: Vec<_> = decoded.filter(|bytes| bytes.len() == self.algorithm.length()).collect();
            (decoded, unpacked.timestamp.map(<[u8]>::to_vec))
        };
        if signatures.is_empty() {
            return Err(Denial::SignatureMalformed);
        }
        let timestamp = match self.timestamp.as_ref().map(|rule| rule.at.as_ref()) {
            None => None,
            Some(None) => packed.map(Cow::Owned),
            Some(Some(source)) => Some(only(source, view)?.ok_or(Denial::SignatureMissing)?),
        };
        let nonce = match &self.nonce {
            None => None,
            Some(source) => {
                Some(only(source, view)?.filter(|nonce| !nonce.is_empty()).ok_or(Denial::SignatureMissing)?)
            }
        };
        Ok(Presented { signatures, timestamp, nonce })
    }

    /// Compares what is presented with what each key gives. Every pair is compared, in constant time: neither which key
    /// nor which byte was right shows in the time it takes.
    pub fn verify(&self, presented: &Presented<'_>, view: &View<'_>, keys: &[SigningKey]) -> Result<Proof, Denial> {
        let stamps = Stamps {
            timestamp: presented.timestamp.as_deref().unwrap_or_default(),
            nonce: presented.nonce.as_deref().unwrap_or_default(),
            public_url: &self.public_url,
        };
        let mut proof = None;
        let mut message = [0; 20];
        let mut under_other_keys = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let expected = key.compute(&self.message, view, &stamps).ok_or(Denial::SignatureMalformed)?;
            let (start, _) = expected.bytes.split_first_chunk().ok_or(Denial::Internal)?;
            match index {
                0 => message = *start,
                _ => under_other_keys.push(*start),
            }
            let matched =
                presented.signatures.iter().fold(Choice::from(0), |any, one| any | one.ct_eq(expected.as_slice()));
            if matched.into() && proof.is_none() {
                proof = Some(index);
            }
        }
        proof.map(|key| Proof { key, message, under_other_keys }).ok_or(Denial::SignatureWrong)
    }

    /// What a caller adds to `view`'s request: the header fields that carry signature and timestamp.
    ///
    /// `None` when they stand somewhere else than in header fields, or the request lacks what the message needs.
    pub fn sign(
        &self,
        view: &View<'_>,
        key: &SigningKey,
        timestamp: &str,
        nonce: &str,
    ) -> Option<Vec<(String, String)>> {
        let stamps = Stamps { timestamp: timestamp.as_bytes(), nonce: nonce.as_bytes(), public_url: &self.public_url };
        let mac = key.compute(&self.message, view, &stamps)?;
        let value = self.format.pack(&self.encoding.encode(mac.as_slice()), timestamp);
        let mut fields = Vec::new();
        if let Some(source) = self.timestamp.as_ref().and_then(|rule| rule.at.as_ref()) {
            fields.push((source.header()?.to_owned(), timestamp.to_owned()));
        }
        if let Some(source) = &self.nonce {
            fields.push((source.header()?.to_owned(), nonce.to_owned()));
        }
        fields.push((self.at.header()?.to_owned(), value));
        Some(fields)
    }

    /// The header fields the proof depends on; each may be there only once.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let timestamp = self.timestamp.as_ref().and_then(|rule| rule.at.as_ref());
        [Some(&self.at), timestamp, self.nonce.as_ref(), self.key_id.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(Source::header)
            .chain(self.message.headers())
    }

    /// True when the proof cannot be checked before the body has been read as JSON.
    pub fn reads_json(&self) -> bool {
        let timestamp = self.timestamp.as_ref().and_then(|rule| rule.at.as_ref());
        let places = [Some(&self.at), timestamp, self.nonce.as_ref(), self.key_id.as_ref()];
        self.message.reads_json() || places.into_iter().flatten().any(Source::is_json)
    }
}

impl Algorithm {
    /// The algorithms by the names dialects have for them.
    pub const WORDS: [(&str, Algorithm); 4] = [
        ("hmac-sha256", Algorithm::HmacSha256),
        ("hmac-sha384", Algorithm::HmacSha384),
        ("hmac-sha512", Algorithm::HmacSha512),
        ("hmac-sha1", Algorithm::HmacSha1),
    ];

    /// Bytes of a signature.
    pub fn length(self) -> usize {
        match self {
            Algorithm::HmacSha1 => 20,
            Algorithm::HmacSha256 => 32,
            Algorithm::HmacSha384 => 48,
            Algorithm::HmacSha512 => 64,
        }
    }
}

impl KeyForm {
    /// The bytes of the key; the error says what is wrong with the secret without showing it.
    fn key(&self, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let text = text
            .strip_prefix(self.prefix.as_bytes())
            .ok_or_else(|| format!("the secret does not start with `{}`, as its dialect says", self.prefix))?;
        let key = match self.encoding {
            None => Some(text.to_vec()),
            // Operators paste keys with and without padding; which of the two says nothing about the bytes.
            Some(Encoding::Base64) => STANDARD.decode(text).ok(),
            Some(encoding) => encoding.decode(text),
        };
        key.map(Zeroizing::new).ok_or_else(|| "the secret is not spelled in the encoding its dialect says".to_owned())
    }
}

impl SigningKey {
    /// Makes a key of a secret; the error says what is wrong with the secret without showing it.
    pub fn new(id: &str, secret: &Secret, algorithm: Algorithm, form: &KeyForm) -> Result<SigningKey, String> {
        let key = form.key(secret.expose())?;
        if key.len() < SHORTEST_KEY {
            return Err(format!(
                "a signing key has fewer than {SHORTEST_KEY} bytes and could be found by trying; make one with `openssl rand -hex 32`"
            ));
        }
        let mac = Keyed::new(algorithm, &key).ok_or("the secret cannot be used as a key")?;
        Ok(SigningKey { id: id.into(), mac })
    }

    fn compute(&self, message: &Message, view: &View<'_>, stamps: &Stamps<'_>) -> Option<Tag> {
        self.mac.compute(|update| message.feed(view, stamps, update))
    }
}

/// Names the key and shows nothing of it.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// Bytes that a signing key has at least. The published samples of the field have eight to ten.
pub const SHORTEST_KEY: usize = 8;

/// HMAC with its key already absorbed: cloned for each message, which saves two of the four blocks a short message costs.
#[derive(Clone)]
enum Keyed {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

/// A computed signature.
struct Tag {
    bytes: [u8; 64],
    length: usize,
}

impl Keyed {
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Keyed> {
        Some(match algorithm {
            Algorithm::HmacSha1 => Keyed::Sha1(Hmac::new_from_slice(key).ok()?),
            Algorithm::HmacSha256 => Keyed::Sha256(Hmac::new_from_slice(key).ok()?),
            Algorithm::HmacSha384 => Keyed::Sha384(Hmac::new_from_slice(key).ok()?),
            Algorithm::HmacSha512 => Keyed::Sha512(Hmac::new_from_slice(key).ok()?),
        })
    }

    /// `feed` gives the message to the function it is handed, and says whether it was complete.
    fn compute(&self, feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> bool) -> Option<Tag> {
        fn run<M: Mac>(mut mac: M, feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> bool) -> Option<Tag> {
            if !feed(&mut |slice| mac.update(slice)) {
                return None;
            }
            let output = mac.finalize().into_bytes();
            let mut tag = Tag { bytes: [0; 64], length: output.len() };
            tag.bytes.get_mut(..output.len())?.copy_from_slice(&output);
            Some(tag)
        }
        match self {
            Keyed::Sha1(mac) => run(mac.clone(), feed),
            Keyed::Sha256(mac) => run(mac.clone(), feed),
            Keyed::Sha384(mac) => run(mac.clone(), feed),
            Keyed::Sha512(mac) => run(mac.clone(), feed),
        }
    }
}

impl Tag {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn only<'v>(source: &Source, view: &'v View<'_>) -> Result<Option<Cow<'v, [u8]>>, Denial> {
    match source.read(view) {
        Reading::None => Ok(None),
        Reading::One(value) => Ok(Some(value)),
        Reading::Many => Err(Denial::SignatureRepeated),
        Reading::NotText => Err(Denial::SignatureMalformed),
    }
}
