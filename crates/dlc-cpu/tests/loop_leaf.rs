//! Loops as assembled, against their portable twins, at every count around the width of vectors,
//! with buffers that touch unreadable pages on both sides. Code that this machine cannot run is
//! decoded and interpreted.

mod guard;
mod interpret;
mod lines;

use dlc_cpu::jit::{compile_leaf, compile_portable_leaf};
use dlc_cpu::leaf::Leaf;
use dlc_cpu::leaf::lanes::{Compare, Kind, Lanes, Op, Vector, ops};
use dlc_cpu::leaf::loops::{Fold, Loop, NEAR_ADDRESSES, Stream};
use dlc_cpu::level::Level;
use dlc_kernel::{BinaryOp, DType, FoldOp, UnaryOp};
use guard::{Code, Guarded, SIDES, Side};
use interpret::Callable;
use lines::{check_columns, check_lines};
use std::sync::Arc;

/// A loop in the making.
#[derive(Default)]
struct Draft {
    lanes: Lanes,
    streams: Vec<Stream>,
    /// How many bytes streams of one address are apart; 0 if each has its own.
    apart: i32,
    uniforms: u16,
    stores: Vec<(u16, Vector)>,
    folds: Vec<Fold>,
}

impl Draft {
    fn input(&mut self, dtype: DType) -> Vector {
        self.add_stream(dtype);
        self.lanes.add(Op::Input(ops::kind(dtype), self.streams.len() as u16 - 1))
    }

    fn add_stream(&mut self, dtype: DType) {
        let number = self.streams.len() as u16;
        self.streams.push(match self.apart {
            0 => Stream { dtype, address: number, offset: 0, stride: 1 },
            apart => Stream { dtype, address: 0, offset: apart * i32::from(number), stride: 1 },
        });
    }

    fn uniform(&mut self, kind: Kind) -> Vector {
        self.uniforms += 1;
        self.lanes.add(Op::Uniform(kind, self.uniforms - 1))
    }

    fn output(&mut self, dtype: DType, value: Vector) {
        self.add_stream(dtype);
        self.stores.push((self.streams.len() as u16 - 1, value));
    }

    fn fold(&mut self, op: FoldOp, dtype: DType, value: Vector) {
        let carry = self.lanes.add(Op::Carry(ops::kind(dtype), self.folds.len() as u16));
        let next = ops::merge(&mut self.lanes, op, dtype, carry, value);
        self.folds.push(Fold { op, dtype, next });
    }

    fn finish(self, unroll: u8) -> Loop {
        let Draft { lanes, streams, uniforms, stores, folds, .. } = self;
        let ahead = Vec::new();
        Loop {
            lanes,
            streams,
            uniforms,
            stores,
            folds,
            unroll,
            ahead,
            streaming: false,
            repeats: false,
            lines: None,
        }
    }
}

/// What a run of a loop leaves behind: the bytes of every stream, the bits of every fold.
#[derive(Debug, PartialEq)]
struct Outcome {
    streams: Vec<Vec<u8>>,
    folds: Vec<u32>,
}

