//! Straight-line code on lanes becomes instructions: one thread is one lane.
//!
//! A lane's `Half` is a double here; of a pair of halves only the lower one exists. Literals stay
//! operands. Where PTX has one instruction for several operations on lanes, it is taken.

use crate::ir::{
    B32, Builder, Compare, Convert, F32, F64, FloatOp, IntOp, LogicOp, MathOp, Pred, Value,
};
use dlc_kernel::lanes::{self, Binary, Kind, Lanes, Op, Shift, Unary, Vector};
use rustc_hash::FxHashMap;

/// A number in a thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Single precision.
    F32(Value<F32>),
    /// An integer or bits.
    I32(Value<B32>),
    /// A truth value.
    Mask(Value<Pred>),
    /// Double precision.
    Half(Value<F64>),
}

/// Writes the operations of a [`Lanes`] that are asked for, each once per scope.
#[derive(Debug, Default)]
pub struct Scope {
    /// What is computed; grows as kernels are written.
    pub lanes: Lanes,
    known: FxHashMap<Vector, Number>,
    /// In the order they became known.
    order: Vec<Vector>,
    inputs: u16,
}

impl Scope {
    /// A vector for what stands in a register.
    pub fn input(&mut self, number: Number) -> Vector {
        let vector = self.lanes.add(Op::Input(number.kind(), self.inputs));
        self.inputs = self.inputs.checked_add(1).expect("a kernel has fewer than 2^16 loads");
        self.remember(vector, number);
        vector
    }

    /// How much is known.
    pub fn mark(&self) -> usize {
        self.order.len()
    }

    /// Makes unknown again what became known since `mark`: where not all threads have come by.
    pub fn forget(&mut self, mark: usize) {
        for vector in self.order.drain(mark..) {
            self.known.remove(&vector);
        }
    }

    /// What `vector` is, written down if it was not.
    pub fn number(&mut self, b: &mut Builder, vector: Vector) -> Number {
        for v in self.missing(vector) {
            let number = self.write(b, v);
            self.remember(v, number);
        }
        self.known[&vector]
    }

    /// A single-precision number.
    pub fn f32(&mut self, b: &mut Builder, vector: Vector) -> Value<F32> {
        self.number(b, vector).f32()
    }

    /// An integer.
    pub fn i32(&mut self, b: &mut Builder, vector: Vector) -> Value<B32> {
        self.number(b, vector).i32()
    }

    /// A truth value.
    pub fn mask(&mut self, b: &mut Builder, vector: Vector) -> Value<Pred> {
        self.number(b, vector).mask()
    }

    fn remember(&mut self, vector: Vector, number: Number) {
        self.known.insert(vector, number);
        self.order.push(vector);
    }

    /// What `vector` needs and is not known, operands first.
    fn missing(&self, vector: Vector) -> Vec<Vector> {
        let mut seen = rustc_hash::FxHashSet::default();
        let (mut order, mut open) = (Vec::new(), vec![(vector, false)]);
        while let Some((v, is_ready)) = open.pop() {
            if is_ready {
                order.push(v);
            } else if !self.known.contains_key(&v) && seen.insert(v) {
                open.push((v, true));
                open.extend(self.needs(v).into_iter().map(|x| (x, false)));
            }
        }
        order
    }

    /// The operands that are really read.
    fn needs(&self, v: Vector) -> Vec<Vector> {
        match self.lanes.op(v) {
            Op::Binary(Binary::Join | Binary::JoinBits, low, _) => vec![low],
            op => match self.larger_or_nan(op) {
                Some((_, x, y)) => vec![x, y],
                None => op.operands().collect(),
            },
        }
    }

    /// The operation that `max(x, y) | max(y, x)` is, and `max(c, y)` of a number `c`.
    fn larger_or_nan(&self, op: Op) -> Option<(FloatOp, Vector, Vector)> {
        match op {
            Op::Binary(Binary::Or, one, other) => match [one, other].map(|v| self.lanes.op(v)) {
                [Op::Binary(op, x, y), Op::Binary(same, b, a)] if (op, x, y) == (same, a, b) => {
                    (self.lanes.kind(x) == Kind::F32).then_some((extreme(op)?, x, y))
                }
                _ => None,
            },
            Op::Binary(op, x, y) if self.lanes.kind(x) == Kind::F32 => {
                let number = lanes::math::constant(&self.lanes, x)?;
                (!number.is_nan()).then_some((extreme(op)?, x, y))
            }
            _ => None,
        }
    }

