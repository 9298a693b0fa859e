//! The walk over a kernel's paths. Control flow is structured, so that one pass suffices, but for
//! loops, whose bodies are walked until what is known at their top stands.

use super::super::{
    Address, Bar, CacheHint, Class, Guard, Inst, Kernel, Operands, Pred, Reg, Register, Space,
    Stmt, Value,
};
use super::fact::{self, Fact, Facts, Low, Spread, Written};
use super::{Broken, Rule, require};
use rustc_hash::FxHashSet;

/// The walk.
pub struct Flow<'a> {
    kernel: &'a Kernel,
    facts: Known,
    /// How often each predicate has been written.
    versions: Vec<u32>,
    /// Conditions of the branches around, with their predicates' versions.
    holds: Vec<(Guard, u32)>,
    /// Who goes together through the branches and loops around.
    control: Spread,
    /// Parameters whose memory is written.
    stored: FxHashSet<u32>,
    /// Those whose memory is loaded as read-only, with the last such instruction.
    constant: Vec<(u32, &'a Inst)>,
}

/// A fact for each register.
struct Known {
    facts: Vec<Fact>,
    /// Where each class begins.
    starts: [usize; Class::ALL.len()],
}

impl Known {
    fn new(kernel: &Kernel) -> Known {
        let mut total = 0;
        let starts = kernel.registers.map(|count| {
            total += count as usize;
            total - count as usize
        });
        Known { facts: vec![Fact::default(); total], starts }
    }

    fn at(&self, reg: Reg) -> Fact {
        self.facts[self.starts[reg.class as usize] + reg.number as usize]
    }

    fn at_mut(&mut self, reg: Reg) -> &mut Fact {
        &mut self.facts[self.starts[reg.class as usize] + reg.number as usize]
    }

    fn save(&self, regs: &[Reg]) -> Vec<Fact> {
        regs.iter().map(|&reg| self.at(reg)).collect()
    }

    fn restore(&mut self, regs: &[Reg], facts: &[Fact]) {
        regs.iter().zip(facts).for_each(|(&reg, &fact)| *self.at_mut(reg) = fact);
    }

    /// Lanes that parted have met again.
    fn widen(&mut self, regs: &[Reg], spread: Spread) {
        for &reg in regs {
            let fact = self.at_mut(reg);
            fact.spread = fact.spread.max(spread);
        }
    }
}

impl Facts for Known {
    fn of<R: Register<Literal: Low>>(&self, value: Value<R>) -> Fact {
        match value {
            Value::Reg(register) => self.at(register.into()),
            Value::Literal(literal) => Fact { residue: literal.low(), ..Fact::default() },
        }
    }
}

