//! A dialect: an API family, described by a file.
//!
//! Three come compiled in ([`BUILT_IN`]); a file an operator writes can do everything that they do.

pub mod answer;
pub mod condition;
mod file;
pub mod reply;
pub mod route;
pub mod source;

use std::time::{Duration, SystemTime};

pub use file::{Overrides, keys, read, settlement, token_length};

use crate::credential::authorization::AuthScheme;
use crate::credential::signature::Scheme;
use crate::json::Pointers;
use crate::token::TokenRule;

use self::answer::Ending;
use self::reply::Replies;
use self::route::Routes;
use self::source::Source;

/// An API family.
#[derive(Clone, Debug)]
pub struct Dialect {
    /// Its name in logs and metrics.
    pub name: Box<str>,
    /// Which credentials it takes, any of them; none when the signature alone proves who calls.
    pub credential: Vec<AuthScheme>,
    /// How it signs.
    pub signature: Option<Scheme>,
    /// Where the player token stands and what it must look like.
    pub token: Option<Token>,
    /// Where a correlation id may stand besides `X-Correlation-ID`; the first that is there counts.
    pub correlation: Vec<Source>,
    /// Its operations.
    pub routes: Routes,
    /// Its error format.
    pub replies: Replies,
    /// What its checks want out of a JSON body.
    pub wanted: Pointers,
    /// The header fields whose meaning the checks depend on, in lower case.
    pub guarded: Vec<Box<str>>,
}

/// The player token of a family.
#[derive(Clone, Debug)]
pub struct Token {
    /// Where it stands.
    pub at: Source,
    /// What it must look like.
    pub rule: TokenRule,
    /// Answers of the PAM, any of them, that call it expired or unknown.
    pub dead: Vec<Ending>,
    /// Places whose values such an answer depends on besides the token: what is said under one value says nothing of
    /// another.
    pub dead_per: Vec<Source>,
}

/// The dialects that come with Portcullis: name and text.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("valkyrie", include_str!("../config/dialects/valkyrie.toml")),
    ("wallet", include_str!("../config/dialects/wallet.toml")),
    ("betstack", include_str!("../config/dialects/betstack.toml")),
];

impl Dialect {
    /// How long a signed message must be remembered, for families that admit each one once.
    pub fn replay_memory(&self) -> Option<Duration> {
        let scheme = self.signature.as_ref().filter(|scheme| scheme.once)?;
        Some(scheme.timestamp.as_ref().map_or(UNDATED, |rule| rule.memory()))
    }

    /// Takes the place of another dialect, whose memory of messages goes on.
    pub fn follow(&mut self, earlier: &Dialect, now: SystemTime) {
        let rule = self.signature.as_mut().and_then(|scheme| scheme.timestamp.as_mut());
        let before = earlier.signature.as_ref().and_then(|scheme| scheme.timestamp.as_ref());
        if let (Some(rule), Some(before)) = (rule, before) {
            rule.follow(before, now);
        }
    }
}

/// For a family whose messages carry no time and yet are to be admitted once.
const UNDATED: Duration = Duration::from_secs(24 * 3600);
