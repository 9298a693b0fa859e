//! Whole files: opened with errors that say what is wrong, written so that a crash loses nothing.

use crate::{Error, FileProblem, Foreign};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Opens a regular file; gives its size too.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Error> {
    // Asked before opening: opening a pipe nobody writes to would wait for ever.
    let metadata = fs::metadata(path).map_err(|e| problem_of(e).at(path))?;
    if metadata.is_dir() {
        return Err(FileProblem::Directory.at(path));
    }
    if !metadata.is_file() {
        return Err(FileProblem::NotRegular.at(path));
    }
    let file = File::open(path).map_err(|e| problem_of(e).at(path))?;
    Ok((file, metadata.len()))
}

/// The bytes of a regular file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let (mut file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| FileProblem::Unreadable(e).at(path))?;
    Ok(bytes)
}

fn problem_of(error: io::Error) -> FileProblem {
    match error.kind() {
        io::ErrorKind::NotFound => FileProblem::Missing,
        _ => FileProblem::Unreadable(error),
    }
}

/// What to say of a file that does not start as `expected` does.
pub(crate) fn unexpected(head: &[u8], expected: &'static str, bytes: u64) -> FileProblem {
    match Foreign::detect(head) {
        Some(found) => FileProblem::Foreign { found, expected, bytes },
        None => FileProblem::Magic { expected, start: head[..head.len().min(8)].to_vec() },
    }
}

/// Replaces `path` by a file of these bytes: whoever looks, at any time and after any crash, sees
/// the old file or the new one, whole.
///
/// # Errors
/// If the file or its folder cannot be written.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let dir = folder_of(path);
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    let failed = |e: io::Error| Error::write(path, e);
    let mut temp = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir).map_err(failed)?;
    temp.write_all(bytes).and_then(|()| temp.as_file().sync_all()).map_err(failed)?;
    make_readable(temp.as_file()).map_err(failed)?;
    temp.persist(path).map_err(|e| failed(e.error))?;
    sync_dir(dir)
}

/// Writes a new file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::write(path, e))
}

/// Waits until the folder's own entries are on the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::write(dir, e))?;
    }
    Ok(())
}

/// Temporary files are made for their owner alone; the final one has the usual permissions.
#[cfg(unix)]
fn make_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &File) -> io::Result<()> {
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_abc() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
    }

    #[test]
    fn writing_replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.txt");
        for text in ["one", "two"] {
            write_atomic(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap(), text.as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| read(path).unwrap_err().to_string();
        assert!(message(dir.path()).ends_with("is a folder, not a file"));
        assert!(message(&dir.path().join("none")).ends_with("does not exist"));
        assert!(message(Path::new("/dev/null")).ends_with("is not a regular file"));
    }
}
