//! What all kernels have in common while they are written: parameters, scopes, errors.

use super::lanes::{Number, Scope};
use crate::ir::{
    self, Address, AtomicOp, B32, B64, Builder, CacheHint, Compare, IntOp, MemType, Space,
};
use dlc_kernel::{BufferId, DType, Program};

/// What a parameter of a kernel is given at a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Given {
    /// The address of a buffer.
    Buffer(BufferId),
    /// The address of the kernel's workspace of that position.
    Workspace(usize),
    /// The address of the error record.
    Error,
    /// 1 + the position of the launch in its entry.
    Launch,
    /// The step of the loop around that has so many others around it.
    Step(usize),
}

/// A kernel of PTX, and what its parameters are given.
#[derive(Clone, Debug)]
pub struct Written {
    /// The code; its name is the caller's to choose.
    pub kernel: ir::Kernel,
    /// By parameter.
    pub given: Vec<Given>,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// The buffer whose elements it checks to be finite.
    pub checks: Option<BufferId>,
}

/// A kernel being written.
pub struct Writer<'p> {
    /// Takes instructions.
    pub b: Builder,
    /// Takes computations.
    pub scope: Scope,
    /// The program it belongs to.
    pub program: &'p Program,
    /// Buffers that the kernel reads and overwrites: not by the read-only path.
    pub overwritten: Vec<BufferId>,
    given: Vec<(Given, Parameter)>,
}

#[derive(Clone, Copy, Debug)]
enum Parameter {
    Address(B64),
    Word(B32),
}

impl<'p> Writer<'p> {
    /// A kernel whose parameters are these, and which reads and overwrites `overwritten`.
    pub fn new(program: &'p Program, given: &[Given], overwritten: Vec<BufferId>) -> Writer<'p> {
        let mut b = Builder::new("kernel");
        let load = |b: &mut Builder, (i, &given): (usize, &Given)| match given {
            Given::Buffer(_) => (given, Parameter::Address(b.param(format!("buffer_{i}")))),
            Given::Workspace(_) => (given, Parameter::Address(b.param(format!("workspace_{i}")))),
            Given::Error => (given, Parameter::Address(b.param("error"))),
            Given::Launch => (given, Parameter::Word(b.param("launch"))),
            Given::Step(k) => (given, Parameter::Word(b.param(format!("step_{k}")))),
        };
        let given = given.iter().enumerate().map(|pair| load(&mut b, pair)).collect();
        Writer { b, scope: Scope::default(), program, overwritten, given }
    }

    /// The kernel, for that grid of blocks of `threads`.
    pub fn finish(self, threads: u32, grid: [u32; 3]) -> Written {
        let given = self.given.iter().map(|(given, _)| *given).collect();
        Written { kernel: self.b.finish(threads, 1), given, grid, checks: None }
    }

    /// The address of a buffer.
    pub fn buffer(&self, buffer: BufferId) -> B64 {
        self.address(Given::Buffer(buffer))
    }

    /// An address that is given.
    ///
    /// # Panics
    /// If it is not.
    pub fn address(&self, wanted: Given) -> B64 {
        match self.given.iter().find(|(given, _)| *given == wanted) {
            Some((_, Parameter::Address(address))) => *address,
            _ => panic!("{wanted:?} is no address of this kernel"),
        }
    }

    /// A word that is given.
    fn word(&self, wanted: Given) -> B32 {
        match self.given.iter().find(|(given, _)| *given == wanted) {
            Some((_, Parameter::Word(word))) => *word,
            _ => panic!("{wanted:?} is no word of this kernel"),
        }
    }

    /// The step of a loop around.
    pub fn step(&self, at: usize) -> B32 {
        self.word(Given::Step(at))
    }

    /// A register of that class that holds 0.
    pub fn zero(&mut self, class: ir::Class) -> ir::Reg {
        match class {
            ir::Class::F32 => self.b.mov_f32(0.0).into(),
            _ => self.b.mov32(0).into(),
        }
    }

    /// Runs `write` in the scope of an `if`.
    pub fn if_(&mut self, pred: ir::Pred, write: impl FnOnce(&mut Self)) {
        self.structured(write, |b, body, ()| b.if_else(pred, body, Vec::new()));
    }

    /// `do { write } while ..` the predicate it gives.
    pub fn do_while(&mut self, write: impl FnOnce(&mut Self) -> ir::Pred) {
        self.structured(write, |b, body, pred| b.do_while(body, pred));
    }

    /// `for i in (start..end).step_by(step)`, signed.
    pub fn for_range(
        &mut self,
        start: B32,
        end: impl Into<ir::Value<B32>>,
        step: impl Into<ir::Value<B32>>,
        write: impl FnOnce(&mut Self, B32),
    ) {
        let (end, step) = (end.into(), step.into());
        let i = self.b.mov32(start);
        let any = self.b.set_int(Compare::Lt, i, end);
        self.if_(any, |w| {
            w.do_while(|w| {
                write(w, i);
                w.b.int_to(IntOp::Add, i, i, step);
                w.b.set_int(Compare::Lt, i, end)
            });
        });
    }

    fn structured<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> T,
        close: impl FnOnce(&mut Builder, Vec<ir::Stmt>, T),
    ) {
        self.b.open();
        let mark = self.scope.mark();
        let result = write(self);
        self.scope.forget(mark);
        let body = self.b.close();
        close(&mut self.b, body, result);
    }

