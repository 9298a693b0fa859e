//! Which elements of tensors matter: of a causal mask's scores and weights, one triangle.
//!
//! Outside its *demand* nobody reads a tensor; outside its *support* all its elements are 0. A target
//! may leave out what lies outside, products with zeros among it, so that infinities and NaN that
//! a factor has there do not turn up in sums. Both are conditions over the tensor's coordinates, found
//! in the guards of those who read and write it. Where data decides, all that is known is what
//! *masked* elements are: a target may look for them, and leave them out as well.

use crate::{
    Access, Axis, BinaryOp, BufferId, Class, DType, Entry, Expr, ExprId, Exprs, Form, Guard, Index,
    Kernel, Part, Program, Store,
};
use rustc_hash::{FxHashMap, FxHashSet};

/// By buffer: conditions that hold together, where axis `d` is the coordinate along dim `d`.
type Conditions = FxHashMap<BufferId, Vec<Guard>>;

/// What matters of the temporaries of an entry.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    demand: Conditions,
    written: Written,
}

impl Regions {
    /// Those of an entry's temporaries.
    pub fn of(program: &Program, entry: &Entry) -> Regions {
        let mut written = Written::default();
        entry.kernels.iter().for_each(|kernel| add_written(program, kernel, &mut written));
        Regions { demand: demand(program, entry), written }
    }

    /// Over the axes of a kernel that stores at `access`: nobody reads what is stored where one of
    /// these fails.
    pub fn demand(&self, buffer: BufferId, access: &Access) -> Vec<Guard> {
        seen_through(&self.demand, buffer, access)
    }

    /// Over the axes of a kernel that loads at `access`: it loads 0 where one of these fails.
    pub fn support(&self, buffer: BufferId, access: &Access) -> Vec<Guard> {
        seen_through(&self.written.support, buffer, access)
    }

    /// What a truth value is, or a load gives, where a mask that data decides hides it.
    pub fn masked(&self, exprs: &Exprs, id: ExprId) -> Option<f64> {
        self.written.masked(exprs, id)
    }

    /// Conditions over the axes of a kernel: all of these values are 0 where one of them fails.
    pub fn zeros(&self, exprs: &Exprs, values: &[ExprId]) -> Vec<Guard> {
        let all = values.iter().map(|&value| self.written.zeros(exprs, value));
        let common = all.reduce(|mut common, own| {
            common.retain(|guard| own.contains(guard));
            common
        });
        common.unwrap_or_default()
    }
}

/// What is known of temporaries that are written.
#[derive(Clone, Debug, Default)]
struct Written {
    support: Conditions,
    /// Those whose elements are all at least some finite constant.
    bounded: FxHashSet<BufferId>,
    /// What elements are where a mask that data decides hides them, if that is one value; the mask
    /// differs along the last dim.
    masked: FxHashMap<BufferId, Option<f64>>,
}

/// A buffer's conditions as an access sees them.
fn seen_through(conditions: &Conditions, buffer: BufferId, access: &Access) -> Vec<Guard> {
    let own = conditions.get(&buffer).into_iter().flatten();
    own.map(|guard| Guard { index: guard.index.compose(&access.coords), ..guard.clone() }).collect()
}

/// A condition over axes as one over the dims of a buffer, if the access has all of its axes.
fn over_dims(guard: &Guard, access: &Access) -> Option<Guard> {
    let dim = |axis: Axis| access.coords.iter().position(|c| c.as_axis() == Some(axis));
    let terms = guard.index.terms.iter();
    let terms: Option<Vec<(u32, i64)>> = terms.map(|t| Some((dim(t.0)? as u32, t.1))).collect();
    let index = Index::affine(terms?, guard.index.offset.clone());
    Some(Guard { index: Index { div: guard.index.div, ..index }, extent: guard.extent.clone() })
}

/// What all loads of each temporary ask.
fn demand(program: &Program, entry: &Entry) -> Conditions {
    let mut demand = Conditions::default();
    for kernel in &entry.kernels {
        for part in &kernel.parts() {
            let chosen = conditions_of_selects(part);
            for (id, expr) in part.nodes() {
                let Expr::Load { buffer, access, .. } = expr else { continue };
                let unneeded = chosen.iter().filter(|(_, needed)| !needed[id.0 as usize]);
                let guards = access.guards.iter().chain(unneeded.map(|(guard, _)| *guard));
                let asked: Vec<Guard> = guards.filter_map(|g| over_dims(g, access)).collect();
                let of_all = demand.entry(*buffer).or_insert_with(|| asked.clone());
                of_all.retain(|guard| asked.contains(guard));
            }
        }
        if matches!(kernel.form, Form::Reshape { .. } | Form::Check { .. }) {
            kernel.reads().into_iter().for_each(|id| _ = demand.insert(id, Vec::new()));
        }
    }
    let is_own =
        |id: &BufferId| program.buffer(*id).class == Class::Temp && !entry.outputs.contains(id);
    demand.retain(|id, guards| !guards.is_empty() && is_own(id));
    demand
}

