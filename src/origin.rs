//! Where a request comes from: the other end of its connection, or whom a trusted proxy names there.

use core::net::{IpAddr, SocketAddr};

use crate::fields::Fields;
use crate::network::Network;

/// The proxies between callers and us whose word on who calls counts.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    /// Those who say it of each request, with X-Forwarded-For.
    forwarding: Vec<Network>,
    /// Those who say it of each connection, with a PROXY header.
    announcing: Vec<Network>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The address that counts for allow-lists, in the log and to the PAM.
    pub client: IpAddr,
    /// It came through a trusted proxy.
    pub proxied: bool,
}

/// A trusted proxy's X-Forwarded-For names something that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl TrustedProxies {
    /// Those in these networks: `forwarding` whose X-Forwarded-For is believed, `announcing` whose connections begin with a
    /// PROXY header.
    pub fn new(forwarding: Vec<Network>, announcing: Vec<Network>) -> TrustedProxies {
        TrustedProxies { forwarding, announcing }
    }

    /// Whether the X-Forwarded-For of an address is believed.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.forwarding.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from an address must begin with a PROXY header.
    pub fn announce(&self, address: IpAddr) -> bool {
        self.announcing.iter().any(|network| network.contains(address))
    }

    /// Where a request on a connection from `peer` comes from. Where a PROXY header named somebody, that is the peer: a
    /// balancer that passes on bytes passes on what a stranger wrote into X-Forwarded-For, so the stranger's address
    /// decides whether that is believed, never the balancer's.
    ///
    /// Each proxy adds, at the right, whom it got the request from. So the list is read from the right for as long as those
    /// who wrote it are trusted, and the first one who is not is the client; what stands left of it is the client's own
    /// talk and is not even read. What cannot be read on the way is refused: to fall back on the peer's address would make
    /// a stranger seem to come from the proxy's own network, which an allow-list may well name.
    pub fn origin(&self, peer: IpAddr, fields: &Fields) -> Result<Origin, Unreadable> {
        let mut client = peer.to_canonical();
        if !self.contain(client) {
            return Ok(Origin { client, proxied: false });
        }
        let values: Vec<&[u8]> = fields.all("x-forwarded-for").collect();
        for hop in values.iter().rev().flat_map(|value| value.rsplit(|&byte| byte == b',')) {
            client = address(hop.trim_ascii()).ok_or(Unreadable)?;
            if !self.contain(client) {
                break;
            }
        }
        Ok(Origin { client, proxied: true })
    }
}

impl Origin {
    /// Straight from an address.
    pub fn of(client: IpAddr) -> Origin {
        Origin { client, proxied: false }
    }
}

/// An address, also with a port behind it, which some proxies add.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let address = text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, values: &[&str]) -> Result<(String, bool), Unreadable> {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|text| Network::parse(text).unwrap());
        let pairs = values.iter().map(|value| (&b"X-Forwarded-For"[..], value.as_bytes()));
        let fields = Fields::from_pairs(pairs, 9).unwrap();
        let origin = TrustedProxies::new(proxies.to_vec(), Vec::new()).origin(peer.parse().unwrap(), &fields)?;
        Ok((origin.client.to_string(), origin.proxied))
    }

    // threat: C13
    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_as_far_as_it_can_know() {
        let rows: [(&str, &[&str], &str, bool); 12] = [
            ("192.0.2.9", &[], "192.0.2.9", false),
            ("192.0.2.9", &["198.51.100.1"], "192.0.2.9", false),
            ("192.0.2.9", &["nonsense"], "192.0.2.9", false),
            ("::ffff:192.0.2.9", &[], "192.0.2.9", false),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1", true),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1", true),
            // Whatever the client wrote stands on the left.
            ("10.0.0.1", &["10.0.0.9, 203.0.113.1, 198.51.100.1"], "198.51.100.1", true),
            ("10.0.0.1", &["nonsense, 198.51.100.1 ,10.0.0.2"], "198.51.100.1", true),
            ("10.0.0.1", &["203.0.113.1", "198.51.100.1"], "198.51.100.1", true),
            ("10.0.0.1", &["10.0.0.3", "10.0.0.2"], "10.0.0.3", true),
            ("10.0.0.1", &[], "10.0.0.1", true),
            ("fd00::1", &["[2001:db8::1]:4711"], "2001:db8::1", true),
        ];
        for (peer, values, client, proxied) in rows {
            assert_eq!(origin(peer, values), Ok((client.to_owned(), proxied)), "{peer} {values:?}");
        }
    }

    // threat: C13
    #[test]
    fn what_a_trusted_proxy_should_not_have_written_is_not_guessed_at() {
        for value in
            ["", ",", "unknown", "198.51.100.1,", "198.51.100.1, nonsense", "198.51.100", "fe80::1%1", "_a", "a:1"]
        {
            assert_eq!(origin("10.0.0.1", &[value]), Err(Unreadable), "{value:?}");
            assert_eq!(origin("10.0.0.1", &["198.51.100.1", value]), Err(Unreadable), "{value:?}");
        }
    }
}
