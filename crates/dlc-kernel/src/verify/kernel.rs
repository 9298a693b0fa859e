//! The rules of one kernel: its domains, accesses, types and folds.

use super::{Broken, Rule, require, step, store};
use crate::{
    Access, BinaryOp, Buffer, BufferId, DType, Expr, ExprId, Exprs, Fold, FoldOp, Form, Guard,
    Index, Kernel, Lookup, MAX_DIM, Part, Program, Scalar, Size, Step, cast, fold_dtype,
};

/// Checks all rules but those about the order of kernels and the classes of buffers.
pub(super) fn check(program: &Program, kernel: &Kernel) -> Result<(), Broken> {
    if let Form::Loop { .. } = kernel.form {
        return step::check(program, kernel);
    }
    let parts = check_parts(program, kernel)?;
    store::written_once(program, &parts)?;
    in_place(kernel, &parts)
}

/// The rules of a kernel that is no loop by itself, and its parts.
pub(super) fn check_parts<'k>(
    program: &Program,
    kernel: &'k Kernel,
) -> Result<Vec<Part<'k>>, Broken> {
    names_exist(program, kernel)?;
    has_effect(kernel)?;
    let parts = kernel.parts();
    for part in &parts {
        extents(&part.axes)?;
        for (id, expr) in part.nodes() {
            Node { program, part }.check(id, expr)?;
        }
        for store in &part.stores {
            store::check(program, part, store)?;
        }
    }
    form(program, kernel, &parts)?;
    Ok(parts)
}

/// That all extents are in range, as far as they are known.
pub(super) fn extents(sizes: &[Size]) -> Result<(), Broken> {
    let fits = |s: &Size| s.as_const().is_none_or(|n| (0..=MAX_DIM).contains(&n));
    match sizes.iter().find(|s| !fits(s)) {
        Some(bad) => Err((Rule::Extent, format!("{bad} is none"))),
        None => Ok(()),
    }
}

/// That there is such a buffer.
pub(super) fn exists(program: &Program, id: BufferId) -> Result<(), Broken> {
    let exists = (id.0 as usize) < program.buffers.len();
    require(exists, Rule::Exists, || format!("{id} does not"))
}

/// Everything later checks take for granted, without following any name.
fn names_exist(program: &Program, kernel: &Kernel) -> Result<(), Broken> {
    for (exprs, roots, buffers) in names(kernel) {
        buffers.into_iter().try_for_each(|id| exists(program, id))?;
        let Some(exprs) = exprs else { continue };
        for (id, expr) in exprs.iter() {
            let known = expr.operands().iter().all(|operand| operand < &id);
            require(known, Rule::Exists, || format!("an operand of {id} does not come before"))?;
            if let Expr::Load { buffer, .. } = expr {
                exists(program, *buffer)?;
            }
        }
        let beyond = roots.into_iter().find(|root| root.0 as usize >= exprs.len());
        require(beyond.is_none(), Rule::Exists, || "a root does not".into())?;
    }
    Ok(())
}

/// The expressions, roots and buffers that a form names.
fn names(kernel: &Kernel) -> Vec<(Option<&Exprs>, Vec<ExprId>, Vec<BufferId>)> {
    let stored = |stores: &[crate::Store]| -> (Vec<ExprId>, Vec<BufferId>) {
        stores.iter().map(|s| (s.value, s.buffer)).unzip()
    };
    match &kernel.form {
        Form::Map { segments } => segments
            .iter()
            .map(|s| {
                let (roots, buffers) = stored(&s.stores);
                (Some(&s.exprs), roots, buffers)
            })
            .collect(),
        Form::Row { exprs, steps, .. } => {
            let root = |step: &Step| match step {
                Step::Fold(_, id) => (*id, None),
                Step::StoreRow(s) | Step::StoreEach(s) => (s.value, Some(s.buffer)),
            };
            let (roots, buffers): (_, Vec<_>) = steps.iter().map(root).unzip();
            vec![(Some(exprs), roots, buffers.into_iter().flatten().collect())]
        }
        Form::Contract { exprs, lhs, rhs, stores, .. } => {
            let (mut roots, buffers) = stored(stores);
            roots.extend([*lhs, *rhs]);
            vec![(Some(exprs), roots, buffers)]
        }
        Form::Scatter { exprs, buffer, lookups, value, .. } => {
            let roots = lookups.iter().map(|l| l.index).chain([*value]).collect();
            vec![(Some(exprs), roots, vec![*buffer])]
        }
        Form::Reshape { src, dst } => vec![(None, Vec::new(), vec![*src, *dst])],
        Form::Check { buffers } => vec![(None, Vec::new(), buffers.clone())],
        Form::Loop { .. } => Vec::new(),
    }
}

