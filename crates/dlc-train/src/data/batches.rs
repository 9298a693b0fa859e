//! Batches of a fixed size, in an order that only the seed and the epoch decide.
//!
//! Where samples have lengths, each waits until a batch of its length is full. What is left waiting
//! at the end joins longer ones, so that there are as many batches, of the same samples, as without
//! lengths.

use crate::Error;
use crate::data::Dataset;
use dlc_kernel::Tensor;
use dlc_kernel::philox::philox4x32_10;
use std::collections::BTreeMap;

/// Named tensors whose first axis counts the samples.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    fields: Vec<(String, Tensor)>,
}

/// The batches of a data set. One set of buffers is reused for all of them.
#[derive(Debug)]
pub struct Batches<'d> {
    data: &'d Dataset,
    /// For each field of `batch`, its position in `data`.
    sources: Vec<usize>,
    order: Vec<u32>,
    size: usize,
    /// The length of each batch; `None` for whole sequences.
    lengths: Vec<Option<usize>>,
    /// The buffers for each length.
    buffers: BTreeMap<Option<usize>, Batch>,
}

impl Batch {
    /// A batch of these tensors.
    pub fn new<'n>(fields: impl IntoIterator<Item = (&'n str, Tensor)>) -> Batch {
        Batch { fields: fields.into_iter().map(|(n, t)| (n.to_owned(), t)).collect() }
    }

    /// Buffers for a batch of these fields.
    fn zeros(data: &Dataset, fields: &[usize], size: usize, length: Option<usize>) -> Batch {
        let buffer = |&field: &usize| {
            let field = &data.fields()[field];
            let shape = [vec![size], field.shape_at(length.unwrap_or(usize::MAX))].concat();
            (field.name().to_owned(), Tensor::zeros(field.dtype(), shape))
        };
        Batch { fields: fields.iter().map(buffer).collect() }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(n, _)| n.as_str())
    }
}

impl<'d> Batches<'d> {
    /// Batches of `size` samples with the fields of these names, in natural order.
    ///
    /// # Errors
    /// If the data has no field of such a name.
    pub fn new(data: &'d Dataset, names: &[&str], size: usize) -> Result<Batches<'d>, Error> {
        let find = |name: &&str| {
            data.position(name).ok_or_else(|| {
                let fields: Vec<&str> = data.fields().iter().map(|f| f.name()).collect();
                let fields = fields.join(", ");
                Error::Usage(format!("the data has no field `{name}`; its fields are {fields}"))
            })
        };
        let sources: Vec<usize> = names.iter().map(find).collect::<Result<_, _>>()?;
        let order = (0..data.len() as u32).collect();
        let (lengths, buffers) = Default::default();
        let mut batches = Batches { data, sources, order, size, lengths, buffers };
        batches.group();
        Ok(batches)
    }

    /// Puts the samples into the order of that seed and epoch.
    pub fn shuffle(&mut self, seed: i32, epoch: u32) {
        shuffle(&mut self.order, self.data.len(), seed, epoch);
        self.group();
    }

    /// Puts samples of the same length beside each other, batch by batch.
    fn group(&mut self) {
        let (whole, rest) = self.order.split_at(self.count() * self.size);
        let mut grouped = Grouped { size: self.size, ..Grouped::default() };
        let mut waiting = BTreeMap::<Option<usize>, Vec<u32>>::new();
        for &position in whole {
            let length = self.data.length_of(position as usize);
            grouped.add(waiting.entry(length).or_default(), position, length);
        }
        let mut left = Vec::new();
        for (length, positions) in waiting {
            positions.into_iter().for_each(|position| grouped.add(&mut left, position, length));
        }
        grouped.order.extend_from_slice(rest);
        self.order = grouped.order;
        self.lengths = grouped.lengths;
    }

    /// How many whole batches there are.
    pub fn count(&self) -> usize {
        self.data.len().checked_div(self.size).unwrap_or(0)
    }

    /// The samples in their present order, batch by batch; after them those of no whole batch.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The batch number `index` (below [`Batches::count`]) of the present order.
    pub fn get(&mut self, index: usize) -> &Batch {
        let positions = &self.order[index * self.size..][..self.size];
        let length = self.lengths[index];
        let new = || Batch::zeros(self.data, &self.sources, self.size, length);
        let batch = self.buffers.entry(length).or_insert_with(new);
        for (&source, (_, tensor)) in self.sources.iter().zip(&mut batch.fields) {
            self.data.gather(source, positions, tensor);
        }
        batch
    }
}

/// Batches that are full.
#[derive(Default)]
struct Grouped {
    size: usize,
    order: Vec<u32>,
    lengths: Vec<Option<usize>>,
}

impl Grouped {
    /// Adds a sample to those that wait; makes a batch of them if they are enough.
    fn add(&mut self, waiting: &mut Vec<u32>, position: u32, length: Option<usize>) {
        waiting.push(position);
        if waiting.len() == self.size {
            self.order.append(waiting);
            self.lengths.push(length);
        }
    }
}

/// Fills `order` with a uniformly drawn permutation of `0..len` (Fisher-Yates). The draw for
/// position `i` is a pure function of (seed, epoch, i).
pub(crate) fn shuffle(order: &mut Vec<u32>, len: usize, seed: i32, epoch: u32) {
    order.clear();
    order.extend(0..len as u32);
    for i in (1..len).rev() {
        order.swap(i, draw(seed, epoch, i as u32));
    }
}

/// Keeps these draws apart from those of kernels, whose key has another second word.
const ORDER_KEY: u32 = 0x6f72_6472;

/// A uniform number in `0..=last`: 64 random bits scaled down, biased by less than 2^-32.
fn draw(seed: i32, epoch: u32, last: u32) -> usize {
    let words = philox4x32_10([last, epoch, 0, 0], [seed as u32, ORDER_KEY]);
    let bits = u64::from(words[0]) << 32 | u64::from(words[1]);
    ((u128::from(bits) * (u128::from(last) + 1)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Field;
    use proptest::prelude::*;

    fn order(len: usize, seed: i32, epoch: u32) -> Vec<u32> {
        let mut order = Vec::new();
        shuffle(&mut order, len, seed, epoch);
        order
    }

    proptest! {
        #[test]
        fn an_order_is_a_permutation(len in 0usize..2000, seed: i32, epoch: u32) {
            let mut sorted = order(len, seed, epoch);
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..len as u32).collect::<Vec<_>>());
        }

        #[test]
        fn seeds_and_epochs_give_different_orders(seed: i32, epoch in 0u32..1000) {
            let base = order(100, seed, epoch);
            prop_assert_ne!(&base, &order(100, seed, epoch + 1));
            prop_assert_ne!(&base, &order(100, seed.wrapping_add(1), epoch));
            prop_assert_eq!(base, order(100, seed, epoch));
        }
    }

    /// Each of the 24 orders of four samples, over 24,000 epochs, within five standard deviations.
    #[test]
    fn orders_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        (0..24_000).for_each(|epoch| *counts.entry(order(4, 7, epoch)).or_insert(0i32) += 1);
        assert_eq!(counts.len(), 24);
        let deviation = (1000.0f64 * 23.0 / 24.0).sqrt();
        for (order, count) in counts {
            assert!(f64::from((count - 1000).abs()) < 5.0 * deviation, "{order:?}: {count}");
        }
    }

