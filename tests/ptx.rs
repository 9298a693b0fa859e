//! Every kernel of every example as PTX: assembled by NVIDIA's `ptxas`, and run by the interpreter
//! against the kernel program's evaluation in f64.

#[path = "../crates/dlc-ptx/tests/support/ptxas.rs"]
mod ptxas;

use dlc::pipeline::{self, EntryGraph};
use dlc::{Bindings, Compiler, DType, OptLevel, Tensor};
use dlc_kernel::{Array, Class, Program, eval::Machine, philox};
use dlc_ptx::{DeviceProgram, Flavour, Math, PtxTarget, interpret::Device};
use std::path::Path;

/// A model of an example, in batches so small that the interpreter is quick.
struct Case {
    file: &'static str,
    model: &'static str,
    batch: i64,
    /// Whether its training step is meant, rather than inference.
    train: bool,
    /// Operations on the longest path, sums of n terms counting n; 0 where nothing is run.
    depth: f64,
}

const fn case(file: &'static str, model: &'static str, batch: i64, depth: f64) -> Case {
    Case { file, model, batch, train: false, depth }
}

const fn step(file: &'static str, model: &'static str, batch: i64, depth: f64) -> Case {
    Case { file, model, batch, train: true, depth }
}

const CASES: &[Case] = &[
    case("mlp.dl", "Mlp", 3, 1e3),
    step("mlp.dl", "Mlp", 5, 4e3),
    case("lenet.dl", "LeNet", 2, 1e3),
    step("lenet.dl", "LeNet", 3, 4e3),
    step("own_optimizer.dl", "LeNet", 2, 4e3),
    case("resnet.dl", "SmallResNet", 1, 8e3),
    step("resnet.dl", "SmallResNet", 8, 0.0),
    case("resnet.dl", "ResNet18", 4, 0.0),
    case("resnet.dl", "ResNet50", 1, 0.0),
];

impl Case {
    fn name(&self) -> String {
        let stem = self.file.trim_end_matches(".dl");
        format!("{stem}_{}_{}", self.model, if self.train { "train" } else { "run" })
    }

    fn program(&self) -> Program {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = std::fs::read_to_string(root.join("examples").join(self.file)).unwrap();
        // The file's own batch is for training, not for an interpreter.
        let (before, after) = text.split_once(" batch ").unwrap();
        let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        let text = format!("{before} batch {}{rest}", self.batch);
        let module = Compiler::new().compile_text(self.file, &text).unwrap();
        let entries: Vec<EntryGraph> = if self.train {
            module.training_entries(self.model, &Bindings::default()).unwrap()
        } else {
            let sizes: Bindings = [("N".to_owned(), self.batch)].into_iter().collect();
            vec![module.model(self.model).unwrap().entry(&sizes).unwrap()]
        };
        pipeline::lower(&entries, OptLevel::O2, &mut |_, _| {}).program
    }
}

fn compile(program: &Program, flavour: Flavour) -> DeviceProgram {
    PtxTarget { flavour, math: Math::F32 }.compile(program).unwrap()
}

/// The code of a flavour in each math that makes a difference.
fn in_every_math(program: &Program, flavour: Flavour) -> Vec<DeviceProgram> {
    let in_math = |math| PtxTarget { flavour, math }.compile(program).unwrap();
    // As texts: a module with a NaN is not equal to itself.
    let mut texts = std::collections::BTreeSet::new();
    Math::ALL.map(in_math).into_iter().filter(|code| texts.insert(code.ptx())).collect()
}

/// Values for a buffer: small numbers, and small integers for indices.
fn values(buffer: &dlc_kernel::Buffer, site: u64) -> Tensor {
    let shape: Vec<usize> = buffer.shape.iter().map(|s| s.as_const().unwrap() as usize).collect();
    let n: usize = shape.iter().product();
    let draw = |i: usize| philox::uniform(11, 0, site, i as i32);
    match (buffer.dtype, buffer.class) {
        (DType::I32, _) => Tensor::i32(shape, (0..n).map(|i| (7 * i as i32 + 3) % 10).collect()),
        (_, Class::State) => Tensor::f32(shape, (0..n).map(|i| 0.5 + draw(i)).collect()),
        (_, Class::Param) => Tensor::f32(shape, (0..n).map(|i| 0.2 * draw(i) - 0.1).collect()),
        _ => Tensor::f32(shape, (0..n).map(draw).collect()),
    }
}

/// What lasts and what is handed out, by name, after one call of the first entry.
type After = Vec<(String, Array)>;

