//! The command line: one file per command, all over the library's API.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 the input is wrong, 2 the
//! command line is, 3 the run failed, 101 a bug of dlc, 130 and 143 interrupted after saving.

mod bench;
mod check;
mod compile;
mod data;
mod eval;
mod explain;
mod generate;
mod options;
mod run;
mod targets;
mod train;
mod tune;
mod weights;

use clap::{Parser, Subcommand};
use dlc::Error;
use std::io::Write;
use std::process::ExitCode;

/// A compiler from deep-learning models to native kernels.
#[derive(Parser)]
#[command(name = "dlc", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Report every error and warning in a model file
    Check(check::Args),
    /// Compile a model, say what was done, and show any stage
    Compile(compile::Args),
    /// Run a model on inputs from .npy or .npz files
    Run(run::Args),
    /// Train a model as its `train` section says
    Train(train::Args),
    /// Measure a trained model on the test data
    Eval(eval::Args),
    /// Generate text with a trained model
    Generate(generate::Args),
    /// Time a model and report its compile time, work and memory
    Bench(bench::Args),
    /// Time what the cost model ranks close, and keep the fastest for later builds
    Tune(tune::Args),
    /// Fetch data sets
    Data(data::Args),
    /// Explain an error code such as E0203, or how a model's kernels are computed
    Explain(explain::Args),
    /// List the targets and what this machine offers
    Targets(targets::Args),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = dlc_front::on_large_stack(|| match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Targets(args) => targets::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Rendered diagnostics stand for themselves; other messages get the word `error`.
fn fail(error: &Error) -> ExitCode {
    let text = match error {
        Error::Source(text) => text.trim_end().to_owned(),
        other => format!("error: {other}"),
    };
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(error.exit_code())
}

/// Writes results to stdout. A reader that has gone away (`dlc .. | head`) ends the command
/// quietly.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
