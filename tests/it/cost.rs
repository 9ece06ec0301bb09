//! The guard over what a request costs (`benches/gate`): what it lets pass, and what it fails for.

#[path = "../../benches/gate/figures.rs"]
mod figures;

use self::figures::{Cost, Figures, Verdict, judge, read, written};
use crate::world::root;

#[test]
fn every_figure_that_is_recorded_is_read() {
    let recorded = read(&std::fs::read_to_string(root().join("benches/gate.toml")).unwrap()).unwrap();
    assert!(recorded.len() > 10 && recorded.values().all(|cost| cost.instructions > 0));
    let ci = std::fs::read_to_string(root().join(".ci/test")).unwrap();
    assert!(ci.lines().any(|line| line.ends_with("-- --guard")));
}

#[test]
fn the_side_by_side_is_found_by_the_command_that_is_told_of_it() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("`cargo run --release -p side-by-side`"));
    let manifest = std::fs::read_to_string(root().join("benches/proxy/Cargo.toml")).unwrap();
    // It has programs of its own beside it.
    assert!(manifest.contains("\ndefault-run = \"side-by-side\"\n"));
}

// The target of a signed wallet call.
#[test]
fn a_signed_wallet_call_takes_ten_blocks_of_memory_at_most() {
    let recorded = read(&std::fs::read_to_string(root().join("benches/gate.toml")).unwrap()).unwrap();
    assert!(recorded["wallet, signed"].allocations <= 10);
}

fn figures(instructions: u64, allocations: u64) -> Figures {
    [("wallet, signed".to_owned(), Cost { instructions, hashing: 100, allocations })].into()
}

#[test]
fn more_than_a_tenth_above_what_is_recorded_is_wrong() {
    let recorded = figures(10_000, 10);
    for (instructions, allocations) in [(10_000, 10), (11_000, 11), (9_000, 9)] {
        assert_eq!(judge(&recorded, &figures(instructions, allocations)), Verdict::default());
    }
    let verdict = judge(&recorded, &figures(11_001, 10));
    let said = "`wallet, signed`: 11001 instructions a request, 10000 are recorded (+10.0 %)";
    assert_eq!((&*verdict.wrong, &*verdict.better), (&[said.to_owned()][..], &[][..]));
    let verdict = judge(&recorded, &figures(10_000, 12));
    let said = "`wallet, signed`: 12 allocations a request, 10 are recorded (+20.0 %)";
    assert_eq!((&*verdict.wrong, &*verdict.better), (&[said.to_owned()][..], &[][..]));
    assert_eq!(judge(&figures(10_000, 0), &figures(10_000, 1)).wrong.len(), 1);
}

#[test]
fn more_than_a_tenth_below_is_worth_a_word() {
    let verdict = judge(&figures(10_000, 10), &figures(8_999, 8));
    assert_eq!((verdict.wrong.len(), verdict.better.len()), (0, 2));
}

#[test]
fn what_is_not_in_both_is_wrong() {
    let none = Figures::new();
    assert_eq!(judge(&none, &figures(1, 1)).wrong, ["`wallet, signed` is not recorded"]);
    let gone = "`wallet, signed` is recorded, and there is no such request";
    assert_eq!(judge(&figures(1, 1), &none).wrong, [gone]);
}

#[test]
fn what_is_written_is_read_again() {
    let text = written(&figures(12_345, 7), "# What a request costs.\n");
    assert_eq!(
        text,
        "# What a request costs.\n\n\"wallet, signed\" = { instructions = 12345, hashing = 100, allocations = 7 }\n"
    );
    assert_eq!(read(&text), Ok(figures(12_345, 7)));
    assert!(read("a = 1").is_err() && read("a = { instructions = 1 }").is_err() && read("a =").is_err());
}
