//! Rooms: where temporaries are that need not have all of their elements at once.
//!
//! What lives within a step of loops has the room of one step. What a loop carries has the room of one
//! value, if steps write it in place and nobody reads any but the last later on. The coordinates that
//! share a room have a stride of 0, so no code knows of it.

use crate::lower::padded;
use dlc_kernel::place::{extents, strides};
use dlc_kernel::plan::Aliases;
use dlc_kernel::{
    Access, Axis, Buffer, BufferId, Class, Entry, Expr, Form, Index, Kernel, Part, Program, Step,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// The room of a temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many loops it lives within a step of: the first coordinates are theirs.
    pub loops: usize,
    /// How many dims, from the first on, share it: those, and the one along which a loop carries.
    pub dims: usize,
    /// Its size.
    pub bytes: u64,
}

/// By temporary that has one.
pub type Rooms = FxHashMap<BufferId, Room>;

/// Those of an entry's temporaries.
pub fn rooms(program: &Program, entry: &Entry, aliases: &Aliases) -> Rooms {
    if !entry.kernels.iter().any(|kernel| matches!(kernel.form, Form::Loop { .. })) {
        return Rooms::default();
    }
    let mut walk = Walk::default();
    entry.kernels.iter().for_each(|kernel| walk.kernel(kernel, &Loops::new()));
    let shared = entry.outputs.iter().chain(aliases.keys()).chain(aliases.values());
    shared.for_each(|id| _ = walk.uses.remove(id));
    let room = |(id, uses): (BufferId, Vec<Use>)| Some((id, room(program.buffer(id), &uses)?));
    walk.uses.into_iter().filter_map(room).collect()
}

/// The elements of a buffer from one step of every dim to the next.
///
/// # Errors
/// If a size is not bound.
pub fn strides_in(rooms: &Rooms, id: BufferId, shape: &[i64]) -> SmallVec<[i64; 4]> {
    let mut strides = strides(shape);
    let shared = rooms.get(&id).map_or(0, |room| room.dims);
    strides[..shared].fill(0);
    strides
}

/// By kernel of an entry that is a loop whose steps read nothing that other steps write: how many steps.
pub fn independent_steps(entry: &Entry, rooms: &Rooms) -> FxHashMap<usize, i64> {
    let steps = |(at, kernel): (usize, &Kernel)| {
        let Form::Loop { steps, .. } = &kernel.form else { return None };
        let read: Vec<BufferId> =
            kernel.parts().iter().flat_map(Part::loads).map(|l| l.0).collect();
        let is_own = |id: &BufferId| rooms.get(id).is_some_and(|room| room.loops > 0);
        let stays = |id: &BufferId| is_own(id) || !read.contains(id);
        let is_free = !kernel.may_fail() && kernel.writes().iter().all(stays);
        is_free.then(|| Some((at, steps.as_const()?)))?
    };
    entry.kernels.iter().enumerate().filter_map(steps).collect()
}

/// Lets results of rows in loops take over what the rows were read from, where nobody needs that any
/// more: both live within a step, and a point is read before it is written.
pub fn overwrite(program: &Program, entry: &Entry, rooms: &Rooms, aliases: &mut Aliases) {
    for body in bodies(&entry.kernels) {
        for (at, kernel) in body.iter().enumerate() {
            let Form::Row { steps, .. } = &kernel.form else { continue };
            let [earlier @ .., Step::StoreEach(store)] = &steps[..] else { continue };
            let alone = !earlier.iter().any(|step| matches!(step, Step::StoreEach(_)));
            let parts = kernel.parts();
            let loads: Vec<_> = parts.iter().flat_map(Part::loads).collect();
            let Some(room) = rooms.get(&store.buffer).filter(|room| room.is_of_a_step()) else {
                continue;
            };
            let to = program.buffer(store.buffer);
            let fits = |id: &BufferId| {
                let from = program.buffer(*id);
                let mut own = loads.iter().filter(|load| load.0 == *id);
                let dies = !body[at + 1..].iter().any(|later| later.reads().contains(id));
                dies && rooms.get(id) == Some(room)
                    && (&from.shape, from.dtype) == (&to.shape, to.dtype)
                    && own.all(|load| load.1.coords == store.access.coords)
            };
            let over = kernel.reads().into_iter().find(fits);
            if let Some(over) = over.filter(|_| alone) {
                let root = aliases.get(&over).copied().unwrap_or(over);
                aliases.insert(store.buffer, root);
            }
        }
    }
}

impl Room {
    /// Bytes from one worker's to the next's, where workers have steps of their own.
    pub fn stride(&self) -> u64 {
        if self.loops > 0 { padded(self.bytes) } else { 0 }
    }

