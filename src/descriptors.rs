//! How many files and sockets this process may have open, and how many connections fit into that.
//!
//! When descriptors run out, everything stops that needs one: connections, the PAM, the journal. So as many connections are
//! let in as there are descriptors for, and what is beyond is refused like any connection too many.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::config::Limits;
use crate::log::Log;

/// Asks for as many as the system grants (the hard limit of getrlimit(2)); service managers begin with few.
pub fn raise() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where that fails, what there is must do.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Lowers `limits.connections` to what there are descriptors for, and says so.
pub fn fit(limits: &mut Limits, log: &Log) {
    let Ok((descriptors, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let most = most_connections(descriptors, limits.in_flight);
    if most < limits.connections {
        let about = json!({
            "descriptors": descriptors,
            "connections": most,
            "hint": "limits.connections is higher than descriptors allow; raise `ulimit -n` (LimitNOFILE=), or lower it",
        });
        log.note("warn", "few_descriptors", &about);
        limits.connections = most;
    }
}

/// Each connection takes one, and so does each request that is with the PAM; of one connection that is usually one.
pub fn most_connections(descriptors: u64, in_flight: u32) -> u32 {
    let free = descriptors.saturating_sub(RESERVED);
    let most = free.saturating_sub(in_flight.into()).max(free / 2);
    u32::try_from(most).unwrap_or(u32::MAX).max(1)
}

/// Log, journal, store, admin address, files that are read, the runtime's own.
const RESERVED: u64 = 64;

#[cfg(test)]
mod tests {
    use super::most_connections;

    #[test]
    fn there_is_a_descriptor_for_each_connection_and_for_what_it_has_with_the_pam() {
        for (descriptors, in_flight, connections) in [
            (1 << 20, 1024, (1 << 20) - 64 - 1024),
            (20_000, 1024, 18_912),
            (1024, 1024, 480),
            (256, 10, 182),
            (64, 1024, 1),
            (u64::MAX, 1024, u32::MAX),
        ] {
            assert_eq!(most_connections(descriptors, in_flight), connections, "{descriptors}");
        }
    }
}
