//! What was decided for a kernel, in words.

use crate::beside::Beside;
use crate::codegen::Phase;
use crate::schedule::Schedule;
use crate::schedule::contract::{Algorithm, ContractSchedule, PackOrder, Tiling};
use crate::schedule::map::{MapSchedule, MapShape};
use crate::schedule::row::{RowLanes, RowSchedule};
use crate::share::share_out;
use dlc_kernel::{BufferId, Decision, Form, Index, Kernel, Program, Size};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The decisions behind the schedule of `form` and the phases it became, where a call may use `threads`;
/// of one of `steps` steps, if the kernel is in loops.
pub fn decision(
    form: &Form,
    schedule: &Schedule,
    phases: &[Phase],
    steps: i64,
    threads: usize,
) -> Decision {
    let workers = phases.iter().map(|phase| share_out(&phase.parts, steps, threads).len());
    let threads = workers.max().unwrap_or(1);
    let (algorithm, tile, layout) = match schedule {
        Schedule::Contract(contract) => of_contraction(form, contract),
        Schedule::Row(row) => (of_row(row), None, row_major()),
        Schedule::Map(segments) => of_map(segments),
        Schedule::Scatter(scatter) => {
            let by = if scatter.lines.is_some() { "lines by a leaf" } else { "elements" };
            (format!("updates one after another, {by}"), None, row_major())
        }
        Schedule::Shared { .. } => ("nothing: two names of one buffer".into(), None, row_major()),
        Schedule::Copy { .. } => ("copy".into(), None, row_major()),
        Schedule::Check(_) => ("scan".into(), None, row_major()),
    };
    Decision { algorithm, tile, layout, threads }
}

/// The decisions behind a loop: those of its kernels, by name, in one.
pub fn of_loop(steps: i64, kernels: Vec<(&str, Decision)>) -> Decision {
    let threads = kernels.iter().map(|k| k.1.threads).max().unwrap_or(1);
    let joined = |words: &dyn Fn(&Decision) -> Option<String>| {
        let each = kernels.iter().filter_map(|(name, d)| Some(format!("{name}: {}", words(d)?)));
        each.collect::<Vec<_>>().join("; ")
    };
    let algorithm = format!("{steps} steps of {}", joined(&|d| Some(d.algorithm.clone())));
    let tile = Some(joined(&|d| d.tile.clone())).filter(|tile| !tile.is_empty());
    let layout = joined(&|d| Some(d.layout.clone()));
    Decision { algorithm, tile, layout, threads }
}

/// Says of loops that each runs on one thread, beside the others.
pub fn run_beside(decisions: &mut [Decision], kernels: &[Kernel], beside: &Beside) {
    let loops = &beside.neighbours.loops;
    let names = |loops: &[usize]| {
        let names: Vec<&str> = loops.iter().map(|&at| &*kernels[at].name).collect();
        names.join(", ")
    };
    for (number, at) in loops.clone().enumerate() {
        let own = &beside.neighbours.members[number];
        let others: Vec<usize> = loops.clone().filter(|&other| other != at).collect();
        let mut followed: Vec<usize> = own.needs.iter().map(|n| loops.start + n.of).collect();
        followed.dedup();
        let thread = beside.threads.iter().position(|own| own.contains(&number));
        let thread = thread.expect("each loop has a thread") + 1;
        let idle = if own.is_free { " or one that is idle" } else { "" };
        let algorithm = &mut decisions[at].algorithm;
        *algorithm += &format!("; on thread {thread}{idle}, beside {}", names(&others));
        if !followed.is_empty() {
            *algorithm += &format!(", following {}", names(&followed));
        }
        decisions[at].threads = 1;
    }
}

/// Adds to a kernel's layout which of its buffers are stored otherwise than the program before it was
/// arranged says, and how.
pub fn add_moved(decision: &mut Decision, kernel: &Kernel, before: &Program, after: &Program) {
    let touched: BTreeSet<BufferId> = kernel.reads().into_iter().chain(kernel.writes()).collect();
    let mut moved: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in touched {
        let (known, own) = (before.buffers.get(id.0 as usize), after.buffer(id));
        if let Some(known) = known.filter(|known| known.shape != own.shape) {
            moved.entry(rearranged(&known.shape, &own.shape)).or_default().push(&own.name);
        }
    }
    for (how, names) in moved {
        decision.layout += &format!("; {how} in {}", names.join(", "));
    }
}

/// How a buffer of one shape became one of another, whose rows may have a gap between them.
fn rearranged(from: &[Size], to: &[Size]) -> &'static str {
    let rank = from.len();
    let is = |shape: &[Size]| shape[..rank - 1] == to[..rank - 1];
    let turned = |dims: Range<usize>, turn: fn(&mut [Size])| {
        let mut shape = from.to_vec();
        turn(&mut shape[dims]);
        is(&shape)
    };
    match () {
        () if rank != to.len() || rank == 0 => "slices",
        () if is(from) => "rows apart",
        () if (1..rank).any(|last| turned(0..last + 1, |dims| dims.rotate_right(1))) => {
            "steps first"
        }
        () if (0..rank).any(|first| turned(first..rank, |dims| dims.rotate_left(1))) => {
            "channels last"
        }
        () => "another order",
    }
}

