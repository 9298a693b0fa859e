//! A group of kernels, mostly one: how it is scheduled, and the launches that compute it.

use super::PtxTarget;
use crate::device::Work;
use crate::emit::contract::{direct, finish, pack, tiled};
use crate::emit::writer::{Given, Writer, Written};
use crate::emit::{attention, check, copy, gradient, map, row, scatter};
use crate::group::Groups;
use crate::place::{Domain, bound, destination};
use crate::schedule::THREADS;
use crate::schedule::attention::Attention;
use crate::schedule::contract::{ContractSchedule, PARTS};
use crate::schedule::gradient::Gradient;
use crate::schedule::map::MapSchedule;
use crate::schedule::row::{Phase, RowSchedule};
use crate::schedule::scatter::ScatterSchedule;
use dlc_kernel::plan::Aliases;
use dlc_kernel::{BufferId, BuildError, Form, Kernel, Program, ScatterMode, Segment, Step, Store};

/// Kernels of a program that are computed together, while they are written.
#[derive(Clone, Copy, Debug)]
pub struct Site<'p> {
    /// The program.
    pub program: &'p Program,
    /// The kernels.
    pub kernels: &'p [Kernel],
    /// The groups of the entry.
    pub groups: &'p Groups,
    /// Which buffers live in which others.
    pub aliases: &'p Aliases,
    /// So many loops are around it.
    pub loops: usize,
    /// Whether they do nothing once there is an error.
    pub commits: bool,
    /// What for.
    pub target: PtxTarget,
}

/// How several kernels are computed by one launch.
#[allow(clippy::large_enum_variant, reason = "one at a time is made and taken apart")]
enum Together<'p> {
    Attention(Attention<'p>),
    Gradient(Gradient<'p>),
}

/// A launch before anything has a place in memory.
#[derive(Clone, Debug)]
pub struct Piece<'p> {
    /// The kernel that it computes or helps to compute, which is no loop; of several, the last.
    pub kernel: &'p Kernel,
    /// The code.
    pub written: Written,
    /// Bytes of each of the kernel's workspaces.
    pub workspaces: Vec<u64>,
}

/// The largest buffer, in elements: offsets have 32 bits.
const MAX_ELEMENTS: u64 = 1 << 31;

impl<'p> Site<'p> {
    /// Refuses buffers whose offsets 32 bits do not hold.
    pub fn refuse_large(&self) -> Result<(), BuildError> {
        for id in self.buffers() {
            let buffer = self.program.buffer(id);
            if buffer.elements().is_none_or(|n| n as u64 >= MAX_ELEMENTS) {
                let message = format!("`{}` has 2^31 elements or more", buffer.name);
                return Err(BuildError::Kernel { kernel: self.kernel().name.clone(), message });
            }
        }
        Ok(())
    }

