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
