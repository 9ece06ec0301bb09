//! What the demo starts: a PAM with a door for each family, and a Portcullis in front of each door, with the example
//! config of its family.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::watch;

use super::accounts::Accounts;
use super::page::Page;
use super::pam::Pam;
use crate::admin::Admin;
use crate::command::call::Call;
use crate::config::{Flags, Settings};
use crate::credential::signature::{Scheme, SigningKey};
use crate::log::Log;
use crate::proxy::current::Current;
use crate::proxy::listener::{Server, bind};
use crate::proxy::story::Portcullis;
use crate::secret::{DigestKey, Secret};

/// All that runs.
pub struct Stage {
    /// The Valkyrie family.
    pub valkyrie: Family,
    /// The wallet family.
    pub wallet: Family,
    /// The Betstack family. Its door of the PAM is closed at first.
    pub betstack: Family,
}

/// A Portcullis, and both sides of it.
pub struct Family {
    /// Its name, as the dialect has it.
    pub name: &'static str,
    /// Where callers connect.
    pub address: SocketAddr,
    /// Where metrics and probes are.
    pub admin: SocketAddr,
    /// Its door of the PAM.
    pub pam: Pam,
    /// What a caller knows.
    known: Settings,
    _serving: [Server; 2],
    _ready: watch::Sender<bool>,
}

impl Stage {
    /// Starts everything.
    pub async fn start() -> Result<Stage, String> {
        // Nobody is to read a log between the lines of the page; `portcullis run` shows one.
        let (log, _) = Log::start(io::sink()).map_err(said("cannot start the log"))?;
        let accounts = Arc::new(Mutex::new(Accounts::new()));
        let door = || Pam::reserve(&accounts).map_err(said("cannot take a port for the PAM"));
        let mut stage = Stage {
            valkyrie: Family::start("valkyrie", include_str!("../../../config/valkyrie.toml"), door()?, &log).await?,
            wallet: Family::start("wallet", include_str!("../../../config/wallet.toml"), door()?, &log).await?,
            betstack: Family::start("betstack", include_str!("../../../config/betstack.toml"), door()?, &log).await?,
        };
        stage.valkyrie.open_pam()?;
        stage.wallet.open_pam()?;
        Ok(stage)
    }

    /// Says what was started, and where.
    pub fn introduce(&self, page: &mut Page<impl Write>) -> io::Result<()> {
        page.title("Portcullis, seen at work")?;
        page.prose(
            "A small PAM that speaks three families of APIs, each at a door of its own, and a Portcullis in front of each \
             door, with the example config of its family. All of it runs in this one program, on free ports. Secrets and \
             players are made up.",
        )?;
        page.line("")?;
        page.dim(&format!(
            "  {:10} {:28} {:18} {}",
            "family", "callers connect to", "the PAM", "what operators watch"
        ))?;
        for Family { name, address, admin, pam, .. } in [&self.valkyrie, &self.wallet, &self.betstack] {
            let callers = format!("http://{address}");
            page.line(&format!("  {name:10} {callers:28} {:18} http://{admin}/metrics", pam.address.to_string()))?;
        }
        page.flush()
    }
}

impl Family {
    async fn start(name: &'static str, config: &str, pam: Pam, log: &Log) -> Result<Family, String> {
        let known = settings(name, config, &pam)?;
        let served = settings(name, config, &pam)?;
        let traffic = bind(&served.listen).map_err(said("cannot listen"))?;
        let portcullis = Portcullis::new(served, log.clone()).await.map_err(said("cannot start Portcullis"))?;
        let current = Current::new(portcullis);
        let (ready, watched) = watch::channel(true);
        let admin = Admin::new(Arc::clone(&current), watched);
        let traffic = Server::start(traffic, current).map_err(said("cannot listen"))?;
        let admin = bind(ANY_PORT).and_then(|socket| Server::start(socket, Current::new(admin)));
        let admin = admin.map_err(said("cannot listen"))?;
        Ok(Family {
            name,
            address: traffic.address(),
            admin: admin.address(),
            pam,
            known,
            _serving: [traffic, admin],
            _ready: ready,
        })
    }

    /// Lets the PAM listen at this family's door.
    pub fn open_pam(&mut self) -> Result<(), String> {
        self.pam.open().map_err(said("the PAM cannot listen"))
    }

    /// What the first caller of the config sends as Authorization.
    pub fn authorization(&self) -> String {
        let first = self.known.authorizations.first().and_then(Option::as_ref);
        String::from_utf8_lossy(first.map_or(b"", Secret::expose)).into_owned()
    }

    /// `call` with the signature of the config's caller, made at `at`.
    pub fn sign(&self, call: Call, at: SystemTime) -> Result<Call, String> {
        let key = self.known.callers.at(0).and_then(|caller| caller.keys.last()).ok_or("the caller has no key")?;
        call.signed(self.scheme()?, key, at)
    }

    /// `call` signed with a key of the stranger's own.
    pub fn forge(&self, call: Call, at: SystemTime) -> Result<Call, String> {
        let scheme = self.scheme()?;
        let guess = Secret::new(b"demo-guess".to_vec());
        let key = SigningKey::new("guess", &guess, scheme.algorithm, &scheme.key_form)?;
        call.signed(scheme, &key, at)
    }

    fn scheme(&self) -> Result<&Scheme, String> {
        self.known.dialect.signature.as_ref().ok_or_else(|| format!("{} has no signatures", self.name))
    }
}

/// The secret that the variable of an example config has in the demo.
pub fn secret(variable: &str) -> Option<&'static str> {
    Some(match variable {
        "PAM_API_TOKEN" => "demo-api-token",
        "PAM_BASIC_PASSWORD" => "demo-operator-password",
        "WALLET_PASSWORD" => "demo-wallet-password",
        "WALLET_SIGNING_KEY" => "demo-wallet-signing-key",
        "BETSTACK_SECRET" => "demo-betstack-secret",
        _ => return None,
    })
}

fn settings(name: &str, config: &str, pam: &Pam) -> Result<Settings, String> {
    let flags = Flags {
        config: format!("config/{name}.toml").into(),
        listen: Some(ANY_PORT.to_owned()),
        upstream: Some(pam.address.to_string()),
        admin: Some(ANY_PORT.to_owned()),
        set: vec![format!("timeouts.total={PAM_PATIENCE}")],
    };
    let environment = |variable: &str| secret(variable).map(str::to_owned);
    let settings = Settings::parse(config, &flags, &environment, DigestKey::new(rand::random()));
    settings.map_err(|complaints| {
        let lines: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn said<F: Display>(what: &str) -> impl Fn(F) -> String {
    move |fault| format!("{what}: {fault}")
}

/// How long the PAM is waited for. The default is nine seconds, which are long to look at.
const PAM_PATIENCE: &str = "1s";

const ANY_PORT: &str = "127.0.0.1:0";
