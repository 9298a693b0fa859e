//! The code of one vector: registers, and one or a few instructions for each operation.
//!
//! Operations come in the order of their list. A value gets a register when it is computed and
//! gives it back after its last use; if none is free, the value used latest goes to the stack.
//! Constants are operands in memory unless the [`Frame`] gave them registers.

mod fma;

use super::asm::{Assembler, Operand};
use super::codes;
use super::frame::{Frame, Place};
use super::random;
use crate::leaf::lanes::{Binary, Compare, Kind, Lanes, Op, Unary, Vector};
use iced_x86::{Code, Register};

/// Gives what code does not compute itself. A new value goes to the first register; the second one
/// is free while it is made. A carry is somewhere already.
pub type Outside<'o> = &'o mut dyn FnMut(&mut Assembler, Op, Option<(u8, u8)>) -> Place;

/// Takes a root that nothing else reads, in that register, as soon as it is computed; or refuses.
pub type Sink<'o> = &'o mut dyn FnMut(&mut Assembler, Vector, u8) -> bool;

/// Computes `roots` and tells where they are, but for those that `sink` takes. `wishes` are
/// registers for some of the values, which they get once nothing else is in them.
pub fn emit(
    a: &mut Assembler,
    frame: &mut Frame,
    lanes: &Lanes,
    roots: &[Vector],
    wishes: &[(Vector, u8)],
    outside: Outside,
    sink: Sink,
) -> Vec<Option<Place>> {
    let order = lanes.reachable(roots);
    let mut uses = vec![Vec::new(); lanes.len()];
    for (at, &v) in order.iter().enumerate() {
        for x in lanes.op(v).operands().map(|x| source(lanes, x)) {
            uses[x.0 as usize].push(at);
        }
    }
    for &v in roots {
        uses[source(lanes, v).0 as usize].push(usize::MAX);
    }
    let free = frame.free;
    let straight = Straight {
        a,
        frame,
        lanes,
        uses,
        wishes,
        places: vec![None; lanes.len()],
        owned: free,
        free,
        locked: 0,
        spilled: 0,
        at: 0,
    };
    straight.emit(&order, roots, outside, sink)
}

/// The operation whose register a value is in: other names for its bits cost nothing.
fn source(lanes: &Lanes, v: Vector) -> Vector {
    match lanes.op(v) {
        Op::Unary(Unary::AsInt | Unary::AsFloat, x) => source(lanes, x),
        _ => v,
    }
}

struct Straight<'s> {
    a: &'s mut Assembler,
    frame: &'s mut Frame,
    lanes: &'s Lanes,
    /// By value: where in the order it is used.
    uses: Vec<Vec<usize>>,
    wishes: &'s [(Vector, u8)],
    places: Vec<Option<Place>>,
    /// Registers that values may use.
    owned: u32,
    /// Of these, those that hold nothing.
    free: u32,
    /// Registers that the current instruction reads.
    locked: u32,
    /// Values on the stack.
    spilled: i32,
    at: usize,
}

