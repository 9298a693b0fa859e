//! What dlc remembers of a machine between runs: one file for each kind of thing, in the user's cache
//! folder, under the version of dlc and the name of the processor.
//!
//! What holds: a file is written whole or not at all, whoever else writes it; what cannot be read is
//! as good as absent, with a reason to tell.

use crate::Error;
use dlc_cpu::machine::Machine;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A file of the store and the key it must have.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    path: PathBuf,
    key: Key,
}

/// What must agree for a record to be of use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    version: String,
    cpu: String,
    target: String,
}

/// The text of a file.
#[derive(Serialize, Deserialize)]
struct Content<T> {
    #[serde(flatten)]
    key: Key,
    value: T,
}

impl Record {
    /// The record `name` for code of that target on this machine. `None` if the environment names
    /// no home.
    pub fn new(name: &str, target: &str) -> Option<Record> {
        Some(Record::within(&cache_dir()?, name, target))
    }

    fn within(folder: &Path, name: &str, target: &str) -> Record {
        let (version, cpu) = (env!("CARGO_PKG_VERSION").to_owned(), Machine::here().cpu);
        let folder = folder.join(&version).join(file_name(&cpu));
        let path = folder.join(format!("{name}-{target}.json"));
        Record { path, key: Key { version, cpu, target: target.to_owned() } }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept, if there is a file.
    ///
    /// # Errors
    /// Why the file is of no use.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, String> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", self.path.display())),
        };
        let content: Content<T> = serde_json::from_slice(&text)
            .map_err(|error| format!("{} is not what dlc wrote: {error}", self.path.display()))?;
        if content.key != self.key {
            let Key { version, cpu, target } = content.key;
            let path = self.path.display();
            return Err(format!("{path} is of dlc {version} for {target} on `{cpu}`"));
        }
        Ok(Some(content.value))
    }

    /// Keeps `value` instead of whatever is there.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write<T: Serialize>(&self, value: T) -> Result<(), Error> {
        let content = Content { key: self.key.clone(), value };
        let text = serde_json::to_vec_pretty(&content).expect("what is kept can be written");
        Ok(dlc_train::write_atomic(&self.path, &text)?)
    }
}

/// `dlc` in the user's cache folder, by XDG's rules.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(cache?.join("dlc"))
}

/// Letters, digits and dashes of a name.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(folder: &tempfile::TempDir, target: &str) -> Record {
        Record::within(folder.path(), "numbers", target)
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = record(&folder, "one");
        assert_eq!(own.read::<Vec<i32>>(), Ok(None));
        own.write(vec![1, 2]).unwrap();
        own.write(vec![3]).unwrap();
        assert_eq!(own.read(), Ok(Some(vec![3])));
        assert_eq!(record(&folder, "two").read::<Vec<i32>>(), Ok(None));
        let files = std::fs::read_dir(own.path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn what_is_broken_or_foreign_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (record(&folder, "one"), record(&folder, "two"));
        other.write(vec![1]).unwrap();
        std::fs::copy(&other.path, &own.path).unwrap();
        assert!(own.read::<Vec<i32>>().unwrap_err().contains("for two on"));
        for text in ["", "{", "[1]", "{\"value\": 3}"] {
            std::fs::write(&own.path, text).unwrap();
            assert!(own.read::<Vec<i32>>().unwrap_err().contains("not what dlc wrote"), "{text}");
        }
    }

    #[test]
    fn writers_at_the_same_time_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let own = &record(&folder, "one");
        std::thread::scope(|scope| {
            for writer in 0..4u64 {
                scope.spawn(move || (0..20).for_each(|_| own.write(vec![writer; 1000]).unwrap()));
            }
            for _ in 0..100 {
                let read: Option<Vec<u64>> = own.read().unwrap();
                assert!(read.is_none_or(|v| v.len() == 1000 && v.iter().all(|&w| w == v[0])));
            }
        });
    }
}
