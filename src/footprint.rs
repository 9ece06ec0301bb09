//! How much memory a config lets this process take: a sum whose parts can be read.
//!
//! Each part is a number of things and what one of them takes at most. Where that follows from its type it is computed;
//! where it does not it was measured, and `tests/it/doctor.rs` holds the process to it.

use std::thread;

use crate::config::Settings;
use crate::credential::password::StoredHash;
use crate::credential::replay::Replays;
use crate::log;
use crate::revocation::index::Index;
use crate::revocation::journal::Journal;
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
            let tables = with_gaps(Replays::room(settings.replay_capacity)).saturating_mul(callers);
            let bytes = tables.saturating_add(count.saturating_mul(MESSAGE));
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
            part("lines of the log", log::WAITING as u64, LINE),
        ];
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

/// What a signed message takes besides its place in a table: what a copy that comes meanwhile waits for.
pub const MESSAGE: u64 = 512;

/// A line of the log; few are longer.
const LINE: u64 = 1 << 10;

/// A span that waits, with the names of what it belongs to.
const SPAN: u64 = 2 << 10;
