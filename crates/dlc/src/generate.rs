//! Text from a model that was trained on text: one id after the other, from the logits that it gives
//! for those before; with an encoder, from those of another text.

mod beam;
mod engine;
mod look;
mod sample;
mod states;
mod task;
mod translate;

use crate::{Bindings, Error, Module};
pub use beam::Beams;
use beam::{Limits, Scores, search};
use dlc_train::{END, Vocabulary, Weights, WeightsFile};
use engine::Engine;
pub use look::{Attention, attention};
pub use sample::Sampling;
use std::ops::ControlFlow;
use std::time::Instant;
use task::Task;
pub use task::{generating_model, translates};
use translate::Translator;

/// What is asked of [`generate`].
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// What the text begins with, or what is to be translated.
    pub prompt: String,
    /// How many ids are chosen at most.
    pub tokens: usize,
    /// How each is chosen, unless the likeliest sequence is searched for.
    pub sampling: Sampling,
    /// How the likeliest sequence is searched for; a translation always is.
    pub beams: Option<Beams>,
    /// Values of dims that the model leaves open.
    pub bindings: Bindings,
}

/// What came of [`generate`].
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The text without the prompt.
    pub text: String,
    /// The ids that were chosen.
    pub ids: Vec<i32>,
    /// The prompt's ids.
    pub prompt: usize,
    /// Seconds until the first id, with the prompt.
    pub first_seconds: f64,
    /// Seconds for the ids after the first.
    pub seconds: f64,
}

/// Generates text. `sink` gets it piece by piece, and may end it. Ends at the mark `<end>` where the
/// vocabulary has it.
///
/// The vocabulary is that in the weights' file. The model takes ids, `i32[N, T]`, and gives logits,
/// `f32[N, T, V]` for each position or `f32[N, V]` for the last one; if it takes a position too,
/// `i32[]`, or one for each sequence, `i32[N]`, it is asked only about new ids and is to remember the
/// others in its states; where these have no more room, the first ids are forgotten. A model that takes a source, `i32[N, S]`, and
/// its lengths, `i32[N]`, before that translates the prompt; where its states have no more room, the
/// translation ends.
///
/// # Errors
/// If model, weights, vocabulary and prompt do not fit together, or a call fails.
pub fn generate(
    module: &Module,
    model: &str,
    weights: &WeightsFile,
    options: &GenerateOptions,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let file = weights.read()?;
    let vocabulary = vocabulary_of(&file, weights)?;
    let signature = match Task::of(module, model, Some(vocabulary), &options.bindings)? {
        Task::Continue(signature) => signature,
        Task::Translate(_) => return translate_one(module, model, (&file, weights), options, sink),
    };
    let prompt = prompt_ids(vocabulary, &options.prompt)?;
    let (model, prompts) = ((module, model, &signature), std::slice::from_ref(&prompt));
    let mut engine = engine(model, (&file, weights), prompts, options)?;
    match &options.beams {
        Some(beams) => search_one(&mut engine, vocabulary, prompt, beams, options, sink),
        None => sample_one(&mut engine, vocabulary, prompt, options, sink),
    }
}

