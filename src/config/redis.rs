//! `[revocation] redis`: how to reach the store by which replicas share.

use std::time::Duration;

use super::duration;
use super::paper::{Complaints, Spanned, Table};
use super::reference::one_secret;
use super::shape::{Form, Shape};
use super::sources::Sources;
use crate::revocation::store::{StoreRules, Tls, Topology};

/// Reads the table, with the prefix of the keys and how long an answer may take.
pub fn redis(
    table: Table,
    sources: &Sources<'_>,
    complaints: &mut Complaints,
) -> Option<(StoreRules, String, Duration)> {
    Reading { sources, complaints }.redis(table)
}

struct Reading<'a> {
    sources: &'a Sources<'a>,
    complaints: &'a mut Complaints,
}

impl Reading<'_> {
    fn redis(&mut self, mut table: Table) -> Option<(StoreRules, String, Duration)> {
        table.require("url", URL, self.complaints);
        let place = table.place().clone();
        table.declare("url", Shape::Form(Form::Store).or_many());
        let urls = table.strings("url", self.complaints);
        let sentinel = table.string("sentinel", self.complaints);
        table.usual("cluster", "false");
        let cluster = table.boolean("cluster", self.complaints).is_some_and(|cluster| cluster.value);
        let user = table.string("user", self.complaints).map(|user| user.value);
        let password = one_secret(&mut table, "password", self.sources, self.complaints);
        let ca = self.file(&mut table, "ca");
        let certificate = self.file(&mut table, "certificate");
        let key = one_secret(&mut table, "key", self.sources, self.complaints);
        table.usual("prefix", "\"portcullis\"");
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
        match self.sources.file(&path.value) {
            Ok(mut bytes) => Some(std::mem::take(&mut *bytes)),
            Err(fault) => {
                self.complaints.push(&path.place, format!("cannot read {}: {fault}", path.value));
                None
            }
        }
    }

    fn url(&mut self, text: &Spanned<String>) -> Option<Url> {
        let url = Url::parse(&text.value);
        if let Err(fault) = &url {
            self.complaints.push(&text.place, format!("{fault}; write {URL}"));
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
