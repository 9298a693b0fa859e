//! What must hold of every graph, checked between passes.
//!
//! - Operands have smaller numbers than their users, and every type is the one its rule infers.
//! - Result names are unique within their role; an update has the type of its parameter or state.
//! - [`Part`](crate::op::Part) reads fused operations and scans only, and no result depends on a
//!   [`Hole`](crate::op::Hole).
//! - The body of a scan has the inputs `0`, `1`, .., results in the order of their number, and
//!   neither random numbers nor sources of another class.
//! - The body of a fused operation has the inputs `0`, `1`, .. and only operations that its kind
//!   of kernel can hold: no other fused operation, no `grad`.

use crate::op::{Fused, FusedKind, Lowering, Op, Reduce, Scan, SourceClass};
use crate::{Graph, Operands, Role, Shape, Value};
use rustc_hash::FxHashSet;

/// What is wrong with `graph`, if anything.
pub fn verify(graph: &Graph) -> Result<(), String> {
    for value in graph.values() {
        verify_node(graph, value).map_err(|e| format!("{value}: {e}"))?;
    }
    verify_results(graph)
}

/// As [`verify`]; besides, no `grad` is left.
pub fn verify_differentiated(graph: &Graph) -> Result<(), String> {
    match graph.values().find(|&v| matches!(graph.op(v), Op::Grad(_))) {
        Some(value) => Err(format!("{value}: a `grad` is left")),
        None => verify(graph),
    }
}

fn verify_node(graph: &Graph, value: Value) -> Result<(), String> {
    let operands = graph.operands(value);
    if let Some(operand) = operands.iter().find(|o| **o >= value) {
        return Err(format!("its operand {operand} does not come before it"));
    }
    let op = graph.op(value);
    let inferred = graph.infer(op, &operands).map_err(|e| e.to_string())?;
    if inferred != *graph.ty(value) {
        return Err(format!("its type is {}, its rule says {inferred}", graph.ty(value)));
    }
    if let Op::Scan(scan) = op {
        verify_scan(scan).map_err(|e| format!("scan: {e}"))?;
    }
    if let Op::Fused(fused) = op {
        verify_body(fused, &operands).map_err(|e| format!("fused {}: {e}", fused.kind.name()))?;
    }
    Ok(())
}

fn verify_scan(scan: &Scan) -> Result<(), String> {
    verify(&scan.body)?;
    let refused = |v: &Value| match scan.body.op(*v) {
        Op::Random(_) | Op::Hole(_) => true,
        Op::Source(source) => source.class != SourceClass::Input,
        _ => false,
    };
    match scan.body.values().find(refused) {
        Some(value) => {
            let name = scan.body.op(value).rules().text().name;
            Err(format!("{value}: `{name}` has no place here"))
        }
        None => Ok(()),
    }
}

fn verify_results(graph: &Graph) -> Result<(), String> {
    let mut seen = FxHashSet::default();
    for result in graph.results() {
        let (name, role) = (&result.name, result.role);
        if result.value.0 as usize >= graph.len() {
            return Err(format!("the result `{name}` is {}, which does not exist", result.value));
        }
        if !seen.insert((role, name)) {
            return Err(format!("two results of one role are named `{name}`"));
        }
        if role == Role::Update {
            verify_update(graph, name, result.value)?;
        }
    }
    Ok(())
}

fn verify_update(graph: &Graph, name: &str, value: Value) -> Result<(), String> {
    let Some(source) = graph.source(name) else {
        return Err(format!("`{name}` is updated, but there is no such source"));
    };
    let Op::Source(attributes) = graph.op(source) else {
        return Err(format!("{source} is registered as a source, but is none"));
    };
    if !matches!(attributes.class, SourceClass::Param | SourceClass::State) {
        let class = attributes.class.name();
        return Err(format!("`{name}` is updated, but is of class {class}"));
    }
    if graph.ty(source) != graph.ty(value) {
        let (old, new) = (graph.ty(source), graph.ty(value));
        return Err(format!("`{name}` is {old}, its next value {new}"));
    }
    Ok(())
}

fn verify_body(fused: &Fused, operands: &Operands) -> Result<(), String> {
    let body = &*fused.body;
    verify(body)?;
    if let Some(result) = body.results().iter().find(|r| r.role != Role::Output) {
        return Err(format!("its result `{}` is no plain output", result.name));
    }
    for (_, source) in body.sources() {
        let position = source.name.parse::<usize>().ok();
        if position.is_none_or(|p| p >= operands.len()) {
            return Err(format!("its source `{}` is no operand", source.name));
        }
    }
    let (mut folds, mut contractions) = (Vec::new(), 0);
    for value in body.values() {
        let op = body.op(value);
        match (op.rules().lower(), fused.kind) {
            (Lowering::Source | Lowering::Each(_) | Lowering::Point(_), _) => {}
            (Lowering::Concat { .. }, FusedKind::Map) => {}
            (Lowering::Fold(fold), FusedKind::Row) => folds.push(domain(body, value, fold)),
            (Lowering::Contract(_), FusedKind::Contract) => contractions += 1,
            _ => return Err(format!("{value}: `{}` has no place here", op.rules().text().name)),
        }
    }
    match fused.kind {
        FusedKind::Map => Ok(()),
        FusedKind::Row if folds.is_empty() => Err("it folds nothing".into()),
        FusedKind::Row if folds.windows(2).any(|w| w[0] != w[1]) => {
            Err("its folds are over different domains".into())
        }
        FusedKind::Row => Ok(()),
        FusedKind::Contract if contractions == 1 => Ok(()),
        FusedKind::Contract => Err(format!("it holds {contractions} contractions")),
    }
}

/// Outer and inner extents of a fold.
fn domain(body: &Graph, value: Value, fold: &Reduce) -> (Shape, Shape) {
    let operand = &body.ty(body.operands(value)[0]).shape;
    let inner = fold.axes.iter().map(|&a| operand[a as usize].clone()).collect();
    (body.ty(value).shape.clone(), inner)
}
