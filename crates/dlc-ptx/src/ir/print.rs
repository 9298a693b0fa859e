//! PTX text.

use super::{
    Address, AtomicOp, Bar, CacheHint, Class, Compare, Convert, FloatOp, Guard, Inst, IntOp,
    Kernel, LogicOp, MathOp, MemType, MmaShape, Module, Reg, Register, SHARED_ALIGN, STATIC_SHARED,
    Shuffle, Space, Special, Stmt, Value, Vote,
};
use crate::Flavour;
use std::fmt::{self, Write};

/// The file that assembles to a module.
pub fn print(module: &Module, flavour: Flavour) -> String {
    let (major, minor) = flavour.version();
    let mut text = format!(".version {major}.{minor}\n.target {flavour}\n.address_size 64\n");
    for kernel in &module.kernels {
        text.push('\n');
        text += &kernel.to_string();
    }
    text
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shared > STATIC_SHARED {
            let name = &self.name;
            writeln!(f, ".extern .shared .align {SHARED_ALIGN} .b8 shared_{name}[];")?;
        }
        writeln!(f, ".visible .entry {}(", self.name)?;
        for (i, param) in self.params.iter().enumerate() {
            let comma = if i + 1 < self.params.len() { "," } else { "" };
            writeln!(f, "    .param .{} {}{comma}", param.class.name(), param.name)?;
        }
        writeln!(f, ")\n.reqntid {}\n.minnctapersm {}\n{{", self.threads, self.min_blocks)?;
        for (class, count) in Class::ALL.into_iter().zip(self.registers) {
            if count > 0 {
                writeln!(f, "    .reg .{} {}<{count}>;", class.name(), class.prefix())?;
            }
        }
        if (1..=STATIC_SHARED).contains(&self.shared) {
            let (name, bytes) = (&self.name, self.shared);
            writeln!(f, "    .shared .align {SHARED_ALIGN} .b8 shared_{name}[{bytes}];")?;
        }
        let mut printer = Printer { kernel: self, text: String::new(), labels: 0 };
        printer.body(&self.body, 1);
        write!(f, "{}    ret;\n}}\n", printer.text)
    }
}

/// Prints statements; control flow becomes labels and branches.
struct Printer<'a> {
    kernel: &'a Kernel,
    text: String,
    labels: u32,
}

impl Printer<'_> {
    fn body(&mut self, body: &[Stmt], depth: usize) {
        body.iter().for_each(|stmt| self.stmt(stmt, depth));
    }

    fn stmt(&mut self, stmt: &Stmt, depth: usize) {
        match stmt {
            Stmt::Comment(text) => self.line(depth, &format!("// {text}")),
            Stmt::Inst(guard, inst) => {
                let text = format!("{}{};", guarded(*guard), self.inst(inst));
                self.line(depth, &text);
            }
            Stmt::If { pred, then, other } if other.is_empty() => {
                let end = self.label("end");
                self.line(depth, &format!("@!{pred} bra {end};"));
                self.body(then, depth + 1);
                self.place(&end);
            }
            Stmt::If { pred, then, other } => {
                let (side, end) = (self.label("else"), self.label("end"));
                self.line(depth, &format!("@!{pred} bra {side};"));
                self.body(then, depth + 1);
                self.line(depth + 1, &format!("bra {end};"));
                self.place(&side);
                self.body(other, depth + 1);
                self.place(&end);
            }
            Stmt::Loop { body, pred } => {
                let top = self.label("loop");
                self.place(&top);
                self.body(body, depth + 1);
                self.line(depth, &format!("@{pred} bra {top};"));
            }
        }
    }

    fn line(&mut self, depth: usize, text: &str) {
        writeln!(self.text, "{:indent$}{text}", "", indent = 4 * depth).expect("a string grows");
    }

    fn label(&mut self, what: &str) -> String {
        self.labels += 1;
        format!("{what}_{}", self.labels)
    }

    fn place(&mut self, label: &str) {
        self.text += &format!("{label}:\n");
    }

    fn inst(&self, inst: &Inst) -> String {
        match inst {
            Inst::Shared { dst } => format!("mov.u32 {dst}, shared_{}", self.kernel.name),
            Inst::Param { dst, index } => {
                let param = &self.kernel.params[*index as usize];
                format!("ld.param.{} {dst}, [{}]", param.class.name(), param.name)
            }
            _ => inst.to_string(),
        }
    }
}

