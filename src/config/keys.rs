//! Every key that a config or a dialect file can have, for people and for editors.
//!
//! What a key may hold, whether it must be there and what counts without it is what the code that reads it has said
//! ([`shape`](super::shape)). What it is for stands in a reference file, in the comment above it: `config/reference.toml`
//! and `config/guide/dialect.toml`.

pub mod page;
mod prose;
pub mod schema;

use std::collections::BTreeMap;

use self::prose::Prose;
use super::fixed::FIXED;
use super::shape::Asked;
use crate::dialect;

/// The keys of one kind of file.
#[derive(Debug)]
pub struct Keys {
    /// What such a file is, in a few words.
    pub title: &'static str,
    asked: BTreeMap<String, Asked>,
    prose: Prose,
    /// Keys at the top that need a restart, with all that is below them.
    fixed: &'static [&'static str],
}

/// The keys of a config.
pub fn config() -> Keys {
    let prose = Prose::of(include_str!("../../config/reference.toml"));
    Keys { title: "A config of Portcullis", asked: super::keys(), prose, fixed: &FIXED }
}

/// The keys of a dialect file.
pub fn dialect() -> Keys {
    let prose = Prose::of(include_str!("../../config/guide/dialect.toml"));
    Keys { title: "A dialect of Portcullis: an API family", asked: dialect::keys(), prose, fixed: &[] }
}

impl Keys {
    /// Every key, dotted, and what the code says of it.
    pub fn asked(&self) -> &BTreeMap<String, Asked> {
        &self.asked
    }

    /// What a key is for, in its own words or in those of one that is just like it.
    fn about(&self, path: &str) -> Option<&str> {
        self.prose.about(path).or_else(|| self.prose.about(&like(path)?))
    }

    /// True when a change of the key counts after a restart only.
    fn is_fixed(&self, path: &str) -> bool {
        let top = path.split(['.', '[']).next().unwrap_or_default();
        self.fixed.contains(&top)
    }
}

/// The eleven replies have the same keys, and so have all answers that a dialect names.
fn like(path: &str) -> Option<String> {
    let (above, name) = path.rsplit_once('.')?;
    match above.rsplit_once('.')? {
        ("reply", _) => Some(format!("reply.unauthenticated.{name}")),
        ("token", "dead[]") => Some(format!("route[].retires.{name}")),
        _ => None,
    }
}
