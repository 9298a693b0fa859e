//! Graphs of small models: the source above the graph.

use dlc_front::Mode;

use crate::support::model;

fn show(text: &str, mode: Mode) -> String {
    format!("{}\n\n{}\n", text.trim(), model(text, mode).graph)
}

#[test]
fn linear_relu() {
    insta::assert_snapshot!(show(
        "model M(x: f32[N, 4]) -> f32[N, 2] { x |> linear(2) |> relu }",
        Mode::Infer
    ));
}

#[test]
fn first_values() {
    let text = "model M(x: f32[N, 4]) {
  param w: [4, 2] ~ xavier_normal
  state calls = 0
  calls <- calls + 1
  x @ w
}";
    let model = model(text, Mode::Train);
    insta::assert_snapshot!(format!("{text}\n\n{}\n\ninit {}\n", model.graph, model.init));
}

#[test]
fn index_equations() {
    insta::assert_snapshot!(show(
        "model M(x: f32[N, C, H], W: f32[O, C, 3], E: f32[V, D], ids: i32[N, T], len: i32[N]) {
  conv[n, o, h < H // 2] = sum[c, i] x[n, c, 2*h + i - 1] * W[o, c, i]
  pool[n, c, h < H // 2] = max[i < 2] x[n, c, 2*h + i]
  words[n, t, d]         = E[ids[n, t], d]
  causal[n, h, c]        = x[n, c, h] where c <= h else -inf
  total[n]               = sum[h, c] x[n, c, h] where h < len[n]
  (conv, pool, words, causal, total)
}",
        Mode::Infer
    ));
}

#[test]
fn batch_norm_in_training() {
    insta::assert_snapshot!(show("model M(x: f32[N, 3, 8, 8]) { x |> batch_norm }", Mode::Train));
}

#[test]
fn a_rate_that_starts_as_0_leaves_nothing_of_dropout() {
    let layer = |rate: &str| {
        let body = format!(
            "block Layer(dyn r = {rate})(x: [N, T, D]) -> [N, T, D] {{
               layer_drop(x |> self_attention(2, rate = r) |> dropout(r), x, rate = r)
                 |> drop_path(keep = 1.0 - {rate})
             }}
             model M(x: f32[N, 3, 4]) -> f32[N, 3, 4] {{ x |> Layer }}"
        );
        model(&body, Mode::Train).graph.to_string()
    };
    assert_eq!(layer("0.25").matches("random").count(), 4);
    let without = layer("0.0");
    assert!(!without.contains("random") && !without.contains("rate"), "{without}");
}

#[test]
fn names_that_are_put_together() {
    let text = "block pair(H)(x: [..B, H]) -> [..B, H] {
  for k in 2 { x = x |> named[\"*_l\", k, \"_up\" if k == 0 else \"\"](linear(H)) }
  x |> named[\"out\", 3](relu |> linear(H))
}
model M(x: f32[N, 8]) {
  net = named[\"*\"](pair(8))
  y = x |> pair(8) |> net
  y + net.weight_l1[0]
}";
    let model = model(text, Mode::Infer);
    let paths: Vec<String> = model.params.iter().map(|p| format!("{} {}", p.path, p.ty)).collect();
    insta::assert_snapshot!(format!("{text}\n\n{}\n", paths.join("\n")));
}

/// Tuples are carried and chosen between, and an index is always below the number of steps.
#[test]
fn a_loop_that_carries_a_tuple_backwards() {
    insta::assert_snapshot!(show(
        "model M(x: f32[N, T, 2], len: i32[N, 1]) {
  let back = yes
  y = scan t in T reverse if back with s = (zeros[N, 2], x[:, 0]) {
    a, b = s
    s = (a + x[:, t], b * a) if t < len else s
    yield a + 1 if t < T else b
  }
  y, s[0], s[1]
}",
        Mode::Infer
    ));
}

#[test]
fn instances_and_their_paths() {
    let text =
        "block Block(D)(x: [..B, D]) -> [..B, D] { x + (x |> linear(D) |> relu |> linear(D)) }
tied = linear(8, bias = no)
model M(x: f32[N, 8]) {
  proj = linear(8) |> relu |> linear(8)
  x |> linear(8) |> proj |> tied |> tied |> linear(8)
    |> blocks: repeat 2 { Block(8) } |> repeat 2 { relu |> linear(8, bias = no) }
}";
    let model = model(text, Mode::Infer);
    let paths: Vec<String> = model.params.iter().map(|p| format!("{} {}", p.path, p.ty)).collect();
    insta::assert_snapshot!(format!("{text}\n\n{}\n", paths.join("\n")));
}

#[test]
fn torchvision_names() {
    let text = include_str!("../../../../examples/resnet.dl");
    let unit = crate::support::unit(text);
    let model = unit.model("ResNet50", &Default::default(), Mode::Infer).expect("elaborates");
    let all: Vec<&str> = model.params.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(all.len(), 161);
    for path in [
        "conv1.weight",
        "bn1.weight",
        "layer1.0.conv1.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.bias",
        "layer2.3.bn3.weight",
        "layer4.2.conv3.weight",
        "fc.bias",
    ] {
        assert!(all.contains(&path), "{path} is not among {all:?}");
    }
    assert_eq!(model.states[0].path, "bn1.running_mean");
}
