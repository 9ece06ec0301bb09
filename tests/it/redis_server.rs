//! Real Redis servers, each on a free port with a folder of its own, killed when dropped: alone, watched by Sentinels, or
//! as a cluster.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::time::timeout;

use crate::world::{Folder, PATIENCE, breath};

/// One `redis-server` process, which can be stopped, killed and started again on the same port and data.
pub struct RedisServer {
    pub port: u16,
    folder: Folder,
    arguments: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// A server that keeps nothing on disk, with more of its own options: `["--appendonly", "yes"]`.
    pub async fn start(name: &str, options: &[&str]) -> RedisServer {
        let port = free_port();
        let folder = Folder::new(&format!("redis-{name}"));
        let port_text = port.to_string();
        let own = ["--bind", "127.0.0.1", "--port", &port_text, "--save", "", "--loglevel", "warning"];
        // The default waits for five seconds for more replicas to come.
        let swift = ["--repl-diskless-sync-delay", "0"];
        let arguments = own.iter().chain(&swift).chain(options).map(|option| (*option).to_owned()).collect();
        RedisServer::of("redis-server", port, folder, arguments).await
    }

    /// Any program of the package; answers by the time this returns.
    pub async fn of(program: &str, port: u16, folder: Folder, arguments: Vec<String>) -> RedisServer {
        let arguments = std::iter::once(program.to_owned()).chain(arguments).collect::<Vec<_>>();
        let child = spawn(&arguments, folder.path());
        let server = RedisServer { port, folder, arguments, child };
        server.answers().await;
        server
    }

    /// A replica of another server, which has all that it has.
    pub async fn replica_of(name: &str, master: &RedisServer, options: &[&str]) -> RedisServer {
        let port = master.port.to_string();
        let replica = RedisServer::start(name, &[&["--replicaof", "127.0.0.1", &port], options].concat()).await;
        replica.until(&["INFO", "replication"], "master_link_status:up").await;
        replica
    }

    /// What a config says to reach it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `--set` values for a replica that shares by it.
    pub fn set(&self) -> String {
        format!("revocation.redis.url={}", self.url())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A signal: `STOP` hangs it, `CONT` lets it go on.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was, with what it had written.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.arguments, self.folder.path());
        self.answers().await;
    }

    /// A command of `redis-cli`, and what it printed.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Waits until a command prints something with `text` in it.
    pub async fn until(&self, arguments: &[&str], text: &str) {
        let said = async {
            while !self.cli(arguments).contains(text) {
                breath().await;
            }
        };
        timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("{arguments:?} never said {text}"));
    }

    /// Waits until a replica has everything that its master has.
    pub async fn until_followed_by(&self, replica: &RedisServer) {
        let offset = |server: &RedisServer, name: &str| {
            let about = server.cli(&["INFO", "replication"]);
            about.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
        };
        let followed = async {
            while offset(self, "master_repl_offset:") != offset(replica, "slave_repl_offset:") {
                breath().await;
            }
        };
        timeout(PATIENCE, followed).await.expect("the replica does not follow");
    }

    /// How many entries the log has.
    pub fn log_length(&self) -> u64 {
        self.cli(&["XLEN", "{portcullis}:log"]).parse().unwrap()
    }

    /// Lets a replica go without whatever its master takes from now on.
    pub async fn leave_behind(&self, replica: &RedisServer) {
        // It does not get in any more: there is no such password.
        assert_eq!(replica.cli(&["CONFIG", "SET", "masterauth", "nobody"]), "OK");
        assert_eq!(self.cli(&["CLIENT", "KILL", "TYPE", "replica"]), "1");
        replica.until(&["INFO", "replication"], "master_link_status:down").await;
    }

    async fn answers(&self) {
        // Whoever demands a password or TLS answers as well, only not PONG.
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                breath().await;
            }
        };
        timeout(PATIENCE, up).await.expect("the server does not listen");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A master, its replicas, and three Sentinels of which two must agree.
