//! Register tiles of contractions in AVX2 and FMA.

use crate::leaf::{GemmField, GemmTile, Left};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Lanes of a vector.
pub const LANES: u8 = 8;
const VECTOR_BYTES: i32 = 32;
const UNROLL: i32 = 4;

const YMM: [AsmRegisterYmm; 16] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14,
    ymm15,
];

/// Selects the active lanes of the last vector while the tile is read and written: sums never need
/// this register.
const MASK: AsmRegisterYmm = ymm15;

/// What a leaf must leave as it was.
const SAVED: [AsmRegister64; 5] = [rbx, rbp, r12, r13, r14];

/// The machine code of a tile.
///
/// # Errors
/// What the assembler has to say against it.
pub fn assemble(tile: GemmTile) -> Result<Vec<u8>, IcedError> {
    Gemm::new(tile)?.assemble()
}

/// Whether a tile's sums fit the registers beside what a step needs.
pub fn holds(tile: GemmTile) -> bool {
    let (rows, vectors) = (u32::from(tile.rows), u32::from(tile.columns.div_ceil(LANES)));
    let (broadcast, streamed) = if rows >= vectors { (1, vectors) } else { (rows, 1) };
    let reachable = tile.left == Left::Packed || rows <= 6;
    let sums = rows * vectors;
    reachable && sums < 16 && sums + broadcast + streamed <= 16
}

/// Writes a tile loop. Registers: `rsi` and `r8` the left panel from rows 0 and 3 on, `rdx` the
/// right panel, `rcx` the steps left in the innermost loop, `r13` and `r14` in those around it,
/// `r9` the step between left rows, `r10` and `r11` between left and right elements, `rax` the
/// tile, `rbx` the step between its rows, `rbp` the tiles left, `r12` the left panel of this tile.
struct Gemm {
    a: CodeAssembler,
    tile: GemmTile,
    /// Vectors of a row of the tile.
    vectors: usize,
    /// Active lanes of the last vector, if not all.
    rest: u8,
    mask: CodeLabel,
}

impl Gemm {
    fn new(tile: GemmTile) -> Result<Gemm, IcedError> {
        assert!(holds(tile), "{tile:?} has more sums than registers");
        let mut a = CodeAssembler::new(64)?;
        let mask = a.create_label();
        let vectors = usize::from(tile.columns.div_ceil(LANES));
        Ok(Gemm { a, tile, vectors, rest: tile.columns % LANES, mask })
    }

    fn assemble(mut self) -> Result<Vec<u8>, IcedError> {
        for register in SAVED {
            self.a.push(register)?;
        }
        for (register, field) in [
            (r9, GemmField::ARow),
            (r10, GemmField::AMoves),
            (r11, GemmField::BMoves),
            (rax, GemmField::C),
            (rbx, GemmField::CStep),
            (rbp, GemmField::Tiles),
            (r12, GemmField::A),
        ] {
            self.a.mov(register, field_of(field))?;
        }
        let (mut next, mut done) = (self.a.create_label(), self.a.create_label());
        self.a.test(rbp, rbp)?;
        self.a.jle(done)?;
        self.a.set_label(&mut next)?;
        self.emit_tile()?;
        self.a.dec(rbp)?;
        self.a.jnz(next)?;
        self.a.set_label(&mut done)?;
        self.a.vzeroupper()?;
        for register in SAVED.into_iter().rev() {
            self.a.pop(register)?;
        }
        self.a.ret()?;
        self.emit_mask()?;
        self.a.assemble(0)
    }

    /// The constant that selects the active lanes of the last vector.
    fn emit_mask(&mut self) -> Result<(), IcedError> {
        if self.rest == 0 {
            return Ok(());
        }
        let lanes: Vec<u32> =
            (0..LANES).map(|l| if l < self.rest { u32::MAX } else { 0 }).collect();
        self.a.set_label(&mut self.mask)?;
        self.a.dd(&lanes)
    }

