//! A warp: registers, active lanes, and where it is.

use super::Fault;
use crate::ir::{Class, Kernel, Pred, Reg, Register, Value};

/// Lanes of a warp.
pub const LANES: usize = 32;

/// A value for each lane, as bits.
pub type Bits = [u64; LANES];

/// A warp of a block.
#[derive(Clone, Debug)]
pub struct Warp {
    /// Its number within the block.
    pub number: u32,
    /// The next step.
    pub at: usize,
    /// The lanes that take part.
    pub active: u32,
    /// What will be active again, innermost last; of an `If` also who waits for the `Else`.
    pub waiting: Vec<(u32, u32)>,
    /// Copies under way: committed groups, the oldest first, and the open one last.
    pub copies: Vec<Vec<Copy>>,
    registers: [Vec<Bits>; Class::ALL.len()],
    written: [Vec<u32>; Class::ALL.len()],
}

/// Bytes on their way to shared memory.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Where to.
    pub to: u64,
    /// What.
    pub bytes: Vec<u8>,
}

impl Warp {
    /// A warp at the start of a kernel, all lanes active.
    pub fn new(kernel: &Kernel, number: u32) -> Warp {
        let registers = kernel.registers.map(|n| vec![[0; LANES]; n as usize]);
        let written = kernel.registers.map(|n| vec![0; n as usize]);
        let copies = vec![Vec::new()];
        Warp { number, at: 0, active: u32::MAX, waiting: Vec::new(), copies, registers, written }
    }

    /// The lanes of a mask.
    pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
        (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
    }

    /// What a register holds, in the lanes of `mask`.
    pub fn read(&self, register: Reg, mask: u32) -> Result<&Bits, Fault> {
        let (class, number) = (register.class as usize, register.number as usize);
        if mask & !self.written[class][number] != 0 {
            return Err(Fault::Register(register.to_string()));
        }
        Ok(&self.registers[class][number])
    }

    /// What an operand is, in the lanes of `mask`.
    pub fn value<R: Register>(&self, value: Value<R>, mask: u32) -> Result<Bits, Fault>
    where
        R::Literal: AsBits,
    {
        match value {
            Value::Reg(register) => self.read(register.into(), mask).copied(),
            Value::Literal(literal) => Ok([literal.bits(); LANES]),
        }
    }

    /// Sets a register in the lanes of `mask`.
    pub fn write(&mut self, register: Reg, mask: u32, value: impl Fn(usize) -> u64) {
        let (class, number) = (register.class as usize, register.number as usize);
        for lane in Warp::lanes(mask) {
            self.registers[class][number][lane] = value(lane);
        }
        self.written[class][number] |= mask;
    }

    /// The lanes of `mask` where a predicate holds.
    pub fn holds(&self, pred: Pred, mask: u32) -> Result<u32, Fault> {
        let bits = self.read(pred.into(), mask)?;
        Ok(Warp::lanes(mask).filter(|&lane| bits[lane] != 0).fold(0, |m, lane| m | 1 << lane))
    }
}

/// Literals as bits.
pub trait AsBits {
    /// The bits, low ones first.
    fn bits(self) -> u64;
}

impl AsBits for bool {
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl AsBits for u16 {
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl AsBits for u32 {
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl AsBits for u64 {
    fn bits(self) -> u64 {
        self
    }
}

impl AsBits for f32 {
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl AsBits for f64 {
    fn bits(self) -> u64 {
        self.to_bits()
    }
}
