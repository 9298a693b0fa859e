//! Where the masked elements at the end of a line begin.

use super::expr::Evaluator;
use super::load::{VECTOR, pattern};
use super::nest::Point;
use super::{Emitter, NOTRAP};
use crate::schedule::row::RowSchedule;
use crate::schedule::tail::{BLOCK, Tail};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Axis, DType, Scalar};

impl Emitter<'_> {
    /// How many of the `count` elements of a line come before its tail, rounded up to whole blocks;
    /// the point stands at the first of them.
    pub fn before_tail(&mut self, tail: &Tail, point: &Point, count: i64) -> Value {
        let bytes = tail.masked.dtype.bytes() as i64;
        let first = self.address(tail.buffer, &tail.place, point, bytes);
        let (head, look, done) =
            (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let end = self.b.append_block_param(head, I64);
        let all = self.int(count);
        self.jump(head, &[all]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, end, BLOCK);
        self.branch(more, (look, &[]), (done, &[]));

        self.b.switch_to_block(look);
        let start = self.b.ins().iadd_imm_s(end, -BLOCK);
        let block = self.add_scaled(first, start, bytes);
        let is_open = self.is_open(tail, block);
        self.branch(is_open, (done, &[]), (head, &[start]));

        self.b.switch_to_block(done);
        let above = self.b.ins().iadd_imm_s(end, BLOCK - 1);
        let whole = self.b.ins().band_imm_s(above, -BLOCK);
        self.b.ins().smin(whole, all)
    }

    /// Whether some element of a block is not masked.
    fn is_open(&mut self, tail: &Tail, block: Value) -> Value {
        let (ty, bits) = pattern(tail.masked);
        let masked = self.lanes([bits; 4], ty);
        let bytes = BLOCK * tail.masked.dtype.bytes() as i64;
        let differ = (0..bytes / VECTOR).map(|k| {
            let vector = self.b.ins().load(ty, NOTRAP, block, (k * VECTOR) as i32);
            self.b.ins().bxor(vector, masked)
        });
        let differ: Vec<Value> = differ.collect();
        let any = differ.into_iter().reduce(|a, b| self.b.ins().bor(a, b));
        self.b.ins().vany_true(any.expect("a block has elements"))
    }
}

/// How many points of a row come before its tail; makes the stores of the others.
pub(super) fn kept(e: &mut Emitter, ev: &Evaluator, schedule: &RowSchedule, tail: &Tail) -> Value {
    let mut point = e.origin(schedule.domain.extents.len());
    (0..schedule.outer).for_each(|axis| point[axis] = ev.axis(Axis(axis as u32)));
    let all = schedule.extent(tail.axis);
    let kept = e.before_tail(tail, &point, all);
    let all = e.int(all);
    let count = e.b.ins().isub(all, kept);
    point[tail.axis.0 as usize] = kept;
    let stores = schedule.passes.iter().flat_map(|pass| &pass.stores);
    for (store, &value) in stores.zip(&tail.values) {
        let first = e.address(store.buffer, &store.place, &point, 4);
        e.fill(first, count, Scalar::new(DType::F32, value));
    }
    kept
}
