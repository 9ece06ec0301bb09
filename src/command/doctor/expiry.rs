//! Whether a certificate has expired, or will soon.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::Finding;
use crate::tls::Expiry;

/// Of all certificates that we show and that we trust; nothing where there are none.
pub fn judge(expiries: &[Expiry], now: SystemTime) -> Option<Finding> {
    let first = expiries.iter().min_by_key(|expiry| expiry.at)?;
    let name = first.certificate;
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(first.at).unwrap_or_default());
    let day = |at| humantime::format_rfc3339_seconds(at).to_string();
    let finding = match at.duration_since(now) {
        Err(_) => Finding::wrong(EXPIRY, format!("`{name}` expired at {}", day(at)))
            .advise("renew it; when the file has changed, it is taken over without a restart"),
        Ok(left) if left < SOON => {
            let hours = left.as_secs() / 3600;
            Finding::unknown(EXPIRY, format!("`{name}` expires at {}, in {} days", day(at), hours / 24))
                .advise("see whether whatever renews it is at work")
        }
        Ok(_) => {
            let of = if expiries.len() == 1 { "" } else { &format!(", of {} the first", expiries.len()) };
            Finding::sound(EXPIRY, format!("`{name}` expires at {}{of}", day(at)))
        }
    };
    Some(finding)
}

const EXPIRY: &str = "expiry";

/// Whatever renews certificates by itself has done so by then.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_first_to_expire_counts() {
        const DAY: u64 = 24 * 3600;
        let now = UNIX_EPOCH + Duration::from_secs(100 * DAY);
        let judged = |days: &[i64]| {
            let at = |day: &i64| Expiry { certificate: "tls", at: day * DAY as i64 };
            judge(&days.iter().map(at).collect::<Vec<_>>(), now).map(|finding| finding.verdict)
        };
        assert_eq!(judged(&[]), None);
        assert_eq!(judged(&[200, 115]), Some(Verdict::Sound));
        assert_eq!(judged(&[200, 113]), Some(Verdict::Unknown));
        assert_eq!(judged(&[99, 200]), Some(Verdict::Wrong));
        assert_eq!(judged(&[-1]), Some(Verdict::Wrong));
    }
}
