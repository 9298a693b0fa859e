//! The grammar's nodes to tree: expressions.
//!
//! The grammar gives operands and operators in a row; [`Builder::binary`] groups them by precedence
//! with an explicit stack, so that a row of 10^5 terms neither recurses nor nests.

use std::iter::Peekable;

use pest::iterators::Pairs;

use super::build::Builder;
use super::grammar::{Node, Rule};
use crate::ast::level::Level;
use crate::ast::{
    Arg, BinaryOp, Block, Carry, ExprId, ExprKind, Ident, Index, Link, Order, ReduceOp, Scan,
    Subscript, UnaryOp,
};
use crate::code::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

type Nodes<'a> = Peekable<Pairs<'a, Rule>>;

/// An expression with its place, parentheses around it included.
#[derive(Clone, Copy)]
struct Built {
    id: ExprId,
    span: Span,
}

/// What waits for its right operand.
enum Pending {
    Unary(UnaryOp, Span),
    Reduce(ReduceOp, Vec<Index>, Span),
    Chain { first: Built, rest: Vec<Link>, op: BinaryOp, op_span: Span },
}

impl Pending {
    fn level(&self) -> Level {
        match self {
            Pending::Unary(UnaryOp::Not, _) => Level::Not,
            Pending::Unary(UnaryOp::Neg, _) => Level::Sign,
            Pending::Reduce(..) => Level::Reduction,
            Pending::Chain { op, .. } => Level::of_operator(*op),
        }
    }
}

impl Builder {
    /// `a, b`, or one `masked`.
    pub(super) fn value(&mut self, node: Node) -> ExprId {
        let span = self.span(&node);
        let parts: Vec<ExprId> = node.into_inner().map(|node| self.masked(node)).collect();
        match parts.as_slice() {
            [only] => *only,
            _ => self.alloc(ExprKind::Tuple(parts), span),
        }
    }

    /// `expr where cond else expr`.
    pub(super) fn masked(&mut self, node: Node) -> ExprId {
        let span = self.span(&node);
        let mut exprs = super::build::exprs(node).map(|node| self.expr(node));
        let value = exprs.next().expect("an expression");
        let Some(cond) = exprs.next() else { return value };
        let otherwise = exprs.next();
        drop(exprs);
        self.alloc(ExprKind::Where { value, cond, otherwise }, span)
    }

    /// `a if c else b if d else e`.
    pub(super) fn expr(&mut self, node: Node) -> ExprId {
        let mut nodes = node.into_inner().peekable();
        let mut choices = Vec::new();
        let mut last = self.pipe(&mut nodes);
        while nodes.next_if(|node| node.as_rule() == Rule::kw_if).is_some() {
            let cond = self.pipe(&mut nodes);
            nodes.next_if(|node| node.as_rule() == Rule::kw_else).expect("an else");
            choices.push((last, cond));
            last = self.pipe(&mut nodes);
        }
        for (value, cond) in choices.into_iter().rev() {
            let span = value.span.to(last.span);
            let kind = ExprKind::Select { value: value.id, cond: cond.id, otherwise: last.id };
            last = Built { id: self.alloc(kind, span), span };
        }
        last.id
    }

    fn pipe(&mut self, nodes: &mut Nodes) -> Built {
        let input = self.binary(nodes);
        let mut span = input.span;
        let mut stages = Vec::new();
        while let Some(stage) = nodes.next_if(|node| node.as_rule() == Rule::stage) {
            span = span.to(self.span(&stage));
            let mut inner = stage.into_inner().peekable();
            stages.push(self.atom(&mut inner).id);
        }
        match stages.is_empty() {
            true => input,
            false => {
                let id = self.alloc(ExprKind::Pipe { input: input.id, stages }, span);
                Built { id, span }
            }
        }
    }

    /// Operands and binary operators, up to something else.
    fn binary(&mut self, nodes: &mut Nodes) -> Built {
        let mut stack = Vec::new();
        let operand = nodes.next().expect("an operand");
        let mut last = self.operand(operand, &mut stack);
        while let Some(op) = nodes.next_if(|node| node.as_rule() == Rule::binary_op) {
            self.push_operator(binary_op(op.as_str()), self.span(&op), last, &mut stack);
            let operand = nodes.next().expect("an operand");
            last = self.operand(operand, &mut stack);
        }
        while let Some(pending) = stack.pop() {
            last = self.complete(pending, last);
        }
        last
    }

