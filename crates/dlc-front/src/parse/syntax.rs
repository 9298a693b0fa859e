//! The grammar's errors in words.

use std::collections::BTreeSet;

use pest::error::{Error, ErrorVariant, InputLocation};

use super::grammar::Rule;
use super::layout::ITEM_KEYWORDS;
use super::tokens;
use crate::code::Code;
use crate::diagnostic::{Diagnostic, nearest, sanitize};
use crate::source::{FileId, Span};

/// The words that cannot be names. All other keywords can be, where none is expected.
pub const RESERVED: [&str; 8] = ["and", "or", "not", "if", "else", "where", "yes", "no"];

/// The diagnostic for an item that starts like none; `text` is laid out, `base` its place.
pub(super) fn check_item_start(text: &str, file: FileId, base: usize) -> Option<Diagnostic> {
    let word = &text[..tokens::word_length(text)];
    let next = text[word.len()..].trim_start_matches(' ');
    let keyword = word == "let" || ITEM_KEYWORDS.contains(&word);
    let binding = next.starts_with(['=', ',']) && !next.starts_with("==");
    if binding && !word.is_empty() {
        return None;
    }
    let name = &next[..tokens::word_length(next)];
    if keyword && RESERVED.contains(&name) {
        let place = Place { text, at: text.len() - next.len(), file, base };
        return Some(reserved(&place, "expected a name".to_owned()));
    }
    let nameless = ["search", "augment", "entry"].contains(&word) && next.starts_with('{');
    if keyword && (nameless || next.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')) {
        return None;
    }
    let what = if word.is_empty() { token_at(text, 0) } else { word };
    let title = format!("`{}` does not start a definition or section", sanitize(what));
    let label = "expected `model`, `block`, `expect`, `train`, or a binding";
    let span = Span::new(file, base..base + what.len());
    let help = match nearest(word, ITEM_KEYWORDS) {
        Some(near) if near != word => format!("did you mean `{near}`?"),
        Some(_) => format!("`{word}` is followed by a name"),
        None => "computations stand in the body of a `model` or `block`".to_owned(),
    };
    Some(Diagnostic::error(Code::UnknownItem, title, span, label).help(help))
}

fn reserved(place: &Place, expected: String) -> Diagnostic {
    let title = format!("`{}` is a reserved word", place.found());
    place.error(Code::ReservedWord, title, expected).help("choose another name")
}

/// Words a grammar error in an item: the place that stands for it (for recovery), and the
/// diagnostic.
pub(super) fn word(
    error: &Error<Rule>,
    text: &str,
    file: FileId,
    base: usize,
) -> (usize, Diagnostic) {
    let (InputLocation::Pos(at) | InputLocation::Span((at, _))) = error.location;
    let at = at + text[at..].len() - text[at..].trim_start_matches(' ').len();
    let place = Place { text, at, file, base };
    let diagnostic = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => unexpected(&place, positives),
        ErrorVariant::CustomError { .. } => place.error(
            Code::TextTooComplex,
            "this definition takes too many steps to parse".to_owned(),
            "reading stopped here".to_owned(),
        ),
    };
    (base + at, diagnostic)
}

/// Where an error is, in an item's text.
struct Place<'a> {
    text: &'a str,
    at: usize,
    file: FileId,
    base: usize,
}

impl Place<'_> {
    /// The token found, empty at the end of a statement.
    fn found(&self) -> &str {
        token_at(self.text, self.at)
    }

    /// What comes before, without blanks.
    fn before(&self) -> &str {
        self.text[..self.at].trim_end_matches([' ', '\n'])
    }

    fn error(&self, code: Code, title: String, label: String) -> Diagnostic {
        // The end of a statement is shown after its last token, not after its comment.
        let range = match self.found().len() {
            0 => self.before().len()..self.before().len(),
            length => self.at..self.at + length,
        };
        let range = self.base + range.start..self.base + range.end;
        Diagnostic::error(code, title, Span::new(self.file, range), label)
    }
}

fn token_at(text: &str, at: usize) -> &str {
    match text.as_bytes().get(at) {
        None | Some(b'\n') => "",
        Some(b'(' | b')' | b'[' | b']' | b'{' | b'}' | b';' | b' ') => &text[at..=at],
        Some(_) => &text[at..tokens::scan(text, at).end],
    }
}

fn unexpected(place: &Place, positives: &[Rule]) -> Diagnostic {
    let found = place.found();
    let expected = expectation(positives);
    if RESERVED.contains(&found) && positives.contains(&Rule::name) {
        return reserved(place, expected);
    }
    let title = match found {
        "" => "the statement ends too early".to_owned(),
        found => format!("unexpected `{}`", sanitize(found)),
    };
    let diagnostic = place.error(Code::Syntax, title, expected);
    hints(place, positives).into_iter().fold(diagnostic, Diagnostic::help)
}