fn guarded(guard: Option<Guard>) -> String {
    guard.map_or_else(String::new, |g| format!("@{}{} ", if g.when { "" } else { "!" }, g.pred))
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inst::Mov32 { dst, src } => write!(f, "mov.b32 {dst}, {src}"),
            Inst::Mov64 { dst, src } => write!(f, "mov.b64 {dst}, {src}"),
            Inst::MovF32 { dst, src } => write!(f, "mov.f32 {dst}, {src}"),
            Inst::Bits { dst, src } => write!(f, "mov.b32 {dst}, {src}"),
            Inst::FromBits { dst, src } => write!(f, "mov.b32 {dst}, {src}"),
            Inst::Pack { dst, low, high } => write!(f, "mov.b32 {dst}, {{{low}, {high}}}"),
            Inst::Unpack { low, high, src } => write!(f, "mov.b32 {{{low}, {high}}}, {src}"),
            Inst::Special { dst, source } => write!(f, "mov.u32 {dst}, {}", special(*source)),
            Inst::Shared { dst } => write!(f, "mov.u32 {dst}, shared"),
            Inst::Param { dst, index } => write!(f, "ld.param {dst}, [{index}]"),
            Inst::Int { op, dst, a, b } => write!(f, "{} {dst}, {a}, {b}", int(*op, 32)),
            Inst::Int64 { op, dst, a, b } => write!(f, "{} {dst}, {a}, {b}", int(*op, 64)),
            Inst::Mad { dst, a, b, c } => write!(f, "mad.lo.u32 {dst}, {a}, {b}, {c}"),
            Inst::MadWide { signed, dst, a, b, c } => {
                write!(f, "mad.wide.{}32 {dst}, {a}, {b}, {c}", sign(*signed))
            }
            Inst::MulWide { signed, dst, a, b } => {
                write!(f, "mul.wide.{}32 {dst}, {a}, {b}", sign(*signed))
            }
            Inst::Lop3 { dst, a, b, c, table } => {
                write!(f, "lop3.b32 {dst}, {a}, {b}, {c}, {table:#04x}")
            }
            _ => computation(self, f),
        }
    }
}

/// Floats, comparisons, selections.
fn computation(inst: &Inst, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match inst {
        Inst::Float { op, dst, a, b } => write!(f, "{}.f32 {dst}, {a}, {b}", float(*op)),
        Inst::Fma { dst, a, b, c } => write!(f, "fma.rn.f32 {dst}, {a}, {b}, {c}"),
        Inst::Math { op, dst, a } => write!(f, "{} {dst}, {a}", math(*op)),
        Inst::Float64 { op, dst, a, b } => write!(f, "{}.f64 {dst}, {a}, {b}", float(*op)),
        Inst::Sqrt64 { dst, a } => write!(f, "sqrt.rn.f64 {dst}, {a}"),
        Inst::Fma64 { dst, a, b, c } => write!(f, "fma.rn.f64 {dst}, {a}, {b}, {c}"),
        Inst::Convert(convert) => write!(f, "{convert}"),
        Inst::SetInt { cmp, signed, dst, a, b } => {
            write!(f, "setp.{} {dst}, {a}, {b}", compare_int(*cmp, *signed, 32))
        }
        Inst::SetInt64 { cmp, signed, dst, a, b } => {
            write!(f, "setp.{} {dst}, {a}, {b}", compare_int(*cmp, *signed, 64))
        }
        Inst::SetFloat { cmp, dst, a, b } => {
            write!(f, "setp.{}.f32 {dst}, {a}, {b}", compare_float(*cmp))
        }
        Inst::SetFloat64 { cmp, dst, a, b } => {
            write!(f, "setp.{}.f64 {dst}, {a}, {b}", compare_float(*cmp))
        }
        Inst::IsNan { dst, a, b } => write!(f, "setp.nan.f32 {dst}, {a}, {b}"),
        Inst::Logic { op, dst, a, b } => write!(f, "{}.pred {dst}, {a}, {b}", logic(*op)),
        Inst::Not { dst, a } => write!(f, "not.pred {dst}, {a}"),
        Inst::Select32 { dst, a, b, pred } => write!(f, "selp.b32 {dst}, {a}, {b}, {pred}"),
        Inst::Select64 { dst, a, b, pred } => write!(f, "selp.b64 {dst}, {a}, {b}, {pred}"),
        Inst::SelectF32 { dst, a, b, pred } => write!(f, "selp.f32 {dst}, {a}, {b}, {pred}"),
        Inst::SelectF64 { dst, a, b, pred } => write!(f, "selp.f64 {dst}, {a}, {b}, {pred}"),
        _ => exchange(inst, f),
    }
}

