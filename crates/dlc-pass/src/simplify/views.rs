//! Reads of reads, and reshapes.

use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::op::{Concat, Op, Reshape, View};
use dlc_graph::{Shape, Value};
use dlc_kernel::{Access, Axis, BinaryOp, Index, Size};

pub const RULES: &[Rule] = &[
    Rule { name: "view of everything", exactness: Exact, apply: identity },
    Rule { name: "axes of extent 1", exactness: Exact, apply: unit_axes },
    Rule { name: "view of a view", exactness: Exact, apply: compose },
    Rule { name: "view of merged dims", exactness: Exact, apply: view_of_merged },
    Rule { name: "reshape to the same shape", exactness: Exact, apply: same_shape },
    Rule { name: "reshape of a reshape", exactness: Exact, apply: double_reshape },
    Rule { name: "reshape of dims of extent 1", exactness: Exact, apply: unit_dims },
    Rule { name: "reshape of a repetition", exactness: Exact, apply: reshaped_repetition },
    Rule { name: "reshape after pointwise", exactness: Exact, apply: reshape_last },
    Rule { name: "concatenation with nothing", exactness: Exact, apply: empty_parts },
    Rule { name: "concatenation of one", exactness: Exact, apply: one_part },
    Rule { name: "sum of disjoint parts", exactness: Exact, apply: disjoint_parts },
];

/// The most parts that a sum is taken apart into.
const MOST_PARTS: usize = 16;

fn identity(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::View(view) = at.op else { return None };
    let same = view.access.is_identity() && view.axes == *r.shape(at.operands[0]);
    same.then(|| at.operands[0])
}

/// An axis of extent 1 is always 0, and conditions that hold everywhere are none. Coordinates of
/// such dims are 0 wherever they are inside.
fn unit_axes(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::View(view) = at.op else { return None };
    let x = at.operands[0];
    let mut access = without_unit_axes(&view.access, &view.axes);
    for (coord, extent) in access.coords.iter_mut().zip(r.shape(x)) {
        if *extent == Size::ONE && coord.is_inside(&view.axes, extent) {
            *coord = Index::constant(0i64);
        }
    }
    // The identity is recognized by its axes.
    let full = (0..access.coords.len() as u32).map(Index::axis);
    let same =
        view.axes == *r.shape(x) && access == without_unit_axes(&Access::new(full), &view.axes);
    if same {
        return Some(x);
    }
    (access != view.access).then(|| r.make(View { access, ..view.clone() }, &[x], at.origin))
}

/// The access without terms of axes of extent 1 and without guards that always hold.
pub(super) fn without_unit_axes(access: &Access, axes: &[Size]) -> Access {
    let index = |index: &Index| {
        let mut index = index.clone();
        index.terms.retain(|t| axes[t.0.0 as usize] != Size::ONE);
        index
    };
    let mut access = access.clone();
    access.coords.iter_mut().for_each(|c| *c = index(c));
    access.guards.iter_mut().for_each(|g| g.index = index(&g.index));
    access.guards.retain(|g| !g.index.is_inside(axes, &g.extent));
    access
}

/// A view of a view is a view, if both give the same value outside or one never leaves.
fn compose(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::View(outer) = at.op else { return None };
    let Op::View(inner) = r.g.op(at.operands[0]) else { return None };
    let x = r.g.operands(at.operands[0])[0];
    let outer_inside = outer.is_inside(&inner.axes);
    let inner_inside = inner.is_inside(r.shape(x));
    if inner.fill != outer.fill && !outer_inside && !inner_inside {
        return None;
    }
    let access = read_through(&outer.access, inner, &outer.axes);
    let fill = if inner_inside { outer.fill } else { inner.fill };
    let axes = outer.axes.clone();
    Some(r.make(View { axes, access, fill }, &[x], at.origin))
}

/// `outer`, a read of the view `inner` over `axes`, as a read of what `inner` reads.
pub(super) fn read_through(outer: &Access, inner: &View, axes: &[Size]) -> Access {
    let mut access = inner.access.compose(&outer.coords, &inner.axes, axes);
    access.guards.extend(outer.guards.iter().cloned());
    access.guards.sort();
    access.guards.dedup();
    access
}

/// A view of a reshape that merges dims is a view of what they were, where it reads by an axis for
/// each of them.
fn view_of_merged(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::View(view) = at.op else { return None };
    let Op::Reshape(_) = r.g.op(at.operands[0]) else { return None };
    let x = r.g.operands(at.operands[0])[0];
    let merged = merged_dims(r.shape(x), r.shape(at.operands[0]))?;
    if merged.iter().all(|dims| dims.len() == 1) {
        return None;
    }
    let mut access = Access { guards: view.access.guards.clone(), ..Access::default() };
    for (coord, dims) in view.access.coords.iter().zip(merged) {
        match dims.len() {
            1 => access.coords.push(coord.clone()),
            _ => access.coords.extend(taken_apart(coord, &r.shape(x)[dims], &view.axes)?),
        }
    }
    Some(r.make(View { access, ..view.clone() }, &[x], at.origin))
}

