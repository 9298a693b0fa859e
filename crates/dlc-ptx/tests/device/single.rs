//! Single instructions on the interpreter, with results as the PTX manual's definitions give them,
//! worked out by hand.

use crate::machine::{all, lanes};
use dlc_ptx::ir::{
    B16, B32, B64, Builder, Compare, Convert, F32, FloatOp, Inst, IntOp, MathOp, Reg, Shuffle,
    Value, Vote,
};

/// The result of code on the same two words in every lane.
fn of_two(a: u32, b: u32, write: impl FnOnce(&mut Builder, B32, B32) -> Reg) -> u32 {
    let found = lanes(&[all(a), all(b)], |builder, x| vec![write(builder, x[0], x[1])]);
    assert!(found[0].iter().all(|&word| word == found[0][0]), "all lanes are alike");
    found[0][0]
}

fn of_floats(a: f32, b: f32, write: impl FnOnce(&mut Builder, F32, F32) -> Reg) -> u32 {
    of_two(a.to_bits(), b.to_bits(), |builder, a, b| {
        let (a, b) = (builder.from_bits(a), builder.from_bits(b));
        write(builder, a, b)
    })
}

#[test]
fn integers() {
    let minus = |n: u32| n.wrapping_neg();
    let high = 0x8000_0000;
    let cases = [
        (IntOp::Add, u32::MAX, 1, 0),
        (IntOp::Sub, 0, 1, u32::MAX),
        (IntOp::Mul, 0x1_0000, 0x1_0001, 0x1_0000),
        (IntOp::MulHiU, u32::MAX, u32::MAX, 0xffff_fffe),
        (IntOp::DivS, minus(7), 2, minus(3)),
        (IntOp::DivU, minus(7), 2, 0x7fff_fffc),
        (IntOp::RemS, minus(7), 2, minus(1)),
        (IntOp::RemU, minus(7), 2, 1),
        (IntOp::MinS, minus(1), 1, minus(1)),
        (IntOp::MinU, minus(1), 1, 1),
        (IntOp::MaxS, minus(1), 1, 1),
        (IntOp::MaxU, minus(1), 1, minus(1)),
        (IntOp::And, 0b1100, 0b1010, 0b1000),
        (IntOp::Or, 0b1100, 0b1010, 0b1110),
        (IntOp::Xor, 0b1100, 0b1010, 0b0110),
        // Counts beyond 31 are 32.
        (IntOp::Shl, 1, 31, high),
        (IntOp::Shl, 1, 32, 0),
        (IntOp::ShrU, high, 31, 1),
        (IntOp::ShrU, high, 40, 0),
        (IntOp::ShrS, high, 31, u32::MAX),
        (IntOp::ShrS, high, 99, u32::MAX),
    ];
    for (op, a, b, expected) in cases {
        let found = of_two(a, b, |builder, a, b| builder.int(op, a, b).into());
        assert_eq!(found, expected, "{op:?} of {a:#x} and {b:#x}");
    }
}

#[test]
fn wide_products() {
    let words = |signed: bool, a: u32, b: u32| {
        let found = lanes(&[all(a), all(b)], |builder, x| {
            let product: B64 = builder.fresh();
            let (a, b) = (x[0].into(), x[1].into());
            builder.push(Inst::MulWide { signed, dst: product, a, b });
            let low = builder.convert(|dst| Convert::Low { dst, src: product });
            let shifted = builder.int64(IntOp::ShrU, product, 32u64);
            let high = builder.convert(|dst| Convert::Low { dst, src: shifted });
            vec![low.into(), high.into()]
        });
        (found[0][0], found[1][0])
    };
    assert_eq!(words(true, u32::MAX, 2), (0xffff_fffe, u32::MAX));
    assert_eq!(words(false, u32::MAX, 2), (0xffff_fffe, 1));
}

