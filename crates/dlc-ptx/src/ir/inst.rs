//! The instructions.
//!
//! One variant is one kind of PTX instruction; what differs within a kind (which operation, which
//! width) is a field. The doc comment gives the PTX text, with `d` for the destination.

use super::{B16, B32, B64, F32, F64, Pred, Reg, Value};
use smallvec::SmallVec;

/// One instruction.
#[allow(missing_docs, reason = "each variant shows its PTX, with the fields' names")]
#[derive(Clone, Debug, PartialEq)]
pub enum Inst {
    /// `mov.b32 d, a`
    Mov32 { dst: B32, src: Value<B32> },
    /// `mov.b64 d, a`
    Mov64 { dst: B64, src: Value<B64> },
    /// `mov.f32 d, a`
    MovF32 { dst: F32, src: Value<F32> },
    /// `mov.b32 d, a`: the bits of a float.
    Bits { dst: B32, src: F32 },
    /// `mov.b32 d, a`: a float of those bits.
    FromBits { dst: F32, src: B32 },
    /// `mov.b32 d, {low, high}`: two halves side by side.
    Pack { dst: B32, low: B16, high: B16 },
    /// `mov.b32 {low, high}, a`
    Unpack { low: B16, high: B16, src: B32 },
    /// `mov.u32 d, %tid.x`, and the like.
    Special { dst: B32, source: Special },
    /// `mov.u32 d, shared`: the address of the kernel's shared memory.
    Shared { dst: B32 },
    /// `ld.param d, [param]`: the parameter of that position.
    Param { dst: Reg, index: u32 },

    /// `add.u32 d, a, b`, and the like.
    Int { op: IntOp, dst: B32, a: Value<B32>, b: Value<B32> },
    /// `add.u64 d, a, b`, and the like; shifts take a 64-bit count here, printed as 32 bits.
    Int64 { op: IntOp, dst: B64, a: Value<B64>, b: Value<B64> },
    /// `mad.lo.u32 d, a, b, c`
    Mad { dst: B32, a: Value<B32>, b: Value<B32>, c: Value<B32> },
    /// `mad.wide.s32 d, a, b, c` (`u32` if not `signed`): `c` plus the full product.
    MadWide { signed: bool, dst: B64, a: Value<B32>, b: Value<B32>, c: Value<B64> },
    /// `mul.wide.s32 d, a, b` (`u32` if not `signed`)
    MulWide { signed: bool, dst: B64, a: Value<B32>, b: Value<B32> },
    /// `lop3.b32 d, a, b, c, table`: any function of three bits, bit `4a + 2b + c` of the table.
    Lop3 { dst: B32, a: Value<B32>, b: Value<B32>, c: Value<B32>, table: u8 },

    /// `add.rn.f32 d, a, b`, and the like.
    Float { op: FloatOp, dst: F32, a: Value<F32>, b: Value<F32> },
    /// `fma.rn.f32 d, a, b, c`
    Fma { dst: F32, a: Value<F32>, b: Value<F32>, c: Value<F32> },
    /// `ex2.approx.ftz.f32 d, a`, and the like.
    Math { op: MathOp, dst: F32, a: Value<F32> },
    /// `add.rn.f64 d, a, b`, and the like; no `Min` and `Max`.
    Float64 { op: FloatOp, dst: F64, a: Value<F64>, b: Value<F64> },
    /// `sqrt.rn.f64 d, a`
    Sqrt64 { dst: F64, a: Value<F64> },
    /// `fma.rn.f64 d, a, b, c`
    Fma64 { dst: F64, a: Value<F64>, b: Value<F64>, c: Value<F64> },
    /// `cvt` between classes.
    Convert(Convert),

    /// `setp.lt.s32 d, a, b`, and the like.
    SetInt { cmp: Compare, signed: bool, dst: Pred, a: Value<B32>, b: Value<B32> },
    /// `setp.lt.s64 d, a, b`, and the like.
    SetInt64 { cmp: Compare, signed: bool, dst: Pred, a: Value<B64>, b: Value<B64> },
    /// `setp.lt.f32 d, a, b`: false if either is NaN, but for `Ne`, which is `neu`.
    SetFloat { cmp: Compare, dst: Pred, a: Value<F32>, b: Value<F32> },
    /// `setp.lt.f64 d, a, b`: as `SetFloat`.
    SetFloat64 { cmp: Compare, dst: Pred, a: Value<F64>, b: Value<F64> },
    /// `setp.nan.f32 d, a, b`: whether either is NaN.
    IsNan { dst: Pred, a: Value<F32>, b: Value<F32> },
    /// `and.pred d, a, b`, and the like.
    Logic { op: LogicOp, dst: Pred, a: Value<Pred>, b: Value<Pred> },
    /// `not.pred d, a`
    Not { dst: Pred, a: Value<Pred> },
    /// `selp.b32 d, a, b, p`
    Select32 { dst: B32, a: Value<B32>, b: Value<B32>, pred: Pred },
    /// `selp.b64 d, a, b, p`
    Select64 { dst: B64, a: Value<B64>, b: Value<B64>, pred: Pred },
    /// `selp.f32 d, a, b, p`
    SelectF32 { dst: F32, a: Value<F32>, b: Value<F32>, pred: Pred },
    /// `selp.f64 d, a, b, p`
    SelectF64 { dst: F64, a: Value<F64>, b: Value<F64>, pred: Pred },

