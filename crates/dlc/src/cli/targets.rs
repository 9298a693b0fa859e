//! `dlc targets`: what can be compiled for, what this machine has, and what it reaches.

use dlc::{Compiler, Error, Roofs};

/// Arguments of `dlc targets`.
#[derive(clap::Args)]
pub struct Args {
    /// Measure what this machine reaches at most (arithmetic, and each level of memory, on one
    /// thread and on all), and keep it for `explain --perf` and `bench --kernels`
    #[arg(long)]
    measure: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One line per target: its name, and whether it runs here or why not.
pub fn run(args: &Args) -> Result<(), Error> {
    if args.measure {
        return measure(args.json);
    }
    let targets = dlc::targets();
    if args.json {
        super::print(&format!("{}\n", serde_json::json!(targets)));
        return Ok(());
    }
    for target in targets {
        let note = match (&target.refusal, &target.device) {
            (Some(reason), _) => reason.clone(),
            (None, Some(device)) => format!("runs here, on {device}"),
            (None, None) if target.default => "runs here (default)".into(),
            (None, None) => "runs here".into(),
        };
        super::print(&format!("{:<12} {note}\n", target.name));
    }
    Ok(())
}

fn measure(as_json: bool) -> Result<(), Error> {
    let roofs = Roofs::measure(&Compiler::new())?;
    let text = match as_json {
        true => format!("{}\n", serde_json::json!(roofs)),
        false => roofs.to_string(),
    };
    super::print(&text);
    match roofs.store()? {
        Some(path) => eprintln!("kept in {}", path.display()),
        None => eprintln!("not kept: no home folder is known"),
    }
    Ok(())
}
