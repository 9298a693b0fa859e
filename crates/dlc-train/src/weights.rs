//! Weights: what a model has learned, by name, in memory and in safetensors files.
//!
//! They are the parameters and the state that evaluation reads and leaves as it is (running
//! statistics). The state that only training reads belongs to the optimizer and goes into
//! checkpoints alone; so does that which evaluation writes, its memory from call to call.

use crate::{Error, FileProblem, Renames, Vocabulary, files, safe};
use dlc_kernel::{Buffer, BufferId, Class, Entry, Executable, Program, RunError, Tensor};
use indexmap::IndexMap;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Named tensors, and what the ids stand for that the model reads, if it reads text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    pub(crate) tensors: IndexMap<String, Tensor>,
    pub(crate) vocabulary: Option<Arc<Vocabulary>>,
}

/// How the tensors of a file differ from those of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    /// Name and type of what the model has and the file lacks.
    pub missing: Vec<(String, String)>,
    /// Name and type of what the file has and the model lacks.
    pub unexpected: Vec<(String, String)>,
    /// Name, type in the model, type in the file.
    pub mismatched: Vec<(String, String, String)>,
}

impl Weights {
    /// The present weights of a program.
    ///
    /// # Errors
    /// If the executable refuses to tell.
    pub fn of(executable: &dyn Executable) -> Result<Weights, RunError> {
        Ok(Weights { tensors: read_all(executable, is_weight)?, vocabulary: None })
    }

    /// Reads a safetensors file; half-precision numbers are widened to f32.
    ///
    /// # Errors
    /// If it is not a whole safetensors file.
    pub fn read(path: &Path) -> Result<Weights, Error> {
        Weights::from_bytes(&files::read(path)?).map_err(|problem| problem.at(path))
    }

    /// Writes a safetensors file, atomically.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        files::write_atomic(path, &self.to_bytes())
    }

    /// The contents of a safetensors file; the vocabulary stands in its metadata.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let vocabulary = self.vocabulary.as_ref().map(|v| v.to_json());
        safe::encode(&self.tensors, vocabulary.as_deref())
    }

    /// The inverse of [`Weights::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Weights, FileProblem> {
        let tensors = safe::decode(bytes)?;
        let vocabulary = safe::note(bytes).map(|json| {
            let damaged = || FileProblem::Header("its vocabulary cannot be read".into());
            Vocabulary::from_json(&json).map(Arc::new).ok_or_else(damaged)
        });
        Ok(Weights { tensors, vocabulary: vocabulary.transpose()? })
    }

    /// What the ids stand for that the model reads, if that is known.
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_deref()
    }

    /// The same tensors with this vocabulary.
    pub fn with_vocabulary(self, vocabulary: Option<Arc<Vocabulary>>) -> Weights {
        Weights { vocabulary, ..self }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// The tensors under the names a table gives them; `path` is where they come from.
    ///
    /// # Errors
    /// If two would have the same name.
    pub fn renamed(self, renames: &Renames, path: &Path) -> Result<Weights, Error> {
        let mut renamed: IndexMap<String, Tensor> = IndexMap::new();
        for (name, tensor) in self.tensors {
            let Some(name) = renames.apply(&name) else { continue };
            if renamed.insert(name.clone(), tensor).is_some() {
                return Err(Error::Usage(format!(
                    "two tensors of `{}` would be called `{name}`",
                    path.display()
                )));
            }
        }
        Ok(Weights { tensors: renamed, vocabulary: self.vocabulary })
    }

    /// Tensors with elements that are not finite, and how many.
    pub fn not_finite(&self) -> Vec<(String, usize)> {
        let count = |t: &Tensor| t.data.to_f64().iter().filter(|x| !x.is_finite()).count();
        let counts = self.iter().map(|(name, tensor)| (name.to_owned(), count(tensor)));
        counts.filter(|&(_, n)| n > 0).collect()
    }

    /// Gives a program these weights; none is written unless all fit. `num_batches_tracked`, which
    /// PyTorch keeps and no computation reads, may be there or not.
    ///
    /// # Errors
    /// All that is missing, unexpected or of another type.
    pub fn apply(&self, executable: &dyn Executable, path: &Path) -> Result<(), Error> {
        let misfit = self.compare(executable.program());
        if misfit != Misfit::default() {
            return Err(Error::Misfit { path: path.to_owned(), misfit: Box::new(misfit) });
        }
        write_all(executable, &self.tensors, is_weight)?;
        Ok(())
    }

    fn compare(&self, program: &Program) -> Misfit {
        let mut misfit = Misfit::default();
        let wanted = selected(program, is_weight);
        for buffer in &wanted {
            let expected = type_of_buffer(buffer);
            match self.tensors.get(&buffer.name) {
                None => misfit.missing.push((buffer.name.clone(), expected)),
                Some(t) if type_of(t) != expected => {
                    misfit.mismatched.push((buffer.name.clone(), expected, type_of(t)));
                }
                Some(_) => {}
            }
        }
        let names: HashSet<&str> = wanted.iter().map(|b| b.name.as_str()).collect();
        let ignored = |name: &str| name.ends_with("num_batches_tracked");
        let extra = self.iter().filter(|(name, _)| !names.contains(name) && !ignored(name));
        misfit.unexpected = extra.map(|(name, t)| (name.to_owned(), type_of(t))).collect();
        misfit
    }
}

