//! What was written: TOML files and flags as a tree in which every key and value knows its place.
//!
//! Reading never stops at the first fault. Each is kept with file, line and column, and the reader goes on, so that
//! whoever writes a file learns everything that is wrong with it at once. A complaint tells the type of what it found,
//! never the text: a text in the wrong place may be a secret.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Deref, Range, RangeInclusive};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue, Error};

use super::shape::{Asked, Form, Shape};

/// Where something was written: a file with line and column, or a flag of the command line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    source: Arc<str>,
    /// Line and column, both from 1, the column in characters.
    position: Option<(usize, usize)>,
}

impl Place {
    /// A source as a whole: a file that cannot be opened, a flag, a variable of the environment.
    pub fn whole(source: &str) -> Place {
        Place { source: source.into(), position: None }
    }

    fn line(&self) -> Option<usize> {
        self.position.map(|(line, _)| line)
    }
}

/// `config/wallet.toml:12:9` or `--set limits.body`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        self.position.map_or(Ok(()), |(line, column)| write!(f, ":{line}:{column}"))
    }
}

/// Something wrong, and where. Shows as `place: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where it was written.
    pub place: Place,
    /// What is wrong and what would be right, without any text that could be secret.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All that is wrong so far.
#[derive(Clone, Debug, Default)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// Adds one.
    pub fn push(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Complaint { place: place.clone(), message: message.into() });
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.0.iter()
    }

    /// In the order of their places; those of one place in the order they were found.
    pub fn into_vec(mut self) -> Vec<Complaint> {
        self.0.sort_by(|one, other| one.place.cmp(&other.place));
        self.0
    }
}

impl Extend<Complaint> for Complaints {
    fn extend<I: IntoIterator<Item = Complaint>>(&mut self, complaints: I) {
        self.0.extend(complaints);
    }
}

/// A value with the place it was written. `Debug` shows the place alone: the value may be a secret.
#[derive(Clone)]
pub struct Spanned<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub place: Place,
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> fmt::Debug for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spanned({})", self.place)
    }
}

/// What can be written as a value. Floats and dates have no use here, so that only their type is kept.
pub enum Value {
    /// Any of the four kinds of TOML string.
    String(String),
    /// A whole number of 64 bits.
    Integer(i64),
    /// A number with a fraction or exponent, `inf` or `nan`.
    Float,
    /// `true` or `false`.
    Boolean(bool),
    /// A date, a time or both.
    Datetime,
    /// An array of values or of tables.
    Array(Vec<Node>),
    /// A table, inline or under a header.
    Table(Table),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date or time",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// Lays it down in one way of several that mean the same.
    fn digest(&self, into: &mut Sha256) {
        let mut text = |kind: u8, text: &str| {
            into.update([kind]);
            into.update(text.len().to_be_bytes());
            into.update(text);
        };
        match self {
            Value::String(string) => text(b's', string),
            Value::Integer(number) => text(b'i', &number.to_string()),
            Value::Boolean(truth) => text(b'b', &truth.to_string()),
            // Nothing reads them.
            Value::Float | Value::Datetime => text(b'x', ""),
            Value::Array(nodes) => {
                text(b'a', &nodes.len().to_string());
                nodes.iter().for_each(|node| node.value.digest(into));
            }
            Value::Table(table) => table.digest(into),
        }
    }

    /// The keys in and below it.
    fn written(&self) -> BTreeSet<String> {
        match self {
            Value::Table(table) => table.written(),
            Value::Array(nodes) => nodes.iter().flat_map(|node| node.value.written()).collect(),
            _ => BTreeSet::new(),
        }
    }
}

/// A value, its place, and the dotted path of its key.
///
/// Each reading of it gives what it is, or complains of what it should have been and gives nothing.
pub struct Node {
    /// Where the value was written.
    pub place: Place,
    /// Dotted, `[]` for an element of an array: `revocation.redis.url`, `caller[].name`.
    pub path: String,
    /// The value.
    pub value: Value,
}

impl Node {
    /// Complains that `expected` was expected, such as `a status such as 200`.
    pub fn mismatch(&self, expected: &str, complaints: &mut Complaints) {
        complaints.push(&self.place, format!("`{}` must be {expected}, found {}", self.path, self.value.kind()));
    }

