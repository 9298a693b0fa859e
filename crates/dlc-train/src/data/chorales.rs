//! The JSB chorales: four voices, a chord each sixteenth, in JSON.

use crate::data::text::unpacked;
use crate::data::{Dataset, Field, Parts};
use crate::{Error, FileProblem};
use dlc_kernel::Tensor;
use serde::Deserialize;
use std::path::Path;

/// The three parts of the file: pieces of steps of MIDI notes; a voice that rests has -1.
#[derive(Deserialize)]
struct File {
    train: Vec<Piece>,
    #[serde(default)]
    valid: Vec<Piece>,
    #[serde(default)]
    test: Vec<Piece>,
}

type Piece = Vec<Vec<f64>>;

/// The keys of a piano: the lowest, and how many.
const LOWEST: usize = 21;
const KEYS: usize = 88;

/// Windows of chorales. Fields: `notes`, f32 `[T, 88]`: 1 for each key of a piano that sounds;
/// `next`, the same, one step further; `mask`, f32 `[T]`: 1 where `next` is in the piece. A piece is
/// cut into windows that do not overlap, the last one filled up with silence. The file's own parts
/// are for training, validation and testing. Defines `T` and `V` = 88.
///
/// # Errors
/// If the file is not such a file, or a note is no key of a piano.
pub fn chorales(path: &Path, length: usize) -> Result<Parts, Error> {
    if length == 0 {
        return Err(Error::Usage("a window has at least one step".into()));
    }
    let bytes = unpacked(path)?;
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|e| FileProblem::Content(format!("holds no chorales in JSON: {e}")).at(path))?;
    let part = |pieces: &[Piece], name| windows(pieces, length, name).map_err(|p| p.at(path));
    Ok(Parts {
        train: part(&file.train, "train")?,
        validation: Some(part(&file.valid, "valid")?),
        test: Some(part(&file.test, "test")?),
        sizes: vec![("T", length), ("V", KEYS)],
        cut: &[],
        vocabulary: None,
    })
}

fn windows(pieces: &[Piece], length: usize, part: &str) -> Result<Dataset, FileProblem> {
    let (mut notes, mut next, mut mask) = (Vec::new(), Vec::new(), Vec::new());
    for (number, piece) in pieces.iter().enumerate() {
        let roll = roll(piece).map_err(|(step, note)| {
            let place = format!("{part} piece {number}, step {step}");
            FileProblem::Content(format!("has a note that no piano has: {place}: note {note}"))
        })?;
        for start in (0..piece.len().saturating_sub(1)).step_by(length) {
            for t in start..start + length {
                let step = |t: usize| roll.get(t).map_or(&[0.0; KEYS], |step| step);
                notes.extend_from_slice(step(t));
                next.extend_from_slice(step(t + 1));
                mask.push(f32::from(t + 1 < piece.len()));
            }
        }
    }
    let count = mask.len() / length;
    let fields = vec![
        Field::new("notes", Tensor::f32([count, length, KEYS], notes)),
        Field::new("next", Tensor::f32([count, length, KEYS], next)),
        Field::new("mask", Tensor::f32([count, length], mask)),
    ];
    Ok(Dataset::new(fields).expect("the fields have as many samples"))
}

/// Which keys sound at each step; or the step and the note that is none.
fn roll(piece: &Piece) -> Result<Vec<[f32; KEYS]>, (usize, f64)> {
    let step = |(at, notes): (usize, &Vec<f64>)| {
        let mut keys = [0.0; KEYS];
        for &note in notes.iter().filter(|&&note| note >= 0.0) {
            let key = (note as usize).checked_sub(LOWEST).filter(|&k| k < KEYS);
            match key {
                Some(key) if note.fract() == 0.0 => keys[key] = 1.0,
                _ => return Err((at, note)),
            }
        }
        Ok(keys)
    };
    piece.iter().enumerate().map(step).collect()
}
