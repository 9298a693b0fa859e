//! The brackets that are open while a text is scanned.

use crate::code::Code;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// How deep brackets may be nested.
pub const MAX_NESTING: usize = 256;

/// An opening bracket.
#[derive(Clone, Copy)]
struct Open {
    at: usize,
    bracket: u8,
    /// Blanks before the first token of its line.
    indent: usize,
}

/// The open brackets, the innermost last, and what is known about mistakes among them.
pub(super) struct Brackets {
    file: FileId,
    open: Vec<Open>,
    /// The last `}` that stood at another indentation than the line of its `{`.
    askew: Option<(Open, usize)>,
    reported_depth: bool,
}

impl Brackets {
    pub(super) fn new(file: FileId) -> Self {
        Brackets { file, open: Vec::new(), askew: None, reported_depth: false }
    }

    /// Whether a newline ends a statement here.
    pub(super) fn newline_counts(&self) -> bool {
        self.open.last().is_none_or(|open| open.bracket == b'{')
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Forgets all brackets: a new item starts.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.askew = None;
        self.reported_depth = false;
    }

    /// Opens a bracket.
    pub(super) fn push(&mut self, bracket: u8, at: usize, indent: usize) -> Option<Diagnostic> {
        self.open.push(Open { at, bracket, indent });
        if self.open.len() <= MAX_NESTING || self.reported_depth {
            return None;
        }
        self.reported_depth = true;
        let title = format!("brackets are nested deeper than {MAX_NESTING} levels");
        let label = "one level too many";
        Some(
            Diagnostic::error(Code::NestingTooDeep, title, self.span(at), label)
                .help("give parts of the expression a name"),
        )
    }

    /// Closes a bracket. `first_in_line` is the indentation if nothing stands before it.
    pub(super) fn pop(
        &mut self,
        bracket: u8,
        at: usize,
        first_in_line: Option<usize>,
    ) -> Option<Diagnostic> {
        let Some(top) = self.open.last().copied() else {
            return Some(self.stray(bracket, at));
        };
        if partner(top.bracket) == bracket {
            self.open.pop();
            if bracket == b'}' && first_in_line.is_some_and(|indent| indent != top.indent) {
                self.askew = Some((top, at));
            }
            return None;
        }
        let outer = self.open.iter().rposition(|open| partner(open.bracket) == bracket);
        let Some(outer) = outer else {
            if top.bracket == b'{' {
                return Some(self.stray(bracket, at));
            }
            self.open.pop();
            return Some(self.mixed_up(top, bracket, at));
        };
        self.open.truncate(outer);
        Some(self.unclosed(top, at, &format!("`{}` comes before its partner", char::from(bracket))))
    }

    /// The diagnostic for what is still open where the text ends or a new item starts.
    pub(super) fn unclosed_at(&self, at: usize, why: &str) -> Option<Diagnostic> {
        let top = *self.open.last()?;
        let diagnostic = self.unclosed(top, at, why);
        Some(match self.askew {
            Some((open, close)) if top.bracket == b'{' => diagnostic
                .label(self.span(open.at), "this `{` ...")
                .label(self.span(close), "... is closed here, at another indentation"),
            _ => diagnostic,
        })
    }

    fn unclosed(&self, open: Open, at: usize, why: &str) -> Diagnostic {
        let bracket = char::from(open.bracket);
        let title = format!("`{bracket}` is never closed");
        let end = Span::new(self.file, at..at);
        Diagnostic::error(Code::MismatchedBracket, title, self.span(open.at), "opened here")
            .label(end, why)
            .help(format!("close it with `{}`", char::from(partner(open.bracket))))
    }

    fn stray(&self, bracket: u8, at: usize) -> Diagnostic {
        let bracket = char::from(bracket);
        let title = format!("`{bracket}` closes nothing");
        let error =
            |label: &str| Diagnostic::error(Code::MismatchedBracket, title, self.span(at), label);
        match self.open.last() {
            None => error("no bracket is open here"),
            Some(open) => {
                let open_bracket = char::from(open.bracket);
                error("").label(self.span(open.at), format!("`{open_bracket}` is open here"))
            }
        }
    }

    fn mixed_up(&self, open: Open, bracket: u8, at: usize) -> Diagnostic {
        let (opening, bracket) = (char::from(open.bracket), char::from(bracket));
        let title = format!("`{opening}` is closed by `{bracket}`");
        let wanted = format!("expected `{}`", char::from(partner(open.bracket)));
        Diagnostic::error(Code::MismatchedBracket, title, self.span(at), wanted)
            .label(self.span(open.at), "opened here")
    }

    /// Forgets the parentheses and square brackets opened at or after `at`: what would close them
    /// is lost in a string that does not end.
    pub(super) fn forget_since(&mut self, at: usize) {
        while self.open.pop_if(|open| open.at >= at && open.bracket != b'{').is_some() {}
    }

    fn span(&self, at: usize) -> Span {
        Span::new(self.file, at..at + 1)
    }
}

fn partner(bracket: u8) -> u8 {
    match bracket {
        b'(' => b')',
        b'[' => b']',
        _ => b'}',
    }
}
