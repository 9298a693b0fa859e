//! The interpreter: runs a [`DeviceProgram`] on a device that exists in memory only, lane by lane,
//! and finds what a GPU would let pass.
//!
//! Blocks run one after the other, their warps in turns between barriers, the lanes of a warp in
//! step. Errors are: an access out of the buffer that its address is based on, or misaligned; a
//! read of a register or of memory that nobody wrote, copies under way included; two warps that
//! touch the same memory between two barriers, or two blocks the same device memory, one of them
//! writing and not both atomically; a store to what the launch reads as read-only; two lanes that
//! store to one place; a barrier that not all threads reach; a warp instruction that not all lanes
//! take part in.
//!
//! Approximate instructions are as wrong as PTX allows. What is not modelled is time; lanes
//! of one warp are always in step. There is no fence among the instructions, and none is needed: what
//! blocks hand to one another they hand on from launch to launch, and all else in one launch is a race.

mod block;
mod code;
mod compute;
mod matrix;
mod memory;
mod scalar;
mod traffic;
mod warp;

pub use memory::Wrong;

use crate::device::{Arg, DeviceProgram, ErrorRecord, Launch};
use crate::ir::Kernel;
use block::{Block, Setting};
use code::Step;
use dlc_kernel::{Class, DType, Data, RunError, Tensor};
use memory::{Global, Window};

/// What is wrong with an instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A register is read that nobody wrote.
    #[error("uninitialized register {0}")]
    Register(String),
    /// An access to memory.
    #[error("{0}")]
    Memory(#[from] Wrong),
    /// Not all threads of the block reach a barrier together.
    #[error("divergent barrier")]
    Barrier,
    /// Not all lanes take part in what a whole warp does.
    #[error("divergent warp instruction")]
    Divergent,
    /// A trap.
    #[error("trap")]
    Trap,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// As on every target.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The code left elements of an output as they were.
    #[error("not all of output `{0}` is written")]
    Unwritten(String),
    /// The code is wrong.
    #[error("{launch}: block {block:?}, warp {warp}, lanes {lanes:#010x}: `{inst}`: {fault}")]
    Fault {
        /// The launch.
        launch: String,
        /// The block.
        block: [u32; 3],
        /// The warp.
        warp: u32,
        /// The lanes that took part.
        lanes: u32,
        /// The instruction.
        inst: String,
        /// What is wrong.
        fault: Fault,
    },
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions, each once for a warp.
    pub instructions: u64,
    /// Bytes loaded from device memory.
    pub loaded: u64,
    /// Bytes stored to device memory.
    pub stored: u64,
    /// Sectors of 32 bytes that accesses of warps to device memory touched.
    pub sectors: u64,
    /// Repetitions of accesses to shared memory, for banks that several lanes wanted.
    pub conflicts: u64,
}

/// A device with a program on it.
pub struct Device<'p> {
    program: &'p DeviceProgram,
    global: Global,
    steps: Vec<Vec<Step>>,
}

