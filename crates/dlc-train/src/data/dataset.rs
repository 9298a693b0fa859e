//! Named fields over samples, and subsets of them.

use crate::Error;
use crate::data::batches::shuffle;
use dlc_kernel::{DType, Data, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One named tensor over all samples: each is a run of neighbouring elements of what is stored.
#[derive(Clone, Debug)]
pub struct Field {
    name: String,
    values: Tensor,
    form: Form,
    /// The extents of a sample.
    sample: Vec<usize>,
    /// Where the first sample starts, and how far it is from each to the next.
    first: usize,
    step: usize,
    /// How many samples there are; `None` if the tensor has no axis that counts them.
    count: Option<usize>,
    /// Whether a sample is a sequence, of which short ones have only filler at the end.
    is_sequence: bool,
}

/// How stored elements become those of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    AsStored,
    /// Bytes 0..=255 become f32 0..=1.
    UnitRange,
}

/// Samples in memory. Cloning it and taking subsets copies no sample.
#[derive(Clone, Debug)]
pub struct Dataset {
    fields: Arc<Vec<Field>>,
    /// Which samples of `fields` belong to it; all of them if `None`.
    rows: Option<Arc<[u32]>>,
    len: usize,
    /// For each sample of `fields`, how much of its sequences a batch must hold; all if `None`.
    lengths: Option<Arc<[u32]>>,
}

/// The key of the validation split, the same for every seed and run.
const SPLIT_SEED: i32 = 0x5eed;

impl Field {
    /// A field whose elements are used as they are: `values` is `[samples, ...]`.
    pub fn new(name: impl Into<String>, values: Tensor) -> Field {
        let (count, sample) = match values.shape.split_first() {
            Some((&count, sample)) => (Some(count), sample.to_vec()),
            None => (None, Vec::new()),
        };
        let step = sample.iter().product();
        let name = name.into();
        let form = Form::AsStored;
        Field { name, values, form, sample, first: 0, step, count, is_sequence: false }
    }

    /// A field of sequences along the first axis of a sample, `values` being `[samples, T, ...]`:
    /// batches of short samples have only their first places ([`Dataset::with_lengths`]).
    pub fn sequences(name: impl Into<String>, values: Tensor) -> Field {
        Field { is_sequence: true, ..Field::new(name, values) }
    }

    /// A field of `count` windows of a stream: a sample is `length` neighbours, the first from
    /// `first` on, each next one `step` further. Windows may overlap.
    ///
    /// # Panics
    /// If the last window leaves the stream.
    pub fn windows(
        name: impl Into<String>,
        stream: Tensor,
        first: usize,
        step: usize,
        length: usize,
        count: usize,
    ) -> Field {
        let end = if count == 0 { 0 } else { first + (count - 1) * step + length };
        assert!(end <= stream.shape.iter().product(), "windows lie in the stream");
        Field { sample: vec![length], first, step, count: Some(count), ..Field::new(name, stream) }
    }

