//! A request as a curl command line: what curl would send for it, without calling anybody.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::capture::{Captured, Draft};
use super::shell;

/// What an option does here.
#[derive(Clone, Copy)]
enum Does {
    Method,
    Field,
    /// `-d`: `@file`, with its line ends taken out.
    Text,
    /// `--data-raw`: an `@` is one.
    Raw,
    /// `--data-binary`: `@file`, as it is.
    Binary,
    Json,
    User,
    Bearer,
    Url,
    Agent,
    Cookie,
    Referer,
    Get,
    Head,
    Old,
    /// Nothing that is sent depends on it.
    Nothing,
    /// The same, and a value stands behind it.
    NothingWithValue,
}

/// The options that are known, by all their names.
const OPTIONS: [(&[&str], Does); 20] = [
    (&["-X", "--request"], Does::Method),
    (&["-H", "--header"], Does::Field),
    (&["-d", "--data", "--data-ascii"], Does::Text),
    (&["--data-raw"], Does::Raw),
    (&["--data-binary"], Does::Binary),
    (&["--json"], Does::Json),
    (&["-u", "--user"], Does::User),
    (&["--oauth2-bearer"], Does::Bearer),
    (&["--url"], Does::Url),
    (&["-A", "--user-agent"], Does::Agent),
    (&["-b", "--cookie"], Does::Cookie),
    (&["-e", "--referer"], Does::Referer),
    (&["-G", "--get"], Does::Get),
    (&["-I", "--head"], Does::Head),
    (&["-0", "--http1.0"], Does::Old),
    (
        &[
            "-i",
            "--include",
            "--show-headers",
            "-s",
            "--silent",
            "-S",
            "--show-error",
            "-v",
            "--verbose",
            "-k",
            "--insecure",
            "-L",
            "--location",
            "-f",
            "--fail",
            "--fail-with-body",
            "-g",
            "--globoff",
            "-N",
            "--no-buffer",
            "-#",
        ],
        Does::Nothing,
    ),
    (&["--compressed", "--basic", "--http1.1", "--http2", "--http2-prior-knowledge", "--path-as-is"], Does::Nothing),
    (&["-4", "--ipv4", "-6", "--ipv6", "--tlsv1.2", "--tlsv1.3", "-O", "--remote-name"], Does::Nothing),
    (
        &["-o", "--output", "-w", "--write-out", "-m", "--max-time", "--connect-timeout", "--retry"],
        Does::NothingWithValue,
    ),
    (
        &[
            "--cacert",
            "-E",
            "--cert",
            "--key",
            "--resolve",
            "--connect-to",
            "-x",
            "--proxy",
            "-D",
            "--dump-header",
            "-c",
        ],
        Does::NothingWithValue,
    ),
];

