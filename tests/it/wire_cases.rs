//! The files of `tests/wire`: bytes that callers send over HTTP/1.1, and what must come of them. How they are written stands
//! in the README beside them; adding a case is adding lines or a file.
//!
//! Of each refusal is held here: status and family's words, what becomes of the connection, that not one byte reached the
//! PAM, and that log and metrics have the reason.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::world::{
    Connection, PATIENCE, Reply, Request, Seen, World, basic, betstack, hmac_sha256_hex, now, reason, root, valkyrie,
    wallet,
};

#[tokio::test]
async fn every_file_of_cases_holds() {
    let folder = root().join("tests/wire");
    let places = Arc::new(Semaphore::new(8));
    let mut running = JoinSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "README.md" {
            continue;
        }
        let (text, places) = (std::fs::read_to_string(&path).unwrap(), Arc::clone(&places));
        running.spawn(async move {
            let _place = places.acquire_owned().await;
            let file = File::parse(&name, &text)?;
            tokio::spawn(file.run()).await.unwrap_or_else(|fault| Err(format!("{name}: {fault}")))
        });
    }
    let mut cases = 0;
    let mut faults = Vec::new();
    while let Some(ran) = running.join_next().await {
        match ran.unwrap_or_else(|fault| Err(fault.to_string())) {
            Ok(count) => cases += count,
            Err(fault) => faults.push(fault),
        }
    }
    faults.sort();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(cases > 400, "{cases}");
}