/// Memory, and other lanes.
fn exchange(inst: &Inst, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match inst {
        Inst::Load { space, ty, dst, from, hint } => {
            let (space, hint, ty) = (space_name(*space), cache(*hint), memory(*ty));
            write!(f, "ld.{space}{hint}{}.{ty} {}, {from}", width(dst), vector(dst))
        }
        Inst::Store { space, ty, to, src } => {
            let (space, ty) = (space_name(*space), memory(*ty));
            write!(f, "st.{space}{}.{ty} {to}, {}", width(src), vector(src))
        }
        Inst::Atomic { op, dst, at, value } => match op {
            AtomicOp::CompareAndSwap(old) => {
                write!(f, "atom.global.cas.b32 {dst}, {at}, {old}, {value}")
            }
            _ => write!(f, "atom.global.{}.u32 {dst}, {at}, {value}", atomic(*op)),
        },
        Inst::Shuffle { mode, dst, src, lane, width } => {
            let (mode, clamp) = shuffle(*mode, *width);
            write!(f, "shfl.sync.{mode}.b32 {dst}, {src}, {lane}, {clamp:#x}, 0xffffffff")
        }
        Inst::Vote { vote, dst, pred } => {
            let vote = if *vote == Vote::Any { "any" } else { "all" };
            write!(f, "vote.sync.{vote}.pred {dst}, {pred}, 0xffffffff")
        }
        Inst::Ballot { dst, pred } => {
            write!(f, "vote.sync.ballot.b32 {dst}, {pred}, 0xffffffff")
        }
        Inst::Barrier(Bar::Block) => f.write_str("bar.sync 0"),
        Inst::Barrier(Bar::Warp) => f.write_str("bar.warp.sync 0xffffffff"),
        Inst::CopyAsync { to, from, bytes, size } => {
            let cache = if *bytes == 16 { "cg" } else { "ca" };
            write!(f, "cp.async.{cache}.shared.global {to}, {from}, {bytes}")?;
            size.map_or(Ok(()), |size| write!(f, ", {size}"))
        }
        Inst::CommitGroup => f.write_str("cp.async.commit_group"),
        Inst::WaitGroup(n) => write!(f, "cp.async.wait_group {n}"),
        Inst::LoadMatrix { dst, from, transposed } => {
            let (count, trans) = (dst.len(), if *transposed { ".trans" } else { "" });
            let dst = braced(dst);
            write!(f, "ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {dst}, {from}")
        }
        Inst::Mma { shape, dst, a, b, c } => {
            let (dst, a, b, c) = (braced(dst), braced(a), braced(b), braced(c));
            write!(f, "mma.sync.aligned.{} {dst}, {a}, {b}, {c}", mma(*shape))
        }
        Inst::Trap => f.write_str("trap"),
        _ => unreachable!("all others are printed above"),
    }
}

