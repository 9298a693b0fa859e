//! Names: frames, scopes, and what a name means.

use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::builtin;
use super::value::{Args, DefId, Func, FuncKind, Val};
use super::{Elab, Eval, Mode};
use crate::Code;
use crate::ast::{DefKind, ExprId, Item};
use crate::diagnostic::{Diagnostic, nearest, sanitize};
use crate::source::Span;

/// The names that mean something of their own.
const CONSTANTS: [&str; 5] = ["inf", "pi", "training", "step", "steps"];

/// The names of one scope.
pub(crate) type Scope = FxHashMap<Arc<str>, Val>;

/// The activation of a definition or section.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The tree its expressions are in.
    pub ast: u32,
    /// The definition; none for a section or the top of a file.
    pub def: Option<DefId>,
    /// The instance's path; empty for a model.
    pub path: Rc<str>,
    /// Names, innermost scope last.
    pub scopes: Vec<Scope>,
    /// Indices of the equations around the current place, innermost last.
    pub indices: Vec<(Arc<str>, u32)>,
    /// Tensors that are subscripted in the current equation.
    pub bases: FxHashMap<ExprId, Val>,
    /// `where` conditions that wait for the reduction whose indices they restrict.
    pub pending: Vec<ExprId>,
    /// The names of those indices.
    pub pending_names: Vec<Arc<str>>,
    /// How many unnamed instances of each definition there are so far.
    pub ordinals: FxHashMap<Arc<str>, u32>,
    /// Names taken by parameters, states and instances, with their places.
    pub members: FxHashMap<Arc<str>, Span>,
    /// The states declared here: name to path.
    pub states: FxHashMap<Arc<str>, String>,
    /// Where it is applied, and the name used there.
    pub call: Option<(Span, Arc<str>)>,
    /// Whether run-time scalars count as the numbers that they start with (in what is decided now).
    pub scalars_are_numbers: bool,
}

impl Frame {
    pub fn new(ast: u32, def: Option<DefId>, path: Rc<str>) -> Frame {
        Frame {
            ast,
            def,
            path,
            scopes: vec![Scope::default()],
            indices: Vec::new(),
            bases: FxHashMap::default(),
            pending: Vec::new(),
            pending_names: Vec::new(),
            ordinals: FxHashMap::default(),
            members: FxHashMap::default(),
            states: FxHashMap::default(),
            call: None,
            scalars_are_numbers: false,
        }
    }

    /// The path of a member.
    pub fn join(&self, name: &str) -> String {
        member_path(&self.path, name)
    }

    /// The path of the next unnamed instance of `name`.
    pub fn next_ordinal(&mut self, name: &Arc<str>) -> String {
        let count = self.ordinals.entry(name.clone()).or_default();
        *count += 1;
        let member = format!("{name}{count}");
        self.join(&member)
    }

    /// Gives a name in the innermost scope.
    pub fn declare(&mut self, name: &Arc<str>, value: Val) {
        let scope = self.scopes.last_mut().expect("a frame has a scope");
        scope.insert(name.clone(), value);
    }

    /// Rebinds a name where it is, or gives it in the innermost scope.
    pub fn assign(&mut self, name: &Arc<str>, value: Val) {
        let at = self.scope_of(name).unwrap_or(self.scopes.len() - 1);
        self.scopes[at].insert(name.clone(), value);
    }

    /// Which scope a name is in.
    pub fn scope_of(&self, name: &str) -> Option<usize> {
        self.scopes.iter().rposition(|scope| scope.contains_key(name))
    }

    fn local(&self, name: &str) -> Option<&Val> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }
}

/// The path of a member of the instance at `path`. A `*` in it stands for the member's name.
pub(super) fn member_path(path: &str, name: &str) -> String {
    match path {
        "" => name.to_string(),
        path if path.contains('*') => path.replacen('*', name, 1),
        path => format!("{path}.{name}"),
    }
}

impl<'u> Elab<'u> {
    pub(super) fn frame(&self) -> &Frame {
        self.frames.last().expect("elaboration happens in a frame")
    }

    pub(super) fn frame_mut(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("elaboration happens in a frame")
    }

