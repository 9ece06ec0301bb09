//! What goes to the PAM in front of the body: what the caller sent, in its order and spelling, without what belongs to the caller's
//! connection, and with exactly one correlation id and trace context of ours (RFC 9110 §7.6).

use crate::digits::{address, number};
use crate::fields::{Field, Fields, HOP_BY_HOP, fold, is_hop_by_hop};
use crate::origin::Origin;
use crate::request::{Method, Request};
use crate::trace::{CorrelationId, TraceContext};
use crate::upstream::Outbound;

/// A request as it is forwarded.
pub struct Forwarded<'r> {
    /// As the caller sent it.
    pub request: &'r Request,
    /// Where it comes from.
    pub origin: Origin,
    /// Its own id.
    pub correlation: &'r CorrelationId,
    /// Its place in a trace.
    pub trace: &'r TraceContext,
    /// Asks the PAM not to encode its answer, because it must be read here.
    pub whole_answer: bool,
    /// Nothing is enforced: what the caller sent goes on, with the ids it has not sent itself.
    pub untouched: bool,
}

impl Outbound for Forwarded<'_> {
    fn method(&self) -> &str {
        self.request.head.method.as_str()
    }

    fn target(&self) -> &str {
        self.request.head.target.as_str()
    }

    fn fields(&self, put: &mut impl FnMut(&[u8], &[u8])) {
        let Request { head, body } = self.request;
        for Field { name, value } in head.fields.iter() {
            if self.passes(name) {
                put(name, value);
            }
        }
        // Every body goes with its length, and with nothing else that could say where it ends.
        let has_length = matches!(head.method, Method::Post | Method::Put | Method::Patch);
        if has_length || !body.is_empty() {
            put(b"Content-Length", &number(body.len() as u64));
        }
        // Stamped after everything of the caller's has been dropped or passed, so that nothing can take them off again.
        let mut stamp = |name: &str, value: &[u8]| {
            if !self.untouched || head.fields.all(name).next().is_none() {
                put(name.as_bytes(), value);
            }
        };
        if !self.untouched {
            stamp("X-Forwarded-For", &address(self.origin.client));
        }
        stamp("X-Correlation-ID", self.correlation.as_str().as_bytes());
        stamp("traceparent", &self.trace.traceparent());
        if let Some(state) = self.trace.tracestate() {
            stamp("tracestate", state.as_bytes());
        }
    }
}

impl Forwarded<'_> {
    fn passes(&self, name: &[u8]) -> bool {
        if self.untouched {
            // What frames the body and the connection is nobody's message: both are ours on this side.
            return !is_hop_by_hop(name)
                && !SETTLED.iter().any(|settled| name.eq_ignore_ascii_case(settled.as_bytes()));
        }
        match fate(name) {
            Fate::Passes => true,
            Fate::Dropped => false,
            Fate::Encoding => !self.whole_answer,
            Fate::OfTheWay => self.origin.proxied,
        }
    }
}

/// The fields of an answer that go back to the caller: without those of the connection, and without a correlation id, which is
/// ours to state.
///
/// `bodiless` keeps Content-Length: without a body (HEAD, 304) it is a statement, with one it is ours to make.
pub fn answer_fields(mut fields: Fields, bodiless: bool) -> Fields {
    let nominated: Vec<Vec<u8>> =
        fields.all("connection").flat_map(crate::fields::members).map(<[u8]>::to_vec).collect();
    fields.retain(|name| {
        let framing = name.eq_ignore_ascii_case(b"content-length") && !bodiless;
        let ours = name.eq_ignore_ascii_case(b"x-correlation-id");
        let nominated = || nominated.iter().any(|other| other.eq_ignore_ascii_case(name));
        !(framing || ours || is_hop_by_hop(name) || nominated())
    });
    fields
}

/// What becomes of a header of the caller's. By its name as servers fold it that turn names into variables, where `-`, `_`
/// and `.` become one character.
fn fate(name: &[u8]) -> Fate {
    let listed = LENGTHS.get(name.len()).is_some_and(|listed| *listed);
    if listed && DROPPED.iter().any(|dropped| dropped.len() == name.len() && fold(name).eq(dropped.iter().copied())) {
        return Fate::Dropped;
    }
    if matches!(name, [b'x' | b'X', ..]) && fold(name).take(FORWARDED.len()).eq(FORWARDED.iter().copied()) {
        return Fate::OfTheWay;
    }
    match listed {
        true if name.eq_ignore_ascii_case(ENCODING) => Fate::Encoding,
        true if is_hop_by_hop(name) => Fate::Dropped,
        true | false => Fate::Passes,
    }
}

