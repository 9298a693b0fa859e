//! One line of plain text per epoch.

use super::{counted, describe, duration};
use crate::event::{Event, Observer, StopReason};
use std::io::Write;

/// Writes a line for each epoch, and for what else a reader of a log wants to know. Whether anybody
/// reads is no concern of training: errors of the writer are ignored.
pub struct Lines {
    out: Box<dyn Write + Send>,
}

impl Lines {
    /// Lines go to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Lines {
        Lines { out }
    }
}

impl Observer for Lines {
    fn observe(&mut self, event: &Event<'_>) {
        if let Some(text) = line(event) {
            let _ = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        }
    }
}

/// The line for an event, if it deserves one.
pub(super) fn line(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Start { .. } => Some(start(event)),
        Event::Epoch { epoch, epochs, train, val, improved, ms_per_step, seconds, .. } => {
            let width = epochs.to_string().len();
            let mut text = format!("epoch {epoch:>width$}/{epochs}  {}", describe(train, ""));
            if let Some(val) = val {
                text += &format!("  {}", describe(val, "val."));
            }
            text += &format!("  {ms_per_step:.2} ms/step  {}", duration(*seconds));
            Some(if *improved { text + "  best" } else { text })
        }
        Event::Note { message } => Some(format!("warning: {message}")),
        Event::Stop { reason } => stop(*reason).map(str::to_owned),
        Event::Done { best: Some((epoch, metrics)), steps, seconds, .. } => {
            let (steps, time) = (counted(*steps as usize, "step"), duration(*seconds));
            Some(format!("{steps} in {time}; best epoch {epoch}: {}", describe(metrics, "")))
        }
        Event::Step { .. } | Event::Checkpoint { .. } | Event::Done { .. } => None,
    }
}

fn start(event: &Event<'_>) -> String {
    let Event::Start {
        epoch,
        batch,
        batch_size,
        samples,
        validation_samples,
        parameters,
        resumed,
        ..
    } = event
    else {
        unreachable!("called for the start alone");
    };
    let parameters = counted(*parameters, "parameter");
    let mut text = format!("{parameters}, {}", counted(*samples, "training sample"));
    if *validation_samples > 0 {
        text += &format!(", {}", counted(*validation_samples, "validation sample"));
    }
    text += &format!(", batches of {batch_size}");
    if let Some(path) = resumed {
        let path = path.display();
        text += &format!("\nresuming at epoch {epoch}, batch {}, from {path}", batch + 1);
    }
    text
}

fn stop(reason: StopReason) -> Option<&'static str> {
    match reason {
        StopReason::EarlyStop => Some("stopped early: no more improvement"),
        StopReason::Finished | StopReason::Interrupted => None,
    }
}
