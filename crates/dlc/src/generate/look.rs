//! Where a translation looks: the weights of attention, for pictures.

use super::{GenerateOptions, Task, sizes, translate_ids, vocabulary_of};
use crate::{Error, Module};
use dlc_kernel::{DType, Tensor};
use dlc_train::{END, Vocabulary, WeightsFile};
use std::ops::ControlFlow;

/// How much each piece of a translation looked at each piece of the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// The pieces of the source, its end included.
    pub source: Vec<String>,
    /// The pieces of the translation, its end included.
    pub target: Vec<String>,
    /// For each head a weight for each piece of the target, and there for each of the source.
    pub heads: Vec<Vec<f32>>,
}

/// Translates the prompt, and tells where that looks: at the model's second result,
/// `f32[N, A, T, S]`, of A heads.
///
/// # Errors
/// If the model has no such result, or as [`super::generate`].
pub fn attention(
    module: &Module,
    model: &str,
    weights: &WeightsFile,
    options: &GenerateOptions,
) -> Result<Attention, Error> {
    let file = weights.read()?;
    let vocabulary = vocabulary_of(&file, weights)?;
    let sentence = [options.prompt.as_str()];
    let mut keep_on = |_| ControlFlow::Continue(());
    let found = translate_ids(module, model, (&file, weights), &sentence, options, &mut keep_on)?;
    let mut target = found.into_iter().next().unwrap_or_default();
    let mut source = vocabulary.of_sources().encode(options.prompt.trim())?;
    source.push(END);
    let ids = [&[END], target.as_slice()].concat();
    target.push(END);

    let task = Task::of(module, model, Some(vocabulary), &options.bindings)?;
    let Task::Translate(signature) = task else { unreachable!("it has translated") };
    let (mut bindings, _) = sizes(module, model, Some(vocabulary), &options.bindings)?;
    bindings.extend(signature.sizes([1, source.len(), ids.len()]));
    let network = module.model(model)?.bind_all(&bindings)?;
    weights.load(network.executable())?;
    let length = Tensor::i32([1], vec![source.len() as i32]);
    let given = Tensor::i32([1, source.len()], source.clone());
    let ids = Tensor::i32([1, ids.len()], ids);
    let inputs = signature.inputs(given, length, ids);
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, t)| (*name, t)).collect();
    let outputs = network.run(&inputs)?;
    let found = outputs.iter().nth(1).map(|(_, tensor)| tensor);
    let extents = [target.len(), source.len()];
    let found = found.filter(|tensor| {
        tensor.dtype() == DType::F32 && tensor.shape.len() == 4 && tensor.shape[2..] == extents
    });
    let found = found.ok_or_else(|| {
        Error::Argument(format!(
            "the model `{model}` does not tell where it looks: its second result would be weights, \
             f32[N, A, T, S]"
        ))
    })?;
    let heads = found.as_f32().expect("weights are f32").chunks(extents[0] * extents[1]);
    let heads = heads.map(<[f32]>::to_vec).collect();
    let pieces = |words: &Vocabulary, ids: &[i32]| ids.iter().map(|&id| piece(words, id)).collect();
    let source = pieces(vocabulary.of_sources(), &source);
    Ok(Attention { source, target: pieces(vocabulary, &target), heads })
}

/// The text of an id, for people.
fn piece(vocabulary: &Vocabulary, id: i32) -> String {
    match id {
        END => "<end>".into(),
        id => vocabulary.decode(&[id]),
    }
}
