//! The safetensors format: bytes to tensors and back.

use crate::{FileProblem, files};
use dlc_kernel::{Data, Tensor};
use indexmap::IndexMap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

const EXPECTED: &str = "a safetensors file";
const MAX_HEADER: u64 = 100_000_000;
const MAX_NAME: usize = 1024;

/// The tensors of a file, in the order of its header. Half-precision numbers are widened to f32,
/// which is exact.
pub(crate) fn decode(bytes: &[u8]) -> Result<IndexMap<String, Tensor>, FileProblem> {
    let header = header(bytes)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    let tensor = |name: String| {
        let view = tensors.tensor(&name).map_err(|e| bad(e.to_string()))?;
        Ok((name, tensor_of(&view)?))
    };
    header.0.into_iter().map(|(name, _)| tensor(name)).collect()
}

/// A file with these tensors, and a note beside them if there is one; the same give the same bytes.
pub(crate) fn encode(tensors: &IndexMap<String, Tensor>, note: Option<&str>) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors.values().map(|t| bytes_of(&t.data)).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let view = TensorView::new(dtype_of(&tensor.data), tensor.shape.clone(), bytes);
        (name, view.expect("as many bytes as the shape asks for"))
    });
    let format = [("format".to_owned(), "pt".to_owned())];
    let note = note.map(|text| (NOTE.to_owned(), text.to_owned()));
    // The library writes the entries of this map in an order of its own: more than one would give
    // other bytes each time.
    let metadata = match note {
        Some(note) => [note].into_iter().collect(),
        None => format.into_iter().collect(),
    };
    safetensors::serialize(views, Some(metadata)).expect("each name comes once")
}

/// The note that [`encode`] put beside the tensors.
pub(crate) fn note(bytes: &[u8]) -> Option<String> {
    header(bytes).ok()?.1
}

/// The key of the note in the file's metadata.
const NOTE: &str = "dlc.vocabulary";

/// The parts of a header that are checked before the format's own library sees it: the tensors, and
/// the note.
struct Header(Vec<(String, Info)>, Option<String>);

#[derive(serde::Deserialize)]
struct Info {
    data_offsets: [u64; 2],
}

/// Checks what the library reports too briefly: other kinds of files, sizes, doubled names.
fn header(bytes: &[u8]) -> Result<Header, FileProblem> {
    let found = bytes.len() as u64;
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(match bytes {
            [] => FileProblem::Truncated { expected: 8, found },
            _ => files::unexpected(bytes, EXPECTED, found),
        });
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || rest.first().is_some_and(|&b| b != b'{') {
        return Err(files::unexpected(&bytes[..bytes.len().min(64)], EXPECTED, found));
    }
    let Some(text) = rest.get(..length as usize) else {
        return Err(FileProblem::Truncated { expected: 8 + length, found });
    };
    let header: Header = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
    let end = header.0.iter().map(|(_, info)| info.data_offsets[1]).max().unwrap_or(0);
    let expected = end.checked_add(8 + length).ok_or_else(|| bad("an offset overflows".into()))?;
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => Err(FileProblem::Truncated { expected, found }),
        std::cmp::Ordering::Greater => Err(FileProblem::Trailing { expected, found }),
        std::cmp::Ordering::Equal => Ok(header),
    }
}

fn bad(message: String) -> FileProblem {
    FileProblem::Header(message)
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that describes tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut entries, mut seen, mut note) = (Vec::new(), HashSet::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > MAX_NAME {
                return Err(A::Error::custom(format!(
                    "a tensor's name has {} bytes, the limit is {MAX_NAME}",
                    name.len()
                )));
            }
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("tensor `{name}` comes twice")));
            }
            if name == "__metadata__" {
                let metadata: serde_json::Value = map.next_value()?;
                note = metadata.get(NOTE).and_then(|v| v.as_str()).map(String::from);
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(Header(entries, note))
    }
}

fn tensor_of(view: &TensorView<'_>) -> Result<Tensor, FileProblem> {
    let bytes = view.data();
    let data = match view.dtype() {
        Dtype::F32 => Data::F32(words(bytes, f32::from_le_bytes)),
        Dtype::F64 => Data::F64(words(bytes, f64::from_le_bytes)),
        Dtype::I64 => Data::I64(words(bytes, i64::from_le_bytes)),
        Dtype::I32 => Data::I32(words(bytes, i32::from_le_bytes)),
        Dtype::U8 => Data::U8(bytes.to_vec()),
        Dtype::BOOL => Data::Bool(bytes.iter().map(|&b| u8::from(b != 0)).collect()),
        Dtype::F16 => Data::F32(words(bytes, |b| widen(u16::from_le_bytes(b)))),
        Dtype::BF16 => {
            Data::F32(words(bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)))
        }
        other => {
            let expected = "F64, F32, F16, BF16, I64, I32, U8 and BOOL are read";
            return Err(FileProblem::Type { found: format!("{other:?}"), expected });
        }
    };
    Ok(Tensor::new(view.shape().to_vec(), data))
}

