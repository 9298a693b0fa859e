//! Readable, unique names for kernels and temporaries: letters, digits and `_` only.

use crate::class::{Class, class};
use dlc_graph::op::{Op, Part};
use dlc_graph::{Graph, Role, Value};
use dlc_kernel::{BinaryOp, Origin};
use rustc_hash::FxHashMap;

/// The names given so far in one entry.
#[derive(Default)]
pub struct Names {
    kernels: FxHashMap<String, u32>,
    buffers: FxHashMap<String, u32>,
}

impl Names {
    /// The name and origin of the kernel that makes `value`.
    pub fn kernel(&mut self, graph: &Graph, value: Value) -> (String, Origin) {
        let name = self.unique(&describe(graph, value));
        (name, graph.origin(value).clone())
    }

    /// The name of the temporary that holds `value`.
    pub fn buffer(&mut self, graph: &Graph, value: Value) -> String {
        let (maker, part) = match graph.op(value) {
            Op::Part(Part(k)) => (graph.operands(value)[0], *k),
            _ => (value, 0),
        };
        let named = graph.results().iter().find(|r| r.value == value && r.role == Role::Check);
        let name = match named {
            Some(result) => return count(&mut self.buffers, &result.name),
            None => describe(graph, maker),
        };
        let name = if part > 0 { format!("{name}_{part}") } else { name };
        count(&mut self.buffers, &name)
    }

    /// The name of a loop.
    pub fn of_loop(&mut self, origin: &Origin) -> String {
        let path = origin.as_ref().map(|o| sanitize(&o.path)).unwrap_or_default();
        self.unique(&if path.is_empty() { "scan".into() } else { format!("{path}_scan") })
    }

    /// `name`, with a number if it is taken.
    pub fn unique(&mut self, name: &str) -> String {
        count(&mut self.kernels, name)
    }
}

fn count(taken: &mut FxHashMap<String, u32>, name: &str) -> String {
    let mut name = name.to_string();
    loop {
        let times = taken.entry(name.clone()).or_default();
        *times += 1;
        match *times {
            1 => return name,
            n => name = format!("{name}_{n}"),
        }
    }
}

/// What `value` is, in a few words: where it was written and what is computed.
fn describe(graph: &Graph, value: Value) -> String {
    if is_update(graph, value) {
        return "update".to_string();
    }
    let words = match graph.op(value) {
        Op::Fused(fused) => words(&fused.body, fused.body.values()),
        _ => words(graph, [value].into_iter()),
    };
    let path = graph.origin(value).as_ref().map(|o| sanitize(&o.path)).unwrap_or_default();
    match (path.is_empty(), words.is_empty()) {
        (true, true) => "map".to_string(),
        (true, false) => words.join("_"),
        (false, true) => path,
        (false, false) => {
            let own = words.into_iter().filter(|w| *w != "contract" && !path.ends_with(w));
            [path.as_str()].into_iter().chain(own).collect::<Vec<_>>().join("_")
        }
    }
}

/// Whether all that `value` is for is the next parameters and state.
fn is_update(graph: &Graph, value: Value) -> bool {
    let users = graph.users(value);
    let parts: Vec<Value> = match graph.op(value) {
        Op::Fused(fused) if fused.body.results().len() > 1 => users.to_vec(),
        _ => vec![value],
    };
    let updates =
        |v: &Value| graph.results().iter().any(|r| r.value == *v && r.role == Role::Update);
    graph.results().iter().any(|r| r.role == Role::Update) && parts.iter().all(updates)
}

/// The telling operations among `values`, each once, at most three.
fn words(graph: &Graph, values: impl Iterator<Item = Value>) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = Vec::new();
    let mut plain = None;
    let name = |value| graph.op(value).rules().text().name;
    for value in values {
        let word = match (class(graph, value), graph.op(value)) {
            (Class::Fold | Class::Contract | Class::Whole, _) => name(value),
            (_, Op::Binary(op)) if op.0 == BinaryOp::Max && has_zero(graph, value) => "relu",
            (_, Op::Unary(_) | Op::Gather(_) | Op::Random(_)) => name(value),
            (Class::Point, _) | (_, Op::View(_)) => {
                plain = Some(value);
                continue;
            }
            _ => continue,
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if ["reduce_max", "exp", "reduce_sum"].iter().all(|w| words.contains(w)) {
        words.retain(|w| !["reduce_max", "exp", "reduce_sum", "neg"].contains(w));
        words.insert(0, "softmax");
    }
    if words.is_empty() {
        words.extend(plain.map(name));
    }
    words.truncate(3);
    words
}

fn has_zero(graph: &Graph, value: Value) -> bool {
    graph.operands(value).iter().any(|&v| graph.as_splat(v).is_some_and(|s| s.value() == 0.0))
}

/// Letters, digits and `_` of `path`; anything else becomes `_`.
fn sanitize(path: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    path.chars().map(keep).collect()
}
