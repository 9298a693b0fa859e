//! Leaves in 256-bit (AVX2 and FMA) and 512-bit (AVX-512) vectors, assembled.
//!
//! - [`asm`]: instructions, labels and constants to bytes.
//! - [`codes`]: which instruction does what, in either width.
//! - [`straight`]: the code of one vector: registers, and one or a few instructions an operation.
//! - [`frame`]: what lives in registers and on the stack throughout a loop.
//! - [`access`]: the elements of a vector: loads and stores, whole or in part.
//! - [`loops`]: the loops around it, tails and folds.
//! - [`gemm`]: register tiles of contractions; [`epilogue`]: what becomes of their sums.
//!
//! A leaf is one function of the System V convention: `rdi` points to its argument block, upper
//! halves are cleared before the return, constants follow the code. Its bytes depend on no address.

pub mod access;
pub mod asm;
pub mod codes;
pub mod epilogue;
pub mod frame;
pub mod gemm;
pub mod loops;
pub mod random;
pub mod straight;

pub use loops::assemble;

use crate::level::Level;
use iced_x86::Register;

/// The width of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// 256 bits: AVX2 and FMA.
    Ymm,
    /// 512 bits: AVX-512 F, DQ.
    Zmm,
}

impl Width {
    /// The widest that the level has, if any is wider than Cranelift's.
    pub fn of(level: Level) -> Option<Width> {
        match level {
            Level::X86_64V3 => Some(Width::Ymm),
            Level::X86_64V4 => Some(Width::Zmm),
            Level::X86_64V2 | Level::Aarch64 => None,
        }
    }

    /// Bytes of a vector.
    pub fn bytes(self) -> i32 {
        if self == Width::Ymm { 32 } else { 64 }
    }

    /// Lanes of a vector.
    pub fn lanes(self) -> i32 {
        self.bytes() / 4
    }

    /// How many vector registers there are.
    pub fn registers(self) -> u8 {
        if self == Width::Ymm { 16 } else { 32 }
    }

    /// The vector register of that number.
    pub fn whole(self, number: u8) -> Register {
        let first = if self == Width::Ymm { Register::YMM0 } else { Register::ZMM0 };
        first + u32::from(number)
    }

    /// Its lower half.
    pub fn half(self, number: u8) -> Register {
        let first = if self == Width::Ymm { Register::XMM0 } else { Register::YMM0 };
        first + u32::from(number)
    }
}
