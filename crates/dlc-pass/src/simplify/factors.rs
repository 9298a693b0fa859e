//! Factors of products.
//!
//! A gradient that reaches a function along several ways is a factor of all that it adds up to. Moved out
//! of the sum, it leaves the function's derivative, which depends on nothing but what is known on the way
//! forth: there it is computed, and kept instead of the values that it is made of.

use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::Value;
use dlc_kernel::{BinaryOp, Origin};
use smallvec::SmallVec;

pub const RULES: &[Rule] = &[
    Rule { name: "constant factors merge", exactness: Reassociates, apply: merge_constants },
    Rule { name: "common factors move out", exactness: Reassociates, apply: common },
];

/// The most factors that a product is taken apart into.
const MAX_FACTORS: usize = 8;

type Factors = SmallVec<[Value; MAX_FACTORS]>;

/// `(x * c) * d = x * (c*d)` for floats.
fn merge_constants(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (BinaryOp::Mul, product, d) = at.as_binary()? else { return None };
    let (x, c) = r.operands_of(BinaryOp::Mul, product)?;
    let ty = r.g.ty(x).clone();
    let factor = r.number(c)? * r.number(d)?;
    if !ty.dtype.is_float() || !r.is_single_use(product) {
        return None;
    }
    let factor = r.splat(&ty, factor, at.origin);
    Some(r.binary(BinaryOp::Mul, x, factor, at.origin))
}

/// `x*a + x*b = (a + b) * x`, differences too, for floats; `x + x*b` stays, as that saves nothing. The factor that is
/// known last comes last, so that the others can be multiplied before.
fn common(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (op @ (BinaryOp::Add | BinaryOp::Sub), a, b) = at.as_binary()? else { return None };
    if a == b || !r.g.ty(a).dtype.is_float() {
        return None;
    }
    let (mut left, mut right) = (factors(r, a)?, factors(r, b)?);
    let mut shared = Factors::new();
    left.retain(|factor| {
        let found = right.iter().position(|other| other == factor);
        let found = found.filter(|_| r.number(*factor).is_none());
        found.inspect(|&k| shared.push(right.remove(k))).is_none()
    });
    let rests = usize::from(!left.is_empty()) + usize::from(!right.is_empty());
    if shared.len() + rests < 3 {
        return None;
    }
    shared.sort_unstable();
    let [left, right] = [left, right].map(|rest| product(r, a, &rest, at.origin));
    let sum = r.binary(op, left, right, at.origin);
    let times = |sum, factor| r.binary(BinaryOp::Mul, sum, factor, at.origin);
    Some(shared.into_iter().fold(sum, times))
}

/// The factors of a product that nobody else reads, in order; `None` if they are too many.
fn factors(r: &Rewriter<'_>, value: Value) -> Option<Factors> {
    let (mut found, mut pending) = (Factors::new(), Factors::from_slice(&[value]));
    while let Some(value) = pending.pop() {
        match r.operands_of(BinaryOp::Mul, value).filter(|_| r.is_single_use(value)) {
            Some((a, b)) => pending.extend([b, a]),
            None => found.push(value),
        }
        if found.len() + pending.len() > MAX_FACTORS {
            return None;
        }
    }
    Some(found)
}

/// The product of `factors`, of the type of `like`.
fn product(r: &mut Rewriter<'_>, like: Value, factors: &[Value], origin: &Origin) -> Value {
    match factors {
        [] => {
            let ty = r.g.ty(like).clone();
            r.splat(&ty, 1.0, origin)
        }
        [first, others @ ..] => {
            let times = |product, &factor| r.binary(BinaryOp::Mul, product, factor, origin);
            others.iter().fold(*first, times)
        }
    }
}
