//! How it is printed: a line for each check, in colour on a terminal, plain in a pipe.

use crate::denial::Denial;
use crate::gate::walk::{Outcome, Step};

/// The page, as text.
pub struct Page {
    text: String,
    coloured: bool,
    /// A check has refused.
    refused: bool,
}

impl Page {
    /// An empty page.
    pub fn new(coloured: bool) -> Page {
        Page { text: String::new(), coloured, refused: false }
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Something to know besides.
    pub fn note(&mut self, text: &str) {
        let text = safe(text);
        let line = self.paint(DIM, &format!("! {text}"));
        self.line(&line);
    }

    /// As of when the request is judged.
    pub fn moment(&mut self, text: &str) {
        let line = self.paint(DIM, &safe(text));
        self.line(&line);
    }

    /// One check.
    pub fn step(&mut self, step: &Step) {
        let (mark, paint) = match step.outcome {
            Outcome::Passed => ("✓", GREEN),
            Outcome::Refused(_) => ("✗", RED),
            Outcome::Unknown => ("?", YELLOW),
        };
        let mut lead = format!("{} {:12}", self.paint(paint, mark), step.title);
        for found in &step.found {
            self.line(&format!("{lead}{}", safe(found)));
            lead = " ".repeat(INDENT);
        }
        if let Outcome::Refused(denial) = step.outcome {
            let again = if self.refused { ", if the checks before had passed" } else { "" };
            let reason = self.paint(DIM, &format!("refused as {}{again}", denial.reason()));
            self.line(&format!("{lead}{reason}"));
            self.refused = true;
        }
        if let Some(message) = &step.message {
            let about = self.paint(DIM, "to be signed,");
            self.line(&format!("{}{about} {message}", " ".repeat(INDENT)));
        }
    }

    /// A head that is no request.
    pub fn head_fault(&mut self, denial: Denial) {
        let mark = self.paint(RED, "✗");
        let reason = denial.reason().replace('_', " ");
        self.line(&format!("{mark} {:12}the head is not one that is served: {reason}", "head"));
    }

    /// The end of a request that would be let through.
    pub fn admitted(&mut self, route: &str) {
        let word = self.paint(GREEN, "admitted");
        self.line(&format!("\n{word} as `{route}`, as far as it can be known here"));
    }

    /// The end of one that would not.
    pub fn refused(&mut self, denial: Denial, status: u16, body: &str) {
        let word = self.paint(RED, "refused");
        self.line(&format!("\n{word}: check {}, reason {}", denial.check().as_str(), denial.reason()));
        self.line(&format!("the caller is told {status} {}", safe(body)));
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn paint(&self, code: u8, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A capture was written by somebody else: nothing of it steers the terminal.
fn safe(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '�' } else { one }).collect()
}

const DIM: u8 = 2;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

/// A mark, a blank, a title of twelve.
const INDENT: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_those_who_see_it_and_nothing_steers_the_terminal() {
        let print = |coloured| {
            let mut page = Page::new(coloured);
            page.note("a\x1b[2Jb");
            page.refused(Denial::Stale, 401, "{}");
            page.into_text()
        };
        assert_eq!(print(false), "! a�[2Jb\n\nrefused: check freshness, reason stale\nthe caller is told 401 {}\n");
        assert!(print(true).starts_with("\x1b[2m! a�[2Jb\x1b[0m\n"));
    }
}
