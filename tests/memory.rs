//! The memory that dlc prints for a program is what the process takes for it.
//!
//! One test in a process of its own, so that nobody else's memory is counted.
#![cfg(target_os = "linux")]

use dlc::{Bindings, Compiler, Executable, Tensor, pipeline};

/// Activations outweigh everything, in both entries; what callers allocate is nothing beside them.
const ACTIVATIONS: &str = "
    model Deep(x: f32[N, 16]) -> f32[N, 8] {
      x |> linear(512) |> tanh |> linear(512) |> tanh |> linear(512) |> tanh |> linear(8)
    }
    train Deep {
      data  tensors(x = f32[N, 16], y = f32[N, 8]) batch BATCH
      loss  mse(Deep(x), y)
      optim adam(lr = 1e-3)
    }";

/// Parameters and their packed copies outweigh everything; none is large.
const PARAMETERS: &str = "model Wide(x: f32[8, 1024]) -> f32[8, 1024] {
    x |> layers: repeat 24 { linear(1024) |> relu }
}";

/// A line of `/proc/self/status` in bytes.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Calls every entry twice, in turn.
fn call_all(executable: &dyn Executable) {
    let program = executable.program();
    let zeros = |id: &dlc_kernel::BufferId| {
        let buffer = program.buffer(*id);
        let extents = buffer.shape.iter().map(|s| s.as_const().unwrap() as usize);
        Tensor::zeros(buffer.dtype, extents.collect::<Vec<_>>())
    };
    for at in (0..program.entries.len()).chain(0..program.entries.len()) {
        let inputs: Vec<Tensor> = program.entries[at].inputs.iter().map(zeros).collect();
        let mut outputs: Vec<Tensor> = program.entries[at].outputs.iter().map(zeros).collect();
        executable.call(at, &inputs.iter().collect::<Vec<_>>(), &mut outputs).unwrap();
    }
}

/// Resident bytes at the peak of `task`, over those before, beside the bytes it says.
#[track_caller]
fn check(name: &str, task: impl Fn() -> u64) {
    // Resets the peak to what is resident.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let printed = task();
    let taken = status("VmHWM") - before;
    let difference = taken.abs_diff(printed) as f64 / printed as f64;
    assert!(difference < 0.05, "{name}: {printed} bytes are printed, {taken} are taken");
}

fn train(batch: usize) -> u64 {
    let compiler = Compiler::new().threads(2);
    let source = ACTIVATIONS.replace("BATCH", &batch.to_string());
    let module = compiler.compile_text("deep.dl", &source).unwrap();
    let entries = module.training_entries("Deep", &Bindings::new()).unwrap();
    let (executable, _) =
        pipeline::build(&entries, compiler.target_ref(), compiler.options()).unwrap();
    call_all(&*executable);
    executable.peak_bytes()
}

/// First values are drawn by a program of its own, which is gone before the first call.
fn infer() -> u64 {
    let module = Compiler::new().threads(2).compile_text("wide.dl", PARAMETERS).unwrap();
    let network = module.model("Wide").unwrap().bind([]).unwrap().initialize(1).unwrap();
    call_all(network.executable());
    network.executable().peak_bytes()
}

#[test]
fn printed_bytes_are_taken() {
    // The compiler's own memory is no part of a program's.
    train(64);
    check("training", || train(8_192));
    check("inference", infer);
}
