//! NumPy's `.npy` files (format 1 to 3) and, through [`read_npz`] and [`write_npz`], its `.npz`.
//!
//! Read are f32, f64, i32, i64, u8 and bool, in either byte order, in C or Fortran order; written
//! is C order, little-endian, format 1.

pub use crate::npy_text::show;
pub use crate::npz::{read_npz, write_npz};

use crate::safe::{bytes_of, words};
use crate::{Error, FileProblem, files};
use dlc_kernel::{DType, Data, Tensor};
use std::io::{self, Read};
use std::path::Path;

const EXPECTED: &str = "a NumPy array (.npy)";
const MAGIC: &[u8; 6] = b"\x93NUMPY";
const MAX_HEADER: u32 = 1 << 20;
const MAX_RANK: usize = 8;
const MAX_BYTES: u64 = 1 << 40;

/// Reads an array.
///
/// # Errors
/// If the file is anything but a whole `.npy` file of a type that is read.
pub fn read(path: &Path) -> Result<Tensor, Error> {
    let (file, size) = files::open(path)?;
    let mut reader = io::BufReader::new(file);
    parse(&mut reader, Some(size)).map_err(|problem| problem.at(path))
}

/// Writes an array, atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), Error> {
    files::write_atomic(path, &encode(tensor))
}

/// Reads what a command line names: `NAME=FILE.npy`, `NAME=FILE.npz` (the array of that name in
/// it), `FILE.npy` (named after the file) or `FILE.npz` (all its arrays).
///
/// # Errors
/// If a file cannot be read, or a name comes twice.
pub fn read_inputs(arguments: &[String]) -> Result<Vec<(String, Tensor)>, Error> {
    let mut inputs: Vec<(String, Tensor)> = Vec::new();
    for argument in arguments {
        for (name, tensor) in read_argument(argument)? {
            if inputs.iter().any(|(n, _)| *n == name) {
                return Err(Error::Usage(format!("input `{name}` is given twice")));
            }
            inputs.push((name, tensor));
        }
    }
    Ok(inputs)
}

fn read_argument(argument: &str) -> Result<Vec<(String, Tensor)>, Error> {
    let named = argument.split_once('=').filter(|_| !Path::new(argument).exists());
    let path = Path::new(named.map_or(argument, |(_, path)| path));
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        let stem = || path.file_stem().map(|s| s.to_string_lossy().into_owned());
        let name = named.map(|(name, _)| name.to_owned()).or_else(stem).unwrap_or_default();
        return Ok(vec![(name, read(path)?)]);
    }
    let mut arrays = read_npz(path)?;
    if let Some((name, _)) = named {
        let names: Vec<String> = arrays.iter().map(|(n, _)| n.clone()).collect();
        arrays.retain(|(n, _)| n == name);
        if arrays.is_empty() {
            let (path, names) = (path.display(), names.join(", "));
            return Err(Error::Usage(format!("`{path}` has no array `{name}`; it has: {names}")));
        }
    }
    Ok(arrays)
}

/// What the header of an array says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    dtype: DType,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

/// Reads an array; `total` is the number of bytes `reader` gives, where known.
pub(crate) fn parse(reader: &mut dyn Read, total: Option<u64>) -> Result<Tensor, FileProblem> {
    let mut head = Vec::new();
    read_up_to(reader, 10, &mut head)?;
    let found = total.unwrap_or(head.len() as u64);
    if !head.starts_with(&MAGIC[..head.len().min(6)]) {
        read_up_to(reader, 54, &mut head)?;
        return Err(files::unexpected(&head, EXPECTED, found));
    }
    let short = |expected| FileProblem::Truncated { expected, found };
    let &[_, _, _, _, _, _, version, _, low, high] = &head[..] else { return Err(short(10)) };
    let mut start = 10;
    let length = match version {
        1 => u16::from_le_bytes([low, high]).into(),
        2 | 3 => {
            read_up_to(reader, 2, &mut head)?;
            start = 12;
            let words = head.get(8..12).ok_or_else(|| short(12))?;
            u32::from_le_bytes([words[0], words[1], words[2], words[3]])
        }
        _ => return Err(bad(format!("format version {version} is not known"))),
    };
    if length > MAX_HEADER {
        return Err(bad(format!("{length} bytes of header exceed the limit of {MAX_HEADER}")));
    }
    let mut text = Vec::new();
    read_up_to(reader, length.into(), &mut text)?;
    start += u64::from(length);
    if text.len() < length as usize {
        return Err(short(start));
    }
    let header = parse_header(&String::from_utf8_lossy(&text))?;
    read_elements(reader, header, start, total)
}

