//! `portcullis doctor`: what is wrong around a Portcullis, from inside its pod, and what to do next.
//!
//! ```text
//! finding      what an examination found, and how it is shown
//! machine      what the system says: /proc, /sys, addresses
//!
//! pam          can it be reached               bypass     and by others, around Portcullis
//! clock        is ours the PAM's               store      does it answer, evict, have our time
//! mounts       does a file never change        modes      may others read or write it
//! expiry       do certificates end             admin      who reaches that address
//! memory       does all of it fit              cgroup     into what the container may take
//! descriptors  for each connection one         cpu        for each thread a core
//! journal      room, and what it outlives      running    what the one that runs says
//! ```
//!
//! Each examination gathers facts and judges them, in functions of their own: what is judged can be tested without a pod.
//! Nothing is changed, no credential goes to the PAM, and no secret is printed.

mod admin;
mod bypass;
mod cgroup;
mod clock;
mod cpu;
mod descriptors;
mod expiry;
mod finding;
mod journal;
mod machine;
mod memory;
mod modes;
mod mounts;
mod pam;
mod running;
mod sockets;
mod store;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;

use self::finding::{Finding, Verdict, count, document, page};
use self::machine::Machine;
use super::ConfigFlags;
use crate::config::{Flags, Settings};
use crate::descriptors::most_connections;
use crate::files::Files;
use crate::footprint::Footprint;
use crate::tls::watched::Rules;

/// What to examine.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    #[command(flatten)]
    config: ConfigFlags,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Where /proc and /sys are.
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

const EXAMPLES: &str =
    "Exits with 0 when nothing is wrong, and with 1 when something is. To the PAM goes one `OPTIONS *`.

Examples:
  portcullis doctor --config config/wallet.toml
  kubectl exec deploy/pam -c portcullis -- portcullis doctor --config /etc/portcullis/wallet.toml";

/// Examines everything, and prints what was found: 0 when nothing is wrong, 1 when something is.
pub fn doctor(arguments: Doctor) -> ExitCode {
    let Doctor { config, json, root } = arguments;
    let flags: Flags = config.into();
    let (settings, files) = match super::read(&flags) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            super::complain_of(&format!("cannot start: {fault}"));
            return ExitCode::FAILURE;
        }
    };
    let examining = Examining { settings: &settings, files: &files, machine: Machine::below(root) };
    let findings = runtime.block_on(examining.all());
    let text = match json {
        true => format!("{:#}\n", document(&findings)),
        // Also in a pipe, which is what `kubectl exec` gives a person.
        false => page(&findings, super::demo::look().coloured),
    };
    // Whoever stops reading has read enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if count(&findings, Verdict::Wrong) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Examining<'s> {
    settings: &'s Settings,
    files: &'s Files,
    machine: Machine,
}

impl Examining<'_> {
    /// The examinations, in order: first what lets others in, then what keeps it from serving, then what it has room for.
    async fn all(&self) -> Vec<Finding> {
        let (settings, machine) = (self.settings, &self.machine);
        let signature = settings.dialect.signature.as_ref();
        let tolerance = signature.and_then(|scheme| scheme.timestamp.as_ref()).map(|rule| rule.tolerance);
        let (asked, ways) = tokio::join!(pam::ask(settings), bypass::look(settings, machine));

        let mut findings = vec![
            pam::judge(&settings.upstream, settings.upstream_tls.is_some(), &asked.said),
            bypass::judge(&ways),
            admin::judge(admin::look(settings).as_ref()),
        ];
        if let Ok(said) = &asked.said {
            findings.push(clock::judge_pam(said.date.as_deref(), asked.began, asked.ended, tolerance));
        }
        if let Some(sharing) = &settings.revocation.sharing {
            findings.extend(store::judge(&store::ask(sharing).await, tolerance));
        }
        findings.extend(self.files());
        findings.extend(expiry::judge(&self.expiries(), SystemTime::now()));
        findings.extend(self.room());
        findings.push(self.journal());
        if let Some(admin) = &settings.admin {
            findings.extend(running::judge(Some(&running::ask(admin).await)));
        }
        findings
    }

    fn files(&self) -> Vec<Finding> {
        let (secrets, others) = self.paths();
        let own = nix::unistd::geteuid().as_raw();
        let all: Vec<&Path> = others.iter().chain(&secrets).map(PathBuf::as_path).collect();
        let mut files: Vec<_> = others.iter().filter_map(|path| modes::look(path, false)).collect();
        files.extend(secrets.iter().filter_map(|path| modes::look(path, true)));
        if let Some(folder) = &self.settings.revocation.journal {
            files.extend(journal::accesses(folder, &self.machine.mounts()));
        }
        [vec![mounts::judge(&self.machine.mounts(), &all)], modes::judge(&files, own)].concat()
    }

    /// The files with secrets, and the others.
    fn paths(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let settings = self.settings;
        let mut secrets = settings.secret_files.clone();
        let mut others: Vec<PathBuf> = self.files.paths().map(Path::to_owned).collect();
        if let Some(tls) = &settings.tls {
            secrets.push(tls.rules().identity.key.clone());
            others.extend(tls.rules().files().into_iter().map(Path::to_owned));
        }
        let spans = settings.spans.as_ref().and_then(|spans| spans.endpoint.tls.as_ref());
        for rules in settings.upstream_tls.as_deref().into_iter().chain(spans).map(|tls| tls.rules()) {
            secrets.extend(rules.identity.iter().map(|identity| identity.key.clone()));
            others.extend(rules.files().into_iter().map(Path::to_owned));
        }
        secrets.sort();
        secrets.dedup();
        others.retain(|path| !secrets.contains(path));
        others.sort();
        others.dedup();
        (secrets, others)
    }

    fn expiries(&self) -> Vec<crate::tls::Expiry> {
        let callers = self.settings.tls.iter().flat_map(|tls| tls.now().expiries().to_vec());
        let pam = self.settings.upstream_tls.iter().flat_map(|tls| tls.now().expiries().to_vec());
        callers.chain(pam).collect()
    }

    fn room(&self) -> [Finding; 3] {
        let settings = self.settings;
        let read = |path: &str| self.machine.text(path);
        let descriptors = descriptors::look();
        let most = descriptors.map_or(u32::MAX, |most| most_connections(most, settings.limits.in_flight));
        let hashes =
            settings.callers.iter().any(|caller| caller.basic.as_ref().is_some_and(|basic| !basic.hashed.is_empty()));
        let threads = cpu::Threads { threads: settings.threads, quota: cgroup::cores(&read), hashes };
        [
            memory::judge(&Footprint::of(settings, most), cgroup::memory(&read)),
            descriptors::judge(&settings.limits, descriptors),
            cpu::judge(threads),
        ]
    }

    fn journal(&self) -> Finding {
        let rules = &self.settings.revocation;
        let shared = rules.sharing.is_some();
        let shelf =
            rules.journal.as_ref().map(|folder| journal::look(folder, rules.capacity, shared, &self.machine.mounts()));
        journal::judge(shelf.as_ref(), shared)
    }
}
