//! A kernel with every instruction.

use dlc_ptx::ir::{
    Address, AtomicOp, B16, B32, B64, Bar, Builder, CacheHint, Class, Compare, Convert, F32, F64,
    FloatOp, Inst, IntOp, Kernel, LogicOp, MathOp, MemType, MmaShape, Pred, Reg, Register, Shuffle,
    Space, Special, Value, Vote,
};

/// All variants of an enum without fields; does not compile if one is missing.
macro_rules! all {
    ($name:ident of $ty:ident: $($variant:ident),+ $(,)?) => {
        pub const $name: &[$ty] = &[$($ty::$variant),+];
        const _: fn($ty) = |value| match value { $($ty::$variant => {})+ };
    };
}

all!(INT_OPS of IntOp: Add, Sub, Mul, MulHiU, DivS, DivU, RemS, RemU, MinS, MaxS, MinU, MaxU, And,
    Or, Xor, Shl, ShrU, ShrS);
all!(FLOAT_OPS of FloatOp: Add, Sub, Mul, Div, Min, Max);
all!(MATH_OPS of MathOp: Neg, Abs, Sqrt, Rcp, Rsqrt, Ex2, Lg2, Tanh, Floor, Ceil, Round, Trunc);
all!(COMPARES of Compare: Eq, Ne, Lt, Le, Gt, Ge);
all!(LOGIC_OPS of LogicOp: And, Or, Xor);
all!(SPECIALS of Special: Thread, BlockX, BlockY, BlockZ, BlocksX, Lane);
all!(SHUFFLES of Shuffle: Butterfly, Down, Up, Index);
all!(VOTES of Vote: Any, All);
all!(BARS of Bar: Block, Warp);
all!(MEM_TYPES of MemType: U8, S8, B16, B32, B64, F32);
all!(HINTS of CacheHint: None, ReadOnly, Streaming);
all!(SHAPES of MmaShape: F16, Bf16, Tf32);

/// The kinds of variants of an enum with fields; does not compile if one is missing.
macro_rules! kinds {
    ($name:ident of $ty:ident by $kind:ident: $($variant:ident),+ $(,)?) => {
        pub const $name: &[&str] = &[$(stringify!($variant)),+];
        pub fn $kind(value: &$ty) -> &'static str {
            match value { $($ty::$variant { .. } => stringify!($variant)),+ }
        }
    };
}

kinds!(INSTS of Inst by inst_kind: Mov32, Mov64, MovF32, Bits, FromBits, Pack, Unpack, Special,
    Shared, Param, Int, Int64, Mad, MadWide, MulWide, Lop3, Float, Fma, Math, Float64, Sqrt64,
    Fma64, Convert, SetInt, SetInt64, SetFloat, SetFloat64, IsNan, Logic, Not, Select32, Select64,
    SelectF32, SelectF64, Load, Store, Atomic, Shuffle, Vote, Ballot, Barrier, CopyAsync,
    CommitGroup, WaitGroup, LoadMatrix, Mma, Trap);
kinds!(CONVERTS of Convert by convert_kind: F32ToS32, F32ToU32, S32ToF32, U32ToF32, S32To64,
    U32To64, Low, F32ToF64, F64ToF32, LowBits, F16ToF32, F32ToF16, Bf16ToF32, F32ToBf16,
    F32ToTf32, PackF16, PackBf16);
kinds!(ATOMICS of AtomicOp by atomic_kind: Add, Min, Max, CompareAndSwap);

/// A value of each class to take as an operand: a register and, where there are any, a literal.
struct Operands {
    p: [Value<Pred>; 2],
    r: [Value<B32>; 2],
    d: [Value<B64>; 2],
    f: [Value<F32>; 2],
    g: [Value<F64>; 2],
    pred: Pred,
    half: B16,
    word: B32,
    long: B64,
    float: F32,
    double: F64,
    global: Address,
    shared: Address,
}

impl Operands {
    fn new(b: &mut Builder) -> Operands {
        let buffer: B64 = b.param("buffer");
        let (word, float): (B32, F32) = (b.param("word"), b.param("number"));
        let at = b.reserve_shared(1024);
        let shared = b.shared_base(at);
        let long = b.mov64(5u64);
        let double = b.convert(|dst| Convert::F32ToF64 { dst, src: float });
        let half = b.convert(|dst| Convert::F32ToF16 { dst, src: float });
        let pred = b.set_int(Compare::Lt, word, 7);
        Operands {
            p: [pred.into(), true.into()],
            r: [word.into(), (-3).into()],
            d: [long.into(), (-5i64).into()],
            f: [float.into(), (-0.5).into()],
            g: [double.into(), 0.1.into()],
            pred,
            half,
            word,
            long,
            float,
            double,
            global: Address::global(buffer, 0),
            shared: Address::shared(shared, 0),
        }
    }

