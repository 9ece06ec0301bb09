//! What the Portcullis that runs says of itself, at its admin address.

use std::time::Duration;

use serde_json::Value;

use super::finding::Finding;
use crate::command::call::{Call, Reply};
use crate::command::operate::reachable;

/// What it said.
pub struct Asked {
    /// Its `/status`.
    pub status: Result<Value, String>,
    /// Whether `/readyz` says that it is ready.
    pub ready: bool,
}

/// Asks the one at `admin`.
pub async fn ask(admin: &str) -> Asked {
    let addresses = match reachable(admin) {
        Ok(addresses) => addresses,
        Err(fault) => return Asked { status: Err(fault.to_string()), ready: false },
    };
    let get = async |path| Call::new("GET", path).send(&addresses, PATIENCE).await;
    let status = get("/status").await.and_then(|reply: Reply| match serde_json::from_str(&reply.body) {
        Ok(status) if reply.status == 200 => Ok(status),
        Ok(_) | Err(_) => Err(format!("what answers there is no Portcullis: {} to GET /status", reply.status)),
    });
    let ready = status.is_ok() && get("/readyz").await.is_ok_and(|reply| reply.status == 200);
    Asked { status, ready }
}

/// Whether it does well.
pub fn judge(asked: Option<&Asked>) -> Vec<Finding> {
    let Some(asked) = asked else { return Vec::new() };
    let status = match &asked.status {
        Ok(status) => status,
        Err(fault) => {
            return vec![
                Finding::unknown(RUNNING, format!("the Portcullis that runs cannot be asked: {fault}"))
                    .advise("run this where it runs (kubectl exec), or give --admin its address"),
            ];
        }
    };
    let mut found = Vec::new();
    let here = env!("CARGO_PKG_VERSION");
    let there = status["version"].as_str().unwrap_or("unknown");
    if there != here {
        let which = format!("version {there} runs, and this is {here}");
        found.push(Finding::unknown(RUNNING, which).advise("examine it with the program of its own version"));
    }
    let rejected = status["config"]["rejected"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !rejected.is_empty() {
        let finding = Finding::wrong(RUNNING, "the config as it is now was refused, and an older one is in use");
        let lines = rejected.iter().filter_map(Value::as_str);
        let finding = lines.fold(finding, |finding, line| finding.and(line));
        found.push(finding.advise("correct these places; it is read again by itself"));
    }
    if !asked.ready {
        let finding = Finding::wrong(RUNNING, "it is not ready: it is stopping, or has not read the store's log yet");
        found.push(finding.advise("see the log for what it waits for"));
    }
    let revocations = &status["revocations"];
    if revocations["journal_failing"] == true {
        let finding = Finding::wrong(RUNNING, "its journal takes nothing: what may end a token is refused with 503");
        found.push(finding.advise("see that the volume is there, has room and can be written"));
    }
    if revocations["sharing"]["away"] == true {
        let finding = Finding::wrong(RUNNING, "it cannot reach the store: it goes by revocation.on_outage");
        found.push(finding.advise("see whether the store runs, and can be reached from here"));
    }
    if status["readiness"]["enforced"] == false {
        let finding = Finding::unknown(RUNNING, "not every check is enforced: what fails them reaches the PAM");
        found.push(finding.advise("`portcullis readiness` says whether it is safe to enforce them"));
    }
    if found.is_empty() {
        let generation = &status["config"]["generation"];
        found.push(Finding::sound(
            RUNNING,
            format!("version {there}, generation {generation} of the config, ready, enforcing"),
        ));
    }
    found
}

const RUNNING: &str = "running";

/// It answers these from memory.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Verdict;
    use super::*;

    fn judged(change: impl FnOnce(&mut Value), ready: bool) -> Vec<(Verdict, String)> {
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "config": { "generation": 3, "rejected": [] },
            "readiness": { "enforced": true },
            "revocations": { "journal_failing": false, "sharing": null },
        });
        change(&mut status);
        let found = judge(Some(&Asked { status: Ok(status), ready }));
        found.into_iter().map(|finding| (finding.verdict, finding.found.join(" "))).collect()
    }

    type Change = fn(&mut Value);

    #[test]
    fn one_that_does_well_has_one_line() {
        let found = judged(|_| (), true);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, Verdict::Sound);
        assert!(found[0].1.contains("generation 3"), "{found:?}");
        assert_eq!(judge(None), []);
    }

    #[test]
    fn each_trouble_has_a_line_of_its_own() {
        let cases: [(Change, Verdict, &str); 5] = [
            (|status| status["version"] = json!("0.0.1"), Verdict::Unknown, "0.0.1"),
            (|status| status["config"]["rejected"] = json!(["a.toml:1:1: no"]), Verdict::Wrong, "a.toml:1:1: no"),
            (|status| status["revocations"]["journal_failing"] = json!(true), Verdict::Wrong, "journal"),
            (|status| status["revocations"]["sharing"] = json!({ "away": true }), Verdict::Wrong, "store"),
            (|status| status["readiness"]["enforced"] = json!(false), Verdict::Unknown, "enforced"),
        ];
        for (change, verdict, word) in cases {
            let found = judged(change, true);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, verdict, "{word}");
            assert!(found[0].1.contains(word), "{found:?}");
        }
        assert_eq!(judged(|_| (), false)[0].0, Verdict::Wrong);
        let away = Asked { status: Err("nothing listens".to_owned()), ready: false };
        assert_eq!(judge(Some(&away))[0].verdict, Verdict::Unknown);
    }
}
