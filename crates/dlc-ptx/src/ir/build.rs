//! Writing kernels.

mod short;

use super::{Class, Guard, Inst, Kernel, Param, Pred, Reg, Register, Stmt};

/// A kernel under construction. A method that gives a register writes one instruction into a fresh
/// one; methods named `.._to` write into a register that exists.
#[derive(Debug)]
pub struct Builder {
    name: String,
    params: Vec<Param>,
    registers: [u32; Class::ALL.len()],
    /// The innermost body under construction comes last.
    bodies: Vec<Vec<Stmt>>,
    guard: Option<Guard>,
    shared: u32,
}

impl Builder {
    /// A kernel without instructions.
    pub fn new(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            params: Vec::new(),
            registers: [0; Class::ALL.len()],
            bodies: vec![Vec::new()],
            guard: None,
            shared: 0,
        }
    }

    /// The kernel, for blocks of `threads`.
    pub fn finish(mut self, threads: u32, min_blocks: u32) -> Kernel {
        assert_eq!(self.bodies.len(), 1, "every body is closed");
        let body = self.bodies.pop().expect("just counted");
        let Builder { name, params, registers, shared, .. } = self;
        Kernel { name, params, threads, min_blocks, shared, registers, body }
    }

    /// A fresh register.
    pub fn fresh<R: Register>(&mut self) -> R {
        let count = &mut self.registers[R::CLASS as usize];
        *count += 1;
        R::numbered(*count - 1)
    }

    /// A fresh register of a class known at run time.
    pub fn fresh_of(&mut self, class: Class) -> Reg {
        let count = &mut self.registers[class as usize];
        *count += 1;
        Reg { class, number: *count - 1 }
    }

    /// Declares the next parameter and loads it.
    pub fn param<R: Register>(&mut self, name: impl Into<String>) -> R {
        let index = self.params.len() as u32;
        self.params.push(Param { name: name.into(), class: R::CLASS });
        let dst = self.fresh::<R>();
        self.push(Inst::Param { dst: dst.into(), index });
        dst
    }

    /// Reserves shared memory; gives its offset, a multiple of 16 bytes.
    pub fn reserve_shared(&mut self, bytes: u32) -> u32 {
        let at = self.shared.next_multiple_of(16);
        self.shared = at + bytes;
        at
    }

    /// Adds an instruction.
    pub fn push(&mut self, inst: Inst) {
        let guard = self.guard;
        self.body().push(Stmt::Inst(guard, inst));
    }

    /// Adds a remark.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.body().push(Stmt::Comment(text.into()));
    }

    /// What `write` adds runs only in lanes where `pred` is `when`: as guarded instructions, for a
    /// few of them without control flow.
    ///
    /// # Panics
    /// Within another guard.
    pub fn guarded<T>(&mut self, pred: Pred, when: bool, write: impl FnOnce(&mut Self) -> T) -> T {
        assert!(self.guard.is_none(), "guards do not nest");
        self.guard = Some(Guard { pred, when });
        let result = write(self);
        self.guard = None;
        result
    }

    /// Begins a body; what follows goes into it until [`Builder::close`].
    pub fn open(&mut self) {
        assert!(self.guard.is_none(), "control flow has no guard");
        self.bodies.push(Vec::new());
    }

    /// Ends the innermost body.
    pub fn close(&mut self) -> Vec<Stmt> {
        assert!(self.bodies.len() > 1, "what is closed was opened");
        self.bodies.pop().expect("just counted")
    }

    /// `if pred { then } else { other }`
    pub fn if_else(&mut self, pred: Pred, then: Vec<Stmt>, other: Vec<Stmt>) {
        self.body().push(Stmt::If { pred, then, other });
    }

    /// `do { body } while pred`
    pub fn do_while(&mut self, body: Vec<Stmt>, pred: Pred) {
        self.body().push(Stmt::Loop { body, pred });
    }

    fn body(&mut self) -> &mut Vec<Stmt> {
        self.bodies.last_mut().expect("the kernel's own body stays")
    }
}
