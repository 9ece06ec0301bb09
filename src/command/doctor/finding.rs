//! What an examination found, and how it is shown: lines for people, or JSON.

use serde_json::{Value, json};

use crate::command::paint::{INDENT, Paint, safe};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Sound,
    /// Not as it should be.
    Wrong,
    /// It cannot be known from here, or is for a person to judge.
    Unknown,
}

/// What one examination found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which examination; a word of at most eleven letters.
    pub examination: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, in lines.
    pub found: Vec<String>,
    /// What to do next, in lines.
    pub advice: Vec<String>,
}

impl Finding {
    /// All is well.
    pub fn sound(examination: &'static str, found: impl Into<String>) -> Finding {
        Finding::new(examination, Verdict::Sound, found)
    }

    /// Something is wrong.
    pub fn wrong(examination: &'static str, found: impl Into<String>) -> Finding {
        Finding::new(examination, Verdict::Wrong, found)
    }

    /// It is not known.
    pub fn unknown(examination: &'static str, found: impl Into<String>) -> Finding {
        Finding::new(examination, Verdict::Unknown, found)
    }

    /// The same with another line of what was found.
    pub fn and(mut self, found: impl Into<String>) -> Finding {
        self.found.push(found.into());
        self
    }

    /// The same with another thing to do.
    pub fn advise(mut self, advice: impl Into<String>) -> Finding {
        self.advice.push(advice.into());
        self
    }

    fn new(examination: &'static str, verdict: Verdict, found: impl Into<String>) -> Finding {
        Finding { examination, verdict, found: vec![found.into()], advice: Vec::new() }
    }
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Verdict::Sound => "sound",
            Verdict::Wrong => "wrong",
            Verdict::Unknown => "unknown",
        }
    }
}

/// How many findings have a verdict.
pub fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings.iter().filter(|finding| finding.verdict == verdict).count()
}

/// For people: a line for each examination, what to do below it, and the sum of it.
pub fn page(findings: &[Finding], coloured: bool) -> String {
    let paint = |paint: Paint, text: &str| paint.on(text, coloured);
    let mut page = String::new();
    for finding in findings {
        let (mark, code) = match finding.verdict {
            Verdict::Sound => ("✓", Paint::Green),
            Verdict::Wrong => ("✗", Paint::Red),
            Verdict::Unknown => ("?", Paint::Yellow),
        };
        let mut lead = format!("{} {:12}", paint(code, mark), finding.examination);
        let advice = finding.advice.iter().map(|advice| paint(Paint::Dim, &format!("→ {}", safe(advice))));
        for line in finding.found.iter().map(|found| safe(found)).chain(advice) {
            page.push_str(&format!("{lead}{line}\n"));
            lead = " ".repeat(INDENT);
        }
    }
    let (wrong, unknown) = (count(findings, Verdict::Wrong), count(findings, Verdict::Unknown));
    let verdict = match wrong {
        0 => paint(Paint::Green, "nothing is wrong"),
        1 => paint(Paint::Red, "1 thing is wrong"),
        more => paint(Paint::Red, &format!("{more} things are wrong")),
    };
    let open = match unknown {
        0 => String::new(),
        1 => "; 1 is for you to judge".to_owned(),
        more => format!("; {more} are for you to judge"),
    };
    page.push_str(&format!("\n{verdict}{open}\n"));
    page
}

/// For programs.
pub fn document(findings: &[Finding]) -> Value {
    let about = |finding: &Finding| {
        json!({
            "examination": finding.examination,
            "verdict": finding.verdict.as_str(),
            "found": finding.found,
            "advice": finding.advice,
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "sound": count(findings, Verdict::Wrong) == 0,
        "findings": findings.iter().map(about).collect::<Vec<_>>(),
    })
}

/// Bytes for people, in the words of configs.
pub fn bytes(number: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = number as f64;
    let mut unit = "bytes";
    for next in units {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, next);
    }
    if unit == "bytes" || amount >= 10.0 { format!("{amount:.0} {unit}") } else { format!("{amount:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_line_for_each_examination_and_what_to_do_below_it() {
        let findings = [
            Finding::sound("clock", "as late as the PAM's"),
            Finding::wrong("modes", "a\x1b[2J").and("b").advise("do this"),
            Finding::unknown("journal", "there is none"),
        ];
        let expected = "✓ clock       as late as the PAM's\n✗ modes       a�[2J\n              b\n              → do this\n\
                        ? journal     there is none\n\n1 thing is wrong; 1 is for you to judge\n";
        assert_eq!(page(&findings, false), expected);
        assert!(page(&findings, true).starts_with("\x1b[32m✓\x1b[0m clock       as"));
        assert!(page(&findings[..1], false).ends_with("\n\nnothing is wrong\n"));
    }

    #[test]
    fn a_document_says_whether_all_is_sound() {
        let findings = [Finding::unknown("journal", "there is none").advise("add one")];
        let document = document(&findings);
        assert_eq!(document["sound"], true);
        let expected = json!([{ "examination": "journal", "verdict": "unknown", "found": ["there is none"], "advice": ["add one"] }]);
        assert_eq!(document["findings"], expected);
        assert_eq!(super::document(&[Finding::wrong("pam", "")])["sound"], false);
    }

    #[test]
    fn bytes_are_said_in_the_words_of_configs() {
        for (number, said) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1 << 10, "1.0 KiB"),
            (50_000, "49 KiB"),
            (48_500_000, "46 MiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(number), said);
        }
    }
}
