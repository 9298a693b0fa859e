//! Timing of compiled models and training steps.

use crate::network::{all_known, empty, extents, fits};
use crate::report::{grouped, round};
use crate::{Bound, Compiler, Error, Module, Report, Roofs};
use dlc_front::TrainOverrides;
use dlc_kernel::{Bindings, Buffer, DType, Executable, Kernel, StageTime, Tensor, philox};
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// How to time.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// When the text was handed in: the compile time counts from here.
    pub start: Instant,
    /// Seconds to measure for, after warming up.
    pub seconds: f64,
    /// Whether to time each kernel too.
    pub kernels: bool,
    /// What kernels are compared with, where it is known.
    pub roofs: Option<Roofs>,
    /// Inputs, or fields of a batch, by name; the others are random.
    pub inputs: Vec<(String, Tensor)>,
}

/// How long one kernel takes in calls of its entry.
#[derive(Clone, Debug, Serialize)]
pub struct KernelBench {
    /// The kernel's name.
    pub name: String,
    /// `FILE:LINE` of what asked for it.
    pub line: Option<String>,
    /// Median milliseconds.
    pub median_ms: f64,
    /// Operations; a multiply-add counts as 2.
    pub flops: u64,
    /// Bytes it touches at least.
    pub bytes: u64,
    /// What it cannot be faster than, on the threads a call may use, where that is known.
    pub bound: Option<Bound>,
    /// The bound by the median: the share of the machine's roof that is reached, where there is work
    /// and the clock tells how long it takes.
    pub share: Option<f64>,
}

/// The result of a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// Median milliseconds of a call.
    pub median_ms: f64,
    /// The fastest call.
    pub min_ms: f64,
    /// The slowest call.
    pub max_ms: f64,
    /// Calls measured.
    pub runs: usize,
    /// Milliseconds from text to runnable, standard library included.
    pub compile_ms: f64,
    /// Milliseconds to initialize and hand over parameters.
    pub load_ms: f64,
    /// Milliseconds of each stage; `front` is all before the passes: reading, parsing, elaborating.
    pub stages: indexmap::IndexMap<&'static str, f64>,
    /// Operations of a call; a multiply-add counts as 2.
    pub flops: u64,
    /// Bytes the kernels touch in a call.
    pub bytes: u64,
    /// Bytes of parameters, state, temporaries and workspaces at the peak.
    pub peak_bytes: u64,
    /// Kernels in a call.
    pub kernels: usize,
    /// Each of them, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernel_times: Vec<KernelBench>,
}

/// Times inference of a model.
///
/// # Errors
/// If it cannot be compiled or run.
pub fn bench_model(
    module: &Module,
    name: &str,
    bindings: &Bindings,
    options: &BenchOptions,
) -> Result<Bench, Error> {
    let model = module.model(name)?;
    let mut sizes = model.sizes_of(&options.inputs)?;
    sizes.extend(bindings.clone());
    let network = model.bind_all(&sizes)?;
    let compiled = options.start.elapsed();
    let start = Instant::now();
    let network = network.initialize(0)?;
    let load = start.elapsed();
    let times = measure(network.executable(), options)?;
    let kernels = measure_kernels(network.executable(), options, &module.compiler)?;
    let bench = Bench::new(&times, network.executable(), network.stages(), compiled, load);
    Ok(Bench { kernel_times: kernels, ..bench })
}

/// Times the training step of a model.
///
/// # Errors
/// As [`bench_model`].
pub fn bench_training(
    module: &Module,
    name: &str,
    batch: Option<i64>,
    bindings: &Bindings,
    options: &BenchOptions,
) -> Result<Bench, Error> {
    let overrides = TrainOverrides { batch, ..TrainOverrides::default() };
    let training = module.training(name, &overrides, bindings)?;
    let (executable, stages) = module.build_step(&training, bindings)?;
    let compiled = options.start.elapsed();
    let start = Instant::now();
    crate::network::initialize(&training.init, &*executable, 0, &module.compiler)?;
    let load = start.elapsed();
    let times = measure(&*executable, options)?;
    let kernels = measure_kernels(&*executable, options, &module.compiler)?;
    let bench = Bench::new(&times, &*executable, &stages, compiled, load);
    Ok(Bench { kernel_times: kernels, ..bench })
}

