//! From a set of operations to the form of one kernel.

use super::emit::Emitter;
use super::place::Place;
use crate::class::{Class, class};
use crate::layout::{Layout, Reach};
use crate::reads::{Read, fold_coords, identity, reads};
use dlc_graph::op::{Contract, FusedKind, Lowering, Overwrite, ScatterAdd};
use dlc_graph::{Graph, Shape, Value};
use dlc_kernel::{
    Access, Axis, BinaryOp, BufferId, Expr, Form, Index, Lookup, ScatterMode, Segment, Size, Step,
    Store,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Operations that become one kernel.
pub struct Unit<'a> {
    /// Where they are.
    pub graph: &'a Graph,
    /// The form of the kernel.
    pub kind: FusedKind,
    /// The operations, ascending; no free values and no sources among them.
    pub members: Vec<Value>,
    /// What is stored, and where to.
    pub results: Vec<(Value, Place)>,
    /// What is in memory already.
    pub buffers: &'a FxHashMap<Value, Place>,
}

/// The form of `unit`'s kernel.
pub fn form(unit: &Unit<'_>) -> Form {
    match unit.kind {
        FusedKind::Map => Form::Map { segments: segments(unit) },
        FusedKind::Row => row(unit),
        FusedKind::Contract => contract(unit),
    }
}

/// The form of a scatter-add: `value` of `graph` into `buffer`.
pub fn scatter_add(
    graph: &Graph,
    value: Value,
    scatter: &ScatterAdd,
    buffer: BufferId,
    buffers: &FxHashMap<Value, Place>,
) -> Form {
    let operands = graph.operands(value);
    let (ids, updates) = (operands[0], operands[1]);
    let axes = graph.ty(updates).shape.clone();
    let (axis, batch) = (scatter.axis as usize, scatter.batch as usize);
    let end = axis + graph.ty(ids).rank() - batch;
    let at = identity(axes.len());
    let mut emit = Emitter::new(graph, buffers, axes.clone());
    let place: SmallVec<[Index; 4]> = at[..batch].iter().chain(&at[axis..end]).cloned().collect();
    let index = emit.value(ids, &place);
    let added = emit.value(updates, &at);
    let kept = at[..axis].iter().cloned().chain([Index::constant(0i64)]);
    let access = Access::new(kept.chain(at[end..].iter().cloned()));
    let lookups = SmallVec::from_iter([Lookup { dim: scatter.axis, index }]);
    let mode = ScatterMode::Add;
    Form::Scatter { mode, axes, exprs: emit.finish(), buffer, access, lookups, value: added }
}

/// The form of an overwrite: `value` of `graph`, in `buffer`.
pub fn overwrite(
    graph: &Graph,
    value: Value,
    overwrite: &Overwrite,
    buffer: BufferId,
    buffers: &FxHashMap<Value, Place>,
) -> Form {
    let operands = graph.operands(value);
    let (start, part) = (operands[1], operands[2]);
    let axes = graph.ty(part).shape.clone();
    let (axis, batch) = (overwrite.axis as usize, overwrite.batch as usize);
    let at = identity(axes.len());
    let mut emit = Emitter::new(graph, buffers, axes.clone());
    let new = emit.value(part, &at);
    let start = emit.value(start, &at[..batch]);
    let mut exprs = emit.finish();
    let along = exprs.add(Expr::Axis(Axis(overwrite.axis)));
    let index = exprs.add(Expr::Binary(BinaryOp::Add, start, along));
    let mut access = Access::new(at);
    access.coords[axis] = Index::constant(0i64);
    let lookups = SmallVec::from_iter([Lookup { dim: overwrite.axis, index }]);
    let mode = ScatterMode::Overwrite;
    Form::Scatter { mode, axes, exprs, buffer, access, lookups, value: new }
}

/// One segment for each group of results of one shape that share work; a concatenation has one for
/// each operand.
fn segments(unit: &Unit<'_>) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut groups: Vec<Vec<(Value, Place)>> = Vec::new();
    // The groups that compute a member, and the group that took a group in: itself, at first.
    let mut computing: FxHashMap<Value, SmallVec<[usize; 1]>> = FxHashMap::default();
    let mut moved: Vec<usize> = Vec::new();
    for &(value, place) in &unit.results {
        if let Lowering::Concat { axis } = unit.graph.op(value).rules().lower() {
            segments.extend(concat_segments(unit, value, axis as usize, place));
            continue;
        }
        let shape = |v: Value| &unit.graph.ty(v).shape;
        let work = work(unit, value);
        let known =
            work.iter().filter_map(|v| computing.get(v)).flatten().map(|&g| last(&moved, g));
        let mut sharing: Vec<usize> = known
            .filter(|&g| groups[g].first().is_some_and(|r| shape(r.0) == shape(value)))
            .collect();
        sharing.sort();
        sharing.dedup();
        let own = groups.len();
        let mut results = Vec::new();
        sharing.iter().for_each(|&g| results.append(&mut groups[g]));
        results.push((value, place));
        groups.push(results);
        moved.push(own);
        sharing.iter().for_each(|&g| moved[g] = own);
        work.into_iter().for_each(|v| computing.entry(v).or_default().push(own));
    }
    segments.extend(groups.iter().filter(|g| !g.is_empty()).map(|results| segment(unit, results)));
    segments
}