impl Straight<'_> {
    fn emit(
        mut self,
        order: &[Vector],
        roots: &[Vector],
        outside: Outside,
        sink: Sink,
    ) -> Vec<Option<Place>> {
        for (at, &v) in order.iter().enumerate() {
            self.at = at;
            self.locked = 0;
            let op = self.lanes.op(v);
            let place = match op {
                _ if source(self.lanes, v) != v => continue,
                Op::Const(..) | Op::Uniform(..) => self.frame.home(self.a, op),
                Op::Carry(..) => outside(self.a, op, None),
                Op::Input(..) | Op::Index => {
                    let registers = (self.target(v), self.register());
                    outside(self.a, op, Some(registers))
                }
                _ => Place::Register(self.compute(v, op)),
            };
            self.places[v.0 as usize] = Some(place);
            let uses = &mut self.uses[v.0 as usize];
            if let (Place::Register(r), Some(&usize::MAX)) = (place, uses.first())
                && sink(self.a, v, r)
            {
                uses.clear();
                self.places[v.0 as usize] = None;
            }
            self.free_temporaries();
        }
        roots.iter().map(|&v| self.places[source(self.lanes, v).0 as usize]).collect()
    }

    fn place(&self, v: Vector) -> Place {
        self.places[source(self.lanes, v).0 as usize].expect("operands are computed before users")
    }

    /// Whether nothing after the current operation reads `v`.
    fn dies(&self, v: Vector) -> bool {
        let uses = &self.uses[source(self.lanes, v).0 as usize];
        uses.last().is_none_or(|&last| last <= self.at)
    }

    /// The values in registers.
    fn held(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        self.places.iter().enumerate().filter_map(|(i, place)| match place {
            Some(Place::Register(r)) if self.owned >> r & 1 == 1 => Some((i, *r)),
            _ => None,
        })
    }

    /// Registers of dead values and of operands that were only loaded are free again.
    fn free_temporaries(&mut self) {
        let alive = |i: &usize| self.uses[*i].last().is_some_and(|&last| last > self.at);
        let held = self.held().filter(|(i, _)| alive(i)).fold(0, |set, (_, r)| set | 1 << r);
        self.free = self.owned & !held;
    }

    /// A register for a new value, other than those the current instruction reads.
    fn register(&mut self) -> u8 {
        let candidates = self.free & !self.locked;
        let register =
            if candidates != 0 { candidates.trailing_zeros() as u8 } else { self.spill() };
        self.free &= !(1 << register);
        self.locked |= 1 << register;
        register
    }

    /// Moves the value that is used latest to the stack.
    fn spill(&mut self) -> u8 {
        let next_use = |i: usize| self.uses[i].iter().find(|&&u| u > self.at);
        let free_now = |r: u8| self.locked >> r & 1 == 0;
        let candidates = self.held().filter(|&(_, r)| free_now(r));
        let victim = candidates.max_by_key(|&(i, _)| next_use(i));
        let (value, register) = victim.expect("an operation reads fewer values than registers");
        let width = self.a.width;
        let slot = self.frame.spill(width, self.spilled);
        self.spilled += 1;
        self.a.emit(codes::store(width), &[slot.into(), width.whole(register).into()]);
        self.places[value] = Some(Place::Memory(slot));
        register
    }

    /// A value in a register.
    fn in_register(&mut self, v: Vector) -> u8 {
        match self.place(v) {
            Place::Register(r) => {
                self.locked |= 1 << r;
                r
            }
            Place::Memory(mem) => {
                let r = self.register();
                self.load(r, mem.into());
                r
            }
        }
    }

    /// A value as an operand that may be memory.
    fn operand(&mut self, v: Vector) -> Operand {
        match self.place(v) {
            Place::Register(r) => {
                self.locked |= 1 << r;
                self.a.width.whole(r).into()
            }
            Place::Memory(mem) => mem.into(),
        }
    }

    fn load(&mut self, register: u8, from: Operand) {
        let width = self.a.width;
        self.a.emit(codes::load(width), &[width.whole(register).into(), from]);
    }

    /// The register of `v`, whose operands have been read: instructions read before they write.
    fn target(&mut self, v: Vector) -> u8 {
        if let Some(wish) = self.wish(v) {
            return wish;
        }
        self.locked = 0;
        self.free_temporaries();
        self.register()
    }

    /// The register that `v` should be in, if that holds nothing any more.
    fn wish(&self, v: Vector) -> Option<u8> {
        let wish = self.wishes.iter().find(|w| w.0 == v)?.1;
        let holds = |i: usize| {
            self.places[i] == Some(Place::Register(wish)) && !self.dies(Vector(i as u32))
        };
        (!(0..self.places.len()).any(holds)).then_some(wish)
    }

    /// A register that may be overwritten: that of `x` if it dies here.
    fn overwritten(&self, x: Vector) -> Option<u8> {
        match self.place(x) {
            Place::Register(r) if self.dies(x) && self.owned >> r & 1 == 1 => Some(r),
            _ => None,
        }
    }

    fn compute(&mut self, v: Vector, op: Op) -> u8 {
        match op {
            Op::Unary(op, x) => self.unary(v, op, x),
            Op::Binary(op @ (Binary::Join | Binary::JoinBits), x, y) => self.join(v, op, x, y),
            Op::Binary(op, x, y) => self.binary(v, op, x, y),
            Op::Shift(shift, x, by) => {
                let x = self.in_register(x);
                let dst = self.target(v);
                let code = codes::shift(self.a.width, shift);
                self.instruction(code, dst, &[self.a.width.whole(x).into(), Operand::Imm8(by)]);
                dst
            }
            Op::Pick(table, x) => self.pick(v, table, x),
            Op::Within(x, at) => {
                let x = self.in_register(x);
                self.lane_of(v, x, at)
            }
            Op::Compare(compare, x, y) => self.compare(v, compare, x, y),
            Op::Fma(x, y, z) => self.fma(v, [x, y, z]),
            Op::Select(mask, x, y) => self.select(v, mask, x, y),
            Op::Random(site, seed, step, element) => self.random(site, [seed, step, element]),
            _ => unreachable!("`{op}` comes from outside"),
        }
    }

    /// An instruction that writes the whole register `dst`.
    fn instruction(&mut self, code: Code, dst: u8, rest: &[Operand]) {
        let dst = self.a.width.whole(dst).into();
        self.a.emit(code, &[&[dst], rest].concat());
    }

    fn unary(&mut self, v: Vector, op: Unary, x: Vector) -> u8 {
        match op {
            Unary::Not => {
                let x = self.in_register(x);
                let dst = self.target(v);
                self.invert(dst, x);
                return dst;
            }
            Unary::Lower | Unary::Upper => return self.widen(v, op, x),
            _ => {}
        }
        let kind = self.lanes.kind(v);
        let x = self.operand(x);
        let dst = self.target(v);
        let (code, constant) = codes::unary(self.a.width, op, kind);
        match constant {
            Some(constant) => self.instruction(code, dst, &[x, Operand::Imm8(constant)]),
            None => self.instruction(code, dst, &[x]),
        }
        dst
    }

    /// The complement of a mask.
    fn invert(&mut self, dst: u8, x: u8) {
        let ones = self.a.repeated(u64::MAX);
        let code = codes::binary(self.a.width, Binary::Xor, Kind::Mask);
        self.instruction(code, dst, &[self.a.width.whole(x).into(), ones.into()]);
    }

    fn widen(&mut self, v: Vector, half: Unary, x: Vector) -> u8 {
        let width = self.a.width;
        let (code, _) = codes::unary(width, half, Kind::F32);
        let x = match self.place(x) {
            Place::Memory(mem) if half == Unary::Upper => mem.plus(width.bytes() / 2).into(),
            Place::Memory(mem) => mem.into(),
            Place::Register(r) if half == Unary::Lower => width.half(r).into(),
            Place::Register(r) => {
                self.locked |= 1 << r;
                let upper = self.register();
                let operands = [width.half(upper).into(), width.whole(r).into(), Operand::Imm8(1)];
                self.a.emit(codes::extract_upper(width), &operands);
                width.half(upper).into()
            }
        };
        let dst = self.target(v);
        self.instruction(code, dst, &[x]);
        dst
    }

    fn join(&mut self, v: Vector, op: Binary, lower: Vector, upper: Vector) -> u8 {
        let width = self.a.width;
        let [lower, upper] = [lower, upper].map(|x| self.in_register(x));
        if op == Binary::JoinBits && width == super::Width::Ymm {
            let dst = self.target(v);
            let code = Code::VEX_Vshufps_ymm_ymm_ymmm256_imm8;
            let operands = [width.whole(lower).into(), width.whole(upper).into()];
            self.instruction(code, dst, &[operands[0], operands[1], Operand::Imm8(0x88)]);
            let code = Code::VEX_Vpermpd_ymm_ymmm256_imm8;
            self.instruction(code, dst, &[width.whole(dst).into(), Operand::Imm8(0xd8)]);
            return dst;
        }
        let narrowed = self.register();
        self.narrow(op, narrowed, upper);
        let dst = self.target_beside(v, narrowed);
        self.narrow(op, dst, lower);
        let operands = [width.whole(dst).into(), width.half(narrowed).into(), Operand::Imm8(1)];
        self.instruction(codes::insert_upper(width), dst, &operands);
        dst
    }

    /// [`Straight::target`] while `kept` is still needed.
    fn target_beside(&mut self, v: Vector, kept: u8) -> u8 {
        if let Some(wish) = self.wish(v) {
            return wish;
        }
        self.free_temporaries();
        self.locked = 1 << kept;
        self.register()
    }

    fn narrow(&mut self, op: Binary, dst: u8, x: u8) {
        let width = self.a.width;
        let (dst, x) = (width.half(dst).into(), width.whole(x).into());
        match op {
            Binary::Join => self.a.emit(codes::narrow(width), &[dst, x]),
            _ => self.a.emit(Code::EVEX_Vpmovqd_ymmm256_k1z_zmm, &[dst, x]),
        }
    }

    fn binary(&mut self, v: Vector, op: Binary, x: Vector, y: Vector) -> u8 {
        use Binary::{Add, And, Mul, Or, Xor};
        let commutes = matches!(op, Add | And | Mul | Or | Xor);
        let first_in_memory = matches!(self.place(x), Place::Memory(_));
        let (x, y) = if commutes && first_in_memory { (y, x) } else { (x, y) };
        let kind = self.lanes.kind(x);
        let x = self.in_register(x);
        let y = self.operand(y);
        let dst = self.target(v);
        let code = codes::binary(self.a.width, op, kind);
        self.instruction(code, dst, &[self.a.width.whole(x).into(), y]);
        dst
    }

    fn pick(&mut self, v: Vector, table: [u32; 4], x: Vector) -> u8 {
        let table = self.a.table(table);
        let numbers = self.register();
        self.load(numbers, table.into());
        self.lane_of(v, numbers, x)
    }

    fn lane_of(&mut self, v: Vector, from: u8, at: Vector) -> u8 {
        let (at, dst) = (self.operand(at), self.target(v));
        self.instruction(codes::pick(self.a.width), dst, &[self.a.width.whole(from).into(), at]);
        dst
    }

    fn compare(&mut self, v: Vector, compare: Compare, x: Vector, y: Vector) -> u8 {
        let width = self.a.width;
        if self.lanes.kind(x) == Kind::F32 {
            let x = self.in_register(x);
            let y = self.operand(y);
            let dst = self.target(v);
            let (code, predicate) = codes::float_compare(width, compare);
            self.compare_with(code, dst, [width.whole(x).into(), y, Operand::Imm8(predicate)]);
            return dst;
        }
        if width == super::Width::Zmm {
            let x = self.in_register(x);
            let y = self.operand(y);
            let dst = self.target(v);
            let predicate = Operand::Imm8(codes::int_predicate(compare));
            let code = Code::EVEX_Vpcmpd_kr_k1_zmm_zmmm512b32_imm8;
            self.compare_with(code, dst, [width.whole(x).into(), y, predicate]);
            return dst;
        }
        let (code, x, y) = match compare {
            Compare::Eq | Compare::Ne => (Code::VEX_Vpcmpeqd_ymm_ymm_ymmm256, x, y),
            Compare::Lt => (Code::VEX_Vpcmpgtd_ymm_ymm_ymmm256, y, x),
            _ => (Code::VEX_Vpcmpgtd_ymm_ymm_ymmm256, x, y),
        };
        let x = self.in_register(x);
        let y = self.operand(y);
        let dst = self.target(v);
        self.instruction(code, dst, &[width.whole(x).into(), y]);
        if matches!(compare, Compare::Ne | Compare::Le) {
            self.invert(dst, dst);
        }
        dst
    }

    /// A comparison whose result becomes a vector.
    fn compare_with(&mut self, code: Code, dst: u8, operands: [Operand; 3]) {
        if self.a.width == super::Width::Ymm {
            return self.instruction(code, dst, &operands);
        }
        let k2 = Operand::Reg(Register::K2);
        self.a.emit(code, &[&[k2], operands.as_slice()].concat());
        self.instruction(Code::EVEX_Vpmovm2d_zmm_kr, dst, &[k2]);
    }

    fn select(&mut self, v: Vector, mask: Vector, x: Vector, y: Vector) -> u8 {
        let width = self.a.width;
        if width == super::Width::Ymm {
            let (mask, y) = (self.in_register(mask), self.in_register(y));
            let x = self.operand(x);
            let dst = self.target(v);
            let operands = [width.whole(y).into(), x, width.whole(mask).into()];
            self.instruction(Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm, dst, &operands);
            return dst;
        }
        let x = self.in_register(x);
        let y = self.operand(y);
        let dst = self.copy(mask);
        let operands = [width.whole(x).into(), y, Operand::Imm8(0xca)];
        self.instruction(Code::EVEX_Vpternlogd_zmm_k1z_zmm_zmmm512b32_imm8, dst, &operands);
        dst
    }

    fn random(&mut self, site: u64, at: [Vector; 3]) -> u8 {
        let at = at.map(|x| self.operand(x));
        let [counter, key, other] = [(); 3].map(|()| self.register());
        random::emit(self.a, random::Registers { counter, key, other }, site, at);
        counter
    }

    /// A register that holds `x` and may be overwritten.
    fn copy(&mut self, x: Vector) -> u8 {
        if let Some(r) = self.overwritten(x) {
            return r;
        }
        let from = self.operand(x);
        let dst = self.register();
        self.load(dst, from);
        dst
    }
}
