//! What lives throughout a loop: in registers as long as some are free, else in memory.

use super::asm::{Assembler, Mem, Operand};
use super::{Width, codes};
use crate::leaf::lanes::{Kind, Lanes, Op, Vector};
use crate::leaf::loops::{Copies, Loop};
use iced_x86::Register;
use rustc_hash::FxHashMap;

/// Registers that the code of a vector wants beside its values: operands that only memory holds.
const SPARE: usize = 2;

/// Values that may go to the stack so that the code of more vectors can be interleaved.
const SPILLS: usize = 3;

/// Where a vector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the register of that number.
    Register(u8),
    /// In memory.
    Memory(Mem),
}

/// The homes of constants and uniforms, and the stack.
#[derive(Default)]
pub struct Frame {
    /// Registers that values of a vector may use, a bit for each.
    pub free: u32,
    /// Vectors whose code is interleaved, so that none waits for another.
    pub together: u8,
    homes: FxHashMap<Op, Place>,
    /// Vectors on the stack.
    slots: i32,
    /// Of these, those that are taken for good.
    taken: i32,
}

impl Frame {
    /// The frame of a loop whose fold states are in the first `states` registers.
    pub fn new(width: Width, code: &Loop, states: u8) -> Frame {
        let mut frame = Frame::default();
        frame.leave(width, states);
        let (lines, roots) = code.copied(Copies::Lines(code.lines_together()), width.lanes());
        let each = pressure(&lines, &lines.reachable(&roots), &roots);
        let room = frame.free.count_ones() as usize;
        let fits =
            |&n: &u8| code.unroll.is_multiple_of(n) && usize::from(n) * each <= room + SPILLS;
        frame.together = (1..=code.unroll).rev().find(fits).unwrap_or(1);
        let spare = room.saturating_sub(usize::from(frame.together) * each + SPARE);
        let order = code.lanes.reachable(&code.roots());
        for op in by_use(&code.lanes, &order).into_iter().take(spare) {
            let register = 31 - frame.free.leading_zeros() as u8;
            frame.free &= !(1 << register);
            frame.homes.insert(op, Place::Register(register));
        }
        frame
    }

    /// Bytes of the stack.
    pub fn bytes(&self, width: Width) -> i32 {
        self.slots * width.bytes()
    }

    /// Where a constant or uniform is.
    pub fn home(&mut self, a: &mut Assembler, op: Op) -> Place {
        match op {
            _ if self.homes.contains_key(&op) => self.homes[&op],
            Op::Const(kind, bits) => Place::Memory(a.repeated(whole_bits(kind, bits))),
            _ => unreachable!("`{op}` has no home"),
        }
    }

    /// Loads what has a register, and spreads uniforms.
    pub fn enter(&mut self, a: &mut Assembler, code: &Loop) {
        let width = a.width;
        for v in code.lanes.reachable(&code.roots()) {
            let op = code.lanes.op(v);
            match (op, self.homes.get(&op)) {
                (Op::Const(kind, bits), Some(&Place::Register(r))) => {
                    let from = a.repeated(whole_bits(kind, bits));
                    a.emit(codes::load(width), &[width.whole(r).into(), from.into()]);
                }
                (Op::Uniform(_, k), home) => {
                    let from = Mem::at(Register::RDI, code.uniform_at(k.into()));
                    let register = match home {
                        Some(&Place::Register(r)) => r,
                        _ => self.free.trailing_zeros() as u8,
                    };
                    let whole: Operand = width.whole(register).into();
                    a.emit(codes::broadcast(width), &[whole, from.into()]);
                    if home.is_none() {
                        let slot = self.slot(width);
                        self.keep_slots();
                        a.emit(codes::store(width), &[slot.into(), whole]);
                        self.homes.insert(op, Place::Memory(slot));
                    }
                }
                _ => {}
            }
        }
    }

    /// The end of the loop: all registers are free but those of states, and the tail's mask.
    pub fn leave(&mut self, width: Width, states: u8) {
        let all = u32::MAX >> (32 - width.registers());
        let mask = if width == Width::Ymm { 1 << mask_register(width) } else { 0 };
        self.free = all & !((1 << states) - 1) & !mask;
        self.homes.clear();
    }

    /// A vector on the stack.
    pub fn slot(&mut self, width: Width) -> Mem {
        self.slots += 1;
        Mem::at(Register::RSP, (self.slots - 1) * width.bytes())
    }

    /// Takes all slots so far for good.
    pub fn keep_slots(&mut self) {
        self.taken = self.slots;
    }

    /// The slots that the code of a vector may use, from the first: the same ones each time.
    pub fn spill(&mut self, width: Width, number: i32) -> Mem {
        self.slots = self.slots.max(self.taken + number + 1);
        Mem::at(Register::RSP, (self.taken + number) * width.bytes())
    }
}

/// The register that holds the mask of a tail in AVX2.
pub fn mask_register(width: Width) -> u8 {
    width.registers() - 1
}

/// A constant as 64 bits.
fn whole_bits(kind: Kind, bits: u64) -> u64 {
    if kind == Kind::Half { bits } else { bits << 32 | bits }
}

fn is_kept(op: Op) -> bool {
    matches!(op, Op::Const(..) | Op::Uniform(..))
}

/// The most values that are alive at once, beside those that live throughout.
pub fn pressure(lanes: &Lanes, order: &[Vector], roots: &[Vector]) -> usize {
    let counts = |v: Vector| !is_kept(lanes.op(v)) && !matches!(lanes.op(v), Op::Carry(..));
    let mut last: FxHashMap<Vector, usize> = FxHashMap::default();
    for (at, &v) in order.iter().enumerate() {
        last.extend(lanes.op(v).operands().map(|x| (x, at)));
    }
    last.extend(roots.iter().map(|&v| (v, order.len())));
    let alive = |at: usize| {
        order[..=at].iter().filter(|&&v| counts(v) && last.get(&v).is_some_and(|&l| l > at)).count()
    };
    (0..order.len()).map(alive).max().unwrap_or(0)
}

/// Constants and uniforms, those first that are used most as what must be in a register.
fn by_use(lanes: &Lanes, order: &[Vector]) -> Vec<Op> {
    let mut uses: Vec<(Op, usize)> =
        order.iter().map(|&v| lanes.op(v)).filter(|&op| is_kept(op)).map(|op| (op, 0)).collect();
    for &v in order {
        let op = lanes.op(v);
        for (at, x) in op.operands().enumerate() {
            let first = at == 0 && !matches!(op, Op::Fma(..));
            let known = uses.iter_mut().find(|u| u.0 == lanes.op(x));
            known.into_iter().for_each(|u| u.1 += if first { 3 } else { 1 });
        }
    }
    uses.sort_by_key(|u| std::cmp::Reverse(u.1));
    uses.into_iter().map(|u| u.0).collect()
}
