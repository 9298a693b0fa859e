//! The data sets of a `train` section, read from their files.

use crate::Error;
use dlc_front::DataSpec;
use dlc_kernel::Bindings;
use dlc_train::text::{Pairing, Windows};
use dlc_train::{Dataset, Parts, Unit, Vocabulary};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The samples for training, validation and testing, and what the model needs to know of them.
pub(crate) struct Splits {
    pub train: Dataset,
    pub validation: Option<Dataset>,
    /// The final figure is measured on these; on the validation samples if there are none.
    pub test: Option<Dataset>,
    /// The sizes of dims that the data defines.
    pub sizes: Bindings,
    /// What ids stand for.
    pub vocabulary: Option<Arc<Vocabulary>>,
}

/// Reads the data sets `specs` (as [`dlc_front::Unit::data`] gives them) of `file`; `places` are
/// other folders or files for data sets by name.
pub(crate) fn load(
    specs: &[DataSpec],
    file: &Path,
    places: &[(String, PathBuf)],
) -> Result<Splits, Error> {
    refuse_unknown(specs, places)?;
    let (spec, validation) = specs.split_first().expect("a section names its data");
    let whole = read(spec, file, places)?;
    let mut validation = validation.iter().map(|spec| read(spec, file, places));
    let own = whole.validation;
    let validation = match validation.next().transpose()? {
        Some(other) if other.vocabulary != whole.vocabulary => {
            return Err(Error::Argument(
                "the data for validation has another vocabulary than that for training".into(),
            ));
        }
        Some(other) => Some(other.train),
        None => own,
    };
    let sizes = whole.sizes.iter().map(|&(dim, size)| (dim.to_owned(), size as i64)).collect();
    let vocabulary = whole.vocabulary.map(Arc::new);
    Ok(Splits { train: whole.train, validation, test: whole.test, sizes, vocabulary })
}

impl Splits {
    /// Splits a part off the training samples for validation, where the data set has none.
    pub fn with_validation(self, part: f64) -> Splits {
        match self.validation {
            Some(_) => self,
            None => {
                let (train, validation) = self.train.split_validation(part);
                Splits { train, validation: Some(validation), ..self }
            }
        }
    }

    /// The samples of the final figure, and what they are called.
    pub fn tested(&self) -> Option<(&'static str, &Dataset)> {
        let test = self.test.as_ref().map(|data| ("test", data));
        test.or(self.validation.as_ref().map(|data| ("validation", data)))
    }
}

fn read(spec: &DataSpec, file: &Path, places: &[(String, PathBuf)]) -> Result<Parts, Error> {
    let size = |name: &str| spec.number(name).map(|n| n as usize);
    let path = |at: usize| place(spec, at, file, places);
    let unit = size("bpe").map_or(Unit::Character, Unit::Piece);
    Ok(match spec.dataset.as_str() {
        "mnist" => {
            let mnist = dlc_train::mnist::load(&path(0))?;
            Parts { test: Some(mnist.test), ..Parts::of(mnist.train) }
        }
        "text" => {
            let length = size("T").unwrap_or(0);
            let stride = size("stride").unwrap_or(length);
            dlc_train::text::windows(&path(0), &Windows { length, stride, unit })?
        }
        "lines" => dlc_train::text::lines(&path(0), size("T"), unit)?,
        "pairs" => {
            let how = Pairing { source: size("S"), target: size("T"), unit };
            dlc_train::text::pairs(&path(0), &path(1), &how)?
        }
        "sequences" => dlc_train::sequences(&path(0), size("T"))?,
        "chorales" => dlc_train::chorales(&path(0), size("T").unwrap_or(0))?,
        other => {
            return Err(Error::Argument(format!(
                "the data set `{other}` is handed in by a program: use the library, not the command"
            )));
        }
    })
}

/// A place for a data set that the section does not use is a mistake.
fn refuse_unknown(specs: &[DataSpec], places: &[(String, PathBuf)]) -> Result<(), Error> {
    let used: Vec<&str> = specs.iter().map(|spec| spec.dataset.as_str()).collect();
    match places.iter().find(|(name, _)| !used.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(Error::Argument(format!(
            "the `train` section has no data set `{name}`; it has {}",
            used.join(", ")
        ))),
    }
}

/// Where path number `at` of a data set is: the place given on the command line (of several files,
/// their folder), else what the file says, relative to it.
fn place(spec: &DataSpec, at: usize, file: &Path, places: &[(String, PathBuf)]) -> PathBuf {
    let own = spec.paths().nth(at);
    let several = spec.paths().count() > 1;
    match (places.iter().find(|(name, _)| *name == spec.dataset), own) {
        (Some((_, dir)), Some(own)) if several => {
            dir.join(Path::new(own).file_name().unwrap_or_default())
        }
        (Some((_, place)), _) => place.clone(),
        (None, Some(own)) => file.parent().unwrap_or(Path::new("")).join(own),
        (None, None) => dlc_train::default_data_dir().unwrap_or_default().join(&spec.dataset),
    }
}
