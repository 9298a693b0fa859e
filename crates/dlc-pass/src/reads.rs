//! Which values an operation reads at a point, and where: the facts that fusion and lowering decide
//! on. They are traced from the operations' own lowering rules, so no operation is known by name.

use crate::class::{Class, class};
use dlc_graph::op::{Lowering, Points};
use dlc_graph::{Graph, Operands, Shape, Value};
use dlc_kernel::{Access, DType, ExprId, Exprs, Index, Size};
use smallvec::SmallVec;

/// A place in a tensor: one index per dim, over the axes of whatever reads it.
pub type Coords = SmallVec<[Index; 4]>;

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At points that are always inside it.
    Inside,
    /// At points that may lie outside, where something else takes its place.
    Guarded,
    /// At a coordinate that data decides: it must be in memory.
    Lookup,
}

/// One read.
#[derive(Clone, Debug)]
pub struct Read {
    /// What is read; never a free value.
    pub value: Value,
    /// Where.
    pub at: Coords,
    /// How.
    pub mode: Mode,
}

/// The reads of `value` over its own axes; for folds and contractions the axes they reduce follow.
/// Free values ([`class`]) are looked through.
pub fn reads(graph: &Graph, value: Value) -> Vec<Read> {
    let operands = graph.operands(value);
    let mut pending: Vec<Read> = Vec::new();
    let axes = domain(graph, value);
    match graph.op(value).rules().lower() {
        Lowering::Source | Lowering::Never => {}
        Lowering::Each(_) | Lowering::Point(_) => {
            let direct = trace_one(graph, value, &identity(axes.len()), &axes);
            return look_through(graph, direct, axes);
        }
        Lowering::Fold(reduce) => {
            let rank = graph.ty(operands[0]).rank();
            let at = fold_coords(rank, &reduce.axes);
            pending.push(Read { value: operands[0], at, mode: Mode::Inside });
        }
        Lowering::Contract(contract) => {
            for (k, access) in [&contract.lhs, &contract.rhs].into_iter().enumerate() {
                let mode = mode_of(access, &graph.ty(operands[k]).shape, &axes);
                pending.push(Read { value: operands[k], at: access.coords.clone(), mode });
            }
        }
        Lowering::Scan(_) | Lowering::Overwrite(_) => {
            let of = |&v: &Value| trace_read(graph, v, identity(graph.ty(v).rank()));
            return operands.iter().flat_map(of).collect();
        }
        // Whole tensors, in memory.
        _ => {
            let whole = |&v: &Value| {
                let at = identity(graph.ty(v).rank());
                Read { value: v, at, mode: Mode::Lookup }
            };
            return operands.iter().map(whole).collect();
        }
    }
    look_through(graph, pending, axes)
}

/// The axes over which [`reads`] of `value` are: its own, then those it reduces.
pub fn domain(graph: &Graph, value: Value) -> Shape {
    let mut axes = graph.ty(value).shape.clone();
    match graph.op(value).rules().lower() {
        Lowering::Fold(reduce) => {
            let shape = &graph.ty(graph.operands(value)[0]).shape;
            axes.extend(reduce.axes.iter().map(|&a| shape[a as usize].clone()));
        }
        Lowering::Contract(contract) => axes.extend(contract.reduce.iter().cloned()),
        _ => {}
    }
    axes
}

/// The coordinates of every element, each dim its own axis.
pub fn identity(rank: usize) -> Coords {
    (0..rank as u32).map(Index::axis).collect()
}

/// Where a fold over `axes` reads its operand of rank `rank`: kept dims are the first axes.
pub fn fold_coords(rank: usize, axes: &[u32]) -> Coords {
    let kept = (rank - axes.len()) as u32;
    let (mut outer, mut inner) = (0, kept);
    let mut place = |reduced: bool| {
        let next = if reduced { &mut inner } else { &mut outer };
        *next += 1;
        Index::axis(*next - 1)
    };
    (0..rank as u32).map(|d| place(axes.contains(&d))).collect()
}

/// `coords` with every axis `a` replaced by `map[a]`.
pub fn compose(coords: &[Index], map: &[Index]) -> Coords {
    coords.iter().map(|c| c.compose(map)).collect()
}

