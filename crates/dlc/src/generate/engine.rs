//! The logits after a sequence of ids: by computing it whole each time, or, where the model keeps
//! what it has seen in states, by computing what is new.

use super::beam::Scores;
use super::require_causal;
use super::states::States;
use crate::network::{empty, extents, initialize};
use crate::pipeline::{self, EntryGraph};
use crate::{Bindings, Error, Module};
use dlc_graph::{Graph, Type};
use dlc_kernel::{DType, Executable, RunError, Size, Tensor};
use dlc_train::{Weights, WeightsFile};

/// How the model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Input `ids: i32[1, T]`; logits `[1, T, V]` of the id after each position.
    EachPosition,
    /// Input `ids: i32[1, T]`; logits `[1, V]` of the id after the last position.
    LastPosition,
    /// Inputs `ids: i32[R, T]` and a position: `ids` come after so many others, which the model has
    /// in its states. Entries: a chunk of ids, and a single one.
    Continued,
}

/// A model with its weights, and what it has seen.
pub(super) struct Engine {
    executable: Box<dyn Executable>,
    way: Way,
    /// The ids of a call of entry 0.
    length: usize,
    /// The ids in the model's states, by row.
    seen: Vec<Vec<i32>>,
    /// What the position of a continued model is.
    position: Option<Position>,
    states: States,
    /// What the states held after each sequence of the last question, if they were several.
    left: Vec<Left>,
    /// How many ids the states have room for, once that is known.
    room: Option<usize>,
    /// Whether later ids have been shown to leave earlier logits alone.
    is_causal: bool,
}

/// What the states of one sequence held after some ids.
struct Left {
    ids: Vec<i32>,
    states: Vec<Tensor>,
}

/// What a model reads: the name of its ids and, where it goes on from its states, a position.
pub(super) struct Signature {
    ids: String,
    at: Option<(String, Position)>,
    /// The dims of the ids, where they are open.
    batch: Option<String>,
    time: Result<String, usize>,
}

/// Whether a model keeps anything from call to call.
pub(super) type Keeps<'k> = &'k dyn Fn() -> Result<bool, Error>;

/// Whose position a model takes that goes on from its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// That of all sequences, `i32[]`.
    Common,
    /// One for each of them, `i32[N]`.
    Own,
}

impl Position {
    /// That of an input, if it can be one; the model's sequences are as many as `batch` says. Numbers
    /// of a model that `keeps` nothing are lengths, and no positions.
    ///
    /// # Errors
    /// If what it keeps is not known.
    pub fn of(ty: &Type, batch: &Size, keeps: Keeps<'_>) -> Result<Option<Position>, Error> {
        Ok(match (ty.dtype, &ty.shape[..]) {
            (DType::I32, []) => Some(Position::Common),
            (DType::I32, [own]) if own == batch && keeps()? => Some(Position::Own),
            _ => None,
        })
    }

    /// The input, given that of each sequence: the same for all if it is common.
    pub fn tensor(self, at: &[usize]) -> Tensor {
        let all = at.iter().map(|&at| at as i32).collect();
        match self {
            Position::Common => Tensor::i32([], vec![at[0] as i32]),
            Position::Own => Tensor::i32([at.len()], all),
        }
    }
}

/// Ids that a continued model takes at once while there are as many: the first of these that its states
/// have room for, else one.
const CHUNKS: [i64; 4] = [16, 8, 4, 2];

/// Sequences that are gone on with at a time.
const TOGETHER: usize = 32;

