//! The same JSON as other libraries write it: other white space, another order of members, other escapes and numbers.

use std::fmt::Write;

/// The body in other spellings, each with a word on it; none when it is not JSON.
pub(super) fn all(body: &[u8]) -> Vec<(Vec<u8>, String)> {
    let Some(tree) = str::from_utf8(body).ok().and_then(Tree::read) else { return Vec::new() };
    let mut all = Vec::new();
    for (layout, word) in [
        (Layout::Compact, "without white space"),
        (Layout::Blanks, "with a blank behind each comma and colon, as Python does by default"),
        (Layout::Indented(2), "indented by two blanks"),
        (Layout::Indented(4), "indented by four blanks"),
    ] {
        for (sorted, order) in [(false, ""), (true, ", its members sorted")] {
            for (strings, escapes) in [
                (Strings::AsTheyAre, ""),
                (Strings::Plain, ", with no escapes but those it needs"),
                (Strings::Ascii, ", with other than ASCII escaped, as Python does by default"),
                (Strings::Slashes, ", with slashes escaped, as PHP does by default"),
                (Strings::AsciiAndSlashes, ", with slashes and other than ASCII escaped, as PHP does by default"),
            ] {
                for (shorter, numbers) in [(false, ""), (true, ", with numbers as JavaScript writes them")] {
                    // One thing at a time besides the layout, or there is no end to it.
                    let besides = [sorted, strings != Strings::AsTheyAre, shorter].iter().filter(|one| **one).count();
                    if besides > 1 {
                        continue;
                    }
                    let mut out = String::new();
                    Style { layout, sorted, strings, shorter }.write(&tree, 0, &mut out);
                    all.push((out.into_bytes(), format!("{word}{order}{escapes}{numbers}")));
                }
            }
        }
    }
    all
}

