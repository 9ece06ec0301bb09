//! Portcullis: a security sidecar in front of a PAM.
//!
//! ```text
//!  caller ──►  request  ──►  gate  ──►  upstream  ──►  PAM
//!                             │ ask        │
//!                             ▼            ▼ answer
//!                  passwords · replays · revocations ◄── "this answer ends the token"
//! ```
//!
//! Modules in the order a request meets them:
//!
//! | module | subject |
//! | --- | --- |
//! | [`config`] | a file and flags become settings; every complaint at once, with line and column |
//! | [`reload`] | a config that changes while it runs |
//! | [`proxy`] | sockets, and the way of a request through them; the only room that names pingora |
//! | [`fields`], [`target`], [`request`] | what came over the wire, read strictly |
//! | [`origin`], [`announcement`], [`network`] | where it comes from: whom a trusted proxy or balancer names, and which allow-list has it |
//! | [`trace`] | correlation id and W3C trace context |
//! | [`gate`] | the checks in their order, on one screen: start reading here |
//! | [`mode`] | which of them are enforced, and which only watch |
//! | [`dialect`] | an API family, described by a file |
//! | [`credential`] | who is calling: Basic, bearer key, signature, freshness, replay |
//! | [`json`] | a body read strictly, never rewritten |
//! | [`secret`] | what prints nothing and compares in constant time |
//! | [`token`], [`revocation`] | the player token, and those that ended, in memory and on disk |
//! | [`ledger`] | a memory that never forgets in silence |
//! | [`rate`], [`lockout`] | who calls too often, and who fails too often |
//! | [`moment`], [`prompt`] | moments of the monotonic clock, and how long something may take |
//! | [`denial`] | why a request is refused, and what its caller may be told |
//! | [`threads`], [`descriptors`], [`footprint`] | who serves, how many connections there is room for, and how much memory all of it may take |
//! | [`files`], [`hex`], [`digits`], [`swar`] | what files are read with; bytes, numbers and moments as text; bytes eight at a time |
//! | [`tls`] | certificates and keys, on both sides |
//! | [`upstream`] | the exchange with the PAM: one request, sent once |
//! | [`event`], [`log`], [`metrics`], [`span`], [`sight`], [`readiness`], [`admin`] | what people see, and what an operator can do |
//! | [`explain`] | why a captured request is refused: the gate walked step by step, offline |
//! | [`command`] | the command line |
//!
//! What it promises: refused means untouched; the bytes checked are the bytes forwarded; dead stays dead; at most once;
//! our trouble is not the caller's guilt; nothing leaks; everything has a bound.

pub mod admin;
pub mod announcement;
pub mod command;
pub mod config;
pub mod credential;
pub mod denial;
pub mod descriptors;
pub mod dialect;
pub mod digits;
pub mod event;
pub mod explain;
pub mod fields;
pub mod files;
pub mod footprint;
pub mod gate;
pub mod hex;
pub mod json;
pub mod ledger;
pub mod lockout;
pub mod log;
pub mod metrics;
pub mod mode;
pub mod moment;
pub mod network;
pub mod origin;
pub mod prompt;
pub mod proxy;
pub mod rate;
pub mod readiness;
pub mod reload;
pub mod request;
pub mod revocation;
pub mod secret;
pub mod sight;
pub mod span;
pub mod swar;
pub mod target;
pub mod threads;
pub mod tls;
pub mod token;
pub mod trace;
pub mod upstream;
