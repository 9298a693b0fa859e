//! Short forms: one for each instruction, into fresh registers.

use super::Builder;
use crate::ir::{
    Address, AtomicOp, B16, B32, B64, Bar, CacheHint, Compare, Convert, F32, F64, FloatOp, Inst,
    IntOp, LogicOp, MathOp, MemType, MmaShape, Pred, Reg, Register, Shuffle, Space, Special, Value,
    Vote,
};
use smallvec::SmallVec;

/// Moves and special values.
impl Builder {
    /// A copy.
    pub fn mov32(&mut self, src: impl Into<Value<B32>>) -> B32 {
        let dst = self.fresh();
        self.mov32_to(dst, src);
        dst
    }

    /// A copy.
    pub fn mov32_to(&mut self, dst: B32, src: impl Into<Value<B32>>) {
        self.push(Inst::Mov32 { dst, src: src.into() });
    }

    /// A copy.
    pub fn mov64(&mut self, src: impl Into<Value<B64>>) -> B64 {
        let dst = self.fresh();
        self.push(Inst::Mov64 { dst, src: src.into() });
        dst
    }

    /// A copy.
    pub fn mov_f32(&mut self, src: impl Into<Value<F32>>) -> F32 {
        let dst = self.fresh();
        self.mov_f32_to(dst, src);
        dst
    }

    /// A copy.
    pub fn mov_f32_to(&mut self, dst: F32, src: impl Into<Value<F32>>) {
        self.push(Inst::MovF32 { dst, src: src.into() });
    }

    /// The bits of a float.
    pub fn bits(&mut self, src: F32) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Bits { dst, src });
        dst
    }

    /// A float of those bits.
    pub fn from_bits(&mut self, src: B32) -> F32 {
        let dst = self.fresh();
        self.push(Inst::FromBits { dst, src });
        dst
    }

    /// Two halves side by side.
    pub fn pack(&mut self, low: B16, high: B16) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Pack { dst, low, high });
        dst
    }

    /// The low and the high half.
    pub fn unpack(&mut self, src: B32) -> [B16; 2] {
        let (low, high) = (self.fresh(), self.fresh());
        self.push(Inst::Unpack { low, high, src });
        [low, high]
    }

    /// A special register.
    pub fn special(&mut self, source: Special) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Special { dst, source });
        dst
    }

    /// The address of the kernel's shared memory, plus a reserved offset.
    pub fn shared_base(&mut self, offset: u32) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Shared { dst });
        if offset == 0 { dst } else { self.int(IntOp::Add, dst, offset) }
    }
}

/// Arithmetic.
impl Builder {
    /// An integer operation.
    pub fn int(&mut self, op: IntOp, a: impl Into<Value<B32>>, b: impl Into<Value<B32>>) -> B32 {
        let dst = self.fresh();
        self.int_to(op, dst, a, b);
        dst
    }

    /// An integer operation.
    pub fn int_to(
        &mut self,
        op: IntOp,
        dst: B32,
        a: impl Into<Value<B32>>,
        b: impl Into<Value<B32>>,
    ) {
        self.push(Inst::Int { op, dst, a: a.into(), b: b.into() });
    }

    /// An integer operation on 64 bits.
    pub fn int64(&mut self, op: IntOp, a: impl Into<Value<B64>>, b: impl Into<Value<B64>>) -> B64 {
        let dst = self.fresh();
        self.int64_to(op, dst, a, b);
        dst
    }

    /// An integer operation on 64 bits.
    pub fn int64_to(
        &mut self,
        op: IntOp,
        dst: B64,
        a: impl Into<Value<B64>>,
        b: impl Into<Value<B64>>,
    ) {
        self.push(Inst::Int64 { op, dst, a: a.into(), b: b.into() });
    }

