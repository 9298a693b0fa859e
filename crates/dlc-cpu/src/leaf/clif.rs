//! Operations on lanes as Cranelift IR: on four lanes, or on a scalar, with the same bits for both.
//!
//! A vector is `F32X4`, `I32X4` (also for masks, all ones or all zeros) or, for a half, `F64X2`; a
//! scalar is `F32`, `I32`, `I8` (for masks, 0 or 1) or `F64`.

use super::lanes::{Binary, Compare, Kind, Lanes, Op, Shift, Unary, Vector};
use super::portable::{Multiply, multiply_add};
use super::random;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8, I8X16, I32, I32X4, I64};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::FunctionBuilder;

/// How wide values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One lane.
    Scalar,
    /// Four lanes.
    Vector,
}

impl Width {
    /// The number of lanes.
    pub fn lanes(self) -> i64 {
        if self == Width::Scalar { 1 } else { 4 }
    }

    /// The type of a value.
    pub fn type_of(self, kind: Kind) -> Type {
        match (self, kind) {
            (Width::Scalar, Kind::F32) => F32,
            (Width::Scalar, Kind::I32) => I32,
            (Width::Scalar, Kind::Mask) => I8,
            (Width::Scalar, Kind::Half) => F64,
            (Width::Vector, Kind::F32) => F32X4,
            (Width::Vector, Kind::I32 | Kind::Mask) => I32X4,
            (Width::Vector, Kind::Half) => F64X2,
        }
    }
}

/// Writes the operations of a [`Lanes`].
pub struct Writer<'w, 'f> {
    /// The instructions go here.
    pub b: &'w mut FunctionBuilder<'f>,
    /// How a fused operation is computed.
    pub multiply: Multiply,
    /// How wide.
    pub width: Width,
}

/// The values of `roots`; `given` are those of what the code does not compute itself.
pub fn values(
    w: &mut Writer,
    lanes: &Lanes,
    roots: &[Vector],
    mut given: impl FnMut(&mut Writer, Op) -> Value,
) -> Vec<Value> {
    let mut known: Vec<Option<Value>> = vec![None; lanes.len()];
    for v in lanes.reachable(roots) {
        let op = lanes.op(v);
        let value = match op {
            Op::Uniform(..) | Op::Input(..) | Op::Carry(..) | Op::Index => given(w, op),
            _ => {
                let operands: Vec<(Value, Kind)> = op
                    .operands()
                    .map(|x| (known[x.0 as usize].expect("operands come first"), lanes.kind(x)))
                    .collect();
                w.value(op, &operands)
            }
        };
        known[v.0 as usize] = Some(value);
    }
    roots.iter().map(|v| known[v.0 as usize].expect("roots are reached")).collect()
}

impl Writer<'_, '_> {
    /// The same bits in all lanes.
    pub fn constant(&mut self, kind: Kind, bits: u64) -> Value {
        let low = bits as u32;
        match (self.width, kind) {
            (Width::Scalar, Kind::F32) => self.b.ins().f32const(f32::from_bits(low)),
            (Width::Scalar, Kind::I32) => self.b.ins().iconst(I32, i64::from(low)),
            (Width::Scalar, Kind::Mask) => self.b.ins().iconst(I8, i64::from(low != 0)),
            (Width::Scalar, Kind::Half) => self.b.ins().f64const(f64::from_bits(bits)),
            (Width::Vector, Kind::Half) => self.lane_bits([bits; 2], F64X2),
            (Width::Vector, kind) => {
                let pair = u64::from(low) << 32 | u64::from(low);
                self.lane_bits([pair; 2], Width::Vector.type_of(kind))
            }
        }
    }

    /// Lanes that count up from an integer.
    pub fn counting(&mut self, first: Value) -> Value {
        let distances = self.lane_bits([1 << 32, 3 << 32 | 2], I32X4);
        let first = self.b.ins().splat(I32X4, first);
        self.b.ins().iadd(first, distances)
    }

    fn lane_bits(&mut self, bits: [u64; 2], ty: Type) -> Value {
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let constant = self.b.func.dfg.constants.insert(bytes.into());
        self.b.ins().vconst(ty, constant)
    }

