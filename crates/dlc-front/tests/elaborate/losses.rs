//! Losses, their gradients and metrics against PyTorch: `reference/torch_numbers.py` makes
//! `reference/torch_numbers.txt`.

use std::collections::BTreeMap;

use dlc_front::Mode;
use dlc_graph::differentiate;
use dlc_kernel::Array;

use crate::library::assert_close;
use crate::support::{model, numbers, results, values};

fn given() -> BTreeMap<String, Array> {
    let labels = Array::new([2, 3], vec![2.0, 0.0, 3.0, 1.0, 1.0, 0.0]);
    let mask = Array::new([2, 3], vec![1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    let weight = Array::new([2, 3], vec![0.5, 2.0, 0.0, 1.25, 0.0, 3.0]);
    [("labels", labels), ("mask", mask), ("weight", weight)]
        .map(|(name, array)| (name.to_string(), array))
        .into()
}

/// A loss of x and its gradient, one after the other.
fn with_gradient(loss: &str, more: &[(&str, Array)]) -> Vec<f64> {
    let text = format!(
        "model M(
           x: f32[2, 3, 4], y: f32[2, 3, 4], labels: i32[2, 3], mask: f32[2, 3], weight: f32[2, 3]
         ) -> (loss: f32[], slope: f32[2, 3, 4]) {{
           t = (y + 1) / 2
           loss = {loss}
           loss, grad(loss, wrt = x)
         }}"
    );
    let graph = differentiate(&model(&text, Mode::Infer).graph);
    let mut sources = given();
    sources.extend(more.iter().map(|(name, array)| (name.to_string(), array.clone())));
    let sources = values(&graph, &sources);
    results(&graph, &sources).into_iter().flat_map(|(_, array)| array.data).collect()
}

#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let reference = include_str!("reference/torch_numbers.txt");
    for (case, loss) in [
        ("ce", "cross_entropy(x, labels)"),
        ("ce_smoothing", "cross_entropy(x, labels, smoothing = 0.1)"),
        ("ce_mask", "cross_entropy(x, labels, mask = mask)"),
        ("ce_mask", "cross_entropy(x, labels, mask = mask > 0)"),
        ("ce_smoothing_mask", "cross_entropy(x, labels, smoothing = 0.1, mask = mask)"),
        ("ce_weight", "cross_entropy(x, labels, mask = weight)"),
        ("bce", "binary_cross_entropy(x, t)"),
        ("bce_mask", "binary_cross_entropy(x, t, mask = mask)"),
        ("perplexity_mask", "perplexity(x, labels, mask = mask)"),
        ("accuracy_mask", "accuracy(x, labels, mask = mask)"),
    ] {
        assert_close(case, &with_gradient(loss, &[]), &numbers(reference, case));
    }
}

#[test]
fn a_mask_of_zeros_makes_loss_and_gradient_zero() {
    let mask = Array::zeros([2, 3]);
    for loss in [
        "cross_entropy(x, labels, smoothing = 0.1, mask = mask)",
        "binary_cross_entropy(x, t, mask = mask)",
        "accuracy(x, labels, mask = mask)",
    ] {
        let found = with_gradient(loss, &[("mask", mask.clone())]);
        assert!(found.iter().all(|v| *v == 0.0), "{loss}: {found:?}");
    }
}

#[test]
fn what_is_masked_may_be_infinitely_surprising() {
    // At (0, 2), where the mask is 0, the label 3 is impossible.
    let x = values(&model("model M(x: f32[2, 3, 4]) { x }", Mode::Infer).graph, &BTreeMap::new());
    let mut x = x["x"].clone();
    x.data[11] = f64::NEG_INFINITY;
    let found = with_gradient("cross_entropy(x, labels, mask = mask)", &[("x", x)]);
    let reference = include_str!("reference/torch_numbers.txt");
    assert_close("ce_mask", &found, &numbers(reference, "ce_mask"));
}

#[test]
fn even_odds_pull_towards_the_answer_by_a_half() {
    // d/dx (softplus(x) - x * t) = sigmoid(x) - t, at x = 0 too, where max(x, 0) has no derivative.
    let zeros = Array::zeros([2, 3, 4]);
    let ones = Array::full([2, 3, 4], 1.0);
    let found = with_gradient("24 * binary_cross_entropy(x, t)", &[("x", zeros), ("y", ones)]);
    assert_close("slope", &found[1..], &[-0.5; 24]);
}

/// A loss of what depends on the weights in another way, too; and its gradients by everything.
fn of_a_last_product(loss: &str, mode: Mode) -> Vec<f64> {
    let text = format!(
        "model M(
           z: f32[2, 3, 5], w: f32[4, 5], b: f32[4], labels: i32[2, 3], mask: f32[2, 3],
           weight: f32[2, 3]
         ) -> (loss: f32[], z: f32[2, 3, 5], w: f32[4, 5], b: f32[4]) {{
           x = z * sum(w)
           loss = {loss}
           loss, grad(3 * loss, wrt = z), grad(3 * loss, wrt = w), grad(3 * loss, wrt = b)
         }}"
    );
    let graph = differentiate(&model(&text, mode).graph);
    let sources = values(&graph, &given());
    results(&graph, &sources).into_iter().flat_map(|(_, array)| array.data).collect()
}

#[test]
fn the_loss_in_parts_is_that_of_all_logits() {
    for more in ["", "smoothing = 0.1", "mask = mask", "smoothing = 0.1, mask = weight"] {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        for (own, bias) in [("", ""), (", bias = b", " + b")] {
            let whole = format!("cross_entropy(x @ transpose(w){bias}, labels{more})");
            let whole = of_a_last_product(&whole, Mode::Infer);
            // Of 6 examples: in one part, in unequal ones, in more than there are examples.
            for parts in [1, 4, 8] {
                let loss =
                    format!("linear_cross_entropy(x, w, labels, parts = {parts}{own}{more})");
                for mode in [Mode::Train, Mode::Infer] {
                    assert_close(&loss, &of_a_last_product(&loss, mode), &whole);
                }
            }
        }
    }
}
