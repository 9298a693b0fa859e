//! Multiplying a stage in shared memory: by outer products of a few rows and columns in each
//! thread, or on the tensor cores. Both read words of the same places.

use super::tiled::{Fragment, Held, Task, chunk_place, turn, turn_bytes};
use crate::Math;
use crate::emit::writer::Writer;
use crate::ir::{
    Address, B32, CacheHint, Convert, F32, FloatOp, IntOp, MemType, MmaShape, Space, Special,
};
use crate::schedule::contract::{Supply, Tiling, WORDS};

/// Makes the sums that a thread holds, all 0.
pub fn hold(w: &mut Writer<'_>, task: &Task<'_, '_>) -> Held {
    match task.tiling.math {
        Math::F32 => hold_outer(w, task),
        _ => hold_matrix(w, task),
    }
}

/// Reads a thread's share of a stage.
pub struct Reader {
    /// Of rows and columns: bytes from a stage's start to the thread's first word in the first line
    /// it reads.
    first: [B32; 2],
    /// For tensor cores: how far words are turned in the lines of each half of each step.
    turns: Vec<B32>,
    /// Of factors that lie by rows: by step, bytes from a stage's start to the row of a matrix whose
    /// address the lane gives.
    rows: [Vec<B32>; 2],
}

impl Reader {
    /// The reader of what a thread holds; factors lie at `offsets` in a stage.
    pub fn new(w: &mut Writer<'_>, task: &Task<'_, '_>, held: &Held, offsets: [u32; 2]) -> Reader {
        let mut firsts = [held.first[0], held.first[1]];
        if task.tiling.math == Math::F32 {
            let first = [0, 1].map(|side| w.b.mad(firsts[side], 4, offsets[side]));
            return Reader { first, turns: Vec::new(), rows: Default::default() };
        }
        // A lane multiplies column `lane / 4` of a fragment, but holds `lane % 4 * 2`.
        let lane = w.b.special(Special::Lane);
        let (group, t) = (w.b.int(IntOp::ShrU, lane, 2), w.b.int(IntOp::And, lane, 3));
        let held_column = w.b.int(IntOp::Shl, t, 1);
        let tile = w.b.int(IntOp::Sub, firsts[1], held_column);
        firsts[1] = w.b.int(IntOp::Add, tile, group);
        let rows = [0, 1].map(|side| {
            if !task.tiling.sides[side].by_rows {
                return Vec::new();
            }
            let origin = w.b.int(IntOp::Sub, firsts[side], group);
            lane_rows(w, lane, origin, offsets[side])
        });
        let first = [0, 1].map(|side| {
            let word = w.b.mad(t, task.tiling.sides[side].tile, firsts[side]);
            w.b.mad(word, 4, offsets[side])
        });
        let turns = (0..WORDS / 4)
            .map(|half| {
                let line = w.b.int(IntOp::Add, t, 4 * half);
                turn_bytes(w, line)
            })
            .collect();
        Reader { first, turns, rows }
    }

    /// Adds the products of a stage, given where it begins for rows and for columns.
    pub fn multiply(&self, w: &mut Writer<'_>, tiling: &Tiling<'_>, held: &Held, stage: [B32; 2]) {
        let first = [0, 1].map(|side| w.b.int(IntOp::Add, stage[side], self.first[side]));
        match tiling.math {
            Math::F32 => outer(w, tiling, held, first),
            _ => self.matrix(w, tiling, held, (stage, first)),
        }
    }

    fn matrix(
        &self,
        w: &mut Writer<'_>,
        tiling: &Tiling<'_>,
        held: &Held,
        (stage, first): ([B32; 2], [B32; 2]),
    ) {
        let [rows, cols] = tiling.fragments();
        for step in 0..WORDS / 8 {
            let [a, b] = [(0, 2 * rows), (1, cols)].map(|(side, count)| {
                if tiling.sides[side].by_rows {
                    let at = w.b.int(IntOp::Add, stage[side], self.rows[side][step as usize]);
                    matrices(w, at, count)
                } else {
                    self.words(w, tiling, side, first[side], step, count)
                }
            });
            let a: Vec<[F32; 4]> = (0..rows as usize)
                .map(|i| [a[0][2 * i], a[0][2 * i + 1], a[1][2 * i], a[1][2 * i + 1]])
                .collect();
            let b: Vec<[F32; 2]> = (0..cols as usize).map(|j| [b[0][j], b[1][j]]).collect();
            products(w, tiling, held, &a, &b);
        }
    }

