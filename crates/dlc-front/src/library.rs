//! The standard library: `.dl` files compiled into the program, of which a unit parses only the
//! definitions it may refer to.

use std::ops::Range;
use std::sync::LazyLock;

use rustc_hash::{FxHashMap, FxHashSet};

/// The files of the library: their names in messages, and their text.
pub const FILES: [(&str, &str); 5] = [
    ("std/nn.dl", include_str!("std/nn.dl")),
    ("std/rnn.dl", include_str!("std/rnn.dl")),
    ("std/transformer.dl", include_str!("std/transformer.dl")),
    ("std/init.dl", include_str!("std/init.dl")),
    ("std/optim.dl", include_str!("std/optim.dl")),
];

/// A definition's place: the file, and its text up to the next definition.
type Place = (usize, Range<usize>);

static INDEX: LazyLock<FxHashMap<&'static str, Place>> = LazyLock::new(|| {
    let files = FILES.iter().enumerate();
    files
        .flat_map(|(file, (_, text))| definitions(text).map(move |(n, r)| (n, (file, r))))
        .collect()
});

/// The names that the library defines.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    INDEX.keys().copied()
}

/// The files that `text` can refer to, with all other definitions blanked out. Lines and columns stay.
pub(crate) fn used_by(text: &str) -> Vec<(&'static str, String)> {
    let mut used: FxHashSet<&'static str> = FxHashSet::default();
    let mut open: Vec<&'static str> = known(text).collect();
    while let Some(name) = open.pop() {
        if used.insert(name) {
            let (file, range) = &INDEX[name];
            let lines = FILES[*file].1[range.clone()].lines();
            open.extend(lines.flat_map(|line| known(without_comment(line))));
        }
    }
    let is_used = |file: &usize| used.iter().any(|name| INDEX[name].0 == *file);
    let files = (0..FILES.len()).filter(is_used);
    files.map(|file| (FILES[file].0, masked(file, &used))).collect()
}

fn masked(file: usize, used: &FxHashSet<&str>) -> String {
    let text = FILES[file].1;
    let mut masked = String::with_capacity(text.len());
    for (name, range) in definitions(text) {
        masked.push_str(&blank(&text[masked.len()..range.start]));
        match used.contains(name) {
            true => masked.push_str(&text[range]),
            false => masked.push_str(&blank(&text[range])),
        }
    }
    masked
}

/// Every byte but newlines becomes a space.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The definitions of a file in order. Each starts at a line's first column.
fn definitions(text: &'static str) -> impl Iterator<Item = (&'static str, Range<usize>)> {
    let starts = |at: usize| {
        let rest = &text[at..];
        let word = ["block ", "init ", "optimizer ", "schedule "]
            .into_iter()
            .find(|w| rest.starts_with(w))?;
        let name = words(&rest[word.len()..]).next()?;
        Some((name, at))
    };
    let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    let found: Vec<(&str, usize)> = lines.filter_map(starts).collect();
    let ends: Vec<usize> = found.iter().skip(1).map(|(_, at)| *at).chain([text.len()]).collect();
    found.into_iter().zip(ends).map(|((name, start), end)| (name, start..end))
}

/// The library's names among the words of a text.
fn known(text: &str) -> impl Iterator<Item = &'static str> {
    words(text).filter_map(|word| INDEX.get_key_value(word).map(|(name, _)| *name))
}

/// A line of the library, which has no `#` in strings.
fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_is_kept_and_stays_in_place() {
        let files = used_by("model M(x: f32[N]) { x |> relu }");
        let nn = &files[0].1;
        assert_eq!(nn.len(), FILES[0].1.len());
        assert_eq!(nn.lines().count(), FILES[0].1.lines().count());
        let at = nn.find("block relu").expect("relu is used");
        assert!(FILES[0].1[at..].starts_with("block relu"));
        assert!(!nn.contains("block conv"));
    }

    #[test]
    fn comments_use_nothing() {
        for (name, text) in FILES {
            let quotes = |line: &str| without_comment(line).matches('"').count();
            let is_cut = |line: &&str| !quotes(line).is_multiple_of(2);
            assert_eq!(text.lines().find(is_cut), None, "{name}: a `#` is in a string");
        }
        // The comment before the next definition speaks of others.
        let files = used_by("model M(x: f32[N, I]) { x |> linear(3) }");
        assert!(files[0].1.contains("block linear") && !files[0].1.contains("block conv("));
    }

    #[test]
    fn names_are_distinct() {
        let all = FILES.iter().map(|(_, text)| definitions(text).count()).sum::<usize>();
        assert_eq!(all, INDEX.len());
    }
}
