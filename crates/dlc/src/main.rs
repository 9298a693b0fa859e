//! The `dlc` command.

use std::process::ExitCode;

mod cli;

#[global_allocator]
static ALLOCATOR: dlc_cpu::allocator::Allocator = dlc_cpu::allocator::Allocator;

fn main() -> ExitCode {
    dlc::when_freed(dlc_cpu::allocator::give_back);
    cli::main()
}