    /// Any string.
    pub fn string(self, complaints: &mut Complaints) -> Option<Spanned<String>> {
        self.read("a string such as \"text\"", complaints, |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other.kind().into()),
        })
    }

    /// One of the given words, for what it stands for.
    pub fn choice<T: Copy>(self, words: &[(&str, T)], complaints: &mut Complaints) -> Option<Spanned<T>> {
        let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.read(&format!("one of {}", quoted.join(", ")), complaints, |value| match value {
            Value::String(text) => match words.iter().find(|(word, _)| *word == text) {
                Some((_, meaning)) => Ok(*meaning),
                None => Err("another string".into()),
            },
            other => Err(other.kind().into()),
        })
    }

    /// `true` or `false`.
    pub fn boolean(self, complaints: &mut Complaints) -> Option<Spanned<bool>> {
        self.read("true or false", complaints, |value| match value {
            Value::Boolean(truth) => Ok(truth),
            other => Err(other.kind().into()),
        })
    }

    /// An integer within `range`.
    pub fn integer(self, range: RangeInclusive<i64>, complaints: &mut Complaints) -> Option<Spanned<i64>> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.read(&expected, complaints, |value| match value {
            Value::Integer(number) if range.contains(&number) => Ok(number),
            Value::Integer(number) => Err(number.to_string()),
            other => Err(other.kind().into()),
        })
    }

    /// `"250ms"`, `"300s"`, `"5m"`, `"2h"`, `"7d"`, or an integer number of seconds; above zero, at most a century.
    pub fn duration(self, complaints: &mut Complaints) -> Option<Spanned<Duration>> {
        let bounded = |milliseconds: Option<u64>| {
            milliseconds.map(Duration::from_millis).filter(|duration| !duration.is_zero() && *duration <= CENTURY)
        };
        self.read(DURATION, complaints, |value| match value {
            Value::String(text) => bounded(scaled(&text, &TIMES)).ok_or(format!("{text:?}")),
            Value::Integer(number) => {
                bounded(u64::try_from(number).ok().and_then(|s| s.checked_mul(1000))).ok_or(number.to_string())
            }
            other => Err(other.kind().into()),
        })
    }

    /// An integer number of bytes, or `"10kB"`, `"64KiB"`, `"2MB"`, `"1MiB"`, `"1GB"`, `"1GiB"`. May be zero.
    pub fn bytes(self, complaints: &mut Complaints) -> Option<Spanned<u64>> {
        self.read(BYTES, complaints, |value| match value {
            Value::String(text) => scaled(&text, &SIZES).ok_or(format!("{text:?}")),
            Value::Integer(number) => u64::try_from(number).ok().ok_or(number.to_string()),
            other => Err(other.kind().into()),
        })
    }

    /// `"10%"`, `"0.5%"`: from none to all, as parts of a million.
    pub fn percentage(self, complaints: &mut Complaints) -> Option<Spanned<u32>> {
        self.read(PERCENTAGE, complaints, |value| match value {
            Value::String(text) => parts_of_a_million(&text).ok_or(format!("{text:?}")),
            other => Err(other.kind().into()),
        })
    }

    /// A table, inline or under a header.
    pub fn table(self, complaints: &mut Complaints) -> Option<Table> {
        let header = self.header();
        let header = if self.path.ends_with("[]") { format!("[[{header}]]") } else { format!("[{header}]") };
        let expected = format!("a table, under {header} or in {{ }}");
        let table = self.read(&expected, complaints, |value| match value {
            Value::Table(table) => Ok(table),
            other => Err(other.kind().into()),
        });
        Some(table?.value)
    }

    /// An array of tables. An element that is none is left out, with a complaint.
    pub fn tables(self, complaints: &mut Complaints) -> Vec<Table> {
        let expected = format!("an array of tables, each under [[{}]] or in {{ }}", self.header());
        let nodes = self.elements(&expected, complaints);
        nodes.into_iter().flat_map(|nodes| nodes.value).filter_map(|node| node.table(complaints)).collect()
    }

    /// An array of anything.
    pub fn array(self, complaints: &mut Complaints) -> Option<Spanned<Vec<Node>>> {
        self.elements("an array such as [1, 2]", complaints)
    }

    /// A string or an array of strings; nothing when one element is not a string.
    pub fn strings(self, complaints: &mut Complaints) -> Option<Vec<Spanned<String>>> {
        match self.value {
            Value::String(value) => Some(vec![Spanned { value, place: self.place }]),
            Value::Array(nodes) => {
                let strings: Vec<Option<_>> = nodes.into_iter().map(|node| node.string(complaints)).collect();
                strings.into_iter().collect()
            }
            _ => {
                self.mismatch("a string or an array of strings such as [\"one\", \"two\"]", complaints);
                None
            }
        }
    }

    fn elements(self, expected: &str, complaints: &mut Complaints) -> Option<Spanned<Vec<Node>>> {
        self.read(expected, complaints, |value| match value {
            Value::Array(nodes) => Ok(nodes),
            other => Err(other.kind().into()),
        })
    }

    /// `pick` gives what the value is, or words for what was found instead.
    fn read<T>(
        self,
        expected: &str,
        complaints: &mut Complaints,
        pick: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        match pick(self.value) {
            Ok(value) => Some(Spanned { value, place: self.place }),
            Err(found) => {
                complaints.push(&self.place, format!("`{}` must be {expected}, found {found}", self.path));
                None
            }
        }
    }

    /// The path as a TOML header has it.
    fn header(&self) -> String {
        self.path.replace("[]", "")
    }
}

/// A table whose keys are taken out one by one, and which remembers the keys it was asked for.
///
/// To read a key that was not written is no complaint, see [`Table::require`]. Whoever has read all keys ends with
/// [`Table::finish`] or [`Table::rest`]: what nobody asked for is a mistake of the writer and must not pass in silence.
pub struct Table {
    place: Place,
    path: String,
    entries: Vec<Entry>,
    known: Vec<String>,
    document: Document,
}

/// What all tables of a document share.
#[derive(Clone, Default)]
struct Document {
    asked: Rc<RefCell<BTreeMap<String, Asked>>>,
    /// Nobody can tell what is missing or unknown.
    incomplete: Rc<Cell<bool>>,
}

/// A key that was written. Its value is gone once it is taken out, or from the start when it could not be read.
struct Entry {
    key: Spanned<String>,
    node: Option<Node>,
}

/// Reads a document. `name` is how its places call it. Syntax errors, duplicate keys among them, become complaints, and
/// what could be read besides is given: a value with a fault in it counts as written and reads as nothing.
///
/// After a fault in a header, outside of any value (a key without `=`), or in a value of several lines (an array without
/// its `]` swallows what follows) nobody can tell what is missing or in which table a key was meant to be, so that of
/// this document no missing and no unknown keys are reported.
pub fn parse(name: &str, text: &str, complaints: &mut Complaints) -> Table {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let sheet = Sheet::new(name, text);
    let (_, mut errors) = DeTable::parse_recoverable(text);
    let legible = without_unassigned(text, &errors);
    let (tree, more) = DeTable::parse_recoverable(&legible);
    errors.extend(more);

    let start = |error: &Error| error.span().map_or(0, |span| span.start);
    let told: BTreeSet<(usize, String)> = errors.iter().map(|error| (start(error), wording(error, text))).collect();
    for (offset, message) in told {
        complaints.push(&sheet.place(offset), message);
    }
    let harmful = errors.iter().filter(|error| !HARMLESS.iter().any(|start| error.message().starts_with(start)));
    let faults: Vec<Fault> = harmful.map(|error| Fault { offset: start(error), contained: Cell::new(false) }).collect();

    let document = Document::default();
    let place = |offset| sheet.place(offset);
    let mut planting = Planting { place: &place, faults: &faults, document: &document, complaints };
    let entries = planting.entries(tree.into_inner(), "");
    let structural = |fault: &Fault| !fault.contained.get() || sheet.is_header(fault.offset);
    document.incomplete.set(faults.iter().any(structural));
    Table { entries, ..Table::new(sheet.place(0), String::new(), document) }
}

