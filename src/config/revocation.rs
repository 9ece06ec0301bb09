//! `[revocation]`: how tokens that ended are remembered, and how replicas share them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::paper::{Complaints, Place, Spanned, Table};
use super::reference::secret;
use super::{count, duration};
use crate::revocation::store::{StoreRules, Tls, Topology};
use crate::revocation::{Consistency, Rules, Sharing, WhenAway};

/// Reads the section. Files are looked for in `folder`.
pub fn revocation(
    mut table: Table,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    complaints: &mut Complaints,
) -> Rules {
    let keep = duration(&mut table, "keep", Duration::from_secs(24 * 3600), complaints);
    let capacity = count(&mut table, "capacity", 1_000_000, complaints);
    let journal = table.string("journal", complaints);
    if let Some(journal) = &journal
        && journal.value.is_empty()
    {
        complaints
            .push(&journal.place, "`revocation.journal` must be a folder, as in journal = \"/var/lib/portcullis\"");
    }
    let on_damage = table.choice("on_damage", &[("stop", false), ("salvage", true)], complaints);
    if let (Some(on_damage), None) = (&on_damage, &journal) {
        complaints.push(&on_damage.place, "`revocation.on_damage` is about the journal, and there is none");
    }
    let redis = table.table("redis", complaints);
    let consistency = [("follow", Consistency::Follow), ("ask", Consistency::Ask)];
    let consistency = table.choice("consistency", &consistency, complaints);
    let on_outage = table.table("on_outage", complaints);
    for (written, place) in [
        ("consistency", consistency.as_ref().map(|consistency| &consistency.place)),
        ("on_outage", on_outage.as_ref().map(Table::place)),
    ] {
        if let (Some(place), None) = (place, &redis) {
            let message =
                format!("`revocation.{written}` says how replicas share; without `revocation.redis` nothing is");
            complaints.push(place, message);
        }
    }
    let has_journal = journal.is_some();
    let (check, retire_to_journal) = on_outage.map_or((WhenAway::Local, has_journal), |mut table| {
        let check = [("local", WhenAway::Local), ("refuse", WhenAway::Refuse)];
        let check = table.choice("check", &check, complaints).map_or(WhenAway::Local, |word| word.value);
        let retire = table.choice("retire", &[("journal", true), ("refuse", false)], complaints);
        if let Some(Spanned { value: true, place }) = &retire
            && !has_journal
        {
            let message = "retire = \"journal\" needs one, as in [revocation] journal = \"/var/lib/portcullis\"";
            complaints.push(place, message);
        }
        table.finish(complaints);
        (check, retire.map_or(has_journal, |word| word.value))
    });
    let sharing = redis.and_then(|table| {
        let mut reading = Reading { folder, environment, complaints };
        let (store, prefix, timeout) = reading.redis(table)?;
        let consistency = consistency.map_or(Consistency::Follow, |word| word.value);
        Some(Sharing { store, prefix, timeout, consistency, check, retire_to_journal })
    });
    table.finish(complaints);
    let journal = journal.map(|journal| PathBuf::from(journal.value));
    let salvage = on_damage.is_some_and(|on_damage| on_damage.value);
    Rules { keep, capacity, journal, salvage, sharing }
}

struct Reading<'a> {
    folder: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
    complaints: &'a mut Complaints,
}

