//! Tables that give tensors other names: how weights of other programs find their places.
//!
//! ```text
//! # of a file    = in the model
//! module.*       = *                 # `*` stands for any text, here that after the prefix
//! *.gamma        = *.weight
//! fc.weight      = linear1.weight
//! aux.*          =                   # left out
//! ```
//!
//! A name takes the first line that fits, once; one that no line fits stays as it is.

use crate::{Error, files};
use std::path::Path;

/// A table of new names for tensors; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renames(Vec<Rule>);

/// The texts between the stars of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    from: Vec<String>,
    /// `None` leaves the tensor out.
    to: Option<Vec<String>>,
}

impl Renames {
    /// Reads a table.
    ///
    /// # Errors
    /// If the file cannot be read, or a line of it is no rule; the line is named.
    pub fn read(path: &Path) -> Result<Renames, Error> {
        let text = String::from_utf8_lossy(&files::read(path)?).into_owned();
        let bad = |(line, message): (usize, String)| {
            Error::Usage(format!("`{}`, line {line}: {message}", path.display()))
        };
        Renames::parse(&text).map_err(bad)
    }

    /// Parses a table.
    ///
    /// # Errors
    /// The number of a line that is no rule, from 1, and why it is none.
    pub fn parse(text: &str) -> Result<Renames, (usize, String)> {
        let mut rules = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if !line.is_empty() {
                rules.push(Rule::parse(line).map_err(|message| (at + 1, message))?);
            }
        }
        Ok(Renames(rules))
    }

    /// The new name; `None` if the tensor is left out.
    pub fn apply(&self, name: &str) -> Option<String> {
        let mut fitting = self.0.iter().filter_map(|rule| Some((rule, rule.captures(name)?)));
        match fitting.next() {
            None => Some(name.to_owned()),
            Some((rule, captures)) => rule.to.as_ref().map(|to| fill(to, &captures)),
        }
    }
}

impl Rule {
    fn parse(line: &str) -> Result<Rule, String> {
        let (from, to) = line.split_once('=').ok_or("expected `NAME = NAME`")?;
        let (from, to) = (from.trim(), to.trim());
        if from.is_empty() || to.contains('=') {
            return Err("expected `NAME = NAME`".into());
        }
        let pieces = |text: &str| text.split('*').map(str::to_owned).collect::<Vec<_>>();
        let (from, to) = (pieces(from), (!to.is_empty()).then(|| pieces(to)));
        match &to {
            Some(to) if to.len() != from.len() => {
                Err(format!("{} `*` on the left, {} on the right", from.len() - 1, to.len() - 1))
            }
            _ => Ok(Rule { from, to }),
        }
    }

    /// What the stars stand for, each as little as possible but the last; `None` if the name does
    /// not fit.
    fn captures<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
        let (first, others) = self.from.split_first().expect("a text has a piece");
        let mut rest = name.strip_prefix(first.as_str())?;
        let Some((last, inner)) = others.split_last() else {
            return rest.is_empty().then(Vec::new);
        };
        let mut captures = Vec::new();
        for piece in inner {
            let (capture, after) = rest.split_once(piece.as_str())?;
            captures.push(capture);
            rest = after;
        }
        captures.push(rest.strip_suffix(last.as_str())?);
        Some(captures)
    }
}

fn fill(pieces: &[String], captures: &[&str]) -> String {
    let parts = pieces
        .iter()
        .enumerate()
        .flat_map(|(i, piece)| [piece.as_str(), captures.get(i).copied().unwrap_or("")]);
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fitting_line_counts_once() {
        let table = "
            # of a file = in the model
            module.fc.weight = linear1.weight   # before the prefix
            module.* = *
            *.bn*.gamma = *.norm*.weight
            aux.* =";
        let table = Renames::parse(table).unwrap();
        for (from, to) in [
            ("module.fc.weight", Some("linear1.weight")),
            ("module.module.fc.bias", Some("module.fc.bias")),
            ("layer.3.bn2.gamma", Some("layer.3.norm2.weight")),
            ("bn.gamma", Some("bn.gamma")),
            ("aux.conv.weight", None),
            ("auxiliary", Some("auxiliary")),
            ("", Some("")),
        ] {
            assert_eq!(table.apply(from).as_deref(), to, "{from}");
        }
        assert_eq!(Renames::default().apply("a*b").as_deref(), Some("a*b"));
    }

    #[test]
    fn a_line_that_is_no_rule_is_named() {
        let message = |text: &str| Renames::parse(text).unwrap_err();
        let form = "expected `NAME = NAME`";
        assert_eq!(message("a = b\n\nmodule.*"), (3, form.into()));
        assert_eq!(message("= b"), (1, form.into()));
        assert_eq!(message("a = b = c"), (1, form.into()));
        let stars = "2 `*` on the left, 1 on the right";
        assert_eq!(message("*.bn*.gamma = *.weight"), (1, stars.into()));
    }
}
