//! Loops over an axis: `scan t in T with h = h0 { .. }`.
//!
//! The body is elaborated once, in the graph around it: holes stand for the step's index and for what
//! is carried, and [`Graph::add_scan`](dlc_graph::Graph::add_scan) takes what depends on them out
//! into a body. So a body may use anything that is in scope, and what does not depend on the step
//! is outside the loop by itself. A loop backwards counts its index down and turns around what it
//! yields.

use std::rc::Rc;

use dlc_graph::op::Gather;
use dlc_graph::{Carried, Loop, Shape, Type, Value};
use dlc_kernel::{BinaryOp, DType, Size};

use super::scope::Scope;
use super::value::Val;
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{self, ExprId, Ident, Order, Scan};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// A loop whose body is being elaborated.
#[derive(Debug)]
pub(super) struct OpenScan {
    /// The step's index, as an `I32` scalar.
    index: Value,
    steps: Size,
    /// Whether the last step comes first.
    reverse: bool,
    /// How many frames there are; `yield` belongs to the loop of its own definition.
    frames: usize,
    /// How many scopes of its frame are around it.
    scopes: usize,
    /// By `yield` statement.
    yields: Vec<Yield>,
}

/// What a `yield` statement gives at a step.
#[derive(Debug)]
struct Yield {
    /// One value, or those of a tuple; each with the dim that the steps become.
    parts: Vec<(Value, usize)>,
    is_tuple: bool,
}

/// A carry with its name: a tensor, or several side by side.
struct Named {
    name: Ident,
    parts: Vec<Part>,
    is_tuple: bool,
}

/// A carried tensor.
struct Part {
    first: Value,
    hole: Value,
}

impl Named {
    /// The values of its parts as its own.
    fn value(&self, parts: impl Iterator<Item = Value>) -> Val {
        let mut parts = parts.map(Val::from);
        match self.is_tuple {
            true => Val::Tuple(parts.collect(), None),
            false => parts.next().expect("a carry has a part"),
        }
    }
}

impl<'u> Elab<'u> {
    pub(super) fn eval_scan(&mut self, scan: &'u Scan, span: Span) -> Eval<Val> {
        if !self.frame().indices.is_empty() {
            let title = "a loop inside an index equation";
            let diagnostic = Diagnostic::error(Code::BadEquation, title, span, "")
                .help("give its result a name in a statement before");
            return Err(self.fail(diagnostic));
        }
        let at = self.ast().span(scan.extent);
        let steps = self.eval(scan.extent)?;
        let steps = self.expect_size(&steps, "the number of steps", at)?;
        self.check_size(&steps, at)?;
        let carries = self.first_values(&scan.carries)?;
        let origin = self.origin(scan.var.span);
        let reverse = match scan.order {
            Order::Forward => false,
            Order::Reverse => true,
            Order::ReverseIf(cond) => self.known_bool(cond)?,
        };
        let index = self.graph.hole(Type::scalar(DType::I32), &origin);
        self.scans.push(OpenScan {
            index,
            steps: steps.clone(),
            reverse,
            frames: self.frames.len(),
            scopes: self.frame().scopes.len(),
            yields: Vec::new(),
        });
        let next = self.run_step(scan, &carries, index);
        let open = self.scans.pop().expect("it was pushed");
        let carried = self.carried(&carries, next?, scan)?;
        let (coef, offset) = match reverse {
            true => (-1, steps.clone() - Size::ONE),
            false => (1, Size::ZERO),
        };
        let values = open.yields.iter().flat_map(|y| &y.parts);
        let looped = Loop {
            steps,
            carries: carried,
            sequences: Vec::new(),
            shared: Vec::new(),
            index: Some((index, coef, offset)),
            yields: values.map(|part| part.0).collect(),
        };
        self.close_scan(&carries, &looped, &open, span)
    }

    /// The carries before the first step.
    fn first_values(&mut self, carries: &'u [ast::Carry]) -> Eval<Vec<Named>> {
        let mut named: Vec<Named> = Vec::new();
        for carry in carries {
            let at = self.ast().span(carry.value);
            let values = match self.eval(carry.value)? {
                Val::Tuple(parts, _) if parts.len() == carry.names.len() => parts.to_vec(),
                value => vec![value; carry.names.len()],
            };
            for (name, value) in carry.names.iter().zip(values) {
                if let Some(first) = named.iter().find(|n| n.name.text == name.text) {
                    let title = format!("`{}` is carried twice", name.text);
                    let diagnostic =
                        Diagnostic::error(Code::DuplicateName, title, name.span, "again")
                            .label(first.name.span, "first here");
                    return Err(self.fail(diagnostic));
                }
                named.push(self.first_value_of(name, value, carry.names.len() == 1, at)?);
            }
        }
        Ok(named)
    }

