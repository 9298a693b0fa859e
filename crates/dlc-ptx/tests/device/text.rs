//! What is printed.

use crate::{every, ptxas};
use dlc_ptx::Flavour;
use dlc_ptx::ir::{self, AtomicOp, Builder, CacheHint, Inst, Kernel, Module, Stmt};

fn insts(body: &[Stmt]) -> Vec<&Inst> {
    let mut all = Vec::new();
    for stmt in body {
        match stmt {
            Stmt::Comment(_) => {}
            Stmt::Inst(_, inst) => all.push(inst),
            Stmt::If { then, other, .. } => {
                all.extend(insts(then));
                all.extend(insts(other));
            }
            Stmt::Loop { body, .. } => all.extend(insts(body)),
        }
    }
    all
}

fn module(kernel: Kernel) -> Module {
    Module { kernels: vec![kernel] }
}

#[test]
fn the_kernel_of_every_instruction_has_every_instruction() {
    let kernel = every::kernel();
    let insts = insts(&kernel.body);
    for kind in every::INSTS {
        assert!(insts.iter().any(|i| every::inst_kind(i) == *kind), "{kind} is missing");
    }
    let converts = insts.iter().filter_map(|inst| match inst {
        Inst::Convert(convert) => Some(every::convert_kind(convert)),
        _ => None,
    });
    assert_eq!(converts.skip(2).collect::<Vec<_>>(), every::CONVERTS, "two come before");
    let atomics = insts.iter().filter_map(|inst| match inst {
        Inst::Atomic { op, .. } => Some(op),
        _ => None,
    });
    let mut kinds: Vec<&str> = atomics.map(|op: &AtomicOp| every::atomic_kind(op)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), every::ATOMICS.len());
}

#[test]
fn every_instruction_verifies_in_every_flavour() {
    for flavour in Flavour::ALL {
        ir::verify(&module(every::kernel()), flavour).unwrap_or_else(|e| panic!("{flavour}: {e}"));
    }
}

#[test]
fn every_instruction_assembles_in_every_flavour() {
    let Some(ptxas) = ptxas::find() else { return };
    for flavour in Flavour::ALL {
        let text = ir::print(&module(every::kernel()), flavour);
        ptxas::assemble(&ptxas, &text, flavour).unwrap_or_else(|said| panic!("{flavour}:\n{said}"));
    }
}

/// The verifier's table of versions: all but two kinds are as old as sm_80.
#[test]
fn instructions_need_the_versions_that_the_verifier_says() {
    let Some(ptxas) = ptxas::find() else { return };
    let assembles = |inst: Option<&Inst>, version: &str| {
        let mut kernel = every::kernel();
        kernel.body.retain(|stmt| match stmt {
            Stmt::Inst(_, i) => inst.is_none_or(|only| every_floor(i) <= every_floor(only)),
            _ => true,
        });
        let text = ir::print(&module(kernel), Flavour::Sm80);
        let text = text.replace(".version 7.8", &format!(".version {version}"));
        ptxas::assemble(&ptxas, &text, Flavour::Sm80)
    };
    let kernel = every::kernel();
    let insts = insts(&kernel.body);
    let of = |floor| *insts.iter().find(|i| every_floor(i) == floor).unwrap();
    for (floor, before) in [("7.4", Some("7.3")), ("7.1", Some("7.0")), ("7.0", None)] {
        let result = assembles(Some(of(floor)), floor);
        assert!(result.is_ok(), "{floor}: {}", result.unwrap_err());
        if let Some(before) = before {
            assert!(assembles(Some(of(floor)), before).is_err(), "{floor}");
        }
    }
}

fn every_floor(inst: &Inst) -> &'static str {
    match inst {
        Inst::Load { hint: CacheHint::Streaming, .. } => "7.4",
        Inst::Convert(ir::Convert::Bf16ToF32 { .. } | ir::Convert::LowBits { .. }) => "7.1",
        _ => "7.0",
    }
}

#[test]
fn much_shared_memory_is_given_at_launch() {
    let Some(ptxas) = ptxas::find() else { return };
    for flavour in Flavour::ALL {
        let mut b = Builder::new("large");
        b.reserve_shared(flavour.max_shared());
        b.shared_base(64);
        let module = module(b.finish(128, 1));
        ir::verify(&module, flavour).unwrap();
        let text = ir::print(&module, flavour);
        assert!(text.contains(".extern .shared"), "{text}");
        ptxas::assemble(&ptxas, &text, flavour).unwrap_or_else(|said| panic!("{flavour}:\n{said}"));
    }
}
