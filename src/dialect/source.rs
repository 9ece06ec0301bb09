//! Where a value stands in a request: `header:NAME`, `query:NAME` or `json:/pointer`.

use std::borrow::Cow;
use std::fmt;

use crate::fields::{Only, is_token};
use crate::json::{Found, Pointer, Pointers, Value};
use crate::request::Request;

/// A place in a request that holds one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A header field, by its name in any case; kept as written.
    Header(Box<str>),
    /// A query parameter, by its decoded name.
    Query(Box<str>),
    /// A member of the JSON body, by its RFC 6901 pointer, which is wanted under `slot`.
    Json {
        /// As written in the dialect.
        pointer: Pointer,
        /// Its slot among what the dialect wants out of a body.
        slot: usize,
    },
}

/// What a request says at a place.
pub enum Reading<'a> {
    /// Nothing there.
    None,
    /// Exactly one value: a header field as sent, a decoded parameter, a decoded string or a number as written.
    One(Cow<'a, [u8]>),
    /// Several values.
    Many,
    /// A value that is not text: a JSON object, array, boolean or null, a parameter that is not UTF-8.
    NotText,
}

/// A request as the checks read it: the bytes, and what the strict reading of its body found.
pub struct View<'a> {
    /// The request.
    pub request: &'a Request,
    /// What was found at the pointers the dialect wants; `None` until the body has been read as JSON.
    pub found: Option<Found<'a>>,
}

impl Source {
    /// Reads the notation; a JSON pointer is added to `wanted`. The error says what is expected.
    pub fn parse(text: &str, wanted: &mut Pointers) -> Result<Source, String> {
        let expected =
            || format!("`{text}` is not a place in a request; write header:NAME, query:NAME or json:/pointer");
        let (kind, name) = text.split_once(':').ok_or_else(expected)?;
        match kind {
            "header" if is_token(name.as_bytes()) => Ok(Source::Header(name.into())),
            "query" if !name.is_empty() => Ok(Source::Query(name.into())),
            "json" => {
                let pointer =
                    Pointer::parse(name).map_err(|fault| format!("`{name}` is not a JSON pointer: {fault}"))?;
                let slot = wanted.want(&pointer);
                Ok(Source::Json { pointer, slot })
            }
            _ => Err(expected()),
        }
    }

    /// What the request says there.
    pub fn read<'v>(&self, view: &'v View<'_>) -> Reading<'v> {
        match self {
            Source::Header(name) => match view.request.head.fields.only(name) {
                Only::None => Reading::None,
                Only::One(value) => Reading::One(Cow::Borrowed(value)),
                Only::Many => Reading::Many,
            },
            Source::Query(name) => {
                let mut values = view.request.head.target.parameters(name);
                match (values.next(), values.next()) {
                    (None, _) => Reading::None,
                    (Some(Some(value)), None) => Reading::One(Cow::Owned(value.into_bytes())),
                    (Some(None), None) => Reading::NotText,
                    (Some(_), Some(_)) => Reading::Many,
                }
            }
            Source::Json { slot, .. } => match view.found.as_ref().and_then(|found| found.at(*slot)) {
                None => Reading::None,
                Some(Value::String(text)) => Reading::One(Cow::Borrowed(text.as_bytes())),
                Some(Value::Number(literal)) => Reading::One(Cow::Borrowed(literal.as_bytes())),
                Some(Value::Null | Value::Bool(_) | Value::Array | Value::Object) => Reading::NotText,
            },
        }
    }

    /// True for a place in the body.
    pub fn is_json(&self) -> bool {
        matches!(self, Source::Json { .. })
    }

    /// The header name, for a place in the head.
    pub fn header(&self) -> Option<&str> {
        match self {
            Source::Header(name) => Some(name),
            Source::Query(_) | Source::Json { .. } => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Header(name) => write!(f, "header:{name}"),
            Source::Query(name) => write!(f, "query:{name}"),
            Source::Json { pointer, .. } => write!(f, "json:{pointer}"),
        }
    }
}
