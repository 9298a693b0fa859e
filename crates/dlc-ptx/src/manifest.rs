//! `model.json`: what another program needs to launch a program's PTX with the driver API alone.
//!
//! The fields are the format. Whoever changes what one means, or takes one away, raises [`VERSION`];
//! docs/ptx.md describes it for readers of the file.

use crate::device::{
    ALIGNMENT, Arg, DeviceBuffer, DeviceEntry, DeviceProgram, ErrorRecord, Launch, Work,
};
use crate::ir::{self, STATIC_SHARED};
use dlc_kernel::Class;
use serde::{Deserialize, Serialize};

/// The version of the format.
pub const VERSION: u32 = 2;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The file of the PTX, beside this one.
    pub ptx: String,
    /// The architecture it is for: `sm_80`, `sm_90a`.
    pub target: String,
    /// Its PTX version: `7.8`.
    pub ptx_version: String,
    /// How products of floats are computed: `f32`, `3xtf32`, `tf32`,
    /// `f16`, `bf16`.
    pub math: String,
    /// The one allocation.
    pub memory: MemoryFacts,
    /// In the program's order; entries name them by position.
    pub buffers: Vec<BufferFacts>,
    /// In the module's order; launches name them by position.
    pub kernels: Vec<KernelFacts>,
    /// What can be called.
    pub entries: Vec<EntryFacts>,
}

/// Device memory: all offsets count bytes from its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryFacts {
    /// How many to allocate.
    pub bytes: u64,
    /// What the allocation's address must be a multiple of.
    pub alignment: u64,
    /// Where the error record lies: zeros before a call, see [`ErrorRecord`].
    pub error_offset: u64,
    /// Its size.
    pub error_bytes: u64,
}

/// A buffer, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BufferFacts {
    /// The path of a parameter, the name of an input or output.
    pub name: String,
    /// `param`, `state`, `scalar`, `input`, `output`, `temp`.
    pub class: String,
    /// `f32`, `i32`, `u8`, `bool` (a byte).
    pub dtype: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// Where.
    pub offset: u64,
    /// Bytes of all elements; 0 of a temporary that has no place.
    pub bytes: u64,
    /// What a `scalar` must be set to before the first call, unless another value is wanted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default: Option<f64>,
}