/// What the first entry of a program is called with.
pub(crate) struct Arguments {
    /// In the entry's order.
    pub inputs: Vec<Tensor>,
    /// In the entry's order.
    pub outputs: Vec<Tensor>,
}

impl Arguments {
    /// Random inputs, and room for the outputs.
    pub fn random(executable: &dyn Executable) -> Arguments {
        let program = executable.program();
        let entry = &program.entries[0];
        let inputs = entry.inputs.iter().enumerate();
        Arguments {
            inputs: inputs.map(|(i, &b)| random(program.buffer(b), i)).collect(),
            outputs: entry.outputs.iter().map(|&b| empty(program.buffer(b))).collect(),
        }
    }

    /// The same, but for the inputs that are given.
    fn of(executable: &dyn Executable, given: &[(String, Tensor)]) -> Result<Arguments, Error> {
        let program = executable.program();
        let entry = &program.entries[0];
        all_known(given.iter().map(|(name, _)| name.as_str()), program, entry)?;
        let mut arguments = Arguments::random(executable);
        for (input, &b) in arguments.inputs.iter_mut().zip(&entry.inputs) {
            let buffer = program.buffer(b);
            if let Some((_, tensor)) = given.iter().find(|(name, _)| *name == buffer.name) {
                fits(tensor, buffer)?;
                *input = tensor.clone();
            }
        }
        Ok(arguments)
    }
}

