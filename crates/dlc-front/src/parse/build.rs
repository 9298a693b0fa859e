//! The grammar's nodes to tree: items, sections and types.
//!
//! A builder never fails: what the grammar lets through but the language does not is noted as a
//! diagnostic, something harmless stands in for it, and the item is not added to the tree.

use std::sync::Arc;

use pest::iterators::Pairs;
use rustc_hash::FxHashSet;

use super::grammar::{Node, Rule};
use crate::ast::{
    Ast, Def, DefKind, Dim, Entry, Expect, Expr, ExprId, ExprKind, Hyper, Ident, Input, Item,
    MAX_DEPTH, Output, Section, StmtKind, Train, TrainKind, TrainStmt, Trend, TypeExpr,
};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, nearest, sanitize};
use crate::source::{FileId, Span};

/// Builds the tree of one file.
pub(super) struct Builder {
    ast: Ast,
    /// The height of each expression's tree.
    heights: Vec<u16>,
    names: FxHashSet<Arc<str>>,
    /// Where the current item starts in the file.
    base: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Builder {
    pub(super) fn new(file: FileId) -> Self {
        Builder {
            ast: Ast { file, items: Vec::new(), exprs: Vec::new() },
            heights: Vec::new(),
            names: FxHashSet::default(),
            base: 0,
            diagnostics: Vec::new(),
        }
    }

    pub(super) fn file(&self) -> FileId {
        self.ast.file
    }

    pub(super) fn finish(self) -> Ast {
        self.ast
    }

    /// Builds the item that starts at byte `base`; adds it to the tree if it is `wanted` and
    /// without mistakes, which are returned.
    pub(super) fn add_item(
        &mut self,
        nodes: Pairs<'_, Rule>,
        base: usize,
        wanted: bool,
    ) -> Vec<Diagnostic> {
        self.base = base;
        let before = self.mark();
        let node = nodes.into_iter().next().expect("an item has a node");
        let item = match node.as_rule() {
            Rule::definition => Item::Def(self.definition(node)),
            Rule::expect => Item::Expect(self.expect_section(node)),
            Rule::train => Item::Train(self.train(node)),
            Rule::section => Item::Section(self.section(node)),
            Rule::top_binding => self.top_binding(node),
            rule => unreachable!("{rule:?} is not an item"),
        };
        let diagnostics = std::mem::take(&mut self.diagnostics);
        match wanted && diagnostics.is_empty() {
            true => self.ast.items.push(item),
            false => self.forget(before),
        }
        diagnostics
    }

    /// The state of the arena, for [`Builder::forget`].
    pub(super) fn mark(&self) -> usize {
        self.ast.exprs.len()
    }

    /// Drops the expressions made since [`Builder::mark`]; nothing may name them.
    pub(super) fn forget(&mut self, mark: usize) {
        self.ast.exprs.truncate(mark);
        self.heights.truncate(mark);
    }

    pub(super) fn kind(&self, id: ExprId) -> &ExprKind {
        &self.ast[id].kind
    }

    pub(super) fn span_of(&self, id: ExprId) -> Span {
        self.ast.span(id)
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Adds an expression. One that is too deep is reported and replaced by a leaf.
    pub(super) fn alloc(&mut self, kind: ExprKind, span: Span) -> ExprId {
        let mut below = 0;
        kind.for_each_child(|child| below = self.heights[child.0 as usize].max(below));
        let too_deep = usize::from(below) >= MAX_DEPTH;
        if too_deep && !self.diagnostics.iter().any(|it| it.code == Code::NestingTooDeep) {
            let title = format!("the expression is nested deeper than {MAX_DEPTH} levels");
            self.report(
                Diagnostic::error(Code::NestingTooDeep, title, span, "")
                    .help("give parts of the expression a name"),
            );
        }
        let (kind, height) = match too_deep {
            true => (ExprKind::Bool(false), 1),
            false => (kind, below + 1),
        };
        let id = ExprId(u32::try_from(self.ast.exprs.len()).expect("fewer nodes than bytes"));
        self.ast.exprs.push(Expr { kind, span });
        self.heights.push(height);
        id
    }

    /// The node's place, without the blanks after it.
    pub(super) fn span(&self, node: &Node) -> Span {
        let span = node.as_span();
        let length = node.as_str().trim_end_matches([' ', '\n']).len();
        let start = self.base + span.start();
        Span::new(self.ast.file, start..start + length)
    }

    /// A name, stored once.
    pub(super) fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = Arc::from(text);
        self.names.insert(Arc::clone(&name));
        name
    }

    pub(super) fn ident(&mut self, node: &Node) -> Ident {
        Ident { text: self.intern(node.as_str()), span: self.span(node) }
    }

    fn definition(&mut self, node: Node) -> Def {
        let span = self.span(&node);
        let mut inner = node.into_inner().peekable();
        let kind = def_kind(inner.next().expect("a keyword").as_str());
        let name = self.ident(&inner.next().expect("a name"));
        let statics = inner.next_if(|node| node.as_rule() == Rule::statics);
        let statics = statics.map(|node| self.hypers(node)).unwrap_or_default();
        let first = inner.next().expect("parameters");
        let (hypers, inputs) = match inner.next_if(|node| node.as_rule() == Rule::params) {
            Some(second) => (self.hypers(first), self.inputs(second)),
            None => (Vec::new(), self.inputs(first)),
        };
        let output = inner.next_if(|node| node.as_rule() == Rule::output);
        let output = output.map(|node| self.output(node));
        let constraints = inner.next_if(|node| node.as_rule() == Rule::constraints);
        let constraints = constraints.map(|node| self.constraints(node)).unwrap_or_default();
        let body = self.block(inner.next().expect("a body"));
        Def { kind, name, statics, hypers, inputs, output, constraints, body, span }
    }

    fn hypers(&mut self, node: Node) -> Vec<Hyper> {
        params(node).map(|node| self.hyper(node)).collect()
    }

    fn hyper(&mut self, node: Node) -> Hyper {
        let parts = self.param(node);
        if let Some(ty) = parts.ty {
            let title = format!("a type on the hyperparameter `{}`", parts.name.text);
            self.report(
                Diagnostic::error(Code::Syntax, title, ty.span, "only inputs have types")
                    .help("with two pairs of parentheses the second holds the inputs"),
            );
        }
        Hyper { name: parts.name, is_dyn: parts.dyn_mark.is_some(), default: parts.default }
    }

    fn inputs(&mut self, node: Node) -> Vec<Input> {
        params(node).map(|node| self.input(node)).collect()
    }

    fn input(&mut self, node: Node) -> Input {
        let parts = self.param(node);
        if let Some(span) = parts.dyn_mark {
            let title = format!("`dyn` on the input `{}`", parts.name.text);
            self.report(
                Diagnostic::error(Code::Syntax, title, span, "only hyperparameters can be `dyn`")
                    .help("hyperparameters stand in parentheses of their own, before the inputs"),
            );
        }
        Input { name: parts.name, ty: parts.ty, default: parts.default }
    }

    fn param(&mut self, node: Node) -> Param {
        let mut inner = node.into_inner().peekable();
        let dyn_mark = inner.next_if(|node| node.as_rule() == Rule::dyn_mark);
        let dyn_mark = dyn_mark.map(|node| self.span(&node));
        let name = self.ident(&inner.next().expect("a name"));
        let mut parts = Param { dyn_mark, name, ty: None, default: None };
        for node in inner {
            match node.as_rule() {
                Rule::type_expr => parts.ty = Some(self.type_expr(node)),
                Rule::expr => parts.default = Some(self.expr(node)),
                _ => {}
            }
        }
        parts
    }

    fn output(&mut self, node: Node) -> Output {
        let mut outputs = Vec::new();
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::type_expr => return Output::Single(self.type_expr(node)),
                Rule::named_output => {
                    let mut inner = node.into_inner();
                    let name = self.ident(&inner.next().expect("a name"));
                    let ty = inner.next_back().expect("a type");
                    outputs.push((name, self.type_expr(ty)));
                }
                _ => {}
            }
        }
        Output::Named(outputs)
    }

    fn constraints(&mut self, node: Node) -> Vec<ExprId> {
        exprs(node).map(|node| self.expr(node)).collect()
    }

    pub(super) fn type_expr(&mut self, node: Node) -> TypeExpr {
        let span = self.span(&node);
        let mut ty = TypeExpr { dtype: None, dims: Vec::new(), span };
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::name => ty.dtype = Some(self.ident(&node)),
                _ => ty.dims = self.dims(node),
            }
        }
        ty
    }

    fn dims(&mut self, node: Node) -> Vec<Dim> {
        let mut dims = Vec::new();
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::rest => {
                    let (name, span) = self.rest(node);
                    dims.push(Dim::Rest { name, span });
                }
                Rule::expr => dims.push(Dim::Size(self.expr(node))),
                _ => {}
            }
        }
        dims
    }

    /// `..` or `..B`.
    pub(super) fn rest(&mut self, node: Node) -> (Option<Ident>, Span) {
        let span = self.span(&node);
        (node.into_inner().next().map(|name| self.ident(&name)), span)
    }

    fn top_binding(&mut self, node: Node) -> Item {
        let node = node.into_inner().next().expect("a statement");
        let stmt = self.stmt(node);
        if !matches!(stmt.kind, StmtKind::Let { .. } | StmtKind::Bind { .. }) {
            let title = "a computation outside any definition";
            let label = "only bindings of names stand at the top level";
            self.report(
                Diagnostic::error(Code::UnknownItem, title, stmt.span, label)
                    .help("put it into the body of a `model` or `block`"),
            );
        }
        Item::Binding(stmt)
    }

    fn expect_section(&mut self, node: Node) -> Expect {
        let span = self.span(&node);
        let model = self.header_name(&node);
        let claims = exprs(node).map(|node| self.expr(node)).collect();
        Expect { model, claims, span }
    }

    fn header_name(&mut self, node: &Node) -> Ident {
        let name = node.clone().into_inner().find(|node| node.as_rule() == Rule::name);
        self.ident(&name.expect("the section names its model"))
    }

    fn train(&mut self, node: Node) -> Train {
        let span = self.span(&node);
        let model = self.header_name(&node);
        let stmts = node.into_inner().filter_map(|node| self.train_stmt(node)).collect();
        Train { model, stmts, span }
    }

    fn train_stmt(&mut self, node: Node) -> Option<TrainStmt> {
        let span = self.span(&node);
        let kind = match node.as_rule() {
            Rule::data_stmt => self.data(node),
            Rule::stop_stmt => {
                let word = node.clone().into_inner().last().expect("a trend");
                let trend = Trend::ALL.into_iter().find(|trend| trend.word() == word.as_str());
                let mut values = exprs(node).map(|node| self.expr(node));
                let patience = values.next().expect("a number of epochs");
                let metric = values.next().expect("a metric");
                TrainKind::Stop { patience, metric, trend: trend.expect("one of the words") }
            }
            Rule::metric_stmt => {
                let argument = node.into_inner().nth(1).expect("a metric");
                let argument = self.argument(argument);
                TrainKind::Metric { name: argument.name, value: argument.value }
            }
            Rule::setting => self.setting(node)?,
            _ => return None,
        };
        Some(TrainStmt { kind, span })
    }

    fn data(&mut self, node: Node) -> TrainKind {
        let (mut source, mut batch, mut shuffle) = (None, None, None);
        for node in node.into_inner() {
            match node.as_rule() {
                Rule::expr => source = Some(self.expr(node)),
                Rule::batch_option => batch = exprs(node).map(|node| self.expr(node)).next(),
                Rule::shuffle_option => shuffle = Some(self.span(&node)),
                _ => {}
            }
        }
        TrainKind::Data { source: source.expect("a data set"), batch, shuffle }
    }

    /// `epochs 10`: a word and perhaps a value. None, with a diagnostic, if there is no such.
    fn setting(&mut self, node: Node) -> Option<TrainKind> {
        let span = self.span(&node);
        let mut inner = node.into_inner();
        let word = inner.next().expect("a word");
        let value = inner.next().map(|node| self.expr(node));
        let kind = match (word.as_str(), value) {
            ("loss", Some(value)) => TrainKind::Loss(value),
            ("optim", Some(value)) => TrainKind::Optim(value),
            ("epochs", Some(value)) => TrainKind::Epochs(value),
            ("seed", Some(value)) => TrainKind::Seed(value),
            ("batch", Some(value)) => TrainKind::Batch(value),
            ("accumulate", Some(value)) => TrainKind::Accumulate(value),
            ("clip", Some(value)) => TrainKind::Clip(value),
            ("validation", Some(value)) => TrainKind::Validation(value),
            ("out", Some(value)) => TrainKind::Out(value),
            ("shuffle", None) => TrainKind::Shuffle,
            (word, _) => {
                self.report(bad_setting(word, span));
                return None;
            }
        };
        Some(kind)
    }

    fn section(&mut self, node: Node) -> Section {
        let span = self.span(&node);
        let mut inner = node.into_inner().peekable();
        let keyword = self.ident(&inner.next().expect("a keyword"));
        let name = inner.next_if(|node| node.as_rule() == Rule::name);
        let name = name.map(|node| self.ident(&node));
        let entries = inner.filter(|node| node.as_rule() == Rule::entry);
        let entries = entries.map(|node| self.entry(node)).collect();
        Section { keyword, name, entries, span }
    }

    fn entry(&mut self, node: Node) -> Entry {
        let span = self.span(&node);
        let mut inner = node.into_inner();
        let key = self.ident(&inner.next().expect("a word"));
        Entry { key, values: inner.map(|node| self.expr(node)).collect(), span }
    }
}

