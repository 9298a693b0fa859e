//! Byte-pair encoding (Sennrich, Haddow and Birch, 2016) over bytes, as GPT-2 has it.
//!
//! Text is cut into words, each with the space before it; a piece never reaches beyond a word. The
//! first 256 pieces are the bytes, so that any text can be encoded; each further one joins two.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

/// A trained encoding. Pieces are numbered: the bytes, then the merges in the order of learning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Pair>", into = "Vec<Pair>")]
pub(crate) struct Bpe {
    merges: Vec<Pair>,
    /// The bytes of each piece.
    pieces: Vec<Vec<u8>>,
    /// The piece that two become.
    joined: HashMap<Pair, u32>,
}

type Pair = (u32, u32);

/// As many pieces as there are bytes.
const BYTES: u32 = 256;

impl Bpe {
    /// Learns at most `pieces` pieces: again and again the most frequent pair of neighbours becomes
    /// one, the one of smaller numbers among equals, until none occurs twice.
    pub fn train<'t>(texts: impl Iterator<Item = &'t str>, pieces: usize) -> Result<Bpe, Error> {
        if pieces < BYTES as usize {
            return Err(Error::Usage(format!(
                "a byte-pair encoding has at least the {BYTES} bytes, {pieces} pieces are asked for"
            )));
        }
        let mut learner = Learner::new(texts);
        let mut merges = Vec::new();
        while merges.len() + (BYTES as usize) < pieces {
            let Some(pair) = learner.most_frequent() else { break };
            learner.join(pair, BYTES + merges.len() as u32);
            merges.push(pair);
        }
        Ok(merges.into())
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes of a piece; none if there is no such piece.
    pub fn piece(&self, id: usize) -> &[u8] {
        self.pieces.get(id).map_or(&[], Vec::as_slice)
    }

    /// The pieces of a text.
    pub fn encode(&self, text: &str) -> Vec<i32> {
        let mut known: HashMap<&str, Vec<u32>> = HashMap::new();
        let mut ids = Vec::new();
        for word in words(text) {
            let pieces = known.entry(word).or_insert_with(|| self.encode_word(word));
            ids.extend(pieces.iter().map(|&id| id as i32));
        }
        ids
    }

    /// Joins the pair that was learned first, as long as there is one.
    fn encode_word(&self, word: &str) -> Vec<u32> {
        let mut ids = bytes_of(word);
        loop {
            let pairs = ids.windows(2).filter_map(|w| {
                let pair = (w[0], w[1]);
                Some((*self.joined.get(&pair)?, pair))
            });
            let Some((id, pair)) = pairs.min() else { return ids };
            replace(&mut ids, pair, id);
        }
    }
}

impl From<Vec<Pair>> for Bpe {
    /// Merges of pieces that do not exist yet join nothing.
    fn from(merges: Vec<Pair>) -> Bpe {
        let mut pieces: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
        let mut joined = HashMap::new();
        for &(a, b) in &merges {
            let piece = |id: u32| pieces.get(id as usize).map_or(&[][..], Vec::as_slice);
            let both = [piece(a), piece(b)].concat();
            joined.entry((a, b)).or_insert(pieces.len() as u32);
            pieces.push(both);
        }
        Bpe { merges, pieces, joined }
    }
}

impl From<Bpe> for Vec<Pair> {
    fn from(bpe: Bpe) -> Vec<Pair> {
        bpe.merges
    }
}

/// The words of a text while pairs are counted and joined.
struct Learner {
    /// Each distinct word as pieces, and how often it occurs.
    words: Vec<(Vec<u32>, i64)>,
    counts: HashMap<Pair, i64>,
    /// In which words a pair is, or was.
    places: HashMap<Pair, BTreeSet<u32>>,
    /// Counts as they were when pushed; those that are no longer true are passed over.
    queue: BinaryHeap<(i64, std::cmp::Reverse<Pair>)>,
}

