//! Contractions of any kind: one thread for one point of the result.

use crate::emit::map::coordinates;
use crate::emit::point::Point;
use crate::emit::writer::Writer;
use crate::ir::{B32, Compare, F32, Special, Value};
use crate::place::Domain;
use crate::schedule::THREADS;
use crate::schedule::contract::ContractSchedule;
use dlc_kernel::{ExprId, Store};
use smallvec::smallvec;

/// Writes a contraction without tiles.
pub fn write(w: &mut Writer<'_>, schedule: &ContractSchedule<'_>, stores: &[Store]) {
    let ContractSchedule { domain, border, factors, .. } = schedule;
    let (border, factors) = (*border, *factors);
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let at = w.b.mad(block, THREADS, thread);
    let points = schedule.results();
    let inside = w.b.set_uint(Compare::Lt, at, points as u32);
    w.if_(inside, |w| {
        let mut axes = coordinates(w, at.into(), &domain.extents[..border], 1);
        let sum: F32 = w.b.mov_f32(0.0);
        if domain.points() > 0 {
            accumulate(w, domain, &mut axes, factors, sum);
        }
        axes.resize(domain.extents.len(), Value::Literal(0));
        let mut point = Point::new(domain, axes, 1);
        let total = w.scope.input(sum.into());
        point.fold(0, smallvec![total]);
        for (position, store) in stores.iter().enumerate() {
            point.store(w, position, store.value, None);
        }
    });
}

/// Adds the products at all points from `axes` on, in row-major order: one loop for each axis that
/// is missing there.
fn accumulate(
    w: &mut Writer<'_>,
    domain: &Domain<'_>,
    axes: &mut Vec<Value<B32>>,
    factors: [ExprId; 2],
    sum: F32,
) {
    let Some(&extent) = domain.extents.get(axes.len()) else {
        let mut point = Point::new(domain, axes.clone(), 1);
        let [lhs, rhs] = factors.map(|factor| {
            let side = point.value(w, factor);
            w.scope.f32(&mut w.b, side[0])
        });
        return w.b.fma_to(sum, lhs, rhs, sum);
    };
    let zero = w.b.mov32(0);
    w.for_range(zero, extent as u32, 1, |w, i| {
        axes.push(i.into());
        accumulate(w, domain, axes, factors, sum);
        axes.pop();
    });
}
