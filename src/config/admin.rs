//! `admin_token`: the secrets that open an operator's calls.

use super::paper::{Complaints, Table};
use super::reference::placed_secrets;
use super::sources::Sources;
use crate::admin::key::AdminKeys;
use crate::credential::authorization::is_key;
use crate::credential::{Caller, credential_digest};
use crate::secret::{DigestKey, Secret};

/// Reads the secrets, with what an operator sends as Authorization. `None` when there are none.
pub fn admin_token(
    table: &mut Table,
    callers: &[Caller],
    sources: &Sources<'_>,
    digest_key: &DigestKey,
    complaints: &mut Complaints,
) -> Option<(AdminKeys, Secret)> {
    let secrets = placed_secrets(table, "admin_token", sources, complaints);
    for secret in &secrets {
        let bytes = secret.value.expose();
        let digest = credential_digest(&secret.value, digest_key);
        let bearer = |caller: &&Caller| caller.bearer.contains(&digest);
        let password = |caller: &&Caller| caller.basic.as_ref().is_some_and(|basic| basic.plain.contains(&digest));
        if !is_key(bytes) {
            let message = "the admin token has a blank, a line end or another character that no header can carry; it could \
                           never match";
            complaints.push(&secret.place, message);
        } else if bytes.len() < SHORTEST {
            let message = format!(
                "the admin token can end any session, so it must have at least {SHORTEST} characters; make one with \
                 `openssl rand -hex 32`"
            );
            complaints.push(&secret.place, message);
        } else if let Some(caller) = callers.iter().find(|caller| bearer(caller) || password(caller)) {
            let message =
                format!("the admin token is a secret of `{}`, who could end any session with it", caller.name);
            complaints.push(&secret.place, message);
        }
        if !table.contains("admin") {
            let message =
                "the admin token is for calls on the admin address, and there is none; add admin = \"127.0.0.1:9901\"";
            complaints.push(&secret.place, message);
        }
    }
    let newest = secrets.last()?;
    let authorization = Secret::new([b"Bearer ", newest.value.expose()].concat());
    Some((AdminKeys::new(secrets.iter().map(|secret| &secret.value), digest_key), authorization))
}

/// Too many to guess, whatever they are drawn from.
const SHORTEST: usize = 16;