/// A parameter as the grammar has it: of either kind.
struct Param {
    dyn_mark: Option<Span>,
    name: Ident,
    ty: Option<TypeExpr>,
    default: Option<ExprId>,
}

fn def_kind(keyword: &str) -> DefKind {
    match keyword {
        "model" => DefKind::Model,
        "optimizer" => DefKind::Optimizer,
        "schedule" => DefKind::Schedule,
        "init" => DefKind::Init,
        _ => DefKind::Block,
    }
}

fn params(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    node.into_inner().filter(|node| node.as_rule() == Rule::param)
}

/// The expressions directly under a node.
pub(super) fn exprs(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    node.into_inner().filter(|node| node.as_rule() == Rule::expr)
}

fn bad_setting(word: &str, span: Span) -> Diagnostic {
    const FORMS: [(&str, &str); 13] = [
        ("data", "data mnist(\"data/mnist\") batch 64 shuffle"),
        ("loss", "loss cross_entropy(Net(image), label)"),
        ("metric", "metric accuracy(Net(image), label)"),
        ("optim", "optim adam(lr = 1e-3)"),
        ("stop", "stop after 3 epochs without val.loss improving"),
        ("epochs", "epochs 10"),
        ("seed", "seed 42"),
        ("batch", "batch 64"),
        ("accumulate", "accumulate 4"),
        ("clip", "clip 1.0"),
        ("shuffle", "shuffle"),
        ("validation", "validation 0.1"),
        ("out", "out \"runs/net\""),
    ];
    let code = Code::UnknownTrainStatement;
    if let Some((word, form)) = FORMS.iter().find(|(known, _)| *known == word) {
        let title = format!("`{word}` is not used like this");
        return Diagnostic::error(code, title, span, "").help(format!("write `{form}`"));
    }
    let title = format!("`{}` is not a statement of a `train` section", sanitize(word));
    let diagnostic = Diagnostic::error(code, title, span, "");
    match nearest(word, FORMS.iter().map(|(known, _)| *known)) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => {
            let known: Vec<&str> = FORMS.iter().map(|(known, _)| *known).collect();
            diagnostic.help(format!("there are {}", known.join(", ")))
        }
    }
}
