//! What becomes of sums: the stores of a contraction, or parts in a workspace and their total.

use super::tiled::{Held, Task, below, both, point_axes};
use crate::emit::map::coordinates;
use crate::emit::point::Point;
use crate::emit::writer::{Given, Writer};
use crate::ir::{
    Address, B32, B64, CacheHint, Compare, F32, FloatOp, IntOp, MemType, Pred, Reg, Space, Special,
    Value,
};
use crate::schedule::THREADS;
use crate::schedule::contract::{ContractSchedule, PARTS, Tiling};
use dlc_kernel::Store;

/// A row or column of the result.
pub struct Line {
    /// Its number.
    pub at: B32,
    /// Its axes.
    pub axes: Vec<Value<B32>>,
    /// Whether it exists; `None` if it does.
    pub exists: Option<Pred>,
}

/// Makes the stores of the sums that threads hold.
pub fn write(w: &mut Writer<'_>, task: &Task<'_, '_>, held: &Held, stores: &[Store]) {
    let tiling = task.tiling;
    each(w, task, held, tiling.result.lanes, |w, row, col, sums| {
        store_point(w, tiling, &task.batch, [&row.axes, &col.axes], sums, stores);
    });
}

/// Stores the sums that threads hold to the workspace: by part, batch, row and column.
pub fn write_part(w: &mut Writer<'_>, task: &Task<'_, '_>, held: &Held) {
    let tiling = task.tiling;
    let [rows, cols] = [0, 1].map(|side| tiling.sides[side].group.points() as u32);
    let workspace = w.address(Given::Workspace(PARTS));
    let plane = w.b.mad(task.part, tiling.batch.points() as u32, task.batch_at);
    let plane = w.b.int(IntOp::Mul, plane, rows);
    let lanes = [4, 2].into_iter().find(|&n| cols % n == 0).unwrap_or(1);
    let lanes = (lanes as usize).min(held.fragments[0].sums.len());
    each(w, task, held, lanes, |w, row, col, sums| {
        let line = w.b.int(IntOp::Add, plane, row.at);
        let at = w.b.mad(line, cols, col.at);
        let to: B64 = w.b.mad_wide(at, 4, workspace);
        let sums: Vec<Reg> = sums.iter().map(|&s| s.into()).collect();
        w.b.store(Space::Global, MemType::F32, Address::global(to, 0), &sums);
    });
}

/// Calls `write` for all sums of a thread, `lanes` at a time, where their rows and columns exist.
fn each(
    w: &mut Writer<'_>,
    task: &Task<'_, '_>,
    held: &Held,
    lanes: usize,
    mut write: impl FnMut(&mut Writer<'_>, &Line, &Line, &[F32]),
) {
    let mut rows: Vec<(u32, Line)> = Vec::new();
    let mut cols: Vec<(u32, Line)> = Vec::new();
    for fragment in &held.fragments {
        for (i, sums) in fragment.sums.chunks(lanes).enumerate() {
            let col = fragment.col + (i * lanes) as u32;
            let row = line(w, task, held, 0, fragment.row, &mut rows);
            let col = line(w, task, held, 1, col, &mut cols);
            let (row, col) = (&rows[row].1, &cols[col].1);
            match both(w, row.exists, col.exists) {
                Some(exists) => w.if_(exists, |w| write(w, row, col, sums)),
                None => write(w, row, col, sums),
            }
        }
    }
}

/// The position among the known lines of the one that many from the thread's first.
pub fn line(
    w: &mut Writer<'_>,
    task: &Task<'_, '_>,
    held: &Held,
    side: usize,
    offset: u32,
    known: &mut Vec<(u32, Line)>,
) -> usize {
    if let Some(found) = known.iter().position(|(o, _)| *o == offset) {
        return found;
    }
    let this = &task.tiling.sides[side];
    let first = w.b.int(IntOp::Add, task.origin[side], held.first[side]);
    let at = w.b.int(IntOp::Add, first, offset);
    let exists = below(w, at, this.group.points(), this.tile);
    let axes = coordinates(w, at.into(), &this.group.extents, 1);
    known.push((offset, Line { at, axes, exists }));
    known.len() - 1
}

fn store_point(
    w: &mut Writer<'_>,
    tiling: &Tiling<'_>,
    batch: &[Value<B32>],
    [row, col]: [&[Value<B32>]; 2],
    sums: &[F32],
    stores: &[Store],
) {
    let groups: [(_, &[_]); 3] =
        [(&tiling.batch, batch), (&tiling.sides[0].group, row), (&tiling.sides[1].group, col)];
    let axes = point_axes(&tiling.result, &groups);
    let mut point = Point::new(&tiling.result.domain, axes, sums.len());
    let side = sums.iter().map(|&sum| w.scope.input(sum.into())).collect();
    point.fold(0, side);
    for (position, store) in stores.iter().enumerate() {
        point.store(w, position, store.value, None);
    }
}

/// Writes the kernel that adds up the parts of each sum, in order, and makes the stores.
pub fn write_total(w: &mut Writer<'_>, schedule: &ContractSchedule<'_>, stores: &[Store]) {
    let tiling = schedule.tiling.as_ref().expect("only sums in tiles are split");
    let [rows, cols] = [0, 1].map(|side| tiling.sides[side].group.points());
    let results = (tiling.batch.points() * rows * cols) as u32;
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let at = w.b.mad(block, THREADS, thread);
    let inside = w.b.set_uint(Compare::Lt, at, results);
    w.if_(inside, |w| {
        let sum = total(w, at, results, tiling.split);
        let extents = [tiling.batch.points(), rows, cols];
        let [batch, row, col] =
            <[_; 3]>::try_from(coordinates(w, at.into(), &extents, 1)).expect("three");
        let batch = coordinates(w, batch, &tiling.batch.extents, 1);
        let row = coordinates(w, row, &tiling.sides[0].group.extents, 1);
        let col = coordinates(w, col, &tiling.sides[1].group.extents, 1);
        store_point(w, tiling, &batch, [&row, &col], &[sum], stores);
    });
}

fn total(w: &mut Writer<'_>, at: B32, results: u32, split: u32) -> F32 {
    let workspace = w.address(Given::Workspace(PARTS));
    let sum: F32 = w.b.mov_f32(0.0);
    let zero = w.b.mov32(0);
    w.for_range(zero, split, 1, |w, part| {
        let at = w.b.mad(part, results, at);
        let from: B64 = w.b.mad_wide(at, 4, workspace);
        let from = Address::global(from, 0);
        let next = w.b.load(Space::Global, MemType::F32, 1, from, CacheHint::ReadOnly);
        let next = w.b.float(FloatOp::Add, sum, F32(next[0].number));
        w.b.mov_f32_to(sum, next);
    });
    sum
}
