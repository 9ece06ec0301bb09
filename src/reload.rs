//! A config that changes while it runs: loaded anew on SIGHUP, and when the content of one of its files changes.
//!
//! Config, dialect and secrets are one generation. Either all of the next one is good and takes the place of this one, or
//! nothing changes and the log says why. Certificates have a watch of their own ([`crate::tls::watched`]): a broken one must
//! not hold up a secret that rotates.

pub mod mounts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Complaint, Flags, Settings};
use crate::descriptors;
use crate::files::Files;
use crate::log::Log;
use crate::proxy::current::Current;
use crate::proxy::story::Portcullis;
use crate::secret::DigestKey;

/// Looks after the config of a running Portcullis.
pub struct Reload {
    flags: Flags,
    digest_key: DigestKey,
    current: Arc<Current<Portcullis>>,
    log: Log,
    /// As they were when they were read last.
    files: Files,
    /// As the last look found them, where that is something else.
    changing: Option<Files>,
    /// What is wrong with them, and when that was found.
    rejected: Option<(Arc<[Complaint]>, Instant)>,
}

impl Reload {
    /// For a config that was read by `flags` from `files`.
    pub fn new(
        flags: Flags,
        digest_key: DigestKey,
        files: Files,
        current: Arc<Current<Portcullis>>,
        log: Log,
    ) -> Reload {
        Reload { flags, digest_key, current, log, files, changing: None, rejected: None }
    }

    /// Goes on until it is dropped.
    pub async fn keep_up(mut self, mut hangup: Signal) {
        let mut ticks = interval(BETWEEN_LOOKS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = ticks.tick() => false,
            };
            // A disk that hangs must not hold a thread that serves.
            let looked = spawn_blocking(move || {
                self.look(asked);
                self
            });
            match looked.await {
                Ok(back) => self = back,
                Err(_) => return,
            }
        }
    }

    fn look(&mut self, asked: bool) {
        let now = self.files.look();
        if !asked && now == self.files {
            self.changing = None;
            // What was missing may be a file that is none of these, a certificate for instance.
            if self.rejected.as_ref().is_some_and(|(_, when)| when.elapsed() >= BETWEEN_TRIES) {
                self.load(asked);
            }
            return;
        }
        // Whoever writes several files, or one in pieces, is given until the next look to be done.
        let settled = self.changing.as_ref() == Some(&now);
        self.changing = Some(now);
        if asked || settled {
            self.load(asked);
        }
    }

    fn load(&mut self, asked: bool) {
        let variable = |name: &str| std::env::var(name).ok();
        let now = self.current.now();
        let (settings, files) = Settings::read(&self.flags, &variable, self.digest_key.clone(), now.certificates());
        if files.look() != files {
            // Read while they changed, so that it may be half of one state and half of another. The next look comes.
            return;
        }
        (self.files, self.changing) = (files, None);
        let mut outdated = Vec::new();
        let next = settings.and_then(|mut settings| {
            outdated = now.generation().outdated(&settings.fixed);
            descriptors::fit(&mut settings.limits, &self.log);
            now.successor(settings)
        });
        match next {
            Ok(next) => {
                let about = json!({
                    "generation": next.generation().number(),
                    "dialect": &*next.gate().dialect.name,
                    "callers": next.gate().callers.iter().count(),
                });
                self.current.replace(next);
                self.rejected = None;
                self.log.note("info", "config_reloaded", &about);
                if !outdated.is_empty() {
                    let hint = "files that these keys name have changed; what they say now counts after a restart";
                    self.log.note("warn", "restart_needed", &json!({ "keys": outdated, "hint": hint }));
                }
                self.current.now().tell_modes();
                mounts::warn(&self.files, &self.log);
            }
            Err(complaints) => self.reject(&now, complaints.into(), asked),
        }
    }

    fn reject(&mut self, now: &Portcullis, complaints: Arc<[Complaint]>, asked: bool) {
        let told = self.rejected.as_ref().is_some_and(|(before, _)| *before == complaints);
        if asked || !told {
            let lines: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
            let about = json!({ "complaints": lines, "generation_in_use": now.generation().number() });
            self.log.note("error", "config_rejected", &about);
        }
        now.generation().reject(Arc::clone(&complaints));
        self.rejected = Some((complaints, Instant::now()));
    }
}

/// A few files of a few kilobytes are read that often for nothing; in exchange a change is in use within two seconds.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long a config that was refused is left alone while its files do not change.
const BETWEEN_TRIES: Duration = Duration::from_secs(10);
