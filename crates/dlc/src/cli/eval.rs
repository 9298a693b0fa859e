//! `dlc eval`: a trained model on the test data.

use super::options::{Codegen, Selection};
use super::train::DataFolders;
use super::weights::{Reading, warn_not_finite};
use dlc::{Error, TrainOptions, TrainOverrides, evaluate};
use dlc_train::Metrics;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `dlc eval`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    data: DataFolders,
    /// Parameters and state, a safetensors file
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// Samples measured at a time
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints loss and metrics over all test samples.
pub fn run(args: &Args) -> Result<(), Error> {
    let file = &args.selection.file;
    let module = args.codegen.compiler()?.compile_file(file)?;
    let model = args.selection.train_name(&module)?;
    let options = TrainOptions {
        overrides: TrainOverrides { batch: args.batch, ..TrainOverrides::default() },
        bindings: args.selection.bindings(),
        data: args.data.data.clone(),
        ..TrainOptions::default()
    };
    let weights = args.reading.file(&args.weights)?;
    let evaluated = evaluate(&module, &model, file, &weights, &options)?;
    warn_not_finite(&args.weights, &evaluated.not_finite);
    report(evaluated.data, &evaluated.metrics, args.json);
    Ok(())
}

/// One line: `test: loss 0.0312  accuracy 99.02 %`, or a JSON object.
pub fn report(data: &str, metrics: &Metrics, json: bool) {
    if json {
        super::print(&format!("{}\n", json!({ "event": data, "metrics": metrics })));
    } else {
        super::print(&format!("{data}: {metrics}\n"));
    }
}