impl fmt::Display for Convert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Convert::F32ToS32 { dst, src } => write!(f, "cvt.rzi.s32.f32 {dst}, {src}"),
            Convert::F32ToU32 { dst, src } => write!(f, "cvt.rzi.u32.f32 {dst}, {src}"),
            Convert::S32ToF32 { dst, src } => write!(f, "cvt.rn.f32.s32 {dst}, {src}"),
            Convert::U32ToF32 { dst, src } => write!(f, "cvt.rn.f32.u32 {dst}, {src}"),
            Convert::S32To64 { dst, src } => write!(f, "cvt.s64.s32 {dst}, {src}"),
            Convert::U32To64 { dst, src } => write!(f, "cvt.u64.u32 {dst}, {src}"),
            Convert::Low { dst, src } => write!(f, "cvt.u32.u64 {dst}, {src}"),
            Convert::F32ToF64 { dst, src } => write!(f, "cvt.f64.f32 {dst}, {src}"),
            Convert::F64ToF32 { dst, src } => write!(f, "cvt.rn.f32.f64 {dst}, {src}"),
            Convert::LowBits { dst, src } => write!(f, "mov.b64 {{{dst}, _}}, {src}"),
            Convert::F16ToF32 { dst, src } => write!(f, "cvt.f32.f16 {dst}, {src}"),
            Convert::F32ToF16 { dst, src } => write!(f, "cvt.rn.f16.f32 {dst}, {src}"),
            Convert::Bf16ToF32 { dst, src } => write!(f, "cvt.f32.bf16 {dst}, {src}"),
            Convert::F32ToBf16 { dst, src } => write!(f, "cvt.rn.bf16.f32 {dst}, {src}"),
            Convert::F32ToTf32 { dst, src } => write!(f, "cvt.rna.tf32.f32 {dst}, {src}"),
            Convert::PackF16 { dst, low, high } => {
                write!(f, "cvt.rn.f16x2.f32 {dst}, {high}, {low}")
            }
            Convert::PackBf16 { dst, low, high } => {
                write!(f, "cvt.rn.bf16x2.f32 {dst}, {high}, {low}")
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            0 => write!(f, "[{}]", self.base),
            offset => write!(f, "[{}{offset:+}]", self.base),
        }
    }
}

impl<R: Register<Literal: Literal>> fmt::Display for Value<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Reg(register) => fmt::Display::fmt(register, f),
            Value::Literal(literal) => f.write_str(&literal.text()),
        }
    }
}

/// Constants as PTX writes them.
trait Literal {
    fn text(&self) -> String;
}

impl Literal for bool {
    fn text(&self) -> String {
        u8::from(*self).to_string()
    }
}

impl Literal for u16 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Literal for u32 {
    fn text(&self) -> String {
        (*self as i32).to_string()
    }
}

impl Literal for u64 {
    fn text(&self) -> String {
        (*self as i64).to_string()
    }
}

impl Literal for f32 {
    fn text(&self) -> String {
        format!("0f{:08X}", self.to_bits())
    }
}

impl Literal for f64 {
    fn text(&self) -> String {
        format!("0d{:016X}", self.to_bits())
    }
}

fn vector(registers: &[Reg]) -> String {
    match registers {
        [one] => one.to_string(),
        several => braced(several),
    }
}

fn braced<R: fmt::Display>(registers: &[R]) -> String {
    let names: Vec<String> = registers.iter().map(R::to_string).collect();
    format!("{{{}}}", names.join(", "))
}

const fn width(registers: &[Reg]) -> &'static str {
    match registers.len() {
        2 => ".v2",
        4 => ".v4",
        _ => "",
    }
}

const fn sign(signed: bool) -> char {
    if signed { 's' } else { 'u' }
}

fn int(op: IntOp, bits: u32) -> String {
    let (name, ty) = match op {
        IntOp::Add => ("add", 'u'),
        IntOp::Sub => ("sub", 'u'),
        IntOp::Mul => ("mul.lo", 'u'),
        IntOp::MulHiU => ("mul.hi", 'u'),
        IntOp::DivS => ("div", 's'),
        IntOp::DivU => ("div", 'u'),
        IntOp::RemS => ("rem", 's'),
        IntOp::RemU => ("rem", 'u'),
        IntOp::MinS => ("min", 's'),
        IntOp::MaxS => ("max", 's'),
        IntOp::MinU => ("min", 'u'),
        IntOp::MaxU => ("max", 'u'),
        IntOp::And => ("and", 'b'),
        IntOp::Or => ("or", 'b'),
        IntOp::Xor => ("xor", 'b'),
        IntOp::Shl => ("shl", 'b'),
        IntOp::ShrU => ("shr", 'u'),
        IntOp::ShrS => ("shr", 's'),
    };
    format!("{name}.{ty}{bits}")
}