/// The group that took in `group`, in the end.
fn last(moved: &[usize], mut group: usize) -> usize {
    while moved[group] != group {
        group = moved[group];
    }
    group
}

/// The members that `value` is computed from, itself included.
fn work(unit: &Unit<'_>, value: Value) -> Vec<Value> {
    let mut found = vec![value];
    let mut next = 0;
    while next < found.len() {
        for read in reads(unit.graph, found[next]) {
            let member = unit.members.binary_search(&read.value).is_ok();
            if member && !found.contains(&read.value) {
                found.push(read.value);
            }
        }
        next += 1;
    }
    found
}

fn segment(unit: &Unit<'_>, results: &[(Value, Place)]) -> Segment {
    let axes = unit.graph.ty(results[0].0).shape.clone();
    let at = identity(axes.len());
    let mut emit = Emitter::new(unit.graph, unit.buffers, axes.clone());
    let mut store = |&(value, place): &(Value, Place)| {
        let access = place.access(&Access::identity(at.len()), &axes, &axes);
        Store { buffer: place.buffer, access, value: emit.value(value, &at) }
    };
    let stores = results.iter().map(&mut store).collect();
    Segment { axes, exprs: emit.finish(), stores }
}

fn concat_segments(unit: &Unit<'_>, result: Value, axis: usize, place: Place) -> Vec<Segment> {
    let mut start = Size::ZERO;
    let mut segments = Vec::new();
    let shape = &unit.graph.ty(result).shape;
    for operand in unit.graph.operands(result) {
        let axes = unit.graph.ty(operand).shape.clone();
        let at = identity(axes.len());
        let mut emit = Emitter::new(unit.graph, unit.buffers, axes.clone());
        let value = emit.value(operand, &at);
        let mut access = Access::new(at);
        access.coords[axis].offset = start.clone();
        start = start + axes[axis].clone();
        let access = place.access(&access, shape, &axes);
        let stores = vec![Store { buffer: place.buffer, access, value }];
        segments.push(Segment { axes, exprs: emit.finish(), stores });
    }
    segments
}

fn layout(unit: &Unit<'_>) -> Layout {
    let table: FxHashMap<Value, Vec<Read>> =
        unit.members.iter().map(|&v| (v, reads(unit.graph, v))).collect();
    let root = unit.results[0].0;
    Layout::find(unit.graph, unit.kind, root, &unit.members, &|v| &table[&v])
        .unwrap_or_else(|reason| panic!("a fused body has no layout: {reason}"))
}

fn row(unit: &Unit<'_>) -> Form {
    let layout = layout(unit);
    let (outer, inner) = split(&layout);
    let mut emit = Emitter::new(unit.graph, unit.buffers, layout.axes.clone());
    let mut steps = Vec::new();
    for &member in &unit.members {
        if let Lowering::Fold(reduce) = unit.graph.op(member).rules().lower() {
            let operand = unit.graph.operands(member)[0];
            let at = layout.canonical(fold_coords(unit.graph.ty(operand).rank(), &reduce.axes));
            let folded = emit.value(operand, &at);
            emit.set_folded(member, steps.len() as u32);
            steps.push(Step::Fold(reduce.op, folded));
        }
    }
    for &(value, place) in &unit.results {
        let store = placed_store(&mut emit, &layout, (unit.graph, value), place);
        steps.push(match layout.reach(value).expect("each element of a result is made once") {
            Reach::Outer => Step::StoreRow(store),
            Reach::All => Step::StoreEach(store),
        });
    }
    Form::Row { outer, inner, exprs: emit.finish(), steps }
}

fn contract(unit: &Unit<'_>) -> Form {
    let layout = layout(unit);
    let (out, reduce) = split(&layout);
    let mut emit = Emitter::new(unit.graph, unit.buffers, layout.axes.clone());
    let anchor = unit.members.iter().copied().find(|&v| class(unit.graph, v) == Class::Contract);
    let anchor = anchor.expect("a contract kernel has a contraction");
    let Lowering::Contract(Contract { lhs, rhs, .. }) = unit.graph.op(anchor).rules().lower()
    else {
        unreachable!("its class is Contract")
    };
    let operands = unit.graph.operands(anchor);
    let lhs = emit.value_or(operands[0], lhs, 0.0);
    let rhs = emit.value_or(operands[1], rhs, 0.0);
    emit.set_folded(anchor, 0);
    let store = |&(value, place): &(Value, Place)| {
        placed_store(&mut emit, &layout, (unit.graph, value), place)
    };
    let stores = unit.results.iter().map(store).collect();
    Form::contract(out, reduce, emit.finish(), [lhs, rhs], stores)
}

fn placed_store(
    emit: &mut Emitter<'_>,
    layout: &Layout,
    (graph, value): (&Graph, Value),
    place: Place,
) -> Store {
    let (at, shape) = (layout.place(value), &graph.ty(value).shape);
    let access = place.access(&Access::new(at.iter().cloned()), shape, &layout.axes);
    Store { buffer: place.buffer, access, value: emit.value(value, at) }
}

fn split(layout: &Layout) -> (Shape, Shape) {
    let (outer, inner) = layout.axes.split_at(layout.outer);
    (outer.into(), inner.into())
}
