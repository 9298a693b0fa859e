//! Encoder-decoder models: one sequence of ids from another. What depends on the source alone is
//! computed once for each sentence, the rest for every word; of that, a model that keeps what it has
//! seen in states computes what is new.

use super::beam::{Limits, Scores, search};
use super::engine::{Keeps, Position};
use super::states::{States, dim_of, gather};
use super::{Beams, padded_to, require_causal, require_width};
use crate::network::{empty, extents, initialize};
use crate::pipeline::{self, EntryGraph};
use crate::{Bindings, Error, Module};
use dlc_graph::{Graph, Outcome, Type};
use dlc_kernel::{BufferId, DType, Executable, RunError, Tensor};
use dlc_pass::{Early, split_early};
use dlc_train::{END, Vocabulary, Weights, WeightsFile};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// The names of a model's inputs and of the dims of the two sequences.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    source: String,
    source_length: String,
    ids: String,
    /// The position of the first of the ids, where the states hold those before.
    at: Option<(String, Position)>,
    batch: String,
    from: String,
    to: String,
}

/// A model with its weights.
pub(super) struct Translator<'m> {
    module: &'m Module,
    model: &'m str,
    signature: Signature,
    bindings: Bindings,
    weights: (&'m Weights, &'m WeightsFile),
    vocabulary: &'m Vocabulary,
    /// By number of sequences, length of the sources and length of the targets.
    decoders: HashMap<[usize; 3], Decoder>,
    /// By number of sequences and length of the sources.
    encoders: HashMap<[usize; 2], Encoder>,
    /// Whether later ids have been shown to leave earlier logits alone.
    is_causal: bool,
}

/// What is computed once for each sentence.
struct Encoder {
    executable: Box<dyn Executable>,
    /// Its results, and the dim of each that is the sentences.
    dims: HashMap<String, Option<usize>>,
}

/// What is computed for every word.
struct Decoder {
    executable: Box<dyn Executable>,
    states: States,
}

/// Sentences that are translated together, and what is known of them.
struct Encoded<'t, 'm> {
    translator: &'t mut Translator<'m>,
    /// The padded length of the sources.
    length: usize,
    /// What a decoder may ask for, by name: a part for each sentence, along a dim.
    encoded: HashMap<String, (Tensor, usize)>,
    /// Whose sequences the rows of `rows` are.
    owners: Vec<usize>,
    /// The inputs of a decoder.
    rows: HashMap<String, Tensor>,
    /// What the rows of the decoder's states come from: whose sequences, and the ids so far.
    seen: Vec<(usize, Vec<i32>)>,
}

/// Sentences that are translated at a time.
const TOGETHER: usize = 32;

impl Signature {
    /// The signature of a model that takes a source, its lengths, ids, and perhaps a position, if it
    /// does.
    ///
    /// # Errors
    /// If what it keeps is asked for, and not known.
    pub fn of(inputs: &[(String, Type)], keeps: Keeps<'_>) -> Result<Option<Signature>, Error> {
        let [given @ .., last] = inputs else { return Ok(None) };
        if given.len() < 3 {
            return Ok(Signature::of_sequences(inputs));
        }
        let Some(signature) = Signature::of_sequences(given) else { return Ok(None) };
        let position = Position::of(&last.1, &given[0].1.shape[0], keeps)?;
        Ok(position.map(|position| Signature { at: Some((last.0.clone(), position)), ..signature }))
    }

    fn of_sequences(inputs: &[(String, Type)]) -> Option<Signature> {
        let [source, source_length, ids] = inputs else { return None };
        let rank = |input: &(String, Type)| (input.1.dtype == DType::I32).then(|| input.1.rank());
        if [rank(source), rank(source_length), rank(ids)] != [Some(2), Some(1), Some(2)] {
            return None;
        }
        let dim =
            |input: &(String, Type), at: usize| input.1.shape[at].as_symbol().map(String::from);
        let batch = dim(source, 0)?;
        let is_batch = |input| dim(input, 0).as_ref() == Some(&batch);
        (is_batch(source_length) && is_batch(ids)).then_some(())?;
        Some(Signature {
            from: dim(source, 1)?,
            to: dim(ids, 1)?,
            batch,
            source: source.0.clone(),
            source_length: source_length.0.clone(),
            ids: ids.0.clone(),
            at: None,
        })
    }

    /// Whether the model goes on from its states.
    pub fn is_continued(&self) -> bool {
        self.at.is_some()
    }

    /// The sizes of the dims for so many sequences and these lengths.
    pub fn sizes(&self, [rows, from, to]: [usize; 3]) -> Bindings {
        let dims = [(&self.batch, rows), (&self.from, from), (&self.to, to)];
        dims.into_iter().map(|(dim, size)| (dim.clone(), size as i64)).collect()
    }

