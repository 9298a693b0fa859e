//! How products of floats are computed.

use std::fmt;

/// How contractions multiply f32 operands. Sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Math {
    /// `fma` in f32, on the ordinary cores.
    #[default]
    F32,
    /// Operands rounded to tf32 (10 bits of mantissa), on the tensor cores: relative error about
    /// 2^-10 for each product.
    Tf32,
    /// Operands as sums of two tf32, three products: relative error about 2^-21 for each product.
    Tf32x3,
    /// Operands rounded to f16 (10 bits of mantissa, magnitudes from 2^-14 to 65504): relative error
    /// about 2^-10 for each product.
    F16,
    /// Operands rounded to bf16 (7 bits of mantissa): relative error about 2^-7 for each product.
    Bf16,
}

impl Math {
    /// Every way, the most exact first.
    pub const ALL: [Math; 5] = [Math::F32, Math::Tf32x3, Math::Tf32, Math::F16, Math::Bf16];

    /// The name a user gives it by.
    pub const fn name(self) -> &'static str {
        match self {
            Math::F32 => "f32",
            Math::Tf32 => "tf32",
            Math::Tf32x3 => "3xtf32",
            Math::F16 => "f16",
            Math::Bf16 => "bf16",
        }
    }

    /// Elements that a word of 32 bits holds.
    pub const fn per_word(self) -> u32 {
        match self {
            Math::F32 | Math::Tf32 | Math::Tf32x3 => 1,
            Math::F16 | Math::Bf16 => 2,
        }
    }

    /// The way of that name.
    pub fn from_name(name: &str) -> Option<Math> {
        Math::ALL.into_iter().find(|m| m.name() == name)
    }
}

impl fmt::Display for Math {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
