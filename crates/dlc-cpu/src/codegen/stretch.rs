//! Calls of loop leaves: the argument block of a [`Stretch`] is filled, and its folds are read.
//! Where loads are not always inside, a run of points is called for in up to three parts.

use super::expr::{Evaluator, Val};
use super::fold::Reducer;
use super::nest::{Point, Run};
use super::{Emitter, NOTRAP, load};
use crate::leaf::Leaf;
use crate::leaf::loops::Loop;
use crate::schedule::domain::Check;
use crate::schedule::stretch::Stretch;
use crate::schedule::window::Window;
use cranelift_codegen::ir::types::{F32, I8, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Axis, DType};

/// Computes `count` points of the stretch from `start` on; gives the results of its folds.
pub(super) fn call(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    points: [Value; 2],
) -> Vec<Value> {
    let room = room(e, stretch);
    call_in(e, ev, stretch, room, points)
}

/// Where the worker's scratch room begins, if the stretch has some of it.
fn room(e: &mut Emitter, stretch: &Stretch) -> Value {
    if stretch.uses_scratch() { e.scratch() } else { e.int(0) }
}

/// [`call`] with a scratch room that begins at `room`.
pub(super) fn call_in(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    room: Value,
    [start, count]: [Value; 2],
) -> Vec<Value> {
    let Some(window) = &stretch.window else {
        return call_leaf(e, ev, stretch, room, [start, count]);
    };
    let end = e.b.ins().iadd(start, count);
    let point = window_point(e, ev, window, &[stretch.axis]);
    let run = Run { flat: start, start, end };
    let (low, high) = e.inside(window.checks.iter(), &point, stretch.axis, run);
    let mut part = |stretch, from, to| {
        let count = e.b.ins().isub(to, from);
        call_leaf(e, ev, stretch, room, [from, count])
    };
    let mut results = part(stretch, low, high);
    let Some(stretch) = &window.beyond else { return results };
    let beyond = [(window.before, start, low), (window.after, high, end)];
    let beyond = beyond.into_iter().filter(|&(exists, ..)| exists);
    let beyond: Vec<_> = beyond.map(|(_, from, to)| part(stretch, from, to)).collect();
    for others in beyond {
        for ((result, other), fold) in results.iter_mut().zip(others).zip(&stretch.leaf.folds) {
            let reducer = Reducer { op: fold.op, element: fold.dtype };
            *result = reducer.merge(e, &[*result], &[other])[0];
        }
    }
    results
}

/// Computes `count` points of the stretch from `start` on, in the `lines` lines from `first` on; gives the results
/// of its folds. What there is beyond a window is stored first, to all points.
pub(super) fn call_lines(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    run: [Value; 2],
    lines: [Value; 2],
) -> Vec<Value> {
    let room = room(e, stretch);
    call_lines_in(e, ev, stretch, room, run, lines)
}

/// [`call_lines`] with a scratch room that begins at `room`.
pub(super) fn call_lines_in(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    room: Value,
    run: [Value; 2],
    lines: [Value; 2],
) -> Vec<Value> {
    let Some(window) = &stretch.window else {
        return call_leaf_lines(e, ev, stretch, room, run, lines);
    };
    let down = stretch.lines.expect("it has lines");
    match &window.beyond {
        Some(beyond) if beyond.lines.is_some() => {
            call_leaf_lines(e, ev, beyond, room, run, lines);
        }
        Some(beyond) => {
            let points = e.b.ins().imul(run[1], lines[1]);
            ev.enter();
            ev.set_axis(down, lines[0]);
            call_leaf(e, ev, beyond, room, [run[0], points]);
            ev.leave();
        }
        None => {}
    }
    let point = window_point(e, ev, window, &[stretch.axis, down]);
    let (across, along): (Vec<&Check>, Vec<&Check>) =
        window.checks.iter().partition(|check| check.index.coef(down) != 0);
    let mut inside = |checks: Vec<&Check>, axis, [start, count]: [Value; 2]| {
        let end = e.b.ins().iadd(start, count);
        let run = Run { flat: start, start, end };
        let (low, high) = e.inside(checks.into_iter(), &point, axis, run);
        [low, e.b.ins().isub(high, low)]
    };
    let [run, lines] = [inside(along, stretch.axis, run), inside(across, down, lines)];
    call_leaf_lines(e, ev, stretch, room, run, lines)
}

