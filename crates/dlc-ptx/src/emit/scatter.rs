//! Scatters.

use super::map::coordinates;
use super::point::{Point, Share};
use super::writer::{Writer, memory_type};
use crate::ir::{Address, Compare, Space, Special, Value};
use crate::schedule::THREADS;
use crate::schedule::scatter::ScatterSchedule;

/// Blocks of a launch that clears so many elements.
pub const fn clear_blocks(elements: u64) -> u32 {
    elements.div_ceil(THREADS as u64) as u32
}

/// Writes what sets the destination to 0, in loops that part of it that has the steps as its first
/// coordinates.
pub fn clear(w: &mut Writer<'_>, schedule: &ScatterSchedule<'_>) {
    let (buffer, elements) = (schedule.spot.buffer, schedule.elements as u32);
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let at = w.b.mad(block, THREADS, thread);
    let inside = w.b.set_uint(Compare::Lt, at, elements);
    let (ty, base) = (memory_type(w.program.buffer(buffer).dtype), w.buffer(buffer));
    w.if_(inside, |w| {
        let mut at = at;
        let mut stride = elements;
        for (step, &extent) in schedule.around.iter().enumerate().rev() {
            at = w.b.mad(w.step(step), stride, at);
            stride *= extent as u32;
        }
        let to = Address::global(w.b.mad_wide(at, ty.bytes(), base), 0);
        let zero = w.zero(ty.class());
        w.b.store(Space::Global, ty, to, &[zero]);
    });
}

/// Writes the updates.
pub fn write(w: &mut Writer<'_>, schedule: &ScatterSchedule<'_>) {
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let at = w.b.mad(block, THREADS, thread);
    let inside = w.b.set_uint(Compare::Lt, at, schedule.threads() as u32);
    let extents: Vec<i64> = schedule.own.iter().map(|&a| schedule.domain.extents[a]).collect();
    let share = (schedule.shares > 1)
        .then(|| Share { number: w.b.special(Special::BlockY), of: schedule.shares });
    w.if_(inside, |w| {
        let own = coordinates(w, at.into(), &extents, 1);
        let mut axes = vec![None; schedule.domain.extents.len()];
        schedule.own.iter().zip(own).for_each(|(&axis, value)| axes[axis] = Some(value));
        walk(w, schedule, share, &mut axes, 0);
    });
}

/// Makes the updates at all points of the axes from `axis` on that have no value yet.
fn walk(
    w: &mut Writer<'_>,
    schedule: &ScatterSchedule<'_>,
    share: Option<Share>,
    axes: &mut Vec<Option<Value<crate::ir::B32>>>,
    axis: usize,
) {
    match axes.get(axis) {
        None => {
            let axes = axes.iter().map(|a| a.expect("all axes have values")).collect();
            let mut point = Point::new(&schedule.domain, axes, 1);
            point.update(w, &schedule.spot, (schedule.mode, schedule.value), share);
        }
        Some(Some(_)) => walk(w, schedule, share, axes, axis + 1),
        Some(None) => {
            let zero = w.b.mov32(0);
            w.for_range(zero, schedule.domain.extents[axis] as u32, 1, |w, i| {
                axes[axis] = Some(i.into());
                walk(w, schedule, share, axes, axis + 1);
                axes[axis] = None;
            });
        }
    }
}
