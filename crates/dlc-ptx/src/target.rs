//! PTX as a target like others: dumps and decisions anywhere, executables where there is a GPU.

use crate::device::{Launch, Work};
use crate::gpu::NoGpu;
use crate::{DeviceProgram, PtxTarget, ir};
use dlc_kernel::{
    BuildError, BuildOptions, Decision, Decisions, Entry, Executable, Program, Target,
};

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
        let entries = program.entries.iter().enumerate();
        let kernels = entries.map(|(at, entry)| self.decide_entry(program, &device, at, entry));
        Ok(Decisions { program: program.clone(), kernels: kernels.collect() })
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
    fn decide_entry(
        self,
        program: &Program,
        device: &DeviceProgram,
        at: usize,
        entry: &Entry,
    ) -> Vec<Decision> {
        let of_kernel = |(position, works): (usize, &Vec<Work<Launch>>)| {
            let threads = works.iter().flat_map(Work::list).map(|launch| {
                let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
                blocks * u64::from(device.module.kernels[launch.kernel].threads)
            });
            let schedule = self.schedule_of(program, entry, position);
            let words: Vec<&str> = schedule.split_whitespace().collect();
            Decision {
                algorithm: words.join(" "),
                tile: None,
                layout: "row-major".into(),
                threads: threads.max().unwrap_or(0) as usize,
            }
        };
        device.entries[at].kernels.iter().enumerate().map(of_kernel).collect()
    }
}
