//! Who has failed to prove itself too often, by the caller it claims to be and the address it comes from.
//!
//! By both, so that nobody can turn it on a caller who is somewhere else. And it says nothing about a proof that is right:
//! that is verified all the same and counts, or whoever shares an address with a caller could turn it on that one. What is
//! claimed counts whether there is such a caller or not, since a difference would tell which callers there are. The clock is
//! an argument.

use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::moment::Moment;
use crate::network::neighbourhood;
use crate::secret::SecretDigest;

/// When a pair of claim and address is locked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockoutRule {
    /// After so many failures …
    pub failures: u32,
    /// … in this time …
    pub within: Duration,
    /// … for this long.
    pub time: Duration,
}

/// Every pair that failed lately.
#[derive(Default)]
pub struct Lockouts {
    table: Mutex<Table>,
    /// False while nobody has failed, which is what nearly every request finds.
    any: AtomicBool,
}

#[derive(Default)]
struct Table {
    addresses: HashMap<IpAddr, HashMap<SecretDigest, Failures>>,
    swept: Option<Moment>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    locked: bool,
    /// When all this is over.
    until: Moment,
}

impl Lockouts {
    /// Counts a failure. When the pair had been locked out before it: for how long it still is.
    pub fn failed(&self, claim: SecretDigest, address: IpAddr, rule: &LockoutRule, now: Moment) -> Option<Duration> {
        let mut table = self.table();
        let claims = table.claims(neighbourhood(address), now)?;
        if claims.len() >= MOST_CLAIMS {
            claims.retain(|_, failures| failures.until > now);
        }
        let claim = if claims.len() < MOST_CLAIMS || claims.contains_key(&claim) { claim } else { OTHERS };
        let fresh = Failures { count: 0, locked: false, until: now.after(rule.within) };
        let failures = claims.entry(claim).or_insert(fresh);
        if failures.until <= now {
            *failures = fresh;
        }
        self.any.store(true, Ordering::Relaxed);
        if failures.locked {
            return Some(failures.until.since(now));
        }
        failures.count += 1;
        if failures.count >= rule.failures {
            failures.locked = true;
            failures.until = now.after(rule.time);
        }
        None
    }

    /// Forgets the failures of a pair that has proven itself.
    pub fn succeeded(&self, claim: SecretDigest, address: IpAddr) {
        let mut table = self.table();
        let address = neighbourhood(address);
        if let Some(claims) = table.addresses.get_mut(&address) {
            claims.remove(&claim);
            if claims.is_empty() {
                table.addresses.remove(&address);
            }
        }
        self.any.store(!table.addresses.is_empty(), Ordering::Relaxed);
    }

    /// Whether a pair is locked out.
    pub fn has(&self, claim: SecretDigest, address: IpAddr, now: Moment) -> bool {
        let table = self.table();
        let claims = table.addresses.get(&neighbourhood(address));
        let failures = claims.and_then(|claims| claims.get(&claim).or_else(|| claims.get(&OTHERS)));
        failures.is_some_and(|failures| failures.locked && failures.until > now)
    }

    /// Whether somebody at this address has failed lately.
    pub fn know(&self, address: IpAddr) -> bool {
        self.any.load(Ordering::Relaxed) && self.table().addresses.contains_key(&neighbourhood(address))
    }

    /// How many pairs are locked out.
    pub fn count(&self, now: Moment) -> u64 {
        let table = self.table();
        let all = table.addresses.values().flat_map(HashMap::values);
        all.filter(|failures| failures.locked && failures.until > now).count() as u64
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A count that is off by one after a panic elsewhere locks nobody out whose proof is right.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// What is claimed at an address. `None` where there are too many addresses: then nothing is counted, and whoever fails
    /// is told so as before.
    fn claims(&mut self, address: IpAddr, now: Moment) -> Option<&mut HashMap<SecretDigest, Failures>> {
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&address) {
            if self.swept.is_some_and(|swept| now.since(swept) < BETWEEN_SWEEPS) {
                return None;
            }
            self.swept = Some(now);
            self.addresses.retain(|_, claims| claims.values().any(|failures| failures.until > now));
            if self.addresses.len() >= MOST_ADDRESSES {
                return None;
            }
        }
        Some(self.addresses.entry(address).or_default())
    }
}

/// Addresses with failures: more than one attacker has, unless it is many.
pub const MOST_ADDRESSES: usize = 10_000;

/// What is claimed at one address and counted by itself; what is claimed beyond that is counted together.
const MOST_CLAIMS: usize = 32;

