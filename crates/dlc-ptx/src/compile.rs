//! A program becomes a [`DeviceProgram`]: every kernel is scheduled and written, equal kernels
//! once, and everything gets its place in memory.

mod site;

pub use site::{Piece, Site};

use crate::device::{Arg, DeviceEntry, DeviceProgram, ErrorRecord, Launch, Work};
use crate::emit::writer::Given;
use crate::group::Grouped;
use crate::memory::Memory;
use crate::{Flavour, Math, ir};
use dlc_kernel::plan::{self, Aliases};
use dlc_kernel::{BufferId, BuildError, Entry, Program};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// Writes PTX of one flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtxTarget {
    /// What for.
    pub flavour: Flavour,
    /// How contractions multiply.
    pub math: Math,
}

impl PtxTarget {
    /// Compiles all entries.
    ///
    /// # Errors
    /// [`BuildError::Kernel`] naming a kernel that reads or writes a buffer of 2^31 elements or
    /// more; [`BuildError::Memory`] if no memory is large enough.
    pub fn compile(self, program: &Program) -> Result<DeviceProgram, BuildError> {
        let grouped = Grouped::new(program, self.math);
        let program = &grouped.program;
        let entries = program.entries.iter();
        let aliases: Vec<Aliases> = entries.map(|e| plan::aliases(program, e, &[])).collect();
        let works = aliases.iter().enumerate().map(|(at, own)| self.entry(&grouped, at, own));
        let works = works.collect::<Result<Vec<Vec<Vec<Work<Piece<'_>>>>>, _>>()?;
        let room = |groups: &Vec<Vec<Work<Piece<'_>>>>| groups.iter().map(|w| room(w)).collect();
        let memory = Memory::plan(&grouped, &aliases, &works.iter().map(room).collect::<Vec<_>>())?;
        let mut modules = Kernels::default();
        let mut entries = Vec::new();
        for (at, (works, places)) in works.into_iter().zip(&memory.workspaces).enumerate() {
            let mut number = 0;
            let mut kernels = Vec::new();
            for (group, (works, places)) in
                grouped.entries[at].ranges.iter().zip(works.into_iter().zip(places))
            {
                let mut launch = |piece| {
                    number += 1;
                    modules.launch(piece, number, &memory, places)
                };
                kernels.resize(group.end - 1, Vec::new());
                kernels.push(works.into_iter().map(|work| work.map(&mut launch)).collect());
            }
            entries.push(device_entry(&program.entries[at], kernels));
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

    /// By group of an entry, what computes it.
    fn entry<'p>(
        self,
        grouped: &'p Grouped,
        entry: usize,
        aliases: &'p Aliases,
    ) -> Result<Vec<Vec<Work<Piece<'p>>>>, BuildError> {
        let write = |group: &Range<usize>| {
            let site = self.site(grouped, entry, aliases, group);
            site.refuse_large()?;
            Ok(site.work())
        };
        grouped.entries[entry].ranges.iter().map(write).collect()
    }

    fn site<'p>(
        self,
        grouped: &'p Grouped,
        entry: usize,
        aliases: &'p Aliases,
        group: &Range<usize>,
    ) -> Site<'p> {
        let (program, groups) = (&grouped.program, &grouped.entries[entry]);
        let entry = &program.entries[entry];
        let (kernels, commits) = (&entry.kernels[group.clone()], group.start >= entry.commit);
        Site { program, kernels, groups, aliases, loops: 0, commits, target: self }
    }

    /// How every kernel would be computed, for people to read.
    pub fn schedule(self, program: &Program) -> String {
        let grouped = Grouped::new(program, self.math);
        let mut text = String::new();
        for (at, entry) in grouped.program.entries.iter().enumerate() {
            text += &format!("entry {} for {}, {}\n", entry.name, self.flavour, self.math);
            for group in &grouped.entries[at].ranges {
                for kernel in &entry.kernels[group.clone()] {
                    text += &format!("{}:\n", kernel.name);
                }
                text += &self.schedule_of(&grouped, at, group);
            }
        }
        text
    }

    /// How that group of an entry would be computed.
    pub fn schedule_of(self, grouped: &Grouped, entry: usize, group: &Range<usize>) -> String {
        self.site(grouped, entry, &Aliases::default(), group).schedule()
    }
}

/// The workspaces of everything that computes one kernel of an entry. The kernels of a loop run one
/// after the other, in the same ones.
fn room(works: &[Work<Piece<'_>>]) -> Vec<u64> {
    let mut room: Vec<u64> = Vec::new();
    for piece in works.iter().flat_map(Work::list) {
        room.resize(room.len().max(piece.workspaces.len()), 0);
        room.iter_mut().zip(&piece.workspaces).for_each(|(most, own)| *most = (*most).max(*own));
    }
    room
}

fn device_entry(entry: &Entry, kernels: Vec<Vec<Work<Launch>>>) -> DeviceEntry {
    let positions = |ids: &[BufferId]| ids.iter().map(|id| id.0 as usize).collect();
    DeviceEntry {
        name: entry.name.clone(),
        inputs: positions(&entry.inputs),
        outputs: positions(&entry.outputs),
        kernels,
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
    /// The launch of that number in its entry, from 1, whose workspaces lie at `places`.
    fn launch(&mut self, piece: Piece<'_>, number: u32, memory: &Memory, places: &[u64]) -> Launch {
        let Piece { kernel, written, workspaces } = piece;
        let arg = |given: &Given| match given {
            Given::Buffer(id) => {
                let buffer = &memory.buffers[id.0 as usize];
                Arg::Address { offset: buffer.offset, bytes: buffer.bytes }
            }
            Given::Workspace(k) => Arg::Address { offset: places[*k], bytes: workspaces[*k] },
            Given::Error => Arg::Address { offset: memory.error, bytes: ErrorRecord::BYTES },
            Given::Launch => Arg::Word(number),
            Given::Step(k) => Arg::Step(*k as u32),
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
