//! Networks by their prefix, as allow-lists name them (RFC 4632 §3.1, RFC 4291 §2.3).

use core::fmt;
use core::net::IpAddr;

/// All addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or one address alone. The error says what is wrong with it.
    ///
    /// Strict, since what is written here decides who may call: bits behind the prefix are a slip of the pen, and IPv4 in
    /// the dress of IPv6 would match nothing, because callers are looked at in plain IPv4.
    pub fn parse(text: &str) -> Result<Network, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| USUAL.to_owned())?;
        if first.to_canonical() != first {
            return Err(format!("write the IPv4 address {} as such", first.to_canonical()));
        }
        let most = width(first);
        let prefix = match length {
            None => most,
            Some(digits) => {
                let plain =
                    digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
                let prefix = digits.parse().ok().filter(|prefix| plain && *prefix <= most);
                prefix.ok_or_else(|| format!("a prefix is a number from 0 to {most}"))?
            }
        };
        let network = Network { first, prefix };
        if bits(first) & !mask(prefix, most) != 0 {
            let meant = Network { first: truncated(first, prefix), prefix };
            return Err(format!("it has bits behind its prefix; write {meant} for the network, or the address alone"));
        }
        Ok(network)
    }

    /// Whether an address begins like it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.first) && truncated(address, self.prefix) == self.first
    }
}

/// What counts as one address where addresses are counted: an IPv6 host has a whole /64 to choose from.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

fn truncated(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & mask(prefix, 32) as u32).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & mask(prefix, 128)).into()),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first `prefix` of `width` bits.
fn mask(prefix: u32, width: u32) -> u128 {
    u128::MAX.checked_shl(width.saturating_sub(prefix)).unwrap_or(0)
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

const USUAL: &str = "a network is written as 10.0.0.0/8 or 2001:db8::/32, one address as 10.0.0.1";

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn a_network_holds_what_begins_alike_and_nothing_else() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["9.255.255.255", "11.0.0.0", "a00::"]),
            ("10.1.2.3", ["10.1.2.3"; 3], ["10.1.2.2", "10.1.2.4", "::"]),
            ("192.0.2.128/25", ["192.0.2.128", "192.0.2.255", "192.0.2.200"], ["192.0.2.127", "192.0.3.128", "::"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::", "::1", "ffff::"]),
            ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1", "2001:db8::1"], ["2001:db9::", "::", "10.0.0.1"]),
            ("::1/128", ["::1"; 3], ["::", "::2", "127.0.0.1"]),
            ("::/0", ["::", "ffff::", "2001:db8::1"], ["10.0.0.1", "::ffff:10.0.0.1", "0.0.0.0"]),
        ] {
            for address in inside {
                assert!(network(text).contains(address.parse().unwrap()), "{address} in {text}");
            }
            for address in outside {
                assert!(!network(text).contains(address.parse().unwrap()), "{address} in {text}");
            }
        }
    }

    #[test]
    fn what_could_mean_two_things_is_no_network() {
        for text in [
            "",
            "/",
            "10",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/8/8",
            "010.0.0.0/8",
            "10.0.0.0 /8",
            " 10.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "::/129",
            "[::1]",
            "fe80::1%eth0",
            "localhost",
        ] {
            assert!(Network::parse(text).is_err(), "{text:?}");
        }
        let fault = |text: &str| Network::parse(text).unwrap_err();
        assert!(fault("10.0.0.1/8").contains("write 10.0.0.0/8"), "{}", fault("10.0.0.1/8"));
        assert!(fault("2001:db8::1/32").contains("write 2001:db8::/32"), "{}", fault("2001:db8::1/32"));
        assert!(fault("::ffff:10.0.0.1").contains("10.0.0.1"), "{}", fault("::ffff:10.0.0.1"));
    }
}
