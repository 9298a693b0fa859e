//! The driver's objects as Rust's: made valid, used while valid, freed when dropped.
//!
//! What holds: nothing is called unless the driver's library is there; every object keeps the
//! context it belongs to, and enters it before each call, so that any thread may use it.

use crate::gpu::{Gpu, NoGpu};
use cudarc::driver::sys::{
    self, CUdevice_attribute_enum as DeviceAttribute,
    CUfunction_attribute_enum as FunctionAttribute, CUjit_option_enum as JitOption,
};
use cudarc::driver::{DriverError, result};
use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

/// What the driver says is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl From<DriverError> for Refused {
    fn from(error: DriverError) -> Refused {
        let text = |s: &CStr| s.to_string_lossy().into_owned();
        let name = error.error_name().map_or_else(|_| format!("{:?}", error.0), text);
        Refused(match error.error_string().ok().map(text) {
            Some(words) => format!("{words} ({name})"),
            None => name,
        })
    }
}

type Result<T> = std::result::Result<T, Refused>;

/// The GPU of that number.
///
/// # Errors
/// Why it cannot be used.
pub fn describe(ordinal: i32) -> std::result::Result<Gpu, NoGpu> {
    // SAFETY: looking for a library runs the initializers of what is found, which is the driver's.
    if !unsafe { sys::is_culib_present() } {
        return Err(NoGpu::NoDriver);
    }
    let failed = |error: DriverError| match error.0 {
        sys::cudaError_enum::CUDA_ERROR_NO_DEVICE => NoGpu::NoDevice,
        _ => NoGpu::Driver(Refused::from(error).to_string()),
    };
    result::init().map_err(failed)?;
    if result::device::get_count().map_err(failed)? <= ordinal {
        return Err(NoGpu::NoDevice);
    }
    let device = result::device::get(ordinal).map_err(failed)?;
    // SAFETY: the device was just given by the driver.
    let attribute = |what| unsafe { result::device::get_attribute(device, what) };
    let major = attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    let minor = attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    let mut version = 0;
    // SAFETY: the driver writes one number to a place that is alive.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed)?;
    Ok(Gpu {
        name: result::device::get_name(device).map_err(failed)?,
        capability: (major.map_err(failed)? as u32, minor.map_err(failed)? as u32),
        driver: (version as u32 / 1000, version as u32 % 1000 / 10),
        // SAFETY: as above.
        bytes: unsafe { result::device::total_mem(device) }.map_err(failed)? as u64,
    })
}

/// The primary context of a device.
pub struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: a context may be entered from any thread, and from several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// The context of the device of that number, which [`describe`] has found.
    ///
    /// # Errors
    /// What the driver says.
    pub fn open(ordinal: i32) -> Result<Arc<Context>> {
        let device = result::device::get(ordinal)?;
        // SAFETY: the device was just given by the driver.
        let context = unsafe { result::primary_ctx::retain(device)? };
        Ok(Arc::new(Context { device, context }))
    }

    /// Makes it the calling thread's.
    fn enter(&self) -> Result<()> {
        // SAFETY: it is retained as long as `self` is alive.
        unsafe { result::ctx::set_current(self.context).map_err(Refused::from) }
    }

    /// Bytes of memory that are free.
    ///
    /// # Errors
    /// What the driver says.
    pub fn free_bytes(&self) -> Result<u64> {
        self.enter()?;
        Ok(result::mem_get_info()?.0 as u64)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once; nothing of it is left, for everything holds it.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A number whose bytes host and device agree on.
pub trait Number: Copy {}
impl Number for f32 {}
impl Number for f64 {}
impl Number for i64 {}
impl Number for i32 {}
impl Number for u8 {}

/// One allocation.
pub struct Memory {
    context: Arc<Context>,
    address: u64,
    bytes: u64,
}

impl Memory {
    /// So many bytes, at least one, of any value.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(context: &Arc<Context>, bytes: u64) -> Result<Memory> {
        context.enter()?;
        // SAFETY: nobody reads it before it is written.
        let address = unsafe { result::malloc_sync(bytes.max(1) as usize)? };
        Ok(Memory { context: context.clone(), address, bytes: bytes.max(1) })
    }

    /// The address of the byte at `offset`.
    ///
    /// # Panics
    /// If fewer than `bytes` bytes begin there.
    pub fn at(&self, offset: u64, bytes: u64) -> u64 {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.bytes), "{offset} + {bytes} is outside");
        self.address + offset
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated in this context, and streams were waited for.
        let _ = self.context.enter().map(|()| unsafe { result::free_sync(self.address) });
    }
}

/// A queue of work, in order.
pub struct Stream {
    context: Arc<Context>,
    stream: sys::CUstream,
}

