//! Who is calling: the callers of the config, and how a request proves to be one of them.

pub mod authorization;
pub mod freshness;
pub mod password;
pub mod replay;
pub mod signature;

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use zeroize::Zeroizing;

use self::authorization::{AuthScheme, Authorization, Basic};
use self::password::{PasswordQuestion, StoredHash};
use self::signature::SigningKey;
use crate::denial::Denial;
use crate::fields::{Fields, Only};
use crate::network::Network;
use crate::secret::{DigestKey, Purpose, Secret, SecretDigest};
use crate::trace::Trust;

/// A system that calls, with everything it can prove itself by.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its name in logs and metrics.
    pub name: Box<str>,
    /// User and passwords for Basic.
    pub basic: Option<BasicSecrets>,
    /// Digests of its bearer keys.
    pub bearer: Vec<SecretDigest>,
    /// The keys it signs with; the first is the oldest.
    pub keys: Vec<SigningKey>,
    /// What a request says to name this caller's keys.
    pub key_id: Box<str>,
    /// Names of which its certificate must have one; `None` when it needs no certificate.
    pub certificate: Option<Vec<Box<str>>>,
    /// The routes it may use; `None` is all of them.
    pub routes: Option<Vec<Box<str>>>,
    /// Where it may call from; `None` is anywhere.
    pub from: Option<Vec<Network>>,
    /// What becomes of the traces it has begun; `None` where the config's word for all counts.
    pub trace: Option<Trust>,
}

/// What a Basic user may prove itself with; any may match.
#[derive(Clone, Debug)]
pub struct BasicSecrets {
    /// The user-id.
    pub username: Box<str>,
    /// Digests of the passwords that are known in plain.
    pub plain: Vec<SecretDigest>,
    /// Passwords that are known as hashes.
    pub hashed: Arc<[StoredHash]>,
}

/// Every caller, findable by what it sends.
pub struct Callers {
    callers: Vec<Caller>,
    users: HashMap<Box<str>, usize>,
    /// The callers with a user, to be measured against when a user is unknown.
    stand_ins: Vec<usize>,
    bearers: HashMap<SecretDigest, (usize, SecretAt)>,
    key_ids: HashMap<Box<str>, usize>,
    digest_key: DigestKey,
}

/// Which of a caller's credentials a request proves itself with, by its place in the config from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretAt {
    /// A password that is known in plain.
    Password(usize),
    /// A password that is known as a hash.
    PasswordHash(usize),
    /// A bearer key.
    Bearer(usize),
}

/// What a credential says.
pub enum Identity {
    /// It is this caller's, by this secret.
    Known(usize, SecretAt),
    /// It is this caller's if the password matches a hash.
    IfPassword(usize, PasswordQuestion),
    /// It is nobody's, but a hash must be computed all the same before saying so.
    Nobody(PasswordQuestion),
}

impl Callers {
    /// Indexes the callers. The config has made sure that names, users, bearer keys and key ids are unique.
    pub fn new(callers: Vec<Caller>, digest_key: DigestKey) -> Callers {
        let basic = |caller: &Caller| caller.basic.as_ref().map(|basic| basic.username.clone());
        let users: HashMap<_, _> =
            callers.iter().enumerate().filter_map(|(at, caller)| Some((basic(caller)?, at))).collect();
        let stand_ins =
            (0..callers.len()).filter(|&at| callers.get(at).is_some_and(|one| one.basic.is_some())).collect();
        let bearers = callers.iter().enumerate().flat_map(|(at, caller)| {
            let numbered = caller.bearer.iter().enumerate();
            numbered.map(move |(number, key)| (*key, (at, SecretAt::Bearer(number))))
        });
        let bearers = bearers.collect();
        let key_ids = callers.iter().enumerate().map(|(at, caller)| (caller.key_id.clone(), at)).collect();
        Callers { callers, users, stand_ins, bearers, key_ids, digest_key }
    }

    /// The caller at an index that this value gave.
    pub fn at(&self, index: usize) -> Option<&Caller> {
        self.callers.get(index)
    }

    /// All callers, in the config's order.
    pub fn iter(&self) -> impl Iterator<Item = &Caller> {
        self.callers.iter()
    }

    /// The caller whose keys `key_id` names.
    pub fn by_key_id(&self, key_id: &[u8]) -> Option<usize> {
        self.key_ids.get(std::str::from_utf8(key_id).ok()?).copied()
    }

