//! What all forms of kernels have in common, to be changed: expressions over axes, and stores.

use crate::schedule::domain;
use dlc_kernel::{Access, Axis, BufferId, Expr, Exprs, Form, Lookup, Program, Size, Step, Store};
use smallvec::SmallVec;

/// Expressions over some axes, and what is stored of them.
pub(super) struct Piece<'f> {
    groups: SmallVec<[Group<'f>; 2]>,
    exprs: &'f mut Exprs,
    stores: Vec<&'f mut Store>,
}

/// Neighbouring axes that may change places, unless they are fixed.
struct Group<'f> {
    extents: &'f mut SmallVec<[Size; 4]>,
    is_fixed: bool,
}

/// The pieces of a form.
pub(super) fn pieces(form: &mut Form) -> Vec<Piece<'_>> {
    let group = |extents, is_fixed| Group { extents, is_fixed };
    let piece = |groups, exprs, stores| Piece { groups, exprs, stores };
    match form {
        Form::Map { segments } => segments
            .iter_mut()
            .map(|s| {
                let groups = [group(&mut s.axes, false)].into_iter().collect();
                piece(groups, &mut s.exprs, s.stores.iter_mut().collect())
            })
            .collect(),
        Form::Row { outer, inner, exprs, steps } => {
            let counts = |s: &Step| matches!(s, Step::Fold(op, _) if op.is_position());
            let is_fixed = steps.iter().any(counts);
            let groups = [group(outer, false), group(inner, is_fixed)].into_iter().collect();
            let stores = steps.iter_mut().filter_map(|s| match s {
                Step::StoreRow(store) | Step::StoreEach(store) => Some(store),
                Step::Fold(..) => None,
            });
            vec![piece(groups, exprs, stores.collect())]
        }
        Form::Contract { out, sums, reduce, exprs, stores, .. } => {
            let groups = [group(out, false), group(sums, true), group(reduce, false)];
            let groups = groups.into_iter().collect();
            vec![piece(groups, exprs, stores.iter_mut().collect())]
        }
        Form::Scatter { axes, exprs, .. } => {
            let groups = [group(axes, true)].into_iter().collect();
            vec![piece(groups, exprs, Vec::new())]
        }
        Form::Reshape { .. } | Form::Loop { .. } | Form::Check { .. } => Vec::new(),
    }
}

impl Piece<'_> {
    /// The extents of its axes.
    pub fn axes(&self) -> Vec<Size> {
        self.groups.iter().flat_map(|g| g.extents.iter().cloned()).collect()
    }

    /// The places where buffers are read and stored.
    pub fn accesses(&self) -> impl Iterator<Item = (BufferId, &Access, &[Lookup])> {
        let loads = self.exprs.iter().filter_map(|(_, expr)| match expr {
            Expr::Load { buffer, access, lookups, .. } => Some((*buffer, access, &lookups[..])),
            _ => None,
        });
        loads.chain(self.stores.iter().map(|s| (s.buffer, &s.access, &[][..])))
    }

    /// Changes the places where buffers are read and stored.
    pub fn change_accesses(&mut self, change: impl Fn(BufferId, &mut Access, &mut [Lookup])) {
        *self.exprs = self.exprs.changed(|_, expr| {
            if let Expr::Load { buffer, access, lookups, .. } = expr {
                change(*buffer, access, lookups);
            }
        });
        for store in &mut self.stores {
            change(store.buffer, &mut store.access, &mut []);
        }
    }

    /// Lets what is read and stored of a buffer be elsewhere in another one.
    pub fn redirect(&mut self, from: BufferId, to: BufferId, place: impl Fn(&Access) -> Access) {
        *self.exprs = self.exprs.changed(|_, expr| match expr {
            Expr::Load { buffer, access, .. } if *buffer == from => {
                (*buffer, *access) = (to, place(access));
            }
            _ => {}
        });
        for store in self.stores.iter_mut().filter(|s| s.buffer == from) {
            (store.buffer, store.access) = (to, place(&store.access));
        }
    }

    /// Orders the axes of every group by how far apart neighbours along them are in any of
    /// the buffers that are `wanted`, the farthest first.
    pub fn sort_axes(&mut self, program: &Program, wanted: impl Fn(BufferId) -> bool) {
        let mut steps: Vec<i64> = vec![0; self.groups.iter().map(|g| g.extents.len()).sum()];
        for (buffer, access, _) in self.accesses().filter(|a| wanted(a.0)) {
            let shape = domain::extents(&program.buffer(buffer).shape).expect("sizes are bound");
            for (coord, stride) in access.coords.iter().zip(domain::strides(&shape)) {
                for &(axis, coef) in &coord.terms {
                    let step = &mut steps[axis.0 as usize];
                    *step = (*step).max((coef * stride / coord.div).abs());
                }
            }
        }
        let mut order: Vec<usize> = Vec::with_capacity(steps.len());
        for group in &self.groups {
            let mut own: Vec<usize> = (order.len()..order.len() + group.extents.len()).collect();
            if !group.is_fixed {
                own.sort_by_key(|&axis| std::cmp::Reverse(steps[axis]));
            }
            order.extend(own);
        }
        self.permute(&order);
    }

    /// Moves an axis of the first group up to the place `to`.
    pub fn axis_first(&mut self, to: u32, axis: u32) {
        let mut order: Vec<usize> = (0..self.axes().len()).collect();
        order[to as usize..=axis as usize].rotate_right(1);
        self.permute(&order);
    }

    /// Renumbers the axes: `order[new]` is the old number.
    fn permute(&mut self, order: &[usize]) {
        let mut new = vec![0; order.len()];
        order.iter().enumerate().for_each(|(to, &from)| new[from] = to as u32);
        let renumber = |axis: Axis| Axis(new[axis.0 as usize]);
        let mut first = 0;
        for group in &mut self.groups {
            let old = group.extents.clone();
            let own = &order[first..first + old.len()];
            *group.extents = own.iter().map(|&axis| old[axis - first].clone()).collect();
            first += old.len();
        }
        *self.exprs = self.exprs.changed(|_, expr| match expr {
            Expr::Load { access, .. } => *access = access.renumber(&renumber),
            Expr::Inside(guard) => guard.index = guard.index.renumber(&renumber),
            Expr::Axis(axis) => *axis = renumber(*axis),
            _ => {}
        });
        for store in &mut self.stores {
            store.access = store.access.renumber(&renumber);
        }
    }
}
