//! The command line: what goes to stdout, what to stderr, and every exit code.

use assert_cmd::Command;
use std::path::{Path, PathBuf};

/// The command, with a cache folder of the tests' own.
fn dlc() -> Command {
    dlc_with_cache(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
}

fn dlc_with_cache(cache: &Path) -> Command {
    let mut command = Command::cargo_bin("dlc").unwrap();
    command.env("NO_COLOR", "1").env("XDG_CACHE_HOME", cache).current_dir(root());
    command
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A temporary folder with one model file.
fn folder(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.dl"), text).unwrap();
    dir
}

/// Exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().expect("not killed"), text(&output.stdout), text(&output.stderr))
}

const LAYER: &str = "model Layer(x: f32[N, 4]) -> f32[N, 2] { x |> linear(2) }\n";

#[test]
fn check_is_silent_on_a_good_file() {
    for name in ["lenet", "mlp", "own_optimizer", "resnet"] {
        let file = &format!("examples/{name}.dl");
        let (code, out, err) = run(dlc().args(["check", file]));
        assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""), "{file}");
    }
}

#[test]
fn check_points_at_the_mistake() {
    let dir = folder("model M(x: f32[N, 4]) -> f32[N, 2] { x |> liner(2) }\n");
    let (code, out, err) = run(dlc().args(["check"]).arg(dir.path().join("model.dl")));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("liner") && err.contains("linear") && err.contains("model.dl:1:"),
        "{err}"
    );
}

#[test]
fn check_speaks_json() {
    let dir = folder("model M(x: f32[N, 4]) -> f32[N, 2] { x |> liner(2) }\n");
    let (code, out, _) = run(dlc().args(["check", "--json"]).arg(dir.path().join("model.dl")));
    assert_eq!(code, 1);
    let line: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(line["severity"], "error");
    assert_eq!(line["line"], 1);
    assert!(line["code"].as_str().unwrap().starts_with('E'));
}

#[test]
fn a_missing_file_is_named() {
    let (code, _, err) = run(dlc().args(["check", "no/such.dl"]));
    assert_eq!(code, 1);
    assert!(err.contains("no/such.dl"), "{err}");
}

#[test]
fn usage_errors_exit_2() {
    assert_eq!(run(dlc().args(["compile"])).0, 2);
    assert_eq!(run(dlc().args(["bench", "x.dl", "--bind", "N"])).0, 2);
    assert_eq!(run(dlc().args(["frobnicate"])).0, 2);
    let lonely = ["generate", "x.dl", "--weights", "w", "--length-penalty", "2"];
    let (code, _, err) = run(dlc().args(lonely));
    assert!(code == 2 && err.contains("--beam <N>"), "{err}");
}

#[test]
fn compile_shows_stages_and_reports() {
    let dir = folder(LAYER);
    let file = dir.path().join("model.dl");
    let (code, out, err) =
        run(dlc().args(["compile", "--bind", "N=2", "--emit", "graph,kernels"]).arg(&file));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("graph") && out.contains("kernel"), "{out}");
    assert!(err.contains("compiled in") && err.contains("parameters   10"), "{err}");
    let schedule = dir.path().join("schedule.txt");
    let emit = format!("schedule={}", schedule.display());
    let (code, out, _) = run(dlc().args(["compile", "--bind", "N=2", "--emit", &emit]).arg(&file));
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(std::fs::read_to_string(schedule).unwrap().contains("contract"));
}

#[test]
fn compile_stops_after_a_pass() {
    let dir = folder(LAYER);
    let file = dir.path().join("model.dl");
    let stop =
        |pass: &str| run(dlc().args(["compile", "--bind", "N=2", "--stop-after", pass]).arg(&file));
    let (code, out, _) = stop("simplify");
    assert_eq!(code, 0);
    assert!(out.contains("contract") && !out.contains("fused"), "{out}");
    let (code, _, err) = stop("nonsense");
    assert_eq!(code, 1);
    assert!(err.contains("simplify"), "the passes are listed: {err}");
}

#[test]
fn an_unknown_stage_lists_the_known_ones() {
    let dir = folder(LAYER);
    let file = dir.path().join("model.dl");
    let (code, _, err) = run(dlc().args(["compile", "--emit", "llvm"]).arg(file));
    assert_eq!(code, 1);
    assert!(err.contains("kernels") && err.contains("asm"), "{err}");
}

