//! Rows side by side: folds over one domain that read the same tensor at the same place share the
//! pass over it (the gradients of a normalization's scale and shift; a maximum and its position).

use super::Cluster;
use super::facts::Facts;
use crate::class::Class;
use crate::layout::Layout;
use crate::reads::{Coords, compose, identity};
use dlc_graph::Value;
use dlc_graph::op::FusedKind;
use rustc_hash::FxHashMap;

/// Merges the row clusters of `facts` that belong together, earlier ones first.
pub fn merge(facts: &mut Facts<'_>) {
    let mut readers: FxHashMap<(Value, Coords), Vec<usize>> = FxHashMap::default();
    for id in 0..facts.units.len() {
        let Some(mut cluster) = cluster(facts, id) else { continue };
        let mut into = id;
        for read in outside_reads(facts, &cluster) {
            let others = readers.entry(read).or_default();
            let found = others
                .iter()
                .copied()
                .find(|&other| other != into && { absorb(facts, other, into, &mut cluster) });
            into = found.unwrap_or(into);
            if !others.contains(&into) {
                others.push(into);
            }
        }
    }
}

/// The cluster of that number, if it still has members.
fn cluster(facts: &Facts<'_>, id: usize) -> Option<Cluster> {
    let unit = &facts.units[id];
    let members = unit.members.clone();
    if members.is_empty() || unit.kind != FusedKind::Row {
        return None;
    }
    let layout =
        Layout::find(facts.graph, unit.kind, unit.seed, &members, &|v| facts.reads(v)).ok()?;
    Some(Cluster { kind: unit.kind, seed: unit.seed, members, layout })
}

/// Moves cluster `from` into `into`, if both can be one.
fn absorb(facts: &mut Facts<'_>, into: usize, from: usize, cluster: &mut Cluster) -> bool {
    let Some(other) = self::cluster(facts, into) else { return false };
    let same = other.layout.axes == cluster.layout.axes
        && other.layout.outer == cluster.layout.outer
        && facts.is_late(other.seed) == facts.is_late(cluster.seed);
    if !same || facts.closes_a_cycle(&other.members, &cluster.members) {
        return false;
    }
    let mut members = [&other.members[..], &cluster.members[..]].concat();
    members.sort();
    let Ok(layout) = other.lay_out(facts, &members) else { return false };
    facts.merge_units(into, from);
    *cluster = Cluster { members, layout, ..other };
    true
}

/// What `cluster` reads from outside, where.
fn outside_reads(facts: &Facts<'_>, cluster: &Cluster) -> Vec<(Value, Coords)> {
    let mut found = Vec::new();
    for &member in &cluster.members {
        let place = match facts.class(member) {
            Class::Fold => identity(cluster.layout.axes.len()),
            _ => cluster.layout.place(member).clone(),
        };
        for read in facts.reads(member).iter().filter(|r| !cluster.contains(r.value)) {
            let at = cluster.layout.canonical(compose(&read.at, &place));
            let inner = cluster.layout.outer..cluster.layout.axes.len();
            let each = inner.clone().any(|a| at.iter().any(|i| i.uses(dlc_kernel::Axis(a as u32))));
            if each && !found.contains(&(read.value, at.clone())) {
                found.push((read.value, at));
            }
        }
    }
    found
}
