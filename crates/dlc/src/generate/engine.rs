//! The logits after a sequence of ids: by computing it whole each time, or, where the model keeps
//! what it has seen in states, by computing what is new.

use super::beam::Scores;
use super::require_causal;
use crate::network::{empty, extents, initialize};
use crate::pipeline::{self, EntryGraph};
use crate::{Bindings, Error, Module};
use dlc_graph::Type;
use dlc_kernel::{DType, Executable, RunError, Tensor};
use dlc_train::{Weights, WeightsFile};

/// How the model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Input `ids: i32[1, T]`; logits `[1, T, V]` of the id after each position.
    EachPosition,
    /// Input `ids: i32[1, T]`; logits `[1, V]` of the id after the last position.
    LastPosition,
    /// Inputs `ids: i32[1, T]` and a position, `i32[]`: `ids` come after so many others, which the
    /// model has in its states. Entries: a chunk of ids, and a single one.
    Continued,
}

/// A model with its weights, and what it has seen.
pub(super) struct Engine {
    executable: Box<dyn Executable>,
    way: Way,
    /// The ids of a call of entry 0.
    length: usize,
    /// The ids in the model's states.
    seen: Vec<i32>,
    /// How many ids the states have room for, once that is known.
    room: Option<usize>,
    /// Whether later ids have been shown to leave earlier logits alone.
    is_causal: bool,
}

/// What a model reads: the names of its ids and, where it goes on from its states, of the position.
pub(super) struct Signature {
    ids: String,
    at: Option<String>,
    /// The dims of the ids, where they are open.
    batch: Option<String>,
    time: Result<String, usize>,
}

/// Ids that a continued model takes at once while there are as many.
const CHUNK: i64 = 16;

impl Signature {
    /// The signature of a model that takes ids and perhaps a position.
    pub fn of(inputs: &[(String, Type)]) -> Option<Signature> {
        let (ids, rest) = inputs.split_first()?;
        let at = match rest {
            [] => None,
            [(name, ty)] if ty.dtype == DType::I32 && ty.rank() == 0 => Some(name.clone()),
            _ => return None,
        };
        if ids.1.dtype != DType::I32 || ids.1.rank() != 2 {
            return None;
        }
        let (batch, time) = (&ids.1.shape[0], &ids.1.shape[1]);
        if batch.as_const().is_some_and(|n| n != 1) {
            return None;
        }
        let time = match (time.as_symbol(), time.as_const()) {
            (Some(name), _) => Ok(name.to_string()),
            (None, Some(length)) => Err(length as usize),
            (None, None) => return None,
        };
        Some(Signature { ids: ids.0.clone(), at, batch: batch.as_symbol().map(String::from), time })
    }

    /// Whether the model goes on from its states.
    pub fn is_continued(&self) -> bool {
        self.at.is_some()
    }
}

impl Engine {
    /// Compiles the model. `bindings` give the dims that are not those of the ids, `length` how
    /// many ids it is asked about at once, where its signature leaves that open; else it sees
    /// all, `most`.
    pub fn new(
        module: &Module,
        model: &str,
        signature: &Signature,
        (bindings, length, most): (&Bindings, Option<usize>, usize),
        weights: (&Weights, &WeightsFile),
    ) -> Result<Engine, Error> {
        let lengths: Vec<i64> = match (&signature.time, signature.is_continued(), length) {
            (Err(fixed), false, _) => vec![*fixed as i64],
            (Err(_), true, _) => {
                let message = format!("`{model}` takes a position, but a fixed number of ids");
                return Err(Error::Argument(message));
            }
            (Ok(_), true, _) => vec![CHUNK, 1],
            (Ok(_), false, length) => vec![length.unwrap_or(most) as i64],
        };
        let bound = |&length: &i64| {
            let mut sizes = bindings.clone();
            sizes.extend(signature.batch.iter().map(|dim| (dim.clone(), 1)));
            sizes.extend(signature.time.iter().map(|dim| (dim.clone(), length)));
            let (entry, init) = module.model(model)?.elaborate(&sizes)?;
            let name = if length == 1 { "decode" } else { "prefill" };
            Ok((EntryGraph { name: name.into(), ..entry }, init))
        };
        let bound = lengths.iter().map(bound).collect::<Result<Vec<_>, Error>>()?;
        let (entries, mut inits): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
        let compiler = &module.compiler;
        let (executable, _) = pipeline::build(&entries, compiler.target_ref(), &compiler.options)?;
        initialize(&inits.swap_remove(0), &*executable, 0, compiler)?;
        weights.0.apply(&*executable, &weights.1.path)?;
        let way = way_of(&*executable, signature, model)?;
        if let (Way::LastPosition, Ok(dim), None) = (way, &signature.time, length) {
            return Err(Error::Argument(format!(
                "how many ids `{model}` looks at is not known: give it with --bind {dim}=SIZE"
            )));
        }
        let length = lengths[0] as usize;
        Ok(Engine { executable, way, length, seen: Vec::new(), room: None, is_causal: false })
    }

