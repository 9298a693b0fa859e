//! Sequences with a class each, from a table: DNA, words, sentences.

use crate::data::text::{Words, encoded, padded, read};
use crate::data::{Dataset, Field, Parts};
use crate::{Error, FileProblem};
use dlc_kernel::Tensor;
use std::collections::BTreeSet;
use std::path::Path;

/// A line of a table.
struct Row<'t> {
    /// Counted from 1.
    line: usize,
    class: &'t str,
    sequence: &'t str,
}

/// A table of classes and sequences: the heading `class,sequence`, or the other way round, then a line
/// for each example.
/// Fields: `ids`, i32 `[T]`, the sequence filled up with the mark `<end>` (id 0); `length`, i32: its
/// length; `label`, i32: its class, counted as the vocabulary does, or else in alphabetical order. Defines `T`
/// (the longest sequence, or as given), `V`, the size of the vocabulary, and `K`, the number of classes.
///
/// # Errors
/// If the file is no such table, a sequence is longer than `length` allows, or a class is none of the vocabulary's.
pub fn sequences(path: &Path, length: Option<usize>, words: Words<'_>) -> Result<Parts, Error> {
    let text = read(path)?;
    let wrong = |problem| FileProblem::Content(problem).at(path);
    let rows = rows(&text).map_err(wrong)?;
    let mut vocabulary = words.vocabulary(rows.iter().map(|row| row.sequence), &["<end>"])?;
    if vocabulary.classes().is_empty() {
        let classes: BTreeSet<&str> = rows.iter().map(|row| row.class).collect();
        vocabulary = vocabulary.with_classes(classes.into_iter().map(str::to_owned).collect());
    }
    let label = |row: &Row<'_>| label(row, vocabulary.classes()).map_err(wrong);
    let labels = rows.iter().map(label).collect::<Result<Vec<_>, Error>>()?;
    let encode = |row: &Row<'_>| encoded(&vocabulary, row.sequence, path);
    let ids = rows.iter().map(encode).collect::<Result<Vec<_>, Error>>()?;
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    let length = length.unwrap_or(longest);
    if longest > length {
        return Err(wrong(format!("has a sequence of {longest} characters, T is {length}")));
    }
    let lengths = ids.iter().map(|ids| ids.len() as i32).collect();
    let data = Dataset::new(vec![
        Field::new("ids", padded(&ids, length)),
        Field::new("length", Tensor::i32([rows.len()], lengths)),
        Field::new("label", Tensor::i32([rows.len()], labels)),
    ])?;
    let sizes = vec![("T", length), ("V", vocabulary.len()), ("K", vocabulary.classes().len())];
    Ok(Parts { sizes, vocabulary: Some(vocabulary), ..Parts::of(data) })
}

/// What stands for the class of a row.
fn label(row: &Row<'_>, classes: &[String]) -> Result<i32, String> {
    let at = classes.iter().position(|class| class == row.class);
    at.map(|at| at as i32).ok_or_else(|| {
        let Row { line, class, .. } = row;
        format!("has the class `{class}` in line {line}: labels stand for {}", classes.join(", "))
    })
}

/// The rows below the heading.
fn rows(text: &str) -> Result<Vec<Row<'_>>, String> {
    let mut lines = text.lines().map(str::trim).enumerate();
    let heading = lines.next().map_or("", |(_, line)| line);
    let is_class_first = match columns(heading) {
        Some(("class", "sequence")) => true,
        Some(("sequence", "class")) => false,
        _ => return Err(format!("begins with {heading:?}, not with the heading `class,sequence`")),
    };
    let mut found = Vec::new();
    for (at, text) in lines.filter(|(_, text)| !text.is_empty()) {
        let line = at + 1;
        let columns = columns(text).map(|(a, b)| if is_class_first { (a, b) } else { (b, a) });
        let row = columns.filter(|(_, sequence)| !sequence.is_empty());
        let (class, sequence) = row.ok_or_else(|| {
            format!("has no class and sequence in line {line}: text, a comma, text without quotes")
        })?;
        found.push(Row { line, class, sequence });
    }
    match found.is_empty() {
        true => Err("has no example below its heading".into()),
        false => Ok(found),
    }
}

/// The two columns of a line, if it has two. Quotes are not taken apart.
fn columns(line: &str) -> Option<(&str, &str)> {
    let (first, second) = line.split_once(',').filter(|_| !line.contains('"'))?;
    (!second.contains(',')).then_some((first.trim(), second.trim()))
}
