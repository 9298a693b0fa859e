//! Which values end up in memory if nothing is fused further.

use crate::class::{Class, class};
use crate::reads::{Mode, Read, identity, reads, trace_read};
use dlc_graph::{Graph, Value};

/// A chain of free values is evaluated in one go up to this length, then stored.
const MAX_FREE_CHAIN: u32 = 32;

/// Which values are in memory: results, and whatever a kernel reads from there; by value, what those
/// read.
pub fn stored(graph: &Graph) -> (Vec<bool>, Vec<Vec<Read>>) {
    stored_and_read(graph, &[])
}

/// [`stored`], with values that kernels of their own read or write in memory.
pub fn stored_with(graph: &Graph, kept: &[Value]) -> Vec<bool> {
    stored_and_read(graph, kept).0
}

fn stored_and_read(graph: &Graph, kept: &[Value]) -> (Vec<bool>, Vec<Vec<Read>>) {
    let mut stored = vec![false; graph.len()];
    let live = graph.live_with(kept);
    for (value, chain) in graph.values().zip(free_chains(graph)) {
        stored[value.0 as usize] = live[value.0 as usize] && chain == MAX_FREE_CHAIN;
    }
    for result in graph.results() {
        stored[result.value.0 as usize] = true;
    }
    for &value in kept {
        stored[value.0 as usize] |= class(graph, value) != Class::Free;
        let at = identity(graph.ty(value).rank());
        for read in trace_read(graph, value, at) {
            stored[read.value.0 as usize] = true;
        }
    }
    let mut all = vec![Vec::new(); graph.len()];
    for value in graph.values().rev().filter(|v| live[v.0 as usize]) {
        if !stored[value.0 as usize] {
            continue;
        }
        let found = reads(graph, value);
        for read in &found {
            let free = class(graph, read.value) == Class::Free;
            stored[read.value.0 as usize] |= !free || read.mode == Mode::Lookup;
        }
        all[value.0 as usize] = found;
    }
    (stored, all)
}

/// For each value, how many free values in a row end there, counted from the last one that is
/// stored for the chain's length.
fn free_chains(graph: &Graph) -> Vec<u32> {
    let mut chains = vec![0u32; graph.len()];
    for value in graph.values().filter(|&v| class(graph, v) == Class::Free) {
        let longest = graph.operands(value).iter().map(|v| chains[v.0 as usize]).max();
        chains[value.0 as usize] = longest.unwrap_or(0) % MAX_FREE_CHAIN + 1;
    }
    chains
}
