//! The CPU target: a kernel program becomes machine code in memory.
//!
//! The modules, in the order data flows:
//!
//! - [`level`]: instruction sets by name, detected or asked for, never assumed.
//! - [`arrange`]: what is changed in a program before, as a program.
//! - [`rooms`]: which temporaries need not have all of their elements at once.
//! - [`schedule`]: the target's own decisions for each kernel, before any code.
//! - [`codegen`]: schedules to Cranelift IR. Code knows buffers by their position in an operand
//!   list and finds everything else through a [`Context`](abi::Context): no address of this
//!   machine is part of it, equal functions are one function.
//! - [`leaf`]: small hot functions behind a boundary that other compilers can stand behind too.
//! - [`jit`]: Cranelift IR to executable memory, in parallel.
//! - [`caches`], [`datapath`]: how much memory is near; how wide vectors are computed.
//! - [`lower`]: all of the above for a whole program, with its memory plan.
//! - [`pool`], [`share`], [`beside`]: threads, who executes which units, which loops run at once.
//! - [`entry`], [`executable`]: works and arenas; storage, calls, errors.
//! - [`transfer`]: tensors of the host.
//! - [`decision`], [`listing`]: what was decided, for people to read.
//! - [`machine`], [`roof`]: this processor and its caches; what it reaches at most.
//!
//! What holds: results depend on shapes and the level only, never on the number of threads (units
//! are independent, and the order of every fold is fixed by its schedule); a failing call leaves
//! parameters and state as they were; loads outside a buffer give their fill; no page is writable
//! and executable.
//!
//! ```
//! use dlc_cpu::CpuTarget;
//! use dlc_kernel::{BuildOptions, Program, Target};
//!
//! let target = CpuTarget::detect().unwrap();
//! let executable = target.build(&Program::default(), &BuildOptions::default()).unwrap();
//! assert_eq!(executable.peak_bytes(), 0);
//! ```

pub mod abi;
#[cfg(feature = "allocator")]
pub mod allocator;
pub mod arrange;
pub mod beside;
pub mod caches;
pub mod codegen;
pub mod datapath;
pub mod decision;
pub mod entry;
pub mod executable;
pub mod jit;
pub mod leaf;
pub mod level;
pub mod listing;
pub mod lower;
pub mod machine;
pub mod memory;
pub mod pool;
pub mod roof;
pub mod rooms;
pub mod schedule;
pub mod share;
pub mod transfer;

use caches::Caches;
use datapath::Datapath;
use dlc_kernel::{
    BuildError, BuildOptions, Decision, Decisions, Entry, Executable, Form, Kernel, Program,
    StageTime, Target,
};
use entry::EntryCode;
use executable::{CpuExecutable, Pieces, peak_bytes};
use level::{Effort, Level};
use lower::{ArenaPlan, Facts, LastingPlan, ScheduledEntry};
use schedule::Config;
use schedule::contract::ContractSchedule;
pub use schedule::contract::{Alternatives, Choices};
use std::sync::Arc;
use std::time::Instant;

/// Compiles for the CPU this process runs on, at one instruction set level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTarget {
    level: Level,
    caches: Caches,
    datapath: Datapath,
    choices: Arc<Choices>,
}

impl CpuTarget {
    /// The target of that level, for a usual processor that has it. Building for a level that this machine
    /// lacks is refused; its dumps can be made anywhere.
    pub fn new(level: Level) -> CpuTarget {
        let (caches, datapath) = (Caches::USUAL, Datapath::Whole);
        CpuTarget { level, caches, datapath, choices: Arc::default() }
    }

    /// The same target, which takes these choices where the estimate would decide.
    pub fn with_choices(self, choices: Choices) -> CpuTarget {
        CpuTarget { choices: Arc::new(choices), ..self }
    }

    /// The best target of this machine, for its processor.
    ///
    /// # Errors
    /// [`BuildError::Machine`] if it is below every level we know.
    pub fn detect() -> Result<CpuTarget, BuildError> {
        let target = CpuTarget::new(Level::detect()?);
        Ok(CpuTarget { caches: Caches::here(), datapath: Datapath::here(), ..target })
    }

    /// Its level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// What can be chosen for the contractions of a program: by entry and by kernel of the arranged
    /// program, `None` where nothing can.
    ///
    /// # Errors
    /// [`BuildError::Kernel`] naming a kernel that this target cannot compute.
    pub fn alternatives(
        &self,
        program: &Program,
        options: &BuildOptions,
    ) -> Result<Vec<Vec<Option<Alternatives>>>, BuildError> {
        let program = arrange::arrange(program, self.config(options));
        let facts = lower::facts(&program);
        let of_kernel = |kernel: &Kernel, facts: &Facts| match &kernel.form {
            Form::Contract { .. } => {
                let site = facts.site(&program, self.config(options), Choices::none());
                let refuse = |message| BuildError::Kernel { kernel: kernel.name.clone(), message };
                ContractSchedule::alternatives(site, &kernel.form).map_err(refuse)
            }
            _ => Ok(None),
        };
        let of_entry = |(entry, facts): (&Entry, &Facts)| {
            entry.kernels.iter().map(|kernel| of_kernel(kernel, facts)).collect()
        };
        program.entries.iter().zip(&facts).map(of_entry).collect()
    }

    fn config(&self, options: &BuildOptions) -> Config {
        let BuildOptions { opt_level, exact_conv, .. } = *options;
        let CpuTarget { level, caches, datapath, .. } = *self;
        Config { level, caches, datapath, opt_level, exact_conv }
    }
}

/// Measures the stages of a build.
struct Clock {
    start: Instant,
    times: Vec<StageTime>,
}

