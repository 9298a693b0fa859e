//! Text to syntax tree.
//!
//! In three steps: `layout` (with `tokens`, `brackets`, `chars`) checks characters and brackets,
//! settles which newlines count and cuts the text into items; the grammar (`grammar/dl.pest`)
//! recognizes each item; `build` (with `expr`) makes the tree. A mistake costs its statement: that
//! is blanked out and its item read again, so that one run reports several. `syntax` words the
//! grammar's errors.
//!
//! Nothing here may panic or take more than linear time, whatever the text: brackets are counted
//! before anything recurses, the grammar is left-factored, and everything runs on a large stack.

mod brackets;
mod build;
mod chars;
mod expr;
mod grammar;
mod layout;
mod recover;
mod stmt;
mod syntax;
mod tokens;

pub use brackets::MAX_NESTING;
pub use layout::MAX_TOKENS;
pub use syntax::RESERVED;
pub use tokens::MAX_NAME_BYTES;

use crate::ast::Ast;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Sources};
use crate::stack::{each_on_large_stack, on_large_stack};

/// Parses a file of `sources`.
///
/// Gives the tree and what is wrong, in textual order. The tree has the items without errors; it is
/// the whole file if there are no diagnostics.
#[must_use]
pub fn parse(sources: &Sources, file: FileId) -> (Ast, Vec<Diagnostic>) {
    let text = sources.file(file).text();
    on_large_stack(|| parse_text(text, file))
}

/// [`parse`] for each of some files, beside each other.
#[must_use]
pub fn parse_each(sources: &Sources, files: &[FileId]) -> Vec<(Ast, Vec<Diagnostic>)> {
    each_on_large_stack(files, |&file| parse_text(sources.file(file).text(), file))
}

fn parse_text(text: &str, file: FileId) -> (Ast, Vec<Diagnostic>) {
    let layout = layout::lay_out(text, file);
    let mut builder = build::Builder::new(file);
    let mut diagnostics = layout.diagnostics.clone();
    for item in layout.items.iter().filter(|item| !item.broken) {
        diagnostics.extend(recover::parse_item(&layout, item.range.clone(), &mut builder));
        if diagnostics.len() > recover::MAX_ERRORS {
            diagnostics.push(recover::too_many(file, item.range.end));
            break;
        }
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.primary.span.start);
    (builder.finish(), diagnostics)
}
