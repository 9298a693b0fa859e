//! Maps.

use super::point::Point;
use super::writer::Writer;
use crate::ir::{B32, Compare, IntOp, LogicOp, Special, Value};
use crate::schedule::THREADS;
use crate::schedule::map::{MapSchedule, SegmentSchedule};

/// Writes the body of a map.
pub fn write(w: &mut Writer<'_>, schedule: &MapSchedule<'_>) {
    let block = w.b.special(Special::BlockX);
    let thread = w.b.special(Special::Thread);
    let alone = schedule.segments.len() == 1;
    for segment in &schedule.segments {
        if alone {
            write_segment(w, segment, block, thread);
        } else {
            let from = w.b.set_uint(Compare::Ge, block, segment.first);
            let to = w.b.set_uint(Compare::Lt, block, segment.first + segment.blocks);
            let own = w.b.logic(LogicOp::And, from, to);
            w.if_(own, |w| {
                let block = w.b.int(IntOp::Sub, block, segment.first);
                write_segment(w, segment, block, thread);
            });
        }
    }
}

fn write_segment(w: &mut Writer<'_>, segment: &SegmentSchedule<'_>, block: B32, thread: B32) {
    let at = w.b.mad(block, THREADS, thread);
    let threads = segment.domain.points() / segment.lanes as i64;
    let work = |w: &mut Writer<'_>| {
        let axes = coordinates(w, at.into(), &segment.domain.extents, segment.lanes);
        let mut point = Point::new(&segment.domain, axes, segment.lanes);
        // All values first: a store may overwrite what another one of the segment reads.
        for &value in &segment.values {
            point.compute_now(w, value);
        }
        for (store, &value) in segment.values.iter().enumerate() {
            point.store(w, store, value, None);
        }
    };
    if threads % i64::from(THREADS) == 0 {
        work(w);
    } else {
        let inside = w.b.set_uint(Compare::Lt, at, threads as u32);
        w.if_(inside, work);
    }
}

/// The coordinates of a row-major position, which counts `lanes` neighbours along the last axis
/// as one.
pub fn coordinates(
    w: &mut Writer<'_>,
    position: Value<B32>,
    extents: &[i64],
    lanes: usize,
) -> Vec<Value<B32>> {
    let mut coordinates = vec![Value::Literal(0); extents.len()];
    let mut rest = position;
    let outermost = extents.iter().position(|&n| n > 1).unwrap_or(0);
    for axis in (outermost..extents.len()).rev() {
        let is_last = axis + 1 == extents.len();
        let extent = if is_last { extents[axis] / lanes as i64 } else { extents[axis] } as u32;
        let mut own = rest;
        if axis > outermost {
            own = w.b.int(IntOp::RemU, rest, extent).into();
            rest = w.b.int(IntOp::DivU, rest, extent).into();
        }
        let own =
            if is_last && lanes > 1 { w.b.int(IntOp::Mul, own, lanes as u32).into() } else { own };
        coordinates[axis] = own;
    }
    coordinates
}
