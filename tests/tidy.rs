//! Rules of the source tree that no compiler checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Functions that may be longer than 70 lines, each with its reason.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Files that may be longer than 500 lines, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Files that may have longer lines, each with its reason.
const WIDE_FILES: &[(&str, &str)] =
    &[("crates/dlc-train/src/render.rs", "its tests hold what a terminal shows")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = ["crates", "tests", "benches", "examples"].map(|f| root().join(f)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == extension) {
                found.push(entry);
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} file found");
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn crates_depend_only_as_the_architecture_says() {
    let allowed: &[(&str, &[&str])] = &[
        ("dlc-kernel", &[]),
        ("dlc-graph", &["dlc-kernel"]),
        ("dlc-front", &["dlc-graph", "dlc-kernel"]),
        ("dlc-pass", &["dlc-graph", "dlc-kernel"]),
        ("dlc-cpu", &["dlc-kernel"]),
        ("dlc-ptx", &["dlc-kernel"]),
        ("dlc-train", &["dlc-kernel"]),
        (
            "dlc",
            &[
                "dlc-cpu",
                "dlc-front",
                "dlc-graph",
                "dlc-kernel",
                "dlc-pass",
                "dlc-ptx",
                "dlc-train",
            ],
        ),
    ];
    let listed: BTreeSet<String> = allowed.iter().map(|(c, _)| (*c).to_owned()).collect();
    let folders = std::fs::read_dir(root().join("crates")).unwrap();
    let present: BTreeSet<String> =
        folders.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(present, listed);
    for (krate, may) in allowed {
        let manifest = root().join("crates").join(krate).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).unwrap();
        let dependencies = text.split("[dev-dependencies]").next().unwrap();
        for (other, _) in allowed {
            let named = dependencies.lines().any(|l| l.starts_with(&format!("{other}.workspace")));
            assert!(!named || may.contains(other), "{krate} must not depend on {other}");
        }
    }
}

#[test]
fn unsafe_code_is_in_the_cpu_target_and_the_launcher_alone() {
    for path in files("rs") {
        let (name, text) = (name(&path), std::fs::read_to_string(&path).unwrap());
        let has = text.lines().any(|l| {
            let code = l.split("//").next().unwrap();
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        });
        let may = [
            "crates/dlc-cpu/",
            "crates/dlc-ptx/src/cuda/",
            "examples/launch_ptx/",
            // The `gemm` crate has no safe call.
            "benches/rust_peers/src/products.rs",
            "tests/tidy.rs",
        ];
        assert!(!has || may.iter().any(|place| name.starts_with(place)), "{name}");
    }
}

#[test]
fn modules_say_what_they_are() {
    for path in files("rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no module documentation", name(&path));
    }
}

#[test]
fn files_and_lines_are_short() {
    for path in files("rs") {
        let (name, text) = (name(&path), std::fs::read_to_string(&path).unwrap());
        let excused = LONG_FILES.iter().any(|(file, _)| *file == name);
        let wide = WIDE_FILES.iter().any(|(file, _)| *file == name);
        let lines = text.lines().count();
        assert!(lines <= 500 || excused, "{name} has {lines} lines");
        for (number, line) in text.lines().enumerate() {
            let length = line.chars().count();
            // The formatter cannot break texts and what stands in macros.
            let literal = line.contains('"') || line.contains("//") || line.contains("#![");
            assert!(length <= 100 || literal || wide, "{name}:{}: {length} columns", number + 1);
        }
    }
}

#[test]
fn lines_of_the_language_are_short() {
    for path in files("dl") {
        let (name, text) = (name(&path), std::fs::read_to_string(&path).unwrap());
        for (number, line) in text.lines().enumerate() {
            let length = line.chars().count();
            assert!(length <= 100, "{name}:{}: {length} columns", number + 1);
        }
    }
}

#[test]
fn functions_are_short() {
    for path in files("rs") {
        let (name, text) = (name(&path), std::fs::read_to_string(&path).unwrap());
        for (function, lines) in function_lengths(&text) {
            let excused = LONG_FUNCTIONS.iter().any(|(f, _)| *f == function);
            assert!(lines <= 70 || excused, "{name}: `{function}` has {lines} lines");
        }
    }
}

/// Names and lengths of functions; rustfmt puts the closing brace under the `fn`.
fn function_lengths(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let Some((before, rest)) = line.split_once("fn ") else { continue };
        let words = ["", "pub", "const", "unsafe", "async", "pub(crate)", "pub(super)", "extern"];
        if !before.split_whitespace().all(|w| words.contains(&w) || w == "\"C\"") {
            continue;
        }
        let function: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let close = format!("{indent}}}");
        if let Some(length) = lines[start..].iter().position(|l| **l == close) {
            found.push((function, length + 1));
        }
    }
    found
}

#[test]
fn nothing_is_left_unfinished() {
    let words = ["todo!", "unimplemented!", "FIXME", "TODO", "#[ignore", "XXX"];
    for path in files("rs").into_iter().filter(|p| !p.ends_with("tidy.rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in words {
            assert!(!text.contains(word), "{} contains {word}", name(&path));
        }
    }
}

#[test]
fn snapshots_fit_on_a_screen() {
    for path in files("snap") {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 180, "{} has {lines} lines", name(&path));
    }
}
