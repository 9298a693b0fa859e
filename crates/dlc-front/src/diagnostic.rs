//! Diagnostics: what is wrong, where, and what would fit.
//!
//! A [`Diagnostic`] is a value; [`render`] turns a list of them into text in rustc's form. Titles
//! are lower-case clauses without a full stop and name the user's things in backticks; labels say
//! what is at a place; notes give rules and reasons; help says what to write instead. Control
//! characters in any of it, and in names and source text, are escaped: no terminal escape sequence
//! of a user's file reaches the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Renderer, Snippet};

use crate::code::Code;
use crate::source::{FileId, LineCol, SourceFile, Sources, Span};

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is compiled.
    Error,
    /// Compilation goes on.
    Warning,
}

/// A remark on one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What is there; may be empty.
    pub text: String,
}

/// One thing to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Its kind; `dlc explain` has a paragraph on it.
    pub code: Code,
    /// What is wrong, in one clause.
    pub title: String,
    /// The place at fault.
    pub primary: Label,
    /// Other places that explain it.
    pub secondary: Vec<Label>,
    /// Rules and reasons.
    pub notes: Vec<String>,
    /// What to write instead.
    pub help: Vec<String>,
    /// The dims without whose sizes nothing more can be said.
    pub open: Vec<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(
        code: Code,
        title: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) -> Self {
        Diagnostic {
            severity: Severity::Error,
            code,
            title: title.into(),
            primary: Label { span, text: label.into() },
            secondary: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
            open: Vec::new(),
        }
    }

    /// A warning at `span`.
    pub fn warning(
        code: Code,
        title: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) -> Self {
        Diagnostic { severity: Severity::Warning, ..Self::error(code, title, span, label) }
    }

    /// Adds a second place.
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: text.into() });
        self
    }

    /// Adds a rule or reason.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Adds what to write instead.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Whether nothing can be compiled.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Whether rendered text carries terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// Text with ANSI colours; whether the reader wants them (`NO_COLOR`) is the caller's question.
    Coloured,
}

/// The diagnostics as text for people, separated by empty lines, ending in a newline unless empty.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let mut text = String::new();
    for diagnostic in diagnostics {
        let separator = if text.is_empty() { "" } else { "\n" };
        let rendered = renderer.render(&[group(diagnostic, sources)]);
        writeln!(text, "{separator}{rendered}").expect("writing to a string cannot fail");
    }
    text
}

fn group<'a>(diagnostic: &'a Diagnostic, sources: &'a Sources) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(visible(&diagnostic.title)).id(diagnostic.code.as_str());
    let elements =
        files(diagnostic).into_iter().flat_map(|file| excerpts(diagnostic, file, sources));
    let group = Group::with_title(title).elements(elements);
    let notes = diagnostic.notes.iter().map(|text| Level::NOTE.message(visible(text)));
    let help = diagnostic.help.iter().map(|text| Level::HELP.message(visible(text)));
    group.elements(notes).elements(help)
}

/// The files a diagnostic speaks of, the primary place's first.
fn files(diagnostic: &Diagnostic) -> Vec<FileId> {
    let mut files = vec![diagnostic.primary.span.file];
    for label in &diagnostic.secondary {
        if !files.contains(&label.span.file) {
            files.push(label.span.file);
        }
    }
    files
}

type Annotated<'a> = (AnnotationKind, &'a Label);

/// The lines of `file` that the diagnostic's labels touch, annotated.
fn excerpts<'a>(
    diagnostic: &'a Diagnostic,
    file: FileId,
    sources: &'a Sources,
) -> Vec<Element<'a>> {
    const LONGEST: usize = 1 << 14;
    const LONGEST_LINE: usize = 400;
    let primary = (AnnotationKind::Primary, &diagnostic.primary);
    let secondary = diagnostic.secondary.iter().map(|label| (AnnotationKind::Context, label));
    let labels: Vec<Annotated> = std::iter::once(primary)
        .chain(secondary)
        .filter(|(_, label)| label.span.file == file)
        .collect();
    let source = sources.file(file);
    let line = |at: u32| source.line_col(at as usize).line;
    let first = labels.iter().map(|(_, label)| line(label.span.start)).min().unwrap_or(1);
    let last = labels.iter().map(|(_, label)| line(label.span.end)).max().unwrap_or(1);
    let window = source.line_range(first).start..source.line_range(last).end;
    let text = &source.text()[window.clone()];
    if text.len() > LONGEST || text.lines().any(|line| line.len() > LONGEST_LINE) {
        return labels.into_iter().map(|label| alone(label, source)).collect();
    }
    let annotations = labels.into_iter().map(|it| annotation(it, it.1.span.range(), &window));
    let snippet = Snippet::source(text).line_start(first).path(visible(source.name()));
    vec![snippet.annotations(annotations.collect::<Vec<_>>()).into()]
}

