//! Where a request comes from: allow-lists, whose word on it is believed, and what the PAM is told.

use std::net::{IpAddr, SocketAddr};

use crate::upstream::{Family, families};
use crate::world::{Connection, Folder, Reply, Request, World, correlation_of, reason, root, valkyrie, wallet};

// ---- allow-lists ----

// threat: C13
#[tokio::test]
async fn a_caller_from_elsewhere_gets_what_a_stranger_gets() {
    for Family { config, call, .. } in families() {
        let (_folder, config) = restricted(config, "127.0.0.2/32");
        let world = World::of(&config, &[]).await;
        let call = call.with("X-Correlation-ID", ID);
        for http2 in [false, true] {
            let [stranger, elsewhere] = [&unproven(&call), &call];
            let stranger = world.send(stranger).await;
            let elsewhere = if http2 { world.send_h2(elsewhere).await } else { world.send(elsewhere).await };
            assert!(matches!(stranger.status, 401 | 403), "{config}");
            assert_eq!(told(&elsewhere), told(&stranger), "{config}");
        }
        world.pam.assert_untouched();
        // Nothing was used up by that: the same message from where it may come from.
        assert_eq!(from(OTHER, &world).await.send(&call).await.status, 200, "{config}");
        let lines = world.finish().await;
        let refused: Vec<_> = lines.iter().filter(|line| line["reason"] == "caller_elsewhere").collect();
        assert_eq!(refused.len(), 2, "{config}");
        for line in refused {
            assert_eq!(
                (line["check"].as_str(), line["client.address"].as_str()),
                (Some("credential"), Some("127.0.0.1"))
            );
            assert_ne!(line["caller"], "none", "{config}");
        }
    }
}

// threat: C13
#[tokio::test]
async fn behind_a_trusted_proxy_the_address_it_names_is_looked_up_in_the_list() {
    let (_folder, config) = restricted("config/wallet.toml", "198.51.100.0/24");
    let world = World::of(&config, &[TRUSTED]).await;
    for (named, status) in [
        ("198.51.100.1", 200),
        ("203.0.113.5", 401),
        // What the client wrote itself stands on the left.
        ("198.51.100.1, 203.0.113.5", 401),
        ("203.0.113.5, 198.51.100.1", 200),
        ("198.51.100.1, 127.0.0.1", 200),
        ("", 400),
    ] {
        let call = wallet::signed("debit", &wallet::body("t")).with("X-Forwarded-For", named);
        assert_eq!(world.send(&call).await.status, status, "{named}");
        assert_eq!(world.send_h2(&call).await.status, status, "{named}");
        // Nobody else is believed.
        assert_eq!(from(OTHER, &world).await.send(&call).await.status, 401, "{named}");
    }
    // The proxy itself is not in the list.
    assert_eq!(world.send(&wallet::signed("debit", &wallet::body("t"))).await.status, 401);
    assert_eq!(world.pam.requests().len(), 6);
}

// ---- what the PAM is told ----

// threat: C13
#[tokio::test]
async fn nobody_tells_the_pam_where_a_request_comes_from_but_us() {
    let world = World::valkyrie().await;
    let call = ABOUT_THE_WAY.iter().fold(valkyrie::call("GET", SESSION), |call, (name, value)| call.with(name, value));
    let underscored = call.clone().with("X_Forwarded_For", "203.0.113.9").with("X_REAL_IP", "203.0.113.9");
    assert_eq!(world.send(&call).await.status, 200);
    assert_eq!(world.send_h2(&call).await.status, 200);
    assert_eq!(world.send(&underscored).await.status, 200);
    for seen in world.pam.requests() {
        assert_eq!(seen.values("X-Forwarded-For"), ["127.0.0.1"]);
        assert!(!seen.head.contains("203.0.113."), "{}", seen.head);
        assert_eq!(seen.head.to_ascii_lowercase().matches("forwarded").count(), 1, "{}", seen.head);
    }
    assert_eq!(world.pam.requests().len(), 3);
}