/// The conditions of a part's selects; for each, by expression, whether it is needed where it fails.
fn conditions_of_selects<'e>(part: &Part<'e>) -> Vec<(&'e Guard, Vec<bool>)> {
    let conditions = part.exprs.iter().filter_map(|(condition, expr)| match expr {
        Expr::Inside(guard) => Some((condition, guard)),
        _ => None,
    });
    let needed = |(condition, guard)| {
        let mut needed = vec![false; part.exprs.len()];
        part.roots.iter().for_each(|root| needed[root.0 as usize] = true);
        for id in (0..part.exprs.len() as u32).rev().map(ExprId) {
            if !needed[id.0 as usize] {
                continue;
            }
            match part.exprs.get(id) {
                Expr::Select(c, _, other) if *c == condition => needed[other.0 as usize] = true,
                expr => expr.operands().iter().for_each(|x| needed[x.0 as usize] = true),
            }
        }
        (guard, needed)
    };
    conditions.map(needed).collect()
}

/// Adds what is known of the temporaries that a kernel writes.
fn add_written(program: &Program, kernel: &Kernel, written: &mut Written) {
    if let Form::Loop { start, body, .. } = &kernel.form {
        start.iter().chain(body).for_each(|kernel| add_written(program, kernel, written));
    }
    let mut found = Vec::new();
    for part in kernel.parts() {
        for store in &part.stores {
            let guards = written.zeros(part.exprs, store.value).into_iter();
            let guards: Vec<Guard> = guards.filter_map(|g| over_dims(&g, &store.access)).collect();
            let bounded = is_bounded(part.exprs, store.value, &|id| written.bounded.contains(&id));
            let masked = written.masked_by(part.exprs, store);
            found.push((store.buffer, guards, bounded, masked));
        }
    }
    for (buffer, guards, bounded, masked) in found {
        if program.buffer(buffer).class != Class::Temp {
            continue;
        }
        let is_first = !written.support.contains_key(&buffer);
        if is_first && bounded {
            written.bounded.insert(buffer);
        } else if !bounded {
            written.bounded.remove(&buffer);
        }
        let of_all = written.support.entry(buffer).or_insert_with(|| guards.clone());
        of_all.retain(|guard| guards.contains(guard));
        let of_all = written.masked.entry(buffer).or_insert(masked);
        *of_all = of_all.filter(|_| *of_all == masked);
    }
}

impl Written {
    /// See [`Regions::masked`].
    fn masked(&self, exprs: &Exprs, id: ExprId) -> Option<f64> {
        match exprs.get(id) {
            Expr::Const(_) | Expr::Inside(_) => None,
            Expr::Load { lookups, .. } if !lookups.is_empty() => None,
            _ if exprs.dtype(id) == DType::Bool => Some(0.0),
            Expr::Load { buffer, .. } => *self.masked.get(buffer)?,
            _ => None,
        }
    }

    /// What is stored where something is masked that differs along the last dim of the store.
    fn masked_by(&self, exprs: &Exprs, store: &Store) -> Option<f64> {
        let axis = store.access.coords.last()?.as_axis()?;
        let differs = |id: ExprId| {
            exprs.reachable([id]).into_iter().any(|id| match exprs.get(id) {
                Expr::Axis(own) => *own == axis,
                Expr::Inside(guard) => guard.index.uses(axis),
                Expr::Load { access, .. } => access.uses(axis),
                _ => false,
            })
        };
        let stored = |mask: ExprId| {
            let masked = self.masked(exprs, mask).filter(|_| differs(mask))?;
            let known = |id, _: &Expr| (id == mask).then_some(masked);
            let values = fixed_values(exprs, known, |id| self.bounded.contains(&id));
            values[store.value.0 as usize]
        };
        exprs.reachable([store.value]).into_iter().filter(|&id| id != store.value).find_map(stored)
    }

