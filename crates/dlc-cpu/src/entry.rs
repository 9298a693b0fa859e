//! An entry as it is called: its works, the memory of a call, what callers lend.

use crate::abi::{Context, ErrorSlot, KernelFn};
use crate::codegen::{Phase, When};
use crate::lower::{ArenaPlan, ScheduledEntry, is_lasting};
use crate::memory::Memory;
use crate::schedule::Schedule;
use crate::share::{Share, share_out};
use dlc_kernel::{BufferId, Class, Kernel, Program};
use std::sync::atomic::AtomicBool;

/// An entry ready to be called.
pub struct EntryCode {
    /// In order.
    pub works: Vec<Work>,
    /// Whether it packs what depends on parameters.
    pub packs: bool,
    /// Whether parameters have changed since that was last done.
    pub stale: AtomicBool,
    /// Its memory.
    pub plan: ArenaPlan,
    /// Inputs, then outputs.
    pub outside: Vec<Outside>,
    /// Whether it writes parameters or state.
    pub updates: bool,
}

/// What a kernel, or a phase of it, does.
pub struct Work {
    /// The kernel's position in the entry.
    pub kernel: usize,
    /// When it is due.
    pub when: When,
    /// What is done.
    pub action: Action,
}

/// An input or output of an entry.
pub struct Outside {
    /// Its own storage.
    pub buffer: BufferId,
    /// Where the operand tables of contexts name it: context and operand. `None` if it is always
    /// copied, because it is used otherwise too.
    pub named: Option<Vec<(usize, usize)>>,
}

impl Work {
    /// How many contexts it has in an arena.
    pub fn parts(&self) -> usize {
        match &self.action {
            Action::Run { parts, .. } => parts.len(),
            Action::Copy { .. } => 0,
        }
    }
}

/// What is done in one go.
pub enum Action {
    /// Functions over their units.
    Run {
        /// What runs.
        parts: Vec<RunnablePart>,
        /// By worker.
        shares: Vec<Vec<Share>>,
        /// Bytes from one worker's workspace to the next.
        scratch_stride: i64,
        /// Whether errors must be looked for afterwards.
        may_fail: bool,
    },
    /// Bytes from one buffer to another.
    Copy {
        /// Read.
        src: BufferId,
        /// Written.
        dst: BufferId,
        /// How many.
        bytes: usize,
    },
}

/// A compiled function and the buffers it sees.
pub struct RunnablePart {
    /// The function.
    pub function: KernelFn,
    /// In the order its code counts them.
    pub operands: Vec<BufferId>,
}

/// The memory of one call, of whatever entry, with everything in it that holds addresses.
pub struct Arena {
    /// Everything but what callers lend.
    pub memory: Memory,
    /// One for each entry.
    pub frames: Vec<Frame>,
    /// One for each worker.
    pub errors: Box<[ErrorSlot]>,
}

/// How the kernels of an entry see an arena.
#[derive(Default)]
pub struct Frame {
    /// One for each part of each work, in order.
    pub contexts: Vec<Context>,
    /// What the contexts' operand tables point into.
    tables: Vec<Box<[*mut u8]>>,
}

// SAFETY: its addresses go into its own memory, into the executable's lasting block, which may be
// used from any thread under the executable's lock, and into what the caller of the moment lends.
unsafe impl Send for Arena {}

impl Arena {
    /// An arena without frames.
    pub fn new(memory: Memory, workers: usize) -> Arena {
        let errors = vec![ErrorSlot::default(); workers].into();
        Arena { memory, frames: Vec::new(), errors }
    }
}

impl Frame {
    /// Adds the context of a part that sees `operands`.
    pub fn add_context(&mut self, operands: Box<[*mut u8]>, context: Context) {
        self.tables.push(operands);
        let operands = self.tables.last_mut().expect("it was just added").as_mut_ptr();
        self.contexts.push(Context { operands, ..context });
    }

