//! Spans as OTLP has them, in the words of OpenTelemetry's conventions for HTTP.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>, <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>
//!
//! Where the conventions ask for what may carry a token or a key, the template of the route stands instead: `url.path` is
//! there for routes without a variable segment only, where it is that template, and `url.full` and `url.query` never are.

use std::time::{Duration, SystemTime};

use super::protobuf::{Held, Message, fields};
use super::{Exchange, Finished};
use crate::event::Event;
use crate::trace::SpanContext;

/// An `ExportTraceServiceRequest` with a batch.
pub fn request(resource: &[(String, String)], batch: &[Finished]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |message| {
            for (name, value) in resource {
                text(message, 1, name, value);
            }
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.bytes(1, env!("CARGO_PKG_NAME").as_bytes());
                scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            for finished in batch {
                scope_spans.message(2, |span| server(span, finished));
                if let Some(exchange) = &finished.recorded.exchange {
                    scope_spans.message(2, |span| client(span, finished, exchange));
                }
            }
        });
    });
    request.into_bytes()
}

/// How many spans an `ExportTraceServiceResponse` says were not taken.
pub fn rejected(response: &[u8]) -> u64 {
    let partial = fields(response).filter_map(|field| match field {
        (1, Held::Bytes(partial_success)) => Some(partial_success),
        _ => None,
    });
    let counts = partial.flat_map(fields).filter_map(|field| match field {
        (1, Held::Number(rejected)) => Some(rejected),
        _ => None,
    });
    counts.last().unwrap_or(0)
}

fn server(span: &mut Message, finished: &Finished) {
    let Finished { recorded, event, .. } = finished;
    let own = SpanContext { span_id: finished.server, ..recorded.client };
    let parent = recorded.parent.map(|parent| parent.span_id);
    let path = recorded.asked.path.as_deref();
    let name = path.map_or_else(|| called(event).to_owned(), |path| format!("{} {path}", called(event)));
    head(span, own, parent, &name, SERVER);
    times(span, finished.start, event.total);

    method(span, event);
    text(span, ATTRIBUTES, "url.scheme", recorded.asked.scheme);
    if let Some(path) = path {
        text(span, ATTRIBUTES, "http.route", path);
        if !path.contains('{') {
            text(span, ATTRIBUTES, "url.path", path);
        }
    }
    number(span, "http.response.status_code", event.status.into());
    text(span, ATTRIBUTES, "client.address", &event.client.to_string());
    if let Some(version) = recorded.asked.version {
        text(span, ATTRIBUTES, "network.protocol.version", version);
    }
    text(span, ATTRIBUTES, "portcullis.dialect", &event.dialect);
    text(span, ATTRIBUTES, "portcullis.caller", &event.caller);
    text(span, ATTRIBUTES, "portcullis.route", &event.route);
    text(span, ATTRIBUTES, "portcullis.decision", event.decision.as_str());
    if let Some(denial) = event.denial {
        text(span, ATTRIBUTES, "portcullis.check", denial.check().as_str());
        text(span, ATTRIBUTES, "portcullis.reason", denial.reason());
    }
    text(span, ATTRIBUTES, "portcullis.correlation_id", &event.correlation_id);
    if !event.delivered {
        truth(span, "portcullis.delivered", false);
    }
    // What a caller does wrong is no fault of the server's.
    let failed = event.status >= 500;
    if failed {
        let kind = event.denial.map_or_else(|| event.status.to_string(), |denial| denial.reason().to_owned());
        text(span, ATTRIBUTES, "error.type", &kind);
    }
    if let Some(link) = recorded.link {
        span.message(13, |message| {
            message.bytes(1, &link.trace_id);
            message.bytes(2, &link.span_id);
            message.fixed32(6, u32::from(link.flags) | KNOWN_WHETHER_REMOTE | REMOTE);
        });
    }
    status(span, failed);
    let remote = if recorded.parent.is_some() { REMOTE } else { 0 };
    span.fixed32(16, u32::from(own.flags) | KNOWN_WHETHER_REMOTE | remote);
}

fn client(span: &mut Message, finished: &Finished, exchange: &Exchange) {
    let Finished { recorded, event, .. } = finished;
    let path = recorded.asked.path.as_deref();
    let name = path.map_or_else(|| called(event).to_owned(), |path| format!("{} {path}", called(event)));
    head(span, recorded.client, Some(finished.server), &name, CLIENT);
    times(span, finished.start + finished.before, event.upstream.unwrap_or_default());

    method(span, event);
    if let Some(path) = path {
        text(span, ATTRIBUTES, "url.template", path);
    }
    if let Some((host, port)) = exchange.address.rsplit_once(':') {
        text(span, ATTRIBUTES, "server.address", host.trim_start_matches('[').trim_end_matches(']'));
        number(span, "server.port", port.parse().unwrap_or(0));
    }
    if let Some(version) = exchange.version {
        text(span, ATTRIBUTES, "network.protocol.version", version);
    }
    if let Some(status) = exchange.status {
        number(span, "http.response.status_code", status.into());
    }
    let error = match exchange.status {
        Some(status @ 400..) => Some(status.to_string()),
        Some(_) => None,
        None => event.denial.map(|denial| denial.reason().to_owned()),
    };
    if let Some(error) = &error {
        text(span, ATTRIBUTES, "error.type", error);
    }
    status(span, error.is_some());
    span.fixed32(16, u32::from(recorded.client.flags) | KNOWN_WHETHER_REMOTE);
}

fn head(span: &mut Message, own: SpanContext, parent: Option<[u8; 8]>, name: &str, kind: u64) {
    span.bytes(1, &own.trace_id);
    span.bytes(2, &own.span_id);
    if let Some(parent) = parent {
        span.bytes(4, &parent);
    }
    span.bytes(5, name.as_bytes());
    span.number(6, kind);
}

fn times(span: &mut Message, start: SystemTime, duration: Duration) {
    let since = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    span.fixed64(7, nanoseconds(since));
    span.fixed64(8, nanoseconds(since + duration));
}

/// What the conventions call a method that none of theirs is.
fn called(event: &Event<'_>) -> &'static str {
    if event.method == "none" { "HTTP" } else { event.method }
}

fn method(span: &mut Message, event: &Event<'_>) {
    let method = if event.method == "none" { "_OTHER" } else { event.method };
    text(span, ATTRIBUTES, "http.request.method", method);
}

fn status(span: &mut Message, failed: bool) {
    if failed {
        span.message(15, |status| status.number(3, ERROR));
    }
}

fn text(message: &mut Message, field: u32, name: &str, value: &str) {
    attribute(message, field, name, |any| any.bytes(1, value.as_bytes()));
}

fn number(message: &mut Message, name: &str, value: u64) {
    attribute(message, ATTRIBUTES, name, |any| any.explicit(3, value));
}

fn truth(message: &mut Message, name: &str, value: bool) {
    attribute(message, ATTRIBUTES, name, |any| any.explicit(2, value.into()));
}

fn attribute(message: &mut Message, field: u32, name: &str, value: impl FnOnce(&mut Message)) {
    message.message(field, |pair| {
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
    });
}

/// The field of a span that holds its attributes.
const ATTRIBUTES: u32 = 9;

/// Kinds of span.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// The code of a status.
const ERROR: u64 = 2;

/// Bits 8 and 9 of a span's flags: whether it is known where its parent is, and whether that is another process.
const KNOWN_WHETHER_REMOTE: u32 = 0x100;
const REMOTE: u32 = 0x200;
