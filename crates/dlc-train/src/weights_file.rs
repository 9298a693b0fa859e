//! A weights file and how it is taken: under which names, and whether odd numbers are an error.

use crate::{Error, Renames, Weights};
use dlc_kernel::Executable;
use std::path::PathBuf;

/// A safetensors file with the options under which a program takes it.
#[derive(Clone, Debug, Default)]
pub struct WeightsFile {
    /// The file.
    pub path: PathBuf,
    /// Other names for its tensors.
    pub renames: Renames,
    /// Whether numbers that are not finite are an error.
    pub strict: bool,
}

impl WeightsFile {
    /// A file whose tensors have the model's names.
    pub fn new(path: impl Into<PathBuf>) -> WeightsFile {
        WeightsFile { path: path.into(), ..WeightsFile::default() }
    }

    /// Its tensors, by their names in the model.
    ///
    /// # Errors
    /// If it is not a whole safetensors file, if two tensors get one name, or, where that is an
    /// error, if a number is not finite.
    pub fn read(&self) -> Result<Weights, Error> {
        let weights = Weights::read(&self.path)?.renamed(&self.renames, &self.path)?;
        let tensors = if self.strict { weights.not_finite() } else { Vec::new() };
        match tensors.is_empty() {
            true => Ok(weights),
            false => Err(Error::NotFinite { path: self.path.clone(), tensors }),
        }
    }

    /// Gives a program its weights. Tells which tensors have elements that are not finite, and how
    /// many.
    ///
    /// # Errors
    /// As [`WeightsFile::read`], or if the tensors do not fit the program.
    pub fn load(&self, executable: &dyn Executable) -> Result<Vec<(String, usize)>, Error> {
        let weights = self.read()?;
        weights.apply(executable, &self.path)?;
        Ok(weights.not_finite())
    }
}
