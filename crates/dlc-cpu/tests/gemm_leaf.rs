//! The register tile of contractions and what becomes of its sums: every compiler of it against a
//! plain loop, bit for bit, with memory that ends where a panel, tile or stream does. Code that this
//! machine cannot run is decoded and interpreted.

mod guard;
mod interpret;
mod tile;

use dlc_cpu::leaf::epilogue::{Epilogue, Spread};
use dlc_cpu::leaf::lanes::{Kind, Lanes, Op, Vector, math};
use dlc_cpu::leaf::{Ahead, AheadRight, GemmTile, Leaf, Left, MAX_LEVELS, MAX_RUN};
use dlc_cpu::level::Level;
use std::sync::Arc;
use tile::{Bench, Call, Compiled, Ending, Wanted, compare, interpreted, native};

fn check(tile: GemmTile) {
    let all = native(&Leaf::Gemm(tile, None), tile);
    for counts in counts(tile) {
        for tiles in 0..=2 {
            for accumulate in [false, true] {
                let call = Call { counts, tiles, accumulate, finish: false };
                compare(&Bench::new(tile, None, call), &all);
            }
        }
    }
}

/// Counts of loops worth trying.
fn counts(tile: GemmTile) -> Vec<[usize; MAX_LEVELS]> {
    let inner: Vec<usize> = match tile.run {
        Some(run) => vec![run.into()],
        None if tile.levels == 1 => (0..=9).chain([63]).collect(),
        None => vec![1, 6],
    };
    let outer = match tile.levels {
        1 => vec![[1, 1]],
        2 => vec![[1, 1], [3, 1]],
        _ => vec![[1, 1], [2, 3]],
    };
    let with = |n: usize| outer.iter().map(move |o| [n, o[0], o[1]]).collect::<Vec<_>>();
    inner.into_iter().flat_map(with).collect()
}

/// What tiles may ask for.
fn aheads(left: Left, levels: u8) -> Vec<Ahead> {
    let lefts = if left == Left::Packed { vec![0, 4096] } else { vec![0] };
    let mut rights = vec![AheadRight::Nothing, AheadRight::Step(4096)];
    if levels <= 2 {
        rights.push(AheadRight::Share(70));
    }
    let with = |left| rights.iter().map(move |&right| Ahead { left, right }).collect::<Vec<_>>();
    lefts.into_iter().flat_map(with).collect()
}

/// Tiles whose sums a level with 16 registers can hold.
fn tiles() -> impl Iterator<Item = (u8, u8)> {
    let columns = |rows: u8| (1..=8 * (14 / rows).min(12)).map(move |columns| (rows, columns));
    (1..=14).flat_map(columns)
}

/// Tiles of these heights with one, two, and as many vectors as `most` sums allow; the last one has
/// one lane, all but one, or all.
fn tiles_of(heights: impl IntoIterator<Item = u8>, lanes: u8, most: u8) -> Vec<(u8, u8)> {
    let columns = |v: u8| [lanes * v - (lanes - 1), lanes * v - 1, lanes * v];
    let of = |rows: u8| {
        let all = (most / rows).min(240 / lanes);
        let vectors = (1..=all).filter(move |&v| v <= 2 || v == all);
        vectors.flat_map(columns).map(move |columns| (rows, columns))
    };
    heights.into_iter().flat_map(of).collect()
}

#[test]
fn packed_tiles_of_every_size() {
    for (rows, columns) in tiles() {
        check(GemmTile::packed(rows, columns));
    }
}

#[test]
fn panels_read_where_they_lie() {
    for (rows, columns) in tiles().filter(|t| t.0 <= 6 && t.1 % 3 != 0) {
        check(GemmTile { left: Left::Strided, ..GemmTile::packed(rows, columns) });
    }
}

#[test]
fn nests_of_loops() {
    for (rows, columns) in [(1, 9), (5, 16), (6, 10), (4, 24)] {
        for left in [Left::Packed, Left::Strided] {
            for levels in 1..=MAX_LEVELS as u8 {
                for run in [None, Some(1), Some(3), Some(MAX_RUN)] {
                    for ahead in aheads(left, levels) {
                        let tile = GemmTile::packed(rows, columns);
                        check(GemmTile { left, levels, run, ahead, ..tile });
                    }
                }
            }
        }
    }
}

#[test]
fn code_for_other_machines() {
    for (rows, columns) in tiles_of(1..=28, 16, 30) {
        for (left, levels, run) in
            [(Left::Packed, 1, None), (Left::Strided, 1, None), (Left::Strided, 3, Some(2))]
        {
            let tile = GemmTile { left, levels, run, ..GemmTile::packed(rows, columns) };
            let leaf = Leaf::Gemm(tile, None);
            let all: Vec<Compiled> =
                interpreted(&leaf, tile, Level::X86_64V4).into_iter().collect();
            let counts = if levels == 1 { [[0, 1, 1], [7, 1, 1]] } else { [[2, 1, 1], [2, 2, 1]] };
            for (counts, accumulate) in [(counts[0], false), (counts[0], true), (counts[1], true)] {
                let call = Call { counts, tiles: 2, accumulate, finish: false };
                compare(&Bench::new(tile, None, call), &all);
            }
        }
    }
}