/// The claims beyond [`MOST_CLAIMS`].
const OTHERS: SecretDigest = SecretDigest([0; 32]);

/// To look through all of them costs a millisecond.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: LockoutRule =
        LockoutRule { failures: 3, within: Duration::from_secs(60), time: Duration::from_secs(300) };

    fn claim(number: u32) -> SecretDigest {
        let mut digest = [1; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        SecretDigest(digest)
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn at(seconds: u64) -> Moment {
        use std::sync::OnceLock;
        static START: OnceLock<Moment> = OnceLock::new();
        START.get_or_init(Moment::now).after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_pair_that_fails_too_often_is_locked_out_for_a_while_and_no_other() {
        let lockouts = Lockouts::default();
        let failed = |one, from, seconds| lockouts.failed(claim(one), address(from), &RULE, at(seconds));
        assert_eq!([failed(1, 1, 0), failed(1, 1, 1), failed(1, 1, 2)], [None; 3]);
        assert!(lockouts.has(claim(1), address(1), at(2)));
        assert_eq!(failed(1, 1, 10), Some(Duration::from_secs(292)));
        // To go on does not make it longer.
        assert_eq!(failed(1, 1, 301), Some(Duration::from_secs(1)));
        assert_eq!((failed(2, 1, 10), failed(1, 2, 10)), (None, None));
        assert!(!lockouts.has(claim(2), address(1), at(10)) && !lockouts.has(claim(1), address(2), at(10)));
        assert_eq!(lockouts.count(at(10)), 1);
        // Then it begins anew.
        assert!(!lockouts.has(claim(1), address(1), at(302)));
        assert_eq!([failed(1, 1, 302), failed(1, 1, 303)], [None; 2]);
        assert_eq!(lockouts.count(at(303)), 0);
    }

    #[test]
    fn failures_that_are_far_apart_do_not_add_up() {
        let lockouts = Lockouts::default();
        for seconds in [0, 30, 60, 90, 120, 150] {
            assert_eq!(lockouts.failed(claim(1), address(1), &RULE, at(seconds)), None);
            assert!(!lockouts.has(claim(1), address(1), at(seconds)), "{seconds}");
        }
    }

    #[test]
    fn a_success_resets_its_pair_and_leaves_nothing_behind() {
        let lockouts = Lockouts::default();
        for number in [1, 1, 1, 2] {
            lockouts.failed(claim(number), address(1), &RULE, at(0));
        }
        assert!(lockouts.know(address(1)) && !lockouts.know(address(2)));
        lockouts.succeeded(claim(1), address(1));
        assert!(!lockouts.has(claim(1), address(1), at(0)));
        assert!(lockouts.know(address(1)));
        lockouts.succeeded(claim(2), address(1));
        assert!(!lockouts.know(address(1)));
        assert!(lockouts.table().addresses.is_empty());
    }

    #[test]
    fn one_address_cannot_fill_the_memory_with_claims_nor_go_on_by_changing_them() {
        let lockouts = Lockouts::default();
        let failed = |one| lockouts.failed(claim(one), address(1), &RULE, at(0));
        for number in 0..100 {
            let locked = number >= MOST_CLAIMS as u32 + RULE.failures;
            assert_eq!(failed(number).is_some(), locked, "{number}");
        }
        let table = lockouts.table();
        assert_eq!(table.addresses.values().next().map(HashMap::len), Some(MOST_CLAIMS + 1));
        drop(table);
        assert!(lockouts.has(claim(1000), address(1), at(0)));
        // Those that were there before have their own count.
        assert!(!lockouts.has(claim(0), address(1), at(0)));
    }

    #[test]
    fn many_addresses_are_counted_up_to_a_bound_and_those_that_are_over_make_room() {
        let lockouts = Lockouts::default();
        let most = MOST_ADDRESSES as u32;
        for number in 0..most + 10 {
            lockouts.failed(claim(1), address(number), &RULE, at(0));
        }
        assert_eq!(lockouts.table().addresses.len(), MOST_ADDRESSES);
        assert!(!lockouts.know(address(most)));
        lockouts.failed(claim(1), address(most), &RULE, at(61));
        assert!(lockouts.know(address(most)));
        assert_eq!(lockouts.table().addresses.len(), 1);
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let lockouts = Lockouts::default();
        for host in 0..3_u128 {
            let address = IpAddr::V6(((0x2001_0db8_u128 << 96) + host).into());
            assert_eq!(lockouts.failed(claim(1), address, &RULE, at(0)), None);
        }
        assert!(lockouts.has(claim(1), "2001:db8::ffff".parse().unwrap(), at(0)));
    }
}
