//! Gradients of whole models against central differences, in f64.

use std::collections::BTreeMap;

use dlc_front::TrainOverrides;
use dlc_graph::{Graph, Role, differentiate};
use dlc_kernel::{Array, Bindings};

use crate::support::{results, unit, values};

/// Checks the gradient of the loss of a `train` section at a few elements of every parameter.
fn check(text: &str, given: &[(&str, Array)], batch: i64) {
    let unit = unit(text);
    let name = unit.trains()[0].to_string();
    let training = unit
        .train(&name, &TrainOverrides::default(), &Bindings::new())
        .unwrap_or_else(|e| panic!("{}", unit.render(&e, dlc_front::Style::Plain)));
    let step =
        differentiate(&training.step).bind(&[("N".to_string(), batch)].into()).expect("binds");
    let given = given.iter().map(|(name, array)| (name.to_string(), array.clone())).collect();
    let sources = values(&step, &given);
    let found = results(&step, &sources);
    assert!(!training.params.is_empty());
    for param in &training.params {
        let label = format!("grad of {}", param.path);
        let gradient = &found.iter().find(|(name, _)| *name == label).expect("a gradient").1;
        let count = gradient.data.len();
        for element in [0, count / 3, count - 1] {
            let numeric = slope(&step, &sources, &param.path, element);
            let exact = gradient.data[element];
            let scale = exact.abs().max(1e-3);
            assert!(
                (exact - numeric).abs() <= 1e-5 * scale.max(1.0),
                "{label}[{element}]: {exact} {numeric}"
            );
        }
    }
}

fn slope(step: &Graph, sources: &BTreeMap<String, Array>, param: &str, element: usize) -> f64 {
    const H: f64 = 1e-5;
    let loss = |shift: f64| {
        let mut moved = sources.clone();
        moved.get_mut(param).expect("a parameter").data[element] += shift;
        let outputs =
            step.results().iter().position(|r| r.role == Role::Output && r.name == "loss");
        results(step, &moved)[outputs.expect("a loss")].1.data[0]
    };
    (loss(H) - loss(-H)) / (2.0 * H)
}

#[test]
fn a_small_convolutional_network() {
    let text = "
model Net(image: f32[N, 2, 6, 6]) -> f32[N, 3] {
  image |> conv(3, 3x3, pad = 1) |> batch_norm |> gelu |> max_pool(2x2)
        |> conv(4, 2x2, stride = 2, pad = 1, bias = no) |> silu |> flatten
        |> dropout(0.3) |> linear(5) |> layer_norm |> tanh |> linear(3)
}
train Net {
  data  tensors(image = f32[N, 2, 6, 6], label = i32[N])
  loss  cross_entropy(Net(image), label)
  optim adam
}";
    check(text, &[("label", Array::new([2], vec![0.0, 2.0]))], 2);
}

#[test]
fn a_small_decoder() {
    let text = "
model Paint(code: f32[N, 4, 2, 3]) -> f32[N, 1, 8, 11] {
  code |> conv_transpose(6, 4, stride = 2, pad = 1) |> group_norm(2) |> silu
       |> conv_transpose(3, [1, 2], pad = [0, 1], stride = [1, 2], output_pad = [0, 1], bias = no)
       |> instance_norm |> elu |> upsample([2, 1]) |> conv(1, 3, pad = 1)
}
train Paint {
  data tensors(code = f32[N, 4, 2, 3], picture = f32[N, 1, 8, 11])
  loss mse(Paint(code), picture)
  optim adadelta()
}";
    check(text, &[], 2);
}

#[test]
fn attention_in_index_notation() {
    let text = "
block Attention(A)(x: f32[N, T, D]) -> f32[N, T, D] where D % A == 0 {
  let C = D / A
  q, k, v    = x |> layer_norm |> linear(3*D) |> split[3] |> as[N, T, A, C]
  s[n,a,t,u] = sum[c] q[n,t,a,c] * k[n,u,a,c] / sqrt(C)   where u <= t else -inf    # causal
  p          = s |> softmax[u] |> dropout(0.1)
  o[n,t,a,c] = sum[u] p[n,a,t,u] * v[n,u,a,c]
  h          = x + (o |> as[N, T, D] |> linear(D))
  h + (h |> layer_norm |> linear(2*D) |> gelu |> linear(D))
}
model Gpt(ids: i32[N, 5]) -> f32[N, 5, 7] {
  param E: [7, 4] ~ normal(std = 0.5)
  x[n, t, d] = E[ids[n, t], d]
  x |> blocks: repeat 2 { Attention(2) } |> linear(7)
}
train Gpt {
  data  tensors(ids = i32[N, 5], next = i32[N, 5])
  loss  cross_entropy(Gpt(ids), next)
  optim sgd
}";
    let ids = Array::new([2, 5], vec![0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 5.0, 4.0, 4.0, 0.0]);
    let next = Array::new([2, 5], vec![1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 4.0, 4.0, 0.0, 1.0]);
    check(text, &[("ids", ids), ("next", next)], 2);
}

#[test]
fn masks_windows_and_means() {
    let text = "
model Odd(x: f32[N, 6], len: i32[N]) -> f32[N] {
  param w: [3] ~ normal
  param g: [6] = 1
  y[n, t < 6]   = sum[i] x[n, t + i - 1] * w[i]                       # outside terms are skipped
  m[n]      = mean[u] y[n, u] * g[u] where u < len[n]             # a mask on data
  big[n, t < 6] = max[i < 3] exp(y[n, t + i - 1])
  z[n, t]   = (y[n, t] where t > 1 else 0) + big[n, t]
  m + mean[-1](z) + (1 if len > 2 else 0) * prod[1](y)
}
train Odd {
  data  tensors(x = f32[N, 6], len = i32[N])
  loss  sum(Odd(x, len))
  optim sgd
}";
    check(text, &[("len", Array::new([2], vec![2.0, 5.0]))], 2);
}
