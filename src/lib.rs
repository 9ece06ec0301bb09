//! Portcullis

pub mod config;
pub mod credential;
pub mod denial;
pub mod dialect;
pub mod fields;
pub mod gate;
pub mod json;
pub mod ledger;
pub mod request;
pub mod revocation;
pub mod secret;
pub mod target;
pub mod token;
pub mod trace;
pub mod upstream;