    /// A carry before the first step. One name alone may stand for several tensors.
    fn first_value_of(&mut self, name: &Ident, value: Val, alone: bool, at: Span) -> Eval<Named> {
        let (values, is_tuple): (Rc<[Val]>, bool) = match value {
            Val::Tuple(parts, _) if alone => (parts, true),
            value => ([value].into(), false),
        };
        let origin = self.origin(name.span);
        let mut parts = Vec::new();
        for value in values.iter() {
            let first = self.tensor(value, at)?.value;
            let hole = self.graph.hole(self.ty(first).clone(), &origin);
            parts.push(Part { first, hole });
        }
        Ok(Named { name: name.clone(), parts, is_tuple })
    }

    /// Runs the body once; gives the carries after the step.
    fn run_step(&mut self, scan: &'u Scan, carries: &[Named], index: Value) -> Eval<Vec<Val>> {
        self.frame_mut().scopes.push(Scope::default());
        self.frame_mut().declare(&scan.var.text, index.into());
        for carry in carries {
            let holes = carry.value(carry.parts.iter().map(|part| part.hole));
            self.frame_mut().declare(&carry.name.text, holes);
        }
        let result = self.run_block(&scan.body);
        let own = self.frame_mut().scopes.pop().expect("it was pushed");
        if let Val::Tensor(_) = result? {
            self.warn_step_value(scan);
        }
        Ok(carries.iter().map(|carry| own[&carry.name.text].clone()).collect())
    }

    fn warn_step_value(&mut self, scan: &Scan) {
        let Some(last) = scan.body.stmts.last() else { return };
        let title = "the value of a step is lost";
        let diagnostic = Diagnostic::warning(Code::UnusedValue, title, last.span, "")
            .help("write `yield ..` to keep it");
        self.report(diagnostic);
    }

    /// `name = value`. In a step, a name of around the loop must be carried.
    pub(super) fn assign(&mut self, name: &Ident, value: Val) -> Eval<()> {
        let open = self.scans.last().filter(|open| open.frames == self.frames.len());
        let is_outside = |open: &OpenScan| {
            self.frame().scope_of(&name.text).is_some_and(|scope| scope < open.scopes)
        };
        if !open.is_some_and(is_outside) {
            self.frame_mut().assign(&name.text, value);
            return Ok(());
        }
        self.frame_mut().declare(&name.text, Val::Poison);
        let title = format!("`{}` is rebound at every step, but not carried", name.text);
        let text = "this would be lost after the step";
        let diagnostic = Diagnostic::error(Code::BadLoop, title, name.span, text)
            .help(format!("carry it: `scan .. with {0} = {0}`", name.text))
            .help("or take another name for what only this step needs");
        Err(self.fail(diagnostic))
    }

    /// The carries, after a look at their types.
    fn carried(&mut self, carries: &[Named], next: Vec<Val>, scan: &Scan) -> Eval<Vec<Carried>> {
        let mut carried = Vec::new();
        for (carry, next) in carries.iter().zip(next) {
            let name = &carry.name;
            let next: Rc<[Val]> = match next {
                Val::Tuple(parts, _) if carry.is_tuple => parts,
                next => [next].into(),
            };
            if next.len() != carry.parts.len() {
                let (begins, becomes) = (carry.parts.len(), next.len());
                let title =
                    format!("the carry `{}` begins as {begins} values, not {becomes}", name.text);
                let diagnostic = Diagnostic::error(Code::BadLoop, title, name.span, "carried here");
                return Err(self.fail(diagnostic));
            }
            let mut changes = false;
            for (part, next) in carry.parts.iter().zip(next.iter()) {
                let next = self.next_value(name, part, next, scan)?;
                changes |= next != part.hole;
                carried.push(Carried { hole: part.hole, first: part.first, next });
            }
            if !changes {
                let title = format!("the carry `{}` never changes", name.text);
                let diagnostic = Diagnostic::error(Code::BadLoop, title, name.span, "carried here")
                    .help(format!("give it its next value in the body: `{} = ..`", name.text));
                return Err(self.fail(diagnostic));
            }
        }
        Ok(carried)
    }

    /// The next value of a carried tensor, which has its type.
    fn next_value(&mut self, name: &Ident, part: &Part, next: &Val, scan: &Scan) -> Eval<Value> {
        let ty = self.ty(part.first).clone();
        let next = self.tensor_as(next, ty.dtype, name.span)?.value;
        let found = self.ty(next).clone();
        if found == ty {
            return Ok(next);
        }
        let title = format!("the carry `{}` is {ty}, but its next value {found}", name.text);
        let diagnostic =
            Diagnostic::error(Code::BadLoop, title, name.span, format!("begins as {ty}"))
                .label(scan.body.span, format!("a step makes it {found}"));
        Err(self.fail(diagnostic))
    }

