//! The command line: arguments become one command.

mod call;
mod check;
mod demo;
mod doctor;
mod drain;
mod explain;
mod manual;
mod operate;
mod paint;
mod run;
mod sign;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Complaint, Flags, InUse, Settings};
use crate::files::Files;
use crate::secret::DigestKey;

/// Runs the command the arguments name, and tells how it went: 0 done, 64 wrong usage, 78 bad config, 1 failed.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command {
        Command::Run(config) => run::run(&config.into()),
        Command::Check(config) => check::check(&config.into()),
        Command::Sign(arguments) => sign::sign(*arguments),
        Command::Explain(arguments) => explain::explain(*arguments),
        Command::Revoke(arguments) => operate::revoke(*arguments),
        Command::Unrevoke(arguments) => operate::unrevoke(*arguments),
        Command::Status(arguments) => operate::status(*arguments),
        Command::Readiness(arguments) => operate::readiness(arguments),
        Command::Doctor(arguments) => doctor::doctor(*arguments),
        Command::Drain(arguments) => drain::drain(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man => manual::man(),
    }
}

/// Wrong usage (sysexits.h EX_USAGE).
const USAGE: u8 = 64;

/// Bad config (sysexits.h EX_CONFIG).
const CONFIG: u8 = 78;

/// A security sidecar in front of a PAM: only calls that prove themselves get through.
#[derive(Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true, after_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "Example:
  WALLET_PASSWORD=… WALLET_SIGNING_KEY=… portcullis run --config config/wallet.toml";

#[derive(Subcommand)]
enum Command {
    /// Serve: check every call and forward those that pass.
    #[command(after_help = "Example:
  portcullis run --config config/wallet.toml --listen 0.0.0.0:8080 --set limits.body=128KiB")]
    Run(ConfigFlags),
    /// Read the config and say everything that is wrong with it.
    #[command(after_help = "Example:
  portcullis check --config config/wallet.toml")]
    Check(ConfigFlags),
    /// Print the header fields that a caller of the config sends, and a curl line that sends them.
    Sign(Box<sign::Sign>),
    /// Say why a captured request is, or would be, refused: each check, what it found, and what to do. Calls nobody.
    Explain(Box<explain::Explain>),
    /// End a token now, or all that were seen before a moment: asks the portcullis that runs at `admin` of the config.
    Revoke(Box<operate::Revoke>),
    /// Take back that a token ended.
    Unrevoke(Box<operate::Unrevoke>),
    /// Show how the portcullis that runs does, or what it knows of a token.
    Status(Box<operate::Status>),
    /// Say whether it is safe to enforce what only watches now, or what to fix first, by what was seen.
    Readiness(operate::Readiness),
    /// Examine what is around it, from inside its pod: say what is wrong and what to do. Changes nothing.
    Doctor(Box<doctor::Doctor>),
    /// Tell the portcullis of this container to take its leave, as SIGTERM does: for the preStop hook of a pod.
    #[command(after_help = "Example:
  lifecycle: { preStop: { exec: { command: [/portcullis, drain] } } }")]
    Drain(drain::Drain),
    /// See it work: a small PAM, and telling requests to it through a Portcullis. Needs nothing else.
    Demo(demo::Demo),
    /// Print what makes a shell complete commands and flags.
    Completions(manual::Completions),
    /// Print the manual page: every command and flag.
    #[command(after_help = manual::MAN)]
    Man,
}

/// Where the config is, and what to change in it.
#[derive(Args, Clone)]
struct ConfigFlags {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where callers connect, instead of `listen`.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where the PAM is, instead of `upstream`.
    #[arg(long, value_name = "ADDRESS")]
    upstream: Option<String>,
    /// Where metrics and probes are, instead of `admin`.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Sets any key: KEY dotted, VALUE a TOML value or else a string. Wins over the file.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl From<ConfigFlags> for Flags {
    fn from(flags: ConfigFlags) -> Flags {
        let ConfigFlags { config, listen, upstream, admin, set } = flags;
        Flags { config, listen, upstream, admin, set }
    }
}

/// Loads the settings with a fresh key, or prints every complaint.
fn load(flags: &Flags) -> Result<Settings, ExitCode> {
    Ok(read(flags)?.0)
}

/// The same, with the files they were read from.
fn read(flags: &Flags) -> Result<(Settings, Files), ExitCode> {
    let variable = |name: &str| std::env::var(name).ok();
    let (settings, files) = Settings::read(flags, &variable, DigestKey::new(rand::random()), InUse::default());
    let settings = settings.map_err(|complaints| {
        complain(&complaints);
        ExitCode::from(CONFIG)
    })?;
    Ok((settings, files))
}

/// Not `eprintln!`, here and below: it panics when standard error is gone, and the exit code would say something else.
fn complain(complaints: &[Complaint]) {
    let mut out = std::io::stderr().lock();
    for complaint in complaints {
        let _ = writeln!(out, "{complaint}");
    }
    let plural = if complaints.len() == 1 { "complaint" } else { "complaints" };
    let _ = writeln!(out, "portcullis: {} {plural} about the config", complaints.len());
}

fn complain_of(fault: &str) {
    let _ = writeln!(std::io::stderr(), "portcullis: {fault}");
}