/// What every buffer is.
fn row_major() -> String {
    "row-major".into()
}

fn of_contraction(form: &Form, contract: &ContractSchedule) -> (String, Option<String>, String) {
    let order = |order| if order == PackOrder::Side { "along the side" } else { "along the depth" };
    match &contract.algorithm {
        Algorithm::Plain => ("point by point, in scalars".into(), None, row_major()),
        Algorithm::Dot => ("a dot product in vectors for each point".into(), None, row_major()),
        Algorithm::Sweep(run) => {
            (format!("runs of {run} columns summed in place"), None, row_major())
        }
        Algorithm::Tiled(tiling) => {
            let layout = format!(
                "rows {}, {}; columns {}, {}",
                tiling.rows,
                order(contract.rows.order),
                tiling.columns,
                order(contract.columns.order)
            );
            let sums = contract.describe_sums(tiling);
            let window = if has_window(form) { ", over a window" } else { "" };
            let tuned = if contract.tuned { ", tuned" } else { "" };
            (format!("register tiles, {sums}{window}{tuned}"), Some(tile(contract, tiling)), layout)
        }
    }
}

/// Whether several places of the results meet one element of an operand, at different terms of the sum, as
/// in a convolution by more than 1x1.
fn has_window(form: &Form) -> bool {
    let Form::Contract { out, sums, reduce, exprs, lhs, rhs, .. } = form else { return false };
    let extents = [&out[..], sums, reduce].concat();
    let overlaps = |index: &Index| {
        let extent = |axis: usize| extents[axis].as_const().unwrap_or(1);
        let steps = index.terms.iter().map(|&(axis, step)| (step.abs(), extent(axis.0 as usize)));
        let mut steps: Vec<(i64, i64)> = steps.filter(|s| s.1 > 1).collect();
        steps.sort_unstable();
        let mut reach = 0;
        steps.into_iter().any(|(step, extent)| {
            let inside = step <= reach;
            reach += step * (extent - 1);
            inside
        })
    };
    exprs.loads([*lhs, *rhs]).any(|(_, access)| access.coords.iter().any(overlaps))
}

/// The tile and the blocks, as far as there are rows, columns and terms.
fn tile(contract: &ContractSchedule, t: &Tiling) -> String {
    let shares = if t.shares.count > 1 {
        format!(", {} shares of the depth", t.shares.count)
    } else {
        "".into()
    };
    let [rows, columns] = [&contract.rows, &contract.columns].map(|side| side.axes.points());
    let columns = contract.bundle.map_or(columns, |b| b.sums * b.all);
    let clip = |r: i64, c: i64| format!("{}x{}", r.min(rows), c.min(columns));
    format!(
        "{} in blocks of {}, {} deep{shares}",
        clip(t.tile.rows, t.tile.columns),
        clip(t.row_block, t.column_block),
        t.depth_block.min(contract.depth.points())
    )
}

fn of_row(row: &RowSchedule) -> String {
    if row.abreast.is_some() {
        let blocks = row.blocks().map(|blocks| format!(", points in {blocks}"));
        return format!("rows side by side, by leaves{}", blocks.unwrap_or_default());
    }
    let passes = match row.passes.len() {
        1 => "one pass".to_owned(),
        n => format!("{n} passes"),
    };
    let leaves = match row.passes.iter().filter(|p| p.stretch.is_some()).count() {
        0 => String::new(),
        n => format!(", {n} by leaves"),
    };
    let lanes = match row.lanes {
        RowLanes::None => "in scalars",
        _ => "in vectors",
    };
    let chunks = if row.chunks > 1 { format!(", {} chunks a row", row.chunks) } else { "".into() };
    format!("rows in {passes}{leaves}, {lanes}{chunks}")
}

fn of_map(segments: &[MapSchedule]) -> (String, Option<String>, String) {
    let leaves = segments.iter().filter(|s| s.is_by_leaf()).count();
    let mut shapes: Vec<&str> = segments.iter().map(|s| shape(&s.shape)).collect();
    shapes.sort_unstable();
    shapes.dedup();
    let algorithm = match segments.len() {
        1 => format!("pointwise, {}{}", shapes[0], if leaves > 0 { ", by a leaf" } else { "" }),
        n => format!("pointwise in {n} segments ({leaves} by leaves), {}", shapes.join(" or ")),
    };
    let block = match segments {
        [MapSchedule { shape: MapShape::Nested { block, .. }, .. }] => {
            Some(format!("{block} elements"))
        }
        [MapSchedule { shape: MapShape::Crossed(crossed), .. }] => {
            let [along, across] = crossed.block;
            Some(format!("{along}x{across}, {} turned", crossed.turns()))
        }
        _ => None,
    };
    (algorithm, block, row_major())
}

fn shape(shape: &MapShape) -> &'static str {
    match shape {
        MapShape::Scalar => "in scalars",
        MapShape::Flat => "in whole vectors",
        MapShape::Nested { .. } => "in vectors along an axis",
        MapShape::Crossed(_) => "in blocks of two axes",
    }
}
