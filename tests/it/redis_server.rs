//! Real Redis servers, each on a free port with a folder of its own, killed when dropped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::time::timeout;

use crate::world::{Folder, PATIENCE};

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
        let arguments = own.iter().chain(options).map(|option| (*option).to_owned()).collect();
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
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("{arguments:?} never said {text}"));
    }

    async fn answers(&self) {
        // Whoever demands a password or TLS answers as well, only not PONG.
        let up = async { while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {} };
        timeout(PATIENCE, up).await.expect("the server does not listen");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(arguments: &[String], folder: &Path) -> Child {
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|fault| panic!("{}: {fault}; it is in Debian's redis packages", arguments[0]))
}
