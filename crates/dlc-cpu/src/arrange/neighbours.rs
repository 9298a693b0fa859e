//! Loops that need nothing of each other become neighbours, so that they can run beside each other
//! (`beside.rs`): the two directions of a recurrent layer, two sentences.

use crate::beside::Touched;
use dlc_kernel::{Entry, Form, Kernel, Program};

/// Moves loops up to earlier ones, and what they need before those.
pub(super) fn loops_together(mut program: Program) -> Program {
    let is_loop = |kernel: &&Kernel| matches!(kernel.form, Form::Loop { .. });
    let several = |entry: &&mut Entry| entry.kernels.iter().filter(is_loop).count() > 1;
    for entry in program.entries.iter_mut().filter(several) {
        let order = order(&entry.kernels[..entry.commit]);
        let mut kernels: Vec<Option<Kernel>> = entry.kernels.drain(..).map(Some).collect();
        let late = order.len()..kernels.len();
        let taken = order.into_iter().chain(late).map(|at| kernels[at].take());
        entry.kernels = taken.map(|kernel| kernel.expect("each has one place")).collect();
    }
    program
}

/// The kernels by their old positions.
fn order(kernels: &[Kernel]) -> Vec<usize> {
    let touched: Vec<Touched> = kernels.iter().map(Touched::of).collect();
    let is_loop = |at: usize| matches!(kernels[at].form, Form::Loop { .. });
    let mut rest: Vec<usize> = (0..kernels.len()).collect();
    let mut order = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let mut loops = vec![rest.remove(0)];
        let mut at = if is_loop(loops[0]) { 0 } else { rest.len() };
        while at < rest.len() {
            let later = rest[at];
            let free = || needed(&touched, &loops, &rest[..at], later);
            match is_loop(later).then(free).flatten() {
                Some(needed) => {
                    rest.retain(|k| *k != later && !needed.contains(k));
                    at -= needed.len();
                    order.extend(needed);
                    loops.push(later);
                }
                None => at += 1,
            }
        }
        order.extend(loops);
    }
    order
}

/// Those of the kernels between some loops and a later kernel that must run before it; `None` if it needs
/// something of the loops, too.
fn needed(
    touched: &[Touched],
    loops: &[usize],
    between: &[usize],
    later: usize,
) -> Option<Vec<usize>> {
    let mut chain = vec![later];
    for &kernel in between.iter().rev() {
        if chain.iter().any(|&after| touched[kernel].bears_on(&touched[after])) {
            chain.push(kernel);
        }
    }
    let is_apart = |kernel: &usize| loops.iter().all(|&l| !touched[l].bears_on(&touched[*kernel]));
    chain.iter().all(is_apart).then(|| chain.drain(1..).rev().collect())
}