    /// `a * b + c` on 32 bits.
    pub fn mad(
        &mut self,
        a: impl Into<Value<B32>>,
        b: impl Into<Value<B32>>,
        c: impl Into<Value<B32>>,
    ) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Mad { dst, a: a.into(), b: b.into(), c: c.into() });
        dst
    }

    /// `c` plus the full signed product: an address from an index.
    pub fn mad_wide(
        &mut self,
        a: impl Into<Value<B32>>,
        b: impl Into<Value<B32>>,
        c: impl Into<Value<B64>>,
    ) -> B64 {
        let dst = self.fresh();
        self.push(Inst::MadWide { signed: true, dst, a: a.into(), b: b.into(), c: c.into() });
        dst
    }

    /// The full unsigned product.
    pub fn mul_wide_u(&mut self, a: impl Into<Value<B32>>, b: impl Into<Value<B32>>) -> B64 {
        let dst = self.fresh();
        self.push(Inst::MulWide { signed: false, dst, a: a.into(), b: b.into() });
        dst
    }

    /// `a ^ b ^ c`
    pub fn xor3(
        &mut self,
        a: impl Into<Value<B32>>,
        b: impl Into<Value<B32>>,
        c: impl Into<Value<B32>>,
    ) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Lop3 { dst, a: a.into(), b: b.into(), c: c.into(), table: 0x96 });
        dst
    }

    /// A float operation.
    pub fn float(
        &mut self,
        op: FloatOp,
        a: impl Into<Value<F32>>,
        b: impl Into<Value<F32>>,
    ) -> F32 {
        let dst = self.fresh();
        self.push(Inst::Float { op, dst, a: a.into(), b: b.into() });
        dst
    }

    /// `a * b + c`, rounded once.
    pub fn fma(
        &mut self,
        a: impl Into<Value<F32>>,
        b: impl Into<Value<F32>>,
        c: impl Into<Value<F32>>,
    ) -> F32 {
        let dst = self.fresh();
        self.fma_to(dst, a, b, c);
        dst
    }

    /// `a * b + c`, rounded once.
    pub fn fma_to(
        &mut self,
        dst: F32,
        a: impl Into<Value<F32>>,
        b: impl Into<Value<F32>>,
        c: impl Into<Value<F32>>,
    ) {
        self.push(Inst::Fma { dst, a: a.into(), b: b.into(), c: c.into() });
    }

    /// A function of one float.
    pub fn math(&mut self, op: MathOp, a: impl Into<Value<F32>>) -> F32 {
        let dst = self.fresh();
        self.push(Inst::Math { op, dst, a: a.into() });
        dst
    }

    /// An operation on doubles.
    pub fn float64(
        &mut self,
        op: FloatOp,
        a: impl Into<Value<F64>>,
        b: impl Into<Value<F64>>,
    ) -> F64 {
        let dst = self.fresh();
        self.push(Inst::Float64 { op, dst, a: a.into(), b: b.into() });
        dst
    }

    /// The square root of a double.
    pub fn sqrt64(&mut self, a: impl Into<Value<F64>>) -> F64 {
        let dst = self.fresh();
        self.push(Inst::Sqrt64 { dst, a: a.into() });
        dst
    }

    /// `a * b + c` on doubles, rounded once.
    pub fn fma64(
        &mut self,
        a: impl Into<Value<F64>>,
        b: impl Into<Value<F64>>,
        c: impl Into<Value<F64>>,
    ) -> F64 {
        let dst = self.fresh();
        self.push(Inst::Fma64 { dst, a: a.into(), b: b.into(), c: c.into() });
        dst
    }

    /// A conversion, given the fresh destination.
    pub fn convert<R: Register>(&mut self, convert: impl FnOnce(R) -> Convert) -> R {
        let dst = self.fresh();
        self.push(Inst::Convert(convert(dst)));
        dst
    }
}

/// Comparisons and selections.
impl Builder {
    /// A signed comparison.
    pub fn set_int(
        &mut self,
        cmp: Compare,
        a: impl Into<Value<B32>>,
        b: impl Into<Value<B32>>,
    ) -> Pred {
        let dst = self.fresh();
        self.push(Inst::SetInt { cmp, signed: true, dst, a: a.into(), b: b.into() });
        dst
    }

    /// An unsigned comparison; `Lt` is also "inside `0..b`" of a signed `a`.
    pub fn set_uint(
        &mut self,
        cmp: Compare,
        a: impl Into<Value<B32>>,
        b: impl Into<Value<B32>>,
    ) -> Pred {
        let dst = self.fresh();
        self.push(Inst::SetInt { cmp, signed: false, dst, a: a.into(), b: b.into() });
        dst
    }

    /// A comparison of floats.
    pub fn set_float(
        &mut self,
        cmp: Compare,
        a: impl Into<Value<F32>>,
        b: impl Into<Value<F32>>,
    ) -> Pred {
        let dst = self.fresh();
        self.push(Inst::SetFloat { cmp, dst, a: a.into(), b: b.into() });
        dst
    }

    /// A comparison of doubles.
    pub fn set_float64(
        &mut self,
        cmp: Compare,
        a: impl Into<Value<F64>>,
        b: impl Into<Value<F64>>,
    ) -> Pred {
        let dst = self.fresh();
        self.push(Inst::SetFloat64 { cmp, dst, a: a.into(), b: b.into() });
        dst
    }

