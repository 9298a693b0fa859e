//! Register tiles of contractions.
//!
//! Registers: `rdi` the argument block, `rsi` and `r8` the left panel from rows 0 and 3 on, `rdx` the
//! right panel, `rcx` the steps left in the innermost loop, `r13` and `r14` in those around it, `r9`
//! the step between left rows, `r10` and `r11` between left and right elements, `rax` the tile, `rbx`
//! the step between its rows, `rbp` the tiles left, `r12` the left panel of this tile. Where tiles
//! share in asking for the next right panel, `r14` is what is asked for next. Outside the loops of
//! steps, `r11` points to the constants.
//!
//! The sums are in the first vector registers, row by row.

use super::Width;
use super::access::{Part, load_words, store_words};
use super::asm::{Assembler, Label, Mem, Operand};
use super::codes::{self, FmaForm};
use super::epilogue::{self, Sums};
use super::frame::{Frame, mask_register};
use crate::leaf::epilogue::Epilogue;
use crate::leaf::lanes::{Binary, Kind};
use crate::leaf::{AheadRight, GemmField, GemmTile, Left};
use iced_x86::{Code, IcedError, Register};

/// The most steps of a round of the innermost loop.
const MOST_UNROLLED: u8 = 4;

/// The most vectors of the right panel that a round loads: processors that guess what is read next
/// from each load instruction's own steps keep up with so many instructions, and not with more.
const MOST_LOADS: u8 = 16;

/// What a leaf must leave as it was.
const SAVED: [Register; 5] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14];

/// Bytes of a line of the cache.
const LINE: u16 = 64;

/// What is asked for next of the next right panel.
const NEXT: Register = Register::R14;

/// The rows that a strided left panel may have: so many are reached by two registers and a step.
const STRIDED_ROWS: u8 = 6;

/// The machine code of a tile.
///
/// # Errors
/// What the encoder has to say against an instruction.
///
/// # Panics
/// If the tile has more sums than registers, or shares in asking for a panel in three loops of steps.
pub fn assemble(
    width: Width,
    tile: GemmTile,
    epilogue: Option<&Epilogue>,
) -> Result<Vec<u8>, IcedError> {
    assert!(holds(width, tile), "{tile:?} has more sums than registers");
    assert!(
        !tile.ahead.right.is_shared() || tile.levels <= 2,
        "{tile:?} has no register for the next panel"
    );
    Gemm { a: Assembler::new(width), width, tile, epilogue, frame: Frame::default() }.assemble()
}

/// Whether the sums of so many rows and columns fit the registers beside what a step needs.
pub fn fits(width: Width, rows: i64, columns: i64) -> bool {
    let vectors = (columns + i64::from(width.lanes()) - 1) / i64::from(width.lanes());
    let (broadcast, streamed) = if rows >= vectors { (1, vectors) } else { (rows, 1) };
    rows * vectors + broadcast + streamed <= width.registers().into()
}

/// The width of a tile's vectors where they may be so wide.
pub fn width(widest: Width, tile: GemmTile) -> Width {
    if tile.short { Width::Ymm } else { widest }
}

/// Whether there is code for a tile in vectors of that width.
pub fn holds(width: Width, tile: GemmTile) -> bool {
    let reachable = tile.left == Left::Packed || tile.rows <= STRIDED_ROWS;
    reachable && fits(width, tile.rows.into(), tile.columns.into())
}

/// Writes a tile loop.
struct Gemm<'e> {
    a: Assembler,
    width: Width,
    tile: GemmTile,
    epilogue: Option<&'e Epilogue>,
    frame: Frame,
}

/// A vector of the tile.
#[derive(Clone, Copy)]
struct Cell {
    /// Where its sums are.
    register: u8,
    /// Where it is in memory, from the row that `rax` points to.
    at: Mem,
    part: Part,
}

