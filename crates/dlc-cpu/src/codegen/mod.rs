//! Schedules become Cranelift IR here: an [`Emitter`] writes one function, an
//! [`expr::Evaluator`] writes the expressions inside it, and one file for each kernel form writes
//! its loops.
//!
//! What must hold: code refers to buffers only by their position in the function's operand list
//! and to nothing else of the host, so that equal functions are one function and code could be
//! shipped.

pub mod abreast;
pub mod check;
pub mod contract;
mod crossed;
pub mod expr;
pub mod fold;
pub mod load;
pub mod map;
pub mod nest;
pub mod ops;
pub mod pack;
mod part;
pub mod random;
pub mod row;
pub mod scatter;
pub mod stretch;
pub mod tail;
mod turn;

use crate::abi::{ContextField, ErrorKind, kernel_signature};
use crate::leaf::Leaf;
use crate::schedule::{Config, Schedule};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I32, I32X4, I64};
use cranelift_codegen::ir::{
    Block, ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, MemFlagsData, StackSlotData,
    StackSlotKind, Type, UserExternalName, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use dlc_kernel::BufferId;
pub use part::{Code, Part, Phase, When};
use rustc_hash::FxHashMap;

/// Lanes of a vector.
pub const LANES: i64 = 4;

/// Memory that is valid; of any alignment.
pub const NOTRAP: MemFlagsData = MemFlagsData::new().with_notrap();

/// Memory that is valid and that nothing writes while the function runs.
pub const FIXED: MemFlagsData = NOTRAP.with_readonly().with_can_move();

/// The code of a kernel, phase by phase.
pub fn phases(schedule: &Schedule, frontend: TargetFrontendConfig) -> Vec<Phase> {
    let parts = match schedule {
        Schedule::Map(segments) => segments.iter().map(|s| map::part(s, frontend)).collect(),
        Schedule::Scatter(scatter) => vec![scatter::part(scatter, frontend)],
        Schedule::Check(check) => check::parts(check, frontend),
        Schedule::Shared { .. } | Schedule::Copy { .. } => return Vec::new(),
        Schedule::Row(row) => return row::phases(row, frontend),
        Schedule::Contract(contract) => return contract::phases(contract, frontend),
    };
    vec![Phase { when: When::Call, loops: None, parts }]
}

/// Writes one kernel function.
pub struct Emitter<'a> {
    /// The instructions go here.
    pub b: FunctionBuilder<'a>,
    /// What the function is made for.
    pub config: Config,
    /// The first unit to execute.
    pub begin: Value,
    /// The end of the units to execute.
    pub end: Value,
    /// The worker that executes them.
    pub worker: Value,
    context: Value,
    nowhere: Value,
    call_conv: CallConv,
    bases: FxHashMap<BufferId, Value>,
    leaves: Vec<(Leaf, FuncRef)>,
    /// Calls of leaves so far.
    calls: usize,
    is_control: bool,
}

/// Writes a kernel function over `operands` whose body is what `body` emits.
pub fn emit(
    config: Config,
    frontend: TargetFrontendConfig,
    operands: &[BufferId],
    body: impl FnOnce(&mut Emitter),
) -> Code {
    let call_conv = frontend.default_call_conv;
    let name = UserFuncName::default();
    let mut function = Function::with_name_signature(name, kernel_signature(call_conv));
    let mut context = FunctionBuilderContext::new();
    let b = FunctionBuilder::new(&mut function, &mut context);
    let mut emitter = Emitter::new(b, config, call_conv, operands);
    body(&mut emitter);
    emitter.fence_streams();
    emitter.b.ins().return_(&[]);
    let leaves = emitter.leaves.iter().map(|l| l.0.clone()).collect();
    let is_control = emitter.is_control;
    emitter.b.seal_all_blocks();
    emitter.b.finalize(frontend);
    Code { function, leaves, is_control }
}

