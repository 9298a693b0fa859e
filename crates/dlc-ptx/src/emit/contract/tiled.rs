//! Contractions in tiles: a block computes a tile of the result, all of its sum or a part.
//!
//! Shared memory holds stages in a ring: while one is multiplied, a later one is filled. Factors that
//! are computed or rounded on the way come through registers, and there are two stages; those that are
//! buffers as they are, or packed, are copied, and there are more, so that a copy has some steps to
//! arrive. A stage holds [`WORDS`] lines of words for the rows' factor, then as many for the columns'; a word is an f32, a tf32, or two bf16 that follow one another along the sum. Word `r`
//! of line `k` lies at word `r ^ turn(k)` of its line: then no two lanes want the same bank,
//! whether a warp writes along lines or across, or reads fragments.
//!
//! For tensor cores, a factor whose neighbours in memory follow one another along the sum lies by rows
//! instead: [`WORDS`] words of each row side by side, four of which are a chunk, and a row of a matrix
//! that `ldmatrix` reads. Chunk `c` of row `r` lies at chunk `c ^ (r / 2 % 4)` of its row, for the same
//! reason.

use super::fill::Fill;
use super::pack::Arrival;
use super::{finish, multiply};
use crate::emit::map::coordinates;
use crate::emit::writer::Writer;
use crate::ir::{B32, Compare, F32, Inst, IntOp, LogicOp, Pred, Special, Value};
use crate::schedule::contract::{ContractSchedule, Group, Supply, Tiling, View, WORDS};
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
    let shared = w.b.reserve_shared(tiling.stages() * tiling.stage_bytes());
    let shared = w.b.shared_base(shared);
    let held = multiply::hold(w, &task);
    let at = w.b.int(IntOp::Mul, task.part, tiling.chunk());
    let until = w.b.int(IntOp::Add, at, tiling.chunk());
    let until = w.b.int(IntOp::MinU, until, tiling.sum.points() as u32);
    Pipeline::new(w, &task, &held, [at, until], None).run(w, shared);
    if tiling.split > 1 {
        finish::write_part(w, &task, &held);
    } else {
        finish::write(w, &task, &held, stores);
    }
}

/// How far words of line `k` are turned; below 32, a multiple of 4.
pub fn turn(k: u32) -> u32 {
    8 * ((k + k / 4) % 4) + 4 * ((k / 4 + k / 8) % 2)
}

/// As [`turn`], of a register, in bytes.
pub fn turn_bytes(w: &mut Writer<'_>, k: B32) -> B32 {
    let fours = w.b.int(IntOp::ShrU, k, 2);
    let mixed = w.b.int(IntOp::Add, k, fours);
    let mixed = w.b.int(IntOp::And, mixed, 3);
    let high = w.b.int(IntOp::Shl, mixed, 5);
    let twos = w.b.int(IntOp::ShrU, k, 3);
    let parity = w.b.int(IntOp::Xor, fours, twos);
    let parity = w.b.int(IntOp::And, parity, 1);
    w.b.mad(parity, 16, high)
}

