//! Where the masked elements at the end of a line begin.

use super::expr::Evaluator;
use super::load::{VECTOR, pattern};
use super::nest::Point;
use super::{Emitter, NOTRAP};
use crate::schedule::PlacedStore;
use crate::schedule::row::RowSchedule;
use crate::schedule::tail::{BLOCK, Tail};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Axis, DType, Scalar};

impl Emitter<'_> {
    /// Where the tail of a line begins, whose elements before `all` alone matter, and those before
    /// `least` whatever they are: after whole blocks. The point stands at the first element.
    pub fn before_tail(
        &mut self,
        tail: &Tail,
        point: &Point,
        (least, all): (Value, Value),
    ) -> Value {
        let bytes = tail.masked.dtype.bytes() as i64;
        let first = self.address(tail.buffer, &tail.place, point, bytes);
        let (head, look, done) =
            (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let end = self.b.append_block_param(head, I64);
        self.jump(head, &[all]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::SignedGreaterThan, end, least);
        self.branch(more, (look, &[]), (done, &[]));

        self.b.switch_to_block(look);
        let (start, zero) = (self.b.ins().iadd_imm_s(end, -BLOCK), self.int(0));
        let start = self.b.ins().smax(start, zero);
        let block = self.add_scaled(first, start, bytes);
        let is_open = self.is_open(tail, block);
        let last = self.b.ins().iadd_imm_s(end, -1);
        let before = self.b.ins().band_imm_s(last, -BLOCK);
        self.branch(is_open, (done, &[]), (head, &[before]));

        self.b.switch_to_block(done);
        self.b.ins().smax(end, least)
    }

    /// Stores what is fixed in the tail of a line, at positions `from..to` along it.
    pub fn store_tail<'p>(
        &mut self,
        tail: &Tail,
        stores: impl IntoIterator<Item = &'p PlacedStore>,
        point: &Point,
        (from, to): (Value, Value),
    ) {
        let count = self.b.ins().isub(to, from);
        let mut point = point.clone();
        point[tail.axis.0 as usize] = from;
        for (store, &value) in stores.into_iter().zip(&tail.values) {
            let first = self.address(store.buffer, &store.place, &point, 4);
            self.fill(first, count, Scalar::new(DType::F32, value));
        }
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
    let (none, all) = (e.int(0), e.int(schedule.extent(tail.axis)));
    let kept = e.before_tail(tail, &point, (none, all));
    let stores = schedule.passes.iter().flat_map(|pass| &pass.stores);
    e.store_tail(tail, stores, &point, (kept, all));
    kept
}
