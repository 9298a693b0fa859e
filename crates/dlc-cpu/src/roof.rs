//! Roofs: what this machine reaches at most, measured with leaves.
//!
//! Arithmetic is a loop of independent multiply-adds in registers. Memory is measured at each level
//! by loading, copying (`y = x`) and a triad (`y = x + a * z`) over streams that fill a part of it;
//! bytes loaded and stored both count. Copies and triads of main memory pass by the caches, as those
//! of large results do in kernels. Every figure is the best of several.

use crate::leaf::lanes::{Kind, Op};
use crate::leaf::loops::{Fold, Loop, Stream};
use crate::leaf::run::LeafRun;
use crate::level::Level;
use crate::machine::Machine;
use crate::pool::Pool;
use dlc_kernel::{BuildError, DType, FoldOp};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What so many threads reach together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// Threads at work.
    pub threads: usize,
    /// Operations of multiply-adds of `f32`, in 10^9 a second; a multiply-add counts as 2.
    pub gflops: f64,
    /// The levels of memory, nearest first.
    pub memory: Vec<Bandwidth>,
}

/// The speed of one level of memory, in 10^9 bytes a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// `L1`, `L2`, `L3`, `DRAM`.
    pub level: String,
    /// What fits, for all threads together; in main memory, anything.
    pub capacity: u64,
    /// Bytes that one thread worked on.
    pub working_set: u64,
    /// Of loads alone.
    pub load: f64,
    /// Of a copy.
    pub copy: f64,
    /// Of a triad.
    pub triad: f64,
}

/// Independent multiply-adds: more than two units of five cycles can have under way.
const CHAINS: u16 = 10;
/// Elements of the loop of multiply-adds.
const STEPS: usize = 1 << 14;
/// Streams that are loaded side by side.
const LOADED: u16 = 8;
/// The most main memory that is worked on, by all threads.
const MOST_BYTES: usize = 512 << 20;
/// How long one figure is measured on one thread, and on several: those must all be running.
const BUDGETS: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(120)];
/// How long one sample takes at least: far more than a clock or a region of threads does.
const SAMPLE: Duration = Duration::from_micros(300);

/// A part of a level that all threads together work on.
struct Part {
    level: &'static str,
    capacity: usize,
    bytes: usize,
    streaming: bool,
}

/// Measures the roof of `threads` threads, with code of that level.
///
/// # Errors
/// [`BuildError::Machine`] if this machine lacks the level or memory.
pub fn measure(level: Level, threads: usize) -> Result<Roof, BuildError> {
    let chains = multiply_adds();
    let flops = (2 * usize::from(CHAINS) * STEPS) as f64;
    let gflops = flops * speed(level, threads, &chains, STEPS)?;
    let memory = parts(&Machine::here(), threads).into_iter().map(|part| {
        let each = part.bytes / threads;
        // Bytes moved in a second, over `streams` streams of floats.
        let of = |code: Loop| -> Result<f64, BuildError> {
            let streams = code.streams.len();
            let count = each / (4 * streams) / 64 * 64;
            Ok((4 * streams * count) as f64 * speed(level, threads, &code, count)?)
        };
        Ok(Bandwidth {
            level: part.level.into(),
            capacity: part.capacity as u64,
            working_set: each as u64,
            load: of(loads())?,
            copy: of(copy(part.streaming))?,
            triad: of(triad(part.streaming))?,
        })
    });
    Ok(Roof { threads, gflops, memory: memory.collect::<Result<_, BuildError>>()? })
}

/// Half of what a thread has for itself; a quarter of the last level, which others use too; in main
/// memory four times as much as that level holds.
fn parts(machine: &Machine, threads: usize) -> Vec<Part> {
    let [first, second, third] = machine.caches;
    let own = |level, bytes| {
        let capacity = threads * bytes;
        Part { level, capacity, bytes: capacity / 2, streaming: false }
    };
    let bytes = (third / 4).max(2 * threads * second).min(third);
    let all = (4 * third).clamp(8 * bytes, MOST_BYTES.max(8 * bytes));
    vec![
        own("L1", first),
        own("L2", second),
        Part { level: "L3", capacity: third, bytes, streaming: false },
        Part { level: "DRAM", capacity: usize::MAX, bytes: all, streaming: true },
    ]
}

