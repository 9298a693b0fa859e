//! A model file with the part of the standard library that it uses: what callers work with.

use std::collections::BTreeSet;
use std::sync::Arc;

use dlc_graph::Type;
use dlc_kernel::Bindings;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::ast::{Ast, Block, Def, DefKind, Dim, ExprKind, Ident, Item, Output, StmtKind, Train};
use crate::diagnostic::{Diagnostic, Style, render};
use crate::elaborate::{self, DataSpec, DefId, Mode, Model, TrainOverrides, Training};
use crate::parse::parse_each;
use crate::source::{FileId, Sources, Span};
use crate::stack::on_large_stack;
use crate::{Code, library};

/// A parsed file with the definitions of the standard library that it may refer to.
#[derive(Clone, Debug)]
pub struct Unit {
    sources: Sources,
    user: FileId,
    /// The user's file first, then the files of the library.
    asts: Vec<Ast>,
    /// For each tree, its definitions by name.
    defs: Vec<FxHashMap<Arc<str>, u32>>,
}

/// Why a file could not be parsed.
#[derive(Clone, Debug)]
pub struct ParseFailure {
    /// What is wrong, in textual order.
    pub diagnostics: Vec<Diagnostic>,
    sources: Sources,
}

impl ParseFailure {
    /// The diagnostics as text for people.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        render(&self.diagnostics, &self.sources, style)
    }

    /// The texts that the diagnostics point into.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }
}

impl Unit {
    /// Parses a file's bytes. `name` is shown in messages.
    ///
    /// # Errors
    /// If the text is no text, breaks the grammar or defines a name twice.
    pub fn parse(name: &str, text: &[u8]) -> Result<Unit, ParseFailure> {
        let mut sources = Sources::new();
        let user = match sources.add_bytes(name, text) {
            Ok(user) => user,
            Err(error) => return Err(ParseFailure { diagnostics: vec![*error], sources }),
        };
        let used = library::used_by(sources.file(user).text());
        let library = used.into_iter().map(|(name, text)| sources.add(name, text));
        let files: Vec<FileId> = std::iter::once(user).chain(library).collect();
        let (asts, errors): (Vec<Ast>, Vec<_>) = parse_each(&sources, &files).into_iter().unzip();
        let mut errors = errors.into_iter();
        let mut diagnostics = errors.next().expect("the user's file is the first");
        diagnostics.extend(duplicates(&asts[0]));
        if !diagnostics.is_empty() {
            return Err(ParseFailure { diagnostics, sources });
        }
        errors.for_each(|e| assert!(e.is_empty(), "the standard library parses: {e:?}"));
        let defs = asts.iter().map(index).collect();
        Ok(Unit { sources, user, asts, defs })
    }

    /// The names of the models, in order.
    #[must_use]
    pub fn models(&self) -> Vec<&str> {
        let models = self.asts[0].defs().filter(|def| def.kind == DefKind::Model);
        models.map(|def| &*def.name.text).collect()
    }

    /// The names of the models that have a `train` section, in the order of the sections.
    #[must_use]
    pub fn trains(&self) -> Vec<&str> {
        self.train_sections().map(|train| &*train.model.text).collect()
    }

    /// The syntax tree of the user's file, for people.
    #[must_use]
    pub fn syntax(&self) -> String {
        crate::ast::tree::tree(&self.asts[0])
    }

    /// Diagnostics of this unit as text for people.
    #[must_use]
    pub fn render(&self, diagnostics: &[Diagnostic], style: Style) -> String {
        render(diagnostics, &self.sources, style)
    }

    /// The texts that diagnostics point into.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Everything that is wrong or odd: models in both modes, `expect` and `train` sections.
    #[must_use]
    pub fn check(&self) -> Vec<Diagnostic> {
        on_large_stack(|| elaborate::check(self))
    }

