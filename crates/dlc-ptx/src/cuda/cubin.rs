//! Machine code that the driver made of PTX, kept on disk: assembling a large program takes seconds.
//!
//! A file's name is a hash of the PTX, the GPU's architecture and the driver's version; its first
//! bytes are a hash of the rest. What holds: a file is written whole or not at all; what is broken
//! is as good as absent.

use crate::Gpu;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of a hash.
const HASH: usize = 32;

/// The machine code of `ptx` for `gpu`: from `folder`, if it is there, or else from `assemble`,
/// which is kept.
///
/// # Errors
/// Those of `assemble`. A folder that cannot be written costs time, not the result.
pub fn cached<E>(
    folder: Option<&Path>,
    gpu: &Gpu,
    ptx: &str,
    assemble: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let Some(folder) = folder else { return assemble() };
    let path = place(folder, gpu, ptx);
    if let Some(code) = read(&path) {
        return Ok(code);
    }
    let code = assemble()?;
    let _ = write(&path, &code);
    Ok(code)
}

fn place(folder: &Path, gpu: &Gpu, ptx: &str) -> PathBuf {
    let Gpu { capability, driver, name, .. } = gpu;
    let key = format!("{capability:?} {driver:?} {name}\n{ptx}");
    let hash = Sha256::digest(key.as_bytes());
    let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join("cubin").join(name)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (hash, code) = bytes.split_at_checked(HASH)?;
    (hash == Sha256::digest(code).as_slice()).then(|| code.to_vec())
}

fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().expect("a file in a folder");
    fs::create_dir_all(folder)?;
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(driver: u32) -> Gpu {
        Gpu { name: "G1".into(), capability: (9, 0), driver: (12, driver), bytes: 1 << 30 }
    }

    #[test]
    fn code_is_assembled_once_for_each_ptx_and_driver() {
        let folder = std::env::temp_dir().join(format!("dlc-cubin-{}", std::process::id()));
        let code = |driver, ptx: &str, fresh: Option<&[u8]>| {
            let assemble = || fresh.map(<[u8]>::to_vec).ok_or("assembled again");
            cached(Some(&folder), &gpu(driver), ptx, assemble)
        };
        assert_eq!(code(8, "a", Some(b"one")), Ok(b"one".to_vec()));
        assert_eq!(code(8, "a", None), Ok(b"one".to_vec()));
        assert_eq!(code(9, "a", None), Err("assembled again"));
        assert_eq!(code(8, "b", None), Err("assembled again"));
        let path = place(&folder, &gpu(8), "a");
        for broken in [&b""[..], b"short", &[0; 40]] {
            fs::write(&path, broken).unwrap();
            assert_eq!(code(8, "a", None), Err("assembled again"));
        }
        assert_eq!(code(8, "a", Some(b"two")), Ok(b"two".to_vec()));
        assert_eq!(code(8, "a", None), Ok(b"two".to_vec()));
        fs::remove_dir_all(folder).unwrap();
    }
}
