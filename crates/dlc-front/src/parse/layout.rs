//! Before the grammar: characters, brackets, newlines.
//!
//! [`lay_out`] reads a text once, checks what a grammar reports badly (stray characters, brackets,
//! strings, numbers), and rewrites it **at the same byte offsets** so that the grammar need not
//! know about layout: comments, tabs, carriage returns and newlines that end nothing become spaces. A
//! `\n` that is left ends a statement; there is at most one between two statements.
//!
//! It also cuts the text into items, so that a mistake in one does not hide the next.

use std::ops::Range;

use super::brackets::Brackets;
use super::tokens::{self, Fault};
use crate::code::Code;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// How many tokens a file may have.
pub const MAX_TOKENS: usize = 1_000_000;

/// How many mistakes in characters and brackets are reported for one file.
const MAX_FAULTS: usize = 20;

/// A text made ready for the grammar.
pub(super) struct Layout {
    /// As long as the source, with layout replaced by spaces.
    pub text: String,
    /// The items, in order.
    pub items: Vec<RawItem>,
    /// Where statements can begin and end: `{`, `}`, `;` and the newlines that are left.
    pub marks: Vec<Mark>,
    /// What is wrong already.
    pub diagnostics: Vec<Diagnostic>,
    /// Where: these statements need not be parsed.
    pub faults: Vec<usize>,
}

/// One item's text.
pub(super) struct RawItem {
    /// Its bytes.
    pub range: Range<usize>,
    /// Whether its brackets do not match or nest too deep: the grammar could make nothing of it.
    pub broken: bool,
}

/// A byte that bounds statements.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub at: usize,
    pub byte: u8,
}

/// Words that start an item, apart from bindings.
pub(super) const ITEM_KEYWORDS: [&str; 10] = [
    "model",
    "block",
    "optimizer",
    "schedule",
    "init",
    "expect",
    "train",
    "search",
    "augment",
    "entry",
];

/// Lays out a file's text.
pub(super) fn lay_out(text: &str, file: FileId) -> Layout {
    let mut scanner = Scanner {
        text,
        file,
        out: vec![b' '; text.len()],
        brackets: Brackets::new(file),
        layout: Layout {
            text: String::new(),
            items: Vec::new(),
            marks: Vec::new(),
            diagnostics: Vec::new(),
            faults: Vec::new(),
        },
        item: None,
        broken: false,
        newline: None,
        awaits_value: false,
        line_start: 0,
        line_indent: 0,
        line_is_blank: true,
        tokens: 0,
    };
    scanner.run();
    let out = String::from_utf8(scanner.out).expect("whole characters are copied");
    Layout { text: out, ..scanner.layout }
}

struct Scanner<'a> {
    text: &'a str,
    file: FileId,
    out: Vec<u8>,
    brackets: Brackets,
    layout: Layout,
    /// Where the current item starts.
    item: Option<usize>,
    /// Whether the current item's brackets are wrong.
    broken: bool,
    /// The first newline since the last token.
    newline: Option<usize>,
    /// Whether the last token was `=` or `<-`, after which no statement can end.
    awaits_value: bool,
    line_start: usize,
    /// Blanks before the first token of the current line.
    line_indent: usize,
    line_is_blank: bool,
    tokens: usize,
}

