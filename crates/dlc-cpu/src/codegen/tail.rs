//! Where the masked elements at the end of a line begin.

use super::nest::Point;
use super::{Emitter, NOTRAP};
use crate::schedule::tail::{BLOCK, Tail};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8X16, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::DType;

/// Bytes of a vector.
const VECTOR: i64 = 16;

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
        let (ty, bits) = match tail.masked.dtype {
            DType::F32 => (I32X4, (tail.masked.value() as f32).to_bits()),
            _ => (I8X16, tail.masked.value() as u32 * 0x0101_0101),
        };
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

    /// Stores a value at the `count` elements of four bytes from an address on.
    pub fn fill(&mut self, first: Value, count: Value, value: f32) {
        let end = self.add_scaled(first, count, 4);
        let size = self.b.ins().isub(end, first);
        let rest = self.b.ins().band_imm_u(size, VECTOR - 1);
        let whole = self.b.ins().isub(end, rest);
        let values = self.floats(value);
        self.for_each(first, whole, VECTOR, |e, at| {
            e.b.ins().store(NOTRAP, values, at, 0);
        });
        let value = self.float(value);
        self.for_each(whole, end, 4, |e, at| {
            e.b.ins().store(NOTRAP, value, at, 0);
        });
    }
}