    /// `ld.global.v4.f32 {d, ..}, [a]`: 1, 2 or 4 registers of the type's class.
    Load { space: Space, ty: MemType, dst: SmallVec<[Reg; 4]>, from: Address, hint: CacheHint },
    /// `st.global.v4.f32 [a], {s, ..}`
    Store { space: Space, ty: MemType, to: Address, src: SmallVec<[Reg; 4]> },
    /// `atom.global.op.u32 d, [a], b {, c}`: gives the old value.
    Atomic { op: AtomicOp, dst: B32, at: Address, value: Value<B32> },

    /// `shfl.sync.mode.b32 d, a, b, c, 0xffffffff`: another lane's value; `lane` is a mask for
    /// `Butterfly`, a distance for `Down` and `Up`, a lane for `Index`. Lanes of a warp in groups
    /// of `width` (a power of two up to 32).
    Shuffle { mode: Shuffle, dst: Reg, src: Reg, lane: Value<B32>, width: u32 },
    /// `vote.sync.any.pred d, a, 0xffffffff`
    Vote { vote: Vote, dst: Pred, pred: Pred },
    /// `vote.sync.ballot.b32 d, a, 0xffffffff`
    Ballot { dst: B32, pred: Pred },
    /// `bar.sync 0` or `bar.warp.sync 0xffffffff`
    Barrier(Bar),

    /// `cp.async.cg.shared.global [to], [from], bytes {, size}`: of `bytes` (4, 8, 16; `.cg` at 16,
    /// else `.ca`), the first `size` are copied and the rest are zeros.
    CopyAsync { to: Address, from: Address, bytes: u32, size: Option<B32> },
    /// `cp.async.commit_group`
    CommitGroup,
    /// `cp.async.wait_group n`: at most `n` of the groups of this thread are still under way.
    WaitGroup(u32),

    /// `ldmatrix.sync.aligned.m8n8.x4{.trans}.shared.b16 {d, ..}, [a]`: 1, 2 or 4 matrices of 8x8
    /// halves; lane `8i + r` gives the address of row `r` of matrix `i`.
    LoadMatrix { dst: SmallVec<[B32; 4]>, from: Address, transposed: bool },
    /// `mma.sync.aligned.shape.row.col.f32.ty.ty.f32 d, a, b, c`, `d = a * b + c` of a warp.
    Mma {
        shape: MmaShape,
        dst: [F32; 4],
        a: SmallVec<[B32; 4]>,
        b: SmallVec<[B32; 2]>,
        c: [F32; 4],
    },
    /// `trap`: ends the launch with an error; where an invariant of ours is broken.
    Trap,
}

/// An address: `[register + offset]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// `B64` in global memory, `B32` in shared memory.
    pub base: Reg,
    /// In bytes.
    pub offset: i32,
}

impl Address {
    /// In global memory.
    pub fn global(base: B64, offset: i32) -> Address {
        Address { base: base.into(), offset }
    }

    /// In shared memory.
    pub fn shared(base: B32, offset: i32) -> Address {
        Address { base: base.into(), offset }
    }
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Device memory.
    Global,
    /// The block's own.
    Shared,
}

/// The type of a value in memory. Narrow integers live in `B32` registers, extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemType {
    /// A byte, zero-extended.
    U8,
    /// A byte, sign-extended.
    S8,
    /// A half, in a `B16`.
    B16,
    /// In a `B32`.
    B32,
    /// In a `B64`.
    B64,
    /// In an `F32`.
    F32,
}

/// How a load treats the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheHint {
    /// As ever.
    #[default]
    None,
    /// `.nc`: nobody writes it while the kernel runs.
    ReadOnly,
    /// `.nc.L1::no_allocate`: as `ReadOnly`, and read once.
    Streaming,
}

/// Integer operations; wrapping. Names ending in `S` are signed, those in `U` unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are PTX's")]
pub enum IntOp {
    Add,
    Sub,
    Mul,
    MulHiU,
    DivS,
    DivU,
    RemS,
    RemU,
    MinS,
    MaxS,
    MinU,
    MaxU,
    And,
    Or,
    Xor,
    Shl,
    ShrU,
    ShrS,
}

/// Float operations, rounded to nearest, denormals kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatOp {
    /// `add.rn.f32`
    Add,
    /// `sub.rn.f32`
    Sub,
    /// `mul.rn.f32`
    Mul,
    /// `div.rn.f32`: correctly rounded.
    Div,
    /// `min.NaN.f32`: NaN if either is.
    Min,
    /// `max.NaN.f32`: NaN if either is.
    Max,
}

