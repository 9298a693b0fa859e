//! Attention on PTX: one kernel, whatever masks and biases there are, at the borders of its tiles, and its
//! gradients in two; numbers are those of the kernel program in f64.

#[path = "../crates/dlc-ptx/tests/support/math.rs"]
mod math;
#[path = "../crates/dlc-ptx/tests/support/ptxas.rs"]
mod ptxas;

use dlc::pipeline::{self, EntryGraph};
use dlc::{Bindings, Compiler, OptLevel, Tensor};
use dlc_front::TrainOverrides;
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

/// As attention computes it when it is trained: what gradients need is kept, weights are dropped.
const KEPT: &str = "
    model M(q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E], drawn: f32[N, A, T, U])
      -> (y: f32[N, T, A, E], top: f32[N, A, T], share: f32[N, A, T]) {
        s[n, a, t, u] = sum[c] q[n, t, a, c] * k[n, u, a, c] / sqrt(C)
        m[n, a, t, u] = s[n, a, t, u] where u <= t else -inf
        top[n, a, t] = max[u] m[n, a, t, u]
        e[n, a, t, u] = exp(m[n, a, t, u] - top[n, a, t])
        total[n, a, t] = sum[u] e[n, a, t, u]
        share[n, a, t] = 1 / total[n, a, t]
        p[n, a, t, u] = e[n, a, t, u] * share[n, a, t] where drawn[n, a, t, u] > 0 else 0
        y[n, t, a, c] = sum[u] p[n, a, t, u] * v[n, u, a, c]
        (y, top, share)
    }";

/// Gradients of attention from what was kept: `CONDITION` is what a query sees.
const GRADIENT: &str = "
    model M(
        q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E], dy: f32[N, T, A, E],
        top: f32[N, A, T], share: f32[N, A, T], mean: f32[N, A, T]
    ) -> (dq: f32[N, T, A, C], dk: f32[N, U, A, C], dv: f32[N, U, A, E]) {
        s[n, a, t, u] = sum[c] q[n, t, a, c] * k[n, u, a, c] / sqrt(C)
        m[n, a, t, u] = s[n, a, t, u] where CONDITION else -inf
        p[n, a, t, u] = exp(m[n, a, t, u] - max(top[n, a, t], -1e30)) * share[n, a, t]
        dp[n, a, t, u] = sum[e] dy[n, t, a, e] * v[n, u, a, e]
        ds[n, a, t, u] = p[n, a, t, u] * (dp[n, a, t, u] - mean[n, a, t])
        dq[n, t, a, c] = sum[u] ds[n, a, t, u] * k[n, u, a, c]
        dk[n, u, a, c] = sum[t] ds[n, a, t, u] * q[n, t, a, c]
        dv[n, u, a, e] = sum[t] p[n, a, t, u] * dy[n, t, a, e]
        (dq, dk, dv)
    }";

/// The sums of the magnitudes that [`GRADIENT`] adds up.
const MAGNITUDES: &str = "
    model M(
        q: f32[N, T, A, C], k: f32[N, U, A, C], v: f32[N, U, A, E], dy: f32[N, T, A, E],
        top: f32[N, A, T], share: f32[N, A, T], mean: f32[N, A, T]
    ) -> (dq: f32[N, T, A, C], dk: f32[N, U, A, C], dv: f32[N, U, A, E]) {
        s[n, a, t, u] = sum[c] q[n, t, a, c] * k[n, u, a, c] / sqrt(C)
        m[n, a, t, u] = s[n, a, t, u] where CONDITION else -inf
        p[n, a, t, u] = exp(m[n, a, t, u] - max(top[n, a, t], -1e30)) * abs(share[n, a, t])
        dp[n, a, t, u] = sum[e] abs(dy[n, t, a, e]) * abs(v[n, u, a, e])
        ds[n, a, t, u] = p[n, a, t, u] * (dp[n, a, t, u] + abs(mean[n, a, t]))
        dq[n, t, a, c] = sum[u] ds[n, a, t, u] * abs(k[n, u, a, c])
        dk[n, u, a, c] = sum[t] ds[n, a, t, u] * abs(q[n, t, a, c])
        dv[n, u, a, e] = sum[t] p[n, a, t, u] * abs(dy[n, t, a, e])
        (dq, dk, dv)
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
    let called = Device::new(&code).call(0, &inputs);
    let (outputs, counters) = called.unwrap_or_else(|e| panic!("{sizes:?}, {math}: {e}"));
    let bound = bound(math, sizes);
    for (found, expected) in outputs.iter().zip(evaluated(&program, &inputs)) {
        let error = Array::from_tensor(found).max_difference(&expected);
        assert!(error <= bound, "{sizes:?}, {math}: off by {error:e}, of {bound:e}\n{schedule}");
    }
    *counters.last().unwrap()
}

