//! The GPU of this machine: what it is, which flavour it runs, or why there is none.

use crate::Flavour;
use std::fmt;

/// A GPU and its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As its maker calls it.
    pub name: String,
    /// Compute capability: `(9, 0)`.
    pub capability: Version,
    /// The newest CUDA that the driver knows: `(12, 8)`.
    pub driver: Version,
    /// Bytes of memory.
    pub bytes: u64,
}

/// Major and minor number.
pub type Version = (u32, u32);

/// Why PTX cannot be launched here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGpu {
    /// The program lacks the launcher.
    #[error("this dlc was built without GPU support (build it with `--features cuda`)")]
    NotBuilt,
    /// There is no `libcuda`.
    #[error("no NVIDIA driver is installed (libcuda is not found)")]
    NoDriver,
    /// The driver knows of no device.
    #[error("the NVIDIA driver finds no GPU")]
    NoDevice,
    /// The driver does not know the PTX version.
    #[error(
        "the NVIDIA driver is too old: it knows CUDA {}, code for {flavour} needs {}",
        dotted(.driver),
        dotted(&.flavour.cuda())
    )]
    OldDriver {
        /// What the driver knows.
        driver: Version,
        /// What was asked for.
        flavour: Flavour,
    },
    /// The GPU is not of the architecture.
    #[error(
        "{gpu} has compute capability {}, code for {flavour} needs {}",
        dotted(.capability),
        needed(*.flavour)
    )]
    OtherArchitecture {
        /// Its name.
        gpu: String,
        /// Its compute capability.
        capability: Version,
        /// What was asked for.
        flavour: Flavour,
    },
    /// The driver reports an error.
    #[error("the NVIDIA driver fails: {0}")]
    Driver(String),
}

fn dotted(version: &Version) -> String {
    format!("{}.{}", version.0, version.1)
}

fn needed(flavour: Flavour) -> String {
    let own = dotted(&flavour.capability());
    if flavour.is_exact() { own } else { format!("{own} or newer") }
}

impl Gpu {
    /// The first GPU of this machine.
    ///
    /// # Errors
    /// Why there is none that can be used.
    pub fn find() -> Result<Gpu, NoGpu> {
        #[cfg(feature = "cuda")]
        return crate::cuda::find();
        #[cfg(not(feature = "cuda"))]
        Err(NoGpu::NotBuilt)
    }

    /// Whether code of that flavour runs on it.
    ///
    /// # Errors
    /// Why not.
    pub fn runs(&self, flavour: Flavour) -> Result<(), NoGpu> {
        let (own, needed) = (self.capability, flavour.capability());
        if own < needed || (flavour.is_exact() && own != needed) {
            let (gpu, capability) = (self.name.clone(), own);
            return Err(NoGpu::OtherArchitecture { gpu, capability, flavour });
        }
        if self.driver < flavour.cuda() {
            return Err(NoGpu::OldDriver { driver: self.driver, flavour });
        }
        Ok(())
    }

    /// The flavour made for it, or else the most special one that runs on it.
    ///
    /// # Errors
    /// Why not even the most portable one does.
    pub fn flavour(&self) -> Result<Flavour, NoGpu> {
        let best = Flavour::ALL.into_iter().rev().find(|&flavour| self.runs(flavour).is_ok());
        best.map_or_else(|| self.runs(Flavour::ALL[0]).map(|()| Flavour::ALL[0]), Ok)
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gpu { name, capability, driver, bytes } = self;
        let (capability, driver) = (dotted(capability), dotted(driver));
        let gib = *bytes as f64 / f64::from(1 << 30);
        write!(f, "{name}, compute capability {capability}, {gib:.0} GiB, driver of CUDA {driver}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(capability: Version, driver: Version) -> Gpu {
        Gpu { name: "G1".into(), capability, driver, bytes: 80 << 30 }
    }

    #[test]
    fn the_flavour_is_the_most_special_that_runs() {
        let flavour = |capability, driver| gpu(capability, driver).flavour();
        assert_eq!(flavour((9, 0), (12, 8)), Ok(Flavour::Sm90a));
        assert_eq!(flavour((9, 0), (11, 8)), Ok(Flavour::Sm80), "an old driver");
        assert_eq!(flavour((8, 6), (12, 8)), Ok(Flavour::Sm80));
        assert_eq!(flavour((12, 0), (13, 0)), Ok(Flavour::Sm80), "sm_90a is for Hopper alone");
    }

    #[test]
    fn what_does_not_run_is_told_with_both_versions() {
        let message = |capability, driver, flavour| {
            gpu(capability, driver).runs(flavour).unwrap_err().to_string()
        };
        assert_eq!(
            message((7, 5), (12, 8), Flavour::Sm80),
            "G1 has compute capability 7.5, code for sm_80 needs 8.0 or newer"
        );
        assert_eq!(
            message((10, 0), (13, 0), Flavour::Sm90a),
            "G1 has compute capability 10.0, code for sm_90a needs 9.0"
        );
        assert_eq!(
            message((8, 0), (11, 4), Flavour::Sm80),
            "the NVIDIA driver is too old: it knows CUDA 11.4, code for sm_80 needs 11.8"
        );
        assert!(gpu((7, 0), (12, 0)).flavour().unwrap_err().to_string().contains("sm_80"));
    }

    #[test]
    fn a_gpu_is_shown_in_one_line() {
        let shown = gpu((9, 0), (12, 8)).to_string();
        assert_eq!(shown, "G1, compute capability 9.0, 80 GiB, driver of CUDA 12.8");
    }

    #[test]
    fn without_a_gpu_there_is_a_reason() {
        match Gpu::find() {
            Ok(gpu) => assert!(!gpu.name.is_empty()),
            Err(reason) => assert!(!reason.to_string().is_empty()),
        }
    }
}
