//! Header fields of a request or an answer, in the order they came, read strictly.
//!
//! What two readers could take for different things is refused here, never repaired (RFC 9112 §5,
//! RFC 9110 §5).

use std::fmt;

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::swar::{is, is_below_blank, length_until};

/// Header fields in arrival order, in one buffer.
///
/// `Debug` prints the names only: values carry credentials.
#[derive(Clone)]
pub struct Fields {
    raw: Bytes,
    spans: Vec<Span>,
    names: Names,
}

/// One header field. Has no `Debug`: its value may be a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it came: a token, in any case.
    pub name: &'a [u8],
    /// The value without the blanks and tabs around it; may be empty.
    pub value: &'a [u8],
}

/// Why bytes are not header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFault {
    /// A line end other than CR LF, or a CR inside a line (RFC 9112 §2.2).
    LineEnd,
    /// The empty line is missing, or it is not the end.
    End,
    /// A line starts with a blank or a tab: obsolete folding (RFC 9112 §5.2).
    Fold,
    /// A line without a colon.
    NoColon,
    /// The name is not a token; so is one with a blank before the colon (RFC 9112 §5.1).
    Name,
    /// The value has a byte other than VCHAR, SP, HTAB and obs-text (RFC 9110 §5.5).
    Value,
    /// More fields than allowed.
    TooMany,
    /// 4 GiB or more.
    TooLong,
}

/// What a field name stands for where only a single value is unambiguous. Has no `Debug`: the
/// value may be a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Only<'a> {
    /// No field has this name.
    None,
    /// Exactly one field has it, with this value.
    One(&'a [u8]),
    /// Several fields have it, with equal or different values.
    Many,
}

impl Fields {
    /// No fields.
    pub fn empty() -> Fields {
        Fields { raw: Bytes::new(), spans: Vec::new(), names: Names::default() }
    }

    /// Reads the field lines that start at `from` and end with the empty line, which must be the
    /// end of `raw`.
    ///
    /// Strict RFC 9112 §5: lines end with CR LF and nothing else, no folding, no blank before the
    /// colon, names are tokens, values have no control byte but HTAB. At most `most` fields.
    pub fn scan(raw: Bytes, from: usize, most: usize) -> Result<Fields, FieldFault> {
        let mut spans = Vec::with_capacity(most.min(USUAL));
        let mut names = Names::default();
        let mut start = from;
        loop {
            let rest = raw.get(start..).unwrap_or_default();
            if let [b'\r', b'\n'] = rest {
                return Ok(Fields { raw, spans, names });
            }
            let line = Line::of(rest, &mut names.odd).ok_or_else(|| fault_of(rest))?;
            if spans.len() == most {
                return Err(FieldFault::TooMany);
            }
            spans.push(Span::new(start, line.name, start + line.value_start, line.value)?);
            names.lengths |= Names::bit(line.name);
            start += line.length;
        }
    }