impl Learner {
    fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Learner {
        let mut distinct: BTreeMap<&str, i64> = BTreeMap::new();
        texts.flat_map(words).for_each(|word| *distinct.entry(word).or_default() += 1);
        let words = distinct.into_iter().map(|(word, n)| (bytes_of(word), n)).collect();
        let mut learner = Learner {
            words,
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        let all: Vec<u32> = (0..learner.words.len() as u32).collect();
        let changed: BTreeSet<Pair> = all.iter().flat_map(|&w| learner.count(w, 1)).collect();
        learner.push(changed);
        learner
    }

    /// Adds (or with -1 removes) the pairs of a word; gives them.
    fn count(&mut self, word: u32, sign: i64) -> Vec<Pair> {
        let (pieces, times) = &self.words[word as usize];
        let pairs: Vec<Pair> = pieces.windows(2).map(|w| (w[0], w[1])).collect();
        for &pair in &pairs {
            *self.counts.entry(pair).or_default() += sign * times;
            self.places.entry(pair).or_default().insert(word);
        }
        pairs
    }

    fn push(&mut self, pairs: BTreeSet<Pair>) {
        let counted = pairs.into_iter().map(|pair| (self.counts[&pair], std::cmp::Reverse(pair)));
        self.queue.extend(counted.filter(|(count, _)| *count > 1));
    }

    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((count, std::cmp::Reverse(pair))) = self.queue.pop() {
            if self.counts.get(&pair) == Some(&count) {
                return Some(pair);
            }
        }
        None
    }

    fn join(&mut self, pair: Pair, id: u32) {
        let mut changed = BTreeSet::new();
        for word in self.places.remove(&pair).unwrap_or_default() {
            changed.extend(self.count(word, -1));
            replace(&mut self.words[word as usize].0, pair, id);
            changed.extend(self.count(word, 1));
        }
        self.counts.remove(&pair);
        changed.remove(&pair);
        self.push(changed);
    }
}

fn bytes_of(word: &str) -> Vec<u32> {
    word.bytes().map(u32::from).collect()
}

/// Replaces a pair by one piece, from the left.
fn replace(ids: &mut Vec<u32>, pair: Pair, id: u32) {
    let (mut from, mut to) = (0, 0);
    while from < ids.len() {
        let found = from + 1 < ids.len() && (ids[from], ids[from + 1]) == pair;
        ids[to] = if found { id } else { ids[from] };
        from += 1 + usize::from(found);
        to += 1;
    }
    ids.truncate(to);
}

/// The words of a text, end to end: runs of letters, of digits, or of other characters, with one
/// space before them; runs of white space.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = word_end(rest)?;
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

fn word_end(text: &str) -> Option<usize> {
    let kind = |c: char| match c {
        _ if c.is_whitespace() => 0,
        _ if c.is_alphabetic() => 1,
        _ if c.is_numeric() => 2,
        _ => 3,
    };
    let first = text.chars().next()?;
    let second = text.chars().nth(1);
    let start = usize::from(first == ' ' && second.is_some_and(|c| kind(c) > 0));
    let run = kind(text[start..].chars().next()?);
    let end = text[start..].char_indices().find(|&(_, c)| kind(c) != run);
    Some(end.map_or(text.len(), |(at, _)| start + at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bpe: &Bpe, ids: &[i32]) -> Vec<u8> {
        ids.iter().flat_map(|&id| bpe.piece(id as usize).to_vec()).collect()
    }

    /// The example of the paper: `low` 5 times, `lower` 2, `newest` 6, `widest` 3. `es` comes first
    /// (9 times; `st` has as many and higher bytes), then `est`, then `lo` and `low`.
    #[test]
    fn the_paper_s_example() {
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
        let texts: Vec<&str> = words.iter().flat_map(|&(w, n)| vec![w; n]).collect();
        let bpe = Bpe::train(texts.iter().copied(), 260).unwrap();
        let learned: Vec<&[u8]> = (256..260).map(|id| bpe.piece(id)).collect();
        assert_eq!(learned, [&b"es"[..], b"est", b"lo", b"low"]);
        assert_eq!(bpe.encode("lowest"), [259, 257]);
    }

    #[test]
    fn fewer_pieces_than_bytes_are_refused() {
        assert!(Bpe::train(["a"].into_iter(), 255).is_err());
    }

    #[test]
    fn repeated_letters_are_joined_from_the_left() {
        let bpe = Bpe::train(["aaa aaa aaa"].into_iter(), 300).unwrap();
        assert_eq!(decode(&bpe, &bpe.encode("aaaaa")), b"aaaaa");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(training in "[a-c é.1]{0,60}", text: String) {
            let bpe = Bpe::train([training.as_str()].into_iter(), 280).unwrap();
            prop_assert_eq!(decode(&bpe, &bpe.encode(&text)), text.as_bytes());
            let stored: Vec<Pair> = bpe.clone().into();
            prop_assert_eq!(Bpe::from(stored), bpe);
        }

        #[test]
        fn words_cover_the_text(text: String) {
            prop_assert_eq!(words(&text).collect::<String>(), text);
        }
    }
}
