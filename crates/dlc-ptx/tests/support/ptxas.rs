//! NVIDIA's assembler, as a judge of what is printed.
//!
//! It is found by the variable `DLC_PTXAS` or on the path. Without it nothing is assembled, which
//! is said; with `DLC_REQUIRE_PTXAS=1` that is a failure.

use dlc_ptx::Flavour;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The assembler, if there is one.
pub fn find() -> Option<PathBuf> {
    let named = std::env::var_os("DLC_PTXAS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|p| p.join("ptxas")).find(|p| p.is_file());
    let found = named.or_else(on_path);
    let required = std::env::var_os("DLC_REQUIRE_PTXAS").is_some_and(|v| v == "1");
    assert!(found.is_some() || !required, "DLC_REQUIRE_PTXAS is set, and there is no ptxas");
    if found.is_none() {
        eprintln!("skipped: no ptxas (set DLC_PTXAS, or have it on the path)");
    }
    found
}

/// Assembles a file; gives what the assembler says: as an error if it refuses, warns, or spills.
pub fn assemble(ptxas: &Path, text: &str, flavour: Flavour) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.ptx");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(ptxas);
    command.arg(format!("-arch={flavour}")).args(["-v", "-o"]);
    let output = command.arg(folder.path().join("model.cubin")).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let clean = output.status.success() && !said.lines().any(is_bad);
    if clean { Ok(said) } else { Err(said) }
}

/// Whether a line tells of a hazard, of registers that went to memory, or of a stack.
fn is_bad(line: &str) -> bool {
    let spills = line.contains("stack frame")
        && line.trim() != "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    spills || ["C75", "warning", "Warning"].iter().any(|word| line.contains(word))
}
