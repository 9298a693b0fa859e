//! Checkpoints: everything that is needed to go on as if nothing had happened.
//!
//! One is a folder with the weights, the optimizer's state, and `checkpoint.json`: where training
//! stood, what it was training, and the sizes and SHA-256 sums of the two other files and of
//! itself. It appears whole or not at all ([`crate::run_dir`]).

use crate::metrics::{Mean, Sum};
use crate::weights::{self, is_optimizer_state, is_weight, type_of, type_of_buffer};
use crate::{Error, FileProblem, Metrics, Weights, files, safe};
use dlc_kernel::{Executable, Program, Tensor};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is being trained, by which program. A checkpoint fits only the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of dlc.
    pub dlc: String,
    /// The model's name.
    pub model: String,
    /// The target the program was built for: `x86-64-v3`.
    pub target: String,
    /// The [`fingerprint`] of the program.
    pub program: String,
    /// The seed.
    pub seed: i32,
    /// Whether each epoch takes the samples in another order.
    pub shuffle: bool,
    /// Samples of a step.
    pub step_size: usize,
    /// Batches of a step.
    pub accumulate: usize,
    /// Samples for training.
    pub samples: usize,
    /// Samples for validation.
    pub validation_samples: usize,
}

/// Where training stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Whole epochs done.
    pub epoch: u32,
    /// Batches done in the present epoch.
    pub batch: usize,
    /// Steps done over all epochs.
    pub step: u64,
    /// Of the present epoch.
    pub mean: StoredMean,
    /// The best epoch, from 1, and its metrics.
    pub best: Option<(u32, Vec<(String, Exact)>)>,
    /// Epochs since the best one.
    pub waited: u32,
}

/// A [`Mean`] in a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredMean(Vec<StoredSum>);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct StoredSum {
    sum: Exact,
    weight: Exact,
    log: bool,
}

/// An f64 that is written as text and read back to the bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Exact(pub f64);

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub identity: Identity,
    pub progress: Progress,
    /// The run-time scalars, but for `seed`, `step` and `part`.
    pub scalars: Vec<(String, Exact)>,
    pub weights: Weights,
    pub state: IndexMap<String, Tensor>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    sha256: String,
    body: Body,
}

#[derive(Serialize, Deserialize)]
struct Body {
    format: u32,
    identity: Identity,
    progress: Progress,
    scalars: Vec<(String, Exact)>,
    files: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    bytes: u64,
    sha256: String,
}

const FORMAT: u32 = 2;
const MANIFEST: &str = "checkpoint.json";
const WEIGHTS: &str = "weights.safetensors";
const STATE: &str = "state.safetensors";

/// The SHA-256 of a program's text, in hexadecimal.
pub fn fingerprint(program: &Program) -> String {
    files::sha256(program.to_string().as_bytes())
}

/// The present state of a program and its training.
pub(crate) fn take(
    executable: &dyn Executable,
    identity: &Identity,
    progress: &Progress,
) -> Result<Checkpoint, Error> {
    Ok(Checkpoint {
        identity: identity.clone(),
        progress: progress.clone(),
        scalars: scalars(executable)?,
        weights: Weights::of(executable)?,
        state: weights::read_all(executable, is_optimizer_state)?,
    })
}

/// The run-time scalars a user may set, with their present values.
pub(crate) fn scalars(executable: &dyn Executable) -> Result<Vec<(String, Exact)>, Error> {
    let buffers = executable.program().buffers.iter();
    let ours = |name: &str| ["seed", "step", "part"].contains(&name);
    let scalars = buffers.filter(|b| b.class == dlc_kernel::Class::Scalar && !ours(&b.name));
    let value = |b: &dlc_kernel::Buffer| {
        let tensor = executable.read(&b.name)?;
        Ok((b.name.clone(), Exact(crate::metrics::scalar(&tensor))))
    };
    scalars.map(value).collect()
}

/// Writes the files of a checkpoint into an existing folder and waits until they are on the disk.
pub(crate) fn write(checkpoint: &Checkpoint, dir: &Path) -> Result<(), Error> {
    let mut files = Vec::new();
    let weights = checkpoint.weights.to_bytes();
    for (name, bytes) in [(WEIGHTS, weights), (STATE, safe::encode(&checkpoint.state, None))] {
        files::write_synced(&dir.join(name), &bytes)?;
        let (length, sha256) = (bytes.len() as u64, files::sha256(&bytes));
        files.push(Record { name: name.to_owned(), bytes: length, sha256 });
    }
    let body = Body {
        format: FORMAT,
        identity: checkpoint.identity.clone(),
        progress: checkpoint.progress.clone(),
        scalars: checkpoint.scalars.clone(),
        files,
    };
    let manifest = Manifest { sha256: checksum(&body), body };
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest is plain data") + "\n";
    files::write_synced(&dir.join(MANIFEST), text.as_bytes())?;
    files::sync_dir(dir)
}

/// Reads a checkpoint and verifies all of it.
pub(crate) fn read(dir: &Path) -> Result<Checkpoint, Error> {
    let path = dir.join(MANIFEST);
    let damaged = |e: serde_json::Error| FileProblem::Damaged(e.to_string()).at(&path);
    let manifest: Manifest = serde_json::from_slice(&files::read(&path)?).map_err(damaged)?;
    let Manifest { sha256, body } = manifest;
    if sha256 != checksum(&body) {
        return Err(FileProblem::Checksum.at(&path));
    }
    if body.format != FORMAT {
        let reason = format!("it has format {}, this dlc reads {FORMAT}", body.format);
        return Err(Error::Resume { path: dir.to_owned(), reasons: vec![reason] });
    }
    let read = |name: &str| -> Result<(Vec<u8>, PathBuf), Error> {
        let record = body.files.iter().find(|r| r.name == name);
        let record = record.ok_or_else(|| FileProblem::Damaged(format!("no {name}")).at(&path))?;
        let path = dir.join(name);
        Ok((read_file(&path, record)?, path))
    };
    let (weights, at) = read(WEIGHTS)?;
    let weights = Weights::from_bytes(&weights).map_err(|problem| problem.at(&at))?;
    let (state, at) = read(STATE)?;
    let state = safe::decode(&state).map_err(|problem| problem.at(&at))?;
    let Body { identity, progress, scalars, .. } = body;
    Ok(Checkpoint { identity, progress, scalars, weights, state })
}