    /// Gives everything on the stack that binds tighter than `op` its right operand, then lets `op`
    /// wait for its own.
    fn push_operator(
        &mut self,
        op: BinaryOp,
        op_span: Span,
        mut last: Built,
        stack: &mut Vec<Pending>,
    ) {
        while let Some(pending) = stack.pop_if(|pending| pending.level() > Level::of_operator(op)) {
            last = self.complete(pending, last);
        }
        match stack.last_mut() {
            Some(Pending::Chain { rest, op: before, op_span: before_span, .. })
                if Level::of_operator(*before) == Level::of_operator(op) =>
            {
                rest.push(Link { op: *before, op_span: *before_span, operand: last.id });
                let first_span = std::mem::replace(before_span, op_span);
                *before = op;
                if op.is_comparison() {
                    self.report(chained_comparison(op_span, first_span));
                }
            }
            _ => stack.push(Pending::Chain { first: last, rest: Vec::new(), op, op_span }),
        }
    }

    fn complete(&mut self, pending: Pending, last: Built) -> Built {
        let (kind, start) = match pending {
            Pending::Unary(op, span) => (ExprKind::Unary { op, operand: last.id }, span),
            Pending::Reduce(op, indices, span) => {
                (ExprKind::Reduce { op, indices, body: last.id }, span)
            }
            Pending::Chain { first, mut rest, op, op_span } => {
                rest.push(Link { op, op_span, operand: last.id });
                (ExprKind::Chain { first: first.id, rest }, first.span)
            }
        };
        let span = start.to(last.span);
        Built { id: self.alloc(kind, span), span }
    }

    /// `- sum[i] x.y`: puts what stands before the atom on the stack. `sum[i](x)`, without a blank,
    /// looks like a call and reduces what is in its parentheses, no more.
    fn operand(&mut self, node: Node, stack: &mut Vec<Pending>) -> Built {
        let mut nodes = node.into_inner().peekable();
        while let Some(sign) = nodes.next_if(|node| node.as_rule() == Rule::sign) {
            let op = if sign.as_str() == "-" { UnaryOp::Neg } else { UnaryOp::Not };
            stack.push(Pending::Unary(op, self.span(&sign)));
        }
        while let Some(head) = nodes.next_if(|node| node.as_rule() == Rule::reduce_head) {
            let after = head.as_span().end();
            let span = self.span(&head);
            let (op, name_span, subscripts) = self.reduce_head(head);
            let indices: Result<Vec<Index>, Span> =
                subscripts.iter().map(|subscript| self.as_index(subscript)).collect();
            let next = nodes.peek().map(|node| (node.as_rule(), node.as_span().start()));
            match (indices, next) {
                (Ok(indices), Some((Rule::paren, start)))
                    if !indices.is_empty() && start == after =>
                {
                    let body = self.atom_alone(&mut nodes);
                    let built = self.complete(Pending::Reduce(op, indices, span), body);
                    return self.postfix(built, &mut nodes);
                }
                (Ok(indices), Some(_)) if !indices.is_empty() => {
                    stack.push(Pending::Reduce(op, indices, span));
                }
                (_, None | Some((Rule::paren, _))) => {
                    return self.configured(op, name_span, subscripts, span, &mut nodes);
                }
                (Ok(_), _) => self.report(bad_index(span)),
                (Err(place), _) => self.report(bad_index(place)),
            }
        }
        self.atom(&mut nodes)
    }

    fn reduce_head(&mut self, node: Node) -> (ReduceOp, Span, Vec<Subscript>) {
        let mut inner = node.into_inner();
        let name = inner.next().expect("a name");
        let op = ReduceOp::ALL.into_iter().find(|op| op.name() == name.as_str());
        let subscripts = self.subscripts(inner.next().expect("brackets"));
        (op.expect("the grammar knows the reductions"), self.span(&name), subscripts)
    }

    /// `mean[2, 3]` or `mean[2, 3](x)`: the function of that name with static arguments.
    fn configured(
        &mut self,
        op: ReduceOp,
        name_span: Span,
        subscripts: Vec<Subscript>,
        span: Span,
        nodes: &mut Nodes,
    ) -> Built {
        let name = self.intern(op.name());
        let base = self.alloc(ExprKind::Name(name), name_span);
        let mut built =
            Built { id: self.alloc(ExprKind::Bracket { base, subscripts }, span), span };
        if let Some(paren) = nodes.next_if(|node| node.as_rule() == Rule::paren) {
            let span = span.to(self.span(&paren));
            let values = paren.into_inner().filter(|node| node.as_rule() == Rule::masked);
            let args = values.map(|node| Arg { name: None, value: self.masked(node) }).collect();
            let id = self.alloc(ExprKind::Call { callee: built.id, args }, span);
            built = Built { id, span };
        }
        self.postfix(built, nodes)
    }

