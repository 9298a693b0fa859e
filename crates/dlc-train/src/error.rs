//! Every way training, its data or its files can fail.

use crate::{Foreign, Misfit};
use dlc_kernel::RunError;
use std::io;
use std::path::{Path, PathBuf};

/// An error of whoever built an executable for us.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why something failed. Displays as one message without a trailing newline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that is read is not what it should be.
    #[error("`{}` {problem}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// A file or folder cannot be written.
    #[error("cannot write `{}`: {error}", .path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Weights do not fit the model.
    #[error("the tensors of `{}` do not fit the model\n{misfit}", .path.display())]
    Misfit {
        /// The weights' file.
        path: PathBuf,
        /// All differences.
        misfit: Box<Misfit>,
    },
    /// Weights hold numbers that are not finite, and that is not allowed.
    #[error("`{}` holds numbers that are not finite:{}", .path.display(), counts(.tensors))]
    NotFinite {
        /// The weights' file.
        path: PathBuf,
        /// Tensors with such numbers, and how many.
        tensors: Vec<(String, usize)>,
    },
    /// What was given does not fit together: data and model, options.
    #[error("{0}")]
    Usage(String),
    /// A call failed outside the training loop.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A training step failed. Parameters and state are as before the step.
    #[error("epoch {epoch}, step {step}: {error}{}{}", made(.culprit), kept(.checkpoint))]
    Step {
        /// From 1.
        epoch: u32,
        /// From 1, over all epochs.
        step: u64,
        /// What failed.
        error: RunError,
        /// What made the first number that is not finite, if that was the failure and it was found.
        culprit: Option<String>,
        /// The last good checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// Another process trains in the same run folder.
    #[error("another training run (process {pid}) is using `{}`", .dir.display())]
    Locked {
        /// The run folder.
        dir: PathBuf,
        /// Who holds it.
        pid: String,
    },
    /// A new run would mix with an earlier one.
    #[error(
        "`{}` holds an earlier training run: continue it with --resume, or choose another folder \
         with --out DIR", .0.display()
    )]
    Occupied(PathBuf),
    /// A checkpoint belongs to something else than what is to be resumed.
    #[error("cannot resume from `{}`:{}", .path.display(), bullets(.reasons))]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// All differences.
        reasons: Vec<String>,
    },
    /// A data set cannot be fetched.
    #[error("{0}")]
    Fetch(String),
    /// An executable for another batch size cannot be built.
    #[error("{0}")]
    Build(BoxError),
}

impl Error {
    /// The command's exit code: 1 the input is wrong, 3 the run failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::File { .. } | Error::Misfit { .. } | Error::Usage(_) => 1,
            Error::NotFinite { .. } | Error::Occupied(_) | Error::Resume { .. } => 1,
            Error::Write { .. } | Error::Run(_) | Error::Step { .. } => 3,
            Error::Locked { .. } | Error::Fetch(_) | Error::Build(_) => 3,
        }
    }

    pub(crate) fn write(path: &Path, error: io::Error) -> Error {
        Error::Write { path: path.to_owned(), error }
    }
}

/// What is wrong with a file that was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// There is no such file.
    #[error("does not exist")]
    Missing,
    /// It is a folder.
    #[error("is a folder, not a file")]
    Directory,
    /// It is a pipe, socket or device.
    #[error("is not a regular file")]
    NotRegular,
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is another kind of file.
    #[error("{}", .found.describe(.expected, *.bytes))]
    Foreign {
        /// What it is.
        found: Foreign,
        /// What it should be: `an IDX file`.
        expected: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// It is nothing known.
    #[error("is not {expected}: it starts with {}", hex(.start))]
    Magic {
        /// What it should be.
        expected: &'static str,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// It ends too early.
    #[error("is truncated: {expected} bytes expected, {found} found")]
    Truncated {
        /// Bytes its header announces.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// It goes on after its end.
    #[error("is too long: {expected} bytes expected, at least {found} found")]
    Trailing {
        /// Bytes its header announces.
        expected: u64,
        /// Bytes there are, at least.
        found: u64,
    },
    /// Its numbers are in the other byte order.
    #[error("has its header in little-endian byte order; IDX files are big-endian")]
    Endianness,
    /// A header that contradicts itself or passes a limit.
    #[error("has a bad header: {0}")]
    Header(String),
    /// Contents that no data can be made of.
    #[error("{0}")]
    Content(String),
    /// Compressed data that cannot be unpacked.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// Elements of a type that is not read.
    #[error("holds elements of type {found}; {expected}")]
    Type {
        /// The type found.
        found: String,
        /// What would be read.
        expected: &'static str,
    },
    /// An IDX file with another number of dims.
    #[error("has {found} dims, {expected} expected ({role})")]
    Rank {
        /// What the file is for.
        role: &'static str,
        /// Dims expected.
        expected: usize,
        /// Dims found.
        found: usize,
    },
    /// A label no class has.
    #[error("has label {label} at sample {sample}; labels are 0..{classes}")]
    Label {
        /// Position, from 0.
        sample: usize,
        /// The label found.
        label: u8,
        /// Number of classes.
        classes: u8,
    },
    /// As many labels as images are needed.
    #[error("has {found} labels for the {expected} images of `{}`", .images.display())]
    Count {
        /// Images.
        expected: usize,
        /// Labels.
        found: usize,
        /// The images' file.
        images: PathBuf,
    },
    /// Bytes that are no text.
    #[error("is not a text in UTF-8: byte {at} is none")]
    NotText {
        /// Position of the first such byte.
        at: usize,
    },
    /// A text that is too short to be cut into windows.
    #[error("is too short: it has {units} units, {needed} are needed (a tenth is for validation)")]
    Short {
        /// Characters or pieces there are.
        units: usize,
        /// How many there should be.
        needed: usize,
    },
    /// As many lines as in another file are needed.
    #[error("has {found} lines, `{}` has {expected}", .other.display())]
    Lines {
        /// Lines of the other file.
        expected: usize,
        /// Lines of this one.
        found: usize,
        /// The other file.
        other: PathBuf,
    },
    /// Contents that differ from the recorded checksum.
    #[error("is damaged: its checksum differs from the recorded one")]
    Checksum,
}

impl FileProblem {
    pub(crate) fn at(self, path: &Path) -> Error {
        Error::File { path: path.to_owned(), problem: self }
    }
}

fn made(culprit: &Option<String>) -> String {
    match culprit {
        Some(maker) => format!("; the first NaN or infinity is in what comes from {maker}"),
        None => String::new(),
    }
}

fn kept(checkpoint: &Option<PathBuf>) -> String {
    match checkpoint {
        Some(path) => format!("; the last good checkpoint is `{}`", path.display()),
        None => String::new(),
    }
}

fn counts(tensors: &[(String, usize)]) -> String {
    bullets(&tensors.iter().map(|(name, n)| format!("`{name}`: {n}")).collect::<Vec<_>>())
}

fn bullets(reasons: &[String]) -> String {
    reasons.iter().map(|r| format!("\n  - {r}")).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    if digits.is_empty() { "nothing (0 bytes)".into() } else { digits.join(" ") }
}
