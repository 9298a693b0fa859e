//! `dlc tune`: which of the ways the cost model ranks close is fastest on this machine.

use super::options::{Codegen, Selection};
use dlc::{Compiler, Error};
use serde_json::json;

/// Arguments of `dlc tune`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    /// Tune the training step of the model's `train` section
    #[arg(long)]
    train: bool,
    /// Time each way about this long, in seconds
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Builds on this machine take the choices from then on; results stay the same to the bit.
pub fn run(args: &Args) -> Result<(), Error> {
    let compiler: Compiler = args.codegen.compiler()?;
    let module = compiler.compile_file(&args.selection.file)?;
    let tuned = match args.train {
        true => {
            let name = args.selection.train_name(&module)?;
            dlc::tune_training(&module, &name, &args.selection.bindings(), args.seconds)?
        }
        false => {
            let name = args.selection.model_name(&module)?;
            dlc::tune_model(&module, &name, &args.selection.bindings(), args.seconds)?
        }
    };
    super::print(&if args.json { format!("{}\n", json!(tuned)) } else { tuned.to_string() });
    match tuned.store(&compiler)? {
        Some(path) => eprintln!("kept in {}", path.display()),
        None => eprintln!("not kept: no home folder is known"),
    }
    Ok(())
}
