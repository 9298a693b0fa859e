//! The rules about where a kernel writes: inside, every element at most once.

use super::kernel::{Node, stored_type};
use super::{Broken, Rule, require};
use crate::{Access, BufferId, Form, Index, Kernel, Part, Program, ScatterMode, Size, Store};

/// Checks one store of a part by itself.
pub(super) fn check(program: &Program, part: &Part<'_>, store: &Store) -> Result<(), Broken> {
    let buffer = program.buffer(store.buffer);
    Node { program, part }.access(buffer, &store.access, &[])?;
    stored_type(buffer, part.exprs.dtype(store.value))?;
    let plain = store.access.guards.is_empty() && store.access.coords.iter().all(|c| c.div == 1);
    require(plain, Rule::Inside, || format!("the store to `{}` is conditional", buffer.name))?;
    if is_empty(&part.axes) {
        return Ok(());
    }
    for (index, extent) in store.access.coords.iter().zip(&buffer.shape) {
        let known = index.range(&part.axes).is_some() && extent.as_const().is_some();
        let inside = !known || index.is_inside(&part.axes, extent);
        require(inside, Rule::Inside, || {
            format!("{index} leaves 0..{extent} of `{}`", buffer.name)
        })?;
    }
    let once = distinct(&store.access, &part.axes);
    require(once, Rule::Once, || format!("points share an element of `{}`", buffer.name))
}

/// Checks that no two stores of a kernel meet.
pub(super) fn written_once(program: &Program, parts: &[Part<'_>]) -> Result<(), Broken> {
    let mut stores = Vec::new();
    for part in parts.iter().filter(|p| !is_empty(&p.axes)) {
        stores.extend(part.stores.iter().map(|s| (s.buffer, &s.access, &part.axes[..])));
    }
    stores.sort_by_key(|(buffer, ..)| *buffer);
    for same in stores.chunk_by(|a, b| a.0 == b.0) {
        for (k, (id, access, axes)) in same.iter().enumerate() {
            let meets = |other: &&(_, &Access, &[Size])| !apart(access, axes, other.1, other.2);
            let name = &program.buffer(*id).name;
            let alone = same[..k].iter().find(meets).is_none();
            require(alone, Rule::Once, || format!("two stores may meet in `{name}`"))?;
        }
    }
    Ok(())
}

/// Whether a verified kernel writes every element of a buffer, as far as sizes are known.
pub(super) fn writes_whole(program: &Program, kernel: &Kernel, id: BufferId) -> bool {
    if matches!(kernel.form, Form::Reshape { .. }) || scatters(kernel, id) {
        return true;
    }
    let mut written = Size::ZERO;
    for part in kernel.parts() {
        let stores = part.stores.iter().filter(|s| s.buffer == id).count();
        written = written + Size::from(stores) * part.axes.iter().cloned().product();
    }
    let elements: Size = program.buffer(id).shape.iter().cloned().product();
    written == elements || written.as_const().is_none() || elements.as_const().is_none()
}

/// Whether a scatter-add writes a buffer, in loops of any depth: it sets all of it to 0.
fn scatters(kernel: &Kernel, id: BufferId) -> bool {
    match &kernel.form {
        Form::Scatter { mode: ScatterMode::Add, buffer, .. } => *buffer == id,
        Form::Loop { start, body, .. } => start.iter().chain(body).any(|k| scatters(k, id)),
        _ => false,
    }
}

fn is_empty(axes: &[Size]) -> bool {
    axes.contains(&Size::ZERO)
}

/// Whether distinct points of `axes` have distinct coordinates. Coordinates determine axes one
/// after the other: a coordinate determines those of its axes that are not yet known if their
/// coefficients grow fast enough, as the digits of a number do.
fn distinct(access: &Access, axes: &[Size]) -> bool {
    let mut known: Vec<bool> = axes.iter().map(|n| *n == Size::ONE).collect();
    loop {
        let before = known.clone();
        access.coords.iter().for_each(|index| determine(index, axes, &mut known));
        if known.iter().all(|&k| k) {
            return true;
        }
        if known == before {
            return false;
        }
    }
}

fn determine(index: &Index, axes: &[Size], known: &mut [bool]) {
    let unknown = index.terms.iter().filter(|(axis, _)| !known[axis.0 as usize]);
    let mut digits: Vec<_> = unknown.map(|&(axis, coef)| (coef.unsigned_abs(), axis)).collect();
    digits.sort();
    let mut reach = Some(0u64);
    for &(coef, axis) in &digits {
        match reach {
            Some(below) if coef > below => {}
            _ => return,
        }
        let last = axes[axis.0 as usize].as_const().map(|n| n.unsigned_abs().saturating_sub(1));
        reach = last.and_then(|last| coef.checked_mul(last)?.checked_add(reach?));
    }
    digits.iter().for_each(|(_, axis)| known[axis.0 as usize] = true);
}

/// Whether two stores to one buffer never meet: in some dim their ranges, or their remainders by
/// a common stride, differ. Where sizes are not known, that is taken for granted.
fn apart(a: &Access, a_axes: &[Size], b: &Access, b_axes: &[Size]) -> bool {
    a.coords.iter().zip(&b.coords).any(|(x, y)| {
        let (Some(p), Some(q)) = (x.range(a_axes), y.range(b_axes)) else { return x != y };
        p.1 < q.0 || q.1 < p.0 || remainders_differ(x, y)
    })
}

fn remainders_differ(x: &Index, y: &Index) -> bool {
    let (Some(p), Some(q)) = (x.offset.as_const(), y.offset.as_const()) else { return false };
    let stride = x.terms.iter().chain(&y.terms).fold(0, |g, (_, coef)| crate::index::gcd(g, *coef));
    stride > 0 && p.rem_euclid(stride) != q.rem_euclid(stride)
}
