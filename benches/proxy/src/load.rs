//! Load, by wrk for HTTP/1.1 and by h2load for HTTP/2 and for a fixed rate.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::process::Command;

use crate::peers::{Peer, Place, peers};
use crate::work::{KEY, Wire, Work};

/// What came of a load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered {
    pub requests: u64,
    /// With another status than 2xx, or none.
    pub not_ok: u64,
    pub per_second: f64,
}

/// As fast as it goes over `connections`, for some seconds.
pub fn flat_out(work: &Work, peer: &Peer, place: &Place, connections: u32, seconds: u32) -> io::Result<Answered> {
    match work.wire {
        Wire::Http1 => wrk(work, peer, place, connections, seconds),
        Wire::Http2 | Wire::Http2Tls => {
            let mut command = h2load(work, peer, place)?;
            command.args(["-t1", &format!("-c{}", connections / 4), "-m4", &format!("-D{seconds}")]);
            let said = run(&mut command)?;
            // `finished in 3.01s, 12345.67 req/s, …`, `requests: 37000 total, 37010 started, 37000 done, …` and `status codes:
            // 37000 2xx, …`.
            let per_second = field(&said, "finished in", 1).unwrap_or(0.0);
            let requests = field(&said, "requests:", 4).unwrap_or(0.0) as u64;
            let ok = field(&said, "status codes:", 0).unwrap_or(0.0) as u64;
            Ok(Answered { requests, not_ok: requests.saturating_sub(ok), per_second })
        }
    }
}

/// How long requests took, in microseconds, at a fixed rate.
pub fn at_rate(work: &Work, peer: &Peer, place: &Place, rate: u64, seconds: u32) -> io::Result<Vec<u64>> {
    let log = place.folder.join("h2load.log");
    let _ = fs::remove_file(&log);
    let mut command = h2load(work, peer, place)?;
    if work.wire == Wire::Http1 {
        command.arg("--h1");
    }
    let each = (rate / CONNECTIONS_AT_RATE).max(1);
    command.args(["-t1", &format!("-c{CONNECTIONS_AT_RATE}"), &format!("-D{seconds}"), &format!("--rps={each}")]);
    command.arg("--log-file").arg(&log);
    run(&mut command)?;
    let times = fs::read_to_string(log)?;
    Ok(times.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect())
}

fn wrk(work: &Work, peer: &Peer, place: &Place, connections: u32, seconds: u32) -> io::Result<Answered> {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    match work.family {
        "betstack" => {
            let run = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros());
            command.arg("-s").arg(peers().join("betstack.lua")).env("KEY", KEY).env("RUN", run.to_string());
        }
        _ => {
            let mut script = format!("wrk.method = \"{}\"\n", work.method);
            for (name, value) in &work.fields {
                let _ = writeln!(script, "wrk.headers[\"{name}\"] = \"{value}\"");
            }
            if !work.body.is_empty() {
                let _ = writeln!(script, "wrk.body = [[{}]]", String::from_utf8_lossy(&work.body));
            }
            let file = place.folder.join("wrk.lua");
            fs::write(&file, script)?;
            command.arg("-s").arg(file);
        }
    }
    command.arg(format!("http://127.0.0.1:{}{}", peer.port, work.path));
    let said = run(&mut command)?;
    // `12345 requests in 3.00s, …` and, where there are any, `Non-2xx or 3xx responses: 17`.
    let line = said.lines().find(|line| line.contains(" requests in ")).unwrap_or_default();
    let requests = line.split_whitespace().next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let not_ok = field(&said, "Non-2xx or 3xx responses:", 0).unwrap_or(0.0) as u64;
    Ok(Answered { requests, not_ok, per_second: field(&said, "Requests/sec:", 0).unwrap_or(0.0) })
}

fn h2load(work: &Work, peer: &Peer, place: &Place) -> io::Result<Command> {
    let mut command = Command::new("h2load");
    for (name, value) in &work.fields {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    if !work.body.is_empty() {
        let file = place.folder.join("request.body");
        fs::write(&file, &work.body)?;
        command.arg("-d").arg(file);
    }
    let scheme = if work.wire == Wire::Http2Tls { "https" } else { "http" };
    command.arg(format!("{scheme}://127.0.0.1:{}{}", peer.port, work.path));
    Ok(command)
}

fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// The `at`th word behind a text, as far as it is a number.
fn field(said: &str, behind: &str, at: usize) -> Option<f64> {
    let word = said.split(behind).nth(1)?.split_whitespace().nth(at)?;
    word.trim_end_matches(|one: char| !one.is_ascii_digit()).parse().ok()
}

const CONNECTIONS_AT_RATE: u64 = 16;