    /// The inputs with their names; the ids are the first ones.
    pub fn inputs(&self, source: Tensor, length: Tensor, ids: Tensor) -> Vec<(&str, Tensor)> {
        let rows = length.shape[0];
        let at = self.at.as_ref().map(|(at, position)| (&**at, position.tensor(&vec![0; rows])));
        let others = [(&*self.source, source), (&*self.source_length, length), (&*self.ids, ids)];
        others.into_iter().chain(at).collect()
    }
}

impl<'m> Translator<'m> {
    /// The model; `bindings` give the dims that are not those of the sequences.
    pub fn new(
        module: &'m Module,
        model: &'m str,
        signature: Signature,
        bindings: Bindings,
        weights: (&'m Weights, &'m WeightsFile),
        vocabulary: &'m Vocabulary,
    ) -> Translator<'m> {
        let (decoders, encoders) = Default::default();
        Translator {
            module,
            model,
            signature,
            bindings,
            weights,
            vocabulary,
            decoders,
            encoders,
            is_causal: false,
        }
    }

    /// The translations of some sentences, in their order; nothing of nothing. `keep_on` gets how
    /// many are done, and may break off; what is not done then is empty.
    pub fn translate(
        &mut self,
        sentences: &[Vec<i32>],
        beams: &Beams,
        tokens: usize,
        keep_on: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<i32>>, Error> {
        let is_empty = |&k: &usize| sentences[k] == [END];
        let mut order: Vec<usize> = (0..sentences.len()).filter(|k| !is_empty(k)).collect();
        order.sort_by_key(|&k| sentences[k].len());
        let mut translations = vec![Vec::new(); sentences.len()];
        let limits = Limits { tokens, has_end: true };
        for (done, chosen) in order.chunks(TOGETHER).enumerate() {
            let sources: Vec<Vec<i32>> = chosen.iter().map(|&k| sentences[k].clone()).collect();
            let prompts = vec![vec![END]; sources.len()];
            let mut encoded = Encoded::new(self, &sources)?;
            let mut keep_on = || keep_on(done * TOGETHER);
            let found = search(&mut encoded, &prompts, beams, limits, &mut keep_on)?;
            chosen.iter().zip(found).for_each(|(&k, ids)| translations[k] = ids);
            if keep_on().is_break() {
                break;
            }
        }
        Ok(translations)
    }

    /// The two graphs for these sizes, and that of first values.
    fn graphs(&self, extents: [usize; 3]) -> Result<(Early, Graph), Error> {
        let Signature { source, source_length, .. } = &self.signature;
        let mut sizes = self.bindings.clone();
        sizes.extend(self.signature.sizes(extents));
        let (entry, init) = self.module.model(self.model)?.elaborate(&sizes)?;
        Ok((split_early(&entry.graph, &[source, source_length]), init))
    }

    fn build(&self, name: &str, graph: Graph, init: &Graph) -> Result<Box<dyn Executable>, Error> {
        let compiler = &self.module.compiler;
        let entry = EntryGraph { name: name.to_owned(), graph };
        let (executable, _) = pipeline::build(&[entry], compiler.target_ref(), &compiler.options)?;
        initialize(init, &*executable, 0, compiler)?;
        self.weights.0.apply(&*executable, &self.weights.1.path)?;
        Ok(executable)
    }

    fn encoder(&mut self, [rows, from]: [usize; 2]) -> Result<&Encoder, Error> {
        if !self.encoders.contains_key(&[rows, from]) {
            let to = if self.signature.is_continued() { 1 } else { padded_to(1) };
            let (Early { first, .. }, init) = self.graphs([rows, from, to])?;
            let (more, _) = self.graphs([rows + 1, from, to])?;
            let dim =
                |result: &Outcome| (result.name.clone(), dim_of(&first, &more.first, result, rows));
            let dims = first.results().iter().map(dim).collect();
            let executable = self.build("encode", first, &init)?;
            self.encoders.insert([rows, from], Encoder { executable, dims });
        }
        Ok(&self.encoders[&[rows, from]])
    }

    fn decoder(&mut self, [rows, from, to]: [usize; 3]) -> Result<&Decoder, Error> {
        let sizes = [rows, from, to];
        if !self.decoders.contains_key(&sizes) {
            let (Early { second, .. }, init) = self.graphs(sizes)?;
            let at = self.signature.at.as_ref().map(|(name, _)| name.as_str());
            let more = self.graphs([rows + 1, from, to])?.0.second;
            let states = States::of(&second, Some(&more), rows, at);
            states.require_dims(self.model)?;
            let executable = self.build("decode", second, &init)?;
            self.check_output(&*executable, sizes)?;
            self.decoders.insert(sizes, Decoder { executable, states });
        }
        Ok(&self.decoders[&sizes])
    }
}

