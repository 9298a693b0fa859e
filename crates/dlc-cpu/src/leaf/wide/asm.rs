//! Instructions, labels and constants to the bytes of a function.

use super::Width;
use iced_x86::{Code, Encoder, IcedError, Instruction, OpKind, Register};

/// Bytes that constants are aligned to.
const ALIGNMENT: usize = 64;

/// Bytes that hot loops are aligned to.
const LOOP_ALIGNMENT: usize = 32;

/// The register that points to the constants.
pub const CONSTANTS: Register = Register::R11;

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// Added to.
    pub base: Register,
    /// A register and what it is multiplied by.
    pub index: Option<(Register, u32)>,
    /// Bytes.
    pub offset: i32,
}

impl Mem {
    /// `offset` bytes from a register.
    pub fn at(base: Register, offset: i32) -> Mem {
        Mem { base, index: None, offset }
    }

    /// `bytes` further on.
    pub fn plus(self, bytes: i32) -> Mem {
        Mem { offset: self.offset + bytes, ..self }
    }
}

/// An operand of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A register.
    Reg(Register),
    /// Memory.
    Mem(Mem),
    /// A constant of 8 bits.
    Imm8(u8),
    /// A constant of 8 bits that is extended to the size of the operation.
    Signed8(i8),
    /// A constant of 32 bits.
    Imm32(u32),
    /// A constant of 32 bits, extended likewise.
    Signed32(i32),
}

impl From<Register> for Operand {
    fn from(register: Register) -> Operand {
        Operand::Reg(register)
    }
}

impl From<Mem> for Operand {
    fn from(mem: Mem) -> Operand {
        Operand::Mem(mem)
    }
}

/// A place in code to jump to.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// Which lanes an AVX-512 instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masked {
    /// Those of `k1`; the others become 0.
    Zeroing,
    /// Those of `k1`; the others stay as they are.
    Merging,
}

/// A function in the making.
pub struct Assembler {
    /// The width of its vectors.
    pub width: Width,
    code: Vec<Instruction>,
    /// By label: the instruction it stands before.
    labels: Vec<usize>,
    /// Instructions before which loops begin.
    loops: Vec<usize>,
    /// Vectors that follow the code.
    constants: Vec<Vec<u8>>,
}

impl Assembler {
    /// An empty function.
    pub fn new(width: Width) -> Assembler {
        Assembler {
            width,
            code: Vec::new(),
            labels: Vec::new(),
            loops: Vec::new(),
            constants: Vec::new(),
        }
    }

    /// Adds an instruction.
    pub fn emit(&mut self, code: Code, operands: &[Operand]) {
        self.code.push(instruction(code, operands));
    }

    /// Adds an instruction on the lanes that `k1` selects.
    pub fn emit_masked(&mut self, code: Code, operands: &[Operand], masked: Masked) {
        self.emit_masked_by(Register::K1, code, operands, masked);
    }

    /// Adds an instruction on the lanes that `mask` selects.
    pub fn emit_masked_by(
        &mut self,
        mask: Register,
        code: Code,
        operands: &[Operand],
        masked: Masked,
    ) {
        let mut instruction = instruction(code, operands);
        instruction.set_op_mask(mask);
        instruction.set_zeroing_masking(masked == Masked::Zeroing);
        self.code.push(instruction);
    }

    /// Adds an instruction whose immediate operand is not known yet, see [`Assembler::complete`].
    pub fn emit_incomplete(&mut self, code: Code, register: Register) -> usize {
        self.emit(code, &[register.into(), Operand::Signed32(0)]);
        self.code.len() - 1
    }

    /// Gives an incomplete instruction its operand.
    pub fn complete(&mut self, at: usize, value: i32) {
        self.code[at].set_immediate32to64(value.into());
    }

    /// A label that stands nowhere yet.
    pub fn label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        Label(self.labels.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = self.code.len();
    }

    /// Puts a label before the next instruction, where a hot loop begins.
    pub fn place_loop(&mut self, label: Label) {
        self.place(label);
        self.loops.push(self.code.len());
    }

    /// Adds a jump.
    pub fn jump(&mut self, code: Code, to: Label) {
        let mut jump = Instruction::default();
        jump.set_code(code);
        jump.set_op_kind(0, OpKind::NearBranch64);
        jump.set_near_branch64(to.0 as u64);
        self.code.push(jump);
    }

    /// Jumps if the 64 bits in memory are 0.
    pub fn jump_if_zero(&mut self, what: Mem, to: Label) {
        self.emit(Code::Cmp_rm64_imm8, &[what.into(), Operand::Signed8(0)]);
        self.jump(Code::Je_rel32_64, to);
    }

    /// Points [`CONSTANTS`] to the constants.
    pub fn load_constants(&mut self) {
        let address = Mem::at(Register::RIP, 1);
        self.emit(Code::Lea_r64_m, &[CONSTANTS.into(), address.into()]);
    }

    /// A vector whose 64-bit lanes are all `bits`.
    pub fn repeated(&mut self, bits: u64) -> Mem {
        self.constant(bits.to_le_bytes().repeat(self.width.bytes() as usize / 8))
    }

    /// A vector whose 128-bit lanes are all `table`.
    pub fn table(&mut self, table: [u32; 4]) -> Mem {
        let bytes: Vec<u8> = table.into_iter().flat_map(u32::to_le_bytes).collect();
        self.constant(bytes.repeat(self.width.bytes() as usize / 16))
    }

    /// A vector whose 64-bit lanes are `numbers`, as many as there are.
    pub fn pairs(&mut self, numbers: [u64; 8]) -> Mem {
        self.constant(numbers.into_iter().flat_map(u64::to_le_bytes).collect())
    }

