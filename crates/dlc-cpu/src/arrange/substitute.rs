//! Expressions of one kernel, copied into another one over other axes.

use dlc_kernel::{
    Access, BinaryOp, DType, Expr, ExprId, Exprs, Guard, Index, Lookup, Scalar, Store,
};
use rustc_hash::FxHashMap;

/// A copy of nodes of `from` with every axis `a` replaced by `axes[a]`, which has no divisor.
pub(super) struct Substitution<'e> {
    from: &'e Exprs,
    axes: &'e [Index],
    copied: FxHashMap<ExprId, ExprId>,
}

impl<'e> Substitution<'e> {
    /// Nothing is copied yet.
    pub fn new(from: &'e Exprs, axes: &'e [Index]) -> Substitution<'e> {
        Substitution { from, axes, copied: FxHashMap::default() }
    }

    /// `to` stands for the node `id`.
    pub fn replace(&mut self, id: ExprId, to: ExprId) {
        self.copied.insert(id, to);
    }

    /// `to` stands for the result of the first fold.
    pub fn replace_sum(&mut self, to: ExprId) {
        self.replace_fold(0, to);
    }

    /// `to` stands for the result of fold `step`.
    pub fn replace_fold(&mut self, step: u32, to: ExprId) {
        self.replace_all(to, |expr| *expr == Expr::Folded(step));
    }

    /// `to` stands for the results of all folds.
    pub fn replace_folds(&mut self, to: ExprId) {
        self.replace_all(to, |expr| matches!(expr, Expr::Folded(_)));
    }

    fn replace_all(&mut self, to: ExprId, replaced: impl Fn(&Expr) -> bool) {
        let nodes = self.from.iter().filter(|(_, expr)| replaced(expr));
        self.copied.extend(nodes.map(|(id, _)| (id, to)));
    }

    /// The copy of `root` in `to`.
    pub fn copy(&mut self, to: &mut Exprs, root: ExprId) -> ExprId {
        for id in self.from.reachable([root]) {
            if !self.copied.contains_key(&id) {
                let copy = self.copy_node(to, id);
                self.copied.insert(id, copy);
            }
        }
        self.copied[&root]
    }

    /// A copy of a store, its value in `to`.
    pub fn store(&mut self, to: &mut Exprs, store: &Store) -> Store {
        let access = self.access(&store.access);
        Store { buffer: store.buffer, access, value: self.copy(to, store.value) }
    }

    /// An access over the new axes.
    fn access(&self, access: &Access) -> Access {
        let coords = access.coords.iter().map(|c| c.compose(self.axes)).collect();
        Access { coords, guards: access.guards.iter().map(|g| self.guard(g)).collect() }
    }

    fn guard(&self, guard: &Guard) -> Guard {
        Guard { index: guard.index.compose(self.axes), extent: guard.extent.clone() }
    }

    fn copy_node(&self, to: &mut Exprs, id: ExprId) -> ExprId {
        let of = |x: &ExprId| self.copied[x];
        let copy = match self.from.get(id) {
            Expr::Axis(axis) => return position(to, &self.axes[axis.0 as usize]),
            Expr::Inside(guard) => Expr::Inside(self.guard(guard)),
            Expr::Load { buffer, access, lookups, fill } => Expr::Load {
                buffer: *buffer,
                access: self.access(access),
                lookups: lookups
                    .iter()
                    .map(|l| Lookup { dim: l.dim, index: of(&l.index) })
                    .collect(),
                fill: *fill,
            },
            Expr::Unary(op, x) => Expr::Unary(*op, of(x)),
            Expr::Binary(op, a, b) => Expr::Binary(*op, of(a), of(b)),
            Expr::Select(c, a, b) => Expr::Select(of(c), of(a), of(b)),
            Expr::Cast(dtype, x) => Expr::Cast(*dtype, of(x)),
            Expr::Random { site, seed, step, element } => {
                Expr::Random { site: *site, seed: of(seed), step: of(step), element: of(element) }
            }
            same @ (Expr::Const(_) | Expr::Extent(..) | Expr::Folded(_)) => same.clone(),
        };
        to.add_typed(copy, self.from.dtype(id))
    }
}

/// The value of an index, `I32`.
fn position(to: &mut Exprs, index: &Index) -> ExprId {
    let number = |to: &mut Exprs, n: i64| to.add(Expr::Const(Scalar::new(DType::I32, n as f64)));
    let mut sum = match index.offset.as_const() {
        Some(offset) => number(to, offset),
        None => to.add(Expr::Extent(index.offset.clone(), DType::I32)),
    };
    for &(axis, coef) in &index.terms {
        let (axis, coef) = (to.add(Expr::Axis(axis)), number(to, coef));
        let term = to.add(Expr::Binary(BinaryOp::Mul, axis, coef));
        sum = to.add(Expr::Binary(BinaryOp::Add, sum, term));
    }
    sum
}
