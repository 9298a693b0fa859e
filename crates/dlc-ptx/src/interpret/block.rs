//! A block at work: its warps take turns, each until it meets a barrier or ends.

use super::code::Step;
use super::memory::{Global, Shared, Window, count_global, count_shared};
use super::warp::{AsBits, Bits, Copy, LANES, Warp};
use super::{Counters, Fault, matrix, scalar};
use crate::ir::{
    Address, AtomicOp, Bar, Guard, Inst, Kernel, MemType, Reg, Register, Shuffle, Space, Special,
    Value, Vote,
};

/// What a launch gives all its blocks.
pub struct Setting<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Its steps.
    pub steps: &'a [Step],
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// By parameter.
    pub params: &'a [u64],
    /// What addresses may reach.
    pub windows: &'a [Window],
}

/// A block.
pub struct Block<'a> {
    setting: &'a Setting<'a>,
    global: &'a mut Global,
    counters: &'a mut Counters,
    shared: Shared,
    position: [u32; 3],
}

/// Why a warp stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Barrier,
    End,
}

/// Where a fault happened: warp, lanes, step.
pub struct Site {
    /// The warp.
    pub warp: u32,
    /// The lanes that took part.
    pub lanes: u32,
    /// The step.
    pub step: usize,
}

impl<'a> Block<'a> {
    /// The block of that position.
    pub fn new(
        setting: &'a Setting<'a>,
        global: &'a mut Global,
        counters: &'a mut Counters,
        position: [u32; 3],
    ) -> Block<'a> {
        let shared = Shared::new(setting.kernel.shared);
        Block { setting, global, counters, shared, position }
    }

    /// Runs all warps to their end.
    pub fn run(mut self) -> Result<(), (Fault, Site)> {
        let count = self.setting.kernel.threads / LANES as u32;
        let mut warps: Vec<Warp> = (0..count).map(|n| Warp::new(self.setting.kernel, n)).collect();
        let mut running: Vec<bool> = vec![true; warps.len()];
        while running.iter().any(|&r| r) {
            let mut ended = None;
            let mut waits = None;
            for (warp, running) in warps.iter_mut().zip(&mut running).filter(|(_, r)| **r) {
                let stop = self.advance(warp).map_err(|fault| {
                    (fault, Site { warp: warp.number, lanes: warp.active, step: warp.at })
                })?;
                let site = Site { warp: warp.number, lanes: warp.active, step: warp.at };
                match stop {
                    Stop::End => (*running, ended) = (false, Some(site)),
                    Stop::Barrier => waits = Some(site),
                }
            }
            if let (Some(_), Some(site)) = (ended, waits) {
                return Err((Fault::Barrier, site));
            }
            self.shared.barrier();
        }
        Ok(())
    }

    fn advance(&mut self, warp: &mut Warp) -> Result<Stop, Fault> {
        let steps = self.setting.steps;
        while let Some(step) = steps.get(warp.at) {
            match step {
                Step::Inst(guard, inst) => {
                    let mask = active(warp, *guard)?;
                    if let Inst::Barrier(bar) = inst {
                        if mask != u32::MAX {
                            return Err(Fault::Barrier);
                        }
                        if *bar == Bar::Block {
                            warp.at += 1;
                            return Ok(Stop::Barrier);
                        }
                    } else if mask != 0 {
                        self.counters.instructions += 1;
                        self.execute(warp, inst, mask)?;
                    }
                    warp.at += 1;
                }
                _ => branch(warp, step)?,
            }
        }
        Ok(Stop::End)
    }

    fn execute(&mut self, warp: &mut Warp, inst: &Inst, mask: u32) -> Result<(), Fault> {
        match inst {
            Inst::Special { dst, source } => {
                let (number, position) = (warp.number, self.position);
                let value = move |lane: usize| match source {
                    Special::Thread => u64::from(number) * 32 + lane as u64,
                    Special::Lane => lane as u64,
                    Special::BlockX => u64::from(position[0]),
                    Special::BlockY => u64::from(position[1]),
                    Special::BlockZ => u64::from(position[2]),
                    Special::BlocksX => u64::from(self.setting.grid[0]),
                };
                warp.write((*dst).into(), mask, value);
            }
            Inst::Shared { dst } => warp.write((*dst).into(), mask, |_| 0),
            Inst::Param { dst, index } => {
                let value = self.setting.params[*index as usize];
                warp.write(*dst, mask, |_| value);
            }
            Inst::Load { space, ty, dst, from, .. } => {
                self.load(warp, mask, (*space, *ty), dst, *from)?;
            }
            Inst::Store { space, ty, to, src } => {
                self.store(warp, mask, (*space, *ty), *to, src)?;
            }
            Inst::Atomic { op, dst, at, value } => {
                self.atomic(warp, mask, *op, (*dst).into(), *at, *value)?;
            }
            Inst::CopyAsync { to, from, bytes, size } => {
                let size = match size {
                    Some(size) => warp.value(Value::Reg(*size), mask)?,
                    None => [u64::from(*bytes); LANES],
                };
                self.copy(warp, mask, (*to, *from), u64::from(*bytes), &size)?;
            }
            Inst::CommitGroup => warp.copies.push(Vec::new()),
            Inst::WaitGroup(left) => {
                let arrived = (warp.copies.len() - 1).saturating_sub(*left as usize);
                for copy in warp.copies.drain(..arrived).flatten() {
                    self.shared.arrive(copy.to, &copy.bytes);
                }
            }
            Inst::LoadMatrix { dst, from, transposed } => {
                for (matrix, &dst) in dst.iter().enumerate() {
                    let rows = self.rows(warp, mask, *from, matrix)?;
                    let spread = matrix::spread(&rows, *transposed);
                    warp.write(dst.into(), mask, |lane| spread[lane]);
                }
            }
            Inst::Trap => return Err(Fault::Trap),
            _ => compute(warp, inst, mask)?,
        }
        Ok(())
    }

    /// The addresses of an access, by lane, and as places in memory, of active lanes.
    fn places(
        &mut self,
        warp: &Warp,
        mask: u32,
        space: Space,
        address: Address,
        width: u64,
    ) -> Result<Vec<u64>, Fault> {
        let base = warp.read(address.base, mask)?;
        let bits = if space == Space::Global { u64::MAX } else { u64::from(u32::MAX) };
        let at = |lane: usize| base[lane].wrapping_add_signed(i64::from(address.offset)) & bits;
        match space {
            Space::Shared => Ok(Warp::lanes(mask).map(at).collect()),
            Space::Global => Warp::lanes(mask)
                .map(|lane| Ok(self.global.place(self.setting.windows, at(lane), width)?))
                .collect(),
        }
    }

    fn load(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        (space, ty): (Space, MemType),
        dst: &[Reg],
        from: Address,
    ) -> Result<(), Fault> {
        let each = u64::from(ty.bytes());
        let width = each * dst.len() as u64;
        let places = self.places(warp, mask, space, from, width)?;
        match space {
            Space::Global => count_global(self.counters, &places, width, false),
            Space::Shared => count_shared(self.counters, &places, width),
        }
        for (lane, place) in Warp::lanes(mask).zip(places) {
            let bytes = match space {
                Space::Global => self.global.load(place, width)?,
                Space::Shared => self.shared.load(warp.number, place, width)?,
            };
            for (&dst, part) in dst.iter().zip(bytes.chunks(each as usize)) {
                let value = extended(ty, part);
                warp.write(dst, 1 << lane, |_| value);
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        (space, ty): (Space, MemType),
        to: Address,
        src: &[Reg],
    ) -> Result<(), Fault> {
        let each = ty.bytes() as usize;
        let width = (each * src.len()) as u64;
        let places = self.places(warp, mask, space, to, width)?;
        match space {
            Space::Global => count_global(self.counters, &places, width, true),
            Space::Shared => count_shared(self.counters, &places, width),
        }
        let values = src.iter().map(|&r| warp.read(r, mask).copied());
        let values = values.collect::<Result<Vec<Bits>, _>>()?;
        for (lane, place) in Warp::lanes(mask).zip(places) {
            let bytes: Vec<u8> =
                values.iter().flat_map(|v| v[lane].to_le_bytes().into_iter().take(each)).collect();
            match space {
                Space::Global => self.global.write(place, &bytes),
                Space::Shared => self.shared.store(warp.number, place, &bytes)?,
            }
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        op: AtomicOp,
        dst: Reg,
        at: Address,
        value: Value<crate::ir::B32>,
    ) -> Result<(), Fault> {
        let places = self.places(warp, mask, Space::Global, at, 4)?;
        let value = warp.value(value, mask)?;
        let expected = match op {
            AtomicOp::CompareAndSwap(expected) => warp.value(expected, mask)?,
            _ => [0; LANES],
        };
        for (lane, place) in Warp::lanes(mask).zip(places) {
            let bytes = self.global.load(place, 4)?;
            let old = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
            let value = value[lane] as u32;
            let new = match op {
                AtomicOp::Add => old.wrapping_add(value),
                AtomicOp::Min => old.min(value),
                AtomicOp::Max => old.max(value),
                AtomicOp::CompareAndSwap(_) if old == expected[lane] as u32 => value,
                AtomicOp::CompareAndSwap(_) => old,
            };
            self.global.write(place, &new.to_le_bytes());
            warp.write(dst, 1 << lane, |_| u64::from(old));
        }
        Ok(())
    }

    fn copy(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        (to, from): (Address, Address),
        bytes: u64,
        size: &Bits,
    ) -> Result<(), Fault> {
        let to = self.places(warp, mask, Space::Shared, to, bytes)?;
        let source = warp.read(from.base, mask)?;
        let mut copies = Vec::new();
        let mut read = Vec::new();
        for (lane, to) in Warp::lanes(mask).zip(&to) {
            self.shared.expect(warp.number, *to, bytes)?;
            let mut data = vec![0; bytes as usize];
            let count = size[lane].min(bytes);
            if count > 0 {
                let address = source[lane].wrapping_add_signed(i64::from(from.offset));
                let place = self.global.place(self.setting.windows, address, bytes)?;
                data[..count as usize].copy_from_slice(self.global.load(place, count)?);
                read.push(place);
            }
            copies.push(Copy { to: *to, bytes: data });
        }
        count_global(self.counters, &read, bytes, false);
        count_shared(self.counters, &to, bytes);
        warp.copies.last_mut().expect("a group is open").extend(copies);
        Ok(())
    }

    /// The rows of the matrix of that number, by the addresses of 8 lanes.
    fn rows(
        &mut self,
        warp: &Warp,
        mask: u32,
        from: Address,
        matrix: usize,
    ) -> Result<[[u16; 8]; 8], Fault> {
        if mask != u32::MAX {
            return Err(Fault::Divergent);
        }
        let places = self.places(warp, mask, Space::Shared, from, 16)?;
        let places = &places[8 * matrix..8 * matrix + 8];
        count_shared(self.counters, places, 16);
        let mut rows = [[0; 8]; 8];
        for (row, &place) in rows.iter_mut().zip(places) {
            let bytes = self.shared.load(warp.number, place, 16)?;
            let halves = bytes.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
            row.iter_mut().zip(halves).for_each(|(to, half)| *to = half);
        }
        Ok(rows)
    }
}

fn active(warp: &Warp, guard: Option<Guard>) -> Result<u32, Fault> {
    let Some(guard) = guard else { return Ok(warp.active) };
    let holds = warp.holds(guard.pred, warp.active)?;
    Ok(if guard.when { holds } else { warp.active & !holds })
}

/// Control flow.
fn branch(warp: &mut Warp, step: &Step) -> Result<(), Fault> {
    match *step {
        Step::If { pred, other } => {
            let holds = warp.holds(pred, warp.active)?;
            warp.waiting.push((warp.active, warp.active & !holds));
            warp.active = holds;
            warp.at = if holds == 0 { other } else { warp.at + 1 };
        }
        Step::Else { end } => {
            let (_, others) = *warp.waiting.last().expect("an `If` came before");
            warp.active = others;
            warp.at = if others == 0 { end } else { warp.at + 1 };
        }
        Step::EndIf => {
            warp.active = warp.waiting.pop().expect("an `If` came before").0;
            warp.at += 1;
        }
        Step::Enter => {
            warp.waiting.push((warp.active, 0));
            warp.at += 1;
        }
        Step::Repeat { pred, top } => {
            warp.active = warp.holds(pred, warp.active)?;
            if warp.active == 0 {
                warp.active = warp.waiting.pop().expect("an `Enter` came before").0;
                warp.at += 1;
            } else {
                warp.at = top;
            }
        }
        Step::Inst(..) => unreachable!("instructions are executed"),
    }
    Ok(())
}

/// A value from memory as a register holds it.
fn extended(ty: MemType, bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    match ty {
        MemType::S8 => u64::from(i32::from(bytes[0] as i8) as u32),
        _ => u64::from_le_bytes(wide),
    }
}

/// Instructions that touch registers alone.
fn compute(warp: &mut Warp, inst: &Inst, mask: u32) -> Result<(), Fault> {
    let float = |bits: u64| f32::from_bits(bits as u32);
    let double = f64::from_bits;
    match inst {
        Inst::Mov32 { dst, src } => unary(warp, mask, *dst, *src, |a| a),
        Inst::Mov64 { dst, src } => unary(warp, mask, *dst, *src, |a| a),
        Inst::MovF32 { dst, src } => unary(warp, mask, *dst, *src, |a| a),
        Inst::Bits { dst, src } => unary(warp, mask, *dst, Value::Reg(*src), |a| a),
        Inst::FromBits { dst, src } => unary(warp, mask, *dst, Value::Reg(*src), |a| a),
        Inst::Pack { dst, low, high } => {
            let (low, high) = (Value::Reg(*low), Value::Reg(*high));
            binary(warp, mask, *dst, low, high, |a, b| a | b << 16)
        }
        Inst::Unpack { low, high, src } => {
            unary(warp, mask, *low, Value::Reg(*src), |a| a & 0xffff)?;
            unary(warp, mask, *high, Value::Reg(*src), |a| a >> 16)
        }
        Inst::Int { op, dst, a, b } => {
            let f = |a, b| u64::from(scalar::int(*op, a as u32, b as u32));
            binary(warp, mask, *dst, *a, *b, f)
        }
        Inst::Int64 { op, dst, a, b } => {
            binary(warp, mask, *dst, *a, *b, |a, b| scalar::int64(*op, a, b))
        }
        Inst::Mad { dst, a, b, c } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            u64::from((a as u32).wrapping_mul(b as u32).wrapping_add(c as u32))
        }),
        Inst::MadWide { signed, dst, a, b, c } => {
            let f = |a, b, c: u64| c.wrapping_add(wide_product(*signed, a, b));
            ternary(warp, mask, *dst, (*a, *b, *c), f)
        }
        Inst::MulWide { signed, dst, a, b } => {
            binary(warp, mask, *dst, *a, *b, |a, b| wide_product(*signed, a, b))
        }
        Inst::Lop3 { dst, a, b, c, table } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            u64::from(scalar::lop3(a as u32, b as u32, c as u32, *table))
        }),
        Inst::Float { op, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(scalar::float(*op, float(a), float(b)).to_bits())
        }),
        Inst::Fma { dst, a, b, c } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            u64::from(float(a).mul_add(float(b), float(c)).to_bits())
        }),
        Inst::Math { op, dst, a } => {
            unary(warp, mask, *dst, *a, |a| u64::from(scalar::math(*op, float(a)).to_bits()))
        }
        Inst::Float64 { op, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            scalar::float64(*op, double(a), double(b)).to_bits()
        }),
        Inst::Sqrt64 { dst, a } => unary(warp, mask, *dst, *a, |a| double(a).sqrt().to_bits()),
        Inst::Fma64 { dst, a, b, c } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            double(a).mul_add(double(b), double(c)).to_bits()
        }),
        Inst::Convert(convert) => {
            let (dst, [low, high]) = scalar::operands(*convert);
            let (low, high) = (*warp.read(low, mask)?, *warp.read(high, mask)?);
            warp.write(dst, mask, |lane| scalar::convert(*convert, low[lane], high[lane]));
            Ok(())
        }
        Inst::SetInt { cmp, signed, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            let (a, b) = (a as u32, b as u32);
            let signed_result = scalar::compare(*cmp, a as i32, b as i32);
            u64::from(if *signed { signed_result } else { scalar::compare(*cmp, a, b) })
        }),
        Inst::SetInt64 { cmp, signed, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            let signed_result = scalar::compare(*cmp, a as i64, b as i64);
            u64::from(if *signed { signed_result } else { scalar::compare(*cmp, a, b) })
        }),
        Inst::SetFloat { cmp, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(scalar::compare(*cmp, float(a), float(b)))
        }),
        Inst::SetFloat64 { cmp, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(scalar::compare(*cmp, double(a), double(b)))
        }),
        Inst::IsNan { dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(float(a).is_nan() || float(b).is_nan())
        }),
        Inst::Logic { op, dst, a, b } => {
            binary(warp, mask, *dst, *a, *b, |a, b| u64::from(scalar::logic(*op, a != 0, b != 0)))
        }
        Inst::Not { dst, a } => unary(warp, mask, *dst, *a, |a| u64::from(a == 0)),
        Inst::Select32 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        Inst::Select64 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        Inst::SelectF32 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        Inst::SelectF64 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        _ => across(warp, inst, mask),
    }
}