    /// Whether it is the room of a step, and not of what a loop carries.
    fn is_of_a_step(&self) -> bool {
        self.loops == self.dims
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

/// The loops around a kernel by number, outermost first.
type Loops = SmallVec<[usize; 4]>;

/// A load or a store.
struct Use<'p> {
    /// The loops around.
    loops: Loops,
    /// Which kernel and which part of it, in the order in which they run.
    part: (usize, usize),
    stores: bool,
    /// Where; `None` if it is not known, or all of it.
    access: Option<&'p Access>,
    /// Whether the kernel loads nothing of a point after it has stored there.
    loads_first: bool,
}

#[derive(Default)]
struct Walk<'p> {
    uses: FxHashMap<BufferId, Vec<Use<'p>>>,
    /// How many loops have been met.
    loops: usize,
    /// How many kernels.
    kernels: usize,
}

impl<'p> Walk<'p> {
    fn kernel(&mut self, kernel: &'p Kernel, around: &Loops) {
        if let Form::Loop { start, body, .. } = &kernel.form {
            start.iter().for_each(|kernel| self.kernel(kernel, around));
            self.loops += 1;
            let mut inside = around.clone();
            inside.push(self.loops);
            body.iter().for_each(|kernel| self.kernel(kernel, &inside));
            return;
        }
        self.kernels += 1;
        let loads_first = matches!(kernel.form, Form::Map { .. } | Form::Contract { .. });
        let mut placed: SmallVec<[BufferId; 8]> = SmallVec::new();
        for (at, part) in kernel.parts().into_iter().enumerate() {
            let part_of = (self.kernels, at);
            let mut note = |id: BufferId, access: &'p Access, stores: bool| {
                let (loops, access) = (around.clone(), Some(access));
                let own = Use { loops, part: part_of, stores, access, loads_first };
                self.uses.entry(id).or_default().push(own);
                placed.push(id);
            };
            part.stores.iter().for_each(|s| note(s.buffer, &s.access, true));
            for id in part.exprs.reachable(part.roots.iter().copied()) {
                if let Expr::Load { buffer, access, .. } = part.exprs.get(id) {
                    note(*buffer, access, false);
                }
            }
        }
        for id in kernel.reads().into_iter().chain(kernel.writes()) {
            if !placed.contains(&id) {
                let (loops, part) = (around.clone(), (self.kernels, 0));
                let whole = Use { loops, part, stores: true, access: None, loads_first };
                self.uses.entry(id).or_default().push(whole);
            }
        }
    }
}

impl Use<'_> {
    /// The coordinate along a dim.
    fn coord(&self, dim: usize) -> Option<&Index> {
        self.access?.coords.get(dim)
    }
}

/// The room of a buffer with these uses, if it can do with less than all of its elements need.
fn room(buffer: &Buffer, uses: &[Use]) -> Option<Room> {
    let shape = extents(&buffer.shape).ok()?;
    let first = &uses.first()?.loops;
    let is_within = |dim: &usize| {
        let axis = Some(Axis(*dim as u32));
        let same = |own: &Use| own.loops.get(*dim) == first.get(*dim);
        uses.iter().all(|own| same(own) && own.coord(*dim).is_some_and(|c| c.as_axis() == axis))
    };
    let loops = (0..first.len()).take_while(is_within).count();
    let dims = loops + usize::from(shape.len() > loops && is_carried(uses, loops, shape[loops]));
    let [steps, elements] = [&shape[..dims], &shape[dims..]].map(|n| n.iter().product::<i64>());
    let bytes = elements as u64 * buffer.dtype.bytes() as u64;
    (buffer.class == Class::Temp && steps > 1).then_some(Room { loops, dims, bytes })
}

/// Whether one loop carries a buffer along a dim of so many elements, in place: one kernel writes the next
/// value, whatever reads the old one runs before, or reads a point where it is written, and from outside
/// only the first value is written and the last one read.
fn is_carried(uses: &[Use], dim: usize, extent: i64) -> bool {
    let is_inside = |own: &&Use| own.loops.len() > dim;
    let mut stores = uses.iter().filter(is_inside).filter(|own| own.stores);
    let (Some(store), None) = (stores.next(), stores.next()) else { return false };
    let [now, next] = [0i64, 1].map(|offset| Index::affine([(dim as u32, 1)], offset));
    let along = |own: &Use, index: &Index| own.coord(dim) == Some(index);
    let is_in_place = |own: &Use| {
        let (Some(load), Some(store)) = (own.access, store.access) else { return false };
        let mut others = (0..store.coords.len()).filter(|&d| d != dim);
        own.loads_first && others.all(|d| load.coords[d] == store.coords[d])
    };
    let fits = |own: &Use| match own.part.cmp(&store.part) {
        _ if std::ptr::eq(own, store) => along(own, &next),
        _ if !is_inside(&own) && own.part < store.part => {
            own.stores && along(own, &Index::constant(0i64))
        }
        _ if !is_inside(&own) => !own.stores && along(own, &Index::constant(extent - 1)),
        _ if own.loops[dim] != store.loops[dim] => false,
        std::cmp::Ordering::Equal => along(own, &now) && is_in_place(own),
        // Parts of one kernel may run at the same time.
        _ if own.part.0 == store.part.0 => false,
        std::cmp::Ordering::Less => along(own, &now),
        std::cmp::Ordering::Greater => along(own, &next),
    };
    uses.iter().all(fits)
}