impl Clock {
    fn stage(&mut self, name: &'static str) {
        let ms = self.start.elapsed().as_secs_f64() * 1e3;
        self.times.push(StageTime { name, ms });
        self.start = Instant::now();
    }
}

impl Target for CpuTarget {
    fn name(&self) -> &str {
        self.level.name()
    }

    fn build(
        &self,
        program: &Program,
        options: &BuildOptions,
    ) -> Result<Box<dyn Executable>, BuildError> {
        self.level.require()?;
        let mut clock = Clock { start: Instant::now(), times: Vec::new() };
        let pool = pool::Pool::of(options.threads.unwrap_or_else(pool::available_threads));
        let threads = pool.workers();
        let isas = jit::Isas::new(self.level, options.opt_level)?;
        let program = arrange::arrange(program, self.config(options));
        clock.stage("arrange");
        let facts = lower::facts(&program);
        let scheduled = lower::schedule(&program, &facts, self.config(options), &self.choices)?;
        clock.stage("schedule");
        let frontend = isas.frontend_config();
        let (planned, phases) = rayon::join(
            || plan(&program, &scheduled, threads, options.memory_limit),
            || scheduled.iter().map(|e| lower::generate(e, frontend)).collect::<Vec<_>>(),
        );
        let (lasting, arenas) = planned?;
        clock.stage("codegen");
        let parts = phases.iter().flatten().flatten().flat_map(|p| &p.parts);
        let unique = jit::deduplicate(&parts.collect::<Vec<_>>());
        let module = jit::Module::new(self.level, isas, &unique.parts)?;
        clock.stage("compile");
        let mut functions = unique.index.iter().map(|&at| module.function(at));
        let entries = scheduled
            .iter()
            .zip(&phases)
            .zip(arenas)
            .map(|((entry, phases), arena)| {
                EntryCode::new(&program, entry, phases, arena, threads, &mut functions)
            })
            .collect();
        drop(scheduled);
        let mut pieces = Pieces { program, entries, lasting, module, pool, times: Vec::new() };
        clock.stage("link");
        pieces.times = clock.times;
        Ok(Box::new(CpuExecutable::new(pieces)?))
    }

    fn decide(&self, program: &Program, options: &BuildOptions) -> Result<Decisions, BuildError> {
        let (arranged, made) = arrange::explain(program, self.config(options));
        let facts = lower::facts(&arranged);
        let scheduled = lower::schedule(&arranged, &facts, self.config(options), &self.choices)?;
        let frontend = self.level.isa(Effort::Least)?.frontend_config();
        let threads = options.threads.unwrap_or_else(pool::available_threads);
        let of_entry = |entry: &ScheduledEntry| {
            let phases = lower::generate(entry, frontend);
            let leaves = entry.leaves.iter().zip(&entry.schedules).zip(&phases);
            let mut made: Vec<Vec<(&str, Decision)>> = vec![Vec::new(); entry.entry.kernels.len()];
            for ((leaf, schedule), phases) in leaves {
                let steps = leaf.loops.iter().product();
                let decision =
                    decision::decision(&leaf.kernel.form, schedule, phases, steps, threads);
                made[leaf.top].push((&leaf.kernel.name, decision));
            }
            let of_kernel = |(kernel, mut made): (&Kernel, Vec<(&str, Decision)>)| {
                let mut decision = match &kernel.form {
                    Form::Loop { steps, .. } => {
                        decision::of_loop(steps.as_const().unwrap_or(0), made)
                    }
                    _ => made.remove(0).1,
                };
                decision::add_moved(&mut decision, kernel, program, &arranged);
                decision
            };
            let kernels = entry.entry.kernels.iter();
            let mut decisions: Vec<Decision> = kernels.zip(made).map(of_kernel).collect();
            for beside in beside::beside(entry, &phases, threads) {
                decision::run_beside(&mut decisions, &entry.entry.kernels, &beside);
            }
            decisions
        };
        let kernels = scheduled.iter().map(of_entry).collect();
        drop(scheduled);
        drop(facts);
        Ok(Decisions { program: arranged, kernels, made })
    }

    fn emit(
        &self,
        stage: &str,
        program: &Program,
        options: &BuildOptions,
    ) -> Result<String, BuildError> {
        let program = &arrange::arrange(program, self.config(options));
        let facts = lower::facts(program);
        let scheduled = lower::schedule(program, &facts, self.config(options), &self.choices)?;
        match stage {
            "schedule" => Ok(listing::schedules(&scheduled)),
            "clif" => listing::clif(self.level, &scheduled),
            "asm" => listing::assembly(self.level, options.opt_level, &scheduled),
            _ => Err(BuildError::Machine(format!("{} has no stage `{stage}`", self.name()))),
        }
    }

    fn stages(&self) -> &'static [&'static str] {
        &["schedule", "clif", "asm"]
    }
}

/// Plans all memory, and refuses what exceeds the limit before anything is allocated.
fn plan(
    program: &Program,
    scheduled: &[ScheduledEntry],
    threads: usize,
    limit: Option<u64>,
) -> Result<(LastingPlan, Vec<ArenaPlan>), BuildError> {
    let lasting = LastingPlan::new(program, scheduled)?;
    let arena = |e: &ScheduledEntry| ArenaPlan::new(program, e, &lasting, threads);
    let arenas = scheduled.iter().map(arena).collect::<Result<Vec<_>, _>>()?;
    let (needed, limit) =
        (peak_bytes(&lasting, arenas.iter()), limit.unwrap_or_else(memory::default_limit));
    if needed > limit {
        return Err(BuildError::Memory { needed, limit });
    }
    Ok((lasting, arenas))
}
