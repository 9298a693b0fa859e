//! Scans, flattened: one graph in which the body of every scan stands in its place, each value with
//! the steps of the loops around it as its first dims.
//!
//! A carry's history is a [`Hole`]: a place in memory that the loop fills. What a step sees of it
//! is a view, and so are the elements of sequences; so the kernels of a body come from the same
//! rules as any others, and read sequences where they lie.

use crate::lift::{Lift, Lifted, lift_hole};
use dlc_graph::op::{Op, Part, Scan};
use dlc_graph::{Graph, Type, Value};
use dlc_kernel::{Origin, Size};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// A carry of a [`Nest`].
#[derive(Clone, Copy, Debug)]
pub struct Carry {
    /// Its history: after the steps of outer loops, one element more than there are steps.
    pub history: Value,
    /// Its first value.
    pub first: Value,
    /// Its next value at every step.
    pub next: Value,
}

/// A loop of a flattened graph.
#[derive(Clone, Debug)]
pub struct Nest {
    /// The loop around it.
    pub outer: Option<usize>,
    /// How many loops are around it.
    pub depth: usize,
    /// How often it runs.
    pub steps: Size,
    /// What is carried.
    pub carries: Vec<Carry>,
    /// Its values are among these, by number.
    pub values: Range<u32>,
    /// The scan.
    pub origin: Origin,
}

/// A graph without scans.
pub struct Flat {
    /// The operations.
    pub graph: Graph,
    /// Those of outer loops come first.
    pub nests: Vec<Nest>,
    /// By value: the innermost loop that computes it.
    pub inside: Vec<Option<usize>>,
    /// What became of the old values; of a scan, its first result.
    pub image: Vec<Value>,
    /// The results of the old scans.
    parts: FxHashMap<Value, Vec<Value>>,
}

/// Flattens all scans; the names of results stay.
pub fn flatten(graph: &Graph) -> Flat {
    let (made, nests, inside, image, parts) = Default::default();
    let mut flat = Flat { graph: made, nests, inside, image, parts };
    for value in graph.values() {
        let made = match graph.op(value) {
            Op::Scan(scan) => flat.add_loop(graph, value, scan),
            Op::Part(Part(k)) if matches!(graph.op(graph.operands(value)[0]), Op::Scan(_)) => {
                flat.parts[&graph.operands(value)[0]][*k as usize]
            }
            _ => {
                let operands = graph.operands(value);
                let operands: Vec<Value> =
                    operands.iter().map(|v| flat.image[v.0 as usize]).collect();
                flat.graph.copy(graph, value, &operands)
            }
        };
        flat.inside.resize(flat.graph.len(), None);
        flat.image.push(made);
    }
    for result in graph.results() {
        let value = flat.image[result.value.0 as usize];
        flat.graph.add_result(result.name.clone(), value, result.role);
    }
    flat
}

impl Flat {
    fn add_loop(&mut self, graph: &Graph, value: Value, scan: &Scan) -> Value {
        let operands = graph.operands(value);
        let operands: Vec<Value> = operands.iter().map(|v| self.image[v.0 as usize]).collect();
        let body = flatten(&scan.body);
        let own = self.nests.len();
        self.nests.push(Nest {
            outer: None,
            depth: 0,
            steps: scan.steps.clone(),
            carries: Vec::new(),
            values: self.graph.len() as u32..0,
            origin: graph.origin(value).clone(),
        });
        let mut lifting = Lifting {
            lift: Lift { steps: &scan.steps, everything: true },
            own,
            starts: Vec::new(),
            image: Vec::new(),
            flat: self,
        };
        let histories = lifting.histories(scan, &operands, graph.origin(value));
        lifting.values(scan, &body, &operands, &histories);
        let results = lifting.results(&body);
        lifting.inner_nests(&body);
        let carries = histories.iter().zip(&operands).zip(&results);
        let carries: Vec<Carry> =
            carries.map(|((&history, &first), &next)| Carry { history, first, next }).collect();
        let nest = &mut self.nests[own];
        nest.values.end = self.graph.len() as u32;
        nest.carries = carries;
        let yields = results[histories.len()..].iter().copied();
        let parts: Vec<Value> = histories.iter().copied().chain(yields).collect();
        let first = parts[0];
        self.parts.insert(value, parts);
        first
    }
}

