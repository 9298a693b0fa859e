//! The tree as text: an indented line per item and statement, each expression in prefix form with
//! all its parentheses, `(+ a (* b c))`, so that grouping can be seen. For tests and for people who
//! ask how something was read; places are left out.

use std::fmt::Write as _;

use super::{
    Arg, Ast, Block, Def, Dim, ExprId, ExprKind, Hyper, Ident, Index, Input, Item, Order, Output,
    ParamInit, Scan, Stmt, StmtKind, Subscript, Train, TrainKind, TypeExpr, UnaryOp,
};
use crate::stack::on_large_stack;

/// The structure of a file.
#[must_use]
pub fn tree(ast: &Ast) -> String {
    on_large_stack(|| {
        let mut tree = Tree { ast, text: String::new(), depth: 0 };
        ast.items.iter().for_each(|item| tree.item(item));
        tree.text
    })
}

struct Tree<'a> {
    ast: &'a Ast,
    text: String,
    depth: usize,
}

impl Tree<'_> {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{:1$}{line}", "", 2 * self.depth).expect("strings take all text");
    }

    fn nested(&mut self, head: &str, body: impl FnOnce(&mut Self)) {
        self.line(head);
        self.depth += 1;
        body(self);
        self.depth -= 1;
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Def(def) => self.def(def),
            Item::Binding(stmt) => self.stmt(stmt),
            Item::Expect(expect) => self.nested(&format!("expect {}", expect.model.text), |it| {
                expect.claims.iter().for_each(|claim| it.line(&it.expr(*claim)));
            }),
            Item::Train(train) => self.train(train),
            Item::Section(section) => {
                let name = section.name.iter().map(|name| format!(" {}", name.text));
                let head = format!("{}{}", section.keyword.text, name.collect::<String>());
                self.nested(&head, |it| {
                    for entry in &section.entries {
                        it.line(&format!("{}{}", entry.key.text, it.spaced(&entry.values)));
                    }
                });
            }
        }
    }

    fn def(&mut self, def: &Def) {
        self.nested(&format!("{} {}", def.kind.keyword(), def.name.text), |it| {
            def.statics.iter().for_each(|hyper| it.hyper("static", hyper));
            def.hypers.iter().for_each(|hyper| it.hyper("hyper", hyper));
            def.inputs.iter().for_each(|input| it.input(input));
            match &def.output {
                None => {}
                Some(Output::Single(ty)) => it.line(&format!("output {}", it.ty(ty))),
                Some(Output::Named(outputs)) => outputs.iter().for_each(|(name, ty)| {
                    it.line(&format!("output {}: {}", name.text, it.ty(ty)));
                }),
            }
            def.constraints.iter().for_each(|cond| it.line(&format!("where {}", it.expr(*cond))));
            it.nested("body", |it| it.block(&def.body));
        });
    }

    fn hyper(&mut self, what: &str, hyper: &Hyper) {
        let dynamic = if hyper.is_dyn { " dyn" } else { "" };
        let default = self.after(" = ", hyper.default);
        self.line(&format!("{what}{dynamic} {}{default}", hyper.name.text));
    }

    fn input(&mut self, input: &Input) {
        let ty = input.ty.iter().map(|ty| format!(": {}", self.ty(ty))).collect::<String>();
        let default = self.after(" = ", input.default);
        self.line(&format!("input {}{ty}{default}", input.name.text));
    }

    fn train(&mut self, train: &Train) {
        self.nested(&format!("train {}", train.model.text), |it| {
            for stmt in &train.stmts {
                let rest = it.train_stmt(&stmt.kind);
                it.line(&format!("{}{rest}", stmt.kind.keyword()));
            }
        });
    }

    fn train_stmt(&self, kind: &TrainKind) -> String {
        match kind {
            TrainKind::Data { source, batch, shuffle } => {
                let shuffle = if shuffle.is_some() { " shuffle" } else { "" };
                format!(" {}{}{shuffle}", self.expr(*source), self.after(" batch=", *batch))
            }
            TrainKind::Metric { name, value } => {
                let name = name.iter().map(|name| format!(" {} =", name.text));
                format!("{} {}", name.collect::<String>(), self.expr(*value))
            }
            TrainKind::Stop { patience, metric, trend } => {
                let (patience, metric) = (self.expr(*patience), self.expr(*metric));
                format!(" patience={patience} metric={metric} {}", trend.word())
            }
            TrainKind::Shuffle => String::new(),
            TrainKind::Loss(value)
            | TrainKind::Optim(value)
            | TrainKind::Epochs(value)
            | TrainKind::Seed(value)
            | TrainKind::Batch(value)
            | TrainKind::Accumulate(value)
            | TrainKind::Clip(value)
            | TrainKind::Validation(value)
            | TrainKind::Out(value) => format!(" {}", self.expr(*value)),
        }
    }

    fn block(&mut self, block: &Block) {
        block.stmts.iter().for_each(|stmt| self.stmt(stmt));
    }

    fn stmt(&mut self, stmt: &Stmt) {
        let line = match &stmt.kind {
            StmtKind::Let { targets, value } => {
                format!("let {} = {}", names(targets), self.expr(*value))
            }
            StmtKind::Bind { targets, value } => {
                format!("{} = {}", names(targets), self.expr(*value))
            }
            StmtKind::Equation { name, indices, value } => {
                format!("{}[{}] = {}", name.text, self.indices(indices), self.expr(*value))
            }
            StmtKind::Param { name, ty, init } => {
                let (sign, init) = match init {
                    ParamInit::Random(init) => ("~", init),
                    ParamInit::Constant(init) => ("=", init),
                };
                format!("param {}: {} {sign} {}", name.text, self.ty(ty), self.expr(*init))
            }
            StmtKind::State { name, ty, value } => {
                let ty = ty.iter().map(|ty| format!(": {}", self.ty(ty))).collect::<String>();
                format!("state {}{ty} = {}", name.text, self.expr(*value))
            }
            StmtKind::Update { name, value } => format!("{} <- {}", name.text, self.expr(*value)),
            StmtKind::Yield { value, at } => {
                format!("yield {}{}", self.expr(*value), self.after(" at ", *at))
            }
            StmtKind::Expr(value) => self.expr(*value),
        };
        self.line(&line);
    }

    fn ty(&self, ty: &TypeExpr) -> String {
        let dims = ty.dims.iter().map(|dim| match dim {
            Dim::Rest { name, .. } => rest(name.as_ref()),
            Dim::Size(size) => self.expr(*size),
        });
        let dims = dims.collect::<Vec<_>>().join(", ");
        format!("{}[{dims}]", ty.dtype.as_ref().map_or("", |dtype| &*dtype.text))
    }

    fn indices(&self, indices: &[Index]) -> String {
        let index = |index: &Index| format!("{}{}", index.name.text, self.after("<", index.extent));
        indices.iter().map(index).collect::<Vec<_>>().join(", ")
    }

    fn after(&self, before: &str, value: Option<ExprId>) -> String {
        value.map(|value| format!("{before}{}", self.expr(value))).unwrap_or_default()
    }

    /// Each expression with a space before it.
    fn spaced(&self, values: &[ExprId]) -> String {
        values.iter().map(|value| format!(" {}", self.expr(*value))).collect()
    }

    fn expr(&self, id: ExprId) -> String {
        match &self.ast[id].kind {
            ExprKind::Int(value) => value.to_string(),
            ExprKind::Float(value) => format!("{value:?}"),
            ExprKind::Size(sizes) => super::print::size(sizes),
            ExprKind::Bool(value) => super::print::truth(*value).to_owned(),
            ExprKind::Str(text) => format!("{text:?}"),
            ExprKind::Name(name) => name.to_string(),
            ExprKind::Tuple(parts) => format!("(tuple{})", self.spaced(parts)),
            ExprKind::List(parts) => format!("(list{})", self.spaced(parts)),
            ExprKind::Unary { op: UnaryOp::Neg, operand } => format!("(- {})", self.expr(*operand)),
            ExprKind::Unary { op: UnaryOp::Not, operand } => {
                format!("(not {})", self.expr(*operand))
            }
            ExprKind::Chain { first, rest } => {
                let first = self.expr(*first);
                rest.iter().fold(first, |left, link| {
                    format!("({} {left} {})", link.op.symbol(), self.expr(link.operand))
                })
            }
            ExprKind::Select { value, cond, otherwise } => {
                format!("(select{})", self.spaced(&[*value, *cond, *otherwise]))
            }
            ExprKind::Where { value, cond, otherwise } => {
                let otherwise = self.after(" else=", *otherwise);
                format!("(where{}{otherwise})", self.spaced(&[*value, *cond]))
            }
            ExprKind::Pipe { input, stages } => {
                format!("(pipe {}{})", self.expr(*input), self.spaced(stages))
            }
            ExprKind::Call { callee, args } => {
                format!("(call {}{})", self.expr(*callee), self.args(args))
            }
            ExprKind::Bracket { base, subscripts } => {
                let subscripts = subscripts.iter().map(|subscript| self.subscript(subscript));
                let subscripts = subscripts.collect::<Vec<_>>().join(" ");
                format!("(at {} {subscripts})", self.expr(*base))
            }
            ExprKind::Field { base, name } => format!("{}.{}", self.expr(*base), name.text),
            ExprKind::Reduce { op, indices, body } => {
                format!("({}[{}] {})", op.name(), self.indices(indices), self.expr(*body))
            }
            control => self.control(control),
        }
    }

    fn args(&self, args: &[Arg]) -> String {
        let arg = |arg: &Arg| {
            let name = arg.name.iter().map(|name| format!("{}=", name.text)).collect::<String>();
            format!(" {name}{}", self.expr(arg.value))
        };
        args.iter().map(arg).collect()
    }

    fn subscript(&self, subscript: &Subscript) -> String {
        match subscript {
            Subscript::Expr(value) => self.expr(*value),
            Subscript::Slice { start, end, .. } => {
                format!("{}:{}", self.after("", *start), self.after("", *end))
            }
            Subscript::Rest { name, .. } => rest(name.as_ref()),
        }
    }

    fn control(&self, kind: &ExprKind) -> String {
        match kind {
            ExprKind::If { arms, otherwise } => {
                let arm = |(cond, block): &(ExprId, Block)| {
                    format!(" {} {}", self.expr(*cond), self.inner_block(block))
                };
                let arms: String = arms.iter().map(arm).collect();
                let otherwise = otherwise.iter().map(|it| format!(" {}", self.inner_block(it)));
                format!("(if{arms}{})", otherwise.collect::<String>())
            }
            ExprKind::Repeat { label, count, body } => {
                let label = label.iter().map(|label| format!("{}: ", label.text));
                let (label, count) = (label.collect::<String>(), self.expr(*count));
                format!("({label}repeat {count} {})", self.inner_block(body))
            }
            ExprKind::For { var, list, body } => {
                format!("(for {} {} {})", var.text, self.expr(*list), self.inner_block(body))
            }
            ExprKind::Scan(scan) => self.scan(scan),
            other => unreachable!("{other:?} is not a control form"),
        }
    }

    fn scan(&self, scan: &Scan) -> String {
        let carry = |carry: &super::Carry| {
            format!(" with {} = {}", names(&carry.names), self.expr(carry.value))
        };
        let carries: String = scan.carries.iter().map(carry).collect();
        let extent = self.expr(scan.extent);
        let reverse = match scan.order {
            Order::Forward => String::new(),
            Order::Reverse => " reverse".to_owned(),
            Order::ReverseIf(cond) => format!(" reverse if {}", self.expr(cond)),
        };
        format!(
            "(scan {} {extent}{reverse}{carries} {})",
            scan.var.text,
            self.inner_block(&scan.body)
        )
    }

    /// A block inside an expression: its statements on lines of their own.
    fn inner_block(&self, block: &Block) -> String {
        let mut inner = Tree { ast: self.ast, text: String::new(), depth: self.depth + 2 };
        inner.block(block);
        format!("{{\n{}{:2$}}}", inner.text, "", 2 * (self.depth + 1))
    }
}

fn rest(name: Option<&Ident>) -> String {
    format!("..{}", name.map_or("", |name| &*name.text))
}

fn names(names: &[Ident]) -> String {
    names.iter().map(|name| &*name.text).collect::<Vec<_>>().join(", ")
}
