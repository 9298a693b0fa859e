//! A program on the GPU: one allocation, one stream, a recorded graph of launches for each entry.
//!
//! Calls take turns. An entry's launches were recorded once, with all addresses; a call copies
//! inputs, replays them, and copies outputs and the error record back. What loops make too many for a
//! graph is launched one by one, at every call.

use super::cubin::cached;
use super::driver::{self, Context, Function, Graph, Memory, Module, Refused, Stream};
use crate::device::{Arg, DeviceEntry, DeviceProgram, ErrorRecord, Launch, Work};
use crate::gpu::NoGpu;
use crate::group::Grouped;
use crate::manifest::Manifest;
use crate::{Gpu, PtxTarget};
use dlc_kernel::{
    BuildError, BuildOptions, Class, DType, Data, Executable, Program, RunError, StageTime, Tensor,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// See [`Executable`].
pub struct CudaExecutable {
    program: Program,
    code: DeviceProgram,
    /// Whoever holds it is alone on the device with this program.
    device: Mutex<Device>,
    times: Vec<StageTime>,
}

/// The most launches of an entry that are recorded: a graph holds every step of a loop.
const RECORDED: u64 = 1 << 16;

/// What lives on the device; freed from the first to the last.
struct Device {
    /// By entry, its launches if they are recorded.
    graphs: Vec<Option<Graph>>,
    functions: Vec<Function>,
    stream: Stream,
    memory: Memory,
    _module: Module,
}

impl CudaExecutable {
    /// Compiles, assembles, allocates, and records every entry.
    ///
    /// # Errors
    /// If the memory does not suffice, or the driver fails.
    pub fn new(
        target: PtxTarget,
        program: &Program,
        options: &BuildOptions,
        gpu: &Gpu,
        context: Arc<Context>,
    ) -> Result<CudaExecutable, BuildError> {
        let mut times = Vec::new();
        let mut start = Instant::now();
        let mut stage = |name| {
            let ms = start.elapsed().as_secs_f64() * 1e3;
            times.push(StageTime { name, ms });
            start = Instant::now();
        };
        let code = target.compile(program)?;
        let ptx = code.ptx();
        stage("compile");
        let assemble = || driver::link(&context, &ptx);
        let cubin = cached(options.cache.as_deref(), gpu, &ptx, assemble).map_err(refused)?;
        stage("assemble");
        let limit = context.free_bytes().map_err(refused)?;
        let limit = options.memory_limit.map_or(limit, |own| own.min(limit));
        if code.bytes > limit {
            return Err(BuildError::Memory { needed: code.bytes, limit });
        }
        let device = Device::new(&context, &code, &cubin).map_err(refused)?;
        stage("load");
        let program = Grouped::new(program, target.math).program;
        Ok(CudaExecutable { program, code, device: Mutex::new(device), times })
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, at: usize) -> Result<&DeviceEntry, RunError> {
        let none = || RunError::Usage(format!("there is no entry {at}"));
        self.code.entries.get(at).ok_or_else(none)
    }

    /// Copies inputs, does `work`, and copies outputs and the error record back.
    fn call_with(
        &self,
        at: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
        work: impl FnOnce(&Device, &DeviceEntry) -> Result<(), Refused>,
    ) -> Result<(), RunError> {
        let entry = self.entry(at)?;
        self.accept(entry, inputs, outputs)?;
        let device = self.device();
        for (&buffer, tensor) in entry.inputs.iter().zip(inputs) {
            device.upload(self.code.buffers[buffer].offset, &tensor.data).map_err(failed)?;
        }
        work(&device, entry).map_err(failed)?;
        let record = device.error(&self.code).map_err(failed)?;
        if let Some(error) = entry.failure(record) {
            return Err(error);
        }
        for (&buffer, tensor) in entry.outputs.iter().zip(outputs) {
            device.download(self.code.buffers[buffer].offset, &mut tensor.data).map_err(failed)?;
        }
        Ok(())
    }

    fn accept(
        &self,
        entry: &DeviceEntry,
        inputs: &[&Tensor],
        outputs: &[Tensor],
    ) -> Result<(), RunError> {
        let wanted = (entry.inputs.len(), entry.outputs.len());
        if wanted != (inputs.len(), outputs.len()) {
            let (name, (ins, outs)) = (&entry.name, wanted);
            let message = format!("entry `{name}` has {ins} inputs and {outs} outputs");
            return Err(RunError::Usage(message));
        }
        let buffers = entry.inputs.iter().chain(&entry.outputs);
        let given = inputs.iter().copied().chain(outputs);
        buffers.zip(given).try_for_each(|(&buffer, tensor)| self.fits(buffer, tensor))
    }

    fn fits(&self, buffer: usize, tensor: &Tensor) -> Result<(), RunError> {
        let buffer = &self.code.buffers[buffer];
        let same = buffer.shape.iter().copied().eq(tensor.shape.iter().map(|&n| n as u64));
        if same && tensor.dtype() == buffer.dtype {
            return Ok(());
        }
        Err(RunError::Usage(format!(
            "`{}` is {}{:?}, but {}{:?} was given",
            buffer.name,
            buffer.dtype,
            buffer.shape,
            tensor.dtype(),
            tensor.shape
        )))
    }

    fn lasting(&self, name: &str) -> Result<usize, RunError> {
        let lasts = |class| matches!(class, Class::Param | Class::State | Class::Scalar);
        let found = self.code.buffers.iter().position(|b| b.name == name && lasts(b.class));
        let none = || RunError::Usage(format!("there is no parameter, state or scalar `{name}`"));
        found.ok_or_else(none)
    }
}

fn refused(error: Refused) -> BuildError {
    NoGpu::Driver(error.to_string()).into()
}

fn failed(error: Refused) -> RunError {
    RunError::Device(error.to_string())
}

impl Device {
    fn new(context: &Arc<Context>, code: &DeviceProgram, cubin: &[u8]) -> Result<Device, Refused> {
        let module = Module::load(context, cubin)?;
        let facts = Manifest::new(code, "").kernels;
        let functions =
            facts.iter().map(|k| module.function(&k.name, k.threads, k.dynamic_shared_bytes));
        let mut device = Device {
            graphs: Vec::new(),
            functions: functions.collect::<Result<_, _>>()?,
            stream: Stream::new(context)?,
            memory: Memory::new(context, code.bytes)?,
            _module: module,
        };
        device.set_first_values(code)?;
        let record = |entry: &DeviceEntry| {
            let few = entry.count() <= RECORDED;
            few.then(|| device.stream.capture(|| device.enqueue(code, entry))).transpose()
        };
        device.graphs = code.entries.iter().map(record).collect::<Result<_, _>>()?;
        Ok(device)
    }

    /// Zeros, but for run-time scalars.
    fn set_first_values(&self, code: &DeviceProgram) -> Result<(), Refused> {
        self.stream.clear(&self.memory, 0, code.bytes)?;
        for buffer in code.buffers.iter().filter(|b| b.class == Class::Scalar) {
            self.upload(buffer.offset, &scalar(buffer.dtype, buffer.default))?;
        }
        self.stream.wait()
    }

    /// A call of an entry without its copies.
    fn enqueue(&self, code: &DeviceProgram, entry: &DeviceEntry) -> Result<(), Refused> {
        self.stream.clear(&self.memory, code.error, ErrorRecord::BYTES)?;
        entry.kernels.iter().try_for_each(|works| self.launch_all(works))
    }

    fn launch_all(&self, works: &[Work<Launch>]) -> Result<(), Refused> {
        let mut launch = |launch: &Launch, steps: &[u32]| self.launch(launch, steps);
        works.iter().try_for_each(|work| work.run(&mut launch))
    }

    fn launch(&self, launch: &Launch, steps: &[u32]) -> Result<(), Refused> {
        let value = |arg: &Arg| match *arg {
            Arg::Address { offset, bytes } => self.memory.at(offset, bytes),
            Arg::Word(word) => u64::from(word),
            Arg::Step(k) => u64::from(steps[k as usize]),
        };
        let args: Vec<u64> = launch.args.iter().map(value).collect();
        // SAFETY: a launch has an argument for each of its kernel's parameters, and kernels touch
        // what their arguments point to and nothing else, as the interpreter checks; the memory is
        // freed after the stream, which finishes all work.
        unsafe { self.stream.launch(&self.functions[launch.kernel], launch.grid, &args) }
    }

    fn error(&self, code: &DeviceProgram) -> Result<ErrorRecord, Refused> {
        let mut bytes = [0u8; ErrorRecord::BYTES as usize];
        self.stream.download(&self.memory, code.error, &mut bytes)?;
        Ok(ErrorRecord::from_bytes(&bytes))
    }

    fn upload(&self, offset: u64, data: &Data) -> Result<(), Refused> {
        let Device { stream, memory, .. } = self;
        match data {
            Data::F32(v) => stream.upload(memory, offset, v),
            Data::F64(v) => stream.upload(memory, offset, v),
            Data::I64(v) => stream.upload(memory, offset, v),
            Data::I32(v) => stream.upload(memory, offset, v),
            Data::U8(v) | Data::Bool(v) => stream.upload(memory, offset, v),
        }
    }

    fn download(&self, offset: u64, data: &mut Data) -> Result<(), Refused> {
        let Device { stream, memory, .. } = self;
        match data {
            Data::F32(v) => stream.download(memory, offset, v),
            Data::F64(v) => stream.download(memory, offset, v),
            Data::I64(v) => stream.download(memory, offset, v),
            Data::I32(v) => stream.download(memory, offset, v),
            Data::U8(v) | Data::Bool(v) => stream.download(memory, offset, v),
        }
    }
}

/// One element of a type that tensors can have.
fn scalar(dtype: DType, value: f64) -> Data {
    match dtype {
        DType::F64 => Data::F64(vec![value]),
        DType::I64 => Data::I64(vec![value as i64]),
        DType::I32 => Data::I32(vec![value as i32]),
        DType::U8 => Data::U8(vec![value as u8]),
        DType::Bool => Data::Bool(vec![u8::from(value != 0.0)]),
        _ => Data::F32(vec![value as f32]),
    }
}

impl Executable for CudaExecutable {
    fn program(&self) -> &Program {
        &self.program
    }

    fn call(&self, at: usize, inputs: &[&Tensor], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.call_with(at, inputs, outputs, |device, entry| match &device.graphs[at] {
            Some(graph) => device.stream.replay(graph),
            None => device.enqueue(&self.code, entry),
        })
    }

    fn profile(
        &self,
        at: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
        seconds: &mut [f64],
    ) -> Result<(), RunError> {
        self.call_with(at, inputs, outputs, |device, entry| {
            device.stream.clear(&device.memory, self.code.error, ErrorRecord::BYTES)?;
            let mut events = vec![device.stream.record()?];
            for works in &entry.kernels {
                device.launch_all(works)?;
                events.push(device.stream.record()?);
            }
            device.stream.wait()?;
            for (seconds, pair) in seconds.iter_mut().zip(events.windows(2)) {
                *seconds += pair[1].since(&pair[0])?;
            }
            Ok(())
        })
    }

    fn read(&self, name: &str) -> Result<Tensor, RunError> {
        let buffer = &self.code.buffers[self.lasting(name)?];
        if matches!(buffer.dtype, DType::F16 | DType::Bf16 | DType::I8) {
            let message = format!("`{name}` is of type {}, which has no tensor", buffer.dtype);
            return Err(RunError::Usage(message));
        }
        let shape: Vec<usize> = buffer.shape.iter().map(|&n| n as usize).collect();
        let mut tensor = Tensor::zeros(buffer.dtype, shape);
        self.device().download(buffer.offset, &mut tensor.data).map_err(failed)?;
        Ok(tensor)
    }

    fn write(&self, name: &str, value: &Tensor) -> Result<(), RunError> {
        let buffer = self.lasting(name)?;
        self.fits(buffer, value)?;
        self.device().upload(self.code.buffers[buffer].offset, &value.data).map_err(failed)
    }

    fn peak_bytes(&self) -> u64 {
        self.code.bytes
    }

    fn stage_times(&self) -> &[StageTime] {
        &self.times
    }
}
