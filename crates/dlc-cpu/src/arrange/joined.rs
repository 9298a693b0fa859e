//! Reshapes beside contractions through windows: their two buffers become one.
//!
//! On the way back from pooling, each dim of a picture is a window and a place in it; what a convolution in
//! groups reads has each channel as a group and a place in it. Where a reshape only splits dims, or
//! only merges them, everybody uses the merged form. Then nothing stands between the kernels on both
//! sides, and a layout can change them together.

use super::layout::has_windows;
use super::piece::{Piece, pieces};
use crate::schedule::domain::{extents, strides};
use dlc_kernel::{Access, BufferId, Class, Entry, Form, Index, Kernel, Program};
use rustc_hash::FxHashSet;
use std::ops::Range;

/// Does away with reshapes beside windows, where all kernels can.
pub(super) fn joined(mut program: Program) -> Program {
    let mut entries = std::mem::take(&mut program.entries);
    for entry in &mut entries {
        let windowed = windowed(entry);
        let mut at = 0;
        while at < entry.kernels.len() {
            let join = Join::of(&program, &entry.kernels[at].form);
            let join = join.filter(|j| windowed.contains(&j.split) || windowed.contains(&j.whole));
            match join.filter(|join| join.is_possible(&program, entry, at)) {
                Some(join) => {
                    entry.kernels.remove(at);
                    entry.commit -= usize::from(at < entry.commit);
                    entry.kernels.iter_mut().for_each(|kernel| join.apply(&program, kernel));
                }
                None => at += 1,
            }
        }
    }
    program.entries = entries;
    program
}

/// What contractions with windows read or store.
fn windowed(entry: &Entry) -> FxHashSet<BufferId> {
    let contractions = entry.kernels.iter().filter(|kernel| has_windows(&kernel.form));
    contractions.flat_map(|kernel| [kernel.reads(), kernel.writes()].concat()).collect()
}

/// A buffer, and one with the same elements of which each dim of the first is several.
struct Join {
    whole: BufferId,
    split: BufferId,
    /// By dim of `whole`: those of `split`.
    dims: Vec<Range<usize>>,
}

impl Join {
    /// That of a reshape, if it only splits or only merges dims.
    fn of(program: &Program, form: &Form) -> Option<Join> {
        let &Form::Reshape { src, dst } = form else { return None };
        let shape = |id: BufferId| extents(&program.buffer(id).shape).ok();
        let one = |split, whole| {
            let dims = merged(&shape(split)?, &shape(whole)?)?;
            Some(Join { whole, split, dims })
        };
        one(src, dst).or_else(|| one(dst, src))
    }

    /// Whether all other kernels than that of the reshape can use the merged form.
    fn is_possible(&self, program: &Program, entry: &Entry, at: usize) -> bool {
        let is_source = entry.kernels[at].reads().contains(&self.whole);
        let plain = |id: BufferId| match program.buffer(id).class {
            Class::Temp => true,
            Class::Input => is_source && id == self.whole,
            _ => false,
        };
        let mut kernels = entry.kernels.iter().enumerate().filter(|(k, _)| *k != at);
        plain(self.whole)
            && plain(self.split)
            && ![self.whole, self.split].iter().any(|id| entry.outputs.contains(id))
            && kernels.all(|(_, kernel)| self.is_usable(program, kernel))
    }

    /// Whether a kernel can do without the split form.
    fn is_usable(&self, program: &Program, kernel: &Kernel) -> bool {
        let uses = [kernel.reads(), kernel.writes()].concat();
        match &kernel.form {
            _ if !uses.contains(&self.split) => true,
            _ if uses.contains(&self.whole) => false,
            Form::Map { .. } | Form::Row { .. } | Form::Contract { .. } => {
                pieces(&mut kernel.form.clone()).iter().all(|p| self.is_inside(program, p))
            }
            Form::Reshape { .. } | Form::Check { .. } => true,
            Form::Scatter { .. } | Form::Loop { .. } => false,
        }
    }

    /// Whether no coordinate that becomes part of another leaves its dim.
    fn is_inside(&self, program: &Program, piece: &Piece) -> bool {
        let (axes, shape) = (piece.axes(), &program.buffer(self.split).shape);
        let own = piece.accesses().filter(|(id, ..)| *id == self.split);
        let parts = || self.dims.iter().filter(|dims| dims.len() != 1).cloned().flatten();
        own.into_iter().all(|(_, access, lookups)| {
            lookups.is_empty() && parts().all(|d| access.coords[d].is_inside(&axes, &shape[d]))
        })
    }

    /// Lets a kernel use the merged form.
    fn apply(&self, program: &Program, kernel: &mut Kernel) {
        let renamed = |id: &mut BufferId| {
            if *id == self.split {
                *id = self.whole;
            }
        };
        match &mut kernel.form {
            Form::Reshape { src, dst } => [src, dst].into_iter().for_each(renamed),
            Form::Check { buffers } => buffers.iter_mut().for_each(renamed),
            form => {
                let shape = extents(&program.buffer(self.split).shape).expect("sizes are bound");
                let joined = self.coords(&shape);
                for mut piece in pieces(form) {
                    piece.redirect(self.split, self.whole, |access| Access {
                        coords: joined.iter().map(|c| c.compose(&access.coords)).collect(),
                        guards: access.guards.clone(),
                    });
                }
            }
        }
    }

    /// The coordinates of the merged form by those of the other.
    fn coords(&self, shape: &[i64]) -> Vec<Index> {
        let of = |dims: &Range<usize>| {
            let steps = strides(&shape[dims.clone()]);
            Index::affine(dims.clone().map(|d| d as u32).zip(steps), 0i64)
        };
        self.dims.iter().map(of).collect()
    }
}

/// Which neighbours of some dims each of fewer ones is.
fn merged(split: &[i64], whole: &[i64]) -> Option<Vec<Range<usize>>> {
    let mut end = 0;
    let mut dims = Vec::with_capacity(whole.len());
    for &extent in whole {
        let (start, mut points) = (end, 1);
        while points < extent {
            points *= split.get(end)?;
            end += 1;
        }
        (points == extent).then_some(())?;
        dims.push(start..end);
    }
    (end == split.len()).then_some(dims)
}