fn read_file(path: &Path, record: &Record) -> Result<Vec<u8>, Error> {
    let bytes = files::read(path)?;
    let (expected, found) = (record.bytes, bytes.len() as u64);
    if found < expected {
        return Err(FileProblem::Truncated { expected, found }.at(path));
    }
    if files::sha256(&bytes) != record.sha256 {
        return Err(FileProblem::Checksum.at(path));
    }
    Ok(bytes)
}

fn checksum(body: &Body) -> String {
    files::sha256(&serde_json::to_vec(body).expect("a manifest is plain data"))
}

/// Gives a program the state of a checkpoint, if it belongs to the same training.
pub(crate) fn restore(
    checkpoint: &Checkpoint,
    path: &Path,
    identity: &Identity,
    executable: &dyn Executable,
) -> Result<(), Error> {
    let mut reasons = differences(&checkpoint.identity, identity);
    let program = executable.program();
    reasons.extend(misfits(program, is_weight, &checkpoint.weights.tensors, "model"));
    reasons.extend(misfits(program, is_optimizer_state, &checkpoint.state, "optimizer"));
    if reasons.is_empty() && checkpoint.identity.program != identity.program {
        reasons.push("the compiled program differs: other layers, options or rules".into());
    }
    if !reasons.is_empty() {
        return Err(Error::Resume { path: path.to_owned(), reasons });
    }
    weights::write_all(executable, &checkpoint.weights.tensors, is_weight)?;
    weights::write_all(executable, &checkpoint.state, is_optimizer_state)?;
    Ok(())
}

fn differences(then: &Identity, now: &Identity) -> Vec<String> {
    let text = |name: &str, then: &str, now: &str| {
        (then != now).then(|| format!("it was made with {name} `{then}`, now it is `{now}`"))
    };
    let number = |name: &str, then: usize, now: usize| {
        (then != now).then(|| format!("it was made with {then} {name}, now there are {now}"))
    };
    let seed = (then.seed != now.seed)
        .then(|| format!("it was made with seed {}, now it is {}", then.seed, now.seed));
    let order = |shuffle: bool| if shuffle { "shuffled" } else { "in order" };
    let all = [
        text("samples", order(then.shuffle), order(now.shuffle)),
        text("dlc version", &then.dlc, &now.dlc),
        text("model", &then.model, &now.model),
        text("target", &then.target, &now.target),
        seed,
        number("samples a step", then.step_size, now.step_size),
        number("batches a step", then.accumulate, now.accumulate),
        number("training samples", then.samples, now.samples),
        number("validation samples", then.validation_samples, now.validation_samples),
    ];
    all.into_iter().flatten().collect()
}

/// How the tensors kept for a selection differ from those of the program, in one line.
fn misfits(
    program: &Program,
    selection: weights::Selection,
    tensors: &IndexMap<String, Tensor>,
    what: &str,
) -> Option<String> {
    let wanted = weights::selected(program, selection);
    let fits = |b: &&dlc_kernel::Buffer| {
        tensors.get(&b.name).is_some_and(|t| type_of(t) == type_of_buffer(b))
    };
    let odd = wanted.iter().find(|b| !fits(b)).map(|b| b.name.as_str());
    let known = |name: &str| wanted.iter().any(|b| b.name == name);
    let odd = odd.or_else(|| tensors.keys().map(String::as_str).find(|n| !known(n)));
    odd.map(|name| format!("it belongs to another {what}: tensor `{name}` differs"))
}

impl Progress {
    /// Records the best epoch so far.
    pub(crate) fn set_best(&mut self, epoch: u32, metrics: &Metrics) {
        let values = metrics.iter().map(|(name, value)| (name.to_owned(), Exact(value)));
        self.best = Some((epoch, values.collect()));
    }

    /// The best epoch, from 1, and its metrics.
    pub(crate) fn best(&self) -> Option<(u32, Metrics)> {
        let (epoch, values) = self.best.as_ref()?;
        let names = values.iter().map(|(name, _)| name.clone()).collect();
        Some((*epoch, Metrics::new(names, values.iter().map(|(_, v)| v.0))))
    }
}

impl From<&Mean> for StoredMean {
    fn from(mean: &Mean) -> StoredMean {
        let stored = |&Sum { sum, weight, log }: &Sum| StoredSum {
            sum: Exact(sum),
            weight: Exact(weight),
            log,
        };
        StoredMean(mean.sums().iter().map(stored).collect())
    }
}

impl From<&StoredMean> for Mean {
    fn from(stored: &StoredMean) -> Mean {
        let sum = |s: &StoredSum| Sum { sum: s.sum.0, weight: s.weight.0, log: s.log };
        Mean::restore(stored.0.iter().map(sum))
    }
}

impl From<Exact> for String {
    fn from(value: Exact) -> String {
        format!("{:?}", value.0)
    }
}

impl TryFrom<String> for Exact {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> Result<Exact, Self::Error> {
        text.parse().map(Exact)
    }
}
