//! Reading IDX files and MNIST folders, whole and broken.

use dlc_kernel::DType;
use dlc_train::{Batches, idx, mnist};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/mnist-5k")
}

/// An IDX file of bytes with these extents.
fn file(shape: &[u32], data: &[u8]) -> Vec<u8> {
    let extents: Vec<u8> = shape.iter().flat_map(|d| d.to_be_bytes()).collect();
    [&[0, 0, 8, shape.len() as u8][..], &extents, data].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_shipped_digits_are_whole() {
    let mnist = mnist::load(&shipped()).unwrap();
    assert_eq!((mnist.train.len(), mnist.test.len()), (4000, 1000));
    for (data, each) in [(&mnist.train, 400), (&mnist.test, 100)] {
        let image = &data.fields()[0];
        assert_eq!((image.name(), image.dtype()), ("image", DType::F32));
        assert_eq!(image.sample_shape(), [1, 28, 28]);
        let mut batches = Batches::new(data, &["image", "label"], data.len()).unwrap();
        let batch = batches.get(0);
        let mut counts = [0; 10];
        let labels = batch.get("label").unwrap().as_i32().unwrap();
        labels.iter().for_each(|&l| counts[l as usize] += 1);
        assert_eq!(counts, [each; 10]);
        let pixels = batch.get("image").unwrap().as_f32().unwrap();
        let largest = pixels.iter().copied().fold(0.0, f32::max);
        let mean = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / pixels.len() as f64;
        assert_eq!(largest, 1.0);
        assert!((mean - 0.1307).abs() < 0.005, "MNIST's mean is 0.1307, this is {mean}");
    }
}

#[test]
fn raw_and_gzipped_files_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let bytes = file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    for contents in [bytes.clone(), gzip(&bytes)] {
        fs::write(&path, contents).unwrap();
        let idx = idx::read(&path, "images", 2).unwrap();
        assert_eq!((idx.shape, idx.bytes), (vec![2, 3], vec![1, 2, 3, 4, 5, 6]));
    }
}

#[test]
fn every_malformation_has_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let whole = file(&[2, 2, 2], &[7; 8]);
    let mut little = [3, 8, 0, 0].to_vec();
    [2u32, 2, 2].iter().for_each(|d| little.extend(d.to_le_bytes()));
    let mut little_sizes = [0, 0, 8, 3].to_vec();
    [2u32, 2, 2].iter().for_each(|d| little_sizes.extend(d.to_le_bytes()));
    little_sizes.extend([7; 8]);
    let zipped = gzip(&whole);
    let mut flipped = zipped.clone();
    *flipped.last_mut().unwrap() ^= 0xff;
    flipped[zipped.len() - 6] ^= 0xff;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a".to_vec(),
            "is a Git LFS pointer (58 bytes), not an IDX file; run `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>404".to_vec(), "is an HTML page, not an IDX file; the download"),
        (gzip(b"<html>404</html>"), "is an HTML page"),
        (b"PK\x03\x04......".to_vec(), "is a zip archive"),
        (b"label,pixel0,pixel1".to_vec(), "is not an IDX file: it starts with 6c 61 62 65"),
        (vec![], "is truncated: 16 bytes expected, 0 found"),
        (whole[..9].to_vec(), "is truncated: 16 bytes expected, 9 found"),
        (whole[..20].to_vec(), "is truncated: 24 bytes expected, 20 found"),
        (gzip(&whole[..20]), "is truncated: 24 bytes expected, 20 found"),
        (zipped[..zipped.len() - 12].to_vec(), "is truncated: 24 bytes expected"),
        (flipped, "is damaged"),
        ([&whole[..], &[0; 5]].concat(), "is too long: 24 bytes expected, at least 29 found"),
        (gzip(&[&whole[..], &[0; 5]].concat()), "is too long: 24 bytes expected, at least 29"),
        (little, "little-endian"),
        (little_sizes, "little-endian"),
        (file(&[2], &[1, 2]), "has 1 dims, 3 expected (images)"),
        ([0, 0, 0x0d, 3].to_vec(), "holds elements of type f32; unsigned bytes are read"),
        (file(&[u32::MAX; 3], &[]), "4294967295 x 4294967295 x 4294967295 elements exceed"),
        (
            file(&[1 << 16, 1 << 16, 1], &[0; 9]),
            "is truncated: 4294967312 bytes expected, 25 found",
        ),
    ];
    for (bytes, message) in cases {
        fs::write(&path, bytes).unwrap();
        let problem = idx::read(&path, "images", 3).unwrap_err().to_string();
        assert!(problem.contains(message), "{problem:?} should say {message:?}");
    }
    let problem = idx::read(dir.path(), "images", 3).unwrap_err().to_string();
    assert!(problem.ends_with("is a folder, not a file"), "{problem}");
}

#[test]
fn broken_folders_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let message = || mnist::load(dir.path()).unwrap_err().to_string();
    assert!(message().ends_with("train-images-idx3-ubyte.gz` does not exist"));
    let write = |k: usize, bytes: Vec<u8>| fs::write(dir.path().join(mnist::FILES[k]), bytes);
    write(0, file(&[3, 2, 2], &[0; 12])).unwrap();
    write(1, file(&[2], &[1, 2])).unwrap();
    assert!(message().contains("has 2 labels for the 3 images of"), "{}", message());
    write(1, file(&[3], &[1, 12, 2])).unwrap();
    let expected = "has label 12 at sample 1; labels are 0..10";
    assert!(message().ends_with(expected), "{}", message());
    write(1, file(&[3], &[1, 9, 2])).unwrap();
    write(2, file(&[1, 2, 3], &[0; 6])).unwrap();
    write(3, file(&[1], &[0])).unwrap();
    assert!(message().contains("training images of [2, 2] pixels and test images of [2, 3]"));
    write(2, file(&[0, 2, 2], &[])).unwrap();
    write(3, file(&[0], &[])).unwrap();
    assert!(mnist::load(dir.path()).unwrap().test.is_empty());
    let missing = mnist::load(Path::new("/none/such")).unwrap_err().to_string();
    assert_eq!(missing, "`/none/such` does not exist");
}
