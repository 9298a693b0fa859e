//! What code is made for: a level of the CPU, or a flavour of PTX.
//!
//! Most of dlc needs only the trait [`Target`]; what only one kind has is asked for by kind.

use crate::Error;
use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::Target;
use dlc_ptx::{Flavour, Gpu, Math, PtxTarget};
use serde::Serialize;

/// One of the targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyTarget {
    /// Machine code for the CPU.
    Cpu(CpuTarget),
    /// PTX for a GPU.
    Ptx(PtxTarget),
}

impl AnyTarget {
    /// The best target of this machine's CPU. On one below every level it is the lowest, and building
    /// for it is refused with the reason.
    pub fn host() -> AnyTarget {
        AnyTarget::Cpu(host())
    }

    /// All of them, as they are listed.
    pub fn all() -> Vec<AnyTarget> {
        let cpu = Level::ALL.map(|level| AnyTarget::Cpu(CpuTarget::new(level)));
        cpu.into_iter().chain(Flavour::ALL.map(AnyTarget::of_flavour)).collect()
    }

    /// The target of that name.
    ///
    /// # Errors
    /// If there is none; all names are listed.
    pub fn from_name(name: &str) -> Result<AnyTarget, Error> {
        let all = AnyTarget::all();
        if let Some(found) = all.iter().find(|target| target.as_target().name() == name) {
            return Ok(found.clone());
        }
        let names: Vec<&str> = all.iter().map(|target| target.as_target().name()).collect();
        let names = names.join(", ");
        Err(Error::Argument(format!("there is no target `{name}`; there are {names}")))
    }

    /// The target for code that runs on a device of this machine: `cpu`, or `cuda` for its GPU.
    ///
    /// # Errors
    /// If there is no such device, and why.
    pub fn of_device(name: &str) -> Result<AnyTarget, Error> {
        match name {
            "cpu" => Ok(AnyTarget::host()),
            "cuda" => {
                let flavour = Gpu::find().and_then(|gpu| gpu.flavour());
                Ok(AnyTarget::of_flavour(flavour.map_err(dlc_kernel::BuildError::from)?))
            }
            _ => {
                Err(Error::Argument(format!("there is no device `{name}`; there are cpu and cuda")))
            }
        }
    }

    fn of_flavour(flavour: Flavour) -> AnyTarget {
        AnyTarget::Ptx(PtxTarget { flavour, math: Math::F32 })
    }

    /// As every target.
    pub fn as_target(&self) -> &dyn Target {
        match self {
            AnyTarget::Cpu(target) => target,
            AnyTarget::Ptx(target) => target,
        }
    }

    /// The CPU's, if it is that.
    pub fn as_cpu(&self) -> Option<&CpuTarget> {
        match self {
            AnyTarget::Cpu(target) => Some(target),
            AnyTarget::Ptx(_) => None,
        }
    }

    /// PTX, if it is that.
    pub fn as_ptx(&self) -> Option<PtxTarget> {
        match self {
            AnyTarget::Cpu(_) => None,
            AnyTarget::Ptx(target) => Some(*target),
        }
    }

    /// The CPU's, for what no other has.
    ///
    /// # Errors
    /// Naming `what`, if it is another.
    pub(crate) fn require_cpu(&self, what: &str) -> Result<&CpuTarget, Error> {
        let name = self.as_target().name();
        let other = || Error::Argument(format!("{what} is for CPU targets; `{name}` is none"));
        self.as_cpu().ok_or_else(other)
    }

    /// The same target, multiplying floats in that way.
    ///
    /// # Errors
    /// If there is no such way, or this target has but one.
    pub fn with_math(self, name: &str) -> Result<AnyTarget, Error> {
        let names = Math::ALL.map(Math::name).join(", ");
        let unknown = || Error::Argument(format!("there is no math `{name}`; there are {names}"));
        let math = Math::from_name(name).ok_or_else(unknown)?;
        match self {
            AnyTarget::Ptx(target) => Ok(AnyTarget::Ptx(PtxTarget { math, ..target })),
            AnyTarget::Cpu(_) if math == Math::F32 => Ok(self),
            AnyTarget::Cpu(target) => Err(Error::Argument(format!(
                "math `{name}` is for GPUs; `{}` has f32 alone",
                target.name()
            ))),
        }
    }

    /// What decides the bits of a result: its name, and how it multiplies if not in f32.
    pub fn describe(&self) -> String {
        let name = self.as_target().name();
        match self.as_ptx().map(|target| target.math) {
            None | Some(Math::F32) => name.to_owned(),
            Some(math) => format!("{name} with {math}"),
        }
    }
}

fn host() -> CpuTarget {
    CpuTarget::detect().unwrap_or(CpuTarget::new(Level::ALL[0]))
}

/// A target and whether this machine runs it.
#[derive(Clone, Debug, Serialize)]
pub struct TargetInfo {
    /// Its name.
    pub name: &'static str,
    /// Whether it is what a compiler compiles for if nothing is said.
    pub default: bool,
    /// The GPU that runs it, where it is code for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Why it does not run here, if it does not.
    pub refusal: Option<String>,
}

/// All targets.
pub fn targets() -> Vec<TargetInfo> {
    let level = |level: Level| TargetInfo {
        name: level.name(),
        default: level == host().level(),
        device: None,
        refusal: level.require().err().map(|e| e.to_string()),
    };
    let gpu = Gpu::find();
    let flavour = |flavour: Flavour| {
        let found = gpu.as_ref().map_err(Clone::clone);
        let found = found.and_then(|gpu| gpu.runs(flavour).map(|()| gpu.to_string()));
        let refusal = found.as_ref().err().map(|reason| reason.to_string());
        TargetInfo { name: flavour.name(), default: false, device: found.ok(), refusal }
    };
    Level::ALL.map(level).into_iter().chain(Flavour::ALL.map(flavour)).collect()
}
