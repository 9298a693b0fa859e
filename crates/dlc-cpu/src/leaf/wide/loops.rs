//! Loops over elements: whole vectors, several at a time where that hides latency, then one vector
//! in part.
//!
//! Registers: `rdi` the argument block, `rax` the current element, `rcx` their number, `r10` a
//! bound or what is left, `r11` the constants, [`ADDRESSES`] the addresses of streams. Fold states
//! are in the first vector registers, those of the first copy first.

mod columns;
mod staged;

use super::access::{ADDRESSES, Access, FAR, Part, element};
use super::asm::{Assembler, Label, Masked, Mem, Operand};
use super::frame::{Frame, Place, mask_register};
use super::straight;
use super::{Width, codes};
use crate::leaf::lanes::{Lanes, Op, Vector};
use crate::leaf::loops::{Copies, Fold, Loop, NEAR_ADDRESSES};
use iced_x86::{Code, IcedError, Register};
use staged::Direction;

/// The first of [`ADDRESSES`] that belong to the caller.
const FIRST_SAVED: usize = 4;

/// Every second lane. `k5` selects these.
const EVEN: u32 = 0x5555_5555;

/// The machine code of a loop.
///
/// # Errors
/// What the encoder has to say against an instruction.
pub fn assemble(width: Width, code: &Loop) -> Result<Vec<u8>, IcedError> {
    let states = code.folds.len() as u8 * code.unroll;
    let frame = Frame::new(width, code, states);
    Writer { a: Assembler::new(width), width, code, frame, states }.assemble()
}

struct Writer<'w> {
    a: Assembler,
    width: Width,
    code: &'w Loop,
    frame: Frame,
    states: u8,
}

