//! What is fuzzed: functions that take any bytes. They may refuse them, but not panic, and what they accept has to keep what
//! is asserted here. `cargo fuzz` and the test command (`tests/it/fuzz.rs`) both run these.
#![allow(dead_code)]

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use portcullis::config::paper::Complaints;
use portcullis::config::{Flags, Settings};
use portcullis::credential::authorization::Authorization;
use portcullis::credential::signature::format::{Format, MOST_SIGNATURES};
use portcullis::credential::signature::message::{Message, Stamps};
use portcullis::dialect::source::View;
use portcullis::dialect::{self, Overrides};
use portcullis::json::{self, JsonFault, Pointer, Pointers, Value};
use portcullis::request::{Head, HeadLimits, Request};
use portcullis::secret::DigestKey;
use portcullis::trace::{CorrelationId, Fresh, TraceContext};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// The targets by the names of their corpora.
pub const TARGETS: [(&str, Target); 9] = [
    ("basic", basic),
    ("compaction", compaction),
    ("config", config),
    ("dialect", dialect),
    ("head", head),
    ("json", json),
    ("signature", signature),
    ("target", target),
    ("trace", trace),
];

/// The strict reader and a lenient one agree about what they both accept, and differ only where strictness is the point.
pub fn json(body: &[u8]) {
    let mut wanted = Pointers::default();
    let token = wanted.want(&Pointer::parse("/token").unwrap());
    let deep = wanted.want(&Pointer::parse("/data/items/0/id").unwrap());
    let lenient: Result<serde_json::Value, _> = serde_json::from_slice(body);
    match (json::read(body, &wanted), lenient) {
        (Ok(found), Ok(value)) => {
            for (slot, pointer) in [(token, "/token"), (deep, "/data/items/0/id")] {
                match (found.at(slot), value.pointer(pointer)) {
                    (None, None) => {}
                    (Some(Value::Null), Some(serde_json::Value::Null)) => {}
                    (Some(Value::Bool(one)), Some(serde_json::Value::Bool(other))) => assert_eq!(one, other),
                    (Some(Value::String(one)), Some(serde_json::Value::String(other))) => assert_eq!(one, other),
                    (Some(Value::Number(one)), Some(serde_json::Value::Number(other))) => {
                        assert_eq!(one.parse::<f64>().unwrap(), other.as_f64().unwrap());
                    }
                    (Some(Value::Array), Some(serde_json::Value::Array(_))) => {}
                    (Some(Value::Object), Some(serde_json::Value::Object(_))) => {}
                    (one, other) => panic!("{one:?} is {} to another reader", other.is_some()),
                }
            }
        }
        (Ok(_), Err(fault)) => panic!("accepted, and another reader says {fault}"),
        (Err(fault), Ok(_)) => match fault {
            JsonFault::DuplicateKey | JsonFault::TwinKey | JsonFault::KeyControlCharacter | JsonFault::TooDeep => {}
            JsonFault::NotUtf8
            | JsonFault::ByteOrderMark
            | JsonFault::Syntax
            | JsonFault::TrailingBytes
            | JsonFault::Unrepresentable => panic!("{fault}, and another reader takes it"),
        },
        (Err(_), Err(_)) => {}
    }
}

/// Compaction takes white space away and nothing else, and what was JSON says the same after it.
pub fn compaction(body: &[u8]) {
    let compact: Vec<u8> = json::compact(body).flatten().copied().collect();
    let again: Vec<u8> = json::compact(&compact).flatten().copied().collect();
    assert_eq!(compact, again);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let visible = |text: &[u8]| text.iter().copied().filter(|byte| !is_blank(byte)).collect::<Vec<u8>>();
    assert_eq!(visible(body), visible(&compact));
    if json::read(body, &Pointers::default()).is_ok() {
        json::read(&compact, &Pointers::default()).expect("it was JSON before");
        let [one, other] = [body, &compact].map(|text| serde_json::from_slice::<serde_json::Value>(text).unwrap());
        assert_eq!(one, other);
        // What is written without any agrees in length: nothing was left outside of strings.
        let unblanked = |text: &[u8]| text.iter().filter(|byte| is_blank(byte)).count();
        let strings = strings(&compact);
        assert_eq!(unblanked(&compact), strings.iter().map(|string| unblanked(string)).sum::<usize>());
    }
}

