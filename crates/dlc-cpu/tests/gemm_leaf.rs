//! The register tile of contractions: every compiler of it against a plain loop, bit for bit, with
//! memory that ends where a panel or tile does.

mod guard;

use dlc_cpu::jit::{compile_leaf, compile_portable_leaf};
use dlc_cpu::leaf::{GemmArgs, GemmTile, Leaf, Left, avx2};
use dlc_cpu::level::Level;
use guard::{Code, Guarded};

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 7.0 - 7.0).collect()
}

/// What a leaf is called for.
#[derive(Clone, Copy, Debug)]
struct Call {
    depth: usize,
    tiles: usize,
    accumulate: bool,
}

/// Floats from one row of panels and tile to the next.
const MARGIN: usize = 3;

fn expected(tile: GemmTile, call: Call, a: &[f32], b: &[f32], c: &[f32], fused: bool) -> Vec<f32> {
    let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
    let mut c = c.to_vec();
    for row in 0..call.tiles * rows {
        for j in 0..columns {
            let mut sum = if call.accumulate { c[row * (columns + MARGIN) + j] } else { 0.0 };
            for p in 0..call.depth {
                let x = a[left_at(tile, call, row, p)];
                let y = b[p * right_step(tile) + j];
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
        Left::Packed => (row / rows * call.depth + p) * rows + row % rows,
        Left::Strided => row * call.depth + p,
    }
}

fn right_step(tile: GemmTile) -> usize {
    usize::from(tile.columns).next_multiple_of(8)
}

fn run(code: &Code, tile: GemmTile, call: Call, fused: bool) {
    let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
    let (a, b) =
        (numbers(call.tiles * call.depth * rows, 1), numbers(call.depth * right_step(tile), 2));
    let c_step = columns + MARGIN;
    let floats = (call.tiles * rows * c_step).saturating_sub(MARGIN);
    let c = numbers(floats, 3);
    let wanted = expected(tile, call, &a, &b, &c, fused);
    for side in guard::SIDES {
        let (a, b, c) = (Guarded::new(&a, side), Guarded::new(&b, side), Guarded::new(&c, side));
        let (a_row, a_step, a_tile) = match tile.left {
            Left::Packed => (4, 4 * rows, 4 * rows * call.depth),
            Left::Strided => (4 * call.depth, 4, 4 * rows * call.depth),
        };
        let args = GemmArgs {
            a: a.pointer(),
            b: b.pointer(),
            c: c.pointer(),
            depth: call.depth as i64,
            a_row: a_row as i64,
            a_step: a_step as i64,
            b_step: 4 * right_step(tile) as i64,
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
    let mut codes = vec![(compile_portable_leaf(best, Leaf::Gemm(tile)), best.has_fma())];
    if Level::X86_64V2.runs_here() {
        codes.push((compile_portable_leaf(Level::X86_64V2, Leaf::Gemm(tile)), false));
    }
    if best.has_avx2() && avx2::holds(tile) {
        codes.push((compile_leaf(best, Leaf::Gemm(tile)), true));
    }
    for (compiled, fused) in codes {
        let code = Code::new(&compiled.expect("the leaf compiles").bytes);
        for depth in (0..=9).chain([63]) {
            for tiles in 0..=2 {
                for accumulate in [false, true] {
                    run(&code, tile, Call { depth, tiles, accumulate }, fused);
                }
            }
        }
    }
}

/// Tiles whose sums a level with 16 registers can hold.
fn tiles() -> impl Iterator<Item = (u8, u8)> {
    let columns = |rows: u8| (1..=8 * (14 / rows).min(12)).map(move |columns| (rows, columns));
    (1..=14).flat_map(columns)
}

#[test]
fn packed_tiles_of_every_size() {
    for (rows, columns) in tiles() {
        check(GemmTile { rows, columns, left: Left::Packed });
    }
}

#[test]
fn panels_read_where_they_lie() {
    for (rows, columns) in tiles().filter(|t| t.0 <= 6) {
        check(GemmTile { rows, columns, left: Left::Strided });
    }
}