/// Writes the weights of a program to a safetensors file, atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn save_weights(path: &Path, executable: &dyn Executable) -> Result<(), Error> {
    Weights::of(executable)?.write(path)
}

/// Decides whether a buffer that outlives calls is meant, and is told whether other entries than
/// training read it and none of them writes it.
pub(crate) type Selection = fn(&Buffer, used: bool) -> bool;

pub(crate) fn is_weight(buffer: &Buffer, used: bool) -> bool {
    buffer.class == Class::Param || buffer.class == Class::State && used
}

pub(crate) fn is_optimizer_state(buffer: &Buffer, used: bool) -> bool {
    buffer.class == Class::State && !used
}

/// The buffers of a program that a selection means, in the program's order.
pub(crate) fn selected(program: &Program, selection: Selection) -> Vec<&Buffer> {
    let trains = |e: &&Entry| ["train", "accumulate", "init"].contains(&e.role());
    let others = program.entries.iter().filter(|e| !trains(e));
    let written = others.clone().flat_map(|e| e.kernels.iter().flat_map(|k| k.writes()));
    let written: HashSet<BufferId> = written.collect();
    let read = others.flat_map(buffers_of).filter(|b| !written.contains(b));
    let used: HashSet<BufferId> = read.collect();
    let buffers = program.buffers.iter().enumerate();
    let meant = buffers.filter(|(i, b)| selection(b, used.contains(&BufferId(*i as u32))));
    meant.map(|(_, buffer)| buffer).collect()
}

pub(crate) fn read_all(
    executable: &dyn Executable,
    selection: Selection,
) -> Result<IndexMap<String, Tensor>, RunError> {
    let buffers = selected(executable.program(), selection);
    buffers.iter().map(|b| Ok((b.name.clone(), executable.read(&b.name)?))).collect()
}

pub(crate) fn write_all(
    executable: &dyn Executable,
    tensors: &IndexMap<String, Tensor>,
    selection: Selection,
) -> Result<(), RunError> {
    let buffers = selected(executable.program(), selection);
    let present = buffers.iter().filter_map(|b| Some((&b.name, tensors.get(&b.name)?)));
    present.into_iter().try_for_each(|(name, tensor)| executable.write(name, tensor))
}

/// Every buffer an entry reads or writes; some more than once.
fn buffers_of(entry: &Entry) -> Vec<BufferId> {
    let kernels = entry.kernels.iter().flat_map(|k| [k.reads(), k.writes()].concat());
    kernels.chain(entry.outputs.iter().copied()).collect()
}

/// The extents of a buffer of a built program.
pub(crate) fn extents(buffer: &Buffer) -> Vec<usize> {
    let bound = |s: &dlc_kernel::Size| s.as_const().expect("sizes of a built program are bound");
    buffer.shape.iter().map(|s| bound(s) as usize).collect()
}

pub(crate) fn type_of_buffer(buffer: &Buffer) -> String {
    format!("{}{:?}", buffer.dtype, extents(buffer))
}

