//! One pass over a document by the grammar of RFC 8259.
//!
//! Most strings have no escape and most numbers no exponent: those are read where they stand. What is left, `serde_json`
//! decodes and the standard library judges.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::compact::{is_whitespace, string_length};
use super::pointers::Node;
use super::{JsonFault, Pointers, Value};
use crate::swar::{is, is_below_blank, length_until};

/// What is read, and what has been found in it so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    /// The next byte.
    at: usize,
    /// How many arrays and objects are open.
    depth: usize,
    /// The keys of all objects that are open, innermost last: one allocation serves the whole document.
    open_keys: Vec<Cow<'a, str>>,
    /// By slot.
    pub values: Vec<Option<Value<'a>>>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, wanted: &Pointers) -> Reader<'a> {
        let values = vec![None; wanted.len()];
        Reader { text, at: 0, depth: 0, open_keys: Vec::with_capacity(FEW_KEYS), values }
    }

    /// The whole of it: one value, and white space around it.
    pub fn document(&mut self, root: &Node) -> Result<(), JsonFault> {
        self.skip_blanks();
        self.value(Some(root))?;
        self.skip_blanks();
        if self.at == self.text.len() { Ok(()) } else { Err(JsonFault::TrailingBytes) }
    }

    fn value(&mut self, node: Option<&Node>) -> Result<(), JsonFault> {
        match self.next() {
            Some(b'"') => {
                let text = self.string()?;
                self.keep(node, || Value::String(text));
            }
            Some(b'-' | b'0'..=b'9') => {
                let literal = self.number()?;
                self.keep(node, || Value::Number(literal));
            }
            Some(b'{') => self.object(node)?,
            Some(b'[') => self.array(node)?,
            Some(b't') => self.word("true", node, Value::Bool(true))?,
            Some(b'f') => self.word("false", node, Value::Bool(false))?,
            Some(b'n') => self.word("null", node, Value::Null)?,
            Some(_) | None => return Err(JsonFault::Syntax),
        }
        Ok(())
    }

    fn object(&mut self, node: Option<&Node>) -> Result<(), JsonFault> {
        self.open()?;
        self.keep(node, || Value::Object);
        let outer_keys = self.open_keys.len();
        let mut more = !self.closes(b'}');
        while more {
            let key = self.key()?;
            let member = branch(node, &key)?;
            self.open_keys.push(key);
            self.skip_blanks();
            self.demand(b':')?;
            self.skip_blanks();
            self.value(member)?;
            more = self.goes_on(b'}')?;
        }
        if any_twice(self.open_keys.get_mut(outer_keys..).unwrap_or_default()) {
            return Err(JsonFault::DuplicateKey);
        }
        self.open_keys.truncate(outer_keys);
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self, node: Option<&Node>) -> Result<(), JsonFault> {
        self.open()?;
        self.keep(node, || Value::Array);
        let mut more = !self.closes(b']');
        let mut index = 0;
        while more {
            self.value(node.and_then(|node| node.element(index)))?;
            more = self.goes_on(b']')?;
            index += 1;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Steps into an array or object, behind its bracket.
    fn open(&mut self) -> Result<(), JsonFault> {
        if self.depth == MAX_DEPTH {
            return Err(JsonFault::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        self.skip_blanks();
        Ok(())
    }

    /// Behind a member or element: whether there is another one.
    fn goes_on(&mut self, bracket: u8) -> Result<bool, JsonFault> {
        self.skip_blanks();
        if self.closes(bracket) {
            return Ok(false);
        }
        self.demand(b',')?;
        self.skip_blanks();
        Ok(true)
    }

    fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.next() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    fn demand(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.next() != Some(byte) {
            return Err(JsonFault::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    /// A string, decoded.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonFault> {
        self.string_until(plain_length)
    }

    /// The same without control characters, of which a string may have DEL, and others by their escapes.
    fn key(&mut self) -> Result<Cow<'a, str>, JsonFault> {
        let key = self.string_until(|rest| length_until(rest, |word| stops(word) | is(word, DEL)));
        match key {
            Err(JsonFault::Syntax) if self.next() == Some(DEL) => Err(JsonFault::KeyControlCharacter),
            Ok(Cow::Owned(key)) if key.bytes().any(|byte| byte < b' ' || byte == DEL) => {
                Err(JsonFault::KeyControlCharacter)
            }
            key => key,
        }
    }

    #[inline(always)]
    fn string_until(&mut self, length: impl Fn(&[u8]) -> usize) -> Result<Cow<'a, str>, JsonFault> {
        let quote = self.at;
        self.demand(b'"')?;
        let length = length(self.rest());
        let text = self.text.get(self.at..self.at + length).ok_or(JsonFault::Syntax)?;
        self.at += length;
        match self.next() {
            Some(b'"') => {
                self.at += 1;
                Ok(Cow::Borrowed(text))
            }
            Some(b'\\') => {
                self.at += string_length(self.rest());
                let literal = self.text.get(quote..self.at).ok_or(JsonFault::Syntax)?;
                serde_json::from_str(literal).map(Cow::Owned).map_err(|_| fault_of(literal))
            }
            Some(_) | None => Err(JsonFault::Syntax),
        }
    }

    /// A number, as it is written.
    fn number(&mut self) -> Result<&'a str, JsonFault> {
        let from = self.at;
        self.at += usize::from(self.next() == Some(b'-'));
        let zero = self.next() == Some(b'0');
        if self.digits()? > 1 && zero {
            return Err(JsonFault::Syntax);
        }
        if self.next() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let mut exponent = false;
        if let Some(b'e' | b'E') = self.next() {
            exponent = true;
            self.at += 1;
            self.at += usize::from(matches!(self.next(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let literal = self.text.get(from..self.at).ok_or(JsonFault::Syntax)?;
        if (exponent || literal.len() > SURELY_FINITE) && !literal.parse().is_ok_and(f64::is_finite) {
            return Err(JsonFault::Unrepresentable);
        }
        Ok(literal)
    }

    /// How many digits there are; at least one.
    fn digits(&mut self) -> Result<usize, JsonFault> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { Err(JsonFault::Syntax) } else { Ok(digits) }
    }

    fn word(&mut self, word: &str, node: Option<&Node>, value: Value<'a>) -> Result<(), JsonFault> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(JsonFault::Syntax);
        }
        self.at += word.len();
        self.keep(node, || value);
        Ok(())
    }

    fn keep(&mut self, node: Option<&Node>, value: impl FnOnce() -> Value<'a>) {
        if let Some(kept) = node.and_then(|node| self.values.get_mut(node.slot?)) {
            *kept = Some(value());
        }
    }

    fn skip_blanks(&mut self) {
        while self.next().is_some_and(is_whitespace) {
            self.at += 1;
        }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }
}

/// Finds what is wanted behind a key of an object.
fn branch<'t>(node: Option<&'t Node>, key: &str) -> Result<Option<&'t Node>, JsonFault> {
    let Some(node) = node else { return Ok(None) };
    match node.member(key) {
        None if node.has_twin_of(key) => Err(JsonFault::TwinKey),
        member => Ok(member),
    }
}

/// Whether any key is there twice. Sorts many keys rather than hashing them: no collision can be provoked, and no
/// randomness is needed.
fn any_twice(keys: &mut [Cow<'_, str>]) -> bool {
    if keys.len() <= FEW_KEYS {
        let mut numbered = keys.iter().enumerate();
        return numbered.any(|(before, key)| keys.iter().take(before).any(|other| other == key));
    }
    keys.sort_unstable();
    keys.windows(2).any(|pair| matches!(pair, [one, next] if one == next))
}

/// What is wrong with a string that could not be decoded. The library holds what it ignores to the grammar alone.
fn fault_of(literal: &str) -> JsonFault {
    match serde_json::from_str::<IgnoredAny>(literal) {
        Ok(_) => JsonFault::Unrepresentable,
        Err(_) => JsonFault::Syntax,
    }
}

/// How many bytes there are in front of a quote, a backslash or a control byte, of which a string must have none.
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    length_until(bytes, stops)
}

/// Marks a quote, a backslash and a control byte.
fn stops(word: u64) -> u64 {
    is(word, b'"') | is(word, b'\\') | is_below_blank(word)
}

const DEL: u8 = 0x7f;

/// No API in this field nests deeper than a handful; reading recurses, so this bounds the stack.
const MAX_DEPTH: usize = 64;

/// Up to here comparing each key with each other is faster than sorting; bodies in this field have 6 to 20 keys.
pub(super) const FEW_KEYS: usize = 16;

/// A number of so many bytes is within a 64-bit float, which goes beyond 10^308, if it has no exponent.
const SURELY_FINITE: usize = 300;
