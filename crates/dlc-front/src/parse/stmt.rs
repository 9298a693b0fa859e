//! The grammar's nodes to tree: statements and blocks.

use super::build::{Builder, exprs};
use super::grammar::{Node, Rule};
use crate::ast::{
    BinaryOp, Block, ExprId, ExprKind, Ident, Index, ParamInit, Stmt, StmtKind, Subscript,
};
use crate::code::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Builder {
    pub(super) fn block(&mut self, node: Node) -> Block {
        let span = self.span(&node);
        let punctuation = [Rule::open_brace, Rule::close_brace];
        let stmts = node.into_inner().filter(|node| !punctuation.contains(&node.as_rule()));
        let stmts = stmts.map(|node| self.stmt(node)).collect();
        Block { stmts, span }
    }

    pub(super) fn stmt(&mut self, node: Node) -> Stmt {
        let span = self.span(&node);
        let kind = match node.as_rule() {
            Rule::let_stmt => self.let_stmt(node),
            Rule::param_stmt => self.param_stmt(node),
            Rule::state_stmt => self.state_stmt(node),
            Rule::yield_stmt => self.yield_stmt(node),
            Rule::update_stmt => {
                let mut inner = node.into_inner();
                let name = self.ident(&inner.next().expect("a state"));
                let value = self.value(inner.next_back().expect("a value"));
                StmtKind::Update { name, value }
            }
            Rule::assignment => self.assignment(node),
            rule => unreachable!("{rule:?} is not a statement"),
        };
        Stmt { kind, span }
    }

    fn let_stmt(&mut self, node: Node) -> StmtKind {
        let mut targets = Vec::new();
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::name => targets.push(self.ident(&node)),
                Rule::value => return StmtKind::Let { targets, value: self.value(node) },
                _ => {}
            }
        }
        unreachable!("a let statement has a value")
    }

    fn param_stmt(&mut self, node: Node) -> StmtKind {
        let inner: Vec<Node> = node.into_inner().collect();
        // kw_param name colon type_expr (tilde | assign) expr
        let [_, name, _, ty, sign, init] = <[Node; 6]>::try_from(inner).expect("the rule's parts");
        let name = self.ident(&name);
        let ty = self.type_expr(ty);
        let init = match sign.as_rule() {
            Rule::tilde => ParamInit::Random(self.expr(init)),
            _ => ParamInit::Constant(self.expr(init)),
        };
        StmtKind::Param { name, ty, init }
    }

    fn state_stmt(&mut self, node: Node) -> StmtKind {
        let mut inner = node.into_inner().skip(1);
        let name = self.ident(&inner.next().expect("a name"));
        let mut ty = None;
        for node in inner {
            match node.as_rule() {
                Rule::type_expr => ty = Some(self.type_expr(node)),
                Rule::value => return StmtKind::State { name, ty, value: self.value(node) },
                _ => {}
            }
        }
        unreachable!("a state has a first value")
    }

    fn yield_stmt(&mut self, node: Node) -> StmtKind {
        let at = node.clone();
        let value = node.into_inner().nth(1).expect("a value");
        let value = self.masked(value);
        StmtKind::Yield { value, at: exprs(at).next().map(|node| self.expr(node)) }
    }

    /// `value` or `targets = value`.
    fn assignment(&mut self, node: Node) -> StmtKind {
        let mut inner = node.into_inner();
        let left = inner.next().expect("a value");
        let before = self.mark();
        let left = self.value(left);
        let Some(right) = inner.next_back() else { return StmtKind::Expr(left) };
        let target = self.target(left);
        let extents = matches!(&target, Target::Indexed(_, indices)
            if indices.iter().any(|index| index.extent.is_some()));
        if !extents {
            self.forget(before);
        }
        let value = self.value(right);
        match target {
            Target::Names(targets) => StmtKind::Bind { targets, value },
            Target::Indexed(name, indices) => StmtKind::Equation { name, indices, value },
        }
    }

    fn target(&mut self, left: ExprId) -> Target {
        match self.kind(left) {
            ExprKind::Tuple(parts) if !parts.is_empty() => {
                let parts = parts.clone();
                Target::Names(parts.into_iter().filter_map(|part| self.target_name(part)).collect())
            }
            ExprKind::Bracket { base, subscripts } => {
                let (base, subscripts) = (*base, subscripts.clone());
                let indices = subscripts.iter().filter_map(|it| self.target_index(it)).collect();
                match self.target_name(base) {
                    Some(name) => Target::Indexed(name, indices),
                    None => Target::Names(Vec::new()),
                }
            }
            _ => Target::Names(self.target_name(left).into_iter().collect()),
        }
    }

    fn target_name(&mut self, id: ExprId) -> Option<Ident> {
        let name = self.as_name(id);
        if name.is_none() {
            let span = self.span_of(id);
            let title = "this cannot be assigned to";
            self.report(
                Diagnostic::error(Code::BadTarget, title, span, "expected a name")
                    .help("to compare two values write `==`"),
            );
        }
        name
    }

    fn target_index(&mut self, subscript: &Subscript) -> Option<Index> {
        self.as_index(subscript).map_err(|span| self.bad_target_index(span)).ok()
    }

    fn bad_target_index(&mut self, span: Span) {
        let title = "an index on the left of `=` is a name";
        let label = "expected a name, or a name with its extent: `h < Ho`";
        self.report(Diagnostic::error(Code::BadTarget, title, span, label));
    }

    pub(super) fn as_name(&self, id: ExprId) -> Option<Ident> {
        match self.kind(id) {
            ExprKind::Name(text) => Some(Ident { text: text.clone(), span: self.span_of(id) }),
            _ => None,
        }
    }

    /// An index that a subscript introduces: `i` or `i < T`; else the subscript's place.
    pub(super) fn as_index(&self, subscript: &Subscript) -> Result<Index, Span> {
        let id = match subscript {
            Subscript::Expr(id) => *id,
            Subscript::Slice { span, .. } | Subscript::Rest { span, .. } => return Err(*span),
        };
        let span = self.span_of(id);
        match self.kind(id) {
            ExprKind::Chain { first, rest } if rest.len() == 1 && rest[0].op == BinaryOp::Lt => {
                let name = self.as_name(*first).ok_or(span)?;
                Ok(Index { name, extent: Some(rest[0].operand) })
            }
            _ => Ok(Index { name: self.as_name(id).ok_or(span)?, extent: None }),
        }
    }
}

/// The left side of `=`.
enum Target {
    Names(Vec<Ident>),
    Indexed(Ident, Vec<Index>),
}
