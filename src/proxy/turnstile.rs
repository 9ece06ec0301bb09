//! How many connections may be open, in all and from one address.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::network::neighbourhood;

/// Counts connections in and out.
#[derive(Default)]
pub struct Turnstile {
    inside: Mutex<Inside>,
}

/// How many may be inside. Comes with each connection: it may change while some are.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In all.
    pub all: usize,
    /// From one address; `None` where one address may have all of them.
    pub of_one: Option<usize>,
}

/// Which bound a connection would have crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The one on all connections.
    All,
    /// The one on those from one address.
    Address,
}

/// Counts a connection as open while it lives.
pub struct Entered {
    turnstile: Arc<Turnstile>,
    from: Option<IpAddr>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    /// Only addresses that have a connection, and only where there is a bound on them.
    by_address: HashMap<IpAddr, usize>,
}

impl Turnstile {
    /// Lets a connection in. `None` instead of an address counts against the bound on all alone.
    pub fn enter(self: &Arc<Self>, from: Option<IpAddr>, bounds: Bounds) -> Result<Entered, Full> {
        let mut inside = self.inside();
        if inside.all >= bounds.all {
            return Err(Full::All);
        }
        let from = match from {
            Some(from) => inside.count_from(from, bounds)?,
            None => None,
        };
        inside.all += 1;
        Ok(Entered { turnstile: Arc::clone(self), from })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Two counts that change under one lock are never half changed, so a panic elsewhere spoils nothing.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn count_from(&mut self, from: IpAddr, bounds: Bounds) -> Result<Option<IpAddr>, Full> {
        let Some(most) = bounds.of_one else { return Ok(None) };
        let from = neighbourhood(from);
        let open = self.by_address.entry(from).or_default();
        if *open >= most {
            return Err(Full::Address);
        }
        *open += 1;
        Ok(Some(from))
    }

    fn leave(&mut self, from: IpAddr) {
        if let Some(open) = self.by_address.get_mut(&from) {
            *open -= 1;
            if *open == 0 {
                self.by_address.remove(&from);
            }
        }
    }
}

impl Entered {
    /// Counts it against the bound on an address as well, for those that are let in before it is known where they come
    /// from.
    pub fn comes_from(&mut self, from: IpAddr, bounds: Bounds) -> Result<(), Full> {
        let mut inside = self.turnstile.inside();
        let counted = inside.count_from(from, bounds)?;
        // Where it had been counted already, that was before the config said that it comes from somewhere else.
        if let Some(before) = mem::replace(&mut self.from, counted) {
            inside.leave(before);
        }
        Ok(())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut inside = self.turnstile.inside();
        inside.all -= 1;
        if let Some(from) = self.from {
            inside.leave(from);
        }
    }
}

impl Full {
    /// Every bound there is.
    pub const ALL: [Full; 2] = [Full::All, Full::Address];

    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Full::All => "connections",
            Full::Address => "connections_per_address",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Stile = (Arc<Turnstile>, Bounds);

    fn stile(all: usize, of_one: Option<usize>) -> Stile {
        (Arc::default(), Bounds { all, of_one })
    }

    fn enter((turnstile, bounds): &Stile, from: &str) -> Result<Entered, Full> {
        turnstile.enter(Some(from.parse().unwrap()), *bounds)
    }

    #[test]
    fn who_leaves_makes_room_and_leaves_nothing_behind() {
        let turnstile = stile(2, Some(1));
        for _ in 0..3 {
            let one = enter(&turnstile, "10.0.0.1").ok();
            assert_eq!(enter(&turnstile, "10.0.0.1").err(), Some(Full::Address));
            let other = enter(&turnstile, "10.0.0.2").ok();
            assert_eq!(enter(&turnstile, "10.0.0.3").err(), Some(Full::All));
            drop((one, other));
        }
        let inside = turnstile.0.inside();
        assert_eq!((inside.all, inside.by_address.len()), (0, 0));
    }

    #[test]
    fn one_network_of_ipv6_counts_as_one_address_and_so_do_both_spellings_of_ipv4() {
        let turnstile = stile(9, Some(1));
        let _one = enter(&turnstile, "2001:db8::1").ok();
        assert_eq!(enter(&turnstile, "2001:db8::ffff:2").err(), Some(Full::Address));
        assert!(enter(&turnstile, "2001:db8:0:1::1").is_ok());
        let _four = enter(&turnstile, "10.0.0.1").ok();
        assert_eq!(enter(&turnstile, "::ffff:10.0.0.1").err(), Some(Full::Address));
    }

    #[test]
    fn where_it_comes_from_may_be_known_later() {
        let (turnstile, bounds): Stile = stile(9, Some(1));
        let from = "10.0.0.1".parse().unwrap();
        let mut one = turnstile.enter(None, bounds).ok().unwrap();
        let mut other = turnstile.enter(None, bounds).ok().unwrap();
        assert_eq!(one.comes_from(from, bounds), Ok(()));
        assert_eq!(other.comes_from(from, bounds), Err(Full::Address));
        drop(one);
        assert_eq!(other.comes_from(from, bounds), Ok(()));
        drop(other);
        let inside = turnstile.inside();
        assert_eq!((inside.all, inside.by_address.len()), (0, 0));
    }

    #[test]
    fn who_was_counted_under_another_address_before_leaves_nothing_behind() {
        let (turnstile, bounds): Stile = stile(9, Some(1));
        let mut one = turnstile.enter(Some("10.0.0.1".parse().unwrap()), bounds).ok().unwrap();
        assert_eq!(one.comes_from("10.0.0.2".parse().unwrap(), bounds), Ok(()));
        assert!(turnstile.enter(Some("10.0.0.1".parse().unwrap()), bounds).is_ok());
        drop(one);
        let inside = turnstile.inside();
        assert_eq!((inside.all, inside.by_address.len()), (0, 0));
    }

    #[test]
    fn without_a_bound_on_addresses_or_without_an_address_only_all_are_counted() {
        let turnstile = stile(2, None);
        let _all = [enter(&turnstile, "10.0.0.1").ok(), enter(&turnstile, "10.0.0.1").ok()];
        assert_eq!(enter(&turnstile, "10.0.0.1").err(), Some(Full::All));
        let turnstile = stile(2, Some(1));
        let _all = [turnstile.0.enter(None, turnstile.1).ok(), turnstile.0.enter(None, turnstile.1).ok()];
        assert_eq!(turnstile.0.enter(None, turnstile.1).err(), Some(Full::All));
    }
}