    fn write(&self, b: &mut Builder, v: Vector) -> Number {
        let op = self.lanes.op(v);
        if let Some((op, x, y)) = self.larger_or_nan(op) {
            let (x, y) = (self.known[&x].f32(), self.known[&y].f32());
            return Number::from(b.float(op, x, y));
        }
        let at = |v: Vector| self.known[&v];
        match op {
            Op::Const(kind, bits) => Number::constant(kind, bits),
            Op::Unary(op, x) => unary(b, op, at(x)),
            Op::Binary(op @ (Binary::Join | Binary::JoinBits), x, _) => joined(b, op, at(x)),
            Op::Binary(op, x, y) => binary(b, op, at(x), at(y)),
            Op::Shift(shift, x, by) => {
                let op = match shift {
                    Shift::Left => IntOp::Shl,
                    Shift::Right => IntOp::ShrU,
                    Shift::Arithmetic => IntOp::ShrS,
                };
                b.int(op, at(x).i32(), u32::from(by)).into()
            }
            Op::Pick(table, x) => pick(b, table, at(x).i32()),
            Op::Compare(cmp, x, y) => compare(b, cmp, at(x), at(y)),
            Op::Fma(x, y, z) => match at(x) {
                Number::Half(x) => b.fma64(x, at(y).half(), at(z).half()).into(),
                x => b.fma(x.f32(), at(y).f32(), at(z).f32()).into(),
            },
            Op::Select(mask, x, y) => select(b, at(mask).mask(), at(x), at(y)),
            Op::Uniform(..) | Op::Input(..) | Op::Carry(..) | Op::Index => {
                panic!("`{op}` stands in a register before it is read")
            }
            Op::Random(..) | Op::Within(..) => {
                panic!("random numbers are not computed on lanes here")
            }
        }
    }
}

impl Number {
    fn constant(kind: Kind, bits: u64) -> Number {
        match kind {
            Kind::F32 => Number::F32(Value::Literal(f32::from_bits(bits as u32))),
            Kind::I32 => Number::I32(Value::Literal(bits as u32)),
            Kind::Mask => Number::Mask(Value::Literal(bits != 0)),
            Kind::Half => Number::Half(Value::Literal(f64::from_bits(bits))),
        }
    }

    /// What it is on lanes.
    pub fn kind(self) -> Kind {
        match self {
            Number::F32(_) => Kind::F32,
            Number::I32(_) => Kind::I32,
            Number::Mask(_) => Kind::Mask,
            Number::Half(_) => Kind::Half,
        }
    }

    /// A single-precision number.
    ///
    /// # Panics
    /// If it is something else, as those below.
    pub fn f32(self) -> Value<F32> {
        match self {
            Number::F32(x) => x,
            _ => panic!("{self:?} is no f32"),
        }
    }

    /// An integer.
    pub fn i32(self) -> Value<B32> {
        match self {
            Number::I32(x) => x,
            _ => panic!("{self:?} is no integer"),
        }
    }

    /// A truth value.
    pub fn mask(self) -> Value<Pred> {
        match self {
            Number::Mask(x) => x,
            _ => panic!("{self:?} is no truth value"),
        }
    }

    fn half(self) -> Value<F64> {
        match self {
            Number::Half(x) => x,
            _ => panic!("{self:?} is no f64"),
        }
    }

    /// Its bits.
    fn bits(self, b: &mut Builder) -> Value<B32> {
        match self {
            Number::F32(Value::Reg(x)) => b.bits(x).into(),
            Number::F32(Value::Literal(x)) => x.to_bits().into(),
            Number::I32(x) => x,
            Number::Mask(Value::Reg(x)) => b.select32(x, -1, 0).into(),
            Number::Mask(Value::Literal(x)) => if x { -1 } else { 0 }.into(),
            Number::Half(_) => panic!("{self:?} has no 32 bits"),
        }
    }
}

