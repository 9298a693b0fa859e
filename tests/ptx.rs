//! Every kernel of every example as PTX: assembled by NVIDIA's `ptxas`, and run by the interpreter
//! against the kernel program's evaluation in f64.

#[path = "support/examples.rs"]
mod examples;
#[path = "../crates/dlc-ptx/tests/support/ptxas.rs"]
mod ptxas;

use dlc::{Bindings, Compiler, DType, OptLevel, Tensor, pipeline};
use dlc_kernel::{Array, Class, Entry, Program, RunError, eval::Machine, philox};
use dlc_ptx::interpret::{Counters, Device};
use dlc_ptx::{DeviceProgram, Flavour, Math, PtxTarget, ir::Kernel};
use examples::{Example, Sizes, longest_path, operations};
use std::path::Path;

/// The most operations that the interpreters are given.
const INTERPRETED: u64 = 500_000_000;

fn compile(program: &Program, math: Math) -> DeviceProgram {
    PtxTarget { flavour: Flavour::Sm80, math }.compile(program).unwrap()
}

/// The code of a flavour in f32, and in each other math those kernels that differ from it.
fn in_every_math(program: &Program, flavour: Flavour) -> Vec<DeviceProgram> {
    let mut known = std::collections::BTreeSet::new();
    let code = |kernel: &Kernel| Kernel { name: String::new(), ..kernel.clone() }.to_string();
    let in_math = |math| {
        let mut program = PtxTarget { flavour, math }.compile(program).unwrap();
        program.module.kernels.retain(|kernel| known.insert(code(kernel)));
        program
    };
    Math::ALL.map(in_math).into_iter().filter(|code| !code.module.kernels.is_empty()).collect()
}

/// Values for a buffer: small numbers, and integers below `classes` for indices and lengths, not 0.
fn values(buffer: &dlc_kernel::Buffer, site: u64, classes: i64) -> Tensor {
    let shape: Vec<usize> = buffer.shape.iter().map(|s| s.as_const().unwrap() as usize).collect();
    let n: usize = shape.iter().product();
    let draw = |i: usize| philox::uniform(11, 0, site, i as i32);
    let most = (classes - 1).max(1);
    let index = |i: usize| (1 + (7 * i as i64 + 3) % most).min(classes - 1) as i32;
    match (buffer.dtype, buffer.class) {
        (DType::I32, _) => Tensor::i32(shape, (0..n).map(index).collect()),
        (_, Class::State) => Tensor::f32(shape, (0..n).map(|i| 0.5 + draw(i)).collect()),
        (_, Class::Param) => Tensor::f32(shape, (0..n).map(|i| 0.2 * draw(i) - 0.1).collect()),
        _ => Tensor::f32(shape, (0..n).map(draw).collect()),
    }
}

/// What lasts and what was handed out, by name, after one call of each entry.
type After = Vec<(String, Array)>;

/// A program, what is given to it, and what must come of that.
struct Case {
    program: Program,
    given: Vec<Tensor>,
    expected: After,
}

impl Case {
    /// The example in batches as large as may be, of 4 at most; `None` if it is too large.
    fn new(example: &Example) -> Option<Case> {
        [4, 2].into_iter().find_map(|batch| Case::of(example, example.program(Sizes::Small(batch))))
    }

    /// As [`Case::new`], with indices that are inside all tables.
    fn of(example: &Example, program: Program) -> Option<Case> {
        let mut classes = 10;
        while operations(&program) <= INTERPRETED {
            let sites = (0..).zip(&program.buffers);
            let given = sites.map(|(site, buffer)| values(buffer, site, classes)).collect();
            let case = Case { program: program.clone(), given, expected: Vec::new() };
            match case.by_machine() {
                Ok(expected) => {
                    let mut all = expected.iter().flat_map(|(_, array)| &array.data);
                    assert!(!all.any(|x| x.is_nan()), "{} gives NaN", example.name());
                    return Some(Case { expected, ..case });
                }
                Err(RunError::Index { extent, .. }) if extent < classes => classes = extent,
                Err(other) => panic!("{}: {other}", example.name()),
            }
        }
        None
    }

