//! Which values are wanted out of a document.

use std::fmt;

/// A JSON pointer (RFC 6901), parsed once.
///
/// Prints as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    pub(super) tokens: Vec<String>,
}

impl Pointer {
    /// Parses the string form of RFC 6901 section 3: empty for the whole document, else `/` before each key or array index, with `~0` for
    /// `~` and `~1` for `/`.
    ///
    /// # Errors
    /// Says what is wrong with the text: it does not begin with `/`, or a `~` is not followed by `0` or `1`.
    pub fn parse(text: &str) -> Result<Pointer, &'static str> {
        let mut tokens = Vec::new();
        if !text.is_empty() {
            let path = text.strip_prefix('/').ok_or("a JSON pointer is empty or begins with '/'")?;
            for token in path.split('/') {
                tokens.push(unescape(token)?);
            }
        }
        Ok(Pointer { text: text.to_owned(), tokens })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The pointers that are wanted out of one kind of document, compiled into a tree so that one walk answers all of them.
#[derive(Clone, Debug, Default)]
pub struct Pointers {
    pub(super) root: Node,
    slots: usize,
}

impl Pointers {
    /// Adds a pointer and returns its slot, which counts from 0. The same pointer twice gives the same slot.
    pub fn want(&mut self, pointer: &Pointer) -> usize {
        let mut node = &mut self.root;
        for token in &pointer.tokens {
            node = node.grow(token);
        }
        *node.slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// How many different pointers are wanted.
    pub fn len(&self) -> usize {
        self.slots
    }

    /// Whether no pointer is wanted; a document is then only checked.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }
}

/// One step of the tree: what is wanted at this place, and below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub slot: Option<usize>,
    branches: Vec<Branch>,
}

#[derive(Clone, Debug)]
struct Branch {
    key: String,
    folded: String,
    index: Option<usize>,
    node: Node,
}

impl Node {
    fn grow(&mut self, token: &str) -> &mut Node {
        let at = self.branches.iter().position(|branch| branch.key == token).unwrap_or(self.branches.len());
        if at == self.branches.len() {
            self.branches.push(Branch {
                key: token.to_owned(),
                folded: folded(token).collect(),
                index: array_index(token),
                node: Node::default(),
            });
        }
        &mut self.branches[at].node
    }

    pub fn member(&self, key: &str) -> Option<&Node> {
        let branch = self.branches.iter().find(|branch| branch.key == key)?;
        Some(&branch.node)
    }

    pub fn element(&self, index: usize) -> Option<&Node> {
        let branch = self.branches.iter().find(|branch| branch.index == Some(index))?;
        Some(&branch.node)
    }

    pub fn has_twin_of(&self, key: &str) -> bool {
        match key.is_ascii() {
            true => self.branches.iter().any(|branch| branch.folded.eq_ignore_ascii_case(key)),
            false => self.branches.iter().any(|branch| folded(key).eq(branch.folded.chars())),
        }
    }
}

/// Folds case further than lower-casing does: what any reader might take for the same key must come out the same. Go's folds U+017F (long
/// s) into `s`, which only upper-casing shows.
fn folded(key: &str) -> impl Iterator<Item = char> {
    key.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

/// RFC 6901 section 4: digits without a leading zero. `-` names the element behind the last one, where nothing stands.
fn array_index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if digits && !leading_zero { token.parse().ok() } else { None }
}

fn unescape(token: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '~' => match characters.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err("in a JSON pointer '~' is followed by '0' or '1'"),
            },
            other => other,
        });
    }
    Ok(plain)
}
