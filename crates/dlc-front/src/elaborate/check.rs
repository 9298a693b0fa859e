//! Checking a whole file: everything that is wrong or odd in it.

use dlc_kernel::Bindings;
use rustc_hash::FxHashSet;

use super::model::check_expectations;
use super::settings::TrainOverrides;
use super::{DefId, Mode};
use crate::Code;
use crate::ast::{Def, Expr, ExprKind, Ident, Item, Stmt, StmtKind};
use crate::diagnostic::Diagnostic;
use crate::unit::Unit;

/// All diagnostics of a unit, without repetitions. A dim that only a binding can decide is no
/// error.
pub(crate) fn check(unit: &Unit) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (at, item) in unit.ast(0).items.iter().enumerate() {
        let id = DefId { ast: 0, item: at as u32 };
        match item {
            Item::Def(def) if def.kind == crate::ast::DefKind::Model => {
                for mode in [Mode::Train, Mode::Infer] {
                    found.extend(check_model(unit, id, mode));
                }
            }
            Item::Expect(expect) => found.extend(check_expectations(unit, expect)),
            Item::Train(train) => {
                let model = unit.model_id(&train.model.text);
                found.extend(with_stand_ins(unit, model, |bindings| {
                    let overrides = TrainOverrides::default();
                    super::training(unit, train, &overrides, bindings).map(|t| t.warnings)
                }));
            }
            _ => {}
        }
    }
    found.extend(unused_definitions(unit));
    found.extend(unit.ast(0).defs().flat_map(|def| idle_states(unit, def)));
    found.retain(|diagnostic| diagnostic.code != Code::UnboundDim);
    without_repetitions(found)
}

/// What is wrong or odd with a model in one mode.
fn check_model(unit: &Unit, id: DefId, mode: Mode) -> Vec<Diagnostic> {
    with_stand_ins(unit, Some(id), |bindings| match super::model(unit, id, bindings, mode) {
        (Some(model), _) => Ok(model.warnings),
        (None, errors) => Err(errors),
    })
}

/// Numbers that stand for sizes: one that many others divide, and the least. What is wrong whatever
/// a size is, is wrong with both; conditions on it may hold for sizes between them.
const STAND_INS: [i64; 2] = [5040, 1];

/// What `elaborate` finds. Where it gets no further without the sizes that a binding decides,
/// numbers stand for them.
fn with_stand_ins(
    unit: &Unit,
    model: Option<DefId>,
    elaborate: impl Fn(&Bindings) -> Result<Vec<Diagnostic>, Vec<Diagnostic>>,
) -> Vec<Diagnostic> {
    let known = model.map_or_else(Default::default, |id| unit.dims(unit.def(id)));
    let begun = elaborate(&Bindings::new()).unwrap_or_else(|errors| errors);
    let with = |number: i64| {
        let (mut found, mut sizes) = (begun.clone(), Bindings::new());
        loop {
            let open = missing(&found).filter(|dim| known.contains(*dim));
            let open: Vec<String> = open.filter(|dim| !sizes.contains_key(*dim)).cloned().collect();
            if open.is_empty() {
                return (found, sizes);
            }
            sizes.extend(open.into_iter().map(|dim| (dim, number)));
            found = elaborate(&sizes).unwrap_or_else(|errors| errors);
        }
    };
    let [(mut found, sizes), (others, _)] = STAND_INS.map(with);
    let place = |d: &Diagnostic| (d.code, d.primary.span);
    let text = |d: &Diagnostic| (d.title.clone(), d.primary.text.clone(), d.notes.clone());
    let dims: Vec<&str> = sizes.keys().map(String::as_str).collect();
    let note = format!("here {} stands for the size `{}`", STAND_INS[0], dims.join("`, `"));
    found.retain_mut(|diagnostic| {
        let at_place = || others.iter().filter(|other| place(other) == place(diagnostic));
        if at_place().any(|other| text(other) == text(diagnostic)) {
            return true;
        }
        let is_wrong = diagnostic.code != Code::Constraint && at_place().next().is_some();
        diagnostic.notes.push(note.clone());
        is_wrong
    });
    found
}

