//! Signatures: arguments find their places, dims are bound, constraints and results are checked.

use std::sync::Arc;

use dlc_graph::Shape;
use dlc_kernel::{DType, Size};

use super::value::{Args, DEFAULT_FLOAT, Tensor, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{Def, DefKind, Dim, ExprId, ExprKind, Hyper, Input, TypeExpr};
use crate::diagnostic::{Diagnostic, nearest, sanitize};
use crate::source::Span;

/// Arguments at their places in a signature.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub statics: Vec<Option<(Val, Span)>>,
    pub hypers: Vec<Option<(Val, Span)>>,
    pub inputs: Vec<Option<(Val, Span)>>,
}

impl<'u> Elab<'u> {
    /// Gives each argument its place: tensors fill inputs, other values hyperparameters. The input
    /// of a schedule is a number and comes first.
    pub(super) fn distribute(
        &mut self,
        def: &Def,
        args: &Args,
        piped: Option<(Val, Span)>,
        span: Span,
    ) -> Eval<Given> {
        let mut given = Given {
            statics: vec![None; def.statics.len()],
            hypers: vec![None; def.hypers.len()],
            inputs: vec![None; def.inputs.len()],
        };
        for argument in &args.statics {
            self.place(&mut [&mut given.statics], argument.clone(), def)?;
        }
        if let Some(piped) = piped {
            self.place(&mut [&mut given.inputs], piped, def)?;
        }
        for (name, value, at) in &args.named {
            self.place_named(def, &mut given, &name.text, (value.clone(), *at), name.span)?;
        }
        for argument in &args.positional {
            let Given { hypers, inputs, .. } = &mut given;
            match argument.0.is_tensor() || def.kind == DefKind::Schedule {
                true => self.place(&mut [inputs, hypers], argument.clone(), def)?,
                false => self.place(&mut [hypers, inputs], argument.clone(), def)?,
            }
        }
        self.resolve_axis_names(&mut given, span)?;
        Ok(given)
    }

    /// Puts an argument into the first free slot.
    fn place(
        &mut self,
        groups: &mut [&mut Vec<Option<(Val, Span)>>],
        argument: (Val, Span),
        def: &Def,
    ) -> Eval<()> {
        let mut slots = groups.iter_mut().flat_map(|group| group.iter_mut());
        if let Some(slot) = slots.find(|slot| slot.is_none()) {
            *slot = Some(argument);
            return Ok(());
        }
        let title = format!("`{}` has no place for this argument", def.name.text);
        let label = argument.0.describe();
        let diagnostic = Diagnostic::error(Code::Arguments, title, argument.1, label)
            .note(format!("its signature: `{}`", signature(def)));
        Err(self.fail(diagnostic))
    }

    fn place_named(
        &mut self,
        def: &Def,
        given: &mut Given,
        name: &str,
        argument: (Val, Span),
        at: Span,
    ) -> Eval<()> {
        let hyper = def.hypers.iter().position(|h| &*h.name.text == name);
        let input = def.inputs.iter().position(|i| &*i.name.text == name);
        let fixed = def.statics.iter().position(|s| &*s.name.text == name);
        let slot = match (hyper, input, fixed) {
            (Some(k), _, _) => &mut given.hypers[k],
            (_, Some(k), _) => &mut given.inputs[k],
            (_, _, Some(k)) => &mut given.statics[k],
            _ => return Err(self.unknown_argument(def, name, at)),
        };
        if slot.replace(argument).is_some() {
            let title = format!("`{name}` is given twice");
            return Err(self.fail(Diagnostic::error(Code::Arguments, title, at, "again here")));
        }
        Ok(())
    }

