//! Recognizes files of other kinds by their first bytes, so that a message can name them.

/// A kind of file that is often given in place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// The stand-in that Git LFS leaves before `git lfs pull`.
    LfsPointer,
    /// A web page.
    Html,
    /// JSON text.
    Json,
    /// A gzip archive.
    Gzip,
    /// A zip archive; `.pt` and `.npz` files are such.
    Zip,
    /// A Python pickle; old `.pt` files are such.
    Pickle,
    /// Weights of llama.cpp.
    Gguf,
    /// A TensorFlow Lite model.
    TfLite,
    /// An HDF5 file, as Keras writes.
    Hdf5,
    /// A NumPy array.
    Npy,
    /// An IDX file, as MNIST's.
    Idx,
    /// A PNG image.
    Png,
    /// Weights in safetensors format.
    Safetensors,
}

impl Foreign {
    /// What kind of file starts with `head` (64 bytes are enough).
    pub fn detect(head: &[u8]) -> Option<Foreign> {
        let text = head.trim_ascii_start().to_ascii_lowercase();
        let starts = |magic: &[u8]| head.starts_with(magic);
        Some(match head {
            _ if starts(b"version https://git-lfs") => Foreign::LfsPointer,
            _ if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") => Foreign::Html,
            _ if starts(&[0x1f, 0x8b]) => Foreign::Gzip,
            _ if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") => Foreign::Zip,
            _ if starts(b"GGUF") => Foreign::Gguf,
            _ if starts(b"\x89HDF\r\n") => Foreign::Hdf5,
            _ if starts(b"\x93NUMPY") => Foreign::Npy,
            _ if starts(b"\x89PNG") => Foreign::Png,
            _ if head.get(4..8) == Some(b"TFL3") => Foreign::TfLite,
            _ if head.get(8) == Some(&b'{') && head.get(5..8) == Some(&[0; 3]) => {
                Foreign::Safetensors
            }
            [0x80, 2..=5, ..] => Foreign::Pickle,
            [0, 0, 8..=14, 1..=8, ..] => Foreign::Idx,
            _ if text.starts_with(b"{") || text.starts_with(b"[") => Foreign::Json,
            _ => return None,
        })
    }

    /// The predicate of a message whose subject is the file: what it is, and what to do.
    pub(crate) fn describe(self, expected: &str, bytes: u64) -> String {
        let (what, advice) = match self {
            Foreign::LfsPointer => {
                let what = format!("is a Git LFS pointer ({bytes} bytes), not {expected}");
                return what + "; run `git lfs pull`";
            }
            Foreign::Html => ("an HTML page", "; the download failed or asked for a login"),
            Foreign::Json => ("JSON text", ""),
            Foreign::Gzip => ("a gzip archive", "; unpack it first"),
            Foreign::Zip => (
                "a zip archive",
                "; if it is a PyTorch checkpoint, save its state_dict as safetensors",
            ),
            Foreign::Pickle => (
                "a Python pickle",
                "; pickles can run any code and are not read: save the state_dict as safetensors",
            ),
            Foreign::Gguf => ("a GGUF file", ""),
            Foreign::TfLite => ("a TensorFlow Lite model", ""),
            Foreign::Hdf5 => ("an HDF5 file", "; save its tensors as safetensors"),
            Foreign::Npy => ("a NumPy array (.npy)", ""),
            Foreign::Idx => ("an IDX file", ""),
            Foreign::Png => ("a PNG image", ""),
            Foreign::Safetensors => ("a safetensors file", ""),
        };
        format!("is {what}, not {expected}{advice}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let cases: [(&[u8], Option<Foreign>); 12] = [
            (b"version https://git-lfs.github.com/spec/v1\n", Some(Foreign::LfsPointer)),
            (b"\n <!DOCTYPE html><html>", Some(Foreign::Html)),
            (b"{\"error\": 404}", Some(Foreign::Json)),
            (&[0x1f, 0x8b, 8], Some(Foreign::Gzip)),
            (b"PK\x03\x04..", Some(Foreign::Zip)),
            (&[0x80, 2, b'}'], Some(Foreign::Pickle)),
            (b"GGUF\x03\0\0\0", Some(Foreign::Gguf)),
            (b"\x1c\0\0\0TFL3", Some(Foreign::TfLite)),
            (b"\x93NUMPY\x01\0", Some(Foreign::Npy)),
            (&[0, 0, 8, 3, 0, 0], Some(Foreign::Idx)),
            (b"\x40\0\0\0\0\0\0\0{\"a\"", Some(Foreign::Safetensors)),
            (b"", None),
        ];
        for (head, kind) in cases {
            assert_eq!(Foreign::detect(head), kind, "{head:?}");
        }
    }
}
