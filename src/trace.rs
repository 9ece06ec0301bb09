//! The identifiers of one request: the `X-Correlation-ID` and the W3C trace context (level 2).
//!
//! What the caller sent is adopted when it is beyond doubt and replaced when it is not; a bad identifier never
//! refuses a request. Clock and randomness arrive in [`Fresh`].

pub mod sampler;

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// Fresh identifiers for one request, drawn at the edge by whoever owns randomness and the clock.
///
/// Never to be used for a second request: the parent-id is what tells two requests of one trace apart.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// The trace-id of a trace that starts here: 16 bytes from a CSPRNG.
    pub trace_id: [u8; 16],
    /// The id of this request within its trace, sent in every case: 8 bytes from a CSPRNG.
    pub parent_id: [u8; 8],
    /// The correlation id of a request that brings none: version 7 (RFC 9562 §5.7), so that ids sort by time.
    pub uuid: Uuid,
}

/// The one `X-Correlation-ID` of a request: sent to the PAM, echoed to the caller, written to the log.
///
/// 1 to 128 visible ASCII characters, none of them a quote, `<` or `>`. A backslash is possible: a writer of JSON
/// still has to escape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrelationId(Arc<str>);

impl CorrelationId {
    /// Adopts the only value given when it is well-formed; takes `fresh.uuid` when there is none, when there are
    /// several (even equal ones) or when the one is malformed.
    ///
    /// A lone `-` counts as none: some callers send it for "no id", and as an id it would tie strangers together.
    pub fn adopt_or_mint<'a>(received: impl Iterator<Item = &'a [u8]>, fresh: &Fresh) -> Self {
        let adopted =
            only(received).filter(|value| is_correlation_id(value)).and_then(|value| str::from_utf8(value).ok());
        match adopted {
            Some(value) => Self(value.into()),
            None => Self((&*fresh.uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())).into()),
        }
    }

    /// The id as it is sent and logged.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id itself when it is a hyphenated UUID (either case), else `fresh.uuid`: for reply bodies whose
    /// `request_id` must be a UUID.
    pub fn uuid(&self, fresh: &Fresh) -> Uuid {
        self.0.parse().map_or(fresh.uuid, |id: Hyphenated| id.into_uuid())
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The trace context that goes to the PAM: the caller's trace carried on, or a new one.
///
/// <https://www.w3.org/TR/trace-context-2/>
#[derive(Clone, Debug)]
pub struct TraceContext {
    own: SpanContext,
    parent: Option<SpanContext>,
    link: Option<SpanContext>,
    tracestate: Option<Box<str>>,
}

/// One span as others name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its own id, which `traceparent` calls parent-id.
    pub span_id: [u8; 8],
    /// Bit 0: it may be recorded. Bit 1: its trace-id is random.
    pub flags: u8,
}

/// What becomes of a trace that a caller has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It goes on: our spans are part of the caller's trace, and its word on sampling is heard.
    Continue,
    /// A new one begins, with a link to the caller's: its word on sampling counts for nothing here, and neither does its
    /// `tracestate`.
    Link,
}

impl TraceContext {
    /// Carries on the trace of the only `traceparent` given when it is valid; starts a new one, without
    /// `tracestate`, when there is none, when there are several or when the one is invalid.
    ///
    /// An invalid `tracestate` is dropped whole and leaves the trace as it is. Both arguments are the values of all
    /// header fields of that name, in the order received.
    pub fn adopt_or_start<'a>(
        traceparent: impl Iterator<Item = &'a [u8]>,
        tracestate: impl Iterator<Item = &'a [u8]>,
        fresh: &Fresh,
    ) -> Self {
        match only(traceparent).and_then(SpanContext::read) {
            Some(parent) => Self {
                own: SpanContext { span_id: never_zero(fresh.parent_id), ..parent },
                parent: Some(parent),
                link: None,
                tracestate: combine(tracestate),
            },
            None => Self { own: SpanContext::starting(fresh), parent: None, link: None, tracestate: None },
        }
    }

    /// Starts a new trace in place of the caller's, and remembers that one as a link. A trace that starts here already
    /// stays as it is.
    pub fn start_anew(&mut self, fresh: &Fresh) {
        if let Some(parent) = self.parent.take() {
            *self = Self { own: SpanContext::starting(fresh), parent: None, link: Some(parent), tracestate: None };
        }
    }

    /// Says to the PAM whether this request is recorded here.
    pub fn sample(&mut self, sampled: bool) {
        self.own.flags = self.own.flags & !SAMPLED | u8::from(sampled);
    }

    /// The value of the one `traceparent`: version 00, lower-case hex, with a parent-id of our own.
    pub fn traceparent(&self) -> [u8; 55] {
        let mut value = *b"00-................................-................-..";
        value[3..35].copy_from_slice(&hex::<32>(&self.own.trace_id));
        value[36..52].copy_from_slice(&hex::<16>(&self.own.span_id));
        value[53..].copy_from_slice(&hex::<2>(&[self.own.flags]));
        value
    }

    /// The value of the one `tracestate`, members joined with `,`; `None` when no such header is to be sent.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Whether the trace is the caller's; `false` when it starts here.
    pub fn adopted(&self) -> bool {
        self.parent.is_some()
    }

    /// What goes to the PAM: the span of the exchange with it.
    pub fn own(&self) -> SpanContext {
        self.own
    }

    /// The caller's span, where its trace goes on.
    pub fn parent(&self) -> Option<SpanContext> {
        self.parent
    }

    /// The caller's span, where a new trace was started in place of its own.
    pub fn link(&self) -> Option<SpanContext> {
        self.link
    }
}

