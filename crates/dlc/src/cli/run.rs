//! `dlc run`: a model on inputs from files.

use super::options::{Codegen, Device, Selection};
use super::weights::{Reading, warn_not_finite};
use dlc::{Bindings, Error, Tensor};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `dlc run`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    device: Device,
    /// Parameters and state, a safetensors file
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Initialize the parameters from this seed instead
    #[arg(long)]
    seed: Option<i32>,
    /// An input: a .npy file, or a .npz file with an array of each input's name
    #[arg(long, value_name = "[NAME=]FILE")]
    input: Vec<String>,
    /// Write each output to DIR/NAME.npy
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print a JSON object with shapes, files and time instead of the values
    #[arg(long)]
    json: bool,
}

/// Sizes come from the inputs' shapes; `--bind` gives those that no input tells.
pub fn run(args: &Args) -> Result<(), Error> {
    let module = args.codegen.compiler_on(&args.device)?.compile_file(&args.selection.file)?;
    let model = module.model(&args.selection.model_name(&module)?)?;
    let inputs = dlc::npy::read_inputs(&args.input)?;
    let mut bindings: Bindings = model.sizes_of(&inputs)?;
    bindings.extend(args.selection.bindings());
    let network = model.bind_all(&bindings)?;
    let has_parameters = network.parameters().next().is_some();
    let network = match (&args.weights, args.seed) {
        (Some(path), _) => {
            let file = args.reading.file(path)?;
            warn_not_finite(path, &file.load(network.executable())?);
            network
        }
        (None, Some(seed)) => network.initialize(seed)?,
        (None, None) if has_parameters => {
            return Err(Error::Argument(
                "the model has parameters: give them with --weights FILE, or --seed N to \
                 initialize them"
                    .into(),
            ));
        }
        (None, None) => network,
    };
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let start = std::time::Instant::now();
    let outputs = network.run(&given)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let mut described = Vec::new();
    for (name, tensor) in outputs.iter() {
        let file = args.output.as_ref().map(|dir| dir.join(format!("{name}.npy")));
        if let Some(file) = &file {
            dlc::npy::write(file, tensor)?;
        } else if !args.json {
            super::print(&format!("{name} = {}\n", dlc::npy::show(tensor)));
        }
        let (dtype, shape) = (tensor.dtype().name(), &tensor.shape);
        described.push(json!({ "name": name, "dtype": dtype, "shape": shape, "file": file }));
    }
    if args.json {
        super::print(&format!("{}\n", json!({ "outputs": described, "ms": ms })));
    }
    Ok(())
}