/// Continues texts; gives what comes after each, in their order. Those of a model with a position
/// for each sequence are continued together. Each is drawn with a seed of its own, from the options'
/// on; their prompt is not used. `keep_on` gets how many are done, and may break off; what is not done
/// then is empty.
///
/// # Errors
/// As [`generate`], and if the model translates.
pub fn continue_texts(
    module: &Module,
    model: &str,
    weights: &WeightsFile,
    prompts: &[&str],
    options: &GenerateOptions,
    keep_on: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<String>, Error> {
    let file = weights.read()?;
    let vocabulary = vocabulary_of(&file, weights)?;
    let task = Task::of(module, model, Some(vocabulary), &options.bindings)?;
    let Task::Continue(signature) = task else {
        let message = format!("the model `{model}` takes a source: it does not continue texts");
        return Err(Error::Argument(message));
    };
    let prompts = prompts.iter().map(|prompt| prompt_ids(vocabulary, prompt));
    let prompts = prompts.collect::<Result<Vec<Vec<i32>>, Error>>()?;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let mut engine = engine((module, model, &signature), (&file, weights), &prompts, options)?;
    let beams = options.beams.map_or(1, |beams| beams.count);
    let together = (engine.rows() / beams).max(1);
    let mut texts = vec![String::new(); prompts.len()];
    for (k, some) in prompts.chunks(together).enumerate() {
        let done = k * together;
        let mut keep_on = || keep_on(done);
        let found = match &options.beams {
            Some(beams) => {
                let limits = limits(vocabulary, options);
                search(&mut engine, some, beams, limits, &mut keep_on)?
            }
            None => {
                let seed = options.sampling.seed.wrapping_add(done as i32);
                let sampling = Sampling { seed, ..options.sampling };
                let options = GenerateOptions { sampling, ..options.clone() };
                sample(&mut engine, vocabulary, some, &options, &mut |_| keep_on())?
            }
        };
        found.iter().zip(&mut texts[done..]).for_each(|(ids, text)| *text = vocabulary.decode(ids));
        if keep_on().is_break() {
            break;
        }
    }
    Ok(texts)
}

/// What gives logits after prompts.
fn engine(
    (module, model, signature): (&Module, &str, &engine::Signature),
    (file, weights): (&Weights, &WeightsFile),
    prompts: &[Vec<i32>],
    options: &GenerateOptions,
) -> Result<Engine, Error> {
    let vocabulary = vocabulary_of(file, weights)?;
    let (bindings, length) = sizes(module, model, Some(vocabulary), &options.bindings)?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let sizes = (&bindings, length, longest + options.tokens);
    let beams = options.beams.map_or(1, |beams| beams.count);
    let rows = signature.rows(prompts.len().saturating_mul(beams));
    let engine = Engine::new(module, model, (signature, rows), sizes, (file, weights))?;
    require_width(engine.ids(), vocabulary)?;
    Ok(engine)
}

/// Translates sentences by a model with an encoder; gives them in their order. `keep_on` gets how
/// many are done, and may break off; what is not done then is empty. The options' prompt is not
/// used.
///
/// # Errors
/// As [`generate`], and if the model does not translate.
pub fn translate(
    module: &Module,
    model: &str,
    weights: &WeightsFile,
    sentences: &[&str],
    options: &GenerateOptions,
    keep_on: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<String>, Error> {
    let file = weights.read()?;
    let vocabulary = vocabulary_of(&file, weights)?;
    let ids = translate_ids(module, model, (&file, weights), sentences, options, keep_on)?;
    Ok(ids.iter().map(|ids| vocabulary.decode(ids).trim().to_owned()).collect())
}

fn translate_ids(
    module: &Module,
    model: &str,
    (file, path): (&Weights, &WeightsFile),
    sentences: &[&str],
    options: &GenerateOptions,
    keep_on: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Vec<i32>>, Error> {
    let vocabulary = vocabulary_of(file, path)?;
    let task = Task::of(module, model, Some(vocabulary), &options.bindings)?;
    let Task::Translate(signature) = task else {
        let message = format!("the model `{model}` takes no source: it does not translate");
        return Err(Error::Argument(message));
    };
    if !vocabulary.has_end() {
        return Err(Error::Argument("the vocabulary has no mark that ends a sentence".into()));
    }
    let source = |sentence: &&str| -> Result<Vec<i32>, Error> {
        let mut ids = vocabulary.of_sources().encode(sentence.trim())?;
        ids.push(END);
        Ok(ids)
    };
    let sources = sentences.iter().map(source).collect::<Result<Vec<_>, Error>>()?;
    let (bindings, length) = sizes(module, model, Some(vocabulary), &options.bindings)?;
    let tokens = options.tokens.min(length.unwrap_or(usize::MAX));
    let beams = options.beams.unwrap_or(Beams { count: 1, length_penalty: 0.0 });
    let weights = (file, path);
    let mut translator = Translator::new(module, model, signature, bindings, weights, vocabulary);
    translator.translate(&sources, &beams, tokens, keep_on)
}

/// The prompt's translation, when it is whole.
fn translate_one(
    module: &Module,
    model: &str,
    (file, weights): (&Weights, &WeightsFile),
    options: &GenerateOptions,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let begun = Instant::now();
    let vocabulary = vocabulary_of(file, weights)?;
    let sentences = [options.prompt.as_str()];
    let mut keep_on = |_| sink("");
    let ids = translate_ids(module, model, (file, weights), &sentences, options, &mut keep_on)?;
    let ids = ids.into_iter().next().unwrap_or_default();
    let prompt = vocabulary.of_sources().encode(options.prompt.trim())?.len();
    Ok(whole(vocabulary, ids, prompt, begun, sink))
}

fn search_one(
    engine: &mut Engine,
    vocabulary: &Vocabulary,
    prompt: Vec<i32>,
    beams: &Beams,
    options: &GenerateOptions,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let begun = Instant::now();
    let limits = limits(vocabulary, options);
    let length = prompt.len();
    let found = search(engine, &[prompt], beams, limits, &mut || sink(""))?;
    let ids = found.into_iter().next().unwrap_or_default();
    Ok(whole(vocabulary, ids, length, begun, sink))
}

fn limits(vocabulary: &Vocabulary, options: &GenerateOptions) -> Limits {
    Limits { tokens: options.tokens, has_end: vocabulary.has_end() }
}

/// Hands out what comes as a whole.
fn whole(
    vocabulary: &Vocabulary,
    ids: Vec<i32>,
    prompt: usize,
    begun: Instant,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Generated {
    let text = vocabulary.decode(&ids);
    let _ = sink(&text);
    let seconds = begun.elapsed().as_secs_f64();
    Generated { text, ids, prompt, first_seconds: seconds, seconds }
}

fn vocabulary_of<'f>(file: &'f Weights, weights: &WeightsFile) -> Result<&'f Vocabulary, Error> {
    file.vocabulary().ok_or_else(|| {
        let path = weights.path.display();
        Error::Argument(format!("`{path}` holds no vocabulary: the model was not trained on text"))
    })
}

/// Whether the logits are for the ids of the vocabulary.
fn require_width(ids: usize, vocabulary: &Vocabulary) -> Result<(), Error> {
    if ids == vocabulary.len() {
        return Ok(());
    }
    Err(Error::Argument(format!(
        "the model gives logits for {ids} ids, the vocabulary has {}",
        vocabulary.len()
    )))
}

/// Whether logits are the same, though what follows differs.
fn require_causal(logits: &[f32], others: &[f32]) -> Result<(), Error> {
    if logits.iter().zip(others).all(|(a, b)| a.to_bits() == b.to_bits()) {
        return Ok(());
    }
    let message = "the model is not causal: what it says of an id depends on later ones";
    Err(Error::Argument(message.into()))
}

/// The length of the program for so many ids: few programs serve all.
fn padded_to(ids: usize) -> usize {
    ids.max(1).next_multiple_of(16)
}

/// Draws what comes after one prompt, and hands it out as it comes.
fn sample_one(
    engine: &mut Engine,
    vocabulary: &Vocabulary,
    prompt: Vec<i32>,
    options: &GenerateOptions,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let begun = Instant::now();
    let mut first_seconds = None;
    let mut stream = Stream::default();
    let (length, prompts) = (prompt.len(), [prompt]);
    let mut drawn = |id: i32| {
        first_seconds.get_or_insert_with(|| begun.elapsed().as_secs_f64());
        stream.add(&vocabulary.bytes(id), sink)
    };
    let ids = sample(engine, vocabulary, &prompts, options, &mut drawn)?.swap_remove(0);
    let all = begun.elapsed().as_secs_f64();
    let first_seconds = first_seconds.unwrap_or(all);
    let text = vocabulary.decode(&ids);
    Ok(Generated { text, ids, prompt: length, first_seconds, seconds: all - first_seconds })
}

/// Draws what comes after prompts; `drawn` gets every id, and may break off.
fn sample(
    engine: &mut Engine,
    vocabulary: &Vocabulary,
    prompts: &[Vec<i32>],
    options: &GenerateOptions,
    drawn: &mut dyn FnMut(i32) -> ControlFlow<()>,
) -> Result<Vec<Vec<i32>>, Error> {
    let mut sequences = prompts.to_vec();
    let mut open: Vec<usize> = (0..prompts.len()).collect();
    'steps: for step in 0..options.tokens {
        let asked: Vec<_> = open.iter().map(|&k| (k, sequences[k].as_slice())).collect();
        let logits = engine.after(&asked)?;
        let mut next = Vec::new();
        for (k, logits) in std::mem::take(&mut open).into_iter().zip(&logits) {
            let seed = options.sampling.seed.wrapping_add(k as i32);
            let chosen = Sampling { seed, ..options.sampling }.choose(logits, step);
            let id = chosen.ok_or_else(|| Error::Argument("all logits are NaN".into()))?;
            if vocabulary.has_end() && id == END {
                continue;
            }
            sequences[k].push(id);
            next.push(k);
            if drawn(id).is_break() {
                break 'steps;
            }
        }
        open = next;
    }
    let after = |(ids, prompt): (&Vec<i32>, &Vec<i32>)| ids[prompt.len()..].to_vec();
    Ok(sequences.iter().zip(prompts).map(after).collect())
}

/// The prompt after the mark that begins a line. Where there is no such mark, a text begins after
/// a line break.
fn prompt_ids(vocabulary: &Vocabulary, prompt: &str) -> Result<Vec<i32>, Error> {
    let mut ids = if vocabulary.has_end() { vec![END] } else { Vec::new() };
    ids.extend(vocabulary.encode(prompt)?);
    if ids.is_empty() {
        let none = |_| Error::Argument("say with --prompt what the text begins with".into());
        ids = vocabulary.encode("\n").map_err(none)?;
    }
    Ok(ids)
}

/// The sizes of the model's dims but for those of the ids, and how many ids it looks at: what is
/// given, else what its `train` section says, if it does.
fn sizes(
    module: &Module,
    model: &str,
    vocabulary: Option<&Vocabulary>,
    given: &Bindings,
) -> Result<(Bindings, Option<usize>), Error> {
    let dims = module.unit().dims_of(model).map_err(|d| module.refuse(&d))?;
    let last = module.unit().last_dim_of(model).map_err(|d| module.refuse(&d))?;
    let mut bindings = given.clone();
    if let (Some(words), Some(dim)) = (vocabulary, last.filter(|dim| dims.contains(dim))) {
        bindings.entry(dim).or_insert(words.len() as i64);
    }
    if let Some(size) = vocabulary.and_then(Vocabulary::source_size).filter(|_| dims.contains("U"))
    {
        bindings.entry("U".to_owned()).or_insert(size as i64);
    }
    let trained = module.trainable().into_iter().find(|name| *name == model);
    let specs = trained.and_then(|name| module.unit().data(name).ok());
    let length = bindings.get("T").copied().or_else(|| specs?.first()?.number("T"));
    Ok((bindings, length.map(|n| n.max(1) as usize)))
}

/// Bytes to text, as soon as characters are whole.
#[derive(Default)]
struct Stream {
    pending: Vec<u8>,
}

impl Stream {
    fn add(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.pending.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.pending) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.pending.len(),
        };
        let rest = self.pending.split_off(whole);
        let text = std::mem::replace(&mut self.pending, rest);
        if text.is_empty() {
            ControlFlow::Continue(())
        } else {
            sink(&String::from_utf8_lossy(&text))
        }
    }
}
