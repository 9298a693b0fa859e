//! Philox4x32-10 as Cranelift IR: [`dlc_kernel::philox`] bit for bit.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::FunctionBuilder;
use dlc_kernel::philox;

/// The random word of one element.
pub fn word(b: &mut FunctionBuilder, site: u64, [seed, step, element]: [Value; 3]) -> Value {
    let words = words(b, site, [seed, step, element]);
    let at = b.ins().band_imm_u(element, 3);
    let mut word = words[0];
    for (i, &other) in words.iter().enumerate().skip(1) {
        let this = b.ins().icmp_imm_s(IntCC::Equal, at, i as i64);
        word = b.ins().select(this, other, word);
    }
    word
}

/// The words of the four elements of an element's counter block.
pub fn words(b: &mut FunctionBuilder, site: u64, [seed, step, element]: [Value; 3]) -> [Value; 4] {
    let block = b.ins().ushr_imm_u(element, 2);
    let site = [site as u32, (site >> 32) as u32].map(|w| b.ins().iconst(I32, i64::from(w)));
    let mut c = [block, step, site[0], site[1]];
    let mut key = [seed, b.ins().iconst(I32, i64::from(philox::KEY_HIGH))];
    for round in 0..philox::ROUNDS {
        if round > 0 {
            for (k, weyl) in key.iter_mut().zip(philox::WEYL) {
                *k = b.ins().iadd_imm_u(*k, i64::from(weyl));
            }
        }
        let (a_high, a_low) = wide_product(b, c[0], philox::MULTIPLIERS[0]);
        let (b_high, b_low) = wide_product(b, c[2], philox::MULTIPLIERS[1]);
        let [x, y] = [(b_high, c[1], key[0]), (a_high, c[3], key[1])].map(|(high, c, k)| {
            let mixed = b.ins().bxor(high, c);
            b.ins().bxor(mixed, k)
        });
        c = [x, b_low, y, a_low];
    }
    c
}

fn wide_product(b: &mut FunctionBuilder, x: Value, multiplier: u32) -> (Value, Value) {
    let x = b.ins().uextend(I64, x);
    let product = b.ins().imul_imm_u(x, i64::from(multiplier));
    let high = b.ins().ushr_imm_u(product, 32);
    (b.ins().ireduce(I32, high), b.ins().ireduce(I32, product))
}