/// The words of little-endian bytes.
pub(crate) fn words<T, const N: usize>(bytes: &[u8], word: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&b| word(b)).collect()
}

/// IEEE half precision to single precision, exactly.
fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(half >> 10 & 0x1f), u32::from(half & 0x3ff));
    match exponent {
        0 => {
            let magnitude = fraction as f32 * f32::powi(2.0, -24);
            f32::from_bits(sign | magnitude.to_bits())
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// The elements as little-endian bytes.
pub(crate) fn bytes_of(data: &Data) -> Vec<u8> {
    match data {
        Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U8(v) | Data::Bool(v) => v.clone(),
    }
}

fn dtype_of(data: &Data) -> Dtype {
    match data {
        Data::F32(_) => Dtype::F32,
        Data::F64(_) => Dtype::F64,
        Data::I64(_) => Dtype::I64,
        Data::I32(_) => Dtype::I32,
        Data::U8(_) => Dtype::U8,
        Data::Bool(_) => Dtype::BOOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> IndexMap<String, Tensor> {
        let a = Tensor::f32([2, 2], vec![1.0, -0.0, f32::MIN_POSITIVE, f32::MAX]);
        let b = Tensor::i32([], vec![-7]);
        [("b".to_owned(), b), ("a".to_owned(), a)].into_iter().collect()
    }

    #[test]
    fn tensors_survive_the_round_trip() {
        let bytes = encode(&sample(), None);
        assert_eq!(bytes, encode(&sample(), None));
        let back = decode(&bytes).unwrap();
        assert_eq!(back["a"], sample()["a"]);
        assert_eq!(back["b"], sample()["b"]);
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn every_malformation_has_its_message() {
        let one = r#""dtype":"U8","shape":[1],"data_offsets":[0,1]"#;
        let twice = with_header(&format!("{{\"a\":{{{one}}},\"a\":{{{one}}}}}"), &[0]);
        let long = with_header(&format!("{{\"{}\":{{{one}}}}}", "x".repeat(2000)), &[0]);
        let hole = with_header(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, &[0; 2]);
        let shape =
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]);
        let overflow = with_header(
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}}"#,
            &[],
        );
        let huge = [&[0xff; 8][..], b"{}"].concat();
        let mut whole = encode(&sample(), None);
        let cut = whole[..whole.len() - 3].to_vec();
        let cut_header = whole[..20].to_vec();
        whole.push(0);
        let cases: [(&[u8], &str); 13] = [
            (b"", "is truncated: 8 bytes expected, 0 found"),
            (b"abc", "is not a safetensors file: it starts with 61 62 63"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer (46 bytes)"),
            (b"<!DOCTYPE html><html></html>", "is an HTML page"),
            (b"\x80\x02}q\x00(X\x00\x00\x00\x00", "is a Python pickle"),
            (&twice, "tensor `a` comes twice"),
            (&long, "a tensor's name has 2000 bytes, the limit is 1024"),
            (&hole, "has a bad header"),
            (&shape, "has a bad header"),
            (&overflow, "an offset overflows"),
            (&huge, "is not a safetensors file"),
            (&cut, "is truncated"),
            (&whole, "is too long"),
        ];
        for (bytes, message) in cases {
            let problem = decode(bytes).unwrap_err().to_string();
            assert!(problem.contains(message), "{problem:?} should say {message:?}");
        }
        assert!(decode(&cut_header).unwrap_err().to_string().contains("is truncated"));
    }

    proptest::proptest! {
        #[test]
        fn no_changed_byte_makes_it_panic(position: proptest::sample::Index, byte: u8) {
            let mut bytes = encode(&sample(), None);
            let position = position.index(bytes.len());
            bytes[position] = byte;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..position]);
        }
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        for (half, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7c00, f32::INFINITY),
            (0x8000, -0.0),
        ] {
            assert_eq!(widen(half).to_bits(), f32::to_bits(value), "{half:#x}");
        }
        assert!(widen(0x7e00).is_nan());
    }
}