    fn value(&mut self, op: Op, operands: &[(Value, Kind)]) -> Value {
        let x = operands.first().copied();
        match (op, operands) {
            (Op::Const(kind, bits), _) => self.constant(kind, bits),
            (Op::Unary(op, _), &[(x, kind)]) => self.unary(op, x, kind),
            (Op::Binary(op, ..), &[(x, kind), (y, _)]) => self.binary(op, kind, x, y),
            (Op::Compare(op, ..), &[(x, kind), (y, _)]) => self.compare(op, kind, x, y),
            (Op::Shift(shift, _, by), _) => {
                let x = x.expect("a shift has an operand").0;
                match shift {
                    Shift::Left => self.b.ins().ishl_imm_u(x, i64::from(by)),
                    Shift::Right => self.b.ins().ushr_imm_u(x, i64::from(by)),
                    Shift::Arithmetic => self.b.ins().sshr_imm_u(x, i64::from(by)),
                }
            }
            (Op::Pick(table, _), _) => self.pick(table, x.expect("a pick has an operand").0),
            (Op::Within(..), &[(x, _), (at, _)]) => self.within(x, at),
            (Op::Fma(..), &[(x, _), (y, _), (z, _)]) => {
                multiply_add(self.b, self.multiply, x, y, z)
            }
            (Op::Select(..), &[(c, _), (x, _), (y, _)]) => self.select(c, x, y),
            (Op::Random(site, ..), &[(seed, _), (step, _), (element, _)]) => {
                self.random(site, [seed, step, element])
            }
            _ => unreachable!("`{op}` is given"),
        }
    }

    /// The entry of a table that the low two bits of `x` pick.
    fn pick(&mut self, table: [u32; 4], x: Value) -> Value {
        if self.width == Width::Scalar {
            return self.pick_scalar(table, x);
        }
        let pair = |at: usize| u64::from(table[at + 1]) << 32 | u64::from(table[at]);
        let table = self.lane_bits([pair(0), pair(2)], I8X16);
        self.lane_of(table, x)
    }

    /// The lane of `x` that the low two bits of `at` pick.
    fn within(&mut self, x: Value, at: Value) -> Value {
        if self.width == Width::Scalar {
            return x;
        }
        let x = self.cast_bits(x, I8X16);
        self.lane_of(x, at)
    }

    /// The four bytes of a lane, by their numbers.
    fn lane_of(&mut self, table: Value, x: Value) -> Value {
        let three = self.constant(Kind::I32, 3);
        let entry = self.b.ins().band(x, three);
        let [four_times, bytes] = [0x0404_0404, 0x0302_0100].map(|c| self.constant(Kind::I32, c));
        let first = self.b.ins().imul(entry, four_times);
        let numbers = self.b.ins().bor(first, bytes);
        let numbers = self.cast_bits(numbers, I8X16);
        let picked = self.b.ins().swizzle(table, numbers);
        self.cast_bits(picked, I32X4)
    }

    fn pick_scalar(&mut self, table: [u32; 4], x: Value) -> Value {
        let [odd, upper] = [1, 2].map(|bit| self.b.ins().band_imm_u(x, bit));
        let pairs = [0, 2].map(|at| {
            let [even, uneven] = [0, 1].map(|k| self.constant(Kind::I32, table[at + k].into()));
            self.b.ins().select(odd, uneven, even)
        });
        self.b.ins().select(upper, pairs[1], pairs[0])
    }

    fn random(&mut self, site: u64, at: [Value; 3]) -> Value {
        if self.width == Width::Scalar {
            return random::word(self.b, site, at);
        }
        let first = at.map(|vector| self.b.ins().extractlane(vector, 0));
        let words = random::words(self.b, site, first);
        let mut vector = self.b.ins().scalar_to_vector(I32X4, words[0]);
        for (lane, &word) in words.iter().enumerate().skip(1) {
            vector = self.b.ins().insertlane(vector, word, lane as u8);
        }
        vector
    }

    fn select(&mut self, c: Value, x: Value, y: Value) -> Value {
        if self.width == Width::Scalar {
            return self.b.ins().select(c, x, y);
        }
        let ty = self.b.func.dfg.value_type(x);
        let c = self.cast_bits(c, ty);
        self.b.ins().bitselect(c, x, y)
    }