impl Signature {
    /// The signature of a model that takes ids and perhaps a position, if it does.
    ///
    /// # Errors
    /// If what it keeps is asked for, and not known.
    pub fn of(inputs: &[(String, Type)], keeps: Keeps<'_>) -> Result<Option<Signature>, Error> {
        let Some((ids, rest)) = inputs.split_first() else { return Ok(None) };
        if ids.1.dtype != DType::I32 || ids.1.rank() != 2 {
            return Ok(None);
        }
        let (batch, time) = (&ids.1.shape[0], &ids.1.shape[1]);
        if batch.as_const().is_some_and(|n| n != 1) {
            return Ok(None);
        }
        let time = match (time.as_symbol(), time.as_const()) {
            (Some(name), _) => Ok(name.to_string()),
            (None, Some(length)) => Err(length as usize),
            (None, None) => return Ok(None),
        };
        let at = match rest {
            [] => None,
            [(at, ty)] => match Position::of(ty, batch, keeps)? {
                Some(position) => Some((at.clone(), position)),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let batch = batch.as_symbol().map(String::from);
        Ok(Some(Signature { ids: ids.0.clone(), at, batch, time }))
    }

    /// Whether the model goes on from its states.
    pub fn is_continued(&self) -> bool {
        self.at.is_some()
    }

    /// How many sequences it goes on with at a time, of so many.
    pub fn rows(&self, sequences: usize) -> usize {
        match (&self.at, &self.batch) {
            (Some((_, Position::Own)), Some(_)) => sequences.clamp(1, TOGETHER),
            _ => 1,
        }
    }
}

impl Engine {
    /// Compiles the model, for so many sequences at a time. `bindings` give the dims that are not
    /// those of the ids, `length` how many ids it is asked about at once, where its signature leaves that
    /// open; else it sees all, `most`.
    pub fn new(
        module: &Module,
        model: &str,
        (signature, rows): (&Signature, usize),
        (bindings, length, most): (&Bindings, Option<usize>, usize),
        weights: (&Weights, &WeightsFile),
    ) -> Result<Engine, Error> {
        let asked = match (&signature.time, signature.is_continued()) {
            (Err(_), true) => {
                let message = format!("`{model}` takes a position, but a fixed number of ids");
                return Err(Error::Argument(message));
            }
            (Ok(_), true) => None,
            (Err(fixed), false) => Some(*fixed),
            (Ok(_), false) => Some(length.unwrap_or(most)),
        };
        let Bound { entries, length: longest, init, states } =
            bound(module, model, (signature, rows), bindings, asked)?;
        if rows > 1 && !states.are_placed {
            states.require_dims(model)?;
        }
        let compiler = &module.compiler;
        let (executable, _) = pipeline::build(&entries, compiler.target_ref(), &compiler.options)?;
        initialize(&init, &*executable, 0, compiler)?;
        weights.0.apply(&*executable, &weights.1.path)?;
        let way = way_of(&*executable, signature, model)?;
        if let (Way::LastPosition, Ok(dim), None) = (way, &signature.time, length) {
            return Err(Error::Argument(format!(
                "how many ids `{model}` looks at is not known: give it with --bind {dim}=SIZE"
            )));
        }
        let seen = vec![Vec::new(); rows];
        let position = signature.at.as_ref().map(|(_, position)| *position);
        let (left, room, is_causal) = Default::default();
        Ok(Engine {
            executable,
            way,
            length: longest,
            seen,
            position,
            states,
            left,
            room,
            is_causal,
        })
    }

    /// How many sequences it goes on with at a time.
    pub fn rows(&self) -> usize {
        self.seen.len()
    }

    /// The number of ids that have logits.
    pub fn ids(&self) -> usize {
        let program = self.executable.program();
        let output = program.buffer(program.entries[0].outputs[0]);
        *extents(output).last().expect("logits have dims")
    }

    /// The logits of the id after `ids`, all of which are computed anew. What a model cannot see at
    /// once is forgotten, the first ids first.
    fn anew(&mut self, ids: &[i32]) -> Result<Vec<f32>, Error> {
        let last = &ids[ids.len().saturating_sub(self.length)..];
        match self.way {
            Way::LastPosition if last.len() < self.length => Err(Error::Argument(format!(
                "the model looks at {} ids, the prompt has only {}",
                self.length,
                ids.len()
            ))),
            Way::LastPosition => Ok(self.call(0, last, &[])?),
            _ => self.whole(last),
        }
    }

    /// Fills the ids up with others that a causal model does not look at.
    fn whole(&mut self, ids: &[i32]) -> Result<Vec<f32>, Error> {
        let filled = |filler: i32| {
            let mut all = ids.to_vec();
            all.resize(self.length, filler);
            self.call(0, &all, &[]).map(|logits| self.row(&logits, ids.len() - 1))
        };
        let logits = filled(0)?;
        if !self.is_causal && ids.len() < self.length {
            let other = filled(self.ids() as i32 - 1)?;
            require_causal(&logits, &other)?;
            self.is_causal = true;
        }
        Ok(logits)
    }

    /// Computes what is not in the states yet; where they hold something else, from there on, or, if
    /// they cannot be set back, from the beginning. Where they have no room for all, the first ids are
    /// forgotten, half a room at a time.
    fn go_on(&mut self, sequences: &[&[i32]], are_several: bool) -> Result<Vec<Vec<f32>>, Error> {
        let kept: Vec<&[i32]> = sequences.iter().map(|ids| self.remembered(ids)).collect();
        let (rows, mut at) = match self.states.are_placed {
            true => self.set_back(&kept),
            false => self.follow(&kept)?,
        };
        let mut logits = vec![Vec::new(); kept.len()];
        while logits.iter().any(Vec::is_empty) {
            let active =
                (0..kept.len()).filter(|&k| self.states.are_placed || at[k] < kept[k].len());
            let active: Vec<usize> = active.collect();
            let is_long = active.iter().all(|&k| kept[k].len() - at[k] >= self.length);
            let (entry, count) = if is_long { (0, self.length) } else { (1, 1) };
            // Who has all waits at the last id; rows that are not active, at the first.
            let starts: Vec<usize> =
                active.iter().map(|&k| at[k].min(kept[k].len() - count)).collect();
            let all = self.seen.len();
            let (mut ids, mut places) = (vec![0; all * count], vec![0; all]);
            let idle = (0..all).filter(|row| !active.iter().any(|&k| rows[k] == *row));
            idle.for_each(|row| self.seen[row].clear());
            for (&k, &start) in active.iter().zip(&starts) {
                let row = rows[k];
                ids[row * count..][..count].copy_from_slice(&kept[k][start..start + count]);
                places[row] = start;
                self.seen[row].truncate(start);
            }
            let called = match self.call(entry, &ids, &places) {
                Err(RunError::Index { extent, .. })
                    if self.room.is_none()
                        && starts.iter().any(|&at| at > 0 && (at + count) as i64 > extent) =>
                {
                    self.room = Some(extent as usize);
                    return self.go_on(sequences, are_several);
                }
                called => called?,
            };
            let mut ended = Vec::new();
            for (&k, &start) in active.iter().zip(&starts) {
                let end = start + count;
                self.seen[rows[k]].extend_from_slice(&kept[k][start..end]);
                if at[k] < end && end == kept[k].len() {
                    logits[k] = self.row(&called, rows[k] * count + count - 1);
                    ended.push(rows[k]);
                }
                at[k] = end;
            }
            if are_several && !self.states.are_placed {
                self.leave(&ended)?;
            }
        }
        Ok(logits)
    }

    /// The row that has seen most of each sequence, and how much that is.
    fn set_back(&self, sequences: &[&[i32]]) -> (Vec<usize>, Vec<usize>) {
        let rows = self.rows_of(sequences);
        let known = |(ids, &row): (&&[i32], &usize)| same(&self.seen[row], ids).min(ids.len() - 1);
        let at = sequences.iter().zip(&rows).map(known).collect();
        (rows, at)
    }

    /// A row for each sequence, with the states that were left where the sequence goes on, and how
    /// much they have seen.
    fn follow(&mut self, sequences: &[&[i32]]) -> Result<(Vec<usize>, Vec<usize>), Error> {
        let begins = |ids: &[i32], seen: &[i32]| seen.len() < ids.len() && ids.starts_with(seen);
        let mut states = None;
        let mut at = Vec::new();
        for (row, ids) in sequences.iter().enumerate() {
            if !begins(ids, &self.seen[row]) {
                self.seen[row].clear();
            }
            let found = self.left.iter().filter(|left| begins(ids, &left.ids));
            let longest = found.max_by_key(|left| left.ids.len());
            if let Some(left) = longest.filter(|left| left.ids.len() > self.seen[row].len()) {
                let states = match &mut states {
                    Some(states) => states,
                    none => none.insert(self.states.read(&*self.executable)?),
                };
                self.states.put(states, row, &left.states);
                self.seen[row].clone_from(&left.ids);
            }
            at.push(self.seen[row].len());
        }
        if let Some(states) = states {
            self.states.write(&*self.executable, &states)?;
        }
        Ok(((0..sequences.len()).collect(), at))
    }

    /// Notes what the states of some rows hold.
    fn leave(&mut self, rows: &[usize]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let states = self.states.read(&*self.executable)?;
        for &row in rows {
            let states = self.states.part(&states, row);
            self.left.push(Left { ids: self.seen[row].clone(), states });
        }
        Ok(())
    }

    /// What of a sequence there is room for.
    fn remembered<'i>(&self, ids: &'i [i32]) -> &'i [i32] {
        let beyond = ids.len().saturating_sub(self.room.unwrap_or(usize::MAX));
        let half = self.room.map_or(1, |room| (room / 2).max(1));
        &ids[beyond.div_ceil(half) * half..]
    }

