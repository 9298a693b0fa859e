//! Beam search: the likeliest sequence among those that few others hide.

use super::engine::Engine;
use super::sample::likeliest;
use super::{GenerateOptions, Generated};
use crate::Error;
use dlc_train::{END, Vocabulary};
use std::ops::ControlFlow;
use std::time::Instant;

/// A sequence with the logarithm of its probability.
#[derive(Clone)]
struct Hypothesis {
    ids: Vec<i32>,
    log: f64,
    ended: bool,
}

impl Hypothesis {
    /// The mean logarithm of an id's probability: longer sequences are not worse for being longer.
    fn score(&self, prompt: usize) -> f64 {
        let chosen = self.ids.len() - prompt + usize::from(self.ended);
        self.log / chosen.max(1) as f64
    }
}

/// Follows the `beams` likeliest sequences; gives the one whose ids are likeliest on average.
pub(super) fn search(
    engine: &mut Engine,
    vocabulary: &Vocabulary,
    prompt: &[i32],
    beams: usize,
    options: &GenerateOptions,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let begun = Instant::now();
    let mut first_seconds = 0.0;
    let mut all = vec![Hypothesis { ids: prompt.to_vec(), log: 0.0, ended: false }];
    for step in 0..options.tokens {
        if all.iter().all(|h| h.ended) || sink("").is_break() {
            break;
        }
        let mut next = Vec::new();
        for hypothesis in &all {
            next.extend(continued(engine, vocabulary, hypothesis, beams)?);
        }
        next.sort_by(|a, b| b.log.total_cmp(&a.log));
        next.truncate(beams);
        all = next;
        if step == 0 {
            first_seconds = begun.elapsed().as_secs_f64();
        }
    }
    let score = |h: &Hypothesis| h.score(prompt.len());
    let best = all.into_iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    let ids = best.map(|h| h.ids[prompt.len()..].to_vec()).unwrap_or_default();
    let text = vocabulary.decode(&ids);
    let _ = sink(&text);
    let seconds = begun.elapsed().as_secs_f64() - first_seconds;
    Ok(Generated { text, ids, prompt: prompt.len(), first_seconds, seconds })
}

/// The likeliest sequences one id longer; one that has ended stays as it is.
fn continued(
    engine: &mut Engine,
    vocabulary: &Vocabulary,
    hypothesis: &Hypothesis,
    count: usize,
) -> Result<Vec<Hypothesis>, Error> {
    if hypothesis.ended {
        return Ok(vec![hypothesis.clone()]);
    }
    let logits = engine.after(&hypothesis.ids)?;
    let longer = likeliest(&logits, count).into_iter().map(|(id, log)| {
        let mut next = Hypothesis { log: hypothesis.log + log, ..hypothesis.clone() };
        next.ended = vocabulary.has_end() && id == END;
        if !next.ended {
            next.ids.push(id);
        }
        next
    });
    Ok(longer.collect())
}