/// The coordinates in dims of these extents that are `coord` in one of all, where each is an axis as
/// long as its dim.
fn taken_apart(coord: &Index, extents: &[Size], axes: &[Size]) -> Option<Vec<Index>> {
    let (mut stride, mut terms, mut coords) = (1i64, coord.terms.to_vec(), Vec::new());
    for extent in extents.iter().rev() {
        if *extent == Size::ONE {
            coords.push(Index::constant(0i64));
            continue;
        }
        let fits = |(axis, coef): &(Axis, i64)| *coef == stride && axes[axis.0 as usize] == *extent;
        let (axis, _) = terms.remove(terms.iter().position(fits)?);
        coords.push(Index::axis(axis.0));
        stride = stride.checked_mul(extent.as_const().unwrap_or(0))?;
    }
    coords.reverse();
    let whole = terms.is_empty() && coord.div == 1 && coord.offset == Size::ZERO;
    whole.then_some(coords)
}

fn same_shape(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reshape(reshape) = at.op else { return None };
    (reshape.shape == *r.shape(at.operands[0])).then(|| at.operands[0])
}

/// Reshapes, and views that only insert or drop dims of extent 1, under a reshape.
fn double_reshape(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reshape(_) = at.op else { return None };
    let inner = at.operands[0];
    let moves_nothing = match r.g.op(inner) {
        Op::Reshape(_) => true,
        Op::View(view) => {
            let x = r.g.operands(inner)[0];
            unit_view(r.shape(x), &view.axes).is_some_and(|access| access == view.access)
        }
        _ => false,
    };
    let x = moves_nothing.then(|| r.g.operands(inner)[0])?;
    Some(r.make(at.op.clone(), &[x], at.origin))
}

/// A reshape that inserts or drops dims of extent 1 is a view, which others can look through.
fn unit_dims(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reshape(Reshape { shape }) = at.op else { return None };
    let x = at.operands[0];
    let access = unit_view(r.shape(x), shape)?;
    let fill = dlc_kernel::Scalar::new(r.g.ty(x).dtype, 0.0);
    Some(r.make(View { axes: shape.clone(), access, fill }, &[x], at.origin))
}

/// The access that reads `from` as `to`, if they differ in dims of extent 1 alone.
fn unit_view(from: &Shape, to: &Shape) -> Option<Access> {
    let wide = |shape: &Shape| -> Vec<u32> {
        (0..shape.len() as u32).filter(|&d| shape[d as usize] != Size::ONE).collect()
    };
    let (dims, axes) = (wide(from), wide(to));
    let same = |(&d, &a): (&u32, &u32)| from[d as usize] == to[a as usize];
    if dims.len() != axes.len() || !dims.iter().zip(&axes).all(same) {
        return None;
    }
    let mut access = Access::new(from.iter().map(|_| Index::constant(0i64)));
    dims.iter().zip(&axes).for_each(|(&d, &a)| access.coords[d as usize] = Index::axis(a));
    Some(access)
}

/// A view that repeats its elements along all axes that a reshape splits, or merges, is a view that
/// repeats them along what these become.
fn reshaped_repetition(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reshape(Reshape { shape }) = at.op else { return None };
    let Op::View(view) = r.g.op(at.operands[0]).clone() else { return None };
    let coords = kept_coords(&view, shape)?;
    let access = read_through(&Access::new(coords), &view, shape);
    let x = r.g.operands(at.operands[0])[0];
    Some(r.make(View { axes: shape.clone(), access, fill: view.fill }, &[x], at.origin))
}

/// Where the axes of a view stand in `shape`; those that it does not read by stand still. All that
/// it reads by must be there.
fn kept_coords(view: &View, shape: &Shape) -> Option<Vec<Index>> {
    let used = |axis: usize| view.access.uses(Axis(axis as u32));
    let mut coords = vec![Index::constant(0i64); view.axes.len()];
    if let Some(split) = merged_dims(shape, &view.axes) {
        for axis in (0..coords.len()).filter(|&a| used(a)) {
            let whole = split[axis].len() == 1;
            coords[axis] = whole.then(|| Index::axis(split[axis].start as u32))?;
        }
        return Some(coords);
    }
    for (at, merged) in merged_dims(&view.axes, shape)?.into_iter().enumerate() {
        for axis in merged.clone().filter(|&a| used(a)) {
            coords[axis] = (merged.len() == 1).then(|| Index::axis(at as u32))?;
        }
    }
    Some(coords)
}

/// A pointwise operation on a reshape that merges dims works on what was merged instead, its other
/// operands seen in those dims, so that it fuses with what made them.
fn reshape_last(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    if !matches!(at.op, Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_)) {
        return None;
    }
    let is_reshape = |v: &&Value| matches!(r.g.op(**v), Op::Reshape(_));
    let reshape = *at.operands.iter().find(is_reshape)?;
    let split = r.shape(r.g.operands(reshape)[0]).clone();
    let shape = r.shape(reshape).clone();
    let access = split_access(&split, &merged_dims(&split, &shape)?)?;
    let operands: Vec<Value> = at
        .operands
        .iter()
        .map(|&v| match r.g.op(v) {
            Op::Reshape(_) if *r.shape(r.g.operands(v)[0]) == split => r.g.operands(v)[0],
            _ => {
                let fill = dlc_kernel::Scalar::new(r.g.ty(v).dtype, 0.0);
                let view = View { axes: split.clone(), access: access.clone(), fill };
                r.make(view, &[v], at.origin)
            }
        })
        .collect();
    let made = r.make(at.op.clone(), &operands, at.origin);
    Some(r.make(Reshape { shape }, &[made], at.origin))
}

