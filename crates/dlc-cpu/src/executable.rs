//! A compiled program with its storage.
//!
//! Parameters, state and run-time scalars lie in one block for good; every call works in an arena
//! taken from a free list, or made if there is none, so that calls which update nothing run side by
//! side. Calls of all entries take turns in one arena if none runs beside another. A call that updates
//! is alone: the lock below is the discipline all the `unsafe` code here relies on.

mod run;

use crate::abi::{Context, SLACK};
use crate::codegen::When;
use crate::entry::{Action, Arena, EntryCode, Frame};
use crate::jit::Module;
use crate::lower::{ArenaPlan, LastingPlan, Place, is_lasting};
use crate::memory::Memory;
use crate::pool::Pool;
use crate::rooms::Room;
use crate::transfer::{self, copy_in, copy_out};
use dlc_kernel::{
    BufferId, BuildError, Class, DType, Data, Entry, Executable, Program, RunError, StageTime,
    Tensor,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

/// Bytes that loads outside their buffer read instead.
#[repr(align(64))]
struct Nowhere([u8; SLACK]);

static NOWHERE: Nowhere = Nowhere([0; SLACK]);

/// See [`Executable`].
pub struct CpuExecutable {
    program: Program,
    entries: Vec<EntryCode>,
    lasting: Memory,
    lasting_plan: LastingPlan,
    /// Those that no call works in.
    arenas: Mutex<Vec<Arena>>,
    /// Held for reading by calls that update nothing, for writing by those that do.
    lock: RwLock<()>,
    pool: Arc<Pool>,
    peak_bytes: u64,
    times: Vec<StageTime>,
    /// Owns the code that `entries` point into; nobody looks into it.
    _module: Mutex<Module>,
}

/// What a running call holds.
#[allow(dead_code, reason = "guards are only held")]
enum Permit<'l> {
    Shared(RwLockReadGuard<'l, ()>),
    Alone(RwLockWriteGuard<'l, ()>),
}

/// What [`CpuExecutable::new`] is made of.
pub struct Pieces {
    /// The program.
    pub program: Program,
    /// Its entries, compiled.
    pub entries: Vec<EntryCode>,
    /// The storage of what outlives calls.
    pub lasting: LastingPlan,
    /// The code.
    pub module: Module,
    /// The threads.
    pub pool: Arc<Pool>,
    /// How long the build took.
    pub times: Vec<StageTime>,
}

impl CpuExecutable {
    /// Allocates storage for compiled entries and sets run-time scalars to their defaults.
    ///
    /// # Errors
    /// [`BuildError::Memory`] if there is not enough.
    pub fn new(pieces: Pieces) -> Result<CpuExecutable, BuildError> {
        let start = Instant::now();
        let Pieces { program, entries, lasting: lasting_plan, module, pool, times } = pieces;
        let needed = peak_bytes(&lasting_plan, entries.iter().map(|e| &e.plan));
        let refused = || BuildError::Memory { needed, limit: needed.saturating_sub(1) };
        let lasting = Memory::new(lasting_plan.bytes).ok_or_else(refused)?;
        let mut executable = CpuExecutable {
            program,
            entries,
            lasting,
            lasting_plan,
            arenas: Mutex::default(),
            lock: RwLock::new(()),
            pool,
            peak_bytes: needed,
            times,
            _module: Mutex::new(module),
        };
        executable.set_defaults();
        let ms = start.elapsed().as_secs_f64() * 1e3;
        executable.times.push(StageTime { name: "allocate", ms });
        Ok(executable)
    }

    fn set_defaults(&self) {
        for (i, buffer) in self.program.buffers.iter().enumerate() {
            if buffer.class == Class::Scalar {
                let mut value = Tensor::zeros(buffer.dtype, Vec::new());
                match &mut value.data {
                    Data::F32(v) => v[0] = buffer.default as f32,
                    Data::F64(v) => v[0] = buffer.default,
                    Data::I64(v) => v[0] = buffer.default as i64,
                    Data::I32(v) => v[0] = buffer.default as i32,
                    Data::U8(v) => v[0] = buffer.default as u8,
                    Data::Bool(v) => v[0] = u8::from(buffer.default != 0.0),
                }
                let at = self.lasting.at(self.lasting_plan.offsets[&BufferId(i as u32)]);
                // SAFETY: `at` is the storage of this scalar, and nobody else has the executable
                // yet.
                unsafe { copy_in(&value.data, at) };
            }
        }
    }

    fn new_arena(&self) -> Option<Arena> {
        let bytes = self.entries.iter().map(|e| e.plan.bytes).max().unwrap_or(0);
        let mut arena = Arena::new(Memory::new(bytes)?, self.pool.workers());
        let entries = self.entries.iter().enumerate();
        let of_workers = |(at, entry): (usize, &EntryCode)| {
            let workers = 0..entry.step_workers() as u64;
            workers.map(|w| Mutex::new(self.frame((at, entry), w, &mut arena))).collect()
        };
        let frames = entries.map(of_workers).collect();
        Some(Arena { frames, ..arena })
    }

    /// How the kernels of an entry that a worker runs see `arena`.
    fn frame(&self, (at, entry): (usize, &EntryCode), worker: u64, arena: &mut Arena) -> Frame {
        let kept = &self.lasting_plan.workspaces[at];
        let mut frame = Frame::default();
        for run in entry.runs() {
            let Action::Run { parts, leaf, scratch_stride, shared_stride, .. } = run else {
                continue;
            };
            let (shared, scratch) = entry.plan.workspaces[*leaf];
            let rooms = self.pool.workers() as u64 * *scratch_stride as u64;
            if rooms > 0 {
                arena.memory.populate(scratch..scratch + rooms + SLACK as u64);
            }
            for (number, part) in parts.iter().enumerate() {
                let address = |id: &BufferId| {
                    let room = entry.rooms.get(id).map_or(0, Room::stride);
                    self.address(entry, &arena.memory, *id).wrapping_add((worker * room) as usize)
                };
                let operands: Box<[*mut u8]> = part.operands.iter().map(address).collect();
                let context = Context {
                    operands: std::ptr::null(),
                    errors: arena.errors.as_mut_ptr(),
                    lasting: self.lasting.at(kept[*leaf]),
                    shared: arena.memory.at(shared + worker * shared_stride),
                    scratch: arena.memory.at(scratch),
                    scratch_stride: *scratch_stride,
                    nowhere: NOWHERE.0.as_ptr(),
                    part: number as i64,
                };
                frame.add_context(operands, context);
            }
        }
        frame
    }

    fn address(&self, entry: &EntryCode, arena: &Memory, id: BufferId) -> *mut u8 {
        match entry.plan.places[&id] {
            Place::Lasting(offset) => self.lasting.at(offset),
            Place::Arena(offset) => arena.at(offset),
        }
    }

    /// What depends on parameters will be packed anew by the next calls of these entries.
    fn parameters_changed(&self, which: impl Fn(&EntryCode) -> bool) {
        for entry in self.entries.iter().filter(|e| which(e)) {
            entry.stale.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until a call of the entry may run, with all it has packed up to date.
    fn enter(&self, at: usize, code: &EntryCode) -> Result<Permit<'_>, RunError> {
        loop {
            if !code.updates {
                let shared = self.lock.read().unwrap_or_else(|e| e.into_inner());
                if !code.stale.load(Ordering::Relaxed) {
                    return Ok(Permit::Shared(shared));
                }
            }
            let alone = self.lock.write().unwrap_or_else(|e| e.into_inner());
            if code.stale.load(Ordering::Relaxed) {
                self.pack(at, code)?;
            }
            if code.updates {
                return Ok(Permit::Alone(alone));
            }
        }
    }

    /// Packs what depends on parameters; the caller is alone.
    fn pack(&self, at: usize, code: &EntryCode) -> Result<(), RunError> {
        let mut arena = self.take_arena()?;
        let result = self.run(at, code, When::Load, &mut arena, None);
        self.give_back(arena);
        code.stale.store(result.is_err(), Ordering::Relaxed);
        result
    }

    fn take_arena(&self) -> Result<Arena, RunError> {
        let free = self.arenas.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let full = || RunError::Usage("there is no memory for the temporaries of a call".into());
        free.or_else(|| self.new_arena()).ok_or_else(full)
    }

    fn give_back(&self, arena: Arena) {
        self.arenas.lock().unwrap_or_else(|e| e.into_inner()).push(arena);
    }

    /// A call, with the time of each kernel if that is asked for.
    fn call_timed(
        &self,
        at: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
        seconds: Option<&mut [f64]>,
    ) -> Result<(), RunError> {
        let none = || RunError::Usage(format!("there is no entry {at}"));
        let (entry, code) =
            self.program.entries.get(at).zip(self.entries.get(at)).ok_or_else(none)?;
        self.accept(entry, inputs, outputs)?;
        let permit = self.enter(at, code)?;
        let mut arena = self.take_arena()?;
        let (inputs_lent, outputs_lent) = code.outside.split_at(inputs.len());
        for (lent, tensor) in inputs_lent.iter().zip(inputs) {
            let own = self.address(code, &arena.memory, lent.buffer);
            let address = transfer::readable(tensor).filter(|_| lent.named.is_some());
            arena.bind(at, lent, address.unwrap_or(own));
            if address.is_none() {
                // SAFETY: the address is this call's storage of the input, whose type and shape
                // the tensor was checked to have.
                unsafe { copy_in(&tensor.data, own) };
            }
        }
        for (lent, tensor) in outputs_lent.iter().zip(&mut *outputs) {
            let own = self.address(code, &arena.memory, lent.buffer);
            arena.bind(at, lent, transfer::writable(tensor).unwrap_or(own));
        }
        let result = self.run(at, code, When::Call, &mut arena, seconds);
        if code.updates {
            self.parameters_changed(|entry| entry.depends_on(code));
        }
        if result.is_ok() {
            for (lent, tensor) in outputs_lent.iter().zip(outputs) {
                if lent.named.is_none() || transfer::writable(tensor).is_none() {
                    let own = self.address(code, &arena.memory, lent.buffer);
                    // SAFETY: as for inputs; the lock is still held for outputs that outlive calls.
                    unsafe { copy_out(own, &mut tensor.data) };
                }
            }
        }
        drop(permit);
        self.give_back(arena);
        result
    }

    fn lasting_buffer(&self, name: &str) -> Result<BufferId, RunError> {
        let found = self.program.buffers.iter().position(|b| b.name == name && is_lasting(b.class));
        let found = found.map(|i| BufferId(i as u32));
        let none = || RunError::Usage(format!("there is no parameter, state or scalar `{name}`"));
        found.ok_or_else(none)
    }

    fn accept(
        &self,
        entry: &Entry,
        inputs: &[&Tensor],
        outputs: &[Tensor],
    ) -> Result<(), RunError> {
        for (what, wanted, given) in [
            ("inputs", entry.inputs.len(), inputs.len()),
            ("outputs", entry.outputs.len(), outputs.len()),
        ] {
            if wanted != given {
                let name = &entry.name;
                let message = format!("entry `{name}` has {wanted} {what}, {given} were given");
                return Err(RunError::Usage(message));
            }
        }
        let given = inputs.iter().copied().chain(outputs);
        let buffers = entry.inputs.iter().chain(&entry.outputs);
        buffers.zip(given).try_for_each(|(&id, tensor)| self.fits(id, tensor))
    }

    fn fits(&self, id: BufferId, tensor: &Tensor) -> Result<(), RunError> {
        let buffer = self.program.buffer(id);
        let shape: Vec<usize> = shape(buffer);
        if tensor.dtype() == buffer.dtype && tensor.shape == shape {
            return Ok(());
        }
        Err(RunError::Usage(format!(
            "`{}` is {}{shape:?}, but {}{:?} was given",
            buffer.name,
            buffer.dtype,
            tensor.dtype(),
            tensor.shape
        )))
    }
}

fn shape(buffer: &dlc_kernel::Buffer) -> Vec<usize> {
    let extent = |s: &dlc_kernel::Size| s.as_const().expect("sizes were bound when built") as usize;
    buffer.shape.iter().map(extent).collect()
}

/// Bytes of lasting storage and of the largest arena.
pub fn peak_bytes<'a>(lasting: &LastingPlan, arenas: impl Iterator<Item = &'a ArenaPlan>) -> u64 {
    lasting.bytes.saturating_add(arenas.map(|a| a.bytes).max().unwrap_or(0))
}

impl Executable for CpuExecutable {
    fn program(&self) -> &Program {
        &self.program
    }

    fn call(&self, at: usize, inputs: &[&Tensor], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.call_timed(at, inputs, outputs, None)
    }

    fn profile(
        &self,
        at: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
        seconds: &mut [f64],
    ) -> Result<(), RunError> {
        self.call_timed(at, inputs, outputs, Some(seconds))
    }

    fn read(&self, name: &str) -> Result<Tensor, RunError> {
        let id = self.lasting_buffer(name)?;
        let buffer = self.program.buffer(id);
        if matches!(buffer.dtype, DType::F16 | DType::Bf16 | DType::I8) {
            let message = format!("`{name}` is of type {}, which has no tensor", buffer.dtype);
            return Err(RunError::Usage(message));
        }
        let mut tensor = Tensor::zeros(buffer.dtype, shape(buffer));
        let _shared = self.lock.read().unwrap_or_else(|e| e.into_inner());
        // SAFETY: the buffer's own storage, which nobody writes while the lock is held.
        unsafe { copy_out(self.lasting.at(self.lasting_plan.offsets[&id]), &mut tensor.data) };
        Ok(tensor)
    }

    fn write(&self, name: &str, value: &Tensor) -> Result<(), RunError> {
        let id = self.lasting_buffer(name)?;
        self.fits(id, value)?;
        let _alone = self.lock.write().unwrap_or_else(|e| e.into_inner());
        // SAFETY: the buffer's own storage, which nobody else uses while the lock is held.
        unsafe { copy_in(&value.data, self.lasting.at(self.lasting_plan.offsets[&id])) };
        self.parameters_changed(|entry| entry.packs_of(id));
        Ok(())
    }

    fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    fn stage_times(&self) -> &[StageTime] {
        &self.times
    }
}
