//! A place in the text, and the tokens that start there.

use super::{ParseError, Parsed};

pub(super) struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    pub fn new(text: &'t str) -> Cursor<'t> {
        Cursor { text, at: 0 }
    }

    /// The byte where the next token starts.
    pub fn at(&mut self) -> usize {
        self.skip();
        self.at
    }

    pub fn error(&mut self, message: impl Into<String>) -> ParseError {
        let at = self.at();
        self.error_at(at, message)
    }

    pub fn error_at(&self, at: usize, message: impl Into<String>) -> ParseError {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        ParseError { line, column, message: message.into() }
    }

    pub fn end(&mut self) -> Parsed<()> {
        if self.at() == self.text.len() { Ok(()) } else { Err(self.error("the graph ends here")) }
    }

    pub fn peek(&mut self, token: &str) -> bool {
        self.skip();
        self.rest().starts_with(token)
    }

    pub fn accept(&mut self, token: &str) -> bool {
        let found = self.peek(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.accept(token) { Ok(()) } else { Err(self.error(format!("`{token}` is expected"))) }
    }

    /// `word`, unless it is the beginning of a longer one.
    pub fn accept_word(&mut self, word: &str) -> bool {
        self.skip();
        let found = self.run(is_name) == word;
        if found {
            self.at += word.len();
        }
        found
    }

    pub fn word(&mut self, word: &str) -> Parsed<()> {
        if self.accept_word(word) {
            Ok(())
        } else {
            Err(self.error(format!("`{word}` is expected")))
        }
    }

    /// A word that does not start with a digit.
    pub fn identifier(&mut self) -> Parsed<&'t str> {
        self.skip();
        let word = self.run(is_name);
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error("a word is expected"));
        }
        self.at += word.len();
        Ok(word)
    }

    /// A name from outside, plain or quoted.
    pub fn name(&mut self) -> Parsed<String> {
        self.skip();
        if self.peek("\"") {
            return self.quoted();
        }
        let word = self.run(is_name);
        if word.is_empty() {
            return Err(self.error("a name is expected"));
        }
        self.at += word.len();
        Ok(word.to_string())
    }

    fn quoted(&mut self) -> Parsed<String> {
        let start = self.at;
        let mut chars = self.rest().char_indices().skip(1);
        let mut name = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + at + 1;
                    return Ok(name);
                }
                '\\' => {
                    let escaped = chars.next().map(|(_, c)| c);
                    let digits: String = match escaped {
                        Some('u') => {
                            chars.by_ref().map(|(_, c)| c).take_while(|&c| c != '}').collect()
                        }
                        _ => String::new(),
                    };
                    let Some(c) = escaped.and_then(|e| unescape(e, &digits)) else {
                        return Err(self.error_at(start + at, "an unknown escape"));
                    };
                    name.push(c);
                }
                c => name.push(c),
            }
        }
        Err(self.error_at(start, "the name has no closing quote"))
    }

    pub fn count(&mut self) -> Parsed<u32> {
        let digits = self.digits()?;
        let parsed = digits.parse();
        parsed.map_err(|_| self.error(format!("{digits} is too large")))
    }

    /// A whole number without sign, if one follows.
    pub fn accept_integer(&mut self) -> Parsed<Option<i64>> {
        self.skip();
        if !self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(None);
        }
        let digits = self.digits()?;
        let parsed = digits.parse().map(Some);
        parsed.map_err(|_| self.error(format!("{digits} is too large")))
    }

    pub fn hex(&mut self) -> Parsed<u64> {
        self.expect("0x")?;
        let digits = self.run(|c| c.is_ascii_hexdigit());
        self.at += digits.len();
        u64::from_str_radix(digits, 16).map_err(|_| self.error("a hexadecimal number is expected"))
    }

    /// A constant: a number, `inf`, `NaN`, `true` or `false`.
    pub fn number(&mut self) -> Parsed<f64> {
        let number = self.accept_number()?;
        number.ok_or_else(|| self.error("a number is expected"))
    }

    /// A constant, if one follows.
    pub fn accept_number(&mut self) -> Parsed<Option<f64>> {
        self.skip();
        let word = self.run(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'));
        let value = match word {
            "true" => 1.0,
            "false" => 0.0,
            _ => match word.parse() {
                Ok(value) => value,
                Err(_) => return Ok(None),
            },
        };
        self.at += word.len();
        Ok(Some(value))
    }

    fn digits(&mut self) -> Parsed<&'t str> {
        self.skip();
        let digits = self.run(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(self.error("a whole number is expected"));
        }
        self.at += digits.len();
        Ok(digits)
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// The longest beginning of the rest that `keep` accepts.
    fn run(&self, keep: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        &rest[..rest.find(|c| !keep(c)).unwrap_or(rest.len())]
    }

    /// Passes white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn unescape(escape: char, digits: &str) -> Option<char> {
    Some(match escape {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        '"' | '\'' | '\\' => escape,
        'u' => char::from_u32(u32::from_str_radix(digits.strip_prefix('{')?, 16).ok()?)?,
        _ => return None,
    })
}
