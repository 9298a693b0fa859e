//! What gradients read of the way forward is computed again, where that takes far less memory.
//!
//! A gradient reads values that were computed long before: the weights of attention, all positions by
//! all positions, wait in memory for the rest of the network. Where such a value is made of the product
//! of tensors that are far smaller (queries and keys), and of others that are small (the maximum and the
//! sum of each row), these wait instead. What is computed again begins with views that change nothing,
//! which keep it apart from what it equals: simplification would drop them, and is over.
//!
//! So is what follows in a few cheap operations from a tensor of its size that is in memory anyway and from
//! small ones, if nothing else wants it there: what a normalization's input deviates from its mean. It
//! costs no memory less, but a store.
//!
//! *Late* is what serves no output of the graph: gradients and updates. A late value reads *from far*
//! what lies so many contractions back that others come between. Exact.

use crate::class::{Class, class};
use crate::rewrite::{Node, copy, rebuild};
use dlc_graph::op::{Op, View};
use dlc_graph::{EXPENSIVE, Graph, Operands, Outcome, Role, Value, cost};
use dlc_kernel::{Access, Scalar};
use rustc_hash::{FxHashMap, FxHashSet};

/// From how many bytes on a value is worth it.
const LARGE: i64 = 8 << 20;
/// How many times as large it is as all that it is computed from.
const RATIO: i64 = 3;
/// The most additions for each byte: attention with heads of up to some 128 features is worth it.
const MOST_WORK: i64 = 96;
/// How many contractions further a reader from far is, itself included.
const FAR: u32 = 2;
/// The most cheap operations that are a few.
const MAX_STEPS: usize = 4;
/// The most operations that one value is computed from.
const MAX_OPERATIONS: usize = 64;

/// The graph in which late readers from far have large values of their own.
pub fn recompute(graph: &Graph) -> Graph {
    recompute_from(graph, LARGE)
}

/// [`recompute`], for values of so many bytes and more.
pub fn recompute_from(graph: &Graph, bytes: i64) -> Graph {
    let mut again = Again::new(graph, bytes);
    if again.members.is_empty() {
        return graph.clone();
    }
    rebuild(graph, |new, node| {
        let mut operands = node.operands.clone();
        for (operand, value) in operands.iter_mut().zip(graph.operands(node.old)) {
            if again.far_root(node.old, value).is_some_and(|root| again.members.contains(&root)) {
                *operand = again.compute(new, value);
            }
        }
        let made = copy(new, &Node { operands, ..node });
        again.images.insert(node.old, made);
        made
    })
}

/// What is computed again, and what became of it.
struct Again<'g> {
    graph: &'g Graph,
    /// By value: whether no output depends on it.
    late: Vec<bool>,
    /// By value: how many contractions there are on the longest way to it, itself included.
    depth: Vec<u32>,
    /// The values that are computed again.
    members: FxHashSet<Value>,
    /// By value of the old graph: what it is in the new one, as far as there is one.
    images: FxHashMap<Value, Value>,
    /// The same, computed again.
    copies: FxHashMap<Value, Value>,
}

