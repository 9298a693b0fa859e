//! Every leaf in Cranelift's 128-bit vectors: correct at every level, the best there is on aarch64.

use super::epilogue::Epilogue;
use super::portable_epilogue::Emitter;
use super::{GemmField, GemmTile, Leaf, Left, portable_loop};
use crate::level::Level;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I64};
use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, Value};
use cranelift_frontend::FunctionBuilder;

pub(super) const LANES: usize = 4;
pub(super) const VECTOR_BYTES: i32 = 16;
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
        Leaf::Gemm(tile, epilogue) => emit_gemm(b, *tile, epilogue.as_deref(), multiply),
        Leaf::Loop(code) => portable_loop::emit(b, code, multiply),
    }
}

/// The registers of a tile loop that do not change within it.
struct Gemm<'e> {
    tile: GemmTile,
    epilogue: Option<&'e Epilogue>,
    multiply: Multiply,
    args: Value,
    a_row: Value,
    c_step: Value,
}

fn emit_gemm(
    b: &mut FunctionBuilder,
    tile: GemmTile,
    epilogue: Option<&Epilogue>,
    multiply: Multiply,
) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let args = b.block_params(entry)[0];
    let a_row = field(b, args, GemmField::ARow);
    let c_step = field(b, args, GemmField::CStep);
    let gemm = Gemm { tile, epilogue, multiply, args, a_row, c_step };
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

impl Gemm<'_> {
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
        let (rows, below) = self.row_addresses(b, c);
        let zero = zero(b);
        let mut start = vec![a, right];
        start.resize(2 + rows.len() * self.row_vectors(), zero);
        for value in &start {
            let ty = b.func.dfg.value_type(*value);
            b.append_block_param(head, ty);
        }
        let start_args = start.iter().map(|&v| v.into()).collect::<Vec<_>>();
        b.ins().brif(accumulate, load, &[], head, &start_args);

        b.switch_to_block(load);
        let mut loaded = vec![a, right];
        loaded.extend(self.cells(&rows).map(|cell| load_lanes(b, cell)));
        jump(b, head, &loaded);

        b.switch_to_block(head);
        let state = b.block_params(head).to_vec();
        let sums = self.emit_nest(b, state, usize::from(self.tile.levels) - 1).split_off(2);
        match self.epilogue {
            Some(epilogue) => self.emit_end(b, epilogue, &rows, &sums),
            None => self.store_sums(b, &rows, &sums),
        }
        below
    }

    fn store_sums(&self, b: &mut FunctionBuilder, rows: &[Value], sums: &[Value]) {
        for (cell, &sum) in self.cells(rows).zip(sums) {
            store_lanes(b, cell, sum);
        }
    }

    /// Stores the sums, or what the epilogue makes of them.
    fn emit_end(
        &self,
        b: &mut FunctionBuilder,
        epilogue: &Epilogue,
        rows: &[Value],
        sums: &[Value],
    ) {
        let (finished, unfinished, done) = (b.create_block(), b.create_block(), b.create_block());
        let finish = field(b, self.args, GemmField::Finish);
        b.ins().brif(finish, finished, &[], unfinished, &[]);
        b.switch_to_block(finished);
        let mut emitter = Emitter::new(b, epilogue, self.multiply, self.args);
        let columns = usize::from(self.tile.columns);
        sums.chunks(self.row_vectors()).for_each(|row| emitter.emit_row(row, columns));
        emitter.finish();
        jump(b, done, &[]);
        b.switch_to_block(unfinished);
        self.store_sums(b, rows, sums);
        jump(b, done, &[]);
        b.switch_to_block(done);
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

    /// The loop of a level with all loops inside it. `state` is both addresses and the sums; so is
    /// the result.
    fn emit_nest(&self, b: &mut FunctionBuilder, state: Vec<Value>, level: usize) -> Vec<Value> {
        if level == 0 {
            return self.emit_innermost(b, state);
        }
        let count = b.ins().load(I64, NOTRAP, self.args, GemmField::Counts.at(level));
        self.emit_loop(b, state, count, 1, |b, state| {
            let mut state = self.emit_nest(b, state, level - 1);
            self.advance(b, &mut state, level);
            state
        })
        .1
    }

    fn emit_innermost(&self, b: &mut FunctionBuilder, mut state: Vec<Value>) -> Vec<Value> {
        let step = |b: &mut FunctionBuilder, state: Vec<Value>| self.emit_step(b, &state);
        if let Some(run) = self.tile.run {
            return (0..run).fold(state, |state, _| step(b, state));
        }
        let mut left = field(b, self.args, GemmField::Counts);
        for unroll in [UNROLL, 1] {
            let steps = |b: &mut FunctionBuilder, state| (0..unroll).fold(state, |s, _| step(b, s));
            (left, state) = self.emit_loop(b, state, left, unroll, steps);
        }
        state
    }

    /// Loops while at least `unroll` steps are left, that many a round; also returns how many are
    /// left then. The loop carries its sums from register to register, which is what unrolling
    /// saves.
    fn emit_loop(
        &self,
        b: &mut FunctionBuilder,
        state: Vec<Value>,
        left: Value,
        unroll: i64,
        round: impl FnOnce(&mut FunctionBuilder, Vec<Value>) -> Vec<Value>,
    ) -> (Value, Vec<Value>) {
        let (body, done) = (b.create_block(), b.create_block());
        for block in [body, done] {
            for value in [&[left], &state[..]].concat() {
                let ty = b.func.dfg.value_type(value);
                b.append_block_param(block, ty);
            }
        }
        let branch = |b: &mut FunctionBuilder, left: Value, state: &[Value]| {
            let args = [&[left], state].concat();
            let args = args.iter().map(|&v| v.into()).collect::<Vec<_>>();
            let more = b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, left, unroll);
            b.ins().brif(more, body, &args, done, &args);
        };
        branch(b, left, &state);
        b.switch_to_block(body);
        let params = b.block_params(body).to_vec();
        let state = round(b, params[1..].to_vec());
        let left = b.ins().iadd_imm_s(params[0], -unroll);
        branch(b, left, &state);
        b.switch_to_block(done);
        let params = b.block_params(done);
        (params[0], params[1..].to_vec())
    }

    /// Moves both addresses on at a level.
    fn advance(&self, b: &mut FunctionBuilder, state: &mut [Value], level: usize) {
        for (address, moves) in state.iter_mut().zip([GemmField::AMoves, GemmField::BMoves]) {
            let bytes = b.ins().load(I64, PANEL, self.args, moves.at(level));
            *address = b.ins().iadd(*address, bytes);
        }
    }

    /// One step; `state` as in [`Gemm::emit_nest`]. The multiplicand that is used least comes first:
    /// fused instructions overwrite it.
    fn emit_step(&self, b: &mut FunctionBuilder, state: &[Value]) -> Vec<Value> {
        let (a, right, sums) = (state[0], state[1], &state[2..]);
        let columns: Vec<Value> = (0..self.row_vectors())
            .map(|v| b.ins().load(F32X4, PANEL, right, VECTOR_BYTES * v as i32))
            .collect();
        let mut state = vec![a, right];
        self.advance(b, &mut state, 0);
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
