//! Small loops, on which the rules of [`Scan`] are tested.

use super::{Sample, Scan};
use crate::{Graph, Type};
use std::sync::Arc;

const STEP: &str = "graph {
  %0 0: f32[2, 3] = input
  %1 1: f32[2, 3] = input
  %2 2: f32[3, 3] = input
  %3: f32[2, 3] = contract [i, j] sum [r: 3] %0[i, r] * %2[r, j]
  %4: f32[2, 3] = add(%3, %1)
  %5: f32[2, 3] = tanh(%4)
  %6: f32[2, 3] = mul(%5, %1)
  %7: f32[2] = reduce_sum{axes = [1]}(%6)
  return 0 = %5, 1 = %7
}";

/// Two carries that need each other, a yield that is a carry, and one that is an input.
const SWAP: &str = "graph {
  %0 0: f32[2] = input
  %1 1: f32[2] = input
  %2 2: f32[2] = input
  %3: f32[2] = mul(%1, %2)
  %4: f32[2] = sin(%0)
  return 0 = %3, 1 = %4, 2 = %3, 3 = %2
}";

/// A loop in a loop, whose first value is carried by the outer one.
const NESTED: &str = "graph {
  %0 0: f32[2] = input
  %1 1: f32[3, 2] = input
  %2: f32[4, 2] = scan 3 carry(%0) along(%1) {
    %0 0: f32[2] = input
    %1 1: f32[2] = input
    %2: f32[2] = mul(%0, %1)
    %3: f32[2] = cos(%2)
    return 0 = %3
  }
  %3: f32[4, 2] = part{index = 0}(%2)
  %4: f32[2] = view [i] %3[3, i]
  return 0 = %4
}";

pub(super) fn samples() -> Vec<Sample> {
    let lstm = |steps: i64| {
        let types = [&[2, 3][..], &[steps, 2, 3], &[3, 3]];
        sample(STEP, steps, (1, 1), &types)
    };
    vec![
        lstm(4),
        lstm(1),
        lstm(0),
        sample(SWAP, 3, (2, 1), &[&[2], &[2], &[3, 2]]),
        sample(NESTED, 2, (1, 1), &[&[2], &[2, 3, 2]]),
    ]
}

fn sample(text: &str, steps: i64, (carries, sequences): (u32, u32), types: &[&[i64]]) -> Sample {
    let body = Arc::new(Graph::parse(text).expect("samples are graphs"));
    let types: Vec<Type> =
        types.iter().map(|shape| Type::known(dlc_kernel::DType::F32, shape)).collect();
    Sample::new(Scan { steps: steps.into(), carries, sequences, body }, types)
}
