//! Programs as text: what `--emit kernels` shows.
//!
//! ```text
//! kernel conv1_relu  # lenet.dl:4
//!   contract out[i0:64, i1:6, i2:28, i3:28] sum[i4:1, i5:5, i6:5]
//!     acc = (b0[i0, i4, i2 + i5 - 2, i3 + i6 - 2] else 0) * b1[i1, i4, i5, i6]
//!     b3[i0, i1, i2, i3] = max(acc + b2[i1], 0)
//! ```
//!
//! Axes are `i0, i1, ...` with their extents at the head of each domain; buffers are `b0, b1, ...`
//! as the table at the top of a program lists them. A value that is used once stands where it is
//! used; others, and long ones, get a line `e7 = ...`. `else` gives a load's value outside and is
//! left out where the load is known to be inside. The text depends on the program alone.

mod load;

use crate::{
    Access, Axis, BinaryOp, Buffer, BufferId, Class, DType, Entry, Expr, ExprId, Exprs, Form,
    Guard, Index, Kernel, Lookup, Program, Scalar, ScatterMode, Size, Step, Store, UnaryOp,
};
use std::fmt::{self, Display, Write};

/// Longer expressions are split over several lines.
const WIDTH: usize = 64;

impl Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

impl Display for BufferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

impl Display for ExprId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

impl Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Param => "param",
            Class::State => "state",
            Class::Scalar => "scalar",
            Class::Input => "input",
            Class::Output => "output",
            Class::Temp => "temp",
        })
    }
}

impl Display for Scalar {
    /// The shortest decimal that reads back as the value in its type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value();
        let single = value as f32;
        match self.dtype {
            DType::Bool => write!(f, "{}", value != 0.0),
            DType::F32 if f64::from(single) == value => decimal(f, single, value),
            _ => decimal(f, value, value),
        }
    }
}

fn decimal(f: &mut fmt::Formatter<'_>, x: impl Display + fmt::LowerExp, value: f64) -> fmt::Result {
    let plain = value == 0.0 || !value.is_finite() || (1e-4..1e9).contains(&value.abs());
    match (value.is_nan(), plain) {
        (true, _) => f.write_str("nan"),
        (false, true) => write!(f, "{x}"),
        (false, false) => write!(f, "{x:e}"),
    }
}

impl Display for Index {
    /// `2*i1 + i2 - 1`, or `(i0 + 2)/3` where a remainder means outside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for &(axis, coef) in &self.terms {
            match (text.is_empty(), coef < 0) {
                (true, true) => text.push('-'),
                (true, false) => {}
                (false, true) => text.push_str(" - "),
                (false, false) => text.push_str(" + "),
            }
            match coef.unsigned_abs() {
                1 => write!(text, "{axis}")?,
                factor => write!(text, "{factor}*{axis}")?,
            }
        }
        let offset = self.offset.to_string();
        match (self.offset == Size::ZERO, offset.strip_prefix('-')) {
            _ if text.is_empty() => text = offset,
            (true, _) => {}
            (false, Some(rest)) if self.offset.as_const().is_some() => {
                write!(text, " - {rest}")?;
            }
            (false, _) => write!(text, " + {offset}")?,
        }
        match (self.div, text.contains(' ')) {
            (1, _) => f.write_str(&text),
            (div, true) => write!(f, "({text})/{div}"),
            (div, false) => write!(f, "{text}/{div}"),
        }
    }
}

impl Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0 <= {} < {}", self.index, self.extent)
    }
}

impl Display for Access {
    /// `[i0, 2*i1] where 0 <= i0 - i1 < 4`; nothing for rank 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&subscript(&self.coords))?;
        guards(f, self)
    }
}

/// `[i0, 2*i1]`, or nothing.
fn subscript(coords: impl IntoIterator<Item = impl Display>) -> String {
    let text = join(coords);
    if text.is_empty() { text } else { format!("[{text}]") }
}

fn guards(f: &mut impl Write, access: &Access) -> fmt::Result {
    for (i, guard) in access.guards.iter().enumerate() {
        write!(f, " {} {guard}", if i == 0 { "where" } else { "and" })?;
    }
    Ok(())
}

impl Display for Buffer {
    /// `param f32[6, 5, 5] conv1.weight`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.class, type_text(self))?;
        name_text(f, self)
    }
}

fn type_text(buffer: &Buffer) -> String {
    format!("{}{}", buffer.dtype, subscript(&buffer.shape))
}

