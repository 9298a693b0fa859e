//! `dlc generate`: text from a trained model, as it comes.

use super::options::{Codegen, Selection};
use super::weights::{Reading, warn_not_finite};
use dlc::{Error, GenerateOptions, Module, Sampling, WeightsFile, generate};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Arguments of `dlc generate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    /// Parameters and vocabulary, the weights.safetensors of a training run
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// What the text begins with
    #[arg(long, default_value = "")]
    prompt: String,
    /// Characters or pieces at most
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// Divides the logits: 0 always takes the likeliest, 1 draws as the model says
    #[arg(long, default_value_t = 1.0, value_parser = parse_temperature)]
    temperature: f64,
    /// Draw among the K likeliest
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Draw among the likeliest that together have probability P
    #[arg(long, value_name = "P", value_parser = parse_part)]
    top_p: Option<f64>,
    /// Follow N sequences and give the likeliest, instead of drawing
    #[arg(
        long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024),
        conflicts_with_all = ["temperature", "top_k", "top_p"],
    )]
    beam: Option<u32>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: i32,
    /// How many texts, one after the other, each with a seed of its own from --seed on
    #[arg(
        long, value_name = "N", default_value_t = 1, conflicts_with = "beam",
        value_parser = clap::value_parser!(i32).range(1..),
    )]
    count: i32,
    /// Print a JSON object instead of each text
    #[arg(long)]
    json: bool,
}

/// Streams the texts; the first signal ends them after the present id, with exit code 130 or 143.
pub fn run(args: &Args) -> Result<(), Error> {
    let module = args.codegen.compiler()?.compile_file(&args.selection.file)?;
    let model = match args.selection.model {
        Some(_) => args.selection.model_name(&module)?,
        None => dlc::generating_model(&module)?,
    };
    let weights = args.reading.file(&args.weights)?;
    warn_not_finite(&args.weights, &weights.read()?.not_finite());
    let signal = Arc::new(AtomicUsize::new(0));
    let interrupt = super::train::catch_signals(&signal);
    for text in 0..args.count {
        let seed = args.seed.wrapping_add(text);
        generate_one(args, &module, &model, &weights, seed, &interrupt)?;
        if interrupt.load(Ordering::Relaxed) {
            break;
        }
    }
    match signal.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => std::process::exit(128 + signal as i32),
    }
}

fn generate_one(
    args: &Args,
    module: &Module,
    model: &str,
    weights: &WeightsFile,
    seed: i32,
    interrupt: &AtomicBool,
) -> Result<(), Error> {
    let options = GenerateOptions {
        prompt: args.prompt.clone(),
        tokens: args.tokens,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k.map(|k| k as usize),
            top_p: args.top_p,
            seed,
        },
        beams: args.beam.map(|n| n as usize),
        bindings: args.selection.bindings(),
    };
    let mut begun = false;
    let mut sink = |text: &str| {
        if !args.json {
            if !std::mem::replace(&mut begun, true) {
                super::print(&args.prompt);
            }
            super::print(text);
        }
        match interrupt.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let generated = generate(module, model, weights, &options, &mut sink)?;
    match args.json {
        true => super::print(&format!("{}\n", describe(args, &generated))),
        false => super::print("\n"),
    }
    if !args.json && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        let _ = writeln!(std::io::stderr(), "{}", speed(&generated));
    }
    Ok(())
}

fn describe(args: &Args, generated: &dlc::Generated) -> serde_json::Value {
    json!({
        "prompt": args.prompt,
        "text": generated.text,
        "ids": generated.ids,
        "prompt_tokens": generated.prompt,
        "first_token_ms": generated.first_seconds * 1e3,
        "tokens_per_second": rate(generated),
    })
}

fn speed(generated: &dlc::Generated) -> String {
    let first = generated.first_seconds * 1e3;
    format!("first token after {first:.1} ms, then {:.0} tokens/s", rate(generated))
}

/// Ids a second after the first.
fn rate(generated: &dlc::Generated) -> f64 {
    generated.ids.len().saturating_sub(1) as f64 / generated.seconds.max(1e-9)
}

fn parse_temperature(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "a number is expected")?;
    match value.is_finite() && value >= 0.0 {
        true => Ok(value),
        false => Err("a temperature is 0 or a positive number".into()),
    }
}

fn parse_part(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "a number is expected")?;
    match value > 0.0 && value <= 1.0 {
        true => Ok(value),
        false => Err("a probability lies between 0 and 1".into()),
    }
}
