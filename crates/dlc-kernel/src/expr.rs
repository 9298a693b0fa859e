//! Scalar expressions: what a kernel computes at one point of its domain.
//!
//! An [`Exprs`] is one DAG, hash-consed, operands before users; every node has a type. Loads are
//! total: outside the buffer they give their `fill`.

use crate::{Access, Axis, BinaryOp, BufferId, DType, FoldOp, Guard, Size, UnaryOp};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// A node of an [`Exprs`], printed `e3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExprId(pub u32);

/// A typed constant; the bits are those of an f64 (every value of the computing types is exact).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar {
    /// The type.
    pub dtype: DType,
    bits: u64,
}

impl Scalar {
    /// A constant of type `dtype`.
    pub fn new(dtype: DType, value: f64) -> Scalar {
        Scalar { dtype, bits: value.to_bits() }
    }

    /// Its value.
    pub fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }
}

/// A coordinate that data decides: dim `dim` of the buffer is read at `index` instead of at the
/// access's own coordinate (which is the constant 0 there). An index outside the dim sets the
/// error word of the run, and the load gives `fill`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// The dim of the buffer.
    pub dim: u32,
    /// An `I32` expression.
    pub index: ExprId,
}

/// One scalar computation.
#[allow(clippy::large_enum_variant, reason = "loads are the most frequent node")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A constant.
    Const(Scalar),
    /// A size, as a number of that type (`I32` or `F32`).
    Extent(Size, DType),
    /// The position along an axis of the domain, `I32`.
    Axis(Axis),
    /// Whether the guard holds, `Bool`.
    Inside(Guard),
    /// An element of a buffer; `fill` outside.
    Load {
        /// What is read.
        buffer: BufferId,
        /// Where; the constant 0 in the dims that a lookup decides.
        access: Access,
        /// Checked only at points that are inside by all other coordinates and guards.
        lookups: SmallVec<[Lookup; 1]>,
        /// The value outside; its type is the load's.
        fill: Scalar,
    },
    /// In the epilogue of a contraction: the accumulated sum. In a row kernel: the result of the
    /// fold that is step `.0`.
    Folded(u32),
    /// An operation on one operand.
    Unary(UnaryOp, ExprId),
    /// An operation on two operands of one type.
    Binary(BinaryOp, ExprId, ExprId),
    /// `if .0 { .1 } else { .2 }`, both sides evaluated.
    Select(ExprId, ExprId, ExprId),
    /// Conversion: to integers truncates and saturates (NaN gives 0), to `Bool` is `!= 0`.
    Cast(DType, ExprId),
    /// A uniform number in [0, 1), `F32`, see [`crate::philox`]: key (`seed`, `step`, `site`),
    /// counter `element`. `seed`, `step` and `element` are `I32`.
    Random {
        /// Which random operation of the model.
        site: u64,
        /// Of the whole run.
        seed: ExprId,
        /// Of training; any other run-time count.
        step: ExprId,
        /// Row-major position in the tensor of random numbers.
        element: ExprId,
    },
}

/// A DAG of scalar computations.
#[derive(Clone, Debug, Default)]
pub struct Exprs {
    nodes: Vec<Expr>,
    types: Vec<DType>,
    known: FxHashMap<Expr, ExprId>,
}

impl Exprs {
    /// An empty DAG.
    pub fn new() -> Exprs {
        Exprs::default()
    }

    /// Adds `expr`, or finds it. `folded` and loads carry a type the DAG cannot know; use
    /// [`Exprs::add_typed`] for them.
    ///
    /// # Panics
    /// If operand types do not fit: kernels are made by passes, not by users.
    pub fn add(&mut self, expr: Expr) -> ExprId {
        let dtype = self.infer(&expr).unwrap_or_else(|problem| panic!("{problem}"));
        self.add_typed(expr, dtype)
    }

    /// Adds `expr` of type `dtype`, or finds it.
    pub fn add_typed(&mut self, expr: Expr, dtype: DType) -> ExprId {
        if let Some(&id) = self.known.get(&expr) {
            return id;
        }
        let id = ExprId(self.nodes.len() as u32);
        self.nodes.push(expr.clone());
        self.types.push(dtype);
        self.known.insert(expr, id);
        id
    }

    /// A constant.
    pub fn constant(&mut self, dtype: DType, value: f64) -> ExprId {
        self.add(Expr::Const(Scalar::new(dtype, value)))
    }

    /// The computation.
    pub fn get(&self, id: ExprId) -> &Expr {
        &self.nodes[id.0 as usize]
    }