/// For each dim of `to`: the consecutive dims of `from` that it merges.
pub(super) fn merged_dims(from: &Shape, to: &Shape) -> Option<Vec<std::ops::Range<usize>>> {
    let mut merged = Vec::with_capacity(to.len());
    let mut next = 0;
    for extent in to {
        let start = next;
        let mut product = Size::ONE;
        while next == start || product != *extent {
            product = product * from.get(next)?.clone();
            next += 1;
        }
        merged.push(start..next);
    }
    (next == from.len()).then_some(merged)
}

/// Reads a tensor of the merged dims at the dims `split`.
fn split_access(split: &Shape, merged: &[std::ops::Range<usize>]) -> Option<Access> {
    let coord = |dims: &std::ops::Range<usize>| {
        let mut stride = 1i64;
        let mut terms = Vec::new();
        for dim in dims.clone().rev() {
            terms.push((dim as u32, stride));
            if dim > dims.start {
                stride = stride.checked_mul(split[dim].as_const()?)?;
            }
        }
        Some(Index::affine(terms, 0i64))
    };
    Some(Access::new(merged.iter().map(coord).collect::<Option<Vec<_>>>()?))
}

/// Parts without elements are none.
fn empty_parts(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Concat(concat) = at.op else { return None };
    let is_empty = |&part: &Value| r.shape(part)[concat.axis as usize] == Size::ZERO;
    let kept: Vec<Value> = at.operands.iter().copied().filter(|part| !is_empty(part)).collect();
    let fewer = !kept.is_empty() && kept.len() < at.operands.len();
    fewer.then(|| r.make(at.op.clone(), &kept, at.origin))
}

fn one_part(_: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    (matches!(at.op, Op::Concat(_)) && at.operands.len() == 1).then(|| at.operands[0])
}

/// A sum of values that are 0 but for ranges of one axis, each for another one, is those ranges end
/// to end: what the gradient of a split is made of.
fn disjoint_parts(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (BinaryOp::Add, a, b) = at.as_binary()? else { return None };
    let (mut parts, mut open) = (Vec::new(), vec![a, b]);
    while let Some(value) = open.pop() {
        match r.operands_of(BinaryOp::Add, value) {
            Some((a, b)) if r.is_single_use(value) => open.extend([a, b]),
            _ if parts.len() == MOST_PARTS => return None,
            _ => parts.push(part(r, value)?),
        }
    }
    parts.sort_by_key(|part| part.start);
    let axis = parts[0].axis;
    let mut end = 0;
    for part in &parts {
        if part.axis != axis || part.start != end {
            return None;
        }
        end += part.extent;
    }
    if r.shape(a)[axis.0 as usize] != Size::from(end) {
        return None;
    }
    let parts: Vec<Value> =
        parts.into_iter().map(|part| r.make(part.inside, &[part.of], at.origin)).collect();
    Some(r.make(Concat { axis: axis.0 }, &parts, at.origin))
}

/// A view that is 0 outside of a range of one axis.
struct RangeOf {
    axis: Axis,
    start: i64,
    extent: i64,
    /// The view of the range alone, and of what.
    inside: View,
    of: Value,
}

fn part(r: &Rewriter<'_>, value: Value) -> Option<RangeOf> {
    let Op::View(view) = r.g.op(value) else { return None };
    let of = r.g.operands(value)[0];
    let coords = view.access.coords.iter().zip(r.shape(of).iter());
    let guards = view.access.guards.iter().map(|g| (&g.index, &g.extent));
    let mut leaving =
        coords.chain(guards).filter(|(index, extent)| !index.is_inside(&view.axes, extent));
    let (Some((index, extent)), None) = (leaving.next(), leaving.next()) else { return None };
    let [(axis, 1)] = index.terms[..] else { return None };
    let (start, extent) = (-index.offset.as_const()?, extent.as_const()?);
    let whole = view.axes[axis.0 as usize].as_const()?;
    if index.div != 1 || view.fill.value() != 0.0 || start < 0 || start + extent > whole {
        return None;
    }
    let mut axes = view.axes.clone();
    axes[axis.0 as usize] = Size::from(extent);
    let shifted =
        |a: u32| if a == axis.0 { Index::affine([(a, 1)], start) } else { Index::axis(a) };
    let map: Vec<Index> = (0..axes.len() as u32).map(shifted).collect();
    let coords = view.access.coords.iter().map(|coord| coord.compose(&map)).collect();
    let inside =
        View { axes, access: Access { coords, guards: Default::default() }, ..view.clone() };
    Some(RangeOf { axis, start, extent, inside, of })
}
