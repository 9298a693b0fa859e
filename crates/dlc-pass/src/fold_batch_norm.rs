//! Batch normalization after a contraction, in inference, as one scale and one shift per channel.
//!
//! A chain of additions, subtractions and multiplications with tensors that depend on parameters
//! and state alone, each repeated over the same axes, is `x*s + t`. `s` and `t` are as small as a
//! channel vector, and the pass [`fuse_preparations`](crate::fuse::fuse_preparations) computes those
//! of all layers in one kernel. The weights stay as they are: scale and shift are applied to the sum
//! while it is in registers, which costs nothing, and nothing must be kept in step when parameters
//! change. Reassociates.

use crate::class::{Class, class};
use crate::rewrite::{Node, copy, rebuild};
use dlc_graph::op::{Op, SourceClass, View};
use dlc_graph::{Graph, Value};
use dlc_kernel::{BinaryOp, Origin};
use rustc_hash::FxHashMap;

/// A value as `base * scale + shift`, in the new graph.
#[derive(Clone)]
struct Affine {
    base: Value,
    /// How the small tensors are repeated.
    view: View,
    scale: Option<Value>,
    shift: Option<Value>,
    /// How many operations this stands for.
    length: usize,
}

/// Rewrites every chain of two or more operations on a contraction.
pub fn fold_batch_norm(graph: &Graph) -> Graph {
    let fixed = fixed(graph);
    let mut chains: FxHashMap<Value, Affine> = FxHashMap::default();
    rebuild(graph, |new, node| {
        let chain = link(graph, new, &fixed, &chains, &node);
        let Some(chain) = chain else { return copy(new, &node) };
        let goes_on = graph.users(node.old).len() == 1
            && !graph.results().iter().any(|r| r.value == node.old)
            && continues(graph, &fixed, node.old);
        let made = match chain.length > 1 && !goes_on {
            true => spell(new, &chain, node.origin),
            false => copy(new, &node),
        };
        chains.insert(node.old, chain);
        made
    })
}

/// Which values depend on parameters, state and numbers alone.
fn fixed(graph: &Graph) -> Vec<bool> {
    let mut fixed = vec![false; graph.len()];
    for value in graph.values() {
        fixed[value.0 as usize] = match graph.op(value) {
            Op::Source(source) => {
                matches!(source.class, SourceClass::Param | SourceClass::State)
            }
            _ => graph.operands(value).iter().all(|v| fixed[v.0 as usize]),
        };
    }
    fixed
}

/// The operation as `chain ∘ small` where it is one: the operand that goes on, the operation, and
/// the view of the fixed operand.
fn split<'g>(
    graph: &'g Graph,
    fixed: &[bool],
    value: Value,
) -> Option<(Value, BinaryOp, &'g View)> {
    let Op::Binary(binary) = graph.op(value) else { return None };
    let operands = graph.operands(value);
    let small = |v: Value| match graph.op(v) {
        Op::View(view) if fixed[v.0 as usize] => {
            let from = &graph.ty(graph.operands(v)[0]).shape;
            let repeats = view.axes.len() > from.len() && view.is_inside(from);
            repeats.then_some(view)
        }
        _ => None,
    };
    let commutes = matches!(binary.0, BinaryOp::Add | BinaryOp::Mul);
    match (binary.0, small(operands[1]), small(operands[0])) {
        (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, Some(view), _) => {
            Some((operands[0], binary.0, view))
        }
        (_, None, Some(view)) if commutes => Some((operands[1], binary.0, view)),
        _ => None,
    }
}

fn continues(graph: &Graph, fixed: &[bool], value: Value) -> bool {
    let user = graph.users(value)[0];
    match (split(graph, fixed, user), view_of_chain(graph, fixed, value)) {
        (Some((next, _, view)), Some(own)) => next == value && view.access == own.access,
        _ => false,
    }
}

fn view_of_chain<'g>(graph: &'g Graph, fixed: &[bool], value: Value) -> Option<&'g View> {
    split(graph, fixed, value).map(|s| s.2)
}

/// The chain that ends at `node`.
fn link(
    old: &Graph,
    new: &mut Graph,
    fixed: &[bool],
    chains: &FxHashMap<Value, Affine>,
    node: &Node<'_>,
) -> Option<Affine> {
    let (before, op, view) = split(old, fixed, node.old)?;
    let (base_new, small_new) = match old.operands(node.old)[0] == before {
        true => (node.operands[0], node.operands[1]),
        false => (node.operands[1], node.operands[0]),
    };
    let small = new.operands(small_new)[0];
    let is_start = class(old, before) == Class::Contract;
    let known = chains.get(&before).filter(|c| c.view.access == view.access);
    let mut chain = match known {
        Some(chain) => chain.clone(),
        None if is_start => {
            Affine { base: base_new, view: view.clone(), scale: None, shift: None, length: 0 }
        }
        None => return None,
    };
    chain.length += 1;
    let mut combine = |op, a: Option<Value>, b| match a {
        Some(a) => new.binary(op, a, b, node.origin),
        None => b,
    };
    match op {
        BinaryOp::Mul => {
            chain.scale = Some(combine(BinaryOp::Mul, chain.scale, small));
            chain.shift = chain.shift.map(|t| combine(BinaryOp::Mul, Some(t), small));
        }
        BinaryOp::Add => chain.shift = Some(combine(BinaryOp::Add, chain.shift, small)),
        _ => {
            chain.shift = Some(match chain.shift {
                Some(t) => combine(BinaryOp::Sub, Some(t), small),
                None => new.unary(dlc_kernel::UnaryOp::Neg, small, node.origin),
            });
        }
    }
    Some(chain)
}

/// `base * scale + shift`.
fn spell(new: &mut Graph, chain: &Affine, origin: &Origin) -> Value {
    let mut value = chain.base;
    for (op, small) in [(BinaryOp::Mul, chain.scale), (BinaryOp::Add, chain.shift)] {
        if let Some(small) = small {
            let fill = dlc_kernel::Scalar::new(new.ty(small).dtype, 0.0);
            let view = View { fill, ..chain.view.clone() };
            let repeated = new.push(view, &[small], origin.clone());
            value = new.binary(op, value, repeated, origin);
        }
    }
    value
}
