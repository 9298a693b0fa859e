//! Parameters, states, their first values, and random numbers.

use std::sync::Arc;

use dlc_graph::op::{Const, Op, Random, Source, SourceClass};
use dlc_graph::{Role, Shape, Type, Value};
use dlc_kernel::{DType, Scalar, Size};
use rustc_hash::FxHashMap;

use super::builtin::{Builtin, Kind};
use super::scope::Frame;
use super::value::{Func, FuncKind, Val};
use super::{Elab, Eval, Stored};
use crate::Code;
use crate::ast::{DefKind, ExprId, Ident, ParamInit, TypeExpr};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl<'u> Elab<'u> {
    /// `param W: [I, O] ~ xavier_uniform`: the parameter at the current path.
    pub(super) fn run_param(
        &mut self,
        name: &Ident,
        ty: &TypeExpr,
        init: &ParamInit,
        span: Span,
    ) -> Eval<Val> {
        self.claim_member(&name.text, name.span)?;
        let (dtype, shape) = self.eval_type(ty)?;
        for size in &shape {
            self.known_size(size, &format!("a dim of the parameter `{}`", name.text), ty.span)?;
        }
        let ty = Type { dtype, shape };
        let path = self.frame().join(&name.text);
        if let Some(known) = self.params.get(&path).cloned() {
            self.refuse_collision(&path, known.span, span)?;
            return self.share(&known, &ty, name, span);
        }
        let first = match init {
            ParamInit::Random(expr) => self.initialize(*expr, &ty)?,
            ParamInit::Constant(expr) => self.first_value(*expr, &ty)?,
        };
        let stored = self.store(path.clone(), SourceClass::Param, ty, first, span)?;
        let value = stored.value;
        self.params.insert(path, stored);
        Ok(value.into())
    }

    /// A further use of a shared instance's parameter.
    fn share(&mut self, known: &Stored, ty: &Type, name: &Ident, span: Span) -> Eval<Val> {
        if &known.ty == ty {
            return Ok(known.value.into());
        }
        let title = format!("the shared parameter `{}` would need two shapes", name.text);
        let diagnostic = Diagnostic::error(Code::InputMismatch, title, span, format!("{ty} here"))
            .note(format!("an earlier use of the instance made it {}", known.ty))
            .help("apply a shared instance to tensors of the same size, or use two instances");
        Err(self.fail(diagnostic))
    }

    /// `state s = e0`: the state at the current path; its value at entry.
    pub(super) fn run_state(
        &mut self,
        name: &Ident,
        ty: Option<&TypeExpr>,
        value: ExprId,
        span: Span,
    ) -> Eval<Val> {
        self.claim_member(&name.text, name.span)?;
        let path = self.frame().join(&name.text);
        self.frame_mut().states.insert(name.text.clone(), path.clone());
        if let Some(known) = self.states.get(&path).cloned() {
            self.refuse_collision(&path, known.span, span)?;
            return Ok(known.value.into());
        }
        let ty = match ty {
            Some(ty) => {
                let (dtype, shape) = self.eval_type(ty)?;
                Type { dtype, shape }
            }
            None => {
                let span = self.ast().span(value);
                let first = self.eval(value)?;
                let first = self.tensor(&first, span)?;
                self.ty(first.value).clone()
            }
        };
        for size in &ty.shape {
            self.known_size(size, &format!("a dim of the state `{}`", name.text), span)?;
        }
        let first = self.first_value(value, &ty)?;
        let stored = self.store(path.clone(), SourceClass::State, ty, first, span)?;
        let value = stored.value;
        self.states.insert(path, stored);
        Ok(value.into())
    }

    /// `s <- e`: the state's next value.
    pub(super) fn run_update(&mut self, name: &Ident, value: ExprId, span: Span) -> Eval<()> {
        let Some(path) = self.frame().states.get(&name.text).cloned() else {
            let title = format!("`{}` is not a state of this block", name.text);
            let diagnostic = Diagnostic::error(Code::StateUpdate, title, name.span, "not a state")
                .help(format!("declare it: `state {} = 0`", name.text));
            return Err(self.fail(diagnostic));
        };
        self.outside_of_loops("a state is set", span)?;
        let at = self.ast().span(value);
        let next = self.eval(value)?;
        let known = self.states.get(&path).cloned().ok_or(super::Reported)?;
        let next = self.tensor_as(&next, known.ty.dtype, at)?.value;
        if let Some((_, first)) = known.update {
            let title = format!("`{}` is set twice in one call", name.text);
            let diagnostic = Diagnostic::error(Code::StateUpdate, title, span, "again here")
                .label(first, "first here")
                .note("a shared instance that is applied twice sets its states twice, too");
            return Err(self.fail(diagnostic));
        }
        let ty = self.ty(next).clone();
        if ty != known.ty {
            let title =
                format!("the state `{}` is {}, but its next value {ty}", name.text, known.ty);
            let diagnostic =
                Diagnostic::error(Code::StateUpdate, title, at, format!("this is {ty}"))
                    .label(known.span, format!("declared here as {}", known.ty));
            return Err(self.fail(diagnostic));
        }
        self.states[&path].update = Some((next, span));
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        path: String,
        class: SourceClass,
        ty: Type,
        first: Value,
        span: Span,
    ) -> Eval<Stored> {
        self.init.add_result(path.clone(), first, Role::Output);
        let source = Source {
            name: path.as_str().into(),
            class,
            ty: ty.clone(),
            default: Scalar::new(ty.dtype, 0.0),
        };
        let value = self.add(source, &[], span)?;
        Ok(Stored { value, ty, span, origin: self.origin(span), update: None })
    }

    /// Runs `work` with the graph of first values as the current one.
    pub(super) fn in_init<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        std::mem::swap(&mut self.graph, &mut self.init);
        self.initializing = true;
        let result = work(self);
        self.initializing = false;
        std::mem::swap(&mut self.graph, &mut self.init);
        result
    }

    /// The value of an initializer for a parameter of type `ty`, in the graph of first values.
    fn initialize(&mut self, init: ExprId, ty: &Type) -> Eval<Value> {
        let span = self.ast().span(init);
        let value = self.eval(init)?;
        self.in_init(|elab| elab.apply_init(&value, ty, span, 0))
    }

    fn apply_init(&mut self, init: &Val, ty: &Type, span: Span, depth: usize) -> Eval<Value> {
        let func = match init {
            Val::Func(func) => func.clone(),
            Val::Poison => return Err(super::Reported),
            other => {
                let title = format!("an initializer is needed, not {}", other.describe());
                let diagnostic = Diagnostic::error(Code::HyperType, title, span, other.describe())
                    .help("for a constant write `=` instead of `~`");
                return Err(self.fail(diagnostic));
            }
        };
        let (id, args) = match &func.kind {
            FuncKind::Def(id, args) => (id, args),
            FuncKind::Builtin(Builtin { kind: Kind::Zeros, .. }, args) if args.is_empty() => {
                return self.fit_first(&Val::int(0), ty, span);
            }
            FuncKind::Builtin(Builtin { kind: Kind::Ones, .. }, args) if args.is_empty() => {
                return self.fit_first(&Val::int(1), ty, span);
            }
            _ => return Err(self.not_an_initializer(&func, span)),
        };
        let def = self.unit.def(*id);
        if def.kind != DefKind::Init || depth > 16 {
            return Err(self.not_an_initializer(&func, span));
        }
        let tensors = args.positional.iter().chain(&args.statics).map(|(v, _)| v);
        if tensors.chain(args.named.iter().map(|(_, v, _)| v)).any(Val::is_tensor) {
            if self.has_errors() {
                return Err(super::Reported); // most likely a size that is not a number
            }
            let title = "an initializer's arguments must be known at compile time";
            return Err(self.fail(Diagnostic::error(Code::NotCompileTime, title, span, "")));
        }
        let given = self.distribute(def, args, None, span)?;
        let mut frame = Frame::new(id.ast, Some(*id), self.frame().path.clone());
        frame.call = Some((span, def.name.text.clone()));
        self.frames.push(frame);
        let result = self.run_init(def, given, ty, span, depth);
        self.frames.pop();
        result
    }

    fn run_init(
        &mut self,
        def: &'u crate::ast::Def,
        mut given: super::signature::Given,
        ty: &Type,
        span: Span,
        depth: usize,
    ) -> Eval<Value> {
        for (slot, input) in given.inputs.iter_mut().zip(&def.inputs) {
            let (fan_in, fan_out) = fans(&ty.shape);
            let value = match &*input.name.text {
                "shape" => Val::sizes(&ty.shape),
                "fan_in" => Val::Int(fan_in),
                "fan_out" => Val::Int(fan_out),
                other => {
                    let title = format!("an initializer knows nothing of `{other}`");
                    let at = input.name.span;
                    let diagnostic = Diagnostic::error(Code::Arguments, title, at, "unknown input")
                        .note("its inputs can be `shape`, `fan_in` and `fan_out`");
                    return Err(self.fail(diagnostic));
                }
            };
            *slot = Some((value, span));
        }
        self.bind_signature(def, given, span)?;
        self.check_constraints(def, span)?;
        let value = self.run_block(&def.body)?;
        let at = def.body.result().map_or(span, |id| self.ast().span(id));
        match value {
            Val::Func(_) => self.apply_init(&value, ty, at, depth + 1),
            value => self.fit_first(&value, ty, at),
        }
    }

    fn not_an_initializer(&mut self, func: &Func, span: Span) -> super::Reported {
        let name = match &func.kind {
            FuncKind::Def(id, _) => self.unit.def(*id).name.text.to_string(),
            FuncKind::Builtin(builtin, _) => builtin.name.to_string(),
            FuncKind::Seq(_) => "this".to_string(),
        };
        let title = format!("`{name}` is not an initializer");
        let diagnostic = Diagnostic::error(Code::HyperType, title, span, "")
            .note("initializers are defined with `init`: `zeros`, `normal`, `xavier_uniform`, ..");
        self.fail(diagnostic)
    }

    /// A first value written as an expression: a number, or a tensor that needs no input.
    fn first_value(&mut self, expr: ExprId, ty: &Type) -> Eval<Value> {
        let span = self.ast().span(expr);
        match self.eval(expr)? {
            Val::Tensor(tensor) => {
                let copy = self.copy_to_init(tensor.value, span)?;
                self.in_init(|elab| elab.fit_first(&copy.into(), ty, span))
            }
            Val::Func(func) => {
                let value = Val::Func(func);
                self.in_init(|elab| elab.apply_init(&value, ty, span, 0))
            }
            value => self.in_init(|elab| elab.fit_first(&value, ty, span)),
        }
    }

    /// Broadcasts a first value to its type, or says why it does not fit.
    fn fit_first(&mut self, value: &Val, ty: &Type, span: Span) -> Eval<Value> {
        let tensor = self.tensor_as(value, ty.dtype, span)?;
        let actual = self.ty(tensor.value).clone();
        let fits = super::pointwise::broadcast(&actual.shape, &ty.shape);
        if actual.dtype == ty.dtype && fits.as_ref() == Some(&ty.shape) {
            return self.broadcast_to(tensor.value, &ty.shape, span);
        }
        let title = format!("a first value {actual} for {ty}");
        let label = format!("this is {actual}");
        Err(self.fail(Diagnostic::error(Code::InputMismatch, title, span, label)))
    }

    /// Copies what a value is computed from to the graph of first values.
    fn copy_to_init(&mut self, value: Value, span: Span) -> Eval<Value> {
        let mut needed = vec![false; value.0 as usize + 1];
        needed[value.0 as usize] = true;
        for i in (0..=value.0).rev().map(Value) {
            if needed[i.0 as usize] {
                self.graph.operands(i).iter().for_each(|o| needed[o.0 as usize] = true);
            }
        }
        let mut copies: FxHashMap<Value, Value> = FxHashMap::default();
        for i in (0..=value.0).map(Value).filter(|v| needed[v.0 as usize]) {
            let op = self.graph.op(i).clone();
            let origin = self.graph.origin(i).clone();
            if let Op::Source(source) = &op
                && let Some(first) = self.first_of(source, span)?
            {
                copies.insert(i, first);
                continue;
            }
            let operands: Vec<Value> = self.graph.operands(i).iter().map(|o| copies[o]).collect();
            let copy = self.init.push(op, &operands, origin);
            copies.insert(i, copy);
        }
        Ok(copies[&value])
    }

    /// The first value of a source, if it has one; run-time scalars are sources there, too.
    fn first_of(&mut self, source: &Source, span: Span) -> Eval<Option<Value>> {
        let results = self.init.results().iter();
        match results.rev().find(|r| *r.name == *source.name).map(|r| r.value) {
            Some(value) => Ok(Some(value)),
            None if source.class == SourceClass::Scalar => Ok(None),
            None => {
                let title = format!("a first value cannot depend on the input `{}`", source.name);
                let diagnostic = Diagnostic::error(Code::NotCompileTime, title, span, "");
                Err(self.fail(diagnostic))
            }
        }
    }

    /// Uniform numbers in [0, 1), different from all others of the same seed.
    pub(super) fn random(&mut self, shape: Shape, span: Span) -> Eval<Value> {
        let path = self.frame().path.clone();
        let purpose = if self.initializing { "init" } else { "step" };
        let ordinal = self.random_sites.entry(format!("{purpose}:{path}")).or_default();
        let site = fnv1a(&format!("{purpose}:{path}:{ordinal}"));
        *ordinal += 1;
        let seed = self.counter("seed", span)?;
        let step = match self.initializing {
            true => self.add(Const(Scalar::new(DType::I32, 0.0)), &[], span)?,
            false => self.batch_number(span)?,
        };
        let shape = self.with_steps(shape);
        let all = self.add(Random { site, shape }, &[seed, step], span)?;
        self.at_steps(all, span)
    }
}

/// Fan-in and fan-out of a weight as in PyTorch: dim 1 and dim 0, times the other dims.
fn fans(shape: &Shape) -> (Size, Size) {
    match shape.as_slice() {
        [] => (Size::ONE, Size::ONE),
        [only] => (only.clone(), only.clone()),
        [out, input, kernel @ ..] => {
            let field: Size = kernel.iter().cloned().product();
            (input.clone() * field.clone(), out.clone() * field)
        }
    }
}

/// The FNV-1a hash of a text: stable between versions and machines.
fn fnv1a(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The name under which a value without one of its own is returned.
pub(super) fn output_name(at: usize, count: usize) -> Arc<str> {
    if count == 1 { "output".into() } else { format!("output{at}").into() }
}
