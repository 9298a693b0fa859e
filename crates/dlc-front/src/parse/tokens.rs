//! Tokens: where each ends, and what can be wrong with one.
//!
//! The grammar describes well-formed tokens; this module finds the ill-formed ones, since a grammar
//! could only say that something else was expected.

use std::ops::Range;

use super::chars::ascii_twin;
use crate::code::Code;
use crate::diagnostic::{is_bidi_control, sanitize};

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// A token that was found.
pub(super) struct Token {
    /// One past its last byte.
    pub end: usize,
    /// What is wrong with it.
    pub fault: Option<Fault>,
}

/// What is wrong with a token.
pub(super) struct Fault {
    pub code: Code,
    pub title: String,
    pub place: Range<usize>,
    pub label: String,
    pub help: Option<String>,
}

impl Fault {
    fn new(code: Code, title: impl Into<String>, place: Range<usize>) -> Self {
        Fault { code, title: title.into(), place, label: String::new(), help: None }
    }

    fn label(self, label: impl Into<String>) -> Self {
        Fault { label: label.into(), ..self }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Fault { help: Some(help.into()), ..self }
    }
}

fn good(end: usize) -> Token {
    Token { end, fault: None }
}

fn bad(end: usize, fault: Fault) -> Token {
    Token { end, fault: Some(fault) }
}

/// Reads the token that starts at `at`, which is not a blank, a comment or a bracket.
pub(super) fn scan(text: &str, at: usize) -> Token {
    let first = text[at..].chars().next().expect("a token has a character");
    match first {
        '0'..='9' => number(text, at),
        '"' => string(text, at),
        _ if first == '_' || first.is_alphabetic() => word(text, at),
        _ if first.is_control() || is_bidi_control(first) => control(text, at, first),
        '.' if text[at + 1..].starts_with(|c: char| c.is_ascii_digit()) => point_first(text, at),
        _ if first.is_ascii() => operator(text, at),
        _ => foreign(text, at, first),
    }
}

/// The length of the ASCII word that `text` starts with, or 0.
pub(super) fn word_length(text: &str) -> usize {
    text.bytes().take_while(|byte| is_word_byte(*byte)).count()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a line that starts with `rest` continues the statement of the line before it.
pub(super) fn continues(rest: &str) -> bool {
    const OPERATORS: [&str; 12] = ["|>", "->", "{", "+", "*", "/", "%", "@", "==", "!=", "<", ">"];
    const WORDS: [&str; 4] = ["else", "where", "and", "or"];
    OPERATORS.iter().any(|operator| rest.starts_with(operator))
        || WORDS.contains(&&rest[..word_length(rest)])
}

/// The end of the letters, digits and underscores from `at` on, ASCII or not.
fn word_end(text: &str, at: usize) -> usize {
    let inside = |c: char| c == '_' || c.is_alphanumeric();
    text[at..].find(|c| !inside(c)).map_or(text.len(), |length| at + length)
}

fn word(text: &str, at: usize) -> Token {
    let end = word_end(text, at);
    let word = &text[at..end];
    if !word.is_ascii() {
        let title = format!("`{}` is not a name: names are ASCII", sanitize(word));
        let twin = word.chars().map(|c| match c.is_ascii() {
            true => Some(String::from(c)),
            false => ascii_twin(c),
        });
        let fault = Fault::new(Code::UnexpectedCharacter, title, at..end).label(outsiders(word));
        return match twin.collect::<Option<String>>() {
            Some(twin) => bad(end, fault.help(format!("write `{}`", sanitize(&twin)))),
            None => bad(end, fault.help("use letters a-z, digits and `_`")),
        };
    }
    if word.len() > MAX_NAME_BYTES {
        let title = format!("a name of {} characters", word.len());
        let fault = Fault::new(Code::NameTooLong, title, at..end)
            .label(format!("the limit is {MAX_NAME_BYTES}"));
        return bad(end, fault);
    }
    good(end)
}

fn outsiders(word: &str) -> String {
    let mut seen: Vec<char> = word.chars().filter(|c| !c.is_ascii()).collect();
    seen.dedup();
    let show = |c: &char| format!("`{c}` is U+{:04X}", u32::from(*c));
    seen.iter().take(3).map(show).collect::<Vec<_>>().join(", ")
}

/// The end of digits with grouping underscores, which start at `at`.
fn digits_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = at;
    while digit(end) || (end > at && bytes.get(end) == Some(&b'_') && digit(end + 1)) {
        end += 1;
    }
    end
}