impl Table {
    /// Lays an assignment `KEY=VALUE` over what was written: KEY is dotted, VALUE a TOML value or else a string.
    /// Tables on the way are made as needed. Complains when there is no `=`, when KEY is malformed, and when a step on
    /// the way is not a table. What was set has the place `flag KEY`.
    pub fn set(&mut self, flag: &str, assignment: &str, complaints: &mut Complaints) {
        let Some((key, text)) = assignment.split_once('=') else {
            complaints.push(&Place::whole(flag), "must be KEY=VALUE such as limits.body=65536");
            return;
        };
        if !key.split('.').all(is_bare) {
            let message = "KEY in KEY=VALUE must be words of A-Z a-z 0-9 - _ joined by dots, such as limits.body";
            complaints.push(&Place::whole(flag), message);
            return;
        }
        let value = DeValue::parse(text).unwrap_or_else(|_| plain(text));
        self.lay(Place::whole(&format!("{flag} {key}")), key, value, complaints);
    }

    /// Lays the string `value` over the dotted `key`, for a flag with a key of its own, such as `--listen ADDRESS`.
    /// Complains when a step on the way is not a table. What was set has the place `flag`.
    pub fn set_string(&mut self, flag: &str, key: &str, value: &str, complaints: &mut Complaints) {
        self.lay(Place::whole(flag), key, plain(value), complaints);
    }

