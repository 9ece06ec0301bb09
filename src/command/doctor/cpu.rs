//! Whether the threads fit the cores that the container may use.

use super::finding::Finding;

/// What is known of threads and cores.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// Those that serve.
    pub threads: usize,
    /// The cores that the container may use; `None` where there is no limit.
    pub quota: Option<f64>,
    /// Whether a caller's password is known as a hash alone, which takes long to verify.
    pub hashes: bool,
}

/// Whether they fit.
pub fn judge(of: Threads) -> Finding {
    let Threads { threads: serving, quota, hashes } = of;
    let plural = if serving == 1 { "thread serves" } else { "threads serve" };
    let Some(quota) = quota else {
        return Finding::sound(CPU, format!("{serving} {plural}, and no limit holds them up"));
    };
    let found = format!("{serving} {plural}, with {quota:.2} cores");
    // A thread more than there are whole cores uses up what is left of a broken one.
    if serving as f64 > quota.ceil() {
        return Finding::unknown(
            CPU,
            format!("{found}: they use up each period early, and all of them wait for the next"),
        )
        .advise("set threads = 0, or no more of them than cores");
    }
    if quota < 1.0 {
        let found = format!("{found}: who uses them up waits for the rest of a tenth of a second");
        let found = if hashes { format!("{found}, as verifying one hashed password does") } else { found };
        return Finding::unknown(CPU, found)
            .advise("request CPU instead of limiting it, or limit it to 1 core or more");
    }
    Finding::sound(CPU, found)
}

const CPU: &str = "cpu";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn more_threads_than_cores_and_less_than_a_core_are_for_a_person_to_judge() {
        for (threads, quota, expected) in [
            (8, None, Verdict::Sound),
            (2, Some(2.0), Verdict::Sound),
            (2, Some(1.5), Verdict::Sound),
            (3, Some(1.5), Verdict::Unknown),
            (1, Some(0.5), Verdict::Unknown),
        ] {
            let found = judge(Threads { threads, quota, hashes: true });
            assert_eq!(found.verdict, expected, "{threads} {quota:?}");
            assert_eq!(found.advice.is_empty(), expected == Verdict::Sound);
        }
    }
}