/// The dims whose sizes are missing, if nothing else is an error.
fn missing(found: &[Diagnostic]) -> impl Iterator<Item = &String> {
    let is_only = found.iter().all(|d| !d.is_error() || d.code == Code::UnboundDim);
    found.iter().filter(move |_| is_only).flat_map(|d| &d.open)
}

fn without_repetitions(found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = FxHashSet::default();
    let key = |d: &Diagnostic| (d.code, d.primary.span, d.title.clone());
    let mut all: Vec<Diagnostic> = found.into_iter().filter(|d| seen.insert(key(d))).collect();
    all.sort_by_key(|d| (d.primary.span.file, d.primary.span.start));
    all
}

/// Definitions of a file with models that neither a model nor a section reaches.
fn unused_definitions(unit: &Unit) -> Vec<Diagnostic> {
    let ast = unit.ast(0);
    if unit.models().is_empty() {
        return Vec::new();
    }
    let mut open: Vec<DefId> =
        unit.models().iter().filter_map(|name| unit.model_id(name)).collect();
    let spans: Vec<_> = ast.items.iter().filter(|i| !matches!(i, Item::Def(_))).collect();
    open.extend(spans.iter().flat_map(|item| mentioned(unit, item)));
    let mut used = FxHashSet::default();
    while let Some(id) = open.pop() {
        if used.insert(id) {
            open.extend(unit.references(id));
        }
    }
    let items = ast.items.iter().enumerate();
    let unused = items.filter_map(|(at, item)| match item {
        Item::Def(def) if !used.contains(&DefId { ast: 0, item: at as u32 }) => Some(def),
        _ => None,
    });
    let warning = |def: &Def| {
        let title = format!("the {} `{}` is never used", def.kind.keyword(), def.name.text);
        Diagnostic::warning(Code::UnusedDefinition, title, def.name.span, "")
    };
    unused.map(warning).collect()
}

/// States of a definition that it never sets, whatever is decided at compile time.
fn idle_states(unit: &Unit, def: &Def) -> Vec<Diagnostic> {
    let body = def.body.span;
    let inside = |e: &&Expr| e.span.start >= body.start && e.span.end <= body.end;
    let nested = unit.ast(0).exprs.iter().filter(inside).flat_map(|e| e.kind.blocks());
    let blocks = std::iter::once(&def.body).chain(nested);
    let statements: Vec<&Stmt> = blocks.flat_map(|block| &block.stmts).collect();
    let is_set = |state: &Ident| {
        let sets =
            |s: &&Stmt| matches!(&s.kind, StmtKind::Update { name, .. } if name.text == state.text);
        statements.iter().any(sets)
    };
    let rebound = |state: &Ident| {
        statements.iter().find_map(|stmt| match &stmt.kind {
            StmtKind::Bind { targets, .. } => targets.iter().find(|t| t.text == state.text),
            StmtKind::Equation { name, .. } => Some(name).filter(|name| name.text == state.text),
            _ => None,
        })
    };
    let warning = |state: &Ident| {
        let title = format!("the state `{}` is never set", state.text);
        let text = "it keeps its first value";
        let warning = Diagnostic::warning(Code::IdleState, title, state.span, text)
            .help(format!("its value in the next call: `{} <- ..`", state.text));
        match rebound(state) {
            Some(place) => {
                warning.label(place.span, "`=` changes what the name means in this call only")
            }
            None => warning,
        }
    };
    let states = statements.iter().filter_map(|stmt| match &stmt.kind {
        StmtKind::State { name, .. } => Some(name),
        _ => None,
    });
    states.filter(|state| !is_set(state)).map(warning).collect()
}

/// The definitions that a section or top-level binding mentions.
fn mentioned(unit: &Unit, item: &Item) -> Vec<DefId> {
    let span = match item {
        Item::Def(def) => def.span,
        Item::Binding(stmt) => stmt.span,
        Item::Expect(expect) => expect.span,
        Item::Train(train) => train.span,
        Item::Section(section) => section.span,
    };
    let exprs = unit.ast(0).exprs.iter();
    let inside = exprs.filter(|e| e.span.start >= span.start && e.span.end <= span.end);
    let defs = inside.filter_map(|expr| match &expr.kind {
        ExprKind::Name(name) => unit.find_def(0, name),
        _ => None,
    });
    defs.collect()
}
