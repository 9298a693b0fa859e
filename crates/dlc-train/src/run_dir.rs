//! The folder of a training run:
//!
//! ```text
//! lock                  the process that trains here
//! weights.safetensors   of the best epoch
//! checkpoints/000007/   everything that is needed to go on; the newest two are kept
//! ```

use crate::checkpoint::{self, Checkpoint};
use crate::lock::{self, Lock};
use crate::{Error, Weights, files};
use std::fs;
use std::path::{Path, PathBuf};

/// A locked run folder.
#[derive(Debug)]
pub(crate) struct RunDir {
    root: PathBuf,
    /// The newest good checkpoint.
    newest: Option<PathBuf>,
    _lock: Lock,
}

/// How many checkpoints are kept.
const KEPT: usize = 2;

/// A folder for a new run: `base/name`, or `base/name-2` and so on where that is taken.
pub fn next_run_dir(base: &Path, name: &str) -> PathBuf {
    let dir = numbered(base, name).find(|dir| !is_used(dir));
    dir.expect("numbers do not run out")
}

/// The run folder that [`next_run_dir`] gave last, if there is one with a checkpoint.
pub fn latest_run_dir(base: &Path, name: &str) -> Option<PathBuf> {
    numbered(base, name).take_while(|dir| is_used(dir)).last()
}

fn numbered(base: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let folder = move |n: u32| match n {
        1 => base.join(name),
        _ => base.join(format!("{name}-{n}")),
    };
    (1..u32::MAX).map(folder)
}

fn is_used(dir: &Path) -> bool {
    dir.join("checkpoints").exists() || dir.join("weights.safetensors").exists()
}

impl RunDir {
    /// Makes and locks a folder for a new run.
    pub(crate) fn create(root: &Path) -> Result<RunDir, Error> {
        let dir = RunDir::open(root)?;
        if is_used(root) { Err(Error::Occupied(root.to_owned())) } else { Ok(dir) }
    }

    /// Locks a folder, which is made if need be.
    pub(crate) fn open(root: &Path) -> Result<RunDir, Error> {
        fs::create_dir_all(root).map_err(|e| Error::write(root, e))?;
        Ok(RunDir { root: root.to_owned(), newest: None, _lock: lock::acquire(root)? })
    }

    /// Where the best weights are.
    pub(crate) fn weights_path(&self) -> PathBuf {
        self.root.join("weights.safetensors")
    }

    /// The newest good checkpoint.
    pub(crate) fn newest(&self) -> Option<&Path> {
        self.newest.as_deref()
    }

    pub(crate) fn write_best(&self, weights: &Weights) -> Result<PathBuf, Error> {
        let path = self.weights_path();
        weights.write(&path)?;
        Ok(path)
    }

    /// Reads the newest checkpoint that is whole. Damaged ones are set aside under the name
    /// `NUMBER.damaged`, and `note` is told.
    pub(crate) fn read_newest(&mut self, note: &mut dyn FnMut(&str)) -> Result<Checkpoint, Error> {
        let mut first = None;
        for (_, path) in self.checkpoints()?.into_iter().rev() {
            match checkpoint::read(&path) {
                Ok(checkpoint) => {
                    self.newest = Some(path);
                    return Ok(checkpoint);
                }
                Err(error @ Error::File { .. }) => {
                    note(&format!("{error}; going back to the checkpoint before"));
                    set_aside(&path)?;
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let reasons = vec!["there is no checkpoint in it".to_owned()];
        Err(first.unwrap_or(Error::Resume { path: self.root.clone(), reasons }))
    }

    /// Writes a checkpoint, then removes all but the newest ones.
    pub(crate) fn write_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<PathBuf, Error> {
        let parent = self.root.join("checkpoints");
        fs::create_dir_all(&parent).map_err(|e| Error::write(&parent, e))?;
        let present = self.checkpoints()?;
        let number = present.last().map_or(1, |(n, _)| n + 1);
        let path = parent.join(format!("{number:06}"));
        let temp = tempfile::Builder::new().prefix(".tmp-").tempdir_in(&parent);
        let temp = temp.map_err(|e| Error::write(&parent, e))?;
        checkpoint::write(checkpoint, temp.path())?;
        fs::rename(temp.path(), &path).map_err(|e| Error::write(&path, e))?;
        let _ = temp.keep();
        files::sync_dir(&parent)?;
        self.newest = Some(path.clone());
        let old = present.len().saturating_sub(KEPT - 1);
        present[..old].iter().try_for_each(|(_, path)| remove(path))?;
        self.sweep()?;
        Ok(path)
    }

    /// All checkpoints with their numbers, oldest first.
    fn checkpoints(&self) -> Result<Vec<(u32, PathBuf)>, Error> {
        let entries = self.entries()?;
        let numbered = |(name, path): (String, PathBuf)| Some((name.parse().ok()?, path));
        let mut checkpoints: Vec<(u32, PathBuf)> =
            entries.into_iter().filter_map(numbered).collect();
        checkpoints.sort_unstable();
        Ok(checkpoints)
    }

    /// Removes what a killed process left half-written.
    fn sweep(&self) -> Result<(), Error> {
        let entries = self.entries()?;
        let stale = entries.iter().filter(|(name, _)| name.starts_with(".tmp-"));
        stale.into_iter().try_for_each(|(_, path)| remove(path))
    }

    fn entries(&self) -> Result<Vec<(String, PathBuf)>, Error> {
        let parent = self.root.join("checkpoints");
        if !parent.exists() {
            return Ok(Vec::new());
        }
        let unreadable = |e| crate::FileProblem::Unreadable(e).at(&parent);
        let entry = |e: std::io::Result<fs::DirEntry>| {
            e.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        };
        let entries = fs::read_dir(&parent).map_err(unreadable)?.map(entry);
        entries.collect::<Result<_, _>>().map_err(unreadable)
    }
}

fn set_aside(path: &Path) -> Result<(), Error> {
    let aside = path.with_extension("damaged");
    if aside.exists() {
        remove(&aside)?;
    }
    fs::rename(path, &aside).map_err(|e| Error::write(&aside, e))
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(path).map_err(|e| Error::write(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_folders_are_numbered() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        assert_eq!(next_run_dir(base, "lenet"), base.join("lenet"));
        assert_eq!(latest_run_dir(base, "lenet"), None);
        for expected in ["lenet", "lenet-2", "lenet-3"] {
            let dir = next_run_dir(base, "lenet");
            assert_eq!(dir, base.join(expected));
            fs::create_dir_all(dir.join("checkpoints")).unwrap();
            assert_eq!(latest_run_dir(base, "lenet"), Some(dir));
        }
    }
}
