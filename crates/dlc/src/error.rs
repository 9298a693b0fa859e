//! Every way a use of dlc can fail, and the exit code it means.

use dlc_kernel::{BuildError, RunError};
use std::path::{Path, PathBuf};

/// Why something failed. Displays as one message without a trailing newline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's text is wrong: rendered diagnostics, each with its source lines.
    #[error("{0}")]
    Source(String),
    /// A file cannot be read or written.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// What was given does not fit the model: names, sizes, shapes, types.
    #[error("{0}")]
    Argument(String),
    /// The program cannot be built on this machine or within its limits.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A call of a compiled program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A signal stopped training; its state was saved.
    #[error("interrupted: the state is saved, go on with --resume --out {}", .dir.display())]
    Interrupted {
        /// The signal's number.
        signal: u8,
        /// The run's folder.
        dir: PathBuf,
    },
    /// Data, checkpoints or the training loop failed.
    #[error(transparent)]
    Train(#[from] dlc_train::Error),
}

impl Error {
    /// The command's exit code: 1 the input is wrong, 3 the run failed, 130 or 143 it was
    /// interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Source(_) | Error::Argument(_) | Error::File { .. } => 1,
            Error::Build(_) | Error::Run(_) => 3,
            Error::Interrupted { signal, .. } => 128 + signal,
            Error::Train(error) => error.exit_code(),
        }
    }

    pub(crate) fn file(path: &Path, error: std::io::Error) -> Error {
        Error::File { path: path.to_owned(), error }
    }
}