    /// The same rules for fields that come as pairs (HTTP/2). Blanks and tabs around a value are
    /// taken off, so that they make no difference in either version.
    pub fn from_pairs<'a>(
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        most: usize,
    ) -> Result<Fields, FieldFault> {
        let mut raw = BytesMut::new();
        let mut spans = Vec::with_capacity(most.min(USUAL));
        let mut names = Names::default();
        for (name, value) in pairs {
            let value = trim(value);
            check_name(name)?;
            check_value(value)?;
            if spans.len() == most {
                return Err(FieldFault::TooMany);
            }
            let start = raw.len();
            spans.push(Span::new(start, name, start + name.len(), value)?);
            names.lengths |= Names::bit(name);
            names.odd |= is_odd(name);
            raw.extend_from_slice(name);
            raw.extend_from_slice(value);
        }
        Ok(Fields { raw: raw.freeze(), spans, names })
    }

    /// All fields, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|span| Field {
            name: part(&self.raw, span.name, span.name_end),
            value: part(&self.raw, span.value, span.value_end),
        })
    }

    /// Drops the fields whose name is not to be kept.
    pub fn retain(&mut self, mut keeps: impl FnMut(&[u8]) -> bool) {
        let Fields { raw, spans, .. } = self;
        spans.retain(|span| keeps(part(raw, span.name, span.name_end)));
    }

    /// The values of every field with this name, in the order they came; case is ignored.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        // By their length first, which tells nearly all of them apart.
        let spans = if self.names.may_have(name.as_bytes()) { self.spans.as_slice() } else { &[] };
        let same_length = |span: &&Span| (span.name_end - span.name) as usize == name.len();
        let same = |span: &&Span| part(&self.raw, span.name, span.name_end).eq_ignore_ascii_case(name.as_bytes());
        let spans = spans.iter().filter(same_length).filter(same);
        spans.map(|span| part(&self.raw, span.value, span.value_end))
    }

    /// The value of the field with this name, provided that there is just one; case is ignored.
    pub fn only(&self, name: &str) -> Only<'_> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Only::None,
            (Some(value), None) => Only::One(value),
            (Some(_), Some(_)) => Only::Many,
        }
    }

    /// Whether a name [is odd](is_odd).
    pub fn have_odd_names(&self) -> bool {
        self.names.odd
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|field| field.name.escape_ascii().to_string());
        f.debug_list().entries(names).finish()
    }
}

impl FieldFault {
    /// A fixed word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldFault::LineEnd => "line_end",
            FieldFault::End => "end",
            FieldFault::Fold => "fold",
            FieldFault::NoColon => "no_colon",
            FieldFault::Name => "name",
            FieldFault::Value => "value",
            FieldFault::TooMany => "too_many",
            FieldFault::TooLong => "too_long",
        }
    }
}

/// A name as servers fold it that turn header fields into variables (RFC 3875 §4.1.18): case is lost, and every character
/// but letters and digits becomes the same. Two names that fold alike may be one field to the PAM.
pub fn fold(name: &[u8]) -> impl Iterator<Item = u8> + '_ {
    name.iter().map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' })
}

/// Whether a name has a byte in it that is neither letter nor digit nor hyphen: another reader may take it for another name.
pub fn is_odd(name: &[u8]) -> bool {
    name.iter().any(|&byte| CLASSES[usize::from(byte)] & ODD != 0)
}

/// A token (RFC 9110 §5.6.2): what names, methods and halves of media types are made of.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// The members of a comma-separated list field, without the blanks around them; empty ones are
/// skipped (RFC 9110 §5.6.1). For lists of tokens: a comma in a quoted string ends a member too.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// The length that a Content-Length value states: 1 to 18 ASCII digits and nothing else (RFC 9110
/// §8.6). 18 digits always fit, and no body that means anything needs more.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0, |length, byte| match byte {
        b'0'..=b'9' => Some(length * 10 + u64::from(byte - b'0')),
        _ => None,
    })
}

/// Whether a field belongs to one connection and never passes a hop; case is ignored.
///
/// RFC 9110 §7.6.1 names Connection, Proxy-Connection, Keep-Alive, TE, Transfer-Encoding and
/// Upgrade. Trailer goes because trailers are dropped (§6.6.2), the Proxy-* fields because they
/// speak to the next hop only (§11.7), HTTP2-Settings because it belongs to Upgrade (RFC 7540
/// §3.2.1).
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// VCHAR, SP, HTAB or obs-text: what a field value consists of (RFC 9110 §5.5), a reason phrase
/// and a chunk extension too.
pub(crate) fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Where one field lies in the buffer. 32 bits halve the list; longer buffers are refused.
#[derive(Clone, Copy)]
struct Span {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
}

/// What is known of all names together, so that most of those that are not there need not be looked for.
#[derive(Clone, Copy, Default)]
struct Names {
    /// A bit for each length there is. It is shared by those that are 64 more.
    lengths: u64,
    odd: bool,
}

impl Names {
    fn may_have(self, name: &[u8]) -> bool {
        self.lengths & Names::bit(name) != 0
    }

    fn bit(name: &[u8]) -> u64 {
        1 << (name.len() % 64)
    }
}

