//! Philox4x32-10 on a whole vector: four lanes are the four words of a counter.
//!
//! The products of a round are those of the even lanes, 64 bits each; what stands beside them in the
//! next counter comes from the odd lanes.

use super::Width;
use super::asm::{Assembler, Operand};
use super::codes;
use crate::leaf::lanes::{Binary, Kind};
use dlc_kernel::philox::{KEY_HIGH, MULTIPLIERS, ROUNDS, WEYL};
use iced_x86::Code;

/// Three registers that are overwritten.
#[derive(Clone, Copy)]
pub struct Registers {
    /// For the counter, then the words.
    pub counter: u8,
    /// For the key.
    pub key: u8,
    /// For what is in between.
    pub other: u8,
}

/// Puts the random words of `[seed, step, element]` into the counter's register.
pub fn emit(a: &mut Assembler, to: Registers, site: u64, [seed, step, element]: [Operand; 3]) {
    let Registers { counter, key, other } = to;
    let mut code = Writer { a };
    let ones = u32::MAX;
    // Lanes of a counter: block, step, site; of a key: seed, -, constant, -.
    code.load(other, step);
    code.masked(other, [0, ones, 0, 0]);
    code.load(counter, element);
    code.shift_words(counter);
    code.masked(counter, [ones, 0, 0, 0]);
    code.registers(Binary::Or, counter, other);
    code.constant(Binary::Or, counter, [0, 0, site as u32, (site >> 32) as u32]);
    code.load(key, seed);
    code.masked(key, [ones, 0, 0, 0]);
    code.constant(Binary::Or, key, [0, 0, KEY_HIGH, 0]);
    for round in 0..ROUNDS {
        if round > 0 {
            code.constant(Binary::Add, key, [WEYL[0], 0, WEYL[1], 0]);
        }
        code.multiply(other, counter, [MULTIPLIERS[0], 0, MULTIPLIERS[1], 0]);
        code.odd_down(counter);
        code.reverse(other);
        code.registers(Binary::Xor, counter, key);
        code.registers(Binary::Xor, counter, other);
    }
}

struct Writer<'a> {
    a: &'a mut Assembler,
}

impl Writer<'_> {
    fn whole(&self, register: u8) -> Operand {
        self.a.width.whole(register).into()
    }

    fn pick(&self, ymm: Code, zmm: Code) -> Code {
        if self.a.width == Width::Ymm { ymm } else { zmm }
    }

    fn load(&mut self, to: u8, from: Operand) {
        let to = self.whole(to);
        self.a.emit(codes::load(self.a.width), &[to, from]);
    }

    fn registers(&mut self, op: Binary, to: u8, with: u8) {
        let [to, with] = [to, with].map(|r| self.whole(r));
        self.a.emit(codes::binary(self.a.width, op, Kind::I32), &[to, to, with]);
    }

    /// With the same four words in all groups of lanes.
    fn constant(&mut self, op: Binary, to: u8, words: [u32; 4]) {
        let (to, words) = (self.whole(to), self.a.table(words));
        self.a.emit(codes::binary(self.a.width, op, Kind::I32), &[to, to, words.into()]);
    }

    fn masked(&mut self, to: u8, mask: [u32; 4]) {
        self.constant(Binary::And, to, mask);
    }

    /// From elements to their blocks.
    fn shift_words(&mut self, to: u8) {
        let code =
            self.pick(Code::VEX_Vpsrld_ymm_ymm_imm8, Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8);
        let to = self.whole(to);
        self.a.emit(code, &[to, to, Operand::Imm8(2)]);
    }

    /// The products of the even lanes.
    fn multiply(&mut self, to: u8, x: u8, by: [u32; 4]) {
        let code = self
            .pick(Code::VEX_Vpmuludq_ymm_ymm_ymmm256, Code::EVEX_Vpmuludq_zmm_k1z_zmm_zmmm512b64);
        let (to, x, by) = (self.whole(to), self.whole(x), self.a.table(by));
        self.a.emit(code, &[to, x, by.into()]);
    }

    /// Odd lanes to the even ones before them, zeros to the odd ones.
    fn odd_down(&mut self, to: u8) {
        let code =
            self.pick(Code::VEX_Vpsrlq_ymm_ymm_imm8, Code::EVEX_Vpsrlq_zmm_k1z_zmmm512b64_imm8);
        let to = self.whole(to);
        self.a.emit(code, &[to, to, Operand::Imm8(32)]);
    }

    /// Each four lanes the other way round.
    fn reverse(&mut self, to: u8) {
        let code = self
            .pick(Code::VEX_Vpshufd_ymm_ymmm256_imm8, Code::EVEX_Vpshufd_zmm_k1z_zmmm512b32_imm8);
        let to = self.whole(to);
        self.a.emit(code, &[to, to, Operand::Imm8(0x1b)]);
    }
}
