//! Folds over columns: some columns down all lines, then the next.
//!
//! The states of some columns are in registers down all lines, and are merged with those in memory at the
//! end. `r10` counts the lines; those of the columns at the end, which may want that register, are counted
//! in the argument block.

use super::Writer;
use crate::leaf::loops::{Copies, Loop};
use crate::leaf::wide::access::{Access, Part};
use crate::leaf::wide::asm::{Mem, Operand};
use iced_x86::{Code, Register};

impl Writer<'_> {
    /// All columns: as many vectors at a time as the loop is unrolled by, then half as many, and so on.
    pub(super) fn emit_columns(&mut self) {
        self.load_argument(Register::RCX, Loop::COUNT);
        self.a.emit(Code::Xor_r32_rm32, &[Register::EAX.into(), Register::EAX.into()]);
        let mut vectors = self.code.unroll;
        while vectors > 0 {
            self.emit_column_loop(vectors);
            vectors /= 2;
        }
        self.set_left();
        let done = self.a.label();
        self.a.emit(Code::Test_rm64_r64, &[Register::R10.into(), Register::R10.into()]);
        self.a.jump(Code::Jle_rel32_64, done);
        self.set_mask();
        self.emit_down(1, Part::Tail);
        self.a.place(done);
    }

    /// So many vectors of columns a round, while there are as many.
    fn emit_column_loop(&mut self, vectors: u8) {
        let step = i32::from(vectors) * self.width.lanes();
        let (head, done) = (self.a.label(), self.a.label());
        let (i, bound) = (Register::RAX, Register::R10);
        self.a.place(head);
        self.a.emit(Code::Lea_r64_m, &[bound.into(), Mem::at(Register::RCX, -step).into()]);
        self.a.emit(Code::Cmp_r64_rm64, &[i.into(), bound.into()]);
        self.a.jump(Code::Jg_rel32_64, done);
        self.emit_down(vectors, Part::Whole);
        self.a.emit(Code::Add_rm64_imm32, &[i.into(), Operand::Signed32(step)]);
        self.a.jump(Code::Jmp_rel32_64, head);
        self.a.place(done);
    }

    /// The current columns, down all lines.
    fn emit_down(&mut self, vectors: u8, part: Part) {
        let (head, done) = (self.a.label(), self.a.label());
        let lines = Operand::from(Mem::at(Register::RDI, Loop::LINES));
        let left = if part == Part::Tail { lines } else { Register::R10.into() };
        self.load_addresses();
        self.clear_states(vectors);
        if part != Part::Tail {
            self.a.emit(Code::Mov_r64_rm64, &[left, lines]);
        }
        self.a.emit(Code::Cmp_rm64_imm8, &[left, Operand::Signed8(0)]);
        self.a.jump(Code::Jle_rel32_64, done);
        self.a.place_loop(head);
        self.emit_neighbours(vectors, part);
        self.step_down(1, part == Part::Tail);
        self.a.emit(Code::Dec_rm64, &[left]);
        self.a.jump(Code::Jg_rel32_64, head);
        self.a.place(done);
        self.merge_columns(vectors, part);
    }

    /// Merges the states of the current columns into those in memory.
    fn merge_columns(&mut self, vectors: u8, part: Part) {
        let (code, width) = (self.code, self.width);
        let staged = vec![None; code.streams.len()];
        let copies = Copies::Vectors(vectors);
        let access = Access { code, width, part, copies, first: 0, staged: &staged };
        let other = self.frame.free.trailing_zeros() as u8;
        self.frame.free &= !(1 << other);
        for copy in 0..usize::from(vectors) {
            for (k, &stream) in code.column_states().iter().enumerate() {
                let (stream, state) = (usize::from(stream), self.state(copy as i32, k));
                access.load(&mut self.a, copy * code.streams.len() + stream, (other, other));
                self.merge(code.folds[k], state, other);
                access.store(&mut self.a, (copy, stream), state, [other; 2]);
            }
        }
        self.frame.free |= 1 << other;
    }
}
