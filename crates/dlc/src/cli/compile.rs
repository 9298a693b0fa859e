//! `dlc compile`: what becomes of a model, at any stage.

use super::options::{Codegen, Selection};
use dlc::pipeline::{self, EntryGraph};
use dlc::{Error, Report, Target as _};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `dlc compile`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    codegen: Codegen,
    /// Compile the training program of the model's `train` section
    #[arg(long)]
    train: bool,
    /// Show a stage: ast, graph, grad, fused, kernels, schedule, clif, asm, or a pass by name
    #[arg(long, value_name = "KIND[=PATH]", value_delimiter = ',', value_parser = parse_emit)]
    emit: Vec<Emit>,
    /// Stop after that pass and print the graph
    #[arg(long, value_name = "PASS")]
    stop_after: Option<String>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// One thing to show.
#[derive(Clone)]
struct Emit {
    kind: String,
    path: Option<PathBuf>,
}

/// The dumps that were made, in the order they were asked for.
struct Dumps<'a> {
    wanted: &'a [Emit],
    texts: Vec<String>,
}

/// Compiles, shows what was asked for, and reports what was done.
pub fn run(args: &Args) -> Result<(), Error> {
    let compiler = args.codegen.compiler()?;
    let module = compiler.compile_file(&args.selection.file)?;
    let mut dumps = Dumps::new(&args.emit)?;
    dumps.add("ast", &|| module.unit().syntax());
    if args.emit.iter().all(|e| e.kind == "ast") && !args.emit.is_empty() {
        return dumps.write();
    }
    let entries = args.selection.entries(&module, args.train)?;
    if let Some(pass) = &args.stop_after {
        return stop_after(&entries, pass, compiler.options().opt_level);
    }
    let level = compiler.options().opt_level;
    let lowered = pipeline::lower(&entries, level, &mut |kind, dump| dumps.add(kind, dump));
    for stage in compiler.target_ref().stages() {
        if args.emit.iter().any(|e| e.kind == *stage) {
            let text = compiler.target_ref().emit(stage, &lowered.program, compiler.options())?;
            dumps.add(stage, &|| text.clone());
        }
    }
    dumps.write()?;
    let executable = compiler.target_ref().build(&lowered.program, compiler.options())?;
    let mut stages = lowered.stages;
    stages.extend(executable.stage_times().iter().cloned());
    let report = Report::new(&*executable, &stages);
    if args.json {
        super::print(&format!("{}\n", json!(report)));
    } else {
        eprint!("{report}");
    }
    Ok(())
}

fn stop_after(entries: &[EntryGraph], pass: &str, opt: dlc::OptLevel) -> Result<(), Error> {
    for entry in entries {
        match pipeline::run_until(entry, opt, pass) {
            Some(graph) => super::print(&format!("{graph}\n")),
            None => return Err(Error::Argument(unknown_kind(pass))),
        }
    }
    Ok(())
}

impl<'a> Dumps<'a> {
    fn new(wanted: &'a [Emit]) -> Result<Dumps<'a>, Error> {
        match wanted.iter().find(|e| !pipeline::stage_names().contains(&e.kind.as_str())) {
            Some(emit) => Err(Error::Argument(unknown_kind(&emit.kind))),
            None => Ok(Dumps { wanted, texts: vec![String::new(); wanted.len()] }),
        }
    }

    fn add(&mut self, kind: &str, dump: &dyn Fn() -> String) {
        for (emit, text) in self.wanted.iter().zip(&mut self.texts) {
            if emit.kind == kind {
                text.push_str(dump().trim_end());
                text.push_str("\n\n");
            }
        }
    }

    fn write(self) -> Result<(), Error> {
        for (emit, text) in self.wanted.iter().zip(&self.texts) {
            let text = format!("{}\n", text.trim_end());
            match &emit.path {
                None => super::print(&text),
                Some(path) => std::fs::write(path, text)
                    .map_err(|error| Error::File { path: path.clone(), error })?,
            }
        }
        Ok(())
    }
}

fn unknown_kind(kind: &str) -> String {
    let known = pipeline::stage_names().join(", ");
    format!("there is no stage or pass `{kind}`; there are {known}")
}

fn parse_emit(text: &str) -> Result<Emit, String> {
    let (kind, path) = match text.split_once('=') {
        Some((kind, path)) => (kind, Some(PathBuf::from(path))),
        None => (text, None),
    };
    Ok(Emit { kind: kind.to_owned(), path })
}
