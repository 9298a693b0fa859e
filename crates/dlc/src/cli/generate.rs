//! `dlc generate`: text from a trained model, as it comes; translations or continuations of a file.

use super::options::{Codegen, Selection};
use super::weights::{Reading, warn_not_finite};
use dlc::{Beams, Bleu, Error, GenerateOptions, Module, Sampling, WeightsFile, generate};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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
    /// What the text begins with, or a sentence to translate
    #[arg(long, default_value = "")]
    prompt: String,
    /// Translate or continue each line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    input: Option<PathBuf>,
    /// Right translations, a line each: measures BLEU
    #[arg(long, value_name = "FILE", requires = "input")]
    reference: Option<PathBuf>,
    /// Draw where the prompt's translation looks, as a PNG
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    attention: Option<PathBuf>,
    /// The heads to draw, from 1; all if not given
    #[arg(long, value_name = "N,..", value_delimiter = ',', requires = "attention")]
    heads: Vec<usize>,
    /// Characters or pieces at most
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// Divides the logits: 0 always takes the likeliest, 1 (the default) draws as the model says
    #[arg(long, value_parser = parse_temperature)]
    temperature: Option<f64>,
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
    /// How much longer sequences are preferred among those followed; 0 not at all
    #[arg(
        long, value_name = "P", default_value_t = 1.0, requires = "beam",
        value_parser = parse_penalty,
    )]
    length_penalty: f64,
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

/// A model with its weights.
struct Trained<'t> {
    module: &'t Module,
    model: &'t str,
    weights: &'t WeightsFile,
    /// Whether it makes one text of another.
    translates: bool,
}

/// Streams the texts; the first signal ends them after the present id, with exit code 130 or 143.
pub fn run(args: &Args) -> Result<(), Error> {
    let module = args.codegen.compiler()?.compile_file(&args.selection.file)?;
    let weights = args.reading.file(&args.weights)?;
    let file = weights.read()?;
    let (vocabulary, bindings) = (file.vocabulary(), args.selection.bindings());
    let model = match args.selection.model {
        Some(_) => args.selection.model_name(&module)?,
        None => dlc::generating_model(&module, vocabulary, &bindings)?,
    };
    let translates = dlc::translates(&module, &model, vocabulary, &bindings)?;
    let draws = args.temperature.is_some() || args.top_k.is_some() || args.top_p.is_some();
    if draws && translates {
        let message = "a translation is searched for, not drawn: leave out --temperature, --top-k \
                       and --top-p";
        return Err(Error::Argument(message.into()));
    }
    warn_not_finite(&args.weights, &file.not_finite());
    drop(file);
    let signal = Arc::new(AtomicUsize::new(0));
    let interrupt = super::train::catch_signals(&signal);
    let keep_on = || match interrupt.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let trained = Trained { module: &module, model: &model, weights: &weights, translates };
    if let Some(path) = &args.attention {
        draw_attention(args, &trained, path)?;
    }
    match &args.input {
        Some(input) => complete_file(args, &trained, input, &keep_on)?,
        None => stream(args, &trained, &keep_on)?,
    }
    match signal.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => std::process::exit(128 + signal as i32),
    }
}

fn options(args: &Args, seed: i32) -> GenerateOptions {
    let length_penalty = args.length_penalty;
    GenerateOptions {
        prompt: args.prompt.clone(),
        tokens: args.tokens,
        sampling: Sampling {
            temperature: args.temperature.unwrap_or(1.0),
            top_k: args.top_k.map(|k| k as usize),
            top_p: args.top_p,
            seed,
        },
        beams: args.beam.map(|count| Beams { count: count as usize, length_penalty }),
        bindings: args.selection.bindings(),
    }
}

