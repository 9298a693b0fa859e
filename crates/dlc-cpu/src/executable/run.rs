//! A call at work: launches, loops, errors.

use super::CpuExecutable;
use crate::abi::{Context, ErrorKind, ErrorSlot};
use crate::beside::Need;
use crate::codegen::When;
use crate::entry::{Action, Arena, EntryCode, Member, RunnablePart, Work};
use crate::schedule::scanned;
use crate::share::Share;
use dlc_kernel::{Kernel, RunError};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

impl CpuExecutable {
    /// Runs those works of an entry that are due, in order; stops at the first error. Adds to
    /// `seconds` what each kernel took, if that is asked for.
    pub(super) fn run(
        &self,
        at: usize,
        entry: &EntryCode,
        when: When,
        arena: &mut Arena,
        mut seconds: Option<&mut [f64]>,
    ) -> Result<(), RunError> {
        let mut start = seconds.is_some().then(Instant::now);
        let due = entry.works.iter().filter(|work| work.when == when);
        // Kernels that are timed run one by one.
        let timed = due.flat_map(|work| match &work.action {
            beside @ Action::Beside { .. } if seconds.is_some() => beside.inner().collect(),
            _ => vec![work],
        });
        for work in timed.collect::<Vec<_>>() {
            self.run_work((at, entry), work, arena, 0)?;
            if let (Some(seconds), Some(start)) = (&mut seconds, &mut start) {
                seconds[work.kernel] += start.elapsed().as_secs_f64();
                *start = Instant::now();
            }
        }
        Ok(())
    }

    /// Runs a work at a step, counted over all loops around it.
    fn run_work(
        &self,
        (at, entry): (usize, &EntryCode),
        work: &Work,
        arena: &mut Arena,
        step: i64,
    ) -> Result<(), RunError> {
        match &work.action {
            Action::Copy { src, dst, bytes } => {
                let [src, dst] = [src, dst].map(|&id| self.address(entry, &arena.memory, id));
                // SAFETY: both are storage of this call of `bytes` bytes, and distinct
                // buffers that are alive at one kernel do not overlap.
                unsafe { std::ptr::copy_nonoverlapping(src, dst, *bytes) };
                Ok(())
            }
            Action::Run { parts, first, shares, may_fail, .. } => {
                let frame = arena.frames[at][0].get_mut().unwrap_or_else(|e| e.into_inner());
                let contexts = &frame.contexts[*first..first + parts.len()];
                self.launch(parts, contexts, shares, step);
                match may_fail {
                    Some(place) => {
                        let kernel = &self.program.entries[at].kernels[work.kernel];
                        self.take_error(kernel, place, &mut arena.errors)
                    }
                    None => Ok(()),
                }
            }
            Action::Loop { steps, workers: 1, works } => {
                for inner in step * steps..(step + 1) * steps {
                    for work in works {
                        self.run_work((at, entry), work, arena, inner)?;
                    }
                }
                Ok(())
            }
            Action::Beside { threads } => {
                let frame = arena.frames[at][0].get_mut().unwrap_or_else(|e| e.into_inner());
                let contexts = Shareable(&frame.contexts);
                let done = Progress::new(threads.iter().map(Vec::len).sum());
                self.pool.run(threads.len(), &|worker| {
                    run_beside(threads, contexts.get(), worker, &done);
                });
                Ok(())
            }
            Action::Loop { steps, workers, .. } => {
                let frames = &arena.frames[at];
                self.pool.run(*workers, &|worker| {
                    let frame = frames[worker].lock().unwrap_or_else(|e| e.into_inner());
                    let cut = |worker: usize| steps * worker as i64 / *workers as i64;
                    run_steps(work, &frame.contexts, (worker, cut(worker)..cut(worker + 1)));
                });
                Ok(())
            }
        }
    }

    fn launch(
        &self,
        parts: &[RunnablePart],
        contexts: &[Context],
        shares: &[Vec<Share>],
        step: i64,
    ) {
        let contexts = Shareable(contexts);
        self.pool.run(shares.len(), &|worker| {
            for share in &shares[worker] {
                // SAFETY: workers have disjoint shares.
                unsafe { execute(parts, contexts.get(), share, (worker, step)) };
            }
        });
    }

    /// The first error that any worker noted; workers take units in ascending order.
    fn take_error(
        &self,
        kernel: &Kernel,
        place: &str,
        slots: &mut [ErrorSlot],
    ) -> Result<(), RunError> {
        // The compiled code wrote them through a pointer of its own.
        let noted = slots.iter().map(|s| s as *const ErrorSlot);
        // SAFETY: the pointers are to live slots that no worker uses any more.
        let noted = noted.map(|s| unsafe { s.read_volatile() }).find(|s| s.kind != 0);
        let Some(error) = noted else { return Ok(()) };
        slots.fill(ErrorSlot::default());
        if error.kind == ErrorKind::Index as i64 {
            let (index, extent) = (error.value, error.extent);
            return Err(RunError::Index { place: place.to_string(), index, extent });
        }
        let dlc_kernel::Form::Check { buffers } = &kernel.form else {
            unreachable!("only checks look for numbers that are not finite")
        };
        let mut scanned = scanned(&self.program, buffers);
        let offender = scanned.nth(error.value as usize).expect("each part scans a buffer");
        let buffer = self.program.buffer(offender);
        Err(RunError::NotFinite { name: buffer.name.clone() })
    }
}

