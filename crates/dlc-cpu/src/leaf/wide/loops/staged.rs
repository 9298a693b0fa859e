//! Tails that go through the stack, element by element.

use super::Writer;
use crate::leaf::loops::Stream;
use crate::leaf::wide::Width;
use crate::leaf::wide::access::{ADDRESSES, Part, element};
use crate::leaf::wide::asm::{Mem, Operand};
use iced_x86::{Code, Register};

impl Writer<'_> {
    /// Whether tails of a stream go through the stack, element by element: AVX2 has no masks for
    /// bytes, nor for stores past the caches, and few registers for those of strides.
    pub(super) fn is_staged(&self, stream: usize) -> bool {
        let stored = || self.code.stores.iter().any(|s| usize::from(s.0) == stream);
        let Stream { dtype, stride, .. } = self.code.streams[stream];
        let apart = self.code.streaming || stride > 1;
        self.width == Width::Ymm && (dtype.bytes() == 1 || apart && stored())
    }

    /// Room on the stack for the elements of a tail; those of streams that are loaded are in it.
    pub(super) fn stage_tails(&mut self, part: Part) -> Vec<Option<Mem>> {
        let streams = self.code.streams.len();
        let stage = |k| {
            let is_staged = part == Part::Tail && self.is_staged(k);
            is_staged.then(|| self.stage_tail(k))
        };
        (0..streams).map(stage).collect()
    }

    fn stage_tail(&mut self, stream: usize) -> Mem {
        let room = self.frame.slot(self.width);
        self.frame.keep_slots();
        if self.code.loads(stream) {
            self.copy_elements(stream, room, Direction::FromStream);
        }
        room
    }

    /// Copies the elements that are left between a stream and the stack.
    pub(super) fn copy_elements(&mut self, stream: usize, room: Mem, direction: Direction) {
        let stream = self.code.streams[stream];
        let (head, base) = (self.a.label(), ADDRESSES[usize::from(stream.address)]);
        let bytes = stream.dtype.bytes();
        let left = |bytes: u32| Some((Register::R10, bytes));
        let stride = bytes as u32 * u32::from(stream.stride);
        let on_stack = Mem { index: left(bytes as u32), ..room }.into();
        let in_stream = Mem { base, index: left(stride), offset: stream.offset }.into();
        self.set_left();
        self.a
            .emit(Code::Lea_r64_m, &[base.into(), Mem { offset: 0, ..element(stream, 0) }.into()]);
        self.a.place(head);
        self.a.emit(Code::Dec_rm64, &[Register::R10.into()]);
        match (direction, bytes) {
            (Direction::FromStream, 1) => self.copy_byte(in_stream, on_stack),
            (Direction::ToStream, 1) => self.copy_byte(on_stack, in_stream),
            (Direction::FromStream, _) => self.copy_word(Code::Mov_rm32_r32, in_stream, on_stack),
            (Direction::ToStream, _) if self.code.streaming => {
                self.copy_word(Code::Movnti_m32_r32, on_stack, in_stream);
            }
            (Direction::ToStream, _) => self.copy_word(Code::Mov_rm32_r32, on_stack, in_stream),
        }
        self.a.emit(Code::Test_rm64_r64, &[Register::R10.into(), Register::R10.into()]);
        self.a.jump(Code::Jg_rel32_64, head);
        self.load_argument(base, self.code.address_at(stream.address.into()));
    }

    fn copy_byte(&mut self, from: Operand, to: Operand) {
        self.a.emit(Code::Movzx_r64_rm8, &[Register::R15.into(), from]);
        self.a.emit(Code::Mov_rm8_r8, &[to, Register::R15L.into()]);
    }

    fn copy_word(&mut self, store: Code, from: Operand, to: Operand) {
        self.a.emit(Code::Mov_r32_rm32, &[Register::R15D.into(), from]);
        self.a.emit(store, &[to, Register::R15D.into()]);
    }
}

/// Which way bytes are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the stack.
    FromStream,
    /// From the stack.
    ToStream,
}
