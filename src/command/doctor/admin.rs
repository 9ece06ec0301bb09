//! Whether the admin address is reachable by more than it should be.
//!
//! Its pages are never served where callers connect, whatever the config says, so that need not be tried: a request to the
//! traffic address would be told in the log, and in shadow mode be forwarded to the PAM.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::finding::Finding;
use super::machine::own_addresses;
use crate::config::Settings;

/// What is known of the admin address.
#[derive(Debug, Default)]
pub struct Door {
    /// As the config has it.
    pub admin: String,
    /// Where that leads.
    pub addresses: Vec<SocketAddr>,
    /// Where callers connect.
    pub traffic: Vec<SocketAddr>,
    /// The addresses by which others reach this pod.
    pub own: Vec<IpAddr>,
    /// Whether there are an operator's calls.
    pub has_token: bool,
}

/// Looks at the config and the addresses of this pod. `None` when there is no admin address.
pub fn look(settings: &Settings) -> Option<Door> {
    let admin = settings.admin.clone()?;
    let resolved = |address: &str| address.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    Some(Door {
        addresses: resolved(&admin),
        traffic: resolved(&settings.listen),
        admin,
        own: own_addresses(),
        has_token: settings.admin_keys.is_some(),
    })
}

/// Whether too many reach it.
pub fn judge(door: Option<&Door>) -> Finding {
    let Some(door) = door else {
        return Finding::unknown(ADMIN, "there is no admin address: nothing can be probed, scraped or asked")
            .advise("add admin = \"0.0.0.0:9901\" for probes and Prometheus, or 127.0.0.1:9901 for this pod alone");
    };
    let admin = &door.admin;
    if door.addresses.iter().any(|address| door.traffic.iter().any(|traffic| collide(address, traffic))) {
        return Finding::wrong(ADMIN, format!("`admin` ({admin}) and `listen` are one address and port"))
            .advise("give `admin` a port of its own");
    }
    if !door.addresses.is_empty() && door.addresses.iter().all(|address| address.ip().is_loopback()) {
        return Finding::sound(ADMIN, format!("{admin} is reached from inside this pod alone"))
            .and("probes of the kubelet and Prometheus come from outside: they need the pod's address");
    }
    let everywhere = door.addresses.iter().any(|address| address.ip().is_unspecified());
    let reached: Vec<IpAddr> =
        if everywhere { door.own.clone() } else { door.addresses.iter().map(SocketAddr::ip).collect() };
    let listed = reached.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let shows =
        format!("whoever reaches {admin} ({listed}) reads metrics, names of callers and routes, and complaints");
    let token = "with the admin token, sessions can be ended there; it crosses the network in the clear where it is sent from outside";
    let public = reached.iter().any(|ip| is_public(*ip));
    let finding = match (door.has_token, public) {
        (true, true) => Finding::wrong(ADMIN, shows).and(format!("{token}, and this address is a public one")),
        (true, false) => Finding::unknown(ADMIN, shows).and(token),
        (false, _) => Finding::unknown(ADMIN, shows),
    };
    let policy = "a NetworkPolicy should admit nobody but Prometheus to this port; the kubelet's probes pass it anyway";
    match door.has_token {
        true => finding.advise(policy).advise("send the token from inside alone: kubectl exec … portcullis revoke"),
        false => finding.advise(policy),
    }
}

/// Whether two listeners cannot both have what they want.
fn collide(one: &SocketAddr, other: &SocketAddr) -> bool {
    let same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same
}

/// Whether an address is one of the whole internet, as far as its first bits say.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(four) => {
            let [first, second, ..] = four.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            !(four.is_private() || four.is_loopback() || four.is_link_local() || four.is_documentation() || shared)
        }
        IpAddr::V6(six) => !(six.is_unique_local() || six.is_loopback() || six.is_unicast_link_local()),
    }
}

const ADMIN: &str = "admin";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn judged(admin: &str, traffic: &str, own: &[&str], has_token: bool) -> (Verdict, String) {
        let own = own.iter().map(|ip| ip.parse().unwrap()).collect();
        let (addresses, traffic) = (vec![admin.parse().unwrap()], vec![traffic.parse().unwrap()]);
        let finding = judge(Some(&Door { admin: admin.to_owned(), addresses, traffic, own, has_token }));
        (finding.verdict, [finding.found, finding.advice].concat().join("\n"))
    }

    #[test]
    fn an_address_of_the_pod_alone_is_sound_and_a_wider_one_is_for_a_person_to_judge() {
        assert_eq!(judged("127.0.0.1:9901", "0.0.0.0:8080", &["10.0.0.5"], true).0, Verdict::Sound);
        let (verdict, said) = judged("0.0.0.0:9901", "0.0.0.0:8080", &["10.0.0.5"], false);
        assert_eq!(verdict, Verdict::Unknown);
        assert!(said.contains("(10.0.0.5)") && said.contains("NetworkPolicy") && !said.contains("token"), "{said}");
        let (verdict, said) = judged("0.0.0.0:9901", "0.0.0.0:8080", &["10.0.0.5"], true);
        assert_eq!(verdict, Verdict::Unknown);
        assert!(said.contains("in the clear") && said.contains("kubectl exec"), "{said}");
        assert_eq!(judge(None).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_token_for_all_the_world_and_one_port_for_both_are_wrong() {
        assert_eq!(judged("0.0.0.0:9901", "0.0.0.0:8080", &["8.8.8.8"], true).0, Verdict::Wrong);
        assert_eq!(judged("0.0.0.0:9901", "0.0.0.0:8080", &["8.8.8.8"], false).0, Verdict::Unknown);
        assert_eq!(judged("127.0.0.1:8080", "0.0.0.0:8080", &[], false).0, Verdict::Wrong);
        assert_eq!(judged("127.0.0.1:8080", "10.0.0.5:8080", &[], false).0, Verdict::Sound);
    }

    #[test]
    fn private_shared_and_documented_addresses_are_not_public() {
        for (ip, public) in [
            ("10.1.2.3", false),
            ("192.168.0.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("192.0.2.1", false),
            ("8.8.8.8", true),
            ("fd00::2", false),
            ("2a00::1", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }
}