    /// A vector whose 32-bit lanes count from `first`.
    pub fn counting(&mut self, first: i32) -> Mem {
        let lanes = first..first + self.width.lanes();
        self.constant(lanes.flat_map(i32::to_le_bytes).collect())
    }

    /// A vector that selects the first `count` lanes.
    pub fn first_lanes(&mut self, count: u8) -> Mem {
        let lane = |lane| if lane < i32::from(count) { -1 } else { 0 };
        self.constant((0..self.width.lanes()).map(lane).flat_map(i32::to_le_bytes).collect())
    }

    fn constant(&mut self, bytes: Vec<u8>) -> Mem {
        let known = self.constants.iter().position(|c| *c == bytes);
        let at = known.unwrap_or_else(|| {
            self.constants.push(bytes);
            self.constants.len() - 1
        });
        Mem::at(CONSTANTS, self.width.bytes() * at as i32)
    }

    /// The bytes of the function: code in whole cache lines, then constants.
    ///
    /// # Errors
    /// What the encoder has to say against an instruction.
    pub fn bytes(self) -> Result<Vec<u8>, IcedError> {
        let mut output = Output { encoder: Encoder::new(64), end: 0 };
        let mut loops = self.loops.iter().copied().peekable();
        let (mut starts, mut waiting) = (Vec::with_capacity(self.code.len() + 1), Vec::new());
        for (i, instruction) in self.code.iter().enumerate() {
            if loops.next_if_eq(&i).is_some() {
                output.align(LOOP_ALIGNMENT)?;
            }
            starts.push(output.end);
            output.put(instruction)?;
            waiting.extend(Target::of(instruction).map(|target| (output.end, target)));
        }
        starts.push(output.end);
        let constants = output.end.next_multiple_of(ALIGNMENT);
        let mut bytes = output.encoder.take_buffer();
        // What no one executes traps.
        bytes.resize(constants, 0xcc);
        for (end, target) in waiting {
            let to = match target {
                Target::Label(label) => starts[self.labels[label]],
                Target::Constants => constants,
            };
            let distance = i32::try_from(to as i64 - end as i64).expect("functions are small");
            bytes[end - 4..end].copy_from_slice(&distance.to_le_bytes());
        }
        bytes.extend(self.constants.iter().flatten());
        Ok(bytes)
    }
}

/// What the last four bytes of an instruction are the distance to.
enum Target {
    Label(usize),
    Constants,
}

impl Target {
    fn of(instruction: &Instruction) -> Option<Target> {
        if instruction.op0_kind() == OpKind::NearBranch64 {
            return Some(Target::Label(instruction.near_branch64() as usize));
        }
        (instruction.memory_base() == Register::RIP).then_some(Target::Constants)
    }
}

/// Instructions in bytes, one after the other.
struct Output {
    encoder: Encoder,
    end: usize,
}

impl Output {
    fn put(&mut self, instruction: &Instruction) -> Result<(), IcedError> {
        self.end += self.encoder.encode(instruction, self.end as u64)?;
        Ok(())
    }

    fn align(&mut self, to: usize) -> Result<(), IcedError> {
        let bytes = self.end.next_multiple_of(to) - self.end;
        idle(bytes).iter().try_for_each(|instruction| self.put(instruction))
    }
}

/// Instructions of `bytes` bytes in all that do nothing.
fn idle(mut bytes: usize) -> Vec<Instruction> {
    let mut code = Vec::new();
    let forms = [(7, Some(0x100)), (4, Some(1)), (3, Some(0)), (1, None)];
    for (length, offset) in forms {
        while bytes >= length {
            bytes -= length;
            code.push(match offset {
                Some(offset) => {
                    instruction(Code::Nop_rm32, &[Mem::at(Register::RAX, offset).into()])
                }
                None => instruction(Code::Nopd, &[]),
            });
        }
    }
    code
}

fn instruction(code: Code, operands: &[Operand]) -> Instruction {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for (i, operand) in operands.iter().enumerate() {
        let i = i as u32;
        match *operand {
            Operand::Reg(register) => {
                instruction.set_op_kind(i, OpKind::Register);
                instruction.set_op_register(i, register);
            }
            Operand::Mem(mem) => {
                instruction.set_op_kind(i, OpKind::Memory);
                set_memory(&mut instruction, mem);
            }
            Operand::Imm8(value) => {
                instruction.set_op_kind(i, OpKind::Immediate8);
                instruction.set_immediate8(value);
            }
            Operand::Signed8(value) => {
                instruction.set_op_kind(i, OpKind::Immediate8to64);
                instruction.set_immediate8to64(value.into());
            }
            Operand::Imm32(value) => {
                instruction.set_op_kind(i, OpKind::Immediate32);
                instruction.set_immediate32(value);
            }
            Operand::Signed32(value) => {
                instruction.set_op_kind(i, OpKind::Immediate32to64);
                instruction.set_immediate32to64(value.into());
            }
        }
    }
    instruction
}

fn set_memory(instruction: &mut Instruction, mem: Mem) {
    instruction.set_memory_base(mem.base);
    if let Some((index, scale)) = mem.index {
        instruction.set_memory_index(index);
        instruction.set_memory_index_scale(scale);
    }
    instruction.set_memory_displacement64(mem.offset as i64 as u64);
    let size = match mem {
        Mem { base: Register::RIP, .. } => 8,
        _ if mem.offset != 0 => 1,
        _ => 0,
    };
    instruction.set_memory_displ_size(size);
}
