//! The fuzz targets of `tests/fuzz` over their corpora, and over mutations of these: the same ones in every run, as many as a
//! test command can afford. `cargo fuzz` goes on from there.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::panic::catch_unwind;
use std::path::PathBuf;

use crate::world::root;

#[path = "../fuzz/targets.rs"]
mod targets;

// threat: H7
#[test]
fn no_parser_panics_or_breaks_its_word() {
    std::thread::scope(|threads| {
        let running: Vec<_> = targets::TARGETS
            .into_iter()
            .map(|(name, target)| (name, threads.spawn(move || run(name, target))))
            .collect();
        for (name, thread) in running {
            assert!(thread.join().is_ok(), "{name}");
        }
    });
}

#[test]
fn every_target_has_its_corpus_and_its_file() {
    let listed = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let targets: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed("tests/fuzz/corpus"), targets);
    assert_eq!(listed("tests/fuzz/fuzz_targets"), targets);
    let manifest = std::fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let file = std::fs::read_to_string(root().join(format!("tests/fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(file.contains(&format!("targets::{name}(bytes)")), "{name}");
    }
}

/// Runs a target over each seed and so many mutations of them in all.
fn run(name: &str, target: targets::Target) {
    let seeds = seeds(name);
    assert!(seeds.len() >= 3, "{name}");
    let mutations = match name {
        "config" | "dialect" => 3_000,
        _ => 20_000,
    };
    for seed in &seeds {
        attempt(name, target, seed);
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    let mut chance = Chance(hasher.finish() | 1);
    for at in 0..mutations {
        let mut bytes = seeds[at % seeds.len()].clone();
        for _ in 0..=chance.below(4) {
            chance.mutate(&mut bytes, &seeds);
        }
        attempt(name, target, &bytes);
    }
}

/// What broke it is shown, to become a seed.
fn attempt(name: &str, target: targets::Target, bytes: &[u8]) {
    assert!(catch_unwind(|| target(bytes)).is_ok(), "{name}: b\"{}\"", bytes.escape_ascii());
}

/// A corpus, and files of the repository that serve as well.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let corpus = format!("tests/fuzz/corpus/{name}");
    let folders: &[&str] = match name {
        "config" => &[&corpus, "config", "tests/invalid"],
        "dialect" => &[&corpus, "config/dialects", "tests/invalid/dialects", "tests/vectors/dialects"],
        _ => &[&corpus],
    };
    let files = |folder: &&str| std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = folders.iter().flat_map(files).filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Xorshift: the same mutations in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 33) as usize) % bound.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let length = self.below(16).min(bytes.len() - at);
        match self.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = INTERESTING[self.below(INTERESTING.len())],
            2 => bytes.insert(at, INTERESTING[self.below(INTERESTING.len())]),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let part = bytes[at..at + length].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                let part = other[from..from + self.below(32).min(other.len() - from)].to_vec();
                bytes.splice(at..at + length, part);
            }
            6 => bytes.truncate(at),
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
}

/// Bytes that mean something to one parser or another.
const INTERESTING: &[u8] = b"\0\x01\t\n\r\x1f \"#%&'*+,-./0:;<=>?@[\\]^`{|}~\x7f\x80\xbf\xc0\xe2\xed\xf4\xff19aAzZ";

const WORDS: [&[u8]; 20] = [
    b"\r\n",
    b"\r\n\r\n",
    b": ",
    b"\\u0000",
    b"\\ud800",
    b"\"token\":",
    b"1e999",
    b"[[[[[[[[[[[[[[[[",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"%2e%2e",
    b"%00",
    b"/../",
    b"{body}",
    b"{signature}",
    b"|sha256",
    b"\xef\xbb\xbf",
    b"9223372036854775808",
    b"\n\n",
];
