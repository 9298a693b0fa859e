//! Kernels, each the only one of a model: products, convolutions, rows, pointwise work; on one
//! thread, from the model's text.
//!
//! `cargo bench -p dlc --bench kernels`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dlc::{Compiler, Network, Tensor};

/// Name, body of a model over `x`, and the shape of `x`.
const MODELS: [(&str, &str, &[usize]); 9] = [
    ("matmul 256", "linear(256, bias=no)", &[256, 256]),
    ("matmul 1024", "linear(1024, bias=no)", &[1024, 1024]),
    ("linear, bias, relu, batch 1", "linear(512) |> relu", &[1, 512]),
    ("conv 3x3 of 64 channels", "conv(64, 3x3, pad=1)", &[1, 64, 56, 56]),
    ("conv 1x1 of 256 channels", "conv(64, 1x1)", &[1, 256, 56, 56]),
    ("max_pool 2x2", "max_pool(2x2)", &[1, 64, 56, 56]),
    ("softmax", "softmax[1]", &[512, 1024]),
    ("layer_norm", "layer_norm", &[512, 1024]),
    ("gelu", "gelu", &[1024, 1024]),
];

fn network(body: &str, shape: &[usize]) -> Network {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let source = format!("model M(x: f32[{}]) {{ x |> {body} }}", dims.join(", "));
    let module = Compiler::new().threads(1).compile_text("kernel.dl", &source).expect("it parses");
    let model = module.model("M").expect("it is there");
    model.bind([]).expect("it compiles").initialize(0).expect("it initializes")
}

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels");
    group.sample_size(20);
    for (name, body, shape) in MODELS {
        let network = network(body, shape);
        let elements: usize = shape.iter().product();
        let x = Tensor::f32(shape, (0..elements).map(|i| (i % 13) as f32 / 13.0).collect());
        let outputs = network.run(&[("x", &x)]).expect("it runs");
        let mut outputs: Vec<Tensor> = outputs.iter().map(|(_, tensor)| tensor.clone()).collect();
        group.throughput(Throughput::Elements(elements as u64));
        group.bench_function(name, |b| b.iter(|| network.run_into(&[&x], &mut outputs).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
