//! Where replicas meet: a Redis or Valkey, alone, watched by Sentinels, or as a cluster.
//!
//! Only how to reach it; what is said there is [`super::feed`]'s.

use std::fmt;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, ServerErrorKind, TlsCertificates, TlsMode,
    Value, cmd, from_redis_value,
};
use tokio::sync::Mutex;

use crate::secret::Secret;

/// How to reach the store.
#[derive(Clone, Debug)]
pub struct StoreRules {
    /// Host and port of the server, of the Sentinels, or of some of the cluster's nodes.
    pub nodes: Vec<(String, u16)>,
    /// What they are.
    pub topology: Topology,
    /// Whom to trust, and who we are; `None` for plain TCP.
    pub tls: Option<Tls>,
    /// The ACL user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The number of the database; a cluster has only 0.
    pub database: i64,
}

/// What answers at the nodes' addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// The server itself.
    Single,
    /// Sentinels that know the address of the master of this name.
    Sentinel(String),
    /// A cluster.
    Cluster,
}

/// TLS to the store, in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authorities that may have signed its certificate; `None` for those of the system.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Secret)>,
}

/// The store cannot be reached, or does not answer as it should.
#[derive(Clone, Debug)]
pub struct Fault(String);

/// A way to the store.
pub struct Store(Way);

enum Way {
    Single(Client),
    Sentinel(Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

/// A connection. Cloning it shares it: commands of all clones are pipelined.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    Node(MultiplexedConnection),
    /// To as many as the cluster has.
    Cluster(ClusterConnection),
}

impl Store {
    /// Makes ready to connect; the error says which part of the rules cannot work.
    pub fn new(rules: &StoreRules) -> Result<Store, Fault> {
        let password = match &rules.password {
            None => None,
            Some(secret) => {
                Some(std::str::from_utf8(secret.expose()).map_err(|_| Fault("the password must be UTF-8".to_owned()))?)
            }
        };
        let certificates = rules.tls.as_ref().map(|tls| TlsCertificates {
            client_tls: tls.identity.as_ref().map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.clone(),
                client_key: key.expose().to_vec(),
            }),
            root_cert: tls.ca.clone(),
        });
        let mut login = RedisConnectionInfo::default().set_db(rules.database);
        if let Some(user) = &rules.user {
            login = login.set_username(user);
        }
        if let Some(password) = password {
            login = login.set_password(password);
        }
        let addresses = rules.nodes.iter().map(|(host, port)| match &certificates {
            None => ConnectionAddr::Tcp(host.clone(), *port),
            Some(_) => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        });
        let addresses: Vec<ConnectionAddr> = addresses.collect();
        let info = |address: ConnectionAddr| -> RedisResult<ConnectionInfo> {
            Ok(address.into_connection_info()?.set_redis_settings(login.clone()))
        };
        let way = match &rules.topology {
            Topology::Single => {
                let address = addresses.into_iter().next().ok_or_else(|| Fault("there is no address".to_owned()))?;
                Way::Single(match certificates {
                    None => Client::open(info(address)?)?,
                    Some(certificates) => Client::build_with_tls(info(address)?, certificates)?,
                })
            }
            Topology::Sentinel(name) => {
                let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?
                    .set_client_to_redis_db(rules.database);
                if let Some(user) = &rules.user {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = password {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(certificates) = certificates {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_certificates(certificates);
                }
                Way::Sentinel(Mutex::new(builder.build()?))
            }
            Topology::Cluster => {
                let nodes = addresses.into_iter().map(info).collect::<RedisResult<Vec<_>>>()?;
                // What fails is tried again by us, who know for how long it is worth it.
                let mut builder = ClusterClient::builder(nodes).retries(2).max_retry_wait(100);
                if let Some(certificates) = certificates {
                    builder = builder.tls(TlsMode::Secure).certs(certificates);
                }
                Way::Cluster(builder.build()?)
            }
        };
        Ok(Store(way))
    }

    /// A connection of its own, on which every answer must come within `timeout`.
    pub async fn connect(&self, timeout: Duration) -> Result<Connection, Fault> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
        let connecting = async {
            Ok(match &self.0 {
                Way::Single(client) => {
                    Connection::Node(client.get_multiplexed_async_connection_with_config(&config).await?)
                }
                Way::Sentinel(client) => {
                    let mut client = client.lock().await;
                    Connection::Node(client.get_async_connection_with_config(&config).await?)
                }
                Way::Cluster(client) => {
                    let config = ClusterConfig::new().set_connection_timeout(timeout).set_response_timeout(timeout);
                    Connection::Cluster(client.get_async_connection_with_config(config).await?)
                }
            })
        };
        // A Sentinel that hangs must not hold this up: each one of several is asked with the client's own patience.
        match tokio::time::timeout(timeout * PATIENCE, connecting).await {
            Ok(connected) => connected.map_err(|fault: RedisError| fault.into()),
            Err(_) => Err(Fault(format!("no connection within {:?}", timeout * PATIENCE))),
        }
    }
}

impl Connection {
    /// What the clock of the server shows that has this key, in milliseconds since 1970.
    pub async fn time_of(&mut self, key: &str) -> RedisResult<u64> {
        let (seconds, micros): (u64, u64) = match self {
            Connection::Node(node) => cmd("TIME").query_async(node).await?,
            Connection::Cluster(cluster) => {
                let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot(key), SlotAddr::Master));
                from_redis_value(cluster.route_command(cmd("TIME"), RoutingInfo::SingleNode(route)).await?)?
            }
        };
        Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
    }

    /// What the server does when it is full; `None` where it does not say, as to a user that may not ask. In a cluster each
    /// server has a setting of its own, and none is asked.
    pub async fn eviction_policy(&mut self) -> Option<String> {
        let Connection::Node(node) = self else { return None };
        let answer: RedisResult<Vec<String>> = cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(node).await;
        answer.ok()?.into_iter().nth(1)
    }
}

/// True for an answer by which a server that can be reached, and is the right one, says no. Any other error may be over
/// with the next connection.
pub fn is_refusal(fault: &RedisError) -> bool {
    let is_answer = matches!(
        fault.kind(),
        ErrorKind::Extension | ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoPerm)
    );
    // A server that becomes a replica sends away whoever waits, and one whose users change whoever is logged in.
    is_answer && !matches!(fault.code(), Some("UNBLOCKED" | "NOAUTH"))
}

/// The slot of a cluster in which a key lives: CRC16 (XMODEM) of what stands in its first braces.
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let tag = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    });
    crc % SLOTS
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Connection::Node(node) => node.req_packed_command(cmd),
            Connection::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Connection::Node(node) => node.req_packed_commands(pipeline, offset, count),
            Connection::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Connection::Node(node) => node.get_db(),
            Connection::Cluster(cluster) => cluster.get_db(),
        }
    }
}

impl From<RedisError> for Fault {
    fn from(fault: RedisError) -> Fault {
        Fault(fault.to_string())
    }
}

impl From<String> for Fault {
    fn from(fault: String) -> Fault {
        Fault(fault)
    }
}

impl From<&str> for Fault {
    fn from(fault: &str) -> Fault {
        Fault(fault.to_owned())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A connection takes several questions: who is the master, who are you, and for a cluster which slots are whose.
const PATIENCE: u32 = 3;

/// Slots of a cluster.
const SLOTS: u16 = 16384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_live_in_the_slots_that_a_cluster_says() {
        // As CLUSTER KEYSLOT has them.
        for (key, expected) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}:log", 12182),
            ("a{foo}{bar}", 12182),
            ("{}foo", 9500),
            ("{portcullis}:log", slot("portcullis")),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }
}
