//! The `portcullis` command; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis::command::main(std::env::args_os())
}