/// The end of the longest well-formed number at `at`: `5x5`, `1_000`, `1.5e-3`.
fn number_end(text: &str, at: usize) -> usize {
    let byte = |at: usize| text.as_bytes().get(at).copied().unwrap_or(0);
    let mut end = digits_end(text, at);
    if byte(end) == b'x' && byte(end + 1).is_ascii_digit() {
        while byte(end) == b'x' && byte(end + 1).is_ascii_digit() {
            end = digits_end(text, end + 1);
        }
        return end;
    }
    if byte(end) == b'.' && byte(end + 1).is_ascii_digit() {
        end = digits_end(text, end + 1);
    }
    let sign = usize::from(matches!(byte(end + 1), b'+' | b'-'));
    if matches!(byte(end), b'e' | b'E') && byte(end + 1 + sign).is_ascii_digit() {
        end = digits_end(text, end + 1 + sign);
    }
    end
}

fn number(text: &str, at: usize) -> Token {
    let end = number_end(text, at);
    let whole = word_end(text, end);
    let (digits, tail) = (&text[at..end], &text[end..whole]);
    if !tail.is_empty() {
        return bad(whole, contact(digits, tail, at..whole));
    }
    let rest = &text[end..];
    if rest.starts_with('.') && !rest.starts_with("..") {
        let title = "a number that ends with a point";
        let fault = Fault::new(Code::DigitsTouchLetters, title, at..end + 1)
            .help(format!("write `{digits}` or `{digits}.0`"));
        return bad(end + 1, fault);
    }
    match too_large(digits) {
        Some(title) => bad(end, Fault::new(Code::NumberTooLarge, title, at..end)),
        None => good(end),
    }
}

fn contact(digits: &str, tail: &str, place: Range<usize>) -> Fault {
    let title =
        format!("`{}` is neither a number nor a name", sanitize(&format!("{digits}{tail}")));
    let help = match tail {
        _ if digits.starts_with("0x") => "there are no hexadecimal numbers".to_owned(),
        "x" => format!("a size has numbers on both sides: `{digits}x{digits}`"),
        "e" | "E" => format!("an exponent has digits: `{digits}e-3`"),
        _ if tail.starts_with('_') => "underscores stand between two digits: `61_706`".to_owned(),
        _ => format!("for a product write `{digits} * {}`", sanitize(tail)),
    };
    Fault::new(Code::DigitsTouchLetters, title, place).label("digits touch letters").help(help)
}

fn too_large(digits: &str) -> Option<String> {
    let plain = digits.replace('_', "");
    let shown = sanitize(digits);
    if plain.contains('x') || plain.bytes().all(|byte| byte.is_ascii_digit()) {
        let fits = plain.split('x').all(|part| part.parse::<i64>().is_ok());
        return (!fits).then(|| format!("`{shown}` is larger than 2^63 - 1"));
    }
    let value: f64 = plain.parse().expect("a float's syntax was checked");
    value.is_infinite().then(|| format!("`{shown}` is larger than any floating-point number"))
}

fn point_first(text: &str, at: usize) -> Token {
    let end = word_end(text, at + 1);
    // After a name or a closing bracket it is a field with a number for its name.
    let digits = sanitize(&text[at..end]);
    let after_value = text[..at].ends_with(|c: char| c.is_alphanumeric() || "_)]".contains(c));
    let fault = Fault::new(Code::DigitsTouchLetters, "a point before digits", at..end);
    let fault = match after_value {
        true => {
            fault.help(format!("an element of a list is taken with brackets: `[{}]`", &digits[1..]))
        }
        false => fault.help(format!("write `0{digits}`")),
    };
    bad(end, fault)
}

fn string(text: &str, at: usize) -> Token {
    let mut characters = text[at + 1..].char_indices();
    while let Some((offset, character)) = characters.next() {
        let place = at + 1 + offset;
        match character {
            '"' => {
                let fault = hidden_in(text, at..place);
                return Token { end: place + 1, fault };
            }
            '\n' => return bad(place, unclosed_string(at..place)),
            '\\' => match characters.next() {
                Some((_, '"' | '\\' | 'n' | 't')) => {}
                Some((_, other)) if other != '\n' => {
                    let end = place + 1 + other.len_utf8();
                    let fault = unknown_escape(place..end, other);
                    return bad(string_end(text, end), fault);
                }
                _ => return bad(place + 1, unclosed_string(at..place + 1)),
            },
            _ => {}
        }
    }
    bad(text.len(), unclosed_string(at..text.len()))
}

/// Where a string ends that goes on at `at`: after its quote, or with its line.
fn string_end(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    match rest.find(['"', '\n']) {
        Some(length) if rest[length..].starts_with('"') => at + length + 1,
        Some(length) => at + length,
        None => text.len(),
    }
}