/// Runs a loop on streams that touch unreadable memory; uniform `k` has the bits `uniforms[k]`.
fn run(code: &Callable, leaf: &Loop, streams: &[Vec<u8>], uniforms: &[u32], side: Side) -> Outcome {
    let count = streams.first().map_or(0, |s| s.len() / leaf.streams[0].dtype.bytes());
    let place = |k: usize| {
        leaf.streams[k].offset as usize..leaf.streams[k].offset as usize + streams[k].len()
    };
    let together = |address: usize| {
        let mut bytes = Vec::new();
        let own = (0..streams.len()).filter(|&k| usize::from(leaf.streams[k].address) == address);
        for k in own.filter(|&k| !streams[k].is_empty()) {
            bytes.resize(bytes.len().max(place(k).end), 0);
            bytes[place(k)].copy_from_slice(&streams[k]);
        }
        Guarded::from_bytes(&bytes, side)
    };
    let memory: Vec<Guarded> = (0..leaf.addresses()).map(together).collect();
    let mut args = vec![0u8; leaf.args_bytes() as usize];
    args[..8].copy_from_slice(&(count as i64).to_le_bytes());
    for (k, streams) in memory.iter().enumerate() {
        let at = leaf.address_at(k) as usize;
        args[at..at + 8].copy_from_slice(&(streams.pointer() as u64).to_le_bytes());
    }
    for (k, uniform) in uniforms.iter().enumerate() {
        let at = leaf.uniform_at(k) as usize;
        args[at..at + 4].copy_from_slice(&uniform.to_le_bytes());
    }
    code.call(args.as_mut_ptr());
    let fold = |k| {
        let at = leaf.fold_at(k) as usize;
        u32::from_le_bytes(args[at..at + 4].try_into().unwrap())
    };
    let folds = (0..leaf.folds.len()).map(fold).collect();
    let after: Vec<Vec<u8>> = memory.iter().map(Guarded::read_bytes).collect();
    let stream = |k: usize| match streams[k].is_empty() {
        true => Vec::new(),
        false => after[usize::from(leaf.streams[k].address)][place(k)].to_vec(),
    };
    Outcome { streams: (0..streams.len()).map(stream).collect(), folds }
}

/// Elements of every stream: all kinds of numbers, small integers, bytes, truth values.
fn elements(leaf: &Loop, count: usize) -> Vec<Vec<u8>> {
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -3e38, 1e10];
    let number = |i: usize, k: usize| match (i * 7 + k * 3) % 11 {
        0 => special[(i / 3 + k) % special.len()],
        _ => ((i * 37 + k * 11) % 101) as f32 / 7.0 - 7.0,
    };
    let stream = |(k, stream): (usize, &Stream)| -> Vec<u8> {
        (0..count)
            .flat_map(|i| match stream.dtype {
                DType::F32 => number(i, k).to_le_bytes().to_vec(),
                DType::I32 => ((i as i32 * 7919 + k as i32) % 1000 - 500).to_le_bytes().to_vec(),
                DType::Bool => vec![u8::from((i + k) % 3 == 0)],
                _ => vec![(i * 29 + k) as u8],
            })
            .collect()
    };
    leaf.streams.iter().enumerate().map(stream).collect()
}

/// A leaf as one compiler made it.
struct Implementation {
    name: String,
    code: Callable,
    /// The implementation that it agrees with, bit for bit; itself if its steps round as no other's.
    twin: usize,
}

/// The implementations of a leaf; the first is the portable one of the best level.
fn implementations(leaf: &Loop) -> Vec<Implementation> {
    let fuses = has_fma(leaf);
    let leaf = Leaf::Loop(Arc::new(leaf.clone()));
    let mut all = Vec::new();
    let mut add = |name: String, code, twin| all.push(Implementation { name, code, twin });
    let best = Level::detect().unwrap();
    let lowest = [Level::X86_64V2].into_iter().filter(|&l| l < best && l.runs_here());
    for (k, level) in [best].into_iter().chain(lowest).enumerate() {
        let code = Code::new(&compile_portable_leaf(level, &leaf).unwrap().bytes);
        let twin = if fuses && !level.has_fma() { k } else { 0 };
        add(format!("portable {}", level.name()), Callable::Native(code), twin);
    }
    for level in [Level::X86_64V3, Level::X86_64V4] {
        let bytes = compile_leaf(level, &leaf).unwrap().bytes;
        if level.runs_here() {
            add(level.name().into(), Callable::Native(Code::new(&bytes)), 0);
        }
        add(format!("{}, interpreted", level.name()), Callable::Interpreted(bytes), 0);
    }
    all
}

/// Whether a level without fused multiply-adds rounds differently.
fn has_fma(leaf: &Loop) -> bool {
    let fma = |v| matches!(leaf.lanes.op(v), Op::Fma(..));
    leaf.lanes.reachable(&leaf.roots()).into_iter().any(fma)
}

/// Calls each implementation on both sides, after the twin's outcome at the start.
fn on_both_sides<T>(
    all: &[Implementation],
    run: impl Fn(&Callable, Side) -> T,
    compare: impl Fn(&str, T, &T),
) {
    let mut wanted: Vec<Option<T>> = all.iter().map(|_| None).collect();
    for Implementation { name, code, twin } in all {
        for side in SIDES {
            let found = run(code, side);
            let start = || run(&all[*twin].code, Side::Start);
            compare(&format!("{name}, {side:?}"), found, wanted[*twin].get_or_insert_with(start));
        }
    }
}

