//! Options of commands that read weights.

use dlc::{Error, Renames, WeightsFile};
use std::path::{Path, PathBuf};

/// How a weights file is read.
#[derive(clap::Args)]
pub struct Reading {
    /// A table of other names for the tensors in the file: lines `OLD = NEW`, where `*` stands for
    /// any text
    #[arg(long, value_name = "FILE", requires = "weights")]
    rename: Option<PathBuf>,
    /// Refuse weights that are not finite instead of warning
    #[arg(long, requires = "weights")]
    strict: bool,
}

impl Reading {
    /// The file of that path, to be read in this way.
    pub fn file(&self, path: &Path) -> Result<WeightsFile, Error> {
        let renames = self.rename.as_deref().map(Renames::read).transpose()?.unwrap_or_default();
        Ok(WeightsFile { path: path.to_owned(), renames, strict: self.strict })
    }
}

/// One warning for all tensors with elements that are not finite.
pub fn warn_not_finite(path: &Path, tensors: &[(String, usize)]) {
    if tensors.is_empty() {
        return;
    }
    let counts: Vec<String> = tensors.iter().map(|(name, n)| format!("`{name}`: {n}")).collect();
    let (path, counts) = (path.display(), counts.join(", "));
    eprintln!("warning: `{path}` holds numbers that are not finite ({counts})");
}