impl<'g> Again<'g> {
    fn new(graph: &'g Graph, large: i64) -> Again<'g> {
        let (late, depth) = (late(graph), depth(graph));
        let (members, images, copies) = Default::default();
        let mut again = Again { graph, late, depth, members, images, copies };
        let mut known: FxHashSet<Value> = FxHashSet::default();
        for user in graph.values() {
            for value in graph.operands(user) {
                let root = again.far_root(user, value).filter(|root| known.insert(*root));
                let cone =
                    root.and_then(|root| again.cone(root, large).or_else(|| again.steps(root)));
                again.members.extend(cone.into_iter().flatten());
            }
        }
        again
    }

    /// What `value` is a view of, if `user` is late and reads it from far.
    fn far_root(&self, user: Value, value: Value) -> Option<Value> {
        if !self.late[at(user)] || class(self.graph, user) == Class::Free {
            return None;
        }
        let mut root = value;
        while let Op::View(_) = self.graph.op(root) {
            root = self.graph.operands(root)[0];
        }
        let far = !self.late[at(root)] && self.depth[at(user)] >= self.depth[at(root)] + FAR;
        far.then_some(root)
    }

    /// The operations that make `root`, of `large` bytes or more, of what is far smaller, if that is
    /// worth it.
    fn cone(&self, root: Value, large: i64) -> Option<FxHashSet<Value>> {
        let graph = self.graph;
        let size = elements(graph, root)?;
        let bytes = size * graph.ty(root).dtype.bytes() as i64;
        let is_output = |r: &Outcome| r.value == root && r.role == Role::Output;
        if bytes < large || graph.results().iter().any(is_output) {
            return None;
        }
        let (mut members, mut kept) = (FxHashSet::default(), FxHashSet::default());
        let (mut pending, mut work, mut products) = (vec![root], 0i64, 0);
        while let Some(value) = pending.pop() {
            let extent = elements(graph, value)?;
            let per_element = match (graph.op(value), class(graph, value)) {
                (Op::Source(_), _) => continue,
                _ if extent * RATIO <= size && !graph.operands(value).is_empty() => {
                    kept.insert(value);
                    continue;
                }
                (_, Class::Free) => 0,
                (Op::Gather(_), _) => return None,
                (_, Class::Point) => cost(graph, value),
                (Op::Contract(contract), _) => {
                    products += 1;
                    let terms = contract.reduce.iter().map(|n| n.as_const());
                    2 * terms.product::<Option<i64>>()?
                }
                _ => return None,
            };
            if members.insert(value) {
                work = work.saturating_add(extent.saturating_mul(per_element));
                pending.extend(graph.operands(value));
            }
        }
        let waits: i64 = kept.iter().filter_map(|&v| elements(graph, v)).sum();
        let worth = waits * RATIO <= size && work <= bytes.saturating_mul(MOST_WORK);
        (products > 0 && worth && members.len() <= MAX_OPERATIONS).then_some(members)
    }

    /// The few cheap operations that make `root` of a tensor like it that is in memory anyway, and of small
    /// ones, if only late readers want it in memory.
    fn steps(&self, root: Value) -> Option<FxHashSet<Value>> {
        let (graph, size) = (self.graph, elements(self.graph, root)?);
        if !self.may_leave(root) {
            return None;
        }
        let (mut members, mut kept) = (FxHashSet::default(), FxHashSet::default());
        let mut pending = vec![root];
        while let Some(value) = pending.pop() {
            match class(graph, value) {
                Class::Free => {}
                _ if elements(graph, value)? * RATIO <= size => continue,
                _ if value != root && self.stays(value) => {
                    kept.insert(value);
                    continue;
                }
                Class::Point if cost(graph, value) < EXPENSIVE => {
                    members.insert(value);
                }
                _ => return None,
            }
            pending.extend(graph.operands(value));
        }
        let dtype = |v: Value| graph.ty(v).dtype;
        let like = |&v: &Value| dtype(v) == dtype(root) && elements(graph, v) == Some(size);
        let one = kept.len() == 1 && kept.iter().all(like);
        (one && members.len() <= MAX_STEPS).then_some(members)
    }

    /// Whether nothing but late readers from far, which can compute it themselves, want a value in memory.
    fn may_leave(&self, value: Value) -> bool {
        let depth = |v: Value| self.depth[at(v)];
        let joins = |v: Value| matches!(class(self.graph, v), Class::Point | Class::Fold);
        let leaves = |&reader: &Value| {
            let far = depth(reader) >= depth(value) + FAR;
            let near = depth(reader) <= depth(value);
            joins(reader) && if self.late[at(reader)] { far } else { near }
        };
        let is_output = |r: &Outcome| r.value == value && r.role == Role::Output;
        !self.graph.results().iter().any(is_output) && self.readers(value).iter().all(leaves)
    }

    /// Whether a value is in memory anyway: something on the way forth reads it that does not become a part
    /// of one kernel with it.
    fn stays(&self, value: Value) -> bool {
        let is_point = |v: Value| class(self.graph, v) == Class::Point;
        let further = |reader: &Value| self.depth[at(*reader)] > self.depth[at(value)];
        let mut early = self.readers(value).into_iter().filter(|&reader| !self.late[at(reader)]);
        early.any(|reader| !is_point(reader) || further(&reader))
    }

    /// Who reads a value, or a view of it.
    fn readers(&self, value: Value) -> Vec<Value> {
        let (mut readers, mut pending) = (Vec::new(), vec![value]);
        while let Some(value) = pending.pop() {
            let users = self.graph.users(value).into_iter();
            let (views, others): (Vec<_>, Vec<_>) =
                users.partition(|&user| class(self.graph, user) == Class::Free);
            pending.extend(views);
            readers.extend(others);
        }
        readers
    }

    /// The value, computed again as far as it is made of members.
    fn compute(&mut self, new: &mut Graph, value: Value) -> Value {
        let mut pending = vec![value];
        while let Some(&top) = pending.last() {
            let operands = self.graph.operands(top);
            let is_free = class(self.graph, top) == Class::Free;
            let again = is_free || self.members.contains(&top);
            let missing = operands.iter().filter(|v| again && !self.copies.contains_key(v));
            let count = pending.len();
            pending.extend(missing);
            if pending.len() > count {
                continue;
            }
            pending.pop();
            let made = match again {
                true => {
                    let operands: Operands = operands.iter().map(|v| self.copies[v]).collect();
                    new.copy(self.graph, top, &operands)
                }
                false => {
                    let (image, origin) = (self.images[&top], self.graph.origin(top).clone());
                    new.push(whole(new, image), &[image], origin)
                }
            };
            self.copies.insert(top, made);
        }
        self.copies[&value]
    }
}

/// The view of a value that changes nothing.
fn whole(graph: &Graph, value: Value) -> View {
    let ty = graph.ty(value);
    let (axes, access) = (ty.shape.clone(), Access::identity(ty.rank()));
    View { axes, access, fill: Scalar::new(ty.dtype, 0.0) }
}

/// By value: whether no output depends on it.
fn late(graph: &Graph) -> Vec<bool> {
    let mut late = vec![true; graph.len()];
    for result in graph.results().iter().filter(|r| r.role == Role::Output) {
        late[at(result.value)] = false;
    }
    for value in graph.values().rev() {
        if !late[at(value)] {
            graph.operands(value).iter().for_each(|&v| late[at(v)] = false);
        }
    }
    late
}

fn depth(graph: &Graph) -> Vec<u32> {
    let mut depth: Vec<u32> = Vec::with_capacity(graph.len());
    for value in graph.values() {
        let before = graph.operands(value).iter().map(|&v| depth[at(v)]).max().unwrap_or(0);
        depth.push(before + u32::from(class(graph, value) == Class::Contract));
    }
    depth
}

fn elements(graph: &Graph, value: Value) -> Option<i64> {
    graph.ty(value).elements().as_const()
}

fn at(value: Value) -> usize {
    value.0 as usize
}
