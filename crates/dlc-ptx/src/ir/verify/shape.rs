//! Rules of one statement by itself.

use super::super::{
    Address, CacheHint, Class, Convert, FloatOp, Inst, IntOp, Kernel, MmaShape, Operands, Reg,
    Space, Stmt, Value,
};
use super::{Broken, Rule, require};
use crate::Flavour;

/// Checks what statements say without regard to what runs before them.
pub fn check(kernel: &Kernel, flavour: Flavour, body: &[Stmt]) -> Result<(), Broken> {
    body.iter().try_for_each(|stmt| match stmt {
        Stmt::Comment(_) => Ok(()),
        Stmt::Inst(guard, inst) => {
            guard.map_or(Ok(()), |g| declared(kernel, g.pred.into()))?;
            instruction(kernel, flavour, inst)
        }
        Stmt::If { pred, then, other } => {
            declared(kernel, (*pred).into())?;
            check(kernel, flavour, then)?;
            check(kernel, flavour, other)
        }
        Stmt::Loop { body, pred } => {
            declared(kernel, (*pred).into())?;
            check(kernel, flavour, body)
        }
    })
}

fn instruction(kernel: &Kernel, flavour: Flavour, inst: &Inst) -> Result<(), Broken> {
    let text = || inst.to_string();
    require(reaches(flavour, floor(inst)), Rule::Floor, text)?;
    let Operands { reads, writes } = inst.operands();
    reads.iter().chain(&writes).try_for_each(|&reg| declared(kernel, reg))?;
    let distinct = (1..writes.len()).all(|i| !writes[..i].contains(&writes[i]));
    require(distinct, Rule::Distinct, text)?;
    require(has_form(inst), Rule::Form, text)?;
    require(has_width(inst), Rule::Width, text)?;
    require(has_classes(inst), Rule::Class, text)?;
    let Inst::Param { dst, index } = inst else { return Ok(()) };
    let param = kernel.params.get(*index as usize);
    require(param.is_some_and(|p| p.class == dst.class), Rule::Param, text)
}

/// Whether the kernel has that register.
fn declared(kernel: &Kernel, reg: Reg) -> Result<(), Broken> {
    let count = kernel.registers[reg.class as usize];
    require(reg.number < count, Rule::Register, || format!("{reg} of {count}"))
}

/// The least architecture and PTX version that an instruction needs.
fn floor(inst: &Inst) -> (Flavour, (u32, u32)) {
    let version = match inst {
        Inst::Load { hint: CacheHint::Streaming, .. } => (7, 4),
        Inst::Convert(Convert::Bf16ToF32 { .. } | Convert::LowBits { .. }) => (7, 1),
        _ => (7, 0),
    };
    (Flavour::Sm80, version)
}

fn reaches(flavour: Flavour, (least, version): (Flavour, (u32, u32))) -> bool {
    flavour >= least && flavour.version() >= version
}

/// Whether PTX has the operation for such operands.
fn has_form(inst: &Inst) -> bool {
    match inst {
        Inst::Int64 { op: IntOp::Shl | IntOp::ShrU | IntOp::ShrS, b, .. } => {
            matches!(b, Value::Literal(_))
        }
        Inst::Float64 { op, .. } => !matches!(op, FloatOp::Min | FloatOp::Max),
        Inst::Load { space: Space::Shared, hint, .. } => *hint == CacheHint::None,
        _ => true,
    }
}

/// Whether it moves numbers of registers and bytes that it can.
fn has_width(inst: &Inst) -> bool {
    match inst {
        Inst::Load { ty, dst: regs, .. } | Inst::Store { ty, src: regs, .. } => {
            matches!(regs.len(), 1 | 2 | 4) && ty.bytes() * regs.len() as u32 <= 16
        }
        Inst::Shuffle { width, .. } => width.is_power_of_two() && *width <= 32,
        Inst::CopyAsync { bytes, .. } => matches!(bytes, 4 | 8 | 16),
        Inst::LoadMatrix { dst, .. } => matches!(dst.len(), 1 | 2 | 4),
        Inst::Mma { shape, a, b, .. } => match shape {
            MmaShape::F16 | MmaShape::Bf16 | MmaShape::Tf32 => (a.len(), b.len()) == (4, 2),
        },
        _ => true,
    }
}

/// Whether registers of a class chosen at run time are of the right one.
fn has_classes(inst: &Inst) -> bool {
    match inst {
        Inst::Load { space, ty, dst: regs, from: at, .. }
        | Inst::Store { space, ty, src: regs, to: at } => {
            is_address(*space, *at) && regs.iter().all(|r| r.class == ty.class())
        }
        Inst::Atomic { at, .. } => is_address(Space::Global, *at),
        Inst::Shuffle { dst, src, .. } => {
            dst.class == src.class && matches!(src.class, Class::B32 | Class::F32)
        }
        Inst::CopyAsync { to, from, .. } => {
            is_address(Space::Shared, *to) && is_address(Space::Global, *from)
        }
        Inst::LoadMatrix { from, .. } => is_address(Space::Shared, *from),
        _ => true,
    }
}

fn is_address(space: Space, at: Address) -> bool {
    let class = if space == Space::Global { Class::B64 } else { Class::B32 };
    at.base.class == class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_flavour_lacks_what_a_newer_one_has() {
        assert!(reaches(Flavour::Sm80, (Flavour::Sm80, (7, 8))));
        assert!(!reaches(Flavour::Sm80, (Flavour::Sm80, (8, 0))), "its version is too old");
        assert!(!reaches(Flavour::Sm80, (Flavour::Sm90a, (7, 8))), "so is its architecture");
        assert!(reaches(Flavour::Sm90a, (Flavour::Sm80, (7, 8))));
    }
}
