//! BLEU (Papineni et al., 2002): how many of a translation's runs of one to four words a reference
//! has too. The figures are those of sacreBLEU (Post, 2018) as it is set by default: words as
//! mteval-v13a cuts them, upper and lower case apart, one reference, exponential smoothing.

use std::collections::HashMap;
use std::fmt;

/// The longest runs of words.
const ORDERS: usize = 4;

/// BLEU of many sentences at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Bleu {
    /// From 0 to 100.
    pub score: f64,
    /// For runs of 1 to 4 words, the percentage that is right; smoothed where none is.
    pub precisions: [f64; ORDERS],
    /// What the score is multiplied by, as the translations are shorter than the references.
    pub brevity: f64,
    /// Words of all translations.
    pub words: usize,
    /// Words of all references.
    pub reference_words: usize,
}

impl Bleu {
    /// BLEU of translations, each with its reference.
    pub fn of<'t>(pairs: impl IntoIterator<Item = (&'t str, &'t str)>) -> Bleu {
        let (mut right, mut total) = ([0; ORDERS], [0; ORDERS]);
        let (mut words, mut reference_words) = (0, 0);
        for (translation, reference) in pairs {
            let (translation, reference) = (tokenize(translation), tokenize(reference));
            words += translation.len();
            reference_words += reference.len();
            for order in 1..=ORDERS {
                let known = runs(&reference, order);
                for (run, count) in runs(&translation, order) {
                    total[order - 1] += count;
                    right[order - 1] += count.min(known.get(run).copied().unwrap_or(0));
                }
            }
        }
        let brevity = match (words, reference_words) {
            (0, _) => 0.0,
            (w, r) if w < r => (1.0 - r as f64 / w as f64).exp(),
            _ => 1.0,
        };
        let precisions = precisions(&right, &total);
        let logs = precisions.iter().map(|p| p.ln()).sum::<f64>();
        let score = brevity * (logs / ORDERS as f64).exp();
        Bleu { score, precisions, brevity, words, reference_words }
    }
}

impl fmt::Display for Bleu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, two, three, four] = self.precisions;
        write!(
            f,
            "BLEU {:.2}: 1 to 4 words {one:.1}/{two:.1}/{three:.1}/{four:.1} %, brevity {:.3}, \
             {} words, {} in the reference",
            self.score, self.brevity, self.words, self.reference_words
        )
    }
}

/// Percentages; the first one of nothing right counts as half a run, the next as a quarter.
fn precisions(right: &[usize; ORDERS], total: &[usize; ORDERS]) -> [f64; ORDERS] {
    let mut precisions = [0.0; ORDERS];
    let mut part = 1.0;
    for order in 0..ORDERS {
        if right == &[0; ORDERS] || total[order] == 0 {
            break;
        }
        if right[order] == 0 {
            part /= 2.0;
        }
        let right = if right[order] == 0 { part } else { right[order] as f64 };
        precisions[order] = 100.0 * right / total[order] as f64;
    }
    precisions
}

/// How often each run of `order` words occurs.
fn runs(words: &[String], order: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    words.windows(order).for_each(|run| *counts.entry(run).or_insert(0) += 1);
    counts
}

/// The words of a sentence as mteval-v13a cuts them.
fn tokenize(sentence: &str) -> Vec<String> {
    let mut text = sentence.trim_end().replace("<skipped>", "").replace("-\n", "");
    for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, character);
    }
    let text = format!(" {} ", text.replace('\n', " "));
    let apart = text.chars().flat_map(|c| match c {
        '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => vec![' ', c, ' '],
        _ => vec![c],
    });
    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| c == '.' || c == ',';
    let text = spread(apart.collect(), |a, b| !digit(a) && stop(b), |a, b| [a, ' ', b, ' ']);
    let text = spread(text, |a, b| stop(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    let text = spread(text, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    let text: String = text.into_iter().collect();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Puts `with` in the place of the neighbours that `when` holds of, from left to right; what was
/// put in place is not looked at again.
fn spread(
    text: Vec<char>,
    when: impl Fn(char, char) -> bool,
    with: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_slice();
    while let Some((&first, others)) = rest.split_first() {
        match others.first() {
            Some(&second) if when(first, second) => {
                out.extend(with(first, second));
                rest = &others[1..];
            }
            _ => {
                out.push(first);
                rest = others;
            }
        }
    }
    out
}
