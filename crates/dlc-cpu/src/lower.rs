//! From a program to everything a call needs, but for memory and addresses.
//!
//! The back end's pipeline: [`facts`], [`schedule`], plan, [`generate`]. What it makes is
//! machine code waiting to be compiled and a list of launches over offsets.

use crate::abi::ALIGNMENT;
use crate::beside::{self, Neighbours};
use crate::codegen::{self, Phase, When};
use crate::rooms::{self, Room, Rooms};
use crate::schedule::contract::Choices;
use crate::schedule::{Config, Schedule, Site, Workspace};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::place::extent;
use dlc_kernel::plan::{self, Aliases, Block};
use dlc_kernel::region::Regions;
use dlc_kernel::{BufferId, BuildError, Class, Entry, Form, Kernel, Program};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

/// The schedules of an entry's kernels.
pub struct ScheduledEntry<'p> {
    /// The entry.
    pub entry: &'p Entry,
    /// What holds of the entry's buffers.
    pub facts: &'p Facts,
    /// The kernels that are no loops, those in loops included.
    pub leaves: Vec<Leaf<'p>>,
    /// One for each leaf.
    pub schedules: Vec<Schedule<'p>>,
}

/// A kernel that is no loop.
#[derive(Clone, Debug)]
pub struct Leaf<'p> {
    /// The kernel.
    pub kernel: &'p Kernel,
    /// The position of the entry's kernel that it is, or is in.
    pub top: usize,
    /// The steps of the loops around it.
    pub loops: Vec<i64>,
}

/// The kernels of an entry that are no loops, in order.
fn leaves(entry: &Entry) -> Result<Vec<Leaf<'_>>, String> {
    let mut found = Vec::new();
    for (top, kernel) in entry.kernels.iter().enumerate() {
        add_leaves(kernel, top, &[], &mut found)?;
    }
    Ok(found)
}

fn add_leaves<'p>(
    kernel: &'p Kernel,
    top: usize,
    loops: &[i64],
    found: &mut Vec<Leaf<'p>>,
) -> Result<(), String> {
    let Form::Loop { steps, start, body } = &kernel.form else {
        found.push(Leaf { kernel, top, loops: loops.to_vec() });
        return Ok(());
    };
    let inner = [loops, &[extent(steps)?]].concat();
    start.iter().try_for_each(|kernel| add_leaves(kernel, top, loops, found))?;
    body.iter().try_for_each(|kernel| add_leaves(kernel, top, &inner, found))
}

/// What holds of the buffers and kernels of an entry.
pub struct Facts {
    /// Which buffers live in others' storage.
    pub aliases: Aliases,
    /// Parameters and state that the entry never writes, and temporaries computed from nothing else.
    pub fixed: FxHashSet<BufferId>,
    /// By kernel: whether it computes such temporaries, and so runs when parameters have changed.
    pub at_load: Vec<bool>,
    /// Which elements of temporaries matter.
    pub regions: Regions,
    /// By kernel that is a loop: what it writes.
    pub changing: FxHashMap<usize, FxHashSet<BufferId>>,
    /// Where temporaries are that need not have all of their elements at once.
    pub rooms: Rooms,
    /// By kernel that is a loop whose steps may run beside each other: how many they are.
    pub independent: FxHashMap<usize, i64>,
    /// Loops that may run at the same time.
    pub neighbours: Vec<Neighbours>,
}

impl Facts {
    /// Memory that is needed from one kernel to another, and while their neighbours run.
    fn alive(&self, bytes: u64, first: usize, last: usize) -> Block {
        let loops = self.neighbours.iter().map(|neighbours| &neighbours.loops);
        let around = |at: usize| loops.clone().find(|loops| loops.contains(&at));
        let first = around(first).map_or(first, |loops| loops.start);
        let last = around(last).map_or(last, |loops| loops.end - 1);
        Block { bytes, first, last }
    }

    /// What the schedules of the entry's kernels depend on.
    pub fn site<'p>(
        &'p self,
        program: &'p Program,
        config: Config,
        choices: &'p Choices,
    ) -> Site<'p> {
        Site {
            program,
            aliases: &self.aliases,
            rooms: &self.rooms,
            fixed: &self.fixed,
            regions: &self.regions,
            config,
            choices,
            steps: 0,
            changing: None,
        }
    }
}

