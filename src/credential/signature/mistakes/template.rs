//! Which parts of the request were signed, and in what form.

use super::super::message::{Filter, Message, Part, Piece};
use super::Mistake;
use crate::dialect::source::View;
use crate::fields::Only;

/// What stands in the place of a piece with its filters; `None` leaves it as it is.
type Change<'c> = dyn Fn(&Piece, &[Filter]) -> Option<Vec<Part>> + 'c;

/// Other messages that may have been signed instead of the one that this family signs.
pub(super) fn others(message: &Message, view: &View<'_>) -> Vec<(Message, Mistake)> {
    let mut all = Vec::new();
    let mut push = |other: Option<Message>, what: &str, advice: &str| {
        all.extend(other.map(|other| (other, Mistake::new(what, advice))));
    };
    const WHOLE: &str = "sign the whole message as it is shown above";
    let each = |change: &Change<'_>| message.each(change);

    push(
        each(&|piece, filters| {
            let kept: Vec<_> = filters.iter().copied().filter(|filter| *filter != Filter::Compact).collect();
            (kept.len() < filters.len()).then(|| vec![Part::Value(piece.clone(), kept)])
        }),
        "the caller signed the body with its white space",
        "take the white space outside of strings out of what is signed; it may be sent",
    );
    push(
        each(&|piece, _| (*piece == Piece::Timestamp).then(Vec::new)),
        "the caller signed the message without the timestamp",
        WHOLE,
    );
    push(message.stamp_behind(), "the caller signed the timestamp behind the rest, not in front of it", WHOLE);
    for (separator, word) in [(".", "a dot"), (":", "a colon"), ("\n", "a line feed"), ("|", "a bar"), (" ", "a blank")]
    {
        push(
            each(&|piece, filters| {
                let literal = Part::Literal(separator.as_bytes().into());
                (*piece == Piece::Timestamp).then(|| vec![Part::Value(piece.clone(), filters.to_vec()), literal])
            }),
            &format!("the caller signed {word} behind the timestamp"),
            WHOLE,
        );
    }
    push(message.without_literals(), "the caller signed the message without what stands between its parts", WHOLE);
    push(message.only(&Piece::Body, message.parts.len() > 1), "the caller signed the body alone", WHOLE);
    push(
        each(&|piece, filters| {
            let lower = [filters, &[Filter::Lower]].concat();
            (*piece == Piece::Method).then(|| vec![Part::Value(Piece::Method, lower)])
        }),
        "the caller signed the method in lower case",
        "sign it in upper case, as it stands in the request line",
    );
    for (end, word) in [("\n", "a line feed"), ("\r\n", "CR LF")] {
        let what = format!("the caller signed {word} behind the message");
        push(Some(message.followed_by(end)), &what, "sign the message and nothing behind it");
    }
    hashes(message, &mut push);
    places(message, view, &mut push);
    all
}

/// A body that is hashed before, or is not, or is spelled otherwise.
fn hashes(message: &Message, push: &mut impl FnMut(Option<Message>, &str, &str)) {
    const WHOLE: &str = "sign the whole message as it is shown above";
    let body = |own: &[Filter], other: &[Filter]| {
        message.each(&|piece, filters| {
            (*piece == Piece::Body && filters == own).then(|| vec![Part::Value(Piece::Body, other.to_vec())])
        })
    };
    let hex = [Filter::Sha256, Filter::Hex];
    push(body(&[], &hex), "the caller signed the hexadecimal SHA-256 of the body instead of the body", WHOLE);
    push(
        body(&[], &[Filter::Sha256, Filter::Base64]),
        "the caller signed the base64 SHA-256 of the body instead of the body",
        WHOLE,
    );
    push(body(&[], &[Filter::Base64]), "the caller signed the base64 of the body instead of the body", WHOLE);
    push(body(&hex, &[]), "the caller signed the body instead of its SHA-256", WHOLE);
    push(
        body(&hex, &[Filter::Sha256, Filter::Hex, Filter::Upper]),
        "the caller signed the body's SHA-256 in upper case",
        "write it in lower case",
    );
    push(
        body(&hex, &[Filter::Sha256, Filter::Base64]),
        "the caller signed the base64 of the body's SHA-256",
        "write it in hexadecimal",
    );
    push(body(&hex, &[Filter::Sha256]), "the caller signed the 32 bytes of the body's SHA-256", WHOLE);
}