    /// A primary and what follows it: calls, brackets, fields.
    fn atom(&mut self, nodes: &mut Nodes) -> Built {
        let primary = self.atom_alone(nodes);
        self.postfix(primary, nodes)
    }

    fn atom_alone(&mut self, nodes: &mut Nodes) -> Built {
        let node = nodes.next().expect("a primary");
        let span = self.span(&node);
        Built { id: self.primary(node, span), span }
    }

    fn postfix(&mut self, mut base: Built, nodes: &mut Nodes) -> Built {
        for node in nodes {
            let span = base.span.to(self.span(&node));
            let kind = match node.as_rule() {
                Rule::call => ExprKind::Call { callee: base.id, args: self.arguments(node) },
                Rule::subscripts => {
                    ExprKind::Bracket { base: base.id, subscripts: self.subscripts(node) }
                }
                Rule::field => {
                    let name = self.ident(&node.into_inner().next().expect("a field"));
                    ExprKind::Field { base: base.id, name }
                }
                rule => unreachable!("{rule:?} does not follow an expression"),
            };
            base = Built { id: self.alloc(kind, span), span };
        }
        base
    }

    fn primary(&mut self, node: Node, span: Span) -> ExprId {
        let kind = match node.as_rule() {
            Rule::number => number(node.as_str()),
            Rule::string => ExprKind::Str(unescape(node.as_str())),
            Rule::truth => ExprKind::Bool(node.as_str() == "yes"),
            Rule::name => ExprKind::Name(self.intern(node.as_str())),
            Rule::paren => return self.paren(node, span),
            Rule::list => {
                ExprKind::List(super::build::exprs(node).map(|node| self.expr(node)).collect())
            }
            Rule::if_form => self.if_form(node),
            Rule::for_form => self.for_form(node),
            Rule::scan_form => self.scan_form(node),
            Rule::repeat_form => self.repeat_form(node),
            rule => unreachable!("{rule:?} is not a primary"),
        };
        self.alloc(kind, span)
    }