    /// Elaborates a model.
    ///
    /// # Errors
    /// If there is no such model, or it has errors under these bindings.
    pub fn model(
        &self,
        name: &str,
        bindings: &Bindings,
        mode: Mode,
    ) -> Result<Model, Vec<Diagnostic>> {
        let id = self.model_id(name).ok_or_else(|| vec![self.no_model(name)])?;
        on_large_stack(|| {
            let (model, errors) = elaborate::model(self, id, bindings, mode);
            model.ok_or(errors)
        })
    }

    /// Names and types of a model's inputs as its signature states them.
    ///
    /// # Errors
    /// If there is no such model, or its signature has errors.
    pub fn inputs(&self, name: &str) -> Result<Vec<(String, Type)>, Vec<Diagnostic>> {
        let id = self.model_id(name).ok_or_else(|| vec![self.no_model(name)])?;
        on_large_stack(|| elaborate::inputs(self, id))
    }

    /// The dims of a model's signature that bindings decide.
    ///
    /// # Errors
    /// If there is no such model.
    pub fn dims_of(&self, name: &str) -> Result<BTreeSet<String>, Vec<Diagnostic>> {
        let id = self.model_id(name).ok_or_else(|| vec![self.no_model(name)])?;
        Ok(self.dims(self.def(id)))
    }

    /// The name of the last dim of a model's first result, if its signature has one there: the
    /// number of classes, the size of a vocabulary.
    ///
    /// # Errors
    /// If there is no such model.
    pub fn last_dim_of(&self, name: &str) -> Result<Option<String>, Vec<Diagnostic>> {
        let id = self.model_id(name).ok_or_else(|| vec![self.no_model(name)])?;
        let ty = match &self.def(id).output {
            Some(Output::Single(ty)) => Some(ty),
            Some(Output::Named(fields)) => fields.first().map(|(_, ty)| ty),
            None => None,
        };
        let last = match ty.and_then(|ty| ty.dims.last()) {
            Some(Dim::Size(id)) => &self.ast(0)[*id].kind,
            _ => return Ok(None),
        };
        Ok(match last {
            ExprKind::Name(name) => Some(name.to_string()),
            _ => None,
        })
    }

    /// Elaborates the `train` section of a model.
    ///
    /// # Errors
    /// If there is no such section, or it has errors under these bindings.
    pub fn train(
        &self,
        name: &str,
        overrides: &TrainOverrides,
        bindings: &Bindings,
    ) -> Result<Training, Vec<Diagnostic>> {
        let section = self.train_sections().find(|train| &*train.model.text == name);
        let section = section.ok_or_else(|| vec![self.no_model(name)])?;
        on_large_stack(|| elaborate::training(self, section, overrides, bindings))
    }

    /// The data sets that the `train` section of a model reads: its own, then that for validation if
    /// it names one. What it finds in their files binds dims of the model: `T`, `V`.
    ///
    /// # Errors
    /// If there is no such section, or a data set is not written as it should be.
    pub fn data(&self, name: &str) -> Result<Vec<DataSpec>, Vec<Diagnostic>> {
        let section = self.train_sections().find(|train| &*train.model.text == name);
        let section = section.ok_or_else(|| vec![self.no_model(name)])?;
        on_large_stack(|| elaborate::data_sources(self, section))
    }

    fn no_model(&self, name: &str) -> Diagnostic {
        let end = self.sources.file(self.user).text().len().min(1);
        let span = Span::new(self.user, 0..end);
        elaborate::unknown_model(self, &Ident { text: name.into(), span })
    }

    /// The `train` sections, in order.
    pub(crate) fn train_sections(&self) -> impl Iterator<Item = &Train> {
        self.asts[0].items.iter().filter_map(|item| match item {
            Item::Train(train) => Some(train),
            _ => None,
        })
    }

    pub(crate) fn user_file(&self) -> FileId {
        self.user
    }

    /// A tree: 0 is the user's.
    pub(crate) fn ast(&self, at: u32) -> &Ast {
        &self.asts[at as usize]
    }

    pub(crate) fn def(&self, id: DefId) -> &Def {
        match &self.asts[id.ast as usize].items[id.item as usize] {
            Item::Def(def) => def,
            _ => unreachable!("a DefId names a definition"),
        }
    }

