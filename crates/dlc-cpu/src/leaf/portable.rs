//! Every leaf in Cranelift's 128-bit vectors: correct at every level, the best there is on aarch64.

use super::{GemmField, GemmTile, Leaf, Left};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I64};
use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, Value};
use cranelift_frontend::FunctionBuilder;

const LANES: usize = 4;
const VECTOR_BYTES: i32 = 16;
const UNROLL: i64 = 4;
/// Leaves are given addresses that are valid, but of any alignment.
const NOTRAP: MemFlagsData = MemFlagsData::new().with_notrap();
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

/// Writes the body of `leaf` into a function with [`Leaf::signature`].
pub fn emit(b: &mut FunctionBuilder, leaf: Leaf, multiply: Multiply) {
    match leaf {
        Leaf::Gemm(tile) => emit_gemm(b, tile, multiply),
    }
}

/// The registers of a tile loop that do not change within it.
struct Gemm {
    tile: GemmTile,
    multiply: Multiply,
    args: Value,
    a_row: Value,
    a_step: Value,
    b_step: Value,
    c_step: Value,
}

fn emit_gemm(b: &mut FunctionBuilder, tile: GemmTile, multiply: Multiply) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let args = b.block_params(entry)[0];
    let a_row = field(b, args, GemmField::ARow);
    let a_step = field(b, args, GemmField::AStep);
    let b_step = field(b, args, GemmField::BStep);
    let c_step = field(b, args, GemmField::CStep);
    let gemm = Gemm { tile, multiply, args, a_row, a_step, b_step, c_step };
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
        usize::from(self.tile.columns).div_ceil(LANES)
    }

    /// Active lanes of a vector of a row.
    fn active(&self, vector: usize) -> usize {
        LANES.min(usize::from(self.tile.columns) - LANES * vector)
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
        loaded.extend(self.cells(&rows).map(|cell| load_lanes(b, cell)));
        jump(b, head, &loaded);

        b.switch_to_block(head);
        let state = b.block_params(head).to_vec();
        let state = self.emit_steps(b, state, UNROLL);
        let sums = self.emit_steps(b, state, 1).split_off(3);

        for (cell, sum) in self.cells(&rows).zip(sums) {
            store_lanes(b, cell, sum);
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

    /// Every vector of the tile, row by row.
    fn cells<'a>(&'a self, rows: &'a [Value]) -> impl Iterator<Item = Cell> + 'a {
        let row = |&row| (0..self.row_vectors()).map(move |v| (row, v));
        let cell = |(row, v)| Cell { row, at: VECTOR_BYTES * v as i32, active: self.active(v) };
        rows.iter().flat_map(row).map(cell)
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
            let scalar = self.load_left(b, a, i);
            let factor = b.ins().splat(F32X4, scalar);
            for (&column, &sum) in columns.iter().zip(row) {
                let (x, y) = if row.len() > rows { (column, factor) } else { (factor, column) };
                state.push(multiply_add(b, self.multiply, x, y, sum));
            }
        }
        state
    }

    /// The left element of row `i`.
    fn load_left(&self, b: &mut FunctionBuilder, a: Value, i: usize) -> Value {
        if self.tile.left == Left::Packed {
            return b.ins().load(F32, PANEL, a, 4 * i as i32);
        }
        let offset = b.ins().imul_imm_s(self.a_row, i as i64);
        let row = b.ins().iadd(a, offset);
        b.ins().load(F32, PANEL, row, 0)
    }
}

/// Some lanes of a vector in memory.
#[derive(Clone, Copy)]
struct Cell {
    row: Value,
    at: i32,
    active: usize,
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

/// The active lanes; the others are 0.
fn load_lanes(b: &mut FunctionBuilder, cell: Cell) -> Value {
    if cell.active == LANES {
        return b.ins().load(F32X4, PANEL, cell.row, cell.at);
    }
    let first = b.ins().load(F32, PANEL, cell.row, cell.at);
    let vector = b.ins().scalar_to_vector(F32X4, first);
    (1..cell.active).fold(vector, |vector, lane| {
        let value = b.ins().load(F32, PANEL, cell.row, cell.at + 4 * lane as i32);
        b.ins().insertlane(vector, value, lane as u8)
    })
}

fn store_lanes(b: &mut FunctionBuilder, cell: Cell, vector: Value) {
    if cell.active == LANES {
        b.ins().store(NOTRAP, vector, cell.row, cell.at);
        return;
    }
    for lane in 0..cell.active {
        let value = b.ins().extractlane(vector, lane as u8);
        b.ins().store(NOTRAP, value, cell.row, cell.at + 4 * lane as i32);
    }
}

fn zero(b: &mut FunctionBuilder) -> Value {
    let zero = b.ins().f32const(0.0);
    b.ins().splat(F32X4, zero)
}

fn jump(b: &mut FunctionBuilder, to: Block, args: &[Value]) {
    let args = args.iter().map(|&v| v.into()).collect::<Vec<_>>();
    b.ins().jump(to, &args);
}
