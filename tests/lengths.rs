//! Sequences of every length, from the empty one on: what a mask leaves out is as if it were not
//! there.

use dlc::{Compiler, Network, Tensor};

const ROWS: usize = 3;
const FEATURES: usize = 6;

/// Outputs are at most 1 and sums of a few products, gradients sums of a few of these: the order of
/// a sum is all that may differ.
const TOLERANCE: f32 = 4e-6;

fn network(source: &str) -> Network {
    let module = Compiler::new().threads(1).compile_text("m.dl", source);
    let module = module.unwrap_or_else(|e| panic!("{e}\n{source}"));
    module.model("M").unwrap().bind([]).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

/// A sequence [3, steps, 6] that begins like all others.
fn sequence(steps: usize) -> Tensor {
    let value = |row: usize, rest: usize| ((row * 1000 + rest) as f32 * 0.7).sin();
    let width = steps * FEATURES;
    let values = (0..ROWS * width).map(|i| value(i / width, i % width));
    Tensor::f32([ROWS, steps, FEATURES], values.collect())
}

/// The results of a model of `x` and `lengths`, by position.
fn run(network: &Network, steps: usize, lengths: [i32; ROWS]) -> Vec<Tensor> {
    let (x, lengths) = (sequence(steps), Tensor::i32([ROWS], lengths.to_vec()));
    let outputs = network.run(&[("x", &x), ("lengths", &lengths)]).unwrap();
    outputs.iter().map(|(_, tensor)| tensor.clone()).collect()
}

/// Row `n` of a tensor whose dim `axis` are the rows, up to `count` of what its next dim counts.
fn row(tensor: &Tensor, axis: usize, n: usize, count: usize) -> Vec<f32> {
    let outer: usize = tensor.shape[..axis].iter().product();
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    let kept = count * tensor.shape[axis + 2..].iter().product::<usize>();
    let values = tensor.as_f32().unwrap();
    let start = |o: usize| (o * tensor.shape[axis] + n) * inner;
    (0..outer).flat_map(|o| values[start(o)..start(o) + kept].to_vec()).collect()
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE, "{what}: {found:?}\n{expected:?}");
    }
}

/// Outputs, gradient by the input, last states. The first states are 0.3.
fn recurrent(layer: &str, options: &str, steps: usize) -> Network {
    let lasts = if layer.starts_with("lstm") { "h, c" } else { "h" };
    let squares = lasts.replace("h", "sum(h * h)").replace(", c", " + sum(c * c)");
    network(&format!(
        "model M(x: f32[3, {steps}, 6], lengths: i32[3]) {{
           net = {layer}, h0 = 0.3, states = yes, {options})
           y, {lasts} = net(x)
           y, grad(sum(y * y) + {squares}, wrt = x), {lasts}
         }}"
    ))
}

#[test]
fn a_recurrent_layer_ends_where_the_sequence_does() {
    let layers = ["rnn(4", "lstm(4", "lstm(4, P = 2", "gru(4", "gru(4, reset_after = no"];
    let ways = ["layers = 1", "bidirectional = yes", "layers = 2, bidirectional = yes"];
    for (layer, way) in layers.iter().flat_map(|layer| ways.map(|way| (layer, way))) {
        let alone: Vec<Vec<Tensor>> =
            (0..=5).map(|steps| run(&recurrent(layer, way, steps), steps, [0; 3])).collect();
        let masked = recurrent(layer, &format!("{way}, lengths = lengths"), 5);
        for lengths in [[0, 1, 5], [4, 3, 2]] {
            let found = run(&masked, 5, lengths);
            for (n, length) in lengths.map(|l| l as usize).into_iter().enumerate() {
                let what = format!("{layer}, {way}), {length} of 5 steps");
                let expected = &alone[length];
                for k in 0..2 {
                    let own = row(&expected[k], 0, n, length);
                    assert_close(&what, &row(&found[k], 0, n, length), &own);
                    let after = &row(&found[k], 0, n, 5)[own.len()..];
                    assert!(after.iter().all(|v| *v == 0.0), "{what}: {after:?}");
                }
                for (found, expected) in found.iter().zip(expected).skip(2) {
                    let width = found.shape[2];
                    assert_close(&what, &row(found, 1, n, width), &row(expected, 1, n, width));
                }
            }
        }
    }
}

