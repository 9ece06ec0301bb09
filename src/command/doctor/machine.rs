//! What the system says of this process and its pod: files below `/proc` and `/sys`, addresses, users.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use nix::ifaddrs::getifaddrs;

/// Where `/proc` and `/sys` are.
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// With both below a folder.
    pub fn below(root: PathBuf) -> Machine {
        Machine { root }
    }

    /// The text of one of its files: `proc/self/mountinfo`.
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()
    }

    /// What is mounted where.
    pub fn mounts(&self) -> String {
        self.text("proc/self/mountinfo").unwrap_or_default()
    }
}

/// The addresses of this network namespace by which others reach it: none that is a loopback's, nor one that only a
/// neighbour on the same link could use.
pub fn own_addresses() -> Vec<IpAddr> {
    let addresses = getifaddrs().map(|all| all.filter_map(|one| one.address).collect::<Vec<_>>()).unwrap_or_default();
    let ip = |address: &nix::sys::socket::SockaddrStorage| {
        let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    };
    let mut own: Vec<IpAddr> = addresses.iter().filter_map(ip).filter(|ip| !is_local(*ip)).collect();
    own.sort();
    own.dedup();
    own
}

/// Whether only this machine, or its next neighbours, reach an address.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(four) => four.is_loopback() || four.is_link_local(),
        IpAddr::V6(six) => six.is_loopback() || six.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_not_one_by_which_others_come() {
        for own in own_addresses() {
            assert!(!own.is_loopback(), "{own}");
        }
        for (address, local) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("fe80::1", true),
            ("169.254.1.1", true),
            ("10.0.0.5", false),
            ("fd00::2", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }
}