/// Prints texts as they come.
fn stream(
    args: &Args,
    trained: &Trained<'_>,
    keep_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<(), Error> {
    for text in 0..args.count {
        let options = options(args, args.seed.wrapping_add(text));
        stream_one(args, trained, &options, keep_on)?;
        if keep_on().is_break() {
            break;
        }
    }
    Ok(())
}

fn stream_one(
    args: &Args,
    trained: &Trained<'_>,
    options: &GenerateOptions,
    keep_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut begun = trained.translates;
    let mut sink = |text: &str| {
        if !args.json {
            if !std::mem::replace(&mut begun, true) {
                super::print(&args.prompt);
            }
            super::print(text);
        }
        keep_on()
    };
    let Trained { module, model, weights, .. } = trained;
    let generated = generate(module, model, weights, options, &mut sink)?;
    match args.json {
        true => super::print(&format!("{}\n", describe(args, &generated))),
        false => super::print("\n"),
    }
    if !args.json && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        let _ = writeln!(std::io::stderr(), "{}", speed(&generated));
    }
    Ok(())
}

/// Writes the picture.
fn draw_attention(args: &Args, trained: &Trained<'_>, path: &Path) -> Result<(), Error> {
    let Trained { module, model, weights, .. } = trained;
    let attention = dlc::attention(module, model, weights, &options(args, args.seed))?;
    let count = attention.heads.len();
    if let Some(head) = args.heads.iter().find(|&&head| head == 0 || head > count) {
        return Err(Error::Argument(format!("there is no head {head}; there are {count}")));
    }
    let all: Vec<usize> = (1..=count).collect();
    let heads = if args.heads.is_empty() { &all } else { &args.heads };
    let mut png = std::io::Cursor::new(Vec::new());
    let written = dlc::draw(&attention, heads).write_to(&mut png, image::ImageFormat::Png);
    written.map_err(|error| Error::Argument(format!("the picture: {error}")))?;
    Ok(dlc_train::write_atomic(path, png.get_ref())?)
}

/// Prints a translation for each line, and BLEU if there are references; or what each line becomes.
fn complete_file(
    args: &Args,
    trained: &Trained<'_>,
    input: &Path,
    keep_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<(), Error> {
    let text = dlc_train::text::read(input)?;
    let sentences: Vec<&str> = text.lines().collect();
    let reference = args.reference.as_deref().map(dlc_train::text::read).transpose()?;
    let references: Option<Vec<&str>> = reference.as_ref().map(|text| text.lines().collect());
    if let Some(count) = references.as_ref().map(Vec::len).filter(|&n| n != sentences.len()) {
        let message = format!("there are {} lines, but {count} references", sentences.len());
        return Err(Error::Argument(message));
    }
    let begun = Instant::now();
    let mut progress = |_| keep_on();
    let options = options(args, args.seed);
    let Trained { module, model, weights, translates } = *trained;
    let made = match translates {
        true => dlc::translate(module, model, weights, &sentences, &options, &mut progress)?,
        false => dlc::continue_texts(module, model, weights, &sentences, &options, &mut progress)?,
    };
    if keep_on().is_break() {
        return Ok(());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let pairs = |references| made.iter().map(String::as_str).zip(references);
    let bleu = references.map(|references| Bleu::of(pairs(references)));
    if args.json {
        let bleu = bleu.map(|bleu| {
            json!({
                "score": bleu.score,
                "precisions": bleu.precisions,
                "brevity": bleu.brevity,
                "words": bleu.words,
                "reference_words": bleu.reference_words,
            })
        });
        let name = if translates { "translations" } else { "texts" };
        let all = json!({ name: made, "bleu": bleu, "seconds": seconds });
        super::print(&format!("{all}\n"));
        return Ok(());
    }
    for (&sentence, text) in sentences.iter().zip(&made) {
        let begun = if translates { "" } else { sentence };
        super::print(&format!("{begun}{text}\n"));
    }
    let mut stderr = std::io::stderr();
    let _ = bleu.map(|bleu| writeln!(stderr, "{bleu}"));
    let _ = writeln!(stderr, "{} lines in {seconds:.1} s", made.len());
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

fn parse_penalty(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "a number is expected")?;
    match (0.0..=10.0).contains(&value) {
        true => Ok(value),
        false => Err("a length penalty lies between 0 and 10".into()),
    }
}

fn parse_part(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "a number is expected")?;
    match value > 0.0 && value <= 1.0 {
        true => Ok(value),
        false => Err("a probability lies between 0 and 1".into()),
    }
}
