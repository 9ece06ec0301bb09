//! Whether anybody can go around Portcullis: a PAM beside it should be reached by loopback alone.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::finding::Finding;
use super::machine::{Machine, own_addresses};
use super::sockets;
use crate::config::Settings;

/// What is known of the ways to the PAM.
#[derive(Debug, Default)]
pub struct Ways {
    /// Where `upstream` leads.
    pub upstream: Vec<SocketAddr>,
    /// The addresses by which others reach this pod.
    pub own: Vec<IpAddr>,
    /// The addresses of this pod at which somebody listens on the PAM's port.
    pub listening: Vec<IpAddr>,
    /// Those of its own addresses at which a connection to the PAM's port came about.
    pub open: Vec<SocketAddr>,
    /// Whether the PAM is spoken to over TLS.
    pub over_tls: bool,
}

/// Looks, and tries the pod's own addresses: each connection is closed without a byte.
pub async fn look(settings: &Settings, machine: &Machine) -> Ways {
    let found = lookup_host(&settings.upstream).await;
    let upstream: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
    let ours: BTreeSet<String> =
        [Some(&settings.listen), settings.admin.as_ref()].into_iter().flatten().cloned().collect();
    let own = own_addresses();
    let ports: BTreeSet<u16> = upstream.iter().map(SocketAddr::port).collect();
    let tables = ["proc/net/tcp", "proc/net/tcp6"].map(|table| machine.text(table).unwrap_or_default());
    let ours_at = |ip: &IpAddr, port: u16| ours.contains(&SocketAddr::new(*ip, port).to_string());
    let listening = ports.iter().flat_map(|port| {
        let all = sockets::listening(&tables, *port);
        all.into_iter().filter(|ip| !ours_at(ip, *port)).collect::<Vec<_>>()
    });
    let candidates = own.iter().flat_map(|ip| ports.iter().map(|port| (*ip, *port)));
    let candidates = candidates.filter(|(ip, port)| !ours_at(ip, *port)).map(SocketAddr::from);
    let tried = candidates.map(async |address| {
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
        connected.is_ok_and(|connected| connected.is_ok()).then_some(address)
    });
    let open = join_all(tried).await.into_iter().flatten().collect();
    let over_tls = settings.upstream_tls.is_some();
    Ways { upstream, own: own.clone(), listening: listening.collect(), open, over_tls }
}

/// Whether there is a way around.
pub fn judge(ways: &Ways) -> Finding {
    if ways.upstream.is_empty() {
        return Finding::unknown(BYPASS, "`upstream` is a name that is not known here");
    }
    let here = |address: &SocketAddr| address.ip().is_loopback() || ways.own.contains(&address.ip());
    let elsewhere: Vec<&SocketAddr> = ways.upstream.iter().filter(|address| !here(address)).collect();
    if !elsewhere.is_empty() {
        return apart(&listed(elsewhere), ways.over_tls);
    }
    if !ways.open.is_empty() {
        let found =
            format!("the PAM takes connections at {}: whoever reaches the pod can go around", listed(&ways.open));
        return around(Finding::wrong(BYPASS, found), ways);
    }
    let wide: Vec<&IpAddr> = ways.listening.iter().filter(|ip| !ip.is_loopback()).collect();
    if !wide.is_empty() {
        let found = format!("the PAM listens at {}, and not at loopback alone", listed(&wide));
        // Where there is no address to try it by, what is listened at is all there is to go by.
        if ways.own.is_empty() {
            return Finding::wrong(BYPASS, found).advise(BIND);
        }
        let found = format!("{found}, though no connection came about at {}", listed(&ways.own));
        return Finding::unknown(BYPASS, found).advise(BIND);
    }
    if ways.listening.is_empty() {
        let found = "nobody is seen to listen on the PAM's port in this pod; when the PAM runs, ask again";
        return Finding::unknown(BYPASS, found);
    }
    let tried = if ways.own.is_empty() { String::new() } else { format!(", and not at {}", listed(&ways.own)) };
    Finding::sound(BYPASS, format!("the PAM listens at {} alone{tried}", listed(&ways.listening)))
}