/// What a kernel reads that reads `value` at `at`, over the dims of `value`.
pub fn trace_read(graph: &Graph, value: Value, at: Coords) -> Vec<Read> {
    let axes = graph.ty(value).shape.clone();
    look_through(graph, vec![Read { value, at, mode: Mode::Inside }], axes)
}

fn look_through(graph: &Graph, mut pending: Vec<Read>, axes: Shape) -> Vec<Read> {
    let ends = |r: &Read| r.mode == Mode::Lookup || class(graph, r.value) != Class::Free;
    if pending.iter().all(ends) {
        return pending;
    }
    let mut found = Vec::new();
    pending.reverse();
    while let Some(read) = pending.pop() {
        if ends(&read) {
            found.push(read);
            continue;
        }
        let mut inner = trace_one(graph, read.value, &read.at, &axes);
        if read.mode == Mode::Guarded {
            inner
                .iter_mut()
                .filter(|r| r.mode == Mode::Inside)
                .for_each(|r| r.mode = Mode::Guarded);
        }
        inner.reverse();
        pending.extend(inner);
    }
    found
}

/// What the operation of `value` itself reads at `at`, each place once.
fn trace_one(graph: &Graph, value: Value, at: &[Index], axes: &[Size]) -> Vec<Read> {
    let operands = graph.operands(value);
    let mut reads: Vec<Read> = Vec::with_capacity(operands.len());
    if operands.is_empty() {
        return reads;
    }
    match graph.op(value).rules().lower() {
        Lowering::Each(_) => {
            for &value in &operands {
                if reads.iter().all(|read| read.value != value) {
                    reads.push(Read { value, at: at.into(), mode: Mode::Inside });
                }
            }
        }
        Lowering::Point(rule) => {
            rule(&mut Tracer { graph, operands, axes, exprs: Exprs::new(), reads: &mut reads }, at);
        }
        _ => unreachable!("only pointwise operations are looked through"),
    }
    reads
}

fn mode_of(access: &Access, shape: &[Size], axes: &[Size]) -> Mode {
    let inside = access.guards.is_empty()
        && access.coords.iter().zip(shape).all(|(c, extent)| c.is_inside(axes, extent));
    if inside { Mode::Inside } else { Mode::Guarded }
}

/// Notes what a rule asks for, and answers with placeholders of the right type.
struct Tracer<'a> {
    graph: &'a Graph,
    operands: Operands,
    axes: &'a [Size],
    exprs: Exprs,
    reads: &'a mut Vec<Read>,
}

impl Tracer<'_> {
    fn note(&mut self, k: usize, at: &[Index], mode: Mode) -> ExprId {
        let value = self.operands[k];
        let read = Read { value, at: at.iter().cloned().collect(), mode };
        let same = |r: &&mut Read| r.value == value && r.at == read.at;
        match self.reads.iter_mut().find(same) {
            Some(known) if mode == Mode::Lookup => known.mode = mode,
            Some(known) if known.mode == Mode::Guarded => known.mode = mode,
            Some(_) => {}
            None => self.reads.push(read),
        }
        let dtype: DType = self.graph.ty(value).dtype;
        self.exprs.constant(dtype, 1.0)
    }
}

impl Points for Tracer<'_> {
    fn exprs(&mut self) -> &mut Exprs {
        &mut self.exprs
    }

    fn axes(&self) -> &[Size] {
        self.axes
    }

    fn shape(&self, k: usize) -> &[Size] {
        &self.graph.ty(self.operands[k]).shape
    }

    fn operand(&mut self, k: usize, at: &[Index]) -> ExprId {
        self.note(k, at, Mode::Inside)
    }

    fn operand_or(&mut self, k: usize, access: &Access, _: f64) -> ExprId {
        let mode = mode_of(access, &self.graph.ty(self.operands[k]).shape, self.axes);
        self.note(k, &access.coords, mode)
    }

    fn lookup(&mut self, k: usize, at: &[Index], _: u32, _: ExprId) -> ExprId {
        self.note(k, at, Mode::Lookup)
    }

    fn index(&mut self, _: &Index) -> ExprId {
        self.exprs.constant(DType::I32, 1.0)
    }
}