    fn of(&self, class: Class) -> Reg {
        match class {
            Class::Pred => self.pred.into(),
            Class::B16 => self.half.into(),
            Class::B32 => self.word.into(),
            Class::B64 => self.long.into(),
            Class::F32 => self.float.into(),
            Class::F64 => self.double.into(),
        }
    }
}

/// A kernel with every instruction, every value of every field, and literals wherever they may be.
/// `buffer` is written; what is loaded as read-only is `constant`.
pub fn kernel() -> Kernel {
    let mut b = Builder::new("every");
    let o = Operands::new(&mut b);
    let constant: B64 = b.param("constant");
    moves(&mut b, &o);
    integers(&mut b, &o);
    floats(&mut b, &o);
    conversions(&mut b, &o);
    comparisons(&mut b, &o);
    memory(&mut b, &o, Address::global(constant, 16));
    lanes(&mut b, &o);
    copies(&mut b, &o);
    matrices(&mut b, &o);
    control(&mut b, &o);
    b.finish(64, 2)
}

fn moves(b: &mut Builder, o: &Operands) {
    o.r.iter().for_each(|&src| _ = b.mov32(src));
    o.d.iter().for_each(|&src| _ = b.mov64(src));
    o.f.iter().for_each(|&src| _ = b.mov_f32(src));
    for special in [f32::INFINITY, f32::NAN, -0.0, 1e-45] {
        b.mov_f32(special);
    }
    let bits = b.bits(o.float);
    b.from_bits(bits);
    b.pack(o.half, o.half);
    b.unpack(o.word);
    SPECIALS.iter().for_each(|&source| _ = b.special(source));
}

fn integers(b: &mut Builder, o: &Operands) {
    for &op in INT_OPS {
        for (a, c) in pairs(o.r) {
            b.int(op, a, c);
        }
        b.int64(op, o.long, 3u64);
        if !matches!(op, IntOp::Shl | IntOp::ShrU | IntOp::ShrS) {
            b.int64(op, o.d[1], o.long);
        }
    }
    for (x, y) in pairs(o.r) {
        b.mad(x, y, o.r[1]);
        b.mad_wide(x, y, o.d[1]);
        b.mul_wide_u(x, y);
        let dst = b.fresh();
        b.push(Inst::MulWide { signed: true, dst, a: x, b: y });
        let dst = b.fresh();
        b.push(Inst::MadWide { signed: false, dst, a: x, b: y, c: o.d[0] });
        let dst = b.fresh();
        b.push(Inst::Lop3 { dst, a: x, b: y, c: o.r[1], table: 0xe8 });
    }
}

fn floats(b: &mut Builder, o: &Operands) {
    for &op in FLOAT_OPS {
        for (x, y) in pairs(o.f) {
            b.float(op, x, y);
        }
        if !matches!(op, FloatOp::Min | FloatOp::Max) {
            for (x, y) in pairs(o.g) {
                b.float64(op, x, y);
            }
        }
    }
    for &op in MATH_OPS {
        b.math(op, o.float);
        b.math(op, 2.5);
    }
    for (x, y) in pairs(o.f) {
        b.fma(x, y, o.f[1]);
    }
    for (x, y) in pairs(o.g) {
        b.fma64(x, y, o.g[1]);
        b.sqrt64(x);
    }
}

fn conversions(b: &mut Builder, o: &Operands) {
    let (half, word, float) = (o.half, o.word, o.float);
    b.convert(|dst| Convert::F32ToS32 { dst, src: float });
    b.convert(|dst| Convert::F32ToU32 { dst, src: float });
    b.convert(|dst| Convert::S32ToF32 { dst, src: word });
    b.convert(|dst| Convert::U32ToF32 { dst, src: word });
    b.convert(|dst| Convert::S32To64 { dst, src: word });
    b.convert(|dst| Convert::U32To64 { dst, src: word });
    b.convert(|dst| Convert::Low { dst, src: o.long });
    b.convert(|dst| Convert::F32ToF64 { dst, src: float });
    b.convert(|dst| Convert::F64ToF32 { dst, src: o.double });
    b.convert(|dst| Convert::LowBits { dst, src: o.double });
    b.convert(|dst| Convert::F16ToF32 { dst, src: half });
    b.convert(|dst| Convert::F32ToF16 { dst, src: float });
    b.convert(|dst| Convert::Bf16ToF32 { dst, src: half });
    b.convert(|dst| Convert::F32ToBf16 { dst, src: float });
    b.convert(|dst| Convert::F32ToTf32 { dst, src: float });
    b.convert(|dst| Convert::PackF16 { dst, low: float, high: float });
    b.convert(|dst| Convert::PackBf16 { dst, low: float, high: float });
}