    /// The same bits as another type of the same size.
    pub fn cast_bits(&mut self, x: Value, ty: Type) -> Value {
        if self.b.func.dfg.value_type(x) == ty {
            return x;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.b.ins().bitcast(ty, flags, x)
    }

    fn unary(&mut self, op: Unary, x: Value, kind: Kind) -> Value {
        let of = |kind| self.width.type_of(kind);
        let (float, int) = (of(Kind::F32), of(Kind::I32));
        match op {
            Unary::Sqrt => self.b.ins().sqrt(x),
            Unary::Nearest => self.b.ins().nearest(x),
            Unary::Floor => self.b.ins().floor(x),
            Unary::Ceil => self.b.ins().ceil(x),
            Unary::ToFloat => self.b.ins().fcvt_from_sint(float, x),
            Unary::ToInt => self.b.ins().fcvt_to_sint_sat(int, x),
            Unary::AsInt if kind == Kind::Mask && self.width == Width::Scalar => {
                self.b.ins().bmask(I32, x)
            }
            Unary::AsInt => self.cast_bits(x, int),
            Unary::AsFloat => self.cast_bits(x, float),
            Unary::Not if self.width == Width::Scalar => self.b.ins().bxor_imm_u(x, 1),
            Unary::Not => self.b.ins().bnot(x),
            Unary::Lower | Unary::Upper if self.width == Width::Scalar => {
                self.b.ins().fpromote(F64, x)
            }
            Unary::Lower => self.b.ins().fvpromote_low(x),
            Unary::Upper => {
                let upper = self.shuffle(x, x, [2, 3, 2, 3]);
                self.b.ins().fvpromote_low(upper)
            }
        }
    }

    fn binary(&mut self, op: Binary, kind: Kind, x: Value, y: Value) -> Value {
        let float = matches!(kind, Kind::F32 | Kind::Half);
        match op {
            Binary::Add if float => self.b.ins().fadd(x, y),
            Binary::Add => self.b.ins().iadd(x, y),
            Binary::Sub if float => self.b.ins().fsub(x, y),
            Binary::Sub => self.b.ins().isub(x, y),
            Binary::Mul if float => self.b.ins().fmul(x, y),
            Binary::Mul => self.b.ins().imul(x, y),
            Binary::Div => self.b.ins().fdiv(x, y),
            Binary::Max if float => self.extreme(FloatCC::GreaterThan, x, y),
            Binary::Max => self.b.ins().smax(x, y),
            Binary::Min if float => self.extreme(FloatCC::LessThan, x, y),
            Binary::Min => self.b.ins().smin(x, y),
            Binary::And => self.b.ins().band(x, y),
            Binary::Or => self.b.ins().bor(x, y),
            Binary::Xor => self.b.ins().bxor(x, y),
            Binary::AndNot => self.b.ins().band_not(y, x),
            Binary::Join => self.join(x, y),
            Binary::JoinBits => self.join_bits(x, y),
        }
    }

    fn extreme(&mut self, code: FloatCC, x: Value, y: Value) -> Value {
        let first = self.b.ins().fcmp(code, x, y);
        if self.width == Width::Scalar {
            return self.b.ins().select(first, x, y);
        }
        let ty = self.b.func.dfg.value_type(x);
        let first = self.cast_bits(first, ty);
        self.b.ins().bitselect(first, x, y)
    }

    fn join(&mut self, lower: Value, upper: Value) -> Value {
        if self.width == Width::Scalar {
            return self.b.ins().fdemote(F32, lower);
        }
        let [lower, upper] = [lower, upper].map(|half| self.b.ins().fvdemote(half));
        self.shuffle(lower, upper, [0, 1, 4, 5])
    }

    fn join_bits(&mut self, lower: Value, upper: Value) -> Value {
        if self.width == Width::Scalar {
            let bits = self.cast_bits(lower, I64);
            return self.b.ins().ireduce(I32, bits);
        }
        let [lower, upper] = [lower, upper].map(|half| self.cast_bits(half, I32X4));
        self.shuffle(lower, upper, [0, 2, 4, 6])
    }

    fn compare(&mut self, op: Compare, kind: Kind, x: Value, y: Value) -> Value {
        if kind == Kind::F32 {
            let code = match op {
                Compare::Eq => FloatCC::Equal,
                Compare::Ne => FloatCC::NotEqual,
                Compare::Lt => FloatCC::LessThan,
                Compare::Le => FloatCC::LessThanOrEqual,
                Compare::Unordered => FloatCC::Unordered,
            };
            return self.b.ins().fcmp(code, x, y);
        }
        let code = match op {
            Compare::Eq => IntCC::Equal,
            Compare::Ne => IntCC::NotEqual,
            Compare::Lt => IntCC::SignedLessThan,
            Compare::Le => IntCC::SignedLessThanOrEqual,
            Compare::Unordered => unreachable!("integers have an order"),
        };
        self.b.ins().icmp(code, x, y)
    }

    /// Lanes `picks` (0 to 3 of `x`, 4 to 7 of `y`) of two vectors of 32-bit lanes.
    pub fn shuffle(&mut self, x: Value, y: Value, picks: [u8; 4]) -> Value {
        let ty = self.b.func.dfg.value_type(x);
        let (x, y) = (self.cast_bits(x, I8X16), self.cast_bits(y, I8X16));
        let bytes = picks.iter().flat_map(|p| (0..4).map(move |byte| 4 * p + byte));
        let mask: Vec<u8> = bytes.collect();
        let mask = self.b.func.dfg.immediates.push(mask.into());
        let shuffled = self.b.ins().shuffle(x, y, mask);
        self.cast_bits(shuffled, ty)
    }
}
