//! The dims of a model's signature.

use std::collections::BTreeSet;

use dlc_kernel::Size;

use super::value::Val;
use super::{Elab, builtin};
use crate::ast::{Def, Dim, Expr, ExprKind, Output, TypeExpr};
use crate::source::Span;
use crate::unit::Unit;

/// The names of the symbolic dims of a model's signature.
pub(crate) fn dims(unit: &Unit, def: &Def) -> BTreeSet<String> {
    let is_hyper = |name: &String| def.hypers.iter().any(|h| *h.name.text == **name);
    let inputs = input_dims(unit, def).filter(|name| !is_hyper(name));
    inputs.chain(free_dims(unit, def)).collect()
}

/// The dims that only a model's output or its conditions name, and its body uses, such as the
/// number of classes: a binding decides them.
fn free_dims(unit: &Unit, def: &Def) -> Vec<String> {
    let types: Vec<&TypeExpr> = match &def.output {
        None => Vec::new(),
        Some(Output::Single(ty)) => vec![ty],
        Some(Output::Named(fields)) => fields.iter().map(|(_, ty)| ty).collect(),
    };
    let mut known: Vec<String> = input_dims(unit, def).collect();
    known.extend(def.hypers.iter().chain(&def.statics).map(|h| h.name.text.to_string()));
    let body: BTreeSet<String> = names_within(unit, def.body.span).collect();
    let conditions = def.constraints.iter().map(|&id| unit.ast(0).span(id));
    let is_function =
        |name: &str| builtin::find(name).is_some() || unit.find_def(0, name).is_some();
    let conditions = conditions.flat_map(|span| names_within(unit, span));
    let conditions = conditions.filter(|name| !is_function(name));
    let mut found = Vec::new();
    for name in dim_names(unit, types.into_iter()).chain(conditions) {
        if body.contains(&name) && !known.contains(&name) && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

fn input_dims<'a>(unit: &'a Unit, def: &'a Def) -> impl Iterator<Item = String> + 'a {
    dim_names(unit, def.inputs.iter().filter_map(|input| input.ty.as_ref()))
}

/// The names that expressions of the user's file mention there.
fn names_within(unit: &Unit, span: Span) -> impl Iterator<Item = String> + '_ {
    let inside = move |e: &&Expr| e.span.start >= span.start && e.span.end <= span.end;
    unit.ast(0).exprs.iter().filter(inside).filter_map(|e| match &e.kind {
        ExprKind::Name(name) => Some(name.to_string()),
        _ => None,
    })
}

fn dim_names<'a>(
    unit: &'a Unit,
    types: impl Iterator<Item = &'a TypeExpr> + 'a,
) -> impl Iterator<Item = String> + 'a {
    types.flat_map(|ty| &ty.dims).filter_map(|dim| match dim {
        Dim::Size(id) => match &unit.ast(0)[*id].kind {
            ExprKind::Name(name) => Some(name.to_string()),
            _ => None,
        },
        Dim::Rest { .. } => None,
    })
}

impl<'u> Elab<'u> {
    /// Declares the dims that a binding decides: a number where one is bound.
    pub(super) fn declare_free_dims(&mut self, def: &'u Def) {
        for name in free_dims(self.unit, def) {
            if self.globals.contains_key(&*name) {
                continue;
            }
            let size = self.bindings.get(&name).map_or_else(|| Size::symbol(&name), |&n| n.into());
            self.frame_mut().declare(&name.into(), Val::Int(size));
        }
    }
}