impl<'a> Emitter<'a> {
    fn new(
        mut b: FunctionBuilder<'a>,
        config: Config,
        call_conv: CallConv,
        operands: &[BufferId],
    ) -> Emitter<'a> {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let [context, begin, end, worker] =
            b.block_params(entry).try_into().expect("a kernel function has four parameters");
        let table = b.ins().load(I64, FIXED, context, ContextField::Operands as i32);
        let base = |(i, &id): (usize, &BufferId)| {
            (id, b.ins().load(I64, FIXED, table, 8 * i32::try_from(i).expect("few operands")))
        };
        let bases = operands.iter().enumerate().map(base).collect();
        let nowhere = b.ins().load(I64, FIXED, context, ContextField::Nowhere as i32);
        let (leaves, calls, is_control) = (Vec::new(), 0, true);
        Emitter {
            b,
            config,
            begin,
            end,
            worker,
            context,
            nowhere,
            call_conv,
            bases,
            leaves,
            calls,
            is_control,
        }
    }

    /// Writes the body of a loop, and notes if it is work that no leaf does.
    pub(super) fn loop_body<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.calls;
        let result = body(self);
        self.is_control &= self.calls > before;
        result
    }

    /// The address of the first element of an operand.
    ///
    /// # Panics
    /// If the buffer is not among the function's operands.
    pub fn base(&mut self, buffer: BufferId) -> Value {
        self.bases[&buffer]
    }

    /// A pointer-sized field of the context.
    pub fn context(&mut self, field: ContextField) -> Value {
        self.b.ins().load(I64, FIXED, self.context, field as i32)
    }

    /// [`SLACK`](crate::abi::SLACK) bytes that may be read.
    pub fn nowhere(&mut self) -> Value {
        self.nowhere
    }

    /// The workspace that all workers and phases share.
    pub fn shared(&mut self) -> Value {
        self.context(ContextField::Shared)
    }

    /// This worker's own workspace.
    pub fn scratch(&mut self) -> Value {
        let first = self.context(ContextField::Scratch);
        let stride = self.context(ContextField::ScratchStride);
        let offset = self.b.ins().imul(stride, self.worker);
        self.b.ins().iadd(first, offset)
    }

    /// Room on the stack for the arguments of a leaf.
    pub fn argument_block(&mut self, bytes: u32) -> Value {
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
        let slot = self.b.create_sized_stack_slot(data);
        self.b.ins().stack_addr(I64, slot, 0)
    }

    /// Calls a leaf with the address of its argument block.
    pub fn call_leaf(&mut self, leaf: Leaf, arguments: Value) {
        let known = self.leaves.iter().find(|l| l.0 == leaf).map(|l| l.1);
        let function = known.unwrap_or_else(|| self.import_leaf(leaf));
        self.b.ins().call(function, &[arguments]);
        self.calls += 1;
    }

    /// Lets other threads see what leaves have stored past the caches.
    fn fence_streams(&mut self) {
        let streams = |l: &(Leaf, FuncRef)| matches!(&l.0, Leaf::Loop(code) if code.streaming);
        if self.leaves.iter().any(streams) {
            self.b.ins().fence();
        }
    }

    fn import_leaf(&mut self, leaf: Leaf) -> FuncRef {
        let index = self.leaves.len() as u32;
        let signature = self.b.import_signature(Leaf::signature(self.call_conv));
        let name = UserExternalName { namespace: 0, index };
        let name = self.b.func.declare_imported_user_function(name);
        let name = ExternalName::user(name);
        let data = ExtFuncData { name, signature, colocated: true, patchable: false };
        let function = self.b.import_function(data);
        self.leaves.push((leaf, function));
        function
    }

    /// An `I64` constant.
    pub fn int(&mut self, value: i64) -> Value {
        self.b.ins().iconst(I64, value)
    }

    /// An `F32` constant.
    pub fn float(&mut self, value: f32) -> Value {
        self.b.ins().f32const(value)
    }

    /// Four lanes of the same `F32`.
    pub fn floats(&mut self, value: f32) -> Value {
        self.lanes([value.to_bits(); 4], F32X4)
    }

    /// Four lanes of the same `I32`.
    pub fn ints(&mut self, value: i32) -> Value {
        self.lanes([value as u32; 4], I32X4)
    }

    /// Four lanes by their bits, as a vector of type `ty`.
    pub fn lanes(&mut self, bits: [u32; 4], ty: Type) -> Value {
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let constant = self.b.func.dfg.constants.insert(bytes.into());
        self.b.ins().vconst(ty, constant)
    }

    /// Four copies of a scalar `F32` or `I32`; vectors stay as they are.
    pub fn splat(&mut self, value: Value) -> Value {
        match self.b.func.dfg.value_type(value) {
            F32 => self.b.ins().splat(F32X4, value),
            I32 => self.b.ins().splat(I32X4, value),
            _ => value,
        }
    }

    /// The same bits as another type of the same width.
    pub fn cast_bits(&mut self, value: Value, ty: Type) -> Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        self.b.ins().bitcast(ty, little_endian_lanes(), value)
    }

    /// `x * y + z`, in one rounding where the level has it. Scalars or vectors.
    pub fn multiply_add(&mut self, x: Value, y: Value, z: Value) -> Value {
        if self.config.level.has_fma() {
            return self.b.ins().fma(x, y, z);
        }
        let product = self.b.ins().fmul(x, y);
        self.b.ins().fadd(product, z)
    }

    /// `x + factor * y` on `I64`, with the trivial factors left out.
    pub fn add_scaled(&mut self, x: Value, y: Value, factor: i64) -> Value {
        let scaled = match factor {
            0 => return x,
            1 => y,
            f if f > 0 && f & (f - 1) == 0 => {
                self.b.ins().ishl_imm_u(y, i64::from(f.trailing_zeros()))
            }
            f => self.b.ins().imul_imm_s(y, f),
        };
        self.b.ins().iadd(x, scaled)
    }

    /// `body` for `i` in `begin..end` by `step`.
    pub fn for_each(
        &mut self,
        begin: Value,
        end: Value,
        step: i64,
        body: impl FnOnce(&mut Self, Value),
    ) {
        self.fold(begin, end, step, &[], |e, i, _| {
            body(e, i);
            Vec::new()
        });
    }

    /// `state = body(i, state)` for `i` in `begin..end` by `step`; returns the last state.
    pub fn fold(
        &mut self,
        begin: Value,
        end: Value,
        step: i64,
        initial: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (head, exit) = (self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(head, I64);
        let state = self.append_params(head, initial);
        let last = self.append_params(exit, initial);
        let first = [&[begin], initial].concat();
        let any = self.b.ins().icmp(IntCC::SignedLessThan, begin, end);
        self.branch(any, (head, &first), (exit, initial));

        self.b.switch_to_block(head);
        let state = self.loop_body(|e| body(e, i, &state));
        let next = self.b.ins().iadd_imm_s(i, step);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, next, end);
        let again = [&[next], state.as_slice()].concat();
        self.branch(more, (head, &again), (exit, &state));
        self.b.switch_to_block(exit);
        last
    }

    /// [`Emitter::fold`] between constants: no test before the first round, and no loop for one.
    pub fn repeat(
        &mut self,
        begin: i64,
        end: i64,
        step: i64,
        initial: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        if begin >= end {
            return initial.to_vec();
        }
        let first = self.int(begin);
        if begin + step >= end {
            return body(self, first, initial);
        }
        let (head, exit) = (self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(head, I64);
        let state = self.append_params(head, initial);
        self.jump(head, &[&[first], initial].concat());
        self.b.switch_to_block(head);
        let state = self.loop_body(|e| body(e, i, &state));
        let last = self.append_params(exit, &state);
        let next = self.b.ins().iadd_imm_s(i, step);
        let more = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, next, end);
        let again = [&[next], state.as_slice()].concat();
        self.branch(more, (head, &again), (exit, &state));
        self.b.switch_to_block(exit);
        last
    }

    /// `body` at every point of a space of `extents`, row-major, whose position is among this
    /// call's units. Coordinates are counted on, not divided out.
    pub fn for_units(&mut self, extents: &[i64], body: impl FnOnce(&mut Self, &[Value])) {
        self.for_points(self.begin, self.end, extents, body);
    }

    /// `body` at the points of a space of `extents` whose row-major position is in `begin..end`.
    pub fn for_points(
        &mut self,
        begin: Value,
        end: Value,
        extents: &[i64],
        body: impl FnOnce(&mut Self, &[Value]),
    ) {
        if let [_] = extents {
            return self.for_each(begin, end, 1, |e, i| body(e, &[i]));
        }
        let first = self.coordinates(begin, extents);
        self.fold(begin, end, 1, &first, |e, _, point| {
            body(e, point);
            e.next_point(point, extents)
        });
    }

    /// The coordinates of a row-major position.
    pub fn coordinates(&mut self, position: Value, extents: &[i64]) -> Vec<Value> {
        let mut rest = position;
        let mut point = Vec::new();
        for (dim, &extent) in extents.iter().enumerate().rev() {
            if dim == 0 {
                point.push(rest);
                break;
            }
            let quotient = self.b.ins().udiv_imm_u(rest, extent.max(1));
            let product = self.b.ins().imul_imm_s(quotient, extent.max(1));
            point.push(self.b.ins().isub(rest, product));
            rest = quotient;
        }
        point.reverse();
        point
    }

    /// The coordinates of the next position; past the last one, the first dim leaves its extent.
    fn next_point(&mut self, point: &[Value], extents: &[i64]) -> Vec<Value> {
        let mut carry = self.int(1);
        let mut next = point.to_vec();
        for dim in (0..point.len()).rev() {
            let stepped = self.b.ins().iadd(point[dim], carry);
            next[dim] = stepped;
            if dim == 0 {
                break;
            }
            let wraps = self.b.ins().icmp_imm_s(IntCC::Equal, stepped, extents[dim]);
            let zero = self.int(0);
            next[dim] = self.b.ins().select(wraps, zero, stepped);
            carry = self.b.ins().uextend(I64, wraps);
        }
        next
    }

    /// `then` where `condition` (an integer) is not 0, else `otherwise`; both give values of the
    /// same types.
    pub fn choose(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        let join = self.b.create_block();
        self.branch(condition, (yes, &[]), (no, &[]));
        self.b.switch_to_block(yes);
        let values = then(self);
        let results = self.append_params(join, &values);
        self.jump(join, &values);
        self.b.switch_to_block(no);
        let values = otherwise(self);
        self.jump(join, &values);
        self.b.switch_to_block(join);
        results
    }

    /// `then` where `condition` (an integer) is not 0.
    pub fn when(&mut self, condition: Value, then: impl FnOnce(&mut Self)) {
        self.choose(
            condition,
            |e| {
                then(e);
                Vec::new()
            },
            |_| Vec::new(),
        );
    }

    /// Notes an error in this worker's slot where `condition` is not 0 and none is noted yet.
    pub fn fail_if(&mut self, condition: Value, kind: ErrorKind, value: Value, extent: i64) {
        let (yes, done) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(yes);
        self.branch(condition, (yes, &[]), (done, &[]));
        self.b.switch_to_block(yes);
        let slots = self.context(ContextField::Errors);
        let slot = self.add_scaled(slots, self.worker, 64);
        let noted = self.b.ins().load(I64, NOTRAP, slot, 0);
        let note = self.b.create_block();
        self.branch(noted, (done, &[]), (note, &[]));
        self.b.switch_to_block(note);
        let kind = self.int(kind as i64);
        let extent = self.int(extent);
        for (field, at) in [(kind, 0), (value, 8), (extent, 16)] {
            self.b.ins().store(NOTRAP, field, slot, at);
        }
        self.jump(done, &[]);
        self.b.switch_to_block(done);
    }

    /// Jumps to `to` with arguments.
    pub fn jump(&mut self, to: Block, args: &[Value]) {
        let args: Vec<_> = args.iter().map(|&v| v.into()).collect();
        self.b.ins().jump(to, &args);
    }

    /// Branches to `yes` where `condition` is not 0, else to `no`.
    pub fn branch(&mut self, condition: Value, yes: (Block, &[Value]), no: (Block, &[Value])) {
        let [then, otherwise] =
            [yes.1, no.1].map(|args| args.iter().map(|&v| v.into()).collect::<Vec<_>>());
        self.b.ins().brif(condition, yes.0, &then, no.0, &otherwise);
    }

    fn append_params(&mut self, block: Block, like: &[Value]) -> Vec<Value> {
        let mut param = |&value: &Value| {
            let ty = self.b.func.dfg.value_type(value);
            self.b.append_block_param(block, ty)
        };
        like.iter().map(&mut param).collect()
    }
}

/// The flags of a cast between vectors of different lanes.
fn little_endian_lanes() -> MemFlagsData {
    MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little)
}
