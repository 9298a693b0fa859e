//! What models remember from call to call: several sequences in one memory, each at a position of its
//! own, say what each says when all of it is computed anew.

use dlc::{Compiler, Module, Network};
use dlc_kernel::{OptLevel, Tensor};

/// Every way to know positions: learned, sines, rotations, and biases that grow with distance.
const SOURCE: &str = "
  block Body(room = 0, at = 0)(ids: i32[N, T]) -> [N, T, 11] {
    let U = room if room > 0 else T
    far = alibi(4, T, U, at)
    ids
      |> embedding(11, 16) |> learned_positions(9, room, at) |> sine_positions(at = at)
      |> gpt_block(2, room, at, rate = 0.0)
      |> llama_block(4, 24, 2, room, at)
      |> grouped_attention(4, 2, bias = far, rotated = no, room = room, at = at)
      |> linear(11)
  }
  model Whole(ids: i32[N, T]) -> f32[N, T, 11] { ids |> Body }
  model Many(ids: i32[N, T], at: i32[N]) -> f32[N, T, 11] { ids |> Body(9, at) }
  model One(ids: i32[N, T], at: i32[]) -> f32[N, T, 11] { ids |> Body(9, at) }
";

const SEQUENCES: [&[i32]; 3] = [&[3, 1, 4, 1, 5, 9, 2], &[2, 7, 1], &[10, 0, 8, 6, 5, 3, 4, 7, 0]];

fn network(module: &Module, model: &str, n: i64, t: i64) -> Network {
    let model = module.model(model).unwrap();
    model.bind([("N", n), ("T", t)]).unwrap().initialize(7).unwrap()
}

fn floats(network: &Network, inputs: &[(&str, &Tensor)]) -> Vec<f32> {
    let outputs = network.run(inputs).unwrap();
    outputs.get("output").unwrap().as_f32().unwrap().to_vec()
}

/// The scores at every position, all of a sequence at once.
fn anew(module: &Module, ids: &[i32]) -> Vec<f32> {
    let whole = network(module, "Whole", 1, ids.len() as i64);
    floats(&whole, &[("ids", &Tensor::i32([1, ids.len()], ids.to_vec()))])
}

/// Sums of up to 24 products of numbers below 10, in five layers: some 200 roundings.
#[track_caller]
fn assert_near(got: &[f32], wanted: &[f32]) {
    let bound = 200.0 * f32::EPSILON / 2.0 * 10.0;
    for (a, b) in got.iter().zip(wanted) {
        assert!((a - b).abs() <= bound, "{a} and {b} are more than {bound} apart");
    }
}

#[test]
fn sequences_of_a_batch_are_at_positions_of_their_own() {
    for threads in [1, 2] {
        let module = Compiler::new().threads(threads).compile_text("many.dl", SOURCE).unwrap();
        let wanted = SEQUENCES.map(|ids| anew(&module, ids));
        let many = network(&module, "Many", 3, 1);
        // One begins two calls after another; who is not there yet or any more waits at its place.
        for call in 0..13 {
            let place =
                [0, 1, 2].map(|k| (call - 2 * k as i32).clamp(0, SEQUENCES[k].len() as i32 - 1));
            let ids = [0, 1, 2].map(|k| SEQUENCES[k][place[k] as usize]);
            let ids = Tensor::i32([3, 1], ids.to_vec());
            let scores = floats(&many, &[("ids", &ids), ("at", &Tensor::i32([3], place.to_vec()))]);
            for k in 0..3 {
                let at = 11 * place[k] as usize;
                assert_near(&scores[11 * k..11 * (k + 1)], &wanted[k][at..at + 11]);
            }
        }
    }
}

#[test]
fn parts_may_be_long_and_begin_anew() {
    let module = Compiler::new().threads(1).compile_text("many.dl", SOURCE).unwrap();
    let one = network(&module, "One", 1, 3);
    for ids in [SEQUENCES[2], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        let wanted = anew(&module, ids);
        for at in [0, 3, 6] {
            let part = Tensor::i32([1, 3], ids[at..at + 3].to_vec());
            let scores = floats(&one, &[("ids", &part), ("at", &Tensor::i32([], vec![at as i32]))]);
            assert_near(&scores, &wanted[11 * at..11 * (at + 3)]);
        }
    }
}

/// What a room has beyond a position does not matter.
#[test]
fn nothing_beyond_a_position_is_read() {
    let text = "
      model M(x: f32[2, 1, 16], at: i32[2]) -> f32[2, 1, 16] {
        x |> self_attention(2, causal = yes, room = 300, at = at)
      }";
    let module = Compiler::new().threads(1).compile_text("m.dl", text).unwrap();
    let network = module.model("M").unwrap().bind([]).unwrap().initialize(7).unwrap();
    let x = Tensor::f32([2, 1, 16], (0..32).map(|k| (k as f32).sin()).collect());
    let states =
        ["remember_heads1", "remember_heads2"].map(|s| format!("self_attention1.{s}.rows"));
    for at in [[0, 299], [1, 0], [63, 64], [65, 127], [128, 298]] {
        let answers = [None, Some(1e30)].map(|beyond| {
            for state in &states {
                // [2, 2 heads, 300, 8]
                let number = |i: usize| match i / 8 % 300 > at[i / 4800] as usize {
                    true => beyond.unwrap_or(0.0),
                    false => (i as f32).cos(),
                };
                let rows = (0..9600).map(number).collect();
                network.write(state, &Tensor::f32([2, 2, 300, 8], rows)).unwrap();
            }
            floats(&network, &[("x", &x), ("at", &Tensor::i32([2], at.to_vec()))])
        });
        assert!(answers[0].iter().all(|x| x.is_finite()));
        assert_eq!(answers[0], answers[1], "{at:?}");
    }
}