/// An epilogue in the making.
struct Draft {
    lanes: Lanes,
    sum: Vector,
    streams: Vec<Spread>,
    moves: Vec<bool>,
    stores: Vec<(u16, Vector)>,
}

impl Draft {
    fn new() -> Draft {
        let mut lanes = Lanes::default();
        let sum = lanes.add(Op::Carry(Kind::F32, 0));
        Draft { lanes, sum, streams: Vec::new(), moves: Vec::new(), stores: Vec::new() }
    }

    fn stream(&mut self, spread: Spread, moves: bool) -> u16 {
        self.streams.push(spread);
        self.moves.push(moves);
        self.streams.len() as u16 - 1
    }

    fn input(&mut self, spread: Spread, moves: bool) -> Vector {
        let stream = self.stream(spread, moves);
        self.lanes.add(Op::Input(Kind::F32, stream))
    }

    fn output(&mut self, value: Vector) {
        let stream = self.stream(Spread::Neighbours, true);
        self.stores.push((stream, value));
    }

    fn finish(self, wanted: Option<Wanted>) -> Ending {
        let Draft { lanes, streams, moves, stores, .. } = self;
        Ending { epilogue: Arc::new(Epilogue { lanes, streams, values: 0, stores }), moves, wanted }
    }
}

fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

/// `relu(sum + bias)`, the bias along the columns.
fn column_bias() -> Ending {
    let mut draft = Draft::new();
    let bias = draft.input(Spread::Neighbours, false);
    let (sum, zero) = (draft.lanes.sum(draft.sum, bias), draft.lanes.float(0.0));
    let value = draft.lanes.max(sum, zero);
    draft.output(value);
    draft.finish(Some(|sum, input| vec![relu(sum + input[0])]))
}

/// `(sum + bias) * scale + residual` with and without relu, the bias along the rows, one scale.
fn row_bias() -> Ending {
    let mut draft = Draft::new();
    let bias = draft.input(Spread::Still, true);
    let scale = draft.input(Spread::Still, false);
    let residual = draft.input(Spread::Neighbours, true);
    let l = &mut draft.lanes;
    let sum = l.sum(draft.sum, bias);
    let scaled = l.product(sum, scale);
    let before = l.sum(scaled, residual);
    let zero = l.float(0.0);
    let after = l.max(before, zero);
    draft.output(before);
    draft.output(after);
    draft.finish(Some(|sum, input| {
        let before = (sum + input[0]) * input[1] + input[2];
        vec![before, relu(before)]
    }))
}

/// Adds half of the sums to a stream; stores the sums, a constant and what was there before.
fn in_place() -> Ending {
    let mut draft = Draft::new();
    let old = draft.input(Spread::Neighbours, true);
    let half = draft.lanes.float(0.5);
    let scaled = draft.lanes.product(draft.sum, half);
    let new = draft.lanes.sum(scaled, old);
    draft.stores.push((0, new));
    let sum = draft.sum;
    [old, sum, half].into_iter().for_each(|value| draft.output(value));
    draft.finish(Some(|sum, input| vec![sum * 0.5 + input[0], input[0], sum, 0.5]))
}

/// Code that wants many registers.
fn many_values() -> Ending {
    let mut draft = Draft::new();
    let inputs = [Spread::Neighbours, Spread::Still].map(|spread| draft.input(spread, true));
    let l = &mut draft.lanes;
    let x = l.sum(draft.sum, inputs[0]);
    let (erf, tanh) = (math::erf(l, x), math::tanh(l, inputs[1]));
    let product = l.product(erf, tanh);
    let value = l.fma(product, x, draft.sum);
    draft.output(value);
    draft.output(erf);
    draft.finish(None)
}

fn endings() -> [Ending; 4] {
    [column_bias(), row_bias(), in_place(), many_values()]
}

/// Calls with an epilogue that are worth trying.
fn finishing_calls() -> impl Iterator<Item = Call> {
    let call =
        |(n, tiles, accumulate, finish)| Call { counts: [n, 1, 1], tiles, accumulate, finish };
    [(3, 1, false, true), (5, 2, true, true), (2, 2, true, false), (4, 0, false, true)]
        .into_iter()
        .map(call)
}

#[test]
fn epilogues_of_every_tile() {
    for ending in endings() {
        for (rows, columns) in tiles_of([1, 3, 6, 12], 8, 14) {
            let tile = GemmTile::packed(rows, columns);
            let all = native(&Leaf::Gemm(tile, Some(ending.epilogue.clone())), tile);
            for call in finishing_calls() {
                compare(&Bench::new(tile, Some(&ending), call), &all);
            }
        }
    }
}

#[test]
fn epilogues_for_other_machines() {
    for ending in endings() {
        for (rows, columns) in tiles_of([1, 6, 14], 16, 30) {
            let tile = GemmTile::packed(rows, columns);
            let leaf = Leaf::Gemm(tile, Some(ending.epilogue.clone()));
            let mut all = native(&leaf, tile);
            all.truncate(1);
            all.extend(interpreted(&leaf, tile, Level::X86_64V3));
            all.extend(interpreted(&leaf, tile, Level::X86_64V4));
            for call in finishing_calls().take(2) {
                compare(&Bench::new(tile, Some(&ending), call), &all);
            }
        }
    }
}
