//! What requests cost, as recorded and as counted now, and whether that may be. Its tests are in `tests/it/cost.rs`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Instructions, but for those of SHA-256.
    pub instructions: u64,
    /// Instructions of SHA-256, in software.
    pub hashing: u64,
    /// Blocks of memory taken, each a call of the allocator.
    pub allocations: u64,
}

/// What each kind of request costs, by its name.
pub type Figures = BTreeMap<String, Cost>;

/// What comes of comparing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Each is a reason to fail.
    pub wrong: Vec<String>,
    /// Each is worth being recorded, so that it is not lost again unseen.
    pub better: Vec<String>,
}

/// More than a tenth above what is recorded is too much.
pub fn judge(recorded: &Figures, counted: &Figures) -> Verdict {
    let mut verdict = Verdict::default();
    for (name, now) in counted {
        let Some(before) = recorded.get(name) else {
            verdict.wrong.push(format!("`{name}` is not recorded"));
            continue;
        };
        let kinds = [
            ("instructions", before.instructions, now.instructions),
            ("instructions of hashing", before.hashing, now.hashing),
            ("allocations", before.allocations, now.allocations),
        ];
        for (kind, before, now) in kinds {
            let change = format!("`{name}`: {now} {kind} a request, {before} are recorded ({})", percent(before, now));
            if now * 10 > before * 11 {
                verdict.wrong.push(change);
            } else if now * 10 < before * 9 {
                verdict.better.push(change);
            }
        }
    }
    let gone = recorded.keys().filter(|name| !counted.contains_key(*name));
    verdict.wrong.extend(gone.map(|name| format!("`{name}` is recorded, and there is no such request")));
    verdict
}

/// Reads what [`written`] gives.
pub fn read(text: &str) -> Result<Figures, String> {
    let table = DeTable::parse(text).map_err(|fault| fault.to_string())?.into_inner();
    let mut figures = Figures::new();
    for (name, value) in table {
        let name = name.into_inner().into_owned();
        let number = |kind: &str| match value.get_ref() {
            DeValue::Table(cost) => match cost.get(kind).map(|value| value.get_ref()) {
                Some(DeValue::Integer(number)) => number.as_str().parse().ok(),
                _ => None,
            },
            _ => None,
        };
        let cost = (number("instructions"), number("hashing"), number("allocations"));
        let (Some(instructions), Some(hashing), Some(allocations)) = cost else {
            return Err(format!("`{name}` is not {{ instructions = N, hashing = N, allocations = N }}"));
        };
        figures.insert(name, Cost { instructions, hashing, allocations });
    }
    Ok(figures)
}

/// As they are recorded, below what the file says of itself.
pub fn written(figures: &Figures, preface: &str) -> String {
    let width = figures.keys().map(String::len).max().unwrap_or_default() + 2;
    let line = |(name, cost): (&String, &Cost)| {
        let quoted = format!("\"{name}\"");
        let Cost { instructions, hashing, allocations } = cost;
        let numbers = format!("instructions = {instructions}, hashing = {hashing}, allocations = {allocations}");
        format!("{quoted:width$} = {{ {numbers} }}\n")
    };
    format!("{preface}\n{}", figures.iter().map(line).collect::<String>())
}

fn percent(before: u64, now: u64) -> String {
    match before {
        0 => "none before".to_owned(),
        _ => format!("{:+.1} %", (now as f64 / before as f64 - 1.0) * 100.0),
    }
}
