//! IDX files, raw or gzipped: a four-byte magic number (0, 0, type, rank), big-endian extents,
//! then the elements. Only unsigned bytes are read, as in MNIST and its relatives.

use crate::files;
use crate::{Error, FileProblem};
use flate2::read::GzDecoder;
use std::io::{self, Read};
use std::path::Path;

/// The contents of an IDX file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Extents.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub bytes: Vec<u8>,
}

/// The most elements that are read: 8 GiB.
const MAX_ELEMENTS: u64 = 1 << 33;
/// More than the longest header, and enough to recognize other kinds of files.
const HEAD: u64 = 64;
const EXPECTED: &str = "an IDX file";

/// Reads an IDX file of that rank; `role` says in messages what it is for (`images`, `labels`).
///
/// # Errors
/// If the file is anything but a whole IDX file of unsigned bytes with `rank` extents.
pub fn read(path: &Path, role: &'static str, rank: usize) -> Result<Idx, Error> {
    let (mut file, size) = files::open(path)?;
    let mut magic = Vec::new();
    let unreadable = |e| FileProblem::Unreadable(e).at(path);
    (&mut file).take(2).read_to_end(&mut magic).map_err(unreadable)?;
    let zipped = magic == [0x1f, 0x8b];
    let reader = io::Cursor::new(magic).chain(io::BufReader::new(file));
    let parsed = if zipped {
        parse(&mut GzDecoder::new(reader), role, rank, None, size)
    } else {
        parse(&mut { reader }, role, rank, Some(size), size)
    };
    parsed.map_err(|problem| problem.at(path))
}

/// `total` is the number of bytes `reader` gives, where known; `size` that of the file.
fn parse(
    reader: &mut dyn Read,
    role: &'static str,
    rank: usize,
    total: Option<u64>,
    size: u64,
) -> Result<Idx, FileProblem> {
    let mut head = Vec::new();
    read_up_to(reader, HEAD, &mut head)?;
    let header = 4 + 4 * rank;
    check_magic(&head, role, rank, size)?;
    if head.len() < header {
        let (expected, found) = (header as u64, head.len() as u64);
        return Err(FileProblem::Truncated { expected, found });
    }
    let words = head[4..header].chunks_exact(4).map(|w| [w[0], w[1], w[2], w[3]]);
    let swapped: Vec<u32> = words.clone().map(u32::from_le_bytes).collect();
    let shape: Vec<u32> = words.map(u32::from_be_bytes).collect();
    let elements = count(&shape).filter(|&n| n <= MAX_ELEMENTS);
    let little = count(&swapped).is_some_and(|n| Some(n + header as u64) == total);
    let Some(elements) = elements else {
        return Err(if little { FileProblem::Endianness } else { too_many(&shape) });
    };
    let expected = header as u64 + elements;
    let mut bytes = head.split_off(header);
    read_up_to(reader, (elements + 1).saturating_sub(bytes.len() as u64), &mut bytes)?;
    let found = total.unwrap_or(header as u64 + bytes.len() as u64);
    if found < expected {
        return Err(if little {
            FileProblem::Endianness
        } else {
            FileProblem::Truncated { expected, found }
        });
    }
    if found > expected {
        return Err(FileProblem::Trailing { expected, found });
    }
    Ok(Idx { shape: shape.into_iter().map(|d| d as usize).collect(), bytes })
}

fn check_magic(
    head: &[u8],
    role: &'static str,
    expected: usize,
    size: u64,
) -> Result<(), FileProblem> {
    match *head {
        [0, 0, 0x08, found, ..] if usize::from(found) == expected => Ok(()),
        [0, 0, 0x08, found, ..] => {
            Err(FileProblem::Rank { role, expected, found: usize::from(found) })
        }
        [0, 0, code @ (0x09 | 0x0b..=0x0e), 1..=8, ..] => {
            let names = ["i8", "", "i16", "i32", "f32", "f64"];
            let found = names[usize::from(code - 9)].to_owned();
            Err(FileProblem::Type { found, expected: "unsigned bytes are read (type 8)" })
        }
        [1..=8, 0x08, 0, 0, ..] => Err(FileProblem::Endianness),
        [] => Err(FileProblem::Truncated { expected: 4 + 4 * expected as u64, found: 0 }),
        _ => Err(files::unexpected(head, EXPECTED, size)),
    }
}

fn count(shape: &[u32]) -> Option<u64> {
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d.into()))
}

fn too_many(shape: &[u32]) -> FileProblem {
    let extents: Vec<String> = shape.iter().map(u32::to_string).collect();
    let product = extents.join(" x ");
    FileProblem::Header(format!("{product} elements exceed the limit of {MAX_ELEMENTS}"))
}

/// Appends at most `limit` bytes. The end of a cut-off gzip stream counts as the end.
fn read_up_to(reader: &mut dyn Read, limit: u64, into: &mut Vec<u8>) -> Result<(), FileProblem> {
    match reader.take(limit).read_to_end(into) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Err(FileProblem::Damaged(e.to_string()))
        }
        Err(e) => Err(FileProblem::Unreadable(e)),
    }
}