    /// The row for each sequence.
    fn rows_of(&self, sequences: &[&[i32]]) -> Vec<usize> {
        let mut free: Vec<usize> = (0..self.seen.len()).rev().collect();
        let row = |ids: &&[i32]| {
            let best = (0..free.len()).max_by_key(|&k| same(&self.seen[free[k]], ids));
            free.remove(best.expect("there is a row for each sequence"))
        };
        sequences.iter().map(row).collect()
    }

    fn row(&self, logits: &[f32], position: usize) -> Vec<f32> {
        let width = self.ids();
        logits[position * width..][..width].to_vec()
    }

    fn call(&self, entry: usize, ids: &[i32], at: &[usize]) -> Result<Vec<f32>, RunError> {
        let program = self.executable.program();
        let outputs = program.entries[entry].outputs.iter();
        let mut outputs: Vec<Tensor> = outputs.map(|&b| empty(program.buffer(b))).collect();
        let rows = self.seen.len();
        let ids = Tensor::i32([rows, ids.len() / rows], ids.to_vec());
        let at = self.position.map(|position| position.tensor(at));
        let inputs: Vec<&Tensor> = std::iter::once(&ids).chain(&at).collect();
        self.executable.call(entry, &inputs, &mut outputs)?;
        Ok(outputs[0].as_f32().expect("logits are f32").to_vec())
    }
}

