//! Broken sources: whatever the text, checking it ends, and without a panic.

use dlc_front::Unit;
use proptest::prelude::*;

const SOURCES: [&str; 4] = [
    include_str!("../../../../examples/lenet.dl"),
    include_str!("../../../../examples/mlp.dl"),
    "block Attention(A)(x: f32[N, T, D]) -> f32[N, T, D] where D % A == 0 {
  let C = D / A
  q, k, v    = x |> layer_norm |> linear(3*D) |> split[3] |> as[N, T, A, C]
  s[n,a,t,u] = sum[c] q[n,t,a,c] * k[n,u,a,c] / sqrt(C)   where u <= t else -inf
  p          = s |> softmax[u] |> dropout(0.1)
  o[n,t,a,c] = sum[u] p[n,a,t,u] * v[n,u,a,c]
  x + (o |> as[N, T, D] |> linear(D))
}
model Gpt(ids: i32[N, T], len: i32[N]) -> f32[N, T, 7] {
  param E: [7, 4] ~ normal(std = 0.5)
  x[n, t, d] = E[ids[n, t], d] where t < len[n] else 0
  x |> blocks: repeat 2 { Attention(2) } |> linear(7)
}",
    "model M(x: f32[N, 2, 6, 6]) -> (y: f32[N, 4], z: f32[N]) {
  fc = linear(4)
  if rank(x) == 4 { y = x |> conv(2, 3x3, pad = 1) |> batch_norm |> max_pool(2) } else { y = x }
  for k in [1, 2] { y = y |> conv(k, 1x1, bias = no) }
  repeat 2 { y = y |> relu }
  state s: [2] = 0
  s <- s + 1
  m[n] = mean[h, w] y[n, 0, h, w] + max[h < 3] x[n, 0, h - 1, 2*h]
  (y |> flatten |> fc, m if yes else grad(sum(m), wrt = x)[:, 0, 0, 0])
}",
];

const WORDS: [&str; 26] = [
    "x",
    "N",
    "0",
    "-1",
    "1.5",
    "yes",
    "[",
    "]",
    "(",
    ")",
    ",",
    "|>",
    "+",
    "/",
    "@",
    "==",
    "<",
    "sum[i]",
    "if",
    "else",
    "where",
    "relu",
    "linear(3)",
    "9_000_000_000",
    "repeat",
    "..B",
];

/// The pieces of a text: words, numbers and single characters.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut last = None;
    for (at, c) in text.char_indices() {
        if at > 0 && !(is_word(c) && last.is_some_and(is_word)) {
            pieces.push(&text[start..at]);
            start = at;
        }
        last = Some(c);
    }
    pieces.push(&text[start..]);
    pieces
}

fn mutate(text: &str, edits: &[(usize, usize, u8)]) -> String {
    let mut pieces = pieces(text);
    for &(at, with, how) in edits {
        if pieces.is_empty() {
            break;
        }
        let (at, other) = (at % pieces.len(), with % pieces.len());
        match how % 4 {
            0 => {
                pieces.remove(at);
            }
            1 => pieces.swap(at, other),
            2 => pieces[at] = WORDS[with % WORDS.len()],
            _ => pieces.insert(at, pieces[other]),
        }
    }
    pieces.concat()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn mutated_sources_are_checked(
        source in 0..SOURCES.len(),
        edits in prop::collection::vec(any::<(usize, usize, u8)>(), 1..4),
    ) {
        let text = mutate(SOURCES[source], &edits);
        if let Ok(unit) = Unit::parse("model.dl", text.as_bytes()) {
            let found = unit.check();
            let _ = unit.render(&found, dlc_front::Style::Plain);
        }
    }
}

#[test]
fn nested_repeats_end() {
    let text = "model M(x: f32[N]) {
  repeat 100_000 { repeat 100_000 { repeat 100_000 { let a = 1 } } }
  x
}";
    let unit = crate::support::unit(text);
    assert!(unit.check().iter().any(dlc_front::Diagnostic::is_error));
}

#[test]
fn deep_instances_end() {
    let mut text = String::from("block B0(x) { x }\n");
    for k in 1..400 {
        text +=
            &format!("block B{k}(x) {{ {}x |> B{}{} }}\n", "(".repeat(90), k - 1, ")".repeat(90));
    }
    text += "model M(x: f32[N]) { x |> B399 }";
    let unit = crate::support::unit(&text);
    assert!(unit.check().iter().any(dlc_front::Diagnostic::is_error));
}

#[test]
fn the_examples_are_clean() {
    for text in [
        include_str!("../../../../examples/lenet.dl"),
        include_str!("../../../../examples/mlp.dl"),
        include_str!("../../../../examples/resnet.dl"),
    ] {
        let unit = crate::support::unit(text);
        let found = unit.check();
        assert!(found.is_empty(), "{}", unit.render(&found, dlc_front::Style::Plain));
    }
}
