//! `dlc bench`: how long a model takes, and what it costs.

use super::options::{Codegen, Selection};
use dlc::{BenchOptions, Error};
use serde_json::json;

/// Arguments of `dlc bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    /// Time the training step of the model's `train` section
    #[arg(long)]
    train: bool,
    /// Batch size of the training step
    #[arg(long, requires = "train")]
    batch: Option<i64>,
    /// Time at least this long, in seconds, after warming up
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Time each kernel too
    #[arg(long)]
    kernels: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Inputs are random; parameters are initialized from seed 0.
pub fn run(args: &Args) -> Result<(), Error> {
    let start = std::time::Instant::now();
    let module = args.codegen.compiler()?.compile_file(&args.selection.file)?;
    let options = BenchOptions { start, seconds: args.seconds, kernels: args.kernels };
    let bindings = args.selection.bindings();
    let result = if args.train {
        let name = args.selection.train_name(&module)?;
        dlc::bench_training(&module, &name, args.batch, &bindings, &options)?
    } else {
        let name = args.selection.model_name(&module)?;
        dlc::bench_model(&module, &name, &bindings, &options)?
    };
    if args.json {
        super::print(&format!("{}\n", json!(result)));
    } else {
        super::print(&result.to_string());
    }
    Ok(())
}
