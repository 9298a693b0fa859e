//! One numeric suite, every engine: the graph in f64, the kernel program interpreted in f64, its
//! PTX interpreted, and the CPU at -O0 and -O2 with 1, 2 and 3 threads, and at its lower levels.
//!
//! The f64 engines must agree to rounding in f64. A CPU result may differ by a relative 2^-24 for
//! each operation on the longest path to it, which `depth` bounds, of the largest value.

use dlc::pipeline::{self, EntryGraph};
use dlc::{Bindings, Compiler, DType, Network, OptLevel, Tensor};
use dlc_graph::Role;
use dlc_kernel::{Array, Class, eval::Machine, philox};
use dlc_ptx::{Flavour, Math, PtxTarget, interpret::Device};

struct Case {
    name: &'static str,
    source: &'static str,
    sizes: &'static [(&'static str, i64)],
    /// Operations on the longest path, sums of n terms counting n.
    depth: f64,
}

const CASES: &[Case] = &[
    Case {
        name: "mlp",
        source: "model M(x: f32[N, 20]) -> f32[N, 5] { x |> linear(33) |> tanh |> linear(5) }",
        sizes: &[("N", 7)],
        depth: 80.0,
    },
    Case {
        name: "lenet",
        source: "model M(x: f32[N, 1, 28, 28]) -> f32[N, 10] {
            x |> conv(6, 5x5, pad=2) |> relu |> max_pool(2x2)
              |> conv(16, 5x5) |> relu |> max_pool(2x2) |> flatten
              |> linear(120) |> relu |> linear(84) |> relu |> linear(10) }",
        sizes: &[("N", 3)],
        depth: 800.0,
    },
    Case {
        name: "residual",
        source: "model M(x: f32[N, 4, 9, 9]) -> f32[N, 8, 5, 5] {
            y = x |> conv(8, 3x3, stride=2, pad=1, bias=no) |> batch_norm |> relu
                  |> conv(8, 3x3, pad=1, bias=no) |> batch_norm
            relu(y + (x |> conv(8, 1x1, stride=2, bias=no) |> batch_norm)) }",
        sizes: &[("N", 2)],
        depth: 160.0,
    },
    Case {
        name: "normalize",
        source: "model M(x: f32[N, 12]) -> f32[N, 12] {
            x |> layer_norm |> gelu |> softmax[1] }",
        sizes: &[("N", 5)],
        depth: 120.0,
    },
    Case {
        name: "log_softmax of large values",
        source: "model M(x: f32[N, 7]) -> f32[N, 7] { 300 * x |> log_softmax[1] }",
        sizes: &[("N", 4)],
        depth: 60.0,
    },
    Case {
        name: "pooling",
        source: "model M(x: f32[N, 3, 7, 6]) -> f32[N, 3] {
            x |> max_pool(3x3, stride=2, pad=1) |> avg_pool(2x2) |> global_avg_pool }",
        sizes: &[("N", 2)],
        depth: 40.0,
    },
    Case {
        name: "index equations",
        source: "model M(q: f32[N, T, C], k: f32[N, T, C]) -> f32[N, T, T] {
            s[n, t, u] = sum[c] q[n, t, c] * k[n, u, c] where u <= t else -inf
            s |> softmax[2] }",
        sizes: &[("N", 2), ("T", 5), ("C", 6)],
        depth: 60.0,
    },
    Case {
        name: "a recurrent layer",
        source: "model M(x: f32[N, T, 5]) -> f32[N, T, 6] {
            param W: [5, 24] ~ xavier_uniform
            param U: [6, 24] ~ xavier_uniform
            scan t in T with h, c = zeros[N, 6] {
                i, f, o, z = split[4](x[:, t] @ W + h @ U)
                c = sigmoid(f) * c + sigmoid(i) * tanh(z)
                h = sigmoid(o) * tanh(c)
                yield h
            } }",
        sizes: &[("N", 3), ("T", 7)],
        depth: 400.0,
    },
    Case {
        name: "recurrent layers of the library",
        source: "model M(x: f32[N, T, 5]) -> f32[N, T, 3] {
            ends[n < N] = 2*n + 1
            x |> rnn(4) |> lstm(5, layers = 2, bidirectional = yes) |> gru(6, lengths = ends)
              |> gru(3, reset_after = no) }",
        sizes: &[("N", 3), ("T", 6)],
        depth: 800.0,
    },
    Case {
        name: "a learned vector against some of the steps",
        source: "model M(e: f32[N, T, 16]) -> f32[N, T] {
            param w: [16] ~ normal(0.0, 1.0)
            ends[n < N] = 2*n + 1
            s[n, t] = sum[k] e[n, t, k] * w[k]
            y[n, t] = s[n, t] where t < ends[n] else -1
            y }",
        sizes: &[("N", 9), ("T", 57)],
        depth: 40.0,
    },
    Case {
        name: "a recurrent layer's gradients",
        source: "model M(x: f32[N, T, 5], U: f32[6, 6], W: f32[5, 6]) -> (u: f32[6, 6], w: f32[5, 6]) {
            y = scan t in T with h = zeros[N, 6] { h = tanh(x[:, t] @ W + h @ U)
                                                  yield h }
            loss[] = sum[n, t, k] y[n, t, k] * y[n, t, k]
            (grad(loss, wrt = U), grad(loss, wrt = W)) }",
        sizes: &[("N", 3), ("T", 7)],
        depth: 600.0,
    },
    Case {
        name: "a recurrent layer whose products are cut into blocks",
        source: "model M(x: f32[N, T, 5]) -> f32[N, T, 400] {
            param W: [5, 400]   ~ xavier_uniform
            param U: [400, 400] ~ xavier_uniform
            scan t in T with h = zeros[N, 400] { h = tanh(x[:, t] @ W + h @ U)
                                                yield h } }",
        sizes: &[("N", 2), ("T", 3)],
        depth: 1300.0,
    },
    Case {
        name: "a loop of one step",
        source: "model M(x: f32[N, T, 5]) -> f32[N, 5] {
            param U: [5, 5] ~ xavier_uniform
            scan t in T with h = x[:, 0] { h = tanh(h @ U + x[:, t]) } }",
        sizes: &[("N", 9), ("T", 1)],
        depth: 60.0,
    },
    Case {
        name: "a loop without steps",
        source: "model M(x: f32[N, T, 5]) -> (y: f32[N, T, 5], h: f32[N, 5]) {
            y = scan t in T with h = ones[N, 5] { h = tanh(h + x[:, t])
                                                 yield h }
            (y, h) }",
        sizes: &[("N", 2), ("T", 0)],
        depth: 60.0,
    },
    Case {
        name: "a loop backwards, with lengths",
        source: "model M(x: f32[N, T, 4], len: i32[N]) -> f32[N, T, 4] {
            param U: [4, 4] ~ xavier_uniform
            scan t in T reverse with h = zeros[N, 4] {
                next = tanh(h @ U + x[:, t])
                live[n, k < 4] = 1.0 where t < len[n] else 0.0
                h = live * next + (1 - live) * h
                yield h at 1
            } }",
        sizes: &[("N", 3), ("T", 6)],
        depth: 200.0,
    },
    Case {
        name: "loops in loops",
        source: "model M(x: f32[N, T, U]) -> (y: f32[N, T, U], s: f32[N]) {
            y = scan t in T with s = zeros[N] {
                r = scan u in U with s = s { s = 0.5 * s + tanh(x[:, t, u])
                                             yield s }
                s = r[:, -1]
                yield r
            }
            (y, s) }",
        sizes: &[("N", 3), ("T", 4), ("U", 5)],
        depth: 200.0,
    },
    Case {
        name: "gradients of loops in loops",
        source: "model M(x: f32[N, T, U]) -> f32[N, T, U] {
            y = scan t in T with s = zeros[N] {
                r = scan u in U with s = s { s = 0.5 * s + tanh(s + x[:, t, u])
                                             yield s }
                s = r[:, -1]
                yield r
            }
            loss[] = sum[n, t, u] y[n, t, u] * y[n, t, u]
            grad(loss, wrt = x) }",
        sizes: &[("N", 3), ("T", 4), ("U", 5)],
        depth: 400.0,
    },
    Case {
        name: "reshapes, rows and lookups in a loop",
        source: "model M(x: f32[N, T, 6], ids: i32[N, T]) -> f32[N, 6] {
            param E: [9, 6] ~ normal(1.0)
            param W: [6, 6] ~ xavier_uniform
            scan t in T with h = x[:, 0] {
                a = h |> as[N, 3, 2] |> softmax[2]
                h = (a |> as[N, 6]) @ W + E[ids[:, t]]
            } }",
        sizes: &[("N", 3), ("T", 4)],
        depth: 400.0,
    },
    Case {
        name: "slices and concatenation",
        source: "model M(x: f32[N, 8]) -> f32[N, 8] {
            a, b = x |> split[2]
            concat[1](b, a * x[:, 2:6]) }",
        sizes: &[("N", 3)],
        depth: 4.0,
    },
    Case {
        name: "channels last, with strides and their gradients",
        source: "model M(x: f32[N, 3, 13, 12], g: f32[N, 32, 7, 6]) -> (y: f32[N, 32, 7, 6], x: f32[N, 3, 13, 12]) {
            skip = conv(32, 1x1, stride=2, bias=no)
            z = x |> conv(16, 3x3, pad=1) |> tanh
            y = z |> conv(32, 3x3, stride=2, pad=1) |> batch_norm |> tanh
                  |> conv(32, 3x3, pad=1) |> batch_norm
            r = tanh(y + (z |> skip)) |> conv(32, 3x3, pad=1)
            loss[] = sum[n, k, h, v] r[n, k, h, v] * g[n, k, h, v]
            (r, grad(loss, wrt = x)) }",
        sizes: &[("N", 2)],
        depth: 3000.0,
    },
    Case {
        name: "pools with edges and steps, transposed convolutions, and their gradients",
        source: "model M(x: f32[N, 3, 17, 14], g: f32[N, 20, 10, 8]) -> (
            y: f32[N, 20, 10, 8], x: f32[N, 3, 17, 14], w: f32[20, 12, 4, 4]
        ) {
            last = conv_transpose(12, 4x4, stride=2, pad=1)
            a = x |> conv(20, 3x3, pad=1) |> max_pool(3x3, stride=2, pad=1)
            b = a |> conv(20, 3x3, pad=1) |> max_pool(3x3, stride=1, pad=1)
            c = a + b |> avg_pool(3x3, stride=2, pad=1) |> conv(20, 2x2) |> last
            y = c |> conv(20, 3x3, pad=1) |> avg_pool(2x2)
                  |> conv_transpose(20, 3x3, stride=2, output_pad=1)
            loss[] = sum[n, k, h, v] y[n, k, h, v] * g[n, k, h, v]
            (y, grad(loss, wrt = x), grad(loss, wrt = last.weight)) }",
        sizes: &[("N", 2)],
        depth: 6000.0,
    },
    Case {
        name: "losses under a mask, with their gradients",
        source: "model M(x: f32[N, T, 7], y: f32[N, T, 7], label: i32[N, T], w: f32[N, T]) -> (
            a: f32[], b: f32[], c: f32[], ga: f32[N, T, 7], gb: f32[N, T, 7]
        ) {
            mask = w > 0
            a = cross_entropy(x, label, smoothing = 0.1, mask = mask)
            b = binary_cross_entropy(x, abs(y), mask = mask)
            (a, b, accuracy(x, label, mask = mask), grad(a, wrt = x), grad(b, wrt = x)) }",
        sizes: &[("N", 3), ("T", 5)],
        depth: 120.0,
    },
    Case {
        name: "a Transformer layer's gradients, scaled by their norm",
        source: "model M(x: f32[N, T, 8]) -> (a: f32[8], b: f32[12, 8]) {
            layer = encoder_layer(2, 12)
            y = x |> layer
            loss = mean(y * y * y)
            a = grad(loss, wrt = layer.norm1.weight)
            b = grad(loss, wrt = layer.linear1.weight)
            norm = sqrt(sum(a * a) + sum(b * b))
            (a / norm, b / norm) }",
        sizes: &[("N", 2), ("T", 5)],
        depth: 1000.0,
    },
    Case {
        name: "gradients of gradients",
        source: "model M(x: f32[N]) -> f32[N] {
            slope = grad(sum[n] x[n] * x[n] * x[n], wrt = x)
            y[] = sum[n] slope[n] * slope[n]
            grad(y, wrt = x) }",
        sizes: &[("N", 6)],
        depth: 40.0,
    },
    Case {
        name: "convolution's gradients",
        source: "model M(x: f32[N, 2, 6, 5], w: f32[3, 2, 3, 3]) -> (x: f32[N, 2, 6, 5], w: f32[3, 2, 3, 3]) {
            y[n, k, h < 3, v < 3] = sum[c, r, q] x[n, c, 2*h + r - 1, 2*v + q - 1] * w[k, c, r, q]
            loss[] = sum[n, k, h, v] y[n, k, h, v] * y[n, k, h, v]
            (grad(loss, wrt = x), grad(loss, wrt = w)) }",
        sizes: &[("N", 2)],
        depth: 200.0,
    },
    Case {
        name: "depthwise convolutions' gradients",
        source: "model M(x: f32[N, 3, 19, 37], v: f32[3, 3, 3], w: f32[3, 5, 5])
            -> (x: f32[N, 3, 19, 37], v: f32[3, 3, 3], w: f32[3, 5, 5]) {
            y[n, c, h < 19, u < 37] = sum[r, q] x[n, c, h + r - 1, u + q - 1] * v[c, r, q]
            z[n, c, h < 10, u < 19] = sum[r, q] y[n, c, 2*h + r - 2, 2*u + q - 2] * w[c, r, q]
            loss[] = sum[n, c, h, u] z[n, c, h, u] * z[n, c, h, u]
            (grad(loss, wrt = x), grad(loss, wrt = v), grad(loss, wrt = w)) }",
        sizes: &[("N", 2)],
        depth: 1600.0,
    },
];