impl SpanContext {
    /// Whether it may be recorded.
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Not sampled: that flag says "my caller may have recorded this", and that is for whoever records to say. Setting it
    /// would have the PAM record every request that came without a trace.
    fn starting(fresh: &Fresh) -> Self {
        let (trace_id, span_id) = (never_zero(fresh.trace_id), never_zero(fresh.parent_id));
        Self { trace_id, span_id, flags: RANDOM }
    }

    /// Reads `version "-" trace-id "-" parent-id "-" trace-flags`; of a version still unknown, what follows behind
    /// another `-` is left unread, as the specification demands.
    fn read(value: &[u8]) -> Option<Self> {
        let (version, rest) = value.split_first_chunk::<2>()?;
        let (trace_id, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<32>()?;
        let (parent_id, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
        let (flags, tail) = rest.strip_prefix(b"-")?.split_first_chunk::<2>()?;

        let ends_well = match version {
            b"ff" => false,
            b"00" => tail.is_empty(),
            _ => tail.is_empty() || tail.starts_with(b"-"),
        };
        unhex::<1>(version)?;
        let (trace_id, span_id) = (unhex::<16>(trace_id)?, unhex::<8>(parent_id)?);
        let [flags] = unhex::<1>(flags)?;
        let valid = ends_well && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self { trace_id, span_id, flags: flags & (SAMPLED | RANDOM) })
    }
}

/// One list made of all `tracestate` headers, or `None` when a member is bad, when there are too many, when the list
/// is too long or when nothing is left.
///
/// A list that cannot go on whole does not go on: half of one would pass for the whole.
fn combine<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Option<Box<str>> {
    let members =
        headers.flat_map(|header| header.split(|byte| *byte == b',')).map(trim).filter(|member| !member.is_empty());

    let mut list = String::new();
    let mut keys = [""; MEMBERS_MAX];
    for (place, member) in members.enumerate() {
        let (key, value) = str::from_utf8(member).ok()?.split_once('=')?;
        if !is_key(key.as_bytes()) || !is_value(value.as_bytes()) {
            return None;
        }
        // Members count as received, so that repeating a key is no way around the limit.
        *keys.get_mut(place)? = key;
        // Whoever changes a member moves it to the left, so the first of a key is the most recent one.
        if keys.iter().take(place).any(|earlier| *earlier == key) {
            continue;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(key);
        list.push('=');
        list.push_str(value);
        if list.len() > TRACESTATE_MAX {
            return None;
        }
    }
    (!list.is_empty()).then(|| list.into_boxed_str())
}

/// The only value given, without the blanks and tabs around it.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let only = values.next()?;
    values.next().is_none().then(|| trim(only))
}

/// Takes off optional whitespace (RFC 9110 §5.6.3) and nothing else: `trim_ascii` would forgive line ends as well.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_correlation_id(value: &[u8]) -> bool {
    // Characters that could break out of a log line, an attribute or a quoted string further down the road.
    let is_harmless = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>');
    (1..=CORRELATION_ID_MAX).contains(&value.len()) && value != b"-" && value.iter().all(is_harmless)
}

/// `key = ( lcalpha / DIGIT ) 0*255 ( lcalpha / DIGIT / "_" / "-" / "*" / "/" / "@" )`
fn is_key(key: &[u8]) -> bool {
    let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let goes_on = |byte: &u8| begins(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= KEY_MAX && key.first().is_some_and(begins) && key.iter().all(goes_on)
}

/// `value = 0*255(chr) nblk-chr`, printable ASCII but for `,` and `=`; the blanks at its end are trimmed by now.
fn is_value(value: &[u8]) -> bool {
    let is_allowed = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=VALUE_MAX).contains(&value.len()) && value.iter().all(is_allowed)
}

/// The bytes that lower-case hex stands for; there are twice as many digits as `BYTES`.
fn unhex<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().try_fold(0, |byte, digit| Some(byte << 4 | lower_hex(*digit)?))?;
    }
    Some(bytes)
}

fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Lower-case hex; `DIGITS` is twice the number of bytes.
fn hex<const DIGITS: usize>(bytes: &[u8]) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&crate::hex::pair(*byte));
    }
    digits
}

/// A CSPRNG does not draw all zeroes, a broken one might; the PAM would then throw the whole header away.
fn never_zero<const BYTES: usize>(id: [u8; BYTES]) -> [u8; BYTES] {
    if id == [0; BYTES] { [1; BYTES] } else { id }
}

/// trace-flags, bit 0: the caller may have recorded this request.
const SAMPLED: u8 = 0x01;

/// trace-flags, bit 1: the right-most 7 bytes of the trace-id are random.
const RANDOM: u8 = 0x02;

/// Characters of a correlation id: room for every id scheme in use (a UUID has 36), and no room for a message.
const CORRELATION_ID_MAX: usize = 128;

/// Members of a `tracestate`, by its grammar.
const MEMBERS_MAX: usize = 32;

/// Characters of a `tracestate` key, by its grammar.
const KEY_MAX: usize = 256;

/// Characters of a `tracestate` value, by its grammar.
const VALUE_MAX: usize = 256;

