//! The elements of a vector: loads, stores, and the numbers of elements, whole or in part.

use super::asm::{Assembler, Masked, Mem, Operand};
use super::frame::{Place, mask_register};
use super::{Width, codes};
use crate::leaf::lanes::{Binary, Kind, Shift};
use crate::leaf::loops::{Copies, Loop, NEAR_ADDRESSES, Stream};
use dlc_kernel::DType;
use iced_x86::{Code, Register};

/// The registers of near addresses. Those from the fifth on belong to the caller.
pub const ADDRESSES: [Register; NEAR_ADDRESSES] = [
    Register::RDX,
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::RBX,
    Register::R12,
    Register::R13,
    Register::R14,
];

/// Where an address that has no register of its own is when it is used.
pub const FAR: Register = Register::R15;

/// Bytes that come near at once.
const CACHE_LINE: usize = 64;

/// The element of a stream with a near address that is `distance` elements after the current one.
pub fn element(stream: Stream, distance: i32) -> Mem {
    based(ADDRESSES[usize::from(stream.address)], stream, distance)
}

fn based(base: Register, stream: Stream, distance: i32) -> Mem {
    let bytes = stream.dtype.bytes() as u32 * u32::from(stream.stride);
    Mem {
        base,
        index: Some((Register::RAX, bytes)),
        offset: stream.offset + distance * bytes as i32,
    }
}

/// Which of the elements of a vector there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// All, and they are stored past the caches.
    Streamed,
    /// Those that the mask selects.
    Tail,
}

/// How a vector's elements are reached.
pub struct Access<'c> {
    /// The loop.
    pub code: &'c Loop,
    /// The width of vectors.
    pub width: Width,
    /// Which elements there are.
    pub part: Part,
    /// The vectors.
    pub copies: Copies,
    /// The first element, counted from the current one.
    pub first: i32,
    /// By stream: where on the stack the elements of a tail are.
    pub staged: &'c [Option<Mem>],
}

impl Access<'_> {
    /// The elements of a stream for a copy, or the room of its tail, to be used before any other.
    fn address(&self, a: &mut Assembler, (copy, stream): (usize, usize)) -> Mem {
        let (own, copy) = (self.code.streams[stream], copy as i32);
        let (vectors, lines) = match self.copies {
            Copies::Vectors(_) => (copy, 0),
            Copies::Lines(_) => (0, copy * self.code.line_step(own.address)),
        };
        let first = self.first + vectors * self.width.lanes();
        self.staged[stream].unwrap_or_else(|| self.reach(a, stream, first).plus(lines))
    }

    fn reach(&self, a: &mut Assembler, stream: usize, distance: i32) -> Mem {
        let stream = self.code.streams[stream];
        let address = usize::from(stream.address);
        if address < NEAR_ADDRESSES {
            return element(stream, distance);
        }
        let from = Mem::at(Register::RDI, self.code.address_at(address));
        a.emit(Code::Mov_r64_rm64, &[FAR.into(), from.into()]);
        based(FAR, stream, distance)
    }

    /// Brings near what is wanted next of every cache line of some vectors.
    pub fn look_ahead(&self, a: &mut Assembler) {
        for &(stream, distance) in &self.code.ahead {
            let size = self.code.streams[usize::from(stream)].dtype.bytes() as i32;
            let from = self.reach(a, stream.into(), self.first);
            let address = self.code.streams[usize::from(stream)].address;
            let (lines, vectors) = match self.copies {
                Copies::Vectors(vectors) => (1, vectors),
                Copies::Lines(lines) => (lines, 1),
            };
            let bytes = i32::from(vectors) * self.width.lanes() * size;
            for line in 0..i32::from(lines) {
                let from = from.plus(line * self.code.line_step(address) + distance);
                for offset in (0..bytes).step_by(CACHE_LINE) {
                    a.emit(Code::Prefetcht0_m8, &[from.plus(offset).into()]);
                }
            }
        }
    }

    /// Which of a stream's elements there are where it is accessed: all, in the room of its tail.
    fn part_of(&self, stream: usize) -> Part {
        if self.staged[stream].is_some() { Part::Whole } else { self.part }
    }

    /// Loads input `input`, which numbers copies and their streams.
    pub fn load(&self, a: &mut Assembler, input: usize, (to, temporary): (u8, u8)) -> Place {
        let count = self.code.streams.len();
        let (copy, stream) = (input / count, input % count);
        let Stream { dtype, stride, .. } = self.code.streams[stream];
        let from = self.address(a, (copy, stream));
        match (dtype.bytes(), stride, self.part_of(stream)) {
            (4, 2, part) if self.staged[stream].is_none() => {
                load_every_second(a, part, (to, temporary), from);
            }
            (4, _, part) => load_words(a, part, to, from),
            _ => load_bytes(a, self.part, to, from),
        }
        if dtype == DType::Bool {
            truth(a, to, temporary);
        }
        Place::Register(to)
    }

    /// The numbers of the elements.
    pub fn index(&self, a: &mut Assembler, (to, _): (u8, u8)) -> Place {
        let (whole, low) = (self.width.whole(to).into(), Register::XMM0 + u32::from(to));
        let code = match self.width {
            Width::Ymm => Code::VEX_Vmovd_xmm_rm32,
            Width::Zmm => Code::EVEX_Vmovd_xmm_rm32,
        };
        a.emit(code, &[low.into(), Register::EAX.into()]);
        a.emit(codes::spread(self.width), &[whole, low.into()]);
        let numbers = a.counting(self.first).into();
        let add = codes::binary(self.width, Binary::Add, Kind::I32);
        a.emit(add, &[whole, whole, numbers]);
        Place::Register(to)
    }

    /// Stores a register to a stream, or to the room of its tail.
    pub fn store(&self, a: &mut Assembler, at: (usize, usize), register: u8, free: [u8; 2]) {
        let Stream { dtype, stride, .. } = self.code.streams[at.1];
        let to = self.address(a, at);
        if stride > 1 && self.staged[at.1].is_none() {
            return store_every_second(a, self.part, to, (register, free[1]));
        }
        if dtype.bytes() == 1 {
            let from = if dtype == DType::Bool { as_bits(a, register, free[0]) } else { register };
            return store_bytes(a, self.part, to, from, free[1]);
        }
        store_words(a, self.part_of(at.1), to, register);
    }
}

