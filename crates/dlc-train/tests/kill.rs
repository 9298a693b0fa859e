//! A process killed at any moment leaves a run that can be resumed, with the same result.
#![cfg(unix)]

mod fake;

use dlc_train::{Event, Fit, Start, Trainer, fit};
use fake::{Logistic, Options, points, rebuild};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DIR: &str = "DLC_TEST_RUN_DIR";
const EPOCHS: u32 = 400;

/// Trains in `dir`, from its newest checkpoint if there is one; gives the final loss, to the bit.
fn train(dir: Option<PathBuf>) -> u64 {
    let started = dir.as_ref().is_some_and(|d| newest(d).is_some());
    let start = if started { Start::Resume } else { Start::New };
    let mut trainer = Trainer::new(Logistic::executable(Options::default()), 42).unwrap();
    let options = Fit { epochs: EPOCHS, dir, start, ..Fit::default() };
    let (train, val) = points(100).split_validation(0.1);
    let mut silent = |_: &Event<'_>| {};
    fit(&mut trainer, &train, Some(&val), &mut rebuild(), &options, &mut silent).unwrap();
    trainer.evaluate(&train, &mut rebuild()).unwrap().loss().to_bits()
}

fn newest(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir.join("checkpoints")).ok()?;
    let paths = entries.map(|e| e.unwrap().path());
    paths.filter(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().contains('.'))).max()
}

/// The child of the test below; does nothing when run for itself.
#[test]
fn child() {
    if let Some(dir) = std::env::var_os(DIR) {
        train(Some(dir.into()));
    }
}

#[test]
fn killing_loses_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut reached = None;
    let mut kills = 0;
    for attempt in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = |child: &mut Child| child.try_wait().unwrap().is_none();
        while newest(dir.path()) == reached && running(&mut child) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(attempt * 1700));
        kills += u32::from(running(&mut child));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = newest(dir.path());
        assert!(now >= reached, "checkpoint {reached:?} was lost, the newest is {now:?}");
        reached = now;
    }
    assert!(kills > 0 && reached.is_some(), "{kills} killed, newest checkpoint {reached:?}");
    assert_eq!(train(Some(dir.path().to_owned())), train(None));
    let entries = std::fs::read_dir(dir.path().join("checkpoints")).unwrap();
    assert_eq!(entries.count(), 2, "what killed processes left half-written is gone");
}
