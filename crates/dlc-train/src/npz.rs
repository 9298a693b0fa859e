//! NumPy's `.npz` files: zip archives of `.npy` files.

use crate::{Error, FileProblem, files, npy};
use dlc_kernel::Tensor;
use std::io::{self, Cursor, Write};
use std::path::Path;
use zip::ZipArchive;
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, ZipWriter};

/// The arrays of a file, by name, in the archive's order.
///
/// # Errors
/// If the file is not a whole archive of arrays.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    let (file, size) = files::open(path)?;
    let mut reader = io::BufReader::new(file);
    let mut head = Vec::new();
    let unreadable = |e| FileProblem::Unreadable(e).at(path);
    io::Read::read_to_end(&mut io::Read::take(&mut reader, 64), &mut head).map_err(unreadable)?;
    if !head.starts_with(b"PK") {
        return Err(files::unexpected(&head, "NumPy arrays (.npz)", size).at(path));
    }
    let damaged = |e: ZipError| FileProblem::Damaged(e.to_string()).at(path);
    let mut archive = ZipArchive::new(reader).map_err(damaged)?;
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let Some(name) = entry.name().strip_suffix(".npy").map(str::to_owned) else { continue };
        let tensor = npy::parse(&mut entry, None);
        arrays.push((name.clone(), tensor.map_err(|p| p.at(&path.join(name + ".npy")))?));
    }
    Ok(arrays)
}

/// Writes arrays by name, deflated, atomically.
///
/// # Errors
/// If the file cannot be written, or a name comes twice.
pub fn write_npz(path: &Path, arrays: &[(&str, &Tensor)]) -> Result<(), Error> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let failed = |e: io::Error| Error::write(path, e);
    for (name, tensor) in arrays {
        let started = writer.start_file(format!("{name}.npy"), SimpleFileOptions::default());
        started.map_err(|e| failed(e.into()))?;
        writer.write_all(&npy::encode(tensor)).map_err(failed)?;
    }
    let archive = writer.finish().map_err(|e| failed(e.into()))?;
    files::write_atomic(path, &archive.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_the_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let (x, y) = (Tensor::f32([2], vec![1.5, -2.0]), Tensor::i32([], vec![3]));
        write_npz(&path, &[("x", &x), ("y", &y)]).unwrap();
        assert_eq!(read_npz(&path).unwrap(), [("x".into(), x), ("y".into(), y)]);
    }

    #[test]
    fn damaged_archives_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_npz(&path).unwrap_err().to_string()
        };
        assert!(refused(b"hello").contains("is not NumPy arrays (.npz)"));
        assert!(refused(b"PK\x03\x04 and no more").contains("is damaged"));
        let x = Tensor::f32([4], vec![1.0; 4]);
        write_npz(&path, &[("x", &x)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 0x55;
            std::fs::write(&path, &flipped).unwrap();
            if let Ok(arrays) = read_npz(&path) {
                assert!(arrays.iter().all(|(_, t)| *t == x), "byte {position} changed the array");
            }
            std::fs::write(&path, &whole[..position]).unwrap();
            assert!(read_npz(&path).is_err(), "{position} bytes of {}", whole.len());
        }
    }
}
