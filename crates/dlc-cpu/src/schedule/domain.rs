//! A kernel's points, with every access resolved to element offsets.
//!
//! A [`Domain`] is what code generation reads instead of accesses: extents are numbers, a load is
//! a [`Place`] (a linear offset and the conditions that are not provably true), an integer
//! expression that is affine in the axes is a [`Linear`]. Neighbouring axes that every access walks
//! through as one are one axis ([`Domain::merge`]).

use super::contract::div_ceil;
use super::{PlacedStore, Site};
use crate::rooms::strides_in;
pub use dlc_kernel::place::{AxisSet, Check, Found, Linear, Place, extents, strides};
use dlc_kernel::{Access, Axis, BufferId, Expr, ExprId, Exprs, Lookup};
use smallvec::SmallVec;

/// The most axes a kernel may have.
pub const MAX_AXES: usize = 63;

/// A kernel's axes and expressions, resolved.
#[derive(Clone, Debug)]
pub struct Domain<'k> {
    /// The expressions; their own axes and accesses are replaced by the fields below.
    pub exprs: &'k Exprs,
    /// The extent of every axis.
    pub extents: SmallVec<[i64; 8]>,
    /// By expression: a load's place.
    pub places: Vec<Option<Place>>,
    /// By expression: the checks of an `Inside`.
    pub guards: Vec<Option<SmallVec<[Check; 1]>>>,
    /// By expression: its value, if it is an `I32` affine in the axes.
    pub affine: Vec<Option<Linear>>,
    /// By expression: the axes its value depends on.
    pub uses: Vec<AxisSet>,
}