pub struct Watched {
    /// The first one is the master to begin with.
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl Watched {
    /// `options` are of each server.
    pub async fn start(name: &str, replicas: usize, options: &[&str]) -> Watched {
        let mut servers = vec![RedisServer::start(&format!("{name}-0"), options).await];
        for number in 1..=replicas {
            servers.push(RedisServer::replica_of(&format!("{name}-{number}"), &servers[0], options).await);
        }
        let mut sentinels = Vec::new();
        for number in 0..3 {
            let port = free_port();
            let folder = Folder::new(&format!("redis-{name}-sentinel-{number}"));
            // The others vote and never stand: candidates that begin at the same time take turns for seconds.
            let quorum = if number == 0 { 2 } else { 4 };
            let monitor = format!("sentinel monitor mymaster 127.0.0.1 {} {quorum}", servers[0].port);
            let times = "sentinel down-after-milliseconds mymaster 700\nsentinel failover-timeout mymaster 3000";
            let config = folder.write("sentinel.conf", &format!("bind 127.0.0.1\nport {port}\n{monitor}\n{times}\n"));
            sentinels.push(RedisServer::of("redis-sentinel", port, folder, vec![config]).await);
        }
        for sentinel in &sentinels {
            let often = ["info-period", "ask-period", "publish-period"];
            let often: Vec<&str> = often.iter().flat_map(|period| [period, "100"]).collect();
            assert_eq!(sentinel.cli(&[&["SENTINEL", "DEBUG"], often.as_slice()].concat()), "OK");
        }
        for sentinel in &sentinels {
            for known in [format!("\"num-slaves\":\"{replicas}\""), "\"num-other-sentinels\":\"2\"".to_owned()] {
                sentinel.until(&["--json", "SENTINEL", "MASTER", "mymaster"], &known).await;
            }
        }
        Watched { servers, sentinels }
    }

    /// `--set` values for a replica that shares by it.
    pub fn set(&self) -> [String; 2] {
        [set_urls(&self.sentinels), "revocation.redis.sentinel=mymaster".to_owned()]
    }
}

/// A cluster of three masters, the first of which has the log, and a replica of that one.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    /// `options` are of each node.
    pub async fn start(name: &str, options: &[&str]) -> Cluster {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for number in 0..4 {
            let bus = free_port().to_string();
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "500"];
            let lenient = ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"];
            let options = [own.as_slice(), &lenient, options].concat();
            nodes.push(RedisServer::start(&format!("{name}-{number}"), &options).await);
            buses.push(bus);
        }
        assert_eq!(nodes[0].cli(&["CLUSTER", "KEYSLOT", "{portcullis}:log"]), LOG_SLOT);
        for (node, (first, last)) in nodes.iter().zip([("10923", "16383"), ("0", "5460"), ("5461", "10922")]) {
            assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", first, last]), "OK");
        }
        for (number, node) in nodes.iter().enumerate() {
            assert_eq!(node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]), "OK");
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let port = node.port.to_string();
            assert_eq!(nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]), "OK");
        }
        for node in &nodes {
            node.until(&["CLUSTER", "INFO"], "cluster_known_nodes:4").await;
        }
        let owner = nodes[0].cli(&["CLUSTER", "MYID"]);
        nodes[3].until(&["CLUSTER", "NODES"], &owner).await;
        assert_eq!(nodes[3].cli(&["CLUSTER", "REPLICATE", &owner]), "OK");
        nodes[3].until(&["INFO", "replication"], "master_link_status:up").await;
        for node in &nodes {
            node.until(&["CLUSTER", "INFO"], "cluster_state:ok").await;
            node.until(&["CLUSTER", "NODES"], &format!("slave {owner}")).await;
        }
        Cluster { nodes }
    }

    /// Moves the log from the first node to the second, which the cluster is not told yet: whoever asks the first one is
    /// sent to the second for this once.
    pub fn move_log_halfway(&self) {
        let (from, to) = (&self.nodes[0], &self.nodes[1]);
        assert_eq!(to.cli(&["CLUSTER", "SETSLOT", LOG_SLOT, "IMPORTING", &from.cli(&["CLUSTER", "MYID"])]), "OK");
        assert_eq!(from.cli(&["CLUSTER", "SETSLOT", LOG_SLOT, "MIGRATING", &to.cli(&["CLUSTER", "MYID"])]), "OK");
        for key in ["{portcullis}:log", "{portcullis}:key"] {
            assert_eq!(from.cli(&["MIGRATE", "127.0.0.1", &to.port.to_string(), key, "0", "5000"]), "OK");
        }
    }

    /// Tells the cluster.
    pub fn move_log_for_good(&self) {
        let target = self.nodes[1].cli(&["CLUSTER", "MYID"]);
        for node in [&self.nodes[1], &self.nodes[0], &self.nodes[2]] {
            assert_eq!(node.cli(&["CLUSTER", "SETSLOT", LOG_SLOT, "NODE", &target]), "OK");
        }
    }

    /// `--set` values for a replica that shares by it.
    pub fn set(&self) -> [String; 2] {
        [set_urls(&self.nodes), "revocation.redis.cluster=true".to_owned()]
    }
}

/// Where in a cluster the log lives.
const LOG_SLOT: &str = "11640";

fn set_urls(servers: &[RedisServer]) -> String {
    let urls: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.url())).collect();
    format!("revocation.redis.url=[{}]", urls.join(", "))
}

/// A port that was free a moment ago, below those from which connections take theirs: while a server is down, none takes
/// its port, and who knocks there is not connected to itself.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| rand::random_range(10_000..30_000)).find(is_free).unwrap()
}

fn spawn(arguments: &[String], folder: &Path) -> Child {
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|fault| panic!("{}: {fault}; it is in Debian's redis packages", arguments[0]))
}
