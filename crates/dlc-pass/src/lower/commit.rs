//! The end of an entry: the check of loss and gradients, then whatever writes parameters and state.
//!
//! A kernel that serves only the next parameters and state, and cannot fail, moves behind the check;
//! so does what overwrites a part of a state in place, and what reads the state then. A map among
//! them writes a parameter in place, unless somebody still reads the old value; everything else is
//! written to a temporary and copied last.

use super::name::Names;
use crate::reads::identity;
use dlc_graph::Type;
use dlc_kernel::{
    Access, BufferId, Class, Expr, Exprs, Form, Kernel, Program, Scalar, ScatterMode, Segment,
    Store,
};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

/// `to` takes the value of `from` at the end of the call; both are one buffer where a kernel
/// writes it in place.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// A parameter or state.
    pub to: BufferId,
    /// Its next value.
    pub from: BufferId,
}

/// What happens at the end of an entry.
pub struct Plan {
    /// What is updated.
    pub updates: Vec<Update>,
    /// What must be finite.
    pub checked: Vec<BufferId>,
    /// What the caller receives.
    pub outputs: Vec<BufferId>,
}

/// Puts `kernels` in their final order; gives the position of the first that commits.
pub fn arrange(
    program: &mut Program,
    kernels: Vec<Kernel>,
    plan: &Plan,
    names: &mut Names,
) -> (Vec<Kernel>, usize) {
    let late = late(program, &kernels, plan);
    let (mut ordered, mut commits) = partition(kernels, &late);
    let mut copied: Vec<(BufferId, BufferId)> = Vec::new();
    for update in &plan.updates {
        let in_place = update.from == update.to;
        if in_place && makes_safely(&ordered, &commits, update.to) {
            continue;
        }
        let from = match in_place {
            true => move_to_temp(program, ordered.iter_mut().chain(&mut commits), update.to),
            false => snapshot(program, &mut ordered, update, plan, names),
        };
        copied.push((from, update.to));
    }
    if !plan.checked.is_empty() {
        let form = Form::Check { buffers: plan.checked.clone() };
        ordered.push(Kernel { name: names.unique("check"), origin: None, form });
    }
    if !copied.is_empty() {
        let form = copies(program, &copied);
        commits.push(Kernel { name: names.unique("commit"), origin: None, form });
    }
    let commit = ordered.len();
    ordered.append(&mut commits);
    (ordered, commit)
}

/// A map that copies whole buffers `(from, to)`.
pub fn copies(program: &Program, copies: &[(BufferId, BufferId)]) -> Form {
    let segment = |&(from, to): &(BufferId, BufferId)| {
        let buffer = program.buffer(from);
        let access = Access::new(identity(buffer.shape.len()));
        let mut exprs = Exprs::new();
        let (lookups, fill) = (SmallVec::new(), Scalar::new(buffer.dtype, 0.0));
        let value = exprs.add(Expr::Load { buffer: from, access: access.clone(), lookups, fill });
        Segment {
            axes: buffer.shape.clone(),
            exprs,
            stores: vec![Store { buffer: to, access, value }],
        }
    };
    Form::Map { segments: copies.iter().map(segment).collect() }
}

/// Which kernels cannot fail and serve updates alone, overwrite a state, or depend on those that do.
fn late(program: &Program, kernels: &[Kernel], plan: &Plan) -> Vec<bool> {
    let mut early: FxHashSet<BufferId> = plan.checked.iter().copied().collect();
    let mut late = vec![false; kernels.len()];
    let persists = |b: &BufferId| matches!(program.buffer(*b).class, Class::Param | Class::State);
    for (k, kernel) in kernels.iter().enumerate().rev() {
        let written = kernel.writes();
        let returned = written.iter().any(|b| plan.outputs.contains(b));
        late[k] = !kernel.may_fail()
            && !written.iter().any(|b| early.contains(b))
            && (!returned || written.iter().any(persists));
        if !late[k] {
            early.extend(kernel.reads());
        }
    }
    let mut written: FxHashSet<BufferId> = FxHashSet::default();
    for (late, kernel) in late.iter_mut().zip(kernels) {
        *late |= overwrites(kernel) || kernel.reads().iter().any(|id| written.contains(id));
        if *late {
            written.extend(kernel.writes());
        }
    }
    late
}

fn overwrites(kernel: &Kernel) -> bool {
    matches!(kernel.form, Form::Scatter { mode: ScatterMode::Overwrite, .. })
}

fn partition(kernels: Vec<Kernel>, late: &[bool]) -> (Vec<Kernel>, Vec<Kernel>) {
    let mut late = late.iter();
    kernels.into_iter().partition(|_| !late.next().expect("one flag for each kernel"))
}

/// Whether `target` is its own next value, or the kernel that stores it may: it runs after the
/// check, nobody reads the old value afterwards, and it reads it at the point of the store only. Of
/// what overwrites a part that is known.
fn makes_safely(ordered: &[Kernel], commits: &[Kernel], target: BufferId) -> bool {
    let stores = |kernel: &Kernel| kernel.writes().contains(&target);
    let Some(k) = commits.iter().position(stores) else { return !ordered.iter().any(stores) };
    if overwrites(&commits[k]) {
        return true;
    }
    let Form::Map { segments } = &commits[k].form else { return false };
    let own = segments.iter().all(|segment| {
        let store = segment.stores.iter().find(|s| s.buffer == target);
        loads(&segment.exprs, target).all(|access| store.is_some_and(|s| s.access == *access))
    });
    let later = commits[k + 1..].iter().any(|kernel| kernel.reads().contains(&target));
    own && !later
}

/// Lets the kernel that stores `target` store a temporary instead.
fn move_to_temp<'k>(
    program: &mut Program,
    kernels: impl Iterator<Item = &'k mut Kernel>,
    target: BufferId,
) -> BufferId {
    let temp = temp_like(program, target);
    for kernel in kernels {
        let Form::Map { segments } = &mut kernel.form else { continue };
        for store in segments.iter_mut().flat_map(|s| &mut s.stores) {
            if store.buffer == target {
                store.buffer = temp;
            }
        }
    }
    temp
}

/// Where the update's value is when the copies are made: a parameter that is itself updated is
/// saved first.
fn snapshot(
    program: &mut Program,
    ordered: &mut Vec<Kernel>,
    update: &Update,
    plan: &Plan,
    names: &mut Names,
) -> BufferId {
    if !plan.updates.iter().any(|u| u.to == update.from) {
        return update.from;
    }
    let temp = temp_like(program, update.from);
    let form = copies(program, &[(update.from, temp)]);
    ordered.push(Kernel { name: names.unique("save"), origin: None, form });
    temp
}

fn temp_like(program: &mut Program, buffer: BufferId) -> BufferId {
    let like = program.buffer(buffer);
    let (name, ty) = (format!("{}.next", like.name), Type::new(like.dtype, like.shape.clone()));
    super::add_buffer(program, &name, &ty, Class::Temp)
}

/// Where expressions read a buffer.
fn loads(exprs: &Exprs, of: BufferId) -> impl Iterator<Item = &Access> {
    exprs.iter().filter_map(move |(_, expr)| match expr {
        Expr::Load { buffer, access, .. } if *buffer == of => Some(access),
        _ => None,
    })
}