    /// The header, the opening brace, or the start of the document.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Dotted, `[]` for an element of an array: `revocation.redis`, `caller[]`; empty for the document.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// True when the key was written, whether or not it has been taken out or can be read.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key.value == key)
    }

    /// Where a key was written, and a digest of what was, in which neither order nor spelling counts. For before it is
    /// taken out.
    pub fn peek(&self, key: &str) -> Option<(Place, [u8; 32])> {
        let entry = self.entries.iter().find(|entry| entry.key.value == key)?;
        let mut digest = Sha256::new();
        if let Some(node) = &entry.node {
            node.value.digest(&mut digest);
        }
        Some((entry.key.place.clone(), digest.finalize().into()))
    }

    /// Complains when the key was not written. `example` is the line to add, such as `listen = "127.0.0.1:8080"`.
    pub fn require(&self, key: &str, example: &str, complaints: &mut Complaints) {
        self.need(key);
        if !self.contains(key) && !self.document.incomplete.get() {
            let message = format!("`{}` is missing; add for example {example}", join(&self.path, key));
            complaints.push(&self.place, message);
        }
    }

    /// Says what a key may hold, for those who take it out with [`Table::node`], or who allow less than the reading that
    /// follows: by itself each reading says what it takes.
    pub fn declare(&self, key: &str, shape: Shape) {
        self.ask(key, |asked| asked.shape = Some(shape));
    }

    /// Says that a key must be there, for those who complain in words of their own.
    pub fn need(&self, key: &str) {
        self.ask(key, |asked| asked.needed = true);
    }

    /// Says what counts when a key was not written, as TOML has it.
    pub fn usual(&self, key: &str, toml: impl Into<String>) {
        self.ask(key, |asked| asked.usual = Some(toml.into()));
    }

    /// Takes the key out as it is.
    pub fn node(&mut self, key: &str) -> Option<Node> {
        self.ask(key, |_| {});
        if !self.known.iter().any(|known| known == key) {
            self.known.push(key.to_owned());
        }
        self.entries.iter_mut().find(|entry| entry.key.value == key)?.node.take()
    }

    /// See [`Node::string`].
    pub fn string(&mut self, key: &str, complaints: &mut Complaints) -> Option<Spanned<String>> {
        self.found_as(key, Shape::Text);
        self.node(key)?.string(complaints)
    }

    /// The same for a string of a certain form, which the caller makes sure of.
    pub fn form(&mut self, key: &str, form: Form, complaints: &mut Complaints) -> Option<Spanned<String>> {
        self.declare(key, Shape::Form(form));
        self.string(key, complaints)
    }

    /// See [`Node::choice`].
    pub fn choice<T: Copy>(
        &mut self,
        key: &str,
        words: &[(&str, T)],
        complaints: &mut Complaints,
    ) -> Option<Spanned<T>> {
        self.found_as(key, Shape::word(words));
        self.node(key)?.choice(words, complaints)
    }

    /// See [`Node::boolean`].
    pub fn boolean(&mut self, key: &str, complaints: &mut Complaints) -> Option<Spanned<bool>> {
        self.found_as(key, Shape::Boolean);
        self.node(key)?.boolean(complaints)
    }

    /// See [`Node::integer`].
    pub fn integer(
        &mut self,
        key: &str,
        range: RangeInclusive<i64>,
        complaints: &mut Complaints,
    ) -> Option<Spanned<i64>> {
        self.found_as(key, Shape::Integer(range.clone()));
        self.node(key)?.integer(range, complaints)
    }

    /// See [`Node::duration`].
    pub fn duration(&mut self, key: &str, complaints: &mut Complaints) -> Option<Spanned<Duration>> {
        self.found_as(key, Shape::Duration { zero: false });
        self.node(key)?.duration(complaints)
    }

    /// See [`Node::bytes`].
    pub fn bytes(&mut self, key: &str, complaints: &mut Complaints) -> Option<Spanned<u64>> {
        self.found_as(key, Shape::Bytes(0..=u64::MAX));
        self.node(key)?.bytes(complaints)
    }

    /// See [`Node::percentage`].
    pub fn percentage(&mut self, key: &str, complaints: &mut Complaints) -> Option<Spanned<u32>> {
        self.found_as(key, Shape::Percentage);
        self.node(key)?.percentage(complaints)
    }

    /// See [`Node::array`].
    pub fn array(&mut self, key: &str, complaints: &mut Complaints) -> Option<Spanned<Vec<Node>>> {
        self.node(key)?.array(complaints)
    }

    /// See [`Node::strings`].
    pub fn strings(&mut self, key: &str, complaints: &mut Complaints) -> Option<Vec<Spanned<String>>> {
        self.found_as(key, Shape::Text.or_many());
        self.node(key)?.strings(complaints)
    }

    /// See [`Node::table`].
    pub fn table(&mut self, key: &str, complaints: &mut Complaints) -> Option<Table> {
        self.found_as(key, Shape::Table);
        self.node(key)?.table(complaints)
    }

    /// See [`Node::tables`].
    pub fn tables(&mut self, key: &str, complaints: &mut Complaints) -> Vec<Table> {
        self.found_as(key, Shape::tables());
        self.node(key).map(|node| node.tables(complaints)).unwrap_or_default()
    }

    /// A table that counts as empty when it was not written. In one that was written but is no table nothing is missed.
    pub fn section(&mut self, key: &str, complaints: &mut Complaints) -> Table {
        let mut document = self.document.clone();
        if self.contains(key) {
            document.incomplete = Rc::new(Cell::new(true));
        }
        let table = self.table(key, complaints);
        table.unwrap_or_else(|| Table::new(self.place.clone(), join(&self.path, key), document))
    }

    /// The keys left, in the order they were written: for tables whose keys are free. Counts as asking for `path.*`.
    pub fn rest(self) -> Vec<(Spanned<String>, Node)> {
        self.ask("*", |_| {});
        self.entries.into_iter().filter_map(|entry| Some((entry.key, entry.node?))).collect()
    }

    /// Complains of every key that nobody asked for, with the one that was probably meant, or else all that are known.
    pub fn finish(self, complaints: &mut Complaints) {
        let left = self.entries.iter().filter(|entry| entry.node.is_some() && !self.document.incomplete.get());
        for Entry { key, .. } in left {
            let nearest = self.known.iter().map(|known| (distance(key, known), known)).min();
            let advice = match nearest {
                // Two changes turn any word of two letters into any other.
                Some((steps, known)) if steps <= 2 && steps < known.chars().count() => {
                    format!("did you mean `{known}`?")
                }
                Some(_) => format!("known here: `{}`", self.known.join("`, `")),
                None => "no key is known here".to_owned(),
            };
            complaints.push(&key.place, format!("unknown key `{}`; {advice}", join(&self.path, key)));
        }
    }

    /// Every key that was asked for in the whole document so far, and what it may hold; dotted: `limits`, `limits.body`,
    /// `caller[].name`, and `headers.*` where keys are free.
    pub fn asked(&self) -> BTreeMap<String, Asked> {
        self.document.asked.borrow().clone()
    }

    /// Every key in here and below that was written and not yet taken out, dotted like [`Table::asked`].
    pub fn written(&self) -> BTreeSet<String> {
        let nodes = self.entries.iter().filter_map(|entry| entry.node.as_ref());
        nodes.flat_map(|node| std::iter::once(node.path.clone()).chain(node.value.written())).collect()
    }

    fn found_as(&self, key: &str, shape: Shape) {
        self.ask(key, |asked| asked.shape = asked.shape.take().or(Some(shape)));
    }

    fn ask(&self, key: &str, say: impl FnOnce(&mut Asked)) {
        say(self.document.asked.borrow_mut().entry(join(&self.path, key)).or_default());
    }

    fn digest(&self, into: &mut Sha256) {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|one, other| one.key.value.cmp(&other.key.value));
        into.update([b't']);
        into.update(entries.len().to_be_bytes());
        for entry in entries {
            into.update(entry.key.value.len().to_be_bytes());
            into.update(&entry.key.value);
            if let Some(node) = &entry.node {
                node.value.digest(into);
            }
        }
    }

    fn new(place: Place, path: String, document: Document) -> Table {
        Table { place, path, entries: vec![], known: vec![], document }
    }

    fn lay(&mut self, place: Place, key: &str, value: toml::Spanned<DeValue<'_>>, complaints: &mut Complaints) {
        let (way, last) = key.rsplit_once('.').map_or((None, key), |(way, last)| (Some(way), last));
        let mut table = self;
        for step in way.into_iter().flat_map(|way| way.split('.')) {
            let path = join(&table.path, step);
            let inner = Table::new(place.clone(), path.clone(), table.document.clone());
            let made = Node { place: place.clone(), path, value: Value::Table(inner) };
            let node = table.entry(step, &place).node.get_or_insert(made);
            match &mut node.value {
                Value::Table(inner) => table = inner,
                other => {
                    complaints.push(&place, format!("`{}` is {}, not a table", node.path, other.kind()));
                    return;
                }
            }
        }
        let at = |_| place.clone();
        let mut planting = Planting { place: &at, faults: &[], document: &table.document, complaints };
        let node = planting.node(value, join(&table.path, last));
        let entry = table.entry(last, &place);
        entry.node = node;
        entry.key.place = place;
    }

    /// The entry of a key, added at the end when there is none.
    fn entry(&mut self, key: &str, place: &Place) -> &mut Entry {
        let at = self.entries.iter().position(|entry| entry.key.value == key).unwrap_or_else(|| {
            let key = Spanned { value: key.to_owned(), place: place.clone() };
            self.entries.push(Entry { key, node: None });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }
}

/// A text and where its lines start.
struct Sheet<'a> {
    name: Arc<str>,
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Sheet<'a> {
    fn new(name: &str, text: &'a str) -> Sheet<'a> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Sheet { name: name.into(), text, lines }
    }

    fn place(&self, offset: usize) -> Place {
        let (line, start) = self.line(offset);
        let column = self.text.get(start..offset).map_or(offset - start, |text| text.chars().count()) + 1;
        Place { source: self.name.clone(), position: Some((line, column)) }
    }

    /// True when the line looks like a table's header. A line of an array may look the same: then we say too little.
    fn is_header(&self, offset: usize) -> bool {
        let rest = self.text.get(self.line(offset).1..).unwrap_or_default();
        rest.trim_start_matches([' ', '\t']).starts_with('[')
    }

    /// The number of the line, from 1, and where it starts.
    fn line(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset);
        (line, self.lines.iter().take(line).next_back().copied().unwrap_or_default())
    }
}

