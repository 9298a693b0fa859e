//! Contractions in tiles: a block computes a tile of the result, all of its sum or a part.
//!
//! Shared memory holds two stages; while one is multiplied, what the other will hold is under way
//! in registers. A stage holds [`WORDS`] lines of words for the rows' factor, then as many for the
//! columns'; a word is an f32, a tf32, or two bf16 that follow one another along the sum. Word `r`
//! of line `k` lies at word `r ^ turn(k)` of its line: then no two lanes want the same bank,
//! whether a warp writes along lines or across, or reads fragments.

use super::fill::Fill;
use super::{finish, multiply};
use crate::emit::map::coordinates;
use crate::emit::writer::Writer;
use crate::ir::{B32, Compare, F32, IntOp, LogicOp, Pred, Special, Value};
use crate::schedule::contract::{ContractSchedule, Group, Tiling, View, WORDS};
use dlc_kernel::Store;

/// A block's part of the work.
pub struct Task<'t, 'k> {
    /// How it is done.
    pub tiling: &'t Tiling<'k>,
    /// The axes of the batch, by position in the group.
    pub batch: Vec<Value<B32>>,
    /// The batch as one number.
    pub batch_at: B32,
    /// The first row and the first column.
    pub origin: [B32; 2],
    /// Which part of the sum.
    pub part: B32,
    /// The thread.
    pub thread: B32,
}

/// Neighbouring results along columns, which a thread holds.
pub struct Fragment {
    /// From the thread's first row.
    pub row: u32,
    /// From the thread's first column.
    pub col: u32,
    /// The sums.
    pub sums: Vec<F32>,
}

/// What a thread holds of a tile.
pub struct Held {
    /// Its first row and column, from the tile's.
    pub first: [B32; 2],
    /// The sums.
    pub fragments: Vec<Fragment>,
}

/// Writes a contraction in tiles. A split sum goes to the workspace, without the stores.
pub fn write(w: &mut Writer<'_>, schedule: &ContractSchedule<'_>, stores: &[Store]) {
    let tiling = schedule.tiling.as_ref().expect("a contraction in tiles is scheduled as one");
    let task = task(w, tiling);
    let shared = w.b.reserve_shared(2 * stage_bytes(tiling));
    let shared = w.b.shared_base(shared);
    let held = multiply::hold(w, &task);
    sum(w, &task, shared, &held);
    if tiling.split > 1 {
        finish::write_part(w, &task, &held);
    } else {
        finish::write(w, &task, &held, stores);
    }
}

/// How far words of line `k` are turned; below 32, a multiple of 4.
pub fn turn(k: u32) -> u32 {
    8 * ((k + k / 4) % 4) + 4 * (k / 8 % 2)
}

/// As [`turn`], of a register, in bytes.
pub fn turn_bytes(w: &mut Writer<'_>, k: B32) -> B32 {
    let fours = w.b.int(IntOp::ShrU, k, 2);
    let mixed = w.b.int(IntOp::Add, k, fours);
    let mixed = w.b.int(IntOp::And, mixed, 3);
    let high = w.b.int(IntOp::Shl, mixed, 5);
    let eight = w.b.int(IntOp::And, k, 8);
    let low = w.b.int(IntOp::Shl, eight, 1);
    w.b.int(IntOp::Or, high, low)
}

/// The axes of a point, in the order of a view.
pub fn point_axes(view: &View<'_>, groups: &[(&Group, &[Value<B32>])]) -> Vec<Value<B32>> {
    let at = |axis: &usize| {
        let place = |(group, values): &(&Group, &[Value<B32>])| {
            let position = group.axes.iter().position(|a| a == axis)?;
            Some(values[position])
        };
        groups.iter().find_map(place).unwrap_or(Value::Literal(0))
    };
    view.order.iter().map(at).collect()
}

/// Whether a position lies below a bound that tiles of `step` may cross.
pub fn below(w: &mut Writer<'_>, at: B32, bound: i64, step: u32) -> Option<Pred> {
    (bound % i64::from(step) != 0).then(|| w.b.set_uint(Compare::Lt, at, bound as u32))
}

/// Both, as far as there are any.
pub fn both(w: &mut Writer<'_>, a: Option<Pred>, b: Option<Pred>) -> Option<Pred> {
    match (a, b) {
        (Some(a), Some(b)) => Some(w.b.logic(LogicOp::And, a, b)),
        (a, b) => a.or(b),
    }
}

/// Bytes of a stage.
fn stage_bytes(tiling: &Tiling<'_>) -> u32 {
    4 * WORDS * (tiling.sides[0].tile + tiling.sides[1].tile)
}

fn task<'t, 'k>(w: &mut Writer<'_>, tiling: &'t Tiling<'k>) -> Task<'t, 'k> {
    let (block, part) = (w.b.special(Special::BlockX), w.b.special(Special::BlockY));
    let thread = w.b.special(Special::Thread);
    let (rows, cols) = (tiling.tiles(0), tiling.tiles(1));
    let col = w.b.int(IntOp::RemU, block, cols);
    let rest = w.b.int(IntOp::DivU, block, cols);
    let row = w.b.int(IntOp::RemU, rest, rows);
    let batch_at = w.b.int(IntOp::DivU, rest, rows);
    let batch = coordinates(w, batch_at.into(), &tiling.batch.extents, 1);
    let origin =
        [(row, 0), (col, 1)].map(|(at, side)| w.b.int(IntOp::Mul, at, tiling.sides[side].tile));
    Task { tiling, batch, batch_at, origin, part, thread }
}

/// Adds the products of the block's part of the sum to what threads hold.
fn sum(w: &mut Writer<'_>, task: &Task<'_, '_>, shared: B32, held: &Held) {
    let tiling = task.tiling;
    let (depth, stage) = (tiling.depth(), stage_bytes(tiling));
    let at = w.b.int(IntOp::Mul, task.part, tiling.chunk());
    let end = w.b.int(IntOp::Add, at, tiling.chunk());
    let end = w.b.int(IntOp::MinU, end, tiling.sum.points() as u32);
    let fills = [0, 1].map(|side| Fill::new(w, task, side));
    let offsets = [0, 4 * WORDS * tiling.sides[0].tile];
    let reader = multiply::Reader::new(w, task, held, offsets);
    let current = w.b.mov32(shared);
    let both_stages = w.b.mad(shared, 2, stage);
    for (fill, offset) in fills.iter().zip(offsets) {
        fill.load(w, task, at);
        fill.store(w, current, offset);
    }
    w.b.barrier();
    w.do_while(|w| {
        w.b.int_to(IntOp::Add, at, at, depth);
        let more = w.b.set_uint(Compare::Lt, at, end);
        w.if_(more, |w| fills.iter().for_each(|fill| fill.load(w, task, at)));
        reader.multiply(w, tiling, held, current);
        w.b.int_to(IntOp::Sub, current, both_stages, current);
        w.if_(more, |w| {
            for (fill, offset) in fills.iter().zip(offsets) {
                fill.store(w, current, offset);
            }
        });
        w.b.barrier();
        more
    });
}