impl Translator<'_> {
    /// Whether the decoder gives logits for each position.
    fn check_output(
        &self,
        decoder: &dyn Executable,
        [rows, _, to]: [usize; 3],
    ) -> Result<(), Error> {
        let program = decoder.program();
        let output = program.buffer(program.entries[0].outputs[0]);
        let extents = extents(output);
        if output.dtype != DType::F32 || extents.len() != 3 || extents[..2] != [rows, to] {
            return Err(Error::Argument(format!(
                "the model `{}` gives {}{extents:?}, not logits f32[N, T, V]",
                self.model, output.dtype
            )));
        }
        require_width(extents[2], self.vocabulary)
    }
}

/// Calls the only entry with inputs by name; gives the outputs by name.
fn call(
    executable: &dyn Executable,
    inputs: &HashMap<String, Tensor>,
) -> Result<Vec<(String, Tensor)>, Error> {
    let program = executable.program();
    let entry = &program.entries[0];
    let find = |&b: &BufferId| {
        let buffer = program.buffer(b);
        let fits = |tensor: &&Tensor| tensor.shape == extents(buffer);
        let changes = || Error::Argument("what the source decides depends on other lengths".into());
        inputs.get(&buffer.name).filter(fits).ok_or_else(changes)
    };
    let inputs = entry.inputs.iter().map(find).collect::<Result<Vec<&Tensor>, Error>>()?;
    let outputs = entry.outputs.iter().map(|&b| program.buffer(b));
    let mut made: Vec<Tensor> = outputs.clone().map(empty).collect();
    executable.call(0, &inputs, &mut made)?;
    Ok(outputs.map(|b| b.name.clone()).zip(made).collect())
}

impl<'t, 'm> Encoded<'t, 'm> {
    fn new(translator: &'t mut Translator<'m>, sources: &[Vec<i32>]) -> Result<Self, Error> {
        let sentences = sources.len();
        let length = padded_to(sources.iter().map(Vec::len).max().unwrap_or(0));
        let ids = sources.iter().flat_map(|ids| filled(ids, length)).collect();
        let lengths = sources.iter().map(|ids| ids.len() as i32).collect();
        let Signature { source, source_length, .. } = translator.signature.clone();
        let given = HashMap::from([
            (source, Tensor::i32([sentences, length], ids)),
            (source_length, Tensor::i32([sentences], lengths)),
        ]);
        let encoder = translator.encoder([sentences, length])?;
        let made = call(&*encoder.executable, &given)?;
        let mut encoded: HashMap<_, _> =
            given.into_iter().map(|(name, t)| (name, (t, 0))).collect();
        for (name, tensor) in made {
            let Some(dim) = encoder.dims[&name] else {
                return Err(Error::Argument(format!(
                    "`{}` mixes sentences: of what it makes of the source, {:?} has no dim that is \
                     their number",
                    translator.model, tensor.shape
                )));
            };
            encoded.insert(name, (tensor, dim));
        }
        let (owners, rows, seen) = Default::default();
        Ok(Encoded { translator, length, encoded, owners, rows, seen })
    }

    /// Copies what is known of the sentence of each row.
    fn share_out(&mut self, owners: Vec<usize>) {
        if owners == self.owners {
            return;
        }
        for (name, (tensor, dim)) in &self.encoded {
            self.rows.insert(name.clone(), gather(tensor, *dim, &owners));
        }
        self.owners = owners;
    }

    /// The logits at all positions of the sequences, filled up with `filler`.
    fn scores(
        &mut self,
        sequences: &[(usize, &[i32])],
        to: usize,
        filler: i32,
    ) -> Result<Tensor, Error> {
        let rows = self.owners.len();
        let ids = sequences
            .iter()
            .flat_map(|(_, ids)| ids.iter().copied().chain(std::iter::repeat(filler)).take(to));
        let ids = ids.chain(std::iter::repeat(filler)).take(rows * to).collect();
        let name = self.translator.signature.ids.clone();
        self.rows.insert(name, Tensor::i32([rows, to], ids));
        let decoder = self.translator.decoder([rows, self.length, to])?;
        Ok(call(&*decoder.executable, &self.rows)?.swap_remove(0).1)
    }
}

