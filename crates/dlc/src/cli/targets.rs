//! `dlc targets`: what can be compiled for, and what this machine has.

use dlc::Error;

/// Arguments of `dlc targets`.
#[derive(clap::Args)]
pub struct Args {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// One line per target: its name, and whether it runs here or why not.
pub fn run(args: &Args) -> Result<(), Error> {
    let targets = dlc::targets();
    if args.json {
        super::print(&format!("{}\n", serde_json::json!(targets)));
        return Ok(());
    }
    for target in targets {
        let note = match (&target.refusal, target.default) {
            (Some(reason), _) => reason.clone(),
            (None, true) => "runs here (default)".into(),
            (None, false) => "runs here".into(),
        };
        super::print(&format!("{:<12} {note}\n", target.name));
    }
    Ok(())
}