/// NaN have no bits of their own.
fn same(a: u32, b: u32, dtype: DType) -> bool {
    let nan = |bits| dtype == DType::F32 && f32::from_bits(bits).is_nan();
    a == b || (nan(a) && nan(b))
}

fn words(bytes: &[u8], dtype: DType) -> Vec<u32> {
    let width = dtype.bytes();
    let word = |b: &[u8]| b.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b));
    bytes.chunks(width).map(word).collect()
}

/// Compares with the portable twin, bit for bit; also where elements may be computed twice.
fn check(name: &str, leaf: &Loop, uniforms: &[u32]) {
    check_once(name, leaf, uniforms);
    if may_repeat(leaf) {
        check_once(name, &Loop { repeats: true, ..leaf.clone() }, uniforms);
    }
}

/// Whether nothing that is stored is loaded, and no place of an element matters.
fn may_repeat(leaf: &Loop) -> bool {
    let in_place = leaf.stores.iter().any(|s| leaf.loads(s.0.into()));
    leaf.folds.is_empty() && !leaf.has_random() && !in_place
}

fn check_once(name: &str, leaf: &Loop, uniforms: &[u32]) {
    let all = implementations(leaf);
    for count in (0..=70).chain([127, 128, 129, 512]) {
        let streams = elements(leaf, count);
        let run = |code: &Callable, side| run(code, leaf, &streams, uniforms, side);
        on_both_sides(&all, run, |implementation, found, wanted| {
            let context = format!("{name}, {implementation}, {count}\n{leaf}");
            compare(&found, wanted, leaf, &context);
        });
    }
}

fn compare(found: &Outcome, wanted: &Outcome, leaf: &Loop, context: &str) {
    for ((f, w), stream) in found.streams.iter().zip(&wanted.streams).zip(&leaf.streams) {
        let dtype = stream.dtype;
        let (f, w) = (words(f, dtype), words(w, dtype));
        for (i, (&f, &w)) in f.iter().zip(&w).enumerate() {
            assert!(same(f, w, dtype), "{context} at {i}: {f:x}, not {w:x}");
        }
    }
    for (fold, (&f, &w)) in leaf.folds.iter().zip(found.folds.iter().zip(&wanted.folds)) {
        assert!(same(f, w, fold.dtype), "{context}: fold {f:x}, not {w:x}");
    }
}

#[test]
fn operations_on_one_number() {
    for &op in UnaryOp::ALL.iter().filter(|op| op.takes(DType::F32)) {
        let mut draft = Draft::default();
        let x = draft.input(DType::F32);
        let y = ops::unary(&mut draft.lanes, op, DType::F32, x);
        draft.output(DType::F32, y);
        check(op.name(), &draft.finish(1), &[]);
    }
}

#[test]
fn operations_on_two_values() {
    for dtype in [DType::F32, DType::I32, DType::U8, DType::Bool] {
        for &op in BinaryOp::ALL.iter().filter(|op| op.takes(dtype) && ops::has_binary(**op, dtype))
        {
            let mut draft = Draft::default();
            let (x, y) = (draft.input(dtype), draft.input(dtype));
            let z = ops::binary(&mut draft.lanes, op, dtype, x, y);
            draft.output(if op.is_comparison() { DType::Bool } else { dtype }, z);
            check(&format!("{op} {dtype}"), &draft.finish(1), &[]);
        }
    }
}

#[test]
fn conversions() {
    let types = [DType::F32, DType::I32, DType::U8, DType::Bool];
    for from in types {
        for to in types.into_iter().filter(|&to| to != from) {
            let mut draft = Draft::default();
            let x = draft.input(from);
            let y = ops::cast(&mut draft.lanes, from, to, x);
            draft.output(to, y);
            check(&format!("{from} to {to}"), &draft.finish(1), &[]);
        }
    }
}

