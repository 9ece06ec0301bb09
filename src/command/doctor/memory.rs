//! Whether what the config allows fits into the memory that the container may take.

use super::finding::{Finding, bytes};
use crate::footprint::{Footprint, Part, sum};

/// Against the limit of the container; `None` where there is none.
pub fn judge(footprint: &Footprint, limit: Option<u64>) -> Finding {
    let (full, flood) = (sum(&footprint.full), sum(&footprint.flood));
    let worst = full.saturating_add(flood);
    let grown = format!("it may grow to {}", bytes(full));
    let sums = |finding: Finding| {
        let flooded = format!(
            "and by {} more while everybody sends the largest there is (over HTTP/2 by up to {}):",
            bytes(flood),
            bytes(footprint.streamed)
        );
        finding.and(shown(&footprint.full)).and(flooded).and(shown(&footprint.flood))
    };
    let Some(limit) = limit else {
        return sums(Finding::unknown(MEMORY, format!("no memory limit is to be seen here; {grown}:")))
            .advise(format!("set resources.limits.memory: {} or more", mebibytes(full)));
    };
    let of = format!("the container may take {}", bytes(limit));
    let less = "lower limits.connections, revocation.capacity or replay.capacity";
    if full > limit {
        return sums(Finding::wrong(MEMORY, format!("{of}, and {grown}:")))
            .advise(format!("raise resources.limits.memory to {} or more, or {less}", mebibytes(full)));
    }
    if worst > limit {
        return sums(Finding::unknown(MEMORY, format!("{of}; {grown}:"))).advise(format!(
            "where strangers can connect, raise resources.limits.memory to {}, or lower limits.connections, limits.body, \
             limits.streams, limits.in_flight or limits.answer",
            mebibytes(worst)
        ));
    }
    sums(Finding::sound(MEMORY, format!("{of}; {grown}:")))
}

/// The arithmetic: what, how many, how much.
fn shown(parts: &[Part]) -> String {
    let part = |part: &Part| match part.count {
        1 => format!("{} for {}", bytes(part.bytes), part.what),
        count => format!("{} for {count} {}", bytes(part.bytes), part.what),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// As Kubernetes wants it.
fn mebibytes(number: u64) -> String {
    format!("{}Mi", number.div_ceil(1 << 20))
}

const MEMORY: &str = "memory";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_it_grows_to_must_fit_and_what_a_flood_takes_should() {
        let part = |what, count, bytes| Part { what, count, bytes };
        let full = vec![part("the program itself", 1, 32 << 20), part("connections", 1_000, 48 << 20)];
        let flood = vec![part("bodies", 1_000, 64 << 20)];
        let footprint = Footprint { full, flood, streamed: 7 << 30 };
        let judged = |limit: Option<u64>| judge(&footprint, limit.map(|mebibytes| mebibytes << 20));
        let found = judged(Some(79));
        assert_eq!(found.verdict, Verdict::Wrong);
        assert_eq!(
            [found.found, found.advice].concat(),
            [
                "the container may take 79 MiB, and it may grow to 80 MiB:",
                "32 MiB for the program itself, 48 MiB for 1000 connections",
                "and by 64 MiB more while everybody sends the largest there is (over HTTP/2 by up to 7.0 GiB):",
                "64 MiB for 1000 bodies",
                "raise resources.limits.memory to 80Mi or more, or lower limits.connections, revocation.capacity or replay.capacity",
            ]
        );
        assert_eq!(judged(Some(80)).verdict, Verdict::Unknown);
        assert_eq!(judged(Some(143)).verdict, Verdict::Unknown);
        assert_eq!(judged(Some(144)).verdict, Verdict::Sound);
        assert_eq!(judged(None).verdict, Verdict::Unknown);
    }
}