    /// A field stored as bytes, whose elements are used as f32 in [0, 1] (`x / 255`).
    ///
    /// # Panics
    /// If `values` does not hold `u8`.
    pub fn unit_range(name: impl Into<String>, values: Tensor) -> Field {
        assert_eq!(values.dtype(), DType::U8, "a unit-range field stores bytes");
        Field { form: Form::UnitRange, ..Field::new(name, values) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type its elements have in a batch.
    pub fn dtype(&self) -> DType {
        match self.form {
            Form::AsStored => self.values.dtype(),
            Form::UnitRange => DType::F32,
        }
    }

    /// The extents of one sample.
    pub fn sample_shape(&self) -> &[usize] {
        &self.sample
    }

    /// The extents of one sample in a batch of that length.
    pub(crate) fn shape_at(&self, length: usize) -> Vec<usize> {
        let mut shape = self.sample.clone();
        if self.is_sequence {
            shape[0] = shape[0].min(length);
        }
        shape
    }

    /// Copies as much of the samples `rows` as `into` has room for, one after the other.
    fn gather(&self, rows: impl Iterator<Item = usize>, into: &mut Tensor) {
        let width = into.shape[1..].iter().product();
        let starts = rows.map(|row| self.first + row * self.step);
        match (&self.values.data, &mut into.data) {
            (Data::F32(from), Data::F32(to)) => copy_rows(from, starts, width, to),
            (Data::F64(from), Data::F64(to)) => copy_rows(from, starts, width, to),
            (Data::I64(from), Data::I64(to)) => copy_rows(from, starts, width, to),
            (Data::I32(from), Data::I32(to)) => copy_rows(from, starts, width, to),
            (Data::U8(from), Data::U8(to)) | (Data::Bool(from), Data::Bool(to)) => {
                copy_rows(from, starts, width, to);
            }
            (Data::U8(from), Data::F32(to)) => unit_rows(from, starts, width, to),
            _ => panic!("field `{}` cannot fill a batch of {}", self.name, into.dtype()),
        }
    }
}

impl Dataset {
    /// A data set of these fields.
    ///
    /// # Errors
    /// If a name comes twice, a tensor has rank 0, or the numbers of samples differ.
    pub fn new(fields: Vec<Field>) -> Result<Dataset, Error> {
        let samples = |f: &Field| match f.count {
            Some(n) => Ok(n),
            None => Err(Error::Usage(format!("field `{}` has no axis of samples", f.name))),
        };
        let Some(first) = fields.first() else {
            return Err(Error::Usage("a data set needs at least one field".into()));
        };
        let len = samples(first)?;
        for (i, field) in fields.iter().enumerate() {
            let n = samples(field)?;
            if n != len {
                return Err(Error::Usage(format!(
                    "field `{}` has {len} samples, field `{}` has {n}",
                    first.name, field.name
                )));
            }
            if fields[..i].iter().any(|f| f.name == field.name) {
                return Err(Error::Usage(format!("two fields are called `{}`", field.name)));
            }
        }
        if u32::try_from(len).is_err() {
            return Err(Error::Usage(format!("{len} samples are more than 2^32 - 1")));
        }
        Ok(Dataset { fields: Arc::new(fields), rows: None, len, lengths: None })
    }

    /// The same samples, for batches of samples of similar length: `lengths` says how long the
    /// sequences of each are, and a batch holds as much of them as the longest needs, rounded up to
    /// a multiple of `unit`.
    ///
    /// # Panics
    /// If there is not one length for each sample, or `unit` is 0.
    pub fn with_lengths(self, lengths: impl IntoIterator<Item = usize>, unit: usize) -> Dataset {
        let round = |length: usize| (length.next_multiple_of(unit)).max(unit) as u32;
        let lengths: Arc<[u32]> = lengths.into_iter().map(round).collect();
        assert_eq!(lengths.len(), self.len, "there is a length for each sample");
        Dataset { lengths: Some(lengths), ..self }
    }

    /// The same samples in batches of whole sequences.
    pub(crate) fn without_lengths(self) -> Dataset {
        Dataset { lengths: None, ..self }
    }

    /// The lengths that batches may have, from the least to the largest; none if all have whole
    /// sequences.
    pub fn lengths(&self) -> BTreeSet<usize> {
        (0..self.len).filter_map(|p| self.length_of(p)).collect()
    }

    /// The length of the batches that hold the sample at a position.
    pub(crate) fn length_of(&self, position: usize) -> Option<usize> {
        self.lengths.as_ref().map(|lengths| lengths[self.row(position)] as usize)
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The fields, in the order given.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The position of the field of that name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }

    /// The samples at these positions, in this order; they may repeat.
    ///
    /// # Panics
    /// If a position is not below [`Dataset::len`].
    pub fn subset(&self, positions: &[u32]) -> Dataset {
        let rows: Arc<[u32]> = positions.iter().map(|&p| self.row(p as usize) as u32).collect();
        Dataset { len: rows.len(), rows: Some(rows), ..self.clone() }
    }

    /// Splits off a part of the samples, from 0 to 1 (rounded down), for validation: (training,
    /// validation). Which samples these are depends on nothing but how many there are.
    pub fn split_validation(&self, part: f64) -> (Dataset, Dataset) {
        let mut order = Vec::new();
        shuffle(&mut order, self.len, SPLIT_SEED, 0);
        let (validation, training) =
            order.split_at_mut((self.len as f64 * part.clamp(0.0, 1.0)) as usize);
        validation.sort_unstable();
        training.sort_unstable();
        (self.subset(training), self.subset(validation))
    }

    /// Copies samples of one field into a tensor that has its type, holds as many, and of their
    /// sequences all or the first places.
    pub(crate) fn gather(&self, field: usize, positions: &[u32], into: &mut Tensor) {
        let rows = positions.iter().map(|&p| self.row(p as usize));
        self.fields[field].gather(rows, into);
    }

    fn row(&self, position: usize) -> usize {
        assert!(position < self.len, "sample {position} of {}", self.len);
        self.rows.as_ref().map_or(position, |rows| rows[position] as usize)
    }
}

fn copy_rows<T: Copy>(from: &[T], starts: impl Iterator<Item = usize>, width: usize, to: &mut [T]) {
    for (k, start) in starts.enumerate() {
        to[k * width..][..width].copy_from_slice(&from[start..][..width]);
    }
}

fn unit_rows(from: &[u8], starts: impl Iterator<Item = usize>, width: usize, to: &mut [f32]) {
    const UNIT: [f32; 256] = {
        let mut table = [0.0; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = i as f32 / 255.0;
            i += 1;
        }
        table
    };
    for (k, start) in starts.enumerate() {
        let samples = to[k * width..][..width].iter_mut().zip(&from[start..][..width]);
        samples.for_each(|(x, &byte)| *x = UNIT[byte as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered(n: usize) -> Dataset {
        let values = Tensor::i32([n], (0..n as i32).collect());
        Dataset::new(vec![Field::new("x", values)]).unwrap()
    }

    fn contents(data: &Dataset) -> Vec<i32> {
        let mut out = Tensor::zeros(DType::I32, [data.len()]);
        let all: Vec<u32> = (0..data.len() as u32).collect();
        data.gather(0, &all, &mut out);
        out.as_i32().unwrap().to_vec()
    }

    proptest! {
        #[test]
        fn validation_is_a_tenth_and_nothing_is_lost(n in 0usize..3000) {
            let (training, validation) = numbered(n).split_validation(0.1);
            prop_assert_eq!(validation.len(), n / 10);
            let mut all = contents(&training);
            all.extend(contents(&validation));
            all.sort_unstable();
            prop_assert_eq!(all, (0..n as i32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_subset_of_a_subset_counts_from_the_first_one() {
        let data = numbered(10).subset(&[9, 7, 5]);
        assert_eq!(contents(&data.subset(&[2, 0, 0])), [5, 9, 9]);
    }

    #[test]
    fn bytes_become_the_unit_range() {
        let bytes = Tensor::new(vec![3, 2], Data::U8(vec![0, 255, 51, 102, 1, 2]));
        let data = Dataset::new(vec![Field::unit_range("x", bytes)]).unwrap();
        let mut out = Tensor::zeros(DType::F32, [2, 2]);
        data.gather(0, &[1, 0], &mut out);
        assert_eq!(out.as_f32().unwrap(), [0.2, 0.4, 0.0, 1.0]);
    }

    #[test]
    fn fields_must_agree() {
        let field = |name, n: usize| Field::new(name, Tensor::zeros(DType::F32, [n]));
        let refused = |fields| Dataset::new(fields).unwrap_err().to_string();
        assert_eq!(
            refused(vec![field("a", 3), field("b", 4)]),
            "field `a` has 3 samples, field `b` has 4"
        );
        assert_eq!(refused(vec![field("a", 3), field("a", 3)]), "two fields are called `a`");
        let scalar = Field::new("s", Tensor::zeros(DType::F32, []));
        assert_eq!(refused(vec![scalar]), "field `s` has no axis of samples");
        assert_eq!(refused(vec![]), "a data set needs at least one field");
    }
}