/// The coordinates that the conditions of a window read, but for those of `open` axes.
fn window_point(e: &mut Emitter, ev: &Evaluator, window: &Window, open: &[Axis]) -> Point {
    let mut point = e.origin(ev.domain.extents.len());
    for &(axis, _) in window.checks.iter().flat_map(|c| &c.index.terms) {
        if !open.contains(&axis) {
            point[axis.0 as usize] = ev.axis(axis);
        }
    }
    point
}

/// [`call_lines`] of the stretch's own leaf.
fn call_leaf_lines(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    room: Value,
    run: [Value; 2],
    [first, lines]: [Value; 2],
) -> Vec<Value> {
    ev.enter();
    ev.set_axis(stretch.lines.expect("it has lines"), first);
    let args = fill_arguments(e, ev, stretch, room, run);
    ev.leave();
    e.b.ins().store(NOTRAP, lines, args, Loop::LINES);
    finish(e, stretch, args)
}

/// [`call_in`] of the stretch's own leaf, for one line.
fn call_leaf(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    room: Value,
    run: [Value; 2],
) -> Vec<Value> {
    let args = fill_arguments(e, ev, stretch, room, run);
    if stretch.leaf.lines.is_some() {
        let one = e.int(1);
        e.b.ins().store(NOTRAP, one, args, Loop::LINES);
    }
    finish(e, stretch, args)
}

/// Calls the leaf; gives the results of its folds, if they are not over columns.
fn finish(e: &mut Emitter, stretch: &Stretch, args: Value) -> Vec<Value> {
    let leaf = &*stretch.leaf;
    e.call_leaf(Leaf::Loop(stretch.leaf.clone()), args);
    if !leaf.column_states().is_empty() {
        return Vec::new();
    }
    let result = |(k, fold): (usize, &crate::leaf::loops::Fold)| {
        let ty = if fold.dtype == DType::F32 { F32 } else { I32 };
        e.b.ins().load(ty, NOTRAP, args, leaf.fold_at(k))
    };
    leaf.folds.iter().enumerate().map(result).collect()
}

/// The argument block of a call of the leaf for some points.
fn fill_arguments(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    room: Value,
    [start, count]: [Value; 2],
) -> Value {
    let leaf = &*stretch.leaf;
    let args = e.argument_block(leaf.args_bytes());
    e.b.ins().store(NOTRAP, count, args, Loop::COUNT);
    ev.enter();
    ev.set_axis(stretch.axis, start);
    let lanes = ev.lanes();
    ev.set_lanes(None);
    for (k, stream) in stretch.addresses.iter().enumerate() {
        for found in &stream.place.found {
            ev.value(e, found.index);
        }
        let (offset, inside) = load::place_offset(ev, e, &stream.place, None, None);
        // A run that fails goes on with what is there.
        let offset = match inside {
            Some(inside) => {
                let first = e.int(0);
                e.b.ins().select(inside, offset, first)
            }
            None => offset,
        };
        let base = match stream.buffer {
            Some(buffer) => e.base(buffer),
            None => room,
        };
        let address = e.add_scaled(base, offset, stream.dtype.bytes() as i64);
        e.b.ins().store(NOTRAP, address, args, leaf.address_at(k));
    }
    for (k, &id) in stretch.uniforms.iter().enumerate() {
        let Val::Uniform(value) = ev.value(e, id) else { unreachable!("there are no lanes") };
        let is_truth = e.b.func.dfg.value_type(value) == I8;
        let value = if is_truth { e.b.ins().bmask(I32, value) } else { value };
        e.b.ins().store(NOTRAP, value, args, leaf.uniform_at(k));
    }
    ev.set_lanes(lanes);
    ev.leave();
    args
}
