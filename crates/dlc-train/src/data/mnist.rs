//! MNIST and the data sets that share its files' names and format (Fashion-MNIST, KMNIST).

use crate::data::idx::{self, Idx};
use crate::data::{Dataset, Field};
use crate::{Error, FileProblem};
use dlc_kernel::{Data, Tensor};
use std::path::{Path, PathBuf};

/// The two parts of a data set. Fields: `image`, f32 in [0, 1], a sample is `[1, height, width]`;
/// `label`, i32 in 0..10, a sample is a scalar.
#[derive(Clone, Debug)]
pub struct Mnist {
    /// For training and validation.
    pub train: Dataset,
    /// For the final figure alone.
    pub test: Dataset,
}

/// Names of the four files, without `.gz`: images and labels for training, then for testing.
pub const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

const CLASSES: u8 = 10;

/// Reads the four files in `dir`, each raw or gzipped.
///
/// # Errors
/// If one is missing, is not a whole IDX file, or does not fit the others.
pub fn load(dir: &Path) -> Result<Mnist, Error> {
    let (train, size) = read_part(dir, FILES[0], FILES[1])?;
    let (test, test_size) = read_part(dir, FILES[2], FILES[3])?;
    if size != test_size {
        return Err(Error::Usage(format!(
            "`{}` has training images of {size:?} pixels and test images of {test_size:?}",
            dir.display()
        )));
    }
    Ok(Mnist { train, test })
}

fn read_part(dir: &Path, images: &str, labels: &str) -> Result<(Dataset, [usize; 2]), Error> {
    let (images_path, labels_path) = (find(dir, images)?, find(dir, labels)?);
    let images = idx::read(&images_path, "images", 3)?;
    let labels = idx::read(&labels_path, "labels", 1)?;
    let (expected, found) = (images.shape[0], labels.shape[0]);
    if expected != found {
        let problem = FileProblem::Count { expected, found, images: images_path };
        return Err(problem.at(&labels_path));
    }
    if let Some(sample) = labels.bytes.iter().position(|&l| l >= CLASSES) {
        let label = labels.bytes[sample];
        return Err(FileProblem::Label { sample, label, classes: CLASSES }.at(&labels_path));
    }
    let size = [images.shape[1], images.shape[2]];
    Ok((dataset(images, labels)?, size))
}

fn dataset(images: Idx, labels: Idx) -> Result<Dataset, Error> {
    let shape = vec![images.shape[0], 1, images.shape[1], images.shape[2]];
    let images = Tensor::new(shape, Data::U8(images.bytes));
    let labels = Tensor::i32(labels.shape, labels.bytes.into_iter().map(i32::from).collect());
    Dataset::new(vec![Field::unit_range("image", images), Field::new("label", labels)])
}

/// The file of that name, gzipped or not, also as some archives spell it.
fn find(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    if !dir.is_dir() {
        let problem = if dir.exists() {
            FileProblem::Content("is no folder with the four MNIST files".into())
        } else {
            FileProblem::Missing
        };
        return Err(problem.at(dir));
    }
    let dotted = name.replace("-idx", ".idx");
    let spellings = [name.to_owned(), format!("{name}.gz"), dotted.clone(), dotted + ".gz"];
    let found = spellings.iter().map(|n| dir.join(n)).find(|p| p.exists());
    found.ok_or_else(|| FileProblem::Missing.at(&dir.join(format!("{name}.gz"))))
}
