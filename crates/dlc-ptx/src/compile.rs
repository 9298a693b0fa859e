//! A program becomes a [`DeviceProgram`]: every kernel is scheduled and written, equal kernels
//! once, and everything gets its place in memory.

use crate::device::{Arg, DeviceEntry, DeviceProgram, ErrorRecord, Launch};
use crate::emit::contract::{direct, finish, tiled};
use crate::emit::writer::{Given, Writer, Written};
use crate::emit::{check, copy, map, row, scatter};
use crate::memory::Memory;
use crate::place::Domain;
use crate::schedule::THREADS;
use crate::schedule::contract::ContractSchedule;
use crate::schedule::map::MapSchedule;
use crate::schedule::row::RowSchedule;
use crate::schedule::scatter::ScatterSchedule;
use crate::{Flavour, Math, ir};
use dlc_kernel::plan::{self, Aliases};
use dlc_kernel::{BufferId, BuildError, Entry, Form, Kernel, Program, Step, Store};
use rustc_hash::FxHashMap;

/// Writes PTX of one flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtxTarget {
    /// What for.
    pub flavour: Flavour,
    /// How contractions multiply.
    pub math: Math,
}

/// The launches that compute one kernel of a program, and their workspaces.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// In order.
    pub launches: Vec<Written>,
    /// Bytes of each.
    pub workspaces: Vec<u64>,
}

/// A kernel of a program while it is written.
#[derive(Clone, Copy, Debug)]
pub struct Site<'p> {
    /// The program.
    pub program: &'p Program,
    /// The kernel.
    pub kernel: &'p Kernel,
    /// Whether it does nothing once there is an error.
    pub commits: bool,
    /// What for.
    pub target: PtxTarget,
}

/// The largest buffer, in elements: offsets have 32 bits.
const MAX_ELEMENTS: u64 = 1 << 31;

impl PtxTarget {
    /// Compiles all entries.
    ///
    /// # Errors
    /// [`BuildError::Kernel`] naming a kernel that is a loop, or reads or writes a buffer of 2^31
    /// elements or more; [`BuildError::Memory`] if no memory is large enough.
    pub fn compile(self, program: &Program) -> Result<DeviceProgram, BuildError> {
        let entries = program.entries.iter();
        let aliases: Vec<Aliases> =
            entries.clone().map(|e| plan::aliases(program, e, &[])).collect();
        let pieces =
            entries.zip(&aliases).map(|(entry, aliases)| self.entry(program, entry, aliases));
        let pieces = pieces.collect::<Result<Vec<Vec<Pieces>>, _>>()?;
        let workspaces: Vec<Vec<Vec<u64>>> = pieces
            .iter()
            .map(|kernels| kernels.iter().map(|p| p.workspaces.clone()).collect())
            .collect();
        let memory = Memory::plan(program, &aliases, &workspaces)?;
        let mut modules = Kernels::default();
        let mut entries = Vec::new();
        for ((entry, pieces), workspaces) in
            program.entries.iter().zip(pieces).zip(&memory.workspaces)
        {
            let mut launches = Vec::new();
            for ((kernel, pieces), places) in entry.kernels.iter().zip(pieces).zip(workspaces) {
                let bytes = pieces.workspaces.iter().copied();
                let workspaces: Vec<_> = places.iter().copied().zip(bytes).collect();
                for written in pieces.launches {
                    let at = launches.len();
                    launches.push(modules.launch(written, kernel, at, &memory, &workspaces));
                }
            }
            entries.push(device_entry(entry, launches));
        }
        if cfg!(debug_assertions) {
            ir::verify(&modules.module, self.flavour).unwrap_or_else(|e| panic!("{e}"));
        }
        Ok(DeviceProgram {
            flavour: self.flavour,
            math: self.math,
            module: modules.module,
            bytes: memory.bytes,
            error: memory.error,
            buffers: memory.buffers,
            entries,
        })
    }

    fn entry(
        self,
        program: &Program,
        entry: &Entry,
        aliases: &Aliases,
    ) -> Result<Vec<Pieces>, BuildError> {
        let write = |(at, kernel): (usize, &Kernel)| {
            let site = Site { program, kernel, commits: at >= entry.commit, target: self };
            site.refuse_large()?;
            site.refuse_loop()?;
            Ok(site.write(aliases))
        };
        entry.kernels.iter().enumerate().map(write).collect()
    }

    /// How every kernel would be computed, for people to read.
    pub fn schedule(self, program: &Program) -> String {
        let mut text = String::new();
        for entry in &program.entries {
            text += &format!("entry {} for {}, {}\n", entry.name, self.flavour, self.math);
            for (at, kernel) in entry.kernels.iter().enumerate() {
                text += &format!("{}:\n{}", kernel.name, self.schedule_of(program, entry, at));
            }
        }
        text
    }

