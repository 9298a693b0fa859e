//! Training: data, batches, the loop, metrics and checkpoints.
//!
//! Everything here drives a [`dlc_kernel::Executable`] through the names in its program: entry
//! `train` (one step: forward, backward, update, metrics), entry `eval` (metrics alone), and, if
//! there are such, `init` (first values) and `accumulate` (adds a batch's gradients to the next
//! step). The inputs of `train`, `accumulate` and `eval` are fields of the data set, their rank-0
//! outputs are metrics, and one of those is called `loss`. An output `weight of m` says what the
//! metric m of a batch weighs in a mean (its samples, if there is none); an output `log of m` stands
//! for a metric m that is the exponential of its mean. The run-time scalars `seed`, `step` (how
//! many steps went before), `part` (how many batches of this one) and `steps` (how many are planned)
//! are kept up to date; every other one can be set.
//!
//! What must hold:
//! - The same data, seed and program give the same bits, whether a run was interrupted or not, and
//!   for any number of threads.
//! - A crash at any moment, `SIGKILL` included, loses at most what followed the newest checkpoint.
//! - No file makes a reader panic: each way to be broken has its [`FileProblem`].
//!
//! Start with [`Trainer`] (one step at a time, on anybody's data), then [`fit`] (the whole loop).
#![forbid(unsafe_code)]

mod bleu;
mod checkpoint;
mod culprit;
mod data;
mod error;
mod event;
mod fetch;
mod files;
mod fit;
mod lock;
mod metrics;
pub mod npy;
mod npy_text;
mod npz;
mod rebuild;
mod rename;
mod render;
mod run_dir;
mod safe;
mod sniff;
mod trainer;
mod weights;
mod weights_file;

pub use bleu::Bleu;
pub use checkpoint::{Identity, fingerprint};
pub use culprit::Checking;
pub use data::{
    Batch, Batches, Dataset, END, Field, Parts, Unit, Vocabulary, chorales, idx, mnist, sequences,
    text,
};
pub use error::{BoxError, Error, FileProblem};
pub use event::{CheckpointKind, Event, Observer, StopReason};
pub use fetch::{default_data_dir, fetch_mnist};
pub use files::write_atomic;
pub use fit::{Fit, Goal, Monitor, Start, Summary, fit};
pub use metrics::{Mean, Metrics};
pub use rebuild::Rebuild;
pub use rename::Renames;
pub use render::{Bar, JsonLines, Lines};
pub use run_dir::{latest_run_dir, next_run_dir};
pub use sniff::Foreign;
pub use trainer::Trainer;
pub use weights::{Misfit, Weights, save_weights};
pub use weights_file::WeightsFile;
