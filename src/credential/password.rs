//! Hashed passwords: bcrypt and argon2id, verified away from the proxy threads, and remembered for a while when right.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::denial::Denial;
use crate::secret::SecretDigest;

/// A stored password hash, checked for its form. `Debug` does not show it.
#[derive(Clone)]
pub enum StoredHash {
    /// `$2a$`, `$2b$`, `$2x$`, `$2y$`.
    Bcrypt(Box<str>),
    /// `$argon2id$…` in PHC string format.
    Argon2id(Box<str>),
}

/// A password that must be held against hashes, which takes a while.
pub struct PasswordQuestion {
    /// Any of them may match.
    pub hashes: Arc<[StoredHash]>,
    /// The password as sent.
    pub password: Zeroizing<String>,
    /// Names user, password and hashes in the memory of right ones; `None` for an unknown user, whose second guess must take
    /// as long as the first even when the password happens to be somebody's.
    pub remember: Option<SecretDigest>,
}

/// Answers [`PasswordQuestion`]s.
pub struct Passwords {
    /// With the place of the hash that matched.
    right: moka::sync::Cache<SecretDigest, usize>,
    threads: usize,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// For those who have failed too often.
    last_turn: Arc<Semaphore>,
    waiting_last: Arc<Semaphore>,
}

impl StoredHash {
    /// Checks the form of a hash; the error says what is expected and shows nothing of the hash.
    pub fn parse(text: &str) -> Result<StoredHash, &'static str> {
        const EXPECTED: &str = "expected a bcrypt hash ($2b$…) or an argon2id hash in PHC format ($argon2id$v=19$…)";
        if text.starts_with("$argon2id$") {
            PasswordHash::new(text).map_err(|_| EXPECTED)?;
            return Ok(StoredHash::Argon2id(text.into()));
        }
        // bcrypt says that a hash is malformed only when it is used.
        match text.starts_with("$2").then(|| text.parse::<bcrypt::HashParts>()) {
            Some(Ok(parts)) if parts.get_cost() <= MOST_BCRYPT_COST => Ok(StoredHash::Bcrypt(text.into())),
            Some(Ok(_)) => Err("a bcrypt cost above 16 takes seconds for each password; hash it again with 10 to 12"),
            _ => Err(EXPECTED),
        }
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        match self {
            StoredHash::Bcrypt(text) | StoredHash::Argon2id(text) => text,
        }
    }

    /// Bytes that verifying a password by it takes.
    pub fn memory(&self) -> u64 {
        const BCRYPT: u64 = 8 << 10;
        match self {
            StoredHash::Bcrypt(_) => BCRYPT,
            // `m` counts KiB.
            StoredHash::Argon2id(hash) => {
                let parameters = hash.split(['$', ',']).find_map(|parameter| parameter.strip_prefix("m="));
                parameters.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1 << 10)
            }
        }
    }

    fn verify(&self, password: &str) -> bool {
        match self {
            StoredHash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            StoredHash::Argon2id(hash) => match PasswordHash::new(hash) {
                Ok(hash) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
                Err(_) => false,
            },
        }
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash(…)")
    }
}

impl Passwords {
    /// At most `threads` verifications at a time; some more may wait.
    pub fn new(threads: usize) -> Passwords {
        Passwords {
            right: moka::sync::Cache::builder().max_capacity(MOST_RIGHT).time_to_idle(RIGHT_FOR).build(),
            threads: threads.max(1),
            turns: Arc::new(Semaphore::new(threads.max(1))),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            last_turn: Arc::new(Semaphore::new(1)),
            waiting_last: Arc::new(Semaphore::new(MOST_WAITING_LAST)),
        }
    }

    /// How many verifications are under way, and how many wait for their turn.
    pub fn load(&self) -> (usize, usize) {
        let running = self.threads.saturating_sub(self.turns.available_permits());
        let inside = MOST_WAITING.saturating_sub(self.waiting.available_permits());
        let last = MOST_WAITING_LAST.saturating_sub(self.waiting_last.available_permits());
        // Who has the last turn is counted among the others as well.
        let last = last.saturating_sub(1usize.saturating_sub(self.last_turn.available_permits()));
        (running, inside.saturating_sub(running) + last)
    }