/// Functions of one float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MathOp {
    /// `neg.f32`
    Neg,
    /// `abs.f32`
    Abs,
    /// `sqrt.rn.f32`: correctly rounded.
    Sqrt,
    /// `rcp.rn.f32`: correctly rounded.
    Rcp,
    /// `rsqrt.approx.f32`: 2 ULP.
    Rsqrt,
    /// `ex2.approx.f32`: `2^x`, 2 ULP.
    Ex2,
    /// `lg2.approx.f32`: `log2 x`.
    Lg2,
    /// `tanh.approx.f32`: relative error 2^-11.
    Tanh,
    /// `cvt.rmi.f32.f32`
    Floor,
    /// `cvt.rpi.f32.f32`
    Ceil,
    /// `cvt.rni.f32.f32`: ties to even.
    Round,
    /// `cvt.rzi.f32.f32`
    Trunc,
}

/// Conversions between classes.
#[allow(missing_docs, reason = "each variant shows its PTX, with the fields' names")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Convert {
    /// `cvt.rzi.s32.f32`: truncates, saturates, NaN gives 0.
    F32ToS32 { dst: B32, src: F32 },
    /// `cvt.rzi.u32.f32`: truncates, saturates, NaN gives 0.
    F32ToU32 { dst: B32, src: F32 },
    /// `cvt.rn.f32.s32`
    S32ToF32 { dst: F32, src: B32 },
    /// `cvt.rn.f32.u32`
    U32ToF32 { dst: F32, src: B32 },
    /// `cvt.s64.s32`
    S32To64 { dst: B64, src: B32 },
    /// `cvt.u64.u32`
    U32To64 { dst: B64, src: B32 },
    /// `cvt.u32.u64`: the low word.
    Low { dst: B32, src: B64 },
    /// `cvt.f64.f32`
    F32ToF64 { dst: F64, src: F32 },
    /// `cvt.rn.f32.f64`
    F64ToF32 { dst: F32, src: F64 },
    /// `mov.b64 {d, _}, a`: the low word of a double's bits.
    LowBits { dst: B32, src: F64 },
    /// `cvt.f32.f16`
    F16ToF32 { dst: F32, src: B16 },
    /// `cvt.rn.f16.f32`
    F32ToF16 { dst: B16, src: F32 },
    /// `cvt.f32.bf16`
    Bf16ToF32 { dst: F32, src: B16 },
    /// `cvt.rn.bf16.f32`
    F32ToBf16 { dst: B16, src: F32 },
    /// `cvt.rna.tf32.f32`: rounded to 10 bits of mantissa, ties away; the rest is zero.
    F32ToTf32 { dst: B32, src: F32 },
    /// `cvt.rn.f16x2.f32 d, high, low`
    PackF16 { dst: B32, low: F32, high: F32 },
    /// `cvt.rn.bf16x2.f32 d, high, low`
    PackBf16 { dst: B32, low: F32, high: F32 },
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what their names say")]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Operations on truth values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what their names say")]
pub enum LogicOp {
    And,
    Or,
    Xor,
}

/// Special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// `%tid.x`: the thread within its block.
    Thread,
    /// `%ctaid.x`: the block.
    BlockX,
    /// `%ctaid.y`
    BlockY,
    /// `%ctaid.z`
    BlockZ,
    /// `%nctaid.x`: blocks along x.
    BlocksX,
    /// `%laneid`: the thread within its warp.
    Lane,
}

/// Atomic operations on 32 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AtomicOp {
    /// `add.u32`
    Add,
    /// `min.u32`
    Min,
    /// `max.u32`
    Max,
    /// `cas.b32`: writes the value where this was.
    CompareAndSwap(Value<B32>),
}

/// Which lane a shuffle reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shuffle {
    /// `bfly`: the lane whose number differs in the bits of a mask.
    Butterfly,
    /// `down`: so many lanes above.
    Down,
    /// `up`: so many lanes below.
    Up,
    /// `idx`: that lane.
    Index,
}

/// Votes of a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what their names say")]
pub enum Vote {
    Any,
    All,
}

/// Who waits at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what their names say")]
pub enum Bar {
    Block,
    Warp,
}

/// What a tensor-core instruction multiplies. In lane `4g + t`:
/// `c` and `d`: rows `g`, `g`, `g+8`, `g+8`, columns `2t`, `2t+1`, `2t`, `2t+1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MmaShape {
    /// `m16n8k16`, pairs of f16. `a`: (g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8); `b`: (2t, g),
    /// (2t+8, g), each with its successor along k.
    F16,
    /// As `F16`, of bf16.
    Bf16,
    /// `m16n8k8`, tf32. `a`: (g, t), (g+8, t), (g, t+4), (g+8, t+4); `b`: (t, g), (t+4, g).
    Tf32,
}

impl MemType {
    /// Bytes in memory.
    pub const fn bytes(self) -> u32 {
        match self {
            MemType::U8 | MemType::S8 => 1,
            MemType::B16 => 2,
            MemType::B32 | MemType::F32 => 4,
            MemType::B64 => 8,
        }
    }

    /// The class of register that holds it.
    pub const fn class(self) -> super::Class {
        match self {
            MemType::U8 | MemType::S8 | MemType::B32 => super::Class::B32,
            MemType::B16 => super::Class::B16,
            MemType::B64 => super::Class::B64,
            MemType::F32 => super::Class::F32,
        }
    }
}
