//! Roofs of this machine: measured once and kept, or assumed; and the bound they put on a kernel.

use crate::store::Record;
use crate::{Compiler, Error};
use dlc_cpu::level::Level;
use dlc_cpu::machine::Machine;
use dlc_cpu::roof::{Bandwidth, Roof};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What this machine reaches, on one thread and on all that it grants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roofs {
    /// The processor.
    pub cpu: String,
    /// The target whose code was measured.
    pub target: String,
    /// Whether figures were measured, rather than assumed.
    pub measured: bool,
    /// One thread, then all of them if there are more.
    pub roofs: Vec<Roof>,
}

/// The least time something can take, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// `compute`, or the level of memory that holds what is touched.
    pub by: String,
    /// Milliseconds.
    pub ms: f64,
}

/// Cycles of a core a second that are assumed.
const ASSUMED_GHZ: f64 = 3.0;

impl Roofs {
    /// Measures the roofs of the compiler's target on this machine.
    ///
    /// # Errors
    /// If this machine cannot run the target.
    pub fn measure(compiler: &Compiler) -> Result<Roofs, Error> {
        let level = compiler.any_target().require_cpu("measuring this machine")?.level();
        let counts = counts(dlc_cpu::pool::available_threads());
        let roofs = counts.map(|threads| dlc_cpu::roof::measure(level, threads));
        let roofs = roofs.collect::<Result<_, _>>()?;
        Ok(Roofs { measured: true, ..Roofs::of(level, roofs) })
    }

    /// Keeps them for later runs; gives the file, if there is a place for it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn store(&self) -> Result<Option<PathBuf>, Error> {
        let Some(record) = Record::new("roofs", &self.target) else { return Ok(None) };
        record.write(self)?;
        Ok(Some(record.path().to_owned()))
    }

    /// The roofs that were measured and kept. A file that is of no use counts as none.
    pub fn stored(compiler: &Compiler) -> Option<Roofs> {
        let target = compiler.any_target().as_cpu()?;
        Record::new("roofs", target.level().name())?.read().ok()?
    }

    /// What a processor of the target's level has if it runs at 3 GHz: two multiply-adds of a
    /// vector a cycle, and 64, 32, 16 and 6 bytes a cycle from the levels of memory; threads share
    /// the last.
    fn assumed(level: Level) -> Roofs {
        let roof = |threads: usize| {
            let [first, second, third] = Machine::here().caches.map(|bytes| bytes as u64);
            let memory = |level: &str, capacity: u64, bytes: f64| {
                let rate = ASSUMED_GHZ * bytes;
                let (load, copy, triad) = (rate, rate, rate);
                Bandwidth { level: level.into(), capacity, working_set: 0, load, copy, triad }
            };
            let own = threads as u64;
            let memory = vec![
                memory("L1", own * first, 64.0 * own as f64),
                memory("L2", own * second, 32.0 * own as f64),
                memory("L3", third, 16.0 * own as f64),
                memory("DRAM", u64::MAX, 6.0),
            ];
            let gflops = ASSUMED_GHZ * (4 * level.lanes()) as f64 * threads as f64;
            Roof { threads, gflops, memory }
        };
        Roofs::of(level, counts(dlc_cpu::pool::available_threads()).map(roof).collect())
    }

    /// The roofs that were kept, or else the assumed ones; of GPUs there are none.
    pub fn known(compiler: &Compiler) -> Option<Roofs> {
        let level = compiler.any_target().as_cpu()?.level();
        Some(Roofs::stored(compiler).unwrap_or_else(|| Roofs::assumed(level)))
    }

    fn of(level: Level, roofs: Vec<Roof>) -> Roofs {
        let (cpu, target) = (Machine::here().cpu, level.name().to_owned());
        Roofs { cpu, target, measured: false, roofs }
    }

    /// The least time for so much work on `threads` threads. Memory counts at the best rate of the
    /// nearest level that holds all bytes at once.
    pub fn bound(&self, threads: usize, flops: u64, bytes: u64) -> Bound {
        let (one, all) = (&self.roofs[0], self.roofs.last().expect("there is one"));
        let scaled = |one: f64, all: f64| match threads {
            0 | 1 => one,
            n if n >= all_threads(self) => all,
            n => (one * n as f64).min(all),
        };
        let level = all.memory.iter().position(|m| bytes <= m.capacity);
        let level = level.unwrap_or(all.memory.len() - 1);
        let compute = flops as f64 / scaled(one.gflops, all.gflops) / 1e6;
        let rate = scaled(best(&one.memory[level]), best(&all.memory[level]));
        let memory = bytes as f64 / rate / 1e6;
        match compute > memory {
            true => Bound { by: "compute".into(), ms: compute },
            false => Bound { by: all.memory[level].level.clone(), ms: memory },
        }
    }
}

