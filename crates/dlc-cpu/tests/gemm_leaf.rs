//! The register tile of contractions and what becomes of its sums: every compiler of it against a
//! plain loop, bit for bit, with memory that ends where a panel, tile or stream does. Code that this
//! machine cannot run is decoded and interpreted.

mod guard;
mod interpret;
mod tile;

use dlc_cpu::leaf::epilogue::{Epilogue, Spread};
use dlc_cpu::leaf::lanes::{Compare, Kind, Lanes, Op, Unary, Vector, math};
use dlc_cpu::leaf::wide::{Width, gemm};
use dlc_cpu::leaf::{Ahead, AheadRight, GemmTile, Leaf, Left, MAX_LEVELS, MAX_RUN};
use dlc_cpu::level::Level;
use std::sync::Arc;
use tile::{Bench, Call, Ending, Wanted, compare, interpreted, native};

fn check(tile: GemmTile) {
    check_counts(tile, &counts(tile));
}

fn check_counts(tile: GemmTile, counts: &[[usize; MAX_LEVELS]]) {
    let all = native(&Leaf::Gemm(tile, None), tile);
    for &counts in counts {
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

/// Tiles of these heights with one, two, and as many vectors as a level's registers hold sums; the last
/// vector has one lane, all but one, or all.
fn tiles_of(heights: impl IntoIterator<Item = u8>, level: Level) -> Vec<(u8, u8)> {
    let width = Width::of(level).expect("the level has code of its own");
    let lanes = width.lanes() as u8;
    let columns = |v: u8| [lanes * v - (lanes - 1), lanes * v - 1, lanes * v];
    let of = |rows: u8| {
        let fits = |v: &u8| gemm::fits(width, rows.into(), (v * lanes).into());
        let most = (1..=240 / lanes).rev().find(fits).unwrap_or(0);
        let vectors = (1..=most).filter(move |&v| v <= 2 || v == most);
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

/// Tiles in narrow and wide vectors, packed or not, with sums of any length.
#[test]
fn sums_of_every_length() {
    let counts: Vec<[usize; MAX_LEVELS]> = (0..=70).map(|n| [n, 1, 1]).collect();
    for (rows, columns) in [(1, 9), (6, 16), (4, 24), (14, 32), (9, 48)] {
        for left in [Left::Packed, Left::Strided] {
            check_counts(GemmTile { left, ..GemmTile::packed(rows, columns) }, &counts);
        }
    }
}

/// AVX-512's tiles, up to the largest.
#[test]
fn tiles_of_wide_vectors() {
    for (rows, columns) in tiles_of(1..=28, Level::X86_64V4) {
        for (left, levels, run) in
            [(Left::Packed, 1, None), (Left::Strided, 1, None), (Left::Strided, 3, Some(2))]
        {
            let tile = GemmTile { left, levels, run, ..GemmTile::packed(rows, columns) };
            let leaf = Leaf::Gemm(tile, None);
            let mut all = native(&leaf, tile);
            all.extend(interpreted(&leaf, tile));
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
    values: u16,
}

impl Draft {
    fn new() -> Draft {
        let mut lanes = Lanes::default();
        let sum = lanes.add(Op::Carry(Kind::F32, 0));
        Draft { lanes, sum, streams: Vec::new(), moves: Vec::new(), stores: Vec::new(), values: 0 }
    }

    fn stream(&mut self, spread: Spread, moves: bool) -> u16 {
        self.streams.push(spread);
        self.moves.push(moves);
        self.streams.len() as u16 - 1
    }

    fn input(&mut self, spread: Spread, moves: bool) -> Vector {
        let stream = self.stream(spread, moves);
        let kind = match spread {
            Spread::Truths => Kind::Mask,
            Spread::Counting => Kind::I32,
            Spread::Neighbours | Spread::Still => Kind::F32,
        };
        self.lanes.add(Op::Input(kind, stream))
    }

    /// A value that is the same for all elements. All streams come before it.
    fn value(&mut self) -> Vector {
        self.values += 1;
        self.lanes.add(Op::Input(Kind::F32, self.streams.len() as u16 + self.values - 1))
    }

    fn output(&mut self, value: Vector) {
        let stream = self.stream(Spread::Neighbours, true);
        self.stores.push((stream, value));
    }

    fn finish(self, wanted: Option<Wanted>) -> Ending {
        let Draft { lanes, streams, moves, stores, values, .. } = self;
        Ending { epilogue: Arc::new(Epilogue { lanes, streams, values, stores }), moves, wanted }
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

/// Selects by truth values of rows and of columns, adds integers that count up along rows or down them
/// and two values; stores the result and whether it is large.
fn truths_and_counts() -> Ending {
    let mut draft = Draft::new();
    let [each, of_column] = [true, false].map(|moves| draft.input(Spread::Truths, moves));
    let [place, column] = [true, false].map(|moves| draft.input(Spread::Counting, moves));
    let result = draft.stream(Spread::Neighbours, true);
    let is_large = draft.stream(Spread::Truths, true);
    let [scale, limit] = [(); 2].map(|()| draft.value());
    let l = &mut draft.lanes;
    let [place, column] = [place, column].map(|x| l.unary(Unary::ToFloat, x));
    let placed = l.sum(draft.sum, place);
    let scaled = l.product(column, scale);
    let other = l.select(of_column, scaled, scale);
    let value = l.select(each, placed, other);
    let large = l.compare(Compare::Lt, limit, value);
    draft.stores.extend([(result, value), (is_large, large)]);
    draft.finish(Some(|sum, input| {
        let &[each, of_column, place, column, _, _, scale, limit] = input else {
            unreachable!("six streams and two values")
        };
        let other = if of_column == 1.0 { column * scale } else { scale };
        let value = if each == 1.0 { sum + place } else { other };
        vec![value, f32::from(u8::from(limit < value))]
    }))
}

fn endings() -> [Ending; 5] {
    [column_bias(), row_bias(), in_place(), many_values(), truths_and_counts()]
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
        for (rows, columns) in tiles_of([1, 3, 6, 12], Level::X86_64V3) {
            let tile = GemmTile::packed(rows, columns);
            let all = native(&Leaf::Gemm(tile, Some(ending.epilogue.clone())), tile);
            for call in finishing_calls() {
                compare(&Bench::new(tile, Some(&ending), call), &all);
            }
        }
    }
}

#[test]
fn epilogues_of_wide_vectors() {
    for ending in endings() {
        for (rows, columns) in tiles_of([1, 6, 9, 14, 28], Level::X86_64V4) {
            let tile = GemmTile::packed(rows, columns);
            let leaf = Leaf::Gemm(tile, Some(ending.epilogue.clone()));
            let mut all = native(&leaf, tile);
            all.extend(interpreted(&leaf, tile));
            for call in finishing_calls().take(2) {
                compare(&Bench::new(tile, Some(&ending), call), &all);
            }
        }
    }
}