    /// The conditions where one of which fails a value is 0.
    fn zeros(&self, exprs: &Exprs, value: ExprId) -> Vec<Guard> {
        let mut guards = conditions(exprs, value, &self.support);
        guards.retain(|guard| {
            let known = |_, expr: &Expr| outside(guard, expr, &self.support);
            let values = fixed_values(exprs, known, |id| self.bounded.contains(&id));
            values[value.0 as usize] == Some(0.0)
        });
        guards
    }
}

/// The conditions that a value may depend on.
fn conditions(exprs: &Exprs, value: ExprId, support: &Conditions) -> Vec<Guard> {
    let mut found = Vec::new();
    for id in exprs.reachable([value]) {
        match exprs.get(id) {
            Expr::Inside(guard) => found.push(guard.clone()),
            Expr::Load { buffer, access, .. } => {
                found.extend(access.guards.iter().cloned());
                found.extend(seen_through(support, *buffer, access));
            }
            _ => {}
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The value of a load or condition where `guard` fails, if it is fixed there.
fn outside(guard: &Guard, expr: &Expr, support: &Conditions) -> Option<f64> {
    match expr {
        Expr::Inside(own) => (own == guard).then_some(0.0),
        Expr::Load { access, fill, .. } if access.guards.contains(guard) => Some(fill.value()),
        Expr::Load { buffer, access, .. } => {
            seen_through(support, *buffer, access).contains(guard).then_some(0.0)
        }
        _ => None,
    }
}

/// By expression: its value, if it is the same wherever some condition fails; `known` gives those that
/// loads and conditions have there, and `bounded` says whose elements are at least some finite constant. What data
/// decides is taken for finite.
pub fn fixed_values(
    exprs: &Exprs,
    known: impl Fn(ExprId, &Expr) -> Option<f64>,
    bounded: impl Fn(BufferId) -> bool,
) -> Vec<Option<f64>> {
    let is_bounded = |id: &ExprId| is_bounded(exprs, *id, &bounded);
    let mut values: Vec<Option<f64>> = Vec::with_capacity(exprs.len());
    for (id, expr) in exprs.iter() {
        let of = |id: &ExprId| values[id.0 as usize];
        let found = || match expr {
            Expr::Const(scalar) => Some(scalar.value()),
            Expr::Unary(op, x) => of(x).map(|value| op.eval(exprs.dtype(*x), value)),
            Expr::Binary(op, a, b) => match (of(a), of(b)) {
                (Some(x), Some(y)) => Some(op.eval(exprs.dtype(*a), x, y)),
                (x, y) => absorbed(*op, (x, is_bounded(a)), (y, is_bounded(b))),
            },
            Expr::Select(condition, a, b) => match of(condition) {
                Some(0.0) => of(b),
                Some(_) => of(a),
                None => of(a).filter(|value| Some(*value) == of(b)),
            },
            Expr::Cast(dtype, x) => of(x).map(|value| crate::cast(*dtype, value)),
            Expr::Inside(_) | Expr::Load { .. } | Expr::Extent(..) => None,
            Expr::Axis(_) | Expr::Folded(_) | Expr::Random { .. } => None,
        };
        let value = known(id, expr).or_else(found);
        values.push(value);
    }
    values
}

/// What an operation gives, whatever the operand is whose value is not fixed: it is not infinitely
/// small if it is bounded.
fn absorbed(
    op: BinaryOp,
    (a, a_is_bounded): (Option<f64>, bool),
    (b, b_is_bounded): (Option<f64>, bool),
) -> Option<f64> {
    let lowest = |x: Option<f64>| x == Some(f64::NEG_INFINITY);
    match (op, a, b) {
        (BinaryOp::Mul | BinaryOp::And, Some(0.0), _) => Some(0.0),
        (BinaryOp::Mul | BinaryOp::And, _, Some(0.0)) => Some(0.0),
        (BinaryOp::Div, Some(0.0), _) => Some(0.0),
        (BinaryOp::Add | BinaryOp::Sub, a, _) if lowest(a) && b_is_bounded => a,
        (BinaryOp::Add, _, b) if lowest(b) && a_is_bounded => b,
        _ => None,
    }
}

/// Whether a value is at least some finite constant.
fn is_bounded(exprs: &Exprs, id: ExprId, bounded: &dyn Fn(BufferId) -> bool) -> bool {
    let finite = |id: &ExprId| matches!(exprs.get(*id), Expr::Const(x) if x.value().is_finite());
    match exprs.get(id) {
        Expr::Binary(BinaryOp::Max, a, b) => finite(a) || finite(b),
        Expr::Load { buffer, fill, .. } => bounded(*buffer) && fill.value().is_finite(),
        _ => finite(&id),
    }
}