/// Instructions by which the lanes of a warp see one another.
fn across(warp: &mut Warp, inst: &Inst, mask: u32) -> Result<(), Fault> {
    if mask != u32::MAX {
        return Err(Fault::Divergent);
    }
    match inst {
        Inst::Shuffle { mode, dst, src, lane, width } => {
            let (src, by) = (*warp.read(*src, mask)?, warp.value(*lane, mask)?);
            warp.write(*dst, mask, |lane| src[shuffled(*mode, lane, by[lane] as usize, *width)]);
        }
        Inst::Vote { vote, dst, pred } => {
            let holds = warp.holds(*pred, mask)?;
            let result = if *vote == Vote::Any { holds != 0 } else { holds == mask };
            warp.write((*dst).into(), mask, |_| u64::from(result));
        }
        Inst::Ballot { dst, pred } => {
            let holds = warp.holds(*pred, mask)?;
            warp.write((*dst).into(), mask, |_| u64::from(holds));
        }
        Inst::Mma { shape, dst, a, b, c } => {
            let read = |registers: &[crate::ir::B32]| {
                let all = registers.iter().map(|&r| warp.read(r.into(), mask).copied());
                all.collect::<Result<Vec<Bits>, Fault>>()
            };
            let (a, b) = (read(a)?, read(b)?);
            let mut sums = [[0; LANES]; 4];
            for (sum, &register) in sums.iter_mut().zip(c) {
                *sum = *warp.read(register.into(), mask)?;
            }
            let result = matrix::multiply(*shape, &a, &b, &sums);
            for (values, &register) in result.iter().zip(dst) {
                warp.write(register.into(), mask, |lane| values[lane]);
            }
        }
        Inst::Fence => {}
        _ => unreachable!("`{inst}` is executed elsewhere"),
    }
    Ok(())
}