pub(crate) fn type_of(tensor: &Tensor) -> String {
    format!("{}{:?}", tensor.dtype(), tensor.shape)
}

/// Lines of one kind that are shown.
const SHOWN: usize = 20;

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |list: &[(String, String)]| list.to_vec();
        let mismatched = self.mismatched.iter();
        let mismatched: Vec<_> =
            mismatched.map(|(name, model, file)| (name.clone(), difference(model, file))).collect();
        let sections = [
            ("missing", rows(&self.missing)),
            ("unexpected", rows(&self.unexpected)),
            ("mismatched", mismatched),
        ];
        let shown = sections.iter().flat_map(|(_, rows)| rows.iter().take(SHOWN));
        let width = shown.map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (title, rows) in &sections {
            for (name, text) in rows.iter().take(SHOWN) {
                writeln!(f, "  {title:<10}  {name:<width$}  {text}")?;
            }
            if rows.len() > SHOWN {
                writeln!(f, "  {title:<10}  ... and {} more", rows.len() - SHOWN)?;
            }
        }
        let counts = sections.map(|(title, rows)| format!("{} {title}", rows.len()));
        write!(f, "  {}", counts.join(", "))?;
        if let Some(prefix) = common_prefix(&self.unexpected, &self.missing) {
            write!(
                f,
                "\n  hint: the names agree with the line `{prefix}* = *` in a --rename file"
            )?;
        }
        if let Some(prefix) = common_prefix(&self.missing, &self.unexpected) {
            write!(
                f,
                "\n  hint: the names agree with the line `* = {prefix}*` in a --rename file"
            )?;
        }
        Ok(())
    }
}

fn difference(model: &str, file: &str) -> String {
    let hint = if is_transposed(model, file) { " (transposed)" } else { "" };
    format!("{model} in the model, {file} here{hint}")
}

/// Whether two types differ in the order of their dims alone: `f32[10, 84]` and `f32[84, 10]`.
fn is_transposed(a: &str, b: &str) -> bool {
    let split = |ty: &str| {
        let (dtype, dims) = ty.trim_end_matches(']').split_once('[')?;
        let dims: Vec<String> = dims.split(", ").map(String::from).collect();
        Some((dtype.to_owned(), dims))
    };
    match (split(a), split(b)) {
        (Some((a, dims)), Some((b, mut other))) => {
            other.reverse();
            a == b && dims == other
        }
        _ => false,
    }
}

/// The prefix (`module.`) that makes every name of `short` one of `long`.
fn common_prefix<'a>(long: &'a [(String, String)], short: &[(String, String)]) -> Option<&'a str> {
    let (first, _) = long.first()?;
    let candidates = short.iter().filter_map(|(name, _)| first.strip_suffix(name.as_str()));
    let names: HashSet<&str> = long.iter().map(|(n, _)| n.as_str()).collect();
    let fits = |p: &str| short.iter().all(|(n, _)| names.contains(format!("{p}{n}").as_str()));
    candidates.into_iter().find(|p| p.ends_with('.') && fits(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|n| (n.to_string(), "f32[4, 4]".to_owned())).collect()
    }

    #[test]
    fn a_misfit_is_one_table_with_a_hint() {
        let misfit = Misfit {
            missing: list(&["fc1.weight", "fc1.bias"]),
            unexpected: list(&["module.fc1.weight", "module.fc1.bias", "extra"]),
            mismatched: vec![("fc2.weight".into(), "f32[10, 84]".into(), "f32[84, 10]".into())],
        };
        insta::assert_snapshot!(misfit, @r"
          missing     fc1.weight         f32[4, 4]
          missing     fc1.bias           f32[4, 4]
          unexpected  module.fc1.weight  f32[4, 4]
          unexpected  module.fc1.bias    f32[4, 4]
          unexpected  extra              f32[4, 4]
          mismatched  fc2.weight         f32[10, 84] in the model, f32[84, 10] here (transposed)
          2 missing, 3 unexpected, 1 mismatched
          hint: the names agree with the line `module.* = *` in a --rename file
        ");
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..50).map(|i| format!("layer{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = Misfit { missing: list(&names), ..Misfit::default() }.to_string();
        assert!(text.contains("... and 30 more") && text.contains("50 missing"), "{text}");
    }
}
