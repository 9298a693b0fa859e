//! A progress bar on a terminal.

use super::{describe, lines};
use crate::event::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows the present epoch's batches with loss and other metrics, time per step and the remaining
/// time of the run; leaves one line per epoch above.
pub struct Bar {
    bar: ProgressBar,
    batches: usize,
    epochs: u32,
    /// Mean milliseconds of a step, the newest ones weighing most.
    ms: f64,
}

const TEMPLATE: &str = "{prefix} {bar:24} {pos}/{len}  {msg}";

impl Bar {
    /// A bar on standard error.
    pub fn new() -> Bar {
        Bar::on(ProgressDrawTarget::stderr())
    }

    /// A bar elsewhere.
    pub fn on(target: ProgressDrawTarget) -> Bar {
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.set_style(style.progress_chars("━╸─"));
        Bar { bar, batches: 0, epochs: 0, ms: 0.0 }
    }

    fn step(&mut self, epoch: u32, batch: usize, message: String, ms: f64) {
        self.ms = if self.ms == 0.0 { ms } else { 0.95 * self.ms + 0.05 * ms };
        let remaining = super::duration(self.remaining(epoch, batch));
        self.bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
        self.bar.set_message(format!("{message}  {:.2} ms/step  {remaining} left", self.ms));
        self.bar.set_position(batch as u64);
    }

    /// Seconds until the last epoch's last step, after so many batches of an epoch.
    fn remaining(&self, epoch: u32, batch: usize) -> f64 {
        let later = f64::from(self.epochs.saturating_sub(epoch)) * self.batches as f64;
        (later + self.batches.saturating_sub(batch) as f64) * self.ms / 1e3
    }
}

impl Default for Bar {
    fn default() -> Bar {
        Bar::new()
    }
}

impl Observer for Bar {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Start { epochs, batches, .. } => {
                (self.epochs, self.batches) = (*epochs, *batches);
                self.bar.set_length(*batches as u64);
            }
            Event::Step { epoch, batch, mean, ms, .. } => {
                self.step(*epoch, *batch, describe(mean, ""), *ms);
            }
            Event::Stop { .. } => self.bar.finish_and_clear(),
            _ => {}
        }
        if let Some(line) = lines::line(event) {
            self.bar.println(line);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_counts_this_epoch_and_those_after() {
        let mut bar = Bar::on(ProgressDrawTarget::hidden());
        (bar.epochs, bar.batches) = (10, 50);
        bar.step(8, 20, "loss 0.5".into(), 2.0);
        assert_eq!(bar.remaining(8, 20), (30.0 + 2.0 * 50.0) * 0.002);
        assert_eq!(bar.bar.message(), "loss 0.5  2.00 ms/step  260 ms left");
        assert_eq!((bar.bar.prefix(), bar.bar.position()), ("epoch 8/10".into(), 20));
        bar.step(10, 50, String::new(), 4.0);
        assert!((bar.ms - 2.1).abs() < 1e-12);
        assert_eq!(bar.remaining(10, 50), 0.0);
    }
}
