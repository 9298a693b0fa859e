//! The graph of a step whose numbers stopped being finite, for finding out where.

use dlc_graph::op::{Op, SourceClass};
use dlc_graph::{Graph, Operands, Role, Value, differentiate};
use dlc_kernel::FoldOp;

/// A step without what it returns and updates. In their stead, for each value that is made of floats
/// and depends on more than constants, its largest number; beside it what makes the value, in words.
pub(crate) fn checking(step: &Graph) -> (Graph, Vec<String>) {
    let step = differentiate(step);
    let live = needed(&step);
    let (mut graph, mut image) = (Graph::new(), Vec::<Option<Value>>::new());
    let (mut makers, mut largest) = (Vec::new(), Vec::new());
    for value in step.values() {
        let op = step.op(value);
        if !live[value.0 as usize] && !matches!(op, Op::Source(_)) {
            image.push(None);
            continue;
        }
        let operands = step.operands(value);
        let operands: Operands = operands.iter().filter_map(|v| image[v.0 as usize]).collect();
        let made = graph.copy(&step, value, &operands);
        image.push(Some(made));
        if let Some(maker) = maker(&step, value) {
            let axes: Vec<u32> = (0..graph.ty(made).rank() as u32).collect();
            let most = graph.reduce(FoldOp::Max, made, &axes, step.origin(value));
            largest.push(most);
            makers.push(maker);
        }
    }
    for (number, most) in largest.into_iter().enumerate() {
        graph.add_result(number.to_string(), most, Role::Output);
    }
    (graph, makers)
}

/// By value: whether what is checked to be finite needs it.
fn needed(step: &Graph) -> Vec<bool> {
    let mut needed = vec![false; step.len()];
    let checked = step.results().iter().filter(|r| r.role == Role::Check);
    checked.for_each(|result| needed[result.value.0 as usize] = true);
    for value in step.values().rev() {
        if needed[value.0 as usize] {
            step.operands(value).iter().for_each(|v| needed[v.0 as usize] = true);
        }
    }
    needed
}

/// What makes a value: an operation with its line, or the tensor that it is.
fn maker(step: &Graph, value: Value) -> Option<String> {
    if !step.ty(value).dtype.is_float() {
        return None;
    }
    let kind = match step.op(value) {
        Op::Source(source) => {
            return Some(match source.class {
                SourceClass::Input => format!("the input `{}`", source.name),
                _ => format!("`{}`", source.name),
            });
        }
        Op::Const(_) | Op::Extent(_) | Op::View(_) | Op::Reshape(_) | Op::StopGradient(_) => {
            return None;
        }
        Op::Scan(_) => "the loop",
        op => op.rules().text().name,
    };
    let place = step.origin(value).as_ref()?;
    let path = if place.path.is_empty() { String::new() } else { format!(" ({})", place.path) };
    Some(format!("{kind}, {}:{}{path}", place.file, place.line))
}
