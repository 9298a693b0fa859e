//! Philox4x32-10 as code: [`dlc_kernel::philox::uniform`] bit for bit.
//!
//! Four consecutive elements of one counter block share a call of the generator; any other lanes
//! take one call each.

use super::Emitter;
use super::expr::{Evaluator, Val};
use super::load::{gather, lane_value};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{ExprId, philox};

/// The value of a `Random` node.
pub(super) fn uniform(
    ev: &mut Evaluator,
    e: &mut Emitter,
    site: u64,
    [seed, step]: [ExprId; 2],
    element: ExprId,
) -> Val {
    let varying = [seed, step, element].iter().any(|&id| ev.id_varies(id));
    let Some(lanes) = ev.lanes().filter(|_| varying) else {
        let [seed, step, element] = [seed, step, element].map(|id| ev.scalar(e, id));
        return Val::Uniform(one(e, site, seed, step, element));
    };
    if ev.is_block(element) && [seed, step].iter().all(|&id| !ev.id_varies(id)) {
        let [seed, step] = [seed, step].map(|id| ev.scalar(e, id));
        let first = ev.vector(e, element);
        let first = e.b.ins().extractlane(first, 0);
        let words = words(e, site, seed, step, first);
        let words = gather(e, &words);
        return Val::Varying(to_unit(e, words));
    }
    let mut values = Vec::new();
    for lane in 0..lanes.active {
        let at = [seed, step, element].map(|id| lane_value(ev, e, id, Some((lanes, lane))));
        values.push(one(e, site, at[0], at[1], at[2]));
    }
    Val::Varying(gather(e, &values))
}

/// The number of one element.
fn one(e: &mut Emitter, site: u64, seed: Value, step: Value, element: Value) -> Value {
    let words = words(e, site, seed, step, element);
    let at = e.b.ins().band_imm_u(element, 3);
    let mut word = words[0];
    for (i, &other) in words.iter().enumerate().skip(1) {
        let this = e.b.ins().icmp_imm_s(IntCC::Equal, at, i as i64);
        word = e.b.ins().select(this, other, word);
    }
    to_unit(e, word)
}

/// The top 24 bits of a word, or of four, as a fraction.
fn to_unit(e: &mut Emitter, word: Value) -> Value {
    let bits = e.b.ins().ushr_imm_u(word, 8);
    let scale = 1.0 / 16_777_216.0;
    if e.b.func.dfg.value_type(bits) == I32 {
        let number = e.b.ins().fcvt_from_sint(F32, bits);
        let scale = e.float(scale);
        return e.b.ins().fmul(number, scale);
    }
    let number = e.b.ins().fcvt_from_sint(F32X4, bits);
    let scale = e.floats(scale);
    e.b.ins().fmul(number, scale)
}

/// The four words of an element's counter block.
fn words(e: &mut Emitter, site: u64, seed: Value, step: Value, element: Value) -> [Value; 4] {
    let block = e.b.ins().ushr_imm_u(element, 2);
    let site = [site as u32, (site >> 32) as u32].map(|w| e.b.ins().iconst(I32, i64::from(w)));
    let mut c = [block, step, site[0], site[1]];
    let mut key = [seed, e.b.ins().iconst(I32, i64::from(philox::KEY_HIGH))];
    for round in 0..philox::ROUNDS {
        if round > 0 {
            for (k, weyl) in key.iter_mut().zip(philox::WEYL) {
                *k = e.b.ins().iadd_imm_u(*k, i64::from(weyl));
            }
        }
        let (a_high, a_low) = wide_product(e, c[0], philox::MULTIPLIERS[0]);
        let (b_high, b_low) = wide_product(e, c[2], philox::MULTIPLIERS[1]);
        let [x, y] = [(b_high, c[1], key[0]), (a_high, c[3], key[1])].map(|(high, c, k)| {
            let mixed = e.b.ins().bxor(high, c);
            e.b.ins().bxor(mixed, k)
        });
        c = [x, b_low, y, a_low];
    }
    c
}

fn wide_product(e: &mut Emitter, x: Value, multiplier: u32) -> (Value, Value) {
    let x = e.b.ins().uextend(I64, x);
    let product = e.b.ins().imul_imm_u(x, i64::from(multiplier));
    let high = e.b.ins().ushr_imm_u(product, 32);
    (e.b.ins().ireduce(I32, high), e.b.ins().ireduce(I32, product))
}