    /// The thread's words in both halves of a step: every eighth along their line, `count` of them.
    fn words(
        &self,
        w: &mut Writer<'_>,
        tiling: &Tiling<'_>,
        side: usize,
        first: B32,
        step: u32,
        count: u32,
    ) -> [Vec<F32>; 2] {
        [0, 1].map(|half| {
            let turned = w.b.int(IntOp::Xor, first, self.turns[(2 * step + half) as usize]);
            let line = 4 * (8 * step + 4 * half) * tiling.sides[side].tile;
            let bases: Vec<B32> = (0..count.min(4))
                .map(|i| if i == 0 { turned } else { w.b.int(IntOp::Xor, turned, 32 * i) })
                .collect();
            (0..count)
                .map(|i| {
                    let offset = line + 128 * (i / 4);
                    let from = Address::shared(bases[(i % 4) as usize], offset as i32);
                    let word = w.b.load(Space::Shared, MemType::F32, 1, from, CacheHint::None);
                    F32(word[0].number)
                })
                .collect()
        })
    }
}

/// For each step, where the row lies whose address a lane gives: lanes in eights, of the first and the
/// second eight rows of a factor's first half of the step, then of its second half.
fn lane_rows(w: &mut Writer<'_>, lane: B32, origin: B32, offset: u32) -> Vec<B32> {
    let row = w.b.int(IntOp::And, lane, 15);
    let row = w.b.int(IntOp::Add, origin, row);
    let half = w.b.int(IntOp::ShrU, lane, 4);
    (0..WORDS / 8)
        .map(|step| {
            let chunk = w.b.int(IntOp::Add, half, 2 * step);
            let place = chunk_place(w, row, chunk);
            w.b.int(IntOp::Add, place, offset)
        })
        .collect()
}

/// As [`Reader::words`], of a factor that lies by rows: `count` eights of rows from `at` on.
fn matrices(w: &mut Writer<'_>, at: B32, count: u32) -> [Vec<F32>; 2] {
    let mut halves = [Vec::new(), Vec::new()];
    for pair in 0..count / 2 {
        let from = Address::shared(at, (64 * WORDS * pair) as i32);
        for (i, word) in w.b.load_matrix(4, from, false).into_iter().enumerate() {
            halves[i / 2].push(w.b.from_bits(word));
        }
    }
    halves
}

/// Warps are two along the rows; fragment `(i, j)` of a warp comes as two, of rows 8 apart.
fn hold_matrix(w: &mut Writer<'_>, task: &Task<'_, '_>) -> Held {
    let tiling = task.tiling;
    let [rows, cols] = tiling.fragments();
    let warp = w.b.int(IntOp::ShrU, task.thread, 5);
    let (down, across) = (w.b.int(IntOp::And, warp, 1), w.b.int(IntOp::ShrU, warp, 1));
    let lane = w.b.special(Special::Lane);
    let (group, t) = (w.b.int(IntOp::ShrU, lane, 2), w.b.int(IntOp::And, lane, 3));
    let row = w.b.mad(down, 16 * rows, group);
    let held_column = w.b.int(IntOp::Shl, t, 1);
    let col = w.b.mad(across, 8 * cols, held_column);
    let fragments = (0..rows * cols * 2)
        .map(|at| {
            let (i, j, half) = (at / 2 / cols, at / 2 % cols, at % 2);
            let sums = (0..2).map(|_| w.b.mov_f32(0.0)).collect();
            Fragment { row: 16 * i + 8 * half, col: 8 * j, sums }
        })
        .collect();
    Held { first: [row, col], fragments }
}

