//! Loops in Cranelift's 128-bit vectors; the elements that do not fill one are computed one by one.

use super::clif::{self, Width, Writer};
use super::lanes::{Kind, Op, ops};
use super::loops::{Fold, Loop, Stream};
use super::portable::{Multiply, NOTRAP};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I8, I8X16, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::FunctionBuilder;
use dlc_kernel::DType;

/// Writes the body of a loop into a function with the signature of a leaf.
pub fn emit(b: &mut FunctionBuilder, code: &Loop, multiply: Multiply) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let args = b.block_params(entry)[0];
    let count = b.ins().load(I64, NOTRAP, args, Loop::COUNT);
    let at = |k| code.address_at(k);
    let addresses = (0..code.addresses()).map(|k| b.ins().load(I64, NOTRAP, args, at(k))).collect();
    let mut emitter = Emitter { b, code, multiply, args, addresses };
    if code.column_states().is_empty() {
        let states = emitter.emit_lines(count);
        for (k, result) in emitter.results(states).into_iter().enumerate() {
            emitter.b.ins().store(NOTRAP, result, args, code.fold_at(k));
        }
    } else {
        emitter.emit_columns(count);
    }
    emitter.b.ins().return_(&[]);
}

/// The states of the folds: of vectors, as many as are computed together, and of single elements.
#[derive(Clone)]
struct States {
    vectors: Vec<Value>,
    scalars: Vec<Value>,
}

struct Emitter<'e, 'f> {
    b: &'e mut FunctionBuilder<'f>,
    code: &'e Loop,
    multiply: Multiply,
    args: Value,
    addresses: Vec<Value>,
}

