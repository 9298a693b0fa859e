//! Packed factors: a launch computes and rounds a factor once, and puts it into a workspace in panels; the
//! product copies them stage by stage.
//!
//! A panel is a tile's part of a stage, byte by byte as it lies in shared memory, by rows. Panels follow
//! one another along the sum, then by tile, then by batch. Rows and summands that do not exist are 0
//! there: copies ask for nothing.

use super::fill::Fill;
use super::tiled::Task;
use crate::emit::map::coordinates;
use crate::emit::writer::{Given, Writer};
use crate::ir::{
    Address, B32, B64, Builder, CacheHint, Compare, Inst, IntOp, MemType, Pred, Space, Special,
};
use crate::schedule::THREADS;
use crate::schedule::contract::Tiling;

/// Bytes that a thread moves at once.
const PIECE: u32 = 16;

/// Writes the kernel that packs the rows' (0) or columns' (1) factor: a block for each panel.
pub fn write(w: &mut Writer<'_>, tiling: &Tiling<'_>, side: usize) {
    let tiling = Tiling { threads: THREADS, ..tiling.clone() };
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let (panel, rest) = (
        w.b.int(IntOp::RemU, block, tiling.panels()),
        w.b.int(IntOp::DivU, block, tiling.panels()),
    );
    let tile = w.b.int(IntOp::RemU, rest, tiling.tiles(side));
    let batch_at = w.b.int(IntOp::DivU, rest, tiling.tiles(side));
    let batch = coordinates(w, batch_at.into(), &tiling.batch.extents, 1);
    let first = w.b.int(IntOp::Mul, tile, tiling.sides[side].tile);
    let at = w.b.int(IntOp::Mul, panel, tiling.depth());
    let task = Task { tiling: &tiling, batch, batch_at, origin: [first; 2], part: panel, thread };
    let shared = w.b.reserve_shared(tiling.part_bytes(side));
    let shared = w.b.shared_base(shared);
    let fill = Fill::new(w, &task, side);
    fill.load(w, &task, at);
    fill.store(w, shared, 0);
    w.b.barrier();
    let workspace = w.address(Given::Workspace(side));
    let to: B64 = w.b.mad_wide(block, tiling.part_bytes(side), workspace);
    let to: B64 = w.b.mad_wide(thread, PIECE, to);
    let from = w.b.mad(thread, PIECE, shared);
    each_piece(w, thread, THREADS, tiling.part_bytes(side), |b, at| {
        let from = Address::shared(from, at as i32);
        let words = b.load(Space::Shared, MemType::B32, 4, from, CacheHint::None);
        b.store(Space::Global, MemType::B32, Address::global(to, at as i32), &words);
    });
}

/// A packed factor on its way into stages, panel by panel.
pub struct Arrival {
    thread: B32,
    threads: u32,
    /// Bytes of a panel.
    bytes: u32,
    /// The thread's first piece of the panel that comes next.
    from: B64,
}

impl Arrival {
    /// From the panel on in which the sum stands at `at`.
    pub fn new(w: &mut Writer<'_>, task: &Task<'_, '_>, side: usize, at: B32) -> Arrival {
        let Task { tiling, thread, .. } = *task;
        let tile = w.b.int(IntOp::DivU, task.origin[side], tiling.sides[side].tile);
        let tile = w.b.mad(task.batch_at, tiling.tiles(side), tile);
        let panel = w.b.int(IntOp::DivU, at, tiling.depth());
        let panel = w.b.mad(tile, tiling.panels(), panel);
        let bytes = tiling.part_bytes(side);
        let workspace = w.address(Given::Workspace(side));
        let first: B64 = w.b.mad_wide(panel, bytes, workspace);
        let from = w.b.mad_wide(thread, PIECE, first);
        Arrival { thread, threads: tiling.threads, bytes, from }
    }

    /// Begins to copy the next panel to the stage at `stage`.
    pub fn copy(&self, w: &mut Writer<'_>, stage: B32, offset: u32) {
        let to = w.b.mad(self.thread, PIECE, stage);
        each_piece(w, self.thread, self.threads, self.bytes, |b, at| {
            let from = Address::global(self.from, at as i32);
            let to = Address::shared(to, (offset + at) as i32);
            b.push(Inst::CopyAsync { to, from, bytes: PIECE, size: None });
        });
        w.b.int64_to(IntOp::Add, self.from, self.from, u64::from(self.bytes));
    }
}

/// Moves the thread's pieces of so many bytes, given how far each is from its first.
fn each_piece(
    w: &mut Writer<'_>,
    thread: B32,
    threads: u32,
    bytes: u32,
    mut act: impl FnMut(&mut Builder, u32),
) {
    let step = PIECE * threads;
    for at in (0..bytes).step_by(step as usize) {
        let left = (bytes - at) / PIECE;
        let has: Option<Pred> = (left < threads).then(|| w.b.set_uint(Compare::Lt, thread, left));
        match has {
            Some(has) => w.b.guarded(has, true, |b| act(b, at)),
            None => act(&mut w.b, at),
        }
    }
}
