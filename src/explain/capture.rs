//! A captured request as text: request line, fields, an empty line, and the body, byte for byte.

use bytes::Bytes;

/// A request as it was sent, as far as its capture tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Captured {
    /// The head as it is on the wire, up to the empty line.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
    /// What was read otherwise than it is written, in sentences.
    pub notes: Vec<String>,
}

/// Reads a `.http` text. Lines of the head may end in LF alone; those in front of it that begin with `#` or `//` are
/// comments. The error says what is missing.
pub fn read(text: &[u8]) -> Result<Captured, String> {
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let first = loop {
        let line = line(&mut rest).ok_or(NO_REQUEST)?;
        if !(line.trim_ascii().is_empty() || line.starts_with(b"#") || line.starts_with(b"//")) {
            break line;
        }
    };
    let first = str::from_utf8(first).map_err(|_| NO_REQUEST)?;
    let mut words = first.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(NO_REQUEST.to_owned()) };
    let mut draft = Draft { method: method.to_owned(), ..Draft::default() };
    match words.next() {
        Some(version @ ("HTTP/1.0" | "HTTP/1.1")) => draft.version = Some(version.to_owned()),
        Some(version) if version.starts_with("HTTP/") => {
            draft.notes.push(format!("{version} is looked at as HTTP/1.1"))
        }
        Some(_) => return Err(NO_REQUEST.to_owned()),
        None => {}
    }
    draft.aim(target);
    while let Some(line) = line(&mut rest) {
        if line.is_empty() {
            break;
        }
        match line.strip_prefix(b":authority:") {
            Some(authority) => draft.host = Some(String::from_utf8_lossy(authority.trim_ascii()).into_owned()),
            None => draft.fields.push(line.to_vec()),
        }
    }
    draft.body = rest.to_vec();
    Ok(draft.finish())
}

const NO_REQUEST: &str =
    "a capture begins with a request line, such as `POST /api/wallet/debit HTTP/1.1`, or with `curl `";

/// A request that is being put together.
#[derive(Default)]
pub(super) struct Draft {
    pub method: String,
    pub target: String,
    pub version: Option<String>,
    /// What the URL says, for requests without a Host of their own.
    pub host: Option<String>,
    pub fields: Vec<Vec<u8>>,
    pub body: Vec<u8>,
    pub notes: Vec<String>,
}

impl Draft {
    /// Takes a target, also one with scheme and host.
    pub fn aim(&mut self, target: &str) {
        let Some((_, rest)) = target.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https")) else {
            self.target = target.to_owned();
            return;
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        self.host = Some(authority.rsplit('@').next().unwrap_or_default().to_owned());
        self.target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    }

    /// Whether there is a field of this name.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn value(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find_map(|field| {
            let (found, rest) = field.split_at(name.len().min(field.len()));
            found.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.strip_prefix(b":")).flatten()
        })
    }

    /// What is sent: with a Host, and as much of the body as Content-Length says.
    pub fn finish(mut self) -> Captured {
        if !self.has("host") {
            let host = self.host.take().unwrap_or_else(|| {
                self.notes
                    .push("the capture has no Host, which a request must have; one is taken for granted".to_owned());
                "localhost".to_owned()
            });
            self.fields.insert(0, format!("Host: {host}").into_bytes());
        }
        let length = self.value("content-length").map(<[u8]>::trim_ascii);
        let length = length.map(|digits| str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok()));
        let there = self.body.len();
        match length {
            None if there > 0 && !self.has("transfer-encoding") => {
                self.fields.push(format!("Content-Length: {there}").into_bytes());
            }
            Some(Some(length)) if length < there => {
                let tail = self.body.get(length..).unwrap_or_default();
                let what = if tail.trim_ascii().is_empty() { " (line ends that an editor has added?)" } else { "" };
                self.notes.push(format!(
                    "Content-Length is {length}, and the capture has {there} bytes of body: those behind it are left out{what}"
                ));
                self.body.truncate(length);
            }
            Some(Some(length)) if length > there => self.notes.push(format!(
                "Content-Length is {length}, and the capture has only {there} bytes of body: the rest is missing here"
            )),
            None | Some(_) => {}
        }
        let version = self.version.as_deref().unwrap_or("HTTP/1.1");
        let mut head = format!("{} {} {version}\r\n", self.method, self.target).into_bytes();
        for field in &self.fields {
            head.extend_from_slice(field);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        Captured { head: head.into(), body: self.body.into(), notes: self.notes }
    }
}

/// The next line without its end; `None` behind the last.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let feed = rest.iter().position(|&byte| byte == b'\n');
    let (line, behind) = match feed {
        Some(feed) => (rest.get(..feed)?, rest.get(feed + 1..)?),
        None => (*rest, &[][..]),
    };
    *rest = behind;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(text: &str) -> (String, String, Vec<String>) {
        let Captured { head, body, notes } = read(text.as_bytes()).unwrap();
        (String::from_utf8(head.to_vec()).unwrap(), String::from_utf8(body.to_vec()).unwrap(), notes)
    }

    #[test]
    fn the_head_may_end_its_lines_in_either_way_and_the_body_stays_as_it_is() {
        for text in
            ["POST /a HTTP/1.1\r\nHost: x\r\nB: c\r\n\r\n1\r\n2\n", "POST /a HTTP/1.1\nHost: x\nB: c\n\n1\r\n2\n"]
        {
            let (head, body, notes) = captured(text);
            assert_eq!(head, "POST /a HTTP/1.1\r\nHost: x\r\nB: c\r\nContent-Length: 5\r\n\r\n");
            assert_eq!((body.as_str(), notes.len()), ("1\r\n2\n", 0));
        }
    }

    #[test]
    fn what_editors_and_tools_write_is_taken() {
        let (head, ..) = captured("### one\n# two\n\nGET https://pam.example:8443/a?b=c#d\nX: y\n");
        assert_eq!(head, "GET /a?b=c HTTP/1.1\r\nHost: pam.example:8443\r\nX: y\r\n\r\n");
        let (head, _, notes) = captured("GET / HTTP/2\n:authority: pam.example\n\n");
        assert_eq!(head, "GET / HTTP/1.1\r\nHost: pam.example\r\n\r\n");
        assert!(notes[0].contains("HTTP/2"));
        assert_eq!(captured("GET /\n").2.len(), 1, "a Host that is made up is told of");
    }

    #[test]
    fn no_more_of_the_body_is_taken_than_its_length_says() {
        let (_, body, notes) = captured("POST / HTTP/1.1\nHost: a\nContent-Length: 2\n\n{}\n");
        assert_eq!(body, "{}");
        assert!(notes[0].contains("editor"), "{notes:?}");
        let (_, body, notes) = captured("POST / HTTP/1.1\nHost: a\ncontent-length: 9\n\n{}");
        assert_eq!(body, "{}");
        assert!(notes[0].contains("missing"), "{notes:?}");
    }

    #[test]
    fn what_has_no_request_line_is_no_capture() {
        for text in ["", "\n\n", "# only a comment", "hello", "a b c d", "POST /a b HTTP/1.1\n\n"] {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