    /// How the kernel at that position of an entry would be computed.
    pub fn schedule_of(self, program: &Program, entry: &Entry, at: usize) -> String {
        let kernel = &entry.kernels[at];
        Site { program, kernel, commits: at >= entry.commit, target: self }.schedule()
    }
}

fn device_entry(entry: &Entry, launches: Vec<Launch>) -> DeviceEntry {
    let positions = |ids: &[BufferId]| ids.iter().map(|id| id.0 as usize).collect();
    DeviceEntry {
        name: entry.name.clone(),
        inputs: positions(&entry.inputs),
        outputs: positions(&entry.outputs),
        launches,
    }
}

impl<'p> Site<'p> {
    /// Loops are launched by no code of this target yet.
    fn refuse_loop(&self) -> Result<(), BuildError> {
        match self.kernel.form {
            Form::Loop { .. } => Err(BuildError::Kernel {
                kernel: self.kernel.name.clone(),
                message: "loops over steps are not compiled to PTX".into(),
            }),
            _ => Ok(()),
        }
    }

    fn refuse_large(&self) -> Result<(), BuildError> {
        for id in self.kernel.reads().into_iter().chain(self.kernel.writes()) {
            let buffer = self.program.buffer(id);
            if buffer.elements().is_none_or(|n| n as u64 >= MAX_ELEMENTS) {
                let message = format!("`{}` has 2^31 elements or more", buffer.name);
                return Err(BuildError::Kernel { kernel: self.kernel.name.clone(), message });
            }
        }
        Ok(())
    }

    fn schedule(&self) -> String {
        match &self.kernel.form {
            Form::Map { segments } => MapSchedule::new(self.program, segments).to_string(),
            Form::Row { outer, inner, exprs, steps } => {
                RowSchedule::new(self.program, outer, inner, exprs, steps).to_string()
            }
            Form::ScatterAdd { axes, exprs, buffer, access, lookups, value } => {
                let to = (*buffer, access, lookups.as_slice());
                ScatterSchedule::new(self.program, axes, exprs, to, *value).to_string()
            }
            Form::Contract { .. } => self.contract_schedule().to_string(),
            form => format!("  {}\n", form.name()),
        }
    }

    fn write(&self, aliases: &Aliases) -> Pieces {
        let launches = match &self.kernel.form {
            Form::Map { segments } => {
                let schedule = MapSchedule::new(self.program, segments);
                self.launch(schedule.blocks(), |w| map::write(w, &schedule)).into_iter().collect()
            }
            Form::Row { outer, inner, exprs, steps } => {
                let schedule = RowSchedule::new(self.program, outer, inner, exprs, steps);
                return self.row(&schedule, steps);
            }
            Form::Contract { stores, .. } => return self.contract(stores),
            Form::ScatterAdd { axes, exprs, buffer, access, lookups, value } => {
                let to = (*buffer, access, lookups.as_slice());
                self.scatter(&ScatterSchedule::new(self.program, axes, exprs, to, *value))
            }
            Form::Reshape { src, dst } => self.reshape(*src, *dst, aliases).into_iter().collect(),
            Form::Check { buffers } => self.check(buffers),
            Form::Loop { .. } => unreachable!("loops are refused"),
        };
        Pieces { launches, workspaces: Vec::new() }
    }