#[test]
fn folds_in_any_order() {
    let all = [FoldOp::Sum, FoldOp::Max, FoldOp::Min, FoldOp::Prod];
    let integers = all.map(|op| (DType::I32, op));
    for (dtype, op) in integers.into_iter().chain([(DType::F32, all[1]), (DType::F32, all[2])]) {
        for unroll in [1, 2, 3, 4] {
            let mut draft = Draft::default();
            let x = draft.input(dtype);
            draft.fold(op, dtype, x);
            check(&format!("{op} {dtype} x{unroll}"), &draft.finish(unroll), &[]);
        }
    }
}

/// Sums and products of numbers, against f64: each of the roundings, whatever their order, is off
/// by at most half a unit in the last place of a partial result.
#[test]
fn sums_and_products_of_numbers() {
    for (op, unroll) in [FoldOp::Sum, FoldOp::Prod].into_iter().flat_map(|op| [(op, 1), (op, 4)]) {
        let mut draft = Draft::default();
        let x = draft.input(DType::F32);
        draft.fold(op, DType::F32, x);
        let leaf = draft.finish(unroll);
        let all = implementations(&leaf);
        for count in 0..=70 {
            let values: Vec<f32> =
                (0..count).map(|i| 0.6 + ((i * 37) % 101) as f32 / 120.0).collect();
            let wide = values.iter().map(|&v| f64::from(v));
            let truth = if op == FoldOp::Sum { wide.sum::<f64>() } else { wide.product() };
            let bound = count as f64 * 2f64.powi(-24) * truth;
            let bytes = vec![values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()];
            for Implementation { name, code, .. } in &all {
                let found = f32::from_bits(run(code, &leaf, &bytes, &[], Side::End).folds[0]);
                let error = (f64::from(found) - truth).abs();
                assert!(error <= bound, "{name}: {op} of {count}: {found}, not {truth}");
            }
        }
    }
}

/// Stores that pass by the caches, to aligned streams and others; loads of whole words and bytes.
#[test]
fn streaming_stores() {
    let mut draft = Draft::default();
    let (x, y, b) = (draft.input(DType::F32), draft.input(DType::F32), draft.input(DType::Bool));
    let (sum, product) = (draft.lanes.sum(x, y), draft.lanes.product(x, y));
    let picked = draft.lanes.select(b, sum, y);
    draft.output(DType::F32, picked);
    draft.output(DType::F32, product);
    draft.fold(FoldOp::Max, DType::F32, sum);
    let leaf = Loop { streaming: true, ahead: vec![(0, 4096), (2, -64)], ..draft.finish(4) };
    check("streaming", &leaf, &[]);
}

/// Random numbers of neighbours, of which the first is a multiple of four or anything.
#[test]
fn random_numbers() {
    for (anywhere, first) in [(false, 1 << 20), (true, 1 << 20), (true, 41), (true, 43)] {
        let mut draft = Draft::default();
        let [seed, step, start] = [(); 3].map(|()| draft.uniform(Kind::I32));
        let x = draft.input(DType::F32);
        let l = &mut draft.lanes;
        let index = l.add(Op::Index);
        let element = l.sum(start, index);
        let number = ops::uniform(l, 0x1234_5678_9abc_def0, [seed, step, element], anywhere);
        let kept = l.compare(Compare::Lt, x, number);
        let result = l.select(kept, number, x);
        draft.output(DType::F32, result);
        draft.fold(FoldOp::Max, DType::F32, number);
        check(&format!("random from {first}"), &draft.finish(2), &[77, 3, first]);
    }
}

/// Several streams, uniforms, constants, the index, a fold and a store at once.
#[test]
fn everything_together() {
    for unroll in [1, 2, 3, 4] {
        let mut draft = Draft::default();
        let (x, y, b) =
            (draft.input(DType::F32), draft.input(DType::F32), draft.input(DType::Bool));
        let (s, t) = (draft.uniform(Kind::F32), draft.uniform(Kind::Mask));
        let l = &mut draft.lanes;
        let index = l.add(Op::Index);
        let index = ops::cast(l, DType::I32, DType::F32, index);
        let exp = ops::unary(l, UnaryOp::Exp, DType::F32, x);
        let sum = l.fma(exp, s, y);
        let picked = l.select(b, sum, index);
        let picked = l.select(t, picked, y);
        draft.fold(FoldOp::Max, DType::F32, picked);
        draft.fold(FoldOp::Min, DType::F32, index);
        draft.output(DType::F32, picked);
        draft.output(DType::Bool, b);
        check("together", &draft.finish(unroll), &[1.5f32.to_bits(), u32::MAX]);
    }
}