macro_rules! numbers {
    ($($register:ident $variant:ident),+) => {$(
        impl From<$register> for Number {
            fn from(register: $register) -> Number {
                Number::$variant(Value::Reg(register))
            }
        }
    )+};
}

numbers!(F32 F32, B32 I32, Pred Mask, F64 Half);

const fn extreme(op: Binary) -> Option<FloatOp> {
    match op {
        Binary::Max => Some(FloatOp::Max),
        Binary::Min => Some(FloatOp::Min),
        _ => None,
    }
}

fn unary(b: &mut Builder, op: Unary, x: Number) -> Number {
    match op {
        Unary::Sqrt => match x {
            Number::Half(x) => b.sqrt64(x).into(),
            x => b.math(MathOp::Sqrt, x.f32()).into(),
        },
        Unary::Nearest => b.math(MathOp::Round, x.f32()).into(),
        Unary::Floor => b.math(MathOp::Floor, x.f32()).into(),
        Unary::Ceil => b.math(MathOp::Ceil, x.f32()).into(),
        Unary::ToFloat => {
            let src = in_register(b, x.i32());
            b.convert(|dst| Convert::S32ToF32 { dst, src }).into()
        }
        Unary::ToInt => {
            let src = float_in_register(b, x.f32());
            b.convert(|dst| Convert::F32ToS32 { dst, src }).into()
        }
        Unary::AsInt => Number::I32(x.bits(b)),
        Unary::AsFloat => {
            let bits = in_register(b, x.i32());
            b.from_bits(bits).into()
        }
        Unary::Not => b.not(x.mask()).into(),
        Unary::Lower | Unary::Upper => {
            let src = float_in_register(b, x.f32());
            b.convert(|dst| Convert::F32ToF64 { dst, src }).into()
        }
    }
}

fn in_register(b: &mut Builder, x: Value<B32>) -> B32 {
    x.register().unwrap_or_else(|| b.mov32(x))
}

fn float_in_register(b: &mut Builder, x: Value<F32>) -> F32 {
    x.register().unwrap_or_else(|| b.mov_f32(x))
}

fn joined(b: &mut Builder, op: Binary, x: Number) -> Number {
    let src = x.half();
    let src = src.register().unwrap_or_else(|| b.float64(FloatOp::Add, src, 0.0));
    match op {
        Binary::Join => b.convert(|dst| Convert::F64ToF32 { dst, src }).into(),
        _ => b.convert(|dst| Convert::LowBits { dst, src }).into(),
    }
}

fn binary(b: &mut Builder, op: Binary, x: Number, y: Number) -> Number {
    match (x, y) {
        (Number::F32(x), Number::F32(y)) => float_binary(b, op, x, y),
        (Number::I32(x), Number::I32(y)) => int_binary(b, op, x, y).into(),
        (Number::Mask(x), Number::Mask(y)) => mask_binary(b, op, x, y).into(),
        _ => double_binary(b, op, x.half(), y.half()).into(),
    }
}

fn float_binary(b: &mut Builder, op: Binary, x: Value<F32>, y: Value<F32>) -> Number {
    let is_sign = |v| matches!(v, Value::Literal(z) if f32::to_bits(z) == f32::to_bits(-0.0));
    match op {
        Binary::Add => b.float(FloatOp::Add, x, y).into(),
        Binary::Sub => b.float(FloatOp::Sub, x, y).into(),
        Binary::Mul => b.float(FloatOp::Mul, x, y).into(),
        Binary::Div => b.float(FloatOp::Div, x, y).into(),
        Binary::Max | Binary::Min => {
            let cmp = if op == Binary::Max { Compare::Gt } else { Compare::Lt };
            let first = b.set_float(cmp, x, y);
            b.select_f32(first, x, y).into()
        }
        Binary::AndNot if is_sign(x) => b.math(MathOp::Abs, y).into(),
        Binary::Xor if is_sign(y) => b.math(MathOp::Neg, x).into(),
        _ => {
            let (x, y) = (Number::F32(x).bits(b), Number::F32(y).bits(b));
            let bits = int_binary(b, op, x, y);
            b.from_bits(bits).into()
        }
    }
}

