//! Portcullis side by side with others, in one run, interleaved, on one machine.
//!
//! ```sh
//! cargo run --release -p side-by-side              # everything; about twelve minutes
//! cargo run --release -p side-by-side -- wallet    # what has that in its name
//! ```
//!
//! `ROUNDS` and `SECONDS` say how often and how long each is measured; five times three seconds, unless told otherwise.
//! Needs wrk and h2load (`apt-get install wrk nghttp2-client`), and for the others `haproxy nginx libnginx-mod-http-lua
//! lua-cjson`.
//!
//! Others are a proxy that is nothing but pingora, from the same lock file, and HAProxy and nginx with Lua doing the same
//! checks (`peers/`), where they are installed. What counts is the CPU time of a proxy's processes per request: it hangs
//! least on what else the machine does. Each figure is the median of the rounds.

mod idle;
mod load;
mod peers;
mod work;

use std::fs;
use std::io;
use std::process::{Child, Command};

use crate::load::Answered;
use crate::peers::{Kind, Peer, Place, free_port, root};
use crate::work::{Wire, Work};

/// What was measured of one peer at one kind of work.
#[derive(Default)]
struct Measured {
    /// CPU microseconds per request, a figure a round.
    cpu: Vec<f64>,
    per_second: Vec<f64>,
    /// Microseconds of each request at a fixed rate.
    times: Vec<u64>,
}

fn main() -> io::Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let number = |name| std::env::var(name).ok().and_then(|number: String| number.parse().ok());
    let (rounds, seconds) = (number("ROUNDS").unwrap_or(5), number("SECONDS").unwrap_or(3));
    build()?;
    let folder = std::env::temp_dir().join(format!("side-by-side-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let place = Place { binaries: binaries()?, pam: free_port()?, folder: folder.canonicalize()? };
    let _left = Left(&place);
    certify(&place)?;
    let _pam = Pam(Command::new(place.binaries.join("pam")).arg(format!("127.0.0.1:{}", place.pam)).spawn()?);

    println!("| work | Portcullis | bare pingora | HAProxy | nginx + Lua | of bare (aim) | of the better (aim) |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for work in work::all().into_iter().filter(|work| work.name.to_lowercase().contains(&wanted.to_lowercase())) {
        eprintln!("{}", work.name);
        let peers = start(&work, &place)?;
        let mut measured: Vec<Measured> = peers.iter().map(|_| Measured::default()).collect();
        for round in 0..=rounds {
            for (peer, measured) in peers.iter().zip(&mut measured) {
                let (before, memory) = (peer.cpu(), peer.memory());
                let answered = load::flat_out(&work, peer, &place, CONNECTIONS, if round == 0 { 1 } else { seconds })?;
                let cpu = (peer.cpu() - before).as_secs_f64() * 1e6 / answered.requests.max(1) as f64;
                check(&work, peer, answered)?;
                // The first round is for warming up.
                if round > 0 {
                    measured.cpu.push(cpu);
                    measured.per_second.push(answered.per_second);
                }
                eprintln!(
                    "  {round} {:<12} {cpu:7.2} µs  {:7.0}/s  {} MiB",
                    peer.kind.as_str(),
                    answered.per_second,
                    memory >> 20
                );
            }
        }
        println!("{}", line(&work, &peers, &measured));
        if work.wire == Wire::Http1 && work.family != "betstack" {
            let slowest = measured.iter().map(|one| median(&one.per_second)).fold(f64::INFINITY, f64::min);
            let rate = (slowest / 2.0) as u64;
            for _ in 0..rounds {
                for (peer, measured) in peers.iter().zip(&mut measured) {
                    measured.times.extend(load::at_rate(&work, peer, &place, rate, seconds)?);
                }
            }
            println!("{}", latency_lines(rate, &peers, &mut measured));
        }
    }
    if "idle connections".contains(&wanted.to_lowercase()) {
        println!("{}", idle::line(&place)?);
    }
    Ok(())
}

/// Each with the features that are its own: what is built together would share them.
fn build() -> io::Result<()> {
    for package in ["portcullis", "side-by-side"] {
        let built = Command::new("cargo")
            .args(["build", "--release", "--locked", "--quiet", "--bins", "--package", package])
            .current_dir(root())
            .status()?;
        if !built.success() {
            return Err(io::Error::other(format!("{package} was not built")));
        }
    }
    Ok(())
}

fn binaries() -> io::Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    own.parent().map(std::path::Path::to_owned).ok_or_else(|| io::Error::other("no folder of binaries"))
}

