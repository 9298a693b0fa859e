//! Sequences with a class each, from a table: DNA, words, sentences.

use crate::data::text::{Words, encoded, padded, read};
use crate::data::{Dataset, Field, Parts};
use crate::{Error, FileProblem};
use dlc_kernel::Tensor;
use std::collections::BTreeSet;
use std::path::Path;

/// A table of classes and sequences: the heading `class,sequence`, or the other way round, then a line
/// for each example.
/// Fields: `ids`, i32 `[T]`, the sequence filled up with the mark `<end>` (id 0); `length`, i32: its
/// length; `label`, i32: its class, counted in alphabetical order. Defines `T` (the longest
/// sequence, or as given), `V`, the size of the vocabulary, and `K`, the number of classes.
///
/// # Errors
/// If the file is no such table, or a sequence is longer than `length` allows.
pub fn sequences(path: &Path, length: Option<usize>, words: Words<'_>) -> Result<Parts, Error> {
    let text = read(path)?;
    let rows = rows(&text).map_err(|problem| FileProblem::Content(problem).at(path))?;
    let classes: BTreeSet<&str> = rows.iter().map(|row| row.0).collect();
    let vocabulary = words.vocabulary(rows.iter().map(|row| row.1), &["<end>"])?;
    let encode = |row: &(&str, &str)| encoded(&vocabulary, row.1, path);
    let ids = rows.iter().map(encode).collect::<Result<Vec<_>, Error>>()?;
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    let length = length.unwrap_or(longest);
    if longest > length {
        let problem = format!("has a sequence of {longest} characters, T is {length}");
        return Err(FileProblem::Content(problem).at(path));
    }
    let lengths = ids.iter().map(|ids| ids.len() as i32).collect();
    let label = |row: &(&str, &str)| classes.iter().position(|class| *class == row.0);
    let labels = rows.iter().map(|row| label(row).expect("it is a class") as i32).collect();
    let data = Dataset::new(vec![
        Field::new("ids", padded(&ids, length)),
        Field::new("length", Tensor::i32([rows.len()], lengths)),
        Field::new("label", Tensor::i32([rows.len()], labels)),
    ])?;
    let sizes = vec![("T", length), ("V", vocabulary.len()), ("K", classes.len())];
    Ok(Parts { sizes, vocabulary: Some(vocabulary), ..Parts::of(data) })
}

/// The classes and sequences below the heading.
fn rows(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut lines = text.lines().map(str::trim).enumerate();
    let heading = lines.next().map_or("", |(_, line)| line);
    let is_class_first = match columns(heading) {
        Some(("class", "sequence")) => true,
        Some(("sequence", "class")) => false,
        _ => return Err(format!("begins with {heading:?}, not with the heading `class,sequence`")),
    };
    let mut found = Vec::new();
    for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let columns = columns(line).map(|(a, b)| if is_class_first { (a, b) } else { (b, a) });
        let row = columns.filter(|(_, sequence)| !sequence.is_empty());
        found.push(row.ok_or_else(|| {
            let line = at + 1;
            format!("has no class and sequence in line {line}: text, a comma, text without quotes")
        })?);
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
