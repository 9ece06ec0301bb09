//! Counts of exchanges with the PAM that came to no usable answer, by reason and by whether anything was sent.

use super::cells::Counter;
use crate::denial::Denial;
use crate::upstream::FailureKind;

/// A count for each way in which an exchange can fail.
pub struct Exchanges(Vec<(&'static str, &'static str, Counter)>);

impl Exchanges {
    /// All of them, at zero.
    pub fn all() -> Exchanges {
        Exchanges(failures().map(|(reason, sent)| (reason, sent, Counter::default())).collect())
    }

    /// Counts what became of a request that was admitted, where it is a failure of its exchange.
    pub fn count(&self, denial: Denial) {
        if !denial.follows_admission() {
            return;
        }
        let sent = if matches!(denial, Denial::Unsent(_)) { NO } else { YES };
        let sought = (denial.reason(), sent);
        if let Some((_, _, count)) = self.0.iter().find(|(reason, sent, _)| (*reason, *sent) == sought) {
            count.inc();
        }
    }

    /// Reason, whether anything was sent, and count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.0.iter().map(|(reason, sent, count)| (*reason, *sent, count.value()))
    }
}

/// Every reason, with whether anything of the request may have reached the PAM.
pub fn failures() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = FailureKind::ALL.into_iter().flat_map(|kind| [(kind.as_str(), NO), (kind.as_str(), YES)]);
    let behind = [Denial::AnswerUnreadable, Denial::JournalFailed, Denial::StoreFailed];
    kinds.chain(behind.map(|denial| (denial.reason(), YES)))
}

const NO: &str = "no";

const YES: &str = "yes";
