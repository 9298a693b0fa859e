//! Loops of kernels: the kernels of a scan's body, and the histories of its carries.

use super::EntryBuilder;
use super::emit::Emitter;
use super::flatten::{Carry, Nest};
use super::place::Place;
use crate::class::{Class, class};
use crate::reads::identity;
use dlc_graph::op::Op;
use dlc_graph::{Shape, Type, Value};
use dlc_kernel::{
    Access, BufferId, Class as BufferClass, Expr, Exprs, Form, Index, Kernel, Scalar, Segment,
    Size, Store,
};
use smallvec::SmallVec;

impl EntryBuilder<'_> {
    /// Adds the kernels of the values in `range` that loop `of` computes, with those of the loops in
    /// it in their places.
    pub(super) fn add_kernels(&mut self, range: std::ops::Range<u32>, of: Option<usize>) {
        let mut at = range.start;
        while at < range.end {
            let starts = |n: &Nest| n.outer == of && n.values.start == at;
            match self.nests.iter().position(starts) {
                Some(inner) if !self.nests[inner].values.is_empty() => {
                    at = self.nests[inner].values.end;
                    self.add_loop(inner);
                }
                _ => {
                    self.add_own(at..at + 1, of);
                    at += 1;
                }
            }
        }
    }

    /// Adds the kernels of the values in `range` that are in loop `of`, but in none in it.
    fn add_own(&mut self, range: std::ops::Range<u32>, of: Option<usize>) {
        for value in range.map(Value) {
            if self.stored[value.0 as usize] && self.inside[value.0 as usize] == of {
                self.add_kernel(value);
            }
        }
    }

    fn add_loop(&mut self, at: usize) {
        let nest = &self.nests[at];
        // What is the same at every step comes before the loop.
        self.add_own(nest.values.clone(), nest.outer);
        let start = self.start(nest);
        let copied = self.claim_histories(at);
        self.kernels.push(Vec::new());
        self.add_kernels(nest.values.clone(), Some(at));
        if !copied.is_empty() {
            let kernel = self.copy_carries(nest, &copied);
            self.kernels.last_mut().expect("it was opened").push(kernel);
        }
        let body = self.kernels.pop().expect("it was opened");
        let name = self.names.of_loop(&nest.origin);
        let form = Form::Loop { steps: nest.steps.clone(), start, body };
        self.named.insert(Value(nest.values.start), name.clone());
        let kernel = Kernel { name, origin: nest.origin.clone(), form };
        self.kernels.last_mut().expect("the entry is open").push(kernel);
    }

    /// Makes the buffers of histories, and lets next values be written there. Gives the carries
    /// whose next values are copied.
    fn claim_histories(&mut self, at: usize) -> Vec<(Carry, Place)> {
        let nest = &self.nests[at];
        let mut copied = Vec::new();
        for &carry in &nest.carries {
            let history = self.buffers[&carry.history];
            let next = Place { next: Some(nest.depth), ..history };
            let returned = self.graph.results().iter().any(|r| r.value == carry.next);
            if self.inside[carry.next.0 as usize] == Some(at)
                && !returned
                && !self.homes.contains_key(&carry.next)
                && self.is_placed(carry.next)
            {
                self.homes.insert(carry.next, next);
            } else {
                copied.push((carry, next));
            }
        }
        copied
    }

    /// Whether the kernel that makes `value` writes it point by point.
    fn is_placed(&self, value: Value) -> bool {
        let free = matches!(class(self.graph, value), Class::Free | Class::Source);
        !free && !matches!(self.graph.op(value), Op::ScatterAdd(_))
    }

    /// Writes first values into histories.
    fn start(&mut self, nest: &Nest) -> Vec<Kernel> {
        let mut segments = Vec::new();
        for carry in &nest.carries {
            let ty = self.graph.ty(carry.history).clone();
            let buffer = self.add_buffer("carry", &ty, BufferClass::Temp);
            self.buffers.insert(carry.history, Place::whole(buffer));
            let shape = self.graph.ty(carry.first).shape.clone();
            segments.push(self.history_segment(carry.first, shape, |at| {
                let (outer, own) = at.split_at(nest.depth);
                let zero = [Index::constant(0i64)];
                (buffer, Access::new(outer.iter().chain(&zero).chain(own).cloned()))
            }));
        }
        if segments.is_empty() {
            return Vec::new();
        }
        let (name, origin) = (self.names.unique("start"), nest.origin.clone());
        vec![Kernel { name, origin, form: Form::Map { segments } }]
    }

    fn copy_carries(&mut self, nest: &Nest, copied: &[(Carry, Place)]) -> Kernel {
        let segment = |(carry, place): &(Carry, Place)| {
            let shape = self.graph.ty(carry.next).shape.clone();
            self.history_segment(carry.next, shape.clone(), |at| {
                let access = Access::new(at.iter().cloned());
                (place.buffer, place.access(&access, &shape, &shape))
            })
        };
        let segments = copied.iter().map(segment).collect();
        let (name, origin) = (self.names.unique("carry"), nest.origin.clone());
        Kernel { name, origin, form: Form::Map { segments } }
    }

    fn history_segment(
        &self,
        value: Value,
        axes: Shape,
        store: impl Fn(&[Index]) -> (BufferId, Access),
    ) -> Segment {
        let at = identity(axes.len());
        let mut emit = Emitter::new(self.graph, &self.buffers, axes.clone());
        let value = emit.value(value, &at);
        let (buffer, access) = store(&at);
        let stores = vec![Store { buffer, access, value }];
        Segment { axes, exprs: emit.finish(), stores }
    }

    /// A reshape in a loop, in two maps: the elements of a step in a row, then in the new shape.
    pub(super) fn add_reshape(&mut self, value: Value, depth: usize) {
        let operand = self.graph.operands(value)[0];
        let (from, to) = (self.graph.ty(operand).clone(), self.graph.ty(value).clone());
        let steps = from.shape[..depth].iter().cloned();
        let count: Size = from.shape[depth..].iter().cloned().product();
        let flat = Type::new(from.dtype, steps.chain([count]));
        let row = self.add_buffer("row", &flat, BufferClass::Temp);
        let gathered = self.history_segment(operand, from.shape.clone(), |at| {
            (row, in_a_row(at, &from.shape, depth))
        });
        self.push_kernel(value, Form::Map { segments: vec![gathered] });
        let place = self.place(value);
        let (at, mut exprs) = (identity(to.rank()), Exprs::new());
        let (access, fill) = (in_a_row(&at, &to.shape, depth), Scalar::new(to.dtype, 0.0));
        let made = exprs.add(Expr::Load { buffer: row, access, lookups: SmallVec::new(), fill });
        let access = place.access(&Access::new(at), &to.shape, &to.shape);
        let stores = vec![Store { buffer: place.buffer, access, value: made }];
        self.push_kernel(
            value,
            Form::Map { segments: vec![Segment { axes: to.shape, exprs, stores }] },
        );
    }
}

/// The coordinates `at`, those from `depth` on as one row-major position.
fn in_a_row(at: &[Index], shape: &[Size], depth: usize) -> Access {
    let mut stride = 1;
    let mut terms = Vec::new();
    for dim in (depth..shape.len()).rev() {
        terms.push((dim as u32, stride));
        stride *= shape[dim].as_const().expect("sizes are bound").max(1);
    }
    let position = Index::affine(terms, Size::ZERO);
    Access::new(at[..depth].iter().cloned().chain([position]))
}