fn read_elements(
    reader: &mut dyn Read,
    header: Header,
    start: u64,
    total: Option<u64>,
) -> Result<Tensor, FileProblem> {
    let sizes = header.shape.iter().map(|&d| d as u64);
    let needed = sizes.chain([header.dtype.bytes() as u64]).try_fold(1u64, u64::checked_mul);
    let needed = needed.filter(|&n| n <= MAX_BYTES).ok_or_else(|| {
        bad(format!("an array of shape {:?} exceeds the limit of {MAX_BYTES} bytes", header.shape))
    })?;
    let mut bytes = Vec::new();
    read_up_to(reader, needed + 1, &mut bytes)?;
    let (expected, found) = (start + needed, total.unwrap_or(start + bytes.len() as u64));
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => return Err(FileProblem::Truncated { expected, found }),
        std::cmp::Ordering::Greater => return Err(FileProblem::Trailing { expected, found }),
        std::cmp::Ordering::Equal => {}
    }
    if header.big_endian {
        bytes.chunks_exact_mut(header.dtype.bytes()).for_each(<[u8]>::reverse);
    }
    if header.fortran && header.shape.len() > 1 {
        bytes = to_c_order(&bytes, &header.shape, header.dtype.bytes());
    }
    Ok(Tensor::new(header.shape, elements(header.dtype, bytes)))
}

fn elements(dtype: DType, bytes: Vec<u8>) -> Data {
    match dtype {
        DType::F32 => Data::F32(words(&bytes, f32::from_le_bytes)),
        DType::F64 => Data::F64(words(&bytes, f64::from_le_bytes)),
        DType::I64 => Data::I64(words(&bytes, i64::from_le_bytes)),
        DType::I32 => Data::I32(words(&bytes, i32::from_le_bytes)),
        DType::Bool => Data::Bool(bytes.into_iter().map(|b| u8::from(b != 0)).collect()),
        _ => Data::U8(bytes),
    }
}

/// Reorders elements whose first axis runs fastest.
fn to_c_order(bytes: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let mut ordered = Vec::with_capacity(bytes.len());
    let mut strides = vec![1; shape.len()];
    (1..shape.len()).for_each(|i| strides[i] = strides[i - 1] * shape[i - 1]);
    for c_index in 0..bytes.len() / width {
        let mut rest = c_index;
        let mut position = 0;
        for (extent, stride) in shape.iter().zip(&strides).rev() {
            position += rest % extent * stride;
            rest /= extent;
        }
        ordered.extend_from_slice(&bytes[position * width..][..width]);
    }
    ordered
}

/// The bytes of a `.npy` file.
pub(crate) fn encode(tensor: &Tensor) -> Vec<u8> {
    let descr = match tensor.data {
        Data::F32(_) => "<f4",
        Data::F64(_) => "<f8",
        Data::I64(_) => "<i8",
        Data::I32(_) => "<i4",
        Data::U8(_) => "|u1",
        Data::Bool(_) => "|b1",
    };
    let extents: Vec<String> = tensor.shape.iter().map(|d| format!("{d},")).collect();
    let shape = extents.join(" ");
    let shape = if tensor.shape.len() > 1 { shape.trim_end_matches(',') } else { &shape };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', padded - 1 - text.len()));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a header of at most 8 extents is short");
    [MAGIC, &[1, 0][..], &length.to_le_bytes(), text.as_bytes(), &bytes_of(&tensor.data)].concat()
}

