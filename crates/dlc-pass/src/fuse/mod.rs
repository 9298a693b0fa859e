//! Fusion: which operations become one kernel.
//!
//! A cluster starts from a seed (a contraction, a fold, a pointwise operation) and grows along the
//! edges of the graph, one operation at a time, as long as
//!
//! - all its operations have a layout: each is needed at one place of one domain,
//! - what it stores covers that domain,
//! - the graph of clusters stays acyclic,
//! - nothing is recomputed that costs more than a kernel of its own.
//!
//! Then stores are given up that their readers can recompute from others (`evict`). Nothing here
//! knows layers by name: softmax, layer normalization and their gradients are folds over the same
//! rows, connected by pointwise work. What kinds of operations may join is all that the passes
//! differ in. A refusal has a reason ([`explain`]).
//!
//! What only serves the next parameters and state is never fused with the rest: between gradients
//! and optimizer stands the check.

mod apart;
mod apply;
mod cost;
mod evict;
mod facts;
mod merge;
mod siblings;

use crate::class::Class;
use crate::layout::{Layout, Reach};
use crate::reads::Mode;
use crate::reason::Reason;
use apart::Fusion;
use dlc_graph::op::{FusedKind, Op};
use dlc_graph::{Graph, Value};
use dlc_kernel::{Index, Size};
use facts::Facts;
use std::collections::BTreeMap;

pub use apart::{Apart, explain};
pub use merge::{fuse_preparations, fuse_updates};

/// The most operations of one kernel.
const MAX_MEMBERS: usize = 64;
/// The most tensors that one kernel reads.
const MAX_OPERANDS: usize = 24;
/// The most tensors that one kernel writes.
const MAX_RESULTS: usize = 8;

/// Contractions with the pointwise work on their operands and results.
pub fn fuse_contractions(graph: &Graph) -> Graph {
    fuse(graph, FusedKind::Contract).graph
}

/// Folds over the same rows, with the pointwise work before, between and after.
pub fn fuse_rows(graph: &Graph) -> Graph {
    fuse(graph, FusedKind::Row).graph
}

/// Pointwise work over one domain.
pub fn fuse_maps(graph: &Graph) -> Graph {
    fuse(graph, FusedKind::Map).graph
}

fn fuse(graph: &Graph, kind: FusedKind) -> Fusion {
    let (mut facts, mut refusals) = (Facts::new(graph), Vec::new());
    let seeds = graph.values().filter(|&v| facts.is_active(v));
    let seed_class = match kind {
        FusedKind::Contract => Class::Contract,
        FusedKind::Row => Class::Fold,
        FusedKind::Map => Class::Point,
    };
    let mut seeds: Vec<Value> = seeds.filter(|&v| facts.class(v) == seed_class).collect();
    if kind == FusedKind::Map {
        // Users first, so that they can take in what they read through views.
        seeds.reverse();
    }
    for seed in seeds {
        if facts.unit_of(seed).is_some() {
            continue;
        }
        let mut cluster = Cluster::new(&facts, kind, seed);
        cluster.grow(&mut facts, &mut refusals);
        let members = evict::evict(&facts, &cluster);
        if (members.len() > 1 || kind == FusedKind::Row)
            && cluster.lay_out(&facts, &members).is_ok()
        {
            facts.add_unit(kind, seed, members);
        }
    }
    if kind == FusedKind::Row {
        siblings::merge(&mut facts);
    }
    apply::apply(&facts, refusals)
}

/// How a candidate touches a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// A member reads it.
    Producer,
    /// It reads a member.
    Consumer,
    /// It folds what a member folds.
    Sibling,
}

/// A kernel in the making.
pub struct Cluster {
    kind: FusedKind,
    seed: Value,
    /// Ascending.
    members: Vec<Value>,
    layout: Layout,
}

impl Cluster {
    /// A cluster of one.
    fn new(facts: &Facts<'_>, kind: FusedKind, seed: Value) -> Cluster {
        let members = vec![seed];
        let layout = Layout::find(facts.graph, kind, seed, &members, &|v| facts.reads(v));
        let layout = layout.expect("an operation alone has a layout");
        Cluster { kind, seed, members, layout }
    }

