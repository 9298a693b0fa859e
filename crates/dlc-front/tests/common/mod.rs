//! Sources and helpers that several test files share.

#![allow(dead_code, reason = "each test file uses its part")]

use dlc_front::ast::Ast;
use dlc_front::{Diagnostic, Sources, Style, render};

/// LeNet with its sections.
pub const LENET: &str = r#"# examples/lenet.dl
model LeNet(image: f32[N, 1, 28, 28]) -> f32[N, 10] {
  image
    |> conv(6, 5x5, pad=2) |> relu |> max_pool(2x2)
    |> conv(16, 5x5)       |> relu |> max_pool(2x2)
    |> flatten
    |> linear(120) |> relu
    |> linear(84)  |> relu
    |> linear(10)
}

expect LeNet { params == 61_706;  shape(image = [32, 1, 28, 28]) == [32, 10] }

train LeNet {
  data   mnist("data/mnist-5k") batch 64 shuffle
  loss   cross_entropy(LeNet(image), label)
  metric accuracy(LeNet(image), label)
  optim  adam(lr = 1e-3)
  stop   after 3 epochs without val.loss improving
  epochs 10
  seed   42
}
"#;

/// A residual block.
pub const BASIC: &str = r"
block Basic(C, s = 1, keep = 1.0)(x: f32[N, K, H, W]) -> f32[N, C, ceil_div(H, s), ceil_div(W, s)] {
  y    = x |> conv(C, 3x3, stride=s, pad=1, bias=no) |> batch_norm |> relu
           |> conv(C, 3x3, pad=1, bias=no)           |> batch_norm
  skip = x if s == 1 and K == C else x |> conv(C, 1x1, stride=s, bias=no) |> batch_norm
  relu(skip + (y |> drop_path(keep)))          # drops the whole layer while training
}
";

/// A recurrent layer.
pub const LSTM: &str = r"
block Lstm(H)(x: f32[N, T, I]) -> f32[N, T, H] {
  param Wx: [I, 4*H] ~ xavier_uniform
  param Wh: [H, 4*H] ~ orthogonal
  param b:  [4*H]    = 0
  gx[n,t,g] = b[g] + sum[i] x[n,t,i] * Wx[i,g]          # index notation; one GEMM for all steps
  scan t in T with h, c = zeros[N, H] {
    i, f, o, z = split[4](gx[:, t] + h @ Wh)
    c = sigmoid(f) * c + sigmoid(i) * tanh(z)
    h = sigmoid(o) * tanh(c)
    yield h
  }
}
";

/// A Transformer block.
pub const GPT: &str = r"
block Gpt(A)(x: f32[N, T, D]) -> f32[N, T, D] where D % A == 0 {
  let C = D / A
  q, k, v    = x |> layer_norm |> linear(3*D) |> split[3] |> as[N, T, A, C]
  s[n,a,t,u] = sum[c] q[n,t,a,c] * k[n,u,a,c] / sqrt(C)   where u <= t else -inf    # causal
  p          = s |> softmax[u] |> dropout(0.1)
  o[n,t,a,c] = sum[u] p[n,a,t,u] * v[n,u,a,c]
  h          = x + (o |> as[N, T, D] |> linear(D))
  h + (h |> layer_norm |> linear(4*D) |> gelu |> linear(D))
}
";

/// Whatever the sources above leave out.
pub const REST: &str = r#"
let WIDTH, DEPTH = 8x2, 3
encoder = Encoder(WIDTH)
block softmax[axis = -1](x: [..B]) -> [..B] { exp(x - max[axis](x)) / sum[axis](exp(x)) }
block pool(k = 2x2, dyn rate = 0.5)(x, mask: bool[N, ..] = none) -> (y: [N, C / 2], h: i32) {
  state m: [C] = 0
  state n = zeros_like(x); n <- n + 1
  m <- 0.9 * m + -0.1 * mean[0, 2, 3](x)
  y[n, c, h < Ho, w < H // 2] = max[r < 3, q < k] x[n, c, s*h + r - p, 2*w + q]
  loss[] = -sum[i] sum[j] a[i] * a[j]
  z[n, t] = (sum[u] v[n, u] where u < len[n]) + not mask[n] or no
  blocks: repeat DEPTH { norm |> attend(8) }
  x |> blocks |> inner: repeat (DEPTH - 1) { relu } |> blocks[1:].x |> x[.., ..B, a:b, :]
  for k in [1, 3, 5] { x = x |> conv(k, 3x3x3) }
  if k == 1 { y } else if k > 2 and not yes { z; () } else { (x,) }
  g = grad(y, wrt = x)
  back = scan t in T reverse { yield t }
  turned = scan t in T reverse if b or c with h = 0 { h = h + t }
  last, all = scan t in T with h, c = zeros[N, H], e = 1 { yield (h, c) at 1 }
  u = a if b else c if d else e
  (y, -u @ w % 2 - "path\\to \"x\"\n")
}
optimizer momentum(dyn lr = 1e-3, mu = 0.9)(p, g) {
  state v = zeros_like(p)
  v <- mu * v + g
  p - lr * (mu * v + g)
}
schedule halving(every)(peak) { peak * pow(0.5, f32(step // every)) }
init xavier_uniform(gain = 1.0)(shape, fan_in, fan_out) {
  let a = gain * sqrt(6 / (fan_in + fan_out))
  uniform(-a, a)
}
train Net { data csv("x.csv")
  metric top5 = accuracy(y, label); shuffle; batch 32
  accumulate 4; clip 1.0; stop after 2 epochs without val.top5 rising
  validation 0.1
  out "runs" }
search Net { lr log_uniform(1e-5, 1e-1); trials 20 best of 3 }
entry decode { step Net(x) }
augment { flip 0.5 }
"#;

/// All of them.
pub fn examples() -> Vec<&'static str> {
    vec![LENET, BASIC, LSTM, GPT, REST]
}

/// Parses a text.
pub fn parse(text: &str) -> (Ast, Vec<Diagnostic>, Sources) {
    let mut sources = Sources::new();
    let file = sources.add("model.dl", text);
    let (ast, diagnostics) = dlc_front::parse(&sources, file);
    (ast, diagnostics, sources)
}

/// Parses a text that has no errors.
pub fn parse_good(text: &str) -> Ast {
    let (ast, diagnostics, sources) = parse(text);
    assert!(diagnostics.is_empty(), "{}", render(&diagnostics, &sources, Style::Plain));
    ast
}

/// The rendered diagnostics of a text.
pub fn messages(text: &str) -> String {
    let (_, diagnostics, sources) = parse(text);
    render(&diagnostics, &sources, Style::Plain)
}
