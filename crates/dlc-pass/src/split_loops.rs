//! Loop fission: what needs no order of steps leaves a loop, and is done for all steps at once.
//!
//! - What does not depend on a carry goes before the loop. A product with each element of a sequence
//!   becomes one contraction. Only what follows with little work from other values that the steps read
//!   anyway stays: it is sooner computed than stored and read.
//! - What no next value of a carry needs goes after it. What it reads of the loop is yielded, or in
//!   the history of a carry. So the gradient of recurrent weights, a sum over steps of products, is one
//!   contraction over steps and rows.
//! - A carry that nobody needs is gone.
//!
//! Exact, but for the sums over steps, which are reassociated.

use crate::class::{Class, class};
use crate::lift::{Lift, Lifted};
use crate::rewrite::{copy, eliminate_dead_code, rebuild};
use crate::simplify::simplify;
use dlc_graph::op::{Op, Part, Scan};
use dlc_graph::{Carried, EXPENSIVE, Graph, Loop, Value, cost};
use dlc_kernel::{Origin, Size};
use rustc_hash::FxHashMap;

/// Splits every scan. What comes to stand outside is simplified there.
pub fn split_loops(graph: &Graph) -> Graph {
    if !graph.distinct_ops().any(|op| matches!(op, Op::Scan(_))) {
        return graph.clone();
    }
    let live = graph.live();
    let mut parts: FxHashMap<Value, Vec<Option<Value>>> = FxHashMap::default();
    let split = rebuild(graph, |new, node| match node.op {
        Op::Scan(scan) => {
            let mut used = vec![false; scan.body.results().len()];
            for user in graph.users(node.old).into_iter().filter(|u| live[u.0 as usize]) {
                match graph.op(user) {
                    Op::Part(Part(k)) => used[*k as usize] = true,
                    _ => used[0] = true,
                }
            }
            used[0] |= graph.results().iter().any(|r| r.value == node.old);
            let made = Splitting::new(new, scan, &node.operands, node.origin).split(&used);
            let first = made.iter().flatten().next().copied();
            parts.insert(node.old, made);
            first.expect("a part of a live scan is read")
        }
        Op::Part(Part(k)) => match parts.get(&graph.operands(node.old)[0]) {
            Some(parts) => parts[*k as usize].expect("it is read"),
            None => copy(new, &node),
        },
        _ => copy(new, &node),
    });
    eliminate_dead_code(&simplify(&split))
}

/// The most operations of a value that a step computes sooner than it reads it.
const MOST_SHORT_STEPS: usize = 8;

/// Whether a value is computed sooner than it is stored and read.
fn is_short(body: &Graph, value: Value) -> bool {
    match class(body, value) {
        Class::Point => cost(body, value) < EXPENSIVE,
        class => class == Class::Free,
    }
}

/// A scan on its way into a new graph.
struct Splitting<'a> {
    new: &'a mut Graph,
    scan: &'a Scan,
    body: &'a Graph,
    operands: &'a [Value],
    origin: &'a Origin,
    /// By value of the body: whether it depends on a carry.
    depends: Vec<bool>,
    /// By value of the body: whether the step computes it although it depends on no carry.
    stays: Vec<bool>,
    /// By value of the body: whether some next value of a carry that is needed needs it.
    needed: Vec<bool>,
    /// By carry: what stands for it in the new step; `None` if nobody needs it.
    holes: Vec<Option<Value>>,
    /// What is the same for all steps, or was computed for all of them.
    outside: FxHashMap<Value, Lifted>,
    /// What the new step computes.
    inside: FxHashMap<Value, Value>,
    sequences: Vec<(Value, Value)>,
}

