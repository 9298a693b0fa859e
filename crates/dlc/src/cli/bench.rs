//! `dlc bench`: how long a model takes, and what it costs.

use super::options::{Codegen, Device, Selection};
use dlc::{BenchOptions, Compiler, Error, Roofs};
use serde_json::json;

/// Arguments of `dlc bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    device: Device,
    /// Time the training step of the model's `train` section
    #[arg(long)]
    train: bool,
    /// Batch size of the training step
    #[arg(long, requires = "train")]
    batch: Option<i64>,
    /// An input, or a field of the batch: a .npy file, or a .npz file with an array of each name; the
    /// others are random
    #[arg(long, value_name = "[NAME=]FILE")]
    input: Vec<String>,
    /// Time at least this long, in seconds, after warming up
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Time each kernel too, beside what bounds it: the roofs of this machine, which are measured
    /// if they never were
    #[arg(long)]
    kernels: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Parameters are initialized from seed 0.
pub fn run(args: &Args) -> Result<(), Error> {
    let compiler = args.codegen.compiler_on(&args.device)?;
    let roofs = if args.kernels { roofs(&compiler)? } else { None };
    let start = std::time::Instant::now();
    let module = compiler.compile_file(&args.selection.file)?;
    let inputs = dlc::npy::read_inputs(&args.input)?;
    let options =
        BenchOptions { start, seconds: args.seconds, kernels: args.kernels, roofs, inputs };
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

/// The roofs that are kept; else they are measured now, and kept if there is a place for them. None
/// for a GPU.
fn roofs(compiler: &Compiler) -> Result<Option<Roofs>, Error> {
    let stored = Roofs::stored(compiler);
    if stored.is_some() || compiler.any_target().as_cpu().is_none() {
        return Ok(stored);
    }
    eprintln!("measuring what this machine reaches, once");
    let roofs = Roofs::measure(compiler)?;
    if let Err(error) = roofs.store() {
        eprintln!("warning: {error}");
    }
    Ok(Some(roofs))
}
