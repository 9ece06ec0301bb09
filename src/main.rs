//! The `portcullis` command; everything it does is in the library.

use std::process::ExitCode;

/// A request takes and gives back memory some dozen times, on whichever thread it is: this one is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portcullis::command::main(std::env::args_os())
}
