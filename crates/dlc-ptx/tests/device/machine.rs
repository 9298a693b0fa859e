//! Hand-written kernels on the interpreter: words in, words out.

use dlc_kernel::{Class, DType, Tensor};
use dlc_ptx::device::{Arg, DeviceBuffer, DeviceEntry, Launch, Work};
use dlc_ptx::interpret::{Device, Failure, Fault};
use dlc_ptx::ir::{
    Address, B32, B64, Builder, CacheHint, IntOp, Kernel, MemType, Module, Reg, Space, Special,
};
use dlc_ptx::{DeviceProgram, Flavour, Math};

/// What a kernel is given: two buffers and where its thread stands among all.
pub struct Given {
    pub input: B64,
    pub output: B64,
    /// The thread's number in the whole grid.
    pub at: B32,
}

impl Given {
    /// The address of a word of the input.
    pub fn word(&self, b: &mut Builder, at: B32) -> Address {
        Address::global(b.mad_wide(at, 4, self.input), 0)
    }

    /// The address of a word of the output.
    pub fn place(&self, b: &mut Builder, at: B32) -> Address {
        Address::global(b.mad_wide(at, 4, self.output), 0)
    }
}

/// A kernel of so many threads a block.
pub fn kernel(threads: u32, write: impl FnOnce(&mut Builder, &Given)) -> Kernel {
    let mut b = Builder::new("kernel");
    let (input, output) = (b.param("input"), b.param("output"));
    let (block, thread) = (b.special(Special::BlockX), b.special(Special::Thread));
    let at = b.mad(block, threads, thread);
    write(&mut b, &Given { input, output, at });
    b.finish(threads, 1)
}

/// Runs a kernel in so many blocks. `outputs` words come out, all of which it must write.
pub fn run(
    kernel: Kernel,
    blocks: u32,
    words: &[u32],
    outputs: usize,
) -> Result<Vec<u32>, Failure> {
    let (inputs, outputs) = (words.len() as u64, outputs as u64);
    let buffer = |name: &str, class, elements: u64, offset| DeviceBuffer {
        name: name.into(),
        dtype: DType::I32,
        shape: vec![elements],
        class,
        default: 0.0,
        offset,
        bytes: 4 * elements,
    };
    let end = (4 * inputs).next_multiple_of(256);
    let error = end + (4 * outputs).next_multiple_of(256);
    let launch = Launch {
        kernel: 0,
        name: "kernel".into(),
        origin: None,
        checks: None,
        grid: [blocks, 1, 1],
        args: vec![
            Arg::Address { offset: 0, bytes: 4 * inputs },
            Arg::Address { offset: end, bytes: 4 * outputs },
        ],
    };
    let program = DeviceProgram {
        flavour: Flavour::Sm80,
        math: Math::F32,
        module: Module { kernels: vec![kernel] },
        bytes: error + 16,
        error,
        buffers: vec![
            buffer("input", Class::Input, inputs, 0),
            buffer("output", Class::Output, outputs, end),
        ],
        entries: vec![DeviceEntry {
            name: "run".into(),
            inputs: vec![0],
            outputs: vec![1],
            kernels: vec![vec![Work::Once(launch)]],
        }],
    };
    let given = Tensor::i32([words.len()], words.iter().map(|&w| w as i32).collect());
    let (results, _) = Device::new(&program).call(0, &[given])?;
    Ok(results[0].as_i32().expect("words").iter().map(|&w| w as u32).collect())
}

/// What is wrong with a kernel, run by so many blocks.
pub fn fault(kernel: Kernel, blocks: u32, words: &[u32], outputs: usize) -> Fault {
    match run(kernel, blocks, words, outputs) {
        Err(Failure::Fault { fault, .. }) => fault,
        other => panic!("a fault is expected: {other:?}"),
    }
}

/// Runs straight-line code in one warp: `words[i]` holds the lanes of its operand `i`; gives the
/// lanes of each of its results.
pub fn lanes(
    words: &[[u32; 32]],
    write: impl FnOnce(&mut Builder, &[B32]) -> Vec<Reg>,
) -> Vec<[u32; 32]> {
    let mut count = 0;
    let kernel = kernel(32, |b, given| {
        let operands: Vec<B32> = (0..words.len() as u32)
            .map(|i| {
                let at = b.int(IntOp::Add, given.at, 32 * i);
                let from = given.word(b, at);
                B32(b.load(Space::Global, MemType::B32, 1, from, CacheHint::None)[0].number)
            })
            .collect();
        let results = write(b, &operands);
        count = results.len();
        for (i, result) in results.into_iter().enumerate() {
            let at = b.int(IntOp::Add, given.at, 32 * i as u32);
            let to = given.place(b, at);
            let ty =
                if result.class == dlc_ptx::ir::Class::F32 { MemType::F32 } else { MemType::B32 };
            b.store(Space::Global, ty, to, &[result]);
        }
    });
    let given: Vec<u32> = words.iter().flatten().copied().collect();
    let found = run(kernel, 1, &given, 32 * count).unwrap_or_else(|e| panic!("{e}"));
    found.chunks(32).map(|lanes| lanes.try_into().expect("a warp")).collect()
}

/// The same word in all lanes.
pub fn all(word: u32) -> [u32; 32] {
    [word; 32]
}