    fn paren(&mut self, node: Node, span: Span) -> ExprId {
        let mut parts = Vec::new();
        let mut trailing_comma = false;
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::masked => parts.push(self.masked(node)),
                Rule::comma => trailing_comma = true,
                _ => {}
            }
        }
        match parts.as_slice() {
            [only] if !trailing_comma => *only,
            _ => self.alloc(ExprKind::Tuple(parts), span),
        }
    }

    fn arguments(&mut self, node: Node) -> Vec<Arg> {
        let nodes = node.into_inner().filter(|node| node.as_rule() == Rule::argument);
        let args: Vec<Arg> = nodes.map(|node| self.argument(node)).collect();
        let named = args.iter().position(|arg| arg.name.is_some()).unwrap_or(args.len());
        if let Some(late) = args[named..].iter().find(|arg| arg.name.is_none()) {
            let span = self.span_of(late.value);
            let title = "a positional argument after a named one";
            self.report(
                Diagnostic::error(Code::ArgumentOrder, title, span, "has no name")
                    .help("put it before the named arguments, or give it its name"),
            );
        }
        args
    }

    pub(super) fn argument(&mut self, node: Node) -> Arg {
        let mut inner = node.into_inner();
        let first = inner.next().expect("an argument");
        match first.as_rule() {
            Rule::name => {
                let name = Some(self.ident(&first));
                Arg { name, value: self.expr(inner.next_back().expect("a value")) }
            }
            _ => Arg { name: None, value: self.expr(first) },
        }
    }

    fn subscripts(&mut self, node: Node) -> Vec<Subscript> {
        let nodes = node.into_inner().filter(|node| node.as_rule() == Rule::subscript);
        nodes.map(|node| self.subscript(node)).collect()
    }

    fn subscript(&mut self, node: Node) -> Subscript {
        let span = self.span(&node);
        let (mut start, mut end, mut is_slice) = (None, None, false);
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::rest => {
                    let (name, span) = self.rest(node);
                    return Subscript::Rest { name, span };
                }
                Rule::colon => is_slice = true,
                _ if is_slice => end = Some(self.expr(node)),
                _ => start = Some(self.expr(node)),
            }
        }
        match start {
            Some(only) if !is_slice => Subscript::Expr(only),
            start => Subscript::Slice { start, end, span },
        }
    }

    fn if_form(&mut self, node: Node) -> ExprKind {
        let mut arms = Vec::new();
        let mut cond = None;
        let mut otherwise = None;
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::expr => cond = Some(self.expr(node)),
                Rule::block => {
                    let block = self.block(node);
                    match cond.take() {
                        Some(cond) => arms.push((cond, block)),
                        None => otherwise = Some(block),
                    }
                }
                _ => {}
            }
        }
        ExprKind::If { arms, otherwise }
    }

    fn for_form(&mut self, node: Node) -> ExprKind {
        let parts = self.loop_parts(node);
        ExprKind::For { var: parts.name.expect("a variable"), list: parts.over, body: parts.body }
    }

    fn repeat_form(&mut self, node: Node) -> ExprKind {
        let parts = self.loop_parts(node);
        ExprKind::Repeat { label: parts.name, count: parts.over, body: parts.body }
    }

    fn scan_form(&mut self, node: Node) -> ExprKind {
        let parts = self.loop_parts(node);
        ExprKind::Scan(Box::new(Scan {
            var: parts.name.expect("a step index"),
            extent: parts.over,
            order: parts.order,
            carries: parts.carries,
            body: parts.body,
        }))
    }

    fn loop_parts(&mut self, node: Node) -> Loop {
        let (mut name, mut over, mut body, mut carries) = (None, None, None, Vec::new());
        let mut order = Order::Forward;
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::name => name = Some(self.ident(&node)),
                Rule::label => {
                    let label = node.into_inner().next().expect("a name");
                    name = Some(self.ident(&label));
                }
                Rule::expr => over = Some(self.expr(node)),
                Rule::reverse => order = self.order(node),
                Rule::carry => carries.push(self.carry(node)),
                Rule::block => body = Some(self.block(node)),
                _ => {}
            }
        }
        let (over, body) = (over.expect("a count"), body.expect("a body"));
        Loop { name, over, order, carries, body }
    }

    /// `reverse`, `reverse if c`.
    fn order(&mut self, node: Node) -> Order {
        let cond = node.into_inner().find(|part| part.as_rule() == Rule::expr);
        cond.map_or(Order::Reverse, |cond| Order::ReverseIf(self.expr(cond)))
    }

    fn carry(&mut self, node: Node) -> Carry {
        let mut names = Vec::new();
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::name => names.push(self.ident(&node)),
                Rule::expr => return Carry { names, value: self.expr(node) },
                _ => {}
            }
        }
        unreachable!("a carry has a first value")
    }
}

/// What `for`, `scan` and `repeat` have in common.
struct Loop {
    name: Option<Ident>,
    over: ExprId,
    order: Order,
    carries: Vec<Carry>,
    body: Block,
}

fn binary_op(text: &str) -> BinaryOp {
    use BinaryOp::{Add, And, Div, Eq, FloorDiv, Ge, Gt, Le, Lt, MatMul, Mul, Ne, Or, Rem, Sub};
    let all = [Or, And, Eq, Ne, Lt, Le, Gt, Ge, Add, Sub, Mul, Div, FloorDiv, Rem, MatMul];
    all.into_iter().find(|op| op.symbol() == text).expect("the grammar knows the operators")
}

/// The value of a number, whose form and range were checked before.
fn number(text: &str) -> ExprKind {
    let plain = text.replace('_', "");
    let int = |digits: &str| digits.parse().expect("whole numbers were checked");
    if plain.contains('x') {
        ExprKind::Size(plain.split('x').map(int).collect())
    } else if plain.bytes().all(|byte| byte.is_ascii_digit()) {
        ExprKind::Int(int(&plain))
    } else {
        ExprKind::Float(plain.parse().expect("floating-point numbers were checked"))
    }
}

/// The text of a string literal.
fn unescape(literal: &str) -> String {
    let mut characters = literal[1..literal.len() - 1].chars();
    let mut text = String::new();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next().expect("an escape has a character") {
                'n' => '\n',
                't' => '\t',
                other => other,
            },
            plain => plain,
        });
    }
    text
}

fn chained_comparison(op: Span, before: Span) -> Diagnostic {
    let title = "comparisons do not chain";
    Diagnostic::error(Code::ChainedComparison, title, op, "the second comparison")
        .label(before, "the first")
        .help("write `a < b and b < c`")
}

fn bad_index(place: Span) -> Diagnostic {
    let title = "a reduction's brackets introduce indices";
    let label = "expected a name, or a name with its extent: `u < T`";
    Diagnostic::error(Code::BadIndex, title, place, label)
        .help("to reduce an axis of a whole tensor write `sum[1](x)`")
}