/// Path, query and URL, taken for each other, decoded, or cut.
fn places(message: &Message, view: &View<'_>, push: &mut impl FnMut(Option<Message>, &str, &str)) {
    let target = &view.request.head.target;
    let (path, query) = (target.path(), target.query());
    let in_place_of = |place: &Piece, text: &[u8]| {
        message.each(&|piece, filters| (piece == place && filters.is_empty()).then(|| vec![Part::Literal(text.into())]))
    };
    const AS_SENT: &str = "sign it as it stands in the request line";
    if let Some(decoded) = decoded(path) {
        push(in_place_of(&Piece::Path, &decoded), "the caller signed the path decoded", AS_SENT);
    }
    if let Some(decoded) = decoded(query) {
        push(in_place_of(&Piece::Query, &decoded), "the caller signed the query decoded", AS_SENT);
    }
    if !query.is_empty() {
        push(
            in_place_of(&Piece::Path, target.as_str().as_bytes()),
            "the caller signed the path with its query",
            "sign the path alone",
        );
        push(in_place_of(&Piece::Query, b""), "the caller signed the message without the query", AS_SENT);
        let asked = format!("?{query}");
        push(in_place_of(&Piece::Query, asked.as_bytes()), "the caller signed the query with its `?`", AS_SENT);
    }
    // The dialect's own paths may stand behind a prefix that the caller does not know of.
    let cuts: Vec<usize> = path.char_indices().skip(1).filter(|(_, one)| *one == '/').map(|(at, _)| at).collect();
    for cut in cuts.into_iter().take(MOST_CUTS) {
        if let Some(rest) = path.get(cut..) {
            push(
                in_place_of(&Piece::Path, rest.as_bytes()),
                "the caller signed the path without what stands in front of it, such as the base_path",
                AS_SENT,
            );
        }
    }
    push(
        in_place_of(&Piece::Path, format!("{path}/").as_bytes()),
        "the caller signed the path with a slash behind it",
        AS_SENT,
    );
    push(
        in_place_of(&Piece::Path, path.trim_start_matches('/').as_bytes()),
        "the caller signed the path without its first slash",
        AS_SENT,
    );
    push(
        in_place_of(&Piece::Url, target.as_str().as_bytes()),
        "the caller signed path and query instead of the whole URL",
        "sign the address it was given, as the config has it",
    );
    push(in_place_of(&Piece::Url, path.as_bytes()), "the caller signed the path instead of the whole URL", AS_SENT);
    if let Only::One(host) = view.request.head.fields.only("host") {
        for scheme in ["https://", "http://"] {
            let url = [scheme.as_bytes(), host, target.as_str().as_bytes()].concat();
            push(
                in_place_of(&Piece::Path, &url),
                "the caller signed the whole URL instead of the path",
                "sign the path alone",
            );
            push(
                in_place_of(&Piece::Url, &url),
                "the caller signed the URL of the host it called",
                "sign the address it was given, as the config has it",
            );
        }
    }
}

impl Message {
    /// The message with some of its pieces replaced; `None` when none is.
    fn each(&self, change: &Change<'_>) -> Option<Message> {
        let mut changed = false;
        let mut parts = Vec::new();
        for part in &self.parts {
            let other = match part {
                Part::Value(piece, filters) => change(piece, filters),
                Part::Literal(_) => None,
            };
            changed |= other.is_some();
            parts.extend(other.unwrap_or_else(|| vec![part.clone()]));
        }
        changed.then_some(Message { parts })
    }

    fn followed_by(&self, text: &str) -> Message {
        let end = Part::Literal(text.as_bytes().into());
        Message { parts: self.parts.iter().cloned().chain([end]).collect() }
    }

    fn stamp_behind(&self) -> Option<Message> {
        let is_stamp = |part: &&Part| matches!(part, Part::Value(Piece::Timestamp, _));
        let stamps: Vec<Part> = self.parts.iter().filter(is_stamp).cloned().collect();
        let rest = self.parts.iter().filter(|part| !is_stamp(part)).cloned();
        (!stamps.is_empty()).then(|| Message { parts: rest.chain(stamps.iter().cloned()).collect() })
    }

    fn without_literals(&self) -> Option<Message> {
        let parts: Vec<Part> = self.parts.iter().filter(|part| matches!(part, Part::Value(..))).cloned().collect();
        (parts.len() < self.parts.len()).then_some(Message { parts })
    }

    fn only(&self, wanted: &Piece, has_more: bool) -> Option<Message> {
        let there = self.parts.iter().any(|part| matches!(part, Part::Value(piece, _) if piece == wanted));
        (there && has_more).then(|| Message { parts: vec![Part::Value(wanted.clone(), Vec::new())] })
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    if !text.contains('%') {
        return None;
    }
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| first == b'%');
        match digits.and_then(|digits| super::Encoding::Hex.decode(digits)) {
            Some(byte) => {
                out.extend(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = behind;
            }
        }
    }
    Some(out)
}

/// Prefixes of more segments are nobody's.
const MOST_CUTS: usize = 4;
