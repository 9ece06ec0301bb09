//! What the gate alone costs: nanoseconds by Criterion, instructions and allocations by callgrind.
//!
//! ```text
//! cargo bench --bench gate                                         nanoseconds, for each kind of request
//! cargo bench --bench gate -- growth                               the same as callers, routes, tokens and bodies grow
//! cargo bench --bench gate --profile guard -- --guard              fails where a request costs more than `benches/gate.toml` says
//! cargo bench --bench gate --profile guard -- --record             writes that file
//! ```
//!
//! The last two need `valgrind`. They count, and do not measure time: a machine that is busy or slow changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod call;
mod cases;
mod figures;
mod growth;
mod guard;
mod scene;

use std::process::ExitCode;

use criterion::Criterion;

use crate::cases::cases;

/// The one that Portcullis runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--guard"] => guard::judge(),
        ["--record"] => guard::record(),
        // What the guard looks at from outside.
        [guard::TURNS, name, turns] => {
            let case = cases().into_iter().find(|case| case.name == name).unwrap();
            case.turn(turns.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => {
            measure();
            ExitCode::SUCCESS
        }
    }
}

fn measure() {
    println!("target: `wallet, signed` takes 2 µs and 10 allocations at most");
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("gate");
    for case in cases() {
        group.bench_function(case.name, |bencher| bencher.iter(|| case.turn(1)));
    }
    group.finish();
    growth::measure(&mut criterion);
    criterion.final_summary();
}