/// Reads a command line. `file` gives the bytes that an `@file` names. The error says what cannot be followed.
pub fn read(line: &str, file: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Captured, String> {
    let shell::Words { words, notes } = shell::words(line)?;
    let mut words = words.into_iter();
    if words.next().as_deref() != Some(b"curl") {
        return Err("a curl line begins with `curl `".to_owned());
    }
    let mut call = Call { draft: Draft { notes, ..Draft::default() }, ..Call::default() };
    while let Some(word) = words.next() {
        let mut options = options(&word);
        while let Some((name, attached)) = options.pop() {
            let Some(does) = known(&name) else {
                return Err(format!(
                    "curl's option {name} is not known here, and may change what is sent; write the request as .http text \
                     instead, or leave the option out"
                ));
            };
            let mut value = || match &attached {
                Some(value) => Ok(value.clone()),
                None => words.next().ok_or_else(|| format!("curl's {name} lacks its value")),
            };
            call.take(does, &name, &mut value, file)?;
        }
        if !is_option(&word) {
            call.url(&word)?;
        }
    }
    call.finish()
}

fn is_option(word: &[u8]) -> bool {
    word.len() > 1 && word.starts_with(b"-")
}

fn known(name: &str) -> Option<Does> {
    OPTIONS.iter().find(|(names, _)| names.contains(&name)).map(|(_, does)| *does)
}

fn takes_value(does: Does) -> bool {
    !matches!(does, Does::Get | Does::Head | Does::Old | Does::Nothing)
}

/// An option's name, and its value where that is part of the same word.
type Given = (String, Option<Vec<u8>>);

/// The options of one word, the last first: `--name`, `--name=value`, or letters together, as in `-sXPOST`.
fn options(word: &[u8]) -> Vec<Given> {
    if !is_option(word) {
        return Vec::new();
    }
    let text = str::from_utf8(word).ok();
    if let Some(long) = text.filter(|text| text.starts_with("--")) {
        // What follows a `=` is nothing that curl knows, and may be a secret.
        return vec![(long.split('=').next().unwrap_or(long).to_owned(), None)];
    }
    let mut all = Vec::new();
    let mut rest = word.get(1..).unwrap_or_default();
    while let Some((letter, behind)) = rest.split_first() {
        let name = format!("-{}", char::from(*letter));
        let with_value = known(&name).is_some_and(takes_value);
        all.insert(0, (name, (with_value && !behind.is_empty()).then(|| behind.to_vec())));
        rest = if with_value { &[] } else { behind };
    }
    all
}

#[derive(Default)]
struct Call {
    draft: Draft,
    method: Option<String>,
    pieces: Option<Vec<u8>>,
    json: bool,
    get: bool,
    head: bool,
    url: Option<String>,
    user: Option<Vec<u8>>,
    agent: Option<Vec<u8>>,
    removed: Vec<String>,
}

impl Call {
    fn take(
        &mut self,
        does: Does,
        name: &str,
        value: &mut dyn FnMut() -> Result<Vec<u8>, String>,
        file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        match does {
            Does::Method => self.method = Some(text(value()?, name)?),
            Does::Field => self.field(value()?)?,
            Does::Text => {
                let bytes = named(value()?, file, |bytes| {
                    bytes.into_iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)).collect()
                })?;
                self.piece(&bytes, b"&");
            }
            Does::Raw => self.piece(&value()?, b"&"),
            Does::Binary => self.piece(&named(value()?, file, |bytes| bytes)?, b"&"),
            Does::Json => {
                self.json = true;
                self.piece(&named(value()?, file, |bytes| bytes)?, b"");
            }
            Does::User => self.user = Some(value()?),
            Does::Bearer => self.add("Authorization", &[b"Bearer ", &*value()?].concat()),
            Does::Url => self.url(&value()?)?,
            Does::Agent => self.agent = Some(value()?),
            Does::Cookie => self.add("Cookie", &value()?),
            Does::Referer => self.add("Referer", &value()?),
            Does::Get => self.get = true,
            Does::Head => self.head = true,
            Does::Old => self.draft.version = Some("HTTP/1.0".to_owned()),
            Does::Nothing => {}
            Does::NothingWithValue => {
                value()?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        self.draft.fields.push([name.as_bytes(), b": ", value].concat());
    }

    /// `Name: value` sends it, `Name:` takes away what curl sends of itself, `Name;` sends it empty.
    fn field(&mut self, field: Vec<u8>) -> Result<(), String> {
        if field.starts_with(b"@") {
            return Err("header fields from a file (-H @…) are not read here; write them into the line".to_owned());
        }
        if let Some(name) = field.strip_suffix(b";").filter(|name| !name.contains(&b':')) {
            self.draft.fields.push([name, b":"].concat());
            return Ok(());
        }
        match field.iter().position(|&byte| byte == b':') {
            Some(colon) if field.get(colon + 1..).unwrap_or_default().trim_ascii().is_empty() => {
                self.removed.push(String::from_utf8_lossy(field.get(..colon).unwrap_or_default()).to_ascii_lowercase());
            }
            Some(_) => self.draft.fields.push(field),
            None => self.draft.notes.push("a header without a colon is not sent by curl".to_owned()),
        }
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8], between: &[u8]) {
        match &mut self.pieces {
            None => self.pieces = Some(bytes.to_vec()),
            Some(pieces) => {
                pieces.extend_from_slice(between);
                pieces.extend_from_slice(bytes);
            }
        }
    }

    fn url(&mut self, word: &[u8]) -> Result<(), String> {
        if self.url.is_some() {
            return Err("the line has several URLs; leave one".to_owned());
        }
        self.url = Some(text(word.to_vec(), "URL")?);
        Ok(())
    }

    fn finish(mut self) -> Result<Captured, String> {
        let url = self.url.take().ok_or("the line has no URL")?;
        let url = if url.contains("://") { url } else { format!("http://{url}") };
        if let Some((user, _)) =
            url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit_once('@'))
        {
            self.user.get_or_insert_with(|| user.as_bytes().to_vec());
        }
        self.draft.aim(&url);
        let mut pieces = self.pieces.take();
        if self.get
            && let Some(query) = pieces.take()
        {
            let mark = if self.draft.target.contains('?') { '&' } else { '?' };
            self.draft.target = format!("{}{mark}{}", self.draft.target, text(query, "-G")?);
        }
        let by_itself = if self.head {
            "HEAD"
        } else if pieces.is_some() {
            "POST"
        } else {
            "GET"
        };
        self.draft.method = self.method.take().unwrap_or_else(|| by_itself.to_owned());
        if let Some(user) = self.user.take() {
            self.by_itself("Authorization", &format!("Basic {}", STANDARD.encode(user)));
        }
        let agent = self.agent.take().unwrap_or_else(|| b"curl".to_vec());
        self.by_itself("User-Agent", &String::from_utf8_lossy(&agent));
        let json = self.json;
        self.by_itself("Accept", if json { "application/json" } else { "*/*" });
        if let Some(body) = pieces {
            if !json && !self.draft.has("content-type") && !self.removed.iter().any(|name| name == "content-type") {
                let note = "curl declares what -d sends as application/x-www-form-urlencoded unless -H says otherwise";
                self.draft.notes.push(note.to_owned());
            }
            let kind = if json { "application/json" } else { "application/x-www-form-urlencoded" };
            self.by_itself("Content-Type", kind);
            self.draft.body = body;
        }
        Ok(self.draft.finish())
    }

    /// A field that curl sends unless the line has it or takes it away.
    fn by_itself(&mut self, name: &str, value: &str) {
        if !self.draft.has(name) && !self.removed.contains(&name.to_ascii_lowercase()) {
            self.add(name, value.as_bytes());
        }
    }
}

