//! Graphs as text, which [`Graph::parse`] reads back.
//!
//! ```text
//! graph {
//!   %0 x: f32[N, 4] = input
//!   %1 fc.weight: f32[3, 4] = param
//!   %2: f32[N, 3] = contract [i, j] sum [r: 4] %0[i, r] * %1[j, r]    # mlp.dl:3
//!   %3: f32[N, 3] = view [i, j] %2[i - 1, j | i - j in 0..2] else -inf
//!   %4: f32[N] = reduce_max{axes = [1]}(%3)
//!   return y = %4
//! }
//! ```
//!
//! A read shows its coordinates, then its guards; axes are named per operation, those summed over
//! from `r` on. What the type says (`iota`, `reshape`, `cast`) is not repeated.

use crate::op::{Contract, Fused, Op, OpText, Scan, Source, SourceClass, View};
use crate::{Graph, Role, Value};
use dlc_kernel::{Access, DType, Index, Origin, Scalar, Size};
use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};

impl Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer { text: String::new(), symbols: self.symbols() };
        printer.graph("graph", self, 0);
        f.write_str(printer.text.trim_end())
    }
}

struct Printer {
    text: String,
    /// Names that axes may not take.
    symbols: BTreeSet<String>,
}

impl Printer {
    fn graph(&mut self, head: &str, graph: &Graph, depth: usize) {
        let indent = "  ".repeat(depth + 1);
        self.text.push_str(head);
        self.text.push_str(" {\n");
        for value in graph.values() {
            self.text.push_str(&indent);
            self.node(graph, value, depth);
        }
        self.results(graph, &indent);
        self.text.push_str(&"  ".repeat(depth));
        self.text.push_str("}\n");
    }

    fn node(&mut self, graph: &Graph, value: Value, depth: usize) {
        let name = match graph.op(value) {
            Op::Source(source) => format!(" {}", Name(&source.name)),
            _ => String::new(),
        };
        self.put(format_args!("{value}{name}: {} = ", graph.ty(value)));
        if let Op::Fused(fused) = graph.op(value) {
            let head = fused_head(fused, &graph.operands(value));
            self.graph(&head, &fused.body, depth + 1);
            return;
        }
        if let Op::Scan(scan) = graph.op(value) {
            let head = scan_head(scan, &graph.operands(value));
            self.graph(&head, &scan.body, depth + 1);
            return;
        }
        let text = self.op(graph, value);
        self.text.push_str(&text);
        self.origin(graph.origin(value));
        self.text.push('\n');
    }

    fn origin(&mut self, origin: &Origin) {
        let Some(at) = origin else { return };
        self.put(format_args!("    # {}:{}", at.file.escape_debug(), at.line));
        if !at.path.is_empty() {
            self.put(format_args!(" {}", at.path.escape_debug()));
        }
    }

    fn op(&self, graph: &Graph, value: Value) -> String {
        let operands = graph.operands(value);
        match graph.op(value) {
            Op::Source(source) => source_text(source),
            Op::Const(c) => format!("const {}", Number(c.0)),
            Op::Extent(extent) => format!("extent {}", extent.size),
            Op::Iota(_) => "iota".into(),
            Op::Hole(hole) => format!("hole {}", hole.number),
            Op::Cast(_) => format!("cast({})", operands[0]),
            Op::View(view) => self.view(view, operands[0]),
            Op::Contract(contract) => self.contract(contract, operands[0], operands[1]),
            op => {
                let OpText { name, attributes } = op.rules().text();
                let operands = join(operands.iter());
                if attributes.is_empty() {
                    return format!("{name}({operands})");
                }
                let attributes = attributes.iter().map(|(key, value)| format!("{key} = {value}"));
                format!("{name}{{{}}}({operands})", join(attributes))
            }
        }
    }

    fn view(&self, view: &View, operand: Value) -> String {
        let axes = self.axes(view.axes.len(), 0);
        let fill = match view.fill == Scalar::new(view.fill.dtype, 0.0) {
            true => String::new(),
            false => format!(" else {}", Number(view.fill)),
        };
        format!("view [{}] {operand}{}{fill}", join(axes.iter()), read(&view.access, &axes))
    }

    fn contract(&self, op: &Contract, lhs: Value, rhs: Value) -> String {
        let axes = self.axes(op.out.len(), op.reduce.len());
        let (out, reduce) = axes.split_at(op.out.len());
        let mut text = format!("contract [{}]", join(out.iter()));
        if !reduce.is_empty() {
            let sums = reduce.iter().zip(&op.reduce).map(|(axis, n)| format!("{axis}: {n}"));
            let _ = write!(text, " sum [{}]", join(sums));
        }
        let (left, right) = (read(&op.lhs, &axes), read(&op.rhs, &axes));
        let _ = write!(text, " {lhs}{left} * {rhs}{right}");
        text
    }