impl Span {
    fn new(start: usize, name: &[u8], value_start: usize, value: &[u8]) -> Result<Span, FieldFault> {
        let place = |at: usize| u32::try_from(at).map_err(|_| FieldFault::TooLong);
        Ok(Span {
            name: place(start)?,
            name_end: place(start + name.len())?,
            value: place(value_start)?,
            value_end: place(value_start + value.len())?,
        })
    }
}

fn part(raw: &[u8], start: u32, end: u32) -> &[u8] {
    raw.get(start as usize..end as usize).unwrap_or_default()
}

/// One field line, read in one pass over its bytes.
struct Line<'l> {
    name: &'l [u8],
    value: &'l [u8],
    value_start: usize,
    /// With its end.
    length: usize,
}

impl<'l> Line<'l> {
    /// The line that `rest` begins with; `None` when it is no field. Says whether its name is an odd one.
    fn of(rest: &'l [u8], odd: &mut bool) -> Option<Line<'l>> {
        let mut any = 0;
        let colon = rest.iter().position(|&byte| {
            let class = CLASSES[usize::from(byte)];
            any |= class;
            class & TOKEN == 0
        })?;
        let (name, behind) = rest.split_at_checked(colon)?;
        let [b':', behind @ ..] = behind else { return None };
        let behind = trim_start(behind);
        let value_start = rest.len() - behind.len();
        let mut end = 0;
        let value = loop {
            end += length_until(behind.get(end..)?, |word| is(word, DEL) | is_below_blank(word));
            match behind.get(end..)? {
                [b'\r', b'\n', ..] => break behind.get(..end)?,
                [b'\t', ..] => end += 1,
                _ => return None,
            }
        };
        *odd |= any & ODD != 0;
        let line = Line { name, value: trim_end(value), value_start, length: value_start + end + 2 };
        (!name.is_empty()).then_some(line)
    }
}

/// What is wrong with bytes that begin with no field.
fn fault_of(rest: &[u8]) -> FieldFault {
    let Some(feed) = memchr(b'\n', rest) else { return FieldFault::End };
    let Some(line) = rest.get(..feed).and_then(|line| line.strip_suffix(b"\r")) else { return FieldFault::LineEnd };
    if line.is_empty() {
        // Something stands behind the empty line.
        return FieldFault::End;
    }
    if line.contains(&b'\r') {
        return FieldFault::LineEnd;
    }
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return FieldFault::Fold;
    }
    match memchr(b':', line).and_then(|colon| line.get(..colon)) {
        None => FieldFault::NoColon,
        Some(name) if !is_token(name) => FieldFault::Name,
        Some(_) => FieldFault::Value,
    }
}

fn check_name(name: &[u8]) -> Result<(), FieldFault> {
    match is_token(name) {
        true => Ok(()),
        false => Err(FieldFault::Name),
    }
}

fn check_value(value: &[u8]) -> Result<(), FieldFault> {
    // A tab is let through by the second look: hardly any value has one.
    let plain = length_until(value, |word| is(word, DEL) | is_below_blank(word));
    match plain == value.len() || value.iter().all(|&byte| is_value_byte(byte)) {
        true => Ok(()),
        false => Err(FieldFault::Value),
    }
}

/// tchar (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Without optional white space (RFC 9110 §5.6.3) around it. The standard `trim_ascii` takes CR,
/// LF and FF off as well, which must stay for the checks to see.
fn trim(value: &[u8]) -> &[u8] {
    trim_end(trim_start(value))
}

fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

const DEL: u8 = 0x7f;

/// A tchar (RFC 9110 §5.6.2).
const TOKEN: u8 = 1;

/// A tchar that is neither letter nor digit nor hyphen.
const ODD: u8 = 2;

/// What each byte is.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'-' {
            classes[byte] = TOKEN;
        }
        byte += 1;
    }
    let others = b"!#$%&'*+.^_`|~";
    let mut at = 0;
    while at < others.len() {
        classes[others[at] as usize] = TOKEN | ODD;
        at += 1;
    }
    classes
};

/// Room for as many fields at first: most messages have fewer.
const USUAL: usize = 16;