/// Where the storage of a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the block that lives as long as the executable.
    Lasting(u64),
    /// In the arena of a call.
    Arena(u64),
}

/// The memory of an entry's calls.
pub struct ArenaPlan {
    /// By buffer that this entry uses, aliases included.
    pub places: FxHashMap<BufferId, Place>,
    /// By leaf: where its shared workspace and that of worker 0 are.
    pub workspaces: Vec<(u64, u64)>,
    /// Bytes of the arena.
    pub bytes: u64,
}

/// The storage of parameters, state and run-time scalars, and of what is computed from them when they
/// change.
pub struct LastingPlan {
    /// By buffer.
    pub offsets: FxHashMap<BufferId, u64>,
    /// By entry and leaf: where its lasting workspace is.
    pub workspaces: Vec<Vec<u64>>,
    /// Bytes in all.
    pub bytes: u64,
}

/// What holds of the buffers of every entry.
pub fn facts(program: &Program) -> Vec<Facts> {
    program.entries.par_iter().map(|entry| facts_of(program, entry)).collect()
}

/// What holds of the buffers of an entry.
pub fn facts_of(program: &Program, entry: &Entry) -> Facts {
    let Fixed { buffers: fixed, at_load } = Fixed::of(program, entry);
    let in_calls = entry.kernels.iter().zip(&at_load).filter(|(_, at_load)| !**at_load);
    let read = in_calls.flat_map(|(kernel, _)| kernel.reads());
    let kept: Vec<BufferId> = read.filter(|id| fixed.contains(id)).collect();
    let loops = entry.kernels.iter().enumerate();
    let loops = loops.filter(|(_, k)| matches!(k.form, Form::Loop { .. }));
    let changing = loops.map(|(at, k)| (at, k.writes().into_iter().collect())).collect();
    let mut aliases = plan::aliases(program, entry, &kept);
    let rooms = rooms::rooms(program, entry, &aliases);
    rooms::overwrite(program, entry, &rooms, &mut aliases);
    let independent = rooms::independent_steps(entry, &rooms);
    let neighbours = beside::neighbours(entry, &at_load, &aliases, &independent);
    let regions = Regions::of(program, entry);
    Facts { aliases, fixed, at_load, regions, changing, rooms, independent, neighbours }
}

/// What depends on nothing but parameters that an entry leaves as they are.
pub struct Fixed {
    /// These parameters, and what is computed from them alone.
    pub buffers: FxHashSet<BufferId>,
    /// By kernel: whether it computes such a thing.
    pub at_load: Vec<bool>,
}

impl Fixed {
    /// That of an entry.
    pub fn of(program: &Program, entry: &Entry) -> Fixed {
        let mut buffers = fixed_parameters(program, entry);
        let own =
            |id: &BufferId| program.buffer(*id).class == Class::Temp && !entry.outputs.contains(id);
        let is_fixed = |kernel: &Kernel| {
            let reads = kernel.reads();
            let depends = !reads.is_empty() && reads.iter().all(|id| buffers.contains(id));
            let is_fixed = depends && kernel.writes().iter().all(own) && !kernel.may_fail();
            if is_fixed {
                buffers.extend(kernel.writes());
            }
            is_fixed
        };
        let at_load = entry.kernels.iter().map(is_fixed).collect();
        Fixed { buffers, at_load }
    }
}

fn fixed_parameters(program: &Program, entry: &Entry) -> FxHashSet<BufferId> {
    let written: FxHashSet<BufferId> = entry.kernels.iter().flat_map(Kernel::writes).collect();
    let all = (0..program.buffers.len() as u32).map(BufferId);
    let keeps = |id: &BufferId| matches!(program.buffer(*id).class, Class::Param | Class::State);
    all.filter(|id| keeps(id) && !written.contains(id)).collect()
}

