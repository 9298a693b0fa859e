//! What becomes of the sums of a tile, while they are in registers.
//!
//! Vectors come one after the other, row by row: each is computed and stored, and its registers are
//! free for those that follow. Where the code of a vector wants more registers than all sums leave,
//! the sums wait on the stack.

use super::access::{
    Part, as_bits, load_bytes, load_words, pack_bytes, store_bytes, store_words, truth,
};
use super::asm::{Assembler, Mem, Operand};
use super::frame::{Frame, Place, mask_register, pressure};
use super::{Width, codes, straight};
use crate::leaf::epilogue::{Epilogue, MAX_STREAMS, Spread};
use crate::leaf::lanes::{Binary, Kind, Op};
use iced_x86::{Code, Register};

/// The registers of streams: those of the steps, which are over.
const STREAMS: [Register; MAX_STREAMS] = [
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R13,
    Register::R14,
];

/// Bytes of a line of the caches.
const LINE_BYTES: usize = 64;

/// Registers that the code of a vector wants beside its values: for the sum, and for one that only
/// memory holds.
const BESIDE: usize = 2;

/// The same where truth values are stored: they become bits, then bytes.
const BESIDE_TRUTHS: usize = 4;

/// The sums of a tile: in the first registers, row by row.
#[derive(Clone, Copy)]
pub struct Sums {
    /// Rows of the tile.
    pub rows: u8,
    /// Vectors of a row.
    pub vectors: u8,
    /// Which lanes the last vector of a row has.
    pub last: Part,
    /// How many these are.
    pub last_lanes: u8,
}

impl Sums {
    /// How many vectors there are.
    pub fn count(self) -> u8 {
        self.rows * self.vectors
    }

    /// Which lanes a vector of a row has.
    pub fn part(self, v: u8) -> Part {
        if v + 1 == self.vectors { self.last } else { Part::Whole }
    }
}

/// Writes the code of `epilogue` for all sums.
pub fn emit(a: &mut Assembler, frame: &mut Frame, epilogue: &Epilogue, sums: Sums) {
    a.load_constants();
    for (k, &register) in STREAMS.iter().enumerate().take(epilogue.streams.len()) {
        let address = Mem::at(Register::RDI, epilogue.stream_at(k));
        a.emit(Code::Mov_r64_rm64, &[register.into(), address.into()]);
    }
    let mut writer = Writer { a, frame, epilogue, sums, places: Vec::new() };
    writer.place_sums();
    for row in 0..sums.rows {
        (0..sums.vectors).for_each(|v| writer.emit_vector(row, v));
        writer.next_row();
    }
    for (k, &register) in STREAMS.iter().enumerate().take(epilogue.streams.len()) {
        let address = Mem::at(Register::RDI, epilogue.stream_at(k));
        writer.a.emit(Code::Mov_rm64_r64, &[address.into(), register.into()]);
    }
}

/// Asks for the elements of all streams, long before they are loaded or stored.
pub fn prefetch(a: &mut Assembler, epilogue: &Epilogue, rows: u8, row_bytes: i32) {
    let pointer = Register::RSI;
    for (k, _) in epilogue.streams.iter().enumerate().filter(|s| *s.1 == Spread::Neighbours) {
        let [address, step] = [epilogue.stream_at(k), epilogue.step_at(k)]
            .map(|at| Operand::from(Mem::at(Register::RDI, at)));
        let code = match epilogue.loads(k) {
            true => Code::Prefetcht0_m8,
            false => Code::Prefetchw_m8,
        };
        a.emit(Code::Mov_r64_rm64, &[pointer.into(), address]);
        for row in 0..rows {
            if row > 0 {
                a.emit(Code::Add_r64_rm64, &[pointer.into(), step]);
            }
            for at in (0..row_bytes).step_by(LINE_BYTES).chain([row_bytes - 1]) {
                a.emit(code, &[Mem::at(pointer, at).into()]);
            }
        }
    }
}

struct Writer<'w> {
    a: &'w mut Assembler,
    frame: &'w mut Frame,
    epilogue: &'w Epilogue,
    sums: Sums,
    /// Where each sum is.
    places: Vec<Place>,
}