/// What becomes of a header.
enum Fate {
    Passes,
    Dropped,
    /// It asks for an encoded answer, which could not be read here.
    Encoding,
    /// It says how a request came, as anybody can write. It passes from a trusted proxy alone.
    OfTheWay,
}

/// What never goes to the PAM as the caller sent it.
const DROPPED: [&[u8]; 18] = [
    // Stamped here, or settled between the caller and us: `Expect` has been answered.
    b"content-length",
    b"expect",
    b"traceparent",
    b"tracestate",
    b"x-correlation-id",
    // By these some frameworks take another method or path than the request line's, which is the one that was checked.
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-url",
    b"x-rewrite-url",
    // By these proxies name the client, and each is believed by some server.
    b"forwarded",
    b"x-forwarded-for",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"fastly-client-ip",
];

const ENCODING: &[u8] = b"accept-encoding";

/// Which lengths names have that are looked at any further. Most names have another one.
const LENGTHS: [bool; LONGEST] = {
    let mut lengths = [false; LONGEST];
    lengths[ENCODING.len()] = true;
    let mut at = 0;
    while at < DROPPED.len() {
        lengths[DROPPED[at].len()] = true;
        at += 1;
    }
    let mut at = 0;
    while at < HOP_BY_HOP.len() {
        lengths[HOP_BY_HOP[at].len()] = true;
        at += 1;
    }
    lengths
};

/// What is settled between the caller and us.
const SETTLED: [&str; 2] = ["content-length", "expect"];

/// What begins like this was said by a proxy, or by somebody who pretends to be one.
const FORWARDED: &[u8] = b"x-forwarded-";

/// No name that is listed is longer.
const LONGEST: usize = 32;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::request::{Head, HeadLimits};
    use crate::trace::Fresh;

    fn fresh() -> Fresh {
        Fresh { trace_id: [0xaa; 16], parent_id: [0xbb; 8], uuid: uuid::Uuid::from_u128(1) }
    }

    fn forwarded(head: &str, body: &'static [u8], whole_answer: bool) -> String {
        let limits = HeadLimits { bytes: 4096, fields: 50, target: 1024 };
        let head = Head::scan(Bytes::copy_from_slice(head.as_bytes()), &limits).unwrap();
        let request = Request { head, body: Bytes::from_static(body) };
        let correlation = CorrelationId::adopt_or_mint(request.head.fields.all("x-correlation-id"), &fresh());
        let fields = &request.head.fields;
        let trace = TraceContext::adopt_or_start(fields.all("traceparent"), fields.all("tracestate"), &fresh());
        let origin = Origin::of([192, 0, 2, 1].into());
        let forwarded = Forwarded {
            request: &request,
            origin,
            correlation: &correlation,
            trace: &trace,
            whole_answer,
            untouched: false,
        };
        let mut head = format!("{} {} HTTP/1.1\r\n", forwarded.method(), forwarded.target()).into_bytes();
        forwarded.fields(&mut |name, value| head.extend_from_slice(&[name, b": ", value, b"\r\n"].concat()));
        String::from_utf8(head).unwrap() + "\r\n"
    }

    #[test]
    fn order_and_spelling_are_kept_and_what_belongs_to_the_connection_is_not() {
        let head = "POST /a?b HTTP/1.1\r\nhOsT: pam\r\nKeep-Alive: 1\r\nX-B: 2\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\
                    TE: trailers\r\nX_Correlation_ID: evil\r\nX-HTTP-Method-Override: PUT\r\nX-A: 1\r\nContent-Length: 2\r\n\
                    X-Correlation-ID: c-1\r\nAccept-Encoding: gzip\r\n\r\n";
        let trace = format!("traceparent: 00-{}-{}-02\r\n", "aa".repeat(16), "bb".repeat(8));
        let expected = |encoding: &str| {
            format!(
                "POST /a?b HTTP/1.1\r\nhOsT: pam\r\nX-B: 2\r\nX-A: 1\r\n{encoding}Content-Length: 2\r\nX-Forwarded-For: 192.0.2.1\r\nX-Correlation-ID: c-1\r\n{trace}\r\n"
            )
        };
        assert_eq!(forwarded(head, b"{}", false), expected("Accept-Encoding: gzip\r\n"));
        assert_eq!(forwarded(head, b"{}", true), expected(""));
    }

    #[test]
    fn a_request_without_a_body_says_so_only_where_one_is_usual() {
        assert!(!forwarded("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"", false).contains("Content-Length"));
        assert!(forwarded("PUT /a HTTP/1.1\r\nHost: a\r\n\r\n", b"", false).contains("Content-Length: 0\r\n"));
        assert!(
            forwarded("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", b"x", false)
                .contains("Content-Length: 1\r\n")
        );
    }
}
