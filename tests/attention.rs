//! Attention on PTX: one kernel, whatever masks and biases there are, at the borders of its tiles; its
//! numbers are those of the kernel program in f64.

#[path = "../crates/dlc-ptx/tests/support/math.rs"]
mod math;
#[path = "../crates/dlc-ptx/tests/support/ptxas.rs"]
mod ptxas;

use dlc::{Compiler, OptLevel, Tensor, pipeline};
use dlc_kernel::{Array, BufferId, Program, eval::Machine, philox};
use dlc_ptx::interpret::{Counters, Device};
use dlc_ptx::{Flavour, Math, PtxTarget};

const PLAIN: &str = "
    model M(q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E]) -> f32[N, T, A, E] {
        attention(q, k, v)
    }";

const CAUSAL: &str = "
    model M(q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E]) -> f32[N, T, A, E] {
        attention(q, k, v, causal = yes)
    }";

/// Keys that are no words; of the first sequence none is one.
const PADDED: &str = "
    model M(q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E]) -> f32[N, T, A, E] {
        ends[n < N] = 7 * n
        seen = length_mask(U)(ends) |> as[N, 1, 1, U]
        attention(q, k, v, mask = seen)
    }";

/// Scores that fall with distance, and a bias that is data.
const BIASED: &str = "
    model M(
        q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E], b: f32[A, T, U]
    ) -> f32[N, T, A, E] {
        attention(q, k, v, bias = alibi(A, T, U) + b, causal = yes)
    }";

/// Several heads of queries for one of keys and values.
const GROUPED: &str = "
    model M(q: f32[N, T, A, C], k: f32[N, U, 2, C], v: f32[N, U, 2, E]) -> f32[N, T, A, E] {
        attention(q, k, v, causal = yes)
    }";

/// Keys and values that all heads and sequences share, and a window of keys.
const SHARED: &str = "
    model M(q: f32[N, T, A, C], k: f32[U, C], v: f32[U, E]) -> f32[N, A, E, T] {
        s[n, a, t, u] = sum[c] q[n, t, a, c] * k[u, c] / sqrt(C)
            where u <= t and t <= u + 70 else -inf
        w = s |> softmax
        o[n, a, e, t] = sum[u] w[n, a, t, u] * v[u, e]
        o
    }";

/// Extents of sequences, heads, queries, keys, features of keys and of values.
type Sizes = [i64; 6];

fn program(source: &str, sizes: Sizes) -> Program {
    let module = Compiler::new().compile_text("model.dl", source).unwrap();
    let model = module.model("M").unwrap();
    let dims = module.unit().dims_of("M").unwrap();
    let all = ["N", "A", "T", "U", "C", "E"].into_iter().zip(sizes);
    let known = all.filter(|(dim, _)| dims.iter().any(|d| d == dim));
    let entry = model.entry(&known.map(|(dim, n)| (dim.to_owned(), n)).collect()).unwrap();
    pipeline::lower(&[entry], OptLevel::O2, &mut |_, _| {}).program
}

fn inputs(program: &Program) -> Vec<Tensor> {
    let tensor = |&id: &BufferId| {
        let shape = program.buffer(id).shape.iter().map(|s| s.as_const().unwrap() as usize);
        let shape: Vec<usize> = shape.collect();
        let n: usize = shape.iter().product();
        let draw = |i: usize| 2.0 * philox::uniform(3, 0, id.0.into(), i as i32) - 1.0;
        Tensor::f32(shape, (0..n).map(draw).collect())
    };
    program.entries[0].inputs.iter().map(tensor).collect()
}

/// How far a result may be off where queries, keys and values are below 1 and biases below 6: scores
/// are off by so much, weights relatively by twice that, and then there are sums of keys in blocks,
/// each with a power to scale what was before.
fn bound(math: Math, [.., keys, depth, _]: Sizes) -> f64 {
    let most = (depth as f64).sqrt();
    let scores = math::relative(math, depth) * most + 4.0 * (most + 6.0) * 2f64.powi(-24);
    let blocks = keys as f64 / 64.0 + 1.0;
    2.0 * scores + math::relative(math, keys) + (8.0 * blocks + 20.0) * 2f64.powi(-24)
}

/// Runs a model interpreted and compares; gives what its last launch did.
fn check(source: &str, sizes: Sizes, math: Math) -> Counters {
    let program = program(source, sizes);
    let target = PtxTarget { flavour: Flavour::Sm80, math };
    let (schedule, code) = (target.schedule(&program), target.compile(&program).unwrap());
    let apart = ["  contract ", "  row "].iter().any(|form| schedule.contains(form));
    assert!(schedule.contains("attention: ") && !apart, "{program}\n{schedule}");
    let inputs = inputs(&program);
    let arrays: Vec<Array> = inputs.iter().map(Array::from_tensor).collect();
    let expected = Machine::new(&program).call("run", &arrays).unwrap().remove(0);
    let called = Device::new(&code).call(0, &inputs);
    let (outputs, counters) = called.unwrap_or_else(|e| panic!("{sizes:?}, {math}: {e}"));
    let error = Array::from_tensor(&outputs[0]).max_difference(&expected);
    let bound = bound(math, sizes);
    assert!(error <= bound, "{sizes:?}, {math}: off by {error:e}, of {bound:e}\n{schedule}");
    *counters.last().unwrap()
}