/// Where a chunk of a row begins in a stage that lies by rows.
pub fn chunk_place(w: &mut Writer<'_>, row: B32, chunk: B32) -> B32 {
    let pair = w.b.int(IntOp::ShrU, row, 1);
    let turn = w.b.int(IntOp::And, pair, 3);
    let turned = w.b.int(IntOp::Xor, chunk, turn);
    let at = w.b.int(IntOp::Shl, turned, 4);
    w.b.mad(row, 4 * WORDS, at)
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

/// Where a factor comes from, stage by stage.
enum Source {
    /// Its buffers.
    Fill(Fill),
    /// Its panels.
    Panels(Arrival),
    /// It is there already.
    Resident,
}

/// A part of the sum, whose products are added to what threads hold.
pub struct Pipeline<'t, 'k> {
    task: &'t Task<'t, 'k>,
    held: &'t Held,
    sources: [Source; 2],
    /// Where the factors lie in a stage.
    offsets: [u32; 2],
    reader: multiply::Reader,
    /// Where in the sum it is, and where it ends.
    at: B32,
    until: B32,
    /// Where the rows' factor lies, if it is there already.
    resident: Option<B32>,
}

impl<'t, 'k> Pipeline<'t, 'k> {
    /// The products of that range of the sum, which is not empty and begins with a stage. Of a
    /// resident rows' factor, the words of the range lie from `resident` on.
    pub fn new(
        w: &mut Writer<'_>,
        task: &'t Task<'t, 'k>,
        held: &'t Held,
        [at, until]: [B32; 2],
        resident: Option<B32>,
    ) -> Pipeline<'t, 'k> {
        let tiling = task.tiling;
        let sources = [0, 1].map(|side| match tiling.sides[side].supply {
            Supply::Read | Supply::Copied => Source::Fill(Fill::new(w, task, side)),
            Supply::Packed => Source::Panels(Arrival::new(w, task, side, at)),
            Supply::Resident => Source::Resident,
        });
        let offsets = [0, if resident.is_some() { 0 } else { tiling.part_bytes(0) }];
        let reader = multiply::Reader::new(w, task, held, offsets);
        let at = w.b.mov32(at);
        Pipeline { task, held, sources, offsets, reader, at, until, resident }
    }

    /// Adds all of them; stages are at `shared`. At a step, what belongs to a later one goes into the
    /// stage of the step before, which all have left.
    pub fn run(&self, w: &mut Writer<'_>, shared: B32) {
        let tiling = self.task.tiling;
        let (depth, stage) = (tiling.depth(), tiling.stage_bytes());
        let ahead = tiling.stages() - 1;
        let last = w.b.int(IntOp::Add, shared, ahead * stage);
        let (current, free) = (w.b.mov32(shared), w.b.mov32(last));
        let resident = self.resident.map(|first| w.b.mov32(first));
        // Where the sum of the stage that is filled next begins.
        let next = w.b.mov32(self.at);
        for step in 0..ahead {
            let to = w.b.int(IntOp::Add, shared, step * stage);
            // The first is there in every part.
            let exists = (step > 0).then(|| w.b.set_uint(Compare::Lt, next, self.until));
            self.begin(w, next, to, exists);
            self.end(w, to, exists);
            w.b.int_to(IntOp::Add, next, next, depth);
        }
        w.do_while(|w| {
            if tiling.arriving() > 0 {
                w.b.push(Inst::WaitGroup(ahead - 1));
            }
            w.b.barrier();
            let exists = Some(w.b.set_uint(Compare::Lt, next, self.until));
            self.begin(w, next, free, exists);
            self.reader.multiply(w, tiling, self.held, [resident.unwrap_or(current), current]);
            self.end(w, free, exists);
            for at in [current, free] {
                let wraps = w.b.set_uint(Compare::Ge, at, last);
                let following = w.b.int(IntOp::Add, at, stage);
                let following = w.b.select32(wraps, shared, following);
                w.b.mov32_to(at, following);
            }
            if let Some(at) = resident {
                w.b.int_to(IntOp::Add, at, at, tiling.part_bytes(0));
            }
            w.b.int_to(IntOp::Add, next, next, depth);
            w.b.int_to(IntOp::Add, self.at, self.at, depth);
            w.b.set_uint(Compare::Lt, self.at, self.until)
        });
    }

    /// Begins to fill the stage at `to`, if the part has so much: copies, as one group, and loads.
    fn begin(&self, w: &mut Writer<'_>, at: B32, to: B32, exists: Option<Pred>) {
        let fill = |w: &mut Writer<'_>| {
            for (source, offset) in self.sources.iter().zip(self.offsets) {
                if let Source::Panels(arrival) = source {
                    arrival.copy(w, to, offset);
                }
            }
            self.each(Supply::Copied, |fill, offset| fill.copy(w, self.task, at, to, offset));
            self.each(Supply::Read, |fill, _| fill.load(w, self.task, at));
        };
        match exists {
            Some(exists) => w.if_(exists, fill),
            None => fill(w),
        }
        if self.task.tiling.arriving() > 0 {
            w.b.push(Inst::CommitGroup);
        }
    }

    /// Stores what was loaded.
    fn end(&self, w: &mut Writer<'_>, to: B32, exists: Option<Pred>) {
        if self.task.tiling.sides.iter().all(|side| side.supply != Supply::Read) {
            return;
        }
        let store = |w: &mut Writer<'_>| {
            self.each(Supply::Read, |fill, offset| fill.store(w, to, offset));
        };
        match exists {
            Some(exists) => w.if_(exists, store),
            None => store(w),
        }
    }

    fn each(&self, supply: Supply, mut act: impl FnMut(&Fill, u32)) {
        let sides = self.task.tiling.sides.iter().zip(&self.sources).zip(self.offsets);
        for ((side, source), offset) in sides {
            match source {
                Source::Fill(fill) if side.supply == supply => act(fill, offset),
                _ => {}
            }
        }
    }
}