/// The most runs of a loop over `count` elements in a nanosecond, by all threads together.
fn speed(level: Level, threads: usize, code: &Loop, count: usize) -> Result<f64, BuildError> {
    let run = |_| Ok(Mutex::new(LeafRun::of_loop(level, code.clone(), count)?));
    let runs = (0..threads).map(run).collect::<Result<Vec<_>, BuildError>>()?;
    let pool = Pool::of(threads);
    let sample = |times: usize| {
        let start = Instant::now();
        pool.run(threads, &|worker| {
            runs[worker].lock().unwrap_or_else(|e| e.into_inner()).run(times);
        });
        start.elapsed()
    };
    let mut times = 1;
    while sample(times) < SAMPLE {
        times *= 2;
    }
    let (start, mut best) = (Instant::now(), Duration::MAX);
    while start.elapsed() < BUDGETS[usize::from(threads > 1)] {
        best = best.min(sample(times));
    }
    Ok((threads * times) as f64 / best.as_nanos() as f64)
}

/// A loop without code.
fn empty(streams: u16, streaming: bool) -> Loop {
    let own = |address| Stream { dtype: DType::F32, address, offset: 0, stride: 1 };
    Loop { streaming, ..Loop::over((0..streams).map(own).collect()) }
}

/// `carry += x * x`, many times side by side: one load serves all.
fn multiply_adds() -> Loop {
    let mut code = empty(1, false);
    let x = code.lanes.add(Op::Input(Kind::F32, 0));
    for k in 0..CHAINS {
        let carry = code.lanes.add(Op::Carry(Kind::F32, k));
        let next = code.lanes.fma(x, x, carry);
        code.folds.push(Fold { op: FoldOp::Sum, dtype: DType::F32, next });
    }
    code
}

/// The sums of streams side by side: loads wait for nothing else.
fn loads() -> Loop {
    let mut code = empty(LOADED, false);
    for k in 0..LOADED {
        let (x, carry) =
            (code.lanes.add(Op::Input(Kind::F32, k)), code.lanes.add(Op::Carry(Kind::F32, k)));
        let next = code.lanes.sum(carry, x);
        code.folds.push(Fold { op: FoldOp::Sum, dtype: DType::F32, next });
    }
    code
}

fn copy(streaming: bool) -> Loop {
    let mut code = Loop { unroll: 4, ..empty(2, streaming) };
    let x = code.lanes.add(Op::Input(Kind::F32, 0));
    code.stores.push((1, x));
    code
}

fn triad(streaming: bool) -> Loop {
    let mut code = Loop { unroll: 4, uniforms: 1, ..empty(3, streaming) };
    let [x, z] = [0, 1].map(|k| code.lanes.add(Op::Input(Kind::F32, k)));
    let a = code.lanes.add(Op::Uniform(Kind::F32, 0));
    let y = code.lanes.fma(a, z, x);
    code.stores.push((2, y));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_their_levels() {
        let machine = Machine { cpu: "any".into(), caches: [32 << 10, 512 << 10, 32 << 20] };
        for threads in [1, 2, 64] {
            let parts = parts(&machine, threads);
            for pair in parts.windows(2) {
                assert!(pair[0].bytes < pair[1].bytes, "{threads} threads, {}", pair[0].level);
            }
            assert!(parts.iter().all(|p| p.bytes <= p.capacity));
        }
    }

    #[test]
    fn every_roof_is_a_number() {
        let roof = measure(Level::detect().unwrap(), 2).unwrap();
        assert_eq!(roof.memory.len(), 4);
        let rates = roof.memory.iter().flat_map(|m| [m.load, m.copy, m.triad]);
        assert!(rates.chain([roof.gflops]).all(|rate| rate.is_finite() && rate > 0.0), "{roof:?}");
    }
}
