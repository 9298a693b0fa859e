//! Options that several commands share.

use clap::{Args, ValueEnum};
use dlc::pipeline::EntryGraph;
use dlc::{Bindings, Compiler, Error, Module, OptLevel};
use std::path::PathBuf;

/// Which model of which file.
#[derive(Args)]
pub struct Selection {
    /// The model file
    pub file: PathBuf,
    /// The model, where the file has several
    #[arg(long)]
    pub model: Option<String>,
    /// Give a dim its size; may be repeated
    #[arg(long, value_name = "DIM=SIZE", value_parser = parse_binding)]
    pub bind: Vec<(String, i64)>,
}

/// How to compile.
#[derive(Args)]
pub struct Codegen {
    /// Optimization level
    #[arg(short = 'O', value_name = "LEVEL", default_value = "2")]
    pub opt_level: Level,
    /// Target, as `dlc targets` lists them; this machine's CPU if not given
    #[arg(long)]
    pub target: Option<String>,
    /// Threads a call may use
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Compute convolutions as direct sums, without Winograd's transforms
    #[arg(long)]
    pub exact_conv: bool,
    /// How products of floats are computed: f32; on GPUs also 3xtf32, tf32, f16, bf16
    #[arg(long)]
    pub math: Option<String>,
}

/// Where to run.
#[derive(Args)]
pub struct Device {
    /// The device that runs it: cpu (the default), or cuda for this machine's GPU
    #[arg(long, conflicts_with = "target")]
    pub device: Option<String>,
}

/// The argument of `-O`.
#[derive(Clone, Copy, ValueEnum)]
pub enum Level {
    /// No fusion, plain loops
    #[value(name = "0")]
    Zero,
    /// Fusion and vector code
    #[value(name = "1")]
    One,
    /// Everything
    #[value(name = "2")]
    Two,
}

impl Codegen {
    /// The compiler these options ask for, with what tuning has chosen on this machine.
    pub fn compiler(&self) -> Result<Compiler, Error> {
        self.compiler_on(&Device { device: None })
    }

    /// As [`Codegen::compiler`], for a device.
    pub fn compiler_on(&self, device: &Device) -> Result<Compiler, Error> {
        let level = match self.opt_level {
            Level::Zero => OptLevel::O0,
            Level::One => OptLevel::O1,
            Level::Two => OptLevel::O2,
        };
        let mut compiler = Compiler::new().opt_level(level).exact_conv(self.exact_conv);
        if let Some(name) = &self.target {
            compiler = compiler.target(name)?;
        }
        if let Some(name) = &device.device {
            compiler = compiler.device(name)?;
        }
        if let Some(name) = &self.math {
            compiler = compiler.math(name)?;
        }
        if let Some(threads) = self.threads {
            compiler = compiler.threads(threads as usize);
        }
        Ok(match dlc::tuned_choices(&compiler) {
            Ok(choices) => compiler.choices(choices),
            Err(reason) => {
                eprintln!("warning: what `dlc tune` chose is ignored: {reason}");
                compiler
            }
        })
    }
}

impl Selection {
    /// The name of the model: the one asked for, or the only one.
    pub fn model_name(&self, module: &Module) -> Result<String, Error> {
        only(self.model.as_deref(), &module.models(), "model")
    }

    /// The name of the model to train: the one asked for, or the only one with a `train` section.
    pub fn train_name(&self, module: &Module) -> Result<String, Error> {
        only(self.model.as_deref(), &module.trainable(), "model with a `train` section")
    }

    /// The entries of the model, or those of its training program, with their sizes bound.
    pub fn entries(&self, module: &Module, train: bool) -> Result<Vec<EntryGraph>, Error> {
        let bindings = self.bindings();
        if train {
            return module.training_entries(&self.train_name(module)?, &bindings);
        }
        Ok(vec![module.model(&self.model_name(module)?)?.entry(&bindings)?])
    }

    /// The sizes given by `--bind`.
    pub fn bindings(&self) -> Bindings {
        self.bind.iter().cloned().collect()
    }
}

fn only(asked: Option<&str>, names: &[&str], what: &str) -> Result<String, Error> {
    match (asked, names) {
        (Some(name), _) if names.contains(&name) => Ok(name.to_owned()),
        (None, [name]) => Ok((*name).to_owned()),
        (_, []) => Err(Error::Argument(format!("the file has no {what}"))),
        (None, _) => Err(Error::Argument(format!(
            "the file has several: say which {what} with --model ({})",
            names.join(", ")
        ))),
        (Some(name), _) => Err(Error::Argument(format!(
            "`{name}` is no {what} of this file; it has {}",
            names.join(", ")
        ))),
    }
}

/// The argument of `--bind`.
pub fn parse_binding(text: &str) -> Result<(String, i64), String> {
    let (name, value) = text.split_once('=').ok_or("expected DIM=SIZE, as in N=32")?;
    let value = value.replace('_', "");
    let size = value.parse().map_err(|_| format!("`{value}` is not a whole number"))?;
    Ok((name.trim().to_owned(), size))
}