    fn contract_schedule(&self) -> ContractSchedule<'p> {
        let Form::Contract { out, reduce, exprs, lhs, rhs, stores } = &self.kernel.form else {
            panic!("a contraction is expected");
        };
        let axes = [&out[..], &reduce[..]].concat();
        let roots = [*lhs, *rhs].into_iter().chain(stores.iter().map(|s| s.value));
        let domain = Domain::new(self.program, &axes, exprs, roots, stores);
        ContractSchedule::new(domain, out.len(), [*lhs, *rhs], self.target.math)
    }

    fn contract(&self, stores: &[Store]) -> Pieces {
        let schedule = self.contract_schedule();
        let threads = u64::from(THREADS);
        let blocks = (schedule.results() as u64).div_ceil(threads) as u32;
        let Some(tiling) = &schedule.tiling else {
            let launch = self.launch(blocks, |w| direct::write(w, &schedule, stores));
            return Pieces { launches: launch.into_iter().collect(), workspaces: Vec::new() };
        };
        let workspace: &[Given] = if tiling.split > 1 { &[Given::Workspace(0)] } else { &[] };
        let (grid, threads) = (tiling.grid(), tiling.threads());
        let mut launches = vec![self.launch_grid(grid, threads, workspace, |w| {
            tiled::write(w, &schedule, stores);
        })];
        if tiling.split > 1 {
            launches.push(self.launch_grid([blocks, 1, 1], THREADS, workspace, |w| {
                finish::write_total(w, &schedule, stores);
            }));
        }
        Pieces {
            launches,
            workspaces: (tiling.split > 1).then(|| tiling.workspace()).into_iter().collect(),
        }
    }

    fn row(&self, schedule: &RowSchedule<'_>, steps: &[Step]) -> Pieces {
        let mut pieces = Pieces::default();
        if schedule.blocks() == 0 {
            return pieces;
        }
        let is_shared = schedule.parts > 1;
        if is_shared {
            pieces.workspaces.push(schedule.workspace(steps.len()));
        }
        let more: &[Given] = if is_shared { &[Given::Workspace(0)] } else { &[] };
        for phase in &schedule.phases(steps) {
            let grid = [schedule.blocks(), phase.parts, 1];
            let write = |w: &mut Writer<'p>| row::write(w, schedule, steps, phase);
            pieces.launches.push(self.launch_grid(grid, THREADS, more, write));
        }
        pieces
    }

    fn scatter(&self, schedule: &ScatterSchedule<'_>) -> Vec<Written> {
        let (buffer, elements) = (schedule.place.buffer, schedule.elements());
        let clear = self.launch(scatter::clear_blocks(elements), |w| {
            scatter::clear(w, buffer, elements);
        });
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

    fn reshape(&self, src: BufferId, dst: BufferId, aliases: &Aliases) -> Option<Written> {
        let root = |id| aliases.get(&id).copied().unwrap_or(id);
        let bytes = self.elements(src) * self.program.buffer(src).dtype.bytes() as u64;
        if root(src) == root(dst) {
            return None;
        }
        self.launch(copy::blocks(bytes), |w| copy::write(w, src, dst, bytes))
    }

    /// One launch of so many blocks, none if there are none.
    pub fn launch(&self, blocks: u32, write: impl FnOnce(&mut Writer<'p>)) -> Option<Written> {
        let grid = [blocks, 1, 1];
        (blocks > 0).then(|| self.launch_grid(grid, THREADS, &[], write))
    }

    /// One launch; `more` is given besides what every kernel of this form is.
    pub fn launch_grid(
        &self,
        grid: [u32; 3],
        threads: u32,
        more: &[Given],
        write: impl FnOnce(&mut Writer<'p>),
    ) -> Written {
        let mut given = self.given();
        given.extend(more);
        let mut w = Writer::new(self.program, &given, self.kernel.writes());
        if self.commits {
            w.unless_failed(write);
        } else {
            write(&mut w);
        }
        w.finish(threads, grid)
    }

    fn given(&self) -> Vec<Given> {
        let mut ids = self.kernel.reads();
        ids.extend(self.kernel.writes());
        let mut seen = rustc_hash::FxHashSet::default();
        ids.retain(|&id| seen.insert(id));
        let mut given: Vec<Given> = ids.into_iter().map(Given::Buffer).collect();
        if self.kernel.may_fail() || self.commits {
            given.push(Given::Error);
        }
        if self.kernel.may_fail() {
            given.push(Given::Launch);
        }
        given
    }
}

/// The kernels written so far.
#[derive(Default)]
struct Kernels {
    module: ir::Module,
    /// By code without its name.
    known: FxHashMap<String, usize>,
    names: FxHashMap<String, u32>,
}

impl Kernels {
    fn launch(
        &mut self,
        written: Written,
        kernel: &Kernel,
        at: usize,
        memory: &Memory,
        workspaces: &[(u64, u64)],
    ) -> Launch {
        let arg = |given: &Given| match given {
            Given::Buffer(id) => {
                let buffer = &memory.buffers[id.0 as usize];
                Arg::Address { offset: buffer.offset, bytes: buffer.bytes() }
            }
            Given::Workspace(k) => {
                let (offset, bytes) = workspaces[*k];
                Arg::Address { offset, bytes }
            }
            Given::Error => Arg::Address { offset: memory.error, bytes: ErrorRecord::BYTES },
            Given::Launch => Arg::Word(at as u32 + 1),
        };
        Launch {
            args: written.given.iter().map(arg).collect(),
            checks: written.checks.map(|id| memory.buffers[id.0 as usize].name.clone()),
            grid: written.grid,
            kernel: self.position(written.kernel, &kernel.name),
            name: kernel.name.clone(),
            origin: kernel.origin.clone(),
        }
    }

    /// Where the kernel is in the module; adds it if there is no equal one.
    fn position(&mut self, kernel: ir::Kernel, name: &str) -> usize {
        let code = kernel.to_string();
        if let Some(&known) = self.known.get(&code) {
            return known;
        }
        let count = self.names.entry(sanitized(name)).or_default();
        *count += 1;
        let name = match count {
            1 => sanitized(name),
            n => format!("{}__{n}", sanitized(name)),
        };
        let position = self.module.kernels.len();
        self.known.insert(code, position);
        self.module.kernels.push(ir::Kernel { name, ..kernel });
        position
    }
}

/// A name that PTX takes: ASCII letters, digits and `_`.
fn sanitized(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("k_{}", name.chars().map(keep).collect::<String>())
}
