//! Text as sequences of ids: windows of one long text, lines, and pairs of lines.

use crate::data::vocabulary::{END, Unit, Vocabulary};
use crate::data::{Dataset, Field, Parts};
use crate::{Error, FileProblem, files};
use dlc_kernel::Tensor;
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::Path;

/// What ids stand for.
#[derive(Clone, Copy, Debug)]
pub enum Words<'a> {
    /// Units that are learned from the text.
    Learned(Unit),
    /// Those of another text.
    Known(&'a Vocabulary),
}

/// How a long text is cut.
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    /// Ids of a window.
    pub length: usize,
    /// From one training window to the next.
    pub stride: usize,
    /// The units of the text.
    pub words: Words<'a>,
}

/// The most bytes that are read of one text: 4 GiB.
const MAX_BYTES: u64 = 1 << 32;
/// One part of the data is for validation, out of so many.
const VALIDATION: usize = 10;

/// Windows of a text. Fields: `ids` and `next`, i32, a sample is `[T]`; `next` is one further. The
/// last tenth of the text is for validation, in windows that do not overlap. Defines `T` and `V`,
/// the size of the vocabulary.
///
/// # Errors
/// If the file is no text, or too short for one window in either part.
pub fn windows(path: &Path, how: &Windows<'_>) -> Result<Parts, Error> {
    let Windows { length, stride, words } = *how;
    if length == 0 || stride == 0 {
        return Err(Error::Usage("a window has at least one id, and so has a stride".into()));
    }
    let text = read(path)?;
    let vocabulary = words.vocabulary([text.as_str()].into_iter(), &[])?;
    let ids = encoded(&vocabulary, &text, path)?;
    let (train, validation) = ids.split_at(ids.len() - ids.len() / VALIDATION);
    if validation.len() <= length {
        return Err(
            FileProblem::Short { units: ids.len(), needed: (length + 1) * VALIDATION }.at(path)
        );
    }
    Ok(Parts {
        train: windows_of(train, length, stride)?,
        validation: Some(windows_of(validation, length, length)?),
        test: None,
        sizes: vec![("T", length), ("V", vocabulary.len())],
        cut: &[],
        vocabulary: Some(vocabulary),
    })
}

impl Words<'_> {
    /// What ids of these texts stand for; their ends are `marks`.
    ///
    /// # Errors
    /// If a byte-pair encoding cannot be learned, or what is known has no marks.
    pub(super) fn vocabulary<'t>(
        self,
        texts: impl Iterator<Item = &'t str> + Clone,
        marks: &[&str],
    ) -> Result<Vocabulary, Error> {
        match self {
            Words::Learned(unit) => Vocabulary::of(texts, unit, marks),
            Words::Known(vocabulary) if marks.is_empty() || vocabulary.has_end() => {
                Ok(vocabulary.clone())
            }
            Words::Known(_) => {
                Err(Error::Usage("the vocabulary has no mark that ends a line".into()))
            }
        }
    }
}

/// The ids of a text of that file.
///
/// # Errors
/// If the vocabulary lacks a character.
pub(super) fn encoded(vocabulary: &Vocabulary, text: &str, path: &Path) -> Result<Vec<i32>, Error> {
    let lacks = |error: Error| FileProblem::Content(format!("does not fit: {error}")).at(path);
    vocabulary.encode(text).map_err(lacks)
}

fn windows_of(ids: &[i32], length: usize, stride: usize) -> Result<Dataset, Error> {
    let count = (ids.len() - 1 - length) / stride + 1;
    let stream = Tensor::i32([ids.len()], ids.to_vec());
    let field =
        |name: &str, first| Field::windows(name, stream.clone(), first, stride, length, count);
    Dataset::new(vec![field("ids", 0), field("next", 1)])
}

