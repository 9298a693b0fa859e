//! PTX as a target like others: dumps and decisions anywhere, executables where there is a GPU.

use crate::device::Work;
use crate::gpu::NoGpu;
use crate::group::Grouped;
use crate::{DeviceProgram, PtxTarget, ir};
use dlc_kernel::{BuildError, BuildOptions, Decision, Decisions, Executable, Program, Target};
use std::collections::BTreeMap;
use std::ops::Range;

impl Target for PtxTarget {
    fn name(&self) -> &str {
        self.flavour.name()
    }

    /// Launches on this machine's GPU: needs the feature `cuda`, a driver and a device.
    fn build(
        &self,
        program: &Program,
        options: &BuildOptions,
    ) -> Result<Box<dyn Executable>, BuildError> {
        #[cfg(feature = "cuda")]
        return crate::cuda::build(*self, program, options);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (program, options);
            Err(NoGpu::NotBuilt.into())
        }
    }

    fn emit(
        &self,
        stage: &str,
        program: &Program,
        _options: &BuildOptions,
    ) -> Result<String, BuildError> {
        match stage {
            "schedule" => Ok(self.schedule(program)),
            "ptx" => Ok(self.compile(program)?.ptx()),
            _ => Err(BuildError::Machine(format!("{} has no stage `{stage}`", self.name()))),
        }
    }

    fn decide(&self, program: &Program, _options: &BuildOptions) -> Result<Decisions, BuildError> {
        let device = self.compile(program)?;
        let grouped = Grouped::new(program, self.math);
        let entries = 0..grouped.program.entries.len();
        let kernels = entries.map(|at| self.decide_entry(&grouped, &device, at)).collect();
        let made = vec![BTreeMap::new(); grouped.program.entries.len()];
        Ok(Decisions { program: grouped.program, kernels, made })
    }

    fn stages(&self) -> &'static [&'static str] {
        &["schedule", "ptx"]
    }
}

impl DeviceProgram {
    /// The text of the module.
    pub fn ptx(&self) -> String {
        ir::print(&self.module, self.flavour)
    }
}

impl From<NoGpu> for BuildError {
    fn from(reason: NoGpu) -> BuildError {
        BuildError::Machine(reason.to_string())
    }
}

impl PtxTarget {
    /// By kernel; those of a group are decided together.
    fn decide_entry(self, grouped: &Grouped, device: &DeviceProgram, at: usize) -> Vec<Decision> {
        let of_group = |group: &Range<usize>| {
            let works = device.entries[at].kernels[group.clone()].iter().flatten();
            let threads = works.flat_map(Work::list).map(|launch| {
                let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
                blocks * u64::from(device.module.kernels[launch.kernel].threads)
            });
            let schedule = self.schedule_of(grouped, at, group);
            let words: Vec<&str> = schedule.split_whitespace().collect();
            let decision = Decision {
                algorithm: words.join(" "),
                tile: None,
                layout: "row-major".into(),
                threads: threads.max().unwrap_or(0) as usize,
            };
            vec![decision; group.len()]
        };
        grouped.entries[at].ranges.iter().flat_map(of_group).collect()
    }
}