pub(crate) const HOP_BY_HOP: [&[u8]; 11] = [
    b"connection",
    b"http2-settings",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authentication-info",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &[u8]) -> Result<Fields, FieldFault> {
        Fields::scan(Bytes::copy_from_slice(text), 0, 8)
    }

    fn fault(text: &[u8]) -> FieldFault {
        match scan(text) {
            Ok(fields) => panic!("accepted {fields:?} from {}", text.escape_ascii()),
            Err(fault) => fault,
        }
    }

    fn listed(fields: &Fields) -> Vec<(&[u8], &[u8])> {
        fields.iter().map(|field| (field.name, field.value)).collect()
    }

    fn pairs<'a>(pairs: &[(&'a [u8], &'a [u8])]) -> Result<Fields, FieldFault> {
        Fields::from_pairs(pairs.iter().copied(), 8)
    }

    #[test]
    fn fields_keep_their_order_and_spelling() {
        let fields = scan(b"b: 1\r\nA: 2\r\nb: 3\r\n\r\n").unwrap();
        assert_eq!(listed(&fields), [(&b"b"[..], &b"1"[..]), (b"A", b"2"), (b"b", b"3")]);
    }

    /// Line by line and step by step, as the RFC has it.
    fn by_the_letter(text: &[u8]) -> Result<Vec<[&[u8]; 2]>, FieldFault> {
        let mut fields = Vec::new();
        let mut rest = text;
        loop {
            let feed = rest.iter().position(|&byte| byte == b'\n').ok_or(FieldFault::End)?;
            let line = rest[..feed].strip_suffix(b"\r").ok_or(FieldFault::LineEnd)?;
            rest = &rest[feed + 1..];
            if line.is_empty() {
                return if rest.is_empty() { Ok(fields) } else { Err(FieldFault::End) };
            }
            if line.contains(&b'\r') {
                return Err(FieldFault::LineEnd);
            }
            if matches!(line[0], b' ' | b'\t') {
                return Err(FieldFault::Fold);
            }
            let colon = line.iter().position(|&byte| byte == b':').ok_or(FieldFault::NoColon)?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            check_name(name)?;
            if !value.iter().all(|&byte| is_value_byte(byte)) {
                return Err(FieldFault::Value);
            }
            if fields.len() == 8 {
                return Err(FieldFault::TooMany);
            }
            fields.push([name, trim(value)]);
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4_000))]
        #[test]
        fn one_pass_reads_what_is_read_by_the_letter(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "A", "Content-Length", "x_y", ":", ": ", ":\t", " ", "\t", "a value", "1", "\r\n", "\r\n", "\r\n", "\r", "\n", "\0",
                    "\u{7f}", "é", "\u{1}", "a long value with more than eight bytes", "A: 1\r\n", "b: 2 \r\n", "\r\n\r\n",
                ]),
                0..14,
            ),
            ends in proptest::bool::ANY,
        ) {
            let text = pieces.concat() + if ends { "\r\n\r\n" } else { "" };
            let read = scan(text.as_bytes());
            let expected = by_the_letter(text.as_bytes());
            let both = |field: Field<'_>| [field.name.to_vec(), field.value.to_vec()];
            let read = read.map(|fields| fields.iter().map(both).collect::<Vec<_>>());
            proptest::prop_assert_eq!(read, expected.map(|fields| fields.iter().map(|field| field.map(<[u8]>::to_vec)).collect()));
        }
    }

    #[test]
    fn the_scan_starts_where_it_is_told() {
        let text = b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n";
        let fields = Fields::scan(Bytes::from_static(text), 17, 8).unwrap();
        assert_eq!(listed(&fields), [(&b"A"[..], &b"1"[..])]);
    }

    #[test]
    fn no_fields_are_fine() {
        let fields = scan(b"\r\n").unwrap();
        assert!(fields.is_empty());
        assert_eq!(fields.len(), 0);
        assert!(Fields::empty().is_empty());
    }

    #[test]
    fn what_is_not_kept_is_not_there_any_more() {
        let mut fields = scan(b"b: 1\r\nA: 2\r\nb: 3\r\n\r\n").unwrap();
        fields.retain(|name| name != b"b");
        assert_eq!(listed(&fields), [(&b"A"[..], &b"2"[..])]);
        assert!((fields.only("b"), fields.only("a")) == (Only::None, Only::One(b"2")));
    }

    // threat: C4
    #[test]
    fn blanks_around_a_value_make_no_difference() {
        for line in ["a:x y", "a: x y", "a:\t x y \t", "a:  x y"] {
            let fields = scan(format!("{line}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(listed(&fields), [(&b"a"[..], &b"x y"[..])], "{line}");
        }
    }

    // threat: C4
    #[test]
    fn the_case_of_a_name_makes_no_difference() {
        let fields = scan(b"X-Player-Token: t\r\n\r\n").unwrap();
        for name in ["x-player-token", "X-PLAYER-TOKEN", "X-Player-Token"] {
            assert!(fields.only(name) == Only::One(b"t"), "{name}");
        }
    }

    #[test]
    fn a_value_may_be_empty() {
        for text in [&b"a:\r\n\r\n"[..], b"a: \t \r\n\r\n"] {
            let fields = scan(text).unwrap();
            assert_eq!(listed(&fields), [(&b"a"[..], &b""[..])]);
        }
    }

    #[test]
    fn only_tells_one_from_none_and_many() {
        let fields = scan(b"a: 1\r\nb: 2\r\nA: 1\r\n\r\n").unwrap();
        assert!(fields.only("a") == Only::Many);
        assert!(fields.only("b") == Only::One(b"2"));
        assert!(fields.only("c") == Only::None);
        assert_eq!(fields.all("a").collect::<Vec<_>>(), [b"1", b"1"]);
    }

    // threat: A8
    #[test]
    fn any_line_end_but_crlf_is_refused() {
        for text in [
            &b"a: 1\n\r\n"[..],
            b"a: 1\nb: 2\r\n\r\n",
            b"a: 1\r\n\n",
            b"a: 1\n\r\r\n\r\n",
            b"a: 1\r\r\n\r\n",
            b"a: 1\rb: 2\r\n\r\n",
            b"\ra: 1\r\n\r\n",
            b"a\r: 1\r\n\r\n",
            b"\n",
        ] {
            assert_eq!(fault(text), FieldFault::LineEnd, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_empty_line_is_there_and_is_the_end() {
        for text in [&b""[..], b"a: 1\r\n", b"a: 1", b"a: 1\r\n\r", b"a: 1\r\n\r\nb: 2\r\n\r\n", b"\r\n\r\n"] {
            assert_eq!(fault(text), FieldFault::End, "{}", text.escape_ascii());
        }
        let beyond = Fields::scan(Bytes::from_static(b"\r\n"), 3, 8);
        assert_eq!(beyond.err(), Some(FieldFault::End));
    }

    // threat: A9
    #[test]
    fn folded_lines_are_refused() {
        for text in [&b"a: 1\r\n 2\r\n\r\n"[..], b"a: 1\r\n\t2\r\n\r\n", b" a: 1\r\n\r\n", b"a: 1\r\n \r\n\r\n"] {
            assert_eq!(fault(text), FieldFault::Fold, "{}", text.escape_ascii());
        }
    }

    // threat: A9
    #[test]
    fn a_line_needs_a_colon() {
        assert_eq!(fault(b"a 1\r\n\r\n"), FieldFault::NoColon);
        assert_eq!(fault(b"a: 1\r\nb\r\n\r\n"), FieldFault::NoColon);
    }

    // threat: A9
    #[test]
    fn a_name_is_a_token() {
        for byte in 0..=u8::MAX {
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let read = pairs(&[(&[b'a', byte, b'b'], b"1")]);
            assert_eq!(read.is_ok(), token, "{byte:#x}");
            // A colon ends the name in a line; line ends have their own fault.
            if !token && !b":\r\n".contains(&byte) {
                let line = [b"a", &[byte][..], b"b: 1\r\n\r\n"].concat();
                assert_eq!(fault(&line), FieldFault::Name, "{byte:#x}");
            }
        }
        for text in [&b": 1\r\n\r\n"[..], b"a : 1\r\n\r\n", b"a\t: 1\r\n\r\n", b"a b: 1\r\n\r\n"] {
            assert_eq!(fault(text), FieldFault::Name, "{}", text.escape_ascii());
        }
    }

    // threat: A10
    #[test]
    fn a_value_has_no_control_byte_but_the_tab() {
        for byte in 0..=u8::MAX {
            let good = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            let read = pairs(&[(b"a", &[b'x', byte, b'y'])]);
            assert_eq!(read.is_ok(), good, "{byte:#x}");
            if !good && !b"\r\n".contains(&byte) {
                for value in [&[b'x', byte, b'y'][..], &[byte], &[b'x', byte]] {
                    let line = [b"a: ", value, b"\r\n\r\n"].concat();
                    assert_eq!(fault(&line), FieldFault::Value, "{byte:#x}");
                }
            }
        }
    }

    // threat: A21
    #[test]
    fn the_number_of_fields_is_bounded() {
        let full = "a: 1\r\n".repeat(8);
        assert_eq!(scan(format!("{full}\r\n").as_bytes()).unwrap().len(), 8);
        assert_eq!(fault(format!("{full}b: 2\r\n\r\n").as_bytes()), FieldFault::TooMany);
        assert_eq!(pairs(&[(&b"a"[..], &b"1"[..]); 8]).unwrap().len(), 8);
        assert_eq!(pairs(&[(&b"a"[..], &b"1"[..]); 9]).err(), Some(FieldFault::TooMany));
    }

    #[test]
    fn pairs_read_like_lines() {
        let fields = pairs(&[(b"b", b"1"), (b"a", b" \t2 "), (b"b", b"")]).unwrap();
        assert_eq!(listed(&fields), [(&b"b"[..], &b"1"[..]), (b"a", b"2"), (b"b", b"")]);
    }

    // threat: B11
    #[test]
    fn pairs_cannot_bring_line_ends_or_pseudo_fields() {
        for value in [&b"x\r\nb: 2"[..], b"x\n", b"\r", b"x\0"] {
            assert_eq!(pairs(&[(b"a", value)]).err(), Some(FieldFault::Value));
        }
        for name in [&b":path"[..], b"", b"a\r\nb", b"a "] {
            assert_eq!(pairs(&[(name, b"1")]).err(), Some(FieldFault::Name));
        }
    }

    // threat: C14
    #[test]
    fn debug_prints_no_value() {
        let fields = scan(b"Authorization: Bearer s3cret\r\n\r\n").unwrap();
        assert_eq!(format!("{fields:?}"), "[\"Authorization\"]");
    }

    #[test]
    fn lists_split_at_commas_and_skip_empty_members() {
        let listed = |value| members(value).collect::<Vec<_>>();
        assert_eq!(listed(b"close"), [b"close"]);
        assert_eq!(listed(b" ,\tclose , ,TE,"), [&b"close"[..], b"TE"]);
        assert!(listed(b"").is_empty());
        assert!(listed(b" , ,").is_empty());
    }

    // threat: A2
    #[test]
    fn content_length_is_digits_only() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"007"), Some(7));
        assert_eq!(content_length(b"999999999999999999"), Some(999_999_999_999_999_999));
        for value in [
            &b""[..],
            b"+1",
            b"-1",
            b" 1",
            b"1 ",
            b"1,1",
            b"1, 1",
            b"0x1",
            b"1_0",
            b"1.0",
            b"1e1",
            b"1000000000000000000",
            b"9223372036854775808",
            b"\xd9\xa1",
        ] {
            assert_eq!(content_length(value), None, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn hop_by_hop_fields_are_known_in_any_case() {
        for name in [
            "Connection",
            "HTTP2-Settings",
            "keep-alive",
            "Proxy-Authenticate",
            "Proxy-Authentication-Info",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "UPGRADE",
        ] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
        }
        for name in ["Content-Length", "Host", "Authorization", "Via", "Connection2", ""] {
            assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
        }
    }
}