/// A syntax error, and whether it lies in a value of one line, so that everything around that value can be trusted.
struct Fault {
    offset: usize,
    contained: Cell<bool>,
}

/// Turns what the TOML library read into our tree.
struct Planting<'a> {
    place: &'a dyn Fn(usize) -> Place,
    faults: &'a [Fault],
    document: &'a Document,
    complaints: &'a mut Complaints,
}

impl Planting<'_> {
    /// Nothing when there is a fault in the value.
    fn node(&mut self, value: toml::Spanned<DeValue<'_>>, path: String) -> Option<Node> {
        let Range { start, end } = value.span();
        let mut faults = self.faults.iter().filter(|fault| (start..=end).contains(&fault.offset)).peekable();
        let place = (self.place)(start);
        if faults.peek().is_some() {
            let one_line = (self.place)(end).line() == place.line();
            faults.for_each(|fault| fault.contained.set(one_line));
            return None;
        }
        let value = match value.into_inner() {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    self.complaints.push(&place, format!("`{path}` does not fit into 64 bits"));
                    return None;
                }
            },
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(truth) => Value::Boolean(truth),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(values) => {
                let nodes: Vec<_> = values.into_iter().map(|value| self.node(value, format!("{path}[]"))).collect();
                Value::Array(nodes.into_iter().collect::<Option<_>>()?)
            }
            DeValue::Table(tree) => Value::Table(Table {
                entries: self.entries(tree, &path),
                ..Table::new(place.clone(), path.clone(), self.document.clone())
            }),
        };
        Some(Node { place, path, value })
    }

    /// In the order they were written, which the library does not keep.
    fn entries(&mut self, tree: DeTable<'_>, path: &str) -> Vec<Entry> {
        let mut pairs: Vec<_> = tree.into_iter().collect();
        pairs.sort_by_key(|(key, _)| key.span().start);
        let entries = pairs.into_iter().map(|(key, value)| {
            let place = (self.place)(key.span().start);
            let node = self.node(value, join(path, key.get_ref()));
            Entry { key: Spanned { value: key.into_inner().into_owned(), place }, node }
        });
        entries.collect()
    }
}

/// Blanks the lines in which a key has no `=`: the library stops reading there. All offsets stay as they are.
fn without_unassigned(text: &str, errors: &[Error]) -> String {
    let unassigned = errors.iter().filter(|error| error.message().starts_with(UNASSIGNED));
    let faults: BTreeSet<usize> = unassigned.filter_map(|error| Some(error.span()?.start)).collect();
    let mut end = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        let start = end;
        end += line.len();
        if faults.range(start..end).next().is_some() { " ".repeat(line.len()) } else { line.to_owned() }
    });
    lines.collect()
}

/// What the library says, which is never a text from a value; a key it names is the name of a duplicate.
fn wording(error: &Error, text: &str) -> String {
    let message = error.message().trim_end_matches(", expected nothing");
    match error.span().and_then(|span| text.get(span)) {
        Some(key) if message == DUPLICATE => format!("{message} `{key}`"),
        _ => message.to_owned(),
    }
}

fn plain(text: &str) -> toml::Spanned<DeValue<'_>> {
    toml::Spanned::new(0..0, DeValue::String(text.into()))
}

