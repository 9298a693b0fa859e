//! Every leaf in Cranelift's 128-bit vectors: correct at every level, the best there is on aarch64.

use super::{GemmField, GemmTile, Leaf, portable_loop};
use crate::level::Level;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I64};
use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, Value};
use cranelift_frontend::FunctionBuilder;

const LANES: usize = 4;
const VECTOR_BYTES: i32 = 16;
const UNROLL: i64 = 4;
/// Leaves are given addresses that are valid, but of any alignment.
pub(super) const NOTRAP: MemFlagsData = MemFlagsData::new().with_notrap();
/// Panels never change while a leaf runs, so their loads may sink to where they are used.
const PANEL: MemFlagsData = NOTRAP;

/// How a step multiplies and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiply {
    /// One rounding, one instruction.
    Fused,
    /// Two roundings, for levels whose fused form would be a library call.
    Separate,
}

impl Multiply {
    /// The better one that the level has.
    pub fn of(level: Level) -> Multiply {
        if level.has_fma() { Multiply::Fused } else { Multiply::Separate }
    }
}

/// Writes the body of `leaf` into a function with [`Leaf::signature`].
pub fn emit(b: &mut FunctionBuilder, leaf: &Leaf, multiply: Multiply) {
    match leaf {
        Leaf::Gemm(tile) => emit_gemm(b, *tile, multiply),
        Leaf::Loop(code) => portable_loop::emit(b, code, multiply),
    }
}

/// The registers of a tile loop that do not change within it.
struct Gemm {
    tile: GemmTile,
    multiply: Multiply,
    args: Value,
    a_step: Value,
    b_step: Value,
    c_step: Value,
}

fn emit_gemm(b: &mut FunctionBuilder, tile: GemmTile, multiply: Multiply) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let args = b.block_params(entry)[0];
    let a_step = field(b, args, GemmField::AStep);
    let b_step = field(b, args, GemmField::BStep);
    let c_step = field(b, args, GemmField::CStep);
    let gemm = Gemm { tile, multiply, args, a_step, b_step, c_step };
    let (a, c) = (field(b, args, GemmField::A), field(b, args, GemmField::C));
    let tiles = field(b, args, GemmField::Tiles);

    let (head, body, done) = (b.create_block(), b.create_block(), b.create_block());
    let [a, c, left] = [a, c, tiles].map(|v| (v, b.append_block_param(head, I64)));
    jump(b, head, &[a.0, c.0, left.0]);
    b.switch_to_block(head);
    b.ins().brif(left.1, body, &[], done, &[]);
    b.switch_to_block(body);
    let below = gemm.emit_tile(b, a.1, c.1);
    let step = field(b, args, GemmField::ATile);
    let next_a = b.ins().iadd(a.1, step);
    let next_left = b.ins().iadd_imm_s(left.1, -1);
    jump(b, head, &[next_a, below, next_left]);
    b.switch_to_block(done);
    b.ins().return_(&[]);
}

impl Gemm {
    fn row_vectors(&self) -> usize {
        usize::from(self.tile.columns) / LANES
    }

    /// One register tile at `c`; returns the address of the row below it.
    fn emit_tile(&self, b: &mut FunctionBuilder, a: Value, c: Value) -> Value {
        let (load, head) = (b.create_block(), b.create_block());
        let accumulate = field(b, self.args, GemmField::Accumulate);
        let right = field(b, self.args, GemmField::B);
        let depth = field(b, self.args, GemmField::Depth);
        let (rows, below) = self.row_addresses(b, c);
        let zero = zero(b);
        let mut start = vec![a, right, depth];
        start.resize(3 + rows.len() * self.row_vectors(), zero);
        for value in &start {
            let ty = b.func.dfg.value_type(*value);
            b.append_block_param(head, ty);
        }
        let start_args = start.iter().map(|&v| v.into()).collect::<Vec<_>>();
        b.ins().brif(accumulate, load, &[], head, &start_args);

        b.switch_to_block(load);
        let mut loaded = vec![a, right, depth];
        loaded.extend(self.cells(&rows).map(|(row, at)| load_vector(b, row, at)));
        jump(b, head, &loaded);

        b.switch_to_block(head);
        let state = b.block_params(head).to_vec();
        let state = self.emit_steps(b, state, UNROLL);
        let sums = self.emit_steps(b, state, 1).split_off(3);

        for ((row, at), sum) in self.cells(&rows).zip(sums) {
            b.ins().store(NOTRAP, sum, row, at);
        }
        below
    }