impl<'p> Device<'p> {
    /// All that lasts is 0, run-time scalars have their defaults.
    pub fn new(program: &'p DeviceProgram) -> Device<'p> {
        let steps = program.module.kernels.iter().map(|k| code::flatten(&k.body)).collect();
        let mut device = Device { program, global: Global::new(program.bytes), steps };
        for buffer in &program.buffers {
            if is_lasting(buffer.class) {
                let count = buffer.elements() as usize;
                let bytes: Vec<u8> = element(buffer.dtype, buffer.default).repeat(count);
                device.global.write(buffer.offset, &bytes);
            }
        }
        device
    }

    /// A parameter, state or run-time scalar.
    pub fn read(&self, name: &str) -> Result<Tensor, RunError> {
        Ok(self.tensor(self.lasting(name)?))
    }

    /// Sets a parameter, state or run-time scalar.
    pub fn write(&mut self, name: &str, value: &Tensor) -> Result<(), RunError> {
        let buffer = self.lasting(name)?;
        self.set(buffer, value)
    }

    /// Runs the entry of that position; gives its outputs, and what each launch did, at every step.
    pub fn call(
        &mut self,
        entry: usize,
        inputs: &[Tensor],
    ) -> Result<(Vec<Tensor>, Vec<Counters>), Failure> {
        let entry = &self.program.entries[entry];
        for buffer in &self.program.buffers {
            if !is_lasting(buffer.class) {
                self.global.forget(buffer.offset, buffer.bytes);
            }
        }
        for (&buffer, value) in entry.inputs.iter().zip(inputs) {
            self.set(buffer, value)?;
        }
        self.global.write(self.program.error, &[0; ErrorRecord::BYTES as usize]);
        let mut counters = Vec::new();
        for work in entry.kernels.iter().flatten() {
            work.run(&mut |launch, steps| -> Result<(), Failure> {
                counters.push(self.launch(launch, steps)?);
                Ok(())
            })?;
        }
        if let Some(error) = entry.failure(self.error()) {
            return Err(error.into());
        }
        for buffer in entry.outputs.iter().map(|&b| &self.program.buffers[b]) {
            if !self.global.is_written(buffer.offset, buffer.bytes) {
                return Err(Failure::Unwritten(buffer.name.clone()));
            }
        }
        let outputs = entry.outputs.iter().map(|&b| self.tensor(b)).collect();
        Ok((outputs, counters))
    }

    fn error(&self) -> ErrorRecord {
        ErrorRecord::from_bytes(self.global.read(self.program.error, ErrorRecord::BYTES))
    }

    fn launch(&mut self, launch: &Launch, around: &[u32]) -> Result<Counters, Failure> {
        let kernel = &self.program.module.kernels[launch.kernel];
        let mut windows = Vec::new();
        let mut params = Vec::new();
        for arg in &launch.args {
            params.push(match *arg {
                Arg::Address { offset, bytes } => {
                    windows.push(Window { offset, bytes });
                    Window::address(windows.len() - 1)
                }
                Arg::Word(word) => u64::from(word),
                Arg::Step(k) => u64::from(around[k as usize]),
            });
        }
        self.global.begin(&windows);
        let steps = &self.steps[launch.kernel];
        let setting =
            Setting { kernel, steps, grid: launch.grid, params: &params, windows: &windows };
        let mut counters = Counters::default();
        let [x, y, z] = launch.grid;
        for index in 0..u64::from(x) * u64::from(y) * u64::from(z) {
            let (x, y) = (u64::from(x), u64::from(y));
            let position = [index % x, index / x % y, index / x / y].map(|i| i as u32);
            let block = Block::new(&setting, &mut self.global, &mut counters, position);
            block
                .run()
                .map_err(|(fault, site)| failure(launch, kernel, steps, position, fault, &site))?;
        }
        Ok(counters)
    }

    fn lasting(&self, name: &str) -> Result<usize, RunError> {
        let found = self.program.buffers.iter().position(|b| b.name == name && is_lasting(b.class));
        found.ok_or_else(|| RunError::Usage(format!("there is no parameter or state `{name}`")))
    }

    fn set(&mut self, buffer: usize, value: &Tensor) -> Result<(), RunError> {
        let buffer = &self.program.buffers[buffer];
        let shape: Vec<u64> = value.shape.iter().map(|&n| n as u64).collect();
        if buffer.dtype != value.dtype() || buffer.shape != shape {
            let (name, dtype, own) = (&buffer.name, buffer.dtype, &buffer.shape);
            return Err(RunError::Usage(format!("`{name}` is {dtype}{own:?}, not {shape:?}")));
        }
        let bytes: Vec<u8> = match &value.data {
            Data::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U8(x) | Data::Bool(x) => x.clone(),
        };
        self.global.write(buffer.offset, &bytes);
        Ok(())
    }

    fn tensor(&self, buffer: usize) -> Tensor {
        let buffer = &self.program.buffers[buffer];
        let bytes = self.global.read(buffer.offset, buffer.bytes);
        let words = || bytes.chunks_exact(4).map(|b| b.try_into().expect("four bytes"));
        let doubles = || bytes.chunks_exact(8).map(|b| b.try_into().expect("eight bytes"));
        let data = match buffer.dtype {
            DType::F32 => Data::F32(words().map(f32::from_le_bytes).collect()),
            DType::I32 => Data::I32(words().map(i32::from_le_bytes).collect()),
            DType::F64 => Data::F64(doubles().map(f64::from_le_bytes).collect()),
            DType::I64 => Data::I64(doubles().map(i64::from_le_bytes).collect()),
            DType::Bool => Data::Bool(bytes.to_vec()),
            _ => Data::U8(bytes.to_vec()),
        };
        Tensor::new(buffer.shape.iter().map(|&n| n as usize).collect(), data)
    }
}

fn failure(
    launch: &Launch,
    kernel: &Kernel,
    steps: &[Step],
    block: [u32; 3],
    fault: Fault,
    site: &block::Site,
) -> Failure {
    let inst = match steps.get(site.step) {
        Some(Step::Inst(_, inst)) => inst.to_string(),
        _ => "a branch".to_string(),
    };
    let launch = format!("{} ({})", kernel.name, launch.name);
    Failure::Fault { launch, block, warp: site.warp, lanes: site.lanes, inst, fault }
}

fn is_lasting(class: Class) -> bool {
    matches!(class, Class::Param | Class::State | Class::Scalar)
}

/// The bytes of one element.
fn element(dtype: DType, value: f64) -> Vec<u8> {
    match dtype {
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::I32 => (value as i32).to_le_bytes().to_vec(),
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::I64 => (value as i64).to_le_bytes().to_vec(),
        _ => vec![value as u8; dtype.bytes()],
    }
}