impl<'f> Emitter<'_, 'f> {
    fn writer(&mut self, width: Width) -> Writer<'_, 'f> {
        Writer { b: self.b, multiply: self.multiply, width }
    }

    /// All lines; gives the states of the folds.
    fn emit_lines(&mut self, count: Value) -> States {
        let vectors = self.neutral(Width::Vector).repeat(self.code.unroll.into());
        let scalars = self.neutral(Width::Scalar);
        if self.code.lines.is_none() {
            return self.emit_line(count, States { vectors, scalars });
        }
        let of_vectors = vectors.len();
        let states = |all: &[Value]| {
            let (vectors, scalars) = all.split_at(of_vectors);
            States { vectors: vectors.to_vec(), scalars: scalars.to_vec() }
        };
        let folded = self.for_lines([vectors, scalars].concat(), |e, all| {
            let States { vectors, scalars } = e.emit_line(count, states(all));
            [vectors, scalars].concat()
        });
        states(&folded)
    }

    /// `state = body(state)` at every line, whose addresses the body finds; gives the last state.
    fn for_lines(
        &mut self,
        state: Vec<Value>,
        body: impl FnOnce(&mut Self, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let steps = self.code.lines.as_ref().map_or(&[][..], |lines| &lines.steps);
        let left = self.b.ins().load(I64, NOTRAP, self.args, Loop::LINES);
        let (head, inside, done) =
            (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let first = [&[left], &self.addresses[..], &state[..]].concat();
        for &value in &first {
            let ty = self.b.func.dfg.value_type(value);
            self.b.append_block_param(head, ty);
        }
        let args: Vec<_> = first.iter().map(|&v| v.into()).collect();
        self.b.ins().jump(head, &args);
        self.b.switch_to_block(head);
        let now = self.b.block_params(head).to_vec();
        let (own, state) = now[1..].split_at(self.addresses.len());
        let more = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, now[0], 0);
        self.b.ins().brif(more, inside, &[], done, &[]);
        self.b.switch_to_block(inside);
        let before = std::mem::replace(&mut self.addresses, own.to_vec());
        let next_state = body(self, state);
        self.addresses = before;
        let left = self.b.ins().iadd_imm_s(now[0], -1);
        let step =
            |(&address, &step): (&Value, &i32)| self.b.ins().iadd_imm_s(address, i64::from(step));
        let next: Vec<Value> = own.iter().zip(steps).map(step).collect();
        let next = [&[left], &next[..], &next_state[..]].concat();
        let args: Vec<_> = next.iter().map(|&v| v.into()).collect();
        self.b.ins().jump(head, &args);
        self.b.switch_to_block(done);
        state.to_vec()
    }

    /// All columns, a vector of them at a time, then one by one: each down all lines, its states merged
    /// into those in memory.
    fn emit_columns(&mut self, count: Value) {
        let mut i = self.b.ins().iconst(I64, 0);
        for width in [Width::Vector, Width::Scalar] {
            (i, _) = self.for_steps(width.lanes(), i, count, Vec::new(), |e, state| {
                let neutral = e.neutral(width);
                let folded = e.for_lines(neutral, |e, states| e.emit_body(width, state[0], states));
                for (k, partial) in folded.into_iter().enumerate() {
                    e.merge_column(width, k, state[0], partial);
                }
                vec![e.b.ins().iadd_imm_s(state[0], width.lanes())]
            });
        }
    }

    /// Merges the state of fold `k` of the column at `i` into the one in memory.
    fn merge_column(&mut self, width: Width, k: usize, i: Value, partial: Value) {
        let stream = self.code.streams[usize::from(self.code.column_states()[k])];
        let address = self.address(stream, i);
        let known = load_stream(&mut self.writer(width), stream, address);
        let merged = self.merge(width, self.code.folds[k], partial, known);
        store_stream(&mut self.writer(width), stream, merged, address);
    }

    /// The elements of a line; gives the states of the folds after them.
    fn emit_line(&mut self, count: Value, States { mut vectors, scalars }: States) -> States {
        let unroll = usize::from(self.code.unroll);
        let mut i = self.b.ins().iconst(I64, 0);
        let rounds: &[usize] = if unroll > 1 { &[unroll, 1] } else { &[1] };
        for &copies in rounds {
            (i, vectors) = self.emit_loop(Width::Vector, copies, i, count, vectors);
        }
        let (_, scalars) = self.emit_loop(Width::Scalar, 1, i, count, scalars);
        States { vectors, scalars }
    }

    /// The results of the folds.
    fn results(&mut self, States { vectors, scalars }: States) -> Vec<Value> {
        let folds = self.code.folds.len();
        let merge_fold = |k: usize| {
            let fold = self.code.folds[k];
            let states: Vec<Value> = vectors.iter().skip(k).step_by(folds).copied().collect();
            let whole = self.merge_all(Width::Vector, fold, states);
            let whole = self.across(fold, whole);
            self.merge(Width::Scalar, fold, whole, scalars[k])
        };
        (0..folds).map(merge_fold).collect()
    }

    fn neutral(&mut self, width: Width) -> Vec<Value> {
        let code = self.code;
        let mut writer = self.writer(width);
        code.folds.iter().map(|f| writer.constant(f.kind(), f.neutral().into())).collect()
    }

    /// `copies` values of every fold's state go round, while as many values are left.
    fn emit_loop(
        &mut self,
        width: Width,
        copies: usize,
        first: Value,
        count: Value,
        states: Vec<Value>,
    ) -> (Value, Vec<Value>) {
        let folds = self.code.folds.len();
        self.for_steps(width.lanes() * copies as i64, first, count, states, |e, state| {
            let mut state = state.to_vec();
            for copy in 0..copies {
                let own = 1 + copy * folds..1 + (copy + 1) * folds;
                let next = e.emit_body(width, state[0], &state[own.clone()]);
                state.splice(own, next);
                state[0] = e.b.ins().iadd_imm_s(state[0], width.lanes());
            }
            state
        })
    }

    /// `state = body(state)`, whose first value is the current element, while `step` elements are left.
    fn for_steps(
        &mut self,
        step: i64,
        first: Value,
        count: Value,
        states: Vec<Value>,
        body: impl FnOnce(&mut Self, &[Value]) -> Vec<Value>,
    ) -> (Value, Vec<Value>) {
        let (inside, done) = (self.b.create_block(), self.b.create_block());
        let all = [&[first], states.as_slice()].concat();
        for block in [inside, done] {
            for &value in &all {
                let ty = self.b.func.dfg.value_type(value);
                self.b.append_block_param(block, ty);
            }
        }
        let branch = |e: &mut Self, all: &[Value]| {
            let next = e.b.ins().iadd_imm_s(all[0], step);
            let fits = e.b.ins().icmp(IntCC::SignedLessThanOrEqual, next, count);
            let args: Vec<_> = all.iter().map(|&v| v.into()).collect();
            e.b.ins().brif(fits, inside, &args, done, &args);
        };
        branch(self, &all);
        self.b.switch_to_block(inside);
        let state = self.b.block_params(inside).to_vec();
        let state = body(self, &state);
        branch(self, &state);
        self.b.switch_to_block(done);
        let mut state = self.b.block_params(done).to_vec();
        (state.remove(0), state)
    }

    /// The code at element `i`; gives the states of the folds afterwards.
    fn emit_body(&mut self, width: Width, i: Value, states: &[Value]) -> Vec<Value> {
        let (code, args) = (self.code, self.args);
        let streams = code.streams.iter();
        let addresses: Vec<Value> = streams.map(|&stream| self.address(stream, i)).collect();
        let mut writer = self.writer(width);
        let mut values = clif::values(&mut writer, &code.lanes, &code.roots(), |w, op| match op {
            Op::Input(_, k) => {
                load_stream(w, code.streams[usize::from(k)], addresses[usize::from(k)])
            }
            Op::Uniform(kind, k) => uniform(w, kind, args, code.uniform_at(k.into())),
            Op::Carry(_, k) => states[usize::from(k)],
            _ => index(w, i),
        });
        let stored = values.split_off(code.folds.len());
        for (&(stream, _), value) in code.stores.iter().zip(stored) {
            let stream = usize::from(stream);
            store_stream(&mut writer, code.streams[stream], value, addresses[stream]);
        }
        values
    }

    fn address(&mut self, stream: Stream, i: Value) -> Value {
        let bytes = stream.dtype.bytes() as i64 * i64::from(stream.stride);
        let distance = self.b.ins().imul_imm_s(i, bytes);
        let first = self.b.ins().iadd_imm_s(distance, i64::from(stream.offset));
        self.b.ins().iadd(self.addresses[usize::from(stream.address)], first)
    }

    fn merge(&mut self, width: Width, fold: Fold, a: Value, b: Value) -> Value {
        let (lanes, merged) = fold.merge();
        let states = [a, b];
        let given = |_: &mut Writer, op| match op {
            Op::Carry(_, k) => states[usize::from(k)],
            _ => unreachable!("a merge is given its states alone"),
        };
        clif::values(&mut self.writer(width), &lanes, &[merged], given)[0]
    }

    /// Neighbours first.
    fn merge_all(&mut self, width: Width, fold: Fold, mut states: Vec<Value>) -> Value {
        while states.len() > 1 {
            let merge = |pair: &[Value]| match *pair {
                [a, b] => self.merge(width, fold, a, b),
                _ => pair[0],
            };
            states = states.chunks(2).map(merge).collect();
        }
        states[0]
    }

    /// A state of all lanes from one for each.
    fn across(&mut self, fold: Fold, mut state: Value) -> Value {
        for picks in [[2, 3, 2, 3], [1, 1, 1, 1]] {
            let other = self.writer(Width::Vector).shuffle(state, state, picks);
            state = self.merge(Width::Vector, fold, state, other);
        }
        self.b.ins().extractlane(state, 0)
    }
}