impl Writer<'_> {
    /// Moves the sums to the stack, if their registers are wanted.
    fn place_sums(&mut self) {
        let lanes = &self.epilogue.lanes;
        let roots = self.epilogue.roots();
        let has_truths = self.epilogue.streams.contains(&Spread::Truths);
        let beside = if has_truths { BESIDE_TRUTHS } else { BESIDE };
        let wanted = pressure(lanes, &lanes.reachable(&roots), &roots) + beside;
        let waits = wanted > self.free_beside(1..self.sums.count()).count_ones() as usize;
        for sum in 0..self.sums.count() {
            let place = match waits {
                true => Place::Memory(self.keep(sum)),
                false => Place::Register(sum),
            };
            self.places.push(place);
        }
    }

    fn keep(&mut self, sum: u8) -> Mem {
        let width = self.a.width;
        let slot = self.frame.slot(width);
        self.frame.keep_slots();
        self.a.emit(codes::store(width), &[slot.into(), width.whole(sum).into()]);
        slot
    }

    /// All registers but these and the mask's.
    fn free_beside(&self, sums: std::ops::Range<u8>) -> u32 {
        let width = self.a.width;
        let all = u32::MAX >> (32 - width.registers());
        let has_mask = width == Width::Ymm && self.sums.last == Part::Tail;
        let mask = if has_mask { 1 << mask_register(width) } else { 0 };
        sums.fold(all & !mask, |free, sum| free & !(1 << sum))
    }

    fn emit_vector(&mut self, row: u8, v: u8) {
        let number = row * self.sums.vectors + v;
        let sum = self.places[usize::from(number)];
        self.frame.free = match sum {
            Place::Register(_) => self.free_beside(number + 1..self.sums.count()),
            Place::Memory(_) => self.free_beside(0..0),
        };
        let (epilogue, roots) = (self.epilogue, self.epilogue.roots());
        let (part, rest) = (self.sums.part(v), self.sums.last_lanes);
        let access = Access { epilogue, part, rest, at: i32::from(v) };
        let (a, frame) = (&mut *self.a, &mut *self.frame);
        let places = straight::emit(
            a,
            frame,
            &epilogue.lanes,
            &roots,
            &[],
            &mut |a, op, registers| match (op, registers) {
                (Op::Carry(..), _) => sum,
                (Op::Input(_, k), Some(registers)) => access.load(a, k.into(), registers),
                _ => unreachable!("`{op}` is no part of an epilogue"),
            },
            &mut |_, _, _| false,
        );
        let places: Vec<Place> = places.into_iter().flatten().collect();
        self.store(&access, &places);
    }

    /// Stores values, all of which are computed.
    fn store(&mut self, access: &Access, values: &[Place]) {
        let width = self.a.width;
        let taken = values.iter().fold(0, |set, place| match place {
            Place::Register(r) => set | 1 << r,
            Place::Memory(_) => set,
        });
        let mut free = self.frame.free & !taken;
        let mut temporary = || {
            let register = free.trailing_zeros() as u8;
            free &= free.wrapping_sub(1);
            register
        };
        let [temporary, bits, packed] = [(); 3].map(|()| temporary());
        for (&(stream, _), &value) in self.epilogue.stores.iter().zip(values) {
            let register = match value {
                Place::Register(r) => r,
                Place::Memory(mem) => {
                    self.a.emit(codes::load(width), &[width.whole(temporary).into(), mem.into()]);
                    temporary
                }
            };
            let to = access.address(width, stream.into());
            if self.epilogue.streams[usize::from(stream)] == Spread::Truths {
                let bits = as_bits(self.a, register, bits);
                self.store_truths(access.part, to, [bits, packed]);
            } else {
                store_words(self.a, access.part, to, register);
            }
        }
    }

    fn store_truths(&mut self, part: Part, to: Mem, [bits, packed]: [u8; 2]) {
        if (part, self.a.width) != (Part::Tail, Width::Ymm) {
            return store_bytes(self.a, part, to, bits, packed);
        }
        pack_bytes(self.a, bits, packed);
        let bytes = Operand::Reg(self.a.width.half(packed));
        for lane in 0..self.sums.last_lanes {
            let operands = [to.plus(lane.into()).into(), bytes, Operand::Imm8(lane)];
            self.a.emit(Code::VEX_Vpextrb_r32m8_xmm_imm8, &operands);
        }
    }

    fn next_row(&mut self) {
        for (k, &register) in STREAMS.iter().enumerate().take(self.epilogue.streams.len()) {
            let step = Mem::at(Register::RDI, self.epilogue.step_at(k));
            self.a.emit(Code::Add_r64_rm64, &[register.into(), step.into()]);
        }
    }
}

