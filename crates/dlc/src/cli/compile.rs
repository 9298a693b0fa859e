//! `dlc compile`: what becomes of a model, at any stage.

use super::options::{Codegen, Selection};
use dlc::pipeline::{self, EntryGraph, Lowered};
use dlc::{AnyTarget, Compiler, Error, Report};
use dlc_cpu::CpuTarget;
use dlc_kernel::StageTime;
use dlc_ptx::{Manifest, PtxTarget};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    /// Write PTX to that file, and what a program needs to launch it to a .json file beside it
    #[arg(short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show a stage: ast, graph, grad, fused, kernels, the target's own (schedule, clif, asm;
    /// schedule, ptx), or a pass by name
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
    let start = Instant::now();
    let output = args.output.as_deref().map(|path| Output::new(path, &compiler)).transpose()?;
    let module = compiler.compile_file(&args.selection.file)?;
    let mut dumps = Dumps::new(&args.emit, &compiler)?;
    dumps.add("ast", &|| module.unit().syntax());
    let only_syntax = args.emit.iter().all(|e| e.kind == "ast") && !args.emit.is_empty();
    if only_syntax && output.is_none() {
        return dumps.write();
    }
    let entries = args.selection.entries(&module, args.train)?;
    if let Some(pass) = &args.stop_after {
        return stop_after(&entries, pass, &compiler);
    }
    let level = compiler.options().opt_level;
    let front = StageTime { name: "front", ms: start.elapsed().as_secs_f64() * 1e3 };
    let mut lowered = pipeline::lower(&entries, level, &mut |kind, dump| dumps.add(kind, dump));
    lowered.stages.insert(0, front);
    let target = compiler.target_ref();
    for stage in target.stages() {
        if dumps.wants(stage) {
            let text = target.emit(stage, &lowered.program, compiler.options())?;
            dumps.add(stage, &|| text.clone());
        }
    }
    dumps.write()?;
    // What another machine would run can be shown, but there is nothing to report of it.
    let is_foreign = |cpu: &CpuTarget| !cpu.level().runs_here();
    if !args.emit.is_empty() && compiler.any_target().as_cpu().is_some_and(is_foreign) {
        return Ok(());
    }
    let report = match compiler.any_target() {
        AnyTarget::Cpu(_) => build(&compiler, lowered)?,
        AnyTarget::Ptx(ptx) => write(*ptx, lowered, output.as_ref())?,
    };
    if args.json {
        super::print(&format!("{}\n", json!(report)));
    } else {
        eprint!("{report}");
    }
    Ok(())
}

/// Builds the program for this machine.
fn build(compiler: &Compiler, lowered: Lowered) -> Result<Report, Error> {
    let Lowered { program, mut stages } = lowered;
    let executable = compiler.target_ref().build(&program, compiler.options())?;
    stages.extend(executable.stage_times().iter().cloned());
    Ok(Report::new(executable.program(), executable.peak_bytes(), &stages))
}

/// Compiles the program to PTX, for whatever machine, and writes it if that is asked for.
fn write(target: PtxTarget, lowered: Lowered, to: Option<&Output>) -> Result<Report, Error> {
    let Lowered { program, mut stages } = lowered;
    let start = Instant::now();
    let code = target.compile(&program)?;
    let ptx = code.ptx();
    pipeline::add_time(&mut stages, "compile", start.elapsed().as_secs_f64() * 1e3);
    if let Some(Output { ptx: path, manifest, name }) = to {
        dlc_train::write_atomic(path, ptx.as_bytes())?;
        dlc_train::write_atomic(manifest, Manifest::new(&code, name).to_json().as_bytes())?;
    }
    Ok(Report::new(&program, code.bytes, &stages))
}

/// The files that `-o` asks for.
struct Output {
    ptx: PathBuf,
    manifest: PathBuf,
    /// The PTX's, without its folder.
    name: String,
}

impl Output {
    fn new(path: &Path, compiler: &Compiler) -> Result<Output, Error> {
        if compiler.any_target().as_ptx().is_none() {
            let (name, known) = (compiler.target_ref().name(), ptx_targets());
            return Err(Error::Argument(format!(
                "-o writes PTX, and `{name}` is no target for it: give --target {known}"
            )));
        }
        let manifest = path.with_extension("json");
        let Some(name) = path.file_name().filter(|_| manifest != path) else {
            let path = path.display();
            return Err(Error::Argument(format!(
                "`{path}` cannot be the PTX's file: a .json file \
                                                is written beside it"
            )));
        };
        let name = name.to_string_lossy().into_owned();
        Ok(Output { ptx: path.to_owned(), manifest, name })
    }
}

fn ptx_targets() -> String {
    let all = AnyTarget::all().into_iter().filter_map(|target| target.as_ptx());
    all.map(|target| target.flavour.name()).collect::<Vec<_>>().join(" or ")
}

fn stop_after(entries: &[EntryGraph], pass: &str, compiler: &Compiler) -> Result<(), Error> {
    for entry in entries {
        match pipeline::run_until(entry, compiler.options().opt_level, pass) {
            Some(graph) => super::print(&format!("{graph}\n")),
            None => return Err(Error::Argument(unknown_kind(pass, compiler))),
        }
    }
    Ok(())
}

impl<'a> Dumps<'a> {
    fn new(wanted: &'a [Emit], compiler: &Compiler) -> Result<Dumps<'a>, Error> {
        let known = pipeline::stage_names(compiler.target_ref());
        match wanted.iter().find(|e| !known.contains(&e.kind.as_str())) {
            Some(emit) => Err(Error::Argument(unknown_kind(&emit.kind, compiler))),
            None => Ok(Dumps { wanted, texts: vec![String::new(); wanted.len()] }),
        }
    }

    fn wants(&self, kind: &str) -> bool {
        self.wanted.iter().any(|e| e.kind == kind)
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

fn unknown_kind(kind: &str, compiler: &Compiler) -> String {
    let target = compiler.target_ref();
    let known = pipeline::stage_names(target).join(", ");
    let others = AnyTarget::all();
    let having = others.iter().map(AnyTarget::as_target).filter(|t| t.stages().contains(&kind));
    let having: Vec<&str> = having.map(|t| t.name()).collect();
    let elsewhere = match having.is_empty() {
        true => String::new(),
        false => format!(" (--target {} has it)", having.join(" or ")),
    };
    format!("`{}` has no stage or pass `{kind}`{elsewhere}; there are {known}", target.name())
}

fn parse_emit(text: &str) -> Result<Emit, String> {
    let (kind, path) = match text.split_once('=') {
        Some((kind, path)) => (kind, Some(PathBuf::from(path))),
        None => (text, None),
    };
    Ok(Emit { kind: kind.to_owned(), path })
}