/// Loads a vector of elements of four bytes.
pub fn load_words(a: &mut Assembler, part: Part, to: u8, from: Mem) {
    let width = a.width;
    let (whole, from) = (Operand::Reg(width.whole(to)), from.into());
    match (part, width) {
        (Part::Tail, Width::Zmm) => {
            a.emit_masked(codes::load(width), &[whole, from], Masked::Zeroing);
        }
        (Part::Tail, Width::Ymm) => {
            let mask = width.whole(mask_register(width)).into();
            a.emit(Code::VEX_Vmaskmovps_ymm_ymm_m256, &[whole, mask, from]);
        }
        _ => a.emit(codes::load(width), &[whole, from]),
    }
}

/// Loads a vector of every second element of four bytes: those of even places out of two vectors. Of a
/// whole one, the second begins with the last element of the first, so that it ends with the last
/// element that is wanted.
fn load_every_second(a: &mut Assembler, part: Part, (to, other): (u8, u8), from: Mem) {
    let width = a.width;
    let [whole, second] = [to, other].map(|r| Operand::Reg(width.whole(r)));
    let (load, next) = (codes::load(width), from.plus(width.bytes()).into());
    let (upper, picks) = match (part, width) {
        (Part::Tail, Width::Zmm) => {
            a.emit_masked_by(Register::K3, load, &[whole, from.into()], Masked::Zeroing);
            a.emit_masked_by(Register::K4, load, &[second, next], Masked::Zeroing);
            (second, 0x88)
        }
        (Part::Tail, Width::Ymm) => {
            let [mask, half] = [mask_register(width), other].map(|r| width.half(r).into());
            a.emit(Code::VEX_Vpmovzxdq_ymm_xmmm128, &[second, mask]);
            a.emit(Code::VEX_Vmaskmovps_ymm_ymm_m256, &[whole, second, from.into()]);
            let mask = width.whole(mask_register(width)).into();
            a.emit(codes::extract_upper(width), &[half, mask, Operand::Imm8(1)]);
            a.emit(Code::VEX_Vpmovzxdq_ymm_xmmm128, &[second, half]);
            a.emit(Code::VEX_Vmaskmovps_ymm_ymm_m256, &[second, second, next]);
            (second, 0x88)
        }
        _ => {
            a.emit(load, &[whole, from.into()]);
            (from.plus(width.bytes() - 4).into(), 0xd8)
        }
    };
    // By 128 bits, two elements of the first, two of the second.
    a.emit(codes::shuffle(width), &[whole, whole, upper, Operand::Imm8(picks)]);
    if width == Width::Ymm {
        a.emit(Code::VEX_Vpermpd_ymm_ymmm256_imm8, &[whole, whole, Operand::Imm8(0xd8)]);
        return;
    }
    let pairs = a.pairs([0, 2, 4, 6, 1, 3, 5, 7]);
    a.emit(load, &[second, pairs.into()]);
    a.emit(Code::EVEX_Vpermpd_zmm_k1z_zmm_zmmm512b64, &[whole, second, whole]);
}

