//! What is known of a register where a path has come to.

use super::super::{Guard, Inst, IntOp, Register, SHARED_ALIGN, Shuffle, Special, Value};
use crate::device::ALIGNMENT;

/// Which threads hold the same value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// All of the block.
    #[default]
    Block,
    /// All of a warp.
    Warp,
    /// Each its own.
    Lane,
}

/// Whether it has been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Written {
    /// Not on every path.
    #[default]
    No,
    /// In lanes where the guard holds, as long as that version of its predicate stands.
    Under(Guard, u32),
    /// Yes.
    Yes,
}

/// The low bits of a value: it is `rest` plus a multiple of `2^bits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    bits: u32,
    rest: u64,
}

/// What is known of a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// Whether it has been written.
    pub written: Written,
    /// Who holds the same value.
    pub spread: Spread,
    /// What its low bits are.
    pub residue: Residue,
    /// The parameter that it is an address into.
    pub origin: Option<u32>,
    /// Whether it is the thread's number.
    pub is_thread: bool,
}

impl Fact {
    /// What holds of both.
    pub fn join(self, other: Fact) -> Fact {
        Fact {
            written: if self.written == other.written { self.written } else { Written::No },
            spread: self.spread.max(other.spread),
            residue: self.residue.join(other.residue),
            origin: self.origin.filter(|_| self.origin == other.origin),
            is_thread: self.is_thread && other.is_thread,
        }
    }
}

impl Residue {
    fn new(bits: u32, rest: u64) -> Residue {
        let bits = bits.min(64);
        Residue { bits, rest: if bits == 64 { rest } else { rest & ((1 << bits) - 1) } }
    }

    fn join(self, other: Residue) -> Residue {
        let same = (self.rest ^ other.rest).trailing_zeros();
        Residue::new(self.bits.min(other.bits).min(same), self.rest)
    }

    fn add(self, other: Residue) -> Residue {
        Residue::new(self.bits.min(other.bits), self.rest.wrapping_add(other.rest))
    }

    fn sub(self, other: Residue) -> Residue {
        Residue::new(self.bits.min(other.bits), self.rest.wrapping_sub(other.rest))
    }

    fn mul(self, other: Residue) -> Residue {
        let bits = (self.bits + other.zeros()).min(other.bits + self.zeros());
        Residue::new(bits, self.rest.wrapping_mul(other.rest))
    }

    fn shl(self, by: u64) -> Residue {
        match u32::try_from(by) {
            Ok(by @ 0..64) => Residue::new(self.bits + by, self.rest << by),
            _ => Residue::new(64, 0),
        }
    }

    /// So many low bits of it are 0.
    fn zeros(self) -> u32 {
        self.rest.trailing_zeros().min(self.bits)
    }

    /// Of the low 32 bits.
    fn narrow(self) -> Residue {
        Residue::new(self.bits.min(32), self.rest)
    }

    /// Whether an address of it, moved by `offset`, cannot be a multiple of `width`, a power of 2.
    pub fn is_misaligned(self, offset: i32, width: u32) -> bool {
        let known = Residue::new(self.bits.min(width.ilog2()), u64::MAX).rest;
        self.rest.wrapping_add_signed(offset.into()) & known != 0
    }
}

/// The facts of operands.
pub trait Facts {
    /// What is known of a register, or of a literal.
    fn of<R: Register<Literal: Low>>(&self, value: Value<R>) -> Fact;
}

/// Literals as low bits.
pub trait Low: Copy {
    /// The low bits that are known.
    fn low(self) -> Residue;
}

impl Low for u32 {
    fn low(self) -> Residue {
        Residue::new(32, self.into())
    }
}

impl Low for u64 {
    fn low(self) -> Residue {
        Residue::new(64, self)
    }
}

/// What is known of the register that an instruction writes, given who holds the same values of
/// those it reads.
pub fn result(inst: &Inst, read: Spread, facts: &impl Facts) -> Fact {
    let spread = spread(inst, read, facts);
    let address = address(inst, facts);
    Fact {
        written: Written::Yes,
        spread,
        is_thread: matches!(inst, Inst::Special { source: Special::Thread, .. }),
        ..address
    }
}

fn spread(inst: &Inst, read: Spread, facts: &impl Facts) -> Spread {
    match inst {
        Inst::Special { source: Special::Thread | Special::Lane, .. } => Spread::Lane,
        Inst::Atomic { .. } | Inst::LoadMatrix { .. } | Inst::Mma { .. } => Spread::Lane,
        Inst::Vote { .. } | Inst::Ballot { .. } => read.min(Spread::Warp),
        Inst::Shuffle { mode, lane, width, .. } => match facts.of(*lane).spread {
            Spread::Lane => read,
            _ if *mode == Shuffle::Index && *width == 32 => read.min(Spread::Warp),
            _ => read,
        },
        Inst::Int { op: IntOp::ShrU, a, b: Value::Literal(5..), .. } if facts.of(*a).is_thread => {
            Spread::Warp
        }
        _ => read,
    }
}

/// Low bits and origin, as far as addresses are made.
fn address(inst: &Inst, facts: &impl Facts) -> Fact {
    let low = |residue| Fact { residue, ..Fact::default() };
    match inst {
        Inst::Param { index, dst } if dst.class == super::super::Class::B64 => {
            let residue = Residue::new(ALIGNMENT.ilog2(), 0);
            Fact { residue, origin: Some(*index), ..Fact::default() }
        }
        Inst::Shared { .. } => low(Residue::new(SHARED_ALIGN.ilog2(), 0)),
        Inst::Mov32 { src, .. } => facts.of(*src),
        Inst::Mov64 { src, .. } => facts.of(*src),
        Inst::Int { op, a, b, .. } => {
            let count = if let Value::Literal(count) = b { Some(u64::from(*count)) } else { None };
            let (a, b) = (facts.of(*a).residue, facts.of(*b).residue);
            low(operation(*op, a, b, count).narrow())
        }
        Inst::Int64 { op, a, b, .. } => {
            let count = if let Value::Literal(count) = b { Some(*count) } else { None };
            let (a, b) = (facts.of(*a), facts.of(*b));
            let origin = match op {
                IntOp::Add | IntOp::Sub => a.origin.xor(b.origin),
                _ => None,
            };
            Fact { origin, ..low(operation(*op, a.residue, b.residue, count)) }
        }
        Inst::Mad { a, b, c, .. } => {
            let product = facts.of(*a).residue.mul(facts.of(*b).residue);
            low(product.add(facts.of(*c).residue).narrow())
        }
        Inst::MadWide { a, b, c, .. } => {
            let product = facts.of(*a).residue.mul(facts.of(*b).residue).narrow();
            let c = facts.of(*c);
            Fact { residue: product.add(c.residue), ..c }
        }
        Inst::MulWide { a, b, .. } => low(facts.of(*a).residue.mul(facts.of(*b).residue).narrow()),
        _ => Fact::default(),
    }
}

fn operation(op: IntOp, a: Residue, b: Residue, count: Option<u64>) -> Residue {
    match (op, count) {
        (IntOp::Add, _) => a.add(b),
        (IntOp::Sub, _) => a.sub(b),
        (IntOp::Mul, _) => a.mul(b),
        (IntOp::Shl, Some(count)) => a.shl(count),
        _ => Residue::default(),
    }
}