// SAFETY: the driver takes streams from any thread; calls here enter the context first.
unsafe impl Send for Stream {}

impl Stream {
    /// A stream that does not wait for others.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(context: &Arc<Context>) -> Result<Stream> {
        context.enter()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        Ok(Stream { context: context.clone(), stream })
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// What went wrong with the work.
    pub fn wait(&self) -> Result<()> {
        self.context.enter()?;
        // SAFETY: the stream is alive.
        unsafe { result::stream::synchronize(self.stream).map_err(Refused::from) }
    }

    /// Sets bytes to 0.
    ///
    /// # Errors
    /// What the driver says.
    pub fn clear(&self, memory: &Memory, offset: u64, bytes: u64) -> Result<()> {
        self.context.enter()?;
        let at = memory.at(offset, bytes);
        // SAFETY: `at` asserts that the bytes are the memory's.
        unsafe {
            result::memset_d8_async(at, 0, bytes as usize, self.stream).map_err(Refused::from)
        }
    }

    /// Copies to the device, and waits.
    ///
    /// # Errors
    /// What the driver says.
    pub fn upload<T: Number>(&self, memory: &Memory, offset: u64, from: &[T]) -> Result<()> {
        self.context.enter()?;
        let at = memory.at(offset, size_of_val(from) as u64);
        // SAFETY: `at` asserts that the bytes are the memory's; `from` lives until it was read.
        unsafe { result::memcpy_htod_async(at, from, self.stream)? };
        self.wait()
    }

    /// Copies from the device, and waits.
    ///
    /// # Errors
    /// What the driver says.
    pub fn download<T: Number>(&self, memory: &Memory, offset: u64, to: &mut [T]) -> Result<()> {
        self.context.enter()?;
        let at = memory.at(offset, size_of_val(to) as u64);
        // SAFETY: `at` asserts that the bytes are the memory's; any bytes are numbers; `to` lives
        // until it was written.
        unsafe { result::memcpy_dtoh_async(to, at, self.stream)? };
        self.wait()
    }

    /// Launches a kernel with one argument for each parameter.
    ///
    /// # Safety
    /// The kernel takes such arguments and touches no memory but what they point to, which lives
    /// until it is done.
    ///
    /// # Errors
    /// What the driver says.
    pub unsafe fn launch(&self, function: &Function, grid: [u32; 3], args: &[u64]) -> Result<()> {
        self.context.enter()?;
        let mut pointers: Vec<*mut c_void> =
            args.iter().map(|arg| std::ptr::from_ref(arg).cast_mut().cast()).collect();
        let [x, y, z] = grid;
        let (threads, shared) = ((function.threads, 1, 1), function.dynamic_shared);
        // SAFETY: the driver reads the arguments before it returns, each as wide as its parameter,
        // of which the low bytes come first; the rest is the caller's word.
        unsafe {
            result::launch_kernel(
                function.function,
                (x, y, z),
                threads,
                shared,
                self.stream,
                &mut pointers,
            )
            .map_err(Refused::from)
        }
    }

    /// Records what `enqueue` puts into the stream instead of doing it.
    ///
    /// # Errors
    /// Those of `enqueue`, or what the driver says.
    pub fn capture(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.context.enter()?;
        // SAFETY: the stream is alive, and not the default one.
        unsafe { result::stream::begin_capture(self.stream, mode)? };
        let enqueued = enqueue();
        // SAFETY: it was begun above; it must end even if the work could not be enqueued.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        enqueued?;
        let graph = graph?;
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the graph was just made, and is not used after it is destroyed.
        let graph = unsafe {
            let made = result::graph::instantiate(graph, flags);
            result::graph::destroy(graph)?;
            made?
        };
        Ok(Graph { context: self.context.clone(), graph })
    }

    /// Does what was recorded.
    ///
    /// # Errors
    /// What the driver says.
    pub fn replay(&self, graph: &Graph) -> Result<()> {
        self.context.enter()?;
        // SAFETY: both are alive.
        unsafe { result::graph::launch(graph.graph, self.stream).map_err(Refused::from) }
    }

    /// Notes when the work so far is done.
    ///
    /// # Errors
    /// What the driver says.
    pub fn record(&self) -> Result<Event> {
        self.context.enter()?;
        let event = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT)?;
        let event = Event { context: self.context.clone(), event };
        // SAFETY: both are alive.
        unsafe { result::event::record(event.event, self.stream)? };
        Ok(event)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.wait();
        // SAFETY: it was made in this context.
        let _ = self.context.enter().map(|()| unsafe { result::stream::destroy(self.stream) });
    }
}

/// Recorded work.
pub struct Graph {
    context: Arc<Context>,
    graph: sys::CUgraphExec,
}

