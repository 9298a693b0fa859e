//! Calls: configuring and applying definitions.

use std::rc::Rc;
use std::sync::Arc;

use super::scope::{Frame, member_path};
use super::signature::Given;
use super::value::{Args, DefId, Func, FuncKind, Val};
use super::{Elab, Eval, MAX_INSTANCE_DEPTH};
use crate::Code;
use crate::ast::{Arg, Def, DefKind, ExprId, ExprKind};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl<'u> Elab<'u> {
    /// `f(..)`: applies if the first positional argument is a tensor, else configures.
    pub(super) fn eval_call(&mut self, callee: ExprId, args: &[Arg], span: Span) -> Eval<Val> {
        let mut func = self.eval_callee(callee)?;
        let given = self.eval_args(args)?;
        let applies = match &func.kind {
            FuncKind::Builtin(..) => !given.is_empty(),
            FuncKind::Def(def, _) => {
                let def = self.unit.def(*def);
                let tensor = given.positional.first().is_some_and(|(v, _)| v.is_tensor());
                let alone = def.inputs.is_empty() && def.kind != DefKind::Schedule;
                def.kind != DefKind::Init && (tensor || alone)
            }
            FuncKind::Seq(_) => true,
        };
        if let FuncKind::Seq(_) = &func.kind {
            let first = given.positional.into_iter().next();
            return self.apply(&func, first, span);
        }
        func.extend(given);
        match applies {
            true => self.apply(&func, None, span),
            false => Ok(Val::Func(Rc::new(Func { span, ..func }))),
        }
    }

    /// What is called: a function, perhaps with static arguments in brackets.
    pub(super) fn eval_callee(&mut self, callee: ExprId) -> Eval<Func> {
        let span = self.ast().span(callee);
        match self.eval(callee)? {
            Val::Func(func) => Ok((*func).clone()),
            Val::Poison => Err(super::Reported),
            other => {
                let title = format!("{} cannot be called", other.describe());
                let mut diagnostic =
                    Diagnostic::error(Code::NotAFunction, title, span, other.describe());
                if let ExprKind::Name(name) = &self.ast()[callee].kind
                    && self.unit.find_def(self.frame().ast, name).is_some()
                {
                    let note = format!("the local name `{name}` hides the definition");
                    diagnostic = diagnostic.note(note);
                }
                Err(self.fail(diagnostic))
            }
        }
    }

    pub(super) fn eval_args(&mut self, args: &[Arg]) -> Eval<Args> {
        let mut given = Args::default();
        let mut failed = false;
        for arg in args {
            let span = self.ast().span(arg.value);
            match (self.eval(arg.value), &arg.name) {
                (Ok(value), None) => given.positional.push((value, span)),
                (Ok(value), Some(name)) => given.named.push((name.clone(), value, span)),
                (Err(_), _) => failed = true,
            }
        }
        if failed { Err(super::Reported) } else { Ok(given) }
    }

    /// Applies a function, `piped` first.
    pub(super) fn apply(
        &mut self,
        func: &Func,
        piped: Option<(Val, Span)>,
        span: Span,
    ) -> Eval<Val> {
        if let Some((Val::Tuple(parts, names), at)) = &piped
            && self.maps_over_tuples(func)
        {
            let (parts, names, at) = (parts.clone(), names.clone(), *at);
            let mapped: Eval<Rc<[Val]>> =
                parts.iter().map(|p| self.apply(func, Some((p.clone(), at)), span)).collect();
            return Ok(Val::Tuple(mapped?, names));
        }
        match &func.kind {
            FuncKind::Builtin(builtin, args) => self.apply_builtin(builtin, args, piped, span),
            FuncKind::Def(def, args) => self.apply_def(*def, args, piped, func.path.clone(), span),
            FuncKind::Seq(members) => {
                self.apply_sequence(members, func.path.as_deref(), piped, span)
            }
        }
    }

    fn apply_sequence(
        &mut self,
        members: &[Func],
        path: Option<&str>,
        piped: Option<(Val, Span)>,
        span: Span,
    ) -> Eval<Val> {
        let Some((mut value, at)) = piped else {
            let diagnostic =
                Diagnostic::error(Code::Arguments, "a pipeline of stages needs an input", span, "");
            return Err(self.fail(diagnostic));
        };
        for (i, member) in members.iter().enumerate() {
            let own = path.map(|path| Rc::from(member_path(path, &i.to_string())));
            let member = Func { path: member.path.clone().or(own), ..member.clone() };
            value = self.apply(&member, Some((value, at)), member.span)?;
        }
        Ok(value)
    }

    /// A stage with one input and without parameters takes the parts of a tuple one by one.
    fn maps_over_tuples(&mut self, func: &Func) -> bool {
        match &func.kind {
            FuncKind::Builtin(builtin, _) => builtin.maps,
            FuncKind::Def(def, _) => {
                let required = self.unit.def(*def).inputs.iter().filter(|i| i.default.is_none());
                required.count() == 1 && !self.has_params(*def)
            }
            FuncKind::Seq(members) => members.iter().all(|m| self.maps_over_tuples(m)),
        }
    }

    fn has_params(&mut self, def: DefId) -> bool {
        if let Some(&known) = self.with_params.get(&def) {
            return known;
        }
        let found = self.unit.has_params(def);
        self.with_params.insert(def, found);
        found
    }

    /// Applies a definition to inputs.
    pub(super) fn apply_def(
        &mut self,
        id: DefId,
        args: &Args,
        piped: Option<(Val, Span)>,
        path: Option<Rc<str>>,
        span: Span,
    ) -> Eval<Val> {
        let def = self.unit.def(id);
        self.check_depth(id, def, span)?;
        let given = self.distribute(def, args, piped, span)?;
        if def.kind == DefKind::Model {
            return self.apply_model(id, given, path, span);
        }
        let path = match path {
            Some(path) => path,
            None => self.frame_mut().next_ordinal(&def.name.text).into(),
        };
        self.enter_def(id, path, given, span)
    }

    /// Models are entry points: equal applications are one, and their parameters have no prefix
    /// where a model is the section's own.
    fn apply_model(
        &mut self,
        id: DefId,
        given: Given,
        path: Option<Rc<str>>,
        span: Span,
    ) -> Eval<Val> {
        let own = self.frame().def.is_none() && self.section_model() == Some(id);
        let path = match path {
            Some(path) => path,
            None if own => "".into(),
            None => self.frame().join(&self.unit.def(id).name.text).into(),
        };
        let inputs: Vec<_> =
            given.inputs.iter().flatten().filter_map(|(v, _)| tensor_of(v)).collect();
        let key = (id, path.clone(), inputs);
        let known = self.applications.iter().find(|(known, _)| *known == key);
        if let Some((_, value)) = known
            && given.hypers.iter().all(Option::is_none)
        {
            return Ok(value.clone());
        }
        let value = self.enter_def(id, path, given, span)?;
        self.applications.push((key, value.clone()));
        Ok(value)
    }

    /// Elaborates a definition's body in a frame of its own.
    pub(super) fn enter_def(
        &mut self,
        id: DefId,
        path: Rc<str>,
        given: Given,
        span: Span,
    ) -> Eval<Val> {
        let def = self.unit.def(id);
        let mut frame = Frame::new(id.ast, Some(id), path);
        frame.call = Some((span, def.name.text.clone()));
        self.frames.push(frame);
        let guards = std::mem::take(&mut self.guards);
        let result = self.run_def(def, given, span);
        self.guards = guards;
        self.frames.pop();
        result
    }

    fn run_def(&mut self, def: &'u Def, given: Given, span: Span) -> Eval<Val> {
        self.bind_signature(def, given, span)?;
        self.check_constraints(def, span)?;
        let before = self.diagnostics.len();
        let value = self.run_block(&def.body)?;
        if self.diagnostics.len() > before && matches!(value, Val::Unit | Val::Poison) {
            return Err(super::Reported);
        }
        self.check_output(def, value)
    }

    fn check_depth(&mut self, id: DefId, def: &Def, span: Span) -> Eval<()> {
        if let Some(at) = self.frames.iter().position(|f| f.def == Some(id)) {
            let cycle = self.frames[at..].iter().filter_map(|f| f.def);
            let mut names: Vec<Arc<str>> =
                cycle.map(|d| self.unit.def(d).name.text.clone()).collect();
            names.push(def.name.text.clone());
            let title = format!("`{}` contains itself", def.name.text);
            let cycle = names.join("` -> `");
            let diagnostic = Diagnostic::error(Code::Recursion, title, span, "here again")
                .label(def.name.span, "defined here")
                .note(format!("the cycle: `{cycle}`"))
                .help("stack layers with `repeat n { .. }`");
            return Err(self.fail(diagnostic));
        }
        if self.frames.len() >= MAX_INSTANCE_DEPTH {
            let title = format!("instances are nested more than {MAX_INSTANCE_DEPTH} deep");
            return Err(self.fail(Diagnostic::error(Code::InstancesTooDeep, title, span, "here")));
        }
        Ok(())
    }
}

fn tensor_of(val: &Val) -> Option<dlc_graph::Value> {
    match val {
        Val::Tensor(tensor) => Some(tensor.value),
        _ => None,
    }
}

impl Func {
    /// Adds arguments.
    pub(super) fn extend(&mut self, more: Args) {
        match &mut self.kind {
            FuncKind::Def(_, args) | FuncKind::Builtin(_, args) => args.extend(more),
            FuncKind::Seq(_) => {}
        }
    }
}
