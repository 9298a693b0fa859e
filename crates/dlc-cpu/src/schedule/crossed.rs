//! Maps that walk along one axis through some tensors and along another one through others, as where
//! layouts meet.
//!
//! Points are computed in blocks of both axes, lanes along the first one. What lies along the second goes through
//! the scratch room, where it lies along the first: it is *turned*, what is loaded before a block is computed,
//! what is stored afterwards. So a line of the cache is done with before it is gone.

use super::PlacedStore;
use super::contract::div_ceil;
use super::domain::{Domain, Linear, Place};
use super::stretch::{Kept, Stretch, Task};
use dlc_kernel::{Axis, BufferId, Expr, ExprId};
use std::fmt;

/// The fewest points along either axis that are worth turning.
const FEWEST: i64 = 8;

/// The most points of a block along the lanes, unless twice as many are all.
const MOST_LANES: i64 = 64;

/// The most words of the scratch room: half of a first-level cache.
const MOST_WORDS: i64 = 1 << 12;

/// A map in blocks.
#[derive(Clone, Debug)]
pub struct Crossed {
    /// The axis of the lanes, and that of what is turned.
    pub axes: [Axis; 2],
    /// Points of a block along each.
    pub block: [i64; 2],
    /// Computes a line of a block, or all of its lines.
    pub stretch: Stretch,
    /// What is turned before.
    pub loads: Vec<Turn>,
    /// What is turned afterwards.
    pub stores: Vec<Turn>,
}

/// Words that lie along the second axis in a buffer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The buffer.
    pub buffer: BufferId,
    /// Where they are there.
    pub place: Place,
    /// Where they are in the scratch room, counted from that of the block's first point.
    pub room: i64,
}

impl Crossed {
    /// The map of `stores` in blocks, `steps` of whose axes are those of loops, if leaves can compute it so: with
    /// the fewest turns, and in whole blocks rather than line by line.
    pub fn new(
        domain: &Domain,
        steps: usize,
        stores: &[PlacedStore],
        again: bool,
    ) -> Option<Crossed> {
        let long = |axis: &Axis| extent(domain, *axis) >= FEWEST;
        let axes: Vec<Axis> =
            (steps as u32..domain.extents.len() as u32).map(Axis).filter(long).collect();
        let pairs = axes.iter().flat_map(|&a| axes.iter().map(move |&b| [a, b]));
        let ways = pairs.filter(|[a, b]| a != b).filter_map(|axes| {
            let turned = Turned::along(domain, axes, stores)?;
            let count = turned.loads.len() + turned.stores.len();
            let crossed = turned.blocks(domain, axes, stores, again)?;
            let shorter = axes.map(|axis| extent(domain, axis)).into_iter().min();
            let by_line = crossed.stretch.lines.is_none();
            Some(((count, by_line, std::cmp::Reverse(shorter)), crossed))
        });
        ways.min_by_key(|(cost, _)| *cost).map(|(_, crossed)| crossed)
    }

    /// Blocks along each axis.
    pub fn blocks(&self, domain: &Domain) -> [i64; 2] {
        [0, 1].map(|k| div_ceil(extent(domain, self.axes[k]), self.block[k]))
    }

    /// Words that are turned at a point.
    pub fn turns(&self) -> usize {
        self.loads.len() + self.stores.len()
    }

    /// Bytes of the scratch room.
    pub fn scratch_bytes(&self) -> usize {
        4 * self.turns() * (self.block[0] * self.block[1]) as usize
    }
}

fn extent(domain: &Domain, axis: Axis) -> i64 {
    domain.extents[axis.0 as usize]
}

/// What has to be turned for lanes along an axis.
struct Turned<'s> {
    loads: Vec<(ExprId, BufferId, &'s Place)>,
    stores: Vec<&'s PlacedStore>,
}

impl<'s> Turned<'s> {
    /// What lies along the second axis, if all else is found by leaves along the first.
    fn along(
        domain: &'s Domain,
        [lanes, across]: [Axis; 2],
        stores: &'s [PlacedStore],
    ) -> Option<Turned<'s>> {
        let is_there = |place: &Place| {
            !place.uses().contains(lanes) || matches!(place.linear.coef(lanes), 1 | 2)
        };
        let may_turn = |place: &Place, bytes: usize| {
            let is_plain = place.is_inside() && place.quotients.is_empty();
            is_plain && bytes == 4 && place.is_unit_along(across)
        };
        let mut turned = Turned { loads: Vec::new(), stores: Vec::new() };
        let roots: Vec<ExprId> = stores.iter().map(|s| s.value).collect();
        for id in domain.reachable(&roots) {
            let Expr::Load { buffer, fill, .. } = domain.exprs.get(id) else { continue };
            let place = domain.places[id.0 as usize].as_ref()?;
            if !is_there(place) {
                may_turn(place, fill.dtype.bytes())
                    .then(|| turned.loads.push((id, *buffer, place)))?;
            }
        }
        for store in stores.iter().filter(|s| !is_there(&s.place)) {
            may_turn(&store.place, store.dtype.bytes()).then(|| turned.stores.push(store))?;
        }
        (turned.loads.len() + turned.stores.len() > 0).then_some(turned)
    }

    /// The map in blocks, if leaves can compute it.
    fn blocks(
        self,
        domain: &Domain,
        axes: [Axis; 2],
        stores: &[PlacedStore],
        again: bool,
    ) -> Option<Crossed> {
        let [along, across] = axes.map(|axis| extent(domain, axis));
        let turns = (self.loads.len() + self.stores.len()) as i64;
        let width = if along <= 2 * MOST_LANES { along } else { MOST_LANES };
        let height = (MOST_WORDS / (turns * width)).clamp(1, across);
        let place = |slot: usize| {
            let terms = [(axes[0], 1), (axes[1], width)].into_iter().collect();
            let linear = Linear { terms, offset: slot as i64 * width * height };
            Place { linear, ..Place::default() }
        };
        let finds: Vec<Kept> = (0..)
            .zip(&self.loads)
            .map(|(slot, &(id, ..))| Kept { id, place: place(slot) })
            .collect();
        let leaves: Vec<Kept> = (finds.len()..)
            .zip(&self.stores)
            .map(|(slot, store)| Kept { id: store.value, place: place(slot) })
            .collect();
        let is_turned = |store: &&PlacedStore| self.stores.iter().any(|s| std::ptr::eq(*s, *store));
        let plain: Vec<PlacedStore> = stores.iter().filter(|s| !is_turned(s)).cloned().collect();
        let task =
            Task { stores: &plain, leaves: &leaves, finds: &finds, again, ..Task::default() };
        let stretch = Stretch::new(domain, axes[0], Some(axes[1]), task)?;
        let turn = |kept: &Kept, buffer, place: &Place| Turn {
            buffer,
            place: place.clone(),
            room: kept.place.linear.offset,
        };
        let loads =
            finds.iter().zip(&self.loads).map(|(kept, (_, b, place))| turn(kept, *b, place));
        let stores =
            leaves.iter().zip(&self.stores).map(|(kept, s)| turn(kept, s.buffer, &s.place));
        let (loads, stores) = (loads.collect(), stores.collect());
        Some(Crossed { axes, block: [width, height], stretch, loads, stores })
    }
}

impl fmt::Display for Crossed {
    /// `a2 by a1 in blocks of 64x32, 1 turned`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([lanes, across], [width, height]) = (self.axes, self.block);
        let turns = self.turns();
        write!(f, "a{} by a{} in blocks of {width}x{height}, {turns} turned", lanes.0, across.0)
    }
}
