//! Stores that the leaf of a tile makes while the sums are in its registers.
//!
//! It can if every tensor it touches is even: along the columns its elements are neighbours or one
//! and the same, along the rows they are a constant number of elements apart, all of four bytes or truth
//! values, and provably inside.

use super::Axes;
use crate::leaf::epilogue::{self as leaf, MAX_STREAMS, Spread};
use crate::leaf::lanes::{Kind, Lanes, Op, Vector};
use crate::schedule::PlacedStore;
use crate::schedule::domain::{Domain, Linear};
use crate::schedule::stretch::{Area, Draft, Stream};
use dlc_kernel::{DType, ExprId};
use std::sync::Arc;

/// A leaf's epilogue, and what its argument block is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epilogue {
    /// What is called.
    pub leaf: Arc<leaf::Epilogue>,
    /// By stream of the leaf, but for those that follow.
    pub streams: Vec<TileStream>,
    /// By stream, from there on: integers that count up along the columns.
    pub counts: Vec<Linear>,
    /// By value of the leaf.
    pub values: Vec<ExprId>,
}

/// The elements of a buffer at the points of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileStream {
    /// The buffer and where.
    pub stream: Stream,
    /// Elements from one row to the next.
    pub row_step: i64,
}

impl Epilogue {
    /// The epilogue that makes `stores` of the sums of `rows` and `columns`, if a leaf can.
    pub(super) fn new(
        domain: &Domain,
        stores: &[PlacedStore],
        rows: &Axes,
        columns: &Axes,
    ) -> Option<Epilogue> {
        let mut draft = Draft::new(domain, Area::Tile { rows, columns }, &[]);
        let stored = draft.describe_stores(stores)?;
        let Draft { lanes, streams, counts, uniforms: values, .. } = draft;
        let spread = |stream: &Stream| match step(columns, stream) {
            0 => Spread::Still,
            _ if stream.dtype == DType::Bool => Spread::Truths,
            _ => Spread::Neighbours,
        };
        let counted = counts.iter().map(|_| Spread::Counting);
        let spreads: Vec<Spread> = streams.iter().map(spread).chain(counted).collect();
        let stands = |spread: &Spread| *spread == Spread::Still;
        let still_truth =
            |(s, spread): (&Stream, &Spread)| s.dtype == DType::Bool && stands(spread);
        let truths = values.iter().any(|&id| domain.exprs.dtype(id) == DType::Bool)
            || streams.iter().zip(&spreads).any(still_truth);
        let still_store = |s: &(u16, Vector)| stands(&spreads[usize::from(s.0)]);
        if truths || spreads.len() > MAX_STREAMS || stored.iter().any(still_store) {
            return None;
        }
        let first = [streams.len(), streams.len() + counts.len()].map(|at| at as u16);
        let (lanes, stores) = arranged(&lanes, &stored, first);
        let leaf = leaf::Epilogue { lanes, streams: spreads, values: values.len() as u16, stores };
        let leaf = Arc::new(leaf);
        let stream = |stream: Stream| TileStream { row_step: step(rows, &stream), stream };
        let streams = streams.into_iter().map(stream).collect();
        Some(Epilogue { leaf, streams, counts, values })
    }

    /// Whether axes are one axis to everything it touches and counts.
    pub fn is_even_along(&self, axes: &Axes) -> bool {
        self.streams.iter().all(|s| axes.is_one(&s.stream.place))
            && self.counts.iter().all(|c| axes.count_as_one(c))
    }
}

/// Elements from one step of the last axis to the next.
fn step(axes: &Axes, stream: &Stream) -> i64 {
    axes.last().map_or(0, |axis| stream.place.linear.coef(axis))
}

/// The code in an order that keeps few values alive: the sum first, everything else just before its
/// first use. What is counted and uniforms become inputs, from these streams on.
fn arranged(
    lanes: &Lanes,
    stores: &[(u16, Vector)],
    [counts, uniforms]: [u16; 2],
) -> (Lanes, Vec<(u16, Vector)>) {
    let mut new = Lanes::default();
    let mut known = vec![new.add(Op::Carry(Kind::F32, 0)); lanes.len()];
    let roots: Vec<Vector> = stores.iter().map(|s| s.1).collect();
    for v in lanes.by_need(&roots) {
        let op = match lanes.op(v).map(|x| known[x.0 as usize]) {
            Op::Uniform(kind, k) => Op::Input(kind, uniforms + k),
            Op::Carry(Kind::I32, k) => Op::Input(Kind::I32, counts + k),
            op => op,
        };
        known[v.0 as usize] = new.add(op);
    }
    let stores = stores.iter().map(|&(stream, v)| (stream, known[v.0 as usize])).collect();
    (new, stores)
}
