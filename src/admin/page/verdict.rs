//! How things are, in a sentence.

use std::time::Duration;

use super::facts::Facts;
use super::words::{ago, percent};
use crate::sight::BecameOf;

/// A sentence, and how bad it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How bad.
    pub level: Level,
    /// What.
    pub sentence: String,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Callers or money suffer now.
    Bad,
    /// Somebody should look.
    Doubtful,
    /// Nothing to do.
    Good,
}

/// The worst first; one at least.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    let bad = [not_ready(facts), store(facts), journal(facts), pam(facts), expired(facts), full(facts)];
    let doubtful = [config(facts), stale(facts), refused(facts), expiring(facts), dropped(facts), unenforced(facts)];
    let of = |level: Level| move |sentence: String| Verdict { level, sentence };
    let bad = bad.into_iter().flatten().map(of(Level::Bad));
    let mut all: Vec<Verdict> = bad.chain(doubtful.into_iter().flatten().map(of(Level::Doubtful))).collect();
    if all.is_empty() {
        let quiet = facts.seen.all.hour.all() == 0;
        let sentence = if quiet { "All is well; nobody has called in the last hour." } else { "All is well." };
        all.push(Verdict { level: Level::Good, sentence: sentence.to_owned() });
    }
    all
}

fn not_ready(facts: &Facts) -> Option<String> {
    (!facts.ready).then(|| {
        "Portcullis is not ready: it is starting, stopping, or does not know yet which tokens have ended.".to_owned()
    })
}

fn store(facts: &Facts) -> Option<String> {
    let condition = facts.sharing.as_ref().filter(|condition| condition.away)?;
    let waiting = match condition.unpublished {
        0 => String::new(),
        1 => "; 1 end of a token waits for it".to_owned(),
        many => format!("; {many} ends of tokens wait for it"),
    };
    Some(format!("The store that replicas share is away{waiting}."))
}

fn journal(facts: &Facts) -> Option<String> {
    facts.journal_failing.then(|| "The journal of tokens that ended cannot be written.".to_owned())
}

/// When one in a hundred of what was forwarded in the last minute failed; or, when nothing was, the last of it.
fn pam(facts: &Facts) -> Option<String> {
    let seen = &facts.seen;
    let became = seen.all.minute;
    let forwarded = became.admitted + became.failed;
    if forwarded == 0 {
        let (failed, reason) = seen.pam_failed?;
        let still = failed < HOUR && seen.pam_answered.is_none_or(|(answered, _)| failed < answered);
        return still.then(|| format!("PAM answers fail: the last exchange, {}, ended with {reason}.", ago(failed)));
    }
    if became.failed == 0 || became.failed * 100 < forwarded {
        return None;
    }
    let (reason, _) = seen.failed.reasons.first()?;
    let what = if OURS.contains(reason) { "Calls that were forwarded fail" } else { "PAM answers fail" };
    let share = percent(became.failed, forwarded);
    Some(format!("{what}: {share} of those in the last minute, most with {reason}."))
}

fn expired(facts: &Facts) -> Option<String> {
    let (name, days) = facts.certificates.iter().min_by_key(|(_, days)| *days).filter(|(_, days)| *days < 0)?;
    Some(format!("The certificate {name} expired {}.", days_ago(-days)))
}

fn full(facts: &Facts) -> Option<String> {
    let (live, capacity) = facts.revocations;
    let nearly = capacity > 0 && live.saturating_mul(5) >= capacity.saturating_mul(4);
    nearly.then(|| format!("The memory of tokens that ended is nearly full: {live} of {capacity}."))
}

fn config(facts: &Facts) -> Option<String> {
    let since = &facts.config.since;
    (!facts.config.rejected.is_empty()).then(|| format!("The config on disk is refused; the one of {since} is in use."))
}

fn stale(facts: &Facts) -> Option<String> {
    facts
        .certificates_stale
        .then(|| "Files with certificates or keys are of no use; those from before are in use.".to_owned())
}

/// When one in a hundred is refused, in the last minute or, when that was silent, in the last hour.
fn refused(facts: &Facts) -> Option<String> {
    let seen = &facts.seen;
    let silent = seen.all.minute == BecameOf::default();
    let (became, time) = if silent { (seen.all.hour, "hour") } else { (seen.all.minute, "minute") };
    if became.refused == 0 || became.refused * 100 < became.all() {
        return None;
    }
    let most = seen.refused.kinds.first().map(|(kind, _)| match &*kind.caller {
        "none" => format!(", most for {} by nobody who was proven", kind.reason),
        caller => format!(", most for {} by {caller}", kind.reason),
    });
    let share = percent(became.refused, became.all());
    Some(format!("{share} of the calls in the last {time} were refused{}.", most.unwrap_or_default()))
}

fn expiring(facts: &Facts) -> Option<String> {
    let soon = |(_, days): &&(&str, i64)| (0..SOON).contains(days);
    let (name, days) = facts.certificates.iter().filter(soon).min_by_key(|(_, days)| *days)?;
    Some(match days {
        0 => format!("The certificate {name} expires within a day."),
        1 => format!("The certificate {name} expires in 1 day."),
        days => format!("The certificate {name} expires in {days} days."),
    })
}

