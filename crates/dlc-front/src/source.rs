//! Source files and places in them.
//!
//! Every text the front end reads (the user's file, the standard library) is added to one
//! [`Sources`] table; a [`Span`] names a byte range in one of its files. Lines and columns are
//! computed only when a person is to read them.

use std::ops::Range;
use std::sync::Arc;

use crate::code::Code;
use crate::diagnostic::Diagnostic;

/// The largest source file accepted, in bytes.
pub const MAX_SOURCE_BYTES: usize = 16 << 20;

/// A file in a [`Sources`] table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A byte range in a source file. `start <= end`, both on character boundaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

const _: () = assert!(size_of::<Span>() == 12);

impl Span {
    /// The bytes `range` of `file`.
    ///
    /// # Panics
    /// If the range lies beyond 4 GiB, which [`MAX_SOURCE_BYTES`] rules out.
    #[must_use]
    pub fn new(file: FileId, range: Range<usize>) -> Self {
        let byte = |n: usize| u32::try_from(n).expect("sources are smaller than 4 GiB");
        Span { file, start: byte(range.start), end: byte(range.end) }
    }

    /// The byte range.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The smallest span that covers `self` and `other`; both lie in one file.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        debug_assert_eq!(self.file, other.file, "a span lies in one file");
        Span { end: self.end.max(other.end), start: self.start.min(other.start), ..self }
    }
}

/// A place as people count it: both numbers start at 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineCol {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One source text with its name.
#[derive(Clone, Debug)]
pub struct SourceFile {
    name: String,
    text: Arc<str>,
    line_starts: Vec<u32>,
}

impl SourceFile {
    fn new(name: String, text: Arc<str>) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(after_newlines.map(|(at, _)| u32::try_from(at + 1).expect("checked size")))
            .collect();
        SourceFile { name, text, line_starts }
    }

    /// The path or name shown to people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, shared.
    #[must_use]
    pub fn shared_text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// Line and column of byte `at`, which is clamped to the text and to a character boundary.
    #[must_use]
    pub fn line_col(&self, at: usize) -> LineCol {
        let at = self.text.floor_char_boundary(at);
        let line = self.line_starts.partition_point(|start| *start as usize <= at);
        let start = self.line_starts[line - 1] as usize;
        LineCol { line, column: self.text[start..at].chars().count() + 1 }
    }

    /// The byte range of the given line (counted from 1), its newline included; lines beyond the
    /// last are empty.
    #[must_use]
    pub fn line_range(&self, line: usize) -> Range<usize> {
        let start =
            |line: usize| self.line_starts.get(line).map_or(self.text.len(), |s| *s as usize);
        start(line - 1)..start(line)
    }
}

/// All source texts of one compilation.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

impl Sources {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text that is known to be valid and small (the standard library, a test).
    ///
    /// # Panics
    /// If the text is larger than 4 GiB. Use [`Sources::add_bytes`] for what a user supplies.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).expect("fewer than 2^32 files"));
        self.files.push(SourceFile::new(name.into(), text.into()));
        id
    }

    /// Adds a file's bytes as read from disk.
    ///
    /// # Errors
    /// If there are more than [`MAX_SOURCE_BYTES`] or they are not UTF-8. The file is then in the
    /// table all the same, as far as it can be shown, so that the diagnostic can be rendered.
    pub fn add_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<FileId, Box<Diagnostic>> {
        if bytes.len() > MAX_SOURCE_BYTES {
            let file = self.add(name, "");
            return Err(Box::new(too_large(file, bytes.len())));
        }
        match str::from_utf8(bytes) {
            Ok(text) => Ok(self.add(name, text)),
            Err(error) => {
                let file = self.add(name, String::from_utf8_lossy(bytes).into_owned());
                Err(Box::new(not_utf8(file, bytes, error.valid_up_to())))
            }
        }
    }

    /// The file with this id.
    ///
    /// # Panics
    /// If the id comes from another table.
    #[must_use]
    pub fn file(&self, id: FileId) -> &SourceFile {
        self.files.get(id.0 as usize).expect("a file id belongs to the table that issued it")
    }

    /// The text under a span.
    #[must_use]
    pub fn text(&self, span: Span) -> &str {
        &self.file(span.file).text[span.range()]
    }

    /// `name:line:column` of a span's start.
    #[must_use]
    pub fn place(&self, span: Span) -> String {
        let file = self.file(span.file);
        let LineCol { line, column } = file.line_col(span.start as usize);
        format!("{}:{line}:{column}", file.name)
    }
}

fn too_large(file: FileId, bytes: usize) -> Diagnostic {
    let title = format!("the file has {bytes} bytes; the limit is {MAX_SOURCE_BYTES} (16 MiB)");
    Diagnostic::error(Code::SourceTooLarge, title, Span::new(file, 0..0), "")
        .help("a model's text is small; are these weights or data?")
}

fn not_utf8(file: FileId, bytes: &[u8], valid: usize) -> Diagnostic {
    let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    // Up to `valid` the lossy text equals the bytes; there it has U+FFFD, three bytes long.
    let span = Span::new(file, valid..valid + '\u{FFFD}'.len_utf8());
    let label = format!("byte 0x{:02X} is part of no UTF-8 character", bytes[valid]);
    let help = match utf16 {
        true => "this looks like UTF-16; save it as UTF-8",
        false => {
            "save the file as UTF-8; if these are weights or data, they are not a model's text"
        }
    };
    Diagnostic::error(Code::NotUtf8, "the file is not valid UTF-8", span, label).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let mut sources = Sources::new();
        let id = sources.add("a.dl", "ab\nλx\r\n");
        let file = sources.file(id);
        assert_eq!(file.line_col(0), LineCol { line: 1, column: 1 });
        assert_eq!(file.line_col(5), LineCol { line: 2, column: 2 });
        assert_eq!(file.line_col(99), LineCol { line: 3, column: 1 });
        assert_eq!(&file.text()[file.line_range(2)], "λx\r\n");
        assert_eq!(file.line_range(7), 8..8);
        assert_eq!(sources.place(Span::new(id, 3..5)), "a.dl:2:1");
    }

    #[test]
    fn spans_join() {
        let span = |range| Span::new(FileId(0), range);
        assert_eq!(span(3..5).to(span(1..4)), span(1..5));
    }
}
