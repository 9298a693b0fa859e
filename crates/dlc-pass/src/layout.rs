//! Where each operation of a kernel is evaluated, as indices over the kernel's axes.
//!
//! A set of operations can be one kernel only if each is needed at one place: fusion asks whether a
//! layout exists, lowering asks what it is.

use crate::class::{Class, class};
use crate::reads::{Coords, Mode, Read, compose, domain, identity};
use crate::reason::Reason;
use dlc_graph::op::FusedKind;
use dlc_graph::{Graph, Shape, Value};
use dlc_kernel::{Index, Size};
use rustc_hash::FxHashMap;

/// The axes of a kernel and the places of its operations.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Extents; the outer axes first, then those a row folds or a contraction sums over.
    pub axes: Shape,
    /// The number of outer axes.
    pub outer: usize,
    places: FxHashMap<Value, Coords>,
}

/// How much of a kernel's domain a result covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One element for each point of the outer axes.
    Outer,
    /// One element for each point of all axes.
    All,
}

impl Layout {
    /// The layout of `members` (ascending) as one kernel of that kind. A map's domain is the shape
    /// of `root`; the others' domains come from their folds or contraction.
    pub fn find<'r>(
        graph: &Graph,
        kind: FusedKind,
        root: Value,
        members: &[Value],
        reads: &impl Fn(Value) -> &'r [Read],
    ) -> Result<Layout, Reason> {
        let mut layout = Layout::of_anchors(graph, kind, root, members)?;
        loop {
            let known = layout.places.len();
            layout.place_operands(graph, members, reads)?;
            layout.place_users(graph, kind, members, reads);
            if layout.places.len() == known {
                break;
            }
        }
        let complete = members.iter().all(|v| layout.places.contains_key(v));
        if complete { Ok(layout) } else { Err(Reason::OtherAxes) }
    }

    /// Where `candidate` is evaluated if it joins `members` (ascending), all of which have a place.
    pub fn place_of_new<'r>(
        &self,
        graph: &Graph,
        kind: FusedKind,
        members: &[Value],
        candidate: Value,
        users: &[Value],
        reads_of: &impl Fn(Value) -> &'r [Read],
    ) -> Result<Coords, Reason> {
        let is_anchor = class(graph, candidate) == Class::Fold;
        if is_anchor
            && (domain(graph, candidate) != self.axes || graph.ty(candidate).rank() != self.outer)
        {
            return Err(Reason::OtherFold);
        }
        let mut place = is_anchor.then(|| self.canonical(identity(self.outer)));
        for &user in users.iter().filter(|u| members.binary_search(u).is_ok()) {
            for read in reads_of(user).iter().filter(|r| r.value == candidate) {
                let needed = self.read_place(graph, user, self.place(user), read)?;
                match &place {
                    Some(known) if *known != needed => return Err(Reason::TwoPlaces),
                    _ => place = Some(needed),
                }
            }
        }
        let reads = reads_of(candidate);
        let of_user = || reads.iter().find_map(|r| self.place_of_user(graph, kind, candidate, r));
        let place = place.or_else(of_user).ok_or(Reason::OtherAxes)?;
        for read in reads.iter().filter(|r| members.binary_search(&r.value).is_ok()) {
            if self.read_place(graph, candidate, &place, read)? != *self.place(read.value) {
                return Err(Reason::ReadsElsewhere);
            }
        }
        Ok(place)
    }

    /// Notes where a new member is evaluated.
    pub fn add(&mut self, member: Value, place: Coords) {
        self.places.insert(member, place);
    }

    /// Forgets a value that is no member after all.
    pub fn remove(&mut self, value: Value) {
        self.places.remove(&value);
    }

    /// Where `user`, evaluated at `place`, reads a member.
    fn read_place(
        &self,
        graph: &Graph,
        user: Value,
        place: &Coords,
        read: &Read,
    ) -> Result<Coords, Reason> {
        if read.mode == Mode::Lookup {
            return Err(Reason::Lookup);
        }
        Ok(self.canonical(match class(graph, user) {
            Class::Fold | Class::Contract => read.at.clone(),
            _ => compose(&read.at, place),
        }))
    }

    /// Where `value` is evaluated.
    pub fn place(&self, value: Value) -> &Coords {
        &self.places[&value]
    }

    /// How `value` covers the domain, if each of its elements is made exactly once.
    pub fn reach(&self, value: Value) -> Option<Reach> {
        let mut used = vec![false; self.axes.len()];
        for index in self.place(value).iter().filter(|i| **i != Index::constant(0i64)) {
            let axis = index.as_axis()?.0 as usize;
            if std::mem::replace(&mut used[axis], true) {
                return None;
            }
        }
        let covered = |axis: usize| used[axis] || self.axes[axis] == Size::ONE;
        let inner = self.outer..self.axes.len();
        match () {
            () if !(0..self.outer).all(covered) => None,
            () if inner.clone().all(covered) => Some(Reach::All),
            () if inner.clone().any(|a| used[a]) => None,
            () => Some(Reach::Outer),
        }
    }

    fn of_anchors(
        graph: &Graph,
        kind: FusedKind,
        root: Value,
        members: &[Value],
    ) -> Result<Layout, Reason> {
        let wanted = match kind {
            FusedKind::Map => None,
            FusedKind::Row => Some(Class::Fold),
            FusedKind::Contract => Some(Class::Contract),
        };
        let anchors: Vec<Value> =
            members.iter().copied().filter(|&v| Some(class(graph, v)) == wanted).collect();
        let first = anchors.first().copied().unwrap_or(root);
        let (axes, outer) = (domain(graph, first), graph.ty(first).rank());
        let mut layout = Layout { axes, outer, places: FxHashMap::default() };
        for &anchor in anchors.iter().chain([&root].into_iter().filter(|_| wanted.is_none())) {
            if domain(graph, anchor) != layout.axes || graph.ty(anchor).rank() != outer {
                return Err(Reason::OtherFold);
            }
            let place = layout.canonical(identity(outer));
            layout.places.insert(anchor, place);
        }
        Ok(layout)
    }

    /// Places what placed members read.
    fn place_operands<'r>(
        &mut self,
        graph: &Graph,
        members: &[Value],
        reads: &impl Fn(Value) -> &'r [Read],
    ) -> Result<(), Reason> {
        for &user in members.iter().rev() {
            let Some(place) = self.places.get(&user) else { continue };
            let place = place.clone();
            for read in reads(user).iter().filter(|r| members.binary_search(&r.value).is_ok()) {
                let place = self.read_place(graph, user, &place, read)?;
                let known = self.places.entry(read.value).or_insert_with(|| place.clone());
                if *known != place {
                    return Err(Reason::TwoPlaces);
                }
            }
        }
        Ok(())
    }

    /// Places members that read placed ones.
    fn place_users<'r>(
        &mut self,
        graph: &Graph,
        kind: FusedKind,
        members: &[Value],
        reads: &impl Fn(Value) -> &'r [Read],
    ) {
        for &user in members {
            if self.places.contains_key(&user) {
                continue;
            }
            let found = reads(user).iter().find_map(|r| self.place_of_user(graph, kind, user, r));
            if let Some(place) = found {
                self.places.insert(user, place);
            }
        }
    }

    /// Where `user` must be for its read to hit the place of what it reads. Dims that the read does
    /// not mention are the inner axes of a row, in order.
    fn place_of_user(
        &self,
        graph: &Graph,
        kind: FusedKind,
        user: Value,
        read: &Read,
    ) -> Option<Coords> {
        let target = self.places.get(&read.value)?;
        let (shape, read_shape) = (&graph.ty(user).shape, &graph.ty(read.value).shape);
        let mut place: Vec<Option<Index>> =
            shape.iter().map(|n| (*n == Size::ONE).then(|| Index::constant(0i64))).collect();
        for ((index, there), extent) in read.at.iter().zip(target).zip(read_shape) {
            if *extent == Size::ONE {
                continue;
            }
            let dim = index.as_axis()?.0 as usize;
            if shape[dim] != *extent || place[dim].as_ref().is_some_and(|p| p != there) {
                return None;
            }
            place[dim] = Some(there.clone());
        }
        self.fill_inner(kind, shape, &mut place)?;
        place.into_iter().collect()
    }

    fn fill_inner(
        &self,
        kind: FusedKind,
        shape: &[Size],
        place: &mut [Option<Index>],
    ) -> Option<()> {
        let open: Vec<usize> = (0..place.len()).filter(|&d| place[d].is_none()).collect();
        if open.is_empty() {
            return Some(());
        }
        let unit = |a: &usize| self.axes[*a] == Size::ONE;
        let inner: Vec<usize> = (self.outer..self.axes.len()).filter(|a| !unit(a)).collect();
        let fits = kind == FusedKind::Row
            && open.len() == inner.len()
            && open.iter().zip(&inner).all(|(&d, &a)| shape[d] == self.axes[a]);
        fits.then(|| {
            open.iter().zip(&inner).for_each(|(&d, &a)| place[d] = Some(Index::axis(a as u32)));
        })
    }

    /// Without axes of extent 1, which are always 0.
    pub fn canonical(&self, coords: Coords) -> Coords {
        let unit = |axis: u32| self.axes[axis as usize] == Size::ONE;
        let without = |index: Index| match index.terms.iter().any(|t| unit(t.0.0)) {
            true => {
                Index { terms: index.terms.into_iter().filter(|t| !unit(t.0.0)).collect(), ..index }
            }
            false => index,
        };
        coords.into_iter().map(without).collect()
    }
}