impl Writer<'_> {
    fn assemble(mut self) -> Result<Vec<u8>, IcedError> {
        let saved: Vec<Register> = self.saved().collect();
        saved.iter().for_each(|&r| self.a.emit(Code::Push_r64, &[r.into()]));
        self.mov(Register::RBP, Register::RSP);
        let frame = self.a.emit_incomplete(Code::Sub_rm64_imm32, Register::RSP);
        self.a.emit(Code::And_rm64_imm8, &[Register::RSP.into(), Operand::Signed8(-64)]);
        self.emit_loops();
        if self.code.column_states().is_empty() {
            self.emit_results();
        }
        self.a.emit(Code::VEX_Vzeroupper, &[]);
        self.mov(Register::RSP, Register::RBP);
        saved.iter().rev().for_each(|&r| self.a.emit(Code::Pop_r64, &[r.into()]));
        self.a.emit(Code::Retnq, &[]);
        self.a.complete(frame, self.frame.bytes(self.width));
        self.a.bytes()
    }

    /// The caller's registers that are used: for the frame, for streams, for far addresses or copies of
    /// elements.
    fn saved(&self) -> impl Iterator<Item = Register> {
        let addresses = ADDRESSES.iter().take(self.code.addresses()).skip(FIRST_SAVED);
        let copies = (0..self.code.streams.len()).any(|k| self.is_staged(k));
        let far = (copies || self.code.addresses() > NEAR_ADDRESSES).then_some(FAR);
        [Register::RBP].into_iter().chain(addresses.copied()).chain(far)
    }

    fn mov(&mut self, to: Register, from: Register) {
        self.a.emit(Code::Mov_r64_rm64, &[to.into(), from.into()]);
    }

    fn load_argument(&mut self, to: Register, at: i32) {
        self.a.emit(Code::Mov_r64_rm64, &[to.into(), Mem::at(Register::RDI, at).into()]);
    }

    fn load_addresses(&mut self) {
        for (k, &register) in ADDRESSES.iter().take(self.code.addresses()).enumerate() {
            self.load_argument(register, self.code.address_at(k));
        }
    }

    fn emit_loops(&mut self) {
        self.load_addresses();
        self.a.load_constants();
        self.frame.enter(&mut self.a, self.code);
        if !self.code.column_states().is_empty() {
            return self.emit_columns();
        }
        self.clear_states(self.code.unroll);
        if self.width == Width::Zmm && self.code.has_strides() {
            let bits = Register::EAX.into();
            self.a.emit(Code::Mov_r32_imm32, &[bits, Operand::Imm32(EVEN)]);
            self.a.emit(Code::VEX_Kmovw_kr_r32, &[Register::K5.into(), bits]);
        }
        if self.code.lines.is_none() {
            return self.emit_line(1);
        }
        let mut lines = self.code.lines_together();
        while lines > 0 {
            self.emit_lines(lines);
            lines /= 2;
        }
    }

    /// `lines` lines a round, while there are as many.
    fn emit_lines(&mut self, lines: u8) {
        let (head, done) = (self.a.label(), self.a.label());
        let left = Operand::from(Mem::at(Register::RDI, Loop::LINES));
        self.a.place(head);
        self.a.emit(Code::Cmp_rm64_imm8, &[left, Operand::Signed8(lines as i8)]);
        self.a.jump(Code::Jl_rel32_64, done);
        self.emit_line(lines);
        self.step_down(lines, true);
        self.a.emit(Code::Sub_rm64_imm8, &[left, Operand::Signed8(lines as i8)]);
        self.a.jump(Code::Jmp_rel32_64, head);
        self.a.place(done);
    }

    /// Moves addresses on by so many lines; in the argument block, too, if they are `kept` there.
    fn step_down(&mut self, lines: u8, kept: bool) {
        for (address, &register) in (0u16..).zip(&ADDRESSES[..self.code.addresses()]) {
            let bytes = self.code.line_step(address) * i32::from(lines);
            if bytes == 0 {
                continue;
            }
            self.a.emit(Code::Add_rm64_imm32, &[register.into(), Operand::Signed32(bytes)]);
            if kept {
                let argument = Mem::at(Register::RDI, self.code.address_at(address.into()));
                self.a.emit(Code::Mov_rm64_r64, &[argument.into(), register.into()]);
            }
        }
    }

    /// All elements of the next line, or of several together.
    fn emit_line(&mut self, lines: u8) {
        self.load_argument(Register::RCX, Loop::COUNT);
        self.a.emit(Code::Xor_r32_rm32, &[Register::EAX.into(), Register::EAX.into()]);
        let one = if lines > 1 { Copies::Lines(lines) } else { Copies::Vectors(1) };
        let many = Copies::Vectors(self.code.unroll);
        if self.code.streaming {
            self.emit_streamed_loop();
        } else if self.code.unroll > 1 && lines == 1 {
            self.emit_loop(many, Part::Whole);
        }
        self.emit_loop(one, Part::Whole);
        self.set_left();
        let done = self.a.label();
        if self.width == Width::Ymm && self.code.repeats && !self.code.streaming {
            self.emit_last(one, done);
        }
        self.emit_some(one);
        self.a.place(done);
    }

    /// If `r10` elements are left, and as many as a vector has are there: the last of these, some of them
    /// for a second time. Masked stores of AVX2 take long on some processors.
    fn emit_last(&mut self, copies: Copies, done: Label) {
        let (left, short) = (Register::R10.into(), self.a.label());
        self.a.emit(Code::Test_rm64_r64, &[left, left]);
        self.a.jump(Code::Jle_rel32_64, done);
        let last = Mem::at(Register::RCX, -self.width.lanes());
        self.a.emit(Code::Lea_r64_m, &[left, last.into()]);
        self.a.emit(Code::Test_rm64_r64, &[left, left]);
        self.a.jump(Code::Jl_rel32_64, short);
        self.mov(Register::RAX, Register::R10);
        self.emit_vectors(0, copies, Part::Whole);
        self.a.jump(Code::Jmp_rel32_64, done);
        self.a.place(short);
        self.set_left();
    }

    /// The elements before the first aligned vector of a stored stream, then, if that aligns all of
    /// them, whole vectors.
    fn emit_streamed_loop(&mut self) {
        let stored = self.code.stores.iter().map(|s| self.code.streams[usize::from(s.0)]);
        let stored: Vec<Mem> = stored.map(|stream| element(stream, 0)).collect();
        let bytes = Operand::Signed32(self.width.bytes() - 1);
        let address = Operand::Reg(Register::R10);
        self.set_unaligned(stored[0]);
        self.mov(Register::RCX, Register::R10);
        self.emit_some(Copies::Vectors(1));
        self.set_unaligned(stored[0]);
        self.mov(Register::RAX, Register::R10);
        self.load_argument(Register::RCX, Loop::COUNT);
        let unaligned = self.a.label();
        for stream in stored {
            self.a.emit(Code::Lea_r64_m, &[address, stream.into()]);
            self.a.emit(Code::Test_rm64_imm32, &[address, bytes]);
            self.a.jump(Code::Jne_rel32_64, unaligned);
        }
        self.emit_loop(Copies::Vectors(self.code.unroll), Part::Streamed);
        if self.code.unroll > 1 {
            self.emit_loop(Copies::Vectors(1), Part::Streamed);
        }
        self.a.place(unaligned);
    }

    /// `r10` is how many elements come before the first aligned vector of a stream, at most all.
    fn set_unaligned(&mut self, first: Mem) {
        let (left, count) = (Register::R10.into(), Mem::at(Register::RDI, Loop::COUNT).into());
        let bytes = Operand::Signed32(self.width.bytes() - 1);
        self.a.emit(Code::Lea_r64_m, &[left, Mem { index: None, ..first }.into()]);
        self.a.emit(Code::Neg_rm64, &[left]);
        self.a.emit(Code::And_rm64_imm32, &[left, bytes]);
        self.a.emit(Code::Shr_rm64_imm8, &[left, Operand::Imm8(2)]);
        self.a.emit(Code::Cmp_r64_rm64, &[left, count]);
        self.a.emit(Code::Cmovg_r64_rm64, &[left, count]);
    }

    /// States before the first element, of so many copies.
    fn clear_states(&mut self, copies: u8) {
        for copy in 0..copies {
            for (k, fold) in self.code.folds.iter().enumerate() {
                let bits = u64::from(fold.neutral());
                let from = self.a.repeated(bits << 32 | bits);
                let to = self.width.whole(self.state(copy.into(), k)).into();
                self.a.emit(codes::load(self.width), &[to, from.into()]);
            }
        }
    }

    /// The register of a fold's state.
    fn state(&self, copy: i32, fold: usize) -> u8 {
        (copy as usize * self.code.folds.len() + fold) as u8
    }

    /// `copies` a round, while there are as many elements.
    fn emit_loop(&mut self, copies: Copies, part: Part) {
        let vectors = if let Copies::Vectors(vectors) = copies { i32::from(vectors) } else { 1 };
        let step = vectors * self.width.lanes();
        let (head, done) = (self.a.label(), self.a.label());
        let (i, bound) = (Register::RAX, Register::R10);
        self.a.emit(Code::Lea_r64_m, &[bound.into(), Mem::at(Register::RCX, -step).into()]);
        self.a.emit(Code::Cmp_r64_rm64, &[i.into(), bound.into()]);
        self.a.jump(Code::Jg_rel32_64, done);
        let most = usize::from(self.code.unroll.max(self.code.lines_together()));
        let hot = copies.count() == most && !(self.code.streaming && part == Part::Whole);
        match hot {
            true => self.a.place_loop(head),
            false => self.a.place(head),
        }
        match copies {
            Copies::Lines(_) => self.emit_vectors(0, copies, part),
            Copies::Vectors(count) => self.emit_neighbours(count, part),
        }
        self.a.emit(Code::Add_rm64_imm32, &[i.into(), Operand::Signed32(step)]);
        self.a.emit(Code::Cmp_r64_rm64, &[i.into(), bound.into()]);
        self.a.jump(Code::Jle_rel32_64, head);
        self.a.place(done);
    }

    /// So many neighbouring vectors, as many together as the registers have room for.
    fn emit_neighbours(&mut self, count: u8, part: Part) {
        let together = self.frame.together.min(count);
        for first in (0..count).step_by(together.into()) {
            self.emit_vectors(first.into(), Copies::Vectors(together), part);
        }
    }

    /// The next `r10` elements, which do not fill a vector.
    fn emit_some(&mut self, copies: Copies) {
        let done = self.a.label();
        self.a.emit(Code::Test_rm64_r64, &[Register::R10.into(), Register::R10.into()]);
        self.a.jump(Code::Jle_rel32_64, done);
        self.set_mask();
        self.emit_vectors(0, copies, Part::Tail);
        self.a.place(done);
    }

    /// `r10` is how many elements are left.
    fn set_left(&mut self) {
        self.mov(Register::R10, Register::RCX);
        self.a.emit(Code::Sub_r64_rm64, &[Register::R10.into(), Register::RAX.into()]);
    }

    /// Selects the lanes that are left: in `k1`, or in the mask register.
    fn set_mask(&mut self) {
        if self.width == Width::Zmm {
            // The number of elements is not needed any more, or will be loaded again.
            let (bits, left) = (Register::ECX.into(), Register::R10D.into());
            self.a.emit(Code::Mov_r32_imm32, &[bits, Operand::Imm32(u32::MAX)]);
            self.a.emit(Code::VEX_Bzhi_r32_rm32_r32, &[bits, bits, left]);
            self.a.emit(Code::VEX_Kmovw_kr_r32, &[Register::K1.into(), bits]);
            if self.code.has_strides() {
                self.set_stride_masks();
            }
            return;
        }
        let mask = mask_register(self.width);
        let (whole, low) = (self.width.whole(mask).into(), self.width.half(mask).into());
        self.a.emit(Code::VEX_Vmovd_xmm_rm32, &[low, Register::R10D.into()]);
        self.a.emit(codes::spread(self.width), &[whole, low]);
        let lanes = self.a.counting(0);
        self.a.emit(Code::VEX_Vpcmpgtd_ymm_ymm_ymmm256, &[whole, whole, lanes.into()]);
    }

    /// Selects, in `k3` and `k4`, which lanes of two vectors `r10` elements that are two apart are in.
    fn set_stride_masks(&mut self) {
        let (bits, left) = (Register::ECX.into(), Register::R10D.into());
        let last = Mem { base: Register::R10, index: Some((Register::R10, 1)), offset: -1 };
        self.a.emit(Code::Lea_r64_m, &[Register::R10.into(), last.into()]);
        self.a.emit(Code::Mov_r32_imm32, &[bits, Operand::Imm32(EVEN)]);
        self.a.emit(Code::VEX_Bzhi_r32_rm32_r32, &[bits, bits, left]);
        self.a.emit(Code::VEX_Kmovw_kr_r32, &[Register::K3.into(), bits]);
        self.a.emit(Code::Shr_rm32_imm8, &[bits, Operand::Imm8(16)]);
        self.a.emit(Code::VEX_Kmovw_kr_r32, &[Register::K4.into(), bits]);
    }

    /// The code of `copies` vectors, from the one that is `first` vectors on.
    fn emit_vectors(&mut self, first: i32, copies: Copies, part: Part) {
        let (code, lanes) = (self.code, self.width.lanes());
        let staged = self.stage_tails(part);
        let access =
            Access { code, width: self.width, part, copies, first: first * lanes, staged: &staged };
        if part != Part::Tail {
            access.look_ahead(&mut self.a);
        }
        let (straight, roots) = code.copied(copies, lanes);
        let count = code.folds.len();
        let states: Vec<u8> =
            (0..copies.count() * count).map(|k| (first as usize * count + k) as u8).collect();
        let own_roots = roots.chunks(code.folds.len() + code.stores.len());
        let next: Vec<Vector> = own_roots.clone().flat_map(|r| &r[..count]).copied().collect();
        let stored: Vec<Vector> = own_roots.flat_map(|r| &r[count..]).copied().collect();
        let wishes: Vec<(Vector, u8)> = match part {
            Part::Tail => Vec::new(),
            _ => next.iter().copied().zip(states.iter().copied()).collect(),
        };
        let (a, frame) = (&mut self.a, &mut self.frame);
        let roots = [&next[..], &stored[..]].concat();
        let at_once = next.is_empty() && staged.iter().all(Option::is_none);
        let (stores, early) = (code.stores.len(), at_once && code.may_store_early());
        let places = straight::emit(
            a,
            frame,
            &straight,
            &roots,
            &wishes,
            &mut |a, op, registers| match (op, registers) {
                (Op::Carry(_, k), _) => Place::Register(states[usize::from(k)]),
                (Op::Input(_, k), Some(to)) => access.load(a, k.into(), to),
                (_, Some(to)) => access.index(a, to),
                _ => unreachable!("`{op}` needs no register"),
            },
            &mut |a, v, register| {
                let own = stored.iter().enumerate().filter(|(_, root)| **root == v);
                early
                    && own.fold(false, |_, (at, _)| {
                        access.store(
                            a,
                            (at / stores, code.stores[at % stores].0.into()),
                            register,
                            [0; 2],
                        );
                        true
                    })
            },
        );
        let (folded, left) = places.split_at(states.len());
        let folded: Vec<Place> = folded.iter().map(|p| p.expect("no state is stored")).collect();
        self.update_states(&states, &folded, part);
        self.store(&access, left);
    }

    /// Brings the new states to where the old ones are.
    fn update_states(&mut self, states: &[u8], new: &[Place], part: Part) {
        for (&state, &new) in states.iter().zip(new) {
            let whole = Operand::Reg(self.width.whole(state));
            let from = match new {
                Place::Register(r) if r == state => continue,
                Place::Register(r) => self.width.whole(r).into(),
                Place::Memory(mem) => mem.into(),
            };
            match (part, self.width) {
                (Part::Whole | Part::Streamed, _) => {
                    self.a.emit(codes::load(self.width), &[whole, from]);
                }
                (Part::Tail, Width::Zmm) => {
                    self.a.emit_masked(codes::load(self.width), &[whole, from], Masked::Merging);
                }
                (Part::Tail, Width::Ymm) => {
                    let mask = self.width.whole(mask_register(self.width)).into();
                    let code = Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm;
                    self.a.emit(code, &[whole, whole, from, mask]);
                }
            }
        }
    }

    /// Stores the values that are not stored yet: those in registers first, whose registers then
    /// serve for the others.
    fn store(&mut self, access: &Access, values: &[Option<Place>]) {
        let values = values.iter().enumerate().filter_map(|(at, place)| Some((at, (*place)?)));
        let is_held = |value: &(usize, Place)| matches!(value.1, Place::Register(_));
        let (held, spilled): (Vec<_>, Vec<_>) = values.partition(is_held);
        let used = |set: u32, value: &(usize, Place)| match value.1 {
            Place::Register(r) => set & !(1 << r),
            Place::Memory(_) => set,
        };
        let beside = held.iter().fold(self.frame.free, used);
        held.into_iter().for_each(|(at, value)| self.store_one(access, at, value, beside));
        let all = self.frame.free;
        spilled.into_iter().for_each(|(at, value)| self.store_one(access, at, value, all));
    }

    /// Stores value `at` of all copies; `free` registers hold nothing.
    fn store_one(&mut self, access: &Access, at: usize, value: Place, free: u32) {
        let [first, second] = [free, free & free.wrapping_sub(1)].map(|f| f.trailing_zeros() as u8);
        let count = self.code.stores.len();
        let (copy, stream) = (at / count, usize::from(self.code.stores[at % count].0));
        let register = match value {
            Place::Register(r) => r,
            Place::Memory(mem) => {
                let to = self.width.whole(first).into();
                self.a.emit(codes::load(self.width), &[to, mem.into()]);
                first
            }
        };
        access.store(&mut self.a, (copy, stream), register, [first, second]);
        if let Some(from) = access.staged[stream] {
            self.copy_elements(stream, from, Direction::ToStream);
        }
    }

    /// Merges the states of every fold and stores the results.
    fn emit_results(&mut self) {
        self.frame.leave(self.width, self.states);
        for (k, fold) in self.code.folds.iter().enumerate() {
            let mut copies: Vec<u8> =
                (0..self.code.unroll).map(|c| self.state(c.into(), k)).collect();
            while copies.len() > 1 {
                copies
                    .chunks(2)
                    .filter(|c| c.len() == 2)
                    .for_each(|c| self.merge(*fold, c[0], c[1]));
                copies = copies.chunks(2).map(|c| c[0]).collect();
            }
            self.merge_lanes(*fold, copies[0]);
            let result = Mem::at(Register::RDI, self.code.fold_at(k));
            let low = Register::XMM0 + u32::from(copies[0]);
            self.a.emit(Code::VEX_Vmovss_m32_xmm, &[result.into(), low.into()]);
        }
    }

    /// All lanes of a state into the lowest.
    fn merge_lanes(&mut self, fold: Fold, state: u8) {
        let other = self.frame.free.trailing_zeros() as u8;
        self.frame.free &= !(1 << other);
        let [x, y, z] = [Register::XMM0, Register::YMM0, Register::ZMM0];
        let at = |first: Register, number: u8| Operand::Reg(first + u32::from(number));
        let one = Operand::Imm8(1);
        if self.width == Width::Zmm {
            let code = Code::EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8;
            self.a.emit(code, &[at(y, other), at(z, state), one]);
            self.merge(fold, state, other);
        }
        let code = Code::VEX_Vextractf128_xmmm128_ymm_imm8;
        self.a.emit(code, &[at(x, other), at(y, state), one]);
        self.merge(fold, state, other);
        for picks in [0x4e, 0xb1] {
            let whole = |number| Operand::Reg(self.width.whole(number));
            let operands = [whole(other), whole(state), Operand::Imm8(picks)];
            self.a.emit(codes::permute(self.width), &operands);
            self.merge(fold, state, other);
        }
        self.frame.free |= 1 << other;
    }

    /// The states in two registers into the first.
    fn merge(&mut self, fold: Fold, into: u8, other: u8) {
        let (lanes, merged): (Lanes, Vector) = fold.merge();
        let registers = [into, other];
        let (a, frame) = (&mut self.a, &mut self.frame);
        let place = straight::emit(
            a,
            frame,
            &lanes,
            &[merged],
            &[(merged, into)],
            &mut |_, op, _| match op {
                Op::Carry(_, k) => Place::Register(registers[usize::from(k)]),
                _ => unreachable!("a merge is given its states alone"),
            },
            &mut |_, _, _| false,
        );
        self.update_states(&[into], &[place[0].expect("it was not taken")], Part::Whole);
    }
}
