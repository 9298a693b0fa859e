//! A block at work: its warps take turns, each until it meets a barrier or ends.

use super::code::Step;
use super::compute;
use super::memory::{Global, Shared, Window, apart, count_global, count_shared};
use super::traffic::Agent;
use super::warp::{Bits, Copy, LANES, Warp};
use super::{Counters, Fault, matrix};
use crate::ir::{
    Address, AtomicOp, B32, Bar, CacheHint, Guard, Inst, Kernel, MemType, Reg, Space, Special,
    Value,
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
    /// Barriers passed.
    epoch: u16,
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
        Block { setting, global, counters, shared, position, epoch: 0 }
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
            self.epoch = self.epoch.wrapping_add(1);
        }
        Ok(())
    }

    /// A warp as others see it until the next barrier.
    fn agent(&self, warp: &Warp) -> Agent {
        let ([x, y, z], grid) = (self.position, self.setting.grid);
        Agent { block: (z * grid[1] + y) * grid[0] + x, epoch: self.epoch, warp: warp.number as u8 }
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
            Inst::Load { space, ty, dst, from, hint } => {
                self.load(warp, mask, (*space, *ty), dst, (*from, *hint))?;
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
            _ => compute::run(warp, inst, mask)?,
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
        (from, hint): (Address, CacheHint),
    ) -> Result<(), Fault> {
        let (agent, constant) = (self.agent(warp), hint != CacheHint::None);
        let each = u64::from(ty.bytes());
        let width = each * dst.len() as u64;
        let places = self.places(warp, mask, space, from, width)?;
        match space {
            Space::Global => count_global(self.counters, &places, width, false),
            Space::Shared => count_shared(self.counters, &places, width),
        }
        for (lane, place) in Warp::lanes(mask).zip(places) {
            let bytes = match space {
                Space::Global => self.global.load(agent, place, width, constant)?,
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
        apart(&places, width)?;
        let agent = self.agent(warp);
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
                Space::Global => self.global.store(agent, place, &bytes)?,
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
        value: Value<B32>,
    ) -> Result<(), Fault> {
        let places = self.places(warp, mask, Space::Global, at, 4)?;
        let value = warp.value(value, mask)?;
        let expected = match op {
            AtomicOp::CompareAndSwap(expected) => warp.value(expected, mask)?,
            _ => [0; LANES],
        };
        let agent = self.agent(warp);
        for (lane, place) in Warp::lanes(mask).zip(places) {
            let value = value[lane] as u32;
            let old = self.global.change(agent, place, |old| match op {
                AtomicOp::Add => old.wrapping_add(value),
                AtomicOp::Min => old.min(value),
                AtomicOp::Max => old.max(value),
                AtomicOp::CompareAndSwap(_) if old == expected[lane] as u32 => value,
                AtomicOp::CompareAndSwap(_) => old,
            })?;
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
        apart(&to, bytes)?;
        let agent = self.agent(warp);
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
                let source = self.global.load(agent, place, count, false)?;
                data[..count as usize].copy_from_slice(source);
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