/// The numbers of the elements at lanes.
fn index(w: &mut Writer, i: Value) -> Value {
    let first = w.b.ins().ireduce(I32, i);
    if w.width == Width::Scalar { first } else { w.counting(first) }
}

fn uniform(w: &mut Writer, kind: Kind, args: Value, at: i32) -> Value {
    let ty = if kind == Kind::F32 { F32 } else { I32 };
    let value = w.b.ins().load(ty, NOTRAP, args, at);
    match (w.width, kind) {
        (Width::Scalar, Kind::Mask) => truth(w, value),
        (Width::Scalar, _) => value,
        (Width::Vector, _) => w.b.ins().splat(w.width.type_of(kind), value),
    }
}

fn truth(w: &mut Writer, x: Value) -> Value {
    w.b.ins().icmp_imm_s(IntCC::NotEqual, x, 0)
}

/// The elements of a stream at `address`, whatever its stride.
fn load_stream(w: &mut Writer, stream: Stream, address: Value) -> Value {
    if stream.stride == 1 || w.width == Width::Scalar {
        return load_element(w, stream.dtype, address);
    }
    let whole = w.width.type_of(ops::kind(stream.dtype));
    let at = |lane: i32| 4 * i32::from(stream.stride) * lane;
    let first = w.b.ins().load(whole.lane_type(), NOTRAP, address, at(0));
    let mut vector = w.b.ins().splat(whole, first);
    for lane in 1..4 {
        let element = w.b.ins().load(whole.lane_type(), NOTRAP, address, at(lane));
        vector = w.b.ins().insertlane(vector, element, lane as u8);
    }
    vector
}