/// The manual: the table is what the function makes of 0xF0, 0xCC and 0xAA.
#[test]
fn three_inputs() {
    let (a, b, c) = (0x1234_5678, 0x9abc_def0, 0x0f1e_2d3c);
    let cases = [
        (a & b & c, 0x80),
        (a | b | c, 0xfe),
        (a & b & !c, 0x40),
        ((a & b | c) ^ a, 0x1a),
        (a ^ b ^ c, 0x96),
    ];
    for (expected, table) in cases {
        let found = lanes(&[all(a), all(b), all(c)], |builder, x| {
            let dst: B32 = builder.fresh();
            let [a, b, c] = [0, 1, 2].map(|i| Value::Reg(x[i]));
            builder.push(Inst::Lop3 { dst, a, b, c, table });
            vec![dst.into()]
        });
        assert_eq!(found[0][0], expected, "table {table:#x}");
    }
}

#[test]
fn floats() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let cases = [
        (FloatOp::Add, 1.0, 2f32.powi(-24), 1.0),
        (FloatOp::Sub, inf, inf, nan),
        (FloatOp::Mul, 2f32.powi(-100), 2f32.powi(-49), 2f32.powi(-149)),
        (FloatOp::Div, 1.0, 3.0, 0.333_333_34),
        (FloatOp::Min, nan, 1.0, nan),
        (FloatOp::Max, 1.0, nan, nan),
        // The manual: +0 is more than -0.
        (FloatOp::Min, 0.0, -0.0, -0.0),
        (FloatOp::Min, -0.0, 0.0, -0.0),
        (FloatOp::Max, 0.0, -0.0, 0.0),
        (FloatOp::Max, -0.0, 0.0, 0.0),
    ];
    for (op, a, b, expected) in cases {
        let found = of_floats(a, b, |builder, a, b| builder.float(op, a, b).into());
        let found = f32::from_bits(found);
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{op:?} of {a} and {b} is {found}");
    }
    let fused = of_floats(1.0 + 2f32.powi(-12), 0.0, |b, a, _| b.fma(a, a, -1.0).into());
    assert_eq!(f32::from_bits(fused), 2f32.powi(-11) + 2f32.powi(-24), "one rounding");
}

#[test]
fn rounding() {
    let cases = [
        (MathOp::Floor, -1.5, -2.0),
        (MathOp::Ceil, -1.5, -1.0),
        (MathOp::Trunc, -1.5, -1.0),
        (MathOp::Round, 2.5, 2.0),
        (MathOp::Round, 3.5, 4.0),
        (MathOp::Sqrt, 3.0, 1.732_050_8),
        (MathOp::Rcp, 3.0, 0.333_333_34),
        (MathOp::Neg, 1.0, -1.0),
        (MathOp::Abs, -1.0, 1.0),
    ];
    for (op, a, expected) in cases {
        let found = of_floats(a, 0.0, |builder, a, _| builder.math(op, a).into());
        assert_eq!(f32::from_bits(found), expected, "{op:?} of {a}");
    }
}

#[test]
fn comparisons_with_nan() {
    for (cmp, expected) in [
        (Compare::Eq, 0),
        (Compare::Ne, 1),
        (Compare::Lt, 0),
        (Compare::Le, 0),
        (Compare::Gt, 0),
        (Compare::Ge, 0),
    ] {
        let found = of_floats(f32::NAN, 1.0, |builder, a, b| {
            let holds = builder.set_float(cmp, a, b);
            builder.select32(holds, 1, 0).into()
        });
        assert_eq!(found, expected, "{cmp:?}");
    }
}

#[test]
fn conversions_to_integers() {
    for (a, signed, unsigned) in [
        (1.9, 1, 1),
        (-1.9, -1, 0),
        (3e9, i32::MAX, 3_000_000_000),
        (5e9, i32::MAX, u32::MAX),
        (-3e9, i32::MIN, 0),
        (f32::NAN, 0, 0),
    ] {
        let found = of_floats(a, 0.0, |builder, a, _| {
            builder.convert(|dst: B32| Convert::F32ToS32 { dst, src: a }).into()
        });
        assert_eq!(found as i32, signed, "{a}");
        let found = of_floats(a, 0.0, |builder, a, _| {
            builder.convert(|dst: B32| Convert::F32ToU32 { dst, src: a }).into()
        });
        assert_eq!(found, unsigned, "{a}");
    }
}

