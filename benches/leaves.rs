//! Leaves alone: register tiles of contractions on packed panels, loops over elements, all in the
//! first-level cache.
//!
//! `cargo bench -p dlc-cpu --bench leaves`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dlc_cpu::leaf::GemmTile;
use dlc_cpu::leaf::lanes::{Kind, Lanes, Op, ops};
use dlc_cpu::leaf::loops::{Loop, Stream};
use dlc_cpu::leaf::run::LeafRun;
use dlc_cpu::level::Level;
use dlc_kernel::{DType, UnaryOp};

const DEPTH: usize = 64;
const ELEMENTS: usize = 2048;

fn tiles(c: &mut Criterion) {
    let level = Level::detect().expect("this machine has a level");
    let mut group = c.benchmark_group("tiles");
    for (rows, columns) in [(1, 96), (2, 48), (3, 32), (4, 24), (6, 16), (12, 8), (5, 13)] {
        let tile = GemmTile::packed(rows, columns);
        let mut leaf = LeafRun::of_tile(level, tile, DEPTH).expect("it compiles");
        let flops = 2 * usize::from(rows) * usize::from(columns) * DEPTH;
        group.throughput(Throughput::Elements(flops as u64));
        group.bench_function(format!("{tile}"), |b| b.iter(|| leaf.run(1)));
    }
    group.finish();
}

fn loops(c: &mut Criterion) {
    let level = Level::detect().expect("this machine has a level");
    let mut group = c.benchmark_group("loops");
    group.throughput(Throughput::Elements(ELEMENTS as u64));
    for op in [UnaryOp::Neg, UnaryOp::Exp, UnaryOp::Log, UnaryOp::Tanh, UnaryOp::Sigmoid] {
        let mut leaf = LeafRun::of_loop(level, unary(op), ELEMENTS).expect("it compiles");
        group.bench_function(op.name(), |b| b.iter(|| leaf.run(1)));
    }
    group.finish();
}

/// `y = op(x)` for every element.
fn unary(op: UnaryOp) -> Loop {
    let mut lanes = Lanes::default();
    let x = lanes.add(Op::Input(Kind::F32, 0));
    let y = ops::unary(&mut lanes, op, DType::F32, x);
    let stream = |address| Stream { dtype: DType::F32, address, offset: 0, stride: 1 };
    let streams = vec![stream(0), stream(1)];
    let stores = vec![(1, y)];
    Loop {
        lanes,
        streams,
        uniforms: 0,
        stores,
        folds: Vec::new(),
        unroll: 2,
        streaming: false,
        lines: None,
        ahead: Vec::new(),
        repeats: false,
    }
}

criterion_group!(benches, tiles, loops);
criterion_main!(benches);
