//! Our replies in the family's own error format: one for each disclosure, prepared at start.

use bytes::Bytes;
use uuid::Uuid;

use crate::denial::Disclosure;
use crate::trace::CorrelationId;

/// The replies of a dialect.
#[derive(Clone, Debug)]
pub struct Replies {
    /// Content-Type of every body.
    pub content_type: Bytes,
    json: bool,
    replies: Vec<Prepared>,
}

/// One reply as the dialect file gives it.
#[derive(Clone, Debug)]
pub struct Wording {
    /// HTTP status.
    pub status: u16,
    /// What `{code}` stands for, as text: `3` or `PAM_ERR_API_TOKEN`.
    pub code: String,
    /// What `{message}` stands for.
    pub message: String,
}

#[derive(Clone, Debug)]
struct Prepared {
    status: u16,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Bytes),
    RequestId,
    CorrelationId,
}

/// The disclosures by the names they have in a dialect file.
pub const NAMES: [&str; 11] = [
    "unauthenticated",
    "token_invalid",
    "token_ended",
    "not_found",
    "missing_parameter",
    "bad_request",
    "internal",
    "bad_gateway",
    "unavailable",
    "timeout",
    "too_many_requests",
];

impl Replies {
    /// Prepares the replies; `wordings` are in the order of [`NAMES`]. The error says what is wrong with the body.
    pub fn new(content_type: &str, body: &str, wordings: &[Wording; 11]) -> Result<Replies, String> {
        let json = content_type.contains("json");
        let replies = wordings.iter().map(|wording| Prepared::new(body, wording, json)).collect::<Result<_, _>>()?;
        Ok(Replies { content_type: Bytes::copy_from_slice(content_type.as_bytes()), json, replies })
    }

    /// Status and body for a disclosure.
    ///
    /// `request_id` is for families whose bodies carry a UUID; the correlation id itself, when it is one.
    pub fn render(&self, disclosure: Disclosure, request_id: Uuid, correlation: &CorrelationId) -> (u16, Bytes) {
        let Some(prepared) = self.replies.get(slot(disclosure)) else { return (500, Bytes::new()) };
        let status = match disclosure {
            // The framing faults share one wording and keep the status HTTP has for each.
            Disclosure::BadRequest(status) if status != 400 => status,
            _ => prepared.status,
        };
        if let [Part::Text(only)] = prepared.parts.as_slice() {
            return (status, only.clone());
        }
        let mut body = Vec::with_capacity(256);
        for part in &prepared.parts {
            match part {
                Part::Text(text) => body.extend_from_slice(text),
                Part::RequestId => body.extend_from_slice(request_id.as_hyphenated().to_string().as_bytes()),
                Part::CorrelationId => body.extend_from_slice(escaped(correlation.as_str(), self.json).as_bytes()),
            }
        }
        (status, body.into())
    }
}

impl Prepared {
    fn new(template: &str, wording: &Wording, json: bool) -> Result<Prepared, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        // Braces are JSON's own as well, so only the known words in braces are replaced.
        while let Some(open) = rest.find('{') {
            let (before, at) = rest.split_at(open);
            text.push_str(before);
            let close = at.find('}').map_or(at.len(), |close| close + 1);
            let (word, after) = at.split_at(close);
            let part = match word {
                "{request_id}" => Some(Part::RequestId),
                "{correlation_id}" => Some(Part::CorrelationId),
                _ => None,
            };
            match (word, part) {
                (_, Some(part)) => {
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                    parts.push(part);
                    rest = after;
                }
                ("{code}", None) => {
                    text.push_str(&escaped(&wording.code, json));
                    rest = after;
                }
                ("{message}", None) => {
                    text.push_str(&escaped(&wording.message, json));
                    rest = after;
                }
                _ => {
                    text.push('{');
                    rest = at.get(1..).unwrap_or_default();
                }
            }
        }
        text.push_str(rest);
        parts.push(Part::Text(text.into()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        let prepared = Prepared { status: wording.status, parts };
        if json && let Err(fault) = serde_json::from_slice::<serde_json::Value>(&prepared.sample()) {
            return Err(format!("the body is not JSON once its words are filled in: {fault}"));
        }
        Ok(prepared)
    }

    fn sample(&self) -> Vec<u8> {
        let bytes = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::RequestId | Part::CorrelationId => Bytes::from_static(b"019a0000-0000-7000-8000-000000000000"),
        });
        bytes.collect::<Vec<_>>().concat()
    }
}

/// Where a disclosure stands in [`NAMES`].
fn slot(disclosure: Disclosure) -> usize {
    match disclosure {
        Disclosure::Unauthenticated => 0,
        Disclosure::TokenInvalid => 1,
        Disclosure::TokenEnded => 2,
        Disclosure::NotFound => 3,
        Disclosure::MissingParameter => 4,
        Disclosure::BadRequest(_) => 5,
        Disclosure::Internal => 6,
        Disclosure::BadGateway => 7,
        Disclosure::Unavailable => 8,
        Disclosure::Timeout => 9,
        Disclosure::TooManyRequests => 10,
    }
}

/// The inside of a JSON string.
fn escaped(text: &str, json: bool) -> String {
    if !json {
        return text.to_owned();
    }
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}
