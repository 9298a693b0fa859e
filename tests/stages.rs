//! One snapshot per stage for small models: the source, then what the stage made of it.

use dlc::pipeline::{self, EntryGraph};
use dlc::{Bindings, Compiler, Module, OptLevel};

/// Every stage of a model in inference mode, for one level of the CPU.
fn check(name: &str, source: &str, bindings: &[(&str, i64)], stages: &[&str]) {
    let module = module(source);
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
    let model = module.models()[0].to_owned();
    let entry = module.model(&model).unwrap().entry(&bindings).unwrap();
    snapshot(&compiler(), name, source, &[entry], stages);
}

/// Every stage of the training step of a file with one `train` section.
fn check_training(name: &str, source: &str, stages: &[&str]) {
    let module = module(source);
    let mut entries = module.training_entries(module.trainable()[0], &Bindings::new()).unwrap();
    entries.truncate(1);
    snapshot(&compiler(), name, source, &entries, stages);
}

fn module(source: &str) -> Module {
    compiler().compile_text("model.dl", source).unwrap_or_else(|e| panic!("{e}"))
}

/// The level is named: snapshots do not depend on the machine.
fn compiler() -> Compiler {
    Compiler::new().target("x86-64-v3").expect("tests run on AVX2 or newer").threads(2)
}

fn snapshot(
    compiler: &Compiler,
    name: &str,
    source: &str,
    entries: &[EntryGraph],
    stages: &[&str],
) {
    let mut dumps: Vec<(String, String)> = Vec::new();
    let lowered = pipeline::lower(entries, OptLevel::O2, &mut |stage, dump| {
        if stages.contains(&stage) {
            dumps.push((stage.to_owned(), dump()));
        }
    });
    for stage in compiler.target_ref().stages().iter().filter(|s| stages.contains(s)) {
        let text = compiler.target_ref().emit(stage, &lowered.program, compiler.options()).unwrap();
        dumps.push(((*stage).to_owned(), text));
    }
    assert_eq!(dumps.len(), stages.len(), "every stage that is asked for exists");
    for (stage, dump) in dumps {
        let text = format!("{}\n\n---- {stage} ----\n{}", source.trim(), dump.trim_end());
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("{name}@{stage}"), text);
        });
    }
}

#[test]
fn linear_relu() {
    check(
        "linear_relu",
        "model Layer(x: f32[N, 8]) -> f32[N, 4] { x |> linear(4) |> relu }",
        &[("N", 3)],
        &["graph", "fused", "kernels", "schedule"],
    );
}

#[test]
fn convolution_with_residual() {
    check(
        "conv_residual",
        "model Residual(x: f32[N, 4, 6, 6]) -> f32[N, 4, 6, 6] {
  relu(x + (x |> conv(4, 3x3, pad=1, bias=no) |> batch_norm))
}",
        &[("N", 1)],
        &["graph", "fused", "kernels"],
    );
}

#[test]
fn softmax() {
    check(
        "softmax",
        "model Softmax(x: f32[N, 5]) -> f32[N, 5] { x |> softmax[1] }",
        &[("N", 2)],
        &["graph", "fused", "kernels", "schedule"],
    );
}

#[test]
fn pointwise_machine_code() {
    check(
        "scale",
        "model Scale(x: f32[8]) -> f32[8] { 2 * x + 1 }",
        &[],
        &["kernels", "clif", "asm"],
    );
}

/// Code for 64-bit Arm can be made anywhere.
#[test]
fn code_for_arm() {
    let source = "model Layer(x: f32[2, 3]) -> f32[2, 5] { x |> linear(5) |> relu }";
    let entry = module(source).model("Layer").unwrap().entry(&Bindings::new()).unwrap();
    let compiler = Compiler::new().target("aarch64").unwrap().threads(2);
    snapshot(&compiler, "layer_aarch64", source, std::slice::from_ref(&entry), &["clif"]);
    let program = pipeline::lower(&[entry], OptLevel::O2, &mut |_, _| {}).program;
    let machine_code = compiler.target_ref().emit("asm", &program, compiler.options()).unwrap();
    assert!(machine_code.starts_with("; run.linear1_relu\n"), "{machine_code}");
}

#[test]
fn gradient_of_a_square() {
    check(
        "gradient",
        "model Slope(x: f32[N]) -> f32[N] { grad(mean(x * x), wrt = x) }",
        &[("N", 4)],
        &["graph", "grad", "fused"],
    );
}

#[test]
fn training_step() {
    check_training(
        "training_step",
        "model Digit(image: f32[N, 1, 28, 28]) -> f32[N, 10] { image |> flatten |> linear(10) }

train Digit {
  data  mnist(\"digits\") batch 16
  loss  cross_entropy(Digit(image), label)
  optim sgd(lr = 0.1)
}",
        &["graph", "grad", "fused", "kernels"],
    );
}
