//! The command line where GPUs are meant, on machines with and without one: what `-o` writes, what is
//! refused, and what is said where there is no GPU.

use assert_cmd::Command;
use std::path::{Path, PathBuf};

fn dlc() -> Command {
    let mut command = Command::cargo_bin("dlc").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    command.env("NO_COLOR", "1").env("XDG_CACHE_HOME", cache).current_dir(root);
    command
}

/// Exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().expect("not killed"), text(&output.stdout), text(&output.stderr))
}

/// A temporary folder with one model file.
fn layer() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.dl");
    let text = "model Layer(x: f32[N, 4]) -> f32[N, 2] { x |> linear(2) |> relu }\n";
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

#[test]
fn compile_writes_ptx_and_what_launches_it() {
    let (dir, file) = layer();
    for (target, version) in [("sm_80", "7.8"), ("sm_90a", "8.0")] {
        let ptx = dir.path().join("out").join(format!("{target}.ptx"));
        let args = ["compile", "--bind", "N=3", "--target", target, "--math", "3xtf32"];
        let (code, out, err) = run(dlc().args(args).arg("-o").arg(&ptx).arg(&file));
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        assert!(err.contains("parameters   10") && err.contains("peak memory"), "{err}");
        let text = std::fs::read_to_string(&ptx).unwrap();
        assert!(text.contains(&format!(".target {target}")), "{text}");
        let manifest = std::fs::read(ptx.with_extension("json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["version"], 2);
        assert_eq!(manifest["ptx"], format!("{target}.ptx"));
        assert_eq!(
            (&manifest["target"], &manifest["ptx_version"]),
            (&target.into(), &version.into())
        );
        assert_eq!(manifest["math"], "3xtf32");
        let kernels = manifest["kernels"].as_array().unwrap();
        for kernel in kernels {
            let entry = format!(".entry {}(", kernel["name"].as_str().unwrap());
            assert!(text.contains(&entry), "{entry} is missing:\n{text}");
        }
        let launches = manifest["entries"][0]["launches"].as_array().unwrap();
        for launch in launches {
            let params = kernels[launch["kernel"].as_u64().unwrap() as usize]["params"].as_array();
            assert_eq!(params.unwrap().len(), launch["args"].as_array().unwrap().len());
        }
    }
    let files = std::fs::read_dir(dir.path().join("out")).unwrap().count();
    assert_eq!(files, 4, "no temporary file is left");
}

/// A loop is one item of the list, with the launches of a step inside.
#[test]
fn a_loop_is_listed_once() {
    let dir = tempfile::tempdir().unwrap();
    let ptx = dir.path().join("lstm.ptx");
    let mut command = dlc();
    command.args(["compile", "examples/lstm.dl", "--model", "CharLstm", "--target", "sm_80"]);
    command.arg("-o").arg(&ptx);
    for size in ["N=2", "T=50", "V=9"] {
        command.args(["--bind", size]);
    }
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 0, "{err}");
    let manifest = std::fs::read(ptx.with_extension("json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let launches = manifest["entries"][0]["launches"].as_array().unwrap();
    let loops: Vec<_> = launches.iter().filter(|one| one["repeat"].is_u64()).collect();
    assert_eq!(loops.len(), 1, "one layer");
    assert_eq!(loops[0]["repeat"], 50);
    let step = serde_json::json!({ "step": 0 });
    for launch in loops[0]["launches"].as_array().unwrap() {
        assert!(launch["args"].as_array().unwrap().contains(&step), "{launch}");
    }
}

#[test]
fn a_training_step_has_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let ptx = dir.path().join("step.ptx");
    let args = ["compile", "examples/mlp.dl", "--train", "--target", "sm_80", "--json", "-o"];
    let (code, out, err) = run(dlc().args(args).arg(&ptx));
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let manifest = std::fs::read(ptx.with_extension("json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let names = ["train", "eval"];
    for (entry, name) in manifest["entries"].as_array().unwrap().iter().zip(names) {
        assert_eq!(entry["name"], name);
    }
    assert_eq!(report["peak_bytes"], manifest["memory"]["bytes"]);
    let buffers = manifest["buffers"].as_array().unwrap();
    let lr = buffers.iter().find(|b| b["class"] == "scalar" && b["default"] != 0.0);
    assert!(lr.is_some(), "the learning rate has its default: {buffers:?}");
}

#[test]
fn stages_are_those_of_the_target() {
    let (_dir, file) = layer();
    let emit = |target: &str, kind: &str| {
        let args = ["compile", "--bind", "N=3", "--target", target, "--emit", kind];
        run(dlc().args(args).arg(&file))
    };
    let (code, out, err) = emit("sm_90a", "ptx");
    assert!(code == 0 && out.contains(".version 8.0\n"), "{out}{err}");
    let (code, out, _) = emit("sm_80", "schedule");
    assert!(code == 0 && out.starts_with("entry run for sm_80, f32\n"), "{out}");
    let (code, _, err) = emit("x86-64-v3", "ptx");
    assert_eq!(code, 1);
    assert!(err.contains("`ptx` (--target sm_80 or sm_90a has it)"), "{err}");
    let (code, _, err) = emit("sm_80", "asm");
    assert!(code == 1 && err.contains("(--target x86-64-v2 or "), "{err}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let (dir, file) = layer();
    let compile = |args: &[&str]| {
        run(dlc().args(["compile", "--bind", "N=3"]).args(args).arg(&file).current_dir(dir.path()))
    };
    for (args, told) in [
        (&["--target", "sm_70"][..], "there are x86-64-v2, x86-64-v3, x86-64-v4"),
        (&["--target", "sm_70"], "sm_80, sm_90a"),
        (&["-o", "m.ptx"], "give --target sm_80 or sm_90a"),
        (&["--target", "sm_80", "-o", "m.json"], "a .json file is written beside it"),
        (&["--target", "sm_80", "--math", "f8"], "there are f32, 3xtf32, tf32, f16, bf16"),
        (&["--math", "tf32"], "math `tf32` is for GPUs"),
    ] {
        let (code, _, err) = compile(args);
        assert!(code == 1 && err.contains(told), "{args:?}: {err}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is written");
    let (code, _, err) = run(dlc().args(["run", "--device", "tpu"]).arg(&file));
    assert!(code == 1 && err.contains("there are cpu and cuda"), "{err}");
    let both = ["run", "--device", "cuda", "--target", "sm_80"];
    assert_eq!(run(dlc().args(both).arg(&file)).0, 2);
}

#[test]
fn targets_say_what_gpu_was_found_or_why_none() {
    let (code, out, _) = run(dlc().args(["targets", "--json"]));
    assert_eq!(code, 0);
    let targets: serde_json::Value = serde_json::from_str(&out).unwrap();
    let targets = targets.as_array().unwrap();
    for name in ["sm_80", "sm_90a"] {
        let target = targets.iter().find(|t| t["name"] == name).unwrap();
        assert!(target["device"].is_string() != target["refusal"].is_string(), "{target}");
    }
    let (_, out, _) = run(dlc().args(["targets"]));
    assert!(out.lines().any(|l| l.starts_with("sm_90a ")), "{out}");
}

/// Where a GPU runs the most portable flavour, nothing is refused.
#[test]
fn without_a_gpu_every_command_says_why() {
    let (dir, file) = layer();
    let reason = match dlc::targets().into_iter().find(|t| t.name == "sm_80").unwrap().refusal {
        Some(reason) => reason,
        None => return,
    };
    dlc::npy::write(&dir.path().join("x.npy"), &dlc::Tensor::f32([3, 4], vec![0.0; 12])).unwrap();
    let input = format!("x={}", dir.path().join("x.npy").display());
    let file = file.to_str().unwrap();
    for args in [
        &["run", "--device", "cuda", "--input", &input, "--seed", "1", file][..],
        &["run", "--target", "sm_80", "--input", &input, "--seed", "1", file],
        &["bench", "--device", "cuda", "--bind", "N=3", file],
        &["train", "--device", "cuda", "examples/mlp.dl"],
        &["eval", "--device", "cuda", "--weights", "none", "examples/mlp.dl"],
    ] {
        let (code, out, err) = run(dlc().args(args));
        assert_eq!((code, out.as_str()), (3, ""), "{args:?}: {err}");
        assert!(err.contains(&reason), "{args:?}: {err}");
    }
}

#[test]
fn what_is_for_the_cpu_alone_says_so() {
    let (_dir, file) = layer();
    let (code, _, err) = run(dlc().args(["tune", "--bind", "N=3", "--target", "sm_80"]).arg(&file));
    assert!(code == 1 && err.contains("tuning is for CPU targets; `sm_80` is none"), "{err}");
    let args = ["explain", "--perf", "--bind", "N=3", "--target", "sm_80"];
    let (code, out, err) = run(dlc().args(args).arg(&file));
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("sm_80; its roofs are not known\n"), "{out}");
    assert!(out.contains("  algorithm  contract: ") && !out.contains("  bound "), "{out}");
}

/// The benchmark on GPUs compiles all its cases anywhere, and says why it does not run where there
/// is no GPU.
#[test]
fn the_benchmark_says_why_it_does_not_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let compare = |args: &[&str]| {
        let mut python = Command::new("python3");
        python.arg("benches/gpu/compare.py").args(args).current_dir(&root);
        run(python.arg("--dlc").arg(assert_cmd::cargo::cargo_bin("dlc")))
    };
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("python3 is missing: the benchmark is not tested");
        return;
    }
    let (code, out, err) = compare(&["--compile-only"]);
    assert!(code == 0 && out.lines().count() > 20, "{out}{err}");
    if dlc::targets().iter().all(|t| t.device.is_none()) {
        let (code, out, err) = compare(&[]);
        assert_eq!((code, out.as_str()), (3, ""));
        assert!(err.starts_with("no device: "), "{err}");
    }
}
