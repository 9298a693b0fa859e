//! Element types of tensors, buffers and scalar expressions.

use std::fmt;

/// The type of one element. `F32`, `I32`, `U8` and `Bool` take part in computation; the others are
/// storage and interchange types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision number.
    Bf16,
    /// IEEE double precision.
    F64,
    /// 64-bit two's complement.
    I64,
    /// 32-bit two's complement; arithmetic wraps.
    I32,
    /// 8-bit two's complement.
    I8,
    /// 8-bit unsigned; arithmetic wraps.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every type, in the order of declaration.
    pub const ALL: [DType; 9] = [
        DType::F32,
        DType::F16,
        DType::Bf16,
        DType::F64,
        DType::I64,
        DType::I32,
        DType::I8,
        DType::U8,
        DType::Bool,
    ];

    /// The name in the language and in every dump.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F64 => "f64",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes of one stored element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }

    /// Whether it is a floating-point type, hence differentiable.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::Bf16 | DType::F64)
    }

    /// Whether it is an integer type (`Bool` is not).
    pub const fn is_int(self) -> bool {
        matches!(self, DType::I64 | DType::I32 | DType::I8 | DType::U8)
    }

    /// The type that kernels compute in when elements are stored in this one: `F32` for floats,
    /// `I32` for integers; `U8` and `Bool` stay.
    pub const fn computing(self) -> DType {
        match self {
            DType::F32 | DType::F16 | DType::Bf16 | DType::F64 => DType::F32,
            DType::I64 | DType::I32 | DType::I8 => DType::I32,
            DType::U8 => DType::U8,
            DType::Bool => DType::Bool,
        }
    }

    /// Whether kernels can compute in it.
    pub const fn computes(self) -> bool {
        matches!(self, DType::F32 | DType::I32 | DType::U8 | DType::Bool)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