/// The lines of a text, an example each; empty ones are left out. Fields: `ids`, i32 `[T]`: the
/// mark `<end>` (id 0), then the line; `next`, i32 `[T]`: the line, then the mark; both are filled
/// up with marks. `mask`, f32 `[T]`: 1 where `next` belongs to the line. `length`, i32: how many
/// these are. Defines `T` (the longest line and its mark, or as given) and `V`. With `bucket`,
/// batches hold lines of similar length, filled up to a multiple of it.
///
/// # Errors
/// If the file is no text, has no line, or one that is longer than `length` allows.
pub fn lines(
    path: &Path,
    length: Option<usize>,
    bucket: Option<usize>,
    words: Words<'_>,
) -> Result<Parts, Error> {
    let text = read(path)?;
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    if lines.is_empty() {
        return Err(FileProblem::Content("has no line with text".into()).at(path));
    }
    let vocabulary = words.vocabulary(lines.iter().copied(), &["<end>"])?;
    let encode = |line: &&str| encoded(&vocabulary, line, path);
    let sequences = lines.iter().map(encode).collect::<Result<Vec<_>, Error>>()?;
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0) + 1;
    let length = length.unwrap_or(longest);
    if longest > length {
        let line = sequences.iter().position(|ids| ids.len() + 1 == longest).unwrap_or(0);
        let problem = format!(
            "has the line {:?} of {} units and an end, T is {length}",
            shorten(lines[line]),
            longest - 1
        );
        return Err(FileProblem::Content(problem).at(path));
    }
    let sizes = vec![("T", length), ("V", vocabulary.len())];
    let lengths = sequences.iter().map(|ids| ids.len() + 1);
    let data = in_buckets(Dataset::new(decoder_fields(&sequences, length))?, lengths, bucket);
    Ok(Parts { sizes, cut: &["T"], vocabulary: Some(vocabulary), ..Parts::of(data) })
}

fn in_buckets(
    data: Dataset,
    lengths: impl Iterator<Item = usize>,
    bucket: Option<usize>,
) -> Dataset {
    match bucket {
        Some(unit) => data.with_lengths(lengths, unit),
        None => data,
    }
}

/// `ids`, `next`, `mask` and `length` of sequences that begin and end with the mark.
fn decoder_fields(sequences: &[Vec<i32>], length: usize) -> Vec<Field> {
    let shape = [sequences.len(), length];
    let begun: Vec<Vec<i32>> = sequences.iter().map(|s| [&[END], s.as_slice()].concat()).collect();
    let mask = |s: &Vec<i32>| (0..length).map(|t| f32::from(t <= s.len())).collect::<Vec<f32>>();
    let mask = Tensor::f32(shape, sequences.iter().flat_map(mask).collect());
    let lengths = sequences.iter().map(|s| s.len() as i32 + 1).collect();
    vec![
        Field::sequences("ids", padded(&begun, length)),
        Field::sequences("next", padded(sequences, length)),
        Field::sequences("mask", mask),
        Field::new("length", Tensor::i32([sequences.len()], lengths)),
    ]
}

/// Sequences filled up with marks to `length`.
pub(super) fn padded(sequences: &[Vec<i32>], length: usize) -> Tensor {
    let row = |s: &Vec<i32>| {
        let marks = std::iter::repeat(END);
        s.iter().copied().chain(marks).take(length).collect::<Vec<i32>>()
    };
    Tensor::i32([sequences.len(), length], sequences.iter().flat_map(row).collect())
}

/// How pairs of lines become samples.
#[derive(Clone, Copy, Debug)]
pub struct Pairing<'a> {
    /// Ids of a source, its end included; the longest if `None`.
    pub source: Option<usize>,
    /// Ids of a target, its end included; the longest if `None`.
    pub target: Option<usize>,
    /// Batches hold pairs of similar length, both filled up to the same multiple of this.
    pub bucket: Option<usize>,
    /// The units of both languages.
    pub words: Words<'a>,
    /// Whether both share one vocabulary, where it is learned.
    pub joint: bool,
}

impl Pairing<'_> {
    /// The vocabulary of these lines.
    fn vocabulary(&self, from: &[&str], to: &[&str]) -> Result<Vocabulary, Error> {
        let of = |lines: &[&str]| self.words.vocabulary(lines.iter().copied(), &["<end>"]);
        match self.words {
            Words::Learned(_) if !self.joint => Ok(of(to)?.with_source(of(from)?)),
            _ => of(&[from, to].concat()),
        }
    }
}