    /// Whether either is NaN.
    pub fn is_nan(&mut self, a: impl Into<Value<F32>>, b: impl Into<Value<F32>>) -> Pred {
        let dst = self.fresh();
        self.push(Inst::IsNan { dst, a: a.into(), b: b.into() });
        dst
    }

    /// An operation on truth values.
    pub fn logic(
        &mut self,
        op: LogicOp,
        a: impl Into<Value<Pred>>,
        b: impl Into<Value<Pred>>,
    ) -> Pred {
        let dst = self.fresh();
        self.push(Inst::Logic { op, dst, a: a.into(), b: b.into() });
        dst
    }

    /// The opposite.
    pub fn not(&mut self, a: impl Into<Value<Pred>>) -> Pred {
        let dst = self.fresh();
        self.push(Inst::Not { dst, a: a.into() });
        dst
    }

    /// `pred ? a : b`
    pub fn select32(
        &mut self,
        pred: Pred,
        a: impl Into<Value<B32>>,
        b: impl Into<Value<B32>>,
    ) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Select32 { dst, a: a.into(), b: b.into(), pred });
        dst
    }

    /// `pred ? a : b`
    pub fn select_f32(
        &mut self,
        pred: Pred,
        a: impl Into<Value<F32>>,
        b: impl Into<Value<F32>>,
    ) -> F32 {
        let dst = self.fresh();
        self.push(Inst::SelectF32 { dst, a: a.into(), b: b.into(), pred });
        dst
    }

    /// `pred ? a : b`
    pub fn select_f64(
        &mut self,
        pred: Pred,
        a: impl Into<Value<F64>>,
        b: impl Into<Value<F64>>,
    ) -> F64 {
        let dst = self.fresh();
        self.push(Inst::SelectF64 { dst, a: a.into(), b: b.into(), pred });
        dst
    }
}

/// Memory and other lanes.
impl Builder {
    /// Loads 1, 2 or 4 neighbours into fresh registers.
    pub fn load(
        &mut self,
        space: Space,
        ty: MemType,
        count: usize,
        from: Address,
        hint: CacheHint,
    ) -> SmallVec<[Reg; 4]> {
        let dst: SmallVec<[Reg; 4]> = (0..count).map(|_| self.fresh_of(ty.class())).collect();
        self.push(Inst::Load { space, ty, dst: dst.clone(), from, hint });
        dst
    }

    /// Stores 1, 2 or 4 neighbours.
    pub fn store(&mut self, space: Space, ty: MemType, to: Address, src: &[Reg]) {
        self.push(Inst::Store { space, ty, to, src: src.iter().copied().collect() });
    }

    /// An atomic operation on global memory; gives the old value.
    pub fn atomic(&mut self, op: AtomicOp, at: Address, value: impl Into<Value<B32>>) -> B32 {
        let dst = self.fresh();
        self.push(Inst::Atomic { op, dst, at, value: value.into() });
        dst
    }

    /// Another lane's value.
    pub fn shuffle<R: Register>(
        &mut self,
        mode: Shuffle,
        src: R,
        lane: impl Into<Value<B32>>,
        width: u32,
    ) -> R {
        let dst = self.fresh::<R>();
        let (to, from) = (dst.into(), src.into());
        self.push(Inst::Shuffle { mode, dst: to, src: from, lane: lane.into(), width });
        dst
    }

    /// Whether any, or every, lane of the warp says so.
    pub fn vote(&mut self, vote: Vote, pred: Pred) -> Pred {
        let dst = self.fresh();
        self.push(Inst::Vote { vote, dst, pred });
        dst
    }

    /// All threads of the block meet.
    pub fn barrier(&mut self) {
        self.push(Inst::Barrier(Bar::Block));
    }

    /// Loads 1, 2 or 4 matrices of 8x8 halves.
    pub fn load_matrix(
        &mut self,
        count: usize,
        from: Address,
        transposed: bool,
    ) -> SmallVec<[B32; 4]> {
        let dst: SmallVec<[B32; 4]> = (0..count).map(|_| self.fresh()).collect();
        self.push(Inst::LoadMatrix { dst: dst.clone(), from, transposed });
        dst
    }

    /// `acc += a * b` on the tensor cores.
    pub fn mma(&mut self, shape: MmaShape, acc: [F32; 4], a: &[B32], b: &[B32]) {
        let (a, b) = (a.iter().copied().collect(), b.iter().copied().collect());
        self.push(Inst::Mma { shape, dst: acc, a, b, c: acc });
    }
}