/// Characters of a `tracestate` as it is sent on: 32 members of 128 characters and the commas between them.
///
/// The specification asks for at least 512 and calls members beyond 128 the first to give up when room is short
/// (section "tracestate Limits"), so a list whose members keep to that measure always passes. And it is about half of
/// the 8 kB that widespread servers allow a whole request head, so it alone does not make the PAM refuse a request.
const TRACESTATE_MAX: usize = MEMBERS_MAX * 128 + (MEMBERS_MAX - 1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const FRESH: Fresh = Fresh {
        trace_id: [0xab; 16],
        parent_id: [0xcd; 8],
        uuid: Uuid::from_u128(0x0193_2c07_209e_7e1f_9f4b_5b1d_2c3e_4f50),
    };
    const FRESH_UUID: &str = "01932c07-209e-7e1f-9f4b-5b1d2c3e4f50";
    const FRESH_TRACEPARENT: &str = "00-abababababababababababababababab-cdcdcdcdcdcdcdcd-02";

    const RECEIVED: &str = "00-12345678901234567890123456789012-1234567890123456-01";
    const RECEIVED_TRACE_ID: &str = "12345678901234567890123456789012";

    // ---- correlation id ----

    fn correlation_id(values: &[&[u8]]) -> CorrelationId {
        CorrelationId::adopt_or_mint(values.iter().copied(), &FRESH)
    }

    // threat: F5
    #[test]
    fn a_sound_correlation_id_is_adopted_to_the_letter() {
        let longest = "x".repeat(128);
        let table = [
            "a",
            "--",
            "0",
            "order-4711.retry:2",
            "AZaz09._:-",
            "k9J+/w==",
            "!#$%&()*+,-./:;=?@[\\]^_{|}~",
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
            "F47AC10B-58CC-4372-A567-0E02B2C3D479",
            &longest,
        ];
        for value in table {
            assert_eq!(correlation_id(&[value.as_bytes()]).as_str(), value);
        }
    }

    // threat: F5
    #[test]
    fn a_malformed_correlation_id_is_replaced_by_the_fresh_uuid() {
        let too_long = "x".repeat(129);
        let far_too_long = "x".repeat(4096);
        let table: [&[u8]; 27] = [
            b"",
            b" \t ",
            b"-",
            b" - ",
            b"a b",
            b"a\tb",
            b"a\rb",
            b"a\nb",
            b"a\r\nX-Injected: 1",
            b"a\r\n",
            b"\na",
            b"a\x0c",
            b"a\0b",
            b"\0",
            b"a\x1b[31m",
            b"a\x7f",
            b"a\"b",
            b"a'b",
            b"a`b",
            b"<b>",
            b"a<b",
            b"a>b",
            "caf\u{e9}".as_bytes(),
            "a\u{2028}b".as_bytes(),
            b"\xff",
            too_long.as_bytes(),
            far_too_long.as_bytes(),
        ];
        for value in table {
            let minted = correlation_id(&[value]);
            assert_eq!(minted.as_str(), FRESH_UUID, "{:?}", value.escape_ascii());
        }
    }

    // threat: F5
    #[test]
    fn only_visible_ascii_without_quotes_and_brackets_is_adopted() {
        for byte in 0..=u8::MAX {
            let value = [b'a', byte, b'z'];
            let allowed = (b'!'..=b'~').contains(&byte) && !b"\"'`<>".contains(&byte);
            let adopted = correlation_id(&[&value]).as_str().as_bytes() == value;
            assert_eq!(adopted, allowed, "byte {byte:#04x}");
        }
    }

    #[test]
    fn a_request_without_correlation_id_gets_the_fresh_uuid() {
        assert_eq!(correlation_id(&[]).as_str(), FRESH_UUID);
    }

    // threat: F5
    #[test]
    fn several_correlation_ids_are_replaced_even_when_all_but_one_are_blank_or_all_are_equal() {
        let table: [&[&[u8]]; 4] = [&[b"one", b"two"], &[b"one", b"one"], &[b"one", b""], &[b"-", b"one"]];
        for values in table {
            assert_eq!(correlation_id(values).as_str(), FRESH_UUID, "{values:?}");
        }
    }

    #[test]
    fn blanks_and_tabs_around_a_correlation_id_do_not_belong_to_it() {
        assert_eq!(correlation_id(&[b"\t order-1 \t"]).as_str(), "order-1");
    }

    #[test]
    fn blanks_around_a_correlation_id_do_not_count_towards_its_length() {
        let padded = format!("  {}  ", "x".repeat(128));
        assert_eq!(correlation_id(&[padded.as_bytes()]).as_str(), "x".repeat(128));
    }

    #[test]
    fn a_correlation_id_is_displayed_as_it_is_sent() {
        assert_eq!(correlation_id(&[b"order-1"]).to_string(), "order-1");
    }

    #[test]
    fn a_hyphenated_uuid_serves_as_the_request_id_itself() {
        let sent = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
        for value in [sent.to_owned(), sent.to_uppercase()] {
            let id = correlation_id(&[value.as_bytes()]);
            assert_eq!(id.uuid(&FRESH).to_string(), sent);
        }
    }

    #[test]
    fn any_other_correlation_id_lends_the_fresh_uuid_to_the_request_id() {
        let table: [&[u8]; 8] = [
            b"order-1",
            b"f47ac10b58cc4372a5670e02b2c3d479",
            b"{f47ac10b-58cc-4372-a567-0e02b2c3d479}",
            b"urn:uuid:f47ac10b-58cc-4372-a567-0e02b2c3d479",
            b"f47ac10b-58cc-4372-a567-0e02b2c3d47",
            b"f47ac10b-58cc-4372-a567-0e02b2c3d47g",
            b"f47ac10b58cc-4372-a567-0e02-b2c3d479",
            b"------------------------------------",
        ];
        for value in table {
            let id = correlation_id(&[value]);
            assert_eq!(id.uuid(&FRESH), FRESH.uuid, "{:?}", value.escape_ascii());
        }
    }

    #[test]
    fn a_minted_correlation_id_and_the_request_id_are_the_same() {
        let minted = correlation_id(&[]);
        assert_eq!(minted.uuid(&FRESH).to_string(), minted.as_str());
    }

    // ---- the W3C harness ----

    /// What the harness expects of the trace-id.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Trace {
        Continued,
        Restarted,
    }
    use Trace::{Continued, Restarted};

    /// One request of the harness.
    struct Sent {
        /// The test of the harness it belongs to.
        test: &'static str,
        fields: Vec<(String, String)>,
        trace: Trace,
        tracestate: Option<String>,
    }

    impl Sent {
        /// What comes out, with fields looked up by name in any case, as a header map does it.
        fn received(&self, fresh: &Fresh) -> TraceContext {
            let values = |wanted: &'static str| {
                self.fields
                    .iter()
                    .filter(move |(name, _)| name.eq_ignore_ascii_case(wanted))
                    .map(|(_, value)| value.as_bytes())
            };
            TraceContext::adopt_or_start(values("traceparent"), values("tracestate"), fresh)
        }

        fn describe(&self) -> String {
            format!("{}: {:?}", self.test, self.fields)
        }
    }

    /// The 41 tests of the W3C harness (SPEC_LEVEL=2, STRICT_LEVEL=2), request by request.
    fn harness() -> Vec<Sent> {
        let mut sent = Vec::new();
        let mut case = |test, fields: &[(&str, &str)], trace, tracestate: Option<&str>| {
            sent.push(Sent {
                test,
                fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                trace,
                tracestate: tracestate.map(str::to_owned),
            });
        };

        case("both_traceparent_and_tracestate_missing", &[], Restarted, None);
        case(
            "traceparent_duplicated",
            &[("traceparent", "00-12345678901234567890123456789011-1234567890123456-01"), ("traceparent", RECEIVED)],
            Restarted,
            None,
        );
        for (test, name, trace) in [
            ("traceparent_included_tracestate_missing", "traceparent", Continued),
            ("traceparent_header_name", "trace-parent", Restarted),
            ("traceparent_header_name", "trace.parent", Restarted),
            ("traceparent_header_name_valid_casing", "TraceParent", Continued),
            ("traceparent_header_name_valid_casing", "TrAcEpArEnT", Continued),
            ("traceparent_header_name_valid_casing", "TRACEPARENT", Continued),
        ] {
            case(test, &[(name, RECEIVED)], trace, None);
        }

        #[rustfmt::skip]
        let traceparents = [
            ("traceparent_version_0x00", "00-12345678901234567890123456789012-1234567890123456-01.", Restarted),
            ("traceparent_version_0x00", "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like", Restarted),
            ("traceparent_version_0xcc", "cc-12345678901234567890123456789012-1234567890123456-01", Continued),
            ("traceparent_version_0xcc", "cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like", Continued),
            ("traceparent_version_0xcc", "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like", Restarted),
            ("traceparent_version_0xff", "ff-12345678901234567890123456789012-1234567890123456-01", Restarted),
            ("traceparent_version_illegal_characters", ".0-12345678901234567890123456789012-1234567890123456-01", Restarted),
            ("traceparent_version_illegal_characters", "0.-12345678901234567890123456789012-1234567890123456-01", Restarted),
            ("traceparent_version_too_long", "000-12345678901234567890123456789012-1234567890123456-01", Restarted),
            ("traceparent_version_too_long", "0000-12345678901234567890123456789012-1234567890123456-01", Restarted),
            ("traceparent_version_too_short", "0-12345678901234567890123456789012-1234567890123456-01", Restarted),
            ("traceparent_trace_id_all_zero", "00-00000000000000000000000000000000-1234567890123456-01", Restarted),
            ("traceparent_trace_id_illegal_characters", "00-.2345678901234567890123456789012-1234567890123456-01", Restarted),
            ("traceparent_trace_id_illegal_characters", "00-1234567890123456789012345678901.-1234567890123456-01", Restarted),
            ("traceparent_trace_id_too_long", "00-123456789012345678901234567890123-1234567890123456-01", Restarted),
            ("traceparent_trace_id_too_short", "00-1234567890123456789012345678901-1234567890123456-01", Restarted),
            ("traceparent_parent_id_all_zero", "00-12345678901234567890123456789012-0000000000000000-01", Restarted),
            ("traceparent_parent_id_illegal_characters", "00-12345678901234567890123456789012-.234567890123456-01", Restarted),
            ("traceparent_parent_id_illegal_characters", "00-12345678901234567890123456789012-123456789012345.-01", Restarted),
            ("traceparent_parent_id_too_long", "00-12345678901234567890123456789012-12345678901234567-01", Restarted),
            ("traceparent_parent_id_too_short", "00-12345678901234567890123456789012-123456789012345-01", Restarted),
            ("traceparent_trace_flags_illegal_characters", "00-12345678901234567890123456789012-1234567890123456-.0", Restarted),
            ("traceparent_trace_flags_illegal_characters", "00-12345678901234567890123456789012-1234567890123456-0.", Restarted),
            ("traceparent_trace_flags_too_long", "00-12345678901234567890123456789012-1234567890123456-001", Restarted),
            ("traceparent_trace_flags_too_short", "00-12345678901234567890123456789012-1234567890123456-1", Restarted),
            ("traceparent_ows_handling", " 00-12345678901234567890123456789012-1234567890123456-01", Continued),
            ("traceparent_ows_handling", "\t00-12345678901234567890123456789012-1234567890123456-01", Continued),
            ("traceparent_ows_handling", "00-12345678901234567890123456789012-1234567890123456-01 ", Continued),
            ("traceparent_ows_handling", "00-12345678901234567890123456789012-1234567890123456-01\t", Continued),
            ("traceparent_ows_handling", "\t 00-12345678901234567890123456789012-1234567890123456-01 \t", Continued),
            ("multiple_requests_with_valid_traceparent", RECEIVED, Continued),
            ("multiple_requests_with_illegal_traceparent", "00-00000000000000000000000000000000-1234567890123456-01", Restarted),
            ("propagates_random_flag", "00-12345678901234567890123456789012-1234567890123456-02", Continued),
        ];
        for (test, value, trace) in traceparents {
            case(test, &[("traceparent", value)], trace, None);
        }
        case("multiple_requests_without_traceparent", &[], Restarted, None);

        for value in ["foo=1", "foo=1,bar=2"] {
            case("tracestate_included_traceparent_missing", &[("tracestate", value)], Restarted, None);
        }

        // From here on every request brings a valid traceparent and differs in its tracestate only.
        let mut state = |test, fields: &[(&str, &str)], tracestate| {
            let mut all = vec![("traceparent", RECEIVED)];
            all.extend_from_slice(fields);
            case(test, &all, Continued, tracestate);
        };
        for (test, name, tracestate) in [
            ("tracestate_header_name", "trace-state", None),
            ("tracestate_header_name", "trace.state", None),
            ("tracestate_header_name_valid_casing", "TraceState", Some("foo=1")),
            ("tracestate_header_name_valid_casing", "TrAcEsTaTe", Some("foo=1")),
            ("tracestate_header_name_valid_casing", "TRACESTATE", Some("foo=1")),
        ] {
            state(test, &[(name, "foo=1")], tracestate);
        }

        let key: String = ('a'..='z').chain('0'..='9').chain("_-*/".chars()).collect();
        let value: String = (' '..='~').filter(|c| !",=".contains(*c)).collect();
        let all_characters = format!("{key}={value}");
        let all_characters_with_vendor = format!("{key}@a-z0-9_-*/={value}");

        let numbered = |range: std::ops::RangeInclusive<usize>| {
            let members: Vec<String> = range.map(|n| format!("bar{n:02}={n:02}")).collect();
            members.join(",")
        };
        let (first, second, third) = (numbered(1..=10), numbered(11..=20), numbered(21..=30));
        let (up_to_32, up_to_33) = (numbered(31..=32), numbered(31..=33));
        let all_32 = numbered(1..=32);

        let key_256 = format!("{}=1", "z".repeat(256));
        let key_257 = format!("{}=1", "z".repeat(257));
        let vendor_14 = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
        let tenant_242 = format!("{}@v=1", "t".repeat(242));
        let vendor_15 = format!("t@{}=1", "v".repeat(15));
        let behind_foo = |member: &str| format!("foo=1,{member}");

        let spaced = Some("foo=1,bar=2,baz=3");
        #[rustfmt::skip]
        let tracestates: [(&str, &[&str], Option<&str>); 34] = [
            ("tracestate_included_traceparent_included", &["foo=1,bar=2"], Some("foo=1,bar=2")),
            ("tracestate_empty_header", &[""], None),
            ("tracestate_empty_header", &["foo=1", ""], Some("foo=1")),
            ("tracestate_empty_header", &["", "foo=1"], Some("foo=1")),
            ("tracestate_multiple_headers_different_keys", &["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], Some("foo=1,bar=2,rojo=1,congo=2,baz=3")),
            ("tracestate_duplicated_keys", &["foo=1,foo=1"], Some("foo=1")),
            ("tracestate_duplicated_keys", &["foo=1,foo=2"], Some("foo=1")),
            ("tracestate_duplicated_keys", &["foo=1", "foo=1"], Some("foo=1")),
            ("tracestate_duplicated_keys", &["foo=1", "foo=2"], Some("foo=1")),
            ("tracestate_all_allowed_characters", &[&all_characters], Some(&all_characters)),
            ("tracestate_all_allowed_characters", &[&all_characters_with_vendor], Some(&all_characters_with_vendor)),
            ("tracestate_ows_handling", &["foo=1 \t , \t bar=2, \t baz=3"], spaced),
            ("tracestate_ows_handling", &["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], spaced),
            ("tracestate_ows_handling", &[" foo=1"], Some("foo=1")),
            ("tracestate_ows_handling", &["\tfoo=1"], Some("foo=1")),
            ("tracestate_ows_handling", &["foo=1 "], Some("foo=1")),
            ("tracestate_ows_handling", &["foo=1\t"], Some("foo=1")),
            ("tracestate_ows_handling", &["\t foo=1 \t"], Some("foo=1")),
            ("tracestate_key_illegal_characters", &["foo =1"], None),
            ("tracestate_key_illegal_characters", &["FOO=1"], None),
            ("tracestate_key_illegal_characters", &["foo.bar=1"], None),
            ("tracestate_key_illegal_vendor_format", &["foo@=1,bar=2"], Some("foo@=1,bar=2")),
            ("tracestate_key_illegal_vendor_format", &["@foo=1,bar=2"], None),
            ("tracestate_key_illegal_vendor_format", &["foo@@bar=1,bar=2"], Some("foo@@bar=1,bar=2")),
            ("tracestate_key_illegal_vendor_format", &["foo@bar@baz=1,bar=2"], Some("foo@bar@baz=1,bar=2")),
            ("tracestate_member_count_limit", &[&first, &second, &third, &up_to_32], Some(&all_32)),
            ("tracestate_member_count_limit", &[&first, &second, &third, &up_to_33], None),
            ("tracestate_key_length_limit", &["foo=1", &key_256], Some(&behind_foo(&key_256))),
            ("tracestate_key_length_limit", &["foo=1", &key_257], None),
            ("tracestate_key_length_limit", &["foo=1", &vendor_14], Some(&behind_foo(&vendor_14))),
            ("tracestate_key_length_limit", &["foo=1", &tenant_242], Some(&behind_foo(&tenant_242))),
            ("tracestate_key_length_limit", &["foo=1", &vendor_15], Some(&behind_foo(&vendor_15))),
            ("tracestate_value_illegal_characters", &["foo=bar=baz"], None),
            ("tracestate_value_illegal_characters", &["foo=,bar=3"], None),
        ];
        for (test, values, tracestate) in tracestates {
            let fields: Vec<_> = values.iter().map(|value| ("tracestate", *value)).collect();
            state(test, &fields, tracestate);
        }
        sent
    }

    #[test]
    fn the_walk_visits_all_41_tests_of_the_harness() {
        let visited: HashSet<_> = harness().iter().map(|sent| sent.test).collect();
        assert_eq!(visited.len(), 41);
    }

    // threat: F8
    #[test]
    fn the_harness_sees_its_trace_continued_exactly_where_it_demands_it() {
        for sent in harness() {
            let context = sent.received(&FRESH);
            let trace_id = match sent.trace {
                Continued => RECEIVED_TRACE_ID,
                Restarted => "abababababababababababababababab",
            };
            assert_eq!(hex::<32>(&context.own().trace_id), trace_id.as_bytes(), "{}", sent.describe());
        }
    }

    #[test]
    fn the_harness_is_told_apart_into_adopted_and_started_traces() {
        for sent in harness() {
            let adopted = sent.received(&FRESH).adopted();
            assert_eq!(adopted, sent.trace == Continued, "{}", sent.describe());
        }
    }

    // threat: F8
    #[test]
    fn the_harness_always_gets_a_valid_traceparent() {
        for sent in harness() {
            let value = sent.received(&FRESH).traceparent();
            let valid = value.iter().enumerate().all(|(place, byte)| match place {
                0 | 1 => *byte == b'0',
                2 | 35 | 52 => *byte == b'-',
                _ => b"0123456789abcdef".contains(byte),
            });
            assert!(valid, "{} → {}", sent.describe(), value.escape_ascii());
        }
    }

    // threat: F10
    #[test]
    fn the_harness_always_gets_the_fresh_parent_id() {
        for sent in harness() {
            let value = sent.received(&FRESH).traceparent();
            assert_eq!(&value[36..52], b"cdcdcdcdcdcdcdcd", "{}", sent.describe());
        }
    }

    // threat: F9
    #[test]
    fn the_harness_sees_its_tracestate_exactly_where_it_demands_it() {
        for sent in harness() {
            let context = sent.received(&FRESH);
            assert_eq!(context.tracestate(), sent.tracestate.as_deref(), "{}", sent.describe());
        }
    }

    // threat: F10
    #[test]
    fn three_requests_of_one_trace_carry_three_parent_ids() {
        let parent_ids: HashSet<_> = (1..=3)
            .map(|n| {
                let fresh = Fresh { parent_id: [n; 8], ..FRESH };
                let context = started_by(RECEIVED, &[], &fresh);
                context.traceparent()[36..52].to_vec()
            })
            .collect();
        assert_eq!(parent_ids.len(), 3);
    }

    // ---- beyond the harness ----

    fn started_by(traceparent: &str, tracestate: &[&[u8]], fresh: &Fresh) -> TraceContext {
        let traceparent = [traceparent.as_bytes()];
        TraceContext::adopt_or_start(traceparent.iter().copied(), tracestate.iter().copied(), fresh)
    }

    fn traceparent_for(received: &str) -> String {
        String::from_utf8(started_by(received, &[], &FRESH).traceparent().to_vec()).unwrap()
    }

    fn tracestate_for(received: &[&[u8]]) -> Option<String> {
        started_by(RECEIVED, received, &FRESH).tracestate().map(str::to_owned)
    }

    // threat: F8
    #[test]
    fn an_invalid_traceparent_starts_a_random_unsampled_trace() {
        let table = [
            "",
            "-",
            "---",
            "00",
            "00-12345678901234567890123456789012",
            "00-12345678901234567890123456789012-1234567890123456",
            "00-12345678901234567890123456789012-1234567890123456-",
            // upper-case hex in each field
            "CC-12345678901234567890123456789012-1234567890123456-01",
            "00-A2345678901234567890123456789012-1234567890123456-01",
            "00-12345678901234567890123456789012-123456789012345F-01",
            "00-12345678901234567890123456789012-1234567890123456-0A",
            "FF-12345678901234567890123456789012-1234567890123456-01",
            // characters just outside the digits, and a sign where a number parser would take one
            "00-1234567890123456789012345678901g-1234567890123456-01",
            "00-1234567890123456789012345678901/-1234567890123456-01",
            "00-12345678901234567890123456789012-123456789012345:-01",
            "00-12345678901234567890123456789012-123456789012345`-01",
            "00-12345678901234567890123456789012-1234567890123456-+1",
            "+1-12345678901234567890123456789012-1234567890123456-01",
            "0x-12345678901234567890123456789012-1234567890123456-01",
            // other separators, blanks inside, other ends
            "00_12345678901234567890123456789012_1234567890123456_01",
            "00-12345678901234567890123456789012_1234567890123456-01",
            "00-12345678901234567890123456789012-1234567890123456_01",
            "00 -12345678901234567890123456789012-1234567890123456-01",
            "00-12345678901234567890123456789012-1234567890123456-01\r\n",
            "00-12345678901234567890123456789012-1234567890123456-01\0",
            "\u{a0}00-12345678901234567890123456789012-1234567890123456-01",
            "\"00-12345678901234567890123456789012-1234567890123456-01\"",
            // a version still unknown keeps to the same rules
            "01-00000000000000000000000000000000-1234567890123456-01",
            "01-12345678901234567890123456789012-0000000000000000-01",
            "01-12345678901234567890123456789012-1234567890123456-0x",
            "01-12345678901234567890123456789012-1234567890123456-011",
            "01-12345678901234567890123456789012-1234567890123456-0",
            "ff-12345678901234567890123456789012-1234567890123456-01-x",
            // lists
            "00-12345678901234567890123456789012-1234567890123456-01,00-12345678901234567890123456789012-1234567890123456-01",
            "00-12345678901234567890123456789012-1234567890123456-01,",
            ",00-12345678901234567890123456789012-1234567890123456-01",
            "cc-12345678901234567890123456789012-1234567890123456-01,cc-12345678901234567890123456789012-1234567890123456-01",
        ];
        for received in table {
            assert_eq!(traceparent_for(received), FRESH_TRACEPARENT, "{received:?}");
        }
    }

    // threat: F8
    #[test]
    fn two_equal_traceparents_start_a_new_trace() {
        let twice = [RECEIVED.as_bytes(); 2];
        let context = TraceContext::adopt_or_start(twice.into_iter(), std::iter::empty(), &FRESH);
        assert!(!context.adopted());
    }

    // threat: F8
    #[test]
    fn a_restarted_trace_drops_the_tracestate() {
        let table: [&[&str]; 4] = [
            &[],
            &[RECEIVED, RECEIVED],
            &["ff-12345678901234567890123456789012-1234567890123456-01"],
            &["00-12345678901234567890123456789012-1234567890123456-01."],
        ];
        for received in table {
            let state: &[u8] = b"foo=1";
            let context = TraceContext::adopt_or_start(
                received.iter().map(|value| value.as_bytes()),
                std::iter::once(state),
                &FRESH,
            );
            assert_eq!(context.tracestate(), None, "{received:?}");
        }
    }

    #[test]
    fn a_future_version_is_answered_in_version_00() {
        for received in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "fe-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(
                traceparent_for(received),
                "00-4bf92f3577b34da6a3ce929d0e0e4736-cdcdcdcdcdcdcdcd-01",
                "{received}"
            );
        }
    }

    #[test]
    fn a_future_version_may_bring_a_tracestate() {
        let received = "cc-12345678901234567890123456789012-1234567890123456-01-more";
        let context = started_by(received, &[b"foo=1"], &FRESH);
        assert_eq!(context.tracestate(), Some("foo=1"));
    }

    #[test]
    fn sampled_and_random_are_kept_and_every_other_flag_is_cleared() {
        for flags in 0..=u8::MAX {
            let received = format!("00-{RECEIVED_TRACE_ID}-1234567890123456-{flags:02x}");
            let expected = format!("00-{RECEIVED_TRACE_ID}-cdcdcdcdcdcdcdcd-{:02x}", flags & 3);
            assert_eq!(traceparent_for(&received), expected);
        }
    }

    #[test]
    fn fresh_ids_are_written_byte_by_byte_with_leading_zeroes() {
        let fresh = Fresh {
            trace_id: [0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x0f, 0xf0, 0x9a, 0xa9, 0x10, 0xff, 0x00],
            parent_id: [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7],
            ..FRESH
        };
        let context = started_by("", &[], &fresh);
        assert_eq!(
            context.traceparent().escape_ascii().to_string(),
            "00-000123456789abcdef0ff09aa910ff00-00f067aa0ba902b7-02"
        );
    }

    // threat: F10
    #[test]
    fn an_all_zero_trace_id_is_never_sent() {
        let broken = Fresh { trace_id: [0; 16], ..FRESH };
        let context = started_by("", &[], &broken);
        assert_ne!(hex::<32>(&context.own().trace_id), [b'0'; 32]);
    }

    // threat: F10
    #[test]
    fn an_all_zero_parent_id_is_never_sent() {
        let broken = Fresh { parent_id: [0; 8], ..FRESH };
        for received in ["", RECEIVED] {
            let value = started_by(received, &[], &broken).traceparent();
            assert_ne!(&value[36..52], b"0000000000000000", "{received:?}");
        }
    }

    // threat: F9
    #[test]
    fn one_bad_member_drops_the_whole_tracestate() {
        let bad_members: [&[u8]; 21] = [
            b"foo",
            b"=",
            b"=1",
            b"foo=",
            b"foo=  ",
            b"foo==1",
            b"foo=a=",
            b"foo=\tbar",
            b"foo=b\tar",
            b"foo=b\x00r",
            b"foo=b\x7fr",
            b"foo=b\x1fr",
            b"foo=1\r\n",
            b"foo=\xff",
            "foo=caf\u{e9}".as_bytes(),
            "f\u{e9}=1".as_bytes(),
            b"\xa0",
            b"_foo=1",
            b"-foo=1",
            b"foo\t=1",
            b"f oo=1",
        ];
        for bad in bad_members {
            for list in [[b"good=1,", bad].concat(), [bad, b",good=1"].concat(), bad.to_vec()] {
                assert_eq!(tracestate_for(&[&list]), None, "{:?}", list.escape_ascii());
            }
        }
    }

    // threat: F9
    #[test]
    fn a_bad_member_drops_the_members_of_other_headers_too() {
        assert_eq!(tracestate_for(&[b"good=1", b"BAD=1", b"well=2"]), None);
    }

    #[test]
    fn a_bad_tracestate_leaves_the_trace_as_it_is() {
        assert!(started_by(RECEIVED, &[b"BAD=1"], &FRESH).adopted());
    }

    // threat: F9
    #[test]
    fn empty_members_are_ignored() {
        let list = tracestate_for(&[b" ,\t,foo=1,, ,", b"", b",", b"bar=2,"]);
        assert_eq!(list.as_deref(), Some("foo=1,bar=2"));
    }

    // threat: F9
    #[test]
    fn a_tracestate_of_empty_members_is_not_sent() {
        assert_eq!(tracestate_for(&[b"", b" ,\t, "]), None);
    }

    #[test]
    fn a_thousand_empty_members_do_not_count() {
        let list = format!("{}foo=1", ",".repeat(1000));
        assert_eq!(tracestate_for(&[list.as_bytes()]).as_deref(), Some("foo=1"));
    }

    #[test]
    fn blanks_at_the_start_of_a_value_belong_to_it() {
        let list = tracestate_for(&[b"foo=  a b  ,bar=2"]);
        assert_eq!(list.as_deref(), Some("foo=  a b,bar=2"));
    }

    #[test]
    fn the_first_of_a_repeated_key_is_kept_in_its_place() {
        let list = tracestate_for(&[b"a=1,b=2,a=3", b"c=4,b=5,a=6"]);
        assert_eq!(list.as_deref(), Some("a=1,b=2,c=4"));
    }

    #[test]
    fn a_key_that_merely_begins_like_another_is_no_repetition() {
        let list = tracestate_for(&[b"foo=1,foo@=2,fo=3"]);
        assert_eq!(list.as_deref(), Some("foo=1,foo@=2,fo=3"));
    }

    // threat: F9
    #[test]
    fn repeating_a_key_is_no_way_around_the_member_limit() {
        assert_eq!(tracestate_for(&[["a=1"; 33].join(",").as_bytes()]), None);
    }

    #[test]
    fn thirty_two_repetitions_of_a_key_are_one_member() {
        let list = tracestate_for(&[["a=1"; 32].join(",").as_bytes()]);
        assert_eq!(list.as_deref(), Some("a=1"));
    }

    // threat: F9
    #[test]
    fn a_bad_member_behind_a_repeated_key_still_drops_the_list() {
        assert_eq!(tracestate_for(&[b"a=1,a=2=3"]), None);
    }

    #[test]
    fn a_value_of_256_characters_is_kept() {
        let list = format!("foo={}", "x".repeat(256));
        assert_eq!(tracestate_for(&[list.as_bytes()]), Some(list));
    }

    // threat: F9
    #[test]
    fn a_value_of_257_characters_drops_the_list() {
        let list = format!("foo={}", "x".repeat(257));
        assert_eq!(tracestate_for(&[list.as_bytes()]), None);
    }

    /// 32 members with values so long that the list has exactly `length` characters.
    fn list_of(length: usize) -> String {
        let mut list = (10..42).map(|n| format!("k{n}={}", "x".repeat(124))).collect::<Vec<_>>().join(",");
        let missing = length - list.len();
        list.push_str(&"x".repeat(missing));
        list
    }

    #[test]
    fn thirty_two_members_of_128_characters_are_kept() {
        let list = list_of(32 * 128 + 31);
        assert_eq!(tracestate_for(&[list.as_bytes()]), Some(list));
    }

    // threat: F9
    #[test]
    fn a_list_one_character_longer_is_dropped_and_not_cut() {
        let list = list_of(32 * 128 + 31 + 1);
        assert_eq!(tracestate_for(&[list.as_bytes()]), None);
    }

    #[test]
    fn at_least_the_512_characters_of_the_specification_are_kept() {
        let list = format!("a={},b={}", "x".repeat(253), "x".repeat(254));
        assert_eq!(tracestate_for(&[list.as_bytes()]), Some(list));
    }
}
