//! `dlc train`: what the model's `train` section says, with a progress bar.

use super::options::{Codegen, Device, Selection};
use dlc::{Error, TrainOptions, TrainOverrides, train};
use dlc_train::{Bar, JsonLines, Lines, Observer, StopReason};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Arguments of `dlc train`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    data: DataFolders,
    /// Epochs at most
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    epochs: Option<i64>,
    /// Samples of a batch
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
    /// Batches of a step
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    accumulate: Option<i64>,
    /// Learning rate
    #[arg(long)]
    lr: Option<f64>,
    /// Seed of first values, order of samples and dropout
    #[arg(long)]
    seed: Option<i64>,
    /// Folder for weights and checkpoints; runs/MODEL if neither this nor the file says
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint
    #[arg(long)]
    resume: bool,
    /// Print events as JSON lines on stdout
    #[arg(long)]
    json: bool,
}

/// Where data sets are.
#[derive(clap::Args)]
pub struct DataFolders {
    /// Folder or file of a data set, instead of the model file's; may be repeated
    #[arg(long, value_name = "NAME=DIR", value_parser = parse_folder)]
    pub data: Vec<(String, PathBuf)>,
}

/// Trains; then measures the best weights on the test data.
pub fn run(args: &Args) -> Result<(), Error> {
    let file = &args.selection.file;
    let module = args.codegen.compiler_on(&args.device)?.compile_file(file)?;
    let model = args.selection.train_name(&module)?;
    let signal = Arc::new(AtomicUsize::new(0));
    let options = TrainOptions {
        overrides: TrainOverrides {
            batch: args.batch,
            accumulate: args.accumulate,
            epochs: args.epochs,
            seed: args.seed,
            lr: args.lr,
        },
        bindings: args.selection.bindings(),
        data: args.data.data.clone(),
        out: args.out.clone(),
        resume: args.resume,
        interrupt: catch_signals(&signal),
    };
    let mut observer = observer(args.json);
    let trained = train(&module, &model, file, &options, &mut *observer)?;
    drop(observer);
    if trained.summary.reason == StopReason::Interrupted {
        return Err(Error::Interrupted {
            signal: signal.load(Ordering::Relaxed) as u8,
            dir: trained.dir,
        });
    }
    if let Some((data, metrics)) = &trained.test {
        super::eval::report(data, metrics, args.json);
    }
    let weights = trained.dir.join("weights.safetensors");
    eprintln!("weights of the best epoch: {}", weights.display());
    Ok(())
}

fn observer(json: bool) -> Box<dyn Observer> {
    match (json, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(JsonLines::new(Box::new(std::io::stdout()))),
        (false, true) => Box::new(Bar::new()),
        (false, false) => Box::new(Lines::new(Box::new(std::io::stderr()))),
    }
}

/// The flag that SIGINT and SIGTERM set; a second signal ends the process at once.
pub(super) fn catch_signals(signal: &Arc<AtomicUsize>) -> Arc<AtomicBool> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    let interrupt = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        let code = 128 + number;
        // Registration fails only for signals that cannot be caught.
        let _ = flag::register_conditional_shutdown(number, code, interrupt.clone());
        let _ = flag::register_usize(number, signal.clone(), number as usize);
        let _ = flag::register(number, interrupt.clone());
    }
    interrupt
}

fn parse_folder(text: &str) -> Result<(String, PathBuf), String> {
    let (name, dir) = text.split_once('=').ok_or("expected NAME=DIR, as in mnist=data/mnist")?;
    Ok((name.to_owned(), PathBuf::from(dir)))
}