fn unclosed_string(place: Range<usize>) -> Fault {
    Fault::new(Code::UnclosedString, "a string without its closing `\"`", place)
        .label("starts here and goes on to the end of the line")
        .help("a string ends on the line it starts on")
}

fn unknown_escape(place: Range<usize>, escaped: char) -> Fault {
    let title = format!("`\\{}` is not an escape", sanitize(&escaped.to_string()));
    Fault::new(Code::UnknownEscape, title, place)
        .help("the escapes are `\\\"`, `\\\\`, `\\n` and `\\t`; write `\\\\` for a backslash")
}

/// A control character inside a comment or string.
pub(super) fn hidden_in(text: &str, range: Range<usize>) -> Option<Fault> {
    let inside = &text[range.clone()];
    let ends_line = |at: usize| inside[at..].starts_with("\r") && at + 1 == inside.len();
    let (at, character) = inside
        .char_indices()
        .find(|(at, c)| (c.is_control() && *c != '\t' && !ends_line(*at)) || is_bidi_control(*c))?;
    let start = range.start + at;
    control(text, start, character).fault
}

fn control(text: &str, at: usize, character: char) -> Token {
    let run = text[at..].find(|c| c != character).unwrap_or(text.len() - at);
    let place = at..at + run;
    let (title, help) = match character {
        '\0' => ("a NUL byte", "is this a binary file, or text in UTF-16?"),
        '\r' => ("a carriage return without a newline", "save the file with newlines (LF or CRLF)"),
        '\u{1b}' => ("a terminal escape sequence", "remove it"),
        _ if is_bidi_control(character) => {
            ("an invisible character that reorders text", "remove it")
        }
        _ => ("a control character", "remove it"),
    };
    let label = format!("U+{:04X}", u32::from(character));
    bad(place.end, Fault::new(Code::ControlCharacter, title, place).label(label).help(help))
}

/// ASCII symbols. All that the grammar uses are let through; the grammar puts them together.
fn operator(text: &str, at: usize) -> Token {
    let rest = &text[at..];
    let known = ["|>", "->", "<-", "==", "!=", "<=", ">=", "//", ".."];
    if let Some(symbol) = known.iter().find(|symbol| rest.starts_with(**symbol)) {
        return good(at + symbol.len());
    }
    let mistakes = [
        ("/*", "comments start with `#`"),
        ("&&", "write `and`"),
        ("&", "write `and`"),
        ("||", "write `or`"),
        ("|", "a pipeline is written `|>`"),
        ("!", "write `not`"),
        ("'", "strings are written with `\"`"),
        ("^", "write `x * x` for a square"),
        ("**", "write `x * x` for a square"),
    ];
    if let Some((symbol, help)) = mistakes.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
        let fault = no_meaning(symbol, at).help(*help);
        return bad(at + symbol.len(), fault);
    }
    let symbol = &rest[..1];
    match "+-*/%@=<>,:.~".contains(symbol) {
        true => good(at + 1),
        false => bad(at + 1, no_meaning(symbol, at)),
    }
}

fn no_meaning(symbol: &str, at: usize) -> Fault {
    let title = format!("`{symbol}` has no meaning here");
    Fault::new(Code::UnexpectedCharacter, title, at..at + symbol.len())
}

fn foreign(text: &str, at: usize, character: char) -> Token {
    let end = match character {
        '“' | '”' | '„' => curly_string_end(text, at),
        _ => at + character.len_utf8(),
    };
    let code = u32::from(character);
    let twin = ascii_twin(character);
    let shown = match twin.as_deref() {
        Some("" | " ") => format!("the character U+{code:04X}"),
        _ => format!("`{}` (U+{code:04X})", sanitize(&character.to_string())),
    };
    let title = format!("{shown} has no meaning here");
    let fault = Fault::new(Code::UnexpectedCharacter, title, at..end);
    let fault = match twin.as_deref() {
        Some("\"") => fault.label("curly quotes").help("strings are written with plain `\"`"),
        Some("") => fault.label("an invisible character").help("remove it"),
        Some(" ") => fault.label("not a plain space").help("replace it by a space"),
        Some(twin) => fault.help(format!("write `{twin}`")),
        None => fault,
    };
    bad(end, fault)
}

fn curly_string_end(text: &str, at: usize) -> usize {
    let mut rest = text[at..].char_indices().skip(1);
    match rest.find(|(_, c)| matches!(c, '”' | '“' | '"' | '\n')) {
        Some((length, '\n')) => at + length,
        Some((length, quote)) => at + length + quote.len_utf8(),
        None => text.len(),
    }
}
