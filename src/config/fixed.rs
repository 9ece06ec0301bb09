//! What cannot change while it runs: sockets that are bound, threads that are started, memories that are open.

use std::fmt;

use super::paper::{Complaint, Place, Table};
use crate::files::Files;

/// The keys that cannot change, as they were written.
#[derive(Clone)]
pub struct Fixed(Vec<Key>);

#[derive(Clone)]
struct Key {
    name: &'static str,
    /// The key's, or the config's where it was not written.
    place: Place,
    written: Option<[u8; 32]>,
    made_of: Files,
}

impl Fixed {
    /// Takes note of them in a document of which nothing has been taken out yet.
    pub fn of(table: &Table) -> Fixed {
        let key = |name| {
            // Whoever has a token or not decides what is remembered; which token it is may change.
            let counted = |(place, digest)| (place, if name == "admin_token" { [0; 32] } else { digest });
            let (place, written) = table.peek(name).map(counted).unzip();
            Key { name, place: place.unwrap_or_else(|| table.place().clone()), written, made_of: Files::default() }
        };
        Fixed(FIXED.map(key).into())
    }

    /// Takes note of the files that a key names.
    pub fn made_of(&mut self, name: &str, files: Files) {
        if let Some(key) = self.0.iter_mut().find(|key| key.name == name) {
            key.made_of = files;
        }
    }

    /// What is wrong with `next` as a config that takes the place of this one.
    pub fn complaints(&self, next: &Fixed) -> Vec<Complaint> {
        let changed = |(now, next): (&Key, &Key)| {
            let message = "cannot change while it runs; restart to change it, or take the change back";
            let complaint = Complaint { place: next.place.clone(), message: format!("`{}` {message}", next.name) };
            (now.written != next.written).then_some(complaint)
        };
        self.0.iter().zip(&next.0).filter_map(changed).collect()
    }

    /// The keys whose files have changed since these were read. That is no reason to refuse all the rest, a caller's new
    /// secret for instance; but what they say now counts only after a restart.
    pub fn outdated(&self, next: &Fixed) -> Vec<&'static str> {
        let changed = |(now, next): &(&Key, &Key)| now.made_of != next.made_of;
        self.0.iter().zip(&next.0).filter(changed).map(|(now, _)| now.name).collect()
    }

    /// The same keys as they are written now, made of the files that are in use.
    pub fn succeeded_by(&self, mut next: Fixed) -> Fixed {
        for (next, now) in next.0.iter_mut().zip(&self.0) {
            next.made_of = now.made_of.clone();
        }
        next
    }
}

/// Two configs that mean the same look the same, wherever what they say was written.
impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixed(…)")
    }
}

pub(super) const FIXED: [&str; 6] = ["listen", "admin", "admin_token", "threads", "revocation", "replay"];