#[test]
fn sizes_at_the_borders_of_tiles() {
    for math in Math::ALL {
        for [t, u] in [[4, 4], [5, 7], [63, 64], [64, 63], [64, 64], [65, 65], [6, 130], [129, 5]] {
            check(PLAIN, [1, 2, t, u, 8, 8], math);
        }
        for [c, e] in [[1, 4], [3, 5], [17, 32], [16, 33], [5, 64], [36, 65], [4, 128]] {
            check(PLAIN, [1, 1, 10, 66, c, e], math);
        }
    }
}

#[test]
fn masks_at_the_borders_of_tiles() {
    for math in Math::ALL {
        for [t, u] in [[5, 5], [63, 63], [64, 64], [65, 65], [130, 130], [66, 129], [129, 66]] {
            check(CAUSAL, [1, 2, t, u, 8, 8], math);
        }
        for [t, u] in [[9, 21], [64, 65]] {
            check(PADDED, [3, 2, t, u, 8, 8], math);
        }
    }
}

#[test]
fn biases_and_heads_that_are_shared() {
    for math in Math::ALL {
        for t in [7, 65] {
            check(BIASED, [2, 2, t, t, 8, 12], math);
            // Keys and values are brought to all heads before.
            check(GROUPED, [2, 4, t, t, 8, 8], math);
            check(SHARED, [2, 3, t, t, 8, 12], math);
        }
    }
}

/// A block of queries looks at no block of keys behind it: of 4 x 4 blocks, 10 are left.
#[test]
fn masks_skip_blocks() {
    for math in Math::ALL {
        let sizes = [1, 1, 256, 256, 16, 16];
        let loaded = |source| check(source, sizes, math).loaded;
        let (all, seen) = (loaded(PLAIN), loaded(CAUSAL));
        assert_eq!(seen * 16, all * 10);
    }
}

/// Neither scores nor weights are in memory.
#[test]
fn what_stays_in_the_kernel_has_no_place() {
    let program = program(CAUSAL, [1, 4, 256, 256, 16, 16]);
    let code = PtxTarget { flavour: Flavour::Sm80, math: Math::F32 }.compile(&program).unwrap();
    let inside = code.buffers.iter().filter(|b| b.shape == [1, 4, 256, 256]);
    assert_eq!(inside.map(|b| b.bytes).collect::<Vec<_>>(), [0, 0]);
    assert!(code.bytes < 4 * 4 * 256 * 256, "{} bytes", code.bytes);
}

/// What is read otherwise is in memory: weights that are a result, or read backwards, or read twice.
#[test]
fn weights_that_others_read_stay() {
    let shown = "
        model M(q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E])
          -> (o: f32[N, T, A, E], p: f32[N, A, T, U]) {
            p = attention_weights(q, k)
            o[n, t, a, e] = sum[u] p[n, a, t, u] * v[n, u, a, e]
            (o, p)
        }";
    let backward = "
        model M(q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E]) -> f32[N, T, A, C] {
            o = attention(q, k, v)
            total[] = sum[n, t, a, e] o[n, t, a, e] * o[n, t, a, e]
            grad(total, wrt = q)
        }";
    let twice = "
        model M(q: f32[N, T, A, C], k: f32[N, U, A, C]) -> f32[N, A, T, T] {
            p = attention_weights(q, k)
            o[n, a, t, r] = sum[u] p[n, a, t, u] * p[n, a, r, u]
            o
        }";
    let target = PtxTarget { flavour: Flavour::Sm80, math: Math::F32 };
    for source in [shown, backward, twice] {
        let schedule = target.schedule(&program(source, [1, 2, 8, 8, 8, 8]));
        assert!(!schedule.contains("attention: "), "{schedule}");
    }
}

/// Registers and shared memory, for heads of 64 and 128 features; nothing may be spilled.
#[test]
fn attention_fits_in_registers() {
    let Some(ptxas) = ptxas::find() else { return };
    let mut table = String::new();
    for math in Math::ALL {
        for (source, name) in [(PLAIN, "plain"), (CAUSAL, "causal"), (BIASED, "biased")] {
            for width in [64, 128] {
                let program = program(source, [4, 12, 1024, 1024, width, width]);
                let used = Flavour::ALL.map(|flavour| {
                    let code = PtxTarget { flavour, math }.compile(&program).unwrap();
                    let said = ptxas::assemble(&ptxas, &code.ptx(), flavour);
                    let said = said.unwrap_or_else(|said| panic!("{math} {name} {width}:\n{said}"));
                    let line = said.lines().find_map(|l| l.split_once("Used ")).unwrap().1;
                    let parts = line.split(", ");
                    let kept = parts.filter(|p| p.ends_with("registers") || p.ends_with("smem"));
                    format!("{flavour}: {}", kept.collect::<Vec<_>>().join(", "))
                });
                table += &format!("{:<7} {name:<7} {width:>3} {}\n", math.name(), used.join("; "));
            }
        }
    }
    insta::assert_snapshot!(table);
}
