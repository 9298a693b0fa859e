//! Maps: one thread for one point, or for a few neighbours.

use super::THREADS;
use crate::place::{Domain, destination};
use dlc_kernel::{Program, Segment};
use std::fmt;

/// How a map is computed: one launch, whose blocks are dealt to the segments in order.
#[derive(Clone, Debug)]
pub struct MapSchedule<'k> {
    /// Those that have points.
    pub segments: Vec<SegmentSchedule<'k>>,
}

/// How a segment is computed.
#[derive(Clone, Debug)]
pub struct SegmentSchedule<'k> {
    /// Its points, axes merged.
    pub domain: Domain<'k>,
    /// The stores, by position in the domain's.
    pub values: Vec<dlc_kernel::ExprId>,
    /// Neighbours along the last axis for each thread.
    pub lanes: usize,
    /// Its first block.
    pub first: u32,
    /// So many blocks.
    pub blocks: u32,
}

impl<'k> MapSchedule<'k> {
    /// The schedule of a map of these segments, in so many loops.
    pub fn new(program: &Program, loops: usize, segments: &'k [Segment]) -> MapSchedule<'k> {
        let mut first = 0;
        let schedule = |segment: &'k Segment| {
            let values: Vec<_> = segment.stores.iter().map(|s| s.value).collect();
            let (axes, exprs) = ((&segment.axes[..], loops), &segment.exprs);
            let (roots, destinations) =
                (values.iter().copied(), segment.stores.iter().map(destination));
            let mut domain = Domain::new(program, axes, exprs, roots, destinations);
            domain.merge(0);
            let lanes = super::lanes(&domain);
            let threads = domain.points() as u64 / lanes as u64;
            let blocks = threads.div_ceil(u64::from(THREADS)) as u32;
            first += blocks;
            SegmentSchedule { domain, values, lanes, first: first - blocks, blocks }
        };
        let segments = segments.iter().map(schedule).filter(|s| s.blocks > 0).collect();
        MapSchedule { segments }
    }

    /// Blocks of all segments.
    pub fn blocks(&self) -> u32 {
        self.segments.iter().map(|s| s.blocks).sum()
    }
}

impl fmt::Display for MapSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            let SegmentSchedule { domain, lanes, first, blocks, .. } = segment;
            let last = first + blocks - 1;
            writeln!(f, "  map {:?}: {lanes} a thread, blocks {first}..={last}", domain.extents)?;
        }
        Ok(())
    }
}