/// A head that is read reads the same when it is written down anew, and to another reader.
pub fn head(raw: &[u8]) {
    let limits = HeadLimits { bytes: 64 << 10, fields: 100, target: 8 << 10 };
    let Ok(head) = Head::scan(Bytes::copy_from_slice(raw), &limits) else { return };
    assert!(raw.ends_with(b"\r\n\r\n") && !raw.contains(&0));
    let fields: Vec<(Vec<u8>, Vec<u8>)> =
        head.fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();

    let version = if head.framing.chunks { "1.1" } else { "1.0" };
    let mut anew = format!("{} {} HTTP/{version}\r\n", head.method.as_str(), head.target.as_str()).into_bytes();
    for (name, value) in &fields {
        anew.extend([name, &b": "[..], value, b"\r\n"].concat());
    }
    anew.extend(b"\r\n");
    // Blanks that were not there may take it over the limit.
    let roomy = HeadLimits { bytes: anew.len(), ..limits };
    let other = Head::scan(anew.into(), &roomy).expect("a head that was read");
    assert_eq!(other.method, head.method);
    assert_eq!(other.target.as_str(), head.target.as_str());
    assert_eq!(other.framing, head.framing);
    let same = other.fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).eq(fields.iter().cloned());
    assert!(same);

    let mut headers = vec![httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    assert!(request.parse(raw).expect("another reader takes it too").is_complete());
    assert_eq!(request.method, Some(head.method.as_str()));
    assert_eq!(request.path, Some(head.target.as_str()));
    let theirs: Vec<(Vec<u8>, Vec<u8>)> = request
        .headers
        .iter()
        .map(|header| (header.name.as_bytes().to_vec(), header.value.trim_ascii().to_vec()))
        .collect();
    assert_eq!(theirs, fields);
    let lengths: Vec<&[u8]> = head.fields.all("content-length").collect();
    assert!(lengths.len() <= 1 && head.fields.all("transfer-encoding").next().is_none());
    let declared = lengths.first().map_or(0, |length| std::str::from_utf8(length).unwrap().parse().unwrap());
    assert_eq!(head.framing.length, Some(declared));
}

/// A target that is plain is so to another reader, and nothing in it resolves to another path.
pub fn target(raw: &[u8]) {
    let Ok(target) = portcullis::target::Target::parse(Bytes::copy_from_slice(raw)) else { return };
    assert_eq!(target.as_str().as_bytes(), raw);
    let whole = match raw.contains(&b'?') {
        true => format!("{}?{}", target.path(), target.query()),
        false => target.path().to_owned(),
    };
    assert_eq!(whole, target.as_str());
    for segment in target.path().split('/').skip(1).filter(|segment| !segment.is_empty()) {
        let decoded = percent_decoded(segment);
        assert!(!matches!(&*decoded, "." | ".."));
        assert!(!decoded.contains(['/', '\\', ';', '%', '\0', '\r', '\n', ' ']), "{segment}");
    }
    assert!(!target.path().contains("//"));
    for pair in target.query().split('&') {
        let name = pair.split('=').next().unwrap_or_default();
        let _ = target.parameters(name).count();
    }
    if let Ok(uri) = target.as_str().parse::<http::Uri>() {
        assert_eq!((uri.path(), uri.query().unwrap_or_default()), (target.path(), target.query()));
        assert!(uri.authority().is_none());
    }
}