fn inputs(network: &Network) -> Vec<(String, Tensor)> {
    let make = |(site, buffer): (usize, &dlc_kernel::Buffer)| {
        let shape: Vec<usize> =
            buffer.shape.iter().map(|s| s.as_const().unwrap() as usize).collect();
        let n: usize = shape.iter().product();
        let draw = |i| philox::uniform(7, 0, site as u64, i as i32);
        let tensor = match buffer.dtype {
            DType::I32 => Tensor::i32(shape, (0..n).map(|i| (7.0 * draw(i)) as i32).collect()),
            _ => Tensor::f32(shape, (0..n).map(|i| 2.0 * draw(i) - 1.0).collect()),
        };
        (buffer.name.clone(), tensor)
    };
    network.inputs().enumerate().map(make).collect()
}

fn network(case: &Case, opt: OptLevel, threads: usize) -> Network {
    network_of(case, Compiler::new().opt_level(opt).threads(threads))
}

fn network_of(case: &Case, compiler: Compiler) -> Network {
    let module = compiler.compile_text(case.name, case.source).unwrap_or_else(|e| panic!("{e}"));
    let sizes = case.sizes.iter().copied();
    let network = module.model("M").unwrap().bind(sizes).unwrap_or_else(|e| panic!("{e}"));
    network.initialize(3).unwrap()
}