/// The lane that a shuffle reads; its own where there is none in the group.
fn shuffled(mode: Shuffle, lane: usize, by: usize, width: u32) -> usize {
    let width = width as usize;
    let first = lane / width * width;
    let from = match mode {
        Shuffle::Butterfly => lane ^ by,
        Shuffle::Down => lane + by,
        Shuffle::Up => lane.wrapping_sub(by),
        Shuffle::Index => first + by % width,
    };
    if (first..first + width).contains(&from) { from } else { lane }
}

fn wide_product(signed: bool, a: u64, b: u64) -> u64 {
    let (a, b) = (a as u32, b as u32);
    if signed {
        (i64::from(a as i32) * i64::from(b as i32)) as u64
    } else {
        u64::from(a) * u64::from(b)
    }
}

fn unary<D: Register, A: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    a: Value<A>,
    f: impl Fn(u64) -> u64,
) -> Result<(), Fault> {
    let a = warp.value(a, mask)?;
    warp.write(dst.into(), mask, |lane| f(a[lane]));
    Ok(())
}

fn binary<D: Register, A: Register<Literal: AsBits>, B: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    a: Value<A>,
    b: Value<B>,
    f: impl Fn(u64, u64) -> u64,
) -> Result<(), Fault> {
    let (a, b) = (warp.value(a, mask)?, warp.value(b, mask)?);
    warp.write(dst.into(), mask, |lane| f(a[lane], b[lane]));
    Ok(())
}

fn ternary<D: Register, A: Register<Literal: AsBits>, C: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    (a, b, c): (Value<A>, Value<A>, Value<C>),
    f: impl Fn(u64, u64, u64) -> u64,
) -> Result<(), Fault> {
    let (a, b, c) = (warp.value(a, mask)?, warp.value(b, mask)?, warp.value(c, mask)?);
    warp.write(dst.into(), mask, |lane| f(a[lane], b[lane], c[lane]));
    Ok(())
}

fn select<D: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    a: Value<D>,
    b: Value<D>,
    pred: crate::ir::Pred,
) -> Result<(), Fault> {
    let (a, b) = (warp.value(a, mask)?, warp.value(b, mask)?);
    let holds = warp.holds(pred, mask)?;
    warp.write(dst.into(), mask, |lane| if holds >> lane & 1 == 1 { a[lane] } else { b[lane] });
    Ok(())
}
