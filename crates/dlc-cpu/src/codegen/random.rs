//! Random numbers as code: [`dlc_kernel::philox::uniform`] bit for bit.
//!
//! Four consecutive elements of one counter block share a call of the generator; any other lanes
//! take one call each.

use super::Emitter;
use super::expr::{Evaluator, Val};
use super::load::{gather, lane_value};
use crate::leaf::random;
use cranelift_codegen::ir::types::{F32, F32X4, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::ExprId;

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
        return Val::Uniform(one(e, site, [seed, step, element]));
    };
    if ev.is_block(element) && [seed, step].iter().all(|&id| !ev.id_varies(id)) {
        let [seed, step] = [seed, step].map(|id| ev.scalar(e, id));
        let first = ev.vector(e, element);
        let first = e.b.ins().extractlane(first, 0);
        let words = random::words(&mut e.b, site, [seed, step, first]);
        let words = gather(e, &words);
        return Val::Varying(to_unit(e, words));
    }
    let mut values = Vec::new();
    for lane in 0..lanes.active {
        let at = [seed, step, element].map(|id| lane_value(ev, e, id, Some((lanes, lane))));
        values.push(one(e, site, at));
    }
    Val::Varying(gather(e, &values))
}

/// The number of one element.
fn one(e: &mut Emitter, site: u64, at: [Value; 3]) -> Value {
    let word = random::word(&mut e.b, site, at);
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