    #[test]
    fn batches_follow_the_order_and_keep_fields_together() {
        let x = Tensor::f32([10, 2], (0..20).map(|v| v as f32).collect());
        let y = Tensor::i32([10], (0..10).collect());
        let data = Dataset::new(vec![Field::new("x", x), Field::new("y", y)]).unwrap();
        let mut batches = Batches::new(&data, &["y", "x"], 4).unwrap();
        batches.shuffle(1, 2);
        assert_eq!(batches.count(), 2);
        let order: Vec<i32> = batches.order().iter().map(|&p| p as i32).collect();
        for k in 0..2 {
            let batch = batches.get(k);
            let y = batch.get("y").unwrap().as_i32().unwrap();
            let x = batch.get("x").unwrap().as_f32().unwrap();
            assert_eq!(y, &order[4 * k..4 * k + 4]);
            assert!(
                y.iter()
                    .zip(x.chunks(2))
                    .all(|(&y, x)| x == [2.0 * y as f32, 2.0 * y as f32 + 1.0])
            );
        }
    }

    /// Samples 0, 1, .. of these lengths; a sample of length L is L times its number, then filler.
    fn of_lengths(lengths: &[usize], unit: usize) -> Dataset {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let row = |(number, &length): (usize, &usize)| {
            (0..longest).map(move |t| if t < length { number as i32 } else { -1 })
        };
        let ids: Vec<i32> = lengths.iter().enumerate().flat_map(row).collect();
        let ids = Field::sequences("ids", Tensor::i32([lengths.len(), longest], ids));
        Dataset::new(vec![ids]).unwrap().with_lengths(lengths.iter().copied(), unit)
    }

    proptest! {
        /// As many batches of the same samples as without lengths; no sample is cut.
        #[test]
        fn batches_of_similar_lengths_lose_nothing(
            lengths in proptest::collection::vec(1usize..20, 1..200),
            size in 1usize..9,
            seed: i32,
        ) {
            let data = of_lengths(&lengths, 4);
            let mut batches = Batches::new(&data, &["ids"], size).unwrap();
            let mut plain = order(lengths.len(), seed, 3);
            batches.shuffle(seed, 3);
            prop_assert_eq!(batches.count(), lengths.len() / size);
            let (mut seen, mut widths) = (Vec::new(), Vec::new());
            for k in 0..batches.count() {
                let batch = batches.get(k).get("ids").unwrap().clone();
                let width = batch.shape[1];
                let mut needed = 0;
                for row in batch.as_i32().unwrap().chunks(width) {
                    let length = lengths[row[0] as usize];
                    prop_assert!(row[..length].iter().all(|&id| id == row[0]));
                    prop_assert!(row[length..].iter().all(|&id| id == -1));
                    needed = needed.max(length);
                    seen.push(row[0] as u32);
                }
                let longest = data.fields()[0].sample_shape()[0];
                widths.push((width, needed.next_multiple_of(4).min(longest)));
            }
            // Batches wider than they need to be are at the end, where lengths rise.
            let wide = widths.iter().position(|(width, needed)| width != needed);
            prop_assert!(widths[wide.unwrap_or(widths.len())..].is_sorted());
            plain.truncate(seen.len());
            plain.sort_unstable();
            seen.sort_unstable();
            prop_assert_eq!(seen, plain);
        }

        #[test]
        fn one_length_changes_no_order(count in 1usize..100, size in 1usize..9, seed: i32) {
            let data = of_lengths(&vec![3; count], 4);
            let mut batches = Batches::new(&data, &["ids"], size).unwrap();
            batches.shuffle(seed, 1);
            prop_assert_eq!(batches.order(), order(count, seed, 1));
        }
    }

    #[test]
    fn unknown_fields_are_named() {
        let data = Dataset::new(vec![Field::new("x", Tensor::i32([1], vec![0]))]).unwrap();
        let error = Batches::new(&data, &["image"], 1).unwrap_err().to_string();
        assert_eq!(error, "the data has no field `image`; its fields are x");
    }
}
