//! Which bytes the caller took for the body.

use super::Mistake;
use super::respelled;
use crate::json::compact;

/// Other bodies that may have been signed instead of the one that came.
pub(super) fn others(body: &[u8]) -> Vec<(Vec<u8>, Mistake)> {
    const EXACT: &str = "sign exactly the bytes that are sent";
    const ONCE: &str = "write the JSON once, and sign and send those bytes";
    let mut all: Vec<(Vec<u8>, Mistake)> = Vec::new();
    let mut push = |bytes: Vec<u8>, what: &str, advice: &str| {
        if bytes != body && !all.iter().any(|(other, _)| *other == bytes) {
            all.push((bytes, Mistake::new(what, advice)));
        }
    };
    push([body, b"\n"].concat(), "the caller signed the body with a line feed behind it, which was not sent", EXACT);
    push([body, b"\r\n"].concat(), "the caller signed the body with CR LF behind it, which was not sent", EXACT);
    push(body.trim_ascii_end().to_vec(), "the caller signed the body without the line end that was sent", EXACT);
    push(replaced(body, b"\r\n", b"\n"), "the caller signed the body with LF, and sent CR LF", EXACT);
    let crlf = replaced(&replaced(body, b"\r\n", b"\n"), b"\n", b"\r\n");
    push(crlf, "the caller signed the body with CR LF, and sent LF", EXACT);
    push(Vec::new(), "the caller signed an empty body", "sign the body, too");
    let without = compact(body).flatten().copied().collect();
    push(without, "the caller signed the body without its white space", ONCE);
    for (bytes, how) in respelled::all(body) {
        push(bytes, &format!("the caller signed the JSON written anew: {how}"), ONCE);
    }
    push([b"\xef\xbb\xbf", body].concat(), "the caller signed a byte order mark in front of the body", EXACT);
    all
}

fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = behind;
        } else if let Some((first, behind)) = rest.split_first() {
            out.push(*first);
            rest = behind;
        }
    }
    out
}