/// Attention of four positions, or of one, to `keys` others: outputs, gradients by `x` and by the
/// queries.
fn attention(layer: &str, mask: &str, keys: usize) -> Network {
    let looks = match layer.starts_with("dot") || layer.starts_with("additive") {
        true => "y, _ = net(queries[:, 0], x)",
        false => "y = net(queries, x)",
    };
    network(&format!(
        "model M(x: f32[3, {keys}, 6], lengths: i32[3]) {{
           queries[n < 3, t < 4, d < 6] = sin(f32(7 * n + 3 * t + d))
           net = {layer}{mask})
           {looks}
           y, grad(sum(y * y * y), wrt = x), grad(sum(y * y * y), wrt = queries)
         }}"
    ))
}

#[test]
fn keys_that_are_masked_are_as_if_they_were_not_there() {
    let seen = "lengths |> length_mask(5)";
    for (layer, mask) in [
        ("cross_attention(2", format!(", mask = {seen}")),
        ("decoder_layer(2, 8", format!(", memory_mask = {seen}")),
        ("dot_attention(", format!("mask = {seen} |> as[3, 5]")),
        ("additive_attention(4", format!(", mask = {seen} |> as[3, 5]")),
    ] {
        let masked = attention(layer, &mask, 5);
        let alone: Vec<Vec<Tensor>> =
            (0..=5).map(|keys| run(&attention(layer, "", keys), keys, [0; 3])).collect();
        for lengths in [[0, 1, 5], [4, 3, 2]] {
            let found = run(&masked, 5, lengths);
            for (n, length) in lengths.map(|l| l as usize).into_iter().enumerate() {
                let what = format!("{layer}), {length} of 5 keys");
                let all = |tensor: &Tensor| row(tensor, 0, n, tensor.shape[1]);
                assert!(found.iter().all(|t| t.as_f32().unwrap().iter().all(|v| v.is_finite())));
                assert_close(&what, &all(&found[0]), &all(&alone[length][0]));
                assert_close(&what, &all(&found[2]), &all(&alone[length][2]));
                let own = row(&alone[length][1], 0, n, length);
                assert_close(&what, &row(&found[1], 0, n, length), &own);
                let after = &row(&found[1], 0, n, 5)[own.len()..];
                assert!(after.iter().all(|v| *v == 0.0), "{what}: {after:?}");
            }
        }
    }
}

/// Attention to itself: positions up to each length, with and without sight of later ones.
#[test]
fn attention_to_itself_ends_where_the_sequence_does() {
    for layer in ["self_attention(2", "self_attention(2, causal = yes", "encoder_layer(2, 8"] {
        let of = |mask: &str, steps: usize| {
            network(&format!(
                "model M(x: f32[3, {steps}, 6], lengths: i32[3]) {{ net = {layer}{mask})\n net(x) }}"
            ))
        };
        let masked = of(", mask = lengths |> length_mask(5)", 5);
        let alone: Vec<Vec<Tensor>> =
            (0..=5).map(|steps| run(&of("", steps), steps, [0; 3])).collect();
        for lengths in [[0, 1, 5], [4, 3, 2]] {
            let found = run(&masked, 5, lengths);
            for (n, length) in lengths.map(|l| l as usize).into_iter().enumerate() {
                let what = format!("{layer}), {length} of 5 steps");
                let own = row(&alone[length][0], 0, n, length);
                assert_close(&what, &row(&found[0], 0, n, length), &own);
                assert!(row(&found[0], 0, n, 5).iter().all(|v| v.is_finite()), "{what}");
            }
        }
    }
}