#[tokio::test]
async fn from_a_trusted_proxy_the_rest_passes_and_the_client_is_still_ours_to_name() {
    let world = World::of("config/valkyrie.toml", &[TRUSTED]).await;
    let call = ABOUT_THE_WAY.iter().fold(valkyrie::call("GET", SESSION), |call, (name, value)| call.with(name, value));
    let call = call.with("X-Forwarded-For", "198.51.100.1");
    for http2 in [false, true] {
        let reply = if http2 { world.send_h2(&call).await } else { world.send(&call).await };
        assert_eq!(reply.status, 200);
        let seen = world.pam.requests().pop().unwrap();
        assert_eq!(seen.values("X-Forwarded-For"), ["198.51.100.1"]);
        assert_eq!((seen.values("X-Forwarded-Proto"), seen.values("X-Forwarded-Host")), (vec!["https"], vec!["pam"]));
        assert!(!seen.head.contains("203.0.113."), "{}", seen.head);
    }
    let lines = world.finish().await;
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["client.address"] == "198.51.100.1"), "{lines:?}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_and_nobody_can_read_is_refused() {
    let world = World::of("config/wallet.toml", &[TRUSTED]).await;
    let call = wallet::signed("debit", &wallet::body("t")).with("X-Forwarded-For", "unknown");
    let reply = world.send(&call).await;
    assert_eq!((reply.status, wallet::code(&reply)), (400, 400.into()));
    world.pam.assert_untouched();
    let id = correlation_of(&reply);
    assert_eq!(from(OTHER, &world).await.send(&call).await.status, 200);
    assert_eq!(reason(&world.finish().await, &id), "forwarded_malformed");
}

// ---- connections by address ----

#[tokio::test]
async fn an_address_has_its_own_bound_and_a_trusted_proxy_none() {
    let world = World::of("config/wallet.toml", &[TRUSTED, "limits.connections_per_address=1"]).await;
    let call = wallet::signed("balance", &wallet::body("t"));
    let mut open = Vec::new();
    for local in ["127.0.0.1", "127.0.0.1", "127.0.0.1", OTHER, "127.0.0.3"] {
        let mut connection = from(local, &world).await;
        assert_eq!(connection.send(&call).await.status, 200, "{local}");
        open.push(connection);
    }
    assert!(from(OTHER, &world).await.rest().await.is_empty());
    let refused = "portcullis_connections_refused_total{reason=\"connections_per_address\"}";
    assert_eq!(world.metric(refused).await, 1.0);
}

// ---- what the tests above are written with ----

const ID: &str = "0192f0c1-2b7e-7c3d-8e4f-5a6b7c8d9e0f";

const SESSION: &str = "/players/session?provider=x";

const TRUSTED: &str = "trusted_proxies=[\"127.0.0.1\"]";

/// Another address of this host.
const OTHER: &str = "127.0.0.2";

const ABOUT_THE_WAY: [(&str, &str); 9] = [
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "pam"),
    ("Forwarded", "for=203.0.113.9"),
    ("X-Real-IP", "203.0.113.9"),
    ("X-Client-IP", "203.0.113.9"),
    ("True-Client-IP", "203.0.113.9"),
    ("CF-Connecting-IP", "203.0.113.9"),
    ("X-Cluster-Client-IP", "203.0.113.9"),
];

/// A config of the repository whose callers may call from one network.
fn restricted(config: &str, network: &str) -> (Folder, String) {
    let name = config.replace(['/', '.'], "-");
    let folder = Folder::new(&format!("origin-{name}-{}", network.replace(['/', '.'], "-")));
    let text = std::fs::read_to_string(root().join(config)).unwrap();
    let text = text.replace("[[caller]]\n", &format!("[[caller]]\nfrom = [\"{network}\"]\n"));
    assert!(text.contains("from = "), "{text}");
    let path = folder.write("config.toml", &text);
    (folder, path)
}

/// A connection from a local address.
async fn from(local: &str, world: &World) -> Connection {
    Connection::between(SocketAddr::new(local.parse::<IpAddr>().unwrap(), 0), world.address).await
}

/// The same call without a proof.
fn unproven(call: &Request) -> Request {
    match call.values("Authorization").is_empty() {
        true => call.clone().replacing("signature", &"0".repeat(64)),
        false => call.clone().replacing("Authorization", "Basic eDp5"),
    }
}

/// All that a reply tells, but for the time, which HTTP/2 adds.
fn told(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let fields = reply.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut fields: Vec<_> = fields.filter(|(name, _)| name != "date").collect();
    fields.sort();
    (reply.status, fields, reply.text())
}