fn around(finding: Finding, ways: &Ways) -> Finding {
    let listed = listed(&ways.listening);
    let finding = if listed.is_empty() { finding } else { finding.and(format!("it listens at {listed}")) };
    finding.advise(BIND).advise(POLICY)
}

/// A PAM on another machine, or in another pod.
fn apart(listed: &str, over_tls: bool) -> Finding {
    let found = format!("the PAM is elsewhere, at {listed}: who else reaches it there cannot be known from here");
    let finding = Finding::unknown(BYPASS, found)
        .advise("admit nobody but Portcullis to it: by a NetworkPolicy, or by a certificate that the PAM demands");
    match over_tls {
        true => finding,
        false => finding
            .and("there is no `upstream_tls`: requests, tokens and answers cross the network in the clear")
            .advise("use upstream_tls, or a mesh that encrypts"),
    }
}

fn listed<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

const BYPASS: &str = "bypass";

const BIND: &str = "let the PAM listen at 127.0.0.1 (or ::1) alone, and point the Service at Portcullis";

/// One that admits the port of Portcullis alone cannot be seen from inside, does not hold for the node itself, and not at all
/// in a cluster whose network does not enforce it.
const POLICY: &str =
    "if it cannot, a NetworkPolicy that admits only the port of `listen` narrows it; that cannot be seen from here";

/// On this machine a connection comes about at once or not at all.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn judged(upstream: &[&str], own: &[&str], listening: &[&str], open: &[&str]) -> (Verdict, String) {
        let (upstream, open) = (sockets(upstream), sockets(open));
        let finding = judge(&Ways { upstream, own: ips(own), listening: ips(listening), open, over_tls: false });
        assert!(finding.verdict != Verdict::Wrong || !finding.advice.is_empty());
        (finding.verdict, finding.found.join("\n"))
    }

    #[test]
    fn a_pam_at_loopback_alone_has_no_way_around() {
        let here = &["127.0.0.1:9000"];
        let (verdict, found) = judged(here, &["10.0.0.5"], &["127.0.0.1"], &[]);
        assert_eq!((verdict, &*found), (Verdict::Sound, "the PAM listens at 127.0.0.1 alone, and not at 10.0.0.5"));
        assert_eq!(judged(here, &[], &["127.0.0.1", "::1"], &[]).0, Verdict::Sound);
    }

    #[test]
    fn a_pam_that_others_reach_is_wrong() {
        let here = &["127.0.0.1:9000"];
        let (verdict, found) = judged(here, &["10.0.0.5"], &["0.0.0.0"], &["10.0.0.5:9000"]);
        assert_eq!(verdict, Verdict::Wrong);
        assert!(found.contains("10.0.0.5:9000") && found.contains("it listens at 0.0.0.0"), "{found}");
        assert_eq!(judged(&["10.0.0.5:9000"], &["10.0.0.5"], &["10.0.0.5"], &["10.0.0.5:9000"]).0, Verdict::Wrong);
        assert_eq!(judged(here, &[], &["::"], &[]).0, Verdict::Wrong);
        // Something in this pod keeps connections off, and may not tomorrow.
        assert_eq!(judged(here, &["10.0.0.5"], &["::"], &[]).0, Verdict::Unknown);
    }

    #[test]
    fn of_a_pam_elsewhere_or_nowhere_nothing_is_known() {
        let (verdict, found) = judged(&["10.9.9.9:9000"], &["10.0.0.5"], &[], &[]);
        assert_eq!(verdict, Verdict::Unknown);
        assert!(found.contains("10.9.9.9:9000") && found.contains("in the clear"), "{found}");
        assert_eq!(judged(&[], &["10.0.0.5"], &[], &[]).0, Verdict::Unknown);
        assert_eq!(judged(&["127.0.0.1:9000"], &["10.0.0.5"], &[], &[]).0, Verdict::Unknown);
    }
}
