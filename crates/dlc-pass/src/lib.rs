//! The passes of dlc: graph to graph, and graph to kernel program.
//!
//! [`PASSES`] is the compiler's table of contents. A pass is a function from graph to graph that
//! builds a new graph in one forward walk ([`rewrite`]); [`run`] applies those of an optimization
//! level, and [`lower()`] turns the results into one [`Program`](dlc_kernel::Program). What holds:
//!
//! - Every pass keeps the meaning: `eval(pass(g)) == eval(g)`, exactly or up to rounding, as its
//!   rules say.
//! - Sources are kept, with their order; so are results, and the sites of random numbers.
//! - Differentiation comes first, then algebra ([`simplify`]), then fusion ([`fuse`]). A fused
//!   operation is defined by its body, so whatever works on graphs works on fused ones.
//! - Passes work in the bodies of scans as outside of them; what needs no order of steps leaves
//!   them first ([`split_loops`]).
//! - Nothing here depends on names of layers: fusion and lowering ask for an operation's class and
//!   apply its own rule ([`dlc_graph::op::Operation::lower`]).
//! - Sizes may be symbolic; what cannot be decided then is left undone. Lowering wants them bound.
//! - The order of everything follows the order of the graph, so equal graphs give equal programs.
//!
//! How fusion and lowering see a graph: constants, sizes, positions and views are *free* and take
//! part in every kernel that reads them; everything else is computed at one place of one kernel's
//! domain (its *layout*), or read from memory.
#![forbid(unsafe_code)]

mod class;
mod early;
mod fold_batch_norm;
pub mod fuse;
mod layout;
mod lift;
mod lower;
mod reads;
mod reason;
mod recompute;
pub mod rewrite;
pub mod simplify;
mod split_loops;
mod stored;
mod write_in_place;

use dlc_graph::op::{Op, Scan};
use dlc_graph::{Graph, differentiate, verify_differentiated};
use dlc_kernel::OptLevel;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use early::{Early, split_early};
pub use fold_batch_norm::fold_batch_norm;
pub use fuse::Apart;
pub use lower::{Lowered, lower, lower_named};
pub use reason::Reason;
pub use recompute::{recompute, recompute_from};
pub use split_loops::split_loops;
pub use write_in_place::write_in_place;

/// One step of the compiler: a function from graph to graph.
pub struct Pass {
    /// The name in dumps, timings and `--stop-after`.
    pub name: &'static str,
    /// The lowest level at which it runs.
    pub since: OptLevel,
    /// The pass.
    pub run: fn(&Graph) -> Graph,
}

/// Every pass, in the order in which they run.
pub const PASSES: &[Pass] = &[
    Pass { name: "differentiate", since: OptLevel::O0, run: differentiate },
    Pass { name: "simplify", since: OptLevel::O1, run: simplify::simplify },
    Pass { name: "split-loops", since: OptLevel::O1, run: split_loops },
    Pass { name: "fold-batch-norm", since: OptLevel::O1, run: fold_batch_norm },
    Pass { name: "recompute", since: OptLevel::O2, run: recompute },
    Pass { name: "write-in-place", since: OptLevel::O0, run: write_in_place },
    Pass { name: "fuse-contractions", since: OptLevel::O1, run: fuse::fuse_contractions },
    Pass { name: "fuse-rows", since: OptLevel::O1, run: fuse::fuse_rows },
    Pass { name: "fuse-maps", since: OptLevel::O1, run: fuse::fuse_maps },
    Pass { name: "fuse-preparations", since: OptLevel::O1, run: fuse::fuse_preparations },
    Pass { name: "fuse-updates", since: OptLevel::O1, run: fuse::fuse_updates },
];

/// Runs the passes of that level, and shows each result with the time it took.
///
/// # Panics
/// In debug builds, if a pass breaks the graph.
pub fn run(
    graph: &Graph,
    level: OptLevel,
    observe: &mut dyn FnMut(&Pass, &Graph, Duration),
) -> Graph {
    let mut graph = graph.clone();
    for pass in PASSES.iter().filter(|pass| pass.since <= level) {
        let start = Instant::now();
        graph = (pass.run)(&in_bodies(&graph, pass.run));
        let time = start.elapsed();
        if cfg!(debug_assertions) {
            let verified = verify_differentiated(&graph);
            verified.unwrap_or_else(|e| panic!("after `{}`: {e}", pass.name));
        }
        observe(pass, &graph, time);
    }
    graph
}

/// What [`run`] gives, and why its operations are apart: nothing, where nothing is fused.
pub fn explain(graph: &Graph, level: OptLevel) -> (Graph, Vec<Apart>) {
    let (fusion, others): (Vec<&Pass>, Vec<&Pass>) =
        PASSES.iter().filter(|p| p.since <= level).partition(|p| p.name.starts_with("fuse-"));
    let apply = |graph: Graph, pass: &Pass| (pass.run)(&in_bodies(&graph, pass.run));
    let graph = others.into_iter().fold(graph.clone(), apply);
    if fusion.is_empty() {
        return (graph, Vec::new());
    }
    let fused = |body: &Graph| fusion.iter().fold(body.clone(), |body, pass| (pass.run)(&body));
    fuse::explain(&in_bodies(&graph, fused))
}

/// The graph with a pass applied to the bodies of its scans, those of inner ones first.
fn in_bodies(graph: &Graph, pass: impl Fn(&Graph) -> Graph + Copy) -> Cow<'_, Graph> {
    if !graph.distinct_ops().any(|op| matches!(op, Op::Scan(_))) {
        return Cow::Borrowed(graph);
    }
    Cow::Owned(rewrite::rebuild(graph, |new, node| match node.op {
        Op::Scan(scan) => {
            let body = Arc::new(pass(&in_bodies(&scan.body, pass)));
            new.push(Scan { body, ..scan.clone() }, &node.operands, node.origin.clone())
        }
        _ => rewrite::copy(new, &node),
    }))
}
