//! The `dlc` command.

use std::process::ExitCode;

mod cli;

/// Compilers make many small things for a short time: a tenth of a compilation is theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