/// The name, and a run-time scalar's default.
fn name_text(f: &mut fmt::Formatter<'_>, buffer: &Buffer) -> fmt::Result {
    f.write_str(&buffer.name)?;
    match buffer.class {
        Class::Scalar => write!(f, " = {}", Scalar::new(buffer.dtype, buffer.default)),
        _ => Ok(()),
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.buffers.iter().map(|b| type_text(b).len()).max().unwrap_or(0);
        for (i, buffer) in self.buffers.iter().enumerate() {
            let (id, class) = (BufferId(i as u32).to_string(), buffer.class.to_string());
            write!(f, "{id:<4} {class:<6}  {:<width$}  ", type_text(buffer))?;
            name_text(f, buffer)?;
            writeln!(f)?;
        }
        for entry in &self.entries {
            writeln!(f)?;
            entry_text(f, entry, self)?;
        }
        Ok(())
    }
}

fn entry_text(f: &mut fmt::Formatter<'_>, entry: &Entry, program: &Program) -> fmt::Result {
    let named =
        |ids: &[BufferId]| join(ids.iter().map(|&id| format!("{}: {id}", program.buffer(id).name)));
    let (inputs, outputs) = (named(&entry.inputs), named(&entry.outputs));
    writeln!(f, "entry {}({inputs}) -> ({outputs})", entry.name)?;
    for (k, kernel) in entry.kernels.iter().enumerate() {
        if k == entry.commit {
            writeln!(f, "  commit")?;
        }
        let text = kernel.display(program).to_string();
        text.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
    }
    Ok(())
}

impl Kernel {
    /// Its text. The program says which loads are known to be inside.
    pub fn display<'a>(&'a self, program: &'a Program) -> impl Display + 'a {
        KernelText { kernel: self, program }
    }
}

struct KernelText<'a> {
    kernel: &'a Kernel,
    program: &'a Program,
}

impl Display for KernelText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.kernel.name)?;
        if let Some(at) = &self.kernel.origin {
            write!(f, "  # {}:{}", at.file, at.line)?;
        }
        writeln!(f)?;
        self.form(f)
    }
}

impl KernelText<'_> {
    fn form(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kernel.form {
            Form::Map { segments } => segments.iter().try_for_each(|segment| {
                writeln!(f, "  map {}", domain(0, &segment.axes))?;
                let roots = segment.stores.iter().map(|s| s.value);
                let mut body = Body::new(self.program, &segment.exprs, &segment.axes, roots);
                segment.stores.iter().for_each(|s| body.store("", s));
                f.write_str(&body.text)
            }),
            Form::Row { outer, inner, exprs, steps } => self.row(f, outer, inner, exprs, steps),
            Form::Contract { out, sums, reduce, exprs, lhs, rhs, stores } => {
                let (axes, sum) = (domain(0, out), domain(out.len() + sums.len(), reduce));
                write!(f, "  contract out{axes} ")?;
                if !sums.is_empty() {
                    write!(f, "sums{} ", domain(out.len(), sums))?;
                }
                writeln!(f, "sum{sum}")?;
                let roots = stores.iter().map(|s| s.value).chain([*lhs, *rhs]);
                let all = [&out[..], &sums[..], &reduce[..]].concat();
                let mut body = Body::new(self.program, exprs, &all, roots);
                body.acc = Some(if sums.is_empty() { Sums::One } else { Sums::Several });
                body.product("acc =", *lhs, *rhs);
                stores.iter().for_each(|s| body.store("", s));
                f.write_str(&body.text)
            }
            Form::Scatter { mode, axes, exprs, buffer, access, lookups, value } => {
                writeln!(f, "  {} {}", mode.name(), domain(0, axes))?;
                let roots = lookups.iter().map(|l| l.index).chain([*value]);
                let mut body = Body::new(self.program, exprs, axes, roots);
                body.scatter(*mode, (*buffer, access, lookups), *value);
                f.write_str(&body.text)
            }
            Form::Reshape { src, dst } => writeln!(f, "  reshape {dst} = {src}"),
            Form::Loop { steps, start, body } => self.nested(f, steps, start, body),
            Form::Check { buffers } => writeln!(f, "  check {}", join(buffers)),
        }
    }

    fn nested(
        &self,
        f: &mut fmt::Formatter<'_>,
        steps: &Size,
        start: &[Kernel],
        body: &[Kernel],
    ) -> fmt::Result {
        for (head, kernels) in [("start".into(), start), (format!("loop {steps}"), body)] {
            if kernels.is_empty() {
                continue;
            }
            writeln!(f, "  {head}")?;
            for kernel in kernels {
                let text = kernel.display(self.program).to_string();
                text.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
            }
        }
        Ok(())
    }

    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        outer: &[Size],
        inner: &[Size],
        exprs: &Exprs,
        steps: &[Step],
    ) -> fmt::Result {
        writeln!(f, "  row out{} in{}", domain(0, outer), domain(outer.len(), inner))?;
        let axes = [outer, inner].concat();
        let folded = join((outer.len()..axes.len()).map(|i| Axis(i as u32)));
        let mut body = Body::new(self.program, exprs, &axes, steps.iter().map(Step::value));
        for (k, step) in steps.iter().enumerate() {
            match step {
                Step::Fold(op, id) => body.line(&format!("f{k} = {op}[{folded}]"), *id),
                Step::StoreRow(store) => body.store("", store),
                Step::StoreEach(store) => body.store(&format!("each[{folded}] "), store),
            }
        }
        f.write_str(&body.text)
    }
}

