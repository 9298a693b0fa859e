//! Which registers an instruction reads and writes.

use super::{Address, AtomicOp, Convert, Inst, Reg, Register, Value};
use smallvec::SmallVec;

/// The registers of an instruction, without its guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operands {
    /// Before anything is written; the destination comes not among them unless it is read.
    pub reads: SmallVec<[Reg; 10]>,
    /// In full, in every lane that takes part.
    pub writes: SmallVec<[Reg; 4]>,
}

impl Inst {
    /// The registers that it reads and writes.
    pub fn operands(&self) -> Operands {
        match self {
            Inst::Mov32 { dst, src } => of(dst, &[src]),
            Inst::Mov64 { dst, src } => of(dst, &[src]),
            Inst::MovF32 { dst, src } => of(dst, &[src]),
            Inst::Bits { dst, src } => of(dst, &[src]),
            Inst::FromBits { dst, src } => of(dst, &[src]),
            Inst::Pack { dst, low, high } => of(dst, &[low, high]),
            Inst::Unpack { low, high, src } => of(&[*low, *high], &[src]),
            Inst::Special { dst, .. } | Inst::Shared { dst } => of(dst, &[]),
            Inst::Param { dst, .. } => of(dst, &[]),
            Inst::Int { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::Int64 { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::Mad { dst, a, b, c } => of(dst, &[a, b, c]),
            Inst::MadWide { dst, a, b, c, .. } => of(dst, &[a, b, c]),
            Inst::MulWide { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::Lop3 { dst, a, b, c, .. } => of(dst, &[a, b, c]),
            Inst::Float { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::Fma { dst, a, b, c } => of(dst, &[a, b, c]),
            Inst::Math { dst, a, .. } => of(dst, &[a]),
            Inst::Float64 { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::Sqrt64 { dst, a } => of(dst, &[a]),
            Inst::Fma64 { dst, a, b, c } => of(dst, &[a, b, c]),
            Inst::Convert(convert) => convert.operands(),
            Inst::SetInt { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::SetInt64 { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::SetFloat { dst, a, b, .. } | Inst::IsNan { dst, a, b } => of(dst, &[a, b]),
            Inst::SetFloat64 { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::Logic { dst, a, b, .. } => of(dst, &[a, b]),
            Inst::Not { dst, a } => of(dst, &[a]),
            Inst::Select32 { dst, a, b, pred } => of(dst, &[a, b, pred]),
            Inst::Select64 { dst, a, b, pred } => of(dst, &[a, b, pred]),
            Inst::SelectF32 { dst, a, b, pred } => of(dst, &[a, b, pred]),
            Inst::SelectF64 { dst, a, b, pred } => of(dst, &[a, b, pred]),
            Inst::Load { dst, from, .. } => of(dst, &[from]),
            Inst::Store { to, src, .. } => of(&NONE, &[to, src]),
            Inst::Atomic { op, dst, at, value } => match op {
                AtomicOp::CompareAndSwap(old) => of(dst, &[at, value, old]),
                _ => of(dst, &[at, value]),
            },
            Inst::Shuffle { dst, src, lane, .. } => of(dst, &[src, lane]),
            Inst::Vote { dst, pred, .. } => of(dst, &[pred]),
            Inst::Ballot { dst, pred } => of(dst, &[pred]),
            Inst::CopyAsync { to, from, size, .. } => of(&NONE, &[to, from, size]),
            Inst::LoadMatrix { dst, from, .. } => of(dst, &[from]),
            Inst::Mma { dst, a, b, c, .. } => of(dst, &[a, b, c]),
            Inst::Barrier(_) | Inst::CommitGroup => Operands::default(),
            Inst::WaitGroup(_) | Inst::Trap => Operands::default(),
        }
    }
}

impl Convert {
    /// The registers that it reads (the low one first) and writes.
    pub fn operands(&self) -> Operands {
        match self {
            Convert::F32ToS32 { dst, src } | Convert::F32ToU32 { dst, src } => of(dst, &[src]),
            Convert::S32ToF32 { dst, src } | Convert::U32ToF32 { dst, src } => of(dst, &[src]),
            Convert::S32To64 { dst, src } | Convert::U32To64 { dst, src } => of(dst, &[src]),
            Convert::Low { dst, src } => of(dst, &[src]),
            Convert::F32ToF64 { dst, src } => of(dst, &[src]),
            Convert::F64ToF32 { dst, src } => of(dst, &[src]),
            Convert::LowBits { dst, src } => of(dst, &[src]),
            Convert::F16ToF32 { dst, src } | Convert::Bf16ToF32 { dst, src } => of(dst, &[src]),
            Convert::F32ToF16 { dst, src } | Convert::F32ToBf16 { dst, src } => of(dst, &[src]),
            Convert::F32ToTf32 { dst, src } => of(dst, &[src]),
            Convert::PackF16 { dst, low, high } | Convert::PackBf16 { dst, low, high } => {
                of(dst, &[low, high])
            }
        }
    }
}

const NONE: [Reg; 0] = [];

fn of(writes: &dyn Operand, reads: &[&dyn Operand]) -> Operands {
    let mut operands = Operands::default();
    writes.visit(&mut |reg| operands.writes.push(reg));
    reads.iter().for_each(|read| read.visit(&mut |reg| operands.reads.push(reg)));
    operands
}

/// What holds registers.
trait Operand {
    fn visit(&self, add: &mut dyn FnMut(Reg));
}

impl Operand for Reg {
    fn visit(&self, add: &mut dyn FnMut(Reg)) {
        add(*self);
    }
}

macro_rules! operand {
    ($($register:ident),+) => {$(
        impl Operand for super::$register {
            fn visit(&self, add: &mut dyn FnMut(Reg)) {
                add((*self).into());
            }
        }
    )+};
}

operand!(Pred, B16, B32, B64, F32, F64);

impl<R: Register> Operand for Value<R> {
    fn visit(&self, add: &mut dyn FnMut(Reg)) {
        if let Value::Reg(register) = self {
            add((*register).into());
        }
    }
}

impl Operand for Address {
    fn visit(&self, add: &mut dyn FnMut(Reg)) {
        add(self.base);
    }
}

impl<T: Operand> Operand for Option<T> {
    fn visit(&self, add: &mut dyn FnMut(Reg)) {
        self.iter().for_each(|operand| operand.visit(add));
    }
}

impl<T: Operand, const N: usize> Operand for [T; N] {
    fn visit(&self, add: &mut dyn FnMut(Reg)) {
        self.iter().for_each(|operand| operand.visit(add));
    }
}

impl<A: smallvec::Array<Item: Operand>> Operand for SmallVec<A> {
    fn visit(&self, add: &mut dyn FnMut(Reg)) {
        self.iter().for_each(|operand| operand.visit(add));
    }
}
