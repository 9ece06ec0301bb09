//! Counts what requests cost, under valgrind's callgrind, and holds it against what is recorded.
//!
//! A request is judged a few times in one run and many times in another: what is different between the two is what the
//! requests cost, without the start. That is not quite the same each time, since tables hash by a key of chance: by some
//! ten thousand instructions, of which a request has its share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cases::cases;
use crate::figures::{self, Cost, Figures};

/// Says that a case is to be judged a number of times, and nothing else done.
pub const TURNS: &str = "--turns";

/// Fails where a request costs too much.
pub fn judge() -> ExitCode {
    let recorded = std::fs::read_to_string(file()).map_err(|fault| fault.to_string());
    let recorded = recorded.and_then(|text| figures::read(&text)).unwrap_or_else(|fault| {
        eprintln!("benches/gate.toml: {fault}");
        Figures::new()
    });
    let counted = counted();
    let verdict = figures::judge(&recorded, &counted);
    for better in &verdict.better {
        println!("better: {better}");
    }
    for wrong in &verdict.wrong {
        println!("worse: {wrong}");
    }
    if !verdict.better.is_empty() || !verdict.wrong.is_empty() {
        println!("{HOW_TO_RECORD}");
    }
    if verdict.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes down what requests cost now.
pub fn record() -> ExitCode {
    std::fs::write(file(), figures::written(&counted(), PREFACE)).unwrap();
    ExitCode::SUCCESS
}

fn counted() -> Figures {
    println!("{:36} {:>12} {:>12} {:>12}", "a request", "instructions", "hashing", "allocations");
    let mut counted = Figures::new();
    for case in cases() {
        let (fewer, more) = if case.is_long() { (10, 60) } else { (100, 2100) };
        let (few, many) = (Totals::of(case.name, fewer), Totals::of(case.name, more));
        let each = |few: u64, many: u64| (many - few + (more - fewer) / 2) / (more - fewer);
        let cost = Cost {
            instructions: each(few.instructions, many.instructions),
            hashing: each(few.hashing, many.hashing),
            allocations: each(few.allocations, many.allocations),
        };
        let Cost { instructions, hashing, allocations } = cost;
        println!("{:36} {instructions:>12} {hashing:>12} {allocations:>12}", case.name);
        counted.insert(case.name.to_owned(), cost);
    }
    counted
}

/// What a whole run took.
#[derive(Default)]
struct Totals {
    instructions: u64,
    hashing: u64,
    allocations: u64,
}

impl Totals {
    fn of(case: &str, turns: u64) -> Totals {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", path.display()));
        command.arg(std::env::current_exe().unwrap()).args([TURNS, case, &turns.to_string()]);
        let status = command.stdin(Stdio::null()).status().expect("valgrind is needed to count instructions");
        assert!(status.success(), "`{case}` under valgrind: {status}");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        Totals::read(&text)
    }

    /// Out of callgrind's format. Below `fn=(7) name` (only `fn=(7)` when it comes again) stand lines with what the function
    /// itself took; `cfn=(8) name` says what it calls, `calls=N` how often, and the line behind that what the calls took,
    /// which stands below their own name as well.
    fn read(text: &str) -> Totals {
        let mut totals = Totals::default();
        let mut kinds = HashMap::new();
        let (mut here, mut called) = (Kind::Other, Kind::Other);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(function) = line.strip_prefix("fn=") {
                here = kind(function, &mut kinds);
            } else if let Some(function) = line.strip_prefix("cfn=") {
                called = kind(function, &mut kinds);
            } else if let Some(count) = line.strip_prefix("calls=") {
                if called == Kind::Allocation {
                    totals.allocations += count.split(' ').next().unwrap().parse::<u64>().unwrap();
                }
                lines.next();
            } else if line.starts_with(|one: char| one.is_ascii_digit() || "+-*".contains(one)) {
                let took: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
                match here {
                    Kind::Hashing => totals.hashing += took,
                    Kind::Allocation | Kind::Other => totals.instructions += took,
                }
            }
        }
        // By other names, neither would be counted.
        assert!(totals.hashing > 0 && totals.allocations > 0, "{ALLOCATE:?} {HASH:?}");
        totals
    }
}

/// What a function is for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Allocation,
    Hashing,
    Other,
}

fn kind<'t>(function: &'t str, kinds: &mut HashMap<&'t str, Kind>) -> Kind {
    let (number, name) = function.split_once(')').unwrap();
    if !name.is_empty() {
        let is_one_of = |words: &[&str]| words.iter().any(|word| name.contains(word));
        let kind = match (is_one_of(&ALLOCATE), is_one_of(&HASH)) {
            (true, _) => Kind::Allocation,
            (false, true) => Kind::Hashing,
            (false, false) => Kind::Other,
        };
        kinds.insert(number, kind);
    }
    kinds[number]
}

/// By which everything in Rust asks for memory.
const ALLOCATE: [&str; 2] = ["__rust_alloc", "__rust_realloc"];

/// Where blocks of messages are hashed.
const HASH: [&str; 1] = ["sha2::sha256::"];

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gate.toml")
}

const HOW_TO_RECORD: &str = "If it is meant to be so, say why in the commit and record it: cargo bench --bench gate --profile guard -- --record";

const PREFACE: &str = "\
# What the gate does for a request: instructions, those of SHA-256 apart, and allocations. The test command fails when one
# of these grows by more than a tenth. To record what it is now: cargo bench --bench gate --profile guard -- --record
#
# Counted by callgrind, so it is the same on a busy machine. With another version of rustc it may be something else, and with
# a processor that lacks AVX2. Valgrind shows a program no SHA instructions: hashing is what SHA-256 takes in software, many
# times of what it takes with them, and says how many blocks are hashed: each is some 3,400.
";
