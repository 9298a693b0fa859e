//! Straight-line code on lanes: what is computed for every element, whatever the width of a
//! target's vectors. The one place where the elementary functions are written.
//!
//! A [`Lanes`] is one hash-consed list of operations, operands before users. A [`Vector`] is one
//! of them: a value for each lane. Lanes are 32 bits wide; where that is not precise enough, one
//! half of the lanes at a time is computed with as f64 ([`Kind::Half`]). The elementary functions
//! are written in it once ([`math`], [`pow`]), and so are the scalar operations of kernels ([`ops`]).

pub mod math;
pub mod ops;
pub mod pow;
pub mod sign;

use rustc_hash::FxHashMap;
use sign::Sign;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A value for each lane: an operation of a [`Lanes`], printed `v3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vector(pub u32);

/// What the lanes of a vector hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A number.
    F32,
    /// An integer, or bits.
    I32,
    /// A truth value: all ones or all zeros.
    Mask,
    /// One half of the lanes as f64.
    Half,
}

/// Operations on one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    /// Square root (`F32`, `Half`).
    Sqrt,
    /// Nearest integer, ties to even (`F32`).
    Nearest,
    /// Largest integer not above (`F32`).
    Floor,
    /// Smallest integer not below (`F32`).
    Ceil,
    /// `I32` to `F32`.
    ToFloat,
    /// `F32` to `I32`, truncated; anything where that is out of range.
    ToInt,
    /// The bits of an `F32` or a `Mask`, as `I32`.
    AsInt,
    /// The `F32` of these bits.
    AsFloat,
    /// Negation of a `Mask`.
    Not,
    /// The lower half of the lanes (`F32`) as `Half`.
    Lower,
    /// The upper half.
    Upper,
}

/// Operations on two vectors of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    /// Sum (`F32`, `I32`, `Half`).
    Add,
    /// Difference (`F32`, `I32`, `Half`).
    Sub,
    /// Product (`F32`, `I32`, `Half`).
    Mul,
    /// Quotient (`F32`, `Half`).
    Div,
    /// `x > y ? x : y` (`F32`, `I32`, `Half`): the second if either is NaN.
    Max,
    /// `x < y ? x : y` (`F32`, `I32`, `Half`): the second if either is NaN.
    Min,
    /// Bits in both (all but `Half`).
    And,
    /// Bits in either (all but `Half`).
    Or,
    /// Bits in one (all but `Half`).
    Xor,
    /// Bits in the second that are not in the first (all but `Half`).
    AndNot,
    /// `F32` lanes of two halves, lower first.
    Join,
    /// The low 32 bits of the lanes of two halves, lower first.
    JoinBits,
}

/// Shifts of `I32` by a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shift {
    /// Towards the high end.
    Left,
    /// Towards the low end, zeros follow.
    Right,
    /// Towards the low end, the sign follows.
    Arithmetic,
}

/// Comparisons; all but `Ne` and `Unordered` are false if either side is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compare {
    /// `x == y`.
    Eq,
    /// `x != y`.
    Ne,
    /// `x < y`, signed.
    Lt,
    /// `x <= y`, signed.
    Le,
    /// Either is NaN (`F32`).
    Unordered,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// These bits in all lanes; `Half` has 64 of them.
    Const(Kind, u64),
    /// A scalar that is given, in all lanes.
    Uniform(Kind, u16),
    /// A vector that is given.
    Input(Kind, u16),
    /// The state of a fold before this vector.
    Carry(Kind, u16),
    /// The number of the lane's element, from 0 (`I32`).
    Index,
    /// On one vector.
    Unary(Unary, Vector),
    /// On two.
    Binary(Binary, Vector, Vector),
    /// By a constant.
    Shift(Shift, Vector, u8),
    /// The entry of a table (`I32`) that the low two bits of an `I32` pick.
    Pick([u32; 4], Vector),
    /// Of every four lanes of `.0` that which the low two bits of `.1` pick, both `I32`. Both are about
    /// elements that follow each other: where a lane is alone, it picks itself.
    Within(Vector, Vector),
    /// Gives a `Mask`.
    Compare(Compare, Vector, Vector),
    /// `.0 * .1 + .2`, rounded once where the level can (`F32`, `Half`).
    Fma(Vector, Vector, Vector),
    /// `.0 ? .1 : .2`.
    Select(Vector, Vector, Vector),
    /// The random word ([`crate::philox`]) of a site, a seed, a step and an element, all `I32`. Seed
    /// and step are the same in all lanes. Every four lanes get the four words that are made together
    /// with that of their first element: their own, if its number is a multiple of four.
    Random(u64, Vector, Vector, Vector),
}

/// Straight-line code.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    ops: Vec<Op>,
    kinds: Vec<Kind>,
    signs: Vec<Sign>,
    known: FxHashMap<Op, Vector>,
}

impl PartialEq for Lanes {
    fn eq(&self, other: &Lanes) -> bool {
        self.ops == other.ops
    }
}

impl Eq for Lanes {}

impl Hash for Lanes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ops.hash(state);
    }
}

impl Op {
    /// What it reads, in order.
    pub fn operands(self) -> impl DoubleEndedIterator<Item = Vector> {
        let all = match self {
            Op::Const(..) | Op::Uniform(..) | Op::Input(..) | Op::Carry(..) | Op::Index => {
                [None; 3]
            }
            Op::Unary(_, x) | Op::Shift(_, x, _) | Op::Pick(_, x) => [Some(x), None, None],
            Op::Binary(_, x, y) | Op::Compare(_, x, y) | Op::Within(x, y) => {
                [Some(x), Some(y), None]
            }
            Op::Fma(x, y, z) | Op::Select(x, y, z) | Op::Random(_, x, y, z) => {
                [Some(x), Some(y), Some(z)]
            }
        };
        all.into_iter().flatten()
    }
}

impl Op {
    /// The same operation on other operands.
    pub fn map(self, mut new: impl FnMut(Vector) -> Vector) -> Op {
        match self {
            Op::Unary(op, x) => Op::Unary(op, new(x)),
            Op::Binary(op, x, y) => Op::Binary(op, new(x), new(y)),
            Op::Shift(shift, x, by) => Op::Shift(shift, new(x), by),
            Op::Pick(table, x) => Op::Pick(table, new(x)),
            Op::Within(x, y) => Op::Within(new(x), new(y)),
            Op::Compare(op, x, y) => Op::Compare(op, new(x), new(y)),
            Op::Fma(x, y, z) => Op::Fma(new(x), new(y), new(z)),
            Op::Select(x, y, z) => Op::Select(new(x), new(y), new(z)),
            Op::Random(site, x, y, z) => Op::Random(site, new(x), new(y), new(z)),
            Op::Const(..) | Op::Uniform(..) | Op::Input(..) | Op::Carry(..) | Op::Index => self,
        }
    }
}

impl Lanes {
    /// The number of operations.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operation that computes `v`.
    pub fn op(&self, v: Vector) -> Op {
        self.ops[v.0 as usize]
    }

    /// What the lanes of `v` hold.
    pub fn kind(&self, v: Vector) -> Kind {
        self.kinds[v.0 as usize]
    }

    /// What is known about the signs of the lanes of `v`.
    pub fn sign(&self, v: Vector) -> Sign {
        self.signs[v.0 as usize]
    }

    /// Makes it known that no lane of `v` is above 0.
    pub fn assume_not_positive(&mut self, v: Vector) {
        self.signs[v.0 as usize] = Sign::NotPositive;
    }

    /// Adds an operation, unless it is there already.
    ///
    /// # Panics
    /// If its operands are of kinds it does not take.
    pub fn add(&mut self, op: Op) -> Vector {
        if let Some(&v) = self.known.get(&op) {
            return v;
        }
        let kind = self.kind_of(op);
        let v = Vector(self.ops.len() as u32);
        self.ops.push(op);
        self.kinds.push(kind);
        self.signs.push(sign::of(self, op));
        self.known.insert(op, v);
        v
    }

    /// `roots` and everything they read, operands first.
    pub fn reachable(&self, roots: &[Vector]) -> Vec<Vector> {
        let mut seen = vec![false; self.ops.len()];
        let mut open = roots.to_vec();
        while let Some(v) = open.pop() {
            if !std::mem::replace(&mut seen[v.0 as usize], true) {
                open.extend(self.op(v).operands());
            }
        }
        (0..seen.len()).filter(|&i| seen[i]).map(|i| Vector(i as u32)).collect()
    }

    /// [`Lanes::reachable`] in another order: each operation just before the first that needs it.
    pub fn by_need(&self, roots: &[Vector]) -> Vec<Vector> {
        let (mut seen, mut order) = (vec![false; self.ops.len()], Vec::new());
        let mut open: Vec<(Vector, bool)> = roots.iter().rev().map(|&v| (v, false)).collect();
        while let Some((v, is_ready)) = open.pop() {
            if is_ready {
                order.push(v);
            } else if !std::mem::replace(&mut seen[v.0 as usize], true) {
                open.push((v, true));
                open.extend(self.op(v).operands().rev().map(|x| (x, false)));
            }
        }
        order
    }

    fn kind_of(&self, op: Op) -> Kind {
        let kinds = op.operands().map(|v| self.kind(v)).collect::<Vec<_>>();
        let kind = match (op, kinds.as_slice()) {
            (Op::Const(kind, _) | Op::Uniform(kind, _) | Op::Input(kind, _), []) => Some(kind),
            (Op::Carry(kind, _), []) => Some(kind),
            (Op::Index, []) | (Op::Shift(..) | Op::Pick(..), [Kind::I32]) => Some(Kind::I32),
            (Op::Within(..), [Kind::I32, Kind::I32]) => Some(Kind::I32),
            (Op::Unary(op, _), &[x]) => unary_kind(op, x),
            (Op::Binary(op, ..), &[x, y]) if x == y => binary_kind(op, x),
            (Op::Compare(..), [Kind::F32, Kind::F32] | [Kind::I32, Kind::I32]) => Some(Kind::Mask),
            (Op::Fma(..), &[x @ (Kind::F32 | Kind::Half), y, z]) if x == y && y == z => Some(x),
            (Op::Select(..), &[Kind::Mask, x, y]) if x == y && x != Kind::Half => Some(x),
            (Op::Random(..), [Kind::I32, Kind::I32, Kind::I32]) => Some(Kind::I32),
            _ => None,
        };
        kind.unwrap_or_else(|| panic!("`{op}` does not take {kinds:?}"))
    }
}

fn unary_kind(op: Unary, x: Kind) -> Option<Kind> {
    match (op, x) {
        (Unary::Sqrt, Kind::F32 | Kind::Half) => Some(x),
        (Unary::Nearest | Unary::Floor | Unary::Ceil, Kind::F32) => Some(x),
        (Unary::ToFloat | Unary::AsFloat, Kind::I32) => Some(Kind::F32),
        (Unary::ToInt, Kind::F32) => Some(Kind::I32),
        (Unary::AsInt, Kind::F32 | Kind::Mask) => Some(Kind::I32),
        (Unary::Not, Kind::Mask) => Some(Kind::Mask),
        (Unary::Lower | Unary::Upper, Kind::F32) => Some(Kind::Half),
        _ => None,
    }
}

fn binary_kind(op: Binary, x: Kind) -> Option<Kind> {
    use Binary::*;
    match (op, x) {
        (Add | Sub | Mul | Max | Min, Kind::F32 | Kind::I32 | Kind::Half) => Some(x),
        (Div, Kind::F32 | Kind::Half) => Some(x),
        (And | Or | Xor | AndNot, Kind::F32 | Kind::I32 | Kind::Mask) => Some(x),
        (Join, Kind::Half) => Some(Kind::F32),
        (JoinBits, Kind::Half) => Some(Kind::I32),
        _ => None,
    }
}

/// Short forms, one for each operation.
impl Lanes {
    /// A constant `F32`.
    pub fn float(&mut self, value: f32) -> Vector {
        self.add(Op::Const(Kind::F32, u64::from(value.to_bits())))
    }

    /// A constant `I32`.
    pub fn int(&mut self, value: i32) -> Vector {
        self.add(Op::Const(Kind::I32, u64::from(value as u32)))
    }

    /// A constant `Mask`.
    pub fn truth(&mut self, value: bool) -> Vector {
        self.add(Op::Const(Kind::Mask, if value { u64::from(u32::MAX) } else { 0 }))
    }

    /// A constant `Half`.
    pub fn wide(&mut self, value: f64) -> Vector {
        self.add(Op::Const(Kind::Half, value.to_bits()))
    }

    /// An operation on one vector.
    pub fn unary(&mut self, op: Unary, x: Vector) -> Vector {
        self.add(Op::Unary(op, x))
    }

    /// An operation on two vectors.
    pub fn binary(&mut self, op: Binary, x: Vector, y: Vector) -> Vector {
        self.add(Op::Binary(op, x, y))
    }

    /// `x + y`.
    pub fn sum(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Add, x, y)
    }

    /// `x - y`.
    pub fn difference(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Sub, x, y)
    }

    /// `x * y`.
    pub fn product(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Mul, x, y)
    }

    /// `x / y`.
    pub fn quotient(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Div, x, y)
    }

    /// `x > y ? x : y`.
    pub fn max(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Max, x, y)
    }

    /// `x < y ? x : y`.
    pub fn min(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Min, x, y)
    }

    /// The bits in both.
    pub fn and(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::And, x, y)
    }

    /// The bits in either.
    pub fn or(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Or, x, y)
    }

    /// The bits in one of both.
    pub fn xor(&mut self, x: Vector, y: Vector) -> Vector {
        self.binary(Binary::Xor, x, y)
    }

    /// A shift by a constant.
    pub fn shift(&mut self, shift: Shift, x: Vector, by: u8) -> Vector {
        self.add(Op::Shift(shift, x, by))
    }

    /// One of four entries of a table.
    pub fn pick(&mut self, table: [u32; 4], x: Vector) -> Vector {
        self.add(Op::Pick(table, x))
    }

    /// A comparison.
    pub fn compare(&mut self, compare: Compare, x: Vector, y: Vector) -> Vector {
        self.add(Op::Compare(compare, x, y))
    }

    /// `x * y + z`.
    pub fn fma(&mut self, x: Vector, y: Vector, z: Vector) -> Vector {
        self.add(Op::Fma(x, y, z))
    }

    /// `mask ? x : y`.
    pub fn select(&mut self, mask: Vector, x: Vector, y: Vector) -> Vector {
        self.add(Op::Select(mask, x, y))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Const(Kind::F32, bits) => write!(f, "{:?}", f32::from_bits(*bits as u32)),
            Op::Const(Kind::Half, bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Op::Const(_, bits) => write!(f, "{:#x}", *bits as u32),
            Op::Uniform(_, at) => write!(f, "uniform {at}"),
            Op::Input(_, at) => write!(f, "input {at}"),
            Op::Carry(_, at) => write!(f, "carry {at}"),
            Op::Index => f.write_str("index"),
            Op::Unary(op, ..) => fmt_with(f, &format!("{op:?}"), *self),
            Op::Binary(op, ..) => fmt_with(f, &format!("{op:?}"), *self),
            Op::Compare(op, ..) => fmt_with(f, &format!("{op:?}"), *self),
            Op::Shift(op, x, by) => write!(f, "shift_{op:?} v{}, {by}", x.0),
            Op::Pick(table, x) => write!(f, "pick {table:x?}, v{}", x.0),
            Op::Within(..) => fmt_with(f, "within", *self),
            Op::Fma(..) => fmt_with(f, "fma", *self),
            Op::Select(..) => fmt_with(f, "select", *self),
            Op::Random(site, ..) => fmt_with(f, &format!("random {site:#x}"), *self),
        }
    }
}

fn fmt_with(f: &mut fmt::Formatter<'_>, name: &str, op: Op) -> fmt::Result {
    let operands: Vec<String> = op.operands().map(|v| format!("v{}", v.0)).collect();
    write!(f, "{} {}", name.to_lowercase(), operands.join(", "))
}

impl fmt::Display for Lanes {
    /// One line for each operation: `v3 f32 = fma v0, v1, v2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (op, kind)) in self.ops.iter().zip(&self.kinds).enumerate() {
            let kind = format!("{kind:?}").to_lowercase();
            writeln!(f, "  v{i} {kind} = {op}")?;
        }
        Ok(())
    }
}
