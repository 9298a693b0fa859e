//! Instances with names that are put together: `named["*_l", k](f)`.
//!
//! A `*` in such a name stands for the names of the instance's parameters, which then belong to the
//! block around it.

use std::rc::Rc;

use super::intrinsic::Use;
use super::value::{Func, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::diagnostic::{Diagnostic, sanitize};
use crate::source::Span;

impl Elab<'_> {
    /// `named[..](f)`, and `x |> named[..](f)`.
    pub(super) fn apply_named(&mut self, call: &Use<'_>) -> Eval<Val> {
        let Some(((Val::Func(func), _), input)) = call.args.split_last() else {
            return Err(self.wrong_use(call));
        };
        let name = self.composed_name(call)?;
        self.claim_member(&name.as_str().into(), call.span)?;
        let path = self.frame().join(&name);
        let func = Func { path: Some(path.into()), ..(**func).clone() };
        match input {
            [] => Ok(Val::Func(Rc::new(func))),
            input => self.apply(&func, input.first().cloned(), call.span),
        }
    }

    /// The texts and numbers in brackets, one after the other.
    fn composed_name(&mut self, call: &Use<'_>) -> Eval<String> {
        let mut name = String::new();
        for (part, at) in call.statics() {
            match (part, part.as_int()) {
                (Val::Str(text), _) => name.push_str(text),
                (_, Some(number)) => name.push_str(&number.to_string()),
                _ => {
                    let title =
                        format!("a name is made of texts and numbers, not of {}", part.describe());
                    let label = part.describe();
                    let diagnostic = Diagnostic::error(Code::HyperType, title, *at, label);
                    return Err(self.fail(diagnostic));
                }
            }
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '*';
        if name.is_empty() || !name.chars().all(fits) || name.matches('*').count() > 1 {
            let title = format!("`{}` cannot be the name of an instance", sanitize(&name));
            let diagnostic = Diagnostic::error(Code::HyperType, title, call.span, "")
                .note("letters, digits and `_` can stand in it, and one `*` for the names inside");
            return Err(self.fail(diagnostic));
        }
        Ok(name)
    }

    /// Two declarations of one path are an error; a further use of a shared instance is none.
    pub(super) fn refuse_collision(&mut self, path: &str, first: Span, span: Span) -> Eval<()> {
        if first == span {
            return Ok(());
        }
        let title = format!("`{path}` is defined twice");
        let diagnostic = Diagnostic::error(Code::DuplicateName, title, span, "again here")
            .label(first, "first here")
            .note("a `*` in the name of an instance puts its parameters beside others");
        Err(self.fail(diagnostic))
    }
}
