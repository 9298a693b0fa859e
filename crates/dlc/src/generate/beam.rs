//! Beam search: the likeliest sequences among those that few others hide.

use super::sample::likeliest;
use crate::Error;
use dlc_train::END;
use std::ops::ControlFlow;

/// How sequences are searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beams {
    /// How many are followed; one takes the likeliest id each time.
    pub count: usize,
    /// How much longer sequences are preferred: what their probability's logarithm is divided by is
    /// `((5 + ids) / 6)` to the power of this (Wu et al., 2016).
    pub length_penalty: f64,
}

/// What gives logits for sequences that grow.
pub(super) trait Scores {
    /// The logits of the id after each sequence, which comes with the number of its prompt.
    fn after(&mut self, sequences: &[(usize, &[i32])]) -> Result<Vec<Vec<f32>>, Error>;
}

/// When to stop.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Ids of a sequence at most, those of its prompt not counted.
    pub tokens: usize,
    /// Whether sequences end with the mark.
    pub has_end: bool,
}

/// A sequence with the logarithm of its probability.
#[derive(Clone)]
struct Hypothesis {
    ids: Vec<i32>,
    log: f64,
}

/// The sequences after one prompt.
struct Search {
    prompt: usize,
    open: Vec<Hypothesis>,
    ended: Vec<(f64, Vec<i32>)>,
}

/// Finds the best sequence after each prompt, among those that end when the mark is one of the
/// likeliest ids. `keep_on` may break off.
pub(super) fn search(
    scores: &mut dyn Scores,
    prompts: &[Vec<i32>],
    beams: &Beams,
    limits: Limits,
    keep_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Vec<i32>>, Error> {
    let begin = |prompt: &Vec<i32>| Search {
        prompt: prompt.len(),
        open: vec![Hypothesis { ids: prompt.clone(), log: 0.0 }],
        ended: Vec::new(),
    };
    let mut searches: Vec<Search> = prompts.iter().map(begin).collect();
    for _ in 0..limits.tokens {
        let open = searches.iter().enumerate().flat_map(|(number, search)| {
            search.open.iter().map(move |hypothesis| (number, hypothesis.ids.as_slice()))
        });
        let open: Vec<(usize, &[i32])> = open.collect();
        if open.is_empty() || keep_on().is_break() {
            break;
        }
        let mut logits = scores.after(&open)?.into_iter();
        for search in &mut searches {
            let logits: Vec<Vec<f32>> = logits.by_ref().take(search.open.len()).collect();
            search.advance(&logits, beams, limits.has_end);
        }
    }
    Ok(searches.into_iter().map(|search| search.best(beams)).collect())
}

impl Search {
    /// Makes all sequences an id longer, and keeps the likeliest.
    fn advance(&mut self, logits: &[Vec<f32>], beams: &Beams, has_end: bool) {
        let longer = self.open.iter().zip(logits).enumerate().flat_map(|(from, (h, logits))| {
            // One of them may be the mark.
            let likely = likeliest(logits, beams.count + 1).into_iter();
            likely.map(move |(id, log)| (h.log + log, from, id))
        });
        let mut longer: Vec<(f64, usize, i32)> = longer.collect();
        longer.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut next = Vec::new();
        for (rank, (log, from, id)) in longer.into_iter().enumerate() {
            let mut ids = self.open[from].ids.clone();
            if has_end && id == END {
                if rank < beams.count {
                    self.ended.push((self.score(log, ids.len() + 1, beams), ids));
                }
            } else if next.len() < beams.count {
                ids.push(id);
                next.push(Hypothesis { ids, log });
            }
        }
        self.open = next;
        if !self.is_promising(beams) {
            self.open.clear();
        }
    }

    /// Whether an open sequence may still be one of the best: fewer have ended than there are
    /// beams, or one that ended scores less than an open one does already.
    fn is_promising(&self, beams: &Beams) -> bool {
        let open = self.open.first().map(|h| self.score(h.log, h.ids.len(), beams));
        let better = |open: f64| self.ended.iter().filter(|(score, _)| *score >= open).count();
        open.is_some_and(|open| better(open) < beams.count)
    }

    /// The ids after the prompt; of a sequence without end if none has ended.
    fn best(mut self, beams: &Beams) -> Vec<i32> {
        if self.ended.is_empty() {
            let open = std::mem::take(&mut self.open);
            let scored = open.into_iter().map(|h| (self.score(h.log, h.ids.len(), beams), h.ids));
            self.ended = scored.collect();
        }
        let best = self.ended.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a });
        best.map(|(_, ids)| ids[self.prompt..].to_vec()).unwrap_or_default()
    }

    fn score(&self, log: f64, ids: usize, beams: &Beams) -> f64 {
        let length = (ids - self.prompt) as f64;
        log / ((5.0 + length) / 6.0).powf(beams.length_penalty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After nothing: `1` with 0.6, `2` with 0.4. After `1`: five others alike. After `2`: the end.
    struct Trap;

    impl Scores for Trap {
        fn after(&mut self, sequences: &[(usize, &[i32])]) -> Result<Vec<Vec<f32>>, Error> {
            let row = |ids: &[i32]| match ids {
                [END] => [0.0, 0.6, 0.4, 0.0, 0.0, 0.0],
                [END, 2] => [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                [END, 1] => [0.0, 0.2, 0.2, 0.2, 0.2, 0.2],
                _ => [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            };
            let logits = |p: f64| p.ln() as f32;
            Ok(sequences.iter().map(|(_, ids)| row(ids).map(logits).to_vec()).collect())
        }
    }

    fn found(count: usize, length_penalty: f64, tokens: usize) -> Vec<i32> {
        let beams = Beams { count, length_penalty };
        let limits = Limits { tokens, has_end: true };
        let mut keep_on = || ControlFlow::Continue(());
        search(&mut Trap, &[vec![END]], &beams, limits, &mut keep_on).unwrap().remove(0)
    }

    #[test]
    fn a_second_beam_sees_past_the_likeliest_beginning() {
        assert_eq!(found(1, 0.0, 9), [1, 1]);
        assert_eq!(found(2, 0.0, 9), [2]);
        assert_eq!(found(1, 0.0, 1), [1]);
    }

    /// ln 0.4 / (7/6)^a against ln 0.12 / (8/6)^a: equal at a = 6.28.
    #[test]
    fn the_penalty_prefers_longer_sequences() {
        assert_eq!(found(2, 6.0, 9), [2]);
        assert_eq!(found(2, 6.5, 9), [1, 1]);
    }
}
