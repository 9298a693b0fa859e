//! The register tile of contractions: every compiler of it against a plain loop, bit for bit, with
//! memory that ends where a panel or tile does.

mod guard;

use dlc_cpu::jit::{compile_leaf, compile_portable_leaf};
use dlc_cpu::leaf::{GemmArgs, GemmTile, Leaf, Left, MAX_LEVELS, MAX_RUN, wide};
use dlc_cpu::level::Level;
use guard::{Code, Guarded};

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 7.0 - 7.0).collect()
}

/// What a leaf is called for.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// Counts of the loops, innermost first.
    counts: [usize; MAX_LEVELS],
    tiles: usize,
    accumulate: bool,
}

impl Call {
    fn depth(&self) -> usize {
        self.counts.iter().product()
    }

    /// What moves a pointer at every level, if the steps lie `step` bytes apart and every loop but
    /// the innermost leaves out one step.
    fn moves(&self, step: usize) -> [i64; MAX_LEVELS] {
        [step as i64; MAX_LEVELS]
    }

    /// The position of a step in memory: each round of a loop around others skips one.
    fn place(&self, p: usize) -> usize {
        let (inner, middle) = (self.counts[0].max(1), self.counts[1]);
        p + p / inner + p / (inner * middle)
    }

    /// How many places there are.
    fn places(&self) -> usize {
        self.depth().checked_sub(1).map_or(0, |last| self.place(last) + 1)
    }
}

/// Floats from one row of panels and tile to the next.
const MARGIN: usize = 3;

fn expected(tile: GemmTile, call: Call, a: &[f32], b: &[f32], c: &[f32], fused: bool) -> Vec<f32> {
    let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
    let mut c = c.to_vec();
    for row in 0..call.tiles * rows {
        for j in 0..columns {
            let mut sum = if call.accumulate { c[row * (columns + MARGIN) + j] } else { 0.0 };
            for p in 0..call.depth() {
                let x = a[left_at(tile, call, row, p)];
                let y = b[call.place(p) * right_step(tile) + j];
                sum = if fused { x.mul_add(y, sum) } else { x * y + sum };
            }
            c[row * (columns + MARGIN) + j] = sum;
        }
    }
    c
}

fn left_at(tile: GemmTile, call: Call, row: usize, p: usize) -> usize {
    let rows = usize::from(tile.rows);
    match tile.left {
        Left::Packed => (row / rows * call.places() + call.place(p)) * rows + row % rows,
        Left::Strided => row * call.places() + call.place(p),
    }
}

fn right_step(tile: GemmTile) -> usize {
    usize::from(tile.columns).next_multiple_of(8)
}

fn run(code: &Code, tile: GemmTile, call: Call, fused: bool) {
    let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
    let (a, b) = (
        numbers(call.tiles * call.places() * rows, 1),
        numbers(call.places() * right_step(tile), 2),
    );
    let c_step = columns + MARGIN;
    let floats = (call.tiles * rows * c_step).saturating_sub(MARGIN);
    let c = numbers(floats, 3);
    let wanted = expected(tile, call, &a, &b, &c, fused);
    for side in guard::SIDES {
        let (a, b, c) = (Guarded::new(&a, side), Guarded::new(&b, side), Guarded::new(&c, side));
        let (a_row, a_step, a_tile) = match tile.left {
            Left::Packed => (4, 4 * rows, 4 * rows * call.places()),
            Left::Strided => (4 * call.places(), 4, 4 * rows * call.places()),
        };
        let args = GemmArgs {
            a: a.pointer(),
            b: b.pointer(),
            c: c.pointer(),
            counts: call.counts.map(|n| n as i64),
            a_moves: call.moves(a_step),
            b_moves: call.moves(4 * right_step(tile)),
            a_row: a_row as i64,
            c_step: 4 * c_step as i64,
            tiles: call.tiles as i64,
            a_tile: a_tile as i64,
            accumulate: i64::from(call.accumulate),
        };
        code.call(&raw const args);
        assert_eq!(c.read(), wanted, "{tile} {call:?} {side:?}");
    }
}

fn check(tile: GemmTile) {
    let best = Level::detect().expect("tests run on a machine with a level");
    let mut codes = vec![(compile_portable_leaf(best, &Leaf::Gemm(tile)), best.has_fma())];
    if Level::X86_64V2.runs_here() {
        codes.push((compile_portable_leaf(Level::X86_64V2, &Leaf::Gemm(tile)), false));
    }
    if wide::Width::of(best).is_some_and(|width| wide::gemm::holds(width, tile)) {
        codes.push((compile_leaf(best, &Leaf::Gemm(tile)), true));
    }
    for (compiled, fused) in codes {
        let code = Code::new(&compiled.expect("the leaf compiles").bytes);
        for counts in counts(tile) {
            for tiles in 0..=2 {
                for accumulate in [false, true] {
                    run(&code, tile, Call { counts, tiles, accumulate }, fused);
                }
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

/// Tiles whose sums a level with 16 registers can hold.
fn tiles() -> impl Iterator<Item = (u8, u8)> {
    let columns = |rows: u8| (1..=8 * (14 / rows).min(12)).map(move |columns| (rows, columns));
    (1..=14).flat_map(columns)
}

#[test]
fn packed_tiles_of_every_size() {
    for (rows, columns) in tiles() {
        check(GemmTile { rows, columns, left: Left::Packed, levels: 1, run: None });
    }
}

#[test]
fn panels_read_where_they_lie() {
    for (rows, columns) in tiles().filter(|t| t.0 <= 6 && t.1 % 3 != 0) {
        check(GemmTile { rows, columns, left: Left::Strided, levels: 1, run: None });
    }
}

#[test]
fn nests_of_loops() {
    for (rows, columns) in [(1, 9), (5, 16), (6, 10), (4, 24)] {
        for left in [Left::Packed, Left::Strided] {
            for levels in 1..=MAX_LEVELS as u8 {
                for run in [None, Some(1), Some(3), Some(MAX_RUN)] {
                    check(GemmTile { rows, columns, left, levels, run });
                }
            }
        }
    }
}