    /// What `name` defines, seen from a tree: the library does not see the user's definitions.
    pub(crate) fn find_def(&self, from: u32, name: &str) -> Option<DefId> {
        let start = if from == 0 { 0 } else { 1 };
        (start..self.defs.len()).find_map(|ast| {
            let item = *self.defs[ast].get(name)?;
            Some(DefId { ast: ast as u32, item })
        })
    }

    /// The names of all definitions seen from a tree, those of the library that are not used
    /// included.
    pub(crate) fn def_names(&self, from: u32) -> Vec<String> {
        let own = self.defs.first().filter(|_| from == 0);
        let own = own.into_iter().flat_map(|defs| defs.keys()).map(|name| name.to_string());
        own.chain(library::names().map(String::from)).collect()
    }

    pub(crate) fn model_id(&self, name: &str) -> Option<DefId> {
        let id = self.find_def(0, name)?;
        (self.def(id).kind == DefKind::Model).then_some(id)
    }

    /// The symbolic dims of a model's signature.
    pub(crate) fn dims(&self, def: &Def) -> BTreeSet<String> {
        elaborate::dims(self, def)
    }

    /// Whether a definition or one that it refers to declares a parameter.
    pub(crate) fn has_params(&self, id: DefId) -> bool {
        let mut seen = FxHashSet::default();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if self.declares_param(id) {
                return true;
            }
            open.extend(self.references(id));
        }
        false
    }

    fn declares_param(&self, id: DefId) -> bool {
        let def = self.def(id);
        let declares = |block: &Block| {
            block.stmts.iter().any(|stmt| matches!(stmt.kind, StmtKind::Param { .. }))
        };
        declares(&def.body)
            || self.exprs_in(id).any(|kind| match kind {
                ExprKind::If { arms, otherwise } => {
                    arms.iter().map(|(_, block)| block).chain(otherwise).any(declares)
                }
                ExprKind::Repeat { body, .. } | ExprKind::For { body, .. } => declares(body),
                ExprKind::Scan(scan) => declares(&scan.body),
                _ => false,
            })
    }

    /// The definitions that a definition mentions.
    pub(crate) fn references(&self, id: DefId) -> Vec<DefId> {
        let names = self.exprs_in(id).filter_map(|kind| match kind {
            ExprKind::Name(name) => self.find_def(id.ast, name),
            _ => None,
        });
        names.collect()
    }

    fn exprs_in(&self, id: DefId) -> impl Iterator<Item = &ExprKind> {
        let span = self.def(id).span;
        let exprs = self.asts[id.ast as usize].exprs.iter();
        let inside = exprs.filter(move |e| e.span.start >= span.start && e.span.end <= span.end);
        inside.map(|expr| &expr.kind)
    }
}

fn index(ast: &Ast) -> FxHashMap<Arc<str>, u32> {
    let items = ast.items.iter().enumerate();
    let defs = items.filter_map(|(at, item)| match item {
        Item::Def(def) => Some((def.name.text.clone(), at as u32)),
        _ => None,
    });
    defs.collect()
}

/// Definitions and top-level names that occur twice.
fn duplicates(ast: &Ast) -> Vec<Diagnostic> {
    let mut first: FxHashMap<&str, Span> = FxHashMap::default();
    let mut found = Vec::new();
    for name in ast.items.iter().flat_map(item_names) {
        match first.get(&*name.text) {
            None => {
                first.insert(&name.text, name.span);
            }
            Some(&span) => {
                let title = format!("`{}` is defined twice", name.text);
                let diagnostic =
                    Diagnostic::error(Code::DuplicateName, title, name.span, "again here");
                found.push(diagnostic.label(span, "first here"));
            }
        }
    }
    found
}

fn item_names(item: &Item) -> &[Ident] {
    match item {
        Item::Def(def) => std::slice::from_ref(&def.name),
        Item::Binding(stmt) => match &stmt.kind {
            StmtKind::Let { targets, .. } | StmtKind::Bind { targets, .. } => targets,
            _ => &[],
        },
        _ => &[],
    }
}