    /// Names for axes: `i j k ..` for those of the result, `r s t ..` for those summed over.
    fn axes(&self, out: usize, reduce: usize) -> Vec<String> {
        let letter = |first: char, n: usize| match char::from_u32(first as u32 + n as u32) {
            Some(letter) if n < 8 => letter.to_string(),
            _ => format!("{first}{n}"),
        };
        let out = (0..out).map(|n| letter('i', n));
        let all = out.chain((0..reduce).map(|n| letter('r', n)));
        all.map(|mut name| {
            while self.symbols.contains(&name) {
                name.push('_');
            }
            name
        })
        .collect()
    }

    fn results(&mut self, graph: &Graph, indent: &str) {
        if graph.results().is_empty() {
            return;
        }
        let result =
            |r: &crate::Outcome| format!("{}{} = {}", role(r.role), Name(&r.name), r.value);
        let results: Vec<String> = graph.results().iter().map(result).collect();
        let separator = format!(",\n{indent}  ");
        match results.len() {
            1..=3 => self.put(format_args!("{indent}return {}\n", results.join(", "))),
            _ => self.put(format_args!("{indent}return\n{indent}  {}\n", results.join(&separator))),
        }
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes all text");
    }
}

fn fused_head(fused: &Fused, operands: &[Value]) -> String {
    format!("fused {}({})", fused.kind.name(), join(operands.iter()))
}

/// `scan 64 carry(%3, %4) along(%7) with(%1)`.
fn scan_head(scan: &Scan, operands: &[Value]) -> String {
    let (carries, others) = operands.split_at(scan.carries as usize);
    let (sequences, shared) = others.split_at(scan.sequences as usize);
    let mut head = format!("scan {}", scan.steps);
    for (word, operands) in [("carry", carries), ("along", sequences), ("with", shared)] {
        if !operands.is_empty() {
            let _ = write!(head, " {word}({})", join(operands.iter()));
        }
    }
    head
}

fn source_text(source: &Source) -> String {
    let class = source.class.name();
    let plain = source.class != SourceClass::Scalar && source.default.value() == 0.0;
    if plain { class.into() } else { format!("{class} {}", Number(source.default)) }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Output => "",
        Role::Update => "update ",
        Role::Check => "check ",
    }
}

/// `[i, 2*j + r - 1 | i - j in 0..N]`.
fn read(access: &Access, axes: &[String]) -> String {
    let coords = join(access.coords.iter().map(|c| index(c, axes)));
    if access.guards.is_empty() {
        return format!("[{coords}]");
    }
    let guards =
        access.guards.iter().map(|g| format!("{} in 0..{}", index(&g.index, axes), g.extent));
    format!("[{coords} | {}]", join(guards))
}

fn index(index: &Index, axes: &[String]) -> String {
    let mut text = String::new();
    for &(axis, coef) in &index.terms {
        let sign = match (coef < 0, text.is_empty()) {
            (true, true) => "-",
            (false, true) => "",
            (true, false) => " - ",
            (false, false) => " + ",
        };
        let factor = match coef.unsigned_abs() {
            1 => String::new(),
            n => format!("{n}*"),
        };
        let _ = write!(text, "{sign}{factor}{}", axes[axis.0 as usize]);
    }
    text.push_str(&offset(&index.offset, text.is_empty()));
    match (index.div, index.terms.is_empty()) {
        (1, _) => text,
        (div, false) => format!("({text})/{div}"),
        // Not to be read as the quotient of sizes.
        (div, true) => format!("{{{text}}}/{div}"),
    }
}

fn offset(offset: &Size, alone: bool) -> String {
    let text = offset.to_string();
    match text.strip_prefix('-') {
        _ if alone => text,
        _ if *offset == Size::ZERO => String::new(),
        Some(rest) => format!(" - {rest}"),
        None => format!(" + {text}"),
    }
}

fn join(items: impl Iterator<Item = impl Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// A constant, such that reading it back gives the same bits.
struct Number(Scalar);

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0.value();
        let magnitude = value.abs();
        let long = magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude);
        match self.0.dtype {
            DType::Bool if value == 0.0 || value == 1.0 => write!(f, "{}", value == 1.0),
            _ if long && value.is_finite() => write!(f, "{value:e}"),
            _ => write!(f, "{value}"),
        }
    }
}

/// A name from outside, quoted unless it is plain.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let is_role = matches!(self.0, "update" | "check");
        if !self.0.is_empty() && self.0.chars().all(plain) && !is_role {
            return f.write_str(self.0);
        }
        write!(f, "{:?}", self.0)
    }
}