impl Scores for Engine {
    fn after(&mut self, sequences: &[(usize, &[i32])]) -> Result<Vec<Vec<f32>>, Error> {
        let sequences: Vec<&[i32]> = sequences.iter().map(|&(_, ids)| ids).collect();
        if self.way != Way::Continued {
            return sequences.iter().map(|ids| self.anew(ids)).collect();
        }
        let (mut logits, left) = (Vec::new(), self.left.len());
        for some in sequences.chunks(self.seen.len()) {
            logits.extend(self.go_on(some, sequences.len() > 1)?);
        }
        self.left.drain(..left);
        Ok(logits)
    }
}

/// A model with all its sizes.
struct Bound {
    entries: Vec<EntryGraph>,
    /// The ids of a call of the first entry.
    length: usize,
    init: Graph,
    states: States,
}

/// The model for so many ids at a time, or for chunks of them and single ones.
fn bound(
    module: &Module,
    model: &str,
    (signature, rows): (&Signature, usize),
    bindings: &Bindings,
    length: Option<usize>,
) -> Result<Bound, Error> {
    let model = module.model(model)?;
    let elaborate = |length: i64, rows: usize| {
        let mut sizes = bindings.clone();
        sizes.extend(signature.batch.iter().map(|dim| (dim.clone(), rows as i64)));
        sizes.extend(signature.time.iter().map(|dim| (dim.clone(), length)));
        model.elaborate(&sizes)
    };
    let last = length.map_or(1, |length| length as i64);
    let (mut entry, init) = elaborate(last, rows)?;
    entry.name = if last == 1 { "decode" } else { "prefill" }.into();
    let chunk = CHUNKS.iter().filter(|_| length.is_none());
    let chunk = chunk.map(|&chunk| (chunk, elaborate(chunk, rows)));
    let chunk = chunk.filter_map(|(chunk, bound)| Some((chunk, bound.ok()?.0))).next();
    let longest = chunk.as_ref().map_or(last, |(chunk, _)| *chunk) as usize;
    let chunk = chunk.map(|(_, entry)| EntryGraph { name: "prefill".into(), ..entry });

    let more = if rows > 1 { Some(elaborate(last, rows + 1)?.0.graph) } else { None };
    let at = signature.at.as_ref().map(|(name, _)| name.as_str());
    let states = States::of(&entry.graph, more.as_ref(), rows, at);
    let entries = chunk.into_iter().chain([entry]).collect();
    Ok(Bound { entries, length: longest, init, states })
}

/// How many first ids are the same.
fn same(a: &[i32], b: &[i32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
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
