//! `portcullis drain`: what the preStop hook of a pod runs.
//!
//! The kubelet signals a native sidecar (an init container with `restartPolicy: Always`) only after the main containers have
//! ended, so the PAM would be gone before callers are told to go elsewhere. A preStop hook runs at the very beginning, and an
//! image without a shell has no `kill`.

use std::fs;
use std::process::ExitCode;

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `portcullis drain` takes.
#[derive(Args)]
pub struct Drain {
    /// The process; in a container that is number 1.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
}

/// Sends SIGTERM, and waits for nothing: how long the leave takes is up to `drain.delay` and `drain.timeout`.
pub fn drain(arguments: &Drain) -> ExitCode {
    match terminate(arguments.pid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            super::complain_of(&fault);
            ExitCode::FAILURE
        }
    }
}

fn terminate(pid: i32) -> Result<(), String> {
    let asked = |of: &str| fs::read_link(format!("/proc/{of}/exe"));
    let theirs = asked(&pid.to_string()).map_err(|fault| {
        format!("cannot look at process {pid}: {fault}; run this as the user and in the container of the portcullis that serves")
    })?;
    // A pod that shares its processes has something else as number 1, and a signal cannot be taken back.
    if asked("self").ok().as_ref() != Some(&theirs) {
        return Err(format!(
            "process {pid} is {}, not a portcullis; say which one is with --pid, or do not share the pod's processes",
            theirs.display()
        ));
    }
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|fault| format!("cannot signal process {pid}: {fault}"))
}