impl<'a> Splitting<'a> {
    fn new(
        new: &'a mut Graph,
        scan: &'a Scan,
        operands: &'a [Value],
        origin: &'a Origin,
    ) -> Splitting<'a> {
        let body = &*scan.body;
        let mut depends = vec![false; body.len()];
        for value in body.values() {
            depends[value.0 as usize] = match body.op(value) {
                Op::Source(source) => source.position() < scan.carries as usize,
                _ => body.operands(value).iter().any(|v| depends[v.0 as usize]),
            };
        }
        let (stays, needed, holes, outside, inside, sequences) = Default::default();
        Splitting {
            new,
            scan,
            body,
            operands,
            origin,
            depends,
            stays,
            needed,
            holes,
            outside,
            inside,
            sequences,
        }
    }

    /// The parts that are used.
    fn split(mut self, used: &[bool]) -> Vec<Option<Value>> {
        let carries = self.scan.carries as usize;
        self.find_needed(used);
        for k in 0..carries {
            let live = self.needed_carry(k);
            let hole = live.then(|| {
                let ty = self.new.ty(self.operands[k]).clone();
                self.new.hole(ty, self.origin)
            });
            self.holes.push(hole);
        }
        let yielded = self.yielded(used);
        self.find_staying();
        let carried: Vec<usize> = (0..carries).filter(|&k| self.holes[k].is_some()).collect();
        let next: Vec<Value> = carried.iter().map(|&k| self.step(self.result(k))).collect();
        let yields: Vec<Value> = yielded.iter().map(|&v| self.step(v)).collect();
        let pairs = carried.iter().zip(next);
        let carry = |(&k, next): (&usize, Value)| Carried {
            hole: self.holes[k].expect("it is live"),
            first: self.operands[k],
            next,
        };
        let carries = pairs.map(carry).collect();
        let made = self.close(carries, yields);
        let (histories, stacked) = made.split_at(carried.len());
        let found: FxHashMap<usize, Value> =
            carried.iter().copied().zip(histories.iter().copied()).collect();
        self.after(&found, &yielded, stacked);
        let result = |(k, &used): (usize, &bool)| match found.get(&k) {
            Some(&history) => Some(history),
            None if used => Some(self.stacked(self.result(k))),
            None => None,
        };
        used.iter().enumerate().map(result).collect()
    }

    fn result(&self, k: usize) -> Value {
        self.body.results()[k].value
    }

    /// Finds what the loop must compute: next values of carries, as far as results or other such
    /// values depend on them.
    fn find_needed(&mut self, used: &[bool]) {
        let carries = self.scan.carries as usize;
        // All that any result needs, carries of earlier steps included.
        let mut wanted = vec![false; self.body.len()];
        let mut open: Vec<Value> =
            (0..used.len()).filter(|&k| used[k]).map(|k| self.result(k)).collect();
        let mut alive: Vec<bool> = (0..carries).map(|k| used[k]).collect();
        while let Some(value) = open.pop() {
            if std::mem::replace(&mut wanted[value.0 as usize], true) {
                continue;
            }
            open.extend(self.body.operands(value));
            if let Op::Source(source) = self.body.op(value)
                && let k = source.position()
                && k < carries
                && !std::mem::replace(&mut alive[k], true)
            {
                open.push(self.result(k));
            }
        }
        self.needed = vec![false; self.body.len()];
        let mut open: Vec<Value> =
            (0..carries).filter(|&k| alive[k]).map(|k| self.result(k)).collect();
        while let Some(value) = open.pop() {
            if !std::mem::replace(&mut self.needed[value.0 as usize], true) {
                open.extend(self.body.operands(value));
            }
        }
        for (value, source) in self.body.sources() {
            let k = source.position();
            self.needed[value.0 as usize] |= k < carries && alive[k];
        }
    }

    fn needed_carry(&self, k: usize) -> bool {
        let source = self.body.source(&k.to_string()).expect("a carry has an input");
        self.needed[source.0 as usize]
    }

    /// Whether the new step computes `value`.
    fn is_inside(&self, value: Value) -> bool {
        let at = value.0 as usize;
        let source = matches!(self.body.op(value), Op::Source(_));
        self.depends[at] && self.needed[at] && !source
    }

    /// Finds what follows with little work from what the steps read anyway.
    fn find_staying(&mut self) {
        self.stays = vec![false; self.body.len()];
        let mut read = vec![false; self.body.len()];
        for value in self.body.values().filter(|&v| self.is_inside(v)) {
            self.body.operands(value).iter().for_each(|v| read[v.0 as usize] = true);
        }
        for value in self.body.values().rev() {
            let at = value.0 as usize;
            if read[at] && !self.depends[at] && self.follows(value, &read) {
                read[at] = false;
                self.stay(value, &read);
            }
        }
    }

    /// Whether little work makes `value` of others that are `read`, at least one.
    fn follows(&self, value: Value, read: &[bool]) -> bool {
        let mut open = vec![value];
        let mut sources = 0;
        for _ in 0..MOST_SHORT_STEPS {
            let Some(value) = open.pop() else { return sources > 0 };
            for &operand in self.body.operands(value).iter() {
                match read[operand.0 as usize] {
                    true => sources += usize::from(class(self.body, operand) != Class::Free),
                    false if is_short(self.body, operand) => open.push(operand),
                    false => return false,
                }
            }
            if !is_short(self.body, value) {
                return false;
            }
        }
        false
    }

    /// The step computes `value` and what it needs of what is not `read`.
    fn stay(&mut self, value: Value, read: &[bool]) {
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            self.stays[value.0 as usize] = true;
            let operands = self.body.operands(value);
            open.extend(operands.iter().copied().filter(|v| !read[v.0 as usize]));
        }
    }

    /// What the loop computes and something after it reads: it is yielded, unless it is in a history.
    fn yielded(&self, used: &[bool]) -> Vec<Value> {
        let carries = self.scan.carries as usize;
        let next: Vec<Value> =
            (0..carries).filter(|&k| self.holes[k].is_some()).map(|k| self.result(k)).collect();
        let mut found = Vec::new();
        let mut seen = vec![false; self.body.len()];
        let mut open: Vec<Value> =
            (carries..used.len()).filter(|&k| used[k]).map(|k| self.result(k)).collect();
        while let Some(value) = open.pop() {
            if std::mem::replace(&mut seen[value.0 as usize], true) {
                continue;
            }
            let free = class(self.body, value) == Class::Free;
            let kept = self.is_inside(value) && !free;
            if kept && !self.has_parts(value) {
                if !next.contains(&value) {
                    found.push(value);
                }
                continue;
            }
            open.extend(self.body.operands(value));
        }
        found.sort();
        found
    }

    /// Whether only parts of `value` are values.
    fn has_parts(&self, value: Value) -> bool {
        matches!(self.body.op(value), Op::Scan(_))
    }

    /// A value of the new step.
    fn step(&mut self, value: Value) -> Value {
        if let Some(&known) = self.inside.get(&value) {
            return known;
        }
        let mut open = vec![value];
        while let Some(&value) = open.last() {
            if self.inside.contains_key(&value) {
                open.pop();
                continue;
            }
            if !self.depends[value.0 as usize] && !self.stays[value.0 as usize] {
                let made = self.element(value);
                self.inside.insert(value, made);
                continue;
            }
            if let Op::Source(source) = self.body.op(value) {
                let hole = self.holes[source.position()].expect("a carry that is read is live");
                self.inside.insert(value, hole);
                continue;
            }
            let operands = self.body.operands(value);
            let before = open.len();
            open.extend(operands.iter().filter(|v| !self.inside.contains_key(v)));
            if open.len() == before {
                let read: Vec<Value> = operands.iter().map(|v| self.inside[v]).collect();
                let made = self.new.copy(self.body, value, &read);
                self.inside.insert(value, made);
            }
        }
        self.inside[&value]
    }

    /// What the new step sees of a value that depends on no carry.
    fn element(&mut self, value: Value) -> Value {
        let lifted = self.lifted(value);
        if !lifted.stacked {
            return lifted.value;
        }
        if let Some((hole, _)) = self.sequences.iter().find(|s| s.1 == lifted.value) {
            return *hole;
        }
        let hole = self.new.hole(self.body.ty(value).clone(), self.origin);
        self.sequences.push((hole, lifted.value));
        hole
    }

    /// A value for all steps.
    fn lifted(&mut self, value: Value) -> Lifted {
        let mut open = vec![value];
        while let Some(&value) = open.last() {
            if self.outside.contains_key(&value) {
                open.pop();
                continue;
            }
            if let Op::Source(source) = self.body.op(value) {
                let k = source.position();
                let end = (self.scan.carries + self.scan.sequences) as usize;
                let lifted = Lifted { value: self.operands[k], stacked: k < end };
                self.outside.insert(value, lifted);
                continue;
            }
            let operands = self.body.operands(value);
            let before = open.len();
            open.extend(operands.iter().filter(|v| !self.outside.contains_key(v)));
            if open.len() == before {
                let read: Vec<Lifted> = operands.iter().map(|v| self.outside[v]).collect();
                let lift = Lift { steps: &self.scan.steps, everything: false };
                let made = lift.node(self.new, (self.body, value), &read);
                self.outside.insert(value, made);
            }
        }
        self.outside[&value]
    }

    fn stacked(&mut self, value: Value) -> Value {
        let lifted = self.lifted(value);
        let lift = Lift { steps: &self.scan.steps, everything: false };
        lift.stack(self.new, lifted, self.origin)
    }

    /// The new loop; nothing, if there is nothing in it.
    fn close(&mut self, carries: Vec<Carried>, yields: Vec<Value>) -> Vec<Value> {
        if carries.is_empty() && yields.is_empty() {
            return Vec::new();
        }
        let (steps, shared) = (self.scan.steps.clone(), Vec::new());
        let sequences = std::mem::take(&mut self.sequences);
        let looped = Loop { steps, carries, sequences, shared, index: None, yields };
        let made = self.new.add_scan(&looped, self.origin);
        made.unwrap_or_else(|e| panic!("a split scan is ill-typed: {e}"))
    }

    /// What the loop leaves for all steps.
    fn after(&mut self, histories: &FxHashMap<usize, Value>, yielded: &[Value], stacked: &[Value]) {
        for (&k, &history) in histories {
            let steps = self.scan.steps.clone();
            let mut part = |start| self.new.slice(history, 0, start, steps.clone(), self.origin);
            let (before, after) = (part(Size::ZERO), part(Size::ONE));
            let source = self.body.source(&k.to_string()).expect("a carry has an input");
            self.outside.insert(source, Lifted::stacked(before));
            let next = self.result(k);
            if self.is_inside(next) {
                self.outside.insert(next, Lifted::stacked(after));
            }
        }
        for (&value, &all) in yielded.iter().zip(stacked) {
            self.outside.insert(value, Lifted::stacked(all));
        }
    }
}