fn evaluated(program: &Program, inputs: &[Tensor]) -> Vec<Array> {
    let arrays: Vec<Array> = inputs.iter().map(Array::from_tensor).collect();
    Machine::new(program).call("run", &arrays).unwrap()
}

/// How far a gradient may be off, of the sum of the magnitudes that it adds up: weights are off by what
/// scores are, and there are the products of one more contraction and the sums of another.
fn bound_of_gradient(math: Math, [_, _, queries, keys, depth, features]: Sizes) -> f64 {
    let most = (depth as f64).sqrt();
    let scores = math::relative(math, depth) * most + 4.0 * (most + 2.0) * 2f64.powi(-24);
    let sums = math::relative(math, features) + math::relative(math, queries.max(keys));
    2.0 * scores + sums + 8.0 * 2f64.powi(-24)
}

/// Gradients where weights were dropped.
fn dropped(gradient: &str) -> String {
    let kept = "where drawn[n, a, t, u] > 0 else 0";
    gradient
        .replace("mean: f32[N, A, T]", "mean: f32[N, A, T], drawn: f32[N, A, T, U]")
        .replace("v[n, u, a, e]\n", &format!("v[n, u, a, e] {kept}\n"))
        .replace("abs(v[n, u, a, e])\n", &format!("abs(v[n, u, a, e]) {kept}\n"))
        .replace("dv[n,", &format!("w[n, a, t, u] = p[n, a, t, u] {kept}\n        dv[n,"))
        .replace("sum[t] p[", "sum[t] w[")
}

/// Runs gradients interpreted and compares; gives what the launches did, those of one plane each.
fn check_gradient(condition: &str, sizes: Sizes, math: Math) -> Vec<Counters> {
    check_gradients([GRADIENT, MAGNITUDES].map(|s| s.replace("CONDITION", condition)), sizes, math)
}

fn check_gradients([source, magnitudes]: [String; 2], sizes: Sizes, math: Math) -> Vec<Counters> {
    let program = program(&source, sizes);
    let target = PtxTarget { flavour: Flavour::Sm80, math };
    let (schedule, code) = (target.schedule(&program), target.compile(&program).unwrap());
    assert!(schedule.contains("  plane: "), "{program}\n{schedule}");
    assert!(!schedule.contains("  contract "), "{schedule}");
    let inputs = inputs(&program);
    let called = Device::new(&code).call(0, &inputs);
    let (outputs, mut counters) = called.unwrap_or_else(|e| panic!("{sizes:?}, {math}: {e}"));
    let magnitudes = evaluated(&self::program(&magnitudes, sizes), &inputs);
    let expected = evaluated(&program, &inputs);
    let bound = bound_of_gradient(math, sizes);
    for ((found, expected), most) in outputs.iter().zip(&expected).zip(&magnitudes) {
        let found = Array::from_tensor(found);
        let all = found.data.iter().zip(&expected.data).zip(&most.data);
        for (at, ((x, e), m)) in all.enumerate() {
            let error = (x - e).abs();
            assert!(error <= bound * m, "{sizes:?}, {math}, at {at}: {x} for {e}\n{schedule}");
        }
    }
    counters.split_off(counters.len() - schedule.matches("  plane: ").count())
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
            check(GROUPED, [2, 4, t, t, 8, 8], math);
            check(SHARED, [2, 3, t, t, 8, 12], math);
        }
    }
}