/// Many streams by one address, stored while other values are still computed.
#[test]
fn streams_share_an_address() {
    let mut draft = Draft { apart: 4 * 520, ..Draft::default() };
    let inputs: Vec<Vector> = (0..20).map(|_| draft.input(DType::F32)).collect();
    for shift in 0..20 {
        let turned = inputs.iter().cycle().skip(shift).take(20).copied();
        let sum = turned.reduce(|a, b| draft.lanes.fma(a, inputs[shift], b)).unwrap();
        draft.output(DType::F32, sum);
    }
    check("one address", &draft.finish(1), &[]);
}

/// More values at once than there are registers.
#[test]
fn addresses_beyond_the_registers() {
    for unroll in [1, 2] {
        let mut draft = Draft::default();
        let inputs: Vec<Vector> = (0..7).map(|_| draft.input(DType::F32)).collect();
        for (k, &x) in inputs.iter().enumerate().skip(1) {
            let sum = ops::binary(&mut draft.lanes, BinaryOp::Add, DType::F32, inputs[k - 1], x);
            draft.output(DType::F32, sum);
        }
        let mut leaf = draft.finish(unroll);
        leaf.ahead = vec![(6, 256)];
        assert!(leaf.addresses() > NEAR_ADDRESSES);
        check("far addresses", &leaf, &[]);
    }
}

#[test]
fn values_go_to_the_stack() {
    let mut draft = Draft::default();
    let inputs: Vec<Vector> = (0..6).map(|_| draft.input(DType::F32)).collect();
    let l = &mut draft.lanes;
    let products: Vec<Vector> = (0..36).map(|i| l.product(inputs[i / 6], inputs[i % 6])).collect();
    let forwards = products.iter().copied().reduce(|a, b| l.difference(a, b)).unwrap();
    let backwards = products.iter().rev().copied().reduce(|a, b| l.difference(a, b)).unwrap();
    let both = l.max(forwards, backwards);
    draft.output(DType::F32, both);
    draft.fold(FoldOp::Min, DType::F32, both);
    check("many values", &draft.finish(1), &[]);
}

/// A window over rows one below the other, whole steps apart: rows that are computed together share what
/// they load, and nothing beyond the window is touched.
#[test]
fn windows_go_down_lines() {
    for (size, step) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (2, 2)] {
        check_lines(&format!("window {size} by {step}"), size, step, |_| {});
    }
}

/// Each column has states of its own, which stay in registers down all lines.
#[test]
fn folds_go_down_columns() {
    for (folds, unroll) in [(1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (3, 1), (3, 2)] {
        check_columns(folds, unroll, false);
        check_columns(folds, unroll, true);
    }
}

/// Lines of which each is computed alone: folds go on through all of them, tails of bytes and of stores to
/// every second element go through the stack.
#[test]
fn folds_and_bytes_go_down_lines() {
    check_lines("folds", 2, 1, |draft| {
        let x = draft.lanes.add(Op::Input(Kind::F32, 1));
        draft.fold(FoldOp::Max, DType::F32, x);
        draft.fold(FoldOp::Min, DType::F32, x);
    });
    check_lines("strided stores", 2, 1, |draft| draft.streams[4].stride = 2);
    check_lines("bytes", 2, 1, |draft| {
        let x = draft.lanes.add(Op::Input(Kind::F32, 1));
        let zero = draft.lanes.float(0.0);
        let negative = ops::binary(&mut draft.lanes, BinaryOp::Lt, DType::F32, x, zero);
        draft.streams.push(Stream { dtype: DType::Bool, address: 2, offset: 0, stride: 1 });
        draft.stores.push((draft.streams.len() as u16 - 1, negative));
    });
}
