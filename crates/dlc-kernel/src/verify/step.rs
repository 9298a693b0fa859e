//! The rules of loops: what begins with the step, and what a step may read.

use super::{Broken, Rule, kernel, require, store};
use crate::{Access, Axis, BufferId, Expr, Form, Index, Kernel, Part, Program, Size};
use rustc_hash::{FxHashMap, FxHashSet};

/// Checks a loop, which is in no other.
pub(super) fn check(program: &Program, looped: &Kernel) -> Result<(), Broken> {
    let mut walk = Walk { program, steps: Vec::new(), names: FxHashSet::default() };
    walk.nest(looped)?;
    store::written_once(program, &looped.parts())
}

/// The walk over the kernels of loops.
struct Walk<'a> {
    program: &'a Program,
    /// The extents of the loops around.
    steps: Vec<Size>,
    names: FxHashSet<&'a str>,
}

/// By buffer: which kernels of a loop's body write it, by position, and where.
type Writes<'a> = FxHashMap<BufferId, Vec<(usize, &'a Access)>>;

fn writes(body: &[Kernel]) -> Writes<'_> {
    let mut writes = Writes::default();
    for (at, kernel) in body.iter().enumerate() {
        for store in kernel.parts().iter().flat_map(|p| &p.stores) {
            writes.entry(store.buffer).or_default().push((at, &store.access));
        }
        if let Form::Scatter { buffer, access, .. } = &kernel.form {
            writes.entry(*buffer).or_default().push((at, access));
        }
    }
    writes
}

impl<'a> Walk<'a> {
    fn nest(&mut self, looped: &'a Kernel) -> Result<(), Broken> {
        let Form::Loop { steps, start, body } = &looped.form else { return self.leaf(looped) };
        require(!body.is_empty(), Rule::Effect, || "a loop without a body".into())?;
        kernel::extents(std::slice::from_ref(steps))?;
        start.iter().try_for_each(|kernel| self.named(kernel))?;
        self.steps.push(steps.clone());
        body.iter().try_for_each(|kernel| self.named(kernel))?;
        self.in_order(body)?;
        self.steps.pop();
        Ok(())
    }

    fn named(&mut self, inner: &'a Kernel) -> Result<(), Broken> {
        let plain = inner.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let unique = plain && !inner.name.is_empty() && self.names.insert(&inner.name);
        let name = &inner.name;
        require(unique, Rule::Name, || format!("a kernel cannot be called `{name}` (again)"))?;
        self.nest(inner).map_err(|(rule, detail)| (rule, format!("`{name}`: {detail}")))
    }

    fn leaf(&self, inner: &Kernel) -> Result<(), Broken> {
        let whole = matches!(inner.form, Form::Reshape { .. } | Form::Check { .. });
        require(!whole, Rule::Step, || format!("a {} in a loop", inner.form.name()))?;
        for part in kernel::check_parts(self.program, inner)? {
            let begins = part.axes.starts_with(&self.steps);
            require(begins, Rule::Step, || "a domain does not begin with the steps".into())?;
        }
        Ok(())
    }

    /// That each step reads what was written before.
    fn in_order(&self, body: &[Kernel]) -> Result<(), Broken> {
        let writes = writes(body);
        for (at, kernel) in body.iter().enumerate() {
            // What happens within a step of an inner loop has been checked there.
            let nests = matches!(kernel.form, Form::Loop { .. });
            for part in kernel.parts() {
                self.reads_in_order(&part, &writes, (at, nests))?;
            }
        }
        Ok(())
    }

    fn reads_in_order(
        &self,
        part: &Part<'_>,
        writes: &Writes<'_>,
        (at, nests): (usize, bool),
    ) -> Result<(), Broken> {
        for (_, expr) in part.nodes() {
            let Expr::Load { buffer, access, .. } = expr else { continue };
            let stored = |s: &&crate::Store| s.buffer == *buffer && s.access == *access;
            let in_place = nests || part.stores.iter().any(stored);
            let ordered = |&(by, store): &(usize, &Access)| {
                let earlier = by < at || by == at && in_place;
                self.distance(store, access).is_some_and(|d| d < 0 || d == 0 && earlier)
            };
            let fits = writes.get(buffer).is_none_or(|w| w.iter().all(ordered));
            require(fits, Rule::Step, || {
                format!("{buffer} is read where no earlier step has written it")
            })?;
        }
        Ok(())
    }

    /// How many steps after a store a load of the innermost loop reads, if that is a number.
    fn distance(&self, store: &Access, load: &Access) -> Option<i64> {
        let dim = self.steps.len() - 1;
        let (store, load) = (store.coords.get(dim)?, load.coords.get(dim)?);
        let same = self.moving(store).eq(self.moving(load)) && store.div == 1 && load.div == 1;
        let offset = (load.offset.clone() - store.offset.clone()).as_const();
        let follows = store.coef(Axis(dim as u32)) == 1 || self.steps[dim] == Size::ONE;
        offset.filter(|_| same && follows)
    }

    /// The terms of an index that are not always 0.
    fn moving<'i>(&'i self, index: &'i Index) -> impl Iterator<Item = &'i (Axis, i64)> {
        let still = |axis: Axis| self.steps.get(axis.0 as usize) == Some(&Size::ONE);
        index.terms.iter().filter(move |t| !still(t.0))
    }
}