#[test]
fn a_missing_size_is_named() {
    let dir = folder(LAYER);
    let (code, _, err) = run(dlc().args(["compile"]).arg(dir.path().join("model.dl")));
    assert_eq!(code, 1);
    assert!(err.contains('N') && err.contains("--bind"), "{err}");
}

#[test]
fn run_reads_and_writes_npy() {
    let dir = folder("model Double(x: f32[N]) -> f32[N] { 2 * x }\n");
    let path = |name: &str| dir.path().join(name);
    let x = dlc::Tensor::f32([3], vec![1.0, -2.0, 0.5]);
    dlc::npy::write(&path("x.npy"), &x).unwrap();
    let input = format!("x={}", path("x.npy").display());
    let (code, out, err) = run(dlc()
        .args(["run", "--json", "--input", &input, "--output"])
        .arg(path("out"))
        .arg(path("model.dl")));
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["outputs"][0]["shape"], serde_json::json!([3]));
    let file = PathBuf::from(report["outputs"][0]["file"].as_str().unwrap());
    let y = dlc::npy::read(&file).unwrap();
    assert_eq!(y.as_f32(), Some(&[2.0, -4.0, 1.0][..]));
}

#[test]
fn run_refuses_what_does_not_fit() {
    let dir = folder(LAYER);
    let path = |name: &str| dir.path().join(name);
    dlc::npy::write(&path("x.npy"), &dlc::Tensor::f32([3, 5], vec![0.0; 15])).unwrap();
    let input = format!("x={}", path("x.npy").display());
    let (code, _, err) = run(dlc().args(["run", "--input", &input]).arg(path("model.dl")));
    assert_eq!(code, 1);
    assert!(err.contains('5') && err.contains('4'), "{err}");
    std::fs::write(path("w.safetensors"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    dlc::npy::write(&path("x.npy"), &dlc::Tensor::f32([3, 4], vec![0.0; 12])).unwrap();
    let (code, _, err) = run(dlc()
        .args(["run", "--input", &input, "--weights"])
        .arg(path("w.safetensors"))
        .arg(path("model.dl")));
    assert_eq!(code, 1);
    assert!(err.contains("Git LFS pointer"), "{err}");
}

/// A folder with a layer's weights, under the names that a wrapper has given them; one is NaN.
fn wrapped_weights() -> (tempfile::TempDir, Vec<String>) {
    let dir = folder(LAYER);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let wrapped = "block Layer(x: [N, 4]) { x |> linear(2) }
        model Wrapped(x: f32[N, 4]) { module = Layer\n x |> module }";
    let module = dlc::Compiler::new().compile_text("wrapped.dl", wrapped).unwrap();
    let network = module.model("Wrapped").unwrap().bind([("N", 1)]).unwrap();
    let bias = dlc::Tensor::f32([2], vec![1.0, f32::NAN]);
    network.write("module.linear1.bias", &bias).unwrap();
    network.save(path("w.safetensors")).unwrap();
    dlc::npy::write(Path::new(&path("x.npy")), &dlc::Tensor::f32([1, 4], vec![0.0; 4])).unwrap();
    std::fs::write(path("names.txt"), "# wrapped\nmodule.* = *\n").unwrap();
    let input = format!("x={}", path("x.npy"));
    let args = ["run", "--input", &input, "--weights", &path("w.safetensors"), &path("model.dl")];
    let args = args.map(String::from).to_vec();
    (dir, args)
}

#[test]
fn weights_of_other_names_are_renamed() {
    let (dir, args) = wrapped_weights();
    let (code, _, err) = run(dlc().args(&args));
    assert_eq!(code, 1);
    assert!(err.contains("2 missing, 2 unexpected") && err.contains("`module.* = *`"), "{err}");
    let table = dir.path().join("names.txt");
    let (code, out, err) = run(dlc().args(&args).arg("--rename").arg(&table));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("NaN") && err.starts_with("warning: "), "{out}{err}");
    assert!(err.contains("(`linear1.bias`: 1)"), "{err}");
    let (code, _, err) = run(dlc().args(&args).arg("--strict").arg("--rename").arg(&table));
    assert_eq!(code, 1);
    assert!(err.contains("not finite:\n  - `linear1.bias`: 1"), "{err}");
    std::fs::write(&table, "\nmodule").unwrap();
    let (code, _, err) = run(dlc().args(&args).arg("--rename").arg(&table));
    assert_eq!(code, 1);
    assert!(err.contains("names.txt`, line 2: expected `NAME = NAME`"), "{err}");
}

#[test]
fn folders_of_unknown_data_sets_are_refused() {
    let (code, _, err) = run(dlc().args(["train", "examples/lenet.dl", "--data", "cifar=x"]));
    assert_eq!(code, 1);
    assert!(err.contains("no data set `cifar`; it has mnist"), "{err}");
}

#[test]
fn data_that_is_not_there_is_missed_in_its_line() {
    let args = ["train", "examples/lenet.dl", "--data", "mnist=examples/none"];
    let (code, _, err) = run(dlc().args(args));
    assert_eq!(code, 1);
    assert!(err.starts_with("error[E0510]: `examples/none` does not exist"), "{err}");
    assert!(err.contains("lenet.dl:16:10") && err.contains("mnist(\"data/mnist-5k\")"), "{err}");
}

#[test]
fn a_bad_index_fails_the_run_with_its_line() {
    let dir = folder(
        "model Look(t: f32[R, 2], i: i32[N]) -> f32[N, 2] {\n  y[n, d] = t[i[n], d]\n  y\n}\n",
    );
    let path = |name: &str| dir.path().join(name);
    dlc::npy::write(&path("t.npy"), &dlc::Tensor::f32([3, 2], vec![0.0; 6])).unwrap();
    dlc::npy::write(&path("i.npy"), &dlc::Tensor::i32([2], vec![1, 7])).unwrap();
    let (t, i) = (path("t.npy"), path("i.npy"));
    let inputs = [format!("t={}", t.display()), format!("i={}", i.display())];
    let (code, _, err) = run(dlc()
        .args(["run", "--input", &inputs[0], "--input", &inputs[1]])
        .arg(path("model.dl")));
    assert_eq!(code, 3);
    assert!(err.contains("model.dl:2") && err.contains('7'), "{err}");
}

#[test]
fn inputs_tell_the_sizes_that_parameters_need() {
    let dir = folder("model Square(x: f32[N, N]) -> f32[N, N] { x |> linear(N, bias=no) }\n");
    let x = dir.path().join("x.npy");
    dlc::npy::write(&x, &dlc::Tensor::f32([2, 2], vec![1.0, 0.0, 0.0, 1.0])).unwrap();
    let file = dir.path().join("model.dl");
    let outputs = [&["--bind", "N=2"][..], &[]].map(|bind| {
        let args = ["run", "--seed", "1", "--input"];
        let (code, out, err) = run(dlc().args(args).arg(&x).arg(&file).args(bind));
        assert_eq!(code, 0, "{err}");
        out
    });
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0].matches('.').count(), 4, "{}", outputs[0]);
}