fn comparisons(b: &mut Builder, o: &Operands) {
    for &cmp in COMPARES {
        for (x, y) in pairs(o.r) {
            b.set_int(cmp, x, y);
            b.set_uint(cmp, x, y);
        }
        for (x, y) in pairs(o.d) {
            for signed in [false, true] {
                let dst = b.fresh();
                b.push(Inst::SetInt64 { cmp, signed, dst, a: x, b: y });
            }
        }
        pairs(o.f).for_each(|(x, y)| _ = b.set_float(cmp, x, y));
        pairs(o.g).for_each(|(x, y)| _ = b.set_float64(cmp, x, y));
    }
    pairs(o.f).for_each(|(x, y)| _ = b.is_nan(x, y));
    for &op in LOGIC_OPS {
        pairs(o.p).for_each(|(x, y)| _ = b.logic(op, x, y));
    }
    o.p.iter().for_each(|&x| _ = b.not(x));
    pairs(o.r).for_each(|(x, y)| _ = b.select32(o.pred, x, y));
    for (x, y) in pairs(o.d) {
        let dst = b.fresh();
        b.push(Inst::Select64 { dst, a: x, b: y, pred: o.pred });
    }
    pairs(o.f).for_each(|(x, y)| _ = b.select_f32(o.pred, x, y));
    pairs(o.g).for_each(|(x, y)| _ = b.select_f64(o.pred, x, y));
}

fn memory(b: &mut Builder, o: &Operands, constant: Address) {
    for (space, at) in [(Space::Global, o.global), (Space::Shared, o.shared)] {
        for &ty in MEM_TYPES {
            for count in [1, 2, 4].into_iter().filter(|n| n * ty.bytes() <= 16) {
                b.load(space, ty, count as usize, at, CacheHint::None);
                b.store(space, ty, at, &vec![o.of(ty.class()); count as usize]);
            }
        }
    }
    HINTS.iter().for_each(|&hint| _ = b.load(Space::Global, MemType::F32, 4, constant, hint));
    for value in o.r {
        for op in [AtomicOp::Add, AtomicOp::Min, AtomicOp::Max] {
            b.atomic(op, o.global, value);
        }
        pairs(o.r)
            .for_each(|(old, _)| _ = b.atomic(AtomicOp::CompareAndSwap(old), o.global, value));
    }
}

fn lanes(b: &mut Builder, o: &Operands) {
    for &mode in SHUFFLES {
        for width in [32, 16, 1] {
            b.shuffle(mode, o.word, o.word, width);
            b.shuffle(mode, o.float, 1, width);
        }
    }
    VOTES.iter().for_each(|&vote| _ = b.vote(vote, o.pred));
    let dst = b.fresh();
    b.push(Inst::Ballot { dst, pred: o.pred });
    BARS.iter().for_each(|&bar| b.push(Inst::Barrier(bar)));
}

fn copies(b: &mut Builder, o: &Operands) {
    for bytes in [4, 8, 16] {
        for size in [None, Some(o.word)] {
            b.push(Inst::CopyAsync { to: o.shared, from: o.global, bytes, size });
        }
    }
    b.push(Inst::CommitGroup);
    b.push(Inst::WaitGroup(1));
    b.push(Inst::WaitGroup(0));
}

fn matrices(b: &mut Builder, o: &Operands) {
    for count in [1, 2, 4] {
        b.load_matrix(count, o.shared, false);
        b.load_matrix(count, o.shared, true);
    }
    for &shape in SHAPES {
        let acc = [0.0; 4].map(|zero| b.mov_f32(zero));
        b.mma(shape, acc, &[o.word; 4], &[o.word; 2]);
    }
}

/// Branches with one side and two, a loop, guards, a trap.
fn control(b: &mut Builder, o: &Operands) {
    let store = |b: &mut Builder| b.store(Space::Global, MemType::F32, o.global, &[o.float.into()]);
    b.comment("control flow");
    b.open();
    store(b);
    let then = b.close();
    b.if_else(o.pred, then, Vec::new());
    b.open();
    store(b);
    let then = b.close();
    b.open();
    b.guarded(o.pred, false, |b| b.push(Inst::Trap));
    b.guarded(o.pred, true, store);
    let other = b.close();
    b.if_else(o.pred, then, other);
    let i = b.mov32(0);
    b.open();
    b.int_to(IntOp::Add, i, i, 1);
    let more = b.set_int(Compare::Lt, i, 3);
    let body = b.close();
    b.do_while(body, more);
}

/// Both of two places as a register and as a literal.
fn pairs<R: Register>(
    [register, literal]: [Value<R>; 2],
) -> impl Iterator<Item = (Value<R>, Value<R>)> {
    [(register, register), (register, literal), (literal, register), (literal, literal)].into_iter()
}