impl Gemm<'_> {
    fn assemble(mut self) -> Result<Vec<u8>, IcedError> {
        SAVED.iter().for_each(|&r| self.a.emit(Code::Push_r64, &[r.into()]));
        let frame = self.epilogue.map(|_| self.enter_frame());
        for (register, field) in [
            (Register::RAX, GemmField::C),
            (Register::RBX, GemmField::CStep),
            (Register::RBP, GemmField::Tiles),
            (Register::R12, GemmField::A),
        ] {
            self.load_field(register, field.at(0));
        }
        let (next, done) = (self.a.label(), self.a.label());
        let left = Register::RBP.into();
        self.a.emit(Code::Test_rm64_r64, &[left, left]);
        self.a.jump(Code::Jle_rel32_64, done);
        self.a.place(next);
        self.emit_tile();
        self.a.emit(Code::Dec_rm64, &[left]);
        self.a.jump(Code::Jne_rel32_64, next);
        self.a.place(done);
        self.a.emit(Code::VEX_Vzeroupper, &[]);
        if let Some(frame) = frame {
            self.leave_frame(frame);
        }
        SAVED.iter().rev().for_each(|&r| self.a.emit(Code::Pop_r64, &[r.into()]));
        self.a.emit(Code::Retnq, &[]);
        self.a.bytes()
    }

    /// Makes room on the stack, of a size that is not known yet.
    fn enter_frame(&mut self) -> usize {
        let stack = Register::RSP.into();
        self.a.emit(Code::Push_r64, &[Register::R15.into()]);
        self.a.emit(Code::Mov_r64_rm64, &[Register::R15.into(), stack]);
        let frame = self.a.emit_incomplete(Code::Sub_rm64_imm32, Register::RSP);
        self.a.emit(Code::And_rm64_imm8, &[stack, Operand::Signed8(-64)]);
        frame
    }

    fn leave_frame(&mut self, frame: usize) {
        self.a.emit(Code::Mov_r64_rm64, &[Register::RSP.into(), Register::R15.into()]);
        self.a.emit(Code::Pop_r64, &[Register::R15.into()]);
        self.a.complete(frame, self.frame.bytes(self.width));
    }

    fn load_field(&mut self, to: Register, at: i32) {
        self.a.emit(Code::Mov_r64_rm64, &[to.into(), Mem::at(Register::RDI, at).into()]);
    }

    fn add(&mut self, to: Register, what: impl Into<Operand>) {
        self.a.emit(Code::Add_r64_rm64, &[to.into(), what.into()]);
    }

    fn add_field(&mut self, to: Register, at: i32) {
        self.add(to, Mem::at(Register::RDI, at));
    }

    /// Vectors of a row of the tile.
    fn vectors(&self) -> u8 {
        self.tile.columns.div_ceil(self.width.lanes() as u8)
    }

    /// Active lanes of the last vector of a row, if not all.
    fn rest(&self) -> u8 {
        self.tile.columns % self.width.lanes() as u8
    }

    fn sums(&self) -> u8 {
        self.tile.rows * self.vectors()
    }

    /// One tile; afterwards the pointers are those of the next.
    fn emit_tile(&mut self) {
        self.load_mask();
        self.emit_start();
        self.prefetch_streams();
        self.a.emit(Code::Mov_r64_rm64, &[Register::RSI.into(), Register::R12.into()]);
        for (register, field) in [
            (Register::RDX, GemmField::B),
            (Register::R9, GemmField::ARow),
            (Register::R10, GemmField::AMoves),
            (Register::R11, GemmField::BMoves),
        ] {
            self.load_field(register, field.at(0));
        }
        self.find_lower_rows();
        let shares = self.tile.ahead.right.is_shared();
        let next: [Operand; 2] =
            [NEXT.into(), Mem::at(Register::RDI, GemmField::Next.at(0)).into()];
        if shares {
            self.a.emit(Code::Mov_r64_rm64, &next);
        }
        self.emit_nest(usize::from(self.tile.levels) - 1);
        if shares {
            self.a.emit(Code::Mov_rm64_r64, &[next[1], next[0]]);
        }
        self.load_mask();
        match self.epilogue {
            Some(epilogue) => self.emit_end(epilogue),
            None => self.store_sums(),
        }
        self.add(Register::RAX, Register::RBX);
        self.add_field(Register::R12, GemmField::ATile.at(0));
    }

    fn store_sums(&mut self) {
        self.for_cells(|a, cell| store_words(a, cell.part, cell.at, cell.register));
    }

    /// Stores the sums, or what the epilogue makes of them.
    fn emit_end(&mut self, epilogue: &Epilogue) {
        let (unfinished, done) = (self.a.label(), self.a.label());
        self.a.jump_if_zero(Mem::at(Register::RDI, GemmField::Finish.at(0)), unfinished);
        let last = self.part(self.vectors() - 1);
        let (rows, vectors, last_lanes) = (self.tile.rows, self.vectors(), self.rest());
        let sums = Sums { rows, vectors, last, last_lanes };
        epilogue::emit(&mut self.a, &mut self.frame, epilogue, sums);
        (1..self.tile.rows).for_each(|_| self.add(Register::RAX, Register::RBX));
        self.a.jump(Code::Jmp_rel32_64, done);
        self.a.place(unfinished);
        self.store_sums();
        self.a.place(done);
    }

    /// Which lanes a vector of a row has.
    fn part(&self, v: u8) -> Part {
        let partial = self.rest() > 0 && v + 1 == self.vectors();
        if partial { Part::Tail } else { Part::Whole }
    }

    /// Selects the active lanes of the last vectors while the tile is read and written; the steps
    /// may use the register.
    fn load_mask(&mut self) {
        match (self.rest(), self.width) {
            (0, _) => {}
            (rest, Width::Ymm) => {
                self.a.load_constants();
                let lanes = self.a.first_lanes(rest);
                let mask = self.vector(mask_register(self.width));
                self.a.emit(codes::load(self.width), &[mask, lanes.into()]);
            }
            (rest, Width::Zmm) => {
                let bits = Operand::Reg(Register::ECX);
                self.a.emit(Code::Mov_r32_imm32, &[bits, Operand::Imm32((1 << rest) - 1)]);
                self.a.emit(Code::VEX_Kmovw_kr_r32, &[Register::K1.into(), bits]);
            }
        }
    }

    /// Sums start at zero, or at what the tile holds.
    fn emit_start(&mut self) {
        let (zero, start) = (self.a.label(), self.a.label());
        self.a.jump_if_zero(Mem::at(Register::RDI, GemmField::Accumulate.at(0)), zero);
        self.a.emit(Code::Push_r64, &[Register::RAX.into()]);
        self.for_cells(|a, cell| load_words(a, cell.part, cell.register, cell.at));
        self.prefetch_next();
        self.a.emit(Code::Pop_r64, &[Register::RAX.into()]);
        self.a.jump(Code::Jmp_rel32_64, start);
        self.a.place(zero);
        for sum in 0..self.sums() {
            let sum = self.vector(sum);
            self.a.emit(codes::binary(self.width, Binary::Xor, Kind::F32), &[sum; 3]);
        }
        self.a.place(start);
    }

    /// Asks for the sums of the tile below, long before they are read; `rax` is at the last row.
    fn prefetch_next(&mut self) {
        for _ in 0..self.tile.rows {
            self.add(Register::RAX, Register::RBX);
            for line in (0..i32::from(self.tile.columns)).step_by(16) {
                let at = Mem::at(Register::RAX, 4 * line);
                self.a.emit(Code::Prefetcht0_m8, &[at.into()]);
            }
        }
    }

    /// Asks for what the epilogue will load and store.
    fn prefetch_streams(&mut self) {
        let Some(epilogue) = self.epilogue else { return };
        let unfinished = self.a.label();
        self.a.jump_if_zero(Mem::at(Register::RDI, GemmField::Finish.at(0)), unfinished);
        let (rows, bytes) = (self.tile.rows, 4 * i32::from(self.tile.columns));
        epilogue::prefetch(&mut self.a, epilogue, rows, bytes);
        self.a.place(unfinished);
    }

    /// Every vector of the tile, row by row; `rax` walks down to the last row.
    fn for_cells(&mut self, body: impl Fn(&mut Assembler, Cell)) {
        for row in 0..self.tile.rows {
            if row > 0 {
                self.add(Register::RAX, Register::RBX);
            }
            for v in 0..self.vectors() {
                let part = self.part(v);
                let at = Mem::at(Register::RAX, self.width.bytes() * i32::from(v));
                let cell = Cell { register: row * self.vectors() + v, at, part };
                body(&mut self.a, cell);
            }
        }
    }

    /// Sets the pointer to row 3 by that to row 0.
    fn find_lower_rows(&mut self) {
        if self.tile.left == Left::Strided {
            let row = Mem { base: Register::RSI, index: Some((Register::R9, 2)), offset: 0 };
            self.a.emit(Code::Lea_r64_m, &[Register::R8.into(), row.into()]);
            self.add(Register::R8, Register::R9);
        }
    }

    /// The loop of a level with all loops inside it.
    fn emit_nest(&mut self, level: usize) {
        if level == 0 {
            return self.emit_innermost();
        }
        let counter = [Register::R13, Register::R14][level - 1];
        let head = self.a.label();
        self.load_field(counter, GemmField::Counts.at(level));
        match level == 1 && self.tile.run.is_some() {
            true => self.a.place_loop(head),
            false => self.a.place(head),
        }
        self.emit_nest(level - 1);
        self.add_field(Register::RSI, GemmField::AMoves.at(level));
        self.add_field(Register::RDX, GemmField::BMoves.at(level));
        self.find_lower_rows();
        self.a.emit(Code::Dec_rm64, &[counter.into()]);
        self.a.jump(Code::Jne_rel32_64, head);
    }

    fn emit_innermost(&mut self) {
        if let Some(run) = self.tile.run {
            return self.emit_round(run);
        }
        self.load_field(Register::RCX, GemmField::Counts.at(0));
        let unroll = (MOST_LOADS / self.vectors()).clamp(1, MOST_UNROLLED);
        self.emit_loop(unroll, Assembler::place_loop);
        if unroll > 1 {
            self.emit_loop(1, Assembler::place);
        }
    }

    /// Loops while at least `unroll` steps are left, that many a round.
    fn emit_loop(&mut self, unroll: u8, place: fn(&mut Assembler, Label)) {
        let (head, done) = (self.a.label(), self.a.label());
        let operands = [Register::RCX.into(), Operand::Signed8(unroll as i8)];
        self.a.emit(Code::Sub_rm64_imm8, &operands);
        self.a.jump(Code::Jl_rel32_64, done);
        place(&mut self.a, head);
        self.emit_round(unroll);
        self.a.emit(Code::Sub_rm64_imm8, &operands);
        self.a.jump(Code::Jge_rel32_64, head);
        self.a.place(done);
        self.a.emit(Code::Add_rm64_imm8, &operands);
    }

    /// So many steps.
    fn emit_round(&mut self, steps: u8) {
        let rows = u16::from(self.tile.rows);
        let together = (LINE / 4 / rows).max(1);
        if let AheadRight::Share(bytes) = self.tile.ahead.right {
            self.prefetch_share(bytes * u16::from(steps));
        }
        for step in 0..u16::from(steps) {
            if self.tile.ahead.left != 0 && step % together == 0 {
                self.prefetch((Register::RSI, self.tile.ahead.left), 4 * rows);
            }
            if let AheadRight::Step(distance) = self.tile.ahead.right {
                self.prefetch((Register::RDX, distance), 4 * u16::from(self.tile.columns));
            }
            self.emit_step();
        }
    }

    fn emit_step(&mut self) {
        match self.tile.rows >= self.vectors() {
            true => self.emit_step_by_rows(),
            false => self.emit_step_by_columns(),
        }
        self.add(Register::RSI, Register::R10);
        if self.tile.left == Left::Strided {
            self.add(Register::R8, Register::R10);
        }
        self.add(Register::RDX, Register::R11);
    }

    /// Asks for as many lines as so many bytes are, from so far after what a register points to.
    fn prefetch(&mut self, (base, distance): (Register, i32), bytes: u16) {
        for line in (0..bytes).step_by(LINE.into()) {
            let at = Mem::at(base, distance + i32::from(line));
            self.a.emit(Code::Prefetcht1_m8, &[at.into()]);
        }
    }

    /// Asks for so many bytes of the next right panel.
    fn prefetch_share(&mut self, bytes: u16) {
        self.prefetch((NEXT, 0), bytes);
        self.a.emit(Code::Add_rm64_imm32, &[NEXT.into(), Operand::Signed32(bytes.into())]);
    }

    /// The right vectors stay in registers, the left elements pass by.
    fn emit_step_by_rows(&mut self) {
        let (first, vectors) = (self.sums(), self.vectors());
        for v in 0..vectors {
            self.load_right(first + v, v);
        }
        for row in 0..self.tile.rows {
            let factor = first + vectors;
            self.load_left(factor, row);
            for v in 0..vectors {
                let right = self.vector(first + v);
                self.multiply_add(row * vectors + v, factor, right);
            }
        }
    }

    /// The left elements stay in registers, the right vectors pass by.
    fn emit_step_by_columns(&mut self) {
        let (first, rows, vectors) = (self.sums(), self.tile.rows, self.vectors());
        (0..rows).for_each(|row| self.load_left(first + row, row));
        for v in 0..vectors {
            if rows == 1 {
                let right = self.right(v);
                self.multiply_add(v, first, right);
                continue;
            }
            self.load_right(first + rows, v);
            for row in 0..rows {
                let right = self.vector(first + rows);
                self.multiply_add(row * vectors + v, first + row, right);
            }
        }
    }

    fn vector(&self, number: u8) -> Operand {
        self.width.whole(number).into()
    }

    /// `sum += factor * right`.
    fn multiply_add(&mut self, sum: u8, factor: u8, right: Operand) {
        let operands = [self.vector(sum), self.vector(factor), right];
        self.a.emit(codes::fma(self.width, FmaForm::F231, Kind::F32), &operands);
    }

    /// Vector `v` of a step of the right panel.
    fn right(&self, v: u8) -> Operand {
        Mem::at(Register::RDX, self.width.bytes() * i32::from(v)).into()
    }

    fn load_right(&mut self, to: u8, v: u8) {
        self.a.emit(codes::load(self.width), &[self.vector(to), self.right(v)]);
    }

    /// The left element of a row, in all lanes.
    fn load_left(&mut self, to: u8, row: u8) {
        let base = if row < 3 { Register::RSI } else { Register::R8 };
        let index = |rows| Some((Register::R9, rows)).filter(|_| rows > 0);
        let at = match self.tile.left {
            Left::Packed => Mem::at(Register::RSI, 4 * i32::from(row)),
            Left::Strided => Mem { base, index: index(u32::from(row) % 3), offset: 0 },
        };
        self.a.emit(codes::broadcast(self.width), &[self.vector(to), at.into()]);
    }
}
