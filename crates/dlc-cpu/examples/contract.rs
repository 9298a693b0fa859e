//! Prints the speed of matrix products and of the layers of LeNet and ResNet, on one thread.

#[path = "../tests/cases/mod.rs"]
mod cases;

use cases::{Case, Conv, Layout, matmul};
use dlc_cpu::CpuTarget;
use dlc_kernel::{BuildOptions, Target, Tensor};
use std::time::Instant;

fn main() {
    let target = CpuTarget::detect().expect("this machine has a level");
    println!("{}, 1 thread, best of 10", target.name());
    for n in [256, 512, 1024] {
        measure(&target, &matmul(n, n, n, Layout::Plain));
    }
    for case in layers() {
        measure(&target, &case);
    }
}

fn layers() -> Vec<Case> {
    let conv = |n, c, size, k, window, stride, pad| {
        Conv { n, c, image: (size, size), k, window, stride, pad, dilation: 1 }.all()
    };
    let dense = |i, o| {
        [
            matmul(64, o, i, Layout::Right),
            matmul(64, i, o, Layout::Plain),
            matmul(o, i, 64, Layout::Left),
        ]
    };
    let lenet = [conv(64, 1, 28, 6, 5, 1, 2), conv(64, 6, 14, 16, 5, 1, 0)];
    let dense = [dense(400, 120), dense(120, 84), dense(84, 10)];
    let resnet = [
        conv(1, 3, 224, 64, 7, 2, 3),
        conv(1, 64, 56, 64, 3, 1, 1),
        conv(1, 64, 56, 256, 1, 1, 0),
        conv(1, 128, 56, 128, 3, 2, 1),
        conv(1, 256, 14, 256, 3, 1, 1),
        conv(1, 512, 7, 512, 3, 1, 1),
    ];
    let all = lenet.into_iter().chain(dense).chain(resnet);
    all.flatten().chain([matmul(1, 1000, 2048, Layout::Right)]).collect()
}

fn measure(target: &CpuTarget, case: &Case) {
    let options = BuildOptions { threads: Some(1), ..BuildOptions::default() };
    let start = Instant::now();
    let executable = target.build(&case.program, &options).expect("it builds");
    let build = start.elapsed().as_secs_f64() * 1e3;
    let (inputs, mut outputs) = (case.inputs(), case.outputs());
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        executable.call(0, &inputs, &mut outputs).expect("it runs");
        best = best.min(start.elapsed().as_secs_f64());
    }
    let rate = case.flops() / best / 1e9;
    println!("{:<56} {:9.3} ms {rate:6.1} GFLOP/s  built in {build:.1} ms", case.name, best * 1e3);
}