    /// The number of ids that have logits.
    pub fn ids(&self) -> usize {
        let program = self.executable.program();
        let output = program.buffer(program.entries[0].outputs[0]);
        *extents(output).last().expect("logits have dims")
    }

    /// The logits of the id after `ids`. What a model cannot see at once, or has no room for, is
    /// forgotten, the first ids first.
    pub fn after(&mut self, ids: &[i32]) -> Result<Vec<f32>, Error> {
        let last = &ids[ids.len().saturating_sub(self.length)..];
        match self.way {
            Way::Continued => self.go_on(ids),
            Way::LastPosition if last.len() < self.length => Err(Error::Argument(format!(
                "the model looks at {} ids, the prompt has only {}",
                self.length,
                ids.len()
            ))),
            Way::LastPosition => Ok(self.call(0, last, None)?),
            Way::EachPosition => self.whole(last),
        }
    }

    /// Fills the ids up with others that a causal model does not look at.
    fn whole(&mut self, ids: &[i32]) -> Result<Vec<f32>, Error> {
        let filled = |filler: i32| {
            let mut all = ids.to_vec();
            all.resize(self.length, filler);
            self.call(0, &all, None).map(|logits| self.row(&logits, ids.len() - 1))
        };
        let logits = filled(0)?;
        if !self.is_causal && ids.len() < self.length {
            let other = filled(self.ids() as i32 - 1)?;
            require_causal(&logits, &other)?;
            self.is_causal = true;
        }
        Ok(logits)
    }

    /// Computes what is not in the states yet; where they hold something else, from there on. Where
    /// they have no room for all, the first ids are forgotten, half a room at a time.
    fn go_on(&mut self, ids: &[i32]) -> Result<Vec<f32>, Error> {
        let beyond = ids.len().saturating_sub(self.room.unwrap_or(usize::MAX));
        let half = self.room.map_or(1, |room| (room / 2).max(1));
        let ids = &ids[beyond.div_ceil(half) * half..];
        let same = self.seen.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let mut at = same.min(ids.len() - 1);
        loop {
            let left = ids.len() - at;
            let (entry, count) = if left >= self.length { (0, self.length) } else { (1, 1) };
            self.seen.truncate(at);
            let logits = match self.call(entry, &ids[at..at + count], Some(at)) {
                Err(RunError::Index { extent, .. })
                    if self.room.is_none() && at > 0 && (at + count) as i64 > extent =>
                {
                    self.room = Some(extent as usize);
                    return self.go_on(ids);
                }
                called => called?,
            };
            at += count;
            self.seen.extend_from_slice(&ids[at - count..at]);
            if at == ids.len() {
                return Ok(self.row(&logits, count - 1));
            }
        }
    }

    fn row(&self, logits: &[f32], position: usize) -> Vec<f32> {
        let width = self.ids();
        logits[position * width..][..width].to_vec()
    }

    fn call(&self, entry: usize, ids: &[i32], at: Option<usize>) -> Result<Vec<f32>, RunError> {
        let program = self.executable.program();
        let outputs = program.entries[entry].outputs.iter();
        let mut outputs: Vec<Tensor> = outputs.map(|&b| empty(program.buffer(b))).collect();
        let ids = Tensor::i32([1, ids.len()], ids.to_vec());
        let at = at.map(|at| Tensor::i32([], vec![at as i32]));
        let inputs: Vec<&Tensor> = std::iter::once(&ids).chain(&at).collect();
        self.executable.call(entry, &inputs, &mut outputs)?;
        Ok(outputs[0].as_f32().expect("logits are f32").to_vec())
    }
}

impl Scores for Engine {
    fn after(&mut self, sequences: &[(usize, &[i32])]) -> Result<Vec<Vec<f32>>, Error> {
        sequences.iter().map(|(_, ids)| Engine::after(self, ids)).collect()
    }
}

/// How the model wants to be asked, by its first output.
fn way_of(executable: &dyn Executable, signature: &Signature, model: &str) -> Result<Way, Error> {
    let program = executable.program();
    let output = program.buffer(program.entries[0].outputs[0]);
    match (signature.is_continued(), output.shape.len(), output.dtype) {
        (true, 3, DType::F32) => Ok(Way::Continued),
        (false, 3, DType::F32) => Ok(Way::EachPosition),
        (false, 2, DType::F32) => Ok(Way::LastPosition),
        _ => Err(Error::Argument(format!(
            "the model `{model}` gives {}{:?} for `{}`, not logits f32[N, T, V] or f32[N, V]",
            output.dtype,
            extents(output),
            signature.ids
        ))),
    }
}