fn all_threads(roofs: &Roofs) -> usize {
    roofs.roofs.last().map_or(1, |roof| roof.threads)
}

/// The rate of loads, copies or triads, whichever is highest.
fn best(memory: &Bandwidth) -> f64 {
    memory.load.max(memory.copy).max(memory.triad)
}

/// One thread, and all if that is more.
fn counts(all: usize) -> impl Iterator<Item = usize> {
    [1].into_iter().chain((all > 1).then_some(all))
}

impl fmt::Display for Roofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.measured { "measured" } else { "assumed for 3 GHz" };
        writeln!(f, "{}, {}, {how}", self.cpu, self.target)?;
        for roof in &self.roofs {
            let plural = if roof.threads > 1 { "s" } else { "" };
            writeln!(f, "\n{} thread{plural}: {:.1} GFLOP/s", roof.threads, roof.gflops)?;
            writeln!(f, "{:8}{:>12}{:>10}{:>10}{:>10}", "GB/s", "bytes", "load", "copy", "triad")?;
            for m in &roof.memory {
                let (level, bytes) = (&m.level, crate::report::grouped(m.working_set));
                writeln!(f, "{level:8}{bytes:>12}{:10.1}{:10.1}{:10.1}", m.load, m.copy, m.triad)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 and 200 GFLOP/s; 100 and 200 GB/s up to 1,000 bytes, 10 and 15 beyond.
    fn roofs() -> Roofs {
        let memory = |level: &str, capacity: u64, rate: f64| Bandwidth {
            level: level.into(),
            capacity,
            working_set: 0,
            load: rate,
            copy: rate / 2.0,
            triad: rate / 2.0,
        };
        let roof = |threads, gflops, near, far| Roof {
            threads,
            gflops,
            memory: vec![memory("L1", 1000, near), memory("DRAM", u64::MAX, far)],
        };
        let roofs = vec![roof(1, 100.0, 100.0, 10.0), roof(4, 380.0, 400.0, 15.0)];
        Roofs { cpu: "any".into(), target: "any".into(), measured: true, roofs }
    }

    #[test]
    fn the_slower_of_arithmetic_and_memory_bounds() {
        let bound = |threads, flops, bytes| {
            let bound = roofs().bound(threads, flops, bytes);
            (bound.by, (bound.ms * 1e9).round() / 1e3)
        };
        // Nanoseconds times 1000: 1,000 operations at 100 a nanosecond are 10 ns.
        assert_eq!(bound(1, 1000, 100), ("compute".into(), 10.0));
        assert_eq!(bound(1, 10, 100), ("L1".into(), 1.0));
        assert_eq!(bound(1, 10, 10_000), ("DRAM".into(), 1000.0));
        assert_eq!(bound(2, 1000, 100), ("compute".into(), 5.0));
        assert_eq!(bound(2, 10, 30_000), ("DRAM".into(), 2000.0));
        assert_eq!(bound(4, 3800, 100), ("compute".into(), 10.0));
        assert_eq!(bound(4, 0, 0), ("L1".into(), 0.0));
    }

    #[test]
    fn what_is_assumed_is_said() {
        let text = Roofs::assumed(Level::ALL[0]).to_string();
        assert!(text.contains("assumed for 3 GHz") && text.contains("1 thread: "), "{text}");
    }
}
