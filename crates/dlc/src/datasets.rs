//! The data sets of a `train` section, read from their files.

use crate::{Error, Module};
use dlc_front::DataSpec;
use dlc_kernel::Bindings;
use dlc_train::text::{Pairing, Windows, Words};
use dlc_train::{Dataset, Parts, Unit, Vocabulary};
use std::collections::BTreeSet;
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
    /// Those of the dims that are shorter in batches of short samples.
    cut: &'static [&'static str],
    /// What ids stand for.
    pub vocabulary: Option<Arc<Vocabulary>>,
}

/// What was known before a data set is read.
#[derive(Clone, Copy, Default)]
struct Known<'k> {
    /// What ids stand for.
    vocabulary: Option<&'k Vocabulary>,
    /// Sizes of dims, where the section gives none.
    sizes: &'k [(&'static str, usize)],
}

/// Reads the data sets `specs` (as [`dlc_front::Unit::data`] gives them) of a module in `file`; `places`
/// are other folders or files for data sets by name. Ids stand for what `vocabulary` says, if it is
/// given.
pub(crate) fn load(
    module: &Module,
    specs: &[DataSpec],
    file: &Path,
    places: &[(String, PathBuf)],
    vocabulary: Option<&Vocabulary>,
) -> Result<Splits, Error> {
    refuse_unknown(specs, places)?;
    let (spec, validation) = specs.split_first().expect("a section names its data");
    let read = |spec, known| {
        read(spec, file, places, known).map_err(|error| at_its_line(module, spec, error))
    };
    let whole = read(spec, Known { vocabulary, sizes: &[] })?;
    let known = Known { vocabulary: whole.vocabulary.as_ref(), sizes: &whole.sizes };
    let other = validation.first().map(|spec| read(spec, known)).transpose()?;
    let validation = other.map_or(whole.validation, |other| Some(other.train));
    let sizes = whole.sizes.iter().map(|&(dim, size)| (dim.to_owned(), size as i64)).collect();
    let vocabulary = whole.vocabulary.map(Arc::new);
    let (train, test, cut) = (whole.train, whole.test, whole.cut);
    Ok(Splits { train, validation, test, sizes, cut, vocabulary })
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

    /// The sizes of all dims for batches of each length that occurs, `sizes` being those of whole
    /// sequences; just these where samples have no lengths.
    pub fn sizes_by_length(&self, sizes: &Bindings) -> Vec<Bindings> {
        let all = [Some(&self.train), self.validation.as_ref(), self.test.as_ref()];
        let lengths: BTreeSet<usize> = all.iter().flatten().flat_map(|d| d.lengths()).collect();
        let cut = |length: usize| {
            let mut sizes = sizes.clone();
            let dims = sizes.iter_mut().filter(|(dim, _)| self.cut.contains(&dim.as_str()));
            dims.for_each(|(_, size)| *size = (*size).min(length as i64));
            sizes
        };
        match lengths.is_empty() {
            true => vec![sizes.clone()],
            false => lengths.into_iter().map(cut).collect(),
        }
    }

    /// The samples of the final figure, and what they are called; `None` if there are none.
    pub fn tested(&self) -> Option<(&'static str, &Dataset)> {
        let some = |data: &&Dataset| !data.is_empty();
        let test = self.test.as_ref().filter(some).map(|data| ("test", data));
        test.or(self.validation.as_ref().filter(some).map(|data| ("validation", data)))
    }
}

/// Reads a data set, with what is known.
fn read(
    spec: &DataSpec,
    file: &Path,
    places: &[(String, PathBuf)],
    known: Known<'_>,
) -> Result<Parts, Error> {
    let given = |name: &str| spec.number(name).map(|n| n as usize);
    let size = |name: &str| {
        given(name).or(known.sizes.iter().find(|(dim, _)| *dim == name).map(|&(_, size)| size))
    };
    let path = |at: usize| place(spec, at, file, places);
    let unit = given("bpe").map_or(Unit::Character, Unit::Piece);
    let own = match (known.vocabulary, spec.vocabulary()) {
        // What labels stand for is another matter than what ids do.
        (None, Some(path)) => Some(Vocabulary::read(&beside(file, path))?.with_classes(Vec::new())),
        _ => None,
    };
    let words = known.vocabulary.or(own.as_ref()).map_or(Words::Learned(unit), Words::Known);
    let bucket = given("bucket");
    Ok(match spec.dataset.as_str() {
        "mnist" => {
            let mnist = dlc_train::mnist::load(&path(0))?;
            Parts { test: Some(mnist.test), ..Parts::of(mnist.train) }
        }
        "text" => {
            let length = size("T").unwrap_or(0);
            let stride = given("stride").unwrap_or(length);
            dlc_train::text::windows(&path(0), &Windows { length, stride, words })?
        }
        "lines" => dlc_train::text::lines(&path(0), size("T"), bucket, words)?,
        "pairs" => {
            let (source, target) = (size("S"), size("T"));
            let joint = spec.flag("joint").unwrap_or(true);
            let how = Pairing { source, target, bucket, words, joint };
            dlc_train::text::pairs(&path(0), &path(1), &how)?
        }
        "sequences" => dlc_train::sequences(&path(0), size("T"), words)?,
        "chorales" => dlc_train::chorales(&path(0), size("T").unwrap_or(0))?,
        other => {
            return Err(Error::Argument(format!(
                "the data set `{other}` is handed in by a program: use the library, not the command"
            )));
        }
    })
}

/// What is wrong with a file, at the line that names the data set.
fn at_its_line(module: &Module, spec: &DataSpec, error: Error) -> Error {
    let Error::Train(problem @ dlc_train::Error::File { .. }) = error else { return error };
    module.refuse(&[spec.unreadable(problem.to_string())])
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

/// A path that is relative to the module's file.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
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
        (None, Some(own)) => beside(file, own),
        (None, None) => dlc_train::default_data_dir().unwrap_or_default().join(&spec.dataset),
    }
}
