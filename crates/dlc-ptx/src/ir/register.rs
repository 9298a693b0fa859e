//! Registers by class, and operands.

use std::fmt;
use std::hash::Hash;

/// A class of registers, by what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A truth value.
    Pred,
    /// 16 bits: an f16 or bf16.
    B16,
    /// 32 bits: an integer, a pair of halves, a shared-memory address.
    B32,
    /// 64 bits: an integer or a global address.
    B64,
    /// A single-precision number.
    F32,
    /// A double-precision number.
    F64,
}

impl Class {
    /// Every class, in the order of declaration.
    pub const ALL: [Class; 6] =
        [Class::Pred, Class::B16, Class::B32, Class::B64, Class::F32, Class::F64];

    /// PTX's name of the type, without the dot.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Pred => "pred",
            Class::B16 => "b16",
            Class::B32 => "b32",
            Class::B64 => "b64",
            Class::F32 => "f32",
            Class::F64 => "f64",
        }
    }

    /// What its registers' names start with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Class::Pred => "%p",
            Class::B16 => "%h",
            Class::B32 => "%r",
            Class::B64 => "%d",
            Class::F32 => "%f",
            Class::F64 => "%g",
        }
    }

    /// Bytes of a value in memory; a truth value has none there.
    pub const fn bytes(self) -> u32 {
        match self {
            Class::Pred => 0,
            Class::B16 => 2,
            Class::B32 | Class::F32 => 4,
            Class::B64 | Class::F64 => 8,
        }
    }
}

/// A register type.
pub trait Register: Copy + Eq + Hash + fmt::Debug + fmt::Display + Into<Reg> {
    /// What a literal operand of it is.
    type Literal: Copy + PartialEq + fmt::Debug;

    /// Its class.
    const CLASS: Class;

    /// The register of that number.
    fn numbered(number: u32) -> Self;
}

/// A register of any class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg {
    /// Its class.
    pub class: Class,
    /// Its number within the class.
    pub number: u32,
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.class.prefix(), self.number)
    }
}

macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident($literal:ty)),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl Register for $name {
            type Literal = $literal;
            const CLASS: Class = Class::$name;

            fn numbered(number: u32) -> $name {
                $name(number)
            }
        }

        impl From<$name> for Reg {
            fn from(register: $name) -> Reg {
                Reg { class: Class::$name, number: register.0 }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Reg::from(*self).fmt(f)
            }
        }

        impl From<$name> for Value<$name> {
            fn from(register: $name) -> Value<$name> {
                Value::Reg(register)
            }
        }
    )+};
}

registers! {
    /// A truth value, printed `%p3`.
    Pred(bool),
    /// 16 bits, printed `%h3`.
    B16(u16),
    /// 32 bits, printed `%r3`.
    B32(u32),
    /// 64 bits, printed `%d3`.
    B64(u64),
    /// A single-precision number, printed `%f3`.
    F32(f32),
    /// A double-precision number, printed `%g3`.
    F64(f64),
}

/// An operand: a register or a literal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<R: Register> {
    /// What the register holds.
    Reg(R),
    /// A constant.
    Literal(R::Literal),
}

impl<R: Register> Value<R> {
    /// The register, if it is one.
    pub fn register(self) -> Option<R> {
        match self {
            Value::Reg(register) => Some(register),
            Value::Literal(_) => None,
        }
    }
}

impl From<u32> for Value<B32> {
    fn from(literal: u32) -> Self {
        Value::Literal(literal)
    }
}

impl From<i32> for Value<B32> {
    fn from(literal: i32) -> Self {
        Value::Literal(literal as u32)
    }
}

impl From<u64> for Value<B64> {
    fn from(literal: u64) -> Self {
        Value::Literal(literal)
    }
}

impl From<i64> for Value<B64> {
    fn from(literal: i64) -> Self {
        Value::Literal(literal as u64)
    }
}

impl From<f32> for Value<F32> {
    fn from(literal: f32) -> Self {
        Value::Literal(literal)
    }
}

impl From<f64> for Value<F64> {
    fn from(literal: f64) -> Self {
        Value::Literal(literal)
    }
}

impl From<bool> for Value<Pred> {
    fn from(literal: bool) -> Self {
        Value::Literal(literal)
    }
}