fn has_effect(kernel: &Kernel) -> Result<(), Broken> {
    let effect = match &kernel.form {
        Form::Map { segments } => {
            !segments.is_empty() && segments.iter().all(|s| !s.stores.is_empty())
        }
        Form::Row { steps, .. } => steps.iter().any(|s| !matches!(s, Step::Fold(..))),
        Form::Contract { stores, .. } => !stores.is_empty(),
        Form::Check { buffers } => !buffers.is_empty(),
        Form::Loop { body, .. } => !body.is_empty(),
        Form::Scatter { .. } | Form::Reshape { .. } => true,
    };
    require(effect, Rule::Effect, || format!("a {} without one", kernel.form.name()))
}

/// The rules that belong to one form.
fn form(program: &Program, kernel: &Kernel, parts: &[Part<'_>]) -> Result<(), Broken> {
    match &kernel.form {
        Form::Row { exprs, steps, .. } => steps.iter().try_for_each(|step| match step {
            Step::Fold(op, id) => folds(*op, exprs.dtype(*id)),
            Step::StoreRow(_) | Step::StoreEach(_) => Ok(()),
        }),
        Form::Contract { exprs, lhs, rhs, .. } => {
            let (a, b) = (exprs.dtype(*lhs), exprs.dtype(*rhs));
            require(a == b, Rule::Type, || format!("factors of types {a} and {b}"))?;
            folds(FoldOp::Sum, a)
        }
        Form::Scatter { axes, exprs, buffer, access, lookups, value, .. } => {
            let found = !lookups.is_empty();
            require(found, Rule::Lookup, || "a scatter without one".into())?;
            let destination = program.buffer(*buffer);
            let node = Node { program, part: &parts[0] };
            node.access(destination, access, lookups)?;
            debug_assert_eq!(&parts[0].axes[..], &axes[..], "a scatter is one part");
            folds(FoldOp::Sum, exprs.dtype(*value))?;
            stored_type(destination, exprs.dtype(*value))
        }
        Form::Reshape { src, dst } => {
            require(src != dst, Rule::Reshape, || format!("{src} onto itself"))?;
            reshape(program.buffer(*src), program.buffer(*dst))
        }
        Form::Map { .. } | Form::Check { .. } | Form::Loop { .. } => Ok(()),
    }
}

fn folds(op: FoldOp, dtype: DType) -> Result<(), Broken> {
    let takes = crate::merge_op(op).is_none_or(|op| op.takes(dtype));
    require(takes, Rule::Type, || format!("`{op}` does not fold {dtype}"))
}

fn reshape(src: &Buffer, dst: &Buffer) -> Result<(), Broken> {
    let count = |b: &Buffer| b.shape.iter().cloned().product::<Size>();
    let bound = |b: &Buffer| b.elements().is_some();
    let same = count(src) == count(dst) || !bound(src) || !bound(dst);
    let detail = || format!("`{}` and `{}` differ", src.name, dst.name);
    require(same && src.dtype == dst.dtype, Rule::Reshape, detail)
}

/// That a value of type `dtype` can be stored in `buffer`.
pub(super) fn stored_type(buffer: &Buffer, dtype: DType) -> Result<(), Broken> {
    let own = buffer.dtype.computing();
    let name = &buffer.name;
    require(own == dtype, Rule::Type, || format!("`{name}` is stored as {own}, not {dtype}"))
}

/// What surrounds a node that is checked.
pub(super) struct Node<'a> {
    pub program: &'a Program,
    pub part: &'a Part<'a>,
}

