//! How the demo is printed: at most 100 columns, in colour on a terminal, plain in a pipe, each part at once.

use std::io::{self, Write};

use crate::command::call::{Call, Reply};
use crate::command::paint::Paint;

/// A page, printed as it comes.
pub struct Page<W> {
    out: W,
    look: Look,
}

/// What the page is printed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Somebody looks at it and copies from it.
    pub terminal: bool,
    /// In colour.
    pub coloured: bool,
}

/// One request and what became of it.
pub struct Told<'a> {
    /// Counts from 1.
    pub number: usize,
    /// In a few words.
    pub title: &'a str,
    /// What was sent.
    pub call: &'a Call,
    /// What came back.
    pub reply: &'a Reply,
    /// What the PAM saw of it.
    pub pam: &'a [String],
    /// In one sentence or two.
    pub why: &'a str,
    /// What was promised otherwise.
    pub fault: Option<&'a str>,
}

impl<W: Write> Page<W> {
    /// An empty page.
    pub fn new(out: W, look: Look) -> Page<W> {
        Page { out, look }
    }

    /// The heading of the page or of a part of it.
    pub fn title(&mut self, text: &str) -> io::Result<()> {
        let heading = self.paint(Paint::Bold, text);
        writeln!(self.out, "\n{heading}\n")
    }

    /// The heading of a family, with what is special about it.
    pub fn chapter(&mut self, family: &str, about: &str) -> io::Result<()> {
        let rule = "─".repeat(WIDTH.saturating_sub(family.chars().count() + 4));
        let heading = format!("── {} {}", self.paint(Paint::Bold, family), self.paint(Paint::Dim, &rule));
        writeln!(self.out, "\n{heading}")?;
        self.prose(about)
    }

    /// A paragraph.
    pub fn prose(&mut self, text: &str) -> io::Result<()> {
        for line in folded(text, WIDTH, ' ') {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// A line as it is.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A line that may be overlooked.
    pub fn dim(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint(Paint::Dim, text);
        writeln!(self.out, "{text}")
    }

    /// A line for a shell, with a line above it about what it does. `line` makes it with what shall stand between its
    /// parts: on a terminal each part has a line of its own, and pastes all the same; in a pipe it is one line for `sh`.
    pub fn try_line(&mut self, about: &str, line: impl FnOnce(&str) -> String) -> io::Result<()> {
        let line = line(if self.look.terminal { " \\\n  " } else { " " });
        writeln!(self.out, "\n{}\n{line}", self.paint(Paint::Dim, &format!("# {about}")))
    }

    /// A request and what became of it.
    pub fn told(&mut self, told: &Told<'_>) -> io::Result<()> {
        let Told { number, title, call, reply, pam, why, fault } = told;
        writeln!(self.out, "\n{number:>2}  {}", self.paint(Paint::Bold, title))?;
        let first = format!("{} {}", call.method, call.target);
        let fields = call.fields.iter().map(|(name, value)| format!("{name}: {value}"));
        let sent = std::iter::once(first.clone()).chain(fields).chain([call.body.clone()]);
        self.entry("sent", Some((Paint::Cyan, &first)), sent.filter(|line| !line.is_empty()), ',')?;
        let paint = match reply.status {
            200..300 => Paint::Green,
            500.. => Paint::Yellow,
            _ => Paint::Red,
        };
        let status = reply.status.to_string();
        self.entry("back", Some((paint, &status)), [format!("{status} {}", reply.body)], ',')?;
        self.entry("PAM", None, pam.iter().cloned(), ' ')?;
        self.entry("why", None, [(*why).to_owned()], ' ')?;
        if let Some(fault) = fault {
            let fault = format!("promised was {fault}");
            self.entry("BUT", Some((Paint::Red, &fault)), [fault.clone()], ' ')?;
        }
        self.flush()
    }

    /// The last line of a demo that was stopped.
    pub fn stopped(&mut self) -> io::Result<()> {
        writeln!(self.out, "\nStopped.")?;
        self.flush()
    }

    /// Shows what was printed so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Lines behind a label, painted where they begin as `painted` says. Lines that are too long are folded behind `at`.
    fn entry(
        &mut self,
        label: &str,
        painted: Option<(Paint, &str)>,
        lines: impl IntoIterator<Item = String>,
        at: char,
    ) -> io::Result<()> {
        let mut label = label;
        for line in lines {
            for part in folded(&line, WIDTH - INDENT, at) {
                let part = match painted.and_then(|(paint, start)| Some((paint, start, part.strip_prefix(start)?))) {
                    Some((paint, start, rest)) => format!("{}{rest}", self.paint(paint, start)),
                    None => part.to_owned(),
                };
                writeln!(self.out, "    {} {part}", self.paint(Paint::Dim, &format!("{label:6}")))?;
                label = "";
            }
        }
        Ok(())
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        paint.on(text, self.look.coloured)
    }
}

/// `text` in pieces of at most `width` characters, each but the last ending behind an `at` where there is one.
fn folded(text: &str, width: usize, at: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(width) {
        let (fitting, _) = rest.split_at(end);
        let next = rest.chars().nth(width);
        let cut = match fitting.rfind(at) {
            // A blank may hang over the edge.
            _ if at == ' ' && next == Some(' ') => end,
            Some(found) => found + at.len_utf8(),
            None => end,
        };
        let (piece, tail) = rest.split_at(cut);
        pieces.push(piece.trim_end());
        rest = tail.trim_start();
    }
    pieces.push(rest);
    pieces
}

const WIDTH: usize = 100;

/// Four blanks, a label of six, one blank.
const INDENT: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_folded_at_blanks() {
        assert_eq!(folded("one two three", 7, ' '), ["one two", "three"]);
        assert_eq!(folded("one two three", 6, ' '), ["one", "two", "three"]);
        assert_eq!(folded("one", 7, ' '), ["one"]);
    }

    #[test]
    fn what_has_no_place_to_fold_is_cut() {
        assert_eq!(folded("ééééé", 2, ','), ["éé", "éé", "é"]);
        assert_eq!(folded(r#"{"a":1,"b":2}"#, 8, ','), [r#"{"a":1,"#, r#""b":2}"#]);
    }

    #[test]
    fn colour_is_for_those_who_see_it() {
        let print = |coloured| {
            let mut page = Page::new(Vec::new(), Look { terminal: true, coloured });
            page.dim("calm").unwrap();
            String::from_utf8(page.out).unwrap()
        };
        assert_eq!(print(false), "calm\n");
        assert_eq!(print(true), "\x1b[2mcalm\x1b[0m\n");
    }

    #[test]
    fn a_line_for_a_shell_is_one_line_in_a_pipe() {
        let print = |terminal| {
            let mut page = Page::new(Vec::new(), Look { terminal, coloured: false });
            page.try_line("says hello", |joint| format!("echo{joint}hello")).unwrap();
            String::from_utf8(page.out).unwrap()
        };
        assert_eq!(print(false), "\n# says hello\necho hello\n");
        assert_eq!(print(true), "\n# says hello\necho \\\n  hello\n");
    }
}
