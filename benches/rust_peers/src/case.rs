//! What all peers share: where a case's tensors lie, and how a call is timed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A model of dlc to be matched, and the folder of its tensors.
pub struct Case {
    pub model: String,
    pub folder: PathBuf,
    pub threads: usize,
}

impl Case {
    /// A file of safetensors: `x`, the input, or `w`, the weights.
    pub fn tensors(&self, name: &str) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.folder.join(name).with_extension("safetensors"))?)
    }

    /// Stores the output.
    pub fn store(&self, shape: &[usize], values: &[f32]) -> Result<()> {
        let bytes = bytemuck::cast_slice(values);
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes)?;
        Ok(serialize_to_file([("y", view)], None, &self.folder.join("y.safetensors"))?)
    }
}

/// Prints the median seconds of `call`, warm, and gives what it computes.
pub fn timed<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    let mut times = Vec::new();
    for budget in [0.3, 1.0].map(Duration::from_secs_f64) {
        times.clear();
        let start = Instant::now();
        while times.len() < 3 || start.elapsed() < budget {
            let begin = Instant::now();
            drop(call()?);
            times.push(begin.elapsed());
        }
    }
    times.sort();
    println!("{}", times[times.len() / 2].as_secs_f64());
    call()
}