    /// One tile; afterwards the pointers are those of the next.
    fn emit_tile(&mut self) -> Result<(), IcedError> {
        self.a.mov(rsi, r12)?;
        self.a.mov(rdx, field_of(GemmField::B))?;
        self.find_lower_rows()?;
        self.load_mask()?;
        self.emit_start()?;
        self.emit_nest(usize::from(self.tile.levels) - 1)?;
        self.load_mask()?;
        self.for_cells(|gemm, at, sum, partial| match partial {
            true => gemm.a.vmaskmovps(ymmword_ptr(at), MASK, sum),
            false => gemm.a.vmovups(ymmword_ptr(at), sum),
        })?;
        self.a.add(rax, rbx)?;
        self.a.add(r12, field_of(GemmField::ATile))
    }

    fn load_mask(&mut self) -> Result<(), IcedError> {
        if self.rest == 0 {
            return Ok(());
        }
        self.a.vmovups(MASK, ymmword_ptr(self.mask))
    }

    /// Sums start at zero, or at what the tile holds.
    fn emit_start(&mut self) -> Result<(), IcedError> {
        let (mut zero, mut start) = (self.a.create_label(), self.a.create_label());
        self.a.cmp(qword_ptr(rdi + GemmField::Accumulate as i32), 0)?;
        self.a.je(zero)?;
        self.a.push(rax)?;
        self.for_cells(|gemm, at, sum, partial| match partial {
            true => gemm.a.vmaskmovps(sum, MASK, ymmword_ptr(at)),
            false => gemm.a.vmovups(sum, ymmword_ptr(at)),
        })?;
        self.prefetch_next()?;
        self.a.pop(rax)?;
        self.a.jmp(start)?;
        self.a.set_label(&mut zero)?;
        for &sum in &YMM[..usize::from(self.tile.rows) * self.vectors] {
            self.a.vxorps(sum, sum, sum)?;
        }
        self.a.set_label(&mut start)
    }

    /// Asks for the sums of the tile below, long before they are read; `rax` is at the last row.
    fn prefetch_next(&mut self) -> Result<(), IcedError> {
        for _ in 0..self.tile.rows {
            self.a.add(rax, rbx)?;
            for line in (0..i32::from(self.tile.columns)).step_by(16) {
                self.a.prefetcht0(byte_ptr(rax + 4 * line))?;
            }
        }
        Ok(())
    }

    /// Every vector of the tile, row by row; `rax` walks down to the last row.
    fn for_cells(
        &mut self,
        cell: impl Fn(&mut Gemm, AsmMemoryOperand, AsmRegisterYmm, bool) -> Result<(), IcedError>,
    ) -> Result<(), IcedError> {
        for row in 0..usize::from(self.tile.rows) {
            if row > 0 {
                self.a.add(rax, rbx)?;
            }
            for v in 0..self.vectors {
                let partial = self.rest > 0 && v + 1 == self.vectors;
                let at = rax + VECTOR_BYTES * v as i32;
                cell(self, at, YMM[row * self.vectors + v], partial)?;
            }
        }
        Ok(())
    }

    /// Sets the pointer to row 3 by that to row 0.
    fn find_lower_rows(&mut self) -> Result<(), IcedError> {
        if !self.is_strided() {
            return Ok(());
        }
        self.a.lea(r8, ptr(rsi + r9 * 2))?;
        self.a.add(r8, r9)
    }

    /// The loop of a level with all loops inside it.
    fn emit_nest(&mut self, level: usize) -> Result<(), IcedError> {
        if level == 0 {
            return self.emit_innermost();
        }
        let counter = [r13, r14][level - 1];
        let mut head = self.a.create_label();
        self.a.mov(counter, qword_ptr(rdi + GemmField::Counts.at(level)))?;
        self.a.set_label(&mut head)?;
        self.emit_nest(level - 1)?;
        self.a.add(rsi, qword_ptr(rdi + GemmField::AMoves.at(level)))?;
        self.a.add(rdx, qword_ptr(rdi + GemmField::BMoves.at(level)))?;
        self.find_lower_rows()?;
        self.a.dec(counter)?;
        self.a.jnz(head)
    }

