//! Which expressions stand directly in which: the one place that knows.

use super::{
    Arg, Block, Dim, ExprId, ExprKind, Index, ParamInit, Stmt, StmtKind, Subscript, TypeExpr,
};

impl ExprKind {
    /// Calls `visit` with the expressions directly in this one, in textual order. For a form with a
    /// block these are the expressions of its statements.
    pub fn for_each_child(&self, mut visit: impl FnMut(ExprId)) {
        self.visit(&mut visit);
    }

    /// The blocks directly in this expression, in textual order.
    #[must_use]
    pub fn blocks(&self) -> Vec<&Block> {
        match self {
            Self::If { arms, otherwise } => {
                arms.iter().map(|(_, block)| block).chain(otherwise).collect()
            }
            Self::Repeat { body, .. } | Self::For { body, .. } => vec![body],
            Self::Scan(scan) => vec![&scan.body],
            _ => Vec::new(),
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(ExprId)) {
        match self {
            Self::Int(_) | Self::Float(_) | Self::Size(_) | Self::Bool(_) | Self::Str(_) => {}
            Self::Name(_) => {}
            Self::Tuple(parts) | Self::List(parts) => parts.iter().for_each(|id| visit(*id)),
            Self::Unary { operand, .. } => visit(*operand),
            Self::Chain { first, rest } => {
                visit(*first);
                rest.iter().for_each(|link| visit(link.operand));
            }
            Self::Select { value, cond, otherwise } => {
                [value, cond, otherwise].into_iter().for_each(|id| visit(*id));
            }
            Self::Where { value, cond, otherwise } => {
                [Some(value), Some(cond), otherwise.as_ref()]
                    .into_iter()
                    .flatten()
                    .for_each(|id| visit(*id));
            }
            Self::Pipe { input, stages } => {
                visit(*input);
                stages.iter().for_each(|id| visit(*id));
            }
            Self::Call { callee, args } => {
                visit(*callee);
                args.iter().for_each(|Arg { value, .. }| visit(*value));
            }
            Self::Bracket { base, subscripts } => {
                visit(*base);
                subscripts.iter().for_each(|subscript| visit_subscript(subscript, visit));
            }
            Self::Field { base, .. } => visit(*base),
            Self::Reduce { indices, body, .. } => {
                visit_indices(indices, visit);
                visit(*body);
            }
            Self::If { arms, otherwise } => {
                for (cond, block) in arms {
                    visit(*cond);
                    block.visit(visit);
                }
                otherwise.iter().for_each(|block| block.visit(visit));
            }
            Self::Repeat { count, body, .. } => {
                visit(*count);
                body.visit(visit);
            }
            Self::For { list, body, .. } => {
                visit(*list);
                body.visit(visit);
            }
            Self::Scan(scan) => {
                visit(scan.extent);
                if let super::Order::ReverseIf(cond) = scan.order {
                    visit(cond);
                }
                scan.carries.iter().for_each(|carry| visit(carry.value));
                scan.body.visit(visit);
            }
        }
    }
}

impl Block {
    fn visit(&self, visit: &mut dyn FnMut(ExprId)) {
        self.stmts.iter().for_each(|stmt| stmt.visit(visit));
    }
}

impl Stmt {
    /// Calls `visit` with the expressions directly in this statement, in textual order.
    pub fn for_each_expr(&self, mut visit: impl FnMut(ExprId)) {
        self.visit(&mut visit);
    }

    fn visit(&self, visit: &mut dyn FnMut(ExprId)) {
        match &self.kind {
            StmtKind::Let { value, .. }
            | StmtKind::Bind { value, .. }
            | StmtKind::Update { value, .. }
            | StmtKind::Expr(value) => visit(*value),
            StmtKind::Equation { indices, value, .. } => {
                visit_indices(indices, visit);
                visit(*value);
            }
            StmtKind::Param { ty, init, .. } => {
                visit_type(ty, visit);
                let (ParamInit::Random(value) | ParamInit::Constant(value)) = init;
                visit(*value);
            }
            StmtKind::State { ty, value, .. } => {
                ty.iter().for_each(|ty| visit_type(ty, visit));
                visit(*value);
            }
            StmtKind::Yield { value, at } => {
                visit(*value);
                at.iter().for_each(|at| visit(*at));
            }
        }
    }
}

fn visit_type(ty: &TypeExpr, visit: &mut dyn FnMut(ExprId)) {
    for dim in &ty.dims {
        if let Dim::Size(size) = dim {
            visit(*size);
        }
    }
}

fn visit_indices(indices: &[Index], visit: &mut dyn FnMut(ExprId)) {
    indices.iter().filter_map(|index| index.extent).for_each(visit);
}

fn visit_subscript(subscript: &Subscript, visit: &mut dyn FnMut(ExprId)) {
    match subscript {
        Subscript::Expr(value) => visit(*value),
        Subscript::Slice { start, end, .. } => start.iter().chain(end).for_each(|id| visit(*id)),
        Subscript::Rest { .. } => {}
    }
}