impl<'k> Domain<'k> {
    /// Resolves all expressions over `axes`.
    ///
    /// # Errors
    /// If a size is not bound or there are more than [`MAX_AXES`] axes.
    pub fn new(
        site: Site,
        exprs: &'k Exprs,
        axes: SmallVec<[i64; 8]>,
    ) -> Result<Domain<'k>, String> {
        if axes.len() > MAX_AXES {
            return Err(format!("{} axes are more than the {MAX_AXES} there may be", axes.len()));
        }
        let n = exprs.len();
        let mut domain = Domain {
            exprs,
            extents: axes,
            places: vec![None; n],
            guards: vec![None; n],
            affine: vec![None; n],
            uses: vec![AxisSet::default(); n],
        };
        for (id, expr) in exprs.iter() {
            domain.resolve_expr(site, id, expr)?;
        }
        domain.find_uses();
        Ok(domain)
    }

    /// Where `access` lands in `buffer`.
    ///
    /// # Errors
    /// If a size is not bound.
    pub fn resolve(
        &self,
        site: Site,
        buffer: BufferId,
        access: &Access,
        lookups: &[Lookup],
    ) -> Result<Place, String> {
        let shape = extents(&site.program.buffer(buffer).shape)?;
        let strides = strides_in(site.rooms, buffer, &shape);
        Place::new((&shape, &strides), access, lookups, &self.extents)
    }

    /// The number of points.
    pub fn points(&self) -> i64 {
        self.extents.iter().fold(1, |n, &e| n.saturating_mul(e))
    }

    /// `roots` and everything they read, operands first; affine values are not looked into.
    pub fn reachable(&self, roots: &[ExprId]) -> Vec<ExprId> {
        self.reachable_beside(roots, &[])
    }

    /// [`Domain::reachable`] without what only `known` values read.
    pub fn reachable_beside(&self, roots: &[ExprId], known: &[ExprId]) -> Vec<ExprId> {
        let mut seen = vec![false; self.exprs.len()];
        let mut open = roots.to_vec();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut seen[id.0 as usize], true)
                && self.affine[id.0 as usize].is_none()
                && !known.contains(&id)
            {
                open.extend(self.exprs.get(id).operands());
            }
        }
        (0..seen.len()).filter(|&i| seen[i]).map(|i| ExprId(i as u32)).collect()
    }

    /// Drops axes of extent 1 and merges neighbours within `groups` (which partition the axes in
    /// order) that all accesses walk through as one, and no condition tells apart. Gives the number
    /// of axes left in each group.
    pub fn merge(
        &mut self,
        roots: &[ExprId],
        stores: &mut [PlacedStore],
        conditions: &mut [Check],
        groups: &[usize],
    ) -> SmallVec<[usize; 2]> {
        let used = self.reachable(roots);
        let mut kept: SmallVec<[usize; 2]> = SmallVec::new();
        let mut new: Vec<Option<Axis>> = vec![None; self.extents.len()];
        let mut extents: SmallVec<[i64; 8]> = SmallVec::new();
        let mut first = 0;
        for &count in groups {
            let start = extents.len();
            let mut last: Option<usize> = None;
            for axis in first..first + count {
                if self.extents[axis] == 1 {
                    continue;
                }
                match last.filter(|&l| self.walks_as_one(&used, (stores, conditions), l, axis)) {
                    Some(outer) => {
                        new[outer] = None;
                        *extents.last_mut().expect("the outer axis was kept") *= self.extents[axis];
                    }
                    None => extents.push(self.extents[axis]),
                }
                new[axis] = Some(Axis(extents.len() as u32 - 1));
                last = Some(axis);
            }
            kept.push(extents.len() - start);
            first += count;
        }
        self.extents = extents;
        self.renumber(&used, &new);
        stores.iter_mut().flat_map(|s| s.place.forms()).for_each(|l| l.renumber(&new));
        conditions.iter_mut().for_each(|c| c.index.renumber(&new));
        kept
    }

    /// Cuts `axis` into stretches of `block` points: the stretches become a new axis at position
    /// `at`, which comes before `axis`. If the block does not divide the extent, there
    /// are points beyond it.
    pub fn split(&mut self, axis: Axis, at: usize, block: i64, stores: &mut [PlacedStore]) {
        let (old, new) = (axis.0 as usize, Axis(at as u32));
        self.extents[old] = div_ceil(self.extents[old], block);
        let stretches = std::mem::replace(&mut self.extents[old], block);
        self.extents.insert(at, stretches);
        let shift = |linear: &mut Linear| {
            let coef = linear.coef(axis);
            linear.terms.iter_mut().filter(|t| t.0 >= new).for_each(|t| t.0.0 += 1);
            linear.add(new, coef.wrapping_mul(block));
        };
        self.affine.iter_mut().flatten().for_each(shift);
        self.places.iter_mut().flatten().flat_map(Place::forms).for_each(shift);
        self.guards.iter_mut().flatten().flatten().for_each(|c| shift(&mut c.index));
        stores.iter_mut().flat_map(|s| s.place.forms()).for_each(shift);
        self.find_uses();
    }

    /// Whether `outer`, `inner` can be one axis: in all offsets a step of `outer` is a whole walk
    /// along `inner`, and neither occurs anywhere else.
    fn walks_as_one(
        &self,
        used: &[ExprId],
        (stores, conditions): (&[PlacedStore], &[Check]),
        outer: usize,
        inner: usize,
    ) -> bool {
        let extent = self.extents[inner];
        let (outer, inner) = (Axis(outer as u32), Axis(inner as u32));
        let as_one = |l: &Linear| l.coef(outer) == l.coef(inner).wrapping_mul(extent);
        let absent = |l: &Linear| l.coef(outer) == 0 && l.coef(inner) == 0;
        let place_fits = |p: &Place| {
            as_one(&p.linear)
                && p.quotients.iter().all(|q| absent(&q.index))
                && p.checks.iter().all(|c| absent(&c.index))
        };
        stores.iter().all(|s| place_fits(&s.place))
            && conditions.iter().all(|c| absent(&c.index))
            && used.iter().all(|id| {
                let id = id.0 as usize;
                self.affine[id].as_ref().is_none_or(as_one)
                    && self.places[id].as_ref().is_none_or(place_fits)
                    && self.guards[id].iter().flatten().all(|c| absent(&c.index))
            })
    }

    fn renumber(&mut self, used: &[ExprId], new: &[Option<Axis>]) {
        for id in used.iter().map(|id| id.0 as usize) {
            self.affine[id].iter_mut().for_each(|l| l.renumber(new));
            self.places[id].iter_mut().flat_map(Place::forms).for_each(|l| l.renumber(new));
            self.guards[id].iter_mut().flatten().for_each(|c| c.index.renumber(new));
        }
        self.find_uses();
    }

    fn resolve_expr(&mut self, site: Site, id: ExprId, expr: &Expr) -> Result<(), String> {
        let at = id.0 as usize;
        match expr {
            Expr::Load { buffer, access, lookups, .. } => {
                self.places[at] = Some(self.resolve(site, *buffer, access, lookups)?);
            }
            Expr::Inside(guard) => {
                let check = Check::of_guard(guard, &self.extents)?;
                self.guards[at] = Some(check.into_iter().collect());
            }
            _ => self.affine[at] = Linear::of_expr(expr, |id| self.affine[id.0 as usize].clone())?,
        }
        Ok(())
    }

    fn find_uses(&mut self) {
        for (id, expr) in self.exprs.iter() {
            let at = id.0 as usize;
            let own = match (&self.affine[at], &self.places[at], &self.guards[at]) {
                (Some(linear), _, _) => linear.uses(),
                (_, Some(place), _) => place.uses(),
                (_, _, Some(checks)) => {
                    checks.iter().fold(AxisSet::default(), |s, c| s.union(c.index.uses()))
                }
                _ if matches!(expr, Expr::Folded(_)) => AxisSet::FOLDED,
                _ => AxisSet::default(),
            };
            let operands =
                if self.affine[at].is_some() { SmallVec::new() } else { expr.operands() };
            let used = operands.iter().map(|o| self.uses[o.0 as usize]);
            self.uses[at] = used.fold(own, AxisSet::union);
        }
    }
}