fn run(network: &Network, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    network.run(&given).unwrap().iter().map(|(_, t)| t.clone()).collect()
}

/// The outputs by the graph's own evaluation, after differentiation only.
fn by_graph(graph: &dlc_graph::Graph, value: &dyn Fn(&str) -> Option<Array>) -> Vec<Array> {
    let all = dlc_graph::eval::eval(graph, value).unwrap();
    let roles = graph.results().iter().map(|r| r.role);
    all.into_iter().zip(roles).filter(|(_, r)| *r == Role::Output).map(|(a, _)| a).collect()
}

fn by_kernels(
    entry: &EntryGraph,
    opt: OptLevel,
    value: &dyn Fn(&str) -> Option<Array>,
) -> Vec<Array> {
    let copy = EntryGraph { name: entry.name.clone(), graph: entry.graph.clone() };
    let program = pipeline::lower(&[copy], opt, &mut |_, _| {}).program;
    let mut machine = Machine::new(&program);
    for buffer in &program.buffers {
        if matches!(buffer.class, Class::Param | Class::State) {
            machine.write(&buffer.name, &value(&buffer.name).unwrap()).unwrap();
        }
    }
    let inputs: Vec<Array> = program.entries[0]
        .inputs
        .iter()
        .map(|&b| value(&program.buffer(b).name).unwrap())
        .collect();
    machine.call(&entry.name, &inputs).unwrap()
}