/// A document; scalars as they were written.
enum Tree<'a> {
    Scalar(&'a str),
    Array(Vec<Tree<'a>>),
    Object(Vec<(&'a str, Tree<'a>)>),
}

#[derive(Clone, Copy)]
enum Layout {
    Compact,
    Blanks,
    Indented(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Strings {
    AsTheyAre,
    Plain,
    Ascii,
    Slashes,
    AsciiAndSlashes,
}

#[derive(Clone, Copy)]
struct Style {
    layout: Layout,
    sorted: bool,
    strings: Strings,
    shorter: bool,
}

impl<'a> Tree<'a> {
    /// Reads what the strict reader would take; `serde_json` says first whether it is JSON at all.
    fn read(text: &'a str) -> Option<Tree<'a>> {
        serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
        let mut rest = text;
        Tree::value(&mut rest, 0)
    }

    fn value(rest: &mut &'a str, depth: usize) -> Option<Tree<'a>> {
        if depth > DEEPEST {
            return None;
        }
        *rest = rest.trim_start();
        match rest.chars().next()? {
            '{' => {
                let mut members = Vec::new();
                Tree::list(rest, '}', |rest| {
                    *rest = rest.trim_start();
                    let key = string(rest)?;
                    *rest = rest.trim_start().strip_prefix(':')?;
                    members.push((key, Tree::value(rest, depth + 1)?));
                    Some(())
                })?;
                Some(Tree::Object(members))
            }
            '[' => {
                let mut items = Vec::new();
                Tree::list(rest, ']', |rest| {
                    items.push(Tree::value(rest, depth + 1)?);
                    Some(())
                })?;
                Some(Tree::Array(items))
            }
            '"' => string(rest).map(Tree::Scalar),
            _ => {
                let end = rest.find(|one: char| matches!(one, ',' | '}' | ']') || one.is_ascii_whitespace());
                let (scalar, behind) = rest.split_at(end.unwrap_or(rest.len()));
                *rest = behind;
                Some(Tree::Scalar(scalar))
            }
        }
    }

    fn list(rest: &mut &'a str, end: char, mut item: impl FnMut(&mut &'a str) -> Option<()>) -> Option<()> {
        *rest = rest.get(1..)?.trim_start();
        if let Some(behind) = rest.strip_prefix(end) {
            *rest = behind;
            return Some(());
        }
        loop {
            item(rest)?;
            *rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix(end) {
                *rest = behind;
                return Some(());
            }
            *rest = rest.strip_prefix(',')?;
        }
    }
}

/// A string's literal, its quotes included.
fn string<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, one)| {
        let ends = *one == '"' && !escaped;
        escaped = *one == '\\' && !escaped;
        ends
    })?;
    let (literal, behind) = rest.split_at(end.0 + 1);
    *rest = behind;
    Some(literal)
}

impl Style {
    fn write(self, tree: &Tree<'_>, depth: usize, out: &mut String) {
        match tree {
            Tree::Scalar(literal) => self.scalar(literal, out),
            Tree::Array(items) => self.list(('[', ']'), items.iter(), depth, out, |item, out| {
                self.write(item, depth + 1, out);
            }),
            Tree::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if self.sorted {
                    members.sort_by_key(|(key, _)| serde_json::from_str::<String>(key).unwrap_or_default());
                }
                self.list(('{', '}'), members.into_iter(), depth, out, |(key, value), out| {
                    self.scalar(key, out);
                    out.push_str(if matches!(self.layout, Layout::Compact) { ":" } else { ": " });
                    self.write(value, depth + 1, out);
                });
            }
        }
    }

    fn list<T>(
        self,
        (open, close): (char, char),
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        out: &mut String,
        mut item: impl FnMut(T, &mut String),
    ) {
        let lines = |depth: usize, out: &mut String| {
            if let Layout::Indented(by) = self.layout {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', by * depth));
            }
        };
        out.push(open);
        let empty = items.len() == 0;
        for (at, one) in items.enumerate() {
            if at > 0 {
                out.push_str(if matches!(self.layout, Layout::Blanks) { ", " } else { "," });
            }
            lines(depth + 1, out);
            item(one, out);
        }
        if !empty {
            lines(depth, out);
        }
        out.push(close);
    }

    fn scalar(self, literal: &str, out: &mut String) {
        if !literal.starts_with('"') {
            let shorter = literal.parse::<f64>().ok().filter(|_| self.shorter && literal.contains(['.', 'e', 'E']));
            match shorter {
                Some(number) => {
                    let _ = write!(out, "{number}");
                }
                None => out.push_str(literal),
            }
            return;
        }
        let text = match self.strings {
            Strings::AsTheyAre => None,
            Strings::Plain | Strings::Ascii | Strings::Slashes | Strings::AsciiAndSlashes => {
                serde_json::from_str::<String>(literal).ok()
            }
        };
        let Some(text) = text else { return out.push_str(literal) };
        let (ascii, slashes) = match self.strings {
            Strings::AsTheyAre | Strings::Plain => (false, false),
            Strings::Ascii => (true, false),
            Strings::Slashes => (false, true),
            Strings::AsciiAndSlashes => (true, true),
        };
        for one in serde_json::Value::from(text).to_string().chars() {
            match one {
                '/' if slashes => out.push_str("\\/"),
                other if ascii && !other.is_ascii() => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                other => out.push(other),
            }
        }
    }
}

/// As deep as the strict reader goes.
const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn spellings(body: &str) -> Vec<String> {
        all(body.as_bytes()).into_iter().map(|(bytes, _)| String::from_utf8(bytes).unwrap()).collect()
    }

    #[test]
    fn other_libraries_write_the_same_otherwise() {
        let found = spellings("{\"b\": \"a\\/é\",\n\"a\":[1.50, {}, []]}");
        for expected in [
            r#"{"b":"a\/é","a":[1.50,{},[]]}"#,
            r#"{"b": "a\/é", "a": [1.50, {}, []]}"#,
            r#"{"a":[1.50,{},[]],"b":"a\/é"}"#,
            r#"{"b":"a/é","a":[1.50,{},[]]}"#,
            r#"{"b":"a/\u00e9","a":[1.50,{},[]]}"#,
            r#"{"b":"a\/\u00e9","a":[1.50,{},[]]}"#,
            r#"{"b":"a\/é","a":[1.5,{},[]]}"#,
            "{\n  \"b\": \"a\\/é\",\n  \"a\": [\n    1.50,\n    {},\n    []\n  ]\n}",
        ] {
            assert!(found.iter().any(|one| one == expected), "{expected}\n{found:#?}");
        }
    }

    #[test]
    fn what_is_not_json_has_no_other_spelling() {
        for body in ["", "{", "a=b", "{\"a\":1}x", "\u{feff}{}"] {
            assert_eq!(spellings(body), [""; 0], "{body}");
        }
    }
}
