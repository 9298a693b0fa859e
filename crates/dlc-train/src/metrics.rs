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
    values: SmallVec<[f64; 4]>,
}

/// The mean of metrics over samples, added up in the order they come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mean {
    sums: SmallVec<[f64; 4]>,
    samples: f64,
}

impl Metrics {
    /// Metrics of these names and values.
    ///
    /// # Panics
    /// If there are more or fewer values than names.
    pub fn new(names: Arc<[String]>, values: impl IntoIterator<Item = f64>) -> Metrics {
        let values: SmallVec<[f64; 4]> = values.into_iter().collect();
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
        self.names.iter().map(String::as_str).zip(self.values.iter().copied())
    }
}

impl Mean {
    /// Counts `metrics`, the means of so many samples.
    pub fn add(&mut self, metrics: &Metrics, samples: usize) {
        let weight = samples as f64;
        self.sums.resize(metrics.values.len(), 0.0);
        self.sums.iter_mut().zip(&metrics.values).for_each(|(s, v)| *s += v * weight);
        self.samples += weight;
    }

    /// The means so far; NaN before the first sample.
    pub fn metrics(&self, names: &Arc<[String]>) -> Metrics {
        let sum = |i| self.sums.get(i).copied().unwrap_or(0.0);
        Metrics::new(names.clone(), (0..names.len()).map(|i| sum(i) / self.samples))
    }

    /// The sums and the number of samples, from which [`Mean::restore`] makes the same mean.
    pub(crate) fn parts(&self) -> (&[f64], f64) {
        (&self.sums, self.samples)
    }

    pub(crate) fn restore(sums: &[f64], samples: f64) -> Mean {
        Mean { sums: sums.into(), samples }
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

/// What should have been called `loss`.
pub(crate) fn require_loss(names: &[String], entry: &str) -> Result<(), Error> {
    if names.iter().any(|n| n == "loss") {
        return Ok(());
    }
    Err(Error::Usage(format!("entry `{entry}` has no scalar output called `loss`")))
}