/// Schedules every kernel of every entry.
///
/// # Errors
/// [`BuildError::Kernel`] naming a kernel that this target cannot compute.
pub fn schedule<'p>(
    program: &'p Program,
    facts: &'p [Facts],
    config: Config,
    choices: &'p Choices,
) -> Result<Vec<ScheduledEntry<'p>>, BuildError> {
    let entry = |(entry, facts): (&'p Entry, &'p Facts)| {
        let site = facts.site(program, config, choices);
        let refuse = |name: &str| {
            let kernel = name.to_string();
            |message| BuildError::Kernel { kernel, message }
        };
        let one = |leaf: &Leaf<'p>| {
            let changing = facts.changing.get(&leaf.top);
            let site = Site { steps: leaf.loops.len(), changing, ..site };
            Schedule::new(site, leaf.kernel).map_err(refuse(&leaf.kernel.name))
        };
        let leaves = leaves(entry).map_err(refuse(&entry.name))?;
        let schedules = leaves.par_iter().map(one).collect::<Result<_, _>>()?;
        Ok(ScheduledEntry { entry, facts, leaves, schedules })
    };
    program.entries.iter().zip(facts).map(entry).collect()
}

/// Generates the code of every kernel of an entry, phase by phase.
pub fn generate(entry: &ScheduledEntry, frontend: TargetFrontendConfig) -> Vec<Vec<Phase>> {
    let phases = |(schedule, leaf): (&Schedule, &Leaf)| {
        let mut phases = codegen::phases(schedule, frontend);
        if entry.facts.at_load[leaf.top] {
            phases.iter_mut().for_each(|p| p.when = When::Load);
        }
        phases
    };
    entry.schedules.par_iter().zip(&entry.leaves).map(phases).collect()
}

/// How much of so many threads' time steps must take that run beside each other, each of them on one
/// thread; else they run in turn, each of them on all threads.
const BUSY: f64 = 0.75;

impl ScheduledEntry<'_> {
    /// How many workers have steps of their own of the loop that a kernel is, of so many threads; one
    /// if its steps are in turn.
    pub fn step_workers(&self, kernel: usize, threads: usize) -> usize {
        let Some(&steps) = self.facts.independent.get(&kernel) else { return 1 };
        let workers = (threads as i64).min(steps).max(1);
        let rounds = (steps + workers - 1) / workers;
        let is_busy = steps as f64 >= BUSY * (rounds * threads as i64) as f64;
        let mut inside = self.leaves.iter().zip(&self.schedules).filter(|l| l.0.top == kernel);
        if is_busy && !inside.any(|(_, schedule)| schedule.prepares_loops()) {
            workers as usize
        } else {
            1
        }
    }

    /// The fixed temporaries that calls read, and not only what is packed when parameters change.
    fn kept(&self) -> Vec<BufferId> {
        let leaves = self.leaves.iter().zip(&self.schedules);
        let in_calls = leaves.filter(|(leaf, _)| !self.facts.at_load[leaf.top]);
        let read = in_calls.flat_map(|(leaf, schedule)| match schedule {
            Schedule::Contract(contract) => contract.read_in_calls(),
            _ => leaf.kernel.reads(),
        });
        let root = |id: BufferId| self.facts.aliases.get(&id).copied().unwrap_or(id);
        let mut kept: Vec<BufferId> =
            read.filter(|id| self.facts.fixed.contains(id)).map(root).collect();
        kept.sort_unstable();
        kept.dedup();
        kept
    }
}

impl LastingPlan {
    /// One place for each parameter, state, run-time scalar and lasting workspace.
    ///
    /// # Errors
    /// [`BuildError::Kernel`] naming a buffer whose size is not bound.
    pub fn new(program: &Program, scheduled: &[ScheduledEntry]) -> Result<LastingPlan, BuildError> {
        let (offsets, workspaces) = (FxHashMap::default(), Vec::new());
        let mut plan = LastingPlan { offsets, workspaces, bytes: 0 };
        for (i, buffer) in program.buffers.iter().enumerate() {
            if is_lasting(buffer.class) {
                let bytes = bytes(program, BufferId(i as u32))?;
                let offset = plan.take(bytes);
                plan.offsets.insert(BufferId(i as u32), offset);
            }
        }
        for entry in scheduled {
            for id in entry.kept() {
                if !plan.offsets.contains_key(&id) {
                    let offset = plan.take(bytes(program, id)?);
                    plan.offsets.insert(id, offset);
                }
            }
            let spaces = entry.schedules.iter().map(|s| s.workspace().lasting as u64);
            let offsets = spaces.map(|bytes| plan.take(bytes)).collect();
            plan.workspaces.push(offsets);
        }
        Ok(plan)
    }

    /// The next `bytes` bytes.
    fn take(&mut self, bytes: u64) -> u64 {
        let offset = self.bytes;
        self.bytes = self.bytes.saturating_add(padded(bytes));
        offset
    }
}

