//! A gate with what answers its questions, made of a config as it would run.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis::config::{Complaint, Flags, Settings};
use portcullis::credential::password::PasswordQuestion;
use portcullis::credential::replay::{ReplayKey, Replays, Ticket};
use portcullis::denial::Denial;
use portcullis::gate::{Ask, Gate, Permit, Trail};
use portcullis::origin::Origin;
use portcullis::request::{Request, Whence};
use portcullis::revocation::{Revocations, Room};
use portcullis::secret::{DigestKey, Secret, SecretDigest};
use portcullis::tls::names::Names;
use portcullis::token::{Standing, TokenDigest};

/// When everything happens.
pub const NOW: Duration = Duration::from_secs(1_800_000_000);

/// A gate and its memory.
pub struct Scene {
    pub gate: Gate,
    /// What each caller sends as Authorization.
    pub authorizations: Vec<Option<Secret>>,
    memory: Memory,
}

impl Scene {
    /// A config of the repository.
    pub fn of(config: &str) -> Scene {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(config);
        Scene::of_text(&std::fs::read_to_string(&path).unwrap(), &path)
    }

    /// A config in hand; what it names is looked for beside `path`.
    pub fn of_text(text: &str, path: &Path) -> Scene {
        let flags = Flags { config: path.to_owned(), ..Flags::default() };
        // Secrets only have to differ. Other variables than a config's are not set.
        let environment = |name: &str| (!name.starts_with("OTEL_")).then(|| format!("the-secret-that-is-in-{name}"));
        let settings = Settings::parse(text, &flags, &environment, DigestKey::new([7; 32]));
        Scene::of_settings(settings.unwrap_or_else(|complaints| panic!("{}", listed(&complaints))))
    }

    fn of_settings(settings: Settings) -> Scene {
        let callers: Vec<Box<str>> = settings.callers.iter().map(|caller| caller.name.clone()).collect();
        let memory = Memory {
            replays: Replays::new(settings.replay_capacity, &callers, Duration::from_secs(1)),
            revocations: Revocations::in_memory(20_000_000, settings.revocation.keep),
        };
        let gate = Gate {
            dialect: settings.dialect,
            callers: settings.callers,
            token_key: settings.digest_key,
            learns: settings.revocation.learn.is_some(),
            largest_body: settings.limits.body,
            modes: settings.modes,
        };
        Scene { gate, authorizations: settings.authorizations, memory }
    }

    /// All that the gate does with a request.
    pub fn judge(&self, request: &Request) -> Result<Permit<'_>, Denial> {
        let entry = self.gate.enter(&request.head)?;
        self.gate.fits(&request.head)?;
        let names = Names::default();
        let whence = Whence { origin: Origin::of(IpAddr::from([10, 0, 0, 1])), names: &names };
        let mut trail = Trail::default();
        now(self.gate.admit(Some(entry), request, whence, UNIX_EPOCH + NOW, &mut trail, &self.memory))
    }

    /// Ends a token.
    pub fn end(&self, token: TokenDigest) {
        let room = self.memory.revocations.room().unwrap();
        now(self.memory.revocations.end(room, token, Duration::ZERO)).unwrap();
    }

    pub fn now() -> SystemTime {
        UNIX_EPOCH + NOW
    }
}

/// What the gate asks, answered by what is asked in the proxy, as far as the configs of the repository need it: they have
/// no hashed passwords and no rates.
struct Memory {
    replays: Replays,
    revocations: Revocations,
}

impl Ask for Memory {
    async fn password(&self, _: PasswordQuestion, _: SecretDigest) -> Result<Option<usize>, Denial> {
        panic!("a hash takes milliseconds, and is no part of what is measured here");
    }

    async fn first(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.replays.first(key, time).await
    }

    fn first_here(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial> {
        self.replays.first_now(&key, time)
    }

    fn standing_here(&self, token: TokenDigest, text: &[u8]) -> Standing {
        self.revocations.standing_here(&token, text)
    }

    async fn standing(&self, token: TokenDigest, text: &[u8]) -> Result<Standing, Denial> {
        self.revocations.standing(&token, text).await
    }

    fn presumed(&self, _: TokenDigest) -> bool {
        false
    }

    fn rate(&self, _: &str) -> Result<(), Denial> {
        Ok(())
    }

    fn counts_failures(&self, failed: bool) -> bool {
        failed
    }

    fn room(&self) -> Result<Room, Denial> {
        self.revocations.room()
    }
}

/// A future that does not wait for anything.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("this should not wait"),
    }
}

fn listed(complaints: &[Complaint]) -> String {
    complaints.iter().map(|complaint| format!("\n  {complaint}")).collect()
}
