//! Several syntax errors in one run: a statement with an error is blanked out, and its item is read
//! again.

use std::ops::Range;

use super::build::Builder;
use super::grammar::recognize;
use super::layout::{Layout, Mark};
use super::syntax;
use crate::code::Code;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// How many errors are reported for one file.
pub(super) const MAX_ERRORS: usize = 50;

/// How often one item is read.
const MAX_READINGS: usize = 10;

/// An item above this many bytes is read once, so that hostile texts do not take ten times as long.
const LARGE_ITEM: usize = 1 << 18;

/// Reads one item; adds it to the tree if nothing is wrong with it.
pub(super) fn parse_item(
    layout: &Layout,
    range: Range<usize>,
    builder: &mut Builder,
) -> Vec<Diagnostic> {
    let mut text = layout.text[range.clone()].to_owned();
    let blank = |text: &mut String, at: usize| {
        let Some(statement) = statement_around(&layout.marks, &range, at) else { return false };
        blank_out(text, statement.start - range.start..statement.end - range.start)
    };
    let faults = layout.faults.iter().filter(|at| range.contains(at));
    let mut clean = true;
    for at in faults {
        clean = false;
        // A second fault of a statement finds it blank; an item's header cannot be blanked out.
        if !blank(&mut text, *at) && text.as_bytes()[*at - range.start] != b' ' {
            return Vec::new();
        }
        if statement_around(&layout.marks, &range, *at).is_none() {
            return Vec::new();
        }
    }
    if let Some(diagnostic) = syntax::check_item_start(&text, builder.file(), range.start) {
        return vec![diagnostic];
    }
    let readings = if range.len() > LARGE_ITEM { 1 } else { MAX_READINGS };
    let mut diagnostics = Vec::new();
    for _ in 0..readings {
        match recognize(&text) {
            Ok(nodes) => {
                let wanted = clean && diagnostics.is_empty();
                diagnostics.extend(builder.add_item(nodes, range.start, wanted));
                break;
            }
            Err(error) => {
                let (at, diagnostic) = syntax::word(&error, &text, builder.file(), range.start);
                diagnostics.push(diagnostic);
                if !blank(&mut text, at) {
                    break;
                }
            }
        }
    }
    diagnostics
}

/// The bytes of the innermost statement around `at`; none if that is not inside braces.
fn statement_around(marks: &[Mark], item: &Range<usize>, at: usize) -> Option<Range<usize>> {
    let split = marks.partition_point(|mark| mark.at < at);
    let first = marks.partition_point(|mark| mark.at < item.start);
    let last = marks.partition_point(|mark| mark.at < item.end);
    let start = boundary(marks[first..split].iter().rev(), b'}', b'{')? + 1;
    let end = boundary(marks[split..last].iter(), b'{', b'}')?;
    Some(start..end)
}

/// The nearest mark that bounds a statement, outside nested braces, which start with `opening` in
/// the direction of travel.
fn boundary<'a>(marks: impl Iterator<Item = &'a Mark>, opening: u8, closing: u8) -> Option<usize> {
    let mut depth = 0_usize;
    for mark in marks {
        match mark.byte {
            byte if byte == opening => depth += 1,
            _ if depth == 0 => return Some(mark.at),
            byte if byte == closing => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Replaces bytes by spaces; whether there was anything.
fn blank_out(text: &mut String, range: Range<usize>) -> bool {
    let found = text[range.clone()].bytes().any(|byte| byte != b' ');
    let blanks = " ".repeat(range.len());
    text.replace_range(range, &blanks);
    found
}

/// The diagnostic that ends a long list.
pub(super) fn too_many(file: FileId, at: usize) -> Diagnostic {
    let title = format!("more than {MAX_ERRORS} errors; the rest of the file was not read");
    Diagnostic::error(Code::TooManyErrors, title, Span::new(file, at..at), "reading stopped here")
}