    /// The kernel that the group is named after: the last one.
    fn kernel(&self) -> &'p Kernel {
        self.kernels.last().expect("a group has a kernel")
    }

    /// What the group reads of what others write, and then what it writes for others, each once.
    fn buffers(&self) -> Vec<BufferId> {
        let mut ids: Vec<BufferId> = self.kernels.iter().flat_map(Kernel::reads).collect();
        ids.extend(self.writes());
        let mut seen = rustc_hash::FxHashSet::default();
        ids.retain(|&id| !self.groups.inner.contains(&id) && seen.insert(id));
        ids
    }

    /// What the group writes for others.
    fn writes(&self) -> impl Iterator<Item = BufferId> {
        let writes = self.kernels.iter().flat_map(Kernel::writes);
        writes.filter(|id| !self.groups.inner.contains(id))
    }

    /// How a group of several kernels is computed; `None` if it is one.
    fn together(&self) -> Option<Together<'p>> {
        let (program, math) = (self.program, self.target.math);
        let attention = match self.kernels {
            [_] => return None,
            [scores, weights, values] => Attention::new(program, [scores, weights, values], math),
            _ => None,
        };
        let kernels: Vec<&Kernel> = self.kernels.iter().collect();
        let gradient = || Gradient::new(program, &self.groups.regions, &kernels, math);
        Some(match attention {
            Some(attention) => Together::Attention(attention),
            None => Together::Gradient(gradient().expect("kernels are grouped as one of both")),
        })
    }

    /// How it is computed, for people to read.
    pub fn schedule(&self) -> String {
        match self.together() {
            Some(Together::Attention(attention)) => return attention.to_string(),
            Some(Together::Gradient(gradient)) => return gradient.to_string(),
            None => {}
        }
        match &self.kernel().form {
            Form::Map { segments } => self.map_schedule(segments).to_string(),
            Form::Row { outer, inner, exprs, steps } => {
                RowSchedule::new(self.program, self.loops, [outer, inner], exprs, steps).to_string()
            }
            Form::Scatter { .. } => self.scatter_schedule().to_string(),
            Form::Contract { .. } => self.contract_schedule().to_string(),
            Form::Loop { steps, start, body } => {
                let inside = Site { loops: self.loops + 1, ..*self };
                let of = |site: &Site<'p>, kernel: &'p Kernel| {
                    format!("  {}:\n{}", kernel.name, site.of(kernel).schedule())
                };
                let start: String = start.iter().map(|kernel| of(self, kernel)).collect();
                let body: String = body.iter().map(|kernel| of(&inside, kernel)).collect();
                format!("{start}  {} steps of\n{body}", bound(steps))
            }
            form @ (Form::Reshape { .. } | Form::Check { .. }) => format!("  {}\n", form.name()),
        }
    }

    /// What computes it. A loop is its start, and its body again and again.
    pub fn work(&self) -> Vec<Work<Piece<'p>>> {
        let Form::Loop { steps, start, body } = &self.kernel().form else {
            return self.write();
        };
        let inside = Site { loops: self.loops + 1, ..*self };
        let start = start.iter().map(|kernel| self.of(kernel));
        let mut works: Vec<_> = start.flat_map(|site| site.work()).collect();
        let steps = bound(steps) as u32;
        if steps > 0 {
            let body = body.iter().map(|kernel| inside.of(kernel));
            let body: Vec<_> = body.flat_map(|site| site.work()).collect();
            works.extend((!body.is_empty()).then_some(Work::Repeat { steps, works: body }));
        }
        works
    }

    /// A kernel of the group's loop, alone.
    fn of(&self, kernel: &'p Kernel) -> Site<'p> {
        Site { kernels: std::slice::from_ref(kernel), ..*self }
    }

    fn write(&self) -> Vec<Work<Piece<'p>>> {
        let (launches, workspaces) = match &self.kernel().form {
            Form::Contract { stores, .. } if self.kernels.len() > 1 => {
                (vec![self.write_together(stores)], Vec::new())
            }
            Form::Map { segments } => {
                let schedule = self.map_schedule(segments);
                let launch = self.launch(schedule.blocks(), |w| map::write(w, &schedule));
                (launch.into_iter().collect(), Vec::new())
            }
            Form::Row { outer, inner, exprs, steps } => {
                let (program, axes) = (self.program, [&outer[..], inner]);
                let schedule = RowSchedule::new(program, self.loops, axes, exprs, steps);
                self.row(&schedule, steps)
            }
            Form::Contract { stores, .. } => self.contract(stores),
            Form::Scatter { .. } => (self.scatter(&self.scatter_schedule()), Vec::new()),
            Form::Reshape { src, dst } => {
                (self.reshape(*src, *dst).into_iter().collect(), Vec::new())
            }
            Form::Check { buffers } => (self.check(buffers), Vec::new()),
            Form::Loop { .. } => unreachable!("the kernels of a loop are written one by one"),
        };
        let piece =
            |written| Piece { kernel: self.kernel(), written, workspaces: workspaces.clone() };
        launches.into_iter().map(|written| Work::Once(piece(written))).collect()
    }

    fn map_schedule(&self, segments: &'p [Segment]) -> MapSchedule<'p> {
        MapSchedule::new(self.program, self.loops, segments)
    }

    fn scatter_schedule(&self) -> ScatterSchedule<'p> {
        let Form::Scatter { mode, axes, exprs, buffer, access, lookups, value } =
            &self.kernel().form
        else {
            panic!("a scatter is expected");
        };
        let to = (*buffer, access, lookups.as_slice());
        ScatterSchedule::new(self.program, *mode, (axes, self.loops), exprs, to, *value)
    }

    fn contract_schedule(&self) -> ContractSchedule<'p> {
        let Form::Contract { out, sums, reduce, exprs, lhs, rhs, stores } = &self.kernel().form
        else {
            panic!("a contraction is expected");
        };
        assert!(sums.is_empty(), "points have one sum, as lowering makes them");
        let axes = [&out[..], &reduce[..]].concat();
        let roots = [*lhs, *rhs].into_iter().chain(stores.iter().map(|s| s.value));
        let destinations = stores.iter().map(destination);
        let domain = Domain::new(self.program, (&axes, self.loops), exprs, roots, destinations);
        ContractSchedule::new(domain, out.len() - self.loops, [*lhs, *rhs], self.target.math)
    }

    fn write_together(&self, stores: &[Store]) -> Written {
        match self.together().expect("a group has several kernels") {
            Together::Attention(schedule) => {
                let grid = [schedule.plane.blocks(), 1, 1];
                self.launch_grid(grid, schedule.threads(), &[], |w| {
                    attention::write(w, &schedule, stores);
                })
            }
            Together::Gradient(schedule) => {
                let grid = [schedule.plane.blocks(), 1, 1];
                self.launch_grid(grid, schedule.threads(), &[], |w| gradient::write(w, &schedule))
            }
        }
    }

    fn contract(&self, stores: &[Store]) -> (Vec<Written>, Vec<u64>) {
        let schedule = self.contract_schedule();
        let threads = u64::from(THREADS);
        let blocks = (schedule.results() as u64).div_ceil(threads) as u32;
        let Some(tiling) = &schedule.tiling else {
            let launch = self.launch(blocks, |w| direct::write(w, &schedule, stores));
            return (launch.into_iter().collect(), Vec::new());
        };
        let workspaces = tiling.workspaces();
        let is_there = |&at: &usize| workspaces[at] > 0;
        let all: Vec<Given> =
            (0..workspaces.len()).filter(is_there).map(Given::Workspace).collect();
        let packed = [0, 1].into_iter().filter(is_there);
        let pack = |side: usize| {
            let grid = [tiling.all_panels(side), 1, 1];
            let write = |w: &mut Writer<'p>| pack::write(w, tiling, side);
            self.launch_grid(grid, THREADS, &[Given::Workspace(side)], write)
        };
        let mut launches: Vec<Written> = packed.map(pack).collect();
        launches.push(self.launch_grid(tiling.grid(), tiling.threads, &all, |w| {
            tiled::write(w, &schedule, stores);
        }));
        if is_there(&PARTS) {
            let parts = &[Given::Workspace(PARTS)];
            launches.push(self.launch_grid([blocks, 1, 1], THREADS, parts, |w| {
                finish::write_total(w, &schedule, stores);
            }));
        }
        (launches, workspaces.to_vec())
    }

    fn row(&self, schedule: &RowSchedule<'_>, steps: &[Step]) -> (Vec<Written>, Vec<u64>) {
        if schedule.blocks() == 0 {
            return (Vec::new(), Vec::new());
        }
        let is_shared = schedule.parts > 1;
        let workspace = is_shared.then(|| schedule.workspace(steps.len()));
        let more: &[Given] = if is_shared { &[Given::Workspace(0)] } else { &[] };
        let launch = |phase: &Phase| {
            let grid = [schedule.blocks(), phase.parts, 1];
            let write = |w: &mut Writer<'p>| row::write(w, schedule, steps, phase);
            self.launch_grid(grid, THREADS, more, write)
        };
        let launches = schedule.phases(steps).iter().map(launch).collect();
        (launches, workspace.into_iter().collect())
    }

    fn scatter(&self, schedule: &ScatterSchedule<'_>) -> Vec<Written> {
        let cleared = if schedule.mode == ScatterMode::Add { schedule.elements } else { 0 };
        let clear = self.launch(scatter::clear_blocks(cleared), |w| scatter::clear(w, schedule));
        let grid = [schedule.blocks(), schedule.shares, 1];
        let write = |w: &mut Writer<'p>| scatter::write(w, schedule);
        let update = (grid[0] > 0).then(|| self.launch_grid(grid, THREADS, &[], write));
        clear.into_iter().chain(update).collect()
    }

    fn check(&self, buffers: &[BufferId]) -> Vec<Written> {
        let launch = |(what, &buffer): (usize, &BufferId)| {
            let elements = self.elements(buffer);
            let blocks = check::blocks(elements);
            let write = |w: &mut Writer<'p>| check::write(w, buffer, what as u32, elements, blocks);
            let launch = self.launch(blocks, write)?;
            Some(Written { checks: Some(buffer), ..launch })
        };
        buffers.iter().enumerate().filter_map(launch).collect()
    }

    fn elements(&self, buffer: BufferId) -> u64 {
        self.program.buffer(buffer).elements().expect("sizes are bound") as u64
    }

    /// The buffer whose storage another has.
    fn root(&self, id: BufferId) -> BufferId {
        self.aliases.get(&id).copied().unwrap_or(id)
    }

    fn reshape(&self, src: BufferId, dst: BufferId) -> Option<Written> {
        let bytes = self.elements(src) * self.program.buffer(src).dtype.bytes() as u64;
        if self.root(src) == self.root(dst) {
            return None;
        }
        self.launch(copy::blocks(bytes), |w| copy::write(w, src, dst, bytes))
    }

    /// One launch of so many blocks, none if there are none.
    fn launch(&self, blocks: u32, write: impl FnOnce(&mut Writer<'p>)) -> Option<Written> {
        let grid = [blocks, 1, 1];
        (blocks > 0).then(|| self.launch_grid(grid, THREADS, &[], write))
    }

    /// One launch; `more` is given besides what every kernel of this form is.
    fn launch_grid(
        &self,
        grid: [u32; 3],
        threads: u32,
        more: &[Given],
        write: impl FnOnce(&mut Writer<'p>),
    ) -> Written {
        let mut given = self.given();
        given.extend(more);
        // What is read may lie where something is written.
        let written: Vec<BufferId> = self.writes().map(|id| self.root(id)).collect();
        let reads = self.kernels.iter().flat_map(Kernel::reads);
        let overwritten = reads.filter(|&id| written.contains(&self.root(id)));
        let mut w = Writer::new(self.program, &given, overwritten.collect());
        if self.commits {
            w.unless_failed(write);
        } else {
            write(&mut w);
        }
        w.finish(threads, grid)
    }

    fn given(&self) -> Vec<Given> {
        let mut given: Vec<Given> = self.buffers().into_iter().map(Given::Buffer).collect();
        let may_fail = self.kernels.iter().any(Kernel::may_fail);
        if may_fail || self.commits {
            given.push(Given::Error);
        }
        if may_fail {
            given.push(Given::Launch);
        }
        given.extend((0..self.loops).map(Given::Step));
        given
    }
}
