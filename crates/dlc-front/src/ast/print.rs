//! The tree as canonical source text: what `--emit ast` shows.
//!
//! The text parses to the same tree. Parentheses stand only where grouping needs them; statements
//! have a line each; a pipeline longer than a line continues on the next, its `|>` first.

use super::level::Level;
use super::{
    Arg, Ast, Block, Def, Dim, Entry, ExprId, ExprKind, Hyper, Ident, Index, Input, Item, Order,
    Output, ParamInit, ReduceOp, Scan, Section, Stmt, StmtKind, Subscript, Train, TrainKind,
    TypeExpr, UnaryOp,
};
use crate::parse::RESERVED;
use crate::stack::on_large_stack;

/// Lines longer than this are broken before `|>`.
const WIDTH: usize = 100;

/// A file as source text.
#[must_use]
pub fn print(ast: &Ast) -> String {
    on_large_stack(|| {
        let printer = Printer { ast };
        let items: Vec<String> = ast.items.iter().map(|item| printer.item(item)).collect();
        let mut text = items.join("\n\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text
    })
}

struct Printer<'a> {
    ast: &'a Ast,
}

impl Printer<'_> {
    fn item(&self, item: &Item) -> String {
        match item {
            Item::Def(def) => self.def(def),
            Item::Binding(stmt) => self.stmt(stmt),
            Item::Expect(expect) => {
                let claims = expect.claims.iter().map(|claim| self.expr(*claim));
                braces(&format!("expect {}", expect.model.text), claims.collect())
            }
            Item::Train(train) => self.train(train),
            Item::Section(section) => self.section(section),
        }
    }

    fn def(&self, def: &Def) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let hypers = |hypers: &[Hyper]| list(hypers.iter().map(|it| self.hyper(it)).collect());
        let mut head = format!("{} {}", def.kind.keyword(), def.name.text);
        if !def.statics.is_empty() {
            head += &format!("[{}]", hypers(&def.statics));
        }
        if !def.hypers.is_empty() {
            head += &format!("({})", hypers(&def.hypers));
        }
        head += &format!("({})", list(def.inputs.iter().map(|it| self.input(it)).collect()));
        if let Some(output) = &def.output {
            head += &format!(" -> {}", self.output(output));
        }
        if !def.constraints.is_empty() {
            let conds = def.constraints.iter().map(|cond| self.expr(*cond));
            head += &format!(" where {}", list(conds.collect()));
        }
        format!("{head} {}", self.block(&def.body))
    }

    fn hyper(&self, hyper: &Hyper) -> String {
        let dynamic = if hyper.is_dyn { "dyn " } else { "" };
        format!("{dynamic}{}{}", hyper.name.text, self.after(" = ", hyper.default))
    }

    fn input(&self, input: &Input) -> String {
        let ty = input.ty.as_ref().map(|ty| format!(": {}", self.ty(ty))).unwrap_or_default();
        format!("{}{ty}{}", input.name.text, self.after(" = ", input.default))
    }

    fn output(&self, output: &Output) -> String {
        match output {
            Output::Single(ty) => self.ty(ty),
            Output::Named(outputs) => {
                let named =
                    outputs.iter().map(|(name, ty)| format!("{}: {}", name.text, self.ty(ty)));
                format!("({})", named.collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn ty(&self, ty: &TypeExpr) -> String {
        let dims = ty.dims.iter().map(|dim| match dim {
            Dim::Rest { name, .. } => rest(name.as_ref()),
            Dim::Size(size) => self.expr(*size),
        });
        let dims = dims.collect::<Vec<_>>().join(", ");
        match &ty.dtype {
            Some(dtype) if ty.dims.is_empty() => dtype.text.to_string(),
            Some(dtype) => format!("{}[{dims}]", dtype.text),
            None => format!("[{dims}]"),
        }
    }

    fn train(&self, train: &Train) -> String {
        let stmts = train.stmts.iter().map(|stmt| self.train_stmt(&stmt.kind));
        braces(&format!("train {}", train.model.text), stmts.collect())
    }

    fn train_stmt(&self, kind: &TrainKind) -> String {
        let value = match kind {
            TrainKind::Shuffle => return kind.keyword().to_owned(),
            TrainKind::Data { source, batch, shuffle } => {
                let shuffle = if shuffle.is_some() { " shuffle" } else { "" };
                format!("{}{}{shuffle}", self.expr(*source), self.after(" batch ", *batch))
            }
            TrainKind::Metric { name, value } => {
                let name = name.as_ref().map(|name| format!("{} = ", name.text));
                format!("{}{}", name.unwrap_or_default(), self.expr(*value))
            }
            TrainKind::Stop { patience, metric, trend } => {
                let (patience, metric) = (self.expr(*patience), self.expr(*metric));
                format!("after {patience} epochs without {metric} {}", trend.word())
            }
            TrainKind::Loss(value)
            | TrainKind::Optim(value)
            | TrainKind::Epochs(value)
            | TrainKind::Seed(value)
            | TrainKind::Batch(value)
            | TrainKind::Accumulate(value)
            | TrainKind::Clip(value)
            | TrainKind::Validation(value)
            | TrainKind::Out(value) => self.expr(*value),
        };
        format!("{:<6} {value}", kind.keyword())
    }

    fn section(&self, section: &Section) -> String {
        let name = section.name.as_ref().map(|name| format!(" {}", name.text));
        let entry = |entry: &Entry| {
            let values = entry.values.iter().map(|id| format!(" {}", self.expr(*id)));
            format!("{}{}", entry.key.text, values.collect::<String>())
        };
        let entries = section.entries.iter().map(entry).collect();
        braces(&format!("{}{}", section.keyword.text, name.unwrap_or_default()), entries)
    }

    fn block(&self, block: &Block) -> String {
        let stmts = block.stmts.iter().map(|stmt| self.stmt(stmt)).collect();
        braces("", stmts)
    }

    fn stmt(&self, stmt: &Stmt) -> String {
        match &stmt.kind {
            StmtKind::Let { targets, value } => {
                format!("let {} = {}", names(targets), self.value(*value))
            }
            StmtKind::Bind { targets, value } => {
                format!("{} = {}", names(targets), self.value(*value))
            }
            StmtKind::Equation { name, indices, value } => {
                format!("{}[{}] = {}", name.text, self.indices(indices), self.value(*value))
            }
            StmtKind::Param { name, ty, init } => {
                let init = match init {
                    ParamInit::Random(init) => format!("~ {}", self.expr(*init)),
                    ParamInit::Constant(init) => format!("= {}", self.expr(*init)),
                };
                format!("param {}: {} {init}", name.text, self.ty(ty))
            }
            StmtKind::State { name, ty, value } => {
                let ty = ty.as_ref().map(|ty| format!(": {}", self.ty(ty))).unwrap_or_default();
                format!("state {}{ty} = {}", name.text, self.value(*value))
            }
            StmtKind::Update { name, value } => format!("{} <- {}", name.text, self.value(*value)),
            StmtKind::Yield { value, at } => {
                let at = self.after(" at ", *at);
                format!("yield {}{at}", self.after_keyword(*value, Level::Anything))
            }
            StmtKind::Expr(value) => self.value(*value),
        }
    }

    /// After `yield` and `repeat`: they are keywords only before a name, a number or a parenthesis.
    fn after_keyword(&self, id: ExprId, level: Level) -> String {
        let text = self.at(id, level);
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = &text[..end.unwrap_or(text.len())];
        match text.starts_with('(') || !word.is_empty() && !RESERVED.contains(&word) {
            true => text,
            false => format!("({text})"),
        }
    }

    /// The right side of a binding: a mask stands without parentheses.
    fn value(&self, id: ExprId) -> String {
        self.wrapped(self.at(id, Level::Anything), id)
    }

    fn expr(&self, id: ExprId) -> String {
        self.at(id, Level::Select)
    }

    fn after(&self, before: &str, value: Option<ExprId>) -> String {
        value.map(|value| format!("{before}{}", self.expr(value))).unwrap_or_default()
    }

    /// Breaks a long pipeline before each `|>`.
    fn wrapped(&self, line: String, id: ExprId) -> String {
        match &self.ast[id].kind {
            ExprKind::Pipe { input, stages } if line.len() > WIDTH => {
                let stages = stages.iter().map(|stage| format!("\n  |> {}", self.stage(*stage)));
                self.at(*input, Level::Or) + &stages.collect::<String>()
            }
            _ => line,
        }
    }

    fn stage(&self, id: ExprId) -> String {
        match &self.ast[id].kind {
            kind if self.configures_reduction(kind) => self.bare(kind),
            _ => self.at(id, Level::Postfix),
        }
    }

    /// The expression where at least `level` is asked for.
    fn at(&self, id: ExprId, level: Level) -> String {
        let kind = &self.ast[id].kind;
        let text = self.bare(kind);
        // An `else` after it would be taken for its own.
        let dangles = matches!(kind, ExprKind::If { otherwise: None, .. });
        let dangles = dangles && level > Level::Anything;
        match Level::of(kind) < level || dangles || self.configures_reduction(kind) {
            true => format!("({text})"),
            false => text,
        }
    }

    fn bare(&self, kind: &ExprKind) -> String {
        match kind {
            ExprKind::Int(value) => value.to_string(),
            ExprKind::Float(value) => format!("{value:?}"),
            ExprKind::Size(sizes) => size(sizes),
            ExprKind::Bool(value) => truth(*value).to_owned(),
            ExprKind::Str(text) => quoted(text),
            // Before another word it would start a loop.
            ExprKind::Name(name) if &**name == "repeat" => "(repeat)".to_owned(),
            ExprKind::Name(name) => name.to_string(),
            ExprKind::Tuple(parts) => {
                let comma = if parts.len() == 1 { "," } else { "" };
                let parts = parts.iter().map(|part| self.at(*part, Level::Anything));
                format!("({}{comma})", parts.collect::<Vec<_>>().join(", "))
            }
            ExprKind::List(parts) => {
                let parts = parts.iter().map(|part| self.expr(*part));
                format!("[{}]", parts.collect::<Vec<_>>().join(", "))
            }
            ExprKind::Unary { op: UnaryOp::Neg, operand } => {
                format!("-{}", self.at(*operand, Level::Sign))
            }
            ExprKind::Unary { op: UnaryOp::Not, operand } => {
                format!("not {}", self.at(*operand, Level::Not))
            }
            ExprKind::Chain { first, rest } => {
                let level = Level::of_operator(rest[0].op).tighter();
                rest.iter().fold(self.at(*first, level), |text, link| {
                    format!("{text} {} {}", link.op.symbol(), self.at(link.operand, level))
                })
            }
            ExprKind::Select { value, cond, otherwise } => {
                let (value, cond) = (self.at(*value, Level::Pipe), self.at(*cond, Level::Pipe));
                format!("{value} if {cond} else {}", self.expr(*otherwise))
            }
            ExprKind::Where { value, cond, otherwise } => {
                let otherwise = self.after(" else ", *otherwise);
                format!("{} where {}{otherwise}", self.expr(*value), self.expr(*cond))
            }
            ExprKind::Pipe { input, stages } => {
                let stages = stages.iter().map(|stage| format!(" |> {}", self.stage(*stage)));
                self.at(*input, Level::Or) + &stages.collect::<String>()
            }
            ExprKind::Call { callee, args } => {
                let args = args.iter().map(|arg| self.arg(arg)).collect::<Vec<_>>().join(", ");
                format!("{}({args})", self.callee(*callee))
            }
            ExprKind::Bracket { base, subscripts } => {
                let subscripts = subscripts.iter().map(|subscript| self.subscript(subscript));
                let subscripts = subscripts.collect::<Vec<_>>().join(", ");
                format!("{}[{subscripts}]", self.base(*base))
            }
            ExprKind::Field { base, name } => {
                format!("{}.{}", self.base(*base), name.text)
            }
            ExprKind::Reduce { op, indices, body } => {
                let body = self.reduction_body(*body);
                format!("{}[{}] {body}", op.name(), self.indices(indices))
            }
            control => self.control(control),
        }
    }

    /// What a bracket or field follows. A point after digits would be a fraction's.
    fn base(&self, id: ExprId) -> String {
        let kind = &self.ast[id].kind;
        match kind {
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Size(_) => {
                format!("({})", self.bare(kind))
            }
            _ => self.at(id, Level::Postfix),
        }
    }

    /// What an argument list follows: `(sum[u])(x)` and `(yield)(x)` without parentheses would be a
    /// reduction and a statement.
    fn callee(&self, id: ExprId) -> String {
        let kind = &self.ast[id].kind;
        match kind {
            ExprKind::Name(name) if &**name == "yield" => format!("({name})"),
            ExprKind::Bracket { subscripts, .. } if self.configures_reduction(kind) => {
                let number =
                    |it: &Subscript| matches!(it, Subscript::Expr(id) if self.is_number(*id));
                match subscripts.iter().any(number) {
                    true => self.bare(kind),
                    false => format!("({})", self.bare(kind)),
                }
            }
            _ => self.at(id, Level::Postfix),
        }
    }

    fn is_number(&self, id: ExprId) -> bool {
        matches!(self.ast[id].kind, ExprKind::Int(_) | ExprKind::Unary { .. })
    }

    /// `mean[2, 3]`: a reduction's name with brackets. Before an operand it would be a reduction.
    fn configures_reduction(&self, kind: &ExprKind) -> bool {
        let ExprKind::Bracket { base, .. } = kind else { return false };
        let ExprKind::Name(name) = &self.ast[*base].kind else { return false };
        ReduceOp::ALL.iter().any(|op| op.name() == &**name)
    }

    /// `a: repeat` would be a label.
    fn slice_end(&self, id: ExprId) -> String {
        let text = self.expr(id);
        match text.starts_with("repeat ") {
            true => format!("({text})"),
            false => text,
        }
    }

    /// A body that starts with a sign would be read as a difference.
    fn reduction_body(&self, body: ExprId) -> String {
        let text = self.at(body, Level::Reduction);
        match text.starts_with('-') {
            true => format!("({text})"),
            false => text,
        }
    }

    fn arg(&self, arg: &Arg) -> String {
        let name = arg.name.as_ref().map(|name| format!("{} = ", name.text)).unwrap_or_default();
        format!("{name}{}", self.expr(arg.value))
    }

    fn subscript(&self, subscript: &Subscript) -> String {
        match subscript {
            Subscript::Expr(value) => self.expr(*value),
            Subscript::Slice { start, end, .. } => {
                let end = end.map(|end| self.slice_end(end)).unwrap_or_default();
                format!("{}:{end}", self.after("", *start))
            }
            Subscript::Rest { name, .. } => rest(name.as_ref()),
        }
    }

    fn indices(&self, indices: &[Index]) -> String {
        let index = |index: &Index| {
            let extent = index.extent.map(|id| format!(" < {}", self.at(id, Level::Sum)));
            format!("{}{}", index.name.text, extent.unwrap_or_default())
        };
        indices.iter().map(index).collect::<Vec<_>>().join(", ")
    }

    fn control(&self, kind: &ExprKind) -> String {
        match kind {
            ExprKind::If { arms, otherwise } => {
                let arm = |(cond, block): &(ExprId, Block)| {
                    format!("if {} {}", self.expr(*cond), self.block(block))
                };
                let arms = arms.iter().map(arm).collect::<Vec<_>>().join(" else ");
                let otherwise = otherwise.as_ref().map(|it| format!(" else {}", self.block(it)));
                format!("{arms}{}", otherwise.unwrap_or_default())
            }
            ExprKind::Repeat { label, count, body } => {
                let label = label.as_ref().map(|label| format!("{}: ", label.text));
                let (label, count) =
                    (label.unwrap_or_default(), self.after_keyword(*count, Level::Select));
                format!("{label}repeat {count} {}", self.block(body))
            }
            ExprKind::For { var, list, body } => {
                format!("for {} in {} {}", var.text, self.expr(*list), self.block(body))
            }
            ExprKind::Scan(scan) => self.scan(scan),
            other => unreachable!("{other:?} is not a control form"),
        }
    }

    fn scan(&self, scan: &Scan) -> String {
        let carry =
            |carry: &super::Carry| format!("{} = {}", names(&carry.names), self.expr(carry.value));
        let carries = scan.carries.iter().map(carry).collect::<Vec<_>>().join(", ");
        let reverse = match scan.order {
            Order::Forward => String::new(),
            Order::Reverse => " reverse".to_owned(),
            Order::ReverseIf(cond) => format!(" reverse if {}", self.expr(cond)),
        };
        let with = if carries.is_empty() { "" } else { " with " };
        let extent = self.expr(scan.extent);
        let head = format!("scan {} in {extent}{reverse}{with}{carries}", scan.var.text);
        format!("{head} {}", self.block(&scan.body))
    }
}

/// `head { lines }`, on lines of their own and indented.
fn braces(head: &str, lines: Vec<String>) -> String {
    let head = if head.is_empty() { String::new() } else { format!("{head} ") };
    if lines.is_empty() {
        return format!("{head}{{}}");
    }
    let body = lines.join("\n").replace('\n', "\n  ");
    format!("{head}{{\n  {body}\n}}")
}

fn rest(name: Option<&Ident>) -> String {
    format!("..{}", name.map_or("", |name| &*name.text))
}

fn names(names: &[Ident]) -> String {
    names.iter().map(|name| &*name.text).collect::<Vec<_>>().join(", ")
}

/// `5x5`.
pub(super) fn size(sizes: &[i64]) -> String {
    sizes.iter().map(i64::to_string).collect::<Vec<_>>().join("x")
}

/// `yes` or `no`.
pub(super) fn truth(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        plain => plain.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}