/// What one token asks of a long room is shared out by keys, not done by one block.
#[test]
fn few_queries_of_many_keys_are_three_kernels() {
    let target = PtxTarget { flavour: Flavour::Sm80, math: Math::F32 };
    for (queries, keys, fused) in [(1, 1024, false), (4, 1024, true), (1, 256, true)] {
        let schedule = target.schedule(&program(GROUPED, [1, 8, queries, keys, 64, 64]));
        assert_eq!(schedule.contains("attention: "), fused, "{schedule}");
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

#[test]
fn what_gradients_need_is_kept_and_weights_are_dropped() {
    for math in Math::ALL {
        for [t, u] in [[5, 7], [65, 66], [9, 129]] {
            check(KEPT, [2, 2, t, u, 8, 12], math);
        }
    }
}

#[test]
fn gradients_at_the_borders_of_tiles() {
    for math in Math::ALL {
        for (condition, [t, u]) in [
            ("u <= t", [4, 5]),
            ("u >= 0", [64, 63]),
            ("u <= t", [65, 66]),
            ("u >= 0", [7, 130]),
            ("u <= t", [129, 6]),
        ] {
            check_gradient(condition, [1, 2, t, u, 8, 12], math);
        }
        for [c, e] in [[4, 5], [17, 32], [33, 64], [64, 64], [65, 100]] {
            check_gradient("u <= t", [2, 1, 6, 10, c, e], math);
        }
    }
}

#[test]
fn gradients_of_dropped_weights() {
    for math in Math::ALL {
        for [t, u] in [[5, 7], [65, 66], [9, 129]] {
            let both = [GRADIENT, MAGNITUDES].map(|s| dropped(&s.replace("CONDITION", "u <= t")));
            check_gradients(both, [2, 2, t, u, 8, 12], math);
        }
    }
}

/// Of 4 x 4 blocks, 10 are left, of queries and of keys.
#[test]
fn masks_skip_blocks_of_gradients() {
    let loaded = |condition| {
        let counters = check_gradient(condition, [1, 2, 256, 256, 4, 4], Math::F32);
        <[u64; 2]>::try_from(counters.iter().map(|c| c.loaded).collect::<Vec<_>>()).unwrap()
    };
    let (all, seen) = (loaded("u >= 0"), loaded("u <= t"));
    assert_eq!(seen.map(|n| n * 16), all.map(|n| n * 10));
}

/// Neither scores nor weights are in memory.
#[test]
fn what_stays_in_the_kernel_has_no_place() {
    let program = program(CAUSAL, [1, 4, 256, 256, 16, 16]);
    let code = PtxTarget { flavour: Flavour::Sm80, math: Math::F32 }.compile(&program).unwrap();
    let inside = code.buffers.iter().filter(|b| b.shape == [1, 4, 256, 1, 256]);
    assert_eq!(inside.map(|b| b.bytes).collect::<Vec<_>>(), [0, 0]);
    assert!(code.bytes < 4 * 4 * 256 * 256, "{} bytes", code.bytes);
}

/// A step of training neither, forward and backward, where it computes scores again.
#[test]
fn a_training_step_has_no_scores_in_memory() {
    let source = "
        model M(image: f32[N, 1, 28, 28]) -> f32[N, 1024, 64] {
            x = image |> flatten |> linear(64) |> as[N, 1, 64]
            y[n, t < 1024, d] = x[n, 0, d] * t
            y |> linear(64) |> self_attention(4, causal = yes, rate = 0.1)
        }
        train M {
            data mnist(\"data\") batch 2
            loss mean(M(image) * M(image))
            optim sgd(lr = 0.1)
            epochs 1
        }";
    let module = Compiler::new().compile_text("model.dl", source).unwrap();
    let training = module.unit().train("M", &TrainOverrides::default(), &Bindings::default());
    let training = training.unwrap_or_else(|_| panic!("the model can be trained"));
    let sizes = [(training.batch_dim.clone(), training.settings.batch)].into_iter().collect();
    let graph = training.step.bind(&sizes).unwrap();
    let step = EntryGraph { name: "train".into(), graph };
    let program = pipeline::lower(&[step], OptLevel::O2, &mut |_, _| {}).program;
    let target = PtxTarget { flavour: Flavour::Sm80, math: Math::F32 };
    let schedule = target.schedule(&program);
    assert_eq!(schedule.matches("  plane: ").count(), 2, "{program}\n{schedule}");
    let code = target.compile(&program).unwrap();
    let large = code.buffers.iter().filter(|b| b.shape.ends_with(&[1024, 1, 1024]));
    let places: Vec<u64> = large.map(|b| b.bytes).collect();
    assert!(!places.is_empty() && places.iter().all(|&bytes| bytes == 0), "{places:?}");
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
        let gradient = GRADIENT.replace("CONDITION", "u <= t");
        let sources =
            [(PLAIN, "plain"), (CAUSAL, "causal"), (BIASED, "biased"), (&gradient, "gradient")];
        for (source, name) in sources {
            for width in [64, 128] {
                let program = program(source, [4, 12, 1024, 1024, width, width]);
                let used = Flavour::ALL.map(|flavour| {
                    let code = PtxTarget { flavour, math }.compile(&program).unwrap();
                    let said = ptxas::assemble(&ptxas, &code.ptx(), flavour);
                    let said = said.unwrap_or_else(|said| panic!("{math} {name} {width}:\n{said}"));
                    let lines = said.lines().filter_map(|l| l.split_once("Used "));
                    let kept = lines.map(|(_, used)| {
                        let parts = used.split(", ");
                        let kept =
                            parts.filter(|p| ["registers", "smem"].iter().any(|w| p.ends_with(w)));
                        kept.collect::<Vec<_>>().join(", ")
                    });
                    format!("{flavour}: {}", kept.collect::<Vec<_>>().join(" and "))
                });
                table += &format!("{:<7} {name:<8} {width:>3} {}\n", math.name(), used.join("; "));
            }
        }
    }
    insta::assert_snapshot!(table);
}
