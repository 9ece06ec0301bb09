//! The real binary, as scripts and Kubernetes start it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use crate::world::{Connection, Request, betstack, operator, root, valkyrie, wallet};

pub fn portcullis() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.current_dir(root()).env_clear().stdin(Stdio::null());
    command.env("WALLET_PASSWORD", wallet::PASSWORD).env("WALLET_SIGNING_KEY", wallet::KEY);
    command.env("PAM_API_TOKEN", valkyrie::KEY).env("PAM_BASIC_PASSWORD", valkyrie::PASSWORD);
    command.env("BETSTACK_SECRET", betstack::SECRET).env("ADMIN_TOKEN", operator::TOKEN);
    command
}

pub fn output(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = portcullis().args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running `portcullis run`, killed when dropped.
pub struct Running {
    child: Child,
    pub lines: std::io::Lines<BufReader<Box<dyn Read + Send>>>,
    /// The line that says that it has started.
    pub started: serde_json::Value,
    /// Lines from before that.
    pub before: Vec<serde_json::Value>,
    pub listen: String,
    pub admin: String,
}

impl Running {
    pub fn start(config: &str, upstream: &str, more: &[&str]) -> Running {
        Running::start_at(config, upstream, &[&["--admin", "127.0.0.1:0"], more].concat())
    }

    /// The same with an admin address of the test's own among the arguments.
    pub fn start_at(config: &str, upstream: &str, more: &[&str]) -> Running {
        let addresses = ["--listen", "127.0.0.1:0", "--upstream", upstream];
        let mut command = portcullis();
        command.args(["run", "--config", config]).args(addresses).args(more);
        Running::spawn(command)
    }

    /// The same, where a disk that takes no more is an error for it and not its end: see [`Running::disk_takes`].
    pub fn start_ignoring_sigxfsz(config: &str, upstream: &str, more: &[&str]) -> Running {
        let bare = portcullis();
        let mut command = Command::new("sh");
        command.current_dir(root()).env_clear().stdin(Stdio::null());
        command.envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // The shell's own path, for `trap` and `exec` alone.
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_portcullis")]);
        command.args(["run", "--config", config, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--upstream", upstream]).args(more);
        Running::spawn(command)
    }

    /// Lets it write files up to a size, in bytes or `unlimited`.
    pub fn disk_takes(&self, size: &str) {
        let pid = self.child.id().to_string();
        let limit = format!("--fsize={size}:unlimited");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    }

    pub fn spawn(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        let lines = BufReader::new(out).lines();
        let started = serde_json::Value::Null;
        let (listen, admin) = Default::default();
        let mut running = Running { child, lines, started, before: Vec::new(), listen, admin };
        let mut started = running.next_event();
        while started["event"] != "started" {
            assert!(["revocation_store_away", "few_descriptors"].contains(&started["event"].as_str().unwrap()));
            let next = running.next_event();
            running.before.push(std::mem::replace(&mut started, next));
        }
        let text = |name: &str| started["about"][name].as_str().unwrap().to_owned();
        (running.listen, running.admin) = (text("listen"), text("admin"));
        running.started = started;
        running
    }

    pub async fn send(&self, request: &Request) -> u16 {
        Connection::to(self.listen.parse().unwrap()).await.send(request).await.status
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Its memory in KiB, as the kernel counts it.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn next_event(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// The next line about something, whatever else there is before it.
    pub fn event(&mut self, name: &str) -> serde_json::Value {
        loop {
            let event = self.next_event();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Takes the log off its hands, so that it never waits for a reader, until it ends.
    pub fn silence(&mut self) -> std::thread::JoinHandle<()> {
        let (empty, _) = std::io::pipe().unwrap();
        let lines = std::mem::replace(&mut self.lines, BufReader::new(Box::new(empty) as Box<dyn Read + Send>).lines());
        std::thread::spawn(move || lines.for_each(drop))
    }

    /// Files and sockets that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The end of a process that is not asked.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The exit code; the log has ended by then.
    pub fn exit_code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