/// Sequences without steps, and without sequences.
#[test]
fn there_may_be_nothing_to_attend() {
    let module = Compiler::new().threads(1).compile_text("many.dl", SOURCE).unwrap();
    for (n, t) in [(2, 0), (0, 1), (0, 0)] {
        let many = network(&module, "Many", n, t);
        let (ids, at) = (Tensor::i32([n as usize, t as usize], vec![]), vec![3; n as usize]);
        let at = Tensor::i32([n as usize], at);
        assert!(floats(&many, &[("ids", &ids), ("at", &at)]).is_empty());
    }
}

/// A place outside the room fails the call, and the memory is as before: of all sequences.
#[test]
fn a_bad_position_leaves_the_memory() {
    let module = Compiler::new().threads(1).compile_text("many.dl", SOURCE).unwrap();
    let many = network(&module, "Many", 3, 1);
    let call = |ids: [i32; 3], at: [i32; 3]| {
        let (ids, at) = (Tensor::i32([3, 1], ids.to_vec()), Tensor::i32([3], at.to_vec()));
        many.run(&[("ids", &ids), ("at", &at)])
    };
    let state = "Body1.gpt_block1.encoder_layer1.self_attn.remember_heads1.rows";
    call([3, 2, 10], [0, 0, 0]).unwrap();
    let before = many.read(state).unwrap();
    for at in [[1, 9, 1], [1, -1, 1]] {
        let error = call([1, 7, 0], at).unwrap_err().to_string();
        assert!(error.contains("many.dl:"), "{error}");
        assert_eq!(many.read(state).unwrap().as_f32(), before.as_f32());
    }
    call([1, 7, 0], [1, 1, 1]).unwrap();
    assert_ne!(many.read(state).unwrap().as_f32(), before.as_f32());
}

/// No kernel of a call touches all of the room but those that read it.
#[test]
fn a_call_writes_what_is_new() {
    let module = Compiler::new().threads(1).compile_text("many.dl", SOURCE).unwrap();
    let many = network(&module, "Many", 3, 1);
    let program = many.executable().program();
    let entry = program.entry("run").unwrap();
    let room = |id: &dlc_kernel::BufferId| program.buffer(*id).name.ends_with(".rows");
    let mut written = 0;
    for kernel in entry.kernels.iter().filter(|k| k.writes().iter().any(room)) {
        let [part] = &kernel.parts()[..] else { panic!("{} has several parts", kernel.name) };
        let points: i64 = part.axes.iter().map(|n| n.as_const().unwrap()).product();
        assert!(points <= 3 * 16, "{} writes {points} elements", kernel.name);
        written += 1;
    }
    assert_eq!(written, 6);
}

/// A memory that a loop carries, written at each step and where an input says.
const LOOP: &str = "
  model Carried(x: f32[2, 5, 3], at: i32[2]) -> (m: f32[2, 6, 3], g: f32[2, 5, 3]) {
    scan t in 5 with m = zeros[2, 6, 3] {
      row = x[:, t] + sum[1](m)
      m = overwrite[1](m, t, row |> unsqueeze[1])
      m = overwrite[1](m, at, 0.5 * row |> unsqueeze[1])
    }
    m, grad(sum(m * m), wrt = x)
  }
";

/// The same in f64: `m` of one sequence.
fn carried(x: &[f64], at: usize) -> [f64; 18] {
    let mut m = [0.0; 18];
    for t in 0..5 {
        let row = [0, 1, 2].map(|d| x[3 * t + d] + (0..6).map(|u| m[3 * u + d]).sum::<f64>());
        m[3 * t..3 * t + 3].copy_from_slice(&row);
        m[3 * at..3 * at + 3].copy_from_slice(&row.map(|v| 0.5 * v));
    }
    m
}

#[test]
fn a_loop_overwrites_what_it_carries() {
    let (x, at): (Vec<f32>, [usize; 2]) = ((0..30).map(|k| 0.01 * k as f32).collect(), [5, 2]);
    let exact: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    let loss = |x: &[f64], at| carried(x, at).iter().map(|v| v * v).sum::<f64>();
    let (mut m, mut g) = (Vec::new(), Vec::new());
    for (x, at) in exact.chunks(15).zip(at) {
        m.extend(carried(x, at));
        for k in 0..15 {
            let moved =
                |by: f64| x.iter().enumerate().map(move |(i, v)| if i == k { v + by } else { *v });
            let [up, down] = [1e-6, -1e-6].map(|by| loss(&moved(by).collect::<Vec<_>>(), at));
            g.push((up - down) / 2e-6);
        }
    }
    let inputs = [Tensor::f32([2, 5, 3], x), Tensor::i32([2], at.map(|a| a as i32).to_vec())];
    for level in [OptLevel::O0, OptLevel::O2] {
        let module =
            Compiler::new().threads(1).opt_level(level).compile_text("m.dl", LOOP).unwrap();
        let network = module.model("Carried").unwrap().bind([]).unwrap();
        let outputs = network.run(&[("x", &inputs[0]), ("at", &inputs[1])]).unwrap();
        for (name, wanted) in [("m", &m), ("g", &g)] {
            let got = outputs.get(name).unwrap().as_f32().unwrap();
            let scale = wanted.iter().fold(0.0f64, |a, b| a.max(b.abs()));
            // Some 30 roundings a step; differences are exact to 1e-9.
            for (a, b) in got.iter().zip(wanted) {
                assert!((f64::from(*a) - b).abs() <= 150.0 * 2f64.powi(-24) * scale, "{a} {b}");
            }
        }
    }
}
