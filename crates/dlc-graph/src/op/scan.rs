//! Loops over steps.

use super::{Hole, Lowering, OpText, Operation, Sample, Scan, Site, known, no_operand_cotangents};
use crate::eval::{self, EvalError};
use crate::ty::MAX_RANK;
use crate::{Graph, ShapeError, Type, Value};
use dlc_kernel::{Array, Size};

impl Scan {
    /// The type of a part: a history, or what was yielded.
    pub fn part_type(&self, part: u32) -> Option<Type> {
        let result = self.body.results().get(part as usize)?;
        let one = self.body.ty(result.value);
        let extent = match part < self.carries {
            true => self.steps.clone() + Size::ONE,
            false => self.steps.clone(),
        };
        Some(Type::new(one.dtype, std::iter::once(extent).chain(one.shape.iter().cloned())))
    }

    /// What the body sees of operand `k`, which is of type `ty`.
    fn seen(&self, k: usize, ty: &Type) -> Result<Type, ShapeError> {
        let (carries, sequences) = (self.carries as usize, self.sequences as usize);
        if !(carries..carries + sequences).contains(&k) {
            return Ok(ty.clone());
        }
        match ty.shape.split_first() {
            Some((steps, rest)) if *steps == self.steps => {
                Ok(Type::new(ty.dtype, rest.iter().cloned()))
            }
            _ => Err(ShapeError::new(format!("{ty} is no sequence of {} steps", self.steps))),
        }
    }

    fn check_results(&self) -> Result<(), ShapeError> {
        let results = self.body.results();
        if results.is_empty() || results.len() < self.carries as usize {
            return Err(ShapeError::new("the body of `scan` lacks results"));
        }
        for (k, result) in results[..self.carries as usize].iter().enumerate() {
            let source = self.body.source(&k.to_string()).expect("inputs have been checked");
            let (first, next) = (self.body.ty(source), self.body.ty(result.value));
            if first != next {
                let message = format!("carry {k} of `scan` is {first}, its next value {next}");
                return Err(ShapeError::new(message));
            }
        }
        match rank(&self.body) < MAX_RANK {
            true => Ok(()),
            false => Err(ShapeError::new(format!(
                "the body of `scan` has a value of rank {}, which leaves no dim for the steps",
                rank(&self.body)
            ))),
        }
    }

    /// All results, given the operands.
    pub(crate) fn run(&self, operands: &[&Array]) -> Result<Vec<Array>, EvalError> {
        let (carries, sequences) = (self.carries as usize, self.sequences as usize);
        let mut carried: Vec<Array> = operands[..carries].iter().map(|&a| a.clone()).collect();
        let mut results: Vec<Vec<f64>> = carried.iter().map(|a| a.data.clone()).collect();
        results.resize(self.body.results().len(), Vec::new());
        let steps = known(&self.steps) as usize;
        for step in 0..steps {
            let elements: Vec<Array> =
                operands[carries..carries + sequences].iter().map(|a| element(a, step)).collect();
            let shared = operands[carries + sequences..].iter().copied();
            let given: Vec<&Array> = carried.iter().chain(&elements).chain(shared).collect();
            let mut made = eval::body(&self.body, &given)?;
            results.iter_mut().zip(&made).for_each(|(all, one)| all.extend(&one.data));
            made.truncate(carries);
            carried = made;
        }
        let stacked = results.into_iter().enumerate().map(|(k, data)| {
            let ty = self.part_type(k as u32).expect("it is a result");
            let shape: Vec<usize> = ty.shape.iter().map(|n| known(n) as usize).collect();
            Array::new(shape, data)
        });
        Ok(stacked.collect())
    }
}

/// Element `step` of dim 0.
fn element(sequence: &Array, step: usize) -> Array {
    let shape = &sequence.shape[1..];
    let count: usize = shape.iter().product();
    Array::new(shape, sequence.data[step * count..(step + 1) * count].to_vec())
}

/// The largest rank of a value, the dims of steps in inner scans included.
fn rank(body: &Graph) -> usize {
    let of = |v: Value| match body.op(v) {
        super::Op::Scan(inner) => rank(&inner.body) + 1,
        _ => body.ty(v).rank(),
    };
    body.values().map(of).max().unwrap_or(0)
}

impl Operation for Scan {
    fn text(&self) -> OpText {
        let counts = [("carries", self.carries), ("sequences", self.sequences)];
        let counts = counts.map(|(name, count)| (name, count.to_string()));
        OpText::new("scan", [("steps", self.steps.to_string())].into_iter().chain(counts).collect())
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        super::arity("scan", operands, self.body.sources().count())?;
        for (k, operand) in operands.iter().enumerate() {
            let Some(source) = self.body.source(&k.to_string()) else {
                return Err(ShapeError::new(format!("the body of `scan` has no input `{k}`")));
            };
            let (seen, want) = (self.seen(k, operand)?, self.body.ty(source));
            if seen != *want {
                let message = format!("the body of `scan` takes {want} as input {k}, not {seen}");
                return Err(ShapeError::new(message));
            }
        }
        self.check_results()?;
        Ok(self.part_type(0).expect("there is a result"))
    }

    /// # Panics
    /// Always: what flows back comes by part, see [`pullback`](crate::pullback).
    fn grad(&self, _: &mut Graph, _: &Site<'_>) -> Vec<Option<Value>> {
        panic!("the cotangents of a scan come by part")
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Scan(self)
    }

    /// # Panics
    /// If an id in the body is outside; [`eval`](fn@crate::eval::eval) reports it instead.
    fn eval(&self, operands: &[&Array], _: &[&Type]) -> Vec<Array> {
        self.run(operands).expect("the ids of a body are inside")
    }

    fn samples() -> Vec<Sample> {
        super::scan_samples::samples()
    }
}

impl Operation for Hole {
    fn text(&self) -> OpText {
        OpText::new("hole", vec![("number", self.number.to_string())])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        super::arity("hole", operands, 0)?;
        Ok(self.ty.clone())
    }

    fn grad(&self, _: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        no_operand_cotangents(at)
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Source
    }

    /// # Panics
    /// Always: it stands for something.
    fn eval(&self, _: &[&Array], _: &[&Type]) -> Vec<Array> {
        panic!("a hole has no value")
    }

    fn samples() -> Vec<Sample> {
        Vec::new()
    }
}
