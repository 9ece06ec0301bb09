//! The message template: which bytes of a request are signed, as in `{timestamp}{body|compact}`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::dialect::source::{Reading, Source, View};
use crate::json::{Pointers, compact};

/// A parsed message template.
#[derive(Clone, Debug)]
pub struct Message {
    pub(super) parts: Vec<Part>,
}

/// What the template needs besides the request itself.
#[derive(Clone, Copy)]
pub struct Stamps<'a> {
    /// The timestamp as sent; empty when the scheme has none.
    pub timestamp: &'a [u8],
    /// The nonce as sent; empty when the scheme has none.
    pub nonce: &'a [u8],
    /// The public URL callers were given, without the target; empty when not configured.
    pub public_url: &'a str,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    Value(Piece, Vec<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Body,
    Timestamp,
    Nonce,
    Method,
    Path,
    Query,
    Url,
    Source(Source),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Filter {
    Compact,
    Sha256,
    Hex,
    Base64,
    Lower,
    Upper,
}

impl Message {
    /// Reads a template. Text outside of braces stands for itself. The error names the piece or filter it does not know.
    pub fn parse(text: &str, wanted: &mut Pointers) -> Result<Message, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Literal(rest.as_bytes()[..open].into()));
            }
            let inside = &rest[open + 1..];
            let close = inside.find('}').ok_or_else(|| format!("`{text}` has a `{{` without its `}}`"))?;
            let mut words = inside[..close].split('|');
            let piece = Piece::parse(words.next().unwrap_or_default(), wanted)?;
            let filters = words.map(Filter::parse).collect::<Result<Vec<_>, _>>()?;
            parts.push(Part::Value(piece, filters));
            rest = &inside[close + 1..];
        }
        if rest.contains('}') {
            return Err(format!("`{text}` has a `}}` without its `{{`"));
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.as_bytes().into()));
        }
        if !parts.iter().any(|part| matches!(part, Part::Value(..))) {
            return Err(format!(
                "`{text}` has nothing of the request in it, such as {{body}}: one signature would fit all"
            ));
        }
        Ok(Message { parts })
    }

    /// Gives the message to `sink`, slice by slice: a body is neither copied nor joined.
    ///
    /// False when a header, parameter or member that the message needs is there more than once or is not text.
    /// One that is missing counts as empty, since schemes that name optional members sign them so.
    #[must_use]
    pub fn feed(&self, view: &View<'_>, stamps: &Stamps<'_>, mut sink: impl FnMut(&[u8])) -> bool {
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => sink(bytes),
                Part::Value(Piece::Body, filters) if filters.is_empty() => sink(&view.request.body),
                Part::Value(Piece::Body, filters) if filters[..] == [Filter::Compact] => {
                    gather(compact(&view.request.body), &mut sink);
                }
                Part::Value(piece, filters) => {
                    let Some(value) = piece.value(view, stamps) else { return false };
                    let filtered = filters.iter().fold(value, |value, filter| Cow::Owned(filter.apply(&value)));
                    sink(&filtered);
                }
            }
        }
        true
    }

    /// True when the body is part of the message.
    pub fn reads_body(&self) -> bool {
        self.pieces().any(|piece| *piece == Piece::Body)
    }

    /// True when the body stands in the message in a spelling that hides what is in it from the eye, and from nobody else.
    pub fn respells_body(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Value(Piece::Body, filters) => {
                !filters.contains(&Filter::Sha256)
                    && filters.iter().any(|filter| matches!(filter, Filter::Hex | Filter::Base64))
            }
            Part::Value(..) | Part::Literal(_) => false,
        })
    }

    /// True when the body goes into the message without its white space: then it must be read as JSON first, or else
    /// `1 0` would be signed as `10`.
    pub fn compacts(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(_, filters) if filters.contains(&Filter::Compact)))
    }

    /// True when the query is part of the message.
    pub fn covers_query(&self) -> bool {
        self.pieces().any(|piece| matches!(piece, Piece::Query | Piece::Url))
    }

    /// True when a member of the JSON body is part of the message.
    pub fn reads_json(&self) -> bool {
        self.pieces().any(|piece| matches!(piece, Piece::Source(source) if source.is_json()))
    }

    /// True when the message needs a timestamp.
    pub fn has_timestamp(&self) -> bool {
        self.pieces().any(|piece| *piece == Piece::Timestamp)
    }

    /// True when the message needs a nonce.
    pub fn has_nonce(&self) -> bool {
        self.pieces().any(|piece| *piece == Piece::Nonce)
    }

    /// True when the message needs the public URL.
    pub fn has_url(&self) -> bool {
        self.pieces().any(|piece| *piece == Piece::Url)
    }

    /// The header fields that are part of the message.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.pieces().filter_map(|piece| match piece {
            Piece::Source(source) => source.header(),
            _ => None,
        })
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value(piece, _) => Some(piece),
            Part::Literal(_) => None,
        })
    }
}

