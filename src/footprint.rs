//! How much memory a config lets this process take: a sum whose parts can be read.
//!
//! Each part is a number of things and what one of them takes at most. Where that follows from its type it is computed;
//! where it does not it was measured, and `tests/it/doctor.rs` holds the process to it.

use std::thread;

use crate::config::Settings;
use crate::credential::password::StoredHash;
use crate::credential::replay::Replays;
use crate::lockout;
use crate::log::lanes;
use crate::proxy::memory::MOST_ADDRESSES;
use crate::revocation::index::Index;
use crate::revocation::journal::Journal;
use crate::revocation::presumed;
use crate::revocation::sightings::Sightings;

/// What a process with a config may come to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// What it grows to by and by, when its memories are full and its connections are open.
    pub full: Vec<Part>,
    /// What comes on top of that while everybody sends the largest there is, at the same time.
    pub flood: Vec<Part>,
    /// Bodies that the same connections may send instead over HTTP/2.
    pub streamed: u64,
}

/// One kind of thing, and what all of them take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub what: &'static str,
    /// How many of them there may be.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Footprint {
    /// Of a process with these settings, which may have so many connections open.
    pub fn of(settings: &Settings, connections: u32) -> Footprint {
        let limits = &settings.limits;
        let connections = u64::from(connections.min(limits.connections));
        let revocation = &settings.revocation;
        let callers = u64::try_from(settings.callers.iter().count()).unwrap_or(u64::MAX);
        let part = |what, count: u64, each: u64| Part { what, count, bytes: count.saturating_mul(each) };

        // What tables that have grown leave behind: a million tokens were measured at 45 MiB where their tables are 41.
        let with_gaps = |bytes: u64| bytes.saturating_add(bytes / 8);
        let tokens = Part {
            bytes: with_gaps(Index::room(revocation.capacity)),
            ..part("tokens that ended", revocation.capacity, 0)
        };
        let mut full = vec![part("the program itself", 1, PROGRAM), tokens];
        if settings.admin_keys.is_some() {
            // So that an operator can end what was seen before a moment.
            let bytes = with_gaps(Sightings::room(revocation.capacity));
            full.push(Part { bytes, ..part("tokens that live", revocation.capacity, 0) });
        }
        if revocation.journal.is_some() {
            full.push(part("the journal's cache", 1, Journal::MEMORY));
        }
        if settings.dialect.signature.as_ref().is_some_and(|scheme| scheme.once) {
            let count = settings.replay_capacity.saturating_mul(callers);
            let bytes = with_gaps(Replays::room(settings.replay_capacity)).saturating_mul(callers);
            full.push(Part { bytes, ..part("signed messages", count, 0) });
        }
        if let Some(each) = largest_hash(settings) {
            let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
            full.push(part("passwords that are verified", cores, each));
        }
        full.push(part("connections", connections, CONNECTION));

        let in_flight = u64::from(limits.in_flight);
        let held = u64::try_from(settings.upstream_limits.held).unwrap_or(u64::MAX);
        let mut flood = vec![
            part("bodies", connections, limits.body),
            part("answers of the PAM", in_flight, held),
            part("lines of the log", lanes::ROOM / LINE, LINE),
        ];
        if limits.lockout.is_some() {
            flood.push(part("addresses that fail", lockout::MOST_ADDRESSES as u64, FAILING));
        }
        if limits.rate_per_address > 0 {
            flood.push(part("addresses that call", MOST_ADDRESSES as u64, CALLING));
        }
        if revocation.learn.is_some() {
            flood.push(part("tokens that the PAM called dead", presumed::MOST, PRESUMED));
        }
        if let Some(spans) = &settings.spans {
            flood.push(part("spans", u64::try_from(spans.queue).unwrap_or(u64::MAX), SPAN));
        }
        let streams = u64::from(limits.streams);
        let streamed = connections.saturating_mul(streams).saturating_mul(limits.body);
        Footprint { full, flood, streamed }
    }
}

/// Bytes of all parts.
pub fn sum(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
}

/// Bytes that the dearest of the hashed passwords takes to verify.
fn largest_hash(settings: &Settings) -> Option<u64> {
    let basics = settings.callers.iter().filter_map(|caller| caller.basic.as_ref());
    basics.flat_map(|basic| basic.hashed.iter()).map(StoredHash::memory).max()
}

/// The program with its threads, before anybody has called.
pub const PROGRAM: u64 = 32 << 20;

/// A connection that waits for its next request, with what the kernel has for it. Under TLS as well.
pub const CONNECTION: u64 = 50_000;

/// A line of the log; few are longer. Their room is bounded in bytes.
const LINE: u64 = 1 << 10;

/// A span that waits, with the names of what it belongs to.
const SPAN: u64 = 2 << 10;

/// An address with as many claims as are counted by themselves, in a table of 64 places.
const FAILING: u64 = 4 << 10;

/// An address in the two tables of which one takes over from the other.
const CALLING: u64 = 128;

/// A token in a cache that evicts.
const PRESUMED: u64 = 320;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::secret::DigestKey;

    fn footprint(more: &str, connections: u32) -> Footprint {
        let text = format!(
            "dialect = \"betstack\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n{more}\n\
             [[caller]]\nname = \"a\"\nsigning = [ {{ id = \"1\", key = {{ env = \"A\" }} }} ]\n"
        );
        let secret = |name: &str| matches!(name, "A" | "B").then(|| format!("a-secret-of-some-length-{name}"));
        let settings = Settings::parse(&text, &Flags::default(), &secret, DigestKey::new([7; 32])).unwrap();
        Footprint::of(&settings, connections)
    }

    fn named(parts: &[Part]) -> Vec<(&str, u64)> {
        parts.iter().map(|part| (part.what, part.count)).collect()
    }

    #[test]
    fn what_is_turned_on_is_counted_and_what_is_not_is_not() {
        let few = footprint("limits = { lockout.failures = 0 }", 10_000);
        let full = ["the program itself", "tokens that ended", "signed messages", "connections"];
        assert_eq!(named(&few.full).into_iter().map(|(what, _)| what).collect::<Vec<_>>(), full);
        assert_eq!(named(&few.flood).len(), 3);
        let more = "admin_token = { env = \"B\" }\nlimits = { rate_per_address = 5, connections = 20 }\n\
                    revocation = { journal = \"/j\", learn = \"1s\" }";
        let many = footprint(more, 10);
        let expected = [("tokens that live", 1_000_000), ("the journal's cache", 1), ("connections", 10)];
        assert!(expected.iter().all(|part| named(&many.full).contains(part)), "{many:?}");
        let expected = [("bodies", 10), ("addresses that fail", 10_000), ("addresses that call", 100_000)];
        assert!(expected.iter().all(|part| named(&many.flood).contains(part)), "{many:?}");
        assert_eq!(many.streamed, 10 * 100 * (64 << 10));
    }

    #[test]
    fn a_sum_is_that_of_its_parts_and_ends_where_numbers_do() {
        let part = |bytes| Part { what: "x", count: 1, bytes };
        assert_eq!(sum(&[part(1), part(2)]), 3);
        assert_eq!(sum(&[part(1), part(u64::MAX)]), u64::MAX);
    }
}