    /// Takes in whatever may join. What is refused gets another chance once the cluster has grown.
    fn grow(&mut self, facts: &mut Facts<'_>, refusals: &mut Vec<Apart>) {
        let (mut open, mut refused) = (BTreeMap::new(), BTreeMap::new());
        self.add_neighbors(facts, self.seed, &mut open, &mut refused);
        let mut size = self.members.len();
        loop {
            while let Some((candidate, side)) = open.pop_first() {
                match self.try_add(facts, candidate, side) {
                    Ok(()) => self.add_neighbors(facts, candidate, &mut open, &mut refused),
                    Err(reason) => {
                        refused.insert(candidate, (Some(side), reason));
                    }
                }
            }
            if self.members.len() == size {
                break;
            }
            size = self.members.len();
            for (&value, &(side, _)) in &refused {
                open.extend(side.filter(|_| !self.contains(value)).map(|side| (value, side)));
            }
            refused.retain(|_, (side, _)| side.is_none());
        }
        let refusal = |(neighbour, (_, reason))| Apart { kernel: self.seed, neighbour, reason };
        refusals.extend(refused.into_iter().map(refusal));
    }

    /// Adds what touches `member` to `open`, or to `refused` if nothing like it may ever join.
    fn add_neighbors(
        &self,
        facts: &Facts<'_>,
        member: Value,
        open: &mut BTreeMap<Value, Side>,
        refused: &mut BTreeMap<Value, (Option<Side>, Reason)>,
    ) {
        let mut add = |value: Value, side: Side| match self.may_join(facts, value) {
            _ if self.contains(value) || facts.class(value) == Class::Source => {}
            Ok(()) => {
                open.entry(value).or_insert(side);
            }
            Err(reason) => {
                refused.insert(value, (None, reason));
            }
        };
        for read in facts.reads(member) {
            add(read.value, Side::Producer);
            if self.kind == FusedKind::Row && facts.class(member) == Class::Fold {
                let same = |u: &&Value| Self::folds_the_same(facts, member, **u);
                facts.users(read.value).iter().filter(same).for_each(|&u| add(u, Side::Sibling));
            }
        }
        facts.users(member).iter().for_each(|&u| add(u, Side::Consumer));
    }

    /// Whether `value` is of a class that joins clusters like this, and free.
    fn may_join(&self, facts: &Facts<'_>, value: Value) -> Result<(), Reason> {
        match facts.class(value) {
            _ if facts.unit_of(value).is_some() => Err(Reason::Taken),
            Class::Point => Ok(()),
            Class::Fold if self.kind == FusedKind::Row => Ok(()),
            Class::Fold => Err(Reason::Fold),
            Class::Contract => Err(Reason::Contraction),
            Class::Source | Class::Free | Class::Whole => match facts.graph.op(value) {
                Op::Fused(_) | Op::Part(_) => Err(Reason::Taken),
                _ => Err(Reason::Alone),
            },
        }
    }

    fn contains(&self, value: Value) -> bool {
        self.members.binary_search(&value).is_ok()
    }

    fn try_add(
        &mut self,
        facts: &mut Facts<'_>,
        candidate: Value,
        side: Side,
    ) -> Result<(), Reason> {
        if facts.is_late(candidate) != facts.is_late(self.seed) {
            return Err(Reason::Check);
        }
        let mut members = self.members.clone();
        let at = members.binary_search(&candidate).expect_err("a candidate is no member");
        members.insert(at, candidate);
        if members.len() > MAX_MEMBERS {
            return Err(Reason::TooManyOperations);
        }
        let users = facts.users(candidate);
        let reads = |v: Value| facts.reads(v);
        let place = self.layout.place_of_new(
            facts.graph,
            self.kind,
            &self.members,
            candidate,
            users,
            &reads,
        )?;
        self.layout.add(candidate, place);
        let admitted = self.admit(facts, &members, candidate, side);
        match admitted {
            Ok(()) => self.members = members,
            Err(_) => self.layout.remove(candidate),
        }
        admitted
    }