/// Gives what comes in many small slices in fewer, larger ones: each has its price for whoever computes a hash.
fn gather<'b>(slices: impl Iterator<Item = &'b [u8]>, mut sink: impl FnMut(&[u8])) {
    let mut gathered = [0; ROOM];
    let mut length = 0;
    for slice in slices {
        if slice.len() > ROOM - length {
            sink(gathered.get(..length).unwrap_or_default());
            length = 0;
        }
        match gathered.get_mut(length..length + slice.len()) {
            Some(room) => {
                room.copy_from_slice(slice);
                length += slice.len();
            }
            None => sink(slice),
        }
    }
    sink(gathered.get(..length).unwrap_or_default());
}

/// Bytes that are gathered: a few blocks of a hash.
const ROOM: usize = 256;

impl Piece {
    fn parse(word: &str, wanted: &mut Pointers) -> Result<Piece, String> {
        Ok(match word {
            "body" => Piece::Body,
            "timestamp" => Piece::Timestamp,
            "nonce" => Piece::Nonce,
            "method" => Piece::Method,
            "path" => Piece::Path,
            "query" => Piece::Query,
            "url" => Piece::Url,
            place if place.contains(':') => Piece::Source(Source::parse(place, wanted)?),
            other => {
                return Err(format!(
                    "`{{{other}}}` is unknown; a message is made of {{body}} {{timestamp}} {{nonce}} {{method}} {{path}} \
                     {{query}} {{url}} {{header:NAME}} {{query:NAME}} {{json:/pointer}} and text"
                ));
            }
        })
    }

    fn value<'v>(&self, view: &'v View<'_>, stamps: &Stamps<'v>) -> Option<Cow<'v, [u8]>> {
        let head = &view.request.head;
        Some(match self {
            Piece::Body => Cow::Borrowed(&view.request.body),
            Piece::Timestamp => Cow::Borrowed(stamps.timestamp),
            Piece::Nonce => Cow::Borrowed(stamps.nonce),
            Piece::Method => Cow::Borrowed(head.method.as_str().as_bytes()),
            Piece::Path => Cow::Borrowed(head.target.path().as_bytes()),
            Piece::Query => Cow::Borrowed(head.target.query().as_bytes()),
            Piece::Url => Cow::Owned([stamps.public_url.as_bytes(), head.target.as_str().as_bytes()].concat()),
            Piece::Source(source) => match source.read(view) {
                Reading::One(value) => value,
                Reading::None => Cow::Borrowed(&[]),
                Reading::Many | Reading::NotText => return None,
            },
        })
    }
}

impl Filter {
    fn parse(word: &str) -> Result<Filter, String> {
        Ok(match word {
            "compact" => Filter::Compact,
            "sha256" => Filter::Sha256,
            "hex" => Filter::Hex,
            "base64" => Filter::Base64,
            "lower" => Filter::Lower,
            "upper" => Filter::Upper,
            other => {
                return Err(format!(
                    "filter `|{other}` is unknown; there are compact, sha256, hex, base64, lower, upper"
                ));
            }
        })
    }

    fn apply(self, value: &[u8]) -> Vec<u8> {
        match self {
            Filter::Compact => compact(value).flatten().copied().collect(),
            Filter::Sha256 => Sha256::digest(value).to_vec(),
            Filter::Hex => crate::hex::encode(value).into_bytes(),
            Filter::Base64 => STANDARD.encode(value).into_bytes(),
            Filter::Lower => value.to_ascii_lowercase(),
            Filter::Upper => value.to_ascii_uppercase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_comes_whole_and_in_order_whatever_its_slices() {
        let bytes: Vec<u8> = (0..3000_u32).map(|at| at as u8).collect();
        for sizes in [&[1][..], &[7, 255], &[ROOM], &[ROOM + 1, 3], &[2, 700, 1], &[3000]] {
            let mut rest = &bytes[..];
            let slices = sizes.iter().cycle().map_while(|size| {
                let (slice, behind) = rest.split_at(rest.len().min(*size));
                rest = behind;
                (!slice.is_empty()).then_some(slice)
            });
            let mut gathered = Vec::new();
            gather(slices, |slice| gathered.extend_from_slice(slice));
            assert_eq!(gathered, bytes, "{sizes:?}");
        }
    }
}