#[test]
fn conversions_to_short_floats() {
    // tf32: 10 bits of mantissa, ties away from zero.
    let half = 2f32.powi(-11);
    for (a, expected) in [
        (1.0 + half, 1.0 + 2.0 * half),
        (-1.0 - half, -1.0 - 2.0 * half),
        (1.0 + half - 2f32.powi(-23), 1.0),
    ] {
        let found = of_floats(a, 0.0, |builder, a, _| {
            builder.convert(|dst: B32| Convert::F32ToTf32 { dst, src: a }).into()
        });
        assert_eq!(f32::from_bits(found), expected, "{a}");
    }
    // bf16: 7 bits of mantissa, ties to even; f16: 10.
    let half = 2f32.powi(-8);
    for (a, expected) in [(1.0 + half, 0x3f80), (1.0 + 3.0 * half, 0x3f82), (f32::MAX, 0x7f80)] {
        let found = of_floats(a, 0.0, |builder, a, _| {
            let low: B16 = builder.convert(|dst| Convert::F32ToBf16 { dst, src: a });
            builder.pack(low, low).into()
        });
        assert_eq!(found, expected << 16 | expected, "{a}");
    }
    let found = of_floats(1.0 + 2f32.powi(-11), 65536.0, |builder, a, b| {
        builder.convert(|dst: B32| Convert::PackF16 { dst, low: a, high: b }).into()
    });
    assert_eq!(found, 0x7c00_3c00, "a tie goes to even, and what is too large to infinity");
    // `cvt.rn.bf16x2.f32 d, a, b` has `a` in the upper half.
    let found = of_floats(1.0, 2.0, |builder, low, high| {
        builder.convert(|dst: B32| Convert::PackBf16 { dst, low, high }).into()
    });
    assert_eq!(found, 0x4000_3f80);
}

/// The manual's pseudocode: a lane out of its group's range gets its own value.
#[test]
fn shuffles() {
    let numbers: [u32; 32] = std::array::from_fn(|lane| lane as u32);
    let shuffled = |mode, by: u32, width| {
        lanes(&[numbers], |b, x| vec![b.shuffle(mode, x[0], by, width).into()])[0]
    };
    let expect = |of: fn(u32) -> u32| std::array::from_fn(|lane| of(lane as u32));
    assert_eq!(shuffled(Shuffle::Butterfly, 5, 32), expect(|l| l ^ 5));
    assert_eq!(shuffled(Shuffle::Down, 3, 32), expect(|l| if l < 29 { l + 3 } else { l }));
    assert_eq!(shuffled(Shuffle::Down, 3, 8), expect(|l| if l % 8 < 5 { l + 3 } else { l }));
    assert_eq!(shuffled(Shuffle::Up, 3, 8), expect(|l| if l % 8 < 3 { l } else { l - 3 }));
    assert_eq!(shuffled(Shuffle::Index, 6, 8), expect(|l| l / 8 * 8 + 6));
    assert_eq!(shuffled(Shuffle::Index, 11, 8), expect(|l| l / 8 * 8 + 3));
}

#[test]
fn votes() {
    let odd: [u32; 32] = std::array::from_fn(|lane| lane as u32 % 2);
    for (words, any, every, ballot) in
        [(odd, 1, 0, 0xaaaa_aaaa), (all(1), 1, 1, u32::MAX), (all(0), 0, 0, 0)]
    {
        let found = lanes(&[words], |b, x| {
            let holds = b.set_int(Compare::Ne, x[0], 0);
            let votes = [Vote::Any, Vote::All].map(|vote| b.vote(vote, holds));
            let [one, other] = votes.map(|vote| b.select32(vote, 1, 0));
            let dst: B32 = b.fresh();
            b.push(Inst::Ballot { dst, pred: holds });
            vec![one.into(), other.into(), dst.into()]
        });
        assert_eq!([found[0], found[1], found[2]], [all(any), all(every), all(ballot)]);
    }
}