impl Scanner<'_> {
    fn run(&mut self) {
        let bom = '\u{FEFF}';
        let mut at = if self.text.starts_with(bom) { bom.len_utf8() } else { 0 };
        self.line_start = at;
        while let Some(&byte) = self.text.as_bytes().get(at) {
            match byte {
                b' ' | b'\t' => at += 1,
                b'\r' if self.text.as_bytes().get(at + 1) == Some(&b'\n') => at += 1,
                b'\n' => {
                    self.newline.get_or_insert(at);
                    at += 1;
                    self.line_start = at;
                    self.line_is_blank = true;
                }
                b'#' => at = self.comment(at),
                _ => {
                    if self.line_is_blank {
                        self.line_indent = at - self.line_start;
                    }
                    at = self.token(at);
                    self.line_is_blank = false;
                    if self.tokens > MAX_TOKENS {
                        return self.give_up(at);
                    }
                }
            }
        }
        self.unclosed(at, "the file ends here");
        self.end_item(at);
    }

    /// Reads the token at `at`; gives where it ends.
    fn token(&mut self, at: usize) -> usize {
        self.settle_newline(at);
        self.item.get_or_insert(at);
        self.tokens += 1;
        self.awaits_value = false;
        let byte = self.text.as_bytes()[at];
        match byte {
            b'(' | b'[' | b'{' => self.open(byte, at),
            b')' | b']' | b'}' => self.close(byte, at),
            b';' if self.brackets.is_empty() => self.end_item(at),
            b';' => self.mark(at, b';'),
            _ => return self.plain_token(at),
        }
        at + 1
    }

    fn plain_token(&mut self, at: usize) -> usize {
        let token = tokens::scan(self.text, at);
        match token.fault {
            None => {
                let range = at..token.end;
                self.awaits_value = matches!(&self.text[range.clone()], "=" | "<-");
                self.out[range.clone()].copy_from_slice(&self.text.as_bytes()[range]);
            }
            Some(fault) => {
                if fault.code == Code::UnclosedString {
                    self.brackets.forget_since(self.line_start);
                }
                self.fault(at..token.end, fault);
            }
        }
        token.end
    }

    fn comment(&mut self, at: usize) -> usize {
        let line = &self.text[at..];
        let end = line.find('\n').map_or(self.text.len(), |length| at + length);
        if let Some(fault) = tokens::hidden_in(self.text, at..end) {
            let range = fault.place.clone();
            self.fault(range, fault);
        }
        end
    }

    /// Decides whether the newline before the token at `at` ends a statement.
    fn settle_newline(&mut self, at: usize) {
        let Some(newline) = self.newline.take() else { return };
        if self.starts_item_by_force(at) {
            self.unclosed(at, "a new item starts here");
            self.end_item(newline);
            return;
        }
        let continues = self.awaits_value || tokens::continues(&self.text[at..]);
        if self.brackets.newline_counts() && !continues {
            match self.brackets.is_empty() {
                true => self.end_item(newline),
                false => self.mark(newline, b'\n'),
            }
        }
    }

    /// Whether a definition starts in the first column although brackets are open: then they were
    /// forgotten.
    fn starts_item_by_force(&self, at: usize) -> bool {
        if self.brackets.is_empty() || self.line_indent > 0 {
            return false;
        }
        let rest = &self.text[at..];
        let word = &rest[..tokens::word_length(rest)];
        let after = rest[word.len()..].trim_start_matches(' ');
        ITEM_KEYWORDS.contains(&word)
            && after.len() < rest.len() - word.len()
            && after.starts_with(|c: char| c.is_ascii_alphabetic())
    }

    fn open(&mut self, bracket: u8, at: usize) {
        let problem = self.brackets.push(bracket, at, self.line_indent);
        self.bracket(bracket, at, problem);
    }

    fn close(&mut self, bracket: u8, at: usize) {
        let first = self.line_is_blank.then_some(self.line_indent);
        let problem = self.brackets.pop(bracket, at, first);
        self.bracket(bracket, at, problem);
    }

    fn bracket(&mut self, bracket: u8, at: usize, problem: Option<Diagnostic>) {
        self.out[at] = bracket;
        if let b'{' | b'}' = bracket {
            self.layout.marks.push(Mark { at, byte: bracket });
        }
        if let Some(diagnostic) = problem {
            self.broken = true;
            self.report(diagnostic);
        }
    }

    fn mark(&mut self, at: usize, byte: u8) {
        self.out[at] = byte;
        self.layout.marks.push(Mark { at, byte });
    }

    fn unclosed(&mut self, at: usize, why: &str) {
        let Some(diagnostic) = self.brackets.unclosed_at(at, why) else { return };
        if !std::mem::replace(&mut self.broken, true) {
            self.report(diagnostic);
        }
    }

    fn end_item(&mut self, at: usize) {
        if let Some(start) = self.item.take().filter(|start| *start < at) {
            self.layout.items.push(RawItem { range: start..at, broken: self.broken });
        }
        self.broken = false;
        self.brackets.clear();
    }

    fn give_up(&mut self, at: usize) {
        let title = format!("the file has more than {MAX_TOKENS} words and symbols");
        let span = Span::new(self.file, at..at);
        self.layout.diagnostics.push(Diagnostic::error(
            Code::TextTooComplex,
            title,
            span,
            "reading stopped here",
        ));
        self.layout.items.clear();
    }

    fn fault(&mut self, range: Range<usize>, fault: Fault) {
        self.layout.faults.push(range.start);
        let span = Span::new(self.file, fault.place);
        let diagnostic = Diagnostic::error(fault.code, fault.title, span, fault.label);
        let help = fault.help.into_iter();
        self.report(help.fold(diagnostic, Diagnostic::help));
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        let reported = self.layout.diagnostics.len();
        if reported < MAX_FAULTS {
            self.layout.diagnostics.push(diagnostic);
        } else if reported == MAX_FAULTS {
            let span = diagnostic.primary.span;
            self.layout.diagnostics.push(Diagnostic::error(
                Code::TooManyErrors,
                "the text has more such mistakes",
                span,
                "the next one is here",
            ));
        }
    }
}