/// The outputs by the PTX of a flavour, interpreted.
fn by_ptx(
    entry: &EntryGraph,
    flavour: Flavour,
    value: &dyn Fn(&str) -> Option<Tensor>,
) -> Vec<Array> {
    let copy = EntryGraph { name: entry.name.clone(), graph: entry.graph.clone() };
    let program = pipeline::lower(&[copy], OptLevel::O2, &mut |_, _| {}).program;
    let code = PtxTarget { flavour, math: Math::F32 }.compile(&program).unwrap();
    let mut device = Device::new(&code);
    for buffer in &program.buffers {
        if matches!(buffer.class, Class::Param | Class::State) {
            device.write(&buffer.name, &value(&buffer.name).unwrap()).unwrap();
        }
    }
    let inputs = program.entries[0].inputs.iter().map(|&b| value(&program.buffer(b).name).unwrap());
    let inputs: Vec<Tensor> = inputs.collect();
    let (outputs, _) = device.call(0, &inputs).unwrap_or_else(|e| panic!("{e}"));
    outputs.iter().map(Array::from_tensor).collect()
}

/// Compilers for the levels of the CPU that run here, but for the best one.
fn lower_levels() -> impl Iterator<Item = (&'static str, Compiler)> {
    let lower = dlc::targets().into_iter().filter(|target| {
        let level = dlc_cpu::level::Level::from_name(target.name);
        level.is_some() && target.refusal.is_none() && !target.default
    });
    lower.map(|target| (target.name, Compiler::new().target(target.name).unwrap().threads(2)))
}