/// How the elements of a vector are reached.
struct Access<'e> {
    epilogue: &'e Epilogue,
    part: Part,
    /// How many elements a tail has.
    rest: u8,
    /// Which vector of its row it is.
    at: i32,
}

impl Access<'_> {
    fn address(&self, width: Width, stream: usize) -> Mem {
        match self.epilogue.streams[stream] {
            Spread::Neighbours => Mem::at(STREAMS[stream], self.at * width.bytes()),
            Spread::Truths => Mem::at(STREAMS[stream], self.at * width.lanes()),
            Spread::Still => Mem::at(STREAMS[stream], 0),
            Spread::Counting => unreachable!("what is counted is not in memory"),
        }
    }

    /// An input; whole vectors stay in memory, unless they are overwritten.
    fn load(&self, a: &mut Assembler, stream: usize, (to, temporary): (u8, u8)) -> Place {
        let width = a.width;
        let spread = |a: &mut Assembler, from: Mem| {
            a.emit(codes::broadcast(width), &[width.whole(to).into(), from.into()]);
            Place::Register(to)
        };
        let Some(lie) = self.epilogue.streams.get(stream) else {
            let value = stream - self.epilogue.streams.len();
            return spread(a, Mem::at(Register::RDI, self.epilogue.value_at(value)));
        };
        if *lie == Spread::Counting {
            return self.count(a, STREAMS[stream], to);
        }
        let from = self.address(width, stream);
        match lie {
            Spread::Still => return spread(a, from),
            Spread::Truths => {
                self.load_truths(a, to, from);
                truth(a, to, temporary);
                return Place::Register(to);
            }
            _ => {}
        }
        let is_stored = self.epilogue.stores.iter().any(|s| usize::from(s.0) == stream);
        if self.part == Part::Whole && !is_stored {
            return Place::Memory(from);
        }
        load_words(a, self.part, to, from);
        Place::Register(to)
    }

    /// The bytes that there are, one in each lane.
    fn load_truths(&self, a: &mut Assembler, to: u8, from: Mem) {
        if (self.part, a.width) != (Part::Tail, Width::Ymm) {
            return load_bytes(a, self.part, to, from);
        }
        let [whole, low] = [a.width.whole(to), a.width.half(to)].map(Operand::Reg);
        a.emit(Code::VEX_Vpxor_xmm_xmm_xmmm128, &[low, low, low]);
        for lane in 0..self.rest {
            let byte = from.plus(lane.into()).into();
            a.emit(Code::VEX_Vpinsrb_xmm_xmm_r32m8_imm8, &[low, low, byte, Operand::Imm8(lane)]);
        }
        a.emit(codes::load_bytes(a.width), &[whole, low]);
    }

    /// The integers that count up from the one in `first`.
    fn count(&self, a: &mut Assembler, first: Register, to: u8) -> Place {
        let lower = Register::EAX + (first as u32 - Register::RAX as u32);
        let (width, first) = (a.width, Operand::Reg(lower));
        let whole = Operand::Reg(width.whole(to));
        match width {
            Width::Zmm => a.emit(Code::EVEX_Vpbroadcastd_zmm_k1z_r32, &[whole, first]),
            Width::Ymm => {
                let low = Operand::Reg(Register::XMM0 + u32::from(to));
                a.emit(Code::VEX_Vmovd_xmm_rm32, &[low, first]);
                a.emit(codes::spread(width), &[whole, low]);
            }
        }
        let distances = a.counting(self.at * width.lanes()).into();
        let code = codes::binary(width, Binary::Add, Kind::I32);
        a.emit(code, &[whole, whole, distances]);
        Place::Register(to)
    }
}
