//! Three ways to show a training run: a progress bar, a line per epoch, JSON lines.

mod bar;
mod json;
mod lines;

pub use bar::Bar;
pub use json::JsonLines;
pub use lines::Lines;

use crate::Metrics;

/// `loss 0.1234  accuracy 96.25 %`; names may carry a prefix (`val.`).
fn describe(metrics: &Metrics, prefix: &str) -> String {
    let parts: Vec<String> = metrics
        .iter()
        .map(|(name, value)| match name {
            "accuracy" => format!("{prefix}{name} {:.2} %", value * 100.0),
            _ => format!("{prefix}{name} {value:.4}"),
        })
        .collect();
    parts.join("  ")
}

impl std::fmt::Display for Metrics {
    /// `loss 0.1234  accuracy 96.25 %`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&describe(self, ""))
    }
}

/// `850 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `1 sample`, `61,706 parameters`.
fn counted(count: usize, noun: &str) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if count == 1 { format!("{text} {noun}") } else { format!("{text} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CheckpointKind, Event, Observer, StopReason};
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What an observer writes about a short run.
    fn written(make: fn(Box<dyn Write + Send>) -> Box<dyn Observer>) -> String {
        let page = Page::default();
        let mut observer = make(Box::new(page.clone()));
        let names: Arc<[String]> = ["loss".to_owned(), "accuracy".to_owned()].into();
        let metrics = |loss, accuracy| Metrics::new(names.clone(), [loss, accuracy]);
        let (train, val) = (metrics(0.25, 0.9125), metrics(f64::NAN, 0.875));
        let (path, epochs) = ("runs/lenet/checkpoints/000001".as_ref(), 10);
        let resumed = Some(path);
        for event in [
            Event::Start {
                epochs,
                epoch: 9,
                batch: 3,
                batches: 56,
                batch_size: 64,
                samples: 3600,
                validation_samples: 400,
                parameters: 61_706,
                resumed,
            },
            Event::Step { epoch: 9, batch: 4, step: 452, metrics: &train, mean: &train, ms: 1.5 },
            Event::Note { message: "`lr` was 0.5 so far" },
            Event::Epoch {
                epoch: 9,
                epochs,
                step: 504,
                train: &train,
                val: Some(&val),
                improved: true,
                ms_per_step: 1.25,
                seconds: 65.4,
            },
            Event::Checkpoint { path, kind: CheckpointKind::Last },
            Event::Stop { reason: StopReason::EarlyStop },
            Event::Done { epochs: 9, steps: 504, best: Some((9, &train)), seconds: 66.0 },
        ] {
            observer.observe(&event);
        }
        drop(observer);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_tell_the_epochs() {
        insta::assert_snapshot!(written(|out| Box::new(Lines::new(out))), @r"
        61,706 parameters, 3,600 training samples, 400 validation samples, batches of 64
        resuming at epoch 9, batch 4, from runs/lenet/checkpoints/000001
        warning: `lr` was 0.5 so far
        epoch  9/10  loss 0.2500  accuracy 91.25 %  val.loss NaN  val.accuracy 87.50 %  1.25 ms/step  1 min 05 s  best
        stopped early: no more improvement
        504 steps in 1 min 06 s; best epoch 9: loss 0.2500  accuracy 91.25 %
        ");
    }

    #[test]
    fn json_tells_everything() {
        insta::assert_snapshot!(written(|out| Box::new(JsonLines::new(out))), @r#"
        {"event":"start","epochs":10,"epoch":9,"batch":3,"batches":56,"batch_size":64,"samples":3600,"validation_samples":400,"parameters":61706,"resumed":"runs/lenet/checkpoints/000001"}
        {"event":"step","epoch":9,"batch":4,"step":452,"metrics":{"loss":0.25,"accuracy":0.9125},"mean":{"loss":0.25,"accuracy":0.9125},"ms":1.5}
        {"event":"note","message":"`lr` was 0.5 so far"}
        {"event":"epoch","epoch":9,"epochs":10,"step":504,"train":{"loss":0.25,"accuracy":0.9125},"val":{"loss":null,"accuracy":0.875},"improved":true,"ms_per_step":1.25,"seconds":65.4}
        {"event":"checkpoint","path":"runs/lenet/checkpoints/000001","kind":"last"}
        {"event":"stop","reason":"early_stop"}
        {"event":"done","epochs":9,"steps":504,"best":[9,{"loss":0.25,"accuracy":0.9125}],"seconds":66.0}
        "#);
    }

    #[test]
    fn durations_and_counts_read_well() {
        let texts = [0.0123, 9.96, 65.0, 7384.0].map(duration);
        assert_eq!(texts, ["12 ms", "10.0 s", "1 min 05 s", "2 h 03 min"]);
        let texts = [1, 12, 61_706, 25_557_032].map(|n| counted(n, "step"));
        assert_eq!(texts, ["1 step", "12 steps", "61,706 steps", "25,557,032 steps"]);
    }
}