fn assert_close(what: &str, found: &[Array], expected: &[Array], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let largest = expected.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let error = found.max_difference(expected);
        assert!(error <= bound * largest.max(1e-30), "{what}: off by {error:e} of {largest:e}");
    }
}

#[test]
fn all_engines_agree() {
    for case in CASES {
        let network = self::network(case, OptLevel::O2, 1);
        let inputs = self::inputs(&network);
        let tensor = |name: &str| -> Option<Tensor> {
            let given = inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
            given.or_else(|| network.read(name).ok())
        };
        let value = |name: &str| -> Option<Array> { tensor(name).map(|t| Array::from_tensor(&t)) };
        let module = Compiler::new().compile_text(case.name, case.source).unwrap();
        let sizes: Bindings = case.sizes.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        let entry = module.model("M").unwrap().entry(&sizes).unwrap();
        let reference = by_graph(&dlc_graph::differentiate(&entry.graph), &value);
        let bound = case.depth * f64::from(f32::EPSILON) / 2.0;
        for flavour in Flavour::ALL {
            let found = by_ptx(&entry, flavour, &tensor);
            assert_close(&format!("{} {flavour}", case.name), &found, &reference, bound);
        }
        for (level, compiler) in lower_levels() {
            let found = run(&network_of(case, compiler), &inputs);
            let arrays: Vec<Array> = found.iter().map(Array::from_tensor).collect();
            assert_close(&format!("{} {level}", case.name), &arrays, &reference, bound);
        }
        for opt in [OptLevel::O0, OptLevel::O2] {
            let kernels = by_kernels(&entry, opt, &value);
            assert_close(&format!("{} kernels {opt:?}", case.name), &kernels, &reference, 1e-11);
            for threads in 1..=3 {
                let found = run(&self::network(case, opt, threads), &inputs);
                let arrays: Vec<Array> = found.iter().map(Array::from_tensor).collect();
                let what = format!("{} CPU {opt:?} {threads} threads", case.name);
                assert_close(&what, &arrays, &reference, bound);
                if opt == OptLevel::O2 {
                    assert_eq!(found, run(&network, &inputs), "{what}: not the same bits");
                }
            }
        }
    }
}
