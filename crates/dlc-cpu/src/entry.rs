//! An entry as it is called: its works, the memory of a call, what callers lend.

use crate::abi::{Context, ErrorSlot, KernelFn};
use crate::beside::{self, Beside, Neighbour};
use crate::codegen::{Phase, When};
use crate::lower::{ArenaPlan, ScheduledEntry, is_lasting, padded};
use crate::memory::Memory;
use crate::rooms::Rooms;
use crate::schedule::Schedule;
use crate::share::{Share, share_out};
use dlc_kernel::{BufferId, Class, Form, Kernel, Program};
use rustc_hash::FxHashSet;
use std::sync::Mutex;
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
    /// Of which of its temporaries each worker may have its own.
    pub rooms: Rooms,
    /// Inputs, then outputs.
    pub outside: Vec<Outside>,
    /// Whether it writes parameters or state.
    pub updates: bool,
    /// Which ones.
    writes: FxHashSet<BufferId>,
    /// Parameters and state that what it packs may depend on.
    fixed: FxHashSet<BufferId>,
}

/// What a kernel, or a phase of it, does.
pub struct Work {
    /// The position of the entry's kernel that it is, or is in.
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

/// What is done in one go.
pub enum Action {
    /// Functions over their units.
    Run {
        /// What runs.
        parts: Vec<RunnablePart>,
        /// The number of the first part's context.
        first: usize,
        /// The position among the entry's leaves, whose workspaces it uses.
        leaf: usize,
        /// By worker; of a step, if it is in a loop.
        shares: Vec<Vec<Share>>,
        /// Bytes from one worker's workspace to the next.
        scratch_stride: i64,
        /// The same of the workspace that workers share, where each has steps of its own.
        shared_stride: u64,
        /// Where errors are to be looked for afterwards, in the words of messages.
        may_fail: Option<String>,
    },
    /// Works in turn, at every step.
    Loop {
        /// How often.
        steps: i64,
        /// In order.
        works: Vec<Work>,
        /// How many workers have steps of their own; with one, steps are in turn.
        workers: usize,
    },
    /// Loops beside each other, each on one thread.
    Beside {
        /// By thread, in order.
        threads: Vec<Vec<Member>>,
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

/// A loop that runs beside others.
pub struct Member {
    /// The loop.
    pub work: Work,
    /// How many steps it has.
    pub steps: i64,
    /// Its position among all of them.
    pub number: usize,
    /// What holds of its steps.
    pub neighbour: Neighbour,
}

/// A compiled function and the buffers it sees.
pub struct RunnablePart {
    /// The function.
    pub function: KernelFn,
    /// In the order its code counts them.
    pub operands: Vec<BufferId>,
    /// How many units a step of the loops around has.
    pub units: i64,
}

/// The memory of one call, of whatever entry, with everything in it that holds addresses.
pub struct Arena {
    /// Everything but what callers lend.
    pub memory: Memory,
    /// By entry, one for each worker that has steps of a loop of its own, and one at least: that of
    /// everything else.
    pub frames: Vec<Vec<Mutex<Frame>>>,
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

// SAFETY: its addresses go into the arena's memory, into the executable's lasting block, which may be
// used from any thread under the executable's lock, and into what the caller of the moment lends.
unsafe impl Send for Frame {}

impl Arena {
    /// An arena without frames.
    pub fn new(memory: Memory, workers: usize) -> Arena {
        let errors = vec![ErrorSlot::default(); workers].into();
        Arena { memory, frames: Vec::new(), errors }
    }

    /// Lets all kernels of an entry find an input or output at `address`.
    pub fn bind(&mut self, entry: usize, outside: &Outside, address: *mut u8) {
        for frame in &mut self.frames[entry] {
            frame.get_mut().unwrap_or_else(|e| e.into_inner()).bind(outside, address);
        }
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
            self.set_operand(context, operand, address);
        }
    }

    fn set_operand(&mut self, context: usize, operand: usize, address: *mut u8) {
        self.tables[context][operand] = address;
        self.contexts[context].operands = self.tables[context].as_ptr();
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
        let mut linking =
            Linking { program, scheduled, phases, threads, functions, leaf: 0, contexts: 0 };
        let beside = beside::beside(scheduled, phases, threads);
        let works = linking.works(&entry.kernels, &beside);
        let written = entry.kernels.iter().flat_map(Kernel::writes);
        let writes: FxHashSet<BufferId> =
            written.filter(|&id| is_lasting(program.buffer(id).class)).collect();
        let updates = !writes.is_empty();
        let read = entry.kernels.iter().flat_map(Kernel::reads);
        let fixed = read.filter(|id| scheduled.facts.fixed.contains(id)).collect();
        let packs = works.iter().any(Work::is_at_load);
        let outside = outside(program, scheduled, &works);
        let stale = AtomicBool::new(packs);
        let rooms = scheduled.facts.rooms.clone();
        EntryCode { works, packs, stale, plan, rooms, outside, updates, writes, fixed }
    }

    /// Whether what it packs may be old after a call of `other`.
    pub fn depends_on(&self, other: &EntryCode) -> bool {
        other.writes.iter().any(|&buffer| self.packs_of(buffer))
    }

    /// Whether what it packs may be old after a buffer is written.
    pub fn packs_of(&self, buffer: BufferId) -> bool {
        self.packs && self.fixed.contains(&buffer)
    }
}

impl EntryCode {
    /// The most workers that have steps of their own of one of its loops.
    pub fn step_workers(&self) -> usize {
        let mut most = 1;
        self.works.iter().for_each(|work| {
            work.visit(&mut |action| {
                if let Action::Loop { workers, .. } = action {
                    most = most.max(*workers);
                }
            });
        });
        most
    }

    /// All runs, in the order of their contexts: packing comes before a loop, but is counted with
    /// the kernel that it is for.
    pub fn runs(&self) -> Vec<&Action> {
        let mut runs: Vec<(usize, &Action)> = Vec::new();
        self.works.iter().for_each(|work| {
            work.visit(&mut |action| {
                if let Action::Run { first, .. } = action {
                    runs.push((*first, action));
                }
            });
        });
        runs.sort_by_key(|run| run.0);
        runs.into_iter().map(|run| run.1).collect()
    }
}

/// Inputs and outputs, and who names them.
fn outside(program: &Program, scheduled: &ScheduledEntry, works: &[Work]) -> Vec<Outside> {
    let (entry, aliases) = (scheduled.entry, &scheduled.facts.aliases);
    let root = |id: BufferId| aliases.get(&id).copied().unwrap_or(id);
    let mut copied = Vec::new();
    let mut parts: Vec<(usize, &RunnablePart)> = Vec::new();
    works.iter().for_each(|w| {
        w.visit(&mut |action| match action {
            Action::Copy { src, dst, .. } => copied.extend([root(*src), root(*dst)]),
            Action::Run { parts: run, first, .. } => parts.extend((*first..).zip(run)),
            Action::Loop { .. } | Action::Beside { .. } => {}
        })
    });
    let one = |(class, &buffer): (Class, &BufferId)| {
        if copied.contains(&buffer) {
            return Outside { buffer, named: None };
        }
        let mut named = Vec::new();
        for &(context, part) in &parts {
            let operands = part.operands.iter().enumerate();
            let those = operands.filter(|(_, id)| root(**id) == buffer);
            named.extend(those.map(|(operand, _)| (context, operand)));
        }
        let is_own = program.buffer(buffer).class == class && root(buffer) == buffer;
        Outside { buffer, named: is_own.then_some(named) }
    };
    let inputs = entry.inputs.iter().map(|id| (Class::Input, id));
    inputs.chain(entry.outputs.iter().map(|id| (Class::Output, id))).map(one).collect()
}

impl Work {
    /// Shows its action, and those in it, to `see`.
    pub fn visit<'w>(&'w self, see: &mut dyn FnMut(&'w Action)) {
        see(&self.action);
        self.action.inner().for_each(|work| work.visit(see));
    }

    /// Whether something of it is due when parameters have changed.
    fn is_at_load(&self) -> bool {
        match &self.action {
            Action::Loop { .. } | Action::Beside { .. } => {
                self.action.inner().any(Work::is_at_load)
            }
            _ => self.when == When::Load,
        }
    }
}

impl Action {
    /// The works that it consists of.
    pub fn inner(&self) -> impl Iterator<Item = &Work> {
        let (works, threads): (&[Work], &[Vec<Member>]) = match self {
            Action::Loop { works, .. } => (works, &[]),
            Action::Beside { threads } => (&[], threads),
            Action::Run { .. } | Action::Copy { .. } => (&[], &[]),
        };
        works.iter().chain(threads.iter().flatten().map(|member| &member.work))
    }
}

/// Works in the making: leaves, phases and functions are taken in order.
struct Linking<'a, 'p> {
    program: &'a Program,
    scheduled: &'a ScheduledEntry<'p>,
    phases: &'a [Vec<Phase>],
    threads: usize,
    functions: &'a mut dyn Iterator<Item = KernelFn>,
    leaf: usize,
    contexts: usize,
}

impl Linking<'_, '_> {
    /// What kernels do, in order; loops in `beside` at the same time, after what comes before them.
    fn works(&mut self, kernels: &[Kernel], beside: &[Beside]) -> Vec<Work> {
        let (mut works, mut waiting) = (Vec::new(), Vec::new());
        for (at, kernel) in kernels.iter().enumerate() {
            let group = beside.iter().find(|beside| beside.neighbours.loops.contains(&at));
            for (_, work) in self.nested(kernel, 0) {
                let waits = group.is_some() && matches!(work.action, Action::Loop { .. });
                if waits { waiting.push(work) } else { works.push(work) }
            }
            if let Some(beside) = group.filter(|beside| beside.neighbours.loops.end == at + 1) {
                let threads = members(beside, std::mem::take(&mut waiting));
                let action = Action::Beside { threads };
                works.push(Work { kernel: at, when: self.when(at), action });
            }
        }
        works
    }

    /// What a kernel within so many loops does, in order: each work at every step of so many of them,
    /// before the others begin.
    fn nested(&mut self, kernel: &Kernel, loops: usize) -> Vec<(usize, Work)> {
        let Form::Loop { steps, start, body } = &kernel.form else { return self.leaf_works() };
        let mut works: Vec<_> = start.iter().flat_map(|k| self.nested(k, loops)).collect();
        let inside: Vec<_> = body.iter().flat_map(|k| self.nested(k, loops + 1)).collect();
        let (inside, before): (Vec<_>, Vec<_>) = inside.into_iter().partition(|w| w.0 > loops);
        works.extend(before);
        let steps_works: Vec<Work> = inside.into_iter().map(|(_, work)| work).collect();
        let top = self.scheduled.leaves[self.leaf - 1].top;
        let steps = steps.as_const().expect("sizes were bound when scheduled");
        let workers = self.scheduled.step_workers(top, self.threads);
        let action = Action::Loop { steps, works: steps_works, workers };
        works.push((loops, Work { kernel: top, when: self.when(top), action }));
        works
    }

    fn when(&self, top: usize) -> When {
        if self.scheduled.facts.at_load[top] { When::Load } else { When::Call }
    }

    fn leaf_works(&mut self) -> Vec<(usize, Work)> {
        let at = self.leaf;
        self.leaf += 1;
        let (leaf, schedule) = (&self.scheduled.leaves[at], &self.scheduled.schedules[at]);
        let (kernel, mut works) = (leaf.top, Vec::new());
        if let Schedule::Copy { src, dst } = schedule {
            let copy = copy(self.program, (kernel, self.when(kernel)), *src, *dst);
            works.extend(copy.map(|work| (leaf.loops.len(), work)));
        }
        let stride = schedule.workspace().scratch.next_multiple_of(crate::abi::ALIGNMENT);
        let shared = padded(schedule.workspace().shared as u64);
        let alone = self.scheduled.step_workers(kernel, self.threads) > 1;
        let last = self.phases[at].len();
        for (number, phase) in self.phases[at].iter().enumerate() {
            let loops = phase.loops.unwrap_or(leaf.loops.len());
            let steps = leaf.loops[..loops].iter().product::<i64>();
            let may_fail = number + 1 == last && leaf.kernel.may_fail();
            let parts: Vec<RunnablePart> =
                phase.parts.iter().map(|p| runnable(p, steps, self.functions)).collect();
            let first = self.contexts;
            self.contexts += parts.len();
            let action = Action::Run {
                parts,
                first,
                leaf: at,
                shares: share_out(&phase.parts, steps, self.threads),
                scratch_stride: stride as i64,
                shared_stride: if alone { shared } else { 0 },
                may_fail: may_fail.then(|| leaf.kernel.place()),
            };
            works.push((loops, Work { kernel, when: phase.when, action }));
        }
        works
    }
}

/// By thread, the loops that run beside each other.
fn members(beside: &Beside, loops: Vec<Work>) -> Vec<Vec<Member>> {
    let member = |(number, work): (usize, Work)| {
        let Action::Loop { steps, .. } = work.action else {
            unreachable!("only loops run beside each other")
        };
        Member { work, steps, number, neighbour: beside.neighbours.members[number].clone() }
    };
    let mut members = loops.into_iter().enumerate().map(member);
    let of_thread = |loops: &std::ops::Range<usize>| members.by_ref().take(loops.len()).collect();
    beside.threads.iter().map(of_thread).collect()
}

fn runnable(
    part: &crate::codegen::Part,
    steps: i64,
    functions: &mut dyn Iterator<Item = KernelFn>,
) -> RunnablePart {
    let function = functions.next().expect("there is a function for each part");
    let units = part.units / steps.max(1);
    RunnablePart { function, operands: part.operands.clone(), units }
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