fn certify(place: &Place) -> io::Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let rcgen::CertifiedKey { cert, signing_key } = made.map_err(io::Error::other)?;
    let (certificate, key) = (cert.pem(), signing_key.serialize_pem());
    fs::write(place.folder.join("tls.pem"), &certificate)?;
    fs::write(place.folder.join("tls.key"), &key)?;
    fs::write(place.folder.join("both.pem"), certificate + &key)
}

fn start(work: &Work, place: &Place) -> io::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for kind in Kind::ALL {
        match kind.start(work, place)? {
            Some(peer) => peers.push(peer),
            None => eprintln!("  {} is not installed", kind.as_str()),
        }
    }
    Ok(peers)
}

/// Whoever refuses what is right, or lets pass what is wrong, does something else than what is to be measured.
fn check(work: &Work, peer: &Peer, answered: Answered) -> io::Result<()> {
    let refuses = work.refused && peer.kind != Kind::Bare;
    let as_expected = answered.requests > 0 && answered.not_ok == if refuses { answered.requests } else { 0 };
    match as_expected {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} at {}: {answered:?}", peer.kind.as_str(), work.name))),
    }
}

fn line(work: &Work, peers: &[Peer], measured: &[Measured]) -> String {
    let figure = |kind| {
        let at = peers.iter().position(|peer| peer.kind == kind)?;
        measured.get(at).map(|measured| median(&measured.cpu))
    };
    let (bare, better) = work.aims;
    row(work.name, "µs", figure, &format!(" (≤ {bare:.2})"), &format!(" (≤ {better:.2})"))
}

fn latency_lines(rate: u64, peers: &[Peer], measured: &mut [Measured]) -> String {
    for measured in measured.iter_mut() {
        measured.times.sort_unstable();
    }
    let at = |kind, share: f64| {
        let at = peers.iter().position(|peer| peer.kind == kind)?;
        let times = &measured.get(at)?.times;
        times.get((times.len() as f64 * share) as usize).map(|time| *time as f64)
    };
    let p99 = row(&format!("– at {rate} a second, 99 % within"), "µs", |kind| at(kind, 0.99), " (≤ 1.00)", " (≤ 1.00)");
    let p50 = row(&format!("– at {rate} a second, half within"), "µs", |kind| at(kind, 0.5), "", "");
    format!("{p50}\n{p99}")
}

fn row(name: &str, unit: &str, figure: impl Fn(Kind) -> Option<f64>, of_bare: &str, of_better: &str) -> String {
    let shown = Kind::ALL.map(|kind| figure(kind).map_or("–".to_owned(), |figure| format!("{figure:.1} {unit}")));
    let own = figure(Kind::Portcullis).unwrap_or(f64::NAN);
    let others = [Kind::HaProxy, Kind::Nginx].into_iter().filter_map(&figure);
    let better = others.fold(f64::INFINITY, f64::min);
    let of = |other: Option<f64>| other.filter(|other| other.is_finite()).map_or(f64::NAN, |other| own / other);
    let (bare, better) = (of(figure(Kind::Bare)), of(Some(better)));
    format!("| {name} | {} | {bare:.2}{of_bare} | {better:.2}{of_better} |", shown.join(" | "))
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What a run has written, logs above all.
struct Left<'p>(&'p Place);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0.folder);
    }
}

struct Pam(Child);

impl Drop for Pam {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Over which wrk asks as fast as it can; a quarter of them, with four streams each, over HTTP/2.
const CONNECTIONS: u32 = 32;
