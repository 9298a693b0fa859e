//! Warnings: what is odd but no error.

use super::Elab;
use crate::Code;
use crate::ast::{Def, Stmt};
use crate::diagnostic::Diagnostic;

impl Elab<'_> {
    /// A statement that computes something and drops it.
    pub(super) fn warn_unused_value(&mut self, stmt: &Stmt) {
        let title = "this value is never used";
        let diagnostic = Diagnostic::warning(Code::UnusedValue, title, stmt.span, "")
            .help("give it a name, or put it last to make it the block's value");
        self.report(diagnostic);
    }

    /// Parameters on which no result depends.
    pub(super) fn warn_model(&mut self, def: &Def) {
        if self.has_errors() {
            return;
        }
        let live = self.graph.live();
        let unused: Vec<_> = self
            .params
            .iter()
            .filter(|(_, stored)| !live[stored.value.0 as usize])
            .map(|(path, stored)| (path.clone(), stored.span))
            .collect();
        for (path, span) in unused {
            let title = format!("nothing in `{}` depends on the parameter `{path}`", def.name.text);
            let diagnostic =
                Diagnostic::warning(Code::UnusedParameter, title, span, "declared here");
            self.report(diagnostic);
        }
    }
}
