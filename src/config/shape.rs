//! What a key may hold, as the code that reads it says: so nobody has to write it down a second time for editors and
//! for people.

use std::ops::RangeInclusive;

/// A key that the code asked for, and what it said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// What it may hold; `None` where the code takes it as it is and has not said.
    pub shape: Option<Shape>,
    /// It must be there.
    pub needed: bool,
    /// What counts without it, as TOML.
    pub usual: Option<String>,
}

/// What a value may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Any string.
    Text,
    /// A string of a certain form.
    Form(Form),
    /// One of these words.
    Word(Vec<String>),
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer(RangeInclusive<i64>),
    /// A time with a unit, or seconds.
    Duration {
        /// The integer 0 is one as well.
        zero: bool,
    },
    /// A number of bytes, with or without a unit.
    Bytes(RangeInclusive<u64>),
    /// From none to all.
    Percentage,
    /// Two whole numbers, the first not above the second.
    Pair(RangeInclusive<i64>),
    /// Where a secret is: a variable or a file.
    Secret,
    /// A table with keys of its own.
    Table,
    /// An array of it.
    Many(Box<Shape>),
    /// It, or an array of it.
    OneOrMany(Box<Shape>),
    /// One of several.
    Either(Vec<Shape>),
}

/// What a string must look like, as far as a pattern can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `127.0.0.1:8080`
    Address,
    /// `/pam`
    BasePath,
    /// `https://pam.example`
    PublicUrl,
    /// `redis://redis:6379`
    Store,
    /// `header:X-Token`
    Place,
    /// `header:X-Token`, or `signature`
    PlaceOrSignature,
    /// `/data/token`
    Pointer,
    /// `POST /players/{id}`
    Route,
}

impl Shape {
    /// One of the words that a choice is made by.
    pub fn word<T>(words: &[(&str, T)]) -> Shape {
        Shape::Word(words.iter().map(|(word, _)| (*word).to_owned()).collect())
    }

    /// An array of tables.
    pub fn tables() -> Shape {
        Shape::Many(Box::new(Shape::Table))
    }

    /// It, or an array of it.
    pub fn or_many(self) -> Shape {
        Shape::OneOrMany(Box::new(self))
    }
}