    fn unknown_argument(&mut self, def: &Def, name: &str, at: Span) -> super::Reported {
        let title = format!("`{}` has no argument `{}`", def.name.text, sanitize(name));
        let mut diagnostic = Diagnostic::error(Code::Arguments, title, at, "unknown argument");
        let hypers = def.hypers.iter().chain(&def.statics).map(|h| &*h.name.text);
        let known: Vec<&str> = hypers.chain(def.inputs.iter().map(|i| &*i.name.text)).collect();
        if let Some(near) = nearest(name, known) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        }
        let diagnostic = diagnostic.note(format!("its signature: `{}`", signature(def)));
        self.fail(diagnostic)
    }

    /// Axis names become positions, by the first input.
    fn resolve_axis_names(&mut self, given: &mut Given, _span: Span) -> Eval<()> {
        let first = given.inputs.first().and_then(|slot| slot.as_ref()).map(|(v, _)| v.clone());
        for (value, at) in given.statics.iter_mut().flatten() {
            if let Val::AxisName(_) = value {
                let axis = self.resolve_axis(value, first.as_ref(), *at)?;
                *value = Val::int(axis as i64);
            }
        }
        Ok(())
    }

    /// Declares hyperparameters, dims and inputs in the current frame.
    pub(super) fn bind_signature(&mut self, def: &'u Def, given: Given, span: Span) -> Eval<()> {
        self.check_distinct(def)?;
        let Given { statics, hypers, inputs } = given;
        let fixed = def.statics.iter().zip(statics).chain(def.hypers.iter().zip(hypers));
        let mut late = Vec::new();
        for (hyper, value) in fixed {
            match (value, hyper.default) {
                (Some((value, at)), _) => self.declare_hyper(hyper, value, at)?,
                (None, Some(default)) if self.mentions_dims(def, default) => late.push(hyper),
                (None, Some(default)) => {
                    let value = self.eval(default)?;
                    self.declare_hyper(hyper, value, self.ast().span(default))?;
                }
                (None, None) => return Err(self.missing(def, &hyper.name.text, span)),
            }
        }
        let mut failed = false;
        for (input, value) in def.inputs.iter().zip(inputs) {
            failed |= self.bind_input(def, input, value, span).is_err();
        }
        if failed {
            return Err(super::Reported);
        }
        if def.kind == DefKind::Model {
            self.declare_free_dims(def);
        }
        for hyper in late {
            let default = hyper.default.expect("only defaults are late");
            let value = self.eval(default)?;
            self.declare_hyper(hyper, value, self.ast().span(default))?;
        }
        Ok(())
    }

    fn check_distinct(&mut self, def: &Def) -> Eval<()> {
        let hypers = def.statics.iter().chain(&def.hypers).map(|h| &h.name);
        let names: Vec<_> = hypers.chain(def.inputs.iter().map(|i| &i.name)).collect();
        for (k, name) in names.iter().enumerate() {
            if let Some(first) = names[..k].iter().find(|n| n.text == name.text) {
                let title = format!("`{}` occurs twice in the signature", name.text);
                let diagnostic = Diagnostic::error(Code::DuplicateName, title, name.span, "again")
                    .label(first.span, "first here");
                return Err(self.fail(diagnostic));
            }
        }
        Ok(())
    }

    fn mentions_dims(&self, def: &Def, default: ExprId) -> bool {
        let ExprKind::Name(name) = &self.ast()[default].kind else { return false };
        let types = def.inputs.iter().filter_map(|input| input.ty.as_ref());
        types.flat_map(|ty| &ty.dims).any(|dim| match dim {
            Dim::Rest { name: rest, .. } => rest.as_ref().is_some_and(|r| r.text == *name),
            Dim::Size(size) => {
                matches!(&self.ast()[*size].kind, ExprKind::Name(dim) if dim == name)
            }
        })
    }

    /// Whether the current frame is an activation of such a definition.
    pub(super) fn in_definition_of(&self, kind: DefKind) -> bool {
        self.frame().def.is_some_and(|def| self.unit.def(def).kind == kind)
    }

    /// The error for an argument without a value and without a default.
    pub(super) fn missing(&mut self, def: &Def, name: &str, span: Span) -> super::Reported {
        let title = format!("`{}` needs `{name}`", def.name.text);
        let mut diagnostic = Diagnostic::error(Code::Arguments, title, span, "not given here")
            .note(format!("its signature: `{}`", signature(def)));
        if def.hypers.iter().any(|hyper| &*hyper.name.text == name) {
            let call = format!("`{}({name} = ..)`", def.name.text);
            let help = format!("write {call}: a tensor in front without a name is an input");
            diagnostic = diagnostic.help(help);
        }
        self.fail(diagnostic)
    }

    fn bind_input(
        &mut self,
        def: &'u Def,
        input: &'u Input,
        value: Option<(Val, Span)>,
        span: Span,
    ) -> Eval<()> {
        let (value, at) = match (value, input.default) {
            (Some(given), _) => given,
            (None, Some(default)) => (self.eval(default)?, self.ast().span(default)),
            (None, None) => return Err(self.missing(def, &input.name.text, span)),
        };
        let Some(ty) = &input.ty else {
            let value =
                if let Val::Func(_) = value { self.tensor(&value, at)?.into() } else { value };
            self.frame_mut().declare(&input.name.text, value);
            return Ok(());
        };
        if let Val::Cell(_) | Val::Index(_) = value {
            self.bind_cell(def, ty, at)?;
            self.frame_mut().declare(&input.name.text, value);
            return Ok(());
        }
        if let Val::Tuple(..) = value {
            let title = format!("`{}` takes a tensor, not {}", def.name.text, value.describe());
            let diagnostic = Diagnostic::error(Code::InputMismatch, title, at, value.describe())
                .note("only stages with one input and without parameters map over a tuple");
            return Err(self.fail(diagnostic));
        }
        let wanted = self.declared_dtype(ty)?;
        let tensor = self.tensor_as(&value, wanted.unwrap_or(DEFAULT_FLOAT), at)?;
        self.match_type(def, input, ty, &tensor, wanted, at)?;
        self.frame_mut().declare(&input.name.text, Val::Tensor(tensor));
        Ok(())
    }

    /// In an equation an input is one number: only a type of any rank takes it.
    fn bind_cell(&mut self, def: &Def, ty: &TypeExpr, at: Span) -> Eval<()> {
        match ty.dims.as_slice() {
            [] => Ok(()),
            [Dim::Rest { name, .. }] => {
                if let Some(name) = name {
                    self.frame_mut().declare(&name.text, Val::sizes(&[]));
                }
                Ok(())
            }
            _ => {
                let title = format!("`{}` takes a whole tensor, not one number", def.name.text);
                let label = "one number at each point of the equation's axes";
                let diagnostic = Diagnostic::error(Code::BadEquation, title, at, label)
                    .label(ty.span, "it takes this")
                    .help("apply it to the tensor in a statement before the equation");
                Err(self.fail(diagnostic))
            }
        }
    }

    /// Binds the dims of a declared type to a tensor's shape, or reports why it does not fit.
    fn match_type(
        &mut self,
        def: &Def,
        input: &Input,
        ty: &TypeExpr,
        tensor: &Tensor,
        wanted: Option<DType>,
        at: Span,
    ) -> Eval<()> {
        let actual = self.ty(tensor.value).clone();
        let dtype_fits = match wanted {
            Some(dtype) => actual.dtype == dtype,
            None => actual.dtype.is_float(),
        };
        let shape = actual.shape.clone();
        let mismatch = match dtype_fits {
            false => Some(format!(
                "the element type is {}, not {}",
                actual.dtype,
                wanted.map_or("a float type".to_string(), |d| d.to_string())
            )),
            true => self.match_dims(&ty.dims, &shape)?,
        };
        let Some(reason) = mismatch else { return Ok(()) };
        let declared = self.unit.sources().text(ty.span);
        let title = format!("`{}` does not take {actual}", def.name.text);
        let mut diagnostic =
            Diagnostic::error(Code::InputMismatch, title, at, format!("this is {actual}"))
                .label(ty.span, format!("`{}` is declared as {declared}", input.name.text))
                .note(reason);
        if !dtype_fits {
            let dtype = wanted.unwrap_or(DEFAULT_FLOAT);
            diagnostic = diagnostic.help(format!("convert it: `{dtype}(..)`"));
        }
        Err(self.fail(diagnostic))
    }

    /// Why the shape does not fit the dims; binds names on the way.
    fn match_dims(&mut self, dims: &[Dim], shape: &Shape) -> Eval<Option<String>> {
        let rest = dims.iter().position(|dim| matches!(dim, Dim::Rest { .. }));
        let fixed = dims.len() - usize::from(rest.is_some());
        let fits = if rest.is_some() { shape.len() >= fixed } else { shape.len() == fixed };
        if !fits {
            let least = if rest.is_some() { "at least " } else { "" };
            return Ok(Some(format!("it has {} dims, not {least}{fixed}", shape.len())));
        }
        let mut at = 0;
        for dim in dims {
            match dim {
                Dim::Rest { name, .. } => {
                    let end = at + shape.len() - fixed;
                    if let Some(name) = name
                        && let Some(reason) = self.bind_rest(&name.text, &shape[at..end])
                    {
                        return Ok(Some(reason));
                    }
                    at = end;
                }
                Dim::Size(size) => {
                    if let Some(reason) = self.bind_dim(*size, &shape[at])? {
                        return Ok(Some(reason));
                    }
                    at += 1;
                }
            }
        }
        Ok(None)
    }

    fn bind_rest(&mut self, name: &Arc<str>, sizes: &[Size]) -> Option<String> {
        let bound = self.frame().scopes[0].get(name).cloned();
        if let Some(Val::List(known)) = bound {
            let same = known.len() == sizes.len()
                && known.iter().zip(sizes).all(|(k, s)| matches!(k, Val::Int(k) if k == s));
            return (!same).then(|| {
                format!("`{name}` is {} elsewhere and {} here", show(&known), show_sizes(sizes))
            });
        }
        self.frame_mut().declare(name, Val::sizes(sizes));
        None
    }

    fn bind_dim(&mut self, dim: ExprId, size: &Size) -> Eval<Option<String>> {
        if let ExprKind::Name(name) = &self.ast()[dim].kind
            && !self.frame().scopes[0].contains_key(name)
            && (self.frame().ast != 0 || !self.globals.contains_key(name))
        {
            self.frame_mut().declare(name, Val::Int(size.clone()));
            return Ok(None);
        }
        let span = self.ast().span(dim);
        let value = self.eval(dim)?;
        let expected = self.expect_size(&value, "a dim", span)?;
        let text = self.unit.sources().text(span);
        Ok((&expected != size).then(|| match expected.to_string() == text {
            true => format!("the dim `{text}` is {size} here"),
            false => format!("`{text}` is {expected}, but the dim is {size} here"),
        }))
    }
}

/// A signature without its result, for messages.
fn signature(def: &Def) -> String {
    let names = |hypers: &[Hyper]| {
        let shown = hypers.iter().map(|h| match h.default {
            Some(_) => format!("{} = ..", h.name.text),
            None => h.name.text.to_string(),
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    let statics = match def.statics.is_empty() {
        true => String::new(),
        false => format!("[{}]", names(&def.statics)),
    };
    let hypers = match def.hypers.is_empty() {
        true => String::new(),
        false => format!("({})", names(&def.hypers)),
    };
    let inputs: Vec<&str> = def.inputs.iter().map(|i| &*i.name.text).collect();
    format!("{}{statics}{hypers}({})", def.name.text, inputs.join(", "))
}

/// `[2, N]`.
pub(super) fn show_sizes(sizes: &[Size]) -> String {
    let shown: Vec<String> = sizes.iter().map(Size::to_string).collect();
    format!("[{}]", shown.join(", "))
}

pub(super) fn show(items: &[Val]) -> String {
    let shown: Vec<String> = items
        .iter()
        .map(|item| match item {
            Val::Int(size) => size.to_string(),
            Val::Float(value) => value.to_string(),
            other => other.describe(),
        })
        .collect();
    format!("[{}]", shown.join(", "))
}