    fn emit_innermost(&mut self) -> Result<(), IcedError> {
        if let Some(run) = self.tile.run {
            return (0..run).try_for_each(|_| self.emit_step());
        }
        self.a.mov(rcx, field_of(GemmField::Counts))?;
        self.emit_loop(UNROLL)?;
        self.emit_loop(1)
    }

    /// Loops while at least `unroll` steps are left, that many a round.
    fn emit_loop(&mut self, unroll: i32) -> Result<(), IcedError> {
        let (mut head, mut done) = (self.a.create_label(), self.a.create_label());
        self.a.sub(rcx, unroll)?;
        self.a.jl(done)?;
        self.a.set_label(&mut head)?;
        for _ in 0..unroll {
            self.emit_step()?;
        }
        self.a.sub(rcx, unroll)?;
        self.a.jge(head)?;
        self.a.set_label(&mut done)?;
        self.a.add(rcx, unroll)
    }

    fn emit_step(&mut self) -> Result<(), IcedError> {
        match usize::from(self.tile.rows) >= self.vectors {
            true => self.emit_step_by_rows()?,
            false => self.emit_step_by_columns()?,
        }
        self.a.add(rsi, r10)?;
        if self.is_strided() {
            self.a.add(r8, r10)?;
        }
        self.a.add(rdx, r11)
    }

    /// The right vectors stay in registers, the left elements pass by.
    fn emit_step_by_rows(&mut self) -> Result<(), IcedError> {
        let first = usize::from(self.tile.rows) * self.vectors;
        for v in 0..self.vectors {
            self.a.vmovups(YMM[first + v], right(v))?;
        }
        for row in 0..usize::from(self.tile.rows) {
            let factor = YMM[first + self.vectors];
            self.a.vbroadcastss(factor, dword_ptr(self.left(row)))?;
            for v in 0..self.vectors {
                self.a.vfmadd231ps(YMM[row * self.vectors + v], factor, YMM[first + v])?;
            }
        }
        Ok(())
    }

    /// The left elements stay in registers, the right vectors pass by.
    fn emit_step_by_columns(&mut self) -> Result<(), IcedError> {
        let rows = usize::from(self.tile.rows);
        let first = rows * self.vectors;
        for row in 0..rows {
            self.a.vbroadcastss(YMM[first + row], dword_ptr(self.left(row)))?;
        }
        for v in 0..self.vectors {
            if rows == 1 {
                self.a.vfmadd231ps(YMM[v], YMM[first], right(v))?;
                continue;
            }
            self.a.vmovups(YMM[first + rows], right(v))?;
            for row in 0..rows {
                let sum = YMM[row * self.vectors + v];
                self.a.vfmadd231ps(sum, YMM[first + row], YMM[first + rows])?;
            }
        }
        Ok(())
    }

    /// Where the left element of a row is.
    fn left(&self, row: usize) -> AsmMemoryOperand {
        match (self.tile.left, row) {
            (Left::Packed, _) => rsi + 4 * row as i32,
            (Left::Strided, 0) => rsi + 0,
            (Left::Strided, 1) => rsi + r9,
            (Left::Strided, 2) => rsi + r9 * 2,
            (Left::Strided, 3) => r8 + 0,
            (Left::Strided, 4) => r8 + r9,
            (Left::Strided, _) => r8 + r9 * 2,
        }
    }

    fn is_strided(&self) -> bool {
        self.tile.left == Left::Strided
    }
}

/// Vector `v` of a step of the right panel.
fn right(v: usize) -> AsmMemoryOperand {
    ymmword_ptr(rdx + VECTOR_BYTES * v as i32)
}

fn field_of(field: GemmField) -> AsmMemoryOperand {
    qword_ptr(rdi + field as i32)
}
