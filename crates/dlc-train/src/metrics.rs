//! What a step measures, and means of it.

use crate::Error;
use dlc_kernel::{Data, Tensor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use smallvec::SmallVec;
use std::sync::Arc;

/// The numbers one step or one evaluation gives, by name; `loss` is among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    names: Arc<[String]>,
    values: SmallVec<[Measure; 4]>,
}

/// One number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measure {
    /// What is averaged.
    pub mean: f64,
    /// How many things it is the mean of; samples if `None`.
    pub weight: Option<f64>,
    /// Whether it is the logarithm of what is shown.
    pub log: bool,
}

/// The mean of metrics over what each is a mean of, added up in the order they come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mean {
    sums: SmallVec<[Sum; 4]>,
}

/// A mean while it is added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sum {
    pub sum: f64,
    pub weight: f64,
    pub log: bool,
}

impl Metrics {
    /// Metrics of these names and values.
    ///
    /// # Panics
    /// If there are more or fewer values than names.
    pub fn new(names: Arc<[String]>, values: impl IntoIterator<Item = f64>) -> Metrics {
        let plain = |mean| Measure { mean, weight: None, log: false };
        Metrics::of(names, values.into_iter().map(plain))
    }

    pub(crate) fn of(names: Arc<[String]>, values: impl IntoIterator<Item = Measure>) -> Metrics {
        let values: SmallVec<[Measure; 4]> = values.into_iter().collect();
        assert_eq!(names.len(), values.len(), "each metric has one value");
        Metrics { names, values }
    }

    /// The loss; NaN if there is none.
    pub fn loss(&self) -> f64 {
        self.get("loss").unwrap_or(f64::NAN)
    }

    /// The metric of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// All metrics, in the program's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.names.iter().map(String::as_str).zip(self.values.iter().map(Measure::value))
    }
}

impl Measure {
    fn value(&self) -> f64 {
        if self.log { self.mean.exp() } else { self.mean }
    }
}

impl Mean {
    /// Counts `metrics` of so many samples.
    pub fn add(&mut self, metrics: &Metrics, samples: usize) {
        self.sums.resize(metrics.values.len(), Sum::default());
        for (sum, measure) in self.sums.iter_mut().zip(&metrics.values) {
            let weight = measure.weight.unwrap_or(samples as f64);
            // What is a mean of nothing has no value.
            if weight != 0.0 {
                sum.sum += measure.mean * weight;
                sum.weight += weight;
            }
            sum.log = measure.log;
        }
    }

    /// The means so far; NaN before the first sample.
    pub fn metrics(&self, names: &Arc<[String]>) -> Metrics {
        let mean = |i| {
            let Sum { sum, weight, log } = self.sums.get(i).copied().unwrap_or_default();
            Measure { mean: sum / weight, weight: None, log }
        };
        Metrics::of(names.clone(), (0..names.len()).map(mean))
    }

    /// The sums, from which [`Mean::restore`] makes the same mean.
    pub(crate) fn sums(&self) -> &[Sum] {
        &self.sums
    }

    pub(crate) fn restore(sums: impl IntoIterator<Item = Sum>) -> Mean {
        Mean { sums: sums.into_iter().collect() }
    }
}

impl Serialize for Metrics {
    /// A map from names to numbers; what is not finite becomes null.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

/// The value of a tensor of rank 0.
pub(crate) fn scalar(tensor: &Tensor) -> f64 {
    match &tensor.data {
        Data::F32(v) => v[0].into(),
        Data::F64(v) => v[0],
        Data::I64(v) => v[0] as f64,
        Data::I32(v) => v[0].into(),
        Data::U8(v) | Data::Bool(v) => v[0].into(),
    }
}

/// A metric among the outputs of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Meter {
    output: usize,
    /// The output `weight of` it.
    weight: Option<usize>,
    /// Whether the output is the `log of` it.
    log: bool,
}

impl Meter {
    /// The metrics among outputs of these names, with their own names. Without a name: an output of
    /// another kind.
    pub fn find(outputs: &[Option<&str>]) -> (Vec<String>, Vec<Meter>) {
        let position = |name: &str| outputs.iter().position(|o| *o == Some(name));
        let meter = |(output, name): (usize, &Option<&str>)| {
            let name = (*name)?;
            let log = name.strip_prefix("log of ");
            let of = log.unwrap_or(name);
            let weight = position(&format!("weight of {of}"));
            let meter = Meter { output, weight, log: log.is_some() };
            (!name.starts_with("weight of ")).then(|| (of.to_owned(), meter))
        };
        outputs.iter().enumerate().filter_map(meter).unzip()
    }

    pub fn read(&self, outputs: &[Tensor]) -> Measure {
        let weight = self.weight.map(|at| scalar(&outputs[at]));
        Measure { mean: scalar(&outputs[self.output]), weight, log: self.log }
    }
}

/// What should have been called `loss`.
pub(crate) fn require_loss(names: &[String], entry: &str) -> Result<(), Error> {
    if names.iter().any(|n| n == "loss") {
        return Ok(());
    }
    Err(Error::Usage(format!("entry `{entry}` has no scalar output called `loss`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(values: &[f32]) -> Vec<Tensor> {
        values.iter().map(|&v| Tensor::f32([], vec![v])).collect()
    }

    #[test]
    fn means_go_by_weights_and_logarithms() {
        let names =
            ["loss", "weight of loss", "log of perplexity", "weight of perplexity", "accuracy"];
        let (names, meters) = Meter::find(&names.map(Some));
        assert_eq!(names, ["loss", "perplexity", "accuracy"]);
        let names: Arc<[String]> = names.into();
        let batch = |values: &[f32]| {
            let outputs = outputs(values);
            Metrics::of(names.clone(), meters.iter().map(|meter| meter.read(&outputs)))
        };
        let mut mean = Mean::default();
        let first = batch(&[2.0, 30.0, 2.0, 30.0, 0.25]);
        assert_eq!(first.get("perplexity"), Some(2f64.exp()));
        mean.add(&first, 4);
        mean.add(&batch(&[6.0, 10.0, 6.0, 10.0, 1.0]), 4);
        // A batch without anything that counts.
        mean.add(&batch(&[0.0, 0.0, 0.0, 0.0, 0.25]), 4);
        let mean = mean.metrics(&names);
        assert_eq!(mean.loss(), (2.0 * 30.0 + 6.0 * 10.0) / 40.0);
        assert_eq!(mean.get("perplexity"), Some(3f64.exp()));
        assert_eq!(mean.get("accuracy"), Some(0.5));
    }

    #[test]
    fn what_is_no_number_is_no_metric() {
        let (names, _) = Meter::find(&[None, Some("loss")]);
        assert_eq!(names, ["loss"]);
    }
}