const fn float(op: FloatOp) -> &'static str {
    match op {
        FloatOp::Add => "add.rn",
        FloatOp::Sub => "sub.rn",
        FloatOp::Mul => "mul.rn",
        FloatOp::Div => "div.rn",
        FloatOp::Min => "min.NaN",
        FloatOp::Max => "max.NaN",
    }
}

const fn math(op: MathOp) -> &'static str {
    match op {
        MathOp::Neg => "neg.f32",
        MathOp::Abs => "abs.f32",
        MathOp::Sqrt => "sqrt.rn.f32",
        MathOp::Rcp => "rcp.rn.f32",
        MathOp::Rsqrt => "rsqrt.approx.f32",
        MathOp::Ex2 => "ex2.approx.f32",
        MathOp::Lg2 => "lg2.approx.f32",
        MathOp::Tanh => "tanh.approx.f32",
        MathOp::Floor => "cvt.rmi.f32.f32",
        MathOp::Ceil => "cvt.rpi.f32.f32",
        MathOp::Round => "cvt.rni.f32.f32",
        MathOp::Trunc => "cvt.rzi.f32.f32",
    }
}

const fn compare(cmp: Compare) -> &'static str {
    match cmp {
        Compare::Eq => "eq",
        Compare::Ne => "ne",
        Compare::Lt => "lt",
        Compare::Le => "le",
        Compare::Gt => "gt",
        Compare::Ge => "ge",
    }
}

/// NaN differs from everything.
const fn compare_float(cmp: Compare) -> &'static str {
    match cmp {
        Compare::Ne => "neu",
        _ => compare(cmp),
    }
}

/// Comparison and type; equality has no sign.
fn compare_int(cmp: Compare, signed: bool, bits: u32) -> String {
    match cmp {
        Compare::Eq | Compare::Ne => format!("{}.b{bits}", compare(cmp)),
        _ => format!("{}.{}{bits}", compare(cmp), sign(signed)),
    }
}

const fn logic(op: LogicOp) -> &'static str {
    match op {
        LogicOp::And => "and",
        LogicOp::Or => "or",
        LogicOp::Xor => "xor",
    }
}

const fn special(source: Special) -> &'static str {
    match source {
        Special::Thread => "%tid.x",
        Special::BlockX => "%ctaid.x",
        Special::BlockY => "%ctaid.y",
        Special::BlockZ => "%ctaid.z",
        Special::BlocksX => "%nctaid.x",
        Special::Lane => "%laneid",
    }
}

const fn space_name(space: Space) -> &'static str {
    match space {
        Space::Global => "global",
        Space::Shared => "shared",
    }
}

const fn cache(hint: CacheHint) -> &'static str {
    match hint {
        CacheHint::None => "",
        CacheHint::ReadOnly => ".nc",
        CacheHint::Streaming => ".nc.L1::no_allocate",
    }
}

const fn memory(ty: MemType) -> &'static str {
    match ty {
        MemType::U8 => "u8",
        MemType::S8 => "s8",
        MemType::B16 => "b16",
        MemType::B32 => "b32",
        MemType::B64 => "b64",
        MemType::F32 => "f32",
    }
}

const fn atomic(op: AtomicOp) -> &'static str {
    match op {
        AtomicOp::Add => "add",
        AtomicOp::Min => "min",
        AtomicOp::Max => "max",
        AtomicOp::CompareAndSwap(_) => "cas",
    }
}

/// The mode, and the word that keeps lanes within groups of `width`.
const fn shuffle(mode: Shuffle, width: u32) -> (&'static str, u32) {
    let group = (32 - width) << 8;
    match mode {
        Shuffle::Butterfly => ("bfly", group | 31),
        Shuffle::Down => ("down", group | 31),
        Shuffle::Up => ("up", group),
        Shuffle::Index => ("idx", group | 31),
    }
}

const fn mma(shape: MmaShape) -> &'static str {
    match shape {
        MmaShape::F16 => "m16n8k16.row.col.f32.f16.f16.f32",
        MmaShape::Bf16 => "m16n8k16.row.col.f32.bf16.bf16.f32",
        MmaShape::Tf32 => "m16n8k8.row.col.f32.tf32.tf32.f32",
    }
}
