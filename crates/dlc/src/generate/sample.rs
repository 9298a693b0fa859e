//! The choice of the next id from logits.

use dlc_kernel::philox::uniform;
use std::cmp::Ordering;

/// How an id is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by: 0 takes the likeliest id, 1 the model's own distribution.
    pub temperature: f64,
    /// Only so many of the likeliest ids.
    pub top_k: Option<usize>,
    /// Only the likeliest ids that together have this probability.
    pub top_p: Option<f64>,
    /// Of the random choices.
    pub seed: i32,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Sampling {
        Sampling { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

/// Keeps these draws apart from those of models.
const SITE: u64 = 0x6765_6e65_7261_7465;

impl Sampling {
    /// The id after `step` others were chosen. The same seed, step and logits give the same id.
    /// Logits that are NaN are never chosen; `None` if all are.
    pub fn choose(&self, logits: &[f32], step: usize) -> Option<i32> {
        let mut ranked = numbered(logits);
        ranked.sort_by(by_likelihood);
        if self.temperature <= 0.0 {
            return ranked.first().map(|&(id, _)| id);
        }
        ranked.truncate(self.top_k.unwrap_or(usize::MAX).max(1));
        let best = ranked.first()?.1;
        let weight = |logit: f64| ((logit - best) / self.temperature).exp();
        let mut weights: Vec<f64> = ranked.iter().map(|&(_, logit)| weight(logit)).collect();
        if let Some(most) = self.top_p {
            weights.truncate(nucleus(&weights, most));
        }
        let drawn = f64::from(uniform(self.seed, step as i32, SITE, 0));
        let mut rest = drawn * weights.iter().sum::<f64>();
        let at = weights.iter().position(|&weight| {
            rest -= weight;
            rest < 0.0
        });
        Some(ranked[at.unwrap_or(weights.len() - 1)].0)
    }
}

/// How many of the weights, which fall, make up the part `most` of their sum; at least 1.
fn nucleus(weights: &[f64], most: f64) -> usize {
    let bound = most * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reached = weights.iter().position(|&weight| {
        sum += weight;
        sum >= bound
    });
    reached.map_or(weights.len(), |at| at + 1)
}

/// Ids with their logits, but for those that are NaN.
fn numbered(logits: &[f32]) -> Vec<(i32, f64)> {
    let numbered = logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan());
    numbered.map(|(id, &logit)| (id as i32, f64::from(logit))).collect()
}

/// The likeliest first, of equals the lower id.
fn by_likelihood(a: &(i32, f64), b: &(i32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The `count` likeliest ids with the logarithms of their probabilities.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<(i32, f64)> {
    let mut all = numbered(logits);
    if count < all.len() {
        all.select_nth_unstable_by(count, by_likelihood);
    }
    let Some(best) = all.iter().map(|&(_, logit)| logit).reduce(f64::max) else { return all };
    let sum: f64 = all.iter().map(|(_, logit)| (logit - best).exp()).sum();
    all.truncate(count);
    all.sort_by(by_likelihood);
    all.into_iter().map(|(id, logit)| (id, logit - best - sum.ln())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, f32::NAN];

    fn drawn(sampling: Sampling) -> [usize; 4] {
        let mut counts = [0; 4];
        (0..10_000).for_each(|step| counts[sampling.choose(&LOGITS, step).unwrap() as usize] += 1);
        counts
    }

    #[test]
    fn greedy_takes_the_likeliest_and_of_equals_the_first() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(greedy.choose(&LOGITS, 0), Some(1));
        assert_eq!(greedy.choose(&[3.0, 3.0], 0), Some(0));
        assert_eq!(greedy.choose(&[f32::NAN], 0), None);
    }

    /// Within five standard deviations of the softmax of 0, 2, 1.
    #[test]
    fn draws_follow_the_distribution() {
        let sum = 1.0 + f64::exp(2.0) + f64::exp(1.0);
        let counts = drawn(Sampling::default());
        for (id, weight) in [(0, 1.0), (1, f64::exp(2.0)), (2, f64::exp(1.0))] {
            let p = weight / sum;
            let deviation = (1e4 * p * (1.0 - p)).sqrt();
            assert!((counts[id] as f64 - 1e4 * p).abs() < 5.0 * deviation, "{id}: {counts:?}");
        }
        assert_eq!(counts[3], 0);
    }

    #[test]
    fn top_k_and_top_p_leave_the_likeliest() {
        let counts = drawn(Sampling { top_k: Some(2), ..Sampling::default() });
        assert!(counts[0] == 0 && counts[2] > 0);
        // The likeliest has e^2 / (1 + e + e^2) = 0.665 of the probability.
        let counts = drawn(Sampling { top_p: Some(0.66), ..Sampling::default() });
        assert_eq!(counts, [0, 10_000, 0, 0]);
        let counts = drawn(Sampling { top_p: Some(0.67), ..Sampling::default() });
        assert!(counts[0] == 0 && counts[2] > 0);
    }

    #[test]
    fn probabilities_add_up() {
        let all = likeliest(&LOGITS, 4);
        let sum: f64 = all.iter().map(|(_, log)| log.exp()).sum();
        assert_eq!(all.iter().map(|&(id, _)| id).collect::<Vec<_>>(), [1, 2, 0]);
        assert!((sum - 1.0).abs() < 1e-12);
    }
}