fn text(bytes: Vec<u8>, what: &str) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
}

/// The value itself, or what the file that it names behind an `@` becomes.
fn named(
    value: Vec<u8>,
    file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    becomes: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Result<Vec<u8>, String> {
    match value.strip_prefix(b"@") {
        None => Ok(value),
        Some(name) => Ok(becomes(file(&text(name.to_vec(), "the name of a file")?)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Result<(String, String), String> {
        let file = |name: &str| match name {
            "body.json" => Ok(b"{\r\n}\n".to_vec()),
            other => Err(format!("no {other}")),
        };
        let Captured { head, body, .. } = read(line, &file)?;
        let head = String::from_utf8(head.to_vec()).unwrap();
        let own = |line: &&str| !line.starts_with("User-Agent") && !line.starts_with("Accept") && !line.is_empty();
        Ok((head.split("\r\n").filter(own).collect::<Vec<_>>().join("|"), String::from_utf8(body.to_vec()).unwrap()))
    }

    #[test]
    fn a_line_is_what_curl_would_send() {
        let form = "Content-Type: application/x-www-form-urlencoded";
        let cases = [
            ("curl pam.example/a", "GET /a HTTP/1.1|Host: pam.example".to_owned(), ""),
            ("curl https://pam.example", "GET / HTTP/1.1|Host: pam.example".to_owned(), ""),
            ("curl --url 'http://x:8080/a?b=c&d=e#f'", "GET /a?b=c&d=e HTTP/1.1|Host: x:8080".to_owned(), ""),
            ("curl -X PUT x/a -H 'B: c' -H'D: e'", "PUT /a HTTP/1.1|Host: x|B: c|D: e".to_owned(), ""),
            ("curl -sSXPUT x/a", "PUT /a HTTP/1.1|Host: x".to_owned(), ""),
            ("curl --request DELETE x/a", "DELETE /a HTTP/1.1|Host: x".to_owned(), ""),
            ("curl -I x", "HEAD / HTTP/1.1|Host: x".to_owned(), ""),
            ("curl x -d a=1 -d b=2", format!("POST / HTTP/1.1|Host: x|{form}|Content-Length: 7"), "a=1&b=2"),
            ("curl x -G -d a=1 --data b=2", "GET /?a=1&b=2 HTTP/1.1|Host: x".to_owned(), ""),
            ("curl x -d @body.json", format!("POST / HTTP/1.1|Host: x|{form}|Content-Length: 2"), "{}"),
            (
                "curl x --data-binary @body.json",
                format!("POST / HTTP/1.1|Host: x|{form}|Content-Length: 5"),
                "{\r\n}\n",
            ),
            ("curl x --data-raw @a", format!("POST / HTTP/1.1|Host: x|{form}|Content-Length: 2"), "@a"),
            (
                "curl x --json '{}'",
                "POST / HTTP/1.1|Host: x|Content-Type: application/json|Content-Length: 2".to_owned(),
                "{}",
            ),
            (
                "curl x -H 'content-type: application/json' -d '{}'",
                "POST / HTTP/1.1|Host: x|content-type: application/json|Content-Length: 2".to_owned(),
                "{}",
            ),
            ("curl x -H 'Content-Type:' -d 1", "POST / HTTP/1.1|Host: x|Content-Length: 1".to_owned(), "1"),
            ("curl x -H 'X-Empty;'", "GET / HTTP/1.1|Host: x|X-Empty:".to_owned(), ""),
            ("curl x -u a:b", "GET / HTTP/1.1|Host: x|Authorization: Basic YTpi".to_owned(), ""),
            ("curl http://a:b@x/", "GET / HTTP/1.1|Host: x|Authorization: Basic YTpi".to_owned(), ""),
            ("curl --oauth2-bearer k x", "GET / HTTP/1.1|Host: x|Authorization: Bearer k".to_owned(), ""),
            ("curl -o /dev/null --compressed -k x \\\n  -m 5", "GET / HTTP/1.1|Host: x".to_owned(), ""),
            ("curl -0 x", "GET / HTTP/1.0|Host: x".to_owned(), ""),
        ];
        for (line, head, body) in cases {
            assert_eq!(call(line), Ok((head, body.to_owned())), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (line, named) in [
            ("curl", "URL"),
            ("curl x y", "several"),
            ("curl x -F a=b", "-F"),
            ("curl x --next y", "--next"),
            ("curl x -sT a", "-T"),
            ("curl x -X", "-X"),
            ("curl x -d @other", "other"),
            ("curl x -H @fields", "-H @"),
            ("curl x -d \"$(cat a)\"", "$("),
            ("wget x", "curl"),
        ] {
            let fault = call(line).unwrap_err();
            assert!(fault.contains(named), "{line}: {fault}");
        }
    }
}
