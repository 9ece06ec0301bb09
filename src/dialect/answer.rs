//! When an answer of the PAM ends the token of the request: `{ status = 200, json = { "/status" = true } }`. In the same
//! shape, which answers say that it ended before.

use super::condition::Conditions;
use crate::fields::{Fields, Only};
use crate::json::{Pointers, Value, read};

/// What an answer must say to end the token, or to say that it ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Its status.
    pub status: u16,
    /// Members that have certain values.
    pub json: Conditions,
    /// Slots of members that are there and not null.
    pub present: Vec<usize>,
    /// Slots of members that are not there, or null.
    pub absent: Vec<usize>,
    /// What is wanted out of an answer's body.
    pub wanted: Pointers,
}

/// What an answer does to the token of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The token ended, now or before.
    Ends,
    /// The token lives on.
    Stays,
    /// It has the status of an answer that may end the token, and cannot be read strictly.
    Unreadable,
}

impl Ending {
    /// Judges a whole answer. Only one that is complete and strict JSON counts: a token must not be ended, and no answer
    /// that ends one be passed on, by guessing.
    pub fn judge(&self, status: u16, fields: &Fields, body: &[u8]) -> Effect {
        if status != self.status {
            return Effect::Stays;
        }
        if self.wanted.is_empty() {
            return Effect::Ends;
        }
        let plain = match fields.only("content-encoding") {
            Only::None => true,
            Only::One(coding) => coding.eq_ignore_ascii_case(b"identity"),
            Only::Many => false,
        };
        let found = match read(body, &self.wanted) {
            Ok(found) if plain => found,
            Ok(_) | Err(_) => return Effect::Unreadable,
        };
        let there = |slot: &usize| !matches!(found.at(*slot), None | Some(Value::Null));
        let ends = self.json.hold(Some(&found)) && self.present.iter().all(there) && !self.absent.iter().any(there);
        if ends { Effect::Ends } else { Effect::Stays }
    }
}