    /// Lets operand tables name `address` for an input or output.
    pub fn bind(&mut self, outside: &Outside, address: *mut u8) {
        for &(context, operand) in outside.named.iter().flatten() {
            self.tables[context][operand] = address;
            self.contexts[context].operands = self.tables[context].as_ptr();
        }
    }
}

impl EntryCode {
    /// Joins schedules, generated code and the functions compiled from it; `functions` yields one
    /// for each part, in order.
    pub fn new(
        program: &Program,
        scheduled: &ScheduledEntry,
        phases: &[Vec<Phase>],
        plan: ArenaPlan,
        threads: usize,
        functions: &mut dyn Iterator<Item = KernelFn>,
    ) -> EntryCode {
        let entry = scheduled.entry;
        let mut works = Vec::new();
        for (kernel, (schedule, phases)) in scheduled.schedules.iter().zip(phases).enumerate() {
            if let Schedule::Copy { src, dst } = schedule {
                let when = if scheduled.facts.at_load[kernel] { When::Load } else { When::Call };
                works.extend(copy(program, (kernel, when), *src, *dst));
            }
            let stride = schedule.workspace().scratch.next_multiple_of(crate::abi::ALIGNMENT);
            for (at, phase) in phases.iter().enumerate() {
                let action = Action::Run {
                    parts: phase.parts.iter().map(|p| runnable(p, functions)).collect(),
                    shares: share_out(&phase.parts, threads),
                    scratch_stride: stride as i64,
                    may_fail: at + 1 == phases.len() && entry.kernels[kernel].may_fail(),
                };
                works.push(Work { kernel, when: phase.when, action });
            }
        }
        let updates = entry.kernels.iter().any(|k| writes_lasting(program, k));
        let packs = works.iter().any(|w| w.when == When::Load);
        let outside = outside(program, scheduled, &works);
        let stale = AtomicBool::new(packs);
        EntryCode { works, packs, stale, plan, outside, updates }
    }
}

/// Inputs and outputs, and who names them.
fn outside(program: &Program, scheduled: &ScheduledEntry, works: &[Work]) -> Vec<Outside> {
    let (entry, aliases) = (scheduled.entry, &scheduled.facts.aliases);
    let root = |id: BufferId| aliases.get(&id).copied().unwrap_or(id);
    let one = |(class, &buffer): (Class, &BufferId)| {
        let (mut named, mut context) = (Vec::new(), 0);
        for work in works {
            match &work.action {
                Action::Copy { src, dst, .. } => {
                    if [*src, *dst].into_iter().any(|id| root(id) == buffer) {
                        return Outside { buffer, named: None };
                    }
                }
                Action::Run { parts, .. } => {
                    for part in parts {
                        let operands = part.operands.iter().enumerate();
                        let those = operands.filter(|(_, id)| root(**id) == buffer);
                        named.extend(those.map(|(operand, _)| (context, operand)));
                        context += 1;
                    }
                }
            }
        }
        let is_own = program.buffer(buffer).class == class && root(buffer) == buffer;
        Outside { buffer, named: is_own.then_some(named) }
    };
    let inputs = entry.inputs.iter().map(|id| (Class::Input, id));
    inputs.chain(entry.outputs.iter().map(|id| (Class::Output, id))).map(one).collect()
}

fn runnable(
    part: &crate::codegen::Part,
    functions: &mut dyn Iterator<Item = KernelFn>,
) -> RunnablePart {
    let function = functions.next().expect("there is a function for each part");
    RunnablePart { function, operands: part.operands.clone() }
}

/// Nothing, where there is nothing to copy.
fn copy(
    program: &Program,
    (kernel, when): (usize, When),
    src: BufferId,
    dst: BufferId,
) -> Option<Work> {
    let bytes = crate::lower::bytes(program, dst).expect("sizes were bound when planned") as usize;
    let action = Action::Copy { src, dst, bytes };
    (bytes > 0).then_some(Work { kernel, when, action })
}

fn writes_lasting(program: &Program, kernel: &Kernel) -> bool {
    kernel.writes().iter().any(|&id| is_lasting(program.buffer(id).class))
}