/// Lines of two files that belong together. Fields: `source`, i32 `[S]`: the line and its end,
/// filled up with ends; `source_length`, i32: how many ids these are; and `ids`, `next`, `mask`,
/// `length` of the target, as [`lines`] has them. Pairs that are longer than `S` or `T` are left
/// out. Defines `S`, `T` and `V`, the size of the vocabulary, and `U`, that of the sources', if it is
/// another one.
///
/// # Errors
/// If a file is no text, the numbers of lines differ, or no pair is left.
pub fn pairs(source: &Path, target: &Path, how: &Pairing<'_>) -> Result<Parts, Error> {
    let (left, right) = (read(source)?, read(target)?);
    let (from, to): (Vec<&str>, Vec<&str>) = (left.lines().collect(), right.lines().collect());
    if from.len() != to.len() {
        let (expected, found) = (from.len(), to.len());
        return Err(FileProblem::Lines { expected, found, other: source.into() }.at(target));
    }
    let vocabulary = how.vocabulary(&from, &to)?;
    let encode = |words: &Vocabulary, lines: &[&str], path: &Path| {
        lines.iter().map(|line| encoded(words, line.trim(), path)).collect::<Result<Vec<_>, _>>()
    };
    let from = encode(vocabulary.of_sources(), &from, source)?;
    let pairs = from.into_iter().zip(encode(&vocabulary, &to, target)?);
    let fits = |ids: &[i32], most: Option<usize>| {
        !ids.is_empty() && most.is_none_or(|most| ids.len() < most)
    };
    let (from, to): (Vec<_>, Vec<_>) =
        pairs.filter(|(s, t)| fits(s, how.source) && fits(t, how.target)).unzip();
    if from.is_empty() {
        let problem =
            format!("has no line within S whose pair in `{}` is within T", target.display());
        return Err(FileProblem::Content(problem).at(source));
    }
    let longest = |all: &[Vec<i32>]| all.iter().map(Vec::len).max().unwrap_or(0) + 1;
    let (s, t) =
        (how.source.unwrap_or_else(|| longest(&from)), how.target.unwrap_or_else(|| longest(&to)));
    let mut fields = source_fields(&from, s);
    fields.extend(decoder_fields(&to, t));
    let mut sizes = vec![("S", s), ("T", t), ("V", vocabulary.len())];
    sizes.extend(vocabulary.source_size().map(|size| ("U", size)));
    let lengths = from.iter().zip(&to).map(|(s, t)| s.len().max(t.len()) + 1);
    let data = in_buckets(Dataset::new(fields)?, lengths, how.bucket);
    Ok(Parts { sizes, cut: &["S", "T"], vocabulary: Some(vocabulary), ..Parts::of(data) })
}

fn source_fields(sequences: &[Vec<i32>], length: usize) -> Vec<Field> {
    let row = |s: &Vec<i32>| {
        s.iter().copied().chain(std::iter::repeat(END)).take(length).collect::<Vec<i32>>()
    };
    let ids = sequences.iter().flat_map(row).collect();
    let lengths = sequences.iter().map(|s| s.len() as i32 + 1).collect();
    vec![
        Field::sequences("source", Tensor::i32([sequences.len(), length], ids)),
        Field::new("source_length", Tensor::i32([sequences.len()], lengths)),
    ]
}

/// The text of a file, which may be gzipped; line ends become `\n`, a byte order mark is dropped.
///
/// # Errors
/// If it cannot be read, or is no text in UTF-8.
pub fn read(path: &Path) -> Result<String, Error> {
    let bytes = unpacked(path)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
        match crate::Foreign::detect(&bytes[..bytes.len().min(64)]) {
            Some(found) => {
                let bytes = bytes.len() as u64;
                FileProblem::Foreign { found, expected: "a text", bytes }.at(path)
            }
            None => FileProblem::NotText { at }.at(path),
        }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(if text.contains('\r') { text.replace("\r\n", "\n") } else { text.to_owned() })
}

/// The bytes of a file, unpacked if it is gzipped.
pub(crate) fn unpacked(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = files::read(path)?;
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(
            files::unexpected(&bytes[..64.min(bytes.len())], "a text", bytes.len() as u64).at(path)
        );
    }
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut out = Vec::new();
    let read = GzDecoder::new(bytes.as_slice()).take(MAX_BYTES + 1).read_to_end(&mut out);
    read.map_err(|e| FileProblem::Damaged(e.to_string()).at(path))?;
    if out.len() as u64 > MAX_BYTES {
        let problem = format!("unpacks to more than {MAX_BYTES} bytes");
        return Err(FileProblem::Content(problem).at(path));
    }
    Ok(out)
}

fn shorten(line: &str) -> String {
    line.chars().take(40).collect()
}