    /// What `name` means here.
    pub(super) fn lookup(&mut self, name: &Arc<str>, span: Span) -> Eval<Val> {
        match self.find(name, span) {
            Some(Val::Poison) => Err(super::Reported),
            Some(Val::Scalar(scalar)) => self.use_scalar(&scalar, span),
            Some(value) => Ok(value),
            None => Err(self.unknown_name(name, span)),
        }
    }

    /// What `name` means here, if anything; in no way an error.
    pub(super) fn find(&mut self, name: &Arc<str>, span: Span) -> Option<Val> {
        let frame = self.frame();
        if let Some((_, axis)) = frame.indices.iter().rev().find(|(index, _)| index == name) {
            return Some(Val::Index(dlc_kernel::Index::axis(*axis)));
        }
        if let Some(value) = frame.local(name) {
            return Some(value.clone());
        }
        self.find_top_level(name, span)
    }

    fn find_top_level(&mut self, name: &Arc<str>, span: Span) -> Option<Val> {
        let ast = self.frame().ast;
        if ast == 0
            && let Some(value) = self.globals.get(name)
        {
            return Some(value.clone());
        }
        if let Some(def) = self.unit.find_def(ast, name) {
            let kind = FuncKind::Def(def, Args::default());
            return Some(Val::Func(Rc::new(Func { kind, path: None, span })));
        }
        if let Some(value) = self.constant(name, span) {
            return Some(value);
        }
        let builtin = builtin::find(name)?;
        let kind = FuncKind::Builtin(builtin, Args::default());
        Some(Val::Func(Rc::new(Func { kind, path: None, span })))
    }

    /// The constants of the language.
    fn constant(&mut self, name: &str, span: Span) -> Option<Val> {
        Some(match name {
            "inf" => Val::Float(f64::INFINITY),
            "pi" => Val::Float(std::f64::consts::PI),
            "training" => Val::Bool(self.mode == Mode::Train),
            "step" | "steps" => self.counter(name, span).ok()?.into(),
            _ => return None,
        })
    }

    fn unknown_name(&mut self, name: &str, span: Span) -> super::Reported {
        let title = format!("`{}` is not defined", sanitize(name));
        let mut diagnostic = Diagnostic::error(Code::UnknownName, title, span, "unknown name");
        let candidates = self.names_in_scope();
        if let Some(near) = nearest(name, candidates.iter().map(|c| &**c)) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        }
        if self.in_definition_of(DefKind::Model) && name.starts_with(|c: char| c.is_uppercase()) {
            let condition = format!("`where {} >= 1`", sanitize(name));
            let help =
                format!("a size that data or `--bind` gives stands in a condition: {condition}");
            diagnostic = diagnostic.help(help);
        }
        self.fail(diagnostic)
    }

    /// Every name that means something here, sorted.
    pub(super) fn names_in_scope(&self) -> Vec<String> {
        let frame = self.frame();
        let mut names: Vec<String> = frame.indices.iter().map(|(n, _)| n.to_string()).collect();
        names.extend(frame.scopes.iter().flat_map(|s| s.keys()).map(|n| n.to_string()));
        names.extend(self.globals.keys().map(|n| n.to_string()));
        names.extend(self.unit.def_names(frame.ast));
        names.extend(builtin::TABLE.iter().map(|b| b.name.to_string()));
        names.extend(CONSTANTS.map(String::from));
        names.sort();
        names.dedup();
        names
    }

    /// Takes `name` for a parameter, state or instance of the current one.
    pub(super) fn claim_member(&mut self, name: &Arc<str>, span: Span) -> Eval<()> {
        let Some(&first) = self.frame().members.get(name) else {
            self.frame_mut().members.insert(name.clone(), span);
            return Ok(());
        };
        let title = format!("`{}` is defined twice", sanitize(name));
        let diagnostic = Diagnostic::error(Code::DuplicateName, title, span, "again here")
            .label(first, "first here")
            .note("parameters, states and named instances of one block have different names");
        Err(self.fail(diagnostic))
    }

    /// Evaluates the top-level bindings of the user's file.
    pub(super) fn bind_globals(&mut self) {
        let unit = self.unit;
        for item in &unit.ast(0).items {
            if let Item::Binding(stmt) = item {
                self.run_stmt(stmt);
                let scope = self.frame_mut().scopes.last_mut().expect("a frame has a scope");
                let bound = std::mem::take(scope);
                self.globals.extend(bound);
            }
        }
    }
}
