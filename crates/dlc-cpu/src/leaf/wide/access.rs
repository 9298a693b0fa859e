//! The elements of a vector: loads, stores, and the numbers of elements, whole or in part.

use super::asm::{Assembler, Masked, Mem, Operand};
use super::frame::{Place, mask_register};
use super::{Width, codes};
use crate::leaf::lanes::{Binary, Kind, Shift};
use crate::leaf::loops::{Loop, NEAR_ADDRESSES, Stream};
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
    let bytes = stream.dtype.bytes();
    Mem {
        base,
        index: Some((Register::RAX, bytes as u32)),
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
    /// The first element, counted from the current one.
    pub first: i32,
    /// By stream: where on the stack the elements of a tail are.
    pub staged: &'c [Option<Mem>],
}

impl Access<'_> {
    /// The elements of a stream for a copy, or the room of its tail, to be used before any other.
    fn address(&self, a: &mut Assembler, (copy, stream): (usize, usize)) -> Mem {
        let first = self.first + copy as i32 * self.width.lanes();
        self.staged[stream].unwrap_or_else(|| self.reach(a, stream, first))
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
    pub fn look_ahead(&self, a: &mut Assembler, copies: i32) {
        for &(stream, distance) in &self.code.ahead {
            let size = self.code.streams[usize::from(stream)].dtype.bytes() as i32;
            let from = self.reach(a, stream.into(), self.first);
            let bytes = copies * self.width.lanes() * size;
            for offset in (0..bytes).step_by(CACHE_LINE) {
                a.emit(Code::Prefetcht0_m8, &[from.plus(distance + offset).into()]);
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
        let dtype = self.code.streams[stream].dtype;
        let from = self.address(a, (copy, stream));
        match dtype.bytes() {
            4 => load_words(a, self.part_of(stream), to, from),
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
        let dtype = self.code.streams[at.1].dtype;
        let to = self.address(a, at);
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
