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

/// The program, with its scores and its weights.
pub fn attention(n: Sizes, mask: Option<Mask>) -> (Program, BufferId, BufferId) {
    let mut draft = Draft::default();
    let q = draft.input(&[n.queries, n.heads, n.depth]);
    let k = draft.input(&[n.keys, n.heads, n.depth]);
    let v = draft.input(&[n.keys, n.heads, n.width]);
    let [scores, weights] = [0, 1].map(|_| draft.temp(&[n.heads, n.queries, n.keys]));
    let out = draft.output(&[n.queries, n.heads, n.width]);
    product(&mut draft, ((q, at(&[1, 0, 3])), (k, at(&[2, 0, 3]))), (scores, &[0, 1, 2]), {
        [n.heads, n.queries, n.keys, n.depth]
    });
    softmax(&mut draft, n, mask, (scores, weights));
    product(&mut draft, ((weights, at(&[0, 1, 3])), (v, at(&[3, 0, 2]))), (out, &[1, 0, 2]), {
        [n.heads, n.queries, n.width, n.keys]
    });
    (draft.program(), scores, weights)
}

/// The same where data says which keys a query sees: the last input, `[queries, keys]`.
pub fn attention_of_seen(n: Sizes) -> (Program, BufferId, BufferId) {
    let mut draft = Draft::default();
    let q = draft.input(&[n.queries, n.heads, n.depth]);
    let k = draft.input(&[n.keys, n.heads, n.depth]);
    let v = draft.input(&[n.keys, n.heads, n.width]);
    let seen = draft.buffer(Class::Input, DType::Bool, &[n.queries, n.keys]);
    let [scores, weights] = [0, 1].map(|_| draft.temp(&[n.heads, n.queries, n.keys]));
    let out = draft.output(&[n.queries, n.heads, n.width]);
    let mut e = Exprs::new();
    let (lhs, rhs) = (load(&mut e, q, at(&[1, 0, 3])), load(&mut e, k, at(&[2, 0, 3])));
    let sum = folded(&mut e, 0, DType::F32);
    let seen = load_as(&mut e, seen, at(&[1, 2]), Scalar::new(DType::Bool, 0.0));
    let hidden = e.constant(DType::F32, f64::NEG_INFINITY);
    let score = e.add(Expr::Select(seen, sum, hidden));
    let stores = vec![store(scores, &[0, 1, 2], score)];
    let domain = sizes(&[n.heads, n.queries, n.keys]);
    draft.kernel(Form::contract(domain, sizes(&[n.depth]), e, [lhs, rhs], stores));
    softmax(&mut draft, n, None, (scores, weights));
    product(&mut draft, ((weights, at(&[0, 1, 3])), (v, at(&[3, 0, 2]))), (out, &[1, 0, 2]), {
        [n.heads, n.queries, n.width, n.keys]
    });
    (draft.program(), scores, weights)
}

/// The sum over the last axis.
fn product(
    draft: &mut Draft,
    (lhs, rhs): ((BufferId, Access), (BufferId, Access)),
    (to, axes): (BufferId, &[u32]),
    [a, b, c, depth]: [i64; 4],
) {
    let mut exprs = Exprs::new();
    let [lhs, rhs] = [lhs, rhs].map(|(buffer, access)| load(&mut exprs, buffer, access));
    let stores = vec![store(to, axes, folded(&mut exprs, 0, DType::F32))];
    let (out, reduce) = (sizes(&[a, b, c]), sizes(&[depth]));
    draft.kernel(Form::contract(out, reduce, exprs, [lhs, rhs], stores));
}

fn softmax(draft: &mut Draft, n: Sizes, mask: Option<Mask>, (from, to): (BufferId, BufferId)) {
    let mut e = Exprs::new();
    let guards = mask.map(|mask| mask.guard(1, 2)).into_iter().collect();
    let access = Access { guards, ..at(&[0, 1, 2]) };
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
    let each = store(to, &[0, 1, 2], value);
    let steps =
        vec![Step::Fold(FoldOp::Max, seen), Step::Fold(FoldOp::Sum, weight), Step::StoreEach(each)];
    let (outer, inner) = (sizes(&[n.heads, n.queries]), sizes(&[n.keys]));
    draft.kernel(Form::Row { outer, inner, exprs: e, steps });
}
