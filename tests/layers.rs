//! Layers of recurrent networks follow each other on several threads: results are those of one thread,
//! to the bit.

use dlc::{Compiler, Network, Tensor};

const FEATURES: usize = 24;

/// The outputs and the gradient by the input.
fn network(layer: &str, (rows, steps): (usize, usize), threads: usize) -> Network {
    let source = format!(
        "model M(x: f32[{rows}, {steps}, {FEATURES}], lengths: i32[{rows}]) {{
           y = x |> {layer}
           y, grad(sum(y * y), wrt = x)
         }}"
    );
    let module = Compiler::new().threads(threads).compile_text("m.dl", &source);
    let module = module.unwrap_or_else(|e| panic!("{e}\n{source}"));
    module.model("M").unwrap().bind([]).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

fn run(network: &Network, (rows, steps): (usize, usize)) -> Vec<Vec<u32>> {
    let value = |i: usize| (i as f32 * 0.7).sin();
    let x = (0..rows * steps * FEATURES).map(value).collect();
    let x = Tensor::f32([rows, steps, FEATURES], x);
    let lengths = (0..rows).map(|row| (steps - row % (steps + 1)) as i32).collect();
    let lengths = Tensor::i32([rows], lengths);
    let outputs = network.run(&[("x", &x), ("lengths", &lengths)]).unwrap();
    let bits = |tensor: &Tensor| tensor.as_f32().unwrap().iter().map(|v| v.to_bits()).collect();
    outputs.iter().map(|(_, tensor)| bits(tensor)).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let layers = [
        "lstm(24, layers = 3)",
        "gru(32, layers = 2, lengths = lengths)",
        "lstm(24, layers = 2, P = 16, lengths = lengths)",
        "rnn(40, layers = 4)",
        "gru(24, layers = 2, bidirectional = yes)",
        "lstm(24) |> layer_norm |> lstm(24)",
    ];
    for layer in layers {
        for sizes in [(1, 1), (1, 7), (1, 64), (3, 24), (16, 30)] {
            let one = run(&network(layer, sizes, 1), sizes);
            for threads in [2, 3, 6] {
                let more = network(layer, sizes, threads);
                for _ in 0..3 {
                    assert!(one == run(&more, sizes), "{layer} {sizes:?} {threads} threads");
                }
            }
        }
    }
}

#[test]
fn callers_at_the_same_time_get_the_same_bits() {
    let (layer, sizes) = ("lstm(24, layers = 3)", (2, 48));
    let expected = run(&network(layer, sizes, 1), sizes);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let own = network(layer, sizes, 2);
                (0..30).for_each(|_| assert!(expected == run(&own, sizes)));
            });
        }
    });
}