impl ArenaPlan {
    /// Places inputs, outputs, temporaries and workspaces of an entry.
    ///
    /// # Errors
    /// [`BuildError::Kernel`] naming a buffer whose size is not bound, [`BuildError::Memory`] if
    /// sizes overflow.
    pub fn new(
        program: &Program,
        scheduled: &ScheduledEntry,
        lasting: &LastingPlan,
        threads: usize,
    ) -> Result<ArenaPlan, BuildError> {
        let entry = scheduled.entry;
        let end = entry.kernels.len();
        let mut owners: Vec<BufferId> = Vec::new();
        let mut blocks: Vec<Block> = Vec::new();
        let whole_call = outside_buffers(program, entry).into_iter().map(|b| (b, 0, end));
        let lifetimes = plan::lifetimes(program, entry, &scheduled.facts.aliases).into_iter();
        let within = lifetimes.filter(|l| !lasting.offsets.contains_key(&l.buffer));
        let within = within.map(|l| (l.buffer, l.first, l.last));
        for (buffer, first, last) in whole_call.chain(within) {
            owners.push(buffer);
            let for_each_worker = |room: &Room| {
                let workers = scheduled.step_workers(first, threads) as u64;
                Ok(room.stride().saturating_mul(workers).max(room.bytes))
            };
            let room = scheduled.facts.rooms.get(&buffer);
            let bytes = room.map_or_else(|| bytes(program, buffer), for_each_worker)?;
            blocks.push(scheduled.facts.alive(bytes, first, last));
        }
        for (leaf, schedule) in scheduled.leaves.iter().zip(&scheduled.schedules) {
            let at = leaf.top;
            let Workspace { shared, scratch, .. } = schedule.workspace();
            let scratch =
                (scratch.next_multiple_of(ALIGNMENT) as u64).saturating_mul(threads as u64);
            let workers = scheduled.step_workers(at, threads) as u64;
            for bytes in [padded(shared as u64).saturating_mul(workers), scratch] {
                blocks.push(scheduled.facts.alive(bytes, at, at));
            }
        }
        let too_much = |_| BuildError::Memory { needed: u64::MAX, limit: u64::MAX };
        let plan = plan::place(&blocks, ALIGNMENT as u64).map_err(too_much)?;
        let mut places: FxHashMap<BufferId, Place> =
            lasting.offsets.iter().map(|(&id, &offset)| (id, Place::Lasting(offset))).collect();
        places.extend(owners.iter().zip(&plan.offsets).map(|(&id, &at)| (id, Place::Arena(at))));
        for (alias, root) in &scheduled.facts.aliases {
            if let Some(&place) = places.get(root) {
                places.insert(*alias, place);
            }
        }
        let workspaces = plan.offsets[owners.len()..].chunks(2).map(|w| (w[0], w[1])).collect();
        Ok(ArenaPlan { places, workspaces, bytes: plan.peak })
    }
}

/// Inputs and outputs that an entry's kernels or caller use.
fn outside_buffers(program: &Program, entry: &Entry) -> Vec<BufferId> {
    let touched = entry.kernels.iter().flat_map(|k| k.reads().into_iter().chain(k.writes()));
    let named = entry.inputs.iter().chain(&entry.outputs).copied();
    let mut found: Vec<BufferId> = named
        .chain(touched)
        .filter(|&id| matches!(program.buffer(id).class, Class::Input | Class::Output))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a buffer outlives a call.
pub fn is_lasting(class: Class) -> bool {
    matches!(class, Class::Param | Class::State | Class::Scalar)
}

/// Bytes of a buffer.
///
/// # Errors
/// [`BuildError::Kernel`] naming the buffer, if its size is not bound or overflows.
pub fn bytes(program: &Program, id: BufferId) -> Result<u64, BuildError> {
    let buffer = program.buffer(id);
    let size = buffer.elements().and_then(|n| n.checked_mul(buffer.dtype.bytes()));
    size.map(|n| n as u64).ok_or_else(|| BuildError::Kernel {
        kernel: buffer.name.clone(),
        message: "the size of this buffer is not bound, or too large".into(),
    })
}

/// Bytes from one worker's room of so many bytes to the next.
pub fn padded(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(ALIGNMENT as u64).unwrap_or(u64::MAX)
}
