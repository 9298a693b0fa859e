//! LeNet: each stage of compiling its training step, the step itself, and inference.
//!
//! `cargo bench -p dlc --bench lenet`

use criterion::{Criterion, criterion_group, criterion_main};
use dlc::pipeline::{self, EntryGraph};
use dlc::{Batch, Bindings, Compiler, Module, OptLevel, Tensor};
use std::path::Path;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/lenet.dl");

fn module() -> Module {
    Compiler::new().threads(1).compile_file(Path::new(SOURCE)).expect("the example compiles")
}

fn entries(module: &Module) -> Vec<EntryGraph> {
    module.training_entries("LeNet", &Bindings::new()).expect("the example trains")
}

fn compile(c: &mut Criterion) {
    let compiler = Compiler::new().threads(1);
    let module = module();
    let entries = entries(&module);
    let program = pipeline::lower(&entries, OptLevel::O2, &mut |_, _| {}).program;
    let mut group = c.benchmark_group("compile LeNet's training step");
    group.sample_size(20);
    group.bench_function("parse", |b| b.iter(self::module));
    group.bench_function("elaborate", |b| b.iter(|| self::entries(&module)));
    group.bench_function("passes and lowering", |b| {
        b.iter(|| pipeline::lower(&entries, OptLevel::O2, &mut |_, _| {}))
    });
    group.bench_function("build", |b| {
        b.iter(|| compiler.target_ref().build(&program, compiler.options()).unwrap())
    });
    group.finish();
}

fn run(c: &mut Criterion) {
    let module = module();
    let network = module.model("LeNet").unwrap().bind([("N", 1)]).unwrap().initialize(0).unwrap();
    let image = Tensor::f32([1, 1, 28, 28], vec![0.5; 784]);
    let mut outputs = [Tensor::f32([1, 10], vec![0.0; 10])];
    c.bench_function("LeNet inference, batch 1, 1 thread", |b| {
        b.iter(|| network.run_into(&[&image], &mut outputs).unwrap())
    });
    let mut trainer = module.trainer("LeNet").expect("the example trains");
    trainer.plan(u64::from(u32::MAX >> 1)).expect("a run may be that long");
    let images = Tensor::f32([64, 1, 28, 28], vec![0.5; 64 * 784]);
    let labels = Tensor::i32([64], (0..64).map(|i| i % 10).collect());
    let batch = Batch::new([("image", images), ("label", labels)]);
    c.bench_function("LeNet training step, batch 64, 1 thread", |b| {
        b.iter(|| trainer.step(&batch).unwrap())
    });
}

criterion_group!(benches, compile, run);
criterion_main!(benches);