/// Parses the Python dictionary that is an array's header.
fn parse_header(text: &str) -> Result<Header, FileProblem> {
    let (mut dtype, mut fortran, mut shape) = (None, None, None);
    let mut rest = eat(text, '{')?;
    loop {
        rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix('}') {
            if !end.trim().is_empty() {
                return Err(bad("text after its dictionary".into()));
            }
            break;
        }
        let (key, after) = quoted(rest)?;
        rest = eat(after, ':')?.trim_start();
        rest = match key {
            "descr" => {
                let (value, after) = descr(rest)?;
                dtype = Some(value);
                after
            }
            "fortran_order" => {
                let (value, after) = boolean(rest)?;
                fortran = Some(value);
                after
            }
            "shape" => {
                let (value, after) = extents(rest)?;
                shape = Some(value);
                after
            }
            _ => return Err(bad(format!("key `{}` is not known", key.escape_debug()))),
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    let lacking = |key: &str| bad(format!("`{key}` is missing"));
    let (dtype, big_endian) = dtype.ok_or_else(|| lacking("descr"))?;
    let fortran = fortran.ok_or_else(|| lacking("fortran_order"))?;
    Ok(Header { dtype, big_endian, fortran, shape: shape.ok_or_else(|| lacking("shape"))? })
}

/// The element type and whether it is big-endian.
fn descr(text: &str) -> Result<((DType, bool), &str), FileProblem> {
    let expected = "f32, f64, i32, i64, u8 and bool are read; convert with .astype(numpy.float32)";
    if text.starts_with('[') {
        return Err(FileProblem::Type { found: "structured records".into(), expected });
    }
    let (descr, rest) = quoted(text)?;
    let (order, code) = descr.split_at(descr.chars().next().map_or(0, char::len_utf8));
    let dtype = match code {
        "f4" => DType::F32,
        "f8" => DType::F64,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "b1" => DType::Bool,
        _ => {
            let found = format!("`{}`", descr.escape_debug());
            return Err(FileProblem::Type { found, expected });
        }
    };
    match order {
        "<" | "=" | "|" => Ok(((dtype, false), rest)),
        ">" => Ok(((dtype, true), rest)),
        _ => Err(bad(format!("byte order `{}` is not known", order.escape_debug()))),
    }
}

fn boolean(text: &str) -> Result<(bool, &str), FileProblem> {
    let yes = text.strip_prefix("True").map(|rest| (true, rest));
    let no = || text.strip_prefix("False").map(|rest| (false, rest));
    yes.or_else(no).ok_or_else(|| bad("`fortran_order` is neither True nor False".into()))
}

fn extents(text: &str) -> Result<(Vec<usize>, &str), FileProblem> {
    let inside = eat(text, '(')?;
    let (list, rest) = inside.split_once(')').ok_or_else(|| bad("`shape` does not end".into()))?;
    let list = list.trim().trim_end_matches(',');
    let number = |part: &str| {
        let digits = part.trim().trim_end_matches('L');
        digits.parse().map_err(|_| bad(format!("extent `{}`", part.trim().escape_debug())))
    };
    let parts = list.split(',').filter(|_| !list.is_empty());
    let shape: Vec<usize> = parts.map(number).collect::<Result<_, _>>()?;
    if shape.len() > MAX_RANK {
        return Err(bad(format!("{} dims exceed the limit of {MAX_RANK}", shape.len())));
    }
    Ok((shape, rest))
}

fn quoted(text: &str) -> Result<(&str, &str), FileProblem> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let inside = quote.and_then(|q| text[1..].split_once(q));
    inside.ok_or_else(|| bad("a quoted word is missing".into()))
}

fn eat(text: &str, wanted: char) -> Result<&str, FileProblem> {
    let rest = text.trim_start().strip_prefix(wanted);
    rest.ok_or_else(|| bad(format!("`{wanted}` is missing")))
}

fn bad(message: String) -> FileProblem {
    FileProblem::Header(message)
}

fn read_up_to(reader: &mut dyn Read, limit: u64, into: &mut Vec<u8>) -> Result<(), FileProblem> {
    match reader.take(limit).read_to_end(into) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            Err(FileProblem::Damaged(e.to_string()))
        }
        Err(e) => Err(FileProblem::Unreadable(e)),
    }
}

#[cfg(test)]
mod tests;