    /// The address of every row of the tile at `c`, and of the row below.
    fn row_addresses(&self, b: &mut FunctionBuilder, c: Value) -> (Vec<Value>, Value) {
        let mut rows = vec![c];
        for i in 0..usize::from(self.tile.rows) {
            rows.push(b.ins().iadd(rows[i], self.c_step));
        }
        let below = rows.pop().expect("a tile has at least one row");
        (rows, below)
    }

    /// Address and offset of every vector of the tile, row by row.
    fn cells<'a>(&self, rows: &'a [Value]) -> impl Iterator<Item = (Value, i32)> + 'a {
        let vectors = self.row_vectors();
        rows.iter().flat_map(move |&row| (0..vectors).map(move |v| (row, VECTOR_BYTES * v as i32)))
    }

    /// Loops while at least `unroll` steps are left, that many a round. The loop carries its sums
    /// from register to register, which is what unrolling saves.
    fn emit_steps(&self, b: &mut FunctionBuilder, state: Vec<Value>, unroll: i64) -> Vec<Value> {
        let (body, done) = (b.create_block(), b.create_block());
        for block in [body, done] {
            for &value in &state {
                let ty = b.func.dfg.value_type(value);
                b.append_block_param(block, ty);
            }
        }
        let branch = |b: &mut FunctionBuilder, state: &[Value]| {
            let args = state.iter().map(|&v| v.into()).collect::<Vec<_>>();
            let more = b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, state[2], unroll);
            b.ins().brif(more, body, &args, done, &args);
        };
        branch(b, &state);
        b.switch_to_block(body);
        let mut state = b.block_params(body).to_vec();
        for _ in 0..unroll {
            state = self.emit_step(b, &state);
        }
        branch(b, &state);
        b.switch_to_block(done);
        b.block_params(done).to_vec()
    }

    /// `state` is both addresses, the steps left, and the sums; so is the result. The multiplicand
    /// that is used least comes first: fused instructions overwrite it.
    fn emit_step(&self, b: &mut FunctionBuilder, state: &[Value]) -> Vec<Value> {
        let (a, right, left, sums) = (state[0], state[1], state[2], &state[3..]);
        let next = [
            b.ins().iadd(a, self.a_step),
            b.ins().iadd(right, self.b_step),
            b.ins().iadd_imm_s(left, -1),
        ];
        let columns: Vec<Value> = (0..self.row_vectors())
            .map(|v| b.ins().load(F32X4, PANEL, right, VECTOR_BYTES * v as i32))
            .collect();
        let mut state = next.to_vec();
        let rows = usize::from(self.tile.rows);
        for (i, row) in sums.chunks(self.row_vectors()).enumerate() {
            let scalar = b.ins().load(F32, PANEL, a, 4 * i as i32);
            let factor = b.ins().splat(F32X4, scalar);
            for (&column, &sum) in columns.iter().zip(row) {
                let (x, y) = if row.len() > rows { (column, factor) } else { (factor, column) };
                state.push(multiply_add(b, self.multiply, x, y, sum));
            }
        }
        state
    }
}

/// `x * y + sum`.
pub fn multiply_add(
    b: &mut FunctionBuilder,
    multiply: Multiply,
    x: Value,
    y: Value,
    sum: Value,
) -> Value {
    match multiply {
        Multiply::Fused => b.ins().fma(x, y, sum),
        Multiply::Separate => {
            let product = b.ins().fmul(x, y);
            b.ins().fadd(sum, product)
        }
    }
}

fn field(b: &mut FunctionBuilder, args: Value, field: GemmField) -> Value {
    b.ins().load(I64, NOTRAP, args, field as i32)
}

fn load_vector(b: &mut FunctionBuilder, address: Value, offset: i32) -> Value {
    b.ins().load(F32X4, NOTRAP, address, offset)
}

