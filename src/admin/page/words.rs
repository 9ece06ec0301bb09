//! Numbers as people read them.

use std::time::Duration;

/// How long ago something was.
pub fn ago(time: Duration) -> String {
    match time.as_secs() {
        0 => "just now".to_owned(),
        seconds @ 1..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

/// How long something took, in the unit that fits.
pub fn took(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// A share of a whole.
pub fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 100).checked_div(whole.into()) {
        None => "–".to_owned(),
        Some(0) if part > 0 => "< 1 %".to_owned(),
        Some(percent) => format!("{percent} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let seconds = Duration::from_secs;
        let agos = [0, 1, 119, 120, 7199, 7200, 172_799, 172_800].map(|one| ago(seconds(one)));
        let shown = ["just now", "1 s ago", "119 s ago", "2 min ago", "119 min ago", "2 h ago", "47 h ago", "2 d ago"];
        assert_eq!(agos, shown);
        let tooks = [28, 999, 1_000, 2_345, 9_000_000].map(|one| took(Duration::from_micros(one)));
        assert_eq!(tooks, ["28 µs", "999 µs", "1.0 ms", "2.3 ms", "9.0 s"]);
        let percents = [(0, 0), (0, 5), (1, 1000), (3, 100), (5, 5)].map(|(part, whole)| percent(part, whole));
        assert_eq!(percents, ["–", "0 %", "< 1 %", "3 %", "100 %"]);
    }
}
