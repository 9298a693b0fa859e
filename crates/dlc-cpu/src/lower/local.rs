//! Temporaries that live within a step of loops, and steps that need no others.

use dlc_kernel::place::extents;
use dlc_kernel::plan::Aliases;
use dlc_kernel::{Access, Axis, BufferId, Class, Entry, Form, Kernel, Part, Program, Step};
use rustc_hash::FxHashMap;

/// Where a buffer is used, as far as it is known.
#[derive(Clone, PartialEq, Eq)]
enum Use {
    /// In the body of one loop, by the number of the loop, at the very step of all loops around it.
    Within(usize, usize),
    /// In several places, or across steps.
    Beyond,
}

/// By kernel of an entry whose steps read nothing that other steps write: how many they are.
pub(super) fn independent_steps(
    entry: &Entry,
    local: &FxHashMap<BufferId, u64>,
) -> FxHashMap<usize, i64> {
    let steps = |(at, kernel): (usize, &Kernel)| {
        let Form::Loop { steps, .. } = &kernel.form else { return None };
        let read: Vec<BufferId> =
            kernel.parts().iter().flat_map(Part::loads).map(|l| l.0).collect();
        let stays = |id: &BufferId| local.contains_key(id) || !read.contains(id);
        let is_free = !kernel.may_fail() && kernel.writes().iter().all(stays);
        is_free.then(|| Some((at, steps.as_const()?)))?
    };
    entry.kernels.iter().enumerate().filter_map(steps).collect()
}

/// Lets results of rows in loops take over what the rows were read from, where nobody needs that any
/// more: both live within a step, and a point is read before it is written.
pub(super) fn overwrite(
    program: &Program,
    entry: &Entry,
    local: &FxHashMap<BufferId, u64>,
    aliases: &mut Aliases,
) {
    for body in bodies(&entry.kernels) {
        for (at, kernel) in body.iter().enumerate() {
            let Form::Row { steps, .. } = &kernel.form else { continue };
            let [earlier @ .., Step::StoreEach(store)] = &steps[..] else { continue };
            let alone = !earlier.iter().any(|step| matches!(step, Step::StoreEach(_)));
            let parts = kernel.parts();
            let loads: Vec<_> = parts.iter().flat_map(Part::loads).collect();
            let to = program.buffer(store.buffer);
            let fits = |id: &BufferId| {
                let from = program.buffer(*id);
                let mut own = loads.iter().filter(|load| load.0 == *id);
                let dies = !body[at + 1..].iter().any(|later| later.reads().contains(id));
                dies && local.contains_key(id)
                    && (&from.shape, from.dtype) == (&to.shape, to.dtype)
                    && own.all(|load| load.1.coords == store.access.coords)
            };
            let over = kernel.reads().into_iter().find(fits);
            if let Some(over) = over.filter(|_| alone && local.contains_key(&store.buffer)) {
                let root = aliases.get(&over).copied().unwrap_or(over);
                aliases.insert(store.buffer, root);
            }
        }
    }
}

/// The bodies of loops without loops in them.
fn bodies(kernels: &[Kernel]) -> Vec<&[Kernel]> {
    let inner = kernels.iter().flat_map(|kernel| match &kernel.form {
        Form::Loop { body, .. } => match bodies(body) {
            inner if inner.is_empty() => vec![&body[..]],
            inner => inner,
        },
        _ => Vec::new(),
    });
    inner.collect()
}

/// The bytes of a step of those temporaries of an entry that one loop's body writes and reads, and
/// nobody else, and never at another step.
pub(super) fn local_bytes(
    program: &Program,
    entry: &Entry,
    aliases: &Aliases,
) -> FxHashMap<BufferId, u64> {
    let mut walk = Walk { uses: FxHashMap::default(), loops: 0 };
    entry.kernels.iter().for_each(|kernel| walk.kernel(kernel, (0, 0)));
    let shared = entry.outputs.iter().chain(aliases.keys()).chain(aliases.values());
    shared.for_each(|id| _ = walk.uses.remove(id));
    let step = |(id, of): (BufferId, Use)| {
        let Use::Within(_, depth) = of else { return None };
        let buffer = program.buffer(id);
        let shape = extents(&buffer.shape).ok()?;
        let elements: i64 = shape[depth..].iter().product();
        let steps: i64 = shape[..depth].iter().product();
        let bytes = elements as u64 * buffer.dtype.bytes() as u64;
        (buffer.class == Class::Temp && steps > 1).then_some((id, bytes))
    };
    walk.uses.into_iter().filter_map(step).collect()
}

struct Walk {
    uses: FxHashMap<BufferId, Use>,
    /// How many have been met.
    loops: usize,
}

impl Walk {
    /// Notes the uses of a kernel in a loop of that number, which is in so many.
    fn kernel(&mut self, kernel: &Kernel, (within, depth): (usize, usize)) {
        if let Form::Loop { start, body, .. } = &kernel.form {
            start.iter().for_each(|kernel| self.kernel(kernel, (within, depth)));
            self.loops += 1;
            let own = self.loops;
            body.iter().for_each(|kernel| self.kernel(kernel, (own, depth + 1)));
            return;
        }
        let mut placed = Vec::new();
        let parts = kernel.parts();
        for part in &parts {
            placed.extend(part.stores.iter().map(|s| (s.buffer, &s.access)));
            placed.extend(part.loads().map(|(id, access, _)| (id, access)));
        }
        let stays = |access: &Access| {
            let mut steps = (0..depth).map(|at| access.coords.get(at)?.as_axis());
            (0u32..).zip(&mut steps).all(|(at, axis)| axis == Some(Axis(at)))
        };
        for id in kernel.reads().into_iter().chain(kernel.writes()) {
            let mut own = placed.iter().filter(|(buffer, _)| *buffer == id).peekable();
            let local = depth > 0 && own.peek().is_some() && own.all(|(_, access)| stays(access));
            let new = if local { Use::Within(within, depth) } else { Use::Beyond };
            let known = self.uses.entry(id).or_insert_with(|| new.clone());
            if *known != new {
                *known = Use::Beyond;
            }
        }
    }
}