/// All products of fragments. Of split operands the small products come first.
fn products(w: &mut Writer<'_>, tiling: &Tiling<'_>, held: &Held, a: &[[F32; 4]], b: &[[F32; 2]]) {
    let math = tiling.math;
    let passes = match math {
        Math::Tf32x3 => {
            let split = |w: &mut Writer<'_>, x: F32| split(w, x);
            let a: Vec<[[B32; 2]; 4]> = a.iter().map(|x| x.map(|x| split(w, x))).collect();
            let b: Vec<[[B32; 2]; 2]> = b.iter().map(|x| x.map(|x| split(w, x))).collect();
            let of_a = |part: usize| a.iter().map(|x| x.map(|x| x[part])).collect::<Vec<_>>();
            let of_b = |part: usize| b.iter().map(|x| x.map(|x| x[part])).collect::<Vec<_>>();
            vec![(of_a(1), of_b(0)), (of_a(0), of_b(1)), (of_a(0), of_b(0))]
        }
        _ => {
            // What has come through registers was rounded there.
            let mut bits = |side: usize, x: F32| {
                if math == Math::Tf32 && tiling.sides[side].supply == Supply::Copied {
                    w.b.convert(|dst| Convert::F32ToTf32 { dst, src: x })
                } else {
                    w.b.bits(x)
                }
            };
            let a = a.iter().map(|x| x.map(|x| bits(0, x))).collect();
            vec![(a, b.iter().map(|x| x.map(|x| bits(1, x))).collect())]
        }
    };
    let shape = match math {
        Math::F16 => MmaShape::F16,
        Math::Bf16 => MmaShape::Bf16,
        Math::F32 | Math::Tf32 | Math::Tf32x3 => MmaShape::Tf32,
    };
    let columns = b.len();
    for (a, b) in passes {
        for (i, a) in a.iter().enumerate() {
            for (j, b) in b.iter().enumerate() {
                let at = 2 * (i * columns + j);
                let [top, bottom] = [0, 1].map(|half| &held.fragments[at + half].sums);
                let sums = [top[0], top[1], bottom[0], bottom[1]];
                w.b.mma(shape, sums, a, b);
            }
        }
    }
}

/// A number as the sum of two of tf32, the larger first.
fn split(w: &mut Writer<'_>, x: F32) -> [B32; 2] {
    let high = w.b.convert(|dst| Convert::F32ToTf32 { dst, src: x });
    let rounded = w.b.from_bits(high);
    let rest = w.b.float(FloatOp::Sub, x, rounded);
    [high, w.b.convert(|dst| Convert::F32ToTf32 { dst, src: rest })]
}

/// Four neighbours along rows and columns, once or twice in each direction.
fn hold_outer(w: &mut Writer<'_>, task: &Task<'_, '_>) -> Held {
    let tiling = task.tiling;
    let [rows, cols] = [0, 1].map(|side| tiling.sides[side].tile);
    let (lane, warp) = (w.b.special(Special::Lane), w.b.int(IntOp::ShrU, task.thread, 5));
    let wide = cols.min(64) / 32;
    let (down, across) = (w.b.int(IntOp::DivU, warp, wide), w.b.int(IntOp::RemU, warp, wide));
    let (y, x) = (w.b.int(IntOp::ShrU, lane, 3), w.b.int(IntOp::And, lane, 7));
    let (y, x) = (w.b.mad(down, 4, y), w.b.mad(across, 8, x));
    let first = [w.b.int(IntOp::Shl, y, 2), w.b.int(IntOp::Shl, x, 2)];
    let mut fragments = Vec::new();
    for row in (0..rows.div_ceil(64) * 4).map(|i| i / 4 * 64 + i % 4) {
        for col in (0..cols.div_ceil(64)).map(|i| 64 * i) {
            let sums = (0..4).map(|_| w.b.mov_f32(0.0)).collect();
            fragments.push(Fragment { row, col, sums });
        }
    }
    Held { first, fragments }
}

fn outer(w: &mut Writer<'_>, tiling: &Tiling<'_>, held: &Held, first: [B32; 2]) {
    for line in 0..WORDS {
        let [a, b] = [0, 1].map(|side| {
            let tile = tiling.sides[side].tile;
            let base = w.b.int(IntOp::Xor, first[side], 4 * turn(line));
            let load = |w: &mut Writer<'_>, i: u32| {
                let from = Address::shared(base, (4 * (line * tile + 64 * i)) as i32);
                w.b.load(Space::Shared, MemType::F32, 4, from, CacheHint::None)
            };
            let words = (0..tile.div_ceil(64)).flat_map(|i| load(w, i)).map(|r| F32(r.number));
            words.collect::<Vec<F32>>()
        });
        for fragment in &held.fragments {
            let row = a[(fragment.row / 64 * 4 + fragment.row % 64) as usize];
            let col = (fragment.col / 64 * 4) as usize;
            for (&sum, &b) in fragment.sums.iter().zip(&b[col..]) {
                w.b.fma_to(sum, row, b, sum);
            }
        }
    }
}
