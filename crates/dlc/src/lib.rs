//! dlc compiles deep-learning models, written in a small readable language, to native kernels, for
//! inference and for training.
//!
//! A [`Compiler`] turns a text into a [`Module`]. A module's [`Model`] becomes a [`Network`] when its
//! sizes are bound: machine code with its parameters, ready to run, from any number of threads.
//! A [`Trainer`] is the same for the compiled training step of a `train` section.
//!
//! ```
//! # fn main() -> Result<(), dlc::Error> {
//! use dlc::{Compiler, Tensor};
//!
//! let source = "model Classify(x: f32[N, 4]) -> f32[N, 3] { x |> linear(3) |> softmax[1] }";
//! let module = Compiler::new().compile_text("classify.dl", source)?;
//! let network = module.model("Classify")?.bind([("N", 2)])?.initialize(42)?;
//!
//! let x = Tensor::f32([2, 4], vec![0.1; 8]);
//! let y = network.run(&[("x", &x)])?;
//! let row: f32 = y[0].as_f32().unwrap()[..3].iter().sum();
//! assert!((row - 1.0).abs() < 1e-6);
//! # Ok(()) }
//! ```
//!
//! The levels below are crates of their own: `dlc-front` (language), `dlc-graph` (tensors and
//! operations), `dlc-pass` (passes), `dlc-kernel` (kernel IR), `dlc-cpu` (machine code), `dlc-ptx`
//! (GPUs), `dlc-train` (data and the loop). ARCHITECTURE.md is the way in.
#![forbid(unsafe_code)]

mod bench;
mod cache;
mod checking;
mod compiler;
mod datasets;
mod error;
mod generate;
mod memory;
mod network;
mod perf;
mod picture;
pub mod pipeline;
mod report;
mod roofs;
mod store;
mod target;
mod training;
mod tune;

pub use bench::{Bench, BenchOptions, KernelBench, bench_model, bench_training};
pub use compiler::{CheckReport, Compiler, Model, Module, explain};
pub use dlc_cpu::Choices;
pub use dlc_front::TrainOverrides;
pub use dlc_kernel::{Bindings, BuildOptions, DType, Data, Executable, OptLevel, Target, Tensor};
pub use dlc_train::{Batch, Bleu, Metrics, Renames, Trainer, Vocabulary, WeightsFile, npy};
pub use error::Error;
pub use generate::{
    Attention, Beams, GenerateOptions, Generated, Sampling, attention, continue_texts, generate,
    generating_model, translate, translates,
};
pub use memory::when_freed;
pub use network::{Network, Outputs};
pub use perf::{ApartFrom, EntryPerf, KernelPerf, Perf, explain_perf};
pub use picture::draw;
pub use report::Report;
pub use roofs::{Bound, Roofs};
pub use target::{AnyTarget, TargetInfo, targets};
pub use training::{Evaluated, TrainOptions, Trained, evaluate, train};
pub use tune::{Trial, Tuned, tune_model, tune_training, tuned_choices};
