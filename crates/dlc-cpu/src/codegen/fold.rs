//! Folds as code: from one state to the next, across lanes, and between partial results.

use super::expr::splat;
use super::ops::{self, select};
use super::{Emitter, load};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{DType, FoldOp, Scalar, merge_op};

/// Merges states pairwise, neighbours first.
pub(super) fn merge_all(
    e: &mut Emitter,
    reducer: Reducer,
    mut states: Vec<Vec<Value>>,
) -> Vec<Value> {
    while states.len() > 1 {
        let merge = |pair: &[Vec<Value>]| match pair {
            [a, b] => reducer.merge(e, a, b),
            one => one[0].clone(),
        };
        states = states.chunks(2).map(merge).collect();
    }
    states.swap_remove(0)
}

/// How a fold goes from state to state. The state of a position is the best element and where it
/// is; of any other fold, the value.
#[derive(Clone, Copy)]
pub(super) struct Reducer {
    pub(super) op: FoldOp,
    pub(super) element: DType,
}

impl Reducer {
    /// The state before the first element.
    pub(super) fn initial(self, e: &mut Emitter, vectors: bool) -> Vec<Value> {
        let value = Scalar::new(self.element, self.op.of_value().empty(self.element));
        let value = load::constant(e, value);
        let mut state = vec![value];
        if self.op.is_position() {
            state[0] = self.comparable(e, value);
            let zero = Scalar::new(DType::I32, 0.0);
            state.push(load::constant(e, zero));
        }
        if vectors {
            state.iter_mut().for_each(|v| *v = splat(e, *v));
        }
        state
    }

    /// The state after `element`; lanes outside `mask` stay as they are.
    pub(super) fn fold(
        self,
        e: &mut Emitter,
        state: Value,
        element: Value,
        mask: Option<Value>,
    ) -> Value {
        let element = match mask {
            None => element,
            Some(mask) => {
                let neutral = self.initial(e, true)[0];
                select(e, mask, element, neutral)
            }
        };
        self.merge(e, &[state], &[element])[0]
    }

    pub(super) fn fold_position(
        self,
        e: &mut Emitter,
        state: &[Value],
        element: Value,
        position: Value,
        mask: Option<Value>,
    ) -> Vec<Value> {
        let element = self.comparable(e, element);
        let mut beats = self.beats(e, element, state[0]);
        if let Some(mask) = mask {
            beats = e.b.ins().band(beats, mask);
        }
        vec![select(e, beats, element, state[0]), select(e, beats, position, state[1])]
    }

    /// The state of two parts of the elements; of equal elements the first position counts.
    pub(super) fn merge(self, e: &mut Emitter, a: &[Value], b: &[Value]) -> Vec<Value> {
        if let Some(op) = merge_op(self.op) {
            return vec![ops::binary(e, op, self.element, a[0], b[0])];
        }
        let b_beats = self.beats(e, b[0], a[0]);
        let a_beats = self.beats(e, a[0], b[0]);
        let earlier = e.b.ins().icmp(IntCC::SignedLessThan, b[1], a[1]);
        let tie = e.b.ins().band_not(earlier, a_beats);
        let take = e.b.ins().bor(b_beats, tie);
        vec![select(e, take, b[0], a[0]), select(e, take, b[1], a[1])]
    }

    /// The result over the lanes of a state of vectors.
    pub(super) fn across(self, e: &mut Emitter, state: &[Value]) -> Value {
        let mut state = state.to_vec();
        for picks in [[2, 3, 0, 1], [1, 0, 3, 2]] {
            let other: Vec<Value> = state.iter().map(|&v| load::shuffle(e, v, v, picks)).collect();
            state = self.merge(e, &state, &other);
        }
        let result = *state.last().expect("a fold has a state");
        let dtype = if self.op.is_position() { DType::I32 } else { self.element };
        load::extract(e, dtype, result, 0)
    }

    /// An element in a type that has an order: truth values become numbers.
    fn comparable(self, e: &mut Emitter, element: Value) -> Value {
        match self.element {
            DType::Bool => ops::cast(e, DType::Bool, DType::I32, element),
            _ => element,
        }
    }

    /// Whether `x` is better than `best`; NaN is better than any number.
    fn beats(self, e: &mut Emitter, x: Value, best: Value) -> Value {
        let (a, b) = if self.op == FoldOp::ArgMax { (best, x) } else { (x, best) };
        if self.element != DType::F32 {
            return e.b.ins().icmp(IntCC::SignedLessThan, a, b);
        }
        let better = e.b.ins().fcmp(FloatCC::LessThan, a, b);
        let nan = e.b.ins().fcmp(FloatCC::Unordered, x, x);
        let number = e.b.ins().fcmp(FloatCC::Ordered, best, best);
        let first_nan = e.b.ins().band(nan, number);
        e.b.ins().bor(better, first_nan)
    }
}