/// A key is shown as it would be written, so that no newline in it can forge a line of a log.
fn join(path: &str, key: &str) -> String {
    let key = if is_bare(key) || key == "*" { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A bare key (TOML 1.1 §Keys).
fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Digits followed by a unit, as a multiple of what the units count.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A percentage with at most four digits behind the point.
fn parts_of_a_million(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || fraction.len() > 4 {
        return None;
    }
    let parts = whole.parse::<u32>().ok()?.checked_mul(10_000)? + format!("{fraction:0<4}").parse::<u32>().ok()?;
    (parts <= 1_000_000).then_some(parts)
}

/// How many letters to add, drop or change to get from one word to the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut left = at + 1;
        let mut diagonal = std::mem::replace(&mut row[0], left);
        for (above, wanted) in row.iter_mut().skip(1).zip(other.chars()) {
            left = (diagonal + usize::from(letter != wanted)).min(left + 1).min(*above + 1);
            diagonal = std::mem::replace(above, left);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// How the library's messages start. A document with one of the harmless ones lacks nothing but the second writing.
const UNASSIGNED: &str = "key with no value";
const DUPLICATE: &str = "duplicate key";
const HARMLESS: [&str; 2] = [DUPLICATE, "cannot extend value"];

/// Long enough for everyone, and short enough that adding it to a clock cannot overflow.
const CENTURY: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

const DURATION: &str = "a duration such as \"250ms\", \"300s\", \"5m\", \"2h\", \"7d\" or 300 (seconds), \
    above zero and at most \"36500d\"";
const BYTES: &str = "a size such as \"10kB\", \"64KiB\", \"2MB\", \"1MiB\" or 65536 (bytes)";

const PERCENTAGE: &str = "a share such as \"10%\" or \"0.5%\", from \"0%\" to \"100%\"";

/// In milliseconds.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// In bytes.
const SIZES: [(&str, u64); 6] =
    [("kB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

#[cfg(test)]
mod tests {
    use super::*;

    /// What is complained of when `read` has read the text and whatever it left is unknown.
    fn complaints(text: &str, read: impl FnOnce(&mut Table, &mut Complaints)) -> Vec<String> {
        let mut complaints = Complaints::default();
        let mut table = parse("a.toml", text, &mut complaints);
        read(&mut table, &mut complaints);
        table.finish(&mut complaints);
        complaints.into_vec().iter().map(Complaint::to_string).collect()
    }

    /// The document after some `--set`, none of which may be complained of.
    fn set(text: &str, assignments: &[&str]) -> Table {
        let mut complaints = Complaints::default();
        let mut table = parse("a.toml", text, &mut complaints);
        assignments.iter().for_each(|assignment| table.set("--set", assignment, &mut complaints));
        assert_eq!(complaints.into_vec(), []);
        table
    }

    #[test]
    fn all_complaints_come_at_once_in_the_order_of_the_file() {
        let text = "port = 70000\nhost = 127.0.0.1\n[limits]\nbdy = 1\n[[caller]]\nname = 3\n[[caller]]\n";
        let found = complaints(text, |table, c| {
            table.integer("port", 1..=65535, c);
            table.string("host", c);
            table.require("listen", "listen = \"127.0.0.1:8080\"", c);
            for mut caller in table.tables("caller", c) {
                caller.require("name", "name = \"wallet\"", c);
                caller.string("name", c);
                caller.finish(c);
            }
            let mut limits = table.section("limits", c);
            limits.bytes("body", c);
            limits.finish(c);
        });
        let expected = [
            "a.toml:1:1: `listen` is missing; add for example listen = \"127.0.0.1:8080\"",
            "a.toml:1:8: `port` must be an integer from 1 to 65535, found 70000",
            "a.toml:2:13: invalid float",
            "a.toml:4:1: unknown key `limits.bdy`; did you mean `body`?",
            "a.toml:6:8: `caller[].name` must be a string such as \"text\", found an integer",
            "a.toml:7:1: `caller[].name` is missing; add for example name = \"wallet\"",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_duplicate_key_is_named_where_it_is_written_again() {
        let found = complaints("a = 1\n  a = 2\n[t]\nb = 1\n[t]\n", |table, c| {
            table.integer("a", 1..=1, c);
            table.section("t", c).integer("b", 1..=1, c);
            table.require("z", "z = 1", c);
        });
        let expected = [
            "a.toml:1:1: `z` is missing; add for example z = 1",
            "a.toml:2:3: duplicate key `a`",
            "a.toml:5:2: duplicate key `t`",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn columns_count_characters_and_lines_end_with_crlf_or_lf() {
        let text = "\u{feff}\"ü€𝄞\" = \"ß\"; x\r\na = { \"ü€𝄞\" = \"ß\", b = 1 }\r\n\r\nc = 2\nd = 3";
        let found = complaints(text, |table, c| {
            table.string("ü€𝄞", c);
            table.section("a", c).string("b", c);
            table.string("c", c);
            table.string("d", c);
        });
        let places: Vec<&str> = found.iter().map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(places, ["a.toml:1:12", "a.toml:2:24", "a.toml:4:5", "a.toml:5:5"]);
    }

    #[test]
    fn an_unknown_key_is_told_the_nearest_known_one_or_all() {
        let text = "lisen = 1\nzzz = 1\nif = 1\n[[caller]]\nbasic = { usern = 1, usernme = 1 }\n\"a\\nb\" = 1\n";
        let found = complaints(text, |table, c| {
            table.string("listen", c);
            table.string("at", c);
            for mut caller in table.tables("caller", c) {
                let mut basic = caller.section("basic", c);
                basic.string("username", c);
                basic.finish(c);
                caller.finish(c);
            }
        });
        let expected = [
            "a.toml:1:1: unknown key `lisen`; did you mean `listen`?",
            "a.toml:2:1: unknown key `zzz`; known here: `listen`, `at`, `caller`",
            "a.toml:3:1: unknown key `if`; known here: `listen`, `at`, `caller`",
            "a.toml:5:11: unknown key `caller[].basic.usern`; known here: `username`",
            "a.toml:5:22: unknown key `caller[].basic.usernme`; did you mean `username`?",
            "a.toml:6:1: unknown key `caller[].\"a\\nb\"`; known here: `basic`",
        ];
        assert_eq!(found, expected);
        assert_eq!(complaints("a = 1", |_, _| {}), ["a.toml:1:1: unknown key `a`; no key is known here"]);
    }

    #[test]
    fn a_key_without_an_equals_sign_hides_nothing_that_follows() {
        let found = complaints("listen \"x\"\nport = 1\n[a\u{e9}]\n\nmode: x\n[t]\nb = 1", |table, c| {
            table.string("port", c);
            table.section("t", c).string("b", c);
        });
        let expected = [
            "a.toml:1:8: key with no value, expected `=`",
            "a.toml:2:8: `port` must be a string such as \"text\", found an integer",
            "a.toml:3:3: invalid unquoted key, expected letters, numbers, `-`, `_`",
            "a.toml:5:7: key with no value, expected `=`",
            "a.toml:7:5: `t.b` must be a string such as \"text\", found an integer",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn where_the_structure_is_broken_nothing_is_called_missing_or_unknown() {
        let texts =
            ["[a\nb = 1", "= 1\nb = 2", "[]\nb = 1", "b 1\nc = 2", "[a b]\nc = 1", " [[a]]]\nb = 1", "a = [\nb = 1"];
        for text in texts {
            let found = complaints(text, |table, c| table.require("listen", "listen = \"x\"", c)).join("\n");
            assert_ne!(found, "", "{text:?}");
            assert!(!found.contains("is missing"), "{text:?} {found}");
            assert!(!found.contains("unknown key"), "{text:?} {found}");
        }
    }

    #[test]
    fn a_value_with_a_fault_counts_as_written_and_reads_as_nothing() {
        for value in
            ["", "tru", "1 2", "\"x", "[1,", "[tru]", "{ b = tru }", "0123", "2020-13-01", "99999999999999999999"]
        {
            let found = complaints(&format!("a = {value}\n"), |table, c| {
                table.require("a", "a = true", c);
                assert!(table.boolean("a", c).is_none());
            });
            assert_ne!(found.len(), 0, "{value:?}");
            assert!(!found.join("").contains("is missing"), "{found:?}");
            assert!(!found.join("").contains("`a` must be"), "{found:?}");
        }
    }

    #[test]
    fn an_empty_document_lacks_only_what_is_required() {
        for text in ["", "\u{feff}", "\n", "# nothing"] {
            let found = complaints(text, |table, c| {
                assert!(table.string("a", c).is_none());
                assert!(table.tables("b", c).is_empty());
                table.section("c", c).require("d", "d = 1", c);
            });
            assert_eq!(found, ["a.toml:1:1: `c.d` is missing; add for example d = 1"], "{text:?}");
        }
    }

    #[test]
    fn set_is_laid_over_the_file_and_typed_as_toml_or_else_a_string() {
        let text = "mode = \"enforce\"\n[limits]\nbody = 1\nhead = 2\n[signature]\ntolerance = \"5m\"\n";
        let assignments = [
            "token.length=[14,64]",
            "limits.body=65536",
            "mode=shadow",
            "signature.tolerance=10s",
            "admin_token={ env = \"T\" }",
            "listen=[::1]:8080",
            "tls.on=true",
            "motto=a=b",
            "empty=",
        ];
        let (mut table, mut c) = (set(text, &assignments), Complaints::default());
        let length = table.section("token", &mut c).array("length", &mut c).unwrap();
        let length: Vec<_> = length.value.into_iter().map(|node| node.integer(0..=64, &mut c).unwrap().value).collect();
        assert_eq!(length, [14, 64]);
        let mut limits = table.table("limits", &mut c).unwrap();
        assert_eq!(limits.place().to_string(), "a.toml:2:1");
        let body = limits.bytes("body", &mut c).unwrap();
        assert_eq!((body.value, body.place.to_string().as_str()), (65536, "--set limits.body"));
        assert_eq!(limits.bytes("head", &mut c).unwrap().place.to_string(), "a.toml:4:8");
        assert_eq!(table.choice("mode", &[("enforce", 1), ("shadow", 2)], &mut c).unwrap().value, 2);
        let tolerance = table.section("signature", &mut c).duration("tolerance", &mut c).unwrap();
        assert_eq!(tolerance.value, Duration::from_secs(10));
        assert_eq!(table.section("admin_token", &mut c).string("env", &mut c).unwrap().value, "T");
        assert_eq!(table.string("listen", &mut c).unwrap().value, "[::1]:8080");
        assert!(table.section("tls", &mut c).boolean("on", &mut c).unwrap().value);
        assert_eq!(table.string("motto", &mut c).unwrap().value, "a=b");
        assert_eq!(table.string("empty", &mut c).unwrap().value, "");
        table.finish(&mut c);
        assert_eq!(c.into_vec(), []);
    }

    #[test]
    fn a_flag_with_its_own_key_always_gives_a_string() {
        let (mut table, mut c) = (set("listen = 1", &[]), Complaints::default());
        table.set_string("--listen", "listen", "8080", &mut c);
        let listen = table.string("listen", &mut c).unwrap();
        assert_eq!((listen.value.as_str(), listen.place.to_string().as_str()), ("8080", "--listen"));
    }

    #[test]
    fn set_complains_of_what_it_cannot_lay() {
        let found = complaints("a = 1\nb = [{ c = 1 }]\nd = tru\nlisen = 1\n", |table, c| {
            for assignment in ["hunter2", "=hunter2", "a..b=hunter2", "hunter 2=1", "a.b=hunter2", "b.c=hunter2"] {
                table.set("--set", assignment, c);
            }
            table.set("--set", "big=99999999999999999999", c);
            table.set("--set", "d.e=1", c);
            table.set("--set", "lisen=hunter2", c);
            table.node("a");
            table.node("b");
            table.string("listen", c);
            assert!(table.section("d", c).integer("e", 1..=1, c).is_some());
        });
        let malformed =
            "--set: KEY in KEY=VALUE must be words of A-Z a-z 0-9 - _ joined by dots, such as limits.body".to_owned();
        let expected = [
            "--set: must be KEY=VALUE such as limits.body=65536",
            &malformed,
            &malformed,
            &malformed,
            "--set a.b: `a` is an integer, not a table",
            "--set b.c: `b` is an array, not a table",
            "--set big: `big` does not fit into 64 bits",
            "--set lisen: unknown key `lisen`; did you mean `listen`?",
            "a.toml:3:5: invalid boolean, expected `true`",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn percentages_are_parts_of_a_million() {
        for (text, parts) in [("100%", 1_000_000), ("0%", 0), ("10%", 100_000), ("0.5%", 5_000), ("33.3333%", 333_333)]
        {
            assert_eq!(parts_of_a_million(text), Some(parts), "{text}");
        }
        for text in ["", "%", "10", "100.0001%", "101%", ".5%", "5.%", "-1%", "+1%", "1 %", "0.00001%", "99999999999%"]
        {
            assert_eq!(parts_of_a_million(text), None, "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit_or_count_seconds() {
        let read = |text: &str| {
            let (mut table, mut c) = (set(&format!("a = {text}"), &[]), Complaints::default());
            let duration = table.duration("a", &mut c).map(|duration| duration.value.as_millis());
            assert_eq!(c.len(), usize::from(duration.is_none()), "{text}");
            duration
        };
        let good = [
            ("1", 1000),
            ("\"1ms\"", 1),
            ("\"300s\"", 300_000),
            ("\"5m\"", 300_000),
            ("\"2h\"", 7_200_000),
            ("\"7d\"", 604_800_000),
            ("\"36500d\"", 3_153_600_000_000),
            ("3153600000", 3_153_600_000_000),
        ];
        for (text, milliseconds) in good {
            assert_eq!(read(text), Some(milliseconds), "{text}");
        }
        let strings =
            ["", "0s", "0", "5", "s", "-5s", "+5s", "1.5s", "5 s", "5S", "5sec", "36501d", "99999999999999999999s"];
        let overflow = ["18446744073709551615d".to_owned(), "٣s".to_owned()];
        let strings = strings.iter().map(|text| (*text).to_owned()).chain(overflow).map(|text| format!("\"{text}\""));
        let others = ["0", "-1", "3153600001", "9223372036854775807", "1.5", "true", "[1]", "2026-01-01"];
        for text in strings.chain(others.iter().map(|text| (*text).to_owned())) {
            assert_eq!(read(&text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_a_unit_or_count_bytes() {
        let read = |text: &str| {
            let (mut table, mut c) = (set(&format!("a = {text}"), &[]), Complaints::default());
            let bytes = table.bytes("a", &mut c).map(|bytes| bytes.value);
            assert_eq!(c.len(), usize::from(bytes.is_none()), "{text}");
            bytes
        };
        let good = [
            ("0", 0),
            ("65536", 65536),
            ("\"64KiB\"", 65536),
            ("\"1MiB\"", 1 << 20),
            ("\"2GiB\"", 1 << 31),
            ("\"10kB\"", 10_000),
            ("\"2MB\"", 2_000_000),
            ("\"3GB\"", 3_000_000_000),
            ("\"17179869183GiB\"", 18_446_744_072_635_809_792),
        ];
        for (text, bytes) in good {
            assert_eq!(read(text), Some(bytes), "{text}");
        }
        for text in ["-1", "1.0", "\"\"", "\"64\"", "\"KiB\"", "\"1KB\"", "\"1kb\"", "\"-1kB\"", "\"17179869184GiB\""] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn strings_are_one_or_many_and_each_wrong_one_is_told() {
        let found = complaints("a = \"x\"\nb = [\"x\", \"y\"]\nc = [1, \"x\", true]\nd = 1", |table, c| {
            assert_eq!(table.strings("a", c).unwrap().len(), 1);
            assert_eq!(table.strings("b", c).unwrap()[1].value, "y");
            assert!(table.strings("c", c).is_none());
            assert!(table.strings("d", c).is_none());
        });
        let expected = [
            "a.toml:3:6: `c[]` must be a string such as \"text\", found an integer",
            "a.toml:3:14: `c[]` must be a string such as \"text\", found a boolean",
            "a.toml:4:5: `d` must be a string or an array of strings such as [\"one\", \"two\"], found an integer",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_table_in_place_of_an_array_of_tables_is_told_how_to_write_it() {
        let found = complaints("[[a]]\n[a.b]\n[[a]]\nc = [{}, 1]\nd = []", |table, c| {
            let mut read = 0;
            for mut a in table.tables("a", c) {
                read += a.tables("b", c).len() + a.tables("c", c).len();
                a.table("d", c);
            }
            assert_eq!(read, 1);
        });
        let expected = [
            "a.toml:2:1: `a[].b` must be an array of tables, each under [[a.b]] or in { }, found a table",
            "a.toml:4:10: `a[].c[]` must be a table, under [[a.c]] or in { }, found an integer",
            "a.toml:5:5: `a[].d` must be a table, under [a.d] or in { }, found an array",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_section_that_is_no_table_is_told_once() {
        let found = complaints("a = 1", |table, c| table.section("a", c).require("b", "b = 1", c));
        assert_eq!(found, ["a.toml:1:5: `a` must be a table, under [a] or in { }, found an integer"]);
    }

    #[test]
    fn free_keys_come_in_the_order_they_were_written() {
        let (mut table, mut c) = (set("[t]\nz = 1\nb = 2\n\"/a.b\" = 3\n", &["t.c=4"]), Complaints::default());
        let mut free = table.table("t", &mut c).unwrap();
        free.node("b");
        let rest: Vec<_> = free.rest().into_iter().map(|(key, node)| (key.place.to_string(), node.path)).collect();
        let expected = [("a.toml:2:1", "t.z"), ("a.toml:4:1", "t.\"/a.b\""), ("--set t.c", "t.c")];
        assert_eq!(rest, expected.map(|(place, path)| (place.to_owned(), path.to_owned())));
    }

    #[test]
    fn asked_and_written_keys_have_the_same_form() {
        let text = "a = 1\n[[caller]]\nname = \"x\"\nsigning = [{ id = 1 }]\n[t.headers]\nx = 1\n";
        let (mut table, mut c) = (set(text, &[]), Complaints::default());
        let written = ["a", "caller", "caller[].name", "caller[].signing", "caller[].signing[].id"];
        let written = written.iter().chain(&["t", "t.headers", "t.headers.x"]).map(|key| (*key).to_owned());
        assert_eq!(table.written(), written.collect());
        for mut caller in table.tables("caller", &mut c) {
            caller.string("name", &mut c);
            caller.tables("signing", &mut c).iter_mut().for_each(|key| drop(key.node("id")));
        }
        table.section("t", &mut c).section("headers", &mut c).rest();
        let asked = ["caller", "caller[].name", "caller[].signing", "caller[].signing[].id", "t", "t.headers"];
        let asked = asked.iter().chain(&["t.headers.*"]).map(|key| (*key).to_owned());
        assert_eq!(table.asked().into_keys().collect::<BTreeSet<_>>(), asked.collect());
    }

    #[test]
    fn no_complaint_and_no_debug_shows_a_string() {
        let readings: [fn(Node, &mut Complaints); 6] = [
            |node, c| drop(node.boolean(c)),
            |node, c| drop(node.integer(0..=9, c)),
            |node, c| drop(node.choice(&[("a", 1)], c)),
            |node, c| drop(node.table(c)),
            |node, c| drop(node.tables(c)),
            |node, c| drop(node.array(c)),
        ];
        for reading in readings {
            let found = complaints("a = \"hunter2\"", |table, c| reading(table.node("a").unwrap(), c));
            assert_eq!((found.len(), found.join("").contains("hunter2")), (1, false), "{found:?}");
        }
        let bad = [
            "hunter2",
            "\"hunter2",
            "'hunter2",
            "\"hunter2\\q\"",
            "\"\"\"hunter2",
            "[hunter2",
            "0hunter2",
            "\"hunter2\" x",
        ];
        for value in bad {
            let found = complaints(&format!("a = {value}"), |_, _| {});
            assert_ne!(found.len(), 0, "{value}");
            assert!(!found.join("").contains("hunter2"), "{found:?}");
        }
        let mut table = set("a = \"hunter2\"", &[]);
        let shown = format!("{:?}", table.string("a", &mut Complaints::default()));
        assert_eq!(shown, "Some(Spanned(a.toml:1:5))");
    }
}
