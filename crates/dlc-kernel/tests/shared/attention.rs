//! Attention as kernels: scores, their softmax under a mask, and sums of values.
#![allow(dead_code)]

use crate::draft::*;
use dlc_kernel::{
    Access, BinaryOp, BufferId, Class, DType, Expr, Exprs, FoldOp, Form, Guard, Index, Program,
    Scalar, Size, Step, UnaryOp,
};

/// What a query at `t` sees of keys: those at `u` with `0 <= t - u + shift < width`, or, backwards,
/// `0 <= u - t + shift < width`.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    pub backwards: bool,
    pub shift: i64,
    pub width: i64,
}

impl Mask {
    /// As a condition over the axes `t` and `u`.
    pub fn guard(self, t: u32, u: u32) -> Guard {
        let sign = if self.backwards { -1 } else { 1 };
        let index = Index::affine([(t, sign), (u, -sign)], self.shift);
        Guard { index, extent: Size::from(self.width) }
    }
}

/// `heads` heads, as many queries and keys, `depth` features of both, `width` of values.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub heads: i64,
    pub queries: i64,
    pub keys: i64,
    pub depth: i64,
    pub width: i64,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    /// All.
    All,
    /// Those that the softmax leaves, by position.
    Masked(Mask),
    /// Those that data names: the last input, `[queries, keys]`.
    Given,
}

/// The program, with its scores and its weights.
pub fn attention(n: Sizes, mask: Option<Mask>) -> (Program, BufferId, BufferId) {
    attention_in_groups(n, None, mask.map_or(Seen::All, Seen::Masked))
}

/// The same where data says which keys a query sees.
pub fn attention_of_seen(n: Sizes) -> (Program, BufferId, BufferId) {
    attention_in_groups(n, None, Seen::Given)
}

/// The same where each head of keys and values has so many of queries, if not one.
pub fn attention_in_groups(
    n: Sizes,
    group: Option<i64>,
    seen: Seen,
) -> (Program, BufferId, BufferId) {
    let mut draft = Draft::default();
    let own: Vec<i64> = group.into_iter().collect();
    let with = |first: [i64; 2], last: i64| [&first[..], &own, &[last]].concat();
    // The axes of a query, the first of which is its head, the second its position.
    let axes: Vec<u32> = (0..2 + own.len() as u32).collect();
    let swapped = [&[1, 0], &axes[2..]].concat();
    let [next, last] = [0, 1].map(|k| axes.len() as u32 + k);
    let and = |axes: &[u32], last: u32| [axes, &[last]].concat();
    let q = draft.input(&with([n.queries, n.heads], n.depth));
    let k = draft.input(&[n.keys, n.heads, n.depth]);
    let v = draft.input(&[n.keys, n.heads, n.width]);
    let given = || draft.buffer(Class::Input, DType::Bool, &[n.queries, n.keys]);
    let given = matches!(seen, Seen::Given).then(given);
    let plane = with([n.heads, n.queries], n.keys);
    let [scores, weights] = [0, 1].map(|_| draft.temp(&plane));
    let out = draft.output(&with([n.queries, n.heads], n.width));

    let factors = [(q, at(&and(&swapped, last))), (k, at(&[next, 0, last]))];
    product(&mut draft, factors, (scores, &and(&axes, next)), (&plane, n.depth), given);
    let mask = if let Seen::Masked(mask) = seen { Some(mask.guard(1, next)) } else { None };
    softmax(&mut draft, &plane, mask, (scores, weights));
    let factors = [(weights, at(&and(&axes, last))), (v, at(&[last, 0, next]))];
    let sizes = with([n.heads, n.queries], n.width);
    product(&mut draft, factors, (out, &and(&swapped, next)), (&sizes, n.keys), None);
    (draft.program(), scores, weights)
}

/// The sum over the last axis; -inf where nothing is `seen`, by the second axis and the last.
fn product(
    draft: &mut Draft,
    factors: [(BufferId, Access); 2],
    (to, axes): (BufferId, &[u32]),
    (out, depth): (&[i64], i64),
    seen: Option<BufferId>,
) {
    let mut e = Exprs::new();
    let factors = factors.map(|(buffer, access)| load(&mut e, buffer, access));
    let mut value = folded(&mut e, 0, DType::F32);
    if let Some(seen) = seen {
        let last = out.len() as u32 - 1;
        let seen = load_as(&mut e, seen, at(&[1, last]), Scalar::new(DType::Bool, 0.0));
        let hidden = e.constant(DType::F32, f64::NEG_INFINITY);
        value = e.add(Expr::Select(seen, value, hidden));
    }
    let stores = vec![store(to, axes, value)];
    draft.kernel(Form::contract(sizes(out), sizes(&[depth]), e, factors, stores));
}

/// The softmax along the last axis of a tensor of those sizes.
fn softmax(
    draft: &mut Draft,
    plane: &[i64],
    mask: Option<Guard>,
    (from, to): (BufferId, BufferId),
) {
    let mut e = Exprs::new();
    let axes: Vec<u32> = (0..plane.len() as u32).collect();
    let access = Access { guards: mask.into_iter().collect(), ..at(&axes) };
    let seen = load_or(&mut e, from, access, f64::NEG_INFINITY);
    let largest = folded(&mut e, 0, DType::F32);
    let lowest = e.constant(DType::F32, f64::from(f32::MIN));
    let largest = binary(&mut e, BinaryOp::Max, largest, lowest);
    let distance = binary(&mut e, BinaryOp::Sub, seen, largest);
    let weight = unary(&mut e, UnaryOp::Exp, distance);
    let sum = folded(&mut e, 1, DType::F32);
    let zero = e.constant(DType::F32, 0.0);
    let some = binary(&mut e, BinaryOp::Lt, zero, sum);
    let one = e.constant(DType::F32, 1.0);
    let sum = e.add(Expr::Select(some, sum, one));
    let share = binary(&mut e, BinaryOp::Div, one, sum);
    let value = binary(&mut e, BinaryOp::Mul, weight, share);
    let each = store(to, &axes, value);
    let steps =
        vec![Step::Fold(FoldOp::Max, seen), Step::Fold(FoldOp::Sum, weight), Step::StoreEach(each)];
    let (outer, inner) = plane.split_at(plane.len() - 1);
    let (outer, inner) = (sizes(outer), sizes(inner));
    draft.kernel(Form::Row { outer, inner, exprs: e, steps });
}
