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
        take_along(facts, &members, &mut results);
        let cone = cone(facts, &members, &results);
        if gain(facts, &members, &cone, &results).is_some_and(|gain| gain > 0) {
            members.retain(|m| cone.binary_search(m).is_err());
        }
    }
    drop_idle(facts, &mut members, cluster.seed);
    members
}

/// Adds to `results` what they share with others outside alone, where that leaves less to store.
fn take_along(facts: &Facts<'_>, members: &[Value], results: &mut Vec<Value>) {
    let gain = |results: &[Value]| gain(facts, members, &cone(facts, members, results), results);
    for &member in members.iter().rev() {
        let goes = |user: &Value| members.binary_search(user).is_err() && fuses(facts, user);
        let (users, taken) = (facts.users(member), |user: &Value| results.contains(user));
        let may_go = is_cheap(facts, member) && !facts.is_returned(member);
        let shared = users.iter().any(taken) && users.iter().any(goes);
        if !may_go || !shared || !users.iter().all(|u| taken(u) || goes(u)) || taken(&member) {
            continue;
        }
        let more = [&results[..], &[member]].concat();
        if gain(&more) > gain(results) {
            *results = more;
        }
    }
}

/// Drops pointwise work for evicted members alone: it has no neighbours any more.
fn drop_idle(facts: &Facts<'_>, members: &mut Vec<Value>, seed: Value) {
    loop {
        let member = |v: &Value| members.binary_search(v).is_ok();
        let alone = |m: Value| {
            let reads = facts.reads(m).iter().any(|read| member(&read.value));
            let point = facts.class(m) == Class::Point;
            point && m != seed && !reads && !facts.users(m).iter().any(member)
        };
        let Some(idle) = members.iter().position(|&m| alone(m)) else { return };
        members.remove(idle);
    }
}

/// How many elements fewer are stored where others compute `results`, and what `cone` reads of the other
/// members is stored, if it is not anyway. More than 0 if nothing is added, whatever the sizes; none if
/// that is not known.
fn gain(facts: &Facts<'_>, members: &[Value], cone: &[Value], results: &[Value]) -> Option<i64> {
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
    match added? {
        _ if boundary.is_empty() => None,
        0 => Some(saved.unwrap_or(1).max(1)),
        added => Some(saved? - added),
    }
}

/// Whether `result` is stored for readers that can compute it as part of their own kernel, without
/// much work.
fn is_movable(facts: &Facts<'_>, members: &[Value], result: Value) -> bool {
    let member = |v: &Value| members.binary_search(v).is_ok();
    is_cheap(facts, result)
        && !facts.is_returned(result)
        && !facts.users(result).is_empty()
        && facts.users(result).iter().all(|u| !member(u) && fuses(facts, u))
}

/// Whether a reader may compute what it reads.
fn fuses(facts: &Facts<'_>, user: &Value) -> bool {
    matches!(facts.class(*user), Class::Point | Class::Fold) && facts.unit_of(*user).is_none()
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
