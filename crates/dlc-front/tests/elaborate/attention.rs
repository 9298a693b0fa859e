//! Attention of the library against its formula written out head by head, and the options of blocks.

use std::collections::BTreeMap;

use dlc_front::{Mode, Style};
use dlc_kernel::Array;

use crate::library::assert_close;
use crate::support::{fill, model, results, unit, values};

/// Attention of 4 heads of queries to `groups` of keys: the library's, and by its formula, with
/// `seen`, the scores `s[n, a, t, u]` as they enter the softmax.
fn check_attention(groups: usize, input: &str, options: &str, seen: &str) {
    let text = format!(
        "model M(q: f32[2, 5, 4, 3], k: f32[2, 5, {groups}, 3], v: f32[2, 5, {groups}, 2], {input}) {{
           s[n, a, t, u] = sum[c] q[n, t, a, c] * k[n, u, a // {ratio}, c] / sqrt(3)
           seen = {seen}
           p = seen |> softmax
           o[n, t, a, e] = sum[u] p[n, a, t, u] * v[n, u, a // {ratio}, e]
           (attention(q, k, v, {options}), o)
         }}",
        ratio = 4 / groups,
    );
    let model = model(&text, Mode::Infer);
    let mut given = BTreeMap::new();
    if let Some(m) = model.graph.source("m") {
        let shape = &model.graph.ty(m).shape;
        let shape: Vec<usize> = shape.iter().map(|s| s.as_const().unwrap() as usize).collect();
        let numbers = fill("m", &shape).data.iter().map(|v| f64::from(*v > -0.3)).collect();
        given.insert("m".to_string(), Array::new(shape, numbers));
    }
    let found = results(&model.graph, &values(&model.graph, &given));
    assert_close(&format!("{groups} {input}"), &found[0].1.data, &found[1].1.data);
}

#[test]
fn masks_and_biases_of_any_rank_broadcast_against_heads() {
    let shapes = ["5, 5", "1, 5", "4, 5, 5", "1, 5, 5", "4, 1, 5", "2, 4, 5, 5", "1, 4, 5, 5"];
    for shape in shapes.into_iter().chain(["2, 1, 5, 5", "2, 1, 1, 5", "2, 4, 1, 5"]) {
        for groups in [1, 2, 4] {
            let mask = format!("m: bool[{shape}]");
            check_attention(groups, &mask, "mask = m", "s if m else -inf");
            let weight = format!("m: f32[{shape}]");
            check_attention(groups, &weight, "mask = m > 0.5", "s if m > 0.5 else -inf");
            check_attention(groups, &format!("b: f32[{shape}]"), "bias = b", "s + b");
        }
    }
}

#[test]
fn layers_take_a_mask_of_each_head() {
    for mask in ["bool[2, 4, 5, 5]", "bool[4, 5, 5]"] {
        for layer in ["self_attention(4, mask = m)", "grouped_attention(4, G = 2, mask = m)"] {
            let text =
                format!("model M(x: f32[2, 5, 8], m: {mask}) -> f32[2, 5, 8] {{ x |> {layer} }}");
            let unit = unit(&text);
            let found = unit.check();
            assert!(found.is_empty(), "{}", unit.render(&found, Style::Plain));
        }
    }
}

/// The result of a layer for `x: f32[2, 5, 8]`, `b: f32[4, 5, 5]`, `m: bool[5, 5]`.
fn layer(layer: &str, mode: Mode) -> Vec<f64> {
    let text = format!(
        "model M(x: f32[2, 5, 8], memory: f32[2, 5, 8], b: f32[4, 5, 5], m: bool[5, 5]) -> f32[2, 5, 8] {{
           {layer} }}"
    );
    let model = model(&text, mode);
    let mask = Array::new([5, 5], (0..25).map(|i| f64::from(i % 3 != 1)).collect());
    let mut sources = values(&model.graph, &[("m".to_string(), mask)].into());
    for name in ["seed", "step"] {
        sources.insert(name.into(), Array::scalar(3.0));
    }
    for (name, value) in &model.scalars {
        sources.insert(name.clone(), Array::scalar(*value));
    }
    results(&model.graph, &sources).remove(0).1.data
}

/// A mask is a bias of 0 or -inf, wherever a block takes them.
#[test]
fn blocks_pass_masks_and_biases_on() {
    let hidden = "(b + (0.0 if m else -inf))";
    for block in [
        "x |> gpt_block(4, rate = 0.0, OPTIONS)",
        "x |> llama_block(4, 8, G = 2, OPTIONS)",
        "decoder_layer(4, 8, rate = 0.0, OPTIONS)(x, memory)",
        "x |> transformer_encoder(2, 4, 8, OPTIONS)",
        "transformer_decoder(2, 4, 8, OPTIONS)(x, memory)",
    ] {
        let with = |options: &str| layer(&block.replace("OPTIONS", options), Mode::Infer);
        let both = with("mask = m, bias = b");
        assert_close(block, &both, &with(&format!("bias = {hidden}")));
        assert_ne!(both, with("mask = m"), "{block}");
        assert_ne!(both, with("bias = b"), "{block}");
    }
    let whole =
        |options: &str| layer(&format!("transformer(1, 4, 8, {options})(memory, x)"), Mode::Infer);
    assert_ne!(whole("bias = b"), whole("target_bias = b"));
    assert_ne!(whole("bias = b"), whole("bias = 0.0"));
}

/// A layer that is left out leaves its input.
#[test]
fn stacks_leave_layers_out() {
    for stack in [
        "x |> transformer_encoder(LAYERS, 4, 8, rate = 0.0, drop = DROP)",
        "transformer_decoder(LAYERS, 4, 8, rate = 0.0, drop = DROP)(x, memory)",
        "transformer(LAYERS, 4, 8, rate = 0.0, drop = DROP)(memory, x)",
    ] {
        let with = |layers: &str, drop: &str| {
            layer(&stack.replace("LAYERS", layers).replace("DROP", drop), Mode::Train)
        };
        assert_close(stack, &with("2", "0.999999"), &with("0", "0.0"));
        assert_close(stack, &with("2", "1e-9"), &with("2", "0.0"));
        assert_ne!(with("2", "0.0"), with("0", "0.0"), "{stack}");
    }
}

#[test]
fn a_llama_block_drops_out() {
    let block = |rate: &str| layer(&format!("x |> llama_block(4, 8, rate = {rate})"), Mode::Train);
    assert_ne!(block("0.5"), block("0.0"));
    assert_close("a rate of 0", &block("0.0"), &layer("x |> llama_block(4, 8)", Mode::Infer));
}
