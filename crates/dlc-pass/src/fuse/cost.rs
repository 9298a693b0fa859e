//! When recomputing is worth less than a kernel and a trip through memory.

use super::facts::Facts;
use crate::class::Class;
use crate::layout::Layout;
use crate::reason::Reason;
use dlc_graph::op::FusedKind;
use dlc_graph::{Value, cost};
use dlc_kernel::Size;

/// How many more scalar operations a kernel may execute to save another kernel.
const MAX_EXTRA_WORK: i64 = 1 << 14;
/// The most expensive operation that a contraction evaluates while it reads an operand.
const MAX_OPERAND_COST: i64 = 2;

/// Whether a kernel with that layout should evaluate `producer` where it reads it.
pub fn admit_producer(
    facts: &Facts<'_>,
    kind: FusedKind,
    layout: &Layout,
    producer: Value,
) -> Result<(), Reason> {
    let cost = cost(facts.graph, producer);
    let reach = layout.reach(producer);
    if kind == FusedKind::Contract && !is_epilogue(layout, producer) {
        let computed = |class| matches!(class, Class::Point | Class::Fold | Class::Contract);
        return match () {
            () if cost > MAX_OPERAND_COST => Err(Reason::RepeatedInContraction),
            () if facts.reads(producer).iter().any(|r| computed(facts.class(r.value))) => {
                Err(Reason::CheaperElsewhere)
            }
            () => Ok(()),
        };
    }
    if reach.is_some() {
        return Ok(());
    }
    let points = match kind {
        FusedKind::Map => &layout.axes[..],
        // What does not use the axes of a row is evaluated once per row.
        FusedKind::Row | FusedKind::Contract if !uses_inner(layout, producer) => {
            &layout.axes[..layout.outer]
        }
        FusedKind::Row | FusedKind::Contract => &layout.axes[..],
    };
    let own = count(&facts.graph.ty(producer).shape);
    let extra = count(points).zip(own).map(|(points, own)| (points - own).saturating_mul(cost));
    match extra {
        Some(extra) if extra <= MAX_EXTRA_WORK => Ok(()),
        _ if cost <= 1 && layout.place(producer).len() == layout.axes.len() => Ok(()),
        _ => Err(Reason::Repeated),
    }
}

fn is_epilogue(layout: &Layout, value: Value) -> bool {
    !uses_inner(layout, value)
}

fn uses_inner(layout: &Layout, value: Value) -> bool {
    let inner = layout.outer..layout.axes.len();
    inner.clone().any(|a| layout.place(value).iter().any(|i| i.uses(dlc_kernel::Axis(a as u32))))
}

fn count(axes: &[Size]) -> Option<i64> {
    axes.iter().try_fold(1i64, |n, extent| Some(n.saturating_mul(extent.as_const()?)))
}
