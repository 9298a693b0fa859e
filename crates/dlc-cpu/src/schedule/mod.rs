//! The target's own decisions for every kernel, made before any code: what is parallel, what is
//! vectorized, how loops are blocked. Printed by `--emit schedule`, one file for each form.

pub mod abreast;
pub mod contract;
pub mod crossed;
pub mod deviation;
pub mod domain;
pub mod lanes;
pub mod map;
pub mod passes;
pub mod row;
pub mod scatter;
pub mod stretch;
pub mod tail;
pub mod window;

use crate::caches::Caches;
use crate::datapath::Datapath;
use crate::level::Level;
use crate::rooms::Rooms;
use contract::{Choices, ContractSchedule};
use dlc_kernel::plan::Aliases;
use dlc_kernel::region::Regions;
use dlc_kernel::{Buffer, BufferId, DType, ExprId, Form, Kernel, OptLevel, Program, Store};
use domain::{Domain, Place};
use map::MapSchedule;
use row::RowSchedule;
use rustc_hash::FxHashSet;
use std::fmt;

/// What every decision may depend on, besides the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The instruction set.
    pub level: Level,
    /// The caches that blocks are made for. Sums do not depend on them.
    pub caches: Caches,
    /// How wide vectors are computed. Sums do not depend on it either.
    pub datapath: Datapath,
    /// How hard to try.
    pub opt_level: OptLevel,
    /// See [`dlc_kernel::BuildOptions::exact_conv`].
    pub exact_conv: bool,
}

/// Memory a kernel needs besides its buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workspace {
    /// Bytes that live as long as the executable: what is packed when parameters change.
    pub lasting: usize,
    /// Bytes that all workers and phases share.
    pub shared: usize,
    /// Bytes for each worker.
    pub scratch: usize,
}

/// The program around a kernel, as far as its schedule depends on it.
#[derive(Clone, Copy)]
pub struct Site<'k> {
    /// The program.
    pub program: &'k Program,
    /// Which buffers live in the storage of others.
    pub aliases: &'k Aliases,
    /// Which temporaries need not have all of their elements at once.
    pub rooms: &'k Rooms,
    /// Parameters and state that the kernel's entry never writes.
    pub fixed: &'k FxHashSet<BufferId>,
    /// Which elements of temporaries matter.
    pub regions: &'k Regions,
    /// What everything is made for.
    pub config: Config,
    /// What measurements have chosen for contractions.
    pub choices: &'k Choices,
    /// How many loops are around the kernel: as many axes are steps, and come first. The units of a
    /// step follow those of the one before.
    pub steps: usize,
    /// What the outermost of them writes.
    pub changing: Option<&'k FxHashSet<BufferId>>,
}

impl Site<'_> {
    /// Bytes of some buffers.
    fn bytes(&self, buffers: impl IntoIterator<Item = BufferId>) -> usize {
        let bytes = |id| {
            let buffer = self.program.buffer(id);
            let whole = || buffer.elements().unwrap_or(0).saturating_mul(buffer.dtype.bytes());
            self.rooms.get(&id).map_or_else(whole, |room| room.bytes as usize)
        };
        buffers.into_iter().map(bytes).fold(0, usize::saturating_add)
    }
}

