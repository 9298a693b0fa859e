//! What the steps of a loop leave for its reverse.
//!
//! The reverse of a scan reads what the loop has left, and computes the rest again for all steps.
//! So that it is left with little work, every scan yields what is expensive before gradients are
//! taken ([`yield_expensive`]); what turns out to be of no use is yielded no more ([`drop_unread`]).

use crate::cost::{EXPENSIVE, cost};
use crate::op::{Op, Part, Scan};
use crate::rebuild::Rebuild;
use crate::{Graph, Role, Value};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The graph whose scans also yield what is expensive and differs from step to step. Results of
/// inner loops are none of it: those run again.
pub(crate) fn yield_expensive(graph: &Graph) -> Graph {
    let mut new = Rebuild::new(graph);
    for value in graph.values() {
        match graph.op(value) {
            Op::Scan(scan) => {
                let body = Arc::new(yielding(scan));
                new.replace(graph, value, Scan { body, ..scan.clone() }.into());
            }
            _ => new.copy(graph, value),
        }
    }
    new.finish(graph)
}

fn yielding(scan: &Scan) -> Graph {
    let mut body = yield_expensive(&scan.body);
    let mut varies = vec![false; body.len()];
    for value in body.values() {
        varies[value.0 as usize] = match body.op(value) {
            Op::Source(source) => source.position() < (scan.carries + scan.sequences) as usize,
            _ => body.operands(value).iter().any(|v| varies[v.0 as usize]),
        };
        let known = body.results().iter().any(|r| r.value == value);
        if varies[value.0 as usize] && !known && is_kept(&body, value) {
            let number = body.results().len();
            body.add_result(number.to_string(), value, Role::Output);
        }
    }
    body
}

/// Whether a value is sooner stored than computed twice.
fn is_kept(body: &Graph, value: Value) -> bool {
    let computed = matches!(
        body.op(value),
        Op::Contract(_) | Op::Reduce(_) | Op::ScatterAdd(_) | Op::Unary(_) | Op::Binary(_)
    );
    computed && cost(body, value) >= EXPENSIVE
}

/// The graph, which has no dead operation, without what its scans yield and nobody reads.
pub(crate) fn drop_unread(graph: &Graph) -> Graph {
    let mut new = Rebuild::new(graph);
    let mut numbers: FxHashMap<Value, Vec<usize>> = FxHashMap::default();
    for value in graph.values() {
        let op = match graph.op(value) {
            Op::Scan(scan) => {
                let read = read_results(graph, value, scan);
                let body = Arc::new(drop_unread(&with_results(&scan.body, &read)));
                numbers.insert(value, read);
                Scan { body, ..scan.clone() }.into()
            }
            Op::Part(Part(k)) => match numbers.get(&graph.operands(value)[0]) {
                Some(read) => {
                    let number = read.iter().position(|r| *r == *k as usize);
                    Part(number.expect("it is read") as u32).into()
                }
                None => graph.op(value).clone(),
            },
            op => op.clone(),
        };
        new.replace(graph, value, op);
    }
    new.finish(graph)
}

/// The results of a scan that are carried or read, by number.
fn read_results(graph: &Graph, at: Value, scan: &Scan) -> Vec<usize> {
    let mut read = vec![false; scan.body.results().len()];
    read[..scan.carries as usize].fill(true);
    for user in graph.users(at) {
        match graph.op(user) {
            Op::Part(Part(k)) => read[*k as usize] = true,
            _ => read[0] = true,
        }
    }
    read[0] |= graph.results().iter().any(|r| r.value == at);
    (0..read.len()).filter(|&k| read[k]).collect()
}

/// The body with some of its results.
fn with_results(body: &Graph, kept: &[usize]) -> Graph {
    let mut new = Rebuild::new(body);
    for value in body.values() {
        new.copy(body, value);
    }
    for (number, &k) in kept.iter().enumerate() {
        let value = new.at(body.results()[k].value);
        new.graph.add_result(number.to_string(), value, Role::Output);
    }
    new.graph.prune()
}