    fn by_machine(&self) -> Result<After, RunError> {
        let mut machine = Machine::new(&self.program);
        for (buffer, value) in self.lasting() {
            machine.write(&buffer.name, &Array::from_tensor(value))?;
        }
        let mut outputs = Vec::new();
        for entry in &self.program.entries {
            let inputs: Vec<Array> = self.inputs(entry).map(Array::from_tensor).collect();
            outputs.extend(machine.call(&entry.name, &inputs)?);
        }
        let read = |name: &str| machine.read(name).unwrap().clone();
        Ok(self.after(outputs, read))
    }

    fn by_ptx(&self, math: Math) -> After {
        let code = compile(&self.program, math);
        let mut device = Device::new(&code);
        for (buffer, value) in self.lasting() {
            device.write(&buffer.name, value).unwrap();
        }
        let mut outputs = Vec::new();
        for (at, entry) in self.program.entries.iter().enumerate() {
            let inputs: Vec<Tensor> = self.inputs(entry).cloned().collect();
            let (own, _) = device.call(at, &inputs).unwrap_or_else(|e| panic!("{e}"));
            outputs.extend(own.iter().map(Array::from_tensor));
        }
        self.after(outputs, |name| Array::from_tensor(&device.read(name).unwrap()))
    }

    fn lasting(&self) -> impl Iterator<Item = (&dlc_kernel::Buffer, &Tensor)> {
        let lasts = |class| matches!(class, Class::Param | Class::State);
        self.program.buffers.iter().zip(&self.given).filter(move |(b, _)| lasts(b.class))
    }

    fn inputs(&self, entry: &Entry) -> impl Iterator<Item = &Tensor> {
        entry.inputs.iter().map(|id| &self.given[id.0 as usize])
    }

    fn after(&self, outputs: Vec<Array>, read: impl Fn(&str) -> Array) -> After {
        let ids = self.program.entries.iter().flat_map(|entry| &entry.outputs);
        let names = ids.map(|&id| self.program.buffer(id).name.clone());
        let mut after: After = names.zip(outputs).collect();
        after.extend(self.lasting().map(|(b, _)| (b.name.clone(), read(&b.name))));
        after
    }

    /// The largest error of a result, relative to the largest of its elements, and its name.
    fn error(&self, math: Math) -> (f64, String) {
        let found = self.by_ptx(math);
        let of = |((name, found), (_, expected)): (&(String, Array), &(String, Array))| {
            let largest = expected.data.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
            (found.max_difference(expected) / largest, name.clone())
        };
        let errors = found.iter().zip(&self.expected).map(of);
        errors.max_by(|a, b| a.0.total_cmp(&b.0)).expect("something comes of a call")
    }
}

/// Runs what is given of the examples and compares.
fn check(examples: impl IntoIterator<Item = Example>) {
    for example in examples {
        let case = Case::new(&example).unwrap_or_else(|| panic!("{} is large", example.name()));
        let is_split = case.program.entry("accumulate").is_some();
        assert_eq!(is_split, example.batches > 1, "{}", example.name());
        let bound = longest_path(&case.program) * f64::from(f32::EPSILON) / 2.0;
        let (error, name) = case.error(Math::F32);
        println!("{}: {error:.1e} of {bound:.1e}, `{name}`", example.name());
        assert!(error <= bound, "{}: `{name}` is off by {error:e}", example.name());
    }
}

#[test]
fn kernels_of_the_examples_compute_what_their_programs_say() {
    check(examples::all());
}

#[test]
fn gradients_of_several_batches_are_summed_as_programs_say() {
    let trained = examples::all().into_iter().filter(|example| example.train);
    let some = trained.filter(|example| ["lenet", "lstm", "mlp"].contains(&&*example.file));
    check(some.map(|example| Example { batches: 2, ..example }));
}

/// How far results of a whole model may be off, of the largest element of a result: the last line of
/// the table in docs/accuracy.md.
fn allowed(math: Math) -> f64 {
    match math {
        Math::F32 | Math::Tf32x3 => 4e-6,
        Math::Tf32 | Math::F16 => 4e-3,
        Math::Bf16 => 2e-2,
    }
}