impl Scores for Encoded<'_, '_> {
    fn after(&mut self, sequences: &[(usize, &[i32])]) -> Result<Vec<Vec<f32>>, Error> {
        let owner = |row: usize| sequences.get(row).map_or(0, |&(owner, _)| owner);
        self.share_out((0..rows_for(sequences.len())).map(owner).collect());
        match self.translator.signature.at.clone() {
            Some(at) => self.go_on(sequences, at),
            None => self.whole(sequences),
        }
    }
}

impl Encoded<'_, '_> {
    /// The logits after sequences, all ids of which are computed anew.
    fn whole(&mut self, sequences: &[(usize, &[i32])]) -> Result<Vec<Vec<f32>>, Error> {
        let to = padded_to(sequences.iter().map(|(_, ids)| ids.len()).max().unwrap_or(0));
        let scores = self.scores(sequences, to, END)?;
        let last = |scores: &Tensor| {
            let width = *scores.shape.last().unwrap_or(&0);
            let scores = scores.as_f32().expect("logits are f32");
            let after = |(row, (_, ids)): (usize, &(usize, &[i32]))| {
                scores[(row * to + ids.len() - 1) * width..][..width].to_vec()
            };
            sequences.iter().enumerate().map(after).collect::<Vec<_>>()
        };
        let logits = last(&scores);
        if !self.translator.is_causal {
            let others = last(&self.scores(sequences, to, END + 1)?);
            require_causal(&logits.concat(), &others.concat())?;
            self.translator.is_causal = true;
        }
        Ok(logits)
    }

    /// The logits after sequences that have all become an id longer. Where the states have no room
    /// for it, they end.
    fn go_on(
        &mut self,
        sequences: &[(usize, &[i32])],
        (at, kind): (String, Position),
    ) -> Result<Vec<Vec<f32>>, Error> {
        let position = sequences.first().map_or(0, |(_, ids)| ids.len() - 1);
        assert!(sequences.iter().all(|(_, ids)| ids.len() == position + 1), "they grow together");
        if position > 0 {
            self.follow(sequences)?;
        }
        self.seen = sequences.iter().map(|&(owner, ids)| (owner, ids.to_vec())).collect();
        let rows = self.owners.len();
        self.rows.insert(at, kind.tensor(&vec![position; rows]));
        let last = sequences.iter().map(|(_, ids)| ids[position]);
        let last = last.chain(std::iter::repeat(END)).take(rows).collect();
        self.rows.insert(self.translator.signature.ids.clone(), Tensor::i32([rows, 1], last));
        let width = self.translator.vocabulary.len();
        let decoder = self.translator.decoder([rows, self.length, 1])?;
        let scores = match call(&*decoder.executable, &self.rows) {
            Err(Error::Run(RunError::Index { extent, .. }))
                if position > 0 && position as i64 >= extent =>
            {
                let mut ended = vec![f32::NEG_INFINITY; width];
                ended[END as usize] = 0.0;
                return Ok(vec![ended; sequences.len()]);
            }
            called => called?.swap_remove(0).1,
        };
        let scores = scores.as_f32().expect("logits are f32").chunks_exact(width);
        Ok(scores.take(sequences.len()).map(<[f32]>::to_vec).collect())
    }

    /// Gives each row of the decoder's states what belongs to the sequence that it goes on with.
    fn follow(&mut self, sequences: &[(usize, &[i32])]) -> Result<(), Error> {
        let from = |&(owner, ids): &(usize, &[i32])| {
            let before = &ids[..ids.len() - 1];
            let place = self.seen.iter().position(|(o, seen)| *o == owner && seen == before);
            place.expect("it was followed")
        };
        let mut from: Vec<usize> = sequences.iter().map(from).collect();
        let (old, new) = (rows_for(self.seen.len()), self.owners.len());
        if old == new && from.iter().enumerate().all(|(row, &from)| row == from) {
            return Ok(());
        }
        from.resize(new, 0);
        let Decoder { executable, states } = self.translator.decoder([old, self.length, 1])?;
        let moved = states.gather(&states.read(&**executable)?, &from);
        let Decoder { executable, states } = self.translator.decoder([new, self.length, 1])?;
        Ok(states.write(&**executable, &moved)?)
    }
}

/// Rows of a program for so many sequences: few programs, with few rows that nobody needs.
fn rows_for(sequences: usize) -> usize {
    match sequences {
        0..TOGETHER => sequences.next_power_of_two(),
        _ => sequences.next_multiple_of(TOGETHER),
    }
}

/// Ids filled up with marks.
fn filled(ids: &[i32], length: usize) -> impl Iterator<Item = i32> {
    ids.iter().copied().chain(std::iter::repeat(END)).take(length)
}
