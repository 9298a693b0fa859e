//! What becomes of the sums of a tile in Cranelift's 128-bit vectors; the elements of a row that do
//! not fill one are computed one by one.

use super::clif::{self, Width, Writer};
use super::epilogue::{Epilogue, Spread};
use super::lanes::{Kind, Op};
use super::portable::{LANES, Multiply, NOTRAP, VECTOR_BYTES};
use super::portable_loop::{load_element, store_element};
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::FunctionBuilder;
use dlc_kernel::DType;

/// Writes the code of an epilogue for the sums of one row after the other.
pub struct Emitter<'e, 'f> {
    b: &'e mut FunctionBuilder<'f>,
    epilogue: &'e Epilogue,
    multiply: Multiply,
    args: Value,
    /// Where each stream is.
    streams: Vec<Value>,
}

impl<'e, 'f> Emitter<'e, 'f> {
    /// Finds the streams of `epilogue` through the argument block.
    pub fn new(
        b: &'e mut FunctionBuilder<'f>,
        epilogue: &'e Epilogue,
        multiply: Multiply,
        args: Value,
    ) -> Emitter<'e, 'f> {
        let address = |k| b.ins().load(I64, NOTRAP, args, epilogue.stream_at(k));
        let streams = (0..epilogue.streams.len()).map(address).collect();
        Emitter { b, epilogue, multiply, args, streams }
    }

    /// A row of `columns` sums, in vectors.
    pub fn emit_row(&mut self, sums: &[Value], columns: usize) {
        for (v, &sum) in sums.iter().enumerate() {
            let active = LANES.min(columns - LANES * v);
            let at = VECTOR_BYTES * v as i32;
            if active == LANES {
                self.emit_vector(Width::Vector, sum, at);
                continue;
            }
            for lane in 0..active {
                let sum = self.b.ins().extractlane(sum, lane as u8);
                self.emit_vector(Width::Scalar, sum, at + 4 * lane as i32);
            }
        }
        for (k, stream) in self.streams.iter_mut().enumerate() {
            let step = self.b.ins().load(I64, NOTRAP, self.args, self.epilogue.step_at(k));
            *stream = self.b.ins().iadd(*stream, step);
        }
    }

    /// Leaves the streams where the row after the last one is.
    pub fn finish(self) {
        for (k, stream) in self.streams.into_iter().enumerate() {
            self.b.ins().store(NOTRAP, stream, self.args, self.epilogue.stream_at(k));
        }
    }

    /// The elements `at` bytes from the start of a row.
    fn emit_vector(&mut self, width: Width, sum: Value, at: i32) {
        let (epilogue, streams, args) = (self.epilogue, &self.streams, self.args);
        let mut writer = Writer { b: self.b, multiply: self.multiply, width };
        let given = |w: &mut Writer, op| match op {
            Op::Carry(..) => sum,
            Op::Input(kind, k) => match epilogue.streams.get(usize::from(k)) {
                Some(&spread) => load(w, kind, (streams[usize::from(k)], spread), at),
                None => {
                    let value = usize::from(k) - epilogue.streams.len();
                    let at = w.b.ins().iadd_imm_s(args, i64::from(epilogue.value_at(value)));
                    load(w, kind, (at, Spread::Still), 0)
                }
            },
            _ => unreachable!("`{op}` is no part of an epilogue"),
        };
        let values = clif::values(&mut writer, &epilogue.lanes, &epilogue.roots(), given);
        for (&(stream, _), value) in epilogue.stores.iter().zip(values) {
            let (spread, address) =
                (epilogue.streams[usize::from(stream)], self.streams[usize::from(stream)]);
            if spread == Spread::Truths {
                let at = writer.b.ins().iadd_imm_s(address, i64::from(at) / 4);
                store_element(&mut writer, DType::Bool, value, at);
            } else {
                writer.b.ins().store(NOTRAP, value, address, at);
            }
        }
    }
}

fn load(w: &mut Writer, kind: Kind, (address, spread): (Value, Spread), at: i32) -> Value {
    let ty = w.width.type_of(kind);
    let element = match spread {
        Spread::Neighbours => return w.b.ins().load(ty, NOTRAP, address, at),
        Spread::Truths => {
            let at = w.b.ins().iadd_imm_s(address, i64::from(at) / 4);
            return load_element(w, DType::Bool, at);
        }
        Spread::Still => w.b.ins().load(Width::Scalar.type_of(kind), NOTRAP, address, 0),
        Spread::Counting => {
            let first = w.b.ins().ireduce(I32, address);
            w.b.ins().iadd_imm_s(first, i64::from(at) / 4)
        }
    };
    match (w.width, spread) {
        (Width::Scalar, _) => element,
        (Width::Vector, Spread::Counting) => w.counting(element),
        (Width::Vector, _) => w.b.ins().splat(ty, element),
    }
}