#[test]
fn results_of_the_examples_are_as_close_as_their_math() {
    println!("| model | {} |", Math::ALL.map(Math::name).join(" | "));
    // The large networks' layers are those of the small one.
    let is_small = |example: &&Example| !example.train && !example.model.starts_with("ResNet");
    for example in examples::all().iter().filter(is_small) {
        let Some(case) = Case::new(example) else { continue };
        let errors = Math::ALL.map(|math| case.error(math));
        println!(
            "| {} | {} |",
            example.name(),
            errors.clone().map(|e| format!("{:.0e}", e.0)).join(" | ")
        );
        for (math, (error, name)) in Math::ALL.into_iter().zip(errors) {
            let what = example.name();
            assert!(error <= allowed(math), "{what} with {math}: `{name}` is off by {error:e}");
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
    let what = match code.math {
        Math::F32 => format!("{flavour}: {kernels} kernels"),
        math => format!("{flavour} with {math}: {kernels} others"),
    };
    let mut table = format!("{what}, at most {most} registers\n");
    if kernels <= 60 && code.math == Math::F32 {
        for Assembled { kernel, registers, shared } in assembled {
            table += &format!("  {kernel}: {registers} registers, {shared} bytes shared\n");
        }
    }
    table
}

/// Files whose kernels' registers are kept beside the tests, so that a change is seen.
const KEPT: [&str; 6] = ["gpt", "lenet", "lstm", "mlp", "own_optimizer", "resnet"];

#[test]
fn kernels_of_the_examples_assemble_without_spills() {
    let Some(ptxas) = ptxas::find() else { return };
    for example in examples::all() {
        let program = example.program(Sizes::Own);
        let mut table = String::new();
        for flavour in Flavour::ALL {
            for code in in_every_math(&program, flavour) {
                table += &assembled(&ptxas, &code, &example.name());
            }
        }
        if KEPT.contains(&example.file.as_str()) {
            insta::assert_snapshot!(format!("ptxas_{}", example.name()), table);
        }
    }
}

/// Models, and what they are measured by.
const MEASURED: [(&str, &str); 7] = [
    ("pointwise", "model M(x: f32[96, 128]) -> f32[96, 128] { gelu(x * 1.5 + 0.5) * sigmoid(x) }"),
    ("transposition", "model M(x: f32[96, 128]) -> f32[128, 96] { 2 * transpose(x) }"),
    ("softmax", "model M(x: f32[96, 128]) -> f32[96, 128] { x |> softmax }"),
    ("softmax of long rows", "model M(x: f32[2, 9000]) -> f32[2, 9000] { x |> softmax }"),
    ("layer norm", "model M(x: f32[96, 128]) -> f32[96, 128] { x |> layer_norm }"),
    ("sums of columns", "model M(x: f32[96, 128]) -> f32[128] { sum[0](x) }"),
    (
        "attention",
        "model M(q: f32[1, 128, 4, 32], k: f32[1, 128, 4, 32], v: f32[1, 128, 4, 32])
           -> f32[1, 128, 4, 32] { attention(q, k, v, causal = yes) }",
    ),
];

/// Bytes for each element of the inputs, how much of the sectors touched is wanted, and how often
/// accesses to shared memory are repeated for banks that several lanes want.
#[test]
fn memory_traffic_of_models() {
    let mut table = String::new();
    for (name, source) in MEASURED {
        let module = Compiler::new().compile_text("model.dl", source).unwrap();
        let entry = module.model("M").unwrap().entry(&Bindings::default()).unwrap();
        let program = pipeline::lower(&[entry], OptLevel::O2, &mut |_, _| {}).program;
        let inputs: Vec<Tensor> =
            program.entries[0].inputs.iter().map(|&id| values(program.buffer(id), 1, 9)).collect();
        let code = compile(&program, Math::F32);
        let mut device = Device::new(&code);
        let lasting = program.buffers.iter().filter(|b| b.class == Class::Param);
        lasting.for_each(|b| device.write(&b.name, &values(b, 2, 9)).unwrap());
        let (_, counters) = device.call(0, &inputs).unwrap();
        let elements: u64 = inputs.iter().map(|x| x.data.len() as u64).sum();
        let sum = |what: fn(&Counters) -> u64| counters.iter().map(what).sum::<u64>();
        let (loaded, stored) = (sum(|c| c.loaded), sum(|c| c.stored));
        let [loads, stores] = [loaded, stored].map(|bytes| bytes as f64 / elements as f64);
        let wanted = (loaded + stored) as f64 / (32 * sum(|c| c.sectors)) as f64;
        table += &format!(
            "{name:<21} loads {loads:.2}, stores {stores:.2}, {:.0} % of sectors, {} conflicts\n",
            100.0 * wanted,
            sum(|c| c.conflicts)
        );
    }
    insta::assert_snapshot!(table);
}
