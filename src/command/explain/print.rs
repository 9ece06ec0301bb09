//! How it is printed: a line for each check, in colour on a terminal, plain in a pipe.

use crate::command::paint::{INDENT, Paint, safe};
use crate::denial::Denial;
use crate::gate::walk::{Outcome, Step};
use crate::request::HeadFault;
use crate::target::TargetFault;

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
        let line = self.paint(Paint::Dim, &format!("! {text}"));
        self.line(&line);
    }

    /// As of when the request is judged.
    pub fn moment(&mut self, text: &str) {
        let line = self.paint(Paint::Dim, &safe(text));
        self.line(&line);
    }

    /// One check.
    pub fn step(&mut self, step: &Step) {
        let (mark, paint) = match step.outcome {
            Outcome::Passed => ("✓", Paint::Green),
            Outcome::Refused(_) => ("✗", Paint::Red),
            Outcome::Unknown => ("?", Paint::Yellow),
        };
        let mut lead = format!("{} {:12}", self.paint(paint, mark), step.title);
        for found in &step.found {
            self.line(&format!("{lead}{}", safe(found)));
            lead = " ".repeat(INDENT);
        }
        if let Outcome::Refused(denial) = step.outcome {
            let again = if self.refused { ", if the checks before had passed" } else { "" };
            let reason = self.paint(Paint::Dim, &format!("refused as {}{again}", denial.reason()));
            self.line(&format!("{lead}{reason}"));
            self.refused = true;
        }
        if let Some(message) = &step.message {
            let about = self.paint(Paint::Dim, "to be signed,");
            self.line(&format!("{}{about} {message}", " ".repeat(INDENT)));
        }
    }

    /// What nothing behind it can be looked at for.
    pub fn head_fault(&mut self, denial: Denial) {
        let why = match denial {
            Denial::Head(fault) => about_head(fault),
            other => other.reason(),
        };
        let mark = self.paint(Paint::Red, "✗");
        self.line(&format!("{mark} {:12}{why}", "head"));
    }

    /// The end of a request that would be let through.
    pub fn admitted(&mut self, route: &str) {
        let word = self.paint(Paint::Green, "admitted");
        self.line(&format!("\n{word} as `{route}`, as far as it can be known here"));
    }

    /// The end of one that would not.
    pub fn refused(&mut self, denial: Denial, status: u16, body: &str) {
        let word = self.paint(Paint::Red, "refused");
        self.line(&format!("\n{word}: check {}, reason {}", denial.check().as_str(), denial.reason()));
        self.line(&format!("the caller is told {status} {}", safe(body)));
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        paint.on(text, self.coloured)
    }
}

fn about_head(fault: HeadFault) -> &'static str {
    match fault {
        HeadFault::RequestLine => "the request line is not METHOD, blank, target, blank, HTTP/1.1",
        HeadFault::Version => "another version of HTTP",
        HeadFault::Method => "a method that is never served; they are written in capitals",
        HeadFault::Target(TargetFault::Form) => "the target does not begin with a slash",
        HeadFault::Target(TargetFault::Semicolon) => "the target has a `;`, which two readers may take differently",
        HeadFault::Target(TargetFault::EmptySegment) => "the path has two slashes behind one another",
        HeadFault::Target(TargetFault::DotSegment) => "the path has a segment `.` or `..`",
        HeadFault::Target(TargetFault::Percent) => "the target has a `%` without its two digits",
        HeadFault::Target(TargetFault::Encoded) => {
            "the path has an encoded blank, slash, dot or percent sign, which two readers may take differently"
        }
        HeadFault::Target(TargetFault::Byte) => "the target has a character that must be encoded",
        HeadFault::Field(_) => "a header field is not `Name: value` on one line, or has a character that none may have",
        HeadFault::TooLarge => "the head is larger than limits.head, or has more fields than limits.fields",
        HeadFault::TargetTooLong => "the target is longer than limits.target",
        HeadFault::Host => "Host is missing, there twice, or not a plain host and port",
        HeadFault::ContentLength => "Content-Length is there twice, no plain number, or beside a Transfer-Encoding",
        HeadFault::TransferEncoding => "there is a Transfer-Encoding; a body is taken by its Content-Length alone",
        HeadFault::Connection => "Connection names something else than `close` or `keep-alive`",
        HeadFault::Upgrade => "it asks for an upgrade, which is never followed",
        HeadFault::Expect => "Expect is something else than `100-continue`",
        HeadFault::Slow => "the head came too slowly",
    }
}

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
