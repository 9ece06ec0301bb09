//! How often and when each secret was last used, so that the end of a rotation can be seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cells::Counter;
use crate::credential::{Caller, Callers, SecretAt};
use crate::secret::SecretDigest;
use crate::threads::Each;

/// The secrets of one caller in one generation of the config.
#[derive(Default)]
pub struct Secrets {
    all: Vec<Secret>,
    /// Where each kind begins.
    starts: [usize; 4],
}

struct Secret {
    kind: Kind,
    /// As metrics call it.
    id: Box<str>,
    /// What tells it from the one that stood there before a reload.
    mark: Mark,
    uses: Arc<Each<Uses>>,
}

#[derive(Clone, PartialEq)]
enum Mark {
    Digest(SecretDigest),
    Id(Box<str>),
}

#[derive(Default)]
struct Uses {
    count: Counter,
    /// In seconds since 1970.
    last: AtomicU64,
}

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Password,
    PasswordHash,
    Bearer,
    Signing,
}

impl Kind {
    /// All there are, in the order of a caller's secrets.
    pub const ALL: [Kind; 4] = [Kind::Password, Kind::PasswordHash, Kind::Bearer, Kind::Signing];

    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Password => "password",
            Kind::PasswordHash => "password_hash",
            Kind::Bearer => "bearer",
            Kind::Signing => "signing",
        }
    }
}

impl Secrets {
    /// Those of a caller. One that the caller had `before` goes on counting, wherever it stands now.
    pub fn of(caller: &Caller, callers: &Callers, before: Option<&Secrets>) -> Secrets {
        let basic = caller.basic.as_ref();
        let plain: Vec<Mark> =
            basic.map(|basic| basic.plain.iter().map(|digest| Mark::Digest(*digest)).collect()).unwrap_or_default();
        let hashed: Vec<Mark> = basic
            .map(|basic| basic.hashed.iter().map(|hash| Mark::Digest(callers.mark(hash))).collect())
            .unwrap_or_default();
        let bearer: Vec<Mark> = caller.bearer.iter().map(|digest| Mark::Digest(*digest)).collect();
        let signing: Vec<Mark> = caller.keys.iter().map(|key| Mark::Id(key.id.clone())).collect();
        let mut secrets = Secrets::default();
        for ((kind, marks), start) in Kind::ALL.into_iter().zip([plain, hashed, bearer, signing]).zip(0..) {
            if let Some(place) = secrets.starts.get_mut::<usize>(start) {
                *place = secrets.all.len();
            }
            for (number, mark) in (1..).zip(marks) {
                let same = |other: &&Secret| other.kind == kind && other.mark == mark;
                let uses = before.and_then(|before| before.all.iter().find(same)).map(|other| Arc::clone(&other.uses));
                let id = match &mark {
                    Mark::Digest(_) => number.to_string().into(),
                    Mark::Id(id) => id.clone(),
                };
                secrets.all.push(Secret { kind, id, mark, uses: uses.unwrap_or_default() });
            }
        }
        secrets
    }

    /// Counts a use of a credential, of a signing key, or of both.
    pub fn used(&self, credential: Option<SecretAt>, key: Option<usize>, now: u64) {
        let [passwords, hashes, bearers, keys] = self.starts;
        let credential = credential.map(|at| match at {
            SecretAt::Password(at) => passwords + at,
            SecretAt::PasswordHash(at) => hashes + at,
            SecretAt::Bearer(at) => bearers + at,
        });
        for at in credential.into_iter().chain(key.map(|at| keys + at)) {
            if let Some(secret) = self.all.get(at) {
                let uses = secret.uses.own();
                uses.count.inc();
                uses.last.fetch_max(now, Ordering::Relaxed);
            }
        }
    }

    /// Kind, id, how often, and when last.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str, u64, u64)> {
        self.all.iter().map(|one| {
            let count = one.uses.iter().map(|uses| uses.count.value()).sum();
            let last = one.uses.iter().map(|uses| uses.last.load(Ordering::Relaxed)).max();
            (one.kind, &*one.id, count, last.unwrap_or_default())
        })
    }
}
