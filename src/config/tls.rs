//! `[tls]` and `[upstream_tls]`: certificates and keys, on both sides.

use std::sync::Arc;

use super::paper::{Complaints, Place, Spanned, Table};
use super::sources::Sources;
use crate::tls::IdentityFiles;
use crate::tls::callers::{CallerRules, ClientAuth};
use crate::tls::pam::{PamRules, Roots};
use crate::tls::watched::{Rules, Watched};

/// Certificates that a process which reads its config anew has in use.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Towards callers.
    pub callers: Option<Arc<Watched<CallerRules>>>,
    /// Towards the PAM.
    pub pam: Option<Arc<Watched<PamRules>>>,
}

/// Reads `[tls]`, which is there when callers are to connect over TLS, and its files. With it, whether callers are asked for certificates.
pub fn tls(
    table: &mut Table,
    sources: &Sources<'_>,
    complaints: &mut Complaints,
) -> (Option<Arc<Watched<CallerRules>>>, bool) {
    let wanted = table.contains("tls");
    let mut table = table.section("tls", complaints);
    let place = table.place().clone();
    if wanted {
        table.require("certificate", "certificate = \"tls.pem\"", complaints);
        table.require("key", "key = \"tls.key\"", complaints);
    }
    let certificate = table.string("certificate", complaints);
    let key = table.string("key", complaints);
    let client_ca = table.string("client_ca", complaints);
    let words = [("required", ClientAuth::Required), ("optional", ClientAuth::Optional)];
    table.usual("client_auth", "\"required\"");
    let client_auth = table.choice("client_auth", &words, complaints);
    if let (Some(client_auth), None) = (&client_auth, &client_ca) {
        complaints
            .push(&client_auth.place, "`client_auth` needs client_ca, by which callers' certificates are verified");
    }
    table.finish(complaints);
    let asks = client_ca.is_some();
    let (Some(certificate), Some(key)) = (certificate, key) else { return (None, asks) };
    let rules = CallerRules {
        identity: IdentityFiles { certificate: sources.path(&certificate.value), key: sources.path(&key.value) },
        client_ca: client_ca.as_ref().map(|path| sources.path(&path.value)),
        client_auth: client_auth.map_or(ClientAuth::Required, |client_auth| client_auth.value),
    };
    let keys = [("certificate", Some(&certificate)), ("key", Some(&key)), ("client_ca", client_ca.as_ref())];
    (load(rules, sources.in_use.callers.as_ref(), &place, &keys, complaints), asks)
}

/// Reads `[upstream_tls]`, which is there when the PAM is to be spoken to over TLS, and its files. The PAM is expected to
/// have the name it is looked up by, unless another is given.
pub fn upstream_tls(
    table: &mut Table,
    upstream: Option<&str>,
    sources: &Sources<'_>,
    complaints: &mut Complaints,
) -> Option<Arc<Watched<PamRules>>> {
    let wanted = table.contains("upstream_tls");
    let before = complaints.len();
    let mut table = table.section("upstream_tls", complaints);
    let place = table.place().clone();
    let ca = table.string("ca", complaints);
    let system = table.choice("roots", &[("system", ())], complaints);
    let name = table.string("name", complaints);
    let certificate = table.string("certificate", complaints);
    let key = table.string("key", complaints);
    table.finish(complaints);
    if !wanted {
        return None;
    }

    let roots = match (&ca, &system) {
        (Some(ca), None) => Some(Roots::File(sources.path(&ca.value))),
        (None, Some(_)) => Some(Roots::System),
        (None, None) | (Some(_), Some(_)) => {
            // Whoever wrote something else there has been told already.
            if complaints.len() == before {
                let message = "say who may sign the PAM's certificate: either ca = \"file.pem\" or roots = \"system\"";
                complaints.push(&place, message);
            }
            None
        }
    };
    let identity = match (&certificate, &key) {
        (Some(certificate), Some(key)) => {
            Some(IdentityFiles { certificate: sources.path(&certificate.value), key: sources.path(&key.value) })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            complaints.push(&place, "`certificate` and `key` come together");
            None
        }
    };
    let host = match &name {
        Some(name) => name.value.clone(),
        None => host(upstream?)?.to_owned(),
    };
    if complaints.len() > before {
        return None;
    }
    let keys =
        [("ca", ca.as_ref()), ("certificate", certificate.as_ref()), ("key", key.as_ref()), ("name", name.as_ref())];
    let rules = PamRules { roots: roots?, name: host, identity };
    load(rules, sources.in_use.pam.as_ref(), &place, &keys, complaints)
}

/// Reads the files; what is wrong with one is said where its key stands, or else at `place`.
///
/// Where what they held before is in use, that stays in use: the watch over them tells of it, and it is no reason to do
/// without the rest of the config.
fn load<R: Rules + PartialEq>(
    rules: R,
    in_use: Option<&Arc<Watched<R>>>,
    place: &Place,
    keys: &[(&str, Option<&Spanned<String>>)],
    complaints: &mut Complaints,
) -> Option<Arc<Watched<R>>> {
    let same = in_use.filter(|in_use| in_use.is_by(&rules));
    let fault = match (Watched::load(rules), same) {
        (Ok(loaded), _) => return Some(Arc::new(loaded)),
        (Err(_), Some(same)) => return Some(Arc::clone(same)),
        (Err(fault), None) => fault,
    };
    let key = keys.iter().find(|(key, _)| *key == fault.key).and_then(|(_, written)| *written);
    complaints.push(key.map_or(place, |written| &written.place), fault.message);
    None
}

/// The host of an address.
fn host(address: &str) -> Option<&str> {
    let (host, _) = address.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}
