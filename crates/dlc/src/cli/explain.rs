//! `dlc explain`: the paragraph behind an error code; how the kernels of a model are computed.

use super::options::{Codegen, Selection, parse_binding};
use dlc::Error;
use serde_json::json;

/// Arguments of `dlc explain`.
#[derive(clap::Args)]
pub struct Args {
    /// The code, as in `error[E0203]`; with --perf, a model file
    #[arg(value_name = "CODE|FILE")]
    subject: String,
    /// Explain the model's kernels: algorithm, tile, layout, threads, work, what bounds each, and why
    /// neighbours are not fused
    #[arg(long)]
    perf: bool,
    /// The model, where the file has several
    #[arg(long, requires = "perf")]
    model: Option<String>,
    /// Give a dim its size; may be repeated
    #[arg(long, requires = "perf", value_name = "DIM=SIZE", value_parser = parse_binding)]
    bind: Vec<(String, i64)>,
    /// Explain the training program of the model's `train` section
    #[arg(long, requires = "perf")]
    train: bool,
    #[command(flatten)]
    codegen: Codegen,
    /// Print one JSON object
    #[arg(long, requires = "perf")]
    json: bool,
}

/// Prints the explanation.
pub fn run(args: &Args) -> Result<(), Error> {
    if args.perf {
        return kernels(args);
    }
    let code = args.subject.trim().to_ascii_uppercase();
    match dlc::explain(&code) {
        Some(text) => super::print(&format!("{code}: {text}\n")),
        None => return Err(Error::Argument(format!("there is no error code `{}`", args.subject))),
    }
    Ok(())
}

fn kernels(args: &Args) -> Result<(), Error> {
    let (model, bind) = (args.model.clone(), args.bind.clone());
    let selection = Selection { file: args.subject.clone().into(), model, bind };
    let compiler = args.codegen.compiler()?;
    let module = compiler.compile_file(&selection.file)?;
    let entries = selection.entries(&module, args.train)?;
    let perf = dlc::explain_perf(&compiler, &entries)?;
    super::print(&if args.json { format!("{}\n", json!(perf)) } else { perf.to_string() });
    Ok(())
}
