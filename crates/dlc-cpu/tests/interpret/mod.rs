//! An interpreter of machine code, as far as leaves use it: code that this machine cannot run is
//! decoded from its bytes and executed one instruction at a time, on real memory.
#![allow(dead_code)]

mod vector;

use crate::guard::Code;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// 32-bit lanes of a vector register.
pub const LANES: usize = 16;

/// Code to be called: by the processor, or by the interpreter.
pub enum Callable {
    Native(Code),
    Interpreted(Vec<u8>),
}

impl Callable {
    /// Calls it with the address of its argument block.
    pub fn call<T>(&self, arguments: *mut T) {
        match self {
            Callable::Native(code) => code.call(arguments),
            // SAFETY: the block describes memory as the code wants it.
            Callable::Interpreted(bytes) => unsafe { call(bytes, arguments.cast()) },
        }
    }
}

/// The registers of a processor.
pub struct Cpu {
    general: [u64; 16],
    vectors: [[u32; LANES]; 32],
    masks: [u64; 8],
    /// What the last arithmetic instruction or comparison left to be compared with 0.
    difference: i64,
}

/// Executes a function of one pointer.
///
/// # Safety
/// The code must be a function that may be called with this argument.
unsafe fn call(code: &[u8], argument: *const u8) {
    let mut stack = vec![0u64; 1 << 13];
    let mut cpu = Cpu {
        general: [0x5555; 16],
        vectors: [[0x7fc0_1234; LANES]; 32],
        masks: [0x5555; 8],
        difference: 0,
    };
    let saved = cpu.general;
    // The return address is on top of the stack: nowhere.
    let top = stack.len() - 1;
    stack[top] = 0;
    cpu.set(Register::RSP, &raw const stack[top] as u64);
    cpu.set(Register::RDI, argument as u64);
    let base = code.as_ptr() as u64;
    let mut ip = base;
    while ip != 0 {
        let at = (ip - base) as usize;
        let mut decoder = Decoder::with_ip(64, &code[at..], ip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        assert!(!instruction.is_invalid(), "byte {at} is no instruction");
        ip = cpu.step(&instruction);
    }
    for callee_saved in [3, 5, 12, 13, 14, 15] {
        assert_eq!(cpu.general[callee_saved], saved[callee_saved], "register {callee_saved}");
    }
}

impl Cpu {
    fn get(&self, register: Register) -> u64 {
        let value = self.general[register.full_register().number()];
        match register.size() {
            1 => value & 0xff,
            4 => value & 0xffff_ffff,
            _ => value,
        }
    }

    fn set(&mut self, register: Register, value: u64) {
        let whole = &mut self.general[register.full_register().number()];
        *whole = match register.size() {
            1 => *whole & !0xff | value & 0xff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }

    /// The address of the memory operand.
    fn address(&self, i: &Instruction) -> *mut u8 {
        if i.is_ip_rel_memory_operand() {
            return i.ip_rel_memory_address() as *mut u8;
        }
        let part = |r: Register| if r == Register::None { 0 } else { self.get(r) };
        let index = part(i.memory_index()).wrapping_mul(i.memory_index_scale().into());
        let sum = part(i.memory_base()).wrapping_add(index);
        sum.wrapping_add(i.memory_displacement64()) as *mut u8
    }

    /// An integer operand.
    fn read(&self, i: &Instruction, operand: u32) -> u64 {
        match i.op_kind(operand) {
            OpKind::Register => self.get(i.op_register(operand)),
            OpKind::Memory => {
                let at = self.address(i);
                // SAFETY: the code may be called, hence what it reads may be read.
                unsafe {
                    match i.memory_size().size() {
                        1 => u64::from(at.read()),
                        4 => u64::from(at.cast::<u32>().read_unaligned()),
                        _ => at.cast::<u64>().read_unaligned(),
                    }
                }
            }
            _ => i.immediate(operand),
        }
    }

    fn write(&mut self, i: &Instruction, value: u64) {
        match i.op0_kind() {
            OpKind::Register => self.set(i.op0_register(), value),
            _ => {
                let at = self.address(i);
                // SAFETY: as for reads.
                unsafe {
                    match i.memory_size().size() {
                        1 => at.write(value as u8),
                        4 => at.cast::<u32>().write_unaligned(value as u32),
                        _ => at.cast::<u64>().write_unaligned(value),
                    }
                }
            }
        }
    }

    fn stack(&self) -> *mut u64 {
        self.get(Register::RSP) as *mut u64
    }

    /// Executes an instruction; gives the address of the next.
    fn step(&mut self, i: &Instruction) -> u64 {
        match i.mnemonic() {
            Mnemonic::Nop | Mnemonic::Vzeroupper | Mnemonic::Sfence => {}
            Mnemonic::Prefetcht0 | Mnemonic::Prefetchw => {}
            Mnemonic::Push => {
                self.set(Register::RSP, self.get(Register::RSP) - 8);
                // SAFETY: leaves use little of the stack.
                unsafe { self.stack().write(self.read(i, 0)) };
            }
            Mnemonic::Pop => {
                // SAFETY: as above.
                self.set(i.op0_register(), unsafe { self.stack().read() });
                self.set(Register::RSP, self.get(Register::RSP) + 8);
            }
            // SAFETY: as above.
            Mnemonic::Ret => return unsafe { self.stack().read() },
            _ if i.is_jcc_short_or_near() || i.is_jmp_short_or_near() => {
                if self.jumps(i.mnemonic()) {
                    return i.near_branch_target();
                }
            }
            Mnemonic::Cmovg if self.difference > 0 => {
                self.set(i.op0_register(), self.read(i, 1));
            }
            Mnemonic::Cmovg => {}
            Mnemonic::Cmp => {
                self.difference = (self.read(i, 0) as i64).wrapping_sub(self.read(i, 1) as i64);
            }
            Mnemonic::Test => self.difference = (self.read(i, 0) & self.read(i, 1)) as i64,
            Mnemonic::Kmovw => self.masks[i.op0_register().number()] = self.read(i, 1) & 0xffff,
            _ => match self.integer(i) {
                Some(value) => {
                    if !matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Lea) {
                        self.difference = value as i64;
                    }
                    self.write(i, value);
                }
                None => self.vector(i),
            },
        }
        i.next_ip()
    }

    fn jumps(&self, jump: Mnemonic) -> bool {
        match jump {
            Mnemonic::Jg => self.difference > 0,
            Mnemonic::Jge => self.difference >= 0,
            Mnemonic::Jl => self.difference < 0,
            Mnemonic::Jle => self.difference <= 0,
            Mnemonic::Je => self.difference == 0,
            Mnemonic::Jne => self.difference != 0,
            Mnemonic::Jmp => true,
            _ => panic!("{jump:?} is not among the jumps of leaves"),
        }
    }

    /// The result of an integer instruction.
    fn integer(&self, i: &Instruction) -> Option<u64> {
        let [x, y] = [0, 1].map(|k| if i.op_count() > k { k } else { 0 });
        Some(match i.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movnti => self.read(i, 1),
            Mnemonic::Lea => self.address(i) as u64,
            Mnemonic::Add => self.read(i, x).wrapping_add(self.read(i, y)),
            Mnemonic::Sub => self.read(i, x).wrapping_sub(self.read(i, y)),
            Mnemonic::And => self.read(i, x) & self.read(i, y),
            Mnemonic::Xor => self.read(i, x) ^ self.read(i, y),
            Mnemonic::Neg => self.read(i, x).wrapping_neg(),
            Mnemonic::Shr => self.read(i, x) >> self.read(i, y),
            Mnemonic::Dec => self.read(i, x).wrapping_sub(1),
            Mnemonic::Bzhi => self.read(i, 1) & ((1 << (self.read(i, 2) & 0xff)) - 1),
            _ => return None,
        })
    }
}
