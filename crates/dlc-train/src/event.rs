//! What a training run tells while it goes on.

use crate::Metrics;
use serde::Serialize;
use std::path::Path;

/// Something that happened. Epochs, batches and steps count from 1. A batch is what a step is done
/// on, also where it is given to the program in several parts.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins.
    Start {
        /// Epochs it lasts at most.
        epochs: u32,
        /// The first one to do; more than 1 when resumed.
        epoch: u32,
        /// Batches already done in that epoch.
        batch: usize,
        /// Batches of an epoch.
        batches: usize,
        /// Samples of a batch.
        batch_size: usize,
        /// Samples for training.
        samples: usize,
        /// Samples for validation.
        validation_samples: usize,
        /// Numbers that are learned.
        parameters: usize,
        /// The checkpoint it goes on from.
        resumed: Option<&'a Path>,
    },
    /// A step was done.
    Step {
        /// The epoch it belongs to.
        epoch: u32,
        /// Its batch in that epoch.
        batch: usize,
        /// Its number over all epochs.
        step: u64,
        /// What it measured.
        metrics: &'a Metrics,
        /// The epoch's means so far.
        mean: &'a Metrics,
        /// Milliseconds of the compiled step.
        ms: f64,
    },
    /// An epoch was done.
    Epoch {
        /// Its number.
        epoch: u32,
        /// Epochs the run lasts at most.
        epochs: u32,
        /// Steps over all epochs.
        step: u64,
        /// Means over the epoch's steps.
        train: &'a Metrics,
        /// Means over the validation samples, if there are any.
        val: Option<&'a Metrics>,
        /// Whether it is the best epoch so far.
        improved: bool,
        /// Mean milliseconds of its compiled steps.
        ms_per_step: f64,
        /// Seconds it took, validation included.
        seconds: f64,
    },
    /// Weights or a whole state were written.
    Checkpoint {
        /// Where.
        path: &'a Path,
        /// What.
        kind: CheckpointKind,
    },
    /// Something worth a warning.
    Note {
        /// The warning.
        message: &'a str,
    },
    /// No further step will be done.
    Stop {
        /// Why.
        reason: StopReason,
    },
    /// The run is over and everything is on the disk.
    Done {
        /// Epochs done, over all resumptions.
        epochs: u32,
        /// Steps done, over all resumptions.
        steps: u64,
        /// The best epoch and what was measured there.
        best: Option<(u32, &'a Metrics)>,
        /// Seconds since the start of this process's part.
        seconds: f64,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointKind {
    /// The weights of the best epoch.
    Best,
    /// Everything that is needed to go on.
    Last,
}

/// Why a run stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// All epochs are done.
    Finished,
    /// The monitored metric stopped improving.
    EarlyStop,
    /// The interruption flag was set; the state is saved.
    Interrupted,
}

/// Whoever is told of events. Closures are observers.
pub trait Observer {
    /// Is called in order, from the training thread.
    fn observe(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn observe(&mut self, event: &Event<'_>) {
        self(event);
    }
}