/// Contexts hold addresses, which a region hands to the pool's threads.
struct Shareable<'a>(&'a [Context]);

// SAFETY: workers execute disjoint units, and only ever write what is their own.
unsafe impl Sync for Shareable<'_> {}

impl<'a> Shareable<'a> {
    fn get(&self) -> &'a [Context] {
        self.0
    }
}

/// Runs some steps of a loop on this thread; they cannot fail.
fn run_steps(looped: &Work, contexts: &[Context], (worker, steps): (usize, Range<i64>)) {
    let Action::Loop { works, .. } = &looped.action else { unreachable!("only loops have steps") };
    for step in steps {
        for work in works {
            match &work.action {
                Action::Run { parts, first, shares, .. } => {
                    let contexts = &contexts[*first..first + parts.len()];
                    let all = shares.iter().flatten();
                    // SAFETY: no other worker has these steps, nor what they write.
                    all.for_each(|s| unsafe { execute(parts, contexts, s, (worker, step)) });
                }
                Action::Loop { steps: inner, .. } => {
                    let inner = step * inner..(step + 1) * inner;
                    run_steps(work, contexts, (worker, inner));
                }
                Action::Beside { .. } | Action::Copy { .. } => {
                    unreachable!("loops hold kernels and loops")
                }
            }
        }
    }
}

/// How far loops beside each other have got.
struct Progress(Box<[LoopProgress]>);

/// In cache lines of its own: two, as processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct LoopProgress {
    /// How many steps are done.
    done: AtomicI64,
    /// Whether a thread runs the next one.
    is_taken: AtomicBool,
}

impl Progress {
    fn new(loops: usize) -> Progress {
        Progress((0..loops).map(|_| LoopProgress::default()).collect())
    }

    fn done(&self, number: usize) -> i64 {
        self.0[number].done.load(Ordering::Acquire)
    }

    /// Whether all steps of a loop are done.
    fn is_over(&self, member: &Member) -> bool {
        self.done(member.number) >= member.steps
    }

    /// Whether a loop has a next step, and that has what it needs.
    fn is_ready(&self, member: &Member) -> bool {
        let step = self.done(member.number);
        let is_met = |need: &Need| self.done(need.of) >= need.before(step);
        step < member.steps && member.neighbour.needs.iter().all(is_met)
    }

    /// Runs the next step of a loop if it is ready and nobody else runs it.
    fn advance(&self, member: &Member, contexts: &[Context], worker: usize) -> bool {
        let own = &self.0[member.number];
        if !self.is_ready(member) || own.is_taken.swap(true, Ordering::Acquire) {
            return false;
        }
        // Another thread may have done the step meanwhile.
        let is_ready = self.is_ready(member);
        if is_ready {
            let step = self.done(member.number);
            run_steps(&member.work, contexts, (worker, step..step + 1));
            own.done.store(step + 1, Ordering::Release);
        }
        own.is_taken.store(false, Ordering::Release);
        is_ready
    }
}

/// Runs a thread's loops, which cannot fail, always a step of the last one that is ready; if none is, a
/// step of others' free loops. The first loop that is not over is always ready, so all come to an end,
/// even if one thread runs the parts of all, in order.
fn run_beside(threads: &[Vec<Member>], contexts: &[Context], worker: usize, progress: &Progress) {
    let own = &threads[worker];
    let others = threads.iter().filter(|loops| !std::ptr::eq(*loops, own)).flatten();
    let free: Vec<&Member> = others.filter(|member| member.neighbour.is_free).collect();
    let mut spins = 0u32;
    loop {
        let mut loops = own.iter().rev().chain(free.iter().copied());
        if loops.any(|member| progress.advance(member, contexts, worker)) {
            spins = 0;
        } else if own.iter().all(|member| progress.is_over(member))
            && !free.iter().any(|member| progress.is_ready(member))
        {
            return;
        } else {
            spins += 1;
            if spins < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

/// Executes a worker's share of a step of some parts.
///
/// # Safety
/// The contexts are those of a call that runs, and nobody else executes these units.
unsafe fn execute(
    parts: &[RunnablePart],
    contexts: &[Context],
    share: &Share,
    (worker, step): (usize, i64),
) {
    let RunnablePart { function, units, .. } = parts[share.part];
    let (begin, end) = (share.begin + step * units, share.end + step * units);
    // SAFETY: the context points to this call's storage, planned for exactly these operands; the
    // units are within the part's; the module is alive as long as the executable.
    unsafe { function(&contexts[share.part], begin, end, worker as i64) };
}