/// Stores a vector to every second element of four bytes; `other` is overwritten. In AVX2, tails are in
/// room of their own.
fn store_every_second(a: &mut Assembler, part: Part, to: Mem, (register, other): (u8, u8)) {
    let width = a.width;
    let whole = |r| Operand::Reg(width.whole(r));
    let low = |r: u8| Operand::Reg(Register::XMM0 + u32::from(r));
    let upper = Operand::Imm8(1);
    if width == Width::Zmm {
        let masks = match part {
            Part::Tail => [Register::K3, Register::K4],
            _ => [Register::K5; 2],
        };
        let spread = Code::EVEX_Vpmovzxdq_zmm_k1z_ymmm256;
        a.emit(spread, &[whole(other), width.half(register).into()]);
        a.emit_masked_by(
            masks[0],
            codes::store(width),
            &[to.into(), whole(other)],
            Masked::Merging,
        );
        let half = width.half(other).into();
        a.emit(codes::extract_upper(width), &[half, whole(register), upper]);
        a.emit(spread, &[whole(other), half]);
        let next = to.plus(width.bytes()).into();
        a.emit_masked_by(masks[1], codes::store(width), &[next, whole(other)], Masked::Merging);
        return;
    }
    a.emit(codes::extract_upper(width), &[low(other), whole(register), upper]);
    for (half, from) in [(0, register), (1, other)] {
        for lane in 0..4 {
            let at = to.plus(8 * (4 * half + lane)).into();
            a.emit(Code::VEX_Vextractps_rm32_xmm_imm8, &[at, low(from), Operand::Imm8(lane as u8)]);
        }
    }
}

/// Stores a vector of elements of four bytes.
pub fn store_words(a: &mut Assembler, part: Part, to: Mem, register: u8) {
    let width = a.width;
    let (to, whole) = (to.into(), Operand::Reg(width.whole(register)));
    match (part, width) {
        (Part::Tail, Width::Zmm) => {
            a.emit_masked(codes::store(width), &[to, whole], Masked::Merging);
        }
        (Part::Tail, Width::Ymm) => {
            let mask = width.whole(mask_register(width)).into();
            a.emit(Code::VEX_Vmaskmovps_m256_ymm_ymm, &[to, mask, whole]);
        }
        (Part::Streamed, _) => a.emit(codes::store_streaming(width), &[to, whole]),
        (Part::Whole, _) => a.emit(codes::store(width), &[to, whole]),
    }
}

/// Loads a vector of bytes, zero-extended. In AVX2 it reads a whole vector's bytes of a tail, too.
pub fn load_bytes(a: &mut Assembler, part: Part, to: u8, from: Mem) {
    let width = a.width;
    let operands = [Operand::Reg(width.whole(to)), from.into()];
    match (part, width) {
        (Part::Tail, Width::Zmm) => {
            a.emit_masked(codes::load_bytes(width), &operands, Masked::Zeroing);
        }
        _ => a.emit(codes::load_bytes(width), &operands),
    }
}

/// Puts 1 for true and 0 for false into `to`, which it gives.
pub fn as_bits(a: &mut Assembler, register: u8, to: u8) -> u8 {
    let [into, value] = [to, register].map(|r| Operand::Reg(a.width.whole(r)));
    a.emit(codes::shift(a.width, Shift::Right), &[into, value, Operand::Imm8(31)]);
    to
}

/// Stores the low bytes of a vector. In AVX2, `packed` is overwritten, and tails are stored whole.
pub fn store_bytes(a: &mut Assembler, part: Part, to: Mem, register: u8, packed: u8) {
    let (width, to) = (a.width, Operand::from(to));
    let whole = Operand::Reg(width.whole(register));
    if width == Width::Zmm {
        let code = Code::EVEX_Vpmovdb_xmmm128_k1z_zmm;
        match part {
            Part::Whole | Part::Streamed => a.emit(code, &[to, whole]),
            Part::Tail => a.emit_masked(code, &[to, whole], Masked::Merging),
        }
        return;
    }
    pack_bytes(a, register, packed);
    a.emit(Code::VEX_Vmovq_xmmm64_xmm, &[to, Operand::Reg(width.half(packed))]);
}

/// The low bytes of an AVX2 vector, one after the other.
pub fn pack_bytes(a: &mut Assembler, register: u8, packed: u8) {
    let width = a.width;
    let whole = Operand::Reg(width.whole(register));
    let [low, packed] = [register, packed].map(|r| Operand::Reg(width.half(r)));
    a.emit(codes::extract_upper(width), &[packed, whole, Operand::Imm8(1)]);
    a.emit(Code::VEX_Vpackusdw_xmm_xmm_xmmm128, &[packed, low, packed]);
    a.emit(Code::VEX_Vpackuswb_xmm_xmm_xmmm128, &[packed, packed, packed]);
}

/// A comparison of bytes with 0: whether each lane of `register` is not 0.
pub fn truth(a: &mut Assembler, register: u8, temporary: u8) {
    let (width, whole) = (a.width, Operand::Reg(a.width.whole(register)));
    if width == Width::Zmm {
        let k2 = Operand::Reg(Register::K2);
        a.emit(Code::EVEX_Vptestmd_kr_k1_zmm_zmmm512b32, &[k2, whole, whole]);
        a.emit(Code::EVEX_Vpmovm2d_zmm_kr, &[whole, k2]);
        return;
    }
    let zero = Operand::Reg(width.whole(temporary));
    a.emit(Code::VEX_Vpxor_ymm_ymm_ymmm256, &[zero, zero, zero]);
    a.emit(Code::VEX_Vpcmpgtd_ymm_ymm_ymmm256, &[whole, whole, zero]);
}
