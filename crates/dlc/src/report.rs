//! What a compilation did, for people and for programs.

use dlc_kernel::{Class, Program, StageTime};
use indexmap::IndexMap;
use serde::Serialize;
use std::fmt;

/// Stage times, kernels, work, parameters and memory of a built program.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Milliseconds of each stage of the compilation, in order.
    pub stages: IndexMap<&'static str, f64>,
    /// Their sum.
    pub compile_ms: f64,
    /// Kernels of each entry.
    pub kernels: IndexMap<String, usize>,
    /// Operations of one call of the first entry; a multiply-add counts as 2.
    pub flops: u64,
    /// Bytes that the kernels of the first entry touch.
    pub bytes: u64,
    /// Trained scalars.
    pub parameters: u64,
    /// Bytes of parameters, state, temporaries and workspaces at the peak.
    pub peak_bytes: u64,
}

impl Report {
    /// Describes a program that takes so many bytes, and took `stages` to compile.
    pub fn new(program: &Program, peak_bytes: u64, stages: &[StageTime]) -> Report {
        let first = &program.entries[0];
        let params = program.buffers.iter().filter(|b| b.class == Class::Param);
        Report {
            stages: stages.iter().map(|s| (s.name, round(s.ms))).collect(),
            compile_ms: round(stages.iter().map(|s| s.ms).sum()),
            kernels: program.entries.iter().map(|e| (e.name.clone(), e.kernels.len())).collect(),
            flops: first.kernels.iter().map(|k| k.flops()).sum(),
            bytes: first.kernels.iter().map(|k| k.bytes(program)).sum(),
            parameters: params.map(|b| b.elements().unwrap_or(0) as u64).sum(),
            peak_bytes,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "compiled in {:.1} ms", self.compile_ms)?;
        for (name, ms) in self.stages.iter().filter(|(_, ms)| **ms >= 0.05) {
            writeln!(f, "  {name:<24} {ms:>8.2} ms")?;
        }
        for (entry, kernels) in &self.kernels {
            writeln!(f, "{entry}: {kernels} kernels")?;
        }
        writeln!(f, "parameters   {}", grouped(self.parameters))?;
        writeln!(f, "work         {} operations a call", grouped(self.flops))?;
        writeln!(f, "traffic      {} bytes a call", grouped(self.bytes))?;
        writeln!(f, "peak memory  {} bytes", grouped(self.peak_bytes))
    }
}

/// Microseconds are all that a clock tells.
pub(crate) fn round(ms: f64) -> f64 {
    (ms * 1e4).round() / 1e4
}

/// `61_706`, as the language writes it.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}