    /// Reads the one Authorization field and says whose it is.
    pub fn identify(&self, fields: &Fields, schemes: &[AuthScheme]) -> Result<Identity, Denial> {
        let value = match fields.only("authorization") {
            Only::None => return Err(Denial::CredentialMissing),
            Only::Many => return Err(Denial::CredentialRepeated),
            Only::One(value) => value,
        };
        let authorization = Authorization::parse(value)?;
        if !schemes.contains(&authorization.scheme()) {
            return Err(Denial::CredentialMalformed);
        }
        match authorization {
            Authorization::Bearer(key) => {
                // Found by keyed digest: the look-up's time depends on bytes no one outside can choose, and the table
                // compares whole digests in constant time.
                let digest = self.digest_key.digest(Purpose::Credential, &key);
                let found = self.bearers.get(&digest).ok_or(Denial::CredentialWrong)?;
                Ok(Identity::Known(found.0, found.1))
            }
            Authorization::Basic(basic) => self.identify_user(&basic),
        }
    }

    /// An unknown user is measured against the secrets of a stand-in, chosen by the user's name: whatever work a wrong
    /// password costs for some known user, a wrong user costs too.
    fn identify_user(&self, basic: &Basic) -> Result<Identity, Denial> {
        let known = self.users.get(basic.user()).copied();
        let subject = known.or_else(|| self.stand_in(basic.user())).ok_or(Denial::CredentialWrong)?;
        let secrets = self.callers.get(subject).and_then(|caller| caller.basic.as_ref()).ok_or(Denial::Internal)?;
        let given = self.digest_key.digest(Purpose::Credential, basic.password().as_bytes());
        // Each one, also after a match: only who is right learns in time which of the secrets it was.
        let numbered = secrets.plain.iter().enumerate();
        let plain = numbered.fold(None, |found, (at, digest)| if *digest == given { Some(at) } else { found });
        if let (Some(at), Some(_)) = (plain, known) {
            return Ok(Identity::Known(subject, SecretAt::Password(at)));
        }
        if secrets.hashed.is_empty() {
            return Err(Denial::CredentialWrong);
        }
        let remember = known.map(|_| {
            // With the hashes, so that what was right by another config is right by this one only if they are the same. In
            // front of the rest, where nothing that is sent can look like one of them.
            let hashes: String = secrets.hashed.iter().map(|hash| format!("{}\n", hash.text())).collect();
            let proven = Zeroizing::new(format!("{hashes}\n{}:{}", basic.user(), basic.password()));
            self.digest_key.digest(Purpose::Credential, proven.as_bytes())
        });
        let question = PasswordQuestion {
            hashes: Arc::clone(&secrets.hashed),
            password: Zeroizing::new(basic.password().to_owned()),
            remember,
        };
        Ok(match known {
            Some(caller) => Identity::IfPassword(caller, question),
            None => Identity::Nobody(question),
        })
    }

    /// What tells one stored hash from another when a config is read anew.
    pub fn mark(&self, hash: &StoredHash) -> SecretDigest {
        self.digest_key.digest(Purpose::Credential, hash.text().as_bytes())
    }

    /// The user that a request claims to be, rightly or not.
    pub fn claimed_user(fields: &Fields) -> Option<Zeroizing<String>> {
        let Only::One(value) = fields.only("authorization") else { return None };
        match Authorization::parse(value) {
            Ok(Authorization::Basic(basic)) => Some(Zeroizing::new(basic.user().to_owned())),
            Ok(Authorization::Bearer(_)) | Err(_) => None,
        }
    }

    /// Which caller that user is, proven or not.
    pub fn claimed(&self, fields: &Fields) -> Option<usize> {
        self.users.get(Callers::claimed_user(fields)?.as_str()).copied()
    }

    fn stand_in(&self, user: &str) -> Option<usize> {
        let digest = self.digest_key.digest(Purpose::StandIn, user.as_bytes()).0;
        let number = digest.iter().take(8).fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        let at = number.checked_rem(u64::try_from(self.stand_ins.len()).ok()?)?;
        self.stand_ins.get(usize::try_from(at).ok()?).copied()
    }
}

/// The digest under which a password or bearer key is kept.
pub fn credential_digest(secret: &Secret, key: &DigestKey) -> SecretDigest {
    key.digest(Purpose::Credential, secret.expose())
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.callers.iter().map(|caller| &caller.name)).finish()
    }
}
