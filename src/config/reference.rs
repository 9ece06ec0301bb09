//! A reference to a secret: `{ env = "NAME" }` or `{ file = "/run/secrets/name" }`, never the secret itself.

use super::paper::{Complaints, Node, Spanned, Table, Value};
use super::shape::Shape;
use super::sources::Sources;
use crate::secret::Secret;

/// Reads the secrets that stand under `key`: one reference or an array of them.
pub fn secrets(table: &mut Table, key: &str, sources: &Sources<'_>, complaints: &mut Complaints) -> Vec<Secret> {
    let found = placed_secrets(table, key, sources, complaints);
    found.into_iter().map(|secret| secret.value).collect()
}

/// The same with their places, for those who have something to say about each.
pub fn placed_secrets(
    table: &mut Table,
    key: &str,
    sources: &Sources<'_>,
    complaints: &mut Complaints,
) -> Vec<Spanned<Secret>> {
    let read = |node: Node, complaints: &mut Complaints| {
        let place = node.place.clone();
        secret(node, sources, complaints).map(|value| Spanned { value, place })
    };
    table.declare(key, Shape::Secret.or_many());
    match table.node(key) {
        None => Vec::new(),
        Some(Node { value: Value::Array(nodes), place, .. }) => {
            if nodes.is_empty() {
                complaints.push(&place, "a list without a secret: nothing could ever match it");
            }
            nodes.into_iter().filter_map(|node| read(node, complaints)).collect()
        }
        Some(node) => read(node, complaints).into_iter().collect(),
    }
}

/// Reads the one secret that stands under `key`.
pub fn one_secret(table: &mut Table, key: &str, sources: &Sources<'_>, complaints: &mut Complaints) -> Option<Secret> {
    table.declare(key, Shape::Secret);
    secret(table.node(key)?, sources, complaints)
}

/// Reads one secret. A variable that is not set, a file that cannot be read and an empty secret are complaints: none of
/// them may turn into an open door.
fn secret(node: Node, sources: &Sources<'_>, complaints: &mut Complaints) -> Option<Secret> {
    let place = node.place.clone();
    let Node { value: Value::Table(mut table), .. } = node else {
        node.mismatch("a reference to a secret: { env = \"NAME\" } or { file = \"/run/secrets/name\" }", complaints);
        return None;
    };
    let variable = table.string("env", complaints);
    let path = table.string("file", complaints);
    let good = table.written().is_empty();
    table.finish(complaints);
    let bytes = match (variable, path) {
        (Some(variable), None) => match sources.variable(&variable) {
            Some(text) => text.into_bytes(),
            None => {
                complaints.push(&variable.place, format!("the environment variable{} is not set", shown(&variable)));
                return None;
            }
        },
        (None, Some(path)) => match sources.secret(&path.value) {
            Ok(mut bytes) => without_line_end(std::mem::take(&mut *bytes)),
            Err(fault) => {
                complaints.push(&path.place, format!("cannot read {}: {fault}", path.value));
                return None;
            }
        },
        (None, None) | (Some(_), Some(_)) => {
            if good {
                complaints.push(&place, "a secret is either { env = \"NAME\" } or { file = \"/run/secrets/name\" }");
            }
            return None;
        }
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        complaints.push(&place, "the secret is empty");
        return None;
    }
    Some(Secret::new(bytes))
}

/// The name of a variable, if it looks like one: whoever mistakes `env` for the place of the secret must not find it in
/// the complaint.
fn shown(name: &str) -> String {
    let inside = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let named = name.bytes().all(inside) && name.starts_with(|first: char| !first.is_ascii_digit());
    if named { format!(" {name}") } else { String::new() }
}

/// Editors and `kubectl create secret` end files with a line feed that is not meant to be part of the secret.
fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    bytes
}