impl Reading<'_> {
    fn redis(&mut self, mut table: Table) -> Option<(StoreRules, String, Duration)> {
        table.require("url", URL, self.complaints);
        let place = table.place().clone();
        let urls = table.strings("url", self.complaints);
        let sentinel = table.string("sentinel", self.complaints);
        let cluster = table.boolean("cluster", self.complaints).is_some_and(|cluster| cluster.value);
        let user = table.string("user", self.complaints).map(|user| user.value);
        let password = table.node("password");
        let password = password.and_then(|node| secret(node, self.folder, self.environment, self.complaints));
        let ca = self.file(&mut table, "ca");
        let certificate = self.file(&mut table, "certificate");
        let key = table.node("key").and_then(|node| secret(node, self.folder, self.environment, self.complaints));
        let prefix = table.string("prefix", self.complaints);
        if let Some(prefix) = &prefix
            && (prefix.value.is_empty()
                || !prefix.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte)))
        {
            let message =
                "`revocation.redis.prefix` must be letters, digits, - _ . or :, as in prefix = \"portcullis\"";
            self.complaints.push(&prefix.place, message);
        }
        let timeout = duration(&mut table, "timeout", Duration::from_secs(1), self.complaints);
        table.finish(self.complaints);

        let urls: Vec<Url> = urls?.iter().filter_map(|url| self.url(url)).collect();
        let mut demand = |broken: bool, message: &str| {
            if broken {
                self.complaints.push(&place, message);
            }
        };
        let encrypted = urls.first()?.encrypted;
        let database = urls.first()?.database;
        demand(urls.iter().any(|url| url.encrypted != encrypted), "some addresses are redis:// and some rediss://");
        demand(sentinel.is_some() && cluster, "a store is watched by Sentinels or is a cluster, not both");
        demand(
            urls.len() > 1 && sentinel.is_none() && !cluster,
            "several addresses need sentinel = \"NAME\" or cluster = true",
        );
        demand(cluster && database != 0, "a cluster has only database 0");
        demand(
            !encrypted && (ca.is_some() || certificate.is_some() || key.is_some()),
            "`ca`, `certificate` and `key` are for TLS; write url = \"rediss://…\"",
        );
        demand(certificate.is_some() != key.is_some(), "`certificate` and `key` come together");
        let topology = match sentinel {
            Some(name) => Topology::Sentinel(name.value),
            None if cluster => Topology::Cluster,
            None => Topology::Single,
        };
        let tls = encrypted.then(|| Tls { ca, identity: certificate.zip(key) });
        let nodes = urls.into_iter().map(|url| (url.host, url.port)).collect();
        let prefix = prefix.map_or_else(|| "portcullis".to_owned(), |prefix| prefix.value);
        Some((StoreRules { nodes, topology, tls, user, password, database }, prefix, timeout))
    }

    fn file(&mut self, table: &mut Table, key: &str) -> Option<Vec<u8>> {
        let path = table.string(key, self.complaints)?;
        match std::fs::read(self.folder.join(&path.value)) {
            Ok(bytes) => Some(bytes),
            Err(fault) => {
                self.complaints.push(&path.place, format!("cannot read {}: {fault}", path.value));
                None
            }
        }
    }

    fn url(&mut self, text: &Spanned<String>) -> Option<Url> {
        let url = Url::parse(&text.value);
        if let Err(fault) = &url {
            self.complaints.push(&text.place as &Place, format!("{fault}; write {URL}"));
        }
        url.ok()
    }
}

/// An address of the store. What else a URL could say has keys of its own, a password above all.
struct Url {
    host: String,
    port: u16,
    encrypted: bool,
    database: i64,
}

impl Url {
    fn parse(text: &str) -> Result<Url, &'static str> {
        let (encrypted, rest) = match (text.strip_prefix("rediss://"), text.strip_prefix("redis://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("this is no address of a Redis or Valkey"),
        };
        if rest.contains('@') {
            return Err("user and password do not belong here: there are `user` and `password = { env = \"NAME\" }`");
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            number => {
                number.parse::<u16>().map_err(|_| "behind the address may stand the number of a database")?.into()
            }
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("the bracket of this address does not close")?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err("this address has no host");
        }
        let port =
            port.unwrap_or("6379").parse().map_err(|_| "the port of this address is no number from 0 to 65535")?;
        Ok(Url { host: host.to_owned(), port, encrypted, database })
    }
}

const URL: &str = "url = \"redis://127.0.0.1:6379\" (rediss:// for TLS; a list of Sentinels or cluster nodes)";