#[test]
fn bench_prints_what_other_programs_read() {
    let (code, out, err) = run(dlc().args(["bench", "examples/lenet.dl", "--bind", "N=1"]).args([
        "--json",
        "--seconds",
        "0.05",
    ]));
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    for key in [
        "median_ms",
        "min_ms",
        "max_ms",
        "runs",
        "compile_ms",
        "load_ms",
        "flops",
        "bytes",
        "peak_bytes",
        "kernels",
    ] {
        assert!(report[key].is_number(), "{key}: {report}");
    }
    assert!(report["stages"].as_object().unwrap().len() > 4);
    // Two convolutions and three linear layers: 416,520 multiply-adds.
    let flops = report["flops"].as_u64().unwrap();
    assert!((833_040..1_000_000).contains(&flops), "{flops}");
}

#[test]
fn bench_takes_inputs() {
    let dir = folder("model Rows(x: f32[N, 2], at: i32[]) -> f32[2] { x[at] }\n");
    let write = |name: &str, tensor: dlc::Tensor| {
        dlc::npy::write(&dir.path().join(format!("{name}.npy")), &tensor).unwrap();
    };
    write("x", dlc::Tensor::f32([5, 2], vec![1.0; 10]));
    write("at", dlc::Tensor::i32([], vec![7]));
    write("y", dlc::Tensor::i32([], vec![4]));
    let bench = |inputs: &[&str]| {
        let inputs = inputs.iter().flat_map(|input| ["--input", *input]);
        let mut command = dlc();
        run(command.current_dir(&dir).args(["bench", "model.dl", "--seconds", "0"]).args(inputs))
    };
    assert_eq!(bench(&["x.npy", "at=y.npy"]).0, 0);
    let (code, _, err) = bench(&["x.npy", "y.npy"]);
    assert!(code == 1 && err.contains("no input `y`"), "{code} {err}");
    let (code, _, err) = bench(&["x.npy", "at.npy"]); // row 7 of 5
    assert!(code == 3 && err.contains("model.dl:1"), "{code} {err}");
}

