//! Rows of temporaries a line of the cache further apart than they are long.
//!
//! Neighbours whose distance is a quarter of a page, or a multiple of it, share a few places of the
//! first level, so that a tile which reads or stores several rows at once throws out its own lines. No
//! kernel sees the gap: it is beyond every row's end.

use super::piece::pieces;
use crate::schedule::domain::extents;
use dlc_kernel::{Access, BufferId, Class, DType, Form, Kernel, Program, Size};
use rustc_hash::FxHashSet;

/// Elements between neighbours that share places.
const COLLIDING: i64 = 256;
/// Elements between the end of a row and the next one.
const GAP: i64 = 16;

/// Moves colliding rows of temporaries apart, where all kernels find them by their coordinates.
pub(super) fn rows_apart(mut program: Program) -> Program {
    let ids = (0..program.buffers.len() as u32).map(BufferId);
    let mut movable: FxHashSet<BufferId> = ids.filter(|&id| collides(&program, id)).collect();
    let mut entries = std::mem::take(&mut program.entries);
    for entry in &mut entries {
        entry.outputs.iter().for_each(|id| {
            movable.remove(id);
        });
        for kernel in &mut entry.kernels {
            keep_dense(&program, kernel, &mut movable);
        }
    }
    program.entries = entries;
    for id in movable {
        let last = program.buffers[id.0 as usize].shape.last_mut().expect("rows have a length");
        *last = last.clone() + Size::from(GAP);
    }
    program
}

fn collides(program: &Program, id: BufferId) -> bool {
    let buffer = program.buffer(id);
    let Ok(shape) = extents(&buffer.shape) else { return false };
    let row = shape.last().copied().unwrap_or(0);
    let rows: i64 = shape.iter().rev().skip(1).product();
    let of_words = buffer.class == Class::Temp && buffer.dtype == DType::F32;
    of_words && row > 0 && row % COLLIDING == 0 && rows > 1
}

/// Removes what a kernel wants without gaps.
fn keep_dense(program: &Program, kernel: &mut Kernel, movable: &mut FxHashSet<BufferId>) {
    match &mut kernel.form {
        Form::Map { .. } | Form::Row { .. } | Form::Contract { .. } => {
            for piece in pieces(&mut kernel.form) {
                let axes = piece.axes();
                for (id, access, lookups) in piece.accesses() {
                    let length = program.buffer(id).shape.last();
                    if !lookups.is_empty() || length.is_none_or(|n| leaves(access, &axes, n)) {
                        movable.remove(&id);
                    }
                }
            }
        }
        Form::Loop { start, body, .. } => {
            start.iter_mut().chain(body).for_each(|kernel| keep_dense(program, kernel, movable));
        }
        Form::Scatter { .. } | Form::Reshape { .. } | Form::Check { .. } => {
            for id in kernel.reads().into_iter().chain(kernel.writes()) {
                movable.remove(&id);
            }
        }
    }
}

/// Whether a read may leave rows of that length.
fn leaves(access: &Access, axes: &[Size], length: &Size) -> bool {
    !access.coords.last().is_some_and(|coord| coord.is_inside(axes, length))
}
