//! The keys under which replicas make digests: one that they share, and those of replicas that began apart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::secret::DigestKey;
use crate::token::TokenDigest;

/// Our own key, and the others by which a token may be known.
pub struct Keys {
    own: DigestKey,
    /// Almost always none.
    others: RwLock<Vec<Other>>,
    has_others: AtomicBool,
}

/// There are too many keys.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

struct Other {
    key: DigestKey,
    /// When no token ended under it is in force any more; `None` for the key that replicas share.
    until: Option<Instant>,
}

impl Keys {
    /// Digests are made with `own` here.
    pub fn new(own: DigestKey) -> Keys {
        Keys { own, others: RwLock::default(), has_others: AtomicBool::new(false) }
    }

    /// The one that digests are made with here.
    pub fn own(&self) -> &DigestKey {
        &self.own
    }

    /// The digests of a token under the other keys.
    pub fn others(&self, text: &[u8]) -> Vec<TokenDigest> {
        if !self.has_others.load(Ordering::Acquire) {
            return Vec::new();
        }
        let now = Instant::now();
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        others.iter().filter(|other| !other.is_over(now)).map(|other| TokenDigest::of(text, &other.key)).collect()
    }

    /// Digests made with this key are recognised from now on, for a time or, without one, for good.
    pub fn learn(&self, key: &DigestKey, left: Option<Duration>) -> Result<(), TooMany> {
        if *key == self.own {
            return Ok(());
        }
        let now = Instant::now();
        let until = left.map(|left| now + left);
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        others.retain(|other| !other.is_over(now));
        let is_full = others.len() >= MOST_KEYS;
        let learnt = match others.iter_mut().find(|other| other.key == *key) {
            Some(known) => {
                known.until = known.until.zip(until).map(|(known, until)| known.max(until));
                Ok(())
            }
            None if left == Some(Duration::ZERO) => Ok(()),
            None if is_full => Err(TooMany),
            None => {
                others.push(Other { key: key.clone(), until });
                Ok(())
            }
        };
        self.has_others.store(!others.is_empty(), Ordering::Release);
        learnt
    }

    /// The keys of replicas that began apart except some, and for how long each counts.
    pub fn without(&self, some: &[DigestKey]) -> Vec<(DigestKey, Duration)> {
        let now = Instant::now();
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let rest = others.iter().filter(|other| some.iter().all(|key| *key != other.key));
        rest.filter_map(|other| Some((other.key.clone(), other.until?.saturating_duration_since(now)))).collect()
    }
}

impl Other {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Each costs a digest per check.
const MOST_KEYS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(number: u8) -> DigestKey {
        DigestKey::new([number; 32])
    }

    #[test]
    fn a_token_is_known_under_every_key_but_those_that_are_over() {
        let keys = Keys::new(key(0));
        assert_eq!(keys.others(b"t"), []);
        for (number, left) in [(0, Some(HOUR)), (1, Some(HOUR)), (2, None), (3, Some(Duration::ZERO)), (1, Some(HOUR))]
        {
            assert_eq!(keys.learn(&key(number), left), Ok(()));
        }
        assert_eq!(keys.others(b"t"), [1, 2].map(|number| TokenDigest::of(b"t", &key(number))));
        assert_eq!(keys.learn(&key(4), Some(Duration::from_nanos(1))), Ok(()));
        while keys.others(b"t").len() != 2 {}
        // The one that replicas share stays, whatever is said of it.
        assert_eq!(keys.learn(&key(2), Some(Duration::from_nanos(1))), Ok(()));
        let rest = keys.without(&[key(9)]);
        assert_eq!(rest.iter().map(|(key, _)| key.expose()[0]).collect::<Vec<_>>(), [1]);
        assert!(rest[0].1 <= HOUR && rest[0].1 > HOUR / 2);
        assert_eq!(keys.without(&[key(1)]).len(), 0);
    }

    #[test]
    fn too_many_keys_are_told_and_none_is_forgotten() {
        let keys = Keys::new(key(255));
        for number in 0..64 {
            assert_eq!(keys.learn(&key(number), Some(HOUR)), Ok(()));
        }
        assert_eq!(keys.learn(&key(64), Some(HOUR)), Err(TooMany));
        assert_eq!(keys.learn(&key(0), Some(2 * HOUR)), Ok(()));
        assert_eq!(keys.others(b"t").len(), 64);
    }
}
