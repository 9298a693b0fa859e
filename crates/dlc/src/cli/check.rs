//! `dlc check`: every error and warning, nothing else.

use super::options::Selection;
use dlc::{Compiler, Error};

/// Arguments of `dlc check`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Print one JSON object per diagnostic
    #[arg(long)]
    json: bool,
}

/// Exits 1 if there is an error; warnings alone are fine.
pub fn run(args: &Args) -> Result<(), Error> {
    let module = Compiler::new().compile_file(&args.selection.file)?;
    let report = module.check();
    if args.json {
        report.json.iter().for_each(|line| super::print(&format!("{line}\n")));
    } else if !report.text.is_empty() {
        eprint!("{}", report.text);
    }
    match report.errors {
        0 => Ok(()),
        1 => Err(Error::Argument("1 error".into())),
        n => Err(Error::Argument(format!("{n} errors"))),
    }
}
