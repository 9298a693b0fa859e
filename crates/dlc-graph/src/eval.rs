//! The reference: a graph computed in f64, operation by operation.
//!
//! It is obvious and slow; every pass and every target is tested against it. Sizes are bound and
//! gradients expanded before. Only what is asked for is computed, and freed after its last use.

use crate::op::{Op, Source, SourceClass, id_outside};
use crate::{Graph, Type, Value};
use dlc_kernel::{Array, Origin};
use std::rc::Rc;

/// Why a graph has no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// No value was given for a source.
    #[error("`{0}` has no value")]
    Missing(String),
    /// The value given for a source has another shape.
    #[error("`{name}` has shape {found:?}, not {expected}")]
    Shape {
        /// The source.
        name: String,
        /// Its type.
        expected: String,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A gather or scatter index outside its dim.
    #[error("index {index} is outside 0..{extent}")]
    Index {
        /// The operation that reads it.
        origin: Origin,
        /// The index found.
        index: i64,
        /// The dim's extent.
        extent: i64,
    },
    /// A size has no value.
    #[error("dim `{0}` is not bound")]
    Unbound(String),
    /// A hole has no value.
    #[error("a hole has no value")]
    Hole,
    /// A `grad` is left.
    #[error("gradients are expanded before evaluation")]
    Grad,
}

/// The results of `graph`, in order. `sources` gives a value by name; a run-time scalar without one
/// has its default.
pub fn eval(
    graph: &Graph,
    sources: &dyn Fn(&str) -> Option<Array>,
) -> Result<Vec<Array>, EvalError> {
    let values: Vec<Value> = graph.results().iter().map(|r| r.value).collect();
    eval_values(graph, &values, sources)
}

/// The values of `wanted`, in that order; otherwise as [`eval`].
pub fn eval_values(
    graph: &Graph,
    wanted: &[Value],
    sources: &dyn Fn(&str) -> Option<Array>,
) -> Result<Vec<Array>, EvalError> {
    if let Some(name) = graph.symbols().first() {
        return Err(EvalError::Unbound(name.clone()));
    }
    let mut uses = count_uses(graph, wanted);
    let mut known: Vec<Option<Rc<Vec<Array>>>> = vec![None; graph.len()];
    for value in graph.values() {
        if uses[value.0 as usize] == 0 {
            continue;
        }
        let operands = graph.operands(value);
        let results = {
            let arrays = |v: &Value| known[v.0 as usize].as_deref().expect("operands come first");
            let given: Vec<&Array> = match graph.op(value) {
                Op::Part(_) => arrays(&operands[0]).iter().collect(),
                _ => operands.iter().map(|v| &arrays(v)[0]).collect(),
            };
            step(graph, value, &given, sources)?
        };
        known[value.0 as usize] = Some(Rc::new(results));
        for operand in operands {
            let left = &mut uses[operand.0 as usize];
            *left -= 1;
            if *left == 0 {
                known[operand.0 as usize] = None;
            }
        }
    }
    let array = |v: &Value| known[v.0 as usize].as_ref().expect("it was wanted")[0].clone();
    Ok(wanted.iter().map(array).collect())
}

/// How often each value is read on the way to `wanted`, those included.
fn count_uses(graph: &Graph, wanted: &[Value]) -> Vec<usize> {
    let mut uses = vec![0; graph.len()];
    for value in wanted {
        uses[value.0 as usize] += 1;
    }
    for value in graph.values().rev() {
        if uses[value.0 as usize] > 0 {
            for operand in graph.operands(value) {
                uses[operand.0 as usize] += 1;
            }
        }
    }
    uses
}

fn step(
    graph: &Graph,
    value: Value,
    given: &[&Array],
    sources: &dyn Fn(&str) -> Option<Array>,
) -> Result<Vec<Array>, EvalError> {
    let operands = graph.operands(value);
    let origin = graph.origin(value);
    match graph.op(value) {
        Op::Source(source) => return source_value(source, sources).map(|a| vec![a]),
        Op::Fused(fused) => return body(&fused.body, given),
        Op::Scan(scan) => return scan.run(given),
        Op::Grad(_) => return Err(EvalError::Grad),
        Op::Hole(_) => return Err(EvalError::Hole),
        Op::Gather(gather) => {
            let extent = &graph.ty(operands[0]).shape[gather.axis as usize];
            check_ids(given[1], extent, origin)?;
        }
        Op::ScatterAdd(scatter) => check_ids(given[0], &scatter.extent, origin)?,
        _ => {}
    }
    let types: Vec<&Type> = operands.iter().chain([&value]).map(|&v| graph.ty(v)).collect();
    Ok(graph.op(value).rules().eval(given, &types))
}

/// The results of a body, given its operands.
pub(crate) fn body(graph: &Graph, operands: &[&Array]) -> Result<Vec<Array>, EvalError> {
    let by_name = |name: &str| {
        let position: usize = name.parse().ok()?;
        operands.get(position).map(|&a| a.clone())
    };
    eval(graph, &by_name)
}

fn source_value(
    source: &Source,
    sources: &dyn Fn(&str) -> Option<Array>,
) -> Result<Array, EvalError> {
    let Some(array) = sources(&source.name) else {
        if source.class == SourceClass::Scalar {
            return Ok(Array::scalar(source.default.value()));
        }
        return Err(EvalError::Missing(source.name.to_string()));
    };
    let fits = array.shape.len() == source.ty.rank()
        && array.shape.iter().zip(&source.ty.shape).all(|(&n, s)| s.as_const() == Some(n as i64));
    if !fits {
        let (name, expected) = (source.name.to_string(), source.ty.to_string());
        return Err(EvalError::Shape { name, expected, found: array.shape });
    }
    Ok(array)
}

fn check_ids(ids: &Array, extent: &dlc_kernel::Size, origin: &Origin) -> Result<(), EvalError> {
    match id_outside(ids, extent) {
        Some((index, extent)) => Err(EvalError::Index { origin: origin.clone(), index, extent }),
        None => Ok(()),
    }
}