/// `expected a name, `(` or `where``.
fn expectation(positives: &[Rule]) -> String {
    let mut words: BTreeSet<&str> = positives.iter().filter_map(|rule| describe(*rule)).collect();
    if words.contains("an operator") && !positives.contains(&Rule::binary_op) {
        words.remove("an operator");
        words.insert("`|>`");
    }
    if words.contains("`)`") || words.contains("`]`") {
        words.insert("`,`");
    }
    if words.contains("an expression") {
        let parts = ["a name", "a word", "`:`", "`,`", "`repeat`"];
        words.retain(|word| !parts.contains(word));
    }
    if words.contains("a statement") {
        words.retain(|word| !matches!(*word, "an expression" | "a name" | "`<-`"));
    }
    let words: Vec<&str> = words.into_iter().collect();
    match words.as_slice() {
        [] => "not expected here".to_owned(),
        [word] => format!("expected {word}"),
        [words @ .., last] => format!("expected {} or {last}", words.join(", ")),
    }
}

fn hints(place: &Place, positives: &[Rule]) -> Option<&'static str> {
    const OPERATORS: [&str; 13] =
        ["+", "-", "*", "/", "//", "%", "@", "==", "!=", "<", ">", "and", "or"];
    let found = place.found();
    let before = place.before();
    let operator_wanted = positives.contains(&Rule::binary_op);
    let value_wanted = positives.iter().any(|rule| describe(*rule) == Some("an expression"));
    if found.is_empty() && value_wanted && before.ends_with(|c: char| "+-*/%@<>|,".contains(c)) {
        return Some("to continue on the next line, start that line with the operator");
    }
    if before.ends_with(':') && positives.contains(&Rule::kw_repeat) {
        return Some("a layer is named by `fc = linear(8)` before, or `named[\"fc\"](linear(8))`");
    }
    match found {
        "=" if operator_wanted => Some("to compare two values write `==`"),
        "|>" if before.ends_with("|>") => Some("write a function between two `|>`"),
        _ if OPERATORS.contains(&found) && !operator_wanted && positives.contains(&Rule::kw_if) => {
            Some("`|>` binds looser than this operator: put the pipeline in parentheses")
        }
        _ => None,
    }
}

/// What a rule is called in a message; none where naming it would not help.
fn describe(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::name => "a name",
        Rule::word => "a word",
        Rule::value | Rule::masked | Rule::expr | Rule::operand | Rule::argument => "an expression",
        Rule::number | Rule::string | Rule::truth | Rule::paren | Rule::list => "an expression",
        Rule::if_form | Rule::for_form | Rule::scan_form | Rule::repeat_form => "an expression",
        Rule::reduce_head | Rule::sign | Rule::subscript => "an expression",
        Rule::stage => "a function",
        Rule::binary_op | Rule::call | Rule::subscripts | Rule::field => "an operator",
        Rule::let_stmt | Rule::param_stmt | Rule::state_stmt | Rule::yield_stmt => "a statement",
        Rule::update_stmt | Rule::assignment => "a statement",
        Rule::data_stmt | Rule::stop_stmt | Rule::metric_stmt | Rule::setting => "a statement",
        Rule::entry => "a statement",
        Rule::type_expr => "a type",
        Rule::dims => "`[`",
        Rule::param => "a parameter",
        Rule::params => "`(`",
        Rule::output => "`->`",
        Rule::constraints => "`where`",
        Rule::block | Rule::open_brace => "`{`",
        Rule::close_brace | Rule::end => "the end of the statement",
        Rule::close_paren => "`)`",
        Rule::close_bracket => "`]`",
        Rule::assign => "`=`",
        Rule::colon => "`:`",
        Rule::comma => "`,`",
        Rule::tilde => "`~`",
        Rule::arrow_left => "`<-`",
        Rule::kw_else => "`else`",
        Rule::kw_repeat => "`repeat`",
        Rule::kw_in => "`in`",
        Rule::kw_with => "`with`",
        Rule::kw_reverse => "`reverse`",
        Rule::kw_at => "`at`",
        Rule::kw_after => "`after`",
        Rule::kw_epochs => "`epochs`",
        Rule::kw_without => "`without`",
        Rule::trend => "`improving`",
        Rule::batch_option | Rule::kw_batch => "`batch`",
        Rule::shuffle_option => "`shuffle`",
        _ => return None,
    })
}