/// `[i0:64, i1:6]`.
fn domain(first: usize, axes: &[Size]) -> String {
    let axis = |(i, n): (usize, &Size)| format!("{}:{n}", Axis((first + i) as u32));
    format!("[{}]", join(axes.iter().enumerate().map(axis)))
}

fn join(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// How tightly the outermost operator of a text binds, loosest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Conditional,
    Or,
    And,
    Not,
    Comparison,
    Sum,
    Product,
    Negation,
    Atom,
}

/// The sums at a point of a contraction.
#[derive(Clone, Copy)]
enum Sums {
    One,
    Several,
}

/// The lines of one domain, as they are written.
struct Body<'a> {
    program: &'a Program,
    exprs: &'a Exprs,
    axes: &'a [Size],
    uses: Vec<u32>,
    texts: Vec<Option<(String, Level)>>,
    /// What `Folded` is, if it is of a contraction.
    acc: Option<Sums>,
    text: String,
}

impl<'a> Body<'a> {
    fn new(
        program: &'a Program,
        exprs: &'a Exprs,
        axes: &'a [Size],
        roots: impl Iterator<Item = ExprId> + Clone,
    ) -> Body<'a> {
        let mut uses = vec![0; exprs.len()];
        roots.clone().for_each(|root| uses[root.0 as usize] += 1);
        for id in exprs.reachable(roots) {
            exprs.get(id).operands().iter().for_each(|o| uses[o.0 as usize] += 1);
        }
        let texts = vec![None; exprs.len()];
        Body { program, exprs, axes, uses, texts, acc: None, text: String::new() }
    }

    fn store(&mut self, prefix: &str, store: &Store) {
        self.line(&format!("{prefix}{}{} =", store.buffer, store.access), store.value);
    }

    fn line(&mut self, head: &str, value: ExprId) {
        self.prepare([value]);
        let value = self.operand(value, Level::Conditional);
        self.push(&format!("{head} {value}"));
    }

    fn product(&mut self, head: &str, a: ExprId, b: ExprId) {
        self.prepare([a, b]);
        let (a, b) = (self.operand(a, Level::Product), self.operand(b, Level::Negation));
        self.push(&format!("{head} {a} * {b}"));
    }

    fn scatter(
        &mut self,
        mode: ScatterMode,
        (buffer, access, lookups): (BufferId, &Access, &[Lookup]),
        value: ExprId,
    ) {
        self.prepare(lookups.iter().map(|l| l.index).chain([value]));
        let value = self.operand(value, Level::Conditional);
        let mut place = self.place(buffer, access, lookups);
        guards(&mut place, access).expect("a string takes any text");
        let sign = match mode {
            ScatterMode::Add => "+=",
            ScatterMode::Overwrite => "=",
        };
        self.push(&format!("{place} {sign} {value}"));
    }

    fn push(&mut self, line: &str) {
        self.text.push_str("    ");
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Writes down all nodes that `roots` need: as a text to insert, or as a line of their own.
    fn prepare(&mut self, roots: impl IntoIterator<Item = ExprId>) {
        for id in self.exprs.reachable(roots) {
            if self.texts[id.0 as usize].is_some() {
                continue;
            }
            let (text, level) = self.compose(id);
            let named = self.exprs.get(id).operands().is_empty() && !self.is_load(id);
            let long = text.len() > WIDTH;
            let shared = self.uses[id.0 as usize] > 1 && !named;
            let written = if shared || long {
                self.push(&format!("{id} = {text}"));
                (id.to_string(), Level::Atom)
            } else {
                (text, level)
            };
            self.texts[id.0 as usize] = Some(written);
        }
    }

    fn is_load(&self, id: ExprId) -> bool {
        matches!(self.exprs.get(id), Expr::Load { .. } | Expr::Inside(_))
    }

    fn operand(&self, id: ExprId, at_least: Level) -> String {
        let (text, level) = self.texts[id.0 as usize].as_ref().expect("operands come first");
        if *level >= at_least { text.clone() } else { format!("({text})") }
    }

    fn compose(&self, id: ExprId) -> (String, Level) {
        let plain = |id: &ExprId| self.operand(*id, Level::Conditional);
        match self.exprs.get(id) {
            Expr::Const(scalar) if scalar.value().is_sign_negative() => {
                (scalar.to_string(), Level::Negation)
            }
            Expr::Const(scalar) => (scalar.to_string(), Level::Atom),
            Expr::Extent(size, dtype) => {
                let plain = size.as_const().is_some() || size.as_symbol().is_some();
                match (*dtype, plain) {
                    (DType::I32, true) => (size.to_string(), Level::Atom),
                    (DType::I32, false) => (format!("({size})"), Level::Atom),
                    _ => (format!("{dtype}({size})"), Level::Atom),
                }
            }
            Expr::Axis(axis) => (axis.to_string(), Level::Atom),
            Expr::Inside(guard) => (guard.to_string(), Level::Comparison),
            Expr::Load { buffer, access, lookups, fill } => {
                self.load(*buffer, access, lookups, fill)
            }
            Expr::Folded(k) => {
                let text = match self.acc {
                    Some(Sums::One) => "acc".to_string(),
                    Some(Sums::Several) => format!("acc{k}"),
                    None => format!("f{k}"),
                };
                (text, Level::Atom)
            }
            Expr::Unary(UnaryOp::Neg, x) => {
                (format!("-{}", self.operand(*x, Level::Atom)), Level::Negation)
            }
            Expr::Unary(UnaryOp::Not, x) => {
                (format!("not {}", self.operand(*x, Level::Comparison)), Level::Not)
            }
            Expr::Unary(op, x) => (format!("{op}({})", plain(x)), Level::Atom),
            Expr::Binary(op, a, b) => self.binary(*op, *a, *b),
            Expr::Select(c, a, b) => {
                let (c, a) = (self.operand(*c, Level::Or), self.operand(*a, Level::Or));
                (format!("{a} if {c} else {}", plain(b)), Level::Conditional)
            }
            Expr::Cast(dtype, x) => (format!("{dtype}({})", plain(x)), Level::Atom),
            Expr::Random { site, seed, step, element } => {
                let arguments = join([seed, step, element].map(plain));
                (format!("random[{site:#x}]({arguments})"), Level::Atom)
            }
        }
    }

    fn binary(&self, op: BinaryOp, a: ExprId, b: ExprId) -> (String, Level) {
        let (sign, level, right) = match op {
            BinaryOp::Add => ("+", Level::Sum, Level::Sum),
            BinaryOp::Sub => ("-", Level::Sum, Level::Product),
            BinaryOp::Mul => ("*", Level::Product, Level::Negation),
            BinaryOp::Div => ("/", Level::Product, Level::Negation),
            BinaryOp::Mod => ("%", Level::Product, Level::Negation),
            BinaryOp::FloorDiv => ("//", Level::Product, Level::Negation),
            BinaryOp::Eq => ("==", Level::Comparison, Level::Sum),
            BinaryOp::Ne => ("!=", Level::Comparison, Level::Sum),
            BinaryOp::Lt => ("<", Level::Comparison, Level::Sum),
            BinaryOp::Le => ("<=", Level::Comparison, Level::Sum),
            BinaryOp::And => ("and", Level::And, Level::Not),
            BinaryOp::Or => ("or", Level::Or, Level::And),
            BinaryOp::Pow | BinaryOp::Max | BinaryOp::Min => {
                let both = [a, b].map(|x| self.operand(x, Level::Conditional));
                return (format!("{op}({})", join(both)), Level::Atom);
            }
        };
        let left = if level == Level::Comparison { Level::Sum } else { level };
        let (a, b) = (self.operand(a, left), self.operand(b, right));
        (format!("{a} {sign} {b}"), level)
    }
}
