//! The instruction IR: what a [`Module`] of PTX consists of.
//!
//! A kernel is straight-line [`Inst`]s under structured control flow ([`Stmt`]). Registers are
//! mutable, as in PTX, and typed by class: an [`F32`] cannot be where a [`B64`] belongs. Structure
//! says where lanes that went apart meet again, so that the interpreter, the verifier and the
//! printer need no analysis of branches.
//!
//! [`Builder`] writes kernels, [`verify()`] checks them, [`print()`] turns them into text.
//!
//! What holds: every register is written before it is read on every path;
//! memory accesses are as aligned as their width; every instruction exists in the flavour's version
//! on its architecture; a barrier stands where all lanes of the block come by.

mod build;
mod inst;
mod operand;
mod print;
mod register;
mod verify;

pub use build::Builder;
pub use inst::{
    Address, AtomicOp, Bar, CacheHint, Compare, Convert, FloatOp, Inst, IntOp, LogicOp, MathOp,
    MemType, MmaShape, Shuffle, Space, Special, Vote,
};
pub use operand::Operands;
pub use print::print;
pub use register::{B16, B32, B64, Class, F32, F64, Pred, Reg, Register, Value};
pub use verify::{Rule, VerifyError, verify};

/// What stands in one PTX file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// In the order of their first launch.
    pub kernels: Vec<Kernel>,
}

/// One entry function.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Unique within its module; ASCII letters, digits and `_`, not starting with a digit.
    pub name: String,
    /// In calling order.
    pub params: Vec<Param>,
    /// Threads of a block (one dimension); a multiple of a warp's 32.
    pub threads: u32,
    /// Blocks that should fit on a multiprocessor at least: bounds the registers of a thread.
    pub min_blocks: u32,
    /// Bytes of shared memory; above [`STATIC_SHARED`] they are given at launch.
    pub shared: u32,
    /// How many registers of each class there are, by [`Class`]'s order.
    pub registers: [u32; Class::ALL.len()],
    /// What every thread does.
    pub body: Vec<Stmt>,
}

/// The most shared memory a kernel may declare by itself, in bytes.
pub const STATIC_SHARED: u32 = 48 * 1024;

/// Alignment of a kernel's shared memory, in bytes.
pub const SHARED_ALIGN: u32 = 128;

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Unique within its kernel; as a kernel's name.
    pub name: String,
    /// `B64` for addresses, `B32` or `F32` for numbers.
    pub class: Class,
}

/// A step of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// An instruction, in the lanes where the guard holds.
    Inst(Option<Guard>, Inst),
    /// `if pred { then } else { other }`; all lanes meet after it.
    If {
        /// Which side a lane takes.
        pred: Pred,
        /// Where it holds.
        then: Vec<Stmt>,
        /// Where it does not; mostly empty.
        other: Vec<Stmt>,
    },
    /// `do { body } while pred`; a lane leaves where `pred` is false after the body.
    Loop {
        /// At least once.
        body: Vec<Stmt>,
        /// Written by the body.
        pred: Pred,
    },
    /// A remark for the reader of the PTX.
    Comment(String),
}

/// `@pred` or `@!pred` before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The predicate.
    pub pred: Pred,
    /// Whether the instruction runs where it is true, rather than where it is false.
    pub when: bool,
}