#[test]
fn a_file_that_is_not_understood_is_refused_with_its_line() {
    let good = "# Title.\nthreat: A1\n\n> GET / HTTP/1.1\n>\n< 404 no_route, open\n\n> {{good}}\\\n< 200, open\n";
    assert!(File::parse("A01-x.txt", good).is_ok());
    for (old, new, expected) in [
        ("threat: A1\n", "treat: A1\n", "A01-x.txt:2: unknown: treat: A1"),
        ("threat: A1\n", "threat: A1\nset: x=\n  y\n", "A01-x.txt:4: unknown:   y"),
        ("threat: A1\n", "threat: B1\n", "A01-x.txt:2: the name of the file is not that of its first row"),
        ("threat: A1\n", "", "A01-x.txt: names no row"),
        ("config", "config", "A01-x.txt: no case is admitted"),
        ("> GET", "GET", "A01-x.txt:4: unknown: GET / HTTP/1.1"),
        ("> GET /", "> GET {{what}}", "A01-x.txt:4: unknown: {{what}}"),
        ("> GET /", "> GET \\q", "A01-x.txt:4: unknown: \\q"),
        (", open\n\n", "\n\n", "A01-x.txt:6: what becomes of the connection is not said"),
        ("< 404 no_route, open\n", "", "A01-x.txt:4: nothing is expected"),
        (" no_route, open", " no_route, ajar", "A01-x.txt:6: unknown: ajar"),
        ("> GET / HTTP/1.1\n>\n", "= X\n", "A01-x.txt:4: there is no template"),
        ("< 404 no_route, open\n", "< 404 no_route, open\npamm: x\n", "A01-x.txt:7: unknown: pamm: x"),
        (">\n", "--wait--\n", "A01-x.txt:5: unknown: --wait--"),
    ] {
        let text = match old {
            "config" => good.split("\n\n> {{good}}").next().unwrap().to_owned(),
            _ => good.replacen(old, new, 1),
        };
        assert_eq!(File::parse("A01-x.txt", &text).err().as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn what_does_not_come_out_as_it_says_is_told_with_its_line() {
    let text = "threat: A1\n\n> {{good}}\\\n< 200, open\n\n> {{good}}\\\n< 400 host, closed\n";
    let fault = File::parse("A01-x.txt", text).unwrap().run().await.unwrap_err();
    assert!(fault.starts_with("A01-x.txt:6: status 200 instead of 400"), "{fault}");
    let text = text.replace("400 host, closed", "200, closed");
    let fault = File::parse("A01-x.txt", &text).unwrap().run().await.unwrap_err();
    assert!(fault.starts_with("A01-x.txt:6: Connection: [] where the connection is said to be closed"), "{fault}");
    let text = "threat: A1\n\n> {{good}}\\\n< 200, open\n\n> GET\\s\n>\n< 400 host, closed\n";
    let fault = File::parse("A01-x.txt", text).unwrap().run().await.unwrap_err();
    assert!(fault.starts_with("A01-x.txt: the log says request_line of case 6 instead of host"), "{fault}");
}

/// A file of cases for one family.
struct File {
    name: String,
    family: Family,
    set: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Valkyrie,
    Wallet,
    Betstack,
}

/// What is sent on one connection, and what comes of it.
struct Case {
    line: usize,
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Send(Vec<Piece>),
    Mark(Mark),
    Expect(Expectation),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// What follows goes in a write of its own.
    Split,
    /// What follows goes byte by byte.
    Drip,
    /// Another caller is served before the case goes on.
    Pause,
    /// The caller sends nothing more.
    HalfClose,
    /// The caller is gone.
    Close,
}

/// Bytes to send, some of which depend on the rest of their request.
#[derive(Clone)]
enum Piece {
    Bytes(Vec<u8>),
    Length,
    Signature,
    Timestamp,
    /// What proves the caller, as header lines.
    Proof,
    /// A number that no other case has.
    Unique,
}

#[derive(Clone, Default)]
struct Expectation {
    /// `None` when the connection ends without a reply.
    status: Option<u16>,
    /// Why it is refused.
    reason: Option<String>,
    fate: Fate,
    pam: Vec<String>,
    pam_has: Vec<String>,
    pam_lacks: Vec<String>,
    pam_body: Option<Vec<u8>>,
    reply_has: Vec<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    /// More comes in this case.
    #[default]
    GoesOn,
    /// It serves another request.
    Open,
    Closed,
    /// The caller is gone; only log and metrics tell.
    Unheard,
}

/// What became of a request.
#[derive(PartialEq, Eq)]
enum Decided {
    Admitted,
    Refused,
}

// ---- reading ----

impl File {
    fn parse(name: &str, text: &str) -> Result<File, String> {
        let mut file = File { name: name.to_owned(), family: Family::Valkyrie, set: Vec::new(), cases: Vec::new() };
        let mut template: Option<Vec<String>> = None;
        let mut rows = 0;
        for (first, lines) in paragraphs(text) {
            let at = |line: usize| format!("{name}:{}", first + line);
            if lines[0].starts_with("~") {
                template = Some(
                    lines
                        .iter()
                        .enumerate()
                        .map(|(line, text)| sent('~', text).ok_or_else(|| unknown(&at(line), text)))
                        .collect::<Result<_, _>>()?,
                );
            } else if rows == 0 && !lines[0].starts_with(['>', '=', '<', '-']) {
                for (line, text) in lines.iter().enumerate() {
                    match text.split_once(": ") {
                        Some(("threat", list)) => {
                            let row = list.split(", ").next().unwrap();
                            let (letter, number) = row.split_at(1);
                            if !name.starts_with(&format!("{letter}{number:0>2}-")) {
                                return Err(format!("{}: the name of the file is not that of its first row", at(line)));
                            }
                            rows += 1;
                        }
                        Some(("config", "valkyrie")) => file.family = Family::Valkyrie,
                        Some(("config", "wallet")) => file.family = Family::Wallet,
                        Some(("config", "betstack")) => file.family = Family::Betstack,
                        Some(("set", set)) => file.set.push(set.to_owned()),
                        Some(_) | None => return Err(unknown(&at(line), text)),
                    }
                }
            } else {
                file.cases.extend(file.read_cases(&at, first, &lines, template.as_deref())?);
            }
        }
        if rows == 0 {
            return Err(format!("{name}: names no row"));
        }
        let admits = |step: &Step| matches!(step, Step::Expect(Expectation { status: Some(200..300), .. }));
        if !file.cases.iter().any(|case| case.steps.iter().any(admits)) {
            return Err(format!("{name}: no case is admitted"));
        }
        Ok(file)
    }

    /// The cases of a paragraph: one, or one for each line with `=`.
    fn read_cases(
        &self,
        at: &dyn Fn(usize) -> String,
        first: usize,
        lines: &[&str],
        template: Option<&[String]>,
    ) -> Result<Vec<Case>, String> {
        let mut steps: Vec<Step> = Vec::new();
        let mut variants = Vec::new();
        for (line, text) in lines.iter().enumerate() {
            let at = at(line);
            if let Some(variant) = sent('=', text) {
                let template = template.ok_or_else(|| format!("{at}: there is no template"))?;
                let mut pieces = Vec::new();
                for text in template {
                    self.pieces(&at, &text.replace("{{case}}", &variant), &mut pieces)?;
                }
                variants.push((first + line, pieces));
            } else if let Some(text) = sent('>', text) {
                if !matches!(steps.last(), Some(Step::Send(_))) {
                    steps.push(Step::Send(Vec::new()));
                }
                let Some(Step::Send(pieces)) = steps.last_mut() else { unreachable!() };
                self.pieces(&at, &text, pieces)?;
            } else if let Some(text) = text.strip_prefix("< ") {
                steps.push(Step::Expect(expectation(&at, text)?));
            } else if text.starts_with("--") {
                steps.push(Step::Mark(match *text {
                    "--split--" => Mark::Split,
                    "--drip--" => Mark::Drip,
                    "--pause--" => Mark::Pause,
                    "--half-close--" => Mark::HalfClose,
                    "--close--" => Mark::Close,
                    _ => return Err(unknown(&at, text)),
                }));
            } else {
                let Some(Step::Expect(expected)) = steps.last_mut() else { return Err(unknown(&at, text)) };
                match text.split_once(": ") {
                    Some(("pam", line)) => expected.pam.push(line.to_owned()),
                    Some(("pam has", field)) => expected.pam_has.push(field.to_owned()),
                    Some(("pam lacks", field)) => expected.pam_lacks.push(field.to_owned()),
                    Some(("pam body", body)) => expected.pam_body = Some(plain(&at, body)?),
                    Some(("reply has", field)) => expected.reply_has.push(field.to_owned()),
                    Some(_) | None => return Err(unknown(&at, text)),
                }
            }
        }
        match steps.iter().rposition(|step| matches!(step, Step::Expect(_))).map(|last| &steps[last]) {
            Some(Step::Expect(Expectation { status: Some(_), fate: Fate::GoesOn, .. })) => {
                let line = lines.iter().rposition(|line| line.starts_with('<')).unwrap();
                return Err(format!("{}: what becomes of the connection is not said", at(line)));
            }
            Some(_) => {}
            None => return Err(format!("{}: nothing is expected", at(0))),
        }
        if variants.is_empty() {
            return Ok(vec![Case { line: first, steps }]);
        }
        let case = |(line, pieces)| Case { line, steps: [&[Step::Send(pieces)], &steps[..]].concat() };
        Ok(variants.into_iter().map(case).collect())
    }

    /// What one line says is sent.
    fn pieces(&self, at: &str, text: &str, pieces: &mut Vec<Piece>) -> Result<(), String> {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if rest.starts_with('\\') && rest.len() > 1 {
                let (byte, behind) = escaped(rest).ok_or_else(|| unknown(at, &rest[..2]))?;
                pieces.push(Piece::Bytes(vec![byte]));
                rest = behind;
            } else if let Some(inside) = rest.strip_prefix("{{") {
                let mut end = inside.find("}}").ok_or_else(|| unknown(at, rest))?;
                // A JSON text that is signed may end with braces of its own.
                while inside.starts_with("signature of") && inside[end + 2..].starts_with('}') {
                    end += 1;
                }
                let (name, behind) = (&inside[..end], &inside[end + 2..]);
                pieces.push(self.placeholder(at, name)?);
                rest = behind;
            } else if rest == "\\" {
                // The line goes on in the next one.
                return Ok(());
            } else {
                pieces.push(Piece::Bytes(rest[..first.len_utf8()].into()));
                rest = &rest[first.len_utf8()..];
            }
        }
        pieces.push(Piece::Bytes(b"\r\n".to_vec()));
        Ok(())
    }

    fn placeholder(&self, at: &str, name: &str) -> Result<Piece, String> {
        let bytes = |text: &str| Ok(Piece::Bytes(text.into()));
        match (name, self.family) {
            ("length", _) => Ok(Piece::Length),
            ("signature", Family::Wallet | Family::Betstack) => Ok(Piece::Signature),
            ("timestamp", Family::Betstack) => Ok(Piece::Timestamp),
            ("proof", _) => Ok(Piece::Proof),
            ("unique", _) => Ok(Piece::Unique),
            ("good", family) => Ok(Piece::Bytes(family.good().bytes())),
            ("key", Family::Valkyrie) => bytes(valkyrie::KEY),
            ("token", Family::Valkyrie) => bytes(valkyrie::TOKEN),
            ("basic", Family::Valkyrie) => bytes(&basic("operator", valkyrie::PASSWORD)),
            ("basic", Family::Wallet) => bytes(&basic(wallet::USER, wallet::PASSWORD)),
            ("password", Family::Wallet) => bytes(wallet::PASSWORD),
            _ => match (name.strip_prefix("signature of "), name.split_once(" * ")) {
                (Some(text), _) if self.family == Family::Wallet => {
                    bytes(&hmac_sha256_hex(wallet::KEY, &plain(at, text)?))
                }
                (_, Some((text, count))) if text.len() > 1 && text.starts_with('"') && text.ends_with('"') => {
                    let count = count.parse().map_err(|_| unknown(at, count))?;
                    Ok(Piece::Bytes(plain(at, &text[1..text.len() - 1])?.repeat(count)))
                }
                _ => Err(unknown(at, &format!("{{{{{name}}}}}"))),
            },
        }
    }
}

/// Lines between empty lines, with the number of the first; comments are skipped.
fn paragraphs(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut paragraphs: Vec<(usize, Vec<&str>)> = Vec::new();
    let mut fresh = true;
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() {
            fresh = true;
        } else if !line.starts_with('#') {
            match paragraphs.last_mut() {
                Some((first, lines)) if !fresh && *first + lines.len() == at + 1 => lines.push(line),
                _ => paragraphs.push((at + 1, vec![line])),
            }
            fresh = false;
        }
    }
    paragraphs
}

/// The text of a line to send; the sign alone is an empty line.
fn sent(sign: char, line: &str) -> Option<String> {
    let rest = line.strip_prefix(sign)?;
    if rest.is_empty() { Some(String::new()) } else { rest.strip_prefix(' ').map(str::to_owned) }
}

/// The byte an escape stands for, and what follows it.
fn escaped(text: &str) -> Option<(u8, &str)> {
    let simple = |byte| Some((byte, &text[2..]));
    match text.as_bytes().get(1)? {
        b'r' => simple(b'\r'),
        b'n' => simple(b'\n'),
        b't' => simple(b'\t'),
        b's' => simple(b' '),
        b'0' => simple(0),
        b'\\' => simple(b'\\'),
        b'x' => Some((u8::from_str_radix(text.get(2..4)?, 16).ok()?, &text[4..])),
        _ => None,
    }
}

/// A text with escapes and nothing else in it.
fn plain(at: &str, text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '\\' {
            let (byte, behind) = escaped(rest).ok_or_else(|| unknown(at, rest))?;
            bytes.push(byte);
            rest = behind;
        } else {
            bytes.extend(rest[..first.len_utf8()].bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(bytes)
}

/// `400 host, closed`, `200, open`, `100`, `closed`.
fn expectation(at: &str, text: &str) -> Result<Expectation, String> {
    if text == "closed" {
        return Ok(Expectation { fate: Fate::Closed, ..Expectation::default() });
    }
    let (what, fate) = match text.split_once(", ") {
        None => (text, Fate::GoesOn),
        Some((what, "open")) => (what, Fate::Open),
        Some((what, "closed")) => (what, Fate::Closed),
        Some((what, "unheard")) => (what, Fate::Unheard),
        Some((_, fate)) => return Err(unknown(at, fate)),
    };
    let (status, reason) = match what.split_once(' ') {
        None => (what, None),
        Some((status, reason)) => (status, Some(reason.to_owned())),
    };
    let status = status.parse().map_err(|_| unknown(at, status))?;
    if reason.is_none() && !(100..400).contains(&status) {
        return Err(format!("{at}: a refusal has a reason"));
    }
    Ok(Expectation { status: Some(status), reason, fate, ..Expectation::default() })
}

fn unknown(at: &str, text: &str) -> String {
    format!("{at}: unknown: {text}")
}

// ---- running ----

/// What is to be found in log and metrics when all is over.
#[derive(Default)]
struct Ledger {
    /// Correlation id, reason and line of each refusal somebody heard of.
    heard: Vec<(String, String, usize)>,
    /// How often which reason.
    reasons: BTreeMap<String, usize>,
    admitted: usize,
}

impl File {
    /// Runs the cases one after the other against a Portcullis of their own; how many there were.
    async fn run(self) -> Result<usize, String> {
        let set: Vec<&str> = self.set.iter().map(String::as_str).collect();
        let world = Arc::new(World::of(self.family.config(), &set).await);
        let mut ledger = Ledger::default();
        let (mut count, mut faults) = (0, Vec::new());
        let (name, family) = (self.name, self.family);
        for case in self.cases {
            let line = case.line;
            let (world, before) = (Arc::clone(&world), std::mem::take(&mut ledger));
            // In a task of its own, so that what is broken elsewhere is told with the line of the case too.
            match tokio::spawn(async move { case.run(&world, family, before).await }).await {
                Ok((after, ran)) => {
                    ledger = after;
                    faults.extend(ran.err().map(|fault| format!("{name}:{line}: {fault}")));
                }
                Err(fault) => return Err(format!("{name}:{line}: {fault}")),
            }
            count += 1;
        }
        if !faults.is_empty() {
            return Err(faults.join("\n"));
        }
        ledger.settle(&name, world).await?;
        Ok(count)
    }
}

impl Ledger {
    /// Holds log, metrics and PAM against what was expected.
    async fn settle(self, name: &str, world: Arc<World>) -> Result<(), String> {
        let (portcullis, pam) = (world.portcullis.clone(), world.pam.clone());
        let world = Arc::into_inner(world).expect("a case still runs");
        let lines = world.finish().await;
        for (id, expected, line) in &self.heard {
            let found = reason(&lines, id);
            if found != *expected {
                return Err(format!("{name}: the log says {found} of case {line} instead of {expected}"));
            }
        }
        let metrics = String::from_utf8(portcullis.exposition()).unwrap();
        for (reason, expected) in &self.reasons {
            let logged = lines.iter().filter(|line| line["reason"] == **reason).count();
            let of_it = |line: &&str| line.contains(&format!("outcome=\"refused\",reason=\"{reason}\""));
            let counted: f64 = metrics
                .lines()
                .filter(|line| line.starts_with("portcullis_decisions_total{"))
                .filter(of_it)
                .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                .sum();
            if logged != *expected || counted != *expected as f64 {
                return Err(format!(
                    "{name}: {reason}: {expected} expected, {logged} in the log, {counted} in the metrics"
                ));
            }
        }
        let refused: usize = self.reasons.values().sum();
        let requests = lines.iter().filter(|line| line["event"] == "request").count();
        if requests != refused + self.admitted {
            return Err(format!(
                "{name}: {requests} requests in the log, {refused} refused, {} admitted",
                self.admitted
            ));
        }
        if pam.requests().len() != self.admitted {
            return Err(format!("{name}: the PAM got {} requests instead of {}", pam.requests().len(), self.admitted));
        }
        Ok(())
    }
}

impl Case {
    async fn run(self, world: &World, family: Family, mut ledger: Ledger) -> (Ledger, Result<(), String>) {
        let ran = self.play(world, family, &mut ledger).await;
        (ledger, ran)
    }

    async fn play(self, world: &World, family: Family, ledger: &mut Ledger) -> Result<(), String> {
        let mut caller = Some(world.connect().await);
        let mut drip = false;
        let mut head_request = false;
        let mut begins = true;
        let mut asked = 0;
        let before = world.pam.touched();
        let resolved = resolve(self.line, &self.steps, family)?;
        let mut sendings = resolved.into_iter();
        for step in &self.steps {
            match step {
                Step::Send(_) => {
                    let bytes = sendings.next().unwrap();
                    if begins {
                        (head_request, begins) = (bytes.starts_with(b"HEAD "), false);
                    }
                    let caller = caller.as_mut().ok_or("nothing can be sent any more")?;
                    caller.stream.set_nodelay(true).unwrap();
                    let length = if drip { 1 } else { bytes.len().max(1) };
                    for part in bytes.chunks(length) {
                        // A refusal may close on what is still being sent.
                        let _ = caller.stream.write_all(part).await;
                        if drip {
                            tokio::task::yield_now().await;
                        }
                    }
                    drip = false;
                }
                Step::Mark(Mark::Split) => tokio::task::yield_now().await,
                Step::Mark(Mark::Drip) => drip = true,
                Step::Mark(Mark::Pause) => {
                    let reply = world.send(&family.good()).await;
                    asked += 1;
                    ledger.admitted += 1;
                    demand(reply.status == 200, || format!("another caller got {}", reply.status))?;
                }
                Step::Mark(Mark::HalfClose) => {
                    caller.as_mut().ok_or("the caller is gone")?.stream.shutdown().await.map_err(|_| "reset")?;
                }
                Step::Mark(Mark::Close) => caller = None,
                Step::Expect(Expectation { status: Some(100), .. }) => {
                    let mut invitation = [0; 25];
                    let caller = caller.as_mut().ok_or("the caller is gone")?;
                    let read = timeout(PATIENCE, caller.stream.read_exact(&mut invitation)).await;
                    read.map_err(|_| "no invitation came")?
                        .map_err(|_| "the connection ended without an invitation")?;
                    demand(&invitation == b"HTTP/1.1 100 Continue\r\n\r\n", || {
                        "something else than 100 came".to_owned()
                    })?;
                }
                Step::Expect(expected) => {
                    begins = true;
                    let held = expected.hold(self.line, world, family, caller.as_mut(), head_request, ledger).await?;
                    asked += usize::from(held == Decided::Admitted);
                    if asked == 0 && expected.fate != Fate::GoesOn {
                        demand(world.pam.touched() == before, || "the PAM was touched".to_owned())?;
                    }
                    if expected.fate == Fate::Open {
                        let caller = caller.as_mut().ok_or("the caller is gone")?;
                        let reply = caller.send(&family.good()).await;
                        demand(reply.status == 200, || {
                            format!("the next request on the connection got {}", reply.status)
                        })?;
                        ledger.admitted += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Expectation {
    /// Reads a reply and holds everything against it.
    async fn hold(
        &self,
        line: usize,
        world: &World,
        family: Family,
        caller: Option<&mut Connection>,
        head_request: bool,
        ledger: &mut Ledger,
    ) -> Result<Decided, String> {
        if let Some(reason) = &self.reason {
            *ledger.reasons.entry(reason.clone()).or_default() += 1;
        }
        let Some(caller) = caller else {
            demand(self.fate == Fate::Unheard, || "there is nobody to hear the reply".to_owned())?;
            return Ok(Decided::Refused);
        };
        let Some(status) = self.status else {
            let rest = caller.rest().await;
            demand(rest.is_empty(), || format!("{:?} came", String::from_utf8_lossy(&rest)))?;
            return Ok(Decided::Refused);
        };
        let interim = caller.interim;
        let reply = if head_request { caller.reply_to_head().await } else { caller.reply().await };
        let shown = String::from_utf8_lossy(&reply.body).into_owned();
        demand(reply.status == status, || format!("status {} instead of {status}: {shown}", reply.status))?;
        demand(caller.interim == interim, || "it was invited to send a body".to_owned())?;
        let connection = reply.values("Connection");
        match self.fate {
            Fate::Closed => demand(connection == ["close"], || {
                format!("Connection: {connection:?} where the connection is said to be closed")
            })?,
            Fate::GoesOn | Fate::Open | Fate::Unheard => {
                demand(connection.is_empty(), || format!("Connection: {connection:?} where it is said to be open"))?;
            }
        }
        for field in &self.reply_has {
            holds_field(&reply.fields, field, "the reply")?;
        }
        match &self.reason {
            Some(reason) => {
                family.assert_words(&reply, head_request);
                let ids = reply.values("X-Correlation-ID");
                demand(ids.len() == 1, || format!("correlation ids {ids:?}"))?;
                ledger.heard.push((ids[0].to_owned(), reason.clone(), line));
            }
            None => {
                ledger.admitted += 1;
                let requests = world.pam.requests();
                let seen = requests.get(ledger.admitted - 1).ok_or("the PAM did not get it")?;
                self.hold_pam(seen)?;
            }
        }
        if self.fate == Fate::Closed {
            let rest = caller.rest().await;
            demand(rest.is_empty(), || format!("{:?} came behind the reply", String::from_utf8_lossy(&rest)))?;
        }
        Ok(if self.reason.is_some() { Decided::Refused } else { Decided::Admitted })
    }

    fn hold_pam(&self, seen: &Seen) -> Result<(), String> {
        if !self.pam.is_empty() {
            let lines: Vec<&str> = seen.head.strip_suffix("\r\n\r\n").unwrap().split("\r\n").collect();
            let same =
                lines.len() == self.pam.len() && lines.iter().zip(&self.pam).all(|(line, like)| is_like(line, like));
            demand(same, || format!("the PAM got\n{}", lines.join("\n")))?;
        }
        for field in &self.pam_has {
            holds_field(&seen.fields, field, "the PAM")?;
        }
        for name in &self.pam_lacks {
            demand(seen.values(name).is_empty(), || format!("the PAM got {name}"))?;
        }
        match &self.pam_body {
            Some(body) if *body != seen.body => {
                Err(format!("the PAM got the body {:?}", String::from_utf8_lossy(&seen.body)))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Family {
    fn config(self) -> &'static str {
        match self {
            Family::Valkyrie => "config/valkyrie.toml",
            Family::Wallet => "config/wallet.toml",
            Family::Betstack => "config/betstack.toml",
        }
    }

    /// A request that passes.
    fn good(self) -> Request {
        match self {
            Family::Valkyrie => valkyrie::call("GET", "/players/session?provider=x"),
            Family::Wallet => wallet::signed("balance", &wallet::body("t")),
            Family::Betstack => Request::new("POST", "/pam").body(r#"{"action":"ping"}"#),
        }
    }

    /// Our own reply, in the family's form and nothing besides.
    fn assert_words(self, reply: &Reply, head_request: bool) {
        if head_request {
            return assert!(reply.body.is_empty());
        }
        assert_eq!(reply.values("Content-Type"), ["application/json"]);
        assert_eq!(reply.values("Content-Length"), [reply.body.len().to_string()]);
        let code = match self {
            Family::Valkyrie => valkyrie::code(reply),
            Family::Wallet => wallet::code(reply),
            Family::Betstack => betstack::code(reply),
        };
        assert_ne!(code, serde_json::Value::Null);
    }
}

/// The bytes of each sending. Length and signature are those of the request's body: of all that is sent between two
/// replies, what follows its first empty line.
fn resolve(line: usize, steps: &[Step], family: Family) -> Result<Vec<Vec<u8>>, String> {
    let mut sendings: Vec<Vec<u8>> = Vec::new();
    let is_final = |step: &Step| matches!(step, Step::Expect(expected) if expected.status != Some(100));
    for request in steps.split(is_final) {
        let sent: Vec<&Vec<Piece>> = request
            .iter()
            .filter_map(|step| match step {
                Step::Send(pieces) => Some(pieces),
                Step::Mark(_) | Step::Expect(_) => None,
            })
            .collect();
        let timestamp = now().to_string();
        let known = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.clone(),
            Piece::Timestamp => timestamp.clone().into_bytes(),
            Piece::Unique => format!("{line}{}", sendings.len()).into_bytes(),
            // Something, or the line they stand in would be empty.
            Piece::Length | Piece::Signature | Piece::Proof => b"?".to_vec(),
        };
        let whole: Vec<u8> = sent.iter().flat_map(|pieces| pieces.iter()).flat_map(known).collect();
        let body = whole.windows(4).position(|window| window == b"\r\n\r\n").map_or(&[][..], |end| &whole[end + 4..]);
        let signature = family.signature(&timestamp, body);
        let bytes = |piece: &Piece| match piece {
            Piece::Bytes(_) | Piece::Timestamp | Piece::Unique => known(piece),
            Piece::Length => body.len().to_string().into_bytes(),
            Piece::Signature => signature.clone().into_bytes(),
            Piece::Proof => family.proof(&timestamp, &signature).into_bytes(),
        };
        let resolved: Vec<Vec<u8>> = sent.iter().map(|pieces| pieces.iter().flat_map(bytes).collect()).collect();
        sendings.extend(resolved);
    }
    Ok(sendings)
}

impl Family {
    fn signature(self, timestamp: &str, body: &[u8]) -> String {
        match self {
            Family::Valkyrie => String::new(),
            Family::Wallet => hmac_sha256_hex(wallet::KEY, body),
            Family::Betstack => {
                let compact: Vec<u8> = portcullis::json::compact(body).flatten().copied().collect();
                hmac_sha256_hex(betstack::SECRET, &[timestamp.as_bytes(), &compact].concat())
            }
        }
    }

    /// The header lines that prove the caller, without the last line end.
    fn proof(self, timestamp: &str, signature: &str) -> String {
        match self {
            Family::Valkyrie => {
                format!("Authorization: Bearer {}\r\nX-Player-Token: {}", valkyrie::KEY, valkyrie::TOKEN)
            }
            Family::Wallet => {
                let authorization = basic(wallet::USER, wallet::PASSWORD);
                format!("Authorization: {authorization}\r\nX-Request-Signature: {signature}")
            }
            Family::Betstack => format!("timestamp: {timestamp}\r\nsignature: {signature}"),
        }
    }
}

/// One field of this name, with this value.
fn holds_field(fields: &[(String, String)], expected: &str, whose: &str) -> Result<(), String> {
    let (name, value) = expected.split_once(':').ok_or_else(|| unknown("a field", expected))?;
    let found: Vec<&str> =
        fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect();
    let value = value.trim_start_matches(' ');
    demand(found.len() == 1 && is_like(found[0], value), || format!("{whose} got {name}: {found:?}"))
}

/// Equal, where a `*` stands for anything and `{{uuid}}` for what we make ourselves.
fn is_like(text: &str, like: &str) -> bool {
    if let Some(front) = like.strip_suffix("{{uuid}}") {
        let id = text.strip_prefix(front).and_then(|id| uuid::Uuid::parse_str(id).ok());
        return id.is_some_and(|id| id.get_version_num() == 7);
    }
    match like.split_once('*') {
        None => text == like,
        Some((front, back)) => {
            text.len() >= front.len() + back.len() && text.starts_with(front) && text.ends_with(back)
        }
    }
}

fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The folder, for the test that looks for names of rows.
pub const FOLDER: &str = "tests/wire";

/// The rows that a file names.
pub fn rows(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let marks = text.lines().filter_map(|line| line.strip_prefix("threat: "));
    marks.flat_map(|list| list.split(", ")).map(str::to_owned).collect()
}