fn dropped(facts: &Facts) -> Option<String> {
    let dropped = facts.log_dropped;
    (dropped > 0).then(|| format!("The log's reader is too slow: {dropped} lines were dropped since the start."))
}

fn unenforced(facts: &Facts) -> Option<String> {
    let first = facts.unenforced.first()?;
    Some(match facts.unenforced.len() {
        1 => format!("Not everything is enforced: {first}."),
        many => format!("Not everything is enforced: {first}, and {} more.", many - 1),
    })
}

fn days_ago(days: i64) -> String {
    ago(Duration::from_secs(u64::try_from(days).unwrap_or_default() * 24 * 3600))
}

/// Why a call that the PAM answered fails all the same.
const OURS: [&str; 3] = ["journal_failed", "store_failed", "internal"];

const HOUR: Duration = Duration::from_secs(3600);

/// Days before its end from which on a certificate is spoken of.
const SOON: i64 = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::feed::Condition;
    use crate::sight::tally::Kind;
    use crate::sight::{Lately, Outcomes};

    fn well() -> Facts {
        let became = BecameOf { admitted: 1000, ..BecameOf::default() };
        let mut facts = Facts { ready: true, revocations: (0, 10), ..Facts::default() };
        facts.seen.all = Outcomes { minute: became, hour: became };
        facts
    }

    fn first(change: impl FnOnce(&mut Facts)) -> (Level, String) {
        let mut facts = well();
        change(&mut facts);
        let first = verdicts(&facts).swap_remove(0);
        (first.level, first.sentence)
    }

    #[test]
    fn a_sentence_says_how_things_are() {
        assert_eq!(first(|_| {}), (Level::Good, "All is well.".to_owned()));
        let silent = first(|facts| facts.seen.all = Outcomes::default());
        assert_eq!(silent, (Level::Good, "All is well; nobody has called in the last hour.".to_owned()));
        let refused = first(|facts| {
            facts.seen.all.minute.refused = 31;
            let kind = Kind { caller: "fantasy-goal".into(), route: "debit".into(), reason: "signature_wrong" };
            facts.seen.refused.kinds.push((kind, Lately { minute: 31, hour: 31 }));
        });
        let sentence = "3 % of the calls in the last minute were refused, most for signature_wrong by fantasy-goal.";
        assert_eq!(refused, (Level::Doubtful, sentence.to_owned()));
        let few = first(|facts| facts.seen.all.minute.refused = 5);
        assert_eq!(few.0, Level::Good);
        let failing = first(|facts| {
            facts.seen.all.minute.failed = 1000;
            facts.seen.failed.reasons.push(("timeout", Lately { minute: 1000, hour: 1000 }));
        });
        let sentence = "PAM answers fail: 50 % of those in the last minute, most with timeout.";
        assert_eq!(failing, (Level::Bad, sentence.to_owned()));
        let down = first(|facts| {
            facts.seen.all = Outcomes::default();
            facts.seen.pam_answered = Some((Duration::from_secs(900), 200));
            facts.seen.pam_failed = Some((Duration::from_secs(300), "connect"));
        });
        let sentence = "PAM answers fail: the last exchange, 5 min ago, ended with connect.";
        assert_eq!(down, (Level::Bad, sentence.to_owned()));
        let away = first(|facts| {
            facts.sharing = Some(Condition { away: true, unpublished: 2, ..Condition::default() });
            facts.config.rejected.push("a.toml:1:1: no".to_owned());
        });
        let sentence = "The store that replicas share is away; 2 ends of tokens wait for it.";
        assert_eq!(away, (Level::Bad, sentence.to_owned()));
        let rejected = first(|facts| {
            facts.config.since = "today".to_owned();
            facts.config.rejected.push("a.toml:1:1: no".to_owned());
        });
        let sentence = "The config on disk is refused; the one of today is in use.";
        assert_eq!(rejected, (Level::Doubtful, sentence.to_owned()));
        assert_eq!(first(|facts| facts.certificates.push(("tls", -3))).1, "The certificate tls expired 3 d ago.");
        assert_eq!(first(|facts| facts.certificates.push(("tls", 3))).1, "The certificate tls expires in 3 days.");
        assert_eq!(first(|facts| facts.certificates.push(("tls", 30))).0, Level::Good);
        assert_eq!(first(|facts| facts.revocations = (8, 10)).0, Level::Bad);
        assert_eq!(first(|facts| facts.ready = false).0, Level::Bad);
        assert_eq!(first(|facts| facts.journal_failing = true).0, Level::Bad);
        assert_eq!(first(|facts| facts.certificates_stale = true).0, Level::Doubtful);
        assert_eq!(first(|facts| facts.log_dropped = 1).0, Level::Doubtful);
        let shadow = first(|facts| facts.unenforced = vec!["signature for a".to_owned(), "token for b".to_owned()]);
        assert_eq!(shadow.1, "Not everything is enforced: signature for a, and 1 more.");
    }
}