/// A flattened body on its way into the graph around its loop.
struct Lifting<'f> {
    flat: &'f mut Flat,
    lift: Lift<'f>,
    /// The loop.
    own: usize,
    /// By value of the body: how many values there were before it.
    starts: Vec<u32>,
    /// By value of the body.
    image: Vec<Lifted>,
}

impl Lifting<'_> {
    fn histories(&mut self, scan: &Scan, operands: &[Value], origin: &Origin) -> Vec<Value> {
        let carries = &operands[..scan.carries as usize];
        let steps = scan.steps.clone() + Size::ONE;
        let history = |&first: &Value| {
            let ty = self.flat.graph.ty(first).clone();
            let shape = std::iter::once(steps.clone()).chain(ty.shape);
            self.flat.graph.hole(Type::new(ty.dtype, shape), origin)
        };
        carries.iter().map(history).collect()
    }

    fn values(&mut self, scan: &Scan, body: &Flat, operands: &[Value], histories: &[Value]) {
        let along = histories.len()..histories.len() + scan.sequences as usize;
        for value in body.graph.values() {
            let origin = body.graph.origin(value);
            self.starts.push(self.flat.graph.len() as u32);
            let lifted = match body.graph.op(value) {
                Op::Source(source) => match source.position() {
                    k if k < along.start => {
                        let steps = scan.steps.clone();
                        let graph = &mut self.flat.graph;
                        Lifted::stacked(graph.slice(histories[k], 0, Size::ZERO, steps, origin))
                    }
                    k if along.contains(&k) => Lifted::stacked(operands[k]),
                    k => Lifted::same(operands[k]),
                },
                Op::Hole(hole) => {
                    let graph = &mut self.flat.graph;
                    Lifted::stacked(lift_hole(graph, hole, self.lift.steps, origin))
                }
                _ => {
                    let read: Vec<Lifted> = body
                        .graph
                        .operands(value)
                        .iter()
                        .map(|v| self.image[v.0 as usize])
                        .collect();
                    self.lift.node(&mut self.flat.graph, (&body.graph, value), &read)
                }
            };
            let inner = body.inside[value.0 as usize].map(|inner| self.own + 1 + inner);
            let inside = lifted.stacked.then(|| inner.unwrap_or(self.own));
            self.flat.inside.resize(self.flat.graph.len(), inside);
            self.image.push(lifted);
        }
        self.starts.push(self.flat.graph.len() as u32);
    }

    fn stacked(&mut self, value: Value) -> Value {
        let stacked = self.lift.stack(&mut self.flat.graph, self.image[value.0 as usize], &None);
        self.flat.inside.resize(self.flat.graph.len(), Some(self.own));
        stacked
    }

    fn results(&mut self, body: &Flat) -> Vec<Value> {
        body.graph.results().iter().map(|r| self.stacked(r.value)).collect()
    }

    /// The loops of the body are in this one.
    fn inner_nests(&mut self, body: &Flat) {
        for nest in &body.nests {
            let carry = |c: &Carry| Carry {
                history: self.image[c.history.0 as usize].value,
                first: self.stacked(c.first),
                next: self.stacked(c.next),
            };
            let carries = nest.carries.iter().map(carry).collect();
            let place = |at: u32| self.starts[at as usize];
            let inner = Nest {
                outer: Some(nest.outer.map_or(self.own, |outer| self.own + 1 + outer)),
                depth: nest.depth + 1,
                steps: nest.steps.clone(),
                carries,
                values: place(nest.values.start)..place(nest.values.end),
                origin: nest.origin.clone(),
            };
            self.flat.nests.push(inner);
        }
    }
}