impl<'a> Flow<'a> {
    /// At the start of a kernel, whose registers are all declared.
    pub fn new(kernel: &'a Kernel) -> Flow<'a> {
        Flow {
            kernel,
            facts: Known::new(kernel),
            versions: vec![0; kernel.registers[Class::Pred as usize] as usize],
            holds: Vec::new(),
            control: Spread::Block,
            stored: FxHashSet::default(),
            constant: Vec::new(),
        }
    }

    /// Walks all of it.
    pub fn check(mut self) -> Result<(), Broken> {
        self.body(&self.kernel.body)?;
        for (param, inst) in &self.constant {
            require(!self.stored.contains(param), Rule::ReadOnly, || inst.to_string())?;
        }
        Ok(())
    }

    fn body(&mut self, body: &'a [Stmt]) -> Result<(), Broken> {
        body.iter().try_for_each(|stmt| match stmt {
            Stmt::Comment(_) => Ok(()),
            Stmt::Inst(guard, inst) => self.inst(*guard, inst),
            Stmt::If { pred, then, other } => self.branch(*pred, then, other),
            Stmt::Loop { body, pred } => self.repeat(body, *pred),
        })
    }

    fn branch(&mut self, pred: Pred, then: &'a [Stmt], other: &'a [Stmt]) -> Result<(), Broken> {
        let spread = self.condition(pred, || "if".into())?;
        let outer = self.control;
        self.control = outer.max(spread);
        let mut regs = Vec::new();
        written(then, &mut regs);
        written(other, &mut regs);
        let before = self.facts.save(&regs);
        self.side(Guard { pred, when: true }, then)?;
        let after = self.facts.save(&regs);
        self.facts.restore(&regs, &before);
        self.side(Guard { pred, when: false }, other)?;
        for (&reg, &fact) in regs.iter().zip(&after) {
            *self.facts.at_mut(reg) = self.facts.at(reg).join(fact);
        }
        self.facts.widen(&regs, spread);
        self.control = outer;
        Ok(())
    }

    fn side(&mut self, guard: Guard, body: &'a [Stmt]) -> Result<(), Broken> {
        self.holds.push((guard, self.versions[guard.pred.0 as usize]));
        self.body(body)?;
        self.holds.pop();
        Ok(())
    }

    fn repeat(&mut self, body: &'a [Stmt], pred: Pred) -> Result<(), Broken> {
        let mut regs = Vec::new();
        written(body, &mut regs);
        require(regs.contains(&pred.into()), Rule::Loop, || pred.to_string())?;
        let outer = self.control;
        let mut spread = Spread::Block;
        loop {
            self.control = outer.max(spread);
            let top = self.facts.save(&regs);
            self.body(body)?;
            let after = spread.max(self.condition(pred, || "loop".into())?);
            let bottom = self.facts.save(&regs);
            let joined: Vec<Fact> = top.iter().zip(&bottom).map(|(a, b)| a.join(*b)).collect();
            if joined == top && after == spread {
                break;
            }
            self.facts.restore(&regs, &joined);
            spread = after;
        }
        self.facts.widen(&regs, spread);
        self.control = outer;
        Ok(())
    }

    fn condition(&self, pred: Pred, place: impl FnOnce() -> String) -> Result<Spread, Broken> {
        self.readable(pred.into(), None, place)?;
        Ok(self.facts.at(pred.into()).spread)
    }

    fn inst(&mut self, guard: Option<Guard>, inst: &'a Inst) -> Result<(), Broken> {
        let text = || inst.to_string();
        let mut lanes = self.control;
        if let Some(guard) = guard {
            lanes = lanes.max(self.condition(guard.pred, text)?);
        }
        let Operands { reads, writes } = inst.operands();
        for &reg in &reads {
            self.readable(reg, guard, text)?;
        }
        require(lanes <= together(inst), Rule::Converged, text)?;
        self.access(inst)?;
        let read = reads.iter().map(|&r| self.facts.at(r).spread).max().unwrap_or_default();
        let result = fact::result(inst, read, &self.facts);
        for &reg in &writes {
            self.write(guard, reg, result);
        }
        Ok(())
    }

    /// Whether a register has a value in the lanes that come by.
    fn readable(
        &self,
        reg: Reg,
        guard: Option<Guard>,
        text: impl FnOnce() -> String,
    ) -> Result<(), Broken> {
        let has = match self.facts.at(reg).written {
            Written::Yes => true,
            Written::No => false,
            Written::Under(when, version) => {
                self.versions[when.pred.0 as usize] == version
                    && (guard == Some(when) || self.holds.contains(&(when, version)))
            }
        };
        require(has, Rule::Written, || format!("{reg} in `{}`", text()))
    }

    fn write(&mut self, guard: Option<Guard>, reg: Reg, result: Fact) {
        let old = self.facts.at(reg);
        *self.facts.at_mut(reg) = match guard {
            None => result,
            Some(guard) => {
                let version = self.versions[guard.pred.0 as usize];
                let spread = self.facts.at(guard.pred.into()).spread.max(result.spread);
                let fact = Fact { spread, ..result };
                match old.written {
                    Written::Yes => fact.join(old),
                    _ => Fact { written: Written::Under(guard, version), ..fact },
                }
            }
        };
        if reg.class == Class::Pred {
            self.versions[reg.number as usize] += 1;
        }
    }

    /// Alignment, and what is read-only.
    fn access(&mut self, inst: &'a Inst) -> Result<(), Broken> {
        let bytes = |registers: usize, each: u32| registers as u32 * each;
        match inst {
            Inst::Load { ty, dst, from, hint, .. } => {
                self.aligned(inst, *from, bytes(dst.len(), ty.bytes()))?;
                if *hint != CacheHint::None {
                    let origin = self.facts.at(from.base).origin;
                    self.constant.extend(origin.map(|param| (param, inst)));
                }
                Ok(())
            }
            Inst::Store { space, ty, to, src } => {
                if *space == Space::Global {
                    self.stored.extend(self.facts.at(to.base).origin);
                }
                self.aligned(inst, *to, bytes(src.len(), ty.bytes()))
            }
            Inst::Atomic { at, .. } => {
                self.stored.extend(self.facts.at(at.base).origin);
                self.aligned(inst, *at, 4)
            }
            Inst::CopyAsync { to, from, bytes, .. } => {
                self.aligned(inst, *to, *bytes)?;
                self.aligned(inst, *from, *bytes)
            }
            Inst::LoadMatrix { from, .. } => self.aligned(inst, *from, 16),
            _ => Ok(()),
        }
    }

    fn aligned(&self, inst: &Inst, at: Address, width: u32) -> Result<(), Broken> {
        let residue = self.facts.at(at.base).residue;
        require(!residue.is_misaligned(at.offset, width), Rule::Aligned, || inst.to_string())
    }
}

/// Who must come by together.
fn together(inst: &Inst) -> Spread {
    match inst {
        Inst::Barrier(Bar::Block) => Spread::Block,
        Inst::Barrier(Bar::Warp) | Inst::Shuffle { .. } | Inst::Vote { .. } => Spread::Warp,
        Inst::Ballot { .. } | Inst::LoadMatrix { .. } | Inst::Mma { .. } => Spread::Warp,
        _ => Spread::Lane,
    }
}

/// Adds the registers that a body writes, each once.
fn written(body: &[Stmt], regs: &mut Vec<Reg>) {
    let mut seen: FxHashSet<Reg> = regs.iter().copied().collect();
    collect(body, &mut |reg| {
        if seen.insert(reg) {
            regs.push(reg);
        }
    });
}

fn collect(body: &[Stmt], add: &mut impl FnMut(Reg)) {
    for stmt in body {
        match stmt {
            Stmt::Comment(_) => {}
            Stmt::Inst(_, inst) => inst.operands().writes.into_iter().for_each(&mut *add),
            Stmt::If { then, other, .. } => {
                collect(then, add);
                collect(other, add);
            }
            Stmt::Loop { body, .. } => collect(body, add),
        }
    }
}