#[test]
fn explain_knows_every_code_it_prints() {
    let (code, out, _) = run(dlc().args(["explain", "E0203"]));
    assert_eq!(code, 0);
    assert!(out.starts_with("E0203") && out.len() > 40);
    assert_eq!(run(dlc().args(["explain", "E9999"])).0, 1);
}

#[test]
fn targets_lists_this_machine() {
    let (code, out, _) = run(dlc().args(["targets"]));
    assert_eq!(code, 0);
    assert!(out.contains("x86-64-v3") && out.contains("default"), "{out}");
}

#[test]
fn a_closed_stdout_is_no_error() {
    let binary = assert_cmd::cargo::cargo_bin("dlc");
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{} compile examples/lenet.dl --bind N=1 --emit clif | head -1",
            binary.display()
        ))
        .current_dir(root())
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&status.stderr).contains("panicked"));
}

#[test]
fn bench_times_each_kernel_by_its_line() {
    let args = ["bench", "examples/lenet.dl", "--bind", "N=1", "--seconds", "0.05", "--kernels"];
    let (code, out, err) = run(dlc().args(args).arg("--json"));
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let kernels = report["kernel_times"].as_array().unwrap();
    assert_eq!(report["kernels"], kernels.len());
    let total: f64 = kernels.iter().map(|k| k["median_ms"].as_f64().unwrap()).sum();
    assert!(total > 0.0, "{report}");
    let first = kernels.iter().find(|k| k["name"] == "conv1_relu").unwrap();
    assert_eq!(first["line"], "examples/lenet.dl:5");
    assert!(first["share"].as_f64().unwrap() > 0.0 && first["bound"]["by"].is_string(), "{first}");
    let (code, out, _) = run(dlc().args(args));
    assert_eq!(code, 0);
    assert!(out.contains("conv1_relu") && out.contains("examples/lenet.dl:5"), "{out}");
}