    /// Which of the hashes the password matches.
    ///
    /// Only right passwords are remembered. A wrong one, and one for an unknown user, always costs the whole hash: the
    /// time tells nothing, and a caller who is known does not wait behind those who guess. `locked_out` are those who have
    /// guessed too often: they are verified one at a time, so that the turns are there for others.
    pub async fn verify(&self, question: PasswordQuestion, locked_out: bool) -> Result<Option<usize>, Denial> {
        if let Some(at) = question.remember.and_then(|digest| self.right.get(&digest)) {
            return Ok(Some(at));
        }
        let full = |_| Denial::PasswordQueueFull;
        let _last = match locked_out {
            true => {
                let waiting = Arc::clone(&self.waiting_last).try_acquire_owned().map_err(full)?;
                Some((waiting, Arc::clone(&self.last_turn).acquire_owned().await.map_err(|_| Denial::Internal)?))
            }
            false => None,
        };
        let _waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(full)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Denial::Internal)?;
        let PasswordQuestion { hashes, password, remember } = question;
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // Every hash, also after a match: which of several secrets it was must not show in the time.
            let numbered = hashes.iter().enumerate();
            numbered.fold(None, |found, (at, hash)| if hash.verify(&password) { Some(at) } else { found })
        });
        let right = verified.await.map_err(|_| Denial::Internal)?;
        if let (Some(at), Some(digest)) = (right, remember) {
            self.right.insert(digest, at);
        }
        Ok(right)
    }
}

/// Requests that may wait for a verification; more are refused with 503. A queue longer than this is seconds long.
const MOST_WAITING: usize = 64;

/// The same for those who are locked out: one who is right among them is served soon, or told to come again.
const MOST_WAITING_LAST: usize = 8;

/// Right passwords remembered. This is a cache: when one is forgotten, its hash is computed again.
const MOST_RIGHT: u64 = 10_000;

/// How long a right password is remembered after its last use: a caller who calls is never made to wait behind those who
/// guess.
const RIGHT_FOR: Duration = Duration::from_secs(3600);

/// Each step doubles the time; 16 is about four seconds.
const MOST_BCRYPT_COST: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// "correct horse", cost 4.
    fn bcrypt_hash() -> String {
        bcrypt::hash("correct horse", 4).unwrap()
    }

    fn question(hash: &str, password: &str) -> PasswordQuestion {
        PasswordQuestion {
            hashes: Arc::new([StoredHash::parse(hash).unwrap()]),
            password: Zeroizing::new(password.to_owned()),
            remember: Some(SecretDigest([password.len() as u8; 32])),
        }
    }

    #[tokio::test]
    async fn a_hash_matches_its_password_only() {
        let passwords = Passwords::new(1);
        let argon2 = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$Mh0UBbzTRw0VwZ0bbCbpDQ";
        assert!(StoredHash::parse(argon2).is_ok());
        let bcrypt = bcrypt_hash();
        assert_eq!(passwords.verify(question(&bcrypt, "correct horse"), false).await, Ok(Some(0)));
        assert_eq!(passwords.verify(question(&bcrypt, "wrong"), false).await, Ok(None));
    }

    #[test]
    fn malformed_hashes_are_refused_without_being_shown() {
        for text in
            ["", "secret", "$2b$10$short", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA", "$argon2id$x", "$1$abc$def"]
        {
            let fault = StoredHash::parse(text).unwrap_err();
            assert!(text.is_empty() || !fault.contains(text), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let passwords = Passwords::new(1);
        let _all = passwords.waiting.acquire_many(MOST_WAITING as u32).await.unwrap();
        assert_eq!(passwords.verify(question(&bcrypt_hash(), "wrong"), false).await, Err(Denial::PasswordQueueFull));
    }

    #[tokio::test]
    async fn those_who_are_locked_out_take_one_turn_together_and_the_others_the_rest() {
        let passwords = Arc::new(Passwords::new(2));
        let bcrypt = bcrypt_hash();
        let held = Arc::clone(&passwords.last_turn).acquire_owned().await.unwrap();
        let verify = |locked_out| {
            let (passwords, question) = (Arc::clone(&passwords), question(&bcrypt, "correct horse"));
            tokio::spawn(async move { passwords.verify(question, locked_out).await })
        };
        let waiting: Vec<_> = (0..MOST_WAITING_LAST).map(|_| verify(true)).collect();
        while passwords.waiting_last.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        // More of them are told to come again, and nobody else notices.
        assert_eq!(verify(true).await.unwrap(), Err(Denial::PasswordQueueFull));
        assert_eq!(passwords.waiting.available_permits(), MOST_WAITING);
        assert_eq!(verify(false).await.unwrap(), Ok(Some(0)));
        drop(held);
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Ok(Some(0)));
        }
    }
}
