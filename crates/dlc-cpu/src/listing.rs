//! The dumps of this target: schedules, Cranelift IR, machine code.
//!
//! They name kernels, never addresses, and depend on program, level and optimization level alone.

use crate::codegen::{Part, Phase};
use crate::jit::{self, Compiled, Isas};
use crate::level::{Effort, Level};
use crate::lower::{ScheduledEntry, generate};
use dlc_kernel::{BuildError, OptLevel};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, Mnemonic};
use std::fmt::Write;

/// One line for each kernel, or for each of its segments.
pub fn schedules(entries: &[ScheduledEntry]) -> String {
    let mut text = String::new();
    for scheduled in entries {
        let _ = writeln!(text, "entry {}", scheduled.entry.name);
        for (leaf, schedule) in scheduled.leaves.iter().zip(&scheduled.schedules) {
            let lines = schedule.to_string().replace('\n', "\n    ");
            let _ = match &leaf.loops[..] {
                [] => writeln!(text, "  {}: {lines}", leaf.kernel.name),
                loops => writeln!(text, "  {} at steps {loops:?}: {lines}", leaf.kernel.name),
            };
        }
    }
    text
}

/// Every function of every kernel in Cranelift's text format.
///
/// # Errors
/// If there is no code generator for the level.
pub fn clif(level: Level, entries: &[ScheduledEntry]) -> Result<String, BuildError> {
    let frontend = level.isa(Effort::Least)?.frontend_config();
    let mut text = String::new();
    for scheduled in entries {
        for_functions(scheduled, &generate(scheduled, frontend), |title, part| {
            let _ = writeln!(text, "; {title}\n{}", part.code.function.display());
            Ok(())
        })?;
    }
    Ok(text)
}

/// Every function of every kernel, and the leaves they call, as instructions.
///
/// # Errors
/// If there is no code generator for the level, or it refuses a function.
pub fn assembly(
    level: Level,
    opt_level: OptLevel,
    entries: &[ScheduledEntry],
) -> Result<String, BuildError> {
    let isas = Isas::new(level, opt_level)?;
    let frontend = isas.frontend_config();
    let mut text = String::new();
    let mut leaves = Vec::new();
    let refuse = |message| BuildError::Kernel { kernel: "code".into(), message };
    for scheduled in entries {
        for_functions(scheduled, &generate(scheduled, frontend), |title, part| {
            let compiled = jit::compile(isas.of(part), &part.code).map_err(refuse)?;
            let _ = writeln!(text, "; {title}\n{}", instructions(level, &compiled));
            leaves.extend(part.code.leaves.iter().cloned());
            Ok(())
        })?;
    }
    let mut seen = rustc_hash::FxHashSet::default();
    for leaf in leaves.into_iter().filter(|l| seen.insert(l.clone())) {
        let compiled = jit::compile_leaf(level, &leaf).map_err(refuse)?;
        let _ = writeln!(text, "; leaf {leaf}\n{}", instructions(level, &compiled));
    }
    Ok(text)
}

/// `each` for all functions of an entry, with a title: entry, kernel, phase and part where there
/// are several.
fn for_functions(
    scheduled: &ScheduledEntry,
    phases: &[Vec<Phase>],
    mut each: impl FnMut(&str, &Part) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    for (leaf, phases) in scheduled.leaves.iter().zip(phases) {
        for (i, phase) in phases.iter().enumerate() {
            for (k, part) in phase.parts.iter().enumerate() {
                let mut title = format!("{}.{}", scheduled.entry.name, leaf.kernel.name);
                if phases.len() > 1 {
                    let _ = write!(title, ", phase {i}");
                }
                if phase.parts.len() > 1 {
                    let _ = write!(title, ", part {k}");
                }
                each(&title, part)?;
            }
        }
    }
    Ok(())
}

/// One instruction a line, with its position. Constants after the code are left out.
fn instructions(level: Level, compiled: &Compiled) -> String {
    if level == Level::Aarch64 {
        return hex(&compiled.bytes);
    }
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_space_after_operand_separator(true);
    let mut decoder = Decoder::new(64, &compiled.bytes, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut end = compiled.bytes.len() as u64;
    let mut text = String::new();
    while decoder.can_decode() && decoder.ip() < end {
        decoder.decode_out(&mut instruction);
        // Traps fill the space before constants.
        if instruction.is_invalid() || instruction.mnemonic() == Mnemonic::Int3 {
            break;
        }
        if instruction.is_ip_rel_memory_operand() {
            end = end.min(instruction.ip_rel_memory_address());
        }
        let (start, next) = (instruction.ip(), instruction.next_ip());
        let call = compiled.calls.iter().find(|c| (start..next).contains(&c.offset().into()));
        let mut line = String::new();
        match call {
            Some(call) => line = format!("call {}", call.leaf),
            None => formatter.format(&instruction, &mut line),
        }
        let _ = writeln!(text, "{start:5x}  {line}");
    }
    text
}

/// Four-byte words: the disassembler knows x86 only.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, word) in bytes.chunks(4).enumerate() {
        let word = word.iter().rev().fold(0u32, |w, &b| w << 8 | u32::from(b));
        let _ = writeln!(text, "{:5x}  {word:08x}", 4 * i);
    }
    text
}