fn zero(b: &mut FunctionBuilder) -> Value {
    let zero = b.ins().f32const(0.0);
    b.ins().splat(F32X4, zero)
}

fn jump(b: &mut FunctionBuilder, to: Block, args: &[Value]) {
    let args = args.iter().map(|&v| v.into()).collect::<Vec<_>>();
    b.ins().jump(to, &args);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::GemmArgs;
    use cranelift_codegen::Context;
    use cranelift_frontend::FunctionBuilderContext;
    use cranelift_jit::{JITBuilder, JITModule};
    use cranelift_module::{Module, default_libcall_names};
    use dlc_kernel::OptLevel;

    type LeafFn = unsafe extern "C" fn(*const GemmArgs);

    fn with_leaf(tile: GemmTile, multiply: Multiply, test: impl FnOnce(LeafFn)) {
        let level = Level::detect().expect("tests run on a machine with a level");
        let isa = level.isa(OptLevel::O0).expect("there is a code generator");
        let frontend = isa.frontend_config();
        let builder = JITBuilder::with_isa(isa, default_libcall_names());
        let mut module = JITModule::new(builder);
        let mut context = Context::new();
        context.func.signature = Leaf::signature(frontend.default_call_conv);
        let mut builder_context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut context.func, &mut builder_context);
        emit(&mut b, &Leaf::Gemm(tile), multiply);
        b.seal_all_blocks();
        b.finalize(frontend);
        let id = module.declare_anonymous_function(&context.func.signature).expect("a new name");
        module.define_function(id, &mut context).expect("the leaf compiles");
        module.finalize_definitions().expect("there is memory for code");
        // SAFETY: the function has the signature of a leaf.
        test(unsafe {
            std::mem::transmute::<*const u8, LeafFn>(module.get_finalized_function(id))
        });
        // SAFETY: no function of the module runs any more.
        unsafe { module.free_memory() };
    }

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 7.0 - 7.0).collect()
    }

    /// Compares the bits of `tiles` tiles, and what lies right of them, with a plain loop.
    fn check(leaf: LeafFn, tile: GemmTile, multiply: Multiply, depth: usize, tiles: usize) {
        let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
        let width = columns + 3;
        let (a, b) = (numbers(tiles * depth * rows, 1), numbers(depth * width, 2));
        for accumulate in [0, 1] {
            let mut expected = numbers(tiles * rows * width, 3);
            let mut found = expected.clone();
            for (row, values) in expected.chunks_mut(width).enumerate() {
                for (j, value) in values[..columns].iter_mut().enumerate() {
                    *value = if accumulate == 1 { *value } else { 0.0 };
                    for p in 0..depth {
                        let x = a[(row / rows * depth + p) * rows + row % rows];
                        let y = b[p * width + j];
                        *value = match multiply {
                            Multiply::Fused => x.mul_add(y, *value),
                            Multiply::Separate => x * y + *value,
                        };
                    }
                }
            }
            let args = GemmArgs {
                a: a.as_ptr(),
                b: b.as_ptr(),
                c: found.as_mut_ptr(),
                depth: depth as i64,
                a_step: 4 * rows as i64,
                b_step: 4 * width as i64,
                c_step: 4 * width as i64,
                tiles: tiles as i64,
                a_tile: (4 * rows * depth) as i64,
                accumulate,
            };
            // SAFETY: all addresses the leaf forms from `args` lie in the three vectors.
            unsafe { leaf(&args) };
            assert_eq!(found, expected, "{tile:?}, depth {depth}, {tiles} tiles");
        }
    }

    #[test]
    fn a_tile_is_exact_at_every_height_and_depth() {
        let level = Level::detect().expect("tests run on a machine with a level");
        let fused = level.has_fma().then_some(Multiply::Fused);
        for multiply in [Multiply::Separate].into_iter().chain(fused) {
            for (rows, columns) in
                [(1, 4), (1, 8), (2, 8), (3, 8), (4, 8), (1, 16), (2, 16), (1, 32)]
            {
                let tile = GemmTile { rows, columns };
                with_leaf(tile, multiply, |leaf| {
                    for depth in 0..=9 {
                        (0..=3).for_each(|tiles| check(leaf, tile, multiply, depth, tiles));
                    }
                });
            }
        }
    }
}