    /// Notes an error, unless there is one already, in the threads that come by.
    pub fn fail(&mut self, what: u32, index: B32, extent: u32) {
        let error = self.address(Given::Error);
        let launch = self.word(Given::Launch);
        let none = ir::Value::Literal(0);
        let at = |offset| Address::global(error, offset);
        let old = self.b.atomic(AtomicOp::CompareAndSwap(none), at(0), launch);
        let first = self.b.set_int(Compare::Eq, old, 0);
        let (what, extent) = (self.b.mov32(what), self.b.mov32(extent));
        for (word, offset) in [(what, 4), (index, 8), (extent, 12)] {
            self.b.guarded(first, true, |b| {
                b.store(Space::Global, MemType::B32, at(offset), &[word.into()]);
            });
        }
    }

    /// Runs `write` unless an error has been noted: for kernels that update what lasts.
    pub fn unless_failed(&mut self, write: impl FnOnce(&mut Self)) {
        let error = Address::global(self.address(Given::Error), 0);
        let word = self.b.load(Space::Global, MemType::B32, 1, error, CacheHint::None);
        let word = B32(word[0].number);
        let fine = self.b.set_int(Compare::Eq, word, 0);
        self.if_(fine, write);
    }
}

/// How an element lies in memory.
pub fn memory_type(dtype: DType) -> MemType {
    match dtype {
        DType::F32 => MemType::F32,
        DType::I32 => MemType::B32,
        DType::U8 | DType::Bool => MemType::U8,
        _ => panic!("`{dtype}` takes no part in computation"),
    }
}

/// The number that a loaded register is.
pub fn loaded(b: &mut Builder, dtype: DType, register: ir::Reg) -> Number {
    match dtype {
        DType::F32 => ir::F32(register.number).into(),
        DType::Bool => b.set_int(Compare::Ne, B32(register.number), 0).into(),
        _ => B32(register.number).into(),
    }
}

/// The register that a number is stored from.
pub fn stored(b: &mut Builder, number: Number) -> ir::Reg {
    match number {
        Number::F32(x) => x.register().unwrap_or_else(|| b.mov_f32(x)).into(),
        Number::I32(x) => x.register().unwrap_or_else(|| b.mov32(x)).into(),
        Number::Mask(ir::Value::Reg(x)) => b.select32(x, 1, 0).into(),
        Number::Mask(ir::Value::Literal(x)) => b.mov32(u32::from(x)).into(),
        Number::Half(_) => panic!("doubles are not stored"),
    }
}
