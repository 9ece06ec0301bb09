//! Whether the store by which replicas share can be reached, keeps what it is given, and has the same time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clock::{self, Apart};
use super::finding::Finding;
use crate::revocation::Sharing;
use crate::revocation::store::Store;

/// What the store said.
pub struct Asked {
    /// Its nodes, as the config names them.
    pub nodes: String,
    /// What came of asking.
    pub said: Result<Said, String>,
}

/// Its answers.
pub struct Said {
    /// How far its clock is from ours.
    pub apart: Apart,
    /// What it does when it is full; `None` where that is not for this user to see.
    pub eviction: Option<String>,
}

/// Logs in, and asks for its time and how it is set up. Writes nothing.
pub async fn ask(sharing: &Sharing) -> Asked {
    let nodes = sharing.store.nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(", ");
    let asking = async {
        let mut store = Store::new(&sharing.store)?.connect(sharing.timeout).await?;
        let began = SystemTime::now();
        let millis = store.time_of(&sharing.prefix).await?;
        let ended = SystemTime::now();
        let at = UNIX_EPOCH + Duration::from_millis(millis);
        let apart = Apart::of(at, at + Duration::from_secs(1), began, ended);
        Ok(Said { apart, eviction: store.eviction_policy().await })
    };
    let said = asking.await.map_err(|fault: crate::revocation::store::Fault| fault.to_string());
    Asked { nodes, said }
}

/// Whether it does its part.
pub fn judge(asked: &Asked, tolerance: Option<Duration>) -> Vec<Finding> {
    let nodes = &asked.nodes;
    let said = match &asked.said {
        Ok(said) => said,
        Err(fault) => {
            let found = Finding::wrong(STORE, format!("{nodes} cannot be used: {fault}")).advise(
                "see that it runs, that a NetworkPolicy lets Portcullis reach it, and that user and password are right",
            );
            return vec![found];
        }
    };
    let kept = match said.eviction.as_deref() {
        Some("noeviction") => Finding::sound(STORE, format!("{nodes} answers, and evicts nothing")),
        Some(policy) => Finding::wrong(
            STORE,
            format!("{nodes} evicts when it is full (maxmemory-policy {policy}): tokens that ended would live again"),
        )
        .advise("set maxmemory-policy noeviction there"),
        None => Finding::sound(STORE, format!("{nodes} answers"))
            .and("how it is set up is not for this user to see: it should have maxmemory-policy noeviction"),
    };
    vec![kept, clock::judge("the store's", said.apart, tolerance)]
}

const STORE: &str = "store";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_store_that_is_away_or_forgets_is_wrong() {
        let judged = |said| {
            let found = judge(&Asked { nodes: "redis:6379".to_owned(), said }, None);
            found.iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        let said = |eviction: Option<&str>| Ok(Said { apart: Apart::No, eviction: eviction.map(str::to_owned) });
        assert_eq!(judged(Err("no connection within 3s".to_owned())), [Verdict::Wrong]);
        assert_eq!(judged(said(Some("noeviction"))), [Verdict::Sound, Verdict::Sound]);
        assert_eq!(judged(said(Some("allkeys-lru"))), [Verdict::Wrong, Verdict::Sound]);
        assert_eq!(judged(said(None)), [Verdict::Sound, Verdict::Sound]);
    }
}
