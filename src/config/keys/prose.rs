//! What a reference file says of its keys, in the comments above them.

use std::collections::BTreeSet;

/// The comments of a reference file, in their order.
#[derive(Debug)]
pub struct Prose(pub Vec<Paragraph>);

/// A comment, and the keys below it up to the next empty line.
#[derive(Debug, Default)]
pub struct Paragraph {
    /// The comment, with its lines.
    pub text: String,
    /// The keys, dotted.
    pub keys: Vec<String>,
    /// It stands above the header of a table.
    pub heads: bool,
}

impl Prose {
    /// Reads a reference. A key that is commented out is one all the same: `# url = "…"`.
    pub fn of(text: &str) -> Prose {
        let mut paragraphs = Vec::new();
        let mut open = Paragraph::default();
        let mut arrays = BTreeSet::new();
        let mut section = String::new();
        for line in text.lines() {
            if let Some(header) = header(line, &mut arrays) {
                section = format!("{header}.");
                open.keys.push(header);
                open.heads = true;
                paragraphs.push(std::mem::take(&mut open));
            } else if let Some(key) = key(line) {
                open.keys.push(format!("{section}{key}"));
            } else if let Some(comment) = line.strip_prefix('#') {
                if !open.keys.is_empty() {
                    paragraphs.push(std::mem::take(&mut open));
                }
                open.text.push_str(comment.strip_prefix(' ').unwrap_or(comment));
                open.text.push('\n');
            } else {
                paragraphs.push(std::mem::take(&mut open));
            }
        }
        paragraphs.push(open);
        paragraphs.retain(|paragraph| !paragraph.keys.is_empty());
        Prose(paragraphs)
    }

    /// What is said of a key; nothing where the file has no words for it.
    pub fn about(&self, path: &str) -> Option<&str> {
        let paragraph = self.0.iter().find(|paragraph| paragraph.keys.iter().any(|key| key == path))?;
        Some(paragraph.text.trim_end()).filter(|text| !text.is_empty())
    }
}

/// `[limits]`, `[[caller]]` and `[caller.basic]` as paths; `arrays` knows which tables there are several of.
fn header(line: &str, arrays: &mut BTreeSet<String>) -> Option<String> {
    let (name, several) = match line.strip_prefix("[[") {
        Some(rest) => (rest.strip_suffix("]]")?, true),
        None => (line.strip_prefix('[')?.strip_suffix(']')?, false),
    };
    let mut path = String::new();
    for step in name.split('.') {
        let way = if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
        path = if arrays.contains(&way) { format!("{way}[]") } else { way };
    }
    if several && !path.ends_with("[]") {
        arrays.insert(path.clone());
        path.push_str("[]");
    }
    Some(path)
}

/// The key of a line such as `body = "64KiB"`; prose never has a word and an equals sign in front.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || b"_.".contains(&byte);
    (!key.is_empty() && key.bytes().all(plain)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_about_the_keys_below_it_and_the_header_behind_it() {
        let text = "# Of the file.\n\n# One.\n# Two.\na = 1\n# b.c = 2\n\n# Each.\n[[d]]\n# Of it.\ne = 1\n[d.f]\n\n# G.\ng = 1\n";
        let prose = Prose::of(text);
        let found: Vec<_> = prose.0.iter().map(|one| (one.keys.join(" "), one.text.as_str(), one.heads)).collect();
        let expected = [
            ("a b.c", "One.\nTwo.\n", false),
            ("d[]", "Each.\n", true),
            ("d[].e d[].f", "Of it.\n", true),
            ("d[].f.g", "G.\n", false),
        ];
        assert_eq!(found, expected.map(|(keys, text, heads)| (keys.to_owned(), text, heads)));
        assert_eq!((prose.about("b.c"), prose.about("c")), (Some("One.\nTwo."), None));
    }
}