fn by_machine(program: &Program) -> After {
    let mut machine = Machine::new(program);
    for (site, buffer) in (0..).zip(&program.buffers) {
        if matches!(buffer.class, Class::Param | Class::State) {
            let value = Array::from_tensor(&values(buffer, site));
            machine.write(&buffer.name, &value).unwrap();
        }
    }
    let entry = &program.entries[0];
    let given = |id: &dlc_kernel::BufferId| {
        Array::from_tensor(&values(program.buffer(*id), u64::from(id.0)))
    };
    let inputs: Vec<Array> = entry.inputs.iter().map(given).collect();
    let outputs = machine.call(&entry.name, &inputs).unwrap();
    let names = entry.outputs.iter().map(|&id| program.buffer(id).name.clone());
    let mut after: After = names.zip(outputs).collect();
    for buffer in lasting(program) {
        after.push((buffer.name.clone(), machine.read(&buffer.name).unwrap().clone()));
    }
    after
}

fn by_ptx(program: &Program, code: &DeviceProgram) -> After {
    let mut device = Device::new(code);
    for (site, buffer) in (0..).zip(&program.buffers) {
        if matches!(buffer.class, Class::Param | Class::State) {
            device.write(&buffer.name, &values(buffer, site)).unwrap();
        }
    }
    let entry = &program.entries[0];
    let given = |id: &dlc_kernel::BufferId| values(program.buffer(*id), u64::from(id.0));
    let inputs: Vec<Tensor> = entry.inputs.iter().map(given).collect();
    let (outputs, _) = device.call(0, &inputs).unwrap_or_else(|e| panic!("{e}"));
    let names = entry.outputs.iter().map(|&id| program.buffer(id).name.clone());
    let mut after: After = names.zip(outputs.iter().map(Array::from_tensor)).collect();
    for buffer in lasting(program) {
        let value = device.read(&buffer.name).unwrap();
        after.push((buffer.name.clone(), Array::from_tensor(&value)));
    }
    after
}

fn lasting(program: &Program) -> impl Iterator<Item = &dlc_kernel::Buffer> {
    program.buffers.iter().filter(|b| matches!(b.class, Class::Param | Class::State))
}

#[test]
fn kernels_of_the_examples_compute_what_their_programs_say() {
    for case in CASES.iter().filter(|c| c.depth > 0.0) {
        let program = case.program();
        let expected = by_machine(&program);
        let found = by_ptx(&program, &compile(&program, Flavour::Sm80));
        let bound = case.depth * f64::from(f32::EPSILON) / 2.0;
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let largest = expected.data.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
            let error = found.max_difference(expected);
            let what = case.name();
            assert!(
                error <= bound * largest,
                "{what}: `{name}` is off by {error:e} of {largest:e}"
            );
        }
    }
}

/// What the assembler says of a kernel that it made.
struct Assembled {
    kernel: String,
    registers: String,
    shared: String,
}

fn assemble(ptxas: &Path, text: &str, flavour: Flavour, name: &str) -> Vec<Assembled> {
    let said = ptxas::assemble(ptxas, text, flavour);
    let said = said.unwrap_or_else(|said| panic!("{name} {flavour}:\n{said}"));
    let mut kernels = Vec::new();
    for line in said.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernels.push(rest.split('\'').next().unwrap().to_owned());
        }
    }
    let used = said.lines().filter_map(|l| l.split("Used ").nth(1));
    let assembled = kernels.into_iter().zip(used).map(|(kernel, used)| {
        let part = |what: &str| {
            let found = used.split(", ").find(|p| p.ends_with(what)).unwrap_or("0");
            found.split(' ').next().unwrap().to_owned()
        };
        Assembled { kernel, registers: part("registers"), shared: part("smem") }
    });
    assembled.collect()
}

/// Registers and shared memory of a program's kernels, or the most of them if there are many.
fn assembled(ptxas: &Path, code: &DeviceProgram, name: &str) -> String {
    let (flavour, kernels) = (code.flavour, code.module.kernels.len());
    let assembled = assemble(ptxas, &code.ptx(), flavour, name);
    assert_eq!(assembled.len(), kernels, "{name}");
    let most = assembled.iter().map(|a| a.registers.parse::<u32>().unwrap()).max().unwrap();
    let math = match code.math {
        Math::F32 => String::new(),
        math => format!(" with {math}"),
    };
    let mut table = format!("{flavour}{math}: {kernels} kernels, at most {most} registers\n");
    if kernels <= 60 && code.math == Math::F32 {
        for Assembled { kernel, registers, shared } in assembled {
            table += &format!("  {kernel}: {registers} registers, {shared} bytes shared\n");
        }
    }
    table
}

#[test]
fn kernels_of_the_examples_assemble_without_spills() {
    let Some(ptxas) = ptxas::find() else { return };
    for case in CASES {
        let program = case.program();
        let mut table = String::new();
        for flavour in Flavour::ALL {
            for code in in_every_math(&program, flavour) {
                table += &assembled(&ptxas, &code, &case.name());
            }
        }
        insta::assert_snapshot!(format!("ptxas_{}", case.name()), table);
    }
}