impl Node<'_> {
    fn check(&self, id: ExprId, expr: &Expr) -> Result<(), Broken> {
        self.types(id, expr)?;
        match expr {
            Expr::Axis(axis) => self.index(&Index::axis(axis.0)),
            Expr::Inside(guard) => self.guard(guard),
            Expr::Load { buffer, access, lookups, fill } => {
                let buffer = self.program.buffer(*buffer);
                self.access(buffer, access, lookups)?;
                stored_type(buffer, fill.dtype)?;
                constant(*fill)
            }
            Expr::Const(scalar) => constant(*scalar),
            Expr::Unary(op, x) => {
                let dtype = self.part.exprs.dtype(*x);
                require(op.takes(dtype), Rule::Type, || format!("`{op}` of {dtype}"))
            }
            Expr::Binary(op, a, _) => self.binary(*op, *a),
            Expr::Random { seed, step, element, .. } => {
                [seed, step, element].into_iter().try_for_each(|&id| self.is_i32(id, Rule::Type))
            }
            Expr::Extent(..) | Expr::Folded(_) | Expr::Select(..) | Expr::Cast(..) => Ok(()),
        }
    }

    fn binary(&self, op: BinaryOp, operand: ExprId) -> Result<(), Broken> {
        let dtype = self.part.exprs.dtype(operand);
        require(op.takes(dtype), Rule::Type, || format!("`{op}` of {dtype}"))
    }

    /// That the node's type is what its operands make it, and a computing type.
    fn types(&self, id: ExprId, expr: &Expr) -> Result<(), Broken> {
        let exprs = self.part.exprs;
        let expected = match expr {
            Expr::Folded(step) => self.folded(*step)?,
            _ => exprs.infer(expr).map_err(|problem| (Rule::Type, problem))?,
        };
        let fits = exprs.dtype(id) == expected && expected.computes();
        require(fits, Rule::Type, || format!("{id} is {}, not {expected}", exprs.dtype(id)))
    }

    fn folded(&self, step: u32) -> Result<DType, Broken> {
        let fold = self.part.folds.iter().find(|(k, _)| *k == step);
        match fold.map(|(_, fold)| *fold) {
            Some(Fold::Row(op, element)) => Ok(fold_dtype(op, self.part.exprs.dtype(element))),
            Some(Fold::Contraction(factor)) => Ok(self.part.exprs.dtype(factor)),
            None => Err((Rule::Fold, format!("step {step} is none, or none yet"))),
        }
    }

    fn is_i32(&self, id: ExprId, rule: Rule) -> Result<(), Broken> {
        let dtype = self.part.exprs.dtype(id);
        require(dtype == DType::I32, rule, || format!("{id} is {dtype}, not i32"))
    }

    /// That an access fits its buffer and this domain.
    pub(super) fn access(
        &self,
        buffer: &Buffer,
        access: &Access,
        lookups: &[Lookup],
    ) -> Result<(), Broken> {
        let (rank, given) = (buffer.shape.len(), access.coords.len());
        require(rank == given, Rule::Rank, || {
            format!("`{}` has {rank} dims, the access {given}", buffer.name)
        })?;
        access.coords.iter().try_for_each(|index| self.index(index))?;
        access.guards.iter().try_for_each(|guard| self.guard(guard))?;
        for (k, lookup) in lookups.iter().enumerate() {
            let free = access.coords.get(lookup.dim as usize) == Some(&Index::constant(0i64));
            let again = lookups[..k].iter().any(|l| l.dim == lookup.dim);
            require(free && !again, Rule::Lookup, || {
                format!("dim {} of `{}` cannot be decided", lookup.dim, buffer.name)
            })?;
            self.is_i32(lookup.index, Rule::Lookup)?;
        }
        Ok(())
    }

    fn guard(&self, guard: &Guard) -> Result<(), Broken> {
        self.index(&guard.index)
    }

    fn index(&self, index: &Index) -> Result<(), Broken> {
        require(index.div >= 1, Rule::Rank, || format!("{index} has no positive divisor"))?;
        let rank = self.part.axes.len();
        let beyond = index.terms.iter().find(|(axis, _)| axis.0 as usize >= rank);
        require(beyond.is_none(), Rule::Axis, || format!("{index} in a domain of {rank} axes"))
    }
}

fn constant(scalar: Scalar) -> Result<(), Broken> {
    let (dtype, value) = (scalar.dtype, scalar.value());
    let exact = dtype.is_float() || cast(dtype, value) == value;
    require(exact, Rule::Type, || format!("{value} is no {dtype}"))
}

/// That what is both read and written is so at one point of a map.
fn in_place(kernel: &Kernel, parts: &[Part<'_>]) -> Result<(), Broken> {
    let writes = kernel.writes();
    let broken =
        |id: BufferId| Err((Rule::InPlace, format!("{id} is written, and read elsewhere")));
    for part in parts {
        for (_, expr) in part.nodes() {
            let Expr::Load { buffer, access, lookups, .. } = expr else { continue };
            let same_point = part
                .stores
                .iter()
                .any(|s| s.buffer == *buffer && s.access == *access && lookups.is_empty());
            let map = matches!(kernel.form, Form::Map { .. });
            if writes.contains(buffer) && !(map && same_point) {
                return broken(*buffer);
            }
        }
    }
    Ok(())
}
