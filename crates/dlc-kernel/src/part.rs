//! What a kernel reads and writes, whatever its form.

use crate::program::sum_count;
use crate::{
    Access, BufferId, Expr, ExprId, Exprs, Form, Kernel, Lookup, ScatterMode, Size, Step, Store,
};

/// One piece of work of a kernel: some roots of an [`Exprs`], computed at every point of a domain,
/// and what is stored there. Every form is a list of them.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The domain: the only axes that may occur.
    pub axes: Vec<Size>,
    /// Where the roots are.
    pub exprs: &'a Exprs,
    /// What is computed; the values of `stores` are among them.
    pub roots: Vec<ExprId>,
    /// What is stored at every point.
    pub stores: Vec<&'a Store>,
    /// `Expr::Folded(k)` may occur for the steps `k` that are listed, with the fold's root.
    pub folds: Vec<(u32, Fold)>,
}

/// Where an [`Expr::Folded`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// A sum of a contraction, whose left factor this is.
    Contraction(ExprId),
    /// A step of a row kernel.
    Row(crate::FoldOp, ExprId),
}

impl Part<'_> {
    /// The nodes the roots need, operands before users.
    pub fn nodes(&self) -> impl Iterator<Item = (ExprId, &Expr)> {
        self.exprs
            .reachable(self.roots.iter().copied())
            .into_iter()
            .map(|id| (id, self.exprs.get(id)))
    }

    /// What it loads: the buffer, where, and the coordinates that data decides.
    pub fn loads(&self) -> impl Iterator<Item = (BufferId, &Access, &[Lookup])> {
        self.nodes().filter_map(|(_, expr)| match expr {
            Expr::Load { buffer, access, lookups, .. } => Some((*buffer, access, &lookups[..])),
            _ => None,
        })
    }
}

impl Kernel {
    /// The pieces of its work, in order.
    pub fn parts(&self) -> Vec<Part<'_>> {
        match &self.form {
            Form::Map { segments } => {
                segments.iter().map(|s| Part::storing(&s.axes, &s.exprs, &s.stores)).collect()
            }
            Form::Row { outer, inner, exprs, steps } => row_parts(outer, inner, exprs, steps),
            Form::Contract { out, sums, reduce, exprs, lhs, rhs, stores } => {
                let axes = [&out[..], &sums[..], &reduce[..]].concat();
                let factors = Part::computing(axes, exprs, vec![*lhs, *rhs]);
                let sums = 0..sum_count(sums);
                let folds = sums.map(|k| (k, Fold::Contraction(*lhs))).collect();
                vec![factors, Part { folds, ..Part::storing(out, exprs, stores) }]
            }
            Form::Scatter { axes, exprs, lookups, value, .. } => {
                let roots = lookups.iter().map(|l| l.index).chain([*value]).collect();
                vec![Part::computing(axes.to_vec(), exprs, roots)]
            }
            Form::Loop { start, body, .. } => {
                start.iter().chain(body).flat_map(Kernel::parts).collect()
            }
            Form::Reshape { .. } | Form::Check { .. } => Vec::new(),
        }
    }

    /// The buffers it reads, each once, in order of first use; those of a loop that come from outside.
    pub fn reads(&self) -> Vec<BufferId> {
        let mut reads = Vec::new();
        if let Form::Loop { start, body, .. } = &self.form {
            let written: rustc_hash::FxHashSet<BufferId> = self.writes().into_iter().collect();
            let all = start.iter().chain(body).flat_map(Kernel::reads);
            return unique(all.filter(|id| !written.contains(id)).collect());
        }
        let mut seen = Vec::new();
        for part in self.parts() {
            // The parts of a map have nodes of their own, those of other forms share theirs.
            if seen.is_empty() || matches!(self.form, Form::Map { .. }) {
                seen = vec![false; part.exprs.len()];
            }
            for id in part.exprs.reachable_beyond(part.roots, &mut seen) {
                if let Expr::Load { buffer, .. } = part.exprs.get(id) {
                    reads.push(*buffer);
                }
            }
        }
        match &self.form {
            Form::Reshape { src, .. } => reads.push(*src),
            Form::Check { buffers } => reads.extend(buffers),
            _ => {}
        }
        unique(reads)
    }

    /// The buffers it writes, each once, in order of first use.
    pub fn writes(&self) -> Vec<BufferId> {
        let of = |store: &Store| store.buffer;
        unique(match &self.form {
            Form::Map { segments } => segments.iter().flat_map(|s| &s.stores).map(of).collect(),
            Form::Row { steps, .. } => steps.iter().filter_map(Step::store).map(of).collect(),
            Form::Contract { stores, .. } => stores.iter().map(of).collect(),
            Form::Scatter { buffer, .. } => vec![*buffer],
            Form::Reshape { dst, .. } => vec![*dst],
            Form::Check { .. } => Vec::new(),
            Form::Loop { start, body, .. } => {
                start.iter().chain(body).flat_map(Kernel::writes).collect()
            }
        })
    }

    /// Whether it can set the error word: a check, or an index found in data.
    pub fn may_fail(&self) -> bool {
        match &self.form {
            Form::Check { .. } | Form::Scatter { mode: ScatterMode::Add, .. } => true,
            Form::Loop { start, body, .. } => start.iter().chain(body).any(Kernel::may_fail),
            _ => self.parts().iter().any(|part| {
                let mut nodes = part.nodes();
                nodes.any(|(_, e)| matches!(e, Expr::Load { lookups, .. } if !lookups.is_empty()))
            }),
        }
    }
}

impl<'a> Part<'a> {
    fn computing(axes: Vec<Size>, exprs: &'a Exprs, roots: Vec<ExprId>) -> Part<'a> {
        Part { axes, exprs, roots, stores: Vec::new(), folds: Vec::new() }
    }

    fn storing(axes: &[Size], exprs: &'a Exprs, stores: &'a [Store]) -> Part<'a> {
        let roots = stores.iter().map(|s| s.value).collect();
        Part { stores: stores.iter().collect(), ..Part::computing(axes.to_vec(), exprs, roots) }
    }
}

fn row_parts<'a>(
    outer: &[Size],
    inner: &[Size],
    exprs: &'a Exprs,
    steps: &'a [Step],
) -> Vec<Part<'a>> {
    let all = [outer, inner].concat();
    let mut folds = Vec::new();
    let mut parts = Vec::new();
    for (k, step) in steps.iter().enumerate() {
        let part = match step {
            Step::Fold(_, element) => Part::computing(all.clone(), exprs, vec![*element]),
            Step::StoreRow(store) => Part::storing(outer, exprs, std::slice::from_ref(store)),
            Step::StoreEach(store) => Part::storing(&all, exprs, std::slice::from_ref(store)),
        };
        parts.push(Part { folds: folds.clone(), ..part });
        if let Step::Fold(op, element) = step {
            folds.push((k as u32, Fold::Row(*op, *element)));
        }
    }
    parts
}

fn unique(mut ids: Vec<BufferId>) -> Vec<BufferId> {
    if ids.len() > 1 {
        let mut seen = rustc_hash::FxHashSet::default();
        ids.retain(|&id| seen.insert(id));
    }
    ids
}
