//! Giving up stores that readers can do without.
//!
//! A result that other members do not need, and that follows from tensors the kernel stores anyway
//! or that are smaller, costs a store here and a load there: its readers, if they can fuse
//! it, better compute it themselves (the `1 - y*y` of a tanh's gradient from the stored `y`, the
//! mask of a maximum from the position of the maximum).

use super::Cluster;
use super::facts::Facts;
use crate::class::Class;
use dlc_graph::{EXPENSIVE, Value, cost};

/// The members of `cluster` that stay.
pub fn evict(facts: &Facts<'_>, cluster: &Cluster) -> Vec<Value> {
    let mut members = cluster.members.clone();
    let movable: Vec<Value> =
        members.iter().rev().copied().filter(|&m| is_movable(facts, &members, m)).collect();
    // Together first: what they share is then needed by none.
    let groups = [movable.clone()].into_iter().chain(movable.into_iter().map(|m| vec![m]));
    for mut results in groups {
        results.retain(|m| members.binary_search(m).is_ok());
        if results.is_empty() {
            continue;
        }
        let cone = cone(facts, &members, &results);
        if worth(facts, &members, &cone, &results) {
            members.retain(|m| cone.binary_search(m).is_err());
        }
    }
    members
}

/// Whether storing what `cone` reads of the other members, as far as they are not stored anyway,
/// is less than storing `results`.
fn worth(facts: &Facts<'_>, members: &[Value], cone: &[Value], results: &[Value]) -> bool {
    let stays = |v: &Value| members.binary_search(v).is_ok() && cone.binary_search(v).is_err();
    let read = cone.iter().flat_map(|&m| facts.reads(m)).map(|r| r.value);
    let mut boundary: Vec<Value> = read.filter(stays).collect();
    boundary.sort();
    boundary.dedup();
    let outside = |u: &Value| members.binary_search(u).is_err();
    let stored = |v: Value| facts.is_returned(v) || facts.users(v).iter().any(outside);
    let elements = |v: Value| facts.graph.ty(v).elements().as_const();
    let added = boundary.iter().filter(|&&v| !stored(v)).map(|&v| elements(v)).sum::<Option<i64>>();
    let saved = results.iter().map(|&v| elements(v)).sum::<Option<i64>>();
    !boundary.is_empty() && added.is_some_and(|n| n == 0 || Some(n) < saved)
}

/// Whether `result` is stored for readers that can compute it as part of their own kernel, without
/// much work.
fn is_movable(facts: &Facts<'_>, members: &[Value], result: Value) -> bool {
    let member = |v: &Value| members.binary_search(v).is_ok();
    let fuses = |u: &Value| {
        matches!(facts.class(*u), Class::Point | Class::Fold) && facts.unit_of(*u).is_none()
    };
    is_cheap(facts, result)
        && !facts.is_returned(result)
        && !facts.users(result).is_empty()
        && facts.users(result).iter().all(|u| !member(u) && fuses(u))
}

/// `results` and the members that nothing but they need, as far as they are cheap; ascending.
fn cone(facts: &Facts<'_>, members: &[Value], results: &[Value]) -> Vec<Value> {
    let mut cone = results.to_vec();
    for &member in members.iter().rev() {
        let only = !facts.is_returned(member)
            && is_cheap(facts, member)
            && facts.users(member).iter().all(|u| cone.contains(u));
        if only && !cone.contains(&member) {
            cone.push(member);
        }
    }
    cone.sort();
    cone
}

fn is_cheap(facts: &Facts<'_>, value: Value) -> bool {
    facts.class(value) == Class::Point && cost(facts.graph, value) < EXPENSIVE
}