    /// Adds the loop. Its value is what it yields, or else the carries after the last step, which
    /// also have their names from now on.
    fn close_scan(
        &mut self,
        carries: &[Named],
        looped: &Loop,
        open: &OpenScan,
        span: Span,
    ) -> Eval<Val> {
        if carries.is_empty() && open.yields.is_empty() {
            let title = "a loop that neither carries nor yields";
            return Err(self.fail(Diagnostic::error(Code::BadLoop, title, span, "")));
        }
        let origin = self.origin(span);
        let made = self.graph.add_scan(looped, &origin).map_err(|error| {
            let diagnostic = Diagnostic::error(Code::Operation, error.message, span, "");
            self.fail(diagnostic)
        })?;
        let (histories, stacked) = made.split_at(looped.carries.len());
        let mut histories = histories.iter();
        let mut finals = Vec::new();
        for carry in carries {
            let own = histories.by_ref().take(carry.parts.len());
            let graph = &mut self.graph;
            let last =
                carry.value(own.map(|&all| graph.element(all, looped.steps.clone(), &origin)));
            self.frame_mut().declare(&carry.name.text, last.clone());
            finals.push(last);
        }
        let mut stacked = stacked.iter().copied();
        let mut values = Vec::new();
        for statement in &open.yields {
            let parts = statement.parts.iter().zip(&mut stacked);
            let parts: Vec<Val> = parts
                .map(|(&(_, at), all)| {
                    let all = if open.reverse { self.graph.reverse(all, &origin) } else { all };
                    Val::from(self.steps_at(all, at, span))
                })
                .collect();
            values.push(match statement.is_tuple {
                true => Val::Tuple(parts.into(), None),
                false => parts[0].clone(),
            });
        }
        Ok(together(if values.is_empty() { finals } else { values }))
    }

    /// Moves dim 0 to be dim `at`.
    fn steps_at(&mut self, all: Value, at: usize, span: Span) -> Value {
        let rank = self.ty(all).rank() as u32;
        let mut order: Vec<u32> = (1..rank).collect();
        order.insert(at, 0);
        let origin = self.origin(span);
        self.graph.transpose(all, &order, &origin)
    }

    /// `yield h at 1`.
    pub(super) fn run_yield(&mut self, value: ExprId, at: Option<ExprId>, span: Span) -> Eval<Val> {
        let own = self.scans.last().is_some_and(|open| open.frames == self.frames.len());
        if !own {
            let title = "`yield` outside of a loop";
            let diagnostic = Diagnostic::error(Code::BadLoop, title, span, "")
                .note("it belongs in the body of a `scan` of the same block");
            return Err(self.fail(diagnostic));
        }
        let place = self.ast().span(value);
        let (values, is_tuple): (Rc<[Val]>, bool) = match self.eval(value)? {
            Val::Tuple(parts, _) => (parts, true),
            value => ([value].into(), false),
        };
        let axis = match at {
            Some(at) => Some((self.eval_known_size(at, "the place of the steps")?, at)),
            None => None,
        };
        let mut parts = Vec::new();
        for value in values.iter() {
            let tensor = self.tensor(value, place)?.value;
            let rank = self.ty(tensor).rank();
            let dim = match axis {
                Some((axis, at)) => self.steps_dim(axis, rank, at)?,
                None => rank.min(1),
            };
            parts.push((tensor, dim));
        }
        let open = self.scans.last_mut().expect("it is open");
        open.yields.push(Yield { parts, is_tuple });
        Ok(Val::Unit)
    }

    fn steps_dim(&mut self, axis: i64, rank: usize, at: ExprId) -> Eval<usize> {
        let fits = usize::try_from(axis).ok().filter(|&axis| axis <= rank);
        fits.ok_or_else(|| {
            let title = format!("dim {axis} of what becomes a tensor of {} dims", rank + 1);
            let span = self.ast().span(at);
            self.fail(Diagnostic::error(Code::OutOfRange, title, span, ""))
        })
    }

    /// Whether `a op b` is `t < T` for the index of a loop of `T` steps, which always holds.
    pub(super) fn is_below_steps(&self, op: BinaryOp, a: &Val, b: &Val) -> bool {
        let (BinaryOp::Lt, Val::Tensor(index), Val::Int(size)) = (op, a, b) else { return false };
        self.scans.iter().any(|open| open.index == index.value && open.steps == *size)
    }

    /// Refuses what happens once in a call, inside of a loop.
    pub(super) fn outside_of_loops(&mut self, what: &str, span: Span) -> Eval<()> {
        if self.scans.is_empty() {
            return Ok(());
        }
        let title = format!("{what} inside of a loop");
        let diagnostic = Diagnostic::error(Code::BadLoop, title, span, "")
            .note("it happens once in a call")
            .help("carry the value from step to step, and set the state after the loop");
        Err(self.fail(diagnostic))
    }

    /// The steps of the loops around, outermost first, then `shape`.
    pub(super) fn with_steps(&self, shape: Shape) -> Shape {
        self.scans.iter().map(|open| open.steps.clone()).chain(shape).collect()
    }

    /// The element at the present steps of something that has the steps as its first dims.
    pub(super) fn at_steps(&mut self, all: Value, span: Span) -> Eval<Value> {
        let indices: Vec<Value> = self.scans.iter().map(|open| open.index).collect();
        let look_up = |value, index| self.add(Gather { axis: 0, batch: 0 }, &[value, index], span);
        indices.into_iter().try_fold(all, look_up)
    }
}

/// One value, or several.
fn together(mut values: Vec<Val>) -> Val {
    match values.len() {
        1 => values.remove(0),
        _ => Val::Tuple(values.into(), None),
    }
}