#[test]
fn roofs_are_measured_once_and_kept() {
    let cache = tempfile::tempdir().unwrap();
    let dlc = || dlc_with_cache(cache.path());
    let perf = ["explain", "--perf", "--json", "--bind", "N=1", "examples/lenet.dl"];
    let roofs = || {
        let (code, out, err) = run(dlc().args(perf));
        assert_eq!(code, 0, "{err}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap()["roofs"].clone()
    };
    assert_eq!(roofs()["measured"], false);
    let (code, out, err) = run(dlc().args(["targets", "--measure", "--json"]));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("kept in"), "{err}");
    let measured: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(roofs(), measured);
    let one = &measured["roofs"][0];
    assert_eq!(one["threads"], 1);
    assert!(one["gflops"].as_f64().unwrap() > 0.0);
    let levels: Vec<&str> =
        one["memory"].as_array().unwrap().iter().map(|m| m["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["L1", "L2", "L3", "DRAM"]);
}

#[test]
fn code_for_other_processors_is_shown_but_not_built() {
    if cfg!(target_arch = "aarch64") {
        return;
    }
    let compile = ["compile", "--target", "aarch64", "--bind", "N=2", "examples/lenet.dl"];
    let (code, out, err) = run(dlc().args(compile).args(["--emit", "clif"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("; run.conv1_relu"), "{out}");
    let (code, _, err) = run(dlc().args(compile));
    assert_eq!(code, 3);
    assert!(err.contains("this machine cannot run aarch64 code"), "{err}");
}

/// Grouped convolutions, concatenations, reshapes between kernels.
const UNSEEN: &str = "benches/unseen.dl";

#[test]
fn what_the_target_makes_of_kernels_is_explained() {
    let explain = |model: &str, file: &str| {
        let args =
            ["explain", "--perf", "--target", "x86-64-v3", "--bind", "N=2", "--model", model];
        let (code, out, err) = run(dlc().args(args).arg(file));
        assert_eq!(code, 0, "{err}");
        out
    };
    let residual = explain("SmallResNet", "examples/resnet.dl");
    for text in [
        "; a part of Winograd's algorithm\n",
        "from conv1_relu: a part of Winograd's algorithm; a contraction begins a kernel of its own",
        // Through copies and transforms.
        "from conv1_relu: a contraction begins a kernel of its own",
    ] {
        assert!(residual.contains(text), "`{text}` is missing:\n{residual}");
    }
    let depthwise = explain("Mobile", UNSEEN);
    assert!(
        depthwise.contains("; terms written out, as of a depthwise convolution\n"),
        "{depthwise}"
    );
    let small = explain("LeNet", "examples/lenet.dl");
    let text = "tile       2x10 in blocks of 2x10, 84 deep";
    assert!(small.contains(text), "`{text}` is missing:\n{small}");
    let text = "from max_pool1_reduce_max: a fold joins kernels of rows only";
    assert!(small.contains(", over a window\n") && small.contains(text), "{small}");
}

#[test]
fn kernels_are_explained_by_source_line() {
    let args = ["explain", "--perf", "--bind", "N=2", "--threads", "1", "examples/lenet.dl"];
    let (code, out, err) = run(dlc().args(args));
    assert_eq!(code, 0, "{err}");
    for text in [
        "conv2_relu  examples/lenet.dl:6",
        "  algorithm  contract: register tiles",
        "  threads    1",
        "  bound      ",
        "  apart      from conv1_relu: a fold joins kernels of rows only",
    ] {
        assert!(out.contains(text), "`{text}` is missing:\n{out}");
    }
    let (code, out, err) = run(dlc().args(args).args(["--train", "--json"]));
    assert_eq!(code, 0, "{err}");
    let perf: serde_json::Value = serde_json::from_str(&out).unwrap();
    let kernels = perf["entries"][0]["kernels"].as_array().unwrap();
    let update = kernels.iter().find(|k| k["name"] == "update").unwrap();
    let reasons = &update["apart"][0]["reasons"];
    assert_eq!(reasons[0], "the check stands between gradients and optimizer", "{update}");
    for (file, model) in [("examples/lenet.dl", "LeNet"), (UNSEEN, "UNet"), (UNSEEN, "ResNext")] {
        let args = ["explain", "--perf", "--train", "--model", model, file];
        let (code, out, err) = run(dlc().args(args));
        assert_eq!(code, 0, "{err}");
        for unknown in ["fusion takes in neither", "the target made one of them"] {
            assert!(!out.contains(unknown), "every pair of kernels has a reason:\n{out}");
        }
    }
    assert_eq!(run(dlc().args(["explain", "E0203", "--bind", "N=2"])).0, 2);
}

#[test]
fn tuning_is_kept_and_what_is_broken_is_ignored() {
    let cache = tempfile::tempdir().unwrap();
    let dlc = || dlc_with_cache(cache.path());
    let model = folder("model Wide(x: f32[72, 96]) -> f32[72, 192] { x |> linear(192) |> relu }\n");
    let file = model.path().join("model.dl");
    let (code, out, err) = run(dlc().args(["tune", "--json", "--seconds", "0.01"]).arg(&file));
    assert_eq!(code, 0, "{err}");
    let tuned: serde_json::Value = serde_json::from_str(&out).unwrap();
    let problem = &tuned["problems"][0];
    assert_eq!(problem["kernels"][0][1], format!("{}:1", file.display()));
    let ways = problem["ways"].as_array().unwrap();
    assert!(ways.len() > 1 && ways.iter().all(|w| w[1].as_f64().unwrap() > 0.0), "{problem}");
    let kept = PathBuf::from(err.trim().strip_prefix("kept in ").unwrap());

    // A way that the model would not take is taken once it is chosen.
    let schedule = || run(dlc().args(["compile", "--emit", "schedule"]).arg(&file));
    let text = std::fs::read_to_string(&kept).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let shown = [0, 1].map(|k| {
        record["value"] = serde_json::json!({ problem["problem"].as_str().unwrap(): ways[k][0] });
        std::fs::write(&kept, record.to_string()).unwrap();
        let (code, out, err) = schedule();
        assert!(code == 0 && !err.contains("warning"), "{err}");
        out
    });
    assert_ne!(shown[0], shown[1]);
    let explained = || run(dlc().args(["explain", "--perf"]).arg(&file)).1;
    assert!(explained().contains(", tuned\n"));

    record["version"] = "0.0.0".into();
    for broken in [record.to_string(), "{".into()] {
        std::fs::write(&kept, broken).unwrap();
        let (code, out, err) = schedule();
        assert_eq!((code, &out), (0, &shown[0]), "the model decides");
        assert!(err.contains("warning: what `dlc tune` chose is ignored"), "{err}");
    }
}