    /// The type.
    pub fn dtype(&self, id: ExprId) -> DType {
        self.types[id.0 as usize]
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes, operands before users.
    pub fn iter(&self) -> impl Iterator<Item = (ExprId, &Expr)> {
        self.nodes.iter().enumerate().map(|(i, e)| (ExprId(i as u32), e))
    }

    /// The same DAG with its nodes changed one by one. They keep their numbers and types.
    ///
    /// # Panics
    /// If a change makes two nodes equal.
    pub fn changed(&self, mut change: impl FnMut(ExprId, &mut Expr)) -> Exprs {
        let mut new = Exprs::new();
        for (id, expr) in self.iter() {
            let mut expr = expr.clone();
            change(id, &mut expr);
            let added = new.add_typed(expr, self.dtype(id));
            assert_eq!(added, id, "a change keeps nodes apart");
        }
        new
    }

    /// The nodes that `roots` need, operands before users.
    pub fn reachable(&self, roots: impl IntoIterator<Item = ExprId>) -> Vec<ExprId> {
        self.reachable_beyond(roots, &mut vec![false; self.len()])
    }

    /// The nodes that `roots` need and that `seen` lacks, operands before users; then it has them.
    pub fn reachable_beyond(
        &self,
        roots: impl IntoIterator<Item = ExprId>,
        seen: &mut [bool],
    ) -> Vec<ExprId> {
        let mut found = Vec::new();
        let mut see = |id: ExprId, found: &mut Vec<ExprId>| {
            if !std::mem::replace(&mut seen[id.0 as usize], true) {
                found.push(id);
            }
        };
        roots.into_iter().for_each(|root| see(root, &mut found));
        let mut next = 0;
        while let Some(&id) = found.get(next) {
            self.get(id).for_each_operand(|operand| see(operand, &mut found));
            next += 1;
        }
        found.sort_unstable();
        found
    }

    /// What the loads among the nodes that `roots` need read, and where.
    pub fn loads(
        &self,
        roots: impl IntoIterator<Item = ExprId>,
    ) -> impl Iterator<Item = (BufferId, &Access)> {
        self.reachable(roots).into_iter().filter_map(|id| match self.get(id) {
            Expr::Load { buffer, access, .. } => Some((*buffer, access)),
            _ => None,
        })
    }

    /// The type of `expr` by its operands' types, or which rule they break.
    pub(crate) fn infer(&self, expr: &Expr) -> Result<DType, String> {
        let must = |holds: bool, rule: &str| holds.then_some(()).ok_or_else(|| rule.to_string());
        match expr {
            Expr::Const(s) => Ok(s.dtype),
            Expr::Extent(_, dtype) | Expr::Cast(dtype, _) => Ok(*dtype),
            Expr::Axis(_) => Ok(DType::I32),
            Expr::Inside(_) => Ok(DType::Bool),
            Expr::Load { fill, .. } => Ok(fill.dtype),
            Expr::Folded(_) => Err("a fold's type is its expression's: use add_typed".to_string()),
            Expr::Unary(_, x) => Ok(self.dtype(*x)),
            Expr::Binary(op, a, b) => {
                let same = self.dtype(*a) == self.dtype(*b);
                must(same, &format!("operands of `{op}` have one type"))?;
                Ok(if op.is_comparison() { DType::Bool } else { self.dtype(*a) })
            }
            Expr::Select(c, a, b) => {
                must(self.dtype(*c) == DType::Bool, "a select's condition is a bool")?;
                must(self.dtype(*a) == self.dtype(*b), "a select's sides have one type")?;
                Ok(self.dtype(*a))
            }
            Expr::Random { .. } => Ok(DType::F32),
        }
    }
}

impl Expr {
    /// The nodes it reads, in order.
    pub fn operands(&self) -> SmallVec<[ExprId; 3]> {
        let mut operands = SmallVec::new();
        self.for_each_operand(|operand| operands.push(operand));
        operands
    }

    /// Calls `visit` with each node it reads, in order.
    pub fn for_each_operand(&self, mut visit: impl FnMut(ExprId)) {
        match self {
            Expr::Const(_) | Expr::Extent(..) | Expr::Axis(_) | Expr::Inside(_) => {}
            Expr::Folded(_) => {}
            Expr::Load { lookups, .. } => lookups.iter().for_each(|l| visit(l.index)),
            Expr::Unary(_, x) | Expr::Cast(_, x) => visit(*x),
            Expr::Binary(_, a, b) => [*a, *b].into_iter().for_each(visit),
            Expr::Select(a, b, c) => [*a, *b, *c].into_iter().for_each(visit),
            Expr::Random { seed, step, element, .. } => {
                [*seed, *step, *element].into_iter().for_each(visit);
            }
        }
    }
}

/// The type of a fold's result.
pub fn fold_dtype(op: FoldOp, element: DType) -> DType {
    if op.is_position() { DType::I32 } else { element }
}