/// A label's text at `range`, as far as that lies in `window`.
fn annotation<'a>(
    (kind, label): Annotated<'a>,
    range: Range<usize>,
    window: &Range<usize>,
) -> Annotation<'a> {
    let within = |at: usize| at.clamp(window.start, window.end) - window.start;
    let annotation = kind.span(within(range.start)..within(range.end));
    annotation.label((!label.text.is_empty()).then(|| visible(&label.text)))
}

/// A label by itself on its line, of which the renderer shows the part that is near.
fn alone<'a>((kind, label): Annotated<'a>, source: &'a SourceFile) -> Element<'a> {
    const LONGEST: usize = 80;
    let range = label.span.range();
    let line = source.line_col(range.start).line;
    let window = source.line_range(line);
    let end = source.text().floor_char_boundary(range.end.min(range.start + LONGEST));
    let annotation = annotation((kind, label), range.start..end, &window);
    let snippet = Snippet::source(&source.text()[window]).line_start(line);
    snippet.path(visible(source.name())).annotation(annotation).into()
}

/// The diagnostics as one line each, `name:line:column: severity[code]: title`: for logs.
#[must_use]
pub fn render_short(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let span = diagnostic.primary.span;
        let file = sources.file(span.file);
        let LineCol { line, column } = file.line_col(span.start as usize);
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = format!("{}:{line}:{column}", sanitize(file.name()));
        let title = sanitize(&diagnostic.title);
        let code = diagnostic.code.as_str();
        writeln!(text, "{place}: {severity}[{code}]: {title}")
            .expect("writing to a string cannot fail");
    }
    text
}

/// The text with control characters escaped, and cut to a length that fits a message: for names
/// from the user that are quoted in titles.
#[must_use]
pub fn sanitize(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut clean = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == LONGEST {
            clean.push_str("...");
            break;
        }
        push_visible(character, &mut clean);
    }
    clean
}

/// The text with control characters escaped, newlines apart.
fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| c != '\n' && (c.is_control() || is_bidi_control(c));
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::new();
    for character in text.chars() {
        match character {
            '\n' => clean.push('\n'),
            other => push_visible(other, &mut clean),
        }
    }
    Cow::Owned(clean)
}

fn push_visible(character: char, text: &mut String) {
    match character.is_control() || is_bidi_control(character) {
        true => text.extend(character.escape_unicode()),
        false => text.push(character),
    }
}

/// Whether a character reorders the text around it on screen.
pub(crate) fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}')
}

/// The candidate that a misspelt `name` most likely means, if one is near: for "did you mean".
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) between two words; letter case counts nothing.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let names = ["linear", "conv", "LeNet"];
        assert_eq!(nearest("liner", names), Some("linear"));
        assert_eq!(nearest("cnov", names), Some("conv"));
        assert_eq!(nearest("lenet", names), Some("LeNet"));
        assert_eq!(nearest("attention", names), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn terminal_escapes_in_names_are_shown_not_sent() {
        assert_eq!(sanitize("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(sanitize(&"x".repeat(100)).len(), 63);
        let mut sources = Sources::new();
        let file = sources.add("evil\u{1b}[2J.dl", "let a = \u{1b}[31m\n");
        let title = "found `\u{1b}[31m`";
        let diagnostic = Diagnostic::error(
            Code::UnexpectedCharacter,
            title,
            Span::new(file, 8..13),
            "\u{1b}[0m",
        );
        let diagnostics = [diagnostic.help("\u{1b}c").note("a\nb")];
        let plain = render(&diagnostics, &sources, Style::Plain);
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(!render_short(&diagnostics, &sources).contains('\u{1b}'));
        let coloured = render(&diagnostics, &sources, Style::Coloured);
        assert!(coloured.contains('\u{1b}') && !coloured.contains("\u{1b}c"), "{coloured}");
    }
}