/// The elements of a stream at `address`.
pub(super) fn load_element(w: &mut Writer, dtype: DType, address: Value) -> Value {
    let kind = ops::kind(dtype);
    if dtype.bytes() == 4 {
        return w.b.ins().load(w.width.type_of(kind), NOTRAP, address, 0);
    }
    if w.width == Width::Scalar {
        let byte = w.b.ins().uload8(I32, NOTRAP, address, 0);
        return if kind == Kind::Mask { truth(w, byte) } else { byte };
    }
    let bytes = w.b.ins().load(I32, NOTRAP, address, 0);
    let bytes = w.b.ins().scalar_to_vector(I32X4, bytes);
    let bytes = w.cast_bits(bytes, I8X16);
    let words = w.b.ins().uwiden_low(bytes);
    let words = w.b.ins().uwiden_low(words);
    if kind != Kind::Mask {
        return words;
    }
    let zero = w.constant(Kind::I32, 0);
    w.b.ins().icmp(IntCC::NotEqual, words, zero)
}

/// Stores elements of a stream at `address`, whatever its stride.
fn store_stream(w: &mut Writer, stream: Stream, value: Value, address: Value) {
    if stream.stride == 1 || w.width == Width::Scalar {
        return store_element(w, stream.dtype, value, address);
    }
    for lane in 0..4u8 {
        let element = w.b.ins().extractlane(value, lane);
        let at = 4 * i32::from(stream.stride) * i32::from(lane);
        w.b.ins().store(NOTRAP, element, address, at);
    }
}

/// Stores elements of a stream at `address`.
pub(super) fn store_element(w: &mut Writer, dtype: DType, value: Value, address: Value) {
    if dtype.bytes() == 4 {
        w.b.ins().store(NOTRAP, value, address, 0);
        return;
    }
    if w.width == Width::Scalar {
        let is_byte = w.b.func.dfg.value_type(value) == I8;
        let byte = if is_byte { value } else { w.b.ins().ireduce(I8, value) };
        w.b.ins().store(NOTRAP, byte, address, 0);
        return;
    }
    let words = if dtype == DType::Bool { w.b.ins().ushr_imm_u(value, 31) } else { value };
    let halves = w.b.ins().snarrow(words, words);
    let bytes = w.b.ins().unarrow(halves, halves);
    let bytes = w.cast_bits(bytes, I32X4);
    let bytes = w.b.ins().extractlane(bytes, 0);
    w.b.ins().store(NOTRAP, bytes, address, 0);
}
