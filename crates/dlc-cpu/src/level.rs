//! Instruction sets, by the names users give them.
//!
//! A level is asked for or detected, never assumed; code for a level only runs where
//! [`Level::runs_here`] says so.

use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use dlc_kernel::{BuildError, OptLevel};
use target_lexicon::{Architecture, Triple};

/// An instruction set that code is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// SSE4.2: 128-bit vectors, no fused multiply-add.
    X86_64V2,
    /// AVX2 and FMA.
    X86_64V3,
    /// AVX-512 (F, BW, CD, DQ, VL).
    X86_64V4,
    /// 64-bit Arm with Advanced SIMD.
    Aarch64,
}

/// What the code generator does for the speed of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Nothing: registers are given out in one pass. For control around leaves.
    Least,
    /// The best registers for instructions in their order.
    Registers,
    /// All it can, for functions with hot loops of their own.
    Full,
}

impl Effort {
    /// The most that an optimization level asks for.
    pub fn of(opt_level: OptLevel) -> Effort {
        if opt_level == OptLevel::O0 { Effort::Registers } else { Effort::Full }
    }
}

impl Level {
    /// Every level.
    pub const ALL: [Level; 4] = [Level::X86_64V2, Level::X86_64V3, Level::X86_64V4, Level::Aarch64];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Level::X86_64V2 => "x86-64-v2",
            Level::X86_64V3 => "x86-64-v3",
            Level::X86_64V4 => "x86-64-v4",
            Level::Aarch64 => "aarch64",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The best level of this machine.
    ///
    /// # Errors
    /// [`BuildError::Machine`] if it is below every level we know.
    pub fn detect() -> Result<Level, BuildError> {
        let best = Level::ALL.into_iter().rev().find(|level| level.runs_here());
        best.ok_or_else(|| BuildError::Machine("this machine has neither SSE4.2 nor Arm64".into()))
    }

    /// Whether a multiply-add is one instruction.
    pub const fn has_fma(self) -> bool {
        !matches!(self, Level::X86_64V2)
    }

    /// Lanes of `f32` in a vector of a leaf.
    pub const fn lanes(self) -> i64 {
        match self {
            Level::X86_64V4 => 16,
            Level::X86_64V3 => 8,
            Level::X86_64V2 | Level::Aarch64 => 4,
        }
    }

    /// Whether this machine has every instruction of the level.
    #[cfg(target_arch = "x86_64")]
    pub fn runs_here(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let v2 =
            has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2") && has!("popcnt");
        let v3 = || has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2") && has!("lzcnt");
        let v4 = || {
            has!("avx512f")
                && has!("avx512bw")
                && has!("avx512cd")
                && has!("avx512dq")
                && has!("avx512vl")
        };
        match self {
            Level::X86_64V2 => v2,
            Level::X86_64V3 => v2 && v3(),
            Level::X86_64V4 => v2 && v3() && v4(),
            Level::Aarch64 => false,
        }
    }

    /// Whether this machine has every instruction of the level.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn runs_here(self) -> bool {
        self == Level::Aarch64 && cfg!(target_arch = "aarch64")
    }

    /// Refuses a level that this machine lacks.
    ///
    /// # Errors
    /// [`BuildError::Machine`], naming the level asked for and the best there is.
    pub fn require(self) -> Result<(), BuildError> {
        if self.runs_here() {
            return Ok(());
        }
        let best = Level::detect().map_or("none that is known", Level::name);
        let name = self.name();
        Err(BuildError::Machine(format!(
            "this machine cannot run {name} code; its level is {best}"
        )))
    }

    /// The code generator for the level, which takes so much effort.
    ///
    /// # Errors
    /// [`BuildError::Machine`] if this build of dlc has none for the level's architecture.
    pub fn isa(self, effort: Effort) -> Result<OwnedTargetIsa, BuildError> {
        let absent = |e: &dyn std::fmt::Display| {
            BuildError::Machine(format!("no code generator for {}: {e}", self.name()))
        };
        let mut builder = isa::lookup(self.triple()).map_err(|e| absent(&e))?;
        for flag in self.isa_flags() {
            builder.enable(flag).map_err(|e| absent(&e))?;
        }
        builder.finish(shared_flags(effort)).map_err(|e| absent(&e))
    }

    fn triple(self) -> Triple {
        let mut triple = Triple::host();
        if self == Level::Aarch64 {
            if !matches!(triple.architecture, Architecture::Aarch64(_)) {
                triple.architecture =
                    Architecture::Aarch64(target_lexicon::Aarch64Architecture::Aarch64);
            }
        } else {
            triple.architecture = Architecture::X86_64;
        }
        triple
    }

    fn isa_flags(self) -> &'static [&'static str] {
        const V4: &[&str] = &[
            "has_sse3",
            "has_ssse3",
            "has_sse41",
            "has_sse42",
            "has_popcnt",
            "has_avx",
            "has_avx2",
            "has_fma",
            "has_bmi1",
            "has_bmi2",
            "has_lzcnt",
            "has_avx512f",
            "has_avx512dq",
            "has_avx512vl",
        ];
        match self {
            Level::X86_64V2 => &V4[..5],
            Level::X86_64V3 => &V4[..11],
            Level::X86_64V4 => V4,
            Level::Aarch64 => &[],
        }
    }
}

fn shared_flags(effort: Effort) -> settings::Flags {
    let mut flags = settings::builder();
    let speed = if effort == Effort::Full { "speed" } else { "none" };
    let registers = if effort == Effort::Least { "single_pass" } else { "backtracking" };
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", speed),
        ("regalloc_algorithm", registers),
        ("enable_verifier", verify),
        ("is_pic", "false"),
        ("use_colocated_libcalls", "false"),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
    ] {
        flags.set(name, value).expect("Cranelift knows its own flags");
    }
    settings::Flags::new(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("x86-64-v9"), None);
    }

    #[test]
    fn a_missing_level_is_refused_by_name() {
        let best = Level::detect().expect("tests run on a machine with a level");
        assert_eq!(best.require(), Ok(()));
        for level in Level::ALL.into_iter().filter(|l| !l.runs_here()) {
            let error = level.require().unwrap_err().to_string();
            assert!(error.contains(level.name()) && error.contains(best.name()), "{error}");
        }
    }
}