    /// Whether `candidate`, which has a place, may make the cluster `members`.
    fn admit(
        &self,
        facts: &mut Facts<'_>,
        members: &[Value],
        candidate: Value,
        side: Side,
    ) -> Result<(), Reason> {
        self.check_results(facts, &self.layout, members)?;
        if side == Side::Producer {
            cost::admit_producer(facts, self.kind, &self.layout, candidate)?;
        }
        match facts.closes_a_cycle(&self.members, &[candidate]) {
            true => Err(Reason::InBetween),
            false => Ok(()),
        }
    }

    /// Whether `other` is a fold that reads what the fold `member` reads, at the same place.
    fn folds_the_same(facts: &Facts<'_>, member: Value, other: Value) -> bool {
        let mut reads = facts.reads(member).iter();
        facts.class(other) == Class::Fold
            && reads.any(|own| {
                facts.reads(other).iter().any(|r| r.value == own.value && r.at == own.at)
            })
    }

    /// The layout of `members`, if what they store covers the domain.
    fn lay_out(&self, facts: &Facts<'_>, members: &[Value]) -> Result<Layout, Reason> {
        let root = self.root(members);
        let layout = Layout::find(facts.graph, self.kind, root, members, &|v| facts.reads(v))?;
        self.check_results(facts, &layout, members)?;
        Ok(layout)
    }

    /// What decides a map's domain.
    fn root(&self, members: &[Value]) -> Value {
        match members.binary_search(&self.seed) {
            Ok(_) => self.seed,
            Err(_) => *members.last().expect("a cluster has a member"),
        }
    }

    /// Whether the kernel may store what it must, and touches no more tensors than it may.
    fn check_results(
        &self,
        facts: &Facts<'_>,
        layout: &Layout,
        members: &[Value],
    ) -> Result<(), Reason> {
        let mut results = 0;
        for &member in members.iter().filter(|&&m| facts.is_result(members, m)) {
            results += 1;
            self.check_store(facts, layout, self.root(members), member)?;
        }
        let reads = members.iter().flat_map(|&m| facts.reads(m));
        let (inside, outside): (Vec<_>, Vec<_>) =
            reads.partition(|r| members.binary_search(&r.value).is_ok());
        let looks_up = outside.iter().any(|r| r.mode == Mode::Lookup);
        if looks_up && inside.iter().any(|r| r.mode == Mode::Guarded) {
            return Err(Reason::GuardedLookup);
        }
        let mut operands: Vec<Value> = outside.iter().map(|r| r.value).collect();
        operands.sort();
        operands.dedup();
        match () {
            () if results > MAX_RESULTS => Err(Reason::TooManyResults),
            () if operands.len() > MAX_OPERANDS => Err(Reason::TooManyOperands),
            () => Ok(()),
        }
    }

    /// Whether the kernel may store `member`.
    fn check_store(
        &self,
        facts: &Facts<'_>,
        layout: &Layout,
        root: Value,
        member: Value,
    ) -> Result<(), Reason> {
        let reach = layout.reach(member).ok_or(Reason::OtherShape)?;
        let place = layout.place(member);
        let shape = &facts.graph.ty(member).shape;
        let covers = |(index, extent): (&Index, &Size)| match index.as_axis() {
            Some(axis) => layout.axes[axis.0 as usize] == *extent,
            None => *extent == Size::ONE,
        };
        if !place.iter().zip(shape).all(covers) {
            return Err(Reason::OtherShape);
        }
        let uses_inner = |index: &Index| {
            (layout.outer..layout.axes.len()).any(|a| index.uses(dlc_kernel::Axis(a as u32)))
        };
        match self.kind {
            FusedKind::Map => {
                let same = place == layout.place(root) && *shape == facts.graph.ty(root).shape;
                if same { Ok(()) } else { Err(Reason::OtherOrder) }
            }
            FusedKind::Contract if place.iter().any(uses_inner) => Err(Reason::OperandStored),
            FusedKind::Row if reach == Reach::All && layout.outer < layout.axes.len() => {
                let wide = (0..shape.len()).rev().find(|&d| shape[d] != Size::ONE);
                let along = wide.is_none_or(|d| uses_inner(&place[d]));
                if along { Ok(()) } else { Err(Reason::RowsApart) }
            }
            _ => Ok(()),
        }
    }
}

/// Whether `value` is read in a way that needs it in memory.
fn needs_memory(mode: Mode) -> bool {
    mode == Mode::Lookup
}