fn int_binary(b: &mut Builder, op: Binary, x: Value<B32>, y: Value<B32>) -> B32 {
    let op = match op {
        Binary::Add => IntOp::Add,
        Binary::Sub => IntOp::Sub,
        Binary::Mul => IntOp::Mul,
        Binary::Max => IntOp::MaxS,
        Binary::Min => IntOp::MinS,
        Binary::And => IntOp::And,
        Binary::Or => IntOp::Or,
        Binary::Xor => IntOp::Xor,
        Binary::AndNot => {
            let not = b.int(IntOp::Xor, x, -1);
            return b.int(IntOp::And, not, y);
        }
        Binary::Div | Binary::Join | Binary::JoinBits => panic!("`{op:?}` takes no integers"),
    };
    b.int(op, x, y)
}

fn mask_binary(b: &mut Builder, op: Binary, x: Value<Pred>, y: Value<Pred>) -> Pred {
    match op {
        Binary::And => b.logic(LogicOp::And, x, y),
        Binary::Or => b.logic(LogicOp::Or, x, y),
        Binary::Xor => b.logic(LogicOp::Xor, x, y),
        Binary::AndNot => {
            let not = b.not(x);
            b.logic(LogicOp::And, not, y)
        }
        _ => panic!("`{op:?}` takes no truth values"),
    }
}

fn double_binary(b: &mut Builder, op: Binary, x: Value<F64>, y: Value<F64>) -> F64 {
    match op {
        Binary::Add => b.float64(FloatOp::Add, x, y),
        Binary::Sub => b.float64(FloatOp::Sub, x, y),
        Binary::Mul => b.float64(FloatOp::Mul, x, y),
        Binary::Div => b.float64(FloatOp::Div, x, y),
        Binary::Max | Binary::Min => {
            let cmp = if op == Binary::Max { Compare::Gt } else { Compare::Lt };
            let first = b.set_float64(cmp, x, y);
            b.select_f64(first, x, y)
        }
        _ => panic!("`{op:?}` takes no doubles"),
    }
}

/// The entry that the low two bits of `x` pick.
fn pick(b: &mut Builder, table: [u32; 4], x: Value<B32>) -> Number {
    let [low, high] = [1, 2].map(|bit| {
        let bit = b.int(IntOp::And, x, bit);
        b.set_int(Compare::Ne, bit, 0)
    });
    let even = b.select32(high, table[2], table[0]);
    let odd = b.select32(high, table[3], table[1]);
    b.select32(low, odd, even).into()
}

fn compare(b: &mut Builder, cmp: lanes::Compare, x: Number, y: Number) -> Number {
    let kind = match cmp {
        lanes::Compare::Eq => Compare::Eq,
        lanes::Compare::Ne => Compare::Ne,
        lanes::Compare::Lt => Compare::Lt,
        lanes::Compare::Le => Compare::Le,
        lanes::Compare::Unordered => return b.is_nan(x.f32(), y.f32()).into(),
    };
    match (x, y) {
        (Number::I32(x), y) => b.set_int(kind, x, y.i32()).into(),
        _ => b.set_float(kind, x.f32(), y.f32()).into(),
    }
}

fn select(b: &mut Builder, mask: Value<Pred>, x: Number, y: Number) -> Number {
    let pred = match mask {
        Value::Reg(pred) => pred,
        Value::Literal(holds) => return if holds { x } else { y },
    };
    match (x, y) {
        (Number::F32(x), y) => b.select_f32(pred, x, y.f32()).into(),
        (Number::I32(x), y) => b.select32(pred, x, y.i32()).into(),
        (Number::Mask(x), y) => {
            let (x, y) = (b.logic(LogicOp::And, pred, x), {
                let not = b.not(pred);
                b.logic(LogicOp::And, not, y.mask())
            });
            b.logic(LogicOp::Or, x, y).into()
        }
        (Number::Half(x), y) => b.select_f64(pred, x, y.half()).into(),
    }
}