/// Lines: a message template, a format, its separator, and a field to take apart; what follows is a body to sign.
pub fn signature(bytes: &[u8]) {
    let mut lines = bytes.splitn(5, |&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (message, format, separator, field, body) = (line(), line(), line(), line(), line());
    if let Ok(text) = std::str::from_utf8(message) {
        let mut wanted = Pointers::default();
        if let Ok(message) = Message::parse(text, &mut wanted) {
            let raw = b"POST /a/b?c=%41&d HTTP/1.1\r\nHost: pam.example\r\nX-A: one\r\nX-B: 1\r\nX-B: 2\r\n\r\n";
            let limits = HeadLimits { bytes: 1024, fields: 8, target: 64 };
            let head = Head::scan(Bytes::from_static(raw), &limits).unwrap();
            let request = Request { head, body: Bytes::copy_from_slice(body) };
            let view = View { request: &request, found: json::read(body, &wanted).ok() };
            let stamps = Stamps { timestamp: b"1700000000", nonce: b"nonce", public_url: "https://pam.example" };
            let [one, other] = [(); 2].map(|()| {
                let mut fed = Vec::new();
                message.feed(&view, &stamps, |slice| fed.extend_from_slice(slice)).then_some(fed)
            });
            assert_eq!(one, other);
            if text == "{body}" {
                assert_eq!(one.as_deref(), Some(body));
            }
        }
    }
    let (Ok(format), Ok(separator)) = (std::str::from_utf8(format), std::str::from_utf8(separator)) else { return };
    if let Ok(format) = Format::parse(format, Some(separator).filter(|separator| !separator.is_empty())) {
        if let Some(unpacked) = format.unpack(field) {
            assert!((1..=MOST_SIGNATURES).contains(&unpacked.signatures.len()));
            assert_eq!(unpacked.timestamp.is_some(), format.has_timestamp());
        }
        let _ = format.unpack(format.pack("00ff", "1700000000").as_bytes());
    }
}

/// A config loads, or it is complained about, without a secret in what is said.
pub fn config(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    // It may name files. Those of devices might never end.
    if ["/dev", "/proc", "/sys", ".."].iter().any(|place| text.contains(place)) {
        return;
    }
    let flags = Flags { config: PathBuf::from("fuzzed/config.toml"), ..Flags::default() };
    let environment = |_: &str| Some("canary-secret-of-the-fuzzed".to_owned());
    match Settings::parse(text, &flags, &environment, DigestKey::new([7; 32])) {
        Ok(settings) => {
            assert!(settings.callers.iter().count() > 0);
            assert!(!format!("{settings:?}").contains("canary-secret"));
        }
        Err(complaints) => {
            assert!(!complaints.is_empty());
            for complaint in complaints {
                assert!(!complaint.message.is_empty());
                assert!(!complaint.to_string().contains("canary-secret"));
            }
        }
    }
}

/// A dialect file reads, or it is complained about.
pub fn dialect(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut complaints = Complaints::default();
    match dialect::read("fuzzed.toml", text, &Overrides::default(), &mut complaints) {
        Some(dialect) => assert!(!complaints.is_empty() || dialect.routes.iter().count() > 0),
        None => assert!(!complaints.is_empty()),
    }
}

/// Lines: values of traceparent up to an empty line, of tracestate up to the next, then of X-Correlation-ID.
pub fn trace(bytes: &[u8]) {
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let mut groups = lines.split(|line| line.is_empty());
    let mut group = || groups.next().unwrap_or_default();
    let (parents, states, ids) = (group(), group(), group());
    let fresh = Fresh { trace_id: [0xab; 16], parent_id: [0xcd; 8], uuid: uuid::Uuid::from_u128(7) };

    let context = TraceContext::adopt_or_start(parents.iter().copied(), states.iter().copied(), &fresh);
    let parent = String::from_utf8(context.traceparent().to_vec()).unwrap();
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
    assert!(parent.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')));
    assert_eq!((parts[0], parts[2]), ("00", "cdcdcdcdcdcdcdcd"));
    assert_ne!(parts[1], "0".repeat(32));
    assert!(context.adopted() || parts[1] == "ab".repeat(16));
    if let Some(state) = context.tracestate() {
        assert!(context.adopted() && !state.is_empty() && state.split(',').count() <= 32);
        assert!(state.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        // What is sent on is taken by the next one.
        let next =
            TraceContext::adopt_or_start(std::iter::once(parent.as_bytes()), std::iter::once(state.as_bytes()), &fresh);
        assert_eq!((next.adopted(), next.tracestate()), (true, Some(state)));
    }

    let id = CorrelationId::adopt_or_mint(ids.iter().copied(), &fresh);
    assert!((1..=128).contains(&id.as_str().len()) && id.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!id.as_str().contains(['"', '\'', '<', '>']));
    assert_eq!(CorrelationId::adopt_or_mint(std::iter::once(id.as_str().as_bytes()), &fresh), id);
}

/// A Basic credential has one spelling.
pub fn basic(value: &[u8]) {
    match Authorization::parse(value) {
        Ok(Authorization::Basic(basic)) => {
            assert!(!basic.user().contains(':'));
            let spelled = STANDARD.encode(format!("{}:{}", basic.user(), basic.password()));
            assert_eq!(&value[6..], spelled.as_bytes());
            assert!(value[..6].eq_ignore_ascii_case(b"basic "));
        }
        Ok(Authorization::Bearer(key)) => {
            assert_eq!(&value[7..], &key[..]);
            assert!(key.iter().all(u8::is_ascii_graphic));
        }
        Err(_) => {}
    }
}

/// The strings of a JSON text, as they are written.
fn strings(text: &[u8]) -> Vec<&[u8]> {
    let mut strings = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].iter().position(|&byte| byte == b'"').map(|start| at + start + 1) {
        let mut end = start;
        while text[end] != b'"' {
            end += if text[end] == b'\\' { 2 } else { 1 };
        }
        strings.push(&text[start..end]);
        at = end + 1;
    }
    strings
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'%', [high, low, behind @ ..]) = (first, tail) {
            let digit = |digit: &u8| char::from(*digit).to_digit(16).unwrap() as u8;
            bytes.push(digit(high) << 4 | digit(low));
            rest = behind;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).unwrap()
}
