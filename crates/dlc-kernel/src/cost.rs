//! What a kernel costs at least: arithmetic and bytes moved, whatever the schedule.
//!
//! A multiply-add of a contraction counts as 2 operations, any other scalar operation as 1. A buffer
//! counts once for each kernel that touches it, and no further than the kernel has points that do: of a
//! table, the rows that are looked up. A reshape to a temporary is another name for what it reads.
//! Sizes must be bound; unbound ones count 1. Counts saturate.

use crate::{BufferId, Class, Expr, ExprId, Exprs, Form, Kernel, Program, ScatterMode, Size, Step};
use rustc_hash::{FxHashMap, FxHashSet};

impl Kernel {
    /// Floating-point and integer operations.
    pub fn flops(&self) -> u64 {
        match &self.form {
            Form::Map { segments } => {
                let each = |s: &crate::Segment| {
                    let roots = s.stores.iter().map(|store| store.value);
                    times(points(&s.axes), operations(&s.exprs, roots))
                };
                segments.iter().map(each).fold(0, u64::saturating_add)
            }
            Form::Row { outer, inner, exprs, steps } => {
                let rows = points(outer);
                let each = |step: &Step| match step {
                    Step::Fold(_, e) => times(points(inner), operations(exprs, [*e]) + 1),
                    Step::StoreRow(s) => operations(exprs, [s.value]),
                    Step::StoreEach(s) => times(points(inner), operations(exprs, [s.value])),
                };
                times(rows, steps.iter().map(each).fold(0, u64::saturating_add))
            }
            Form::Contract { out, sums, reduce, exprs, lhs, rhs, stores } => {
                let products = times(times(points(out), points(sums)), points(reduce));
                let epilogue = operations(exprs, stores.iter().map(|s| s.value));
                times(products, 2 + operations(exprs, [*lhs, *rhs]))
                    .saturating_add(times(points(out), epilogue))
            }
            Form::Scatter { axes, exprs, value, .. } => {
                times(points(axes), operations(exprs, [*value]) + 1)
            }
            // The domains of the kernels hold the steps.
            Form::Loop { start, body, .. } => {
                start.iter().chain(body).map(Kernel::flops).fold(0, u64::saturating_add)
            }
            Form::Reshape { .. } | Form::Check { .. } => 0,
        }
    }

    /// Bytes that it reads and writes.
    pub fn bytes(&self, program: &Program) -> u64 {
        let renames = |dst: BufferId| program.buffer(dst).class == Class::Temp;
        if matches!(self.form, Form::Reshape { dst, .. } if renames(dst)) {
            return 0;
        }
        let reached = self.reached();
        let bytes = |id: BufferId| {
            let buffer = program.buffer(id);
            let elements = points(&buffer.shape);
            let reached = reached.get(&id).map_or(elements, |&reached| reached.min(elements));
            times(reached, buffer.dtype.bytes() as u64)
        };
        let touched: FxHashSet<_> = self.reads().into_iter().chain(self.writes()).collect();
        touched.into_iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// By buffer: how many points touch it, if they alone do.
    fn reached(&self) -> FxHashMap<BufferId, u64> {
        let mut reached = FxHashMap::default();
        let mut reach = |id: BufferId, axes: &[Size]| {
            let count: &mut u64 = reached.entry(id).or_default();
            *count = count.saturating_add(points(axes));
        };
        for part in self.parts() {
            part.loads().for_each(|(id, ..)| reach(id, &part.axes));
            part.stores.iter().for_each(|store| reach(store.buffer, &part.axes));
        }
        if let Form::Scatter { mode: ScatterMode::Overwrite, axes, buffer, .. } = &self.form {
            reach(*buffer, axes);
        }
        reached
    }
}

fn times(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

/// The number of points of a domain.
fn points(extents: &[Size]) -> u64 {
    let extent = |s: &Size| s.as_const().unwrap_or(1).max(0) as u64;
    extents.iter().map(extent).fold(1, u64::saturating_mul)
}

/// The number of distinct operations below `roots`; loads, constants and positions are free.
fn operations(exprs: &Exprs, roots: impl IntoIterator<Item = ExprId>) -> u64 {
    let cost = |id| match exprs.get(id) {
        Expr::Unary(..) | Expr::Binary(..) | Expr::Select(..) => 1,
        Expr::Cast(..) | Expr::Inside(_) => 1,
        // Ten rounds of two multiplications.
        Expr::Random { .. } => 20,
        Expr::Const(_) | Expr::Extent(..) | Expr::Axis(_) => 0,
        Expr::Load { .. } | Expr::Folded(_) => 0,
    };
    exprs.reachable(roots).into_iter().map(cost).sum()
}
