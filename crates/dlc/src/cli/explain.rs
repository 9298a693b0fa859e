//! `dlc explain CODE`: the paragraph behind an error code.

use dlc::Error;

/// Arguments of `dlc explain`.
#[derive(clap::Args)]
pub struct Args {
    /// The code, as in `error[E0203]`
    code: String,
}

/// Prints the explanation.
pub fn run(args: &Args) -> Result<(), Error> {
    let code = args.code.trim().to_ascii_uppercase();
    match dlc::explain(&code) {
        Some(text) => super::print(&format!("{code}: {text}\n")),
        None => return Err(Error::Argument(format!("there is no error code `{}`", args.code))),
    }
    Ok(())
}
