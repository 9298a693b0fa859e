//! Algebraic simplification: one forward walk that offers every operation to a table of rules.
//!
//! A rule is a function from an operation on simplified operands to a value that equals it. What a
//! rule builds is simplified in turn (`Rewriter::make`), so each must make something smaller,
//! cheaper or more canonical. Constants go last among the operands of commutative operations, and
//! other operands in order, so that equal things look equal.
//!
//! Rules only hold once gradients are expanded: they look through stopped gradients.

mod algebra;
mod constants;
mod contractions;
mod deviations;
mod exchange;
mod factors;
mod folds;
mod positions;
mod selects;
mod views;

use crate::rewrite::{copy, rebuild};
use dlc_graph::op::Op;
use dlc_graph::{Graph, Shape, Type, Value};
use dlc_kernel::{BinaryOp, Origin, Scalar, UnaryOp};
use rustc_hash::FxHashMap;

/// How a rule's result relates to what it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// The same value for all operands, but for the sign of a zero.
    Exact,
    /// The same value if all operands are finite.
    Finite,
    /// Equal in real numbers; rounds differently.
    Reassociates,
}

/// One rewrite.
pub struct Rule {
    /// What it does, as dumps and tests name it.
    pub name: &'static str,
    /// How far the result may differ.
    pub exactness: Exactness,
    apply: fn(&mut Rewriter<'_>, &At<'_>) -> Option<Value>,
}

/// Every rule, in the order in which they are tried; the first that applies wins.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let tables = [
        constants::RULES,
        algebra::RULES,
        factors::RULES,
        positions::RULES,
        selects::RULES,
        views::RULES,
        exchange::RULES,
        deviations::RULES,
        folds::RULES,
        contractions::RULES,
    ];
    tables.into_iter().flatten()
}

/// Applies the rules wherever they fit.
pub fn simplify(graph: &Graph) -> Graph {
    let mut uses = Uses::default();
    let old_uses = old_uses(graph);
    rebuild(graph, |new, node| {
        let mut rewriter = Rewriter { g: new, uses: &uses };
        let at = At { op: node.op, operands: &node.operands, origin: node.origin };
        let value = rewriter.simpler(&at).unwrap_or_else(|| copy(new, &node));
        *uses.0.entry(value).or_default() += old_uses[node.old.0 as usize];
        value
    })
}

/// How many operands read each value; those of its reshapes, too, as rules look through these.
fn old_uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.len()];
    for value in graph.values().rev() {
        let by = |user: &Value| match graph.op(*user) {
            Op::Reshape(_) => usize::max(uses[user.0 as usize], 1),
            _ => 1,
        };
        uses[value.0 as usize] = graph.users(value).iter().map(by).sum();
    }
    uses
}

/// How many operands read each new value, counted in the old graph.
#[derive(Default)]
struct Uses(FxHashMap<Value, usize>);

/// An operation that is about to be added.
struct At<'a> {
    op: &'a Op,
    operands: &'a [Value],
    origin: &'a Origin,
}

/// The new graph, as rules see and extend it.
struct Rewriter<'a> {
    g: &'a mut Graph,
    uses: &'a Uses,
}

impl Rewriter<'_> {
    /// The simplest known value of `op` on `operands`.
    fn make(&mut self, op: impl Into<Op>, operands: &[Value], origin: &Origin) -> Value {
        let op = op.into();
        let simpler = self.simpler(&At { op: &op, operands, origin });
        simpler.unwrap_or_else(|| self.g.push(op, operands, origin.clone()))
    }

    /// What some rule makes of an operation.
    fn simpler(&mut self, at: &At<'_>) -> Option<Value> {
        rules().find_map(|rule| (rule.apply)(self, at))
    }

    fn unary(&mut self, op: UnaryOp, x: Value, origin: &Origin) -> Value {
        self.make(dlc_graph::op::Unary(op), &[x], origin)
    }

    fn binary(&mut self, op: BinaryOp, a: Value, b: Value, origin: &Origin) -> Value {
        self.make(dlc_graph::op::Binary(op), &[a, b], origin)
    }

    /// The number `value` everywhere, of that type.
    fn splat(&mut self, ty: &Type, value: f64, origin: &Origin) -> Value {
        let constant = self.g.constant(Scalar::new(ty.dtype, value), origin);
        self.g.splat(constant, ty.shape.clone(), origin)
    }

    /// Whether nothing but the operation at hand reads `value`.
    fn is_single_use(&self, value: Value) -> bool {
        self.uses.0.get(&value).is_none_or(|&n| n <= 1)
    }

    /// The number that `value` is everywhere.
    fn number(&self, value: Value) -> Option<f64> {
        self.g.as_splat(value).map(|s| s.value())
    }

    fn shape(&self, value: Value) -> &Shape {
        &self.g.ty(value).shape
    }

    /// The operand of `value` if it is that unary operation.
    fn operand_of(&self, op: UnaryOp, value: Value) -> Option<Value> {
        match self.g.op(value) {
            Op::Unary(u) if u.0 == op => Some(self.g.operands(value)[0]),
            _ => None,
        }
    }

    /// The operands of `value` if it is that binary operation.
    fn operands_of(&self, op: BinaryOp, value: Value) -> Option<(Value, Value)> {
        match self.g.op(value) {
            Op::Binary(b) if b.0 == op => {
                let operands = self.g.operands(value);
                Some((operands[0], operands[1]))
            }
            _ => None,
        }
    }
}

impl At<'_> {
    fn as_unary(&self) -> Option<(UnaryOp, Value)> {
        match self.op {
            Op::Unary(u) => Some((u.0, self.operands[0])),
            _ => None,
        }
    }

    fn as_binary(&self) -> Option<(BinaryOp, Value, Value)> {
        match self.op {
            Op::Binary(b) => Some((b.0, self.operands[0], self.operands[1])),
            _ => None,
        }
    }
}
