//! Where a step's numbers stop being finite: it is computed once more by a program that tells the
//! largest number of each of its values.

use crate::{Batch, Error};
use dlc_kernel::{Class, Executable, RunError, Tensor};
use std::sync::Arc;

/// A program that computes a step again, as far as its gradients, and changes nothing.
pub struct Checking {
    /// Its first entry takes a batch, and has an output for each value of the step, in the order in
    /// which they are computed: the value's largest number, which is NaN if one is.
    pub executable: Arc<dyn Executable>,
    /// What makes each value, in words.
    pub makers: Vec<String>,
}

impl Checking {
    /// What makes the first value with a NaN, or if there is none, with an infinity (a mask's -inf
    /// is none), for a batch and the parameters, state and scalars of `trained`.
    ///
    /// # Errors
    /// If the batch does not fit, or the call fails.
    pub fn culprit(&self, trained: &dyn Executable, batch: &Batch) -> Result<Option<&str>, Error> {
        let program = self.executable.program();
        let kept = [Class::Param, Class::State, Class::Scalar];
        for buffer in program.buffers.iter().filter(|b| kept.contains(&b.class)) {
            self.executable.write(&buffer.name, &trained.read(&buffer.name)?)?;
        }
        let entry = &program.entries[0];
        let inputs = entry.inputs.iter().map(|&b| {
            let name = &program.buffer(b).name;
            let missing = || RunError::Usage(format!("the batch has no `{name}`"));
            batch.get(name).ok_or_else(missing)
        });
        let inputs = inputs.collect::<Result<Vec<&Tensor>, RunError>>()?;
        let outputs = entry.outputs.iter().map(|&b| program.buffer(b).dtype);
        let mut outputs: Vec<Tensor> = outputs.map(|dtype| Tensor::zeros(dtype, [])).collect();
        self.executable.call(0, &inputs, &mut outputs)?;
        let largest = outputs.iter().map(|t| t.as_f32().map_or(0.0, |values| values[0]));
        let largest: Vec<f32> = largest.collect();
        let first = largest.iter().position(|v| v.is_nan());
        let first = first.or_else(|| largest.iter().position(|v| *v == f32::INFINITY));
        Ok(first.map(|at| self.makers[at].as_str()))
    }
}
