//! Computing once what later calls share: an encoder's states, while a decoder asks for one word
//! after the other.

use crate::class::{Class, class};
use dlc_graph::op::{Op, Source, SourceClass};
use dlc_graph::{Graph, Role, Value};
use dlc_kernel::Scalar;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// A graph in two: what is computed once, and what is computed again and again. Both have all
/// parameters and states.
pub struct Early {
    /// Takes the early inputs. Its results are what the other graph needs of it.
    pub first: Graph,
    /// Takes all inputs and the results of `first`, by their names. Has the results of the whole.
    pub second: Graph,
}

/// What inputs a value depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    /// Parameters and constants alone.
    Nothing,
    Early,
    Late,
}

/// Parts a graph by its inputs: what needs none but `early` ones goes to the first graph. Views of
/// it, and what needs no input, are made where they are read. What an update changes differs from
/// call to call, so it is late, and the second graph has the update.
pub fn split_early(graph: &Graph, early: &[&str]) -> Early {
    let needs = needs(graph, early);
    let shared = shared(graph, &needs);
    let mut first = Part { graph, made: FxHashMap::default(), new: Graph::new() };
    let is_late = |(value, source): &(Value, &Source)| {
        source.class == SourceClass::Input && needs[value.0 as usize] == Needs::Late
    };
    for (value, _) in graph.sources().filter(|source| !is_late(source)) {
        first.copy(value);
    }
    for (number, &value) in shared.iter().enumerate() {
        let made = first.copy(value);
        first.new.add_result(name(number), made, Role::Output);
    }
    let mut second = Part { graph, made: FxHashMap::default(), new: Graph::new() };
    for (value, _) in graph.sources() {
        second.copy(value);
    }
    for (number, &value) in shared.iter().enumerate() {
        let ty = graph.ty(value).clone();
        let default = Scalar::new(ty.dtype, 0.0);
        let source = Source { name: name(number).into(), class: SourceClass::Input, ty, default };
        let made = second.new.push(source, &[], graph.origin(value).clone());
        second.made.insert(value, made);
    }
    for result in graph.results() {
        let made = second.copy(result.value);
        second.new.add_result(result.name.clone(), made, result.role);
    }
    Early { first: first.new, second: second.new }
}

fn name(number: usize) -> String {
    format!("early.{number}")
}

fn needs(graph: &Graph, early: &[&str]) -> Vec<Needs> {
    let changes = |source: &Source| {
        graph.results().iter().any(|r| r.role == Role::Update && *r.name == *source.name)
    };
    let mut needs: Vec<Needs> = Vec::with_capacity(graph.len());
    for value in graph.values() {
        needs.push(match graph.op(value) {
            Op::Source(source) if source.class != SourceClass::Input => match changes(source) {
                true => Needs::Late,
                false => Needs::Nothing,
            },
            Op::Source(source) if early.contains(&&*source.name) => Needs::Early,
            Op::Source(_) => Needs::Late,
            _ => {
                let operands = graph.operands(value);
                let each = operands.iter().map(|v| needs[v.0 as usize]);
                each.max().unwrap_or(Needs::Nothing)
            }
        });
    }
    needs
}

/// The early values that late ones read, if need be through views.
fn shared(graph: &Graph, needs: &[Needs]) -> BTreeSet<Value> {
    let live = graph.live();
    let late = graph.values().filter(|v| live[v.0 as usize] && needs[v.0 as usize] == Needs::Late);
    let mut open: Vec<Value> = late.flat_map(|v| graph.operands(v)).collect();
    let mut shared = BTreeSet::new();
    while let Some(value) = open.pop() {
        if needs[value.0 as usize] == Needs::Early {
            match class(graph, value) {
                Class::Source => {}
                Class::Free => open.extend(graph.operands(value)),
                _ => _ = shared.insert(value),
            }
        }
    }
    shared
}

/// One of the two graphs in the making.
struct Part<'g> {
    graph: &'g Graph,
    made: FxHashMap<Value, Value>,
    new: Graph,
}

impl Part<'_> {
    /// Copies a value with all it needs that is not there yet.
    fn copy(&mut self, value: Value) -> Value {
        let mut open = vec![value];
        while let Some(&top) = open.last() {
            let operands = self.graph.operands(top);
            let before = open.len();
            open.extend(operands.iter().filter(|v| !self.made.contains_key(v)));
            if open.len() > before {
                continue;
            }
            open.pop();
            let operands: Vec<Value> = operands.iter().map(|v| self.made[v]).collect();
            let made = self.new.copy(self.graph, top, &operands);
            self.made.insert(top, made);
        }
        self.made[&value]
    }
}