/// How one kernel is computed.
#[derive(Clone, Debug)]
pub enum Schedule<'k> {
    /// One schedule for each segment.
    Map(Vec<MapSchedule<'k>>),
    /// Folds over rows.
    Row(Box<RowSchedule<'k>>),
    /// A contraction.
    Contract(Box<ContractSchedule<'k>>),
    /// A serial loop over the updates.
    Scatter(Box<scatter::ScatterSchedule<'k>>),
    /// Nothing: two buffers share their storage.
    Shared {
        /// Read.
        src: BufferId,
        /// Written.
        dst: BufferId,
    },
    /// Bytes are copied.
    Copy {
        /// Read.
        src: BufferId,
        /// Written.
        dst: BufferId,
    },
    /// A scan of each buffer.
    Check(CheckSchedule),
}

/// How a check is computed.
#[derive(Clone, Debug)]
pub struct CheckSchedule {
    /// What it is made for.
    pub config: Config,
    /// What is scanned; integers are always finite.
    pub buffers: Vec<CheckedBuffer>,
}

/// A buffer whose elements must be finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedBuffer {
    /// The buffer.
    pub buffer: BufferId,
    /// Its elements.
    pub elements: i64,
}

/// A store, its access resolved.
#[derive(Clone, Debug)]
pub struct PlacedStore {
    /// The destination.
    pub buffer: BufferId,
    /// Its storage type.
    pub dtype: DType,
    /// Where.
    pub place: Place,
    /// What.
    pub value: ExprId,
}

/// Resolves the places of stores, in order.
///
/// # Errors
/// If a size is not bound.
pub fn place_stores<'s>(
    site: Site,
    domain: &Domain,
    stores: impl IntoIterator<Item = &'s Store>,
) -> Result<Vec<PlacedStore>, String> {
    let resolve = |s: &Store| {
        let place = domain.resolve(site, s.buffer, &s.access, &[])?;
        let dtype = site.program.buffer(s.buffer).dtype;
        Ok(PlacedStore { buffer: s.buffer, dtype, place, value: s.value })
    };
    stores.into_iter().map(resolve).collect()
}

/// Refuses buffers that kernels cannot compute with.
///
/// # Errors
/// If the buffer's type is for storage only.
pub fn require_computing(buffer: &Buffer) -> Result<(), String> {
    if buffer.dtype.computes() {
        return Ok(());
    }
    Err(format!("`{}` is of type {}, which kernels only copy", buffer.name, buffer.dtype))
}

impl<'k> Site<'k> {
    /// The buffer whose storage `buffer` lives in.
    pub fn storage(&self, buffer: BufferId) -> BufferId {
        self.aliases.get(&buffer).copied().unwrap_or(buffer)
    }
}

impl<'k> Schedule<'k> {
    /// The schedule of a kernel with all sizes bound.
    ///
    /// # Errors
    /// If a size is not bound, there are too many axes, or a type is for storage only.
    pub fn new(site: Site<'k>, kernel: &'k Kernel) -> Result<Schedule<'k>, String> {
        let program = site.program;
        if !matches!(kernel.form, Form::Reshape { .. }) {
            let touched = kernel.reads().into_iter().chain(kernel.writes());
            touched.map(|id| program.buffer(id)).try_for_each(require_computing)?;
        }
        Ok(match &kernel.form {
            Form::Map { segments } => {
                let schedules = segments.iter().map(|s| MapSchedule::new(site, s));
                Schedule::Map(schedules.collect::<Result<_, _>>()?)
            }
            Form::Row { .. } => Schedule::Row(Box::new(RowSchedule::new(site, &kernel.form)?)),
            Form::Contract { .. } => {
                Schedule::Contract(Box::new(ContractSchedule::new(site, &kernel.form)?))
            }
            Form::Scatter { .. } => {
                Schedule::Scatter(Box::new(scatter::ScatterSchedule::new(site, &kernel.form)?))
            }
            &Form::Reshape { src, dst } if site.storage(src) == site.storage(dst) => {
                Schedule::Shared { src, dst }
            }
            &Form::Reshape { src, dst } => Schedule::Copy { src, dst },
            Form::Loop { .. } => unreachable!("the kernels of a loop are scheduled one by one"),
            Form::Check { buffers } => {
                let buffers = checked_buffers(program, buffers)?;
                Schedule::Check(CheckSchedule { config: site.config, buffers })
            }
        })
    }

    /// Whether something of it is done in every call before the loops around.
    pub fn prepares_loops(&self) -> bool {
        let Schedule::Contract(contract) = self else { return false };
        let mut stages = contract.stages().into_iter();
        stages.any(|stage| contract.loops(stage) == 0 && !contract.is_at_load(stage))
    }

    /// Memory it needs besides its buffers.
    pub fn workspace(&self) -> Workspace {
        match self {
            Schedule::Contract(contract) => contract.workspace(),
            Schedule::Row(row) => row.workspace(),
            Schedule::Map(segments) => {
                let scratch = segments.iter().map(MapSchedule::scratch_bytes).max().unwrap_or(0);
                Workspace { scratch, ..Workspace::default() }
            }
            _ => Workspace::default(),
        }
    }
}

/// Those of a check's buffers that are scanned.
pub fn scanned<'b>(
    program: &'b Program,
    buffers: &'b [BufferId],
) -> impl Iterator<Item = BufferId> + 'b {
    buffers.iter().copied().filter(|&id| program.buffer(id).dtype == DType::F32)
}

fn checked_buffers(program: &Program, buffers: &[BufferId]) -> Result<Vec<CheckedBuffer>, String> {
    let checked = |buffer| {
        let shape = domain::extents(&program.buffer(buffer).shape)?;
        Ok(CheckedBuffer { buffer, elements: shape.iter().product() })
    };
    scanned(program, buffers).map(checked).collect()
}

impl fmt::Display for Schedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Map(segments) => {
                for (i, segment) in segments.iter().enumerate() {
                    write!(f, "{}{segment}", if i > 0 { "\n" } else { "" })?;
                }
                Ok(())
            }
            Schedule::Row(row) => row.fmt(f),
            Schedule::Contract(contract) => contract.fmt(f),
            Schedule::Scatter(scatter) => scatter.fmt(f),
            Schedule::Shared { src, dst } => write!(f, "b{} lives in b{}", dst.0, src.0),
            Schedule::Copy { src, dst } => write!(f, "copy b{} to b{}", src.0, dst.0),
            Schedule::Check(check) => {
                let names: Vec<String> = check
                    .buffers
                    .iter()
                    .map(|b| format!("b{} [{}]", b.buffer.0, b.elements))
                    .collect();
                write!(f, "check {}", names.join(", "))
            }
        }
    }
}
