//! Compiled models in a program: bindings are made once, networks are independent, and all of it
//! may be used from several threads.

use dlc::{Compiler, Module, Network, Tensor};
use std::thread;

const SOURCE: &str = "model Layer(x: f32[N, 4]) -> f32[N, 3] { x |> linear(3) |> softmax[1] }";

fn module() -> Module {
    Compiler::new().threads(1).compile_text("layer.dl", SOURCE).unwrap()
}

fn bind(module: &Module, n: i64) -> Network {
    module.model("Layer").unwrap().bind([("N", n)]).unwrap()
}

/// Whether the graph was lowered for this network, instead of taking a program that was there.
fn lowered(network: &Network) -> bool {
    network.stages().iter().any(|stage| stage.name == "lower")
}

fn run(network: &Network, n: usize) -> Vec<f32> {
    let x = Tensor::f32([n, 4], (0..4 * n).map(|i| (i as f32).sin()).collect());
    network.run(&[("x", &x)]).unwrap()[0].as_f32().unwrap().to_vec()
}

#[test]
fn equal_bindings_share_a_program_but_no_parameters() {
    let module = module();
    let first = bind(&module, 2).initialize(1).unwrap();
    let second = bind(&module, 2);
    assert_eq!((lowered(&first), lowered(&second)), (true, false));
    assert!(lowered(&bind(&module, 3)), "other sizes are another program");
    assert_eq!(run(&second, 2), [1.0 / 3.0; 6], "parameters start as zero");
    let second = second.initialize(1).unwrap();
    assert_eq!(run(&first, 2), run(&second, 2));
    second.write("linear1.bias", &Tensor::f32([3], vec![1.0, 0.0, 0.0])).unwrap();
    assert_ne!(run(&first, 2), run(&second, 2));
}

#[test]
fn a_failed_binding_can_be_tried_again() {
    let source = "model Half(x: f32[N]) -> f32[N/2, 2] { x |> as[N/2, 2] }";
    let module = Compiler::new().compile_text("half.dl", source).unwrap();
    let bind = |n| module.model("Half").unwrap().bind([("N", n)]);
    for _ in 0..2 {
        let error = bind(3).err().expect("3 is odd").to_string();
        assert!(error.contains("divisible"), "{error}");
    }
    bind(4).unwrap();
}

#[test]
fn threads_that_bind_the_same_sizes_compile_once() {
    let module = module();
    let networks: Vec<Network> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn({
                    let module = &module;
                    move || bind(module, 1 + i % 2).initialize(7).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(networks.iter().filter(|n| lowered(n)).count(), 2, "one for each size");
    for (i, network) in networks.iter().enumerate() {
        let n = 1 + i % 2;
        assert_eq!(run(network, n), run(&networks[i % 2], n));
    }
}

#[test]
fn a_network_runs_in_several_threads_at_once() {
    let network = bind(&module(), 2).initialize(3).unwrap();
    let alone = run(&network, 2);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(run(&network, 2), alone)));
        }
    });
}
