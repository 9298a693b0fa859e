//! Philox4x32-10, bit for bit that of [`dlc_kernel::philox`].

use crate::ir::{B32, Builder, Compare, Convert, F32, FloatOp, IntOp, Value};
use dlc_kernel::philox::{KEY_HIGH, MULTIPLIERS, ROUNDS, WEYL};

/// The uniform number in [0, 1) of an element.
pub fn uniform(
    b: &mut Builder,
    seed: Value<B32>,
    step: Value<B32>,
    site: u64,
    element: Value<B32>,
) -> F32 {
    let words = words_of(b, seed, step, site, element);
    let which = b.int(IntOp::And, element, 3);
    let mut word = words[0];
    for (number, &other) in (1..).zip(&words[1..]) {
        let this = b.set_int(Compare::Eq, which, number);
        word = b.select32(this, other, word);
    }
    in_unit(b, word)
}

/// The uniform numbers of 2 or 4 neighbours, the first of which is a multiple of their number: one call for all.
pub fn neighbours(
    b: &mut Builder,
    seed: Value<B32>,
    step: Value<B32>,
    site: u64,
    (first, count): (Value<B32>, usize),
) -> Vec<F32> {
    let words = words_of(b, seed, step, site, first);
    if count == 4 {
        return words.map(|word| in_unit(b, word)).into();
    }
    let upper = b.int(IntOp::And, first, 2);
    let upper = b.set_int(Compare::Ne, upper, 0);
    let pair = [0, 1].map(|i| b.select32(upper, words[i + 2], words[i]));
    pair.map(|word| in_unit(b, word)).into()
}

/// The four words that an element's is among.
fn words_of(
    b: &mut Builder,
    seed: Value<B32>,
    step: Value<B32>,
    site: u64,
    element: Value<B32>,
) -> [B32; 4] {
    let block = b.int(IntOp::ShrU, element, 2);
    let counter =
        [block.into(), step, Value::Literal(site as u32), Value::Literal((site >> 32) as u32)];
    words(b, counter, [seed, Value::Literal(KEY_HIGH)])
}

/// The number in [0, 1) that a word stands for.
fn in_unit(b: &mut Builder, word: B32) -> F32 {
    let high = b.int(IntOp::ShrU, word, 8);
    let number = b.convert(|dst| Convert::U32ToF32 { dst, src: high });
    b.float(FloatOp::Mul, number, 1.0 / 16_777_216.0)
}

/// Four random words.
fn words(b: &mut Builder, counter: [Value<B32>; 4], key: [Value<B32>; 2]) -> [B32; 4] {
    let mut c = counter;
    let mut k = key;
    for round in 0..ROUNDS {
        if round > 0 {
            k = [0, 1].map(|i| match k[i] {
                Value::Literal(word) => Value::Literal(word.wrapping_add(WEYL[i])),
                word => b.int(IntOp::Add, word, WEYL[i]).into(),
            });
        }
        let [high_a, low_a] = product(b, c[0], MULTIPLIERS[0]);
        let [high_b, low_b] = product(b, c[2], MULTIPLIERS[1]);
        let first = b.xor3(high_b, c[1], k[0]);
        let third = b.xor3(high_a, c[3], k[1]);
        c = [first, low_b, third, low_a].map(Value::Reg);
    }
    c.map(|word| word.register().expect("there is at least one round"))
}

/// The high and the low word of a product.
fn product(b: &mut Builder, x: Value<B32>, factor: u32) -> [B32; 2] {
    [IntOp::MulHiU, IntOp::Mul].map(|op| b.int(op, x, factor))
}
