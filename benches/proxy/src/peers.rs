//! Those that are measured, each a process of its own with two threads (or workers) for traffic.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::work::{self, Wire, Work};

/// Who is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Portcullis,
    Bare,
    HaProxy,
    Nginx,
}

/// A running one. It ends when it is dropped.
pub struct Peer {
    pub kind: Kind,
    pub port: u16,
    process: Child,
}

/// Where things are.
pub struct Place {
    /// Of this run: configs, logs, certificates.
    pub folder: PathBuf,
    /// The binaries that cargo built.
    pub binaries: PathBuf,
    pub pam: u16,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Portcullis, Kind::Bare, Kind::HaProxy, Kind::Nginx];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Portcullis => "Portcullis",
            Kind::Bare => "bare pingora",
            Kind::HaProxy => "HAProxy",
            Kind::Nginx => "nginx + Lua",
        }
    }

    /// `None` when it is not installed.
    pub fn start(self, work: &Work, place: &Place) -> io::Result<Option<Peer>> {
        let (port, admin) = (free_port()?, free_port()?);
        let fill = Fill { work, place, port, admin };
        let log = File::create(place.folder.join(format!("{self:?}.log")))?;
        let errors = File::create(place.folder.join(format!("{self:?}.errors")))?;
        let mut command = match self {
            Kind::Portcullis => fill.portcullis()?,
            Kind::Bare => fill.bare(),
            Kind::HaProxy if !installed("haproxy") => return Ok(None),
            Kind::HaProxy => fill.haproxy()?,
            Kind::Nginx if !installed("nginx") => return Ok(None),
            Kind::Nginx => fill.nginx()?,
        };
        let process = command.stdout(log).stderr(errors).stdin(Stdio::null()).spawn()?;
        let mut peer = Peer { kind: self, port, process };
        peer.wait(place)?;
        Ok(Some(peer))
    }
}

impl Peer {
    /// CPU time so far, of all its processes.
    pub fn cpu(&self) -> Duration {
        self.processes().into_iter().map(cpu_of).sum()
    }

    /// Resident memory in bytes, of all its processes.
    pub fn memory(&self) -> u64 {
        self.processes().into_iter().map(memory_of).sum()
    }

    /// Itself, and its workers.
    fn processes(&self) -> Vec<u32> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).chain([id]).collect()
    }

    fn wait(&mut self, place: &Place) -> io::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.process.try_wait()?.is_some() || started.elapsed() > Duration::from_secs(20) {
                let said = fs::read_to_string(place.folder.join(format!("{:?}.errors", self.kind)))?;
                return Err(io::Error::other(format!("{} did not start: {said}", self.kind.as_str())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx's workers end with their master, if it is told. A bare pingora would wait for five minutes.
        if self.kind == Kind::Nginx {
            let _ = Command::new("kill").arg(self.process.id().to_string()).stderr(Stdio::null()).status();
        } else {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

struct Fill<'f> {
    work: &'f Work,
    place: &'f Place,
    port: u16,
    admin: u16,
}

impl Fill<'_> {
    fn portcullis(&self) -> io::Result<Command> {
        let root = root();
        let config = match self.work.family {
            "betstack" => "config/betstack.toml",
            "valkyrie" => "config/valkyrie.toml",
            _ => "config/wallet.toml",
        };
        let mut command = Command::new(self.place.binaries.join("portcullis"));
        command.arg("run").arg("--config").arg(root.join(config));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--upstream", &format!("127.0.0.1:{}", self.place.pam)]);
        command.args(["--admin", &format!("127.0.0.1:{}", self.admin)]);
        command.args(["--set", "threads=2", "--set", "limits.requests_per_connection=1000000"]);
        command.args(["--set", "replay.capacity=4000000", "--set", "limits.lockout.failures=0"]);
        if self.work.wire == Wire::Http2Tls {
            let file = |name: &str| self.place.folder.join(name).display().to_string();
            command.args(["--set", &format!("tls.certificate={}", file("tls.pem"))]);
            command.args(["--set", &format!("tls.key={}", file("tls.key"))]);
        }
        command.env("PAM_API_TOKEN", work::API_TOKEN).env("PAM_BASIC_PASSWORD", work::PASSWORD);
        command.env("WALLET_PASSWORD", work::PASSWORD).env("WALLET_SIGNING_KEY", work::KEY);
        command.env("BETSTACK_SECRET", work::KEY);
        Ok(command)
    }

    fn bare(&self) -> Command {
        let mut command = Command::new(self.place.binaries.join("bare"));
        command.args([format!("127.0.0.1:{}", self.port), format!("127.0.0.1:{}", self.place.pam)]);
        if self.work.wire == Wire::Http2Tls {
            command.args([self.place.folder.join("tls.pem"), self.place.folder.join("tls.key")]);
        }
        command
    }

    fn haproxy(&self) -> io::Result<Command> {
        let checks = fs::read_to_string(peers().join(format!("haproxy.{}.cfg", self.work.family)))?;
        let tls = match self.work.wire {
            Wire::Http1 => String::new(),
            Wire::Http2 => "proto h2".to_owned(),
            Wire::Http2Tls => {
                format!("ssl crt {} alpn h2 ssl-min-ver TLSv1.3", self.place.folder.join("both.pem").display())
            }
        };
        // HAProxy holds a body in one buffer.
        let buffer = if self.work.body.len() > 8 << 10 { "65536" } else { "16384" };
        let text = fs::read_to_string(peers().join("haproxy.cfg"))?.replace("{checks}", checks.trim_start());
        let text = self.fill(&text).replace("{tls}", &tls).replace("{buffer}", buffer);
        let file = self.place.folder.join("haproxy.cfg");
        fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        Ok(command)
    }

    fn nginx(&self) -> io::Result<Command> {
        let (tls, certificates) = match self.work.wire {
            Wire::Http1 => ("", String::new()),
            Wire::Http2 => ("http2", String::new()),
            Wire::Http2Tls => {
                let file = |name: &str| self.place.folder.join(name).display().to_string();
                let (certificate, key) = (file("tls.pem"), file("tls.key"));
                let lines = format!("ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;");
                ("ssl http2", lines)
            }
        };
        let text = fs::read_to_string(peers().join("nginx.conf"))?;
        let text = self.fill(&text).replace("{tls}", tls).replace("{certificates}", &certificates);
        let file = self.place.folder.join("nginx.conf");
        fs::write(&file, text)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).arg("-p").arg(&self.place.folder);
        Ok(command)
    }

    fn fill(&self, text: &str) -> String {
        let text = text.replace("{listen}", &format!("127.0.0.1:{}", self.port));
        let text = text.replace("{admin}", &format!("127.0.0.1:{}", self.admin));
        let text = text.replace("{upstream}", &format!("127.0.0.1:{}", self.place.pam));
        let text = text.replace("{folder}", &self.place.folder.display().to_string());
        let text = text.replace("{peers}", &peers().display().to_string());
        let text = text.replace("{family}", self.work.family);
        let text = text.replace("{api_token}", work::API_TOKEN).replace("{key}", work::KEY);
        text.replace("{basic}", &work::basic(self.work.family)).replace("{key64}", &work::base64(work::KEY))
    }
}

/// The folder of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder with the configs of the others.
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// A port that nobody listens on.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Whether there is such a command.
pub fn installed(command: &str) -> bool {
    Command::new(command).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn cpu_of(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // Behind the name, which may have anything in it: user and system time are the fields 14 and 15, in ticks of 10 ms.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

fn memory_of(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    1024 * line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