/// A kernel of the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// Its `.entry`.
    pub name: String,
    /// Threads of a block, along x.
    pub threads: u32,
    /// Bytes of shared memory that a block has.
    pub shared_bytes: u32,
    /// How many of them the launch must ask for: all if they exceed what a kernel may declare, after
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES` is set to it; else 0.
    pub dynamic_shared_bytes: u32,
    /// In calling order.
    pub params: Vec<ParamFacts>,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamFacts {
    /// For readers.
    pub name: String,
    /// `address` (8 bytes) or `word` (4 bytes).
    pub kind: String,
}

/// One thing the program can be called for: its launches in order, on one stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryFacts {
    /// `run`, `train`, `eval`.
    pub name: String,
    /// Positions in `buffers`; written before the call.
    pub inputs: Vec<usize>,
    /// Positions in `buffers`; read after the call.
    pub outputs: Vec<usize>,
    /// In order.
    pub launches: Vec<WorkFacts>,
}

/// A launch, or launches that are repeated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WorkFacts {
    /// One.
    Launch(LaunchFacts),
    /// A loop.
    Repeat(RepeatFacts),
}

/// Launches that are made in order, and all of them again for every further step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepeatFacts {
    /// How often.
    pub repeat: u32,
    /// In order.
    pub launches: Vec<WorkFacts>,
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchFacts {
    /// Position in `kernels`.
    pub kernel: usize,
    /// The kernel of the program that it computes or helps to compute; of several, the last.
    pub computes: String,
    /// `FILE:LINE` of what asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<String>,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// One for each parameter.
    pub args: Vec<ArgFacts>,
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArgFacts {
    /// The allocation's address plus so much.
    Address(u64),
    /// A number of 32 bits.
    Word(u32),
    /// As a word: how many steps came before, of the loop around that has so many others around it.
    Step(u32),
}

impl Manifest {
    /// Describes `program`, whose PTX is in the file `ptx`.
    pub fn new(program: &DeviceProgram, ptx: &str) -> Manifest {
        let (major, minor) = program.flavour.version();
        Manifest {
            version: VERSION,
            ptx: ptx.to_owned(),
            target: program.flavour.name().to_owned(),
            ptx_version: format!("{major}.{minor}"),
            math: program.math.name().to_owned(),
            memory: MemoryFacts {
                bytes: program.bytes,
                alignment: ALIGNMENT,
                error_offset: program.error,
                error_bytes: ErrorRecord::BYTES,
            },
            buffers: program.buffers.iter().map(BufferFacts::new).collect(),
            kernels: program.module.kernels.iter().map(KernelFacts::new).collect(),
            entries: program.entries.iter().map(EntryFacts::new).collect(),
        }
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and numbers can be written") + "\n"
    }
}

impl BufferFacts {
    fn new(buffer: &DeviceBuffer) -> BufferFacts {
        BufferFacts {
            name: buffer.name.clone(),
            class: class_name(buffer.class).to_owned(),
            dtype: buffer.dtype.name().to_owned(),
            shape: buffer.shape.clone(),
            offset: buffer.offset,
            bytes: buffer.bytes,
            default: (buffer.class == Class::Scalar).then_some(buffer.default),
        }
    }
}

const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Param => "param",
        Class::State => "state",
        Class::Scalar => "scalar",
        Class::Input => "input",
        Class::Output => "output",
        Class::Temp => "temp",
    }
}

impl KernelFacts {
    fn new(kernel: &ir::Kernel) -> KernelFacts {
        let param = |p: &ir::Param| ParamFacts {
            name: p.name.clone(),
            kind: if p.class == ir::Class::B64 { "address" } else { "word" }.to_owned(),
        };
        KernelFacts {
            name: kernel.name.clone(),
            threads: kernel.threads,
            shared_bytes: kernel.shared,
            dynamic_shared_bytes: if kernel.shared > STATIC_SHARED { kernel.shared } else { 0 },
            params: kernel.params.iter().map(param).collect(),
        }
    }
}

impl EntryFacts {
    fn new(entry: &DeviceEntry) -> EntryFacts {
        EntryFacts {
            name: entry.name.clone(),
            inputs: entry.inputs.clone(),
            outputs: entry.outputs.clone(),
            launches: entry.kernels.iter().flatten().map(WorkFacts::new).collect(),
        }
    }
}

impl WorkFacts {
    fn new(work: &Work<Launch>) -> WorkFacts {
        match work {
            Work::Once(launch) => WorkFacts::Launch(LaunchFacts::new(launch)),
            Work::Repeat { steps, works } => WorkFacts::Repeat(RepeatFacts {
                repeat: *steps,
                launches: works.iter().map(WorkFacts::new).collect(),
            }),
        }
    }
}

impl LaunchFacts {
    fn new(launch: &Launch) -> LaunchFacts {
        let arg = |arg: &Arg| match *arg {
            Arg::Address { offset, .. } => ArgFacts::Address(offset),
            Arg::Word(word) => ArgFacts::Word(word),
            Arg::Step(k) => ArgFacts::Step(k),
        };
        LaunchFacts {
            kernel: launch.kernel,
            computes: launch.name.clone(),
            line: launch.origin.as_ref().map(|at| format!("{}:{}", at.file, at.line)),
            grid: launch.grid,
            args: launch.args.iter().map(arg).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flavour, Math};
    use dlc_kernel::DType;

    fn buffer(name: &str, class: Class, shape: &[u64], offset: u64) -> DeviceBuffer {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        let bytes = 4 * shape.iter().product::<u64>();
        DeviceBuffer { name, dtype: DType::F32, shape, class, default: 0.5, offset, bytes }
    }

    fn program(shared: u32) -> DeviceProgram {
        let param = |name: &str, class| ir::Param { name: name.into(), class };
        let kernel = ir::Kernel {
            name: "k_double".into(),
            params: vec![param("x", ir::Class::B64), param("launch", ir::Class::B32)],
            threads: 64,
            min_blocks: 1,
            shared,
            registers: [0; ir::Class::ALL.len()],
            body: Vec::new(),
        };
        let launch = Launch {
            kernel: 0,
            name: "double".into(),
            origin: None,
            checks: None,
            grid: [2, 1, 1],
            args: vec![Arg::Address { offset: 256, bytes: 12 }, Arg::Word(1)],
        };
        let args = vec![Arg::Address { offset: 256, bytes: 12 }, Arg::Step(0)];
        let works = vec![Work::Once(Launch { args, ..launch.clone() })];
        let kernels = vec![vec![Work::Once(launch)], vec![Work::Repeat { steps: 7, works }]];
        let (inputs, outputs) = (vec![1], vec![1]);
        let entry = DeviceEntry { name: "run".into(), inputs, outputs, kernels };
        DeviceProgram {
            flavour: Flavour::Sm80,
            math: Math::Tf32x3,
            module: ir::Module { kernels: vec![kernel] },
            bytes: 768,
            error: 512,
            buffers: vec![
                buffer("lr", Class::Scalar, &[], 0),
                buffer("x", Class::Input, &[3], 256),
            ],
            entries: vec![entry],
        }
    }

    #[test]
    fn a_manifest_says_all_that_a_launch_needs() {
        let manifest = Manifest::new(&program(1024), "double.ptx");
        insta::assert_snapshot!(manifest.to_json());
        assert_eq!(serde_json::from_str::<Manifest>(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn shared_memory_beyond_what_a_kernel_declares_is_asked_for() {
        let asked = |shared| Manifest::new(&program(shared), "").kernels[0].dynamic_shared_bytes;
        assert_eq!(asked(STATIC_SHARED), 0);
        assert_eq!(asked(STATIC_SHARED + 128), STATIC_SHARED + 128);
    }
}