// SAFETY: as for streams.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it was made in this context.
        let _ = self.context.enter().map(|()| unsafe { result::graph::exec_destroy(self.graph) });
    }
}

/// A point in a stream's work.
pub struct Event {
    context: Arc<Context>,
    event: sys::CUevent,
}

impl Event {
    /// Seconds from `start`; both are done.
    ///
    /// # Errors
    /// What the driver says.
    pub fn since(&self, start: &Event) -> Result<f64> {
        self.context.enter()?;
        // SAFETY: both are alive.
        Ok(f64::from(unsafe { result::event::elapsed(start.event, self.event)? }) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it was made in this context.
        let _ = self.context.enter().map(|()| unsafe { result::event::destroy(self.event) });
    }
}

/// Machine code on the device.
pub struct Module {
    context: Arc<Context>,
    module: sys::CUmodule,
}

/// A kernel of a [`Module`], alive as long as it.
pub struct Function {
    function: sys::CUfunction,
    threads: u32,
    dynamic_shared: u32,
}

// SAFETY: as for streams.
unsafe impl Send for Module {}
// SAFETY: as for streams.
unsafe impl Send for Function {}

impl Module {
    /// Loads what [`link`] gave.
    ///
    /// # Errors
    /// What the driver says; also of bytes that are no machine code for this device.
    pub fn load(context: &Arc<Context>, cubin: &[u8]) -> Result<Module> {
        context.enter()?;
        // SAFETY: the driver reads as far as the image's own header says, and refuses what is none;
        // the caller has checked that the image is whole.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast())? };
        Ok(Module { context: context.clone(), module })
    }

    /// The kernel of that name, for blocks of `threads`, with so many bytes of shared memory beyond
    /// what it declares.
    ///
    /// # Errors
    /// What the driver says.
    pub fn function(&self, name: &str, threads: u32, dynamic_shared: u32) -> Result<Function> {
        self.context.enter()?;
        let name = CString::new(name).map_err(|e| Refused(e.to_string()))?;
        // SAFETY: the module is alive.
        let function = unsafe { result::module::get_function(self.module, name)? };
        if dynamic_shared > 0 {
            let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just given by the driver.
            unsafe {
                result::function::set_function_attribute(function, most, dynamic_shared as i32)?;
            }
        }
        Ok(Function { function, threads, dynamic_shared })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: it was loaded in this context, and streams were waited for.
        let _ = self.context.enter().map(|()| unsafe { result::module::unload(self.module) });
    }
}

/// Bytes of messages that the driver may leave.
const LOG_BYTES: usize = 8192;

/// Machine code for the context's device from PTX.
///
/// # Errors
/// What the driver's assembler says.
pub fn link(context: &Arc<Context>, ptx: &str) -> Result<Vec<u8>> {
    context.enter()?;
    let text = CString::new(ptx).map_err(|e| Refused(e.to_string()))?;
    let mut log = vec![0u8; LOG_BYTES];
    let mut options =
        [JitOption::CU_JIT_ERROR_LOG_BUFFER, JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // Numbers are handed over in place of pointers.
    let mut values: [*mut c_void; 2] =
        [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG_BYTES)];
    let mut state = std::ptr::null_mut();
    // SAFETY: options, values and log live until the link is destroyed; the text ends with a zero,
    // which counts; the driver owns the image until then, of which it gives address and size.
    let linked = unsafe {
        sys::cuLinkCreate_v2(2, options.as_mut_ptr(), values.as_mut_ptr(), &mut state).result()?;
        let bytes = text.as_bytes_with_nul();
        let (kind, name) = (sys::CUjitInputType_enum::CU_JIT_INPUT_PTX, c"dlc.ptx");
        let (image, none) = (bytes.as_ptr().cast_mut().cast(), std::ptr::null_mut());
        let (mut cubin, mut size) = (std::ptr::null_mut(), 0);
        let added = sys::cuLinkAddData_v2(
            state,
            kind,
            image,
            bytes.len(),
            name.as_ptr(),
            0,
            none,
            std::ptr::null_mut(),
        );
        let done = added.result();
        let done = done.and_then(|()| sys::cuLinkComplete(state, &mut cubin, &mut size).result());
        let copied = done.map(|()| std::slice::from_raw_parts(cubin.cast::<u8>(), size).to_vec());
        sys::cuLinkDestroy(state).result().and(copied)
    };
    linked.map_err(|error| {
        let end = log.iter().position(|&b| b == 0).unwrap_or(LOG_BYTES);
        let said = String::from_utf8_lossy(&log[..end]).trim().to_owned();
        Refused(format!("{}\n{said}", Refused::from(error)).trim_end().to_owned())
    })
}