/// Milliseconds of each call, sorted.
fn measure(executable: &dyn Executable, options: &BenchOptions) -> Result<Vec<f64>, Error> {
    let Arguments { inputs, mut outputs } = Arguments::of(executable, &options.inputs)?;
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let mut call = || -> Result<f64, Error> {
        let start = Instant::now();
        executable.call(0, &inputs, &mut outputs)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let budget = Duration::from_secs_f64(options.seconds.clamp(0.0, 3600.0));
    repeat(&mut call, budget / 5, 2)?;
    let mut times = repeat(&mut call, budget, 5)?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The median of every kernel, in order; nothing if that is not asked for.
fn measure_kernels(
    executable: &dyn Executable,
    options: &BenchOptions,
    compiler: &Compiler,
) -> Result<Vec<KernelBench>, Error> {
    if !options.kernels {
        return Ok(Vec::new());
    }
    let threads = compiler.options.threads.unwrap_or_else(dlc_cpu::pool::available_threads);
    let program = executable.program();
    let kernels = &program.entries[0].kernels;
    let Arguments { inputs, mut outputs } = Arguments::of(executable, &options.inputs)?;
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let mut runs = Vec::new();
    let mut call = || -> Result<f64, Error> {
        let mut seconds = vec![0.0; kernels.len()];
        executable.profile(0, &inputs, &mut outputs, &mut seconds)?;
        runs.push(seconds);
        Ok(0.0)
    };
    repeat(&mut call, Duration::from_secs_f64(options.seconds.clamp(0.0, 3600.0)), 5)?;
    let median = |k: usize| {
        let mut times: Vec<f64> = runs.iter().map(|run| run[k]).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e3
    };
    let one = |(k, kernel): (usize, &Kernel)| {
        let (median, flops, bytes) = (median(k), kernel.flops(), kernel.bytes(program));
        let bound = options.roofs.as_ref().map(|roofs| roofs.bound(threads, flops, bytes));
        KernelBench {
            name: kernel.name.clone(),
            line: crate::perf::line(kernel),
            // Whole nanoseconds.
            median_ms: (median * 1e6).round() / 1e6,
            flops,
            bytes,
            share: bound.as_ref().filter(|b| b.ms > 0.0 && is_told(median)).map(|b| b.ms / median),
            bound,
        }
    };
    Ok(kernels.iter().enumerate().map(one).collect())
}

fn repeat(
    call: &mut dyn FnMut() -> Result<f64, Error>,
    budget: Duration,
    least: usize,
) -> Result<Vec<f64>, Error> {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < least || start.elapsed() < budget {
        times.push(call()?);
    }
    Ok(times)
}

/// Floats in [0, 1); integers 0 and 1, which are in range for any lookup of two rows or more.
fn random(buffer: &Buffer, site: usize) -> Tensor {
    let shape = extents(buffer);
    let n: usize = shape.iter().product();
    let draw = |i: usize| philox::uniform(0, 0, site as u64, i as i32);
    match buffer.dtype {
        DType::F32 => Tensor::f32(shape, (0..n).map(draw).collect()),
        DType::I32 => Tensor::i32(shape, (0..n).map(|i| (draw(i) < 0.5) as i32).collect()),
        other => Tensor::zeros(other, shape),
    }
}

impl Bench {
    fn new(
        times: &[f64],
        executable: &dyn Executable,
        stages: &[StageTime],
        compiled: Duration,
        load: Duration,
    ) -> Bench {
        let mut report = Report::new(executable.program(), executable.peak_bytes(), stages);
        let compile_ms = round(compiled.as_secs_f64() * 1e3);
        report.stages.shift_insert(0, "front", round(compile_ms - report.compile_ms));
        Bench {
            median_ms: round(times[times.len() / 2]),
            min_ms: round(times[0]),
            max_ms: round(times[times.len() - 1]),
            runs: times.len(),
            compile_ms,
            load_ms: round(load.as_secs_f64() * 1e3),
            stages: report.stages,
            flops: report.flops,
            bytes: report.bytes,
            peak_bytes: report.peak_bytes,
            kernels: executable.program().entries[0].kernels.len(),
            kernel_times: Vec::new(),
        }
    }
}

/// The least milliseconds of which a rate says something: a few readings of the clock.
const RESOLUTION_MS: f64 = 1e-4;

fn is_told(ms: f64) -> bool {
    ms >= RESOLUTION_MS
}

/// Thousand millions in a second, or `-` if the clock does not tell.
fn rate(amount: u64, ms: f64) -> String {
    if is_told(ms) { format!("{:.2}", amount as f64 / ms / 1e6) } else { "-".into() }
}

impl KernelBench {
    /// One line: name, time, share of a call, rates, share of the roof, source line.
    fn write(&self, f: &mut fmt::Formatter<'_>, width: usize, call_ms: f64) -> fmt::Result {
        let reached = match (&self.bound, self.share) {
            (Some(bound), Some(share)) => format!("{:5.1} % of {:7}", 100.0 * share, bound.by),
            (Some(bound), None) => format!("    - % of {:7}", bound.by),
            (None, _) => String::new(),
        };
        writeln!(
            f,
            "{:width$}  {:9.4} ms  {:5.1} %  {:>8} GFLOP/s  {:>8} GB/s  {reached}  {}",
            self.name,
            self.median_ms,
            100.0 * self.median_ms / call_ms,
            rate(self.flops, self.median_ms),
            rate(self.bytes, self.median_ms),
            self.line.as_deref().unwrap_or("")
        )
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "median {:.4} ms   min {:.4} ms   max {:.4} ms   {} runs",
            self.median_ms, self.min_ms, self.max_ms, self.runs
        )?;
        writeln!(f, "compile {:.1} ms   load {:.1} ms", self.compile_ms, self.load_ms)?;
        writeln!(
            f,
            "{} kernels   {} operations ({} GFLOP/s)   {} bytes ({} GB/s)   peak {} bytes",
            self.kernels,
            grouped(self.flops),
            rate(self.flops, self.median_ms),
            grouped(self.bytes),
            rate(self.bytes, self.median_ms),
            grouped(self.peak_bytes)
        )?;
        let width = self.kernel_times.iter().map(|k| k.name.len()).max().unwrap_or(0);
        self.kernel_times.iter().try_for_each(|kernel| kernel.write(f, width, self.median_ms))
    }
}
